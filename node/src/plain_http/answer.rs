//! What the HTTP port answers: the file of a challenge, a way to HTTPS, or no.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    Reply,
    head::{Head, Host, HostName},
    port::{HttpCounters, Outcome},
};
use crate::tls::{
    WebNames,
    acme::{Domain, answers::Served},
    local_ca::first_label,
};

/// Below this an authority looks for the answers to its challenges (RFC 8555, section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";
/// The port that a URL with `https` need not name.
const HTTPS: u16 = 443;

/// Whom the port speaks for.
#[derive(Debug, Clone)]
pub struct Site {
    /// The answers to challenges.
    pub answers: watch::Receiver<Arc<Served>>,
    /// The public names of this node.
    pub domains: Vec<Domain>,
    /// The names and addresses that it has at home.
    pub names: watch::Receiver<WebNames>,
    /// The port of the API.
    pub api_port: u16,
    /// The port under which the API is reached by the public names: a router may map it.
    pub public_port: u16,
}

impl Site {
    /// Answers a request.
    pub(super) fn answer(&self, head: &Head) -> (Outcome, Reply) {
        if !matches!(head.method.as_str(), "GET" | "HEAD") {
            let mut reply = Reply::text("405 Method Not Allowed", "this port knows GET and HEAD only\n");
            reply.headers = "Allow: GET, HEAD\r\n".to_owned();
            return (Outcome::Refused, reply);
        }
        let Some(host) = &head.host else {
            return (Outcome::Refused, Reply::text("400 Bad Request", "which host is meant?\n"));
        };
        match head.path.strip_prefix(CHALLENGES) {
            Some(token) => self.challenge(host, token),
            None => self.redirect(head, host),
        }
    }

    fn challenge(&self, host: &Host, token: &str) -> (Outcome, Reply) {
        let answers = self.answers.borrow();
        let answer = match &host.name {
            HostName::Name(name) => answers.key_authorization(name, token),
            HostName::Address(_) => None,
        };
        match answer {
            Some(answer) => (Outcome::Challenge, Reply::text("200 OK", answer)),
            None => (Outcome::UnknownChallenge, Reply::text("404 Not Found", "no such challenge\n")),
        }
    }

    /// The same path by HTTPS, at a host that is this node: whoever asks for another is not sent anywhere.
    fn redirect(&self, head: &Head, host: &Host) -> (Outcome, Reply) {
        let Some(port) = self.port_of(&host.name) else {
            return (
                Outcome::Refused,
                Reply::text("421 Misdirected Request", "this node is not that host\n"),
            );
        };
        let port = if port == HTTPS { String::new() } else { format!(":{port}") };
        // HTTP/1.0 knows no 308.
        let status = if head.is_old { "301 Moved Permanently" } else { "308 Permanent Redirect" };
        let mut reply = Reply::text(status, "this is served by HTTPS only\n");
        reply.headers = format!("Location: https://{}{port}{}\r\n", host.name, head.path);
        (Outcome::Redirected, reply)
    }

    fn port_of(&self, host: &HostName) -> Option<u16> {
        let names = self.names.borrow();
        match host {
            HostName::Name(name) if self.domains.iter().any(|domain| domain.covers(name)) => {
                Some(self.public_port)
            }
            HostName::Name(name) => is_own_name(name, &names).then_some(self.api_port),
            HostName::Address(address) => {
                let address = address.to_canonical();
                let is_own = address.is_loopback() || names.addresses.contains(&address);
                is_own.then_some(self.api_port)
            }
        }
    }
}

/// Whether the certificate of the local authority holds for it.
fn is_own_name(name: &str, names: &WebNames) -> bool {
    let bare = name.strip_suffix(".local").unwrap_or(name);
    name == "localhost" || first_label(&names.hostname).is_some_and(|own| own == bare)
}

