//! The life of commands.

use super::*;
use crate::model::Source;

fn on(on: bool) -> Change {
    light(json!({ "on": on }))
}

#[test]
fn a_command_is_confirmed_by_what_the_device_tells_after_the_broker_took_it() {
    let mut world = with_bulb();
    world.message("zigbee2mqtt/bulb", r#"{"state":"OFF","brightness":254}"#);
    world.take_all();
    world.ask(BULB, 1, light(json!({ "on": true, "brightness": 32768 })));
    let sent = world.take_all();
    let sent: Vec<_> =
        sent.iter().map(|sent| (sent.topic.as_str(), sent.payload.as_str(), sent.retain)).collect();
    assert_eq!(sent, [("zigbee2mqtt/bulb/set", r#"{"brightness":127,"state":"ON"}"#, false)]);
    // What the broker kept from before proves nothing, even if it fits.
    world.retained("zigbee2mqtt/bulb", r#"{"state":"ON","brightness":127}"#);
    world.retained("zigbee2mqtt/bulb", r#"{"state":"OFF","brightness":254}"#);
    assert_eq!(world.stages(1), [Stage::Sent]);
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON","brightness":254}"#);
    assert_eq!(world.stages(1), [Stage::Sent], "it is on, but not yet dimmed");
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON","brightness":127}"#);
    assert_eq!(world.stages(1), [Stage::Sent, Stage::Confirmed]);
    assert_eq!(world.state(BULB).unwrap().1, Some(command(1)));
}

#[test]
fn what_a_device_tells_before_the_broker_took_the_command_confirms_only_as_a_change() {
    let mut world = with_bulb();
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    world.take_all();
    world.ask(BULB, 1, on(true));
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    world.take_all();
    assert_eq!(world.stages(1), [Stage::Sent], "it was on before");
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    assert_eq!(world.stages(1).last(), Some(&Stage::Confirmed));

    world.ask(BULB, 2, on(false));
    world.message("zigbee2mqtt/bulb", r#"{"state":"OFF"}"#);
    assert_eq!(world.stages(2), [], "it is not sent so soon after the last");
    world.wait(ms(200));
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    world.wait(ms(0));
    world.take_all();
    world.message("zigbee2mqtt/bulb", r#"{"state":"OFF"}"#);
    assert_eq!(world.stages(2).last(), Some(&Stage::Confirmed));
}

#[test]
fn a_device_that_does_not_repeat_what_it_shows_is_assumed_and_asked_where_it_can_be() {
    let mut world = with_bulb();
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    world.take_all();
    world.ask(BULB, 1, on(true));
    world.take_all();
    world.wait(ms(1_100));
    assert!(world.sent.iter().any(|sent| sent.topic == "zigbee2mqtt/bulb/get"), "{:?}", world.sent);
    world.wait(ms(2_500));
    assert_eq!(world.stages(1), [Stage::Sent, Stage::Assumed]);
}

#[test]
fn an_answer_that_tells_the_presence_as_well_is_no_return() {
    let mut world = World::new();
    world.announce("switch/plug", &json!({
        "command_topic": "plug/set", "state_topic": "plug", "value_template": "{{ value_json.state }}", "unique_id": "plug",
        "availability_topic": "plug", "availability_template": "{{ value_json.link }}"
    }));
    world.wait(ms(400));
    world.direct(Directive::Own { device: id("mqtt-plug"), owned: true });
    world.message("plug", r#"{"state":"OFF","link":"online"}"#);
    world.take_all();
    world.ask("mqtt-plug", 1, Change::Switch { on: true });
    let is_set = |sent: &Sent| sent.topic == "plug/set";
    assert_eq!(world.take_all().iter().filter(|sent| is_set(sent)).count(), 1);
    world.message("plug", r#"{"state":"ON","link":"online"}"#);
    assert_eq!(world.stages(1).last(), Some(&Stage::Confirmed));
    world.wait(ms(2_000));
    assert!(!world.take_all().iter().any(is_set), "it is not sent again");
}

#[test]
fn a_device_that_tells_something_else_times_out_and_says_what() {
    let mut world = with_bulb();
    world.take_all();
    world.ask(BULB, 1, on(true));
    world.take_all();
    world.message("zigbee2mqtt/bulb", r#"{"state":"OFF","brightness":254}"#);
    world.wait(ms(11_000));
    let stages = world.stages(1);
    let [Stage::Sent, Stage::TimedOut { reason }] = &stages[..] else { panic!("{stages:?}") };
    assert!(reason.contains("zigbee2mqtt/bulb") && reason.contains("off"), "{reason}");
}

#[test]
fn what_was_told_before_the_command_completes_no_confirmation() {
    let mut world = with_bulb();
    world.message("zigbee2mqtt/bulb", r#"{"state":"OFF","brightness":254}"#);
    world.take_all();
    world.ask(BULB, 1, light(json!({ "on": true, "brightness": 32768 })));
    world.take_all();
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    world.driver.disconnected(world.now, "gone");
    world.driver.connected(world.now);
    world.settle();
    // Kept by the broker, from whenever.
    world.retained("zigbee2mqtt/bulb", r#"{"state":"ON","brightness":127}"#);
    world.wait(ms(1_100));
    assert_eq!(world.stages(1), [Stage::Sent, Stage::Assumed]);
}

#[test]
fn after_a_cut_only_what_the_device_tells_anew_confirms() {
    let mut world = with_bulb();
    world.message("zigbee2mqtt/bulb", r#"{"state":"OFF"}"#);
    world.take_all();
    world.driver.disconnected(world.now, "gone");
    world.ask(BULB, 1, on(true));
    world.driver.connected(world.now);
    world.settle();
    world.take_all();
    world.retained("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    world.retained("zigbee2mqtt/bridge/state", r#"{"state":"online"}"#);
    world.retained("zigbee2mqtt/bulb/availability", r#"{"state":"online"}"#);
    assert_eq!(world.stages(1), [Stage::Sent]);
    assert!(world.take_all().iter().any(|sent| sent.topic == "zigbee2mqtt/bulb/get"));
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    assert_eq!(world.stages(1), [Stage::Sent, Stage::Confirmed]);
}

#[test]
fn dimming_alone_does_not_switch_a_light_on() {
    let mut world = with_bulb();
    world.message("zigbee2mqtt/bulb", r#"{"state":"OFF","brightness":254}"#);
    world.take_all();
    world.ask(BULB, 1, light(json!({ "brightness": 32768 })));
    assert!(
        matches!(&world.stages(1)[..], [Stage::Failed { reason }] if reason.contains("it is off")),
        "{:?}",
        world.stages(1)
    );
    assert!(world.take_all().is_empty());
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON","brightness":254}"#);
    world.ask(BULB, 2, light(json!({ "brightness": 32768 })));
    assert_eq!(world.take_all()[0].payload, r#"{"brightness":127,"state":"ON"}"#);
}

#[test]
fn an_effect_that_no_state_names_is_assumed() {
    let mut world = with_bulb();
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    world.take_all();
    world.ask(BULB, 1, light(json!({ "effect": "blink" })));
    assert_eq!(world.take_all()[0].payload, r#"{"effect":"blink","state":"ON"}"#);
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON"}"#);
    world.wait(ms(1_200));
    assert_eq!(world.stages(1), [Stage::Sent, Stage::Assumed]);
}

#[test]
fn a_slider_sends_the_newest_at_the_pace_of_the_device() {
    let mut world = with_bulb();
    world.take_all();
    for step in 0..50 {
        world.ask(BULB, step, light(json!({ "brightness": u32::from(step) * 1000 + 1000 })));
        world.wait(ms(10));
    }
    world.wait(ms(200));
    let sent = world.take_all();
    let sent: Vec<_> = sent.iter().filter(|sent| sent.topic.ends_with("/set")).collect();
    assert!((5..=7).contains(&sent.len()), "{} in half a second", sent.len());
    assert!(sent.last().unwrap().payload.contains("194"), "{sent:?}");
    for step in 0..49 {
        assert_eq!(world.stages(step).last(), Some(&Stage::Superseded), "{step}");
    }
    world.message("zigbee2mqtt/bulb", r#"{"state":"ON","brightness":194}"#);
    assert_eq!(world.stages(49).last(), Some(&Stage::Confirmed));
}

#[test]
fn what_was_not_taken_is_sent_again_after_a_cut_but_no_press() {
    let mut world = with_bulb();
    world.announce("button/other/press", &json!({ "command_topic": "gate/open", "unique_id": "gate" }));
    world.wait(ms(400));
    world.own("mqtt-gate");
    world.take_all();
    world.ask(BULB, 1, on(true));
    world.ask("mqtt-gate", 2, Change::Press);
    let sent: Vec<_> = std::mem::take(&mut world.sent).into_iter().map(|sent| sent.topic).collect();
    assert_eq!(sent, ["zigbee2mqtt/bulb/set", "gate/open"]);
    world.driver.disconnected(world.now, "gone");
    world.settle();
    world.ask(BULB, 3, on(false));
    world.wait(ms(1_000));
    assert!(world.sent.is_empty());
    world.driver.connected(world.now);
    world.settle();
    let again = world.take_all();
    let sets: Vec<_> =
        again.iter().filter(|sent| sent.token.is_some()).map(|sent| sent.payload.as_str()).collect();
    assert_eq!(sets, [r#"{"state":"OFF"}"#], "{again:?}");
    assert_eq!(world.stages(1), [Stage::Sent, Stage::Superseded]);
    world.wait(ms(10_000));
    assert!(
        matches!(&world.stages(2)[..], [Stage::Sent, Stage::TimedOut { reason }] if reason.contains("did not take"))
    );
}

#[test]
fn without_a_broker_a_command_ends_at_its_deadline() {
    let mut world = with_bulb();
    world.driver.disconnected(world.now, "gone");
    world.ask(BULB, 1, on(true));
    world.wait(ms(10_100));
    assert!(matches!(&world.stages(1)[..], [Stage::TimedOut { reason }] if reason.contains("no connection")));
}

#[test]
fn a_switch_without_a_state_and_a_button_are_assumed_once_the_broker_took_it() {
    let mut world = World::new();
    world.announce(
        "switch/pump",
        &json!({ "command_topic": "pump/set", "unique_id": "pump", "payload_on": 1, "payload_off": 0 }),
    );
    world.announce("button/gate", &json!({ "command_topic": "gate/set", "unique_id": "gate", "command_template": "{\"do\":\"{{ value }}\"}" }));
    world.wait(ms(400));
    world.own("mqtt-pump");
    world.own("mqtt-gate");
    world.ask("mqtt-pump", 1, Change::Switch { on: true });
    world.ask("mqtt-gate", 2, Change::Press);
    assert_eq!(world.stages(1), [Stage::Sent]);
    let sent: Vec<_> = world
        .take_all()
        .into_iter()
        .filter(|sent| sent.token.is_some())
        .map(|sent| (sent.topic, sent.payload))
        .collect();
    assert_eq!(
        sent,
        [("pump/set".to_owned(), "1".to_owned()), ("gate/set".to_owned(), "{\"do\":\"PRESS\"}".to_owned())]
    );
    assert_eq!(world.stages(1), [Stage::Sent, Stage::Assumed]);
    assert_eq!(world.stages(2), [Stage::Sent, Stage::Assumed]);
    assert!(world.readings.iter().any(|reading| matches!(
        reading,
        Reading::Reported { state: State::Switch { on: true }, source: Source::Assumed, .. }
    )));
}

#[test]
fn what_cannot_be_done_fails_at_once_with_the_reason() {
    let mut world = with_bulb();
    world.ask("mqtt-nothing", 1, on(true));
    assert!(matches!(&world.stages(1)[..], [Stage::Failed { reason }] if reason.contains("mqtt-nothing")));
    world.ask(BULB, 2, Change::Press);
    assert!(matches!(&world.stages(2)[..], [Stage::Failed { .. }]));
    world.direct(Directive::Own { device: id(BULB), owned: false });
    world.ask(BULB, 3, on(true));
    assert!(matches!(&world.stages(3)[..], [Stage::Failed { reason }] if reason.contains("does not own")));
    world.own(BULB);
    world.take_all();
    world.ask(BULB, 4, on(true));
    let token = world.sent.iter().find_map(|sent| sent.token).unwrap();
    world.driver.published(world.now, token, &Err("NotAuthorized".to_owned()));
    world.settle();
    assert!(
        matches!(&world.stages(4)[..], [Stage::Sent, Stage::Failed { reason }] if reason.contains("NotAuthorized"))
    );
}
