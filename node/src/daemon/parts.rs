//! The parts of a running daemon, and what it means that one of them ends.

use thiserror::Error;
use tokio::task::JoinSet;

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
