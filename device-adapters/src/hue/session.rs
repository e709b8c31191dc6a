//! A bridge that is spoken to: what decides for it, and its connections.

use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::adapter::Secret;
use crate::http::Client;

use super::driver::Driver;
use super::link::Link;

/// A bridge that fails for so long may be elsewhere.
const MISSED_AFTER: Duration = Duration::from_secs(4);

/// A bridge that is spoken to.
pub(crate) struct Session {
    pub(crate) driver: Driver,
    pub(crate) link: Link,
    pub(crate) key: Secret,
    /// Tells the connections of a bridge that moved from those before.
    pub(crate) number: u64,
    /// The client, while it is not asking.
    pub(crate) client: Option<Client>,
    pub(crate) listener: Option<AbortHandle>,
    /// The number of the listener: what an older one said is past.
    pub(crate) listening: u64,
}

impl Session {
    /// Whether it fails for so long that it may be elsewhere.
    pub(crate) fn is_missed(&self, now: Instant) -> bool {
        self.driver.failing(now).is_some_and(|(silent, _)| silent >= MISSED_AFTER)
    }

    /// Whether it answers as it should, and need not be looked for.
    pub(crate) fn is_well(&self, now: Instant) -> bool {
        self.driver.refused().is_none() && !self.is_missed(now)
    }

    /// The stream of events is not listened to any more.
    pub(crate) fn hang_up(&mut self) {
        self.listening = 0;
        if let Some(listener) = self.listener.take() {
            listener.abort();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hang_up();
    }
}
