//! What the adapters say, and what of it becomes objects.

use device_adapters::{
    Reading,
    model::{Availability, CommandId, Description, DeviceId, Source, Stage, State},
};
use mesh_proto::FieldName;
use tracing::{debug, error, info, warn};

use super::{
    AdapterState, Devices,
    convert::{Reported, encode, map, millis},
    described::{DESCRIBING, described},
    device_object,
    supervise::Event,
};
use crate::api::ports::CommandState;

impl Devices {
    /// Takes in what a supervisor says.
    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::Started(adapter, commands, hints) => {
                // The run before it may have been stopped for another plan.
                self.adapter_down(adapter, "its settings changed");
                if let Some(slot) = self.slots.get_mut(adapter) {
                    slot.running = Some((commands, hints));
                    self.hints.begin(slot);
                }
                self.set_standing(adapter, AdapterState::Running, None);
                self.show_all(adapter);
            }
            Event::Reading(adapter, reading) => self.reading(adapter, *reading),
            Event::Ended(adapter, reason, pause) => {
                warn!(adapter, %reason, pause_ms = pause.as_millis(), "an adapter ended and is started again after a pause");
                let reason = format!("the adapter stopped: {reason}; it starts again by itself");
                self.adapter_down(adapter, &reason);
                self.set_standing(adapter, AdapterState::Failed, Some(reason));
            }
            Event::Rests(adapter, state, reason) => {
                match state {
                    AdapterState::Refused => error!(adapter, %reason, "an adapter stays off"),
                    _ => info!(adapter, %reason, "an adapter rests"),
                }
                self.adapter_down(adapter, &reason);
                self.set_standing(adapter, state, Some(reason));
            }
        }
    }

    /// Nobody asks its devices any more: what is known of them is old, and others may take over.
    fn adapter_down(&mut self, adapter: &str, reason: &str) {
        if let Some(slot) = self.slots.get_mut(adapter) {
            slot.running = None;
            slot.told_pair = None;
        }
        let found = |found: &Description| found.adapter == adapter;
        let of_it = self.devices.values().filter(|device| device.found.as_ref().is_some_and(found));
        let ids: Vec<DeviceId> = of_it.map(|device| device.id.clone()).collect();
        for id in ids {
            if self.devices.get(&id).is_some_and(|device| device.owned) {
                self.say_available(
                    &id,
                    Availability::Stale,
                    format!("node {}: {reason}", self.call(self.me)),
                );
            }
            self.lost(&id);
            if let Some(device) = self.devices.get_mut(&id) {
                (device.told, device.directed, device.given_up) = (false, None, None);
            }
            self.settle(&id);
        }
    }

    fn reading(&mut self, adapter: &'static str, reading: Reading) {
        match reading {
            Reading::Found { device } if device.adapter == adapter => self.found(device),
            Reading::Found { device } => {
                warn!(adapter, device = %device.id, of = %device.adapter, "an adapter names another as its own: a fault in it");
            }
            Reading::Lost { device, reason } => {
                info!(%device, %reason, "a device is out of reach");
                if self.devices.get(&device).is_some_and(|device| device.owned) {
                    self.say_available(&device, Availability::Offline, reason);
                }
                self.lost(&device);
                self.settle(&device);
            }
            Reading::Reported { device, state, command, source } => {
                self.reported(&device, state, command, source);
            }
            Reading::Measured { device, values } => self.measured(&device, values),
            Reading::Forecast { device, forecast } => self.forecast(&device, &forecast),
            Reading::Wish { device, change } => self.wish(adapter, &device, &change),
            Reading::Happened(event) => self.publish(adapter, event),
            Reading::Learnt { setting, value } => self.learnt(adapter, setting, &value.0),
            Reading::Pairing { is_over, detail } => self.pairing(adapter, is_over, &detail),
            Reading::Availability { device, availability, reason } => {
                if let Some(known) = self.devices.get_mut(&device).filter(|device| device.owned) {
                    known.heard = Some(availability);
                    known.answer_by = None;
                    self.say_available(&device, availability, reason);
                }
            }
            Reading::Progress { device, command, stage } => self.progress(&device, command, stage),
        }
    }

    fn found(&mut self, found: Description) {
        let id = found.id.clone();
        let Some(object) = device_object(&id) else { return };
        let fields = described(&found);
        let Some(device) = self.device_mut(&id, object) else { return };
        let object = device.object.clone();
        let is_news = |name: &&str| device.described.get(*name) != fields.get(*name);
        let news: Vec<_> = DESCRIBING.into_iter().filter(is_news).collect();
        device.found = Some(found);
        for name in news {
            let Ok(field) = FieldName::new(name) else { continue };
            self.config.put(&object, field, fields.get(name).cloned());
        }
        self.say_reached(&id);
        self.settle(&id);
    }

    /// Says that this node reaches a device.
    pub(super) fn say_reached(&mut self, id: &DeviceId) {
        let (at, incarnation) = (millis(self.clock.now_ms()), millis(self.incarnation));
        if let Some(device) = self.devices.get(id) {
            let value = map([("at", at), ("incarnation", incarnation)]);
            self.state.put(&device.object, self.names.reach.clone(), Some(value));
        }
    }

    /// This node does not reach the device any more.
    fn lost(&mut self, id: &DeviceId) {
        if let Some(device) = self.devices.get_mut(id)
            && device.found.take().is_some()
        {
            device.reach.remove(&self.me);
            self.state.put(&device.object, self.names.reach.clone(), None);
        }
    }

    fn reported(&mut self, id: &DeviceId, state: State, command: Option<CommandId>, source: Source) {
        let Some(device) = self.devices.get_mut(id).filter(|device| device.owned) else { return };
        device.answer_by = None;
        // What this owner read now follows whatever the owner before it had read back.
        let asked_at =
            |command: Option<CommandId>| command.and_then(|id| self.book.known(id)).map(|known| known.at_ms);
        let shown = device.reported.as_ref().and_then(|reported| reported.command);
        let said = device.said_reported.as_ref().and_then(|reported| reported.command);
        let before = if asked_at(said) >= asked_at(shown) { said.or(shown) } else { shown };
        let command =
            if asked_at(command) < asked_at(before) || command.is_none() { before } else { command };
        let answers = source == Source::ReadBack && device.heard != Some(Availability::Offline);
        let reported = Reported { value: state.clone(), command, source };
        device.said_reported = Some(reported.clone());
        if device.is_news(&state, command) {
            self.state.put(&device.object, self.names.reported.clone(), Some(encode(&reported)));
            device.reported = Some(reported);
        }
        if answers {
            self.say_available(id, Availability::Online, "the device answers".to_owned());
        }
    }

    fn progress(&mut self, id: &DeviceId, command: CommandId, stage: Stage) {
        let Some(device) = self.devices.get_mut(id) else { return };
        if !device.owned {
            debug!(device = %id, %command, ?stage, "not the owner any more");
            return;
        }
        if matches!(stage, Stage::Failed { .. }) && device.given_up == Some(command) {
            device.given_up = None;
            return;
        }
        let (state, reason) = match stage {
            Stage::Sent => (CommandState::Sent, None),
            Stage::Acknowledged => (CommandState::Acknowledged, None),
            Stage::Confirmed => (CommandState::Confirmed, None),
            Stage::Assumed => (CommandState::Assumed, None),
            Stage::TimedOut { reason } => (CommandState::TimedOut, Some(reason)),
            Stage::Superseded => (CommandState::Superseded, None),
            Stage::Failed { reason } => (CommandState::Failed, Some(reason)),
        };
        if let Some(reason) = &reason {
            debug!(device = %id, %command, ?state, reason, "a command was not carried out, as far as is known");
        }
        self.advance_owned(command, state, reason);
    }
}
