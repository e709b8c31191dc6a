//! What the files of a LED say: Documentation/ABI/testing/sysfs-class-led, sysfs-class-led-trigger-pattern and
//! sysfs-class-led-multicolor of the Linux kernel. Pure.

use crate::model::{ColorMode, LightChange, LightState, State, Xy, color};

/// The most channels of a LED of several colours.
const MOST_CHANNELS: usize = 16;

/// The trigger that drives a LED: the one in brackets, unless that is `none`.
pub(super) fn active_trigger(text: &str) -> Option<&str> {
    let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?;
    (chosen != "none").then_some(chosen)
}

/// A level of `most` as a brightness.
pub(super) fn brightness_of(level: u32, most: u32) -> u16 {
    let scaled = (u64::from(level) * u64::from(u16::MAX) + u64::from(most) / 2) / u64::from(most.max(1));
    u16::try_from(scaled).unwrap_or(u16::MAX)
}

/// A brightness as the nearest level of `most` at which the LED gives light.
pub(super) fn level_of(brightness: u16, most: u32) -> u32 {
    let scaled = (u64::from(brightness) * u64::from(most) + 32_767) / u64::from(u16::MAX);
    u32::try_from(scaled).unwrap_or(most).clamp(1, most.max(1))
}

/// Where red, green and blue stand among the channels of a LED.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Channels([usize; 3]);

impl Channels {
    /// Reads `multi_index`, such as `red green blue`; none of a LED that lacks one of the three.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let names: Vec<&str> = text.split_whitespace().take(MOST_CHANNELS).collect();
        let of = |wanted: &str| names.iter().position(|name| *name == wanted);
        Some(Self([of("red")?, of("green")?, of("blue")?]))
    }

    /// Red, green and blue of `multi_intensity`.
    pub(super) fn read(&self, text: &str) -> Option<[u32; 3]> {
        let values: Vec<u32> = text
            .split_whitespace()
            .take(MOST_CHANNELS)
            .map(|word| word.parse().ok())
            .collect::<Option<_>>()?;
        let [red, green, blue] = self.0;
        Some([*values.get(red)?, *values.get(green)?, *values.get(blue)?])
    }

    /// `multi_intensity` with these, and dark where the LED has another colour.
    pub(super) fn write(&self, present: &str, intensities: [u32; 3]) -> String {
        let count = present.split_whitespace().take(MOST_CHANNELS).count();
        let value = |channel: usize| {
            let mine = self.0.iter().position(|own| *own == channel);
            mine.and_then(|own| intensities.get(own)).copied().unwrap_or_default().to_string()
        };
        (0..count).map(value).collect::<Vec<_>>().join(" ")
    }
}

/// What a LED is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// `brightness`.
    pub(super) level: u32,
    /// Red, green and blue, if they are to change.
    pub(super) intensities: Option<[u32; 3]>,
    /// The same as a light.
    pub(super) light: LightState,
}

impl Target {
    /// What a change makes of a LED that shows `now`.
    pub(super) fn of(change: &LightChange, now: &State, most: u32, has_colors: bool) -> Self {
        let now = match now {
            State::Light(light) => light.clone(),
            _ => LightState::plain(false, u16::MAX, ColorMode::None),
        };
        let on = change.on.unwrap_or(now.on);
        let brightness = change.brightness.unwrap_or(now.brightness);
        let wanted = change.color.filter(|_| has_colors);
        let intensities = match wanted {
            Some(ColorMode::Color(xy)) => Some(color::xy_to_rgb(xy).map(u32::from)),
            _ => None,
        };
        let level = if on { level_of(brightness, most) } else { 0 };
        Self { level, intensities, light: LightState::plain(on, brightness, wanted.unwrap_or(now.color)) }
    }

    /// Whether a LED that was read shows this.
    pub(super) fn is_shown_by(&self, level: u32, intensities: Option<[u32; 3]>) -> bool {
        self.level == level && (self.intensities.is_none() || self.intensities == intensities)
    }
}

/// The colour of intensities, of which only the ratio counts; none where all are dark.
pub(super) fn color_of(intensities: [u32; 3]) -> Option<Xy> {
    let most = u64::from(intensities.into_iter().max().filter(|most| *most > 0)?);
    let part = |one: u32| (u64::from(one) * 255 + most / 2) / most;
    Some(color::rgb_to_xy(intensities.map(|one| u8::try_from(part(one)).unwrap_or(u8::MAX))))
}
