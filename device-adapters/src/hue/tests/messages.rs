//! Messages as the public documentation shows them, and those that nobody should send.

use proptest::prelude::*;

use super::*;
use crate::hue::resource::Rid;
use crate::hue::sse::{MOST, Parser};
use crate::hue::wire::{Happening, Paired};

/// The event stream of the migration guide, as it is on the wire.
const STREAM: &str = "id: 1617322504:0\ndata: [{\"creationtime\":\"2021-04-02T00:15:04Z\",\"data\":[{\"id\":\"4413c8fd-6643-48b5-ad02-59453edf8a61\",\"id_v1\":\"/lights/1\",\"on\":{\"on\":true},\"type\":\"light\"}],\"id\":\"19845c30-2e4c-4205-a7b4-8bd496f3407d\",\"type\":\"update\"}]\n\nid: 1617322505:0\ndata: [{\"creationtime\":\"2021-04-02T00:15:05Z\",\"data\":[{\"id\":\"4413c8fd-6643-48b5-ad02-59453edf8a61\",\"id_v1\":\"/lights/1\",\"on\":{\"on\":false},\"type\":\"light\"}],\"id\":\"bea68344-a36c-4bfd-a658-97830e4e2b1a\",\"type\":\"update\"}]\n\n";

#[test]
fn the_documented_stream_is_read_whatever_its_pieces() {
    for size in [1, 2, 7, 64, 4_096] {
        let mut parser = Parser::default();
        let mut messages = Vec::new();
        for piece in STREAM.as_bytes().chunks(size) {
            messages.extend(parser.take(piece).unwrap());
        }
        let on: Vec<bool> = messages
            .iter()
            .flat_map(|message| wire::events(message).unwrap())
            .inspect(|event| assert_eq!(event.happening, Happening::Update))
            .map(|event| event.data[0].on.unwrap().on)
            .collect();
        assert_eq!(on, [true, false], "in pieces of {size}");
    }
}

#[test]
fn lines_end_in_three_ways_and_comments_are_nothing() {
    let mut parser = Parser::default();
    let stream =
        b"\xef\xbb\xbf: hi\n\ndata: a\rdata:b\r\ndata\r\n\r\nevent: x\n\nretry: 1\ndata:  c\n\ndata: cut";
    let messages = parser.take(stream).unwrap();
    assert_eq!(messages, [b"a\nb\n".to_vec(), b" c".to_vec()]);
}

#[test]
fn an_event_without_an_end_is_refused_before_it_fills_the_memory() {
    let mut parser = Parser::default();
    let piece = vec![b'a'; 64 * 1024];
    let taken = (0..100).take_while(|_| parser.take(&piece).is_ok()).count();
    assert_eq!(taken, MOST / piece.len());
    let mut parser = Parser::default();
    let line = [b"data: ".as_slice(), &vec![b'a'; MOST / 2], b"\n"].concat();
    assert!(parser.take(&line).is_ok() && parser.take(&line).is_err());
}

