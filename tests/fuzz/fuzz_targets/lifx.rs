//! Datagrams of bulbs, and of whoever else is on the LAN, into a driver with commands in flight.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| device_adapters::fuzzing::lifx(data));
