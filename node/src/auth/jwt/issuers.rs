//! The way to the issuers, and how their tokens are checked by the last snapshot of them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
};

use super::{
    Issuer, Known, Refused, Spec, SpecError, Term, Trial, Vouched, claims, is_signed, outdated,
    owner::MAX_ISSUERS, token::Token, verify,
};
use crate::{
    auth::Secret,
    service::{HouseholdTime, ServiceError},
    timekeeping::unix_seconds,
};

/// A wait is looked at anew after so long: this machine's clock may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Why an issuer was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PutError {
    /// What is said of it breaks a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// No such issuer.
    #[error("there is no issuer of that name")]
    NotFound,
    /// The bound is reached.
    #[error("there are {MAX_ISSUERS} issuers already")]
    TooMany,
    /// Another has the same URL, and a token could be either's.
    #[error("`{0}` has the same `url`")]
    Taken(String),
    /// The event loop says no.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

pub(super) enum Request {
    Put(String, Box<Spec>, oneshot::Sender<Result<(), PutError>>),
    Remove(String, oneshot::Sender<Result<(), PutError>>),
    /// Answered when a fetch has ended, or at once where there is none to wait for.
    Fetch(String, oneshot::Sender<()>),
}

/// The way to the issuers.
#[derive(Debug, Clone)]
pub struct IssuersHandle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) known: watch::Receiver<Option<Arc<Known>>>,
    pub(super) time: watch::Receiver<HouseholdTime>,
    /// Who may look at a signature now.
    pub(super) turns: Arc<Semaphore>,
    /// Fetches of keys that failed since the start.
    pub(super) failures: Arc<AtomicU64>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Put(name, ..) | Self::Remove(name, _) | Self::Fetch(name, _)) = self;
        f.debug_tuple("Request").field(name).finish()
    }
}

impl IssuersHandle {
    /// Whom a token lets in. One that names an unknown key waits for one fetch at most.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn verify(&self, token: &Secret) -> Result<Vouched, Refused> {
        let now_s = self.now_s()?;
        let known = self.known().await?;
        match self.judge(&known, token, now_s).await {
            Err(refused) => match outdated(&known, token.expose(), &refused) {
                Some(name) => {
                    self.fetch(name.clone()).await;
                    self.judge(&self.known().await?, token, now_s).await
                }
                None => Err(refused),
            },
            vouched => vouched,
        }
    }

    /// The same by these issuers. Signatures cost time, which the rest of the node is not to wait for.
    async fn judge(&self, known: &Arc<Known>, token: &Secret, now_s: i64) -> Result<Vouched, Refused> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Refused::Stopping)?;
        let (known, token) = (Arc::clone(known), token.clone());
        // A client that goes away does not end the work: its turn is over when it is done.
        let done = spawn_blocking(move || {
            let _held = turn;
            verify(&known, token.expose(), now_s)
        });
        done.await.unwrap_or(Err(Refused::Stopping))
    }

    /// What a token would be if it came now, as one of this issuer's; `None` where there is no such issuer.
    pub async fn try_out(&self, name: &str, token: &Secret) -> Option<Trial> {
        let known = match self.known().await {
            Ok(known) => known,
            Err(stopping) => return Some(Trial { outcome: Err(stopping), found: Vec::new() }),
        };
        known.get(name)?;
        let outcome = match self.verify(token).await {
            Ok(vouched) if vouched.issuer != name => Err(Refused::Issuer),
            outcome => outcome,
        };
        // The keys may be newer now.
        let known = self.known().await.unwrap_or(known);
        let found = known.get(name).map(|issuer| found(issuer, token.expose())).unwrap_or_default();
        Some(Trial { outcome, found })
    }

    /// The issuers by name.
    ///
    /// # Errors
    /// [`Refused::Stopping`].
    pub async fn known(&self) -> Result<Arc<Known>, Refused> {
        let mut known = self.known.clone();
        let found = known.wait_for(Option::is_some).await.map_err(|_| Refused::Stopping)?;
        found.clone().ok_or(Refused::Stopping)
    }

    /// The issuers as far as they are known by now, without waiting.
    pub fn known_now(&self) -> Arc<Known> {
        self.known.borrow().clone().unwrap_or_default()
    }

    /// How many fetches of keys have failed since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Takes an issuer on, or changes what is said of it; answered once that is durable.
    ///
    /// # Errors
    /// [`PutError`]; nothing has changed, except as [`ServiceError`] says.
    pub async fn put(&self, name: String, spec: Spec) -> Result<(), PutError> {
        self.ask(|reply| Request::Put(name, Box::new(spec), reply)).await
    }

    /// Forgets an issuer: its tokens open nothing any more, here at once and everywhere as that spreads.
    ///
    /// # Errors
    /// As [`IssuersHandle::put`].
    pub async fn remove(&self, name: String) -> Result<(), PutError> {
        self.ask(|reply| Request::Remove(name, reply)).await
    }

    /// Waits for keys that are being fetched, or fetches them if that may be done again.
    pub async fn fetch(&self, name: String) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Fetch(name, reply)).await.is_ok() {
            // A reply that was dropped means that the issuer has gone.
            let _ = answer.await;
        }
    }

    /// Returns when a token counts no more: it has ended, or the household says something else of its issuer.
    pub async fn ends(&self, term: &Term) {
        let mut known = self.known.clone();
        let is_other = |known: &Option<Arc<Known>>| {
            let issuer = known.as_ref().and_then(|known| known.get(&term.issuer));
            issuer.is_none_or(|issuer| issuer.spec != term.spec)
        };
        tokio::select! {
            // A closed channel means that the node is stopping.
            _ = known.wait_for(is_other) => {}
            () = self.is_over(term.until_s) => {}
        }
    }

    async fn is_over(&self, until_s: i64) {
        let mut time = self.time.clone();
        while let Ok(now_s) = self.now_s() {
            let Some(left) = u64::try_from(until_s.saturating_sub(now_s)).ok().filter(|left| *left > 0)
            else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(left).min(LOOK_AGAIN)) => {}
                Ok(()) = time.changed() => {}
            }
        }
    }

    /// The household's time, in seconds since 1970: only one that rests on a clock, or on somebody's word.
    fn now_s(&self) -> Result<i64, Refused> {
        let HouseholdTime { ahead_ms, trusted } = *self.time.borrow();
        if !trusted {
            return Err(Refused::Clock);
        }
        Ok(i64::try_from(unix_seconds()).unwrap_or(i64::MAX).saturating_add(ahead_ms / 1_000))
    }

    async fn ask(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<(), PutError>>) -> Request,
    ) -> Result<(), PutError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || PutError::Service(ServiceError::Stopping);
        self.requests.send(make(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// What the claim that gives roles holds, in a token that is the issuer's.
fn found(issuer: &Issuer, text: &str) -> Vec<String> {
    let Ok(token) = Token::parse(text) else { return Vec::new() };
    if is_signed(issuer, &token).is_err() {
        return Vec::new();
    }
    claims::values(&issuer.spec, &token.claims).into_iter().map(str::to_owned).collect()
}
