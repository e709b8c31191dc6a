//! The frames of Shelly's RPC, and who a device says that it is. Pure.
//!
//! Source: <https://shelly-api-docs.shelly.cloud/gen2/General/RPCProtocol>,
//! <https://shelly-api-docs.shelly.cloud/gen2/General/Notifications>,
//! <https://shelly-api-docs.shelly.cloud/gen2/General/Authentication>.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest::{self, Credentials, DigestError};
use crate::http::Origin;
use crate::lan::{Fault, Identity, hardware, readable};
use crate::model::{Capabilities, Description, DeviceId, Sensors};

use super::ID;

/// What this side calls itself.
const SOURCE: &str = "hearth";
/// The longest name, in characters.
const MOST_NAME: usize = 48;
/// The most events of one frame.
const MOST_EVENTS: usize = 32;
/// The longest time between two wakings that is believed.
const MOST_SLEEP: u64 = 7 * 24 * 3_600;
/// What stands for the method and the URI in the frames of a WebSocket.
const SUBJECT: &str = "dummy_method:dummy_uri";

/// What `/shelly` and `Shelly.GetDeviceInfo` tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    name: Option<String>,
    mac: String,
    model: String,
    #[serde(rename = "gen")]
    generation: Option<u8>,
    ver: Option<String>,
    app: Option<String>,
    auth_en: Option<bool>,
    /// Of the first generation.
    #[serde(rename = "type")]
    first: Option<String>,
}

/// A frame as it comes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    id: Option<u64>,
    method: Option<String>,
    params: Option<Value>,
    result: Option<Value>,
    error: Option<RpcError>,
    /// An error without its frame, which HTTP brings where the frame itself was not understood.
    code: Option<i64>,
    message: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct RpcError {
    code: i64,
    message: Value,
}

/// What a frame of the WebSocket means.
#[derive(Debug)]
pub(super) enum Answer {
    /// A status, of all or of what changed.
    Status {
        /// By component.
        status: Value,
        /// Whether it is all.
        is_whole: bool,
    },
    /// What happened.
    Events(Vec<Event>),
    /// The device wants to know who asks.
    Challenged(FrameChallenge),
    /// The device does not want to tell.
    Refused(String),
}

/// What happened to a component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) component: String,
    pub(super) event: String,
}

/// The challenge in a frame.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct FrameChallenge {
    realm: String,
    /// A number in old firmware, a text in new.
    nonce: Value,
    /// Which use of the nonce the next is; a text on one model.
    #[serde(default)]
    nc: Value,
    algorithm: String,
}

impl Info {
    /// Who it is.
    pub(super) fn identity(&self) -> Result<Identity, String> {
        match (self.generation, &self.first) {
            (Some(2..), _) => {}
            (None, Some(_)) | (Some(_), _) => {
                return Err(
                    "a Shelly of generation 1, which speaks another protocol: it is left alone".to_owned()
                );
            }
            (None, None) => return Err("it does not say that it is a Shelly".to_owned()),
        }
        let hardware =
            hardware(&self.mac).ok_or_else(|| format!("{:?} is no MAC address", readable(&self.mac, 20)))?;
        let fingerprint = format!("{:?} {:?} {:?}", self.name, self.ver, self.auth_en);
        Ok(Identity { hardware, fingerprint: readable(&fingerprint, 200) })
    }

    /// The id of the device, or of a part of it such as `switch-0`.
    pub(super) fn device(&self, part: Option<&str>) -> Result<DeviceId, String> {
        let hardware = self.identity()?.hardware;
        let id = match part {
            Some(part) => format!("{ID}-{hardware}-{part}"),
            None => format!("{ID}-{hardware}"),
        };
        DeviceId::new(id).map_err(|error| error.to_string())
    }

    /// The device itself, without sensors.
    pub(super) fn describe(&self, place: &str, note: Option<String>) -> Result<Description, String> {
        let model = readable(&self.model, MOST_NAME);
        let app = self.app.as_deref().map(|app| readable(app, MOST_NAME)).filter(|app| !app.is_empty());
        let model = match (app, model.is_empty()) {
            (Some(app), false) => format!("{app} ({model})"),
            (Some(app), true) => app,
            (None, false) => model,
            (None, true) => "unknown".to_owned(),
        };
        Ok(Description {
            id: self.device(None)?,
            adapter: ID.to_owned(),
            name: readable(self.name.as_deref().unwrap_or_default(), MOST_NAME),
            manufacturer: "Shelly".to_owned(),
            model,
            firmware: self.ver.as_deref().map(|version| readable(version, MOST_NAME)),
            address: Some(place.to_owned()),
            capabilities: Capabilities::Sensor,
            sensors: Sensors::new(),
            note,
        })
    }
}

