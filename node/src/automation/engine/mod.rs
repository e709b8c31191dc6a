//! The engine of the automations: it watches what starts them, and goes on with the runs that are this node's.
//!
//! One task watches devices, events and `automation/`. Of an automation the winner of the rendezvous hash among the living starts its
//! runs; a run stays with the node that began it, and when that dies the winner goes on with it. Each step is stored, flushed, before it is
//! done.
//!
//! | object | field | who writes it |
//! | --- | --- | --- |
//! | `automation/NAME` | `triggers`, `conditions`, `actions`, `mode`, `max`, `enabled`, `since` | the node that a person asked |
//! | | `tripped` | the node that found it running away |
//! | | `run.NODE.PLACE` | each node: its runs ([`super::runs`]) |

mod requests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use device_adapters::schedule::Home;
use jiff::{SignedDuration, Timestamp};
use mesh_proto::{FieldName, ObjectId, ShortId, Value, kinds::Author};
use serde_json::{Value as Json, json};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{
    HomeText,
    carry::Hands,
    course::{End, Move, World as _},
    deeds::{Calls, Deeds, shown},
    program::{Mode, Program, ProgramText},
    runs::{Run, Runs, State, free_place, is_known, orphans, place_of, run_field},
    sentry::{Firing, Heard, Sentry, hear},
    world::{Device, Devices, View},
};
use crate::{
    api::ports::{CommandsHandle, automations::AutomationsRequest, events::EventsHandle},
    devices::{HouseholdClock, decode, ownership::winner},
    service::{Change, HouseholdTime, ObjectView, Op, Service, ServiceError},
};

/// Most automations of a household; more are logged and left alone.
const MAX_AUTOMATIONS: usize = 128;
/// How often is looked for what is due, at least.
const TICK: Duration = Duration::from_millis(500);
/// How long after it something that nobody acted upon may still start an automation: long enough for another node to notice that the one that
/// was to act died.
const ON_TIME: SignedDuration = SignedDuration::from_secs(30);
/// Starts of one automation within [`GUARDED`]; one beyond is running away.
const MAX_STARTS: usize = 30;
const GUARDED: SignedDuration = SignedDuration::from_secs(60);
/// How long what is under way may take at a stop.
const LAST_STEPS: Duration = Duration::from_secs(2);
/// What is watched.
const PREFIXES: [&str; 4] = ["automation/", "device/", "event/", "home/"];
/// The object of the home.
const HOME: &str = "home/main";

/// An automation's object.
struct Spec {
    enabled: bool,
    /// Why it was switched off by itself.
    tripped: Option<String>,
    /// As it is written.
    text: Json,
    program: Result<Arc<Program>, String>,
    /// Of the program: a run follows the one that it began with.
    hash: u64,
    runs: Runs,
}

impl Spec {
    fn read(object: &ObjectView) -> Self {
        let value = |name: &str| {
            object.fields.iter().find(|(known, _)| known.as_str() == name).map(|(_, field)| &field.value)
        };
        let list = |name: &str| value(name).and_then(decode::<Vec<Json>>).unwrap_or_default();
        let text = ProgramText {
            triggers: list("triggers"),
            conditions: list("conditions"),
            actions: list("actions"),
            mode: value("mode").and_then(Value::as_text).unwrap_or_default().to_owned(),
            max: value("max").and_then(Value::as_int).and_then(|max| u8::try_from(max).ok()),
        };
        let run = |(name, field): (&FieldName, &crate::service::FieldView)| {
            Some((place_of(name.as_str())?, Run::read(&field.value)?))
        };
        Self {
            enabled: value("enabled") != Some(&Value::Bool(false)),
            tripped: value("tripped").and_then(Value::as_text).map(str::to_owned),
            hash: hash(&text),
            text: json!({
                "triggers": text.triggers, "conditions": text.conditions, "actions": text.actions, "mode": text.mode,
                "max": text.max,
            }),
            program: text.parse().map(Arc::new).map_err(|fault| fault.to_string()),
            runs: object.fields.iter().filter_map(run).collect(),
        }
    }

    /// The program, unless nothing comes of it.
    fn active(&self) -> Option<Arc<Program>> {
        let program = self.program.as_ref().ok()?;
        (self.enabled && self.tripped.is_none()).then(|| Arc::clone(program))
    }
}

