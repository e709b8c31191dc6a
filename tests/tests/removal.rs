//! A node that is removed, and two boards that run from one card: what the household does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hearth_tests::{
    daemon::{Daemon, Folder, Launch, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator},
    hostile::peer::{Stranger, within},
};
use mesh_proto::wire::{ByeReason, Message};
use node::tls::identity::{ALPN_MESH, SERVER_NAME};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use serde_json::{Value, json};

/// The promise: the links of a node that was removed end within this time, everywhere.
const CUT_WITHIN: Duration = Duration::from_secs(5);

async fn remove(by: &Daemon, node: &str) -> Value {
    by.json(&["nodes", "remove", node, "--yes"]).await.unwrap()
}

/// Whether a node is linked to the other.
async fn is_linked(node: &Daemon, other: &str) -> anyhow::Result<bool> {
    let status = node.status().await?;
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    Ok(nodes.iter().any(|node| node["id"] == other && node["address"] != Value::Null))
}

async fn outside(node: &Daemon) -> anyhow::Result<Value> {
    Ok(node.status().await?["outside"].take())
}

#[tokio::test]
async fn a_removed_node_is_cut_everywhere_within_five_seconds_and_says_so() {
    let one = Daemon::found("one").await.unwrap();
    let two = one.joined("two").await.unwrap();
    let three = one.joined("three").await.unwrap();
    two.sees(&three, "alive").await.unwrap();
    one.put("note/before", json!({"n": 1})).await.unwrap();
    three.converge("note/before", &json!({"n": 1})).await.unwrap();
    let key = three.id().await.unwrap();

    let before = Instant::now();
    let answer = remove(&one, &key[..16]).await;
    assert_eq!((&answer["name"], &answer["id"]), (&json!("three"), &json!(key)), "{answer}");
    for node in [&one, &two] {
        wait_until("the removed node is unknown", PATIENCE, async || {
            Ok(node.state_of(&key).await? == "none" && !is_linked(node, &key).await?)
        })
        .await
        .unwrap();
    }
    wait_until("the removed node has no link", PATIENCE, async || {
        let nodes = three.status().await?["nodes"].take();
        Ok(nodes.as_array().unwrap().iter().all(|node| node["address"] == Value::Null))
    })
    .await
    .unwrap();
    assert!(before.elapsed() < CUT_WITHIN, "{:?}", before.elapsed());

    // It knows, by proof, and says what to do.
    wait_until("it knows by whom", PATIENCE, async || Ok(outside(&three).await?["reason"] == "removed"))
        .await
        .unwrap();
    let told = outside(&three).await.unwrap();
    assert_eq!(told["detail"], "this node was removed from the household by one");
    let text = three.cli(&["status"]).await.unwrap().ok().unwrap().stdout;
    assert!(text.contains("OUTSIDE") && text.contains("hearth leave") && text.contains("removed"), "{text}");
    let doctor = three.cli(&["doctor"]).await.unwrap();
    assert!(doctor.code == 1 && doctor.text().contains("removed from the household by one"), "{doctor:?}");
    assert!(three.log().contains("this node was removed from the household by one"), "{}", three.log());

    // Nobody would hear of what it writes now, so it does not pretend.
    let refused = three.cli(&["put", "note/lost", "n=1"]).await.unwrap();
    assert_eq!(refused.code, 6, "{refused:?}");
    assert!(refused.stderr.contains("removed") && refused.stderr.contains("hearth leave"), "{refused:?}");
    assert_eq!(three.fields("note/before").await.unwrap(), json!({"n": 1}), "what it has it shows");
    one.put("note/after", json!({"n": 2})).await.unwrap();
    two.converge("note/after", &json!({"n": 2})).await.unwrap();
    assert_eq!(three.fields("note/after").await.unwrap(), Value::Null);
    // What the household has from it stays.
    assert!(one.fields(&format!("node/{}", &key[..16])).await.unwrap()["name"] == "three");

    // Its way back is a new key.
    three.cli(&["leave"]).await.unwrap().ok().unwrap();
    three.cli(&["join", &one.invite().await.unwrap()]).await.unwrap().ok().unwrap();
    two.sees(&three, "alive").await.unwrap();
    assert!(three.id().await.unwrap() != key);
    three.converge("note/after", &json!({"n": 2})).await.unwrap();
    assert_eq!(outside(&three).await.unwrap(), Value::Null);
}

