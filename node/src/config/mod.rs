//! What the daemon is told before it starts: flags, `HEARTH_*` variables, a TOML file, defaults,
//! in this order. Whatever may change while it runs is an object, not a setting.
//!
//! | key | variable | flag of `hearth run` | default |
//! | --- | --- | --- | --- |
//! | `name` | `HEARTH_NAME` | `--name` | the host name |
//! | `listen` | `HEARTH_LISTEN` | `--listen` | `0.0.0.0:7843`, UDP and TCP |
//! | `state_dir` | `HEARTH_STATE_DIR` | `--state-dir` | see [`place`] |
//! | `advertise` | `HEARTH_ADVERTISE` (commas) | | what the interfaces have |
//! | `peers` | `HEARTH_PEERS` (commas) | | none |
//! | `quic_retry` | `HEARTH_QUIC_RETRY` | | `5m` |
//! | `log` | `HEARTH_LOG` | `--log` | `info` |
//! | `clock` | `HEARTH_CLOCK` | | `ask` |
//! | `discovery.mdns` | `HEARTH_DISCOVERY_MDNS` | `--mdns` | `true` |
//! | `discovery.interfaces` | `HEARTH_DISCOVERY_INTERFACES` (commas) | `--interfaces` | all |
//! | `history.enabled` | `HEARTH_HISTORY_ENABLED` | | `true` |
//! | `history.megabytes` | `HEARTH_HISTORY_MEGABYTES` | | `12` |
//! | `tls.domains` | `HEARTH_TLS_DOMAINS` (commas) | | none: no public certificate |
//! | `tls.contact`, `tls.directory`, `tls.directory_root`, `tls.profile`, `tls.challenge`, `tls.http` | `HEARTH_TLS_…` | | see [`TlsConfig`] |
//! | `tls.dns.…` | | | see [`DnsConfig`] |
//! | `api.unix_group` | `HEARTH_API_UNIX_GROUP` | | `hearth` |
//! | `api.hosts` | `HEARTH_API_HOSTS` (commas) | | none |
//! | `api.origins` | `HEARTH_API_ORIGINS` (commas) | | none |
//! | `api.proxies` | `HEARTH_API_PROXIES` (commas) | | none |
//! | `adapters.ID.…` | | | the adapter's own |
//! | | `HEARTH_CONFIG` | `--config` | see [`place`] |
//! | | `HEARTH_JOIN` | `--join` | none; a secret, so never in the file |
//!
//! Port 7843 is Hearth's own choice, so that it collides with no service a home is likely to
//! run; one number serves the mesh over QUIC (UDP), the mesh where UDP is blocked and the API (TCP), so
//! one firewall rule does.

pub mod api;
pub mod duration;
mod error;
mod file;
mod load;
pub mod place;
pub mod rules;
mod show;
pub mod tls;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::{api::guards::Network, timekeeping::ClockRule};

pub use self::error::{Broken, ConfigError, Location};
pub use self::load::load;
pub use self::show::{DEFAULT_FILE, ShownSetting, shown};
pub use self::tls::{
    Challenge, Directory, DnsConfig, DnsProviderConfig, TlsConfig, TsigAlgorithm, TsigKeyConfig,
};

/// The UDP and TCP port of a node that is told no other.
pub const DEFAULT_PORT: u16 = 7843;

/// What the daemon is told before it starts, checked and complete.
#[derive(Debug, Clone)]
pub struct Config {
    /// Friendly name of this node, 1 to 64 bytes.
    pub name: String,
    /// Where it listens, UDP and TCP. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where its state lies. It may not exist yet.
    pub state_dir: PathBuf,
    /// Addresses under which others reach it, beside those of its interfaces.
    pub advertise: Vec<SocketAddr>,
    /// Nodes to try, beside those that are discovered.
    pub peers: Vec<PeerAddress>,
    /// How often QUIC is tried while a link is a WebSocket.
    pub quic_retry: Duration,
    /// What is logged, as [`rules::log`] accepts it.
    pub log: String,
    /// Whether this machine's clock counts as right.
    pub clock: ClockRule,
    /// How other nodes are found, and find this one.
    pub discovery: DiscoveryConfig,
    /// The API.
    pub api: ApiConfig,
    /// The history of devices on this node.
    pub history: HistoryConfig,
    /// The public certificate of this node.
    pub tls: TlsConfig,
    /// Settings of adapters by their id. An adapter that is not here runs with its defaults.
    pub adapters: BTreeMap<String, AdapterConfig>,
    /// The invite with which a node that has no household yet joins one.
    pub join: Option<JoinToken>,
    /// Where each setting comes from, by its dotted key.
    pub origins: Origins,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What a person should know although it stops nothing; to be logged once.
    pub warnings: Vec<String>,
}

