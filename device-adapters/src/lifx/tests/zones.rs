//! Lights with zones of their own, and firmware effects.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

const WARM: Hsbk = Hsbk { hue: 0, saturation: 0, brightness: 30_000, kelvin: 2_700 };
const COLD: Hsbk = Hsbk { hue: 0, saturation: 0, brightness: 60_000, kelvin: 6_500 };

/// A strip of that product that is owned and has reported; half of it is warm, half cold.
fn strip(product: u32, firmware: (u16, u16), zones: usize) -> World {
    let mut world = World::new();
    (world.product, world.firmware) = (product, firmware);
    world.zones = [vec![WARM; zones / 2], vec![COLD; zones - zones / 2]].concat();
    world.run(Duration::from_secs(1));
    world.own(true);
    world.run(Duration::from_secs(1));
    assert_eq!(world.reports().len(), 1, "{:?}", world.readings);
    world
}

fn matrix(product: u32) -> World {
    let mut world = World::new();
    (world.product, world.firmware) = (product, (4, 10));
    world.own(true);
    world.run(Duration::from_secs(2));
    world
}

fn zone(count: u16, kelvin: u16, brightness: u16) -> Zone {
    Zone { count, color: ColorMode::Temperature { kelvin }, brightness }
}

fn zoned(zones: Vec<Zone>) -> LightChange {
    LightChange { zones: Some(zones), ..LightChange::default() }
}

fn effect(name: &str) -> LightChange {
    LightChange { effect: Some(name.to_owned()), ..LightChange::default() }
}

fn effects(world: &World) -> Vec<String> {
    let Capabilities::Light(can) = &world.found()[0].capabilities else { panic!() };
    can.effects.clone()
}

#[test]
fn a_strip_tells_how_many_zones_it_has_and_what_they_show() {
    for (product, firmware, zones) in
        [(38, (2, 77), 80), (38, (2, 76), 80), (31, (1, 22), 16), (161, (3, 90), 120)]
    {
        let world = strip(product, firmware, zones);
        let Capabilities::Light(can) = &world.found()[0].capabilities else { panic!() };
        let count = u16::try_from(zones).unwrap();
        assert_eq!((can.zones, can.effects.as_slice()), (Some(count), &["move".to_owned()][..]));
        let (state, _) = &world.reports()[0];
        assert_eq!(state.zones, Some(vec![zone(count / 2, 2_700, 30_000), zone(count / 2, 6_500, 60_000)]));
        assert_eq!((state.brightness, state.color), (45_000, ColorMode::Temperature { kelvin: 2_700 }));
        let extended = world.sent.iter().any(|(_, request)| *request == Request::GetExtendedColorZones);
        assert_eq!(extended, firmware >= (2, 77), "product {product} with firmware {firmware:?}");
    }
}

#[test]
fn zones_are_set_and_confirmed_by_what_each_shows() {
    for (product, zones) in [(38, 80), (31, 16), (161, 120)] {
        let mut world = strip(product, (3, 70), zones);
        let wanted = vec![zone(3, 2_500, 65_535), zone(4, 4_000, 0), zone(300, 9_000, 500)];
        world.light(1, zoned(wanted), PATIENCE);
        world.run(Duration::from_secs(2));
        assert_eq!(world.life_of(1), CONFIRMED, "product {product}");
        assert_eq!((world.zones[2].kelvin, world.zones[3].brightness), (2_500, 0));
        assert_eq!((world.zones[7].brightness, world.zones[zones - 1].brightness), (500, 500));
        let behind = u16::try_from(zones).unwrap() - 7;
        let (state, of) = world.reports().pop().unwrap();
        assert_eq!(of, Some(id(1)));
        assert_eq!(state.zones.unwrap().last().map(|zone| zone.count), Some(behind));
        assert!(world.most_in_a_second() <= 20, "{} messages", world.most_in_a_second());
    }
}

