//! The Hue adapter against a fake bridge: the contract, and every rule that a user would notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::Cell;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use device_adapters::contract::{self, Ignores, Peer};
use device_adapters::model::{
    Availability, Capabilities, Change, ColorMode, CommandId, Description, DeviceId, Gamut, LightChange,
    Measurement, Stage, State, color,
};
use device_adapters::{AdapterError, Hint, Reading, find};
use hearth_tests::fakes::hue::{BUTTON, Bridge, GROUP, LAMP, MOTION, Mood, PLUG, SENSOR, Wrong};
use hearth_tests::fakes::running::{Running, until};
use hearth_tests::fakes::web;
use hearth_tests::python::python;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::{Instant, timeout};

const BRIDGE: &str = "ecb5fafffe123456";
const OTHER: &str = "ecb5fafffe654321";
const PATIENCE: Duration = Duration::from_secs(30);

fn device(rid: &str) -> DeviceId {
    DeviceId::new(format!("hue-{}", rid.replace('-', ""))).unwrap()
}

fn light(change: LightChange) -> Change {
    Change::Light(change)
}

fn on() -> Change {
    light(LightChange { on: Some(true), ..LightChange::default() })
}

fn dim(percent: u8) -> Change {
    light(LightChange { brightness: Some(color::from_percent(percent)), ..LightChange::default() })
}

/// The adapter in this process, which knows devices by the ids of their resources.
struct Rig(Running);

impl Rig {
    fn start(settings: &Value) -> Self {
        Self(Running::start("hue", settings))
    }

    /// Paired with the bridge, which announces itself; owns these once they are found.
    async fn owning(bridge: &Bridge, owned: &[&str]) -> Self {
        let mut rig = Self::start(&json!({ "keys": bridge.paired(), "poll_s": 1 }));
        rig.own(bridge, owned).await;
        rig
    }

    /// Hears of a bridge, and owns these once they are found.
    async fn own(&mut self, bridge: &Bridge, owned: &[&str]) {
        self.0.hint(bridge.hint()).await;
        for rid in owned {
            self.0.owning(&device(rid)).await;
        }
    }

    async fn change(&mut self, rid: &str, change: Change) -> CommandId {
        self.0.command(&device(rid), change, PATIENCE).await
    }

    async fn end_of(&mut self, command: CommandId) -> Stage {
        self.0.end_of(command).await
    }

    async fn found(&mut self, rid: &str) -> Description {
        self.0.found(&device(rid)).await
    }

    /// Why a device is what is wanted, now or soon.
    async fn availability(&mut self, rid: &str, wanted: Availability) -> String {
        let of = device(rid);
        let last = self.0.seen.iter().rev().find_map(|reading| match reading {
            Reading::Availability { device, availability, reason } if *device == of => {
                Some((*availability, reason.clone()))
            }
            _ => None,
        });
        match last {
            Some((is, reason)) if is == wanted => reason,
            _ => self.0.available(&of, wanted).await,
        }
    }

    async fn pairing(&mut self, over: bool) -> String {
        self.0
            .next("news of the pairing", |reading| match reading {
                Reading::Pairing { is_over, detail } if *is_over == over => Some(detail.clone()),
                _ => None,
            })
            .await
    }

    /// The next value of the setting that it learns by itself.
    async fn learnt(&mut self) -> String {
        self.0
            .next("the keys", |reading| match reading {
                Reading::Learnt { setting: "keys", value } => Some(value.0.clone()),
                _ => None,
            })
            .await
    }
}

struct Hall(Bridge);

impl Peer for Hall {
    fn hints(&self) -> Vec<Hint> {
        vec![self.0.hint()]
    }

    fn device(&self) -> DeviceId {
        device(LAMP)
    }

    fn changes(&self) -> Vec<Change> {
        vec![
            on(),
            dim(80),
            light(LightChange {
                color: Some(ColorMode::Temperature { kelvin: 4_000 }),
                ..LightChange::default()
            }),
            light(LightChange {
                color: Some(ColorMode::Color(color::nearest_in_gamut(Gamut::SRGB.blue, &Gamut::SRGB))),
                brightness: Some(color::from_percent(10)),
                transition_ms: 300,
                ..LightChange::default()
            }),
            light(LightChange { effect: Some("candle".into()), ..LightChange::default() }),
            light(LightChange { effect: Some("none".into()), on: Some(false), ..LightChange::default() }),
        ]
    }

