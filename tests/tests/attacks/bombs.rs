//! Little to send that would be much to hold: packed, nested, announced, repeated.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tokio::task::{JoinSet, block_in_place};

use super::bench::{Bench, Problem, Refusal, asked, request, rest_kib};

const OBJECT: &str = "/api/v1/objects/note/x";
/// Largest document, in bytes, and what whoever has shown nothing may send (docs/security.md).
const DOCUMENT: usize = 1 << 20;
const AT_THE_DOOR: usize = 16 << 10;
/// What all of this may cost at its peak, in KiB: two documents at a time are read, each of which is held as it came, as what it
/// means, and as what it is copied to as it grows.
const BOUND_KIB: u64 = 48 << 10;

pub(crate) async fn attack(bench: &mut Bench) {
    let rest = rest_kib(&bench.node);
    packed(bench).await;
    before_anybody_is_known(bench).await;
    documents(bench).await;
    at_once(bench).await;
    let peak = bench.node.peak_rss_kib().unwrap();
    assert!(peak < rest + BOUND_KIB, "from {rest} KiB to {peak} KiB");
}

/// 64 MiB of nothing in 64 KiB.
fn gzip() -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(&vec![b' '; 64 << 20]).expect("it is packed");
    packer.finish().expect("it is packed")
}

/// Nothing is ever unpacked.
async fn packed(bench: &mut Bench) {
    let (bomb, bearer) = (gzip(), format!("Bearer {}", bench.admin));
    let authorised = ("Authorization", &*bearer);
    let coding = |target: &str, method: &str, coding: &str| {
        request(method, target, &[authorised, ("Content-Encoding", coding)], &bomb)
    };
    let refused = Problem(415, "content-encoding");
    for name in ["gzip", "x-gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP"] {
        bench.http(&format!("a bomb packed by {name}"), &coding(OBJECT, "PATCH", name), refused).await;
    }
    let import = request(
        "POST",
        "/api/v1/import",
        &[authorised, ("Content-Encoding", "gzip"), ("Content-Type", "application/x-ndjson")],
        &bomb,
    );
    bench.http("a bomb for an import", &import, refused).await;
    let login = request("POST", "/api/v1/login", &[("Content-Encoding", "gzip")], &bomb);
    bench.http("a bomb at the door", &login, refused).await;
    let hidden = request("PATCH", OBJECT, &[authorised], &bomb);
    bench.http("a bomb that says it is JSON", &hidden, Problem(400, "not-json")).await;
    let transfer = request("PATCH", OBJECT, &[authorised, ("Transfer-Encoding", "gzip, chunked")], &bomb);
    bench.http("a bomb as a coding of the transfer", &transfer, Problem(422, "invalid-request")).await;
}

/// Whoever has not shown anything gets room for a name and a password, not for a document.
async fn before_anybody_is_known(bench: &mut Bench) {
    let login = |headers: &[(&str, &str)], body: &[u8]| request("POST", "/api/v1/login", headers, body);
    let list = format!("{{\"user\":\"ann\",\"password\":[{}0]}}", "0,".repeat(500_000));
    let nested = format!("{{\"user\":\"ann\",\"password\":{}{}}}", "[".repeat(7_000), "]".repeat(7_000));
    let wide = format!("{{\"user\":\"ann\",\"password\":[{}0]}}", "0,".repeat(8_000));
    let setup = format!("{{\"code\":\"{}\"}}", "A".repeat(AT_THE_DOOR));
    let chunks = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n0\r\n\r\n"].concat();
    let large = Problem(413, "too-large");
    let cases: Vec<(&str, Vec<u8>, Refusal)> = vec![
        ("a list of half a million in the place of a password", login(&[], list.as_bytes()), large),
        ("a sign-in that says it has a terabyte", login(&[("Content-Length", "1099511627776")], b"{"), large),
        ("a sign-in in chunks without an end", login(&[("Transfer-Encoding", "chunked")], &chunks), large),
        ("a sign-in that nests seven thousand deep", login(&[], nested.as_bytes()), Problem(400, "too-deep")),
        ("a list in the place of a password", login(&[], wide.as_bytes()), Problem(422, "invalid-request")),
        ("a setup code of sixteen kilobytes", request("POST", "/api/v1/setup", &[], setup.as_bytes()), large),
    ];
    for (name, bytes, refusal) in cases {
        bench.http(name, &bytes, refusal).await;
    }
    // A stranger's body for what needs a token is not even read.
    let write = request("PATCH", OBJECT, &[("Content-Length", "1048576")], b"{");
    bench.http("a megabyte that nobody may send", &write, Problem(401, "unauthenticated")).await;
}

/// Documents that are small and mean much.
async fn documents(bench: &mut Bench) {
    let operator = bench.operator.clone();
    let bearer = format!("Bearer {operator}");
    let set = |value: &str| {
        let body = format!("{{\"set\":{{\"a\":{value}}}}}");
        request("PATCH", OBJECT, &[("Authorization", &*bearer)], body.as_bytes())
    };
    let digits = "9".repeat(DOCUMENT - 100);
    let maps = format!("[{}{{}}]", "{},".repeat(300_000));
    let names: String = (0..70_000).map(|n| format!("\"{n}\":0,")).collect();
    let twice =
        request("PATCH", OBJECT, &[("Authorization", &*bearer)], b"{\"set\":{\"a\":1},\"set\":{\"b\":2}}");
    let (number, many) = (Problem(400, "number-out-of-range"), Problem(400, "too-many-values"));
    let cases: Vec<(&str, Vec<u8>, Refusal)> = vec![
        ("a number of a million digits", set(&digits), number),
        ("a number with an exponent of a million", set("1e1000000"), Problem(400, "not-json")),
        ("a whole number beyond 64 bits", set("-9223372036854775809"), number),
        ("half a character", set("\"\\ud800\""), Problem(400, "not-json")),
        ("three hundred thousand maps", set(&maps), many),
        ("seventy thousand names", set(&format!("{{{names}\"x\":0}}")), many),
        ("a text of a megabyte", set(&format!("\"{}\"", "x".repeat(DOCUMENT - 100))), Problem(422, "value")),
        ("a field that is there twice", twice, Problem(422, "invalid-request")),
    ];
    for (name, bytes, refusal) in cases {
        bench.http(name, &bytes, refusal).await;
    }
}

/// The widest document that there is, on many connections at once.
async fn at_once(bench: &mut Bench) {
    let wide = json!({"set": {"a": vec![0; DOCUMENT / 2 - 100]}}).to_string();
    let client = bench.node.web(Some(&bench.operator)).await.unwrap();
    let mut sending = JoinSet::new();
    for _ in 0..32 {
        let (client, wide) = (client.clone(), wide.clone());
        sending.spawn(async move {
            client.send_as("PATCH", OBJECT, Some(("application/json", wide))).await.unwrap().problem()
        });
    }
    while let Some(problem) = sending.join_next().await {
        assert_eq!(problem.unwrap().unwrap(), "too-many-values");
    }
    bench.passed("thirty-two documents of half a million numbers at once").await;
    let plain = asked(&bench.operator.clone(), "PATCH", OBJECT, Some(&json!({"set": {"a": 1}})));
    let reply = block_in_place(|| bench.exchange(&plain));
    assert_eq!(reply.map(|reply| reply.status), Some(200), "a small one is taken");
}
