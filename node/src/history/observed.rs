//! What of a device's object is worth remembering.
//!
//! | series | field | kind |
//! | --- | --- | --- |
//! | `availability` | `availability` | `online`, `offline` or `stale` |
//! | `on` | `reported` | true or false |
//! | `brightness` | `reported` | percent |
//! | the sensor's key | `readings` | as the sensor is |
//!
//! A sensor whose key is one of the others gets `sensor_` before it. While a device is not online, nobody knows what
//! its other series are.

use mesh_proto::Value as Field;

use super::{
    batch::{Kind, Value},
    recorder::Seen,
};
use crate::service::ObjectView;

/// Digits of a sensor whose description is not there yet.
const DECIMALS: u8 = 2;
/// Digits of the brightness.
const BRIGHTNESS_DECIMALS: u8 = 1;
/// The longest key and word, in bytes; the device model has none that are longer.
const MOST_TEXT: usize = device_adapters::model::sensor::MOST_SENSOR_TEXT;

/// All series of a device, as its object is now.
pub(super) fn observed(device: &ObjectView) -> Vec<Seen> {
    let available = field(device, "availability");
    let state = available.and_then(|(value, _)| value.get("state")).and_then(Field::as_text);
    let is_online = state.is_none_or(|state| state == "online");
    let mut all = Vec::new();
    if let Some(state) = state {
        let since = available.and_then(|(value, _)| value.get("since")).and_then(seconds);
        all.push(seen("availability", Kind::State, Value::Word(state.into()), since.unwrap_or(u64::MAX)));
    }
    if is_online {
        all.extend(reported(device));
        all.extend(readings(device));
    }
    all.retain(|seen| fits(&seen.key) && !matches!(&seen.value, Value::Word(word) if !fits(word)));
    all
}

/// The series in which a sensor is recorded.
pub fn key_of_sensor(key: &str) -> String {
    if ["availability", "on", "brightness"].contains(&key) { format!("sensor_{key}") } else { key.to_owned() }
}

fn seen(key: &str, kind: Kind, value: Value, since: u64) -> Seen {
    Seen { key: key.to_owned(), kind, value, since }
}

fn fits(text: &str) -> bool {
    text.len() <= MOST_TEXT + "sensor_".len()
}

/// A field and when it was written, in seconds.
fn field<'a>(device: &'a ObjectView, name: &str) -> Option<(&'a Field, u64)> {
    let (_, view) = device.fields.iter().find(|(known, _)| known.as_str() == name)?;
    Some((&view.value, view.at_ms / 1_000))
}

fn seconds(ms: &Field) -> Option<u64> {
    ms.as_int().and_then(|ms| u64::try_from(ms / 1_000).ok())
}

fn reported(device: &ObjectView) -> Vec<Seen> {
    let Some((reported, at)) = field(device, "reported") else { return Vec::new() };
    let Some(state) = reported.get("value") else { return Vec::new() };
    let on = match state.get("on") {
        Some(Field::Bool(on)) => Some(seen("on", Kind::State, Value::Truth(*on), at)),
        _ => None,
    };
    let brightness = state.get("brightness").and_then(Field::as_int).map(|brightness| {
        let percent = brightness as f64 * 100.0 / f64::from(u16::MAX);
        let kind = Kind::Number { decimals: BRIGHTNESS_DECIMALS };
        seen("brightness", kind, scaled(percent, BRIGHTNESS_DECIMALS), at)
    });
    on.into_iter().chain(brightness).collect()
}

