//! What is due is carried out, passed over, or put right.

use std::{collections::BTreeMap, time::Duration};

use device_adapters::schedule::Home;
use jiff::{SignedDuration, Timestamp};
use mesh_proto::{FieldName, ObjectId, ShortId, Value, kinds::Author};
use tokio::{
    task::{Id, JoinError},
    time::Instant,
};
use tracing::{debug, info, warn};

use super::{
    Automation,
    agenda::{self, Due, Moment, Standing, Step},
    record::{Record, State},
    run::Run,
    spec::{Parsed, Spec, run_field},
};
use crate::service::Op;

/// How long a node has won before it acts: by then every other one has seen the same nodes live, and what they did has come here.
pub(super) const SETTLE: Duration = Duration::from_secs(2);
/// How many schedules are acted on before the rest is heard again: after a jump of the clock all may be due.
const PER_TURN: usize = 16;
/// How long after a step failed it is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(5);
/// How long after a record was written it is written again, should it not have come to be.
const REMIND: Duration = Duration::from_secs(60);
/// How long until is looked again whether another node has done what it is to do.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// A schedule, and what this node knows beside.
pub(super) struct Entry {
    pub(super) object: ObjectId,
    pub(super) spec: Spec,
    /// What this node itself did last, until the object shows it.
    pub(super) own: Option<Record>,
    /// When that is written again, should the object not show it.
    pub(super) remind_at: Instant,
    /// Since when this node wins it, with the nodes that live now or fewer.
    pub(super) won_at: Option<Instant>,
    /// When its next step is looked for; at once when nobody knows.
    pub(super) look_at: Option<Timestamp>,
    /// Why nothing comes of it.
    pub(super) problem: Option<String>,
    pub(super) is_over: bool,
    /// The task that is at it.
    pub(super) running: Option<Id>,
}

