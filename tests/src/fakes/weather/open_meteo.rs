//! The Forecast API as documented: <https://open-meteo.com/en/docs>,
//! <https://github.com/open-meteo/open-meteo/blob/main/openapi/forecast.yml>.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use serde_json::{Map, Value, json};

use super::Asked;
use super::connection::Answer;

const HOUR: i64 = 3_600;
/// The place is in Berlin in summer.
const AHEAD: i32 = 7_200;
/// What a customer of the fake pays with.
pub const KEY: &str = "customer-4711";

const CURRENT: [(&str, f64, &str); 12] = [
    ("temperature_2m", 13.4, "°C"),
    ("apparent_temperature", 12.9, "°C"),
    ("relative_humidity_2m", 82.0, "%"),
    ("pressure_msl", 1012.3, "hPa"),
    ("precipitation", 0.1, "mm"),
    ("wind_speed_10m", 3.0, "m/s"),
    ("wind_gusts_10m", 6.0, "m/s"),
    ("wind_direction_10m", 243.0, "°"),
    ("cloud_cover", 100.0, "%"),
    ("uv_index", 1.5, ""),
    ("weather_code", 61.0, "wmo code"),
    ("is_day", 1.0, ""),
];
const DAILY: [(&str, f64, &str); 5] = [
    ("weather_code", 80.0, "wmo code"),
    ("temperature_2m_max", 24.1, "°C"),
    ("temperature_2m_min", 12.7, "°C"),
    ("precipitation_sum", 3.2, "mm"),
    ("wind_speed_10m_max", 6.0, "m/s"),
];

pub(super) fn answer(asked: &Asked, now: i64, warmer: f64) -> Answer {
    let path = asked.path.trim_start_matches("/moved");
    if path.split('?').next() != Some("/v1/forecast") {
        return refuse(404, "Not Found");
    }
    match body(asked, now, warmer) {
        Ok(body) => Answer { status: 200, headers: json_type(), body: body.to_string() },
        Err(reason) => refuse(400, &reason),
    }
}

fn refuse(status: u16, reason: &str) -> Answer {
    Answer { status, headers: json_type(), body: json!({ "error": true, "reason": reason }).to_string() }
}

fn json_type() -> Vec<(&'static str, String)> {
    vec![("Content-Type", "application/json; charset=utf-8".into())]
}

/// What the query asks for.
struct Query<'a> {
    asked: &'a Asked,
    is_unix: bool,
    ahead: i32,
    /// Kilometres an hour, where nobody asked for another unit.
    wind: (f64, &'static str),
}

impl Query<'_> {
    fn list(&self, name: &str) -> Vec<String> {
        let text = self.asked.parameter(name).unwrap_or_default().replace("%2C", ",");
        text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn number(&self, name: &str, most: i64, default: i64) -> Result<i64, String> {
        let Some(text) = self.asked.parameter(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (0..=most).contains(number));
        number.ok_or_else(|| format!("Value of parameter '{name}' must be from 0 to {most}"))
    }

    fn time(&self, at: i64, is_day: bool) -> Value {
        if self.is_unix {
            return json!(at);
        }
        let local = Timestamp::from_second(at)
            .unwrap()
            .to_zoned(TimeZone::fixed(Offset::from_seconds(self.ahead).unwrap()));
        json!(local.strftime(if is_day { "%Y-%m-%d" } else { "%Y-%m-%dT%H:%M" }).to_string())
    }

    fn time_unit(&self) -> &'static str {
        if self.is_unix { "unixtime" } else { "iso8601" }
    }

    /// A value in the unit that was asked for.
    fn value(&self, variable: &(&str, f64, &'static str), warmer: f64) -> (f64, &'static str) {
        let (name, value, unit) = *variable;
        match name {
            _ if name.starts_with("wind_") && unit == "m/s" => (value * self.wind.0, self.wind.1),
            _ if name.contains("temperature") => (value + warmer, unit),
            _ => (value, unit),
        }
    }
}

