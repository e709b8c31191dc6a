//! The engine of the automations: it watches what starts them, and goes on with the runs that are this node's.
//!
//! One task watches devices, events and `automation/`. Of an automation the winner of the rendezvous hash among the living starts its
//! runs; a run stays with the node that began it, and when that dies the winner goes on with it. Each step is stored, flushed, before it is
//! done.
//!
//! | object | field | who writes it |
//! | --- | --- | --- |
//! | `automation/NAME` | `triggers`, `conditions`, `actions`, `mode`, `max`, `enabled`, `since` | the node that a person asked |
//! | | `webhook` | the node that a person asked: the hash of its path ([`super::webhooks`]) |
//! | | `tripped` | the node that found it running away |
//! | | `run.NODE.PLACE` | each node: its runs ([`super::runs`]) |

mod entry;
mod going;
mod ledger;
mod requests;
mod starts;
#[cfg(test)]
mod tests;
mod webhooks;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use device_adapters::schedule::Home;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mesh_proto::{ObjectId, ShortId};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinHandle, JoinSet, yield_now},
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use self::{
    entry::{Entry, Spec},
    going::{Stand, Stepped},
    ledger::Ledger,
    requests::Written,
};
use super::{
    HomeText, NO_TIME,
    breaker::{self, Circuit},
    carry::Hands,
    deeds::{Calls, Deeds},
    peers::{self, Changed, Peers},
    webhooks::Hooks,
    world::{Device, Devices},
};
use crate::{
    api::ports::{CommandsHandle, automations::AutomationsRequest, events::EventsHandle},
    devices::HouseholdClock,
    service::{Change, HouseholdTime, ObjectView, Service, ServiceError},
};

/// Most automations of a household. Where two halves that were cut off have more together, the first by their names are followed, on
/// every node.
const MAX_AUTOMATIONS: usize = 128;
/// How often is looked for what is due, at least.
const TICK: Duration = Duration::from_millis(500);
/// A clock that went another way than time itself by more was set.
const SET: SignedDuration = SignedDuration::from_secs(2);
/// How long a turn may take before the rest is heard again; it goes on where it was.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long what is under way may take at a stop.
const LAST_STEPS: Duration = Duration::from_secs(2);
/// What is watched.
const PREFIXES: [&str; 5] = ["automation/", "device/", "event/", "home/", peers::PREFIX];
/// The object of the home.
const HOME: &str = "home/main";

/// What the engine is made of.
pub struct EngineParts {
    /// The way to objects.
    pub service: Service,
    /// The way to commands.
    pub commands: CommandsHandle,
    /// The way to events.
    pub events: EventsHandle,
    /// What the API asks.
    pub requests: mpsc::Receiver<AutomationsRequest>,
    /// The nodes that are alive, from the event loop.
    pub alive: watch::Receiver<BTreeSet<ShortId>>,
    /// The time of day, from the event loop.
    pub time: watch::Receiver<HouseholdTime>,
    /// Whether nothing is missing here of what the linked peers hold, from the event loop.
    pub caught_up: watch::Receiver<bool>,
    /// Where it tells which paths of webhooks there are.
    pub webhooks: watch::Sender<Hooks>,
    /// This node.
    pub me: ShortId,
    /// Becomes `true` when the node stops. Join the task before the event loop is stopped.
    pub shutdown: watch::Receiver<bool>,
    /// Bumped by every turn, at least twice a second; the watchdog looks at it.
    pub heartbeat: Arc<AtomicU64>,
}

/// The owner of the automations on this node.
pub struct Engine {
    service: Service,
    requests: mpsc::Receiver<AutomationsRequest>,
    deeds: Deeds,
    /// Devices that are left alone.
    circuits: watch::Receiver<Vec<Circuit>>,
    ledger: Ledger,
    peers: Peers,
    time: watch::Receiver<HouseholdTime>,
    clock: HouseholdClock,
    /// The time at the last turn, by the clock of the household and by one that nobody sets.
    turned_at: (Timestamp, Instant),
    shutdown: watch::Receiver<bool>,
    heartbeat: Arc<AtomicU64>,
    home: HomeText,
    webhooks: watch::Sender<Hooks>,
    devices: Arc<Devices>,
    automations: BTreeMap<String, Entry>,
    /// The automation that a turn had no time for.
    left_off: Option<String>,
    /// The events that there are: each is heard once.
    heard: BTreeSet<ObjectId>,
    steps: JoinSet<Stepped>,
    under_way: HashMap<Id, Stand>,
    /// What is being written for clients, and read back.
    writes: JoinSet<Written>,
    /// How many changes the watch has shown, and which of them each object's last one was, of those since `writes` was empty: what was
    /// read back before that is old.
    shown: u64,
    shown_last: BTreeMap<ObjectId, u64>,
}

impl Engine {
    /// Starts the task.
    pub fn spawn(parts: EngineParts) -> JoinHandle<()> {
        tokio::spawn(async move { Self::new(parts).run().await })
    }

