//! The answers that together make the state of a light: its colour and power, and where it has them its zones
//! and its effect. Pure.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{ColorMode, LightState, MOST_RUNS, Zone, color};

use super::layout::{Layout, Told};
use super::wire::{Effect, Hsbk, Reply, Request};

/// Answers to what was asked within this time belong together.
const TOGETHER: Duration = Duration::from_secs(2);
/// Questions in a row that a bulb leaves unanswered, while it tells its colour, before it is read without.
const GIVE_UP_AFTER: u32 = 12;

/// A read that is not complete: what the bulb told so far of what is asked for together.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    light: Option<(Instant, Hsbk, bool)>,
    zones: Option<Zones>,
    effect: Option<(Instant, Effect)>,
    /// How often in a row each was asked in vain.
    zones_unanswered: u32,
    effect_unanswered: u32,
}

/// What the zones show, as far as it is known.
#[derive(Debug)]
pub(crate) struct Zones {
    /// When the oldest of it was asked.
    pub(crate) since: Instant,
    colors: Vec<Option<Hsbk>>,
}

impl Zones {
    /// Takes what was told, asked at `asked`. What was known of another number of zones is forgotten.
    pub(crate) fn take(known: &mut Option<Self>, asked: Instant, told: Told<'_>) {
        let same = known.take().filter(|zones| zones.colors.len() == told.count);
        let mut zones = same.unwrap_or_else(|| Self { since: asked, colors: vec![None; told.count] });
        zones.since = zones.since.min(asked);
        for (zone, color) in zones.colors.iter_mut().skip(told.first).zip(told.colors) {
            *zone = Some(*color);
        }
        *known = Some(zones);
    }

    /// What these zones show, once all of them are known.
    pub(crate) fn told(&self, wanted: &Range<usize>) -> Option<Vec<Hsbk>> {
        self.colors.get(wanted.clone())?.iter().copied().collect()
    }

    /// Whether one of these zones is not known.
    fn lacks(&self, wanted: &Range<usize>) -> bool {
        self.colors.iter().skip(wanted.start).take(wanted.len()).any(Option::is_none)
    }
}

impl Partial {
    /// Nothing that was told counts any more: the bulb was told to change.
    pub(crate) fn clear(&mut self) {
        (self.light, self.zones, self.effect) = (None, None, None);
    }

    /// Asks again for what was given up.
    pub(crate) fn retry(&mut self) {
        (self.zones_unanswered, self.effect_unanswered) = (0, 0);
    }

    /// The questions for what is missing.
    pub(crate) fn questions(&mut self, now: Instant, layout: Layout) -> Vec<Request> {
        self.forget_old(now);
        let told = self.light.is_some();
        let mut missing = Vec::with_capacity(3);
        if !told {
            missing.push(Request::LightGet);
        }
        let zones = self.zones_missing(layout);
        if !zones.is_empty() {
            self.zones_unanswered += u32::from(told);
            missing.extend(zones);
        }
        if !self.has_effect(layout) {
            self.effect_unanswered += u32::from(told);
            missing.extend(layout.effect_question());
        }
        missing
    }

    /// Whether the bulb answers, and not all that it is asked.
    pub(crate) fn is_stuck(&self) -> bool {
        self.light.is_some()
    }

    /// Takes an answer to what was asked at `asked`.
    pub(crate) fn take(&mut self, asked: Instant, reply: &Reply, layout: Layout) {
        if let Some(told) = layout.told(reply) {
            self.zones_unanswered = 0;
            Zones::take(&mut self.zones, asked, told);
        }
        match reply {
            Reply::LightState { hsbk, power, .. } => self.light = Some((asked, *hsbk, *power > 0)),
            Reply::StateMultiZoneEffect(effect) | Reply::StateTileEffect(effect) => {
                self.effect_unanswered = 0;
                self.effect = Some((asked, *effect));
            }
            _ => {}
        }
    }

    /// The bulb does not know the question: it is read without.
    pub(crate) fn refused(&mut self, asked: Instant, request: &Request) {
        match request {
            Request::GetColorZones(..) | Request::GetExtendedColorZones | Request::Get64 { .. } => {
                self.zones = Some(Zones { since: asked, colors: Vec::new() });
            }
            Request::GetMultiZoneEffect | Request::GetTileEffect => self.effect = Some((asked, Effect::Off)),
            _ => {}
        }
    }

