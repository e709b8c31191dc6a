//! The rules of the adapter, in simulated time and without sockets: the driver on one side of a
//! network that delays, loses and reorders, a bulb that behaves as LIFX bulbs do on the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::adapter::{Directive, Reading, SettingsError};
use crate::contract;
use crate::model::{
    Availability, ColorMode, CommandId, Description, DeviceId, Gamut, LightChange, LightState, Stage, color,
};

use super::REGISTRATION;
use super::config::Config;
use super::driver::{Driver, Dropped};
use super::output::Transmit;
use super::wire::{self, Hsbk, Incoming, Reply, Request, Serial, WireError, peer};

const SOURCE: u32 = 0x1234_5678;
const SERIAL: Serial = Serial([0xd0, 0x73, 0xd5, 0x00, 0x13, 0x37]);
const ADDRESS: &str = "192.0.2.7:56700";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn id(number: u8) -> CommandId {
    CommandId([number; 16])
}

fn device() -> DeviceId {
    DeviceId::new("lifx-d073d5001337").unwrap()
}

/// What travels.
enum Packet {
    ToBulb(Vec<u8>),
    FromBulb(Vec<u8>),
}

/// A bulb, the driver, and the network between them.
struct World {
    begun: Instant,
    now: Instant,
    driver: Driver,
    network: BTreeMap<(Instant, u64), Packet>,
    packets: u64,
    noise: u64,
    // The network.
    loss: f64,
    delay: (u64, u64),
    // The bulb.
    hsbk: Hsbk,
    power: u16,
    /// What the bulb moves to, and when it is there.
    fading: Option<(Instant, Hsbk, u16)>,
    product: u32,
    label: &'static str,
    silent: bool,
    ignores: bool,
    // What was observed.
    sent: Vec<(Instant, Request)>,
    readings: Vec<(Instant, Reading)>,
}

impl World {
    fn new() -> Self {
        Self::with(json!({ "addresses": ["192.0.2.7"], "broadcast": [] }))
    }

    fn with(settings: serde_json::Value) -> Self {
        let config = Config::parse(&REGISTRATION.descriptor, &settings).unwrap();
        let now = Instant::now();
        Self {
            begun: now,
            now,
            driver: Driver::new(&config, SOURCE, now),
            network: BTreeMap::new(),
            packets: 0,
            noise: 0x9e37_79b9_7f4a_7c15,
            loss: 0.0,
            delay: (3, 8),
            hsbk: Hsbk { hue: 0, saturation: 0, brightness: 40_000, kelvin: 3_500 },
            power: 65_535,
            fading: None,
            product: 27,
            label: "Kitchen",
            silent: false,
            ignores: false,
            sent: Vec::new(),
            readings: Vec::new(),
        }
    }

    /// A world in which the bulb is found, owned and has reported.
    fn owning() -> Self {
        let mut world = Self::new();
        world.own(true);
        world.run(ms(500));
        assert!(world.reports().len() == 1 && world.found().len() == 1, "{:?}", world.readings);
        world
    }

    fn own(&mut self, owned: bool) {
        self.driver.handle_directive(self.now, Directive::Own { device: device(), owned });
    }

    fn light(&mut self, number: u8, change: LightChange, patience: Duration) {
        let deadline = self.now + patience;
        let directive = Directive::Light { device: device(), command: id(number), change, deadline };
        self.driver.handle_directive(self.now, directive);
    }

