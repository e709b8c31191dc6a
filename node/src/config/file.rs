//! The config file: read with its size checked, parsed with the place of every key kept, so
//! that each mistake can be shown where it stands.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Broken, ConfigError, Location};
use super::tls::FileTls;
use super::{AdapterConfig, PeerAddress, rules};
use crate::timekeeping::ClockRule;

/// The largest config file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// The longest list in the file.
const MAX_LIST: usize = 256;

/// What a file sets; what it does not mention is `None`.
#[derive(Debug, Default)]
pub(crate) struct FileSettings {
    pub(crate) name: Option<String>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) advertise: Option<Vec<(IpAddr, Option<u16>)>>,
    pub(crate) peers: Option<Vec<PeerAddress>>,
    pub(crate) quic_retry: Option<Duration>,
    pub(crate) log: Option<String>,
    pub(crate) clock: Option<ClockRule>,
    pub(crate) unix_group: Option<String>,
    pub(crate) mdns: Option<bool>,
    pub(crate) interfaces: Option<Vec<String>>,
    pub(crate) history_enabled: Option<bool>,
    pub(crate) history_megabytes: Option<u32>,
    pub(crate) tls: FileTls,
    pub(crate) adapters: BTreeMap<String, AdapterConfig>,
    /// Where each key stands, by its dotted name, the keys of adapters included.
    pub(crate) places: BTreeMap<String, Location>,
}

/// The keys of the top level.
const TOP: [&str; 13] = [
    "name",
    "listen",
    "state_dir",
    "advertise",
    "peers",
    "quic_retry",
    "log",
    "clock",
    "discovery",
    "api",
    "history",
    "tls",
    "adapters",
];
/// The keys of `[api]`.
const API: [&str; 1] = ["unix_group"];
/// The keys of `[history]`.
const HISTORY: [&str; 2] = ["enabled", "megabytes"];
/// The keys of `[discovery]`.
const DISCOVERY: [&str; 2] = ["mdns", "interfaces"];

/// Reads a file; `None` when it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<FileSettings>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
        let bytes = std::fs::metadata(path).map_or(MAX_BYTES + 1, |meta| meta.len());
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        ConfigError::NotText { at: locate(path, &text, good) }
    })?;
    parse(path, &text).map(Some)
}

/// Parses the text of a file; `path` is only named in errors.
pub(crate) fn parse(path: &Path, text: &str) -> Result<FileSettings, ConfigError> {
    let reader = Reader { path, text };
    let table = DeTable::parse(text).map_err(|error| reader.syntax(&error))?;
    let mut settings = FileSettings::default();
    for (key, value) in table.get_ref() {
        let name: &str = key.get_ref();
        settings.places.insert(name.to_owned(), reader.at(&key.span()));
        match name {
            "name" => settings.name = Some(reader.text(name, value, rules::name)?),
            "listen" => settings.listen = Some(reader.text(name, value, rules::listen)?),
            "state_dir" => settings.state_dir = Some(reader.text(name, value, rules::folder)?),
            "advertise" => settings.advertise = Some(reader.list(name, value, rules::advertise)?),
            "peers" => settings.peers = Some(reader.list(name, value, rules::peer)?),
            "quic_retry" => settings.quic_retry = Some(reader.text(name, value, rules::quic_retry)?),
            "log" => settings.log = Some(reader.text(name, value, rules::log)?),
            "clock" => settings.clock = Some(reader.text(name, value, rules::clock)?),
            "discovery" => reader.discovery(value, &mut settings)?,
            "api" => reader.api(value, &mut settings)?,
            "history" => reader.history(value, &mut settings)?,
            "tls" => reader.tls(value, &mut settings)?,
            "adapters" => reader.adapters(value, &mut settings)?,
            _ => return Err(reader.unknown(key, "", &TOP)),
        }
    }
    Ok(settings)
}

pub(super) struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

pub(super) type Entry<'i> = Spanned<DeValue<'i>>;

