//! The Forecast API of Open-Meteo: JSON to values. Pure.
//!
//! Source: the documentation of the API, <https://open-meteo.com/en/docs>, and its OpenAPI description,
//! <https://github.com/open-meteo/open-meteo/blob/main/openapi/forecast.yml>.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use serde::Deserialize;

use crate::model::{Condition, Day, Forecast, Hour, Measurement, weather::MOST_DAYS, weather::MOST_HOURS};
use crate::weather::config::Place;
use crate::weather::{BodyError, CONDITION, LAST_TIME, View};

/// The sensors that [`view`] fills.
pub(super) const SENSORS: [&str; 10] = [
    "temperature",
    "apparent_temperature",
    "humidity",
    "pressure",
    "wind_speed",
    "wind_gust",
    "wind_bearing",
    "cloud_cover",
    "precipitation",
    "uv_index",
];

const HOUR: i64 = 60 * 60;
const HALF_A_DAY: i64 = 12 * HOUR;
/// What is asked of the present moment, and of each hour: when the answer is old, what was expected of the hour is now.
const OF_A_MOMENT: &str = "temperature_2m,apparent_temperature,relative_humidity_2m,pressure_msl,wind_speed_10m,\
                           wind_gusts_10m,wind_direction_10m,cloud_cover,uv_index,weather_code,is_day";

/// What is asked of which place, after the path. The numbers come in our units; times are seconds since 1970.
pub(super) fn query(place: Place) -> String {
    let (latitude, longitude) = (place.latitude(), place.longitude());
    // One hour more than is told, for precipitation is that of the hour before.
    let hours = MOST_HOURS + 1;
    format!(
        "latitude={latitude}&longitude={longitude}\
         &current={OF_A_MOMENT}&hourly=precipitation,{OF_A_MOMENT}\
         &daily=weather_code,temperature_2m_max,temperature_2m_min,precipitation_sum,wind_speed_10m_max\
         &wind_speed_unit=ms&timeformat=unixtime&timezone=auto&forecast_hours={hours}&forecast_days={MOST_DAYS}"
    )
}

/// An answer. What is left out, or null where a model has no value, is none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    /// How far the place is ahead of UTC at present, in seconds.
    utc_offset_seconds: i32,
    /// Its time zone, by the IANA name.
    timezone: String,
    current: Moment,
    hourly: Hourly,
    daily: Daily,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Moment {
    /// When.
    time: i64,
    temperature_2m: Option<f64>,
    apparent_temperature: Option<f64>,
    relative_humidity_2m: Option<f64>,
    pressure_msl: Option<f64>,
    wind_speed_10m: Option<f64>,
    wind_gusts_10m: Option<f64>,
    wind_direction_10m: Option<f64>,
    cloud_cover: Option<f64>,
    uv_index: Option<f64>,
    weather_code: Option<f64>,
    is_day: Option<f64>,
}

/// Each list has as many values as `time`; what is missing at the end of one is none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Hourly {
    time: Vec<i64>,
    /// Of the hour before.
    precipitation: Vec<Option<f64>>,
    temperature_2m: Vec<Option<f64>>,
    apparent_temperature: Vec<Option<f64>>,
    relative_humidity_2m: Vec<Option<f64>>,
    pressure_msl: Vec<Option<f64>>,
    wind_speed_10m: Vec<Option<f64>>,
    wind_gusts_10m: Vec<Option<f64>>,
    wind_direction_10m: Vec<Option<f64>>,
    cloud_cover: Vec<Option<f64>>,
    uv_index: Vec<Option<f64>>,
    weather_code: Vec<Option<f64>>,
    is_day: Vec<Option<f64>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Daily {
    /// Midnight at the place, by the offset from UTC that it has at present.
    time: Vec<i64>,
    weather_code: Vec<Option<f64>>,
    temperature_2m_max: Vec<Option<f64>>,
    temperature_2m_min: Vec<Option<f64>>,
    precipitation_sum: Vec<Option<f64>>,
    wind_speed_10m_max: Vec<Option<f64>>,
}

/// What the service says when it refuses: `{"error": true, "reason": "…"}`.
#[derive(Debug, Deserialize)]
struct Refusal {
    reason: String,
}

/// The reason in the body of a refusal.
pub(super) fn reason(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Refusal>(body).ok().map(|refusal| refusal.reason)
}

/// Reads an answer.
///
/// # Errors
/// [`BodyError`] for what is not documented, or holds neither now nor later.
pub(super) fn read(body: &[u8]) -> Result<Answer, BodyError> {
    let answer: Answer = serde_json::from_slice(body)?;
    let nothing = Moment { time: answer.current.time, ..Moment::default() };
    if answer.current == nothing && answer.hourly.time.is_empty() {
        return Err(BodyError::Empty("weather, neither of now nor of the hours to come"));
    }
    Ok(answer)
}

/// What an answer says at a moment.
pub(super) fn view(answer: &Answer, now: i64) -> View {
    let Answer { current, hourly, daily, .. } = answer;
    let mut view = View {
        forecast: Forecast { hourly: hourly.not_over(now), daily: daily.not_over(now, &zone(answer)) },
        ..View::default()
    };
    let of_hour = hourly.time.iter().position(|at| holds_at(*at, now)).map(|index| hourly.moment(index));
    let moment = if holds_at(current.time, now) { current.clone() } else { of_hour.unwrap_or_default() };
    view.number("temperature", moment.temperature_2m);
    view.number("apparent_temperature", moment.apparent_temperature);
    view.number("humidity", moment.relative_humidity_2m);
    view.number("pressure", moment.pressure_msl);
    view.number("wind_speed", moment.wind_speed_10m);
    view.number("wind_gust", moment.wind_gusts_10m);
    view.number("wind_bearing", moment.wind_direction_10m);
    view.number("cloud_cover", moment.cloud_cover);
    view.number("uv_index", moment.uv_index);
    view.number(
        "precipitation",
        view.forecast.hourly.first().filter(|hour| hour.at <= now).and_then(|hour| hour.precipitation),
    );
    if let Some(condition) = moment.condition() {
        view.values.insert(CONDITION, Measurement::Text(condition.word().to_owned()));
    }
    view
}

