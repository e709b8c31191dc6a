//! One device of a board: who owns it, what it showed, and the command on its way. Pure.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use crate::adapter::Reading;
use crate::model::{
    Availability, Change, CommandId, Description, DeviceId, Measurement, Source, Stage, State,
};

use super::command::InFlight;

/// One device.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) device: Description,
    pub(super) owned: bool,
    pub(super) availability: Option<Availability>,
    pub(super) command: Option<InFlight>,
    /// The newest command that the board acknowledged.
    followed: Option<CommandId>,
    reported: Option<(State, Option<CommandId>)>,
    measured: BTreeMap<String, Measurement>,
    presses: u64,
}

impl Unit {
    /// A device that was just found.
    pub(super) fn new(device: Description, owned: bool) -> Self {
        Self {
            device,
            owned,
            availability: None,
            command: None,
            followed: None,
            reported: None,
            measured: BTreeMap::new(),
            presses: 0,
        }
    }

    /// Everything that is known is told again.
    pub(super) fn forget(&mut self) {
        self.reported = None;
        self.measured.clear();
    }

    /// This node owns it from now on, or no longer does.
    pub(super) fn own(&mut self, owned: bool, out: &mut VecDeque<Reading>) {
        if owned == self.owned {
            return;
        }
        self.owned = owned;
        self.availability = None;
        self.forget();
        if !owned {
            let reason = "another node owns the device now: send the command again, it finds the owner";
            self.end(Stage::Failed { reason: reason.to_owned() }, out);
        }
    }

    /// Takes a command.
    pub(super) fn command(
        &mut self,
        now: Instant,
        id: CommandId,
        change: &Change,
        deadline: Instant,
        out: &mut VecDeque<Reading>,
    ) {
        if self.is_carrying_out(id) {
            return; // the same again: it is on its way
        }
        let wanted = if self.owned {
            self.device.capabilities.fit(change).map_err(|error| error.to_string())
        } else {
            Err(format!("this node does not own {}: its owner carries commands out", self.device.id))
        };
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(reason) => return out.push_back(self.progress(id, Stage::Failed { reason })),
        };
        let older = self.command.take();
        let wanted = older.as_ref().map_or_else(|| wanted.clone(), |older| older.wanted.then(&wanted));
        if let Some(older) = older {
            self.followed = if older.is_acknowledged() { Some(older.id) } else { self.followed };
            out.push_back(self.progress(older.id, Stage::Superseded));
        }
        self.command = Some(InFlight::new(id, wanted, deadline, now));
    }

    /// The command is being told now.
    pub(super) fn telling(&mut self, out: &mut VecDeque<Reading>) {
        let first = self.command.as_mut().and_then(|command| command.telling().then_some(command.id));
        out.extend(first.map(|id| self.progress(id, Stage::Sent)));
    }

    /// Whether the command of that id is on its way.
    pub(super) fn is_carrying_out(&self, id: CommandId) -> bool {
        self.command.as_ref().is_some_and(|command| command.id == id)
    }

    /// The board acknowledged the command of that id.
    pub(super) fn told(&mut self, now: Instant, id: CommandId, out: &mut VecDeque<Reading>) {
        let command = self.command.as_mut().filter(|command| command.id == id);
        if command.is_some_and(|command| command.told(now)) {
            out.push_back(self.progress(id, Stage::Acknowledged));
        }
    }

    /// Ends what is on its way.
    pub(super) fn end(&mut self, stage: Stage, out: &mut VecDeque<Reading>) {
        if let Some(command) = self.command.take() {
            if command.is_acknowledged() {
                self.followed = Some(command.id);
            }
            out.push_back(self.progress(command.id, stage));
        }
    }

    /// Ends what is on its way because its time is over; true when there was something.
    pub(super) fn expire(&mut self, now: Instant, out: &mut VecDeque<Reading>) -> bool {
        let expired = self.command.as_ref().filter(|command| command.deadline <= now);
        let Some(reason) = expired.map(|command| command.why_timed_out(now)) else { return false };
        self.end(Stage::TimedOut { reason }, out);
        true
    }

    /// A state that was asked for at `asked_at`, or came by itself.
    pub(super) fn state(
        &mut self,
        now: Instant,
        asked_at: Option<Instant>,
        state: State,
        out: &mut VecDeque<Reading>,
    ) {
        if let Some(command) = &mut self.command {
            // What came by itself may have been on its way before the command was carried out.
            if !asked_at.is_some_and(|asked_at| command.judge(now, asked_at, &state)) {
                return;
            }
            self.followed = Some(command.id);
            self.report(state, out);
            return self.end(Stage::Confirmed, out);
        }
        self.report(state, out);
    }

    /// All was read, and of its state nothing was told: it fades, or is not on the board.
    pub(super) fn unseen(&mut self, now: Instant) {
        if let Some(command) = &mut self.command {
            command.unseen(now);
        }
    }

    /// What its sensors yielded; what is missing of all there is becomes unknown.
    pub(super) fn measure(
        &mut self,
        mut values: BTreeMap<String, Measurement>,
        is_whole: bool,
        out: &mut VecDeque<Reading>,
    ) {
        values.retain(|key, _| self.device.sensors.contains_key(key));
        if is_whole {
            for key in self.device.sensors.keys() {
                let why = "the device tells no value".to_owned();
                values.entry(key.clone()).or_insert(Measurement::Unknown(why));
            }
        }
        let mut news = BTreeMap::new();
        for (key, value) in values {
            let Some(sensor) = self.device.sensors.get(&key) else { continue };
            let value = sensor.fit(value);
            if self.measured.get(&key) != Some(&value) {
                self.measured.insert(key.clone(), value.clone());
                news.insert(key, value);
            }
        }
        if !news.is_empty() {
            out.push_back(Reading::Measured { device: self.device.id.clone(), values: news });
        }
    }

    /// Somebody pressed it.
    pub(super) fn pressed(&mut self, event: String, out: &mut VecDeque<Reading>) {
        self.presses = crate::press::after(self.presses);
        let state = State::Button { event, count: self.presses };
        self.report(state, out);
    }

    /// Whether it answers.
    pub(super) fn available(&mut self, availability: Availability, why: &str, out: &mut VecDeque<Reading>) {
        if self.availability == Some(availability) {
            return;
        }
        self.availability = Some(availability);
        let device = self.device.id.clone();
        if availability == Availability::Offline {
            tracing::warn!(%device, reason = why, "a device does not answer");
        }
        out.push_back(Reading::Availability { device, availability, reason: why.to_owned() });
    }

    fn report(&mut self, state: State, out: &mut VecDeque<Reading>) {
        let news = (state, self.followed);
        if self.reported.as_ref() == Some(&news) {
            return;
        }
        self.reported = Some(news.clone());
        let device = self.device.id.clone();
        out.push_back(Reading::Reported { device, state: news.0, command: news.1, source: Source::ReadBack });
    }

    fn progress(&self, command: CommandId, stage: Stage) -> Reading {
        progress(&self.device.id, command, stage)
    }
}

/// Where a command stands.
pub(super) fn progress(device: &DeviceId, command: CommandId, stage: Stage) -> Reading {
    Reading::Progress { device: device.clone(), command, stage }
}
