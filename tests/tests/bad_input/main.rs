//! What bad input gets: real daemons, attacked by a person, a file, a disk, a clock or a peer.
//!
//! Each test asserts the error by name, its counter, bounded memory, and that a good peer and a
//! good client are served meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod clock;
mod config;
mod damage;
mod frames;
mod invites;
mod ports;
mod state;
