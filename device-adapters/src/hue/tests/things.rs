//! What the resources of a bridge become, and what events say of them.

use super::*;
use crate::model::{Capabilities, Description, KelvinRange, Measurement, NO_EFFECT};

fn found(world: &World, rid: &str) -> Description {
    let is_it = |reading: &Reading| match reading {
        Reading::Found { device: found } if found.id == device(rid) => Some(found.clone()),
        _ => None,
    };
    world.said.iter().find_map(is_it).unwrap_or_else(|| panic!("{rid} is not found in {:?}", world.said))
}

fn unowned() -> World {
    let mut world = World::new();
    assert!(world.driver.poll_stream(world.now));
    world.driver.stream_opened(world.now);
    world.ask();
    world.answer(200, &json!({ "errors": [], "data": home() }));
    world
}

#[test]
fn each_kind_of_thing_is_described() {
    let world = unowned();
    let lamp = found(&world, LAMP);
    assert_eq!((lamp.name.as_str(), lamp.model.as_str()), ("Sofa", "Hue color lamp"));
    assert_eq!(lamp.firmware.as_deref(), Some("1.108.7"));
    let Capabilities::Light(light) = lamp.capabilities else { panic!("a lamp is a light") };
    assert!(light.brightness && light.transition && light.color.is_some());
    assert_eq!(light.color_temperature, Some(KelvinRange { min_k: 2_000, max_k: 6_536 }));
    assert_eq!(light.effects, ["candle", "fire"]);
    assert_eq!(found(&world, PLUG).capabilities, Capabilities::Switch);
    let group = found(&world, GROUP);
    assert_eq!((group.name.as_str(), group.model.as_str()), ("Living room", "Room"));
    assert!(
        matches!(group.capabilities, Capabilities::Light(ref group) if group.color.is_some() && group.brightness)
    );
    let button = found(&world, BUTTON);
    assert!(
        matches!(&button.capabilities, Capabilities::Button(button) if button.events.len() == 5 && !button.press)
    );
    assert_eq!(button.sensors.keys().collect::<Vec<_>>(), ["battery"]);
    let sensor = found(&world, SENSOR);
    assert_eq!(sensor.capabilities, Capabilities::Sensor);
    assert_eq!(sensor.sensors.keys().collect::<Vec<_>>(), ["illuminance", "motion", "temperature"]);
    assert_eq!(world.said.iter().filter(|reading| matches!(reading, Reading::Found { .. })).count(), 5);
    assert!(
        world.said.iter().all(|reading| matches!(reading, Reading::Found { .. })),
        "nothing of what is not owned"
    );
}

#[test]
fn an_owned_device_tells_its_state_its_measurements_and_that_it_is_online() {
    let mut world = unowned();
    world.said.clear();
    for rid in [LAMP, PLUG, SENSOR, BUTTON] {
        world.driver.own(device(rid), true);
    }
    world.take();
    let (State::Light(lamp), None) = world.last_state(LAMP).unwrap() else { panic!("no light") };
    assert_eq!((lamp.on, lamp.brightness), (false, 32_768));
    assert_eq!(lamp.color, ColorMode::Temperature { kelvin: 2_732 });
    assert_eq!(world.last_state(PLUG).unwrap().0, State::Switch { on: true });
    assert_eq!(world.last_state(BUTTON), None, "nobody pressed it yet");
    let measured = |rid: &str| {
        world.said.iter().find_map(|reading| match reading {
            Reading::Measured { device: of, values } if *of == device(rid) => Some(values.clone()),
            _ => None,
        })
    };
    let hall = measured(SENSOR).unwrap();
    assert_eq!(hall["motion"], Measurement::Truth(false));
    assert_eq!(hall["temperature"], Measurement::Number(21.3));
    assert_eq!(hall["illuminance"], Measurement::Number(100.0)); // 10^((20 001 - 1) / 10 000)
    assert_eq!(measured(BUTTON).unwrap()["battery"], Measurement::Number(83.0));
    let online = |reading: &&Reading| {
        matches!(reading, Reading::Availability { availability: Availability::Online, .. })
    };
    assert_eq!(world.said.iter().filter(online).count(), 4);
}

