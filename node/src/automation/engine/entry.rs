//! An automation, as its object shows it, and what this node knows beside.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use mesh_proto::{FieldName, ObjectId, ShortId, Value};
use serde_json::{Value as Json, json};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::super::steps::SETTLE;
use super::super::{
    called,
    pace::Pace,
    program::{Mode, Program, ProgramText, kept},
    runs::{PLACES, Run, Runs, State, is_known, place_of},
    sentry::{Firing, Sentry},
    webhooks,
};
use crate::service::{FieldView, ObjectView};

/// Starts of one automation within [`GUARDED`]; one beyond is running away.
pub(super) const MAX_STARTS: usize = 30;
const GUARDED: SignedDuration = SignedDuration::from_secs(60);
/// How long after it something that nobody acted upon may still start an automation: long enough for another node to notice that the one
/// that was to act died.
const ON_TIME: Duration = Duration::from_secs(30);
/// What is heard so long after it came by way of a network that was cut: what others did about it may be on its way, too.
const LATE: Duration = Duration::from_secs(1);
/// How often what may come again and again is written, or logged.
const SELDOM: Duration = Duration::from_secs(60);
/// What started an automation and waits to be acted upon, at most; the oldest is passed over first.
const MAX_RECENT: usize = 256;
/// Of that how much is acted upon in one go.
const AT_ONCE: usize = 8;

/// An automation's object.
pub(super) struct Spec {
    pub(super) enabled: bool,
    /// Why it was switched off by itself.
    pub(super) tripped: Option<String>,
    /// As it is written.
    pub(super) text: Json,
    pub(super) program: Result<Arc<Program>, String>,
    /// What is stored of its path.
    pub(super) webhook: Option<[u8; 32]>,
    /// Of the program: a run follows the one that it began with.
    pub(super) hash: u64,
    pub(super) runs: BTreeMap<(ShortId, u8), Run>,
}

impl Spec {
    /// Reads it; what is written as it was before is not understood anew: an object changes with each step of its runs.
    pub(super) fn read(object: &ObjectView, before: Option<&Self>) -> Self {
        let value = |name: &str| {
            object.fields.iter().find(|(known, _)| known.as_str() == name).map(|(_, field)| &field.value)
        };
        let list = |name: &str| value(name).and_then(kept).unwrap_or_default();
        let text = ProgramText {
            triggers: list("triggers"),
            conditions: list("conditions"),
            actions: list("actions"),
            mode: value("mode").and_then(Value::as_text).unwrap_or_default().to_owned(),
            max: value("max").and_then(Value::as_int).and_then(|max| u8::try_from(max).ok()),
        };
        let written = json!({
            "triggers": text.triggers, "conditions": text.conditions, "actions": text.actions, "mode": text.mode,
            "max": text.max,
        });
        let (program, hash) = match before.filter(|before| before.text == written) {
            Some(before) => (before.program.clone(), before.hash),
            None => (text.parse().map(Arc::new).map_err(|fault| fault.to_string()), hash(&text)),
        };
        let run = |(name, field): (&FieldName, &FieldView)| {
            Some((place_of(name.as_str())?, Run::read(&field.value)?))
        };
        Self {
            enabled: value("enabled") != Some(&Value::Bool(false)),
            tripped: value("tripped").and_then(Value::as_text).map(str::to_owned),
            webhook: value("webhook").and_then(webhooks::read),
            text: written,
            program,
            hash,
            runs: object.fields.iter().filter_map(run).collect(),
        }
    }

    /// The program, unless nothing comes of it.
    pub(super) fn active(&self) -> Option<Arc<Program>> {
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
pub(super) struct Entry {
    pub(super) object: ObjectId,
    pub(super) spec: Spec,
    pub(super) sentry: Sentry,
    /// The runs that this node wrote, as it knows them itself: the object may show them later.
    pub(super) own: BTreeMap<u8, Run>,
    /// The ids of those with a step under way.
    pub(super) busy: BTreeSet<u64>,
    /// Those that wait, and for what.
    pub(super) waits: BTreeMap<u8, Wait>,
    /// Runs that nobody is at, and since when this node knows: their node may live, and not be heard itself yet.
    pub(super) left: BTreeMap<(ShortId, u8), Instant>,
    /// Whether there are more before it than are followed.
    pub(super) is_beyond: bool,
    /// Since when this node is the one to start it.
    pub(super) won_at: Option<Instant>,
    /// What started it of late and nobody is known to have acted upon.
    recent: VecDeque<Recent>,
    /// Whether something has changed in the home that was not looked at yet, and when it was looked at.
    pub(super) is_news: bool,
    pub(super) looked_at: Option<Instant>,
    /// Whether what runs wait for is looked at in this turn.
    pub(super) looks: bool,
    /// Why it was switched off by itself, until its object says so.
    tripped: Option<String>,
    /// When something wanted to start it, and when this node did, within the last minute.
    pub(super) wanted: VecDeque<Timestamp>,
    starts: VecDeque<Timestamp>,
    /// Its starts by calls of its path: as many as one board takes, over how many they came.
    calls: Pace,
    /// For the record of a start that was refused.
    refusals: Seldom,
    /// For the log: a run that failed, and why nothing comes of it.
    failures: Seldom,
    looks_for_faults: Seldom,
    fault: Option<String>,
}

/// What is done once a minute at most.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it may be done; then it counts as done.
    fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|at| at.elapsed() >= SELDOM);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) until: Timestamp,
    /// Whether it may be over before, by what is so in the home.
    pub(super) watches: bool,
}

