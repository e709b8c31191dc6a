//! Lights: what they can do, the state they are in, and absolute changes of that state.

use serde::{Deserialize, Serialize};

use super::color;

/// What a change names as its effect to end the one that runs.
pub const NO_EFFECT: &str = "none";

/// A colour as CIE 1931 chromaticity coordinates, each scaled so that 65 535 is 1.0.
///
/// Integers, because a state is compared, hashed and merged on every node: two nodes must never
/// disagree about the last bit of a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Xy {
    /// The x coordinate, 65 535 is 1.0.
    pub x: u16,
    /// The y coordinate, 65 535 is 1.0.
    pub y: u16,
}

/// The colour a light shows. Exactly one mode is active at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum ColorMode {
    /// The light has no colour to choose.
    None,
    /// White of a temperature.
    Temperature {
        /// The correlated colour temperature in kelvin.
        kelvin: u16,
    },
    /// A colour.
    Color(Xy),
}

/// The triangle of colours a light can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gamut {
    /// The red corner.
    pub red: Xy,
    /// The green corner.
    pub green: Xy,
    /// The blue corner.
    pub blue: Xy,
}

impl Gamut {
    /// The sRGB triangle (IEC 61966-2-1): what hue and saturation can express.
    pub const SRGB: Self = Self {
        red: Xy { x: 41_942, y: 21_627 },
        green: Xy { x: 19_661, y: 39_321 },
        blue: Xy { x: 9_830, y: 3_932 },
    };
}

/// The range of white a light can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KelvinRange {
    /// The warmest white, in kelvin.
    pub min_k: u16,
    /// The coldest white, in kelvin; equal to `min_k` on a light of one white.
    pub max_k: u16,
}

/// The most runs in which the zones of a light are told; as JSON they take at most 2 700 bytes.
pub const MOST_RUNS: usize = 32;

/// A run of neighbouring zones that show the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// How many zones it is long.
    pub count: u16,
    /// Their colour.
    pub color: ColorMode,
    /// Their brightness, 0 (dark) to 65 535.
    pub brightness: u16,
}

/// What a light can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LightCapabilities {
    /// It dims.
    pub brightness: bool,
    /// It shows white of different temperatures.
    pub color_temperature: Option<KelvinRange>,
    /// It shows colours.
    pub color: Option<Gamut>,
    /// The effects it runs by itself, by name; [`NO_EFFECT`] is not among them.
    #[serde(default)]
    pub effects: Vec<String>,
    /// The palettes of colours that its effects are able to use, by name.
    #[serde(default)]
    pub palettes: Vec<String>,
    /// How many zones are able to show colours of their own.
    #[serde(default)]
    pub zones: Option<u16>,
    /// It fades by itself over a time it is given.
    pub transition: bool,
}

/// The state of a light.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LightState {
    /// Whether it gives light.
    pub on: bool,
    /// Brightness when on, 0 to 65 535.
    pub brightness: u16,
    /// The active colour mode.
    pub color: ColorMode,
    /// The effect that runs, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// The palette that it uses, if it has palettes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub palette: Option<String>,
    /// What the zones show from the first one on, at most [`MOST_RUNS`] runs; none when all show the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<Zone>>,
}

impl LightState {
    /// A light that runs no effect and shows one colour.
    #[must_use]
    pub fn plain(on: bool, brightness: u16, color: ColorMode) -> Self {
        Self { on, brightness, color, effect: None, palette: None, zones: None }
    }
}

/// An absolute change of a light: what is `None` stays as it is.
///
/// Carrying it out twice is the same as once; "toggle" is resolved to on or off before it becomes a
/// `LightChange`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LightChange {
    /// Switch on or off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<bool>,
    /// Brightness, 0 to 65 535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brightness: Option<u16>,
    /// The colour mode to be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<ColorMode>,
    /// The effect to run; [`NO_EFFECT`] ends the one that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// The palette for its effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub palette: Option<String>,
    /// What zones show from the first one on, at most [`MOST_RUNS`] runs; zones behind the last run stay as they are.
    /// Brightness or a colour for the whole light goes to all zones instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<Zone>>,
    /// How long the light takes to get there, in milliseconds.
    #[serde(default)]
    pub transition_ms: u32,
}

/// How far a read-back may be from what was asked for and still confirm it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// Difference of brightness, of 65 535.
    pub brightness: u16,
    /// Difference of colour temperature in kelvin.
    pub kelvin: u16,
    /// Difference of each of x and y, of 65 535.
    pub xy: u16,
}

impl Default for Tolerance {
    /// 1 % of brightness, 100 K, 0.01 of xy: coarser than the steps bulbs work in, finer than
    /// what a person can tell apart side by side.
    fn default() -> Self {
        Self { brightness: 656, kelvin: 100, xy: 656 }
    }
}

