//! Waiting for conditions, never for time.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, timeout};

/// Polls a condition until it is true. An error of the condition counts as not yet.
///
/// # Errors
/// When the deadline passes; names what was waited for and the last error.
pub async fn wait_until(
    what: &str,
    within: Duration,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + within;
    let mut pace = pace();
    let mut last = None;
    loop {
        pace.tick().await;
        match timeout(deadline.saturating_duration_since(Instant::now()), condition()).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => last = None,
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            let last = last.map(|error| format!("; the last error: {error:#}")).unwrap_or_default();
            bail!("waited {within:?} until {what}{last}");
        }
    }
}

/// How often a condition is looked at.
pub(super) fn pace() -> tokio::time::Interval {
    let mut pace = tokio::time::interval(Duration::from_millis(25));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pace
}
