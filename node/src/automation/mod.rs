//! What the home does by itself: schedules, and scenes that they and people activate ([`scenes`]).
//!
//! One task watches `schedule/` and the home's settings. When an occurrence is due and this node is the one to carry it out
//! ([`agenda`]), it records that it begins, gives the commands, and records how they ended. Nothing happens before the time of day
//! is known, nor before this node has heard what its peers recorded.
//!
//! | object | field | who writes it |
//! | --- | --- | --- |
//! | `home/main` | `zone`, `latitude`, `longitude`, `since`, `http.HASH` | the node that a person asked |
//! | `schedule/NAME` | `when`, `only`, `except`, `missed`, `do`, `enabled`, `since` | the node that a person asked |
//! | | `run.NODE` | each node: what it did last ([`record`]) |
//! | `scene/NAME` | `transition_ms`, `set.DEVICE` | the node that a person asked |
//! | | `before.DEVICE`, `activated` | the node that activated it |

mod agenda;
mod breaker;
pub(crate) mod called;
mod carry;
mod counts;
mod course;
mod deeds;
mod engine;
pub(crate) mod events;
mod expression;
#[cfg(test)]
mod fake;
mod hosts;
mod pace;
mod peers;
mod program;
mod record;
mod rehearsal;
mod requests;
pub(crate) mod restore;
mod run;
mod runs;
pub(crate) mod scenes;
mod sentry;
mod spec;
mod steps;
#[cfg(test)]
mod tests;
pub mod webhooks;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use mesh_proto::{FieldName, ObjectId, ShortId};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use crate::{
    api::ports::{CommandsHandle, events::EventsRequest, schedules::SchedulesRequest},
    devices::HouseholdClock,
    service::{Change, Changes, HouseholdTime, Service, ServiceError},
};
use carry::Hands;
pub use counts::Counts;
pub use engine::{Engine, EngineParts};
use events::Publisher;
use peers::{Changed, Peers};
#[cfg(test)]
pub(crate) use program::ProgramText;
use record::Record;
pub use rehearsal::{Judged, Rehearsal};
pub use spec::{HomeText, ScheduleText};
use spec::{Spec, run_field};
use steps::Entry;

/// Most schedules of a household. Where two halves that were cut off have more together, the first by their names count, on every node.
const MAX_SCHEDULES: usize = 256;
/// How often is looked for what is due, at least.
const TICK: Duration = Duration::from_millis(500);
/// How long what is under way may take at a stop.
const LAST_RUNS: Duration = Duration::from_secs(2);
/// What is watched.
const PREFIXES: [&str; 3] = ["schedule/", "home/", peers::PREFIX];
/// Why nothing happens by the clock.
const NO_TIME: &str = "the time of day is not known: `hearth time` shows why, `hearth time set` sets it";
/// The name of the home's object.
pub(crate) const HOME: &str = "main";

/// What the automation is made of.
pub struct AutomationParts {
    /// The way to objects.
    pub service: Service,
    /// The way to commands.
    pub commands: CommandsHandle,
    /// What the API asks.
    pub requests: mpsc::Receiver<SchedulesRequest>,
    /// The events that the API publishes.
    pub events: mpsc::Receiver<EventsRequest>,
    /// The nodes that are alive, from the event loop.
    pub alive: watch::Receiver<BTreeSet<ShortId>>,
    /// The time of day, from the event loop.
    pub time: watch::Receiver<HouseholdTime>,
    /// Whether nothing is missing here of what the linked peers hold, from the event loop.
    pub caught_up: watch::Receiver<bool>,
    /// This node.
    pub me: ShortId,
    /// What happened.
    pub counts: Arc<Counts>,
    /// Becomes `true` when the node stops. Join the task before the event loop is stopped.
    pub shutdown: watch::Receiver<bool>,
    /// Bumped by every turn, at least twice a second; the watchdog looks at it.
    pub heartbeat: Arc<AtomicU64>,
}

type NextChanges = Pin<Box<dyn Future<Output = Result<Changes, ServiceError>> + Send>>;

/// The owner of everything that the home does by itself, on this node.
pub struct Automation {
    service: Service,
    hands: Hands,
    requests: mpsc::Receiver<SchedulesRequest>,
    events: mpsc::Receiver<EventsRequest>,
    publisher: Publisher,
    peers: Peers,
    time: watch::Receiver<HouseholdTime>,
    clock: HouseholdClock,
    run: FieldName,
    counts: Arc<Counts>,
    shutdown: watch::Receiver<bool>,
    heartbeat: Arc<AtomicU64>,
    home: HomeText,
    schedules: BTreeMap<String, Entry>,
    running: JoinSet<Record>,
    /// The time when was last looked for what is due.
    stepped_at: Timestamp,
}

impl Automation {
    /// Starts the task.
    pub fn spawn(parts: AutomationParts) -> JoinHandle<()> {
        tokio::spawn(async move {
            match Self::new(parts) {
                Some(automation) => automation.run().await,
                None => warn!("a name of this node fits no field: nothing happens by itself"),
            }
        })
    }

