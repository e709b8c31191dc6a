//! An adapter of one bulb that every node of a test reaches, and that does what the test says.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, MutexGuard},
    time::Duration,
};

use device_adapters::{
    Adapter, AdapterError, Context, Descriptor, Directive, Reading, Registration, Scope, SettingsError,
    model::{
        Availability, Capabilities, Change, ColorMode, CommandId, Description, DeviceId, KelvinRange,
        LightCapabilities, LightChange, LightState, Sensors, Source, Stage, State,
    },
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// What the bulb, or the adapter on the nodes, does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Carries out and reads back.
    Willing,
    /// Acknowledges, and nothing changes.
    Deaf,
    /// Cannot be reached.
    Gone,
    /// The adapter panics at the next command.
    Explosive,
    /// The adapter hangs at the next command: it neither ends nor takes another directive.
    Stuck,
}

/// The bulb itself: one piece of hardware, whoever speaks to it.
pub(crate) struct Bulb {
    state: Mutex<LightState>,
    mood: watch::Sender<Mood>,
    log: Mutex<Vec<(u64, CommandId, LightChange)>>,
    /// Who gave each of these.
    givers: Mutex<Vec<String>>,
    /// Presses, which no bulb can bear twice.
    presses: Mutex<Vec<CommandId>>,
    /// A node that does not reach it.
    pub(crate) shut_to: Mutex<Option<u64>>,
}

static BULBS: LazyLock<Mutex<BTreeMap<String, Arc<Bulb>>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Bulb {
    /// The bulb of that name, dark when it is new.
    pub(crate) fn named(name: &str) -> Arc<Self> {
        let new = || {
            let state = LightState::plain(false, 65_535, ColorMode::Temperature { kelvin: 2700 });
            let (mood, _) = watch::channel(Mood::Willing);
            Arc::new(Self {
                state: Mutex::new(state),
                mood,
                log: Mutex::default(),
                givers: Mutex::default(),
                presses: Mutex::default(),
                shut_to: Mutex::default(),
            })
        };
        lock(&BULBS).entry(name.to_owned()).or_insert_with(new).clone()
    }

    pub(crate) fn state(&self) -> LightState {
        lock(&self.state).clone()
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// The presses that it got, in order.
    pub(crate) fn presses(&self) -> Vec<CommandId> {
        lock(&self.presses).clone()
    }

    /// Which node was told what, in order.
    pub(crate) fn log(&self) -> Vec<(u64, CommandId, LightChange)> {
        lock(&self.log).clone()
    }

    /// Who gave what it was told, in order.
    pub(crate) fn givers(&self) -> Vec<String> {
        lock(&self.givers).clone()
    }

    fn apply(&self, change: &LightChange) -> LightState {
        let mut state = lock(&self.state);
        state.on = change.on.unwrap_or(state.on);
        state.brightness = change.brightness.unwrap_or(state.brightness);
        state.color = change.color.unwrap_or(state.color);
        state.clone()
    }
}

pub(crate) static REGISTRY: [Registration; 1] = [Registration {
    descriptor: Descriptor {
        id: "bulb",
        name: "Scripted bulb",
        scope: Scope::Household,
        mdns: &[],
        shows_home: false,
        settings_schema: || json!({"type": "object"}),
    },
    build,
}];

/// The same bulb behind a service that one node at a time may use, with a password.
pub(crate) static SINGLE: [Registration; 1] = [Registration {
    descriptor: Descriptor {
        id: "single",
        name: "Scripted bridge",
        scope: Scope::Single,
        mdns: &[],
        shows_home: false,
        settings_schema: || {
            json!({"type": "object", "additionalProperties": false, "properties": {
                "bulb": {"type": "string", "description": "Name of the bulb."},
                "node": {"type": "integer", "description": "Who runs it."},
                "password": {"type": "string", "writeOnly": true, "description": "What the bulb wants to hear."}
            }})
        },
    },
    build: build_single,
}];

/// The password that the bridge takes.
pub(crate) const PASSWORD: &str = "correct horse";

fn build_single(settings: &Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let wrong = |key: &str, rule: &str| SettingsError::Invalid {
        adapter: "single",
        key: key.to_owned(),
        value: settings[key].to_string(),
        rule: rule.to_owned(),
    };
    let node = settings["node"].as_u64().ok_or_else(|| wrong("node", "a number"))?;
    let name = match &settings["bulb"] {
        Value::Null => String::new(),
        Value::String(name) => name.clone(),
        _ => return Err(wrong("bulb", "a name")),
    };
    let is_let_in = settings["password"] == PASSWORD;
    Ok(Box::new(Bridge { driver: Driver { adapter: "single", name, node }, is_let_in }))
}

/// The driver behind a door.
struct Bridge {
    driver: Driver,
    is_let_in: bool,
}

impl Adapter for Bridge {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(async move {
            let adapter = "single";
            if self.driver.name.is_empty() {
                return Err(AdapterError::Unconfigured { adapter, what: "set the bulb".to_owned() });
            }
            if !self.is_let_in {
                return Err(AdapterError::Refused { adapter, what: "the password is wrong".to_owned() });
            }
            let bulb = Bulb::named(&self.driver.name);
            if *bulb.shut_to.lock().unwrap() == Some(self.driver.node) {
                return Err(AdapterError::Unreachable { adapter, what: "no route to the bridge".to_owned() });
            }
            self.driver.drive(ctx).await;
            Ok(())
        })
    }
}

