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
async fn objects_are_written_read_listed_and_deleted() {
    let bench = Bench::new();
    let path = "/api/v1/objects/note/x";
    let fields = json!({ "text": "hi", "n": 3, "raw": { "$bytes": "AAE=" } });
    let written = bench.call(Method::PATCH, path, json!({ "set": fields })).await;
    assert_eq!(written.status, StatusCode::OK);
    let object = written.json();
    assert_eq!(
        (&object["id"], &object["fields"], &object["complete"]),
        (&json!("note/x"), &fields, &json!(true))
    );
    assert_eq!(object["meta"]["text"]["by"], "00000000000000ab");
    assert_eq!(bench.call(Method::GET, path, Value::Null).await.json(), object);
    let unset = bench.call(Method::PATCH, path, json!({ "unset": ["raw", "n"] })).await.json();
    assert_eq!(unset["fields"], json!({ "text": "hi" }));
    for n in 0..5 {
        let path = format!("/api/v1/objects/note/y{n}");
        bench.call(Method::PATCH, &path, json!({ "set": { "n": n } })).await;
    }
    let page = bench.call(Method::GET, "/api/v1/objects?prefix=note/y&limit=3", Value::Null).await.json();
    assert_eq!((page["objects"].as_array().unwrap().len(), &page["next"]), (3, &json!("note/y2")));
    let rest =
        bench.call(Method::GET, "/api/v1/objects?prefix=note/y&limit=3&after=note/y2", Value::Null).await;
    assert_eq!((rest.json()["objects"].as_array().unwrap().len(), &rest.json()["next"]), (2, &Value::Null));
    for _ in 0..2 {
        assert_eq!(bench.call(Method::DELETE, path, Value::Null).await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(bench.call(Method::GET, path, Value::Null).await.problem(), "not-found");
}

#[tokio::test]
async fn incomplete_objects_read_as_absent_unless_asked_for() {
    let bench = Bench::new();
    bench.fake.put("device/half", "label", Stored::from("half")).await;
    let get = |path: &'static str| bench.call(Method::GET, path, Value::Null);
    assert_eq!(get("/api/v1/objects/device/half").await.problem(), "not-found");
    assert_eq!(get("/api/v1/objects/device/half?incomplete=true").await.json()["complete"], false);
    assert_eq!(get("/api/v1/objects").await.json()["objects"], json!([]));
    assert_eq!(get("/api/v1/objects?incomplete=true").await.json()["objects"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_token_object_is_for_admins_and_its_hash_for_nobody() {
    let bench = Bench::new();
    let (viewer, admin) = (bench.token(Role::Viewer).await, bench.token(Role::Admin).await);
    let list = |token: String| {
        let bench = &bench;
        async move { bench.bearer(Some(&token), Method::GET, "/api/v1/objects", Value::Null).await.json() }
    };
    assert_eq!(list(viewer.clone()).await["objects"], json!([]));
    let seen = list(admin.clone()).await;
    assert_eq!(seen["objects"].as_array().unwrap().len(), 2);
    assert!(!seen.to_string().contains("hash"), "{seen}");
    let path = format!("/api/v1/objects/{}", seen["objects"][0]["id"].as_str().unwrap());
    let read = bench.bearer(Some(&viewer), Method::GET, &path, Value::Null).await;
    assert_eq!(read.status, StatusCode::NOT_FOUND);
    assert_eq!(
        bench.call(Method::PATCH, &path, json!({ "set": { "note": 1 } })).await.problem(),
        "forbidden"
    );
    assert_eq!(bench.call(Method::DELETE, &path, Value::Null).await.problem(), "forbidden");
    let export = bench.call(Method::GET, "/api/v1/export", Value::Null).await;
    assert!(!String::from_utf8(export.body).unwrap().contains("token/"));
}

#[tokio::test]
async fn bad_bodies_get_their_problem_and_change_nothing() {
    let bench = Bench::new();
    let path = "/api/v1/objects/note/x";
    let deep = format!("{{\"set\":{{\"a\":{}{}}}}}", "[".repeat(20), "]".repeat(20));
    let nested = format!("{{\"set\":{{\"a\":{}{}}}}}", "[".repeat(10), "]".repeat(10));
    let huge = format!("{{\"set\":{{\"a\":\"{}\"}}}}", "x".repeat(1024 * 1024));
    let long = format!("{{\"set\":{{\"a\":\"{}\"}}}}", "x".repeat(5_000));
    let cases = [
        (deep.as_str(), 400, "too-deep"),
        (&nested, 422, "value"),
        (&huge, 413, "too-large"),
        (&long, 422, "value"),
        ("{", 400, "not-json"),
        ("\u{0}", 400, "not-json"),
        ("", 422, "invalid-request"),
        ("[]", 422, "invalid-request"),
        ("{\"sett\":{}}", 422, "invalid-request"),
        ("{\"set\":[]}", 422, "invalid-request"),
        ("{\"set\":{\"a\":1},\"unset\":[\"a\"]}", 422, "invalid-request"),
        ("{\"set\":{\"a\":99999999999999999999}}", 400, "number-out-of-range"),
        ("{\"set\":{\"a\":{\"$bytes\":\"!\"}}}", 400, "bytes"),
        ("{\"set\":{\"A b\":1}}", 400, "name"),
    ];
    for (body, status, slug) in cases {
        let sent = body.to_owned();
        let answer = bench.send(Access::Socket, Method::PATCH, path, None, "application/json", sent).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, slug), "{shown}");
    }
    let chunks = (0..300).map(|_| Ok::<_, std::io::Error>(vec![b' '; 8_192]));
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    let unsized_body = bench.send(Access::Socket, Method::PATCH, path, None, "application/json", body).await;
    assert_eq!(unsized_body.problem(), "too-large");
    let wrong =
        bench.send(Access::Socket, Method::PATCH, path, None, "text/plain", "{\"set\":{\"a\":1}}").await;
    assert_eq!((wrong.status, wrong.problem().as_str()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type"));
    let many: BTreeMap<_, _> = (0..1025).map(|n| (format!("f{n}"), n)).collect();
    assert_eq!(bench.call(Method::PATCH, path, json!({ "set": many })).await.problem(), "too-many-changes");
    let reported = json!({ "set": { "reported": 1 } });
    let refused = bench.call(Method::PATCH, "/api/v1/objects/device/x", reported).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::FORBIDDEN, "not-writable"));
    assert_eq!(bench.call(Method::GET, path, Value::Null).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bad_addresses_get_their_problem() {
    let bench = Bench::new();
    let cases = [
        (Method::GET, "/", 404, "not-found"),
        (Method::GET, "/api/v2/status", 404, "not-found"),
        (Method::PUT, "/api/v1/status", 405, "method"),
        (Method::POST, "/healthz", 405, "method"),
        (Method::GET, "/api/v1/objects?limit=0", 422, "invalid-request"),
        (Method::GET, "/api/v1/objects?limit=9999", 422, "invalid-request"),
        (Method::GET, "/api/v1/objects?limit=x", 400, "query"),
        (Method::GET, "/api/v1/objects?prefixx=a", 400, "query"),
        (Method::GET, "/api/v1/objects?after=bad", 400, "name"),
        (Method::GET, "/api/v1/objects/Bad/x", 400, "name"),
        (Method::GET, "/api/v1/objects/note/a%20b", 400, "name"),
        (Method::GET, "/api/v1/objects/note/%ff", 422, "invalid-request"),
        (Method::GET, "/api/v1/commands/%ff", 422, "invalid-request"),
        (Method::GET, "/api/v1/watch", 426, "websocket"),
    ];
    for (method, path, status, slug) in cases {
        let answer = bench.call(method.clone(), path, Value::Null).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, slug), "{method} {path}");
    }
    let answer = bench.call(Method::PUT, "/api/v1/status", Value::Null).await;
    assert!(answer.headers[header::ALLOW].to_str().unwrap().contains("GET"));
}

#[tokio::test]
async fn devices_are_found_by_what_people_call_them() {
    let bench = Bench::new();
    bench.light("lifx-1", "Kitchen", "LIFX A19", true).await;
    bench.light("lifx-2", "", "Kitchen", false).await;
    bench.light("lifx-3", "", "Hall", false).await;
    bench.light("lifx-4", "", "Hall", false).await;
    let device = |name: &'static str| {
        let bench = &bench;
        async move {
            let body = json!({ "device": name, "change": { "on": true } });
            bench.call(Method::POST, "/api/v1/commands", body).await
        }
    };
    let names = [
        ("device/lifx-2", "lifx-2"),
        ("Kitchen", "lifx-1"),
        ("lifx-2", "lifx-2"),
        ("kitchen", ""),
        ("LIFX a19", "lifx-1"),
    ];
    for (name, expected) in names {
        let answer = device(name).await;
        match expected {
            "" => assert_eq!(answer.problem(), "ambiguous-device"),
            _ => assert_eq!(answer.json()["device"], format!("device/{expected}"), "{name}"),
        }
    }
    let answer = device("Hall").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::CONFLICT, "ambiguous-device"));
    assert_eq!(answer.json()["candidates"], json!(["device/lifx-3", "device/lifx-4"]));
    for unknown in ["", "Cellar", "device/none", "note/x"] {
        assert_eq!(device(unknown).await.problem(), "not-found", "{unknown}");
    }
    let listed = bench.call(Method::GET, "/api/v1/devices", Value::Null).await.json();
    assert_eq!(listed["devices"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn commands_are_accepted_awaited_and_read() {
    let bench = Bench::new();
    bench.light("lifx-1", "Kitchen", "", true).await;
    bench.light("stuck", "", "", true).await;
    let body = json!({ "device": "Kitchen", "change": { "on": "toggle", "brightness": 12.5, "color": "#ff8800",
        "transition_ms": 300 }, "key": "k1", "wait": true });
    let done = bench.call(Method::POST, "/api/v1/commands", body.clone()).await;
    let command = done.json();
    assert_eq!((done.status, &command["state"]), (StatusCode::OK, &json!("confirmed")));
    let states: Vec<_> =
        command["life"].as_array().unwrap().iter().map(|step| step["state"].clone()).collect();
    assert_eq!(states, ["accepted", "sent", "acknowledged", "confirmed"]);
    assert_eq!(command["deadline"], "1970-01-01T00:00:06.000Z");
    let again = bench.call(Method::POST, "/api/v1/commands", body.clone()).await.json();
    assert_eq!(again["id"], command["id"], "the key makes it one command");
    let mut other = body;
    other["change"]["on"] = json!(false);
    let conflict = bench.call(Method::POST, "/api/v1/commands", other).await;
    assert_eq!((conflict.status, conflict.problem().as_str()), (StatusCode::CONFLICT, "idempotency-key"));
    let path = format!("/api/v1/commands/{}", command["id"].as_str().unwrap());
    assert_eq!(bench.call(Method::GET, &path, Value::Null).await.json(), command);
    let body = json!({ "device": "stuck", "change": { "kelvin": 2700 } });
    let accepted = bench.call(Method::POST, "/api/v1/commands", body).await;
    assert_eq!((accepted.status, &accepted.json()["state"]), (StatusCode::ACCEPTED, &json!("accepted")));
    assert_eq!(bench.call(Method::GET, "/api/v1/commands/none", Value::Null).await.problem(), "not-found");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_before_the_request_does() {
    let bench = Bench::new();
    bench.light("stuck", "", "", true).await;
    let body = json!({ "device": "stuck", "change": { "on": true }, "wait": true, "deadline_ms": 600_000 });
    let answer = bench.call(Method::POST, "/api/v1/commands", body).await;
    assert_eq!((answer.status, &answer.json()["state"]), (StatusCode::ACCEPTED, &json!("accepted")));
}

#[tokio::test]
async fn changes_that_make_no_sense_are_named() {
    let bench = Bench::new();
    bench.light("white", "", "", false).await;
    let refused = |change: Value| {
        let bench = &bench;
        async move {
            let body = json!({ "device": "white", "change": change });
            bench.call(Method::POST, "/api/v1/commands", body).await
        }
    };
    let cases = [
        (json!({}), "invalid-request"),
        (json!({ "transition_ms": 5 }), "invalid-request"),
        (json!({ "on": "maybe" }), "invalid-request"),
        (json!({ "on": 1 }), "invalid-request"),
        (json!({ "brightness": 101 }), "invalid-request"),
        (json!({ "brightness": -1 }), "invalid-request"),
        (json!({ "brightness": "50" }), "invalid-request"),
        (json!({ "brightnes": 5 }), "invalid-request"),
        (json!({ "kelvin": 2700, "color": "red" }), "invalid-request"),
        (json!({ "transition_ms": 3_600_001, "on": true }), "invalid-request"),
        (json!({ "color": "reddish" }), "color"),
        (json!({ "color": { "x": 0.9, "y": 0.9 } }), "color"),
        (json!({ "color": { "x": 0.3 } }), "color"),
        (json!({ "color": "red" }), "not-capable"),
        (json!({ "kelvin": 2699 }), "kelvin-out-of-range"),
        (json!({ "kelvin": 1e300 }), "kelvin-out-of-range"),
        (json!({ "kelvin": -5 }), "kelvin-out-of-range"),
    ];
    for (change, slug) in cases {
        let answer = refused(change.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (422, slug), "{change}");
    }
    let detail = refused(json!({ "kelvin": 9000 })).await.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("2700") && detail.contains("6500"), "{detail}");
    let on = json!({ "on": true });
    let bad = [
        json!({ "device": "white", "change": on, "key": "" }),
        json!({ "device": "white", "change": on, "key": "k".repeat(129) }),
        json!({ "device": "white", "change": on, "deadline_ms": 1 }),
        json!({ "device": "white" }),
        json!({ "device": "white", "change": on, "extra": 1 }),
    ];
    for body in bad {
        assert_eq!(
            bench.call(Method::POST, "/api/v1/commands", body.clone()).await.problem(),
            "invalid-request",
            "{body}"
        );
    }
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

#[tokio::test]
async fn invites_joining_and_leaving_go_to_their_owners() {
    let bench = Bench::new();
    let made = bench.call(Method::POST, "/api/v1/invites", Value::Null).await;
    assert_eq!(
        (made.status, &made.json()["expires"]),
        (StatusCode::CREATED, &json!("1970-01-01T00:15:00.000Z"))
    );
    bench.call(Method::POST, "/api/v1/invites", json!({ "ttl_s": 60, "roles": ["member", "admin"] })).await;
    let listed = bench.call(Method::GET, "/api/v1/invites", Value::Null).await.json();
    assert_eq!(listed["invites"][1]["roles"], json!(["member", "admin"]));
    assert!(!listed.to_string().contains("secret"));
    for bad in [
        json!({ "ttl_s": 1 }),
        json!({ "ttl_s": 604_801 }),
        json!({ "roles": ["king"] }),
        json!({ "ttl": 60 }),
    ] {
        assert_eq!(
            bench.call(Method::POST, "/api/v1/invites", bad.clone()).await.problem(),
            "invalid-request",
            "{bad}"
        );
    }
    assert_eq!(
        bench.call(Method::DELETE, "/api/v1/invites/inv0", Value::Null).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(bench.call(Method::DELETE, "/api/v1/invites/inv0", Value::Null).await.problem(), "not-found");
    assert_eq!(
        bench.call(Method::POST, "/api/v1/join", json!({ "token": "h1" })).await.problem(),
        "conflict"
    );
    let joined = bench.call(Method::POST, "/api/v1/join", json!({ "token": "h1", "force": true })).await;
    assert_eq!((joined.status, &joined.json()["household"]), (StatusCode::ACCEPTED, &json!("h1")));
    assert_eq!(bench.call(Method::POST, "/api/v1/leave", json!({})).await.status, StatusCode::ACCEPTED);
    let checks = bench.call(Method::GET, "/api/v1/doctor", Value::Null).await.json();
    assert_eq!(
        (&checks["checks"][0]["status"], &checks["checks"][0]["name"]),
        (&json!("warn"), &json!("clock"))
    );
}

#[tokio::test]
async fn a_node_is_renamed_by_name_or_key() {
    let bench = Bench::new();
    let key = super::super::fake::NODE;
    for given in ["attic", key, &key[..16], &key[..8]] {
        let path = format!("/api/v1/nodes/{given}");
        let answer = bench.call(Method::PATCH, &path, json!({ "name": " kitchen " })).await;
        assert_eq!(answer.json(), json!({ "id": key, "name": "kitchen" }));
    }
    let object = bench.call(Method::GET, "/api/v1/objects/node/00000000000000ab", Value::Null).await.json();
    assert_eq!(object["fields"]["name"], "kitchen");
    for bad in ["", "  ", "a\u{7}b", &"x".repeat(65)] {
        let answer = bench.call(Method::PATCH, "/api/v1/nodes/attic", json!({ "name": bad })).await;
        assert_eq!(answer.problem(), "invalid-request");
    }
    let answer = bench.call(Method::PATCH, "/api/v1/nodes/0000", json!({ "name": "x" })).await;
    assert_eq!((answer.problem().as_str(), &answer.json()["candidates"]), ("not-found", &json!(["attic"])));
}

#[tokio::test]
async fn what_is_exported_can_be_imported() {
    let bench = Bench::new();
    for n in 0..600 {
        bench.fake.put(&format!("note/n{n:03}"), "text", Stored::Int(n)).await;
    }
    bench.light("lifx-1", "Kitchen", "label", true).await;
    let export = bench.call(Method::GET, "/api/v1/export", Value::Null).await;
    assert_eq!(export.headers[header::CONTENT_TYPE], "application/x-ndjson");
    let text = String::from_utf8(export.body).unwrap();
    assert_eq!(text.lines().count(), 601);

    let other = Bench::new();
    let import = |path: &'static str, body: String| {
        other.send(Access::Socket, Method::POST, path, None, "application/x-ndjson", body)
    };
    let dry = import("/api/v1/import?dry_run=true", text.clone()).await.json();
    assert_eq!(dry["written"], 601);
    assert_eq!(other.call(Method::GET, "/api/v1/objects", Value::Null).await.json()["objects"], json!([]));
    let done = import("/api/v1/import", text).await.json();
    assert_eq!(done["written"], 601);
    // What nodes report is left out, not refused.
    assert_eq!(done["refused"], json!([]), "{done}");
    assert!(done["skipped"].as_u64().unwrap() >= 2, "{done}");
    let note = other.call(Method::GET, "/api/v1/objects/note/n599", Value::Null).await.json();
    assert_eq!(note["fields"]["text"], 599);

    let lines = [
        "{\"id\":\"note/good\",\"fields\":{\"a\":1}}",
        "not json",
        "",
        "{\"id\":\"bad\",\"fields\":{}}",
        "{\"id\":\"token/x\",\"fields\":{\"role\":\"admin\"}}",
        "{\"id\":\"note/b\",\"fields\":{\"a\":[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}}",
        "{\"id\":\"note/last\",\"fields\":{\"a\":1}}",
    ];
    let mixed = import("/api/v1/import", lines.join("\n")).await.json();
    assert_eq!((&mixed["written"], mixed["refused"].as_array().unwrap().len()), (&json!(2), 4), "{mixed}");
    assert_eq!(mixed["refused"][0]["line"], 2);
    let long = import("/api/v1/import", "x".repeat(600_000)).await;
    assert_eq!(long.problem(), "too-large");
    let wrong = other.call(Method::POST, "/api/v1/import", json!({})).await;
    assert_eq!(wrong.problem(), "media-type");
}

#[tokio::test]
async fn health_status_and_the_certificate_are_told() {
    let bench = Bench::new();
    assert_eq!(
        bench.bearer(None, Method::GET, "/healthz", Value::Null).await.json(),
        json!({ "status": "ok" })
    );
    let status = bench.call(Method::GET, "/api/v1/status", Value::Null).await.json();
    assert_eq!((&status["listen"], &status["nodes"][0]["name"]), (&json!("[::]:7433"), &json!("attic")));
    assert_eq!(status["api"], json!(["https://attic.local:7433"]));
    let ca = bench.bearer(None, Method::GET, "/api/v1/ca", Value::Null).await;
    assert_eq!(ca.headers[header::CONTENT_TYPE], "application/x-pem-file");
    assert!(ca.body.starts_with(b"-----BEGIN CERTIFICATE-----"));
    let full = Bench::over(FakeLoop::start_with(Some("/secret/path: no space")));
    let health = full.bearer(None, Method::GET, "/healthz", Value::Null).await;
    assert_eq!((health.status, health.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "degraded"));
    assert_eq!(health.json()["detail"], "the store cannot be written");
    assert!(!health.json().to_string().contains("/secret"), "strangers learn no path");
    let write = full.call(Method::PATCH, "/api/v1/objects/note/x", json!({ "set": { "a": 1 } })).await;
    assert_eq!((write.status, write.problem().as_str()), (StatusCode::INSUFFICIENT_STORAGE, "store"));
}

#[tokio::test]
async fn health_names_the_parts_that_show_no_sign_of_life() {
    let bench = Bench::new();
    for stalled in [vec!["store"], vec!["listener", "devices"], vec!["event loop"]] {
        bench.stalled.send_replace(stalled.clone());
        let health = bench.bearer(None, Method::GET, "/healthz", Value::Null).await;
        assert_eq!((health.status.as_u16(), health.problem().as_str()), (503, "degraded"));
        let detail = health.json()["detail"].as_str().unwrap().to_owned();
        assert!(stalled.iter().all(|part| detail.contains(part)), "{detail}");
    }
    bench.stalled.send_replace(Vec::new());
    assert_eq!(bench.bearer(None, Method::GET, "/healthz", Value::Null).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn health_answers_for_an_event_loop_that_does_not() {
    let bench = Bench::new();
    let (service, _unserved) = crate::service::Service::channel();
    let health = bench.deserted(service).bearer(None, Method::GET, "/healthz", Value::Null).await;
    assert_eq!((health.status.as_u16(), health.problem().as_str()), (503, "degraded"));
    assert_eq!(health.json()["detail"], "the event loop does not answer");
}

#[tokio::test]
async fn metrics_are_in_the_format_of_prometheus() {
    let bench = Bench::new();
    bench.call(Method::GET, "/api/v1/status", Value::Null).await;
    bench.call(Method::GET, "/api/v1/objects/note/none", Value::Null).await;
    bench.call(Method::GET, "/some/unknown/path", Value::Null).await;
    bench.bearer(Some("hth_no"), Method::GET, "/metrics", Value::Null).await;
    let answer = bench.call(Method::GET, "/metrics", Value::Null).await;
    assert!(answer.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        "hearth_http_requests_total{route=\"/api/v1/status\",class=\"2xx\"} 1",
        "hearth_http_requests_total{route=\"/api/v1/objects/{kind}/{name}\",class=\"4xx\"} 1",
        "hearth_http_requests_total{route=\"other\",class=\"4xx\"} 1",
        "hearth_events_total{event=\"frames_refused\"} 3",
        "hearth_build_info{version=\"0.1.0\"} 1",
        "hearth_nodes{state=\"self\"} 1",
        "hearth_tokens_denied_total 1",
        "hearth_links 2",
        "# TYPE hearth_links gauge",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let mut described = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ") {
            described.insert(name.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(described.contains(series.split('{').next().unwrap()), "{line}");
            value.parse::<f64>().unwrap();
        }
    }
    let rss = text.lines().find_map(|line| line.strip_prefix("hearth_resident_memory_bytes ")).unwrap();
    assert!(rss.parse::<u64>().unwrap() > 1 << 20);
}

#[tokio::test]
async fn every_route_has_its_label() {
    let bench = Bench::new();
    for route in super::super::ROUTES {
        let path = route
            .replace("{kind}", "note")
            .replace("{name}", "x")
            .replace("{id}", "1")
            .replace("{node}", "n");
        let answer = bench.call(Method::from_bytes(b"TRACE").unwrap(), &path, Value::Null).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{route} is a route");
    }
}

#[tokio::test]
async fn a_node_that_stops_says_so() {
    let bench = Bench::new();
    let (service, _) = crate::service::Service::channel();
    let bench = bench.deserted(service);
    for path in ["/api/v1/status", "/api/v1/doctor", "/api/v1/invites", "/api/v1/commands/1", "/metrics"] {
        let answer = bench.call(Method::GET, path, Value::Null).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "stopping"), "{path}");
    }
}
