//! The world: virtual time, one queue of what happens, and the nodes it happens to.

use std::{cmp::Reverse, collections::BinaryHeap};

use mesh_proto::{
    mesh::{Event, Input, Transmit},
    overlay::Run,
    planted::Plant,
    record::{Batch, Item},
    session::LinkId,
    wire::{self, Message},
};

use super::{
    Failure,
    model::Model,
    net::{End, Net},
    node::SimNode,
    oracle, quiet,
    rng::Rng,
    scenario::{Action, Settings},
    tight::Met,
    trace::Trace,
};

/// How long until a batch that a disk refused is offered again, in milliseconds.
const STORE_RETRY_MS: u64 = 2_000;
/// How long until a run that could not be saved is saved again, in milliseconds.
const RUN_RETRY_MS: u64 = 5_000;
/// More than any run needs; a run that passes it goes round in circles.
const MAX_EVENTS: u64 = 2_500_000;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Happening {
    Wake { node: usize, number: u64 },
    Persist { node: usize, epoch: u32, batch: u64, records: Batch },
    Flushed { node: usize, epoch: u32, batch: u64 },
    RunFlushed { node: usize, epoch: u32, run: Run, mark: Option<u32> },
    LostFlushed { node: usize, epoch: u32, number: u32, lost: Vec<Item> },
    PersistRun { node: usize, epoch: u32, run: Run, mark: Option<u32> },
    RosterFlushed { node: usize, epoch: u32, bytes: Vec<u8> },
    Arrive { link: u64, end: usize, what: Option<Transmit>, window: bool },
    LinkUp { link: u64, end: usize },
    LinkDown { link: u64, end: usize },
    Stopped { node: usize, epoch: u32 },
    Do(Action),
}

struct Queued {
    at: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Everything.
pub(crate) struct World {
    pub(crate) now: u64,
    order: u64,
    wakes: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    pub(crate) rng: Rng,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) net: Net,
    pub(crate) model: Model,
    pub(crate) trace: Trace,
    pub(crate) settings: Settings,
    pub(crate) plant: Plant,
    pub(crate) edges: Vec<(usize, usize)>,
    /// Between the end of the faults and the end of the run.
    pub(crate) healed: bool,
    pub(crate) events: u64,
    /// Fetches of nodes that have ended.
    pub(crate) past_fetches: u64,
    /// How often nodes that have ended met their limits.
    pub(crate) past_met: Met,
}

type Outcome = Result<(), Failure>;

impl World {
    pub(crate) fn new(seed: u64, settings: Settings, plant: Plant, trace: Trace) -> Self {
        Self {
            now: 0,
            order: 0,
            wakes: 0,
            queue: BinaryHeap::new(),
            rng: Rng::new(seed),
            nodes: Vec::new(),
            net: Net::new(settings.transport.clone()),
            model: Model::default(),
            trace,
            settings,
            plant,
            edges: Vec::new(),
            healed: false,
            events: 0,
            past_fetches: 0,
            past_met: Met::default(),
        }
    }

    /// Plans something for `after` milliseconds from now.
    pub(crate) fn after(&mut self, after: u64, what: Happening) {
        self.at(self.now + after, what);
    }

