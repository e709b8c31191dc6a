//! What a household hands to an adapter: a bridge that is paired, passwords, a board's own devices. Secrets stay secret, and
//! go where they are needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hearth_tests::{
    daemon::{Daemon, PATIENCE, Plan, wait_until},
    fakes::{
        hue::{Bridge, PLUG},
        mosquitto::Mosquitto,
        sysfs::SysfsPeer,
    },
    takeover::{obeys, online, takes_over},
};
use serde_json::Value;

/// What the key of the fake bridge begins with, and the other one that comes with it.
const KEYS: [&str; 2] = ["fake-0-", "33DDF493992908E3D97FAAA5A6F189E1"];

fn plan(name: &str) -> Plan {
    Plan::new(name).variable("HEARTH_LOG", "debug")
}

async fn run(node: &Daemon, words: &[&str]) -> String {
    node.cli(words).await.unwrap().ok().unwrap().text()
}

/// Everything that a node shows of an adapter and of itself.
async fn shown(node: &Daemon, adapter: &str) -> Vec<(String, String)> {
    let object = format!("adapter/{adapter}");
    let commands: [&[&str]; 8] = [
        &["adapter", "show", adapter],
        &["adapter", "show", adapter, "--json"],
        &["adapter", "list"],
        &["adapter", "list", "--json"],
        &["get", &object],
        &["get", &object, "--json"],
        &["export"],
        &["config", "show"],
    ];
    let mut all = vec![("the log".to_owned(), node.log())];
    for words in commands {
        all.push((words.join(" "), run(node, words).await));
    }
    all.push(("doctor".to_owned(), node.cli(&["doctor"]).await.unwrap().text()));
    let metrics = node.client().get("/metrics").await.unwrap();
    assert_eq!(metrics.status, 200);
    all.push(("/metrics".to_owned(), metrics.body));
    all
}

async fn keeps_secret(node: &Daemon, adapter: &str, secrets: &[&str]) {
    for (place, text) in shown(node, adapter).await {
        assert!(!text.is_empty(), "{place} is empty");
        for secret in secrets {
            assert!(!text.contains(secret), "{} of {} shows {secret}: {text}", place, node.name());
        }
    }
}

