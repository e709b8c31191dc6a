//! The adapter of a [`Socket`], and what may be wrong with it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep};

use super::socket::{Answer, Socket};
use crate::adapter::{
    Adapter, AdapterError, Context, Descriptor, Directive, Reading, Registration, Scope, SettingsError,
};
use crate::model::{
    Availability, Capabilities, Change, ColorMode, CommandId, Description, DeviceId, LightState, Measurement,
    SensorDescription, Sensors, Source, Stage, State,
};

/// What is wrong with an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    TrustsAcknowledgements,
    FailsEarly,
    NeverGivesUp,
    GivesUpWithoutWords,
    MeasuresNonsenseWhenWrong,
    EndsTwiceAtItsStop,
    MeasuresNonsenseAtItsEnd,
    ComesBackUntold,
    ComesBackAsAnother,
    ComesBackTooSoon,
    NeverMissesIt,
    MissesItWithoutWords,
    PollsAtOnce,
    RefreshesForAll,
    CommandsForAll,
    TellsAtOnce,
    ObeysAll,
    NeverLetsGo,
    HurriesCommands,
    HurriesInSilence,
    HurriesWhenWrong,
    HurriesToItsEnd,
    ReturnsInSilence,
    EndsInSilenceWithoutWords,
    ReturnsWhenWrong,
    PanicsWhenWrong,
    FallsSilentItself,
    EndsForGood,
    EndsOnceOwned,
    NeverReports,
    NeverMeasures,
    ForgetsASensor,
    NamesNoSensor,
    IsALight,
    StopsLate,
    /// No flaw: it is a matter of the device which comes first.
    MeasuresFirst,
    /// No flaw: so tells one that runs once in a household that its service is gone.
    EndsInSilence,
}

/// Between two looks at what is due.
const TURN: Duration = Duration::from_millis(50);
/// Turns between two polls.
const POLL: u32 = 10;
/// Requests in vain after which it is offline.
const MOST_MISSES: u32 = 3;

pub(super) const PLUG: Registration = Registration {
    descriptor: Descriptor {
        id: "plug",
        name: "Plugs",
        scope: Scope::Household,
        mdns: &[],
        shows_home: false,
        settings_schema: || json!({}),
    },
    build,
};

fn build(_: &Value) -> Result<Box<dyn Adapter>, SettingsError> {
    Ok(Box::new(Plug {
        socket: Socket::of_test(),
        is_found: false,
        owned: false,
        was_owned: false,
        availability: None,
        misses: 0,
        is_confused: false,
        told: None,
        flight: None,
        followed: None,
        last: None,
        out: Vec::new(),
    }))
}

struct Plug {
    socket: Socket,
    is_found: bool,
    owned: bool,
    was_owned: bool,
    availability: Option<Availability>,
    /// Requests in vain, in a row.
    misses: u32,
    /// Whether something wrong was answered.
    is_confused: bool,
    told: Option<(bool, Option<CommandId>)>,
    flight: Option<Flight>,
    followed: Option<CommandId>,
    /// The last command that was given.
    last: Option<CommandId>,
    out: Vec<Reading>,
}

struct Flight {
    id: CommandId,
    on: bool,
    deadline: Instant,
}

impl Adapter for Plug {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(run(*self, ctx))
    }
}

async fn run(mut plug: Plug, ctx: Context) -> Result<(), AdapterError> {
    let Context { readings, mut commands, mut shutdown, .. } = ctx;
    let (mut pace, mut turn) = (interval(TURN), 0_u32);
    let ended = loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break Ok(()),
            directive = commands.recv() => match directive {
                Some(directive) => plug.directive(directive),
                None => break Ok(()),
            },
            _ = pace.tick() => {
                turn += 1;
                plug.turn(turn.is_multiple_of(POLL));
            }
        }
        if let Some(ended) = plug.ends() {
            break ended;
        }
        if plug.has(Flaw::FallsSilentItself) && plug.owned {
            drop((readings, commands));
            return std::future::pending().await;
        }
        for reading in plug.out.drain(..) {
            let _ = readings.send(reading).await;
        }
    };
    plug.last_words(ended.is_ok());
    for reading in plug.out.drain(..) {
        let _ = readings.send(reading).await;
    }
    if plug.has(Flaw::StopsLate) {
        sleep(Duration::from_secs(3)).await;
    }
    ended
}

