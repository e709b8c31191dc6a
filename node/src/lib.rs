//! The Hearth daemon as a library; the binary `hearth` is a thin shell over it.

pub mod api;
pub mod auth;
pub mod service;
