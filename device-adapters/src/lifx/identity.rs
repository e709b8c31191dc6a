//! Finding out what a bulb is: its product, its label, its firmware.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Capabilities, Description, DeviceId, KelvinRange, LightCapabilities, Sensors};

use super::ID;
use super::products::{self, Layout, Product};
use super::reading::MOST_ZONES;
use super::wire::{Reply, Request};

/// How often what a bulb can do without telling, its firmware and its zones, is asked before it is given up.
const OPTIONAL_TRIES: u32 = 6;
/// The longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is known of a bulb's identity.
#[derive(Debug)]
pub(crate) struct Identity {
    version: Option<(u32, u32)>,
    label: Option<String>,
    firmware: Option<(u16, u16)>,
    firmware_tries: u32,
    /// How many zones it has.
    zones: Option<u16>,
    zones_tries: u32,
    due: Instant,
    pause: Duration,
}

impl Identity {
    /// Nothing is known.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            version: None,
            label: None,
            firmware: None,
            firmware_tries: 0,
            zones: None,
            zones_tries: 0,
            due: now,
            pause: Duration::from_millis(250),
        }
    }

    /// What to ask next and when, if something is missing.
    pub(crate) fn need(&self) -> Option<(Instant, Request)> {
        let request = if self.version.is_none() {
            Request::GetVersion
        } else if self.is_switch() {
            return None;
        } else if self.label.is_none() {
            Request::GetLabel
        } else if self.firmware.is_none() && self.firmware_tries < OPTIONAL_TRIES {
            Request::GetHostFirmware
        } else if self.zones.is_none() && self.zones_tries < OPTIONAL_TRIES && self.is_strip() {
            Request::GetColorZones(0, 0) // every strip knows it, and its answer holds their number
        } else {
            return None;
        };
        Some((self.due, request))
    }

    /// The question that [`Identity::need`] named was asked.
    pub(crate) fn asked(&mut self, now: Instant, request: &Request) {
        match request {
            Request::GetHostFirmware => self.firmware_tries += 1,
            Request::GetColorZones(..) => self.zones_tries += 1,
            _ => {}
        }
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// The bulb does not know the question.
    pub(crate) fn refused(&mut self, now: Instant, request: &Request) {
        match request {
            Request::GetHostFirmware => self.firmware_tries = OPTIONAL_TRIES,
            Request::GetColorZones(0, 0) => self.zones_tries = OPTIONAL_TRIES,
            Request::GetLabel => self.label = self.label.take().or(Some(String::new())),
            _ => return,
        }
        self.learnt(now);
    }

    /// Takes an answer. True when what was known before has changed.
    pub(crate) fn learn(&mut self, now: Instant, reply: Reply) -> bool {
        let changed = match reply {
            Reply::StateVersion { vendor, product } => replace(&mut self.version, (vendor, product)),
            Reply::StateLabel(label) => replace(&mut self.label, label),
            Reply::StateHostFirmware { major, minor } => replace(&mut self.firmware, (major, minor)),
            Reply::StateZones { count, .. } => replace(&mut self.zones, count.min(MOST_ZONES)),
            _ => return false,
        };
        self.learnt(now);
        changed
    }

    fn is_complete(&self) -> bool {
        self.need().is_none()
    }

    /// What it can do, with a remark when that is a guess; `None` while unknown or for what is no light.
    pub(crate) fn capabilities(&self) -> Option<(LightCapabilities, Option<String>)> {
        let (vendor, product) = self.version?;
        let (mut capabilities, note) = match products::lookup(vendor, product, self.firmware) {
            Product::Light(capabilities) => (capabilities, None),
            Product::Unknown(capabilities) => {
                let note = format!(
                    "product {product} of vendor {vendor} is not in the table: treated as a full colour light from 1500 to 9000 K"
                );
                (capabilities, Some(note))
            }
            Product::Switch => return None,
        };
        capabilities.zones = self.zones.filter(|zones| *zones > 1 && self.is_strip());
        let effects = self.layout().effects().iter();
        capabilities.effects = effects.filter_map(|effect| effect.name()).map(str::to_owned).collect();
        Some((capabilities, note))
    }

    /// The whites that it has.
    pub(crate) fn whites(&self) -> KelvinRange {
        let known = self.capabilities().and_then(|(can, _)| can.color_temperature);
        known.unwrap_or(KelvinRange { min_k: 1_500, max_k: 9_000 })
    }

    /// How its zones lie.
    pub(crate) fn layout(&self) -> Layout {
        self.version
            .map_or(Layout::Point, |(vendor, product)| products::layout(vendor, product, self.firmware))
    }

    /// What it is, once that is known and if it is a light.
    pub(crate) fn describe(&self, id: &DeviceId, address: String) -> Option<Description> {
        let (capabilities, note) = self.capabilities().filter(|_| self.is_complete())?;
        Some(Description {
            id: id.clone(),
            adapter: ID.to_owned(),
            name: self.label.clone().unwrap_or_default(),
            manufacturer: "LIFX".to_owned(),
            model: self.model(),
            firmware: self.firmware.map(|(major, minor)| format!("{major}.{minor}")),
            address: Some(address),
            capabilities: Capabilities::Light(capabilities),
            sensors: Sensors::new(),
            note,
        })
    }

    fn model(&self) -> String {
        match self.version {
            Some((products::VENDOR_LIFX, product)) => format!("LIFX product {product}"),
            Some((vendor, product)) => format!("vendor {vendor} product {product}"),
            None => "unknown".to_owned(),
        }
    }

    fn is_strip(&self) -> bool {
        matches!(self.layout(), Layout::Strip { .. })
    }

    fn is_switch(&self) -> bool {
        self.version.is_some_and(|(vendor, product)| {
            products::lookup(vendor, product, self.firmware) == Product::Switch
        })
    }

    fn learnt(&mut self, now: Instant) {
        (self.due, self.pause) = (now, Duration::from_millis(250));
    }
}

/// Sets the value; true when it was another before.
fn replace<T: PartialEq>(slot: &mut Option<T>, value: T) -> bool {
    slot.replace(value).is_some_and(|old| Some(&old) != slot.as_ref())
}
