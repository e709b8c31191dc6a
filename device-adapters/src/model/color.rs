//! Conversions between the model's units and what hardware and people use. Pure functions.
//!
//! Sources: sRGB primaries, white point and transfer curve from IEC 61966-2-1; the Planckian locus
//! from Kang et al., "Design of advanced color temperature control system for HDTV applications"
//! (2002); hue and saturation as in the LIFX LAN documentation, "Representing Color with HSBK"
//! (<https://lan.developer.lifx.com/docs/representing-color-with-hsbk>).

use super::light::{Gamut, Xy};

/// The largest value of a 16-bit fraction, which stands for 1.0.
const ONE: f64 = 65_535.0;

/// A percentage (0 to 100; more counts as 100) as a `u16` fraction.
#[must_use]
pub fn from_percent(percent: u8) -> u16 {
    let scaled = (u32::from(percent.min(100)) * 65_535 + 50) / 100;
    u16::try_from(scaled).unwrap_or(u16::MAX)
}

/// A `u16` fraction as the nearest percentage, 0 to 100. `to_percent(from_percent(p)) == p`.
#[must_use]
pub fn to_percent(value: u16) -> u8 {
    let scaled = (u32::from(value) * 100 + 32_767) / 65_535;
    u8::try_from(scaled).unwrap_or(100)
}

/// A fraction of 255 as a `u16` fraction, exactly.
#[must_use]
pub fn from_byte(value: u8) -> u16 {
    u16::from(value) * 257
}

/// A `u16` fraction as the nearest fraction of 255. `to_byte(from_byte(b)) == b`.
#[must_use]
pub fn to_byte(value: u16) -> u8 {
    u8::try_from((u32::from(value) + 128) / 257).unwrap_or(u8::MAX)
}

/// Kelvin as mired (a million divided by kelvin, rounded); 0 K counts as the warmest there is.
#[must_use]
pub fn kelvin_to_mired(kelvin: u16) -> u16 {
    reciprocal_million(kelvin)
}

/// Mired as kelvin, rounded. One step of mired is 7 K at 2 700 K and 42 K at 6 500 K, so the way
/// there and back is that exact and no better.
#[must_use]
pub fn mired_to_kelvin(mired: u16) -> u16 {
    reciprocal_million(mired)
}

fn reciprocal_million(value: u16) -> u16 {
    let value = u32::from(value.max(1));
    u16::try_from((1_000_000 + value / 2) / value).unwrap_or(u16::MAX)
}

/// Hue and saturation (65 535 is a full turn and full saturation) as chromaticity.
///
/// Back through [`xy_to_hue_saturation`] the colour is the same within 0.001 of x and y.
#[must_use]
pub fn hue_saturation_to_xy(hue: u16, saturation: u16) -> Xy {
    // LIFX divides the turn into 65 536 steps: hue 65 535 is one step short of red, not red.
    let (r, g, b) = hue_to_rgb(f64::from(hue) / 65_536.0, f64::from(saturation) / ONE);
    chromaticity(r, g, b)
}

/// Chromaticity as hue and saturation (65 535 is a full turn and full saturation).
///
/// Any pair is taken: what lies outside the sRGB triangle, or is no colour at all, becomes a
/// colour on its edge.
#[must_use]
pub fn xy_to_hue_saturation(xy: Xy) -> (u16, u16) {
    let (r, g, b) = brightest(xy);
    let saturation = 1.0 - r.min(g).min(b);
    let hue = rgb_to_hue(r, g, b);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let hue = ((hue * 65_536.0).round() as u32 % 65_536) as u16;
    (hue, to_u16(saturation))
}

/// Red, green and blue (sRGB, 255 is full) as chromaticity; black counts as white.
#[must_use]
pub fn rgb_to_xy(rgb: [u8; 3]) -> Xy {
    let [r, g, b] = if rgb == [0; 3] { [1.0; 3] } else { rgb.map(|c| f64::from(c) / 255.0) };
    chromaticity(r, g, b)
}

/// Chromaticity as red, green and blue (sRGB, 255 is full) at the greatest brightness; what lies outside the sRGB
/// triangle becomes a colour on its edge.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn xy_to_rgb(xy: Xy) -> [u8; 3] {
    let (r, g, b) = brightest(xy);
    [r, g, b].map(|c| (c * 255.0).round() as u8) // `as` saturates
}

