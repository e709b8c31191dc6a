//! Dates and ranges of dates, of one year or of each.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;

use super::RuleError;

/// Most ranges in one list.
pub(super) const MAX_RANGES: usize = 64;

/// A list of dates and ranges, both ends included: `2026-12-24`, `2026-12-01..2026-12-26`, `2026-12-01..`, `..2027-01-06`, and each year
/// `12-24` or `12-01..01-06`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dates(Vec<Range>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// From one date to another; an end that is not told is open.
    Once(Option<Date>, Option<Date>),
    /// Each year from one day to another, over the turn of the year when the second comes first.
    Yearly(DayOfYear, DayOfYear),
}

/// A day of each year. 29 February is in years that have none simply not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct DayOfYear {
    month: i8,
    day: i8,
}

impl Dates {
    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the date is in one of the ranges.
    #[must_use]
    pub fn contain(&self, date: Date) -> bool {
        self.0.iter().any(|range| range.contains(date))
    }
}

impl Range {
    fn contains(self, date: Date) -> bool {
        match self {
            Self::Once(first, last) => {
                first.is_none_or(|first| first <= date) && last.is_none_or(|last| date <= last)
            }
            Self::Yearly(first, last) => {
                let day = DayOfYear { month: date.month(), day: date.day() };
                if first <= last { first <= day && day <= last } else { first <= day || day <= last }
            }
        }
    }
}

impl FromStr for Dates {
    type Err = RuleError;

    /// Ranges with commas between them.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.len() > MAX_RANGES {
            return Err(RuleError::TooManyRanges(parts.len()));
        }
        parts.into_iter().map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Range {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let refused = || RuleError::Dates(text.to_owned());
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let (first, last) = (first.trim(), last.trim());
        if let (Some(first), Some(last)) = (day_of_year(first), day_of_year(last)) {
            return Ok(Self::Yearly(first, last));
        }
        let date = |text: &str| {
            if text.is_empty() { Ok(None) } else { text.parse::<Date>().map(Some).map_err(|_| refused()) }
        };
        match (date(first)?, date(last)?) {
            (None, None) => Err(refused()),
            (Some(first), Some(last)) if last < first => Err(refused()),
            (first, last) => Ok(Self::Once(first, last)),
        }
    }
}

/// `12-24`; 29 February counts as a day of the year.
fn day_of_year(text: &str) -> Option<DayOfYear> {
    let (month, day) = text.split_once('-').filter(|_| text.len() == 5)?;
    let leap_year = Date::new(2024, month.parse().ok()?, day.parse().ok()?).ok()?;
    Some(DayOfYear { month: leap_year.month(), day: leap_year.day() })
}

impl fmt::Display for Dates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, range)| {
            f.write_str(if index == 0 { "" } else { ", " })?;
            range.fmt(f)
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once(Some(first), Some(last)) if first == last => write!(f, "{first}"),
            Self::Once(first, last) => {
                let text = |date: &Option<Date>| date.map_or_else(String::new, |date| date.to_string());
                write!(f, "{}..{}", text(first), text(last))
            }
            Self::Yearly(first, last) if first == last => write!(f, "{first}"),
            Self::Yearly(first, last) => write!(f, "{first}..{last}"),
        }
    }
}

impl fmt::Display for DayOfYear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}-{:02}", self.month, self.day)
    }
}
