//! What Zigbee2MQTT, Tasmota and ESPHome announce, as their documentation and sources have it, kind by kind.
//!
//! Sources: <https://www.zigbee2mqtt.io/guide/usage/integrations/home_assistant.html>,
//! <https://tasmota.github.io/docs/Home-Assistant/> (`SetOption19`, up to version 11),
//! <https://esphome.io/components/mqtt>, <https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>.

use super::*;
use hearth_tests::fakes::mosquitto::Client;

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

/// A broker, and somebody there who announces these and says that they are there.
async fn announced(announcements: &[(&str, Value)], there: (&str, &str)) -> (Mosquitto, Client) {
    let broker = Mosquitto::start().await.unwrap();
    let devices = broker.client().await.unwrap();
    for (topic, body) in announcements {
        let topic = format!("homeassistant/{topic}/config");
        devices.publish(&topic, body.to_string(), true).await.unwrap();
    }
    devices.publish(there.0, there.1, true).await.unwrap();
    (broker, devices)
}

/// A bulb of five channels as Tasmota 9 announced it: a topic for each thing.
fn tasmota_bulb() -> Value {
    json!({
        "name": "Bulb", "stat_t": "tele/bulb/STATE", "avty_t": "tele/bulb/LWT", "pl_avail": "Online",
        "pl_not_avail": "Offline", "uniq_id": "A1B2C3_LI_1", "dev": { "ids": ["A1B2C3"] },
        "cmd_t": "cmnd/bulb/POWER", "val_tpl": "{{value_json.POWER}}", "pl_off": "OFF", "pl_on": "ON",
        "bri_cmd_t": "cmnd/bulb/Dimmer", "bri_stat_t": "tele/bulb/STATE", "bri_scl": 100,
        "on_cmd_type": "brightness", "bri_val_tpl": "{{value_json.Dimmer}}",
        "rgb_cmd_t": "cmnd/bulb/Color2", "rgb_stat_t": "tele/bulb/STATE",
        "rgb_val_tpl": "{{value_json.Color.split(',')[0:3]|join(',')}}",
        "clr_temp_cmd_t": "cmnd/bulb/CT", "clr_temp_stat_t": "tele/bulb/STATE",
        "clr_temp_val_tpl": "{{value_json.CT}}"
    })
}

/// Such a bulb, and an adapter that owns it.
async fn tasmota() -> (Mosquitto, Client, Running, DeviceId) {
    let there = ("tele/bulb/LWT", "Online");
    let (broker, bulb) = announced(&[("light/A1B2C3_LI_1", tasmota_bulb())], there).await;
    bulb.subscribe("cmnd/bulb/#").await.unwrap();
    let mut rig = start(&broker, json!({}));
    let lamp = id("mqtt-a1b2c3-li-1");
    rig.owning(&lamp).await;
    (broker, bulb, rig, lamp)
}

