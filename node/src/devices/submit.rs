//! Taking commands from clients, on whichever node they come.

use std::time::Duration;

use device_adapters::model::{self, ColorMode, CommandId, DeviceId, LightChange, Xy};
use mesh_proto::{ObjectId, Value, kinds::Author};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use super::{
    Devices, command_object,
    commands::{RequestField, Step},
    convert::{Desired, MAX_DEADLINE_MS, clipped, encode},
    table::Asked,
};
use crate::{
    api::ports::{
        By, Change, Color, Command, CommandRequest, CommandState, MAX_TRANSITION_MS, PortError, Power, Reply,
        Zone,
    },
    audit::{Class, Entry},
    service::{Op, ServiceError},
};

/// Commands on their way into the objects at once.
const MAX_SUBMITTING: usize = 1_024;
/// How long a command may take to show in its object once it is written.
const ACCEPT_WITHIN: Duration = Duration::from_secs(5);

/// A command that is being written.
pub(super) struct Submitting {
    hash: [u8; 32],
    device: DeviceId,
    replies: Vec<Reply<Command>>,
    since: Instant,
    by: By,
}

/// A command that may be written.
struct Checked {
    id: CommandId,
    device: DeviceId,
    object: ObjectId,
    request: RequestField,
    desired: Desired,
    by: By,
}

impl Devices {
    /// Takes a command in; answered once its object shows it.
    pub(super) fn submit(&mut self, request: CommandRequest, reply: Reply<Command>) {
        let hash = hash_of(&request);
        let answer = match self.command_id(&request) {
            Ok(id) if self.book.get(id).is_some() => self.repeated(id, hash),
            Ok(id) if self.submitting.contains_key(&id) => {
                if let Some(first) = self.submitting.get_mut(&id).filter(|first| first.hash == hash) {
                    first.replies.push(reply);
                    return;
                }
                Err(conflict())
            }
            Ok(id) => match self.check(id, hash, &request) {
                Ok(checked) => return self.write_command(checked, reply),
                Err(refused) => Err(refused),
            },
            Err(refused) => Err(refused),
        };
        let _ = reply.send(answer); // whoever asked is gone
    }

    fn repeated(&mut self, id: CommandId, hash: [u8; 32]) -> Result<Command, PortError> {
        // The hash of a command taken elsewhere may be missing; then its key is all there is.
        if self.book.known(id).and_then(|known| known.hash).is_some_and(|known| known != hash) {
            return Err(conflict());
        }
        self.ask_again(id);
        self.book.get(id).ok_or(PortError::Stopping)
    }

    /// A command and what it makes of its device come here each on a way of its own. Where whoever took it died between the two, nobody
    /// would carry it out: then who repeats it asks the device once more.
    fn ask_again(&mut self, id: CommandId) {
        let Some(known) = self.book.known(id).filter(|_| !self.book.is_final(id)) else { return };
        let Ok(device) = DeviceId::new(known.device.name()) else { return };
        let Some(device) = self.devices.get(&device) else { return };
        if device.newest_asked().is_some_and(|asked| asked.at_ms >= known.at_ms) {
            return;
        }
        let (change, at) = (known.change.clone(), known.at_ms);
        let (by, deadline_ms) = (known.by.clone(), at.saturating_add(known.within_ms));
        let desired = Desired { command: id, change, at, deadline_ms, by };
        self.state.put(&device.object, self.names.desired.clone(), Some(encode(&desired)));
    }

