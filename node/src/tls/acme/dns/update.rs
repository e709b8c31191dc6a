//! Dynamic update of a name server (RFC 2136): adds one text, or deletes exactly one, and nothing else.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tracing::debug;

use super::message::{Change, Message, kind, query, rcode, rcode_name, update};
use super::name::Name;
use super::transport::{AskError, Server, exchange, new_id};
use super::tsig::{Key, TsigError};
use crate::config::PeerAddress;

/// How long a server may take for an update, which it writes to a disk, or for a question.
const WITHIN: Duration = Duration::from_secs(10);
/// How long others may remember the value, in seconds: it is never asked for again.
const TTL: u32 = 60;

/// Why a name server has not changed its zone, or perhaps has not.
#[derive(Debug, Error)]
pub enum UpdateError {
    /// Its name has no address.
    #[error("the name server {server} is not found: {source}; correct `server` in [tls.dns]")]
    Unknown {
        /// Which.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// It did not answer.
    #[error(
        "the name server {server} cannot be asked over TCP: {source}; check that it runs, and `server` in [tls.dns]"
    )]
    Unanswered {
        /// Which.
        server: String,
        /// Why.
        source: AskError,
    },
    /// A signature was refused.
    #[error("the name server {server} does not take the update of {name}: {source}")]
    Signature {
        /// Which.
        server: String,
        /// What was to be changed.
        name: Name,
        /// Why.
        source: TsigError,
    },
    /// It keeps no zone that holds the name.
    #[error(
        "the name server {server} keeps no zone that holds {name} ({code}): set `server` to the one that does"
    )]
    NoZone {
        /// Which.
        server: String,
        /// The name.
        name: Name,
        /// What it answered.
        code: &'static str,
    },
    /// The name lies outside the zone that is set.
    #[error(
        "{name} lies outside the zone {zone}: correct `zone` in [tls.dns], or remove it to have it found"
    )]
    Outside {
        /// The name.
        name: Name,
        /// The zone.
        zone: Name,
    },
    /// It refused.
    #[error("the name server {server} answers {} to the update of {name} in the zone {zone}: {}", rcode_name(*code), meaning(*code))]
    Refused {
        /// Which.
        server: String,
        /// The name.
        name: Name,
        /// The zone.
        zone: Name,
        /// Its code (RFC 2136, section 2.2).
        code: u8,
    },
}

/// What a code of an update means, with the way out.
fn meaning(code: u8) -> &'static str {
    match code {
        1 => "it does not understand updates as RFC 2136 has them",
        2 => "it failed; its log says why, perhaps it may not write its files",
        4 => "it knows no updates",
        rcode::REFUSED => "its rules do not let this key change TXT records at this name; allow it there",
        rcode::NOTAUTH => {
            "it does not keep that zone as its primary, or does not know who asks; check the zone and the key"
        }
        rcode::NOTZONE => "the name lies outside the zone; correct `zone` in [tls.dns]",
        _ => "its log says why",
    }
}

/// A name server that takes updates.
#[derive(Debug)]
pub(super) struct Updater {
    server: PeerAddress,
    zone: Option<Name>,
    key: Option<Key>,
}

impl Updater {
    /// The server; the zone, if it is not to be asked for; the key, if it knows us by one.
    pub(super) fn new(server: PeerAddress, zone: Option<Name>, key: Option<Key>) -> Self {
        Self { server, zone, key }
    }

    /// The server with its addresses.
    ///
    /// # Errors
    /// [`UpdateError::Unknown`].
    pub(super) async fn server(&self) -> Result<Server, UpdateError> {
        let name = self.server.to_string();
        let unknown = |source| UpdateError::Unknown { server: name.clone(), source };
        let found = tokio::net::lookup_host((self.server.host.as_str(), self.server.port)).await;
        let addresses: Vec<SocketAddr> = found.map_err(unknown)?.collect();
        Ok(Server { name, addresses })
    }

    /// Adds a text at a name, or deletes it; once it returns, the server has done so.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub(super) async fn change(
        &self,
        server: &Server,
        change: Change,
        name: &Name,
        value: &str,
    ) -> Result<(), UpdateError> {
        let zone = self.zone_of(server, name).await?;
        let unanswered = |source| UpdateError::Unanswered { server: server.name.clone(), source };
        let id = new_id().map_err(unanswered)?;
        let mut message = update(id, &zone, change, name, value, TTL);
        let code = self.key.as_ref().map(|key| key.sign(&mut message, now()));
        let (bytes, answer) = self.exchange(server, id, &message).await.map_err(unanswered)?;
        let refused = UpdateError::Refused {
            server: server.name.clone(),
            name: name.clone(),
            zone,
            code: answer.rcode(),
        };
        if let (Some(key), Some(code)) = (&self.key, code) {
            match key.verify(&bytes, &answer, &code, now()) {
                Ok(()) => {}
                // A refusal need not be signed to be told: nobody gains by it.
                Err(TsigError::Unsigned) if answer.rcode() != rcode::NOERROR => return Err(refused),
                Err(source) => {
                    let (server, name) = (server.name.clone(), name.clone());
                    return Err(UpdateError::Signature { server, name, source });
                }
            }
        }
        if answer.rcode() == rcode::NOERROR {
            debug!(server = %server, %name, ?change, "the name server has changed its zone");
            return Ok(());
        }
        Err(refused)
    }

    /// The zone that holds a name.
    async fn zone_of(&self, server: &Server, name: &Name) -> Result<Name, UpdateError> {
        if let Some(zone) = &self.zone {
            let outside = || UpdateError::Outside { name: name.clone(), zone: zone.clone() };
            return name.is_within(zone).then(|| zone.clone()).ok_or_else(outside);
        }
        let unanswered = |source| UpdateError::Unanswered { server: server.name.clone(), source };
        let id = new_id().map_err(unanswered)?;
        let question = query(id, name, kind::SOA, false);
        let (_, answer) = self.exchange(server, id, &question).await.map_err(unanswered)?;
        let zone = answer.zone_of(name).filter(|_| answer.is_authoritative()).cloned();
        zone.ok_or_else(|| UpdateError::NoZone {
            server: server.name.clone(),
            name: name.clone(),
            code: rcode_name(answer.rcode()),
        })
    }

    async fn exchange(
        &self,
        server: &Server,
        id: u16,
        message: &[u8],
    ) -> Result<(Vec<u8>, Message), AskError> {
        let bytes = exchange(&server.addresses, message, WITHIN).await?;
        let answer = Message::read(&bytes)?;
        if answer.is_answer() && answer.id == id { Ok((bytes, answer)) } else { Err(AskError::Foreign) }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
