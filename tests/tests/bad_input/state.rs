//! A port or a state folder that the daemon cannot have, and values and fields that clients may
//! not write.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::Path,
};

use hearth_tests::{
    daemon::free_port,
    hostile::{Daemon, Folder, Home, Launch, wait_until},
};
use serde_json::{Value as Json, json};

const CANNOT_START: i32 = 8;
const REFUSED: i32 = 6;
const NOT_PERMITTED: i32 = 4;

#[test]
fn a_port_in_use_is_named_with_its_protocol() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let refused = Launch::new().listen(address).fails(&home.folder.join("c"));
    let port = format!("port {} of 127.0.0.1 is in use over TCP", address.port());
    refused.expect(CANNOT_START, &[&port, "--listen"]);
    // UDP alone: a number that is free over TCP.
    let free = free_port().expect("a port");
    let taken = UdpSocket::bind(("127.0.0.1", free)).expect("it is free");
    let address = taken.local_addr().expect("its address");
    let refused = Launch::new().listen(address).fails(&home.folder.join("c"));
    let port = format!("port {} of 127.0.0.1 is in use over UDP", address.port());
    refused.expect(CANNOT_START, &[&port, "--listen"]);
    // That of a running daemon.
    let refused = Launch::new().listen(home.a.address).fails(&home.folder.join("c"));
    refused.expect(CANNOT_START, &["is in use over TCP"]);
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn a_state_folder_in_use_is_named_with_its_process() {
    let home = Home::new();
    let refused = Launch::new().fails(&home.folder.join("a"));
    let holder = format!("is in use by another hearth (process {})", home.a.pid());
    refused.expect(CANNOT_START, &[&holder, "--state-dir"]);
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn a_read_only_state_folder_is_named() {
    let home = Home::new();
    let token = home.a.invite("member", 900);
    let state = home.folder.join("c");
    // One that has been used before, and an empty one.
    let node = Daemon::start(&state, &Launch::new().with(&["--join", &token]));
    node.put("note/kept", "text", &json!("kept"));
    node.stop();
    let empty = home.folder.join("e");
    fs::create_dir(&empty).expect("a folder");
    for folder in [&state, &empty] {
        let shown = folder.display();
        let mounts = format!("mount --bind {shown} {shown} && mount -o remount,ro,bind {shown}");
        let refused = Launch::new().mounts(&mounts).fails(folder);
        let named = format!("{shown} is on a read-only file system");
        refused.expect(CANNOT_START, &[&named, "remount it for writing", "--state-dir"]);
    }
    // Nothing was harmed.
    let node = Daemon::start(&state, &Launch::new());
    assert_eq!(node.field("note/kept", "text"), Some(json!("kept")));
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn a_full_disk_stops_the_start_and_says_so() {
    let home = Home::new();
    let state = home.folder.join("c");
    fs::create_dir(&state).expect("a folder");
    let mounts = format!("mount -t tmpfs -o size=512k,mode=700 tmpfs {}", state.display());
    let refused = Launch::new().mounts(&mounts).fails(&state);
    let named = format!("the disk that holds {} is full", state.display());
    refused.expect(CANNOT_START, &[&named, "free some space"]);
    home.is_served();
    home.memory_is_bounded();
}

/// The disk fills up under a running node.
#[test]
fn a_disk_that_fills_up_refuses_writes_until_there_is_room_and_loses_nothing() {
    let folder = Folder::new().expect("a temp folder");
    let state = folder.join("a");
    fs::create_dir(&state).expect("a folder");
    let mounts = format!("mount -t tmpfs -o size=24m,mode=700 tmpfs {}", state.display());
    let a = Daemon::start(&state, &Launch::new().mounts(&mounts));
    let before = a.rss_kib();
    let token = a.invite("member", 900);
    let b = Daemon::start(&folder.join("b"), &Launch::new().with(&["--join", &token]));
    let home = Home::of(a, b, folder, before);
    home.is_served();
    home.a.put("note/early", "text", &json!("acknowledged before"));

    let token = home.a.invite("member", 900);
    let ballast = home.a.state().join("ballast");
    fill(&ballast);
    // An invite cannot be noted as used: nobody is let in, and it holds for later.
    let join = Launch::new().with(&["--join", &token]);
    let refused = join.fails(&home.folder.join("c"));
    refused.expect(CANNOT_START, &["could not save the admission", "with the same invite"]);
    assert_eq!(home.a.counter("join_refused_not_saved"), 1);
    let refused = home.a.cli(&["put", "note/full", "text=no room"]);
    assert_ne!(refused.code, 0, "{}", refused.text());
    refused.expect(refused.code, &["free", "hearth doctor"]);
    let (status, problem) =
        home.a.http("PATCH", "/api/v1/objects/note/full", &json!({"set": {"text": "no room"}}));
    assert_eq!((status, &problem["type"]), (507, &json!("urn:hearth:problem:store")), "{problem}");
    assert!(home.a.status()["store_error"].is_string());
    let doctor = home.a.cli(&["doctor"]);
    assert!(doctor.text().contains("store") && doctor.text().contains("fail"), "{}", doctor.text());
    assert!(home.a.said().contains("writes are refused until it can"), "{}", home.a.said());
    let metrics = home.a.http_raw("GET", "/metrics", b"").1;
    assert!(metrics.contains("hearth_store_writable 0"), "{metrics}");
    assert_eq!(home.a.requests("/api/v1/objects", "5xx"), 2, "{metrics}");
    // It reads and passes on what others write, and the other node works.
    assert_eq!(home.a.field("note/early", "text"), Some(json!("acknowledged before")));
    home.b.put("note/from-b", "text", &json!("meanwhile"));
    wait_until("the full node shows it", || home.a.field("note/from-b", "text") == Some(json!("meanwhile")));

    fs::remove_file(&ballast).expect("the ballast goes");
    wait_until("it writes again", || {
        home.a.http("PATCH", "/api/v1/objects/note/full", &json!({"set": {"text": "room"}})).0 == 200
    });
    wait_until("the other node reads it", || home.b.field("note/full", "text") == Some(json!("room")));
    assert_eq!(home.b.field("note/early", "text"), Some(json!("acknowledged before")));
    let late = Daemon::start(&home.folder.join("c"), &join);
    wait_until("who was refused joins now", || {
        late.field("note/early", "text") == Some(json!("acknowledged before"))
    });
    home.is_served();
    home.memory_is_bounded();
}

/// Full, room, full again, room: each time under writes, and each write that was acknowledged is there
/// on both nodes in the end.
#[test]
fn a_disk_that_is_full_twice_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new().expect("a temp folder");
    let state = folder.join("a");
    fs::create_dir(&state).expect("a folder");
    let mounts = format!("mount -t tmpfs -o size=24m,mode=700 tmpfs {}", state.display());
    let a = Daemon::start(&state, &Launch::new().mounts(&mounts));
    let before = a.rss_kib();
    let token = a.invite("member", 900);
    let b = Daemon::start(&folder.join("b"), &Launch::new().with(&["--join", &token]));
    let home = Home::of(a, b, folder, before);
    home.is_served();
    let put = |name: &str| {
        let body = json!({ "set": { "text": name } });
        home.a.http("PATCH", &format!("/api/v1/objects/note/{name}"), &body).0
    };
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        for number in 0..30 {
            let name = format!("r{round}-before{number}");
            assert_eq!(put(&name), 200, "{name}");
            acknowledged.push(name);
        }
        let ballast = home.a.state().join("ballast");
        fill(&ballast);
        let mut refused = 0;
        for number in 0..10 {
            let name = format!("r{round}-full{number}");
            match put(&name) {
                200 => acknowledged.push(name),
                507 => refused += 1,
                other => panic!("{name}: {other}"),
            }
        }
        assert!(refused > 0, "round {round}: the disk was never full");
        assert!(home.a.status()["store_error"].is_string());
        // That is when a person wants a copy.
        let copy = home.folder.join(&format!("round{round}.hearth"));
        let made = home.a.cli(&["backup", copy.to_str().expect("a path")]);
        assert!(made.code == 0 && copy.exists(), "{}", made.text());
        fs::remove_file(&ballast).expect("the ballast goes");
        let again = format!("r{round}-room");
        wait_until("it writes again", || put(&again) == 200);
        acknowledged.push(again);
        wait_until("nothing is wrong any more", || home.a.status()["store_error"].is_null());
    }
    for node in [&home.a, &home.b] {
        wait_until("both hold every write that was acknowledged", || {
            acknowledged.iter().all(|name| node.field(&format!("note/{name}"), "text") == Some(json!(name)))
        });
    }
    home.is_served();
    home.memory_is_bounded();
}

