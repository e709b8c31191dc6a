//! Finding out what a bulb is: its product, its label, its firmware.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::LightCapabilities;

use super::products::{self, Product};
use super::wire::{Reply, Request};

/// Questions about the firmware, which nothing depends on, before it is given up.
const FIRMWARE_TRIES: u32 = 6;
/// The longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is known of a bulb's identity.
#[derive(Debug)]
pub(crate) struct Identity {
    version: Option<(u32, u32)>,
    label: Option<String>,
    firmware: Option<(u16, u16)>,
    firmware_tries: u32,
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
        } else if self.firmware.is_none() && self.firmware_tries < FIRMWARE_TRIES {
            Request::GetHostFirmware
        } else {
            return None;
        };
        Some((self.due, request))
    }

    /// The question that [`Identity::need`] named was asked.
    pub(crate) fn asked(&mut self, now: Instant) {
        if self.version.is_some() && self.label.is_some() {
            self.firmware_tries += 1;
        }
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// The bulb does not know the question.
    pub(crate) fn refused(&mut self, now: Instant, request: &Request) {
        match request {
            Request::GetHostFirmware => self.firmware_tries = FIRMWARE_TRIES,
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
            _ => return false,
        };
        self.learnt(now);
        changed
    }

    /// Whether enough is known to tell others.
    pub(crate) fn is_complete(&self) -> bool {
        self.need().is_none()
    }

    /// What it can do, with a remark when that is a guess; `None` while unknown or for what is no light.
    pub(crate) fn capabilities(&self) -> Option<(LightCapabilities, Option<String>)> {
        let (vendor, product) = self.version?;
        match products::lookup(vendor, product) {
            Product::Light(capabilities) => Some((capabilities, None)),
            Product::Unknown(capabilities) => {
                let note = format!(
                    "product {product} of vendor {vendor} is not in the table: treated as a full colour light from 1500 to 9000 K"
                );
                Some((capabilities, Some(note)))
            }
            Product::Switch => None,
        }
    }

    /// Its label; may be empty.
    pub(crate) fn label(&self) -> String {
        self.label.clone().unwrap_or_default()
    }

    /// Its product, for people.
    pub(crate) fn model(&self) -> String {
        match self.version {
            Some((products::VENDOR_LIFX, product)) => format!("LIFX product {product}"),
            Some((vendor, product)) => format!("vendor {vendor} product {product}"),
            None => "unknown".to_owned(),
        }
    }

    /// Its firmware, for people.
    pub(crate) fn firmware(&self) -> Option<String> {
        self.firmware.map(|(major, minor)| format!("{major}.{minor}"))
    }

    fn is_switch(&self) -> bool {
        self.version.is_some_and(|(vendor, product)| products::lookup(vendor, product) == Product::Switch)
    }

    fn learnt(&mut self, now: Instant) {
        (self.due, self.pause) = (now, Duration::from_millis(250));
    }
}

/// Sets the value; true when it was another before.
fn replace<T: PartialEq>(slot: &mut Option<T>, value: T) -> bool {
    slot.replace(value).is_some_and(|old| Some(&old) != slot.as_ref())
}
