//! Everything that is announced: by what it is known, what it told so far, and who listens to what. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::mqtt::output::Output;
use crate::mqtt::wire::discovery::{self, Announced, Place, Slot};
use crate::mqtt::wire::fields::FieldError;
use crate::mqtt::wire::incoming::Incoming;

use super::device::Components;
use super::entity::Entity;
use super::live::{Heard, Live};

/// The most components; a large home has some hundreds.
const MOST_COMPONENTS: usize = 2_048;
/// The most topics that are listened to, those that are just being left and Hearth's own included.
const MOST_TOPICS: usize = 4_096;
/// The most announcements of which it is remembered that they were refused.
const MOST_REFUSED: usize = 256;
/// How long after an announcement its device is made: the others of it come at the same time.
pub(super) const SETTLE: Duration = Duration::from_millis(300);

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

/// All components.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// What each is, and what it told.
    pub(super) parts: Components,
    /// The components of each physical device.
    pub(super) groups: BTreeMap<String, BTreeSet<Slot>>,
    /// The physical devices that changed, and when their devices are made anew.
    pub(super) dirty: BTreeMap<String, Instant>,
    /// What was not used.
    pub(super) dropped: Dropped,
    /// Which component has a unique id.
    uniques: BTreeMap<Unique, Slot>,
    /// Who listens to a topic.
    topics: BTreeMap<String, BTreeSet<Slot>>,
    /// What is listened to already and must be listened to again, so that who came later gets what the broker keeps there.
    again: BTreeSet<String>,
    refused: BTreeMap<Slot, Refusal>,
}

/// Which of those that may have the same unique id, and that id.
type Unique = (&'static str, String);

/// Why a component is not used.
#[derive(Debug, Clone, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Malformed(#[from] FieldError),
    #[error("{by} announced the unique id {:?} first", .unique.1)]
    Taken { by: Slot, unique: Unique },
    #[error("there are {0} others already")]
    Full(usize),
}

impl Register {
    /// The broker is there: everything is listened to.
    pub(super) fn connected(&self, out: &mut Output) {
        self.topics.keys().for_each(|topic| out.listen(topic.as_str()));
    }

    /// The broker is gone.
    pub(super) fn disconnected(&mut self) {
        self.parts.values_mut().for_each(Live::disconnected);
        // It is all listened to again anyway.
        self.again.clear();
    }