    async fn ignore(&mut self) -> Ignores {
        self.0.ignore_changes(true);
        Ignores::Commands
    }

    async fn silence(&mut self) {
        self.0.set(Mood::Silent);
    }

    async fn recover(&mut self) {
        self.0.ignore_changes(false);
        self.0.tell_events(true);
        self.0.set(Mood::Well);
    }

    async fn misbehave(&mut self, number: usize) -> bool {
        self.recover().await;
        let most = Wrong::all().count();
        match Wrong::all().nth(number) {
            Some(wrong) => self.0.set(Mood::Wrong(wrong)),
            None if number == most => self.0.ignore_changes(true),
            None if number == most + 1 => self.0.tell_events(false),
            None if number == most + 2 => {
                let odd = json!([{ "type": "update", "data": [
                    { "id": LAMP, "type": "light", "on": { "on": "yes" } }, { "id": "?", "type": "light" }, 7,
                    { "id": LAMP, "type": "button", "button": { "button_report": { "event": "" } } }
                ] }]);
                self.0.say(format!("data: {odd}\n\n"));
            }
            None => return false,
        }
        true
    }

    fn asked(&self) -> Vec<Instant> {
        self.0.log().into_iter().map(|(at, _)| at).collect()
    }

    fn most_a_second(&self) -> usize {
        10
    }

    /// All resources are read together, to find them, and the bridge to know that it is there; one light alone is for its
    /// own sake.
    fn touched(&self) -> usize {
        let is_light =
            |what: &str| what.contains("/resource/light/") || what.contains("/resource/grouped_light/");
        self.0.log().iter().filter(|(_, what)| is_light(what)).count()
    }
}

#[tokio::test]
async fn the_adapter_keeps_the_contract() {
    let mut bridge = Hall(Bridge::start(BRIDGE).await.unwrap());
    let settings = json!({ "keys": bridge.0.paired(), "poll_s": 1 });
    contract::live(find("hue").unwrap(), &settings, &mut bridge).await.unwrap();
}

#[tokio::test]
async fn a_bridge_is_paired_by_its_button_and_its_things_are_found() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::start(&json!({ "addresses": [bridge.address().to_string()], "name": "flat 7" }));
    rig.0.own(&device(PLUG), true).await;
    rig.0.pair(PATIENCE).await;
    let asked = loop {
        let detail = rig.pairing(false).await;
        if detail.contains("press the button") {
            break detail;
        }
    };
    assert!(asked.contains("Hall bridge") && asked.contains("127.0.0.1"), "{asked}");
    // It asks again by itself, until the run is over.
    until(|| bridge.log().iter().filter(|(_, what)| what == "POST /api").count() >= 2).await;
    bridge.press_button();
    let keys = rig.learnt().await;
    assert!(keys.starts_with(&format!("{BRIDGE}=fake-0-")), "{keys}");
    assert!(keys.ends_with(&format!("@{}", bridge.pin())), "{keys}");
    assert!(rig.pairing(true).await.contains("is paired"));
    assert!(matches!(rig.found(PLUG).await.capabilities, Capabilities::Switch));
    rig.availability(PLUG, Availability::Online).await;
    // What was learnt works after a restart, and on another board.
    let mut other = Rig::start(&json!({ "keys": keys, "addresses": [bridge.address().to_string()] }));
    other.found(LAMP).await;
    assert!(!format!("{:?}", rig.0.seen).contains("fake-0-"), "the key is shown");
}

#[tokio::test]
async fn a_button_that_nobody_presses_ends_the_pairing_with_the_way_out() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::start(&json!({}));
    rig.0.pair(Duration::from_secs(8)).await;
    assert!(rig.pairing(false).await.contains("looking for one"));
    rig.0.hint(bridge.hint()).await;
    let detail = rig.pairing(true).await;
    assert!(detail.contains("no button was pressed"), "{detail}");
    rig.0.pair(Duration::from_millis(300)).await;
    rig.pairing(true).await;
    assert!(!rig.0.is_over(), "it stays, so that somebody may pair later");
}

#[tokio::test]
async fn a_key_written_by_hand_is_pinned_to_the_first_that_answers() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let (key, _) =
        bridge.paired().split_once('@').map(|(key, pin)| (key.to_owned(), pin.to_owned())).unwrap();
    let mut rig = Rig::start(&json!({ "keys": key, "addresses": [bridge.address().to_string()] }));
    assert_eq!(rig.learnt().await, format!("{key}@{}", bridge.pin()));
    rig.found(LAMP).await;
}

