//! What the rest of the node may ask of the event loop, which alone owns the mesh machine.
//!
//! Every call is one message with a reply; nothing here holds state.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use mesh_proto::{
    FieldName, NodeId, ObjectId, Value,
    error::ValueError,
    kinds::Author,
    roster::{Body, NodeName, Roles},
    time::{Basis, SetTimeError},
};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::discovery::Report;

/// One change of one register or object.
#[derive(Debug, Clone)]
pub enum Op {
    /// Writes a field.
    Set(ObjectId, FieldName, Value),
    /// Deletes a field.
    Unset(ObjectId, FieldName),
    /// Deletes an object with all its fields.
    Delete(ObjectId),
}

/// An object as readers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectView {
    /// Its name.
    pub id: ObjectId,
    /// Its visible fields.
    pub fields: BTreeMap<FieldName, FieldView>,
    /// Whether it has every field that its kind requires; one that has not reads as absent
    /// unless incomplete objects are asked for.
    pub complete: bool,
}

/// A field as readers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldView {
    /// What it holds.
    pub value: Value,
    /// When it was written, in milliseconds since 1970.
    pub at_ms: u64,
    /// The first 16 hexadecimal digits of the name of the node that wrote it.
    pub by: String,
    /// Whether it comes from the durable plane rather than the overlay.
    pub durable: bool,
}

/// One object that changed, for observers.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which object.
    pub id: ObjectId,
    /// What it is now; `None` when it is gone.
    pub object: Option<ObjectView>,
}

/// Where an observer has got to: names a run of this node and a revision within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeToken {
    /// The node's boot incarnation.
    pub incarnation: u64,
    /// The revision up to which everything was delivered.
    pub revision: u64,
}

/// The next objects of an observer.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The latest value of each object that changed since the last call, 256 at most.
    pub changes: Vec<Change>,
    /// Where the observer stands once everything is delivered: it may resume from here only when
    /// [`caught_up`](Self::caught_up) is set, for what still waits would be passed over.
    pub token: ResumeToken,
    /// Whether everything known so far has been delivered: after a subscription, the first
    /// `Changes` with this set ends the snapshot.
    pub caught_up: bool,
}

/// A new observer.
#[derive(Debug, Clone)]
pub struct Watching {
    /// Its number, for [`Service::next_changes`] and [`Service::unwatch`].
    pub watcher: u64,
    /// Whether it begins with a whole snapshot because there was no token or it was unknown.
    pub reset: bool,
}

/// A node as `hearth status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Its public key in hexadecimal.
    pub id: String,
    /// Its friendly name.
    pub name: String,
    /// Its roles: `admin`, `member`, `recovery`.
    pub roles: Vec<&'static str>,
    /// `self`, `removed` (this one itself), `alive`, `dead`; `unreachable` when it was last reached through a node
    /// that is dead, so that it may well live; `unknown` when nothing has been heard since the start.
    pub state: &'static str,
    /// Where it is reached, when it is linked.
    pub address: Option<SocketAddr>,
    /// `quic`, when it is linked; `relay`, when others pass on what goes to it.
    pub transport: Option<&'static str>,
    /// The friendly name of the peer that passes on, when it is not linked.
    pub via: Option<String>,
    /// How many links lie between: 1 when it is linked.
    pub hops: Option<u8>,
    /// Round-trip time in microseconds, when it is linked.
    pub rtt_us: Option<u64>,
    /// Its software version.
    pub version: Option<String>,
    /// How many objects it holds, as it said in the last seconds of its life; `None` once it is dead.
    pub objects: Option<usize>,
    /// How many of this node's writes it is known not to have; `None` while unknown.
    pub lag: Option<u64>,
    /// How far its clock is ahead of ours, in milliseconds, as it said at the last hello.
    pub clock_offset_ms: Option<i64>,
}

/// Why a node stands outside of its household.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutsideReason {
    /// An admin removed it.
    Removed,
    /// Another board runs under its key, and stays.
    Copy,
}

/// A node that stands outside of its household: nobody takes anything from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outside {
    /// Why.
    pub reason: OutsideReason,
    /// The same in words.
    pub detail: String,
    /// The way out.
    pub fix: String,
}

/// A node under whose key several boards run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copies {
    /// The first 16 hexadecimal digits of its key.
    pub id: String,
    /// Its friendly name.
    pub name: String,
    /// From where the boards came that were turned away.
    pub turned_away_at: Vec<String>,
}

