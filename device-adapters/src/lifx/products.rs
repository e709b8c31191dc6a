//! What each LIFX product can do.
//!
//! Source: the product numbers and features that LIFX publishes at
//! <https://github.com/LIFX/products>. Kept as ranges of numbers, because most of what was made
//! since 2018 is full colour from 1 500 to 9 000 K. Of the strips and matrices its revision of May 2025 lacks 56,
//! 151, 152, 172, 207, 208, 211, 229, 265 to 268 and 300: these are from a list made of a later one, the registry of
//! `lifx-emulator` 4.11, and no second source was at hand for them. Which matrix knows the sky is not in there but in the
//! description of SetTileEffect, <https://lan.developer.lifx.com/docs/changing-a-device>.

use crate::model::{Gamut, KelvinRange, LightCapabilities};

use super::chain::Chain;
use super::layout::Layout;

/// The vendor number of LIFX itself.
pub(crate) const VENDOR_LIFX: u32 = 1;

/// What a product is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Product {
    /// A light of known abilities.
    Light(LightCapabilities),
    /// A light, as far as anybody can tell: the number is not in the table.
    Unknown(LightCapabilities),
    /// A switch: not a light at all.
    Switch,
}

/// What a piece of hardware is, or has beside that: each is a device of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The light that it is.
    Light,
    /// The infrared emitter of a light.
    Infrared,
    /// The cleaning cycle of a light.
    Cleaning,
    /// A relay of a switch, counted from 0.
    Relay(u8),
}

impl Role {
    /// What it is called beside the others; nothing of the light, which is called as the hardware is. People count
    /// from 1.
    pub(crate) fn called(self) -> String {
        match self {
            Self::Light => String::new(),
            Self::Infrared => "infrared".to_owned(),
            Self::Cleaning => "clean".to_owned(),
            Self::Relay(index) => format!("relay {}", u16::from(index) + 1),
        }
    }
}

/// What a product is and has. The list does not say how many relays a switch has, and no message tells: four is the
/// most that were built in.
pub(crate) fn roles(vendor: u32, product: u32) -> &'static [Role] {
    if vendor != VENDOR_LIFX {
        return &[Role::Light];
    }
    match product {
        25 | 26 | 29 | 30 | 45 | 46 | 64 | 65 | 109..=112 => &[Role::Light, Role::Infrared],
        90 | 99 => &[Role::Light, Role::Cleaning],
        70 | 71 | 84 | 89 | 115 | 116 | 226 => {
            &[Role::Relay(0), Role::Relay(1), Role::Relay(2), Role::Relay(3)]
        }
        _ => &[Role::Light],
    }
}

/// How the zones of a product lie, with the firmware and the tiles that it has, as far as these are known.
pub(crate) fn layout(vendor: u32, product: u32, firmware: Option<(u16, u16)>, chain: Chain) -> Layout {
    let since = |version| firmware.is_some_and(|firmware| firmware >= version);
    if vendor != VENDOR_LIFX {
        return Layout::Point;
    }
    match product {
        31 | 300 => Layout::Strip { extended: false },
        32 | 38 => Layout::Strip { extended: since((2, 77)) },
        56 | 117..=120 | 141..=144 | 151 | 152 | 161 | 162 | 203..=208 | 211 | 213 | 214 => {
            Layout::Strip { extended: true }
        }
        176 | 177 | 201 | 202 | 265 | 266 => Layout::Matrix { sky: since((4, 4)), chain },
        55 | 57 | 68 | 137 | 138 | 171..=174 | 185 | 186 | 215..=222 | 229 | 267 | 268 => {
            Layout::Matrix { sky: false, chain }
        }
        _ => Layout::Point,
    }
}

