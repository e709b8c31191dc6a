//! The event loop: owns the mesh machine and is the only caller of it.
//!
//! Frames, commits, requests and time go in; frames, batches, answers and log lines come
//! out. Nothing here decides anything about the protocol.

mod clock;
mod counts;
mod events;
mod files;
mod membership;
mod peers;
mod requests;
mod standing;
mod status;
mod telling;
mod watchers;

#[cfg(test)]
pub(crate) mod tests;

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
    NodeId, ShortId,
    commit::WriteToken,
    counters::Counter,
    mesh::{Input, Mesh, Transmit},
    overlay::Run,
    record::Batch,
    session,
    wire::ByeReason,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tracing::{debug, error, info};

use crate::{
    discovery::Found,
    service::{HouseholdTime, Request, ServiceError},
    state_dir::StateDir,
    store::worker::{Committed, StoreHandle},
    transport::{
        Channel, CloseCode, LinkEvent, LinkEventReceiver, LinkHandle, LinkId, SendError, Target,
        TransportKind, Wanted,
    },
};
pub use clock::Clock;
use counts::Counts;
use files::{Files, Saved};
use membership::Membership;
use standing::Standing;
use watchers::Watchers;

/// Link events taken in before the consequences of all of them are drawn at once.
const EVENTS_AT_ONCE: usize = 64;
/// How long a link that is being closed may still deliver why.
const LINGER: Duration = Duration::from_millis(200);
/// How long until a batch that the store refused is offered again.
const STORE_RETRY: Duration = Duration::from_secs(2);
/// How often the clock's synchronisation is looked at, whom to dial, and what could not be saved.
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
    /// Addresses that were discovered, and how discovery is.
    pub discovered: watch::Receiver<Found>,
    /// The nodes that are alive, this one included, for the rest of the node.
    pub alive: watch::Sender<BTreeSet<ShortId>>,
    /// The admitted nodes, for the transport, which lets strangers in sparingly.
    pub members: watch::Sender<BTreeSet<NodeId>>,
    /// Bumped by every turn; the watchdog looks at it.
    pub heartbeat: Arc<AtomicU64>,
    /// The clocks.
    pub clock: Clock,
    /// Whether the wall clock is known to be right, from [`crate::timekeeping`].
    pub synchronised: watch::Receiver<bool>,
    /// The time of day, for the rest of the node.
    pub time: watch::Sender<HouseholdTime>,
    /// Whether nothing is missing here of what the linked peers hold.
    pub caught_up: watch::Sender<bool>,
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
    discovered: watch::Receiver<Found>,
    alive: watch::Sender<BTreeSet<ShortId>>,
    members: watch::Sender<BTreeSet<NodeId>>,
    heartbeat: Arc<AtomicU64>,
    clock: Clock,
    synchronised: watch::Receiver<bool>,
    time: watch::Sender<HouseholdTime>,
    caught_up: watch::Sender<bool>,
    files: Files,
    links: BTreeMap<LinkId, OpenLink>,
    closing: Vec<(Instant, LinkHandle, CloseCode)>,
    watchers: Watchers,
    counts: Counts,
    writes: BTreeMap<WriteToken, oneshot::Sender<Result<(), ServiceError>>>,
    in_flight: Option<(u64, Batch)>,
    retry_at: Option<Instant>,
    store_error: Option<String>,
    membership: Membership,
    /// The run to persist, until it is, with the generation that the mark of a restored store is to hold, if it is one.
    run_wanted: Option<(Run, Option<u32>)>,
    /// The mark of a restored store is to go.
    unmark_wanted: bool,
    /// Either of them is under way.
    run_saving: bool,
    chores_at: Instant,
    is_heard: BTreeSet<ShortId>,
    /// How often each peer broke each rule since the table was last full.
    offences: BTreeMap<(NodeId, Counter), u64>,
    /// That a run or the lost-and-found cannot be saved has been said.
    run_failed: bool,
    lost_failed: bool,
    standing: Standing,
}

