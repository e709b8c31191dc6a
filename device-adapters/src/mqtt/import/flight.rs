//! One command on its way to a device. Pure.
//!
//! A broker takes a message at once and says so; that says nothing of the device. What confirms is what the device tells
//! of itself after the broker took the message: all of that which was asked for and it ever tells. What was known before, be
//! it told or kept by the broker (a retained message), never does.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Change, CommandId, LightChange, State, Tolerance};
use crate::mqtt::output::Token;
use crate::mqtt::wire::light::Parts;

/// How long what was asked for and not told again may still be told.
const GRACE: Duration = Duration::from_secs(1);
/// How long a device that showed already what was asked for may take to say otherwise.
const QUIET: Duration = Duration::from_secs(3);

/// A command.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Its id.
    pub(crate) id: CommandId,
    /// What it asks for, with what it took over from those that it superseded.
    pub(crate) wanted: Change,
    /// When it ends as timed out.
    pub(crate) deadline: Instant,
    /// When it may be sent.
    pub(crate) due: Instant,
    sent: Option<Sent>,
    /// Whether it was ever sent.
    pub(crate) told_sent: bool,
    asked_again: bool,
}

/// A command that was given to the broker.
#[derive(Debug)]
struct Sent {
    /// What the broker did not take yet.
    waits_for: BTreeSet<Token>,
    /// When it took the last of it.
    taken: Option<Instant>,
    /// Whether the device told before that it shows what is asked for.
    was_so: bool,
    /// What it told of what was asked for, since.
    fresh: Parts,
}

/// How a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is known yet.
    Open,
    /// The device showed it after it was told.
    Confirmed,
    /// The broker took it, and the device does not tell.
    Assumed,
}

impl Flight {
    /// A command that was just received.
    pub(crate) fn new(id: CommandId, wanted: Change, deadline: Instant, due: Instant) -> Self {
        Self { id, wanted, deadline, due, sent: None, told_sent: false, asked_again: false }
    }

    /// Whether it still has to be sent.
    pub(crate) fn is_unsent(&self) -> bool {
        self.sent.is_none()
    }

    /// It was given to the broker under these names; `known` is what the device showed before.
    pub(crate) fn sent(&mut self, tokens: BTreeSet<Token>, known: &Parts) {
        let was_so = asked_of(&self.wanted, known).is_some() && self.is_shown(known);
        self.told_sent = true;
        self.sent = Some(Sent { waits_for: tokens, taken: None, was_so, fresh: Parts::default() });
    }

