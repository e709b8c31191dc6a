//! The settings of the MQTT adapter.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::adapter::{Descriptor, Secret, SettingsError};
use crate::net::Route;
use crate::settings::{Settings, parse_interface};

use super::wire::fields::is_topic;

/// The port of MQTT, and that of MQTT over TLS (IANA).
const PORT: u16 = 1_883;
const TLS_PORT: u16 = 8_883;

/// Most beginnings of topics.
const MOST_EVENTS: usize = 32;

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
    /// Its name or address, without brackets.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
}

/// Settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The broker; none where nobody said so.
    pub(crate) broker: Option<Broker>,
    /// The name to log in with.
    pub(crate) username: Option<String>,
    /// The password to log in with.
    pub(crate) password: Option<Secret>,
    /// A file of the certificates to trust; none trusts those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// What its name at the broker begins with.
    pub(crate) client_id: String,
    /// Below which announcements are.
    pub(crate) discovery_prefix: String,
    /// Below which this home tells its own devices.
    pub(crate) topic_prefix: String,
    /// Whether the devices of this home are shown.
    pub(crate) export: bool,
    /// What the topics of the events begin with that are told.
    pub(crate) events: Vec<String>,
    /// Whether the devices of others are taken in.
    pub(crate) import: bool,
    /// How the broker is reached.
    pub(crate) route: Route,
}

/// The JSON schema of the settings.
pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "broker": {
                "type": "string",
                "description": "The MQTT broker: its name or address, with or without a port, such as 192.168.1.2 or \
                                mqtts://home.example:8883. mqtts:// uses TLS."
            },
            "username": { "type": "string", "description": "The name to log in to the broker with." },
            "password": {
                "type": "string", "writeOnly": true,
                "description": "The password to log in to the broker with."
            },
            "ca": {
                "type": "string",
                "description": "With TLS: the path of a PEM file with the certificates to trust, on each board. Without it \
                                those that the system trusts count."
            },
            "client_id": {
                "type": "string", "default": "hearth",
                "description": "What Hearth's name at the broker begins with; a random part follows."
            },
            "discovery_prefix": {
                "type": "string", "default": "homeassistant",
                "description": "The topic below which devices are announced, as Home Assistant has it."
            },
            "topic_prefix": {
                "type": "string", "default": "hearth",
                "description": "The topic below which Hearth's own devices tell their states and take commands. Two \
                                households at one broker need two."
            },
            "export": {
                "type": "boolean", "default": true,
                "description": "Whether Hearth's devices are announced to Home Assistant."
            },
            "events": {
                "type": "array", "items": { "type": "string" }, "default": [""],
                "description": "What the topics of the events begin with that go to the broker, such as doorbell. All where \
                                nothing is said, none with an empty list; export=false keeps all back."
            },
            "import": {
                "type": "boolean", "default": true,
                "description": "Whether what Zigbee2MQTT, ESPHome and others announce becomes devices of Hearth."
            },
            "interface": {
                "type": "string",
                "description": "The network interface to reach the broker by, such as eth0. Without it the system chooses."
            }
        }
    })
}

impl Config {
    /// Checks the settings and fills in the defaults.
    pub(crate) fn parse(descriptor: &Descriptor, value: &Value) -> Result<Self, SettingsError> {
        let settings = Settings::new(descriptor, value)?;
        let login = |text: &str| (text.len() <= 256 && !text.contains('\0')).then(|| text.to_owned());
        let password = |text: &str| (text.len() <= 1_024).then(|| Some(Secret(text.to_owned())));
        Ok(Self {
            broker: settings.text(
                "broker",
                "HOST, HOST:PORT, mqtt://HOST[:PORT] or mqtts://HOST[:PORT], without a name and a password in it",
                None,
                |text| Broker::parse(text).map(Some),
            )?,
            username: settings.text("username", "a text of at most 256 bytes", None, |text| login(text).map(Some))?,
            password: settings.secret("password", "a text of at most 1,024 bytes", None, password)?,
            ca: settings.text("ca", "the absolute path of a file", None, |text| {
                let path = PathBuf::from(text);
                path.is_absolute().then_some(Some(path))
            })?,
            client_id: settings.text(
                "client_id",
                "1 to 32 of a-z, A-Z, 0-9, '_' and '-'",
                "hearth".to_owned(),
                |text| (text.len() <= 32 && is_plain(text)).then(|| text.to_owned()),
            )?,
            discovery_prefix: settings.text("discovery_prefix", TOPIC_RULE, "homeassistant".to_owned(), prefix)?,
            topic_prefix: settings.text("topic_prefix", TOPIC_RULE, "hearth".to_owned(), prefix)?,
            export: settings.truth("export", true)?,
            events: settings.list(
                "events",
                "the beginning of a topic: at most 40 of a-z, 0-9, '.', '_' and '-', such as doorbell",
                MOST_EVENTS,
                vec![String::new()],
                |text| is_beginning(text).then(|| text.to_owned()),
            )?,
            import: settings.truth("import", true)?,
            route: Route {
                interface: settings.text("interface", "the name of a network interface, such as eth0", None, |text| {
                    parse_interface(text).map(Some)
                })?,
            },
        })
    }
}

const TOPIC_RULE: &str =
    "a topic of at most 64 bytes without '+', '#' and a '/' at its ends, such as homeassistant";

impl Broker {
    fn parse(text: &str) -> Option<Self> {
        let (tls, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("mqtt" | "tcp", rest)) => (false, rest),
            Some(("mqtts" | "ssl", rest)) => (true, rest),
            Some(_) => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let default = if tls { TLS_PORT } else { PORT };
        let (host, port) = match rest.strip_prefix('[') {
            // An IPv6 address stands in brackets where a port may follow (RFC 3986, 3.2.2).
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':').or(port.is_empty().then_some(""))?)
            }
            None if rest.matches(':').count() > 1 => (rest, ""),
            None => rest.split_once(':').unwrap_or((rest, "")),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if !(1..=253).contains(&host.len()) || !host.chars().all(is_host) {
            return None;
        }
        let port = if port.is_empty() { default } else { port.parse().ok().filter(|port| *port > 0)? };
        Some(Self { tls, host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn prefix(text: &str) -> Option<String> {
    let is_fit = is_topic(text) && text.len() <= 64 && !text.starts_with('/') && !text.ends_with('/');
    is_fit.then(|| text.to_owned())
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// Whether an event's topic may begin so.
fn is_beginning(text: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    text.len() <= 40 && text.chars().all(is_fit)
}
