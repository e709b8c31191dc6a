//! Shelly devices of the second generation and later. This file asks; [`wire`] and [`parts`] read and write the JSON.
//!
//! Each channel that can be controlled is a device of its own, `shelly-MAC-switch-0`, and each button that is wired to an
//! input, `shelly-MAC-input-0`; sensors that belong to no channel are on `shelly-MAC`. Requests go by HTTP, and what happens
//! is told over the WebSocket. What a device is made of takes two requests, which every node makes that finds it; all else
//! its owner alone asks for. Covers are not driven, and devices of the first generation are not spoken to.
//!
//! What answers a challenge lets the one who made it guess the password as fast as they can compute. So it is answered only
//! where a person said that a device is (`addresses`), and at another address only to the device that accepted it there.
//!
//! A device on a battery sleeps and cannot be asked: it is read when it announces itself on waking, and counts as
//! online until nothing was heard of it for twice the time between two wakings.
//!
//! Source: <https://shelly-api-docs.shelly.cloud/gen2/>.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod parts;
#[cfg(test)]
mod tests;
mod wire;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::adapter::{
    Adapter, AdapterError, Context, Descriptor, Registration, Scope, Secret, SettingsError,
};
use crate::digest::{Challenge, Credentials};
use crate::http::{Request, Response};
use crate::lan::client::Caller;
use crate::lan::config::{self, Lan};
use crate::lan::{Address, Fault, Identity, Layout, Protocol, Snapshot, fleet};
use crate::model::{Change, DeviceId};
use crate::net::Route;
use crate::settings::Settings;
use crate::websocket::{Feed, Greeting};

use self::parts::Parts;
use self::wire::{Answer, Info};

/// The id of the adapter, and the prefix of its device ids.
const ID: &str = "shelly";
/// How devices announce themselves.
const SERVICE: &str = "_shelly._tcp";
/// The least time between two requests.
const GAP: Duration = Duration::from_millis(125);
/// How long a WebSocket that was refused or dropped is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest password.
const MOST_PASSWORD: usize = 128;
/// Where requests go.
const RPC: &str = "/rpc";

/// The adapter's line in the registry.
pub(crate) const REGISTRATION: Registration = Registration {
    descriptor: Descriptor {
        id: ID,
        name: "Shelly (generation 2 and later)",
        scope: Scope::Household,
        mdns: &[SERVICE],
        shows_home: false,
        settings_schema: schema,
    },
    build,
};

