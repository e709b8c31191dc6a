//! Nodes that reach the same bulbs, and what is asked of them.

use std::collections::BTreeSet;

use hearth_tests::{
    daemon::{Daemon, Observer, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator},
};
use serde_json::{Value, json};

/// What the bulbs are called where nobody named them.
pub(crate) const NAMES: [&str; 3] = ["lifx-d073d5000001", "lifx-d073d5000002", "lifx-d073d5000003"];

pub(crate) fn serial(bulb: usize) -> &'static str {
    &NAMES[bulb][5..]
}

/// A node that reaches the bulbs and does not know the time.
pub(crate) fn plan(name: &str, emulator: &Emulator) -> Plan {
    let config = format!(
        "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 1\n",
        emulator.address()
    );
    Plan::new(name).config(config)
}

/// So many bulbs, all off, and nodes that reach them and know the time.
pub(crate) async fn home(bulbs: usize, names: &[&str]) -> (Emulator, Vec<Daemon>) {
    let emulator = Emulator::start(&vec![COLOR_BULB; bulbs]).await.unwrap();
    for bulb in 0..bulbs {
        set(&emulator, bulb, false).await;
    }
    let mut nodes: Vec<Daemon> = Vec::new();
    for name in names {
        let plan = plan(name, &emulator).variable("HEARTH_CLOCK", "trusted");
        let node = match nodes.first() {
            Some(first) => first.joined_by(plan).await.unwrap(),
            None => plan.start().await.unwrap(),
        };
        nodes.push(node);
    }
    for one in &nodes {
        for other in nodes.iter().filter(|other| other.name() != one.name()) {
            one.sees(other, "alive").await.unwrap();
        }
        for bulb in 0..bulbs {
            reaches(one, bulb).await;
        }
    }
    (emulator, nodes)
}

/// The node has found the bulb, and knows how it is.
pub(crate) async fn reaches(node: &Daemon, bulb: usize) {
    let reach = format!("reach.{}", &node.id().await.unwrap()[..16]);
    wait_until(&format!("{} reaches bulb {bulb}", node.name()), PATIENCE, async || {
        let fields = node.fields(&format!("device/{}", NAMES[bulb])).await?;
        let is_known =
            fields["availability"]["state"] == "online" && fields["reported"]["value"]["on"].is_boolean();
        Ok(is_known && !fields[&reach].is_null())
    })
    .await
    .unwrap();
}

/// Turns a bulb on or off, as its own app would.
pub(crate) async fn set(emulator: &Emulator, bulb: usize, on: bool) {
    let level = if on { 65_535 } else { 0 };
    emulator.set(serial(bulb), &json!({ "power_level": level })).await.unwrap();
}

/// Dims a bulb, as its own app would.
pub(crate) async fn dim(emulator: &Emulator, bulb: usize, percent: u32) {
    let brightness = 65_535 * percent / 100;
    let color = json!({"hue": 0, "saturation": 0, "brightness": brightness, "kelvin": 3_500});
    emulator.set(serial(bulb), &json!({ "color": color })).await.unwrap();
}

pub(crate) async fn is_on(emulator: &Emulator, bulb: usize) -> bool {
    emulator.device(serial(bulb)).await.unwrap()["power_level"] != 0
}

pub(crate) async fn shows(emulator: &Emulator, bulb: usize, on: bool) {
    wait_until(&format!("bulb {bulb} is {on}"), PATIENCE, async || Ok(is_on(emulator, bulb).await == on))
        .await
        .unwrap();
}

/// Waits until a node has heard whether a bulb is on.
pub(crate) async fn hears(node: &Daemon, bulb: usize, on: bool) {
    wait_until(&format!("{} hears that bulb {bulb} is {on}", node.name()), PATIENCE, async || {
        Ok(node.fields(&format!("device/{}", NAMES[bulb])).await?["reported"]["value"]["on"] == on)
    })
    .await
    .unwrap();
}

/// An action: a bulb is turned on or off.
pub(crate) fn turn(bulb: usize, on: bool) -> Value {
    json!({"device": NAMES[bulb], "change": {"on": on}, "deadline": "40s"})
}

