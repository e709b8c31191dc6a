//! The Hearth daemon as a library; the binary `hearth` is a thin shell over it.

pub mod state_dir;
pub mod store;
