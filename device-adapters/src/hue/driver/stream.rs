//! The stream of events of a bridge: when it is opened, and whether it still tells anything. Pure.
//!
//! A bridge greets when the stream is opened and is silent then until something happens, so silence proves nothing. Whether
//! somebody is still at the other end is asked by TCP ([`crate::net`]); here, what is read beside it shows whether it still tells.

use std::time::Duration;

use tokio::time::Instant;

/// The pauses before a stream that ended is opened anew: the first and the longest. One that lasted so long counts as good.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const GOOD: Duration = Duration::from_secs(60);
/// Effects of commands that no event told, in a row, after which the stream is opened anew.
const MOST_MISSED: u32 = 2;
/// How long the event of what was read may still be under way: bridges gather events for up to a second.
const EVENT_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    Opening,
    Up,
}

/// The stream of one bridge.
#[derive(Debug)]
pub(super) struct Stream {
    phase: Phase,
    due: Instant,
    opened: Instant,
    /// When an event came last, or the stream was opened.
    told: Instant,
    /// How often it ended without an event since one came.
    ends: u32,
    missed: u32,
    /// Something was read that no event told; until then one may come.
    doubted: Option<Instant>,
}

impl Stream {
    /// It is due to be opened.
    pub(super) fn new(now: Instant) -> Self {
        Self { phase: Phase::Down, due: now, opened: now, told: now, ends: 0, missed: 0, doubted: None }
    }

    /// Whether it is open.
    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether it is being opened.
    pub(super) fn is_opening(&self) -> bool {
        self.phase == Phase::Opening
    }

    /// When it is to be opened, if it is down.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.phase == Phase::Down).then_some(self.due)
    }

    /// When it told something last, while it is open.
    pub(super) fn told(&self) -> Option<Instant> {
        self.is_up().then_some(self.told)
    }

    /// It is being opened now.
    pub(super) fn opening(&mut self) {
        self.phase = Phase::Opening;
    }

    /// It is open.
    pub(super) fn opened(&mut self, now: Instant) {
        self.phase = Phase::Up;
        (self.opened, self.told) = (now, now);
        (self.missed, self.doubted) = (0, None);
    }

    /// It ended, or could not be opened: then true.
    pub(super) fn ended(&mut self, now: Instant) -> bool {
        let was = std::mem::replace(&mut self.phase, Phase::Down);
        if was == Phase::Up && self.opened + GOOD <= now {
            self.ends = 0;
        }
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.ends.min(8));
        self.due = now + pause.min(LONGEST_PAUSE);
        self.ends = self.ends.saturating_add(1);
        was == Phase::Opening
    }

    /// It is dropped, and to be opened at once.
    pub(super) fn restart(&mut self, now: Instant) {
        (self.phase, self.due) = (Phase::Down, now);
    }

    /// An event came.
    pub(super) fn heard(&mut self, now: Instant) {
        (self.told, self.missed, self.ends, self.doubted) = (now, 0, 0, None);
    }

    /// A command had an effect, which no event told or one did.
    pub(super) fn effect(&mut self, is_missed: bool) {
        self.missed = if is_missed { self.missed.saturating_add(1) } else { 0 };
    }

    /// Something changed between two reads of all, the older of that time, and no event told it so far.
    pub(super) fn doubt(&mut self, now: Instant, older: Option<Instant>) {
        // What happened before the stream was open it need not tell.
        if self.is_up() && older.is_some_and(|older| older >= self.opened) {
            self.doubted.get_or_insert(now + EVENT_WITHIN);
        }
    }

    /// Whether it is to be dropped, because it tells nothing any more.
    pub(super) fn is_deaf(&self, now: Instant) -> bool {
        let is_doubted = self.doubted.is_some_and(|until| until <= now);
        self.is_up() && (self.missed >= MOST_MISSED || is_doubted)
    }
}
