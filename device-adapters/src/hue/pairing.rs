//! Pairing by the button: which bridges are asked for a key, how often, and what people are told. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::Reading;

use super::keys::BridgeId;
use super::places::Known;

/// How often a bridge is asked whether its button was pressed.
const EVERY: Duration = Duration::from_secs(1);

/// What a pairing waits for.
#[derive(Debug)]
pub(crate) struct Pairing {
    began: Instant,
    until: Instant,
    /// When each bridge is asked next; none while it is being asked.
    asked: BTreeMap<BridgeId, Option<Instant>>,
    told_of_none: bool,
    /// Where somebody is not asked, of which people know.
    told_of: BTreeSet<String>,
    doubt: Option<String>,
    trouble: Option<String>,
}

impl Pairing {
    /// Begins now.
    pub(crate) fn new(now: Instant, until: Instant) -> Self {
        let (asked, told_of) = (BTreeMap::new(), BTreeSet::new());
        Self { began: now, until, asked, told_of_none: false, told_of, doubt: None, trouble: None }
    }

    /// When it is given up.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Goes on until then.
    pub(crate) fn extend(&mut self, until: Instant) {
        self.until = self.until.max(until);
    }

    /// The bridge to ask now, of those that wait for their button; it then is being asked. And what people must know.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        waiting: &BTreeMap<BridgeId, &Known>,
    ) -> (Option<Known>, Option<Reading>) {
        if waiting.is_empty() && !std::mem::replace(&mut self.told_of_none, true) {
            return (
                None,
                Some(going_on("no bridge that waits for its button is found yet: looking for one".into())),
            );
        }
        for (id, known) in waiting {
            match self.asked.get(id) {
                None => {
                    self.asked.insert(*id, Some(now));
                    let seconds = self.until.saturating_duration_since(now).as_secs();
                    let detail = format!(
                        "press the button on the bridge {:?} ({id}, at {}) within {seconds} s",
                        known.name, known.origin.host
                    );
                    return (None, Some(going_on(detail)));
                }
                Some(Some(due)) if *due <= now => {
                    self.asked.insert(*id, None);
                    return (Some((*known).clone()), None);
                }
                Some(_) => {}
            }
        }
        (None, None)
    }

    /// Somebody answers at a place who is not believed, and is not asked: what people must know of it, the first time.
    pub(crate) fn doubt(&mut self, place: &str, why: &str) -> Option<Reading> {
        let doubt = format!("the one at {place} is not asked for a key: {why}");
        self.doubt = Some(doubt.clone());
        self.told_of.insert(place.to_owned()).then(|| going_on(doubt))
    }

    /// When [`Pairing::poll`] has something to do next.
    pub(crate) fn poll_timeout(&self, waiting: &BTreeMap<BridgeId, &Known>) -> Instant {
        let due = |id: &BridgeId| match self.asked.get(id) {
            None => Some(self.began),
            Some(due) => *due,
        };
        waiting.keys().filter_map(due).fold(self.until, Instant::min)
    }

    /// A bridge answered without a key.
    pub(crate) fn answered(&mut self, now: Instant, id: BridgeId, trouble: Option<String>) {
        self.asked.insert(id, Some(now + EVERY));
        self.trouble = trouble;
    }

    /// Nobody pressed a button in time.
    pub(crate) fn given_up(&self) -> Reading {
        let seconds = self.until.saturating_duration_since(self.began).as_secs();
        let detail = match (self.trouble.as_ref().or(self.doubt.as_ref()), self.asked.len()) {
            (Some(trouble), _) => format!("no bridge gave a key within {seconds} s: {trouble}"),
            (None, 0) => format!(
                "no bridge that is not paired yet was found within {seconds} s: give its address in the setting \"addresses\" and \
                 try again"
            ),
            (None, _) => {
                format!("no button was pressed within {seconds} s: start the pairing anew and press it")
            }
        };
        Reading::Pairing { is_over: true, detail }
    }

    /// A bridge gave a key.
    pub(crate) fn done(known: &Known) -> Reading {
        let detail =
            format!("the bridge {:?} ({}, at {}) is paired", known.name, known.id, known.origin.host);
        Reading::Pairing { is_over: true, detail }
    }
}

fn going_on(detail: String) -> Reading {
    Reading::Pairing { is_over: false, detail }
}
