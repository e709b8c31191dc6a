//! The event loop: owns the mesh machine and is the only caller of it.
//!
//! Frames, commits, requests and time go in; frames, batches, answers and log lines come
//! out. Nothing here decides anything about the protocol.

mod status;
mod watchers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mesh_proto::{
    Key, NodeId, ObjectId, ShortId,
    commit::WriteToken,
    kinds::Author,
    mesh::{self, Event, Input, Mesh, Transmit, WriteError},
    overlay::Run,
    record::Batch,
    roster::Body,
    session,
    time::Now,
    wire::ByeReason,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{debug, error, info, warn};

use crate::{
    service::{Op, Request, ServiceError},
    state_dir::{Incarnation, StateDir},
    store::worker::{Committed, StoreHandle},
    transport::{
        Channel, CloseCode, LinkEvent, LinkEventReceiver, LinkHandle, LinkId, SendError, Target, Wanted,
    },
};
use status::StatusSource;
use watchers::Watchers;

/// Link events taken in before the consequences of all of them are drawn at once.
const EVENTS_AT_ONCE: usize = 64;
/// How long a link that is being closed may still deliver why.
const LINGER: Duration = Duration::from_millis(200);
/// How long until a batch that the store refused is offered again.
const STORE_RETRY: Duration = Duration::from_secs(2);
/// How often the clock's synchronisation is looked at, and whom to dial.
const CHORES: Duration = Duration::from_secs(5);
/// How long a clean stop waits for the last flush.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Everything the loop is made of.
pub struct Parts {
    /// The machine, fresh.
    pub mesh: Mesh,
    /// The state folder, for the small files.
    pub state: Arc<StateDir>,
    /// The store thread.
    pub store: StoreHandle,
    /// Its results.
    pub committed: mpsc::UnboundedReceiver<Committed>,
    /// What the links say.
    pub links: LinkEventReceiver,
    /// What the rest of the node asks.
    pub requests: mpsc::Receiver<Request>,
    /// Whom the dialer should reach.
    pub wanted: watch::Sender<Wanted>,
    /// Addresses known from the configuration or the invite.
    pub seeds: Vec<(Target, Vec<SocketAddr>)>,
    /// The nodes that are alive, this one included, for the rest of the node.
    pub alive: watch::Sender<BTreeSet<ShortId>>,
    /// The admitted nodes, for the transport, which lets strangers in sparingly.
    pub members: watch::Sender<BTreeSet<NodeId>>,
    /// Bumped by every turn; the watchdog looks at it.
    pub heartbeat: Arc<AtomicU64>,
    /// The clocks.
    pub clock: Clock,
    /// Marks that the store was restored; removed once a peer's state was taken over.
    pub restored_marker: std::path::PathBuf,
}

/// The clocks of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: millis(self.start.elapsed()), wall_ms: millis(wall) }
    }

    fn instant(&self, mono_ms: u64) -> Instant {
        self.start + Duration::from_millis(mono_ms)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether an NTP client says that the system clock is right. systemd-timesyncd and chrony's
/// unit both leave this file (systemd, `time-sync.target`).
pub fn is_clock_synchronised() -> bool {
    std::path::Path::new("/run/systemd/timesync/synchronized").exists()
}

struct OpenLink {
    handle: LinkHandle,
    address: SocketAddr,
    dialed: bool,
    /// A frame that found the queue full and goes out first when there is room.
    waiting: Option<(Channel, Bytes)>,
}

/// The loop.
pub struct EventLoop {
    mesh: Mesh,
    state: Arc<StateDir>,
    store: StoreHandle,
    committed: mpsc::UnboundedReceiver<Committed>,
    links_in: LinkEventReceiver,
    requests: mpsc::Receiver<Request>,
    wanted: watch::Sender<Wanted>,
    seeds: Vec<(Target, Vec<SocketAddr>)>,
    alive: watch::Sender<BTreeSet<ShortId>>,
    members: watch::Sender<BTreeSet<NodeId>>,
    heartbeat: Arc<AtomicU64>,
    clock: Clock,
    restored_marker: std::path::PathBuf,
    links: BTreeMap<LinkId, OpenLink>,
    closing: Vec<(Instant, LinkHandle, CloseCode)>,
    watchers: Watchers,
    writes: BTreeMap<WriteToken, oneshot::Sender<Result<(), ServiceError>>>,
    in_flight: Option<(u64, Batch)>,
    retry_at: Option<Instant>,
    store_error: Option<String>,
    roster_saved: Vec<u8>,
    chores_at: Instant,
    is_heard: BTreeSet<ShortId>,
}

impl EventLoop {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let incarnation = parts.mesh.run().incarnation;
        Self {
            mesh: parts.mesh,
            state: parts.state,
            store: parts.store,
            committed: parts.committed,
            links_in: parts.links,
            requests: parts.requests,
            wanted: parts.wanted,
            seeds: parts.seeds,
            alive: parts.alive,
            members: parts.members,
            heartbeat: parts.heartbeat,
            clock: parts.clock,
            restored_marker: parts.restored_marker,
            links: BTreeMap::new(),
            closing: Vec::new(),
            watchers: Watchers::new(incarnation),
            writes: BTreeMap::new(),
            in_flight: None,
            retry_at: None,
            store_error: None,
            roster_saved: Vec::new(),
            chores_at: Instant::now(),
            is_heard: BTreeSet::new(),
        }
    }

    /// Runs until `shutdown` says so, then stops cleanly: flushes, says goodbye, and marks the
    /// run as clean.
    ///
    /// # Errors
    /// When the last writes could not be flushed; the run is then marked as unclean.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
        loop {
            self.turn();
            let wake = self.next_wake();
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                event = self.links_in.recv() => match event {
                    Some(event) => self.link_events(event),
                    None => break,
                },
                Some(committed) = self.committed.recv() => self.committed(committed),
                request = self.requests.recv() => match request {
                    Some(request) => self.requests(request),
                    None => break,
                },
                () = tokio::time::sleep_until(wake) => {
                    let now = self.clock.now();
                    self.mesh.handle_timeout(now);
                }
            }
        }
        self.stop().await
    }

    fn next_wake(&self) -> Instant {
        let mesh = self.mesh.poll_timeout().map(|at| self.clock.instant(at));
        let closing = self.closing.iter().map(|(at, ..)| *at).min();
        [mesh, closing, self.retry_at, Some(self.chores_at)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.chores_at)
    }

    /// Draws every consequence of what came in.
    fn turn(&mut self) {
        self.heartbeat.fetch_add(1, Ordering::Relaxed);
        self.chores();
        self.retry_store();
        self.handle_events();
        self.tell_watchers();
        self.transmit();
        self.end_closing();
    }

    fn link_events(&mut self, first: LinkEvent) {
        self.link_event(first);
        for _ in 1..EVENTS_AT_ONCE {
            let Some(event) = self.links_in.try_recv() else { break };
            self.link_event(event);
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        let now = self.clock.now();
        match event {
            LinkEvent::Up { link, handle, peer, address, dialed, .. } => {
                debug!(%link, peer = %peer.short(), %address, dialed, "link up");
                self.links.insert(link, OpenLink { handle, address, dialed, waiting: None });
                self.mesh.handle_input(now, Input::LinkUp { link: proto(link), peer, dialed });
            }
            LinkEvent::Frame { link, channel: Channel::Stream, bytes } => {
                self.mesh.handle_input(now, Input::Frame(proto(link), bytes.to_vec()));
            }
            LinkEvent::Frame { link, channel: Channel::Datagram, bytes } => {
                self.mesh.handle_input(now, Input::Packet(proto(link), bytes.to_vec()));
            }
            LinkEvent::Writable { link } => {
                self.send_to(link);
            }
            LinkEvent::Down { link, reason } => {
                debug!(%link, %reason, "link down");
                self.links.remove(&link);
                self.mesh.handle_input(now, Input::LinkDown(proto(link)));
                self.want_peers();
            }
        }
    }

    fn requests(&mut self, first: Request) {
        self.request(first);
        for _ in 1..EVENTS_AT_ONCE {
            let Ok(request) = self.requests.try_recv() else { break };
            self.request(request);
        }
    }

    /// An asker that is gone no longer needs its answer, so failed replies are let go.
    fn request(&mut self, request: Request) {
        match request {
            Request::Get(id, reply) => {
                let _ = reply.send(self.mesh.object(&id).map(status::object_view));
            }
            Request::List { prefix, after, limit, incomplete, reply } => {
                let _ = reply.send(self.list(&prefix, after.as_ref(), limit, incomplete));
            }
            Request::Write(author, ops, reply) => self.write(author, ops, reply),
            Request::Watch(prefixes, resume, reply) => {
                let watching = self.watchers.watch(prefixes, resume, &self.mesh);
                let _ = reply.send(watching);
            }
            Request::NextChanges(watcher, reply) => self.watchers.next(watcher, reply, &self.mesh),
            Request::Unwatch(watcher) => self.watchers.unwatch(watcher),
            Request::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Request::Issue(body, reply) => {
                let _ = reply.send(self.issue(body));
            }
        }
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectId>,
        limit: usize,
        incomplete: bool,
    ) -> Vec<crate::service::ObjectView> {
        let start = after.cloned().or_else(|| first_with(prefix));
        self.mesh
            .names_from(start.as_ref())
            .skip_while(|id| !id.as_str().starts_with(prefix) && id.as_str() < prefix)
            .take_while(|id| id.as_str().starts_with(prefix))
            .filter(|id| Some(*id) != after)
            .filter_map(|id| self.mesh.object(id))
            .filter(|object| incomplete || object.complete)
            .take(limit.clamp(1, 1000))
            .map(status::object_view)
            .collect()
    }

    fn write(&mut self, author: Author, ops: Vec<Op>, reply: oneshot::Sender<Result<(), ServiceError>>) {
        if let Some(reason) = &self.store_error {
            let _ = reply.send(Err(ServiceError::Store(reason.clone())));
            return;
        }
        let ops = ops.into_iter().map(mesh_op).collect();
        match self.mesh.write(self.clock.now(), author, ops) {
            Ok(token) => {
                self.writes.insert(token, reply);
            }
            Err(error) => {
                let _ = reply.send(Err(write_error(error)));
            }
        }
    }

    fn issue(&mut self, body: Body) -> Result<Vec<Vec<u8>>, ServiceError> {
        if let Body::Admit { node, token: Some(token), .. } = &body
            && self.mesh.roster().redeemed(token).is_some()
            && self.mesh.roster().is_admitted(node)
        {
            // A retry, perhaps after a power cut in between, gets the same statements.
            return Ok(self.mesh.roster().proof_for(node));
        }
        let subject = match &body {
            Body::Admit { node, .. } | Body::Revoke { node, .. } => *node,
            Body::Leave => self.mesh.id(),
        };
        self.mesh.issue(self.clock.now(), body).map_err(|error| ServiceError::Roster(error.to_string()))?;
        // The statement must be durable before anybody hears of it.
        self.save_roster().map_err(|error| ServiceError::Store(error.to_string()))?;
        Ok(self.mesh.roster().proof_for(&subject))
    }

    fn committed(&mut self, committed: Committed) {
        let Committed { batch_id, result } = committed;
        match result {
            Ok(()) => {
                if self.store_error.take().is_some() {
                    info!("the store can be written again");
                }
                self.in_flight = None;
                self.mesh.handle_input(self.clock.now(), Input::Persisted(batch_id));
            }
            Err(reason) => {
                if self.store_error.is_none() {
                    error!(%reason, "the store cannot be written; writes are refused until it can");
                }
                self.store_error = Some(reason.to_string());
                self.retry_at = Some(Instant::now() + STORE_RETRY);
                for (_, reply) in std::mem::take(&mut self.writes) {
                    let _ = reply.send(Err(ServiceError::Store(reason.to_string())));
                }
            }
        }
    }

    fn retry_store(&mut self) {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            if let Some((batch, records)) = &self.in_flight
                && let Err(reason) = self.store.commit(*batch, records.clone().into())
            {
                error!(%reason, "the store is gone");
            }
        }
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.mesh.poll_event() {
            self.handle_event(event);
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Persist { batch, records } => {
                self.in_flight = Some((batch, records.clone()));
                if let Err(reason) = self.store.commit(batch, records.into()) {
                    error!(%reason, "the store is gone");
                }
            }
            Event::PersistRun(run) => self.persist_run(run),
            Event::Written(token) => {
                if let Some(reply) = self.writes.remove(&token) {
                    let _ = reply.send(Ok(()));
                }
            }
            Event::Close(link, reason) => self.close(link, reason),
            Event::RosterChanged => {
                if let Err(reason) = self.save_roster() {
                    error!(%reason, "the membership cannot be saved");
                }
                self.members.send_replace(self.mesh.roster().members().map(|member| member.id).collect());
                self.publish_alive();
                self.want_peers();
            }
            Event::Linked(link, node) => self.linked(link, node),
            Event::NodeUp(node, _) => {
                info!(node = %self.name_of(node), "node is alive");
                self.is_heard.insert(node);
                self.publish_alive();
            }
            Event::NodeDown(node, _) => {
                warn!(node = %self.name_of(node), "node is down");
                self.publish_alive();
            }
            Event::Offence(node, counter) => {
                warn!(node = %self.name_of(node.short()), offence = counter.name(), "a peer broke a rule");
            }
            Event::ClockCorrected(_) => {
                warn!(
                    "the clock was ahead and has been set back; what was written meanwhile is written again"
                );
            }
            Event::Rewound(node) => warn!(
                node = %self.name_of(node.short()),
                "a peer knows writes of this node that it never made: was this card restored or cloned?"
            ),
            Event::Refused(node, reason) => self.refused(node, reason),
            Event::Restored { lost } => self.restored(&lost),
        }
    }

    fn persist_run(&mut self, run: Run) {
        let stored = Incarnation { generation: run.generation, incarnation: run.incarnation, clean: false };
        match self.state.set_incarnation(stored) {
            Ok(()) => self.mesh.handle_input(self.clock.now(), Input::RunPersisted(run)),
            Err(reason) => error!(%reason, "the new generation cannot be saved; writes wait"),
        }
    }

    fn save_roster(&mut self) -> Result<(), crate::state_dir::StateDirError> {
        let bytes = self.mesh.roster().to_bytes();
        if bytes != self.roster_saved {
            self.state.set_roster(&bytes)?;
            self.roster_saved = bytes;
        }
        Ok(())
    }

    fn linked(&mut self, link: session::LinkId, node: NodeId) {
        if let Some(open) = self.links.get(&LinkId(link.0)) {
            open.handle.admit();
            info!(node = %self.name_of(node.short()), address = %open.address, "linked");
        }
        self.want_peers();
    }

    fn refused(&self, node: NodeId, reason: ByeReason) {
        let node = self.name_of(node.short());
        match reason {
            ByeReason::Revoked => error!(
                %node,
                "this node was removed from the household; to come back, run `hearth leave` here and join with a new invite"
            ),
            other => warn!(%node, reason = ?other, "a peer refused this node"),
        }
    }

    fn restored(&self, lost: &[mesh_proto::record::Item]) {
        if let Err(reason) = std::fs::remove_file(&self.restored_marker)
            && reason.kind() != std::io::ErrorKind::NotFound
        {
            error!(%reason, "the mark of the restored store cannot be removed");
        }
        info!(lost = lost.len(), "a peer's state replaced the restored store");
        for item in lost {
            warn!(register = ?item.key, "lost and found: its object was deleted while this store was away");
        }
    }

    fn close(&mut self, link: session::LinkId, reason: ByeReason) {
        let id = LinkId(link.0);
        self.send_to(id);
        let code = match reason {
            ByeReason::WrongHousehold => CloseCode::Household,
            ByeReason::NotAdmitted => CloseCode::NotAdmitted,
            ByeReason::Revoked => CloseCode::Revoked,
            ByeReason::TooOld | ByeReason::TooNew => CloseCode::Version,
            ByeReason::Misbehaved => CloseCode::Offence,
            ByeReason::Replaced => CloseCode::Duplicate,
            ByeReason::Leaving => CloseCode::GoingDown,
        };
        if let Some(open) = self.links.remove(&id) {
            self.closing.push((Instant::now() + LINGER, open.handle, code));
        }
    }

    fn end_closing(&mut self) {
        let now = Instant::now();
        self.closing.retain(|(at, handle, code)| {
            let over = *at <= now;
            if over {
                handle.close(*code, "");
            }
            !over
        });
    }

    fn tell_watchers(&mut self) {
        loop {
            let changed = self.mesh.take_changed(1024);
            if changed.is_empty() {
                break;
            }
            self.watchers.changed(&changed);
        }
        self.watchers.deliver(&self.mesh);
    }

    fn transmit(&mut self) {
        let ids: Vec<LinkId> =
            self.links.iter().filter(|(_, open)| open.waiting.is_none()).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.send_to(id));
    }

    fn send_to(&mut self, id: LinkId) {
        let Some(open) = self.links.get_mut(&id) else { return };
        loop {
            let next = open.waiting.take().or_else(|| match self.mesh.poll_transmit(proto(id))? {
                Transmit::Frame(bytes) => Some((Channel::Stream, Bytes::from(bytes))),
                Transmit::Packet(bytes) => Some((Channel::Datagram, Bytes::from(bytes))),
            });
            let Some((channel, bytes)) = next else { return };
            match open.handle.try_send(channel, bytes.clone()) {
                Ok(()) => {}
                Err(SendError::Full) => {
                    open.waiting = Some((channel, bytes));
                    return;
                }
                Err(reason) => {
                    debug!(link = %id, %reason, "frame not sent");
                    return;
                }
            }
        }
    }

    fn chores(&mut self) {
        let now = Instant::now();
        if self.chores_at > now {
            return;
        }
        self.chores_at = now + CHORES;
        let synchronised = is_clock_synchronised();
        if synchronised != self.mesh.time().is_synchronised() {
            self.mesh.handle_input(self.clock.now(), Input::Synchronised(synchronised));
        }
        self.want_peers();
    }

    /// Tells the dialer whom to reach: every admitted node that has no accepted link.
    fn want_peers(&mut self) {
        let me = self.mesh.id();
        let accepted: BTreeSet<NodeId> =
            self.links.values().filter(|open| !open.dialed).map(|open| open.handle.peer()).collect();
        let mut wanted = Wanted::new();
        for (target, addresses) in &self.seeds {
            let is_met = match target {
                Target::Node(node) => accepted.contains(node) || !self.mesh.roster().is_admitted(node),
                Target::Address(address) => {
                    self.links.values().any(|open| !open.dialed && open.address == *address)
                }
            };
            if !is_met {
                wanted.insert(*target, addresses.clone());
            }
        }
        for member in self.mesh.roster().members() {
            if member.id == me || accepted.contains(&member.id) {
                continue;
            }
            let addresses = status::addresses_of(&self.mesh, member.short);
            if !addresses.is_empty() {
                wanted.entry(Target::Node(member.id)).or_default().extend(addresses);
            }
        }
        for addresses in wanted.values_mut() {
            addresses.sort_unstable();
            addresses.dedup();
        }
        self.wanted.send_if_modified(|current| {
            let differs = *current != wanted;
            if differs {
                *current = wanted;
            }
            differs
        });
    }

    fn publish_alive(&self) {
        let mut alive: BTreeSet<ShortId> = self.mesh.alive().into_iter().map(|(node, _)| node).collect();
        alive.insert(self.mesh.id().short());
        self.alive.send_if_modified(|current| {
            let differs = *current != alive;
            if differs {
                *current = alive;
            }
            differs
        });
    }

    fn name_of(&self, node: ShortId) -> String {
        status::name_of(&self.mesh, node)
    }

    fn status(&self) -> crate::service::Status {
        let links = self.links.values().map(|open| {
            let rtt = u64::try_from(open.handle.rtt().as_micros()).unwrap_or(u64::MAX);
            (open.handle.peer(), (open.address, rtt))
        });
        let source = StatusSource {
            mesh: &self.mesh,
            links: links.collect(),
            is_heard: &self.is_heard,
            store_error: self.store_error.clone(),
            uptime_s: self.clock.now().mono_ms / 1000,
        };
        source.status()
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.mesh.flush(self.clock.now());
        let deadline = Instant::now() + STOP_PATIENCE;
        self.turn();
        while !self.mesh.is_flushed() {
            let committed = tokio::time::timeout_at(deadline, self.committed.recv()).await;
            match committed {
                Ok(Some(committed)) => self.committed(committed),
                _ => break,
            }
            self.turn();
        }
        let flushed = self.mesh.is_flushed();
        self.mesh.leave(self.clock.now());
        self.turn();
        tokio::time::sleep(LINGER).await;
        self.turn();
        let Self { store, state, mesh, .. } = self;
        tokio::task::spawn_blocking(move || store.close()).await??;
        state.set_clock_ceiling(mesh.time().last().to_bits())?;
        let run = mesh.run();
        let stored = Incarnation { generation: run.generation, incarnation: run.incarnation, clean: flushed };
        state.set_incarnation(stored)?;
        anyhow::ensure!(flushed, "the last writes could not be flushed within {STOP_PATIENCE:?}");
        Ok(())
    }
}

fn proto(link: LinkId) -> session::LinkId {
    session::LinkId(link.0)
}

/// The least object name that can start with the prefix, so that listing starts near it.
fn first_with(prefix: &str) -> Option<ObjectId> {
    let (kind, name) = prefix.split_once('/')?;
    ObjectId::new(&format!("{kind}/{}", if name.is_empty() { "-" } else { name })).ok()
}

fn mesh_op(op: Op) -> mesh::Op {
    match op {
        Op::Set(object, field, value) => mesh::Op::Set(Key { object, field }, value),
        Op::Unset(object, field) => mesh::Op::Unset(Key { object, field }),
        Op::Delete(object) => mesh::Op::Delete(object),
    }
}

fn write_error(error: WriteError) -> ServiceError {
    match error {
        WriteError::Forbidden(object, field) => ServiceError::Forbidden(format!("{object}.{field}")),
        WriteError::Value(object, field, reason) => {
            ServiceError::Value { field: format!("{object}.{field}"), reason: reason.to_string() }
        }
        WriteError::TooMany(count) => ServiceError::TooManyOps(count),
        WriteError::Overloaded => ServiceError::Overloaded,
    }
}
