//! One bulb, the real emulator, that two real nodes reach: switched from either, over the command line
//! and the API, with losses, lies, a slider, and the death of its owner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{process::Stdio, time::Duration};

use hearth_tests::{
    daemon::{Daemon, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator, Fault, Link},
    python::Watch,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::timeout,
};

const SERIAL: &str = "d073d5000001";
const BULB: &str = "device/lifx-d073d5000001";
/// The life of a command that all goes well with.
const LIFE: [&str; 4] = ["accepted", "sent", "acknowledged", "confirmed"];

struct Rig {
    emulator: Emulator,
    link: Link,
    owner: Daemon,
    other: Daemon,
    /// The commands that told the owner.
    before: [String; 2],
}

impl Rig {
    /// Two nodes, told apart by which of them owns the bulb.
    async fn new() -> Self {
        let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
        let link = Link::to(emulator.address(), 11).await.unwrap();
        let config = format!(
            "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
            link.address()
        );
        let one = plan("one", &config).start().await.unwrap();
        let two = one.joined_by(plan("two", &config)).await.unwrap();
        for node in [&one, &two] {
            let reached = [reach(&one).await, reach(&two).await];
            wait_until("both nodes reach the bulb", PATIENCE, async || {
                let bulb = node.fields(BULB).await?;
                let is_online = bulb["availability"]["state"] == "online" && bulb["reported"].is_object();
                Ok(is_online && reached.iter().all(|reach| !bulb[reach].is_null()))
            })
            .await
            .unwrap();
        }
        // The owner may be changing while the nodes meet: the second command tells which it is.
        let first = command(&one, json!({"on": true}), 10_000).await;
        let second = command(&one, json!({"on": true}), 10_000).await;
        let owner = owner_of(&one, &second).await;
        let (owner, other) =
            if one.id().await.unwrap().starts_with(&owner) { (one, two) } else { (two, one) };
        let before = [first, second].map(|command| format!("command/{}", command["id"].as_str().unwrap()));
        Self { emulator, link, owner, other, before }
    }

    async fn shows(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let done = wait_until(what, PATIENCE, async || Ok(is_so(&self.emulator.device(SERIAL).await?)));
        done.await.unwrap();
    }
}

fn plan(name: &str, config: &str) -> Plan {
    Plan::new(name).config(config).variable("HEARTH_LOG", "debug")
}

async fn reach(node: &Daemon) -> String {
    format!("reach.{}", &node.id().await.unwrap()[..16])
}

/// The node that writes the life of a command is the owner of its device.
async fn owner_of(node: &Daemon, command: &Value) -> String {
    let path = format!("/api/v1/objects/command/{}", command["id"].as_str().unwrap());
    let object = node.client().get(&path).await.unwrap().success().unwrap();
    object["meta"]["life"]["by"].as_str().unwrap().to_owned()
}

/// Sends a command and waits for its end.
async fn command(node: &Daemon, change: Value, deadline_ms: u32) -> Value {
    let body = json!({"device": BULB, "change": change, "deadline_ms": deadline_ms, "wait": true});
    node.client().send("POST", "/api/v1/commands", Some(&body)).await.unwrap().success().unwrap()
}

fn states(command: &Value) -> Vec<String> {
    let life = command["life"].as_array().unwrap();
    life.iter().map(|step| step["state"].as_str().unwrap().to_owned()).collect()
}

/// Follows one observer until a command was confirmed and the bulb is off; answers with the command. What is shown
/// of its life only ever goes on. `before` are the commands before it.
async fn follow(mut next: impl AsyncFnMut() -> Value, before: &[String]) -> String {
    let (mut id, mut life, mut off) = (None, Vec::new(), false);
    while life != LIFE || !off {
        let object = next().await;
        let fields = &object["fields"];
        off |= object["id"] == BULB && fields["reported"]["value"]["on"] == false;
        let name = object["id"].as_str().unwrap_or_default();
        if name.starts_with("command/") && !before.iter().any(|it| it == name) {
            assert_eq!(id.get_or_insert(name.to_owned()), name, "there is only one command");
            let now = if fields["life"].is_null() { Vec::new() } else { states(fields) };
            assert!(
                now.starts_with(&life) && LIFE.map(str::to_owned).starts_with(&now),
                "{now:?} after {life:?}"
            );
            life = now;
        }
    }
    id.unwrap()
}

