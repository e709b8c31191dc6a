//! The number of a press: another one than that of any press before it, also of those that an earlier run has told.

use std::time::{SystemTime, UNIX_EPOCH};

/// The number of the press after the one of that number; zero means that this run has told none yet. It begins at the
/// milliseconds since 1970, for nobody presses a thousand times a second.
pub(crate) fn after(number: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1);
    if number == 0 { first } else { number.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_press_of_a_run_has_the_number_of_one_of_an_earlier_run() {
        let first = after(0);
        assert!(first > 1_700_000_000_000);
        assert_eq!(after(first), first + 1);
    }
}