#[tokio::test]
async fn a_removed_node_does_not_come_back_by_one_that_was_away() {
    let one = Daemon::found("one").await.unwrap();
    let mut two = one.joined("two").await.unwrap();
    let mut three = one.joined("three").await.unwrap();
    two.sees(&three, "alive").await.unwrap();
    three.sees(&two, "alive").await.unwrap();
    let key = three.id().await.unwrap();
    // Alive may also mean reached through the first: they are to know where the other is.
    wait_until("they are linked", PATIENCE, async || is_linked(&two, &key).await).await.unwrap();
    assert_eq!(two.stop().await.unwrap(), Some(0));
    assert_eq!(three.stop().await.unwrap(), Some(0));
    remove(&one, "three").await;
    one.put("note/after", json!({"n": 1})).await.unwrap();
    // Nobody who has heard runs while the two meet.
    let mut one = one;
    assert_eq!(one.stop().await.unwrap(), Some(0));
    two.start().await.unwrap();
    three.start().await.unwrap();
    wait_until("the two that have not heard are linked", PATIENCE, async || is_linked(&two, &key).await)
        .await
        .unwrap();
    three.put("note/late", json!({"n": 3})).await.unwrap();
    two.converge("note/late", &json!({"n": 3})).await.unwrap();
    let rosters = [&two, &three].map(|node| node.state_dir().join("roster"));
    let unaware = rosters.each_ref().map(|file| std::fs::read(file).unwrap());
    one.start().await.unwrap();
    wait_until("it is cut when the other hears", PATIENCE, async || {
        Ok(two.state_of(&key).await? == "none" && !is_linked(&two, &key).await?)
    })
    .await
    .unwrap();
    assert_eq!(one.state_of(&key).await.unwrap(), "none");
    wait_until("it knows", PATIENCE, async || Ok(outside(&three).await?["reason"] == "removed"))
        .await
        .unwrap();
    // What an honest node took from it before stays.
    one.converge("note/late", &json!({"n": 3})).await.unwrap();
    // It forgets nothing by starting again, and the others neither. A node shows what it heard while it is being written.
    for (file, unaware) in rosters.iter().zip(&unaware) {
        wait_until("it is on the disk", PATIENCE, async || Ok(std::fs::read(file)? != *unaware))
            .await
            .unwrap();
    }
    three.kill().await.unwrap();
    two.kill().await.unwrap();
    two.start().await.unwrap();
    three.start().await.unwrap();
    assert_eq!(outside(&three).await.unwrap()["reason"], "removed");
    two.sees(&one, "alive").await.unwrap();
    assert_eq!(two.state_of(&key).await.unwrap(), "none");
}

#[tokio::test]
async fn removing_is_refused_with_words_where_it_makes_no_sense() {
    let one = Daemon::found("one").await.unwrap();
    let two = one.joined("two").await.unwrap();
    let cases: [(&Daemon, &[&str], i32, &str); 5] = [
        (&one, &["two"], 2, "--yes"),
        (&one, &["one", "--yes"], 6, "hearth leave"),
        (&one, &["tow", "--yes"], 5, "two"),
        (&two, &["one", "--yes"], 6, "role is admin: one"),
        (&two, &["two", "--yes", "--force"], 6, "hearth leave"),
    ];
    for (node, args, code, words) in cases {
        let refused = node.cli(&[&["nodes", "remove"], args].concat()).await.unwrap();
        assert!(refused.code == code && refused.text().contains(words), "{args:?}: {refused:?}");
    }
    for (node, other) in [(&one, &two), (&two, &one)] {
        node.sees(other, "alive").await.unwrap();
    }
    // A token that does not allow it.
    let token = one.token("operator").await.unwrap();
    let client = one.web(Some(&token)).await.unwrap();
    assert_eq!(client.send("DELETE", "/api/v1/nodes/two", None).await.unwrap().status, 403);
    assert_eq!(one.state_of("two").await.unwrap(), "alive");
}

