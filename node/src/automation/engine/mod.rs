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
use jiff::{SignedDuration, Timestamp};
use mesh_proto::{ObjectId, ShortId};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinHandle, JoinSet},
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use self::{
    entry::{Entry, Spec},
    going::{Stand, Stepped},
    ledger::Ledger,
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
    service::{Change, HouseholdTime, Service, ServiceError},
};

/// Most automations of a household; more are logged and left alone.
const MAX_AUTOMATIONS: usize = 128;
/// How often is looked for what is due, at least.
const TICK: Duration = Duration::from_millis(500);
/// A clock that went another way than time itself by more was set.
const SET: SignedDuration = SignedDuration::from_secs(2);
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
    steps: JoinSet<Stepped>,
    under_way: HashMap<Id, Stand>,
}

impl Engine {
    /// Starts the task.
    pub fn spawn(parts: EngineParts) -> JoinHandle<()> {
        let (commands, circuits) = breaker::guard(&parts.commands);
        let hands = Hands::new(parts.service.clone(), commands);
        let deeds = Deeds { hands, events: parts.events, calls: Calls::default() };
        let clock = HouseholdClock::new(parts.time.clone());
        let engine = Self {
            ledger: Ledger::open(parts.service.clone()),
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
            steps: JoinSet::new(),
            under_way: HashMap::new(),
        };
        tokio::spawn(engine.run())
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
        while let Some(ended) = self.steps.join_next_with_id().await {
            let stand = ended.as_ref().ok().and_then(|(id, _)| self.under_way.get(id).cloned());
            self.stepped(ended);
            if let Some(is_stored) = stand.and_then(|(name, place)| self.store(&name, place)) {
                let _ = is_stored.await; // the node stops
            }
        }
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
            if is_whole {
                self.turn();
            }
            let pause = self.pause();
            tokio::select! {
                biased;
                () = super::stopped(&mut self.shutdown) => return Ok(()),
                Some(ended) = self.steps.join_next_with_id() => self.stepped(ended),
                changes = &mut next => {
                    match changes {
                        Ok(changes) => {
                            for change in changes.changes {
                                unseen.remove(&change.id);
                                self.see(change, is_whole);
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
                drop(Arc::make_mut(&mut self.devices).0.insert(name.to_owned(), Device::read(object)))
            }
            "home" if change.id.as_str() == HOME => self.see_home(HomeText::read(object)),
            "event" if is_whole => self.hear(object),
            "automation" => self.see_automation(&change.id, Spec::read(object)),
            "node" => self.peers.see(&change),
            _ => {}
        }
    }

    fn see_home(&mut self, home: HomeText) {
        self.deeds.calls.allowed = Arc::new(home.hosts.clone());
        self.home = home;
    }

    fn see_automation(&mut self, object: &ObjectId, spec: Spec) {
        let name = object.name();
        if let Some(entry) = self.automations.get_mut(name) {
            return entry.see(spec);
        }
        if self.automations.len() >= MAX_AUTOMATIONS {
            return warn!(%name, limit = MAX_AUTOMATIONS, "too many automations: this one is left alone");
        }
        let won_at = Some(self.peers.living_since).filter(|_| self.peers.is_mine(object));
        self.automations.insert(name.to_owned(), Entry::new(object.clone(), spec, won_at));
    }

    /// An object is gone.
    fn lose(&mut self, object: &ObjectId) {
        match object.kind() {
            "device" => drop(Arc::make_mut(&mut self.devices).0.remove(object.name())),
            "home" if object.as_str() == HOME => self.see_home(HomeText::default()),
            "automation" => drop(self.automations.remove(object.name())),
            _ => {}
        }
    }

    /// What is known of the home.
    fn known(&self) -> BTreeSet<ObjectId> {
        let devices = self.devices.0.keys().map(|name| format!("device/{name}"));
        let devices = devices.filter_map(|id| ObjectId::new(&id).ok());
        devices.chain(self.automations.values().map(|entry| entry.object.clone())).collect()
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

    /// Looks at what has started, goes on with what this node is to go on with, and takes the next steps.
    fn turn(&mut self) {
        let now = self.now();
        let home = self.home();
        let acts = self.peers.held().is_none();
        let is_trusted = self.time.borrow().trusted;
        let names: Vec<String> = self.automations.keys().cloned().collect();
        for name in names {
            self.look(&name, home.as_ref().ok(), now);
            if acts {
                self.start(&name, &home, now);
            }
            // How long something of before the start has still to wait nobody knows without the time of day.
            if acts && is_trusted {
                self.adopt(&name, now);
            }
            self.give_way(&name, now);
            self.advance(&name, &home, now);
        }
    }

    /// How long until something may be due.
    fn pause(&self) -> Duration {
        let now = self.turned_at.0;
        let until = |at: &Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        let waits = self.automations.values().flat_map(|entry| entry.waits.values());
        waits.map(until).filter(|pause| !pause.is_zero()).fold(TICK, Duration::min)
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
