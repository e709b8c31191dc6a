//! What a person does about the disk of a node: backups, and their way back in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use hearth_tests::daemon::{Daemon, Launch, PATIENCE, wait_until};
use node::store::files::{FileKind, write_durable};
use serde_json::{Value, json};

const REFUSED: i32 = 6;

fn beside(node: &Daemon, name: &str) -> PathBuf {
    node.state_dir().parent().unwrap().join(name)
}

async fn note(node: &Daemon, name: &str, text: &str) {
    node.put(&format!("note/{name}"), json!({ "text": text })).await.unwrap();
}

async fn check(node: &Daemon, name: &str) -> Option<Value> {
    let doctor = node.json(&["doctor"]).await.unwrap();
    doctor["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).cloned()
}

/// The generation that the state folder of a stopped node holds.
fn generation(node: &Daemon) -> u32 {
    let bytes = fs::read(node.state_dir().join("incarnation")).unwrap();
    u32::from_le_bytes(bytes[14..18].try_into().unwrap())
}

#[tokio::test]
async fn a_backup_is_made_of_a_node_that_runs_and_of_one_that_does_not() {
    let mut node = Daemon::found("one").await.unwrap();
    for number in 0..50 {
        note(&node, &format!("n{number}"), "kept").await;
    }
    let file = beside(&node, "home.hearth");
    let shown = file.to_str().unwrap();
    let made = node.json(&["backup", shown]).await.unwrap();
    assert_eq!((&made["with_key"], &made["node"]), (&json!(false), &json!(node.id().await.unwrap())));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(made["bytes"], fs::metadata(&file).unwrap().len());
    assert!(!node.state_dir().join("backup.partial").exists());
    // The seed of the key is in the file only when it was asked for.
    let key = fs::read(node.state_dir().join("node.key")).unwrap();
    let holds_key = |path: &PathBuf| fs::read(path).unwrap().windows(32).any(|part| part == &key[14..46]);
    assert!(!holds_key(&file));
    let again = node.cli(&["backup", shown]).await.unwrap();
    assert!(again.code == REFUSED && again.text().contains("--force"), "{again:?}");
    let again = node.json(&["backup", shown, "--with-key", "--force"]).await.unwrap();
    assert_eq!(again["with_key"], true);
    assert!(holds_key(&file));
    // Nobody gets the key over the network, whatever the token.
    let web = node.web(Some(&node.token("admin").await.unwrap())).await.unwrap();
    let refused = web.get("/api/v1/backup?with_key=true").await.unwrap();
    assert_eq!((refused.status, refused.problem().unwrap()), (403, "forbidden".to_owned()));

    let running = node.cli(&["restore", shown, "--force"]).await.unwrap();
    assert!(running.code == REFUSED && running.text().contains("stop the node"), "{running:?}");
    node.stop().await.unwrap();
    let stopped = beside(&node, "stopped.hearth");
    node.json(&["backup", stopped.to_str().unwrap()]).await.unwrap();
    let checked = node.json(&["restore", stopped.to_str().unwrap(), "--check"]).await.unwrap();
    assert_eq!(checked["node"], made["node"]);

    let mut bytes = fs::read(&stopped).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&stopped, bytes).unwrap();
    let damaged = node.cli(&["restore", stopped.to_str().unwrap(), "--force"]).await.unwrap();
    assert!(damaged.code == REFUSED && damaged.text().contains("is damaged"), "{damaged:?}");
    node.start().await.unwrap();
    assert_eq!(node.fields("note/n49").await.unwrap(), json!({ "text": "kept" }));
}

/// A small file as another version wrote it.
fn rewrite(node: &Daemon, name: &str, magic: &[u8; 8], version: u16, payload: &[u8]) {
    let kind = FileKind { magic: *magic, version, max_bytes: 64, mode: 0o600, way_out: "" };
    write_durable(&node.state_dir().join(name), &kind, payload).unwrap();
}

