//! What starts an automation, and whether a run comes of it.

use device_adapters::schedule::Home;
use jiff::Timestamp;
use mesh_proto::{FieldName, Value};
use serde_json::Value as Json;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    super::{
        called::{Called, is_call},
        program::{Mode, Program},
        runs::{Run, State, clipped, free_place, run_field},
        sentry::{Firing, Heard, hear},
        world::View,
    },
    Engine, TICK,
    entry::MAX_STARTS,
};
use crate::service::ObjectView;

/// Starts of another automation in the same minute, from which on the two are taken to fight.
const MANY_STARTS: usize = MAX_STARTS / 2;
/// How many of those are named.
const NAMED: usize = 3;

impl Engine {
    /// Takes in an event.
    pub(super) fn hear(&mut self, object: &ObjectView) {
        let now = super::now(&self.clock);
        let Some((topic, _)) = object.id.name().rsplit_once(':') else { return };
        let field = object.fields.values().next();
        let data = field.map_or(Json::Null, |field| crate::json::from_value(&field.value));
        let at = field.and_then(|field| i64::try_from(field.at_ms).ok());
        let at = at.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
        let heard = Heard { id: object.id.name(), topic, data: &data, at };
        if let Some(called) = Called::read(heard) {
            return self.hear_called(called, heard, now);
        }
        for (name, entry) in &mut self.automations {
            if let Some(program) = entry.active() {
                entry.fire(hear(name, &program.triggers, heard), now);
            }
            entry.tell(topic);
        }
    }

    /// Takes in a start from outside.
    fn hear_called(&mut self, called: Called, heard: Heard<'_>, now: Timestamp) {
        let Some(entry) = self.automations.get_mut(called.automation()) else { return };
        let Some(program) = entry.active() else { return };
        let Some(firing) = called.firing(&program.triggers, heard) else { return };
        // Each board admits as many calls as that, and there may be many boards.
        if is_call(&firing) && !entry.takes_call() {
            return debug!(name = entry.object.name(), "its path is called too often: a call is passed over");
        }
        entry.fire([firing], now);
    }

    /// Looks at what has started an automation since.
    pub(super) fn look(&mut self, name: &str, home: Option<&Home>, now: Timestamp) {
        let (is_trusted, me) = (self.time.borrow().trusted, self.peers.me);
        let Some(entry) = self.automations.get_mut(name) else { return };
        let is_news = std::mem::take(&mut entry.is_news);
        // What a run waits for may also come with the time.
        entry.looks = is_news || entry.looked_at.is_none_or(|at| at.elapsed() >= TICK);
        if entry.looks {
            entry.looked_at = Some(Instant::now());
        }
        let Some(program) = entry.active() else { return };
        if is_news {
            let fired = entry.sentry.look(name, &program.triggers, &self.devices);
            entry.fire(fired, now);
        }
        let ripe = entry.sentry.ripe(now);
        entry.fire(ripe, now);
        if let Some(home) = home.filter(|_| is_trusted) {
            let fired = entry.sentry.look_at_clock(name, &program.triggers, home, now);
            entry.fire(fired, now);
        }
        entry.forget(me, now);
    }

    /// Begins a run for what has started the automation and nobody acted upon; answers whether there is more of it.
    pub(super) fn start(&mut self, name: &str, home: &Result<Home, String>, now: Timestamp) -> bool {
        let Some(entry) = self.automations.get_mut(name) else { return false };
        let Some(program) = entry.active() else { return false };
        let (firings, is_more) = entry.take_firings();
        for firing in firings {
            let view = View {
                devices: &self.devices,
                home: home.as_ref().map_err(Clone::clone),
                now,
                trigger: &firing.data,
            };
            let holds = view.all_hold(&program.conditions);
            self.begin(name, &program, &firing, holds, now);
        }
        is_more
    }

