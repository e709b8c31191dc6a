//! What is due is carried out, passed over, or put right.

use std::collections::BTreeMap;

use device_adapters::schedule::Home;
use jiff::{SignedDuration, Timestamp};
use mesh_proto::{FieldName, ObjectId, ShortId, Value, kinds::Author};
use tokio::task::{Id, JoinError};
use tracing::{debug, info, warn};

use super::{
    Automation,
    agenda::{self, Due, Moment, Standing, Step},
    record::{Record, State},
    spec::{Spec, run_field},
};
use crate::service::{Op, Service};

/// How long after a step failed it is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(5);
/// How long until is looked again whether another node has done what it is to do.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// A schedule, and what this node knows beside.
pub(super) struct Entry {
    pub(super) object: ObjectId,
    pub(super) spec: Spec,
    /// What this node itself recorded last: its object may show that later.
    pub(super) own: Option<Record>,
    /// When its next step is looked for; at once when nobody knows.
    pub(super) look_at: Option<Timestamp>,
    /// Why nothing comes of it.
    pub(super) problem: Option<String>,
    pub(super) is_over: bool,
    /// The task that carries an occurrence out.
    pub(super) running: Option<Id>,
}

/// What a run of an occurrence ended with.
pub(super) struct Ended {
    schedule: String,
    record: Record,
}