/// How other nodes are found, and find this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// Whether multicast DNS is spoken.
    pub mdns: bool,
    /// The network interfaces, by name, on which it is spoken and whose addresses are told to other
    /// nodes; all of them when there is none.
    pub interfaces: Vec<String>,
}

/// Settings of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiConfig {
    /// The group that may open the Unix socket, if this system has it.
    pub unix_group: String,
    /// Names of this node, beside its own.
    pub hosts: Vec<String>,
    /// Whose pages may use the API, as `scheme://host[:port]`.
    pub origins: Vec<String>,
    /// The proxies whose word counts on who a client is.
    pub proxies: Vec<Network>,
}

/// Settings of the history of devices on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryConfig {
    /// Whether anything is recorded.
    pub enabled: bool,
    /// Room for it on the disk in MiB, as [`rules::megabytes`] accepts it.
    pub megabytes: u32,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { enabled: true, megabytes: 12 }
    }
}

/// Settings of one adapter.
#[derive(Clone, PartialEq)]
pub struct AdapterConfig {
    /// Whether it runs.
    pub enabled: bool,
    /// Its own settings, a JSON object, which the adapter itself checks.
    pub settings: Value,
}

impl Default for AdapterConfig {
    fn default() -> Self {
        Self { enabled: true, settings: Value::Object(serde_json::Map::new()) }
    }
}

impl fmt::Debug for AdapterConfig {
    /// The values may hold keys of web services, so only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> =
            self.settings.as_object().map(|map| map.keys().collect()).unwrap_or_default();
        f.debug_struct("AdapterConfig").field("enabled", &self.enabled).field("keys", &keys).finish()
    }
}

/// The address of another node. `(host.as_str(), port)` is what `tokio::net::lookup_host` takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddress {
    /// Host name, or IP address without brackets.
    pub host: String,
    /// UDP and TCP port, 1 to 65535.
    pub port: u16,
}

/// A token of `hearth invite`: a secret until it is used or expires.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken(String);

impl JoinToken {
    /// The token, for the one who redeems it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(hidden)")
    }
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file.
    File(Location),
    /// A variable of the environment.
    Variable(&'static str),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(at) => write!(f, "{}:{}", at.file.display(), at.line),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Where each setting comes from, by its dotted key such as `adapters.lifx.poll_s`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where the setting comes from; [`Origin::Default`] when nobody set it. An adapter that
    /// refuses its settings is shown with the line in the file by this.
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// What the flags set.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--name`
    pub name: Option<String>,
    /// `--log`
    pub log: Option<String>,
    /// `--mdns`
    pub mdns: Option<bool>,
    /// `--interfaces`
    pub interfaces: Option<Vec<String>>,
    /// `--join`
    pub join: Option<JoinToken>,
}

/// What is taken from the surroundings: variables, the host name, the folders of the system.
/// Tests make their own, so that no test changes the environment of another.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The variables.
    pub variables: BTreeMap<OsString, OsString>,
    /// The host name, for nodes without a name.
    pub host_name: Option<String>,
    /// The config file of the whole system.
    pub system_file: PathBuf,
    /// The state folder of the service of the whole system.
    pub system_state_dir: PathBuf,
}

impl Environment {
    /// The surroundings of this process.
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            host_name: std::fs::read_to_string("/proc/sys/kernel/hostname").ok(),
            system_file: "/etc/hearth/hearth.toml".into(),
            system_state_dir: "/var/lib/hearth".into(),
        }
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&OsString> {
        self.variables.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty())
    }
}
