//! The binary `hearth` against a server on a Unix socket that keeps to the contract of the API:
//! what it prints, where, and how it ends. The whole daemon is tested end to end elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde_json::{Value, json};
use tokio::net::UnixListener;

/// A state folder with a server on its socket.
struct Node {
    folder: PathBuf,
    seen: Seen,
    _runtime: tokio::runtime::Runtime,
}

type Seen = Arc<Mutex<Vec<(String, String)>>>;

impl Node {
    fn start() -> Self {
        let folder = empty_folder();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let seen = Seen::default();
        let router = router(Arc::clone(&seen));
        let listener = runtime.block_on(async { UnixListener::bind(folder.join("hearth.sock")).unwrap() });
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { folder, seen, _runtime: runtime }
    }

    fn hearth(&self, line: &[&str]) -> Output {
        self.piped(line, "")
    }

    fn piped(&self, line: &[&str], stdin: &str) -> Output {
        run(&self.folder, line, stdin)
    }

    /// The body of the last request to a path.
    fn body(&self, path: &str) -> String {
        let seen = self.seen.lock().unwrap();
        seen.iter().rev().find(|(to, _)| to == path).unwrap_or_else(|| panic!("{path}: {seen:?}")).1.clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn empty_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("hearth-cli-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn command(folder: &Path, line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.env_clear().env("HEARTH_STATE_DIR", folder).env("HOME", folder).args(line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(folder: &Path, line: &[&str], stdin: &str) -> Output {
    let mut child = command(folder, line).spawn().unwrap();
    // A child that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout: {}\nstderr: {}", stdout(output), stderr(output));
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn router(seen: Seen) -> Router {
    Router::new()
        .route("/api/v1/status", get(|| async { axum::Json(json!({"household": "ab", "node": "cd", "nodes": [
            {"id": "cd", "name": "kitchen", "roles": ["admin"], "state": "self"}]})) }))
        .route("/api/v1/objects", get(objects))
        .route("/api/v1/objects/{kind}/{name}", any(object))
        .route("/api/v1/commands", post(new_command))
        .route("/api/v1/commands/{id}", get(the_command))
        .route("/api/v1/watch", any(|upgrade: WebSocketUpgrade| async { upgrade.protocols(["hearth.v1"]).on_upgrade(watch) }))
        .route("/api/v1/invites", post(|| async {
            axum::Json(json!({"token": "the-token", "id": "i1", "expires": "2026-11-22T06:15:00Z"}))
        }))
        .route("/api/v1/invites/{id}", any(|| async { StatusCode::NO_CONTENT }))
        .route("/api/v1/tokens/{id}", any(|| async { StatusCode::NO_CONTENT }))
        .route("/api/v1/join", post(|| async { (StatusCode::ACCEPTED, axum::Json(json!({"household": "ab", "node": "cd"}))) }))
        .route("/api/v1/nodes/{node}", any(|UrlPath(node): UrlPath<String>| async move { axum::Json(json!({"node": node})) }))
        .route("/api/v1/tokens", post(|| async { axum::Json(json!({"id": "t1", "token": "secret-token", "role": "viewer"})) }))
        .route("/api/v1/setup-code", any(|| async { axum::Json(json!({"code": "1234-5678", "used": false})) }))
        .route("/api/v1/ca", get(|| async { CERTIFICATE }))
        .route("/api/v1/doctor", get(|| async {
            axum::Json(json!({"checks": [{"name": "clock", "status": "fail", "detail": "1970", "fix": "set it"}]}))
        }))
        .route("/api/v1/automations/{name}", any(automation))
        .route("/api/v1/export", get(|| async { "{\"id\":\"note/a\"}\n{\"id\":\"note/b\"}\n" }))
        .route("/api/v1/import", post(import))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&seen), record))
        .with_state(seen)
}

