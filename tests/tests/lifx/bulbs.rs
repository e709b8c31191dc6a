//! Bulbs of one colour: found, commanded, lying, gone and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[tokio::test]
async fn a_bulb_at_a_configured_address_is_found_and_asked_only_when_owned() {
    let mut rig = Rig::new(COLOR_BULB).await;
    let found = rig.found().await;
    assert_eq!((found.id.as_str(), found.adapter.as_str()), ("lifx-d073d5000001", "lifx"));
    assert_eq!(found.model, "LIFX product 163");
    assert_eq!(found.note, None);
    assert!(found.firmware.is_some() && !found.name.is_empty());
    let Capabilities::Light(can) = found.capabilities else { panic!("no light: {found:?}") };
    assert!(can.brightness && can.transition && can.color == Some(Gamut::SRGB));
    let whites = can.color_temperature.unwrap();
    assert_eq!((whites.min_k, whites.max_k), (1_500, 9_000));

    let refused = rig.change(on(true)).await;
    let life = rig.life_of(refused).await;
    assert!(matches!(&life[..], [Stage::Failed { reason }] if reason.contains("does not own")), "{life:?}");
    assert!(!rig.adapter.seen.iter().any(|reading| matches!(reading, Reading::Reported { .. })));

    rig.own(true).await;
    assert_eq!(rig.availability(Availability::Online).await, "the bulb answers");
    assert_eq!(rig.reported().await.1, None);
    rig.stop().await;
}

#[tokio::test]
async fn a_bulb_found_by_discovery_is_spoken_to_at_the_port_it_tells() {
    // The question goes through the link, as a broadcast would; what the bulb tells is its own port.
    let settings = |link: &Link| json!({ "broadcast": [link.address().to_string()] });
    let mut rig = Rig::with(COLOR_BULB, settings).await;
    assert_eq!(rig.found().await.address, Some(rig.emulator.address().to_string()));
    rig.own(true).await;
    rig.link.set(Fault { lose_requests: 1.0, lose_answers: 1.0, ..Fault::default() });
    rig.confirmed(on(false)).await;
    rig.stop().await;
}

#[tokio::test]
async fn on_off_brightness_colour_and_kelvin_are_confirmed_by_what_the_bulb_shows() {
    let mut rig = Rig::owning(COLOR_BULB).await;
    assert_eq!(rig.confirmed(on(false)).await["power_level"], 0);
    assert_eq!(rig.confirmed(on(true)).await["power_level"], 65_535);

    let white = rig.confirmed(colored(ColorMode::Temperature { kelvin: 2_700 })).await;
    assert_eq!(
        (white["color"]["kelvin"].as_u64(), white["color"]["saturation"].as_u64()),
        (Some(2_700), Some(0))
    );

    let dimmed = rig.confirmed(brightness(40)).await;
    assert_eq!(dimmed["color"]["brightness"], color::from_percent(40));
    assert_eq!(dimmed["color"]["kelvin"], 2_700, "brightness alone leaves the colour as it is");

    let blue = rig.confirmed(colored(ColorMode::Color(Gamut::SRGB.blue))).await;
    let hue = blue["color"]["hue"].as_u64().unwrap();
    assert!(hue.abs_diff(43_690) < 200, "blue is at two thirds of the turn, not at {hue}");
    assert!(blue["color"]["saturation"].as_u64().unwrap() > 65_000);
    assert_eq!(blue["color"]["brightness"], color::from_percent(40));

    let all = LightChange {
        on: Some(false),
        brightness: Some(65_535),
        color: Some(ColorMode::Temperature { kelvin: 60_000 }),
        transition_ms: 0,
        ..LightChange::default()
    };
    let all = rig.confirmed(all).await;
    assert_eq!((all["power_level"].as_u64(), all["color"]["kelvin"].as_u64()), (Some(0), Some(9_000)));
    rig.stop().await;
}

