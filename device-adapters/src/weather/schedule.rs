//! When the service is asked next. Pure: the random numbers come from whoever calls.

use std::time::Duration;

/// The longest that a service can make us wait, by `Expires` or `Retry-After`: a wrong clock over there must not end the
/// weather for good.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest random delay.
const MOST_JITTER: Duration = Duration::from_secs(5 * 60);
/// Of which part of the time between two requests the first pause after a failure is.
const FIRST_PAUSE: u32 = 10;
/// How many times the time between two requests the longest pause after failures is.
const LONGEST_PAUSE: u32 = 4;

/// How often the service may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The shortest time between two requests while all is well.
    pub(crate) refresh: Duration,
}

impl Policy {
    /// How long to wait after an answer that holds for so long by its own word. Never shorter than either, and some random
    /// time longer, so that the homes of a country do not all ask in the same second.
    pub(crate) fn after_answer(self, holds: Option<Duration>, random: u64) -> Duration {
        let wait = self.refresh.max(holds.unwrap_or_default()).min(LONGEST_WAIT);
        wait + part((self.refresh / 5).min(MOST_JITTER), random)
    }

    /// How long to wait after so many failures in a row: twice as long each time; at once the longest where asking again
    /// the same can be no use; and never shorter than the service asks for.
    pub(crate) fn after_failure(
        self,
        failures: u32,
        is_futile: bool,
        retry_after: Option<Duration>,
        random: u64,
    ) -> Duration {
        let longest = self.refresh.saturating_mul(LONGEST_PAUSE).min(LONGEST_WAIT);
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = (self.refresh / FIRST_PAUSE).saturating_mul(doubled).min(longest);
        let pause = if is_futile { longest } else { pause };
        let wait = pause.max(retry_after.unwrap_or_default()).min(LONGEST_WAIT);
        wait + part((pause / 4).min(MOST_JITTER), random)
    }
}

/// A random part of a time.
fn part(of: Duration, random: u64) -> Duration {
    let thousandths = u32::try_from(random % 1_001).unwrap_or(0);
    of.saturating_mul(thousandths) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER: Policy = Policy { refresh: Duration::from_secs(15 * 60) };

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(minutes * 60)
    }

    #[test]
    fn an_answer_holds_as_long_as_it_says_and_a_random_time_more() {
        assert_eq!(QUARTER.after_answer(None, 0), minutes(15));
        assert_eq!(QUARTER.after_answer(None, 1_000), minutes(18));
        assert_eq!(QUARTER.after_answer(Some(minutes(1)), 0), minutes(15));
        assert_eq!(QUARTER.after_answer(Some(minutes(40)), 500), minutes(41) + Duration::from_secs(30));
        assert_eq!(QUARTER.after_answer(Some(Duration::MAX), 0), LONGEST_WAIT);
    }

    #[test]
    fn failures_double_the_pause_up_to_its_longest() {
        let waits: Vec<_> = (1..=8).map(|failures| QUARTER.after_failure(failures, false, None, 0)).collect();
        let seconds = [90, 180, 360, 720, 1_440, 2_880, 3_600, 3_600];
        assert_eq!(waits, seconds.map(Duration::from_secs));
        assert_eq!(QUARTER.after_failure(u32::MAX, false, None, 0), minutes(60));
        assert_eq!(QUARTER.after_failure(1, true, None, 0), minutes(60));
    }

    #[test]
    fn the_service_may_ask_for_more_time_within_reason() {
        assert_eq!(QUARTER.after_failure(1, false, Some(minutes(30)), 0), minutes(30));
        assert_eq!(QUARTER.after_failure(1, false, Some(Duration::ZERO), 0), Duration::from_secs(90));
        assert_eq!(QUARTER.after_failure(1, false, Some(Duration::MAX), 0), LONGEST_WAIT);
        assert!(QUARTER.after_failure(1, false, Some(minutes(30)), 1_000) > minutes(30));
    }
}