/// The time zone of the place; of one that this system does not know, the offset from UTC at present.
pub(super) fn zone(answer: &Answer) -> TimeZone {
    TimeZone::get(&answer.timezone).unwrap_or_else(|_| {
        Offset::from_seconds(answer.utc_offset_seconds).map_or(TimeZone::UTC, TimeZone::fixed)
    })
}

impl Moment {
    fn condition(&self) -> Option<Condition> {
        condition(self.weather_code, is_day(self.is_day))
    }
}

impl Hourly {
    /// What is expected at the beginning of an hour.
    fn moment(&self, index: usize) -> Moment {
        Moment {
            time: self.time.get(index).copied().unwrap_or_default(),
            temperature_2m: value(&self.temperature_2m, index),
            apparent_temperature: value(&self.apparent_temperature, index),
            relative_humidity_2m: value(&self.relative_humidity_2m, index),
            pressure_msl: value(&self.pressure_msl, index),
            wind_speed_10m: value(&self.wind_speed_10m, index),
            wind_gusts_10m: value(&self.wind_gusts_10m, index),
            wind_direction_10m: value(&self.wind_direction_10m, index),
            cloud_cover: value(&self.cloud_cover, index),
            uv_index: value(&self.uv_index, index),
            weather_code: value(&self.weather_code, index),
            is_day: value(&self.is_day, index),
        }
    }

    /// The hours that are not over.
    fn not_over(&self, now: i64) -> Vec<Hour> {
        let hours = self.time.iter().enumerate().filter(|(_, at)| is_time(**at) && **at + HOUR > now);
        let hours = hours.map(|(index, at)| {
            let moment = self.moment(index);
            Hour {
                at: *at,
                condition: moment.condition(),
                temperature: moment.temperature_2m,
                precipitation: value(&self.precipitation, index + 1),
                wind_speed: moment.wind_speed_10m,
            }
        });
        hours.take(MOST_HOURS).collect()
    }
}

impl Daily {
    /// The days that are not over.
    fn not_over(&self, now: i64, zone: &TimeZone) -> Vec<Day> {
        let days = self.time.iter().take(MOST_DAYS).enumerate().filter_map(|(index, at)| {
            let (begin, end) = day_of(*at, zone)?;
            (end > now).then(|| Day {
                at: begin,
                condition: condition(value(&self.weather_code, index), true),
                high: value(&self.temperature_2m_max, index),
                low: value(&self.temperature_2m_min, index),
                precipitation: value(&self.precipitation_sum, index),
                wind_speed: value(&self.wind_speed_10m_max, index),
            })
        });
        days.collect()
    }
}

/// When the day that the service lets begin at `at` begins and ends. It takes each for 24 hours by the offset of today, so
/// that those after a change of the clock begin an hour off (<https://github.com/open-meteo/open-meteo/issues/1545>), in
/// autumn on the evening before. The middle of them is in the day that is meant.
fn day_of(at: i64, zone: &TimeZone) -> Option<(i64, i64)> {
    let middle = Timestamp::from_second(Some(at).filter(|at| is_time(*at))? + HALF_A_DAY).ok()?;
    let middle = middle.to_zoned(zone.clone());
    let begin = middle.start_of_day().ok()?;
    let end = middle.tomorrow().ok()?.start_of_day().ok()?;
    Some((begin.timestamp().as_second(), end.timestamp().as_second()))
}

/// The word for a code of the WMO, as Open-Meteo uses them ("WMO Weather interpretation codes" in its documentation).
pub(super) fn condition(code: Option<f64>, is_day: bool) -> Option<Condition> {
    let code = code.filter(|code| (0.0..100.0).contains(code))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 99")]
    let code = code as u8;
    Some(match code {
        0 | 1 if is_day => Condition::Sunny,
        0 | 1 => Condition::ClearNight,
        2 => Condition::PartlyCloudy,
        3 => Condition::Cloudy,
        45 | 48 => Condition::Fog,
        51 | 53 | 55 | 61 | 63 | 80 | 81 => Condition::Rainy,
        // It freezes as it falls.
        56 | 57 | 66 | 67 => Condition::SnowyRainy,
        65 | 82 => Condition::Pouring,
        71 | 73 | 75 | 77 | 85 | 86 => Condition::Snowy,
        95 => Condition::LightningRainy,
        96 | 99 => Condition::Hail,
        _ => return None,
    })
}

/// Where it is not said, it is day.
fn is_day(is_day: Option<f64>) -> bool {
    is_day.is_none_or(|is_day| is_day != 0.0)
}

/// Whether what is told of one moment still holds at another: it does for an hour. A clock that is behind changes nothing.
fn holds_at(at: i64, now: i64) -> bool {
    is_time(at) && now < at + HOUR
}

fn is_time(at: i64) -> bool {
    (0..=LAST_TIME).contains(&at)
}

fn value(list: &[Option<f64>], index: usize) -> Option<f64> {
    list.get(index).copied().flatten()
}
