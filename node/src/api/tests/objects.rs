//! Objects: read, written, exported, imported, refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

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
