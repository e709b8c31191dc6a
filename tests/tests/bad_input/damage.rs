//! A store that was damaged while its node was stopped: the node starts, says what it did,
//! `hearth doctor` shows it, a peer fills in what is missing, and nothing acknowledged is lost.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use hearth_tests::hostile::{Daemon, Home, Launch, wait_until};
use serde_json::{Value as Json, json};

const CANNOT_START: i32 = 8;
const WRITES: usize = 120;
/// What a cut leaves of the log, in bytes: less than the texts alone, wherever the engine put them.
const LEFT: u64 = 64_000;

fn log_of(state: &Path) -> PathBuf {
    state.join("store").join("db")
}

/// Has B write, stops it, lets `damage` loose on its store, and starts it again. Returns what it
/// said, all of it, and what `hearth doctor` shows of the store.
fn damaged(damage: impl FnOnce(&Path)) -> (Home, String, Json) {
    let (a, b, folder) = Home::new().split();
    let before = a.rss_kib();
    for number in 0..WRITES {
        let from = if number % 2 == 0 { &a } else { &b };
        from.put(&format!("note/n{number}"), "text", &json!("x".repeat(1_000)));
    }
    wait_until("both hold everything", || holds_all(&a) && holds_all(&b));
    let state = folder.join("b");
    b.stop();
    damage(&state);
    a.put("note/meanwhile", "text", &json!("written while b was away"));
    let b = Daemon::start(&state, &Launch::new());
    wait_until("b has caught up", || {
        holds_all(&b) && b.field("note/meanwhile", "text").is_some() && holds_all(&a)
    });
    let said = b.said();
    let (status, doctor) = b.http("GET", "/api/v1/doctor", &Json::Null);
    assert_eq!(status, 200, "{doctor}");
    let checks = doctor["checks"].as_array().expect("checks");
    let store = checks.iter().find(|check| check["name"] == "store").expect("the store's check").clone();
    let home = Home::of(a, b, folder, before);
    // What both write from now on is read on both: no number was used twice.
    for number in 0..10 {
        home.b.put(&format!("note/after{number}"), "text", &json!(number));
        home.b.put("note/n0", "text", &json!(format!("again {number}")));
    }
    wait_until("a reads what b writes after the repair", || {
        (0..10).all(|n| home.a.field(&format!("note/after{n}"), "text") == Some(json!(n)))
            && home.a.field("note/n0", "text") == Some(json!("again 9"))
    });
    assert_eq!(home.b.counter("store_mended"), 1);
    home.is_served();
    home.memory_is_bounded();
    (home, said, store)
}

fn holds_all(daemon: &Daemon) -> bool {
    let (status, list) = daemon.http("GET", "/api/v1/objects?prefix=note/n&limit=1000", &Json::Null);
    status == 200 && list["objects"].as_array().is_some_and(|objects| objects.len() == WRITES)
}

#[test]
fn a_flipped_byte_is_found_told_and_mended() {
    let (home, said, store) = damaged(|state| {
        let mut file = fs::OpenOptions::new().read(true).write(true).open(log_of(state)).expect("the log");
        let middle = file.metadata().expect("its size").len() / 3;
        for place in [middle, middle + 5_000] {
            let mut byte = [0];
            file.seek(SeekFrom::Start(place)).expect("a place");
            file.read_exact(&mut byte).expect("a byte");
            byte[0] ^= 0x55;
            file.seek(SeekFrom::Start(place)).expect("a place");
            file.write_all(&byte).expect("it is written");
        }
    });
    assert!(said.contains("does not match its checksum"), "{said}");
    assert!(said.contains("The damaged store is kept as"), "{said}");
    assert_eq!(store["status"], "warn", "{store}");
    assert!(store["detail"].as_str().is_some_and(|text| text.contains("damaged")), "{store}");
    let fix = store["fix"].as_str().expect("a way out");
    // Whether the byte cost a record depends on where it lay.
    assert_eq!(said.contains("the store is whole"), fix.contains("nothing was lost"), "{store} {said}");
    assert_eq!(said.contains("the store was damaged"), fix.contains("peers"), "{store} {said}");
    let lost = u64::from(said.contains("the store was damaged"));
    assert_eq!(home.b.counter("store_damaged"), lost, "{said}");
}

