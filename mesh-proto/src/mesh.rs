//! The machine of one node: input and time go in, frames, records and events come out.
//!
//! This file holds the surface: construction, input, output. What happens inside is told by
//! topic: `mesh/links.rs` (introductions and frames), `mesh/writes.rs` (own writes, batches,
//! the corrected clock), `mesh/spread.rs` (push and anti-entropy),
//! `mesh/upkeep.rs` (tombstones, trees, the restored store).

mod links;
mod spread;
mod upkeep;
mod writes;

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
    vec::Vec,
};

use ed25519_dalek::SigningKey;

use crate::{
    collect::Collector,
    commit::{Commits, WriteToken},
    counters::{Counter, Counters},
    hlc::Hlc,
    id::{Key, NodeId, ObjectId, Origin, ShortId},
    liveness::{Liveness, LivenessEvent, Swim},
    overlay::{Overlay, Run},
    planted::Plant,
    record::{Batch, Item, Record, RecordError},
    replica::Replica,
    roster::{Body, Roster, RosterError, Statement},
    session::{Link, LinkId},
    sync::Fetch,
    time::{Now, TimeKeeper},
    view::{self, ObjectView},
    wire::{self, ByeReason, Message},
};

/// How often each link compares digests, in milliseconds.
pub const DIGEST_MS: u64 = 10_000;
/// How often trees are compared, in milliseconds.
pub const TREE_MS: u64 = 3_600_000;
/// Liveness packets that wait for one link; older ones would mislead.
const MAX_PACKETS: usize = 64;
/// How long writes of peers may wait for a flush, in milliseconds.
pub const REMOTE_FLUSH_MS: u64 = 100;

/// How far a generation may jump where earlier ones may have been forgotten.
const GENERATION_JUMP: u32 = 1 << 20;

/// What a node is told at its start.
#[derive(Debug)]
pub struct Boot {
    /// The node's key.
    pub key: SigningKey,
    /// The household's membership as it was persisted.
    pub roster: Roster,
    /// This run; already persisted, marked as unclean.
    pub run: Run,
    /// Above every stamp issued or merged before.
    pub ceiling: Hlc,
    /// When this software was built, in milliseconds since 1970.
    pub build_ms: u64,
    /// Whether the wall clock is known to be right.
    pub synchronised: bool,
    /// Whether the store was restored, repaired or imported and may be behind.
    pub restored: bool,
    /// Seeds every random choice.
    pub seed: u64,
    /// Name and version of the software, for people.
    pub software: String,
    /// The planted bug, if any.
    pub plant: Plant,
}

/// The run that follows `last`, which must be persisted before it begins. `stored` is the
/// highest generation of this node that the store knows of.
///
/// A generation goes on only after a clean stop of a store that was never set back: otherwise
/// sequence numbers might be used twice. What was set back may have opened generations of
/// which nothing is known here any more: `draw`, a random number, leads past them.
pub fn next_run(last: Option<Run>, clean: bool, restored: bool, stored: u32, draw: u32, plant: Plant) -> Run {
    let past = if restored { draw % GENERATION_JUMP } else { 0 };
    let Some(last) = last else {
        return Run { incarnation: 1, generation: stored.saturating_add(1).saturating_add(past) };
    };
    let kept = crate::planted::planted!(plant, GenerationNotBumped);
    let reused = crate::planted::planted!(plant, SequenceReused);
    let trusted = [kept, reused, clean && !restored].contains(&true);
    let newest = last.generation.max(stored);
    let generation = if trusted { newest } else { newest.saturating_add(1).saturating_add(past) };
    Run { incarnation: last.incarnation + 1, generation }
}

/// The records of a store, taken in one by one before the start.
#[derive(Debug)]
pub struct Loader {
    replica: Replica,
    ceiling: Hlc,
    damaged: usize,
}

impl Loader {
    /// Nothing loaded yet.
    pub fn new(plant: Plant) -> Self {
        Self { replica: Replica::new(plant), ceiling: Hlc::ZERO, damaged: 0 }
    }

