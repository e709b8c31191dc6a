//! The settings of the adapter of GPIO lines.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::adapter::{Descriptor, SettingsError};
use crate::board;
use crate::settings::Settings;

/// The most lines.
const MOST_LINES: usize = 64;
/// The longest name, in bytes: what an id has room for beside the board.
const MOST_NAME: usize = 40;
/// The longest name of a line or chip: `GPIO_MAX_NAME_SIZE` of the kernel, without its end.
const MOST_KERNEL_NAME: usize = 31;

/// What a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An output that is on or off.
    Switch,
    /// An input that tells when it is pressed.
    Button,
    /// An input whose level means something.
    Sensor,
}

/// Which resistor the board puts on an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    /// To the supply.
    PullUp,
    /// To ground.
    PullDown,
    /// None.
    Disabled,
}

/// Which line of a chip.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    /// By the name that the kernel gives it.
    Named(String),
    /// By its number.
    Offset(u32),
}

/// A line that is wired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineConfig {
    /// For people, and a part of the id.
    pub(super) name: String,
    /// The chip, by its name or its label; any that has a line of that name if none is given.
    pub(super) chip: Option<String>,
    /// The line.
    pub(super) line: Which,
    /// What it is for.
    pub(super) role: Role,
    /// What a sensor senses, by the words of the device model.
    pub(super) class: Option<String>,
    /// Whether a low voltage means on.
    pub(super) active_low: bool,
    /// The resistor; as the board has it if none is given.
    pub(super) bias: Option<Bias>,
    /// How long a level must last to count.
    pub(super) debounce: Duration,
    /// How long a long press lasts at least.
    pub(super) long_press: Duration,
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    /// The folder of the chips.
    pub(super) root: PathBuf,
    /// What is wired.
    pub(super) lines: Vec<LineConfig>,
    /// The time between two polls.
    pub(super) poll: Duration,
}

/// The JSON schema of the settings.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "lines": {
                "type": "array", "default": [], "maxItems": MOST_LINES,
                "description": "What is wired to the board, one object for each line, such as \
                                {\"name\": \"Pump\", \"line\": \"GPIO17\", \"role\": \"switch\"}.",
                "items": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["name", "line", "role"],
                    "properties": line_schema()
                }
            },
            "poll_s": {
                "type": "number", "minimum": 0.2, "maximum": 3600, "default": 5,
                "description": "Seconds between two readings of each line. Edges are told at once, whatever this is."
            },
            "root": board::root_schema("/dev")
        }
    })
}

fn line_schema() -> Value {
    json!({
        "name": { "type": "string", "description": "Its name, for people; a part of the device's id." },
        "line": {
            "type": ["string", "integer"],
            "description": "The line, by the name that the kernel gives it (on a Raspberry Pi such as GPIO17), or by its \
                            number on the chip."
        },
        "chip": {
            "type": "string",
            "description": "The chip, such as gpiochip0 or pinctrl-rp1. Needed with a number; else any chip that has the line."
        },
        "role": {
            "type": "string", "enum": ["switch", "button", "sensor"],
            "description": "switch is an output; button is an input that tells press, long_press and release; sensor is an \
                            input that is on or off. An output that something drives already keeps its level at the start."
        },
        "class": {
            "type": "string",
            "description": "What a sensor senses, by the words of Home Assistant, such as motion, door or moisture."
        },
        "active_low": { "type": "boolean", "default": false, "description": "Whether a low voltage means on." },
        "bias": {
            "type": "string", "enum": ["pull_up", "pull_down", "disabled"],
            "description": "The resistor that the board puts on the line; as it is if this is not given."
        },
        "debounce_ms": {
            "type": "integer", "minimum": 0, "maximum": 1000, "default": 20,
            "description": "Milliseconds for which an input must keep its level for it to count."
        },
        "long_press_ms": {
            "type": "integer", "minimum": 100, "maximum": 10000, "default": 800,
            "description": "Milliseconds after which a press is a long one."
        }
    })
}

