//! People over the API: signing in and out, cookies, users, the setup code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;

use axum::Extension;

use super::*;
use crate::{
    api::access::Peer,
    auth::{Scope, people::NewUser, sessions::PREFIX, setup::Wanted},
};

const PASSWORD: &str = "correct horse";
const HOST: (&str, &str) = ("host", "localhost:7843");
const ORIGIN: (&str, &str) = ("origin", "https://localhost:7843");

impl Bench {
    async fn person(&self, name: &str, role: Role) {
        let password = Secret::new(PASSWORD);
        let new = NewUser { name: name.into(), role, scope: Scope::default(), password };
        self.context.people.create(new).await.unwrap();
    }

    async fn with(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        self.from(None, method, path, headers, body).await
    }

    async fn from(
        &self,
        address: Option<&str>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let mut request =
            Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        if headers.iter().all(|(name, _)| *name != "host") {
            request = request.header(HOST.0, HOST.1);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let mut router = self.router(Access::Bearer);
        if let Some(address) = address {
            let address: SocketAddr = address.parse().unwrap();
            let place = std::sync::Weak::new();
            router = router.layer(Extension(Peer { address, via: None, host: None, place }));
        }
        let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answer { status, headers, body }
    }

    /// Signs in; the cookie as a browser sends it back.
    async fn sign_in(&self, name: &str) -> String {
        let body = json!({ "user": name, "password": PASSWORD });
        let answer = self.with(Method::POST, "/api/v1/login", &[], body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
        cookie(&answer).unwrap()
    }
}

fn cookie(answer: &Answer) -> Option<String> {
    let set = answer.headers.get(header::SET_COOKIE)?.to_str().unwrap();
    Some(set.split(';').next().unwrap().to_owned())
}

#[tokio::test]
async fn a_person_signs_in_and_out_by_cookie() {
    let bench = Bench::new();
    bench.person("ann", Role::Viewer).await;
    let body = json!({ "user": "ann", "password": PASSWORD });
    let answer = bench.with(Method::POST, "/api/v1/login", &[], body).await;
    assert_eq!((&answer.json()["user"], &answer.json()["role"]), (&json!("ann"), &json!("viewer")));
    assert!(answer.json()["expires"].is_string());
    let set = answer.headers[header::SET_COOKIE].to_str().unwrap();
    for part in ["__Host-hearth=hths_", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(set.contains(part), "{set}");
    }
    let secret = cookie(&answer).unwrap();
    assert!(!String::from_utf8_lossy(&answer.body).contains(PREFIX), "a script never sees it");
    let me = bench.with(Method::GET, "/api/v1/me", &[("cookie", &secret)], Value::Null).await.json();
    assert_eq!(
        (&me["who"], &me["kind"], &me["role"]),
        (&json!("user:ann"), &json!("user"), &json!("viewer"))
    );
    let sessions = bench.with(Method::GET, "/api/v1/sessions", &[("cookie", &secret)], Value::Null).await;
    assert_eq!(sessions.json()["sessions"][0]["current"], true);
    let mine = [("cookie", secret.as_str()), HOST, ORIGIN];
    let out = bench.with(Method::POST, "/api/v1/logout", &mine, Value::Null).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(out.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    let after = bench.with(Method::GET, "/api/v1/me", &[("cookie", &secret)], Value::Null).await;
    assert_eq!(after.problem(), "unauthenticated");
}

#[tokio::test]
async fn wrong_sign_ins_tell_nothing_and_are_paced() {
    let bench = Bench::new();
    bench.person("ann", Role::Viewer).await;
    let login = async |user: &str, password: &str| {
        let body = json!({ "user": user, "password": password });
        bench.from(Some("10.0.0.9:5"), Method::POST, "/api/v1/login", &[], body).await
    };
    let (wrong, unknown) = (login("ann", "hunter22222").await, login("nobody", "hunter22222").await);
    assert_eq!((wrong.status, wrong.problem().as_str()), (StatusCode::UNAUTHORIZED, "wrong-password"));
    assert_eq!(wrong.body, unknown.body);
    assert!(!String::from_utf8_lossy(&wrong.body).contains("hunter2"));
    let mut last = login("ann", "hunter22222").await;
    while last.status == StatusCode::UNAUTHORIZED {
        last = login("ann", "hunter22222").await;
    }
    assert_eq!((last.status, last.problem().as_str()), (StatusCode::TOO_MANY_REQUESTS, "too-many-attempts"));
    let wait: u64 = last.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=900).contains(&wait));
    for body in [json!({ "user": "ann" }), json!({ "user": 5, "password": "secret-text" }), json!([])] {
        let answer = bench.with(Method::POST, "/api/v1/login", &[], body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret-text"));
    }
    let form = bench.send(Access::Bearer, Method::POST, "/api/v1/login", None, "text/plain", "{}").await;
    assert_eq!(form.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "no form of another site can sign in");
}

#[tokio::test]
async fn by_cookie_another_site_changes_nothing_and_a_token_beside_it_decides() {
    let bench = Bench::new();
    bench.person("ann", Role::Operator).await;
    let secret = bench.sign_in("ann").await;
    let by = ("cookie", secret.as_str());
    let write = json!({ "set": { "text": "x" } });
    let path = "/api/v1/objects/note/x";
    for wrong in
        [&[by, HOST][..], &[by, HOST, ("origin", "https://evil.example")], &[by, HOST, ("origin", "null")]]
    {
        let refused = bench.with(Method::PATCH, path, wrong, write.clone()).await;
        assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::FORBIDDEN, "foreign-origin"));
        assert_eq!(
            bench.with(Method::GET, "/api/v1/objects", wrong, Value::Null).await.status,
            StatusCode::OK
        );
        let mut upgrade = wrong.to_vec();
        upgrade.extend([
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "13"),
        ]);
        let refused = bench.with(Method::GET, "/api/v1/watch", &upgrade, Value::Null).await;
        assert_eq!(refused.problem(), "foreign-origin");
    }
    for right in [&[by, HOST, ORIGIN][..], &[by, HOST, ("sec-fetch-site", "same-origin")]] {
        assert_eq!(bench.with(Method::PATCH, path, right, write.clone()).await.status, StatusCode::OK);
    }
    // What is sent on purpose goes before what a browser adds by itself.
    let viewer = format!("Bearer {}", bench.token(Role::Viewer).await);
    let both = [by, HOST, ORIGIN, ("authorization", viewer.as_str())];
    assert_eq!(bench.with(Method::PATCH, path, &both, write.clone()).await.problem(), "forbidden");
    let wrong = [by, HOST, ORIGIN, ("authorization", "Bearer hth_wrong")];
    assert_eq!(
        bench.with(Method::GET, "/api/v1/status", &wrong, Value::Null).await.problem(),
        "unauthenticated"
    );
    let operator = format!("Bearer {}", bench.token(Role::Operator).await);
    let elsewhere = [by, HOST, ("origin", "https://evil.example"), ("authorization", operator.as_str())];
    let refused = bench.with(Method::PATCH, path, &elsewhere, write).await;
    assert_eq!(
        refused.problem(),
        "foreign-origin",
        "a page of somebody else has no say, with a token either"
    );
    let twice = format!("{secret}; {secret}");
    let twice = bench.with(Method::GET, "/api/v1/me", &[("cookie", &twice)], Value::Null).await;
    assert_eq!(twice.problem(), "unauthenticated");
}