    /// Takes in a record. A damaged one is counted and left out.
    ///
    /// # Errors
    /// [`RecordError::Newer`]: this software is older than the store; do not start.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        match Record::decode(key, value) {
            Ok(Record::Ceiling(stamp)) => self.ceiling = self.ceiling.max(stamp),
            Ok(record) => {
                if let Record::Register(_, entry) = &record {
                    self.ceiling = self.ceiling.max(entry.stamp);
                }
                self.replica.load(record);
            }
            Err(RecordError::Damaged) => self.damaged += 1,
            Err(newer @ RecordError::Newer(_)) => return Err(newer),
        }
        Ok(())
    }

    /// How many records were damaged and left out.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// The highest generation of a node that the store knows of.
    pub fn highest_generation(&self, node: ShortId) -> u32 {
        self.replica.applied().highest_generation(node)
    }
}

/// What the caller tells the machine.
#[derive(Debug)]
pub enum Input {
    /// A transport connected, and verified the peer's key.
    LinkUp {
        /// The link.
        link: LinkId,
        /// Whose key it is.
        peer: NodeId,
        /// Whether this side dialed.
        dialed: bool,
    },
    /// A transport's connection is gone.
    LinkDown(LinkId),
    /// A frame arrived.
    Frame(LinkId, Vec<u8>),
    /// A liveness packet arrived.
    Packet(LinkId, Vec<u8>),
    /// The store flushed the batch.
    Persisted(u64),
    /// The run asked for by [`Event::PersistRun`] is persisted.
    RunPersisted(Run),
    /// Whether the wall clock is known to be right.
    Synchronised(bool),
}

/// What the machine asks of the caller or tells it.
#[derive(Debug)]
pub enum Event {
    /// Make these records durable, then say [`Input::Persisted`]. One batch at a time.
    Persist {
        /// Its number.
        batch: u64,
        /// The records.
        records: Batch,
    },
    /// Make this run durable, then say [`Input::RunPersisted`].
    PersistRun(Run),
    /// A write request is durable.
    Written(WriteToken),
    /// Close the link, once what was polled for it has been sent.
    Close(LinkId, ByeReason),
    /// The roster changed: make it durable.
    RosterChanged,
    /// The peer of a link has been introduced.
    Linked(LinkId, NodeId),
    /// A node is alive in this incarnation.
    NodeUp(ShortId, u64),
    /// A node's incarnation is over.
    NodeDown(ShortId, u64),
    /// A peer broke a rule.
    Offence(NodeId, Counter),
    /// The clock was set back to this time of day, in milliseconds since 1970.
    ClockCorrected(u64),
    /// Peers know writes of this generation that this node never made: its card was restored
    /// or cloned. The generation was closed.
    Rewound(NodeId),
    /// A peer says that this node is not a member (any more).
    Refused(NodeId, ByeReason),
    /// A restored store was replaced by a peer's state, and that is durable.
    Restored {
        /// What could not be added back, for the lost-and-found export.
        lost: Vec<Item>,
    },
}

/// Why a write is refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The author may not write the field.
    #[error("`{0}.{1}` may not be written by clients")]
    Forbidden(ObjectId, String),
    /// A value breaks a rule.
    #[error("`{0}.{1}`: {2}")]
    Value(ObjectId, String, crate::error::ValueError),
    /// Too many changes in one request.
    #[error("{0} changes in one request, the limit is 1024: split it")]
    TooMany(usize),
    /// Too much waits to be flushed.
    #[error("too many writes wait to be flushed: try again in a moment")]
    Overloaded,
}

/// One change of a write request.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Writes a field.
    Set(Key, crate::value::Value),
    /// Deletes a field.
    Unset(Key),
    /// Deletes an object.
    Delete(ObjectId),
}

