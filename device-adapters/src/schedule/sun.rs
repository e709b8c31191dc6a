//! The sun at a place: when it rises and sets, and when it is light enough to see. The library knows the sun; here is what
//! makes every node of a home name the same second.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use solar_positioning::{Horizon, Location, SolarEvents, delta_t};

use super::{Occurrence, Why};

/// Most days on which the sun is looked at for one answer: three years, for at a pole it rises once a year.
const MOST_DAYS: usize = 3 * 366;
const DAY_S: i64 = 86_400;
/// Midnight of 1 January 1970 as a Julian date.
const EPOCH: f64 = 2_440_587.5;

/// Where a home is, in degrees: north and east are positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    latitude: f64,
    longitude: f64,
}

impl Place {
    /// A place on Earth: latitude within 90 degrees, longitude within 180.
    #[must_use]
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let is_on_earth = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        is_on_earth.then_some(Self { latitude, longitude })
    }

    /// In degrees, north positive.
    #[must_use]
    pub fn latitude(&self) -> f64 {
        self.latitude
    }

    /// In degrees, east positive.
    #[must_use]
    pub fn longitude(&self) -> f64 {
        self.longitude
    }
}

/// What the sun does once a day nearly everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SunEvent {
    /// Its upper edge appears: the centre is 0.83 degrees below the horizon.
    Sunrise,
    /// Its upper edge vanishes.
    Sunset,
    /// Civil twilight begins: the centre is 6 degrees below the horizon.
    Dawn,
    /// Civil twilight ends.
    Dusk,
}

impl SunEvent {
    fn horizon(self) -> Horizon {
        match self {
            Self::Sunrise | Self::Sunset => Horizon::SunriseSunset,
            Self::Dawn | Self::Dusk => Horizon::CivilTwilight,
        }
    }

    /// When it is on a day since 1970 of universal time: never, once or twice.
    ///
    /// The library's search ends within a millisecond of the event and where depends on where it began, so it begins where
    /// every node begins; and its arithmetic is built from Rust alone, the same on every board.
    fn on_day(self, day: i64, place: Place) -> Vec<Timestamp> {
        #[expect(clippy::cast_precision_loss, reason = "days are far below 2^52")]
        let start = EPOCH + day as f64;
        let mut found = Vec::new();
        let mut from = start;
        while let Some(at) = self.search(from, start + 1.0, place) {
            found.extend(to_timestamp(at));
            from = at;
        }
        found
    }

    fn search(self, from: f64, until: f64, place: Place) -> Option<f64> {
        let sun = SolarEvents::grena3();
        let location = Location { latitude: place.latitude, longitude: place.longitude };
        let year = 1970.0 + (from - EPOCH).floor() / 365.2425;
        let delta_t = delta_t::estimate(year).ok()?;
        let found = match self {
            Self::Sunrise | Self::Dawn => {
                sun.next_rise_from_julian(from, until, location, delta_t, self.horizon())
            }
            Self::Sunset | Self::Dusk => {
                sun.next_set_from_julian(from, until, location, delta_t, self.horizon())
            }
        };
        found.ok().flatten()
    }
}

/// The next whole second: who searches on from there does not find the same event.
fn to_timestamp(julian: f64) -> Option<Timestamp> {
    #[expect(clippy::cast_possible_truncation, reason = "a time within the library's range of years")]
    let seconds = ((julian - EPOCH) * 86_400.0).ceil() as i64;
    Timestamp::from_second(seconds).ok()
}

/// The first event on a date that `next_allowed` leaves that is `offset` before a moment after `after`.
pub(super) fn next(
    event: SunEvent,
    offset: SignedDuration,
    after: Timestamp,
    place: Place,
    zone: &TimeZone,
    next_allowed: impl Fn(Date) -> Option<Date>,
) -> Option<Occurrence> {
    let after = after.checked_sub(offset).ok()?;
    let mut day = after.as_second().div_euclid(DAY_S);
    for _ in 0..MOST_DAYS {
        let mut skip_to = day + 1;
        for at in event.on_day(day, place).into_iter().filter(|at| *at > after) {
            let date = zone.to_datetime(at).date();
            let allowed = next_allowed(date)?;
            if allowed == date {
                let why = Why::Sun { event, at, offset };
                return Some(Occurrence { at: at.checked_add(offset).ok()?, why });
            }
            skip_to = skip_to.max(first_day(allowed, zone)?);
        }
        day = skip_to;
    }
    None
}

/// The day of universal time in which a local date begins.
fn first_day(date: Date, zone: &TimeZone) -> Option<i64> {
    let start = zone.to_ambiguous_timestamp(date.to_datetime(Time::midnight())).compatible().ok()?;
    Some(start.as_second().div_euclid(DAY_S))
}

impl FromStr for SunEvent {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "sunrise" => Ok(Self::Sunrise),
            "sunset" => Ok(Self::Sunset),
            "dawn" => Ok(Self::Dawn),
            "dusk" => Ok(Self::Dusk),
            _ => Err(()),
        }
    }
}

impl fmt::Display for SunEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sunrise => "sunrise",
            Self::Sunset => "sunset",
            Self::Dawn => "dawn",
            Self::Dusk => "dusk",
        })
    }
}
