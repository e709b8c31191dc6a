//! Colours as people write them: CSS names and `#rrggbb`, turned into chromaticity.
//!
//! Only the hue and saturation of a colour count; how bright the light is, is its brightness.

use super::ports::Color;

/// The sixteen basic colours of CSS (CSS Color Level 4, section 6.1) and a few that people ask
/// lights for, by the values that the same page gives them.
const NAMES: &[(&str, u32)] = &[
    ("silver", 0xc0c0c0),
    ("gray", 0x808080),
    ("white", 0xffffff),
    ("maroon", 0x800000),
    ("red", 0xff0000),
    ("purple", 0x800080),
    ("fuchsia", 0xff00ff),
    ("green", 0x008000),
    ("lime", 0x00ff00),
    ("olive", 0x808000),
    ("yellow", 0xffff00),
    ("navy", 0x000080),
    ("blue", 0x0000ff),
    ("teal", 0x008080),
    ("aqua", 0x00ffff),
    ("black", 0x000000),
    ("cyan", 0x00ffff),
    ("magenta", 0xff00ff),
    ("orange", 0xffa500),
    ("gold", 0xffd700),
    ("pink", 0xffc0cb),
    ("hotpink", 0xff69b4),
    ("violet", 0xee82ee),
    ("indigo", 0x4b0082),
    ("turquoise", 0x40e0d0),
    ("coral", 0xff7f50),
    ("salmon", 0xfa8072),
    ("lavender", 0xe6e6fa),
    ("crimson", 0xdc143c),
    ("skyblue", 0x87ceeb),
];

/// The colour of a name or of `#rrggbb`.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(super) fn parse(text: &str) -> Result<Color, String> {
    let lower = text.trim().to_ascii_lowercase();
    let named = NAMES.iter().find(|(name, _)| *name == lower).map(|(_, rgb)| *rgb);
    let hex = lower.strip_prefix('#').filter(|h| h.len() == 6 && h.bytes().all(|b| b.is_ascii_hexdigit()));
    let rgb = named.or_else(|| u32::from_str_radix(hex?, 16).ok());
    let Some(rgb) = rgb else {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(24).collect();
        return Err(format!("`{shown}` is neither a colour name that is known here nor #rrggbb"));
    };
    let [_, r, g, b] = rgb.to_be_bytes();
    from_srgb(r, g, b).ok_or_else(|| "black is no colour of light: switch the light off instead".to_owned())
}

/// The names that [`parse`] knows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name).filter(|name| *name != "black")
}

/// Coordinates between 0 and 1 as a colour.
///
/// # Errors
/// The rule that they break, as a sentence.
pub(super) fn from_xy(x: f64, y: f64) -> Result<Color, String> {
    let fits = (0.0..=1.0).contains(&x) && y > 0.0 && y <= 1.0 && x + y <= 1.0;
    if fits {
        Ok(Color::Xy(scale(x), scale(y)))
    } else {
        Err("x and y are CIE 1931 coordinates: x from 0, y above 0, x + y at most 1".to_owned())
    }
}

/// IEC 61966-2-1: transfer curve, then primaries with the white point D65, then x and y.
fn from_srgb(r: u8, g: u8, b: u8) -> Option<Color> {
    let (r, g, b) = (linear(r), linear(g), linear(b));
    let x = 0.412_390_8 * r + 0.357_584_3 * g + 0.180_480_8 * b;
    let y = 0.212_639_0 * r + 0.715_168_7 * g + 0.072_192_3 * b;
    let z = 0.019_330_8 * r + 0.119_194_8 * g + 0.950_532_2 * b;
    let sum = x + y + z;
    (sum > 0.0).then(|| Color::Xy(scale(x / sum), scale(y / sum)))
}

fn linear(channel: u8) -> f64 {
    let value = f64::from(channel) / 255.0;
    if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

/// A fraction as parts of 65 535. The cast saturates, and no coordinate is outside 0 to 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn scale(fraction: f64) -> u16 {
    (fraction * 65_535.0).round() as u16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn names_and_hex_agree_and_brightness_does_not_count() {
        assert_eq!(parse("red"), parse("#FF0000"));
        assert_eq!(parse("maroon"), parse("red"));
        assert_eq!(parse("Green"), parse("lime"));
        for name in names() {
            assert!(parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn primaries_and_white_are_where_the_standard_puts_them() {
        let near = |text: &str, x: f64, y: f64| {
            let Color::Xy(a, b) = parse(text).unwrap() else { panic!("not xy") };
            assert!(a.abs_diff(scale(x)) <= 33 && b.abs_diff(scale(y)) <= 33, "{text}: {a} {b}");
        };
        near("red", 0.64, 0.33);
        near("lime", 0.30, 0.60);
        near("blue", 0.15, 0.06);
        near("white", 0.3127, 0.3290);
        near("gray", 0.3127, 0.3290);
    }

    #[test]
    fn what_is_no_colour_is_named() {
        for bad in ["", "#12345", "#12345g", "reddish", "#+12345", "ff0000"] {
            assert!(parse(bad).unwrap_err().contains("neither"), "{bad}");
        }
        assert!(parse("black").unwrap_err().contains("off"));
        for (x, y) in [(0.5, 0.6), (-0.1, 0.3), (0.3, 0.0), (f64::NAN, 0.3), (0.1, f64::INFINITY)] {
            assert!(from_xy(x, y).is_err(), "{x} {y}");
        }
        assert_eq!(from_xy(0.5, 0.5), Ok(Color::Xy(32768, 32768)));
    }
}
