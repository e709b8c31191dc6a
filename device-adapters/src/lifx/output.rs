//! What a state machine wants done: datagrams to send and readings to pass on.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::adapter::Reading;

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transmit {
    /// Where to.
    pub(crate) to: SocketAddr,
    /// What.
    pub(crate) bytes: Vec<u8>,
}

/// What a state machine wants done.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Datagrams, oldest first.
    pub(crate) transmits: VecDeque<Transmit>,
    /// Readings, oldest first.
    pub(crate) readings: VecDeque<Reading>,
}
