//! The check of a running adapter against its peer.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, interval};

use crate::adapter::{Directive, Reading, Registration};
use crate::model::{Availability, Change, CommandId, Description, DeviceId, Source, Stage, Tolerance};

use super::SHUTDOWN_WITHIN;
use super::ledger::{Ledger, Owed, device_of};
use super::peer::{Ignores, Peer};
use super::rules::{describes, most_in_a_second};
use super::run::{Run, Stop, may_end};

/// How long an adapter may take to find a device, or to hear of one that it owns.
const HEARS_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to tell that a device is gone, with the fastest polls that its settings allow.
const MISSES_WITHIN: Duration = Duration::from_secs(60);
/// How long a device that the node does not own is watched for polls: longer than the time between two in any test.
const WATCHED: Duration = Duration::from_secs(2);
/// How long what was asked just before may be on its way.
const ARRIVES_WITHIN: Duration = Duration::from_millis(500);
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a command to a device that is gone, ignores it, or lies, may take.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);
/// How late after its deadline the end of a command may be told.
const LATE: Duration = Duration::from_millis(1_000);
/// The least changes of one drag of a slider, and the time between two.
const DRAG: usize = 40;
const DRAG_STEP: Duration = Duration::from_millis(10);

/// Runs the adapter against its peer, and checks what the node relies on: it finds and describes the device, leaves it
/// alone until it owns it, reports what it owns, confirms commands by what it reads back and not where the device ignores
/// them, ends each exactly once, keeps the pace of the device at all times, tells that a device is gone and that it is
/// back, survives every wrong message, never ends without a reason, lets go of what it does not own any more, and stops in
/// time.
///
/// # Errors
/// The first rule that is broken, with what was seen.
pub async fn live(registration: &Registration, settings: &Value, peer: &mut impl Peer) -> Result<(), String> {
    let step = |what: &'static str| move |stop: Stop| format!("{what}: {stop}");
    let untouched = peer.touched();
    let mut rig = Rig::start(registration, settings, peer)?;
    let found = rig.find(peer).await.map_err(step("discovery"))?;
    describes(registration, &found).map_err(|why| format!("description: {why}"))?;
    rig.leave_alone(peer, untouched).await.map_err(step("before it is owned"))?;
    rig.hear(&found).await.map_err(step("first report"))?;
    rig.confirm(peer).await.map_err(step("commands"))?;
    rig.drag(peer).await.map_err(step("a slider"))?;
    rig.be_ignored(peer).await.map_err(step("ignored commands"))?;
    rig.vanish(peer).await.map_err(step("offline"))?;
    rig.return_to(peer).await.map_err(step("recovery"))?;
    rig.endure(peer).await.map_err(step("wrong messages"))?;
    rig.confirm(peer).await.map_err(step("commands after wrong messages"))?;
    rig.disown(peer).await.map_err(step("a device of another node"))?;
    rig.stop().await.map_err(step("shutdown"))?;
    rig.keeps_pace(peer).map_err(step("pace"))
}

/// An adapter that runs, and all that it said.
struct Rig<'a> {
    registration: &'a Registration,
    settings: Value,
    device: DeviceId,
    run: Run,
    ledger: Ledger,
    commands: u128,
}

impl<'a> Rig<'a> {
    fn start(registration: &'a Registration, settings: &Value, peer: &impl Peer) -> Result<Self, String> {
        let (run, device) = (Run::start(registration, settings)?, peer.device());
        let (settings, ledger) = (settings.clone(), Ledger::new(device.clone()));
        Ok(Self { registration, settings, device, run, ledger, commands: 0 })
    }

    async fn find(&mut self, peer: &impl Peer) -> Result<Description, Stop> {
        let began = self.ledger.seen.len();
        self.hint(peer).await?;
        let is_it = |reading: &Reading| match reading {
            Reading::Found { device } => Some(device.clone()),
            _ => None,
        };
        self.since(began, HEARS_WITHIN, "the device to be found", is_it).await
    }

    /// What this node does not own is not read, not changed, and nothing is told of it, whatever is asked for.
    async fn leave_alone(&mut self, peer: &impl Peer, touched: usize) -> Result<(), Stop> {
        self.direct(Directive::Refresh { device: self.device.clone() }).await?;
        self.be_refused(peer).await?;
        self.watch(Instant::now() + WATCHED).await?;
        match peer.touched().saturating_sub(touched) {
            0 => Ok(()),
            times => {
                Err(format!("the device was polled or changed {times} times by a node that does not own it")
                    .into())
            }
        }
    }

