//! What the objects say, and what follows: who owns a device, and what its adapter is told.

use std::time::Duration;

use device_adapters::{
    Directive, Scope,
    model::{Availability, Change as Wanted, CommandId, DeviceId, Tolerance},
};
use mesh_proto::{FieldName, ObjectId, ShortId};
use tokio::time::Instant;
use tracing::{debug, info, info_span, warn};

use super::{
    Devices, MAX_DEVICES, command_object,
    commands::{Known, RequestField, Step, life_from},
    convert::{Available, encode, within_ms},
    measured::readings_value,
    ownership,
    table::{Asked, Device},
};
use crate::{
    api::ports::{Command, CommandState},
    service::{Change, Changes, ObjectView},
};

/// How long a device that nobody reaches is given before it counts as offline.
const UNREACHED: Duration = Duration::from_secs(5);
/// How long the adapters look around after the start before anything counts as unreached.
pub(super) const LOOK_AROUND: Duration = Duration::from_secs(10);
/// How long a new owner waits for the device's first answer before it says that what is known is old.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// Two commands of the same millisecond: how long until the one that lost is sure to have lost.
const TIE_MS: u64 = 500;

impl Devices {
    /// Takes changes of objects in. `is_live` says that the first snapshot is over.
    pub(super) fn see_changes(&mut self, changes: Changes, is_live: bool) {
        // Commands first: a `desired` then finds its command known.
        let (commands, devices): (Vec<_>, Vec<_>) =
            changes.changes.into_iter().partition(|change| change.id.kind() == "command");
        commands.iter().filter_map(|change| change.object.as_ref()).for_each(|view| self.see_command(view));
        let (nodes, devices): (Vec<_>, Vec<_>) =
            devices.into_iter().partition(|change| change.id.kind() == "node");
        nodes.iter().for_each(|change| self.see_node(change));
        let (adapters, devices): (Vec<_>, Vec<_>) =
            devices.into_iter().partition(|change| change.id.kind() == "adapter");
        adapters.iter().for_each(|change| self.see_adapter(change, is_live));
        let (events, devices): (Vec<_>, Vec<_>) =
            devices.into_iter().partition(|change| change.id.kind() == "event");
        // What happened before the start was told by whoever ran then.
        if is_live {
            events.iter().filter_map(|change| change.object.as_ref()).for_each(|event| self.hear(event));
        }
        for change in devices {
            if let Some(id) = self.see_device(change) {
                self.settle(&id);
                self.show(&id);
            }
        }
        for change in commands {
            self.settle_command(&change.id);
        }
    }

    fn see_node(&mut self, change: &Change) {
        let Ok(node) = change.id.name().parse::<ShortId>() else { return };
        let name = change.object.as_ref().and_then(|view| view.fields.get(&self.names.name));
        let name = name.and_then(|field| field.value.as_text()).filter(|name| !name.is_empty());
        match name {
            Some(name) => drop(self.called.insert(node, super::convert::clipped(name))),
            None => drop(self.called.remove(&node)),
        }
    }

