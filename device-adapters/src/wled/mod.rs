//! Strips and lamps that run WLED. This file asks; [`wire`] reads and writes the JSON.
//!
//! A board is one light, `wled-MAC`; one with more than one active segment is beside that one light for each segment,
//! `wled-MAC-N`. The first shows the power and the brightness of the whole and the colour, effect and palette of the main
//! segment; what it is told of those three goes to every active segment.
//!
//! Source: <https://kno.wled.ge/interfaces/json-api/>, <https://kno.wled.ge/interfaces/websocket/>.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod names;
#[cfg(test)]
mod tests;
mod wire;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::adapter::{Adapter, AdapterError, Context, Descriptor, Registration, Scope, SettingsError};
use crate::http::Request;
use crate::lan::client::Caller;
use crate::lan::config::{self, Lan};
use crate::lan::{Address, Fault, Identity, Layout, Protocol, Snapshot, fleet};
use crate::model::{Change, DeviceId};
use crate::net::Route;
use crate::settings::Settings;
use crate::websocket::{Feed, Greeting};

use self::names::Names;
use self::wire::{Info, StateAndInfo};

/// The id of the adapter, and the prefix of its device ids.
const ID: &str = "wled";
/// How devices announce themselves.
const SERVICE: &str = "_wled._tcp";
/// The least time between two requests: an ESP8266 answers one at a time.
const GAP: Duration = Duration::from_millis(150);
/// How long a WebSocket that was refused or dropped is left alone. A board has four, and drops one when a fifth comes:
/// who comes back at once takes it from somebody else.
const PAUSE: Duration = Duration::from_secs(30);

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "WLED",
        scope: Scope::Household,
        mdns: &[SERVICE],
        shows_home: false,
        settings_schema: schema,
    },
    build,
};

fn schema() -> serde_json::Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": config::properties("WLED devices"),
    })
}

fn build(settings: &serde_json::Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let lan = Lan::parse(&Settings::new(&REGISTRATION.descriptor, settings)?)?;
    Ok(Box::new(Wled { lan }))
}

struct Wled {
    lan: Lan,
}

impl Adapter for Wled {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(fleet::run::<Json>(self.lan, (), ctx))
    }
}

/// The JSON API of one board.
struct Json {
    caller: Caller,
    names: Names,
    /// What the board showed last; what a change of one segment means depends on the others.
    shown: Option<StateAndInfo>,
}

impl Protocol for Json {
    type Settings = ();

    const ID: &'static str = ID;
    const SERVICE: &'static str = SERVICE;

    fn new((): &(), route: &Route, to: &Address) -> Self {
        Self { caller: Caller::new(route, &to.origin, GAP), names: Names::default(), shown: None }
    }

    fn move_to(&mut self, to: Address) {
        self.caller.move_to(to.origin);
    }

    fn ready(&self) -> Instant {
        self.caller.ready()
    }

    async fn identify(&mut self) -> Result<Identity, Fault> {
        let info: Info = self.get("/json/info").await?;
        self.meet(info.identity())
    }

    async fn describe(&mut self) -> Result<Layout, Fault> {
        let both = self.look().await?;
        let effects = self.get("/json/eff").await?;
        let palettes = self.get("/json/pal").await?;
        self.names = Names::new(effects, palettes);
        let devices = wire::describe(&both, &self.names, &self.caller.origin().to_string());
        self.shown = Some(both);
        let devices = devices.map_err(|why| self.wrong(&why))?;
        Ok(Layout { devices, ..Layout::default() })
    }

    async fn read(&mut self) -> Result<Snapshot, Fault> {
        let both = self.look().await?;
        self.take(both)
    }

    async fn change(&mut self, device: &DeviceId, change: &Change) -> Result<(), Fault> {
        let Change::Light(light) = change else {
            return Err(Fault::Rejected(format!("{device} is a light")));
        };
        // A board that is told a brightness alone goes on, so it has to be told whether it is on now, not some time ago.
        let leaves_power = light.brightness.is_some() && light.on.is_none();
        let shown = match self.shown.clone().filter(|_| !leaves_power) {
            Some(shown) => shown,
            None => self.look().await?,
        };
        let body = wire::change(&shown, &self.names, device, light).map_err(Fault::Rejected)?;
        let request = Request::json(Method::POST, "/json/state", &body);
        let answer = self.caller.send(request).await?;
        let told: serde_json::Value = self.caller.read("/json/state", &answer)?;
        match told.get("success") {
            Some(serde_json::Value::Bool(true)) => Ok(()),
            _ => Err(self.wrong("it does not say \"success\": true to a change")),
        }
    }

    fn feed(&self) -> Feed {
        let (route, to) = (self.caller.route().clone(), self.caller.origin().clone());
        Feed::start(route, to, "/ws", Listens, PAUSE)
    }

    fn told(&mut self, text: &str) -> Result<Snapshot, Fault> {
        // Other answers of the socket are of no interest: those to the changes of others, live pictures of the LEDs.
        let Ok(both) = serde_json::from_str::<StateAndInfo>(text) else { return Ok(Snapshot::default()) };
        self.meet(both.identity())?;
        self.take(both)
    }
}

impl Json {
    async fn get<T: serde::de::DeserializeOwned>(&mut self, path: &str) -> Result<T, Fault> {
        let answer = self.caller.send(Request::get(path)).await?;
        self.caller.read(path, &answer)
    }

    /// What the board shows now.
    async fn look(&mut self) -> Result<StateAndInfo, Fault> {
        let both: StateAndInfo = self.get("/json/si").await?;
        self.meet(both.identity())?;
        Ok(both)
    }

    fn meet(&mut self, identity: Result<Identity, String>) -> Result<Identity, Fault> {
        let identity = identity.map_err(|why| self.wrong(&why))?;
        self.caller.meets(&identity.hardware)?;
        Ok(identity)
    }

    fn take(&mut self, both: StateAndInfo) -> Result<Snapshot, Fault> {
        let mut snapshot = wire::snapshot(&both, &self.names).map_err(|why| self.wrong(&why))?;
        snapshot.is_changed = self.shown.as_ref().is_none_or(|shown| !shown.has_layout_of(&both));
        self.shown = Some(both);
        Ok(snapshot)
    }

    fn wrong(&self, why: &str) -> Fault {
        Fault::Failed(format!("{} does not speak the protocol: {why}", self.caller.origin()))
    }
}

/// A board tells its state by itself, at the beginning and after each change.
struct Listens;

impl Greeting for Listens {
    fn open(&mut self) -> Option<String> {
        None
    }

    fn answer(&mut self, _: &str) -> Result<Option<String>, String> {
        Ok(None)
    }
}
