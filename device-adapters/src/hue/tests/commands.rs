//! Commands: how they are sent, confirmed, held back and ended.

use super::*;

fn put_body(ask: &Ask) -> &Value {
    match ask {
        Ask::Put { body, .. } => body,
        other => panic!("asked {other:?}"),
    }
}

#[test]
fn the_event_after_the_acknowledgement_confirms() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, on());
    let ask = world.ask();
    assert_eq!(put_body(&ask), &json!({ "on": { "on": true } }));
    world.event(vec![json!({ "id": LAMP, "type": "light", "on": { "on": true } })]);
    assert_eq!(world.life(1), [Stage::Sent], "an event before the acknowledgement proves nothing");
    world.acknowledge("light", LAMP);
    world.event(vec![json!({ "id": LAMP, "type": "light", "dimming": { "brightness": 50.0 } })]);
    assert_eq!(world.life(1), [Stage::Sent, Stage::Acknowledged, Stage::Confirmed]);
    let (state, command) = world.last_state(LAMP).unwrap();
    assert_eq!((state.is_on(), command), (Some(true), Some(id(1))));
}

#[test]
fn without_an_event_the_light_is_read_back_within_a_second() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, dim(80));
    world.ask();
    world.acknowledge("light", LAMP);
    let acknowledged = world.now;
    assert_eq!(world.ask(), Ask::Light { path: format!("light/{LAMP}") });
    assert!(world.now - acknowledged <= ms(1_000));
    let mut lamp = lamp();
    lamp["dimming"]["brightness"] = json!(79.84);
    world.answer(200, &json!({ "errors": [], "data": [lamp] }));
    assert_eq!(world.life(1).last(), Some(&Stage::Confirmed));
}

#[test]
fn what_is_so_already_is_read_at_once_for_no_event_will_come() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, dim(50));
    world.ask();
    world.acknowledge("light", LAMP);
    let acknowledged = world.now;
    assert!(matches!(world.ask(), Ask::Light { .. }));
    assert!(world.now - acknowledged <= ms(150));
    world.answer(200, &json!({ "data": [lamp()] }));
    assert_eq!(world.life(1).last(), Some(&Stage::Confirmed));
}

#[test]
fn a_slider_becomes_few_requests_and_the_last_value_wins() {
    let mut world = World::with(&[LAMP]);
    let (began, mut puts) = (world.now, Vec::new());
    for number in 1..=100 {
        world.command(LAMP, number, dim(number));
        if let Some(ask) = world.driver.poll_ask(world.now) {
            puts.push(put_body(&ask)["dimming"]["brightness"].as_f64().unwrap());
            world.acknowledge("light", LAMP);
        }
        world.now += ms(10);
    }
    assert!(puts.len() <= 12, "{} requests in {:?}", puts.len(), world.now - began);
    if puts.last() != Some(&100.0) {
        let last = world.ask();
        assert_eq!(put_body(&last)["dimming"]["brightness"], json!(100.0));
        world.acknowledge("light", LAMP);
    }
    world.event(vec![json!({ "id": LAMP, "type": "light", "dimming": { "brightness": 100.0 } })]);
    assert_eq!(world.life(100).last(), Some(&Stage::Confirmed));
    for number in 1..100 {
        let life = world.life(number);
        assert_eq!(life.iter().filter(|stage| stage.is_final()).count(), 1, "{number}: {life:?}");
    }
}

#[test]
fn a_newer_command_keeps_what_it_leaves_open() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, on());
    world.command(LAMP, 2, dim(10));
    assert_eq!(world.life(1), [Stage::Superseded]);
    assert_eq!(put_body(&world.ask()), &json!({ "on": { "on": true }, "dimming": { "brightness": 10.0 } }));
    world.command(LAMP, 2, dim(10)); // the same again is ignored
    assert_eq!(world.life(2), [Stage::Sent]);
}