#[tokio::test]
async fn another_machine_that_poses_as_the_bridge_is_refused() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let keys = bridge.paired();
    bridge.change_certificate().unwrap();
    let mut rig = Rig::start(&json!({ "keys": keys, "addresses": [bridge.address().to_string()] }));
    let error = rig.0.ends().await.unwrap_err();
    assert!(matches!(error, AdapterError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("another public key") && text.contains("pair again"), "{text}");
    let asked = bridge.log();
    assert!(asked.iter().all(|(_, what)| !what.contains("/clip/v2")), "the key was sent: {asked:?}");
}

#[tokio::test]
async fn a_machine_that_takes_the_place_of_the_bridge_is_refused() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP]).await;
    bridge.change_certificate().unwrap();
    bridge.set(Mood::Wrong(Wrong::Common(web::Wrong::Closes))); // and what is open
    let error = rig.0.ends().await.unwrap_err();
    assert!(error.to_string().contains("another public key"), "{error}");
    let reason = rig.availability(LAMP, Availability::Offline).await;
    assert!(reason.contains("another public key"), "{reason}");
}

#[tokio::test]
async fn a_withdrawn_key_ends_the_run_with_the_way_out() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP]).await;
    bridge.withdraw_keys();
    let error = rig.0.ends().await.unwrap_err();
    assert!(matches!(error, AdapterError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("pair again"), "{error}");
    rig.availability(LAMP, Availability::Offline).await;
}

#[tokio::test]
async fn a_bridge_that_is_gone_ends_the_run_so_that_another_board_tries() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP]).await;
    bridge.set(Mood::Silent);
    let reason = rig.availability(LAMP, Availability::Offline).await;
    assert!(reason.contains("127.0.0.1") && reason.contains("last heard"), "{reason}");
    let error = rig.0.ends().await.unwrap_err();
    assert!(matches!(error, AdapterError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("10 s"), "{error}");
}

#[tokio::test]
async fn a_bridge_that_never_answers_is_unreachable() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let keys = bridge.paired();
    let address = bridge.address().to_string();
    drop(bridge);
    let mut rig = Rig::start(&json!({ "keys": keys, "addresses": [address] }));
    let error = rig.0.ends().await.unwrap_err();
    assert!(matches!(error, AdapterError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn what_others_change_is_told_by_the_bridge() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP, SENSOR]).await;
    // While its events come everything is read only every ten minutes: what is known before that was told.
    bridge.change(LAMP, &json!({ "on": { "on": true }, "dimming": { "brightness": 33.07 } }));
    let is_so = |state: &State| matches!(state, State::Light(light) if light.on && color::to_percent(light.brightness) == 33);
    rig.0.reports(&device(LAMP), is_so).await;
    bridge.change(MOTION, &json!({ "motion": { "motion": true, "motion_report": { "motion": true } } }));
    rig.0.measures(&device(SENSOR), "motion", &Measurement::Truth(true)).await;
}

#[tokio::test]
async fn every_press_of_a_button_is_told() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[BUTTON]).await;
    let mut last = 0;
    for _ in 1..=2 {
        bridge.press("initial_press");
        bridge.press("short_release");
        let number = Cell::new(0);
        let is_last = |state: &State| match state {
            State::Button { event, count } if event == "short_release" && *count > last => {
                number.set(*count);
                true
            }
            _ => false,
        };
        rig.0.reports(&device(BUTTON), is_last).await;
        assert!(last == 0 || number.get() == last + 2, "each press has its number: {last}, {}", number.get());
        last = number.get();
    }
}

#[tokio::test]
async fn a_room_is_changed_with_one_request() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[GROUP, LAMP]).await;
    let change = LightChange {
        on: Some(true),
        brightness: Some(color::from_percent(60)),
        color: Some(ColorMode::Temperature { kelvin: 4_000 }),
        ..LightChange::default()
    };
    let command = rig.change(GROUP, light(change)).await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    let puts: Vec<_> = bridge.log().into_iter().filter(|(_, what)| what.starts_with("PUT")).collect();
    assert_eq!(puts.len(), 1, "{puts:?}");
    for rid in [LAMP, PLUG] {
        assert_eq!(bridge.resource(rid)["on"]["on"], true, "{rid}");
    }
}

