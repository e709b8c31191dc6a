//! When an owned device is polled, and when its silence means that it is offline.

use std::time::Duration;

use tokio::time::Instant;

/// Messages that make one poll: at 30 % of loss each way one in fifteen polls still goes unanswered.
const TRIES: u32 = 4;
/// Between the messages of one poll.
const RETRY: Duration = Duration::from_millis(250);
/// Polls in a row without an answer that mean "offline".
const OFFLINE_AFTER: u32 = 3;
/// The longest pause between two polls of a bulb that is offline.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// What a poll that is due means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tick {
    /// Ask for the state.
    Ask,
    /// A poll went unanswered; not yet often enough.
    Missed,
    /// So many polls in a row went unanswered that the bulb is offline.
    Silent(u32),
}

/// The polling of one device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Poll {
    interval: Duration,
    due: Instant,
    tries: u32,
    missed: u32,
}

impl Poll {
    /// The first poll is due now, the next after `interval`.
    pub(crate) fn new(now: Instant, interval: Duration) -> Self {
        Self { interval, due: now, tries: 0, missed: 0 }
    }

    /// When the next message, or the end of the wait for the last, is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// What to do now that it is due.
    pub(crate) fn tick(&mut self, now: Instant) -> Tick {
        if self.tries < TRIES {
            self.tries += 1;
            self.due = now + RETRY;
            return Tick::Ask;
        }
        self.tries = 0;
        self.missed = self.missed.saturating_add(1);
        if self.missed < OFFLINE_AFTER {
            self.due = now + RETRY;
            return Tick::Missed;
        }
        let backoff = Duration::from_secs(1 << (self.missed - OFFLINE_AFTER).min(4));
        self.due = now + backoff.min(LONGEST_BACKOFF).min(self.interval.max(Duration::from_secs(1)));
        Tick::Silent(self.missed)
    }

    /// The device answered a read.
    pub(crate) fn answered(&mut self, now: Instant) {
        (self.due, self.tries, self.missed) = (now + self.interval, 0, 0);
    }

    /// The hardware answered something.
    pub(crate) fn heard(&mut self) {
        self.missed = 0;
    }

    /// Poll at once.
    pub(crate) fn hurry(&mut self, now: Instant) {
        (self.due, self.tries) = (now, 0);
    }
}
