//! One bridge: what is asked of it next, and what its answers and events mean. Pure.

mod answers;
mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::adapter::Reading;
use crate::model::{Change, CommandId, DeviceId, Stage};

use self::stream::Stream;
use super::command::{InFlight, Need};
use super::home::{Home, Part};
use super::news::News;
use super::pace::Pace;
use super::view;
use super::wire::Event;

/// The stream of events is opened before all is read, so that nothing is missed between; but not waited for longer than this.
const STREAM_WITHIN: Duration = Duration::from_secs(4);
/// The least time between two reads of all that events ask for, and the most between any two.
const LEAST_BETWEEN_ALL: Duration = Duration::from_secs(2);
const MOST_BETWEEN_ALL: Duration = Duration::from_secs(600);
/// How many times as long as until it is asked whether it is there may an open stream say nothing before all is read: it may have
/// died without a word.
const SILENT_POLLS: u32 = 6;

/// What is asked of the bridge.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    /// All resources.
    All,
    /// Whether it is there.
    Alive,
    /// One light, of a device.
    Light {
        /// The path of the resource behind `/clip/v2/resource/`.
        path: String,
    },
    /// A change.
    Put {
        /// The device.
        device: DeviceId,
        /// The command that it is part of.
        command: CommandId,
        /// The path of the resource behind `/clip/v2/resource/`.
        path: String,
        /// What is sent.
        body: Value,
    },
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of the header `Retry-After`.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Vec<u8>,
}

/// One bridge.
#[derive(Debug)]
pub(crate) struct Driver {
    host: String,
    poll: Duration,
    home: Home,
    news: News,
    commands: BTreeMap<DeviceId, InFlight>,
    refresh: BTreeSet<DeviceId>,
    out: VecDeque<Reading>,
    pace: Pace,
    asked: Option<(Ask, Instant)>,
    /// When all is to be read; it was read last at `read_all`.
    all_due: Instant,
    read_all: Option<Instant>,
    stream: Stream,
    failures: u32,
    trouble: Option<String>,
    heard: Instant,
    /// When the first was asked of what has no good answer yet.
    unanswered: Option<Instant>,
    refused: Option<String>,
}

impl Driver {
    /// Nothing is known yet; the stream of events is due. `host` is where the bridge is, for people.
    pub(crate) fn new(host: String, poll: Duration, owned: BTreeSet<DeviceId>, now: Instant) -> Self {
        Self {
            host,
            poll,
            home: Home::default(),
            news: News::new(owned),
            commands: BTreeMap::new(),
            refresh: BTreeSet::new(),
            out: VecDeque::new(),
            pace: Pace::new(now),
            asked: None,
            all_due: now + STREAM_WITHIN,
            read_all: None,
            stream: Stream::new(now),
            failures: 0,
            trouble: None,
            heard: now,
            unanswered: None,
            refused: None,
        }
    }

    /// The next reading to pass on.
    pub(crate) fn poll_reading(&mut self) -> Option<Reading> {
        self.out.pop_front()
    }

    /// How many readings wait.
    pub(crate) fn backlog(&self) -> usize {
        self.out.len()
    }

    /// Whether it has that device.
    pub(crate) fn has(&self, device: &DeviceId) -> bool {
        self.home.roles().contains_key(device)
    }

    /// Why the bridge refuses to be asked, if it does.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// How long it has been failing, and with what; none while all is well. The time in which nothing was asked does not count.
    pub(crate) fn failing(&self, now: Instant) -> Option<(Duration, &str)> {
        let trouble = self.trouble.as_deref().filter(|_| self.failures > 0)?;
        Some((now.saturating_duration_since(self.unanswered?), trouble))
    }

    /// The bridge is to be asked there from now on, also one that refused.
    pub(crate) fn moved(&mut self, now: Instant, host: String) {
        self.host = host;
        self.refused = None;
        if let Some((ask, _)) = self.asked.take() {
            self.again(now, &ask);
        }
        self.stream.restart(now);
        self.all_due = now;
    }

    /// Whether the stream of events is to be opened now; it then is being opened.
    pub(crate) fn poll_stream(&mut self, now: Instant) -> bool {
        let is_due = self.stream.due().is_some_and(|due| due <= now) && self.may_ask(now);
        if is_due {
            self.stream.opening();
            self.unanswered.get_or_insert(now);
            self.pace.spend(now, false);
        }
        is_due
    }

    /// What to ask now; it then is being asked.
    pub(crate) fn poll_ask(&mut self, now: Instant) -> Option<Ask> {
        if !self.may_ask(now) {
            return None;
        }
        let (due, ask) = self.next_ask();
        if due > now {
            return None;
        }
        let is_for_group = matches!(&ask, Ask::Put { path, .. } if path.starts_with("grouped_light/"));
        self.pace.spend(now, is_for_group);
        self.asking(now, &ask);
        self.asked = Some((ask.clone(), now));
        self.unanswered.get_or_insert(now);
        Some(ask)
    }

