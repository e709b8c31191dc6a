//! Bearer tokens: 256 random bits behind `hth_`, kept as objects `token/ID` that hold a hash only.
//!
//! One task owns the table of hashes, kept fresh by an observer on `token/`, so that a token made
//! or revoked on one node counts on all. Since no token can be guessed, wrong ones are paced per
//! address only to bound noise; a right one is never held up by what its neighbours send.

mod owner;
mod stored;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::owner::Tokens;
pub use super::role::{Role, RoleError};
use super::{
    Scope, Secret, Who,
    scope::{ScopeError, WHOLE},
};
use crate::service::ServiceError;

/// What every token starts with.
pub const PREFIX: &str = "hth_";
/// This many tokens can be made; more that come from other nodes are still honoured, to a bound.
pub const MAX_TOKENS: usize = 256;
/// Longest label, in bytes.
pub const MAX_LABEL_BYTES: usize = 64;
/// The longest life of a token that has an end, in seconds: ten years.
pub const MAX_LIFE_S: u64 = 315_360_000;

/// When a token ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// So long after it was made.
    After(Duration),
    /// At this moment, in milliseconds since 1970.
    At(u64),
}

/// A token that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What its bearer may do.
    pub role: Role,
    /// What it is for.
    pub label: String,
    /// Where.
    pub scope: Scope,
    /// Until when, if not for good.
    pub end: Option<End>,
    /// Who wants it; none is the setup code.
    pub by: Option<Who>,
    /// When ends what they came by, where an outside issuer vouches for them, in milliseconds since 1970: what they want ends
    /// before. Users, issuers and invites that they make are not bound by it.
    pub ends_ms: Option<u64>,
}

/// A token that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its id, not secret.
    pub id: String,
    /// Itself; it is shown this once.
    pub token: Secret,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// A token as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenView {
    /// Its id, not secret.
    pub id: String,
    /// What its bearer may do.
    pub role: Role,
    /// What it is for.
    pub label: String,
    /// Where it counts.
    pub scope: Scope,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it ends, in milliseconds since 1970; none for one that counts until it is revoked.
    pub expires_ms: Option<u64>,
    /// Whether it has ended.
    pub expired: bool,
    /// Who made it; empty where nobody wrote that down.
    pub by: String,
    /// When it was used last, to ten minutes, in milliseconds since 1970.
    pub used_ms: Option<u64>,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Nobody knows it (any more).
    Unknown,
    /// It has ended.
    Expired,
    /// Nobody knows it, and its address has tried too many.
    Paced {
        /// Seconds until the address may try again.
        retry_after_s: u64,
    },
    /// The node is stopping.
    Stopping,
}

/// Why a token was not made or revoked; nothing has changed, except as [`ServiceError`] says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// The bound is reached.
    #[error("there are {MAX_TOKENS} tokens already")]
    TooMany,
    /// A label that is too long or has control characters.
    #[error("a label has at most {MAX_LABEL_BYTES} bytes and no control characters")]
    Label,
    /// No scope.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// An admin of a part of the home, who could make tokens for all of it.
    #[error("a token of the role admin is for all of the home: a scope would confine it to nothing")]
    ConfinedAdmin,
    /// An end that has passed, or is too far away.
    #[error("a token ends in the future, after ten years at most")]
    End,
    /// It would outlive the token by which it is asked for, which may have been revoked meanwhile.
    #[error("the token with which you ask ends before the one that you ask for")]
    Outlives,
    /// An end by a clock that may be years behind.
    #[error("this node does not know the time of day, so it cannot tell when a token ends")]
    NoTime,
    /// No such token.
    #[error("there is no token of that id")]
    NotFound,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    /// The event loop says no.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The token's id, not secret.
    pub id: String,
    /// What the token is for.
    pub label: String,
    /// What its bearer may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
}

/// The tokens that count now, by id.
pub type Live = Arc<BTreeMap<String, Role>>;

#[derive(Debug)]
enum Request {
    Verify(Secret, Option<IpAddr>, oneshot::Sender<Result<Grant, Denied>>),
    Make(Box<Wanted>, oneshot::Sender<Result<Made, TokenError>>),
    List(oneshot::Sender<Vec<TokenView>>),
    Revoke(String, oneshot::Sender<Result<(), TokenError>>),
}

/// The way to the owner of the tokens.
#[derive(Debug, Clone)]
pub struct TokensHandle {
    requests: mpsc::Sender<Request>,
    live: watch::Receiver<Live>,
    denied: Arc<AtomicU64>,
}

impl TokensHandle {
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(reply)).await.ok()?;
        answer.await.ok()
    }

    /// The id, role and scope of a token that was presented from `remote`.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn verify(&self, token: Secret, remote: Option<IpAddr>) -> Result<Grant, Denied> {
        self.ask(|reply| Request::Verify(token, remote, reply)).await.unwrap_or(Err(Denied::Stopping))
    }

    /// Makes a token; answers once it is durable.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn make(&self, wanted: Wanted) -> Result<Made, TokenError> {
        let answer = self.ask(|reply| Request::Make(Box::new(wanted), reply)).await;
        answer.unwrap_or(Err(TokenError::Service(ServiceError::Stopping)))
    }

    /// Makes one for all of the home and for good, as the setup code does; answers with its id and itself.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn create(&self, role: Role, label: String) -> Result<(String, Secret), TokenError> {
        let made = self
            .make(Wanted { role, label, scope: WHOLE.clone(), end: None, by: None, ends_ms: None })
            .await?;
        Ok((made.id, made.token))
    }

    /// Every token, oldest first, those that have ended among them.
    ///
    /// # Errors
    /// [`TokenError::Service`] when the node is stopping.
    pub async fn list(&self) -> Result<Vec<TokenView>, TokenError> {
        self.ask(Request::List).await.ok_or(TokenError::Service(ServiceError::Stopping))
    }

    /// Ends a token, here at once and everywhere as the deletion spreads. Where that cannot be written the token opens nothing
    /// here all the same, unless the node restarts before it can be.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn revoke(&self, id: String) -> Result<(), TokenError> {
        let answer = self.ask(|reply| Request::Revoke(id, reply)).await;
        answer.unwrap_or(Err(TokenError::Service(ServiceError::Stopping)))
    }

    /// The tokens that count, and a notice whenever that changes: one that is revoked or ends is no longer among them.
    pub fn live(&self) -> watch::Receiver<Live> {
        self.live.clone()
    }

    /// How many times a token was refused.
    pub fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }
}
