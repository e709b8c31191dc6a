//! The infrared emitter of a bulb for cameras that see at night ("Night Vision"): a light that only dims.
//!
//! What is read and set is how bright it is while the visible light is off; the bulb turns it down by itself while that
//! is on. It does not fade.
//!
//! Source: <https://lan.developer.lifx.com/docs/changing-a-device>, "SetInfrared".

use tokio::time::Instant;

use crate::model::{Capabilities, Change, ColorMode, LightCapabilities, LightChange, LightState, State};

use super::basis::FRESH;
use super::face::{Face, Set, Shown};
use super::identity::Identity;
use super::pending::Pending;
use super::wire::{Reply, Request};

/// The emitter.
#[derive(Debug)]
pub(crate) struct Infrared {
    /// How bright it is, and when that was known.
    level: Option<(Instant, u16)>,
    /// The brightness to which it returns: zero says that it is off, and no more.
    kept: u16,
}

impl Infrared {
    /// Nothing was read: it is switched on at full.
    pub(crate) fn new() -> Self {
        Self { level: None, kept: u16::MAX }
    }

    fn fresh(&self, now: Instant) -> Option<u16> {
        self.level.filter(|(at, _)| *at + FRESH > now).map(|(_, level)| level)
    }

    /// What a change leaves open stays as it is, so that must be known.
    fn is_complete(wanted: &LightChange) -> bool {
        wanted.on == Some(false) || (wanted.on.is_some() && wanted.brightness.is_some())
    }
}

impl Face for Infrared {
    fn capabilities(&self, _: &Identity) -> Option<(Capabilities, Option<String>)> {
        let dims = LightCapabilities { brightness: true, ..LightCapabilities::default() };
        Some((Capabilities::Light(dims), None))
    }

    fn questions(&mut self, _: Instant, _: &Identity) -> Vec<Request> {
        vec![Request::GetInfrared]
    }

    fn read(&mut self, pending: &Pending, reply: &Reply, _: &Identity) -> Option<Shown> {
        let Reply::StateInfrared(level) = reply else { return None };
        let brightness = if *level > 0 { *level } else { self.kept };
        let state = State::Light(LightState::plain(*level > 0, brightness, ColorMode::None));
        Some(Shown::state(pending.at, state))
    }

    fn told(&mut self, _: Instant, pending: &Pending, reply: &Reply, _: &Identity) {
        let Reply::StateInfrared(level) = reply else { return };
        self.level = Some((pending.at, *level));
        if *level > 0 {
            self.kept = *level;
        }
    }

    fn basis(&self, now: Instant, wanted: &Change, _: &Identity) -> Vec<Request> {
        match wanted {
            Change::Light(light) if !Self::is_complete(light) && self.fresh(now).is_none() => {
                vec![Request::GetInfrared]
            }
            _ => Vec::new(),
        }
    }

    fn without_basis(&self, _: &Change) -> &'static str {
        " (give both on and brightness to do without)"
    }

    fn plan(&mut self, now: Instant, wanted: &Change, _: &Identity) -> Option<Vec<Set>> {
        let Change::Light(wanted) = wanted else { return None };
        let level = self.fresh(now);
        if level.is_none() && !Self::is_complete(wanted) {
            return None;
        }
        let on = wanted.on.or(level.map(|level| level > 0))?;
        // What is on is not dark, and what is off remembers how bright it is to be.
        self.kept = wanted.brightness.unwrap_or(self.kept).max(1);
        let level = if on { self.kept } else { 0 };
        Some(vec![Set::required(Request::SetInfrared(level))])
    }

    fn acknowledged(&mut self, now: Instant, pending: &Pending) {
        if let Request::SetInfrared(level) = pending.request {
            self.level = Some((now, level));
        }
    }

    fn forget(&mut self) {
        self.level = None;
    }
}