fn hash(text: &ProgramText) -> u64 {
    let whole = (&text.triggers, &text.conditions, &text.actions);
    let bytes = serde_json::to_vec(&whole).unwrap_or_default();
    let hash = blake3::hash(&bytes);
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes) >> 1)
}

/// An automation, and what this node knows beside.
struct Entry {
    object: ObjectId,
    spec: Spec,
    sentry: Sentry,
    /// The runs that this node wrote, as it knows them itself: the object may show them later.
    own: BTreeMap<u8, Run>,
    /// Of them those with a step under way, and those that wait for a moment.
    busy: BTreeSet<u8>,
    waits: BTreeMap<u8, Timestamp>,
    /// When it was started last.
    starts: VecDeque<Timestamp>,
    /// What started it of late, until another node cannot have missed to act upon it any more.
    recent: Vec<Firing>,
}

impl Entry {
    fn new(object: ObjectId, spec: Spec) -> Self {
        Self {
            object,
            spec,
            sentry: Sentry::default(),
            own: BTreeMap::new(),
            busy: BTreeSet::new(),
            waits: BTreeMap::new(),
            starts: VecDeque::new(),
            recent: Vec::new(),
        }
    }

    /// All runs, this node's as it knows them itself.
    fn runs(&self, me: ShortId) -> Runs {
        let mut runs = self.spec.runs.clone();
        runs.extend(self.own.iter().map(|(place, run)| ((me, *place), run.clone())));
        runs
    }
}

/// What became of a step.
struct Stepped {
    automation: String,
    place: u8,
    outcome: Result<(), String>,
    took_ms: u32,
}

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
    alive: watch::Receiver<BTreeSet<ShortId>>,
    living: BTreeSet<ShortId>,
    clock: HouseholdClock,
    me: ShortId,
    shutdown: watch::Receiver<bool>,
    heartbeat: Arc<AtomicU64>,
    home: HomeText,
    devices: Arc<Devices>,
    automations: BTreeMap<String, Entry>,
    steps: JoinSet<Stepped>,
}

impl Engine {
    /// Starts the task.
    pub fn spawn(parts: EngineParts) -> JoinHandle<()> {
        let hands = Hands::new(parts.service.clone(), parts.commands);
        let deeds = Deeds { hands, events: parts.events, calls: Calls::default() };
        let engine = Self {
            service: parts.service,
            requests: parts.requests,
            deeds,
            alive: parts.alive,
            living: BTreeSet::from([parts.me]),
            clock: HouseholdClock::new(parts.time),
            me: parts.me,
            shutdown: parts.shutdown,
            heartbeat: parts.heartbeat,
            home: HomeText::default(),
            devices: Arc::default(),
            automations: BTreeMap::new(),
            steps: JoinSet::new(),
        };
        tokio::spawn(engine.run())
    }

    async fn run(mut self) {
        if self.serve().await.is_err() {
            debug!("the event loop is gone: the automations stop");
        }
        // What does not end in time another node goes on with.
        let ends = async { while self.steps.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_STEPS, ends).await;
    }

    /// Serves until the node stops; an error means that the event loop is gone.
    async fn serve(&mut self) -> Result<(), ServiceError> {
        let mut watcher = super::watch_prefixes(&self.service, &PREFIXES).await?;
        let mut next = super::next_changes(&self.service, watcher);
        let mut is_whole = false;
        self.living = self.alive.borrow_and_update().clone();
        loop {
            self.heartbeat.fetch_add(1, Ordering::Relaxed);
            if is_whole {
                self.turn().await;
            }
            tokio::select! {
                biased;
                () = super::stopped(&mut self.shutdown) => return Ok(()),
                Some(stepped) = self.steps.join_next() => match stepped {
                    Ok(stepped) => self.stepped(stepped),
                    Err(error) => warn!(%error, "a step of an automation broke off"),
                },
                changes = &mut next => {
                    match changes {
                        Ok(changes) => {
                            changes.changes.into_iter().for_each(|change| self.see(change, is_whole));
                            is_whole |= changes.caught_up;
                        }
                        Err(ServiceError::NoSuchWatcher) => {
                            watcher = super::watch_prefixes(&self.service, &PREFIXES).await?;
                        }
                        Err(stopped) => return Err(stopped),
                    }
                    next = super::next_changes(&self.service, watcher);
                }
                changed = self.alive.changed() => {
                    changed.map_err(|_| ServiceError::Stopping)?;
                    self.living = self.alive.borrow_and_update().clone();
                }
                Some(request) = self.requests.recv(), if is_whole => self.request(request),
                () = sleep(TICK) => {}
            }
        }
    }