/// Makes an automation and waits until every node knows it.
pub(crate) async fn put(nodes: &[Daemon], name: &str, program: Value) -> Value {
    let path = format!("/api/v1/automations/{name}");
    let made = nodes[0].client().send("PUT", &path, Some(&program)).await.unwrap().success().unwrap();
    let whole = nodes[0].fields(&format!("automation/{name}")).await.unwrap();
    for node in nodes {
        wait_until(&format!("{} knows {name}", node.name()), PATIENCE, async || {
            let fields = node.fields(&format!("automation/{name}")).await?;
            let is_same =
                ["triggers", "conditions", "actions", "mode"].iter().all(|of| fields[of] == whole[of]);
            Ok(is_same && !show(node, name).await["program"].is_null())
        })
        .await
        .unwrap();
    }
    made
}

/// An automation as a node shows it; null when it knows none.
pub(crate) async fn show(node: &Daemon, name: &str) -> Value {
    let answer = node.client().get(&format!("/api/v1/automations/{name}")).await.unwrap();
    if answer.status == 200 { answer.json().unwrap() } else { Value::Null }
}

pub(crate) async fn publish(node: &Daemon, topic: &str) {
    let body = json!({"topic": topic, "data": {"by": "test"}});
    node.client().send("POST", "/api/v1/events", Some(&body)).await.unwrap().success().unwrap();
}

/// Waits until a node shows so many runs in these states, the latest first; answers with them.
pub(crate) async fn runs(node: &Daemon, name: &str, states: &[&str]) -> Vec<Value> {
    let mut shown = Value::Null;
    let what = format!("{} shows runs {states:?} of {name}", node.name());
    let done = wait_until(&what, PATIENCE, async || {
        shown = show(node, name).await;
        let runs = shown["runs"].as_array().cloned().unwrap_or_default();
        Ok(runs.iter().map(|run| run["state"].as_str().unwrap_or_default()).eq(states.iter().copied()))
    });
    if let Err(late) = done.await {
        panic!("{late:#}: {shown:#}");
    }
    shown["runs"].as_array().unwrap().clone()
}

/// Waits until a node shows an automation in a state; answers with why.
pub(crate) async fn state(node: &Daemon, name: &str, state: &str) -> String {
    let mut shown = Value::Null;
    let what = format!("{} shows {name} as {state}", node.name());
    let done = wait_until(&what, PATIENCE, async || {
        shown = show(node, name).await;
        Ok(shown["state"] == state)
    });
    if let Err(late) = done.await {
        panic!("{late:#}: {shown:#}");
    }
    shown["reason"].as_str().unwrap_or_default().to_owned()
}

/// The lines of a run's trace: the step and how it went.
pub(crate) fn lines(run: &Value) -> Vec<(&str, &str)> {
    let lines = run["trace"].as_array().unwrap();
    lines.iter().map(|line| (line["step"].as_str().unwrap(), line["outcome"].as_str().unwrap())).collect()
}

/// Whoever hears all events, and counts them.
pub(crate) struct Listener(Observer);

impl Listener {
    pub(crate) async fn new(node: &Daemon) -> Self {
        let mut observer = node.client().watch().await.unwrap();
        observer.subscribe(&["event/"], None).await.unwrap();
        Self(observer)
    }

    /// The topics of all events until one of this topic: each event once, sorted by nothing but when it was heard.
    pub(crate) async fn until(&mut self, topic: &str) -> Vec<String> {
        let (mut heard, mut ids) = (Vec::new(), BTreeSet::new());
        loop {
            let message =
                self.0.next().await.unwrap_or_else(|late| panic!("{topic}: {late:#}; heard {heard:?}"));
            let id = message["object"]["id"].as_str().unwrap_or_default().to_owned();
            let Some((name, _)) = id.strip_prefix("event/").and_then(|name| name.rsplit_once(':')) else {
                continue;
            };
            let name = name.to_owned();
            if !ids.insert(id) {
                continue;
            }
            if name == topic {
                return heard;
            }
            heard.push(name);
        }
    }
}
