//! Hardware that is more than a light: infrared emitters, cleaning cycles, relays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

const NIGHT_VISION: u32 = 109;
const CLEAN: u32 = 90;
const SWITCH: u32 = 70;

fn part(called: &str) -> DeviceId {
    DeviceId::new(format!("lifx-d073d5001337-{called}")).unwrap()
}

fn relay(number: usize) -> DeviceId {
    part(&format!("relay-{number}"))
}

/// Hardware of that product of which these parts are owned, and have reported.
fn owning(product: u32, parts: &[DeviceId]) -> World {
    owning_with(product, parts, json!({}))
}

fn owning_with(product: u32, parts: &[DeviceId], settings: serde_json::Value) -> World {
    let mut all = json!({ "addresses": ["192.0.2.7"], "broadcast": [] });
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let mut world = World::with(all);
    world.product = product;
    for part in parts {
        world.own_part(part.clone(), true);
    }
    world.run(Duration::from_secs(2));
    for part in parts {
        assert_eq!(states(&world, part).len(), 1, "{part}: {:?}", world.readings);
    }
    world
}

/// All states that were told of a device, with the command that each follows.
fn states(world: &World, of: &DeviceId) -> Vec<(State, Option<CommandId>)> {
    let told = world.readings.iter().filter_map(|(_, reading)| match reading {
        Reading::Reported { device, state, command, .. } if device == of => Some((state.clone(), *command)),
        _ => None,
    });
    told.collect()
}

/// What the sensors of a device yielded last.
fn measured(world: &World, of: &DeviceId) -> BTreeMap<String, Measurement> {
    let told = world.readings.iter().rev().find_map(|(_, reading)| match reading {
        Reading::Measured { device, values } if device == of => Some(values.clone()),
        _ => None,
    });
    told.unwrap()
}

/// Whether the light was asked for its state, or any part told to change.
fn touched(world: &World) -> bool {
    let touches = |request: &Request| {
        request.is_set()
            || matches!(
                request,
                Request::LightGet | Request::GetInfrared | Request::GetHevCycle | Request::GetRPower(_)
            )
    };
    world.sent.iter().any(|(_, request)| touches(request))
}

fn infrared_of(world: &World) -> (bool, u16) {
    match states(world, &part("infrared")).pop().unwrap().0 {
        State::Light(light) => (light.on, light.brightness),
        other => panic!("{other:?}"),
    }
}

/// Tells a part, and sees it confirmed.
fn confirmed(world: &mut World, device: DeviceId, number: u8, change: Change) {
    world.tell(device, number, change, PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(number), CONFIRMED);
}

fn switched(on: bool) -> Change {
    Change::Switch { on }
}

#[test]
fn each_part_is_a_device_of_its_own_and_left_alone_until_owned() {
    let light = |name: &str, id: DeviceId| (id, name.to_owned(), "light");
    let switch = |name: &str, id: DeviceId| (id, name.to_owned(), "switch");
    for (product, parts) in [
        (NIGHT_VISION, vec![light("Kitchen", device()), light("Kitchen infrared", part("infrared"))]),
        (CLEAN, vec![light("Kitchen", device()), switch("Kitchen clean", part("clean"))]),
        (SWITCH, (1..=4).map(|n| switch(&format!("Kitchen relay {n}"), relay(n))).collect()),
    ] {
        let mut world = World::new();
        world.product = product;
        world.run(Duration::from_secs(20));
        let noun = |device: &Description| match device.capabilities {
            Capabilities::Light(_) => "light",
            Capabilities::Switch => "switch",
            _ => "another",
        };
        let found = world.found();
        let told: Vec<_> =
            found.iter().map(|device| (device.id.clone(), device.name.clone(), noun(device))).collect();
        assert_eq!(told, parts);
        assert!(found.iter().all(|device| device.firmware.as_deref() == Some("3.70")));
        assert!(!touched(&world), "{:?}", world.sent);
    }
}

#[test]
fn an_infrared_emitter_only_dims_and_a_bulb_is_polled_for_its_owned_parts_alone() {
    let mut world = owning(NIGHT_VISION, &[part("infrared")]);
    assert_eq!(infrared_of(&world), (true, 16_384));
    let dims = LightCapabilities { brightness: true, ..LightCapabilities::default() };
    assert_eq!(world.found()[1].capabilities, Capabilities::Light(dims));
    world.run(Duration::from_secs(30));
    assert!(!world.sent.iter().any(|(_, request)| *request == Request::LightGet));
    world.tell(part("infrared"), 1, Change::Light(kelvin(2_700)), PATIENCE);
    world.light(2, power(true), PATIENCE);
    world.flush();
    assert!(matches!(&world.life_of(1)[..], [Stage::Failed { reason }] if reason.contains("temperature")));
    assert!(matches!(&world.life_of(2)[..], [Stage::Failed { reason }] if reason.contains("does not own")));
}

