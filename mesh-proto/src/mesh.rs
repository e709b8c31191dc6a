//! The machine of one node: input and time go in, frames, records and events come out.
//!
//! This file holds the machine: construction, input, output; `mesh/surface.rs` what goes in and comes
//! out, `mesh/reads.rs` what is shown. What happens inside is told by
//! topic: `mesh/links.rs` (introductions and frames), `mesh/rivals.rs` (which link a pair keeps), `mesh/writes.rs` (own writes, batches,
//! the corrected clock), `mesh/intake.rs` (what is checked of peers' writes), `mesh/spread.rs` (push and anti-entropy),
//! `mesh/relay.rs` (liveness packets, and what
//! goes to nodes without a link), `mesh/upkeep.rs` (tombstones, trees), `mesh/restoring.rs` (a store that was
//! set back), `mesh/outside.rs` (peers that were removed, cards that were copied).

mod intake;
mod links;
mod outside;
mod reads;
mod relay;
mod restoring;
mod rivals;
mod spread;
mod surface;
mod upkeep;
mod writes;

pub use surface::*;

use outside::Apart;

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
    vec::Vec,
};

use ed25519_dalek::SigningKey;

use crate::{
    collect::Collector,
    commit::Commits,
    copies::Copies,
    counters::{Counter, Counters},
    id::{Key, NodeId, ObjectId, Origin, ShortId},
    limits::Limits,
    liveness::{Liveness as _, Swim},
    overlay::{Overlay, Run},
    planted::Plant,
    replica::Replica,
    restore::Restore,
    roster::{Body, Roster, RosterError, Statement},
    routing::Routing,
    session::{Link, LinkId},
    sync::Fetch,
    time::{Now, SetTimeError, TimeKeeper},
    vector::Vector,
    wire::{self, ByeReason, Message, Process},
};

/// How often each link compares digests, in milliseconds.
pub const DIGEST_MS: u64 = 10_000;
/// How often trees are compared, in milliseconds.
pub const TREE_MS: u64 = 3_600_000;
/// How long writes of peers may wait for a flush, in milliseconds.
pub const REMOTE_FLUSH_MS: u64 = 100;

/// The exchange by which this node gets what it misses.
#[derive(Debug)]
struct Fetching {
    link: LinkId,
    fetch: Fetch,
    /// The state that a restored node takes over whole.
    fresh: Option<Replica>,
}

/// The machine.
pub struct Mesh {
    key: SigningKey,
    id: NodeId,
    run: Run,
    software: String,
    limits: Limits,
    plant: Plant,
    time: TimeKeeper,
    roster: Roster,
    /// How many statements of the roster had their consequences drawn.
    statements: usize,
    admitted: BTreeSet<ShortId>,
    replica: Replica,
    overlay: Overlay,
    commits: Commits,
    liveness: Swim,
    routing: Routing,
    collector: Collector,
    links: BTreeMap<LinkId, Link>,
    /// Links that are to be closed; nothing is taken in from them any more.
    closing_links: BTreeSet<LinkId>,
    fetching: Option<Fetching>,
    process: Process,
    copies: Copies,
    /// What this node knows of its place when another board runs under its key.
    apart: Apart,
    /// What was accounted for when the last exchange ended, until it is flushed and the peers are told.
    fetched: Option<Vector>,
    /// The link that was asked last; the next one is asked next.
    last_asked: Option<LinkId>,
    /// Leads past generations that were forgotten.
    jump: u32,
    last_session: u32,
    last_token: u64,
    report_number: u32,
    /// The generation at the start of this process.
    booted: u32,
    /// The store holds all that this node wrote in this generation and later, unless it was set
    /// back unnoticed: it was last replaced before.
    known_since: u32,
    /// Set while a store that was set back is being replaced.
    restore: Option<Restore>,
    /// Writers of overlay entries that were not known to be alive when last looked.
    unheard: BTreeSet<ShortId>,
    /// Whether a peer collects tombstones and may wait for a report.
    report_wanted: bool,
    /// Set while a new run waits to be persisted.
    closing: Option<Run>,
    /// That run, once it is persisted.
    persisted_run: Option<Run>,
    flush_due_ms: Option<u64>,
    release_check_ms: Option<u64>,
    collect_due_ms: u64,
    tree_due_ms: u64,
    /// How often there was reason to believe that trees differ although vectors do not.
    suspicions: u32,
    packets: BTreeMap<LinkId, VecDeque<Vec<u8>>>,
    events: VecDeque<Event>,
    changed: BTreeSet<ObjectId>,
    counters: Counters,
    now: Now,
}

impl core::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mesh").field("id", &self.id).field("run", &self.run).finish_non_exhaustive()
    }
}