impl Automation {
    /// Looks at what may be due; answers whether more of it waits.
    pub(super) async fn step_some(&mut self) -> bool {
        self.remind();
        if self.held().is_some() {
            return false;
        }
        let now = self.now();
        // The clock of this machine was set back, which is no step of the household's against it.
        if std::mem::replace(&mut self.stepped_at, now) > now {
            self.look_at_all();
        }
        let home = self.home.home();
        let due: Vec<String> = self
            .followed()
            .filter(|(_, entry)| entry.running.is_none() && entry.look_at.is_none_or(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        let mut acted = 0;
        for name in &due {
            if acted == PER_TURN {
                return true;
            }
            acted += usize::from(self.step(name, now, &home).await);
        }
        false
    }

    /// Takes the next step of a schedule; answers whether that was more than to wait.
    async fn step(&mut self, name: &str, now: Timestamp, home: &Result<Home, String>) -> bool {
        if !self.next_step(name, now, home).is_some_and(|step| step.acts()) {
            return false;
        }
        // What was recorded or changed a moment ago may still be on its way through the watch.
        let Some(object) = self.schedules.get(name).map(|entry| entry.object.clone()) else { return true };
        match self.service.get(object).await {
            Ok(Some(object)) if object.complete => {
                self.schedules
                    .get_mut(name)
                    .into_iter()
                    .for_each(|entry| entry.see(Spec::read(&object), self.peers.me));
            }
            Ok(_) => drop(self.schedules.remove(name)),
            Err(_) => return true,
        }
        match self.next_step(name, now, home) {
            Some(Step::Run(due)) => self.begin(name, due, State::Started, now),
            Some(Step::PassOver(due)) => self.begin(name, due, State::PassedOver, now),
            Some(Step::PutRight(nodes)) => self.put_right(name, &nodes, now).await,
            _ => {}
        }
        true
    }

    /// What comes next of a schedule, and when it is looked at again.
    fn next_step(&mut self, name: &str, now: Timestamp, home: &Result<Home, String>) -> Option<Step> {
        let entry = self.schedules.get_mut(name)?;
        if !entry.spec.text.enabled {
            entry.rest(None);
            return None;
        }
        let has_settled = entry.won_at.is_some_and(|at| at.elapsed() >= SETTLE);
        let (home_since, me, living) = (self.home.since, self.peers.me, &self.peers.living);
        let moment = |home| Moment { now, home, home_since, me, living, has_settled };
        let step = home.as_ref().map_err(Clone::clone).and_then(|home| entry.step(&moment(home)));
        entry.is_over = step == Ok(Step::Over);
        match step {
            Err(problem) => entry.rest(Some(problem)),
            Ok(step) => {
                entry.problem = None;
                entry.look_at = match &step {
                    Step::Over => Some(Timestamp::MAX),
                    Step::Wait(next) => Some(next.at),
                    Step::Theirs => now.checked_add(LOOK_AGAIN).ok(),
                    Step::Run(_) | Step::PassOver(_) | Step::PutRight(_) => None,
                };
                return Some(step);
            }
        }
        None
    }

    /// Carries an occurrence out, or records that it is passed over.
    fn begin(&mut self, name: &str, due: Due, state: State, now: Timestamp) {
        let Due { at, passed_over, under_way, again } = due;
        let record = Record { passed_over, under_way, again, ..Record::new(at, state, now) };
        if state == State::PassedOver {
            info!(schedule = name, at = %due.at, "is too late, and not made up for");
            self.counts.passed_over(&due);
        } else {
            debug!(schedule = name, at = %due.at, again = due.again, "carries out");
        }
        self.take_on(name, record);
    }

    /// Records it, and does it if that is not over.
    fn take_on(&mut self, name: &str, record: Record) {
        let Some(entry) = self.schedules.get_mut(name) else { return };
        let older = entry.spec.records.iter().filter(|(_, other)| other.at < record.at);
        let run = Run {
            hands: self.hands.clone(),
            clock: self.clock.clone(),
            counts: self.counts.clone(),
            object: entry.object.clone(),
            field: self.run.clone(),
            record: record.clone(),
            commands: entry.spec.text.commands.clone(),
            outdated: older.map(|(node, _)| *node).filter(|node| !self.peers.living.contains(node)).collect(),
        };
        (entry.own, entry.remind_at) = (Some(record), Instant::now() + REMIND);
        entry.running = Some(self.running.spawn(run.finish()).id());
    }

    pub(super) fn ended(&mut self, ended: Result<(Id, Record), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(broken) => broken.id(),
        };
        // A schedule that was deleted meanwhile, and perhaps made anew, has nothing to do with it.
        let entry = self.schedules.iter_mut().find(|(_, entry)| entry.running == Some(id));
        let Some((schedule, entry)) = entry else { return };
        let broken = || {
            let own = entry.own.clone().or_else(|| entry.spec.records.get(&self.peers.me).cloned())?;
            Some(Record {
                state: State::Failed,
                failed: vec!["it broke off: the log has more".to_owned()],
                ..own
            })
        };
        // Of one that broke off nothing is written yet.
        let remind_in = if ended.is_err() { Duration::ZERO } else { REMIND };
        let record = ended.map_or_else(|_| broken(), |(_, record)| Some(record));
        (entry.running, entry.look_at, entry.remind_at) = (None, None, Instant::now() + remind_in);
        let Some(record) = record else { return };
        let failed_before =
            entry.spec.records.get(&self.peers.me).is_some_and(|it| it.state == State::Failed);
        if record.state == State::Failed && !failed_before {
            warn!(schedule, at = %record.at, reasons = ?record.failed, "a schedule was not carried out");
        }
        entry.own = Some(record).filter(|record| entry.spec.records.get(&self.peers.me) != Some(record));
    }

    /// Writes once more what the store did not take: it is not to be done again after a restart, be that in a week.
    fn remind(&mut self) {
        let now = Instant::now();
        let lost = |entry: &Entry| {
            Some(entry.own.clone()?).filter(|_| entry.running.is_none() && entry.remind_at <= now)
        };
        let lost: Vec<_> =
            self.schedules.iter().filter_map(|(name, entry)| Some((name.clone(), lost(entry)?))).collect();
        lost.into_iter().for_each(|(name, record)| self.take_on(&name, record));
    }

    /// A clock that was far ahead wrote of what has not been yet.
    async fn put_right(&mut self, name: &str, nodes: &[ShortId], now: Timestamp) {
        let Some(entry) = self.schedules.get_mut(name) else { return };
        info!(schedule = name, "the time went back: what comes from now on counts");
        let fields = nodes.iter().filter_map(|node| run_field(*node));
        let mut ops: Vec<Op> = fields.map(|field| Op::Unset(entry.object.clone(), field)).collect();
        // Also what had been before is over: the record of it was written over.
        if let Ok(since) = FieldName::new("since") {
            ops.push(Op::Set(entry.object.clone(), since, Value::Int(now.as_millisecond())));
        }
        let written = self.service.write(Author::Node, ops).await;
        entry.own = None;
        entry.look_at = match written {
            Ok(()) => {
                entry.spec.records.retain(|node, _| !nodes.contains(node));
                entry.spec.since = now;
                None
            }
            Err(reason) => {
                warn!(schedule = name, %reason, "cannot be put right");
                now.checked_add(RETRY).ok()
            }
        };
    }
}

impl Entry {
    pub(super) fn new(object: ObjectId, spec: Spec, won_at: Option<Instant>) -> Self {
        Self {
            object,
            spec,
            own: None,
            remind_at: Instant::now(),
            won_at,
            look_at: None,
            problem: None,
            is_over: false,
            running: None,
        }
    }

    /// What its object shows now.
    pub(super) fn see(&mut self, spec: Spec, me: ShortId) {
        self.own.take_if(|own| spec.records.get(&me) == Some(own));
        (self.spec, self.look_at) = (spec, None);
    }

    /// What each node did last, this one as it knows itself.
    pub(super) fn records(&self, me: ShortId) -> BTreeMap<ShortId, Record> {
        let mut records = self.spec.records.clone();
        records.extend(self.own.clone().map(|own| (me, own)));
        records
    }

    pub(super) fn step(&self, moment: &Moment<'_>) -> Result<Step, String> {
        let parsed = self.spec.parsed.as_ref().map_err(Clone::clone)?;
        let records = self.records(moment.me);
        agenda::step(&self.standing(parsed, &records), moment).map_err(|rule| rule.to_string())
    }

    /// Whether it comes once and that has been.
    pub(super) fn is_spent(&self, me: ShortId) -> bool {
        let records = self.records(me);
        self.spec.parsed.as_ref().is_ok_and(|parsed| self.standing(parsed, &records).is_spent())
    }

    fn standing<'a>(&'a self, parsed: &'a Parsed, records: &'a BTreeMap<ShortId, Record>) -> Standing<'a> {
        Standing {
            object: self.object.as_str(),
            rule: &parsed.rule,
            missed: parsed.missed,
            since: self.spec.since,
            records,
        }
    }

    /// Nothing comes until something changes.
    pub(super) fn rest(&mut self, problem: Option<String>) {
        self.problem = problem;
        self.look_at = Some(Timestamp::MAX);
    }
}
