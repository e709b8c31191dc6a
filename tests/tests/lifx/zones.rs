//! Strips and matrices: each zone is confirmed by what it shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

/// Kelvin and brightness in percent of a zone, as the emulator tells it.
fn shown(zone: &serde_json::Value) -> (u64, u8) {
    let brightness = u16::try_from(zone["brightness"].as_u64().unwrap()).unwrap();
    (zone["kelvin"].as_u64().unwrap(), color::to_percent(brightness))
}

#[tokio::test]
async fn zones_of_strips_old_and_new_are_confirmed_by_what_each_shows() {
    for (product, count) in [(STRIP, 80), (OLD_STRIP, 16), (LONG_STRIP, 60)] {
        let mut rig = Rig::new(product).await;
        let Capabilities::Light(can) = rig.found().await.capabilities else { panic!("no light") };
        assert_eq!((can.zones, can.effects.as_slice()), (Some(count), &["move".to_owned()][..]));
        rig.own(true).await;
        rig.reported().await;
        rig.confirmed(colored(ColorMode::Temperature { kelvin: 3_000 })).await;

        let bulb = rig.confirmed(zoned(&[zone(3, 2_500, 100), zone(5, 6_500, 20)])).await;
        let zones: Vec<(u64, u8)> = bulb["zone_colors"].as_array().unwrap().iter().map(shown).collect();
        assert_eq!((zones.len(), zones[2], zones[3]), (count.into(), (2_500, 100), (6_500, 20)));
        assert_eq!(zones[8].0, 3_000, "zones behind the last run stay as they are");

        let bulb = rig.confirmed(brightness(40)).await;
        let zones: Vec<(u64, u8)> = bulb["zone_colors"].as_array().unwrap().iter().map(shown).collect();
        assert_eq!((zones[0], zones[7]), ((2_500, 40), (6_500, 40)), "each zone keeps its colour");

        rig.confirmed(colored(ColorMode::Temperature { kelvin: 4_000 })).await;
        let state = rig.last_report();
        assert_eq!((state.zones, state.color), (None, ColorMode::Temperature { kelvin: 4_000 }));
        rig.stop().await;
    }
}

#[tokio::test]
async fn zones_of_a_matrix_that_another_app_chose_are_reported() {
    let mut rig = Rig::owning(CEILING).await;
    let zone = |hue: u16| json!({ "hue": hue, "saturation": 65_535, "brightness": 30_000, "kelvin": 3_500 });
    let colors: Vec<_> = (0..128).map(|index| zone(if index < 70 { 0 } else { 50_000 })).collect();
    let change = json!({ "tile_colors": [{ "tile_index": 0, "colors": colors }] });
    rig.emulator.set(SERIAL, &change).await.unwrap();
    let two = |state: &LightState| state.zones.as_ref().is_some_and(|zones| zones.len() == 2);
    let counts: Vec<u16> =
        rig.shows("two colours", two).await.zones.unwrap().iter().map(|zone| zone.count).collect();
    assert_eq!(counts, [70, 58]);
    rig.stop().await;
}

#[tokio::test]
async fn zones_that_another_app_chose_are_reported() {
    let mut rig = Rig::owning(STRIP).await;
    let zone = |hue: u16| json!({ "hue": hue, "saturation": 65_535, "brightness": 30_000, "kelvin": 3_500 });
    let colors: Vec<_> = (0..80).map(|index| zone(if index < 30 { 0 } else { 21_845 })).collect();
    rig.emulator.set(SERIAL, &json!({ "zone_colors": colors })).await.unwrap();
    let state =
        rig.shows("two colours", |state| state.zones.as_ref().is_some_and(|zones| zones.len() == 2)).await;
    let counts: Vec<u16> = state.zones.unwrap().iter().map(|zone| zone.count).collect();
    assert_eq!(counts, [30, 50]);
    rig.stop().await;
}

#[tokio::test]
async fn zones_are_confirmed_with_30_percent_lost_both_ways() {
    for product in [STRIP, OLD_STRIP, TILE, CEILING] {
        let mut rig = Rig::owning(product).await;
        rig.link.set(Fault { lose_requests: LOSS, lose_answers: LOSS, ..Fault::default() });
        for round in 1..=3 {
            let change = zoned(&[zone(round, 2_700, 50), zone(16 - round, 5_000, 80)]);
            let command = rig.change_within(change, Duration::from_secs(10)).await;
            assert_eq!(rig.life_of(command).await.last(), Some(&Stage::Confirmed));
        }
        rig.stop().await;
    }
}