impl Mesh {
    /// A node at its start.
    pub fn new(boot: Boot, now: Now, mut loaded: Loader) -> Self {
        loaded.replica.finish_loading();
        loaded.replica.limit_held_back(boot.limits.held_back);
        let id = NodeId::from_bytes(boot.key.verifying_key().to_bytes());
        let ceiling = boot.ceiling.max(loaded.ceiling);
        let time = TimeKeeper::new(now, ceiling, boot.build_ms, boot.wall);
        let commits = Commits::new(loaded.replica.applied().clone());
        let started_ms = time.time_ms(now);
        let number = outside::process_number(id, boot.run, boot.seed);
        let liveness = Swim::new(id.short(), boot.run.incarnation, boot.seed);
        let mut mesh = Self {
            key: boot.key,
            id,
            run: boot.run,
            software: boot.software,
            limits: boot.limits,
            plant: boot.plant,
            time,
            roster: boot.roster,
            statements: 0,
            admitted: BTreeSet::new(),
            replica: loaded.replica,
            overlay: Overlay::new(boot.plant, boot.limits),
            commits,
            liveness,
            routing: Routing::new(id.short(), u32::try_from(boot.seed >> 32).unwrap_or(0)),
            collector: Collector::default(),
            links: BTreeMap::new(),
            closing_links: BTreeSet::new(),
            fetching: None,
            process: Process { started_ms, number },
            copies: Copies::default(),
            apart: Apart::default(),
            fetched: None,
            last_asked: None,
            jump: u32::try_from(boot.seed % u64::from(GENERATION_JUMP)).unwrap_or(0),
            last_session: 0,
            last_token: 0,
            report_number: 0,
            booted: boot.run.generation,
            known_since: loaded.known_since,
            restore: None,
            unheard: BTreeSet::new(),
            report_wanted: false,
            closing: None,
            persisted_run: None,
            flush_due_ms: None,
            release_check_ms: None,
            collect_due_ms: now.mono_ms + crate::collect::INTERVAL_MS,
            tree_due_ms: now.mono_ms + TREE_MS,
            suspicions: 0,
            packets: BTreeMap::new(),
            events: VecDeque::new(),
            changed: BTreeSet::new(),
            counters: Counters::default(),
            now,
        };
        #[cfg(feature = "planted-bugs")]
        mesh.roster.set_planted_unchained(crate::planted::planted!(mesh.plant, RosterUnchained));
        mesh.overlay.begin(id.short(), boot.run);
        mesh.see_generations();
        mesh.roster_changed();
        mesh.schedule_release();
        let merged = crate::planted::planted!(mesh.plant, RestoredStoreMerged);
        if let Some(since) = boot.restored.filter(|_| !merged) {
            mesh.begin_restore(since);
        }
        mesh.settle();
        mesh
    }

