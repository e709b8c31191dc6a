//! One device as this node knows it: what its object says, and what this node does about it.

use std::collections::BTreeSet;

use device_adapters::model::{Availability, Capabilities, Change, CommandId, Description, DeviceId, State};
use mesh_proto::{ObjectId, ShortId};
use tokio::time::Instant;

use super::{
    convert::{Available, Desired, Reported, clipped, decode, within_ms},
    described::{self, DESCRIBING, Described},
    measured::{Readings, readings_from},
};
use crate::{
    api::ports::Power,
    service::{FieldView, ObjectView},
};

/// A `desired` with what its stamp tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) command: CommandId,
    pub(super) change: Change,
    /// When it was asked, in milliseconds since 1970 by the household's time.
    pub(super) at_ms: u64,
    /// How long it may take, in milliseconds.
    pub(super) within_ms: u64,
    /// Who did, as far as is known.
    pub(super) by: Option<String>,
}

impl Asked {
    /// Its deadline runs from the stamp of the write, which holds for every node, and not from
    /// the clock of its writer, which may be wrong.
    fn new(desired: &Desired, at_ms: u64) -> Self {
        let within_ms = within_ms(desired.at, desired.deadline_ms);
        let by = desired.by.as_deref().map(clipped);
        Self { command: desired.command, change: desired.change.clone(), at_ms, within_ms, by }
    }

    /// How much of its time is left, in milliseconds.
    pub(super) fn left_ms(&self, now_ms: u64) -> u64 {
        // A stamp may be a little ahead of this node's clock; nothing gets more than its time.
        self.at_ms.saturating_add(self.within_ms).saturating_sub(now_ms).min(self.within_ms)
    }
}

/// One device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: DeviceId,
    pub(super) object: ObjectId,
    /// Whether its object has been seen complete.
    pub(super) is_known: bool,
    /// The fields that describe it, as the object has them.
    pub(super) described: Described,
    pub(super) adapter: Option<String>,
    /// What people call it.
    pub(super) name: Option<String>,
    /// Where it is.
    pub(super) area: Option<String>,
    /// The nodes that say they reach it.
    pub(super) reach: BTreeSet<ShortId>,
    pub(super) desired: Option<Asked>,
    /// Asked for here and not yet seen in the object.
    pub(super) asked: Option<Asked>,
    pub(super) reported: Option<Reported>,
    pub(super) available: Option<Available>,
    /// What its sensors yielded last.
    pub(super) readings: Readings,
    /// Whether its object shows them.
    pub(super) readings_shown: bool,
    /// What this node said of it last, as its owner.
    pub(super) said_reported: Option<Reported>,
    pub(super) said_available: Option<Available>,
    /// This node's adapter reaches it.
    pub(super) found: Option<Description>,
    /// This node owns it.
    pub(super) owned: bool,
    /// Whether the adapter was told that it is owned.
    pub(super) told: bool,
    /// The command that the adapter was given in this run and ownership.
    pub(super) directed: Option<CommandId>,
    /// A command that was in flight when the device was given up: the adapter fails it, the next
    /// owner goes on with it.
    pub(super) given_up: Option<CommandId>,
    /// What the adapter said last in this run and ownership.
    pub(super) heard: Option<Availability>,
    /// When it counts as stale unless it answers before.
    pub(super) answer_by: Option<Instant>,
    /// When it counts as offline unless a node reaches it before.
    pub(super) offline_at: Option<Instant>,
    pub(super) last_owner: Option<ShortId>,
}

impl Device {
    pub(super) fn new(id: DeviceId, object: ObjectId) -> Self {
        Self {
            id,
            object,
            is_known: false,
            described: Described::new(),
            adapter: None,
            name: None,
            area: None,
            reach: BTreeSet::new(),
            desired: None,
            asked: None,
            reported: None,
            available: None,
            readings: Readings::new(),
            readings_shown: true,
            said_reported: None,
            said_available: None,
            found: None,
            owned: false,
            told: false,
            directed: None,
            given_up: None,
            heard: None,
            answer_by: None,
            offline_at: None,
            last_owner: None,
        }
    }

    /// Takes over what the object says now.
    pub(super) fn see(&mut self, view: &ObjectView) {
        self.is_known = true;
        self.described.clear();
        self.reach.clear();
        (self.desired, self.reported, self.available) = (None, None, None);
        (self.name, self.area) = (None, None);
        self.readings_shown = false;
        if !self.owned {
            self.readings.clear();
        }
        for (name, field) in &view.fields {
            self.see_field(name.as_str(), field);
        }
        let arrived =
            |asked: &Asked| self.desired.as_ref().is_some_and(|desired| desired.command == asked.command);
        if self.asked.as_ref().is_some_and(arrived) {
            self.asked = None;
        }
    }

