//! Weather of Open-Meteo, the public service or a server of one's own. This file is the adapter; [`wire`] reads answers.
//!
//! Source: <https://open-meteo.com/en/docs>; terms of the public service: <https://open-meteo.com/en/terms>.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;
mod wire;

use std::future::Future;
use std::pin::Pin;

use hyper::StatusCode;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::adapter::{
    Adapter, AdapterError, Context, Descriptor, Registration, Scope, Secret, SettingsError,
};
use crate::http::Request;
use crate::settings::Settings;
use crate::weather::config::{Config, Defaults, schema};
use crate::weather::{self, About, BodyError, Server, Service, View};

/// The id of the adapter.
const ID: &str = "open_meteo";
/// The attribution is that of the licence, <https://open-meteo.com/en/licence>.
const ABOUT: About = About {
    adapter: ID,
    device: "open-meteo-home",
    maker: "Open-Meteo",
    product: "Forecast API",
    attribution: "Weather data by Open-Meteo.com (https://open-meteo.com/), CC BY 4.0",
    sensors: &wire::SENSORS,
};
/// The free service; the other is for those who pay, and know by their key.
const PUBLIC: &str = "https://api.open-meteo.com";
const CUSTOMERS: &str = "https://customer-api.open-meteo.com";
/// Its models make a new value each quarter of an hour.
const DEFAULTS: Defaults = Defaults { url: PUBLIC, domain: "open-meteo.com", refresh: 15.0, least: 5.0 };

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "Weather of Open-Meteo",
        scope: Scope::Single,
        mdns: &[],
        shows_home: false,
        settings_schema,
    },
    build,
};

fn settings_schema() -> Value {
    schema(
        &DEFAULTS,
        json!({
            "api_key": {
                "type": "string", "writeOnly": true,
                "description": "The key of a customer of Open-Meteo; free use needs none."
            }
        }),
    )
}

fn build(settings: &Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let config = Config::parse(&REGISTRATION.descriptor, &DEFAULTS, settings)?;
    let key = Settings::new(&REGISTRATION.descriptor, settings)?.text(
        "api_key",
        "1 to 128 of a-z, A-Z, 0-9, '-' and '_', as Open-Meteo gave it",
        None,
        |key| is_key(key).then(|| Some(Secret(key.to_owned()))),
    );
    Ok(Box::new(OpenMeteo { config, api_key: key.map_err(hidden)? }))
}

/// So that it can stand in a query as it is.
fn is_key(key: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=128).contains(&key.len()) && key.chars().all(allowed)
}

/// The same error without the value: a key that was mistyped is still nearly one.
fn hidden(error: SettingsError) -> SettingsError {
    match error {
        SettingsError::Invalid { adapter, key, rule, .. } => {
            SettingsError::Invalid { adapter, key, value: "(not shown)".to_owned(), rule }
        }
        other => other,
    }
}

struct OpenMeteo {
    config: Config,
    api_key: Option<Secret>,
}

impl Adapter for OpenMeteo {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(async move {
            let Self { config, api_key } = *self;
            let place = config.place(ID)?;
            let public = if api_key.is_some() { CUSTOMERS } else { PUBLIC };
            let server = Server::new(&ABOUT, &config, public)?;
            let service =
                Forecasts { path: format!("{}/v1/forecast?{}", server.base, wire::query(place)), api_key };
            weather::run(service, server, ctx).await
        })
    }
}

/// The Forecast API for one place.
struct Forecasts {
    path: String,
    api_key: Option<Secret>,
}

impl Service for Forecasts {
    type Answer = wire::Answer;

    /// The key must be a part of the query: what is made here is never logged.
    fn request(&self) -> Request {
        let key = self.api_key.as_ref().map(|key| format!("&apikey={}", key.0)).unwrap_or_default();
        Request::get(format!("{}{key}", self.path))
    }

    fn read(&self, body: &[u8]) -> Result<wire::Answer, BodyError> {
        wire::read(body)
    }

    fn refusal(&self, _: StatusCode, body: &[u8]) -> Option<String> {
        wire::reason(body)
    }

    fn view(&self, answer: &wire::Answer, now: i64) -> View {
        wire::view(answer, now)
    }

    fn zone(&self, answer: &wire::Answer) -> TimeZone {
        wire::zone(answer)
    }

    fn secret(&self) -> Option<&Secret> {
        self.api_key.as_ref()
    }
}
