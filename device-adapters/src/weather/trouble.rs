//! What a run that gives up leaves to the next one of the same settings: the service is as silent as before, and asked as
//! seldom. Another board begins anew, for it may reach the service.
//!
//! Runs of one adapter follow each other, so nobody waits for this lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::fetch::Fault;

/// What is older says nothing of today.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// A service that does not answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trouble {
    /// Why, the last time.
    pub(crate) fault: Fault,
    /// How often in a row.
    pub(crate) failures: u32,
    /// When it may be asked again.
    pub(crate) next_request: Instant,
}

/// By adapter, with the number of the settings.
static LEFT: Mutex<BTreeMap<&'static str, (u64, Trouble)>> = Mutex::new(BTreeMap::new());

/// Leaves it to the next run.
pub(crate) fn leave(adapter: &'static str, settings: u64, trouble: Trouble) {
    left().insert(adapter, (settings, trouble));
}

/// What the last run left, if it had these settings.
pub(crate) fn take(adapter: &'static str, settings: u64, now: Instant) -> Option<Trouble> {
    let (of, trouble) = left().remove(adapter)?;
    (of == settings && now < trouble.next_request + FORGOTTEN).then_some(trouble)
}

fn left() -> MutexGuard<'static, BTreeMap<&'static str, (u64, Trouble)>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken_once_with_the_same_settings_while_it_is_young() {
        let now = Instant::now();
        let fault = Fault { words: String::new(), is_unreachable: true, is_futile: false, retry_after: None };
        let trouble = Trouble { fault, failures: 3, next_request: now };
        leave("one", 1, trouble.clone());
        assert_eq!(take("another", 1, now), None);
        assert_eq!(take("one", 1, now), Some(trouble.clone()));
        assert_eq!(take("one", 1, now), None);
        leave("one", 1, trouble.clone());
        assert_eq!(take("one", 2, now), None, "somebody changed something");
        leave("one", 1, trouble);
        assert_eq!(take("one", 1, now + FORGOTTEN), None);
    }
}
