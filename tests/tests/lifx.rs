//! The LIFX adapter against the real emulator: every rule that a user would notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use device_adapters::Reading;
use device_adapters::model::{
    Availability, Capabilities, Change, ColorMode, CommandId, Description, DeviceId, Gamut, LightChange,
    LightState, NO_EFFECT, Source, Stage, State, Zone, color,
};
use hearth_tests::emulator::{
    CANDLE, CEILING, COLOR_BULB, Emulator, Fault, LONG_STRIP, Link, OLD_STRIP, STRIP, TILE, WHITE_BULB,
};
use hearth_tests::fakes::running::Running;
use hearth_tests::python::python;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

const SERIAL: &str = "d073d5000001";
const LOSS: f64 = 0.3;

/// The adapter in this process, an emulator in another, a faulty network between them.
struct Rig {
    emulator: Emulator,
    link: Link,
    device: DeviceId,
    adapter: Running,
}

impl Rig {
    /// Starts all, with the link's address configured and no broadcast.
    async fn new(product: u16) -> Self {
        Self::with(product, |link| json!({ "addresses": [link.address().to_string()], "broadcast": [] }))
            .await
    }

    /// Starts all; `settings` says how the bulb is found, the rest is the same for every test.
    async fn with(product: u16, settings: impl Fn(&Link) -> serde_json::Value) -> Self {
        let emulator = Emulator::start(&[product]).await.unwrap();
        let link = Link::to(emulator.address(), 0x9e37_79b9).await.unwrap();
        let mut settings = settings(&link);
        settings["bind"] = json!("127.0.0.1");
        settings["discover_s"] = json!(1);
        if settings.get("poll_s").is_none() {
            settings["poll_s"] = json!(0.5);
        }
        let device = DeviceId::new(format!("lifx-{SERIAL}")).unwrap();
        Self { emulator, link, device, adapter: Running::start("lifx", &settings) }
    }

    /// Starts all, and owns the bulb once it is found and has reported.
    async fn owning(product: u16) -> Self {
        Self::new(product).await.owned().await
    }

    /// The same with a bulb that is polled so seldom that no poll sees what another app does.
    async fn seldom_polling(product: u16) -> Self {
        let settings =
            |link: &Link| json!({ "addresses": [link.address().to_string()], "broadcast": [], "poll_s": 60 });
        Self::with(product, settings).await.owned().await
    }

    async fn owned(mut self) -> Self {
        self.found().await;
        self.own(true).await;
        self.reported().await;
        self
    }

    async fn own(&self, owned: bool) {
        self.adapter.own(&self.device, owned).await;
    }

    /// Sends a command with a deadline of 5 s after the transition; its id counts up from 1.
    async fn change(&mut self, change: LightChange) -> CommandId {
        self.change_within(change, Duration::from_secs(5)).await
    }

    async fn change_within(&mut self, change: LightChange, patience: Duration) -> CommandId {
        self.adapter.command(&self.device, Change::Light(change), patience).await
    }

    async fn found(&mut self) -> Description {
        self.adapter.found(&self.device).await
    }

    async fn reported(&mut self) -> (LightState, Option<CommandId>) {
        self.adapter
            .next("Reported", |reading| match reading {
                Reading::Reported { state: State::Light(state), command, source, .. } => {
                    assert_eq!(*source, Source::ReadBack);
                    Some((state.clone(), *command))
                }
                _ => None,
            })
            .await
    }

    async fn availability(&mut self, wanted: Availability) -> String {
        self.adapter.available(&self.device, wanted).await
    }

    /// The stages of a command, up to the final one.
    async fn life_of(&mut self, of: CommandId) -> Vec<Stage> {
        let mut life = Vec::new();
        loop {
            let stage = self
                .adapter
                .next("Progress", |reading| match reading {
                    Reading::Progress { command, stage, .. } if *command == of => Some(stage.clone()),
                    _ => None,
                })
                .await;
            life.push(stage.clone());
            if stage.is_final() {
                return life;
            }
        }
    }

    /// Sends a change, sees it confirmed, and returns what the bulb really shows.
    async fn confirmed(&mut self, change: LightChange) -> serde_json::Value {
        let command = self.change(change).await;
        assert_eq!(self.life_of(command).await, [Stage::Sent, Stage::Acknowledged, Stage::Confirmed]);
        self.emulator.device(SERIAL).await.unwrap()
    }

    /// What another client, aiolifx, sees, after it has changed what it is told to.
    async fn second_reader(&self, change: &serde_json::Value) -> serde_json::Value {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/lifx.py");
        let port = self.emulator.address().port().to_string();
        let told = python().unwrap().args([script, &port, &change.to_string()]).output().await.unwrap();
        let said = String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "{said}");
        serde_json::from_slice(&told.stdout).unwrap()
    }

    /// The newest report of all that was seen.
    fn last_report(&self) -> LightState {
        let report = |reading: &Reading| match reading {
            Reading::Reported { state: State::Light(state), .. } => Some(state.clone()),
            _ => None,
        };
        self.adapter.seen.iter().rev().find_map(report).unwrap()
    }

    /// Waits for a report in which `shows` holds.
    async fn shows(&mut self, what: &str, shows: impl Fn(&LightState) -> bool) -> LightState {
        self.adapter
            .next(what, |reading| match reading {
                Reading::Reported { state: State::Light(state), .. } if shows(state) => Some(state.clone()),
                _ => None,
            })
            .await
    }

    async fn stop(self) {
        self.adapter.stop().await;
    }
}

fn on(on: bool) -> LightChange {
    LightChange { on: Some(on), ..LightChange::default() }
}

fn brightness(percent: u8) -> LightChange {
    LightChange { brightness: Some(color::from_percent(percent)), ..LightChange::default() }
}

fn colored(color: ColorMode) -> LightChange {
    LightChange { color: Some(color), ..LightChange::default() }
}

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
    let command = rig.change_within(brightness(10), Duration::from_secs(2)).await;
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

fn zone(count: u16, kelvin: u16, percent: u8) -> Zone {
    let brightness = color::from_percent(percent);
    Zone { count, color: ColorMode::Temperature { kelvin }, brightness }
}

fn zoned(zones: &[Zone]) -> LightChange {
    LightChange { zones: Some(zones.to_vec()), ..LightChange::default() }
}

fn effect(name: &str) -> LightChange {
    LightChange { effect: Some(name.to_owned()), ..LightChange::default() }
}

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

/// The matrices, with how many zones each has and in how many rows and columns.
const MATRICES: [(u16, u16, &str); 3] =
    [(TILE, 320, "5 tiles of 8 x 8 zones"), (CANDLE, 30, "5 x 6 zones"), (CEILING, 128, "16 x 8 zones")];

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