/// The white of a black body of that temperature. Below 1 667 K the formula ends: it counts as 1 667 K.
#[must_use]
pub fn kelvin_to_xy(kelvin: u16) -> Xy {
    let t = f64::from(kelvin).max(1_667.0);
    let x = if t <= 4_000.0 {
        -0.266_123_9e9 / t.powi(3) - 0.234_358_9e6 / t.powi(2) + 0.877_695_6e3 / t + 0.179_910
    } else {
        -3.025_846_9e9 / t.powi(3) + 2.107_037_9e6 / t.powi(2) + 0.222_634_7e3 / t + 0.240_390
    };
    let y = if t <= 2_222.0 {
        -1.106_381_4 * x.powi(3) - 1.348_110_20 * x.powi(2) + 2.185_558_32 * x - 0.202_196_83
    } else if t <= 4_000.0 {
        -0.954_947_6 * x.powi(3) - 1.374_185_93 * x.powi(2) + 2.091_370_15 * x - 0.167_488_67
    } else {
        3.081_758_0 * x.powi(3) - 5.873_386_70 * x.powi(2) + 3.751_129_97 * x - 0.370_014_83
    };
    Xy { x: to_u16(x), y: to_u16(y) }
}

/// The colour itself when the gamut holds it, else the nearest point on the gamut's edge.
#[must_use]
pub fn nearest_in_gamut(xy: Xy, gamut: &Gamut) -> Xy {
    let point = |p: Xy| (f64::from(p.x), f64::from(p.y));
    let (p, corners) = (point(xy), [point(gamut.red), point(gamut.green), point(gamut.blue)]);
    let [r, g, b] = corners;
    let edges = [(r, g), (g, b), (b, r)];
    let side = |(a, b): ((f64, f64), (f64, f64))| (b.0 - a.0) * (p.1 - a.1) - (b.1 - a.1) * (p.0 - a.0);
    if edges.iter().all(|e| side(*e) >= 0.0) || edges.iter().all(|e| side(*e) <= 0.0) {
        return xy;
    }
    let distance = |q: &(f64, f64)| (q.0 - p.0).powi(2) + (q.1 - p.1).powi(2);
    let nearest = edges
        .iter()
        .map(|(a, b)| nearest_on_segment(p, *a, *b))
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
        .unwrap_or(p);
    Xy { x: to_u16(nearest.0 / ONE), y: to_u16(nearest.1 / ONE) }
}

/// The chromaticity of red, green and blue, each 0 to 1.
fn chromaticity(r: f64, g: f64, b: f64) -> Xy {
    let (r, g, b) = (to_linear(r), to_linear(g), to_linear(b));
    let x = 0.412_390_8 * r + 0.357_584_3 * g + 0.180_480_8 * b;
    let y = 0.212_639_0 * r + 0.715_168_7 * g + 0.072_192_3 * b;
    let z = 0.019_330_8 * r + 0.119_194_8 * g + 0.950_532_2 * b;
    let sum = x + y + z;
    Xy { x: to_u16(x / sum), y: to_u16(y / sum) }
}

/// Red, green and blue of a chromaticity, of which the largest is 1.
fn brightest(xy: Xy) -> (f64, f64, f64) {
    let x = f64::from(xy.x) / ONE;
    let y = (f64::from(xy.y) / ONE).max(1e-6);
    let (cap_x, cap_z) = (x / y, (1.0 - x - y).max(0.0) / y);
    let r = (3.240_970_0 * cap_x - 1.537_383_2 - 0.498_610_8 * cap_z).max(0.0);
    let g = (-0.969_243_6 * cap_x + 1.875_967_5 + 0.041_555_1 * cap_z).max(0.0);
    let b = (0.055_630_1 * cap_x - 0.203_977_0 + 1.056_971_5 * cap_z).max(0.0);
    let largest = r.max(g).max(b).max(1e-9);
    (to_gamma(r / largest), to_gamma(g / largest), to_gamma(b / largest))
}

fn nearest_on_segment(p: (f64, f64), a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = (dx * dx + dy * dy).max(1e-9);
    let t = (((p.0 - a.0) * dx + (p.1 - a.1) * dy) / length).clamp(0.0, 1.0);
    (a.0 + t * dx, a.1 + t * dy)
}

/// A fraction as a `u16`; a value outside 0 to 1 becomes the nearer end, NaN becomes 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn to_u16(fraction: f64) -> u16 {
    (fraction * ONE).round() as u16 // `as` saturates, and takes NaN as 0
}

fn to_linear(c: f64) -> f64 {
    if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
}

fn to_gamma(c: f64) -> f64 {
    if c <= 0.003_130_8 { c * 12.92 } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 }
}