#[tokio::test]
async fn a_light_is_switched_from_the_node_that_does_not_own_it_and_both_watch_its_life() {
    let rig = Rig::new().await;
    let mut watch = rig.other.hearth().unwrap();
    watch.args(["watch", "command/", "device/", "--json"]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut watch = watch.spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut line = async || -> Value {
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    };
    while line().await["object"]["id"] != BULB {}
    let far = rig.owner.web(Some(&rig.owner.token("viewer").await.unwrap())).await.unwrap();
    let mut far = far.watch().await.unwrap();
    far.subscribe(&["command/", "device/"], None).await.unwrap();
    let mut python = Watch::of(&rig.other, &["command/", "device/"]).await.unwrap();

    let switched = rig.other.cli(&["light", BULB, "off", "--deadline", "20s"]).await.unwrap().ok().unwrap();
    let shown: Vec<&str> = switched.stdout.split_whitespace().collect();
    let order = LIFE.map(|state| shown.iter().position(|word| *word == state));
    assert!(order[0].is_some() && order.is_sorted(), "{}", switched.stdout);
    assert_eq!(rig.emulator.device(SERIAL).await.unwrap()["power_level"], 0);

    // The same on every watch: the whole life of the command, and what the light then is.
    let before = &rig.before;
    let id = follow(async || line().await["object"].take(), before).await;
    assert_eq!(follow(async || far.next().await.unwrap()["object"].take(), before).await, id);
    assert_eq!(follow(async || python.object().await.unwrap(), before).await, id);
    let path = format!("/api/v1/commands/{}", id.trim_start_matches("command/"));
    for node in [&rig.owner, &rig.other] {
        let command = node.client().get(&path).await.unwrap().success().unwrap();
        assert_eq!(states(&command), LIFE, "{command}");
    }
    let devices = rig.other.json(&["devices"]).await.unwrap();
    assert_eq!(devices["devices"][0]["id"], BULB);
}

#[tokio::test]
async fn brightness_kelvin_and_color_reach_the_bulb() {
    let rig = Rig::new().await;
    let to = async |args: &[&str]| {
        let all: Vec<&str> =
            ["light", BULB].into_iter().chain(args.iter().copied()).chain(["--deadline", "20s"]).collect();
        rig.other.cli(&all).await.unwrap().ok().unwrap();
    };
    to(&["on", "--brightness", "40", "--kelvin", "2700", "--transition", "200ms"]).await;
    rig.shows("40 % of 2700 K", |bulb| {
        bulb["power_level"] == 65_535
            && bulb["color"]["kelvin"] == 2_700
            && bulb["color"]["brightness"].as_u64().unwrap().abs_diff(26_214) < 700
    })
    .await;
    to(&["--color", "red"]).await;
    rig.shows("red", |bulb| bulb["color"]["saturation"].as_u64().unwrap() > 60_000).await;
    to(&["toggle"]).await;
    rig.shows("off", |bulb| bulb["power_level"] == 0).await;
    let body =
        json!({"device": BULB, "change": {"on": true}, "key": "once", "wait": true, "deadline_ms": 20_000});
    let client = rig.other.client();
    let first = client.send("POST", "/api/v1/commands", Some(&body)).await.unwrap().success().unwrap();
    let again = client.send("POST", "/api/v1/commands", Some(&body)).await.unwrap().success().unwrap();
    assert_eq!(first["id"], again["id"], "the same key is the same command");
    let other = json!({"device": BULB, "change": {"on": false}, "key": "once"});
    let refused = client.send("POST", "/api/v1/commands", Some(&other)).await.unwrap();
    assert_eq!((refused.status, refused.problem().unwrap().as_str()), (409, "idempotency-key"));
    assert_eq!(rig.other.cli(&["light", "nowhere", "on"]).await.unwrap().code, 5);
}

#[tokio::test]
async fn with_a_third_of_the_packets_lost_a_command_is_still_confirmed() {
    let rig = Rig::new().await;
    rig.link.set(Fault { lose_requests: 0.3, lose_answers: 0.3, ..Fault::default() });
    for (node, percent) in [(&rig.other, 20), (&rig.owner, 70)] {
        let ended = command(node, json!({"brightness": percent}), 20_000).await;
        assert_eq!(ended["state"], "confirmed", "{ended}");
        let brightness = rig.emulator.device(SERIAL).await.unwrap()["color"]["brightness"].as_u64().unwrap();
        assert!(brightness.abs_diff(percent * 65_535 / 100) < 700, "{brightness}");
    }
}

#[tokio::test]
async fn a_bulb_that_acknowledges_and_ignores_times_out_and_one_that_vanishes_is_offline() {
    let rig = Rig::new().await;
    rig.link.set(Fault { ignore_sets: true, ..Fault::default() });
    let ended = rig.other.cli(&["light", BULB, "off", "--deadline", "2s", "--json"]).await.unwrap();
    assert_eq!(ended.code, 7, "{ended:?}");
    let ended = ended.json().unwrap();
    assert_eq!(ended["state"], "timed_out");
    assert!(!ended["reason"].as_str().unwrap().is_empty(), "{ended}");
    assert!(rig.emulator.device(SERIAL).await.unwrap()["power_level"] != 0);

    rig.link.set(Fault { lose_requests: 1.0, ..Fault::default() });
    for node in [&rig.owner, &rig.other] {
        let gone = wait_until("it is offline with a reason", PATIENCE, async || {
            let bulb = node.fields(BULB).await?;
            let reason = bulb["availability"]["reason"].as_str().unwrap_or_default();
            Ok(bulb["availability"]["state"] == "offline" && !reason.is_empty())
        });
        gone.await.unwrap();
    }
    rig.link.set(Fault::default());
    for node in [&rig.owner, &rig.other] {
        let back = async || Ok(node.fields(BULB).await?["availability"]["state"] == "online");
        wait_until("it is back", PATIENCE, back).await.unwrap();
    }
    assert_eq!(command(&rig.other, json!({"on": false}), 20_000).await["state"], "confirmed");
}

#[tokio::test]
async fn a_bulb_that_answers_after_the_deadline_is_told_so_and_takes_the_next_command() {
    let rig = Rig::new().await;
    rig.link.set(Fault { hold_answers: true, ..Fault::default() });
    let late = rig.other.cli(&["light", BULB, "off", "--deadline", "2s", "--json"]).await.unwrap();
    assert_eq!(late.code, 7, "{late:?}");
    let late = late.json().unwrap();
    let word = "did not acknowledge before the deadline";
    // Where the owner is slow to say so, the node that was asked says that.
    let words = [word, "did not say how it ended"];
    let reason = late["reason"].as_str().unwrap();
    assert!(late["state"] == "timed_out" && words.iter().any(|word| reason.contains(word)), "{late}");
    rig.shows("off all the same", |bulb| bulb["power_level"] == 0).await;
    rig.link.set(Fault::default());
    let next = command(&rig.other, json!({"on": true}), 20_000).await;
    assert_eq!(states(&next), LIFE, "{next}");
    // What came late changed nothing about how it ended, on either node.
    let path = format!("/api/v1/commands/{}", late["id"].as_str().unwrap());
    for node in [&rig.owner, &rig.other] {
        let now = node.client().get(&path).await.unwrap().success().unwrap();
        assert_eq!(now["state"], "timed_out", "{now}");
        // The owner's word stands, and takes the place of one for want of it.
        assert!(now["reason"] == late["reason"] || now["reason"].as_str().unwrap().contains(word), "{now}");
        let bulb = node.fields(BULB).await.unwrap();
        assert_ne!(bulb["reported"]["command"], late["id"], "{bulb}");
    }
    assert!(rig.owner.log().contains(word), "{}", rig.owner.log());
}

#[tokio::test]
async fn two_bulbs_with_one_serial_are_told_in_the_log_over_the_api_and_on_the_command_line() {
    let (one, twin) =
        (Emulator::start(&[COLOR_BULB]).await.unwrap(), Emulator::start(&[COLOR_BULB]).await.unwrap());
    let places = [one.address().to_string(), twin.address().to_string()];
    let config = format!(
        "[adapters.lifx]\naddresses = {places:?}\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n"
    );
    let node = plan("one", &config).start().await.unwrap();
    wait_until("the device has a note", PATIENCE, async || Ok(node.fields(BULB).await?["note"].is_string()))
        .await
        .unwrap();
    let note = node.fields(BULB).await.unwrap()["note"].as_str().unwrap().to_owned();
    assert!(places.iter().all(|place| note.contains(place)) && note.contains(SERIAL), "{note}");
    let shown = node.cli(&["device", "show", BULB]).await.unwrap().ok().unwrap().stdout;
    assert!(shown.contains(&note), "{shown}");
    assert!(node.log().contains("two LIFX devices have one serial number"), "{}", node.log());
    assert_eq!(command(&node, json!({"on": false}), 20_000).await["state"], "confirmed");
}

#[tokio::test]
async fn a_slider_never_shows_a_report_of_an_older_command_after_one_of_a_newer() {
    let rig = Rig::new().await;
    let token = rig.other.token("operator").await.unwrap();
    let client = rig.other.web(Some(&token)).await.unwrap();
    let mut observer = client.watch().await.unwrap();
    observer.subscribe(&["device/"], None).await.unwrap();
    let mut slider = client.watch().await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(33));
    let steps = 45;
    for step in 1..=steps {
        pace.tick().await;
        let change = json!({"brightness": step * 2});
        let message =
            json!({"type": "command", "ref": step, "device": BULB, "change": change, "deadline_ms": 20_000});
        slider.say(&message).await.unwrap();
    }
    // The ids by the slider's own references.
    let mut ids = vec![String::new(); steps + 1];
    while ids.iter().skip(1).any(String::is_empty) {
        let message = slider.until("the commands", |message| message["type"] == "command").await.unwrap();
        let step = usize::try_from(message["ref"].as_u64().unwrap()).unwrap();
        ids[step] = message["command"]["id"].as_str().unwrap().to_owned();
    }
    let mut newest = 0;
    while newest < steps {
        let message = observer.next().await.unwrap();
        let reported = &message["object"]["fields"]["reported"]["command"];
        let Some(step) = ids.iter().position(|id| !id.is_empty() && reported == id.as_str()) else {
            continue;
        };
        assert!(step >= newest, "a report of step {step} after one of step {newest}");
        newest = step;
    }
    let brightness = rig.emulator.device(SERIAL).await.unwrap()["color"]["brightness"].as_u64().unwrap();
    assert!(brightness.abs_diff(90 * 65_535 / 100) < 700, "{brightness}");
}

