//! Properties of the protocol as a whole; each is a law or an invariant of ALGORITHM.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bounds;
mod exchange;
mod harness;
mod hostile;
mod members;
mod outside;
mod queues;
mod relay;
mod replicas;
mod reported;
mod rivals;
mod setback;