/// Keeps what was asked, with its body.
async fn record(
    State(seen): State<Seen>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let path = format!("{} {}", parts.method, parts.uri);
    if parts.headers.contains_key("upgrade") {
        return next.run(axum::extract::Request::from_parts(parts, body)).await;
    }
    let bytes = axum::body::to_bytes(body, 4 << 20).await.unwrap();
    seen.lock().unwrap().push((path, String::from_utf8_lossy(&bytes).into_owned()));
    next.run(axum::extract::Request::from_parts(parts, bytes.into())).await
}

fn refuse(status: StatusCode, detail: &str, fix: &str) -> Response {
    let body =
        json!({"type": "urn:hearth:problem:test", "status": status.as_u16(), "detail": detail, "fix": fix});
    (status, axum::Json(body)).into_response()
}

/// 1,200 objects, in pages of at most 500.
async fn objects(RawQuery(query): RawQuery) -> axum::Json<Value> {
    let query = query.unwrap_or_default();
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let limit: usize = value("limit").unwrap().parse().unwrap();
    let from = value("after").map_or(0, |after| after[after.len() - 4..].parse::<usize>().unwrap() + 1);
    let page: Vec<Value> = (from..1_200)
        .take(limit)
        .map(|n| json!({"id": format!("note/{n:04}"), "fields": {"n": n}}))
        .collect();
    let last = from + page.len();
    axum::Json(json!({"objects": page, "next": (last < 1_200).then(|| format!("note/{:04}", last - 1))}))
}

async fn object(
    method: axum::http::Method,
    UrlPath((_, name)): UrlPath<(String, String)>,
    body: Bytes,
) -> Response {
    match (method.as_str(), name.as_str()) {
        (_, "missing") => {
            refuse(StatusCode::NOT_FOUND, "there is no object note/missing", "see: hearth list")
        }
        ("PATCH", "reported") => {
            refuse(StatusCode::FORBIDDEN, "`reported` may not be written", "write `desired`")
        }
        ("PATCH", _) => {
            let body: Value = serde_json::from_slice(&body).unwrap();
            axum::Json(json!({"id": "note/x", "fields": body["set"], "complete": true})).into_response()
        }
        ("DELETE", _) => StatusCode::NO_CONTENT.into_response(),
        _ => axum::Json(json!({"id": "note/x", "fields": {"text": "hi there", "n": 3}})).into_response(),
    }
}

/// The device's name says how its command ends.
async fn new_command(State(seen): State<Seen>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let device = body["device"].as_str().unwrap().to_owned();
    if device == "nobody" {
        return refuse(StatusCode::NOT_FOUND, "no device is called `nobody`", "see: hearth devices");
    }
    seen.lock().unwrap().push(("device".into(), device.clone()));
    let life = json!([{"state": "accepted", "at": "2026-11-22T06:00:00.000Z"}]);
    (
        StatusCode::ACCEPTED,
        axum::Json(json!({"id": device, "device": device, "state": "accepted", "life": life})),
    )
        .into_response()
}

/// Each look sees one step more.
async fn the_command(State(seen): State<Seen>, UrlPath(id): UrlPath<String>) -> axum::Json<Value> {
    let path = format!("GET /api/v1/commands/{id}");
    let looks = seen.lock().unwrap().iter().filter(|(to, _)| *to == path).count();
    let states = ["accepted", "sent", "acknowledged", id.as_str()];
    let at = |n: usize| format!("2026-11-22T06:00:00.{n:02}0Z");
    let life: Vec<Value> = states
        .iter()
        .take(looks + 1)
        .enumerate()
        .map(|(n, state)| json!({"state": state, "at": at(n)}))
        .collect();
    axum::Json(
        json!({"id": id, "device": id, "state": life.last().unwrap()["state"], "reason": "because", "life": life}),
    )
}

