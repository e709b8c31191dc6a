//! One call over HTTP for whoever is no adapter: an automation that tells another program something.

use std::{fmt, net::Ipv6Addr, time::Duration};

use hyper::{Method, Uri};
use serde_json::Value;

use crate::{
    http::{Client, Origin, Request, public_tls},
    net::Route,
};

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

/// Calls, with a body of JSON if there is one. What is answered is its status: the body is not read, however long it is. No
/// redirect is followed: it could lead anywhere.
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
    let client = Client::new(origin, Route::default(), tls);
    let answer = client.stream(&request.within(within)).await.map_err(|error| error.to_string())?;
    if answer.status.is_success() { Ok(()) } else { Err(format!("{host} answered {}", answer.status)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A host that answers with this, and then with more and more of it; of nothing it says nothing. How often it was called.
    async fn host(answer: String) -> (Target, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::of(&format!("http://{}/word", listener.local_addr().unwrap())).unwrap();
        let calls = Arc::new(AtomicU32::new(0));
        let count = calls.clone();
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                if answer.is_empty() {
                    silent.push(stream);
                    continue;
                }
                let mut asked = [0; 4_096];
                while !asked.starts_with(b"POST /word HTTP/1.1\r\n") {
                    let _ = stream.read(&mut asked).await.unwrap();
                }
                let mut sent = stream.write_all(answer.as_bytes()).await;
                while sent.is_ok() {
                    sent = stream.write_all(b"4\r\nmore\r\n").await;
                }
            }
        });
        (target, calls)
    }

    #[tokio::test]
    async fn an_answer_counts_when_its_head_has_come_whatever_follows() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (target, calls) = host(head.to_owned()).await;
        assert_eq!(call("POST", target, None, LONG).await, Ok(()));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        let (target, _) = host(head.replace("200 OK", "500 Broken")).await;
        assert!(call("POST", target, None, LONG).await.unwrap_err().contains("answered 500"));
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let (elsewhere, calls) =
            host("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()).await;
        let head =
            format!("HTTP/1.1 302 Found\r\nlocation: http://{elsewhere}/word\r\ncontent-length: 0\r\n\r\n");
        let (target, _) = host(head).await;
        assert!(call("POST", target, None, LONG).await.unwrap_err().contains("answered 302"));
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_host_that_says_nothing_is_given_up_at_the_deadline() {
        let (target, _) = host(String::new()).await;
        let given_up = tokio::time::timeout(LONG, call("POST", target, None, Duration::from_millis(300)));
        let given_up = given_up.await.unwrap().unwrap_err();
        assert!(given_up.contains("within 300 ms") && !given_up.contains("word"), "{given_up}");
    }

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