    /// Takes in what happened.
    pub fn handle_input(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::LinkUp { link, peer, dialed, transport } => self.link_up(link, peer, dialed, transport),
            Input::LinkSilent(link, is_silent) => self.link_silent(link, is_silent),
            Input::LinkDown(link) => self.link_down(link),
            Input::Frame(link, bytes) => self.frame(link, &bytes),
            Input::Packet(link, bytes) => self.packet(link, &bytes),
            Input::Persisted(batch) => self.persisted(batch),
            Input::RunPersisted(run) => self.run_persisted(run),
            Input::LostSaved(number) => self.lost_saved(number),
            Input::Synchronised(synchronised) => self.time.set_synchronised(self.now, synchronised),
        }
        self.settle();
    }

    /// Takes the time of day from a person, and tells the peers.
    ///
    /// # Errors
    /// [`SetTimeError`]; nothing has changed.
    pub fn set_time(&mut self, now: Now, ms: u64) -> Result<(), SetTimeError> {
        self.now = now;
        let peers = self.links.values().filter_map(|link| link.peer.as_ref());
        let heard = peers.map(|peer| peer.time.word).max().unwrap_or(0);
        self.time.set_by_person(now, ms, heard)?;
        self.settle();
        Ok(())
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.liveness.handle_timeout(now.mono_ms);
        self.release_quarantined();
        self.close_silent_links();
        self.part_copies();
        self.end_drains();
        self.abandon_stalled_fetch();
        self.send_due_digests();
        self.send_due_heads();
        self.report_and_collect();
        self.compare_trees_when_due();
        self.settle();
    }

    /// When [`Mesh::handle_timeout`] is due next, on the clock that never goes back.
    pub fn poll_timeout(&self) -> Option<u64> {
        let open = self.links.iter().filter(|(id, _)| !self.closing_links.contains(*id));
        let links = open.map(|(_, l)| match l.drain_due_ms {
            Some(due) => due,
            None if l.is_live() => l.says_next(),
            None => l.hello_due_ms,
        });
        let fetch = self.fetching.as_ref().map(|f| f.fetch.deadline_ms());
        let waits = self.commits.is_busy() || self.closing.is_some();
        let commit = if waits { None } else { self.commits.next_due() };
        let flush = if waits { None } else { self.flush_due_ms };
        let fixed = [Some(self.collect_due_ms), Some(self.tree_due_ms), Some(self.time.poll_timeout())];
        let peers = [self.liveness.poll_timeout(), self.routing.poll_timeout()];
        let optional = [fetch, commit, flush, self.release_check_ms];
        fixed.into_iter().chain(peers).chain(optional).flatten().chain(links).min()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The objects that changed since the last call, at most `limit` of them.
    pub fn take_changed(&mut self, limit: usize) -> Vec<ObjectId> {
        let taken: Vec<ObjectId> = self.changed.iter().take(limit).cloned().collect();
        taken.iter().for_each(|id| {
            self.changed.remove(id);
        });
        taken
    }

    /// The next thing to send over a link that has room.
    pub fn poll_transmit(&mut self, link: LinkId) -> Option<Transmit> {
        if let Some(packet) = self.packets.get_mut(&link).and_then(VecDeque::pop_front) {
            return Some(Transmit::Packet(packet));
        }
        let messages = self.next_messages(link)?;
        let frame = wire::encode(&messages);
        self.counters.bump(Counter::FramesOut);
        self.counters.add(Counter::BytesOut, frame.len());
        Some(Transmit::Frame(frame))
    }

    /// Signs a membership statement of this node. It counts for nothing yet: make the file of
    /// [`Roster::to_bytes_with`] durable first, then [`Mesh::publish`] it.
    ///
    /// # Errors
    /// [`RosterError`] when this node may not issue it; `Behind` while it waits for a peer's state, for
    /// then it would sign twice for one place of its chain. Leaving is allowed even then.
    pub fn sign(&self, body: Body) -> Result<Statement, RosterError> {
        let has_others = self.roster.members().any(|member| member.id != self.id());
        if self.is_restoring() && has_others && body != Body::Leave {
            return Err(RosterError::Behind);
        }
        self.roster.sign(&self.key, body)
    }

    /// Takes in a statement that this node signed and made durable, and tells every peer.
    ///
    /// # Errors
    /// [`RosterError`] when another took its place meanwhile.
    pub fn publish(&mut self, now: Now, statement: &Statement) -> Result<(), RosterError> {
        self.now = now;
        let taken = self.roster.insert(statement.bytes());
        self.spread_statements(None);
        self.roster_changed();
        self.settle();
        taken.map(drop)
    }

    /// Tells every peer that this node stops cleanly.
    pub fn leave(&mut self, now: Now) {
        self.now = now;
        self.liveness.leave(now.mono_ms);
        // The goodbyes travel ahead of the end of their links.
        self.pump_liveness();
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.close(link, ByeReason::Leaving);
        }
        self.settle();
    }

    /// Writes everything that waits now, before a clean stop: `state` values, and what came from
    /// peers. While a batch is under way the rest still waits: call it again when that is durable.
    pub fn flush(&mut self, now: Now) {
        self.now = now;
        self.commits.hasten(now.mono_ms);
        if self.replica.is_dirty() {
            self.flush_due_ms = Some(now.mono_ms);
        }
        self.settle();
    }

    /// Whether everything is durable.
    pub fn is_flushed(&self) -> bool {
        self.commits.is_empty() && !self.commits.is_busy() && !self.replica.is_dirty()
    }

    fn origin(&self) -> Origin {
        Origin { node: self.id.short(), generation: self.run.generation }
    }

    fn time_ms(&self) -> u64 {
        self.time.time_ms(self.now)
    }

    /// Brings everything that follows from the last input to rest.
    fn settle(&mut self) {
        self.keep_time();
        self.correct_clock_if_ahead();
        self.begin_run();
        self.keep_store_if_none_is_sound();
        self.finish_fetch();
        self.commit_due();
        self.pump_liveness();
        self.fetch_if_missing();
    }

    fn node_up(&mut self, node: ShortId, incarnation: u64) {
        let ended = self.overlay.end(node, incarnation.saturating_sub(1));
        self.mark_changed(ended);
        self.overlay.revive(node, incarnation);
        self.routing.judge(node, true);
        self.events.push_back(Event::NodeUp(node, incarnation));
    }

    fn node_down(&mut self, node: ShortId, incarnation: u64) {
        let ended = self.overlay.end(node, incarnation);
        self.mark_changed(ended);
        self.routing.judge(node, false);
        self.events.push_back(Event::NodeDown(node, incarnation));
    }

    /// Others took this node for dead: what it has in the overlay must be said again, in a new
    /// run if they had heard of a later one than this.
    fn rejoined(&mut self, incarnation: u64) {
        if incarnation > self.run.incarnation {
            self.open_run(Run { incarnation, ..self.run });
        } else {
            self.repeat_overlay(self.run);
        }
    }

    fn mark_changed(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.changed.extend(keys.into_iter().map(|key| key.object));
    }

    fn offend(&mut self, node: NodeId, counter: Counter) {
        self.counters.bump(counter);
        self.events.push_back(Event::Offence(node, counter));
    }

    fn live_links(&self) -> Vec<LinkId> {
        self.links.iter().filter(|(_, link)| link.is_live()).map(|(id, _)| *id).collect()
    }

    fn live_link_to(&self, node: ShortId) -> Option<LinkId> {
        self.best_link_to(node).map(|(id, _)| id)
    }

    fn tell_all_but(&mut self, except: Option<LinkId>, message: &Message) {
        for (id, link) in &mut self.links {
            if link.is_live() && Some(*id) != except {
                link.outbox.control(message.clone());
            }
        }
    }
}
