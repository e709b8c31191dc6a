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
use device_adapters::{AdapterError, Context, Directive, Handle, Hint, Reading, find};
use hearth_tests::fakes::hue::{BUTTON, Bridge, GROUP, LAMP, MOTION, Mood, PLUG, SENSOR, WRONG};
use hearth_tests::python::python;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep_until, timeout, timeout_at};

const BRIDGE: &str = "ecb5fafffe123456";
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

/// The adapter in this process, and all that it said.
struct Rig {
    handle: Handle,
    run: JoinHandle<Result<(), AdapterError>>,
    seen: Vec<Reading>,
    commands: u8,
}

impl Rig {
    fn start(settings: &Value) -> Self {
        let adapter = (find("hue").unwrap().build)(settings).unwrap();
        let (context, handle) = Context::channel(64, 64);
        Self { handle, run: tokio::spawn(adapter.run(context)), seen: Vec::new(), commands: 0 }
    }

    /// Paired with the bridge, which announces itself; owns these once they are found.
    async fn owning(bridge: &Bridge, owned: &[&str]) -> Self {
        let mut rig = Self::start(&json!({ "keys": bridge.paired(), "poll_s": 1 }));
        rig.hint(bridge).await;
        for rid in owned {
            rig.own(rid).await;
        }
        for rid in owned {
            rig.found(rid).await;
            rig.availability(rid, Availability::Online).await;
        }
        rig
    }

    async fn hint(&self, bridge: &Bridge) {
        self.handle.hints.send(bridge.hint()).await.unwrap();
    }

    async fn own(&self, rid: &str) {
        self.handle.commands.send(Directive::Own { device: device(rid), owned: true }).await.unwrap();
    }

    async fn pair(&self, within: Duration) {
        self.handle.commands.send(Directive::Pair { until: Instant::now() + within }).await.unwrap();
    }

    async fn change(&mut self, rid: &str, change: Change) -> CommandId {
        self.commands += 1;
        let command = CommandId([self.commands; 16]);
        let deadline = Instant::now() + Duration::from_secs(10);
        let directive = Directive::Command { device: device(rid), command, change, deadline };
        self.handle.commands.send(directive).await.unwrap();
        command
    }

    /// The first thing that `pick` picks of all that it said and says.
    async fn any<T>(&mut self, what: &str, pick: impl Fn(&Reading) -> Option<T>) -> T {
        if let Some(picked) = self.seen.iter().find_map(&pick) {
            return picked;
        }
        self.next(what, pick).await
    }

    /// The first thing that `pick` picks of what it says from now on.
    async fn next<T>(&mut self, what: &str, pick: impl Fn(&Reading) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            let Ok(reading) = timeout_at(end, self.handle.readings.recv()).await else {
                panic!("waited for {what}, saw {:#?}", self.seen)
            };
            let Some(reading) = reading else {
                panic!("waited for {what}, but it ended; saw {:#?}", self.seen)
            };
            self.seen.push(reading.clone());
            if let Some(picked) = pick(&reading) {
                return picked;
            }
        }
    }

    async fn found(&mut self, rid: &str) -> Description {
        let wanted = device(rid);
        self.any("that it is found", |reading| match reading {
            Reading::Found { device } if device.id == wanted => Some(device.clone()),
            _ => None,
        })
        .await
    }

    async fn availability(&mut self, rid: &str, wanted: Availability) -> String {
        let wanted_device = device(rid);
        let pick = |reading: &Reading| match reading {
            Reading::Availability { device, availability, reason }
                if *device == wanted_device && *availability == wanted =>
            {
                Some(reason.clone())
            }
            _ => None,
        };
        let last = self.seen.iter().rev().find(
            |reading| matches!(reading, Reading::Availability { device, .. } if *device == wanted_device),
        );
        match last.and_then(pick) {
            Some(reason) => reason,
            None => self.next("its availability", pick).await,
        }
    }

    async fn state(&mut self, rid: &str, is_so: impl Fn(&State) -> bool) -> State {
        let wanted = device(rid);
        self.next("a state", |reading| match reading {
            Reading::Reported { device, state, .. } if *device == wanted && is_so(state) => {
                Some(state.clone())
            }
            _ => None,
        })
        .await
    }

    async fn end_of(&mut self, of: CommandId) -> Stage {
        self.any("the end of a command", |reading| match reading {
            Reading::Progress { command, stage, .. } if *command == of && stage.is_final() => {
                Some(stage.clone())
            }
            _ => None,
        })
        .await
    }

    async fn pairing(&mut self, over: bool) -> String {
        self.next("news of the pairing", |reading| match reading {
            Reading::Pairing { is_over, detail } if *is_over == over => Some(detail.clone()),
            _ => None,
        })
        .await
    }

    /// How the run ends by itself.
    async fn end(&mut self) -> Result<(), AdapterError> {
        let end = Instant::now() + PATIENCE;
        loop {
            tokio::select! {
                ended = &mut self.run => return ended.unwrap(),
                Some(reading) = self.handle.readings.recv() => self.seen.push(reading),
                () = sleep_until(end) => panic!("it does not end; saw {:#?}", self.seen),
            }
        }
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
        match WRONG.get(number) {
            Some(wrong) => self.0.set(Mood::Wrong(*wrong)),
            None if number == WRONG.len() => self.0.ignore_changes(true),
            None if number == WRONG.len() + 1 => self.0.tell_events(false),
            None if number == WRONG.len() + 2 => {
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
    rig.own(PLUG).await;
    rig.pair(PATIENCE).await;
    let asked = loop {
        let detail = rig.pairing(false).await;
        if detail.contains("press the button") {
            break detail;
        }
    };
    assert!(asked.contains("Hall bridge") && asked.contains("127.0.0.1"), "{asked}");
    let mut pace = interval(Duration::from_millis(20));
    while bridge.log().iter().filter(|(_, what)| what == "POST /api").count() < 2 {
        pace.tick().await; // it asks again by itself, until the run is over
    }
    bridge.press_button();
    let keys = rig
        .next("the key", |reading| match reading {
            Reading::Learnt { setting: "keys", value } => Some(value.0.clone()),
            _ => None,
        })
        .await;
    assert!(keys.starts_with(&format!("{BRIDGE}=fake-0-")), "{keys}");
    assert!(keys.ends_with(&format!("@{}", bridge.pin())), "{keys}");
    assert!(rig.pairing(true).await.contains("is paired"));
    assert!(matches!(rig.found(PLUG).await.capabilities, Capabilities::Switch));
    rig.availability(PLUG, Availability::Online).await;
    // What was learnt works after a restart, and on another board.
    let mut other = Rig::start(&json!({ "keys": keys, "addresses": [bridge.address().to_string()] }));
    other.found(LAMP).await;
    assert!(!format!("{:?}", rig.seen).contains("fake-0-"), "the key is shown");
}

#[tokio::test]
async fn a_button_that_nobody_presses_ends_the_pairing_with_the_way_out() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::start(&json!({}));
    rig.pair(Duration::from_secs(2)).await;
    assert!(rig.pairing(false).await.contains("looking for one"));
    rig.hint(&bridge).await;
    let began = Instant::now();
    let detail = rig.pairing(true).await;
    assert!(detail.contains("no button was pressed"), "{detail}");
    assert!(began.elapsed() < Duration::from_secs(4));
    rig.pair(Duration::from_millis(300)).await;
    rig.pairing(true).await;
    assert!(!rig.run.is_finished(), "it stays, so that somebody may pair later");
}

#[tokio::test]
async fn a_key_written_by_hand_is_pinned_to_the_first_that_answers() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let (key, _) =
        bridge.paired().split_once('@').map(|(key, pin)| (key.to_owned(), pin.to_owned())).unwrap();
    let mut rig = Rig::start(&json!({ "keys": key, "addresses": [bridge.address().to_string()] }));
    let learnt = rig
        .next("the pin", |reading| match reading {
            Reading::Learnt { setting: "keys", value } => Some(value.0.clone()),
            _ => None,
        })
        .await;
    assert_eq!(learnt, format!("{key}@{}", bridge.pin()));
    rig.found(LAMP).await;
}

