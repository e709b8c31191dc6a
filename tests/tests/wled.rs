//! The WLED adapter against a fake board: the contract, and every rule that a user would notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use device_adapters::contract::{self, Ignores, Peer};
use device_adapters::model::{
    Availability, Change, ColorMode, DeviceId, Gamut, LightChange, Stage, State, color,
};
use device_adapters::{Hint, Reading, find};
use hearth_tests::fakes::running::{Running, until};
use hearth_tests::fakes::web::{Mood, WRONG};
use hearth_tests::fakes::wled::Wled;
use hearth_tests::python::peer;
use serde_json::json;
use tokio::time::Instant;

struct Board(Wled);

impl Peer for Board {
    fn hints(&self) -> Vec<Hint> {
        vec![self.0.hint()]
    }

    fn device(&self) -> DeviceId {
        DeviceId::new(format!("wled-{}", Wled::MAC)).unwrap()
    }

    fn changes(&self) -> Vec<Change> {
        let light = |change: LightChange| Change::Light(change);
        vec![
            light(LightChange { on: Some(false), ..LightChange::default() }),
            light(LightChange { on: Some(true), brightness: Some(40_000), ..LightChange::default() }),
            light(LightChange { color: Some(ColorMode::Color(Gamut::SRGB.blue)), ..LightChange::default() }),
            light(LightChange {
                effect: Some("Rainbow".into()),
                palette: Some("Lava".into()),
                ..LightChange::default()
            }),
            light(LightChange {
                effect: Some("none".into()),
                palette: Some("Party".into()),
                brightness: Some(color::from_percent(10)),
                color: Some(ColorMode::Color(Gamut::SRGB.red)),
                transition_ms: 300,
                ..LightChange::default()
            }),
        ]
    }

    async fn ignore(&mut self) -> Ignores {
        self.0.ignore_changes(true);
        Ignores::Commands
    }

    async fn silence(&mut self) {
        self.0.web.set(Mood::Silent);
    }

    async fn recover(&mut self) {
        self.0.ignore_changes(false);
        self.0.web.set(Mood::Well);
    }

    async fn misbehave(&mut self, number: usize) -> bool {
        self.recover().await;
        // What it tells by itself is as wrong as what it answers.
        self.0.web.tell(["{", "[]", "{\"state\":7,\"info\":{}}", "null"][number % 4]);
        match WRONG.get(number) {
            Some(wrong) => self.0.web.set(Mood::Wrong(*wrong)),
            None if number == WRONG.len() => self.0.ignore_changes(true),
            None if number == WRONG.len() + 1 => self.0.web.tell("x".repeat(1 << 20)),
            None => return false,
        }
        true
    }

    fn asked(&self) -> Vec<Instant> {
        self.0.web.asked()
    }

    fn most_a_second(&self) -> usize {
        8
    }

    /// Who asks for the names of the effects as well describes it, and reads what it shows for that.
    fn touched(&self) -> usize {
        let log = self.0.web.log();
        let count = |wanted: &str| log.iter().filter(|(_, what)| what == wanted).count();
        let reads = count("GET /json/si").saturating_sub(count("GET /json/eff"));
        reads + count("POST /json/state") + count("GET /ws")
    }
}

#[tokio::test]
async fn the_adapter_keeps_the_contract() {
    let mut board = Board(Wled::start(1, 3).await.unwrap());
    let settings = json!({ "poll_s": 1, "discover_s": 5 });
    contract::live(find("wled").unwrap(), &settings, &mut board).await.unwrap();
}

fn id(segment: &str) -> DeviceId {
    DeviceId::new(format!("wled-{}{segment}", Wled::MAC)).unwrap()
}

/// Polls nothing within the time of a test.
fn rare() -> serde_json::Value {
    json!({ "poll_s": 3_600, "discover_s": 3_600 })
}

fn dim(brightness: u16) -> Change {
    Change::Light(LightChange { brightness: Some(brightness), ..LightChange::default() })
}

fn has_brightness(state: &State, wanted: u8) -> bool {
    matches!(state, State::Light(light) if light.brightness == color::from_byte(wanted))
}

#[tokio::test]
async fn a_change_by_somebody_else_is_told_at_once() {
    let wled = Wled::start(1, 1).await.unwrap();
    let mut adapter = Running::start("wled", &rare());
    adapter.hint(wled.hint()).await;
    adapter.owning(&id("")).await;
    wled.web.told(1).await;
    wled.set(&json!({ "bri": 33 }));
    adapter.reports(&id(""), |state| has_brightness(state, 33)).await;
}

#[tokio::test]
async fn a_board_that_refuses_its_socket_is_polled() {
    let wled = Wled::start(1, 1).await.unwrap();
    wled.web.refuse_sockets(true);
    let mut adapter =
        Running::start("wled", &json!({ "addresses": [wled.web.address().to_string()], "poll_s": 1 }));
    adapter.owning(&id("")).await;
    for brightness in [20, 30] {
        wled.set(&json!({ "bri": brightness }));
        adapter.reports(&id(""), |state| has_brightness(state, brightness)).await;
    }
    assert_eq!(sockets(&wled), 1, "who is refused does not knock again at once");
}

