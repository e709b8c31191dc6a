//! An answer of a name server, or of whoever pretends to be one.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| node::fuzzing::dns(data));
