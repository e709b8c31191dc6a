//! The bytes: golden vectors, and what is no message or not meant for us.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

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

/// As the emulator's own codec packs them.
#[test]
fn requests_about_zones_and_effects_have_the_bytes_of_the_documentation() {
    let hsbk = Hsbk { hue: 1, saturation: 2, brightness: 3, kelvin: 4 };
    let (four, white) = ("0100020003000400", "ffffffffac0d");
    let wheel: String =
        ["0000", "aa2a", "5455", "fe7f", "a8aa", "52d5"].iter().map(|hue| format!("{hue}{white}")).collect();
    let zeros = |count: usize| "00".repeat(count);
    for (request, size, kind, body) in [
        (
            Request::SetBrightness(1_000, 1_024),
            "3d00",
            "7700",
            format!("000000000000e803ac0d00040000{}0000{}", "0000803f", "0000000100"),
        ),
        (Request::SetColorZones(1, 9, hsbk, 5), "3300", "f501", format!("0109{four}0500000001")),
        (Request::GetColorZones(0, 255), "2600", "f601", "00ff".to_owned()),
        (Request::GetMultiZoneEffect, "2400", "fb01", String::new()),
        (
            Request::SetMultiZoneEffect(Effect::Move),
            "5f00",
            "fc01",
            format!("02000000010000b80b0000{}01000000{}", zeros(20), zeros(24)),
        ),
        (
            Request::SetExtendedColorZones(82, vec![hsbk; 2], 5),
            "bc02",
            "fe01",
            format!("0500000001520002{four}{four}{}", zeros(640)),
        ),
        (Request::GetExtendedColorZones, "2400", "ff01", String::new()),
        (Request::GetDeviceChain, "2400", "bd02", String::new()),
        (Request::Get64 { tile: 1, length: 5, row: 4, width: 16 }, "2a00", "c302", "010500000410".to_owned()),
        (
            Request::Set64 { tile: 2, buffer: 1, row: 4, width: 16, colors: vec![hsbk; 2], fade: 5 },
            "2e02",
            "cb02",
            format!("02010100041005000000{four}{four}{}", zeros(496)),
        ),
        (
            Request::CopyFrameBuffer { tile: 2, width: 16, height: 8, fade: 5 },
            "3300",
            "cc02",
            "020101000000000010080500000000".to_owned(),
        ),
        (Request::GetTileEffect, "2600", "ce02", "0000".to_owned()),
        (
            Request::SetTileEffect(Effect::Sky),
            "e000",
            "cf02",
            format!("00000200000005{}{}02000000{}b4000000{}", "50c30000", zeros(16), "32000000", zeros(149)),
        ),
        (
            Request::SetTileEffect(Effect::Morph),
            "e000",
            "cf02",
            format!("00000200000002b80b0000{}06{wheel}{}", zeros(48), zeros(80)),
        ),
    ] {
        let flags = if request.is_set() { "02" } else { "00" };
        let header = format!("{size}001402000000d073d5001337{}{flags}07{}{kind}0000", zeros(8), zeros(8));
        assert_eq!(wire::encode(2, SERIAL, 7, &request), bytes(&format!("{header}{body}")), "{request:?}");
    }
}

/// Those of lights as the emulator's own codec packs them; it knows no relays.
#[test]
fn requests_to_companions_and_relays_have_the_bytes_of_the_documentation() {
    for (request, size, kind, body) in [
        (Request::GetInfrared, "24", "7800", ""),
        (Request::SetInfrared(0x1234), "26", "7a00", "3412"),
        (Request::GetHevCycle, "24", "8e00", ""),
        (Request::SetHevCycle(true, 5_400), "29", "8f00", "0118150000"),
        (Request::SetHevCycle(false, 0), "29", "8f00", "0000000000"),
        (Request::GetLastHevCycleResult, "24", "9400", ""),
        (Request::GetRPower(3), "25", "3003", "03"),
        (Request::SetRPower(3, true), "27", "3103", "03ffff"),
        (Request::SetRPower(0, false), "27", "3103", "000000"),
    ] {
        let flags = if request.is_set() { "02" } else { "00" };
        let zeros = "00".repeat(8);
        let header = format!("{size}00001402000000d073d5001337{zeros}{flags}07{zeros}{kind}0000");
        assert_eq!(wire::encode(2, SERIAL, 7, &request), bytes(&format!("{header}{body}")), "{request:?}");
    }
}

