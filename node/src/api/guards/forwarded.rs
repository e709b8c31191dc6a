//! Who a client is that comes through a proxy.
//!
//! What `Forwarded` (RFC 7239) and `X-Forwarded-*` say is believed of the proxies that `[api] proxies` names, and of
//! nobody else. Each proxy adds whom it heard it from on the right, so the client is the right-most one that is
//! no such proxy; what stands left of it anybody may have written.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use axum::http::{HeaderMap, HeaderName, StatusCode, header::FORWARDED};

use super::host::Place;
use crate::api::problem::Problem;

/// Hops that are looked at; a home has one or two.
const MAX_HOPS: usize = 16;
/// Where a proxy does not know the client, or hides it: an address that is nowhere, least of all at home.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

const X_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// An address, or all that begin alike (CIDR).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether it holds an address, mapped into IPv6 or not.
    pub fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(Ipv4Addr::BITS - self.bits).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - self.bits).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    /// `ADDRESS` or `ADDRESS/BITS`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(of, bits)| (of, Some(bits)));
        let address = address.parse::<IpAddr>().map_err(|_| ())?.to_canonical();
        let most = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| ()))?;
        Some(Self { address, bits }).filter(|_| bits <= most).ok_or(())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// The proxy that it came through, if it did.
    pub(super) via: Option<IpAddr>,
    /// Where it wanted to be, by the proxy.
    pub(super) host: Option<Place>,
    /// Whether it spoke to the proxy without TLS.
    pub(super) is_plain: bool,
}

impl Client {
    /// The client of a connection from this address.
    pub(super) fn of(peer: SocketAddr, headers: &HeaderMap, proxies: &[Network]) -> Result<Self, Problem> {
        let peer = peer.ip().to_canonical();
        let is_proxy = |address: IpAddr| proxies.iter().any(|proxy| proxy.holds(address));
        let direct = Self { address: peer, via: None, host: None, is_plain: false };
        if !is_proxy(peer) {
            return Ok(direct);
        }
        let (standard, usual) = (Told::standard(headers), Told::usual(headers));
        let client = |told: &Told| told.client(is_proxy).unwrap_or(peer);
        let told = match (standard, usual) {
            // A proxy that sets one of the two passes on what the client wrote in the other.
            (Some(one), Some(other)) if client(&one) != client(&other) => {
                return Err(contradiction());
            }
            (Some(told), _) | (None, Some(told)) => told,
            (None, None) => return Ok(direct),
        };
        let host = told.host.as_deref().map(|host| Place::read(host).ok_or_else(contradiction));
        Ok(Self { address: client(&told), via: Some(peer), host: host.transpose()?, is_plain: told.is_plain })
    }
}

/// What one kind of header tells.
struct Told {
    /// The last ones, from left to right.
    hops: Vec<IpAddr>,
    host: Option<String>,
    is_plain: bool,
}

impl Told {
    /// By RFC 7239. What the last proxy says of host and scheme counts.
    fn standard(headers: &HeaderMap) -> Option<Self> {
        let all = whole(headers, &FORWARDED)?;
        let mut told = Self { hops: Vec::new(), host: None, is_plain: false };
        for element in last(&all) {
            let (mut hop, mut host, mut is_plain) = (UNKNOWN, None, false);
            for pair in element.split(';') {
                let Some((name, value)) = pair.split_once('=') else { continue };
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "for" => hop = address(value),
                    "host" => host = Some(value.to_owned()),
                    "proto" => is_plain = value.eq_ignore_ascii_case("http"),
                    _ => {}
                }
            }
            told.hops.push(hop);
            (told.host, told.is_plain) = (host, is_plain);
        }
        Some(told)
    }

    /// By the headers that everybody uses.
    fn usual(headers: &HeaderMap) -> Option<Self> {
        let all = whole(headers, &X_FOR)?;
        let one = |name: &HeaderName| whole(headers, name).and_then(|all| last(&all).last().cloned());
        let is_plain = one(&X_PROTO).is_some_and(|proto| proto.eq_ignore_ascii_case("http"));
        Some(Self { hops: last(&all).iter().map(|hop| address(hop)).collect(), host: one(&X_HOST), is_plain })
    }

    /// The right-most hop that is no proxy; the left-most, where all are.
    fn client(&self, is_proxy: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let client = self.hops.iter().rev().find(|hop| !is_proxy(**hop));
        client.or(self.hops.first()).copied()
    }
}

