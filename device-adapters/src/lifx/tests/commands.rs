//! The life of a command.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[test]
fn only_a_state_asked_for_after_the_acknowledgement_is_reported_and_confirms() {
    let mut world = World::owning();
    world.light(1, dim(10_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    let reports = world.reports();
    assert_eq!(reports.len(), 2, "the state that a bulb sends in answer to a Set is the one before");
    assert_eq!((reports[1].0.brightness, reports[1].1), (10_000, Some(id(1))));
}

#[test]
fn a_poll_on_its_way_when_a_command_comes_is_not_reported_as_news() {
    let mut world = World::owning();
    world.delay = (200, 200);
    world.driver.handle_directive(world.now, Directive::Refresh { device: device() });
    world.run(ms(250));
    world.light(1, LightChange { brightness: Some(5), ..kelvin(2_700) }, PATIENCE);
    world.run(PATIENCE);
    let reports = world.reports();
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert_eq!((reports[1].0.brightness, reports[1].1), (5, Some(id(1))));
}

#[test]
fn with_30_percent_lost_both_ways_commands_are_confirmed_within_5_seconds() {
    for seed in 1..=200 {
        let mut world = World::owning();
        world.noise = seed * 0x9e37_79b9;
        world.loss = 0.3;
        world.run(ms(1_100 + seed));
        let change = LightChange { on: Some(seed % 2 == 0), ..dim(20_000) };
        world.light(1, change, PATIENCE);
        world.run(PATIENCE);
        assert_eq!(world.life_of(1), CONFIRMED, "seed {seed}");
        assert!(world.most_in_a_second() <= 20, "seed {seed}: {} messages", world.most_in_a_second());
    }
}

#[test]
fn a_bulb_that_acknowledges_and_ignores_times_out_at_the_deadline() {
    let mut world = World::owning();
    world.ignores = true;
    let begun = world.now;
    world.light(1, dim(10_000), PATIENCE);
    world.run(PATIENCE + ms(50));
    let life = world.life_of(1);
    let [Stage::Sent, Stage::Acknowledged, timed_out @ Stage::TimedOut { reason }] = &life[..] else {
        panic!("{life:?}");
    };
    assert!(reason.contains("brightness 61 %") && reason.contains("instead of brightness 15 %"), "{reason}");
    assert_eq!(world.at_stage(1, timed_out), Some(begun + PATIENCE));
    assert!(world.reports().iter().all(|(state, _)| state.brightness == 40_000));
}

#[test]
fn a_newer_command_supersedes_at_once_and_keeps_what_it_leaves_open() {
    let mut world = World::owning();
    world.power = 0;
    world.loss = 1.0; // what the first sends never arrives
    world.light(1, power(true), PATIENCE);
    world.flush();
    world.loss = 0.0;
    world.light(2, dim(500), PATIENCE);
    world.flush();
    assert_eq!(world.life_of(1), [Stage::Sent, Stage::Superseded]);
    world.run(Duration::from_secs(2));
    assert_eq!(world.life_of(2), CONFIRMED);
    assert_eq!((world.power, world.hsbk.brightness), (65_535, 500));
    world.light(2, dim(600), PATIENCE);
    world.light(2, dim(700), PATIENCE);
    world.run(Duration::from_secs(2));
    assert_eq!(world.hsbk.brightness, 600, "the same id again while in flight is the same command");
}

#[test]
fn a_slider_stays_under_the_rate_and_never_reports_an_older_command_after_a_newer() {
    for seed in 1..=30 {
        let mut world = World::owning();
        world.noise = seed * 0x0f0f_1234_5677;
        world.loss = 0.2;
        world.delay = (1, 120); // reorders
        for step in 1..=90 {
            world.light(step, dim(u16::from(step) * 700), PATIENCE);
            world.run(ms(33));
        }
        world.run(Duration::from_secs(8));
        assert_eq!(world.life_of(90).last(), Some(&Stage::Confirmed), "seed {seed}");
        assert_eq!(world.hsbk.brightness, 63_000, "seed {seed}");
        for step in 1..=90 {
            assert!(world.life_of(step).last().is_some_and(Stage::is_final), "seed {seed} step {step}");
        }
        let followed: Vec<Option<CommandId>> = world.reports().iter().map(|report| report.1).collect();
        assert!(followed.is_sorted(), "seed {seed}: {followed:?}");
        assert_eq!(world.reports().last().unwrap().0.brightness, 63_000, "seed {seed}");
        assert!(world.most_in_a_second() <= 20, "seed {seed}: {} messages", world.most_in_a_second());
    }
}

#[test]
fn a_transition_is_confirmed_after_its_end() {
    let mut world = World::owning();
    let begun = world.now;
    world.light(1, LightChange { transition_ms: 3_000, ..dim(100) }, Duration::from_secs(8));
    world.run(Duration::from_secs(8));
    assert_eq!(world.life_of(1), CONFIRMED);
    let confirmed = world.at_stage(1, &Stage::Confirmed).unwrap() - begun;
    assert!(confirmed >= ms(3_000) && confirmed < ms(3_300), "confirmed after {confirmed:?}");

    world.light(2, LightChange { transition_ms: 9_000, ..dim(60_000) }, PATIENCE);
    world.run(Duration::from_secs(6));
    let life = world.life_of(2);
    assert!(
        matches!(life.last(), Some(Stage::TimedOut { reason }) if reason.contains("transition")),
        "{life:?}"
    );
}

#[test]
fn a_fade_longer_than_the_polls_is_neither_cut_short_nor_confirmed_by_them() {
    let mut world = World::owning();
    let begun = world.now;
    world.light(1, LightChange { transition_ms: 25_000, ..dim(100) }, Duration::from_secs(40));
    world.run(Duration::from_secs(40));
    assert_eq!(world.life_of(1), CONFIRMED);
    assert!(world.at_stage(1, &Stage::Confirmed).unwrap() - begun >= Duration::from_secs(25));
    assert_eq!(world.sent.iter().filter(|(_, request)| request.is_set()).count(), 1);
}

#[test]
fn the_acknowledgement_of_an_older_command_does_not_count_for_the_same_again() {
    let mut world = World::owning();
    world.delay = (60, 60);
    world.light(1, power(true), PATIENCE);
    world.run(ms(10));
    world.light(2, power(false), PATIENCE);
    world.run(ms(10));
    let sent = world.now;
    world.light(3, power(true), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(3), CONFIRMED);
    let took = world.at_stage(3, &Stage::Acknowledged).unwrap() - sent;
    assert!(took >= ms(120), "acknowledged after {took:?}, but the way there and back takes 120 ms");
}

#[test]
fn a_command_that_changes_nothing_is_still_reported_as_followed() {
    let mut world = World::owning();
    world.light(1, dim(40_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    let followed: Vec<Option<CommandId>> = world.reports().iter().map(|report| report.1).collect();
    assert_eq!(followed, [None, Some(id(1))]);
    world.run(Duration::from_secs(60));
    assert_eq!(world.reports().len(), 2, "polls that see nothing new say nothing");
    world.driver.handle_directive(world.now, Directive::Refresh { device: device() });
    world.run(ms(100));
    assert_eq!(world.reports().len(), 3, "a refresh is answered in any case");
}

#[test]
fn a_late_acknowledgement_does_not_bring_an_older_colour_back() {
    let mut world = World::owning();
    world.delay = (100, 100);
    let red = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.red)), ..dim(9_000) };
    let blue = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.blue)), ..dim(9_000) };
    world.light(1, red, PATIENCE);
    world.flush();
    world.delay = (20, 20); // overtakes
    world.light(2, blue, PATIENCE);
    world.run(ms(150));
    world.delay = (5, 5);
    world.run(ms(850));
    world.light(3, dim(30_000), PATIENCE);
    world.run(PATIENCE);
    assert_eq!(world.life_of(3), CONFIRMED);
    assert!(world.hsbk.hue.abs_diff(43_690) < 200, "blue was the last colour asked for: {:?}", world.hsbk);
}

