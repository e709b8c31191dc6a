//! The head of a request to port 80, or of plain HTTP on the port of HTTPS.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| node::fuzzing::head(data));
