//! What schedules and automations are tested with: a time of day that a test says, and an owner of commands that does as it is told.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    api::ports::{Command, CommandRequest, CommandState, CommandsPort, CommandsRequest},
    service::HouseholdTime,
};

/// The household's time of day: what a test says, and it goes on from there.
#[derive(Clone)]
pub(super) struct Day {
    said: Arc<Mutex<(Timestamp, Instant)>>,
    time: Arc<watch::Sender<HouseholdTime>>,
}

impl Day {
    pub(super) fn begin(time: &str) -> Self {
        let said = (at(time), Instant::now());
        let (sender, _) = watch::channel(time_since(said));
        let day = Self { said: Arc::new(Mutex::new(said)), time: Arc::new(sender) };
        tokio::spawn(day.clone().go_on());
        day
    }

    /// It becomes that.
    pub(super) fn set(&self, time: Timestamp, trusted: bool) {
        let said = (time, Instant::now());
        *self.said.lock().unwrap() = said;
        self.time.send_replace(HouseholdTime { trusted, ..time_since(said) });
    }

    pub(super) fn now(&self) -> Timestamp {
        passed(*self.said.lock().unwrap())
    }

    pub(super) fn watch(&self) -> watch::Receiver<HouseholdTime> {
        self.time.subscribe()
    }

    /// Without a word, as clocks do.
    async fn go_on(self) {
        loop {
            sleep(Duration::from_millis(50)).await;
            let now = time_since(*self.said.lock().unwrap());
            self.time.send_if_modified(|time| {
                time.ahead_ms = now.ahead_ms;
                false
            });
        }
    }
}

fn passed((at, since): (Timestamp, Instant)) -> Timestamp {
    at + SignedDuration::try_from(since.elapsed()).unwrap()
}

fn time_since(said: (Timestamp, Instant)) -> HouseholdTime {
    let ahead_ms = passed(said).as_millisecond() - Timestamp::now().as_millisecond();
    HouseholdTime { ahead_ms, trusted: true }
}

/// A time of the day of all tests.
pub(super) fn at(time: &str) -> Timestamp {
    format!("2026-06-01T{time}Z").parse().unwrap()
}

/// What the owner of commands leaves as it is, until it is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Nothing,
    Everything,
    /// The commands of the device of that name.
    Device(&'static str),
}

impl Holds {
    fn takes(self, command: &Command) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Device(name) => command.device.name() == name,
        }
    }
}

/// The owner of commands: it shows each to a test, and confirms it unless it holds it; those of `device/bad` fail.
pub(super) async fn own<F: Future<Output = ()> + Send>(
    mut port: CommandsPort,
    mut holds: watch::Receiver<Holds>,
    show: impl Fn(CommandRequest) -> F + Send,
) {
    let mut commands: BTreeMap<String, Command> = BTreeMap::new();
    loop {
        tokio::select! {
            request = port.requests.recv() => match request {
                None => return,
                Some(CommandsRequest::Get(id, reply)) => drop(reply.send(Ok(commands.get(&id).cloned()))),
                Some(CommandsRequest::Submit(request, reply)) => {
                    show(request.clone()).await;
                    let command = taken(request);
                    commands.insert(command.id.clone(), command.clone());
                    drop(reply.send(Ok(command)));
                }
            },
            Ok(()) = holds.changed() => {}
        }
        let held = *holds.borrow();
        let is_free = |command: &Command| !command.state.is_final() && !held.takes(command);
        for command in commands.values_mut().filter(|command| is_free(command)) {
            command.state = CommandState::Confirmed;
            let _ = port.life.send(command.clone());
        }
    }
}

fn taken(request: CommandRequest) -> Command {
    let fails = request.device.name() == "bad";
    Command {
        id: request.key.unwrap(),
        device: request.device,
        by: Some(request.by.who),
        state: if fails { CommandState::Failed } else { CommandState::Accepted },
        at_ms: 0,
        deadline_ms: u64::from(request.deadline_ms) + u64::from(request.change.transition_ms),
        reason: fails.then(|| "it is broken".to_owned()),
        life: Vec::new(),
    }
}
