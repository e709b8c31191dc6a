//! What was told of a bridge's devices, and what of it is news. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::adapter::Reading;
use crate::model::{Availability, CommandId, Description, DeviceId, Measurement, Source, State};

use super::home::{Home, Part, Press, Role};

/// What was told of a device last.
#[derive(Debug, Default)]
struct Told {
    description: Option<Description>,
    availability: Option<Availability>,
    state: Option<(State, Option<CommandId>)>,
    measured: BTreeMap<String, Measurement>,
}

/// What was told of all devices of a bridge.
#[derive(Debug)]
pub(crate) struct News {
    owned: BTreeSet<DeviceId>,
    told: BTreeMap<DeviceId, Told>,
    /// The newest command that each state is known to follow.
    follows: BTreeMap<DeviceId, CommandId>,
    /// The last press of each button, and how many were told in this run.
    presses: BTreeMap<DeviceId, (String, u64)>,
    /// Nothing is told of owned devices while the bridge is lost, for what is known is old.
    is_lost: bool,
}

impl News {
    /// Nothing was told yet.
    pub(crate) fn new(owned: BTreeSet<DeviceId>) -> Self {
        Self {
            owned,
            told: BTreeMap::new(),
            follows: BTreeMap::new(),
            presses: BTreeMap::new(),
            is_lost: false,
        }
    }

    /// This node owns the device from now on, or no longer does.
    pub(crate) fn own(&mut self, device: DeviceId, owned: bool) {
        if let Some(told) = self.told.get_mut(&device) {
            *told = Told { description: told.description.take(), ..Told::default() };
        }
        if owned {
            self.owned.insert(device);
        } else {
            self.owned.remove(&device);
        }
    }

    /// Whether this node owns it.
    pub(crate) fn owns(&self, device: &DeviceId) -> bool {
        self.owned.contains(device)
    }

    /// The state of a device is known to follow that command.
    pub(crate) fn follow(&mut self, device: &DeviceId, command: CommandId) {
        self.follows.insert(device.clone(), command);
    }

    /// What the device shows is told again even if it is the same.
    pub(crate) fn forget(&mut self, device: &DeviceId) {
        if let Some(told) = self.told.get_mut(device) {
            told.state = None;
            told.measured.clear();
        }
    }

    /// The bridge tells all again.
    pub(crate) fn reach(&mut self) {
        self.is_lost = false;
    }

    /// Whether the bridge is lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The bridge does not answer; true the first time.
    pub(crate) fn lose(&mut self, home: &Home, reason: &str, out: &mut VecDeque<Reading>) -> bool {
        if std::mem::replace(&mut self.is_lost, true) {
            return false;
        }
        for device in home.roles().keys().filter(|device| self.owned.contains(*device)) {
            let told = self.told.entry(device.clone()).or_default();
            *told = Told { description: told.description.take(), ..Told::default() };
            told.availability = Some(Availability::Offline);
            out.push_back(availability(device, Availability::Offline, reason.to_owned()));
        }
        true
    }

    /// Somebody pressed a button.
    pub(crate) fn press(&mut self, press: &Press, out: &mut VecDeque<Reading>) {
        if !self.owned.contains(&press.device) {
            return;
        }
        let (event, count) = self.presses.entry(press.device.clone()).or_default();
        event.clone_from(&press.event);
        *count = crate::press::after(*count);
        let state = State::Button { event: event.clone(), count: *count };
        self.told.entry(press.device.clone()).or_default().state = Some((state.clone(), None));
        out.push_back(reported(&press.device, state, None));
    }

    /// Tells all that is news, and gives the devices that are gone.
    pub(crate) fn tell(&mut self, home: &Home, host: &str, out: &mut VecDeque<Reading>) -> Vec<DeviceId> {
        for (device, role) in home.roles() {
            let told = self.told.entry(device.clone()).or_default();
            if told.description.as_ref() != Some(&role.description) {
                told.description = Some(role.description.clone());
                out.push_back(Reading::Found { device: role.description.clone() });
            }
            if self.is_lost || !self.owned.contains(device) {
                continue;
            }
            let (reached, reason) = home.availability(role);
            if told.availability != Some(reached) {
                told.availability = Some(reached);
                out.push_back(availability(device, reached, reason));
            }
            let command = self.follows.get(device).copied();
            let shown = state(home, role, self.presses.get(device)).map(|state| (state, command));
            if shown.is_some() && told.state != shown {
                told.state.clone_from(&shown);
                out.extend(shown.map(|(state, command)| reported(device, state, command)));
            }
            let mut measured = home.measured(role);
            measured.retain(|key, value| told.measured.get(key) != Some(value));
            if !measured.is_empty() {
                told.measured.extend(measured.clone());
                out.push_back(Reading::Measured { device: device.clone(), values: measured });
            }
        }
        let is_gone = |device: &&DeviceId| !home.roles().contains_key(*device);
        let gone: Vec<DeviceId> = self.told.keys().filter(is_gone).cloned().collect();
        for device in &gone {
            self.told.remove(device);
            self.follows.remove(device);
            self.presses.remove(device);
            let reason = format!("the bridge at {host} does not list it any more");
            out.push_back(Reading::Lost { device: device.clone(), reason });
        }
        gone
    }
}

/// The state of a device; that of a button is what was pressed last.
fn state(home: &Home, role: &Role, press: Option<&(String, u64)>) -> Option<State> {
    if let Part::Button(_) = role.part {
        let (event, count) = press.cloned().or_else(|| Some((home.last_press(role)?, 0)))?;
        return Some(State::Button { event, count });
    }
    home.state(role)
}

fn availability(device: &DeviceId, availability: Availability, reason: String) -> Reading {
    Reading::Availability { device: device.clone(), availability, reason }
}

fn reported(device: &DeviceId, state: State, command: Option<CommandId>) -> Reading {
    Reading::Reported { device: device.clone(), state, command, source: Source::ReadBack }
}