    /// Whether the broker did not take that message of this command yet.
    pub(crate) fn waits_for(&self, token: Token) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.waits_for.contains(&token))
    }

    /// The broker took one message.
    pub(crate) fn taken(&mut self, now: Instant, token: Token) {
        let Some(sent) = &mut self.sent else { return };
        if sent.waits_for.remove(&token) && sent.waits_for.is_empty() {
            sent.taken = Some(now);
        }
    }

    /// The broker is gone: what it did not take is sent again, but never a press, which counts twice.
    pub(crate) fn disconnected(&mut self) {
        let is_open = self.sent.as_ref().is_some_and(|sent| sent.taken.is_none());
        if is_open && self.wanted != Change::Press {
            self.sent = None;
        }
    }

    /// The device came back just now: what it told nothing about since may never have reached it, and is sent again.
    pub(crate) fn came_back(&mut self, now: Instant) {
        let told_nothing = self.sent.as_ref().is_some_and(|sent| sent.fresh == Parts::default());
        if told_nothing && self.wanted != Change::Press {
            (self.sent, self.due) = (None, self.due.max(now));
        }
    }

    /// The device told something of itself, just now.
    pub(crate) fn heard(&mut self, told: &Parts) {
        // Before the broker took it only a change can be its effect.
        if let Some(sent) = self.sent.as_mut().filter(|sent| sent.taken.is_some() || !sent.was_so) {
            sent.fresh.absorb(told.clone());
        }
    }

    /// How it stands.
    pub(crate) fn verdict(&self, now: Instant, reads_back: bool, known: &Parts) -> Verdict {
        let Some((sent, taken)) = self.sent.as_ref().and_then(|sent| Some((sent, sent.taken?))) else {
            return Verdict::Open;
        };
        if !reads_back {
            return Verdict::Assumed;
        }
        let mut shown = known.clone();
        shown.absorb(sent.fresh.clone());
        let (asked, told) = (asked_of(&self.wanted, &shown), asked_of(&self.wanted, &sent.fresh));
        let waited = now.saturating_duration_since(taken);
        let has_told = sent.fresh != Parts::default();
        match &asked {
            // Told nothing of what was asked for: an effect that no state names.
            None if has_told && waited >= GRACE => Verdict::Assumed,
            Some(_) if !self.is_shown(&shown) => Verdict::Open,
            Some(all) if told == asked && (*all == plain(&self.wanted) || waited >= GRACE) => {
                Verdict::Confirmed
            }
            // The rest of it was so before, and some devices do not repeat themselves.
            Some(_) if has_told && waited >= GRACE => Verdict::Assumed,
            Some(_) if sent.was_so && waited >= QUIET => Verdict::Assumed,
            _ => Verdict::Open,
        }
    }

    /// Whether all that was asked for and is told is as it was asked for.
    fn is_shown(&self, parts: &Parts) -> bool {
        asked_of(&self.wanted, parts).is_none_or(|asked| {
            let state = self.state(parts);
            state.is_some_and(|state| asked.matches(&state, &Tolerance::default()))
        })
    }

    /// The state that parts make of what it is for.
    fn state(&self, parts: &Parts) -> Option<State> {
        match &self.wanted {
            Change::Light(_) => parts.state().map(State::Light),
            Change::Switch { .. } => parts.on.map(|on| State::Switch { on }),
            Change::Press => None,
        }
    }

    /// Whether the device should be asked now what it shows: once, when it did not tell in time.
    pub(crate) fn asks_again(&mut self, now: Instant) -> bool {
        let late = self.taken_at().is_some_and(|taken| now >= taken + GRACE);
        late && !std::mem::replace(&mut self.asked_again, true)
    }

    /// When something about it may have changed by itself.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Instant {
        let next = match (&self.sent, self.taken_at()) {
            (None, _) => self.due,
            (Some(_), Some(taken)) => {
                [taken + GRACE, taken + QUIET].into_iter().find(|at| *at > now).unwrap_or(self.deadline)
            }
            (Some(_), None) => self.deadline,
        };
        next.min(self.deadline)
    }

    /// Why it timed out, for people.
    pub(crate) fn why_timed_out(&self, connected: bool, topics: &str, known: &Parts) -> String {
        match &self.sent {
            None if !connected => "there was no connection with the broker before the deadline".to_owned(),
            None => "it was not sent before the deadline".to_owned(),
            Some(sent) if sent.taken.is_none() => {
                "the broker did not take the message before the deadline".to_owned()
            }
            Some(sent) if sent.fresh == Parts::default() => {
                format!("the broker took the message, but the device told nothing at {topics} since")
            }
            Some(_) => format!(
                "the device told at {topics} that it shows something else: {}",
                shown(self.state(known))
            ),
        }
    }

    fn taken_at(&self) -> Option<Instant> {
        self.sent.as_ref()?.taken
    }
}

/// What is asked for of that which is told; none where none of it is.
fn asked_of(wanted: &Change, told: &Parts) -> Option<Change> {
    match plain(wanted) {
        Change::Light(change) => {
            let asked = told.restrict(&change);
            (asked != LightChange::default()).then_some(Change::Light(asked))
        }
        Change::Switch { on } => told.on.map(|_| Change::Switch { on }),
        Change::Press => None,
    }
}

/// What is really sent: whoever switches a light off over MQTT cannot change the rest of it at the same time.
fn plain(wanted: &Change) -> Change {
    match wanted {
        Change::Light(change) if change.on == Some(false) => {
            Change::Light(LightChange { on: Some(false), ..LightChange::default() })
        }
        Change::Light(change) => {
            Change::Light(LightChange { transition_ms: 0, palette: None, ..change.clone() })
        }
        other => other.clone(),
    }
}

fn shown(state: Option<State>) -> String {
    match state {
        Some(State::Light(light)) => {
            let on = if light.on { "on" } else { "off" };
            let percent = crate::model::color::to_percent(light.brightness);
            format!("{on}, brightness {percent} %, {:?}", light.color)
        }
        Some(State::Switch { on }) => (if on { "on" } else { "off" }).to_owned(),
        Some(State::Button { .. }) | None => "nothing".to_owned(),
    }
}
