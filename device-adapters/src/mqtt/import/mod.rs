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

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::{Directive, Reading};
use crate::model::{DeviceId, Stage};

use super::output::{Output, Token};
use super::wire::discovery::{self, Announced, Place, Slot};
use device::{Components, Device};
use entity::Entity;
use live::Live;

pub(crate) use device::Link;

/// The most components; a large home has some hundreds.
const MOST_COMPONENTS: usize = 2_048;
/// The most topics that are listened to.
const MOST_TOPICS: usize = 4_096;
/// The most devices that may be owned before they are found.
const MOST_EXPECTED: usize = 1_024;
/// The most announcements of which it is remembered that they were refused.
const MOST_REFUSED: usize = 256;
/// How long after an announcement its device is made: the others of it come at the same time.
const SETTLE: Duration = Duration::from_millis(300);

/// What was received and not used, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// An announcement, or a message, that cannot be read.
    pub(crate) malformed: u64,
    /// An announcement that takes what another has: its unique id, or the id of its device.
    pub(crate) taken: u64,
    /// One too many.
    pub(crate) overflow: u64,
    /// One of a kind that is not imported, or that is meant to stay unused.
    pub(crate) unused: u64,
}

/// All that is announced by others.
#[derive(Debug)]
pub(crate) struct Import {
    broker: String,
    parts: Components,
    /// Which component has a unique id.
    uniques: BTreeMap<String, Slot>,
    /// Who listens to a topic.
    topics: BTreeMap<String, BTreeSet<Slot>>,
    /// The components of each physical device.
    groups: BTreeMap<String, BTreeSet<Slot>>,
    /// Those that changed, and when they are made anew.
    dirty: BTreeMap<String, Instant>,
    devices: BTreeMap<DeviceId, Device>,
    /// Of which physical device each was made.
    origins: BTreeMap<DeviceId, String>,
    /// What each component is part of.
    owners: BTreeMap<Slot, DeviceId>,
    owned: BTreeSet<DeviceId>,
    refused: BTreeMap<Slot, String>,
    /// Which physical device would have made a device, were its id not taken.
    contested: BTreeMap<DeviceId, String>,
    link: Link,
    dropped: Dropped,
}

impl Import {
    /// Nothing is known; the broker is not there yet.
    pub(crate) fn new(broker: String) -> Self {
        let link = Link::Down(format!("there is no connection with the broker {broker} yet"));
        Self {
            broker,
            parts: BTreeMap::new(),
            uniques: BTreeMap::new(),
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            dirty: BTreeMap::new(),
            devices: BTreeMap::new(),
            origins: BTreeMap::new(),
            owners: BTreeMap::new(),
            owned: BTreeSet::new(),
            refused: BTreeMap::new(),
            contested: BTreeMap::new(),
            link,
            dropped: Dropped::default(),
        }
    }

    /// What was received and not used so far.
    pub(crate) fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// The broker is there: everything that was listened to is listened to again.
    pub(crate) fn connected(&mut self, now: Instant, out: &mut Output) {
        self.link = Link::Up(now);
        out.transmits.extend(self.topics.keys().cloned().map(super::output::Transmit::Subscribe));
        self.each_device(now, out);
    }

