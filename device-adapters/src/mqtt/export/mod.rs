//! The devices of this home, as Home Assistant and whoever else is at the broker sees them. Pure.
//!
//! One retained announcement for each device, its states retained beside it, and one topic for each thing that can be
//! changed. What is left over from devices that are gone is taken back: the broker gives this home's own announcements
//! when they are listened to.

mod announcement;
mod classes;
mod payloads;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::{Event, Reading, Shown};
use crate::model::{Availability, DeviceId, State};

use super::ID;
use super::config::Config;
use super::output::Output;
use super::wire::discovery::Place;
use announcement::Topics;

/// The most devices that are shown.
const MOST_SHOWN: usize = 1_024;
/// The most announcements of this home that are remembered from before.
const MOST_LEFT_OVER: usize = 2_048;
/// How long after the connection what nobody shows any more is taken back: the node shows all devices at the start.
const TAKES_BACK_AFTER: Duration = Duration::from_secs(10);
/// The longest command, in bytes.
const MOST_COMMAND: usize = 4_096;
/// By this the origin of announcements is told.
pub(crate) const ORIGIN: &str = "Hearth";

/// What is shown to others.
#[derive(Debug)]
pub(crate) struct Export {
    topics: Topics,
    is_on: bool,
    /// What the topics of the events begin with that are told.
    told: Vec<String>,
    shown: BTreeMap<DeviceId, Shown>,
    /// What the broker has of each device: the topic and the hash of what is there.
    published: BTreeMap<DeviceId, BTreeMap<String, u64>>,
    dirty: BTreeSet<DeviceId>,
    /// Devices of this home whose announcements the broker has from before.
    left_over: BTreeSet<DeviceId>,
    takes_back_at: Option<Instant>,
    /// How many events of a button were told.
    events: BTreeMap<DeviceId, u64>,
    connected: bool,
}

