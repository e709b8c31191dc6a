//! Runs one adapter as its plan says: restarts it when it ends, panics or hangs, and stops it in time.

use std::{any::Any, time::Duration};

use device_adapters::{AdapterError, Context, Directive, Handle, Hint, Reading, Registration};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinHandle},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::stopped;

/// How long an adapter may take to stop; then it is aborted.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// First pause before a restart; each further one doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A run of this length counts as healthy: the next pause is the first again.
const HEALTHY: Duration = Duration::from_secs(60);
/// A directive that nobody takes for so long means that the adapter hangs.
const HANG: Duration = Duration::from_secs(10);
/// How often an adapter is sent a directive that asks for nothing.
const PROBE: Duration = Duration::from_secs(5);
/// Readings and directives that may wait, each.
const QUEUE: usize = 256;

/// Where an adapter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterState {
    /// It runs.
    Running,
    /// It was switched off, here or for the household.
    Off,
    /// Another node runs it: one does at a time.
    Elsewhere,
    /// It does not run before somebody sets something (see the reason).
    Waiting,
    /// It does not run and will not: it is unknown, or its settings are wrong (see the reason).
    Refused,
    /// It ended, panicked or hung, and is started again after a pause.
    Failed,
}

impl AdapterState {
    /// All of them, with what `/metrics` calls them.
    pub const ALL: [(Self, &str); 6] = [
        (Self::Running, "running"),
        (Self::Off, "off"),
        (Self::Elsewhere, "elsewhere"),
        (Self::Waiting, "waiting"),
        (Self::Refused, "refused"),
        (Self::Failed, "failed"),
    ];
}

/// What `hearth doctor` and the status show of an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdapterStatus {
    /// Its id, as in the configuration.
    pub id: String,
    /// Where it stands.
    pub state: AdapterState,
    /// Why it does not run.
    pub reason: Option<String>,
    /// How often it was started again since the node started.
    pub restarts: u32,
}

/// What should become of an adapter.
#[derive(Clone, PartialEq)]
pub(super) enum Plan {
    /// It does not run.
    Rest(AdapterState, String),
    /// It runs with these settings, which may hold secrets. A new round starts it anew.
    Run { settings: serde_json::Value, round: i64 },
}

