//! What sensors yield and weather services expect, and the fields that hold it.
//!
//! | field | what |
//! | --- | --- |
//! | `readings` | by sensor: `value` (null when nothing can be believed, then with `reason`) and `at`, milliseconds since 1970 |
//! | `hourly`, `daily` | lists of the same length by name: `at` (seconds since 1970), `condition`, `temperature`… |

use std::collections::BTreeMap;

use device_adapters::model::{Availability, Day, DeviceId, Forecast, Hour, Measurement, Sensors, weather};
use mesh_proto::{FieldName, Value};

use super::{
    Devices,
    convert::{clipped, encode, map, millis, text},
};

/// How long the time of an unchanged reading may stand before it is written again, in milliseconds.
const AGAIN_MS: u64 = 300_000;
/// Longest reason beside a reading, in characters: those of all sensors fit one field.
const MAX_REASON: usize = 80;

/// A reading and when it was taken, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Taken {
    pub(super) value: Measurement,
    pub(super) at_ms: u64,
}

/// The newest reading of each sensor.
pub(super) type Readings = BTreeMap<String, Taken>;

/// Takes new readings in, as the sensors fit them. True when they are news.
pub(super) fn take_in(
    known: &mut Readings,
    sensors: &Sensors,
    values: BTreeMap<String, Measurement>,
    now_ms: u64,
) -> bool {
    let mut is_news = false;
    known.retain(|key, _| sensors.contains_key(key));
    for (key, value) in values {
        // What the description does not name is not shown: nobody would know its unit.
        let Some(sensor) = sensors.get(&key) else { continue };
        let value = match sensor.fit(value) {
            Measurement::Unknown(reason) => {
                Measurement::Unknown(clipped(&reason).chars().take(MAX_REASON).collect())
            }
            value => value,
        };
        let old = known.get(&key);
        if old.is_none_or(|old| old.value != value || old.at_ms.saturating_add(AGAIN_MS) <= now_ms) {
            known.insert(key, Taken { value, at_ms: now_ms });
            is_news = true;
        }
    }
    is_news
}

/// The field `readings`.
pub(super) fn readings_value(readings: &Readings) -> Value {
    let one = |(key, taken): (&String, &Taken)| (key.as_str().into(), taken_value(taken));
    Value::Map(readings.iter().map(one).collect())
}

/// Reads the field `readings`; what is no reading is passed over.
pub(super) fn readings_from(value: &Value) -> Readings {
    let Value::Map(items) = value else { return Readings::new() };
    items.iter().filter_map(|(key, item)| Some((key.to_string(), taken_from(item)?))).collect()
}

fn taken_value(taken: &Taken) -> Value {
    let at = ("at", millis(taken.at_ms));
    match &taken.value {
        Measurement::Number(number) => map([("value", Value::Float(*number)), at]),
        Measurement::Truth(truth) => map([("value", Value::Bool(*truth)), at]),
        Measurement::Text(word) => map([("value", text(word)), at]),
        Measurement::Unknown(reason) => map([("value", Value::Null), ("reason", text(reason)), at]),
    }
}

fn taken_from(item: &Value) -> Option<Taken> {
    let value = match item.get("value")? {
        Value::Float(number) if number.is_finite() => Measurement::Number(*number),
        Value::Bool(truth) => Measurement::Truth(*truth),
        Value::Text(word) => Measurement::Text(clipped(word)),
        Value::Null => {
            let reason = item.get("reason").and_then(Value::as_text).unwrap_or_default();
            Measurement::Unknown(clipped(reason))
        }
        _ => return None,
    };
    Some(Taken { value, at_ms: u64::try_from(item.get("at")?.as_int()?).ok()? })
}

/// The field `hourly`.
fn hourly_value(hours: &[Hour]) -> Value {
    let hours = hours.get(..hours.len().min(weather::MOST_HOURS)).unwrap_or_default();
    map([
        ("at", column(hours, |hour| Value::Int(hour.at))),
        ("condition", column(hours, |hour| condition(hour.condition))),
        ("temperature", column(hours, |hour| number(hour.temperature))),
        ("precipitation", column(hours, |hour| number(hour.precipitation))),
        ("wind_speed", column(hours, |hour| number(hour.wind_speed))),
    ])
}

/// The field `daily`.
fn daily_value(days: &[Day]) -> Value {
    let days = days.get(..days.len().min(weather::MOST_DAYS)).unwrap_or_default();
    map([
        ("at", column(days, |day| Value::Int(day.at))),
        ("condition", column(days, |day| condition(day.condition))),
        ("high", column(days, |day| number(day.high))),
        ("low", column(days, |day| number(day.low))),
        ("precipitation", column(days, |day| number(day.precipitation))),
        ("wind_speed", column(days, |day| number(day.wind_speed))),
    ])
}

fn column<T>(rows: &[T], of: impl Fn(&T) -> Value) -> Value {
    Value::List(rows.iter().map(of).collect())
}

fn condition(condition: Option<weather::Condition>) -> Value {
    condition.map_or(Value::Null, |condition| encode(&condition))
}