    /// What people call a node; the start of its key while it has no name.
    pub(super) fn call(&self, node: ShortId) -> String {
        self.called.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    fn see_device(&mut self, change: Change) -> Option<DeviceId> {
        let id = DeviceId::new(change.id.name()).ok()?;
        self.unseen.remove(&id);
        let Some(view) = change.object else {
            self.lose_object(&id);
            return None;
        };
        let object = change.id;
        self.device_mut(&id, object)?.see(&view);
        Some(id)
    }

    /// An incomplete object is one that is just being made; one that was complete was deleted, and
    /// its device is new when it is found again.
    pub(super) fn lose_unseen(&mut self) {
        std::mem::take(&mut self.unseen).iter().for_each(|id| self.lose_object(id));
    }

    fn lose_object(&mut self, id: &DeviceId) {
        if let Some(device) = self.devices.get(id).filter(|device| device.is_known) {
            info!(device = %id, "the device was removed");
            self.tell(&device.adapter.clone(), Directive::Own { device: id.clone(), owned: false });
            let (object, owned) = (device.object.clone(), device.owned);
            self.devices.remove(id);
            self.end_all_of(&object, owned);
            self.show(id);
        }
    }

    /// The device, made when it is new; none when there are too many.
    pub(super) fn device_mut(&mut self, id: &DeviceId, object: ObjectId) -> Option<&mut Device> {
        if !self.devices.contains_key(id) && self.devices.len() >= MAX_DEVICES {
            warn!(device = %id, limit = MAX_DEVICES, "too many devices: this one is left alone; delete the objects of those that are gone");
            return None;
        }
        Some(self.devices.entry(id.clone()).or_insert_with(|| Device::new(id.clone(), object)))
    }

    fn see_command(&mut self, view: &ObjectView) {
        let Ok(id) = view.id.name().parse::<CommandId>() else { return };
        let field = |name: &FieldName| view.fields.get(name);
        let field_of_life = field(&self.names.life);
        let request = field(&self.names.request)
            .and_then(|field| Some((RequestField::from_value(&field.value)?, field)));
        if let Some((request, field)) = request {
            let is_mine = field.by == self.by_me;
            let within_ms = within_ms(request.at, request.deadline_ms);
            let (device, change, hash) = (request.device, request.change, Some(request.hash));
            let by = request.who;
            let known = Known { device, change, at_ms: field.at_ms, within_ms, hash, is_mine, by };
            self.know(id, known);
            if is_mine && request.ended.is_none() && field_of_life.is_none() {
                self.keep_end(id);
            }
            request.ended.into_iter().for_each(|step| self.end(id, step));
        }
        if let Some(life) = field_of_life {
            let life = life_from(&life.value);
            life.iter().for_each(|step| self.advance(id, step.clone()));
            let command = self.book.adopt_end(id, life);
            self.tell_life(command);
        }
    }

    /// Notes a command; tells of it when it is new.
    pub(super) fn know(&mut self, id: CommandId, known: Known) {
        let command = self.book.insert(id, known, Instant::now());
        self.tell_life(command);
        self.accepted(id);
    }

    /// Moves a command on as its device's owner says; tells of it when that changed it.
    fn advance(&mut self, id: CommandId, step: Step) {
        let command = self.book.advance(id, step);
        self.tell_life(command);
    }

    /// Ends a command as the node that took it says; tells of it when that changed it.
    pub(super) fn end(&mut self, id: CommandId, step: Step) {
        let command = self.book.end(id, step);
        self.tell_life(command);
    }

    fn tell_life(&self, command: Option<Command>) {
        if let Some(command) = command {
            let _ = self.port.life.send(command); // nobody listens
        }
    }

    /// Moves a command on as the owner of its device, who writes its life.
    pub(super) fn advance_owned(&mut self, id: CommandId, state: CommandState, reason: Option<String>) {
        let step = Step { state, at_ms: self.clock.now_ms(), reason };
        let Some(command) = self.book.advance(id, step) else { return };
        if let (Some(object), Some(life)) = (command_object(id), self.book.life_value(id)) {
            self.state.put(&object, self.names.life.clone(), Some(life));
        }
        if state.is_final() {
            self.note_end(&command, state);
        }
        let _ = self.port.life.send(command); // nobody listens
    }

    fn settle_command(&mut self, object: &ObjectId) {
        let Ok(id) = object.name().parse::<CommandId>() else { return };
        let Some(device) = self.book.get(id).and_then(|command| DeviceId::new(command.device.name()).ok())
        else {
            return;
        };
        self.supersede(&device);
    }

    /// Draws the consequences for every device.
    pub(super) fn settle_all(&mut self) {
        let ids: Vec<DeviceId> = self.devices.keys().cloned().collect();
        ids.iter().for_each(|id| self.settle(id));
    }

    /// Draws every consequence of what is known of a device.
    pub(super) fn settle(&mut self, id: &DeviceId) {
        self.settle_reach(id);
        self.settle_owner(id);
        self.drive(id);
        self.supersede(id);
        self.settle_answer(id);
        self.settle_unreached(id);
    }

    /// Says again what this node reaches, should the household have lost it.
    fn settle_reach(&mut self, id: &DeviceId) {
        let Some(device) = self.devices.get(id).filter(|device| device.is_known) else { return };
        if device.found.is_some() && !device.reach.contains(&self.me) {
            self.say_reached(id);
        }
    }

    fn settle_owner(&mut self, id: &DeviceId) {
        let me = self.me;
        let Some(device) = self.devices.get_mut(id) else { return };
        let mut reach = device.reach.clone();
        if device.found.is_some() {
            reach.insert(me);
        } else {
            reach.remove(&me);
        }
        let owner = ownership::owner(&reach, &self.living, id.as_str());
        device.last_owner = owner.or(device.last_owner);
        let now = Instant::now();
        let waits =
            (device.is_known && owner.is_none()).then(|| (now + UNREACHED).max(self.looked_around_at));
        device.offline_at = waits.map(|at| device.offline_at.unwrap_or(at));
        let is_mine = owner == Some(me);
        if is_mine != device.owned {
            debug!(device = %id, owned = is_mine, "ownership changed");
            device.owned = is_mine;
            if !is_mine {
                device.given_up = device.directed;
            }
            (device.directed, device.heard) = (None, None);
            (device.said_available, device.said_reported) = (None, None);
            device.answer_by = is_mine.then(|| now + FIRST_ANSWER);
        }
        if device.told != device.owned {
            let (adapter, owned) = (device.adapter_id(), device.owned);
            let is_told = self.tell(&adapter, Directive::Own { device: id.clone(), owned });
            if let Some(device) = self.devices.get_mut(id).filter(|_| is_told) {
                device.told = owned;
            }
        }
    }

    /// Hands the newest `desired` to the adapter, once.
    fn drive(&mut self, id: &DeviceId) {
        let now_ms = self.clock.now_ms();
        let Some(device) = self.devices.get(id).filter(|device| device.owned && device.told) else { return };
        let Some(asked) = device.desired.clone() else { return };
        let left_ms = asked.left_ms(now_ms);
        if device.directed == Some(asked.command) || left_ms == 0 || self.book.is_final(asked.command) {
            return;
        }
        let (adapter, object) = (device.adapter_id(), device.object.clone());
        // Of all commands only a press is another one when it is carried out twice.
        if asked.change == Wanted::Press {
            // From before this node was started, and nobody has told by now how it went.
            if self.book.known(asked.command).is_none() {
                return;
            }
            if self.book.is_sent(asked.command) {
                let reason = "whoever pressed it was interrupted: it is not known whether it was pressed";
                return self.advance_owned(asked.command, CommandState::Failed, Some(reason.to_owned()));
            }
        }
        let is_shown = device.shows(&asked, &Tolerance::default());
        let Asked { command, change, at_ms, within_ms, by } = asked;
        self.know(
            command,
            Known {
                device: object,
                change: change.clone(),
                at_ms,
                within_ms,
                hash: None,
                is_mine: false,
                by,
            },
        );
        if is_shown {
            // The owner before this one read it back and died before it said so.
            self.advance_owned(command, CommandState::Confirmed, None);
            return;
        }
        let deadline = Instant::now() + Duration::from_millis(left_ms);
        let by = self.book.known(command).and_then(|known| known.by.clone()).unwrap_or_default();
        let span = info_span!("command", %command, device = %id, %by).entered();
        debug!(?change, "the command goes to its adapter");
        if self.tell(&adapter, Directive::Command { device: id.clone(), command, change, by, deadline })
            && let Some(device) = self.devices.get_mut(id)
        {
            device.directed = Some(command);
        }
        drop(span);
    }

    /// Ends the older commands for a device that this node owns. What they asked for is part of
    /// the newest.
    fn supersede(&mut self, id: &DeviceId) {
        let Some(device) = self.devices.get(id).filter(|device| device.owned) else { return };
        let Some(newest) = device.desired.as_ref() else { return };
        let (command, at_ms) = (newest.command, newest.at_ms);
        let tie_is_over = self.clock.now_ms() > at_ms.saturating_add(TIE_MS);
        for (older, asked_ms) in self.book.open_of(&device.object.clone()) {
            // Both fields of a command are one write, so of two commands the later stamp wins
            // both. Of the same millisecond this node may not have heard the winner yet.
            if older != command && (asked_ms < at_ms || (asked_ms == at_ms && tie_is_over)) {
                let reason = Some(format!("command {command} took over"));
                self.advance_owned(older, CommandState::Superseded, reason);
            }
        }
    }

    /// A new owner that hears nothing says that what is known is old.
    fn settle_answer(&mut self, id: &DeviceId) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let is_due = device.answer_by.is_some_and(|at| at <= Instant::now());
        if device.owned && is_due {
            device.answer_by = None;
            let reason = format!("node {} took over and has not heard it yet", self.call(self.me));
            self.say_available(id, Availability::Stale, reason);
        }
    }

