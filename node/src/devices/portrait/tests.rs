#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use device_adapters::model::{CommandId, Gamut, KelvinRange, Source, Xy, Zone};
use mesh_proto::{FieldName, ObjectId, Value};
use proptest::prelude::*;

use super::*;
use crate::{
    api::commands::change_of,
    devices::convert::{Desired, Reported, encode},
    service::FieldView,
};

fn strip() -> LightCapabilities {
    LightCapabilities {
        brightness: true,
        color_temperature: Some(KelvinRange { min_k: 2_000, max_k: 9_000 }),
        color: Some(Gamut::SRGB),
        effects: vec!["Rainbow".into()],
        palettes: vec!["Lava".into()],
        zones: Some(16),
        transition: true,
    }
}

/// A device that can do this, is this, and was asked for that last.
fn device(can: Option<&Capabilities>, state: Option<State>, asked: Option<Change>) -> Portrait {
    let id = CommandId([7; 16]);
    let mut fields = BTreeMap::new();
    let mut put = |name: &str, value: Value| {
        let field = FieldView { value, at_ms: 0, by: String::new(), durable: true };
        fields.insert(FieldName::new(name).unwrap(), field);
    };
    if let Some(can) = can {
        put("capabilities", encode(can));
        if let Capabilities::Light(light) = can {
            put("effects", encode(&light.effects));
            put("palettes", encode(&light.palettes));
        }
    }
    if let Some(value) = state {
        put("reported", encode(&Reported { value, command: None, source: Source::ReadBack }));
    }
    if let Some(change) = asked {
        put("desired", encode(&Desired { command: id, change, at: 0, deadline_ms: 5_000, by: None }));
    }
    let id = ObjectId::new("device/strip").unwrap();
    Portrait::of(&ObjectView { id, fields, complete: true }).unwrap()
}

fn light(state: LightState) -> Portrait {
    device(Some(&Capabilities::Light(strip())), Some(State::Light(state)), None)
}

fn red() -> ColorMode {
    ColorMode::Color(Xy { x: 41_000, y: 21_500 })
}

fn zone(count: u16, color: ColorMode, brightness: u16) -> Zone {
    Zone { count, color, brightness }
}

fn states() -> impl Strategy<Value = LightState> {
    let color = || {
        prop_oneof![
            (2_000u16..=9_000).prop_map(|kelvin| ColorMode::Temperature { kelvin }),
            // Inside of the triangle.
            (20_000u16..=24_000, 20_000u16..=24_000).prop_map(|(x, y)| ColorMode::Color(Xy { x, y })),
        ]
    };
    let zones = prop::option::of(prop::collection::vec(
        (1u16..=4, color(), any::<u16>())
            .prop_map(|(count, color, brightness)| zone(count, color, brightness)),
        1..4,
    ));
    let effect = prop::option::of(Just("Rainbow".to_owned()));
    (any::<bool>(), any::<u16>(), color(), effect, zones).prop_map(
        |(on, brightness, color, effect, zones)| LightState {
            on,
            brightness,
            color,
            palette: effect.as_ref().map(|_| "Lava".to_owned()),
            zones: zones.filter(|_| effect.is_none()),
            effect,
        },
    )
}

proptest! {
    /// To the last bit, and not only within what a person can tell apart.
    #[test]
    fn what_a_light_is_can_be_asked_for_again(state in states()) {
        let portrait = light(state.clone());
        let wanted = change_of(&portrait.change(false).unwrap()).unwrap();
        prop_assert!(portrait.is(&wanted, false));
        let exact = Tolerance { brightness: 0, kelvin: 0, xy: 0 };
        prop_assert!(portrait.fitted(&wanted).matches(&State::Light(state), &exact));
    }
}

