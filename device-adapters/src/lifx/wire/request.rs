//! What Hearth sends.
//!
//! Source: <https://lan.developer.lifx.com/docs/querying-the-device-for-data>,
//! <https://lan.developer.lifx.com/docs/changing-a-device> and, for relays,
//! <https://lan.developer.lifx.com/docs/the-lifx-switch>.

use super::{Effect, Hsbk, Reply};

/// Zones in one of the extended messages.
const EXTENDED_ZONES: usize = 82;
/// Zones in one of the messages for a matrix.
const TILE_ZONES: usize = 64;
/// The buffer of a tile that is seen.
const SEEN: u8 = 0;
/// The one that [`Request::CopyFrameBuffer`] copies from.
const PREPARED: u8 = 1;
/// Colours in a palette of an effect.
const PALETTE: usize = 16;
/// "Show it at once", in messages that can also prepare zones for later.
const APPLY: u8 = 1;
/// The milliseconds that one turn of a firmware effect takes; a sky moves slower than the others.
const EFFECT_SPEED: u32 = 3_000;
const SKY_SPEED: u32 = 50_000;

/// What Hearth sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Who is there? (2)
    GetService,
    /// Which firmware? (14)
    GetHostFirmware,
    /// Which label? (23)
    GetLabel,
    /// Which product? (32)
    GetVersion,
    /// Which state? (101)
    LightGet,
    /// Show this colour, fading over so many milliseconds. (102)
    LightSetColor(Hsbk, u32),
    /// Be on or off, fading over so many milliseconds. (117)
    LightSetPower(bool, u32),
    /// Be so bright and keep each zone's colour, fading over so many milliseconds. (119)
    SetBrightness(u16, u32),
    /// How bright is the infrared emitter while the light is off? (120)
    GetInfrared,
    /// Be so bright then; 0 is off. (122)
    SetInfrared(u16),
    /// Does a cleaning cycle run? (142)
    GetHevCycle,
    /// Run a cleaning cycle of so many seconds, 0 as the bulb is set; or end the one that runs. (143)
    SetHevCycle(bool, u32),
    /// How did the last cleaning cycle end? (148)
    GetLastHevCycleResult,
    /// Show a colour in the zones from the first to the last of these, fading over so many milliseconds. (501)
    SetColorZones(u8, u8, Hsbk, u32),
    /// Which colours in the zones from the first to the last of these? (502)
    GetColorZones(u8, u8),
    /// Which effect does the strip run? (507)
    GetMultiZoneEffect,
    /// Run this effect on the strip. (508)
    SetMultiZoneEffect(Effect),
    /// Show these colours from that zone on, at most 82, fading over so many milliseconds. (510)
    SetExtendedColorZones(u16, Vec<Hsbk>, u32),
    /// Which colours in all zones? (511)
    GetExtendedColorZones,
    /// Which tiles does the matrix have? (701)
    GetDeviceChain,
    /// Which colours in the zones of `length` tiles from that row on? Each tile answers. (707)
    Get64 {
        /// The first tile.
        tile: u8,
        /// How many tiles.
        length: u8,
        /// The first row.
        row: u8,
        /// How many zones a row has.
        width: u8,
    },
    /// Show these colours in a tile from that row on, at most 64, fading over so many milliseconds. (715)
    Set64 {
        /// The tile.
        tile: u8,
        /// The buffer: 0 is seen; what is put into another waits for [`Request::CopyFrameBuffer`].
        buffer: u8,
        /// The first row.
        row: u8,
        /// How many zones a row has.
        width: u8,
        /// What to show.
        colors: Vec<Hsbk>,
        /// How long it fades.
        fade: u32,
    },
    /// Show in a tile, of that size, what was put into buffer 1, fading over so many milliseconds. (716)
    CopyFrameBuffer {
        /// The tile.
        tile: u8,
        /// How many zones a row has.
        width: u8,
        /// How many rows it has.
        height: u8,
        /// How long it fades.
        fade: u32,
    },
    /// Which effect does the matrix run? (718)
    GetTileEffect,
    /// Run this effect on the matrix. (719)
    SetTileEffect(Effect),
    /// Is that relay on? They count from 0. (816)
    GetRPower(u8),
    /// Be on or off, that relay. (817)
    SetRPower(u8, bool),
}