#[tokio::test]
async fn who_is_dropped_by_a_fifth_client_does_not_take_its_place_back() {
    let wled = Wled::start(1, 1).await.unwrap();
    let mut adapter = Running::start("wled", &json!({ "poll_s": 1 }));
    adapter.hint(wled.hint()).await;
    adapter.owning(&id("")).await;
    wled.web.opened(1).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        let url = format!("ws://{}/ws", wled.web.address());
        let stream = tokio::net::TcpStream::connect(wled.web.address()).await.unwrap();
        others.push(tokio_tungstenite::client_async(url, stream).await.unwrap());
    }
    wled.web.opened(4).await;
    for brightness in [20, 30] {
        wled.set(&json!({ "bri": brightness }));
        adapter.reports(&id(""), |state| has_brightness(state, brightness)).await;
    }
    assert_eq!(sockets(&wled), 5);
    assert_eq!(others.len(), 4);
}

fn sockets(wled: &Wled) -> usize {
    wled.web.log().iter().filter(|(_, what)| what == "GET /ws").count()
}

#[tokio::test]
async fn a_board_of_another_node_is_asked_for_nothing_but_who_it_is() {
    let wled = Wled::start(1, 1).await.unwrap();
    let mut adapter = Running::start("wled", &json!({ "poll_s": 1, "discover_s": 1 }));
    adapter.hint(wled.hint()).await;
    adapter.owning(&id("")).await;
    wled.web.opened(1).await;
    adapter.own(&id(""), false).await;
    wled.web.opened(0).await;
    let began = wled.web.log().len();
    until(|| wled.web.log().len() >= began + 4).await;
    let asked: BTreeSet<String> = wled.web.log().into_iter().skip(began).map(|(_, what)| what).collect();
    assert_eq!(asked, BTreeSet::from(["GET /json/info".to_owned()]));
    assert!(matches!(adapter.change(&id(""), dim(1_000)).await, Stage::Failed { .. }));
}

#[tokio::test]
async fn a_segment_is_a_light_of_its_own() {
    let wled = Wled::start(2, 1).await.unwrap();
    let mut adapter = Running::start("wled", &rare());
    adapter.hint(wled.hint()).await;
    adapter.owning(&id("-1")).await;
    let blue = Change::Light(LightChange {
        brightness: Some(color::from_byte(50)),
        color: Some(ColorMode::Color(Gamut::SRGB.blue)),
        transition_ms: 1_200,
        ..LightChange::default()
    });
    assert_eq!(adapter.change(&id("-1"), blue).await, Stage::Confirmed);
    let state = wled.state();
    assert_eq!((&state["seg"][1]["bri"], &state["seg"][1]["col"][0]), (&json!(50), &json!([0, 0, 255, 0])));
    assert_eq!((&state["bri"], &state["seg"][0]["bri"]), (&json!(127), &json!(255)), "the rest stays");
    assert_eq!(wled.transitions(), [12]);
    // The board is off: the segment alone goes on.
    wled.set(&json!({ "on": false }));
    adapter.reports(&id("-1"), |state| state.is_on() == Some(false)).await;
    let on = Change::Light(LightChange { on: Some(true), ..LightChange::default() });
    assert_eq!(adapter.change(&id("-1"), on).await, Stage::Confirmed);
    let state = wled.state();
    assert_eq!(
        (&state["on"], &state["seg"][0]["on"], &state["seg"][1]["on"]),
        (&json!(true), &json!(false), &json!(true))
    );
}

#[tokio::test]
async fn a_board_that_took_another_address_is_followed() {
    let (old, new) = (Wled::start(1, 1).await.unwrap(), Wled::start(1, 1).await.unwrap());
    let mut adapter = Running::start("wled", &json!({ "poll_s": 1, "discover_s": 1 }));
    adapter.hint(old.hint()).await;
    adapter.owning(&id("")).await;
    old.web.set(Mood::Silent);
    let why = adapter.available(&id(""), Availability::Offline).await;
    assert!(why.contains(&old.web.address().to_string()) && why.contains("last heard"), "{why}");
    adapter.hint(new.hint()).await;
    adapter.available(&id(""), Availability::Online).await;
    assert_eq!(adapter.change(&id(""), dim(color::from_byte(77))).await, Stage::Confirmed);
    assert_eq!(new.state()["bri"], json!(77));
}

const SECOND: &str = "60019423b442";

/// Two boards that an adapter knows by hints and owns, with their lights.
async fn two_boards(
    settings: &serde_json::Value,
    refuse_sockets: bool,
) -> (Running, [Wled; 2], [DeviceId; 2]) {
    let boards = [Wled::start(1, 1).await.unwrap(), Wled::start(1, 1).await.unwrap()];
    boards[1].set_info("mac", json!(SECOND));
    let ids = [id(""), DeviceId::new(format!("wled-{SECOND}")).unwrap()];
    let mut adapter = Running::start("wled", settings);
    for board in &boards {
        board.web.refuse_sockets(refuse_sockets);
        adapter.hint(board.hint()).await;
    }
    for id in &ids {
        adapter.found(id).await;
        adapter.own(id, true).await;
    }
    adapter.all_available(&ids, Availability::Online).await;
    (adapter, boards, ids)
}

