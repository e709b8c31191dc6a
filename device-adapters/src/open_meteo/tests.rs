//! The contract, the settings, and answers as the documentation of the API gives them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::contract;
use crate::http::Origin;
use crate::model::{Condition, Measurement};
use crate::weather::config::Place;

/// 2022-07-01T00:00 in Berlin, two hours before UTC.
const MIDNIGHT: i64 = 1_656_626_400;

/// An answer of the documented shape: "JSON Return Object" of the documentation, with `timeformat=unixtime`.
fn body() -> Value {
    json!({
        "latitude": 52.52, "longitude": 13.419, "elevation": 44.812, "generationtime_ms": 2.2119,
        "utc_offset_seconds": 7200, "timezone": "Europe/Berlin", "timezone_abbreviation": "CEST",
        "current_units": { "time": "unixtime", "interval": "seconds", "temperature_2m": "°C", "is_day": "" },
        "current": {
            "time": MIDNIGHT + 900, "interval": 900, "temperature_2m": 13.4, "apparent_temperature": 12.96,
            "relative_humidity_2m": 82, "pressure_msl": 1012.3, "wind_speed_10m": 2.35, "wind_gusts_10m": 6.1,
            "wind_direction_10m": 243, "cloud_cover": 100, "uv_index": 0.05, "weather_code": 61, "is_day": 0
        },
        "hourly_units": { "time": "unixtime", "temperature_2m": "°C" },
        "hourly": {
            "time": [MIDNIGHT, MIDNIGHT + 3600, MIDNIGHT + 7200],
            "temperature_2m": [13.0, 12.7, null],
            "precipitation": [9.9, 0.4, 0.0],
            "weather_code": [61, 0, 95],
            "wind_speed_10m": [2.35, 2.0, 1.0],
            "is_day": [0, 0, 1]
        },
        "daily_units": { "time": "unixtime" },
        "daily": {
            "time": [MIDNIGHT, MIDNIGHT + 86_400],
            "weather_code": [80, 1],
            "temperature_2m_max": [24.1, 26.0],
            "temperature_2m_min": [12.7, 13.1],
            "precipitation_sum": [3.2, 0.0],
            "wind_speed_10m_max": [6.4, 3.0]
        }
    })
}

fn read(body: &Value) -> wire::Answer {
    wire::read(body.to_string().as_bytes()).unwrap()
}

#[test]
fn the_adapter_keeps_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
    ABOUT.describe(None, &Origin::plain("weather.example", 80)).unwrap();
}

#[tokio::test]
async fn the_adapter_stops_in_time() {
    let settings = json!({ "latitude": 52.52, "longitude": 13.405, "url": "http://127.0.0.1:9" });
    contract::shutdown(&REGISTRATION, &settings, Duration::from_millis(50)).await.unwrap();
}

#[tokio::test]
async fn without_a_place_it_says_what_to_set() {
    let (context, _handle) = Context::channel(1, 1);
    let error = build(&json!({})).unwrap().run(context).await.unwrap_err();
    assert!(matches!(&error, AdapterError::Unconfigured { .. }), "{error}");
    assert!(error.to_string().contains("latitude and longitude are not set"), "{error}");
}

#[test]
fn a_wrong_key_is_refused_without_being_shown() {
    for wrong in [json!("geheim&more"), json!(""), json!("x".repeat(129)), json!(4711)] {
        let error = build(&json!({ "api_key": wrong })).err().unwrap().to_string();
        assert!(error.contains("\"api_key\" of open_meteo is (not shown)"), "{error}");
    }
    let built = build(&json!({ "api_key": "a-B_9" }));
    assert!(built.is_ok());
    assert_eq!(settings_schema()["properties"]["api_key"]["writeOnly"], true);
}

#[test]
fn a_request_asks_for_our_units_and_is_a_path() {
    let query = wire::query(Place::new(52.520_008, -13.404_954));
    assert!(
        query.starts_with("latitude=52.52&longitude=-13.405&current=temperature_2m,apparent_"),
        "{query}"
    );
    for part in [
        "wind_speed_unit=ms",
        "timeformat=unixtime",
        "timezone=auto",
        "forecast_hours=49",
        "forecast_days=10",
    ] {
        assert!(query.split('&').any(|found| found == part), "{query}");
    }
    let path: hyper::Uri = format!("/v1/forecast?{query}").parse().unwrap();
    assert_eq!(path.query(), Some(query.as_str()));
    assert!(!query.contains(char::is_whitespace));
}