/// What started the automation.
struct Recent {
    firing: Firing,
    /// Since when this node knows, and from when until when somebody may act upon it. The time of day may be set meanwhile.
    heard: Instant,
    from: Instant,
    until: Instant,
}

impl Entry {
    pub(super) fn new(object: ObjectId, spec: Spec, won_at: Option<Instant>) -> Self {
        Self {
            object,
            spec,
            sentry: Sentry::default(),
            own: BTreeMap::new(),
            busy: BTreeSet::new(),
            waits: BTreeMap::new(),
            left: BTreeMap::new(),
            is_beyond: false,
            won_at,
            recent: VecDeque::new(),
            is_news: true,
            looked_at: None,
            looks: true,
            tripped: None,
            wanted: VecDeque::new(),
            starts: VecDeque::new(),
            calls: webhooks::pace(),
            refusals: Seldom::default(),
            failures: Seldom::default(),
            looks_for_faults: Seldom::default(),
            fault: None,
        }
    }

    /// What its object shows now.
    pub(super) fn see(&mut self, spec: Spec) {
        let was_active = self.active().is_some();
        if self.spec.tripped.is_some() && spec.tripped.is_none() {
            self.starts.clear();
        }
        if spec.tripped.is_some() {
            self.tripped = None;
        }
        let is_changed = self.spec.hash != spec.hash;
        self.spec = spec;
        if is_changed || (!was_active && self.active().is_some()) {
            self.look_anew();
            self.looks_for_faults = Seldom::default();
        }
    }

    /// It is followed, or there are too many before it.
    pub(super) fn follow(&mut self, is_followed: bool) {
        let was_beyond = std::mem::replace(&mut self.is_beyond, !is_followed);
        if was_beyond && is_followed {
            self.look_anew();
        }
    }

    /// What was so before it was looked at starts nothing.
    fn look_anew(&mut self) {
        (self.sentry, self.is_news) = (Sentry::default(), true);
        self.recent.clear();
    }

    /// The program, unless nothing comes of it.
    pub(super) fn active(&self) -> Option<Arc<Program>> {
        self.spec.active().filter(|_| self.tripped.is_none() && !self.is_beyond)
    }

    /// Why it was switched off by itself.
    pub(super) fn tripped(&self) -> Option<&String> {
        self.tripped.as_ref().or(self.spec.tripped.as_ref())
    }

    /// Somebody has looked at it.
    pub(super) fn reset(&mut self) {
        self.tripped = None;
        self.starts.clear();
    }

    /// Takes a run into a place of this node.
    pub(super) fn put(&mut self, place: u8, run: Run) {
        self.waits.remove(&place);
        self.own.insert(place, run);
    }

