//! The household's time of day, as the mesh keeps it.
//!
//! Deadlines are compared with times of other nodes. A board without a battery clock goes by its peers' time while its own clock is
//! years away, so the wall clock alone would let every command look late; the event loop tells how far they are apart.

use tokio::sync::watch;

use crate::service::HouseholdTime;

/// The wall clock and its correction.
#[derive(Debug, Clone)]
pub(crate) struct HouseholdClock(watch::Receiver<HouseholdTime>);

impl HouseholdClock {
    /// Goes by what the event loop tells.
    pub(crate) fn new(time: watch::Receiver<HouseholdTime>) -> Self {
        Self(time)
    }

    /// The household's time, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.borrow().now_ms()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_goes_forth_and_back_with_the_household() {
        let (told, time) = watch::channel(HouseholdTime::default());
        let clock = HouseholdClock::new(time);
        for ahead_ms in [0, 989_000_000, -989_000_000, 5_000] {
            told.send_replace(HouseholdTime { ahead_ms, trusted: true });
            let expected = jiff::Timestamp::now().as_millisecond() + ahead_ms;
            assert!(clock.now_ms().abs_diff(u64::try_from(expected).unwrap()) < 60_000, "{ahead_ms}");
        }
    }
}
