//! How a run goes on: step by step, each stored before it is done, and by another node where one died.

use std::{sync::Arc, time::Duration};

use device_adapters::schedule::Home;
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::oneshot, time::Instant};
use tracing::{info, warn};

use super::{
    super::{
        course::{End, Move},
        deeds::shown,
        expression::Facts,
        program::{Mode, Program, What},
        runs::{Run, State, clipped, free_place, is_taken_over, orphans, run_field},
        world::View,
    },
    Engine,
    entry::Entry,
};
use crate::service::Op;

/// What became of a step.
pub(super) struct Stepped {
    outcome: Result<(), String>,
    took_ms: u32,
}

/// Where a step belongs.
pub(super) type Stand = (String, u8);

/// Something that a run does.
struct Step {
    what: What,
    facts: Facts,
    key: String,
    deadline: Duration,
}

impl Engine {
    /// Goes on with the runs of nodes that died, and with those that this node itself began before it was started anew.
    pub(super) fn adopt(&mut self, name: &str, now: Timestamp) {
        let me = self.peers.me;
        let Some(entry) = self.automations.get_mut(name) else { return };
        let has_settled = entry.has_settled();
        let (own, living) = (&entry.own, &self.peers.living);
        let left: Vec<_> = orphans(&entry.runs(me), me, has_settled, |node| living.contains(&node))
            .into_iter()
            .filter(|(node, place)| *node != me || !own.contains_key(place))
            .collect();
        for at in left {
            let runs = entry.runs(me);
            let place = if at.0 == me { Some(at.1) } else { free_place(&runs, me, State::Running) };
            let (Some(place), Some(run)) = (place, runs.get(&at)) else { continue };
            let mut run = Run { took: now.as_millisecond(), ..(*run).clone() };
            let why =
                if at.0 == me { "it was broken off by a restart" } else { "the node that was at it died" };
            run.note(now, &[], why, "goes on", 0);
            info!(name, why, "goes on with a run");
            entry.own.insert(place, run);
            drop(self.store(name, place));
            return self.adopt(name, now);
        }
    }

    /// Ends what another node took over, or started again, while this one was not heard.
    pub(super) fn give_way(&mut self, name: &str, now: Timestamp) {
        let me = self.peers.me;
        let Some(entry) = self.automations.get_mut(name) else { return };
        let is_restart = entry.spec.active().is_some_and(|program| program.mode == Mode::Restart);
        let runs = entry.runs(me);
        let lost: Vec<(u8, &'static str)> = entry
            .own
            .iter()
            .filter(|(_, run)| run.state.is_open())
            .filter_map(|(place, run)| {
                let started_again =
                    is_restart && runs.values().any(|other| other.state.is_open() && other.at > run.at);
                match (is_taken_over(&runs, (me, *place)), started_again) {
                    (true, _) => Some((*place, "another node goes on with it")),
                    (_, true) => Some((*place, "it was started again")),
                    _ => None,
                }
            })
            .collect();
        lost.iter().for_each(|(place, why)| entry.end(*place, why, now));
        for (place, _) in lost {
            drop(self.store(name, place));
        }
    }

    /// Takes the next step of each open run of this node that has none under way and waits for nothing.
    pub(super) fn advance(&mut self, name: &str, home: &Result<Home, String>, now: Timestamp) {
        let me = self.peers.me;
        let Some(entry) = self.automations.get_mut(name) else { return };
        let Ok(program) = entry.spec.program.clone() else { return };
        entry.call_next(me);
        for place in entry.due(now) {
            self.take_step(name, place, &program, home, now);
        }
    }

    fn take_step(
        &mut self,
        name: &str,
        place: u8,
        program: &Arc<Program>,
        home: &Result<Home, String>,
        now: Timestamp,
    ) {
        let Some(entry) = self.automations.get_mut(name) else { return };
        let (hash, Some(run)) = (entry.spec.hash, entry.own.get_mut(&place)) else { return };
        if run.program != hash {
            run.end(State::Stopped, "it was changed while it ran", now);
            return drop(self.store(name, place));
        }
        let trigger = run.data.clone();
        let view = View {
            devices: &self.devices,
            home: home.as_ref().map_err(Clone::clone),
            now,
            trigger: &trigger,
        };
        match run.course.next(program, &view, now) {
            Move::Do { deed, path } => {
                let key = format!("automation/{name}#{:016x}.{}", run.id, key_of(&path, run));
                run.note(now, &path, &shown(&deed.what), "", 0);
                let step =
                    Step { what: deed.what.clone(), facts: view.facts(), key, deadline: deed.deadline };
                self.perform(name, place, step);
            }
            Move::Wait { until, .. } => {
                entry.waits.insert(place, until);
                drop(self.store(name, place));
            }
            Move::End(end) => {
                let (state, why) = match end {
                    End::Done => (State::Done, String::new()),
                    End::Stopped(why) => (State::Stopped, why),
                    End::Failed(why) => (State::Failed, why),
                };
                run.end(state, &why, now);
                drop(self.store(name, place));
            }
        }
    }

    /// Does one thing, in a task of its own, once it is stored that it is done.
    fn perform(&mut self, name: &str, place: u8, step: Step) {
        let is_stored = self.store(name, place);
        let Some(entry) = self.automations.get_mut(name) else { return };
        entry.busy.insert(place);
        let (deeds, by) = (self.deeds.clone(), entry.object.to_string());
        let task = self.steps.spawn(async move {
            if let Some(is_stored) = is_stored {
                let _ = is_stored.await; // the node stops
            }
            let began = Instant::now();
            let Step { what, facts, key, deadline } = step;
            let outcome = deeds.perform(&by, &what, &facts, key, deadline).await;
            Stepped { outcome, took_ms: u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX) }
        });
        self.under_way.insert(task.id(), (name.to_owned(), place));
    }