/// Every header of that name as one list.
fn whole(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let texts: Vec<&str> = headers.get_all(name).iter().map(|text| text.to_str().unwrap_or("?")).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// The last elements of a list, from left to right. A comma in quotes splits as well, and what comes of it is no address.
fn last(list: &str) -> Vec<String> {
    let mut last: Vec<String> = list.rsplit(',').take(MAX_HOPS).map(|hop| hop.trim().to_owned()).collect();
    last.reverse();
    last
}

/// The address of a hop, with or without a port.
fn address(text: &str) -> IpAddr {
    let bare = text.parse().ok().or_else(|| text.trim_matches(['[', ']']).parse().ok());
    let address = bare.or_else(|| text.parse::<SocketAddr>().ok().map(|at| at.ip()));
    address.map_or(UNKNOWN, |address: IpAddr| address.to_canonical())
}

fn contradiction() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "forwarded",
        "The proxy contradicts itself",
        "what it says of the client in `Forwarded` and in `X-Forwarded-*` is not the same, or names no host",
        "have the proxy set one of the two and drop the other, which the client may have written",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    fn client(peer: &str, headers: &[(HeaderName, &str)]) -> Result<Client, Problem> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        let proxies: Vec<Network> =
            ["10.0.0.2", "fd00::/64"].iter().map(|text| text.parse().unwrap()).collect();
        Client::of(SocketAddr::new(peer.parse().unwrap(), 4_000), &map, &proxies)
    }

    fn address_of(peer: &str, headers: &[(HeaderName, &str)]) -> String {
        client(peer, headers).unwrap().address.to_string()
    }

    #[test]
    fn nobody_but_a_proxy_is_believed() {
        let forged = [(X_FOR, "127.0.0.1"), (FORWARDED, "for=127.0.0.1"), (X_HOST, "evil.example")];
        let seen = client("203.0.113.9", &forged).unwrap();
        assert_eq!((seen.address.to_string().as_str(), seen.via, seen.host), ("203.0.113.9", None, None));
        assert_eq!(address_of("10.0.0.3", &forged), "10.0.0.3");
    }

    #[test]
    fn the_right_most_hop_that_is_no_proxy_is_the_client() {
        let of = |text| address_of("10.0.0.2", &[(X_FOR, text)]);
        assert_eq!(of("198.51.100.7"), "198.51.100.7");
        assert_eq!(of("127.0.0.1, 198.51.100.7"), "198.51.100.7", "the left is forged");
        assert_eq!(of("127.0.0.1, 198.51.100.7, fd00::9, 10.0.0.2"), "198.51.100.7");
        assert_eq!(of("10.0.0.2"), "10.0.0.2", "the proxy itself asks");
        assert_eq!(of("198.51.100.7:1234"), "198.51.100.7");
        assert_eq!(of("[2001:db8::1]:1234"), "2001:db8::1");
        assert_eq!(of("::ffff:198.51.100.7"), "198.51.100.7");
        for nobody in ["unknown", "_hidden", "", "127.0.0.1, nonsense", "localhost", "1.2.3"] {
            assert_eq!(of(nobody), "0.0.0.0", "{nobody:?} is not at home");
        }
        let two = [(X_FOR, "127.0.0.1"), (X_FOR, "198.51.100.7")];
        assert_eq!(address_of("10.0.0.2", &two), "198.51.100.7", "two lines are one list");
        assert_eq!(client("::ffff:10.0.0.2", &two).unwrap().via, Some("10.0.0.2".parse().unwrap()));
        assert_eq!(of(&["1.1.1.1"; 10_000].join(",")), "1.1.1.1");
    }

    #[test]
    fn the_standard_header_is_read_too() {
        let of = |text| client("10.0.0.2", &[(FORWARDED, text)]).unwrap();
        let whole =
            of("for=1.1.1.1, For=\"[2001:db8::1]:47011\";proto=http;host=\"Home.example.org:8443\";by=_x");
        assert_eq!(whole.address.to_string(), "2001:db8::1");
        assert_eq!((whole.is_plain, whole.host), (true, Place::read("home.example.org:8443")));
        assert_eq!(of("for=_secret").address, UNKNOWN);
        assert_eq!(of("proto=https").address, UNKNOWN);
        assert_eq!(of("for=\"1.2.3.4, for=5.6.7.8\"").address.to_string(), "5.6.7.8");
    }

    #[test]
    fn a_proxy_that_passes_on_what_the_client_wrote_is_refused() {
        let forged = [(X_FOR, "198.51.100.7"), (FORWARDED, "for=127.0.0.1")];
        assert_eq!(client("10.0.0.2", &forged).unwrap_err().status(), StatusCode::BAD_REQUEST);
        let same = [(X_FOR, "198.51.100.7"), (FORWARDED, "for=198.51.100.7")];
        assert_eq!(address_of("10.0.0.2", &same), "198.51.100.7");
        assert!(client("10.0.0.2", &[(X_FOR, "1.1.1.1"), (X_HOST, "a b")]).is_err());
    }

    #[test]
    fn networks_hold_what_begins_alike() {
        let network = |text: &str| text.parse::<Network>();
        assert!(network("192.168.0.0/16").unwrap().holds("192.168.255.1".parse().unwrap()));
        assert!(!network("192.168.0.0/16").unwrap().holds("192.169.0.1".parse().unwrap()));
        assert!(network("0.0.0.0/0").unwrap().holds("8.8.8.8".parse().unwrap()));
        assert!(!network("::/0").unwrap().holds("8.8.8.8".parse().unwrap()));
        assert!(network("::1").unwrap().holds("::1".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "proxy.lan", "10.0.0.0/x"] {
            assert!(network(bad).is_err(), "{bad}");
        }
        assert_eq!(network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
    }

    proptest! {
        #[test]
        fn whatever_is_written_left_of_the_proxy_changes_nothing(forged in "[ -~]{0,80}") {
            let header = format!("{forged}, 198.51.100.7");
            prop_assert_eq!(address_of("10.0.0.2", &[(X_FOR, &header)]), "198.51.100.7");
            let header = format!("{forged}, for=198.51.100.7");
            prop_assert_eq!(address_of("10.0.0.2", &[(FORWARDED, &header)]), "198.51.100.7");
        }
    }
}
