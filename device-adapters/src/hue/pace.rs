//! How fast a bridge is asked, and how soon again when it does not answer. Pure.
//!
//! Source: <https://developers.meethue.com/develop/application-design-guidance/hue-system-performance/>: at most 10 commands a second
//! for lights and 1 for groups, because one command for a group is sent to every light of the home.

use std::time::Duration;

use tokio::time::Instant;

/// The time between two requests of any kind: a little more than a tenth of a second, because they arrive unevenly.
const STEP: Duration = Duration::from_millis(115);
/// The time between two commands for groups.
const GROUP_STEP: Duration = Duration::from_millis(1_050);
/// The pauses after requests that failed: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a bridge that is too busy is left alone, when it does not say, and at most.
const BUSY: Duration = Duration::from_secs(1);
const MOST_BUSY: Duration = Duration::from_secs(30);

/// When the next request may leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    next: Instant,
    next_group: Instant,
}

impl Pace {
    /// Nothing was asked yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now, next_group: now }
    }

    /// When the next request may leave.
    pub(crate) fn ready(&self) -> Instant {
        self.next
    }

    /// When the next command for a group may leave.
    pub(crate) fn ready_for_group(&self) -> Instant {
        self.next.max(self.next_group)
    }

    /// A request leaves.
    pub(crate) fn spend(&mut self, now: Instant, is_for_group: bool) {
        self.next = self.next.max(now + STEP);
        if is_for_group {
            self.next_group = now + GROUP_STEP;
        }
    }

    /// So many requests in a row failed.
    pub(crate) fn pause(&mut self, now: Instant, failures: u32) {
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(failures.saturating_sub(1).min(8));
        self.next = self.next.max(now + pause.min(LONGEST_PAUSE));
    }

    /// The bridge is too busy, and wants to be asked again after so many seconds.
    pub(crate) fn leave_alone(&mut self, now: Instant, seconds: Option<u64>) {
        let pause = seconds.map_or(BUSY, |seconds| Duration::from_secs(seconds.max(1)).min(MOST_BUSY));
        self.next = self.next.max(now + pause);
    }
}