    /// Lets time pass, doing what is due on the way in the order in which it is due.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.flush();
            let packet = self.network.first_key_value().map_or(end, |((at, _), _)| *at);
            let next = self.driver.poll_timeout().min(packet).min(end).max(self.now);
            let stuck = next == self.now && packet > self.now && next < end;
            self.now = next;
            self.driver.handle_timeout(self.now);
            assert!(!stuck || self.driver.poll_timeout() > self.now, "a timeout that is due does nothing");
            while let Some(entry) = self.network.first_entry().filter(|entry| entry.key().0 <= self.now) {
                match entry.remove() {
                    Packet::ToBulb(bytes) => self.bulb_receives(&bytes),
                    Packet::FromBulb(bytes) => {
                        self.driver.handle_datagram(self.now, ADDRESS.parse().unwrap(), &bytes);
                    }
                }
            }
            self.flush();
            if self.now >= end {
                return;
            }
        }
    }

    fn flush(&mut self) {
        while let Some(Transmit { to, bytes }) = self.driver.poll_transmit() {
            assert_eq!(to, ADDRESS.parse().unwrap());
            self.sent.push((self.now, peer::decode_request(&bytes).4));
            self.post(Packet::ToBulb(bytes));
        }
        while let Some(reading) = self.driver.poll_reading() {
            self.readings.push((self.now, reading));
        }
    }

    fn post(&mut self, packet: Packet) {
        self.packets += 1;
        if self.random(1_000) as f64 >= self.loss * 1_000.0 {
            let delay = self.delay.0 + self.random(self.delay.1 - self.delay.0 + 1);
            self.network.insert((self.now + ms(delay), self.packets), packet);
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (self.noise >> 20) % below
    }

    fn bulb_receives(&mut self, bytes: &[u8]) {
        if self.silent {
            return;
        }
        if let Some((_, hsbk, power)) = self.fading.filter(|(at, ..)| *at <= self.now) {
            (self.hsbk, self.power, self.fading) = (hsbk, power, None);
        }
        let (source, target, sequence, acknowledge, request) = peer::decode_request(bytes);
        assert!(source == SOURCE && (target == SERIAL || target == Serial::ALL));
        let state = Reply::LightState { hsbk: self.hsbk, power: self.power, label: self.label.to_owned() };
        if acknowledge {
            self.answer(sequence, Reply::Acknowledgement);
        }
        match request {
            Request::GetService => self.answer(sequence, Reply::StateService { service: 1, port: 56_700 }),
            Request::GetHostFirmware => {
                self.answer(sequence, Reply::StateHostFirmware { major: 3, minor: 70 });
            }
            Request::GetLabel => self.answer(sequence, Reply::StateLabel(self.label.to_owned())),
            Request::GetVersion => {
                self.answer(sequence, Reply::StateVersion { vendor: 1, product: self.product });
            }
            Request::LightGet => self.answer(sequence, state),
            // As real bulbs do, unasked: the state before the change.
            Request::LightSetColor(hsbk, fade) => {
                self.answer(sequence, state);
                self.change(|bulb| bulb.0 = hsbk, fade);
            }
            Request::LightSetPower(on, fade) => {
                self.answer(sequence, state);
                self.change(|bulb| bulb.1 = if on { 65_535 } else { 0 }, fade);
            }
        }
    }

    fn change(&mut self, change: impl Fn(&mut (Hsbk, u16)), fade: u32) {
        if self.ignores {
            return;
        }
        let (hsbk, power) = self.fading.map_or((self.hsbk, self.power), |(_, hsbk, power)| (hsbk, power));
        let mut target = (hsbk, power);
        change(&mut target);
        if fade == 0 {
            (self.hsbk, self.power, self.fading) = (target.0, target.1, None);
        } else {
            self.fading = Some((self.now + ms(u64::from(fade)), target.0, target.1));
        }
    }

    fn answer(&mut self, sequence: u8, reply: Reply) {
        let message = Incoming { source: SOURCE, target: SERIAL, sequence, reply };
        self.post(Packet::FromBulb(peer::encode_reply(&message)));
    }

    fn life_of(&self, number: u8) -> Vec<Stage> {
        let of_command = self.readings.iter().filter_map(|(_, reading)| match reading {
            Reading::Progress { command, stage, .. } if *command == id(number) => Some(stage.clone()),
            _ => None,
        });
        let life: Vec<Stage> = of_command.collect();
        let finals = life.iter().filter(|stage| stage.is_final()).count();
        assert!(finals <= 1 && life.iter().rev().skip(1).all(|stage| !stage.is_final()), "{life:?}");
        life
    }

    fn at_stage(&self, number: u8, wanted: &Stage) -> Option<Instant> {
        self.readings.iter().find_map(|(at, reading)| match reading {
            Reading::Progress { command, stage, .. } if *command == id(number) && stage == wanted => {
                Some(*at)
            }
            _ => None,
        })
    }

    fn reports(&self) -> Vec<(LightState, Option<CommandId>)> {
        let reports = self.readings.iter().filter_map(|(_, reading)| match reading {
            Reading::Reported { state, command, .. } => Some((*state, *command)),
            _ => None,
        });
        reports.collect()
    }

    fn found(&self) -> Vec<Description> {
        let found = self.readings.iter().filter_map(|(_, reading)| match reading {
            Reading::Found { device } => Some(device.clone()),
            _ => None,
        });
        found.collect()
    }

    fn availabilities(&self) -> Vec<(Instant, Availability, String)> {
        let changes = self.readings.iter().filter_map(|(at, reading)| match reading {
            Reading::Availability { availability, reason, .. } => Some((*at, *availability, reason.clone())),
            _ => None,
        });
        changes.collect()
    }

    fn most_in_a_second(&self) -> usize {
        let window = |from: Instant| {
            self.sent.iter().filter(|(at, _)| *at >= from && *at < from + Duration::from_secs(1)).count()
        };
        self.sent.iter().map(|(at, _)| window(*at)).max().unwrap_or(0)
    }
}

