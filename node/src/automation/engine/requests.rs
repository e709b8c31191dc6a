//! What clients ask of the automations.

use std::sync::Arc;

use jiff::Timestamp;
use mesh_proto::{FieldName, ObjectId, Value, error::ValueError, kinds::Author, value::MAX_VALUE_BYTES};
use serde_json::{Map, Value as Json, json};
use tokio::time::Instant;

use super::{
    super::{
        NO_TIME, Rehearsal,
        breaker::Circuit,
        called::{self, Called},
        program::{Program, ProgramText, Trigger, keep},
        rehearsal::{missing, rehearse},
        requests::named,
        runs::{Run, Runs, open_runs},
        sentry,
        world::View,
    },
    Engine, Entry, MAX_AUTOMATIONS, now,
};
use crate::{
    api::ports::{
        PortError, Reply,
        automations::{AutomationView, AutomationsRequest, CircuitView, LineView, RunView},
    },
    service::{Change, Op, ServiceError},
};

/// What was written for a client, as it was read back.
pub(super) struct Written {
    outcome: Result<Change, ServiceError>,
    reply: Reply<()>,
    /// How many changes the watch had shown before that.
    shown: u64,
}

impl Engine {
    pub(super) fn request(&mut self, request: AutomationsRequest) {
        match request {
            AutomationsRequest::List(reply) => {
                let views = self.automations.iter().map(|(name, entry)| self.view(name, entry)).collect();
                let _ = reply.send(Ok(views)); // whoever asked is gone
            }
            AutomationsRequest::Get(name, reply) => {
                let view = self.automations.get(&name).map(|entry| self.view(&name, entry));
                let _ = reply.send(Ok(view)); // whoever asked is gone
            }
            AutomationsRequest::Circuits(reply) => {
                let views = self.circuits.borrow().iter().map(circuit_view).collect();
                let _ = reply.send(Ok(views)); // whoever asked is gone
            }
            AutomationsRequest::Put(name, program, reply) => {
                self.reset(&name);
                self.write_for(self.put_ops(&name, program), reply);
            }
            AutomationsRequest::Enable(name, enabled, reply) => {
                self.reset(&name);
                self.write_for(self.enable_ops(&name, enabled), reply);
            }
            AutomationsRequest::Remove(name, reply) => {
                self.write_for(self.entry(&name).map(|entry| vec![Op::Delete(entry.object.clone())]), reply);
            }
            AutomationsRequest::Rehearse(name, reply) => self.rehearse(&name, reply),
            AutomationsRequest::Start(name, who, reply) => self.start_by_hand(&name, who, reply),
            AutomationsRequest::Webhook(name, reply) => self.make_webhook(&name, reply),
            AutomationsRequest::RevokeWebhook(name, reply) => self.write_for(self.revoke_ops(&name), reply),
        }
    }

    /// Somebody has looked at it.
    fn reset(&mut self, name: &str) {
        let Some(entry) = self.automations.get_mut(name) else { return };
        entry.reset();
        // That it ran away may not have been stored yet, and would switch it off again.
        self.ledger.forget(|object, field| *object == entry.object && field.as_str() == "tripped");
    }

    pub(super) fn entry(&self, name: &str) -> Result<&Entry, PortError> {
        self.automations.get(name).ok_or_else(|| {
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            PortError::NotFound(format!("automation `{name}`"))
        })
    }

