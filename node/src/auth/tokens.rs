//! Bearer tokens: 256 random bits behind `hth_`, kept as objects `token/ID` that hold a hash only.
//!
//! One task owns the table of hashes, kept fresh by an observer on `token/`, so that a token made
//! or revoked on one node counts on all. Since no token can be guessed, wrong ones are paced per
//! address only to bound noise; a right one is never held up by what its neighbours send.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    net::IpAddr,
    pin::Pin,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use mesh_proto::{FieldName, ObjectId, Value, kinds::Author};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{Scope, Secret, attempts::Attempts, random};
use crate::service::{Changes, ObjectView, Op, Service, ServiceError};

/// What every token starts with.
pub const PREFIX: &str = "hth_";
/// This many tokens can be made; more that come from other nodes are still honoured, to a bound.
pub const MAX_TOKENS: usize = 256;
/// Longest label, in bytes.
pub const MAX_LABEL_BYTES: usize = 64;
/// Tokens held in memory at most; those beyond are not honoured.
const MAX_HELD: usize = 4_096;

/// What a client may do; each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Writes objects and commands devices.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// The role's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Viewer, Self::Operator, Self::Admin].into_iter().find(|role| role.as_str() == text).ok_or(())
    }
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
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Nobody knows it (any more).
    Unknown,
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
    Create(Role, String, oneshot::Sender<Result<(String, Secret), TokenError>>),
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

    /// The id and role of a token that was presented from `remote`.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn verify(&self, token: Secret, remote: Option<IpAddr>) -> Result<Grant, Denied> {
        self.ask(|reply| Request::Verify(token, remote, reply)).await.unwrap_or(Err(Denied::Stopping))
    }

    /// Makes a token; answers with its id and itself once it is durable. It is shown this once.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn create(&self, role: Role, label: String) -> Result<(String, Secret), TokenError> {
        let answer = self.ask(|reply| Request::Create(role, label, reply)).await;
        answer.unwrap_or(Err(TokenError::Service(ServiceError::Stopping)))
    }

    /// Every token, oldest first.
    ///
    /// # Errors
    /// [`TokenError::Service`] when the node is stopping.
    pub async fn list(&self) -> Result<Vec<TokenView>, TokenError> {
        self.ask(Request::List).await.ok_or(TokenError::Service(ServiceError::Stopping))
    }

    /// Ends a token, here at once and everywhere as the deletion spreads.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn revoke(&self, id: String) -> Result<(), TokenError> {
        let answer = self.ask(|reply| Request::Revoke(id, reply)).await;
        answer.unwrap_or(Err(TokenError::Service(ServiceError::Stopping)))
    }

    /// The tokens that count, and a notice whenever that changes.
    pub fn live(&self) -> watch::Receiver<Live> {
        self.live.clone()
    }

    /// How many times a token was refused.
    pub fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }
}

struct Entry {
    hash: blake3::Hash,
    view: TokenView,
}

/// The owner of the tokens; a task runs it.
pub struct Tokens {
    service: Service,
    requests: mpsc::Receiver<Request>,
    live: watch::Sender<Live>,
    denied: Arc<AtomicU64>,
    entries: BTreeMap<String, Entry>,
    attempts: Attempts,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("held", &self.entries.len()).finish_non_exhaustive()
    }
}

type Next = Pin<Box<dyn Future<Output = Result<Changes, ServiceError>> + Send>>;

impl Tokens {
    /// The owner and the way to it.
    pub fn new(service: Service) -> (TokensHandle, Self) {
        let (sender, requests) = mpsc::channel(64);
        let (live, receiver) = watch::channel(Live::default());
        let denied = Arc::new(AtomicU64::new(0));
        let handle = TokensHandle { requests: sender, live: receiver, denied: Arc::clone(&denied) };
        let (entries, attempts) = (BTreeMap::new(), Attempts::default());
        (handle, Self { service, requests, live, denied, entries, attempts })
    }

    /// Serves until the event loop or every handle is gone. Requests wait until the tokens are
    /// known, so that none is refused because the node has just started.
    pub async fn run(mut self) {
        while let Ok(watching) = self.service.watch(vec!["token/".to_owned()], None).await {
            let outcome = self.follow(watching.watcher).await;
            match outcome {
                Err(ServiceError::Stopping) => return,
                Err(error) => tracing::debug!(%error, "observing the tokens anew"),
                Ok(()) => return self.service.unwatch(watching.watcher).await,
            }
        }
    }