impl Outcome {
    pub(super) fn count(self, counters: &HttpCounters) {
        use crate::transport::counters::bump;
        bump(match self {
            Self::Challenge => &counters.http_port_challenge_answered,
            Self::UnknownChallenge => &counters.http_port_challenge_unknown,
            Self::Redirected => &counters.http_port_redirected,
            Self::Refused => &counters.http_port_refused,
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn site(answers: Served) -> Site {
        let names =
            WebNames { hostname: "Kitchen.lan".into(), addresses: vec!["192.168.1.5".parse().unwrap()] };
        Site {
            answers: watch::channel(Arc::new(answers)).1,
            domains: vec!["home.example.org".parse().unwrap(), "*.pi.example.org".parse().unwrap()],
            names: watch::channel(names).1,
            api_port: 7843,
            public_port: 443,
        }
    }

    fn ask(site: &Site, line: &str, host: &str) -> (Outcome, Reply) {
        let head = Head::parse(format!("{line}\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        site.answer(&head)
    }

    fn location(reply: &Reply) -> Option<&str> {
        reply.headers.strip_prefix("Location: ")?.strip_suffix("\r\n")
    }

    #[test]
    fn the_file_of_a_challenge_is_for_its_host_alone() {
        let site = site(Served::of_http(&[("home.example.org", "Tok_en-1", "Tok_en-1.thumb")]));
        for host in ["home.example.org", "HOME.example.org.", "home.example.org:5002"] {
            let (outcome, reply) = ask(&site, "GET /.well-known/acme-challenge/Tok_en-1 HTTP/1.1", host);
            assert_eq!(
                (outcome, reply.status, reply.body.as_str()),
                (Outcome::Challenge, "200 OK", "Tok_en-1.thumb")
            );
        }
        let huge = "a".repeat(7_000);
        for (path, host) in [
            ("Tok_en-1", "other.pi.example.org"),
            ("Tok_en-1", "192.168.1.5"),
            ("Tok_en-1", "kitchen.local"),
            ("", "home.example.org"),
            ("tok_en-1", "home.example.org"),
            ("Tok_en-1/", "home.example.org"),
            ("Tok_en-1?x", "home.example.org"),
            ("Tok_en%2D1", "home.example.org"),
            ("%54ok_en-1", "home.example.org"),
            ("../Tok_en-1", "home.example.org"),
            ("..%2f..%2fetc%2fpasswd", "home.example.org"),
            ("../../api/v1/ca", "home.example.org"),
            (&huge, "home.example.org"),
        ] {
            let (outcome, reply) =
                ask(&site, &format!("GET /.well-known/acme-challenge/{path} HTTP/1.1"), host);
            assert_eq!(
                (outcome, reply.status),
                (Outcome::UnknownChallenge, "404 Not Found"),
                "{path} {host}"
            );
            assert_eq!(location(&reply), None);
        }
    }

    #[test]
    fn its_own_hosts_are_sent_to_https_and_no_others() {
        let site = site(Served::default());
        for (host, to) in [
            ("home.example.org", "https://home.example.org/a?b"),
            ("Home.Example.org.:80", "https://home.example.org/a?b"),
            ("x.pi.example.org", "https://x.pi.example.org/a?b"),
            ("kitchen", "https://kitchen:7843/a?b"),
            ("KITCHEN.local:8080", "https://kitchen.local:7843/a?b"),
            ("localhost", "https://localhost:7843/a?b"),
            ("192.168.1.5", "https://192.168.1.5:7843/a?b"),
            ("[::ffff:192.168.1.5]", "https://[::ffff:192.168.1.5]:7843/a?b"),
            ("[::1]", "https://[::1]:7843/a?b"),
        ] {
            let (outcome, reply) = ask(&site, "GET /a?b HTTP/1.1", host);
            assert_eq!((outcome, reply.status), (Outcome::Redirected, "308 Permanent Redirect"));
            assert_eq!(location(&reply), Some(to));
        }
        for host in [
            "evil.example",
            "home.example.org.evil.example",
            "a.b.pi.example.org",
            "pi.example.org",
            "xkitchen.local",
            "kitchen.local.evil.example",
            "kitchen.lan",
            "192.168.1.6",
            "local",
        ] {
            let (outcome, reply) = ask(&site, "GET / HTTP/1.1", host);
            assert_eq!((outcome, reply.status), (Outcome::Refused, "421 Misdirected Request"), "{host}");
            assert_eq!(location(&reply), None, "{host}");
        }
    }

    #[test]
    fn no_path_leads_elsewhere() {
        let site = site(Served::default());
        for (path, to) in [
            ("//evil.example/", "https://localhost:7843//evil.example/"),
            ("/\\evil.example", "https://localhost:7843/\\evil.example"),
            ("/@evil.example", "https://localhost:7843/@evil.example"),
            (
                "/.well-known/../.well-known/acme-challenge",
                "https://localhost:7843/.well-known/../.well-known/acme-challenge",
            ),
            ("@evil.example", "https://localhost:7843/@evil.example"),
            (":80/x", "https://localhost:7843/:80/x"),
        ] {
            let (_, reply) = ask(&site, &format!("GET {path} HTTP/1.1"), "localhost");
            assert_eq!(location(&reply), Some(to));
        }
        let (_, reply) = ask(&site, "GET http://evil.example/ HTTP/1.1", "localhost");
        assert_eq!(reply.status, "421 Misdirected Request", "the target goes before the header");
    }

    #[test]
    fn other_methods_are_refused_and_old_clients_are_understood() {
        let site = site(Served::default());
        for line in ["POST / HTTP/1.1", "OPTIONS * HTTP/1.1", "CONNECT a:443 HTTP/1.1", "TRACE / HTTP/1.1"] {
            let (_, reply) = ask(&site, line, "localhost");
            assert_eq!(
                (reply.status, reply.headers.as_str()),
                ("405 Method Not Allowed", "Allow: GET, HEAD\r\n")
            );
        }
        assert_eq!(ask(&site, "HEAD / HTTP/1.0", "localhost").1.status, "301 Moved Permanently");
        let nobody = Head::parse(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(site.answer(&nobody).1.status, "400 Bad Request");
    }
}
