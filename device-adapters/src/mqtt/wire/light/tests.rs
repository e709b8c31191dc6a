//! Lights as Zigbee2MQTT, Tasmota and ESPHome announce and tell them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;
use crate::contract;
use crate::model::{Tolerance, Xy};

fn light(announcement: &Value) -> Light {
    Light::parse(Fields(announcement.as_object().unwrap())).unwrap()
}

fn zigbee() -> Light {
    light(&json!({
        "schema": "json", "brightness": true, "brightness_scale": 254, "effect": true,
        "effect_list": ["blink", "breathe", "stop_effect"], "min_mireds": 153, "max_mireds": 500,
        "supported_color_modes": ["xy", "color_temp"],
        "state_topic": "zigbee2mqtt/lamp", "command_topic": "zigbee2mqtt/lamp/set"
    }))
}

fn tasmota() -> Light {
    light(&json!({
        "command_topic": "cmnd/t/POWER", "state_topic": "tele/t/STATE", "value_template": "{{value_json.POWER}}",
        "brightness_command_topic": "cmnd/t/Dimmer", "brightness_state_topic": "tele/t/STATE",
        "brightness_scale": 100, "on_command_type": "brightness",
        "brightness_value_template": "{{value_json.Dimmer}}",
        "rgb_command_topic": "cmnd/t/Color2", "rgb_state_topic": "tele/t/STATE",
        "rgb_value_template": "{{value_json.Color.split(',')[0:3]|join(',')}}",
        "color_temp_command_topic": "cmnd/t/CT", "color_temp_state_topic": "tele/t/STATE",
        "color_temp_value_template": "{{value_json.CT}}"
    }))
}

fn hear(light: &Light, topic: &str, message: &str) -> Parts {
    light.told(topic, &Incoming::new(message))
}

/// Of a light that is on.
fn lit() -> Parts {
    Parts { on: Some(true), ..Parts::default() }
}

fn change(json: Value) -> LightChange {
    serde_json::from_value(json).unwrap()
}

fn sent(light: &Light, asked: Value, known: &Parts) -> Vec<(String, String)> {
    light.messages(&change(asked), known).unwrap().into_iter().map(|m| (m.topic, m.payload)).collect()
}

#[test]
fn a_zigbee_bulb_says_what_it_can_and_tells_it() {
    let bulb = zigbee();
    assert_eq!(bulb.can.color_temperature, Some(KelvinRange { min_k: 2_000, max_k: 6_536 }));
    assert_eq!(bulb.can.effects, ["blink", "breathe"]);
    assert!(bulb.can.color.is_some() && bulb.can.brightness && bulb.can.transition);
    assert_eq!(bulb.topics(), ["zigbee2mqtt/lamp"]);
    let told = hear(
        &bulb,
        "zigbee2mqtt/lamp",
        r#"{"brightness":127,"color":{"x":0.4599,"y":0.4106},"color_mode":"color_temp","color_temp":370,"linkquality":94,"state":"ON"}"#,
    );
    assert_eq!(told.on, Some(true));
    assert_eq!(told.brightness, Some(32_768));
    assert_eq!(told.color, Some(ColorMode::Temperature { kelvin: 2_703 }));
    assert_eq!(told.effect, None);
    let told = hear(
        &bulb,
        "zigbee2mqtt/lamp",
        r#"{"color":{"x":0.7,"y":0.29},"color_mode":"xy","state":"OFF","effect":"stop_effect"}"#,
    );
    assert_eq!(told.color, Some(ColorMode::Color(Xy { x: 45_875, y: 19_005 })));
    assert_eq!((told.on, told.effect), (Some(false), Some(None)));
}