    /// A run for what started the automation, as its mode has it.
    fn begin(
        &mut self,
        name: &str,
        program: &Program,
        firing: &Firing,
        holds: Result<bool, String>,
        now: Timestamp,
    ) {
        let me = self.peers.me;
        // One of what came together may have been one too many.
        let Some(entry) = self.automations.get_mut(name).filter(|entry| entry.active().is_some()) else {
            return;
        };
        let mut run = Run::new(firing, entry.spec.hash, now);
        let timeless = (!self.time.borrow().trusted).then_some(&self.peers.living);
        let is_judged = holds.is_ok();
        match holds {
            Ok(true) => entry.admit(program.mode, entry.counted(me, timeless).len(), &mut run, now),
            Ok(false) => run.end(State::Refused, "a condition does not hold", now),
            Err(why) => run.end(State::Refused, &why, now),
        }
        // Whoever has a path is not to switch the automation off by that.
        if run.state.is_open() && !is_call(firing) && !entry.count_start(now) {
            return self.trip(name, &firing.why);
        }
        let is_alone = matches!(program.mode, Mode::Single | Mode::Restart);
        if run.state.is_open() && is_alone && timeless.is_some() {
            self.end_unattended(name, now);
        }
        let Some(entry) = self.automations.get_mut(name) else { return };
        let mut changed = Vec::new();
        if run.state == State::Running && program.mode == Mode::Restart {
            changed = entry.end_all("it was started again", now);
        }
        let Some(place) = free_place(&entry.runs(me), me, run.state) else {
            return debug!(name, "all its places are taken: what started it is passed over");
        };
        debug!(name, why = firing.why, state = ?run.state, "an automation was started");
        if entry.is_written(run.state) {
            changed.push(place);
            if !is_judged {
                warn!(name, why = firing.why, reason = run.end, "an automation was not started");
            }
        }
        entry.put(place, run);
        let object = entry.object.clone();
        for (node, place) in entry.outdated(&self.peers.living) {
            if let Some(field) = run_field(node, place) {
                drop(self.ledger.write(&object, field, None));
            }
        }
        for place in changed {
            drop(self.store(name, place));
        }
    }

    /// Ends the runs that nobody can go on with before the time is known: the automation was started again.
    fn end_unattended(&mut self, name: &str, now: Timestamp) {
        let Some(entry) = self.automations.get(name) else { return };
        for at in entry.unattended(self.peers.me, true, &self.peers.living) {
            let Some(place) = self.take(name, at, now) else { continue };
            if let Some(entry) = self.automations.get_mut(name) {
                entry.end(place, "it was started again before it could go on", now);
            }
            drop(self.store(name, place));
        }
    }

    /// It starts itself, or fights with another one: it is switched off until somebody looks at it.
    pub(super) fn trip(&mut self, name: &str, why: &str) {
        let others = self.automations.iter();
        let others = others.filter(|(other, entry)| *other != name && entry.wanted.len() >= MANY_STARTS);
        let others: Vec<&str> = others.map(|(other, _)| other.as_str()).collect();
        let cause = cause(&others);
        let why = clipped(why);
        let reason = format!(
            "it was started more than {MAX_STARTS} times within a minute, last by {why}: {cause}, then switch it on again"
        );
        let Some(entry) = self.automations.get_mut(name) else { return };
        warn!(name, reason, "an automation runs away, and is switched off");
        if let Ok(field) = FieldName::new("tripped") {
            drop(self.ledger.write(&entry.object, field, Some(Value::Text(reason.as_str().into()))));
        }
        entry.trip(reason);
    }
}

/// What to look at where an automation runs away and these others are started as often. It is stored: a field holds no hundred names.
fn cause(others: &[&str]) -> String {
    let (named, more) = others.split_at(others.len().min(NAMED));
    if named.is_empty() {
        return "see that it does not start itself".to_owned();
    }
    let more = if more.is_empty() { String::new() } else { format!(" or {} more", more.len()) };
    format!("see that it does not fight with `{}`{more}, which is started as often", named.join("`, `"))
}
