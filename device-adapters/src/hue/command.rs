//! One command on its way. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Change, CommandId, LightChange, State, Tolerance};

use super::view;

/// How long the event that shows a command's effect is waited for: bridges gather events for up to a second
/// (<https://developers.meethue.com/develop/hue-api-v2/core-concepts/>).
const EVENT_WITHIN: Duration = Duration::from_secs(1);
/// How often the state is read at the slowest while a command waits for it.
const LONGEST_READ_PAUSE: Duration = Duration::from_secs(4);
/// After so many reads that show something else the change is sent again.
const SEND_AGAIN_AFTER: u32 = 2;

/// What a command needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To be sent.
    Put,
    /// The state to be read.
    Read,
}

/// What a state means for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It shows what was asked for.
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
    /// When what it needs is due; none while that is under way.
    due: Option<(Instant, Need)>,
    was_sent: bool,
    acknowledged: Option<Instant>,
    was_acknowledged: bool,
    /// The state showed what is asked for before it was sent: no event will come.
    was_so: bool,
    saw_event: bool,
    mismatches: u32,
    settled: Instant,
    /// What was seen last after the acknowledgement: a state that is not what was asked for, or why none counts.
    last_seen: Option<Result<State, String>>,
    objection: Option<String>,
}

impl InFlight {
    /// A command that was just received.
    pub(crate) fn new(id: CommandId, wanted: Change, deadline: Instant, now: Instant) -> Self {
        Self {
            id,
            wanted,
            deadline,
            due: Some((now, Need::Put)),
            was_sent: false,
            acknowledged: None,
            was_acknowledged: false,
            was_so: false,
            saw_event: false,
            mismatches: 0,
            settled: now,
            last_seen: None,
            objection: None,
        }
    }

    /// The one that takes its place; it keeps its place in the line.
    pub(crate) fn superseded_by(
        &self,
        id: CommandId,
        newer: &Change,
        deadline: Instant,
        now: Instant,
    ) -> Self {
        let waits_since = self.due.filter(|(_, need)| *need == Need::Put).map_or(now, |(due, _)| due);
        Self::new(id, self.wanted.then(newer), deadline, waits_since)
    }

    /// What it needs next, and when.
    pub(crate) fn need(&self) -> Option<(Instant, Need)> {
        self.due
    }

    /// It leaves now, and the device is in that state; true the first time.
    pub(crate) fn sending(&mut self, state: Option<&State>) -> bool {
        self.due = None;
        self.acknowledged = None;
        self.was_so = state.is_some_and(|state| self.matches(state));
        !std::mem::replace(&mut self.was_sent, true)
    }

    /// The state is being read now.
    pub(crate) fn reading(&mut self) {
        self.due = None;
    }

    /// What was under way came to nothing.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.due.is_none() {
            let need = if self.acknowledged.is_some() { Need::Read } else { Need::Put };
            self.due = Some((now, need));
        }
    }

    /// The bridge took it, perhaps with an objection; true the first time.
    pub(crate) fn acknowledge(&mut self, now: Instant, objection: Option<String>) -> bool {
        self.acknowledged = Some(now);
        self.settled = now + Duration::from_millis(self.wanted.transition_ms().into());
        self.objection = objection;
        let due = if self.was_so { now } else { now + EVENT_WITHIN };
        self.due = Some((due, Need::Read));
        !std::mem::replace(&mut self.was_acknowledged, true)
    }

    /// Judges what is seen: what was read by a question of `asked`, or what the bridge pushed. What was asked for before the
    /// acknowledgement proves nothing. After a read that shows no effect the next one is not due at once, whatever the bridge says.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        asked: Option<Instant>,
        seen: Result<State, String>,
    ) -> Verdict {
        let Some(acknowledged) = self.acknowledged else { return Verdict::NotYet };
        if asked.is_some_and(|asked| asked < acknowledged) {
            return Verdict::NotYet;
        }
        self.saw_event |= asked.is_none();
        if seen.as_ref().is_ok_and(|state| self.matches(state)) {
            return Verdict::Confirmed;
        }
        self.last_seen = Some(seen);
        if asked.is_some() {
            self.mismatches += 1;
            let pause = (EVENT_WITHIN * self.mismatches).min(LONGEST_READ_PAUSE);
            // Once it may be late, and while it fades it may show the way; after that somebody else changed it, and it is sent again.
            let send_again = self.mismatches.is_multiple_of(SEND_AGAIN_AFTER) && now >= self.settled;
            if send_again {
                self.wanted = without_transition(self.wanted.clone());
            }
            self.due = Some((now + pause, if send_again { Need::Put } else { Need::Read }));
        }
        Verdict::NotYet
    }

    /// Whether a read showed its effect which the bridge should have pushed.
    pub(crate) fn missed_event(&self) -> bool {
        !self.was_so && !self.saw_event
    }

    /// Why it timed out, for people. `trouble` is what the bridge said last when it did not answer as it should.
    pub(crate) fn why_timed_out(&self, trouble: Option<&str>) -> String {
        let objection = self.objection.as_ref().map(|objection| format!(" (it said: {objection})"));
        let objection = objection.unwrap_or_default();
        let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
        match (&self.last_seen, self.was_acknowledged) {
            (Some(Err(why)), _) => format!("the bridge acknowledged{objection}, but {why}"),
            (Some(Ok(state)), _) => format!(
                "the bridge acknowledged{objection}, but shows {} instead of {}",
                describe(&as_change(state)),
                describe(&self.wanted)
            ),
            (None, true) => {
                format!("the bridge acknowledged{objection}, but did not tell the new state{trouble}")
            }
            (None, false) if self.was_sent => {
                format!("the bridge did not acknowledge before the deadline{trouble}")
            }
            (None, false) => format!("the bridge could not be asked before the deadline{trouble}"),
        }
    }

    fn matches(&self, state: &State) -> bool {
        self.wanted.matches(state, &Tolerance::default())
    }
}

fn without_transition(change: Change) -> Change {
    match change {
        Change::Light(change) => Change::Light(LightChange { transition_ms: 0, ..change }),
        other => other,
    }
}

fn as_change(state: &State) -> Change {
    match state {
        State::Light(light) => Change::Light(LightChange {
            on: Some(light.on),
            brightness: Some(light.brightness),
            color: Some(light.color),
            effect: light.effect.clone(),
            ..LightChange::default()
        }),
        State::Switch { on } => Change::Switch { on: *on },
        State::Button { .. } => Change::Press,
    }
}

/// As the bridge would be told it, for that is what people find in its documentation.
fn describe(change: &Change) -> String {
    view::body(change).to_string()
}