    /// A command that this node may not carry out fails.
    async fn be_refused(&mut self, peer: &impl Peer) -> Result<(), Stop> {
        let change = peer.changes().into_iter().next().unwrap_or(Change::Press);
        let command = self.command(&change, PATIENCE).await?;
        match self.end_of(command, SHORT_PATIENCE).await? {
            Stage::Failed { .. } => Ok(()),
            stage => Err(format!("a command to a device of another node ended as {stage:?}").into()),
        }
    }

    /// Owns the device, and waits for all that it shows.
    async fn hear(&mut self, found: &Description) -> Result<(), Stop> {
        self.own().await?;
        let end = Instant::now() + HEARS_WITHIN;
        let mut owed = Owed::of(found);
        while let Some(missing) = owed.missing() {
            let reading = self.receive(end, &missing).await?;
            if device_of(&reading) == Some(&self.device) {
                owed.take(&reading);
            }
        }
        Ok(())
    }

    /// Every change, one after the other.
    async fn confirm(&mut self, peer: &impl Peer) -> Result<(), Stop> {
        for change in peer.changes() {
            let began = self.ledger.seen.len();
            let command = self.command(&change, PATIENCE).await?;
            let stage = self.end_of(command, PATIENCE).await?;
            let wanted = if peer.reads_back() { Stage::Confirmed } else { Stage::Assumed };
            if stage != wanted {
                return Err(format!("{change:?} ended as {stage:?} instead of {wanted:?}").into());
            }
            if peer.reads_back() {
                let what = "a report that follows the confirmed command";
                let shows = |reading: &Reading| shows(reading, &change, command).then_some(());
                self.since(began, HEARS_WITHIN, what, shows).await?;
            }
        }
        Ok(())
    }

    /// Many changes in a row: the last counts, and the device is asked no faster than it bears.
    async fn drag(&mut self, peer: &impl Peer) -> Result<(), Stop> {
        let changes = peer.changes();
        if changes.is_empty() || matches!(changes.first(), Some(Change::Press)) {
            return Ok(());
        }
        let mut pace = interval(DRAG_STEP);
        let mut commands = Vec::new();
        // Whole rounds: it ends where the next change is another.
        for change in changes.iter().cycle().take(DRAG.next_multiple_of(changes.len())) {
            pace.tick().await;
            commands.push(self.command(change, PATIENCE).await?);
        }
        let last = commands.pop().ok_or_else(|| "no command was sent".to_owned())?;
        let stage = self.end_of(last, PATIENCE).await?;
        if !matches!(stage, Stage::Confirmed | Stage::Assumed) {
            return Err(format!("the last change ended as {stage:?}").into());
        }
        for command in commands {
            let stage = self.end_of(command, PATIENCE).await?;
            if !matches!(stage, Stage::Superseded | Stage::Confirmed | Stage::Assumed) {
                return Err(format!("a change on the way ended as {stage:?}").into());
            }
        }
        self.keeps_pace(peer)
    }

    /// A command that the device takes and does not carry out is not confirmed.
    async fn be_ignored(&mut self, peer: &mut impl Peer) -> Result<(), Stop> {
        let Some(change) = peer.changes().into_iter().next() else { return Ok(()) };
        match peer.ignore().await {
            Ignores::Commands => {}
            Ignores::Nothing(why) if why.trim().is_empty() => {
                return Err("the peer does not say why it cannot ignore commands".to_owned().into());
            }
            Ignores::Nothing(_) => return Ok(()),
        }
        let command = self.command(&change, SHORT_PATIENCE).await?;
        let stage = self.end_of(command, SHORT_PATIENCE + LATE).await?;
        peer.recover().await;
        match stage {
            Stage::TimedOut { .. } if peer.reads_back() => Ok(()),
            Stage::Assumed if !peer.reads_back() => Ok(()),
            stage => Err(format!("{change:?}, which the device ignored, ended as {stage:?}").into()),
        }
    }

    async fn vanish(&mut self, peer: &mut impl Peer) -> Result<(), Stop> {
        peer.silence().await;
        // An adapter of which one runs in the household ends with an error, and another board tries.
        may_end(self.miss(peer).await)
    }

