//! Another client, aiolifx, sees a light as the adapter left it, and the other way round.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[tokio::test]
async fn a_second_reader_sees_the_bulb_as_the_adapter_left_it_and_the_other_way_round() {
    let mut rig = Rig::owning(COLOR_BULB).await;
    let all = LightChange { on: Some(true), ..brightness(30) };
    rig.confirmed(LightChange { color: Some(ColorMode::Temperature { kelvin: 2_700 }), ..all }).await;
    let told = rig.second_reader(&json!({})).await;
    assert_eq!((&told["serial"], &told["power"]), (&json!(SERIAL), &json!(65_535)), "{told}");
    assert_eq!(told["color"], json!([told["color"][0], 0, color::from_percent(30), 2_700]), "{told}");

    rig.second_reader(&json!({ "color": [21_845, 65_535, 10_000, 3_500], "power": false })).await;
    let state = rig.shows("what aiolifx set", |state| !state.on && state.brightness == 10_000).await;
    assert_eq!(state.color, ColorMode::Color(color::hue_saturation_to_xy(21_845, 65_535)));
    rig.stop().await;
}

#[tokio::test]
async fn a_second_reader_sees_zones_and_effects_as_the_adapter_left_them_and_the_other_way_round() {
    for (product, count) in [(STRIP, 80), (OLD_STRIP, 16)] {
        let mut rig = Rig::owning(product).await;
        rig.confirmed(zoned(&[zone(4, 2_500, 100), zone(count - 4, 6_500, 20)])).await;
        let told = rig.second_reader(&json!({})).await;
        let zones: Vec<_> =
            told["zones"].as_array().unwrap().iter().map(|zone| (&zone[3], &zone[2])).collect();
        let (warm, cold) = (json!(color::from_percent(100)), json!(color::from_percent(20)));
        assert_eq!(zones.len(), usize::from(count));
        assert_eq!((zones[3], zones[4]), ((&json!(2_500), &warm), (&json!(6_500), &cold)));
        assert_eq!(told["effect"], "OFF");

        rig.confirmed(effect("move")).await;
        assert_eq!(rig.second_reader(&json!({})).await["effect"], "MOVE");

        let change = json!({ "zones": [[0, 1, [0, 65_535, 9_000, 3_500]]], "effect": "off" });
        rig.second_reader(&change).await;
        let state =
            rig.shows("what aiolifx set", |state| state.zones.is_some() && state.effect.is_none()).await;
        let zones = state.zones.unwrap();
        assert_eq!((zones.len(), zones[0].count, zones[0].brightness), (3, 2, 9_000), "{zones:?}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_second_reader_sees_zones_of_a_matrix_as_the_adapter_left_them_and_the_other_way_round() {
    for (product, count, _) in MATRICES {
        let mut rig = Rig::owning(product).await;
        rig.confirmed(zoned(&[zone(4, 2_500, 100), zone(count - 4, 6_500, 20)])).await;
        let told = rig.second_reader(&json!({})).await;
        let shown = |zone: &serde_json::Value| (zone[3].clone(), zone[2].clone());
        let zones: Vec<_> = told["zones"].as_array().unwrap().iter().map(shown).collect();
        let warm = (json!(2_500), json!(color::from_percent(100)));
        let cold = (json!(6_500), json!(color::from_percent(20)));
        assert_eq!(zones, [vec![warm; 4], vec![cold; usize::from(count) - 4]].concat());

        // It fills the message up with dark zones.
        let (red, green) = ([0, 65_535, 9_000, 3_500], [21_845, 65_535, 9_000, 3_500]);
        rig.second_reader(&json!({ "tile": [red, red, green] })).await;
        let state = rig.shows("what aiolifx set", |state| {
            state.zones.as_ref().is_some_and(|zones| (zones[0].count, zones[0].brightness) == (2, 9_000))
        });
        let zones = state.await.zones.unwrap();
        assert_eq!(
            (zones[1].count, zones[1].color),
            (1, ColorMode::Color(color::hue_saturation_to_xy(21_845, 65_535)))
        );
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_second_reader_sees_the_effect_of_a_matrix_and_the_other_way_round() {
    let mut rig = Rig::owning(CANDLE).await;
    for name in ["flame", "morph"] {
        rig.confirmed(effect(name)).await;
        assert_eq!(rig.second_reader(&json!({})).await["effect"], name.to_uppercase());
    }
    rig.confirmed(effect(NO_EFFECT)).await;
    rig.second_reader(&json!({ "effect": "flame" })).await;
    rig.shows("what aiolifx set", |state| state.effect.as_deref() == Some("flame")).await;
    rig.confirmed(colored(ColorMode::Temperature { kelvin: 3_000 })).await;
    assert_eq!(
        rig.second_reader(&json!({})).await["effect"],
        "OFF",
        "a colour ends the effect that hides it"
    );
    rig.stop().await;
}