#[tokio::test]
async fn deletions_no_longer_wait_for_a_node_that_was_removed() {
    let one = Daemon::found("one").await.unwrap();
    let mut two = one.joined("two").await.unwrap();
    two.kill().await.unwrap();
    one.put("note/gone", json!({"n": 1})).await.unwrap();
    one.cli(&["delete", "note/gone"]).await.unwrap().ok().unwrap();
    let held = async || -> anyhow::Result<Value> { Ok(one.status().await?["held_back_by"].take()) };
    wait_until("it waits", PATIENCE, async || Ok(held().await? == json!(["two"]))).await.unwrap();
    remove(&one, "two").await;
    wait_until("it waits no longer", PATIENCE, async || Ok(held().await? == json!([]))).await.unwrap();
}

#[tokio::test]
async fn the_devices_of_a_removed_node_are_driven_by_those_that_stay() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let config = format!(
        "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
        emulator.address()
    );
    let one = Plan::new("one").config(config.as_str()).start().await.unwrap();
    let two = one.joined_by(Plan::new("two").config(config.as_str())).await.unwrap();
    let bulb = "device/lifx-d073d5000001";
    let reached = |fields: &Value| {
        fields.as_object().map_or(0, |f| f.keys().filter(|k| k.starts_with("reach.")).count())
    };
    wait_until("both reach it", PATIENCE, async || Ok(reached(&one.fields(bulb).await?) == 2)).await.unwrap();
    remove(&one, "two").await;
    wait_until("one drives it alone", PATIENCE, async || Ok(reached(&one.fields(bulb).await?) == 1))
        .await
        .unwrap();
    one.cli(&["light", "lifx-d073d5000001", "on", "--deadline", "20s"]).await.unwrap().ok().unwrap();
    wait_until("the other knows", PATIENCE, async || Ok(outside(&two).await?["reason"] == "removed"))
        .await
        .unwrap();
    let refused = two.cli(&["light", "lifx-d073d5000001", "off"]).await.unwrap();
    assert!(refused.code != 0 && refused.text().contains("removed"), "{refused:?}");
}

