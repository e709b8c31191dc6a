//! Devices on real event loops, linked by QUIC on loopback: with an adapter that does what a test
//! says, and with the one for LIFX and the emulator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod adapters;
mod bulb;
mod home;
mod lifx;
mod scripted;