    /// Serves by one observer; `Ok` when nobody can ask any more.
    async fn follow(&mut self, watcher: u64) -> Result<(), ServiceError> {
        let mut seen = BTreeSet::new();
        loop {
            let changes = self.service.next_changes(watcher).await?;
            seen.extend(changes.changes.iter().map(|change| change.id.name().to_owned()));
            let caught_up = changes.caught_up;
            self.take(changes);
            if caught_up {
                break;
            }
        }
        self.entries.retain(|id, _| seen.contains(id));
        self.publish();
        let mut next = self.next(watcher);
        loop {
            // The same future is polled until it ends: dropping it could lose its changes.
            tokio::select! {
                changes = &mut next => {
                    self.take(changes?);
                    self.publish();
                    next = self.next(watcher);
                }
                request = self.requests.recv() => match request {
                    Some(request) => self.handle(request).await,
                    None => return Ok(()),
                },
            }
        }
    }

    fn next(&self, watcher: u64) -> Next {
        let service = self.service.clone();
        Box::pin(async move { service.next_changes(watcher).await })
    }

    fn take(&mut self, changes: Changes) {
        for change in changes.changes {
            let name = change.id.name().to_owned();
            match change.object.as_ref().and_then(entry) {
                Some(entry) if self.entries.len() < MAX_HELD || self.entries.contains_key(&name) => {
                    self.entries.insert(name, entry);
                }
                _ => {
                    self.entries.remove(&name);
                }
            }
        }
    }

    fn publish(&self) {
        let live: BTreeMap<_, _> = self.entries.iter().map(|(id, e)| (id.clone(), e.view.role)).collect();
        self.live.send_if_modified(|old| {
            let changed = **old != live;
            if changed {
                *old = Arc::new(live);
            }
            changed
        });
    }

    /// A reply that nobody waits for any more is dropped.
    async fn handle(&mut self, request: Request) {
        match request {
            Request::Verify(token, remote, reply) => {
                let _ = reply.send(self.verify(&token, remote));
            }
            Request::Create(role, label, reply) => {
                let _ = reply.send(self.create(role, label).await);
            }
            Request::List(reply) => {
                let mut views: Vec<_> = self.entries.values().map(|entry| entry.view.clone()).collect();
                views.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
                let _ = reply.send(views);
            }
            Request::Revoke(id, reply) => {
                let _ = reply.send(self.revoke(&id).await);
            }
        }
    }

    fn verify(&mut self, token: &Secret, remote: Option<IpAddr>) -> Result<Grant, Denied> {
        let hash = hash(token);
        let mut found = None;
        // Every hash is compared, each in constant time (blake3::Hash does so), found or not.
        for entry in self.entries.values() {
            if entry.hash == hash {
                let TokenView { id, role, label, .. } = entry.view.clone();
                found = Some(Grant { id, label, role, scope: Scope::default() });
            }
        }
        found.ok_or_else(|| {
            self.denied.fetch_add(1, Ordering::Relaxed);
            let wait = self.attempts.wrong(remote, Instant::now());
            wait.map_or(Denied::Unknown, |retry_after_s| Denied::Paced { retry_after_s })
        })
    }

    async fn create(&mut self, role: Role, label: String) -> Result<(String, Secret), TokenError> {
        if label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control) {
            return Err(TokenError::Label);
        }
        if self.entries.len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        let (id, bits) = (random::<8>(), random::<32>());
        let id = HEXLOWER.encode(&id.ok_or(TokenError::NoRandomness)?);
        let bits = BASE32_NOPAD.encode(&bits.ok_or(TokenError::NoRandomness)?).to_ascii_lowercase();
        let token = Secret::new(format!("{PREFIX}{bits}"));
        let (hash, created_ms) = (hash(&token), now_ms());
        let fields = [
            ("hash", Value::Bytes(hash.as_bytes().as_slice().into())),
            ("role", Value::from(role.as_str())),
            ("label", Value::from(label.as_str())),
            ("created", Value::Int(i64::try_from(created_ms).unwrap_or(i64::MAX))),
        ];
        let object = object(&id).ok_or(TokenError::NotFound)?;
        let set = |(name, value)| FieldName::new(name).ok().map(|name| Op::Set(object.clone(), name, value));
        let ops = fields.into_iter().filter_map(set).collect();
        self.service.write(Author::Node, ops).await?;
        let view = TokenView { id: id.clone(), role, label, created_ms };
        self.entries.insert(id.clone(), Entry { hash, view });
        self.publish();
        Ok((id, token))
    }

    async fn revoke(&mut self, id: &str) -> Result<(), TokenError> {
        let known = self.entries.contains_key(id);
        let object = object(id).filter(|_| known).ok_or(TokenError::NotFound)?;
        self.service.write(Author::Node, vec![Op::Delete(object)]).await?;
        self.entries.remove(id);
        self.publish();
        Ok(())
    }
}

