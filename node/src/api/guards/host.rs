//! The names under which this node answers.
//!
//! A page of a stranger can have its own name lead to an address of the home (DNS rebinding), and its browser
//! then sends it here as the page's own. It still says the name in `Host`, which is no name of this node. An
//! address in its place cannot have been bent, so every address will do.

use std::{fmt, net::IpAddr};

use axum::http::{
    HeaderMap, StatusCode, Uri, Version,
    header::HOST,
    uri::{Authority, Scheme},
};

use crate::api::problem::Problem;

/// Says whether a name, in lower case, is one of this node.
pub type IsName = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Where a client wants to be: a host in lower case without brackets and final dot, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Place {
    /// Reads `HOST`, `HOST:PORT` or an address with them.
    pub(super) fn read(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok().filter(|_| !text.contains('@'))?;
        let port = match text.strip_prefix(authority.host())? {
            "" => None,
            // Nobody sends a colon without a number, or one that is no port, by accident.
            rest => Some(rest.strip_prefix(':')?.parse().ok()?),
        };
        let host = authority.host().trim_matches(['[', ']']);
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        Some(Self { host, port }).filter(|place| !place.host.is_empty())
    }

    /// As the origin of a page over TLS has it, without the usual port.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port.filter(|port| *port != 443) {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

/// The names of this node.
pub struct Hosts {
    names: Vec<String>,
    is_name: IsName,
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Hosts {
    /// These names, beside `localhost`, the name of the machine and the node's own with `.local`; and what
    /// `is_name` knows.
    pub fn new(names: &[String], hostname: &str, node: &str, is_name: IsName) -> Self {
        let own = [hostname.to_owned(), format!("{hostname}.local"), format!("{node}.local")];
        let own = own.into_iter().chain(["localhost".to_owned()]);
        let names = names.iter().cloned().chain(own).map(|name| name.to_ascii_lowercase());
        Self { names: names.collect(), is_name }
    }

    /// Where the client wants to be, if that is here; none for a client of HTTP/1.0 that does not say.
    pub(super) fn check(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<Place>, Problem> {
        let place = match headers.get(HOST).map(|host| host.to_str().ok().and_then(Place::read)) {
            Some(Some(place)) => Some(place),
            Some(None) => return Err(bad("`Host` is not a host with or without a port")),
            None if version < Version::HTTP_11 => None,
            None => return Err(bad("there is no `Host`")),
        };
        // The target in its absolute form says it once more (RFC 9112, section 3.2.2).
        if let Some(target) = uri.authority() {
            let scheme = uri.scheme().unwrap_or(&Scheme::HTTPS);
            let target = Place::read(target.as_str()).ok_or_else(|| bad("the target names no host"))?;
            if *scheme != Scheme::HTTPS || place.as_ref().is_some_and(|place| *place != target) {
                return Err(bad("`Host` and the target of the request differ"));
            }
            self.must_know(&target)?;
        }
        place.as_ref().map_or(Ok(()), |place| self.must_know(place))?;
        Ok(place)
    }

    /// Refuses a name that is none of this node.
    pub(super) fn must_know(&self, place: &Place) -> Result<(), Problem> {
        let Place { host, .. } = place;
        if place.is_address() || self.names.contains(host) || (self.is_name)(host) {
            return Ok(());
        }
        let shown: String = host.chars().take(64).collect();
        Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown-host",
            "This node has no such name",
            format!("`{shown}` is no name of this node: a page of somebody else may have sent you here"),
            format!(
                "use an address or another name of it, or add \"{shown}\" to `hosts` under `[api]` in hearth.toml"
            ),
        ))
    }
}

fn bad(detail: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "host",
        "The request does not say whom it is for",
        detail,
        "send one `Host` with the name or address of this node",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn hosts() -> Hosts {
        let is_name: IsName = Box::new(|name| name == "home.example.org");
        Hosts::new(&["Lamp.LAN".to_owned()], "pi", "Kitchen", is_name)
    }

    fn check(version: Version, target: &str, host: Option<&str>) -> Result<Option<Place>, u16> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, host.parse().unwrap());
        }
        let checked = hosts().check(version, &target.parse().unwrap(), &headers);
        checked.map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn addresses_and_own_names_pass_whatever_the_port() {
        for host in [
            "192.168.1.5",
            "192.168.1.5:7843",
            "[::1]:7843",
            "[fe80::1]",
            "localhost:1",
            "LOCALHOST",
            "pi",
            "pi.local",
            "kitchen.local:443",
            "lamp.lan",
            "home.example.org",
            "home.example.org.",
        ] {
            assert!(check(Version::HTTP_11, "/", Some(host)).unwrap().is_some(), "{host}");
        }
    }

    #[test]
    fn the_name_of_somebody_else_is_misdirected() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "home.example.org.evil.example",
            "pi.evil",
            "192.168.1.5.nip.io",
            "127.1",
            "0x7f.1",
            "kitchen",
            "xn--80ak6aa92e.com",
        ] {
            assert_eq!(check(Version::HTTP_11, "/", Some(host)), Err(421), "{host}");
        }
        let refused = hosts().must_know(&Place::read("evil.example").unwrap()).unwrap_err();
        assert!(refused.fix().contains("[api]") && refused.fix().contains("evil.example"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in ["", "a b", "user@localhost", "localhost:", "localhost:99999", "localhost/x", "[::1", "."]
        {
            assert_eq!(check(Version::HTTP_11, "/", Some(host)), Err(400), "{host:?}");
        }
        assert_eq!(check(Version::HTTP_11, "/", None), Err(400));
        assert_eq!(check(Version::HTTP_10, "/", None), Ok(None));
        assert_eq!(check(Version::HTTP_10, "/", Some("evil.example")), Err(421));
    }

    #[test]
    fn a_target_in_absolute_form_is_looked_at_too() {
        let own = Some("localhost");
        assert!(check(Version::HTTP_11, "https://localhost/healthz", own).is_ok());
        assert_eq!(check(Version::HTTP_11, "https://evil.example/healthz", own), Err(400));
        assert_eq!(check(Version::HTTP_11, "http://localhost/healthz", own), Err(400));
        assert_eq!(check(Version::HTTP_10, "https://evil.example/healthz", None), Err(421));
        assert_eq!(check(Version::HTTP_11, "https://evil.example/", Some("evil.example")), Err(421));
        assert_eq!(check(Version::HTTP_11, "evil.example:443", own), Err(400), "CONNECT");
    }
}
