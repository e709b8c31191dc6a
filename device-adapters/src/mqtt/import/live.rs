//! A component with what it told so far. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use tokio::time::Instant;

use crate::model::Measurement;
use crate::mqtt::wire::incoming::Incoming;
use crate::mqtt::wire::light::Parts;

use super::entity::{Entity, Kind, Mode, Told};

/// A component and what is known of it.
#[derive(Debug)]
pub(crate) struct Live {
    /// As it was announced.
    pub(crate) entity: Entity,
    /// What a light or switch told of itself.
    pub(crate) parts: Parts,
    /// What a sensor measured last.
    pub(crate) measured: Option<Measurement>,
    /// When that is no longer true.
    lapse: Option<Instant>,
    /// What each topic of presence said.
    there: BTreeMap<String, bool>,
    latest: Option<bool>,
    /// The topics at which it heard something on this connection.
    heard: BTreeSet<String>,
}

/// What a message changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// What a light or switch told; a switch tells whether it is on.
    pub(crate) parts: Option<Parts>,
    /// Whether a sensor told something.
    pub(crate) measured: bool,
    /// Whether it was said to be there, or not to be.
    pub(crate) presence: bool,
}

/// Whether a component is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It says so, or says nothing of it at all.
    There,
    /// It, or what announces it, says that it is gone.
    Gone,
    /// It did not say yet.
    Unsaid,
}

impl Live {
    /// Nothing is known yet.
    pub(crate) fn new(entity: Entity) -> Self {
        Self {
            entity,
            parts: Parts::default(),
            measured: None,
            lapse: None,
            there: BTreeMap::new(),
            latest: None,
            heard: BTreeSet::new(),
        }
    }

    /// The same component, announced anew: what it told stays true where it tells it in the same way. Gives what it was
    /// announced as before.
    pub(crate) fn renew(&mut self, entity: Entity) -> Entity {
        let before = mem::replace(&mut self.entity, entity);
        let mut forgotten: Vec<&str> = Vec::new();
        if !self.entity.kind.tells_as(&before.kind) {
            (self.parts, self.measured, self.lapse) = (Parts::default(), None, None);
            forgotten.extend(self.entity.kind.topics());
        }
        if self.entity.presence != before.presence {
            self.there.clear();
            self.latest = None;
            forgotten.extend(self.entity.presence.topics());
        }
        self.heard.retain(|topic| {
            let is_known = !forgotten.contains(&topic.as_str());
            is_known && self.entity.topics().any(|listened| listened == topic)
        });
        before
    }

    /// Whether it heard something at a topic on this connection.
    pub(crate) fn has_heard(&self, topic: &str) -> bool {
        self.heard.contains(topic)
    }

    /// Takes a message at one of its topics; `retained` is what the broker kept from before.
    pub(crate) fn take(&mut self, now: Instant, topic: &str, message: &Incoming, retained: bool) -> Heard {
        let mut heard = Heard::default();
        if retained && self.heard.contains(topic) {
            // Told once more, for another one who listens: it is not newer than what is known.
            return heard;
        }
        if !self.heard.contains(topic) {
            self.heard.insert(topic.to_owned());
        }
        for source in self.entity.presence.sources.iter().filter(|source| source.topic == topic) {
            if let Some(there) = source.told(message) {
                self.there.insert(topic.to_owned(), there);
                self.latest = Some(there);
                heard.presence = true;
            }
        }
        match self.entity.told(topic, message) {
            Some(Told::Light(parts)) => {
                self.parts.absorb(parts.clone());
                heard.parts = Some(parts);
            }
            Some(Told::Switch(on)) => {
                let parts = Parts { on: Some(on), ..Parts::default() };
                self.parts.absorb(parts.clone());
                heard.parts = Some(parts);
            }
            Some(Told::Measured(measured)) => {
                self.lapse = self.life_of(&measured).map(|life| now + life);
                self.measured = Some(measured);
                heard.measured = true;
            }
            None => {}
        }
        heard
    }

    /// Whether it is there.
    pub(crate) fn presence(&self) -> Presence {
        let sources = &self.entity.presence.sources;
        let said = |source: &super::entity::Source| self.there.get(&source.topic).copied();
        let is_there = match self.entity.presence.mode {
            _ if sources.is_empty() => Some(true),
            Mode::Latest => self.latest,
            Mode::All if sources.iter().any(|source| said(source) == Some(false)) => Some(false),
            Mode::All => sources.iter().all(|source| said(source).is_some()).then_some(true),
            Mode::Any if sources.iter().any(|source| said(source) == Some(true)) => Some(true),
            Mode::Any => sources.iter().any(|source| said(source).is_some()).then_some(false),
        };
        match is_there {
            Some(true) => Presence::There,
            Some(false) => Presence::Gone,
            None => Presence::Unsaid,
        }
    }

    /// The topics of presence that did not say that it is there.
    pub(crate) fn doubts(&self) -> String {
        let sources = self.entity.presence.sources.iter();
        let doubts = sources.filter(|source| self.there.get(&source.topic) != Some(&true));
        doubts.map(|source| source.topic.as_str()).take(2).collect::<Vec<_>>().join(" and ")
    }

    /// Forgets who is there: nobody tells while there is no broker.
    pub(crate) fn disconnected(&mut self) {
        self.there.clear();
        self.latest = None;
        self.heard.clear();
    }

    /// When something that it measured is no longer true.
    pub(crate) fn lapse(&self) -> Option<Instant> {
        self.lapse
    }

    /// Ends what is no longer true; whether there was such a thing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.lapse.is_none_or(|lapse| lapse > now) {
            return false;
        }
        self.lapse = None;
        let Kind::Sensor(sensor) = &self.entity.kind else { return false };
        self.measured = Some(match (&self.measured, sensor.falls) {
            (Some(Measurement::Truth(true)), Some(_)) => Measurement::Truth(false),
            _ => {
                let seconds = sensor.lapses.unwrap_or_default().as_secs();
                Measurement::Unknown(format!("it told nothing for {seconds} s"))
            }
        });
        true
    }

    fn life_of(&self, measured: &Measurement) -> Option<std::time::Duration> {
        let Kind::Sensor(sensor) = &self.entity.kind else { return None };
        let falls = sensor.falls.filter(|_| *measured == Measurement::Truth(true));
        match (falls, sensor.lapses) {
            (Some(falls), Some(lapses)) => Some(falls.min(lapses)),
            (falls, lapses) => falls.or(lapses),
        }
    }
}
