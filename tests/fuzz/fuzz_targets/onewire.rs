//! What a thermometer on a long wire sends.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| device_adapters::fuzzing::onewire(data));