    fn command_id(&self, request: &CommandRequest) -> Result<CommandId, PortError> {
        let mut id = [0; 16];
        if let Some(key) = &request.key {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&u64::try_from(key.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(key.as_bytes());
            hasher.update(request.device.as_str().as_bytes());
            hasher.finalize_xof().fill(&mut id);
        } else if SystemRandom::new().fill(&mut id).is_err() {
            return Err(PortError::Failed {
                detail: "the system has no randomness for the command's id".to_owned(),
                fix: "give an idempotency key, or try again when the system has started fully".to_owned(),
            });
        }
        Ok(CommandId(id))
    }

    fn check(&self, id: CommandId, hash: [u8; 32], request: &CommandRequest) -> Result<Checked, PortError> {
        if self.submitting.len() >= MAX_SUBMITTING {
            return Err(PortError::Overloaded);
        }
        let (name, not_found) = (request.device.name(), || PortError::NotFound(request.device.to_string()));
        let device_id = DeviceId::new(name).ok().filter(|_| request.device.kind() == "device");
        let device_id = device_id.ok_or_else(not_found)?;
        let device = self.devices.get(&device_id).filter(|device| device.is_known).ok_or_else(not_found)?;
        let (limit, given) = (MAX_DEADLINE_MS, request.deadline_ms);
        if given == 0 || given > limit || request.change.transition_ms > MAX_TRANSITION_MS {
            return Err(PortError::Invalid {
                detail: format!(
                    "a deadline of {given} ms and a transition of {} ms: 1 to {limit} ms and 0 to \
                     {MAX_TRANSITION_MS} ms are possible",
                    request.change.transition_ms
                ),
                fix: "leave the deadline out (5000) or choose one in its range".to_owned(),
            });
        }
        let open = device.newest_asked().filter(|asked| self.may_come_true(asked));
        let wanted = absolute(&request.change, |power| device.resolve(power, open.is_some()));
        let wanted = match device.capabilities() {
            Some(can) => can.fit(&wanted).map_err(|rule| PortError::Invalid {
                detail: format!("{}: {rule}", request.device),
                fix: "`hearth devices` shows what each device is and can do".to_owned(),
            })?,
            None => wanted,
        };
        let change = open.map_or_else(|| wanted.clone(), |open| open.change.then(&wanted));
        // Only after its transition can a command be read back, so that comes on top.
        let within_ms = u64::from(given) + u64::from(wanted.transition_ms());
        let at = self.clock.now_ms();
        let deadline_ms = at.saturating_add(within_ms);
        let by = request.by.clone();
        let request = RequestField {
            device: request.device.clone(),
            change: wanted,
            at,
            deadline_ms,
            hash,
            ended: None,
            who: Some(by.who.clone()),
        };
        let desired = Desired { command: id, change, at, deadline_ms, by: Some(clipped(&by.who)) };
        Ok(Checked { id, device: device_id, object: device.object.clone(), request, desired, by })
    }

    /// Whether what was asked has not ended and has time left.
    fn may_come_true(&self, asked: &Asked) -> bool {
        !self.book.is_final(asked.command) && asked.left_ms(self.clock.now_ms()) > 0
    }

    /// Writes `request` and `desired` in one: whoever sees either of two commands win, sees it win both.
    fn write_command(&mut self, checked: Checked, reply: Reply<Command>) {
        let Checked { id, device, object, request, desired, by } = checked;
        let Some(command) = command_object(id) else { return };
        let ops = vec![
            Op::Set(command, self.names.request.clone(), request.to_value(&self.by_me)),
            Op::Set(object, self.names.desired.clone(), encode(&desired)),
        ];
        let Desired { command, change, at, deadline_ms, by: who } = desired;
        if let Some(device) = self.devices.get_mut(&device) {
            let within_ms = deadline_ms.saturating_sub(at);
            device.asked = Some(Asked { command, change, at_ms: at, within_ms, by: who });
        }
        let hash = request.hash;
        let replies = vec![reply];
        self.submitting.insert(id, Submitting { hash, device, replies, since: Instant::now(), by });
        let service = self.service.clone();
        let write = async move { (id, service.write(Author::Node, ops).await) };
        self.writes.push(Box::pin(write));
    }

    /// A command's write was answered. Its object shows it in the same turn of the event loop,
    /// and with the stamp that counts; only a refusal is told from here.
    pub(super) fn written(&mut self, id: CommandId, result: Result<(), ServiceError>) {
        let Err(reason) = result else { return };
        self.refuse(id, &reason.into());
    }

    fn refuse(&mut self, id: CommandId, error: &PortError) {
        let Some(submitting) = self.submitting.remove(&id) else { return };
        if let Some(device) = self.devices.get_mut(&submitting.device)
            && device.asked.as_ref().is_some_and(|asked| asked.command == id)
        {
            device.asked = None;
        }
        for reply in submitting.replies {
            let _ = reply.send(Err(error.clone())); // whoever asked is gone
        }
    }

    /// The command's object shows it: its client gets its answer.
    pub(super) fn accepted(&mut self, id: CommandId) {
        let Some(submitting) = self.submitting.remove(&id) else { return };
        let Some(command) = self.book.get(id) else { return };
        let entry = Entry::new(Class::Deed, &submitting.by.who, "command", "accepted");
        let entry = entry.from(submitting.by.from, None).object(Some(command.device.as_str()));
        self.audit.record(entry.command(Some(&command.id)));
        for reply in submitting.replies {
            let _ = reply.send(Ok(command.clone())); // whoever asked is gone
        }
    }

    /// Gives up on commands that never showed.
    pub(super) fn forget_submits(&mut self) {
        let now = Instant::now();
        let late = self.submitting.iter().filter(|(_, submitting)| now >= submitting.since + ACCEPT_WITHIN);
        let late: Vec<CommandId> = late.map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.refuse(id, &PortError::Overloaded));
    }

    /// Ends the commands taken here that nobody ended, because the owner died or there is none.
    pub(super) fn end_overdue(&mut self) {
        for id in self.book.overdue(Instant::now()) {
            let Some(command) = self.book.get(id) else { continue };
            let device = DeviceId::new(command.device.name()).ok().and_then(|id| self.devices.get(&id));
            let newest = device.and_then(|device| device.desired.as_ref());
            let (state, reason) = match newest {
                Some(newest) if newest.command != id && newest.at_ms >= command.life_start() => {
                    (CommandState::Superseded, format!("command {} took over", newest.command))
                }
                _ => {
                    let owner =
                        device.and_then(|device| device.last_owner.filter(|_| device.offline_at.is_none()));
                    let why = owner.map_or_else(
                        || "no node reaches the device".to_owned(),
                        |owner| {
                            format!(
                                "node {}, which owns the device, did not say how it ended",
                                self.call(owner)
                            )
                        },
                    );
                    (CommandState::TimedOut, why)
                }
            };
            let step = Step { state, at_ms: self.clock.now_ms(), reason: Some(reason) };
            self.write_end(id, &command, step.clone());
            self.note_end(&command, state);
            self.end(id, step);
        }
    }