#[test]
fn a_dark_bulb_takes_its_colour_before_it_fades_up() {
    let mut world = World::owning();
    world.power = 0;
    world.run(Duration::from_secs(11)); // a poll sees it
    let change = LightChange { on: Some(true), transition_ms: 1_000, ..kelvin(2_700) };
    world.light(1, change, PATIENCE);
    world.run(PATIENCE);
    assert_eq!(world.life_of(1), CONFIRMED);
    let sets: Vec<Request> =
        world.sent.iter().map(|(_, request)| request.clone()).filter(Request::is_set).collect();
    let warm = Hsbk { hue: 0, saturation: 0, brightness: 40_000, kelvin: 2_700 };
    assert_eq!(sets, [Request::LightSetColor(warm, 0), Request::LightSetPower(true, 1_000)]);
}

#[test]
fn brightness_alone_builds_on_what_the_bulb_shows_now() {
    let mut world = World::owning();
    world.run(Duration::from_secs(3));
    world.hsbk = Hsbk { hue: 30_000, saturation: 65_535, ..world.hsbk }; // by another app
    world.light(1, dim(7_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    assert_eq!((world.hsbk.hue, world.hsbk.saturation, world.hsbk.brightness), (30_000, 65_535, 7_000));
}

#[test]
fn colours_and_whites_reach_the_bulb_in_its_own_terms() {
    let mut world = World::owning();
    let green = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.green)), ..LightChange::default() };
    world.light(1, green, PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    assert!(world.hsbk.hue.abs_diff(21_845) < 100 && world.hsbk.saturation > 65_000, "{:?}", world.hsbk);
    let d65 = color::hue_saturation_to_xy(0, 0);
    world.light(2, LightChange { color: Some(ColorMode::Color(d65)), ..LightChange::default() }, PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(2), CONFIRMED);
    assert!(world.hsbk.saturation > 0, "a white given as a colour stays in the colour mode");
    world.light(3, kelvin(1_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(
        (world.hsbk.saturation, world.hsbk.kelvin),
        (0, 1_500),
        "the warmest of product 27 since 2.80"
    );
}

#[test]
fn a_command_for_what_is_not_there_or_not_possible_fails_with_a_reason() {
    let mut world = World::new();
    world.light(1, power(true), PATIENCE);
    world.flush();
    assert!(matches!(&world.life_of(1)[..], [Stage::Failed { reason }] if reason.contains("not found")));
    let mut world = World::owning();
    world.light(2, LightChange::default(), PATIENCE);
    world.light(3, power(true), Duration::ZERO);
    world.flush();
    assert!(matches!(&world.life_of(2)[..], [Stage::Failed { reason }] if reason.contains("empty")));
    assert!(matches!(&world.life_of(3)[..], [Stage::TimedOut { .. }]), "{:?}", world.life_of(3));
}

#[test]
fn stopping_ends_every_command() {
    let mut world = World::owning();
    world.light(1, power(false), PATIENCE);
    world.driver.shut_down();
    world.flush();
    assert!(
        matches!(&world.life_of(1)[..], [Stage::Sent, Stage::Failed { reason }] if reason.contains("stopping"))
    );
    assert!(world.now >= world.begun);
}
