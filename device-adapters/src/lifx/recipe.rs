//! What a change of a light needs: what must be known before, which Sets carry it, and when it is shown. Pure.

use crate::model::{ColorMode, KelvinRange, LightChange, LightState, NO_EFFECT, Tolerance, Zone, color};

use super::basis::{Base, Needs};
use super::face::Set;
use super::layout::Layout;
use super::wire::{Effect, Hsbk, Request};

/// What the messages of a change depend on, beside the change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means {
    /// The whites that the bulb has.
    pub(crate) whites: KelvinRange,
    /// How its zones lie.
    pub(crate) layout: Layout,
    /// Whether it may be running an effect, as far as is known. That it does is not known before it was read.
    pub(crate) runs_effect: bool,
}

/// What must be known before a change is sent: a message says more than the change does.
///
/// `LightSetColor` always carries the whole colour, and a bulb that fades up from dark must take its colour
/// first; a message for a tile holds all of its zones.
pub(crate) fn needs(wanted: &LightChange, layout: Layout) -> Needs {
    let complete = match (wanted.brightness, wanted.color) {
        (None, None) => wanted.zones.is_some(),
        (Some(_), None) => layout != Layout::Point, // there is a message for the brightness alone
        (brightness, _) => brightness.is_some(),
    };
    let fades_up = wanted.on == Some(true) && wanted.transition_ms > 0;
    let painted = wanted.zones.iter().flatten().map(|zone| usize::from(zone.count)).sum();
    Needs { light: touches_color(wanted) && (!complete || fades_up), zones: layout.kept(painted) }
}

/// The Sets, now that what they need is known: the colour and power, and the colours of the zones that are kept.
pub(crate) fn sets(wanted: &LightChange, base: Option<&Base>, kept: &[Hsbk], means: Means) -> Vec<Set> {
    let from_dark = wanted.on == Some(true) && base.is_some_and(|base| !base.on);
    let fade = if from_dark { 0 } else { wanted.transition_ms };
    let mut sets = Vec::with_capacity(4);
    // An effect hides colours, so one that runs ends when a colour is asked for.
    if wanted.effect.is_none() && shows_colors(wanted) && means.runs_effect {
        sets.extend(means.layout.set_effect(Effect::Off).map(Set::optional));
    }
    let mut requests = color_sets(wanted, base, kept, means, fade);
    let effect = wanted.effect.as_deref().map(Effect::named);
    requests.extend(effect.and_then(|effect| means.layout.set_effect(effect)));
    requests.extend(wanted.on.map(|on| Request::LightSetPower(on, wanted.transition_ms)));
    sets.extend(requests.into_iter().map(Set::required));
    sets
}

/// Whether the state shows what was asked for. While an effect runs the colours are those of the effect, another
/// each moment: then power and effect tell, and colours that were asked for are not to be seen.
pub(crate) fn is_shown(wanted: &LightChange, state: &LightState) -> bool {
    let wanted = wanted.clone();
    let asked = match wanted.effect.as_deref() {
        None if shows_colors(&wanted) => LightChange { effect: Some(NO_EFFECT.to_owned()), ..wanted },
        None | Some(NO_EFFECT) => wanted,
        Some(_) => LightChange { brightness: None, color: None, zones: None, ..wanted },
    };
    asked.matches(state, &Tolerance::default())
}

/// Whether it asks for colours, which an effect would hide.
pub(crate) fn shows_colors(wanted: &LightChange) -> bool {
    wanted.color.is_some() || wanted.zones.is_some()
}

fn touches_color(wanted: &LightChange) -> bool {
    wanted.brightness.is_some() || shows_colors(wanted)
}

fn color_sets(
    wanted: &LightChange,
    base: Option<&Base>,
    kept: &[Hsbk],
    means: Means,
    fade: u32,
) -> Vec<Request> {
    if let Some(zones) = &wanted.zones {
        let run = |zone: &Zone| (zone.count, colored(Some(zone.color), zone.brightness, None, means.whites));
        let runs: Vec<_> = zones.iter().map(run).collect();
        return means.layout.paint(&runs, kept, fade);
    }
    match (wanted.color, wanted.brightness) {
        (None, None) => Vec::new(),
        // Each zone keeps the colour that it has.
        (None, Some(brightness)) if means.layout != Layout::Point => {
            vec![Request::SetBrightness(brightness, fade)]
        }
        _ => vec![Request::LightSetColor(target(wanted, base, means.whites), fade)],
    }
}

/// The whole colour that `wanted` leads to.
fn target(wanted: &LightChange, base: Option<&Base>, whites: KelvinRange) -> Hsbk {
    let was = base.map(|base| base.hsbk);
    let brightness = wanted.brightness.or(was.map(|was| was.brightness)).unwrap_or(u16::MAX);
    colored(wanted.color, brightness, was, whites)
}

/// A colour in the bulb's terms; without one, the colour that it has.
fn colored(color: Option<ColorMode>, brightness: u16, was: Option<Hsbk>, whites: KelvinRange) -> Hsbk {
    let neutral = |kelvin: u16| kelvin.max(whites.min_k).min(whites.max_k);
    let was = was.unwrap_or(Hsbk { hue: 0, saturation: 0, brightness, kelvin: neutral(3_500) });
    match color {
        None | Some(ColorMode::None) => Hsbk { brightness, ..was },
        Some(ColorMode::Temperature { kelvin }) => Hsbk { saturation: 0, brightness, kelvin, ..was },
        Some(ColorMode::Color(xy)) => {
            let (hue, saturation) = color::xy_to_hue_saturation(xy);
            // Saturation 0 would be the other mode; and the white that a colour is mixed with is
            // D65 in the model, so the bulb mixes with the nearest that it has.
            Hsbk { hue, saturation: saturation.max(1), brightness, kelvin: neutral(6_500) }
        }
    }
}
