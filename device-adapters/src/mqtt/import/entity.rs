//! One component as it was announced: what it is, where it tells, and how it is commanded. Pure.
//!
//! Sources: <https://www.home-assistant.io/integrations/switch.mqtt/>, `sensor.mqtt`, `binary_sensor.mqtt`, `button.mqtt`
//! and <https://www.home-assistant.io/integrations/mqtt/#using-availability-topics>.

use std::time::Duration;

use serde_json::{Value, json};

use crate::model::{Change, Measurement, SensorDescription, State, sensor::MOST_SENSOR_TEXT};
use crate::mqtt::template::{MOST_TEXT, Template};
use crate::mqtt::wire::body::Body;
use crate::mqtt::wire::discovery::Announced;
use crate::mqtt::wire::fields::{FieldError, Fields, is_topic};
use crate::mqtt::wire::incoming::Incoming;
use crate::mqtt::wire::light::{Light, Message, Parts};

use super::physical::Physical;

/// The most topics that tell whether a component is there.
const MOST_SOURCES: usize = 8;
/// Digits after the point where nothing is said of them.
const DECIMALS: u8 = 2;
/// Classes of sensors that yield words.
const OF_WORDS: [&str; 4] = ["enum", "timestamp", "date", "uptime"];

/// A component.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entity {
    /// What names it for ever.
    pub(crate) unique: String,
    /// Its own name, if it is not just that of the device.
    pub(crate) name: Option<String>,
    /// What it is.
    pub(crate) kind: Kind,
    /// What tells whether it is there.
    pub(crate) presence: Presence,
    /// The device it is part of.
    pub(crate) physical: Physical,
}

/// What a component is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Light(Box<Light>),
    Switch(Box<Switch>),
    Button(Button),
    Sensor(Box<Sensor>),
}

/// A switch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Switch {
    state: Option<String>,
    value: Option<Template>,
    command: String,
    format: Option<Template>,
    payloads: [String; 2],
    states: [String; 2],
}

/// A button.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Button {
    command: String,
    format: Option<Template>,
    payload: String,
}

/// A sensor, of numbers, words or truth.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sensor {
    state: String,
    value: Option<Template>,
    /// What it is.
    pub(crate) description: SensorDescription,
    /// What stands for true and false, of one of truth.
    truth: Option<[String; 2]>,
    /// After how long without news it is unknown.
    pub(crate) lapses: Option<Duration>,
    /// After how long true becomes false by itself.
    pub(crate) falls: Option<Duration>,
}

/// How topics tell whether a component is there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Presence {
    /// How several are counted.
    pub(crate) mode: Mode,
    /// The topics.
    pub(crate) sources: Vec<Source>,
}

/// How several topics of presence are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All must say so.
    All,
    /// One must say so.
    Any,
    /// The last that was heard counts.
    Latest,
}

/// One topic of presence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source {
    /// The topic.
    pub(crate) topic: String,
    value: Option<Template>,
    there: String,
    gone: String,
}

/// What a message told of a component.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    /// Of a light.
    Light(Parts),
    /// Of a switch.
    Switch(bool),
    /// Of a sensor.
    Measured(Measurement),
}