impl EventLoop {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let incarnation = parts.mesh.run().incarnation;
        let membership = Membership::new(parts.mesh.roster().to_bytes());
        let files = Files::new(Arc::clone(&parts.state));
        Self {
            mesh: parts.mesh,
            state: parts.state,
            store: parts.store,
            committed: parts.committed,
            links_in: parts.links,
            requests: parts.requests,
            wanted: parts.wanted,
            seeds: parts.seeds,
            discovered: parts.discovered,
            alive: parts.alive,
            members: parts.members,
            heartbeat: parts.heartbeat,
            clock: parts.clock,
            synchronised: parts.synchronised,
            time: parts.time,
            caught_up: parts.caught_up,
            files,
            links: BTreeMap::new(),
            closing: Vec::new(),
            watchers: Watchers::new(incarnation),
            counts: Counts::default(),
            writes: BTreeMap::new(),
            in_flight: None,
            retry_at: None,
            store_error: None,
            membership,
            run_wanted: None,
            unmark_wanted: false,
            run_saving: false,
            chores_at: Instant::now(),
            is_heard: BTreeSet::new(),
            offences: BTreeMap::new(),
            run_failed: false,
            lost_failed: false,
            standing: Standing::default(),
        }
    }

    /// Runs until `shutdown` says so, then stops in order: flushes, and says goodbye.
    ///
    /// # Errors
    /// When the last writes could not be flushed. When the store
    /// thread has died, at once: nothing could be written any more.
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
                committed = self.committed.recv() => match committed {
                    Some(committed) => self.committed(committed),
                    None => anyhow::bail!("the store has ended by itself; the next start repairs it if need be"),
                },
                saved = self.files.saved() => self.saved(saved),
                Ok(()) = self.discovered.changed() => self.want_peers(),
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
        self.tell_time();
        self.tell_watchers();
        // After what came has been told: who hears that nothing is missing looks at it.
        self.tell_caught_up();
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
            LinkEvent::Up { link, handle, peer, address, dialed, transport } => {
                debug!(%link, peer = %peer.short(), %address, dialed, %transport, "link up");
                self.links.insert(link, OpenLink { handle, address, dialed, waiting: None });
                let transport = match transport {
                    TransportKind::Quic => session::Transport::Quic,
                    TransportKind::WebSocket => session::Transport::WebSocket,
                };
                self.mesh.handle_input(now, Input::LinkUp { link: proto(link), peer, dialed, transport });
            }
            LinkEvent::Frame { link, channel: Channel::Stream, bytes } => {
                self.mesh.handle_input(now, Input::Frame(proto(link), bytes.to_vec()));
            }
            LinkEvent::Frame { link, channel: Channel::Datagram, bytes } => {
                self.mesh.handle_input(now, Input::Packet(proto(link), bytes.to_vec()));
            }
            LinkEvent::Silent { link, is_silent } => {
                debug!(%link, is_silent, "nothing is heard over a link, or its peer is heard again");
                self.mesh.handle_input(now, Input::LinkSilent(proto(link), is_silent));
                self.want_peers();
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
                    error!(%reason, "the store cannot be written; writes are refused until it can, what lives in memory goes on");
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
        self.look_where_it_stands();
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
            ByeReason::Replaced | ByeReason::Copied => CloseCode::Duplicate,
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

    fn saved(&mut self, saved: Saved) {
        match saved {
            Saved::Roster(result) => self.roster_saved(result),
            Saved::Run(run, result) => self.run_saved(run, result),
            Saved::Unmarked => {
                self.run_saving = false;
                self.save_run();
            }
            Saved::Lost(number, result) => self.lost_saved(number, result),
        }
    }

    fn tell_watchers(&mut self) {
        self.note_changes();
        self.watchers.deliver(&self.mesh);
    }

    fn note_changes(&mut self) {
        loop {
            let changed = self.mesh.take_changed(1024);
            if changed.is_empty() {
                break;
            }
            self.watchers.changed(&changed);
            self.counts.changed(&changed);
        }
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
        let synchronised = *self.synchronised.borrow();
        if synchronised != self.mesh.time().is_synchronised() {
            self.mesh.handle_input(self.clock.now(), Input::Synchronised(synchronised));
        }
        self.save_run();
        self.save_membership();
        self.want_peers();
        self.name_copies();
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.mesh.flush(self.clock.now());
        let deadline = Instant::now() + STOP_PATIENCE;
        self.turn();
        self.save_membership();
        while !self.mesh.is_flushed() || self.membership.is_saving() || self.run_saving {
            tokio::select! {
                committed = self.committed.recv() => match committed {
                    Some(committed) => self.committed(committed),
                    None => break,
                },
                saved = self.files.saved() => self.saved(saved),
                () = tokio::time::sleep_until(deadline) => break,
            }
            self.mesh.flush(self.clock.now());
            self.turn();
        }
        let flushed = self.mesh.is_flushed();
        self.mesh.leave(self.clock.now());
        self.turn();
        tokio::time::sleep(LINGER).await;
        self.turn();
        let Self { store, state, mesh, .. } = self;
        let ceiling = mesh.time().last().to_bits();
        tokio::task::spawn_blocking(move || {
            store.close()?;
            anyhow::Ok(state.set_clock_ceiling(ceiling)?)
        })
        .await??;
        anyhow::ensure!(flushed, "the last writes could not be flushed within {STOP_PATIENCE:?}");
        Ok(())
    }
}

fn proto(link: LinkId) -> session::LinkId {
    session::LinkId(link.0)
}
