//! `[tls]`: the names under which this node has a public certificate, from whom, and how it proves that they are its own.
//!
//! No secret stands here: keys and tokens are in files of their own, which are named.

mod read;
pub mod rules;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde_json::{Value, json};

use super::load::Layers;
use super::{Broken, ConfigError, Origin, PeerAddress};
use crate::tls::acme::Domain;

pub(super) use self::read::FileTls;

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Its directory for tries, whose certificates nobody trusts and whose limits are wide.
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// How long a change of DNS may take to be seen everywhere, if nobody says.
const PROPAGATION: Duration = Duration::from_secs(120);
/// Where challenges and redirects are served, if nobody says.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 80);

/// Settings of the public certificate. Without domains there is none, and nothing else here counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// What the certificate is made out to.
    pub domains: Vec<Domain>,
    /// The e-mail address that the authority may write to.
    pub contact: Option<String>,
    /// Who signs it.
    pub directory: Directory,
    /// A PEM file with the authorities that vouch for the directory, instead of those that this system trusts.
    pub directory_root: Option<PathBuf>,
    /// The authority's profile, by its name.
    pub profile: Option<String>,
    /// How it is proven that the names are this node's.
    pub challenge: Challenge,
    /// Where plain HTTP answers challenges and redirects, if at all.
    pub http: Option<SocketAddr>,
    /// Where the DNS of the names is kept: for [`Challenge::Dns`], which needs it.
    pub dns: Option<DnsConfig>,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            contact: None,
            directory: Directory::usual(),
            directory_root: None,
            profile: None,
            challenge: Challenge::Http,
            http: Some(HTTP),
            dns: None,
        }
    }
}

/// A directory of an ACME authority (RFC 8555, section 7.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directory {
    /// Let's Encrypt.
    LetsEncrypt,
    /// Let's Encrypt, for tries.
    Staging,
    /// Another, by its URL.
    Other(String),
}

impl Directory {
    /// Programs that people develop with do not use up what Let's Encrypt grants a home.
    fn usual() -> Self {
        if cfg!(debug_assertions) { Self::Staging } else { Self::LetsEncrypt }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        match self {
            Self::LetsEncrypt => LETS_ENCRYPT,
            Self::Staging => LETS_ENCRYPT_STAGING,
            Self::Other(url) => url,
        }
    }
}

impl fmt::Display for Directory {
    /// As it stands in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LetsEncrypt => "letsencrypt",
            Self::Staging => "staging",
            Self::Other(url) => url,
        })
    }
}

/// How a name is proven to be this node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// HTTP-01: a file on port 80 (RFC 8555, section 8.3).
    Http,
    /// TLS-ALPN-01: a certificate on port 443 (RFC 8737).
    TlsAlpn,
    /// DNS-01: a TXT record (RFC 8555, section 8.4).
    Dns,
}

impl Challenge {
    /// As it stands in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
            Self::Dns => "dns-01",
        }
    }
}

/// `[tls.dns]`: how TXT records come into the DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    /// By whom.
    pub provider: DnsProviderConfig,
    /// How long a change may take to be seen.
    pub propagation: Duration,
    /// Who is asked whether it is; none: the servers of the zone, found by those of this system.
    pub resolvers: Vec<SocketAddr>,
}

/// Who changes the DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsProviderConfig {
    /// A name server that takes dynamic updates (RFC 2136).
    Rfc2136 {
        /// Host name, or IP address without brackets.
        host: String,
        /// Its port.
        port: u16,
        /// The zone that is changed, in lower case without a final dot; none: it is asked for.
        zone: Option<String>,
        /// The key that signs updates; none where the server knows this node by its address.
        key: Option<TsigKeyConfig>,
    },
    /// A program.
    Hook {
        /// Its path.
        command: PathBuf,
    },
    /// DuckDNS, which has one TXT record for a name and all below it.
    DuckDns {
        /// The file that holds the token.
        token_file: PathBuf,
    },
}

/// A key that signs updates of DNS (TSIG, RFC 8945).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsigKeyConfig {
    /// Its name, in lower case without a final dot.
    pub name: String,
    /// What it signs with.
    pub algorithm: TsigAlgorithm,
    /// The file that holds the secret in base64.
    pub file: PathBuf,
}

/// The algorithm of a [`TsigKeyConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TsigAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
}

impl TsigAlgorithm {
    /// As it stands in the configuration, and on the wire (RFC 8945, section 6).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        }
    }
}