fn build(settings: &Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let (Some(name), Some(node)) = (settings["bulb"].as_str(), settings["node"].as_u64()) else {
        let (key, value) = ("bulb".to_owned(), settings.to_string());
        return Err(SettingsError::Invalid { adapter: "bulb", key, value, rule: "a name".to_owned() });
    };
    Ok(Box::new(Driver { adapter: "bulb", name: name.to_owned(), node }))
}

struct Driver {
    adapter: &'static str,
    name: String,
    node: u64,
}

struct InFlight {
    command: CommandId,
    wanted: LightChange,
    deadline: Instant,
}

impl Adapter for Driver {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(async move {
            self.drive(ctx).await;
            Ok(())
        })
    }
}

impl Driver {
    fn id(&self) -> DeviceId {
        DeviceId::new(format!("{}-{}", self.adapter, self.name)).unwrap()
    }

    fn found(&self) -> Reading {
        let can = LightCapabilities {
            brightness: true,
            color_temperature: Some(KelvinRange { min_k: 2000, max_k: 6500 }),
            color: None,
            transition: true,
            ..LightCapabilities::default()
        };
        let device = Description {
            id: self.id(),
            adapter: self.adapter.to_owned(),
            name: "desk".to_owned(),
            manufacturer: "Acme".to_owned(),
            model: "One".to_owned(),
            firmware: None,
            address: None,
            capabilities: Capabilities::Light(can),
            sensors: Sensors::new(),
            note: None,
        };
        Reading::Found { device }
    }

    async fn drive(&self, ctx: Context) {
        let Context { readings, mut commands, mut shutdown, .. } = ctx;
        let bulb = Bulb::named(&self.name);
        let mut mood = bulb.mood.subscribe();
        let (mut owned, mut flight, mut followed) = (false, None::<InFlight>, None);
        let mut was_gone = true;
        let far = Duration::from_secs(3_600);
        loop {
            let gone = *mood.borrow_and_update() == Mood::Gone;
            if gone != was_gone {
                was_gone = gone;
                let reason = "no answer".to_owned();
                let reading = if gone { Reading::Lost { device: self.id(), reason } } else { self.found() };
                let _ = readings.send(reading).await;
            }
            if owned && !gone {
                self.report(&readings, &bulb, followed).await;
            }
            let deadline = flight.as_ref().map_or_else(|| Instant::now() + far, |flight| flight.deadline);
            tokio::select! {
                () = async { drop(shutdown.wait_for(|stop| *stop).await) } => return,
                _ = mood.changed() => {}
                () = tokio::time::sleep_until(deadline) => {
                    if let Some(flight) = flight.take() {
                        let reason = "it does not show what was asked for".to_owned();
                        self.say(&readings, flight.command, Stage::TimedOut { reason }).await;
                    }
                }
                directive = commands.recv() => match directive {
                    None => return,
                    Some(Directive::Own { owned: now, .. }) => {
                        owned = now;
                        if let Some(flight) = flight.take_if(|_| !now) {
                            let reason = "not owned any more".to_owned();
                            self.say(&readings, flight.command, Stage::Failed { reason }).await;
                        }
                    }
                    Some(Directive::Command { command, change: Change::Light(change), by, deadline, .. }) => {
                        // Whoever sees the command here may change its mood for the next one.
                        let now = *mood.borrow();
                        lock(&bulb.givers).push(by);
                        lock(&bulb.log).push((self.node, command, change.clone()));
                        assert!(now != Mood::Explosive, "the bulb exploded");
                        if now == Mood::Stuck {
                            return std::future::pending().await;
                        }
                        let before = flight.take();
                        let wanted = match &before {
                            Some(before) => before.wanted.then(&change),
                            None => change,
                        };
                        if let Some(before) = before {
                            self.say(&readings, before.command, Stage::Superseded).await;
                        }
                        self.say(&readings, command, Stage::Sent).await;
                        self.say(&readings, command, Stage::Acknowledged).await;
                        if now == Mood::Willing {
                            bulb.apply(&wanted);
                            followed = Some(command);
                            self.report(&readings, &bulb, followed).await;
                            self.say(&readings, command, Stage::Confirmed).await;
                        } else {
                            flight = Some(InFlight { command, wanted, deadline });
                        }
                    }
                    Some(Directive::Command { command, change: Change::Press, .. }) => {
                        lock(&bulb.presses).push(command);
                        self.say(&readings, command, Stage::Assumed).await;
                    }
                    Some(_) => {}
                }
            }
        }
    }

    async fn report(&self, readings: &mpsc::Sender<Reading>, bulb: &Bulb, command: Option<CommandId>) {
        let (device, availability) = (self.id(), Availability::Online);
        let online = Reading::Availability { device, availability, reason: "the bulb answers".to_owned() };
        let _ = readings.send(online).await;
        let (device, state, source) = (self.id(), State::Light(bulb.state()), Source::ReadBack);
        let _ = readings.send(Reading::Reported { device, state, command, source }).await;
    }

    async fn say(&self, readings: &mpsc::Sender<Reading>, command: CommandId, stage: Stage) {
        let _ = readings.send(Reading::Progress { device: self.id(), command, stage }).await;
    }
}