    /// Takes an announcement. True where the others must be heard again, because this one makes room for one of them.
    pub(super) fn announced(
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
        self.refused.retain(|slot, _| slot.place != *place || kept.contains(slot));
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
            makes_room |= self.take(now, &one, out);
        }
        makes_room
    }

    /// Takes a message at a topic, and gives what each who listens there heard; `retained` is what the broker kept from before.
    pub(super) fn message(
        &mut self,
        now: Instant,
        topic: &str,
        payload: &[u8],
        retained: bool,
    ) -> Vec<(Slot, Heard)> {
        let Some(listeners) = self.topics.get(topic) else { return Vec::new() };
        let Ok(text) = std::str::from_utf8(payload) else {
            self.dropped.malformed += 1;
            return Vec::new();
        };
        let message = Incoming::new(text);
        let mut all = Vec::new();
        for slot in listeners {
            let Some(live) = self.parts.get_mut(slot) else { continue };
            let heard = live.take(now, topic, &message, retained);
            if heard != Heard::default() {
                all.push((slot.clone(), heard));
            }
        }
        all
    }

    /// When [`Register::handle_timeout`] must be called next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.parts.values().filter_map(Live::lapse).chain(self.dirty.values().copied()).min()
    }

    /// Does what is due, and gives the physical devices whose devices must be made anew.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Output) -> Vec<String> {
        for live in self.parts.values_mut() {
            live.handle_timeout(now);
        }
        let due: Vec<String> =
            self.dirty.iter().filter(|(_, due)| **due <= now).map(|(key, _)| key.clone()).collect();
        self.dirty.retain(|_, due| *due > now);
        if !due.is_empty() {
            std::mem::take(&mut self.again).into_iter().for_each(|topic| out.listen(topic));
        }
        due
    }

    fn take(&mut self, now: Instant, announced: &Announced, out: &mut Output) -> bool {
        let slot = &announced.slot;
        let entity = match Entity::parse(announced) {
            Ok(Some(entity)) => entity,
            Ok(None) => {
                self.dropped.unused += 1;
                self.refused.remove(slot);
                return self.remove(now, slot, out);
            }
            Err(error) => {
                self.dropped.malformed += 1;
                self.refuse(slot, error.into());
                return self.remove(now, slot, out);
            }
        };
        if self.parts.get(slot).is_some_and(|live| live.entity == entity) {
            return false;
        }
        let unique = unique(&entity);
        if let Some(first) = self.uniques.get(&unique).filter(|first| *first != slot) {
            self.dropped.taken += 1;
            let refusal = Refusal::Taken { by: first.clone(), unique };
            self.refuse(slot, refusal);
            return self.remove(now, slot, out);
        }
        match self.parts.remove(slot) {
            None => {
                self.link_up(now, slot, Live::new(entity), out);
                false
            }
            Some(mut live) => {
                let before = live.renew(entity);
                self.link_up(now, slot, live, out);
                self.unlink(now, slot, &before, out)
            }
        }
    }

    /// Puts a component into every table.
    fn link_up(&mut self, now: Instant, slot: &Slot, live: Live, out: &mut Output) {
        let entity = &live.entity;
        let topics: BTreeSet<&str> = entity.topics().collect();
        let new = topics.iter().filter(|topic| !self.topics.contains_key(**topic)).count();
        if self.parts.len() >= MOST_COMPONENTS || out.filters() + new > MOST_TOPICS {
            self.dropped.overflow += 1;
            self.refuse(slot, Refusal::Full(self.parts.len()));
            return;
        }
        for topic in topics {
            let listeners = self.topics.entry(topic.to_owned()).or_default();
            if listeners.is_empty() {
                out.listen(topic);
            } else if !live.has_heard(topic) {
                self.again.insert(topic.to_owned());
            }
            listeners.insert(slot.clone());
        }
        let key = entity.physical.key.clone();
        self.uniques.insert(unique(entity), slot.clone());
        self.groups.entry(key.clone()).or_default().insert(slot.clone());
        self.dirty.entry(key).or_insert(now + SETTLE);
        self.refused.remove(slot);
        self.parts.insert(slot.clone(), live);
    }

    /// Takes a component out of every table. True where that makes room for one that was refused.
    fn remove(&mut self, now: Instant, slot: &Slot, out: &mut Output) -> bool {
        let Some(live) = self.parts.remove(slot) else { return false };
        self.unlink(now, slot, &live.entity, out)
    }

    /// The same with what it was announced as before, but for what it still is.
    fn unlink(&mut self, now: Instant, slot: &Slot, before: &Entity, out: &mut Output) -> bool {
        let after = self.parts.get(slot).map(|live| &live.entity);
        for topic in before.topics() {
            if after.is_some_and(|after| after.topics().any(|kept| kept == topic)) {
                continue;
            }
            let Some(listeners) = self.topics.get_mut(topic) else { continue };
            listeners.remove(slot);
            if listeners.is_empty() {
                self.topics.remove(topic);
                self.again.remove(topic);
                out.leave(topic);
            }
        }
        let key = &before.physical.key;
        if after.is_none_or(|after| after.physical.key != *key)
            && let Some(group) = self.groups.get_mut(key)
        {
            group.remove(slot);
        }
        self.dirty.entry(key.clone()).or_insert(now + SETTLE);
        let freed = unique(before);
        if after.is_some_and(|after| unique(after) == freed) {
            return false;
        }
        self.uniques.remove(&freed);
        let waits_for_it = |refusal: &Refusal| match refusal {
            Refusal::Malformed(_) => false,
            Refusal::Taken { unique, .. } => *unique == freed,
            Refusal::Full(_) => after.is_none(),
        };
        self.refused.values().any(waits_for_it)
    }

    /// Says once why a component is not used.
    fn refuse(&mut self, slot: &Slot, refusal: Refusal) {
        if let Some(known) = self.refused.get_mut(slot) {
            *known = refusal;
        } else if self.refused.len() < MOST_REFUSED {
            tracing::warn!(announcement = %slot, why = %refusal, "an MQTT announcement is refused");
            self.refused.insert(slot.clone(), refusal);
        } else {
            tracing::debug!(announcement = %slot, why = %refusal, "an MQTT announcement is refused");
        }
    }
}

/// All that acts is of one kind here: from it a device has its id, and who comes later must not take that over with another kind.
fn unique(entity: &Entity) -> Unique {
    let kind = match entity.domain() {
        "light" | "switch" | "button" => "acts",
        senses => senses,
    };
    (kind, entity.unique.clone())
}
