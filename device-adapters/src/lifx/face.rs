//! What one device of a piece of hardware shows, and how it is asked and told. Each kind is a file of its own: a
//! [`Light`](super::light::Light), its [`Infrared`](super::infrared::Infrared) emitter, its cycle of
//! [`Cleaning`](super::cleaning::Cleaning), a [`Relay`](super::relay::Relay).

use std::collections::BTreeMap;
use std::fmt;

use tokio::time::Instant;

use crate::model::{Capabilities, Change, Measurement, Sensors, State, Tolerance};

use super::identity::Identity;
use super::pending::Pending;
use super::wire::{Reply, Request};

/// A message that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    /// The message.
    pub(crate) request: Request,
    /// Whether somebody asked for it: the command does without the others.
    pub(crate) required: bool,
}

impl Set {
    /// One that carries out what was asked for.
    pub(crate) fn required(request: Request) -> Self {
        Self { request, required: true }
    }

    /// One that only helps.
    pub(crate) fn optional(request: Request) -> Self {
        Self { request, required: false }
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    /// Since when at the latest it is so.
    pub(crate) asked: Instant,
    /// The state.
    pub(crate) state: State,
    /// What the sensors yielded.
    pub(crate) measured: BTreeMap<String, Measurement>,
}

impl Shown {
    /// A state of what measures nothing.
    pub(crate) fn state(asked: Instant, state: State) -> Self {
        Self { asked, state, measured: BTreeMap::new() }
    }
}

/// Whether a state shows what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// It does.
    pub(crate) is_shown: bool,
    /// What has to be sent first when it is told again.
    pub(crate) first: Option<Request>,
}

/// What a device shows, and how it is asked and told.
pub(crate) trait Face: fmt::Debug + Send {
    /// What it can do, with a remark when that is a guess; none while that is unknown.
    fn capabilities(&self, identity: &Identity) -> Option<(Capabilities, Option<String>)>;

    /// The questions for the state whose answers are missing. There is at least one while a state is.
    fn questions(&mut self, now: Instant, identity: &Identity) -> Vec<Request>;

    /// Takes an answer that may be reported, be it that the question is not known. The state, once all of it is read.
    fn read(&mut self, pending: &Pending, reply: &Reply, identity: &Identity) -> Option<Shown>;

    /// The Sets of a change; none until it is known what they build on.
    fn plan(&mut self, now: Instant, wanted: &Change, identity: &Identity) -> Option<Vec<Set>>;

    /// What it measures.
    fn sensors(&self) -> Sensors {
        Sensors::new()
    }

    /// The questions for what a change builds on and is not known. A message may say more than the change does.
    fn basis(&self, _now: Instant, _wanted: &Change, _identity: &Identity) -> Vec<Request> {
        Vec::new()
    }

    /// How a change does without what it builds on, for people: the end of a sentence.
    fn without_basis(&self, _wanted: &Change) -> &'static str {
        ""
    }

    /// Whether a state shows what was asked for.
    fn judge(&self, wanted: &Change, state: &State, _identity: &Identity) -> Judgement {
        Judgement { is_shown: wanted.matches(state, &Tolerance::default()), first: None }
    }

    /// It told something, whether or not that may be reported; nothing was sent since it was asked.
    fn told(&mut self, _now: Instant, _pending: &Pending, _reply: &Reply, _identity: &Identity) {}

    /// It acknowledged a Set.
    fn acknowledged(&mut self, _now: Instant, _pending: &Pending) {}

    /// It does not know that Set.
    fn refused(&mut self, _request: &Request) {}

    /// A Set is being sent.
    fn sending(&mut self) {}

    /// What was read of a state that is not complete counts no more.
    fn clear(&mut self) {}

    /// It may show anything by now.
    fn forget(&mut self) {}

    /// What was not answered in a long time is asked again.
    fn retry(&mut self) {}

    /// Whether it answers, and not all that it is asked.
    fn is_stuck(&self) -> bool {
        false
    }
}
