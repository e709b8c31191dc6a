//! Observers: a WebSocket that gets a snapshot and then what changes.
//!
//! The event loop keeps, for each observer, only the names of what has changed; their values are
//! fetched 256 at a time and when the socket has taken those before. So a slow observer gets the
//! latest of each object, and costs a bounded number of bytes however long it does not read.

mod inbound;
mod outbound;

use std::{collections::BTreeSet, future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{
        State,
        ws::{WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt as _;
use mesh_proto::ObjectId;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};

use self::{
    inbound::{FromReader, ReadEnd},
    outbound::{Closed, Outbound},
};
use super::{
    ApiContext, Problem,
    access::{Giver, Guard, Peer, Principal, Uid},
    commands::{self, Many, Taken},
    json::from_object,
    metrics::{MAX_OBSERVERS, Raised},
    ports::Command,
    serve::gives_way,
};
use crate::{
    auth::Who,
    listener::Place,
    service::{Change, Changes, ResumeToken, Service, ServiceError},
};

/// The WebSocket subprotocol.
pub(super) const PROTOCOL: &str = "hearth.v1";
/// Largest message from a client, in bytes.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// A client that came without a header shows its token within this time.
const AUTH_WITHIN: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(20);
/// Time for a goodbye.
const FAREWELL: Duration = Duration::from_secs(1);
/// Commands whose life is told on one socket at once, those to the devices of a group among them; the oldest is
/// forgotten first.
const MAX_TRACKED: usize = 512;

/// Close codes of our own (RFC 6455, section 7.4.2 leaves 4000 to 4999 to applications).
const CLOSE_UNAUTHENTICATED: u16 = 4401;
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_SILENT: u16 = 4408;
const CLOSE_TOO_LARGE: u16 = 1009;
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_TRY_LATER: u16 = 1013;

pub(super) async fn upgrade(
    State(context): State<Arc<ApiContext>>,
    Extension(guard): Extension<Guard>,
    peer: Option<Extension<Peer>>,
    uid: Option<Extension<Uid>>,
    headers: HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let peer = peer.map(|Extension(peer)| peer);
    let principal =
        guard.enter(&Method::GET, &headers, peer.clone(), uid.map(|Extension(Uid(uid))| uid)).await?;
    principal.as_ref().map_or(Ok(()), |principal| principal.must_be(guard.role))?;
    let socket = socket.map_err(|_| no_websocket())?;
    let metrics = &context.metrics;
    let place = if principal.is_some() { metrics.observer() } else { metrics.newcomer() };
    let place =
        place.ok_or_else(|| Problem::overloaded(format!("there are {MAX_OBSERVERS} observers already")))?;
    let own = match &principal {
        Some(principal) => own_place(&context, principal).await?,
        None => None,
    };
    let socket =
        socket.protocols([PROTOCOL]).max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES);
    // Until its client is known it counts for its address, as its connection did.
    let held = peer.as_ref().filter(|_| principal.is_none()).and_then(|peer| peer.place.upgrade());
    let client = Client { principal, peer, place, own, held };
    Ok(socket.on_upgrade(move |socket| observe(context, guard, client, socket)).into_response())
}

/// A place among the observers of the same one; whoever may open the Unix socket needs none.
async fn own_place(
    context: &ApiContext,
    principal: &Principal,
) -> Result<Option<OwnedSemaphorePermit>, Problem> {
    match &principal.who {
        Who::Socket { .. } => Ok(None),
        who => context.guards.pace.observer(who.to_string()).await.map(Some),
    }
}

fn no_websocket() -> Problem {
    let fix = "open it with a WebSocket client: wss://…/api/v1/watch, subprotocol hearth.v1";
    let detail = "this route speaks WebSocket (RFC 6455) only";
    Problem::new(StatusCode::UPGRADE_REQUIRED, "websocket", "A WebSocket is needed", detail, fix)
}

/// Who opened a WebSocket.
struct Client {
    /// Unless it shows its token in its first message.
    principal: Option<Principal>,
    peer: Option<Peer>,
    /// Among the observers, or among those who want to be.
    place: Raised,
    /// Among the observers of the same one, once that is known.
    own: Option<OwnedSemaphorePermit>,
    /// Among the clients of its address that have shown no token.
    held: Option<Arc<Place>>,
}

/// One observer from its first message to its end.
async fn observe(context: Arc<ApiContext>, guard: Guard, client: Client, mut socket: WebSocket) {
    let Client { principal, peer, place, own, held } = client;
    let (principal, place) = match principal {
        Some(principal) => (principal, Some((place, own))),
        None => {
            let authenticated = tokio::select! {
                done = tokio::time::timeout(AUTH_WITHIN, inbound::authenticate(&guard, peer.clone(), &mut socket)) => done,
                () = gives_way(&held) => return,
            };
            match authenticated {
                Ok(Some(principal)) => {
                    drop((place, held));
                    let own = own_place(&context, &principal).await;
                    let places = context.metrics.observer().zip(own.ok());
                    (principal, places)
                }
                _ => {
                    let (mut out, mut stream) = split(&context, socket);
                    return farewell(&mut out, &mut stream, CLOSE_UNAUTHENTICATED, "a token is needed").await;
                }
            }
        }
    };
    let (mut out, mut stream) = split(&context, socket);
    if place.is_none() {
        return farewell(&mut out, &mut stream, CLOSE_TRY_LATER, "too many observers").await;
    }
    let (sender, inbox) = mpsc::channel(16);
    let by = Giver::of(&principal, peer.as_ref());
    let session = Session::new(Arc::clone(&context), principal.clone(), inbox);
    let stopping = {
        let mut shutdown = context.shutdown.clone();
        async move {
            // A closed channel means the same.
            let _ = shutdown.wait_for(|stop| *stop).await;
        }
    };
    let end = tokio::select! {
        end = inbound::read(&context, &principal, &by, &mut stream, sender) => match end {
            ReadEnd::Closed => None,
            ReadEnd::Silent => Some((CLOSE_SILENT, "nothing was heard")),
            ReadEnd::TooLarge => Some((CLOSE_TOO_LARGE, "a message is larger than 64 KiB")),
            ReadEnd::Broken => Some((CLOSE_PROTOCOL, "a frame breaks the rules of WebSocket")),
        },
        end = session.run(&mut out) => end.err().and_then(|closed| closed.goodbye()),
        () = stopping => Some((CLOSE_GOING_AWAY, "the node is stopping")),
    };
    if let Some((code, reason)) = end {
        farewell(&mut out, &mut stream, code, reason).await;
    }
}

fn split(context: &ApiContext, socket: WebSocket) -> (Outbound, inbound::Stream) {
    let (sink, stream) = socket.split();
    (Outbound::new(sink, context.metrics.queue()), stream)
}

/// Says why, then reads until the peer has closed too: closing over what it still sends would
/// throw the reason away. A peer that takes too long, or is gone, misses nothing.
async fn farewell(out: &mut Outbound, stream: &mut inbound::Stream, code: u16, reason: &'static str) {
    let closing = async {
        if out.close(code, reason).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    let _ = tokio::time::timeout(FAREWELL, closing).await;
}

/// An observer at the event loop; dropped with it.
struct Watch {
    service: Service,
    watcher: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let (service, watcher) = (self.service.clone(), self.watcher);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { service.unwatch(watcher).await });
        }
    }
}

