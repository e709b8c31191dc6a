//! What DNS-01 is told before it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::name::Name;
use super::tsig::Algorithm;
use crate::config::PeerAddress;

/// Where authoritative servers listen (RFC 1035, section 4.2).
pub const PORT: u16 = 53;
/// How long it may take until every authoritative server shows a value, unless it is set.
pub const PROPAGATION: Duration = Duration::from_secs(120);

/// Settings of DNS-01.
#[derive(Debug, Clone)]
pub struct DnsSettings {
    /// How values get into the zone.
    pub way: Way,
    /// Resolvers to ask for zones and their servers, instead of those of `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
    /// How long it may take until every authoritative server shows a value; zero asks none of them.
    pub propagation: Duration,
    /// The port of authoritative servers: [`PORT`], other ones are for tests.
    pub port: u16,
}

impl DnsSettings {
    /// With the resolvers of the system and [`PROPAGATION`].
    pub fn new(way: Way) -> Self {
        Self { way, resolvers: Vec::new(), propagation: PROPAGATION, port: PORT }
    }
}

/// How values get into the zone.
#[derive(Debug, Clone)]
pub enum Way {
    /// By dynamic update of the name server (RFC 2136).
    Rfc2136(UpdateSettings),
    /// By a user's command, an absolute path.
    Hook(PathBuf),
    /// By DuckDNS, with the token in this file.
    DuckDns(PathBuf),
}

/// Settings of dynamic update.
#[derive(Debug, Clone)]
pub struct UpdateSettings {
    /// The server that takes updates, usually the primary.
    pub server: PeerAddress,
    /// The zone that is updated; the server is asked when it is not set.
    pub zone: Option<Name>,
    /// The name of the TSIG key, as the server has it.
    pub key_name: Name,
    /// The algorithm of the key, as the server has it.
    pub algorithm: Algorithm,
    /// The file with the key in base64.
    pub key_file: PathBuf,
}