async fn watch(mut socket: WebSocket) {
    let subscribe = socket.recv().await.unwrap().unwrap();
    let subscribe: Value = serde_json::from_str(subscribe.to_text().unwrap()).unwrap();
    let resumed = subscribe.get("resume").is_some();
    let object =
        |n: u64| json!({"type": "object", "object": {"id": "note/x", "fields": {"n": n, "same": true}}});
    let messages = if resumed {
        vec![object(3), json!({"type": "mark", "resume": "r3"}), json!({"type": "gone", "id": "note/x"})]
    } else {
        vec![
            json!({"type": "snapshot_begin", "reset": true}),
            object(1),
            json!({"type": "snapshot_end", "resume": "r1"}),
            object(2),
            json!({"type": "mark", "resume": "r2"}),
            json!({"type": "command", "command": {"id": "c", "device": "device/l", "state": "confirmed", "life": []}}),
        ]
    };
    for message in messages {
        socket.send(Message::text(message.to_string())).await.unwrap();
    }
    if resumed {
        // It stays open until the client has had enough.
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

/// What is stored is not understood when its first trigger is of no kind.
async fn automation(method: axum::http::Method, body: Bytes) -> axum::Json<Value> {
    let mut program: Value = serde_json::from_slice(&body).unwrap_or_else(
        |_| json!({"triggers": [{"event": "bell"}], "actions": [{"delay": "1s"}], "mode": "", "max": null}),
    );
    let enabled = program.as_object_mut().unwrap().remove("enabled").unwrap_or(true.into());
    let is_wrong = method == "PUT" && program["triggers"][0].get("event").is_none();
    let (state, reason) = if is_wrong { ("invalid", Some("triggers[0]: why")) } else { ("waiting", None) };
    axum::Json(
        json!({"name": "bell", "program": program, "enabled": enabled, "state": state, "reason": reason, "runs": []}),
    )
}

async fn import(RawQuery(query): RawQuery, body: String) -> axum::Json<Value> {
    let lines: Vec<&str> = body.lines().collect();
    let bad = lines.iter().position(|line| line.contains("bad"));
    let refused: Vec<Value> = bad.map(|at| json!({"line": at + 1, "detail": "bad"})).into_iter().collect();
    axum::Json(json!({"written": lines.len() - refused.len(), "refused": refused, "query": query}))
}

#[test]
fn get_put_and_delete() {
    let node = Node::start();
    let got = node.hearth(&["get", "note/x"]);
    ends(&got, 0);
    assert!(stdout(&got).starts_with("note/x\nFIELD  VALUE"), "{}", stdout(&got));
    assert_eq!(stdout(&node.hearth(&["get", "note/x", "text"])), "hi there\n");
    ends(&node.hearth(&["get", "note/x", "none"]), 5);
    let put = node.hearth(&["put", "note/x", "a=1", "b=milk", "c:=[true]", "--unset", "d", "--json"]);
    ends(&put, 0);
    let sent: Value = serde_json::from_str(&node.body("PATCH /api/v1/objects/note/x")).unwrap();
    assert_eq!(sent, json!({"set": {"a": 1, "b": "milk", "c": [true]}, "unset": ["d"]}));
    assert_eq!(serde_json::from_str::<Value>(&stdout(&put)).unwrap()["fields"]["b"], "milk");
    ends(&node.piped(&["put", "note/x", "-"], "{\"z\": 9}"), 0);
    assert!(node.body("PATCH /api/v1/objects/note/x").contains("\"z\":9"));
    let wrong = node.piped(&["put", "note/x", "-"], "[]");
    ends(&wrong, 2);
    assert!(stderr(&wrong).contains("not an object of fields"), "{}", stderr(&wrong));
    ends(&node.hearth(&["put", "note/x", "a=1", "--unset", "a"]), 2);
    let deleted = node.hearth(&["delete", "note/x"]);
    ends(&deleted, 0);
    assert!(stdout(&deleted).is_empty());
}

#[test]
fn problems_end_with_their_code_and_show_the_way_out() {
    let node = Node::start();
    let missing = node.hearth(&["get", "note/missing"]);
    ends(&missing, 5);
    assert_eq!(stderr(&missing), "error: there is no object note/missing\n  fix: see: hearth list\n");
    assert!(stdout(&missing).is_empty());
    ends(&node.hearth(&["put", "note/reported", "a=1"]), 4);
    let document = node.hearth(&["get", "note/missing", "--json"]);
    ends(&document, 5);
    let document: Value = serde_json::from_str(&stderr(&document)).unwrap();
    assert_eq!((&document["type"], &document["exit"]), (&json!("urn:hearth:problem:test"), &json!(5)));
}

#[test]
fn lists_are_read_page_by_page() {
    let node = Node::start();
    let all = node.hearth(&["list", "note/", "--json"]);
    ends(&all, 0);
    let all: Value = serde_json::from_str(&stdout(&all)).unwrap();
    assert_eq!((all["objects"].as_array().unwrap().len(), &all["next"]), (1_200, &Value::Null));
    assert_eq!(all["objects"][1_199]["id"], "note/1199");
    let some = node.hearth(&["list", "--limit", "501"]);
    assert_eq!(stdout(&some).lines().count(), 502);
    assert!(stdout(&some).ends_with("note/0500  n=500\n") && stderr(&some).contains("more behind note/0500"));
}

#[test]
fn a_light_shows_the_life_of_its_command_and_ends_by_it() {
    let node = Node::start();
    for (end, code) in [("confirmed", 0), ("timed_out", 7), ("superseded", 6), ("failed", 1)] {
        let output = node.hearth(&["light", end, "on"]);
        ends(&output, code);
        let expected = format!(
            "accepted      2026-11-22T06:00:00.000Z\nsent          +10 ms\nacknowledged  +20 ms\n{end:<13} +30 ms\n"
        );
        assert_eq!(stdout(&output), expected);
        assert_eq!(stderr(&output).contains("because"), code != 0);
    }
    let quick = node.hearth(&["light", "confirmed", "on", "--no-wait"]);
    ends(&quick, 0);
    assert_eq!(stdout(&quick).lines().count(), 1);
    let document = node.hearth(&["light", "timed_out", "--brightness", "5", "--json"]);
    ends(&document, 7);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&document)).unwrap()["state"], "timed_out");
    ends(&node.hearth(&["light", "nobody", "on"]), 5);
}