#[test]
fn a_cut_tail_is_found_told_and_mended() {
    let (home, said, store) = damaged(|state| {
        let file = fs::OpenOptions::new().write(true).open(log_of(state)).expect("the log");
        assert!(file.metadata().expect("its size").len() > LEFT, "there is something to cut");
        file.set_len(LEFT).expect("it is cut");
    });
    // A cut within a commit shows in the log itself; one between two only in what the mark beside
    // the store says should be there.
    let noticed = ["The storage engine would lose records", "commits are missing"];
    assert!(noticed.iter().any(|words| said.contains(words)), "{said}");
    assert!(said.contains("Result: the store was damaged"), "{said}");
    assert_eq!(home.b.counter("store_damaged"), 1);
    assert_eq!(store["status"], "warn", "{store}");
    assert!(store["fix"].as_str().is_some_and(|text| text.contains("peers")), "{store}");
}

#[test]
fn an_empty_snapshot_costs_nothing() {
    let (home, said, store) = damaged(|state| {
        let snapshot = state.join("store").join("snap.00000000FFFFFFFF.generating");
        fs::write(snapshot, b"").expect("an empty snapshot");
    });
    assert!(said.contains("a snapshot that was not finished"), "{said}");
    assert_eq!(home.b.counter("store_damaged"), 0);
    assert_eq!(store["status"], "warn", "{store}");
    assert_eq!(store["fix"], "nothing was lost; watch the card", "{store}");
}

#[test]
fn a_store_that_is_gone_is_filled_by_the_peer() {
    let (home, said, store) = damaged(|state| {
        fs::remove_dir_all(state.join("store")).expect("the store goes");
    });
    assert!(said.contains("The store is damaged"), "{said}");
    assert_eq!(home.b.counter("store_damaged"), 1);
    assert_eq!(store["status"], "warn", "{store}");
}