impl Export {
    /// Nothing is shown yet. While it is off, only what is left over from before is taken back.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            topics: Topics::new(&config.discovery_prefix, &config.topic_prefix),
            is_on: config.export,
            told: config.events.clone(),
            shown: BTreeMap::new(),
            published: BTreeMap::new(),
            dirty: BTreeSet::new(),
            left_over: BTreeSet::new(),
            takes_back_at: None,
            events: BTreeMap::new(),
            connected: false,
        }
    }

    /// The topic at which others see whether Hearth is there.
    pub(crate) fn status_topic(&self) -> &str {
        &self.topics.status
    }

    /// The broker is there, and may have forgotten everything.
    pub(crate) fn connected(&mut self, now: Instant, out: &mut Output) {
        self.connected = true;
        self.takes_back_at = Some(now + TAKES_BACK_AFTER);
        out.listen(self.topics.announcements());
        if self.is_on {
            out.listen(self.topics.commands());
            out.listen(self.topics.events());
            out.listen(self.topics.birth.as_str());
            out.listen(self.topics.status.as_str());
            out.publish(&self.topics.status, "online", true);
        }
        self.show_again();
    }

    /// The broker is gone.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.takes_back_at = None;
    }

    /// A device of the home, as it is now.
    pub(crate) fn show(&mut self, shown: Shown, out: &mut Output) {
        let id = shown.device.id.clone();
        let is_known = self.shown.contains_key(&id);
        // What came from a broker is there already.
        if !self.is_on || shown.device.adapter == ID || (!is_known && self.shown.len() >= MOST_SHOWN) {
            return;
        }
        self.left_over.remove(&id);
        if let Some(State::Button { event, count }) = &shown.state {
            let told = self.events.insert(id.clone(), *count);
            let is_press = *count != 0 && told.is_some_and(|told| told != *count);
            if self.connected && is_press {
                out.publish_each(self.topics.of(&id, "event"), payloads::event(event));
            }
        }
        self.shown.insert(id.clone(), shown);
        self.dirty.insert(id);
    }

    /// Something happened in the home.
    pub(crate) fn tell(&self, event: &Event, out: &mut Output) {
        let is_wanted = self.told.iter().any(|beginning| event.topic.starts_with(beginning));
        if self.is_on && self.connected && is_wanted {
            out.publish_each(self.topics.event(&event.topic), event.data.to_string());
        }
    }

    /// A device is in the home no more.
    pub(crate) fn hide(&mut self, id: &DeviceId) {
        self.events.remove(id);
        if self.shown.remove(id).is_some() {
            self.dirty.insert(id.clone());
        }
    }

    /// Whether an announcement is one of this home, which is remembered.
    pub(crate) fn is_own(&mut self, place: &Place, payload: &[u8]) -> bool {
        let Some(id) = self.topics.device_of(place) else { return false };
        if !payload.is_empty() && !self.shown.contains_key(&id) && self.left_over.len() < MOST_LEFT_OVER {
            self.left_over.insert(id);
        }
        true
    }

    /// Takes a message that is not an announcement; whether it was for this.
    pub(crate) fn message(&mut self, topic: &str, payload: &[u8], retained: bool, out: &mut Output) -> bool {
        if topic == self.topics.birth {
            // Whoever starts has forgotten what is not retained, and may have missed the rest.
            if payload == b"online" && !retained {
                self.show_again();
            }
            return true;
        }
        if topic == self.topics.status {
            // The last will of an earlier connection, or of the board that ran before: this one is here.
            if self.connected && payload != b"online" {
                out.publish(&self.topics.status, "online", true);
            }
            return true;
        }
        if let Some(topic) = self.topics.event_of(topic) {
            match payloads::told(payload).filter(|_| !retained && self.is_on) {
                Some(data) => out.tell(Reading::Happened(Event { topic, data })),
                None => tracing::debug!(topic, retained, "an event over MQTT is ignored"),
            }
            return true;
        }
        let Some((id, part)) = self.topics.command_of(topic) else { return false };
        let Some(shown) = self.shown.get(&id) else { return true };
        // One that the broker kept would be carried out again after every connection.
        if retained || payload.len() > MOST_COMMAND {
            tracing::debug!(topic, retained, "a command over MQTT is ignored");
            return true;
        }
        match payloads::change(&shown.device.capabilities, part, payload) {
            Ok(change) => out.tell(Reading::Wish { device: id, change }),
            Err(why) => tracing::debug!(topic, why, "a command over MQTT is ignored"),
        }
        true
    }

    /// When [`Export::handle_timeout`] must be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.takes_back_at
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.takes_back_at.is_some_and(|at| at <= now) {
            self.takes_back_at = None;
            let gone = std::mem::take(&mut self.left_over);
            tracing::debug!(devices = gone.len(), "announcements of devices that are gone are taken back");
            self.dirty.extend(gone);
        }
    }

    /// Puts out what one device needs; false when none needs anything.
    pub(crate) fn flush_one(&mut self, out: &mut Output) -> bool {
        if !self.connected {
            return false;
        }
        let Some(id) = self.dirty.pop_first() else { return false };
        match self.shown.get(&id) {
            Some(shown) => {
                let published = self.published.entry(id.clone()).or_default();
                for (topic, payload) in messages(&self.topics, shown) {
                    let mut hasher = DefaultHasher::new();
                    payload.hash(&mut hasher);
                    let hash = hasher.finish();
                    if published.insert(topic.clone(), hash) != Some(hash) {
                        out.publish(topic, payload, true);
                    }
                }
            }
            None => {
                self.published.remove(&id);
                for topic in self.topics.all_of(&id) {
                    out.publish(topic, "", true);
                }
            }
        }
        true
    }

    /// What is published last, so that others see at once that Hearth stops.
    pub(crate) fn shut_down(&self, out: &mut Output) {
        if self.is_on {
            out.publish(&self.topics.status, "offline", true);
        }
    }

    fn show_again(&mut self) {
        self.published.clear();
        self.dirty.extend(self.shown.keys().cloned());
    }
}

/// All that the broker keeps of a device.
fn messages(topics: &Topics, shown: &Shown) -> Vec<(String, String)> {
    let id = &shown.device.id;
    let mut messages = vec![(topics.config(id), announcement::of(topics, shown).to_string())];
    let is_there = if shown.availability == Availability::Online { "online" } else { "offline" };
    messages.push((topics.of(id, "availability"), is_there.to_owned()));
    match &shown.state {
        Some(State::Light(light)) => messages.push((topics.of(id, "light"), payloads::light(light))),
        Some(State::Switch { on }) => {
            messages.push((topics.of(id, "switch"), payloads::switch(*on).to_owned()))
        }
        Some(State::Button { .. }) | None => {}
    }
    if !shown.device.sensors.is_empty() {
        messages.push((topics.of(id, "sensors"), payloads::sensors(&shown.device.sensors, &shown.measured)));
    }
    messages
}
