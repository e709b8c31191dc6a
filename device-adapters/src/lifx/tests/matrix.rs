//! Lights whose zones lie in rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

const WARM: Hsbk = Hsbk { hue: 0, saturation: 0, brightness: 30_000, kelvin: 2_700 };
const COLD: Hsbk = Hsbk { hue: 0, saturation: 0, brightness: 60_000, kelvin: 6_500 };
const TILE: u32 = 55;
const CANDLE: u32 = 57;
const CEILING: u32 = 201;
/// The matrices that people own, with the sizes of their tiles.
const OWNED: [(u32, &[(u8, u8)]); 3] = [(TILE, &[(8, 8); 5]), (CANDLE, &[(5, 6)]), (CEILING, &[(16, 8)])];

/// A matrix that is owned and has reported; its first zones are warm, the other half cold.
fn matrix(product: u32, sizes: &[(u8, u8)]) -> World {
    let mut world = unread(product, sizes);
    world.own(true);
    world.run(Duration::from_secs(1));
    assert_eq!(world.reports().len(), 1, "{:?}", world.readings);
    world
}

/// The same before anything was read.
fn unread(product: u32, sizes: &[(u8, u8)]) -> World {
    let mut world = World::new();
    world.product = product;
    world.tiles = sizes.iter().map(|(width, height)| Tile { width: *width, height: *height }).collect();
    let zones: usize = world.tiles.iter().map(Tile::zones).sum();
    world.zones = [vec![WARM; zones / 2], vec![COLD; zones - zones / 2]].concat();
    world.run(Duration::from_secs(1));
    world
}

fn zone(count: usize, kelvin: u16, brightness: u16) -> Zone {
    Zone { count: u16::try_from(count).unwrap(), color: ColorMode::Temperature { kelvin }, brightness }
}

fn zoned(zones: Vec<Zone>) -> LightChange {
    LightChange { zones: Some(zones), ..LightChange::default() }
}

fn can(device: &Description) -> (Option<u16>, Vec<String>) {
    let Capabilities::Light(can) = &device.capabilities else { panic!("{device:?}") };
    (can.zones, can.effects.clone())
}

fn shows(world: &World, zones: std::ops::Range<usize>, kelvin: u16) -> bool {
    world.zones[zones].iter().all(|zone| zone.kelvin == kelvin)
}

#[test]
fn a_matrix_tells_its_tiles_and_what_its_zones_show() {
    for (product, sizes) in OWNED {
        let world = matrix(product, sizes);
        let (half, count) = (world.zones.len() / 2, u16::try_from(world.zones.len()).unwrap());
        let found = world.found().remove(0);
        assert_eq!(can(&found).0, Some(count));
        let (width, height) = sizes[0];
        assert!(found.model.contains(&format!("{width} x {height} zones")), "{}", found.model);
        let (state, _) = &world.reports()[0];
        assert_eq!(state.zones, Some(vec![zone(half, 2_700, 30_000), zone(half, 6_500, 60_000)]));
    }
}

#[test]
fn zones_are_set_row_by_row_and_tile_by_tile_and_confirmed_by_what_each_shows() {
    for (product, sizes) in OWNED {
        let mut world = matrix(product, sizes);
        let count = world.zones.len();
        world.light(1, zoned(vec![zone(3, 2_500, 65_535), zone(count, 4_000, 0)]), PATIENCE);
        world.run(Duration::from_secs(3));
        assert_eq!(world.life_of(1), CONFIRMED, "product {product}");
        assert!(shows(&world, 0..3, 2_500) && shows(&world, 3..count, 4_000));
        let (state, of) = world.reports().pop().unwrap();
        assert_eq!((state.zones.unwrap().len(), of), (2, Some(id(1))));
        assert!(world.most_in_a_second() <= 20, "{} messages", world.most_in_a_second());
    }
}

#[test]
fn zones_behind_the_last_run_stay_as_they_are_also_where_another_app_changed_them() {
    for (product, sizes) in OWNED {
        let mut world = matrix(product, sizes);
        let count = world.zones.len();
        world.run(Duration::from_secs(3));
        world.zones[count / 2 - 1].kelvin = 3_333; // since the last poll
        world.zones[count - 1].kelvin = 4_444;
        let begun = world.sent.len();
        world.light(1, zoned(vec![zone(2, 9_000, 100)]), PATIENCE);
        world.run(Duration::from_secs(2));
        assert_eq!(world.life_of(1), CONFIRMED, "product {product}");
        assert!(shows(&world, 0..2, 9_000) && shows(&world, 2..count / 2 - 1, 2_700));
        assert_eq!((world.zones[count / 2 - 1].kelvin, world.zones[count - 1].kelvin), (3_333, 4_444));
        let told = |request: &Request| matches!(request, Request::Set64 { tile, .. } if *tile > 0);
        assert!(!world.sent[begun..].iter().any(|(_, request)| told(request)), "only the tile that changes");
    }
}