    fn see(&mut self, change: Change, is_whole: bool) {
        let name = change.id.name();
        match (change.id.kind(), change.object) {
            ("device", Some(object)) => {
                Arc::make_mut(&mut self.devices).0.insert(name.to_owned(), Device::read(&object));
            }
            ("device", None) => drop(Arc::make_mut(&mut self.devices).0.remove(name)),
            ("home", object) if change.id.as_str() == HOME => {
                self.home = object.as_ref().map(HomeText::read).unwrap_or_default();
            }
            ("event", Some(object)) if is_whole => self.hear(&object),
            ("automation", Some(object)) => self.see_automation(&object),
            ("automation", None) => drop(self.automations.remove(name)),
            _ => {}
        }
    }

    fn see_automation(&mut self, object: &ObjectView) {
        let (name, spec) = (object.id.name(), Spec::read(object));
        if let Some(entry) = self.automations.get_mut(name) {
            if entry.spec.hash != spec.hash {
                entry.sentry = Sentry::default();
            }
            entry.spec = spec;
        } else if self.automations.len() < MAX_AUTOMATIONS {
            self.automations.insert(name.to_owned(), Entry::new(object.id.clone(), spec));
        } else {
            warn!(%name, limit = MAX_AUTOMATIONS, "too many automations: this one is left alone");
        }
    }

    fn hear(&mut self, object: &ObjectView) {
        let Some((topic, _)) = object.id.name().rsplit_once(':') else { return };
        let field = object.fields.values().next();
        let data = field.map_or(Json::Null, |field| crate::json::from_value(&field.value));
        let at = field.and_then(|field| i64::try_from(field.at_ms).ok());
        let at = at.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
        let heard = Heard { id: object.id.name(), topic, data: &data, at };
        for (name, entry) in &mut self.automations {
            let Some(program) = entry.spec.active() else { continue };
            entry.recent.extend(hear(name, &program.triggers, heard));
            // A run may wait for it.
            for (place, run) in entry.own.iter_mut().filter(|(_, run)| run.state == State::Running) {
                if !entry.busy.contains(place) && run.course.hear(&program, topic) {
                    entry.waits.remove(place);
                }
            }
        }
    }

    fn now(&self) -> Timestamp {
        i64::try_from(self.clock.now_ms())
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .unwrap_or_default()
    }

    fn is_winner(&self, object: &ObjectId) -> bool {
        winner(self.living.iter().copied(), object.as_str()) == Some(self.me)
    }

    /// Looks at what has started, goes on with what this node is to go on with, and takes the next steps.
    async fn turn(&mut self) {
        let now = self.now();
        let home = self.home.home();
        let names: Vec<String> = self.automations.keys().cloned().collect();
        for name in names {
            self.look(&name, home.as_ref().ok(), now);
            self.start(&name, &home, now).await;
            self.adopt(&name, now).await;
            self.advance(&name, &home, now).await;
        }
    }

    fn look(&mut self, name: &str, home: Option<&Home>, now: Timestamp) {
        let devices = Arc::clone(&self.devices);
        let Some(entry) = self.automations.get_mut(name) else { return };
        let Some(program) = entry.spec.active() else { return };
        entry.recent.extend(entry.sentry.look(name, &program.triggers, &devices, now));
        if let Some(home) = home {
            match entry.sentry.look_at_clock(name, &program.triggers, home, now) {
                Ok(fired) => entry.recent.extend(fired),
                Err(reason) => debug!(name, reason, "its time cannot be known"),
            }
        }
        entry.recent.retain(|firing| now.duration_since(firing.at) <= ON_TIME);
    }

    /// Begins a run for what has started the automation and nobody acted upon.
    async fn start(&mut self, name: &str, home: &Result<Home, String>, now: Timestamp) {
        let Some(entry) = self.automations.get(name) else { return };
        let Some(program) = entry.spec.active() else { return };
        if !self.is_winner(&entry.object) {
            return;
        }
        let runs = entry.runs(self.me);
        let fresh: Vec<Firing> =
            entry.recent.iter().filter(|firing| !is_known(&runs, firing.id)).cloned().collect();
        for firing in fresh {
            let view = View {
                devices: &self.devices,
                home: home.as_ref().map_err(Clone::clone),
                now,
                trigger: &firing.data,
            };
            let mut holds = Ok(true);
            for condition in &program.conditions {
                holds = view.holds(condition);
                if holds != Ok(true) {
                    break;
                }
            }
            self.begin(name, &program, &firing, holds, now).await;
        }
    }

