//! The Hearth daemon as a library; the binary `hearth` is a thin shell over it.

pub mod cli;
pub mod config;
pub mod logging;
