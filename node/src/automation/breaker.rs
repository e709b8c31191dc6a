//! A circuit breaker for each device: what keeps failing is left alone by the automations for a while, and then tried with one command
//! before others may follow (half open). So a lamp without power holds up no run for the length of its deadline again and again.
//!
//! It stands between the automations and the owner of the commands. What people and schedules ask goes past it, and its ends count as well:
//! a lamp that does what it is told is not left alone.

use std::{collections::BTreeMap, time::Duration};

use mesh_proto::ObjectId;
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        mpsc, watch,
    },
    time::Instant,
};
use tracing::info;

use crate::api::ports::{Command, CommandRequest, CommandState, CommandsHandle, CommandsRequest, PortError};

/// Commands that fail one after another before a device is left alone.
const IN_A_ROW: u32 = 3;
/// For how long then, at first; twice as long after each try in vain.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// How long after its deadline a command may take to be told to have ended.
const GRACE: Duration = Duration::from_secs(10);
/// Devices of which one command after another failed, at most; the one that failed longest ago is forgotten first.
const MAX_DEVICES: usize = 1_024;

/// A device that is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Circuit {
    pub(crate) device: ObjectId,
    /// Commands that failed one after another.
    pub(crate) failed: u32,
    /// Why the last one did.
    pub(crate) reason: String,
    /// When it is tried again; in the past while it may be tried, or is.
    pub(crate) until: Instant,
}

/// What is known of a device whose last command failed.
#[derive(Debug)]
struct Breaker {
    failed: u32,
    reason: String,
    at: Instant,
    pause: Duration,
    /// Until when it is left alone, once it failed too often.
    until: Option<Instant>,
    /// Until when the command that tries it may take.
    trying: Option<Instant>,
}

/// All of them: pure but for the time that it is given.
#[derive(Debug, Default)]
struct Breakers(BTreeMap<ObjectId, Breaker>);

impl Breakers {
    /// Whether a command may go to a device.
    fn admit(&mut self, device: &ObjectId, takes: Duration, now: Instant) -> Result<(), String> {
        let Some((breaker, until)) =
            self.0.get_mut(device).and_then(|breaker| breaker.until.map(|until| (breaker, until)))
        else {
            return Ok(());
        };
        let said = |how: &str| {
            format!(
                "is left alone: its last {} commands failed, the last one because {}; {how}",
                breaker.failed, breaker.reason
            )
        };
        if now < until {
            return Err(said(&format!("it is tried again in {} s", (until - now).as_secs() + 1)));
        }
        if breaker.trying.is_some_and(|trying| now < trying) {
            return Err(said("it is being tried"));
        }
        breaker.trying = Some(now + takes + GRACE);
        Ok(())
    }

    /// Takes in how a command ended.
    fn ended(&mut self, command: &Command, now: Instant) {
        let device = &command.device;
        match command.state {
            CommandState::Confirmed | CommandState::Assumed => self.works(device),
            CommandState::TimedOut | CommandState::Failed => self.failed(command, now),
            // Another command took over: how that one ends is what counts.
            _ if command.state.is_final() => {
                self.0.get_mut(device).into_iter().for_each(|breaker| breaker.trying = None);
            }
            _ => {}
        }
    }

    fn works(&mut self, device: &ObjectId) {
        if self.0.remove(device).is_some_and(|breaker| breaker.until.is_some()) {
            info!(%device, "does what it is told again: automations command it as ever");
        }
    }

    fn failed(&mut self, command: &Command, now: Instant) {
        let device = &command.device;
        if !self.0.contains_key(device) && self.0.len() >= MAX_DEVICES {
            let oldest = self.0.iter().min_by_key(|(_, breaker)| breaker.at);
            let oldest = oldest.map(|(device, _)| device.clone());
            oldest.and_then(|device| self.0.remove(&device));
        }
        let breaker = self.0.entry(device.clone()).or_insert_with(|| Breaker {
            failed: 0,
            reason: String::new(),
            at: now,
            pause: FIRST_PAUSE,
            until: None,
            trying: None,
        });
        breaker.failed = breaker.failed.saturating_add(1);
        breaker.reason = command.reason.clone().unwrap_or_else(|| "it gave no reason".to_owned());
        breaker.at = now;
        // One that was under way when others failed is no try in vain.
        let was_tried = breaker.trying.take().is_some();
        if breaker.until.is_some() && !was_tried {
            return;
        }
        if was_tried {
            breaker.pause = (breaker.pause * 2).min(LONGEST_PAUSE);
        }
        if breaker.failed >= IN_A_ROW {
            info!(%device, failed = breaker.failed, pause = ?breaker.pause, "is left alone by automations for a while");
            breaker.until = Some(now + breaker.pause);
        }
    }

