//! What WLED boards and Shelly devices, or whoever pretends to be one, say of themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| device_adapters::fuzzing::lan(data));
