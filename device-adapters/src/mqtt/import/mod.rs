//! What other software announces over MQTT, as devices of Hearth. Pure.
//!
//! Every announcement is a component of a device. One that acts (a light, a switch, a button) becomes a device of
//! Hearth; what measures belongs to the only one that acts, or else to a device that only measures.

mod device;
mod entity;
mod flight;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod group;
mod live;
mod physical;
mod register;

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::adapter::{Directive, Reading};
use crate::model::{DeviceId, Stage};

use super::output::{Output, Token};
use super::wire::discovery::{Place, Slot};
use device::Device;
use register::{Register, SETTLE};

pub(crate) use device::Link;
pub(crate) use register::Dropped;

/// The most devices that may be owned before they are found.
const MOST_EXPECTED: usize = 1_024;
/// The most devices of which it is remembered that another has their id.
const MOST_CONTESTED: usize = 256;

/// All that is announced by others.
#[derive(Debug)]
pub(crate) struct Import {
    broker: String,
    register: Register,
    devices: BTreeMap<DeviceId, Device>,
    /// Of which physical device each was made.
    origins: BTreeMap<DeviceId, String>,
    /// What each component is part of.
    owners: BTreeMap<Slot, DeviceId>,
    owned: BTreeSet<DeviceId>,
    /// Which physical device would have made a device, were its id not taken.
    contested: BTreeMap<DeviceId, String>,
    link: Link,
}

impl Import {
    /// Nothing is known; the broker is not there yet.
    pub(crate) fn new(broker: String) -> Self {
        let link = Link::Down(format!("there is no connection with the broker {broker} yet"));
        Self {
            broker,
            register: Register::default(),
            devices: BTreeMap::new(),
            origins: BTreeMap::new(),
            owners: BTreeMap::new(),
            owned: BTreeSet::new(),
            contested: BTreeMap::new(),
            link,
        }
    }

    /// What was received and not used so far.
    pub(crate) fn dropped(&self) -> Dropped {
        self.register.dropped
    }

    /// The broker is there: everything that was listened to is listened to again.
    pub(crate) fn connected(&mut self, now: Instant, out: &mut Output) {
        self.link = Link::Up(now);
        self.register.connected(out);
        self.each_device(now, out);
    }

    /// The broker is gone.
    pub(crate) fn disconnected(&mut self, now: Instant, why: &str, out: &mut Output) {
        self.link = Link::Down(why.to_owned());
        self.register.disconnected();
        self.devices.values_mut().for_each(Device::disconnected);
        self.each_device(now, out);
    }

    /// Takes an announcement. True where the others must be heard again, because this one makes room for one of them.
    pub(crate) fn announced(
        &mut self,
        now: Instant,
        place: &Place,
        payload: &[u8],
        out: &mut Output,
    ) -> bool {
        self.register.announced(now, place, payload, out)
    }

    /// Takes a message at a topic that somebody listens to. `retained` is what the broker kept from before.
    pub(crate) fn message(
        &mut self,
        now: Instant,
        topic: &str,
        payload: &[u8],
        retained: bool,
        out: &mut Output,
    ) {
        let mut touched = BTreeSet::new();
        for (slot, heard) in self.register.message(now, topic, payload, retained) {
            let Some(id) = self.owners.get(&slot) else { continue };
            touched.insert(id.clone());
            let device = self.devices.get_mut(id);
            let Some(device) = device.filter(|device| !retained && device.actuator.as_ref() == Some(&slot))
            else {
                continue;
            };
            let is_there = |live: &live::Live| live.presence() == live::Presence::There;
            // First what it told: where that tells its presence as well, an answer is no return.
            if let Some(told) = heard.parts {
                device.heard(&told);
            }
            if heard.presence && self.register.parts.get(&slot).is_some_and(is_there) {
                device.came_back(now);
            }
        }
        for id in touched {
            if let Some(device) = self.devices.get_mut(&id) {
                device.handle_timeout(now, &self.register.parts, &self.link, out);
            }
        }
    }

    /// The broker took a message, or refused it.
    pub(crate) fn published(
        &mut self,
        now: Instant,
        token: Token,
        result: &Result<(), String>,
        out: &mut Output,
    ) {
        for device in self.devices.values_mut() {
            if device.published(now, token, result, out) {
                device.handle_timeout(now, &self.register.parts, &self.link, out);
                return;
            }
        }
    }

