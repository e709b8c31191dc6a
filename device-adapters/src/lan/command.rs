//! One command on its way to a board. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Change, CommandId, LightChange, State, Tolerance, color};

/// How long after the end of a transition the state is read.
const AFTER_TRANSITION: Duration = Duration::from_millis(100);
/// How long to wait before a board that acknowledged and shows something else is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// The first wait after a read that was refused; it doubles up to the last.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// What a command needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// To be told.
    Tell,
    /// The state, to confirm.
    ReadBack,
}

/// A command on its way.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) id: CommandId,
    /// What it asks for, with what it took over from those that it superseded.
    pub(super) wanted: Change,
    pub(super) deadline: Instant,
    due: Instant,
    need: Need,
    sent: bool,
    acknowledged: bool,
    tries: u32,
    mismatches: u32,
    last_read: Option<State>,
    last_fault: Option<String>,
}

impl InFlight {
    /// A command that was just received.
    pub(super) fn new(id: CommandId, wanted: Change, deadline: Instant, now: Instant) -> Self {
        Self {
            id,
            wanted,
            deadline,
            due: now,
            need: Need::Tell,
            sent: false,
            acknowledged: false,
            tries: 0,
            mismatches: 0,
            last_read: None,
            last_fault: None,
        }
    }

    /// What it needs, and when.
    pub(super) fn need(&self) -> (Instant, Need) {
        (self.due, self.need)
    }

    /// Whether the board said that it received it.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// It is being told now; true the first time.
    pub(super) fn telling(&mut self) -> bool {
        !std::mem::replace(&mut self.sent, true)
    }

    /// The board acknowledged; true the first time.
    pub(super) fn told(&mut self, now: Instant) -> bool {
        let fade = Duration::from_millis(self.wanted.transition_ms().into());
        let settles = if fade.is_zero() { now } else { now + fade + AFTER_TRANSITION };
        (self.need, self.due, self.tries) = (Need::ReadBack, settles, 0);
        !std::mem::replace(&mut self.acknowledged, true)
    }

    /// The board answers nothing good: why, for people.
    pub(super) fn note(&mut self, why: &str) {
        self.last_fault = Some(why.to_owned());
    }

    /// The board tells no state.
    pub(super) fn refused(&mut self, now: Instant, why: &str) {
        self.due = now + (FIRST_RETRY * 2_u32.saturating_pow(self.tries.min(8))).min(LAST_RETRY);
        self.tries += 1;
        self.note(why);
    }

    /// Judges a state that was asked for at `asked_at`; true when it confirms.
    pub(super) fn judge(&mut self, now: Instant, asked_at: Instant, state: &State) -> bool {
        if self.need != Need::ReadBack || asked_at < self.due {
            return false; // not told yet, or still fading: neither proof nor disproof
        }
        if self.wanted.matches(state, &Tolerance::default()) {
            return true;
        }
        self.last_read = Some(state.clone());
        self.mismatches += 1;
        // Once it may be late; after that it is told again, for somebody else's change may have arrived last.
        self.need = if self.mismatches.is_multiple_of(2) { Need::Tell } else { Need::ReadBack };
        self.due = now + LOOK_AGAIN;
        false
    }

    /// A read told nothing of the state: it is asked for again a little later.
    pub(super) fn unseen(&mut self, now: Instant) {
        if self.need == Need::ReadBack {
            self.due = self.due.max(now + LOOK_AGAIN);
        }
    }

    /// Why it timed out, for people.
    pub(super) fn why_timed_out(&self, now: Instant) -> String {
        let fault = self.last_fault.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
        match (&self.last_read, self.acknowledged) {
            (Some(read), _) => format!(
                "the device acknowledged, but reads back {} instead of {}",
                of_state(read),
                of_change(&self.wanted)
            ),
            (None, true) if now < self.due && self.last_fault.is_none() => {
                "the device acknowledged, but its transition lasts longer than the deadline".to_owned()
            }
            (None, true) => {
                format!("the device acknowledged, but told no state before the deadline{fault}")
            }
            (None, false) if self.sent => {
                format!("the device did not acknowledge before the deadline{fault}")
            }
            (None, false) => {
                format!("the device had no time for the command before the deadline{fault}")
            }
        }
    }
}

fn of_state(state: &State) -> String {
    match state {
        State::Light(light) => of_light(&LightChange {
            on: Some(light.on),
            brightness: Some(light.brightness),
            color: Some(light.color),
            effect: light.effect.clone(),
            palette: light.palette.clone(),
            zones: None,
            transition_ms: 0,
        }),
        State::Switch { on } => power(*on).to_owned(),
        State::Button { event, .. } => event.clone(),
    }
}

fn of_change(change: &Change) -> String {
    match change {
        Change::Light(light) => of_light(light),
        Change::Switch { on } => power(*on).to_owned(),
        Change::Press => "a press".to_owned(),
    }
}

fn of_light(light: &LightChange) -> String {
    use crate::model::ColorMode;
    let mut words = Vec::new();
    words.extend(light.on.map(|on| power(on).to_owned()));
    words
        .extend(light.brightness.map(|brightness| format!("brightness {} %", color::to_percent(brightness))));
    match light.color {
        Some(ColorMode::Temperature { kelvin }) => words.push(format!("{kelvin} K")),
        Some(ColorMode::Color(xy)) => {
            let [red, green, blue] = color::xy_to_rgb(xy);
            words.push(format!("color #{red:02x}{green:02x}{blue:02x}"));
        }
        Some(ColorMode::None) | None => {}
    }
    words.extend(light.effect.as_ref().map(|effect| format!("effect {effect}")));
    words.extend(light.palette.as_ref().map(|palette| format!("palette {palette}")));
    words.join(", ")
}

fn power(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
