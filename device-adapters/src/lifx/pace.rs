//! When hardware is spoken to: how fast, how soon again, and after how much silence.

use std::time::Duration;

use tokio::time::Instant;

/// Messages that may follow each other at once after a pause: a colour, a power and a read-back.
const BURST: u32 = 3;
/// The time that one message uses up. With the burst and two rounds of discovery that is at most 18
/// messages in any second: LIFX asks clients to stay under 20, and what leaves us apart may arrive together.
const PER_MESSAGE: Duration = Duration::from_millis(72);

/// Times that all hardware shares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Between two polls.
    pub(crate) poll: Duration,
    /// Between two rounds of discovery.
    pub(crate) discover: Duration,
    /// How long a cleaning cycle is; zero is as the bulb is set.
    pub(crate) clean: Duration,
}

impl Timing {
    /// The silence after which a bulb is asked whether it is still there.
    pub(crate) fn quiet(&self) -> Duration {
        self.discover.mul_f64(1.25)
    }

    /// The silence after which a bulb is lost.
    pub(crate) fn lost(&self) -> Duration {
        self.discover * 3
    }
}

/// Keeps the rate of messages to one piece of hardware (a generic cell rate algorithm).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    used_up_to: Instant,
}

impl Pace {
    /// Nothing was sent yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { used_up_to: now }
    }

    /// When the next message may be sent; may lie in the past.
    pub(crate) fn ready(&self) -> Instant {
        self.used_up_to.checked_sub(PER_MESSAGE * (BURST - 1)).unwrap_or(self.used_up_to)
    }

    /// A message was sent.
    pub(crate) fn spend(&mut self, now: Instant) {
        self.used_up_to = self.used_up_to.max(now) + PER_MESSAGE;
    }
}

/// How long to wait for an answer to the `tries`-th message in a row (0 is the first) before asking again.
///
/// Quick at first, because a lost datagram is the usual reason; slow in the end, because a bulb
/// that did not answer twenty times is not there.
pub(crate) fn patience(tries: u32) -> Duration {
    if tries < 20 {
        Duration::from_millis(u64::from(150 + 25 * tries.min(4)))
    } else {
        Duration::from_secs(1)
    }
}
