//! How a run goes on: step by step, each stored before it is done, and by another node where one died.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use device_adapters::schedule::Home;
use jiff::{SignedDuration, Timestamp};
use mesh_proto::ShortId;
use tokio::{
    sync::oneshot,
    task::{Id, JoinError},
    time::Instant,
};
use tracing::{info, warn};

use super::{
    super::{
        course::{End, Move},
        deeds::{shown, waited},
        expression::Facts,
        program::{Mode, Program, What},
        runs::{Run, Runs, State, clipped, free_place, is_taken_over, open_runs, orphans, run_field},
        steps::SETTLE,
        world::View,
    },
    Engine,
    entry::{Entry, Wait},
};

/// What became of a step.
pub(super) struct Stepped {
    outcome: Result<(), String>,
    took_ms: u32,
}

/// Where a step belongs: the automation, the run, and which of its tries it is.
pub(super) type Stand = (String, u64, u32);

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
        if entry.spec.runs.values().all(|run| !run.state.is_open()) {
            return;
        }
        let unattended = entry.unattended(me, entry.has_settled(), &self.peers.living);
        entry.left.retain(|at, _| unattended.contains(at));
        let left: Vec<_> = unattended
            .into_iter()
            // What another node did about it may have come here and not be seen yet.
            .filter(|at| entry.left.entry(*at).or_insert_with(Instant::now).elapsed() >= SETTLE)
            .collect();
        for at in left {
            let why =
                if at.0 == me { "it was broken off by a restart" } else { "the node that was at it died" };
            if let Some(place) = self.take(name, at, now) {
                info!(name, why, "goes on with a run");
                self.go_on(name, place, why, now);
            }
        }
    }

    /// Takes a run that nobody is at into a place of this node, which the caller stores; none when all are taken.
    pub(super) fn take(&mut self, name: &str, at: (ShortId, u8), now: Timestamp) -> Option<u8> {
        let me = self.peers.me;
        let entry = self.automations.get_mut(name)?;
        let runs = entry.runs(me);
        let run = *runs.get(&at)?;
        // One that went to and fro between nodes has been here before.
        let known = runs.iter().find(|((node, _), own)| *node == me && own.id == run.id);
        let place = known.map(|((_, place), _)| *place).or_else(|| free_place(&runs, me, State::Running))?;
        // Later than before, whatever the clock says: it may have been ahead then.
        let took = now.as_millisecond().max(run.took.saturating_add(1));
        let run = Run { took, ..run.clone() };
        entry.put(place, run);
        // Both at once: of a run that is over nobody may find a record that says it goes on.
        if let Some(field) = run_field(at.0, at.1).filter(|_| at.0 != me) {
            drop(self.ledger.write(&entry.object, field, None));
        }
        Some(place)
    }

    fn go_on(&mut self, name: &str, place: u8, why: &str, now: Timestamp) {
        let Some(entry) = self.automations.get_mut(name) else { return };
        let is_queued = matches!(entry.spec.program.as_deref(), Ok(Program { mode: Mode::Queued(_), .. }));
        // Another one may have begun meanwhile.
        let is_busy = entry.own.iter().any(|(at, run)| *at != place && run.state == State::Running);
        if let Some(run) = entry.own.get_mut(&place) {
            run.note(now, &[], why, "goes on", 0);
            if is_queued && is_busy {
                run.state = State::Queued;
            }
        }
        drop(self.store(name, place));
    }

    /// Ends the runs of this node that are not to go on.
    pub(super) fn give_way(&mut self, name: &str, now: Timestamp) {
        let me = self.peers.me;
        let Some(entry) = self.automations.get_mut(name) else { return };
        let lost = entry.lost(me);
        lost.iter().for_each(|(place, why)| entry.end(*place, why, now));
        for (place, _) in lost {
            drop(self.store(name, place));
        }
    }

    /// Takes the next step of each open run of this node that has none under way and waits for nothing; answers whether there is more
    /// to do at once.
    pub(super) fn advance(&mut self, name: &str, home: &Result<Home, String>, now: Timestamp) -> bool {
        let me = self.peers.me;
        let Some(entry) = self.automations.get_mut(name) else { return false };
        let Ok(program) = entry.spec.program.clone() else { return false };
        let timeless = (!self.time.borrow().trusted).then_some(&self.peers.living);
        entry.call_next(me, timeless);
        let mut is_more = false;
        for place in entry.due(now) {
            is_more |= self.take_step(name, place, &program, home, now);
        }
        is_more
    }

    fn take_step(
        &mut self,
        name: &str,
        place: u8,
        program: &Arc<Program>,
        home: &Result<Home, String>,
        now: Timestamp,
    ) -> bool {
        let Some(entry) = self.automations.get_mut(name) else { return false };
        let Some(run) = entry.own.get_mut(&place) else { return false };
        let has_waited = entry.waits.remove(&place);
        let trigger = run.data.clone();
        let view = View {
            devices: &self.devices,
            home: home.as_ref().map_err(Clone::clone),
            now,
            trigger: &trigger,
        };
        let next = run.course.next(program, &view, now);
        let waits_on =
            matches!(&next, Move::Wait { until, .. } if has_waited.is_some_and(|wait| wait.until == *until));
        if has_waited.is_some() && !waits_on {
            run.has_waited(now);
        }
        match next {
            Move::Do { deed, path } => {
                let key = format!("automation/{name}#{:016x}.{}", run.id, run.course.turn());
                run.note(now, &path, &shown(&deed.what), "", 0);
                let step =
                    Step { what: deed.what.clone(), facts: view.facts(), key, deadline: deed.deadline };
                self.perform(name, place, step);
            }
            Move::Wait { until, waiting } => {
                let watches = waiting.is_some_and(|waiting| !waiting.until.is_empty());
                let wait = Wait { until, watches };
                entry.waits.insert(place, wait);
                // It was looked at again, and nothing is new.
                if has_waited != Some(wait) {
                    let at = run.course.at().to_vec();
                    run.note(now, &at, &waited(until.duration_since(now), waiting), "", 0);
                    drop(self.store(name, place));
                }
            }
            Move::Again => return true,
            Move::End(end) => {
                let (state, why) = match end {
                    End::Done => (State::Done, String::new()),
                    End::Stopped(why) => (State::Stopped, why),
                    End::Failed(why) => (State::Failed, why),
                };
                run.end(state, &why, now);
                if state == State::Failed {
                    entry.tell_failure(&why);
                }
                drop(self.store(name, place));
            }
        }
        false
    }

    /// Does one thing, in a task of its own, once it is stored that it is done.
    fn perform(&mut self, name: &str, place: u8, step: Step) {
        let is_stored = self.store(name, place);
        let Some(entry) = self.automations.get_mut(name) else { return };
        let Some(run) = entry.own.get(&place) else { return };
        let stand = (name.to_owned(), run.id, run.course.turn());
        entry.busy.insert(run.id);
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
        self.under_way.insert(task.id(), stand);
    }

    /// A step has ended: its outcome is part of the run, and stored with the next step.
    pub(super) fn stepped(&mut self, ended: Result<(Id, Stepped), JoinError>) -> Option<(String, u8)> {
        let (id, stepped) = match ended {
            Ok((id, stepped)) => (id, stepped),
            Err(error) => {
                warn!(%error, "a step of an automation broke off");
                let outcome = Err("the step broke off: the log has the reason".to_owned());
                (error.id(), Stepped { outcome, took_ms: 0 })
            }
        };
        let (name, run, turn) = self.under_way.remove(&id)?;
        let entry = self.automations.get_mut(&name)?;
        let place = entry.stepped(run, turn, stepped)?;
        // Of one that was ended meanwhile no step is next.
        if entry.own.get(&place).is_some_and(|run| !run.state.is_open()) {
            drop(self.store(&name, place));
        }
        Some((name, place))
    }

    /// Stores a run as this node knows it; the answer is ready when it is flushed.
    pub(super) fn store(&mut self, name: &str, place: u8) -> Option<oneshot::Receiver<()>> {
        let entry = self.automations.get(name)?;
        let (run, field) = (entry.own.get(&place)?, run_field(self.peers.me, place)?);
        Some(self.ledger.write(&entry.object, field, Some(run.to_value())))
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
    /// The open runs of this node that are not to go on, and why: another node took them over, or started the automation again, while
    /// this one was not heard; or somebody changed it or switched it off.
    fn lost(&self, me: ShortId) -> Vec<(u8, &'static str)> {
        if self.own.values().all(|run| !run.state.is_open()) {
            return Vec::new();
        }
        let is_restart = self.spec.program.as_ref().is_ok_and(|program| program.mode == Mode::Restart);
        let runs = self.runs(me);
        let latest = open_runs(&runs).values().map(|run| run.at).max().filter(|_| is_restart);
        let why = |place: u8, run: &Run| {
            if !run.state.is_open() {
                None
            } else if is_taken_over(&runs, (me, place)) {
                Some("another node goes on with it")
            } else if latest > Some(run.at) {
                Some("it was started again")
            } else if run.program != self.spec.hash {
                Some("it was changed while it ran")
            } else {
                (!self.spec.enabled).then_some("it was switched off while it ran")
            }
        };
        self.own.iter().filter_map(|(place, run)| Some((*place, why(*place, run)?))).collect()
    }

    /// The open runs that nobody is at: this node's own from before it was started anew and, if it wins, those of nodes that do not live.
    pub(super) fn unattended(
        &self,
        me: ShortId,
        is_winner: bool,
        living: &BTreeSet<ShortId>,
    ) -> Vec<(ShortId, u8)> {
        let is_left = |(node, place): &(ShortId, u8)| *node != me || !self.own.contains_key(place);
        let left = orphans(&self.runs(me), me, is_winner, |node| living.contains(&node));
        left.into_iter().filter(is_left).collect()
    }

    /// The open runs that one more has to reckon with. Those that nobody is at cannot go on where the time is not known, when the nodes that
    /// live are given, and hold up none meanwhile.
    pub(super) fn counted(&self, me: ShortId, timeless: Option<&BTreeSet<ShortId>>) -> Runs<'_> {
        let mut open = open_runs(&self.runs(me));
        for at in timeless.into_iter().flat_map(|living| self.unattended(me, true, living)) {
            open.remove(&at);
        }
        open
    }

    /// Ends a run of this node.
    pub(super) fn end(&mut self, place: u8, why: &str, now: Timestamp) {
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
    pub(super) fn tell(&mut self, topic: &str) {
        let Ok(program) = &self.spec.program else { return };
        for (place, run) in self.own.iter_mut().filter(|(_, run)| run.state == State::Running) {
            if !self.busy.contains(&run.id)
                && run.program == self.spec.hash
                && run.course.hear(program, topic)
            {
                self.waits.insert(*place, Wait { until: Timestamp::MIN, watches: false });
            }
        }
    }

    /// The one that has waited longest has its turn when nothing runs.
    fn call_next(&mut self, me: ShortId, timeless: Option<&BTreeSet<ShortId>>) {
        if self.own.values().all(|run| run.state != State::Queued) {
            return;
        }
        let open = self.counted(me, timeless);
        if open.values().any(|run| run.state == State::Running) {
            return;
        }
        let queued = open.iter().filter(|(_, run)| run.state == State::Queued);
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
                && !self.busy.contains(&run.id)
                && self.waits.get(place).is_none_or(|wait| wait.until <= now || (wait.watches && self.looks))
        };
        self.own.iter().filter(|(place, run)| is_due(place, run)).map(|(place, _)| *place).collect()
    }

    /// A step of a run has ended; where that run is.
    fn stepped(&mut self, id: u64, turn: u32, Stepped { outcome, took_ms }: Stepped) -> Option<u8> {
        self.busy.remove(&id);
        let (place, run) = self.own.iter_mut().find(|(_, run)| run.id == id && run.course.turn() == turn)?;
        if let Some(line) = run.trace.last_mut() {
            line.outcome = outcome.as_ref().map_or_else(|why| clipped(why), |()| "ok".to_owned());
            line.took = took_ms;
        }
        if let Ok(program) = &self.spec.program
            && run.state == State::Running
            && run.program == self.spec.hash
        {
            run.course.did(program, outcome);
        }
        Some(*place)
    }

    /// The waits of this node's runs, by so much later; which runs those are.
    fn shift(&mut self, by: SignedDuration) -> Vec<u8> {
        for wait in self.waits.values_mut() {
            wait.until = wait.until.checked_add(by).unwrap_or(wait.until);
        }
        let open = self.own.iter_mut().filter(|(_, run)| run.state.is_open());
        open.filter_map(|(place, run)| run.course.shift(by).then_some(*place)).collect()
    }
}
