//! The other direction, for tests that play the bulb.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

/// The bytes that a bulb sends.
pub(crate) fn encode_reply(message: &Incoming) -> Vec<u8> {
    let mut body = Vec::new();
    let (kind, body) = match &message.reply {
        Reply::StateService { service, port } => {
            body.push(*service);
            body.extend(port.to_le_bytes());
            (3, body)
        }
        Reply::StateHostFirmware { major, minor } => {
            body.extend([0; 16]);
            body.extend(minor.to_le_bytes());
            body.extend(major.to_le_bytes());
            (15, body)
        }
        Reply::StateLabel(label) => (25, padded(label)),
        Reply::StateVersion { vendor, product } => {
            body.extend(vendor.to_le_bytes());
            body.extend(product.to_le_bytes());
            body.extend([0; 4]);
            (33, body)
        }
        Reply::Acknowledgement => (45, body),
        Reply::LightState { hsbk, power, label } => {
            hsbk.put(&mut body);
            body.extend([0; 2]);
            body.extend(power.to_le_bytes());
            body.extend(padded(label));
            body.extend([0; 8]);
            (107, body)
        }
        Reply::StateZones { count, first, colors } if colors.len() == 1 => {
            body.extend([low(*count), low(*first)]);
            colors[0].put(&mut body);
            (503, body)
        }
        Reply::StateZones { count, first, colors } => {
            let (kind, room) = if colors.len() <= 8 { (506, 8) } else { (512, 82) };
            if kind == 506 {
                body.extend([low(*count), low(*first)]);
            } else {
                body.extend(count.to_le_bytes());
                body.extend(first.to_le_bytes());
                body.push(u8::try_from(colors.len()).unwrap());
            }
            colors.iter().for_each(|hsbk| hsbk.put(&mut body));
            body.extend(filling(room - colors.len()));
            (kind, body)
        }
        Reply::StateMultiZoneEffect(effect) => {
            body.extend([0; 4]);
            body.push(effect.strip_number());
            body.extend([0; 54]);
            (509, body)
        }
        Reply::StateDeviceChain(tiles) => {
            body.push(0);
            let tile = |index: usize| tiles.get(index).copied().unwrap_or_default();
            for Tile { width, height } in (0..16).map(tile) {
                body.extend([0; 8]);
                body.extend(f32::NAN.to_le_bytes());
                body.extend(f32::INFINITY.to_le_bytes());
                body.extend([width, height]);
                body.extend([0; 37]);
            }
            body.push(u8::try_from(tiles.len()).unwrap());
            (702, body)
        }
        Reply::State64 { tile, column, row, width, colors } => {
            body.extend([*tile, 0, *column, *row, *width]);
            colors.iter().for_each(|hsbk| hsbk.put(&mut body));
            (711, body)
        }
        Reply::StateTileEffect(effect) => {
            body.extend([0; 5]);
            body.push(effect.matrix_number());
            body.extend([0; 53]);
            body.extend(filling(16));
            (720, body)
        }
        Reply::StateInfrared(brightness) => (121, brightness.to_le_bytes().to_vec()),
        Reply::StateHevCycle { remaining_s } => {
            body.extend(7_200u32.to_le_bytes());
            body.extend(remaining_s.to_le_bytes());
            body.push(1);
            (144, body)
        }
        Reply::StateLastHevCycleResult(result) => (149, vec![*result]),
        Reply::StateRPower { relay, level } => {
            body.push(*relay);
            body.extend(level.to_le_bytes());
            (818, body)
        }
        Reply::StateUnhandled(kind) => (223, kind.to_le_bytes().to_vec()),
    };
    frame(message.source, message.target, message.sequence, 0, kind, &body)
}

