//! Lines of the board that somebody wired: relays, buttons, contacts.
//!
//! Source: Documentation/userspace-api/gpio/chardev.rst of the Linux kernel, version 2 of its interface. This file says
//! what a line is; [`kernel`] opens it, [`input`] decides what edges mean.

mod config;
mod input;
mod kernel;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::adapter::{Adapter, AdapterError, Context, Descriptor, Registration, Scope, SettingsError};
use crate::board::{self, Applied, Event, Fault, Found, Hardware, Listing, Sample};
use crate::model::{
    ButtonCapabilities, Capabilities, Change, Description, DeviceId, Measurement, SensorDescription, Sensors,
    State,
};

use self::config::{Config, LineConfig, Role};
use self::kernel::Kernel;
use self::watch::Watch;

/// The id of the adapter, and the prefix of its device ids.
const ID: &str = "gpio";
/// The one sensor of a line that is a sensor.
const INPUT: &str = "input";
/// Events that wait for the adapter; what comes while it is full is dropped, and the next poll shows the level.
const EVENTS: usize = 256;

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "GPIO lines of the board",
        scope: Scope::Board,
        mdns: &[],
        shows_home: false,
        settings_schema: config::schema,
    },
    build,
};

fn build(settings: &serde_json::Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let config = Config::parse(&REGISTRATION.descriptor, settings)?;
    let lines = Kernel { root: config.root.clone() };
    Ok(Box::new(Gpio { config, lines }))
}

/// Where lines come from: the kernel, or a test.
trait Lines: Send + Sync + 'static {
    /// Takes a line for this program; `runtime` waits for its edges.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn open(&self, line: &LineConfig, runtime: &Handle) -> Result<Arc<dyn Line>, OpenError>;
}

/// Why a line cannot be had, for people.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    /// The board has no such line at present.
    #[error("{0}")]
    Absent(String),
    /// It has one, or may have.
    #[error("{0}")]
    Failed(String),
}

/// An edge of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edge {
    /// When it was, which is before somebody hears of it.
    at: Instant,
    /// The level after it.
    level: bool,
}

/// A line that this program holds. Levels are logical: on is on, whatever the voltage.
trait Line: fmt::Debug + Send + Sync {
    /// The level that it has.
    fn level(&self) -> io::Result<bool>;

    /// Sets the level of an output.
    fn set(&self, on: bool) -> io::Result<()>;

    /// Whether the kernel keeps bounces from us.
    fn is_debounced(&self) -> bool;

    /// The next edge, if there was one by now.
    fn queued(&self) -> io::Result<Option<Edge>>;

    /// The next edge. Safe to cancel.
    fn edge(&self) -> Pin<Box<dyn Future<Output = io::Result<Edge>> + Send + '_>>;
}

struct Gpio<L> {
    config: Config,
    lines: L,
}

impl<L: Lines> Adapter for Gpio<L> {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(async move {
            let Self { config: Config { lines, poll, .. }, lines: source } = *self;
            if lines.is_empty() {
                let what = "set lines to what is wired, such as [{\"name\": \"Pump\", \"line\": \"GPIO17\", \"role\": \"switch\"}]";
                return Err(AdapterError::Unconfigured { adapter: ID, what: what.to_owned() });
            }
            let (event_sender, events) = mpsc::channel(EVENTS);
            let wiring = Wiring {
                source,
                lines,
                board: ctx.board.clone(),
                events: event_sender,
                runtime: Handle::current(),
            };
            board::run(wiring, poll, ctx, events).await
        })
    }
}

/// All lines that are configured.
struct Wiring<L> {
    source: L,
    lines: Vec<LineConfig>,
    board: String,
    events: mpsc::Sender<Event>,
    runtime: Handle,
}

/// A line in use. Let go when the last one who uses it is done.
#[derive(Debug)]
struct Wired {
    line: Arc<dyn Line>,
    role: Role,
    /// Of an input.
    watch: Option<Watch>,
}

impl<L: Lines> Hardware for Wiring<L> {
    type Place = Arc<Wired>;
    const ADAPTER: &'static str = ID;

