//! Where things are in DNS: the zone of a name, the servers of the zone, and what a name stands for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use data_encoding::HEXLOWER;
use futures_util::future::{join, join_all};
use thiserror::Error;
use tracing::debug;

use super::message::{Message, kind, rcode, rcode_name};
use super::name::Name;
use super::transport::{AskError, Server, ask};

/// Where a name server listens (RFC 1035, section 4.2).
pub(super) const PORT: u16 = 53;
/// Who is asked where nobody is set (resolv.conf(5)).
const RESOLVERS: &str = "/etc/resolv.conf";
/// How many resolvers are asked, as the C library does.
const MAX_RESOLVERS: usize = 3;
/// How many servers of a zone are asked.
const MAX_SERVERS: usize = 16;
/// How often a name may stand for another one.
const MAX_ALIASES: usize = 8;

/// Why something is not found in DNS.
#[derive(Debug, Error)]
pub enum LookupError {
    /// No resolver says.
    #[error("no resolver answers for {name}: {source}; check the network, or set `resolvers` in [tls.dns]")]
    Unanswered {
        /// What was asked for.
        name: Name,
        /// What the last one said.
        source: AskError,
    },
    /// The name is in no zone.
    #[error("no zone holds {0}: register the domain, or correct its name")]
    NoZone(Name),
    /// The zone has no servers.
    #[error("the zone {0} has no name servers (NS records)")]
    NoServers(Name),
    /// Names that stand for each other.
    #[error("{0} stands for another name, and that for another, more than 8 times: correct its CNAME record")]
    Aliases(Name),
}

/// Asks resolvers.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    port: u16,
}

impl Resolver {
    /// Asks these, and finds authoritative servers at that port.
    pub(super) fn new(servers: Vec<SocketAddr>, port: u16) -> Self {
        Self { servers, port }
    }

    /// Asks those of the system.
    pub(super) fn of_system() -> Self {
        Self::new(read(&std::fs::read_to_string(Path::new(RESOLVERS)).unwrap_or_default()), PORT)
    }

    /// Asks one resolver after the other until one knows.
    async fn lookup(&self, name: &Name, kind: u16) -> Result<Message, LookupError> {
        let mut source = AskError::Nowhere;
        for server in &self.servers {
            match ask(&[*server], name, kind, true).await {
                Ok(answer) if matches!(answer.rcode(), rcode::NOERROR | rcode::NXDOMAIN) => {
                    return Ok(answer);
                }
                Ok(answer) => source = AskError::Code(rcode_name(answer.rcode())),
                Err(error) => source = error,
            }
        }
        Err(LookupError::Unanswered { name: name.clone(), source })
    }

    /// The name that stands at the end of the aliases of this one; the name itself where there is none. `keeper`, a
    /// server that perhaps keeps the name, is asked first: it has no old answers.
    ///
    /// An alias that a wildcard makes is none of this name's own, and yields to a record at the name: it counts only
    /// where none can be put there.
    pub(super) async fn follow(
        &self,
        keeper: &[SocketAddr],
        name: &Name,
        wildcards: bool,
    ) -> Result<Name, LookupError> {
        let mut at = name.clone();
        for hop in 0..MAX_ALIASES {
            match self.alias(keeper, &at).await {
                Some(target)
                    if hop == 0 && !wildcards && self.is_of_wildcard(keeper, name, &target).await =>
                {
                    return Ok(at);
                }
                Some(target) => {
                    debug!(name = %at, %target, "the challenge is delegated");
                    at = target;
                }
                None => return Ok(at),
            }
        }
        Err(LookupError::Aliases(name.clone()))
    }

    /// What a name stands for. Where nobody says, for nothing: if that is wrong, the value is not seen later.
    async fn alias(&self, keeper: &[SocketAddr], name: &Name) -> Option<Name> {
        if let Ok(answer) = ask(keeper, name, kind::CNAME, false).await
            && answer.is_authoritative()
        {
            return answer.alias_of(name).cloned();
        }
        match self.lookup(name, kind::CNAME).await {
            Ok(answer) => answer.alias_of(name).cloned(),
            Err(error) => {
                debug!(%name, %error, "cannot see whether the challenge is delegated");
                None
            }
        }
    }

    /// Whether any other name beside this one stands for the same.
    async fn is_of_wildcard(&self, keeper: &[SocketAddr], name: &Name, target: &Name) -> bool {
        let label = crate::auth::random::<8>().map(|bytes| format!("_{}", HEXLOWER.encode(&bytes)));
        let other = label.and_then(|label| name.parent()?.below(&label));
        match other {
            Some(other) => self.alias(keeper, &other).await.as_ref() == Some(target),
            None => false,
        }
    }

    /// The servers that keep the zone of a name, with their addresses.
    pub(super) async fn authorities(&self, name: &Name) -> Result<Vec<Server>, LookupError> {
        let zone = self.zone_of(name).await?;
        let answer = self.lookup(&zone, kind::NS).await?;
        let found = join_all(answer.servers().take(MAX_SERVERS).map(|server| self.locate(server))).await;
        if found.is_empty() { Err(LookupError::NoServers(zone)) } else { Ok(found) }
    }

    /// The zone of a name: where none is told of with the name, it is sought above.
    async fn zone_of(&self, name: &Name) -> Result<Name, LookupError> {
        let mut at = Some(name.clone());
        while let Some(asked) = at {
            if let Some(zone) = self.lookup(&asked, kind::SOA).await?.zone_of(name) {
                return Ok(zone.clone());
            }
            at = asked.parent();
        }
        Err(LookupError::NoZone(name.clone()))
    }

    /// A server with its addresses; with none of them where they are not found.
    async fn locate(&self, server: &Name) -> Server {
        let (v4, v6) = join(self.lookup(server, kind::A), self.lookup(server, kind::AAAA)).await;
        let found: Vec<IpAddr> = [v4, v6].iter().flatten().flat_map(Message::addresses).collect();
        let addresses = found.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect();
        Server { name: server.to_string(), addresses }
    }
}

/// The resolvers in the text of a `resolv.conf`; without one, this machine is asked, as the C library does.
fn read(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let ip = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(ip.parse().ok()?, PORT))
    });
    let mut servers: Vec<SocketAddr> = servers.take(MAX_RESOLVERS).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    servers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn resolvers_are_read_as_the_c_library_does() {
        let text = "# by hand\nsearch home\nnameserver 192.168.1.1\n nameserver\tfd00::1 # v6\nnameserver x\n\
                    nameserver fe80::1%eth0\n#nameserver 1.1.1.1\nnameservers 1.1.1.2\nnameserver 10.0.0.1\n\
                    nameserver 10.0.0.2\n";
        let found: Vec<String> = read(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.168.1.1:53", "[fd00::1]:53", "10.0.0.1:53"]);
        assert_eq!(read("nameserver"), ["127.0.0.1:53".parse().unwrap()]);
    }
}
