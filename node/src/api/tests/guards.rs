#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
//! What stands before the handlers, and what is remembered of who did what.

use std::{net::SocketAddr, sync::Weak};

use super::*;
use crate::{api::access::Peer, audit::FOLDER};

/// A request over the network, from an address.
struct Knock<'b> {
    bench: &'b Bench,
    from: &'static str,
    host: &'static str,
    headers: Vec<(&'static str, String)>,
}

impl<'b> Knock<'b> {
    fn new(bench: &'b Bench) -> Self {
        Self { bench, from: "192.168.1.5:4000", host: "attic.local:7843", headers: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    async fn send(self, method: &str, path: &str, body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.host);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        let address: SocketAddr = self.from.parse().unwrap();
        request.extensions_mut().insert(Peer { address, via: None, host: None, place: Weak::new() });
        let response = self.bench.router(Access::Bearer).oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answer { status, headers, body }
    }

    async fn get(self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }
}

impl Bench {
    /// Everything that the trail says, oldest first.
    async fn trail(&self) -> Vec<Value> {
        let answer = self.call(Method::GET, "/api/v1/audit?limit=1000", Value::Null).await;
        answer.json()["records"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn a_name_that_is_none_of_this_node_is_misdirected_whatever_it_asks() {
    let bench = Bench::new();
    for path in ["/healthz", "/api/v1/ca", "/api/v1/status", "/hooks/x", "/nothing"] {
        let answer = Knock { host: "evil.example", ..Knock::new(&bench) }.get(path).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (StatusCode::MISDIRECTED_REQUEST, "unknown-host")
        );
        assert_eq!(answer.headers["x-frame-options"], "DENY");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    }
    assert_eq!(Knock::new(&bench).get("/healthz").await.status, StatusCode::OK);
    let refused = bench.trail().await;
    assert_eq!(refused[0]["what"], "GET /healthz");
    assert_eq!((&refused[0]["from"], &refused[0]["outcome"]), (&json!("192.168.1.5"), &json!("421")));
    let metrics = bench.call(Method::GET, "/metrics", Value::Null).await;
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("hearth_http_refused_total{reason=\"host\"} 5\n"), "{text}");
}

#[tokio::test]
async fn only_a_public_name_is_told_to_stay_with_https() {
    let bench = Bench::new();
    let at_home = Knock::new(&bench).get("/healthz").await;
    assert!(!at_home.headers.contains_key("strict-transport-security"));
    assert_eq!(at_home.headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
    assert_eq!(at_home.headers["referrer-policy"], "no-referrer");
    let public = Knock { host: "home.example.org", ..Knock::new(&bench) }.get("/healthz").await;
    assert_eq!(public.headers["strict-transport-security"], "max-age=63072000");
}

#[tokio::test]
async fn a_page_of_somebody_else_gets_nothing_and_a_listed_one_may_ask() {
    let bench = Bench::new();
    let token = format!("Bearer {}", bench.token(Role::Admin).await);
    let foreign = Knock::new(&bench).with("authorization", &token).with("origin", "https://evil.example");
    let answer = foreign.send("PATCH", "/api/v1/objects/note/x", "{\"set\":{\"text\":\"x\"}}").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::FORBIDDEN, "foreign-origin"));
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let listed =
        || Knock::new(&bench).with("origin", "https://panel.example").with("sec-fetch-site", "cross-site");
    let asked = listed().with("access-control-request-method", "PATCH");
    let asked = asked.send("OPTIONS", "/api/v1/objects/note/x", "").await;
    assert_eq!(asked.status, StatusCode::NO_CONTENT);
    assert_eq!(asked.headers["access-control-allow-headers"], "authorization, content-type");
    let read = listed().with("authorization", &token).get("/api/v1/objects").await;
    assert_eq!(read.status, StatusCode::OK);
    assert_eq!(read.headers["access-control-allow-origin"], "https://panel.example");
    assert_eq!(listed().get("/api/v1/objects").await.status, StatusCode::UNAUTHORIZED, "it needs a token");
}

/// The refusal of one who asks until it is told to wait.
async fn paced(bench: &Bench) -> Answer {
    for number in 0..2_000 {
        // What it claims of itself changes nothing: it is no proxy.
        let knock = Knock::new(bench).with("x-forwarded-for", &format!("10.1.{}.1", number % 250));
        let answer = knock.get("/healthz").await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return answer;
        }
    }
    panic!("it is never paced")
}

