//! The settings of the LIFX adapter.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use serde_json::{Value, json};

use crate::adapter::{Descriptor, SettingsError};
use crate::settings::{Settings, parse_interface};

use super::wire::PORT;

/// The most configured addresses, of each kind.
const MOST_ADDRESSES: usize = 256;
/// The longest cleaning cycle: a day.
const MOST_CLEAN_MINUTES: u64 = 1_440;
/// The most interfaces.
const MOST_INTERFACES: usize = 16;

/// Settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The local address of the socket.
    pub(crate) bind: SocketAddr,
    /// Bulbs, or forwarders to bulbs, that are asked directly.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Where discovery is broadcast to.
    pub(crate) broadcast: Vec<SocketAddr>,
    /// The interfaces to use, by name; none means whichever the system picks.
    pub(crate) interfaces: Vec<String>,
    /// The time between two rounds of discovery, once the first quick ones are over.
    pub(crate) discover: Duration,
    /// The time between two polls of an owned device.
    pub(crate) poll: Duration,
    /// How long a cleaning cycle is; zero is as the bulb is set.
    pub(crate) clean: Duration,
}

/// The JSON schema of the settings.
pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "addresses": {
                "type": "array", "items": { "type": "string" }, "default": [],
                "description": "Bulbs to ask directly, each an IPv4 address with or without a port (56700). For networks \
                                where broadcast does not arrive; bulbs elsewhere are found by broadcast as well."
            },
            "broadcast": {
                "type": "array", "items": { "type": "string" }, "default": ["255.255.255.255:56700"],
                "description": "Where discovery is broadcast to, each an IPv4 address with or without a port. An empty \
                                list asks the configured addresses only; a subnet's own broadcast address picks its interface."
            },
            "bind": {
                "type": "string", "default": "0.0.0.0:0",
                "description": "The local IPv4 address to send from, with or without a port (any free one)."
            },
            "interfaces": {
                "type": "array", "items": { "type": "string" }, "default": [],
                "description": "Network interfaces to use, each by its name such as wlan0; no other is broadcast on or \
                                listened to. An empty list leaves the choice to the system."
            },
            "discover_s": {
                "type": "number", "minimum": 1, "maximum": 3600, "default": 30,
                "description": "Seconds between two rounds of discovery. A bulb silent for three rounds is reported lost."
            },
            "poll_s": {
                "type": "number", "minimum": 0.5, "maximum": 3600, "default": 10,
                "description": "Seconds between two polls of a device that this node owns."
            },
            "clean_minutes": {
                "type": "integer", "minimum": 0, "maximum": 1440, "default": 0,
                "description": "Minutes that a cleaning cycle of a LIFX Clean bulb lasts when it is switched on; 0 is as long \
                                as the bulb itself is set to."
            }
        }
    })
}

impl Config {
    /// Checks the settings and fills in the defaults.
    pub(crate) fn parse(descriptor: &Descriptor, value: &Value) -> Result<Self, SettingsError> {
        let settings = Settings::new(descriptor, value)?;
        let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, PORT).into();
        let rule = "an IPv4 address with or without a port, such as 192.168.1.20 or 192.168.1.20:56700";
        let address = |text: &str| parse_address(text, PORT).filter(|address| address.port() != 0);
        Ok(Self {
            bind: settings.text(
                "bind",
                "an IPv4 address of this machine with or without a port, such as 0.0.0.0",
                SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into(),
                |text| parse_address(text, 0),
            )?,
            addresses: settings.list("addresses", rule, MOST_ADDRESSES, Vec::new(), address)?,
            broadcast: settings.list("broadcast", rule, MOST_ADDRESSES, vec![everyone], address)?,
            interfaces: settings.list(
                "interfaces",
                "the name of a network interface, such as eth0",
                MOST_INTERFACES,
                Vec::new(),
                parse_interface,
            )?,
            discover: settings.seconds("discover_s", 1.0..=3_600.0, 30.0)?,
            poll: settings.seconds("poll_s", 0.5..=3_600.0, 10.0)?,
            clean: Duration::from_secs(60 * settings.integer("clean_minutes", 0..=MOST_CLEAN_MINUTES, 0)?),
        })
    }
}

fn parse_address(text: &str, port: u16) -> Option<SocketAddr> {
    let whole = text.parse::<SocketAddrV4>();
    let address = whole.or_else(|_| text.parse().map(|ip: Ipv4Addr| SocketAddrV4::new(ip, port)));
    address.ok().map(SocketAddr::V4)
}