    /// When [`Driver::handle_timeout`] must be called next, and the polls after it.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.commands.values().map(|command| command.deadline).min();
        if self.asked.is_some() || self.stream.is_opening() || self.refused.is_some() {
            return deadline;
        }
        let ready = self.pace.ready();
        let next = self.next_ask().0.max(ready);
        let stream = self.stream.due().map(|due| due.max(ready));
        [deadline, Some(next), stream].into_iter().flatten().min()
    }

    /// Ends the commands whose time is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<DeviceId> = self
            .commands
            .iter()
            .filter(|(_, command)| command.deadline <= now)
            .map(|(device, _)| device.clone())
            .collect();
        for device in late {
            if let Some(command) = self.commands.remove(&device) {
                let reason = command.why_timed_out(self.trouble.as_deref());
                self.progress(device, command.id, Stage::TimedOut { reason });
            }
        }
    }

    /// This node owns the device from now on, or no longer does.
    pub(crate) fn own(&mut self, device: DeviceId, owned: bool) {
        if !owned && let Some(command) = self.commands.remove(&device) {
            let reason = "another node owns this device now".to_owned();
            self.progress(device.clone(), command.id, Stage::Failed { reason });
        }
        self.news.own(device, owned);
        self.tell();
    }

    /// Reads a device and tells what it shows.
    pub(crate) fn refresh(&mut self, device: DeviceId) {
        if self.has(&device) && self.news.owns(&device) {
            self.refresh.insert(device);
        }
    }

    /// Changes a device of this bridge.
    pub(crate) fn command(
        &mut self,
        now: Instant,
        device: DeviceId,
        id: CommandId,
        change: &Change,
        deadline: Instant,
    ) {
        if self.commands.get(&device).is_some_and(|command| command.id == id) {
            return;
        }
        let wanted = match self.fit(&device, change) {
            Ok(wanted) => wanted,
            Err(reason) => return self.progress(device, id, Stage::Failed { reason }),
        };
        let command = match self.commands.remove(&device) {
            Some(older) => {
                self.progress(device.clone(), older.id, Stage::Superseded);
                older.superseded_by(id, &wanted, deadline, now)
            }
            None => InFlight::new(id, wanted, deadline, now),
        };
        self.commands.insert(device, command);
    }

    /// The stream of events is open.
    pub(crate) fn stream_opened(&mut self, now: Instant) {
        self.stream.opened(now);
        self.hear(now);
        self.read_all_soon(now); // what happened before it was open
    }

    /// The stream of events ended, or could not be opened.
    pub(crate) fn stream_ended(&mut self, now: Instant, why: &str) {
        tracing::debug!(bridge = self.host, why, "the stream of events of a Hue bridge ended");
        if self.stream.ended(now) {
            self.fail(now, why);
        }
        if self.read_all.is_none() {
            self.all_due = self.all_due.min(now);
        }
    }

    /// Whether the stream of events is to be dropped, because it tells nothing any more.
    pub(crate) fn is_deaf(&self, now: Instant) -> bool {
        self.stream.is_deaf(now)
    }

    /// Events came.
    pub(crate) fn handle_events(&mut self, now: Instant, events: Vec<Event>) {
        self.hear(now);
        self.stream.heard(now);
        let applied = self.home.apply(events);
        if applied.is_incomplete {
            self.read_all_soon(now);
        }
        for press in applied.presses {
            self.news.press(&press, &mut self.out);
        }
        self.judge_touched(now, &applied.touched);
        self.tell();
    }

    /// What was asked is answered, or is not.
    pub(crate) fn handle_answer(&mut self, now: Instant, result: Result<Answer, String>) {
        let Some((ask, asked)) = self.asked.take() else { return };
        match result {
            Ok(answer) => self.answered(now, ask, asked, answer),
            Err(why) => self.came_to_nothing(now, &ask, &why),
        }
        self.tell();
    }

    /// The bridge does not know the key.
    pub(crate) fn withdrawn(&mut self, now: Instant) {
        self.refuse(now, format!(
            "the bridge at {} does not know the application key any more: take its part out of the setting \"keys\" and pair again \
             by its button",
            self.host
        ));
    }

    /// The bridge cannot be asked any more before a person does something.
    pub(crate) fn refuse(&mut self, now: Instant, why: String) {
        self.asked = None;
        (self.unanswered, self.failures) = (None, 0);
        self.stream.ended(now);
        self.news.lose(&self.home, &why, &mut self.out);
        let commands = std::mem::take(&mut self.commands);
        for (device, command) in commands {
            self.progress(device, command.id, Stage::Failed { reason: why.clone() });
        }
        self.refused = Some(why);
    }

    /// The bridge is given up.
    pub(crate) fn lose(&mut self, why: &str) {
        self.news.lose(&self.home, why, &mut self.out);
    }

    /// Ends every command that is in flight, because the adapter stops.
    pub(crate) fn shut_down(&mut self) {
        let commands = std::mem::take(&mut self.commands);
        for (device, command) in commands {
            let reason = "the adapter stops".to_owned();
            self.progress(device, command.id, Stage::Failed { reason });
        }
    }

    fn may_ask(&self, now: Instant) -> bool {
        self.asked.is_none()
            && !self.stream.is_opening()
            && self.refused.is_none()
            && self.pace.ready() <= now
    }

    /// What is due first.
    fn next_ask(&self) -> (Instant, Ask) {
        let alive = if self.failures > 0 { self.pace.ready() } else { self.heard + self.poll };
        let mut first = (alive, Ask::Alive);
        let mut offer = |due: Instant, ask: Ask| {
            if due < first.0 {
                first = (due, ask);
            }
        };
        // Without events all that is known is what was read.
        let stale = self.read_all.map(|read| match self.stream.told() {
            Some(told) => told.max(read) + self.poll * SILENT_POLLS,
            None => read + self.poll,
        });
        offer(stale.map_or(self.all_due, |stale| stale.min(self.all_due)), Ask::All);
        for device in &self.refresh {
            offer(self.pace.ready(), self.read_of(device));
        }
        for (device, command) in &self.commands {
            match command.need() {
                Some((due, Need::Put)) => {
                    if let Some((due, ask)) = self.put_of(device, command, due) {
                        offer(due, ask);
                    }
                }
                Some((due, Need::Read)) => offer(due, self.read_of(device)),
                None => {}
            }
        }
        first
    }

    fn put_of(&self, device: &DeviceId, command: &InFlight, due: Instant) -> Option<(Instant, Ask)> {
        let (kind, rid) = self.home.roles().get(device)?.target()?;
        let due = if kind == "grouped_light" { due.max(self.pace.ready_for_group()) } else { due };
        let (path, body) = (format!("{kind}/{rid}"), view::body(&command.wanted));
        Some((due, Ask::Put { device: device.clone(), command: command.id, path, body }))
    }

    /// A group tells no colour, and a housing has many sensors: for those all is read.
    fn read_of(&self, device: &DeviceId) -> Ask {
        match self.home.roles().get(device).map(|role| &role.part) {
            Some(Part::Light(rid) | Part::Plug(rid)) => Ask::Light { path: format!("light/{rid}") },
            _ => Ask::All,
        }
    }

    fn asking(&mut self, now: Instant, ask: &Ask) {
        match ask {
            Ask::Put { device, .. } => {
                let state = self.home.roles().get(device).and_then(|role| self.home.state(role));
                let Some(command) = self.commands.get_mut(device) else { return };
                let (is_first, id) = (command.sending(state.as_ref()), command.id);
                if is_first {
                    self.progress(device.clone(), id, Stage::Sent);
                }
            }
            Ask::All | Ask::Light { .. } => {
                if *ask == Ask::All {
                    self.all_due = now + MOST_BETWEEN_ALL;
                }
                let reads: Vec<_> =
                    self.commands.keys().filter(|id| self.is_read_by(id, ask)).cloned().collect();
                for device in reads {
                    if let Some(command) = self.commands.get_mut(&device)
                        && matches!(command.need(), Some((_, Need::Read)))
                    {
                        command.reading();
                    }
                }
            }
            Ask::Alive => {}
        }
    }

    fn is_read_by(&self, device: &DeviceId, ask: &Ask) -> bool {
        *ask == Ask::All || self.read_of(device) == *ask
    }

    /// All is read soon, but not again and again.
    fn read_all_soon(&mut self, now: Instant) {
        let earliest = self.read_all.map_or(now, |read| read + LEAST_BETWEEN_ALL);
        self.all_due = self.all_due.min(earliest.max(now));
    }

    fn fit(&self, device: &DeviceId, change: &Change) -> Result<Change, String> {
        let role =
            self.home.roles().get(device).ok_or_else(|| format!("the bridge does not list {device}"))?;
        if !self.news.owns(device) {
            return Err(format!("this node does not own {device}"));
        }
        if let Some(why) = &self.refused {
            return Err(why.clone());
        }
        let fit = role.description.capabilities.fit(change).map_err(|error| error.to_string())?;
        Ok(self.home.attainable(role, fit))
    }

    fn tell(&mut self) {
        for device in self.news.tell(&self.home, &self.host, &mut self.out) {
            self.refresh.remove(&device);
            if let Some(command) = self.commands.remove(&device) {
                let reason = format!("the bridge does not list {device} any more");
                self.progress(device, command.id, Stage::Failed { reason });
            }
        }
    }

    fn progress(&mut self, device: DeviceId, command: CommandId, stage: Stage) {
        self.out.push_back(Reading::Progress { device, command, stage });
    }
}
