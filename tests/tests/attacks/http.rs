//! Requests that break the rules of HTTP (RFC 9110, RFC 9112), of JSON, or of this API.

use serde_json::json;

use super::bench::{Bench, Hangup, Problem, Refusal, Status, asked, request};

const OBJECT: &str = "/api/v1/objects/note/x";

pub(crate) async fn attack(bench: &mut Bench) {
    framing(bench).await;
    paths(bench).await;
    bodies(bench).await;
    values(bench).await;
}

/// Two servers that read one message differently let one client speak in the name of another.
async fn framing(bench: &mut Bench) {
    let bearer = format!("Bearer {}", bench.operator);
    let both = [("Authorization", &*bearer), ("Content-Length", "5"), ("Transfer-Encoding", "chunked")];
    let raw = |text: &str| text.as_bytes().to_vec();
    let cases: Vec<(&str, Vec<u8>, Refusal)> = vec![
        (
            "a length that is no number",
            request("POST", "/api/v1/events", &[("Content-Length", "five")], b"x"),
            Status(400),
        ),
        (
            "a negative length",
            request("POST", "/api/v1/events", &[("Content-Length", "-1")], b"x"),
            Status(400),
        ),
        (
            "a length with a plus",
            request("POST", "/api/v1/events", &[("Content-Length", "+5")], b"hello"),
            Status(400),
        ),
        (
            "two lengths that differ",
            request("POST", "/api/v1/events", &[("Content-Length", "5"), ("Content-Length", "6")], b"hello!"),
            Status(400),
        ),
        // The chunks count (RFC 9112, section 6.3): they hold an empty document, whatever the length says.
        (
            "a length and chunks",
            request("PATCH", OBJECT, &both, b"0\r\n\r\n"),
            Problem(422, "invalid-request"),
        ),
        (
            "chunks that are not the last coding",
            request("PATCH", OBJECT, &[("Transfer-Encoding", "chunked, identity")], b"0\r\n\r\n"),
            Status(400),
        ),
        (
            "a coding that nobody knows",
            request("PATCH", OBJECT, &[("Transfer-Encoding", "xchunked")], b"0\r\n\r\n"),
            Status(400),
        ),
        (
            "a folded header",
            raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n c\r\n\r\n"),
            Status(400),
        ),
        ("a space before the colon", raw("GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n"), Status(400)),
        (
            "a header without a name",
            raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n"),
            Status(400),
        ),
        (
            "a zero in a header",
            raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: a\0b\r\n\r\n"),
            Status(400),
        ),
        (
            "a version that does not exist",
            raw("GET /healthz HTTP/7.3\r\nHost: localhost\r\n\r\n"),
            Status(400),
        ),
        ("no method", raw(" /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"), Status(400)),
        ("the preface of HTTP/2", raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Hangup),
        (
            "a head of 64 KiB",
            request("GET", "/healthz", &[("X-Long", &"x".repeat(64 * 1024))], b""),
            Status(431),
        ),
        (
            "a thousand headers",
            {
                let many: Vec<(String, String)> =
                    (0..1_000).map(|n| (format!("X-{n}"), "y".to_owned())).collect();
                let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
                request("GET", "/healthz", &many, b"")
            },
            Status(431),
        ),
    ];
    for (name, bytes, refusal) in cases {
        bench.http(name, &bytes, refusal).await;
    }
}

