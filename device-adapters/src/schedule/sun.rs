//! The sun at a place: when it rises and sets, and when it is light enough to see. The library knows the sun; here is what
//! makes every node of a home name the same second.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use solar_positioning::{Horizon, Location, SolarEvents, SolarPositions, delta_t, time::JulianDate};

use super::{Occurrence, Why};

/// Most days on which the sun is looked at for one answer: three years, for at a pole it rises once a year.
const MOST_DAYS: usize = 3 * 366;
const DAY_S: i64 = 86_400;
const HALF_DAY: SignedDuration = SignedDuration::from_hours(12);
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

    fn location(&self) -> Location {
        Location { latitude: self.latitude, longitude: self.longitude }
    }

    /// The day by the mean sun at this place that a moment lies in, counted from 1970.
    pub(super) fn solar_day(&self, at: Timestamp) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "half a day at most")]
        let ahead = (self.longitude * 240.0) as i64;
        (at.as_second() + ahead).div_euclid(DAY_S)
    }

    /// When the sun is in the south (in the north, on the other half of the earth) on such a day.
    fn noon(&self, day: i64) -> Option<Timestamp> {
        let begin = julian(day) - self.longitude / 360.0;
        let sun = SolarEvents::grena3();
        let noon = sun.next_transit_from_julian(begin, begin + 1.0, self.longitude, delta_t(begin)?);
        to_timestamp(noon.ok().flatten()?)
    }

    /// How high the centre of the sun is, in degrees.
    fn elevation(&self, at: Timestamp) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "seconds are far below 2^52")]
        let at = EPOCH + at.as_second() as f64 / 86_400.0;
        let time = JulianDate::new(at, delta_t(at)?).ok()?;
        let position = SolarPositions::grena3().at_from_julian(time, self.location(), 0.0, None);
        position.ok().map(|position| position.elevation_angle())
    }
}

/// What the sun does once a day nearly everywhere, in the order of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SunEvent {
    /// Civil twilight begins: the centre is 6 degrees below the horizon.
    Dawn,
    /// Its upper edge appears: the centre is 0.83 degrees below the horizon.
    Sunrise,
    /// Its upper edge vanishes.
    Sunset,
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
        let start = julian(day);
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
        let (location, delta_t) = (place.location(), delta_t(from)?);
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

    /// When it is from one moment up to another.
    pub(super) fn between(
        self,
        from: Timestamp,
        until: Timestamp,
        place: Place,
    ) -> impl Iterator<Item = Timestamp> {
        let [first, last] = [from, until].map(|at| at.as_second().div_euclid(DAY_S));
        (first..=last)
            .flat_map(move |day| self.on_day(day, place))
            .filter(move |at| (from..=until).contains(at))
    }

    /// When it is on a solar day. Where the sun stays below its horizon that is when it is highest, where it stays above, when it
    /// is lowest: at the beginning of the day, or for what it does after noon at the end. None outside the library's years.
    pub(super) fn of_solar_day(self, day: i64, place: Place) -> Option<Timestamp> {
        let noon = place.noon(day)?;
        let midnight = |day| place.noon(day)?.checked_add(HALF_DAY).ok();
        let night = midnight(if self.is_before_noon() { day - 1 } else { day })?;
        match self.between(noon.min(night), noon.max(night), place).next() {
            Some(at) => Some(at),
            None if place.elevation(noon)? > self.horizon().elevation_angle() => Some(night),
            None => Some(noon),
        }
    }

    /// Whether the sun stands as it does after the event.
    pub(super) fn is_over(self, at: Timestamp, place: Place) -> bool {
        let is_up = place.elevation(at).map(|degrees| degrees > self.horizon().elevation_angle());
        is_up == Some(self.is_before_noon())
    }

    fn is_before_noon(self) -> bool {
        matches!(self, Self::Dawn | Self::Sunrise)
    }
}

/// The midnight of universal time at which a day since 1970 begins, as a Julian date.
fn julian(day: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "days are far below 2^52")]
    let day = day as f64;
    EPOCH + day
}

/// By how many seconds the earth is behind the clocks that its orbit is computed by.
fn delta_t(julian: f64) -> Option<f64> {
    delta_t::estimate(1970.0 + (julian - EPOCH).floor() / 365.2425).ok()
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