    /// One that is not understood is stored all the same, off by that: what somebody wrote is not lost.
    fn put_ops(&self, name: &str, mut program: Map<String, Json>) -> Result<Vec<Op>, PortError> {
        let object = named("automation", name)?;
        if self.automations.len() >= MAX_AUTOMATIONS && !self.automations.contains_key(name) {
            let detail = format!("there are {MAX_AUTOMATIONS} automations already");
            let fix = "remove one that is not needed: hearth automation list".to_owned();
            return Err(PortError::Conflict { detail, fix });
        }
        let enabled = program.remove("enabled").is_none_or(|enabled| enabled != Json::Bool(false));
        let text: ProgramText =
            serde_json::from_value(Json::Object(program)).map_err(|rule| PortError::Invalid {
                detail: format!("the automation is not understood: {rule}"),
                fix: "docs/automation.md has the forms: `triggers` and `actions` are lists".to_owned(),
            })?;
        let mut fields = vec![
            ("triggers", fitting("triggers", &text.triggers)?),
            ("conditions", fitting("conditions", &text.conditions)?),
            ("actions", fitting("actions", &text.actions)?),
            ("mode", Value::Text(text.mode.as_str().into())),
            ("enabled", Value::Bool(enabled)),
        ];
        fields.extend(text.max.map(|max| ("max", Value::Int(max.into()))));
        let mut ops = set(&object, fields);
        ops.extend(unset(&object, "tripped"));
        if text.max.is_none() {
            ops.extend(unset(&object, "max"));
        }
        Ok(ops)
    }

    fn enable_ops(&self, name: &str, enabled: bool) -> Result<Vec<Op>, PortError> {
        let entry = self.entry(name)?;
        let mut ops = set(&entry.object, vec![("enabled", Value::Bool(enabled))]);
        ops.extend(unset(&entry.object, "tripped").filter(|_| enabled));
        Ok(ops)
    }

    /// One that turns in circles takes a while, in which the rest goes on.
    fn rehearse(&self, name: &str, reply: Reply<Rehearsal>) {
        let program = self
            .entry(name)
            .and_then(|entry| entry.spec.program.as_ref().map(Arc::clone).map_err(|fault| invalid(fault)));
        let program = match program {
            Ok(program) => program,
            Err(refused) => return drop(reply.send(Err(refused))), // whoever asked may be gone
        };
        let (home, now, devices) = (self.home(), now(&self.clock), Arc::clone(&self.devices));
        let hands = self.deeds.hands.clone();
        tokio::spawn(async move {
            let missing = missing(&program, &hands).await;
            let rehearsal = move || {
                let (home, trigger) = (home.as_ref().map_err(Clone::clone), json!({"kind": "test"}));
                let view = View { devices: &devices, home, now, trigger: &trigger };
                drop(reply.send(Ok(rehearse(&program, &view, &missing, now)))); // whoever asked may be gone
            };
            drop(tokio::task::spawn_blocking(rehearsal).await);
        });
    }

    /// Every node is told that it starts, and whichever is to start it does; answered when that is told.
    fn start_by_hand(&self, name: &str, who: String, reply: Reply<()>) {
        if let Err(refused) = self.can_start(name) {
            return drop(reply.send(Err(refused))); // whoever asked may be gone
        }
        let (events, called) = (self.deeds.events.clone(), Called::by_hand(name, who));
        tokio::spawn(async move {
            let told = events.tell(called::TOPIC, called.to_data()).await;
            drop(reply.send(told.map(drop)));
        });
    }

    fn can_start(&self, name: &str) -> Result<(), PortError> {
        let entry = self.entry(name)?;
        entry.spec.program.as_ref().map_err(|fault| invalid(fault))?;
        if entry.active().is_none() {
            if entry.is_beyond {
                return Err(PortError::Conflict {
                    detail: beyond(),
                    fix: "hearth automation remove another one".to_owned(),
                });
            }
            let detail = entry.tripped().cloned().unwrap_or_else(|| "it is switched off".to_owned());
            return Err(PortError::Conflict { detail, fix: format!("hearth automation enable {name}") });
        }
        Ok(())
    }

    /// Whoever asks when that is answered finds what was written.
    pub(super) fn write_for(&mut self, ops: Result<Vec<Op>, PortError>, reply: Reply<()>) {
        let ops = match ops {
            Ok(ops) => ops,
            Err(refused) => return drop(reply.send(Err(refused))), // whoever asked may be gone
        };
        let Some(Op::Set(id, ..) | Op::Unset(id, _) | Op::Delete(id)) = ops.first().cloned() else { return };
        self.write_and_read(id, ops, reply);
    }

