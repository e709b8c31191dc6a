//! Certificates: real nodes and a real certificate authority, Pebble, through a proxy that counts and disturbs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod crowd;
mod five;
mod gateway;
mod harness;
mod household;
mod issue;
mod killed;
mod lan;
mod month;
mod owner;
mod refused;
mod renewal;
mod shown;