#[tokio::test]
async fn the_folder_of_an_older_version_is_migrated_and_that_of_a_newer_one_refused() {
    let mut node = Daemon::found("one").await.unwrap();
    note(&node, "kept", "kept").await;
    let id = node.id().await.unwrap();
    node.stop().await.unwrap();
    // Layout 1: no copies, and the mark of the end behind the run.
    let before = generation(&node);
    let run = fs::read(node.state_dir().join("incarnation")).unwrap()[14..26].to_vec();
    rewrite(&node, "incarnation", b"HTHINCA\0", 1, &[&run[..], &[1]].concat());
    rewrite(&node, "version", b"HTHLAYT\0", 1, &1_u32.to_le_bytes());
    for name in ["node.key.copy", "roster.copy", "incarnation.copy"] {
        fs::remove_file(node.state_dir().join(name)).unwrap();
    }
    node.start().await.unwrap();
    assert_eq!(node.id().await.unwrap(), id);
    assert_eq!(node.fields("note/kept").await.unwrap(), json!({ "text": "kept" }));
    let shown = check(&node, "state folder").await.unwrap();
    assert!(shown["status"] == "ok" && shown["detail"].to_string().contains("older hearth"), "{shown}");
    node.stop().await.unwrap();
    assert!(generation(&node) > before);

    // Of a later layout, or with a single file of a later version.
    for (name, magic, payload) in
        [("version", b"HTHLAYT\0", 99_u32.to_le_bytes()), ("roster", b"HTHROST\0", [0; 4])]
    {
        let good = fs::read(node.state_dir().join(name)).unwrap();
        let version = if name == "version" { 1 } else { 99 };
        rewrite(&node, name, magic, version, &payload);
        let refused = Launch::new().ends(node.state_dir()).await.unwrap();
        assert!(refused.code == 8 && refused.text().contains("newer hearth"), "{refused:?}");
        fs::write(node.state_dir().join(name), good).unwrap();
    }
    node.start().await.unwrap();
    assert_eq!(node.fields("note/kept").await.unwrap(), json!({ "text": "kept" }));
}

