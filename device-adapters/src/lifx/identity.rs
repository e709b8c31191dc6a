//! Finding out what hardware is: its product, its label, its firmware.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Capabilities, Description, DeviceId, KelvinRange, LightCapabilities, Sensors};

use super::ID;
use super::chain::Chain;
use super::layout::{Layout, MOST_ZONES};
use super::products::{self, Product, Role};
use super::wire::{Reply, Request};

/// How often what a bulb can do without telling, its firmware and its zones, is asked before it is given up.
const OPTIONAL_TRIES: u32 = 6;
/// The longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is known of the identity of a piece of hardware.
#[derive(Debug)]
pub(crate) struct Identity {
    version: Option<(u32, u32)>,
    label: Option<String>,
    firmware: Optional<(u16, u16)>,
    /// How many zones a strip has.
    zones: Optional<u16>,
    /// The tiles of a matrix; none of tiles that cannot be.
    chain: Optional<Option<Chain>>,
    due: Instant,
    pause: Duration,
}

/// What it is asked a few times, and does without telling.
#[derive(Debug)]
struct Optional<T> {
    value: Option<T>,
    tries_left: u32,
}

impl<T: PartialEq> Optional<T> {
    fn new() -> Self {
        Self { value: None, tries_left: OPTIONAL_TRIES }
    }

    fn is_asked(&self) -> bool {
        self.tries_left > 0
    }

    fn asked(&mut self) {
        self.tries_left = self.tries_left.saturating_sub(1);
    }

    /// It does not know the question.
    fn refused(&mut self) {
        self.tries_left = 0;
    }

    /// It has told. True when it was another before.
    fn learn(&mut self, value: T) -> bool {
        self.tries_left = 0;
        replace(&mut self.value, value)
    }

    /// What it told once may have changed.
    fn ask_again(&mut self) {
        if self.value.is_some() {
            self.tries_left = OPTIONAL_TRIES;
        }
    }
}

