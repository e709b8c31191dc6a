//! The sensors of weather services: each key has one meaning and one unit, whoever tells it.

use crate::model::{SensorDescription, Sensors};

/// What the sky does, by the words of [`crate::model::Condition`].
pub(crate) const CONDITION: &str = "condition";

/// Those of the keys that a service tells, and what the sky does.
pub(crate) fn sensors(keys: &[&str]) -> Sensors {
    let numbers = [
        ("temperature", "Temperature", Some("temperature"), "°C", 1),
        ("apparent_temperature", "Feels like", Some("temperature"), "°C", 1),
        ("dew_point", "Dew point", Some("temperature"), "°C", 1),
        ("humidity", "Humidity", Some("humidity"), "%", 0),
        ("pressure", "Pressure at sea level", Some("atmospheric_pressure"), "hPa", 1),
        ("wind_speed", "Wind", Some("wind_speed"), "m/s", 1),
        ("wind_gust", "Gusts", Some("wind_speed"), "m/s", 1),
        ("wind_bearing", "Wind from", Some("wind_direction"), "°", 0),
        ("cloud_cover", "Clouds", None, "%", 0),
        ("precipitation", "Precipitation of this hour", Some("precipitation"), "mm", 1),
        ("uv_index", "UV index", None, "", 1),
    ];
    let mut sensors = Sensors::new();
    sensors.insert(CONDITION.to_owned(), SensorDescription::text("Condition", None));
    for (key, name, class, unit, decimals) in numbers {
        if keys.contains(&key) {
            sensors.insert(key.to_owned(), SensorDescription::numeric(name, class, unit, decimals));
        }
    }
    sensors
}