#[test]
fn watch_goes_on_where_it_was_when_the_node_breaks_off() {
    let node = Node::start();
    let output = node.hearth(&["watch", "note/", "--count", "5"]);
    ends(&output, 0);
    let shown = stdout(&output);
    let tails: Vec<&str> = shown.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    let expected =
        ["note/x  n=1 same=true", "note/x  n=2", "device/l confirmed c", "note/x  n=3", "note/x is gone"];
    assert_eq!(tails, expected);
    let json = node.hearth(&["watch", "--changes", "--count", "1", "--json"]);
    ends(&json, 0);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&json)).unwrap()["object"]["fields"]["n"], 2);
    let timed = node.hearth(&["watch", "--count", "99", "--timeout", "900ms"]);
    ends(&timed, 7);
}

#[test]
fn an_invite_prints_only_its_token_to_stdout() {
    let node = Node::start();
    let invite = node.hearth(&["invite", "--ttl", "90s", "--role", "admin"]);
    ends(&invite, 0);
    assert_eq!(stdout(&invite), "the-token\n");
    assert_eq!(node.body("POST /api/v1/invites"), "{\"roles\":[\"admin\"],\"ttl_s\":90}");
    assert!(stderr(&invite).contains("1m30s") && !stderr(&invite).contains("the-token"));
    assert!(!stderr(&invite).contains('█'), "no secret picture where nobody looks");
    assert!(stderr(&node.hearth(&["invite", "--qr"])).contains('█'));
    ends(&node.hearth(&["invite", "--ttl", "1h", "list"]), 2);
    let quiet = node.hearth(&["invite", "-q"]);
    assert_eq!(node.body("POST /api/v1/invites"), "{\"roles\":[\"member\"],\"ttl_s\":900}");
    assert!(stderr(&quiet).is_empty());
}

