//! When something happens: cron, the sun, one moment; between dates and except on dates. Pure.
//!
//! [`Rule::next`] answers with the next occurrence after a moment, in the time zone and at the place of the home. One rule
//! holds for every form where a clock jumps (docs/time.md):
//!
//! - A time of day that a rule **names** comes once a day, whatever the clock does: one that is skipped comes when the
//!   clock jumps over it, one that is shown twice comes the first time.
//! - An hour that a rule **leaves open** (`*` and `*/2` of cron) comes as the clock shows it: not when it is skipped, twice when
//!   it is shown twice.
//!
//! Two names of one moment are one occurrence.

mod civil;
mod cron;
mod dates;
mod daylight;
mod sun;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, civil::DateTime};
use thiserror::Error;

pub use dates::Dates;
pub use daylight::{Turn, sun_is};
pub use sun::{Place, SunEvent};

use cron::Cron;

/// Longest text of a rule, in bytes.
pub const MAX_TEXT: usize = 256;
/// Farthest from the sun's event that a rule may be.
const MAX_OFFSET: SignedDuration = SignedDuration::from_hours(12);
/// How far ahead an occurrence is looked for, in years: 29 February on one day of the week comes every 28 years, and every 40 over the
/// turn of a century.
const HORIZON_YEARS: i16 = 41;

/// What a home is to time.
#[derive(Debug, Clone)]
pub struct Home {
    /// Its time zone.
    pub zone: TimeZone,
    /// Where it is, if somebody said so: the sun needs it.
    pub place: Option<Place>,
}

/// A time zone by its name in the IANA database, as this version of Hearth knows it: boards whose systems have data of different
/// years would name different moments.
///
/// # Errors
/// [`RuleError::Zone`].
pub fn zone(name: &str) -> Result<TimeZone, RuleError> {
    TimeZoneDatabase::bundled().get(name).map_err(|_| RuleError::Zone(name.chars().take(64).collect()))
}

/// When something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The moments of a day or of a life.
    pub when: When,
    /// Only on these dates; on all when empty.
    pub only: Dates,
    /// Not on these.
    pub except: Dates,
}

/// The moments that a rule names. In text: `cron 30 7 * * mon-fri`, `sunset - 30m`, `at 2026-12-24 17:00`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// A pattern of cron, seconds optional.
    Cron(Cron),
    /// An event of the sun, and how long after it (before it, when negative).
    Sun(SunEvent, SignedDuration),
    /// Once, by the clock of the home.
    Local(DateTime),
    /// Once, at a moment.
    Instant(Timestamp),
}

/// One time that something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// The moment, whole seconds.
    pub at: Timestamp,
    /// Why then.
    pub why: Why,
}

/// Why an occurrence is when it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The clock shows the time that the rule names.
    Shown,
    /// The clock skips the time that the rule names.
    Skipped(DateTime),
    /// The clock shows that time twice: this is the first.
    FirstOfTwo,
    /// The clock shows that time twice, and the rule leaves the hour open: this is the second.
    SecondOfTwo,
    /// The sun.
    Sun {
        /// Which event.
        event: SunEvent,
        /// When it is.
        at: Timestamp,
        /// How long after it.
        offset: SignedDuration,
    },
    /// The rule names a moment and no time of day.
    Moment,
}

/// Why a rule is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// It begins with no known word.
    #[error(
        "`{0}` says no time: write `cron 30 7 * * mon-fri`, `sunset - 30m` (sunrise, sunset, dawn, dusk) or \
         `at 2026-12-24 17:00`"
    )]
    Unknown(String),
    /// It is too long.
    #[error("a time of {0} bytes: {MAX_TEXT} are the most")]
    TooLong(usize),
    /// The pattern is none of cron.
    #[error("`{pattern}` is no cron pattern: {reason}")]
    Cron {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The offset from the sun's event.
    #[error("`{0}` is no offset: write `+ 1h 30m` or `- 45m`, 12 hours at most")]
    Offset(String),
    /// The moment.
    #[error(
        "`{0}` is no moment: write `at 2026-12-24 17:00`, or with an offset `at 2026-12-24T17:00:00+01:00`"
    )]
    Moment(String),
    /// A date or a range of dates.
    #[error(
        "`{0}` names no dates: write `2026-12-24`, `2026-12-01..2026-12-26`, or each year `12-01..01-06`"
    )]
    Dates(String),
    /// Too many ranges.
    #[error("{0} ranges of dates: {max} are the most", max = dates::MAX_RANGES)]
    TooManyRanges(usize),
    /// The sun is asked for and nobody knows where the home is.
    #[error("the sun needs the place of the home, and it is not set")]
    NoPlace,
    /// There is no such time zone.
    #[error("there is no time zone `{0}`: write a name of the IANA database, such as Europe/Berlin")]
    Zone(String),
    /// It never comes.
    #[error("it never comes: {0}")]
    Never(String),
}

impl Rule {
    /// A rule that holds on every date.
    #[must_use]
    pub fn daily(when: When) -> Self {
        Self { when, only: Dates::default(), except: Dates::default() }
    }

    /// Whether it names one moment, by whichever clock.
    #[must_use]
    pub fn comes_once(&self) -> bool {
        matches!(self.when, When::Local(_) | When::Instant(_))
    }

