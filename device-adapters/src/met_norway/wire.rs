//! Locationforecast 2.0 of MET Norway: JSON to values. Pure.
//!
//! Source: the format, <https://docs.api.met.no/doc/ForecastJSON.html>, the variables,
//! <https://docs.api.met.no/doc/locationforecast/datamodel.html>, and the symbols,
//! <https://api.met.no/weatherapi/weathericon/2.0/documentation>.

use jiff::Timestamp;
use serde::Deserialize;

use crate::model::Condition;
use crate::weather::config::Place;
use crate::weather::{BodyError, LAST_TIME};

/// The most steps that are taken; ten days have 100 at most.
const MOST_STEPS: usize = 400;
/// The longest code of a symbol, in bytes.
const LONGEST_SYMBOL: usize = 64;

/// What is asked of which place, after the address of the service. Not `compact`: that one tells neither the highest and
/// lowest temperatures of the days to come nor the UV index.
pub(super) fn path(place: Place, altitude: Option<i32>) -> String {
    let (latitude, longitude) = (place.latitude(), place.longitude());
    let altitude = altitude.map(|metres| format!("&altitude={metres}")).unwrap_or_default();
    format!("/locationforecast/2.0/complete?lat={latitude}&lon={longitude}{altitude}")
}

/// One step of the series: what holds at a moment, and what is expected of the time that follows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Step {
    /// Seconds since 1970.
    pub(super) at: i64,
    /// What holds then.
    pub(super) now: Details,
    /// What is expected of the hour that follows; only the first two or three days have it.
    pub(super) hour: Option<Span>,
    /// Of the six hours that follow.
    pub(super) six_hours: Option<Span>,
    /// Of the twelve hours that follow; no amounts.
    pub(super) twelve_hours: Option<Span>,
}

/// Values of one moment. Some are not there for every place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Details {
    pub(super) air_temperature: Option<f64>,
    pub(super) dew_point_temperature: Option<f64>,
    pub(super) relative_humidity: Option<f64>,
    pub(super) air_pressure_at_sea_level: Option<f64>,
    pub(super) wind_speed: Option<f64>,
    pub(super) wind_speed_of_gust: Option<f64>,
    pub(super) wind_from_direction: Option<f64>,
    pub(super) cloud_area_fraction: Option<f64>,
    pub(super) ultraviolet_index_clear_sky: Option<f64>,
}

/// Values of some hours.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Span {
    pub(super) condition: Option<Condition>,
    pub(super) precipitation: Option<f64>,
    pub(super) high: Option<f64>,
    pub(super) low: Option<f64>,
}

#[derive(Deserialize)]
struct Body {
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    timeseries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    time: String,
    data: Data,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    instant: Moment,
    next_1_hours: Option<Period>,
    next_6_hours: Option<Period>,
    next_12_hours: Option<Period>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Moment {
    details: Details,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Period {
    summary: Summary,
    details: PeriodDetails,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Summary {
    symbol_code: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PeriodDetails {
    precipitation_amount: Option<f64>,
    air_temperature_max: Option<f64>,
    air_temperature_min: Option<f64>,
}

/// Reads an answer: its steps, the earliest first.
///
/// # Errors
/// [`BodyError`] for what is not documented, or holds no step.
pub(super) fn read(body: &[u8]) -> Result<Vec<Step>, BodyError> {
    let body: Body = serde_json::from_slice(body)?;
    let mut steps: Vec<Step> =
        body.properties.timeseries.iter().take(MOST_STEPS).filter_map(Step::of).collect();
    // It is documented as sorted; whoever counts on that is at the service's mercy.
    steps.sort_by_key(|step| step.at);
    steps.dedup_by_key(|step| step.at);
    if steps.is_empty() {
        return Err(BodyError::Empty("step of a forecast"));
    }
    Ok(steps)
}

impl Step {
    fn of(entry: &Entry) -> Option<Self> {
        let at = entry.time.parse::<Timestamp>().ok()?.as_second();
        let data = &entry.data;
        (0..=LAST_TIME).contains(&at).then(|| Self {
            at,
            now: data.instant.details,
            hour: data.next_1_hours.as_ref().map(Span::of),
            six_hours: data.next_6_hours.as_ref().map(Span::of),
            twelve_hours: data.next_12_hours.as_ref().map(Span::of),
        })
    }
}

impl Span {
    fn of(period: &Period) -> Self {
        Self {
            condition: period.summary.symbol_code.as_deref().and_then(condition),
            precipitation: period.details.precipitation_amount,
            high: period.details.air_temperature_max,
            low: period.details.air_temperature_min,
        }
    }
}

/// The word for a symbol: `clearsky_day`, `lightrainshowersandthunder_polartwilight`. The names are made of parts; two of
/// the documented ones have an `s` too many (`lightssleetshowersandthunder`), which the service keeps.
pub(super) fn condition(symbol: &str) -> Option<Condition> {
    if symbol.len() > LONGEST_SYMBOL {
        return None;
    }
    let (name, is_night) = match symbol.rsplit_once('_') {
        Some((name, "night")) => (name, true),
        // A twilight of weeks is the day of a polar winter.
        Some((name, "day" | "polartwilight")) => (name, false),
        Some(_) => return None,
        None => (symbol, false),
    };
    match name {
        "clearsky" if is_night => return Some(Condition::ClearNight),
        "clearsky" => return Some(Condition::Sunny),
        "fair" | "partlycloudy" => return Some(Condition::PartlyCloudy),
        "cloudy" => return Some(Condition::Cloudy),
        "fog" => return Some(Condition::Fog),
        _ => {}
    }
    let (name, thunders) = name.strip_suffix("andthunder").map_or((name, false), |name| (name, true));
    let name = name.strip_suffix("showers").unwrap_or(name);
    let (name, is_heavy) = name.strip_prefix("heavy").map_or((name, false), |name| (name, true));
    let falls = match name {
        "rain" | "lightrain" if is_heavy => Condition::Pouring,
        "rain" | "lightrain" => Condition::Rainy,
        "sleet" | "lightsleet" | "lightssleet" => Condition::SnowyRainy,
        "snow" | "lightsnow" | "lightssnow" => Condition::Snowy,
        _ => return None,
    };
    Some(if thunders { Condition::LightningRainy } else { falls })
}
