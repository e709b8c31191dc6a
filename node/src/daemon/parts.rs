//! The parts of a running daemon, and what it means that one of them ends.

use std::time::Duration;

use thiserror::Error;
use tokio::task::{JoinError, JoinHandle, JoinSet};

/// How long the event loop may take to end after a part that ended because of it.
const CAUSE_PATIENCE: Duration = Duration::from_secs(1);

/// The daemon had started, and a part of it failed while it ran.
#[derive(Debug, Error)]
#[error("{0}; start it again (systemd does): what was acknowledged is safe")]
pub struct Failed(pub(super) String);

/// The parts of a life that run until it is over. One that ends before has failed, and the daemon
/// with it: a node that looks alive and does half its work helps nobody.
#[derive(Default)]
pub(super) struct Parts(JoinSet<&'static str>);

impl Parts {
    pub(super) fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            part.await;
            name
        });
    }

    /// Waits until one has ended; names it. Safe to cancel.
    pub(super) async fn first_to_end(&mut self) -> &'static str {
        match self.0.join_next().await {
            Some(Ok(name)) => name,
            // The panic itself is in the log.
            Some(Err(_)) => "a part that panicked",
            None => std::future::pending().await,
        }
    }

    pub(super) async fn stop(&mut self) {
        self.0.shutdown().await;
    }
}

/// Why a part ended. Most stand on the event loop, and when it fails they end before it has: then
/// its reason is the true one. The loop has been awaited if it is finished afterwards.
pub(super) async fn cause(part: String, looping: &mut JoinHandle<anyhow::Result<()>>) -> String {
    match tokio::time::timeout(CAUSE_PATIENCE, looping).await {
        Ok(died) => why(died),
        Err(_goes_on) => part,
    }
}

/// Why the event loop ended though nobody told it to.
pub(super) fn why(died: Result<anyhow::Result<()>, JoinError>) -> String {
    match died {
        Ok(Err(reason)) => reason.to_string(),
        died => format!("the event loop ended by itself: {died:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_reason_of_the_event_loop_goes_before_those_of_the_parts_it_takes_along() {
        let dialer = || "the dialer ended by itself".to_owned();
        let mut failing = tokio::spawn(async {
            tokio::time::sleep(CAUSE_PATIENCE / 2).await;
            Err(anyhow::anyhow!("the store has ended by itself"))
        });
        assert_eq!(cause(dialer(), &mut failing).await, "the store has ended by itself");
        assert!(failing.is_finished());
        let mut sound = tokio::spawn(std::future::pending());
        assert_eq!(cause(dialer(), &mut sound).await, dialer());
        assert!(!sound.is_finished());
    }

    #[tokio::test]
    async fn a_part_that_ends_or_panics_is_noticed_and_the_others_are_not() {
        let mut parts = Parts::default();
        parts.spawn("the rest", std::future::pending());
        let soon = Duration::from_millis(10);
        assert!(tokio::time::timeout(soon, parts.first_to_end()).await.is_err(), "all of them run");
        parts.spawn("the dialer", async {});
        assert_eq!(parts.first_to_end().await, "the dialer");
        parts.spawn("the listener", async { std::panic::panic_any("for the test") });
        assert_eq!(parts.first_to_end().await, "a part that panicked");
    }
}