#[tokio::test]
async fn who_asks_too_often_waits_and_a_good_client_beside_it_does_not() {
    let bench = Bench::new();
    let token = format!("Bearer {}", bench.token(Role::Viewer).await);
    let refused = paced(&bench).await;
    assert_eq!(refused.problem(), "too-many-requests");
    assert_eq!(refused.headers[header::RETRY_AFTER], "1");
    let good = Knock::new(&bench).with("authorization", &token).get("/api/v1/status").await;
    assert_eq!(good.status, StatusCode::OK, "from the very same address");
    let other = Knock { from: "192.168.1.6:1", ..Knock::new(&bench) }.get("/healthz").await;
    assert_eq!(other.status, StatusCode::OK);
    // A proxy is believed. On a slow machine it may ask when the time to wait is over already; so few tries spend nothing of its own.
    let mut proxied = Vec::new();
    for _ in 0..20 {
        paced(&bench).await;
        let knock = Knock { from: "10.0.0.2:1", ..Knock::new(&bench) }.with("x-forwarded-for", "192.168.1.5");
        proxied.push(knock.get("/healthz").await.status);
    }
    assert!(proxied.contains(&StatusCode::TOO_MANY_REQUESTS), "{proxied:?}");
    // An identity has its own, wherever it comes from.
    let mut statuses = Vec::new();
    for number in 0..400_u32 {
        let knock =
            Knock { from: if number % 2 == 0 { "10.9.9.1:1" } else { "10.9.9.2:1" }, ..Knock::new(&bench) };
        statuses.push(knock.with("authorization", &token).get("/api/v1/home").await.status);
    }
    assert!(statuses.contains(&StatusCode::TOO_MANY_REQUESTS));
    assert!(statuses.iter().take(190).all(|status| *status != StatusCode::TOO_MANY_REQUESTS));
}

#[tokio::test]
async fn wrong_credentials_are_paced_as_none_are() {
    let bench = Bench::new();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..300 {
        let knock = Knock::new(&bench).with("authorization", &format!("Basic {number}"));
        seen.insert(knock.get("/api/v1/status").await.status.as_u16());
    }
    assert_eq!(Vec::from_iter(seen), [401, 429]);
}

#[tokio::test]
async fn credentials_that_nobody_looks_at_or_knows_are_paced_as_none_are() {
    let cases = [
        ("GET", "/healthz", "authorization", "Bearer x"),
        ("GET", "/healthz", "cookie", "__Host-hearth=x"),
        ("GET", "/nothing", "authorization", "Bearer x"),
        ("PUT", "/api/v1/status", "authorization", "Bearer x"),
        ("GET", "/api/v1/status", "cookie", "a=b"),
        ("GET", "/api/v1/status", "cookie", "__Host-hearth=x"),
        ("GET", "/api/v1/watch", "cookie", "a=b"),
        ("GET", "/api/v1/watch", "cookie", "__Host-hearth=x"),
    ];
    for (method, path, name, value) in cases {
        let bench = Bench::new();
        let mut is_paced = false;
        for _ in 0..300 {
            let answer = Knock::new(&bench).with(name, value).send(method, path, "").await;
            is_paced |= answer.status == StatusCode::TOO_MANY_REQUESTS;
        }
        assert!(is_paced, "{method} {path} with {name}: {value}");
    }
}

#[tokio::test]
async fn behind_a_proxy_both_hosts_must_be_known_and_the_one_that_the_browser_sees_is_that_of_the_cookie() {
    let bench = Bench::new();
    let (proxy, cookie) = ("10.0.0.2:1", "__Host-hearth=hths_unknown");
    let asked = |host: &'static str, forwarded: &str| {
        let knock = Knock { from: proxy, host, ..Knock::new(&bench) };
        knock.with("x-forwarded-for", "198.51.100.7").with("x-forwarded-host", forwarded)
    };
    for (host, forwarded) in [("evil.example", "home.example.org"), ("attic.local", "evil.example")] {
        let answer = asked(host, forwarded).get("/healthz").await;
        assert_eq!(answer.problem(), "unknown-host", "{host} for {forwarded}");
    }
    for (origin, problem) in [
        ("https://home.example.org", "unauthenticated"),
        ("http://home.example.org", "foreign-origin"),
        ("https://attic.local:7843", "foreign-origin"),
    ] {
        let knock = asked("attic.local:7843", "home.example.org:443").with("cookie", cookie);
        let answer = knock.with("origin", origin).send("POST", "/api/v1/logout", "").await;
        assert_eq!(answer.problem(), problem, "{origin}");
    }
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    let bench = Bench::new();
    let twice = Knock::new(&bench).with("host", "attic.local").get("/healthz").await;
    assert_eq!((twice.status, twice.problem().as_str()), (StatusCode::BAD_REQUEST, "header-twice"));
    let packed = Knock::new(&bench).with("content-encoding", "gzip").send("POST", "/api/v1/setup", "x").await;
    assert_eq!(packed.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let odd = Knock::new(&bench).with("expect", "a miracle").send("POST", "/api/v1/setup", "x").await;
    assert_eq!(odd.status, StatusCode::EXPECTATION_FAILED);
    let contradiction = Knock { from: "10.0.0.2:1", ..Knock::new(&bench) };
    let contradiction = contradiction.with("forwarded", "for=127.0.0.1").with("x-forwarded-for", "8.8.8.8");
    assert_eq!(contradiction.get("/healthz").await.problem(), "forwarded");
}