fn number(number: Option<f64>) -> Value {
    number.filter(|number| number.is_finite()).map_or(Value::Null, Value::Float)
}

impl Devices {
    /// An adapter measured something.
    pub(super) fn measured(&mut self, id: &DeviceId, values: BTreeMap<String, Measurement>) {
        let now_ms = self.clock.now_ms();
        let Some(device) = self.devices.get_mut(id).filter(|device| device.owned) else { return };
        let Some(sensors) = device.found.as_ref().map(|found| &found.sensors) else { return };
        let answers = values.values().any(|value| !matches!(value, Measurement::Unknown(_)));
        let is_news = take_in(&mut device.readings, sensors, values, now_ms);
        device.answer_by = None;
        let answers = answers && device.heard.is_none_or(|heard| heard == Availability::Online);
        if is_news {
            let value = readings_value(&device.readings);
            self.state.put(&device.object, self.names.readings.clone(), Some(value));
            device.readings_shown = true;
        }
        if answers {
            self.say_available(id, Availability::Online, "the device answers".to_owned());
        }
    }

    /// A weather service expects something.
    pub(super) fn forecast(&mut self, id: &DeviceId, forecast: &Forecast) {
        let Some(device) = self.devices.get(id).filter(|device| device.owned) else { return };
        let fields = [("hourly", hourly_value(&forecast.hourly)), ("daily", daily_value(&forecast.daily))];
        for (name, value) in fields {
            if let Ok(field) = FieldName::new(name) {
                self.state.put(&device.object, field, Some(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use device_adapters::model::{Condition, SensorDescription};

    use super::*;

    fn sensors() -> Sensors {
        Sensors::from([
            (
                "temperature".to_owned(),
                SensorDescription::numeric("Temperature", Some("temperature"), "°C", 1),
            ),
            ("motion".to_owned(), SensorDescription::binary("Motion", Some("motion"))),
        ])
    }

    fn of(key: &str, value: Measurement) -> BTreeMap<String, Measurement> {
        BTreeMap::from([(key.to_owned(), value)])
    }

    #[test]
    fn only_what_changed_or_is_old_is_news() {
        let (mut known, sensors) = (Readings::new(), sensors());
        let warm = || of("temperature", Measurement::Number(21.04));
        assert!(take_in(&mut known, &sensors, warm(), 1_000));
        assert!(!take_in(&mut known, &sensors, of("temperature", Measurement::Number(20.96)), 2_000));
        assert!(take_in(&mut known, &sensors, of("motion", Measurement::Truth(true)), 2_500));
        assert!(take_in(&mut known, &sensors, warm(), 2_000 + AGAIN_MS), "its time is old");
        assert!(!take_in(&mut known, &sensors, of("humidity", Measurement::Number(1.0)), 3_000));
        assert_eq!(known.len(), 2, "what no sensor is described for is not kept");
    }

    #[test]
    fn readings_come_back_and_what_cannot_be_believed_says_why() {
        let (mut known, sensors) = (Readings::new(), sensors());
        take_in(&mut known, &sensors, of("temperature", Measurement::Number(f64::NAN)), 7);
        take_in(&mut known, &sensors, of("motion", Measurement::Truth(false)), 8);
        let value = readings_value(&known);
        let temperature = value.get("temperature").unwrap();
        assert_eq!(temperature.get("value"), Some(&Value::Null));
        assert!(temperature.get("reason").unwrap().as_text().unwrap().contains("NaN"));
        assert_eq!(readings_from(&value), known);
        assert!(readings_from(&Value::Int(1)).is_empty());
        assert!(readings_from(&map([("a", map([("value", Value::Int(1))]))])).is_empty());
    }

    #[test]
    fn the_longest_readings_and_forecasts_fit_a_field() {
        let long = "x".repeat(10_000);
        let sensors: Sensors = (0..device_adapters::model::sensor::MOST_SENSORS)
            .map(|number| (format!("sensor_{number:0>41}"), SensorDescription::binary(&long, None)))
            .collect();
        let mut known = Readings::new();
        let values = sensors.keys().map(|key| (key.clone(), Measurement::Unknown(long.clone()))).collect();
        take_in(&mut known, &sensors, values, u64::from(u32::MAX) * 1_000);
        assert!(readings_value(&known).encode().is_ok());
        let hour = Hour {
            at: 1_800_000_000,
            condition: Some(Condition::LightningRainy),
            temperature: Some(-12.3),
            precipitation: Some(0.1),
            wind_speed: Some(12.5),
        };
        assert!(hourly_value(&[hour; 500]).encode().is_ok());
        let day = Day {
            at: 1_800_000_000,
            condition: Some(Condition::SnowyRainy),
            high: Some(f64::NAN),
            low: Some(-1.0),
            precipitation: None,
            wind_speed: Some(3.0),
        };
        let daily = daily_value(&[day; 500]);
        assert!(daily.encode().is_ok());
        assert_eq!(daily.get("high").unwrap(), &Value::List(vec![Value::Null; weather::MOST_DAYS]));
    }
}