#[tokio::test]
async fn another_machine_that_poses_as_the_bridge_is_refused() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let keys = bridge.paired();
    bridge.change_certificate().unwrap();
    let mut rig = Rig::start(&json!({ "keys": keys, "addresses": [bridge.address().to_string()] }));
    let error = rig.end().await.unwrap_err();
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
    bridge.set(Mood::Wrong(WRONG[8])); // it closes what is open
    let error = rig.end().await.unwrap_err();
    assert!(error.to_string().contains("another public key"), "{error}");
    let reason = rig.availability(LAMP, Availability::Offline).await;
    assert!(reason.contains("another public key"), "{reason}");
}

#[tokio::test]
async fn a_withdrawn_key_ends_the_run_with_the_way_out() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP]).await;
    bridge.withdraw_keys();
    let error = rig.end().await.unwrap_err();
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
    let error = rig.end().await.unwrap_err();
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
    let error = rig.end().await.unwrap_err();
    assert!(matches!(error, AdapterError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn what_others_change_is_known_within_a_second() {
    let bridge = Bridge::start(BRIDGE).await.unwrap();
    let mut rig = Rig::owning(&bridge, &[LAMP, SENSOR]).await;
    let began = Instant::now();
    bridge.change(LAMP, &json!({ "on": { "on": true }, "dimming": { "brightness": 33.07 } }));
    let is_so = |state: &State| matches!(state, State::Light(light) if light.on && color::to_percent(light.brightness) == 33);
    rig.state(LAMP, is_so).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    bridge.change(MOTION, &json!({ "motion": { "motion": true, "motion_report": { "motion": true } } }));
    let values = rig
        .next("the motion", |reading| match reading {
            Reading::Measured { device: of, values } if *of == device(SENSOR) => Some(values.clone()),
            _ => None,
        })
        .await;
    assert_eq!(values.get("motion"), Some(&Measurement::Truth(true)));
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
        rig.state(BUTTON, is_last).await;
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
    assert!(puts.windows(2).all(|two| two[1].0 - two[0].0 >= Duration::from_secs(1)), "{puts:?}");
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
    let began = Instant::now();
    let command = rig.change(LAMP, on()).await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed);
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
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
        matches!(&stage, Stage::TimedOut { reason } if reason.contains("communication issues")),
        "{stage:?}"
    );
    let command = rig.change(PLUG, on()).await;
    assert_eq!(rig.end_of(command).await, Stage::Confirmed, "the others go on");
    bridge.change(&connection, &json!({ "status": "connected" }));
    rig.availability(LAMP, Availability::Online).await;
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