    fn write_and_read(&mut self, id: ObjectId, ops: Vec<Op>, reply: Reply<()>) {
        let (service, shown) = (self.service.clone(), self.shown);
        self.writes.spawn(async move {
            let written = async {
                if !ops.is_empty() {
                    service.write(Author::Node, ops).await?;
                }
                service.get(id.clone()).await.map(|object| Change { id, object })
            };
            Written { outcome: written.await, reply, shown }
        });
    }

    pub(super) fn written(&mut self, Written { outcome, reply, shown }: Written) {
        match outcome {
            // It may be older than what the watch has shown since, and the watch would not show that again.
            Ok(Change { id, .. }) if self.shown_last.get(&id).is_some_and(|last| *last > shown) => {
                return self.write_and_read(id, Vec::new(), reply);
            }
            Ok(change) => {
                self.see(change, true);
                self.show_webhooks();
                let _ = reply.send(Ok(())); // whoever asked is gone
            }
            Err(refused) => drop(reply.send(Err(refused.into()))), // whoever asked may be gone
        }
        if self.writes.is_empty() {
            self.shown_last.clear();
        }
    }

    fn view(&self, name: &str, entry: &Entry) -> AutomationView {
        let runs = entry.runs(self.peers.me);
        let (state, reason) = self.state(entry, &runs);
        let mut latest: Vec<_> = runs.iter().collect();
        latest.sort_by_key(|(_, run)| std::cmp::Reverse(run.took));
        AutomationView {
            name: name.to_owned(),
            program: entry.spec.text.clone(),
            enabled: entry.spec.enabled,
            state,
            reason,
            webhook: entry.spec.webhook.is_some(),
            runs: latest.into_iter().map(|((node, _), run)| run_view(self.peers.call(*node), run)).collect(),
            by: self.peers.winner(&entry.object).map(|node| self.peers.call(node)),
        }
    }

    fn state(&self, entry: &Entry, runs: &Runs<'_>) -> (&'static str, Option<String>) {
        match (entry.spec.enabled, &entry.spec.program, entry.tripped()) {
            (false, ..) => ("off", None),
            (true, Err(fault), _) => ("invalid", Some(fault.clone())),
            (true, Ok(_), Some(why)) => ("tripped", Some(why.clone())),
            _ if !open_runs(runs).is_empty() => match self.left(entry, runs) {
                None => ("running", None),
                reason => ("held", reason),
            },
            (true, Ok(program), None) => match self.hindrance(entry, program) {
                None => ("waiting", entry.spec.lacks_path().then(|| no_path(entry))),
                hindrance => ("held", hindrance),
            },
        }
    }

    /// Why an automation cannot be started at present, or not by all that is to start it.
    fn hindrance(&self, entry: &Entry, program: &Program) -> Option<String> {
        if entry.is_beyond {
            return Some(beyond());
        }
        let timeless = || (goes_by_clock(program) && !self.time.borrow().trusted).then(|| NO_TIME.to_owned());
        let held = self.peers.held().map(str::to_owned).or_else(timeless);
        held.or_else(|| self.lasting_hindrance(entry, program))
    }

    /// The same, where that is so until somebody does something about it.
    fn lasting_hindrance(&self, entry: &Entry, program: &Program) -> Option<String> {
        let by_clock = || self.home.home().err().or_else(|| entry.sentry.problem.clone());
        let by_clock = goes_by_clock(program).then(by_clock).flatten();
        by_clock.or_else(|| sentry::misses(&program.triggers, &self.devices))
    }