#[test]
fn a_bridge_that_is_too_busy_is_left_alone_and_asked_again() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, on());
    world.ask();
    let refused = world.now;
    world.answer(429, &json!({}));
    world.command(LAMP, 2, dim(10));
    let ask = world.ask();
    assert!(world.now - refused >= ms(1_000), "asked again after {:?}", world.now - refused);
    assert_eq!(put_body(&ask)["dimming"]["brightness"], json!(10.0));
    assert_eq!(put_body(&ask)["on"]["on"], json!(true));
}

#[test]
fn a_group_takes_one_command_a_second_and_its_lights_go_on() {
    let mut world = World::with(&[GROUP, LAMP]);
    let mut sent = Vec::new();
    for number in 1..=3 {
        world.command(GROUP, number, dim(number));
        while !matches!(world.ask(), Ask::Put { ref path, .. } if path.starts_with("grouped_light/")) {
            world.answer(200, &json!({ "data": home() }));
        }
        sent.push(world.now);
        world.acknowledge("grouped_light", GROUP);
        if number == 1 {
            world.command(LAMP, 9, on());
            assert!(matches!(world.ask(), Ask::Put { ref path, .. } if path.starts_with("light/")));
            world.acknowledge("light", LAMP);
        }
    }
    assert!(sent.windows(2).all(|two| two[1] - two[0] >= ms(1_000)), "{sent:?}");
}

#[test]
fn a_group_is_confirmed_by_itself_and_the_colours_of_its_lights() {
    let mut world = World::with(&[GROUP]);
    let warm = Change::Light(LightChange {
        on: Some(true),
        color: Some(ColorMode::Temperature { kelvin: 4_000 }),
        ..LightChange::default()
    });
    world.command(GROUP, 1, warm);
    assert_eq!(
        put_body(&world.ask()),
        &json!({ "on": { "on": true }, "color_temperature": { "mirek": 250 } })
    );
    world.acknowledge("grouped_light", GROUP);
    world.event(vec![json!({ "id": GROUP, "type": "grouped_light", "on": { "on": true } })]);
    assert_eq!(world.life(1).last(), Some(&Stage::Acknowledged));
    let white = json!({ "mirek": 250, "mirek_valid": true });
    world.event(vec![
        json!({ "id": LAMP, "type": "light", "on": { "on": true }, "color_temperature": white }),
    ]);
    assert_eq!(world.life(1).last(), Some(&Stage::Confirmed));
}

#[test]
fn an_objection_is_told_when_nothing_happens() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, on());
    world.ask();
    let why = "device (light) has communication issues, command (on) may not have effect";
    world.answer(207, &json!({ "data": [reference("light", LAMP)], "errors": [{ "description": why }] }));
    for _ in 0..20 {
        if world.life(1).last().is_some_and(Stage::is_final) {
            break;
        }
        match world.ask() {
            Ask::Put { .. } => {
                world.answer(
                    207,
                    &json!({ "data": [reference("light", LAMP)], "errors": [{ "description": why }] }),
                );
            }
            _ => world.answer(200, &json!({ "data": [lamp()] })),
        }
    }
    let Some(Stage::TimedOut { reason }) = world.life(1).last().cloned() else {
        panic!("{:?}", world.life(1))
    };
    assert!(reason.contains("communication issues") && reason.contains(r#""on":false"#), "{reason}");
}

#[test]
fn what_cannot_be_done_fails_with_the_reason() {
    let mut world = World::with(&[LAMP, SENSOR]);
    world.command(PLUG, 1, on());
    world.command(SENSOR, 2, on());
    world.command(LAMP, 3, Change::Press);
    for (number, why) in [(1, "does not own"), (2, "sensor"), (3, "button")] {
        let life = world.life(number);
        assert!(matches!(&life[..], [Stage::Failed { reason }] if reason.contains(why)), "{life:?}");
    }
    world.command(LAMP, 4, on());
    world.ask();
    world.answer(400, &json!({ "data": [], "errors": [{ "description": "invalid value" }] }));
    assert!(
        matches!(world.life(4).last(), Some(Stage::Failed { reason }) if reason.contains("invalid value"))
    );
}

#[test]
fn another_owner_ends_a_command() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, on());
    world.driver.own(device(LAMP), false);
    world.take();
    assert!(matches!(world.life(1).last(), Some(Stage::Failed { .. })));
}

