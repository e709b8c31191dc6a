//! The check of a running adapter against its peer: a device, an emulator, or a fake that speaks the public protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout, timeout_at};

use crate::adapter::{AdapterError, Context, Directive, Handle, Hint, Reading, Registration};
use crate::model::{
    Availability, Capabilities, Change, CommandId, Description, DeviceId, Measurement, Source, Stage, State,
    Tolerance,
};

use super::SHUTDOWN_WITHIN;
use super::rules::{describes, most_in_a_second};

/// How long an adapter may take to find a device, or to hear of one that it owns.
const HEARS_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to tell that a device is gone, with the fastest polls that its settings allow.
const MISSES_WITHIN: Duration = Duration::from_secs(60);
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a command to a device that is gone, or lies, may take.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);
/// How late after its deadline the end of a command may be told.
const LATE: Duration = Duration::from_millis(1_000);
/// Changes of one drag of a slider, and the time between two.
const DRAG: usize = 40;
const DRAG_STEP: Duration = Duration::from_millis(10);

/// What an adapter is checked against.
pub trait Peer: Send {
    /// What announces the device, for an adapter that is given hints.
    fn hints(&self) -> Vec<Hint> {
        Vec::new()
    }

    /// Which of the devices that the adapter finds is the one to check.
    fn device(&self) -> DeviceId;

    /// Changes that the device is able to carry out, each of which differs from the state that the one before leads to, and
    /// the first from the last. None for a device that only measures.
    fn changes(&self) -> Vec<Change>;

    /// Whether the device tells what it was told; without, a command ends as assumed.
    fn reads_back(&self) -> bool {
        true
    }

    /// It stops to answer, as a device whose plug is pulled.
    fn silence(&mut self) -> impl Future<Output = ()> + Send;

    /// It answers again, and as it should.
    fn recover(&mut self) -> impl Future<Output = ()> + Send;

    /// From now on it answers with the wrong message of that number, from 0; false when there are no more.
    fn misbehave(&mut self, number: usize) -> impl Future<Output = bool> + Send;

    /// When each request reached it, polls and commands alike, oldest first.
    fn asked(&self) -> Vec<Instant>;

    /// How many requests it bears in any one second.
    fn most_a_second(&self) -> usize;
}

/// Runs the adapter against its peer, and checks what the node relies on: it finds and describes the device, reports
/// what it owns, confirms commands by what it reads back, ends each exactly once, keeps the pace of the device while
/// somebody drags a slider, tells that a device is gone and that it is back, survives every wrong message, refuses
/// commands for what it does not own, and stops in time.
///
/// # Errors
/// The first rule that is broken, with what was seen.
pub async fn live(registration: &Registration, settings: &Value, peer: &mut impl Peer) -> Result<(), String> {
    let mut rig = Rig::start(registration, settings, peer)?;
    let step = |what: &'static str| move |why: String| format!("{what}: {why}");
    let found = rig.find(peer).await.map_err(step("discovery"))?;
    describes(registration, &found).map_err(step("description"))?;
    rig.hear(&found).await.map_err(step("first report"))?;
    rig.confirm(peer).await.map_err(step("commands"))?;
    rig.drag(peer).await.map_err(step("a slider"))?;
    rig.vanish(peer).await.map_err(step("offline"))?;
    rig.return_to(peer).await.map_err(step("recovery"))?;
    rig.endure(peer).await.map_err(step("wrong messages"))?;
    rig.confirm(peer).await.map_err(step("commands after wrong messages"))?;
    rig.disown(peer).await.map_err(step("a device of another node"))?;
    rig.stop().await.map_err(step("shutdown"))
}

/// An adapter that runs, and all that it said.
struct Rig<'a> {
    registration: &'a Registration,
    settings: Value,
    device: DeviceId,
    handle: Handle,
    run: JoinHandle<Result<(), AdapterError>>,
    /// Of this run.
    seen: Vec<Reading>,
    commands: u128,
    ended: BTreeMap<CommandId, Stage>,
}

impl<'a> Rig<'a> {
    fn start(registration: &'a Registration, settings: &Value, peer: &impl Peer) -> Result<Self, String> {
        let (handle, run) = start(registration, settings)?;
        let settings = settings.clone();
        let device = peer.device();
        Ok(Self {
            registration,
            settings,
            device,
            handle,
            run,
            seen: Vec::new(),
            commands: 0,
            ended: BTreeMap::new(),
        })
    }

