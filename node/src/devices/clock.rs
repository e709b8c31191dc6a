//! The household's time of day, as this node's own stamps show it.
//!
//! Deadlines are compared with stamps of other nodes. A board without a battery clock stamps by
//! its peers' time while its own clock is years away, so the wall clock alone would let every
//! command look late; the stamps on this node's own fresh writes tell the difference.

use std::time::{SystemTime, UNIX_EPOCH};

/// Differences below this are the time a write takes, in milliseconds.
const TOLERANCE_MS: u64 = 1_000;

/// The wall clock and its known correction.
#[derive(Debug, Default)]
pub(crate) struct HouseholdClock {
    offset_ms: i64,
    newest_ms: u64,
}

impl HouseholdClock {
    /// The household's time, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        wall_ms().saturating_add_signed(self.offset_ms)
    }

    /// A write that this node made a moment ago carries this stamp, in milliseconds since 1970.
    pub(crate) fn learn(&mut self, stamp_ms: u64) {
        self.learn_at(stamp_ms, wall_ms());
    }

    fn learn_at(&mut self, stamp_ms: u64, wall_ms: u64) {
        if stamp_ms <= self.newest_ms {
            return; // seen before: how long ago it was made is not known
        }
        self.newest_ms = stamp_ms;
        let differs = stamp_ms.abs_diff(wall_ms) > TOLERANCE_MS;
        let offset = i128::from(stamp_ms) - i128::from(wall_ms);
        self.offset_ms = if differs { i64::try_from(offset).unwrap_or(0) } else { 0 };
    }
}

fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_large_and_fresh_difference_counts() {
        let mut clock = HouseholdClock::default();
        clock.learn_at(10_500, 10_000);
        assert_eq!(clock.offset_ms, 0);
        clock.learn_at(1_000_000, 11_000);
        assert_eq!(clock.offset_ms, 989_000);
        clock.learn_at(1_000_000, 500_000);
        assert_eq!(clock.offset_ms, 989_000, "an old stamp seen again tells nothing");
        clock.learn_at(1_500_010, 1_500_000);
        assert_eq!(clock.offset_ms, 0, "the clock was set meanwhile");
    }
}