#[test]
fn infrared_that_is_switched_on_returns_to_the_brightness_that_was_seen_or_asked_for_last() {
    let mut world = owning(NIGHT_VISION, &[part("infrared")]);
    let tell = |world: &mut World, number: u8, change: LightChange| {
        confirmed(world, part("infrared"), number, Change::Light(change));
        (world.infrared, infrared_of(world))
    };
    assert_eq!(tell(&mut world, 1, power(false)), (0, (false, 16_384)));
    assert_eq!(tell(&mut world, 2, power(true)), (16_384, (true, 16_384)));
    world.infrared = 30_000; // by another app
    world.run(Duration::from_secs(2));
    assert_eq!(tell(&mut world, 3, power(true)), (30_000, (true, 30_000)), "it is on as it was");
    assert_eq!(tell(&mut world, 4, LightChange { on: Some(false), ..dim(9_000) }), (0, (false, 9_000)));
    assert_eq!(tell(&mut world, 5, dim(8_000)), (0, (false, 8_000)), "what is off stays off");
    assert_eq!(tell(&mut world, 6, power(true)), (8_000, (true, 8_000)));
    assert_eq!(tell(&mut world, 7, LightChange { on: Some(true), ..dim(0) }), (1, (true, 1)));
    let fading = LightChange { transition_ms: 60_000, ..dim(50_000) };
    assert_eq!(tell(&mut world, 8, fading), (50_000, (true, 50_000)), "it does not fade");
}

#[test]
fn infrared_that_was_never_seen_on_is_switched_on_at_full() {
    let mut world = World::new();
    (world.product, world.infrared) = (NIGHT_VISION, 0);
    world.own_part(part("infrared"), true);
    world.run(Duration::from_secs(1));
    assert_eq!(infrared_of(&world), (false, u16::MAX));
    confirmed(&mut world, part("infrared"), 1, Change::Light(power(true)));
    assert_eq!(world.infrared, u16::MAX);
}

#[test]
fn a_cleaning_cycle_is_a_switch_that_is_on_while_it_runs() {
    for (settings, seconds) in [(json!({}), 0), (json!({ "clean_minutes": 30 }), 1_800)] {
        let mut world = owning_with(CLEAN, &[part("clean")], settings);
        assert_eq!(states(&world, &part("clean"))[0].0, State::Switch { on: false });
        confirmed(&mut world, part("clean"), 1, switched(true));
        assert!(world.sent.iter().any(|(_, request)| *request == Request::SetHevCycle(true, seconds)));
        assert!(world.cleaning > 0);
        let told = measured(&world, &part("clean"));
        assert_eq!(told["remaining"], Measurement::Number(world.cleaning.into()));
        assert_eq!(told["last_result"], Measurement::Text("none".to_owned()));

        (world.cleaning, world.last_result) = (0, 0); // it is over
        world.run(Duration::from_secs(11));
        assert_eq!(states(&world, &part("clean")).pop().unwrap().0, State::Switch { on: false });
        let told = measured(&world, &part("clean"));
        assert_eq!(told["remaining"], Measurement::Number(0.0));
        assert_eq!(told["last_result"], Measurement::Text("success".to_owned()));

        world.cleaning = 60; // by another app
        confirmed(&mut world, part("clean"), 2, switched(false));
        assert_eq!(world.cleaning, 0);
    }
}

#[test]
fn how_the_last_cycle_ended_is_unknown_where_the_bulb_does_not_tell_or_tells_nonsense() {
    let why = |world: &World| match measured(world, &part("clean"))["last_result"].clone() {
        Measurement::Unknown(why) => why,
        other => panic!("{other:?}"),
    };
    let mut world = World::new();
    (world.product, world.unknown) = (CLEAN, vec![148]);
    world.own_part(part("clean"), true);
    world.run(Duration::from_secs(1));
    assert!(why(&world).contains("does not tell"));
    let mut world = World::new();
    (world.product, world.deaf_to) = (CLEAN, vec![148]);
    world.own_part(part("clean"), true);
    world.run(Duration::from_secs(1));
    assert!(why(&world).contains("not told it yet"));
    world.deaf_to.clear();
    world.last_result = 17;
    world.run(Duration::from_secs(11));
    assert!(why(&world).contains("17"));
}