impl Identity {
    /// Nothing is known.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            version: None,
            label: None,
            firmware: Optional::new(),
            zones: Optional::new(),
            chain: Optional::new(),
            due: now,
            pause: Duration::from_millis(250),
        }
    }

    /// What to ask next and when, if something is missing.
    pub(crate) fn need(&self) -> Option<(Instant, Request)> {
        let request = if self.version.is_none() {
            Request::GetVersion
        } else if self.label.is_none() {
            Request::GetLabel
        } else if self.firmware.is_asked() {
            Request::GetHostFirmware
        } else {
            self.layout().size_question().filter(|_| self.is_size_asked())?
        };
        Some((self.due, request))
    }

    /// The question that [`Identity::need`] named was asked.
    pub(crate) fn asked(&mut self, now: Instant, request: &Request) {
        match request {
            Request::GetHostFirmware => self.firmware.asked(),
            Request::GetColorZones(..) => self.zones.asked(),
            Request::GetDeviceChain => self.chain.asked(),
            _ => {}
        }
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// The bulb does not know the question.
    pub(crate) fn refused(&mut self, now: Instant, request: &Request) {
        match request {
            Request::GetHostFirmware => self.firmware.refused(),
            Request::GetColorZones(0, 0) => self.zones.refused(),
            Request::GetDeviceChain => self.chain.refused(),
            Request::GetLabel => self.label = self.label.take().or(Some(String::new())),
            _ => return,
        }
        self.learnt(now);
    }

    /// It may have other tiles than it told, or a newer firmware.
    pub(crate) fn look_again(&mut self, now: Instant) {
        self.firmware.ask_again();
        self.chain.ask_again();
        self.learnt(now);
    }

    /// Takes an answer. True when what was known before has changed.
    pub(crate) fn learn(&mut self, now: Instant, reply: Reply) -> bool {
        let changed = match reply {
            // It is asked until it is known, and what hardware is does not change.
            Reply::StateVersion { vendor, product } if self.version.is_none() => {
                replace(&mut self.version, (vendor, product))
            }
            Reply::StateLabel(label) | Reply::LightState { label, .. } => replace(&mut self.label, label),
            Reply::StateHostFirmware { major, minor } => self.firmware.learn((major, minor)),
            Reply::StateZones { count, .. } => self.zones.learn(count.min(MOST_ZONES)),
            Reply::StateDeviceChain(tiles) => self.chain.learn(Chain::new(&tiles)),
            _ => return false,
        };
        self.learnt(now);
        changed
    }

    fn is_complete(&self) -> bool {
        self.need().is_none()
    }

    /// What it is and has; empty while that is unknown.
    pub(crate) fn roles(&self) -> &'static [Role] {
        self.version.map_or(&[], |(vendor, product)| products::roles(vendor, product))
    }

    /// What people call such a thing.
    pub(crate) fn noun(&self) -> &'static str {
        if self.roles().iter().any(|role| matches!(role, Role::Relay(_))) { "switch" } else { "bulb" }
    }

    /// What it can do as a light, with a remark when that is a guess; `None` while unknown or for what is no light.
    pub(crate) fn light(&self) -> Option<(LightCapabilities, Option<String>)> {
        let (vendor, product) = self.version?;
        let (mut capabilities, note) = match products::lookup(vendor, product, self.firmware.value) {
            Product::Light(capabilities) => (capabilities, None),
            Product::Unknown(capabilities) => {
                let note = format!(
                    "product {product} of vendor {vendor} is not in the table: treated as a full colour light from 1500 to 9000 K"
                );
                (capabilities, Some(note))
            }
            Product::Switch => return None,
        };
        capabilities.zones = self.zones().filter(|zones| *zones > 1);
        let effects = self.layout().effects().iter();
        capabilities.effects = effects.filter_map(|effect| effect.name()).map(str::to_owned).collect();
        let note = note.or_else(|| {
            let unusable = self.chain.value == Some(None);
            unusable.then(|| "it tells of tiles that cannot be: its zones are not used".to_owned())
        });
        Some((capabilities, note))
    }

    /// The whites that it has.
    pub(crate) fn whites(&self) -> KelvinRange {
        let known = self.light().and_then(|(can, _)| can.color_temperature);
        known.unwrap_or(KelvinRange { min_k: 1_500, max_k: 9_000 })
    }

    /// How its zones lie.
    pub(crate) fn layout(&self) -> Layout {
        let Some((vendor, product)) = self.version else { return Layout::Point };
        let chain = self.chain.value.flatten().unwrap_or_default();
        products::layout(vendor, product, self.firmware.value, chain)
    }

    /// What a part of it is, which is called that and can do that, once all is known.
    pub(crate) fn describe(
        &self,
        id: &DeviceId,
        called: &str,
        address: &str,
        (capabilities, note): (Capabilities, Option<String>),
        sensors: Sensors,
    ) -> Option<Description> {
        if !self.is_complete() {
            return None;
        }
        let label = self.label.as_deref().unwrap_or_default();
        Some(Description {
            id: id.clone(),
            adapter: ID.to_owned(),
            name: format!("{label} {called}").trim().to_owned(),
            manufacturer: "LIFX".to_owned(),
            model: self.model(),
            firmware: self.firmware.value.map(|(major, minor)| format!("{major}.{minor}")),
            address: Some(address.to_owned()),
            capabilities,
            sensors,
            note,
        })
    }

    fn model(&self) -> String {
        match self.version {
            Some((products::VENDOR_LIFX, product)) => match self.layout() {
                Layout::Matrix { chain, .. } if chain.zones() > 0 => {
                    format!("LIFX product {product}, {chain}")
                }
                _ => format!("LIFX product {product}"),
            },
            Some((vendor, product)) => format!("vendor {vendor} product {product}"),
            None => "unknown".to_owned(),
        }
    }

    fn zones(&self) -> Option<u16> {
        match self.layout() {
            Layout::Point => None,
            Layout::Strip { .. } => self.zones.value,
            Layout::Matrix { chain, .. } => u16::try_from(chain.zones()).ok(),
        }
    }

    fn is_size_asked(&self) -> bool {
        match self.layout() {
            Layout::Point => false,
            Layout::Strip { .. } => self.zones.is_asked(),
            Layout::Matrix { .. } => self.chain.is_asked(),
        }
    }

    fn learnt(&mut self, now: Instant) {
        (self.due, self.pause) = (now, Duration::from_millis(250));
    }
}

/// Sets the value; true when it was another before.
fn replace<T: PartialEq>(slot: &mut Option<T>, value: T) -> bool {
    slot.replace(value).is_some_and(|old| Some(&old) != slot.as_ref())
}
