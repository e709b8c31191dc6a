//! What a bulb showed a moment ago: a command builds on it where a message says more than the command does.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::layout::{Layout, Told};
use super::pending::Pending;
use super::reading::Zones;
use super::wire::{Hsbk, Request};

/// How old it may be. Somebody with another app may have changed the colour since, and a command for brightness must
/// not undo that.
pub(crate) const FRESH: Duration = Duration::from_secs(1);

/// What a bulb showed last, or was last known to have accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base {
    /// The colour.
    pub(crate) hsbk: Hsbk,
    /// Whether it was on.
    pub(crate) on: bool,
    /// When this was known.
    at: Instant,
    /// How many Sets had been sent when this was known.
    sets: u64,
}

/// What a command builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The colour and power.
    pub(crate) light: bool,
    /// What these zones show.
    pub(crate) zones: Range<usize>,
}

/// All that is known of that.
#[derive(Debug, Default)]
pub(crate) struct Basis {
    light: Option<Base>,
    zones: Option<Zones>,
}

impl Basis {
    /// It may show anything by now.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// A Set is being sent: what zones show after it they must tell.
    pub(crate) fn outdate(&mut self) {
        self.zones = None;
    }

    /// It told its colour; nothing was sent since it was asked.
    pub(crate) fn light_told(&mut self, pending: &Pending, hsbk: Hsbk, on: bool) {
        self.light = Some(Base { hsbk, on, at: pending.at, sets: pending.sets });
    }

    /// It told what some zones show; nothing was sent since it was asked.
    pub(crate) fn zones_told(&mut self, now: Instant, pending: &Pending, told: Told<'_>) {
        self.zones = self.zones.take().filter(|zones| zones.since + FRESH > now);
        Zones::take(&mut self.zones, pending.at, told);
    }

    /// It acknowledged what was sent.
    pub(crate) fn acknowledged(&mut self, now: Instant, pending: &Pending) {
        if pending.request.is_of_zones() {
            self.light = None; // what the bulb makes of its zones it must tell
        }
        let Some(base) = self.light.as_mut().filter(|base| base.sets < pending.sets) else { return };
        match &pending.request {
            Request::LightSetColor(hsbk, _) => base.hsbk = *hsbk,
            Request::LightSetPower(on, _) => base.on = *on,
            Request::SetBrightness(brightness, _) => base.hsbk.brightness = *brightness,
            _ => return,
        }
        (base.at, base.sets) = (now, pending.sets);
    }

    /// The colour and power, if they are known, and the colours of the zones; none until all is known that is needed.
    pub(crate) fn known(&self, now: Instant, needs: &Needs) -> Option<(Option<&Base>, Vec<Hsbk>)> {
        let light = self.light(now);
        let zones = self.zones(now, &needs.zones)?;
        (light.is_some() || !needs.light).then_some((light, zones))
    }

    /// The questions for what is needed and not known.
    pub(crate) fn questions(&self, now: Instant, needs: &Needs, layout: Layout) -> Vec<Request> {
        let is_needed = |zones: &Range<usize>| zones.start < needs.zones.end && needs.zones.start < zones.end;
        let mut questions =
            layout.zones_questions(|zones| is_needed(zones) && self.zones(now, zones).is_none());
        questions.extend((needs.light && self.light(now).is_none()).then_some(Request::LightGet));
        questions
    }

    fn light(&self, now: Instant) -> Option<&Base> {
        self.light.as_ref().filter(|base| base.at + FRESH > now)
    }

    fn zones(&self, now: Instant, wanted: &Range<usize>) -> Option<Vec<Hsbk>> {
        if wanted.is_empty() {
            return Some(Vec::new());
        }
        self.zones.as_ref().filter(|zones| zones.since + FRESH > now)?.told(wanted)
    }
}