#[test]
fn one_colour_and_one_brightness_go_to_all_zones() {
    for (product, sizes) in OWNED {
        let mut world = matrix(product, sizes);
        let half = world.zones.len() / 2;
        world.light(1, dim(9_000), PATIENCE);
        world.run(Duration::from_secs(1));
        assert_eq!(world.life_of(1), CONFIRMED);
        let state = world.reports().pop().unwrap().0;
        assert_eq!(state.zones, Some(vec![zone(half, 2_700, 9_000), zone(half, 6_500, 9_000)]));
        world.light(2, kelvin(4_000), PATIENCE);
        world.run(Duration::from_secs(1));
        assert_eq!(world.life_of(2), CONFIRMED);
        let state = world.reports().pop().unwrap().0;
        assert_eq!((state.zones, state.color), (None, ColorMode::Temperature { kelvin: 4_000 }));
    }
}

#[test]
fn a_picture_of_more_than_one_message_is_shown_at_once_and_fades() {
    let mut world = matrix(CEILING, &[(16, 8)]);
    let begun = world.now;
    let change = LightChange { transition_ms: 800, ..zoned(vec![zone(128, 5_000, 9_000)]) };
    world.light(1, change, PATIENCE);
    world.run(PATIENCE);
    assert_eq!(world.life_of(1), CONFIRMED);
    assert!(world.at_stage(1, &Stage::Confirmed).unwrap() - begun >= ms(800));
    let sets: Vec<&Request> = world.sent.iter().map(|(_, r)| r).filter(|r| r.is_set()).collect();
    assert_eq!(sets.iter().map(|request| request.kind()).collect::<Vec<_>>(), [715, 715, 716]);
    assert_eq!(sets.iter().map(|request| request.fade()).collect::<Vec<_>>(), [0, 0, 800]);
}

#[test]
fn with_30_percent_lost_both_ways_zones_are_confirmed_in_time() {
    for seed in 1..=90 {
        let (product, sizes) = OWNED[seed as usize % OWNED.len()];
        let mut world = matrix(product, sizes);
        world.noise = seed * 0x9e37_79b9;
        world.loss = 0.3;
        world.run(ms(1_100 + seed));
        let change = LightChange { on: Some(false), ..zoned(vec![zone(9, 3_000, 9_000)]) };
        world.light(1, change, PATIENCE * 2);
        world.run(PATIENCE * 2);
        assert_eq!(world.life_of(1), CONFIRMED, "seed {seed}, product {product}");
        assert!(shows(&world, 0..9, 3_000) && shows(&world, 9..world.zones.len() / 2, 2_700), "seed {seed}");
        assert!(world.most_in_a_second() <= 20, "seed {seed}: {} messages", world.most_in_a_second());
    }
}

#[test]
fn polls_of_a_matrix_under_loss_never_make_it_offline_or_another() {
    let mut world = matrix(TILE, &[(8, 8); 5]);
    world.loss = 0.3;
    world.run(Duration::from_secs(600));
    assert_eq!(world.availabilities().len(), 1, "{:?}", world.availabilities());
    assert_eq!((world.reports().len(), world.found().len()), (1, 1), "{:?}", world.reports());
}

#[test]
fn a_poll_of_a_chain_is_one_question_for_all_its_tiles() {
    let mut world = matrix(TILE, &[(8, 8); 5]);
    let begun = world.sent.len();
    world.run(Duration::from_secs(10));
    let asked = world.sent[begun..].iter().map(|(_, request)| request.kind());
    let of_the_poll: Vec<u16> = asked.filter(|kind| *kind != Request::GetService.kind()).collect();
    assert_eq!(of_the_poll, [101, 707, 718]);
}

#[test]
fn a_chain_that_has_lost_a_tile_is_told_anew_and_still_reported() {
    let mut world = matrix(TILE, &[(8, 8); 5]);
    world.tiles.truncate(3);
    world.zones = vec![COLD; 192];
    world.run(Duration::from_secs(20));
    let found = world.found();
    assert_eq!(found.iter().map(|device| can(device).0).collect::<Vec<_>>(), [Some(320), Some(192)]);
    assert_eq!(world.reports().pop().unwrap().0.brightness, COLD.brightness);
    world.light(1, zoned(vec![zone(192, 3_000, 9_000)]), PATIENCE);
    world.run(Duration::from_secs(2));
    assert_eq!(world.life_of(1), CONFIRMED);
}