impl Automation {
    pub(super) async fn step_all(&mut self) {
        if self.held().is_some() {
            return;
        }
        let now = self.now();
        // The clock of this machine was set back, which is no step of the household's against it.
        if std::mem::replace(&mut self.stepped_at, now) > now {
            self.look_at_all();
        }
        let home = self.home.home();
        let due: Vec<String> = self
            .schedules
            .iter()
            .filter(|(_, entry)| entry.running.is_none() && entry.look_at.is_none_or(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.step(&name, now, &home).await;
        }
    }

    async fn step(&mut self, name: &str, now: Timestamp, home: &Result<Home, String>) {
        let Some(entry) = self.schedules.get_mut(name) else { return };
        let moment = home.as_ref().map(|home| Moment { now, home, me: self.me, living: &self.living });
        let step = match moment {
            _ if !entry.spec.text.enabled => return entry.rest(None),
            Ok(moment) => entry.step(&moment),
            Err(missing) => Err(missing.clone()),
        };
        entry.is_over = step == Ok(Step::Over);
        match step {
            Err(problem) => entry.rest(Some(problem)),
            Ok(Step::Over) => entry.rest(None),
            Ok(Step::Wait(next)) => {
                entry.problem = None;
                entry.look_at = Some(next.at);
            }
            Ok(Step::Theirs) => {
                entry.problem = None;
                entry.look_at = now.checked_add(LOOK_AGAIN).ok();
            }
            Ok(Step::Run(due)) => self.begin(name, due, now),
            Ok(Step::PassOver(due)) => self.pass_over(name, due, now).await,
            Ok(Step::PutRight(nodes)) => self.put_right(name, &nodes, now).await,
        }
    }

    /// Carries an occurrence out, in a task of its own.
    fn begin(&mut self, name: &str, due: Due, now: Timestamp) {
        let Some(entry) = self.schedules.get_mut(name) else { return };
        let record = Record {
            passed_over: due.passed_over,
            again: due.again,
            ..Record::new(due.at, State::Started, now)
        };
        entry.own = Some(record.clone());
        debug!(schedule = name, at = %due.at, again = due.again, "carries out");
        let (hands, clock, run) = (self.hands.clone(), self.clock.clone(), self.run.clone());
        let (object, commands) = (entry.object.clone(), entry.spec.text.commands.clone());
        let task = self.running.spawn(async move {
            let service = &hands.service;
            // Where the disk fails the home goes on: what comes twice is told by no record then.
            note(service, &object, &run, &record).await;
            let failed = hands.carry_out(object.as_str(), record.at, &commands).await;
            let ended =
                i64::try_from(clock.now_ms()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
            let state = if failed.is_empty() { State::Done } else { State::Failed };
            let record = Record { state, ended, failed, ..record };
            // One that was deleted meanwhile would come back as a heap of records.
            if service.get(object.clone()).await.is_ok_and(|known| known.is_some_and(|known| known.complete))
            {
                note(service, &object, &run, &record).await;
            }
            Ended { schedule: object.name().to_owned(), record }
        });
        entry.running = Some(task.id());
    }

    pub(super) async fn ended(&mut self, ended: Result<Ended, JoinError>) {
        let Ended { schedule, record } = match ended {
            Ok(ended) => ended,
            Err(error) => match self.broke_off(error.id()).await {
                Some(ended) => ended,
                None => return,
            },
        };
        self.counts.ended(&record);
        let Some(entry) = self.schedules.get_mut(&schedule) else { return };
        let failed_before =
            entry.spec.records.get(&self.me).is_some_and(|before| before.state == State::Failed);
        if record.state == State::Failed && !failed_before {
            warn!(schedule, at = %record.at, reasons = ?record.failed, "a schedule was not carried out");
        }
        (entry.running, entry.look_at, entry.own) = (None, None, Some(record));
    }

    /// A task that panicked is not begun again: it would again.
    async fn broke_off(&self, task: Id) -> Option<Ended> {
        let (name, entry) = self.schedules.iter().find(|(_, entry)| entry.running == Some(task))?;
        let failed = vec!["it broke off: the log has more".to_owned()];
        let record = Record { state: State::Failed, failed, ..entry.own.clone()? };
        note(&self.service, &entry.object, &self.run, &record).await;
        Some(Ended { schedule: name.clone(), record })
    }

    async fn pass_over(&mut self, name: &str, due: Due, now: Timestamp) {
        let record = Record {
            passed_over: due.passed_over,
            again: due.again,
            ..Record::new(due.at, State::PassedOver, now)
        };
        info!(schedule = name, at = %due.at, "was missed, and is not made up for");
        self.counts.passed_over(&due);
        if let Some(entry) = self.schedules.get_mut(name) {
            entry.own = Some(record.clone());
            note(&self.service, &entry.object, &self.run, &record).await;
            entry.look_at = None;
        }
    }

    /// A clock that was far ahead wrote of what has not been yet.
    async fn put_right(&mut self, name: &str, nodes: &[ShortId], now: Timestamp) {
        let Some(entry) = self.schedules.get_mut(name) else { return };
        info!(schedule = name, "the time went back: what comes from now on counts");
        let fields = nodes.iter().filter_map(|node| run_field(*node));
        let mut ops: Vec<Op> = fields.map(|field| Op::Unset(entry.object.clone(), field)).collect();
        if let (true, Ok(since)) = (entry.spec.since > now, FieldName::new("since")) {
            ops.push(Op::Set(entry.object.clone(), since, Value::Int(now.as_millisecond())));
        }
        let written = self.service.write(Author::Node, ops).await;
        entry.own = None;
        entry.look_at = match written {
            Ok(()) => {
                entry.spec.records.retain(|node, _| !nodes.contains(node));
                entry.spec.since = entry.spec.since.min(now);
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
    /// What each node did last, this one as it knows itself.
    pub(super) fn records(&self, me: ShortId) -> BTreeMap<ShortId, Record> {
        let mut records = self.spec.records.clone();
        records.extend(self.own.clone().map(|own| (me, own)));
        records
    }

    fn step(&self, moment: &Moment<'_>) -> Result<Step, String> {
        let parsed = self.spec.parsed.as_ref().map_err(Clone::clone)?;
        let standing = Standing {
            object: self.object.as_str(),
            rule: &parsed.rule,
            missed: parsed.missed,
            since: self.spec.since,
            records: &self.records(moment.me),
        };
        agenda::step(&standing, moment).map_err(|rule| rule.to_string())
    }

    /// Nothing comes until something changes.
    fn rest(&mut self, problem: Option<String>) {
        self.problem = problem;
        self.look_at = Some(Timestamp::MAX);
    }
}

/// Records what this node did, flushed.
async fn note(service: &Service, object: &ObjectId, run: &FieldName, record: &Record) {
    let op = Op::Set(object.clone(), run.clone(), record.to_value());
    if let Err(reason) = service.write(Author::Node, vec![op]).await {
        warn!(%object, %reason, "what was done is not recorded: after a restart it may be done again");
    }
}