    /// Logs why nothing comes of an automation that is on, once for each reason.
    pub(super) fn tell_fault(&mut self, name: &str) {
        let Some(entry) = self.automations.get_mut(name) else { return };
        if !entry.looks_for_fault() {
            return;
        }
        let Some(entry) = self.automations.get(name).filter(|entry| entry.spec.enabled) else { return };
        let fault = match &entry.spec.program {
            Err(fault) => Some(fault.clone()),
            Ok(program) => self.lasting_hindrance(entry, program),
        };
        self.automations.get_mut(name).into_iter().for_each(|entry| entry.tell_fault(fault.clone()));
    }

    /// Why nobody goes on yet with the open runs, of a node that died or was started anew.
    fn left(&self, entry: &Entry, runs: &Runs<'_>) -> Option<String> {
        let left = entry.unattended(self.peers.me, true, &self.peers.living);
        // Another one is under way beside them.
        if left.len() < open_runs(runs).len() {
            return None;
        }
        let unheard = self.peers.held().map(str::to_owned);
        unheard.or_else(|| (!self.time.borrow().trusted).then(|| NO_TIME.to_owned()))
    }
}

fn run_view(node: String, run: &Run) -> RunView {
    RunView {
        why: run.why.clone(),
        by: called::starter(&run.data),
        at: shown(run.at),
        state: serde_json::to_value(run.state)
            .ok()
            .and_then(|state| state.as_str().map(str::to_owned))
            .unwrap_or_default(),
        end: run.end.clone(),
        ended: run.ended.map(shown),
        node,
        trace: run
            .trace
            .iter()
            .map(|line| LineView {
                at: shown(line.at),
                step: line.step.clone(),
                what: line.what.clone(),
                outcome: line.outcome.clone(),
                took_ms: line.took,
            })
            .collect(),
        left_out: run.left_out,
    }
}

fn goes_by_clock(program: &Program) -> bool {
    program.triggers.iter().any(|trigger| matches!(trigger, Trigger::At(_)))
}

/// Why an automation is not followed.
fn beyond() -> String {
    format!("there are more than {MAX_AUTOMATIONS} automations: the last by their names are left alone")
}

fn no_path(entry: &Entry) -> String {
    let name = entry.object.name();
    format!("nobody can call it yet: `hearth automation webhook {name}` makes its path")
}

fn circuit_view(circuit: &Circuit) -> CircuitView {
    let again_in = circuit.until.saturating_duration_since(Instant::now());
    CircuitView {
        device: circuit.device.to_string(),
        state: if again_in.is_zero() { "half_open" } else { "open" },
        failed: circuit.failed,
        reason: circuit.reason.clone(),
        again_in_s: again_in.as_secs(),
    }
}

fn shown(ms: i64) -> String {
    format!("{:.3}", Timestamp::from_millisecond(ms).unwrap_or_default())
}

fn set(object: &ObjectId, fields: Vec<(&'static str, Value)>) -> Vec<Op> {
    let op = |(name, value)| Some(Op::Set(object.clone(), FieldName::new(name).ok()?, value));
    fields.into_iter().filter_map(op).collect()
}

fn unset(object: &ObjectId, name: &str) -> Option<Op> {
    FieldName::new(name).ok().map(|field| Op::Unset(object.clone(), field))
}

/// A list as it is stored, if it is not too long for that.
fn fitting(name: &str, list: &[Json]) -> Result<Value, PortError> {
    let value = keep(list);
    value.encode().map(|_| value).map_err(|rule| {
        let said = match rule {
            ValueError::TooLarge { bytes } => {
                format!("has {bytes} bytes as JSON, and {MAX_VALUE_BYTES} are the most")
            }
            rule => rule.to_string(),
        };
        PortError::Invalid {
            detail: format!("`{name}` {said}"),
            fix: "make two automations of it: an event that one publishes starts the other".to_owned(),
        }
    })
}

pub(super) fn invalid(fault: &str) -> PortError {
    PortError::Invalid {
        detail: format!("it is not understood: {fault}"),
        fix: "docs/automation.md has the forms; `hearth automation set` stores a better one".to_owned(),
    }
}