#[tokio::test]
async fn admins_administer_users_and_nobody_else_does() {
    let bench = Bench::new();
    bench.person("root", Role::Admin).await;
    bench.person("ann", Role::Operator).await;
    let (root, ann) = (bench.sign_in("root").await, bench.sign_in("ann").await);
    let (root, ann) = ([("cookie", root.as_str()), HOST, ORIGIN], [("cookie", ann.as_str()), HOST, ORIGIN]);
    let new =
        json!({ "name": "ben", "role": "viewer", "password": PASSWORD, "scope": { "areas": ["hall"] } });
    for (method, path) in [
        (Method::GET, "/api/v1/users"),
        (Method::POST, "/api/v1/users"),
        (Method::GET, "/api/v1/users/ann"),
        (Method::PATCH, "/api/v1/users/ann"),
        (Method::DELETE, "/api/v1/users/root"),
        (Method::GET, "/api/v1/sessions?user=root"),
        (Method::DELETE, "/api/v1/sessions?user=root"),
    ] {
        let refused = bench.with(method.clone(), path, &ann, new.clone()).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    let made = bench.with(Method::POST, "/api/v1/users", &root, new.clone()).await;
    assert_eq!((made.status, &made.json()["scope"]["areas"]), (StatusCode::CREATED, &json!(["hall"])));
    assert_eq!(bench.with(Method::POST, "/api/v1/users", &root, new).await.problem(), "name-taken");
    let weak = json!({ "name": "cy", "role": "viewer", "password": "password" });
    let weak = bench.with(Method::POST, "/api/v1/users", &root, weak).await;
    assert_eq!((weak.status, weak.problem().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "weak-password"));
    let change = json!({ "role": "viewer" });
    let changed = bench.with(Method::PATCH, "/api/v1/users/ann", &root, change.clone()).await;
    assert_eq!(changed.json()["role"], "viewer");
    let out = bench.with(Method::GET, "/api/v1/me", &ann, Value::Null).await;
    assert_eq!(out.problem(), "unauthenticated", "a change of role signs out");
    for body in [change, json!({ "enabled": false })] {
        let last = bench.with(Method::PATCH, "/api/v1/users/root", &root, body).await;
        assert_eq!((last.status, last.problem().as_str()), (StatusCode::CONFLICT, "last-admin"));
    }
    assert_eq!(
        bench.with(Method::DELETE, "/api/v1/users/root", &root, Value::Null).await.problem(),
        "last-admin"
    );
    assert_eq!(
        bench.with(Method::PATCH, "/api/v1/users/root", &root, json!({})).await.problem(),
        "invalid-request"
    );
    let gone = bench.with(Method::DELETE, "/api/v1/users/ben", &root, Value::Null).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(
        bench.with(Method::DELETE, "/api/v1/users/ben", &root, Value::Null).await.problem(),
        "not-found"
    );
    // Whoever is on the board comes back in by the socket.
    assert_eq!(
        bench.call(Method::DELETE, "/api/v1/users/root", Value::Null).await.status,
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn a_person_sees_and_ends_the_own_sessions_only_and_changes_the_own_password() {
    let bench = Bench::new();
    for name in ["ann", "ben"] {
        bench.person(name, Role::Viewer).await;
    }
    let (ann, ben) = (bench.sign_in("ann").await, bench.sign_in("ben").await);
    let (ann, ben) = ([("cookie", ann.as_str()), HOST, ORIGIN], [("cookie", ben.as_str()), HOST, ORIGIN]);
    let listed = bench.with(Method::GET, "/api/v1/sessions", &ben, Value::Null).await.json();
    let all = listed["sessions"].as_array().unwrap();
    assert!(all.len() == 1 && all[0]["user"] == "ben");
    let path = format!("/api/v1/sessions/{}", all[0]["id"].as_str().unwrap());
    assert_eq!(bench.with(Method::DELETE, &path, &ann, Value::Null).await.problem(), "not-found");
    assert_eq!(bench.with(Method::DELETE, &path, &ben, Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.with(Method::GET, "/api/v1/me", &ben, Value::Null).await.problem(), "unauthenticated");

    let second = bench.sign_in("ann").await;
    let body = json!({ "old": PASSWORD, "new": "another horse" });
    let changed = bench.with(Method::PUT, "/api/v1/me/password", &ann, body).await;
    assert_eq!(changed.status, StatusCode::OK);
    for old in [ann[0].1, second.as_str()] {
        let out = bench.with(Method::GET, "/api/v1/me", &[("cookie", old)], Value::Null).await;
        assert_eq!(out.problem(), "unauthenticated");
    }
    let now = cookie(&changed).unwrap();
    let now = [("cookie", now.as_str()), HOST, ORIGIN];
    assert_eq!(bench.with(Method::GET, "/api/v1/me", &now, Value::Null).await.json()["user"], "ann");
    let out = bench.with(Method::DELETE, "/api/v1/sessions", &now, Value::Null).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.with(Method::GET, "/api/v1/me", &now, Value::Null).await.problem(), "unauthenticated");
    let token = bench.token(Role::Viewer).await;
    let me = bench.bearer(Some(&token), Method::GET, "/api/v1/me", Value::Null).await.json();
    assert_eq!((&me["kind"], &me["scope"]["areas"]), (&json!("token"), &json!([])));
    for (method, path, body) in [
        (Method::POST, "/api/v1/logout", Value::Null),
        (Method::DELETE, "/api/v1/sessions", Value::Null),
        (Method::PUT, "/api/v1/me/password", json!({ "old": "a", "new": "b" })),
    ] {
        assert_eq!(
            bench.bearer(Some(&token), method, path, body).await.problem(),
            "invalid-request",
            "{path}"
        );
    }
}

#[tokio::test]
async fn no_route_shows_a_hash_and_only_admins_see_who_there_is() {
    let bench = Bench::new();
    bench.person("ann", Role::Admin).await;
    let secret = bench.sign_in("ann").await;
    let viewer = bench.token(Role::Viewer).await;
    let stored = format!("{:?}", bench.fake.service().list("", None, 1_000, true).await.unwrap());
    let phc = stored.split("$argon2id$").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let id = stored.split("session/").nth(1).unwrap()[..16].to_owned();
    for path in [
        "/api/v1/objects?incomplete=true".to_owned(),
        "/api/v1/objects?prefix=user/".to_owned(),
        "/api/v1/objects/user/ann".to_owned(),
        format!("/api/v1/objects/session/{id}"),
        "/api/v1/users".to_owned(),
        "/api/v1/users/ann".to_owned(),
        "/api/v1/sessions".to_owned(),
        "/api/v1/export".to_owned(),
        "/api/v1/me".to_owned(),
    ] {
        let answer = bench.with(Method::GET, &path, &[("cookie", &secret)], Value::Null).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let text = String::from_utf8(answer.body).unwrap();
        for hidden in [phc.as_str(), "argon2id", "\"hash\"", "\"basis\"", "\"password\"", PREFIX, PASSWORD] {
            assert!(!text.contains(hidden), "{path}: {text}");
        }
        let as_viewer = bench.bearer(Some(&viewer), Method::GET, &path, Value::Null).await;
        let text = String::from_utf8(as_viewer.body).unwrap();
        // Whoever asks for a name hears that name, and that there is none.
        let told = text.contains("ann") && as_viewer.status.is_success();
        assert!(!told, "{path}: {text}");
    }
    for (method, id) in
        [(Method::PATCH, "user/ann"), (Method::DELETE, "user/ann"), (Method::PATCH, "session/x")]
    {
        let path = format!("/api/v1/objects/{id}");
        let refused = bench.call(method, &path, json!({ "set": { "free": 1 } })).await;
        assert_eq!(refused.problem(), "forbidden");
    }
    // Not even by the place where the next page goes on.
    for _ in 0..3 {
        bench.fake.put("zone/x", "n", Stored::Int(1)).await;
    }
    let mut after = String::new();
    let mut seen = Vec::new();
    loop {
        let path = format!("/api/v1/objects?limit=1{after}");
        let page = bench.bearer(Some(&viewer), Method::GET, &path, Value::Null).await.json();
        assert!(!page.to_string().contains("ann"), "{page}");
        seen.extend(page["objects"].as_array().unwrap().iter().map(|object| object["id"].clone()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace('/', "%2F")),
            None => break,
        }
    }
    assert_eq!(seen, ["zone/x"]);
    let line = format!(
        "{{\"id\":\"user/eve\",\"fields\":{{\"account\":{{}},\"password\":{{\"hash\":\"{phc}\"}}}}}}"
    );
    let imported =
        bench.send(Access::Socket, Method::POST, "/api/v1/import", None, "application/x-ndjson", line).await;
    assert_eq!(
        (&imported.json()["written"], &imported.json()["refused"][0]["id"]),
        (&json!(0), &Value::Null)
    );
}

#[tokio::test]
async fn the_setup_code_makes_the_first_admin_from_near_alone() {
    let bench = Bench::new();
    let setup = |code: &str| json!({ "code": code, "user": "ann", "password": PASSWORD });
    let from =
        async |address, body| bench.from(Some(address), Method::POST, "/api/v1/setup", &[], body).await;
    let none = from("192.168.1.9:5", setup("AAAA-AAAA-AAAA")).await;
    assert_eq!((none.status, none.problem().as_str()), (StatusCode::NOT_FOUND, "no-setup-code"));
    let shown = bench.call(Method::GET, "/api/v1/setup-code", Value::Null).await.json();
    assert!(shown["seconds_left"].as_u64().unwrap() > 800);
    let code = shown["code"].as_str().unwrap();
    for far in ["203.0.113.9:5", "[2001:db8::1]:5"] {
        assert_eq!(from(far, setup(code)).await.problem(), "forbidden", "{far}");
    }
    let both = json!({ "code": code, "user": "ann", "password": PASSWORD, "label": "x" });
    assert_eq!(from("192.168.1.9:5", both).await.problem(), "invalid-request");
    let weak = json!({ "code": code, "user": "ann", "password": "password" });
    assert_eq!(from("192.168.1.9:5", weak).await.problem(), "weak-password");
    let made = from("192.168.1.9:5", setup(code)).await;
    assert_eq!((made.status, &made.json()["role"]), (StatusCode::CREATED, &json!("admin")));
    let secret = cookie(&made).unwrap();
    let users = bench.with(Method::GET, "/api/v1/users", &[("cookie", &secret)], Value::Null).await;
    assert_eq!(users.json()["users"][0]["name"], "ann");
    assert_eq!(from("192.168.1.9:5", setup(code)).await.problem(), "setup-code-used");
    let again = bench.setup.redeem(Secret::new(code), Wanted::Token(String::new())).await;
    assert!(again.is_err());
}
