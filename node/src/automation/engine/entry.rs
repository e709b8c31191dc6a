//! An automation, as its object shows it, and what this node knows beside.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use mesh_proto::{FieldName, ObjectId, ShortId, Value};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::super::steps::SETTLE;
use super::super::{
    program::{Mode, Program, ProgramText},
    runs::{Run, Runs, State, is_known, place_of},
    sentry::{Firing, Sentry},
    webhooks,
};
use crate::{
    devices::decode,
    service::{FieldView, ObjectView},
};

/// Starts of one automation within [`GUARDED`]; one beyond is running away.
pub(super) const MAX_STARTS: usize = 30;
const GUARDED: SignedDuration = SignedDuration::from_secs(60);
/// How long after it something that nobody acted upon may still start an automation: long enough for another node to notice that the one
/// that was to act died.
const ON_TIME: SignedDuration = SignedDuration::from_secs(30);

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
    runs: BTreeMap<(ShortId, u8), Run>,
}

impl Spec {
    pub(super) fn read(object: &ObjectView) -> Self {
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
        let run = |(name, field): (&FieldName, &FieldView)| {
            Some((place_of(name.as_str())?, Run::read(&field.value)?))
        };
        Self {
            enabled: value("enabled") != Some(&Value::Bool(false)),
            tripped: value("tripped").and_then(Value::as_text).map(str::to_owned),
            webhook: value("webhook").and_then(webhooks::read),
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
    /// Of them those with a step under way, and those that wait for a moment.
    pub(super) busy: BTreeSet<u8>,
    pub(super) waits: BTreeMap<u8, Timestamp>,
    /// Since when this node is the one to start it.
    pub(super) won_at: Option<Instant>,
    /// What started it of late and nobody is known to have acted upon, and since when this node knows.
    recent: Vec<(Instant, Firing)>,
    /// When something wanted to start it, and when this node did, within the last minute.
    pub(super) wanted: VecDeque<Timestamp>,
    starts: VecDeque<Timestamp>,
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
            won_at,
            recent: Vec::new(),
            wanted: VecDeque::new(),
            starts: VecDeque::new(),
        }
    }

    /// What its object shows now.
    pub(super) fn see(&mut self, spec: Spec) {
        if self.spec.hash != spec.hash {
            self.sentry = Sentry::default();
        }
        self.spec = spec;
    }

    /// All runs, this node's as it knows them itself.
    pub(super) fn runs(&self, me: ShortId) -> Runs<'_> {
        let mut runs: Runs<'_> = self.spec.runs.iter().map(|(at, run)| (*at, run)).collect();
        runs.extend(self.own.iter().map(|(place, run)| ((me, *place), run)));
        runs
    }

    /// Takes in what starts it.
    pub(super) fn fire(&mut self, firings: impl IntoIterator<Item = Firing>) {
        for firing in firings {
            self.wanted.push_back(firing.at);
            self.recent.push((Instant::now(), firing));
        }
    }

    /// Lets go of what was acted upon, and of what is too old to be.
    pub(super) fn forget(&mut self, me: ShortId, now: Timestamp) {
        let runs = self.runs(me);
        let is_due =
            |firing: &Firing| now.duration_since(firing.at) <= ON_TIME && !is_known(&runs, firing.id);
        let due: Vec<bool> = self.recent.iter().map(|(_, firing)| is_due(firing)).collect();
        let mut due = due.into_iter();
        self.recent.retain(|_| due.next().unwrap_or(false));
        within_a_minute(&mut self.wanted, now);
    }

    /// What this node is to begin a run for. Of before it won the others may have acted upon something that is not known here yet.
    pub(super) fn take_firings(&mut self) -> Vec<Firing> {
        let Some(won_at) = self.won_at else { return Vec::new() };
        let has_settled = self.has_settled();
        let (ready, waiting) =
            std::mem::take(&mut self.recent).into_iter().partition(|(at, _)| has_settled || *at >= won_at);
        self.recent = waiting;
        let ready: Vec<(Instant, Firing)> = ready;
        ready.into_iter().map(|(_, firing)| firing).collect()
    }

    /// Whether this node has won for so long that every other one has seen the same nodes live, and what they did has come here.
    pub(super) fn has_settled(&self) -> bool {
        self.won_at.is_some_and(|at| at.elapsed() >= SETTLE)
    }

    /// How a run begins when others may be open.
    pub(super) fn admit(&self, me: ShortId, mode: Mode, run: &mut Run, now: Timestamp) {
        let open = self.runs(me).values().filter(|run| run.state.is_open()).count();
        match mode {
            Mode::Single if open > 0 => run.end(State::Refused, "it runs already", now),
            Mode::Queued(max) | Mode::Parallel(max) if open >= usize::from(max) => {
                run.end(State::Refused, &format!("{open} run or wait already"), now);
            }
            Mode::Queued(_) if open > 0 => run.state = State::Queued,
            _ => {}
        }
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
        self.spec.tripped = Some(why);
        self.starts.clear();
        self.recent.clear();
    }
}

fn within_a_minute(times: &mut VecDeque<Timestamp>, now: Timestamp) {
    // A clock that went back would keep them for ever.
    times.retain(|at| now.duration_since(*at).abs() <= GUARDED);
}
