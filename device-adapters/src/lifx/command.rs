//! One command on its way: what it asks for, which Sets carry it, and how it may end.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Change, CommandId, State};

use super::face::{Judgement, Set};
use super::pace::patience;
use super::wire::Request;
use super::words;

/// How long after the end of a transition the state is read: bulbs end a fade a little late.
const AFTER_TRANSITION: Duration = Duration::from_millis(50);
/// How long to wait before a bulb that acknowledged and shows something else is told again.
const TELL_AGAIN: Duration = Duration::from_millis(400);
/// How often a Set that nobody asked for is tried: a bulb that does not know it need not say so.
const OPTIONAL_TRIES: u32 = 4;

/// A Set, until it is acknowledged.
#[derive(Debug, Clone)]
struct Step {
    set: Set,
    acknowledged: bool,
    due: Instant,
    tries: u32,
}

impl Step {
    fn new(due: Instant, set: Set) -> Self {
        Self { set, acknowledged: false, due, tries: 0 }
    }

    fn is_open(&self) -> bool {
        !self.acknowledged && (self.set.required || self.tries < OPTIONAL_TRIES)
    }
}

/// What a command needs to be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The state, to know what the command leaves as it is.
    Base,
    /// The Set of that index.
    Set(usize),
    /// The state, to confirm.
    ReadBack,
}

/// What a read-back after the acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The bulb shows what was asked for.
    Confirmed,
    /// It does not, or not yet.
    NotYet,
}

/// A command on its way.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    /// Its id.
    pub(crate) id: CommandId,
    /// What it asks for, with what it took over from the commands that it superseded.
    pub(crate) wanted: Change,
    /// When it ends as timed out.
    pub(crate) deadline: Instant,
    steps: Option<Vec<Step>>,
    sent: bool,
    acknowledged: bool,
    /// How many Sets had been sent when its own began: only a later one's acknowledgement counts.
    since: u64,
    /// When its transition ends; known from the last acknowledgement on.
    settled_at: Instant,
    due: Instant,
    tries: u32,
    mismatches: u32,
    last_read: Option<State>,
}

impl InFlight {
    /// A command that was just received, when `since` Sets had been sent.
    pub(crate) fn new(id: CommandId, wanted: Change, deadline: Instant, now: Instant, since: u64) -> Self {
        Self {
            id,
            wanted,
            deadline,
            steps: None,
            sent: false,
            acknowledged: false,
            since,
            settled_at: now,
            due: now,
            tries: 0,
            mismatches: 0,
            last_read: None,
        }
    }

    /// Whether its Sets are made.
    pub(crate) fn is_planned(&self) -> bool {
        self.steps.is_some()
    }

    /// Takes its Sets, now that what they build on is known.
    pub(crate) fn plan(&mut self, now: Instant, sets: Vec<Set>) {
        self.steps = Some(sets.into_iter().map(|set| Step::new(now, set)).collect());
    }

    /// What to send next and when.
    pub(crate) fn need(&self) -> (Instant, Need) {
        let Some(steps) = &self.steps else { return (self.due, Need::Base) };
        let prepares = |step: &Step| step.is_open() && step.set.request.is_preparation();
        let all = !steps.iter().any(prepares);
        let open = steps.iter().enumerate().filter(|(_, step)| step.is_open() && (all || prepares(step)));
        match open.min_by_key(|(_, step)| step.due) {
            Some((index, step)) => (step.due, Need::Set(index)),
            None => (self.due.max(self.settled_at), Need::ReadBack),
        }
    }

    /// The Set of that index, which is being sent now.
    pub(crate) fn send_step(&mut self, now: Instant, index: usize) -> Option<Request> {
        let step = self.steps.as_mut()?.get_mut(index)?;
        step.due = now + patience(step.tries);
        step.tries += 1;
        Some(step.set.request.clone())
    }

    /// A read is being sent now.
    pub(crate) fn send_read(&mut self, now: Instant) {
        self.due = now + patience(self.tries);
        self.tries += 1;
    }