#[test]
fn the_household_is_joined_and_its_nodes_are_named() {
    let node = Node::start();
    let joined = node.piped(&["join", "-", "--force"], "the-token\n");
    ends(&joined, 0);
    assert_eq!(node.body("POST /api/v1/join"), "{\"force\":true,\"token\":\"the-token\"}");
    assert_eq!(stdout(&joined), "joined household ab\n");
    ends(&node.hearth(&["nodes", "rename", "a b/c", "attic"]), 0);
    assert_eq!(node.body("PATCH /api/v1/nodes/a%20b%2Fc"), "{\"name\":\"attic\"}");
    assert!(stdout(&node.hearth(&["nodes"])).starts_with("NAME     ROLE"));
    assert!(stdout(&node.hearth(&["status"])).starts_with("household  ab\n"));
}

#[test]
fn tokens_codes_certificates_and_checks() {
    let node = Node::start();
    let token = node.hearth(&["token", "create", "--role", "viewer", "--label", "hall"]);
    assert_eq!(stdout(&token), "secret-token\n");
    assert_eq!(node.body("POST /api/v1/tokens"), "{\"label\":\"hall\",\"role\":\"viewer\"}");
    assert_eq!(stdout(&node.hearth(&["setup-code"])), "1234-5678\n");
    assert_eq!(stdout(&node.hearth(&["ca", "export"])), CERTIFICATE);
    let file = node.folder.join("ca.pem");
    ends(&node.hearth(&["ca", "export", "--out", file.to_str().unwrap()]), 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), CERTIFICATE);
    let doctor = node.hearth(&["doctor"]);
    ends(&doctor, 1);
    assert!(stdout(&doctor).contains("clock: set it"));
}

#[test]
fn with_json_every_command_answers_with_a_document() {
    let node = Node::start();
    let document = |line: &[&str]| -> Value {
        let mut line = line.to_vec();
        line.push("--json");
        let output = node.hearth(&line);
        ends(&output, 0);
        assert!(stderr(&output).is_empty(), "{line:?}: {}", stderr(&output));
        serde_json::from_str(&stdout(&output)).unwrap_or_else(|error| panic!("{line:?}: {error}: {output:?}"))
    };
    assert_eq!(document(&["delete", "note/x"]), json!({"id": "note/x", "deleted": true}));
    assert_eq!(document(&["invite", "revoke", "i1"]), json!({"id": "i1", "revoked": true}));
    assert_eq!(document(&["token", "revoke", "t1"]), json!({"id": "t1", "revoked": true}));
    let codes = document(&["exit-codes"]);
    assert_eq!(codes["exit_codes"].as_array().unwrap().len(), 9);
    assert_eq!(codes["exit_codes"][7], json!({"code": 7, "meaning": "not confirmed in time"}));
    let script = document(&["completions", "fish"]);
    assert!(script["shell"] == "fish" && script["script"].as_str().unwrap().contains("setup-code"));
    assert!(document(&["config", "default"])["toml"].as_str().unwrap().contains("unix_group"));
}

#[test]
fn an_automation_is_read_from_a_file_and_comes_back_as_one() {
    let node = Node::start();
    let toml = "enabled = false\n\n[[triggers]]\nevent = \"bell\"\n\n[[actions]]\ndevice = \"hall\"\nchange = { on = true }\n";
    let json = json!({"enabled": false, "triggers": [{"event": "bell"}],
        "actions": [{"device": "hall", "change": {"on": true}}]});
    let sent = || serde_json::from_str::<Value>(&node.body("PUT /api/v1/automations/bell")).unwrap();
    ends(&node.piped(&["automation", "set", "bell", "-"], toml), 0);
    assert_eq!(sent(), json);
    let file = node.folder.join("bell.json");
    std::fs::write(&file, json.to_string()).unwrap();
    let set = node.hearth(&["automation", "add", "bell", file.to_str().unwrap()]);
    ends(&set, 0);
    assert_eq!((sent(), stdout(&set), stderr(&set)), (json, String::new(), "bell is stored\n".to_owned()));
    let back = stdout(&node.hearth(&["automation", "show", "bell", "--toml"]));
    assert_eq!(back, "[[triggers]]\nevent = \"bell\"\n\n[[actions]]\ndelay = \"1s\"\n");
    ends(&node.piped(&["automation", "set", "bell", "-"], &back), 0);
    assert_eq!(sent(), json!({"triggers": [{"event": "bell"}], "actions": [{"delay": "1s"}]}));
}