/// Fills the file system that holds `path` but for less than the store wants.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).expect("a file");
    let block = vec![1; 256 * 1024];
    while file.write_all(&block).is_ok() {}
}

#[test]
fn a_value_over_its_limit_is_refused_by_command_and_by_http() {
    let home = Home::new();
    let long = "x".repeat(5_000);
    let refused = home.a.cli(&["put", "note/x", &format!("text={long}")]);
    refused.expect(REFUSED, &["`note/x.text`", "the limit is 3900", "split it"]);
    let path = "/api/v1/objects/note/x";
    let (status, problem) = home.a.http("PATCH", path, &json!({"set": {"ok": 1, "text": long}}));
    assert_eq!((status, &problem["type"]), (422, &json!("urn:hearth:problem:value")), "{problem}");
    let deep = (0..10).fold(json!(1), |inner, _| json!([inner]));
    let (status, problem) = home.a.http("PATCH", path, &json!({"set": {"text": deep}}));
    assert_eq!((status, &problem["type"]), (422, &json!("urn:hearth:problem:value")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("8 levels")), "{problem}");
    let body = br#"{"set":{"text":9223372036854775808}}"#;
    let (status, text) = home.a.http_raw("PATCH", path, body);
    assert!(status == 400 && text.contains("number-out-of-range"), "{status} {text}");
    let many: serde_json::Map<String, Json> = (0..1_025).map(|n| (format!("f{n}"), json!(n))).collect();
    let (status, problem) = home.a.http("PATCH", path, &json!({"set": many}));
    assert_eq!((status, &problem["type"]), (413, &json!("urn:hearth:problem:too-many-changes")), "{problem}");
    // Not even a part of a refused request was written.
    assert_eq!(home.a.http("GET", path, &Json::Null).0, 404);
    assert!(home.a.requests("/api/v1/objects", "4xx") >= 5);
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn fields_that_are_not_for_clients_are_refused() {
    let home = Home::new();
    let b = home.b.short();
    for (object, field) in [
        (format!("node/{b}"), "version"),
        (format!("node/{b}"), "closed.1"),
        ("device/lamp".into(), "reported"),
    ] {
        let before = home.a.field(&object, field);
        let refused = home.a.cli(&["put", &object, &format!("{field}=666")]);
        refused.expect(NOT_PERMITTED, &[&format!("`{object}.{field}` may not be written by clients")]);
        let path = format!("/api/v1/objects/{object}");
        let (status, problem) = home.a.http("PATCH", &path, &json!({"set": {field: "666"}}));
        assert_eq!((status, &problem["type"]), (403, &json!("urn:hearth:problem:not-writable")), "{problem}");
        assert!(problem["fix"].as_str().is_some_and(|fix| !fix.is_empty()));
        assert_eq!(home.a.field(&object, field), before);
    }
    let refused = home.a.cli(&["put", "token/0123", "hash=666"]);
    refused.expect(NOT_PERMITTED, &["who may come in is not written as objects", "hearth token"]);
    home.a.cli(&["delete", &format!("node/{b}")]).expect(NOT_PERMITTED, &["may not be"]);
    // And over TLS nobody writes without a token.
    let (status, text) = home.a.https("PATCH", "/api/v1/objects/note/x", br#"{"set":{"text":"hi"}}"#);
    assert!(status == 401 && text.contains("urn:hearth:problem:"), "{status} {text}");
    assert!(home.a.requests("/api/v1/objects", "4xx") >= 6);
    home.is_served();
    home.memory_is_bounded();
}
