//! What was asked for and what is shown, in words for people.

use crate::model::{Change, ColorMode, LightChange, LightState, State, Zone, color};

/// What was asked for.
pub(crate) fn asked(change: &Change) -> String {
    match change {
        Change::Light(light) => describe(light),
        Change::Switch { on } => describe_power(*on),
        Change::Press => "a press".to_owned(),
    }
}

/// What is shown.
pub(crate) fn shown(state: &State) -> String {
    match state {
        State::Light(light) => describe(&as_change(light)),
        State::Switch { on } => describe_power(*on),
        State::Button { event, .. } => event.clone(),
    }
}

fn as_change(state: &LightState) -> LightChange {
    let is_whole = state.zones.is_none();
    LightChange {
        on: Some(state.on),
        brightness: Some(state.brightness).filter(|_| is_whole),
        color: Some(state.color).filter(|_| is_whole),
        zones: state.zones.clone(),
        effect: state.effect.clone(),
        ..LightChange::default()
    }
}

fn describe(change: &LightChange) -> String {
    let on = change.on.map(describe_power);
    let brightness = change.brightness.map(describe_brightness);
    let color = change.color.and_then(describe_color);
    let zones = change.zones.as_deref().map(describe_zones);
    let effect = change.effect.as_ref().map(|effect| format!("effect {effect}"));
    [on, brightness, color, zones, effect].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn describe_power(on: bool) -> String {
    if on { "on".to_owned() } else { "off".to_owned() }
}

fn describe_brightness(brightness: u16) -> String {
    format!("brightness {} %", color::to_percent(brightness))
}

fn describe_color(color: ColorMode) -> Option<String> {
    let fraction = |value| f64::from(value) / 65_535.0;
    match color {
        ColorMode::None => None,
        ColorMode::Temperature { kelvin } => Some(format!("{kelvin} K")),
        ColorMode::Color(xy) => Some(format!("color x {:.3} y {:.3}", fraction(xy.x), fraction(xy.y))),
    }
}

/// The first few runs: enough to see what is different.
fn describe_zones(zones: &[Zone]) -> String {
    const SHOWN: usize = 4;
    let run = |zone: &Zone| {
        let color = describe_color(zone.color).map(|color| format!("{color} ")).unwrap_or_default();
        format!("{} zones of {color}{}", zone.count, describe_brightness(zone.brightness))
    };
    let more = if zones.len() > SHOWN { " and more" } else { "" };
    zones.iter().take(SHOWN).map(run).collect::<Vec<_>>().join(", ") + more
}