#[tokio::test]
async fn rooms_are_told_no_more_than_once_a_second() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[GROUP]).await;
    let mut last = None;
    for percent in [10, 30, 50, 70, 90] {
        rig.change(GROUP, on()).await;
        last = Some(rig.change(GROUP, dim(percent)).await);
    }
    assert_eq!(rig.end_of(last.unwrap()).await, Stage::Confirmed);
    let again = rig.change(GROUP, dim(20)).await;
    assert_eq!(rig.end_of(again).await, Stage::Confirmed);
    let puts: Vec<_> = bridge.log().into_iter().filter(|(_, what)| what.starts_with("PUT")).collect();
    assert!(puts.len() <= 3, "{puts:?}");
    assert!(puts.windows(2).all(|two| two[1].0 - two[0].0 >= Duration::from_millis(950)), "{puts:?}");
}

#[tokio::test]
async fn a_busy_bridge_gets_the_newest_change_in_the_end() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP, PLUG]).await;
    bridge.limit(2); // others use it as well
    let mut commands = Vec::new();
    for percent in 1..=40 {
        commands.push(rig.change(LAMP, dim(percent)).await);
    }
    let plug = rig.change(PLUG, Change::Switch { on: true }).await;
    let last = commands.pop().unwrap();
    assert_eq!(rig.end_of(last).await, Stage::Confirmed);
    assert_eq!(rig.end_of(plug).await, Stage::Confirmed);
    for command in commands {
        let stage = rig.end_of(command).await;
        assert!(matches!(stage, Stage::Superseded | Stage::Confirmed), "{stage:?}");
    }
    assert_eq!(color::to_percent(color::from_percent(40)), 40);
    let brightness = bridge.resource(LAMP)["dimming"]["brightness"].as_f64().unwrap();
    assert!((brightness - 40.0).abs() < 0.5, "{brightness}");
}

#[tokio::test]
async fn without_events_a_change_is_confirmed_by_reading_back() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP]).await;
    bridge.tell_events(false);
    let command = rig.change(LAMP, on()).await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    let reads =
        bridge.log().into_iter().filter(|(_, what)| what == &format!("GET /clip/v2/resource/light/{LAMP}"));
    assert_eq!(reads.count(), 1);
}

#[tokio::test]
async fn a_light_without_power_is_offline_and_its_command_says_why() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP, PLUG]).await;
    let connection = format!("4{}", &LAMP[1..]);
    bridge.change(&connection, &json!({ "status": "connectivity_issue" }));
    let reason = rig.availability(LAMP, Availability::Offline).await;
    assert!(reason.contains("connectivity_issue") && reason.contains("without power"), "{reason}");
    let command = rig.change(LAMP, on()).await;
    let stage = rig.end_of(command).await;
    assert!(
        matches!(&stage, Stage::Failed { reason } if reason.contains("communication issues")),
        "{stage:?}"
    );
    let command = rig.change(PLUG, on()).await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed, "the others go on");
    bridge.change(&connection, &json!({ "status": "connected" }));
    rig.availability(LAMP, Availability::Online).await;
}

#[tokio::test]
async fn a_light_whose_plug_was_pulled_is_not_confirmed_though_the_bridge_shows_what_it_told() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP]).await;
    bridge.unplug(LAMP);
    let command = rig.change(LAMP, on()).await;
    let stage = rig.end_of(command).await;
    assert!(matches!(&stage, Stage::Failed { reason } if reason.contains("does not reach it")), "{stage:?}");
    assert_eq!(bridge.resource(LAMP)["on"]["on"], true);
}

#[tokio::test]
async fn a_stream_that_died_without_a_word_is_opened_anew() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP]).await;
    bridge.tell_events(false);
    let opened = || bridge.log().iter().filter(|(_, what)| what == "GET /eventstream/clip/v2").count();
    let before = opened();
    bridge.change(LAMP, &json!({ "on": { "on": true } }));
    rig.0.reports(&device(LAMP), |state| state.is_on() == Some(true)).await;
    until(|| opened() > before).await;
}