#[test]
fn a_chain_that_has_grown_while_it_was_off_is_told_anew() {
    let mut world = matrix(TILE, &[(8, 8); 2]);
    world.silent = true;
    world.run(Duration::from_secs(30));
    (world.silent, world.tiles, world.zones) =
        (false, vec![Tile { width: 8, height: 8 }; 3], vec![WARM; 192]);
    world.firmware = (3, 99);
    world.run(Duration::from_secs(20));
    let found = world.found().pop().unwrap();
    assert_eq!((can(&found).0, found.firmware.as_deref()), (Some(192), Some("3.99")));
    assert_eq!(world.reports().pop().unwrap().0.zones, None, "all of them are warm");
}

#[test]
fn tiles_that_cannot_be_are_no_zones_and_the_light_works() {
    let hostile: [&[(u8, u8)]; 6] =
        [&[(255, 255)], &[(255, 255); 16], &[(64, 64); 16], &[(0, 0); 16], &[(0, 255)], &[]];
    for sizes in hostile {
        let mut world = World::new();
        world.product = TILE;
        world.tiles = sizes.iter().map(|(width, height)| Tile { width: *width, height: *height }).collect();
        world.own(true);
        world.run(Duration::from_secs(2));
        let found = world.found().remove(0);
        assert_eq!(can(&found), (None, vec!["morph".to_owned(), "flame".to_owned()]), "{sizes:?}");
        let has_zones = world.tiles.iter().any(|tile| tile.zones() > 0);
        assert_eq!(found.note.is_some_and(|note| note.contains("tiles that cannot be")), has_zones);
        world.light(1, kelvin(3_000), PATIENCE);
        world.run(Duration::from_secs(1));
        assert_eq!(world.life_of(1), CONFIRMED);
        world.light(2, zoned(vec![zone(1, 3_000, 1)]), PATIENCE);
        world.flush();
        assert!(matches!(&world.life_of(2)[..], [Stage::Failed { reason }] if reason.contains("no zones")));
        let before = world.sent.len();
        world.run(Duration::from_secs(60));
        assert!(world.sent.len() - before < 30, "{} messages in a minute", world.sent.len() - before);
    }
}

#[test]
fn a_matrix_that_does_not_tell_its_tiles_or_zones_is_a_light_all_the_same() {
    for (unknown, deaf_to) in
        [(vec![701], vec![]), (vec![], vec![701]), (vec![707], vec![]), (vec![], vec![707])]
    {
        let mut world = unread(CANDLE, &[(5, 6)]);
        (world.unknown, world.deaf_to) = (unknown, deaf_to);
        world.own(true);
        world.run(Duration::from_secs(30));
        assert_eq!(world.reports().len(), 1, "{:?}", world.readings);
        world.light(1, kelvin(5_000), PATIENCE);
        world.run(PATIENCE);
        assert_eq!(world.life_of(1), CONFIRMED);
        let before = world.sent.len();
        world.run(Duration::from_secs(60));
        assert!(world.sent.len() - before < 200, "{} messages in a minute", world.sent.len() - before);
    }
}

#[test]
fn a_matrix_that_does_not_know_how_to_show_zones_fails_with_the_message() {
    let mut world = matrix(CEILING, &[(16, 8)]);
    world.unknown = vec![716];
    world.light(1, zoned(vec![zone(128, 3_000, 1)]), PATIENCE);
    world.run(PATIENCE);
    let life = world.life_of(1);
    assert!(matches!(life.last(), Some(Stage::Failed { reason }) if reason.contains("716")), "{life:?}");
}

#[test]
fn answers_about_other_zones_than_were_asked_change_nothing() {
    let mut world = matrix(CANDLE, &[(5, 6)]);
    world.deaf_to = vec![707];
    world.driver.handle_directive(world.now, Directive::Refresh { device: device() });
    world.run(ms(100));
    let before = world.driver.dropped().unexpected;
    let colors = vec![COLD; 64];
    for (tile, column, row, width) in [(1, 0, 0, 5), (255, 0, 0, 5), (0, 1, 0, 5), (0, 0, 1, 5), (0, 0, 0, 6)]
    {
        for sequence in 0..=255 {
            let reply = Reply::State64 { tile, column, row, width, colors: colors.clone() };
            let forged = Incoming { source: SOURCE, target: SERIAL, sequence, reply };
            world.driver.handle_datagram(world.now, ADDRESS.parse().unwrap(), &peer::encode_reply(&forged));
        }
    }
    assert_eq!(world.driver.dropped().unexpected - before, 5 * 256);
    assert_eq!(world.reports().len(), 1);
}
