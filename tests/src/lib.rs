//! Placeholder.

pub mod emulator;
