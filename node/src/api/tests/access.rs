//! Who may do what: roles, tokens, the setup code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[tokio::test]
async fn every_route_demands_its_role_and_no_more() {
    use Role::{Admin, Operator, Viewer};
    let bench = Bench::new();
    let routes = [
        ("GET", "/healthz", None),
        ("GET", "/api/v1/ca", None),
        ("POST", "/api/v1/setup", None),
        ("POST", "/api/v1/login", None),
        ("POST", "/api/v1/logout", Some(Viewer)),
        ("GET", "/api/v1/me", Some(Viewer)),
        ("PUT", "/api/v1/me/password", Some(Viewer)),
        ("GET", "/api/v1/users", Some(Admin)),
        ("POST", "/api/v1/users", Some(Admin)),
        ("GET", "/api/v1/users/ann", Some(Admin)),
        ("PATCH", "/api/v1/users/ann", Some(Admin)),
        ("DELETE", "/api/v1/users/ann", Some(Admin)),
        ("GET", "/metrics", Some(Viewer)),
        ("GET", "/api/v1/status", Some(Viewer)),
        ("GET", "/api/v1/objects", Some(Viewer)),
        ("GET", "/api/v1/objects/note/x", Some(Viewer)),
        ("GET", "/api/v1/devices", Some(Viewer)),
        ("GET", "/api/v1/commands/1", Some(Viewer)),
        ("PATCH", "/api/v1/objects/note/x", Some(Operator)),
        ("DELETE", "/api/v1/objects/note/x", Some(Operator)),
        ("POST", "/api/v1/commands", Some(Operator)),
        ("GET", "/api/v1/invites", Some(Admin)),
        ("POST", "/api/v1/invites", Some(Admin)),
        ("DELETE", "/api/v1/invites/1", Some(Admin)),
        ("POST", "/api/v1/join", Some(Admin)),
        ("POST", "/api/v1/leave", Some(Admin)),
        ("PATCH", "/api/v1/nodes/attic", Some(Admin)),
        ("GET", "/api/v1/tokens", Some(Admin)),
        ("POST", "/api/v1/tokens", Some(Admin)),
        ("DELETE", "/api/v1/tokens/1", Some(Admin)),
        ("GET", "/api/v1/doctor", Some(Admin)),
        ("GET", "/api/v1/export", Some(Admin)),
        ("POST", "/api/v1/import", Some(Admin)),
    ];
    let mut bearers = vec![(None, None)];
    for role in [Viewer, Operator, Admin] {
        bearers.push((Some(role), Some(bench.token(role).await)));
    }
    for (method, path, needed) in routes {
        for (has, token) in &bearers {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = bench.bearer(token.as_deref(), method.clone(), path, json!({})).await;
            let refused = match (needed, has) {
                (None, _) => None,
                (Some(_), None) => Some(StatusCode::UNAUTHORIZED),
                (Some(needed), Some(has)) => (*has < needed).then_some(StatusCode::FORBIDDEN),
            };
            let status = answer.status;
            match refused {
                Some(expected) => assert_eq!(status, expected, "{method} {path} {has:?}"),
                None => assert!(
                    status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN,
                    "{method} {path} {has:?}: {status}"
                ),
            }
            if !status.is_success() {
                answer.problem();
            }
            assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        }
    }
}

