//! Weather of the Norwegian Meteorological Institute, for the whole world. This file is the adapter; [`wire`] reads
//! answers, [`outlook`] makes days of them.
//!
//! Source: <https://docs.api.met.no/doc/locationforecast/HowTO.html>; what the service asks of its users, all of which is
//! done here and in [`crate::weather`]: <https://docs.api.met.no/doc/TermsOfService.html>.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod outlook;
#[cfg(test)]
mod tests;
mod wire;

use std::future::Future;
use std::pin::Pin;

use hyper::StatusCode;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::adapter::{Adapter, AdapterError, Context, Descriptor, Registration, Scope, SettingsError};
use crate::http::Request;
use crate::settings::Settings;
use crate::weather::config::{Config, Defaults, printable, schema, unconfigured};
use crate::weather::{self, About, BodyError, Server, Service, View};

/// The id of the adapter.
const ID: &str = "met_norway";
/// The attribution is that of the licence, <https://docs.api.met.no/doc/License.html>.
const ABOUT: About = About {
    adapter: ID,
    device: "met-norway-home",
    maker: "MET Norway",
    product: "Locationforecast 2.0",
    attribution: "Data from MET Norway (https://api.met.no/), CC BY 4.0",
    sensors: &outlook::SENSORS,
};
const DEFAULTS: Defaults =
    Defaults { url: "https://api.met.no/weatherapi", domain: "met.no", refresh: 30.0, least: 10.0 };
/// The lowest shore and the highest summit, in metres, generously.
const ALTITUDES: std::ops::RangeInclusive<f64> = -500.0..=9_000.0;

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "Weather of MET Norway",
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
            "contact": {
                "type": "string",
                "description": "An e-mail address or a web page where MET Norway reaches you. Needed: the terms of the \
                                service refuse who cannot be reached. It is sent with each request."
            },
            "altitude": {
                "type": "number", "minimum": ALTITUDES.start(), "maximum": ALTITUDES.end(),
                "description": "Metres above the sea, for temperatures that fit; without it the service takes those of \
                                its map."
            },
            "time_zone": {
                "type": "string",
                "description": "The time zone of the place by its IANA name, such as Europe/Oslo, in which its days begin; \
                                without it that of this board."
            }
        }),
    )
}

fn build(settings: &Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let config = Config::parse(&REGISTRATION.descriptor, &DEFAULTS, settings)?;
    let settings = Settings::new(&REGISTRATION.descriptor, settings)?;
    #[expect(clippy::cast_possible_truncation, reason = "the settings allow no number that does not fit")]
    let altitude = settings.number("altitude", ALTITUDES, "metres")?.map(|metres| metres.round() as i32);
    let time_zone =
        settings.text("time_zone", "an IANA name of a time zone, such as Europe/Oslo", None, |name| {
            printable(name).map(Some)
        })?;
    Ok(Box::new(MetNorway { config, altitude, time_zone }))
}

struct MetNorway {
    config: Config,
    altitude: Option<i32>,
    time_zone: Option<String>,
}

impl Adapter for MetNorway {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(async move {
            let Self { config, altitude, time_zone } = *self;
            let place = config.place(ID)?;
            if config.contact.is_none() {
                let what = "contact is not set: the terms of MET Norway refuse who cannot be reached, so give an \
                            e-mail address or a web page";
                return Err(unconfigured(ID, what, "contact=me@example.org"));
            }
            let server = Server::new(&ABOUT, &config, DEFAULTS.url)?;
            let service = Locationforecast {
                path: format!("{}{}", server.base, wire::path(place, altitude)),
                zone: zone(time_zone.as_deref())?,
            };
            weather::run(service, server, ctx).await
        })
    }
}

fn zone(name: Option<&str>) -> Result<TimeZone, AdapterError> {
    let Some(name) = name else { return Ok(TimeZone::system()) };
    TimeZone::get(name).map_err(|_| {
        let what = format!(
            "time_zone is {name:?}, which this system does not know: see that the package tzdata is installed, and give \
             an IANA name"
        );
        unconfigured(ID, &what, "time_zone=Europe/Oslo")
    })
}

/// Locationforecast for one place.
struct Locationforecast {
    path: String,
    zone: TimeZone,
}

impl Service for Locationforecast {
    type Answer = Vec<wire::Step>;

    fn request(&self) -> Request {
        Request::get(self.path.clone())
    }

    fn read(&self, body: &[u8]) -> Result<Self::Answer, BodyError> {
        wire::read(body)
    }

    /// Its refusals are pages of HTML; what they mean is documented (<https://docs.api.met.no/doc/StatusCodes.html>).
    fn refusal(&self, status: StatusCode, _: &[u8]) -> Option<String> {
        let words = match status {
            StatusCode::FORBIDDEN => {
                "the terms of the service were broken, or it cannot tell who asks: see that `contact` names somebody who \
                 can be reached"
            }
            StatusCode::TOO_MANY_REQUESTS => "it is asked too often from this address",
            StatusCode::UNPROCESSABLE_ENTITY => "it does not know this place: see latitude and longitude",
            _ => return None,
        };
        Some(words.to_owned())
    }

    fn view(&self, answer: &Self::Answer, now: i64) -> View {
        outlook::view(answer, &self.zone, now)
    }

    fn zone(&self, _: &Self::Answer) -> TimeZone {
        self.zone.clone()
    }
}