/// The node as a whole.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The household's key in hexadecimal.
    pub household: String,
    /// This node's key in hexadecimal.
    pub node: String,
    /// Software version.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Complete, visible objects.
    pub objects: usize,
    /// Objects that lack a required field.
    pub incomplete: usize,
    /// Registers held, tombstones included.
    pub registers: usize,
    /// Tombstones not yet collected.
    pub tombstones: usize,
    /// Nodes that hold tombstones back because they have been away: names and what it costs.
    pub held_back_by: Vec<String>,
    /// Overlay entries.
    pub overlay: usize,
    /// Writes from the future that are held back.
    pub quarantined: usize,
    /// Whether the clock is known to be right.
    pub clock_synchronised: bool,
    /// This node's generation.
    pub generation: u32,
    /// Why the store cannot be written at the moment, if so.
    pub store_error: Option<String>,
    /// How the discovery of other nodes is.
    pub discovery: Report,
    /// Why this node stands outside of its household, if it does.
    pub outside: Option<Outside>,
    /// The nodes under whose key several boards run, by what any node has seen in the last minutes.
    pub copies: Vec<Copies>,
    /// Of those the ones that this node itself has seen: the short key, and from where the board came.
    #[serde(skip)]
    pub copies_seen: BTreeMap<String, String>,
    /// The admitted nodes.
    pub nodes: Vec<NodeStatus>,
    /// Every counter by name, offences of peers included.
    pub counters: BTreeMap<&'static str, u64>,
}

/// Whether the node can do its work; cheap to ask, so that anybody may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeHealth {
    /// What is wrong, in words that name no file and no node; empty when all is well.
    pub reasons: Vec<&'static str>,
}

/// How the household's time of day differs from this machine's clock, for the parts of the node that go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HouseholdTime {
    /// How far it is ahead, in milliseconds.
    pub ahead_ms: i64,
    /// Whether it rests on a clock or on somebody's word.
    pub trusted: bool,
}

impl HouseholdTime {
    /// The household's time now, in milliseconds since 1970.
    pub fn now_ms(self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(wall.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(self.ahead_ms)
    }
}

/// The household's time of day, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeView {
    /// In milliseconds since 1970.
    pub ms: u64,
    /// What the clock of this machine shows, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Whether it rests on a clock or on somebody's word: only then does anything happen by the time of day.
    pub trusted: bool,
    /// What it rests on.
    pub basis: Basis,
    /// The friendly name of the peer that is followed.
    pub peer: Option<String>,
}

/// Why a request was not carried out. Nothing has changed, except where the text says so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ServiceError {
    /// The author may not write the field.
    #[error("`{0}` may not be written by clients: only nodes write it")]
    Forbidden(String),
    /// A value breaks a rule.
    #[error("`{field}`: {reason}")]
    Value {
        /// Which field.
        field: String,
        /// Which rule.
        reason: ValueError,
    },
    /// Too many changes in one request.
    #[error("{0} changes in one request, the limit is 1024: split it")]
    TooManyOps(usize),
    /// Too much waits to be written.
    #[error("too many writes wait to be flushed: try again in a moment")]
    Overloaded,
    /// The store cannot be written.
    #[error("the store cannot be written: {0}. The change may take effect once it can")]
    Store(String),
    /// The roster refuses.
    #[error("{0}")]
    Roster(String),
    /// This node was removed, or is turned away as a copy: nobody would ever hear of the change.
    #[error("{}", .0.detail)]
    Outside(Outside),
    /// No such watcher: it was removed, the node restarted, or too many names changed while the
    /// observer took nothing.
    #[error("no such observer: subscribe again")]
    NoSuchWatcher,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// A request with its reply.
#[derive(Debug)]
pub enum Request {
    /// Reads an object.
    Get(ObjectId, oneshot::Sender<Option<ObjectView>>),
    /// Lists objects whose `kind/name` starts with a prefix, in order, after a name, up to a limit.
    List {
        /// The prefix; empty for all.
        prefix: String,
        /// Start behind this one.
        after: Option<ObjectId>,
        /// At most so many, 1 to 1000.
        limit: usize,
        /// Whether incomplete objects are listed too.
        incomplete: bool,
        /// The reply.
        reply: oneshot::Sender<Vec<ObjectView>>,
    },
    /// Writes; answered when every `config` field is durable.
    Write(Author, Vec<Op>, oneshot::Sender<Result<(), ServiceError>>),
    /// Begins to observe objects with one of the prefixes.
    Watch(Vec<String>, Option<ResumeToken>, oneshot::Sender<Watching>),
    /// Waits for the observer's next changes.
    NextChanges(u64, oneshot::Sender<Result<Changes, ServiceError>>),
    /// Ends an observer.
    Unwatch(u64),
    /// The state of the node.
    Status(oneshot::Sender<Status>),
    /// The time of day.
    Time(oneshot::Sender<TimeView>),
    /// A person says the time of day, in milliseconds since 1970.
    SetTime(u64, oneshot::Sender<Result<(), SetTimeError>>),
    /// Whether it can do its work.
    Health(oneshot::Sender<NodeHealth>),
    /// Issues a membership statement and makes it durable; answers with the statements that
    /// prove the subject's membership.
    Issue(Body, oneshot::Sender<Result<Vec<Vec<u8>>, ServiceError>>),
    /// Removes a node for good; answered when that is durable, with the nodes that it had admitted
    /// and that stay.
    Remove(NodeId, oneshot::Sender<Result<Vec<NodeId>, ServiceError>>),
}

