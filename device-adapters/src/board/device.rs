//! One device of a board: what is due for it, and what is told of it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::Reading;
use crate::model::{
    Availability, Change, CommandId, Description, DeviceId, Measurement, SensorDescription, Source, Stage,
    State,
};

use super::{Applied, Fault, Readings, Sample};

/// The time between two changes of one device: chips on a slow bus bear 20 in a second.
const PACE: Duration = Duration::from_millis(50);
/// The time before a device is told again what it did not follow, or could not be told.
const TELL_AGAIN: Duration = Duration::from_millis(300);
/// The time before a device that did not answer is asked again, while it still counts as there.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Reads in a row that fail before a device is offline.
const MOST_MISSES: u32 = 2;

/// What is due for a device.
#[derive(Debug, Clone)]
pub(super) enum Due {
    /// A command.
    Apply(CommandId, Change),
    /// A poll.
    Read,
}

/// A command on its way.
#[derive(Debug)]
struct InFlight {
    id: CommandId,
    wanted: Change,
    deadline: Instant,
    next: Instant,
    sent: bool,
    acknowledged: bool,
    /// Why it is not confirmed yet.
    why: Option<String>,
}

/// A device.
#[derive(Debug)]
pub(super) struct Device<P> {
    pub(super) description: Description,
    pub(super) lane: String,
    pub(super) place: P,
    poll: Duration,
    owned: bool,
    availability: Option<Availability>,
    next_poll: Instant,
    /// No change before this.
    ready: Instant,
    misses: u32,
    /// What it yielded the last time that it answered.
    last: Option<Sample>,
    /// It told something unasked since the job that is under way began: that is newer than what a read yields.
    told_meanwhile: bool,
    told_state: Option<(State, Option<CommandId>)>,
    told_values: BTreeMap<String, Measurement>,
    command: Option<InFlight>,
    followed: Option<CommandId>,
    /// Presses so far.
    presses: u64,
}

impl<P> Device<P> {
    /// A device that was just found.
    pub(super) fn new(found: super::Found<P>, poll: Duration, now: Instant) -> Self {
        Self {
            description: found.description,
            lane: found.lane,
            place: found.place,
            poll,
            owned: false,
            availability: None,
            next_poll: now,
            ready: now,
            misses: 0,
            last: None,
            told_meanwhile: false,
            told_state: None,
            told_values: BTreeMap::new(),
            command: None,
            followed: None,
            presses: 0,
        }
    }

    /// This node owns it from now on, or no longer does.
    pub(super) fn set_owned(&mut self, now: Instant, owned: bool, out: &mut Readings) {
        if owned == self.owned {
            return;
        }
        self.owned = owned;
        self.availability = None;
        self.refresh(now);
        if !owned {
            let reason = format!("this node no longer owns {}", self.id());
            self.end_command(Stage::Failed { reason }, out);
        }
    }