impl Entity {
    /// Of an announcement; none where it is of a kind that is not imported, or not meant to be used by default.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(announced: &Announced) -> Result<Option<Self>, FieldError> {
        let fields = Fields(&announced.body);
        let category = fields.text("entity_category");
        let is_off = fields.0.get("enabled_by_default") == Some(&Value::Bool(false));
        let is_setting = category.as_deref() == Some("config");
        if is_off || is_setting {
            return Ok(None);
        }
        let diagnostic = category.is_some();
        let kind = match announced.component.as_str() {
            "light" => Kind::Light(Box::new(Light::parse(fields)?)),
            "switch" => Kind::Switch(Box::new(Switch::parse(fields)?)),
            "button" => Kind::Button(Button::parse(fields)?),
            "sensor" | "binary_sensor" => {
                let is_binary = announced.component == "binary_sensor";
                Kind::Sensor(Box::new(Sensor::parse(fields, is_binary, diagnostic, announced.slot.name())?))
            }
            _ => return Ok(None),
        };
        let unique = fields.text("unique_id").unwrap_or_else(|| announced.slot.to_string());
        let physical = Physical::parse(fields, &unique);
        let name = fields.text("name").filter(|name| !name.is_empty() && *name != physical.name);
        Ok(Some(Self { unique, name, kind, presence: Presence::parse(fields)?, physical }))
    }

    /// What a unique id is unique among: the components of one kind, as in Home Assistant.
    pub(crate) fn domain(&self) -> &'static str {
        match &self.kind {
            Kind::Light(_) => "light",
            Kind::Switch(_) => "switch",
            Kind::Button(_) => "button",
            Kind::Sensor(sensor) if sensor.truth.is_some() => "binary_sensor",
            Kind::Sensor(_) => "sensor",
        }
    }

    /// The topics to listen to.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &str> {
        self.presence.topics().chain(self.kind.topics())
    }

    /// Whether it tells its state.
    pub(crate) fn reads_back(&self) -> bool {
        match &self.kind {
            Kind::Light(light) => !light.topics().is_empty(),
            Kind::Switch(switch) => switch.state.is_some(),
            Kind::Sensor(_) => true,
            Kind::Button(_) => false,
        }
    }

    /// What a message at one of its topics tells of it.
    pub(crate) fn told(&self, topic: &str, message: &Incoming) -> Option<Told> {
        match &self.kind {
            Kind::Light(light) => {
                let told = light.told(topic, message);
                (told != Parts::default()).then_some(Told::Light(told))
            }
            Kind::Switch(switch) => switch.told(topic, message).map(Told::Switch),
            Kind::Sensor(sensor) => sensor.told(topic, message).map(Told::Measured),
            Kind::Button(_) => None,
        }
    }

    /// The messages that carry out a change.
    ///
    /// # Errors
    /// Why there are none.
    pub(crate) fn messages(&self, change: &Change, known: &Parts) -> Result<Vec<Message>, String> {
        match (&self.kind, change) {
            (Kind::Light(light), Change::Light(change)) => light.messages(change, known),
            (Kind::Switch(switch), Change::Switch { on }) => Ok(vec![switch.message(*on)?]),
            (Kind::Button(button), Change::Press) => Ok(vec![button.message()?]),
            _ => Err("it is of another kind by now".to_owned()),
        }
    }

    /// The state that such parts make of it.
    pub(crate) fn state(&self, parts: &Parts) -> Option<State> {
        match &self.kind {
            Kind::Light(_) => parts.state().map(State::Light),
            Kind::Switch(_) => parts.on.map(|on| State::Switch { on }),
            Kind::Sensor(_) | Kind::Button(_) => None,
        }
    }

    /// The message by which Zigbee2MQTT is asked for the state of a device: as it is commanded, with `get` for `set`
    /// (<https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html#zigbee2mqtt-friendly-name-get>).
    pub(crate) fn question(&self) -> Option<Message> {
        if self.physical.origin.as_deref() != Some("Zigbee2MQTT") || !self.reads_back() {
            return None;
        }
        let (command, can) = match &self.kind {
            Kind::Light(light) => (light.command()?, Some(&light.can)),
            Kind::Switch(switch) => (switch.command.as_str(), None),
            Kind::Sensor(_) | Kind::Button(_) => return None,
        };
        // …/set, or …/set/KEY for something else than its state.
        let (device, key) = match command.strip_suffix("/set") {
            Some(device) => (device, "state"),
            None => {
                let (set, key) = command.rsplit_once('/')?;
                (set.strip_suffix("/set")?, key)
            }
        };
        let mut asked = Body::of(json!({}));
        asked.set(key, json!(""));
        if can.is_some_and(|can| can.brightness) {
            asked.set("brightness", json!(""));
        }
        if can.is_some_and(|can| can.color_temperature.is_some()) {
            asked.set("color_temp", json!(""));
        }
        if can.is_some_and(|can| can.color.is_some()) {
            asked.set("color", json!({ "x": "", "y": "" }));
        }
        Some(Message { topic: format!("{device}/get"), payload: asked.to_string() })
    }
}