    /// A step has ended: its outcome is part of the run, and stored with the next step.
    pub(super) fn stepped(&mut self, ended: Result<(tokio::task::Id, Stepped), tokio::task::JoinError>) {
        let (id, stepped) = match ended {
            Ok((id, stepped)) => (id, stepped),
            Err(error) => {
                warn!(%error, "a step of an automation broke off");
                let outcome = Err("the step broke off: the log has the reason".to_owned());
                (error.id(), Stepped { outcome, took_ms: 0 })
            }
        };
        let Some((name, place)) = self.under_way.remove(&id) else { return };
        if let Some(entry) = self.automations.get_mut(&name) {
            entry.stepped(place, stepped);
        }
    }

    /// Stores a run as this node knows it; the answer is ready when it is flushed.
    pub(super) fn store(&self, name: &str, place: u8) -> Option<oneshot::Receiver<()>> {
        let entry = self.automations.get(name)?;
        let (run, field) = (entry.own.get(&place)?, run_field(self.peers.me, place)?);
        Some(self.ledger.write(Op::Set(entry.object.clone(), field, run.to_value())))
    }

    /// The clock was set by so much: what waits for a length of time waits no longer and no shorter for it.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        info!(by = %format!("{by:#}"), "the time of day was set: what is waited for is shifted");
        let mut moved = Vec::new();
        for (name, entry) in &mut self.automations {
            entry.sentry.shift(by);
            moved.extend(entry.shift(by).into_iter().map(|place| (name.clone(), place)));
        }
        for (name, place) in moved {
            drop(self.store(&name, place));
        }
    }
}

impl Entry {
    /// Ends a run of this node.
    fn end(&mut self, place: u8, why: &str, now: Timestamp) {
        self.waits.remove(&place);
        if let Some(run) = self.own.get_mut(&place) {
            run.end(State::Stopped, why, now);
        }
    }

    /// Ends all open runs of this node; which ones those were.
    pub(super) fn end_all(&mut self, why: &str, now: Timestamp) -> Vec<u8> {
        let open = self.own.iter().filter(|(_, run)| run.state.is_open());
        let open: Vec<u8> = open.map(|(place, _)| *place).collect();
        open.iter().for_each(|place| self.end(*place, why, now));
        open
    }

    /// Tells the runs that wait for an event of one.
    pub(super) fn tell(&mut self, program: &Program, topic: &str) {
        for (place, run) in self.own.iter_mut().filter(|(_, run)| run.state == State::Running) {
            if !self.busy.contains(place) && run.course.hear(program, topic) {
                self.waits.remove(place);
            }
        }
    }

    /// The one that has waited longest has its turn when nothing runs.
    fn call_next(&mut self, me: mesh_proto::ShortId) {
        let runs = self.runs(me);
        if runs.values().any(|run| run.state == State::Running) {
            return;
        }
        let queued = runs.iter().filter(|(_, run)| run.state == State::Queued);
        let first = queued.min_by_key(|(at, run)| (run.at, **at)).map(|(at, _)| *at);
        // What is queued at another node is that one's to call.
        if let Some((_, place)) = first.filter(|(node, _)| *node == me)
            && let Some(run) = self.own.get_mut(&place)
        {
            run.state = State::Running;
        }
    }

    /// The runs of this node whose next step is due.
    fn due(&self, now: Timestamp) -> Vec<u8> {
        let is_due = |place: &u8, run: &Run| {
            run.state == State::Running
                && !self.busy.contains(place)
                && self.waits.get(place).is_none_or(|until| *until <= now)
        };
        self.own.iter().filter(|(place, run)| is_due(place, run)).map(|(place, _)| *place).collect()
    }

    fn stepped(&mut self, place: u8, Stepped { outcome, took_ms }: Stepped) {
        self.busy.remove(&place);
        let Some(run) = self.own.get_mut(&place).filter(|run| run.state == State::Running) else { return };
        if let Some(line) = run.trace.last_mut() {
            line.outcome = outcome.as_ref().map_or_else(|why| clipped(why), |()| "ok".to_owned());
            line.took = took_ms;
        }
        let Ok(program) = &self.spec.program else { return };
        run.course.did(program, outcome);
    }

    /// The waits of this node's runs, by so much later; which runs those are.
    fn shift(&mut self, by: SignedDuration) -> Vec<u8> {
        for until in self.waits.values_mut() {
            *until = until.checked_add(by).unwrap_or(*until);
        }
        let open = self.own.iter_mut().filter(|(_, run)| run.state.is_open());
        open.filter_map(|(place, run)| run.course.shift(by).then_some(*place)).collect()
    }
}

/// What names a step of a run: its place, how often it was reached, and which try it is.
fn key_of(path: &[u16], run: &Run) -> String {
    let path = path.iter().map(u16::to_string).collect::<Vec<_>>().join(".");
    format!("{path}.{}", run.course.turn())
}
