//! Where bridges are, or may be: configured addresses, and what announced itself. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::Hint;
use crate::http::Origin;

use super::keys::{BridgeId, Keyring, Pin};
use super::tls::RefusedCertificate;

/// The most places that are kept; whoever is on the network can announce any number.
const MOST_PLACES: usize = 64;
/// The most addresses of one announcement.
const MOST_ADDRESSES: usize = 4;
/// How often a place is asked who is there: while nobody answers, rarer each time, and once somebody did.
const WHILE_SILENT: Duration = Duration::from_secs(3);
const ONCE_KNOWN: Duration = Duration::from_secs(30);
/// The first generation of bridges (round) speaks version 1 of the API only.
const FIRST_GENERATION: &str = "BSB001";

/// A bridge that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: BridgeId,
    pub(crate) pin: Pin,
    pub(crate) name: String,
    pub(crate) origin: Origin,
}

/// Somewhere a bridge may be.
#[derive(Debug)]
struct Place {
    origin: Origin,
    is_configured: bool,
    /// The bridge that was announced there.
    expected: Option<BridgeId>,
    next: Instant,
    is_asked: bool,
    failures: u32,
    known: Option<Known>,
    /// Why who answers there is not believed; whether that was told already.
    doubt: Option<String>,
    is_told: bool,
}

/// Everywhere a bridge may be, by host and port.
#[derive(Debug)]
pub(crate) struct Places(BTreeMap<String, Place>);

/// Whom to ask who he is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) place: String,
    pub(crate) origin: Origin,
    pub(crate) expected: Option<BridgeId>,
}

impl Places {
    /// The configured ones.
    pub(crate) fn new(addresses: &[Origin], now: Instant) -> Self {
        let mut places = Self(BTreeMap::new());
        for origin in addresses {
            places.add(origin.clone(), true, None, now);
        }
        places
    }

