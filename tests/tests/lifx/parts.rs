//! Hardware that is more than a light: infrared, cleaning and relays, which aiolifx sees as the adapter left them, and
//! the other way round. The emulator's HTTP API tells nothing of these.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[tokio::test]
async fn an_infrared_emitter_is_a_light_that_dims() {
    let (mut rig, found) = Rig::part(NIGHT_VISION, "infrared").await;
    assert!(found.name.ends_with(" infrared"), "{}", found.name);
    let Capabilities::Light(can) = found.capabilities else { panic!("no light: {found:?}") };
    assert!(can.brightness && !can.transition && can.color.is_none() && can.color_temperature.is_none());

    rig.carried_out(Change::Light(brightness(40))).await;
    assert_eq!(rig.second_reader(&json!({})).await["infrared"], color::from_percent(40));
    rig.carried_out(Change::Light(on(false))).await;
    assert_eq!(rig.second_reader(&json!({})).await["infrared"], 0);
    rig.carried_out(Change::Switch { on: true }).await;
    assert_eq!(rig.second_reader(&json!({})).await["infrared"], color::from_percent(40), "as before");

    rig.second_reader(&json!({ "infrared": 9_000 })).await;
    rig.shows("what aiolifx set", |state| state.on && state.brightness == 9_000).await;
    rig.second_reader(&json!({ "infrared": 0 })).await;
    rig.shows("what aiolifx set", |state| !state.on && state.brightness == 9_000).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_cleaning_cycle_is_a_switch_with_the_time_that_remains() {
    let (mut rig, found) = Rig::part(CLEAN, "clean").await;
    assert!(found.name.ends_with(" clean") && found.capabilities == Capabilities::Switch, "{found:?}");
    assert_eq!(found.sensors.keys().collect::<Vec<_>>(), ["last_result", "remaining"]);
    rig.is_on(false).await;
    rig.carried_out(Change::Switch { on: true }).await;
    assert_eq!(rig.second_reader(&json!({})).await["clean"], 7_200, "as long as the bulb itself is set to");
    rig.carried_out(Change::Switch { on: false }).await;
    assert_eq!(rig.second_reader(&json!({})).await["clean"], 0);

    rig.second_reader(&json!({ "clean": 600 })).await;
    rig.is_on(true).await;
    let remaining = |reading: &Reading| match reading {
        Reading::Measured { values, .. } if values["remaining"] == Measurement::Number(600.0) => Some(()),
        _ => None,
    };
    rig.adapter.next("the time that remains", remaining).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_cleaning_cycle_is_as_long_as_the_settings_say() {
    let settings = |link: &Link| json!({ "addresses": [link.address().to_string()], "broadcast": [], "clean_minutes": 30 });
    let mut rig = Rig::with(CLEAN, settings).await;
    rig.device = DeviceId::new(format!("lifx-{SERIAL}-clean")).unwrap();
    rig.found().await;
    rig.own(true).await;
    rig.carried_out(Change::Switch { on: true }).await;
    assert_eq!(rig.second_reader(&json!({})).await["clean"], 1_800);
    rig.stop().await;
}

#[tokio::test]
async fn each_relay_of_a_switch_is_a_switch() {
    let (mut rig, found) = Rig::part(SWITCH, "relay-3").await;
    assert!(found.name.ends_with(" relay 3") && found.capabilities == Capabilities::Switch, "{found:?}");
    rig.is_on(false).await;
    rig.carried_out(Change::Switch { on: true }).await;
    assert_eq!(rig.second_reader(&json!({})).await["relays"], json!([false, false, true, false]));

    rig.second_reader(&json!({ "relay": [2, false] })).await;
    rig.is_on(false).await;
    rig.link.set(Fault { lose_requests: LOSS, lose_answers: LOSS, ..Fault::default() });
    for on in [true, false, true] {
        let command = rig.adapter.command(&rig.device, Change::Switch { on }, Duration::from_secs(10)).await;
        assert_eq!(rig.life_of(command).await.last(), Some(&Stage::Confirmed));
    }
    assert_eq!(rig.second_reader(&json!({})).await["relays"], json!([false, false, true, false]));
    rig.stop().await;
}

#[tokio::test]
async fn all_parts_of_a_switch_are_gone_and_back_together() {
    let (mut rig, _) = Rig::part(SWITCH, "relay-1").await;
    let others = [2, 3, 4].map(|number| DeviceId::new(format!("lifx-{SERIAL}-relay-{number}")).unwrap());
    for other in &others {
        rig.adapter.own(other, true).await;
    }
    let all = [std::slice::from_ref(&rig.device), &others].concat();
    for device in &all {
        rig.adapter.available(device, Availability::Online).await;
    }
    rig.emulator.ignore_requests(1.0).await.unwrap();
    for device in &all {
        let reason = rig.adapter.available(device, Availability::Offline).await;
        assert!(reason.contains("3 polls"), "{reason}");
    }
    rig.emulator.answer_all().await.unwrap();
    for device in &all {
        assert_eq!(rig.adapter.available(device, Availability::Online).await, "the switch answers again");
    }
    rig.carried_out(Change::Switch { on: true }).await;
    rig.stop().await;
}