    fn new(parts: EngineParts) -> Self {
        let (commands, circuits) = breaker::guard(&parts.commands);
        let hands = Hands::new(parts.service.clone(), commands);
        let deeds = Deeds { hands, events: parts.events, calls: Calls::default() };
        let clock = HouseholdClock::new(parts.time.clone());
        Self {
            ledger: Ledger::new(parts.service.clone()),
            service: parts.service,
            requests: parts.requests,
            deeds,
            circuits,
            peers: Peers::new(parts.me, parts.alive, parts.caught_up),
            time: parts.time,
            turned_at: (now(&clock), Instant::now()),
            clock,
            shutdown: parts.shutdown,
            heartbeat: parts.heartbeat,
            home: HomeText::default(),
            webhooks: parts.webhooks,
            devices: Arc::default(),
            automations: BTreeMap::new(),
            left_off: None,
            heard: BTreeSet::new(),
            steps: JoinSet::new(),
            under_way: HashMap::new(),
            writes: JoinSet::new(),
            shown: 0,
            shown_last: BTreeMap::new(),
        }
    }

    async fn run(mut self) {
        if self.serve().await.is_err() {
            debug!("the event loop is gone: the automations stop");
        }
        self.requests.close();
        // What does not end in time another node goes on with.
        let _ = tokio::time::timeout(LAST_STEPS, self.end_steps()).await;
    }

    async fn end_steps(&mut self) {
        let mut ends = Vec::new();
        loop {
            self.ledger.hand_over();
            tokio::select! {
                ended = self.steps.join_next_with_id() => match ended {
                    Some(ended) => {
                        let place = self.stepped(ended);
                        ends.extend(place.and_then(|(name, place)| self.store(&name, place)));
                    }
                    None => break,
                },
                () = self.ledger.has_written() => {}
            }
        }
        self.ledger.close().await;
        join_all(ends).await;
    }

    /// Serves until the node stops; an error means that the event loop is gone.
    async fn serve(&mut self) -> Result<(), ServiceError> {
        let mut watcher = super::watch_prefixes(&self.service, &PREFIXES).await?;
        let mut next = super::next_changes(&self.service, watcher);
        let (mut is_whole, mut unseen) = (false, BTreeSet::new());
        let has_come = self.peers.see_alive();
        self.see_living(has_come);
        loop {
            self.heartbeat.fetch_add(1, Ordering::Relaxed);
            let is_more = is_whole && self.turn();
            let pause = if is_more { Duration::ZERO } else { self.pause() };
            if is_more {
                // A pause of no length is none: whoever shares the thread would wait for many turns.
                yield_now().await;
            }
            self.ledger.hand_over();
            // Whatever comes all the time holds up none of the others: each has its chance.
            tokio::select! {
                () = super::stopped(&mut self.shutdown) => return Ok(()),
                Some(ended) = self.steps.join_next_with_id() => drop(self.stepped(ended)),
                Some(Ok(written)) = self.writes.join_next() => self.written(written),
                () = self.ledger.has_written() => {}
                changes = &mut next => {
                    match changes {
                        Ok(changes) => {
                            for change in changes.changes {
                                unseen.remove(&change.id);
                                self.watched(change, is_whole);
                            }
                            if changes.caught_up {
                                is_whole = true;
                                std::mem::take(&mut unseen).iter().for_each(|id| self.lose(id));
                            }
                            if is_whole {
                                self.show_webhooks();
                            }
                        }
                        // It fell too far behind. A new one begins with what is there, not with what went.
                        Err(ServiceError::NoSuchWatcher) => {
                            unseen = self.known();
                            watcher = super::watch_prefixes(&self.service, &PREFIXES).await?;
                        }
                        Err(stopped) => return Err(stopped),
                    }
                    next = super::next_changes(&self.service, watcher);
                }
                changed = self.peers.changed() => {
                    if let Changed::Living { has_come } = changed? {
                        self.see_living(has_come);
                    }
                }
                Some(request) = self.requests.recv(), if is_whole => self.request(request),
                () = sleep(pause) => {}
            }
        }
    }

    /// Takes in what the watch shows.
    fn watched(&mut self, change: Change, is_whole: bool) {
        self.shown += 1;
        if !self.writes.is_empty() {
            self.shown_last.insert(change.id.clone(), self.shown);
        }
        self.see(change, is_whole);
    }

    fn see(&mut self, change: Change, is_whole: bool) {
        let Some(object) = &change.object else {
            if change.id.kind() == "node" {
                self.peers.see(&change);
            }
            return self.lose(&change.id);
        };
        let name = change.id.name();
        match change.id.kind() {
            "device" => {
                Arc::make_mut(&mut self.devices).insert(name, Device::read(object));
                self.tell_news();
            }
            "home" if change.id.as_str() == HOME => self.see_home(HomeText::read(object)),
            "event" if self.heard.insert(change.id.clone()) && is_whole => self.hear(object),
            "automation" => self.see_automation(object),
            "node" => self.peers.see(&change),
            _ => {}
        }
    }