/// The handle by which the rest of the node speaks to the event loop.
#[derive(Debug, Clone)]
pub struct Service {
    requests: mpsc::Sender<Request>,
}

impl Service {
    /// A handle and the receiver that the event loop serves.
    pub fn channel() -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(1024);
        (Self { requests }, receiver)
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ServiceError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(reply)).await.map_err(|_| ServiceError::Stopping)?;
        answer.await.map_err(|_| ServiceError::Stopping)
    }

    /// Reads an object; incomplete ones too.
    ///
    /// # Errors
    /// [`ServiceError::Stopping`].
    pub async fn get(&self, id: ObjectId) -> Result<Option<ObjectView>, ServiceError> {
        self.ask(|reply| Request::Get(id, reply)).await
    }

    /// Lists objects by prefix of `kind/name`.
    ///
    /// # Errors
    /// [`ServiceError::Stopping`].
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<ObjectId>,
        limit: usize,
        incomplete: bool,
    ) -> Result<Vec<ObjectView>, ServiceError> {
        let prefix = prefix.to_owned();
        self.ask(|reply| Request::List { prefix, after, limit, incomplete, reply }).await
    }

    /// Writes; returns when every `config` field among the changes is durable.
    ///
    /// # Errors
    /// Every [`ServiceError`] but the watcher's; nothing has changed, except for
    /// [`ServiceError::Store`].
    pub async fn write(&self, author: Author, ops: Vec<Op>) -> Result<(), ServiceError> {
        self.ask(|reply| Request::Write(author, ops, reply)).await?
    }

    /// Begins to observe; the first changes are the snapshot, or what came after the token.
    ///
    /// # Errors
    /// [`ServiceError::Stopping`].
    pub async fn watch(
        &self,
        prefixes: Vec<String>,
        resume: Option<ResumeToken>,
    ) -> Result<Watching, ServiceError> {
        self.ask(|reply| Request::Watch(prefixes, resume, reply)).await
    }

    /// Waits for the observer's next changes. May be dropped while it waits.
    ///
    /// # Errors
    /// [`ServiceError::NoSuchWatcher`], [`ServiceError::Stopping`].
    pub async fn next_changes(&self, watcher: u64) -> Result<Changes, ServiceError> {
        self.ask(|reply| Request::NextChanges(watcher, reply)).await?
    }

    /// Ends an observer.
    pub async fn unwatch(&self, watcher: u64) {
        // A loop that is gone has no observers either.
        let _ = self.requests.send(Request::Unwatch(watcher)).await;
    }

    /// The state of the node.
    ///
    /// # Errors
    /// [`ServiceError::Stopping`].
    pub async fn status(&self) -> Result<Status, ServiceError> {
        self.ask(Request::Status).await
    }

    /// The time of day.
    ///
    /// # Errors
    /// [`ServiceError::Stopping`].
    pub async fn time(&self) -> Result<TimeView, ServiceError> {
        self.ask(Request::Time).await
    }

    /// Sets the time of day of this node, and of the peers that know of no right clock. The clock of the machine stays
    /// as it is.
    ///
    /// # Errors
    /// [`ServiceError::Stopping`]; within, why it was not set.
    pub async fn set_time(&self, ms: u64) -> Result<Result<(), SetTimeError>, ServiceError> {
        self.ask(|reply| Request::SetTime(ms, reply)).await
    }

    /// Whether the node can do its work; costs next to nothing, however much it holds.
    ///
    /// # Errors
    /// [`ServiceError::Stopping`].
    pub async fn health(&self) -> Result<NodeHealth, ServiceError> {
        self.ask(Request::Health).await
    }

    /// Signs a membership statement of this node and makes it durable.
    ///
    /// # Errors
    /// [`ServiceError::Roster`] when this node may not say it, [`ServiceError::Store`] when it cannot be
    /// made durable, [`ServiceError::Overloaded`]; nothing was said then.
    pub async fn issue(&self, body: Body) -> Result<Vec<Vec<u8>>, ServiceError> {
        self.ask(|reply| Request::Issue(body, reply)).await?
    }

    /// Removes a node for good and ends its links; answers with the nodes that are in by its word, and stay.
    ///
    /// # Errors
    /// As [`Service::issue`].
    pub async fn remove(&self, node: NodeId) -> Result<Vec<NodeId>, ServiceError> {
        self.ask(|reply| Request::Remove(node, reply)).await?
    }

    /// Admits a node; answers with the statements that prove it.
    ///
    /// # Errors
    /// [`ServiceError::Roster`] when this node is no admin or the key may not be admitted.
    pub async fn admit(
        &self,
        node: NodeId,
        roles: Roles,
        name: NodeName,
        token: Option<[u8; 16]>,
    ) -> Result<Vec<Vec<u8>>, ServiceError> {
        self.issue(Body::Admit { node, roles, name, token }).await
    }
}
