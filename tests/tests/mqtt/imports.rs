//! Devices of others.

use super::*;
use hearth_tests::fakes::zigbee::{CONFIG, STATE, announcement};

async fn with_bulb(settings: Value) -> (Mosquitto, Bulb, Running) {
    let broker = Mosquitto::start().await.unwrap();
    let bulb_there = Bulb::start(&broker).await.unwrap();
    let mut rig = start(&broker, settings);
    rig.found(&bulb()).await;
    rig.own(&bulb(), true).await;
    rig.available(&bulb(), Availability::Online).await;
    (broker, bulb_there, rig)
}

#[tokio::test]
async fn a_bulb_is_found_told_and_commanded_and_what_it_shows_confirms() {
    let (_broker, zigbee, mut rig) = with_bulb(json!({})).await;
    // Nothing of its state is kept: Zigbee2MQTT was asked for it.
    assert_eq!(state(&mut rig).await.is_on(), Some(false));
    let command = rig.command(&bulb(), light(json!({ "on": true, "brightness": 32_768 })), WITHIN).await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    assert_eq!(zigbee.state()["brightness"], 127);
    let command = rig
        .command(&bulb(), light(json!({ "color": { "mode": "temperature", "kelvin": 2_700 } })), WITHIN)
        .await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    assert_eq!(zigbee.state()["color_temp"], 370);
    // The sensor of the same device belongs to it.
    zigbee.say(STATE, r#"{"state":"ON","power":7.25}"#).await.unwrap();
    assert_eq!(
        rig.next("the power", |reading| match reading {
            Reading::Measured { values, .. } =>
                values.get("power").filter(|p| **p != Measurement::Number(0.4)).cloned(),
            _ => None,
        })
        .await,
        Measurement::Number(7.25)
    );
    rig.stop().await;
}

#[tokio::test]
async fn what_the_broker_kept_does_not_confirm_and_a_bulb_that_stays_silent_times_out() {
    let (_broker, zigbee, mut rig) = with_bulb(json!({})).await;
    state(&mut rig).await;
    zigbee.set_mood(Mood::Silent);
    let before = rig.seen.len();
    let command = rig.command(&bulb(), light(json!({ "on": true })), IN_VAIN).await;
    // Kept by the broker from before, as far as anybody can tell who comes now.
    zigbee.tell("kept/elsewhere", "x").await.unwrap();
    let stage = rig.end_of(command).await;
    assert!(matches!(&stage, Stage::TimedOut { reason } if reason.contains(STATE)), "{stage:?}");
    assert!(
        !rig.seen[before..]
            .iter()
            .any(|reading| matches!(reading, Reading::Reported { command: Some(_), .. }))
    );
    rig.stop().await;
}

#[tokio::test]
async fn an_announcement_that_is_taken_back_loses_the_device_and_a_thief_gets_nothing() {
    let (broker, zigbee, mut rig) = with_bulb(json!({})).await;
    let mut thief = announcement();
    thief["command_topic"] = json!("thief/set");
    let mut spy = broker.client().await.unwrap();
    spy.subscribe("thief/#").await.unwrap();
    zigbee.tell("homeassistant/light/thief/config", thief.to_string()).await.unwrap();
    let command = rig.command(&bulb(), light(json!({ "on": true })), WITHIN).await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    spy.publish("thief/end", "", false).await.unwrap();
    let first = spy.next("anything", |message| Some(message.topic.clone())).await.unwrap();
    assert_eq!(first, "thief/end", "the thief was given a command");

    // The name is free when its owner gives it up, and who asked for it in vain is heard again.
    zigbee.tell(CONFIG, "").await.unwrap();
    let command = loop {
        let command = rig.command(&bulb(), light(json!({ "on": true })), WITHIN).await;
        let given = tokio::time::timeout(Duration::from_millis(500), spy.at("thief/set")).await;
        if given.is_ok() {
            break command;
        }
    };
    rig.next("that it was given", |reading| match reading {
        Reading::Progress { command: of, .. } if *of == command => Some(()),
        _ => None,
    })
    .await;
    zigbee.tell("homeassistant/light/thief/config", "").await.unwrap();
    zigbee.tell("homeassistant/sensor/0x0017880104e45517/power/config", "").await.unwrap();
    let reason = rig
        .next("that it is lost", |reading| match reading {
            Reading::Lost { device, reason } if *device == bulb() => Some(reason.clone()),
            _ => None,
        })
        .await;
    assert!(reason.contains("taken back"), "{reason}");
    rig.stop().await;
}

/// Another bulb of the same Zigbee2MQTT.
fn second() -> (DeviceId, Value) {
    let text = announcement().to_string().replace(SERIAL, "0x00178801aaaaaaaa");
    let id = DeviceId::new("mqtt-0x00178801aaaaaaaa-light-zigbee2mqtt").unwrap();
    (id, serde_json::from_str(&text.replace(STATE, "zigbee2mqtt/other")).unwrap())
}

/// What the broker keeps at a topic that is listened to since long is given to who comes now.
#[tokio::test]
async fn a_bulb_that_joins_later_is_online_as_soon_as_it_is_announced() {
    let (_broker, zigbee, mut rig) = with_bulb(json!({})).await;
    let (other, announced) = second();
    zigbee.tell("zigbee2mqtt/other/availability", r#"{"state":"online"}"#).await.unwrap();
    zigbee.tell("homeassistant/light/0x00178801aaaaaaaa/light/config", announced.to_string()).await.unwrap();
    rig.owning(&other).await;
    let offline = |reading: &Reading| {
        matches!(reading, Reading::Availability { availability: Availability::Offline, .. })
    };
    assert!(!rig.seen.iter().any(offline), "{:#?}", rig.seen);
    rig.stop().await;
}

#[tokio::test]
async fn a_bulb_that_is_announced_anew_stays_what_it_is() {
    let (_broker, zigbee, mut rig) = with_bulb(json!({})).await;
    let on = rig.change(&bulb(), light(json!({ "on": true }))).await;
    assert_eq!(on, Stage::Confirmed);
    let before = rig.seen.len();
    let mut renamed = announcement();
    renamed["device"]["name"] = json!("Reading lamp");
    zigbee.tell(CONFIG, renamed.to_string()).await.unwrap();
    let name = |reading: &Reading| match reading {
        Reading::Found { device } => Some(device.name.clone()),
        _ => None,
    };
    assert_eq!(rig.next("its name", name).await, "Reading lamp");
    // Asked for what it shows already, it says so, and no more than that changed.
    let again = rig.change(&bulb(), light(json!({ "on": true, "brightness": 20_000 }))).await;
    assert_eq!(again, Stage::Confirmed);
    let changed = |reading: &Reading| matches!(reading, Reading::Availability { .. } | Reading::Lost { .. });
    assert!(!rig.seen[before..].iter().any(changed), "{:#?}", &rig.seen[before..]);
    rig.stop().await;
}

/// While it was away somebody used the switch on the wall.
#[tokio::test]
async fn a_bulb_that_comes_back_is_asked_what_it_shows() {
    let (_broker, zigbee, mut rig) = with_bulb(json!({})).await;
    let shows = |on: bool| move |state: &State| state.is_on() == Some(on);
    rig.refresh(&bulb()).await;
    rig.reports(&bulb(), shows(false)).await;
    zigbee.available(false).await.unwrap();
    rig.available(&bulb(), Availability::Offline).await;
    zigbee.shows("state", json!("ON"));
    zigbee.available(true).await.unwrap();
    rig.reports(&bulb(), shows(true)).await;
    rig.stop().await;
}

/// What Tasmota announced with its option 19, and what ESPHome does, side by side.
#[tokio::test]
async fn a_tasmota_plug_and_an_esphome_light_work_as_they_announce() {
    let broker = Mosquitto::start().await.unwrap();
    let mut devices = broker.client().await.unwrap();
    let plug = json!({
        "name": "Plug", "stat_t": "~tele/STATE", "avty_t": "~tele/LWT", "pl_avail": "Online", "pl_not_avail": "Offline",
        "cmd_t": "~cmnd/POWER", "pl_off": "OFF", "pl_on": "ON", "val_tpl": "{{value_json.POWER}}",
        "uniq_id": "1A2B3C_RL_1", "~": "plug/", "dev": { "ids": ["1A2B3C"], "name": "Plug", "mf": "Tasmota" }
    });
    let strip = json!({
        "schema": "json", "sup_clrm": ["rgb"], "brightness": true, "effect": true, "fx_list": ["None", "Rainbow"],
        "name": "Strip", "stat_t": "desk/light/strip/state", "cmd_t": "desk/light/strip/command", "avty_t": "desk/status",
        "uniq_id": "a4cf12-light-strip", "dev": { "ids": "a4cf12", "name": "desk", "sw": "esphome", "mf": "Espressif" }
    });
    devices.publish("homeassistant/switch/1A2B3C_RL_1/config", plug.to_string(), true).await.unwrap();
    devices.publish("homeassistant/light/desk/strip/config", strip.to_string(), true).await.unwrap();
    devices.publish("plug/tele/LWT", "Online", true).await.unwrap();
    devices.publish("desk/status", "online", true).await.unwrap();
    devices.publish("desk/light/strip/state", r#"{"state":"OFF"}"#, true).await.unwrap();
    devices.subscribe("plug/cmnd/#").await.unwrap();
    devices.subscribe("desk/light/strip/command").await.unwrap();
    let mut rig = start(&broker, json!({}));
    let (relay, lamp) =
        (DeviceId::new("mqtt-1a2b3c-rl-1").unwrap(), DeviceId::new("mqtt-a4cf12-light-strip").unwrap());
    let mut found = BTreeMap::new();
    while found.len() < 2 {
        let device = rig.next("both", |reading| match reading {
            Reading::Found { device } => Some(device.clone()),
            _ => None,
        });
        let device = device.await;
        found.insert(device.id.clone(), device);
    }
    rig.own(&relay, true).await;
    rig.own(&lamp, true).await;

    let command = rig.command(&relay, Change::Switch { on: true }, WITHIN).await;
    assert_eq!(devices.at("plug/cmnd/POWER").await.unwrap(), "ON");
    devices.publish("plug/tele/STATE", r#"{"POWER":"ON"}"#, false).await.unwrap();
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);

    let command = rig
        .command(&lamp, light(json!({ "on": true, "effect": "Rainbow", "transition_ms": 500 })), WITHIN)
        .await;
    let told = devices.at("desk/light/strip/command").await.unwrap();
    assert_eq!(told, r#"{"effect":"Rainbow","state":"ON","transition":0.5}"#);
    devices
        .publish("desk/light/strip/state", r#"{"state":"ON","brightness":255,"effect":"Rainbow"}"#, true)
        .await
        .unwrap();
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    rig.stop().await;
}

#[tokio::test]
async fn thousands_of_announcements_and_a_huge_message_leave_the_adapter_at_work() {
    let (broker, zigbee, mut rig) = with_bulb(json!({})).await;
    let flood = broker.client().await.unwrap();
    for number in 0..3_000 {
        let body = json!({ "command_topic": format!("f/{number}"), "state_topic": format!("s/{number}"), "unique_id": format!("f{number}") });
        flood
            .publish(&format!("homeassistant/switch/f{number}/config"), body.to_string(), true)
            .await
            .unwrap();
        rig.take_in();
    }
    zigbee.tell("homeassistant/light/huge/config", vec![b' '; 100 * 1_024 * 1_024]).await.unwrap();
    let command = rig.command(&bulb(), light(json!({ "on": true })), WITHIN).await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    let seen = rig.stop().await;
    let found = seen.iter().filter(|reading| matches!(reading, Reading::Found { .. })).count();
    assert!(found < 2_100, "{found} devices");
}