    fn see_automation(&mut self, view: &ObjectView) {
        let (object, name) = (&view.id, view.id.name());
        if let Some(entry) = self.automations.get_mut(name) {
            return entry.see(Spec::read(view, Some(&entry.spec)));
        }
        let won_at = Some(self.peers.living_since).filter(|_| self.peers.is_mine(object));
        let entry = Entry::new(object.clone(), Spec::read(view, None), won_at);
        self.automations.insert(name.to_owned(), entry);
        if self.automations.len() == MAX_AUTOMATIONS + 1 {
            warn!(limit = MAX_AUTOMATIONS, "too many automations: the last by their names are left alone");
        }
        self.count();
    }

    /// The first by their names are followed: the same ones on every node, whichever it saw first.
    fn count(&mut self) {
        let entries = self.automations.values_mut().enumerate();
        entries.for_each(|(index, entry)| entry.follow(index < MAX_AUTOMATIONS));
    }

    /// Something is not as it was in the home.
    fn tell_news(&mut self) {
        self.automations.values_mut().for_each(|entry| entry.is_news = true);
    }

    fn see_home(&mut self, home: HomeText) {
        self.deeds.calls.allowed = Arc::new(home.hosts.clone());
        self.home = home;
        self.automations.values_mut().for_each(|entry| entry.sentry.look_anew());
    }

    /// An object is gone.
    fn lose(&mut self, object: &ObjectId) {
        match object.kind() {
            "device" => {
                Arc::make_mut(&mut self.devices).remove(object.name());
                self.tell_news();
            }
            "home" if object.as_str() == HOME => self.see_home(HomeText::default()),
            "event" => drop(self.heard.remove(object)),
            "automation" => {
                self.automations.remove(object.name());
                self.ledger.forget(|known, _| known == object);
                self.count();
            }
            _ => {}
        }
    }

    /// What is known of the home.
    fn known(&self) -> BTreeSet<ObjectId> {
        let devices = self.devices.ids().map(|name| format!("device/{name}"));
        let named = devices.chain([HOME.to_owned()]).filter_map(|id| ObjectId::new(&id).ok());
        let automations = self.automations.values().map(|entry| entry.object.clone());
        named.chain(automations).chain(self.heard.iter().cloned()).collect()
    }

    fn see_living(&mut self, has_come: bool) {
        let now = Instant::now();
        for entry in self.automations.values_mut() {
            let is_mine = self.peers.is_mine(&entry.object);
            entry.won_at = is_mine.then(|| entry.won_at.filter(|_| !has_come).unwrap_or(now));
        }
    }

    /// The home with its clock, or why nobody knows that.
    fn home(&self) -> Result<Home, String> {
        if self.time.borrow().trusted { self.home.home() } else { Err(NO_TIME.to_owned()) }
    }

    /// Looks at what has started, goes on with what this node is to go on with, and takes the next steps; answers whether there is more
    /// to do at once.
    fn turn(&mut self) -> bool {
        let began = std::time::Instant::now();
        // In this order: where it is trusted, the step of the clock to the right time is behind us, and shifts nothing that is taken up now.
        let is_trusted = self.time.borrow().trusted;
        let now = self.now();
        let home = self.home();
        let acts = self.peers.held().is_none();
        let mut names: Vec<String> = self.automations.keys().cloned().collect();
        if let Some(first) = self.left_off.take() {
            let first = names.partition_point(|name| *name < first);
            names.rotate_left(first);
        }
        let mut is_more = false;
        for name in names {
            if began.elapsed() > PATIENCE {
                self.left_off = Some(name);
                return true;
            }
            self.look(&name, home.as_ref().ok(), now);
            if acts {
                is_more |= self.start(&name, &home, now);
            }
            // How long something of before the start has still to wait nobody knows without the time of day.
            if acts && is_trusted {
                self.adopt(&name, now);
            }
            self.give_way(&name, now);
            is_more |= self.advance(&name, &home, now);
            self.tell_fault(&name);
        }
        is_more
    }

    /// How long until something may be due.
    fn pause(&self) -> Duration {
        let now = self.turned_at.0;
        let until = |at: &Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        let entries = self.automations.values();
        let waits = entries.clone().flat_map(|entry| entry.waits.values()).map(|wait| wait.until);
        let due = waits.chain(entries.filter_map(|entry| entry.sentry.due()));
        due.map(|at| until(&at)).filter(|pause| !pause.is_zero()).fold(TICK, Duration::min)
    }

    /// The time now; where the clock was set what waits is shifted.
    fn now(&mut self) -> Timestamp {
        let (now, at) = (now(&self.clock), Instant::now());
        let (before, turned_at) = std::mem::replace(&mut self.turned_at, (now, at));
        let passed = SignedDuration::try_from(at.duration_since(turned_at)).unwrap_or_default();
        let set = now.duration_since(before) - passed;
        if set.abs() > SET {
            self.shift(set);
        }
        now
    }
}

fn now(clock: &HouseholdClock) -> Timestamp {
    super::run::now(clock).unwrap_or_default()
}