#[test]
fn a_relay_is_switched_and_confirmed_by_its_own_number() {
    let relays: Vec<DeviceId> = (1..=4).map(relay).collect();
    let mut world = owning(SWITCH, &relays);
    for (index, device) in relays.iter().enumerate() {
        let number = u8::try_from(index).unwrap() + 1;
        let before = world.relays;
        confirmed(&mut world, device.clone(), number, switched(true));
        let mut wanted = before;
        wanted[index] = u16::MAX;
        assert_eq!(world.relays, wanted);
        let reported = states(&world, device);
        assert_eq!(reported.last(), Some(&(State::Switch { on: true }, Some(id(number)))));
    }
    assert!(relays.iter().all(|device| states(&world, device).len() == 2), "a relay tells of itself alone");
    world.relays[2] = 1; // nobody documents what that is; it is not off
    world.relays[3] = 0; // by hand
    world.run(Duration::from_secs(11));
    assert_eq!(states(&world, &relays[2]).len(), 2);
    assert_eq!(states(&world, &relays[3]).pop().unwrap().0, State::Switch { on: false });
    assert!(!world.sent.iter().any(|(_, request)| *request == Request::LightGet), "it is no light");
}

#[test]
fn parts_that_acknowledge_and_ignore_time_out_and_say_what_they_show() {
    for (product, device, change, words) in [
        (SWITCH, relay(2), switched(true), "the switch acknowledged, but reads back off instead of on"),
        (CLEAN, part("clean"), switched(true), "the bulb acknowledged, but reads back off instead of on"),
        (
            NIGHT_VISION,
            part("infrared"),
            Change::Light(power(false)),
            "reads back on, brightness 25 % instead of off",
        ),
    ] {
        let mut world = owning(product, std::slice::from_ref(&device));
        world.ignores = true;
        world.tell(device, 1, change, PATIENCE);
        world.run(PATIENCE + ms(50));
        let life = world.life_of(1);
        let [Stage::Sent, Stage::Acknowledged, Stage::TimedOut { reason }] = &life[..] else {
            panic!("{life:?}")
        };
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn parts_that_hardware_does_not_know_are_refused_with_words() {
    for (product, device, change, set) in [
        (SWITCH, relay(4), switched(true), 817),
        (CLEAN, part("clean"), switched(true), 143),
        (NIGHT_VISION, part("infrared"), Change::Light(power(false)), 122),
    ] {
        let mut world = owning(product, std::slice::from_ref(&device));
        world.unknown = vec![set];
        world.tell(device, 1, change, PATIENCE);
        world.run(ms(100));
        let life = world.life_of(1);
        let Some(Stage::Failed { reason }) = life.last() else { panic!("{life:?}") };
        assert!(reason.contains(&format!("messages of type {set}")), "{reason}");
    }
    let mut world = World::new();
    world.run(Duration::from_secs(1));
    world.own_part(part("infrared"), true);
    world.tell(part("infrared"), 1, Change::Light(power(true)), PATIENCE);
    world.flush();
    assert!(matches!(&world.life_of(1)[..], [Stage::Failed { reason }] if reason.contains("has not told")));
}

#[test]
fn with_30_percent_lost_both_ways_every_part_is_confirmed_and_none_goes_offline() {
    for seed in 1..=40 {
        for (product, device, change) in [
            (SWITCH, relay(3), switched(true)),
            (CLEAN, part("clean"), switched(true)),
            (NIGHT_VISION, part("infrared"), Change::Light(dim(3_000))),
        ] {
            let mut world = owning(product, std::slice::from_ref(&device));
            world.noise = seed * 0x9e37_79b9;
            world.loss = 0.3;
            world.run(ms(1_100 + seed));
            world.tell(device, 1, change, PATIENCE);
            world.run(Duration::from_secs(60));
            assert_eq!(world.life_of(1), CONFIRMED, "seed {seed}");
            assert_eq!(world.availabilities().len(), 1, "seed {seed}: {:?}", world.availabilities());
        }
    }
}

#[test]
fn all_parts_together_stay_under_the_rate() {
    let relays: Vec<DeviceId> = (1..=4).map(relay).collect();
    let lights = [device(), part("infrared")];
    for (product, parts) in [(SWITCH, &relays[..]), (NIGHT_VISION, &lights[..])] {
        let mut world = owning(product, parts);
        let mut number = 0;
        for step in 0..50 {
            for part in parts {
                number += 1;
                let change = match product {
                    SWITCH => switched(step % 2 == 0),
                    _ => Change::Light(LightChange { on: Some(true), ..dim(1_000 * (step + 1)) }),
                };
                world.tell(part.clone(), number, change, PATIENCE);
                world.run(ms(9));
            }
        }
        world.run(PATIENCE);
        assert!(world.most_in_a_second() <= 20, "{} messages", world.most_in_a_second());
        for last in 0..u8::try_from(parts.len()).unwrap() {
            assert_eq!(world.life_of(number - last).last(), Some(&Stage::Confirmed));
        }
        match product {
            SWITCH => assert_eq!(world.relays, [0; 4]),
            _ => assert_eq!((world.hsbk.brightness, world.infrared), (50_000, 50_000)),
        }
    }
}

#[test]
fn parts_are_gone_and_back_together() {
    let relays: Vec<DeviceId> = (1..=4).map(relay).collect();
    let mut world = owning(SWITCH, &relays);
    world.silent = true;
    world.run(Duration::from_secs(200));
    let told = |world: &World, wanted: Availability| {
        let of: Vec<(DeviceId, Instant)> = world
            .readings
            .iter()
            .filter_map(|(at, reading)| match reading {
                Reading::Availability { device, availability, .. } if *availability == wanted => {
                    Some((device.clone(), *at))
                }
                _ => None,
            })
            .collect();
        of
    };
    let offline = told(&world, Availability::Offline);
    assert_eq!(offline.iter().map(|(device, _)| device.clone()).collect::<Vec<_>>(), relays);
    assert!(offline.iter().all(|(_, at)| *at == offline[0].1), "all at once");
    let lost = world.readings.iter().filter(|(_, reading)| matches!(reading, Reading::Lost { .. })).count();
    assert_eq!(lost, 4);
    let late = world.now - Duration::from_secs(60);
    let probes = world.sent.iter().filter(|(at, _)| *at > late).count();
    assert!(probes <= 240, "{probes} messages to what is not there in a minute");

    world.silent = false;
    world.relays = [u16::MAX; 4];
    world.run(Duration::from_secs(12));
    assert_eq!(told(&world, Availability::Online).len(), 8);
    assert!(
        relays.iter().all(|device| states(&world, device).pop().unwrap().0 == State::Switch { on: true })
    );
    assert_eq!(world.found().len(), 8, "found again");
}

#[test]
fn each_part_has_an_owner_of_its_own() {
    let mut world = owning(SWITCH, &[relay(1), relay(2)]);
    world.silent = true;
    world.tell(relay(1), 1, switched(true), PATIENCE);
    world.tell(relay(2), 2, switched(true), PATIENCE);
    world.own_part(relay(1), false);
    world.run(ms(20));
    assert!(
        matches!(world.life_of(1).last(), Some(Stage::Failed { reason }) if reason.contains("another node"))
    );
    world.silent = false;
    world.run(PATIENCE);
    assert_eq!(world.life_of(2), CONFIRMED);
    assert_eq!(world.relays, [0, u16::MAX, 0, 0]);
    let asked = world.sent.len();
    world.run(Duration::from_secs(30));
    let of = |relay: u8| world.sent[asked..].iter().any(|(_, request)| *request == Request::GetRPower(relay));
    assert!(!of(0) && of(1), "what is not owned is not polled");

    world.own_part(relay(2), false);
    world.silent = true;
    world.run(Duration::from_secs(400)); // nobody needs it: forgotten
    world.silent = false;
    world.own_part(relay(3), true);
    world.relays[2] = u16::MAX;
    world.run(Duration::from_secs(60));
    assert_eq!(states(&world, &relay(3)).pop().unwrap().0, State::Switch { on: true });
    assert_eq!(states(&world, &relay(1)).len(), 1);
}

#[test]
fn an_answer_about_another_relay_and_a_second_product_change_nothing() {
    let mut world = owning(SWITCH, &[relay(1)]);
    let before = (world.readings.len(), world.driver.dropped().unexpected);
    let mut forged = 0;
    for round in 0..40 {
        world.driver.handle_directive(world.now, Directive::Refresh { device: relay(1) });
        world.silent = true;
        world.flush();
        let replies = [
            Reply::StateRPower { relay: 1, level: u16::MAX },
            Reply::StateRPower { relay: 255, level: u16::MAX },
            Reply::StateVersion { vendor: 1, product: NIGHT_VISION },
            Reply::StateInfrared(9),
            Reply::StateHevCycle { remaining_s: u32::MAX },
        ];
        for reply in replies {
            forged += 1;
            let message = Incoming { source: SOURCE, target: SERIAL, sequence: round, reply };
            world.driver.handle_datagram(world.now, ADDRESS.parse().unwrap(), &peer::encode_reply(&message));
        }
        world.run(ms(5));
    }
    assert_eq!((world.readings.len(), world.driver.dropped().unexpected), (before.0, before.1 + forged));
}

#[test]
fn a_new_label_renames_all_parts() {
    let mut world = owning(NIGHT_VISION, &[device(), part("infrared")]);
    world.label = "Porch";
    world.run(Duration::from_secs(11));
    let names: Vec<String> = world.found().into_iter().map(|device| device.name).collect();
    assert_eq!(names[2..], ["Porch", "Porch infrared"]);
}
