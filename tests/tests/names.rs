//! What people do with their devices: give them names, put them into areas and groups, forget them and find them again,
//! switch adapters off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use hearth_tests::{
    daemon::{Daemon, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator, WHITE_BULB},
};
use serde_json::Value;

const ONE: &str = "device/lifx-d073d5000001";
const TWO: &str = "device/lifx-d073d5000002";

async fn home() -> (Emulator, Daemon) {
    let emulator = Emulator::start(&[COLOR_BULB, WHITE_BULB]).await.unwrap();
    let config = format!(
        "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\nbind = \"127.0.0.1:0\"\ndiscover_s = 1\npoll_s = 0.5\n",
        emulator.address()
    );
    let node = Plan::new("one").config(config).start().await.unwrap();
    for bulb in [ONE, TWO] {
        until(&node, bulb, "online").await;
    }
    (emulator, node)
}

async fn until(node: &Daemon, device: &str, state: &str) {
    let what = format!("{device} is {state}");
    let is =
        async || Ok(node.fields(device).await.is_ok_and(|fields| fields["availability"]["state"] == state));
    wait_until(&what, PATIENCE, is).await.unwrap();
}

async fn json(node: &Daemon, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let ended = node.cli(&args).await.unwrap().ok().unwrap();
    serde_json::from_str(&ended.stdout).unwrap()
}

#[tokio::test]
async fn a_lamp_goes_by_its_name_and_by_its_area() {
    let (_emulator, node) = home().await;
    json(&node, &["device", "rename", ONE, "Desk lamp"]).await;
    json(&node, &["device", "move", "desk lamp", "Office"]).await;
    json(&node, &["device", "move", TWO, "office"]).await;
    assert_eq!(json(&node, &["light", "Desk lamp", "on", "--deadline", "20s"]).await["state"], "confirmed");
    let both = json(&node, &["light", "office", "off", "--deadline", "20s"]).await;
    let states: Vec<_> =
        both["commands"].as_array().unwrap().iter().map(|command| &command["state"]).collect();
    assert_eq!(states, ["confirmed", "confirmed"], "{both}");
    let shown = node.cli(&["device", "show", "Desk lamp"]).await.unwrap().ok().unwrap().stdout;
    assert!(shown.contains("Office") && shown.contains("off"), "{shown}");
    json(&node, &["device", "rename", "Desk lamp"]).await;
    let gone = node.cli(&["light", "Desk lamp", "on"]).await.unwrap();
    assert_eq!(gone.code, 5, "{gone:?}");
    let long = node.cli(&["device", "rename", ONE, &"x".repeat(65)]).await.unwrap();
    assert!(long.code == 2 && long.stderr.contains("1 to 64"), "{long:?}");
}

#[tokio::test]
async fn a_group_is_commanded_as_one_and_says_who_could_not() {
    let (_emulator, node) = home().await;
    json(&node, &["group", "add", "evening", ONE, TWO]).await;
    let dim = json(&node, &["light", "evening", "on", "--brightness", "30", "--deadline", "20s"]).await;
    assert_eq!(dim["commands"].as_array().unwrap().len(), 2, "{dim}");
    // The second bulb knows one colour temperature and no colours.
    let red = node.cli(&["light", "evening", "--color", "red", "--deadline", "20s", "--json"]).await.unwrap();
    let answer: Value = serde_json::from_str(&red.stdout).unwrap();
    assert_eq!(red.code, 6, "{red:?}");
    assert_eq!(
        (&answer["refused"][0]["device"], &answer["commands"][0]["state"]),
        (&TWO.into(), &"confirmed".into())
    );
    // The same over the WebSocket.
    let mut observer = node.client().watch().await.unwrap();
    let off = serde_json::json!({"type": "command", "device": "evening", "change": {"on": false}, "deadline_ms": 20_000});
    observer.say(&off).await.unwrap();
    let all = observer.next().await.unwrap();
    assert_eq!((&all["type"], &all["group"]), (&"commands".into(), &"group/evening".into()), "{all}");
    let mut open = all["commands"].as_array().unwrap().clone();
    assert_eq!(open.len(), 2, "{all}");
    while !open.is_empty() {
        let is_confirmed = |message: &Value| message["command"]["state"] == "confirmed";
        let message = observer.until("a lamp is off", is_confirmed).await.unwrap();
        open.retain(|command| command["id"] != message["command"]["id"]);
    }
    json(&node, &["group", "remove", "evening", ONE]).await;
    let groups = node.cli(&["group", "list"]).await.unwrap().ok().unwrap().stdout;
    assert!(groups.contains("lifx-d073d5000002") && !groups.contains("lifx-d073d5000001"), "{groups}");
    json(&node, &["group", "remove", "evening"]).await;
    assert_eq!(node.cli(&["light", "evening", "on"]).await.unwrap().code, 5);
}