impl Request {
    /// The number of the message type.
    pub(crate) fn kind(&self) -> u16 {
        match self {
            Self::GetService => 2,
            Self::GetHostFirmware => 14,
            Self::GetLabel => 23,
            Self::GetVersion => 32,
            Self::LightGet => 101,
            Self::LightSetColor(..) => 102,
            Self::LightSetPower(..) => 117,
            Self::SetBrightness(..) => 119,
            Self::GetInfrared => 120,
            Self::SetInfrared(_) => 122,
            Self::GetHevCycle => 142,
            Self::SetHevCycle(..) => 143,
            Self::GetLastHevCycleResult => 148,
            Self::SetColorZones(..) => 501,
            Self::GetColorZones(..) => 502,
            Self::GetMultiZoneEffect => 507,
            Self::SetMultiZoneEffect(_) => 508,
            Self::SetExtendedColorZones(..) => 510,
            Self::GetExtendedColorZones => 511,
            Self::GetDeviceChain => 701,
            Self::Get64 { .. } => 707,
            Self::Set64 { .. } => 715,
            Self::CopyFrameBuffer { .. } => 716,
            Self::GetTileEffect => 718,
            Self::SetTileEffect(_) => 719,
            Self::GetRPower(_) => 816,
            Self::SetRPower(..) => 817,
        }
    }

    /// Whether it changes something, and so asks for an acknowledgement.
    pub(crate) fn is_set(&self) -> bool {
        matches!(
            self,
            Self::LightSetColor(..)
                | Self::LightSetPower(..)
                | Self::SetBrightness(..)
                | Self::SetInfrared(_)
                | Self::SetHevCycle(..)
                | Self::SetColorZones(..)
                | Self::SetMultiZoneEffect(_)
                | Self::SetExtendedColorZones(..)
                | Self::Set64 { .. }
                | Self::CopyFrameBuffer { .. }
                | Self::SetTileEffect(_)
                | Self::SetRPower(..)
        )
    }

    /// Whether it changes what single zones show.
    pub(crate) fn is_of_zones(&self) -> bool {
        matches!(
            self,
            Self::SetColorZones(..)
                | Self::SetExtendedColorZones(..)
                | Self::Set64 { .. }
                | Self::CopyFrameBuffer { .. }
        )
    }

    /// Whether it prepares what another message shows, which must not overtake it.
    pub(crate) fn is_preparation(&self) -> bool {
        matches!(self, Self::Set64 { buffer, .. } if *buffer != SEEN)
    }

    /// How many milliseconds it fades.
    pub(crate) fn fade(&self) -> u32 {
        match self {
            Self::LightSetColor(_, fade)
            | Self::LightSetPower(_, fade)
            | Self::SetBrightness(_, fade)
            | Self::SetColorZones(_, _, _, fade)
            | Self::SetExtendedColorZones(_, _, fade)
            | Self::Set64 { fade, .. }
            | Self::CopyFrameBuffer { fade, .. } => *fade,
            _ => 0,
        }
    }

    /// The same at once.
    pub(crate) fn without_fade(mut self) -> Self {
        if let Self::LightSetColor(_, fade)
        | Self::LightSetPower(_, fade)
        | Self::SetBrightness(_, fade)
        | Self::SetColorZones(_, _, _, fade)
        | Self::SetExtendedColorZones(_, _, fade)
        | Self::Set64 { fade, .. }
        | Self::CopyFrameBuffer { fade, .. } = &mut self
        {
            *fade = 0;
        }
        self
    }

