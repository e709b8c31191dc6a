//! The Shelly adapter against a fake device: the contract, and every rule that a user would notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::Cell;
use std::collections::BTreeSet;

use device_adapters::contract::{self, Ignores, Peer};
use device_adapters::model::{
    Availability, Capabilities, Change, ColorMode, DeviceId, Gamut, LightChange, Measurement, Stage, State,
};
use device_adapters::{Hint, Reading, find};
use hearth_tests::fakes::running::{Running, until};
use hearth_tests::fakes::shelly::Shelly;
use hearth_tests::fakes::web::{Mood, WRONG};
use hearth_tests::python::peer;
use serde_json::json;
use tokio::time::Instant;

const PASSWORD: &str = "correct horse";

struct Device {
    shelly: Shelly,
    part: &'static str,
    changes: Vec<Change>,
}

impl Peer for Device {
    fn hints(&self) -> Vec<Hint> {
        vec![self.shelly.hint()]
    }

    fn device(&self) -> DeviceId {
        DeviceId::new(format!("shelly-{}-{}", Shelly::MAC, self.part)).unwrap()
    }

    fn changes(&self) -> Vec<Change> {
        self.changes.clone()
    }

    async fn ignore(&mut self) -> Ignores {
        self.shelly.ignore_changes(true);
        Ignores::Commands
    }

    async fn silence(&mut self) {
        self.shelly.web.set(Mood::Silent);
    }

    async fn recover(&mut self) {
        self.shelly.ignore_changes(false);
        self.shelly.web.set(Mood::Well);
    }

    async fn misbehave(&mut self, number: usize) -> bool {
        self.recover().await;
        let told = [
            "{",
            "[]",
            "{\"method\":\"NotifyStatus\",\"params\":{\"switch:0\":{\"output\":7,\"apower\":\"x\"}}}",
        ];
        self.shelly.web.tell(told[number % 3]);
        match WRONG.get(number) {
            Some(wrong) => self.shelly.web.set(Mood::Wrong(*wrong)),
            None if number == WRONG.len() => self.shelly.ignore_changes(true),
            None if number == WRONG.len() + 1 => self.shelly.forget_nonces(),
            None if number == WRONG.len() + 2 => self.shelly.web.tell("x".repeat(1 << 20)),
            None => return false,
        }
        true
    }

    fn asked(&self) -> Vec<Instant> {
        self.shelly.web.asked()
    }

    fn most_a_second(&self) -> usize {
        10
    }

    /// Who asks for the settings as well describes it, and asks for the status for that.
    fn touched(&self) -> usize {
        let called = self.shelly.called();
        let count = |wanted: &str| called.iter().filter(|(method, _)| method.ends_with(wanted)).count();
        let listens = self.shelly.web.log().iter().filter(|(_, what)| what == "GET /rpc").count();
        count(".GetStatus").saturating_sub(count(".GetConfig")) + count(".Set") + listens
    }
}

#[tokio::test]
async fn a_switch_keeps_the_contract() {
    let changes = vec![Change::Switch { on: true }, Change::Switch { on: false }];
    let mut device = Device { shelly: Shelly::start(None).await.unwrap(), part: "switch-0", changes };
    let settings = json!({ "poll_s": 1, "discover_s": 5 });
    contract::live(find("shelly").unwrap(), &settings, &mut device).await.unwrap();
}

#[tokio::test]
async fn a_light_behind_a_password_keeps_the_contract() {
    let dim =
        |brightness| Change::Light(LightChange { brightness: Some(brightness), ..LightChange::default() });
    let changes = vec![dim(10_000), dim(60_000)];
    let mut device =
        Device { shelly: Shelly::start(Some(PASSWORD)).await.unwrap(), part: "light-0", changes };
    let addresses = [device.shelly.web.address().to_string()];
    let settings = json!({ "poll_s": 1, "discover_s": 5, "password": PASSWORD, "addresses": addresses });
    contract::live(find("shelly").unwrap(), &settings, &mut device).await.unwrap();
}

