//! The settings of the adapter of LEDs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::adapter::{Descriptor, SettingsError};
use crate::board;
use crate::settings::Settings;

/// The most LEDs that are named.
const MOST_LEDS: usize = 64;
/// The longest name of a LED: `LED_MAX_NAME_SIZE` of the kernel.
const MOST_NAME: usize = 63;

/// Which LEDs are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    /// All that no trigger of the kernel drives.
    Free,
    /// These.
    Named(Vec<String>),
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    /// The folder of sysfs.
    pub(super) root: PathBuf,
    /// Which LEDs are used.
    pub(super) leds: Which,
    /// The time between two polls.
    pub(super) poll: Duration,
}

/// The JSON schema of the settings.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "leds": {
                "type": "array", "items": { "type": "string" }, "default": [],
                "description": "The LEDs to use, by their names in /sys/class/leds such as ACT, whatever the kernel uses \
                                them for at present; \"*\" is every LED that no trigger of the kernel drives."
            },
            "poll_s": {
                "type": "number", "minimum": 0.2, "maximum": 3600, "default": 5,
                "description": "Seconds between two polls, by which changes of other programs are seen."
            },
            "root": board::root_schema("/sys")
        }
    })
}

impl Config {
    /// Checks the settings and fills in the defaults.
    pub(super) fn parse(descriptor: &Descriptor, value: &Value) -> Result<Self, SettingsError> {
        let settings = Settings::new(descriptor, value)?;
        let rule = "the name of a LED in /sys/class/leds, or \"*\"";
        let mut names = settings.list("leds", rule, MOST_LEDS, Vec::new(), parse_name)?;
        names.sort();
        names.dedup();
        let leds = if names.iter().any(|name| name == "*") { Which::Free } else { Which::Named(names) };
        Ok(Self {
            root: board::root(&settings, "/sys")?,
            leds,
            poll: settings.seconds("poll_s", 0.2..=3_600.0, 5.0)?,
        })
    }
}

/// A name that stays in its folder.
fn parse_name(text: &str) -> Option<String> {
    let fits =
        (1..=MOST_NAME).contains(&text.len()) && !text.contains(['/', '\0']) && text != "." && text != "..";
    fits.then(|| text.to_owned())
}