#[tokio::test]
async fn a_bridge_is_paired_by_its_button_and_its_key_goes_to_the_nodes_alone() {
    let bridge = Bridge::start("ecb5fafffe123456").await.unwrap();
    let one = plan("one").start().await.unwrap();
    let addresses = format!("addresses:=[\"{}\"]", bridge.address());
    run(&one, &["adapter", "set", "hue", &addresses]).await;
    run(&one, &["adapter", "pair", "hue", "--for", "2m"]).await;
    wait_until("it asks for the button", PATIENCE, async || {
        Ok(run(&one, &["adapter", "show", "hue"]).await.contains("press the button"))
    })
    .await
    .unwrap();
    bridge.press_button();
    let plug = format!("device/hue-{}", PLUG.replace('-', ""));
    online(&one, &plug).await.unwrap();
    obeys(&one, &plug).await.unwrap();
    assert_eq!(bridge.resource(PLUG)["on"]["on"], true);
    wait_until("it says that it is paired", PATIENCE, async || {
        Ok(run(&one, &["adapter", "show", "hue"]).await.contains("is paired"))
    })
    .await
    .unwrap();

    let two = one.joined_by(plan("two")).await.unwrap();
    // Who came later was handed the key: it runs the adapter when it is told to, and so does the first again.
    for node in [&two, &one] {
        run(node, &["adapter", "set", "hue", "--nodes", node.name()]).await;
        let id = node.id().await.unwrap();
        wait_until("the node that is named carries out commands", PATIENCE, async || {
            Ok(id.starts_with(&obeys(&one, &plug).await?))
        })
        .await
        .unwrap();
    }
    run(&one, &["adapter", "set", "hue", "--all-nodes"]).await;
    online(&two, &plug).await.unwrap();
    for node in [&one, &two] {
        keeps_secret(node, "hue", &KEYS).await;
    }
    takes_over(one, &two, &plug).await.unwrap();
    keeps_secret(&two, "hue", &KEYS).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_in_words_and_not_shown() {
    let broker = Mosquitto::with_password("hearth", "right-0815").await.unwrap();
    let node = plan("one").start().await.unwrap();
    let address = format!("broker={}", broker.address());
    let words = ["adapter", "set", "mqtt", &address, "username=hearth", "password=-"];
    node.cli_with(&words, b"wrong-4711\n").await.unwrap().ok().unwrap();
    for words in [["adapter", "list"].as_slice(), &["doctor"]] {
        wait_until("it says what is wrong", PATIENCE, async || {
            let text = node.cli(words).await?.text();
            Ok(text.contains("`password`") && text.contains(&broker.address()))
        })
        .await
        .unwrap();
    }
    assert!(node.log().contains("`password`"));
    keeps_secret(&node, "mqtt", &["wrong-4711"]).await;
    node.cli_with(&["adapter", "set", "mqtt", "password=-"], b"right-0815\n").await.unwrap().ok().unwrap();
    wait_until("it runs", PATIENCE, async || {
        let listed = node.json(&["adapter", "show", "mqtt"]).await?;
        Ok(listed["on"][0]["state"] == "running" && listed["on"][0]["reason"] == Value::Null)
    })
    .await
    .unwrap();
    keeps_secret(&node, "mqtt", &["wrong-4711", "right-0815"]).await;
}

#[tokio::test]
async fn a_thermometer_of_a_board_is_offline_while_its_board_is_down() {
    const THERMOMETER: &str = "device/onewire-28-0316a2794cff";
    let text = "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n";
    let peer =
        SysfsPeer::new("onewire-28-0316a2794cff", "bus/w1/devices", "28-0316a2794cff", &[("w1_slave", text)])
            .unwrap();
    let config = format!("[adapters.onewire]\nroot = \"{}\"\npoll_s = 1\n", peer.sysfs.root().display());
    let mut cellar = Plan::new("cellar").config(config).start().await.unwrap();
    let attic = cellar.joined_by(plan("attic")).await.unwrap();
    let shown = async |state: &str| {
        wait_until(&format!("it is {state}"), PATIENCE, async || {
            Ok(attic.fields(THERMOMETER).await?["availability"]["state"] == state)
        })
        .await
        .unwrap();
        attic.fields(THERMOMETER).await.unwrap()
    };
    let warm = |fields: &Value| fields["readings"]["temperature"]["value"].as_f64();
    // That it is online is told before what it measures.
    let measured = async || {
        shown("online").await;
        wait_until("it is measured", PATIENCE, async || {
            Ok(warm(&attic.fields(THERMOMETER).await?) == Some(23.1))
        })
        .await
        .unwrap();
    };
    measured().await;
    cellar.kill().await.unwrap();
    let fields = shown("offline").await;
    assert_eq!(fields["availability"]["reason"], "node cellar is down");
    // What is measured is flushed within ten minutes; before that it goes with the board that measured it.
    wait_until("what nobody flushed is gone", PATIENCE, async || {
        Ok(warm(&attic.fields(THERMOMETER).await?).is_none())
    })
    .await
    .unwrap();
    cellar.start().await.unwrap();
    measured().await;
    // A board that is switched off as it should be flushes before it goes.
    cellar.stop().await.unwrap();
    let fields = shown("offline").await;
    assert_eq!(fields["availability"]["reason"], "node cellar is down");
    assert_eq!(warm(&fields), Some(23.1));
}

/// The device of an adapter of a board. Its id holds a number of the board's own.
async fn device_of(node: &Daemon, adapter: &str) -> String {
    let mut found = None;
    wait_until(&format!("{} sees a device of {adapter}", node.name()), PATIENCE, async || {
        let devices = node.client().objects("device/").await?;
        found = devices.into_iter().find(|(_, device)| device["adapter"] == adapter);
        Ok(found.is_some())
    })
    .await
    .unwrap();
    found.unwrap().0
}

#[tokio::test]
async fn a_led_and_a_chip_of_a_board_are_offline_while_their_board_is_down() {
    let led = [("brightness", "0\n"), ("max_brightness", "255\n"), ("trigger", "[none] timer\n")];
    let led = SysfsPeer::new("sysfs-led-lamp", "class/leds", "lamp", &led).unwrap();
    let chip = [("name", "bme280\n"), ("in_temp_input", "21370\n")];
    let chip = SysfsPeer::new("iio-bme280", "bus/iio/devices", "iio:device0", &chip).unwrap();
    let config = format!(
        "[adapters.sysfs_led]\nroot = \"{}\"\nleds = [\"*\"]\npoll_s = 1\n[adapters.iio]\nroot = \"{}\"\npoll_s = 1\n",
        led.sysfs.root().display(),
        chip.sysfs.root().display()
    );
    let mut cellar = Plan::new("cellar").config(config).start().await.unwrap();
    let attic = cellar.joined_by(plan("attic")).await.unwrap();
    let (lamp, chip) = (device_of(&attic, "sysfs_led").await, device_of(&attic, "iio").await);
    for device in [&lamp, &chip] {
        online(&attic, device).await.unwrap();
    }
    obeys(&attic, &lamp).await.unwrap();
    cellar.kill().await.unwrap();
    for device in [&lamp, &chip] {
        wait_until(&format!("{device} is offline with its board"), PATIENCE, async || {
            let availability = attic.fields(device).await?["availability"].take();
            Ok(availability["state"] == "offline" && availability["reason"] == "node cellar is down")
        })
        .await
        .unwrap();
        assert!(run(&attic, &["devices"]).await.contains("offline: node cellar is down"));
    }
    // Nobody else takes what is wired to another board: a command to it ends with a word.
    let ended = attic.cli(&["light", &lamp, "off", "--deadline", "1s", "--json"]).await.unwrap();
    assert_eq!(ended.code, 7, "{ended:?}");
    assert!(ended.json().unwrap()["reason"].as_str().unwrap().contains("node"), "{ended:?}");
    cellar.start().await.unwrap();
    for device in [&lamp, &chip] {
        online(&attic, device).await.unwrap();
    }
    obeys(&attic, &lamp).await.unwrap();
}
