//! A LIFX bulb, the real emulator, that two linked nodes reach: commands, a slider, a bulb that lies, and
//! the death of its owner.

use std::time::Duration;

use device_adapters::find;
use hearth_tests::emulator::{COLOR_BULB, Emulator, Fault, Link};
use node::api::ports::{CommandState, Power};
use serde_json::json;

use crate::home::{Home, availability, brightness, field, power, reason};
use CommandState::{Accepted, Acknowledged, Confirmed, Sent, Superseded, TimedOut};

const SERIAL: &str = "d073d5000001";

struct Rig {
    emulator: Emulator,
    link: Link,
    home: Home,
    owner: usize,
}

impl Rig {
    async fn new(name: &str) -> Self {
        let emulator = Emulator::start(&[COLOR_BULB]).await.unwrap();
        let link = Link::to(emulator.address(), 7).await.unwrap();
        let settings = json!({"bind": "127.0.0.1", "addresses": [link.address().to_string()], "broadcast": [], "discover_s": 2, "poll_s": 1});
        let device = format!("lifx-{SERIAL}");
        let home =
            Home::of(std::slice::from_ref(find("lifx").unwrap()), name, &device, 2, |_| settings.clone())
                .await;
        let owner = home.settled().await;
        Self { emulator, link, home, owner }
    }

    async fn brightness(&self) -> u64 {
        self.emulator.device(SERIAL).await.unwrap()["color"]["brightness"].as_u64().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_to_a_bulb_of_the_other_node_is_confirmed_also_when_packets_are_lost() {
    let rig = Rig::new("lifx-far").await;
    let other = &rig.home.nodes[1 - rig.owner];
    let command = other.submit(&rig.home.device, power(Power::Off)).await;
    let ended = other.ended(&command.id).await;
    let states: Vec<_> = ended.life.iter().map(|(state, _)| *state).collect();
    assert_eq!(states, [Accepted, Sent, Acknowledged, Confirmed]);
    assert_eq!(rig.emulator.device(SERIAL).await.unwrap()["power_level"], 0);

    rig.link.set(Fault { lose_requests: 0.3, lose_answers: 0.3, ..Fault::default() });
    for level in [10_000, 50_000] {
        let command = other.submit(&rig.home.device, brightness(level)).await;
        assert_eq!(other.ended(&command.id).await.state, Confirmed);
        assert!(rig.brightness().await.abs_diff(level.into()) <= 656);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulb_that_acknowledges_and_ignores_ends_timed_out() {
    let rig = Rig::new("lifx-deaf").await;
    let other = &rig.home.nodes[1 - rig.owner];
    rig.link.set(Fault { ignore_sets: true, ..Fault::default() });
    // It ends at its deadline and not before. Until then the bulb must have acknowledged and been read, however busy
    // the machine is.
    let command = other.submit_within(&rig.home.device, brightness(1), 10_000).await;
    let ended = other.ended(&command.id).await;
    let states: Vec<_> = ended.life.iter().map(|(state, _)| *state).collect();
    assert_eq!(states, [Accepted, Sent, Acknowledged, TimedOut], "{ended:?}");
    assert!(ended.reason.as_ref().unwrap().contains("acknowledged, but reads back"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slider_never_shows_a_report_of_an_older_command_after_one_of_a_newer() {
    let rig = Rig::new("lifx-slider").await;
    let other = &rig.home.nodes[1 - rig.owner];
    let watching = other.service.watch(vec![rig.home.device.as_str().to_owned()], None).await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(33));
    let mut ids = Vec::new();
    for step in 1..=60_u16 {
        pace.tick().await;
        ids.push(other.submit(&rig.home.device, brightness(step * 1_000)).await.id);
    }
    let mut newest = 0;
    while newest + 1 < ids.len() {
        let changes = other.service.next_changes(watching.watcher).await.unwrap();
        for view in changes.changes.into_iter().filter_map(|change| change.object) {
            let command = field(&view, "reported").and_then(|reported| reported.get("command")?.as_text());
            let Some(at) = command.and_then(|id| ids.iter().position(|known| known == id)) else { continue };
            assert!(at >= newest, "a report of command {at} after one of {newest}");
            newest = at;
        }
    }
    for id in &ids {
        let state = other.ended(id).await.state;
        assert!([Confirmed, Superseded].contains(&state), "{state:?}");
    }
    assert!(rig.brightness().await.abs_diff(60_000) <= 656);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulb_that_vanishes_is_offline_with_a_reason_and_comes_back() {
    let rig = Rig::new("lifx-gone").await;
    let other = &rig.home.nodes[1 - rig.owner];
    rig.link.set(Fault { lose_requests: 1.0, ..Fault::default() });
    let gone = other.until(&rig.home.device, "offline", |view| availability(view) == "offline").await;
    assert!(!reason(&gone).is_empty());
    rig.link.set(Fault::default());
    other.until(&rig.home.device, "online", |view| availability(view) == "online").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_owner_dies_the_bulb_moves_to_the_survivor() {
    let mut rig = Rig::new("lifx-heir").await;
    drop(rig.home.nodes.remove(rig.owner));
    let survivor = &rig.home.nodes[0];
    let command = survivor.submit(&rig.home.device, brightness(2_000)).await;
    let ended = survivor.ended(&command.id).await;
    assert_eq!(ended.state, Confirmed, "{ended:?}");
    assert!(rig.brightness().await.abs_diff(2_000) <= 656);
    survivor.until(&rig.home.device, "online", |view| availability(view) == "online").await;
}