    /// The broker is gone.
    pub(crate) fn disconnected(&mut self, now: Instant, why: &str, out: &mut Output) {
        self.link = Link::Down(why.to_owned());
        self.parts.values_mut().for_each(Live::disconnected);
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
        let announced = match discovery::parse(place, payload) {
            Ok(announced) => announced,
            Err(error) => {
                self.dropped.malformed += 1;
                tracing::debug!(%place, %error, "announcement refused");
                return false;
            }
        };
        let kept: BTreeSet<Slot> = announced.iter().map(|one| one.slot.clone()).collect();
        // The key is empty in the first of a place.
        let first = Slot { place: place.clone(), key: String::new() };
        let gone: Vec<Slot> = self
            .parts
            .range(first..)
            .map(|(slot, _)| slot)
            .take_while(|slot| slot.place == *place)
            .filter(|slot| !kept.contains(*slot))
            .cloned()
            .collect();
        let mut makes_room = false;
        for slot in gone {
            makes_room |= self.remove(now, &slot, out);
        }
        for one in announced {
            makes_room |= self.take_announced(now, one, out);
        }
        makes_room
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
        let Some(listeners) = self.topics.get(topic) else { return };
        let Ok(message) = std::str::from_utf8(payload) else {
            self.dropped.malformed += 1;
            return;
        };
        let mut touched = BTreeSet::new();
        for slot in listeners {
            let Some(live) = self.parts.get_mut(slot) else { continue };
            let heard = live.take(now, topic, message);
            if heard == live::Heard::default() {
                continue;
            }
            let Some(id) = self.owners.get(slot) else { continue };
            touched.insert(id.clone());
            let device =
                self.devices.get_mut(id).filter(|device| !retained && device.actuator.as_ref() == Some(slot));
            let Some(device) = device else { continue };
            if heard.presence && live.presence() == live::Presence::There {
                device.came_back(now);
            }
            if let Some(told) = heard.parts {
                device.heard(&told);
            }
        }
        for id in touched {
            if let Some(device) = self.devices.get_mut(&id) {
                device.handle_timeout(now, &self.parts, &self.link, out);
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
                device.handle_timeout(now, &self.parts, &self.link, out);
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
                    device.refresh(now, &self.parts, &self.link, out);
                }
            }
            Directive::Command { device, command, change, deadline } => match self.devices.get_mut(&device) {
                Some(known) => {
                    known.command(now, command, &change, deadline, out);
                    known.handle_timeout(now, &self.parts, &self.link, out);
                }
                None => {
                    let reason = format!("nothing announces {device} at the broker {}", self.broker);
                    let stage = Stage::Failed { reason };
                    out.tell(Reading::Progress { device, command, stage });
                }
            },
            Directive::Probe | Directive::Pair { .. } | Directive::Show(_) | Directive::Hide { .. } => {}
        }
    }

    /// Ends every command that is in flight, because the adapter stops.
    pub(crate) fn shut_down(&mut self, reason: &str, out: &mut Output) {
        self.devices.values_mut().for_each(|device| device.fail(reason, out));
    }

    /// When [`Import::handle_timeout`] must be called next.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let devices = self.devices.values().filter_map(|device| device.poll_timeout(now, &self.link));
        let lapses = self.parts.values().filter_map(Live::lapse);
        devices.chain(lapses).chain(self.dirty.values().copied()).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        let due: Vec<String> =
            self.dirty.iter().filter(|(_, due)| **due <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            self.dirty.remove(&key);
            self.regroup(now, &key, out);
        }
        for live in self.parts.values_mut() {
            live.handle_timeout(now);
        }
        self.each_device(now, out);
    }

    fn each_device(&mut self, now: Instant, out: &mut Output) {
        for device in self.devices.values_mut() {
            device.handle_timeout(now, &self.parts, &self.link, out);
        }
    }

    fn own(&mut self, now: Instant, id: DeviceId, owned: bool, out: &mut Output) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.set_owned(now, owned, &self.parts, &self.link, out);
        }
        if !owned {
            self.owned.remove(&id);
        } else if self.owned.len() < MOST_EXPECTED {
            self.owned.insert(id);
        } else {
            tracing::warn!(device = %id, most = MOST_EXPECTED, "too many owned MQTT devices: this one waits to be found again");
        }
    }

    fn take_announced(&mut self, now: Instant, announced: Announced, out: &mut Output) -> bool {
        let slot = announced.slot.clone();
        let entity = match Entity::parse(&announced) {
            Ok(Some(entity)) => entity,
            Ok(None) => {
                self.dropped.unused += 1;
                return self.remove(now, &slot, out);
            }
            Err(error) => {
                self.dropped.malformed += 1;
                self.refuse(&slot, &format!("{error}"));
                return self.remove(now, &slot, out);
            }
        };
        if self.parts.get(&slot).is_some_and(|live| live.entity == entity) {
            return false;
        }
        if let Some(first) = self.uniques.get(&entity.unique).filter(|first| **first != slot) {
            self.dropped.taken += 1;
            let why = format!("{} announced the unique id {:?} first", first, entity.unique);
            self.refuse(&slot, &why);
            return self.remove(now, &slot, out);
        }
        let (mut makes_room, known) = (false, self.parts.remove(&slot));
        if let Some(known) = &known {
            // What it told stays true where it still tells in the same way; topics are counted anew.
            makes_room = self.unlink(now, &slot, &known.entity, &entity, out);
        }
        self.link_up(now, slot, entity, out);
        makes_room
    }

    /// Puts a component into every table.
    fn link_up(&mut self, now: Instant, slot: Slot, entity: Entity, out: &mut Output) {
        let new = entity.topics().into_iter().filter(|topic| !self.topics.contains_key(*topic)).count();
        if self.parts.len() >= MOST_COMPONENTS || self.topics.len() + new > MOST_TOPICS {
            self.dropped.overflow += 1;
            self.refuse(&slot, &format!("there are {} others already", self.parts.len()));
            return;
        }
        for topic in entity.topics() {
            let listeners = self.topics.entry(topic.to_owned()).or_default();
            if listeners.is_empty() && matches!(self.link, Link::Up(_)) {
                out.transmits.push_back(super::output::Transmit::Subscribe(topic.to_owned()));
            }
            listeners.insert(slot.clone());
        }
        let key = entity.physical.key.clone();
        self.uniques.insert(entity.unique.clone(), slot.clone());
        self.groups.entry(key.clone()).or_default().insert(slot.clone());
        self.dirty.entry(key).or_insert(now + SETTLE);
        self.refused.remove(&slot);
        self.parts.insert(slot, Live::new(entity));
    }

    /// Takes a component out of every table. True where that makes room for one that was refused.
    fn remove(&mut self, now: Instant, slot: &Slot, out: &mut Output) -> bool {
        let Some(live) = self.parts.remove(slot) else { return false };
        self.unlink(now, slot, &live.entity, &live.entity, out)
    }

    /// The same for what an announcement said before; what the next one says as well is not listened to anew.
    fn unlink(
        &mut self,
        now: Instant,
        slot: &Slot,
        entity: &Entity,
        next: &Entity,
        out: &mut Output,
    ) -> bool {
        for topic in entity.topics() {
            let Some(listeners) = self.topics.get_mut(topic) else { continue };
            listeners.remove(slot);
            if listeners.is_empty() {
                self.topics.remove(topic);
                let is_kept = !std::ptr::eq(entity, next) && next.topics().contains(&topic);
                if !is_kept && matches!(self.link, Link::Up(_)) {
                    out.transmits.push_back(super::output::Transmit::Unsubscribe(topic.to_owned()));
                }
            }
        }
        self.uniques.remove(&entity.unique);
        let key = &entity.physical.key;
        if let Some(group) = self.groups.get_mut(key) {
            group.remove(slot);
        }
        self.dirty.entry(key.clone()).or_insert(now + SETTLE);
        self.refused.values().any(|unique| *unique == entity.unique)
    }

    /// Says once, and counts always, that an announcement is not used.
    fn refuse(&mut self, slot: &Slot, why: &str) {
        let is_new = !self.refused.contains_key(slot);
        if is_new && self.refused.len() < MOST_REFUSED {
            let unique = why.split('"').nth(1).unwrap_or_default().to_owned();
            self.refused.insert(slot.clone(), unique);
            tracing::warn!(announcement = %slot, why, "an MQTT announcement is refused");
        } else {
            tracing::debug!(announcement = %slot, why, "an MQTT announcement is refused");
        }
    }

    /// Makes the devices of a physical device anew.
    fn regroup(&mut self, now: Instant, key: &str, out: &mut Output) {
        let slots = self.groups.get(key).cloned().unwrap_or_default();
        if slots.is_empty() {
            self.groups.remove(key);
        }
        let plans = group::plan(
            &self.broker,
            slots.iter().filter_map(|slot| Some((slot, &self.parts.get(slot)?.entity))),
        );
        let mut planned = BTreeSet::new();
        self.owners.retain(|_, id| self.origins.get(id).is_none_or(|origin| origin != key));
        for plan in plans {
            let id = plan.description.id.clone();
            let is_taken =
                self.origins.get(&id).is_some_and(|origin| origin != key) || !planned.insert(id.clone());
            if is_taken {
                self.dropped.taken += 1;
                let is_new = self.contested.len() < MOST_REFUSED && !self.contested.contains_key(&id);
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
            if let Some(other) = self.contested.remove(&id).filter(|other| self.groups.contains_key(other)) {
                self.dirty.entry(other).or_insert(now + SETTLE);
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
                known.remake(description.clone(), actuator, sensors);
                if is_new {
                    out.tell(Reading::Found { device: description });
                }
            }
            None => {
                out.tell(Reading::Found { device: description.clone() });
                let owned = self.owned.contains(&id);
                let mut device = Device::new(description, actuator, sensors, owned);
                device.refresh(now, &self.parts, &self.link, out);
                self.devices.insert(id, device);
            }
        }
    }
}