    /// The state, once all is known, and since when at the latest it is so. The next one starts from nothing. It may
    /// have more runs of zones than a state that is passed on; see [`bounded`].
    pub(crate) fn complete(&mut self, layout: Layout) -> Option<(Instant, LightState, Effect)> {
        if !self.zones_missing(layout).is_empty() || !self.has_effect(layout) {
            return None;
        }
        let (mut asked, hsbk, on) = self.light.take()?;
        let (zones, effect) = (self.zones.take(), self.effect.take());
        asked = zones.as_ref().map_or(asked, |zones| zones.since.min(asked));
        asked = effect.map_or(asked, |(at, _)| at.min(asked));
        let effect = effect.map_or(Effect::Off, |(_, effect)| effect);
        let mut state = LightState::plain(on, hsbk.brightness, hsbk.color());
        state.effect = effect.name().map(str::to_owned);
        // What an effect shows is another thing a moment later.
        let colors = zones.and_then(|zones| zones.told(&(0..zones.colors.len())));
        if let Some(colors) = colors.filter(|_| effect == Effect::Off) {
            show_zones(&mut state, &colors);
        }
        Some((asked, state, effect))
    }

    /// The questions for the zones that are not known.
    fn zones_missing(&self, layout: Layout) -> Vec<Request> {
        if self.zones_unanswered >= GIVE_UP_AFTER {
            return Vec::new();
        }
        layout.zones_questions(|zones| self.zones.as_ref().is_none_or(|known| known.lacks(zones)))
    }

    fn has_effect(&self, layout: Layout) -> bool {
        let told = self.effect.is_some();
        told || layout.effect_question().is_none() || self.effect_unanswered >= GIVE_UP_AFTER
    }

    fn forget_old(&mut self, now: Instant) {
        let fresh = |asked: Instant| asked + TOGETHER > now;
        self.light = self.light.filter(|(asked, ..)| fresh(*asked));
        self.zones = self.zones.take().filter(|zones| fresh(zones.since));
        self.effect = self.effect.filter(|(asked, _)| fresh(*asked));
    }
}

/// Puts the zones into the state: one colour when they are alike, else all their runs, their mean brightness and
/// the colour of the longest run.
fn show_zones(state: &mut LightState, colors: &[Hsbk]) {
    let runs = runs(colors);
    let Some(longest) = runs.iter().rev().max_by_key(|run| run.count) else { return };
    let sum: u64 = colors.iter().map(|hsbk| u64::from(hsbk.brightness)).sum();
    let mean = sum / u64::try_from(colors.len().max(1)).unwrap_or(u64::MAX);
    state.brightness = u16::try_from(mean).unwrap_or(u16::MAX);
    state.color = longest.color;
    state.zones = Some(runs).filter(|runs| runs.len() > 1);
}

/// The state with no more runs of zones than one holds: those that differ least, and in the fewest zones, become one.
pub(crate) fn bounded(mut state: LightState) -> LightState {
    let Some(runs) = &mut state.zones else { return state };
    while runs.len() > MOST_RUNS {
        let cost = |(a, b): (&Zone, &Zone)| difference(a, b) * u32::from(a.count.min(b.count));
        let pairs = runs.iter().zip(runs.iter().skip(1)).map(cost).enumerate();
        let Some((index, _)) = pairs.min_by_key(|(_, cost)| *cost) else { break };
        let second = runs.remove(index + 1);
        if let Some(first) = runs.get_mut(index) {
            let longer = if second.count > first.count { second } else { *first };
            *first = Zone { count: first.count.saturating_add(second.count), ..longer };
        }
    }
    state
}

/// How different two zones look, 0 to some ten thousand.
fn difference(a: &Zone, b: &Zone) -> u32 {
    let xy = |zone: &Zone| match zone.color {
        ColorMode::Color(xy) => xy,
        ColorMode::Temperature { kelvin } => color::kelvin_to_xy(kelvin),
        ColorMode::None => color::kelvin_to_xy(6_500),
    };
    let (here, there) = (xy(a), xy(b));
    let apart = [here.x.abs_diff(there.x), here.y.abs_diff(there.y), a.brightness.abs_diff(b.brightness) / 4];
    apart.into_iter().map(u32::from).sum()
}

/// Neighbours that are alike, as one.
fn runs(colors: &[Hsbk]) -> Vec<Zone> {
    let mut runs: Vec<Zone> = Vec::new();
    for hsbk in colors {
        let (color, brightness) = (hsbk.color(), hsbk.brightness);
        match runs.last_mut().filter(|run| (run.color, run.brightness) == (color, brightness)) {
            Some(run) => run.count = run.count.saturating_add(1),
            None => runs.push(Zone { count: 1, color, brightness }),
        }
    }
    runs
}