    fn open(&self) -> Vec<Circuit> {
        let open = |(device, breaker): (&ObjectId, &Breaker)| {
            Some(Circuit {
                device: device.clone(),
                failed: breaker.failed,
                reason: breaker.reason.clone(),
                until: breaker.until?,
            })
        };
        self.0.iter().filter_map(open).collect()
    }
}

/// A way to the commands on which devices that keep failing are left alone, and which those are.
pub(super) fn guard(commands: &CommandsHandle) -> (CommandsHandle, watch::Receiver<Vec<Circuit>>) {
    let (guarded, requests) = commands.fork();
    let (open, circuits) = watch::channel(Vec::new());
    tokio::spawn(stand_between(commands.clone(), commands.life(), requests, open));
    (guarded, circuits)
}

/// Ends when nobody commands any more.
async fn stand_between(
    commands: CommandsHandle,
    mut life: Receiver<Command>,
    mut requests: mpsc::Receiver<CommandsRequest>,
    open: watch::Sender<Vec<Circuit>>,
) {
    let mut breakers = Breakers::default();
    loop {
        tokio::select! {
            biased;
            ended = life.recv() => match ended {
                Ok(command) if command.state.is_final() => {
                    breakers.ended(&command, Instant::now());
                    let now = breakers.open();
                    open.send_if_modified(|open| std::mem::replace(open, now) != *open);
                }
                // What was missed in a flood is seen at the next command.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            request = requests.recv() => match request {
                Some(request) => pass_on(&mut breakers, &commands, request),
                None => return,
            },
        }
    }
}

fn pass_on(breakers: &mut Breakers, commands: &CommandsHandle, request: CommandsRequest) {
    let request = match request {
        CommandsRequest::Submit(request, reply) => {
            if let Err(detail) = breakers.admit(&request.device, takes(&request), Instant::now()) {
                let fix = "`hearth doctor` and `hearth devices` show what is wrong with it".to_owned();
                let detail = format!("{} {detail}", request.device);
                return drop(reply.send(Err(PortError::Failed { detail, fix }))); // whoever asked may be gone
            }
            CommandsRequest::Submit(request, reply)
        }
        other => other,
    };
    commands.forward(request);
}

