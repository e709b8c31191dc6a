//! DNS-01 (RFC 8555, section 8.4): TXT records `_acme-challenge.DOMAIN`, put where the household's DNS is kept.

mod duckdns;
#[cfg(test)]
mod fake;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod hook;
mod message;
mod name;
mod propagation;
mod resolver;
mod secret;
mod transport;
mod tsig;
mod update;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tracing::warn;

use super::Domain;
use crate::config::{DnsConfig, DnsProviderConfig, PeerAddress, TsigKeyConfig};

use self::duckdns::DuckDns;
use self::hook::Action;
use self::message::Change;
use self::resolver::Resolver;
use self::transport::Server;
use self::tsig::Key;
use self::update::Updater;

pub use self::duckdns::DuckDnsError;
pub use self::hook::HookError;
pub use self::message::MessageError;
pub use self::name::Name;
pub use self::propagation::{Seen, Unseen};
pub use self::resolver::LookupError;
pub use self::secret::SecretError;
pub use self::transport::AskError;
pub use self::tsig::TsigError;
pub use self::update::UpdateError;

/// Below which name of a domain the value stands.
const LABEL: &str = "_acme-challenge";
/// The longest value, in bytes: a digest has 43.
const MAX_VALUE: usize = 255;

/// Why a value is not in DNS, or not seen there.
#[derive(Debug, Error)]
pub enum DnsError {
    /// A key or a token cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A name of the settings, or one made of the domain, is none of DNS.
    #[error("{0:?} is no name that DNS can carry: at most 255 bytes, and 63 between its dots")]
    Name(String),
    /// The value is none of a challenge.
    #[error("the value of a challenge must be 1 to 255 letters, digits, - and _")]
    Value,
    /// The name server has not taken it.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The command failed.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// DuckDNS has not taken it.
    #[error(transparent)]
    DuckDns(#[from] DuckDnsError),
    /// DNS does not say where the value belongs, or where it is to be seen.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It is in DNS, and not seen by everybody.
    #[error(transparent)]
    Unseen(#[from] Unseen),
}

/// Puts values of challenges into DNS and takes them out again. Clones are the same one.
#[derive(Debug, Clone)]
pub struct DnsProvider {
    way: Arc<Way>,
    /// Who is asked whether a value is seen; none: the servers of the zone.
    seen_by: Vec<SocketAddr>,
    /// Who is asked for zones and servers, instead of the system's resolvers and port 53.
    resolver: Option<Resolver>,
    propagation: Duration,
}

/// How values get into DNS.
#[derive(Debug)]
enum Way {
    Update(Updater),
    Hook(PathBuf),
    DuckDns(DuckDns),
}

impl DnsProvider {
    /// Reads the secrets that the settings name. Nothing is asked yet.
    ///
    /// # Errors
    /// [`DnsError::Secret`] and [`DnsError::Name`].
    pub fn open(config: &DnsConfig) -> Result<Self, DnsError> {
        let way = match &config.provider {
            DnsProviderConfig::Rfc2136 { host, port, zone, key } => {
                let zone = zone.as_deref().map(name_of).transpose()?;
                let server = PeerAddress { host: host.clone(), port: *port };
                Way::Update(Updater::new(server, zone, key.as_ref().map(read_key).transpose()?))
            }
            DnsProviderConfig::Hook { command } => Way::Hook(command.clone()),
            DnsProviderConfig::DuckDns { token_file } => Way::DuckDns(read_token(token_file)?),
        };
        Ok(Self {
            way: Arc::new(way),
            seen_by: config.resolvers.clone(),
            resolver: None,
            propagation: config.propagation,
        })
    }

    /// The same, but it asks these resolvers for zones and their servers, and finds those servers at that port. For
    /// tests, whose DNS has nothing above it.
    #[must_use]
    pub fn in_dns_of(mut self, resolvers: Vec<SocketAddr>, port: u16) -> Self {
        self.resolver = Some(Resolver::new(resolvers, port));
        self
    }

    /// Whether there is room for one value only, so that names that share it must be validated one after the other:
    /// published, validated and withdrawn before the next is published.
    pub fn holds_one_value(&self) -> bool {
        matches!(*self.way, Way::DuckDns(_))
    }

    /// [`DnsProvider::put`], and then [`DnsProvider::seen`].
    ///
    /// # Errors
    /// [`DnsError`], with what was seen; the value may then be in DNS, and [`DnsProvider::withdraw`] takes it out.
    pub async fn publish(&self, name: &Domain, value: &str) -> Result<(), DnsError> {
        self.put(name, value).await?;
        self.seen(name, value).await
    }

    /// Adds a TXT value at `_acme-challenge.BASE`, or at the name that this one stands for (CNAME), beside others where there is
    /// room for them.
    ///
    /// # Errors
    /// [`DnsError`]; the value may then be in DNS, and [`DnsProvider::withdraw`] takes it out.
    pub async fn put(&self, name: &Domain, value: &str) -> Result<(), DnsError> {
        let (name, resolver) = (challenge_of(name, value)?, self.resolver());
        match &*self.way {
            Way::Update(updater) => {
                let server = updater.server().await?;
                let name = resolver.follow(&server.addresses, &name, false).await?;
                updater.change(&server, Change::Add, &name, value).await?;
            }
            Way::Hook(command) => {
                let name = resolver.follow(&[], &name, false).await?;
                hook::run(command, Action::Present, &name, value, hook::WITHIN).await?;
            }
            Way::DuckDns(account) => {
                let name = resolver.follow(&[], &name, true).await?;
                account.set(&name, value).await?;
            }
        }
        Ok(())
    }

    /// Returns once every authoritative server shows a value that was put there.
    ///
    /// # Errors
    /// [`DnsError`], with what was seen.
    pub async fn seen(&self, name: &Domain, value: &str) -> Result<(), DnsError> {
        let (name, resolver) = (challenge_of(name, value)?, self.resolver());
        let taken_by = match &*self.way {
            Way::Update(updater) => Some(updater.server().await?),
            Way::Hook(_) | Way::DuckDns(_) => None,
        };
        let servers = taken_by.as_ref().map_or(&[][..], |server| &server.addresses);
        let name = resolver.follow(servers, &name, self.holds_one_value()).await?;
        self.wait(&resolver, &name, value, taken_by).await
    }

    /// Removes exactly that value. A failure is only logged: it does no harm but to tidiness.
    pub async fn withdraw(&self, name: &Domain, value: &str) {
        if let Err(error) = self.try_withdraw(name, value).await {
            warn!(%name, %error, "an old value of a challenge stays in DNS");
        }
    }

    async fn try_withdraw(&self, name: &Domain, value: &str) -> Result<(), DnsError> {
        let (name, resolver) = (challenge_of(name, value)?, self.resolver());
        match &*self.way {
            Way::Update(updater) => {
                let server = updater.server().await?;
                let name = resolver.follow(&server.addresses, &name, false).await?;
                updater.change(&server, Change::Delete, &name, value).await?;
            }
            Way::Hook(command) => {
                let name = resolver.follow(&[], &name, false).await?;
                hook::run(command, Action::Cleanup, &name, value, hook::WITHIN).await?;
            }
            Way::DuckDns(account) => {
                let name = resolver.follow(&[], &name, true).await?;
                // Another value, of an order that began meanwhile, is none of ours to remove.
                let servers = resolver.authorities(&name).await.unwrap_or_default();
                if !propagation::shows_another(&servers, &name, value).await {
                    account.clear(&name, value).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits until the value is seen. Where DNS tells of no servers of the zone, that which took the update counts.
    async fn wait(
        &self,
        resolver: &Resolver,
        name: &Name,
        value: &str,
        taken_by: Option<Server>,
    ) -> Result<(), DnsError> {
        let servers = match (self.seen_by.as_slice(), taken_by) {
            ([], None) => resolver.authorities(name).await?,
            ([], Some(server)) => resolver.authorities(name).await.unwrap_or_else(|error| {
                warn!(%name, %error, "only the name server that took the update is asked whether it is seen");
                vec![server]
            }),
            (resolvers, _) => resolvers.iter().map(|address| Server::at(*address)).collect(),
        };
        propagation::wait(&servers, name, value, self.propagation, !self.seen_by.is_empty()).await?;
        Ok(())
    }

    /// What the system's file says now: it changes as networks come and go.
    fn resolver(&self) -> Resolver {
        let set = Some(&self.seen_by).filter(|set| !set.is_empty());
        let set = || set.map(|set| Resolver::new(set.clone(), resolver::PORT));
        self.resolver.clone().or_else(set).unwrap_or_else(Resolver::of_system)
    }
}

fn name_of(text: &str) -> Result<Name, DnsError> {
    text.parse().map_err(|_| DnsError::Name(text.to_owned()))
}

/// Where the value of a domain stands. A wildcard's is that of the domain itself.
fn challenge_of(domain: &Domain, value: &str) -> Result<Name, DnsError> {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !(1..=MAX_VALUE).contains(&value.len()) || !value.bytes().all(is_fit) {
        return Err(DnsError::Value);
    }
    name_of(&format!("{LABEL}.{}", domain.base()))
}

fn read_key(config: &TsigKeyConfig) -> Result<Key, DnsError> {
    Ok(Key::new(name_of(&config.name)?, config.algorithm, secret::key(&config.file)?))
}

fn read_token(file: &Path) -> Result<DuckDns, DnsError> {
    let token = secret::token(file)?;
    let rule = "the token alone: letters, digits and -";
    let fits = DuckDns::is_token(&token).then(|| DuckDns::new(token));
    Ok(fits.ok_or_else(|| SecretError::Broken { path: file.to_owned(), rule })?)
}

#[cfg(test)]
mod tests;