impl Plug {
    fn has(&self, flaw: Flaw) -> bool {
        self.socket.flaw == Some(flaw)
    }

    /// How the run ends by itself, if it does.
    fn ends(&self) -> Option<Result<(), AdapterError>> {
        let error =
            |what: &str| Some(Err(AdapterError::Unreachable { adapter: "plug", what: what.to_owned() }));
        let is_missing = self.misses >= MOST_MISSES;
        match self.socket.flaw? {
            Flaw::ReturnsInSilence if is_missing => Some(Ok(())),
            Flaw::EndsInSilenceWithoutWords if is_missing => error(" "),
            Flaw::EndsInSilence | Flaw::MeasuresNonsenseAtItsEnd | Flaw::HurriesToItsEnd if is_missing => {
                error("it does not answer")
            }
            Flaw::EndsForGood if self.socket.was_silent() => error("the fuse is gone"),
            Flaw::EndsOnceOwned if self.owned => error("the fuse is gone"),
            Flaw::ReturnsWhenWrong if self.is_confused => Some(Ok(())),
            _ => None,
        }
    }

    /// What is told at the end of a run.
    fn last_words(&mut self, is_stopped: bool) {
        if let Some(command) = self.last.filter(|_| is_stopped && self.has(Flaw::EndsTwiceAtItsStop)) {
            self.progress(command, Stage::Confirmed);
        }
        if !is_stopped && self.has(Flaw::MeasuresNonsenseAtItsEnd) {
            self.measure(f64::NAN);
        }
    }

    fn directive(&mut self, directive: Directive) {
        match directive {
            Directive::Own { owned, .. } => {
                (self.owned, self.was_owned) = (owned, self.was_owned || owned);
                (self.availability, self.told) = (None, None);
                if !owned {
                    self.end(Stage::Failed { reason: "it is of another node".to_owned() });
                }
            }
            Directive::Refresh { .. } if self.owned => {
                self.told = None;
                self.poll();
            }
            Directive::Refresh { .. } if self.has(Flaw::RefreshesForAll) => drop(self.socket.read()),
            Directive::Command { command, change: Change::Switch { on }, deadline, .. } => {
                self.command(Flight { id: command, on, deadline });
            }
            _ => {}
        }
    }

    fn command(&mut self, flight: Flight) {
        self.last = Some(flight.id);
        if !self.owned {
            if self.has(Flaw::CommandsForAll) {
                self.socket.switch(flight.on);
            }
            let reason = "it is of another node".to_owned();
            let stage = if self.has(Flaw::ObeysAll) { Stage::Confirmed } else { Stage::Failed { reason } };
            return self.progress(flight.id, stage);
        }
        self.end(Stage::Superseded);
        self.flight = Some(flight);
        if self.has(Flaw::HurriesCommands) {
            self.tell();
        }
    }

    fn turn(&mut self, is_poll: bool) {
        if !self.is_found && self.socket.identify() {
            self.is_found = true;
            self.out.push(Reading::Found { device: description() });
            if self.has(Flaw::TellsAtOnce) {
                self.report(false);
            }
        }
        let is_greedy = self.has(Flaw::PollsAtOnce) || (self.was_owned && self.has(Flaw::NeverLetsGo));
        if self.flight.is_some() {
            self.tell();
        } else if is_poll && self.owned {
            self.poll();
        } else if is_poll && is_greedy {
            self.socket.read();
        }
        self.expire();
    }

    /// Tells the command, and reads back.
    fn tell(&mut self) {
        let Some(Flight { id, on, .. }) = self.flight else { return };
        if !self.socket.switch(on) {
            return self.missed();
        }
        self.followed = Some(id);
        if self.has(Flaw::TrustsAcknowledgements) {
            self.report(on);
            self.end(Stage::Confirmed);
        } else if self.poll() == Answer::Is(on) {
            self.end(Stage::Confirmed);
        } else if self.has(Flaw::FailsEarly) {
            self.end(Stage::Failed { reason: "it shows something else".to_owned() });
        }
    }

    fn expire(&mut self) {
        let is_over = self.flight.as_ref().is_some_and(|flight| flight.deadline <= Instant::now());
        if is_over && !self.has(Flaw::NeverGivesUp) {
            let reason = if self.has(Flaw::GivesUpWithoutWords) { "" } else { "it shows something else" };
            self.end(Stage::TimedOut { reason: reason.to_owned() });
        }
    }