fn dim(brightness: u16) -> LightChange {
    LightChange { brightness: Some(brightness), ..LightChange::default() }
}

fn power(on: bool) -> LightChange {
    LightChange { on: Some(on), ..LightChange::default() }
}

fn kelvin(kelvin: u16) -> LightChange {
    LightChange { color: Some(ColorMode::Temperature { kelvin }), ..LightChange::default() }
}

const CONFIRMED: [Stage; 3] = [Stage::Sent, Stage::Acknowledged, Stage::Confirmed];
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn the_adapter_keeps_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
}

#[tokio::test]
async fn the_adapter_stops_in_time() {
    let settings = json!({ "bind": "127.0.0.1", "broadcast": [], "addresses": ["127.0.0.1:9"] });
    contract::shutdown(&REGISTRATION, &settings, ms(50)).await.unwrap();
}

#[test]
fn settings_name_the_key_the_value_and_the_rule() {
    let parse = |value| Config::parse(&REGISTRATION.descriptor, &value);
    let refused = |value| parse(value).unwrap_err().to_string();
    assert_eq!(
        parse(json!({ "poll": 1 })).unwrap_err(),
        SettingsError::UnknownKey {
            adapter: "lifx",
            key: "poll".into(),
            known: "addresses, bind, broadcast, discover_s, poll_s".into()
        }
    );
    assert_eq!(
        refused(json!({ "poll_s": 0 })),
        "setting \"poll_s\" of lifx is 0: it must be a number of seconds from 0.5 to 3600"
    );
    assert!(refused(json!({ "addresses": ["kitchen"] })).contains("\"kitchen\""));
    assert!(refused(json!({ "addresses": ["10.0.0.1:0"] })).contains("IPv4"));
    assert!(refused(json!({ "addresses": vec!["10.0.0.1"; 257] })).contains("at most 256"));
    let config = parse(json!({ "addresses": ["10.0.0.1", "10.0.0.2:1"], "bind": "10.0.0.9" })).unwrap();
    let addresses: Vec<SocketAddr> = ["10.0.0.1:56700", "10.0.0.2:1"].map(|a| a.parse().unwrap()).into();
    assert_eq!((config.addresses, config.bind), (addresses, "10.0.0.9:0".parse().unwrap()));
    assert_eq!(config.broadcast, ["255.255.255.255:56700".parse().unwrap()]);
}

#[test]
fn requests_have_the_bytes_of_the_documentation() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(
        hex(wire::encode(2, Serial::ALL, 1, &Request::GetService)),
        "240000340200000000000000000000000000000000000001000000000000000002000000"
    );
    let green = Hsbk { hue: 21_845, saturation: 65_535, brightness: 65_535, kelvin: 3_500 };
    assert_eq!(
        hex(wire::encode(2, SERIAL, 1, &Request::LightSetColor(green, 1_024))),
        "3100001402000000d073d500133700000000000000000201000000000000000066000000005555ffffffffac0d00040000"
    );
    assert_eq!(
        hex(wire::encode(2, SERIAL, 255, &Request::LightSetPower(true, 0x0102_0304))),
        "2a00001402000000d073d5001337000000000000000002ff000000000000000075000000ffff04030201"
    );
}

