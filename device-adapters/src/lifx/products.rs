//! What each LIFX product can do.
//!
//! Source: the product numbers and features that LIFX publishes at
//! <https://github.com/LIFX/products>. Kept as ranges of numbers, because most of what was made
//! since 2018 is full colour from 1 500 to 9 000 K.

use crate::model::{Gamut, KelvinRange, LightCapabilities};

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

/// Looks a product up.
pub(crate) fn lookup(vendor: u32, product: u32) -> Product {
    if vendor != VENDOR_LIFX {
        return Product::Unknown(light(true, 1_500, 9_000));
    }
    match product {
        70 | 71 | 84 | 89 | 115 | 116 | 226 => Product::Switch,
        10 | 11 | 18 | 19 => Product::Light(light(false, 2_700, 6_500)),
        12 | 13 | 51 | 54 | 61 | 66 | 87 | 88 | 127 | 128 | 133 | 134 => {
            Product::Light(light(false, 2_700, 2_700))
        }
        39 | 50 | 60 => Product::Light(light(false, 2_500, 9_000)),
        67 | 81 | 96 => Product::Light(light(false, 2_200, 6_500)),
        82 | 86 | 100 | 102 => Product::Light(light(false, 2_200, 2_200)),
        85 | 101 => Product::Light(light(false, 2_000, 2_000)),
        113 | 114 | 125 | 126 | 131 | 132 => Product::Light(light(false, 1_500, 9_000)),
        15 | 191 | 192 | 207 | 208 | 211 | 300 => Product::Light(light(true, 2_700, 6_500)),
        1..=3 | 14 | 20..=33 | 36..=38 | 40 | 43..=46 | 55 | 56 => Product::Light(light(true, 2_500, 9_000)),
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
