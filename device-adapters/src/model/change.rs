//! Changes and states of devices of any kind.

use serde::{Deserialize, Serialize};

use super::{
    color,
    device::Capabilities,
    light::{ColorMode, LightCapabilities, LightChange, LightState, MOST_RUNS, NO_EFFECT, Tolerance, Zone},
};

/// An absolute change of a device. Carried out twice it is the same as once, but for a press.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// Of a light.
    Light(LightChange),
    /// Of a switch.
    Switch {
        /// On or off.
        on: bool,
    },
    /// A button is pressed. Nothing can be read back, and two owners on the two sides of a cut may both press it.
    Press,
}

/// The state of a device that has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum State {
    /// Of a light.
    Light(LightState),
    /// Of a switch.
    Switch {
        /// On or off.
        on: bool,
    },
    /// Of a button that people press.
    Button {
        /// What happened last, one of the events that it is able to tell.
        event: String,
        /// Another number for each press, also across runs, so that the same again is news; zero for one from before the
        /// run, which is told so that it is known and was no press now.
        count: u64,
    },
}

impl State {
    /// Whether it is on; none of what is neither on nor off.
    #[must_use]
    pub fn is_on(&self) -> Option<bool> {
        match self {
            Self::Light(light) => Some(light.on),
            Self::Switch { on } => Some(*on),
            Self::Button { .. } => None,
        }
    }
}

/// What a button can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ButtonCapabilities {
    /// Whether a command can press it.
    pub press: bool,
    /// The events that it tells when somebody presses it, such as `press` and `long_press`.
    pub events: Vec<String>,
}

/// Why a device cannot carry out a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing is changed.
    #[error("the change is empty: give at least one of on, brightness, color, zones and effect")]
    Empty,
    /// The light does not dim.
    #[error("this light cannot dim: leave out brightness")]
    NoBrightness,
    /// The light has one white only.
    #[error("this light has no colour temperature: leave out the temperature")]
    NoTemperature,
    /// The light has no colours.
    #[error("this light has no colours: choose on, off, brightness or a colour temperature")]
    NoColor,
    /// The light shows one colour at a time.
    #[error("this light has no zones: leave out zones and give one color and brightness")]
    NoZones,
    /// Each zone carries its brightness and colour.
    #[error("zones carry their brightness and color: leave out either the zones or brightness and color")]
    ZonesAndColor,
    /// More runs of zones than are kept.
    #[error("{given} runs of zones are too many: at most {MOST_RUNS} are kept, so make neighbours alike")]
    TooManyRuns {
        /// How many were given.
        given: usize,
    },
    /// The light has no effect, or palette, of that name.
    #[error("this light has no {what} {asked:?}: it knows {known}")]
    NoSuch {
        /// `effect` or `palette`.
        what: &'static str,
        /// What was asked for.
        asked: String,
        /// What there is, with commas.
        known: String,
    },
    /// The device is of another kind.
    #[error(
        "this device is a {is}, and the command is for a {asked}: `hearth devices` shows what each device is"
    )]
    OtherKind {
        /// What it is.
        is: &'static str,
        /// What the command is for.
        asked: &'static str,
    },
    /// The button only tells of presses.
    #[error("nothing can press this button: it tells when somebody does")]
    NoPress,
}

impl Capabilities {
    /// The change as this device will really carry it out; see [`LightCapabilities::fit`].
    ///
    /// # Errors
    /// [`ChangeError`] when the device cannot do that.
    pub fn fit(&self, change: &Change) -> Result<Change, ChangeError> {
        match (self, change) {
            (Self::Light(light), Change::Light(change)) => light.fit(change).map(Change::Light),
            // People say "switch" of a lamp as well, and "light" of a lamp on a plug.
            (Self::Light(light), Change::Switch { on }) => {
                light.fit(&LightChange { on: Some(*on), ..LightChange::default() }).map(Change::Light)
            }
            (Self::Switch, Change::Switch { .. }) => Ok(change.clone()),
            (Self::Switch, Change::Light(light)) => light.only_power().map(|on| Change::Switch { on }),
            (Self::Button(button), Change::Press) if button.press => Ok(Change::Press),
            (Self::Button(_), Change::Press) => Err(ChangeError::NoPress),
            (is, asked) => Err(ChangeError::OtherKind { is: is.noun(), asked: asked.noun() }),
        }
    }
}