    /// Reads it, and tells what it shows.
    fn poll(&mut self) -> Answer {
        let answer = self.socket.read();
        match answer {
            Answer::Nothing => self.missed(),
            Answer::Nonsense => self.confused(),
            Answer::Is(on) => self.answers(on),
        }
        answer
    }

    fn missed(&mut self) {
        self.misses += 1;
        if self.has(Flaw::HurriesInSilence) || self.has(Flaw::HurriesToItsEnd) {
            self.hurry();
        }
        if self.misses >= MOST_MISSES && !self.has(Flaw::NeverMissesIt) {
            let reason = if self.has(Flaw::MissesItWithoutWords) { "" } else { "it does not answer" };
            self.available(Availability::Offline, reason);
            if self.has(Flaw::ComesBackTooSoon) {
                self.available(Availability::Online, "it might answer");
            }
        }
    }

    fn confused(&mut self) {
        self.is_confused = true;
        match self.socket.flaw {
            Some(Flaw::MeasuresNonsenseWhenWrong) => self.measure(f64::NAN),
            Some(Flaw::HurriesWhenWrong) => self.hurry(),
            Some(Flaw::PanicsWhenWrong) => panic!("a wrong message"),
            _ => {}
        }
    }

    fn hurry(&self) {
        for _ in 0..100 {
            self.socket.read();
        }
    }

    fn answers(&mut self, on: bool) {
        self.misses = 0;
        match self.socket.flaw.filter(|_| self.availability == Some(Availability::Offline)) {
            Some(Flaw::ComesBackUntold) => {}
            Some(Flaw::ComesBackAsAnother) => {
                let (device, reason) = (DeviceId::new("plug-2").unwrap(), "it answers".to_owned());
                self.out.push(Reading::Availability { device, availability: Availability::Online, reason });
            }
            _ => self.available(Availability::Online, "it answers"),
        }
        let is_news = self.told != Some((on, self.followed));
        if is_news && self.has(Flaw::MeasuresFirst) {
            self.measure(4.0);
            self.report(on);
        } else if is_news {
            self.report(on);
            self.measure(4.0);
        }
    }

    fn available(&mut self, availability: Availability, reason: &str) {
        if self.availability.replace(availability) != Some(availability) {
            let (device, reason) = (self.device(), reason.to_owned());
            self.out.push(Reading::Availability { device, availability, reason });
        }
    }

    fn report(&mut self, on: bool) {
        self.told = Some((on, self.followed));
        let state = match self.socket.flaw {
            Some(Flaw::NeverReports) => return,
            Some(Flaw::IsALight) => State::Light(LightState::plain(on, u16::MAX, ColorMode::None)),
            _ => State::Switch { on },
        };
        let (device, command) = (self.device(), self.followed);
        self.out.push(Reading::Reported { device, state, command, source: Source::ReadBack });
    }

    fn measure(&mut self, power: f64) {
        let keys: &[&str] = match self.socket.flaw {
            Some(Flaw::NeverMeasures) => return,
            Some(Flaw::ForgetsASensor) => &["power"],
            Some(Flaw::NamesNoSensor) => &["power", "voltage", "weight"],
            _ => &["power", "voltage"],
        };
        let values: BTreeMap<_, _> =
            keys.iter().map(|key| ((*key).to_owned(), Measurement::Number(power))).collect();
        self.out.push(Reading::Measured { device: self.device(), values });
    }

    fn end(&mut self, stage: Stage) {
        if let Some(flight) = self.flight.take() {
            self.progress(flight.id, stage);
        }
    }

    fn progress(&mut self, command: CommandId, stage: Stage) {
        self.out.push(Reading::Progress { device: self.device(), command, stage });
    }

    fn device(&self) -> DeviceId {
        description().id
    }
}

fn description() -> Description {
    let sensor = |name: &str, unit| SensorDescription::numeric(name, None, unit, 1);
    Description {
        id: DeviceId::new("plug-1").unwrap(),
        adapter: "plug".to_owned(),
        name: String::new(),
        manufacturer: String::new(),
        model: "A plug in memory".to_owned(),
        firmware: None,
        address: None,
        capabilities: Capabilities::Switch,
        sensors: Sensors::from([
            ("power".to_owned(), sensor("Power", "W")),
            ("voltage".to_owned(), sensor("Voltage", "V")),
        ]),
        note: None,
    }
}