#[test]
fn an_automation_that_is_not_understood_ends_with_six_and_a_file_that_is_none_with_two() {
    let node = Node::start();
    let wrong = "{\"triggers\": [{\"evnt\": \"bell\"}], \"actions\": []}";
    let set = node.piped(&["automation", "set", "bell", "-"], wrong);
    ends(&set, 6);
    let told = stderr(&set);
    assert!(
        told.starts_with("error: bell is stored, and nothing comes of it: triggers[0]: why\n  fix: "),
        "{told}"
    );
    let set = node.piped(&["automation", "set", "bell", "-", "--json"], wrong);
    ends(&set, 6);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&set)).unwrap()["state"], "invalid");
    assert!(stderr(&set).is_empty(), "{}", stderr(&set));
    let set = node.piped(&["automation", "set", "bell", "-"], "[[triggers]]\nevent = bell\n");
    ends(&set, 2);
    assert!(stderr(&set).starts_with("error: stdin: line 2: "), "{}", stderr(&set));
    ends(&node.hearth(&["automation", "set", "bell", "/nowhere/at/all"]), 1);
    ends(&node.hearth(&["automation", "set", "Bell", "-"]), 2);
}

#[test]
fn objects_are_exported_and_imported() {
    let node = Node::start();
    let file = node.folder.join("home.ndjson");
    let name = file.to_str().unwrap();
    ends(&node.hearth(&["export", name]), 0);
    assert_eq!(stdout(&node.hearth(&["export"])), std::fs::read_to_string(&file).unwrap());
    let imported = node.hearth(&["import", name]);
    ends(&imported, 0);
    assert_eq!(stdout(&imported), "2 written, 0 refused\n");
    let bad = node.piped(&["import", "-", "--dry-run", "--json"], "{\"id\":\"note/a\"}\nbad\n");
    ends(&bad, 6);
    let bad: Value = serde_json::from_str(&stdout(&bad)).unwrap();
    assert_eq!((&bad["written"], &bad["refused"][0]["line"]), (&json!(1), &json!(2)));
    assert_eq!(node.body("POST /api/v1/import?dry_run=true"), "{\"id\":\"note/a\"}\nbad\n");
    ends(&node.hearth(&["import", "/nowhere/at/all"]), 1);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let node = Node::start();
    let mut child = command(&node.folder, &["list", "--json"]).spawn().unwrap();
    // Long output: what does not fit the pipe is written after its reader has gone.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    ends(&output, 0);
    assert!(stderr(&output).is_empty(), "{}", stderr(&output));
}