    /// Takes an announcement.
    pub(crate) fn hint(&mut self, hint: &Hint, now: Instant) {
        let model = hint.txt.get("modelid").map(String::as_str);
        if hint.port == 0 || model == Some(FIRST_GENERATION) {
            tracing::debug!(name = hint.name, model, "an announced Hue bridge cannot be used");
            return;
        }
        let expected = hint.txt.get("bridgeid").and_then(|id| BridgeId::parse(id));
        for address in hint.addresses.iter().filter(|address| is_reachable(address)).take(MOST_ADDRESSES) {
            let origin = Origin { tls: true, ..Origin::plain(address, hint.port) };
            self.add(origin, false, expected, now);
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next place to ask; it then is being asked. Where a bridge of `served` is, nobody needs to be asked.
    pub(crate) fn poll(&mut self, now: Instant, served: &BTreeSet<BridgeId>) -> Option<Probe> {
        let is_served = |place: &Place| place.known.as_ref().is_some_and(|known| served.contains(&known.id));
        let due =
            self.0.iter_mut().find(|(_, place)| !place.is_asked && place.next <= now && !is_served(place));
        due.map(|(name, place)| {
            place.is_asked = true;
            Probe { place: name.clone(), origin: place.origin.clone(), expected: place.expected }
        })
    }

    /// When [`Places::poll`] has something to give next.
    pub(crate) fn poll_timeout(&self, served: &BTreeSet<BridgeId>) -> Option<Instant> {
        let is_served = |place: &Place| place.known.as_ref().is_some_and(|known| served.contains(&known.id));
        self.0.values().filter(|place| !place.is_asked && !is_served(place)).map(|place| place.next).min()
    }

    /// Who answered at a place, if somebody did.
    pub(crate) fn answered(&mut self, now: Instant, name: &str, known: Option<Known>) {
        let Some(place) = self.0.get_mut(name) else { return };
        place.is_asked = false;
        match known {
            Some(known) => {
                place.failures = 0;
                place.next = now + ONCE_KNOWN;
                place.known = Some(known);
            }
            None => {
                place.failures = place.failures.saturating_add(1);
                place.next = now + (WHILE_SILENT * place.failures.min(10)).min(ONCE_KNOWN);
                place.known = None;
            }
        }
    }

    /// Decides anew who is believed, and gives the places where somebody answers who is not, with the reason, each once.
    pub(crate) fn judge(&mut self, keys: &Keyring) -> Vec<(String, String)> {
        let mut news = Vec::new();
        let doubts: Vec<_> = self.0.values().map(|place| self.doubt(place, keys)).collect();
        for ((name, place), doubt) in self.0.iter_mut().zip(doubts) {
            if let Some(why) = &doubt
                && !std::mem::replace(&mut place.is_told, true)
            {
                news.push((name.clone(), why.clone()));
            }
            place.doubt = doubt;
        }
        news
    }

    /// Where somebody answers who is not believed: the place, whom he poses as, and why not.
    pub(crate) fn doubted(&self) -> impl Iterator<Item = (&str, BridgeId, &str)> {
        self.0.iter().filter_map(|(name, place)| {
            Some((name.as_str(), place.known.as_ref()?.id, place.doubt.as_deref()?))
        })
    }

    /// Whether somebody answered anywhere, believed or not.
    pub(crate) fn is_answered(&self) -> bool {
        self.0.values().any(|place| place.known.is_some())
    }

    /// The bridges that answered and are believed, each once.
    pub(crate) fn known(&self) -> BTreeMap<BridgeId, &Known> {
        let believed = self.0.values().filter(|place| place.doubt.is_none());
        believed.filter_map(|place| place.known.as_ref()).map(|known| (known.id, known)).collect()
    }

    /// Whoever was paired with is known by his key. Anybody else must be who he was announced to be, and the only one of his name;
    /// an address that was written into the settings counts for more than an announcement, which can come from anybody.
    fn doubt(&self, place: &Place, keys: &Keyring) -> Option<String> {
        let known = place.known.as_ref()?;
        if let Some(pin) = keys.get(known.id).and_then(|entry| entry.pin) {
            return (pin != known.pin).then(|| RefusedCertificate::OtherKey { id: known.id }.to_string());
        }
        if let Some(expected) = place.expected.filter(|id| *id != known.id && !place.is_configured) {
            return Some(format!(
                "it was announced as the bridge {expected}, but is the bridge {}",
                known.id
            ));
        }
        let is_rival = |other: &&Place| {
            let is_other = other.known.as_ref().is_some_and(|one| one.id == known.id && one.pin != known.pin);
            is_other && other.is_configured >= place.is_configured
        };
        let rival = self.0.values().find(is_rival)?;
        Some(format!(
            "it calls itself {}, and so does another machine at {}: one of them poses as the bridge; write the address of the bridge \
             into the setting \"addresses\"",
            known.id, rival.origin
        ))
    }

    /// All places are asked again soon: a bridge is missed.
    pub(crate) fn hurry(&mut self, now: Instant) {
        for place in self.0.values_mut() {
            place.next = place.next.min(now + WHILE_SILENT);
        }
    }

    fn add(&mut self, origin: Origin, is_configured: bool, expected: Option<BridgeId>, now: Instant) {
        let name = origin.to_string();
        if let Some(place) = self.0.get_mut(&name) {
            place.expected = expected.or(place.expected);
            return;
        }
        if self.0.len() >= MOST_PLACES && !self.make_room() {
            tracing::debug!(
                place = name,
                most = MOST_PLACES,
                "too many announced Hue bridges: this one is ignored"
            );
            return;
        }
        let place = Place {
            origin,
            is_configured,
            expected,
            next: now,
            is_asked: false,
            failures: 0,
            known: None,
            doubt: None,
            is_told: false,
        };
        self.0.insert(name, place);
    }

    /// Forgets the announcement that nobody stands behind for longest.
    fn make_room(&mut self) -> bool {
        let is_vain = |place: &Place| !place.is_configured && place.failures > 0;
        let vain = self.0.iter().filter(|(_, place)| is_vain(place)).max_by_key(|(_, place)| place.failures);
        let vain = vain.map(|(name, _)| name.clone());
        vain.is_some_and(|name| self.0.remove(&name).is_some())
    }
}

/// A link-local IPv6 address says nothing without its interface.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_unspecified() && !address.is_multicast(),
        IpAddr::V6(address) => {
            !address.is_unspecified() && !address.is_multicast() && !address.is_unicast_link_local()
        }
    }
}