    /// A device that no live node reaches is offline. One node says so for all: the winner among
    /// those that live.
    fn settle_unreached(&mut self, id: &DeviceId) {
        let Some(device) = self.devices.get(id) else { return };
        let is_due = device.offline_at.is_some_and(|at| at <= Instant::now());
        let spokesman = ownership::winner(self.living.iter().copied(), id.as_str());
        let is_offline = device.available.as_ref().is_some_and(|known| known.state == Availability::Offline);
        // Its own adapter being down says nothing about the device; that reason stands already.
        // One that is switched off for the household is nowhere looked for.
        let is_off =
            |adapter: &str| self.slots.get(adapter).is_some_and(|slot| slot.decided.enabled == Some(false));
        if device.adapter.as_deref().is_some_and(is_off) {
            return;
        }
        let can_tell = device.adapter.as_deref().is_some_and(|adapter| self.runs(adapter))
            || device.last_owner.is_none_or(|owner| owner != self.me);
        if !is_due || is_offline || spokesman != Some(self.me) || !can_tell {
            return;
        }
        let reason = match device.last_owner.filter(|owner| !self.living.contains(owner)) {
            Some(owner) if self.is_wired(device) => format!("node {} is down", self.call(owner)),
            Some(owner) => format!("node {} is down, and no other node reaches it", self.call(owner)),
            None => "no node reaches it".to_owned(),
        };
        self.say_available(id, Availability::Offline, reason);
    }