impl LightChange {
    /// This change with `newer` laid over it: what `newer` leaves open stays as asked for here.
    #[must_use]
    pub fn then(&self, newer: &Self) -> Self {
        let zoned = newer.zones.is_some();
        let zones = newer.zones.clone().or_else(|| self.zones_under(newer));
        Self {
            on: newer.on.or(self.on),
            // Zones carry their brightness and colour, so these are said in one place or in the other.
            brightness: if zones.is_some() { None } else { newer.brightness.or(self.brightness) },
            color: newer.color.or(self.color).filter(|_| !zoned),
            zones,
            effect: newer.effect.clone().or_else(|| self.effect.clone()),
            palette: newer.palette.clone().or_else(|| self.palette.clone()),
            transition_ms: newer.transition_ms,
        }
    }

    /// The zones that this change asks for, with what `newer` says of the whole light laid over them.
    fn zones_under(&self, newer: &Self) -> Option<Vec<Zone>> {
        let zones =
            self.zones.as_ref().filter(|_| newer.color.is_none_or(|color| color == ColorMode::None))?;
        let dimmed = |zone: &Zone| Zone { brightness: newer.brightness.unwrap_or(zone.brightness), ..*zone };
        Some(zones.iter().map(dimmed).collect())
    }

    /// Whether a state that was read back shows this change carried out, within `tolerance`.
    ///
    /// Bulbs quantise, and one that was given a colour close to white may report a temperature: it
    /// counts when that white is the colour that was asked for.
    #[must_use]
    pub fn matches(&self, state: &LightState, tolerance: &Tolerance) -> bool {
        let whole = [Zone { count: u16::MAX, color: state.color, brightness: state.brightness }];
        let shown = state.zones.as_deref().unwrap_or(&whole);
        let dims = |zone: &Zone, to: u16| to.abs_diff(zone.brightness) <= tolerance.brightness;
        self.on.is_none_or(|on| on == state.on)
            && self.brightness.is_none_or(|to| shown.iter().all(|zone| dims(zone, to)))
            && self.color.is_none_or(|to| shown.iter().all(|zone| color_matches(to, zone.color, tolerance)))
            && self.zones.as_deref().is_none_or(|zones| zones_match(zones, shown, tolerance))
            && self
                .effect
                .as_deref()
                .is_none_or(|effect| effect == state.effect.as_deref().unwrap_or(NO_EFFECT))
            && self.palette.as_deref().is_none_or(|palette| state.palette.as_deref() == Some(palette))
    }
}

/// Whether the zones that are asked for, from the first on, are the ones that are read.
fn zones_match(asked: &[Zone], read: &[Zone], tolerance: &Tolerance) -> bool {
    let each = |runs: &[Zone]| {
        let runs = runs.to_vec();
        runs.into_iter().flat_map(|zone| std::iter::repeat_n(zone, zone.count.into()))
    };
    let mut read = each(read);
    each(asked).all(|asked| {
        read.next().is_some_and(|read| {
            asked.brightness.abs_diff(read.brightness) <= tolerance.brightness
                && (asked.brightness == 0 || color_matches(asked.color, read.color, tolerance))
        })
    })
}

