//! What the edges of an input mean: a level that has settled, a press, a long press. Pure.
//!
//! A press is told when the button is let go, because only then it is known to be no long one; a long press is told
//! while the button is still held, and its end as `release`, so that a lamp can be dimmed in between.

use std::time::Duration;

use tokio::time::Instant;

/// The button was held shorter than a long press.
pub(super) const PRESS: &str = "press";
/// The button is held for that long.
pub(super) const LONG_PRESS: &str = "long_press";
/// The button was let go after a long press.
pub(super) const RELEASE: &str = "release";
/// All events of a button.
pub(super) const EVENTS: [&str; 3] = [PRESS, LONG_PRESS, RELEASE];

/// What an input tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The level has settled on another value.
    Level(bool),
    /// One of [`EVENTS`].
    Pressed(&'static str),
}

/// How edges are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// How long a level must last to count. Zero where the kernel sees to it.
    pub(super) debounce: Duration,
    /// How long a press must last to be a long one; none of a line that is no button.
    pub(super) long_press: Option<Duration>,
}

/// One input.
#[derive(Debug)]
pub(super) struct Input {
    timing: Timing,
    settled: bool,
    /// Another level, and when it will have lasted long enough.
    settles: Option<(bool, Instant)>,
    /// When the press that lasts becomes a long one; none after it did.
    long_at: Option<Instant>,
    is_long: bool,
}

impl Input {
    /// An input that has this level. A button that is held at the start was not pressed.
    pub(super) fn new(timing: Timing, level: bool) -> Self {
        Self { timing, settled: level, settles: None, long_at: None, is_long: true }
    }

    /// The level that it settled on.
    pub(super) fn settled(&self) -> bool {
        self.settled
    }

    /// It has this level from then on. What was due before that must have been done.
    pub(super) fn edge(&mut self, at: Instant, level: bool) -> Option<Told> {
        if level == self.settled {
            self.settles = None;
            None
        } else if self.timing.debounce.is_zero() {
            self.settle(at, level)
        } else {
            // Who says the same again, as a poll does, does not make it begin anew.
            self.settles.get_or_insert((level, at + self.timing.debounce));
            None
        }
    }

    /// When [`Input::handle_timeout`] must be called, unless an edge was before that.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let settles = self.settles.map(|(_, at)| at);
        settles.into_iter().chain(self.long_at).min()
    }

    /// Does what is due; one thing at a time, what was due first before the other.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Told> {
        let long_at = self.long_at.filter(|at| *at <= now);
        let settles = self.settles.filter(|(_, at)| *at <= now);
        match settles {
            // A press that was let go just in time is no long one.
            Some((level, at)) if long_at.is_none_or(|long_at| at <= long_at) => self.settle(at, level),
            _ => {
                long_at?;
                (self.long_at, self.is_long) = (None, true);
                Some(Told::Pressed(LONG_PRESS))
            }
        }
    }

    fn settle(&mut self, at: Instant, level: bool) -> Option<Told> {
        (self.settled, self.settles) = (level, None);
        let Some(long_press) = self.timing.long_press else { return Some(Told::Level(level)) };
        if level {
            (self.long_at, self.is_long) = (Some(at + long_press), false);
            return None;
        }
        let was_told = self.long_at.take().is_none() && self.is_long;
        Some(Told::Pressed(if was_told { RELEASE } else { PRESS }))
    }
}
