//! What the adapters of weather services share: the settings of a place, when to ask, how an answer is taken, and what
//! is kept of it while the service is silent.
//!
//! A weather service is one device. What it says of now are measurements, what it says of later is a forecast. The last
//! good answer stays: while the service fails it is stale, and offline only if it has never answered.

pub(crate) mod config;
mod fetch;
mod run;
mod schedule;
mod sensors;
mod station;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::BTreeMap;

use hyper::StatusCode;
use jiff::tz::TimeZone;

use crate::adapter::{AdapterError, Secret};
use crate::http::{Origin, Request};
use crate::model::{Capabilities, Description, DeviceId, Forecast, Measurement, WeatherCapabilities};

pub(crate) use run::{Server, run};
pub(crate) use sensors::CONDITION;
use sensors::sensors;

/// The last moment that a time of a service may name, in seconds since 1970: the end of the year 9999. What is later is
/// a fault of the service, and dropped before anybody calculates with it.
pub(crate) const LAST_TIME: i64 = 253_402_300_799;

/// A service as the shared part sees it: what it is, what is asked, and how answers are read. Pure.
pub(crate) trait Service: Send + 'static {
    /// What an answer holds, parsed.
    type Answer: Send + 'static;

    /// What is asked each time.
    fn request(&self) -> Request;

    /// What the body of a good answer holds.
    fn read(&self, body: &[u8]) -> Result<Self::Answer, BodyError>;

    /// Why the service says that it refuses, for people; none where the shared words are enough.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> Option<String>;

    /// What an answer says at a moment, in seconds since 1970: hours and days that are over are left out.
    fn view(&self, answer: &Self::Answer, now: i64) -> View;

    /// In which time zone people read the time of an answer.
    fn zone(&self, answer: &Self::Answer) -> TimeZone;

    /// What must be seen by the service alone.
    fn secret(&self) -> Option<&Secret> {
        None
    }
}

/// What a service is, wherever the place.
pub(crate) struct About {
    /// The id of its adapter.
    pub(crate) adapter: &'static str,
    /// The id of the device; there is one in a household.
    pub(crate) device: &'static str,
    /// Who runs it.
    pub(crate) maker: &'static str,
    /// What it calls what is asked for.
    pub(crate) product: &'static str,
    /// What the licence of its data asks to be shown.
    pub(crate) attribution: &'static str,
    /// The keys that it fills in [`View::values`], beside [`CONDITION`].
    pub(crate) sensors: &'static [&'static str],
}

impl About {
    /// The device that it is.
    ///
    /// # Errors
    /// That its id is none; the tests of the adapter see that it is.
    pub(crate) fn describe(&self, name: Option<&str>, address: &Origin) -> Result<Description, AdapterError> {
        let id = DeviceId::new(self.device)
            .map_err(|error| AdapterError::Unreachable { adapter: self.adapter, what: error.to_string() })?;
        Ok(Description {
            id,
            adapter: self.adapter.to_owned(),
            name: name.unwrap_or("Weather").to_owned(),
            manufacturer: self.maker.to_owned(),
            model: self.product.to_owned(),
            firmware: None,
            address: Some(address.to_string()),
            capabilities: Capabilities::Weather(WeatherCapabilities {
                attribution: self.attribution.to_owned(),
            }),
            sensors: sensors(self.sensors),
            note: None,
        })
    }
}

/// What a service says at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    /// What it says of now; what is missing becomes unknown.
    pub(crate) values: BTreeMap<&'static str, Measurement>,
    /// What it expects.
    pub(crate) forecast: Forecast,
}

impl View {
    /// Takes what the service says of a sensor, if it does.
    pub(crate) fn number(&mut self, key: &'static str, number: Option<f64>) {
        if let Some(number) = number {
            self.values.insert(key, Measurement::Number(number));
        }
    }
}

/// Why the body of an answer is of no use. Its own words are not repeated: they may be long, and anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is not the JSON that is documented.
    #[error("its answer is not as documented: {what} at line {line}, column {column}")]
    Json {
        /// `broken JSON`, `a wrong type or a missing field`, `an early end`.
        what: &'static str,
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
    },
    /// It is as documented, and says nothing.
    #[error("its answer holds no {0}")]
    Empty(&'static str),
    /// What was compressed cannot be taken.
    #[error("its compressed answer {0}")]
    Compressed(&'static str),
}

impl From<serde_json::Error> for BodyError {
    fn from(error: serde_json::Error) -> Self {
        use serde_json::error::Category;
        let what = match error.classify() {
            Category::Io | Category::Syntax => "broken JSON",
            Category::Data => "a wrong type or a missing field",
            Category::Eof => "an early end",
        };
        Self::Json { what, line: error.line(), column: error.column() }
    }
}