#[test]
fn a_key_is_asked_for_until_the_button_is_pressed() {
    let not_yet = br#"[{"error":{"type":101,"address":"","description":"link button not pressed"}}]"#;
    assert!(matches!(wire::paired(not_yet), Ok(Paired::NotPressed)));
    let key = br#"[{"success":{"username":"83b7780291a6ceffbe0bd049104df","clientkey":"33DDF493992908E3D97FAAA5A6F189E1"}}]"#;
    assert!(matches!(wire::paired(key), Ok(Paired::Key(key)) if key.0 == "83b7780291a6ceffbe0bd049104df"));
    let other = br#"[{"error":{"type":7,"address":"/devicetype","description":"invalid value"}}]"#;
    assert!(wire::paired(other).err().unwrap().to_string().contains("invalid value"));
    for bad in [r#"[]"#, r#"[{"success":{"username":"a b@c=d"}}]"#, r#"[{}]"#, r#"{}"#, ""] {
        assert!(wire::paired(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn the_public_part_of_the_configuration_names_the_bridge() {
    let body = br#"{"name":"Philips hue","datastoreversion":"103","swversion":"1941132080","apiversion":"1.41.0","mac":"00:17:88:00:00:00","bridgeid":"001788FFFE000000","factorynew":false,"replacesbridgeid":null,"modelid":"BSB002","starterkitid":""}"#;
    let public = wire::public(body).unwrap();
    assert_eq!((public.id.to_string().as_str(), public.name.as_str()), ("001788fffe000000", "Philips hue"));
    assert!(wire::public(br#"{"bridgeid":"none"}"#).is_err());
}

#[test]
fn answers_with_errors_say_them() {
    let refused = wire::resources(br#"{"errors":[{"description":"Not Found"}],"data":[]}"#).unwrap_err();
    assert!(refused.to_string().contains("Not Found"));
    let put = wire::put(
        br#"{"data":[{"rid":"4413c8fd-6643-48b5-ad02-59453edf8a61","rtype":"light"}],"errors":[]}"#,
    );
    assert_eq!(put.unwrap(), wire::Put { taken: true, is_unreached: false, objection: None });
    let of_radio = "device (light) has communication issues, command (.on) may not have effect";
    let off = "device (light) is \"soft off\", command (.dimming.brightness) may not have effect";
    for (error, is_unreached) in [
        (json!({ "description": of_radio, "error_code": "communication_error" }), true),
        (json!({ "description": of_radio }), true),
        (json!({ "description": off, "error_code": "attribute_may_have_no_effect" }), false),
        (json!({ "description": off }), false),
    ] {
        let answer = json!({ "data": [reference("light", LAMP)], "errors": [error] }).to_string();
        let put = wire::put(answer.as_bytes()).unwrap();
        assert_eq!((put.taken, put.is_unreached), (true, is_unreached), "{answer}");
    }
}

#[test]
fn numbers_beyond_sense_become_the_nearest_end() {
    let mut odd = lamp();
    odd["dimming"]["brightness"] = json!(1e300);
    odd["color_temperature"]["mirek"] = json!(-7);
    odd["color_temperature"]["mirek_schema"] = json!({ "mirek_minimum": 0, "mirek_maximum": 65_535 });
    let resources = wire::resources(json!({ "data": [odd] }).to_string().as_bytes()).unwrap();
    let state = super::super::view::state(&resources[0]);
    assert_eq!(state.brightness, u16::MAX);
    assert_eq!(state.color, ColorMode::Temperature { kelvin: 20_000 });
    let white = super::super::view::capabilities(&resources[0]).color_temperature.unwrap();
    assert_eq!((white.min_k, white.max_k), (2_000, 6_536));
}

#[test]
fn a_lamp_is_told_every_temperature_that_it_says_it_has() {
    let mut wide = lamp();
    wide["color_temperature"]["mirek_schema"] = json!({ "mirek_minimum": 50, "mirek_maximum": 1_000 });
    let resources = wire::resources(json!({ "data": [wide] }).to_string().as_bytes()).unwrap();
    let white = super::super::view::capabilities(&resources[0]).color_temperature.unwrap();
    for (kelvin, mirek) in [(white.min_k, 1_000), (white.max_k, 50)] {
        let color = Some(ColorMode::Temperature { kelvin });
        let body = super::super::view::body(&Change::Light(LightChange { color, ..LightChange::default() }));
        assert_eq!(body["color_temperature"]["mirek"], json!(mirek));
    }
}

#[test]
fn messages_of_strangers_harm_nothing() {
    let valid: Vec<Vec<u8>> = [
        json!({ "errors": [], "data": [lamp()] }).to_string(),
        json!([{ "type": "update", "data": [lamp()] }]).to_string(),
        r#"[{"error":{"type":101,"address":"","description":"link button not pressed"}}]"#.to_owned(),
    ]
    .map(String::into_bytes)
    .into();
    for message in contract::hostile_messages(&valid) {
        let _ = wire::resources(&message);
        let _ = wire::put(&message);
        let _ = wire::public(&message);
        let _ = wire::paired(&message);
        let _ = Parser::default().take(&message);
        if let Ok(events) = wire::events(&message) {
            let mut world = World::with(&[LAMP, GROUP]);
            world.driver.handle_events(world.now, events);
        }
    }
}

#[test]
fn a_list_of_nothing_takes_no_memory() {
    let many = format!("{{\"data\":[{}{{}}]}}", "{},".repeat(1_000_000));
    assert_eq!(wire::resources(many.as_bytes()).unwrap(), []);
}

proptest! {
    #[test]
    fn a_resource_id_comes_back(bytes: [u8; 16]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        let rid = Rid::parse(&text).unwrap();
        prop_assert_eq!(rid.to_string(), text);
        prop_assert_eq!(rid.bytes(), bytes);
    }

    #[test]
    fn any_bytes_are_a_stream(bytes: Vec<u8>, size in 1usize..20) {
        let mut parser = Parser::default();
        let mut pieces = Vec::new();
        for piece in bytes.chunks(size) {
            pieces.extend(parser.take(piece).unwrap());
        }
        prop_assert_eq!(pieces, Parser::default().take(&bytes).unwrap());
    }

    #[test]
    fn brightness_comes_back(brightness: u16) {
        let change = Change::Light(LightChange { brightness: Some(brightness), ..LightChange::default() });
        let percent = super::super::view::body(&change)["dimming"]["brightness"].as_f64().unwrap();
        prop_assert!((0.0..=100.0).contains(&percent));
        prop_assert!(super::super::view::from_percent(percent).abs_diff(brightness) <= 4);
    }
}