#[test]
fn a_zigbee_bulb_is_commanded_in_one_message() {
    let bulb = zigbee();
    let known = lit();
    let one = |asked: Value| sent(&bulb, asked, &known).remove(0).1;
    assert_eq!(
        one(json!({"on": false, "brightness": 3, "transition_ms": 1500})),
        r#"{"state":"OFF","transition":1.5}"#
    );
    assert_eq!(one(json!({"brightness": 32768})), r#"{"brightness":127,"state":"ON"}"#);
    assert_eq!(
        one(json!({"color": {"mode": "temperature", "kelvin": 2700}})),
        r#"{"color_temp":370,"state":"ON"}"#
    );
    assert_eq!(
        one(json!({"color": {"mode": "color", "x": 20493, "y": 21561}})),
        r#"{"color":{"x":0.3127,"y":0.329},"state":"ON"}"#
    );
    assert_eq!(one(json!({"effect": "blink"})), r#"{"effect":"blink","state":"ON"}"#);
    assert_eq!(one(json!({"effect": "none"})), r#"{"effect":"stop_effect","state":"ON"}"#);
}

#[test]
fn a_light_that_is_off_is_not_switched_on_by_anything_else() {
    let off = Parts { on: Some(false), ..Parts::default() };
    for light in [zigbee(), tasmota()] {
        for asked in [
            json!({"brightness": 32768}),
            json!({"color": {"mode": "temperature", "kelvin": 2700}}),
            json!({"color": {"mode": "color", "x": 20493, "y": 21561}, "brightness": 5}),
        ] {
            let refused = light.messages(&change(asked), &off).unwrap_err();
            assert!(refused.contains("it is off") && refused.contains("ask for on"), "{refused}");
        }
        assert!(light.messages(&change(json!({"on": true, "brightness": 32768})), &off).is_ok());
    }
    // Of one that never told, nothing is said that it was not asked for.
    assert_eq!(
        sent(&zigbee(), json!({"brightness": 32768}), &Parts::default())[0].1,
        r#"{"brightness":127}"#
    );
    let simple = light(&json!({ "command_topic": "p", "brightness_command_topic": "b" }));
    assert_eq!(
        sent(&simple, json!({"brightness": 65535}), &Parts::default()),
        [("b".to_owned(), "255".to_owned())]
    );
}

#[test]
fn names_of_effects_are_kept_whole_and_only_as_many_as_fit() {
    let listed: Vec<String> = (0..256).map(|number| format!("{number:0>60}")).collect();
    let strip = |list: Value| {
        light(&json!({ "schema": "json", "command_topic": "a", "effect": true, "effect_list": list }))
            .can
            .effects
    };
    let kept = strip(json!(listed));
    assert_eq!(kept, listed[..68]);
    assert_eq!(strip(json!(["Rainbow", "x".repeat(65), "a\u{1b}[2J", 7, "Fire"])), ["Rainbow", "Fire"]);
}

#[test]
fn an_esphome_light_of_fractions_is_understood_and_fades_for_whole_seconds() {
    let lamp = light(&json!({
        "schema": "json", "supported_color_modes": ["color_temp"], "brightness": true, "min_mireds": 152.9,
        "max_mireds": 500.0, "state_topic": "a", "command_topic": "b"
    }));
    assert_eq!(lamp.can.color_temperature, Some(KelvinRange { min_k: 2_000, max_k: 6_536 }));
    let fade = |ms: u32| sent(&lamp, json!({"on": true, "transition_ms": ms}), &lit())[0].1.clone();
    assert_eq!(
        (fade(2_000).as_str(), fade(1_500).as_str()),
        (r#"{"state":"ON","transition":2}"#, r#"{"state":"ON","transition":1.5}"#)
    );
    // What it does not know yet is null, and hides nothing else.
    let told = hear(&lamp, "a", r#"{"state":"ON","color":null,"color_mode":null,"brightness":255}"#);
    assert_eq!((told.on, told.brightness), (Some(true), Some(u16::MAX)));
}

#[test]
fn an_esphome_light_of_kelvin_and_rgb_is_understood() {
    let strip = light(&json!({
        "schema": "json", "supported_color_modes": ["rgbww"], "brightness": true, "effect": true,
        "effect_list": ["None", "Rainbow"], "color_temp_kelvin": true, "min_kelvin": 2700, "max_kelvin": 6500,
        "state_topic": "esp/light/strip/state", "command_topic": "esp/light/strip/command"
    }));
    assert_eq!(strip.can.effects, ["Rainbow"]);
    let sent =
        sent(&strip, json!({"color": {"mode": "color", "x": 9830, "y": 3932}, "effect": "none"}), &lit());
    assert_eq!(sent[0].1, r#"{"color":{"b":255,"c":0,"g":0,"r":0,"w":0},"effect":"None","state":"ON"}"#);
    let told = hear(
        &strip,
        "",
        r#"{"state":"ON","brightness":255,"color_mode":"rgbww","color":{"r":0,"g":255,"b":0},"effect":"Rainbow"}"#,
    );
    assert!(
        matches!(told.color, Some(ColorMode::Color(_))) && told.effect == Some(Some("Rainbow".to_owned()))
    );
}

#[test]
fn a_tasmota_light_is_told_and_commanded_topic_by_topic() {
    let lamp = tasmota();
    let told = hear(&lamp, "tele/t/STATE", r#"{"POWER":"ON","Dimmer":40,"Color":"102,0,0,0,0","CT":250}"#);
    assert_eq!((told.on, told.brightness), (Some(true), Some(color::from_percent(40))));
    assert!(matches!(told.color, Some(ColorMode::Color(_))));
    let white = hear(&lamp, "tele/t/STATE", r#"{"POWER":"ON","Dimmer":40,"Color":"0,0,0,80,20","CT":250}"#);
    assert_eq!(white.color, Some(ColorMode::Temperature { kelvin: 4_000 }));
    assert_eq!(
        hear(&lamp, "tele/t/STATE", r#"{"POWER":"OFF"}"#),
        Parts { on: Some(false), ..Parts::default() }
    );
    assert_eq!(hear(&lamp, "somewhere", r#"{"POWER":"OFF"}"#), Parts::default());

    let pair = |topic: &str, payload: &str| (topic.to_owned(), payload.to_owned());
    assert_eq!(sent(&lamp, json!({"on": false}), &told), [pair("cmnd/t/POWER", "OFF")]);
    assert_eq!(sent(&lamp, json!({"brightness": 32768}), &told), [pair("cmnd/t/Dimmer", "50")]);
    // By brightness alone: what it was last, or full.
    assert_eq!(
        sent(&lamp, json!({"on": true}), &Parts { on: Some(false), ..told.clone() }),
        [pair("cmnd/t/Dimmer", "40")]
    );
    assert_eq!(sent(&lamp, json!({"on": true}), &Parts::default()), [pair("cmnd/t/Dimmer", "100")]);
    assert_eq!(
        sent(&lamp, json!({"color": {"mode": "color", "x": 41942, "y": 21627}}), &told),
        [pair("cmnd/t/Color2", "255,0,0")]
    );
}

#[test]
fn on_is_sent_after_or_before_the_rest() {
    let body = |kind: &str| {
        json!({
            "command_topic": "p", "brightness_command_topic": "b", "on_command_type": kind, "payload_on": 1,
            "brightness_command_template": "<{{ value }}>", "hs_command_topic": "h", "effect_command_topic": "e"
        })
    };
    let topics = |light: &Light, known: &Parts| {
        let sent = sent(
            light,
            json!({"on": true, "brightness": 65535, "color": {"mode": "color", "x": 9830, "y": 3932}}),
            known,
        );
        sent.into_iter().map(|(topic, payload)| format!("{topic} {payload}")).collect::<Vec<_>>()
    };
    let last = topics(&light(&body("last")), &Parts::default());
    assert_eq!((last[0].as_str(), last.last().unwrap().as_str()), ("b <255>", "p 1"));
    let first = topics(&light(&body("first")), &Parts::default());
    assert_eq!(first[0], "p 1");
    assert!(light(&body("last")).messages(&change(json!({"effect": "none"})), &Parts::default()).is_err());
}

#[test]
fn what_was_told_matches_what_was_asked() {
    let bulb = zigbee();
    for asked in [
        json!({"on": true, "brightness": 20000}),
        json!({"color": {"mode": "temperature", "kelvin": 3000}}),
        json!({"color": {"mode": "color", "x": 30000, "y": 20000}}),
    ] {
        let asked = change(asked);
        let message = bulb.messages(&asked, &lit()).unwrap().remove(0);
        let mut echo: Value = serde_json::from_str(&message.payload).unwrap();
        echo["color_mode"] = json!(if echo.get("color_temp").is_some() { "color_temp" } else { "xy" });
        let told = hear(&bulb, "zigbee2mqtt/lamp", &echo.to_string());
        assert!(asked.matches(&told.state().unwrap(), &Tolerance::default()), "{asked:?} {told:?}");
    }
}

#[test]
fn nothing_that_is_told_breaks_a_light() {
    let valid = br#"{"brightness":127,"color":{"x":0.4599,"y":0.4106},"color_mode":"xy","color_temp":370,"state":"ON"}"#;
    for light in [zigbee(), tasmota()] {
        for message in contract::hostile_messages(&[
            valid.to_vec(),
            br#"{"POWER":"ON","Dimmer":1e999,"Color":",,"}"#.to_vec(),
        ]) {
            let topic = light.topics()[0].to_owned();
            let _ = hear(&light, &topic, &String::from_utf8_lossy(&message));
        }
        for odd in [
            r#"{"state":1,"brightness":"x","color":[],"color_temp":-1}"#,
            r#"{"state":"ON","brightness":1e300,"color":{"x":2,"y":-1},"color_mode":"xy"}"#,
            r#"{"state":"ON","brightness":-5,"color_temp":0,"color_mode":"color_temp"}"#,
        ] {
            let told = hear(&light, "zigbee2mqtt/lamp", odd);
            assert!(told.brightness.is_none() && told.color.is_none(), "{told:?}");
        }
    }
}

#[test]
fn a_light_without_a_way_to_command_it_is_refused() {
    let parse = |json: Value| Light::parse(Fields(json.as_object().unwrap())).unwrap_err();
    assert_eq!(parse(json!({"schema": "json"})), FieldError::Missing("command_topic"));
    assert_eq!(
        parse(json!({"schema": "template", "command_topic": "a"})),
        FieldError::Schema("template".to_owned())
    );
    assert!(matches!(parse(json!({"command_topic": "a/#"})), FieldError::Topic { .. }));
    assert!(matches!(
        parse(
            json!({"command_topic": "a", "brightness_value_template": "{% for %}", "brightness_state_topic": "b"})
        ),
        FieldError::Template { .. }
    ));
}