    /// Takes a directive of the node.
    pub(crate) fn directive(&mut self, now: Instant, directive: Directive, out: &mut Output) {
        match directive {
            Directive::Own { device, owned } => self.own(now, device, owned, out),
            Directive::Refresh { device } => {
                if let Some(device) = self.devices.get_mut(&device) {
                    device.refresh(now, &self.register.parts, &self.link, out);
                }
            }
            Directive::Command { device, command, change, deadline, by: _ } => {
                match self.devices.get_mut(&device) {
                    Some(known) => {
                        known.command(now, command, &change, deadline, out);
                        known.handle_timeout(now, &self.register.parts, &self.link, out);
                    }
                    None => {
                        let reason = format!("nothing announces {device} at the broker {}", self.broker);
                        let stage = Stage::Failed { reason };
                        out.tell(Reading::Progress { device, command, stage });
                    }
                }
            }
            Directive::Probe
            | Directive::Pair { .. }
            | Directive::Show(_)
            | Directive::Hide { .. }
            | Directive::Tell(_) => {}
        }
    }

    /// Ends every command that is in flight, because the adapter stops.
    pub(crate) fn shut_down(&mut self, reason: &str, out: &mut Output) {
        self.devices.values_mut().for_each(|device| device.fail(reason, out));
    }

    /// When [`Import::handle_timeout`] must be called next.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let devices = self.devices.values().filter_map(|device| device.poll_timeout(now, &self.link));
        devices.chain(self.register.poll_timeout()).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        for key in self.register.handle_timeout(now, out) {
            self.regroup(now, &key, out);
        }
        self.each_device(now, out);
    }

    fn each_device(&mut self, now: Instant, out: &mut Output) {
        for device in self.devices.values_mut() {
            device.handle_timeout(now, &self.register.parts, &self.link, out);
        }
    }

    fn own(&mut self, now: Instant, id: DeviceId, owned: bool, out: &mut Output) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.set_owned(now, owned, &self.register.parts, &self.link, out);
        }
        if !owned {
            self.owned.remove(&id);
        } else if self.owned.len() < MOST_EXPECTED {
            self.owned.insert(id);
        } else {
            tracing::warn!(device = %id, most = MOST_EXPECTED, "too many owned MQTT devices: this one waits to be found again");
        }
    }

    /// Makes the devices of a physical device anew.
    fn regroup(&mut self, now: Instant, key: &str, out: &mut Output) {
        let slots = self.register.groups.get(key).cloned().unwrap_or_default();
        if slots.is_empty() {
            self.register.groups.remove(key);
        }
        let plans = group::plan(
            &self.broker,
            slots.iter().filter_map(|slot| Some((slot, &self.register.parts.get(slot)?.entity))),
        );
        let mut planned = BTreeSet::new();
        self.owners.retain(|_, id| self.origins.get(id).is_none_or(|origin| origin != key));
        for plan in plans {
            let id = plan.description.id.clone();
            let is_taken =
                self.origins.get(&id).is_some_and(|origin| origin != key) || !planned.insert(id.clone());
            if is_taken {
                self.register.dropped.taken += 1;
                let is_new = self.contested.len() < MOST_CONTESTED && !self.contested.contains_key(&id);
                if is_new {
                    tracing::warn!(device = %id, of = key, "an MQTT device is refused: another has the same id");
                    self.contested.insert(id, key.to_owned());
                }
                continue;
            }
            self.owners.extend(plan.slots().map(|slot| (slot.clone(), id.clone())));
            self.make(now, key, plan, out);
        }
        let of_key = self.origins.iter().filter(|(_, origin)| *origin == key).map(|(id, _)| id);
        let gone: Vec<DeviceId> = of_key.filter(|id| !planned.contains(*id)).cloned().collect();
        for id in gone {
            self.origins.remove(&id);
            if let Some(other) =
                self.contested.remove(&id).filter(|other| self.register.groups.contains_key(other))
            {
                self.register.dirty.entry(other).or_insert(now + SETTLE);
            }
            if let Some(mut device) = self.devices.remove(&id) {
                let reason = format!("its announcement at the broker {} was taken back", self.broker);
                device.fail(&reason, out);
                out.tell(Reading::Lost { device: id, reason });
            }
        }
    }

    fn make(&mut self, now: Instant, key: &str, plan: group::Plan, out: &mut Output) {
        let group::Plan { description, actuator, sensors } = plan;
        let id = description.id.clone();
        self.origins.insert(id.clone(), key.to_owned());
        match self.devices.get_mut(&id) {
            Some(known) => {
                let is_new = known.description != description;
                known.remake(now, description.clone(), actuator, sensors);
                if is_new {
                    out.tell(Reading::Found { device: description });
                }
                known.ask_what_is_unknown(&self.register.parts, &self.link, out);
            }
            None => {
                out.tell(Reading::Found { device: description.clone() });
                let owned = self.owned.contains(&id);
                let mut device = Device::new(now, description, actuator, sensors, owned);
                device.refresh(now, &self.register.parts, &self.link, out);
                self.devices.insert(id, device);
            }
        }
    }
}