fn schema() -> Value {
    let mut properties = config::properties("Shelly devices of generation 2 and later");
    let password = json!({
        "type": "string", "writeOnly": true,
        "description": "The password of the Shelly devices that ask for one; the same for all. The user is always admin. \
                        Devices that ask for it have to be named in addresses: it is not used for what only announces itself."
    });
    properties.insert("password".to_owned(), password);
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn build(settings: &Value) -> Result<Box<dyn Adapter>, SettingsError> {
    let checked = Settings::new(&REGISTRATION.descriptor, settings)?;
    let lan = Lan::parse(&checked)?;
    let is_fit = |text: &str| text.chars().count() <= MOST_PASSWORD && !text.chars().any(char::is_control);
    let password = |text: &str| is_fit(text).then(|| Some(text.to_owned()).filter(|text| !text.is_empty()));
    let password = checked.text("password", "a text of at most 128 characters", None, password);
    let password = password.map_err(|error| match error {
        // The value is a secret, whatever is wrong with it.
        SettingsError::Invalid { adapter, key, rule, .. } => {
            SettingsError::Invalid { adapter, key, value: "not shown".to_owned(), rule }
        }
        other => other,
    })?;
    let credentials = password.map(|password| Credentials { user: "admin", password: Secret(password) });
    Ok(Box::new(Shelly { lan, credentials }))
}

struct Shelly {
    lan: Lan,
    credentials: Option<Credentials>,
}

impl Adapter for Shelly {
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>> {
        Box::pin(fleet::run::<Rpc>(self.lan, self.credentials, ctx))
    }
}

/// The RPC of one device.
struct Rpc {
    caller: Caller,
    credentials: Option<Credentials>,
    /// A person named the address in the settings.
    named: bool,
    /// It accepted the password, at this address or another.
    accepted: bool,
    challenge: Option<Challenge>,
    requests: u64,
    info: Option<Info>,
    parts: Parts,
}

impl Protocol for Rpc {
    type Settings = Option<Credentials>;

    const ID: &'static str = ID;
    const SERVICE: &'static str = SERVICE;

    fn new(credentials: &Option<Credentials>, route: &Route, to: &Address) -> Self {
        Self {
            caller: Caller::new(route, &to.origin, GAP),
            credentials: credentials.clone(),
            named: to.configured,
            accepted: false,
            challenge: None,
            requests: 0,
            info: None,
            parts: Parts::default(),
        }
    }

    fn move_to(&mut self, to: Address) {
        // What the board at the old address asked to be answered is no business of the one at the new.
        self.challenge = None;
        self.named = to.configured;
        self.caller.move_to(to.origin);
    }

    fn ready(&self) -> Instant {
        self.caller.ready()
    }

    async fn identify(&mut self) -> Result<Identity, Fault> {
        // Not protected, whatever the device's password (General/Authentication).
        let answer = self.caller.send(Request::get("/shelly")).await?;
        let info: Info = self.caller.read("/shelly", &answer)?;
        let identity =
            info.identity().map_err(|why| Fault::Failed(format!("{}: {why}", self.caller.origin())))?;
        self.caller.meets(&identity.hardware)?;
        self.info = Some(info);
        Ok(identity)
    }

    async fn describe(&mut self) -> Result<Layout, Fault> {
        self.identify().await?;
        let config = self.call("Shelly.GetConfig", None).await;
        let status = match &config {
            Ok(_) => self.status().await,
            Err(fault) => Err(fault.clone()),
        };
        let (Some(info), place) = (&self.info, self.caller.origin().to_string()) else {
            return Err(Fault::Failed("who the device is, is not known".to_owned()));
        };
        match (config, status) {
            (Err(Fault::Locked(why)), _) | (_, Err(Fault::Locked(why))) => {
                let device = info.describe(&place, Some(why)).map_err(Fault::Failed)?;
                Ok(Layout { devices: vec![device], sleeps: None, provisional: true })
            }
            (Ok(config), Ok(status)) => {
                let (parts, devices) = Parts::of(info, &config, &status, &place).map_err(Fault::Failed)?;
                self.parts = parts;
                Ok(Layout { devices, sleeps: wire::sleeps(&status), provisional: false })
            }
            (Err(fault), _) | (_, Err(fault)) => Err(fault),
        }
    }

    async fn read(&mut self) -> Result<Snapshot, Fault> {
        let status = self.status().await?;
        self.parts.take(&status, true).ok_or_else(|| {
            Fault::Failed(format!("{} tells a status that is no object", self.caller.origin()))
        })
    }

    async fn change(&mut self, device: &DeviceId, change: &Change) -> Result<(), Fault> {
        let (method, parameters) = self.parts.change(device, change).map_err(Fault::Rejected)?;
        self.call(method, Some(parameters)).await?;
        Ok(())
    }

    fn feed(&self) -> Feed {
        let (route, to) = (self.caller.route().clone(), self.caller.origin().clone());
        let greeting = Asks { credentials: self.credentials().cloned(), was_challenged: false };
        Feed::start(route, to, RPC, greeting, PAUSE)
    }

    fn told(&mut self, text: &str) -> Result<Snapshot, Fault> {
        Ok(match wire::read(text) {
            Some(Answer::Status { status, is_whole }) => {
                self.meet(&status)?;
                self.parts.take(&status, is_whole).unwrap_or_default()
            }
            Some(Answer::Events(events)) => self.parts.events(&events),
            Some(Answer::Refused { .. } | Answer::Challenged { .. }) | None => Snapshot::default(),
        })
    }
}

impl Rpc {
    async fn status(&mut self) -> Result<Value, Fault> {
        let status = self.call("Shelly.GetStatus", None).await?;
        self.meet(&status)?;
        Ok(status)
    }

    /// A status says whose it is; what changed says it seldom.
    fn meet(&mut self, status: &Value) -> Result<(), Fault> {
        wire::hardware_in(status).map_or(Ok(()), |hardware| self.caller.meets(&hardware))
    }

    /// Who asks, where that may be proved.
    fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref().filter(|_| self.named || self.accepted)
    }

    /// Calls a method over HTTP, and gives what it results in.
    async fn call(&mut self, method: &str, parameters: Option<Value>) -> Result<Value, Fault> {
        self.requests += 1;
        let frame = wire::frame(self.requests, method, parameters, None);
        let mut answer = self.post(&frame).await?;
        // Once for a nonce that is not known yet or has grown old, and never twice with the same password.
        if answer.status == StatusCode::UNAUTHORIZED {
            self.challenge = Some(self.challenged(&answer)?);
            answer = self.post(&frame).await?;
        }
        if answer.status == StatusCode::UNAUTHORIZED {
            self.challenge = None;
            return Err(self.locked("refuses the password: set \"password\" of shelly"));
        }
        self.accepted |= self.challenge.is_some();
        let told: wire::Told = match answer.status.is_success() {
            true => self.caller.read(RPC, &answer)?,
            // An error of the method comes with a status of its own.
            false => match serde_json::from_slice(&answer.body) {
                Ok(told) => told,
                Err(_) => return self.caller.read(RPC, &answer),
            },
        };
        told.result(self.requests, method, self.caller.origin())
    }

    /// What the device wants to have answered, if that may be answered.
    fn challenged(&mut self, answer: &Response) -> Result<Challenge, Fault> {
        let before = self.challenge.take();
        if self.credentials.is_none() {
            return Err(self.locked("asks for a password: set \"password\" of shelly"));
        }
        if self.credentials().is_none() {
            return Err(self.locked(
                "asks for the password, which is not used for what only announces itself: if it is yours, add its address to \
                 \"addresses\" of shelly",
            ));
        }
        let challenge = Challenge::parse(answer.header("www-authenticate").unwrap_or_default());
        let challenge = challenge.map_err(|why| {
            self.locked(&format!("wants to know who asks: {why}: set \"password\" of shelly"))
        })?;
        // The realm is the device.
        if before.is_some_and(|before| before.realm != challenge.realm) {
            return Err(Fault::Failed(format!(
                "another device asks for the password at {}",
                self.caller.origin()
            )));
        }
        Ok(challenge)
    }

    async fn post(&mut self, frame: &Value) -> Result<Response, Fault> {
        let mut request = Request::json(Method::POST, RPC, frame);
        if let (Some(challenge), Some(by)) = (&mut self.challenge, &self.credentials) {
            let header = challenge.authorize("POST", RPC, by);
            request =
                request.header("authorization", header.map_err(|error| Fault::Failed(error.to_string()))?);
        }
        self.caller.send(request).await
    }

    fn locked(&self, what: &str) -> Fault {
        Fault::Locked(format!("the Shelly at {} {what}", self.caller.origin()))
    }
}

/// Asks for the status once, after which a device tells what changes (General/Notifications).
struct Asks {
    credentials: Option<Credentials>,
    was_challenged: bool,
}

impl Greeting for Asks {
    fn open(&mut self) -> Option<String> {
        self.was_challenged = false;
        Some(wire::frame(1, "Shelly.GetStatus", None, None).to_string())
    }

    fn answer(&mut self, text: &str) -> Result<Option<String>, String> {
        match wire::read(text) {
            Some(Answer::Challenged(challenge)) => {
                let by = self.credentials.as_ref().filter(|_| !self.was_challenged);
                let by = by.ok_or("it wants a password, or another one")?;
                self.was_challenged = true;
                let authorization = challenge.answer(by).map_err(|error| error.to_string())?;
                Ok(Some(wire::frame(2, "Shelly.GetStatus", None, Some(authorization)).to_string()))
            }
            Some(Answer::Refused(why)) => Err(why),
            _ => Ok(None),
        }
    }
}
