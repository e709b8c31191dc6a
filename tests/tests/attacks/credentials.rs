//! Who says that he is somebody else, or says it once too often.

use std::time::Instant;

use hearth_tests::daemon::Daemon;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use super::bench::{Bench, PASSWORD, Problem, Refusal, Status, USER, asked, request};

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

    revoked_in_use(bench).await;
}

/// A token that is written with as fast as can be, on many connections and on an open WebSocket, while it is revoked: what is asked
/// after the answer is refused on each of them.
async fn revoked_in_use(bench: &mut Bench) {
    let created = bench.node.json(&["token", "create", "--role", "admin"]).await.unwrap();
    let (id, token) =
        (created["id"].as_str().unwrap().to_owned(), created["token"].as_str().unwrap().to_owned());
    bench.secret(&token);
    let client = bench.node.web(Some(&token)).await.unwrap();
    let mut observer = client.watch().await.unwrap();
    observer.subscribe(&["none/"], None).await.unwrap();
    let mut racing = JoinSet::new();
    let (used, mut in_use) = watch::channel(0);
    let (end, is_over) = watch::channel(false);
    for number in 0..8 {
        let (client, used, is_over) = (client.clone(), used.clone(), is_over.clone());
        racing.spawn(async move {
            let path = format!("/api/v1/objects/note/race-{number}");
            let mut asked = Vec::new();
            loop {
                let begun = Instant::now();
                let body = json!({"set": {"n": asked.len()}});
                let status = client.send("PATCH", &path, Some(&body)).await.unwrap().status;
                asked.push((begun, status));
                match status {
                    200 => used.send_modify(|used| *used += 1),
                    // Too often for one identity; and once it is none, as often as a guesser.
                    429 if !*is_over.borrow() => {}
                    _ => return asked,
                }
            }
        });
    }
    in_use.wait_for(|used| *used >= 20).await.unwrap();
    let revoked = bench.node.client().send("DELETE", &format!("/api/v1/tokens/{id}"), None).await.unwrap();
    assert_eq!(revoked.status, 204, "{revoked:?}");
    let answered = Instant::now();
    end.send_replace(true);
    let replayed = asked(&token, "GET", STATUS, None);
    bench.http("a revoked token, at once", &replayed, Problem(401, "unauthenticated")).await;
    while let Some(asked) = racing.join_next().await {
        let asked = asked.unwrap();
        let late: Vec<u16> =
            asked.iter().filter(|(begun, _)| *begun > answered).map(|(_, status)| *status).collect();
        assert!(
            late.iter().all(|status| matches!(status, 401 | 429)),
            "served after it was revoked: {late:?}"
        );
        assert!(matches!(asked.last().unwrap().1, 401 | 429), "{asked:?}");
    }
    bench.passed("a token that is revoked while it is written with").await;
    let ended = observer.next().await.unwrap_err().to_string();
    assert!(ended.contains("4401"), "{ended}");
    bench.passed("a WebSocket whose token is revoked").await;
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
            Problem(413, "too-large"),
        ),
        (
            "a password that is a map",
            json!({"user": "mallory", "password": {"$ne": ""}}),
            Problem(422, "invalid-request"),
        ),
        ("a password as the whole document", json!(PASSWORD), Problem(422, "invalid-request")),
        (
            "a password that is a list",
            json!({"user": USER, "password": [PASSWORD]}),
            Problem(422, "invalid-request"),
        ),
        ("a password for a name", json!({"user": PASSWORD, "password": "x"}), Problem(401, "wrong-password")),
        (
            "a role that somebody wants with a sign-in",
            json!({"user": USER, "password": PASSWORD, "role": "admin"}),
            Problem(422, "invalid-request"),
        ),
    ];
    for (name, body, refusal) in cases {
        bench.http(name, &post(body), refusal).await;
    }
    session(bench).await;
}

/// A cookie is good for pages of this node, until its person signs out.
async fn session(bench: &mut Bench) {
    let web = bench.node.web(None).await.unwrap();
    let body = json!({"user": USER, "password": PASSWORD});
    let signed_in = web.send("POST", "/api/v1/login", Some(&body)).await.unwrap();
    assert_eq!(signed_in.status, 200, "{signed_in:?}");
    let cookie = signed_in.cookie.unwrap();
    bench.secret(cookie.split_once('=').unwrap().1);
    let own = web.with_cookie(&cookie, None);
    assert_eq!(own.get("/api/v1/me").await.unwrap().status, 200, "what the attacks differ from");
    let with = |method: &str, target: &str, more: &[(&str, &str)], body: &[u8]| {
        let headers: Vec<(&str, &str)> =
            [("Cookie", &*cookie)].into_iter().chain(more.iter().copied()).collect();
        request(method, target, &headers, body)
    };
    let (note, body) = ("/api/v1/objects/note/x", b"{\"set\":{\"a\":1}}");
    let foreign = Problem(403, "foreign-origin");
    for (name, bytes, refusal) in [
        (
            "a cookie on a write of another site",
            with("PATCH", note, &[("Origin", "https://evil.example")], body),
            foreign,
        ),
        ("a cookie on a form of no origin", with("PATCH", note, &[("Origin", "null")], body), foreign),
        (
            "a cookie on a cross-site sign-out",
            with("POST", "/api/v1/logout", &[("Sec-Fetch-Site", "cross-site")], b""),
            foreign,
        ),
        ("a cookie for what admins may", with("GET", "/api/v1/users", &[], b""), Problem(403, "forbidden")),
    ] {
        bench.http(name, &bytes, refusal).await;
    }
    assert_eq!(own.send("DELETE", "/api/v1/sessions", None).await.unwrap().status, 204);
    bench
        .http(
            "a session that was signed out",
            &with("GET", STATUS, &[], b""),
            Problem(401, "unauthenticated"),
        )
        .await;
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
    // Somebody else's name gets nobody in, and the code is not used up by that.
    let squatting = json!({"code": code, "user": USER, "password": "long enough for all"});
    let squatting = request("POST", "/api/v1/setup", &[], squatting.to_string().as_bytes());
    bench.http("a setup code for a name that is taken", &squatting, Problem(409, "name-taken")).await;
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
