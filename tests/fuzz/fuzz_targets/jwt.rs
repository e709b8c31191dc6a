//! A token of whoever comes, and the keys that an issuer publishes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| node::fuzzing::jwt(data));
