//! The parts of the Hearth daemon and its command line.

pub mod auth;
pub mod listener;
pub mod tls;
pub mod transport;