/// Commands to both reach the one that is meant, which is at the other's address now.
async fn each_is_told_its_own(adapter: &mut Running, boards: &[Wled; 2], ids: &[DeviceId; 2]) {
    for (number, id) in ids.iter().enumerate() {
        let brightness = 77 + u8::try_from(number).unwrap();
        let (mine, other) = (&boards[1 - number], &boards[number]);
        let was = other.state();
        assert_eq!(adapter.change(id, dim(color::from_byte(brightness))).await, Stage::Confirmed);
        assert_eq!((mine.state()["bri"].clone(), other.state()), (json!(brightness), was));
    }
}

#[tokio::test]
async fn boards_that_swap_addresses_are_never_taken_for_each_other() {
    // What ended their connections is a sign; where nothing ends, what they tell and what is read from them is.
    let polled = json!({ "poll_s": 1, "discover_s": 3_600 });
    for (settings, refuses, is_cut) in [(rare(), false, true), (rare(), false, false), (polled, true, false)]
    {
        let (mut adapter, boards, ids) = two_boards(&settings, refuses).await;
        if !refuses {
            boards[0].web.told(1).await;
            boards[1].web.told(1).await;
        }
        boards[0].swap_addresses(&boards[1]);
        for board in &boards {
            if is_cut {
                board.web.cut();
            } else {
                board.set(&json!({ "transition": 9 }));
            }
        }
        let reasons = adapter.all_available(&ids, Availability::Offline).await;
        assert!(reasons[0].contains(SECOND) && reasons[1].contains(Wled::MAC), "{reasons:?}");
        // They are not found yet: nothing goes to the old addresses.
        let stage = adapter.change(&ids[0], dim(color::from_byte(5))).await;
        assert_eq!(boards[0].state()["bri"], json!(127), "{stage:?}: the other board was told");
        adapter.all_available(&ids, Availability::Online).await;
        each_is_told_its_own(&mut adapter, &boards, &ids).await;
    }
}

#[tokio::test]
async fn a_board_that_announces_itself_at_the_address_of_another_is_news_for_both() {
    let (mut adapter, boards, ids) = two_boards(&rare(), true).await;
    boards[0].swap_addresses(&boards[1]);
    // One announcement; the other board is looked for.
    adapter.hint(boards[0].hint()).await;
    adapter.all_available(&ids, Availability::Offline).await;
    adapter.all_available(&ids, Availability::Online).await;
    each_is_told_its_own(&mut adapter, &boards, &ids).await;
}

#[tokio::test]
async fn a_brightness_alone_leaves_a_light_off() {
    let wled = Wled::start(2, 1).await.unwrap();
    let mut adapter = Running::start("wled", &rare());
    adapter.hint(wled.hint()).await;
    adapter.owning(&id("")).await;
    adapter.own(&id("-1"), true).await;
    wled.web.told(1).await;
    wled.set(&json!({ "on": false, "seg": [{ "id": 1, "on": false }] }));
    adapter.reports(&id(""), |state| state.is_on() == Some(false)).await;
    for (light, brightness) in [("", 33), ("-1", 44)] {
        let dimmed = adapter.change(&id(light), dim(color::from_byte(brightness))).await;
        assert_eq!(dimmed, Stage::Confirmed);
    }
    let state = wled.state();
    assert_eq!((&state["on"], &state["bri"]), (&json!(false), &json!(33)));
    assert_eq!((&state["seg"][1]["on"], &state["seg"][1]["bri"]), (&json!(false), &json!(44)));
}

#[tokio::test]
async fn a_board_that_is_renamed_is_described_again() {
    let wled = Wled::start(1, 1).await.unwrap();
    let mut adapter = Running::start("wled", &json!({ "poll_s": 1, "discover_s": 1 }));
    adapter.hint(wled.hint()).await;
    assert_eq!(adapter.owning(&id("")).await.name, "Shelf");
    wled.set_info("name", json!("Cupboard"));
    adapter
        .next("the new name", |reading| match reading {
            Reading::Found { device } if device.name == "Cupboard" => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn somebody_elses_client_takes_the_fake_for_a_board() {
    let wled = Wled::start(1, 1).await.unwrap();
    let told = peer("wled_client.py", &[&wled.web.address().port().to_string()]).await.unwrap();
    assert_eq!(
        (&told["name"], &told["mac"], &told["version"]),
        (&json!("Shelf"), &json!(Wled::MAC), &json!("0.15.0"))
    );
    // That client shows what is not there as well, under the name `-`.
    let effects = told["effects"].as_array().unwrap();
    assert!(["Blink", "Fire 2012", "Rainbow", "Solid"].iter().all(|name| effects.contains(&json!(name))));
    assert_eq!(
        (&told["brightness"], &told["color"], &told["effect"]),
        (&json!(200), &json!([0, 0, 255]), &json!(3))
    );
    assert_eq!(told["pushed"], json!(200));
}