/// Answers, packed by the emulator's own codec, and what they mean.
fn answers() -> Vec<(&'static str, Reply)> {
    let hsbk = Hsbk { hue: 1, saturation: 2, brightness: 3, kelvin: 4 };
    let kitchen = || "Kitchen".to_owned();
    vec![
        (
            "5800001402000000d073d50013370000000000000000000700000000000000006b00000001000200030004000000ffff4b697463\
             68656e000000000000000000000000000000000000000000000000000000000000000000",
            Reply::LightState { hsbk, power: 65_535, label: kitchen() },
        ),
        (
            "2900001402000000d073d500133700000000000000000007000000000000000003000000017cdd0000",
            Reply::StateService { service: 1, port: 56_700 },
        ),
        (
            "3000001402000000d073d500133700000000000000000007000000000000000021000000010000001b00000000000000",
            Reply::StateVersion { vendor: 1, product: 27 },
        ),
        (
            "3800001402000000d073d50013370000000000000000000700000000000000000f00000000000000000000000000000000000000\
             46000300",
            Reply::StateHostFirmware { major: 3, minor: 70 },
        ),
        (
            "4400001402000000d073d5001337000000000000000000070000000000000000190000004b69746368656e000000000000000000\
             00000000000000000000000000000000",
            Reply::StateLabel(kitchen()),
        ),
        (
            "2600001402000000d073d5001337000000000000000000070000000000000000df0000006500",
            Reply::StateUnhandled(101),
        ),
        ("2400001402000000d073d50013370000000000000000000700000000000000002d000000", Reply::Acknowledgement),
    ]
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).unwrap()).collect()
}

#[test]
fn answers_are_read_as_the_emulator_packs_them() {
    for (hex, reply) in answers() {
        let expected = Incoming { source: 2, target: SERIAL, sequence: 7, reply };
        assert_eq!(wire::decode(&bytes(hex)).unwrap(), expected);
        assert_eq!(peer::encode_reply(&expected), bytes(hex), "the bulb of these tests says something else");
    }
}

#[test]
fn what_is_no_message_is_refused_by_name() {
    let (hex, _) = &answers()[6];
    let ack = bytes(hex);
    let with = |at: usize, value: u8| {
        let mut ack = ack.clone();
        ack[at] = value;
        wire::decode(&ack).unwrap_err()
    };
    assert_eq!(wire::decode(&ack[..35]), Err(WireError::Short(35)));
    assert_eq!(with(0, 37), WireError::Length { stated: 37, real: 36 });
    assert_eq!(with(3, 0x04), WireError::Protocol(0x0400));
    assert_eq!(with(3, 0x54), WireError::Protocol(0x5400));
    assert_eq!(with(32, 200), WireError::Type(200));
    assert_eq!(with(32, 107), WireError::Body { kind: 107, length: 0 });
}

#[test]
fn hostile_datagrams_neither_panic_nor_fill_tables() {
    let valid: Vec<Vec<u8>> = answers().iter().map(|(hex, _)| bytes(hex)).collect();
    let mut world = World::owning();
    world.light(1, dim(1_000), PATIENCE);
    let before = world.readings.len();
    let mut ours = valid.clone();
    for message in &mut ours {
        message[4..8].copy_from_slice(&SOURCE.to_le_bytes());
    }
    let hostile = contract::hostile_messages(&[valid, ours].concat());
    for datagram in &hostile {
        world.driver.handle_datagram(world.now, "192.0.2.66:1".parse().unwrap(), datagram);
    }
    let Dropped { malformed, foreign, unexpected, overflow } = world.driver.dropped();
    assert!(malformed > 100 && foreign > 100 && unexpected > 10, "{:?}", world.driver.dropped());
    assert_eq!(overflow, 0);
    world.flush();
    let made_up = |reading: &Reading| !matches!(reading, Reading::Progress { stage: Stage::Sent, .. });
    assert!(!world.readings[before..].iter().any(|(_, r)| made_up(r)), "{:?}", &world.readings[before..]);
    world.run(PATIENCE);
    assert_eq!(world.life_of(1), CONFIRMED);
}

#[test]
fn a_flood_of_made_up_bulbs_is_bounded() {
    let mut world = World::new();
    world.driver.handle_timeout(world.now);
    for number in 0..2_000u16 {
        let [high, low] = number.to_be_bytes();
        let target = Serial([0xd0, 0x73, 0xd5, 1, high, low]);
        let reply = Reply::StateService { service: 1, port: 56_700 };
        let message = peer::encode_reply(&Incoming { source: SOURCE, target, sequence: 1, reply });
        world.driver.handle_datagram(world.now, ADDRESS.parse().unwrap(), &message);
        while world.driver.poll_transmit().is_some() {}
    }
    assert_eq!(world.driver.dropped().overflow, 2_000 - 512);
}