#[tokio::test]
async fn who_poses_as_a_bridge_is_not_paired_and_the_bridge_goes_on() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP]).await;
    let impostor = Bridge::start(BRIDGE).await.unwrap();
    impostor.press_button();
    rig.0.hint(impostor.hint()).await;
    rig.0.pair(Duration::from_secs(3)).await;
    let place = impostor.address().to_string();
    let detail = loop {
        let detail = rig.pairing(true).await;
        if detail.contains(&place) {
            break detail;
        }
        rig.0.pair(Duration::from_secs(3)).await; // it was not heard of yet
    };
    assert!(detail.contains("another machine poses as it"), "{detail}");
    let asked = impostor.log();
    assert!(asked.iter().all(|(_, what)| what == "GET /api/0/config"), "{asked:?}");
    assert!(!rig.0.seen.iter().any(|reading| matches!(reading, Reading::Learnt { .. })));
    let command = rig.change(LAMP, on()).await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
}

#[tokio::test]
async fn a_bridge_that_withdraws_its_key_leaves_the_other_alone() {
    let (bridge, other) = (Bridge::start(BRIDGE).await.unwrap(), Bridge::start(OTHER).await.unwrap());
    let keys = format!("{} {}", bridge.paired(), other.paired());
    other.withdraw_keys();
    let mut rig = Rig::start(&json!({ "keys": keys, "poll_s": 1 }));
    rig.0.hint(other.hint()).await;
    until(|| other.log().iter().any(|(_, what)| what.contains("clip/v2"))).await;
    rig.own(&bridge, &[LAMP]).await;
    for change in [on(), dim(30)] {
        let command = rig.change(LAMP, change).await;
        assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    }
    assert!(!rig.0.is_over());
    // The other is no reason to stay when the one that knows its key is gone.
    bridge.set(Mood::Silent);
    let error = rig.0.ends().await.unwrap_err();
    assert!(matches!(error, AdapterError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_second_bridge_with_the_same_devices_does_not_take_them() {
    let (bridge, copy) = (Bridge::start(BRIDGE).await.unwrap(), Bridge::start(OTHER).await.unwrap());
    let mut rig =
        Rig::start(&json!({ "keys": format!("{} {}", copy.paired(), bridge.paired()), "poll_s": 1 }));
    rig.own(&bridge, &[LAMP]).await;
    rig.0.hint(copy.hint()).await;
    until(|| copy.log().iter().any(|(_, what)| what == "GET /clip/v2/resource")).await;
    copy.change(LAMP, &json!({ "dimming": { "brightness": 77.0 } }));
    let command = rig.change(LAMP, on()).await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    assert_eq!(bridge.resource(LAMP)["on"]["on"], true);
    assert_eq!(copy.resource(LAMP)["on"]["on"], false);
    let is_copy =
        |state: &State| matches!(state, State::Light(light) if color::to_percent(light.brightness) == 77);
    let told =
        rig.0.seen.iter().any(|reading| matches!(reading, Reading::Reported { state, .. } if is_copy(state)));
    assert!(!told, "{:?}", rig.0.seen);
}

#[tokio::test]
async fn the_fake_is_a_bridge_to_somebody_elses_client() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let button = std::env::temp_dir().join(format!("hearth-hue-button-{}", bridge.address().port()));
    let mut command = python().unwrap();
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/hue.py"));
    command.arg(bridge.address().to_string()).arg(&button);
    let mut client = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut line = async || {
        let line =
            timeout(Duration::from_secs(90), lines.next_line()).await.expect("it says nothing").unwrap();
        serde_json::from_str::<Value>(&line.expect("it ended")).unwrap()
    };
    assert_eq!(line().await, json!({ "refused": 1 }));
    bridge.press_button();
    std::fs::write(&button, "").unwrap();
    let said = line().await;
    let _ = std::fs::remove_file(&button);
    assert_eq!(said["bridge"], "ecb5fa123456", "{said}");
    assert_eq!(said["lights"], json!(["Fan", "Shelf", "Sofa"]));
    assert_eq!((&said["rooms"], &said["buttons"]), (&json!(["Living room"]), &json!(2)));
    assert_eq!((&said["motion"], &said["temperature"]), (&json!([false]), &json!([21.34])));
    assert_eq!((&said["battery"], &said["connected"]), (&json!([83, 100]), &json!(["connected"])));
    assert_eq!((&said["before"], &said["after"]), (&json!(false), &json!(true)));
    assert_eq!((&said["xy"], &said["mirek_valid"]), (&json!([0.3, 0.3]), &json!(false)));
    assert_eq!(said["events"], json!(["grouped_light", "light"]));
}