    /// The messages that show these colours in a strip, one for each zone from the first on. Each shows its part at
    /// once, so that they may arrive in any order and more than once.
    pub(crate) fn extended_zones(colors: &[Hsbk], fade: u32) -> Vec<Self> {
        let first = (0..u16::MAX).step_by(EXTENDED_ZONES);
        let parts = colors.chunks(EXTENDED_ZONES).zip(first);
        parts.map(|(part, first)| Self::SetExtendedColorZones(first, part.to_vec(), fade)).collect()
    }

    /// The same for a strip that does not know those: a message for each run of zones that show the same.
    pub(crate) fn zones(runs: &[(u16, Hsbk)], fade: u32) -> Vec<Self> {
        let mut next = 0u16;
        let mut requests = Vec::with_capacity(runs.len());
        for (count, hsbk) in runs {
            let last = next.saturating_add(*count).saturating_sub(1);
            let Ok(first) = u8::try_from(next) else { break };
            requests.push(Self::SetColorZones(first, u8::try_from(last).unwrap_or(u8::MAX), *hsbk, fade));
            next = last.saturating_add(1);
        }
        requests
    }

    /// Whether `reply` answers this, or a part of it.
    pub(crate) fn is_answered_by(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (_, Reply::Acknowledgement) => self.is_set(),
            (_, Reply::StateUnhandled(kind)) => *kind == self.kind(),
            (
                Self::Get64 { tile: first, length, row, width },
                Reply::State64 { tile, column: 0, row: from, width: wide, .. },
            ) => (*first..first.saturating_add(*length)).contains(tile) && (row, width) == (from, wide),
            (Self::GetRPower(asked), Reply::StateRPower { relay, .. }) => asked == relay,
            (Self::GetService, Reply::StateService { .. })
            | (Self::GetHostFirmware, Reply::StateHostFirmware { .. })
            | (Self::GetLabel, Reply::StateLabel(_))
            | (Self::GetVersion, Reply::StateVersion { .. })
            | (Self::LightGet, Reply::LightState { .. })
            | (Self::GetInfrared, Reply::StateInfrared(_))
            | (Self::GetHevCycle, Reply::StateHevCycle { .. })
            | (Self::GetLastHevCycleResult, Reply::StateLastHevCycleResult(_))
            | (Self::GetColorZones(..) | Self::GetExtendedColorZones, Reply::StateZones { .. })
            | (Self::GetMultiZoneEffect, Reply::StateMultiZoneEffect(_))
            | (Self::GetDeviceChain, Reply::StateDeviceChain(_))
            | (Self::GetTileEffect, Reply::StateTileEffect(_)) => true,
            _ => false,
        }
    }

    /// The bytes behind the header. `source` makes the numbers that tell one run of an effect from another.
    pub(super) fn body(&self, source: u32) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::LightSetColor(hsbk, fade) => {
                body.push(0);
                hsbk.put(&mut body);
                body.extend(fade.to_le_bytes());
            }
            Self::LightSetPower(on, fade) => {
                body.extend(power(*on));
                body.extend(fade.to_le_bytes());
            }
            Self::SetInfrared(brightness) => body.extend(brightness.to_le_bytes()),
            Self::SetHevCycle(on, seconds) => {
                body.push(u8::from(*on));
                body.extend(seconds.to_le_bytes());
            }
            Self::GetRPower(relay) => body.push(*relay),
            Self::SetRPower(relay, on) => {
                body.push(*relay);
                body.extend(power(*on));
            }
            Self::SetBrightness(brightness, fade) => put_brightness(&mut body, *brightness, *fade),
            Self::SetColorZones(first, last, hsbk, fade) => {
                body.extend([*first, *last]);
                hsbk.put(&mut body);
                body.extend(fade.to_le_bytes());
                body.push(APPLY);
            }
            Self::GetColorZones(first, last) => body.extend([*first, *last]),
            Self::SetExtendedColorZones(first, colors, fade) => {
                body.extend(fade.to_le_bytes());
                body.push(APPLY);
                body.extend(first.to_le_bytes());
                body.push(u8::try_from(colors.len().min(EXTENDED_ZONES)).unwrap_or(u8::MAX));
                put_colors(&mut body, colors, EXTENDED_ZONES);
            }
            Self::SetMultiZoneEffect(effect) => put_strip_effect(&mut body, source, *effect),
            Self::Get64 { tile, length, row, width } => {
                body.extend([*tile, *length, SEEN, 0, *row, *width]);
            }
            Self::Set64 { tile, buffer, row, width, colors, fade } => {
                body.extend([*tile, 1, *buffer, 0, *row, *width]);
                body.extend(fade.to_le_bytes());
                put_colors(&mut body, colors, TILE_ZONES);
            }
            Self::CopyFrameBuffer { tile, width, height, fade } => {
                body.extend([*tile, 1, PREPARED, SEEN, 0, 0, 0, 0, *width, *height]);
                body.extend(fade.to_le_bytes());
                body.push(0);
            }
            Self::GetTileEffect => body.extend([0; 2]),
            Self::SetTileEffect(effect) => put_matrix_effect(&mut body, source, *effect),
            _ => {}
        }
        body
    }
}