    /// The owner's own readings are at least as new as those that its object shows.
    fn see_readings(&mut self, shown: Readings) {
        if !self.owned || self.readings.is_empty() {
            self.readings = shown;
            self.readings_shown = true;
        } else {
            self.readings_shown = self.readings == shown;
        }
    }

    fn see_field(&mut self, name: &str, field: &FieldView) {
        if let Some(reacher) = name.strip_prefix("reach.") {
            self.reach.extend(reacher.parse::<ShortId>());
            return;
        }
        match name {
            "desired" => self.desired = decode(&field.value).map(|desired| Asked::new(&desired, field.at_ms)),
            "reported" => self.reported = decode(&field.value),
            "availability" => self.available = decode(&field.value),
            "readings" => self.see_readings(readings_from(&field.value)),
            "adapter" => self.adapter = field.value.as_text().map(clipped),
            "name" => self.name = field.value.as_text().map(clipped),
            "area" => self.area = field.value.as_text().map(clipped),
            _ => {}
        }
        if let Some(known) = DESCRIBING.into_iter().find(|known| *known == name) {
            self.described.insert(known, field.value.clone());
        }
    }

    /// What it can do, as this node's adapter or its object says.
    pub(super) fn capabilities(&self) -> Option<Capabilities> {
        let here = self.found.as_ref().map(|found| found.capabilities.clone());
        here.or_else(|| described::capabilities(&self.described))
    }

    /// The newest that was asked for.
    pub(super) fn newest_asked(&self) -> Option<&Asked> {
        self.asked.as_ref().or(self.desired.as_ref())
    }

    /// What a client's power means now. `is_open` says that the newest command may still come true.
    pub(super) fn resolve(&self, power: Power, is_open: bool) -> bool {
        match power {
            Power::On => true,
            Power::Off => false,
            Power::Toggle => {
                let asked = self.newest_asked().filter(|_| is_open).and_then(|asked| asked.change.on());
                let reported = self.reported.as_ref().and_then(|reported| reported.value.is_on());
                // Nothing is known of it: whoever toggles a dark room wants light.
                !asked.or(reported).unwrap_or(false)
            }
        }
    }

    /// Whether a state that follows `command` shows what it asked for.
    pub(super) fn shows(&self, asked: &Asked, tolerance: &device_adapters::model::Tolerance) -> bool {
        self.reported.as_ref().is_some_and(|reported| {
            reported.command == Some(asked.command)
                && reported.source == device_adapters::model::Source::ReadBack
                && asked.change.matches(&reported.value, tolerance)
        })
    }

    /// Whether a report of this says anything that the object does not.
    pub(super) fn is_news(&self, state: &State, command: Option<CommandId>) -> bool {
        self.reported.as_ref().is_none_or(|known| known.value != *state || known.command != command)
    }
}

impl Device {
    /// The adapter that speaks to it.
    pub(super) fn adapter_id(&self) -> Option<String> {
        self.found.as_ref().map(|found| found.adapter.clone()).or_else(|| self.adapter.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use mesh_proto::FieldName;

    use super::*;
    use crate::devices::convert::encode;

    #[test]
    fn a_field_that_asks_for_ever_is_believed_for_an_hour_and_ten_minutes() {
        let desired = Desired {
            command: CommandId([7; 16]),
            change: Change::Switch { on: true },
            at: 0,
            deadline_ms: 9_000_000_000_000_000,
            by: Some("x".repeat(1_000)),
        };
        let field = FieldView {
            value: encode(&desired),
            at_ms: 50_000,
            by: "00000000000000ab".into(),
            durable: true,
        };
        let id = ObjectId::new("device/lifx-1").unwrap();
        let fields = BTreeMap::from([(FieldName::new("desired").unwrap(), field)]);
        let mut device = Device::new(DeviceId::new("lifx-1").unwrap(), id.clone());
        device.see(&ObjectView { id, fields, complete: true });
        let asked = device.newest_asked().unwrap();
        assert_eq!(asked.by.as_ref().map(String::len), Some(240), "nor is one that is called for ever");
        assert_eq!(asked.left_ms(50_000), 4_200_000);
        assert_eq!(asked.left_ms(50_000 + 4_200_000), 0);
    }
}