    /// What became of a command, for the audit trail of the node that says so.
    pub(super) fn note_end(&self, command: &Command, state: CommandState) {
        let Value::Text(outcome) = encode(&state) else { return };
        let who = command.by.as_deref().unwrap_or("unknown");
        let entry = Entry::new(Class::Deed, who, "command carried out", outcome);
        self.audit.record(entry.object(Some(command.device.as_str())).command(Some(&command.id)));
    }

    /// Ends the commands for a device that was removed: nobody will hear of it how they end. Its owner says so, and whoever
    /// took them, should it have none by now.
    pub(super) fn end_all_of(&mut self, device: &ObjectId, owned: bool) {
        for (id, _) in self.book.open_of(device) {
            let reason = Some("the device was removed".to_owned());
            let step = Step { state: CommandState::Failed, at_ms: self.clock.now_ms(), reason };
            if owned {
                self.advance_owned(id, step.state, step.reason);
            } else if self.book.known(id).is_some_and(|known| known.is_mine)
                && let Some(command) = self.book.get(id)
            {
                self.write_end(id, &command, step.clone());
                self.end(id, step);
            }
        }
    }

    /// The owner that told the end of a command taken here is gone, and what it said with it: says it in its place,
    /// lest the next owner takes the command for one that never ended.
    pub(super) fn keep_end(&mut self, id: CommandId) {
        if let (Some(command), Some(end)) = (self.book.get(id), self.book.end_of(id)) {
            self.write_end(id, &command, end);
        }
    }

    /// The end goes into the field that only this node writes, so it cannot erase what an owner says.
    fn write_end(&mut self, id: CommandId, command: &Command, step: Step) {
        let (Some(object), Some(known)) = (command_object(id), self.book.known(id)) else { return };
        let (Some(hash), change, at) = (known.hash, known.change.clone(), known.at_ms) else { return };
        let who = known.by.clone();
        let request = RequestField {
            device: command.device.clone(),
            change,
            at,
            deadline_ms: command.deadline_ms,
            hash,
            ended: Some(step),
            who,
        };
        self.state.put(&object, self.names.request.clone(), Some(request.to_value(&self.by_me)));
    }
}

impl Command {
    /// When it was accepted, in milliseconds since 1970.
    fn life_start(&self) -> u64 {
        self.life.first().map_or(self.at_ms, |(_, at)| *at)
    }
}

fn conflict() -> PortError {
    PortError::Conflict {
        detail: "this idempotency key was used for another command to this device".to_owned(),
        fix: "use a new key for a new command, and the same key only to repeat the very same one".to_owned(),
    }
}

/// What a client asked, hashed, before anything is resolved: a toggle repeated is the same request.
fn hash_of(request: &CommandRequest) -> [u8; 32] {
    let Change { press, on, brightness, color, effect, palette, zones, transition_ms } = &request.change;
    let on = on.map(|power| match power {
        Power::On => 1_u8,
        Power::Off => 2,
        Power::Toggle => 3,
    });
    let parts = |color: Color| match color {
        Color::Temperature(kelvin) => (1_u8, kelvin, 0),
        Color::Xy(x, y) => (2, x, y),
    };
    let color = color.map(parts);
    let zone = |zone: &Zone| (zone.count, parts(zone.color), zone.brightness);
    let zones: Option<Vec<_>> = zones.as_ref().map(|zones| zones.iter().map(zone).collect());
    let device = request.device.as_str();
    let look = (color, effect, palette, zones);
    let whole = (device, press, on, *brightness, look, *transition_ms, request.deadline_ms);
    // Texts and numbers always encode; an empty hash would only make two requests look alike.
    let bytes = postcard::to_allocvec(&whole).unwrap_or_default();
    *blake3::hash(&bytes).as_bytes()
}

/// The change without a toggle.
pub(super) fn absolute(change: &Change, resolve: impl Fn(Power) -> bool) -> model::Change {
    if change.press {
        return model::Change::Press;
    }
    model::Change::Light(LightChange {
        on: change.on.map(resolve),
        brightness: change.brightness,
        color: change.color.map(color_mode),
        effect: change.effect.clone(),
        palette: change.palette.clone(),
        zones: change.zones.as_ref().map(|zones| zones.iter().map(zone).collect()),
        transition_ms: change.transition_ms,
    })
}

fn color_mode(color: Color) -> ColorMode {
    match color {
        Color::Temperature(kelvin) => ColorMode::Temperature { kelvin },
        Color::Xy(x, y) => ColorMode::Color(Xy { x, y }),
    }
}

fn zone(zone: &Zone) -> model::Zone {
    model::Zone { count: zone.count, color: color_mode(zone.color), brightness: zone.brightness }
}
