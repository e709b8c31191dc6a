//! An automation as it is checked: what starts it, on which conditions, and what it does then.
//!
//! It is written as JSON (or TOML on the command line); every fault names its place. docs/automation.md has the forms.

mod action;
mod condition;
mod fault;
mod kept;
mod step;
#[cfg(test)]
mod tests;
mod trigger;

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;

pub(crate) use self::{
    action::{Action, Deed, Waiting},
    condition::{Bounds, Condition, Sun},
    fault::Fault,
    kept::{keep, kept},
    step::{Http, What, filled, is_expression},
    trigger::Trigger,
};
use fault::Place;

/// Runs of one automation at once, or in its queue.
const MAX_RUNS: u8 = 8;
/// Longest time that is waited, for whatever.
const MAX_WAIT: Duration = Duration::from_secs(7 * 86_400);
/// Longest name of a device or of what it has, in bytes.
const MAX_NAME: usize = 64;

/// An automation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program {
    pub(crate) triggers: Vec<Trigger>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) actions: Vec<Action>,
    pub(crate) mode: Mode,
}

/// What happens when it is started while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    Single,
    /// What runs is ended, and it begins anew.
    Restart,
    /// It runs afterwards; so many may wait.
    Queued(u8),
    /// Both run; so many may.
    Parallel(u8),
}

/// Something that a device has: `on`, `brightness`, a sensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) device: String,
    pub(crate) of: String,
}

/// An automation as it is written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgramText {
    /// What starts it.
    pub(crate) triggers: Vec<Json>,
    /// What must be so.
    #[serde(default)]
    pub(crate) conditions: Vec<Json>,
    /// What it does.
    pub(crate) actions: Vec<Json>,
    /// `single`, `restart`, `queued` or `parallel`.
    #[serde(default)]
    pub(crate) mode: String,
    /// How many may wait, or run.
    pub(crate) max: Option<u8>,
}

impl ProgramText {
    /// Understands it.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(crate) fn parse(&self) -> Result<Program, Fault> {
        let triggers = trigger::triggers(&Place::new("triggers"), &self.triggers)?;
        let conditions = condition::conditions(&Place::new("conditions"), &self.conditions)?;
        let actions = action::program(&Place::new("actions"), &self.actions)?;
        Ok(Program { triggers, conditions, actions, mode: self.mode()? })
    }

    fn mode(&self) -> Result<Mode, Fault> {
        let place = Place::new("mode");
        let max = self.max.unwrap_or(MAX_RUNS);
        if !(1..=MAX_RUNS).contains(&max) {
            return Err(Place::new("max").fault(format!("{max}: 1 to {MAX_RUNS} may run or wait")));
        }
        match self.mode.as_str() {
            "" | "single" => Ok(Mode::Single),
            "restart" => Ok(Mode::Restart),
            "queued" => Ok(Mode::Queued(max)),
            "parallel" => Ok(Mode::Parallel(max)),
            other => Err(place.fault(format!("`{other}`: there are single, restart, queued and parallel"))),
        }
    }
}

/// What a device has, checked as far as it can be without the device.
fn source(place: &Place, device: String, of: Option<String>) -> Result<Source, Fault> {
    let of = of.unwrap_or_else(|| "on".to_owned());
    for (what, text) in [("a device", &device), ("`of`", &of)] {
        if text.is_empty() || text.len() > MAX_NAME + 7 {
            return Err(
                place.fault(format!("{what} has a name of 1 to {MAX_NAME} bytes, not {}", text.len()))
            );
        }
    }
    Ok(Source { device, of })
}

/// A length of time with its unit, such as `5m`; at most a week.
fn time(place: &Place, text: &str) -> Result<Duration, Fault> {
    let read = crate::config::duration::parse_duration(text)
        .map_err(|rule| place.fault(format!("`{text}`: {rule}")))?;
    if read > MAX_WAIT {
        return Err(place.fault(format!("`{text}` is longer than a week, and that is the most")));
    }
    Ok(read)
}

fn optional_time(place: &Place, text: Option<&String>) -> Result<Option<Duration>, Fault> {
    text.map(|text| time(place, text)).transpose()
}