#[tokio::test]
async fn alone_a_node_goes_on_with_what_was_restored() {
    let mut node = Daemon::found("one").await.unwrap();
    note(&node, "kept", "as it was").await;
    let file = beside(&node, "home.hearth");
    let shown = file.to_str().unwrap();
    node.json(&["backup", shown]).await.unwrap();
    note(&node, "kept", "changed").await;
    note(&node, "later", "made after the backup").await;
    node.stop().await.unwrap();
    let before = generation(&node);
    let unforced = node.cli(&["restore", shown]).await.unwrap();
    assert!(unforced.code == REFUSED && unforced.text().contains("--force"), "{unforced:?}");
    let done = node.json(&["restore", shown, "--force"]).await.unwrap();
    for file in ["store/db", "store/conf"] {
        let mode = fs::metadata(node.state_dir().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is nobody else's to read: {mode:o}");
    }
    assert_eq!(done["replaced"], true);
    node.start().await.unwrap();
    assert_eq!(node.fields("note/kept").await.unwrap(), json!({ "text": "as it was" }));
    assert_eq!(node.fields("note/later").await.unwrap(), Value::Null);
    let doctor = check(&node, "set back").await.expect("doctor says that it was set back");
    assert_eq!(doctor["status"], "warn");
    note(&node, "later", "made after the restore").await;
    node.stop().await.unwrap();
    assert!(generation(&node) > before, "no number is used twice");
    node.start().await.unwrap();
    assert_eq!(node.fields("note/later").await.unwrap(), json!({ "text": "made after the restore" }));
}

#[tokio::test]
async fn a_peer_s_state_replaces_what_was_restored() {
    let mut one = Daemon::found("one").await.unwrap();
    let two = one.joined("two").await.unwrap();
    note(&one, "deleted", "brought back by a merge").await;
    note(&one, "changed", "old").await;
    two.converge("note/deleted", &json!({ "text": "brought back by a merge" })).await.unwrap();
    let file = beside(&one, "home.hearth");
    one.json(&["backup", file.to_str().unwrap()]).await.unwrap();
    one.cli(&["delete", "note/deleted"]).await.unwrap().ok().unwrap();
    note(&one, "changed", "new").await;
    note(&one, "mine", "written after the backup").await;
    two.converge("note/mine", &json!({ "text": "written after the backup" })).await.unwrap();
    two.converge("note/deleted", &Value::Null).await.unwrap();
    one.stop().await.unwrap();
    one.json(&["restore", file.to_str().unwrap(), "--force"]).await.unwrap();
    one.start().await.unwrap();
    one.converge("note/changed", &json!({ "text": "new" })).await.unwrap();
    one.converge("note/mine", &json!({ "text": "written after the backup" })).await.unwrap();
    one.converge("note/deleted", &Value::Null).await.unwrap();
    assert_eq!(two.fields("note/deleted").await.unwrap(), Value::Null, "the deletion holds everywhere");
    wait_until("the store counts as whole again", PATIENCE, async || {
        Ok(check(&one, "set back").await.is_none())
    })
    .await
    .unwrap();
    // A number that was used twice would be taken for known.
    for number in 0..20 {
        note(&one, &format!("after{number}"), "new").await;
    }
    two.converge("note/after19", &json!({ "text": "new" })).await.unwrap();
    two.converge("note/after0", &json!({ "text": "new" })).await.unwrap();
}

#[tokio::test]
async fn with_its_key_a_node_comes_back_on_a_new_card() {
    let mut one = Daemon::found("one").await.unwrap();
    let two = one.joined("two").await.unwrap();
    note(&one, "kept", "kept").await;
    let (with, without) = (beside(&one, "with.hearth"), beside(&one, "without.hearth"));
    one.json(&["backup", with.to_str().unwrap(), "--with-key"]).await.unwrap();
    one.json(&["backup", without.to_str().unwrap()]).await.unwrap();
    let id = one.id().await.unwrap();
    note(&two, "meanwhile", "written while the card was dead").await;
    one.kill().await.unwrap();
    two.sees(&one, "dead").await.unwrap();

    let card = beside(&one, "new");
    fs::create_dir(&card).unwrap();
    fs::copy(one.state_dir().join("hearth.toml"), card.join("hearth.toml")).unwrap();
    let program = one.hearth().unwrap().as_std().get_program().to_owned();
    let restore = |file: &PathBuf| {
        let mut command = std::process::Command::new(&program);
        command.arg("--state-dir").arg(&card).arg("restore").arg(file).output().unwrap()
    };
    let refused = restore(&without);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(REFUSED) && text.contains("join again"), "{text}");
    let done = restore(&with);
    assert!(done.status.success(), "{done:?}");
    let launch = Launch::new().listen(one.address()).with(&["--name", "one"]);
    let new = Daemon::on(&card, &launch).await.unwrap();
    assert_eq!(new.id().await.unwrap(), id);
    new.converge("note/meanwhile", &json!({ "text": "written while the card was dead" })).await.unwrap();
    note(&new, "again", "from the new card").await;
    two.converge("note/again", &json!({ "text": "from the new card" })).await.unwrap();
    assert_eq!(two.fields("note/kept").await.unwrap(), json!({ "text": "kept" }));
}

#[tokio::test]
async fn the_objects_of_a_backup_are_imported_by_another_home() {
    let one = Daemon::found("one").await.unwrap();
    note(&one, "kept", "kept").await;
    note(&one, "deleted", "gone").await;
    one.cli(&["delete", "note/deleted"]).await.unwrap().ok().unwrap();
    one.token("viewer").await.unwrap();
    let (file, lines) = (beside(&one, "home.hearth"), beside(&one, "home.ndjson"));
    one.json(&["backup", file.to_str().unwrap()]).await.unwrap();
    let other = Daemon::found("other").await.unwrap();
    let foreign = other.cli(&["restore", file.to_str().unwrap(), "--force"]).await.unwrap();
    assert_eq!(foreign.code, REFUSED, "{foreign:?}");
    let made = other.json(&["restore", file.to_str().unwrap(), "--objects", lines.to_str().unwrap()]).await;
    assert!(made.unwrap()["objects"].as_u64() >= Some(1));
    let imported = other.json(&["import", lines.to_str().unwrap()]).await.unwrap();
    assert_eq!(imported["refused"], json!([]), "{imported}");
    assert_eq!(other.fields("note/kept").await.unwrap(), json!({ "text": "kept" }));
    assert_eq!(other.fields("note/deleted").await.unwrap(), Value::Null);
}
