//! The rules of the adapter, in simulated time and without sockets: the driver on one side of a
//! network that delays, loses and reorders, a bulb that behaves as LIFX bulbs do on the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod commands;
mod datagrams;
mod matrix;
mod parts;
mod presence;
mod settings;
mod zones;

use super::REGISTRATION;
use super::chain::Chain;
use super::config::Config;
use super::driver::{Driver, Dropped};
use super::layout::Layout;
use super::output::Transmit;
use super::products;
use super::wire::{self, Effect, Hsbk, Incoming, Reply, Request, Serial, Tile, WireError, peer};
use crate::adapter::{Directive, Reading, SettingsError};
use crate::contract;
use crate::model::{
    Availability, Capabilities, Change, ColorMode, CommandId, Description, DeviceId, Gamut,
    LightCapabilities, LightChange, LightState, MOST_RUNS, Measurement, NO_EFFECT, Stage, State, Zone, color,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

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
    /// What its zones show, on one that has zones.
    zones: Vec<Hsbk>,
    /// How these lie, on a matrix.
    tiles: Vec<Tile>,
    /// What was put into the buffer that nobody sees.
    prepared: BTreeMap<usize, Hsbk>,
    effect: Effect,
    firmware: (u16, u16),
    /// Its infrared emitter, its cleaning cycle in seconds, how the last one ended, and its relays.
    infrared: u16,
    cleaning: u32,
    last_result: u8,
    relays: [u16; 4],
    /// Messages that it answers with "unknown".
    unknown: Vec<u16>,
    /// Messages that it does not answer at all.
    deaf_to: Vec<u16>,
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
            zones: Vec::new(),
            tiles: Vec::new(),
            prepared: BTreeMap::new(),
            effect: Effect::Off,
            firmware: (3, 70),
            infrared: 16_384,
            cleaning: 0,
            last_result: 255,
            relays: [0; 4],
            unknown: Vec::new(),
            deaf_to: Vec::new(),
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
        self.own_part(device(), owned);
    }

    fn own_part(&mut self, device: DeviceId, owned: bool) {
        self.driver.handle_directive(self.now, Directive::Own { device, owned });
    }

    fn light(&mut self, number: u8, change: LightChange, patience: Duration) {
        self.tell(device(), number, Change::Light(change), patience);
    }

    fn tell(&mut self, device: DeviceId, number: u8, change: Change, patience: Duration) {
        let deadline = self.now + patience;
        let directive =
            Directive::Command { device, command: id(number), change, by: String::new(), deadline };
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
        if self.deaf_to.contains(&request.kind()) {
            return;
        }
        if self.unknown.contains(&request.kind()) {
            return self.answer(sequence, Reply::StateUnhandled(request.kind()));
        }
        let state = Reply::LightState { hsbk: self.hsbk, power: self.power, label: self.label.to_owned() };
        if acknowledge {
            self.answer(sequence, Reply::Acknowledgement);
        }
        match request {
            Request::GetService => self.answer(sequence, Reply::StateService { service: 1, port: 56_700 }),
            Request::GetHostFirmware => {
                let (major, minor) = self.firmware;
                self.answer(sequence, Reply::StateHostFirmware { major, minor });
            }
            Request::GetLabel => self.answer(sequence, Reply::StateLabel(self.label.to_owned())),
            Request::GetVersion => {
                self.answer(sequence, Reply::StateVersion { vendor: 1, product: self.product });
            }
            Request::LightGet => self.answer(sequence, state),
            // As real bulbs do, unasked: the state before the change.
            Request::LightSetColor(hsbk, fade) => {
                self.answer(sequence, state);
                if !self.ignores {
                    self.zones.fill(hsbk);
                }
                self.change(|bulb| bulb.0 = hsbk, fade);
            }
            Request::LightSetPower(on, fade) => {
                self.answer(sequence, state);
                self.change(|bulb| bulb.1 = if on { 65_535 } else { 0 }, fade);
            }
            other => self.strip_receives(sequence, other),
        }
    }

    /// What only lights with zones are sent; their zones do not fade.
    fn strip_receives(&mut self, sequence: u8, request: Request) {
        let count = u16::try_from(self.zones.len()).unwrap();
        match request {
            _ if self.ignores && request.is_set() => {}
            Request::SetBrightness(brightness, _) => {
                self.zones.iter_mut().for_each(|zone| zone.brightness = brightness);
                self.hsbk.brightness = brightness;
            }
            Request::SetColorZones(first, last, hsbk, _) => {
                self.zones[usize::from(first)..=usize::from(last)].fill(hsbk);
            }
            Request::SetExtendedColorZones(first, colors, _) => {
                self.zones[first.into()..usize::from(first) + colors.len()].copy_from_slice(&colors);
            }
            Request::SetMultiZoneEffect(effect) | Request::SetTileEffect(effect) => self.effect = effect,
            Request::GetMultiZoneEffect => self.answer(sequence, Reply::StateMultiZoneEffect(self.effect)),
            Request::GetTileEffect => self.answer(sequence, Reply::StateTileEffect(self.effect)),
            Request::GetColorZones(first, last) => {
                let last = usize::from(last).min(self.zones.len() - 1);
                self.answer_zones(sequence, count, 8, first.into()..last + 1);
            }
            Request::GetExtendedColorZones => self.answer_zones(sequence, count, 82, 0..self.zones.len()),
            Request::GetDeviceChain => self.answer(sequence, Reply::StateDeviceChain(self.tiles.clone())),
            Request::Get64 { tile, length, row, width } => {
                for tile in tile..(tile + length).min(u8::try_from(self.tiles.len()).unwrap()) {
                    let mut colors: Vec<Hsbk> =
                        self.cells(tile, row, width).map(|cell| self.zones[cell]).collect();
                    colors.resize(64, Hsbk { hue: 0, saturation: 0, brightness: 0, kelvin: 3_500 });
                    self.answer(sequence, Reply::State64 { tile, column: 0, row, width, colors });
                }
            }
            Request::Set64 { tile, buffer, row, width, colors, .. } => {
                for (cell, hsbk) in self.cells(tile, row, width).zip(colors) {
                    match buffer {
                        0 => self.zones[cell] = hsbk,
                        _ => drop(self.prepared.insert(cell, hsbk)),
                    }
                }
            }
            Request::CopyFrameBuffer { tile, width, height, .. } => {
                assert_eq!(Tile { width, height }, self.tiles[usize::from(tile)]);
                let first = self.cells(tile, 0, width).start;
                for cell in first..first + self.tiles[usize::from(tile)].zones() {
                    self.zones[cell] = self.prepared[&cell]; // all of it must be there by now
                }
            }
            other => self.part_receives(sequence, other),
        }
    }

    /// What only bulbs of infrared, bulbs that clean, and switches are sent.
    fn part_receives(&mut self, sequence: u8, request: Request) {
        match request {
            Request::GetInfrared => self.answer(sequence, Reply::StateInfrared(self.infrared)),
            Request::SetInfrared(brightness) => self.infrared = brightness,
            Request::GetHevCycle => {
                self.answer(sequence, Reply::StateHevCycle { remaining_s: self.cleaning });
            }
            Request::SetHevCycle(false, _) => self.cleaning = 0,
            Request::SetHevCycle(true, seconds) => self.cleaning = if seconds > 0 { seconds } else { 7_200 },
            Request::GetLastHevCycleResult => {
                self.answer(sequence, Reply::StateLastHevCycleResult(self.last_result));
            }
            Request::GetRPower(relay) => {
                let level = self.relays[usize::from(relay)];
                self.answer(sequence, Reply::StateRPower { relay, level });
            }
            Request::SetRPower(relay, on) => {
                self.relays[usize::from(relay)] = if on { u16::MAX } else { 0 };
            }
            other => panic!("no hardware of these tests knows {other:?}"),
        }
    }

    /// The zones of a tile from that row on, at most 64.
    fn cells(&self, tile: u8, row: u8, width: u8) -> std::ops::Range<usize> {
        let size = self.tiles[usize::from(tile)];
        assert_eq!(width, size.width, "rows of this tile");
        let first: usize = self.tiles[..tile.into()].iter().map(Tile::zones).sum();
        let from = first + usize::from(row) * usize::from(width);
        from..(from + 64).min(first + size.zones())
    }

    fn answer_zones(&mut self, sequence: u8, count: u16, room: usize, range: std::ops::Range<usize>) {
        let colors = self.zones[range.clone()].to_vec();
        for (part, first) in colors.chunks(room).zip(range.step_by(room)) {
            let first = u16::try_from(first).unwrap();
            self.answer(sequence, Reply::StateZones { count, first, colors: part.to_vec() });
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
            Reading::Reported { state: State::Light(state), command, .. } => Some((state.clone(), *command)),
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
