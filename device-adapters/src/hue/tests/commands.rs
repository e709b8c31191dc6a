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
    let why = "device (light) is \"soft off\", command (.dimming.brightness) may not have effect";
    world.command(LAMP, 1, dim(80));
    while world.life(1).last().is_none_or(|stage| !stage.is_final()) {
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
    assert!(reason.contains("soft off") && reason.contains(r#""brightness":50.0"#), "{reason}");
}

/// What a bridge says of a lamp whose plug was pulled a moment ago.
fn unreached(kind: &str, rid: &str) -> Value {
    let why = format!("device ({kind}) {rid} has communication issues, command (.on.on) may not have effect");
    json!({ "data": [reference(kind, rid)], "errors": [{ "description": why, "error_code": "communication_error" }] })
}

fn connection(status: &str) -> Value {
    json!({ "id": LAMP_ZIGBEE, "type": "zigbee_connectivity", "status": status })
}

#[test]
fn a_lamp_that_does_not_hear_is_not_confirmed_by_what_the_bridge_shows() {
    let mut world = World::with(&[LAMP]);
    world.command(LAMP, 1, on());
    world.ask();
    world.answer(207, &unreached("light", LAMP));
    world.event(vec![json!({ "id": LAMP, "type": "light", "on": { "on": true } })]);
    let life = world.life(1);
    assert!(
        matches!(&life[..], [Stage::Sent, Stage::Failed { reason }]
            if reason.contains("does not reach it") && reason.contains("communication issues")),
        "{life:?}"
    );
}

#[test]
fn a_lamp_that_is_offline_is_confirmed_when_it_is_back_and_not_before() {
    let mut world = World::with(&[LAMP]);
    world.event(vec![connection("connectivity_issue")]);
    let mut shown = lamp();
    shown["on"]["on"] = json!(true);
    for (number, is_back) in [(1, false), (2, true)] {
        world.command(LAMP, number, on());
        let mut reads = 0;
        while world.life(number).last().is_none_or(|stage| !stage.is_final()) {
            match world.ask() {
                Ask::Put { .. } => {
                    world.acknowledge("light", LAMP);
                    world.event(vec![json!({ "id": LAMP, "type": "light", "on": { "on": true } })]);
                }
                _ => world.answer(200, &json!({ "data": [shown.clone()] })),
            }
            reads += 1;
            if is_back && reads == 2 {
                world.event(vec![connection("connected")]);
            }
        }
    }
    let Some(Stage::TimedOut { reason }) = world.life(1).last().cloned() else {
        panic!("{:?}", world.life(1))
    };
    assert!(reason.contains("connectivity_issue") && reason.contains("without power"), "{reason}");
    assert_eq!(world.life(2).last(), Some(&Stage::Confirmed));
}

#[test]
fn a_room_goes_on_without_the_light_that_is_known_to_have_no_power() {
    let mut world = World::with(&[GROUP]);
    world.command(GROUP, 1, on());
    world.ask();
    world.answer(207, &unreached("grouped_light", GROUP));
    let life = world.life(1);
    assert!(
        matches!(&life[..], [_, Stage::Failed { reason }] if reason.contains("all of its lights")),
        "{life:?}"
    );
    world.event(vec![connection("connectivity_issue")]);
    world.command(GROUP, 2, on());
    world.ask();
    world.answer(207, &unreached("grouped_light", GROUP));
    world.event(vec![json!({ "id": GROUP, "type": "grouped_light", "on": { "on": true } })]);
    assert_eq!(world.life(2).last(), Some(&Stage::Confirmed));
    // The colour of the lamp that does not hear is not that of the room, whatever the bridge shows.
    let color = Some(ColorMode::Temperature { kelvin: 4_000 });
    world.command(GROUP, 3, Change::Light(LightChange { color, ..LightChange::default() }));
    while !matches!(world.ask(), Ask::Put { .. }) {
        world.answer(200, &json!({ "data": home() }));
    }
    world.answer(207, &unreached("grouped_light", GROUP));
    let white = json!({ "mirek": 250, "mirek_valid": true });
    world.event(vec![json!({ "id": LAMP, "type": "light", "color_temperature": white })]);
    assert_eq!(world.life(3).last(), Some(&Stage::Acknowledged));
}

/// How often is asked within five seconds, where each answer is that.
fn asked(world: &mut World, mut answer: impl FnMut(&Ask) -> (u16, Value)) -> Vec<Ask> {
    let end = world.now + ms(5_000);
    let mut asked = Vec::new();
    while world.now < end {
        let ask = world.ask();
        let (status, body) = answer(&ask);
        world.answer(status, &body);
        asked.push(ask);
    }
    asked
}

#[test]
fn a_bridge_that_knows_nothing_any_more_is_not_asked_without_end() {
    let mut world = World::with(&[LAMP]);
    world.driver.refresh(device(LAMP));
    let nothing =
        asked(&mut world, |_| (404, json!({ "errors": [{ "description": "Not Found" }], "data": [] })));
    assert!(nothing.len() <= 12, "{nothing:?}");
}

#[test]
fn a_light_that_is_listed_and_cannot_be_read_is_not_asked_without_end() {
    for (status, body) in [(404, json!({})), (200, json!({ "data": [] }))] {
        let mut world = World::with(&[LAMP]);
        world.command(LAMP, 1, on());
        world.driver.refresh(device(LAMP));
        let asked = asked(&mut world, |ask| match ask {
            Ask::Put { .. } => (200, json!({ "data": [reference("light", LAMP)] })),
            Ask::Light { .. } => (status, body.clone()),
            _ => (200, json!({ "data": home() })),
        });
        assert!(asked.len() <= 12, "with status {status}: {asked:?}");
    }
}

#[test]
fn a_group_that_tells_no_state_is_not_read_without_end() {
    let mut world = World::with(&[GROUP]);
    world.command(GROUP, 1, dim(80));
    let mut home = home();
    home.iter_mut().filter(|one| one["id"] == GROUP).for_each(|group| drop(group["on"].take()));
    let asked = asked(&mut world, |ask| match ask {
        Ask::Put { .. } => (200, json!({ "data": [reference("grouped_light", GROUP)] })),
        _ => (200, json!({ "data": home })),
    });
    assert!(asked.len() <= 12, "{asked:?}");
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
    assert!(world.driver.is_deaf(world.now));
}

/// Lets an open stream be silent until all is read.
fn silence(world: &mut World, all: Value) {
    let began = world.now;
    while world.ask() != Ask::All {
        world.answer(200, &json!({ "data": [] }));
    }
    assert!(world.now - began <= ms(130_000), "after {:?}", world.now - began);
    world.answer(200, &all);
}

#[test]
fn a_stream_that_died_without_a_word_is_found_out_by_reading() {
    let mut world = World::with(&[LAMP]);
    silence(&mut world, json!({ "data": home() }));
    assert!(!world.driver.is_deaf(world.now + ms(60_000)), "nothing happened");
    let mut changed = home();
    changed.iter_mut().filter(|one| one["id"] == LAMP).for_each(|lamp| lamp["on"]["on"] = json!(true));
    silence(&mut world, json!({ "data": changed }));
    let (state, _) = world.last_state(LAMP).unwrap();
    assert_eq!(state.is_on(), Some(true));
    assert!(!world.driver.is_deaf(world.now + ms(1_500)), "the event may be under way");
    assert!(world.driver.is_deaf(world.now + ms(2_000)));
    // Anew, it need not tell what happened before.
    world.driver.stream_ended(world.now, "it tells nothing any more");
    while !world.driver.poll_stream(world.now) {
        world.now += ms(50);
    }
    world.driver.stream_opened(world.now);
    silence(&mut world, json!({ "data": home() }));
    assert!(!world.driver.is_deaf(world.now + ms(60_000)));
}

#[test]
fn an_event_that_comes_late_clears_the_stream() {
    let mut world = World::with(&[LAMP]);
    let mut changed = home();
    changed.iter_mut().filter(|one| one["id"] == LAMP).for_each(|lamp| lamp["on"]["on"] = json!(true));
    silence(&mut world, json!({ "data": changed }));
    world.event(vec![json!({ "id": LAMP, "type": "light", "on": { "on": true } })]);
    assert!(!world.driver.is_deaf(world.now + ms(60_000)));
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

#[test]
fn one_answer_that_does_not_come_after_a_quiet_time_is_no_end() {
    let mut world = World::with(&[LAMP]);
    let quiet = world.now;
    assert_eq!(world.ask(), Ask::Alive);
    assert!(world.now - quiet >= ms(15_000));
    for (wait, is_gone) in [(2_500, false), (3_000, true)] {
        world.now += ms(wait);
        world.driver.handle_answer(world.now, Err("connection refused".into()));
        world.take();
        assert_eq!(world.said.iter().any(is_offline), is_gone, "{:?}", world.said);
        let (failing, _) = world.driver.failing(world.now).unwrap();
        assert!(failing < ms(6_000), "{failing:?}");
        world.ask();
    }
}

#[test]
fn one_answer_that_is_waited_for_in_vain_takes_no_light_offline() {
    let mut world = World::with(&[LAMP]);
    world.ask();
    for is_gone in [false, true] {
        world.now += ms(8_000);
        world.driver.handle_answer(world.now, Err("connection refused".into()));
        world.take();
        assert_eq!(world.said.iter().any(is_offline), is_gone, "{:?}", world.said);
        world.ask();
    }
}

#[test]
fn a_bridge_that_is_asked_again_after_a_refusal_has_not_been_failing_meanwhile() {
    let mut world = World::with(&[LAMP]);
    world.ask();
    world.driver.handle_answer(world.now, Err("connection refused".into()));
    world.driver.refuse(world.now, "the key is void".to_owned());
    world.now += ms(300_000);
    world.driver.moved(world.now, "192.0.2.7".to_owned());
    assert!(world.driver.failing(world.now).is_none());
    world.ask();
    world.driver.handle_answer(world.now, Err("connection refused".into()));
    let (failing, _) = world.driver.failing(world.now).unwrap();
    assert!(failing < ms(6_000), "{failing:?}");
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
