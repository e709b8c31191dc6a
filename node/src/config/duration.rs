//! Lengths of time as people write them: `500ms`, `15m`, `1h30m`.

use std::time::Duration;

use thiserror::Error;

/// The longest duration that is accepted: 366 days.
pub const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    /// There is nothing.
    #[error("a duration is missing; write a number and a unit, such as 500ms, 15m or 1h30m")]
    Empty,
    /// A number has no unit.
    #[error("`{0}` has no unit; write ms, s, m, h or d behind the number, such as {0}s")]
    NoUnit(String),
    /// A unit that is not known.
    #[error("`{0}` is not a unit of time; the units are ms, s, m, h and d")]
    UnknownUnit(String),
    /// No number where one must be.
    #[error("`{0}` is not a number; write whole numbers with a unit, such as 1500ms or 1h30m")]
    NotANumber(String),
    /// Longer than [`MAX_DURATION`].
    #[error("`{0}` is longer than 366 days, the longest duration; write a shorter one")]
    TooLong(String),
}

/// Parses whole numbers with the units `ms`, `s`, `m` (minutes), `h` and `d` (24 hours), one
/// behind the other: `1h30m`. At most [`MAX_DURATION`].
///
/// # Errors
/// [`DurationError`] names the part that is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    let too_long = || DurationError::TooLong(clip(text));
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (digits, after) = split_where(rest, |c| !c.is_ascii_digit());
        if digits.is_empty() {
            return Err(DurationError::NotANumber(clip(rest)));
        }
        let (unit, after) = split_where(after, |c| !c.is_ascii_alphabetic());
        if unit.is_empty() && !after.is_empty() {
            return Err(DurationError::NotANumber(clip(rest)));
        }
        let number: u64 = digits.parse().map_err(|_| too_long())?;
        let milliseconds = number.checked_mul(unit_ms(digits, unit)?).ok_or_else(too_long)?;
        total = total.checked_add(Duration::from_millis(milliseconds)).ok_or_else(too_long)?;
        rest = after;
    }
    if total > MAX_DURATION { Err(too_long()) } else { Ok(total) }
}

/// The duration as [`parse_duration`] reads it, with the largest units first.
pub fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (name, size) in UNITS {
        let count = left / size;
        left %= size;
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    text
}

/// Units with their length in milliseconds, longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

fn unit_ms(digits: &str, unit: &str) -> Result<u64, DurationError> {
    if unit.is_empty() {
        return Err(DurationError::NoUnit(clip(digits)));
    }
    let found = UNITS.iter().find(|(name, _)| *name == unit);
    found.map(|(_, size)| *size).ok_or_else(|| DurationError::UnknownUnit(clip(unit)))
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_add_up() {
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("15m").unwrap(), Duration::from_secs(900));
        assert_eq!(parse_duration(" 1h30m ").unwrap(), Duration::from_secs(5_400));
        assert_eq!(parse_duration("0s").unwrap(), Duration::ZERO);
        assert_eq!(parse_duration("366d").unwrap(), MAX_DURATION);
    }

    #[test]
    fn each_mistake_has_its_name() {
        let clipped = "9".repeat(40);
        for (text, error) in [
            ("", DurationError::Empty),
            ("15", DurationError::NoUnit("15".into())),
            ("15min", DurationError::UnknownUnit("min".into())),
            ("m", DurationError::NotANumber("m".into())),
            ("-5s", DurationError::NotANumber("-5s".into())),
            ("1.5s", DurationError::NotANumber("1.5s".into())),
            ("1h 30m", DurationError::NotANumber(" 30m".into())),
            ("367d", DurationError::TooLong("367d".into())),
            (&"9".repeat(80), DurationError::NoUnit(clipped)),
            ("99999999999999999999s", DurationError::TooLong("99999999999999999999s".into())),
        ] {
            let got = parse_duration(text).unwrap_err();
            if text.len() < 80 {
                assert_eq!(got, error, "{text}");
            } else {
                assert!(got.to_string().len() < 200);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(ms in 0u64..31_622_400_000) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(duration)).unwrap(), duration);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}