#[tokio::test]
async fn a_device_is_forgotten_with_its_name_and_found_again() {
    let (_emulator, node) = home().await;
    json(&node, &["device", "rename", ONE, "Desk lamp"]).await;
    json(&node, &["device", "forget", "Desk lamp"]).await;
    assert_eq!(node.cli(&["light", "Desk lamp", "on"]).await.unwrap().code, 5);
    json(&node, &["adapter", "restart", "lifx"]).await;
    until(&node, ONE, "online").await;
    let fields = node.fields(ONE).await.unwrap();
    assert!(fields.get("name").is_none_or(Value::is_null), "{fields}");
    assert_eq!(json(&node, &["light", ONE, "on", "--deadline", "20s"]).await["state"], "confirmed");
}

#[tokio::test]
async fn an_adapter_is_given_to_a_node_that_has_just_joined_and_to_none_that_is_not_there() {
    let one = Daemon::found("one").await.unwrap();
    let invite = one.invite().await.unwrap();
    let _two = Plan::new("two").join(&invite).start().await.unwrap();
    // Nothing was waited for: it is a member by now, and what it says of itself may be on its way.
    let view = json(&one, &["adapter", "set", "hue", "--nodes", "two"]).await;
    assert_eq!(view["nodes"].as_array().unwrap().len(), 1, "{view}");
    let none = one.cli(&["adapter", "set", "hue", "--nodes", "two,cellar"]).await.unwrap();
    assert!(none.code == 5 && none.stderr.contains("cellar"), "{none:?}");
    assert!(none.stderr.contains("one") && none.stderr.contains("two"), "it lists those that are: {none:?}");
}

#[tokio::test]
async fn an_adapter_is_switched_off_on_and_changed_while_the_node_runs() {
    let (_emulator, node) = home().await;
    for looks_around in ["iio", "onewire"] {
        let on = &json(&node, &["adapter", "show", looks_around]).await["on"];
        assert_eq!(on[0]["state"], "off", "the tests leave the machine alone: {on}");
    }
    json(&node, &["adapter", "disable", "lifx"]).await;
    until(&node, ONE, "stale").await;
    let list = node.cli(&["adapter", "list"]).await.unwrap().ok().unwrap().stdout;
    assert!(list.contains("switched off for the household"), "{list}");
    json(&node, &["adapter", "enable", "lifx"]).await;
    until(&node, ONE, "online").await;
    let wrong = node.cli(&["adapter", "set", "lifx", "poll_s=0"]).await.unwrap();
    assert!(wrong.code != 0 && wrong.stderr.contains("poll_s"), "{wrong:?}");
    let unknown = node.cli(&["adapter", "set", "lifx", "pol_s=1"]).await.unwrap();
    assert!(unknown.stderr.contains("pol_s") && unknown.stderr.contains("poll_s"), "{unknown:?}");
    let none = node.cli(&["adapter", "show", "zigbee"]).await.unwrap();
    assert!(none.code == 5 && none.stderr.contains("lifx"), "{none:?}");
    let clear = node.cli(&["put", "adapter/lifx", "settings.poll_s=1"]).await.unwrap();
    assert_ne!(clear.code, 0, "settings are checked before they are written: {clear:?}");
    json(&node, &["adapter", "forget", "lifx"]).await;
    assert_eq!(json(&node, &["devices"]).await["devices"], Value::Array(Vec::new()));
}