#[tokio::test]
async fn killing_the_owner_moves_the_bulb_to_the_survivor() {
    let Rig { emulator, link: _link, mut owner, other: survivor, .. } = Rig::new().await;
    let me = survivor.id().await.unwrap();
    let before = command(&survivor, json!({"on": true}), 60_000).await;
    assert_eq!(before["state"], "confirmed", "{before}");
    owner.kill().await.unwrap();
    wait_until("a command to the survivor is confirmed", PATIENCE, async || {
        Ok(command(&survivor, json!({"on": false}), 2_000).await["state"] == "confirmed")
    })
    .await
    .unwrap();
    assert_eq!(emulator.device(SERIAL).await.unwrap()["power_level"], 0);
    let ended = command(&survivor, json!({"on": true}), 20_000).await;
    assert_eq!(ended["state"], "confirmed", "{ended}");
    assert!(me.starts_with(&owner_of(&survivor, &ended).await), "the survivor owns it");

    owner.start().await.unwrap();
    survivor.sees(&owner, "alive").await.unwrap();
    let ended = command(&owner, json!({"on": false}), 20_000).await;
    assert_eq!(ended["state"], "confirmed", "{ended}");
    // What ended once stays as it ended, though the owner that said so has forgotten it.
    let path = format!("/api/v1/commands/{}", before["id"].as_str().unwrap());
    for node in [&survivor, &owner] {
        wait_until("it knows how it ended", PATIENCE, async || {
            let answer = node.client().get(&path).await?.success()?;
            Ok(answer["state"] == "confirmed")
        })
        .await
        .unwrap();
    }
}
