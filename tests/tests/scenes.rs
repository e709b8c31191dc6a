//! Scenes: two nodes and two bulbs, stored and restored as one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use hearth_tests::{
    daemon::{Daemon, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator},
};
use jiff::Timestamp;
use serde_json::{Value, json};

const SERIALS: [&str; 2] = ["d073d5000001", "d073d5000002"];
const BULBS: [&str; 2] = ["device/lifx-d073d5000001", "device/lifx-d073d5000002"];
/// What the bulbs are called where nobody named them.
const NAMES: [&str; 2] = ["lifx-d073d5000001", "lifx-d073d5000002"];

/// A node that knows the time.
fn plan(name: &str, emulator: &Emulator) -> Plan {
    let config = format!(
        "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
        emulator.address()
    );
    Plan::new(name).config(config).variable("HEARTH_CLOCK", "trusted")
}

async fn reaches_the_bulbs(node: &Daemon) {
    let reach = format!("reach.{}", &node.id().await.unwrap()[..16]);
    for bulb in BULBS {
        let there = wait_until("the bulb is there", PATIENCE, async || {
            Ok(node.fields(bulb).await.is_ok_and(|fields| {
                fields["availability"]["state"] == "online"
                    && fields["reported"]["value"]["kind"] == "light"
                    && !fields[&reach].is_null()
            }))
        });
        there.await.unwrap();
    }
}

async fn ok(node: &Daemon, words: &[&str]) -> String {
    node.cli(words).await.unwrap().ok().unwrap().stdout
}

async fn scene(node: &Daemon, name: &str) -> Value {
    node.json(&["scene", "show", name]).await.unwrap()
}

/// Whether it is on, and its brightness in percent, as the bulb itself says.
async fn bulb(emulator: &Emulator, serial: &str) -> (bool, f64) {
    let device = emulator.device(serial).await.unwrap();
    let on = device["power_level"].as_u64().unwrap() > 0;
    (on, (device["color"]["brightness"].as_f64().unwrap() / 65_535.0 * 100.0).round())
}

async fn shows(emulator: &Emulator, serial: &str, what: (bool, f64)) {
    let done = wait_until("the bulb shows it", PATIENCE, async || Ok(bulb(emulator, serial).await == what));
    if let Err(late) = done.await {
        panic!("{late}: {serial} shows {:?} and not {what:?}", bulb(emulator, serial).await);
    }
}

