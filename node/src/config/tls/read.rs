//! Reads `[tls]` and `[tls.dns]` from the file.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    Challenge, Directory, DnsConfig, DnsProviderConfig, PROPAGATION, TsigAlgorithm, TsigKeyConfig, rules,
};
use crate::config::file::{Entry, FileSettings, Reader};
use crate::config::{Broken, ConfigError};
use crate::tls::acme::Domain;

/// The keys of `[tls]`.
const TLS: [&str; 8] =
    ["domains", "contact", "directory", "directory_root", "profile", "challenge", "http", "dns"];
/// The keys of `[tls.dns]`.
const DNS: [&str; 10] = [
    "provider",
    "server",
    "zone",
    "key_name",
    "key_algorithm",
    "key_file",
    "command",
    "token_file",
    "propagation_s",
    "resolvers",
];

/// What the file sets in `[tls]`; what it does not mention is `None`.
#[derive(Debug, Default)]
pub(crate) struct FileTls {
    pub(crate) domains: Option<Vec<Domain>>,
    pub(crate) contact: Option<String>,
    pub(crate) directory: Option<Directory>,
    pub(crate) directory_root: Option<PathBuf>,
    pub(crate) profile: Option<String>,
    pub(crate) challenge: Option<Challenge>,
    pub(crate) http: Option<Option<SocketAddr>>,
    pub(crate) dns: Option<DnsConfig>,
}

/// What stands in `[tls.dns]`, before it is known what belongs together.
#[derive(Default)]
struct FileDns {
    provider: Option<String>,
    server: Option<(String, u16)>,
    zone: Option<String>,
    key_name: Option<String>,
    key_algorithm: Option<TsigAlgorithm>,
    key_file: Option<PathBuf>,
    command: Option<PathBuf>,
    token_file: Option<PathBuf>,
    propagation: Option<Duration>,
    resolvers: Option<Vec<SocketAddr>>,
}

impl Reader<'_> {
    pub(crate) fn tls(&self, value: &Entry<'_>, settings: &mut FileSettings) -> Result<(), ConfigError> {
        for (key, value) in self.table("tls", value)? {
            let full = format!("tls.{}", key.get_ref());
            let tls = &mut settings.tls;
            match &**key.get_ref() {
                "domains" => tls.domains = Some(self.list(&full, value, rules::domain)?),
                "contact" => tls.contact = Some(self.text(&full, value, rules::contact)?),
                "directory" => tls.directory = Some(self.text(&full, value, rules::directory)?),
                "directory_root" => tls.directory_root = Some(self.text(&full, value, rules::file)?),
                "profile" => tls.profile = Some(self.text(&full, value, rules::profile)?),
                "challenge" => tls.challenge = Some(self.text(&full, value, rules::challenge)?),
                "http" => tls.http = Some(self.text(&full, value, rules::http)?),
                "dns" => settings.tls.dns = Some(self.dns(value, settings)?),
                _ => return Err(self.unknown(key, "tls.", &TLS)),
            }
            settings.places.insert(full, self.at(&key.span()));
        }
        Ok(())
    }

    fn dns(&self, value: &Entry<'_>, settings: &mut FileSettings) -> Result<DnsConfig, ConfigError> {
        let mut dns = FileDns::default();
        let table = self.table("tls.dns", value)?;
        for (key, value) in table {
            let full = format!("tls.dns.{}", key.get_ref());
            match &**key.get_ref() {
                "provider" => dns.provider = Some(self.text(&full, value, provider)?),
                "server" => dns.server = Some(self.text(&full, value, rules::server)?),
                "zone" => dns.zone = Some(self.text(&full, value, rules::dns_name)?),
                "key_name" => dns.key_name = Some(self.text(&full, value, rules::dns_name)?),
                "key_algorithm" => dns.key_algorithm = Some(self.text(&full, value, rules::key_algorithm)?),
                "key_file" => dns.key_file = Some(self.text(&full, value, rules::file)?),
                "command" => dns.command = Some(self.text(&full, value, rules::file)?),
                "token_file" => dns.token_file = Some(self.text(&full, value, rules::file)?),
                "propagation_s" => dns.propagation = Some(self.number(&full, value, rules::propagation_s)?),
                "resolvers" => dns.resolvers = Some(self.list(&full, value, rules::resolver)?),
                _ => return Err(self.unknown(key, "tls.dns.", &DNS)),
            }
            settings.places.insert(full, self.at(&key.span()));
        }
        let provider = dns.provider.clone().unwrap_or_default();
        for (key, _) in table {
            if !belongs(&provider, key.get_ref()) {
                return Err(ConfigError::Contradiction {
                    from: self.at(&key.span()).to_string(),
                    key: "tls.dns",
                    found: format!("given `{}`", key.get_ref()),
                    broken: SUPERFLUOUS,
                });
            }
        }
        dns.assemble().map_err(|broken| self.wrong("tls.dns", value, broken))
    }
}

/// The providers that there are.
fn provider(text: &str) -> Result<String, Broken> {
    let text = text.trim();
    ["rfc2136", "hook", "duckdns"].contains(&text).then(|| text.to_owned()).ok_or(rules::PROVIDER)
}

const SUPERFLUOUS: Broken = Broken {
    rule: "given what its provider takes: rfc2136 takes server, zone, key_name, key_algorithm and key_file, hook takes command, \
           duckdns takes token_file",
    example: "provider = \"hook\" with command = \"/usr/local/bin/dns-hook\"",
};

/// Whether a key counts beside this provider; without one, that is what is missing.
fn belongs(provider: &str, key: &str) -> bool {
    let of = match key {
        "server" | "zone" | "key_name" | "key_algorithm" | "key_file" => "rfc2136",
        "command" => "hook",
        "token_file" => "duckdns",
        _ => return true,
    };
    provider.is_empty() || provider == of
}

impl FileDns {
    fn assemble(self) -> Result<DnsConfig, Broken> {
        let key = match (self.key_name, self.key_file) {
            (Some(name), Some(file)) => {
                Some(TsigKeyConfig { name, algorithm: self.key_algorithm.unwrap_or_default(), file })
            }
            (None, None) if self.key_algorithm.is_none() => None,
            _ => {
                return Err(Broken {
                    rule: "given both key_name and key_file, or none of them and no key_algorithm",
                    example: "key_name = \"hearth\" with key_file = \"/etc/hearth/dns.key\"",
                });
            }
        };
        let missing = |rule, example| Broken { rule, example };
        let provider = match self.provider.as_deref() {
            Some("rfc2136") => {
                let missing = missing("given `server` beside rfc2136", "server = \"192.168.1.2\"");
                let (host, port) = self.server.ok_or(missing)?;
                DnsProviderConfig::Rfc2136 { host, port, zone: self.zone, key }
            }
            Some("hook") => {
                let missing = missing("given `command` beside hook", "command = \"/usr/local/bin/dns-hook\"");
                DnsProviderConfig::Hook { command: self.command.ok_or(missing)? }
            }
            Some("duckdns") => {
                let missing =
                    missing("given `token_file` beside duckdns", "token_file = \"/etc/hearth/duckdns\"");
                DnsProviderConfig::DuckDns { token_file: self.token_file.ok_or(missing)? }
            }
            _ => return Err(missing("given `provider`: rfc2136, hook or duckdns", "provider = \"hook\"")),
        };
        Ok(DnsConfig {
            provider,
            propagation: self.propagation.unwrap_or(PROPAGATION),
            resolvers: self.resolvers.unwrap_or_default(),
        })
    }
}