impl TlsConfig {
    /// Every setting with its value. Without domains no other counts, and none is shown.
    pub(crate) fn shown(&self) -> Vec<(String, Value)> {
        let own = |key: &str, value: Value| (format!("tls.{key}"), value);
        let domains: Vec<String> = self.domains.iter().map(ToString::to_string).collect();
        let mut shown = vec![own("domains", json!(domains))];
        if self.domains.is_empty() {
            return shown;
        }
        shown.extend([
            own("contact", json!(self.contact)),
            own("directory", json!(self.directory.to_string())),
            own("directory_root", json!(self.directory_root)),
            own("profile", json!(self.profile)),
            own("challenge", json!(self.challenge.as_str())),
            own("http", json!(self.http.map_or_else(|| "off".to_owned(), |at| at.to_string()))),
        ]);
        shown.extend(self.dns.iter().flat_map(DnsConfig::shown));
        shown
    }
}

impl DnsConfig {
    fn shown(&self) -> Vec<(String, Value)> {
        let own = |key: &str, value: Value| (format!("tls.dns.{key}"), value);
        let mut shown = match &self.provider {
            DnsProviderConfig::Rfc2136 { host, port, zone, key } => {
                let server = PeerAddress { host: host.clone(), port: *port };
                let mut shown = vec![
                    own("provider", json!("rfc2136")),
                    own("server", json!(server.to_string())),
                    own("zone", json!(zone)),
                ];
                if let Some(key) = key {
                    shown.push(own("key_name", json!(key.name)));
                    shown.push(own("key_algorithm", json!(key.algorithm.as_str())));
                    shown.push(own("key_file", json!(key.file)));
                }
                shown
            }
            DnsProviderConfig::Hook { command } => {
                vec![own("provider", json!("hook")), own("command", json!(command))]
            }
            DnsProviderConfig::DuckDns { token_file } => {
                vec![own("provider", json!("duckdns")), own("token_file", json!(token_file))]
            }
        };
        shown.push(own("propagation_s", json!(self.propagation.as_secs())));
        shown.push(own("resolvers", json!(self.resolvers)));
        shown
    }
}

/// Brings variables, file and defaults together.
pub(super) fn pick(from: &mut Layers<'_>, file: FileTls) -> Result<TlsConfig, ConfigError> {
    let usual = TlsConfig::default();
    let domains = from.pick("tls.domains", None, super::load::list(rules::domain), file.domains)?;
    let contact = from.pick("tls.contact", None, rules::contact, file.contact)?;
    let directory = from.pick("tls.directory", None, rules::directory, file.directory)?;
    let root = from.pick("tls.directory_root", None, rules::file, file.directory_root)?;
    let profile = from.pick("tls.profile", None, rules::profile, file.profile)?;
    let challenge = from.pick("tls.challenge", None, rules::challenge, file.challenge)?;
    let http = from.pick("tls.http", None, rules::http, file.http)?;
    let mut distinct: Vec<Domain> = Vec::new();
    for domain in domains.unwrap_or_default() {
        if !distinct.contains(&domain) {
            distinct.push(domain);
        }
    }
    let config = TlsConfig {
        domains: distinct,
        contact,
        directory: directory.unwrap_or(usual.directory),
        directory_root: root,
        profile,
        challenge: challenge.unwrap_or(usual.challenge),
        http: http.unwrap_or(usual.http),
        dns: file.dns,
    };
    from.tell_places("tls.dns");
    check(&config).map_err(|(key, found, broken)| from.contradiction(key, found, broken))?;
    Ok(config)
}

/// What each setting may be only beside the others.
fn check(config: &TlsConfig) -> Result<(), (&'static str, String, Broken)> {
    let is_public = !matches!(config.directory, Directory::Other(_));
    let private = config.domains.iter().find(|domain| domain.is_private());
    if let Some(domain) = private.filter(|_| is_public) {
        return Err(("tls.domains", domain.to_string(), rules::PUBLIC));
    }
    let wild = config.domains.iter().find(|domain| domain.is_wildcard());
    if let Some(domain) = wild.filter(|_| config.challenge != Challenge::Dns) {
        return Err(("tls.domains", domain.to_string(), rules::WILDCARD));
    }
    if config.challenge == Challenge::Dns && config.dns.is_none() && !config.domains.is_empty() {
        return Err(("tls.challenge", config.challenge.as_str().to_owned(), rules::NEEDS_DNS));
    }
    if config.domains.len() > rules::MAX_DOMAINS {
        return Err(("tls.domains", format!("{} names", config.domains.len()), rules::FEWER));
    }
    Ok(())
}

impl Layers<'_> {
    /// A setting that keeps its own rule and not that of the settings together.
    fn contradiction(&self, key: &'static str, found: String, broken: Broken) -> ConfigError {
        let from = match self.origins.of(key) {
            Origin::File(at) => at.to_string(),
            Origin::Variable(name) => format!("the variable {name}"),
            Origin::Flag(name) => name.to_owned(),
            Origin::Default => "by default".to_owned(),
        };
        ConfigError::Contradiction { from, key, found, broken }
    }
}

#[cfg(test)]
#[path = "tls/tests.rs"]
mod tests;