fn body(asked: &Asked, now: i64, warmer: f64) -> Result<Value, String> {
    let degrees = |name: &str, most: f64| {
        let number = asked.parameter(name).and_then(|text| text.parse::<f64>().ok());
        let number = number.ok_or_else(|| format!("Parameter '{name}' is required"))?;
        let is_there = number.abs() <= most;
        is_there.then_some(number).ok_or_else(|| {
            let (first, rest) = name.split_at(1);
            format!(
                "{}{rest} must be in range of -{most} to {most}°. Given: {number:?}.",
                first.to_uppercase()
            )
        })
    };
    let (latitude, longitude) = (degrees("latitude", 90.0)?, degrees("longitude", 180.0)?);
    if let Some(key) = asked.parameter("apikey").filter(|key| *key != KEY) {
        return Err(format!("The supplied API key '{key}' is invalid."));
    }
    let is_local =
        asked.parameter("timezone").is_some_and(|zone| zone == "auto" || zone.starts_with("Europe"));
    let wind = match asked.parameter("wind_speed_unit") {
        None | Some("kmh") => (3.6, "km/h"),
        Some("ms") => (1.0, "m/s"),
        Some(other) => {
            return Err(format!("Cannot initialize WindspeedUnit from invalid String value {other}"));
        }
    };
    let query = Query {
        asked,
        is_unix: asked.parameter("timeformat") == Some("unixtime"),
        ahead: if is_local { AHEAD } else { 0 },
        wind,
    };
    let mut body = json!({
        "latitude": latitude, "longitude": longitude, "elevation": 44.8, "generationtime_ms": 0.25,
        "utc_offset_seconds": query.ahead,
        "timezone": if is_local { "Europe/Berlin" } else { "GMT" },
        "timezone_abbreviation": if is_local { "GMT+2" } else { "GMT" }
    });
    let all = body.as_object_mut().unwrap();
    current(&query, now, warmer, all)?;
    let midnight = now - (now + i64::from(query.ahead)).rem_euclid(24 * HOUR);
    let days = query.number("forecast_days", 16, 7)?;
    let hours: Vec<i64> = match query.number("forecast_hours", 16 * 24, -1)? {
        -1 => (0..days * 24).map(|hour| midnight + hour * HOUR).collect(),
        hours => (0..hours).map(|hour| now - now.rem_euclid(HOUR) + hour * HOUR).collect(),
    };
    section(&query, "hourly", &CURRENT, &hours, warmer, all)?;
    let days: Vec<i64> = (0..days).map(|day| midnight + day * 24 * HOUR).collect();
    section(&query, "daily", &DAILY, &days, warmer, all)?;
    Ok(body)
}

fn current(query: &Query<'_>, now: i64, warmer: f64, all: &mut Map<String, Value>) -> Result<(), String> {
    let names = query.list("current");
    if names.is_empty() {
        return Ok(());
    }
    let mut values = json!({ "time": query.time(now - now.rem_euclid(900), false), "interval": 900 });
    let mut units = json!({ "time": query.time_unit(), "interval": "seconds" });
    for name in names {
        let variable = known(&CURRENT, &name)?;
        let (value, unit) = query.value(variable, warmer);
        values[&name] = written(&name, value);
        units[&name] = json!(unit);
    }
    all.insert("current".into(), values);
    all.insert("current_units".into(), units);
    Ok(())
}

fn section(
    query: &Query<'_>,
    section: &str,
    variables: &'static [(&'static str, f64, &'static str)],
    times: &[i64],
    warmer: f64,
    all: &mut Map<String, Value>,
) -> Result<(), String> {
    let names = query.list(section);
    if names.is_empty() {
        return Ok(());
    }
    let is_day = section == "daily";
    let mut values = json!({ "time": times.iter().map(|at| query.time(*at, is_day)).collect::<Vec<_>>() });
    let mut units = json!({ "time": query.time_unit() });
    for name in names {
        let variable = known(variables, &name)?;
        let (value, unit) = query.value(variable, warmer);
        values[&name] = json!(vec![written(&name, value); times.len()]);
        units[&name] = json!(unit);
    }
    all.insert(section.into(), values);
    all.insert(format!("{section}_units"), units);
    Ok(())
}

fn known<'a>(
    variables: &'a [(&'static str, f64, &'static str)],
    name: &str,
) -> Result<&'a (&'static str, f64, &'static str), String> {
    let found = variables.iter().find(|(known, _, _)| *known == name);
    found.ok_or_else(|| {
        format!("Data corrupted at path ''. Cannot initialize variable from invalid String value {name}.")
    })
}

/// Codes, percents and directions are written without a point.
fn written(name: &str, value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "small numbers of the tables above")]
    let whole = value as i64;
    let is_whole = ["weather_code", "is_day", "cloud_cover", "relative_humidity_2m", "wind_direction_10m"]
        .contains(&name);
    if is_whole { json!(whole) } else { json!(value) }
}