impl LightCapabilities {
    /// The change as this light will really carry it out: a temperature outside its range becomes
    /// the nearest it has and a colour outside its gamut the nearest inside, as people expect of a
    /// scene that spans different bulbs.
    ///
    /// # Errors
    /// [`ChangeError`] when the light lacks the capability altogether, or nothing is asked for.
    pub fn fit(&self, change: &LightChange) -> Result<LightChange, ChangeError> {
        let colored = change.color.is_some_and(|color| color != ColorMode::None);
        let named = change.effect.is_some() || change.palette.is_some();
        let zoned = change.zones.is_some();
        if change.on.is_none() && change.brightness.is_none() && !colored && !named && !zoned {
            return Err(ChangeError::Empty);
        }
        if change.brightness.is_some() && !self.brightness {
            return Err(ChangeError::NoBrightness);
        }
        if let Some(effect) = change.effect.as_deref().filter(|effect| *effect != NO_EFFECT) {
            one_of("effect", effect, &self.effects)?;
        }
        if let Some(palette) = &change.palette {
            one_of("palette", palette, &self.palettes)?;
        }
        if zoned && (colored || change.brightness.is_some()) {
            return Err(ChangeError::ZonesAndColor);
        }
        let color = change.color.map(|color| self.fit_color(color)).transpose()?;
        let color = color.filter(|color| *color != ColorMode::None);
        let zones = change.zones.as_deref().map(|zones| self.fit_zones(zones)).transpose()?;
        Ok(LightChange { color, zones, ..change.clone() })
    }

    fn fit_color(&self, color: ColorMode) -> Result<ColorMode, ChangeError> {
        Ok(match color {
            ColorMode::None => ColorMode::None,
            ColorMode::Temperature { kelvin } => {
                let range = self.color_temperature.ok_or(ChangeError::NoTemperature)?;
                ColorMode::Temperature { kelvin: kelvin.max(range.min_k).min(range.max_k) }
            }
            ColorMode::Color(xy) => {
                let gamut = self.color.ok_or(ChangeError::NoColor)?;
                ColorMode::Color(color::nearest_in_gamut(xy, &gamut))
            }
        })
    }

    /// Zones as this light has them; what is behind its last zone is cut off.
    fn fit_zones(&self, zones: &[Zone]) -> Result<Vec<Zone>, ChangeError> {
        let mut left = self.zones.ok_or(ChangeError::NoZones)?;
        if zones.len() > MOST_RUNS {
            return Err(ChangeError::TooManyRuns { given: zones.len() });
        }
        let mut fitted = Vec::with_capacity(zones.len());
        for zone in zones {
            let count = zone.count.min(left);
            left -= count;
            if count > 0 {
                fitted.push(Zone { count, color: self.fit_color(zone.color)?, ..*zone });
            }
        }
        if fitted.is_empty() { Err(ChangeError::Empty) } else { Ok(fitted) }
    }
}

/// Names that an error lists; a strip may know two hundred effects.
const MOST_LISTED: usize = 40;

