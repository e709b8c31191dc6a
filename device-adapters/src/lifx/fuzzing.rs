//! What the fuzz target `lifx` runs; built with `--cfg fuzzing`, and for the tests,
//! so that it keeps up with the driver.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::adapter::{Directive, Reading};
use crate::model::{Capabilities, Change, ColorMode, CommandId, DeviceId, LightChange, Zone};

use super::REGISTRATION;
use super::chain::Chain;
use super::config::Config;
use super::driver::Driver;
use super::wire::{self, Reply};

const SOURCE: u32 = 2;
/// What the commands are for: a light, what is beside one, and a relay of a switch.
const DEVICES: [&str; 4] = [
    "lifx-d073d5001337",
    "lifx-d073d5001337-infrared",
    "lifx-d073d5001337-clean",
    "lifx-d073d5001337-relay-1",
];
/// The start of a message from the hardware of [`DEVICES`] to [`SOURCE`], up to the sequence number; its size comes before.
const HEADER: [u8; 21] =
    [0x00, 0x14, 2, 0, 0, 0, 0xd0, 0x73, 0xd5, 0x00, 0x13, 0x37, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const BULB: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 56_700);
/// Far more than a step may send: two messages for each bulb of a full table.
const MOST_SENT: usize = 2_048;
const DEADLINE: Duration = Duration::from_secs(5);

/// Reads the bytes as one datagram, then as a script of commands, pauses and datagrams for a
/// driver in virtual time.
///
/// # Panics
/// When the driver breaks a rule: that is what is looked for.
pub fn run(data: &[u8]) {
    decodes_cleanly(data);
    let mut rig = Rig::play(data);
    rig.now += DEADLINE + Duration::from_secs(60);
    rig.settle();
    assert!(rig.open.is_empty(), "past their deadlines: {:?}", rig.open);
    rig.driver.shut_down();
    rig.drain();
}

fn decodes_cleanly(datagram: &[u8]) {
    if let Ok(incoming) = wire::decode(datagram) {
        let label = match incoming.reply {
            Reply::StateLabel(label) | Reply::LightState { label, .. } => label,
            Reply::StateZones { count, first, colors } => {
                assert!(usize::from(first) + colors.len() <= count.max(first).into());
                return;
            }
            Reply::StateDeviceChain(tiles) => {
                assert!(tiles.len() <= 16 && Chain::new(&tiles).is_none_or(|chain| chain.zones() <= 1_024));
                return;
            }
            _ => return,
        };
        assert!(!label.chars().any(char::is_control), "{label:?}");
    }
}

struct Rig {
    driver: Driver,
    now: Instant,
    /// Commands that were given and have not ended.
    open: BTreeSet<CommandId>,
    /// How many zones the device was said to have, each time that it was found.
    found: Vec<Option<u16>>,
}

impl Rig {
    fn new() -> Self {
        let settings = json!({ "addresses": [BULB.to_string()], "broadcast": [] });
        let config = Config::parse(&REGISTRATION.descriptor, &settings).expect("good settings");
        let now = Instant::now();
        Self { driver: Driver::new(&config, SOURCE, now), now, open: BTreeSet::new(), found: Vec::new() }
    }

    fn play(data: &[u8]) -> Self {
        let mut rig = Self::new();
        let mut rest = data;
        while let Some((&[step, argument], after)) = rest.split_first_chunk::<2>() {
            rest = rig.step(step, argument, after);
            rig.settle();
        }
        rig
    }

    /// One step of the script; answers with what follows it.
    fn step<'a>(&mut self, step: u8, argument: u8, after: &'a [u8]) -> &'a [u8] {
        // A companion, by the argument, where the highest bit is set.
        let which = if step & 128 == 0 { 0 } else { usize::from(argument) % DEVICES.len() };
        let device = || DeviceId::new(DEVICES[which]).expect("an id");
        let (datagram, rest) = after.split_at(usize::from(argument).min(after.len()));
        match step % 8 {
            0 => self.direct(Directive::Own { device: device(), owned: !argument.is_multiple_of(4) }),
            1 => self.direct(Directive::Refresh { device: device() }),
            2 => {
                let mut command = CommandId([argument; 16]);
                command.0[0] = which as u8; // an id is of one device
                self.open.insert(command);
                let change = change(step, argument);
                self.direct(Directive::Command {
                    device: device(),
                    command,
                    change: Change::Light(change),
                    by: String::new(),
                    deadline: self.now + DEADLINE,
                });
            }
            3 => self.now += Duration::from_millis(u64::from(argument) * 20),
            4 => {
                self.driver.handle_datagram(self.now, BULB, datagram);
                return rest;
            }
            // As from our bulb: the script holds the sequence number, the type and the body.
            _ => {
                if let Some(([sequence, kind], told)) = datagram.split_first_chunk::<2>() {
                    let body = filled_up(number(*kind), told);
                    let size = u16::try_from(36 + body.len()).expect("a short body");
                    let mut whole = size.to_le_bytes().to_vec();
                    whole.extend(HEADER);
                    whole.push(*sequence);
                    whole.extend([0; 8]);
                    whole.extend(number(*kind).to_le_bytes());
                    whole.extend([0, 0]);
                    whole.extend(body);
                    decodes_cleanly(&whole);
                    self.driver.handle_datagram(self.now, BULB, &whole);
                }
                return rest;
            }
        }
        after
    }

    fn direct(&mut self, directive: Directive) {
        self.driver.handle_directive(self.now, directive);
    }

    /// Does what is due. A timeout that is due does something: the next one lies later.
    fn settle(&mut self) {
        let mut turns = 0;
        self.drain();
        while self.driver.poll_timeout() <= self.now {
            self.driver.handle_timeout(self.now);
            self.drain();
            turns += 1;
            assert!(turns < 1_000, "the driver is always due");
        }
    }

    fn drain(&mut self) {
        let mut sent = 0;
        while let Some(transmit) = self.driver.poll_transmit() {
            assert_eq!(transmit.bytes.first_chunk(), Some(&(transmit.bytes.len() as u16).to_le_bytes()));
            sent += 1;
        }
        assert!(sent <= MOST_SENT, "{sent} datagrams in one step");
        while let Some(reading) = self.driver.poll_reading() {
            if let Reading::Found { device } = &reading {
                self.found.push(match &device.capabilities {
                    Capabilities::Light(can) => can.zones,
                    _ => None,
                });
            }
            if let Reading::Progress { command, stage, .. } = reading {
                let is_open = self.open.contains(&command);
                assert!(is_open, "{command:?} has ended, or never was: {stage:?}");
                if stage.is_final() {
                    self.open.remove(&command);
                }
            }
        }
    }
}