#[test]
fn what_is_now_is_measured() {
    let view = wire::view(&read(&body()), MIDNIGHT + 1_000);
    let number = |key: &str| match view.values.get(key) {
        Some(Measurement::Number(number)) => *number,
        other => panic!("{key} is {other:?}"),
    };
    let wanted = [
        ("temperature", 13.4),
        ("apparent_temperature", 12.96),
        ("humidity", 82.0),
        ("pressure", 1012.3),
        ("wind_speed", 2.35),
        ("wind_gust", 6.1),
        ("wind_bearing", 243.0),
        ("cloud_cover", 100.0),
        ("uv_index", 0.05),
        // That of the hour after midnight is told with one o'clock.
        ("precipitation", 0.4),
    ];
    for (key, value) in wanted {
        assert!((number(key) - value).abs() < 1e-9, "{key} is {}", number(key));
    }
    assert_eq!(view.values["condition"], Measurement::Text("rainy".into()));
    let sensors = ABOUT.describe(None, &Origin::plain("weather.example", 80)).unwrap().sensors;
    assert_eq!(view.values.len(), sensors.len());
    assert!(view.values.keys().all(|key| sensors.contains_key(*key)));
}

#[test]
fn what_was_expected_of_an_hour_is_now_when_the_answer_is_old() {
    let mut body = body();
    body["hourly"]["relative_humidity_2m"] = json!([80, 70, 60]);
    let answer = read(&body);
    let at = |seconds: i64, key: &str| wire::view(&answer, MIDNIGHT + seconds).values.get(key).cloned();
    let number = |number| Some(Measurement::Number(number));
    assert_eq!(at(0, "temperature"), number(13.4), "a clock that is behind");
    assert_eq!((at(4_499, "temperature"), at(4_499, "humidity")), (number(13.4), number(82.0)));
    assert_eq!((at(4_500, "temperature"), at(4_500, "humidity")), (number(12.7), number(70.0)));
    assert_eq!(at(4_500, "condition"), Some(Measurement::Text("clear-night".into())));
    assert_eq!((at(7_200, "temperature"), at(7_200, "humidity")), (None, number(60.0)));
    assert!(wire::view(&answer, MIDNIGHT + 10_800).values.is_empty(), "no hour of the answer is left");
}

#[test]
fn hours_and_days_that_are_over_are_left_out() {
    let answer = read(&body());
    let forecast = wire::view(&answer, MIDNIGHT + 3_600).forecast;
    assert_eq!(forecast.hourly.iter().map(|hour| hour.at - MIDNIGHT).collect::<Vec<_>>(), [3_600, 7_200]);
    let one = forecast.hourly[0];
    assert_eq!((one.condition, one.temperature), (Some(Condition::ClearNight), Some(12.7)));
    assert_eq!((one.precipitation, one.wind_speed), (Some(0.0), Some(2.0)));
    let two = forecast.hourly[1];
    assert_eq!(two.condition, Some(Condition::LightningRainy));
    assert_eq!((two.temperature, two.precipitation), (None, None));
    assert_eq!(forecast.daily.len(), 2);
    let today = forecast.daily[0];
    assert_eq!((today.at, today.condition), (MIDNIGHT, Some(Condition::Rainy)));
    assert_eq!((today.high, today.low), (Some(24.1), Some(12.7)));
    assert_eq!((today.precipitation, today.wind_speed), (Some(3.2), Some(6.4)));
    let tomorrow = wire::view(&answer, MIDNIGHT + 86_400).forecast;
    assert!(tomorrow.hourly.is_empty());
    assert_eq!(tomorrow.daily[0].condition, Some(Condition::Sunny));
    assert!(wire::view(&answer, MIDNIGHT + 2 * 86_400).forecast.daily.is_empty());
}

/// Ten days from the midnight at `first`, all of 24 hours, as the service tells them.
fn days_from(first: &str, zone: &str, ahead: i32) -> wire::Answer {
    let first = first.parse::<jiff::Timestamp>().unwrap().as_second();
    let times: Vec<i64> = (0..10).map(|day| first + day * 86_400).collect();
    let highs: Vec<i64> = (0..10).collect();
    read(&json!({
        "utc_offset_seconds": ahead, "timezone": zone, "current": { "temperature_2m": 1 },
        "daily": { "time": times, "temperature_2m_max": highs }
    }))
}

#[test]
fn days_are_those_of_the_calendar_over_a_change_of_the_clock() {
    for (first, zone, ahead, changes) in [
        ("2025-10-23T22:00:00Z", "Europe/Berlin", 7_200, "2025-10-26"),
        ("2026-03-26T23:00:00Z", "Europe/Berlin", 3_600, "2026-03-29"),
        ("2026-03-06T07:00:00Z", "America/Denver", -25_200, "2026-03-08"),
        ("2026-10-02T13:30:00Z", "Australia/Lord_Howe", 37_800, "2026-10-04"),
        ("2026-06-30T22:00:00Z", "Europe/Berlin", 7_200, "none"),
    ] {
        let answer = days_from(first, zone, ahead);
        let begin = first.parse::<jiff::Timestamp>().unwrap();
        let days = wire::view(&answer, begin.as_second()).forecast.daily;
        let place = TimeZone::get(zone).unwrap();
        let mut wanted = begin.to_zoned(place.clone());
        let mut dates = Vec::new();
        for (index, day) in days.iter().enumerate() {
            let at = jiff::Timestamp::from_second(day.at).unwrap().to_zoned(place.clone());
            assert_eq!(at, wanted, "{zone}, day {index}");
            assert_eq!(day.high, Some(index as f64));
            dates.push(at.date().to_string());
            wanted = wanted.tomorrow().unwrap();
        }
        assert_eq!(days.len(), 10, "{zone}");
        assert!(changes == "none" || dates.iter().any(|date| date == changes), "{zone}: {dates:?}");
        // In the last hour of the place's own day it is still that day, and after it the next one.
        let third = days[2].at;
        assert_eq!(wire::view(&answer, third - 1).forecast.daily[0].at, days[1].at, "{zone}");
        assert_eq!(wire::view(&answer, third).forecast.daily[0].at, third, "{zone}");
    }
}