#[test]
fn events_change_what_they_name_and_no_more() {
    let mut world = World::with(&[LAMP, SENSOR]);
    let color = json!({ "id": LAMP, "type": "light", "color": { "xy": { "x": 0.64, "y": 0.33 } },
                        "color_temperature": { "mirek": null, "mirek_valid": false } });
    world.event(vec![color, json!({ "id": MOTION, "type": "motion", "motion": {
        "motion": true, "motion_valid": true, "motion_report": { "changed": "2023-09-01T10:00:00Z", "motion": true } } })]);
    let (State::Light(lamp), _) = world.last_state(LAMP).unwrap() else { panic!("no light") };
    assert!(
        matches!(lamp.color, ColorMode::Color(xy) if xy.x.abs_diff(41_942) < 10 && xy.y.abs_diff(21_627) < 10)
    );
    assert_eq!(lamp.brightness, 32_768);
    let motion = world.said.iter().any(|reading| {
        matches!(reading, Reading::Measured { values, .. }
            if values.len() == 1 && values.get("motion") == Some(&Measurement::Truth(true)))
    });
    assert!(motion, "{:?}", world.said);
    world.said.clear();
    world.event(vec![json!({ "id": LAMP, "type": "light", "color": { "xy": { "x": 0.64, "y": 0.33 } } })]);
    assert_eq!(world.said, [], "the same again is no news");
    world.event(vec![
        json!({ "id": LAMP, "type": "light", "color_temperature": { "mirek": 200, "mirek_valid": true } }),
    ]);
    let (State::Light(lamp), _) = world.last_state(LAMP).unwrap() else { panic!("no light") };
    assert_eq!(lamp.color, ColorMode::Temperature { kelvin: 5_000 });
}

#[test]
fn each_press_is_told_once() {
    let mut world = World::with(&[BUTTON]);
    let press = |at: &str, event: &str| {
        json!({ "id": BUTTON, "type": "button", "owner": reference("device", DIMMER),
                "button": { "last_event": event, "button_report": { "updated": at, "event": event } } })
    };
    world.event(vec![
        press("2023-09-01T10:00:00.1Z", "initial_press"),
        press("2023-09-01T10:00:00.3Z", "short_release"),
    ]);
    world.event(vec![press("2023-09-01T10:00:00.3Z", "short_release")]); // told again after a restart of the bridge
    world.event(vec![press("2023-09-01T10:00:09.0Z", "short_release")]);
    world.event(vec![press("2023-09-01T10:00:10.0Z", "no such event")]);
    world.event(vec![json!({ "id": BUTTON, "type": "button", "metadata": { "control_id": 1 } })]);
    let told: Vec<_> = world
        .said
        .iter()
        .filter_map(|reading| match reading {
            Reading::Reported { state: State::Button { event, count }, .. } => Some((event.as_str(), *count)),
            _ => None,
        })
        .collect();
    let first = told[0].1;
    let wanted = [("initial_press", first), ("short_release", first + 1), ("short_release", first + 2)];
    assert_eq!(told, wanted);
}

#[test]
fn a_light_without_power_is_offline_and_says_why() {
    let mut world = World::with(&[LAMP, GROUP]);
    let status =
        |rid: &str, status: &str| json!({ "id": rid, "type": "zigbee_connectivity", "status": status });
    world.event(vec![status(LAMP_ZIGBEE, "connectivity_issue")]);
    assert_eq!(world.said.len(), 1, "the room has its plug, and its colour is what it was: {:?}", world.said);
    world.event(vec![status(PLUG_ZIGBEE, "disconnected")]);
    let offline: Vec<_> = world
        .said
        .iter()
        .filter_map(|reading| match reading {
            Reading::Availability { device, availability: Availability::Offline, reason } => {
                Some((device, reason))
            }
            _ => None,
        })
        .collect();
    assert_eq!(offline.len(), 2, "{:?}", world.said);
    assert!(offline.iter().all(|(_, reason)| reason.contains("connectivity_issue")));
    world.event(vec![status(LAMP_ZIGBEE, "connected")]);
    assert!(matches!(
        world.said.last(),
        Some(Reading::Availability { availability: Availability::Online, .. })
    ));
}