fn one_of(what: &'static str, asked: &str, known: &[String]) -> Result<(), ChangeError> {
    if known.iter().any(|name| name == asked) {
        return Ok(());
    }
    let mut listed = known.iter().take(MOST_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if known.len() > MOST_LISTED {
        listed.push('…');
    }
    let listed = if listed.is_empty() { "none".to_owned() } else { listed };
    Err(ChangeError::NoSuch { what, asked: asked.chars().take(60).collect(), known: listed })
}

impl Change {
    /// This change with `newer` laid over it: what `newer` leaves open stays as asked for here.
    #[must_use]
    pub fn then(&self, newer: &Self) -> Self {
        match (self, newer) {
            (Self::Light(older), Self::Light(newer)) => Self::Light(older.then(newer)),
            _ => newer.clone(),
        }
    }

    /// Whether a state that was read back shows this change carried out, within `tolerance`.
    #[must_use]
    pub fn matches(&self, state: &State, tolerance: &Tolerance) -> bool {
        match (self, state) {
            (Self::Light(change), State::Light(state)) => change.matches(state, tolerance),
            (Self::Switch { on: asked }, State::Switch { on }) => asked == on,
            _ => false,
        }
    }

    /// Whether it is asked to be on; none where it says nothing of that.
    #[must_use]
    pub fn on(&self) -> Option<bool> {
        match self {
            Self::Light(light) => light.on,
            Self::Switch { on } => Some(*on),
            Self::Press => None,
        }
    }

    /// How long it takes to get there, in milliseconds.
    #[must_use]
    pub fn transition_ms(&self) -> u32 {
        match self {
            Self::Light(light) => light.transition_ms,
            Self::Switch { .. } | Self::Press => 0,
        }
    }

    fn noun(&self) -> &'static str {
        match self {
            Self::Light(_) => "light",
            Self::Switch { .. } => "switch",
            Self::Press => "button",
        }
    }
}