/// Kelvin and brightness of all zones of a matrix, in the order in which they count.
fn cells(bulb: &serde_json::Value) -> Vec<(u64, u8)> {
    let tiles = bulb["tile_devices"].as_array().unwrap().iter();
    tiles.flat_map(|tile| tile["colors"].as_array().unwrap()).map(shown).collect()
}

#[tokio::test]
async fn zones_of_matrices_are_confirmed_by_what_each_shows() {
    for (product, count, size) in MATRICES {
        let mut rig = Rig::new(product).await;
        let found = rig.found().await;
        assert!(found.model.ends_with(size), "{}", found.model);
        let Capabilities::Light(can) = found.capabilities else { panic!("no light") };
        assert_eq!(can.zones, Some(count));
        rig.own(true).await;
        rig.reported().await;
        rig.confirmed(colored(ColorMode::Temperature { kelvin: 3_000 })).await;

        let bulb = rig.confirmed(zoned(&[zone(3, 2_500, 100), zone(5, 6_500, 20)])).await;
        let zones = cells(&bulb);
        assert_eq!((zones.len(), zones[2], zones[3]), (count.into(), (2_500, 100), (6_500, 20)));
        assert!(zones[8..].iter().all(|zone| zone.0 == 3_000), "zones behind the last run stay as they are");

        let bulb = rig.confirmed(brightness(40)).await;
        let zones = cells(&bulb);
        assert_eq!((zones[0], zones[7]), ((2_500, 40), (6_500, 40)), "each zone keeps its colour");

        let change =
            LightChange { transition_ms: 600, ..zoned(&[zone(count - 1, 4_000, 50), zone(1, 9_000, 60)]) };
        let zones = cells(&rig.confirmed(change).await);
        assert_eq!((zones[0], zones.last()), ((4_000, 50), Some(&(9_000, 60))));

        rig.confirmed(colored(ColorMode::Temperature { kelvin: 4_000 })).await;
        let state = rig.last_report();
        assert_eq!((state.zones, state.color), (None, ColorMode::Temperature { kelvin: 4_000 }));
        rig.stop().await;
    }
}

#[tokio::test]
async fn zones_do_not_undo_those_beside_them_that_another_app_chose() {
    for (product, count, _) in MATRICES {
        let mut rig = Rig::seldom_polling(product).await;
        let bulb = rig.confirmed(colored(ColorMode::Temperature { kelvin: 3_000 })).await;
        // All zones of its first tile.
        let cells_of_first = bulb["tile_devices"][0]["colors"].as_array().unwrap().len();
        let zone_of =
            |kelvin: u16| json!({ "hue": 0, "saturation": 0, "brightness": 30_000, "kelvin": kelvin });
        let colors: Vec<_> =
            (0..cells_of_first).map(|cell| zone_of(if cell == 9 { 9_000 } else { 5_000 })).collect();
        // Long enough for what is known of its zones to be too old to build on.
        sleep_until(Instant::now() + Duration::from_millis(1_100)).await;
        let change = json!({ "tile_colors": [{ "tile_index": 0, "colors": colors }] });
        rig.emulator.set(SERIAL, &change).await.unwrap();
        let zones = cells(&rig.confirmed(zoned(&[zone(2, 2_500, 100)])).await);
        assert_eq!((zones[1], zones[2].0, zones[9].0, zones[10].0), ((2_500, 100), 5_000, 9_000, 5_000));
        assert_eq!(zones.len(), usize::from(count));
        let counts: Vec<u16> = rig.last_report().zones.unwrap().iter().map(|zone| zone.count).collect();
        let behind = u16::try_from(cells_of_first).unwrap() - 10;
        assert_eq!(counts[..4], [2, 7, 1, behind]);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_light_without_zones_or_effects_refuses_them_with_words() {
    let mut rig = Rig::owning(COLOR_BULB).await;
    for (change, words) in [(zoned(&[zone(1, 3_000, 50)]), "no zones"), (effect("flame"), "it knows none")] {
        let refused = rig.change(change).await;
        let life = rig.life_of(refused).await;
        assert!(matches!(&life[..], [Stage::Failed { reason }] if reason.contains(words)), "{life:?}");
    }
    rig.stop().await;
}