    async fn find(&mut self, peer: &impl Peer) -> Result<Description, String> {
        for hint in peer.hints() {
            self.handle.hints.send(hint).await.map_err(|_| "it dropped its hints".to_owned())?;
        }
        let wanted = self.device.clone();
        let is_it = move |reading: &Reading| match reading {
            Reading::Found { device } if device.id == wanted => Some(device.clone()),
            _ => None,
        };
        self.next(HEARS_WITHIN, "the device to be found", is_it).await
    }

    /// Owns the device, and waits for what it shows.
    async fn hear(&mut self, found: &Description) -> Result<(), String> {
        let device = self.device.clone();
        self.direct(Directive::Own { device, owned: true }).await?;
        let has_state = matches!(found.capabilities, Capabilities::Light(_) | Capabilities::Switch);
        if has_state {
            self.next(HEARS_WITHIN, "its state", |reading| {
                matches!(reading, Reading::Reported { .. }).then_some(())
            })
            .await?;
        }
        if !found.sensors.is_empty() {
            let measured = |reading: &Reading| match reading {
                Reading::Measured { values, .. } => Some(values.keys().cloned().collect::<BTreeSet<_>>()),
                _ => None,
            };
            let keys = self.next(HEARS_WITHIN, "its measurements", measured).await?;
            if let Some(key) = keys.iter().find(|key| !found.sensors.contains_key(*key)) {
                return Err(format!("it measured {key:?}, which its description does not name"));
            }
        }
        let is_online = |reading: &Reading| is_available(reading, Availability::Online).then_some(());
        if self.seen.iter().any(|reading| is_online(reading).is_some()) {
            return Ok(());
        }
        self.next(HEARS_WITHIN, "that it is online", is_online).await
    }

    /// Every change, one after the other.
    async fn confirm(&mut self, peer: &impl Peer) -> Result<(), String> {
        for change in peer.changes() {
            let began = self.seen.len();
            let command = self.command(&change, PATIENCE).await?;
            let stage = self.end_of(command, PATIENCE).await?;
            let wanted = if peer.reads_back() { Stage::Confirmed } else { Stage::Assumed };
            if stage != wanted {
                return Err(format!("{change:?} ended as {stage:?} instead of {wanted:?}"));
            }
            if peer.reads_back() {
                let shows = move |reading: &Reading| {
                    let Reading::Reported { state, command: of, source, .. } = reading else { return None };
                    let fits = change.matches(state, &Tolerance::default());
                    (fits && *of == Some(command) && *source == Source::ReadBack).then_some(())
                };
                let is_shown = self.seen.iter().skip(began).any(|reading| shows(reading).is_some());
                if !is_shown {
                    self.next(HEARS_WITHIN, "a report that follows the confirmed command", shows).await?;
                }
            }
        }
        Ok(())
    }

    /// Many changes in a row: the last counts, and the device is asked no faster than it bears.
    async fn drag(&mut self, peer: &impl Peer) -> Result<(), String> {
        let changes = peer.changes();
        if !changes.is_empty() && !matches!(changes.first(), Some(Change::Press)) {
            let mut pace = interval(DRAG_STEP);
            let mut commands = Vec::new();
            for change in changes.iter().cycle().take(DRAG) {
                pace.tick().await;
                commands.push(self.command(change, PATIENCE).await?);
            }
            let last = commands.pop().ok_or("no command was sent")?;
            let stage = self.end_of(last, PATIENCE).await?;
            if !matches!(stage, Stage::Confirmed | Stage::Assumed) {
                return Err(format!("the last change ended as {stage:?}"));
            }
            for command in commands {
                let stage = self.end_of(command, PATIENCE).await?;
                if !matches!(stage, Stage::Superseded | Stage::Confirmed | Stage::Assumed) {
                    return Err(format!("a change on the way ended as {stage:?}"));
                }
            }
        }
        let (most, limit) = (most_in_a_second(&peer.asked()), peer.most_a_second());
        if most > limit {
            return Err(format!("the device was asked {most} times within a second, and bears {limit}"));
        }
        Ok(())
    }

    async fn vanish(&mut self, peer: &mut impl Peer) -> Result<(), String> {
        let began = self.seen.len();
        peer.silence().await;
        if let Some(change) = peer.changes().first() {
            let command = self.command(change, SHORT_PATIENCE).await?;
            let stage = self.end_of(command, SHORT_PATIENCE + LATE).await?;
            if !matches!(stage, Stage::TimedOut { .. } | Stage::Failed { .. }) {
                return Err(format!("a command to a device that does not answer ended as {stage:?}"));
            }
        }
        // What a device told that does nothing else, as a weather service, may be of use while it is silent.
        let (wanted, only_tells) = (self.device.clone(), peer.changes().is_empty());
        let silent = |is| is == Availability::Offline || (only_tells && is == Availability::Stale);
        let is_gone = |reading: &Reading| match reading {
            Reading::Lost { device, reason } if *device == wanted => Some(reason.clone()),
            Reading::Availability { availability: is, reason, .. } if silent(*is) => Some(reason.clone()),
            _ => None,
        };
        // An adapter of which one runs in the household ends with an error, and another board tries.
        let reason = match self.seen.iter().skip(began).find_map(is_gone) {
            Some(reason) => reason,
            None => match self.next(MISSES_WITHIN, "that the device is gone", is_gone).await {
                Ok(reason) => reason,
                Err(why) => self.failure().ok_or(why)?,
            },
        };
        if reason.trim().is_empty() {
            return Err("it does not say why the device is gone".to_owned());
        }
        Ok(())
    }