fn readings(device: &ObjectView) -> Vec<Seen> {
    let Some((Field::Map(readings), _)) = field(device, "readings") else { return Vec::new() };
    let sensors = field(device, "sensors").map(|(sensors, _)| sensors);
    let decimals = |key: &str| {
        let decimals = sensors.and_then(|sensors| sensors.get(key)?.get("decimals")?.as_int());
        decimals.and_then(|decimals| u8::try_from(decimals).ok()).unwrap_or(DECIMALS).min(6)
    };
    let one = |key: &str, reading: &Field| {
        let decimals = decimals(key);
        let (kind, value) = match reading.get("value")? {
            Field::Float(number) => (Kind::Number { decimals }, scaled(*number, decimals)),
            Field::Int(number) => (Kind::Number { decimals }, scaled(*number as f64, decimals)),
            Field::Bool(truth) => (Kind::State, Value::Truth(*truth)),
            Field::Text(word) => (Kind::State, Value::Word(word.as_ref().into())),
            _ => return None,
        };
        let since = reading.get("at").and_then(seconds).unwrap_or(u64::MAX);
        Some(seen(&key_of_sensor(key), kind, value, since))
    };
    readings.iter().filter_map(|(key, reading)| one(key, reading)).collect()
}

/// A number in units of its last digit; unknown when it has too many digits before the point.
fn scaled(number: f64, decimals: u8) -> Value {
    const MOST: f64 = 9_007_199_254_740_992.0; // 2^53: every whole number below is exact
    let scaled = (number * 10_f64.powi(i32::from(decimals))).round();
    if scaled.abs() < MOST { Value::Number(scaled as i64) } else { Value::Unknown }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

    use mesh_proto::{FieldName, ObjectId};
    use serde_json::json;

    use super::*;
    use crate::{json::to_value, service::FieldView};

    /// A device with these fields, all written at this second.
    fn device(name: &str, fields: serde_json::Value, at: u64) -> ObjectView {
        let one = |(name, value): (&String, &serde_json::Value)| {
            let value = to_value(value.clone()).unwrap();
            let view = FieldView { value, at_ms: at * 1_000, by: "ab".into(), durable: true };
            (FieldName::new(name).unwrap(), view)
        };
        let fields = fields.as_object().unwrap().iter().map(one).collect();
        ObjectView { id: ObjectId::new(&format!("device/{name}")).unwrap(), fields, complete: true }
    }

    fn shown(fields: serde_json::Value) -> Vec<String> {
        let all = observed(&device("x", fields, 50));
        all.iter().map(|seen| format!("{} {:?} {}", seen.key, seen.value, seen.since)).collect()
    }

    #[test]
    fn sensors_state_and_availability_become_series() {
        let fields = json!({
            "availability": {"state": "online", "since": 7_000},
            "reported": {"value": {"kind": "light", "on": true, "brightness": 32_768}, "source": "read_back"},
            "sensors": {"temperature": {"kind": "numeric", "decimals": 1}},
            "readings": {
                "temperature": {"value": 21.54, "at": 9_000},
                "motion": {"value": false, "at": 8_000},
                "phase": {"value": "rinse", "at": 8_000},
                "on": {"value": 3.0, "at": 8_000},
                "broken": {"value": null, "reason": "dead", "at": 8_000},
                "huge": {"value": 1e300, "at": 8_000},
            },
        });
        assert_eq!(
            shown(fields),
            [
                "availability Word(\"online\") 7",
                "on Truth(true) 50",
                "brightness Number(500) 50",
                "huge Unknown 8",
                "motion Truth(false) 8",
                "sensor_on Number(300) 8",
                "phase Word(\"rinse\") 8",
                "temperature Number(215) 9",
            ]
        );
    }

    #[test]
    fn nothing_is_known_of_a_device_that_is_not_there_and_nonsense_is_passed_over() {
        let offline = json!({
            "availability": {"state": "offline", "since": 7_000},
            "reported": {"value": {"on": true}}, "readings": {"t": {"value": 1.0, "at": 1}},
        });
        assert_eq!(shown(offline), ["availability Word(\"offline\") 7"]);
        let nonsense = json!({"availability": 3, "reported": [], "readings": {"a": 1, "b": {"value": {}}}, "sensors": true});
        assert!(shown(nonsense).is_empty());
        assert!(shown(json!({"availability": {"state": "x".repeat(100)}})).is_empty());
    }
}