    /// Writes whether a device answers, unless that is known.
    pub(super) fn say_available(&mut self, id: &DeviceId, state: Availability, reason: String) {
        let now_ms = self.clock.now_ms();
        let Some(device) = self.devices.get_mut(id) else { return };
        let known = device.available.as_ref().filter(|known| known.state == state);
        if let Some(known) = known.filter(|known| state == Availability::Online || known.reason == reason) {
            device.said_available = Some(known.clone());
            return;
        }
        let since = known.map_or(now_ms, |known| known.since);
        let available = Available { state, reason: super::convert::clipped(&reason), since };
        self.state.put(&device.object, self.names.availability.clone(), Some(encode(&available)));
        device.said_available = Some(available.clone());
        device.available = Some(available);
    }

    /// Says again what the object does not show: what an owner said last before it died may go
    /// with it, and an older value stands there again.
    pub(super) fn say_again(&mut self) {
        for device in self.devices.values_mut().filter(|device| device.owned && device.is_known) {
            if let Some(said) = device.said_available.clone()
                && device.available.as_ref().is_none_or(|shown| shown.state != said.state)
            {
                self.state.put(&device.object, self.names.availability.clone(), Some(encode(&said)));
                device.available = Some(said);
            }
            if !device.readings_shown && !device.readings.is_empty() {
                let value = readings_value(&device.readings);
                self.state.put(&device.object, self.names.readings.clone(), Some(value));
                device.readings_shown = true;
            }
            if let Some(said) = device.said_reported.clone()
                && device.is_news(&said.value, said.command)
            {
                self.state.put(&device.object, self.names.reported.clone(), Some(encode(&said)));
                device.reported = Some(said);
            }
        }
    }

    /// Offers an adapter a directive; false when it does not run or is too slow, and then it is
    /// offered again later.
    pub(super) fn tell(&self, adapter: &Option<String>, directive: Directive) -> bool {
        let slot = adapter.as_deref().and_then(|adapter| self.slots.get(adapter));
        let to = slot.and_then(|slot| slot.running.as_ref());
        to.is_some_and(|(to, _)| to.try_send(directive).is_ok())
    }

    /// Whether it is a part of one board.
    fn is_wired(&self, device: &Device) -> bool {
        let slot = device.adapter.as_deref().and_then(|adapter| self.slots.get(adapter));
        slot.is_some_and(|slot| slot.registration.descriptor.scope == Scope::Board)
    }

    /// Whether an adapter runs here.
    fn runs(&self, adapter: &str) -> bool {
        self.slots.get(adapter).is_some_and(|slot| slot.running.is_some())
    }
}
