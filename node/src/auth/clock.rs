//! The time of day by which tokens and sessions end.

use tokio::sync::watch;

use crate::service::{HouseholdTime, ObjectView};

/// The household's time of day, and no earlier than what is known to have happened.
///
/// While that time is not known, as on a board without a battery whose network is down, the clock may be years behind, and what
/// has ended must not open anything again by that: then it is at least as late as what was written last, by whichever node.
pub(super) struct Clock {
    time: watch::Receiver<HouseholdTime>,
    /// The latest that was written, in milliseconds since 1970.
    latest_ms: u64,
}

impl Clock {
    pub(super) fn new(time: watch::Receiver<HouseholdTime>) -> Self {
        Self { time, latest_ms: 0 }
    }

    /// Takes in when an object was written.
    pub(super) fn see(&mut self, object: &ObjectView) {
        self.latest_ms = self.latest_ms.max(written_ms(object));
    }

    /// Whether it is known to be right.
    pub(super) fn is_trusted(&self) -> bool {
        self.time.borrow().trusted
    }

    /// Now, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        let time = *self.time.borrow();
        let now = time.now_ms();
        if time.trusted { now } else { now.max(self.latest_ms) }
    }

    /// Returns when it is told anew; never, once nobody is left to tell it.
    pub(super) async fn told(&mut self) {
        if self.time.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// When any field of an object was written last, in milliseconds since 1970.
pub(super) fn written_ms(object: &ObjectView) -> u64 {
    object.fields.values().map(|field| field.at_ms).max().unwrap_or(0)
}