/// Looks a product up, with the firmware that it has, as far as that is known.
pub(crate) fn lookup(vendor: u32, product: u32, firmware: Option<(u16, u16)>) -> Product {
    let since = |version| firmware.is_some_and(|firmware| firmware >= version);
    if vendor != VENDOR_LIFX {
        return Product::Unknown(light(true, 1_500, 9_000));
    }
    match product {
        _ if !roles(vendor, product).contains(&Role::Light) => Product::Switch,
        10 | 11 => Product::Light(light(false, 2_700, 6_500)),
        18 | 19 => Product::Light(light(false, 2_500, 9_000)),
        12 | 13 | 51 | 54 | 61 | 66 | 87 | 88 | 127 | 128 | 133 | 134 => {
            Product::Light(light(false, 2_700, 2_700))
        }
        39 => Product::Light(light(false, if since((2, 80)) { 1_500 } else { 2_500 }, 9_000)),
        50 | 60 => Product::Light(light(false, 1_500, if since((3, 70)) { 9_000 } else { 6_500 })),
        67 | 81 | 96 => Product::Light(light(false, 2_200, 6_500)),
        82 | 100 => Product::Light(light(false, 2_100, 2_100)),
        86 | 102 => Product::Light(light(false, 2_200, 2_200)),
        85 | 101 => Product::Light(light(false, 2_000, 2_000)),
        113 | 114 | 125 | 126 | 131 | 132 => Product::Light(light(false, 1_500, 9_000)),
        191 | 192 | 207 | 208 | 211 | 300 => Product::Light(light(true, 2_700, 6_500)),
        27..=30 | 32 | 36..=38 | 40 | 43..=46 if since((2, 80)) => Product::Light(light(true, 1_500, 9_000)),
        1..=3 | 14 | 15 | 20..=33 | 36..=38 | 40 | 43..=46 | 55 | 56 => {
            Product::Light(light(true, 2_500, 9_000))
        }
        49 | 52 | 53 | 57 | 59 | 62..=65 | 68 | 72 | 90..=94 | 97..=99 | 109..=112 | 117..=124 => {
            Product::Light(light(true, 1_500, 9_000))
        }
        129 | 130 | 135..=138 | 141..=144 | 151..=156 | 161..=182 | 185..=188 | 201..=206 => {
            Product::Light(light(true, 1_500, 9_000))
        }
        213..=225 | 229 | 265..=268 => Product::Light(light(true, 1_500, 9_000)),
        _ => Product::Unknown(light(true, 1_500, 9_000)),
    }
}

fn light(color: bool, min_k: u16, max_k: u16) -> LightCapabilities {
    LightCapabilities {
        brightness: true,
        color_temperature: Some(KelvinRange { min_k, max_k }),
        color: color.then_some(Gamut::SRGB),
        transition: true,
        ..LightCapabilities::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    /// As the published list has them: whether it has colours, and its whites with the firmware.
    #[test]
    fn whites_are_those_of_the_product_and_its_firmware() {
        for (product, firmware, color, min_k, max_k) in [
            (15, None, true, 2_500, 9_000),
            (18, None, false, 2_500, 9_000),
            (11, None, false, 2_700, 6_500),
            (27, None, true, 2_500, 9_000),
            (27, Some((2, 79)), true, 2_500, 9_000),
            (27, Some((2, 80)), true, 1_500, 9_000),
            (32, Some((3, 0)), true, 1_500, 9_000),
            (31, Some((3, 0)), true, 2_500, 9_000),
            (39, Some((2, 80)), false, 1_500, 9_000),
            (50, Some((3, 60)), false, 1_500, 6_500),
            (60, Some((3, 70)), false, 1_500, 9_000),
            (82, None, false, 2_100, 2_100),
            (86, None, false, 2_200, 2_200),
            (207, None, true, 2_700, 6_500),
            (163, None, true, 1_500, 9_000),
        ] {
            let known = lookup(VENDOR_LIFX, product, firmware);
            assert_eq!(known, Product::Light(light(color, min_k, max_k)), "product {product} {firmware:?}");
        }
    }
}
