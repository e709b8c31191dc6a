//! What the end-to-end tests and the benchmarks of Hearth share.
// A test that looks into an answer which is not there fails, as it should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod daemon;
pub mod emulator;
pub mod fakes;
pub mod home_assistant;
pub mod hostile;
pub mod network;
pub mod pebble;
pub mod python;
pub mod strace;
pub mod takeover;