fn color_matches(asked: ColorMode, read: ColorMode, tolerance: &Tolerance) -> bool {
    let near = |a: Xy, b: Xy| a.x.abs_diff(b.x) <= tolerance.xy && a.y.abs_diff(b.y) <= tolerance.xy;
    match (asked, read) {
        (ColorMode::None, _) => true,
        (ColorMode::Temperature { kelvin: a }, ColorMode::Temperature { kelvin: b }) => {
            a.abs_diff(b) <= tolerance.kelvin
        }
        (ColorMode::Color(a), ColorMode::Color(b)) => near(a, b),
        (ColorMode::Color(a), ColorMode::Temperature { kelvin }) => near(a, color::kelvin_to_xy(kelvin)),
        (ColorMode::Temperature { .. } | ColorMode::Color(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    fn temperature(kelvin: u16) -> LightChange {
        LightChange { color: Some(ColorMode::Temperature { kelvin }), ..LightChange::default() }
    }

    #[test]
    fn a_newer_change_keeps_what_it_leaves_open() {
        let on = LightChange { on: Some(true), transition_ms: 500, ..LightChange::default() };
        let dim = LightChange { brightness: Some(9), ..LightChange::default() };
        let both = LightChange { on: Some(true), brightness: Some(9), ..LightChange::default() };
        assert_eq!(on.then(&dim), both);
    }

    #[test]
    fn a_read_back_confirms_within_the_tolerance_and_not_beyond() {
        let tolerance = Tolerance::default();
        let state = LightState::plain(true, 10_000, ColorMode::Temperature { kelvin: 3000 });
        let change = |brightness, kelvin| LightChange {
            on: Some(true),
            brightness: Some(brightness),
            ..temperature(kelvin)
        };
        assert!(change(10_656, 3100).matches(&state, &tolerance));
        assert!(!change(10_657, 3100).matches(&state, &tolerance));
        assert!(!change(10_656, 3101).matches(&state, &tolerance));
        assert!(!LightChange { on: Some(false), ..LightChange::default() }.matches(&state, &tolerance));
        let colored = LightState { color: ColorMode::Color(Gamut::SRGB.red), ..state.clone() };
        assert!(!temperature(3000).matches(&colored, &tolerance), "another mode is not the same white");
    }

    #[test]
    fn a_white_read_back_confirms_the_colour_that_is_that_white() {
        let white = ColorMode::Color(color::kelvin_to_xy(4000));
        let change = LightChange { color: Some(white), ..LightChange::default() };
        let read = |kelvin| LightState::plain(true, 0, ColorMode::Temperature { kelvin });
        assert!(change.matches(&read(4000), &Tolerance::default()));
        assert!(!change.matches(&read(2700), &Tolerance::default()));
    }

    #[test]
    fn an_effect_confirms_by_its_name_and_its_end_by_none() {
        let state = |effect: Option<&str>| LightState {
            effect: effect.map(str::to_owned),
            ..LightState::plain(true, 0, ColorMode::None)
        };
        let change = |effect: &str| LightChange { effect: Some(effect.into()), ..LightChange::default() };
        let tolerance = Tolerance::default();
        assert!(change("Rainbow").matches(&state(Some("Rainbow")), &tolerance));
        assert!(!change("Rainbow").matches(&state(None), &tolerance));
        assert!(change(NO_EFFECT).matches(&state(None), &tolerance));
        assert!(!change(NO_EFFECT).matches(&state(Some("Rainbow")), &tolerance));
    }

    fn zone(count: u16, kelvin: u16, brightness: u16) -> Zone {
        Zone { count, color: ColorMode::Temperature { kelvin }, brightness }
    }

    fn zoned(zones: &[Zone]) -> LightChange {
        LightChange { zones: Some(zones.to_vec()), ..LightChange::default() }
    }

    #[test]
    fn zones_confirm_however_their_runs_are_cut_and_leave_open_what_is_behind() {
        let state = LightState {
            zones: Some(vec![zone(3, 2700, 100), zone(5, 6500, 50_000)]),
            ..LightState::plain(true, 30_000, ColorMode::Temperature { kelvin: 4000 })
        };
        let tolerance = Tolerance::default();
        let confirms = |zones: &[Zone]| zoned(zones).matches(&state, &tolerance);
        assert!(confirms(&[zone(1, 2700, 100), zone(2, 2750, 90), zone(5, 6500, 50_000)]));
        assert!(confirms(&[zone(3, 2700, 100)]), "the other five stay as they are");
        assert!(!confirms(&[zone(4, 2700, 100)]) && !confirms(&[zone(3, 2700, 100), zone(6, 6500, 50_000)]));
        assert!(!temperature(4000).matches(&state, &tolerance), "one colour is one colour in all zones");
        let alike = LightState { zones: None, ..state };
        assert!(zoned(&[zone(8, 4000, 30_000)]).matches(&alike, &tolerance));
        let dark = LightChange { zones: Some(vec![zone(8, 9000, 0)]), ..LightChange::default() };
        assert!(
            dark.matches(&LightState { brightness: 0, ..alike }, &tolerance),
            "what is dark has no colour"
        );
    }

    #[test]
    fn a_newer_change_of_the_whole_light_and_zones_displace_each_other() {
        let (zones, red) = (zoned(&[zone(3, 2700, 100)]), temperature(5000));
        assert_eq!(zones.then(&red), red);
        assert_eq!(LightChange { brightness: Some(7), ..red }.then(&zones), zones);
        let dim = LightChange { brightness: Some(9), ..LightChange::default() };
        assert_eq!(zones.then(&dim), zoned(&[zone(3, 2700, 9)]));
        let on = LightChange { on: Some(true), ..LightChange::default() };
        assert_eq!(zones.then(&on), LightChange { on: Some(true), ..zones });
    }

    #[test]
    fn the_longest_list_of_zones_fits_where_it_is_kept() {
        let widest =
            Zone { count: 65_535, color: ColorMode::Color(Xy { x: 65_535, y: 65_535 }), brightness: 65_535 };
        assert!(serde_json::to_string(&vec![widest; MOST_RUNS]).unwrap().len() <= 2_700);
    }

    #[test]
    fn changes_and_states_survive_serialisation() {
        let state = LightState::plain(true, 7, ColorMode::Color(Xy { x: 1, y: 2 }));
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(text, r#"{"on":true,"brightness":7,"color":{"mode":"color","x":1,"y":2}}"#);
        assert_eq!(serde_json::from_str::<LightState>(&text).unwrap(), state);
        let change: LightChange =
            serde_json::from_str(r#"{"color":{"mode":"temperature","kelvin":2700}}"#).unwrap();
        assert_eq!(change, temperature(2700));
        assert!(serde_json::from_str::<LightChange>(r#"{"brightnes":1}"#).is_err());
    }
}
