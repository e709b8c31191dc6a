//! GPIO lines: the contract against a line that a script moves, the settings, and what edges mean. No test here touches
//! the kernel's interface but to see that a board without it is borne.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod script;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, advance, timeout};

use self::script::{Fault, SCRIPTED, Script, Scripted, ScriptedPeer};
use super::config::{Bias, Config, Role, Which};
use super::input::{Input, LONG_PRESS, PRESS, RELEASE, Timing, Told};
use super::kernel::Kernel;
use super::watch::Watch;
use super::{Lines, REGISTRATION, Wiring};
use crate::adapter::{Context, Directive, Handle, Reading};
use crate::board::tests::Folder;
use crate::board::{Event, Hardware};
use crate::model::{Availability, DeviceId, Measurement, State};
use crate::{AdapterError, contract};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn the_adapter_keeps_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
}

#[tokio::test]
async fn the_adapter_stops_in_time_on_a_board_without_the_chip() {
    let folder = Folder::new();
    folder.file("gpiochip0", "not a chip");
    let lines = json!([{ "name": "Pump", "line": "GPIO17", "role": "switch" }]);
    let settings = json!({ "root": folder.0, "lines": lines });
    contract::shutdown(&REGISTRATION, &settings, ms(50)).await.unwrap();
}

#[tokio::test]
async fn a_chip_that_is_none_or_not_there_is_named_with_the_way_out() {
    let folder = Folder::new();
    let lines = json!([{ "name": "Pump", "line": "GPIO17", "role": "switch" }]);
    let config = Config::parse(&REGISTRATION.descriptor, &json!({ "lines": lines })).unwrap();
    let kernel = Kernel { root: folder.0.clone() };
    let open = || kernel.open(&config.lines[0], &runtime::Handle::current()).unwrap_err().to_string();
    assert!(open().contains("has GPIO17") && open().contains("gpio.conf"), "{}", open());
    folder.file("gpiochip0", "not a chip");
    assert!(open().contains("gpiochip0 cannot be used") && open().contains("gpio.conf"), "{}", open());
}

