//! Devices: runs the adapters, turns their readings into objects, decides who owns a device, and
//! carries commands to it.
//!
//! One task owns all of this. It speaks to the objects through [`Service`] alone, to each adapter
//! through channels, and never waits for either: writes go through an outbox, directives are
//! offered and offered again, so that a change of `desired` reaches the adapter at once.
//!
//! | object | field | written by |
//! | --- | --- | --- |
//! | `device/ID` | `adapter`, `model`, `label`, `capabilities`, `effects`, `palettes`, `sensors`, `note` | whoever finds it and knows better |
//! | | `reach.NODE` | each node that reaches it |
//! | | `desired` | the node that took the command |
//! | | `readings`, `hourly`, `daily` | the owner (see [`measured`]) |
//! | | `reported`, `availability` | the owner; without one, the spokesman (see [`ownership`]) |
//! | `command/ID` | `request` | the node that took it |
//! | | `life` | the device's owner |

mod adapters;
mod clock;
mod commands;
mod convert;
mod described;
mod hints;
mod home;
mod measured;
mod objects;
mod outbox;
pub mod ownership;
mod portrait;
mod readings;
mod requests;
mod secrets;
mod submit;
mod supervise;
mod table;
mod vault;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use device_adapters::{
    Registration,
    model::{CommandId, DeviceId},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use mesh_proto::{FieldName, ObjectId, ShortId, error::NameError};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{error, warn};

use crate::{
    api::ports::{CommandsPort, CommandsRequest, PortError, adapters::AdaptersRequest, events::EventsHandle},
    audit::AuditHandle,
    discovery::Announced,
    service::{Changes, HouseholdTime, Service, ServiceError},
};
use adapters::Slots;
pub(crate) use clock::HouseholdClock;
use commands::Book;
pub(crate) use convert::{decode, encode};
use hints::Hints;
use outbox::Outbox;
pub(crate) use portrait::Portrait;
use submit::Submitting;
use supervise::Event;
pub use supervise::{AdapterState, AdapterStatus};
use table::Device;
pub use vault::Vault;

/// Most devices of a household; more are logged and left alone.
const MAX_DEVICES: usize = 4_096;
/// Events of adapters that may wait.
const EVENTS: usize = 1_024;
/// How often is looked for what is due.
const TICK: Duration = Duration::from_millis(500);
/// How long the last writes may take at a stop.
const LAST_WRITES: Duration = Duration::from_millis(500);

/// What the configuration says of one adapter.
#[derive(Clone, PartialEq)]
pub struct AdapterSettings {
    /// Whether it runs.
    pub enabled: bool,
    /// Its own settings, a JSON object that it checks itself. May hold secrets.
    pub settings: serde_json::Value,
}

impl Default for AdapterSettings {
    fn default() -> Self {
        Self { enabled: true, settings: serde_json::Value::Object(serde_json::Map::new()) }
    }
}

impl fmt::Debug for AdapterSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdapterSettings").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

/// What the devices are made of.
pub struct DevicesParts {
    /// The way to objects.
    pub service: Service,
    /// What the API asks.
    pub commands: CommandsPort,
    /// What the API asks of the adapters.
    pub requests: mpsc::Receiver<AdaptersRequest>,
    /// The way to events.
    pub happenings: EventsHandle,
    /// What devices announce by DNS-SD.
    pub announced: watch::Receiver<Announced>,
    /// What is remembered of who did what.
    pub audit: AuditHandle,
    /// Opens and seals the secrets of adapters.
    pub vault: Vault,
    /// The nodes that are alive, from the event loop.
    pub alive: watch::Receiver<BTreeSet<ShortId>>,
    /// The time of day, from the event loop.
    pub time: watch::Receiver<HouseholdTime>,
    /// This node.
    pub me: ShortId,
    /// The node's boot incarnation; shown beside what this node reaches.
    pub incarnation: u64,
    /// Settings by adapter id; an adapter that is not here runs with its defaults.
    pub adapters: BTreeMap<String, AdapterSettings>,
    /// Becomes `true` when the node stops. Join the task before the event loop is stopped: its
    /// last act is to say that this node reaches nothing any more.
    pub shutdown: watch::Receiver<bool>,
    /// Bumped by every turn, at least twice a second; the watchdog looks at it.
    pub heartbeat: Arc<AtomicU64>,
}

/// The running task.
#[derive(Debug)]
pub struct DevicesTask {
    /// Ends when the node stops and every adapter has stopped, or when the event loop is gone.
    pub task: JoinHandle<()>,
    /// Where each adapter stands, for `hearth doctor`; ordered by id.
    pub adapters: watch::Receiver<Vec<AdapterStatus>>,
}

type NextChanges = Pin<Box<dyn Future<Output = Result<Changes, ServiceError>> + Send>>;
type Write = Pin<Box<dyn Future<Output = (CommandId, Result<(), ServiceError>)> + Send>>;

/// The names of the fields that are written here.
struct Names {
    name: FieldName,
    reach: FieldName,
    desired: FieldName,
    reported: FieldName,
    availability: FieldName,
    readings: FieldName,
    request: FieldName,
    life: FieldName,
}

impl Names {
    fn new(me: ShortId) -> Result<Self, NameError> {
        Ok(Self {
            name: FieldName::new("name")?,
            reach: FieldName::new(&format!("reach.{me}"))?,
            desired: FieldName::new("desired")?,
            reported: FieldName::new("reported")?,
            availability: FieldName::new("availability")?,
            readings: FieldName::new("readings")?,
            request: FieldName::new("request")?,
            life: FieldName::new("life")?,
        })
    }
}

/// The owner of everything about devices on this node.
pub struct Devices {
    service: Service,
    port: CommandsPort,
    alive: watch::Receiver<BTreeSet<ShortId>>,
    living: BTreeSet<ShortId>,
    me: ShortId,
    by_me: String,
    /// Friendly names of the nodes, for what people read.
    called: BTreeMap<ShortId, String>,
    /// Devices that a new subscription has not shown yet: at its end, those that were removed.
    unseen: BTreeSet<DeviceId>,
    incarnation: u64,
    names: Names,
    shutdown: watch::Receiver<bool>,
    heartbeat: Arc<AtomicU64>,
    clock: HouseholdClock,
    devices: BTreeMap<DeviceId, Device>,
    book: Book,
    submitting: BTreeMap<CommandId, Submitting>,
    writes: FuturesUnordered<Write>,
    /// For fields that need no flush.
    state: Outbox,
    /// For fields that are flushed before they count as written.
    config: Outbox,
    /// The adapters of the registry.
    slots: Slots,
    /// Adapters that the configuration names.
    unknown_adapters: BTreeSet<String>,
    adapter_requests: mpsc::Receiver<AdaptersRequest>,
    happenings: EventsHandle,
    hints: Hints,
    audit: AuditHandle,
    vault: Vault,
    events: mpsc::Receiver<Event>,
    event_sender: mpsc::Sender<Event>,
    statuses: BTreeMap<String, AdapterStatus>,
    status: watch::Sender<Vec<AdapterStatus>>,
    /// Nothing is unreached before the adapters had time to look around.
    looked_around_at: Instant,
    started_at: Instant,
}

impl Devices {
    /// Starts the adapters of the registry and the task that owns the devices.
    pub fn spawn(parts: DevicesParts) -> DevicesTask {
        Self::spawn_with(parts, device_adapters::registry())
    }