#[tokio::test]
async fn tokens_that_are_wrong_or_malformed_are_refused_alike() {
    let bench = Bench::new();
    for token in ["", "hth_", "hth_aaaa", "Basic xyz", "ü"] {
        let answer = bench.bearer(Some(token), Method::GET, "/api/v1/status", Value::Null).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"));
        assert!(answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
    }
    let mut last = StatusCode::UNAUTHORIZED;
    for _ in 0..10 {
        last = bench.bearer(Some("hth_x"), Method::GET, "/metrics", Value::Null).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let good = bench.token(Role::Viewer).await;
    assert_eq!(bench.bearer(Some(&good), Method::GET, "/metrics", Value::Null).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_setup_code_gives_one_token_and_is_shown_on_the_board_only() {
    let bench = Bench::new();
    let code = bench.call(Method::GET, "/api/v1/setup-code", Value::Null).await.json()["code"].clone();
    let admin = bench.token(Role::Admin).await;
    for method in [Method::GET, Method::POST] {
        let refused = bench.bearer(Some(&admin), method, "/api/v1/setup-code", Value::Null).await;
        assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
    }
    let body = json!({ "code": code, "label": "phone" });
    let given = bench.bearer(None, Method::POST, "/api/v1/setup", body.clone()).await;
    assert_eq!((given.status, &given.json()["role"]), (StatusCode::CREATED, &json!("admin")));
    let token = given.json()["token"].as_str().unwrap().to_owned();
    let tokens = bench.bearer(Some(&token), Method::GET, "/api/v1/tokens", Value::Null).await.json();
    assert!(tokens["tokens"].as_array().unwrap().iter().any(|token| token["label"] == "phone"));
    assert_eq!(bench.bearer(None, Method::POST, "/api/v1/setup", body).await.problem(), "setup-code-used");
    assert_eq!(bench.call(Method::GET, "/api/v1/setup-code", Value::Null).await.json()["used"], true);
    let new = bench.call(Method::POST, "/api/v1/setup-code", Value::Null).await.json();
    assert!(new["code"].is_string() && new["code"] != code);
    let mut last = String::new();
    for _ in 0..5 {
        let answer =
            bench.bearer(None, Method::POST, "/api/v1/setup", json!({ "code": "AAAA-AAAA-AAAA" })).await;
        last = answer.problem();
        assert!(last == "wrong-setup-code" || answer.status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(last, "setup-code-locked");
    let typo = bench.bearer(None, Method::POST, "/api/v1/setup", json!({ "code": 123_456 })).await;
    assert!(!typo.json().to_string().contains("123456"), "errors do not repeat secrets");
    assert!(bench.setup.show().await.unwrap().locked);
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let bench = Bench::new();
    let made = bench.call(Method::POST, "/api/v1/tokens", json!({ "role": "viewer", "label": "wall" })).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let (id, token) = (made.json()["id"].as_str().unwrap().to_owned(), made.json()["token"].clone());
    let listed = bench.call(Method::GET, "/api/v1/tokens", Value::Null).await.json();
    assert_eq!((&listed["tokens"][0]["id"], &listed["tokens"][0]["role"]), (&json!(id), &json!("viewer")));
    assert!(!listed.to_string().contains(token.as_str().unwrap()));
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(bench.call(Method::DELETE, &path, Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.call(Method::DELETE, &path, Value::Null).await.problem(), "not-found");
    let bad = bench.call(Method::POST, "/api/v1/tokens", json!({ "role": "king" })).await;
    assert_eq!(bad.problem(), "invalid-request");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_while_the_body_is_on_its_way_opens_nothing() {
    let bench = Bench::new();
    let token = bench.token(Role::Operator).await;
    let id = bench.tokens.list().await.unwrap().pop().unwrap().id;
    let begun = futures_util::stream::iter([Ok::<_, std::convert::Infallible>("{\"set\":")]);
    let slow = Body::from_stream(futures_util::StreamExt::chain(begun, futures_util::stream::pending()));
    let request = Request::builder()
        .method(Method::PATCH)
        .uri("/api/v1/objects/note/x")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::HOST, "localhost:7843")
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    let answer = bench.router(Access::Bearer).oneshot(request.body(slow).unwrap());
    let (answer, revoked) = tokio::join!(answer, bench.tokens.revoke(id));
    revoked.unwrap();
    assert_eq!(answer.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_request_that_ends_its_own_token_is_answered() {
    let bench = Bench::new();
    let token = bench.token(Role::Admin).await;
    let id = bench.tokens.list().await.unwrap().pop().unwrap().id;
    let path = format!("/api/v1/tokens/{id}");
    let answer = bench.bearer(Some(&token), Method::DELETE, &path, Value::Null).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
}
