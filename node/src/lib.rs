//! The Hearth daemon as a library; the binary `hearth` is a thin shell over it.

pub mod api;
pub mod audit;
pub mod auth;
pub mod automation;
pub mod backup;
mod buckets;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod devices;
pub mod discovery;
pub mod eventloop;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod history;
pub mod json;
pub mod listener;
pub mod logging;
pub mod origin;
pub mod plain_http;
pub mod service;
pub mod state_dir;
pub mod store;
pub mod supervisor;
pub mod timekeeping;
pub mod tls;
pub mod transport;
