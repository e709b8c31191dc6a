//! What the files of a LED say: Documentation/ABI/testing/sysfs-class-led, sysfs-class-led-trigger-pattern and
//! sysfs-class-led-multicolor of the Linux kernel. Pure.

use crate::model::{ColorMode, LightChange, LightState, Xy, color};

/// The most channels of a LED of several colours.
const MOST_CHANNELS: usize = 16;

/// The trigger that drives a LED: the one in brackets, unless that is `none`.
pub(super) fn active_trigger(text: &str) -> Option<&str> {
    let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?;
    (chosen != "none").then_some(chosen)
}

/// A level of `most` as a brightness.
pub(super) fn brightness_of(level: u32, most: u32) -> u16 {
    u16::try_from(scaled(level, u16::MAX.into(), most)).unwrap_or(u16::MAX)
}

/// A brightness as the nearest level of `most` at which the LED gives light.
pub(super) fn level_of(brightness: u16, most: u32) -> u32 {
    scaled(brightness.into(), most, u16::MAX.into()).clamp(1, most.max(1))
}

/// The channels of a LED of several colours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Channels {
    count: usize,
    /// Where red, green and blue stand among them, where it has all three.
    rgb: Option<[usize; 3]>,
}

impl Channels {
    /// Reads `multi_index`, such as `red green blue`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let names: Vec<&str> = text.split_whitespace().collect();
        let of = |wanted: &str| names.iter().position(|name| *name == wanted);
        let rgb = of("red").zip(of("green")).zip(of("blue")).map(|((red, green), blue)| [red, green, blue]);
        (1..=MOST_CHANNELS).contains(&names.len()).then_some(Self { count: names.len(), rgb })
    }

    /// Whether they mix to any colour.
    pub(super) fn have_colors(&self) -> bool {
        self.rgb.is_some()
    }

    /// Reads `multi_intensity`: as many numbers as there are channels.
    pub(super) fn read(&self, text: &str) -> Option<Vec<u32>> {
        let words = text.split_whitespace().take(MOST_CHANNELS + 1);
        let values: Vec<u32> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
        (values.len() == self.count).then_some(values)
    }

    /// The intensities of a colour, the strongest at `most`; what is no red, green or blue is dark.
    fn of_color(&self, xy: Xy, most: u32) -> Option<Vec<u32>> {
        let mut intensities = vec![0; self.count];
        for (channel, part) in self.rgb?.into_iter().zip(color::xy_to_rgb(xy)) {
            *intensities.get_mut(channel)? = scaled(u32::from(part), most, 255);
        }
        Some(intensities)
    }

    /// The colour of intensities, of which only the ratio counts; none where these channels have none, or are dark.
    pub(super) fn color_of(&self, intensities: &[u32]) -> Option<Xy> {
        let [red, green, blue] = self.rgb?;
        let rgb = [*intensities.get(red)?, *intensities.get(green)?, *intensities.get(blue)?];
        let most = rgb.into_iter().max().filter(|most| *most > 0)?;
        let part = |one: u32| u8::try_from(scaled(one, 255, most)).unwrap_or(u8::MAX);
        Some(color::rgb_to_xy(rgb.map(part)))
    }
}

/// What the files of a LED say that it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// `brightness`.
    pub(super) level: u32,
    /// `multi_intensity`: how much of `brightness` each channel gets, all of it at `max_brightness`. Empty of a LED of one
    /// colour.
    pub(super) intensities: Vec<u32>,
}

impl Shown {
    /// The level of its strongest channel; zero where all are dark.
    pub(super) fn light(&self, most: u32) -> u32 {
        match self.intensities.iter().max() {
            None => self.level,
            Some(0) => 0,
            Some(_) if self.level == 0 => 0,
            Some(peak) => scaled(self.level, (*peak).min(most), most).max(1),
        }
    }

    /// Intensities of the same colour, the strongest at `most`; where all are dark all are lit, for somebody wants light.
    fn brightened(&self, most: u32) -> Vec<u32> {
        let peak = self.intensities.iter().copied().max().unwrap_or_default();
        let bright = |one: &u32| if peak == 0 { most } else { scaled(*one, most, peak) };
        self.intensities.iter().map(bright).collect()
    }
}

/// A part of `whole` as one of `most`, rounded.
fn scaled(part: u32, most: u32, whole: u32) -> u32 {
    let whole = u64::from(whole.max(1));
    let scaled = (u64::from(part) * u64::from(most) + whole / 2) / whole;
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

/// What a LED is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// What it is to show.
    pub(super) shown: Shown,
    /// The same as a light.
    pub(super) light: LightState,
}

impl Target {
    /// What a change makes of a LED that is `now`, by what its files say.
    pub(super) fn of(
        change: &LightChange,
        now: &LightState,
        shown: &Shown,
        most: u32,
        channels: Option<&Channels>,
    ) -> Self {
        let on = change.on.unwrap_or(now.on);
        let brightness = change.brightness.unwrap_or(now.brightness);
        let mixed = match (change.color, channels) {
            (Some(ColorMode::Color(xy)), Some(channels)) => channels.of_color(xy, most),
            _ => None,
        };
        let color = change.color.filter(|_| mixed.is_some()).unwrap_or(now.color);
        let kept = || if on { shown.brightened(most) } else { shown.intensities.clone() };
        let level = if on { level_of(brightness, most) } else { 0 };
        Self {
            shown: Shown { level, intensities: mixed.unwrap_or_else(kept) },
            light: LightState::plain(on, brightness, color),
        }
    }
}