#[test]
fn the_days_of_a_zone_that_nobody_knows_are_as_they_are_told() {
    let answer = days_from("2025-10-23T22:00:00Z", "Mars/Olympus", 7_200);
    let days = wire::view(&answer, 0).forecast.daily;
    assert!(days.len() == 10 && days.windows(2).all(|two| two[1].at - two[0].at == 86_400));
}

#[test]
fn the_time_of_an_answer_is_that_of_the_place() {
    let at = jiff::Timestamp::from_second(MIDNIGHT).unwrap();
    assert_eq!(at.to_zoned(wire::zone(&read(&body()))).strftime("%H:%M").to_string(), "00:00");
    let wrong = read(&json!({ "utc_offset_seconds": i32::MAX, "current": { "temperature_2m": 1 } }));
    assert_eq!(wire::zone(&wrong), TimeZone::UTC);
}

#[test]
fn every_documented_code_has_a_word() {
    let documented = [
        0, 1, 2, 3, 45, 48, 51, 53, 55, 56, 57, 61, 63, 65, 66, 67, 71, 73, 75, 77, 80, 81, 82, 85, 86, 95,
        96, 99,
    ];
    for code in documented {
        assert!(wire::condition(Some(f64::from(code)), true).is_some(), "{code}");
    }
    let word = |code| wire::condition(Some(code), false).map(Condition::word);
    assert_eq!(word(0.0), Some("clear-night"));
    assert_eq!(word(2.0), Some("partlycloudy"));
    assert_eq!(word(65.0), Some("pouring"));
    assert_eq!(word(96.0), Some("hail"));
    for none in [4.0, 100.0, -1.0, 1e300, f64::NAN] {
        assert_eq!(word(none), None, "{none}");
    }
    assert_eq!(wire::condition(None, true), None);
}

#[test]
fn what_a_model_does_not_have_is_none_and_what_is_no_weather_is_refused() {
    let little = read(
        &json!({ "current": { "time": MIDNIGHT, "temperature_2m": 1.5, "uv_index": null, "new_thing": [1] } }),
    );
    let view = wire::view(&little, 0);
    assert_eq!(view.values.len(), 1);
    assert_eq!(view.forecast, crate::model::Forecast::default());
    // Lists of different lengths, and times that nobody can mean.
    let wrong = read(&json!({
        "hourly": { "time": [i64::MIN, -1, MIDNIGHT, i64::MAX], "temperature_2m": [1], "precipitation": [1, 2, 3, 4, 5, 6] },
        "daily": { "time": [i64::MAX, MIDNIGHT] }
    }));
    assert_eq!(wire::view(&wrong, 0).forecast.hourly.len(), 1);
    for empty in ["{}", "[]", r#"{"hourly":{"time":[]}}"#, r#"{"daily":{"time":[1]}}"#] {
        let error = wire::read(empty.as_bytes()).unwrap_err();
        assert!(matches!(error, BodyError::Empty(_)), "{error}");
    }
    for wrong in ["", "null", r#"{"current":7}"#, r#"{"hourly":{"time":["2022-07-01T00:00"]}}"#] {
        assert!(matches!(wire::read(wrong.as_bytes()), Err(BodyError::Json { .. })), "{wrong}");
    }
}

#[test]
fn the_reason_of_a_refusal_is_found() {
    let body = br#"{"error":true,"reason":"Cannot initialize WeatherVariable from invalid String value"}"#;
    assert!(wire::reason(body).unwrap().starts_with("Cannot initialize"));
    assert_eq!(wire::reason(b"<html>"), None);
    assert_eq!(wire::reason(br#"{"reason":7}"#), None);
}

#[test]
fn a_hostile_body_is_survived() {
    for message in contract::hostile_messages(&[body().to_string().into_bytes()]) {
        if let Ok(answer) = wire::read(&message) {
            wire::view(&answer, MIDNIGHT);
            wire::zone(&answer);
        }
        wire::reason(&message);
    }
    let deep = "[".repeat(100_000);
    assert!(wire::read(deep.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn a_view_keeps_its_bounds(times in proptest::collection::vec(any::<i64>(), 0..200), now: i64) {
        let answer = read(&json!({
            "current": { "temperature_2m": 1 },
            "hourly": { "time": times, "temperature_2m": times }, "daily": { "time": times }
        }));
        let forecast = wire::view(&answer, now).forecast;
        prop_assert!(forecast.hourly.len() <= 48 && forecast.daily.len() <= 10);
    }
}