    /// All runs, this node's as it knows them itself.
    pub(super) fn runs(&self, me: ShortId) -> Runs<'_> {
        let mut runs: Runs<'_> = self.spec.runs.iter().map(|(at, run)| (*at, run)).collect();
        runs.extend(self.own.iter().map(|(place, run)| ((me, *place), run)));
        runs
    }

    /// Takes in what starts it.
    pub(super) fn fire(&mut self, firings: impl IntoIterator<Item = Firing>, now: Timestamp) {
        for firing in firings {
            let age = Duration::try_from(now.duration_since(firing.at)).unwrap_or_default();
            let Some(left) = ON_TIME.checked_sub(age) else { continue };
            let heard = Instant::now();
            // Of calls there are few, and no fight comes of them.
            if !called::is_call(&firing) {
                push(&mut self.wanted, firing.at, MAX_STARTS);
            }
            let from = if age > LATE { heard + SETTLE } else { heard };
            push(&mut self.recent, Recent { firing, heard, from, until: heard + left }, MAX_RECENT);
        }
    }

    /// Lets go of what was acted upon, and of what is too old to be.
    pub(super) fn forget(&mut self, me: ShortId, now: Timestamp) {
        within_a_minute(&mut self.wanted, now);
        if self.recent.is_empty() {
            return;
        }
        let runs = self.runs(me);
        // A node keeps a few runs alone. Whoever has begun a later one has acted upon what came before, or with it, too.
        let latest = runs.iter().filter(|((node, _), _)| *node != me).map(|(_, run)| run.at);
        let latest = latest.filter(|at| *at <= now.as_millisecond()).max();
        let is_due = |Recent { firing, heard, until, .. }: &Recent| {
            let was_mine = self.won_at.is_some_and(|won_at| *heard >= won_at);
            let is_acted_upon =
                is_known(&runs, firing.id) || (!was_mine && latest >= Some(firing.at.as_millisecond()));
            Instant::now() <= *until && !is_acted_upon
        };
        let due: Vec<bool> = self.recent.iter().map(is_due).collect();
        let mut due = due.into_iter();
        self.recent.retain(|_| due.next().unwrap_or(false));
    }

    /// What this node is to begin a run for next, and whether there is more. Of before it won the others may have acted upon something
    /// that is not known here yet.
    pub(super) fn take_firings(&mut self) -> (Vec<Firing>, bool) {
        let Some(won_at) = self.won_at else { return (Vec::new(), false) };
        let has_settled = self.has_settled();
        let (mut ready, mut waiting): (VecDeque<Recent>, VecDeque<Recent>) = std::mem::take(&mut self.recent)
            .into_iter()
            .partition(|recent| (has_settled || recent.heard >= won_at) && Instant::now() >= recent.from);
        let later = ready.split_off(ready.len().min(AT_ONCE));
        let is_more = !later.is_empty();
        waiting.extend(later);
        self.recent = waiting;
        (ready.into_iter().map(|recent| recent.firing).collect(), is_more)
    }

    /// Whether this node has won for so long that every other one has seen the same nodes live, and what they did has come here.
    pub(super) fn has_settled(&self) -> bool {
        self.won_at.is_some_and(|at| at.elapsed() >= SETTLE)
    }

    /// How a run begins when so many others are open.
    pub(super) fn admit(&self, mode: Mode, open: usize, run: &mut Run, now: Timestamp) {
        match mode {
            Mode::Single if open > 0 => run.end(State::Refused, "it runs already", now),
            Mode::Queued(max) | Mode::Parallel(max) if open >= usize::from(max) => {
                run.end(State::Refused, &format!("{open} run or wait already"), now);
            }
            Mode::Queued(_) if open > 0 => run.state = State::Queued,
            _ => {}
        }
    }

    /// Records of nodes that do not live, beyond the latest few: nobody else writes over them.
    pub(super) fn outdated(&self, living: &BTreeSet<ShortId>) -> Vec<(ShortId, u8)> {
        let runs = self.spec.runs.iter();
        let mut over: Vec<_> = runs
            .filter(|((node, _), run)| !living.contains(node) && !run.state.is_open())
            .map(|(at, run)| (run.ended, *at))
            .collect();
        over.sort_unstable();
        over.truncate(over.len().saturating_sub(PLACES.into()));
        over.into_iter().map(|(_, at)| at).collect()
    }

    /// Whether a run that was just begun is written. Starts that are refused may be many, and wear the card for nothing: of those that come
    /// within a minute the first one is.
    pub(super) fn is_written(&mut self, state: State) -> bool {
        if state != State::Refused {
            return true;
        }
        self.refusals.is_due()
    }

    /// Whether one more call of its path may start it.
    pub(super) fn takes_call(&mut self) -> bool {
        self.calls.take().is_ok()
    }

    /// Logs that a run failed.
    pub(super) fn tell_failure(&mut self, reason: &str) {
        let name = self.object.name();
        if self.failures.is_due() {
            warn!(name, reason, "a run of an automation failed");
        } else {
            debug!(name, reason, "a run of an automation failed once more");
        }
    }

    /// Whether is looked again why nothing comes of it.
    pub(super) fn looks_for_fault(&mut self) -> bool {
        self.looks_for_faults.is_due()
    }

    /// Logs why nothing comes of it, if that is news.
    pub(super) fn tell_fault(&mut self, fault: Option<String>) {
        if let Some(reason) = fault.as_ref().filter(|_| self.fault != fault) {
            warn!(name = self.object.name(), reason, "an automation is not started");
        }
        self.fault = fault;
    }

    /// Counts a start, unless there were too many.
    pub(super) fn count_start(&mut self, now: Timestamp) -> bool {
        within_a_minute(&mut self.starts, now);
        let is_fine = self.starts.len() < MAX_STARTS;
        if is_fine {
            self.starts.push_back(now);
        }
        is_fine
    }

    /// It is switched off until somebody looks at it.
    pub(super) fn trip(&mut self, why: String) {
        self.tripped = Some(why);
        self.recent.clear();
    }
}

/// Adds one more; of too many the oldest goes.
fn push<T>(queue: &mut VecDeque<T>, one: T, most: usize) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(one);
}

fn within_a_minute(times: &mut VecDeque<Timestamp>, now: Timestamp) {
    // A clock that went back would keep them for ever.
    times.retain(|at| now.duration_since(*at).abs() <= GUARDED);
}