#[tokio::test]
async fn a_bulb_of_whites_refuses_colours_and_says_what_it_can() {
    let mut rig = Rig::owning(WHITE_BULB).await;
    let refused = rig.change(colored(ColorMode::Color(Gamut::SRGB.red))).await;
    let life = rig.life_of(refused).await;
    assert!(matches!(&life[..], [Stage::Failed { reason }] if reason.contains("no colours")), "{life:?}");
    rig.confirmed(colored(ColorMode::Temperature { kelvin: 4_000 })).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_transition_is_confirmed_when_it_has_ended_and_not_before() {
    let mut rig = Rig::owning(COLOR_BULB).await;
    rig.confirmed(LightChange { on: Some(true), ..brightness(100) }).await;
    let begun = Instant::now();
    let shown = rig.confirmed(LightChange { transition_ms: 1_500, ..brightness(10) }).await;
    assert!(begun.elapsed() >= Duration::from_millis(1_500), "confirmed after {:?}", begun.elapsed());
    assert_eq!(shown["color"]["brightness"], color::from_percent(10));
    rig.stop().await;
}

#[tokio::test]
async fn brightness_does_not_undo_a_colour_that_another_app_chose() {
    let mut rig = Rig::seldom_polling(COLOR_BULB).await;
    rig.confirmed(LightChange {
        brightness: Some(30_000),
        ..colored(ColorMode::Temperature { kelvin: 2_700 })
    })
    .await;
    // Long enough for what is known of the bulb to be too old to build on.
    sleep_until(Instant::now() + Duration::from_millis(1_100)).await;
    let violet =
        json!({ "color": { "hue": 50_000, "saturation": 60_000, "brightness": 30_000, "kelvin": 3_500 } });
    rig.emulator.set(SERIAL, &violet).await.unwrap();
    let shown = rig.confirmed(brightness(80)).await;
    let color = &shown["color"];
    assert_eq!((&color["hue"], &color["saturation"]), (&json!(50_000), &json!(60_000)), "{shown:#}");
    rig.stop().await;
}

#[tokio::test]
async fn with_30_percent_lost_both_ways_every_command_is_confirmed() {
    let mut rig = Rig::owning(COLOR_BULB).await;
    rig.link.set(Fault { lose_requests: LOSS, lose_answers: LOSS, ..Fault::default() });
    for round in 0..6 {
        let change = LightChange { on: Some(round % 2 == 0), ..brightness(10 + round * 10) };
        let shown = rig.confirmed(change).await;
        assert_eq!(shown["color"]["brightness"], color::from_percent(10 + round * 10));
    }
    rig.link.set(Fault::default());
    rig.emulator.ignore_requests(LOSS).await.unwrap();
    rig.confirmed(on(true)).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_bulb_that_acknowledges_and_ignores_ends_timed_out_and_says_what_it_shows() {
    let mut rig = Rig::owning(COLOR_BULB).await;
    rig.confirmed(LightChange { on: Some(true), ..brightness(50) }).await;
    rig.link.set(Fault { ignore_sets: true, ..Fault::default() });
    let command = rig.change_within(brightness(10), Duration::from_secs(6)).await;
    let life = rig.life_of(command).await;
    let [Stage::Sent, Stage::Acknowledged, Stage::TimedOut { reason }] = &life[..] else {
        panic!("{life:?}");
    };
    assert!(reason.contains("brightness 50 %") && reason.contains("brightness 10 %"), "{reason}");
    rig.link.set(Fault::default());
    rig.confirmed(brightness(10)).await;
    rig.stop().await;
}

#[tokio::test]
async fn what_a_bulb_answers_after_the_deadline_confirms_nothing_and_hinders_nothing() {
    let mut rig = Rig::owning(COLOR_BULB).await;
    rig.confirmed(on(true)).await;
    rig.link.set(Fault { hold_answers: true, ..Fault::default() });
    let late = rig.change_within(on(false), Duration::from_secs(1)).await;
    let life = rig.life_of(late).await;
    let [Stage::Sent, Stage::TimedOut { reason }] = &life[..] else { panic!("{life:?}") };
    assert!(reason.contains("did not acknowledge before the deadline"), "{reason}");
    // It did it all the same, and says so when nobody waits for that any more.
    assert_eq!(rig.emulator.device(SERIAL).await.unwrap()["power_level"], 0);
    let before = rig.adapter.seen.len();
    rig.link.set(Fault::default());
    rig.is_on(false).await;
    rig.confirmed(on(true)).await;
    let told = rig.adapter.seen[before..].iter().any(|reading| match reading {
        Reading::Progress { command, .. } => *command == late,
        Reading::Reported { command, .. } => *command == Some(late),
        _ => false,
    });
    assert!(!told, "{:#?}", &rig.adapter.seen[before..]);
    rig.stop().await;
}

#[tokio::test]
async fn two_bulbs_with_one_serial_are_told_and_the_one_that_was_first_goes_on() {
    let (first, twin) =
        (Emulator::start(&[COLOR_BULB]).await.unwrap(), Emulator::start(&[COLOR_BULB]).await.unwrap());
    let settings = json!({
        "addresses": [first.address().to_string(), twin.address().to_string()], "broadcast": [],
        "bind": "127.0.0.1", "discover_s": 1, "poll_s": 0.5
    });
    let device = DeviceId::new(format!("lifx-{SERIAL}")).unwrap();
    let mut adapter = Running::start("lifx", &settings);
    adapter.own(&device, true).await;
    let told = |reading: &Reading| match reading {
        Reading::Found { device } => device.note.clone(),
        _ => None,
    };
    let note = adapter.next("that there are two", told).await;
    let is_used = |one: &Emulator| note.contains(&format!("the one at {} is used", one.address()));
    let (used, other) = if is_used(&first) { (&first, &twin) } else { (&twin, &first) };
    assert!(is_used(used) && note.contains(SERIAL) && note.contains(&other.address().to_string()), "{note}");
    let before = other.device(SERIAL).await.unwrap()["color"].take();
    for percent in [10, 60, 30] {
        assert_eq!(adapter.change(&device, Change::Light(brightness(percent))).await, Stage::Confirmed);
        assert_eq!(used.device(SERIAL).await.unwrap()["color"]["brightness"], color::from_percent(percent));
    }
    assert_eq!(other.device(SERIAL).await.unwrap()["color"], before, "the other one was told nothing");
    assert_eq!(adapter.seen.iter().filter_map(told).count(), 1, "it is told once");

    // The one that is used is switched off: the other takes its place.
    used.ignore_requests(1.0).await.unwrap();
    let end = Instant::now() + PATIENCE;
    while adapter.change(&device, Change::Light(brightness(80))).await != Stage::Confirmed {
        assert!(Instant::now() < end, "{:#?}", adapter.seen);
    }
    assert_eq!(other.device(SERIAL).await.unwrap()["color"]["brightness"], color::from_percent(80));
    adapter.stop().await;
}

#[tokio::test]
async fn a_bulb_that_vanishes_is_offline_with_a_reason_and_comes_back() {
    let mut rig = Rig::owning(COLOR_BULB).await;
    rig.emulator.ignore_requests(1.0).await.unwrap();
    let reason = rig.availability(Availability::Offline).await;
    assert!(reason.contains("no answer") && reason.contains("3 polls"), "{reason}");
    let command = rig.change_within(on(false), Duration::from_secs(1)).await;
    let life = rig.life_of(command).await;
    assert!(matches!(&life[..], [Stage::Sent, Stage::TimedOut { .. }]), "{life:?}");
    // Three rounds of discovery, a second each, are over by now.
    assert!(
        rig.adapter.seen.iter().any(|reading| matches!(reading, Reading::Lost { .. })),
        "{:#?}",
        rig.adapter.seen
    );

    rig.emulator.answer_all().await.unwrap();
    rig.availability(Availability::Online).await;
    rig.reported().await;
    rig.confirmed(on(false)).await;
    let founds = rig.adapter.seen.iter().filter(|reading| matches!(reading, Reading::Found { .. })).count();
    assert_eq!(founds, 2, "found, lost, found again");
    rig.stop().await;
}

#[tokio::test]
async fn a_slider_at_30_a_second_never_shows_an_older_command_after_a_newer() {
    let mut rig = Rig::owning(COLOR_BULB).await;
    rig.confirmed(on(true)).await;
    let (mut commands, begun) = (Vec::new(), Instant::now());
    for step in 0..90 {
        sleep_until(begun + Duration::from_millis(u64::from(step) * 1_000 / 30)).await;
        commands.push(rig.change(brightness(step + 5)).await);
    }
    let last = *commands.last().unwrap();
    assert_eq!(rig.life_of(last).await.last(), Some(&Stage::Confirmed));
    let shown = rig.emulator.device(SERIAL).await.unwrap();
    assert_eq!(shown["color"]["brightness"], color::from_percent(94));

    let followed: Vec<CommandId> = rig
        .adapter
        .seen
        .iter()
        .filter_map(|reading| match reading {
            Reading::Reported { command, .. } => *command,
            _ => None,
        })
        .collect();
    assert!(followed.is_sorted(), "reports followed commands {followed:?}");
    assert_eq!(followed.last(), Some(&last));
    for number in commands {
        let finals = rig.adapter.seen.iter().filter(|reading| {
            matches!(reading, Reading::Progress { command, stage, .. }
                if *command == number && stage.is_final())
        });
        assert_eq!(finals.count(), 1, "command {number:?} must end exactly once");
    }
    rig.stop().await;
}