impl Told {
    /// What the call of that id resulted in.
    pub(super) fn result(self, id: u64, method: &str, from: &Origin) -> Result<Value, Fault> {
        let bare = self.code.map(|code| RpcError { code, message: self.message.unwrap_or_default() });
        if let Some(RpcError { code, message }) = self.error.or(bare) {
            let message = readable(message.as_str().unwrap_or_default(), 120);
            return Err(Fault::Rejected(format!("{from} answers {method} with error {code}: {message}")));
        }
        match self.result {
            Some(result) if self.id == Some(id) => Ok(result),
            Some(_) => {
                Err(Fault::Failed(format!("{from} answers {method} with the answer to another request")))
            }
            None => Err(Fault::Failed(format!("{from} answers {method} with neither a result nor an error"))),
        }
    }
}

impl FrameChallenge {
    /// The member `auth` of the next frame.
    pub(super) fn answer(&self, by: &Credentials) -> Result<Value, DigestError> {
        if self.algorithm != "SHA-256" {
            return Err(DigestError::Algorithm(self.algorithm.clone()));
        }
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let count = if self.nc.is_null() { 1 } else { text(&self.nc).parse::<u32>().unwrap_or(1) };
        let challenge = digest::Challenge::new(self.realm.clone(), text(&self.nonce));
        let cnonce = digest::cnonce()?;
        let response = challenge.response(by, &count.to_string(), &cnonce, SUBJECT);
        Ok(json!({
            "realm": self.realm, "username": by.user, "nonce": self.nonce, "nc": count, "cnonce": cnonce,
            "response": response, "algorithm": self.algorithm,
        }))
    }
}

/// A request.
pub(super) fn frame(id: u64, method: &str, parameters: Option<Value>, authorization: Option<Value>) -> Value {
    let mut frame = json!({ "id": id, "src": SOURCE, "method": method });
    let members = [("params", parameters), ("auth", authorization)];
    for (name, value) in members.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        if let Some(frame) = frame.as_object_mut() {
            frame.insert(name.to_owned(), value);
        }
    }
    frame
}

/// What a text of the WebSocket means; none of what is not for us.
pub(super) fn read(text: &str) -> Option<Answer> {
    let told: Told = serde_json::from_str(text).ok()?;
    match (told.method.as_deref(), told.params, told.result, told.error) {
        (Some("NotifyStatus"), Some(status), ..) => Some(Answer::Status { status, is_whole: false }),
        (Some("NotifyFullStatus"), Some(status), ..) => Some(Answer::Status { status, is_whole: true }),
        (Some("NotifyEvent"), Some(params), ..) => {
            let events = params.get("events")?.as_array()?.iter().take(MOST_EVENTS);
            let read = events.filter_map(|event| Event::deserialize(event).ok());
            Some(Answer::Events(read.collect()))
        }
        (None, _, _, Some(RpcError { code: 401, message })) => {
            let challenge = match &message {
                Value::String(text) => serde_json::from_str(text).ok(),
                other => FrameChallenge::deserialize(other).ok(),
            };
            Some(challenge.map_or_else(
                || Answer::Refused("it refuses without a challenge".to_owned()),
                Answer::Challenged,
            ))
        }
        (None, _, _, Some(RpcError { code, message })) => {
            let message = readable(message.as_str().unwrap_or_default(), 120);
            Some(Answer::Refused(format!("it refuses with error {code}: {message}")))
        }
        (None, _, Some(status), None) => Some(Answer::Status { status, is_whole: true }),
        _ => None,
    }
}

/// The MAC address in a status.
pub(super) fn hardware_in(status: &Value) -> Option<String> {
    hardware(status.pointer("/sys/mac")?.as_str()?)
}

/// How long a device sleeps between two wakings; none of one that does not.
pub(super) fn sleeps(status: &Value) -> Option<Duration> {
    let seconds = status.pointer("/sys/wakeup_period")?.as_u64()?;
    (seconds > 0).then(|| Duration::from_secs(seconds.min(MOST_SLEEP)))
}