    /// A run for what started the automation, as its mode has it.
    async fn begin(
        &mut self,
        name: &str,
        program: &Program,
        firing: &Firing,
        holds: Result<bool, String>,
        now: Timestamp,
    ) {
        let me = self.me;
        let Some(entry) = self.automations.get_mut(name) else { return };
        entry.starts.push_back(now);
        while entry.starts.front().is_some_and(|first| now.duration_since(*first) > GUARDED) {
            entry.starts.pop_front();
        }
        if entry.starts.len() > MAX_STARTS {
            return self.trip(name, &firing.why).await;
        }
        let runs = entry.runs(me);
        let open = runs.values().filter(|run| run.state.is_open()).count();
        let mut run = Run::new(firing, entry.spec.hash, now);
        match holds {
            Ok(true) => {}
            Ok(false) => run.end(State::Refused, "a condition does not hold", now),
            Err(why) => run.end(State::Refused, &why, now),
        }
        if run.state.is_open() {
            match program.mode {
                Mode::Single if open > 0 => run.end(State::Refused, "it runs already", now),
                Mode::Queued(max) | Mode::Parallel(max) if open >= usize::from(max) => {
                    run.end(State::Refused, &format!("{open} run or wait already"), now);
                }
                Mode::Queued(_) if open > 0 => run.state = State::Queued,
                Mode::Restart => {
                    for (place, older) in entry.own.iter_mut().filter(|(_, run)| run.state.is_open()) {
                        older.end(State::Stopped, "it was started again", now);
                        entry.waits.remove(place);
                    }
                }
                _ => {}
            }
        }
        let Some(place) = free_place(&entry.runs(me), me) else {
            return warn!(name, "all its places are taken: what started it is passed over");
        };
        debug!(name, why = firing.why, state = ?run.state, "an automation was started");
        entry.own.insert(place, run);
        self.store(name, place).await;
    }

    /// It starts itself, or fights with another one: it is switched off until somebody looks at it.
    async fn trip(&mut self, name: &str, why: &str) {
        let Some(entry) = self.automations.get_mut(name) else { return };
        let reason = format!(
            "it was started more than {MAX_STARTS} times within a minute, last by {why}: see that it does not start itself, \
             then switch it on again"
        );
        warn!(name, why, "an automation runs away, and is switched off");
        let op = FieldName::new("tripped")
            .map(|field| Op::Set(entry.object.clone(), field, Value::Text(reason.as_str().into())));
        entry.spec.tripped = Some(reason);
        entry.starts.clear();
        entry.recent.clear();
        if let Ok(op) = op
            && let Err(reason) = self.service.write(Author::Node, vec![op]).await
        {
            warn!(name, %reason, "that is not stored");
        }
    }

    /// Goes on with the runs of nodes that died, and with those that this node itself began before it was started anew.
    async fn adopt(&mut self, name: &str, now: Timestamp) {
        let (me, living) = (self.me, self.living.clone());
        let Some(entry) = self.automations.get(name) else { return };
        let is_winner = self.is_winner(&entry.object);
        let runs = entry.runs(me);
        for (node, from) in orphans(&runs, me, is_winner, |node| living.contains(&node)) {
            let Some(entry) = self.automations.get_mut(name) else { return };
            let place = if node == me { Some(from) } else { free_place(&entry.runs(me), me) };
            let is_at_it = node == me && entry.own.contains_key(&from);
            let (Some(place), Some(run), false) = (place, runs.get(&(node, from)), is_at_it) else {
                continue;
            };
            let mut run = Run { took: now.as_millisecond(), ..run.clone() };
            run.note(now, &[], "another node goes on with it: the one that began died", "", 0);
            info!(name, "goes on with a run that was broken off");
            entry.own.insert(place, run);
            self.store(name, place).await;
        }
    }