    /// Reads it at once, and reports all of it in any case.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.told_state = None;
        self.told_values.clear();
        self.next_poll = now;
    }

    /// Takes a command.
    pub(super) fn command(
        &mut self,
        now: Instant,
        id: CommandId,
        change: &Change,
        deadline: Instant,
        out: &mut Readings,
    ) {
        if self.command.as_ref().is_some_and(|command| command.id == id) {
            return; // the same again: it is on its way
        }
        let fitted = self.description.capabilities.fit(change).map_err(|error| error.to_string());
        let wanted = match fitted {
            Ok(wanted) if self.owned => wanted,
            Ok(_) => {
                let reason = format!("this node does not own {}: its owner carries commands out", self.id());
                return self.progress(id, Stage::Failed { reason }, out);
            }
            Err(reason) => return self.progress(id, Stage::Failed { reason }, out),
        };
        let older = self.command.take();
        let wanted = older.as_ref().map_or_else(|| wanted.clone(), |older| older.wanted.then(&wanted));
        if let Some(older) = older {
            self.progress(older.id, Stage::Superseded, out);
        }
        let (sent, acknowledged) = (false, false);
        self.command = Some(InFlight { id, wanted, deadline, next: now, sent, acknowledged, why: None });
    }

    /// What is due, and since when.
    pub(super) fn due(&self) -> Option<(Instant, Due)> {
        if let Some(command) = &self.command {
            let due = command.next.max(self.ready);
            // A poll that is due first must not wait for a command that is told again.
            if !self.owned || due <= self.next_poll {
                return Some((due, Due::Apply(command.id, command.wanted.clone())));
            }
        }
        self.owned.then_some((self.next_poll, Due::Read))
    }

    /// When its command ends at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.command.as_ref().map(|command| command.deadline)
    }

    /// What it yielded last.
    pub(super) fn last(&self) -> Option<Sample> {
        self.last.clone()
    }

    /// The command goes out, or the device is read.
    pub(super) fn started(&mut self, now: Instant, due: &Due, out: &mut Readings) {
        self.next_poll = now + self.poll;
        self.told_meanwhile = false;
        let Due::Apply(id, _) = due else { return };
        self.ready = now + PACE;
        if let Some(command) = self.command.as_mut().filter(|command| command.id == *id)
            && !std::mem::replace(&mut command.sent, true)
        {
            self.progress(*id, Stage::Sent, out);
        }
    }

    /// It was read.
    pub(super) fn was_read(&mut self, now: Instant, result: Result<Sample, String>, out: &mut Readings) {
        if !self.owned {
            return;
        }
        match result {
            Ok(sample) => {
                let newer = self.last.clone().filter(|_| self.told_meanwhile);
                self.answers(newer.unwrap_or(sample), out);
            }
            Err(why) => {
                self.misses += 1;
                let times = self.misses;
                if self.availability.is_none() || times >= MOST_MISSES {
                    let times = if times > 1 { format!(", {times} times in a row") } else { String::new() };
                    self.set_availability(Availability::Offline, format!("{why}{times}"), out);
                } else {
                    self.next_poll = now + ASK_AGAIN.min(self.poll);
                }
            }
        }
    }

    /// A change was tried, and after that the device was read.
    pub(super) fn was_applied(
        &mut self,
        now: Instant,
        id: CommandId,
        result: Result<Applied, Fault>,
        out: &mut Readings,
    ) {
        let Some(command) = self.command.as_mut().filter(|command| command.id == id) else {
            self.next_poll = now; // of one that is over: what it left behind is worth a look
            return;
        };
        command.next = now + TELL_AGAIN;
        match result {
            Ok(Applied { sample, follows }) => {
                command.why = Some(format!("it shows {} instead", shown(&sample)));
                if !std::mem::replace(&mut command.acknowledged, true) {
                    self.progress(id, Stage::Acknowledged, out);
                }
                self.followed = Some(id);
                self.answers(sample, out);
                if follows {
                    self.end_command(Stage::Confirmed, out);
                }
            }
            Err(Fault::Refused(reason)) => self.end_command(Stage::Failed { reason }, out),
            Err(Fault::Failed(why)) => command.why = Some(why),
        }
    }

    /// It tells something unasked.
    pub(super) fn told(&mut self, sample: Sample, out: &mut Readings) {
        if self.owned {
            self.told_meanwhile = true;
            self.answers(sample, out);
        }
    }

    /// Somebody pressed it.
    pub(super) fn pressed(&mut self, event: &str, out: &mut Readings) {
        if !self.owned {
            return;
        }
        self.presses = crate::press::after(self.presses);
        let state = State::Button { event: event.to_owned(), count: self.presses };
        self.report_state(state, out);
    }

    /// Ends a command whose time is over.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Readings) {
        let Some(command) = self.command.as_ref().filter(|command| command.deadline <= now) else { return };
        let reason = match (&command.why, command.sent) {
            (Some(why), _) => why.clone(),
            (None, true) => "the kernel has not come back from it".to_owned(),
            (None, false) => "it waits for something else on its bus, which has not come back".to_owned(),
        };
        self.end_command(Stage::TimedOut { reason }, out);
    }

    /// It does not come back from a read.
    pub(super) fn hangs(&mut self, why: &str, out: &mut Readings) {
        if self.owned {
            self.set_availability(Availability::Offline, why.to_owned(), out);
        }
    }

    /// It is no longer there.
    pub(super) fn lost(&mut self, why: &str, out: &mut Readings) {
        self.end_command(Stage::Failed { reason: why.to_owned() }, out);
        if self.owned {
            self.set_availability(Availability::Offline, why.to_owned(), out);
        }
        out.push_back(Reading::Lost { device: self.id().clone(), reason: why.to_owned() });
    }

    /// Ends the command in flight, if there is one.
    pub(super) fn end_command(&mut self, stage: Stage, out: &mut Readings) {
        if let Some(command) = self.command.take() {
            self.progress(command.id, stage, out);
        }
    }

    fn id(&self) -> &DeviceId {
        &self.description.id
    }

    fn answers(&mut self, sample: Sample, out: &mut Readings) {
        self.misses = 0;
        self.set_availability(Availability::Online, "it answers".to_owned(), out);
        if let Some(state) = sample.state.clone() {
            self.report_state(state, out);
        }
        self.report_values(&sample, out);
        self.last = Some(sample);
    }

    fn report_state(&mut self, state: State, out: &mut Readings) {
        let told = (state, self.followed);
        if self.told_state.as_ref() != Some(&told) {
            let (state, command) = told.clone();
            let (device, source) = (self.id().clone(), Source::ReadBack);
            out.push_back(Reading::Reported { device, state, command, source });
            self.told_state = Some(told);
        }
    }

    fn report_values(&mut self, sample: &Sample, out: &mut Readings) {
        let fit = |(key, value): (&String, &Measurement)| {
            let sensor: &SensorDescription = self.description.sensors.get(key)?;
            Some((key.clone(), sensor.fit(value.clone())))
        };
        let fitted = sample.values.iter().filter_map(fit);
        let news: BTreeMap<_, _> =
            fitted.filter(|(key, value)| self.told_values.get(key) != Some(value)).collect();
        if !news.is_empty() {
            self.told_values.extend(news.clone());
            out.push_back(Reading::Measured { device: self.id().clone(), values: news });
        }
    }

    fn set_availability(&mut self, availability: Availability, reason: String, out: &mut Readings) {
        if self.availability.replace(availability) != Some(availability) {
            out.push_back(Reading::Availability { device: self.id().clone(), availability, reason });
        }
    }

    fn progress(&self, command: CommandId, stage: Stage, out: &mut Readings) {
        out.push_back(Reading::Progress { device: self.id().clone(), command, stage });
    }
}

fn shown(sample: &Sample) -> String {
    match &sample.state {
        Some(State::Light(light)) if light.on => {
            format!("on at {} %", crate::model::color::to_percent(light.brightness))
        }
        Some(state) if state.is_on() == Some(true) => "on".to_owned(),
        Some(state) if state.is_on() == Some(false) => "off".to_owned(),
        _ => "nothing".to_owned(),
    }
}