    /// Tells within its time that the device is gone, and ends a command to it.
    async fn miss(&mut self, peer: &impl Peer) -> Result<(), Stop> {
        let began = self.ledger.seen.len();
        if let Some(change) = peer.changes().first() {
            let command = self.command(change, SHORT_PATIENCE).await?;
            let stage = self.end_of(command, SHORT_PATIENCE + LATE).await?;
            if !matches!(stage, Stage::TimedOut { .. } | Stage::Failed { .. }) {
                return Err(format!("a command to a device that does not answer ended as {stage:?}").into());
            }
        }
        // What a device told that does nothing else, as a weather service, may be of use while it is silent.
        let only_tells = peer.changes().is_empty();
        let is_gone = |reading: &Reading| match reading {
            Reading::Lost { .. } | Reading::Availability { availability: Availability::Offline, .. } => {
                Some(())
            }
            Reading::Availability { availability: Availability::Stale, .. } => only_tells.then_some(()),
            _ => None,
        };
        self.since(began, MISSES_WITHIN, "that the device is gone", is_gone).await
    }

    async fn return_to(&mut self, peer: &mut impl Peer) -> Result<(), Stop> {
        match self.watch(Instant::now()).await {
            Ok(()) if self.ledger.availability == Some(Availability::Online) => {
                return Err("it says that the device is online, which is still silent".to_owned().into());
            }
            step => may_end(step)?,
        }
        peer.recover().await;
        self.until_back(peer).await?;
        self.confirm(peer).await
    }

    /// The device, which answers again, is owned and told online. A run that began before may still end of what was
    /// before; one that began since has nothing to end of.
    async fn until_back(&mut self, peer: &impl Peer) -> Result<(), Stop> {
        match self.back().await {
            Err(Stop::Ended(_)) => {
                self.again(peer)?;
                let found = self.find(peer).await?;
                self.hear(&found).await
            }
            other => other,
        }
    }

    /// It tells something of the device, and told last that it is online. What was read from it does not say so alone:
    /// the node goes by what it is told of availability.
    async fn back(&mut self) -> Result<(), Stop> {
        self.direct(Directive::Refresh { device: self.device.clone() }).await?;
        let end = Instant::now() + MISSES_WITHIN;
        let mut answers = false;
        while !(answers && self.ledger.availability == Some(Availability::Online)) {
            let reading = self.receive(end, "that the device is back").await?;
            answers |= device_of(&reading) == Some(&self.device)
                && matches!(
                    reading,
                    Reading::Reported { source: Source::ReadBack, .. }
                        | Reading::Measured { .. }
                        | Reading::Availability { availability: Availability::Online, .. }
                );
        }
        Ok(())
    }

    /// Every wrong message: none may end the adapter with a panic, or leave a command without an end.
    async fn endure(&mut self, peer: &mut impl Peer) -> Result<(), Stop> {
        let mut number = 0;
        while peer.misbehave(number).await {
            let of = |stop: Stop| Stop::Broken(format!("message {number}: {stop}"));
            match self.bear(peer).await {
                Err(Stop::Ended(_)) => {
                    self.again(peer).map_err(of)?;
                    self.hint(peer).await.map_err(of)?;
                    may_end(self.own().await).map_err(of)?;
                }
                other => other.map_err(of)?,
            }
            number += 1;
        }
        peer.recover().await;
        self.until_back(peer).await
    }

    /// The device is asked on, and a command to it ends, whatever it answers.
    async fn bear(&mut self, peer: &impl Peer) -> Result<(), Stop> {
        let asked = peer.asked().len();
        self.direct(Directive::Refresh { device: self.device.clone() }).await?;
        if let Some(change) = peer.changes().first() {
            let command = self.command(change, SHORT_PATIENCE).await?;
            self.end_of(command, SHORT_PATIENCE + LATE).await?;
        }
        let end = Instant::now() + HEARS_WITHIN;
        while peer.asked().len() == asked {
            if Instant::now() >= end {
                return Err("the device was not asked any more".to_owned().into());
            }
            self.watch(Instant::now() + DRAG_STEP).await?;
        }
        Ok(())
    }

    /// A device that another node owns is let go: a command for it fails, and nothing touches it.
    async fn disown(&mut self, peer: &impl Peer) -> Result<(), Stop> {
        let device = self.device.clone();
        self.direct(Directive::Own { device, owned: false }).await?;
        self.be_refused(peer).await?;
        self.ledger.owned = false;
        self.watch(Instant::now() + ARRIVES_WITHIN).await?;
        self.leave_alone(peer, peer.touched()).await
    }