#[test]
fn a_bulb_is_found_with_what_it_can_and_left_alone_until_owned() {
    let mut world = World::new();
    world.run(Duration::from_secs(20));
    let [found] = &world.found()[..] else { panic!("{:?}", world.readings) };
    assert_eq!((found.name.as_str(), found.firmware.as_deref()), ("Kitchen", Some("3.70")));
    assert_eq!((found.model.as_str(), &found.note), ("LIFX product 27", &None));
    assert!(!world.sent.iter().any(|(_, request)| *request == Request::LightGet || request.is_set()));
    world.light(1, power(false), PATIENCE);
    world.run(ms(10));
    assert!(matches!(&world.life_of(1)[..], [Stage::Failed { reason }] if reason.contains("does not own")));
    world.own(true);
    world.run(ms(100));
    assert_eq!(world.reports().len(), 1);
}

#[test]
fn an_unknown_product_is_a_full_colour_light_with_a_note_and_a_switch_is_no_light() {
    let mut world = World::new();
    world.product = 9_999;
    world.run(ms(500));
    let found = world.found();
    assert!(found[0].note.as_ref().unwrap().contains("product 9999"), "{found:?}");
    let mut world = World::new();
    world.product = 70;
    world.run(Duration::from_secs(120));
    assert!(world.readings.is_empty(), "{:?}", world.readings);
}

