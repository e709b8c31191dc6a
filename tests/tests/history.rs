//! What a light was, as a person sees it: by the command line and by the API, and after a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt as _;

use hearth_tests::{
    daemon::{Daemon, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator},
};
use serde_json::{Value, json};

const BULB: &str = "device/lifx-d073d5000001";
const PATH: &str = "/api/v1/history/lifx-d073d5000001";

fn config(emulator: &Emulator, more: &str) -> String {
    format!(
        "{more}[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
        emulator.address()
    )
}

async fn is_online(node: &Daemon) {
    wait_until("the bulb is there", PATIENCE, async || {
        let bulb = node.fields(BULB).await?;
        Ok(bulb["availability"]["state"] == "online" && bulb["reported"].is_object())
    })
    .await
    .unwrap();
}

/// What the bulb's state was, one after the other; whether it is on when nothing else is said.
async fn states(node: &Daemon, key: &str) -> Vec<Value> {
    let history = node.client().get(PATH).await.unwrap().success().unwrap();
    let points = history["series"][key]["points"].as_array().cloned().unwrap_or_default();
    points.iter().map(|point| point[1].clone()).collect()
}

async fn switch(node: &Daemon, power: &str) {
    node.cli(&["light", BULB, power, "--deadline", "20s"]).await.unwrap().ok().unwrap();
}

#[tokio::test]
async fn a_light_that_was_switched_shows_it_before_and_after_a_restart() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let mut node = Plan::new("one").config(config(&emulator, "")).start().await.unwrap();
    is_online(&node).await;
    switch(&node, "on").await;
    let ends_with = async |last: Value| {
        wait_until("the history shows it", PATIENCE, async || {
            Ok(states(&node, "on").await.last() == Some(&last))
        })
        .await
        .unwrap();
    };
    ends_with(json!(true)).await;
    switch(&node, "off").await;
    ends_with(json!(false)).await;
    let before = states(&node, "on").await;
    assert!(before.ends_with(&[json!(true), json!(false)]), "{before:?}");

    let plot = node.cli(&["history", BULB, "--since", "1h"]).await.unwrap().ok().unwrap().stdout;
    for part in [BULB, "Brightness", "%", "On", "off", "Availability", "online", "█"] {
        assert!(plot.contains(part), "{part} is not in\n{plot}");
    }
    let only = node.json(&["history", BULB, "--sensor", "brightness", "--points", "5"]).await.unwrap();
    assert_eq!(only["series"].as_object().unwrap().keys().collect::<Vec<_>>(), ["brightness"]);
    let brightness = &only["series"]["brightness"];
    assert_eq!((&brightness["kind"], &brightness["unit"]), (&json!("numeric"), &json!("%")));
    assert_eq!(brightness["points"][0].as_array().unwrap().len(), 4);

    assert_eq!(node.stop().await.unwrap(), Some(0));
    for name in ["history", "history/recent", "history/long"] {
        let about = std::fs::metadata(node.state_dir().join(name)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o700, "{name}");
    }
    node.start().await.unwrap();
    is_online(&node).await;
    let after = states(&node, "on").await;
    assert!(after.starts_with(&before), "{after:?} after {before:?}");

    // A viewer may see it, and nobody without a token.
    let viewer = node.web(Some(&node.token("viewer").await.unwrap())).await.unwrap();
    assert_eq!(viewer.get(PATH).await.unwrap().status, 200);
    assert_eq!(viewer.with_token(None).get(PATH).await.unwrap().status, 401);
    // One that was forgotten shows nothing of before when it is found again.
    node.cli(&["device", "forget", BULB]).await.unwrap().ok().unwrap();
    assert_eq!(node.client().get(PATH).await.unwrap().status, 404);
    node.cli(&["adapter", "restart", "lifx"]).await.unwrap().ok().unwrap();
    is_online(&node).await;
    wait_until("it is recorded again", PATIENCE, async || Ok(states(&node, "on").await == [json!(false)]))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_wrong_question_is_refused_in_words() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let node = Plan::new("one").config(config(&emulator, "")).start().await.unwrap();
    is_online(&node).await;
    for (query, status, word) in [
        ("since=yesterday", 422, "2026-11-22T06:00:00Z"),
        ("since=1h&until=2h", 422, "ends before it begins"),
        ("points=0", 422, "1 to 2000"),
        ("points=2001", 422, "1 to 2000"),
        ("points=many", 400, "points"),
        ("sensor=pressure", 404, "pressure"),
        ("colour=red", 400, "colour"),
    ] {
        let answer = node.client().get(&format!("{PATH}?{query}")).await.unwrap();
        let problem = answer.json().unwrap();
        assert_eq!(answer.status, status, "{query}: {problem}");
        assert!(problem.to_string().contains(word), "{query}: {problem}");
    }
    for query in [
        "since=2020-01-01T00:00:00%2B01:00",
        "since=2020-01-01T00:00:00Z&until=2020-01-02T00:00:00Z",
        "since=366d",
    ] {
        let answer = node.client().get(&format!("{PATH}?{query}")).await.unwrap();
        assert_eq!(answer.status, 200, "{query}");
    }
    let unknown = node.cli(&["history", "nothing"]).await.unwrap();
    assert!(unknown.code == 5 && unknown.text().contains("nothing"), "{unknown:?}");
}

#[tokio::test]
async fn a_node_that_is_told_to_keep_none_writes_none() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let off = config(&emulator, "[history]\nmegabytes = 0\n");
    let mut node = Plan::new("one").config(off).start().await.unwrap();
    is_online(&node).await;
    let refused = node.cli(&["history", BULB]).await.unwrap();
    assert!(refused.code != 0 && refused.text().contains("[history]"), "{refused:?}");
    node.stop().await.unwrap();
    assert!(!node.state_dir().join("history").exists());
}
