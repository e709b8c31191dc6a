//! Brings flags, variables, file and defaults together.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::{Broken, ConfigError};
use super::file::holds_secret;
use super::place::{default_state_dir, find_file};
use super::{
    ApiConfig, Config, DEFAULT_PORT, DiscoveryConfig, Environment, Flags, HistoryConfig, JoinToken, Origin,
    Origins, rules,
};
use crate::transport::dialer::RETRY_QUIC;

/// The variables that Hearth knows, with the key that each sets.
const VARIABLES: [(&str, &str); 22] = [
    ("HEARTH_NAME", "name"),
    ("HEARTH_LISTEN", "listen"),
    ("HEARTH_STATE_DIR", "state_dir"),
    ("HEARTH_ADVERTISE", "advertise"),
    ("HEARTH_PEERS", "peers"),
    ("HEARTH_QUIC_RETRY", "quic_retry"),
    ("HEARTH_LOG", "log"),
    ("HEARTH_CLOCK", "clock"),
    ("HEARTH_DISCOVERY_MDNS", "discovery.mdns"),
    ("HEARTH_DISCOVERY_INTERFACES", "discovery.interfaces"),
    ("HEARTH_API_UNIX_GROUP", "api.unix_group"),
    ("HEARTH_HISTORY_ENABLED", "history.enabled"),
    ("HEARTH_HISTORY_MEGABYTES", "history.megabytes"),
    ("HEARTH_TLS_DOMAINS", "tls.domains"),
    ("HEARTH_TLS_CONTACT", "tls.contact"),
    ("HEARTH_TLS_DIRECTORY", "tls.directory"),
    ("HEARTH_TLS_DIRECTORY_ROOT", "tls.directory_root"),
    ("HEARTH_TLS_PROFILE", "tls.profile"),
    ("HEARTH_TLS_CHALLENGE", "tls.challenge"),
    ("HEARTH_TLS_HTTP", "tls.http"),
    ("HEARTH_CONFIG", "config"),
    ("HEARTH_JOIN", "join"),
];

/// The configuration of `hearth run`: flags before variables before the file before defaults.
///
/// # Errors
/// [`ConfigError`] names what is wrong, where, and the way out. Nothing has been changed.
pub fn load(flags: &Flags, env: &Environment) -> Result<Config, ConfigError> {
    let (path, file) =
        find_file(flags, env)?.map_or((None, Default::default()), |(path, file)| (Some(path), file));
    let mut from = Layers { env, places: file.places, origins: Origins::default() };
    let name = from.pick("name", flags.name.clone().map(|v| ("--name", v)), rules::name, file.name)?;
    let listen = from.pick("listen", flags.listen.map(|v| ("--listen", v)), rules::listen, file.listen)?;
    let listen = listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT)));
    let state_dir = flags.state_dir.clone().map(|v| ("--state-dir", v));
    // A path need not be text, so the variable is taken as it is.
    let exact = env.get("HEARTH_STATE_DIR").map(PathBuf::from);
    let folder = |text: &str| rules::folder(text).map(|folder| exact.clone().unwrap_or(folder));
    let state_dir = match from.pick("state_dir", state_dir, folder, file.state_dir)? {
        Some(folder) => folder,
        None => default_state_dir(env)?,
    };
    let advertise = from.pick("advertise", None, list(rules::advertise), file.advertise)?.unwrap_or_default();
    let port = listen.port();
    let advertise = advertise.into_iter().map(|(ip, own)| SocketAddr::new(ip, own.unwrap_or(port))).collect();
    let peers = from.pick("peers", None, list(rules::peer), file.peers)?.unwrap_or_default();
    let quic_retry = from.pick("quic_retry", None, rules::quic_retry, file.quic_retry)?.unwrap_or(RETRY_QUIC);
    let clock = from.pick("clock", None, rules::clock, file.clock)?.unwrap_or_default();
    let log = from.pick("log", flags.log.clone().map(|v| ("--log", v)), rules::log, file.log)?;
    let mdns = from.pick("discovery.mdns", flags.mdns.map(|v| ("--mdns", v)), rules::truth, file.mdns)?;
    let chosen = flags.interfaces.clone().map(|v| ("--interfaces", v));
    let interfaces = from.pick("discovery.interfaces", chosen, list(rules::interface), file.interfaces)?;
    let unix_group = from.pick("api.unix_group", None, rules::unix_group, file.unix_group)?;
    let usual = HistoryConfig::default();
    let enabled = from.pick("history.enabled", None, rules::truth, file.history_enabled)?;
    let megabytes = from.pick("history.megabytes", None, rules::megabytes, file.history_megabytes)?;
    let history = HistoryConfig {
        enabled: enabled.unwrap_or(usual.enabled),
        megabytes: megabytes.unwrap_or(usual.megabytes),
    };
    let tls = super::tls::pick(&mut from, file.tls)?;
    let join = flags.join.clone().map(|v| ("--join", v));
    let join: Option<JoinToken> = from.pick("join", join, rules::join_token, None)?;
    from.tell_places("adapters");
    Ok(Config {
        name: name.unwrap_or_else(|| default_name(env)),
        listen,
        state_dir,
        advertise,
        peers,
        quic_retry,
        log: log.unwrap_or_else(|| "info".into()),
        clock,
        discovery: DiscoveryConfig { mdns: mdns.unwrap_or(true), interfaces: interfaces.unwrap_or_default() },
        api: ApiConfig { unix_group: unix_group.unwrap_or_else(|| "hearth".into()) },
        history,
        tls,
        adapters: file.adapters,
        join,
        origins: from.origins,
        file: path,
        warnings: unknown_variables(env),
    })
}

