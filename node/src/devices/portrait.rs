//! What a device is now, in the form in which it can be asked to be so again.

use device_adapters::model::{
    Availability, Capabilities, Change, ColorMode, DeviceId, LightCapabilities, LightChange, LightState,
    NO_EFFECT, State, Tolerance,
};
use serde_json::{Map, Value as Json, json};

use super::{submit::absolute, table::Device};
use crate::{
    api::ports::{self, Power},
    service::ObjectView,
};

/// A device, as its object shows it.
pub(crate) struct Portrait {
    device: Device,
    can: Option<Capabilities>,
}

impl Portrait {
    /// None for an object that is no device.
    pub(crate) fn of(view: &ObjectView) -> Option<Self> {
        let id = DeviceId::new(view.id.name()).ok().filter(|_| view.id.kind() == "device")?;
        let mut device = Device::new(id, view.id.clone());
        device.see(view);
        let can = device.capabilities();
        Some(Self { device, can })
    }

    /// The command that was given to it last.
    pub(crate) fn last_command(&self) -> Option<String> {
        self.device.desired.as_ref().map(|asked| asked.command.to_string())
    }

    /// Whether it was asked and does not answer.
    pub(crate) fn is_offline(&self) -> bool {
        self.device.available.as_ref().is_some_and(|available| available.state == Availability::Offline)
    }

    /// The change that makes it what it is, in the form of the API; what it is about to be, where its last command is under way.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(crate) fn change(&self, under_way: bool) -> Result<Json, &'static str> {
        match &self.can {
            Some(Capabilities::Sensor | Capabilities::Weather(_)) => return Err("it only measures"),
            Some(Capabilities::Button(_)) => return Err("a button has no state to go back to"),
            Some(Capabilities::Light(_) | Capabilities::Switch) | None => {}
        }
        match self.state(under_way) {
            Some(State::Light(light)) => Ok(words(&remade(&light, self.light()))),
            Some(State::Switch { on }) => Ok(json!({ "on": on })),
            Some(State::Button { .. }) => Err("a button has no state to go back to"),
            None => Err("nothing is known of its state yet: wait until it has been heard of"),
        }
    }

    /// Whether it is, or is about to be, what a change would make of it.
    pub(crate) fn is(&self, wanted: &ports::Change, under_way: bool) -> bool {
        let wanted = self.fitted(wanted);
        self.state(under_way).is_some_and(|state| wanted.matches(&state, &Tolerance::default()))
    }

    /// Whether that is what its last command asked for.
    pub(crate) fn was_asked(&self, wanted: &ports::Change) -> bool {
        let Some(asked) = &self.device.desired else { return false };
        match (&asked.change, self.fitted(wanted)) {
            (Change::Light(asked), Change::Light(wanted)) => {
                let wanted = LightChange { transition_ms: asked.transition_ms, ..wanted };
                asked.then(&wanted) == *asked
            }
            (asked, wanted) => *asked == wanted,
        }
    }

    /// Whether it fades; what says nothing of that may.
    pub(crate) fn fades(&self) -> bool {
        match &self.can {
            Some(Capabilities::Light(light)) => light.transition,
            Some(_) => false,
            None => true,
        }
    }

    fn light(&self) -> Option<&LightCapabilities> {
        match &self.can {
            Some(Capabilities::Light(light)) => Some(light),
            _ => None,
        }
    }

    fn fitted(&self, wanted: &ports::Change) -> Change {
        let change = absolute(wanted, |power| power == Power::On);
        match self.can.as_ref().map(|can| can.fit(&change)) {
            Some(Ok(fitted)) => fitted,
            Some(Err(_)) | None => change,
        }
    }

    fn state(&self, under_way: bool) -> Option<State> {
        let reported = self.device.reported.as_ref()?.value.clone();
        let asked = self.device.desired.as_ref().filter(|_| under_way).map(|asked| &asked.change);
        Some(match (reported, asked) {
            (State::Light(light), Some(Change::Light(change))) => State::Light(after(light, change)),
            (State::Switch { .. }, Some(Change::Switch { on })) => State::Switch { on: *on },
            (reported, _) => reported,
        })
    }
}