/// Root may open everything, so root sends somebody who may not.
#[test]
fn a_user_who_may_not_open_the_socket_is_told_what_to_do() {
    let node = Node::start();
    let binary = node.folder.join("hearth");
    // By another program: a process that another test forks meanwhile would hold what this one wrote open, and nobody can start
    // that ("text file busy").
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_hearth")).arg(&binary).status().unwrap();
    assert!(copied.success(), "{copied}");
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(&binary, 0o755);
    mode(&node.folder, 0o755);
    let socket = node.folder.join("hearth.sock");
    if root {
        // The group `daemon`, which every Debian has.
        std::os::unix::fs::chown(&socket, None, Some(1)).unwrap();
    }
    mode(&socket, if root { 0o660 } else { 0o000 });
    let mut command = Command::new(&binary);
    command.env_clear().env("HEARTH_STATE_DIR", &node.folder).arg("status");
    if root {
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().unwrap();
    ends(&output, 4);
    let told = stderr(&output);
    assert!(told.contains("hearth.sock: it is for root and the group"), "{told}");
    assert!(told.contains("fix: sudo usermod -aG ") && told.contains(" $USER"), "{told}");
}

#[test]
fn what_needs_no_node_works_without_one() {
    let folder = empty_folder();
    let version = run(&folder, &["version", "--json"], "");
    assert_eq!(
        serde_json::from_str::<Value>(&stdout(&version)).unwrap()["version"],
        env!("CARGO_PKG_VERSION")
    );
    let codes = run(&folder, &["help", "exit-codes"], "");
    ends(&codes, 0);
    assert!(stdout(&codes).contains("3  the daemon cannot be reached"));
    let file = folder.join("hearth.toml");
    std::fs::write(&file, stdout(&run(&folder, &["config", "default"], ""))).unwrap();
    let shown = run(&folder, &["config", "show"], "");
    ends(&shown, 0);
    assert!(stdout(&shown).lines().any(|line| line.split_whitespace().eq([
        "listen",
        "0.0.0.0:7843",
        "default"
    ])));
    std::fs::write(&file, "\nlisten = 7843").unwrap();
    for line in [&["config", "show"][..], &["run"]] {
        let wrong = run(&folder, line, "");
        ends(&wrong, 2);
        assert!(stderr(&wrong).contains("hearth.toml:2:10: `listen` is 7843"), "{}", stderr(&wrong));
    }
    let gone = run(&folder, &["status"], "");
    ends(&gone, 3);
    assert!(stderr(&gone).contains("hearth run --state-dir"), "{}", stderr(&gone));
    let usage = run(&folder, &["statsu", "--json"], "");
    ends(&usage, 2);
    assert_eq!(serde_json::from_str::<Value>(&stderr(&usage)).unwrap()["exit"], 2);
    ends(&run(&folder, &["--help"], ""), 0);
    ends(&run(&folder, &[], ""), 2);
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_token_from_stdin_is_bounded() {
    let node = Node::start();
    let output = node.piped(&["join", "-"], &"x".repeat(100_000));
    ends(&output, 2);
    assert!(!stderr(&output).contains("xxx"));
    let mut rest = String::new();
    assert_eq!(output.stdout.as_slice().read_to_string(&mut rest).unwrap(), 0);
}

#[test]
fn a_node_prints_where_its_api_is_however_little_it_logs() {
    let folder = empty_folder();
    std::fs::write(folder.join("hearth.toml"), "[adapters.lifx]\nenabled = false\n").unwrap();
    for (json, url) in [(false, "https://127.0.0.1:"), (true, "\"https://127.0.0.1:")] {
        let mut line = vec!["run", "--listen", "127.0.0.1:0", "--log", "off"];
        line.extend(json.then_some("--json"));
        let mut child = command(&folder, &line).spawn().unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        // Ends with the line, or with the node.
        while !text.contains(url) && std::io::BufRead::read_line(&mut out, &mut text).unwrap() > 0 {}
        assert!(text.contains(url), "{text}");
        if json {
            assert_eq!(
                serde_json::from_str::<Value>(&text).unwrap()["is_founded"],
                false,
                "it is its second start"
            );
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Whoever may pass through the folder to the socket reads nothing else in it.
    let mut open = vec![folder.clone()];
    while let Some(entry) = open.pop() {
        let about = std::fs::symlink_metadata(&entry).unwrap();
        if about.is_dir() {
            open.extend(std::fs::read_dir(&entry).unwrap().map(|entry| entry.unwrap().path()));
        }
        let made_here = entry != folder && !entry.ends_with("hearth.toml") && !entry.ends_with("hearth.sock");
        assert!(!made_here || about.mode() & 0o077 == 0, "{}: {:o}", entry.display(), about.mode());
    }
    std::fs::remove_dir_all(folder).unwrap();
}