/// On is the highest of levels: nothing that is switched so knows one in between.
fn power(on: bool) -> [u8; 2] {
    if on { u16::MAX.to_le_bytes() } else { [0; 2] }
}

/// One run of a waveform that rises in a straight line to the target and stays there, for the brightness alone.
fn put_brightness(body: &mut Vec<u8>, brightness: u16, fade: u32) {
    const SAW: u8 = 0;
    body.extend([0, 0]); // reserved; not transient
    Hsbk { hue: 0, saturation: 0, brightness, kelvin: 3_500 }.put(body);
    body.extend(fade.max(1).to_le_bytes()); // no bulb runs a waveform of no time
    body.extend(1.0f32.to_le_bytes());
    body.extend(0i16.to_le_bytes());
    body.push(SAW);
    body.extend([0, 0, 1, 0]); // which of hue, saturation, brightness and kelvin it is about
}

/// The settings of a strip's effect, 59 bytes: the second parameter of "move" is its direction, 1 away from the
/// controller.
fn put_strip_effect(body: &mut Vec<u8>, source: u32, effect: Effect) {
    body.extend(source.to_le_bytes());
    body.push(effect.strip_number());
    body.extend([0; 2]);
    body.extend(EFFECT_SPEED.to_le_bytes());
    body.extend([0; 8]); // a duration of 0: until it is ended
    body.extend([0; 8]);
    for parameter in [0u32, 1, 0, 0, 0, 0, 0, 0] {
        body.extend(parameter.to_le_bytes());
    }
}

/// The settings of a matrix's effect, 186 bytes behind two that are reserved.
fn put_matrix_effect(body: &mut Vec<u8>, source: u32, effect: Effect) {
    body.extend([0; 2]);
    body.extend(source.to_le_bytes());
    body.push(effect.matrix_number());
    let speed = if effect == Effect::Sky { SKY_SPEED } else { EFFECT_SPEED };
    body.extend(speed.to_le_bytes());
    body.extend([0; 8]); // a duration of 0: until it is ended
    body.extend([0; 8]);
    let mut parameters = [0; 32];
    if effect == Effect::Sky {
        // Clouds, of a saturation from 50 to 180 of 255.
        [parameters[0], parameters[4], parameters[8]] = [2, 50, 180];
    }
    body.extend(parameters);
    let palette = if effect == Effect::Morph { Hsbk::wheel() } else { Vec::new() };
    body.push(u8::try_from(palette.len()).unwrap_or_default());
    put_colors(body, &palette, PALETTE);
}

/// So many colours; what is missing is filled up with zeros.
fn put_colors(body: &mut Vec<u8>, colors: &[Hsbk], count: usize) {
    let dark = Hsbk { hue: 0, saturation: 0, brightness: 0, kelvin: 0 };
    for hsbk in colors.iter().chain(std::iter::repeat(&dark)).take(count) {
        hsbk.put(body);
    }
}