/// Red, green and blue of a hue (a turn is 1.0) at full value.
fn hue_to_rgb(hue: f64, saturation: f64) -> (f64, f64, f64) {
    let channel = |offset: f64| {
        let k = (offset + hue * 6.0) % 6.0;
        1.0 - saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    (channel(5.0), channel(3.0), channel(1.0))
}

/// The hue (a turn is 1.0, 0 for grey) of a colour.
fn rgb_to_hue(r: f64, g: f64, b: f64) -> f64 {
    let largest = r.max(g).max(b);
    let spread = largest - r.min(g).min(b);
    if spread <= 1e-9 {
        return 0.0;
    }
    let sixths = if largest <= r {
        (g - b) / spread
    } else if largest <= g {
        2.0 + (b - r) / spread
    } else {
        4.0 + (r - g) / spread
    };
    (sixths / 6.0).rem_euclid(1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    /// 0.001 of a coordinate: what the conversions promise there and back.
    const PROMISED: u16 = 66;

    fn near(a: Xy, b: Xy, by: u16) -> bool {
        a.x.abs_diff(b.x) <= by && a.y.abs_diff(b.y) <= by
    }

    proptest! {
        #[test]
        fn hue_and_saturation_come_back_as_the_same_colour(hue: u16, saturation: u16) {
            let xy = hue_saturation_to_xy(hue, saturation);
            let (h, s) = xy_to_hue_saturation(xy);
            prop_assert!(near(hue_saturation_to_xy(h, s), xy, PROMISED), "{xy:?} came back from {h} {s}");
        }

        #[test]
        fn red_green_and_blue_come_back_as_the_same_colour(r: u8, g: u8, b: u8) {
            let xy = rgb_to_xy([r, g, b]);
            // At full brightness: the ratios of a dark colour are coarse, so it is compared with itself made bright.
            let bright = rgb_to_xy(xy_to_rgb(xy));
            prop_assert!(near(bright, xy, 330), "{xy:?} came back as {bright:?}");
        }

        #[test]
        fn any_pair_of_numbers_becomes_a_colour_on_or_in_the_triangle(x: u16, y: u16) {
            let (h, s) = xy_to_hue_saturation(Xy { x, y });
            let shown = hue_saturation_to_xy(h, s);
            let inside = nearest_in_gamut(shown, &Gamut::SRGB);
            prop_assert!(near(shown, inside, PROMISED), "{shown:?} lies outside, nearest {inside:?}");
        }

        #[test]
        fn the_nearest_colour_is_in_the_gamut_and_stays_put(x: u16, y: u16) {
            let nearest = nearest_in_gamut(Xy { x, y }, &Gamut::SRGB);
            prop_assert!(near(nearest_in_gamut(nearest, &Gamut::SRGB), nearest, 2));
        }

        #[test]
        fn mired_comes_back_within_one_step(kelvin in 1_000u16..=10_000) {
            let back = mired_to_kelvin(kelvin_to_mired(kelvin));
            let step = u32::from(kelvin) * u32::from(kelvin) / 1_000_000 + 1;
            prop_assert!(u32::from(back.abs_diff(kelvin)) <= step, "{kelvin} K came back as {back} K");
        }
    }

    #[test]
    fn percent_and_bytes_come_back_exactly() {
        assert!((0..=100).all(|p| to_percent(from_percent(p)) == p));
        assert!((0..=255).all(|b| to_byte(from_byte(b)) == b));
        assert_eq!((from_percent(0), from_percent(50), from_percent(100)), (0, 32_768, 65_535));
        assert_eq!((to_percent(1), to_percent(u16::MAX), from_percent(255)), (0, 100, 65_535));
    }

    #[test]
    fn primaries_and_white_are_where_the_standard_puts_them() {
        let third = 21_845;
        assert!(near(hue_saturation_to_xy(0, u16::MAX), Gamut::SRGB.red, PROMISED));
        assert!(near(hue_saturation_to_xy(third, u16::MAX), Gamut::SRGB.green, PROMISED));
        assert!(near(hue_saturation_to_xy(third * 2, u16::MAX), Gamut::SRGB.blue, PROMISED));
        let d65 = Xy { x: 20_493, y: 21_561 }; // 0.3127, 0.3290
        assert!(near(hue_saturation_to_xy(12_345, 0), d65, PROMISED));
    }

    #[test]
    fn whites_are_where_tables_of_the_black_body_put_them() {
        // CIE 15 Planckian radiator: 2 856 K is (0.4476, 0.4074), 6 504 K is (0.3135, 0.3237).
        assert!(near(kelvin_to_xy(2_856), Xy { x: 29_333, y: 26_699 }, 132));
        assert!(near(kelvin_to_xy(6_504), Xy { x: 20_545, y: 21_214 }, 132));
        assert_eq!(kelvin_to_xy(0), kelvin_to_xy(1_667));
    }
}
