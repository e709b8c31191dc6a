//! The settings that every adapter of boards has.

use std::time::Duration;

use serde_json::{Value, json};

use crate::adapter::SettingsError;
use crate::http::Origin;
use crate::net::Route;
use crate::settings::{Settings, parse_interface};

use super::Timing;

/// The most configured addresses.
const MOST_ADDRESSES: usize = 128;

/// Settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lan {
    /// Boards that are asked whether they announce themselves or not.
    pub(crate) addresses: Vec<Origin>,
    /// How connections are made.
    pub(crate) route: Route,
    /// How often boards are asked.
    pub(crate) timing: Timing,
}

/// The properties of the schema; `boards` is what people call them.
pub(crate) fn properties(boards: &str) -> serde_json::Map<String, Value> {
    let properties = json!({
        "addresses": {
            "type": "array", "items": { "type": "string" }, "default": [],
            "description": format!("{boards} to ask directly, each a host name or an IP address with or without a port (80). \
                                    For networks where multicast does not arrive; others are found by themselves.")
        },
        "interface": {
            "type": "string",
            "description": "The network interface to use, by its name such as wlan0. Without it the system chooses."
        },
        "poll_s": {
            "type": "number", "minimum": 1, "maximum": 3600, "default": 10,
            "description": "Seconds between two polls of a device that this node owns and that tells nothing by itself."
        },
        "discover_s": {
            "type": "number", "minimum": 1, "maximum": 3600, "default": 60,
            "description": "Seconds between two questions to a device whether it is still there."
        }
    });
    properties.as_object().cloned().unwrap_or_default()
}

impl Lan {
    /// Checks the settings and fills in the defaults.
    pub(crate) fn parse(settings: &Settings<'_>) -> Result<Self, SettingsError> {
        let rule =
            "a host name or an IP address with or without a port, such as 192.168.1.20 or 192.168.1.20:8080";
        Ok(Self {
            addresses: settings.list("addresses", rule, MOST_ADDRESSES, Vec::new(), origin)?,
            route: Route {
                interface: settings.text(
                    "interface",
                    "the name of a network interface, such as eth0",
                    None,
                    |text| parse_interface(text).map(Some),
                )?,
            },
            timing: Timing {
                poll: settings.seconds("poll_s", 1.0..=3_600.0, 10.0)?,
                discover: settings.seconds("discover_s", 1.0..=3_600.0, 60.0)?,
            },
        })
    }
}

impl Timing {
    /// How long a board that was found is asked in vain before it is given up.
    pub(super) fn lost(&self) -> Duration {
        self.discover * 3
    }
}

fn origin(text: &str) -> Option<Origin> {
    // An IPv6 address without a port needs no brackets here.
    let bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let host = if bare_v6 { format!("[{text}]") } else { text.to_owned() };
    let (origin, path) = Origin::parse(&format!("http://{host}")).ok()?;
    (path.is_empty() && origin.port != 0 && !text.contains('/')).then_some(origin)
}