#[tokio::test]
async fn the_trail_says_who_did_what_from_where_and_never_a_secret() {
    let bench = Bench::new();
    bench.light("desk", "Desk", "", false).await;
    let (operator, viewer) = (bench.token(Role::Operator).await, bench.token(Role::Viewer).await);
    let of = |token: &str| {
        let knock =
            Knock { from: "10.0.0.2:1", ..Knock::new(&bench) }.with("x-forwarded-for", "198.51.100.7");
        knock.with("authorization", &format!("Bearer {token}")).with("content-type", "application/json")
    };
    let body = "{\"set\":{\"text\":\"a very secret note\"}}";
    assert_eq!(of(&operator).send("PATCH", "/api/v1/objects/note/x", body).await.status, StatusCode::OK);
    let refused = of(&viewer).send("PATCH", "/api/v1/objects/note/x", body).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(of(&operator).get("/api/v1/objects/note/x").await.status, StatusCode::OK);
    assert_eq!(of(&operator).get("/api/v1/tokens").await.status, StatusCode::FORBIDDEN);
    assert_eq!(of(&operator).get("/api/v1/audit").await.status, StatusCode::FORBIDDEN, "for admins");
    let hook = Knock::new(&bench).send("POST", "/hooks/very-secret-path", "{}").await;
    assert!(!hook.status.is_success());
    let trail = bench.trail().await;
    let told: Vec<_> = trail
        .iter()
        .map(|record| {
            let of = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            assert!(record["at"].as_str().unwrap().ends_with('Z'));
            let kind = of("who").split(':').next().unwrap_or_default().to_owned();
            (kind, of("from"), of("via"), of("what"), of("object"), of("outcome"))
        })
        .collect();
    let line = |who: &str, what: &str, object: &str, outcome: &str| {
        let (from, via) = ("198.51.100.7".to_owned(), "10.0.0.2".to_owned());
        (who.to_owned(), from, via, what.to_owned(), object.to_owned(), outcome.to_owned())
    };
    assert_eq!(told[0], line("token", "PATCH /api/v1/objects/{kind}/{name}", "note/x", "200"));
    assert_eq!(told[1], line("token", "PATCH /api/v1/objects/{kind}/{name}", "note/x", "403"));
    assert_eq!(told[2], line("token", "GET /api/v1/tokens", "", "403"));
    assert_eq!((told[4].0.as_str(), told[4].3.as_str()), ("nobody", "POST /hooks/{token}"));
    assert_eq!(told.len(), 5, "reads are not part of it: {told:?}");
    assert_ne!(trail[0]["who"], trail[1]["who"]);
    for file in std::fs::read_dir(bench.folder.path().join(FOLDER)).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for secret in ["very secret note", "very-secret-path", operator.as_str(), viewer.as_str()] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test]
async fn a_command_says_who_gave_it() {
    let bench = Bench::new();
    bench.light("desk", "Desk", "", false).await;
    let token = bench.token(Role::Operator).await;
    let command = json!({ "device": "Desk", "change": { "on": true }, "wait": true });
    let answer = bench.bearer(Some(&token), Method::POST, "/api/v1/commands", command.clone()).await;
    let shown = answer.json();
    assert!(shown["by"].as_str().unwrap().starts_with("token:"), "{shown}");
    let answer = bench.call(Method::POST, "/api/v1/commands", command).await;
    assert_eq!(answer.json()["by"], "socket", "nobody says who opened it");
}

#[tokio::test]
async fn the_kernel_says_who_opened_the_socket() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let request = "DELETE /api/v1/tokens/none HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "no guard stands there: {answer}");
    let uid = rustix::process::geteuid().as_raw();
    let trail = bench.trail().await;
    assert_eq!(trail[0]["who"], format!("socket:{uid}"));
    assert_eq!(trail[0]["object"], "token/none");
}

#[tokio::test]
async fn who_hangs_up_halfway_is_answered_and_in_the_trail() {
    let bench = Bench::new();
    let (path, _task) = bench.listen(bench.router(Access::Socket)).await;
    for number in 0..20 {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let request = format!("DELETE /api/v1/tokens/none{number} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    assert_eq!(bench.trail().await.len(), 20);
}

#[tokio::test]
async fn who_asks_for_the_setup_code_is_told_in_the_trail() {
    let bench = Bench::new();
    assert_eq!(bench.call(Method::GET, "/api/v1/setup-code", Value::Null).await.status, StatusCode::OK);
    let trail = bench.trail().await;
    let told = (&trail[0]["who"], &trail[0]["what"], &trail[0]["outcome"]);
    assert_eq!(told, (&json!("socket"), &json!("GET /api/v1/setup-code"), &json!("200")));
}
