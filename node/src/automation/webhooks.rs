//! Webhooks: paths that nobody can guess, each of which starts one automation.
//!
//! A path ends in 160 random bits. The object of the automation holds their hash alone, and every node knows the path by that. One task
//! admits whoever calls, so that a flood of callers never holds up the automations themselves.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use data_encoding::BASE32_NOPAD;
use mesh_proto::Value;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::pace::Pace;
use crate::auth::{Secret, attempts::Attempts, random};

/// Calls of one path within a short time.
const BURST: f64 = 10.0;
/// Calls of one path a minute, in the long run.
const A_MINUTE: f64 = 15.0;
/// Callers that may wait.
const QUEUE: usize = 64;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The automation.
    pub automation: String,
    /// Whether a call starts it: it is on, understood, and has a trigger for that.
    pub is_open: bool,
}

/// The paths of the household by their hashes; none until this node knows its automations.
pub type Hooks = Option<Arc<BTreeMap<[u8; 32], Hook>>>;

/// Why a call starts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// No automation has that path (any more).
    #[error("there is no such path")]
    Unknown,
    /// The same, and the address of the caller has tried too many.
    #[error("too many wrong paths came from this address")]
    Paced {
        /// Seconds until it may try again.
        retry_after_s: u64,
    },
    /// The path is called too often.
    #[error("this path takes {BURST} calls at once and {A_MINUTE} a minute")]
    TooOften {
        /// Seconds until it may be called again.
        retry_after_s: u64,
    },
    /// The automation does not take calls.
    #[error("its automation is off, or is not started by a webhook")]
    Closed,
    /// Too many callers wait already.
    #[error("too many calls wait already")]
    Overloaded,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// Makes a path's secret part and the value that is stored of it; none when the system has no randomness.
pub(super) fn fresh() -> Option<(Secret, Value)> {
    let token = Secret::new(BASE32_NOPAD.encode(&random::<20>()?).to_ascii_lowercase());
    let hash = Value::Bytes(hash(&token).as_slice().into());
    Some((token, hash))
}

/// What is stored of a path, read back.
pub(super) fn read(value: &Value) -> Option<[u8; 32]> {
    if let Value::Bytes(hash) = value { (&**hash).try_into().ok() } else { None }
}

/// How often the path of one automation is taken.
pub(super) fn pace() -> Pace {
    Pace::new(BURST, A_MINUTE / 60.0)
}

/// Paths are looked for by their hashes: how long that takes tells nothing of a path.
fn hash(token: &Secret) -> [u8; 32] {
    *blake3::hash(token.expose().as_bytes()).as_bytes()
}

#[derive(Debug)]
struct Call {
    token: Secret,
    remote: Option<IpAddr>,
    reply: oneshot::Sender<Result<String, Refused>>,
}

/// The way to the one who admits callers.
#[derive(Debug, Clone)]
pub struct WebhooksHandle(mpsc::Sender<Call>);

impl WebhooksHandle {
    /// Whom a path starts, if it may be called now; counts as a call.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn admit(&self, token: Secret, remote: Option<IpAddr>) -> Result<String, Refused> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Call { token, remote, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Refused::Stopping,
        })?;
        answer.await.unwrap_or(Err(Refused::Stopping))
    }
}

/// The one who admits callers; a task runs it.
pub struct Webhooks {
    calls: mpsc::Receiver<Call>,
    hooks: watch::Receiver<Hooks>,
    /// By automation: a fresh path gives no fresh budget.
    paces: BTreeMap<String, Pace>,
    attempts: Attempts,
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").finish_non_exhaustive()
    }
}

impl Webhooks {
    /// The task and the way to it; the engine says which paths there are.
    pub fn new(hooks: watch::Receiver<Hooks>) -> (WebhooksHandle, Self) {
        let (sender, calls) = mpsc::channel(QUEUE);
        let (paces, attempts) = (BTreeMap::new(), Attempts::default());
        (WebhooksHandle(sender), Self { calls, hooks, paces, attempts })
    }

    /// Serves until every handle is gone, or the engine. Calls wait until the paths are known, so that none is refused because the node
    /// has just started.
    pub async fn run(mut self) {
        if self.hooks.wait_for(Option::is_some).await.is_err() {
            return;
        }
        while let Some(Call { token, remote, reply }) = self.calls.recv().await {
            let _ = reply.send(self.admit(&token, remote)); // whoever called is gone
        }
    }