    async fn stop(&mut self) -> Result<(), Stop> {
        self.run.tell_to_stop();
        let end = Instant::now() + SHUTDOWN_WITHIN;
        loop {
            match self.run.listen(end).await {
                Ok(Some(reading)) => self.ledger.note(reading)?,
                Err(_) => return Err(format!("it did not stop within {SHUTDOWN_WITHIN:?}").into()),
                Ok(None) => break,
            }
        }
        match self.run.outcome(end).await? {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("it ended with an error: {error}").into()),
        }
    }

    /// How fast this run asks; another run has a pace of its own, because the node pauses between two.
    fn keeps_pace(&self, peer: &impl Peer) -> Result<(), Stop> {
        let mut asked = peer.asked();
        asked.retain(|at| *at >= self.run.began);
        let (most, limit) = (most_in_a_second(&asked), peer.most_a_second());
        if most > limit {
            return Err(
                format!("the device was asked {most} times within a second, and bears {limit}").into()
            );
        }
        Ok(())
    }

    /// Starts it again, as the node does after it ended.
    fn again(&mut self, peer: &impl Peer) -> Result<(), Stop> {
        self.keeps_pace(peer)?;
        self.run = Run::start(self.registration, &self.settings)?;
        self.ledger.begin();
        Ok(())
    }

    async fn hint(&mut self, peer: &impl Peer) -> Result<(), Stop> {
        for hint in peer.hints() {
            self.run.hint(hint).await?;
        }
        Ok(())
    }

    async fn own(&mut self) -> Result<(), Stop> {
        self.ledger.owned = true;
        self.direct(Directive::Own { device: self.device.clone(), owned: true }).await
    }

    async fn direct(&mut self, directive: Directive) -> Result<(), Stop> {
        if self.run.direct(directive).await? {
            return Ok(());
        }
        let end = Instant::now() + SHUTDOWN_WITHIN;
        loop {
            self.receive(end, "the end of a run that takes no directives any more").await?;
        }
    }

    async fn command(&mut self, change: &Change, patience: Duration) -> Result<CommandId, Stop> {
        self.commands += 1;
        let command = CommandId(self.commands.to_be_bytes());
        let deadline = Instant::now() + patience + Duration::from_millis(change.transition_ms().into());
        let (device, change, by) = (self.device.clone(), change.clone(), "contract".to_owned());
        self.direct(Directive::Command { device, command, change, by, deadline }).await?;
        Ok(command)
    }

    async fn end_of(&mut self, command: CommandId, within: Duration) -> Result<Stage, Stop> {
        let end = Instant::now() + within + LATE;
        loop {
            if let Some(stage) = self.ledger.end_of(command) {
                return Ok(stage.clone());
            }
            self.receive(end, "the end of a command").await?;
        }
    }

    /// The first thing that `pick` picks of what it said of the device since so many readings, or says yet.
    async fn since<T>(
        &mut self,
        began: usize,
        within: Duration,
        what: &str,
        pick: impl Fn(&Reading) -> Option<T>,
    ) -> Result<T, Stop> {
        let end = Instant::now() + within;
        let mut at = began;
        loop {
            while let Some(reading) = self.ledger.seen.get(at) {
                at += 1;
                if let Some(picked) = pick(reading).filter(|_| device_of(reading) == Some(&self.device)) {
                    return Ok(picked);
                }
            }
            self.receive(end, what).await?;
        }
    }

    async fn receive(&mut self, end: Instant, what: &str) -> Result<Reading, Stop> {
        match self.hear_until(end).await? {
            Some(reading) => Ok(reading),
            None => {
                let last: Vec<_> = self.ledger.seen.iter().rev().take(8).collect();
                Err(format!("waited for {what} in vain; it said last, newest first: {last:?}").into())
            }
        }
    }

    /// Notes all that it says until then.
    async fn watch(&mut self, until: Instant) -> Result<(), Stop> {
        while self.hear_until(until).await?.is_some() {}
        Ok(())
    }

    /// The next thing that it says until then, which is noted.
    async fn hear_until(&mut self, end: Instant) -> Result<Option<Reading>, Stop> {
        match self.run.listen(end).await {
            Ok(Some(reading)) => {
                self.ledger.note(reading.clone())?;
                Ok(Some(reading))
            }
            Err(_) => Ok(None),
            Ok(None) => Err(self.run.end().await),
        }
    }
}

/// Whether it tells what was read back from the device, which shows the change and follows the command.
fn shows(reading: &Reading, change: &Change, command: CommandId) -> bool {
    match reading {
        Reading::Reported { state, command: of, source: Source::ReadBack, .. } => {
            *of == Some(command) && change.matches(state, &Tolerance::default())
        }
        _ => false,
    }
}