    fn new(parts: AutomationParts) -> Option<Self> {
        Some(Self {
            hands: Hands::new(parts.service.clone(), parts.commands),
            publisher: Publisher::new(parts.service.clone()),
            service: parts.service,
            requests: parts.requests,
            events: parts.events,
            peers: Peers::new(parts.me, parts.alive, parts.caught_up),
            clock: HouseholdClock::new(parts.time.clone()),
            time: parts.time,
            run: run_field(parts.me)?,
            counts: parts.counts,
            shutdown: parts.shutdown,
            heartbeat: parts.heartbeat,
            home: HomeText::default(),
            schedules: BTreeMap::new(),
            running: JoinSet::new(),
            stepped_at: Timestamp::UNIX_EPOCH,
        })
    }

    async fn run(mut self) {
        if self.serve().await.is_err() {
            debug!("the event loop is gone: nothing happens by itself any more");
        }
        self.requests.close();
        // What does not end in time another node takes over.
        let ends = async { while self.running.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_RUNS, ends).await;
    }

    /// Serves until the node stops; an error means that the event loop is gone.
    async fn serve(&mut self) -> Result<(), ServiceError> {
        let mut watcher = watch_prefixes(&self.service, &PREFIXES).await?;
        let mut next = next_changes(&self.service, watcher);
        let mut unseen = BTreeSet::new();
        let mut is_whole = false;
        let has_come = self.peers.see_alive();
        self.see_living(has_come);
        loop {
            self.heartbeat.fetch_add(1, Ordering::Relaxed);
            let pause = if is_whole && self.step_some().await { Duration::ZERO } else { self.pause() };
            tokio::select! {
                biased;
                () = stopped(&mut self.shutdown) => return Ok(()),
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                changes = &mut next => {
                    match changes {
                        Ok(changes) => {
                            for change in changes.changes {
                                unseen.remove(change.id.name());
                                self.see(change);
                            }
                            if changes.caught_up {
                                is_whole = true;
                                self.schedules.retain(|name, _| !unseen.contains(name));
                                unseen.clear();
                            }
                        }
                        // It fell too far behind. A new one begins with what is there, not with what went.
                        Err(ServiceError::NoSuchWatcher) => {
                            unseen = self.schedules.keys().cloned().collect();
                            watcher = watch_prefixes(&self.service, &PREFIXES).await?;
                        }
                        Err(stopped) => return Err(stopped),
                    }
                    next = next_changes(&self.service, watcher);
                }
                changed = self.peers.changed() => {
                    if let Changed::Living { has_come } = changed? {
                        self.see_living(has_come);
                    }
                }
                Ok(()) = self.time.changed() => self.look_at_all(),
                Some(request) = self.requests.recv(), if is_whole => self.request(request),
                Some(event) = self.events.recv() => self.publisher.request(event),
                () = sleep(pause) => {}
            }
        }
    }

    fn see(&mut self, change: Change) {
        match (change.id.kind(), &change.object) {
            ("home", Some(home)) if change.id.name() == HOME => {
                self.home = HomeText::read(home);
                self.look_at_all();
            }
            ("home", None) if change.id.name() == HOME => {
                self.home = HomeText::default();
                self.look_at_all();
            }
            ("node", _) => self.peers.see(&change),
            ("schedule", Some(object)) => self.see_schedule(&change.id, Spec::read(object)),
            ("schedule", None) => drop(self.schedules.remove(change.id.name())),
            _ => {}
        }
    }

    fn see_schedule(&mut self, object: &ObjectId, spec: Spec) {
        if let Some(entry) = self.schedules.get_mut(object.name()) {
            return entry.see(spec, self.peers.me);
        }
        let name = object.name().to_owned();
        let won_at = Some(self.peers.living_since).filter(|_| self.peers.is_mine(object));
        let entry = Entry::new(object.clone(), spec, won_at);
        self.schedules.insert(name, entry);
        if self.schedules.len() == MAX_SCHEDULES + 1 {
            warn!(limit = MAX_SCHEDULES, "too many schedules: the last by their names are left alone");
        }
    }

    fn see_living(&mut self, has_come: bool) {
        let now = Instant::now();
        for entry in self.schedules.values_mut() {
            let is_mine = self.peers.is_mine(&entry.object);
            entry.won_at = is_mine.then(|| entry.won_at.filter(|_| !has_come).unwrap_or(now));
        }
        self.look_at_all();
    }

    /// The schedules that are followed: the same ones on every node, whichever it saw first.
    fn followed(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.schedules.iter().take(MAX_SCHEDULES)
    }

    fn look_at_all(&mut self) {
        self.schedules.values_mut().for_each(|entry| entry.look_at = None);
    }

    /// Why nothing happens by itself at the moment, if so.
    fn held(&self) -> Option<&'static str> {
        if !self.time.borrow().trusted {
            return Some(NO_TIME);
        }
        self.peers.held()
    }

    fn now(&self) -> Timestamp {
        run::now(&self.clock).unwrap_or_default()
    }

    /// How long until something may be due.
    fn pause(&self) -> Duration {
        if self.held().is_some() {
            return TICK;
        }
        let now = self.now();
        let until = |at: &Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        self.followed()
            .filter(|(_, entry)| entry.running.is_none())
            .filter_map(|(_, entry)| entry.look_at.as_ref())
            .map(until)
            .fold(TICK, Duration::min)
    }
}

/// Returns once the node stops, or nobody is left to say so.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn watch_prefixes(service: &Service, prefixes: &[&str]) -> Result<u64, ServiceError> {
    let prefixes = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
    Ok(service.watch(prefixes, None).await?.watcher)
}

fn next_changes(service: &Service, watcher: u64) -> NextChanges {
    let service = service.clone();
    Box::pin(async move { service.next_changes(watcher).await })
}