#[test]
fn zones_behind_the_last_run_stay_as_they_are() {
    let mut world = strip(38, (3, 70), 80);
    world.light(1, zoned(vec![zone(1, 3_000, 100)]), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    assert_eq!((world.zones[1], world.zones[79]), (WARM, COLD));
}

#[test]
fn one_colour_goes_to_all_zones_and_is_told_as_one() {
    let mut world = strip(31, (2, 60), 16);
    world.light(1, kelvin(4_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    let (state, _) = world.reports().pop().unwrap();
    assert_eq!((state.zones, state.color), (None, ColorMode::Temperature { kelvin: 4_000 }));
}

#[test]
fn brightness_alone_keeps_the_colour_of_each_zone() {
    let mut world = strip(38, (3, 70), 80);
    world.light(1, dim(9_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    let (state, _) = world.reports().pop().unwrap();
    assert_eq!(state.zones, Some(vec![zone(40, 2_700, 9_000), zone(40, 6_500, 9_000)]));
    assert_eq!(state.brightness, 9_000);
}

#[test]
fn more_colours_than_a_state_holds_are_told_coarser() {
    let mut world = World::new();
    world.product = 161;
    world.zones =
        (0..120).map(|n| Hsbk { hue: n * 500, saturation: 65_535, brightness: 900, kelvin: 3_500 }).collect();
    world.own(true);
    world.run(Duration::from_secs(2));
    let (state, _) = world.reports().pop().unwrap();
    let zones = state.zones.unwrap();
    assert_eq!(zones.len(), MOST_RUNS);
    assert_eq!(zones.iter().map(|zone| zone.count).sum::<u16>(), 120);

    world.light(1, zoned(vec![zone(1, 2_700, 900), zone(15, 5_000, 900)]), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED, "the rest of the colours does not blur what was asked for");
    let zones = world.reports().pop().unwrap().0.zones.unwrap();
    assert_eq!(zones[..2], [zone(1, 2_700, 900), zone(15, 5_000, 900)]);
    assert_eq!(zones.len(), MOST_RUNS);
}

#[test]
fn a_strip_that_ignores_its_zones_times_out_and_says_what_it_shows() {
    let mut world = strip(38, (3, 70), 80);
    world.ignores = true;
    world.light(1, zoned(vec![zone(80, 9_000, 65_535)]), PATIENCE);
    world.run(PATIENCE + ms(50));
    let life = world.life_of(1);
    let Some(Stage::TimedOut { reason }) = life.last() else { panic!("{life:?}") };
    assert!(reason.contains("40 zones of 2700 K") && reason.contains("80 zones of 9000 K"), "{reason}");
}

#[test]
fn with_30_percent_lost_both_ways_zones_are_confirmed_in_time() {
    for seed in 1..=60 {
        let mut world =
            strip(if seed % 2 == 0 { 161 } else { 31 }, (3, 70), if seed % 2 == 0 { 120 } else { 16 });
        world.noise = seed * 0x9e37_79b9;
        world.loss = 0.3;
        world.run(ms(1_100 + seed));
        world.light(1, LightChange { on: Some(false), ..zoned(vec![zone(9, 3_000, 9_000)]) }, PATIENCE * 2);
        world.run(PATIENCE * 2);
        assert_eq!(world.life_of(1), CONFIRMED, "seed {seed}");
        assert!(world.most_in_a_second() <= 20, "seed {seed}: {} messages", world.most_in_a_second());
    }
}

#[test]
fn polls_of_a_strip_under_loss_never_make_it_offline() {
    let mut world = strip(31, (3, 70), 16);
    world.loss = 0.3;
    world.run(Duration::from_secs(600));
    assert_eq!(world.availabilities().len(), 1, "{:?}", world.availabilities());
    assert_eq!(world.reports().len(), 1, "{:?}", world.reports());
}

#[test]
fn an_effect_runs_is_told_and_ends() {
    let mut world = strip(38, (3, 70), 80);
    world.light(1, effect("move"), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!((world.life_of(1), world.effect), (CONFIRMED.to_vec(), Effect::Move));
    let (state, _) = world.reports().pop().unwrap();
    assert_eq!(
        (state.effect.as_deref(), &state.zones),
        (Some("move"), &None),
        "they are elsewhere a moment later"
    );
    world.light(2, effect(NO_EFFECT), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!((world.life_of(2), world.effect), (CONFIRMED.to_vec(), Effect::Off));
    world.light(3, effect("flame"), PATIENCE);
    world.flush();
    assert!(matches!(&world.life_of(3)[..], [Stage::Failed { reason }] if reason.contains("it knows move")));
}

#[test]
fn a_colour_ends_the_effect_that_would_hide_it_and_brightness_does_not() {
    let mut world = matrix(57);
    assert_eq!(effects(&world), ["morph", "flame"]);
    world.light(1, effect("flame"), PATIENCE);
    world.run(Duration::from_secs(1));
    world.light(2, dim(1_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!((world.life_of(2), world.effect), (CONFIRMED.to_vec(), Effect::Flame));
    world.light(3, kelvin(3_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!((world.life_of(3), world.effect), (CONFIRMED.to_vec(), Effect::Off));
    assert_eq!(world.reports().pop().unwrap().0.effect, None);
}

#[test]
fn an_effect_that_another_app_has_started_ends_for_a_colour() {
    for (product, effect, set_effect) in [(57, Effect::Flame, 719), (38, Effect::Move, 508)] {
        let mut world = World::new();
        (world.product, world.zones) = (product, vec![WARM; if product == 38 { 80 } else { 0 }]);
        world.own(true);
        world.run(Duration::from_secs(2));
        world.effect = effect; // after the poll that saw none
        world.light(1, kelvin(3_000), PATIENCE);
        world.run(PATIENCE);
        assert_eq!((world.life_of(1), world.effect), (CONFIRMED.to_vec(), Effect::Off));
        let told = world.sent.iter().filter(|(_, request)| request.kind() == set_effect).count();
        assert_eq!(told, 1);
    }
}

#[test]
fn the_end_of_an_effect_that_nobody_asked_for_does_not_fail_a_colour() {
    // Before the first read nobody knows whether an effect runs, nor whether the bulb knows of effects.
    let effects = [507, 508, 718, 719];
    for (product, unknown, deaf_to) in [
        (57, effects.to_vec(), vec![]),
        (57, vec![], effects.to_vec()),
        (38, effects.to_vec(), vec![]),
        (38, vec![], effects.to_vec()),
    ] {
        let mut world = World::new();
        (world.product, world.zones) = (product, vec![WARM; if product == 38 { 80 } else { 0 }]);
        (world.unknown, world.deaf_to) = (unknown.clone(), deaf_to);
        world.run(Duration::from_secs(1));
        world.own(true);
        world.light(1, LightChange { on: Some(true), brightness: Some(9_000), ..kelvin(3_000) }, PATIENCE);
        world.run(PATIENCE);
        assert_eq!(world.life_of(1), CONFIRMED, "product {product}, unknown {unknown:?}");
        world.light(2, effect(if product == 38 { "move" } else { "flame" }), PATIENCE);
        world.run(PATIENCE + ms(50));
        let life = world.life_of(2);
        match life.last() {
            Some(Stage::Failed { reason }) => assert!(reason.contains("does not know"), "{reason}"),
            other => assert!(unknown.is_empty() && matches!(other, Some(Stage::TimedOut { .. })), "{life:?}"),
        }
    }
}

#[test]
fn the_sky_is_for_ceilings_of_new_firmware() {
    assert_eq!(effects(&matrix(176)), ["morph", "flame", "sky"]);
    let layout = |vendor, product, firmware| products::layout(vendor, product, firmware, Chain::default());
    let no_sky = Layout::Matrix { sky: false, chain: Chain::default() };
    assert_eq!((layout(1, 176, Some((4, 3))), layout(1, 176, None)), (no_sky, no_sky));
    assert_eq!(layout(1, 32, None), Layout::Strip { extended: false });
    assert_eq!(layout(2, 32, Some((9, 9))), Layout::Point);
}

#[test]
fn a_strip_that_does_not_know_its_zones_or_effects_is_a_light_all_the_same() {
    for (unknown, deaf_to) in [(vec![502, 507, 511], vec![]), (vec![], vec![502, 507, 511])] {
        let mut world = World::new();
        (world.product, world.zones) = (38, vec![WARM; 80]);
        (world.unknown, world.deaf_to) = (unknown, deaf_to);
        world.own(true);
        world.run(Duration::from_secs(30));
        assert_eq!(world.reports().len(), 1, "{:?}", world.readings);
        let Capabilities::Light(can) = &world.found()[0].capabilities else { panic!() };
        assert_eq!(can.zones, None);
        world.light(1, kelvin(5_000), PATIENCE);
        world.run(PATIENCE);
        assert_eq!(world.life_of(1), CONFIRMED);
        let late = world.now - Duration::from_secs(60);
        world.run(Duration::from_secs(60));
        let asked = world.sent.iter().filter(|(at, _)| *at > late).count();
        assert!(asked < 200, "{asked} messages in a minute");
    }
}