#[test]
fn only_a_state_asked_for_after_the_acknowledgement_is_reported_and_confirms() {
    let mut world = World::owning();
    world.light(1, dim(10_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    let reports = world.reports();
    assert_eq!(reports.len(), 2, "the state that a bulb sends in answer to a Set is the one before");
    assert_eq!((reports[1].0.brightness, reports[1].1), (10_000, Some(id(1))));
}

#[test]
fn a_poll_on_its_way_when_a_command_comes_is_not_reported_as_news() {
    let mut world = World::owning();
    world.delay = (200, 200);
    world.driver.handle_directive(world.now, Directive::Refresh { device: device() });
    world.run(ms(250));
    world.light(1, LightChange { brightness: Some(5), ..kelvin(2_700) }, PATIENCE);
    world.run(PATIENCE);
    let reports = world.reports();
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert_eq!((reports[1].0.brightness, reports[1].1), (5, Some(id(1))));
}

#[test]
fn with_30_percent_lost_both_ways_commands_are_confirmed_within_5_seconds() {
    for seed in 1..=200 {
        let mut world = World::owning();
        world.noise = seed * 0x9e37_79b9;
        world.loss = 0.3;
        world.run(ms(1_100 + seed));
        let change = LightChange { on: Some(seed % 2 == 0), ..dim(20_000) };
        world.light(1, change, PATIENCE);
        world.run(PATIENCE);
        assert_eq!(world.life_of(1), CONFIRMED, "seed {seed}");
        assert!(world.most_in_a_second() <= 20, "seed {seed}: {} messages", world.most_in_a_second());
    }
}

#[test]
fn a_bulb_that_acknowledges_and_ignores_times_out_at_the_deadline() {
    let mut world = World::owning();
    world.ignores = true;
    let begun = world.now;
    world.light(1, dim(10_000), PATIENCE);
    world.run(PATIENCE + ms(50));
    let life = world.life_of(1);
    let [Stage::Sent, Stage::Acknowledged, timed_out @ Stage::TimedOut { reason }] = &life[..] else {
        panic!("{life:?}");
    };
    assert!(reason.contains("brightness 61 %") && reason.contains("instead of brightness 15 %"), "{reason}");
    assert_eq!(world.at_stage(1, timed_out), Some(begun + PATIENCE));
    assert!(world.reports().iter().all(|(state, _)| state.brightness == 40_000));
}

#[test]
fn a_newer_command_supersedes_at_once_and_keeps_what_it_leaves_open() {
    let mut world = World::owning();
    world.power = 0;
    world.loss = 1.0; // what the first sends never arrives
    world.light(1, power(true), PATIENCE);
    world.flush();
    world.loss = 0.0;
    world.light(2, dim(500), PATIENCE);
    world.flush();
    assert_eq!(world.life_of(1), [Stage::Sent, Stage::Superseded]);
    world.run(Duration::from_secs(2));
    assert_eq!(world.life_of(2), CONFIRMED);
    assert_eq!((world.power, world.hsbk.brightness), (65_535, 500));
    world.light(2, dim(600), PATIENCE);
    world.light(2, dim(700), PATIENCE);
    world.run(Duration::from_secs(2));
    assert_eq!(world.hsbk.brightness, 600, "the same id again while in flight is the same command");
}

#[test]
fn a_slider_stays_under_the_rate_and_never_reports_an_older_command_after_a_newer() {
    for seed in 1..=30 {
        let mut world = World::owning();
        world.noise = seed * 0x0f0f_1234_5677;
        world.loss = 0.2;
        world.delay = (1, 120); // reorders
        for step in 1..=90 {
            world.light(step, dim(u16::from(step) * 700), PATIENCE);
            world.run(ms(33));
        }
        world.run(Duration::from_secs(8));
        assert_eq!(world.life_of(90).last(), Some(&Stage::Confirmed), "seed {seed}");
        assert_eq!(world.hsbk.brightness, 63_000, "seed {seed}");
        for step in 1..=90 {
            assert!(world.life_of(step).last().is_some_and(Stage::is_final), "seed {seed} step {step}");
        }
        let followed: Vec<Option<CommandId>> = world.reports().iter().map(|report| report.1).collect();
        assert!(followed.is_sorted(), "seed {seed}: {followed:?}");
        assert_eq!(world.reports().last().unwrap().0.brightness, 63_000, "seed {seed}");
        assert!(world.most_in_a_second() <= 20, "seed {seed}: {} messages", world.most_in_a_second());
    }
}

#[test]
fn a_transition_is_confirmed_after_its_end() {
    let mut world = World::owning();
    let begun = world.now;
    world.light(1, LightChange { transition_ms: 3_000, ..dim(100) }, Duration::from_secs(8));
    world.run(Duration::from_secs(8));
    assert_eq!(world.life_of(1), CONFIRMED);
    let confirmed = world.at_stage(1, &Stage::Confirmed).unwrap() - begun;
    assert!(confirmed >= ms(3_000) && confirmed < ms(3_300), "confirmed after {confirmed:?}");

    world.light(2, LightChange { transition_ms: 9_000, ..dim(60_000) }, PATIENCE);
    world.run(Duration::from_secs(6));
    let life = world.life_of(2);
    assert!(
        matches!(life.last(), Some(Stage::TimedOut { reason }) if reason.contains("transition")),
        "{life:?}"
    );
}

#[test]
fn a_fade_longer_than_the_polls_is_neither_cut_short_nor_confirmed_by_them() {
    let mut world = World::owning();
    let begun = world.now;
    world.light(1, LightChange { transition_ms: 25_000, ..dim(100) }, Duration::from_secs(40));
    world.run(Duration::from_secs(40));
    assert_eq!(world.life_of(1), CONFIRMED);
    assert!(world.at_stage(1, &Stage::Confirmed).unwrap() - begun >= Duration::from_secs(25));
    assert_eq!(world.sent.iter().filter(|(_, request)| request.is_set()).count(), 1);
}

#[test]
fn the_acknowledgement_of_an_older_command_does_not_count_for_the_same_again() {
    let mut world = World::owning();
    world.delay = (60, 60);
    world.light(1, power(true), PATIENCE);
    world.run(ms(10));
    world.light(2, power(false), PATIENCE);
    world.run(ms(10));
    let sent = world.now;
    world.light(3, power(true), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(3), CONFIRMED);
    let took = world.at_stage(3, &Stage::Acknowledged).unwrap() - sent;
    assert!(took >= ms(120), "acknowledged after {took:?}, but the way there and back takes 120 ms");
}

#[test]
fn a_command_that_changes_nothing_is_still_reported_as_followed() {
    let mut world = World::owning();
    world.light(1, dim(40_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    let followed: Vec<Option<CommandId>> = world.reports().iter().map(|report| report.1).collect();
    assert_eq!(followed, [None, Some(id(1))]);
    world.run(Duration::from_secs(60));
    assert_eq!(world.reports().len(), 2, "polls that see nothing new say nothing");
    world.driver.handle_directive(world.now, Directive::Refresh { device: device() });
    world.run(ms(100));
    assert_eq!(world.reports().len(), 3, "a refresh is answered in any case");
}

#[test]
fn what_arrives_after_ownership_is_lost_is_not_reported() {
    let mut world = World::owning();
    world.driver.handle_directive(world.now, Directive::Refresh { device: device() });
    world.own(false);
    world.run(Duration::from_secs(1));
    assert_eq!(world.reports().len(), 1);
    world.own(true);
    world.run(Duration::from_secs(1));
    assert_eq!(world.reports().len(), 2, "a new owner reports what it sees");
}

#[test]
fn a_late_acknowledgement_does_not_bring_an_older_colour_back() {
    let mut world = World::owning();
    world.delay = (100, 100);
    let red = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.red)), ..dim(9_000) };
    let blue = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.blue)), ..dim(9_000) };
    world.light(1, red, PATIENCE);
    world.flush();
    world.delay = (20, 20); // overtakes
    world.light(2, blue, PATIENCE);
    world.run(ms(150));
    world.delay = (5, 5);
    world.run(ms(850));
    world.light(3, dim(30_000), PATIENCE);
    world.run(PATIENCE);
    assert_eq!(world.life_of(3), CONFIRMED);
    assert!(world.hsbk.hue.abs_diff(43_690) < 200, "blue was the last colour asked for: {:?}", world.hsbk);
}

