//! The answers of weather services.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| device_adapters::fuzzing::weather(data));