    fn at(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Queued { at: at.max(self.now), order: self.order, what }));
    }

    /// Lets time pass until `until`, virtual milliseconds.
    pub(crate) fn run_until(&mut self, until: u64) -> Outcome {
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= until) {
            let Some(Reverse(next)) = self.queue.pop() else { break };
            (self.now, self.model.now) = (next.at, next.at);
            self.events += 1;
            if self.events > MAX_EVENTS {
                return Err(Failure::new("it comes to rest", "events without end".into()).at(self.now));
            }
            let now = self.now;
            self.happen(next.what).map_err(|failure| failure.at(now))?;
        }
        self.now = until;
        Ok(())
    }

    fn happen(&mut self, what: Happening) -> Outcome {
        match what {
            Happening::Wake { node, number } => self.wake(node, number),
            Happening::Persist { node, epoch, batch, records } => {
                self.persist(node, epoch, batch, records);
                Ok(())
            }
            Happening::PersistRun { node, epoch, run, mark } => {
                // Only the newest is saved again.
                if self.nodes[node].unsaved_run == Some(run) {
                    self.persist_run(node, epoch, (run, mark));
                }
                Ok(())
            }
            Happening::Flushed { node, epoch, batch } => self.flushed(node, epoch, batch),
            Happening::RunFlushed { node, epoch, run, mark } => {
                if self.nodes[node].epoch != epoch {
                    return Ok(());
                }
                let disk = &mut self.nodes[node].disk;
                disk.run = disk.run.max(Some(run));
                if mark.is_some() {
                    (disk.restored, disk.since) = (true, mark);
                }
                self.input(node, Input::RunPersisted(run))
            }
            Happening::LostFlushed { node, epoch, number, lost } => {
                if self.nodes[node].epoch != epoch {
                    return Ok(());
                }
                self.model.handed_out(self.nodes[node].short(), &lost);
                self.input(node, Input::LostSaved(number))
            }
            Happening::RosterFlushed { node, epoch, bytes } => {
                let sim = &mut self.nodes[node];
                // It only grows: what the node signed itself since is on the disk already.
                if sim.epoch == epoch && bytes.len() > sim.disk.roster.len() {
                    sim.disk.roster = bytes;
                }
                Ok(())
            }
            Happening::Arrive { link, end, what, window } => self.arrive(link, end, what, window),
            Happening::LinkUp { link, end } => self.link_up(link, end),
            Happening::LinkDown { link, end } => self.link_down(link, end),
            Happening::Stopped { node, epoch } => self.stopped(node, epoch),
            Happening::Do(action) => self.act(action),
        }
    }

    fn wake(&mut self, node: usize, number: u64) -> Outcome {
        let due = self.nodes[node].wake.is_some_and(|(_, current)| current == number);
        if !due {
            return Ok(());
        }
        self.nodes[node].wake = None;
        let now = self.nodes[node].now(self.now);
        if let Some(mesh) = self.nodes[node].mesh.as_mut() {
            mesh.handle_timeout(now);
            if mesh.poll_timeout().is_some_and(|next| next <= now.mono_ms) {
                let reason = format!("node {node}: due at {:?}, done at {now:?}", mesh.poll_timeout());
                return Err(Failure::new("timers move on", reason));
            }
        }
        self.pump(node)
    }

    /// Whether a disk refuses what it is given now.
    fn disk_fails(&mut self) -> bool {
        !self.healed && self.settings.disk_fails > 0 && self.rng.percent(self.settings.disk_fails)
    }

    /// Gives a batch to a disk, which may refuse it for a while.
    fn persist(&mut self, node: usize, epoch: u32, batch: u64, records: Batch) {
        if self.nodes[node].epoch != epoch {
            return;
        }
        if self.disk_fails() {
            self.trace.say(self.now, || format!("n{node} cannot write batch {batch}"));
            return self.after(STORE_RETRY_MS, Happening::Persist { node, epoch, batch, records });
        }
        self.nodes[node].disk.write(batch, records);
        let after = self.rng.between(self.settings.flush);
        self.after(after, Happening::Flushed { node, epoch, batch });
    }

    /// Saves a run, which may fail for a while.
    fn persist_run(&mut self, node: usize, epoch: u32, (run, mark): (Run, Option<u32>)) {
        if self.nodes[node].epoch != epoch {
            return;
        }
        // The file is small and rarely written: it fails more often, to be seen to fail.
        if self.disk_fails() || self.disk_fails() || self.disk_fails() {
            self.trace.say(self.now, || format!("n{node} cannot save {run:?}"));
            self.nodes[node].unsaved_run = Some(run);
            return self.after(RUN_RETRY_MS, Happening::PersistRun { node, epoch, run, mark });
        }
        self.nodes[node].unsaved_run = None;
        let after = self.rng.between(self.settings.flush);
        self.after(after, Happening::RunFlushed { node, epoch, run, mark });
    }

    fn flushed(&mut self, node: usize, epoch: u32, batch: u64) -> Outcome {
        if self.nodes[node].epoch != epoch {
            return Ok(());
        }
        for records in self.nodes[node].disk.sync(batch) {
            self.model.synced(node, &records);
        }
        self.input(node, Input::Persisted(batch))
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) -> Outcome {
        let now = self.nodes[node].now(self.now);
        if let Some(mesh) = self.nodes[node].mesh.as_mut() {
            mesh.handle_input(now, input);
        }
        self.pump(node)
    }

    fn arrive(&mut self, id: u64, end: usize, what: Option<Transmit>, window: bool) -> Outcome {
        let Some(link) = self.net.links.get_mut(&id) else { return Ok(()) };
        let (from, to) = (link.nodes[1 - end], link.nodes[end]);
        let state = link.ends[end];
        let sender_up = link.ends[1 - end] == End::Up;
        if window {
            link.in_flight[1 - end] = link.in_flight[1 - end].saturating_sub(1);
        }
        match (state, what) {
            (End::Coming, Some(what)) => link.early[end].push(what),
            (End::Up, Some(what)) => self.deliver(id, to, what)?,
            _ => {}
        }
        if window && sender_up { self.pump(from) } else { Ok(()) }
    }

    fn deliver(&mut self, id: u64, to: usize, what: Transmit) -> Outcome {
        let link = LinkId(id);
        let input = match what {
            Transmit::Frame(bytes) => Input::Frame(link, bytes),
            Transmit::Packet(bytes) => Input::Packet(link, bytes),
        };
        self.input(to, input)
    }

    fn link_up(&mut self, id: u64, end: usize) -> Outcome {
        let Some(link) = self.net.links.get_mut(&id) else { return Ok(()) };
        let (node, other) = (link.nodes[end], link.nodes[1 - end]);
        if link.ends[end] != End::Coming {
            return Ok(());
        }
        if self.nodes[node].epoch != link.epochs[end] || !self.nodes[node].is_running() {
            return self.break_link(id);
        }
        link.ends[end] = End::Up;
        let early = std::mem::take(&mut link.early[end]);
        let (dialed, transport) = (link.dialer == end, link.carrier);
        let peer = self.nodes[other].id;
        self.nodes[node].links.insert(id);
        self.input(node, Input::LinkUp { link: LinkId(id), peer, dialed, transport })?;
        early.into_iter().try_for_each(|what| self.deliver(id, node, what))
    }

    fn link_down(&mut self, id: u64, end: usize) -> Outcome {
        let Some(link) = self.net.links.get_mut(&id) else { return Ok(()) };
        let node = link.nodes[end];
        let was = std::mem::replace(&mut link.ends[end], End::Down);
        let same = link.epochs[end] == self.nodes[node].epoch;
        if link.ends == [End::Down; 2] {
            self.net.links.remove(&id);
        }
        if was == End::Up && same && self.nodes[node].is_running() {
            self.nodes[node].links.remove(&id);
            self.input(node, Input::LinkDown(LinkId(id)))?;
        }
        Ok(())
    }

    /// Both ends find out that the link is gone, each in its own time.
    pub(crate) fn break_link(&mut self, id: u64) -> Outcome {
        for end in 0..2 {
            let after = self.rng.between(self.settings.notice);
            self.after(after, Happening::LinkDown { link: id, end });
        }
        Ok(())
    }

    fn stopped(&mut self, node: usize, epoch: u32) -> Outcome {
        if self.nodes[node].epoch != epoch {
            return Ok(());
        }
        let clean = self.nodes[node].mesh.as_ref().is_some_and(mesh_proto::mesh::Mesh::is_flushed);
        if !clean {
            // Asked to stop, the daemon waits for the last flush.
            self.after(50, Happening::Stopped { node, epoch });
            return Ok(());
        }
        self.end_life(node)
    }

    /// The process of a node ends. Its peers find out.
    pub(crate) fn end_life(&mut self, node: usize) -> Outcome {
        if let Some(mesh) = &self.nodes[node].mesh {
            self.past_fetches += mesh.counters().get(mesh_proto::counters::Counter::Fetches);
            self.past_met.add(mesh.counters());
        }
        let links = std::mem::take(&mut self.nodes[node].links);
        self.nodes[node].stop();
        for id in links {
            self.break_link(id)?;
        }
        Ok(())
    }

    /// Takes everything out of a machine that it has to say, and plans its next wake.
    pub(crate) fn pump(&mut self, node: usize) -> Outcome {
        loop {
            let mut quiet = true;
            while let Some(event) = self.nodes[node].mesh.as_mut().and_then(|mesh| mesh.poll_event()) {
                quiet = false;
                self.event(node, event)?;
            }
            let links: Vec<u64> = self.nodes[node].links.iter().copied().collect();
            for link in links {
                while self.transmit(node, link, false)? {
                    quiet = false;
                }
            }
            if quiet {
                break;
            }
        }
        oracle::after_each(self, node)?;
        self.plan_wake(node);
        Ok(())
    }

    fn plan_wake(&mut self, node: usize) {
        let sim = &self.nodes[node];
        let Some(due) = sim.mesh.as_ref().and_then(|mesh| mesh.poll_timeout()) else { return };
        let at = sim.when(due).max(self.now);
        if sim.wake.is_some_and(|(planned, _)| planned <= at && planned >= self.now) {
            return;
        }
        self.wakes += 1;
        let number = self.wakes;
        self.nodes[node].wake = Some((at, number));
        self.at(at, Happening::Wake { node, number });
    }

    /// Sends the next thing over a link, if it has room. Returns whether there was one.
    fn transmit(&mut self, node: usize, id: u64, drain: bool) -> Result<bool, Failure> {
        let Some(link) = self.net.links.get(&id) else { return Ok(false) };
        let end = link.end_of(node);
        if link.ends[end] != End::Up || (!drain && link.in_flight[end] >= self.net.transport.window) {
            return Ok(false);
        }
        let polled = self.nodes[node].mesh.as_mut().and_then(|mesh| mesh.poll_transmit(LinkId(id)));
        let Some(what) = polled else { return Ok(false) };
        self.trace.transmit(self.now, node, id, &what);
        match &what {
            Transmit::Frame(bytes) => oracle::frame_sent(self, node, bytes)?,
            Transmit::Packet(bytes) => oracle::packet_sent(node, bytes)?,
        }
        let arrivals = self.net.send(self.now, id, end, what, &mut self.rng);
        for (at, end, what, window) in arrivals {
            self.at(at, Happening::Arrive { link: id, end, what, window });
        }
        Ok(true)
    }

    /// Sends a frame that the machine of the node never made.
    pub(crate) fn inject(&mut self, id: u64, node: usize, messages: &[Message]) {
        let Some(link) = self.net.links.get(&id) else { return };
        let end = link.end_of(node);
        let what = Transmit::Frame(wire::encode(messages));
        for (at, end, what, window) in self.net.send(self.now, id, end, what, &mut self.rng) {
            self.at(at, Happening::Arrive { link: id, end, what, window });
        }
    }

    fn event(&mut self, node: usize, event: Event) -> Outcome {
        self.trace.event(self.now, node, &event);
        let epoch = self.nodes[node].epoch;
        match event {
            Event::Persist { batch, records } => {
                self.model.saw_batch(&records)?;
                self.persist(node, epoch, batch, records);
            }
            Event::LostAndFound { number, lost } => {
                let after = self.rng.between(self.settings.flush);
                self.after(after, Happening::LostFlushed { node, epoch, number, lost });
            }
            Event::PersistRun(run, mark) => self.persist_run(node, epoch, (run, mark)),
            Event::RosterChanged => {
                let bytes = self.nodes[node].mesh.as_ref().map(|mesh| mesh.roster().to_bytes());
                let after = self.rng.between(self.settings.flush);
                let bytes = bytes.unwrap_or_default();
                quiet::only_admins_admit(self, node)?;
                self.after(after, Happening::RosterFlushed { node, epoch, bytes });
            }
            Event::Close(link, _) => {
                while self.transmit(node, link.0, true)? {}
                let end = self.net.links.get(&link.0).map(|l| (l.end_of(node), l.drained_at(l.end_of(node))));
                if let Some((end, drained)) = end {
                    let other = drained.saturating_sub(self.now) + 1 + self.rng.below(50);
                    self.after(0, Happening::LinkDown { link: link.0, end });
                    self.after(other, Happening::LinkDown { link: link.0, end: 1 - end });
                }
            }
            Event::ClockCorrected(_) => {
                *self.model.corrections.entry(node).or_default() += 1;
            }
            Event::Restored => self.nodes[node].disk.restored = false,
            other => oracle::told(self, node, &other)?,
        }
        Ok(())
    }
}