/// What a bulb reads: source, target, sequence, whether it must acknowledge, and the request.
pub(crate) fn decode_request(bytes: &[u8]) -> (u32, Serial, u8, bool, Request) {
    assert_eq!(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])), bytes.len());
    let mut body = Reader(&bytes[HEADER..]);
    let request = match u16::from_le_bytes([bytes[32], bytes[33]]) {
        2 => Request::GetService,
        14 => Request::GetHostFirmware,
        23 => Request::GetLabel,
        32 => Request::GetVersion,
        101 => Request::LightGet,
        102 => {
            body.take::<1>().unwrap();
            Request::LightSetColor(body.hsbk().unwrap(), body.u32().unwrap())
        }
        119 => {
            assert_eq!(body.take(), Some([0, 0]), "not transient");
            let (hsbk, fade) = (body.hsbk().unwrap(), body.u32().unwrap());
            let one_saw = [0, 0, 0x80, 0x3f, 0, 0, 0];
            assert_eq!(body.take(), Some(one_saw));
            assert_eq!(body.take(), Some([0, 0, 1, 0]), "the brightness alone");
            Request::SetBrightness(hsbk.brightness, if fade == 1 { 0 } else { fade })
        }
        120 => Request::GetInfrared,
        122 => Request::SetInfrared(body.u16().unwrap()),
        142 => Request::GetHevCycle,
        143 => {
            let [on] = body.take().unwrap();
            Request::SetHevCycle(on > 0, body.u32().unwrap())
        }
        148 => Request::GetLastHevCycleResult,
        816 => {
            let [relay] = body.take().unwrap();
            Request::GetRPower(relay)
        }
        817 => {
            let [relay] = body.take().unwrap();
            let level = body.u16().unwrap();
            assert!(matches!(level, 0 | u16::MAX), "no relay knows {level}");
            Request::SetRPower(relay, level > 0)
        }
        501 => {
            let [first, last] = body.take().unwrap();
            let (hsbk, fade) = (body.hsbk().unwrap(), body.u32().unwrap());
            assert_eq!(body.take(), Some([1]), "applied at once");
            Request::SetColorZones(first, last, hsbk, fade)
        }
        502 => {
            let [first, last] = body.take().unwrap();
            Request::GetColorZones(first, last)
        }
        507 => Request::GetMultiZoneEffect,
        508 => {
            body.take::<4>().unwrap();
            let [kind] = body.take().unwrap();
            body.take::<54>().unwrap();
            Request::SetMultiZoneEffect(Effect::of_strip(kind))
        }
        510 => {
            let fade = body.u32().unwrap();
            assert_eq!(body.take(), Some([1]), "applied at once");
            let first = body.u16().unwrap();
            let [count] = body.take().unwrap();
            let mut colors = body.colors(82).unwrap();
            colors.truncate(count.into());
            Request::SetExtendedColorZones(first, colors, fade)
        }
        511 => Request::GetExtendedColorZones,
        701 => Request::GetDeviceChain,
        707 => {
            let [tile, length, buffer, column, row, width] = body.take().unwrap();
            assert_eq!((buffer, column), (0, 0));
            Request::Get64 { tile, length, row, width }
        }
        715 => {
            let [tile, length, buffer, column, row, width] = body.take().unwrap();
            assert_eq!((length, column), (1, 0));
            let (fade, colors) = (body.u32().unwrap(), body.colors(64).unwrap());
            Request::Set64 { tile, buffer, row, width, colors, fade }
        }
        716 => {
            let [tile, length, from, to, x, y, left, top, width, height] = body.take().unwrap();
            assert_eq!((length, from, to, [x, y, left, top]), (1, 1, 0, [0; 4]));
            let fade = body.u32().unwrap();
            assert_eq!(body.take(), Some([0]));
            Request::CopyFrameBuffer { tile, width, height, fade }
        }
        718 => {
            body.take::<2>().unwrap();
            Request::GetTileEffect
        }
        719 => {
            body.take::<6>().unwrap();
            let [kind] = body.take().unwrap();
            body.take::<181>().unwrap();
            Request::SetTileEffect(Effect::of_matrix(kind))
        }
        117 => Request::LightSetPower(body.u16().unwrap() > 0, body.u32().unwrap()),
        other => panic!("unknown request {other}"),
    };
    assert!(body.0.is_empty());
    let source = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
    let target = Serial(bytes[8..14].try_into().unwrap());
    (source, target, bytes[23], bytes[22] & 2 != 0, request)
}

fn low(value: u16) -> u8 {
    u8::try_from(value).unwrap()
}

/// What stands behind the last colour.
fn filling(count: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let dark = Hsbk { hue: 0, saturation: 0, brightness: 0, kelvin: 3_500 };
    (0..count).for_each(|_| dark.put(&mut body));
    body
}

fn padded(label: &str) -> Vec<u8> {
    let mut bytes = label.as_bytes().to_vec();
    bytes.resize(LABEL, 0);
    bytes
}