    fn list(&self, known: &BTreeMap<DeviceId, Arc<Wired>>) -> io::Result<Listing<Arc<Wired>>> {
        let mut listing = Listing::default();
        for config in &self.lines {
            let id = board::board_id(ID, &self.board, &config.name).map_err(io::Error::other)?;
            match self.place(&id, config, known.get(&id)) {
                Ok(place) => {
                    let lane = format!("line {}", config.name);
                    listing.found.push(Found { description: describe(id, config), lane, place });
                }
                Err(error) => {
                    listing.remarks.push(format!("{}: {error}", config.name));
                    if matches!(error, OpenError::Failed(_)) {
                        listing.unsure.insert(id);
                    }
                }
            }
        }
        Ok(listing)
    }

    fn read(&self, wired: &Arc<Wired>, _last: Option<&Sample>) -> Result<Sample, String> {
        let level = wired.watch.as_ref().map_or_else(|| wired.line.level(), Watch::look);
        let level = level.map_err(|error| format!("the line cannot be read: {error}"))?;
        Ok(match wired.role {
            Role::Switch => Sample::state(State::Switch { on: level }),
            Role::Sensor => sensed(level),
            Role::Button => Sample::default(),
        })
    }

    fn apply(&self, wired: &Arc<Wired>, change: &Change, _last: Option<&Sample>) -> Result<Applied, Fault> {
        let Some(on) = change.on().filter(|_| wired.role == Role::Switch) else {
            return Err(Fault::Refused("the line takes on and off".to_owned()));
        };
        let failed =
            |what: &str, error: io::Error| Fault::Failed(format!("the line cannot be {what}: {error}"));
        wired.line.set(on).map_err(|error| failed("set", error))?;
        let level = wired.line.level().map_err(|error| failed("read", error))?;
        Ok(Applied { sample: Sample::state(State::Switch { on: level }), follows: level == on })
    }
}

impl<L: Lines> Wiring<L> {
    /// A line that is held, or taken anew where it cannot be read any more: a chip on USB may have been pulled.
    fn place(
        &self,
        id: &DeviceId,
        config: &LineConfig,
        held: Option<&Arc<Wired>>,
    ) -> Result<Arc<Wired>, OpenError> {
        if let Some(wired) = held
            && let Ok(level) = wired.line.level()
        {
            let is_watched = wired.watch.as_ref().is_none_or(Watch::is_running);
            let again = || self.wire(id, config, Arc::clone(&wired.line), level);
            return Ok(if is_watched { Arc::clone(wired) } else { again() });
        }
        let line = self.source.open(config, &self.runtime)?;
        let level = line.level();
        let level = level.map_err(|error| OpenError::Failed(format!("the line cannot be read: {error}")))?;
        Ok(self.wire(id, config, line, level))
    }

    fn wire(&self, id: &DeviceId, config: &LineConfig, line: Arc<dyn Line>, level: bool) -> Arc<Wired> {
        let watch = (config.role != Role::Switch).then(|| {
            Watch::start(&self.runtime, Arc::clone(&line), config, level, id.clone(), self.events.clone())
        });
        Arc::new(Wired { line, role: config.role, watch })
    }
}

/// What a line that is a sensor shows.
fn sensed(level: bool) -> Sample {
    Sample { state: None, values: BTreeMap::from([(INPUT.to_owned(), Measurement::Truth(level))]) }
}

fn describe(id: DeviceId, config: &LineConfig) -> Description {
    let mut sensors = Sensors::new();
    let (capabilities, model) = match config.role {
        Role::Switch => (Capabilities::Switch, "GPIO output"),
        Role::Button => {
            let events = input::EVENTS.map(str::to_owned).to_vec();
            (Capabilities::Button(ButtonCapabilities { press: false, events }), "GPIO button")
        }
        Role::Sensor => {
            let sensor = SensorDescription::binary(&config.name, config.class.as_deref());
            sensors.insert(INPUT.to_owned(), sensor);
            (Capabilities::Sensor, "GPIO input")
        }
    };
    Description {
        id,
        adapter: ID.to_owned(),
        name: config.name.clone(),
        manufacturer: String::new(),
        model: model.to_owned(),
        firmware: None,
        address: Some(config.place()),
        capabilities,
        sensors,
        note: None,
    }
}