impl Kind {
    /// The topics at which it tells what it shows or measures.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &str> {
        let topics = match self {
            Self::Light(light) => light.topics(),
            Self::Switch(switch) => switch.state.as_deref().into_iter().collect(),
            Self::Sensor(sensor) => vec![sensor.state.as_str()],
            Self::Button(_) => Vec::new(),
        };
        topics.into_iter()
    }

    /// Whether it tells the same as another in the same way, so that what the other told is true of it.
    pub(crate) fn tells_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Light(a), Self::Light(b)) => a.tells_as(b),
            (Self::Switch(a), Self::Switch(b)) => {
                (&a.state, &a.value, &a.states) == (&b.state, &b.value, &b.states)
            }
            (Self::Sensor(a), Self::Sensor(b)) => {
                let kind = |sensor: &Sensor| sensor.description.kind.clone();
                (&a.state, &a.value, &a.truth, kind(a)) == (&b.state, &b.value, &b.truth, kind(b))
            }
            (Self::Button(_), Self::Button(_)) => true,
            _ => false,
        }
    }
}

impl Switch {
    fn parse(fields: Fields<'_>) -> Result<Self, FieldError> {
        let payloads = [fields.text_or("payload_off", "OFF"), fields.text_or("payload_on", "ON")];
        let [off, on] = &payloads;
        let states = [fields.text_or("state_off", off), fields.text_or("state_on", on)];
        Ok(Self {
            state: fields.topic("state_topic")?.filter(|_| !fields.flag("optimistic")),
            value: fields.template("value_template")?,
            command: fields.topic("command_topic")?.ok_or(FieldError::Missing("command_topic"))?,
            format: fields.template("command_template")?,
            payloads,
            states,
        })
    }

    fn told(&self, topic: &str, message: &Incoming) -> Option<bool> {
        self.state.as_deref().filter(|state| *state == topic)?;
        let told = value_of(self.value.as_ref(), message)?;
        let [off, on] = &self.states;
        if told == *on { Some(true) } else { (told == *off).then_some(false) }
    }

    fn message(&self, on: bool) -> Result<Message, String> {
        let [off, yes] = &self.payloads;
        command(&self.command, self.format.as_ref(), if on { yes } else { off })
    }
}

impl Button {
    fn parse(fields: Fields<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            command: fields.topic("command_topic")?.ok_or(FieldError::Missing("command_topic"))?,
            format: fields.template("command_template")?,
            payload: fields.text_or("payload_press", "PRESS"),
        })
    }

    fn message(&self) -> Result<Message, String> {
        command(&self.command, self.format.as_ref(), &self.payload)
    }
}

impl Sensor {
    fn parse(fields: Fields<'_>, is_binary: bool, diagnostic: bool, key: &str) -> Result<Self, FieldError> {
        let seconds = |key: &str| fields.number(key).map(|seconds| Duration::from_secs(seconds.into()));
        let class = fields.text("device_class").map(fit_model);
        let class = class.as_deref().filter(|class| !class.is_empty());
        let name = fields.text("name").unwrap_or_else(|| key.replace('_', " "));
        let unit = fields.text("unit_of_measurement").map(fit_model);
        let is_number = (unit.is_some() || fields.text("state_class").is_some() || class.is_some())
            && !class.is_some_and(|class| OF_WORDS.contains(&class));
        let description = if is_binary {
            SensorDescription::binary(&name, class)
        } else if is_number {
            let decimals = fields.0.get("suggested_display_precision").and_then(Value::as_u64);
            let decimals = decimals.and_then(|decimals| u8::try_from(decimals).ok()).unwrap_or(DECIMALS);
            SensorDescription::numeric(&name, class, unit.as_deref().unwrap_or_default(), decimals)
        } else {
            SensorDescription::text(&name, class)
        };
        let truth = || [fields.text_or("payload_off", "OFF"), fields.text_or("payload_on", "ON")];
        Ok(Self {
            state: fields.topic("state_topic")?.ok_or(FieldError::Missing("state_topic"))?,
            value: fields.template("value_template")?,
            description: if diagnostic { description.diagnostic() } else { description },
            truth: is_binary.then(truth),
            lapses: seconds("expire_after"),
            falls: seconds("off_delay").filter(|_| is_binary),
        })
    }