type Next = Pin<Box<dyn Future<Output = Result<Changes, ServiceError>> + Send>>;

struct Subscription {
    watch: Watch,
    prefixes: Vec<String>,
    next: Next,
    /// Whether the snapshot has not ended yet.
    snapshot: bool,
    /// What a confined client was told of and that is still within its scope: at most as much as it sees.
    told: BTreeSet<ObjectId>,
}

impl Subscription {
    fn next(service: &Service, watcher: u64) -> Next {
        let service = service.clone();
        Box::pin(async move { service.next_changes(watcher).await })
    }
}

/// A command of this socket: its id, the client's reference, and how much of its life was told.
struct Tracked {
    id: String,
    reference: Option<Value>,
    told: usize,
}

/// What writes to the socket.
struct Session {
    context: Arc<ApiContext>,
    principal: Principal,
    inbox: mpsc::Receiver<FromReader>,
    subscription: Option<Subscription>,
    tracked: Vec<Tracked>,
}

impl Session {
    fn new(context: Arc<ApiContext>, principal: Principal, inbox: mpsc::Receiver<FromReader>) -> Self {
        Self { context, principal, inbox, subscription: None, tracked: Vec::new() }
    }

    async fn run(mut self, out: &mut Outbound) -> Result<(), Closed> {
        let mut life = self.context.commands.life();
        let (context, principal) = (Arc::clone(&self.context), self.principal.clone());
        let mut ends = std::pin::pin!(principal.ends(&context));
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.handle(message, out).await?,
                    None => return Ok(()),
                },
                changes = next_changes(&mut self.subscription) => self.deliver(changes, out).await?,
                news = life.recv() => self.tell(news, out).await?,
                _ = ping.tick() => out.ping().await?,
                () = &mut ends => return Err(Closed::Revoked),
            }
        }
    }

    async fn handle(&mut self, message: FromReader, out: &mut Outbound) -> Result<(), Closed> {
        match message {
            FromReader::Pong => out.send(&json!({ "type": "pong" })).await?,
            FromReader::Refused(problem, reference) => out.problem(&problem, reference.as_ref()).await?,
            FromReader::Commanded(Taken::One(command), reference) => {
                self.track(&command, reference, 0, out).await?;
            }
            FromReader::Commanded(Taken::Many(many), reference) => {
                self.track_all(&many, reference, out).await?;
            }
            FromReader::Subscribe { prefixes, resume } => self.subscribe(prefixes, resume, out).await?,
        }
        out.flush().await
    }

    async fn subscribe(
        &mut self,
        prefixes: Vec<String>,
        resume: Option<ResumeToken>,
        out: &mut Outbound,
    ) -> Result<(), Closed> {
        self.subscription = None;
        let service = &self.context.service;
        // What it knows may have left its scope since, and what comes now does not tell: it begins anew.
        let resume = resume.filter(|_| self.principal.scope.is_whole());
        let watching = match service.watch(prefixes.clone(), resume).await {
            Ok(watching) => watching,
            Err(error) => return out.problem(&error.into(), None).await,
        };
        let watch = Watch { service: service.clone(), watcher: watching.watcher };
        let next = Subscription::next(service, watching.watcher);
        self.subscription =
            Some(Subscription { watch, prefixes, next, snapshot: true, told: BTreeSet::new() });
        out.send(&json!({ "type": "snapshot_begin", "reset": watching.reset })).await
    }

    async fn deliver(
        &mut self,
        changes: Result<Changes, ServiceError>,
        out: &mut Outbound,
    ) -> Result<(), Closed> {
        let changes = match changes {
            Ok(changes) => changes,
            // It took nothing for too long while too many names changed: everything again.
            Err(ServiceError::NoSuchWatcher) if self.subscription.is_some() => {
                let prefixes = self.subscription.take().map(|old| old.prefixes).unwrap_or_default();
                self.subscribe(prefixes, None, out).await?;
                return out.flush().await;
            }
            Err(error) => {
                self.subscription = None;
                out.problem(&error.into(), None).await?;
                return out.flush().await;
            }
        };
        let in_snapshot = self.subscription.as_ref().is_some_and(|subscription| subscription.snapshot);
        let mut is_news = in_snapshot || self.principal.scope.is_whole();
        for change in &changes.changes {
            if let Some(message) = self.shown(change) {
                is_news = true;
                out.send(&message).await?;
            }
        }
        // Resuming before everything is delivered would miss the rest. That nothing was to be told is no news for whoever is confined:
        // it would tell that something happens elsewhere, and a token how much.
        if changes.caught_up && is_news {
            let kind = if in_snapshot { "snapshot_end" } else { "mark" };
            let resume = Some(resume_text(changes.token)).filter(|_| self.principal.scope.is_whole());
            out.send(&json!({ "type": kind, "resume": resume })).await?;
        }
        out.flush().await?;
        // Only now are the next values fetched: those that changed meanwhile count once.
        if let Some(subscription) = &mut self.subscription {
            subscription.snapshot = in_snapshot && !changes.caught_up;
            subscription.next = Subscription::next(&subscription.watch.service, subscription.watch.watcher);
        }
        Ok(())
    }

    /// A change as this client sees it, if it does. What leaves the scope of one that is confined is gone for it.
    fn shown(&mut self, change: &Change) -> Option<Value> {
        if self.principal.scope.is_whole() {
            return self.principal.may_see(change.id.kind()).then(|| to_json(change));
        }
        let told = &mut self.subscription.as_mut()?.told;
        let object = change.object.as_ref().filter(|object| object.complete && self.principal.sees(object));
        match object {
            Some(_) => {
                told.insert(change.id.clone());
                Some(to_json(change))
            }
            None => told.remove(&change.id).then(|| gone(&change.id)),
        }
    }

    /// Tells the commands to the devices of a group at once, and of each what its life brings from then on.
    async fn track_all(
        &mut self,
        many: &Many,
        reference: Option<Value>,
        out: &mut Outbound,
    ) -> Result<(), Closed> {
        let mut message = many.to_json();
        if let Value::Object(map) = &mut message {
            map.insert("type".to_owned(), "commands".into());
        }
        outbound::refer(&mut message, reference.as_ref());
        out.send(&message).await?;
        for command in &many.commands {
            self.track(command, reference.clone(), command.life.len(), out).await?;
        }
        Ok(())
    }

    /// Tells the command's state, and what its life brings from now on. Of its life so much was `told` already.
    async fn track(
        &mut self,
        command: &Command,
        reference: Option<Value>,
        told: usize,
        out: &mut Outbound,
    ) -> Result<(), Closed> {
        let id = command.id.clone();
        // The same key again may be the same command: it is told under its newest reference.
        self.tracked.retain(|tracked| tracked.id != id);
        if told > 0 && command.state.is_final() {
            return Ok(());
        }
        if self.tracked.len() >= MAX_TRACKED {
            self.tracked.remove(0);
        }
        self.tracked.push(Tracked { id: id.clone(), reference, told });
        self.advance(command, out).await?;
        // Its life may have gone on while the answer was on its way here.
        if let Ok(Some(now)) = self.context.commands.get(id).await {
            self.advance(&now, out).await?;
        }
        Ok(())
    }

    async fn tell(
        &mut self,
        news: Result<Command, broadcast::error::RecvError>,
        out: &mut Outbound,
    ) -> Result<(), Closed> {
        match news {
            Ok(command) => self.advance(&command, out).await?,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let ids: Vec<_> = self.tracked.iter().map(|tracked| tracked.id.clone()).collect();
                for id in ids {
                    if let Ok(Some(now)) = self.context.commands.get(id).await {
                        self.advance(&now, out).await?;
                    }
                }
            }
            Err(broadcast::error::RecvError::Closed) => return Err(Closed::Stopping),
        }
        out.flush().await
    }

    /// Tells a state of a command of this socket that was not told yet.
    async fn advance(&mut self, command: &Command, out: &mut Outbound) -> Result<(), Closed> {
        let Some(tracked) = self.tracked.iter_mut().find(|tracked| tracked.id == command.id) else {
            return Ok(());
        };
        if tracked.told >= command.life.len() {
            return Ok(());
        }
        tracked.told = command.life.len();
        let mut message = json!({ "type": "command", "command": commands::to_json(command) });
        outbound::refer(&mut message, tracked.reference.as_ref());
        if command.state.is_final() {
            self.tracked.retain(|tracked| tracked.id != command.id);
        }
        out.send(&message).await
    }
}

async fn next_changes(subscription: &mut Option<Subscription>) -> Result<Changes, ServiceError> {
    match subscription {
        Some(subscription) => (&mut subscription.next).await,
        None => std::future::pending().await,
    }
}

/// An object that lacks a required field reads as absent.
fn to_json(change: &Change) -> Value {
    match change.object.as_ref().filter(|object| object.complete) {
        Some(object) => json!({ "type": "object", "object": from_object(object) }),
        None => gone(&change.id),
    }
}

fn gone(id: &ObjectId) -> Value {
    json!({ "type": "gone", "id": id.as_str() })
}

fn resume_text(token: ResumeToken) -> String {
    format!("{:016x}-{:x}", token.incarnation, token.revision)
}

/// `None` for text that no node gave out: its bearer gets a whole snapshot.
fn parse_resume(text: &str) -> Option<ResumeToken> {
    let (incarnation, revision) = text.split_once('-')?;
    let number = |hex: &str| u64::from_str_radix(hex, 16).ok();
    Some(ResumeToken { incarnation: number(incarnation)?, revision: number(revision)? })
}