/// What a supervisor tells the owner of the devices.
#[derive(Debug)]
pub(super) enum Event {
    /// A run begins; directives and hints go here.
    Started(&'static str, mpsc::Sender<Directive>, mpsc::Sender<Hint>),
    /// The adapter says something.
    Reading(&'static str, Box<Reading>),
    /// A run ended, for a reason; the next begins after a pause.
    Ended(&'static str, String, Duration),
    /// It does not run until its plan changes, for a reason.
    Rests(&'static str, AdapterState, String),
}

enum Outcome {
    /// The node stops.
    Stopped,
    /// There is another plan.
    Replanned,
    /// The adapter ended.
    Ended(String),
    /// It waits for other settings.
    Waits(AdapterState, String),
}

/// Does with the adapter what the newest plan says, until `shutdown`. Returns when it has stopped.
pub(super) async fn supervise(
    registration: Registration,
    board: String,
    mut plans: watch::Receiver<Plan>,
    events: mpsc::Sender<Event>,
    mut shutdown: watch::Receiver<bool>,
) {
    let id = registration.descriptor.id;
    let mut pause = FIRST_PAUSE;
    while !*shutdown.borrow() {
        let plan = plans.borrow_and_update().clone();
        let began = Instant::now();
        let outcome = match plan {
            Plan::Rest(state, reason) => Outcome::Waits(state, reason),
            Plan::Run { settings, .. } => match start(&registration, &settings, &board) {
                Ok(run) => one_run(id, run, &events, &mut plans, &mut shutdown).await,
                Err(outcome) => outcome,
            },
        };
        let (event, until) = match outcome {
            Outcome::Stopped => return,
            Outcome::Replanned => {
                pause = FIRST_PAUSE;
                continue;
            }
            Outcome::Waits(state, reason) => (Event::Rests(id, state, reason), None),
            Outcome::Ended(reason) => {
                if began.elapsed() >= HEALTHY {
                    pause = FIRST_PAUSE;
                }
                let jittered = jitter(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
                (Event::Ended(id, reason, jittered), Some(Instant::now() + jittered))
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            changed = plans.changed() => match changed {
                Ok(()) => pause = FIRST_PAUSE,
                Err(_) => return, // nobody is left who plans
            }
        }
    }
}

/// An adapter never outlives its supervisor, however that ends.
struct Task(JoinHandle<Result<(), AdapterError>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Run {
    task: Task,
    readings: mpsc::Receiver<Reading>,
    commands: mpsc::Sender<Directive>,
    hints: mpsc::Sender<Hint>,
    stop: watch::Sender<bool>,
}

fn start(registration: &Registration, settings: &serde_json::Value, board: &str) -> Result<Run, Outcome> {
    let build = || (registration.build)(settings);
    let adapter = std::panic::catch_unwind(std::panic::AssertUnwindSafe(build))
        .map_err(|panic| Outcome::Ended(format!("it panicked while it was made: {}", words(&*panic))))?
        .map_err(|error| Outcome::Waits(AdapterState::Refused, error.to_string()))?;
    let (mut context, handle) = Context::channel(QUEUE, QUEUE);
    context.board = board.to_owned();
    let task = Task(tokio::spawn(async move { adapter.run(context).await }));
    let Handle { readings, commands, hints, stop } = handle;
    Ok(Run { task, readings, commands, hints, stop })
}

async fn one_run(
    id: &'static str,
    mut run: Run,
    events: &mpsc::Sender<Event>,
    plans: &mut watch::Receiver<Plan>,
    shutdown: &mut watch::Receiver<bool>,
) -> Outcome {
    let started = Event::Started(id, run.commands.clone(), run.hints.clone());
    if events.send(started).await.is_err() {
        return Outcome::Stopped;
    }
    let mut check = interval(Duration::from_secs(1));
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut waiting_since, mut probe_at) = (None, Instant::now() + PROBE);
    loop {
        tokio::select! {
            () = stopped(shutdown) => {
                stop(id, run).await;
                return Outcome::Stopped;
            }
            Ok(()) = plans.changed() => {
                stop(id, run).await;
                return Outcome::Replanned;
            }
            Some(reading) = run.readings.recv() => {
                if events.send(Event::Reading(id, Box::new(reading))).await.is_err() {
                    stop(id, run).await;
                    return Outcome::Stopped;
                }
            }
            ended = &mut run.task.0 => {
                while let Ok(reading) = run.readings.try_recv() {
                    let _ = events.send(Event::Reading(id, Box::new(reading))).await; // nobody left to tell
                }
                return why(ended);
            }
            _ = check.tick() => {
                let waits = run.commands.capacity() < run.commands.max_capacity() || run.commands.is_closed();
                waiting_since = waits.then(|| waiting_since.unwrap_or_else(Instant::now));
                if Instant::now() >= probe_at && !waits {
                    probe_at = Instant::now() + PROBE;
                    let _ = run.commands.try_send(Directive::Probe); // a queue that is full says as much
                }
                if waiting_since.is_some_and(|since| since.elapsed() >= HANG) {
                    return Outcome::Ended(format!("it hung: it took no directive for {} s", HANG.as_secs()));
                }
            }
        }
    }
}

/// Stops the run. What it still says is let go: its readings are taken so that it can end.
async fn stop(id: &'static str, mut run: Run) {
    let _ = run.stop.send(true); // gone already
    let drained = async {
        loop {
            tokio::select! {
                _ = &mut run.task.0 => return,
                Some(_) = run.readings.recv() => {}
            }
        }
    };
    if timeout(STOP_WITHIN, drained).await.is_err() {
        tracing::warn!(adapter = id, "the adapter did not stop within 2 s and is aborted");
    }
}

fn why(ended: Result<Result<(), AdapterError>, JoinError>) -> Outcome {
    let reason = match ended {
        Ok(Ok(())) => "it ended by itself".to_owned(),
        Ok(Err(error @ AdapterError::Unconfigured { .. })) => {
            return Outcome::Waits(AdapterState::Waiting, error.to_string());
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => format!("it panicked: {}", words(&*panic)),
            Err(_) => "it was aborted".to_owned(),
        },
    };
    Outcome::Ended(reason)
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    super::convert::clipped(text.unwrap_or("without a message"))
}

/// 80 to 120 % of a pause, so that what failed together does not start together.
fn jitter(pause: Duration) -> Duration {
    let mut random = [128];
    // Without randomness the pause is what it is.
    let _ = SystemRandom::new().fill(&mut random);
    let percent = 80 + u32::from(random[0]) * 40 / 255;
    pause * percent / 100
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::{future::Future, pin::Pin};

    use device_adapters::{Adapter, Descriptor, Scope, SettingsError};
    use serde_json::{Value, json};

    use super::*;

    /// Does what its settings say: `panic`, `error`, `end`, `deaf` (takes no directive), `stubborn`
    /// (does not stop).
    struct Scripted(String);

    impl Adapter for Scripted {
        fn run(
            self: Box<Self>,
            ctx: Context,
        ) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
            Box::pin(async move {
                let mut ctx = ctx; // whole: a field that nobody uses would be dropped
                match self.0.as_str() {
                    "panic" => panic!("no such luck"),
                    "end" => return Ok(()),
                    "unconfigured" => {
                        let what = "set a place".to_owned();
                        return Err(AdapterError::Unconfigured { adapter: "scripted", what });
                    }
                    "deaf" => drop(ctx.shutdown.wait_for(|stop| *stop).await),
                    "stubborn" => std::future::pending().await,
                    _ => {
                        let source = std::io::Error::other("the cable is out");
                        return Err(AdapterError::Io {
                            adapter: "scripted",
                            what: "cannot start".into(),
                            source,
                        });
                    }
                }
                Ok(())
            })
        }
    }

    fn build(settings: &Value) -> Result<Box<dyn Adapter>, SettingsError> {
        match settings.get("do").and_then(Value::as_str) {
            Some("panic early") => panic!("too early"),
            Some(what) => Ok(Box::new(Scripted(what.to_owned()))),
            None => Err(SettingsError::NotAnObject { adapter: "scripted", found: "nothing" }),
        }
    }

    const SCRIPTED: Registration = Registration {
        descriptor: Descriptor {
            id: "scripted",
            name: "Scripted",
            scope: Scope::Household,
            mdns: &[],
            shows_home: false,
            settings_schema: || json!({"type": "object"}),
        },
        build,
    };

    struct Rig {
        plans: watch::Sender<Plan>,
        events: mpsc::Receiver<Event>,
        stop: watch::Sender<bool>,
        task: JoinHandle<()>,
    }

    fn rig(settings: Value) -> Rig {
        let (sender, events) = mpsc::channel(64);
        let (stop, shutdown) = watch::channel(false);
        let (plans, planned) = watch::channel(Plan::Run { settings, round: 0 });
        Rig {
            plans,
            events,
            stop,
            task: tokio::spawn(supervise(SCRIPTED, "board".to_owned(), planned, sender, shutdown)),
        }
    }

    async fn ended(rig: &mut Rig) -> (String, Duration) {
        loop {
            match rig.events.recv().await.expect("the supervisor lives") {
                Event::Ended(_, reason, pause) => return (reason, pause),
                Event::Started(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_is_told_with_its_reason_and_started_again_ever_later() {
        for (what, expected) in [
            ("panic", "no such luck"),
            ("panic early", "too early"),
            ("end", "by itself"),
            ("error", "the cable is out"),
        ] {
            let mut rig = rig(json!({"do": what}));
            let mut last = Duration::ZERO;
            for turn in 0..9 {
                let (reason, pause) = ended(&mut rig).await;
                assert!(reason.contains(expected), "{what}: {reason}");
                let nominal = Duration::from_secs((1 << turn).min(60));
                assert!(pause >= nominal * 79 / 100 && pause <= nominal * 121 / 100, "{what}: {pause:?}");
                last = pause;
            }
            assert!(last >= Duration::from_secs(47));
            rig.stop.send(true).unwrap();
            rig.task.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_no_directive_is_taken_for_hung() {
        let mut rig = rig(json!({"do": "deaf"}));
        let began = Instant::now();
        assert!(ended(&mut rig).await.0.contains("hung"));
        assert!(began.elapsed() <= PROBE + HANG + Duration::from_secs(3), "it took {:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_stop_is_aborted_after_two_seconds() {
        let mut rig = rig(json!({"do": "stubborn"}));
        assert!(matches!(rig.events.recv().await, Some(Event::Started(..))));
        let began = Instant::now();
        rig.stop.send(true).unwrap();
        rig.task.await.unwrap();
        assert!(began.elapsed() >= STOP_WITHIN && began.elapsed() < STOP_WITHIN * 2);
    }

    async fn rests(rig: &mut Rig) -> (AdapterState, String) {
        match rig.events.recv().await {
            Some(Event::Rests(_, state, reason)) => (state, reason),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_settings_leave_it_off_until_they_change() {
        let mut rig = rig(json!({}));
        let (state, reason) = rests(&mut rig).await;
        assert!(state == AdapterState::Refused && reason.contains("must be an object"), "{reason}");
        rig.plans.send(Plan::Run { settings: json!({"do": "deaf"}), round: 0 }).unwrap();
        assert!(matches!(rig.events.recv().await, Some(Event::Started(..))));
        rig.stop.send(true).unwrap();
        rig.task.await.unwrap();
        assert!(rig.events.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn another_plan_stops_a_run_and_starts_the_next_at_once() {
        let mut rig = rig(json!({"do": "deaf"}));
        assert!(matches!(rig.events.recv().await, Some(Event::Started(..))));
        rig.plans.send(Plan::Run { settings: json!({"do": "deaf"}), round: 1 }).unwrap();
        assert!(matches!(rig.events.recv().await, Some(Event::Started(..))), "a new round is a new run");
        rig.plans.send(Plan::Rest(AdapterState::Off, "switched off".to_owned())).unwrap();
        assert_eq!(rests(&mut rig).await, (AdapterState::Off, "switched off".to_owned()));
        rig.plans.send(Plan::Run { settings: json!({"do": "end"}), round: 1 }).unwrap();
        assert!(ended(&mut rig).await.0.contains("by itself"));
        rig.plans.send(Plan::Rest(AdapterState::Off, "off again".to_owned())).unwrap();
        assert_eq!(rests(&mut rig).await.1, "off again", "the pause ends with the plan");
        drop(rig.plans);
        rig.task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_lacks_a_setting_waits_for_it() {
        let mut rig = rig(json!({"do": "unconfigured"}));
        assert!(matches!(rig.events.recv().await, Some(Event::Started(..))));
        let (state, reason) = rests(&mut rig).await;
        assert!(state == AdapterState::Waiting && reason.contains("set a place"), "{reason}");
        rig.stop.send(true).unwrap();
        rig.task.await.unwrap();
    }
}
