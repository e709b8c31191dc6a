//! Patterns of cron, read by the library; which moments they mean is ours.

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::{HORIZON_YEARS, Occurrence, RuleError, civil};

/// A pattern of five fields (minute, hour, day of the month, month, day of the week), or of six with seconds before them.
#[derive(Debug, Clone)]
pub struct Cron {
    /// On the heap: it is twenty times as large as any other rule.
    pattern: Box<croner::Cron>,
    text: String,
}

impl Cron {
    /// The first moment after `after` on a date that `next_allowed` leaves.
    pub(super) fn next(
        &self,
        after: Timestamp,
        zone: &TimeZone,
        next_allowed: impl Fn(Date) -> Option<Date>,
    ) -> Option<Occurrence> {
        if self.pattern.pattern.hours.from_wildcard {
            self.next_shown(after, zone, next_allowed)
        } else {
            self.next_named(after, zone, next_allowed)
        }
    }

    /// Each time that is named, once.
    fn next_named(
        &self,
        after: Timestamp,
        zone: &TimeZone,
        next_allowed: impl Fn(Date) -> Option<Date>,
    ) -> Option<Occurrence> {
        // Times of the clock come to their moments in order, so none that the clock has shown can still come.
        let mut label = zone.to_datetime(after);
        let last = horizon(label)?;
        loop {
            label = self.next_label(label, false, last, &next_allowed)?;
            let occurrence = civil::once(label, zone)?;
            if occurrence.at > after {
                return Some(occurrence);
            }
        }
    }

    /// Each time as often as the clock shows it.
    fn next_shown(
        &self,
        after: Timestamp,
        zone: &TimeZone,
        next_allowed: impl Fn(Date) -> Option<Date>,
    ) -> Option<Occurrence> {
        let (mut from, mut from_itself) = (after, false);
        let last = horizon(zone.to_datetime(after))?;
        loop {
            // Until the clock jumps it runs evenly.
            let offset = zone.to_offset(from);
            let label = self.next_label(offset.to_datetime(from), from_itself, last, &next_allowed)?;
            let at = offset.to_timestamp(label).ok()?;
            let jump = zone.following(from).next().map(|jump| jump.timestamp());
            match jump.filter(|jump| at >= *jump) {
                Some(jump) => (from, from_itself) = (jump, true),
                None => return Some(Occurrence { at, why: civil::shown(at, label, zone) }),
            }
        }
    }

    /// The next time from `label` on that fits the pattern and the dates; not `label` itself unless that is asked.
    fn next_label(
        &self,
        label: DateTime,
        itself: bool,
        last: DateTime,
        next_allowed: impl Fn(Date) -> Option<Date>,
    ) -> Option<DateTime> {
        let mut found = self.pattern.find_next_occurrence(&label, itself).ok()?;
        while found <= last {
            let allowed = next_allowed(found.date())?;
            if allowed == found.date() {
                return Some(found);
            }
            found = self.pattern.find_next_occurrence(&allowed.to_datetime(Time::midnight()), true).ok()?;
        }
        None
    }
}

/// The last time that is looked at.
fn horizon(label: DateTime) -> Option<DateTime> {
    label.checked_add(HORIZON_YEARS.years()).ok()
}

impl FromStr for Cron {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let pattern = parser
            .parse(text)
            .map_err(|reason| RuleError::Cron { pattern: text.to_owned(), reason: reason.to_string() })?;
        Ok(Self { pattern: Box::new(pattern), text: text.split_whitespace().collect::<Vec<_>>().join(" ") })
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