    /// The first occurrence after a moment; none if there is no more.
    ///
    /// # Errors
    /// [`RuleError::NoPlace`].
    pub fn next(&self, after: Timestamp, home: &Home) -> Result<Option<Occurrence>, RuleError> {
        match &self.when {
            When::Cron(cron) => Ok(cron.next(after, &home.zone, |date| self.next_allowed(date))),
            When::Sun(event, offset) => {
                let place = home.place.ok_or(RuleError::NoPlace)?;
                Ok(sun::next(*event, *offset, after, place, &home.zone, |date| self.next_allowed(date)))
            }
            When::Local(label) => {
                let moment = civil::once(*label, &home.zone);
                Ok(moment.filter(|moment| moment.at > after && self.allows(label.date())))
            }
            When::Instant(at) => {
                let date = home.zone.to_datetime(*at).date();
                let due =
                    (*at > after && self.allows(date)).then_some(Occurrence { at: *at, why: Why::Moment });
                Ok(due)
            }
        }
    }

    /// The last occurrence in `(after, until]`; none if there is none. However often it comes, it is asked for some thirty times.
    ///
    /// # Errors
    /// [`RuleError::NoPlace`].
    pub fn last(
        &self,
        after: Timestamp,
        until: Timestamp,
        home: &Home,
    ) -> Result<Option<Occurrence>, RuleError> {
        let next = |at| Ok(self.next(at, home)?.filter(|next| next.at <= until));
        let Some(mut last) = next(after)? else { return Ok(None) };
        // None comes after `end`; whether one comes between `last` and it is halved down to nothing.
        let mut end = until;
        while end.as_second() > last.at.as_second() {
            let middle = (last.at.as_second() + end.as_second()) / 2;
            let middle = Timestamp::from_second(middle).unwrap_or(last.at);
            match next(middle)? {
                Some(later) => last = later,
                None => end = middle,
            }
        }
        Ok(Some(last))
    }

    /// Whether it comes at all after a moment.
    ///
    /// # Errors
    /// [`RuleError::Never`] with the reason, [`RuleError::NoPlace`].
    pub fn check(&self, after: Timestamp, home: &Home) -> Result<(), RuleError> {
        if self.next(after, home)?.is_some() {
            return Ok(());
        }
        let reason = match &self.when {
            When::Cron(_) => {
                format!("no date of the next {HORIZON_YEARS} years fits the pattern and the dates")
            }
            When::Sun(event, _) => format!("there is no {event} at the home on these dates"),
            When::Local(_) | When::Instant(_) => {
                "the moment has passed, or is on a date that is left out".to_owned()
            }
        };
        Err(RuleError::Never(reason))
    }

    fn allows(&self, date: jiff::civil::Date) -> bool {
        (self.only.is_empty() || self.only.contain(date)) && !self.except.contain(date)
    }

    /// The first date from `date` on that is not left out.
    fn next_allowed(&self, date: jiff::civil::Date) -> Option<jiff::civil::Date> {
        let days = usize::try_from(HORIZON_YEARS).unwrap_or_default() * 366;
        std::iter::successors(Some(date), |date| date.tomorrow().ok())
            .take(days)
            .find(|date| self.allows(*date))
    }
}

impl FromStr for When {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text.len() > MAX_TEXT {
            return Err(RuleError::TooLong(text.len()));
        }
        let text = text.trim();
        let (word, rest) = text.split_at(text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len()));
        let rest = rest.trim();
        match word.to_ascii_lowercase().as_str() {
            "cron" => Ok(Self::Cron(rest.parse()?)),
            "at" => moment(rest),
            word => {
                let event = word.parse().map_err(|()| RuleError::Unknown(text.to_owned()))?;
                Ok(Self::Sun(event, offset(rest)?))
            }
        }
    }
}

fn moment(text: &str) -> Result<When, RuleError> {
    // One with an offset is a moment; one without is a time of the home's clock.
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(When::Instant(whole(at)));
    }
    let local: DateTime = text.parse().map_err(|_| RuleError::Moment(text.to_owned()))?;
    // An annotation such as `[Europe/Berlin]` would be passed over in silence.
    if text.contains('[') {
        return Err(RuleError::Moment(text.to_owned()));
    }
    Ok(When::Local(local.with().subsec_nanosecond(0).build().unwrap_or(local)))
}

fn offset(text: &str) -> Result<SignedDuration, RuleError> {
    if text.is_empty() {
        return Ok(SignedDuration::ZERO);
    }
    let refused = || RuleError::Offset(text.to_owned());
    let (sign, length) = text.split_at_checked(1).ok_or_else(refused)?;
    let length: SignedDuration = length.trim().parse().map_err(|_| refused())?;
    let length = SignedDuration::from_secs(length.as_secs());
    if length.is_negative() || length > MAX_OFFSET {
        return Err(refused());
    }
    match sign {
        "+" => Ok(length),
        "-" => Ok(-length),
        _ => Err(refused()),
    }
}

/// Without its part of a second.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(cron) => write!(f, "cron {cron}"),
            Self::Sun(event, offset) if offset.is_zero() => write!(f, "{event}"),
            Self::Sun(event, offset) => {
                let sign = if offset.is_negative() { '-' } else { '+' };
                write!(f, "{event} {sign} {:#}", offset.abs())
            }
            Self::Local(label) => write!(f, "at {} {}", label.date(), label.time()),
            Self::Instant(at) => write!(f, "at {at}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown => f.write_str("the clock shows the time"),
            Self::Skipped(label) => write!(f, "the clock skips {}: when it jumps", label.time()),
            Self::FirstOfTwo => f.write_str("the clock shows the time twice: the first"),
            Self::SecondOfTwo => {
                f.write_str("the clock shows the time twice, the hour is left open: the second")
            }
            Self::Sun { event, offset, .. } if offset.is_zero() => write!(f, "{event}"),
            Self::Sun { event, at, offset } => {
                let side = if offset.is_negative() { "before" } else { "after" };
                write!(f, "{:#} {side} {event} at {at:.0}", offset.abs())
            }
            Self::Moment => f.write_str("the moment that the rule names"),
        }
    }
}