#[tokio::test]
async fn without_lines_it_says_what_to_set() {
    let ended = (REGISTRATION.build)(&json!({})).unwrap().run(Context::channel(1, 1).0).await;
    assert!(matches!(ended, Err(AdapterError::Unconfigured { what, .. }) if what.contains("GPIO17")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_a_script_holds_keeps_the_contract_live() {
    let mut peer = ScriptedPeer::new("live-output");
    let settings = peer.settings(&json!({ "name": "Pump", "role": "switch" }));
    contract::live(&SCRIPTED, &settings, &mut peer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_that_a_script_moves_keeps_the_contract_live() {
    let mut peer = ScriptedPeer::new("live-sensor").measuring();
    let settings = peer.settings(&json!({ "name": "Pump", "role": "sensor", "class": "moisture" }));
    contract::live(&SCRIPTED, &settings, &mut peer).await.unwrap();
}

/// An adapter on a scripted line, owned.
struct Rig {
    script: Script,
    device: DeviceId,
    handle: Handle,
    _run: tokio::task::JoinHandle<Result<(), AdapterError>>,
}

impl Rig {
    async fn new(chip: &str, line: Value) -> Self {
        let peer = ScriptedPeer::new(chip);
        let adapter = (SCRIPTED.build)(&peer.settings(&line)).unwrap();
        let (context, handle) = Context::channel(64, 64);
        let device = pump();
        handle.commands.send(Directive::Own { device: device.clone(), owned: true }).await.unwrap();
        let run = tokio::spawn(adapter.run(context));
        let mut rig = Self { script: peer.script, device, handle, _run: run };
        rig.next(|reading| {
            matches!(reading, Reading::Availability { availability: Availability::Online, .. }).then_some(())
        })
        .await;
        rig
    }

    async fn next<T>(&mut self, pick: impl Fn(&Reading) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(10);
        let mut seen = Vec::new();
        loop {
            let Ok(reading) = tokio::time::timeout_at(end, self.handle.readings.recv()).await else {
                panic!("nothing came that was waited for: {seen:?}")
            };
            let reading = reading.expect("it runs");
            if let Some(picked) = pick(&reading) {
                return picked;
            }
            seen.push(reading);
        }
    }

    async fn event(&mut self) -> (String, u64) {
        self.next(|reading| match reading {
            Reading::Reported { state: State::Button { event, count }, .. } => Some((event.clone(), *count)),
            _ => None,
        })
        .await
    }

    async fn truth(&mut self) -> bool {
        self.next(|reading| match reading {
            Reading::Measured { values, .. } => match values["input"] {
                Measurement::Truth(truth) => Some(truth),
                _ => None,
            },
            _ => None,
        })
        .await
    }
}

#[tokio::test]
async fn a_button_tells_presses_in_their_order() {
    let line = json!({ "name": "Pump", "role": "button", "debounce_ms": 0, "long_press_ms": 300 });
    let mut rig = Rig::new("button", line).await;
    rig.script.edge(true);
    rig.script.edge(false);
    let (event, first) = rig.event().await;
    assert_eq!(event, PRESS);
    rig.script.edge(true);
    assert_eq!(rig.event().await, (LONG_PRESS.to_owned(), first + 1));
    rig.script.edge(false);
    assert_eq!(rig.event().await, (RELEASE.to_owned(), first + 2));
}

#[tokio::test]
async fn an_edge_of_a_sensor_is_told_at_once() {
    let line = json!({ "name": "Pump", "role": "sensor", "debounce_ms": 1 });
    let mut rig = Rig::new("sensor", line).await;
    rig.script.edge(true);
    while !rig.truth().await {}
    rig.script.edge(false);
    while rig.truth().await {}
}

#[tokio::test]
async fn a_level_whose_edge_was_lost_is_seen_by_a_poll() {
    let line = json!({ "name": "Pump", "role": "sensor", "debounce_ms": 1 });
    let mut rig = Rig::new("lost-edge", line).await;
    rig.script.set(true);
    rig.handle.commands.send(Directive::Refresh { device: rig.device.clone() }).await.unwrap();
    while !rig.truth().await {}
}

fn pump() -> DeviceId {
    DeviceId::new("gpio-0000000000000000-pump").unwrap()
}

/// A line whose edges are watched, without anybody who polls it.
fn watched(line: Value) -> (Script, Watch, mpsc::Receiver<Event>) {
    let script = Script::default();
    let peer = ScriptedPeer::new("watched");
    let lines = Config::parse(&REGISTRATION.descriptor, &peer.settings(&line)).unwrap().lines;
    let (events, told) = mpsc::channel(8);
    let line = Arc::new(script.clone());
    let watch = Watch::start(&runtime::Handle::current(), line, &lines[0], false, pump(), events);
    (script, watch, told)
}

async fn pressed(told: &mut mpsc::Receiver<Event>) -> &'static str {
    match timeout(Duration::from_secs(10), told.recv()).await {
        Ok(Some(Event::Pressed { event, .. })) => event,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_button_that_was_let_go_in_time_was_not_held_however_late_that_is_heard_of() {
    for debounce in [0, 20] {
        let line = json!({ "name": "Pump", "role": "button", "debounce_ms": debounce, "long_press_ms": 800 });
        let (script, _watch, mut told) = watched(line);
        let begun = Instant::now();
        script.edge(true);
        script.awaited().await;
        script.late_edge(begun + ms(200), false);
        assert_eq!(pressed(&mut told).await, PRESS, "debounced for {debounce} ms");
        // And one that was held long enough was, although nobody had the time to tell before it was let go.
        let begun = Instant::now();
        script.late_edge(begun, true);
        script.late_edge(begun + ms(900), false);
        advance(ms(1_000)).await;
        script.edge(false);
        assert_eq!(pressed(&mut told).await, LONG_PRESS, "debounced for {debounce} ms");
        assert_eq!(pressed(&mut told).await, RELEASE, "debounced for {debounce} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_an_edge_overtakes_takes_nothing_back() {
    let line = json!({ "name": "Pump", "role": "button", "debounce_ms": 0, "long_press_ms": 100 });
    let (script, watch, mut told) = watched(line);
    script.overtake(true);
    let watch = tokio::task::spawn_blocking(move || {
        watch.look().unwrap(); // it reads that nobody presses, as it was
        watch
    });
    let _watch = watch.await.unwrap();
    assert_eq!(pressed(&mut told).await, LONG_PRESS, "it is held");
}

#[tokio::test]
async fn a_line_that_cannot_be_read_for_once_stays_and_one_that_is_pulled_does_not() {
    let peer = ScriptedPeer::new("unsure");
    let line = json!({ "name": "Pump", "role": "sensor" });
    let lines = Config::parse(&REGISTRATION.descriptor, &peer.settings(&line)).unwrap().lines;
    let (events, _told) = mpsc::channel(8);
    let board = "0000000000000000".to_owned();
    let wiring = Wiring { source: Scripted, lines, board, events, runtime: runtime::Handle::current() };
    let place = wiring.list(&BTreeMap::new()).unwrap().found.remove(0).place;
    let known = BTreeMap::from([(pump(), Arc::clone(&place))]);
    let is_same = |wiring: &Wiring<Scripted>| {
        let found = wiring.list(&known).unwrap().found;
        Arc::ptr_eq(&found[0].place, &place)
    };
    assert!(is_same(&wiring));
    peer.script.fault(Fault::Mute);
    let listing = wiring.list(&known).unwrap();
    assert!(listing.found.is_empty() && listing.unsure.contains(&pump()), "{listing:?}");
    peer.script.fault(Fault::Gone);
    let listing = wiring.list(&known).unwrap();
    assert!(listing.found.is_empty() && listing.unsure.is_empty(), "{listing:?}");
    // Whoever watched it has ended with the chip; the line is watched again when it can be read.
    let ended = timeout(Duration::from_secs(10), async {
        while place.watch.as_ref().unwrap().is_running() {
            tokio::task::yield_now().await;
        }
    });
    ended.await.unwrap();
    peer.script.fault(Fault::None);
    assert!(!is_same(&wiring));
}

#[test]
fn settings_name_the_key_the_value_and_the_rule() {
    let parse = |line: Value| Config::parse(&REGISTRATION.descriptor, &json!({ "lines": [line] }));
    let refused = |line: Value| parse(line).unwrap_err().to_string();
    let pump = |key: &str, value: Value| {
        let mut line = json!({ "name": "Pump", "line": "GPIO17", "role": "switch" });
        line[key] = value;
        line
    };
    assert_eq!(
        refused(pump("rolle", json!(1))),
        "settings of gpio hold the unknown key \"lines[0].rolle\": it knows active_low, bias, chip, class, debounce_ms, \
         line, long_press_ms, name, role"
    );
    assert_eq!(
        refused(json!({ "line": "GPIO17", "role": "switch" })),
        "setting \"lines[0].name\" of gpio is missing: it must be a name of 1 to 40 bytes with a letter or digit"
    );
    for (key, wrong) in [
        ("name", json!("…")),
        ("name", json!("x".repeat(41))),
        ("role", json!("relay")),
        ("line", json!(-1)),
        ("line", json!("../x")),
        ("chip", json!("/dev/gpiochip0")),
        ("bias", json!("up")),
        ("active_low", json!("yes")),
        ("debounce_ms", json!(1_001)),
        ("long_press_ms", json!(0.5)),
        ("class", json!("Front door")),
    ] {
        let told = refused(pump(key, wrong.clone()));
        assert!(told.contains(&format!("\"lines[0].{key}\"")), "{key} {wrong}: {told}");
    }
    assert!(refused(pump("line", json!(17))).contains("\"lines[0].chip\" of gpio is missing"));
    assert!(refused(json!("GPIO17")).contains("\"lines\""));
    let twice = |one: Value, other: Value| {
        Config::parse(&REGISTRATION.descriptor, &json!({ "lines": [one, other] })).unwrap_err().to_string()
    };
    assert!(twice(pump("name", json!("A b")), pump("name", json!("a-B"))).contains("names differ"));
    assert!(twice(pump("name", json!("a")), pump("name", json!("b"))).contains("stands once"));
}

#[test]
fn a_line_is_read_with_its_defaults() {
    let lines = json!([
        { "name": "Pump", "line": "GPIO17", "role": "switch" },
        { "name": "Bell", "line": 4, "chip": "gpiochip0", "role": "button", "active_low": true, "bias": "pull_up" },
    ]);
    let lines = Config::parse(&REGISTRATION.descriptor, &json!({ "lines": lines })).unwrap().lines;
    assert_eq!((lines[0].role, &lines[0].line), (Role::Switch, &Which::Named("GPIO17".to_owned())));
    assert_eq!((lines[0].debounce, lines[0].long_press, lines[0].active_low), (ms(20), ms(800), false));
    assert_eq!((lines[1].line.clone(), lines[1].bias), (Which::Offset(4), Some(Bias::PullUp)));
    assert_eq!(lines[1].place(), "line 4 of gpiochip0");
}

/// What an input tells of edges at these milliseconds, until `end`.
fn told(timing: Timing, edges: &[(u64, bool)], end: u64) -> Vec<(u64, Told)> {
    let begun = Instant::now();
    let mut input = Input::new(timing, false);
    let mut told = Vec::new();
    let due = |input: &mut Input, until: u64, told: &mut Vec<(u64, Told)>| {
        while let Some(at) = input.poll_timeout().filter(|at| *at <= begun + ms(until)) {
            let at_ms = u64::try_from((at - begun).as_millis()).unwrap();
            told.extend(input.handle_timeout(at).map(|one| (at_ms, one)));
        }
    };
    for (at, level) in edges {
        due(&mut input, *at, &mut told);
        told.extend(input.edge(begun + ms(*at), *level).map(|one| (*at, one)));
    }
    due(&mut input, end, &mut told);
    told
}

const BUTTON: Timing =
    Timing { debounce: Duration::from_millis(20), long_press: Some(Duration::from_millis(800)) };
const CONTACT: Timing = Timing { debounce: Duration::from_millis(20), long_press: None };

#[test]
fn a_contact_that_bounces_tells_one_change() {
    let bouncing = [(0, true), (3, false), (5, true), (9, false), (11, true)];
    assert_eq!(told(CONTACT, &bouncing, 1_000), [(31, Told::Level(true))]);
    let polled = [(0, true), (15, true), (30, true)];
    assert_eq!(told(CONTACT, &polled, 1_000), [(20, Told::Level(true))], "a poll delays nothing");
    let glitch = [(0, true), (5, false)];
    assert_eq!(told(CONTACT, &glitch, 1_000), []);
    let timing = Timing { debounce: Duration::ZERO, ..CONTACT };
    assert_eq!(told(timing, &glitch, 1_000), [(0, Told::Level(true)), (5, Told::Level(false))]);
}

#[test]
fn a_press_is_short_or_long() {
    let pressed = |event| Told::Pressed(event);
    assert_eq!(told(BUTTON, &[(0, true), (200, false)], 2_000), [(220, pressed(PRESS))]);
    assert_eq!(
        told(BUTTON, &[(0, true), (1_500, false)], 3_000),
        [(820, pressed(LONG_PRESS)), (1_520, pressed(RELEASE))]
    );
    // Let go in the instant in which it would become long, and settled after that: it was held for that long.
    assert_eq!(told(BUTTON, &[(0, true), (815, false)], 3_000)[0], (820, pressed(LONG_PRESS)));
}

#[test]
fn a_button_that_is_held_at_the_start_was_not_pressed() {
    let mut input = Input::new(Timing { debounce: Duration::ZERO, ..BUTTON }, true);
    assert_eq!(input.poll_timeout(), None);
    let let_go = input.edge(Instant::now(), false);
    assert_eq!(let_go, Some(Told::Pressed(RELEASE)), "the end of a press that nobody saw begin");
}

proptest! {
    #[test]
    fn presses_and_releases_alternate(edges in prop::collection::vec((0_u64..600, any::<bool>()), 0..60)) {
        let mut at = 0;
        let edges: Vec<_> = edges.into_iter().map(|(pause, level)| { at += pause; (at, level) }).collect();
        let mut is_held = false;
        for (_, one) in told(BUTTON, &edges, at + 5_000) {
            match one {
                Told::Pressed(LONG_PRESS) => { prop_assert!(!is_held); is_held = true; }
                Told::Pressed(RELEASE) => { prop_assert!(is_held); is_held = false; }
                Told::Pressed(event) => prop_assert!(!is_held && event == PRESS),
                Told::Level(_) => prop_assert!(false, "a button tells no level"),
            }
        }
    }
}
