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
