//! Clients of one real node: observers over TLS, Python, tokens and roles, export and import.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hearth_tests::{
    daemon::{Client, Daemon, PATIENCE, wait_until},
    python::{Watch, python},
};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

async fn viewer(node: &Daemon) -> Client {
    node.web(Some(&node.token("viewer").await.unwrap())).await.unwrap()
}

/// The value of a metric without labels.
async fn metric(node: &Daemon, name: &str) -> anyhow::Result<f64> {
    let text = node.client().get("/metrics").await?.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse()?)
}

#[tokio::test]
async fn an_observer_gets_a_snapshot_then_what_changes_and_resumes() {
    let one = Daemon::found("one").await.unwrap();
    let two = one.joined("two").await.unwrap();
    one.put("note/a", json!({"n": 1})).await.unwrap();
    one.put("other/x", json!({"n": 1})).await.unwrap();
    two.converge("other/x", &json!({"n": 1})).await.unwrap();
    let client = viewer(&two).await;
    let mut observer = client.watch().await.unwrap();
    let (objects, reset) = observer.subscribe(&["note/"], None).await.unwrap();
    assert!(reset);
    assert_eq!(objects.len(), 1, "only what was asked for: {objects:?}");
    assert_eq!(
        (&objects[0]["object"]["id"], &objects[0]["object"]["fields"]),
        (&json!("note/a"), &json!({"n": 1}))
    );

    one.put("note/b", json!({"n": 2})).await.unwrap();
    let delta = observer.next().await.unwrap();
    assert_eq!((&delta["type"], &delta["object"]["id"]), (&json!("object"), &json!("note/b")));
    assert_eq!(observer.next().await.unwrap()["type"], "mark");
    one.cli(&["delete", "note/a"]).await.unwrap().ok().unwrap();
    assert_eq!(observer.next().await.unwrap(), json!({"type": "gone", "id": "note/a"}));
    let mark = observer.next().await.unwrap();
    assert_eq!(mark["type"], "mark");
    observer.say(&json!({"type": "ping"})).await.unwrap();
    assert_eq!(observer.next().await.unwrap(), json!({"type": "pong"}));
    observer.close().await.unwrap();

    // While nobody watches.
    one.put("note/c", json!({"n": 3})).await.unwrap();
    two.converge("note/c", &json!({"n": 3})).await.unwrap();
    let mut observer = client.watch().await.unwrap();
    let (objects, reset) = observer.subscribe(&["note/"], mark["resume"].as_str()).await.unwrap();
    assert!(!reset, "the token is known");
    assert_eq!(objects.len(), 1, "only what changed since: {objects:?}");
    assert_eq!(objects[0]["object"]["id"], "note/c");

    for unknown in ["0000000000000000-1", "no token at all"] {
        let mut observer = client.watch().await.unwrap();
        let (objects, reset) = observer.subscribe(&["note/"], Some(unknown)).await.unwrap();
        assert!(reset, "{unknown}");
        let ids: Vec<&Value> = objects.iter().map(|message| &message["object"]["id"]).collect();
        assert_eq!(ids, ["note/b", "note/c"]);
    }
}

#[tokio::test]
async fn a_token_of_before_a_restart_is_unknown_and_resets() {
    let mut node = Daemon::found("one").await.unwrap();
    let client = viewer(&node).await;
    node.put("note/a", json!({"n": 1})).await.unwrap();
    let mut observer = client.watch().await.unwrap();
    observer.subscribe(&["note/"], None).await.unwrap();
    let resume = observer.resume.clone();
    node.kill().await.unwrap();
    assert!(observer.next().await.is_err(), "the connection ends with the node");
    node.start().await.unwrap();
    // Token and CA outlive a restart.
    let mut observer = client.watch().await.unwrap();
    let (objects, reset) = observer.subscribe(&["note/"], resume.as_deref()).await.unwrap();
    assert!(reset);
    assert_eq!(objects[0]["object"]["fields"], json!({"n": 1}));
}