fn id(part: &str) -> DeviceId {
    DeviceId::new(format!("shelly-{}{part}", Shelly::MAC)).unwrap()
}

/// Polls nothing within the time of a test.
fn rare() -> serde_json::Value {
    json!({ "poll_s": 3_600, "discover_s": 3_600 })
}

#[tokio::test]
async fn what_happens_is_told_at_once_with_and_without_a_password() {
    for password in [None, Some(PASSWORD)] {
        let shelly = Shelly::start(password).await.unwrap();
        let mut settings = rare();
        settings["password"] = json!(password.unwrap_or_default());
        if password.is_some() {
            settings["addresses"] = json!([shelly.web.address().to_string()]);
        }
        let mut adapter = Running::start("shelly", &settings);
        adapter.hint(shelly.hint()).await;
        adapter.owning(&id("-switch-0")).await;
        adapter.own(&id("-input-0"), true).await;
        adapter.own(&id(""), true).await;
        adapter.measures(&id(""), "power", &Measurement::Number(648.6)).await;
        shelly.web.told(1).await;
        shelly.set("switch:0", &json!({ "output": true, "apower": 71.28 }));
        adapter.reports(&id("-switch-0"), |state| *state == State::Switch { on: true }).await;
        adapter.measures(&id("-switch-0"), "power", &Measurement::Number(71.3)).await;
        let last = Cell::new(0);
        for _ in 1..=2 {
            shelly.event("input:0", "double_push");
            let is_next = |state: &State| match state {
                State::Button { event, count } if event == "double_push" && *count > last.get() => {
                    last.set(*count);
                    true
                }
                _ => false,
            };
            adapter.reports(&id("-input-0"), is_next).await;
        }
        shelly.set("input:1", &json!({ "state": true }));
        adapter.measures(&id(""), "input_1", &Measurement::Truth(true)).await;
    }
}

#[tokio::test]
async fn every_kind_of_light_is_driven() {
    let shelly = Shelly::start(None).await.unwrap();
    let mut adapter = Running::start("shelly", &rare());
    adapter.hint(shelly.hint()).await;
    let blue = || LightChange { color: Some(ColorMode::Color(Gamut::SRGB.blue)), ..LightChange::default() };
    let white =
        LightChange { color: Some(ColorMode::Temperature { kelvin: 5_000 }), ..LightChange::default() };
    let green = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.green)), ..blue() };
    for (part, change) in [("-rgbw-0", blue()), ("-rgb-0", green), ("-cct-0", white)] {
        adapter.owning(&id(part)).await;
        let change = Change::Light(LightChange { on: Some(true), transition_ms: 500, ..change });
        assert_eq!(adapter.change(&id(part), change).await, Stage::Confirmed, "{part}");
    }
    assert_eq!(shelly.status("rgbw:0")["rgb"], json!([0, 0, 255]));
    assert_eq!(shelly.status("cct:0")["ct"], json!(5_000));
}

#[tokio::test]
async fn a_wrong_password_is_told_with_the_way_out_and_never_shown() {
    for given in ["", "wrong password"] {
        let shelly = Shelly::start(Some(PASSWORD)).await.unwrap();
        let addresses = [shelly.web.address().to_string()];
        let settings = json!({ "password": given, "addresses": addresses, "poll_s": 1 });
        let mut adapter = Running::start("shelly", &settings);
        let found = adapter.found(&id("")).await;
        assert_eq!(found.capabilities, Capabilities::Sensor);
        assert!(found.note.unwrap().contains("set \"password\" of shelly"));
        adapter.own(&id(""), true).await;
        let why = adapter.available(&id(""), Availability::Offline).await;
        assert!(why.contains("set \"password\" of shelly"), "{why}");
        let asked = shelly.web.asked().len();
        adapter.refresh(&id("")).await;
        until(|| shelly.web.asked().len() > asked).await;
        assert!(!format!("{:?}", adapter.seen).contains("wrong password"));
    }
}