/// Paths that try to be another path.
async fn paths(bench: &mut Bench) {
    let operator = bench.operator.clone();
    let cases = [
        ("dots that climb", "/api/v1/../../etc/passwd", Problem(404, "not-found")),
        ("dots that climb, encoded", "/api/v1/objects/..%2f..%2fetc/passwd", Problem(400, "name")),
        ("a path beside the guarded one", "/api/v1//status", Problem(404, "not-found")),
        ("another case", "/API/V1/STATUS", Problem(404, "not-found")),
        ("a slash at the end", "/api/v1/status/", Problem(404, "not-found")),
        ("a parameter in the path", "/api/v1/status;admin=true", Problem(404, "not-found")),
        ("a zero in a name", "/api/v1/objects/note/a%00b", Problem(400, "name")),
        ("a name that is no UTF-8", "/api/v1/objects/note/%ff%fe", Problem(422, "invalid-request")),
        (
            "a name of two thousand bytes",
            &format!("/api/v1/objects/note/{}", "n".repeat(2_000)),
            Problem(400, "name"),
        ),
        ("a kind that climbs", "/api/v1/objects/%2e%2e/token", Problem(400, "name")),
        ("a parameter that nobody knows", "/api/v1/objects?prefix=&role=admin", Problem(400, "query")),
        ("a limit beyond all pages", "/api/v1/objects?limit=99999999999999999999", Problem(400, "query")),
    ];
    for (name, path, refusal) in cases {
        bench.http(name, &asked(&operator, "GET", path, None), refusal).await;
    }
    bench
        .http(
            "a method that is not there",
            &asked(&operator, "TRACE", "/api/v1/status", None),
            Problem(405, "method"),
        )
        .await;
    bench.http("a tunnel", &asked(&operator, "CONNECT", "localhost:22", None), Problem(400, "host")).await;
}

/// Bodies that are not what they say.
async fn bodies(bench: &mut Bench) {
    let bearer = format!("Bearer {}", bench.operator);
    let nested = format!("{{\"set\":{{\"a\":{}1{}}}}}", "[".repeat(10_000), "]".repeat(10_000));
    let wide = format!("{{\"set\":{{\"a\":[{}1]}}}}", "1,".repeat(600_000));
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xed, 0xc1, 1, 1, 0, 0, 0, 0x80, 0x90];
    let typed = |kind: &str, body: &[u8]| {
        request("PATCH", OBJECT, &[("Authorization", &*bearer), ("Content-Type", kind)], body)
    };
    let coded = [("Authorization", &*bearer), ("Content-Encoding", "gzip")];
    let cases: Vec<(&str, Vec<u8>, Refusal)> = vec![
        (
            "JSON that nests ten thousand deep",
            typed("application/json", nested.as_bytes()),
            Problem(400, "too-deep"),
        ),
        (
            "JSON larger than a document may be",
            typed("application/json", wide.as_bytes()),
            Problem(413, "too-large"),
        ),
        (
            "a body that says it has a terabyte",
            {
                request(
                    "PATCH",
                    OBJECT,
                    &[("Authorization", &*bearer), ("Content-Length", "1099511627776")],
                    b"{",
                )
            },
            Problem(413, "too-large"),
        ),
        ("a bomb in gzip", request("PATCH", OBJECT, &coded, &gzip), Problem(415, "content-encoding")),
        (
            "a form of another site",
            typed("application/x-www-form-urlencoded", b"set=1"),
            Problem(415, "media-type"),
        ),
        ("plain text that is JSON", typed("text/plain", b"{\"set\":{\"a\":1}}"), Problem(415, "media-type")),
        ("half a document", typed("application/json", b"{\"set\":{\"a\":"), Problem(400, "not-json")),
        (
            "bytes that are no UTF-8",
            typed("application/json", b"{\"set\":{\"a\":\"\xff\"}}"),
            Problem(400, "not-json"),
        ),
        (
            "a field that nobody knows",
            typed("application/json", b"{\"set\":{},\"role\":\"admin\"}"),
            Problem(422, "invalid-request"),
        ),
        ("a list for a map", typed("application/json", b"[]"), Problem(422, "invalid-request")),
    ];
    for (name, bytes, refusal) in cases {
        bench.http(name, &bytes, refusal).await;
    }
}

/// Values that no device could take.
async fn values(bench: &mut Bench) {
    let operator = bench.operator.clone();
    let cases = [
        (
            "a number beyond 64 bits",
            json!({"set": {"a": 1.0e300}, "unset": ["a"]}),
            Problem(422, "invalid-request"),
        ),
        ("a field name of a thousand bytes", json!({"set": {"f".repeat(1_000): 1}}), Problem(400, "name")),
        ("a field name with a slash", json!({"set": {"a/b": 1}}), Problem(400, "name")),
        ("nothing to do", json!({"set": {}}), Problem(422, "invalid-request")),
    ];
    for (name, body, refusal) in cases {
        bench.http(name, &asked(&operator, "PATCH", OBJECT, Some(&body)), refusal).await;
    }
}