/// Changes, and the objects that they are spread over.
const CHANGES: usize = 10_000;
const OBJECTS: usize = 100;
/// How long the observer reads nothing while the changes come.
const PAUSE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_observer_that_pauses_for_a_minute_gets_the_latest_of_each_object_in_bounded_memory() {
    let node = Daemon::found("one").await.unwrap();
    // 10,000 changes of 3 KB are far more than the kernel's buffers between the two can hide.
    let client = viewer(&node).await.with_receive_buffer(64 << 10);
    let mut observer = client.watch().await.unwrap();
    observer.subscribe(&["note/"], None).await.unwrap();
    let before = metric(&node, "hearth_resident_memory_bytes").await.unwrap();
    let (mut queued, mut resident) = (0.0_f64, before);
    let padding = "x".repeat(3_000);
    let began = Instant::now();
    let mut pace = interval(PAUSE / u32::try_from(CHANGES / OBJECTS).unwrap());
    for round in 1..=CHANGES / OBJECTS {
        pace.tick().await;
        let lines = (0..OBJECTS).map(|n| {
            json!({"id": format!("note/{n:02}"), "fields": {"round": round, "padding": padding}}).to_string()
        });
        let body = lines.collect::<Vec<_>>().join("\n");
        let written = node
            .client()
            .send_as("POST", "/api/v1/import", Some(("application/x-ndjson", body)))
            .await
            .unwrap();
        assert_eq!(written.success().unwrap()["written"], OBJECTS);
        queued = queued.max(metric(&node, "hearth_observer_queued_bytes").await.unwrap());
        resident = resident.max(metric(&node, "hearth_resident_memory_bytes").await.unwrap());
    }
    pace.tick().await;
    assert!(began.elapsed() >= PAUSE, "it paused for {:?}", began.elapsed());
    assert_eq!(metric(&node, "hearth_observers").await.unwrap(), 1.0, "it is not thrown out");
    assert!(queued > 0.0 && queued <= 64.0 * 1024.0, "{queued} bytes wait for one observer");
    // The store's cache is in it; what was written is 30 MB, as messages 40 MB.
    assert!(resident - before < 24e6, "memory grew from {before} to {resident} bytes");

    let mut latest = BTreeMap::new();
    let all = json!(CHANGES / OBJECTS);
    while latest.len() < OBJECTS || latest.values().any(|round| *round != all) {
        let message = observer.next().await.unwrap();
        if message["type"] == "object" {
            let object = &message["object"];
            let id = object["id"].as_str().unwrap().to_owned();
            let round = object["fields"]["round"].clone();
            if let Some(old) = latest.insert(id.clone(), round.clone()) {
                assert!(old.as_u64() <= round.as_u64(), "{id} goes back from {old} to {round}");
            }
        }
    }
    assert!(observer.messages < CHANGES / 2, "{} messages: nothing was left out", observer.messages);
    node.put("note/00", json!({"round": "after"})).await.unwrap();
    let after = observer
        .until("the change after the pause", |message| message["object"]["fields"]["round"] == "after");
    after.await.unwrap();
}

