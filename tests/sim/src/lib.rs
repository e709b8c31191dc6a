//! A deterministic simulation of a household: many nodes, each the real machine of
//! `mesh-proto`, with simulated clocks, disks and network, checked against a reference model.
//!
//! One seed decides everything. `world.rs` holds time and the queue of what happens, `net.rs`
//! the links, `disk.rs` the stores, `node.rs` the nodes, `scenario.rs` what is done to them;
//! `oracle.rs` judges every step, `quiet.rs` the end, by `model.rs`.

// A simulation is a test: when its own books are wrong it must stop at once and loudly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

pub mod cli;
mod disk;
mod figures;
mod members;
mod model;
mod net;
mod node;
mod oracle;
mod panics;
#[cfg(feature = "planted-bugs")]
mod planted;
mod quiet;
mod rng;
mod run;
mod scenario;
mod setup;
mod tight;
mod trace;
mod workload;
mod world;

use mesh_proto::ObjectId;

/// A law that did not hold.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The law.
    pub(crate) oracle: &'static str,
    /// What was seen.
    pub(crate) reason: String,
    /// The object concerned, if it is about one.
    pub(crate) object: Option<ObjectId>,
    /// When, in milliseconds of the run.
    pub(crate) at: u64,
}

impl Failure {
    pub(crate) fn new(oracle: &'static str, reason: String) -> Self {
        Self { oracle, reason, object: None, at: 0 }
    }

    pub(crate) fn on(mut self, object: &ObjectId) -> Self {
        self.object = Some(object.clone());
        self
    }

    pub(crate) fn at(mut self, now: u64) -> Self {
        self.at = now;
        self
    }
}
