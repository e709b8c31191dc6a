//! Colours as MQTT devices write them: red, green and blue of 255, hue in degrees and saturation in percent, and xy as
//! fractions. Pure.

use crate::model::{Xy, color};

/// Of red, green and blue, of which the largest counts as full: how bright it is is told elsewhere.
pub(crate) fn from_rgb(red: f64, green: f64, blue: f64) -> Option<Xy> {
    let channels = [red, green, blue];
    if !channels.iter().all(|channel| (0.0..=255.0).contains(channel)) {
        return None;
    }
    let largest = red.max(green).max(blue).max(1.0);
    let full =
        |channel: f64| rounded(channel / largest * 255.0).and_then(|channel| u8::try_from(channel).ok());
    let [red, green, blue] = channels.map(full);
    Some(color::rgb_to_xy([red?, green?, blue?]))
}

/// Of hue in degrees and saturation in percent.
pub(crate) fn from_hue(hue: f64, saturation: f64) -> Option<Xy> {
    if !(0.0..=360.0).contains(&hue) || !(0.0..=100.0).contains(&saturation) {
        return None;
    }
    let hue = rounded(hue / 360.0 * 65_536.0)? % 65_536;
    let saturation = rounded(saturation / 100.0 * 65_535.0)?;
    Some(color::hue_saturation_to_xy(u16::try_from(hue).ok()?, u16::try_from(saturation).ok()?))
}

/// Hue in degrees and saturation in percent.
pub(crate) fn to_hue(xy: Xy) -> (f64, f64) {
    let (hue, saturation) = color::xy_to_hue_saturation(xy);
    (f64::from(hue) / 65_536.0 * 360.0, f64::from(saturation) / 65_535.0 * 100.0)
}

/// Of the two coordinates as fractions.
pub(crate) fn from_fractions(x: f64, y: f64) -> Option<Xy> {
    let coordinate = |fraction: f64| {
        let is_one = (0.0..=1.0).contains(&fraction);
        rounded(fraction * 65_535.0).filter(|_| is_one).and_then(|value| u16::try_from(value).ok())
    };
    Some(Xy { x: coordinate(x)?, y: coordinate(y)? })
}

/// The two coordinates as fractions, to four digits.
pub(crate) fn to_fractions(xy: Xy) -> (f64, f64) {
    let fraction = |value: u16| (f64::from(value) / 65_535.0 * 10_000.0).round() / 10_000.0;
    (fraction(xy.x), fraction(xy.y))
}

/// A value of a scale as a fraction of 65 535; none outside of the scale.
pub(crate) fn from_scale(value: f64, scale: u32) -> Option<u16> {
    let scale = f64::from(scale.max(1));
    if !(0.0..=scale * 1.01).contains(&value) {
        return None;
    }
    rounded((value / scale).min(1.0) * 65_535.0).and_then(|value| u16::try_from(value).ok())
}

/// A fraction of 65 535 as the nearest value of a scale; at least 1, for 0 would mean off.
pub(crate) fn to_scale(value: u16, scale: u32) -> u32 {
    let scaled = (u64::from(value) * u64::from(scale) + 32_767) / 65_535;
    u32::try_from(scaled).unwrap_or(scale).max(1)
}

fn rounded(number: f64) -> Option<u32> {
    if !(0.0..=4_000_000_000.0).contains(&number) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    let whole = number.round() as u32;
    Some(whole)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::model::Gamut;

    fn near(a: Xy, b: Xy) -> bool {
        a.x.abs_diff(b.x) <= 200 && a.y.abs_diff(b.y) <= 200
    }

    proptest! {
        #[test]
        fn colours_come_back(red: u8, green: u8, blue: u8) {
            let xy = from_rgb(red.into(), green.into(), blue.into()).unwrap();
            let [r, g, b] = color::xy_to_rgb(xy);
            prop_assert!(near(from_rgb(r.into(), g.into(), b.into()).unwrap(), xy));
            let (hue, saturation) = to_hue(xy);
            prop_assert!(near(from_hue(hue, saturation).unwrap(), xy));
            let (x, y) = to_fractions(xy);
            prop_assert!(near(from_fractions(x, y).unwrap(), xy));
        }

        #[test]
        fn brightness_comes_back_within_a_step(value in 300u16.., scale in 100u32..=65_535) {
            let back = from_scale(f64::from(to_scale(value, scale)), scale).unwrap();
            prop_assert!(u32::from(back.abs_diff(value)) <= 65_535 / scale + 1);
        }

        #[test]
        fn any_number_is_taken_or_refused(a: f64, b: f64, c: f64, scale: u32) {
            let _ = (from_rgb(a, b, c), from_hue(a, b), from_fractions(a, b), from_scale(a, scale));
        }
    }

    #[test]
    fn the_corners_are_where_they_belong() {
        assert!(near(from_rgb(255.0, 0.0, 0.0).unwrap(), Gamut::SRGB.red));
        assert!(near(from_rgb(0.0, 12.0, 0.0).unwrap(), Gamut::SRGB.green));
        assert!(near(from_hue(240.0, 100.0).unwrap(), Gamut::SRGB.blue));
        assert_eq!(color::xy_to_rgb(Gamut::SRGB.blue), [0, 0, 255]);
        assert_eq!(
            (from_scale(254.0, 254), to_scale(0, 255), to_scale(u16::MAX, 255)),
            (Some(u16::MAX), 1, 255)
        );
        assert_eq!(from_rgb(f64::NAN, 0.0, 0.0), None);
    }
}