#[test]
fn a_dark_bulb_takes_its_colour_before_it_fades_up() {
    let mut world = World::owning();
    world.power = 0;
    world.run(Duration::from_secs(11)); // a poll sees it
    let change = LightChange { on: Some(true), transition_ms: 1_000, ..kelvin(2_700) };
    world.light(1, change, PATIENCE);
    world.run(PATIENCE);
    assert_eq!(world.life_of(1), CONFIRMED);
    let sets: Vec<Request> = world.sent.iter().map(|(_, request)| *request).filter(Request::is_set).collect();
    let warm = Hsbk { hue: 0, saturation: 0, brightness: 40_000, kelvin: 2_700 };
    assert_eq!(sets, [Request::LightSetColor(warm, 0), Request::LightSetPower(true, 1_000)]);
}

#[test]
fn brightness_alone_builds_on_what_the_bulb_shows_now() {
    let mut world = World::owning();
    world.run(Duration::from_secs(3));
    world.hsbk = Hsbk { hue: 30_000, saturation: 65_535, ..world.hsbk }; // by another app
    world.light(1, dim(7_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    assert_eq!((world.hsbk.hue, world.hsbk.saturation, world.hsbk.brightness), (30_000, 65_535, 7_000));
}

#[test]
fn colours_and_whites_reach_the_bulb_in_its_own_terms() {
    let mut world = World::owning();
    let green = LightChange { color: Some(ColorMode::Color(Gamut::SRGB.green)), ..LightChange::default() };
    world.light(1, green, PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(1), CONFIRMED);
    assert!(world.hsbk.hue.abs_diff(21_845) < 100 && world.hsbk.saturation > 65_000, "{:?}", world.hsbk);
    let d65 = color::hue_saturation_to_xy(0, 0);
    world.light(2, LightChange { color: Some(ColorMode::Color(d65)), ..LightChange::default() }, PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!(world.life_of(2), CONFIRMED);
    assert!(world.hsbk.saturation > 0, "a white given as a colour stays in the colour mode");
    world.light(3, kelvin(1_000), PATIENCE);
    world.run(Duration::from_secs(1));
    assert_eq!((world.hsbk.saturation, world.hsbk.kelvin), (0, 2_500), "the warmest that product 27 has");
}

#[test]
fn silence_is_offline_with_a_reason_then_lost_and_an_answer_brings_it_back() {
    let mut world = World::owning();
    world.silent = true;
    let begun = world.now;
    world.run(Duration::from_secs(200));
    let changes = world.availabilities();
    let [(_, Availability::Online, _), (at, Availability::Offline, reason)] = &changes[..] else {
        panic!("{changes:?}");
    };
    assert!(*at - begun < Duration::from_secs(15), "offline after {:?}", *at - begun);
    assert!(reason.contains("3 polls") && reason.contains(ADDRESS), "{reason}");
    let lost = world.readings.iter().filter(|(_, reading)| matches!(reading, Reading::Lost { .. })).count();
    assert_eq!(lost, 1);
    let late = world.now - Duration::from_secs(60);
    let probes = world.sent.iter().filter(|(at, r)| *at > late && *r == Request::LightGet).count();
    assert!((12..=48).contains(&probes), "{probes} probes in the last minute");

    world.silent = false;
    world.power = 0;
    world.run(Duration::from_secs(11));
    assert_eq!(world.availabilities().last().unwrap().1, Availability::Online);
    assert_eq!(world.found().len(), 2, "found again");
    assert!(!world.reports().last().unwrap().0.on);
}

#[test]
fn loss_of_30_percent_alone_does_not_make_a_bulb_offline_or_lost() {
    let mut world = World::owning();
    world.loss = 0.3;
    world.run(Duration::from_secs(600));
    assert_eq!(world.availabilities().len(), 1, "{:?}", world.availabilities());
    assert!(!world.readings.iter().any(|(_, reading)| matches!(reading, Reading::Lost { .. })));
}

#[test]
fn a_bulb_that_another_node_owns_is_still_watched_for_being_reachable() {
    let mut world = World::new();
    world.loss = 0.3;
    world.run(Duration::from_secs(600));
    assert_eq!(world.readings.len(), 1, "found once, never lost: {:?}", world.readings);
    world.silent = true;
    world.run(Duration::from_secs(100));
    assert!(matches!(world.readings.last(), Some((_, Reading::Lost { .. }))));
}

#[test]
fn losing_ownership_ends_the_command_and_the_polling() {
    let mut world = World::owning();
    world.silent = true;
    world.light(1, power(false), PATIENCE);
    world.own(false);
    world.run(ms(1));
    let life = world.life_of(1);
    assert!(
        matches!(life.last(), Some(Stage::Failed { reason }) if reason.contains("another node")),
        "{life:?}"
    );
    let asked = world.sent.len();
    world.silent = false;
    world.run(Duration::from_secs(20));
    assert!(!world.sent[asked..].iter().any(|(_, r)| *r == Request::LightGet || r.is_set()));
}

#[test]
fn a_command_for_what_is_not_there_or_not_possible_fails_with_a_reason() {
    let mut world = World::new();
    world.light(1, power(true), PATIENCE);
    world.flush();
    assert!(matches!(&world.life_of(1)[..], [Stage::Failed { reason }] if reason.contains("not found")));
    let mut world = World::owning();
    world.light(2, LightChange::default(), PATIENCE);
    world.light(3, power(true), Duration::ZERO);
    world.flush();
    assert!(matches!(&world.life_of(2)[..], [Stage::Failed { reason }] if reason.contains("empty")));
    assert!(matches!(&world.life_of(3)[..], [Stage::TimedOut { .. }]), "{:?}", world.life_of(3));
}

#[test]
fn answers_from_another_address_or_to_another_source_change_nothing() {
    let mut world = World::owning();
    world.delay = (50, 50);
    world.light(1, power(false), PATIENCE);
    world.flush();
    let sets = u8::try_from(world.sent.len()).unwrap();
    for sequence in 0..=sets {
        for (from, source) in [("192.0.2.8:56700", SOURCE), (ADDRESS, SOURCE + 1)] {
            let reply = Reply::Acknowledgement;
            let forged = peer::encode_reply(&Incoming { source, target: SERIAL, sequence, reply });
            world.driver.handle_datagram(world.now, from.parse().unwrap(), &forged);
        }
    }
    world.flush();
    assert_eq!(world.life_of(1), [Stage::Sent]);
    assert!(world.driver.dropped().foreign > 0 && world.driver.dropped().unexpected > 0);
}

#[test]
fn stopping_ends_every_command() {
    let mut world = World::owning();
    world.light(1, power(false), PATIENCE);
    world.driver.shut_down();
    world.flush();
    assert!(
        matches!(&world.life_of(1)[..], [Stage::Sent, Stage::Failed { reason }] if reason.contains("stopping"))
    );
    assert!(world.now >= world.begun);
}