#[tokio::test]
async fn python_sees_the_same_with_the_ca_file() {
    let one = Daemon::found("one").await.unwrap();
    let two = one.joined("two").await.unwrap();
    one.put("note/first", json!({"text": "there"})).await.unwrap();
    two.converge("note/first", &json!({"text": "there"})).await.unwrap();
    let mut watch = Watch::of(&two, &["note/"]).await.unwrap();
    assert_eq!(watch.line().await.unwrap(), r#"note/first {"text": "there"}"#);
    one.put("note/far", json!({"n": 1, "text": "from one"})).await.unwrap();
    assert_eq!(watch.line().await.unwrap(), r#"note/far {"n": 1, "text": "from one"}"#);
    two.cli(&["delete", "note/first"]).await.unwrap().ok().unwrap();
    assert_eq!(watch.line().await.unwrap(), "note/first is gone");
}

#[tokio::test]
async fn the_ca_is_the_only_thing_to_trust() {
    let one = Daemon::found("one").await.unwrap();
    let other = Daemon::found("other").await.unwrap();
    let pem = one.cli(&["ca", "export"]).await.unwrap().ok().unwrap().stdout;
    assert_eq!(one.client().get("/api/v1/ca").await.unwrap().body, pem);
    let good = Client::web(one.address(), &pem, None).unwrap();
    assert_eq!(good.get("/healthz").await.unwrap().success().unwrap(), json!({"status": "ok"}));
    assert_eq!(good.get("/api/v1/ca").await.unwrap().body, pem, "a client can compare it");
    let foreign = other.cli(&["ca", "export"]).await.unwrap().ok().unwrap().stdout;
    assert!(foreign != pem);
    let refused = Client::web(one.address(), &foreign, None).unwrap().get("/healthz").await;
    assert!(format!("{:#}", refused.unwrap_err()).contains("certificate"), "a foreign CA must not do");

    // The strictest rules of RFC 5280 that OpenSSL knows.
    let file = one.state_dir().join("home.pem");
    std::fs::write(&file, &pem).unwrap();
    let script = "import socket, ssl, sys\n\
        tls = ssl.create_default_context(cafile=sys.argv[2])\n\
        tls.verify_flags |= ssl.VERIFY_X509_STRICT\n\
        tls.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))), server_hostname='127.0.0.1').close()";
    let strict =
        python().unwrap().args(["-c", script, &one.address().port().to_string()]).arg(&file).output();
    let strict = strict.await.unwrap();
    assert!(strict.status.success(), "{}", String::from_utf8_lossy(&strict.stderr));
}

/// People and scripts are told the same: there is no code, why, and how to get one.
async fn no_setup_code(node: &Daemon, why: &str) {
    let text = node.cli(&["setup-code"]).await.unwrap();
    assert_eq!((text.code, text.stdout.as_str()), (5, ""), "{text:?}");
    assert!(text.stderr.contains(why) && text.stderr.contains("--new"), "{text:?}");
    let json = node.cli(&["setup-code", "--json"]).await.unwrap();
    assert_eq!((json.code, json.stdout.as_str()), (5, ""), "{json:?}");
    let problem: Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(problem["type"], format!("urn:hearth:problem:setup-code-{why}"));
    assert_eq!(problem["exit"], 5);
}

#[tokio::test]
async fn the_setup_code_opens_the_door_once() {
    let node = Daemon::found("one").await.unwrap();
    let web = node.web(None).await.unwrap();
    let code = node.cli(&["setup-code"]).await.unwrap().ok().unwrap().stdout.trim().to_owned();
    assert!(!node.log().contains(&code), "the code never goes to the log");
    assert!(
        [403, 404].contains(&web.get("/api/v1/setup-code").await.unwrap().status),
        "only the socket shows it"
    );
    let wrong = web.send("POST", "/api/v1/setup", Some(&json!({"code": "AAAA-AAAA-AAAA"}))).await.unwrap();
    assert_eq!((wrong.status, wrong.problem().unwrap().as_str()), (403, "wrong-setup-code"));
    let right =
        web.send("POST", "/api/v1/setup", Some(&json!({"code": code, "label": "phone"}))).await.unwrap();
    let right = right.success().unwrap();
    assert_eq!(right["role"], "admin");
    let token = right["token"].as_str().unwrap().to_owned();
    let admin = web.with_token(Some(&token));
    let tokens = admin.get("/api/v1/tokens").await.unwrap();
    assert!(!tokens.body.contains(&token), "a list shows no secrets");
    let tokens = tokens.success().unwrap();
    assert_eq!(tokens["tokens"][0]["label"], "phone", "{tokens}");

    let again = web.send("POST", "/api/v1/setup", Some(&json!({"code": code}))).await.unwrap();
    assert_eq!((again.status, again.problem().unwrap().as_str()), (410, "setup-code-used"));
    no_setup_code(&node, "used").await;
    let fresh = node.json(&["setup-code", "--new"]).await.unwrap()["code"].as_str().unwrap().to_owned();
    assert!(fresh != code);
    for tried in 1..=5 {
        let wrong =
            web.send("POST", "/api/v1/setup", Some(&json!({"code": "AAAA-AAAA-AAAA"}))).await.unwrap();
        assert!([403, 429].contains(&wrong.status), "try {tried}: {wrong:?}");
    }
    let locked = web.send("POST", "/api/v1/setup", Some(&json!({"code": fresh}))).await.unwrap();
    assert_eq!((locked.status, locked.problem().unwrap().as_str()), (429, "setup-code-locked"));
    no_setup_code(&node, "locked").await;
    assert!(!node.log().contains(&token), "tokens never go to the log");
}

#[tokio::test]
async fn roles_bound_what_a_token_may_do() {
    let one = Daemon::found("one").await.unwrap();
    let two = one.joined("two").await.unwrap();
    let web = two.web(None).await.unwrap();
    let change = json!({"set": {"n": 1}});
    let command = json!({"device": "device/none", "change": {"on": true}});
    // What a viewer, an operator and an admin get.
    let routes = [
        ("GET", "/api/v1/status", None, [200, 200, 200]),
        ("GET", "/api/v1/objects", None, [200, 200, 200]),
        ("GET", "/metrics", None, [200, 200, 200]),
        ("PATCH", "/api/v1/objects/note/x", Some(&change), [403, 200, 200]),
        ("POST", "/api/v1/commands", Some(&command), [403, 404, 404]),
        ("GET", "/api/v1/export", None, [403, 403, 200]),
        ("GET", "/api/v1/doctor", None, [403, 403, 200]),
        ("GET", "/api/v1/tokens", None, [403, 403, 200]),
        ("POST", "/api/v1/leave", None, [403, 403, 0]),
    ];
    for (at, role) in ["viewer", "operator", "admin"].into_iter().enumerate() {
        // Made on one node, good on the other as soon as it has arrived there.
        let client = web.with_token(Some(&one.token(role).await.unwrap()));
        wait_until("the token has arrived", PATIENCE, async || {
            Ok(client.get("/api/v1/status").await?.status == 200)
        })
        .await
        .unwrap();
        for (method, path, body, expected) in routes.iter().filter(|route| route.3[at] != 0) {
            let answer = client.send(method, path, *body).await.unwrap();
            assert_eq!(answer.status, expected[at], "{role} {method} {path}: {answer:?}");
            if answer.status >= 400 {
                assert_eq!(
                    answer.problem().unwrap(),
                    if answer.status == 403 { "forbidden" } else { "not-found" }
                );
            }
        }
    }
    for (method, path, body, _) in routes {
        let answer = web.send(method, path, body).await.unwrap();
        assert_eq!(
            (answer.status, answer.problem().unwrap().as_str()),
            (401, "unauthenticated"),
            "{method} {path}"
        );
    }
    assert!(web.watch().await.unwrap().subscribe(&[""], None).await.is_err(), "an observer without a token");
    assert_eq!(web.get("/nowhere").await.unwrap().problem().unwrap(), "not-found");

    let made = one.json(&["token", "create", "--role", "viewer"]).await.unwrap();
    let client = web.with_token(made["token"].as_str());
    wait_until("the token has arrived", PATIENCE, async || {
        Ok(client.get("/api/v1/status").await?.status == 200)
    })
    .await
    .unwrap();
    let mut observer = client.watch().await.unwrap();
    observer.subscribe(&["note/"], None).await.unwrap();
    one.cli(&["token", "revoke", made["id"].as_str().unwrap()]).await.unwrap().ok().unwrap();
    wait_until("it is void on the other node", PATIENCE, async || {
        Ok(client.get("/api/v1/status").await?.status == 401)
    })
    .await
    .unwrap();
    assert!(observer.next().await.is_err(), "its observers are closed");
}

#[tokio::test]
async fn health_and_metrics_are_for_machines() {
    let node = Daemon::found("one").await.unwrap();
    node.put("note/a", json!({"n": 1})).await.unwrap();
    let web = viewer(&node).await;
    let answer = web.get("/metrics").await.unwrap();
    assert!(answer.media_type.starts_with("text/plain; version=0.0.4"), "{}", answer.media_type);
    let mut families = BTreeSet::new();
    for line in answer.body.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(family.split(' ').next().unwrap()), "{line} is there twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("hearth_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for family in [
        "hearth_objects",
        "hearth_nodes",
        "hearth_http_requests_total",
        "hearth_store_writable",
        "hearth_link_up_total",
    ] {
        assert!(families.contains(family), "{family} is missing in {}", answer.body);
    }
    let objects = metric(&node, "hearth_objects").await.unwrap();
    assert_eq!(objects, node.status().await.unwrap()["objects"].as_f64().unwrap());
}

#[tokio::test]
async fn what_is_exported_can_be_imported_elsewhere() {
    let one = Daemon::found("one").await.unwrap();
    let fields = json!({
        "text": "Käse \u{1f9c0} \"quoted\"\n", "bytes": {"$bytes": "AAEC/w=="}, "float": 0.1, "whole": -7, "none": null,
        "list": [1, [true, {"deep": "x"}]], "map": {"a": {"b": 1}},
    });
    one.put("note/all", fields.clone()).await.unwrap();
    for n in 0..600 {
        one.put(&format!("bulk/{n:03}"), json!({"n": n})).await.unwrap();
    }
    let file = one.state_dir().join("home.ndjson");
    one.cli(&["export", file.to_str().unwrap()]).await.unwrap().ok().unwrap();
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("bulk/")).count(), 600);

    let other = Daemon::found("other").await.unwrap();
    let file = file.to_str().unwrap();
    let tried = other.json(&["import", file, "--dry-run"]).await.unwrap();
    assert!(tried["written"].as_u64().unwrap() >= 601, "{tried}");
    assert_eq!(other.fields("note/all").await.unwrap(), Value::Null, "a dry run writes nothing");
    let imported = other.cli(&["import", file]).await.unwrap().ok().unwrap().stdout;
    assert!(imported.contains(" 0 refused"), "{imported}");
    assert_eq!(other.fields("note/all").await.unwrap(), fields);
    assert_eq!(other.fields("bulk/599").await.unwrap(), json!({"n": 599}));
    let back = other.cli(&["export"]).await.unwrap().ok().unwrap().stdout;
    let portable = |text: &str| -> BTreeMap<String, Value> {
        let objects = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let objects =
            objects.map(|object| (object["id"].as_str().unwrap().to_owned(), object["fields"].clone()));
        objects.filter(|(id, _)| !id.starts_with("node/")).collect()
    };
    assert_eq!(portable(&back), portable(&lines));

    let broken = other
        .cli_with(&["import", "-"], b"{\"id\":\"note/ok\",\"fields\":{\"n\":1}}\nnot json\n")
        .await
        .unwrap();
    assert!(broken.code == 6 && broken.stdout.contains("\"line\":2"), "{broken:?}");
    assert_eq!(other.fields("note/ok").await.unwrap(), json!({"n": 1}), "the good line is kept");
}

#[tokio::test]
async fn doctor_and_completions() {
    let node = Daemon::found("one").await.unwrap();
    let checks = node.json(&["doctor"]).await.unwrap();
    let checks = checks["checks"].as_array().unwrap().clone();
    let names: BTreeSet<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert!(names.is_superset(&BTreeSet::from(["store", "disk space", "clock", "nodes"])), "{names:?}");
    for check in &checks {
        assert_ne!(check["status"], "fail", "{check}");
        assert!(check["status"] == "ok" || check["fix"].is_string(), "no way out: {check}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = node.cli(&["completions", shell]).await.unwrap().ok().unwrap().stdout;
        assert!(script.contains("setup-code"), "{shell}");
    }
}