impl Reader<'_> {
    pub(super) fn at(&self, span: &Range<usize>) -> Location {
        locate(self.path, self.text, span.start)
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        // An error at the end of a file or line belongs to the last line with text before it.
        let offset = error.span().map_or(self.text.len(), |span| span.start).min(self.text.len());
        let line = self.text.get(..offset).unwrap_or_default().trim_end_matches(['\n', '\r']);
        let start = line.rfind('\n').map_or(0, |at| at + 1);
        let whole = self.text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
        let key = whole.split_once('=').map(|(key, _)| key.trim()).filter(|key| !key.is_empty());
        ConfigError::Syntax {
            at: self.at(&(offset..offset)),
            key: key.map(|key| clip(key, 64)),
            message: error.message().trim().replace('\n', ", "),
        }
    }

    pub(super) fn unknown(
        &self,
        key: &Spanned<toml::de::DeString<'_>>,
        table: &str,
        known: &[&'static str],
    ) -> ConfigError {
        let name: &str = key.get_ref();
        ConfigError::UnknownKey {
            at: self.at(&key.span()),
            key: format!("{table}{}", clip(name, 64)),
            hint: known.iter().copied().find(|known| nearly(name, known)),
        }
    }

    fn unknown_adapter(&self, id: &Spanned<toml::de::DeString<'_>>) -> ConfigError {
        let known = device_adapters::registry().iter().map(|adapter| adapter.descriptor.id);
        ConfigError::UnknownAdapter {
            at: self.at(&id.span()),
            key: format!("adapters.{}", clip(id.get_ref(), 64)),
            known: known.collect::<Vec<_>>().join(", "),
        }
    }

    pub(super) fn wrong(&self, key: &str, value: &Entry<'_>, broken: Broken) -> ConfigError {
        let found = match value.get_ref() {
            DeValue::String(text) if holds_secret(text) => "hidden".to_owned(),
            DeValue::String(text) => format!("{:?}", clip(text, 64)),
            DeValue::Integer(number) => clip(number.as_str(), 64),
            DeValue::Boolean(truth) => truth.to_string(),
            other => format!("of type {}", other.type_str()),
        };
        ConfigError::Value { at: self.at(&value.span()), key: key.to_owned(), found, broken }
    }

    pub(super) fn text<T>(
        &self,
        key: &str,
        value: &Entry<'_>,
        rule: impl Fn(&str) -> Result<T, Broken>,
    ) -> Result<T, ConfigError> {
        // A value of another type is told the rule of the key, as a wrong text would be.
        let parsed = rule(value.get_ref().as_str().unwrap_or_default());
        match (value.get_ref().is_str(), parsed) {
            (true, Ok(parsed)) => Ok(parsed),
            (_, Err(broken)) => Err(self.wrong(key, value, broken)),
            (false, Ok(_)) => {
                Err(self.wrong(key, value, Broken { rule: "text in quotes", example: "\"text\"" }))
            }
        }
    }

    pub(super) fn list<T>(
        &self,
        key: &str,
        value: &Entry<'_>,
        rule: impl Fn(&str) -> Result<T, Broken>,
    ) -> Result<Vec<T>, ConfigError> {
        let broken = Broken { rule: "a list of at most 256 texts", example: "[\"192.168.1.5\"], or []" };
        let items = value.get_ref().as_array().filter(|items| items.len() <= MAX_LIST);
        let items = items.ok_or_else(|| self.wrong(key, value, broken))?;
        items.iter().map(|item| self.text(key, item, &rule)).collect()
    }

    pub(super) fn table<'v, 'i>(
        &self,
        key: &str,
        value: &'v Entry<'i>,
    ) -> Result<&'v DeTable<'i>, ConfigError> {
        let broken = Broken { rule: "a table of settings", example: "[api] on a line of its own" };
        value.get_ref().as_table().ok_or_else(|| self.wrong(key, value, broken))
    }

    fn truth(&self, key: &str, value: &Entry<'_>) -> Result<bool, ConfigError> {
        value.get_ref().as_bool().ok_or_else(|| self.wrong(key, value, rules::TRUTH))
    }

    /// A whole number without quotes.
    pub(super) fn number<T>(
        &self,
        key: &str,
        value: &Entry<'_>,
        rule: impl Fn(&str) -> Result<T, Broken>,
    ) -> Result<T, ConfigError> {
        let digits = match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            _ => "",
        };
        rule(digits).map_err(|broken| self.wrong(key, value, broken))
    }

    fn discovery(&self, value: &Entry<'_>, settings: &mut FileSettings) -> Result<(), ConfigError> {
        for (key, value) in self.table("discovery", value)? {
            let full = format!("discovery.{}", key.get_ref());
            match &**key.get_ref() {
                "mdns" => settings.mdns = Some(self.truth(&full, value)?),
                "interfaces" => settings.interfaces = Some(self.list(&full, value, rules::interface)?),
                _ => return Err(self.unknown(key, "discovery.", &DISCOVERY)),
            }
            settings.places.insert(full, self.at(&key.span()));
        }
        Ok(())
    }

    fn api(&self, value: &Entry<'_>, settings: &mut FileSettings) -> Result<(), ConfigError> {
        for (key, value) in self.table("api", value)? {
            let full = format!("api.{}", key.get_ref());
            match &**key.get_ref() {
                "unix_group" => settings.unix_group = Some(self.text(&full, value, rules::unix_group)?),
                _ => return Err(self.unknown(key, "api.", &API)),
            }
            settings.places.insert(full, self.at(&key.span()));
        }
        Ok(())
    }

    fn history(&self, value: &Entry<'_>, settings: &mut FileSettings) -> Result<(), ConfigError> {
        for (key, value) in self.table("history", value)? {
            let full = format!("history.{}", key.get_ref());
            match &**key.get_ref() {
                "enabled" => settings.history_enabled = Some(self.truth(&full, value)?),
                "megabytes" => {
                    settings.history_megabytes = Some(self.number(&full, value, rules::megabytes)?)
                }
                _ => return Err(self.unknown(key, "history.", &HISTORY)),
            }
            settings.places.insert(full, self.at(&key.span()));
        }
        Ok(())
    }

    /// The settings of adapters are opaque here but for `enabled`: each adapter checks its own.
    fn adapters(&self, value: &Entry<'_>, settings: &mut FileSettings) -> Result<(), ConfigError> {
        for (id, value) in self.table("adapters", value)? {
            let full = format!("adapters.{}", id.get_ref());
            if device_adapters::find(id.get_ref()).is_none() {
                return Err(self.unknown_adapter(id));
            }
            let mut adapter = AdapterConfig::default();
            let mut own = serde_json::Map::new();
            settings.places.insert(full.clone(), self.at(&id.span()));
            for (key, value) in self.table(&full, value)? {
                let full = format!("{full}.{}", key.get_ref());
                settings.places.insert(full.clone(), self.at(&key.span()));
                if key.get_ref() == "enabled" {
                    adapter.enabled = self.truth(&full, value)?;
                } else {
                    own.insert(key.get_ref().to_string(), self.json(&full, value)?);
                }
            }
            adapter.settings = Value::Object(own);
            settings.adapters.insert(id.get_ref().to_string(), adapter);
        }
        Ok(())
    }

    /// A TOML value as JSON; a date becomes text. The parser has bounded the depth already.
    fn json(&self, key: &str, value: &Entry<'_>) -> Result<Value, ConfigError> {
        let broken = Broken { rule: "a finite number of 64 bits", example: "30" };
        let wrong = || self.wrong(key, value, broken);
        Ok(match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(truth) => Value::Bool(*truth),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| wrong())?.into()
            }
            DeValue::Float(number) => {
                let number: f64 = number.as_str().parse().map_err(|_| wrong())?;
                serde_json::Number::from_f64(number).map(Value::Number).ok_or_else(wrong)?
            }
            DeValue::Datetime(date) => Value::String(date.to_string()),
            DeValue::Array(items) => {
                items.iter().map(|item| self.json(key, item)).collect::<Result<Vec<_>, _>>()?.into()
            }
            DeValue::Table(items) => Value::Object(
                items
                    .iter()
                    .map(|(name, item)| Ok((name.get_ref().to_string(), self.json(key, item)?)))
                    .collect::<Result<_, ConfigError>>()?,
            ),
        })
    }
}

fn locate(path: &Path, text: &str, offset: usize) -> Location {
    let before: String = text.char_indices().take_while(|(at, _)| *at < offset).map(|(_, c)| c).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    Location { file: path.to_owned(), line, column }
}

/// Whether it is a URL with a name, and maybe a password, before its host.
pub(super) fn holds_secret(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

fn clip(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

/// Whether two keys differ by at most two letters, or only in case and separators.
fn nearly(a: &str, b: &str) -> bool {
    let plain = |text: &str| -> Vec<char> {
        text.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).take(32).collect()
    };
    let (a, b) = (plain(a), plain(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let change = get(&row, j) + usize::from(x != y);
            next.push(change.min(get(&row, j + 1) + 1).min(get(&next, j) + 1));
        }
        row = next;
    }
    row.last().is_some_and(|distance| *distance <= 2.min(b.len() / 2))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