/// The bodies that are longer than a step of a script: its last byte fills them up.
fn filled_up(kind: u16, told: &[u8]) -> Vec<u8> {
    let length = match kind {
        512 => 661,
        702 => 882,
        711 => 517,
        _ => told.len(),
    };
    let mut body = told.to_vec();
    body.resize(length.max(told.len()), told.last().copied().unwrap_or_default());
    body
}

/// The message types, the high ones of relays, zones and effects in place of some that nobody sends.
fn number(kind: u8) -> u16 {
    match kind {
        247 => 818,
        248 => 702,
        249 => 711,
        250 => 503,
        251 => 506,
        252 => 509,
        253 => 512,
        254 => 720,
        kind => kind.into(),
    }
}

fn change(step: u8, argument: u8) -> LightChange {
    let zone = |count| Zone { count, color: ColorMode::Temperature { kelvin: 3_000 }, brightness: 9 };
    if argument % 8 == 7 {
        let effect = (step & 8 != 0).then(|| "move".to_owned());
        let zones = Some(vec![zone(argument.into()), zone(step.into())]);
        return LightChange { effect, zones, ..LightChange::default() };
    }
    LightChange {
        on: (step & 8 != 0).then_some(argument.is_multiple_of(2)),
        brightness: (step & 16 != 0).then(|| u16::from(argument) << 8),
        color: (step & 32 != 0).then(|| ColorMode::Temperature { kelvin: u16::from(argument) << 6 }),
        transition_ms: if step & 64 != 0 { u32::from(argument) << 4 } else { 0 },
        ..LightChange::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// A script in which a light of that product answers what it is asked first, last how many zones it has, and is
    /// owned.
    fn light(product: u8, kind: u8, size: &[u8]) -> Vec<u8> {
        let answer = |sequence: u8, kind: u8, body: &[u8]| {
            let length = u8::try_from(body.len() + 2).unwrap();
            [&[5, length, sequence, kind], body].concat()
        };
        [
            vec![3, 0], // the first round of discovery
            answer(1, 3, &[1, 0x7c, 0xdd, 0, 0]),
            answer(1, 33, &[1, 0, 0, 0, product, 0, 0, 0, 0, 0, 0, 0]),
            answer(2, 25, &[0; 32]),
            answer(3, 15, &[0; 20]),
            vec![3, 4], // 80 ms
            answer(4, kind, size),
            vec![0, 1],
        ]
        .concat()
    }

    /// A strip of 16 zones.
    fn strip() -> Vec<u8> {
        light(31, 250, &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// Hardware of that product, all of whose parts are owned.
    fn with_parts(product: u8) -> Vec<u8> {
        // The highest bit, and an argument of no multiple of four, is to own the companion of its remainder.
        [light(product, 121, &[0, 0x40]), vec![128, 1, 128, 2, 128, 3]].concat()
    }

    /// Two tiles of 16 x 8 zones.
    fn matrix() -> Vec<u8> {
        let mut tile = [0; 55];
        [tile[16], tile[17]] = [16, 8];
        light(201, 248, &[&[0][..], &tile, &tile, &[2]].concat())
    }

    #[test]
    fn the_scripts_of_lights_with_zones_are_such() {
        for (script, zones) in [(strip(), 16), (matrix(), 256)] {
            assert_eq!(super::Rig::play(&script).found, [Some(zones)]);
        }
    }

    #[test]
    fn the_scripts_of_hardware_with_parts_are_such() {
        for (product, parts) in [(109, 2), (90, 2), (70, 4)] {
            assert_eq!(super::Rig::play(&with_parts(product)).found, vec![None; parts]);
        }
    }

    proptest! {
        #[test]
        fn every_part_ends_every_command_in_time(
            product in proptest::sample::select(vec![109u8, 90, 70]),
            data in proptest::collection::vec(any::<u8>(), 0..400)
        ) {
            let script = [with_parts(product), data].concat();
            super::run(&script);
        }

        #[test]
        fn a_matrix_ends_every_command_in_time(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            let script = [matrix(), data].concat();
            super::run(&script);
        }

        #[test]
        fn a_strip_ends_every_command_in_time(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            let script = [strip(), data].concat();
            super::run(&script);
        }

        #[test]
        fn any_script_ends_every_command_in_time(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::run(&data);
        }
    }
}
