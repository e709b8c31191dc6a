//! One call over HTTP for whoever is no adapter: an automation that tells another program something.

use std::{fmt, net::Ipv6Addr, time::Duration};

use hyper::{Method, Uri};
use serde_json::Value;

use crate::{
    http::{Client, Origin, Request, public_tls},
    net::Route,
};

/// Most that is read of an answer, in bytes: nobody looks at it.
const MOST: usize = 64 * 1024;

/// Whom an address of HTTP calls. What decides about it and what connects to it read the address alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    origin: Origin,
    /// Behind the host, with its query; it may hold a secret.
    path: String,
}

impl Target {
    /// Of an address.
    ///
    /// # Errors
    /// Which form it must have. The text does not repeat the address, which may hold a secret.
    pub fn of(url: &str) -> Result<Self, String> {
        let wrong = || {
            "it is no address: http://HOST or https://HOST, with a port and a path where they are needed, and without a name \
             or a password before the host"
                .to_owned()
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let address = url.split(['?', '#']).next().unwrap_or_default();
        let (mut origin, _) = Origin::parse(address).map_err(|_| wrong())?;
        origin.host = plain(&origin.host).ok_or_else(wrong)?;
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self { origin, path: format!("{}{query}", uri.path()) })
    }

    /// The host, in lower case; an IPv6 address in brackets, as RFC 5952 writes it.
    pub fn host(&self) -> &str {
        &self.origin.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.origin.port
    }

    /// The port that the scheme has when none is written.
    pub fn usual_port(&self) -> u16 {
        if self.origin.tls { 443 } else { 80 }
    }
}

/// The host, with the port if that is not the usual one.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port() == self.usual_port() { f.write_str(self.host()) } else { self.origin.fmt(f) }
    }
}

/// The one way to write a host.
fn plain(host: &str) -> Option<String> {
    let Some(inner) = host.strip_prefix('[') else { return Some(host.to_ascii_lowercase()) };
    let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
    Some(format!("[{address}]"))
}

/// Calls, with a body of JSON if there is one. No redirect is followed: it could lead anywhere.
///
/// # Errors
/// Why nobody can be called, or what was answered if that was no success. The text names the host and not the rest of the address.
pub async fn call(
    method: &str,
    target: Target,
    body: Option<&Value>,
    within: Duration,
) -> Result<(), String> {
    let method: Method = method.parse().map_err(|_| format!("`{method}` is no method of HTTP"))?;
    let host = target.to_string();
    let Target { origin, path } = target;
    let tls = if origin.tls { Some(public_tls()?) } else { None };
    let request = match body {
        Some(body) => Request::json(method, path, body),
        None => Request { method, ..Request::get(path) },
    };
    let mut client = Client::new(origin, Route::default(), tls);
    let request = Request { most: MOST, ..request.within(within) };
    let answer = client.send(&request).await.map_err(|error| error.to_string())?;
    if answer.status.is_success() { Ok(()) } else { Err(format!("{host} answered {}", answer.status)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_host_is_read_in_one_way_however_it_is_written() {
        for (url, host, port) in [
            ("http://Example.ORG", "example.org", 80),
            ("https://example.org/a?b=c", "example.org", 443),
            ("https://example.org:8443/", "example.org:8443", 8_443),
            ("http://[0:0::0:1]:80/x", "[::1]", 80),
            ("http://10.0.0.7:81", "10.0.0.7:81", 81),
            ("http://a?@b/", "a", 80),
            ("http://a#@b/", "a", 80),
        ] {
            let target = Target::of(url).unwrap();
            assert_eq!((target.to_string().as_str(), target.port()), (host, port), "{url}");
        }
        for (url, path) in
            [("http://a", "/"), ("http://a/b/c/?d=e&f#g", "/b/c/?d=e&f"), ("http://a?b", "/?b")]
        {
            assert_eq!(Target::of(url).unwrap().path, path, "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_repeated() {
        for url in [
            "file:///secret",
            "http://",
            "http:///secret",
            "secret",
            "http://me:secret@host/",
            "http://host:99999/secret",
            "http://host:/secret",
            "http://[secret]/",
            "http://se cret/",
            "ftp://secret",
        ] {
            let refused = Target::of(url).unwrap_err();
            assert!(refused.contains("https://HOST") && !refused.contains("secret"), "{url}: {refused}");
        }
    }
}
