//! The simulation, the end-to-end tests and the benchmarks of Hearth.

pub mod daemon;
pub mod emulator;
pub mod hostile;
pub mod sim;
