//! Weather: what the sky does, now and in the hours and days to come.
//!
//! What a service says of now is measured like by any other sensor (`temperature`, `humidity`, `wind_speed`…);
//! what it says of later is a [`Forecast`].

use serde::{Deserialize, Serialize};

/// The most hours of a forecast.
pub const MOST_HOURS: usize = 48;
/// The most days of a forecast.
pub const MOST_DAYS: usize = 10;

/// What the sky does, by the words of Home Assistant
/// (<https://developers.home-assistant.io/docs/core/entity/weather/#recommended-values-for-state-and-condition>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Clear, at night.
    ClearNight,
    /// Clouds.
    Cloudy,
    /// Fog.
    Fog,
    /// Hail.
    Hail,
    /// Lightning, dry.
    Lightning,
    /// Lightning and rain.
    LightningRainy,
    /// Sun or stars between clouds.
    #[serde(rename = "partlycloudy")]
    PartlyCloudy,
    /// Heavy rain.
    Pouring,
    /// Rain.
    Rainy,
    /// Snow.
    Snowy,
    /// Snow and rain.
    SnowyRainy,
    /// Clear, by day.
    Sunny,
    /// Wind.
    Windy,
    /// Something that no word here stands for.
    Exceptional,
}

impl Condition {
    /// The word, as it is serialised.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ClearNight => "clear-night",
            Self::Cloudy => "cloudy",
            Self::Fog => "fog",
            Self::Hail => "hail",
            Self::Lightning => "lightning",
            Self::LightningRainy => "lightning-rainy",
            Self::PartlyCloudy => "partlycloudy",
            Self::Pouring => "pouring",
            Self::Rainy => "rainy",
            Self::Snowy => "snowy",
            Self::SnowyRainy => "snowy-rainy",
            Self::Sunny => "sunny",
            Self::Windy => "windy",
            Self::Exceptional => "exceptional",
        }
    }
}

/// What is expected of one hour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Hour {
    /// When it begins, in seconds since 1970.
    pub at: i64,
    /// What the sky does.
    pub condition: Option<Condition>,
    /// Temperature of the air, in °C.
    pub temperature: Option<f64>,
    /// Precipitation in that hour, in mm.
    pub precipitation: Option<f64>,
    /// Wind, in m/s.
    pub wind_speed: Option<f64>,
}

/// What is expected of one day.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Day {
    /// When it begins at the place, in seconds since 1970.
    pub at: i64,
    /// What the sky does most.
    pub condition: Option<Condition>,
    /// Highest temperature of the air, in °C.
    pub high: Option<f64>,
    /// Lowest temperature of the air, in °C.
    pub low: Option<f64>,
    /// Precipitation of the day, in mm.
    pub precipitation: Option<f64>,
    /// Strongest wind, in m/s.
    pub wind_speed: Option<f64>,
}

/// What a service expects of the hours and days to come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// At most [`MOST_HOURS`], the nearest first.
    pub hourly: Vec<Hour>,
    /// At most [`MOST_DAYS`], the nearest first.
    pub daily: Vec<Day>,
}

/// What a weather service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeatherCapabilities {
    /// Who made the data and under which licence, as the service wants it shown.
    pub attribution: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_condition_is_serialised_as_its_word() {
        for condition in
            [Condition::ClearNight, Condition::PartlyCloudy, Condition::LightningRainy, Condition::Sunny]
        {
            assert_eq!(serde_json::to_string(&condition).unwrap(), format!("\"{}\"", condition.word()));
        }
    }
}
