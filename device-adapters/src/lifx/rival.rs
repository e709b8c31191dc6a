//! Somebody at another address who answers to the serial number of hardware that is known: either that has moved, or there
//! are two. Which of both shows when it is asked where it was.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::wire::Serial;

/// How long hardware may take to answer where it was; then it has moved.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1_500);
/// How often it is asked there meanwhile: a datagram may be lost.
pub(crate) const ASKED_EVERY: Duration = Duration::from_millis(250);

/// Who answers at another address.
#[derive(Debug)]
pub(crate) struct Rival {
    /// Where.
    pub(crate) addr: SocketAddr,
    /// When it answered last.
    heard: Instant,
    /// Since when it is not known whether the hardware has moved there.
    open: Option<Instant>,
    is_told: bool,
}

impl Rival {
    /// It answered for the first time.
    pub(crate) fn new(addr: SocketAddr, now: Instant) -> Self {
        Self { addr, heard: now, open: Some(now), is_told: false }
    }

    /// It answered again.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.open = self.open.or(Some(now));
    }

    /// Whether the hardware has to be asked where it was.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The hardware answered where it was: there are two. True when that has to be told.
    pub(crate) fn is_another(&mut self) -> bool {
        self.open.take().is_some() && !std::mem::replace(&mut self.is_told, true)
    }

    /// What people have to know of two that have one serial number, of which the one at `used` is spoken to.
    pub(crate) fn remark(&self, serial: Serial, used: &str) -> Option<String> {
        let Self { addr, is_told, .. } = self;
        is_told.then(|| {
            format!("two answer as {serial}, and the one at {used} is used: take the one at {addr} off the network")
        })
    }

    /// Whether the hardware has moved there.
    pub(crate) fn is_it(&self, now: Instant) -> bool {
        self.open.is_some_and(|open| now >= open + ANSWERS_WITHIN)
    }

    /// When that has to be decided, or it counts as gone after so long a silence.
    pub(crate) fn due(&self, lost: Duration) -> Instant {
        self.open.map_or(self.heard + lost, |open| open + ANSWERS_WITHIN)
    }
}