    async fn return_to(&mut self, peer: &mut impl Peer) -> Result<(), String> {
        peer.recover().await;
        self.until_online(peer).await?;
        self.confirm(peer).await
    }

    /// A fresh run if the last one ended, and a device that is owned and online.
    async fn until_online(&mut self, peer: &impl Peer) -> Result<(), String> {
        let end = Instant::now() + MISSES_WITHIN;
        loop {
            if self.run.is_finished() {
                self.again().await?;
                match self.find(peer).await {
                    Ok(found) => return self.hear(&found).await,
                    Err(why) if Instant::now() >= end => return Err(why),
                    Err(_) if self.run.is_finished() => continue,
                    Err(why) => return Err(why),
                }
            }
            self.direct(Directive::Refresh { device: self.device.clone() }).await?;
            let is_online = |reading: &Reading| {
                let answers = matches!(
                    reading,
                    Reading::Reported { source: Source::ReadBack, .. } | Reading::Measured { .. }
                );
                (answers || is_available(reading, Availability::Online)).then_some(())
            };
            match self.next(MISSES_WITHIN, "that the device is back", is_online).await {
                Ok(()) => return Ok(()),
                Err(why) if !self.run.is_finished() => return Err(why),
                Err(_) => {}
            }
        }
    }

    /// Every wrong message: none may end the adapter with a panic, or leave a command without an end.
    async fn endure(&mut self, peer: &mut impl Peer) -> Result<(), String> {
        let mut number = 0;
        while peer.misbehave(number).await {
            let of = |why: String| format!("message {number}: {why}");
            let asked = peer.asked().len();
            if self.run.is_finished() {
                self.again().await.map_err(of)?;
                for hint in peer.hints() {
                    let _ = self.handle.hints.try_send(hint); // it may have ended again
                }
                let _ = self.direct(Directive::Own { device: self.device.clone(), owned: true }).await;
            }
            let _ = self.direct(Directive::Refresh { device: self.device.clone() }).await;
            if let Some(change) = peer.changes().first()
                && let Ok(command) = self.command(change, SHORT_PATIENCE).await
            {
                match self.end_of(command, SHORT_PATIENCE + LATE).await {
                    Ok(_) => {}
                    Err(_) if self.run.is_finished() => {}
                    Err(why) => return Err(of(why)),
                }
            }
            let mut pace = interval(DRAG_STEP);
            let end = Instant::now() + HEARS_WITHIN;
            while peer.asked().len() == asked && !self.run.is_finished() {
                self.take_in();
                if Instant::now() >= end {
                    return Err(of("the device was not asked any more".to_owned()));
                }
                pace.tick().await;
            }
            number += 1;
        }
        peer.recover().await;
        self.until_online(peer).await
    }

    /// A command for a device that another node owns fails, and touches nothing.
    async fn disown(&mut self, peer: &impl Peer) -> Result<(), String> {
        let device = self.device.clone();
        self.direct(Directive::Own { device, owned: false }).await?;
        let Some(change) = peer.changes().into_iter().next() else { return Ok(()) };
        let command = self.command(&change, PATIENCE).await?;
        match self.end_of(command, SHORT_PATIENCE).await? {
            Stage::Failed { .. } => Ok(()),
            stage => Err(format!("the command ended as {stage:?}")),
        }
    }

