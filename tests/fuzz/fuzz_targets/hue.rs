//! What a bridge answers, and its stream of events however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| device_adapters::fuzzing::hue(data));