    fn told(&self, topic: &str, message: &Incoming) -> Option<Measurement> {
        if self.state != topic {
            return None;
        }
        let told = value_of(self.value.as_ref(), message)?;
        if told == "None" {
            return Some(Measurement::Unknown("the device says that it does not know".to_owned()));
        }
        let is_number = matches!(self.description.kind, crate::model::SensorKind::Numeric { .. });
        let measured = match &self.truth {
            Some([_, on]) if told == *on => Measurement::Truth(true),
            Some([off, _]) if told == *off => Measurement::Truth(false),
            Some(_) => Measurement::Unknown(format!("the device sent {:?}", fit_model(told))),
            None if is_number => match told.parse::<f64>() {
                Ok(number) => Measurement::Number(number),
                Err(_) => {
                    Measurement::Unknown(format!("the device sent {:?}, which is no number", fit_model(told)))
                }
            },
            None => Measurement::Text(told),
        };
        Some(self.description.fit(measured))
    }
}

impl Presence {
    /// The topics at which it is told.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.topic.as_str())
    }

    fn parse(fields: Fields<'_>) -> Result<Self, FieldError> {
        let mode = match fields.text("availability_mode").as_deref() {
            Some("all") => Mode::All,
            Some("any") => Mode::Any,
            _ => Mode::Latest,
        };
        let mut sources = Vec::new();
        if let Some(topic) = fields.topic("availability_topic")? {
            sources.push(Source::new(topic, fields.template("availability_template")?, fields));
        }
        let listed: Vec<&Value> = match fields.0.get("availability") {
            Some(Value::Array(listed)) => listed.iter().collect(),
            Some(single @ Value::Object(_)) => vec![single],
            _ => Vec::new(),
        };
        for source in listed.into_iter().filter_map(Value::as_object).take(MOST_SOURCES) {
            let fields = Fields(source);
            let topic = fields.topic("topic")?.ok_or(FieldError::Missing("topic of its availability"))?;
            sources.push(Source::new(topic, fields.template("value_template")?, fields));
        }
        Ok(Self { mode, sources })
    }
}

impl Source {
    fn new(topic: String, value: Option<Template>, fields: Fields<'_>) -> Self {
        let there = fields.text_or("payload_available", "online");
        Self { topic, value, there, gone: fields.text_or("payload_not_available", "offline") }
    }

    /// Whether a message says that it is there; none where it says neither.
    pub(crate) fn told(&self, message: &Incoming) -> Option<bool> {
        let told = value_of(self.value.as_ref(), message)?;
        if told == self.there { Some(true) } else { (told == self.gone).then_some(false) }
    }
}

/// What a message says; none where it says nothing of it.
fn value_of(template: Option<&Template>, message: &Incoming) -> Option<String> {
    let told = match template {
        None => Some(message.text().trim()).filter(|text| text.len() <= MOST_TEXT)?.to_owned(),
        Some(template) => template.of_message(message).ok()?,
    };
    (!told.is_empty()).then_some(told)
}

fn command(topic: &str, format: Option<&Template>, value: &str) -> Result<Message, String> {
    let payload = match format {
        None => value.to_owned(),
        Some(template) => {
            let made = template.of_values(&[("value", &json!(value))]);
            made.map_err(|error| format!("its command template: {error}"))?
        }
    };
    debug_assert!(is_topic(topic));
    Ok(Message { topic: topic.to_owned(), payload })
}

/// As much of a text as the model takes of units, classes and words.
fn fit_model(text: String) -> String {
    let mut fit = text;
    while fit.len() > MOST_SENSOR_TEXT {
        fit.pop();
    }
    fit
}