#[test]
fn a_device_id_holds_the_serial_of_its_hardware_or_is_none_of_ours() {
    let of = |id: &str| Serial::of(&DeviceId::new(id).unwrap(), "lifx");
    for id in ["lifx-d073d5001337", "lifx-d073d5001337-infrared", "lifx-d073d5001337-relay-4"] {
        assert_eq!(of(id), Some(SERIAL), "{id}");
    }
    for id in
        ["lifx", "lifx-", "lifx-d073d500133", "lifx-d073d50013377", "lifx-d073d500133g", "lan-d073d5001337"]
    {
        assert_eq!(of(id), None, "{id}");
    }
}

/// Answers, packed by the emulator's own codec, and what they mean.
fn answers() -> Vec<(String, Reply)> {
    let (plain, zoned) = (plain_answers(), zoned_answers());
    plain.into_iter().map(|(hex, reply)| (hex.to_owned(), reply)).chain(zoned).collect()
}

fn zoned_answers() -> Vec<(String, Reply)> {
    let color = |start| Hsbk { hue: start, saturation: start + 1, brightness: start + 2, kelvin: start + 3 };
    let zones = |count, first, colors| Reply::StateZones { count, first, colors };
    let (four, dark) = ("0100020003000400", "000000000000ac0d");
    let head = |size: &str, kind: &str| {
        format!("{size}001402000000d073d5001337000000000000000000070000000000000000{kind}0000")
    };
    vec![
        (format!("{}1003{four}", head("2e00", "f701")), zones(16, 3, vec![color(1)])),
        (
            format!("{}0a08{four}0500060007000800{}", head("6600", "fa01"), dark.repeat(6)),
            zones(10, 8, vec![color(1), color(5)]),
        ),
        (
            format!("{}7800520026{}{}", head("b902", "0002"), four.repeat(38), dark.repeat(44)),
            zones(120, 82, vec![color(1); 38]),
        ),
        (
            format!("{}0000000001{}", head("5f00", "fd01"), "00".repeat(54)),
            Reply::StateMultiZoneEffect(Effect::Move),
        ),
        (
            format!("{}0300000410{}", head("2902", "c702"), four.repeat(64)),
            Reply::State64 { tile: 3, column: 0, row: 4, width: 16, colors: vec![color(1); 64] },
        ),
        (
            format!("{}000000000003{}{}", head("df00", "d002"), "00".repeat(53), dark.repeat(16)),
            Reply::StateTileEffect(Effect::Flame),
        ),
        (format!("{}3412", head("2600", "7900")), Reply::StateInfrared(0x1234)),
        (format!("{}201c00001815000001", head("2d00", "9000")), Reply::StateHevCycle { remaining_s: 5_400 }),
        (format!("{}04", head("2500", "9500")), Reply::StateLastHevCycleResult(4)),
        (format!("{}03ffff", head("2700", "3203")), Reply::StateRPower { relay: 3, level: u16::MAX }),
    ]
}

/// A tile of a chain, as the emulator's own codec packs it: 5 x 6 zones, with a place, a product and a firmware.
const TILE: &str = "01000200030000000000c03f000000c0050600010000003900000000000000090000000000000000000000000000004600030000000000";

#[test]
fn a_chain_has_the_tiles_that_it_counts() {
    let chain = |count: &str| {
        let head = "9603001402000000d073d500133700000000000000000007";
        wire::decode(&bytes(&format!("{head}{}be02000000{}{count}", "00".repeat(8), TILE.repeat(16))))
    };
    let tile = Tile { width: 5, height: 6 };
    for (count, tiles) in [("00", 0), ("01", 1), ("10", 16), ("ff", 16)] {
        assert_eq!(chain(count).unwrap().reply, Reply::StateDeviceChain(vec![tile; tiles]));
    }
    assert_eq!(chain("").unwrap_err(), WireError::Length { stated: 918, real: 917 });
}

fn plain_answers() -> Vec<(&'static str, Reply)> {
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
        assert_eq!(wire::decode(&bytes(&hex)).unwrap(), expected);
        assert_eq!(peer::encode_reply(&expected), bytes(&hex), "the bulb of these tests says something else");
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