impl Config {
    /// Checks the settings and fills in the defaults.
    pub(super) fn parse(descriptor: &Descriptor, value: &Value) -> Result<Self, SettingsError> {
        let settings = Settings::new(descriptor, value)?;
        let lines = settings.objects("lines", MOST_LINES, LineConfig::parse)?;
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        for line in &lines {
            if !names.insert(board::slug(&line.name)) {
                let rule = "a list of lines whose names differ in more than punctuation and case";
                return Err(settings.invalid("lines", &json!(line.name), rule));
            }
            if !places.insert((&line.chip, &line.line)) {
                let rule = "a list in which each line of a chip stands once";
                return Err(settings.invalid("lines", &json!(line.place()), rule));
            }
        }
        let (root, poll) = (board::root(&settings, "/dev")?, settings.seconds("poll_s", 0.2..=3_600.0, 5.0)?);
        Ok(Self { root, lines, poll })
    }
}

impl LineConfig {
    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        let line = match &self.line {
            Which::Named(name) => name.clone(),
            Which::Offset(offset) => format!("line {offset}"),
        };
        self.chip.as_ref().map_or_else(|| line.clone(), |chip| format!("{line} of {chip}"))
    }

    fn parse(settings: &Settings<'_>) -> Result<Self, SettingsError> {
        let chip = settings.text("chip", "the name of a chip, such as gpiochip0", None, parse_name)?;
        let millis = |key, range, default| settings.integer(key, range, default).map(Duration::from_millis);
        Ok(Self {
            name: required(settings, "name", "a name of 1 to 40 bytes with a letter or digit", parse_title)?,
            line: parse_line(settings, chip.is_some())?,
            chip,
            role: required(settings, "role", "switch, button or sensor", parse_role)?,
            class: settings.text("class", "a word such as motion or door", None, parse_class)?,
            active_low: settings.truth("active_low", false)?,
            bias: settings.text("bias", "pull_up, pull_down or disabled", None, parse_bias)?,
            debounce: millis("debounce_ms", 0..=1_000, 20)?,
            long_press: millis("long_press_ms", 100..=10_000, 800)?,
        })
    }
}

/// What `parse` makes of a text that must be there.
fn required<T: Clone>(
    settings: &Settings<'_>,
    key: &str,
    rule: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, SettingsError> {
    settings.text(key, rule, None, |text| parse(text).map(Some))?.ok_or_else(|| settings.missing(key, rule))
}

fn parse_line(settings: &Settings<'_>, has_chip: bool) -> Result<Which, SettingsError> {
    let rule = "the name of a line such as \"GPIO17\", or its number on the chip";
    let value = settings.get("line").ok_or_else(|| settings.missing("line", rule))?;
    let wrong = || settings.invalid("line", value, rule);
    if let Some(name) = value.as_str() {
        return parse_name(name).flatten().map(Which::Named).ok_or_else(wrong);
    }
    let offset = value.as_u64().and_then(|offset| u32::try_from(offset).ok()).ok_or_else(wrong)?;
    if has_chip {
        Ok(Which::Offset(offset))
    } else {
        Err(settings.missing("chip", "the chip whose line has that number, such as gpiochip0"))
    }
}

/// A name that the kernel may give a line or a chip.
fn parse_name(text: &str) -> Option<Option<String>> {
    let fits = |c: char| !c.is_control() && c != '/';
    let is_name =
        (1..=MOST_KERNEL_NAME).contains(&text.len()) && text.chars().all(fits) && !text.starts_with('.');
    is_name.then(|| Some(text.to_owned()))
}

fn parse_title(text: &str) -> Option<String> {
    let fits = (1..=MOST_NAME).contains(&text.len()) && !text.chars().any(char::is_control);
    (fits && !board::slug(text).is_empty()).then(|| text.to_owned())
}

fn parse_role(text: &str) -> Option<Role> {
    match text {
        "switch" => Some(Role::Switch),
        "button" => Some(Role::Button),
        "sensor" => Some(Role::Sensor),
        _ => None,
    }
}

fn parse_class(text: &str) -> Option<Option<String>> {
    crate::model::sensor::is_sensor_key(text).then(|| Some(text.to_owned()))
}

fn parse_bias(text: &str) -> Option<Option<Bias>> {
    match text {
        "pull_up" => Some(Some(Bias::PullUp)),
        "pull_down" => Some(Some(Bias::PullDown)),
        "disabled" => Some(Some(Bias::Disabled)),
        _ => None,
    }
}
