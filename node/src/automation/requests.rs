//! What clients ask: to see schedules and when they come next, to change them, and to say where the home is.

use device_adapters::schedule::{Home, Occurrence, Rule, Why};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use mesh_proto::{FieldName, ObjectId, ShortId, Value, kinds::Author};

use super::{
    Automation, HOME, MAX_SCHEDULES, hosts,
    record::{Record, State},
    spec::{HomeText, ScheduleText, fields},
    steps::Entry,
};
use crate::{
    api::ports::{
        PortError, Reply,
        schedules::{HomeChange, HomeView, LastView, NextView, ScheduleView, SchedulesRequest},
    },
    service::Op,
};

/// Occurrences to come that are shown.
const SHOWN: usize = 5;
/// What comes more often wears the disk.
const OFTEN: SignedDuration = SignedDuration::from_mins(1);
/// What is said of it then.
const TOO_OFTEN: &str = "it comes more often than each minute, and each time is written to the disk twice: docs/time.md says how much that is";
/// Longest name of a schedule, in bytes.
const MAX_NAME: usize = 64;

impl Automation {
    pub(super) fn request(&mut self, request: SchedulesRequest) {
        match request {
            SchedulesRequest::List(reply) => {
                let seen: Vec<Glance> = self
                    .schedules
                    .iter()
                    .enumerate()
                    .map(|(index, (name, entry))| self.glance(name, entry, index < MAX_SCHEDULES))
                    .collect();
                answer(reply, || seen.into_iter().map(Glance::whole).collect());
            }
            SchedulesRequest::Get(name, reply) => {
                let seen = self.schedules.get(&name).map(|entry| {
                    let is_followed = self.followed().any(|(followed, _)| *followed == name);
                    self.glance(&name, entry, is_followed)
                });
                answer(reply, || seen.map(Glance::whole));
            }
            SchedulesRequest::Put(name, text, reply) => self.write_for(self.put_ops(&name, &text), reply),
            SchedulesRequest::Enable(name, enabled, reply) => {
                self.write_for(self.enable_ops(&name, enabled), reply)
            }
            SchedulesRequest::Remove(name, reply) => {
                self.write_for(self.entry(&name).map(|entry| vec![Op::Delete(entry.object.clone())]), reply);
            }
            SchedulesRequest::Home(reply) => {
                let HomeText { zone, place, hosts, .. } = self.home.clone();
                let (latitude, longitude) = place.unzip();
                let _ = reply.send(Ok(HomeView {
                    zone: Some(zone).filter(|zone| !zone.is_empty()),
                    latitude,
                    longitude,
                    allowed_http: hosts.iter().map(ToString::to_string).collect(),
                }));
            }
            SchedulesRequest::SetHome(change, reply) => self.write_for(self.home_ops(&change), reply),
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry, PortError> {
        self.schedules.get(name).ok_or_else(|| {
            let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
            PortError::NotFound(format!("schedule `{name}`"))
        })
    }

    /// The writes that make a schedule, when it can ever come. The first one finds the home in the time zone of this board, unless
    /// somebody has said where it is.
    fn put_ops(&self, name: &str, text: &ScheduleText) -> Result<Vec<Op>, PortError> {
        let object = named("schedule", name)?;
        if self.schedules.len() >= MAX_SCHEDULES && !self.schedules.contains_key(name) {
            let detail = format!("there are {MAX_SCHEDULES} schedules already");
            return Err(PortError::Conflict {
                detail,
                fix: "remove one that is over: hearth schedule list".to_owned(),
            });
        }
        let parsed =
            text.parse().map_err(|rule| invalid(rule, "docs/time.md tells how a time is written"))?;
        let now = self.now();
        let mut home = self.home.clone();
        let mut ops = Vec::new();
        if home.zone.is_empty() && !self.peers.has_heard() {
            let detail = "nobody has said where the home is, as far as this node has heard by now";
            return Err(invalid(
                detail,
                "say it: hearth home set --zone Europe/Berlin; or try again in ten seconds",
            ));
        }
        if home.zone.is_empty()
            && let Some(zone) = TimeZone::system().iana_name()
        {
            zone.clone_into(&mut home.zone);
            home.since = now;
            ops.extend(home_fields(&home));
        }
        let fix = "`hearth home set` says where the home is; docs/time.md tells how a time is written";
        let known = home.home().map_err(|rule| invalid(rule, fix))?;
        parsed.rule.check(now, &known).map_err(|rule| invalid(rule.to_string(), fix))?;
        ops.extend(set(&object, fields(text, now)));
        Ok(ops)
    }

    fn enable_ops(&self, name: &str, enabled: bool) -> Result<Vec<Op>, PortError> {
        let entry = self.entry(name)?;
        if entry.spec.text.enabled == enabled {
            return Ok(Vec::new());
        }
        let since = Value::Int(self.now().as_millisecond());
        Ok(set(&entry.object, [("enabled", Value::Bool(enabled)), ("since", since)]))
    }

    fn home_ops(&self, change: &HomeChange) -> Result<Vec<Op>, PortError> {
        let object = named("home", HOME)?;
        let mut ops = hosts::change(&object, &self.home.hosts, &change.allow_http, &change.deny_http)?;
        let mut home = change.apply(&self.home);
        let is_said = change.zone.is_some() || change.place.is_some();
        if is_said && (home != self.home || home.zone.is_empty()) {
            home.since = self.now();
            home.home().map_err(|rule| {
                invalid(rule, "such as: hearth home set --zone Europe/Berlin --place 52.52,13.40")
            })?;
            ops.extend(home_fields(&home));
        }
        Ok(ops)
    }

    fn write_for(&self, ops: Result<Vec<Op>, PortError>, reply: Reply<()>) {
        let ops = match ops {
            Ok(ops) => ops,
            // Whoever asked may be gone.
            Err(refused) => return drop(reply.send(Err(refused))),
        };
        let service = self.service.clone();
        tokio::spawn(async move {
            let written = if ops.is_empty() { Ok(()) } else { service.write(Author::Node, ops).await };
            drop(reply.send(written.map_err(PortError::from)));
        });
    }

    fn glance(&self, name: &str, entry: &Entry, is_followed: bool) -> Glance {
        let text = &entry.spec.text;
        let home = self.home.home().ok();
        let (state, reason) = if is_followed { self.state(entry) } else { ("invalid", Some(too_many())) };
        let parsed = entry.spec.parsed.as_ref().ok();
        let comes = is_followed && text.enabled && !entry.is_spent(self.peers.me);
        let rule = parsed.map(|parsed| parsed.rule.clone()).filter(|_| comes);
        let view = ScheduleView {
            name: name.to_owned(),
            when: text.when.clone(),
            only: text.only.clone(),
            except: text.except.clone(),
            missed: parsed.map_or_else(|| text.missed.clone(), |parsed| parsed.missed.to_string()),
            commands: text.commands.clone(),
            enabled: text.enabled,
            state,
            reason,
            next: Vec::new(),
            note: None,
            last: self.last(entry, home.as_ref()),
            by: self.peers.winner(&entry.object).map(|node| self.peers.call(node)),
        };
        Glance { view, comes: rule.zip(home), now: self.now() }
    }

    fn state(&self, entry: &Entry) -> (&'static str, Option<String>) {
        let problem = entry.spec.parsed.as_ref().err().or(entry.problem.as_ref());
        match (entry.spec.text.enabled, problem, self.held()) {
            (false, ..) => ("off", None),
            (true, Some(problem), _) => ("invalid", Some(problem.clone())),
            (true, None, Some(reason)) => ("held", Some(reason.to_owned())),
            _ if entry.running.is_some() => ("running", None),
            _ if entry.is_over => ("over", Some("it does not come any more".to_owned())),
            _ => ("waiting", None),
        }
    }

    /// What is recorded of the latest occurrence, in the order in which the nodes began.
    fn last(&self, entry: &Entry, home: Option<&Home>) -> Vec<LastView> {
        let records = entry.records(self.peers.me);
        let latest = records.values().map(|record| record.at).max();
        let mut last: Vec<_> = records.iter().filter(|(_, record)| Some(record.at) == latest).collect();
        last.sort_by_key(|(_, record)| record.began);
        last.into_iter().map(|(node, record)| self.last_view(*node, record, home)).collect()
    }

    fn last_view(&self, node: ShortId, record: &Record, home: Option<&Home>) -> LastView {
        LastView {
            at: shown(record.at),
            local: local(record.at, home),
            node: self.peers.call(node),
            state: match record.state {
                State::Started => "started",
                State::Done => "done",
                State::Failed => "failed",
                State::PassedOver => "passed_over",
                State::Other => "other",
            },
            began: shown(record.began),
            ended: record.ended.map(shown),
            passed_over: record.passed_over,
            under_way: record.under_way,
            again: record.again,
            failed: record.failed.clone(),
        }
    }
}

/// A schedule as it is now, without when it comes next: of hundreds, by the sun, that takes long to work out.
struct Glance {
    view: ScheduleView,
    /// By what it comes, if it does.
    comes: Option<(Rule, Home)>,
    now: Timestamp,
}

impl Glance {
    fn whole(self) -> ScheduleView {
        let Some((rule, home)) = self.comes else { return self.view };
        let following = |after: Timestamp| rule.next(after, &home).ok().flatten();
        let next: Vec<Occurrence> =
            std::iter::successors(following(self.now), |last| following(last.at)).take(SHOWN).collect();
        let is_often =
            next.iter().zip(next.iter().skip(1)).any(|(one, next)| next.at.duration_since(one.at) < OFTEN);
        let view = |occurrence: &Occurrence| NextView {
            at: shown(occurrence.at),
            local: local(occurrence.at, Some(&home)),
            why: why(occurrence, &home),
        };
        let note = is_often.then(|| TOO_OFTEN.to_owned());
        ScheduleView { next: next.iter().map(view).collect(), note, ..self.view }
    }
}

/// Answers from a thread of its own: the task has its schedules to see to.
fn answer<T: Send + 'static>(reply: Reply<T>, view: impl FnOnce() -> T + Send + 'static) {
    drop(tokio::task::spawn_blocking(move || drop(reply.send(Ok(view()))))); // whoever asked is gone
}

fn too_many() -> String {
    format!(
        "there are more than {MAX_SCHEDULES} schedules, and those that come first by their names are followed: remove one"
    )
}

/// Why an occurrence comes when it does; the sun by the clock of the home.
fn why(occurrence: &Occurrence, home: &Home) -> String {
    match &occurrence.why {
        Why::Sun { event, at, offset } if !offset.is_zero() => {
            let side = if offset.is_negative() { "before" } else { "after" };
            let at = at.to_zoned(home.zone.clone()).strftime("%H:%M:%S");
            format!("{:#} {side} {event} at {at}", offset.abs())
        }
        why => why.to_string(),
    }
}

fn shown(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// The moment by the clock of the home, with its offset.
fn local(at: Timestamp, home: Option<&Home>) -> String {
    let zone = home.map_or(TimeZone::UTC, |home| home.zone.clone());
    at.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// The object of a schedule or scene, by a name that can be typed.
pub(super) fn named(kind: &str, name: &str) -> Result<ObjectId, PortError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let fits = (1..=MAX_NAME).contains(&name.len()) && name.chars().all(allowed);
    ObjectId::new(&format!("{kind}/{name}")).ok().filter(|_| fits).ok_or_else(|| {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        invalid(format!("`{shown}` is no name of a {kind}"), "1 to 64 of a-z, 0-9, - and _")
    })
}

pub(super) fn home_fields(home: &HomeText) -> Vec<Op> {
    let Ok(object) = ObjectId::new(&format!("home/{HOME}")) else { return Vec::new() };
    let mut fields = vec![
        ("zone", Value::Text(home.zone.as_str().into())),
        ("since", Value::Int(home.since.as_millisecond())),
    ];
    if let Some((latitude, longitude)) = home.place {
        fields.extend([("latitude", Value::Float(latitude)), ("longitude", Value::Float(longitude))]);
    }
    set(&object, fields)
}

pub(super) fn set(object: &ObjectId, fields: impl IntoIterator<Item = (&'static str, Value)>) -> Vec<Op> {
    let op = |(name, value)| Some(Op::Set(object.clone(), FieldName::new(name).ok()?, value));
    fields.into_iter().filter_map(op).collect()
}

fn invalid(detail: impl Into<String>, fix: &str) -> PortError {
    PortError::Invalid { detail: detail.into(), fix: fix.to_owned() }
}