#[tokio::test]
async fn a_nonce_that_grew_old_is_replaced() {
    let shelly = Shelly::start(Some(PASSWORD)).await.unwrap();
    let mut settings = rare();
    settings["password"] = json!(PASSWORD);
    settings["addresses"] = json!([shelly.web.address().to_string()]);
    let mut adapter = Running::start("shelly", &settings);
    adapter.owning(&id("-switch-0")).await;
    for on in [true, false, true] {
        shelly.forget_nonces();
        assert_eq!(adapter.change(&id("-switch-0"), Change::Switch { on }).await, Stage::Confirmed);
    }
}

#[tokio::test]
async fn a_device_that_only_announces_itself_gets_nothing_to_guess_the_password_by() {
    let shelly = Shelly::start(Some(PASSWORD)).await.unwrap();
    let mut adapter = Running::start("shelly", &json!({ "password": PASSWORD, "poll_s": 1 }));
    adapter.hint(shelly.hint()).await;
    let found = adapter.found(&id("")).await;
    assert!(found.note.unwrap().contains("add its address to \"addresses\" of shelly"));
    adapter.own(&id(""), true).await;
    let why = adapter.available(&id(""), Availability::Offline).await;
    assert!(why.contains("add its address to \"addresses\" of shelly"), "{why}");
    assert_eq!(shelly.answers(), 0);
    assert!(shelly.called().is_empty());
}

#[tokio::test]
async fn a_device_that_accepted_the_password_is_followed_to_another_address() {
    let (old, new) =
        (Shelly::start(Some(PASSWORD)).await.unwrap(), Shelly::start(Some(PASSWORD)).await.unwrap());
    let addresses = [old.web.address().to_string()];
    let settings = json!({ "password": PASSWORD, "addresses": addresses, "poll_s": 1, "discover_s": 1 });
    let mut adapter = Running::start("shelly", &settings);
    adapter.owning(&id("-switch-0")).await;
    old.web.set(Mood::Silent);
    old.web.cut();
    adapter.available(&id("-switch-0"), Availability::Offline).await;
    adapter.hint(new.hint()).await;
    adapter.available(&id("-switch-0"), Availability::Online).await;
    assert_eq!(adapter.change(&id("-switch-0"), Change::Switch { on: true }).await, Stage::Confirmed);
    assert_eq!(new.status("switch:0")["output"], json!(true));
}

#[tokio::test]
async fn devices_that_swap_addresses_are_never_taken_for_each_other() {
    const SECOND: &str = "a8032ab12346";
    let polled = json!({ "poll_s": 1, "discover_s": 3_600 });
    for (settings, is_cut) in [(rare(), true), (polled, false)] {
        let devices = [Shelly::start(None).await.unwrap(), Shelly::start(None).await.unwrap()];
        devices[1].set_hardware(SECOND);
        let ids = [id("-switch-0"), DeviceId::new(format!("shelly-{SECOND}-switch-0")).unwrap()];
        let mut adapter = Running::start("shelly", &settings);
        for (device, id) in devices.iter().zip(&ids) {
            device.web.refuse_sockets(!is_cut);
            adapter.hint(device.hint()).await;
            adapter.found(id).await;
            adapter.own(id, true).await;
        }
        adapter.all_available(&ids, Availability::Online).await;
        if is_cut {
            devices[0].web.told(1).await;
            devices[1].web.told(1).await;
        }
        devices[0].swap_addresses(&devices[1]);
        if is_cut {
            devices.iter().for_each(|device| device.web.cut());
        }
        let reasons = adapter.all_available(&ids, Availability::Offline).await;
        assert!(reasons[0].contains(SECOND) && reasons[1].contains(Shelly::MAC), "{reasons:?}");
        let stage = adapter.change(&ids[0], Change::Switch { on: true }).await;
        assert_eq!(devices[0].status("switch:0")["output"], json!(false), "{stage:?}: the other was told");
        adapter.all_available(&ids, Availability::Online).await;
        for (mine, id) in devices.iter().rev().zip(&ids) {
            // The second is still off, so the first was not taken for it.
            assert!(*id == ids[0] || mine.status("switch:0")["output"] == json!(false));
            assert_eq!(adapter.change(id, Change::Switch { on: true }).await, Stage::Confirmed);
            assert_eq!(mine.status("switch:0")["output"], json!(true));
        }
    }
}

