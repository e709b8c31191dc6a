//! What a web page of somebody else can make a browser of the household send.

use super::bench::{Bench, Problem, Refusal, Status, request};

const EVIL: &str = "https://evil.example";

pub(crate) async fn attack(bench: &mut Bench) {
    let bearer = format!("Bearer {}", bench.operator);
    let authorised = ("Authorization", &*bearer);
    let note = "/api/v1/objects/note/x";
    let body = b"{\"set\":{\"a\":1}}";
    let upgrade = [
        authorised,
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "hearth.v1"),
    ];
    let upgraded = |more: &[(&str, &str)]| {
        let all: Vec<(&str, &str)> = upgrade.iter().chain(more).copied().collect();
        request("GET", "/api/v1/watch", &all, b"")
    };
    let cases: Vec<(&str, Vec<u8>, Refusal)> = vec![
        (
            "a name that was rebound to this address",
            request("GET", "/api/v1/status", &[authorised, ("Host", "evil.example")], b""),
            Problem(421, "unknown-host"),
        ),
        (
            "a rebound name with the port of this node",
            request("GET", "/healthz", &[("Host", "rebind.evil.example:7843")], b""),
            Problem(421, "unknown-host"),
        ),
        (
            "a rebound name in the target",
            request(
                "GET",
                "https://evil.example/api/v1/status",
                &[authorised, ("Host", "evil.example")],
                b"",
            ),
            Problem(421, "unknown-host"),
        ),
        (
            "a name that only begins like this node's",
            request("GET", "/healthz", &[("Host", "localhost.evil.example")], b""),
            Problem(421, "unknown-host"),
        ),
        (
            "two hosts",
            request("GET", "/healthz", &[("Host", "localhost"), ("Host", "evil.example")], b""),
            Status(400),
        ),
        ("no host", b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), Status(400)),
        ("a WebSocket of another site", upgraded(&[("Origin", EVIL)]), Problem(403, "foreign-origin")),
        (
            "a WebSocket of a page without an origin",
            upgraded(&[("Origin", "null")]),
            Problem(403, "foreign-origin"),
        ),
        (
            "a WebSocket of a page without TLS",
            upgraded(&[("Origin", "http://localhost")]),
            Problem(403, "foreign-origin"),
        ),
        (
            "a WebSocket of another port",
            upgraded(&[("Origin", "https://localhost:1")]),
            Problem(403, "foreign-origin"),
        ),
        (
            "a write of another site",
            request("PATCH", note, &[authorised, ("Origin", EVIL)], body),
            Problem(403, "foreign-origin"),
        ),
        (
            "a write that the browser calls cross-site",
            request("PATCH", note, &[authorised, ("Sec-Fetch-Site", "cross-site")], body),
            Problem(403, "foreign-origin"),
        ),
        (
            "a question whether another site may write",
            request("OPTIONS", note, &[("Origin", EVIL), ("Access-Control-Request-Method", "PATCH")], b""),
            Problem(403, "foreign-origin"),
        ),
        (
            "a sign-in of another site",
            request("POST", "/api/v1/login", &[("Origin", EVIL)], b"{\"user\":\"ann\",\"password\":\"x\"}"),
            Problem(403, "foreign-origin"),
        ),
    ];
    for (name, bytes, refusal) in cases {
        bench.http(name, &bytes, refusal).await;
    }
}