    /// As [`Devices::spawn`], with other adapters.
    pub fn spawn_with(parts: DevicesParts, registry: &'static [Registration]) -> DevicesTask {
        let (status, adapters) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            match Self::new(parts, registry, status) {
                Ok(devices) => devices.run().await,
                Err(rule) => error!(%rule, "devices cannot run"),
            }
        });
        DevicesTask { task, adapters }
    }

    fn new(
        parts: DevicesParts,
        registry: &'static [Registration],
        status: watch::Sender<Vec<AdapterStatus>>,
    ) -> Result<Self, NameError> {
        let (event_sender, events) = mpsc::channel(EVENTS);
        Ok(Self {
            state: Outbox::new(parts.service.clone()),
            config: Outbox::new(parts.service.clone()),
            service: parts.service,
            port: parts.commands,
            alive: parts.alive,
            living: BTreeSet::from([parts.me]),
            me: parts.me,
            by_me: parts.me.to_string(),
            called: BTreeMap::new(),
            unseen: BTreeSet::new(),
            incarnation: parts.incarnation,
            names: Names::new(parts.me)?,
            shutdown: parts.shutdown,
            heartbeat: parts.heartbeat,
            clock: HouseholdClock::new(parts.time),
            devices: BTreeMap::new(),
            book: Book::default(),
            submitting: BTreeMap::new(),
            writes: FuturesUnordered::new(),
            slots: adapters::slots(registry, &parts.adapters),
            unknown_adapters: parts.adapters.into_keys().collect(),
            adapter_requests: parts.requests,
            happenings: parts.happenings,
            hints: Hints::new(parts.announced),
            audit: parts.audit,
            vault: parts.vault,
            events,
            event_sender,
            statuses: BTreeMap::new(),
            status,
            looked_around_at: Instant::now(),
            started_at: Instant::now(),
        })
    }

    async fn run(mut self) {
        // Supervisors stop when this task does, also when it ends because the event loop is gone.
        let (stop, stopping) = watch::channel(false);
        let mut supervisors = JoinSet::new();
        if self.serve(&mut supervisors, &stopping).await.is_err() {
            warn!("the event loop is gone: devices stop");
        }
        let _ = stop.send(true); // no adapter was started
        self.port.requests.close();
        // A supervisor that waits for room in the queue would wait for ever.
        self.events.close();
        let last_writes = timeout(LAST_WRITES, self.last_writes());
        let (_, ()) = tokio::join!(last_writes, async { while supervisors.join_next().await.is_some() {} });
    }

    /// Serves until the node stops; an error means that the event loop is gone.
    async fn serve(
        &mut self,
        supervisors: &mut JoinSet<()>,
        stopping: &watch::Receiver<bool>,
    ) -> Result<(), ServiceError> {
        let mut watcher = watch_objects(self.service.clone()).await?;
        let mut next = next_changes(&self.service, watcher);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_started = false;
        self.see_alive();
        loop {
            self.heartbeat.fetch_add(1, Ordering::Relaxed);
            self.show_on();
            self.tell_on();
            self.hints.tell(&mut self.slots);
            tokio::select! {
                biased;
                () = stopped(&mut self.shutdown) => return Ok(()),
                () = self.state.turn() => {}
                () = self.config.turn() => {}
                Some((id, written)) = self.writes.next() => self.written(id, written),
                changes = &mut next => {
                    match changes {
                        Ok(changes) => {
                            let is_whole = changes.caught_up;
                            self.see_changes(changes, is_started);
                            if is_whole {
                                self.lose_unseen();
                            }
                            if is_whole && !is_started {
                                is_started = true;
                                self.start_adapters(supervisors, stopping);
                            }
                        }
                        // It fell too far behind. A new one begins with what is there, not with what went.
                        Err(ServiceError::NoSuchWatcher) => {
                            self.unseen = self.devices.keys().cloned().collect();
                            watcher = watch_objects(self.service.clone()).await?;
                        }
                        Err(stopped) => return Err(stopped),
                    }
                    next = next_changes(&self.service, watcher);
                }
                changed = self.alive.changed() => {
                    changed.map_err(|_| ServiceError::Stopping)?;
                    self.see_alive();
                    if is_started {
                        self.settle_adapters();
                    }
                    self.settle_all();
                }
                // What a client asks is judged by what is known, so nothing is before it is.
                request = self.port.requests.recv(), if is_started => match request {
                    Some(request) => self.request(request),
                    None => return Ok(()),
                },
                Some(request) = self.adapter_requests.recv(), if is_started => self.adapters_request(request),
                Some(event) = self.events.recv() => self.event(event),
                Ok(()) = self.hints.changed() => self.hints.look(&mut self.slots),
                _ = tick.tick() => self.tick(is_started),
            }
        }
    }

    fn see_alive(&mut self) {
        self.living = self.alive.borrow_and_update().clone();
        // Of none this node is none either: it stands outside of its household.
        if !self.living.is_empty() {
            self.living.insert(self.me);
        }
    }

    fn request(&mut self, request: CommandsRequest) {
        match request {
            CommandsRequest::Submit(request, reply) => self.submit(request, reply),
            CommandsRequest::Get(id, reply) => {
                let id: Result<CommandId, _> = id.parse();
                let known = id.map(|id| self.book.get(id)).map_err(|rule| PortError::Invalid {
                    detail: rule.to_string(),
                    fix: "use the id that the command got when it was accepted".to_owned(),
                });
                let _ = reply.send(known); // whoever asked is gone
            }
        }
    }

    fn tick(&mut self, is_started: bool) {
        self.forget_submits();
        self.end_overdue();
        self.book.forget(Instant::now());
        if is_started {
            self.settle_adapters();
            self.settle_all();
            self.say_again();
        }
    }

    /// Says that this node reaches nothing any more, so that others need not wait for its death.
    async fn last_writes(&mut self) {
        for device in self.devices.values().filter(|device| device.found.is_some()) {
            self.state.put(&device.object, self.names.reach.clone(), None);
        }
        while !self.state.is_idle() {
            self.state.turn().await;
        }
    }
}

/// Returns once the node stops, or nobody is left to say so.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn watch_objects(service: Service) -> Result<u64, ServiceError> {
    let prefixes = ["device/", "command/", "node/", "adapter/", "event/"].map(str::to_owned).to_vec();
    Ok(service.watch(prefixes, None).await?.watcher)
}

fn next_changes(service: &Service, watcher: u64) -> NextChanges {
    let service = service.clone();
    Box::pin(async move { service.next_changes(watcher).await })
}

/// The object of a device.
fn device_object(id: &DeviceId) -> Option<ObjectId> {
    ObjectId::new(&format!("device/{id}")).ok()
}

/// The object of a command.
fn command_object(id: CommandId) -> Option<ObjectId> {
    ObjectId::new(&format!("command/{id}")).ok()
}
