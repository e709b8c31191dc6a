//! The settings of the Hue adapter.

use std::time::Duration;

use serde_json::{Value, json};

use crate::adapter::{Descriptor, SettingsError};
use crate::http::Origin;
use crate::settings::{Settings, parse_interface};

use super::keys::{Keyring, MOST_BRIDGES, RULE};

/// What a bridge's list of apps shows of a name (<https://developers.meethue.com/develop/hue-api/7-configuration-api/>).
const MOST_NAME: usize = 19;

/// Settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Bridges that are asked directly.
    pub(crate) addresses: Vec<Origin>,
    /// The keys of bridges.
    pub(crate) keys: Keyring,
    /// What a bridge calls this home in its list of apps.
    pub(crate) name: String,
    /// The time after which a bridge that says nothing is asked whether it is there.
    pub(crate) poll: Duration,
    /// The interface to use, by name.
    pub(crate) interface: Option<String>,
}

/// The JSON schema of the settings.
pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "addresses": {
                "type": "array", "items": { "type": "string" }, "default": [],
                "description": "Bridges to ask directly, each a name or an IP address with or without a port (443). For networks \
                                where DNS-SD does not arrive; bridges elsewhere are found by it as well."
            },
            "keys": {
                "type": "string", "writeOnly": true, "default": "",
                "description": "The application keys of the bridges, each as BRIDGEID=KEY@PIN, with spaces between several. Pairing \
                                fills it in. @PIN is the SHA-256 of the bridge's public key in hexadecimal; without it the \
                                first bridge of that id that answers is believed, and its pin is added. To pair a bridge \
                                anew, take its part out and press its button."
            },
            "name": {
                "type": "string", "default": "home", "maxLength": MOST_NAME,
                "description": "What a bridge calls this home in its list of apps, after \"hearth#\"."
            },
            "poll_s": {
                "type": "number", "minimum": 1, "maximum": 3600, "default": 20,
                "description": "Seconds without a word after which a bridge is asked whether it is still there. What its devices \
                                do is told by the bridge at once; after six times as long without that, all is read."
            },
            "interface": {
                "type": "string",
                "description": "The network interface to use, by its name such as eth0. Without it the system chooses."
            }
        }
    })
}

impl Config {
    /// Checks the settings and fills in the defaults.
    pub(crate) fn parse(descriptor: &Descriptor, value: &Value) -> Result<Self, SettingsError> {
        let settings = Settings::new(descriptor, value)?;
        Ok(Self {
            addresses: settings.list(
                "addresses",
                "a name or an IP address with or without a port, such as 192.168.1.7 or 192.168.1.7:443",
                MOST_BRIDGES,
                Vec::new(),
                parse_address,
            )?,
            keys: parse_keys(descriptor, value)?,
            name: settings.text(
                "name",
                "1 to 19 letters, digits, spaces, '-' and '_'",
                "home".to_owned(),
                parse_name,
            )?,
            poll: settings.seconds("poll_s", 1.0..=3_600.0, 20.0)?,
            interface: settings.text(
                "interface",
                "the name of a network interface, such as eth0",
                None,
                |text| parse_interface(text).map(Some),
            )?,
        })
    }
}

/// Not by [`Settings::text`], whose error would show the value.
fn parse_keys(descriptor: &Descriptor, value: &Value) -> Result<Keyring, SettingsError> {
    let Some(keys) = value.get("keys") else { return Ok(Keyring::default()) };
    keys.as_str().and_then(Keyring::parse).ok_or_else(|| SettingsError::Invalid {
        adapter: descriptor.id,
        key: "keys".to_owned(),
        value: "a secret that is not shown".to_owned(),
        rule: RULE.to_owned(),
    })
}

fn parse_address(text: &str) -> Option<Origin> {
    // An IPv6 address may come without the brackets that a URL wants.
    let bare = text.parse::<std::net::Ipv6Addr>().map(|ip| format!("[{ip}]"));
    let (origin, path) =
        Origin::parse(&format!("https://{}", bare.unwrap_or_else(|_| text.to_owned()))).ok()?;
    (path.is_empty() && origin.port != 0 && text.len() <= 255).then_some(origin)
}

fn parse_name(text: &str) -> Option<String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_');
    ((1..=MOST_NAME).contains(&text.len()) && text.chars().all(is_fit)).then(|| text.to_owned())
}