    async fn stop(mut self) -> Result<(), String> {
        self.handle.stop.send(true).map_err(|_| "it ended by itself".to_owned())?;
        let run = &mut self.run;
        let readings = &mut self.handle.readings;
        let stopped = async {
            loop {
                tokio::select! {
                    ended = &mut *run => return ended,
                    Some(_) = readings.recv() => {}
                }
            }
        };
        match timeout(SHUTDOWN_WITHIN, stopped).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(other) => Err(format!("it ended with {other:?}")),
            Err(_) => Err(format!("it did not stop within {SHUTDOWN_WITHIN:?}")),
        }
    }

    /// Why the run failed; none while it runs, or if it ended otherwise.
    fn failure(&mut self) -> Option<String> {
        use futures_util::FutureExt as _;
        let ended = (&mut self.run).now_or_never()?;
        // A finished task may be asked once; what stands here until the next run has ended as well.
        self.run = tokio::spawn(async { Ok(()) });
        ended.ok()?.err().map(|error| error.to_string())
    }

    /// Starts it again, as the node does after an error. A panic, or an end without a reason, is a fault.
    async fn again(&mut self) -> Result<(), String> {
        let ended = std::mem::replace(&mut self.run, tokio::spawn(async { Ok(()) })).await;
        match ended {
            Ok(_) => {}
            Err(error) => return Err(format!("it panicked: {error}")),
        }
        (self.handle, self.run) = start(self.registration, &self.settings)?;
        self.seen.clear();
        Ok(())
    }

    async fn direct(&mut self, directive: Directive) -> Result<(), String> {
        let sent = timeout(HEARS_WITHIN, self.handle.commands.send(directive)).await;
        sent.map_err(|_| "it takes no directives".to_owned())?.map_err(|_| "it ended by itself".to_owned())
    }

    async fn command(&mut self, change: &Change, patience: Duration) -> Result<CommandId, String> {
        self.commands += 1;
        let command = CommandId(self.commands.to_be_bytes());
        let deadline = Instant::now() + patience + Duration::from_millis(change.transition_ms().into());
        let (device, change) = (self.device.clone(), change.clone());
        self.direct(Directive::Command { device, command, change, deadline }).await?;
        Ok(command)
    }

    async fn end_of(&mut self, command: CommandId, within: Duration) -> Result<Stage, String> {
        let end = Instant::now() + within + LATE;
        loop {
            if let Some(stage) = self.ended.get(&command) {
                return Ok(stage.clone());
            }
            self.receive(end, "the end of a command").await?;
        }
    }

    /// The first thing that `pick` picks of what it says from now on.
    async fn next<T>(
        &mut self,
        within: Duration,
        what: &str,
        pick: impl Fn(&Reading) -> Option<T>,
    ) -> Result<T, String> {
        let end = Instant::now() + within;
        loop {
            let reading = self.receive(end, what).await?;
            if let Some(picked) = pick(&reading) {
                return Ok(picked);
            }
        }
    }

    async fn receive(&mut self, end: Instant, what: &str) -> Result<Reading, String> {
        match timeout_at(end, self.handle.readings.recv()).await {
            Ok(Some(reading)) => {
                self.note(reading.clone())?;
                Ok(reading)
            }
            Ok(None) => Err(format!("waited for {what}, and it ended by itself")),
            Err(_) => {
                let last: Vec<_> = self.seen.iter().rev().take(8).collect();
                Err(format!("waited for {what} in vain; it said last, newest first: {last:?}"))
            }
        }
    }

    /// What waits to be read, so that the adapter is not held up.
    fn take_in(&mut self) {
        while let Ok(reading) = self.handle.readings.try_recv() {
            let _ = self.note(reading); // a fault in it is found by whoever waits for the command's end
        }
    }

    /// Notes what it said, and what no adapter may say.
    fn note(&mut self, reading: Reading) -> Result<(), String> {
        match &reading {
            Reading::Progress { command, stage, .. } => {
                if let Some(end) = self.ended.get(command) {
                    return Err(format!("command {command} ended as {end:?} and then became {stage:?}"));
                }
                if stage.is_final() {
                    self.ended.insert(*command, stage.clone());
                }
            }
            Reading::Measured { values, .. } => {
                let wrong = |value: &Measurement| matches!(value, Measurement::Number(n) if !n.is_finite());
                if let Some((key, value)) = values.iter().find(|(_, value)| wrong(value)) {
                    return Err(format!("it measured {key} as {value:?}"));
                }
            }
            Reading::Reported { state: State::Button { event, .. }, .. } if event.is_empty() => {
                return Err("it told a press without a name".to_owned());
            }
            _ => {}
        }
        self.seen.push(reading);
        Ok(())
    }
}

fn start(
    registration: &Registration,
    settings: &Value,
) -> Result<(Handle, JoinHandle<Result<(), AdapterError>>), String> {
    let adapter = (registration.build)(settings).map_err(|error| error.to_string())?;
    let (context, handle) = Context::channel(64, 64);
    Ok((handle, tokio::spawn(async move { adapter.run(context).await })))
}

fn is_available(reading: &Reading, wanted: Availability) -> bool {
    matches!(reading, Reading::Availability { availability, .. } if *availability == wanted)
}
