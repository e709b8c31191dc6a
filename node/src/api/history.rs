//! What a device was: `GET /api/v1/history/{device}`.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use mesh_proto::Value as Stored;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    ApiContext,
    access::Principal,
    devices::find_device,
    extract::{Named, Params},
    json::timestamp,
    ports::history::{HistoryQuery, HistoryView, Moment, SeriesView},
    problem::Problem,
};
use crate::{
    config::duration::parse_duration, history::key_of_sensor, json::from_value, service::ObjectView,
};

/// How far back is looked where nobody says so.
const USUAL_SINCE: &str = "24h";
/// Points of a series where nobody says how many.
const USUAL_POINTS: usize = 200;
/// The most points of a series.
const MOST_POINTS: usize = 2_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryParams {
    since: Option<String>,
    until: Option<String>,
    sensor: Option<String>,
    points: Option<usize>,
}

pub(super) async fn read(
    State(context): State<Arc<ApiContext>>,
    Extension(principal): Extension<Principal>,
    Named(given): Named,
    Params(params): Params<HistoryParams>,
) -> Result<Json<Value>, Problem> {
    let since = moment("since", params.since.as_deref().unwrap_or(USUAL_SINCE))?;
    let until =
        params.until.as_deref().map_or(Ok(Moment::Ago(Default::default())), |at| moment("until", at))?;
    let points = params.points.unwrap_or(USUAL_POINTS);
    if !(1..=MOST_POINTS).contains(&points) {
        let detail = format!("`points` is {points}");
        return Err(Problem::invalid(detail, format!("ask for 1 to {MOST_POINTS}")));
    }
    let device = find_device(&context.service, &principal.scope, &given).await?;
    let key = params.sensor.as_deref().map(|sensor| key(&device, sensor));
    let query = HistoryQuery { device: device.id.clone(), since, until, key: key.clone(), points };
    let view = context.history.read(query).await?;
    match (params.sensor, view.series.is_empty()) {
        (Some(sensor), true) if !keys(&device).contains_key(&sensor) => {
            let what = format!("series `{}` of {}", clip(&sensor), device.id.as_str());
            let fix = "leave out `sensor` to see every series that the device has";
            Err(Problem::not_found(&what, fix).with_candidates(keys(&device).into_iter().map(|(key, _)| key)))
        }
        _ => Ok(Json(shown(&device, &view))),
    }
}

/// A moment: RFC 3339, or how long ago.
pub(super) fn moment(name: &str, text: &str) -> Result<Moment, Problem> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(Moment::Ago(ago));
    }
    // A `+` of an offset reads as a space in a query.
    let at: Option<jiff::Timestamp> = text.replace(' ', "+").parse().ok();
    at.and_then(|at| u64::try_from(at.as_second()).ok()).map(Moment::At).ok_or_else(|| {
        let detail = format!("`{name}` is `{}`", clip(text));
        Problem::invalid(
            detail,
            "write a time such as 2026-11-22T06:00:00Z, or how long ago, such as 24h or 7d",
        )
    })
}

/// The series that a client means by a name: its key, or the sensor's.
fn key(device: &ObjectView, given: &str) -> String {
    let is_sensor = |sensors: &Stored| sensors.get(given).is_some();
    match device.fields.iter().find(|(name, _)| name.as_str() == "sensors") {
        Some((_, field)) if is_sensor(&field.value) => key_of_sensor(given),
        _ => given.to_owned(),
    }
}

/// The descriptions of the series that a device has now, by their keys.
fn keys(device: &ObjectView) -> Map<String, Value> {
    let sensors = device.fields.iter().find(|(name, _)| name.as_str() == "sensors");
    let sensors = match sensors.map(|(_, field)| from_value(&field.value)) {
        Some(Value::Object(sensors)) => sensors,
        _ => Map::new(),
    };
    let own = [
        ("availability", json!({ "name": "Availability" })),
        ("on", json!({ "name": "On" })),
        ("brightness", json!({ "name": "Brightness", "unit": "%", "decimals": 1 })),
    ];
    let own = own.into_iter().map(|(key, about)| (key.to_owned(), about));
    own.chain(sensors.into_iter().map(|(key, about)| (key_of_sensor(&key), about))).collect()
}

fn shown(device: &ObjectView, view: &HistoryView) -> Value {
    let about = keys(device);
    let one = |(key, series): (&String, &SeriesView)| {
        let mut shown = match json!(series) {
            Value::Object(shown) => shown,
            _ => Map::new(),
        };
        let about = about.get(key).and_then(Value::as_object).into_iter().flatten();
        let told =
            about.filter(|(member, _)| ["name", "unit", "decimals", "class"].contains(&member.as_str()));
        shown.extend(told.map(|(member, value)| (member.clone(), value.clone())));
        (key.clone(), Value::Object(shown))
    };
    let series: Map<String, Value> = view.series.iter().map(one).collect();
    json!({
        "device": device.id.as_str(),
        "since": timestamp(view.since.saturating_mul(1_000)),
        "until": timestamp(view.until.saturating_mul(1_000)),
        "step_s": view.step_s,
        "series": series,
    })
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
