//! What a bulb sends that Hearth reads.
//!
//! Source: <https://lan.developer.lifx.com/docs/information-messages>.

use super::{Effect, Hsbk, Reader, Tile, WireError};

/// Tiles in a message, of which the first so many are there.
const TILES: usize = 16;

/// What a bulb sends that Hearth reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A service and its port. (3)
    StateService {
        /// 1 is the protocol described here.
        service: u8,
        /// Its UDP port.
        port: u32,
    },
    /// The version of the firmware. (15)
    StateHostFirmware {
        /// The number before the point.
        major: u16,
        /// The number after the point.
        minor: u16,
    },
    /// The label that its user gave it. (25)
    StateLabel(String),
    /// What it is. (33)
    StateVersion {
        /// The vendor number.
        vendor: u32,
        /// The product number.
        product: u32,
    },
    /// "Received", and no more than that. (45)
    Acknowledgement,
    /// The state of the light. (107)
    LightState {
        /// The colour it shows, or moves through; of zones, one for all of them.
        hsbk: Hsbk,
        /// 0 is off; anything else is on, or on its way.
        power: u16,
        /// Its label.
        label: String,
    },
    /// How bright the infrared emitter is while the light is off. (121)
    StateInfrared(u16),
    /// The cleaning cycle. (144)
    StateHevCycle {
        /// How many seconds it still runs; 0 is none that runs.
        remaining_s: u32,
    },
    /// How the last cleaning cycle ended, by its number. (149)
    StateLastHevCycleResult(u8),
    /// Some of the zones of a strip. (503, 506 and 512)
    StateZones {
        /// How many zones there are.
        count: u16,
        /// Which zone is the first of these.
        first: u16,
        /// What they show.
        colors: Vec<Hsbk>,
    },
    /// The effect that a strip runs. (509)
    StateMultiZoneEffect(Effect),
    /// The tiles of a matrix. (702)
    StateDeviceChain(Vec<Tile>),
    /// What zones of a tile show, row by row; filling stands behind the last. (711)
    State64 {
        /// Which tile of the chain.
        tile: u8,
        /// The column of the first zone.
        column: u8,
        /// The row of the first zone.
        row: u8,
        /// How many zones of each row these are.
        width: u8,
        /// What they show.
        colors: Vec<Hsbk>,
    },
    /// The effect that a matrix runs. (720)
    StateTileEffect(Effect),
    /// The power of a relay. (818)
    StateRPower {
        /// Which one, counted from 0.
        relay: u8,
        /// 0 is off, anything else is on.
        level: u16,
    },
    /// It does not know messages of that type. (223)
    StateUnhandled(u16),
}

/// The body of a message; `None` when it is too short.
pub(super) fn parse(kind: u16, body: &mut Reader<'_>) -> Result<Option<Reply>, WireError> {
    Ok(match kind {
        3 => service(body),
        15 => firmware(body),
        25 => body.label().map(Reply::StateLabel),
        33 => version(body),
        45 => Some(Reply::Acknowledgement),
        107 => light_state(body),
        121 => body.u16().map(Reply::StateInfrared),
        144 => hev_cycle(body),
        149 => body.take().map(|[result]| Reply::StateLastHevCycleResult(result)),
        223 => body.u16().map(Reply::StateUnhandled),
        503 => zones_of_8_bits(body, 1),
        506 => zones_of_8_bits(body, 8),
        509 => strip_effect(body),
        512 => extended_zones(body),
        702 => device_chain(body),
        711 => tile_zones(body),
        720 => matrix_effect(body),
        818 => relay_power(body),
        other => return Err(WireError::Type(other)),
    })
}

fn service(body: &mut Reader<'_>) -> Option<Reply> {
    let [service] = body.take()?;
    Some(Reply::StateService { service, port: body.u32()? })
}

fn firmware(body: &mut Reader<'_>) -> Option<Reply> {
    body.take::<16>()?; // build time, reserved
    let minor = body.u16()?;
    Some(Reply::StateHostFirmware { major: body.u16()?, minor })
}

fn version(body: &mut Reader<'_>) -> Option<Reply> {
    let (vendor, product) = (body.u32()?, body.u32()?);
    body.take::<4>()?;
    Some(Reply::StateVersion { vendor, product })
}

fn light_state(body: &mut Reader<'_>) -> Option<Reply> {
    let hsbk = body.hsbk()?;
    body.take::<2>()?;
    let power = body.u16()?;
    let label = body.label()?;
    body.take::<8>()?;
    Some(Reply::LightState { hsbk, power, label })
}

fn hev_cycle(body: &mut Reader<'_>) -> Option<Reply> {
    body.take::<4>()?; // how long it is in all
    let remaining_s = body.u32()?;
    body.take::<1>()?; // whether the light is on after it
    Some(Reply::StateHevCycle { remaining_s })
}

/// StateZone and StateMultiZone: behind the last zone of the strip stands filling.
fn zones_of_8_bits(body: &mut Reader<'_>, most: usize) -> Option<Reply> {
    let [count, first] = body.take()?;
    let mut colors = body.colors(most)?;
    colors.truncate(count.saturating_sub(first).into());
    Some(Reply::StateZones { count: count.into(), first: first.into(), colors })
}

fn extended_zones(body: &mut Reader<'_>) -> Option<Reply> {
    let (count, first) = (body.u16()?, body.u16()?);
    let [told] = body.take()?;
    let mut colors = body.colors(82)?;
    colors.truncate(usize::from(told).min(count.saturating_sub(first).into()));
    Some(Reply::StateZones { count, first, colors })
}

fn strip_effect(body: &mut Reader<'_>) -> Option<Reply> {
    body.take::<4>()?; // its instance
    let [kind] = body.take()?;
    body.take::<54>()?; // its settings
    Some(Reply::StateMultiZoneEffect(Effect::of_strip(kind)))
}

fn device_chain(body: &mut Reader<'_>) -> Option<Reply> {
    let [_first] = body.take()?; // always the whole chain, from tile 0 on
    let mut tiles = (0..TILES).map(|_| tile(body)).collect::<Option<Vec<Tile>>>()?;
    let [count] = body.take()?;
    tiles.truncate(count.into());
    Some(Reply::StateDeviceChain(tiles))
}

fn tile(body: &mut Reader<'_>) -> Option<Tile> {
    body.take::<16>()?; // how it is turned, and where its user put it
    let [width, height] = body.take()?;
    body.take::<37>()?; // reserved, what it is, its firmware
    Some(Tile { width, height })
}

fn tile_zones(body: &mut Reader<'_>) -> Option<Reply> {
    let [tile, _buffer, column, row, width] = body.take()?; // always the buffer that is seen
    Some(Reply::State64 { tile, column, row, width, colors: body.colors(64)? })
}

fn matrix_effect(body: &mut Reader<'_>) -> Option<Reply> {
    body.take::<5>()?; // reserved, its instance
    let [kind] = body.take()?;
    body.take::<181>()?; // its settings and palette
    Some(Reply::StateTileEffect(Effect::of_matrix(kind)))
}

fn relay_power(body: &mut Reader<'_>) -> Option<Reply> {
    let [relay] = body.take()?;
    Some(Reply::StateRPower { relay, level: body.u16()? })
}