#[tokio::test]
async fn a_device_of_another_node_is_asked_for_nothing_but_who_it_is() {
    let shelly = Shelly::start(None).await.unwrap();
    let mut adapter = Running::start("shelly", &json!({ "poll_s": 1, "discover_s": 1 }));
    adapter.hint(shelly.hint()).await;
    adapter.found(&id("-switch-0")).await;
    let began = shelly.web.log().len();
    until(|| shelly.web.log().len() >= began + 4).await;
    let asked: BTreeSet<String> = shelly.web.log().into_iter().skip(began).map(|(_, what)| what).collect();
    assert_eq!(asked, BTreeSet::from(["GET /shelly".to_owned()]));
}

#[tokio::test]
async fn a_device_of_the_first_generation_is_left_alone() {
    let shelly = Shelly::start(None).await.unwrap();
    shelly.set_info("gen", json!(1));
    let adapter = Running::start("shelly", &json!({ "discover_s": 1 }));
    adapter.hint(shelly.hint()).await;
    until(|| shelly.web.log().len() >= 2).await;
    assert!(shelly.web.log().iter().all(|(_, what)| what == "GET /shelly"));
    assert!(shelly.called().is_empty());
}

#[tokio::test]
async fn a_sleeper_stays_online_and_is_read_when_it_wakes() {
    let shelly = Shelly::start(None).await.unwrap();
    shelly.set("sys", &json!({ "wakeup_period": 3_600 }));
    let mut adapter = Running::start("shelly", &json!({ "poll_s": 1, "discover_s": 1 }));
    adapter.hint(shelly.hint()).await;
    adapter.owning(&id("")).await;
    shelly.web.set(Mood::Silent);
    let asked = shelly.web.asked().len();
    until(|| shelly.web.asked().len() >= asked + 4).await; // in vain
    shelly.set("temperature:100", &json!({ "tC": 18.25 }));
    shelly.web.set(Mood::Well);
    adapter.hint(shelly.hint()).await;
    adapter.measures(&id(""), "temperature_100", &Measurement::Number(18.3)).await;
    let is_offline = |reading: &Reading| {
        matches!(
            reading,
            Reading::Lost { .. } | Reading::Availability { availability: Availability::Offline, .. }
        )
    };
    assert!(!adapter.seen.iter().any(is_offline), "{:?}", adapter.seen);
}

#[tokio::test]
async fn a_channel_that_is_renamed_is_described_again() {
    let shelly = Shelly::start(None).await.unwrap();
    let mut adapter = Running::start("shelly", &rare());
    adapter.hint(shelly.hint()).await;
    assert_eq!(adapter.owning(&id("-switch-0")).await.name, "Pump");
    shelly.web.told(1).await;
    shelly.configure("switch:0", &json!({ "name": "Fountain" }));
    shelly.event("switch:0", "config_changed");
    adapter
        .next("the new name", |reading| match reading {
            Reading::Found { device } if device.name == "Fountain" => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn somebody_elses_client_takes_the_fake_for_a_device() {
    for password in [None, Some(PASSWORD)] {
        let shelly = Shelly::start(password).await.unwrap();
        let port = shelly.web.address().port().to_string();
        let given: Vec<&str> = [port.as_str()].into_iter().chain(password).collect();
        let told = peer("shelly.py", &given).await.unwrap();
        assert_eq!((&told["name"], &told["gen"]), (&json!("Cellar"), &json!(2)));
        assert_eq!(
            (&told["protected"], &told["was"], &told["is"]),
            (&json!(password.is_some()), &json!(false), &json!(true))
        );
        assert_eq!((&told["over_http"], &shelly.status("switch:0")["output"]), (&json!(true), &json!(true)));
        if password.is_some() {
            let told = peer("shelly.py", &[port.as_str(), "wrong password"]).await.unwrap();
            assert_eq!(told, json!({ "refused": true }));
        }
    }
}