#[test]
fn who_changed_it_meanwhile_does_not_win_for_ever() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, dim(80));
    assert!(matches!(world.ask(), Ask::Put { .. }));
    world.acknowledge("light", LAMP);
    for _ in 0..2 {
        assert!(matches!(world.ask(), Ask::Light { .. }));
        world.answer(200, &json!({ "data": [lamp()] }));
    }
    assert!(
        matches!(world.ask(), Ask::Put { .. }),
        "after two reads that show something else it is sent again"
    );
}

#[test]
fn a_stream_that_tells_nothing_is_found_out() {
    let mut world = World::with(&[LAMP]);
    for (number, percent) in [(1, 80), (2, 20)] {
        world.command(LAMP, number, dim(percent));
        assert!(matches!(world.ask(), Ask::Put { .. }));
        world.acknowledge("light", LAMP);
        assert!(matches!(world.ask(), Ask::Light { .. }));
        let mut lamp = lamp();
        lamp["dimming"]["brightness"] = json!(percent);
        world.answer(200, &json!({ "data": [lamp] }));
        assert_eq!(world.life(number).last(), Some(&Stage::Confirmed));
    }
    assert!(world.driver.is_deaf());
}

#[test]
fn every_command_ends_by_its_deadline_while_the_bridge_is_gone() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, on());
    world.driver.stream_ended(world.now, "it was closed");
    let deadline = world.now + ms(5_000);
    let mut offline = None;
    while world.now < deadline + ms(5_000) {
        if world.driver.poll_stream(world.now) {
            world.driver.stream_ended(world.now, "connection refused");
        }
        if world.driver.poll_ask(world.now).is_some() {
            world.driver.handle_answer(world.now, Err("connection refused".into()));
        }
        world.now += ms(50);
        world.driver.handle_timeout(world.now);
        world.take();
        if offline.is_none() && world.said.iter().any(is_offline) {
            offline = Some(world.now);
        }
    }
    let life = world.life(1);
    let Some(Stage::TimedOut { reason }) = life.last() else { panic!("{life:?}") };
    assert!(reason.contains("connection refused"), "{reason}");
    assert!(offline.is_some());
    let (silent, _) = world.driver.failing(world.now).unwrap();
    assert!(silent >= ms(9_000));
    // It is back: all is read again, and told again.
    world.said.clear();
    world.now += ms(10_000);
    assert!(world.driver.poll_stream(world.now));
    world.driver.stream_opened(world.now);
    assert_eq!(world.ask(), Ask::All);
    world.answer(200, &json!({ "data": home() }));
    assert!(world.said.iter().any(|reading| {
        matches!(reading, Reading::Availability { availability: Availability::Online, .. })
    }));
    assert!(world.last_state(LAMP).is_some());
}

fn is_offline(reading: &Reading) -> bool {
    matches!(reading, Reading::Availability { availability: Availability::Offline, reason, .. }
        if reason.contains("192.0.2.7") && reason.contains("connection refused"))
}

#[test]
fn a_withdrawn_key_refuses_with_the_way_out() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, on());
    world.ask();
    world.answer(403, &json!({ "errors": [{ "description": "unauthorized user" }] }));
    let why = world.driver.refused().unwrap();
    assert!(why.contains("pair again") && why.contains("192.0.2.7"), "{why}");
    assert!(matches!(world.life(1).last(), Some(Stage::Failed { reason }) if reason.contains("pair again")));
    assert!(world.driver.poll_ask(world.now + ms(60_000)).is_none());
}