#[test]
fn a_light_that_is_off_is_kept_as_off_and_one_that_runs_an_effect_with_it() {
    let off = LightState::plain(false, 30_000, red());
    assert_eq!(light(off).change(false).unwrap(), json!({"on": false}));
    let white = LightState::plain(true, 65_535, ColorMode::Temperature { kelvin: 2_700 });
    let plain = json!({"on": true, "brightness": 100.0, "kelvin": 2_700, "effect": "none"});
    assert_eq!(light(white.clone()).change(false).unwrap(), plain, "an effect that runs then is ended");
    let zones = vec![zone(3, red(), 65_535), zone(13, ColorMode::Temperature { kelvin: 4_000 }, 0)];
    let zoned = LightState { zones: Some(zones.clone()), ..white.clone() };
    let kept = light(zoned).change(false).unwrap();
    assert_eq!(
        (kept["zones"][0]["count"].clone(), kept["zones"][1]["kelvin"].clone()),
        (json!(3), json!(4_000))
    );
    assert!(kept.get("brightness").is_none() && kept.get("kelvin").is_none(), "{kept}");
    let runs = LightState {
        effect: Some("Rainbow".into()),
        palette: Some("Lava".into()),
        zones: Some(zones),
        ..white.clone()
    };
    let kept = light(runs).change(false).unwrap();
    assert_eq!((&kept["effect"], &kept["palette"]), (&json!("Rainbow"), &json!("Lava")));
    assert!(kept.get("zones").is_none(), "{kept}");
    let strange = LightState { effect: Some("of another app".into()), ..white };
    assert_eq!(light(strange).change(false).unwrap()["effect"], "none", "nobody could ask for it");
}

#[test]
fn what_a_light_lacks_is_not_kept_and_what_is_beyond_its_bounds_comes_to_them() {
    let can = Capabilities::Light(LightCapabilities::default());
    let state = State::Light(LightState::plain(true, 65_535, red()));
    assert_eq!(device(Some(&can), Some(state), None).change(false).unwrap(), json!({"on": true}));
    let warm = LightState::plain(true, 65_535, ColorMode::Temperature { kelvin: 1_500 });
    assert_eq!(light(warm).change(false).unwrap()["kelvin"], 2_000);
}

#[test]
fn what_cannot_be_kept_says_why() {
    let on = Some(State::Switch { on: true });
    assert_eq!(device(Some(&Capabilities::Switch), on, None).change(false).unwrap(), json!({"on": true}));
    let refused = |can: Capabilities| device(Some(&can), None, None).change(false).unwrap_err();
    assert!(refused(Capabilities::Sensor).contains("only measures"));
    assert!(refused(Capabilities::Button(Default::default())).contains("button"));
    assert!(refused(Capabilities::Switch).contains("nothing is known"));
}

#[test]
fn a_command_that_is_under_way_counts_as_what_it_comes_to() {
    let dim = LightChange { brightness: Some(6_554), transition_ms: 30_000, ..LightChange::default() };
    let on = LightChange { on: Some(true), ..dim };
    let portrait = device(
        Some(&Capabilities::Light(strip())),
        Some(State::Light(LightState::plain(false, 65_535, ColorMode::Temperature { kelvin: 2_700 }))),
        Some(Change::Light(on)),
    );
    let wanted = change_of(&json!({"on": true, "brightness": 10})).unwrap();
    assert_eq!(portrait.change(true).unwrap()["brightness"], json!(10.001));
    assert_eq!(portrait.change(false).unwrap(), json!({"on": false}), "it ended, and nothing came of it");
    assert!(portrait.is(&wanted, true) && !portrait.is(&wanted, false));
    assert!(portrait.was_asked(&wanted));
    let other = change_of(&json!({"on": true, "brightness": 11})).unwrap();
    let more = change_of(&json!({"on": true, "brightness": 10, "kelvin": 2700})).unwrap();
    assert!(!portrait.was_asked(&other) && !portrait.was_asked(&more));
    let zones = vec![zone(2, red(), 65_535)];
    let zoned = LightState { zones: Some(zones), ..LightState::plain(true, 1, red()) };
    let dims = LightChange { brightness: Some(9), ..LightChange::default() };
    assert_eq!(after(zoned.clone(), &dims).zones.unwrap()[0].brightness, 9);
    let warms = LightChange { color: Some(ColorMode::Temperature { kelvin: 3_000 }), ..dims };
    assert_eq!(after(zoned, &warms).zones, None);
}