    fn admit(&mut self, token: &Secret, remote: Option<IpAddr>) -> Result<String, Refused> {
        let hooks = self.hooks.borrow_and_update().clone().unwrap_or_default();
        let Some(Hook { automation, is_open }) = hooks.get(&hash(token)) else {
            let wait = self.attempts.wrong(remote, Instant::now());
            return Err(wait.map_or(Refused::Unknown, |retry_after_s| Refused::Paced { retry_after_s }));
        };
        if !self.paces.contains_key(automation) {
            self.paces.retain(|known, _| hooks.values().any(|hook| hook.automation == *known));
        }
        let pace = self.paces.entry(automation.clone()).or_insert_with(pace);
        pace.take().map_err(|wait| Refused::TooOften { retry_after_s: whole_seconds(wait) })?;
        if *is_open { Ok(automation.clone()) } else { Err(Refused::Closed) }
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tokio::time::advance;

    use super::*;

    /// Paths of open automations, and of a closed one.
    fn paths(open: &[&str], closed: &[&str]) -> (Vec<Secret>, Hooks) {
        let named = open.iter().map(|name| (name, true)).chain(closed.iter().map(|name| (name, false)));
        let (tokens, hooks): (Vec<_>, BTreeMap<_, _>) = named
            .map(|(name, is_open)| {
                let (token, value) = fresh().unwrap();
                (token, (read(&value).unwrap(), Hook { automation: (*name).to_owned(), is_open }))
            })
            .unzip();
        (tokens, Some(Arc::new(hooks)))
    }

    fn start(hooks: Hooks) -> (WebhooksHandle, watch::Sender<Hooks>) {
        let (known, receiver) = watch::channel(hooks);
        let (handle, task) = Webhooks::new(receiver);
        tokio::spawn(task.run());
        (handle, known)
    }

    #[test]
    fn a_path_is_long_and_random_and_is_stored_as_a_hash() {
        let (one, stored) = fresh().unwrap();
        let (two, _) = fresh().unwrap();
        assert_eq!(one.expose().len(), 32);
        assert_ne!(one, two);
        assert_eq!(read(&stored), Some(hash(&one)));
        assert!(!format!("{stored:?} {one:?}").contains(one.expose()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_starts_its_automation_until_there_is_another_one() {
        let (tokens, hooks) = paths(&["hall"], &["attic"]);
        let (handle, known) = start(None);
        let call = tokio::spawn({
            let (handle, token) = (handle.clone(), tokens[0].clone());
            async move { handle.admit(token, None).await }
        });
        advance(Duration::from_secs(5)).await;
        assert!(!call.is_finished(), "it waits until the paths are known");
        known.send_replace(hooks);
        assert_eq!(call.await.unwrap(), Ok("hall".to_owned()));
        assert_eq!(handle.admit(tokens[1].clone(), None).await, Err(Refused::Closed));
        let (fresh, hooks) = paths(&["hall"], &[]);
        known.send_replace(hooks);
        assert_eq!(handle.admit(tokens[0].clone(), None).await, Err(Refused::Unknown));
        assert_eq!(handle.admit(fresh[0].clone(), None).await, Ok("hall".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_takes_ten_calls_at_once_and_fifteen_a_minute_whatever_others_get() {
        let (tokens, hooks) = paths(&["hall", "attic"], &[]);
        let (handle, _known) = start(hooks);
        for _ in 0..10 {
            handle.admit(tokens[0].clone(), None).await.unwrap();
        }
        let call = async || handle.admit(tokens[0].clone(), None).await;
        assert_eq!(call().await, Err(Refused::TooOften { retry_after_s: 4 }));
        handle.admit(tokens[1].clone(), None).await.unwrap();
        advance(Duration::from_secs(4)).await;
        assert_eq!(call().await, Ok("hall".to_owned()));
        assert!(call().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_guesses_has_to_wait_and_whoever_knows_does_not() {
        let (tokens, hooks) = paths(&["hall"], &[]);
        let (handle, _known) = start(hooks);
        let remote = Some(IpAddr::from([10, 0, 0, 1]));
        let guess = async || handle.admit(Secret::new("guess"), remote).await;
        for _ in 0..6 {
            assert_eq!(guess().await, Err(Refused::Unknown));
        }
        assert!(matches!(guess().await, Err(Refused::Paced { retry_after_s: 1..=3 })));
        assert!(handle.admit(tokens[0].clone(), remote).await.is_ok());
    }
}
