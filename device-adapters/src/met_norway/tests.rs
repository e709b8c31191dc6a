//! The contract, the settings, and answers as the documentation of the service gives them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::wire::Step;
use super::*;
use crate::contract;
use crate::http::Origin;
use crate::model::{Condition, Measurement};
use crate::weather::config::Place;

const HOUR: i64 = 3_600;

fn time(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

fn oslo() -> TimeZone {
    TimeZone::get("Europe/Oslo").unwrap()
}

/// One step as documented, with all that `complete` tells (<https://docs.api.met.no/doc/ForecastJSON.html>).
fn documented() -> Value {
    json!({
        "time": "2020-06-10T13:00:00Z",
        "data": {
            "instant": { "details": {
                "air_pressure_at_sea_level": 1020.5, "air_temperature": 20.7, "cloud_area_fraction": 58.0,
                "cloud_area_fraction_high": 47.7, "cloud_area_fraction_low": 17.7, "cloud_area_fraction_medium": 1.7,
                "dew_point_temperature": 9.5, "fog_area_fraction": 0.0, "relative_humidity": 48.6,
                "ultraviolet_index_clear_sky": 4.7, "wind_from_direction": 151.8, "wind_speed": 2.5,
                "wind_speed_of_gust": 6.6
            } },
            "next_12_hours": {
                "summary": { "symbol_code": "partlycloudy_day" }, "details": { "probability_of_precipitation": 2.2 }
            },
            "next_1_hours": {
                "summary": { "symbol_code": "lightrainshowers_day" },
                "details": { "precipitation_amount": 0.3, "precipitation_amount_max": 0.5, "precipitation_amount_min": 0.0 }
            },
            "next_6_hours": {
                "summary": { "symbol_code": "partlycloudy_day" },
                "details": { "air_temperature_max": 22.7, "air_temperature_min": 18.4, "precipitation_amount": 1.1 }
            }
        }
    })
}

fn body(steps: Vec<Value>) -> Value {
    json!({
        "type": "Feature",
        "geometry": { "type": "Point", "coordinates": [10, 60.1, 267] },
        "properties": {
            "meta": { "updated_at": "2020-06-10T13:04:26Z", "units": { "air_temperature": "celsius" } },
            "timeseries": steps
        }
    })
}

fn read(steps: Vec<Value>) -> Vec<Step> {
    wire::read(body(steps).to_string().as_bytes()).unwrap()
}

/// A step told for the hour that follows.
fn hourly(at: i64, temperature: f64, symbol: &str, rain: f64) -> Value {
    json!({
        "time": Timestamp::from_second(at).unwrap().to_string(),
        "data": {
            "instant": { "details": { "air_temperature": temperature, "wind_speed": 3.0 } },
            "next_1_hours": { "summary": { "symbol_code": symbol }, "details": { "precipitation_amount": rain } },
            "next_6_hours": {
                "summary": { "symbol_code": "fog" },
                "details": { "precipitation_amount": 60.0, "air_temperature_max": 99.0, "air_temperature_min": -99.0 }
            }
        }
    })
}

/// A step told for the six hours that follow.
fn six_hourly(at: i64, temperature: f64, symbol: &str, rain: f64) -> Value {
    json!({
        "time": Timestamp::from_second(at).unwrap().to_string(),
        "data": {
            "instant": { "details": { "air_temperature": temperature, "wind_speed": 5.0 } },
            "next_6_hours": {
                "summary": { "symbol_code": symbol },
                "details": {
                    "precipitation_amount": rain,
                    "air_temperature_max": temperature + 2.0, "air_temperature_min": temperature - 2.0
                }
            }
        }
    })
}

#[test]
fn the_adapter_keeps_the_contract() {
    contract::descriptor(&REGISTRATION).unwrap();
    contract::settings(&REGISTRATION).unwrap();
    ABOUT.describe(None, &Origin::plain("weather.example", 80)).unwrap();
}

#[tokio::test]
async fn the_adapter_stops_in_time() {
    let settings = json!({
        "latitude": 59.91, "longitude": 10.75, "contact": "me@example.org", "url": "http://127.0.0.1:9"
    });
    contract::shutdown(&REGISTRATION, &settings, Duration::from_millis(50)).await.unwrap();
}

#[tokio::test]
async fn what_is_missing_is_named_with_the_way_to_set_it() {
    let place = json!({ "latitude": 59.91, "longitude": 10.75, "url": "http://127.0.0.1:9" });
    let mut nowhere = place.clone();
    nowhere["contact"] = json!("me@example.org");
    nowhere["time_zone"] = json!("Mars/Olympus");
    for (settings, what) in [
        (json!({ "contact": "me@example.org" }), "latitude and longitude are not set"),
        (place, "contact is not set: the terms of MET Norway"),
        (nowhere, "time_zone is \"Mars/Olympus\", which this system does not know"),
    ] {
        let (context, _handle) = Context::channel(1, 1);
        let error = build(&settings).unwrap().run(context).await.unwrap_err();
        assert!(matches!(&error, AdapterError::Unconfigured { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    let error = build(&json!({ "url": DEFAULTS.url, "refresh_minutes": 9 })).err().unwrap().to_string();
    assert!(error.contains("a number of minutes from 10 to 1440"), "{error}");
    let error = build(&json!({ "altitude": 10_000 })).err().unwrap().to_string();
    assert!(error.contains("a number of metres from -500 to 9000"), "{error}");
}

#[test]
fn a_request_names_the_place_with_four_decimals() {
    let place = Place::new(59.913_868, 10.752_245);
    assert_eq!(wire::path(place, None), "/locationforecast/2.0/complete?lat=59.9139&lon=10.7522");
    assert_eq!(
        wire::path(place, Some(-3)),
        "/locationforecast/2.0/complete?lat=59.9139&lon=10.7522&altitude=-3"
    );
}

#[test]
fn what_is_now_is_measured() {
    let steps = read(vec![documented()]);
    let view = outlook::view(&steps, &oslo(), steps[0].at + 60);
    let wanted = [
        ("temperature", 20.7),
        ("dew_point", 9.5),
        ("humidity", 48.6),
        ("pressure", 1020.5),
        ("wind_speed", 2.5),
        ("wind_gust", 6.6),
        ("wind_bearing", 151.8),
        ("cloud_cover", 58.0),
        ("precipitation", 0.3),
        ("uv_index", 4.7),
    ];
    for (key, value) in wanted {
        assert_eq!(view.values[key], Measurement::Number(value), "{key}");
    }
    assert_eq!(view.values["condition"], Measurement::Text("rainy".into()));
    let sensors = ABOUT.describe(None, &Origin::plain("weather.example", 80)).unwrap().sensors;
    assert_eq!(view.values.len(), sensors.len());
    assert!(view.values.keys().all(|key| sensors.contains_key(*key)));
}

#[test]
fn now_moves_along_the_series() {
    let begin = time("2020-06-10T13:00:00Z");
    let steps =
        read((0..5).map(|hour| hourly(begin + hour * HOUR, 10.0 + hour as f64, "cloudy", 0.1)).collect());
    let temperature = |now| outlook::view(&steps, &oslo(), now).values.get("temperature").cloned();
    assert_eq!(temperature(begin - 5 * HOUR), Some(Measurement::Number(10.0)), "a clock that is behind");
    assert_eq!(temperature(begin + HOUR - 1), Some(Measurement::Number(10.0)));
    assert_eq!(temperature(begin + HOUR), Some(Measurement::Number(11.0)));
    assert_eq!(temperature(begin + 4 * HOUR + 5 * HOUR), Some(Measurement::Number(14.0)));
    assert_eq!(temperature(begin + 4 * HOUR + 6 * HOUR), None, "the series is over");
    let forecast = outlook::view(&steps, &oslo(), begin + 2 * HOUR + 5).forecast;
    assert_eq!(forecast.hourly.len(), 3);
    let first = forecast.hourly[0];
    assert_eq!((first.at, first.temperature), (begin + 2 * HOUR, Some(12.0)));
    assert_eq!((first.precipitation, first.wind_speed), (Some(0.1), Some(3.0)));
    assert_eq!(first.condition, Some(Condition::Cloudy));
}

#[test]
fn days_are_those_of_the_place() {
    // From 16:00 in Oslo two days by the hour, then by six hours.
    let begin = time("2020-06-10T14:00:00Z");
    let mut series: Vec<Value> = (0..52)
        .map(|hour| {
            let symbol = if hour < 8 { "rain" } else { "clearsky_day" };
            hourly(begin + hour * HOUR, (hour % 24) as f64, symbol, 0.1)
        })
        .collect();
    let rest = begin + 52 * HOUR;
    assert_eq!(rest, time("2020-06-12T18:00:00Z"));
    series.extend((0..12).map(|step| six_hourly(rest + step * 6 * HOUR, 20.0, "heavysnow", 6.0)));
    let steps = read(series);
    let days = outlook::view(&steps, &oslo(), begin).forecast.daily;
    let dates: Vec<_> = days.iter().map(|day| Timestamp::from_second(day.at).unwrap().to_string()).collect();
    // Local midnight is 22:00 in UTC. The last day, of which half is told, is left out.
    assert_eq!(dates[..2], ["2020-06-09T22:00:00Z", "2020-06-10T22:00:00Z"]);
    assert_eq!(dates.len(), 5, "{dates:?}");
    let today = days[0];
    assert_eq!((today.high, today.low), (Some(7.0), Some(0.0)), "what is left of today");
    assert_eq!((today.precipitation, today.condition), (Some(0.8), Some(Condition::Rainy)));
    let tomorrow = days[1];
    assert_eq!((tomorrow.high, tomorrow.low), (Some(23.0), Some(0.0)), "by the hour, not by six");
    assert_eq!((tomorrow.precipitation, tomorrow.condition), (Some(2.4), Some(Condition::Sunny)));
    // 20 hours of 0.1, and the four before midnight of six hours of 6.0.
    assert_eq!(days[2].precipitation, Some(6.0));
    let later = days[3];
    assert_eq!((later.high, later.low), (Some(22.0), Some(18.0)), "between the steps");
    assert_eq!((later.precipitation, later.condition), (Some(24.0), Some(Condition::Snowy)));
    assert_eq!(later.wind_speed, Some(5.0));
}

#[test]
fn what_is_told_twice_is_counted_once() {
    // The last hour is told for six hours, of which the next step tells four again.
    let begin = time("2020-06-10T04:00:00Z");
    let steps =
        read(vec![six_hourly(begin, 10.0, "rain", 6.0), six_hourly(begin + 2 * HOUR, 10.0, "rain", 6.0)]);
    let days = outlook::view(&steps, &TimeZone::UTC, begin).forecast.daily;
    assert_eq!(days[0].precipitation, Some(8.0));
}

#[test]
fn a_day_of_summer_time_has_its_own_length() {
    // In Oslo the 25th of October 2026 has 25 hours.
    let begin = time("2026-10-24T22:00:00Z");
    let steps = read((0..60).map(|hour| hourly(begin + hour * HOUR, 1.0, "clearsky_night", 1.0)).collect());
    let days = outlook::view(&steps, &oslo(), begin).forecast.daily;
    assert_eq!(days[0].precipitation, Some(25.0));
    assert_eq!(days[1].at - days[0].at, 25 * HOUR);
    assert_eq!(days[0].condition, Some(Condition::Sunny), "a day has no clear night");
}

#[test]
fn every_documented_symbol_has_a_word() {
    let falls = ["rain", "sleet", "snow"];
    let mut symbols: Vec<String> = [
        "clearsky",
        "fair",
        "partlycloudy",
        "cloudy",
        "fog",
        "lightssleetshowersandthunder",
        "lightssnowshowersandthunder",
    ]
    .map(str::to_owned)
    .into();
    for fall in falls {
        for strength in ["light", "", "heavy"] {
            for kind in ["", "showers", "andthunder", "showersandthunder"] {
                symbols.push(format!("{strength}{fall}{kind}"));
            }
        }
    }
    assert_eq!(symbols.len(), 43);
    for symbol in &symbols {
        for variant in ["", "_day", "_night", "_polartwilight"] {
            assert!(wire::condition(&format!("{symbol}{variant}")).is_some(), "{symbol}{variant}");
        }
    }
    let word = |symbol| wire::condition(symbol).map(Condition::word);
    assert_eq!(word("clearsky_day"), Some("sunny"));
    assert_eq!(word("clearsky_night"), Some("clear-night"));
    assert_eq!(word("clearsky_polartwilight"), Some("sunny"));
    assert_eq!(word("fair_night"), Some("partlycloudy"));
    assert_eq!(word("heavyrainshowers_day"), Some("pouring"));
    assert_eq!(word("lightsleet"), Some("snowy-rainy"));
    assert_eq!(word("lightssnowshowersandthunder_day"), Some("lightning-rainy"));
    for none in ["", "_day", "clearsky_noon", "frogs", "heavyfog", "rainrain", "clearsky_day_day"] {
        assert_eq!(word(none), None, "{none}");
    }
    assert_eq!(wire::condition(&"rain".repeat(1_000)), None);
}

#[test]
fn a_series_is_sorted_and_what_is_no_step_is_left_out() {
    let begin = time("2020-06-10T13:00:00Z");
    let steps = read(vec![
        hourly(begin + HOUR, 2.0, "fog", 0.0),
        hourly(begin, 1.0, "fog", 0.0),
        hourly(begin, 9.0, "fog", 0.0),
        json!({ "time": "yesterday", "data": {} }),
        json!({ "time": "-009999-01-01T00:00:00Z", "data": {} }),
        json!({ "time": "2020-06-10T15:00:00Z", "data": { "instant": { "details": { "air_temperature": null } } } }),
    ]);
    assert_eq!(steps.iter().map(|step| step.at - begin).collect::<Vec<_>>(), [0, HOUR, 2 * HOUR]);
    assert_eq!(steps[0].now.air_temperature, Some(1.0));
    let many = (0..1_000).map(|hour| hourly(begin + hour * HOUR, 1.0, "fog", 0.0)).collect();
    assert_eq!(read(many).len(), 400);
    assert!(matches!(wire::read(body(vec![]).to_string().as_bytes()), Err(BodyError::Empty(_))));
    for wrong in
        ["{}", "[]", "", r#"{"properties":{"timeseries":{}}}"#, r#"{"properties":{"timeseries":[7]}}"#]
    {
        assert!(matches!(wire::read(wrong.as_bytes()), Err(BodyError::Json { .. })), "{wrong}");
    }
}

#[test]
fn a_hostile_body_is_survived() {
    for message in contract::hostile_messages(&[body(vec![documented()]).to_string().into_bytes()]) {
        if let Ok(steps) = wire::read(&message) {
            outlook::view(&steps, &oslo(), steps[0].at);
        }
    }
}

proptest! {
    #[test]
    fn any_series_makes_days_within_bounds(
        steps in proptest::collection::vec((0_i64..40 * 24, -1e9..1e9_f64, any::<bool>(), 0.0..1e9_f64), 1..120),
        now in -100 * HOUR..2_000 * HOUR,
    ) {
        let begin = time("2026-03-20T00:00:00Z");
        let make = |(hour, temperature, is_hourly, rain): &(i64, f64, bool, f64)| {
            let at = begin + hour * HOUR;
            if *is_hourly { hourly(at, *temperature, "rain", *rain) } else { six_hourly(at, *temperature, "rain", *rain) }
        };
        let series = read(steps.iter().map(make).collect());
        let forecast = outlook::view(&series, &oslo(), begin + now).forecast;
        prop_assert!(forecast.hourly.len() <= 48 && forecast.daily.len() <= 10);
        prop_assert!(forecast.daily.windows(2).all(|two| two[0].at < two[1].at));
        let told: f64 = forecast.daily.iter().filter_map(|day| day.precipitation).sum();
        let most: f64 = steps.iter().map(|(_, _, _, rain)| rain).sum();
        prop_assert!(told <= most + 1.0, "{told} of {most}");
    }
}