#[test]
fn what_comes_and_goes_is_read_again() {
    let mut world = World::with(&[LAMP]);
    world.now += ms(3_000);
    let text = json!([{ "type": "delete", "data": [{ "id": LAMP, "type": "light" }] }]).to_string();
    world.driver.handle_events(world.now, wire::events(text.as_bytes()).unwrap());
    assert_eq!(world.ask(), Ask::All);
    let left: Vec<Value> =
        home().into_iter().filter(|one| one["id"] != LAMP && one["id"] != LAMP_HOUSING).collect();
    world.answer(200, &json!({ "data": left }));
    assert!(world.said.iter().any(|reading| {
        matches!(reading, Reading::Lost { device: lost, reason } if *lost == device(LAMP) && reason.contains("192.0.2.7"))
    }));
}

#[test]
fn a_refresh_reads_and_tells_what_is_the_same() {
    let mut world = World::with(&[LAMP, SENSOR]);
    world.driver.refresh(device(LAMP));
    assert_eq!(world.ask(), Ask::Light { path: format!("light/{LAMP}") });
    world.answer(200, &json!({ "data": [lamp()] }));
    assert!(world.last_state(LAMP).is_some());
    world.driver.refresh(device(SENSOR));
    assert_eq!(world.ask(), Ask::All);
    world.answer(200, &json!({ "data": home() }));
    assert!(
        world
            .said
            .iter()
            .any(|reading| matches!(reading, Reading::Measured { values, .. } if values.len() == 3))
    );
    world.driver.refresh(device(PLUG));
    assert_eq!(world.ask(), Ask::Alive, "what another node owns is not read");
}

#[test]
fn a_change_is_written_in_the_units_of_the_bridge() {
    let change = Change::Light(LightChange {
        on: Some(true),
        brightness: Some(0),
        color: Some(ColorMode::Color(crate::model::Xy { x: 41_942, y: 21_627 })),
        effect: Some(NO_EFFECT.to_owned()),
        transition_ms: 450,
        ..LightChange::default()
    });
    let body = super::super::view::body(&change);
    let expected = json!({
        "on": { "on": true }, "dimming": { "brightness": 0.0 }, "color": { "xy": { "x": 0.64, "y": 0.33 } },
        "effects": { "effect": "no_effect" }, "dynamics": { "duration": 500 }
    });
    assert_eq!(body, expected);
}

#[test]
fn a_light_is_not_dimmed_below_its_least() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, dim(0));
    let Ask::Put { body, .. } = world.ask() else { panic!("not sent") };
    assert_eq!(body["dimming"]["brightness"], json!(0.2));
    world.acknowledge("light", LAMP);
    world.event(vec![json!({ "id": LAMP, "type": "light", "dimming": { "brightness": 0.2 } })]);
    assert_eq!(world.life(1).last(), Some(&Stage::Confirmed));
}

#[test]
fn a_room_without_power_is_offline_though_its_switch_has_a_battery() {
    let mut world = World::new();
    assert!(world.driver.poll_stream(world.now));
    world.driver.stream_opened(world.now);
    world.ask();
    let wireless = "0ba2b4a4-0000-4000-8000-0000000000a0";
    let mut home = home();
    for one in &mut home {
        if one["id"] == ROOM {
            one["children"] = json!([reference("device", LAMP_HOUSING), reference("device", DIMMER)]);
        } else if one["id"] == DIMMER {
            one["services"].as_array_mut().unwrap().push(reference("zigbee_connectivity", wireless));
        } else if one["id"] == LAMP_ZIGBEE {
            one["status"] = json!("disconnected");
        }
    }
    home.push(json!({ "id": wireless, "type": "zigbee_connectivity", "status": "unidirectional_incoming" }));
    world.answer(200, &json!({ "data": home }));
    for rid in [GROUP, BUTTON] {
        world.driver.own(device(rid), true);
    }
    world.take();
    let is = |rid: &str, wanted: Availability| {
        world.said.iter().any(|reading| {
            matches!(reading, Reading::Availability { device: of, availability, .. }
                if *of == device(rid) && *availability == wanted)
        })
    };
    assert!(is(GROUP, Availability::Offline), "{:?}", world.said);
    assert!(is(BUTTON, Availability::Online), "a switch that only speaks is heard");
}