#[tokio::test]
async fn a_tasmota_bulb_of_the_default_schema_is_commanded_topic_by_topic() {
    let (_broker, mut bulb, mut rig, lamp) = tasmota().await;
    let state = |text: &str| format!(r#"{{"Time":"2026-11-30T08:00:00","Uptime":"0T01:00:10",{text}}}"#);
    bulb.publish(
        "tele/bulb/STATE",
        state(r#""POWER":"OFF","Dimmer":100,"Color":"255,255,255,0,0","CT":153"#),
        false,
    )
    .await
    .unwrap();
    rig.reports(&lamp, |state| state.is_on() == Some(false)).await;
    let steps = [
        (
            json!({ "on": true, "brightness": 26_214 }),
            ("Dimmer", "40"),
            r#""POWER":"ON","Dimmer":40,"Color":"102,102,102,0,0","CT":153"#,
        ),
        (
            json!({ "color": { "mode": "temperature", "kelvin": 4_000 } }),
            ("CT", "250"),
            r#""POWER":"ON","Dimmer":40,"Color":"0,0,0,57,45","CT":250"#,
        ),
        (
            json!({ "on": false }),
            ("POWER", "OFF"),
            r#""POWER":"OFF","Dimmer":40,"Color":"0,0,0,57,45","CT":250"#,
        ),
    ];
    for (change, (topic, payload), then) in steps {
        let command = rig.command(&lamp, light(change.clone()), WITHIN).await;
        assert_eq!(bulb.at(&format!("cmnd/bulb/{topic}")).await.unwrap(), payload, "{change}");
        bulb.publish("tele/bulb/STATE", state(then), false).await.unwrap();
        assert_eq!(rig.end_of(command).await, Stage::Confirmed, "{change}");
    }
    bulb.publish("tele/bulb/LWT", "Offline", true).await.unwrap();
    let reason = rig.available(&lamp, Availability::Offline).await;
    assert!(reason.contains("tele/bulb/LWT"), "{reason}");
    rig.stop().await;
}

#[tokio::test]
async fn a_tasmota_bulb_of_the_default_schema_takes_a_colour() {
    let (_broker, mut bulb, mut rig, lamp) = tasmota().await;
    let on = r#"{"POWER":"ON","Dimmer":100,"Color":"255,255,255,0,0","CT":153}"#;
    bulb.publish("tele/bulb/STATE", on, false).await.unwrap();
    rig.reports(&lamp, |state| state.is_on() == Some(true)).await;
    let red = json!({ "color": { "mode": "color", "x": 42_000, "y": 21_000 } });
    let command = rig.command(&lamp, light(red), WITHIN).await;
    let told = bulb.at("cmnd/bulb/Color2").await.unwrap();
    let channels: Vec<u8> = told.split(',').map(|part| part.parse().unwrap()).collect();
    assert!(channels.len() == 3 && channels[0] > 200 && channels[1].max(channels[2]) < 80, "{told}");
    let shown = format!(r#"{{"POWER":"ON","Dimmer":100,"Color":"{told},0,0","CT":153}}"#);
    bulb.publish("tele/bulb/STATE", shown, false).await.unwrap();
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    rig.stop().await;
}

/// One of the things that a device behind Zigbee2MQTT measures.
fn zigbee(name: &str, key: &str, more: Value) -> Value {
    let mut body = json!({
        "availability": [
            { "topic": "zigbee2mqtt/bridge/state", "value_template": "{{ value_json.state }}" },
            { "topic": format!("zigbee2mqtt/{name}/availability"), "value_template": "{{ value_json.state }}" }
        ],
        "availability_mode": "all",
        "device": {
            "identifiers": [format!("zigbee2mqtt_0x00158d0001a2b3c4_{name}")], "manufacturer": "Aqara",
            "model": "Door and window sensor", "model_id": "MCCGQ11LM", "name": name,
            "via_device": "zigbee2mqtt_bridge_0x00124b0014d9ffff"
        },
        "object_id": format!("{name}_{key}"),
        "origin": { "name": "Zigbee2MQTT", "sw": "2.6.0", "url": "https://www.zigbee2mqtt.io" },
        "state_topic": format!("zigbee2mqtt/{name}"),
        "unique_id": format!("0x00158d0001a2b3c4_{name}_{key}_zigbee2mqtt"),
        "value_template": format!("{{{{ value_json.{key} }}}}")
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A door is open when there is no contact: its "on" is false.
#[tokio::test]
async fn binary_sensors_behind_zigbee2mqtt_are_read_with_what_else_the_device_measures() {
    let door = json!({ "device_class": "door", "payload_on": false, "payload_off": true });
    let motion = json!({ "device_class": "occupancy", "payload_on": true, "payload_off": false });
    let battery = json!({
        "device_class": "battery", "entity_category": "diagnostic", "state_class": "measurement",
        "unit_of_measurement": "%"
    });
    let announcements = [
        ("binary_sensor/0x00158d0001a2b3c4/contact", zigbee("door", "contact", door)),
        ("sensor/0x00158d0001a2b3c4/battery", zigbee("door", "battery", battery)),
        ("binary_sensor/0x00158d0001a2b3c5/occupancy", zigbee("hall", "occupancy", motion)),
    ];
    let there = ("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    let (broker, devices) = announced(&announcements, there).await;
    let mut rig = start(&broker, json!({}));
    for (name, key, payload, wanted) in [
        ("door", "contact", r#"{"battery":97,"contact":true,"linkquality":120}"#, false),
        ("door", "contact", r#"{"battery":97,"contact":false,"linkquality":120}"#, true),
        ("hall", "occupancy", r#"{"occupancy":true}"#, true),
        ("hall", "occupancy", r#"{"occupancy":false}"#, false),
    ] {
        let available = format!("zigbee2mqtt/{name}/availability");
        devices.publish(&available, r#"{"state":"online"}"#, true).await.unwrap();
        let device = id(&format!("mqtt-zigbee2mqtt-0x00158d0001a2b3c4-{name}"));
        rig.found(&device).await;
        rig.own(&device, true).await;
        devices.publish(&format!("zigbee2mqtt/{name}"), payload, false).await.unwrap();
        rig.measures(&device, key, &Measurement::Truth(wanted)).await;
    }
    let battery = |reading: &Reading| match reading {
        Reading::Measured { values, .. } => values.get("battery") == Some(&Measurement::Number(97.0)),
        _ => false,
    };
    assert!(rig.seen.iter().any(battery), "{:#?}", rig.seen);
    rig.stop().await;
}

/// A binary sensor and two buttons, one of which is a setting of the board, as ESPHome announces them.
#[tokio::test]
async fn an_esphome_button_is_pressed_and_its_binary_sensor_is_read() {
    let device = json!({
        "ids": "a4cf12f03246", "name": "desk", "sw": "2026.7.0 (ESPHome)", "mdl": "nodemcuv2", "mf": "Espressif"
    });
    let announcements = [
        (
            "binary_sensor/desk/motion",
            json!({
                "dev_cla": "motion", "name": "Motion", "stat_t": "desk/binary_sensor/motion/state",
                "avty_t": "desk/status", "uniq_id": "ESPbinary_sensormotion", "dev": device
            }),
        ),
        (
            "button/desk/chime",
            json!({
                "name": "Chime", "cmd_t": "desk/button/chime/command", "avty_t": "desk/status",
                "uniq_id": "ESPbuttonchime", "dev": device
            }),
        ),
        (
            "button/desk/restart",
            json!({
                "dev_cla": "restart", "ent_cat": "config", "name": "Restart", "avty_t": "desk/status",
                "cmd_t": "desk/button/restart/command", "uniq_id": "ESPbuttonrestart", "dev": device
            }),
        ),
    ];
    let (broker, mut desk) = announced(&announcements, ("desk/status", "online")).await;
    desk.subscribe("desk/button/+/command").await.unwrap();
    let mut rig = start(&broker, json!({}));
    let chime = id("mqtt-espbuttonchime");
    rig.owning(&chime).await;
    desk.publish("desk/binary_sensor/motion/state", "ON", true).await.unwrap();
    rig.measures(&chime, "motion", &Measurement::Truth(true)).await;
    let command = rig.command(&chime, Change::Press, WITHIN).await;
    assert_eq!(desk.at("desk/button/chime/command").await.unwrap(), "PRESS");
    assert_eq!(rig.end_of(command).await, Stage::Assumed, "nobody can read back a press");
    // When a board loses its power the broker tells its last will.
    desk.publish("desk/status", "offline", true).await.unwrap();
    let reason = rig.available(&chime, Availability::Offline).await;
    assert!(reason.contains("desk/status"), "{reason}");
    let seen = rig.stop().await;
    let found = seen.iter().filter(|reading| matches!(reading, Reading::Found { .. })).count();
    assert_eq!(found, 1, "a setting is no device: {seen:#?}");
}

/// All components in one announcement.
#[tokio::test]
async fn a_device_that_is_announced_as_one_is_commanded_read_and_loses_a_component() {
    let mut kitchen = json!({
        "dev": {
            "ids": "ea334450945afc", "name": "Kitchen", "mf": "Bla electronics", "mdl": "xya", "sw": "1.0",
            "sn": "ea334450945afc", "hw": "1.0rev2"
        },
        "o": { "name": "bla2mqtt", "sw": "2.1", "url": "https://bla2mqtt.example.com/support" },
        "cmps": {
            "relay": {
                "p": "switch", "name": "Relay", "unique_id": "ea334450945afc_relay",
                "command_topic": "kitchen/relay/set", "value_template": "{{ value_json.relay }}"
            },
            "temperature": {
                "p": "sensor", "device_class": "temperature", "unit_of_measurement": "°C",
                "unique_id": "ea334450945afc_temperature", "value_template": "{{ value_json.temperature }}"
            },
            "window": {
                "p": "binary_sensor", "device_class": "window", "unique_id": "ea334450945afc_window",
                "value_template": "{{ value_json.window }}"
            }
        },
        "state_topic": "kitchen/state", "availability_topic": "kitchen/status", "qos": 1
    });
    let announcements = [("device/ea334450945afc", kitchen.clone())];
    let (broker, mut there) = announced(&announcements, ("kitchen/status", "online")).await;
    there.subscribe("kitchen/relay/set").await.unwrap();
    let mut rig = start(&broker, json!({}));
    let relay = id("mqtt-ea334450945afc-relay");
    let found = rig.owning(&relay).await;
    assert_eq!((found.manufacturer.as_str(), found.model.as_str()), ("Bla electronics", "xya"));
    assert_eq!(found.sensors.keys().collect::<Vec<_>>(), ["temperature", "window"]);
    let state = |relay: &str| format!(r#"{{"relay":"{relay}","temperature":21.5,"window":"ON"}}"#);
    there.publish("kitchen/state", state("OFF"), false).await.unwrap();
    let window = rig.next("what it measures", |reading| match reading {
        Reading::Measured { values, .. } if values["temperature"] == Measurement::Number(21.5) => {
            Some(values["window"].clone())
        }
        _ => None,
    });
    assert_eq!(window.await, Measurement::Truth(true));
    let command = rig.command(&relay, Change::Switch { on: true }, WITHIN).await;
    assert_eq!(there.at("kitchen/relay/set").await.unwrap(), "ON");
    there.publish("kitchen/state", state("ON"), false).await.unwrap();
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);

    // A component of which nothing but its platform is left is taken back.
    kitchen["cmps"]["window"] = json!({ "p": "binary_sensor" });
    there.publish("homeassistant/device/ea334450945afc/config", kitchen.to_string(), true).await.unwrap();
    let sensors = |reading: &Reading| match reading {
        Reading::Found { device } if !device.sensors.contains_key("window") => Some(device.sensors.len()),
        _ => None,
    };
    assert_eq!(rig.next("it without the window", sensors).await, 1);
    rig.stop().await;
}
