//! All that an adapter said to the live check, and what no adapter may say. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::adapter::Reading;
use crate::model::{Availability, Capabilities, CommandId, Description, DeviceId, Measurement, Stage, State};

/// What was said so far.
pub(super) struct Ledger {
    device: DeviceId,
    /// Of this run.
    pub(super) seen: Vec<Reading>,
    /// Whether the node owns the device: before and after, nothing is to be told of it.
    pub(super) owned: bool,
    found: Option<Description>,
    /// What this run told last of whether the device answers; none after it was lost.
    pub(super) availability: Option<Availability>,
    ended: BTreeMap<CommandId, Stage>,
}

impl Ledger {
    pub(super) fn new(device: DeviceId) -> Self {
        Self {
            device,
            seen: Vec::new(),
            owned: false,
            found: None,
            availability: None,
            ended: BTreeMap::new(),
        }
    }

    /// Another run begins: it knows nothing, and owns nothing.
    pub(super) fn begin(&mut self) {
        self.seen.clear();
        (self.owned, self.found, self.availability) = (false, None, None);
    }

    /// How a command ended, if it did.
    pub(super) fn end_of(&self, command: CommandId) -> Option<&Stage> {
        self.ended.get(&command)
    }

    /// Notes what was said.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn note(&mut self, reading: Reading) -> Result<(), String> {
        let fault = self.fault_of(&reading);
        match &reading {
            Reading::Found { device } if device.id == self.device => self.found = Some(device.clone()),
            Reading::Lost { device, .. } if *device == self.device => self.availability = None,
            Reading::Availability { device, availability, .. } if *device == self.device => {
                self.availability = Some(*availability);
            }
            Reading::Progress { command, stage, .. } if stage.is_final() => {
                self.ended.insert(*command, stage.clone());
            }
            _ => {}
        }
        self.seen.push(reading);
        fault.map_or(Ok(()), Err)
    }

    fn fault_of(&self, reading: &Reading) -> Option<String> {
        let of_owned = match reading {
            Reading::Reported { device, .. } => Some((device, "the state")),
            Reading::Measured { device, .. } => Some((device, "measurements")),
            Reading::Forecast { device, .. } => Some((device, "a forecast")),
            Reading::Availability { device, .. } => Some((device, "the availability")),
            _ => None,
        };
        if let Some((device, what)) = of_owned
            && !(self.owned && *device == self.device)
        {
            return Some(format!("it tells {what} of {device}, which this node does not own"));
        }
        match reading {
            Reading::Progress { command, stage, .. } => self.fault_of_progress(*command, stage),
            Reading::Measured { values, .. } => {
                values.iter().find_map(|(key, value)| self.fault_of_measurement(key, value))
            }
            Reading::Reported { state, .. } => self.fault_of_state(state),
            Reading::Availability { availability, reason, .. }
                if *availability != Availability::Online && is_blank(reason) =>
            {
                Some(format!("it says that the device is {availability:?}, and does not say why"))
            }
            Reading::Lost { reason, .. } if is_blank(reason) => {
                Some("it says that the device is lost, and does not say why".to_owned())
            }
            _ => None,
        }
    }

    fn fault_of_progress(&self, command: CommandId, stage: &Stage) -> Option<String> {
        if let Some(end) = self.ended.get(&command) {
            return Some(format!("command {command} ended as {end:?} and then became {stage:?}"));
        }
        match stage {
            Stage::TimedOut { reason } | Stage::Failed { reason } if is_blank(reason) => {
                Some(format!("command {command} ended as {stage:?}, which does not say why"))
            }
            _ => None,
        }
    }

    fn fault_of_measurement(&self, key: &str, value: &Measurement) -> Option<String> {
        if self.found.as_ref().is_some_and(|found| !found.sensors.contains_key(key)) {
            return Some(format!("it measured {key:?}, which its description does not name"));
        }
        match value {
            Measurement::Number(number) if !number.is_finite() => {
                Some(format!("it measured {key} as {value:?}"))
            }
            Measurement::Unknown(why) if is_blank(why) => {
                Some(format!("it does not know {key}, and does not say why"))
            }
            _ => None,
        }
    }

    fn fault_of_state(&self, state: &State) -> Option<String> {
        if matches!(state, State::Button { event, .. } if event.is_empty()) {
            return Some("it told a press without a name".to_owned());
        }
        let capabilities = &self.found.as_ref()?.capabilities;
        let fits = matches!(
            (state, capabilities),
            (State::Light(_), Capabilities::Light(_))
                | (State::Switch { .. }, Capabilities::Switch)
                | (State::Button { .. }, Capabilities::Button(_))
        );
        (!fits).then(|| format!("it tells {state:?} of a {}", capabilities.noun()))
    }
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// The device that a reading is about.
pub(super) fn device_of(reading: &Reading) -> Option<&DeviceId> {
    match reading {
        Reading::Found { device } => Some(&device.id),
        Reading::Lost { device, .. }
        | Reading::Reported { device, .. }
        | Reading::Measured { device, .. }
        | Reading::Forecast { device, .. }
        | Reading::Availability { device, .. }
        | Reading::Progress { device, .. }
        | Reading::Wish { device, .. } => Some(device),
        Reading::Learnt { .. } | Reading::Pairing { .. } | Reading::Happened(_) => None,
    }
}

/// What is owed to whoever begins to own a device: its state, what each sensor yields, and that it is online. In any
/// order, because a device may tell them in messages of their own; and not before, because nobody asked then.
pub(super) struct Owed {
    state: bool,
    sensors: BTreeSet<String>,
    online: bool,
}

impl Owed {
    pub(super) fn of(found: &Description) -> Self {
        Self {
            state: matches!(found.capabilities, Capabilities::Light(_) | Capabilities::Switch),
            sensors: found.sensors.keys().cloned().collect(),
            online: true,
        }
    }

    /// Takes what was told of the device.
    pub(super) fn take(&mut self, reading: &Reading) {
        match reading {
            Reading::Reported { .. } => self.state = false,
            Reading::Measured { values, .. } => self.sensors.retain(|key| !values.contains_key(key)),
            Reading::Availability { availability: Availability::Online, .. } => self.online = false,
            _ => {}
        }
    }

    /// What is still missing, for people; none when all is told.
    pub(super) fn missing(&self) -> Option<String> {
        let state = self.state.then(|| "its state".to_owned());
        let sensors = self.sensors.iter().map(|key| format!("its {key}"));
        let online = self.online.then(|| "that it is online".to_owned());
        let missing: Vec<_> = state.into_iter().chain(sensors).chain(online).collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}