#[tokio::test]
async fn a_scene_is_saved_activated_on_another_node_and_put_back() {
    let emulator = Emulator::start(&[COLOR_BULB; 2]).await.unwrap();
    let one = plan("one", &emulator).start().await.unwrap();
    let two = one.joined_by(plan("two", &emulator)).await.unwrap();
    for node in [&one, &two] {
        reaches_the_bulbs(node).await;
    }
    for name in NAMES {
        ok(&one, &["device", "move", name, "hall"]).await;
    }
    ok(&one, &["light", NAMES[0], "on", "--brightness", "40", "--kelvin", "2700", "--deadline", "20s"]).await;
    ok(&one, &["light", NAMES[1], "off", "--deadline", "20s"]).await;
    ok(&one, &["scene", "save", "evening", "hall", "--transition", "1s"]).await;
    let saved = scene(&one, "evening").await;
    let first = &saved["devices"][BULBS[0]];
    assert!((first["brightness"].as_f64().unwrap() - 40.0).abs() < 0.1, "{saved}");
    assert_eq!((&first["on"], &first["kelvin"]), (&true.into(), &2_700.into()), "{saved}");
    assert_eq!((&saved["devices"][BULBS[1]], &saved["activated"]), (&json!({"on": false}), &Value::Null));

    ok(&one, &["light", NAMES[0], "off", "--deadline", "20s"]).await;
    ok(&one, &["light", NAMES[1], "on", "--brightness", "90", "--color", "red", "--deadline", "20s"]).await;
    let known = wait_until("the other node knows both", PATIENCE, async || {
        let lamps = [two.fields(BULBS[0]).await?, two.fields(BULBS[1]).await?];
        let on = |lamp: &Value| lamp["reported"]["value"]["on"] == true;
        Ok(!on(&lamps[0]) && on(&lamps[1]) && two.json(&["scene", "show", "evening"]).await.is_ok())
    });
    known.await.unwrap();

    // On the other node, with a transition: it takes its time, and then both are confirmed.
    let began = Instant::now();
    let given =
        two.json(&["scene", "activate", "evening", "--transition", "2s", "--deadline", "20s"]).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}: {given}", began.elapsed());
    assert_eq!(given["scene"], "evening");
    let ends: Vec<_> = given["commands"].as_array().unwrap().iter().map(|c| c["state"].clone()).collect();
    assert_eq!((ends, &given["refused"]), (vec![json!("confirmed"), json!("confirmed")], &json!([])));
    shows(&emulator, SERIALS[0], (true, 40.0)).await;
    shows(&emulator, SERIALS[1], (false, 90.0)).await;
    for node in [&one, &two] {
        let active = wait_until("it is known what was before", PATIENCE, async || {
            let shown = scene(node, "evening").await;
            let by = shown["activated"]["by"].as_str().unwrap_or_default();
            Ok(by.starts_with("socket:") && shown["before"][BULBS[0]] == json!({"on": false}))
        });
        active.await.unwrap();
    }
    // Once more, on the first: nothing of what was before is lost.
    ok(&one, &["scene", "activate", "evening", "--deadline", "20s"]).await;
    let before = scene(&one, "evening").await["before"].clone();
    assert_eq!(before[BULBS[0]], json!({"on": false}), "{before}");
    assert_eq!(before[BULBS[1]]["brightness"].as_f64().unwrap().round(), 90.0, "{before}");
    assert!(before[BULBS[1]]["color"]["x"].as_f64().unwrap() > 0.5, "{before}");

    ok(&one, &["scene", "undo", "evening", "--deadline", "20s"]).await;
    shows(&emulator, SERIALS[0], (false, 40.0)).await;
    shows(&emulator, SERIALS[1], (true, 90.0)).await;
    assert_eq!(emulator.device(SERIALS[1]).await.unwrap()["color"]["saturation"], 65_535);
    let again = one.cli(&["scene", "undo", "evening"]).await.unwrap();
    assert_eq!(again.code, 6, "{}", again.stderr);
    assert!(again.stderr.contains("`evening` has nothing to undo"), "{}", again.stderr);
}

#[tokio::test]
async fn a_bulb_that_does_not_answer_and_one_that_is_gone_are_named_and_the_others_go_on() {
    let emulator = Emulator::start(&[COLOR_BULB; 2]).await.unwrap();
    let node = plan("one", &emulator).start().await.unwrap();
    reaches_the_bulbs(&node).await;
    for name in NAMES {
        ok(&node, &["light", name, "on", "--brightness", "30", "--deadline", "20s"]).await;
    }
    ok(&node, &["scene", "save", "dim", NAMES[0], NAMES[1]]).await;
    for name in NAMES {
        ok(&node, &["light", name, "--brightness", "80", "--deadline", "20s"]).await;
    }
    emulator.remove(SERIALS[1]).await.unwrap();
    let late = node.cli(&["scene", "activate", "dim", "--deadline", "2s"]).await.unwrap();
    assert_eq!(late.code, 7, "{}", late.stderr);
    assert!(late.stderr.contains(&format!("{} did not confirm in time", BULBS[1])), "{}", late.stderr);
    shows(&emulator, SERIALS[0], (true, 30.0)).await;

    ok(&node, &["device", "forget", NAMES[1]]).await;
    let shown = ok(&node, &["scene", "list"]).await;
    assert!(shown.contains("(it is gone)"), "{shown}");
    ok(&node, &["light", NAMES[0], "--brightness", "70", "--deadline", "20s"]).await;
    let without = node.cli(&["scene", "activate", "dim", "--deadline", "20s"]).await.unwrap();
    assert_eq!(without.code, 6, "{}", without.stderr);
    assert!(without.stderr.contains(&format!("{}: it is gone", BULBS[1])), "{}", without.stderr);
    shows(&emulator, SERIALS[0], (true, 30.0)).await;
    ok(&node, &["scene", "undo", "dim", "--deadline", "20s"]).await;
    shows(&emulator, SERIALS[0], (true, 70.0)).await;

    // As what is left of it is now.
    let saved = node.cli(&["scene", "save", "dim"]).await.unwrap();
    assert_eq!(saved.code, 6, "{}", saved.stderr);
    let devices = scene(&node, "dim").await["devices"].clone();
    assert_eq!(devices.as_object().unwrap().keys().collect::<Vec<_>>(), [BULBS[0]]);
    emulator.remove(SERIALS[0]).await.unwrap();
    ok(&node, &["device", "forget", NAMES[0]]).await;
    let none = node.cli(&["scene", "activate", "dim"]).await.unwrap();
    assert!(none.code == 6 && none.stderr.contains("every device of `dim` is gone"), "{}", none.stderr);
}

