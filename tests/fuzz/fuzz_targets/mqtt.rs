//! Announcements at an MQTT broker, their templates, and messages for what they announce.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| device_adapters::fuzzing::mqtt(data));
