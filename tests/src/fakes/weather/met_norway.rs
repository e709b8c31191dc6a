//! Locationforecast 2.0 as documented: <https://docs.api.met.no/doc/ForecastJSON.html>,
//! <https://docs.api.met.no/doc/TermsOfService.html>, <https://docs.api.met.no/doc/StatusCodes.html>.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::Asked;
use super::connection::Answer;

const HOUR: i64 = 3_600;
/// Steps of an hour, before those of six.
const HOURLY: i64 = 58;
/// The days that are told.
const DAYS: i64 = 10;

/// The air at a moment: by the hour of the day in UTC, from 10.0 to 21.5 °C.
#[must_use]
pub fn temperature(at: i64) -> f64 {
    f64::from(i32::try_from(at.rem_euclid(24 * HOUR) / HOUR).unwrap()) / 2.0 + 10.0
}

/// A date as HTTP wants it (RFC 9110, 5.6.7).
#[must_use]
pub fn date(at: i64) -> String {
    let at = Timestamp::from_second(at).unwrap().to_zoned(TimeZone::UTC);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub(super) fn answer(asked: &Asked, now: i64, holds: i64, modified: i64, warmer: f64) -> Answer {
    let refuse = |status, why: &str| Answer {
        status,
        headers: vec![("Content-Type", "text/html".into())],
        body: format!("<html><body>{why}</body></html>"),
    };
    let agent = asked.headers.get("user-agent").map(String::as_str).unwrap_or_default();
    let names_somebody = agent.contains(' ') && agent.contains(['@', '.']);
    if !names_somebody {
        return refuse(403, "Forbidden: who are you?");
    }
    let path = asked.path.trim_start_matches("/moved");
    let is_complete = match path.split('?').next().unwrap_or_default() {
        "/locationforecast/2.0/complete" => true,
        "/locationforecast/2.0/compact" => false,
        _ => return refuse(404, "no such product"),
    };
    let degrees = |name: &str, most: f64| {
        let text = asked.parameter(name)?;
        let number: f64 = text.parse().ok()?;
        let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        (number.abs() <= most).then_some((number, decimals))
    };
    let (Some((latitude, north)), Some((longitude, east))) = (degrees("lat", 90.0), degrees("lon", 180.0))
    else {
        return refuse(400, "lat and lon are needed");
    };
    if north > 4 || east > 4 {
        return refuse(403, "Forbidden: at most four decimals");
    }
    let altitude: i64 = asked.parameter("altitude").and_then(|text| text.parse().ok()).unwrap_or(267);
    let last_modified = date(modified);
    let headers = vec![
        ("Content-Type", "application/json".into()),
        ("Expires", date(now + holds)),
        ("Last-Modified", last_modified.clone()),
    ];
    if asked.headers.get("if-modified-since") == Some(&last_modified) {
        return Answer { status: 304, headers, body: String::new() };
    }
    let body = body(&json!([longitude, latitude, altitude]), now, modified, is_complete, warmer);
    Answer { status: 200, headers, body: body.to_string() }
}

fn body(place: &Value, now: i64, modified: i64, is_complete: bool, warmer: f64) -> Value {
    let begin = now - now.rem_euclid(HOUR);
    let mut steps: Vec<i64> = (0..HOURLY).map(|hour| begin + hour * HOUR).collect();
    let mut next = steps.last().unwrap() + HOUR;
    next += (6 * HOUR - next.rem_euclid(6 * HOUR)).rem_euclid(6 * HOUR);
    let short = steps.len();
    while next <= begin + DAYS * 24 * HOUR {
        steps.push(next);
        next += 6 * HOUR;
    }
    let end = *steps.last().unwrap();
    let series: Vec<Value> = steps
        .iter()
        .enumerate()
        .map(|(index, at)| step(*at, index < short - 1, end - at, is_complete, warmer))
        .collect();
    json!({
        "type": "Feature",
        "geometry": { "type": "Point", "coordinates": place },
        "properties": { "meta": { "updated_at": time(modified), "units": units() }, "timeseries": series }
    })
}

/// One step; `left` is how much of the series follows it, and no span may be longer.
fn step(at: i64, is_hourly: bool, left: i64, is_complete: bool, warmer: f64) -> Value {
    let air = temperature(at) + warmer;
    let mut details = json!({
        "air_pressure_at_sea_level": 1020.5, "air_temperature": air, "cloud_area_fraction": 58.0,
        "relative_humidity": 48.6, "wind_from_direction": 151.8, "wind_speed": 2.5
    });
    let mut six = json!({ "precipitation_amount": 1.2 });
    if is_complete {
        for (name, value) in [
            ("dew_point_temperature", 9.5),
            ("fog_area_fraction", 0.0),
            ("ultraviolet_index_clear_sky", 4.7),
            ("wind_speed_of_gust", 6.6),
        ] {
            details[name] = json!(value);
        }
        six["air_temperature_max"] = json!(air + 3.0);
        six["air_temperature_min"] = json!(air - 3.0);
    }
    let hour = at.rem_euclid(24 * HOUR) / HOUR;
    let variant = if (4..20).contains(&hour) { "day" } else { "night" };
    let mut data = json!({ "instant": { "details": details } });
    let summary = |name: &str| json!({ "symbol_code": format!("{name}_{variant}") });
    if is_hourly {
        data["next_1_hours"] =
            json!({ "summary": summary("lightrainshowers"), "details": { "precipitation_amount": 0.2 } });
    }
    if left >= 6 * HOUR {
        data["next_6_hours"] = json!({ "summary": summary("partlycloudy"), "details": six });
    }
    if left >= 12 * HOUR {
        data["next_12_hours"] = json!({ "summary": summary("fair"), "details": {} });
    }
    json!({ "time": time(at), "data": data })
}

fn units() -> Value {
    json!({
        "air_pressure_at_sea_level": "hPa", "air_temperature": "celsius", "air_temperature_max": "celsius",
        "air_temperature_min": "celsius", "cloud_area_fraction": "%", "dew_point_temperature": "celsius",
        "fog_area_fraction": "%", "precipitation_amount": "mm", "relative_humidity": "%",
        "ultraviolet_index_clear_sky": "1", "wind_from_direction": "degrees", "wind_speed": "m/s",
        "wind_speed_of_gust": "m/s"
    })
}

fn time(at: i64) -> String {
    Timestamp::from_second(at).unwrap().to_string()
}
