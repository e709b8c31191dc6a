//! Placeholder.

pub mod emulator;
pub mod hostile;
