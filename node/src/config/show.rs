//! The configuration as people read it.

use serde::Serialize;
use serde_json::{Value, json};

use super::Config;
use super::duration::show_duration;

/// The text of a config file in which every setting stands at its default, explained.
pub const DEFAULT_FILE: &str = include_str!("default.toml");

/// A setting with its value and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownSetting {
    /// Its dotted key.
    pub key: String,
    /// Its value; secrets read `hidden`.
    pub value: Value,
    /// `default`, `FILE:LINE`, the variable or the flag.
    pub origin: String,
}

/// Every setting in effect.
pub fn shown(config: &Config) -> Vec<ShownSetting> {
    let texts = |items: Vec<String>| Value::from(items);
    let mut settings = vec![
        ("name".to_owned(), json!(config.name)),
        ("listen".to_owned(), json!(config.listen)),
        ("state_dir".to_owned(), json!(config.state_dir.to_string_lossy())),
        ("advertise".to_owned(), texts(config.advertise.iter().map(ToString::to_string).collect())),
        ("peers".to_owned(), texts(config.peers.iter().map(ToString::to_string).collect())),
        ("quic_retry".to_owned(), json!(show_duration(config.quic_retry))),
        ("log".to_owned(), json!(config.log)),
        ("clock".to_owned(), json!(config.clock.as_str())),
        ("discovery.mdns".to_owned(), json!(config.discovery.mdns)),
        ("discovery.interfaces".to_owned(), json!(config.discovery.interfaces)),
        ("api.unix_group".to_owned(), json!(config.api.unix_group)),
        ("history.enabled".to_owned(), json!(config.history.enabled)),
        ("history.megabytes".to_owned(), json!(config.history.megabytes)),
    ];
    settings.extend(config.tls.shown());
    for (id, adapter) in &config.adapters {
        settings.push((format!("adapters.{id}.enabled"), json!(adapter.enabled)));
        for (key, value) in adapter.settings.as_object().into_iter().flatten() {
            settings.push((format!("adapters.{id}.{key}"), without_secrets(key, value)));
        }
    }
    if config.join.is_some() {
        settings.push(("join".to_owned(), json!("hidden")));
    }
    let origin = |key: &str| config.origins.of(key).to_string();
    settings.into_iter().map(|(key, value)| ShownSetting { origin: origin(&key), key, value }).collect()
}

/// Adapters of web services have keys among their settings.
fn without_secrets(key: &str, value: &Value) -> Value {
    let key = key.to_ascii_lowercase();
    if ["key", "token", "secret", "password", "psk", "credential"].iter().any(|word| key.contains(word)) {
        return json!("hidden");
    }
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), without_secrets(k, v))).collect(),
        Value::Array(items) => items.iter().map(|item| without_secrets(&key, item)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Environment, Flags, file, load};
    use std::path::Path;

    /// The text with each commented setting switched on.
    fn uncommented() -> String {
        let lines = DEFAULT_FILE
            .lines()
            .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_documented_file_is_read_with_and_without_its_comments() {
        assert!(file::parse(Path::new("default.toml"), DEFAULT_FILE).unwrap().places.is_empty());
        let settings = file::parse(Path::new("default.toml"), &uncommented()).unwrap();
        for key in [
            "name",
            "listen",
            "state_dir",
            "advertise",
            "peers",
            "quic_retry",
            "log",
            "clock",
            "discovery.mdns",
            "discovery.interfaces",
            "api.unix_group",
            "history.enabled",
            "history.megabytes",
            "tls.domains",
            "tls.contact",
            "tls.directory",
            "tls.directory_root",
            "tls.profile",
            "tls.challenge",
            "tls.http",
            "tls.dns.provider",
            "tls.dns.server",
            "tls.dns.zone",
            "tls.dns.key_name",
            "tls.dns.key_algorithm",
            "tls.dns.key_file",
            "tls.dns.propagation_s",
            "tls.dns.resolvers",
            "adapters.lifx.poll_s",
        ] {
            assert!(settings.places.contains_key(key), "{key} is not in the documented file");
        }
        assert_eq!(settings.listen.unwrap().port(), crate::config::DEFAULT_PORT);
    }

    #[test]
    fn secrets_of_adapters_and_invites_are_hidden() {
        let folder = crate::cli::testing::TempDir::new();
        let path = folder.path().join("c.toml");
        std::fs::write(
            &path,
            "[adapters.lifx]\napi_key = \"s3cret\"\nnested = { password = \"s3cret\", x = 1 }",
        )
        .unwrap();
        let flags = Flags {
            config: Some(path),
            state_dir: Some("/s".into()),
            join: crate::config::rules::join_token("s3cret").ok(),
            ..Flags::default()
        };
        let mut env = Environment::of_process();
        env.variables.clear();
        let config = load(&flags, &env).unwrap();
        let text = serde_json::to_string(&shown(&config)).unwrap();
        assert!(!text.contains("s3cret") && text.contains("\"x\":1"), "{text}");
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(text.contains("c.toml:2"), "{text}");
    }
}