/// A packet or frame to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// In order, reliably.
    Frame(Vec<u8>),
    /// At once, or not at all.
    Packet(Vec<u8>),
}

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
    plant: Plant,
    time: TimeKeeper,
    roster: Roster,
    admitted: BTreeSet<ShortId>,
    replica: Replica,
    overlay: Overlay,
    commits: Commits,
    liveness: Swim,
    collector: Collector,
    links: BTreeMap<LinkId, Link>,
    /// Links that are to be closed; nothing is taken in from them any more.
    closing_links: BTreeSet<LinkId>,
    fetching: Option<Fetching>,
    /// Leads past generations that were forgotten.
    jump: u32,
    last_session: u32,
    last_token: u64,
    report_number: u32,
    /// Set while a restored store waits for a peer.
    restored: bool,
    /// What could not be added back, while the peer's state that replaced a restored store is
    /// being flushed.
    replacing: Option<Vec<Item>>,
    /// Whether a peer collects tombstones and may wait for a report.
    report_wanted: bool,
    /// Set while a new run waits to be persisted.
    closing: Option<Run>,
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
        let id = NodeId::from_bytes(boot.key.verifying_key().to_bytes());
        let ceiling = boot.ceiling.max(loaded.ceiling);
        let time = TimeKeeper::new(now, ceiling, boot.build_ms, boot.synchronised);
        let commits = Commits::new(loaded.replica.applied().clone());
        let liveness = Swim::new(id.short(), boot.run.incarnation, boot.seed);
        let restored = boot.restored && !crate::planted::planted!(boot.plant, RestoredStoreMerged);
        let mut mesh = Self {
            key: boot.key,
            id,
            run: boot.run,
            software: boot.software,
            plant: boot.plant,
            time,
            roster: boot.roster,
            admitted: BTreeSet::new(),
            replica: loaded.replica,
            overlay: Overlay::new(boot.plant),
            commits,
            liveness,
            collector: Collector::default(),
            links: BTreeMap::new(),
            closing_links: BTreeSet::new(),
            fetching: None,
            jump: u32::try_from(boot.seed % u64::from(GENERATION_JUMP)).unwrap_or(0),
            last_session: 0,
            last_token: 0,
            report_number: 0,
            restored,
            replacing: None,
            report_wanted: false,
            closing: None,
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
        mesh.roster_changed();
        mesh.settle();
        mesh
    }

    /// Takes in what happened.
    pub fn handle_input(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::LinkUp { link, peer, dialed } => self.link_up(link, peer, dialed),
            Input::LinkDown(link) => self.link_down(link),
            Input::Frame(link, bytes) => self.frame(link, &bytes),
            Input::Packet(link, bytes) => self.packet(link, &bytes),
            Input::Persisted(batch) => self.persisted(batch),
            Input::RunPersisted(run) => self.run_persisted(run),
            Input::Synchronised(synchronised) => self.set_synchronised(synchronised),
        }
        self.settle();
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.liveness.handle_timeout(now.mono_ms);
        self.release_quarantined();
        self.close_silent_links();
        self.abandon_stalled_fetch();
        self.send_due_digests();
        self.report_and_collect();
        self.compare_trees_when_due();
        self.settle();
    }

    /// When [`Mesh::handle_timeout`] is due next, on the clock that never goes back.
    pub fn poll_timeout(&self) -> Option<u64> {
        let open = self.links.iter().filter(|(id, _)| !self.closing_links.contains(*id));
        let links = open.map(|(_, l)| if l.is_live() { l.digest_due_ms } else { l.hello_due_ms });
        let fetch = self.fetching.as_ref().map(|f| f.fetch.deadline_ms());
        let waits = self.commits.is_busy() || self.closing.is_some();
        let commit = if waits { None } else { self.commits.next_due() };
        let flush = if waits { None } else { self.flush_due_ms };
        let fixed = [Some(self.collect_due_ms), Some(self.tree_due_ms)];
        let optional = [self.liveness.poll_timeout(), fetch, commit, flush, self.release_check_ms];
        fixed.into_iter().chain(optional).flatten().chain(links).min()
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

    /// Signs and takes in a membership statement of this node.
    ///
    /// # Errors
    /// [`RosterError`] when this node may not issue it; nothing has changed.
    pub fn issue(&mut self, now: Now, body: Body) -> Result<Statement, RosterError> {
        self.now = now;
        let statement = self.roster.issue(&self.key, body)?;
        self.spread_statements(Vec::from([statement.bytes().to_vec()]), None);
        self.roster_changed();
        self.settle();
        Ok(statement)
    }

    /// Tells every peer that this node stops cleanly.
    pub fn leave(&mut self, now: Now) {
        self.now = now;
        self.liveness.leave(now.mono_ms);
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.close(link, ByeReason::Leaving);
        }
        self.settle();
    }

    /// Writes every waiting `state` value now, before a clean stop.
    pub fn flush(&mut self, now: Now) {
        self.now = now;
        self.commits.hasten(now.mono_ms);
        self.settle();
    }

    /// Whether everything is durable.
    pub fn is_flushed(&self) -> bool {
        self.commits.is_empty() && !self.commits.is_busy() && !self.replica.is_dirty()
    }

    /// Reads one object through both planes.
    pub fn object(&self, id: &ObjectId) -> Option<ObjectView> {
        view::object(&self.replica, &self.overlay, id)
    }

    /// The names of all objects, in order, from `from` on; some may not be visible.
    pub fn names_from<'a>(&'a self, from: Option<&'a ObjectId>) -> impl Iterator<Item = &'a ObjectId> {
        use core::ops::Bound::{Included, Unbounded};
        let bound = from.map_or(Unbounded, Included);
        let durable = self.replica.objects().range((bound, Unbounded)).map(|(id, _)| id);
        let passing = self.overlay.names_from(from);
        merge_sorted(durable, passing)
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// This node's run.
    pub fn run(&self) -> Run {
        self.run
    }

    /// The membership.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The durable plane.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The overlay plane.
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The queue of own writes and what is durable.
    pub fn commits(&self) -> &Commits {
        &self.commits
    }

    /// The time of day and the stamps.
    pub fn time(&self) -> &TimeKeeper {
        &self.time
    }

    /// The counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The links with their peers.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// The nodes known to be alive, this one left out, with their incarnations.
    pub fn alive(&self) -> Vec<(ShortId, u64)> {
        self.liveness.alive()
    }

    /// The nodes that hold the collection of tombstones back.
    pub fn held_back_by(&self) -> Vec<ShortId> {
        self.collector.held_back_by(&self.admitted)
    }

    /// What a node last said it has flushed.
    pub fn durable_of(&self, node: ShortId) -> Option<&crate::vector::Vector> {
        self.collector.durable_of(node)
    }

    /// Whether a restored store still waits for a peer.
    pub fn is_restoring(&self) -> bool {
        self.restored
    }

    fn origin(&self) -> Origin {
        Origin { node: self.id.short(), generation: self.run.generation }
    }

    fn time_ms(&self) -> u64 {
        self.time.time_ms(self.now)
    }

    /// Brings everything that follows from the last input to rest.
    fn settle(&mut self) {
        self.correct_clock_if_ahead();
        self.finish_fetch();
        self.commit_due();
        self.pump_liveness();
        self.fetch_if_missing();
    }

    fn pump_liveness(&mut self) {
        while let Some(event) = self.liveness.poll_event() {
            match event {
                LivenessEvent::Up { node, incarnation } => self.node_up(node, incarnation),
                LivenessEvent::Down { node, incarnation, .. } => self.node_down(node, incarnation),
                LivenessEvent::Rejoined { incarnation } => self.rejoined(incarnation),
            }
        }
        while let Some((node, packet)) = self.liveness.poll_packet() {
            if let Some(link) = self.live_link_to(node) {
                let framed = [&[wire::FRAME_VERSION], packet.as_slice()].concat();
                let waiting = self.packets.entry(link).or_default();
                waiting.push_back(framed);
                if waiting.len() > MAX_PACKETS {
                    waiting.pop_front();
                }
            }
        }
    }

    fn node_up(&mut self, node: ShortId, incarnation: u64) {
        let ended = self.overlay.end(node, incarnation.saturating_sub(1));
        self.mark_changed(ended);
        self.overlay.revive(node, incarnation);
        self.events.push_back(Event::NodeUp(node, incarnation));
    }

    fn node_down(&mut self, node: ShortId, incarnation: u64) {
        let ended = self.overlay.end(node, incarnation);
        self.mark_changed(ended);
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
        self.links.iter().find(|(_, link)| link.is_live() && link.short() == node).map(|(id, _)| *id)
    }

    fn tell_all_but(&mut self, except: Option<LinkId>, message: &Message) {
        for (id, link) in &mut self.links {
            if link.is_live() && Some(*id) != except {
                link.outbox.control(message.clone());
            }
        }
    }
}

/// Merges two rising sequences into one without repetitions.
fn merge_sorted<'a, T: Ord + 'a>(
    a: impl Iterator<Item = &'a T>,
    b: impl Iterator<Item = &'a T>,
) -> impl Iterator<Item = &'a T> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    core::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if x == y => {
            b.next();
            a.next()
        }
        (Some(x), Some(y)) if x > y => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}