/// Counts the tickets that a server hands out, and would use them.
#[derive(Debug, Default)]
struct Tickets {
    offered: AtomicUsize,
    asked_for: AtomicUsize,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: rustls::pki_types::ServerName<'static>, _: rustls::NamedGroup) {}
    fn kx_hint(&self, _: &rustls::pki_types::ServerName<'_>) -> Option<rustls::NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: rustls::pki_types::ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &rustls::pki_types::ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &rustls::pki_types::ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _: rustls::pki_types::ServerName<'static>, _: Tls13ClientSessionValue) {
        self.offered.fetch_add(1, Ordering::SeqCst);
    }
    fn take_tls13_ticket(
        &self,
        _: &rustls::pki_types::ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        self.asked_for.fetch_add(1, Ordering::SeqCst);
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_key_gets_no_ticket_and_no_second_connection() {
    let one = Daemon::found("one").await.unwrap();
    let member = Stranger::new().join(&one.invite().await.unwrap()).await;
    let id = member.id().to_string();
    // A client that would resume if it could.
    let tickets = Arc::new(Tickets::default());
    let mut tls = member.stranger.identity.client_tls(ALPN_MESH).unwrap();
    tls.resumption = Resumption::store(tickets.clone());
    tls.enable_early_data = true;
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let greedy = endpoint.connect_with(config.clone(), one.address(), SERVER_NAME).unwrap();
    let greedy = within("a handshake", greedy).await.unwrap();

    let mut link = member.link(one.address()).await;
    remove(&one, &id).await;
    link.ends(ByeReason::Revoked, 5).await;

    // Both sides have spoken since the handshake, so a ticket would be here by now.
    assert_eq!(tickets.asked_for.load(Ordering::SeqCst), 1, "it asked whether it has a ticket");
    assert_eq!(tickets.offered.load(Ordering::SeqCst), 0, "the node hands out no ticket");
    drop(greedy);
    let again = endpoint.connect_with(config, one.address(), SERVER_NAME).unwrap();
    assert!(again.into_0rtt().is_err(), "there is nothing to resume");
    // A whole handshake is as far as its key gets: the introduction is refused, whatever it proves.
    let mut second = member.stranger.open(one.address(), ALPN_MESH).await;
    let proof = member.roster.statements().map(<[u8]>::to_vec).collect();
    second.say(&[Message::Hello(member.stranger.hello(member.roster.household(), proof))]).await;
    second.ends(ByeReason::Revoked, 5).await;
    assert_eq!(one.state_of(&id).await.unwrap(), "none");
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

async fn copies(node: &Daemon) -> anyhow::Result<Value> {
    Ok(node.status().await?["copies"].take())
}

#[tokio::test]
async fn two_boards_from_one_card_are_named_and_one_is_told_to_join_anew() {
    let one = Daemon::found("one").await.unwrap();
    let three = one.joined("three").await.unwrap();
    let mut two = one.joined("two").await.unwrap();
    two.put("note/before", json!({"n": 0})).await.unwrap();
    one.converge("note/before", &json!({"n": 0})).await.unwrap();
    let key = two.id().await.unwrap();
    assert_eq!(two.stop().await.unwrap(), Some(0));
    // An image of the card, written to a second one. Both boards are started, first the copy by itself:
    // it writes what nobody else will have.
    let folder = Folder::new().unwrap();
    let state = folder.join("copy");
    copy_folder(two.state_dir(), &state);
    two.start().await.unwrap();
    two.sees(&one, "alive").await.unwrap();
    let copy = Daemon::on(&state, &Launch::new()).await.unwrap();
    let mut written = Vec::new();
    for number in 0..40 {
        for (board, name) in [(&two, "two"), (&copy, "copy")] {
            let object = format!("note/{name}-{number}");
            if board.put(&object, json!({"n": number})).await.is_ok() {
                written.push((object, json!({"n": number})));
            }
        }
    }
    assert!(written.iter().any(|(object, _)| object.starts_with("note/two-")));

    for node in [&one, &three, &two] {
        wait_until("it names the copied card", PATIENCE, async || {
            let copies = copies(node).await?;
            Ok(copies[0]["name"] == "two" && copies[0]["id"] == key[..16])
        })
        .await
        .unwrap();
        let text = node.cli(&["status"]).await.unwrap().ok().unwrap().stdout;
        assert!(text.contains("COPIED") && text.contains("two"), "{text}");
        let doctor = node.cli(&["doctor"]).await.unwrap();
        assert!(doctor.text().contains("one card is a copy of the other"), "{doctor:?}");
    }
    for node in [&one, &three, &two] {
        wait_until("its log names it", PATIENCE, async || {
            Ok(node.log().contains("two boards run under the key of this node"))
        })
        .await
        .unwrap();
    }
    // The one that started later is told; the other goes on.
    wait_until("the copy is told", PATIENCE, async || Ok(outside(&copy).await?["reason"] == "copy"))
        .await
        .unwrap();
    assert_eq!(outside(&two).await.unwrap(), Value::Null);
    let doctor = copy.cli(&["doctor"]).await.unwrap();
    assert!(doctor.code == 1 && doctor.text().contains("hearth leave"), "{doctor:?}");
    let refused = copy.cli(&["put", "note/more", "n=1"]).await.unwrap();
    assert!(refused.code == 6 && refused.stderr.contains("hearth leave"), "{refused:?}");

    // What either acknowledged is in the household, or in the copy's lost-and-found.
    let lost = || -> String {
        let files = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap());
        let files = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("lost-and-found-"));
        files.map(|entry| std::fs::read_to_string(entry.path()).unwrap()).collect()
    };
    for (object, fields) in &written {
        wait_until(&format!("{object} is somewhere"), PATIENCE, async || {
            Ok(one.fields(object).await? == *fields || lost().contains(&format!("\"{object}\"")))
        })
        .await
        .unwrap();
    }
    // It comes to rest: the board that stays is linked, and writes pass both ways.
    two.put("note/rest", json!({"n": 1})).await.unwrap();
    for node in [&one, &three] {
        node.converge("note/rest", &json!({"n": 1})).await.unwrap();
    }

    // The copy leaves by itself, with a key of its own, and the other is still in.
    let left = copy.cli(&["leave", "--force"]).await.unwrap();
    left.ok().unwrap();
    copy.cli(&["join", &one.invite().await.unwrap()]).await.unwrap().ok().unwrap();
    assert!(copy.id().await.unwrap() != key);
    copy.converge("note/rest", &json!({"n": 1})).await.unwrap();
    two.put("note/both", json!({"n": 2})).await.unwrap();
    copy.converge("note/both", &json!({"n": 2})).await.unwrap();
    assert_eq!(one.state_of(&key).await.unwrap(), "alive");
}
