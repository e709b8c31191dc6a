//! Who says that he is somebody else, or says it once too often.

use hearth_tests::daemon::Daemon;
use serde_json::json;
use tokio::task::JoinSet;

use super::bench::{Bench, Problem, Refusal, Status, asked, request};

const STATUS: &str = "/api/v1/status";

pub(crate) async fn attack(bench: &mut Bench) {
    tokens(bench).await;
    elsewhere(bench).await;
    sign_in(bench).await;
    setup_code(bench).await;
    paced(bench).await;
}

async fn tokens(bench: &mut Bench) {
    let whole = bench.viewer.clone();
    let cut = &whole[..whole.len() - 1];
    let upper = whole.to_uppercase();
    let bearer = |token: &str| format!("Bearer {token}");
    let basic = format!("Basic {}", data_encoding::BASE64.encode(format!("hearth:{whole}").as_bytes()));
    let get = |headers: &[(&str, &str)]| request("GET", STATUS, headers, b"");
    let unknown = Problem(401, "unauthenticated");
    let cases: Vec<(&str, Vec<u8>, Refusal)> = vec![
        ("no token", get(&[]), unknown),
        ("an empty token", get(&[("Authorization", "Bearer ")]), unknown),
        ("a token that lacks its last letter", get(&[("Authorization", &bearer(cut))]), unknown),
        ("a token in capitals", get(&[("Authorization", &bearer(&upper))]), unknown),
        ("a token of ten thousand letters", get(&[("Authorization", &bearer(&"a".repeat(10_000)))]), unknown),
        ("a password in the place of a token", get(&[("Authorization", &basic)]), unknown),
        (
            "two tokens",
            get(&[("Authorization", &bearer(&whole)), ("Authorization", &bearer("x"))]),
            Status(400),
        ),
        (
            "a token in the query",
            request("GET", &format!("{STATUS}?access_token={whole}"), &[], b""),
            unknown,
        ),
        ("a token in a cookie", get(&[("Cookie", &format!("hth={whole}"))]), unknown),
        (
            "a session that nobody began",
            get(&[("Cookie", "__Host-hearth=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]),
            unknown,
        ),
        (
            "a header that only a proxy may send",
            get(&[("X-Forwarded-User", "admin"), ("X-Forwarded-For", "127.0.0.1")]),
            unknown,
        ),
    ];
    for (name, bytes, refusal) in cases {
        bench.http(name, &bytes, refusal).await;
    }
}

/// Tokens that are right somewhere else, or were right once.
async fn elsewhere(bench: &mut Bench) {
    let other = Daemon::found("neighbour").await.unwrap();
    let foreign = other.token("admin").await.unwrap();
    bench.secret(&foreign);
    bench
        .http(
            "a token of another household",
            &asked(&foreign, "GET", STATUS, None),
            Problem(401, "unauthenticated"),
        )
        .await;

    let created = bench.node.json(&["token", "create", "--role", "admin"]).await.unwrap();
    let (id, token) =
        (created["id"].as_str().unwrap().to_owned(), created["token"].as_str().unwrap().to_owned());
    bench.secret(&token);
    let client = bench.node.web(Some(&token)).await.unwrap();
    assert_eq!(client.get(STATUS).await.unwrap().status, 200);
    // It is used as fast as it can be while it is revoked: nothing that is asked after the answer is served.
    let mut racing = JoinSet::new();
    for _ in 0..16 {
        let client = client.clone();
        racing.spawn(async move { client.get(STATUS).await.unwrap().status });
    }
    let revoked = bench.node.client().send("DELETE", &format!("/api/v1/tokens/{id}"), None).await.unwrap();
    assert_eq!(revoked.status, 204, "{revoked:?}");
    let replayed = asked(&token, "GET", STATUS, None);
    bench.http("a revoked token, at once", &replayed, Problem(401, "unauthenticated")).await;
    while let Some(status) = racing.join_next().await {
        let status = status.unwrap();
        assert!(matches!(status, 200 | 401 | 429), "{status}");
    }
    bench.passed("a token that is revoked while it is used").await;
}

async fn sign_in(bench: &mut Bench) {
    let post = |body: serde_json::Value| request("POST", "/api/v1/login", &[], body.to_string().as_bytes());
    let cases = [
        (
            "a user that does not exist",
            json!({"user": "mallory", "password": "correct horse"}),
            Problem(401, "wrong-password"),
        ),
        (
            "a password of a megabyte",
            json!({"user": "mallory", "password": "x".repeat(900_000)}),
            Problem(401, "wrong-password"),
        ),
        (
            "a password that is a map",
            json!({"user": "mallory", "password": {"$ne": ""}}),
            Problem(422, "invalid-request"),
        ),
    ];
    for (name, body, refusal) in cases {
        bench.http(name, &post(body), refusal).await;
    }
}

/// The code is for one: of many who have it at the same moment one gets in.
async fn setup_code(bench: &mut Bench) {
    let shown = bench.node.json(&["setup-code"]).await.unwrap();
    let code = shown["code"].as_str().unwrap().to_owned();
    bench.secret(&code);
    bench
        .http(
            "the setup code asked for over the network",
            &asked(&bench.admin.clone(), "GET", "/api/v1/setup-code", None),
            Problem(403, "forbidden"),
        )
        .await;
    let stranger = bench.node.web(None).await.unwrap();
    let mut racing = JoinSet::new();
    for number in 0..8 {
        let (stranger, code) = (stranger.clone(), code.clone());
        racing.spawn(async move {
            let body = json!({"code": code, "user": format!("admin{number}"), "password": format!("long enough {number}")});
            stranger.send("POST", "/api/v1/setup", Some(&body)).await.unwrap().status
        });
    }
    let mut ends = Vec::new();
    while let Some(status) = racing.join_next().await {
        ends.push(status.unwrap());
    }
    assert_eq!(ends.iter().filter(|status| **status == 201).count(), 1, "one gets in: {ends:?}");
    assert!(ends.iter().all(|status| matches!(status, 201 | 410 | 429)), "{ends:?}");
    bench.passed("a setup code that eight people use at once").await;
    let again = json!({"code": code, "user": "late", "password": "long enough too"});
    let reply = stranger.send("POST", "/api/v1/setup", Some(&again)).await.unwrap();
    assert_eq!(reply.status, 410, "{reply:?}");
    bench.passed("a setup code that was used").await;
}

/// Guesses cost more and more, and cost nobody else anything.
async fn paced(bench: &mut Bench) {
    let mut last = None;
    for number in 0..10 {
        let guess = asked(&format!("hth_{number:052}"), "GET", STATUS, None);
        last = tokio::task::block_in_place(|| bench.exchange_from(250, &guess));
    }
    let last = last.unwrap();
    assert_eq!(last.status, 429, "{last:?}");
    assert!(last.head.contains("\r\nretry-after: "), "{last:?}");
    bench.passed("ten guesses at a token").await;
}
