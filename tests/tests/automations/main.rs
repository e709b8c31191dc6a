//! Automations: real nodes, emulated bulbs, and what comes of a run when something goes wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod home;
mod nodes;
mod runs;
mod starts;
mod wrong;
