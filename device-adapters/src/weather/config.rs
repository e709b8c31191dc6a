//! The settings that weather services share: the place, who asks, and how often.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use serde_json::{Value, json};

use crate::adapter::{AdapterError, Descriptor, SettingsError};
use crate::http::Origin;
use crate::net::Route;
use crate::settings::{Settings, parse_interface};

/// The longest name, contact and name of a time zone, in bytes.
const LONGEST_TEXT: usize = 100;
/// The longest time between two requests, in minutes.
const MOST_MINUTES: f64 = 1_440.0;
/// The shortest, where the server is one's own.
const LEAST_OWN_MINUTES: f64 = 0.005;

/// What holds for one service.
pub(crate) struct Defaults {
    /// The address of the public service.
    pub(crate) url: &'static str,
    /// The domain that all its servers are in.
    pub(crate) domain: &'static str,
    /// How often it is asked where nobody chose, in minutes.
    pub(crate) refresh: f64,
    /// How often the public service may be asked at most, in minutes.
    pub(crate) least: f64,
}

impl Defaults {
    /// How often a server may be asked at most, in minutes. By its host, for the terms of the public service hold however
    /// its address is written.
    fn least_at(&self, server: Option<&(Origin, String)>) -> f64 {
        let Some((Origin { host, .. }, _)) = server else { return self.least };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let before = host.strip_suffix(self.domain);
        if before.is_some_and(|before| before.is_empty() || before.ends_with('.')) {
            self.least
        } else {
            LEAST_OWN_MINUTES
        }
    }
}

/// A place to four decimals, about eleven metres: more are refused by MET Norway, and are no use to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Ten thousandths of a degree north.
    latitude: i32,
    /// Ten thousandths of a degree east.
    longitude: i32,
}

impl Place {
    /// Of degrees, -90 to 90 north and -180 to 180 east.
    pub(crate) fn new(latitude: f64, longitude: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it saturates, and degrees are far from the limits"
        )]
        let rounded = |degrees: f64| (degrees * 10_000.0).round() as i32;
        Self { latitude: rounded(latitude), longitude: rounded(longitude) }
    }

    /// Degrees north, as text.
    pub(crate) fn latitude(self) -> String {
        (f64::from(self.latitude) / 10_000.0).to_string()
    }

    /// Degrees east, as text.
    pub(crate) fn longitude(self) -> String {
        (f64::from(self.longitude) / 10_000.0).to_string()
    }
}

/// Settings, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// Degrees north.
    latitude: Option<f64>,
    /// Degrees east.
    longitude: Option<f64>,
    /// What people call it.
    pub(crate) name: Option<String>,
    /// Where the service reaches who runs this.
    pub(crate) contact: Option<String>,
    /// Whom to ask, and the path before the service's own; none for the public service.
    pub(crate) server: Option<(Origin, String)>,
    /// The shortest time between two requests while all is well.
    pub(crate) refresh: Duration,
    /// Over which interface.
    pub(crate) route: Route,
    /// Another number for other settings, those of one service among them.
    pub(crate) number: u64,
}

/// The JSON schema of the shared settings, with `more` keys of one service.
pub(crate) fn schema(defaults: &Defaults, more: Value) -> Value {
    let mut properties = json!({
        "latitude": {
            "type": "number", "minimum": -90, "maximum": 90,
            "description": "Degrees north of the equator, such as 52.52; south is negative. Needed. Rounded to four decimals."
        },
        "longitude": {
            "type": "number", "minimum": -180, "maximum": 180,
            "description": "Degrees east of Greenwich, such as 13.405; west is negative. Needed. Rounded to four decimals."
        },
        "name": { "type": "string", "description": "What this weather is called, such as the name of the place." },
        "contact": {
            "type": "string",
            "description": "An e-mail address or a web page where the service reaches you; it is sent with each request."
        },
        "url": {
            "type": "string", "default": defaults.url,
            "description": "The address of the service, where it is not the public one: http://HOST[:PORT] or \
                            https://HOST[:PORT], with or without a path."
        },
        "refresh_minutes": {
            "type": "number", "minimum": LEAST_OWN_MINUTES, "maximum": MOST_MINUTES, "default": defaults.refresh,
            "description": format!(
                "Minutes between two requests, at least {} unless `url` names a server of your own. A service that says \
                 until when its answer holds is not asked before.", defaults.least
            )
        },
        "interface": {
            "type": "string",
            "description": "The network interface to use, by its name such as eth0; without it the system chooses."
        }
    });
    if let (Some(all), Value::Object(more)) = (properties.as_object_mut(), more) {
        all.extend(more);
    }
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

impl Config {
    /// Checks the shared settings and fills in the defaults.
    pub(crate) fn parse(
        descriptor: &Descriptor,
        defaults: &Defaults,
        value: &Value,
    ) -> Result<Self, SettingsError> {
        let settings = Settings::new(descriptor, value)?;
        let text = "1 to 100 printable characters";
        let server = settings.text(
            "url",
            "http://HOST[:PORT] or https://HOST[:PORT], with or without a path, and without a password and a query",
            None,
            |text| Origin::parse(text).ok().map(Some),
        )?;
        let least = defaults.least_at(server.as_ref());
        let mut number = DefaultHasher::new();
        value.hash(&mut number);
        let minutes = settings.number("refresh_minutes", least..=MOST_MINUTES, "minutes")?;
        Ok(Self {
            latitude: settings.number("latitude", -90.0..=90.0, "degrees")?,
            longitude: settings.number("longitude", -180.0..=180.0, "degrees")?,
            name: settings.text("name", text, None, |name| printable(name).map(Some))?,
            contact: settings.text(
                "contact",
                "an e-mail address or a web page, of 1 to 100 printable ASCII characters",
                None,
                |contact| reachable(contact).map(Some),
            )?,
            server,
            refresh: Duration::from_secs_f64(minutes.unwrap_or(defaults.refresh) * 60.0),
            route: Route {
                interface: settings.text(
                    "interface",
                    "the name of a network interface, such as eth0",
                    None,
                    |text| parse_interface(text).map(Some),
                )?,
            },
            number: number.finish(),
        })
    }

    /// The place.
    ///
    /// # Errors
    /// [`AdapterError::Unconfigured`] where it is not set.
    pub(crate) fn place(&self, adapter: &'static str) -> Result<Place, AdapterError> {
        let missing = match (self.latitude, self.longitude) {
            (Some(latitude), Some(longitude)) => return Ok(Place::new(latitude, longitude)),
            (None, None) => "latitude and longitude are",
            (None, _) => "latitude is",
            (_, None) => "longitude is",
        };
        let what = format!("{missing} not set: give the place in degrees");
        Err(unconfigured(adapter, &what, "latitude=52.52 longitude=13.405"))
    }
}

/// The error of an adapter that lacks a setting, with an example of how it is set.
pub(crate) fn unconfigured(adapter: &'static str, what: &str, example: &str) -> AdapterError {
    let what = format!("{what}, such as `hearth adapter set {adapter} {example}`");
    AdapterError::Unconfigured { adapter, what }
}

/// A text that people see.
pub(crate) fn printable(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = (1..=LONGEST_TEXT).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// What a header can carry, and somebody can be reached at.
fn reachable(text: &str) -> Option<String> {
    let text = printable(text)?;
    let fits = text.chars().all(|c| c.is_ascii_graphic() || c == ' ') && text.contains(['@', '.']);
    fits.then_some(text)
}