fn object(id: &str) -> Option<ObjectId> {
    ObjectId::new(&format!("token/{id}")).ok()
}

fn hash(token: &Secret) -> blake3::Hash {
    blake3::hash(token.expose().as_bytes())
}

fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// A token whose role this version does not know, or whose hash is none, opens nothing.
fn entry(object: &ObjectView) -> Option<Entry> {
    let field = |name: &str| object.fields.get(&FieldName::new(name).ok()?).map(|field| &field.value);
    let Some(Value::Bytes(hash)) = field("hash") else { return None };
    let role = field("role")?.as_text()?.parse().ok()?;
    let label = field("label").and_then(Value::as_text).unwrap_or_default().to_owned();
    let created_ms = field("created").and_then(Value::as_int).and_then(|ms| u64::try_from(ms).ok());
    let id = object.id.name().to_owned();
    let view = TokenView { id, role, label, created_ms: created_ms.unwrap_or(0) };
    Some(Entry { hash: blake3::Hash::from_bytes((&**hash).try_into().ok()?), view })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::api::fake::FakeLoop;

    fn start() -> (FakeLoop, TokensHandle) {
        let fake = FakeLoop::start();
        let (handle, tokens) = Tokens::new(fake.service());
        tokio::spawn(tokens.run());
        (fake, handle)
    }

    #[tokio::test]
    async fn a_token_opens_what_its_role_says_until_it_is_revoked() {
        let (fake, tokens) = start();
        let (id, token) = tokens.create(Role::Operator, "script".into()).await.unwrap();
        assert!(token.expose().starts_with("hth_") && token.expose().len() == 4 + 52);
        let grant = tokens.verify(token.clone(), None).await.unwrap();
        assert_eq!((grant.id, grant.role, grant.label.as_str()), (id.clone(), Role::Operator, "script"));
        let stored = fake.service().get(object(&id).unwrap()).await.unwrap().unwrap();
        assert!(!format!("{stored:?}").contains(&token.expose()[4..]), "only the hash is stored");
        assert_eq!(format!("{token:?}"), "<secret>");
        assert_eq!(tokens.list().await.unwrap()[0].label, "script");
        tokens.revoke(id.clone()).await.unwrap();
        assert_eq!(tokens.verify(token, None).await, Err(Denied::Unknown));
        assert_eq!(tokens.revoke(id).await, Err(TokenError::NotFound));
        assert_eq!(tokens.denied(), 1);
    }

    #[tokio::test]
    async fn tokens_of_other_nodes_count_when_they_arrive_and_stop_when_they_go() {
        let (fake, here) = start();
        let (there, task) = Tokens::new(fake.service());
        tokio::spawn(task.run());
        let (id, token) = there.create(Role::Viewer, String::new()).await.unwrap();
        let mut live = here.live();
        live.wait_for(|live| live.contains_key(&id)).await.unwrap();
        assert_eq!(here.verify(token.clone(), None).await.unwrap().role, Role::Viewer);
        there.revoke(id.clone()).await.unwrap();
        live.wait_for(|live| !live.contains_key(&id)).await.unwrap();
        assert_eq!(here.verify(token, None).await, Err(Denied::Unknown));
    }

    #[tokio::test]
    async fn a_restart_honours_the_tokens_it_finds() {
        let (fake, first) = start();
        let (id, token) = first.create(Role::Admin, String::new()).await.unwrap();
        let (second, task) = Tokens::new(fake.service());
        tokio::spawn(task.run());
        assert_eq!(second.verify(token, None).await.unwrap().id, id);
    }

    #[tokio::test]
    async fn labels_are_checked() {
        let (_fake, tokens) = start();
        for bad in ["x".repeat(65), "a\nb".into()] {
            assert_eq!(tokens.create(Role::Viewer, bad).await.unwrap_err(), TokenError::Label);
        }
    }

    #[tokio::test]
    async fn wrong_tokens_are_paced_per_address_and_right_ones_are_not() {
        let (_fake, tokens) = start();
        let (_, right) = tokens.create(Role::Admin, String::new()).await.unwrap();
        let (noisy, calm) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])));
        let guess = || Secret::new("hth_guess");
        for _ in 0..6 {
            assert_eq!(tokens.verify(guess(), noisy).await, Err(Denied::Unknown));
        }
        assert!(matches!(tokens.verify(guess(), noisy).await, Err(Denied::Paced { retry_after_s: 1..=2 })));
        assert_eq!(tokens.verify(guess(), calm).await, Err(Denied::Unknown));
        assert!(tokens.verify(right, noisy).await.is_ok());
    }
}