/// A light once a change is carried out.
fn after(light: LightState, change: &LightChange) -> LightState {
    let color = change.color.filter(|color| *color != ColorMode::None);
    let zones = change.zones.clone().or_else(|| light.zones.filter(|_| color.is_none())).map(|mut zones| {
        zones.iter_mut().for_each(|zone| zone.brightness = change.brightness.unwrap_or(zone.brightness));
        zones
    });
    LightState {
        on: change.on.unwrap_or(light.on),
        brightness: change.brightness.unwrap_or(light.brightness),
        color: color.unwrap_or(light.color),
        effect: change.effect.clone().or(light.effect).filter(|effect| effect != NO_EFFECT),
        palette: change.palette.clone().or(light.palette),
        zones,
    }
}

/// The change that makes a light what it is. One that is off is off, whatever it would show.
fn remade(light: &LightState, can: Option<&LightCapabilities>) -> LightChange {
    if !light.on {
        return LightChange { on: Some(false), ..LightChange::default() };
    }
    let has = |ability: fn(&LightCapabilities) -> bool| can.is_none_or(ability);
    let is_known = |name: &String, names: fn(&LightCapabilities) -> &Vec<String>| {
        can.is_none_or(|can| names(can).contains(name))
    };
    let effect = light.effect.clone().filter(|effect| is_known(effect, |can| &can.effects));
    let zones = light.zones.clone().filter(|zones| {
        // What an effect makes of its zones is not theirs to keep.
        effect.is_none()
            && has(|can| can.zones.is_some())
            && zones.iter().all(|zone| zone.color != ColorMode::None)
    });
    let is_one = zones.is_none();
    let color = Some(light.color).filter(|color| match color {
        ColorMode::None => false,
        ColorMode::Temperature { .. } => has(|can| can.color_temperature.is_some()),
        ColorMode::Color(_) => has(|can| can.color.is_some()),
    });
    let palette =
        light.palette.clone().filter(|name| effect.is_some() && is_known(name, |can| &can.palettes));
    let ends_effects = can.is_some_and(|can| !can.effects.is_empty());
    let change = LightChange {
        on: Some(true),
        brightness: Some(light.brightness).filter(|_| is_one && has(|can| can.brightness)),
        color: color.filter(|_| is_one),
        effect: effect.or_else(|| ends_effects.then(|| NO_EFFECT.to_owned())),
        palette,
        zones,
        transition_ms: 0,
    };
    // What it says beyond its own bounds nobody could ask for.
    can.and_then(|can| can.fit(&change).ok()).unwrap_or(change)
}

/// A change in the form of the API.
fn words(change: &LightChange) -> Json {
    let mut said = Map::new();
    said.extend(change.on.map(|on| ("on".to_owned(), json!(on))));
    said.extend(change.brightness.map(|brightness| ("brightness".to_owned(), percent(brightness))));
    said.extend(change.color.and_then(color));
    said.extend(change.effect.as_ref().map(|effect| ("effect".to_owned(), json!(effect))));
    said.extend(change.palette.as_ref().map(|palette| ("palette".to_owned(), json!(palette))));
    let zones = change.zones.iter().flatten().map(|zone| {
        let mut said = Map::new();
        said.insert("count".to_owned(), json!(zone.count));
        said.insert("brightness".to_owned(), percent(zone.brightness));
        said.extend(color(zone.color));
        Json::Object(said)
    });
    if change.zones.is_some() {
        said.insert("zones".to_owned(), zones.collect());
    }
    Json::Object(said)
}

fn color(color: ColorMode) -> Option<(String, Json)> {
    match color {
        ColorMode::None => None,
        ColorMode::Temperature { kelvin } => Some(("kelvin".to_owned(), json!(kelvin))),
        ColorMode::Color(xy) => {
            Some(("color".to_owned(), json!({ "x": rounded(xy.x, 1.0, 1e5), "y": rounded(xy.y, 1.0, 1e5) })))
        }
    }
}

fn percent(brightness: u16) -> Json {
    json!(rounded(brightness, 100.0, 1e3))
}

/// Parts of 65 535 with as many decimals as they need to come back as they were.
fn rounded(parts: u16, whole: f64, decimals: f64) -> f64 {
    (f64::from(parts) / 65_535.0 * whole * decimals).round() / decimals
}

#[cfg(test)]
mod tests;