    /// Takes the next step of each open run of this node that has none under way and waits for nothing.
    async fn advance(&mut self, name: &str, home: &Result<Home, String>, now: Timestamp) {
        let Some(entry) = self.automations.get_mut(name) else { return };
        let program = match &entry.spec.program {
            Ok(program) => Arc::clone(program),
            Err(_) => return,
        };
        let hash = entry.spec.hash;
        // The one that has waited longest has its turn when nothing runs.
        if !entry.runs(self.me).values().any(|run| run.state == State::Running)
            && let Some(first) =
                entry.own.values_mut().filter(|run| run.state == State::Queued).min_by_key(|run| run.took)
        {
            first.state = State::Running;
        }
        let due: Vec<u8> = entry
            .own
            .iter()
            .filter(|(place, run)| {
                run.state == State::Running
                    && !entry.busy.contains(place)
                    && entry.waits.get(place).is_none_or(|until| *until <= now)
            })
            .map(|(place, _)| *place)
            .collect();
        for place in due {
            let Some(run) = self.automations.get_mut(name).and_then(|entry| entry.own.get_mut(&place)) else {
                return;
            };
            if run.program != hash {
                run.end(State::Stopped, "it was changed while it ran", now);
                self.store(name, place).await;
                continue;
            }
            let trigger = run.data.clone();
            let view = View {
                devices: &self.devices,
                home: home.as_ref().map_err(Clone::clone),
                now,
                trigger: &trigger,
            };
            match run.course.next(&program, &view, now) {
                Move::Do { deed, path } => {
                    let facts = view.facts();
                    let key = format!("automation/{name}#{:016x}.{}", run.id, key_of(&path, run));
                    let what = deed.what.clone();
                    run.note(now, &path, &shown(&what), "", 0);
                    self.store(name, place).await;
                    self.perform(name, place, what, facts, key, deed.deadline);
                }
                Move::Wait { until, .. } => {
                    if let Some(entry) = self.automations.get_mut(name) {
                        entry.waits.insert(place, until);
                    }
                    self.store(name, place).await;
                }
                Move::End(end) => {
                    let (state, why) = match end {
                        End::Done => (State::Done, String::new()),
                        End::Stopped(why) => (State::Stopped, why),
                        End::Failed(why) => (State::Failed, why),
                    };
                    run.end(state, &why, now);
                    self.store(name, place).await;
                }
            }
        }
    }

    /// Does one thing, in a task of its own.
    fn perform(
        &mut self,
        name: &str,
        place: u8,
        what: super::program::What,
        facts: super::expression::Facts,
        key: String,
        deadline: Duration,
    ) {
        let Some(entry) = self.automations.get_mut(name) else { return };
        entry.busy.insert(place);
        let (deeds, automation, by) = (self.deeds.clone(), name.to_owned(), entry.object.to_string());
        self.steps.spawn(async move {
            let began = tokio::time::Instant::now();
            let outcome = deeds.perform(&by, &what, &facts, key, deadline).await;
            let took_ms = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
            Stepped { automation, place, outcome, took_ms }
        });
    }

    /// A step has ended: its outcome is part of the run, and stored with the next step.
    fn stepped(&mut self, Stepped { automation, place, outcome, took_ms }: Stepped) {
        let Some(entry) = self.automations.get_mut(&automation) else { return };
        entry.busy.remove(&place);
        let Some(run) = entry.own.get_mut(&place).filter(|run| run.state == State::Running) else { return };
        if let Some(line) = run.trace.last_mut() {
            line.outcome =
                outcome.as_ref().map_or_else(|why| super::runs::clipped(why), |()| "ok".to_owned());
            line.took = took_ms;
        }
        let Ok(program) = &entry.spec.program else { return };
        run.course.did(program, outcome);
    }

    /// Stores a run as this node knows it. Where the disk fails the home goes on: the run is not gone on with after a restart.
    async fn store(&mut self, name: &str, place: u8) {
        let Some(entry) = self.automations.get(name) else { return };
        let (Some(run), Some(field)) = (entry.own.get(&place), run_field(self.me, place)) else { return };
        let op = Op::Set(entry.object.clone(), field, run.to_value());
        if let Err(reason) = self.service.write(Author::Node, vec![op]).await {
            warn!(name, %reason, "a run is not stored");
        }
    }
}

/// What names a step of a run: its place, how often it was reached, and which try it is.
fn key_of(path: &[u16], run: &Run) -> String {
    let path = path.iter().map(u16::to_string).collect::<Vec<_>>().join(".");
    format!("{path}.{}", run.course.turn())
}