pub(super) struct Layers<'a> {
    env: &'a Environment,
    places: std::collections::BTreeMap<String, super::Location>,
    pub(super) origins: Origins,
}

impl Layers<'_> {
    /// What stands below a table that the file alone sets comes from where it stands.
    pub(super) fn tell_places(&mut self, table: &str) {
        let below = |key: &str| key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
        let places = self.places.iter().filter(|(key, _)| below(key));
        self.origins.0.extend(places.map(|(key, at)| (key.clone(), Origin::File(at.clone()))));
    }

    pub(super) fn pick<T>(
        &mut self,
        key: &'static str,
        flag: Option<(&'static str, T)>,
        rule: impl Fn(&str) -> Result<T, Broken>,
        file: Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        if let Some((flag, value)) = flag {
            self.origins.0.insert(key.into(), Origin::Flag(flag));
            return Ok(Some(value));
        }
        let variable = VARIABLES.iter().find(|(_, sets)| *sets == key).map_or("", |(variable, _)| variable);
        if let Some(text) = self.env.get(variable) {
            let text = text.to_string_lossy();
            let value = rule(&text).map_err(|broken| ConfigError::Variable {
                variable: variable.to_owned(),
                found: if key == "join" || holds_secret(&text) {
                    "hidden".into()
                } else {
                    format!("{:?}", clip(&text))
                },
                broken,
            })?;
            self.origins.0.insert(key.into(), Origin::Variable(variable));
            return Ok(Some(value));
        }
        if let (Some(_), Some(at)) = (&file, self.places.get(key)) {
            self.origins.0.insert(key.into(), Origin::File(at.clone()));
        }
        Ok(file)
    }
}

/// A list with commas between its items.
pub(super) fn list<T>(rule: impl Fn(&str) -> Result<T, Broken>) -> impl Fn(&str) -> Result<Vec<T>, Broken> {
    move |text| text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(&rule).collect()
}

fn default_name(env: &Environment) -> String {
    let host = env.host_name.as_deref().and_then(|host| rules::name(host).ok());
    host.unwrap_or_else(|| "hearth".into())
}

/// A misspelt variable would be ignored in silence; but a foreign one must not stop a daemon.
fn unknown_variables(env: &Environment) -> Vec<String> {
    let names = env.variables.keys().filter_map(|name| name.to_str());
    let unknown =
        names.filter(|name| name.starts_with("HEARTH_") && !VARIABLES.iter().any(|(known, _)| known == name));
    unknown.map(|name| format!("the variable {} sets nothing that hearth knows", clip(name))).collect()
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