/// How long a command may take: its deadline comes after its transition.
fn takes(request: &CommandRequest) -> Duration {
    Duration::from_millis(u64::from(request.deadline_ms) + u64::from(request.change.transition_ms))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::api::ports::{By, Change, CommandsPort};

    fn device(name: &str) -> ObjectId {
        ObjectId::new(&format!("device/{name}")).unwrap()
    }

    fn ended(name: &str, state: CommandState) -> Command {
        Command {
            id: "1".to_owned(),
            device: device(name),
            by: None,
            state,
            at_ms: 0,
            deadline_ms: 0,
            reason: Some("no answer".to_owned()),
            life: Vec::new(),
        }
    }

    #[test]
    fn a_device_that_keeps_failing_is_left_alone_and_tried_once_at_a_time() {
        let (mut breakers, start) = (Breakers::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let five = Duration::from_secs(5);
        for second in 0..3 {
            assert_eq!(breakers.admit(&device("a"), five, at(second)), Ok(()));
            breakers.ended(&ended("a", CommandState::TimedOut), at(second));
        }
        let refused = breakers.admit(&device("a"), five, at(3)).unwrap_err();
        assert!(refused.contains("last 3 commands failed") && refused.contains("again in 30 s"), "{refused}");
        assert_eq!(breakers.admit(&device("b"), five, at(3)), Ok(()), "another one is not its fault");
        // Half open: one may try.
        assert_eq!(breakers.admit(&device("a"), five, at(33)), Ok(()));
        assert!(breakers.admit(&device("a"), five, at(33)).unwrap_err().contains("being tried"));
        breakers.ended(&ended("a", CommandState::Failed), at(38));
        assert!(breakers.admit(&device("a"), five, at(97)).is_err(), "twice as long");
        assert_eq!(breakers.admit(&device("a"), five, at(99)), Ok(()));
        breakers.ended(&ended("a", CommandState::Confirmed), at(100));
        assert!(breakers.0.is_empty());
        assert_eq!(breakers.admit(&device("a"), five, at(100)), Ok(()));
    }

    #[test]
    fn a_try_that_nobody_ends_is_over_some_time_after_its_deadline() {
        let (mut breakers, start) = (Breakers::default(), Instant::now());
        (0..3).for_each(|_| breakers.ended(&ended("a", CommandState::Failed), start));
        let later = start + FIRST_PAUSE;
        assert_eq!(breakers.admit(&device("a"), GRACE, later), Ok(()));
        assert!(breakers.admit(&device("a"), GRACE, later + GRACE).is_err());
        assert_eq!(breakers.admit(&device("a"), GRACE, later + GRACE * 2), Ok(()));
        // One that another took over from says nothing.
        breakers.ended(&ended("a", CommandState::Superseded), later + GRACE * 2);
        assert_eq!(breakers.admit(&device("a"), GRACE, later + GRACE * 2), Ok(()));
    }

    #[test]
    fn pauses_end_and_memory_does() {
        let (mut breakers, mut now) = (Breakers::default(), Instant::now());
        for _ in 0..40 {
            now += LONGEST_PAUSE;
            breakers.admit(&device("a"), GRACE, now).unwrap();
            breakers.ended(&ended("a", CommandState::Failed), now);
        }
        assert_eq!(breakers.open()[0].until, now + LONGEST_PAUSE);
        for number in 0..MAX_DEVICES * 2 {
            breakers.ended(&ended(&number.to_string(), CommandState::Failed), now);
        }
        assert_eq!(breakers.0.len(), MAX_DEVICES);
    }

    /// Answers every command as accepted, and tells that it failed; of one with a transition nothing more is heard.
    async fn fail_all(mut port: CommandsPort) {
        while let Some(request) = port.requests.recv().await {
            let CommandsRequest::Submit(request, reply) = request else { continue };
            let name = request.device.name();
            reply.send(Ok(ended(name, CommandState::Accepted))).unwrap();
            if request.change.transition_ms == 0 {
                drop(port.life.send(ended(name, CommandState::Failed)));
            }
        }
    }

    fn request(transition_ms: u32) -> CommandRequest {
        CommandRequest {
            device: device("a"),
            change: Change { press: true, transition_ms, ..Change::default() },
            key: None,
            deadline_ms: 1_000,
            by: By::default(),
        }
    }

    /// The way to commands that all fail, and the guarded one, on which the device is left alone by now.
    async fn left_alone() -> (CommandsHandle, CommandsHandle) {
        let (commands, port) = CommandsHandle::channel();
        tokio::spawn(fail_all(port));
        let (guarded, mut circuits) = guard(&commands);
        for _ in 0..3 {
            guarded.submit(request(0)).await.unwrap();
        }
        circuits.wait_for(|circuits| circuits.len() == 1).await.unwrap();
        (commands, guarded)
    }

    #[tokio::test]
    async fn it_stands_in_the_way_of_automations_and_of_nobody_else() {
        let (commands, guarded) = left_alone().await;
        let refused = guarded.submit(request(0)).await.unwrap_err();
        assert!(refused.to_string().contains("device/a is left alone"), "{refused}");
        commands.submit(request(0)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_fade_is_tried_until_it_is_over() {
        let (_commands, guarded) = left_alone().await;
        tokio::time::advance(FIRST_PAUSE).await;
        guarded.submit(request(60_000)).await.unwrap();
        tokio::time::advance(Duration::from_secs(59)).await;
        let refused = guarded.submit(request(0)).await.unwrap_err();
        assert!(refused.to_string().contains("it is being tried"), "{refused}");
        tokio::time::advance(Duration::from_secs(12)).await;
        guarded.submit(request(0)).await.unwrap();
    }
}
