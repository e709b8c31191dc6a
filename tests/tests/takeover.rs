//! Two boards of one household, and what only one of them may do at a time: when it dies, the other has taken over
//! within ten seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use hearth_tests::{
    daemon::{Daemon, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator},
};
use serde_json::{Value, json};

/// What a takeover may take, from the moment in which the owner is killed.
const TAKEOVER: Duration = Duration::from_secs(10);

/// Two daemons with the same configuration; the one that owns the device is the first.
async fn owner_and_heir(config: &str, device: &str) -> (Daemon, Daemon) {
    let one = Plan::new("one").config(config).start().await.unwrap();
    let two = one.joined_by(Plan::new("two").config(config)).await.unwrap();
    for node in [&one, &two] {
        wait_until("the device is online and both nodes know it", PATIENCE, async || {
            Ok(node.fields(device).await.is_ok_and(|fields| fields["availability"]["state"] == "online"))
        })
        .await
        .unwrap();
    }
    let mut owner = String::new();
    wait_until("both know of its owner", PATIENCE, async || {
        owner = written_by(&one, device, "availability").await;
        Ok(!owner.is_empty() && owner == written_by(&two, device, "availability").await)
    })
    .await
    .unwrap();
    if one.id().await.unwrap().starts_with(&owner) { (one, two) } else { (two, one) }
}

/// The short id of the node that wrote a field last.
async fn written_by(node: &Daemon, object: &str, field: &str) -> String {
    let answer = node.client().get(&format!("/api/v1/objects/{object}")).await.unwrap();
    let object = answer.success().unwrap_or(Value::Null);
    object["meta"][field]["by"].as_str().unwrap_or_default().to_owned()
}

/// Kills the owner, and has the heir carry out a command.
async fn takes_over(config: &str, device: &str) {
    let (mut owner, heir) = owner_and_heir(config, device).await;
    let before = command(&heir, device, true, 20_000).await;
    assert_eq!(before["state"], "confirmed", "{before}");
    owner.kill().await.unwrap();
    let mut on = false;
    wait_until("a command to the survivor is confirmed", TAKEOVER, async || {
        let done = command(&heir, device, on, 2_000).await["state"] == "confirmed";
        on = !on;
        Ok(done)
    })
    .await
    .unwrap();
}

async fn command(node: &Daemon, device: &str, on: bool, deadline_ms: u32) -> Value {
    let body = json!({"device": device, "change": {"on": on}, "deadline_ms": deadline_ms, "wait": true});
    node.client().send("POST", "/api/v1/commands", Some(&body)).await.unwrap().success().unwrap()
}

#[tokio::test]
async fn a_lifx_bulb() {
    let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
    let config = format!(
        "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
        emulator.address()
    );
    takes_over(&config, "device/lifx-d073d5000001").await;
}
