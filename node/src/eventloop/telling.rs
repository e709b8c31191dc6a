//! What the rest of the node is told by the event loop, as it changes.

use super::EventLoop;
use crate::service::HouseholdTime;

/// Steps of the time of day that are told, in milliseconds: less is how long it takes to look at both clocks.
const TIME_STEP_MS: u64 = 100;

impl EventLoop {
    /// Tells the rest of the node when the time of day has stepped.
    pub(super) fn tell_time(&self) {
        let now = self.clock.now();
        let time = self.mesh.time().time_of_day(now);
        let ahead = i128::from(time.ms) - i128::from(now.wall_ms);
        let new =
            HouseholdTime { ahead_ms: i64::try_from(ahead).unwrap_or_default(), trusted: time.is_trusted() };
        self.time.send_if_modified(|told| {
            let differs = told.trusted != new.trusted || told.ahead_ms.abs_diff(new.ahead_ms) > TIME_STEP_MS;
            if differs {
                *told = new;
            }
            differs
        });
    }

    /// Tells the rest of the node whether something is missing here that a linked peer holds.
    pub(super) fn tell_caught_up(&self) {
        let caught_up = self.mesh.is_caught_up();
        self.caught_up.send_if_modified(|told| std::mem::replace(told, caught_up) != caught_up);
    }
}