    /// Notes that the first Set goes out; true the first time.
    pub(crate) fn first_sent(&mut self) -> bool {
        !std::mem::replace(&mut self.sent, true)
    }

    /// The `number`-th Set, a `request`, was acknowledged. True when with it, for the first time,
    /// all of this command's are.
    pub(crate) fn acknowledge(&mut self, now: Instant, number: u64, request: &Request) -> bool {
        if number <= self.since {
            return false; // of an older command, or of an earlier attempt that did not last
        }
        let Some(steps) = &mut self.steps else { return false };
        let Some(step) = steps.iter_mut().find(|step| step.set.request == *request && !step.acknowledged)
        else {
            return false;
        };
        step.acknowledged = true;
        if steps.iter().any(|step| step.set.required && !step.acknowledged) {
            return false;
        }
        let longest = steps.iter().map(|step| step.set.request.fade()).max().unwrap_or_default();
        let longest = Duration::from_millis(u64::from(longest));
        self.settled_at = if longest.is_zero() { now } else { now + longest + AFTER_TRANSITION };
        (self.due, self.tries) = (now, 0);
        !std::mem::replace(&mut self.acknowledged, true)
    }

    /// The bulb does not know that Set. Whether the command fails by that.
    pub(crate) fn refused(&mut self, request: &Request) -> bool {
        let Some(step) = self.steps.iter_mut().flatten().find(|step| step.set.request == *request) else {
            return false; // of an older command
        };
        step.tries = OPTIONAL_TRIES;
        step.set.required
    }

    /// Whether no Set that it needs waits to be sent or acknowledged, so that what is read now is its effect.
    pub(crate) fn is_acknowledged(&self) -> bool {
        let done = |step: &Step| step.acknowledged || !step.set.required;
        self.steps.as_ref().is_some_and(|steps| steps.iter().all(done))
    }

    /// When its transition ends, once all is acknowledged.
    pub(crate) fn settled_at(&self) -> Option<Instant> {
        self.is_acknowledged().then_some(self.settled_at)
    }

    /// Judges a state that was asked for at `asked_at`, after every Set was acknowledged; `sets` have been sent by now.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        asked_at: Instant,
        sets: u64,
        state: &State,
        judgement: Judgement,
    ) -> Verdict {
        if asked_at < self.settled_at {
            return Verdict::NotYet; // still fading: neither proof nor disproof
        }
        if judgement.is_shown {
            return Verdict::Confirmed;
        }
        self.last_read = Some(state.clone());
        self.mismatches += 1;
        // Once it may be late; after that it is told again, because another's Set, or our own
        // older one that was delayed on the way, may have arrived last.
        if self.mismatches > 1 {
            self.since = sets;
            self.tell_again(now + TELL_AGAIN, judgement.first);
        }
        Verdict::NotYet
    }

    fn tell_again(&mut self, at: Instant, first: Option<Request>) {
        let Some(steps) = &mut self.steps else { return };
        for step in steps.iter_mut() {
            step.set.request = step.set.request.clone().without_fade();
            (step.acknowledged, step.tries, step.due) = (false, 0, at);
        }
        if let Some(first) = first.filter(|first| steps.iter().all(|step| step.set.request != *first)) {
            steps.insert(0, Step::new(at, Set::optional(first)));
        }
    }

    /// Why it timed out, for people; `who` it was for, and how to do `without` what it was to build on.
    pub(crate) fn why_timed_out(&self, now: Instant, who: &str, without: &str) -> String {
        match (&self.last_read, self.acknowledged) {
            (Some(read), _) => format!(
                "the {who} acknowledged, but reads back {} instead of {}",
                words::shown(read),
                words::asked(&self.wanted)
            ),
            (None, true) if now < self.settled_at => {
                format!("the {who} acknowledged, but its transition lasts longer than the deadline")
            }
            (None, true) => format!("the {who} acknowledged, but answered no read-back before the deadline"),
            (None, false) if self.sent => format!("the {who} did not acknowledge before the deadline"),
            (None, false) => format!(
                "the {who} did not tell its state, which the change builds on, before the deadline{without}"
            ),
        }
    }
}