impl LightChange {
    /// What a device that only knows on and off makes of it.
    fn only_power(&self) -> Result<bool, ChangeError> {
        if self.brightness.is_some() {
            return Err(ChangeError::NoBrightness);
        }
        if self.color.is_some_and(|color| color != ColorMode::None) {
            return Err(ChangeError::NoColor);
        }
        if self.zones.is_some() {
            return Err(ChangeError::NoZones);
        }
        if let Some(asked) = self.effect.as_deref().or(self.palette.as_deref()) {
            one_of("effect", asked, &[])?;
        }
        self.on.ok_or(ChangeError::Empty)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;
    use crate::model::{Gamut, KelvinRange};

    fn white_bulb() -> LightCapabilities {
        LightCapabilities {
            brightness: true,
            color_temperature: Some(KelvinRange { min_k: 2700, max_k: 6500 }),
            transition: true,
            ..LightCapabilities::default()
        }
    }

    fn temperature(kelvin: u16) -> LightChange {
        LightChange { color: Some(ColorMode::Temperature { kelvin }), ..LightChange::default() }
    }

    #[test]
    fn a_light_refuses_what_it_lacks_and_fits_what_it_can() {
        let bulb = white_bulb();
        assert_eq!(bulb.fit(&LightChange::default()), Err(ChangeError::Empty));
        assert_eq!(bulb.fit(&temperature(9000)).unwrap(), temperature(6500));
        assert_eq!(bulb.fit(&temperature(1)).unwrap(), temperature(2700));
        let red = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.red)), ..LightChange::default() };
        assert_eq!(bulb.fit(&red), Err(ChangeError::NoColor));
        let relay = LightCapabilities { brightness: false, color_temperature: None, ..bulb };
        let dim = LightChange { brightness: Some(1), ..LightChange::default() };
        assert_eq!(relay.fit(&dim), Err(ChangeError::NoBrightness));
        assert_eq!(relay.fit(&temperature(3000)), Err(ChangeError::NoTemperature));
    }

    #[test]
    fn an_effect_is_one_that_the_light_names() {
        let strip = LightCapabilities { effects: vec!["Rainbow".into()], ..white_bulb() };
        let effect = |name: &str| LightChange { effect: Some(name.into()), ..LightChange::default() };
        assert!(strip.fit(&effect("Rainbow")).is_ok() && strip.fit(&effect(NO_EFFECT)).is_ok());
        let refused = strip.fit(&effect("Fire")).unwrap_err().to_string();
        assert!(refused.contains("Fire") && refused.contains("Rainbow"), "{refused}");
        let palette = LightChange { palette: Some("Lava".into()), ..LightChange::default() };
        assert!(strip.fit(&palette).unwrap_err().to_string().contains("it knows none"));
    }

    #[test]
    fn zones_are_cut_to_what_the_light_has_and_refused_without() {
        let zone = |count, kelvin| Zone { count, color: ColorMode::Temperature { kelvin }, brightness: 7 };
        let zoned = |zones: Vec<Zone>| LightChange { zones: Some(zones), ..LightChange::default() };
        assert_eq!(white_bulb().fit(&zoned(vec![zone(1, 3000)])), Err(ChangeError::NoZones));
        let strip = LightCapabilities { zones: Some(8), ..white_bulb() };
        let cut = strip.fit(&zoned(vec![zone(0, 3000), zone(3, 9000), zone(9, 3000), zone(1, 4000)]));
        assert_eq!(cut, Ok(zoned(vec![zone(3, 6500), zone(5, 3000)])));
        assert_eq!(strip.fit(&zoned(vec![zone(0, 3000)])), Err(ChangeError::Empty));
        let both = LightChange { brightness: Some(1), ..zoned(vec![zone(1, 3000)]) };
        assert_eq!(strip.fit(&both), Err(ChangeError::ZonesAndColor));
        let many = zoned(vec![zone(1, 3000); MOST_RUNS + 1]);
        assert_eq!(strip.fit(&many), Err(ChangeError::TooManyRuns { given: MOST_RUNS + 1 }));
        assert_eq!(
            Capabilities::Switch.fit(&Change::Light(zoned(vec![zone(1, 3000)]))),
            Err(ChangeError::NoZones)
        );
    }

    #[test]
    fn power_is_understood_by_lights_and_switches_alike() {
        let (light, switch) = (Capabilities::Light(white_bulb()), Capabilities::Switch);
        let on = LightChange { on: Some(true), ..LightChange::default() };
        assert_eq!(switch.fit(&Change::Light(on.clone())), Ok(Change::Switch { on: true }));
        assert_eq!(light.fit(&Change::Switch { on: true }), Ok(Change::Light(on.clone())));
        let dim = LightChange { brightness: Some(1), ..on };
        assert_eq!(switch.fit(&Change::Light(dim)), Err(ChangeError::NoBrightness));
        assert_eq!(switch.fit(&Change::Light(LightChange::default())), Err(ChangeError::Empty));
    }

    #[test]
    fn a_command_for_another_kind_is_refused_with_both() {
        let refused = Capabilities::Sensor.fit(&Change::Press).unwrap_err().to_string();
        assert!(refused.contains("a sensor") && refused.contains("a button"), "{refused}");
        let only_tells =
            Capabilities::Button(ButtonCapabilities { press: false, events: vec!["press".into()] });
        assert_eq!(only_tells.fit(&Change::Press), Err(ChangeError::NoPress));
        let presses = Capabilities::Button(ButtonCapabilities { press: true, events: Vec::new() });
        assert_eq!(presses.fit(&Change::Press), Ok(Change::Press));
    }

    #[test]
    fn states_and_changes_say_their_kind() {
        let text = serde_json::to_string(&State::Switch { on: true }).unwrap();
        assert_eq!(text, r#"{"kind":"switch","on":true}"#);
        let press: Change = serde_json::from_str(r#"{"kind":"press"}"#).unwrap();
        assert_eq!(press, Change::Press);
        let light = Change::Light(temperature(2700));
        let text = serde_json::to_string(&light).unwrap();
        assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), light);
        assert!(
            !Change::Press.matches(&State::Button { event: "press".into(), count: 1 }, &Tolerance::default())
        );
    }
}