#[tokio::test]
async fn a_schedule_activates_a_scene_and_a_wrong_one_is_refused() {
    let emulator = Emulator::start(&[COLOR_BULB; 2]).await.unwrap();
    let node = plan("one", &emulator).start().await.unwrap();
    reaches_the_bulbs(&node).await;
    ok(&node, &["home", "set", "--zone", "UTC"]).await;
    for name in NAMES {
        ok(&node, &["light", name, "on", "--brightness", "20", "--deadline", "20s"]).await;
    }
    ok(&node, &["scene", "save", "night", NAMES[0], NAMES[1]]).await;
    for name in NAMES {
        ok(&node, &["light", name, "--brightness", "80", "--deadline", "20s"]).await;
    }
    let refused = async |words: &[&str], code: i32, part: &str| {
        let said = node.cli(words).await.unwrap();
        assert!(said.code == code && said.stderr.contains(part), "{words:?}: {} {}", said.code, said.stderr);
    };
    refused(&["scene", "activate", "nigth"], 5, "night").await;
    refused(&["scene", "show", "nigth"], 5, "there is no scene `nigth`").await;
    refused(&["scene", "remove", "nigth"], 5, "there is no scene `nigth`").await;
    refused(&["scene", "save", "Night time", NAMES[0]], 2, "a-z").await;
    refused(&["scene", "save", "morning"], 6, "a scene has 1 to 128").await;
    refused(&["scene", "save", "morning", "attic"], 5, "attic").await;
    refused(&["schedule", "set", "dusk", "cron 0 20 * * *", "--", "scene", "nigth"], 5, "night").await;

    let at = Timestamp::from_second(Timestamp::now().as_second() + 15).unwrap();
    ok(
        &node,
        &["schedule", "set", "dusk", &format!("at {at}"), "--", "scene", "night", "--transition", "500ms"],
    )
    .await;
    let list = ok(&node, &["schedule", "list"]).await;
    assert!(list.contains("does  scene night: transition_ms 500"), "{list}");
    for serial in SERIALS {
        shows(&emulator, serial, (true, 20.0)).await;
    }
    let done = wait_until("it is recorded", PATIENCE, async || {
        let shown = node.json(&["schedule", "show", "dusk"]).await?;
        Ok(shown["last"][0]["state"] == "done" && shown["last"][0]["failed"] == json!([]))
    });
    done.await.unwrap();
    assert_eq!(scene(&node, "night").await["activated"]["by"], "schedule:dusk");
    ok(&node, &["scene", "undo", "night", "--deadline", "20s"]).await;
    for serial in SERIALS {
        shows(&emulator, serial, (true, 80.0)).await;
    }

    // Of a scene that is gone by then the schedule says so.
    let at = Timestamp::from_second(Timestamp::now().as_second() + 15).unwrap();
    ok(&node, &["schedule", "set", "later", &format!("at {at}"), "--", "scene", "night"]).await;
    ok(&node, &["scene", "remove", "night"]).await;
    let failed = wait_until("it is recorded", PATIENCE, async || {
        let last = node.json(&["schedule", "show", "later"]).await?["last"][0].clone();
        Ok(last["state"] == "failed" && last["failed"] == json!(["night: there is no scene `night`"]))
    });
    failed.await.unwrap();
}
