//! Answers to the challenges of a certificate authority, which any gateway of the household gives.
//!
//! | file | what |
//! | --- | --- |
//! | `answers` | what an answer is, and the way to publish one |
//! | `object` | an answer as an object of the household |
//! | `owner` | the table of what this node answers, and its acknowledgements |

mod object;
mod owner;

use std::{collections::BTreeSet, fmt, pin::pin, time::Duration};

use mesh_proto::{ObjectId, ShortId, kinds::Author};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use self::object::{Entry, Gateways};
pub use self::owner::{Answers, Served, Serves};
use super::Domain;
use crate::service::{Changes, HouseholdTime, Op, Service, ServiceError};

/// How long the gateways may take to acknowledge an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after its start a node waits for gateways that it has not heard of since, too: they may live all the same, and the
/// authority may reach them. Shorter than [`PATIENCE`], so that one that is dead costs time alone.
const HEARS_WITHIN: Duration = Duration::from_secs(8);
/// How long an answer counts: longer than an authority takes, shorter than the next try.
const LIFE_MS: u64 = 3_600_000;

/// What a certificate authority will look for.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// HTTP-01 (RFC 8555, section 8.3): `http://DOMAIN/.well-known/acme-challenge/TOKEN` holds the key authorization.
    Http {
        /// Whom it is for.
        domain: Domain,
        /// The challenge's token.
        token: String,
        /// What the file holds.
        key_authorization: String,
    },
    /// TLS-ALPN-01 (RFC 8737): a certificate for the domain with this digest, to whoever speaks `acme-tls/1`.
    TlsAlpn {
        /// Whom it is for.
        domain: Domain,
        /// SHA-256 of the key authorization.
        digest: [u8; 32],
    },
}

impl Answer {
    /// The challenge as the authority calls it.
    pub fn challenge(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http-01",
            Self::TlsAlpn { .. } => "tls-alpn-01",
        }
    }

    /// Whom it is for.
    pub fn domain(&self) -> &Domain {
        match self {
            Self::Http { domain, .. } | Self::TlsAlpn { domain, .. } => domain,
        }
    }
}

/// Tokens are left out: they are nobody's business until they are published.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.challenge(), self.domain())
    }
}

/// Why an answer is not where the certificate authority may look. Nothing is left behind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// Living gateways that have not taken it in.
    #[error("these gateways have not taken in the answer to the challenge: {0}")]
    Unacknowledged(String),
    /// No living node answers such challenges.
    #[error(
        "no living node of the household answers {0} challenges: `hearth doctor` on the gateways says why, or \
         choose another challenge with `[tls] challenge`"
    )]
    NoGateway(&'static str),
    /// A token that no authority may send (RFC 8555, section 8.3).
    #[error("the challenge's token is not 1 to 256 letters of base64url, as RFC 8555 (section 8.3) wants it")]
    Token,
    /// The node is stopping, or cannot write.
    #[error("the answer to the challenge cannot be published: {0}")]
    Service(String),
}

impl From<ServiceError> for AnswerError {
    fn from(reason: ServiceError) -> Self {
        Self::Service(reason.to_string())
    }
}

/// The way to the gateways of the household, for whoever has something to prove to an authority.
#[derive(Debug, Clone)]
pub struct AnswersHandle {
    service: Service,
    me: ShortId,
    alive: watch::Receiver<BTreeSet<ShortId>>,
    time: watch::Receiver<HouseholdTime>,
    /// Until when who is not heard of is not taken for dead.
    hears_until: Instant,
}

impl AnswersHandle {
    /// A handle for the node `me`, which has just started, where `alive` are the nodes that live.
    pub fn new(
        service: Service,
        me: ShortId,
        alive: watch::Receiver<BTreeSet<ShortId>>,
        time: watch::Receiver<HouseholdTime>,
    ) -> Self {
        Self { service, me, alive, time, hears_until: Instant::now() + HEARS_WITHIN }
    }

