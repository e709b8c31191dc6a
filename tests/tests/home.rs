//! Two real nodes and the command line: what one home promises to the people who live in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hearth_tests::daemon::{BUSY, Client, Daemon, PATIENCE, wait_until};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    task::JoinSet,
    time::timeout,
};

/// A node that was killed is seen as dead within this time; the simulation proves the promise of 3 s.
const SEEN_DEAD_WITHIN: Duration = Duration::from_secs(3).saturating_mul(BUSY);

async fn two_nodes() -> (Daemon, Daemon) {
    let one = Daemon::found("one").await.unwrap();
    let two = one.joined("two").await.unwrap();
    (one, two)
}

async fn household(node: &Daemon) -> String {
    node.status().await.unwrap()["household"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_put_on_one_node_is_read_changed_and_deleted_on_the_other() {
    let (one, two) = two_nodes().await;
    let put =
        one.json(&["put", "note/milk", "text=milk", "count=3", r#"tags:=["a",{"b":null}]"#]).await.unwrap();
    let fields = json!({"text": "milk", "count": 3, "tags": ["a", {"b": null}]});
    assert_eq!((&put["id"], &put["fields"], &put["complete"]), (&json!("note/milk"), &fields, &json!(true)));
    let meta = &put["meta"]["text"];
    assert_eq!(meta["by"], one.id().await.unwrap()[..16], "{meta}");
    assert_eq!(meta["durable"], true);
    assert!(meta["at"].as_str().unwrap().ends_with('Z'), "{meta}");

    two.converge("note/milk", &fields).await.unwrap();
    assert_eq!(two.json(&["get", "note/milk"]).await.unwrap(), put, "both show the same document");
    assert_eq!(two.cli(&["get", "note/milk", "text"]).await.unwrap().ok().unwrap().stdout, "milk\n");
    assert_eq!(two.cli(&["get", "note/milk", "none"]).await.unwrap().code, 5);

    two.json(&["put", "note/milk", "--unset", "count", "text=oat milk"]).await.unwrap();
    one.converge("note/milk", &json!({"text": "oat milk", "tags": ["a", {"b": null}]})).await.unwrap();

    two.cli(&["delete", "note/milk"]).await.unwrap().ok().unwrap();
    one.converge("note/milk", &Value::Null).await.unwrap();
    assert_eq!(one.cli(&["get", "note/milk"]).await.unwrap().code, 5);
    assert_eq!(one.cli(&["delete", "note/milk"]).await.unwrap().code, 0, "deleting again changes nothing");
    one.json(&["put", "note/milk", "text=again"]).await.unwrap();
    two.converge("note/milk", &json!({"text": "again"})).await.unwrap();
}

#[tokio::test]
async fn a_list_has_an_order_a_prefix_and_a_limit() {
    let (one, two) = two_nodes().await;
    for n in 0..7 {
        one.put(&format!("note/{n}"), json!({"n": n})).await.unwrap();
    }
    one.put("other/x", json!({"n": 1})).await.unwrap();
    two.converge("other/x", &json!({"n": 1})).await.unwrap();
    wait_until("all are there", PATIENCE, async || Ok(two.client().objects("note/").await?.len() == 7))
        .await
        .unwrap();

    let ids = |list: &Value| -> Vec<String> {
        list["objects"].as_array().unwrap().iter().map(|o| o["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = two.json(&["list", "note/", "--limit", "3"]).await.unwrap();
    assert_eq!(ids(&first), ["note/0", "note/1", "note/2"]);
    assert_eq!(first["next"], "note/2");
    let rest = two.client().get("/api/v1/objects?prefix=note/&limit=10&after=note%2F2").await.unwrap();
    let rest = rest.success().unwrap();
    assert_eq!(ids(&rest), ["note/3", "note/4", "note/5", "note/6"]);
    assert_eq!(rest["next"], Value::Null);
    let whole = two.json(&["list"]).await.unwrap();
    let others = ids(&whole).into_iter().filter(|id| !id.starts_with("adapter/"));
    assert_eq!(others.count(), 10, "the notes, the other, and both nodes: {whole}");
    assert_eq!(whole["next"], Value::Null);
    let text = two.cli(&["list", "note/"]).await.unwrap().ok().unwrap().stdout;
    assert!(text.lines().nth(1).unwrap().starts_with("note/0  n=0"), "{text}");
}

#[tokio::test]
async fn watch_prints_what_is_there_and_what_changes_on_either_node() {
    let (one, two) = two_nodes().await;
    one.put("note/first", json!({"text": "there"})).await.unwrap();
    two.converge("note/first", &json!({"text": "there"})).await.unwrap();
    let mut command = two.hearth().unwrap();
    command.args(["watch", "note/", "--json", "--count", "4"]);
    let mut watch = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut line = async || -> Value {
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    };
    let shown = |id: &str, text: &str, message: &Value| {
        assert_eq!(message["type"], "object");
        assert_eq!(
            (&message["object"]["id"], &message["object"]["fields"]),
            (&json!(id), &json!({"text": text}))
        );
    };
    shown("note/first", "there", &line().await);
    one.put("note/far", json!({"text": "from one"})).await.unwrap();
    shown("note/far", "from one", &line().await);
    two.put("note/near", json!({"text": "from two"})).await.unwrap();
    shown("note/near", "from two", &line().await);
    one.cli(&["delete", "note/first"]).await.unwrap().ok().unwrap();
    assert_eq!(line().await, json!({"type": "gone", "id": "note/first"}));
    assert_eq!(
        timeout(PATIENCE, watch.wait()).await.unwrap().unwrap().code(),
        Some(0),
        "it ends after --count"
    );
}

#[tokio::test]
async fn each_failure_has_its_exit_code_and_names_the_way_out() {
    let mut node = Daemon::found("one").await.unwrap();
    let long = format!("text={}", "x".repeat(5_000));
    for (args, code, kind) in [
        (vec!["get", "note/none"], 5, "not-found"),
        (vec!["put", "device/x", "reported=1"], 4, "not-writable"),
        (vec!["put", "note/x", &long], 6, ""),
        (vec!["nodes", "rename", "nobody", "x"], 5, "not-found"),
        (vec!["invite", "revoke", "00"], 5, "not-found"),
        (vec!["token", "revoke", "00"], 5, "not-found"),
    ] {
        let args: Vec<&str> = args.into_iter().chain(["--json"]).collect();
        let ended = node.cli(&args).await.unwrap();
        assert_eq!(ended.code, code, "{args:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{args:?}");
        let problem: Value = serde_json::from_str(&ended.stderr).unwrap();
        assert_eq!(problem["exit"], code, "{problem}");
        assert!(problem["type"].as_str().unwrap().ends_with(kind), "{problem}");
        assert!(!problem["fix"].as_str().unwrap().is_empty(), "{problem}");
    }
    assert_eq!(node.cli(&["put", "note/x", "no assignment"]).await.unwrap().code, 2);
    assert_eq!(node.cli(&["join", "not-a-token"]).await.unwrap().code, 6);
    let waited = node.cli(&["watch", "note/", "--count", "1", "--timeout", "100ms"]).await.unwrap();
    assert_eq!(waited.code, 7, "{waited:?}");

    // A second daemon: the folder is locked, then the port is taken.
    let address = node.address().to_string();
    let second = node.cli(&["run", "--listen", "127.0.0.1:0"]).await.unwrap();
    assert_eq!(second.code, 8, "{second:?}");
    let elsewhere = node.state_dir().join("elsewhere");
    let elsewhere = elsewhere.to_str().unwrap();
    let mut run = tokio::process::Command::new(node.hearth().unwrap().as_std().get_program());
    let second = run.args(["run", "--state-dir", elsewhere, "--listen", &address]).output().await.unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(8), "{said}");
    assert!(said.contains("in use") && said.contains("--listen"), "{said}");

    assert_eq!(node.stop().await.unwrap(), Some(0));
    let gone = node.cli(&["status"]).await.unwrap();
    assert_eq!(gone.code, 3, "{gone:?}");
    let mends = format!("hearth run --state-dir {}", node.state_dir().display());
    assert!(gone.stderr.contains(&mends), "{}", gone.stderr);
}

#[tokio::test]
async fn status_tells_of_both_nodes() {
    let (one, two) = two_nodes().await;
    wait_until("the round trip is measured", PATIENCE, async || {
        let status = one.status().await?;
        let other = status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "two").unwrap();
        // Both hold the same objects; the other tells its number every few seconds.
        Ok(other["rtt_us"].is_u64() && other["objects"] == status["objects"])
    })
    .await
    .unwrap();
    let status = one.json(&["status"]).await.unwrap();
    let node =
        |name: &str| status["nodes"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap().clone();
    assert_eq!(node("one")["state"], "self");
    assert_eq!(node("one")["roles"], json!(["admin", "member"]));
    assert_eq!(node("two")["roles"], json!(["member"]));
    assert_eq!(node("two")["transport"], "quic");
    assert_eq!(node("two")["address"], two.address().to_string());
    assert_eq!(node("two")["version"], status["version"]);
    assert_eq!(status["listen"], one.address().to_string());
    assert_eq!(status["api"], json!([format!("https://{}", one.address())]));
    let table = one.cli(&["status"]).await.unwrap().ok().unwrap().stdout;
    let header = table.lines().find(|line| line.starts_with("NAME")).unwrap();
    for column in ["ROLE", "STATE", "ADDRESS", "TRANSPORT", "RTT", "VERSION", "OBJECTS", "LAG"] {
        assert!(header.contains(column), "{table}");
    }
    // A member that is no admin may not invite, and is told who may.
    let refused = two.cli(&["invite"]).await.unwrap();
    assert!(refused.code != 0 && refused.stderr.contains("admin"), "{refused:?}");
}

/// The column LAG of a node in the table of `hearth status`.
fn lag(table: &str, name: &str) -> Option<u64> {
    let header = table.lines().find(|line| line.starts_with("NAME"))?;
    let end = header.find("LAG")? + "LAG".len();
    let row: String = table.lines().find(|line| line.starts_with(name))?.chars().take(end).collect();
    row.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn status_shows_how_many_writes_a_node_lacks_until_it_has_them() {
    let (one, mut two) = two_nodes().await;
    let shows = async |is_so: fn(u64) -> bool| -> anyhow::Result<bool> {
        let table = one.cli(&["status"]).await?.ok()?.stdout;
        Ok(lag(&table, "two").is_some_and(is_so))
    };
    wait_until("it lacks nothing", PATIENCE, async || shows(|lag| lag == 0).await).await.unwrap();
    two.kill().await.unwrap();
    for n in 0..20 {
        one.put(&format!("note/{n}"), json!({"n": n})).await.unwrap();
    }
    // It tells what it has when it comes back, before it fetches the rest.
    let lacks = wait_until("it lacks twenty writes", PATIENCE, async || shows(|lag| lag >= 20).await);
    let (started, lacks) = tokio::join!(two.start(), lacks);
    started.unwrap();
    lacks.unwrap();
    two.converge("note/19", &json!({"n": 19})).await.unwrap();
    wait_until("it has them", PATIENCE, async || shows(|lag| lag == 0).await).await.unwrap();
}

/// Writes one object after the other until the node is gone, and keeps what was acknowledged.
async fn load(
    client: Client,
    name: String,
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Vec<(String, Value)> {
    let mut kept = Vec::new();
    for n in 0.. {
        let (id, fields) = (format!("load/{name}-{n}"), json!({"n": n, "by": name.as_str()}));
        let body = json!({ "set": fields });
        let answer = client.send("PATCH", &format!("/api/v1/objects/{id}"), Some(&body)).await;
        match answer {
            Ok(answer) if answer.status == 200 => {
                kept.push((id, fields));
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => panic!("{id}: {answer:?}"),
            Err(_) => break,
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    kept
}

/// Kills one of two nodes under load on both, and looks for everything that was acknowledged.
async fn kill_loses_nothing(mut victim: Daemon, survivor: Daemon) {
    let (written, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut writers = JoinSet::new();
    for n in 0..3 {
        let name = format!("victim{n}");
        writers.spawn(load(victim.client(), name, written.clone(), stop.clone()));
    }
    let elsewhere = Arc::new(AtomicUsize::new(0));
    writers.spawn(load(survivor.client(), "survivor".into(), elsewhere.clone(), stop.clone()));
    let enough =
        async || Ok(written.load(Ordering::Relaxed) >= 150 && elsewhere.load(Ordering::Relaxed) >= 30);
    wait_until("writes are acknowledged", PATIENCE, enough).await.unwrap();
    let generation = victim.status().await.unwrap()["generation"].as_u64().unwrap();

    victim.kill().await.unwrap();
    let is_dead = async || Ok(survivor.state_of(victim.name()).await? == "dead");
    wait_until("the survivor sees it dead", SEEN_DEAD_WITHIN, is_dead).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged: Vec<(String, Value)> = Vec::new();
    while let Some(kept) = writers.join_next().await {
        acknowledged.extend(kept.unwrap());
    }
    assert!(acknowledged.len() >= 180, "{}", acknowledged.len());

    victim.start().await.unwrap();
    let own = victim.client().objects("load/").await.unwrap();
    for (id, fields) in acknowledged.iter().filter(|(id, _)| id.starts_with("load/victim")) {
        assert_eq!(own.get(id), Some(fields), "{id} was acknowledged and is lost");
    }
    survivor.sees(&victim, "alive").await.unwrap();
    for node in [&victim, &survivor] {
        let what = format!("{} shows all {} acknowledged objects", node.name(), acknowledged.len());
        wait_until(&what, PATIENCE, async || {
            let shown = node.client().objects("load/").await?;
            Ok(acknowledged.iter().all(|(id, fields)| shown.get(id) == Some(fields)))
        })
        .await
        .unwrap();
    }
    let after = victim.status().await.unwrap()["generation"].as_u64().unwrap();
    assert!(after > generation, "an unclean end must begin a new generation");
    victim.put("load/after", json!({"n": 1})).await.unwrap();
    survivor.converge("load/after", &json!({"n": 1})).await.unwrap();
}

#[tokio::test]
async fn killing_the_founder_loses_nothing_acknowledged() {
    let (one, two) = two_nodes().await;
    kill_loses_nothing(one, two).await;
}

#[tokio::test]
async fn killing_the_joined_node_loses_nothing_acknowledged() {
    let (one, two) = two_nodes().await;
    kill_loses_nothing(two, one).await;
}

#[tokio::test]
async fn a_node_that_was_away_catches_up() {
    let (one, mut two) = two_nodes().await;
    one.put("note/deleted", json!({"text": "x"})).await.unwrap();
    one.put("note/changed", json!({"text": "x", "count": 1})).await.unwrap();
    two.converge("note/deleted", &json!({"text": "x"})).await.unwrap();
    two.converge("note/changed", &json!({"text": "x", "count": 1})).await.unwrap();
    two.kill().await.unwrap();
    let lines: Vec<String> = (0..600)
        .map(|n| json!({"id": format!("bulk/{n}"), "fields": {"n": n, "text": "x".repeat(200)}}).to_string())
        .collect();
    let imported = one.cli_with(&["import", "-", "--json"], lines.join("\n").as_bytes()).await.unwrap();
    assert_eq!(imported.ok().unwrap().json().unwrap()["written"], 600);
    one.cli(&["delete", "note/deleted"]).await.unwrap().ok().unwrap();
    one.cli(&["put", "note/changed", "text=y", "--unset", "count"]).await.unwrap().ok().unwrap();

    two.start().await.unwrap();
    two.converge("note/deleted", &Value::Null).await.unwrap();
    two.converge("note/changed", &json!({"text": "y"})).await.unwrap();
    let there = one.client().objects("bulk/").await.unwrap();
    assert_eq!(there.len(), 600);
    wait_until("both hold the same", PATIENCE, async || Ok(two.client().objects("bulk/").await? == there))
        .await
        .unwrap();
}

#[tokio::test]
async fn both_nodes_stop_cleanly_and_find_each_other_again() {
    let (mut one, mut two) = two_nodes().await;
    one.put("note/a", json!({"text": "a"})).await.unwrap();
    two.converge("note/a", &json!({"text": "a"})).await.unwrap();
    let first = one.status().await.unwrap()["generation"].as_u64().unwrap();
    assert_eq!(one.stop().await.unwrap(), Some(0));
    assert!(one.log().contains("stopping"), "{}", one.log());
    assert!(!one.state_dir().join("hearth.sock").exists(), "a clean stop takes its socket away");
    two.sees(&one, "dead").await.unwrap();
    two.put("note/b", json!({"text": "b"})).await.unwrap();
    two.cli(&["delete", "note/a"]).await.unwrap().ok().unwrap();
    assert_eq!(two.stop().await.unwrap(), Some(0));

    one.start().await.unwrap();
    assert_eq!(one.fields("note/a").await.unwrap(), json!({"text": "a"}), "it knows nothing newer yet");
    two.start().await.unwrap();
    one.sees(&two, "alive").await.unwrap();
    one.converge("note/a", &Value::Null).await.unwrap();
    one.converge("note/b", &json!({"text": "b"})).await.unwrap();
    let second = one.status().await.unwrap()["generation"].as_u64().unwrap();
    assert!(second > first, "no number of an earlier start can be used again");
}

#[tokio::test]
async fn a_node_is_renamed_and_leaves() {
    let (one, two) = two_nodes().await;
    one.put("note/a", json!({"text": "a"})).await.unwrap();
    two.converge("note/a", &json!({"text": "a"})).await.unwrap();
    one.cli(&["nodes", "rename", "two", "kitchen"]).await.unwrap().ok().unwrap();
    for node in [&one, &two] {
        wait_until("the new name is shown", PATIENCE, async || Ok(node.state_of("kitchen").await? != "none"))
            .await
            .unwrap();
    }
    let (before, key) = (household(&two).await, two.id().await.unwrap());
    let refused = one.cli(&["leave"]).await.unwrap();
    assert_eq!(refused.code, 6, "the only admin would leave the other without one: {refused:?}");
    assert!(refused.stderr.contains("--role admin") && refused.stderr.contains("--force"), "{refused:?}");
    two.cli(&["leave"]).await.unwrap().ok().unwrap();
    wait_until("the one that left is forgotten", PATIENCE, async || Ok(one.state_of(&key).await? == "none"))
        .await
        .unwrap();
    assert!(household(&two).await != before, "it has a household of its own");
    assert!(two.id().await.unwrap() != key, "and another key");
    assert_eq!(two.fields("note/a").await.unwrap(), Value::Null, "and nothing of the old one");
    two.put("note/own", json!({"n": 1})).await.unwrap();
    one.put("note/a", json!({"text": "b"})).await.unwrap();
    assert_eq!(household(&one).await, before);
    assert_eq!(one.fields("note/own").await.unwrap(), Value::Null);
}

#[tokio::test]
async fn a_running_node_joins_if_it_is_empty_or_forced() {
    let one = Daemon::found("one").await.unwrap();
    one.put("note/home", json!({"text": "one"})).await.unwrap();
    let empty = Daemon::found("empty").await.unwrap();
    let full = Daemon::found("full").await.unwrap();
    full.put("note/mine", json!({"text": "full"})).await.unwrap();

    empty.cli(&["join", &one.invite().await.unwrap()]).await.unwrap().ok().unwrap();
    assert_eq!(household(&empty).await, household(&one).await);
    empty.converge("note/home", &json!({"text": "one"})).await.unwrap();

    let token = one.invite().await.unwrap();
    let own = one.cli(&["join", &token, "--force"]).await.unwrap();
    assert_eq!(own.code, 6, "an invite of the own household is of no use here: {own:?}");
    assert_eq!(one.fields("note/home").await.unwrap(), json!({"text": "one"}));
    let before = household(&full).await;
    let refused = full.cli(&["join", &token]).await.unwrap();
    assert_eq!(refused.code, 6, "{refused:?}");
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(household(&full).await, before);
    assert_eq!(full.fields("note/mine").await.unwrap(), json!({"text": "full"}));

    // The refusal has not used the token up.
    let joined = full.cli_with(&["join", "-", "--force"], token.as_bytes()).await.unwrap();
    joined.ok().unwrap();
    assert_eq!(household(&full).await, household(&one).await);
    full.converge("note/home", &json!({"text": "one"})).await.unwrap();
    assert_eq!(full.fields("note/mine").await.unwrap(), Value::Null);
    one.put("note/all", json!({"n": 3})).await.unwrap();
    for node in [&empty, &full] {
        node.converge("note/all", &json!({"n": 3})).await.unwrap();
    }
}