/// What is done to a small file; none removes it.
type Damage = (&'static str, fn(&[u8]) -> Option<Vec<u8>>);

const DAMAGES: [Damage; 4] = [
    ("missing", |_| None),
    ("empty", |_| Some(Vec::new())),
    ("cut", |whole| Some(whole[..whole.len() / 2].to_vec())),
    ("flipped", |whole| {
        let mut bytes = whole.to_vec();
        bytes[whole.len() / 2] ^= 0x10;
        Some(bytes)
    }),
];

/// The files as they were, for their owner alone.
fn put_back(files: Vec<(PathBuf, Vec<u8>)>) {
    for (path, bytes) in files {
        fs::write(&path, bytes).expect("it is mended");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is secret");
    }
}

/// Does this to the files, and gives back what they held.
fn damage(state: &Path, names: &[&str], damage: fn(&[u8]) -> Option<Vec<u8>>) -> Vec<(PathBuf, Vec<u8>)> {
    let files = names.iter().map(|name| {
        let path = state.join(name);
        let whole = fs::read(&path).expect("the file");
        match damage(&whole) {
            Some(bytes) => fs::write(&path, bytes).expect("it is damaged"),
            None => fs::remove_file(&path).expect("it is removed"),
        }
        (path, whole)
    });
    files.collect()
}

#[test]
fn a_small_file_that_is_lost_or_damaged_is_mended_and_shown() {
    let home = Home::new();
    let state = home.folder.join("c");
    let token = home.a.invite("admin", 900);
    let node = Daemon::start(&state, &Launch::new().with(&["--join", &token]));
    let (household, id) = (node.status()["household"].clone(), node.status()["node"].clone());
    home.a.put("note/kept", "text", &json!("kept"));
    node.put("note/own", "text", &json!("own"));
    node.invite("member", 900);
    // There is no code until somebody asks for it.
    node.cli(&["setup-code"]).expect(0, &[]);
    node.stop();
    for name in [
        "version",
        "node.key",
        "roster",
        "incarnation",
        "clock",
        "peers",
        "store.mark",
        "invites",
        "setup-code",
    ] {
        assert!(state.join(name).exists(), "{name}");
        // The unit tests do the rest to each.
        for (what, how) in DAMAGES.into_iter().filter(|(what, _)| ["missing", "flipped"].contains(what)) {
            let whole = damage(&state, &[name], how);
            let node = Daemon::start(&state, &Launch::new());
            let status = node.status();
            assert_eq!((&status["household"], &status["node"]), (&household, &id), "{name} {what}");
            wait_until("it has what the others have", || {
                node.field("note/kept", "text") == Some(json!("kept"))
            });
            let (_, doctor) = node.http("GET", "/api/v1/doctor", &Json::Null);
            let checks = doctor["checks"].as_array().expect("checks");
            let check = if name == "store.mark" { "store" } else { "state folder" };
            let shown = checks.iter().find(|shown| shown["name"] == check).expect(check);
            let is_told = shown["status"] == "warn" && shown["detail"].to_string().contains(name);
            // All damage is told. Of these nobody knows whether there should be one.
            let is_missed = !["clock", "peers", "store.mark", "invites", "setup-code"].contains(&name);
            assert_eq!(is_told, what == "flipped" || is_missed, "{name} {what}: {shown}");
            let repairs = checks.iter().find(|check| check["name"] == "repairs");
            assert!(!is_told || repairs.is_some_and(|check| check["detail"].to_string().contains(name)));
            assert!(!is_told || node.said().contains(&format!("`{name}`")), "{name} {what}: {}", node.said());
            node.stop();
            if !state.join(name).exists() {
                put_back(whole);
            }
        }
    }
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn what_cannot_be_mended_is_named_with_the_way_out_and_harmed_no_further() {
    let home = Home::new();
    let state = home.folder.join("c");
    let token = home.a.invite("member", 900);
    Daemon::start(&state, &Launch::new().with(&["--join", &token])).stop();
    for names in [["node.key", "node.key.copy"], ["roster", "roster.copy"]] {
        for (what, how) in DAMAGES {
            let whole = damage(&state, &names, how);
            let refused = Launch::new().fails(&state);
            refused.expect(CANNOT_START, &[names[0], &state.display().to_string(), "move the"]);
            assert!(refused.text().contains("restore"), "{what}: {}", refused.text());
            put_back(whole);
        }
    }
    // The pair of the local authority is named together.
    for name in ["ca.pem", "ca.key"] {
        let whole = damage(&state, &[name], |whole| Some(whole[..40].to_vec()));
        let refused = Launch::new().fails(&state);
        refused.expect(CANNOT_START, &["ca.pem and ca.key in", "restore both files, or remove both"]);
        put_back(whole);
    }
    // Without any trace of which life this is, it goes on under new numbers.
    for (_, how) in DAMAGES {
        damage(&state, &["incarnation", "incarnation.copy"], how);
        let node = Daemon::start(&state, &Launch::new());
        node.put("note/new-numbers", "text", &json!("read by the others"));
        let is_read = || home.a.field("note/new-numbers", "text") == Some(json!("read by the others"));
        wait_until("the others read what it writes", is_read);
        home.a.http("DELETE", "/api/v1/objects/note/new-numbers", &Json::Null);
        wait_until("it is gone", || node.field("note/new-numbers", "text").is_none());
        node.stop();
    }
    // Mended, it starts as what it was.
    let node = Daemon::start(&state, &Launch::new());
    assert_eq!(node.status()["household"], home.a.status()["household"]);
    home.is_served();
    home.memory_is_bounded();
}