    /// Publishes an answer; returns once every living gateway gives it to whoever asks, so that the authority may be
    /// told to look. Give it to [`AnswersHandle::withdraw`] when the authority has looked.
    ///
    /// # Errors
    /// [`AnswerError`]; the answer is withdrawn then.
    pub async fn publish(&self, answer: Answer) -> Result<(), AnswerError> {
        let expires_ms = self.time.borrow().now_ms().saturating_add(LIFE_MS);
        let entry = Entry { answer, by: self.me, expires_ms };
        let published = self.spread(&entry).await;
        if published.is_err() {
            self.withdraw(&entry.answer).await;
        }
        published
    }

    /// Takes an answer back everywhere. One that cannot be taken back, because the node is stopping or cannot write,
    /// goes when its time is over.
    pub async fn withdraw(&self, answer: &Answer) {
        let Some(object) = object::name(answer) else { return };
        if let Err(error) = self.service.write(Author::Node, vec![Op::Delete(object)]).await {
            tracing::debug!(?answer, %error, "an answer to a challenge stays until its time is over");
        }
    }

    async fn spread(&self, entry: &Entry) -> Result<(), AnswerError> {
        let (object, ops) = entry.write().ok_or(AnswerError::Token)?;
        self.service.write(Author::Node, ops).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let watched = vec![object.as_str().to_owned(), object::GATEWAYS.to_owned()];
            let watcher = self.service.watch(watched, None).await?.watcher;
            let outcome = self.acknowledged(watcher, &object, entry, deadline).await;
            self.service.unwatch(watcher).await;
            match outcome {
                Err(ServiceError::NoSuchWatcher) => {}
                outcome => return outcome?,
            }
        }
    }

    /// Waits for the gateways; the outer error is the observer's.
    async fn acknowledged(
        &self,
        watcher: u64,
        object: &ObjectId,
        entry: &Entry,
        deadline: Instant,
    ) -> Result<Result<(), AnswerError>, ServiceError> {
        let mut alive = self.alive.clone();
        let mut seen = alive.borrow().clone();
        let mut gateways = Gateways::default();
        let mut late = pin!(sleep_until(deadline));
        let mut heard = pin!(sleep_until(self.hears_until));
        let mut all_are_heard = false;
        let mut next = pin!(self.service.next_changes(watcher));
        let mut known = false;
        loop {
            tokio::select! {
                changes = &mut next => {
                    let Changes { changes, caught_up, .. } = changes?;
                    changes.into_iter().for_each(|change| gateways.take(change, object, entry));
                    known |= caught_up;
                    next.set(self.service.next_changes(watcher));
                }
                lives = alive.changed() => lives.map_err(|_| ServiceError::Stopping)?,
                () = &mut heard, if !all_are_heard => all_are_heard = true,
                () = &mut late => {
                    let missing = gateways.missing(|gateway| alive.borrow().contains(&gateway), entry);
                    return Ok(Err(self.unacknowledged(missing, entry).await));
                }
            }
            let missing = {
                let lives = alive.borrow_and_update();
                seen.extend(lives.iter().copied());
                let is_dead =
                    |gateway: &ShortId| !lives.contains(gateway) && (all_are_heard || seen.contains(gateway));
                gateways.missing(|gateway| !is_dead(&gateway), entry)
            };
            if known && missing.is_some_and(|missing| missing.is_empty()) {
                return Ok(Ok(()));
            }
        }
    }

    async fn unacknowledged(&self, missing: Option<Vec<ShortId>>, entry: &Entry) -> AnswerError {
        let Some(missing) = missing else { return AnswerError::NoGateway(entry.answer.challenge()) };
        let nodes = self.service.status().await.map(|status| status.nodes).unwrap_or_default();
        let name = |short: &ShortId| {
            let short = short.to_string();
            nodes.iter().find(|node| node.id.starts_with(&short)).map_or(short, |node| node.name.clone())
        };
        AnswerError::Unacknowledged(missing.iter().map(name).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests;
