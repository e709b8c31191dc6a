//! A fake Shelly of the second generation, written from <https://shelly-api-docs.shelly.cloud/gen2/>.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use device_adapters::Hint;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::web::{Heard, Reply, Site, Web};
use super::wled::hint;

/// What the device calls itself, which is also the realm of its password.
const NAME: &str = "shellyfake-a8032ab12345";
/// The first nonce of HTTP, told in hexadecimal, and that of frames.
const HTTP_NONCE: u64 = 0x60dc_2c69;
const FRAME_NONCE: u64 = 1_625_038_762;

/// A Shelly device.
#[derive(Debug)]
pub struct Shelly {
    /// Its server.
    pub web: Web,
    board: Arc<Board>,
}

#[derive(Debug)]
struct Board {
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Shown {
    info: Value,
    status: Value,
    config: Value,
    password: Option<String>,
    ignores: bool,
    /// How often each nonce of HTTP was used. Everybody who is turned away gets another one.
    nonces: BTreeMap<String, u64>,
    /// How many answers to its challenges were given.
    answers: usize,
    /// Methods that were called, with their parameters.
    called: Vec<(String, Value)>,
    /// What is told after an answer.
    news: Vec<Value>,
}

impl Shelly {
    /// Its MAC address, as it is in ids.
    pub const MAC: &'static str = "a8032ab12345";

    /// A device with one of everything; protected when it has a password.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(password: Option<&str>) -> Result<Self> {
        let info = json!({
            "name": "Cellar", "id": NAME, "mac": "A8032AB12345", "slot": 0, "model": "SNSW-001P16EU", "gen": 2,
            "fw_id": "20240819-074343/1.4.2-gc2639da", "ver": "1.4.2", "app": "Plus1PM", "auth_en": password.is_some(),
            "auth_domain": password.map(|_| NAME),
        });
        let shown = Shown {
            info,
            status: status(),
            config: config(),
            password: password.map(str::to_owned),
            ignores: false,
            nonces: BTreeMap::new(),
            answers: 0,
            called: Vec::new(),
            news: Vec::new(),
        };
        let board = Arc::new(Board { shown: Mutex::new(shown) });
        Ok(Self { web: Web::start(board.clone()).await?, board })
    }

    /// What announces it.
    #[must_use]
    pub fn hint(&self) -> Hint {
        hint("_shelly._tcp", NAME, self.web.address(), BTreeMap::from([("gen".into(), "2".into())]))
    }

    /// What a component shows.
    #[must_use]
    pub fn status(&self, component: &str) -> Value {
        self.board.shown().status[component].clone()
    }

    /// The methods that were called so far, with their parameters.
    #[must_use]
    pub fn called(&self) -> Vec<(String, Value)> {
        self.board.shown().called.clone()
    }

    /// How many answers to its challenges were given, right or wrong.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.board.shown().answers
    }

    /// The two devices take each other's address, as a router may lend them: this is the other device at the old address.
    pub fn swap_addresses(&self, other: &Self) {
        std::mem::swap(&mut *self.board.shown(), &mut *other.board.shown());
    }

    /// It has another MAC address.
    pub fn set_hardware(&self, mac: &str) {
        let mut shown = self.board.shown();
        (shown.info["mac"], shown.status["sys"]["mac"]) = (json!(mac), json!(mac));
    }

    /// A component changes by itself, and is told to who listens.
    pub fn set(&self, component: &str, change: &Value) {
        merge(&mut self.board.shown().status[component], change);
        self.notify("NotifyStatus", &json!({ "ts": 1.5, component: change }));
    }

    /// Something happens to a component.
    pub fn event(&self, component: &str, event: &str) {
        self.notify(
            "NotifyEvent",
            &json!({ "ts": 1.5, "events": [{ "component": component, "id": 0, "event": event, "ts": 1.5 }] }),
        );
    }

    /// What it says of itself changes.
    pub fn set_info(&self, key: &str, value: Value) {
        self.board.shown().info[key] = value;
    }

    /// A component's settings change.
    pub fn configure(&self, component: &str, change: &Value) {
        merge(&mut self.board.shown().config[component], change);
    }

    /// Takes what it is told, and does not do it.
    pub fn ignore_changes(&self, ignores: bool) {
        self.board.shown().ignores = ignores;
    }

    /// The nonces are used up: who goes on counting is asked again.
    pub fn forget_nonces(&self) {
        self.board.shown().nonces.values_mut().for_each(|count| *count = u64::MAX);
    }

    fn notify(&self, method: &str, params: &Value) {
        let frame = json!({ "src": NAME, "dst": "hearth", "method": method, "params": params });
        self.web.tell(frame.to_string());
    }
}

fn status() -> Value {
    json!({
        "ble": {}, "cloud": { "connected": false },
        "switch:0": {
            "id": 0, "source": "init", "output": false, "apower": 0.0, "voltage": 230.4, "freq": 50.0, "current": 0.0,
            "aenergy": { "total": 12_345.678, "by_minute": [0.0, 0.0, 0.0], "minute_ts": 1_700_000_000 },
            "temperature": { "tC": 41.27, "tF": 106.3 },
        },
        "light:0": { "id": 0, "source": "init", "output": true, "brightness": 50.0 },
        "rgbw:0": { "id": 0, "source": "init", "output": true, "brightness": 80, "rgb": [255, 0, 0], "white": 0 },
        "rgb:0": { "id": 0, "source": "init", "output": true, "brightness": 80, "rgb": [0, 0, 255] },
        "cct:0": { "id": 0, "source": "init", "output": true, "brightness": 30, "ct": 3_000 },
        "input:0": { "id": 0, "state": null },
        "input:1": { "id": 1, "state": false },
        "cover:0": { "id": 0, "state": "stopped" },
        "temperature:100": { "id": 100, "tC": 21.5, "tF": 70.7 },
        "humidity:0": { "id": 0, "rh": 48.6 },
        "smoke:0": { "id": 0, "alarm": false, "mute": false },
        "em:0": {
            "id": 0, "a_current": 1.0, "a_voltage": 229.9, "a_act_power": 220.5, "a_freq": 50.0,
            "b_current": 2.0, "b_voltage": 230.1, "b_act_power": 440.1, "c_current": 0.0, "c_voltage": 230.0,
            "c_act_power": -12.0, "total_current": 3.0, "total_act_power": 648.6,
        },
        "mqtt": { "connected": false },
        "sys": { "mac": "A8032AB12345", "restart_required": false, "uptime": 1_000, "ram_free": 100_000, "cfg_rev": 10 },
        "wifi": { "sta_ip": "127.0.0.1", "status": "got ip", "ssid": "home", "rssi": -58 },
        "ws": { "connected": false },
    })
}

fn config() -> Value {
    json!({
        "switch:0": { "id": 0, "name": "Pump", "in_mode": "follow", "initial_state": "off" },
        "light:0": { "id": 0, "name": null },
        "rgbw:0": { "id": 0, "name": null },
        "rgb:0": { "id": 0, "name": null },
        "cct:0": { "id": 0, "name": null, "ct_range": [2_700, 6_500] },
        "input:0": { "id": 0, "name": "Bell", "type": "button", "invert": false },
        "input:1": { "id": 1, "name": "Door", "type": "switch", "invert": false },
        "cover:0": { "id": 0, "name": null },
        "sys": { "device": { "name": "Cellar", "mac": "A8032AB12345", "fw_id": "20240819-074343/1.4.2-gc2639da" } },
        "wifi": {}, "ws": { "enable": false, "server": null },
    })
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

impl Board {
    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// The answer to a frame; the error 401 of a method that is protected is made by who asks.
    fn call(&mut self, frame: &Value) -> Value {
        let method = frame["method"].as_str().unwrap_or_default().to_owned();
        let params = frame.get("params").cloned().unwrap_or(Value::Null);
        self.called.push((method.clone(), params.clone()));
        let component = method.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let key = format!("{component}:{}", params["id"]);
        let result = match method.as_str() {
            "Shelly.GetDeviceInfo" => Ok(self.info.clone()),
            "Shelly.GetStatus" => Ok(self.status.clone()),
            "Shelly.GetConfig" => Ok(self.config.clone()),
            "Shelly.GetComponents" => Ok(json!({ "components": [], "cfg_rev": 1, "offset": 0, "total": 0 })),
            "Switch.Set" | "Light.Set" | "RGB.Set" | "RGBW.Set" | "CCT.Set"
                if self.status.get(&key).is_some() =>
            {
                Ok(self.set(&key, &params))
            }
            _ => Err(
                json!({ "code": -105, "message": format!("Argument 'id', value {} not found!", params["id"]) }),
            ),
        };
        match result {
            Ok(result) => json!({ "id": frame["id"], "src": NAME, "dst": frame["src"], "result": result }),
            Err(error) => json!({ "id": frame["id"], "src": NAME, "dst": frame["src"], "error": error }),
        }
    }

    fn set(&mut self, key: &str, params: &Value) -> Value {
        let was_on = self.status[key]["output"].clone();
        if self.ignores {
            return json!({ "was_on": was_on });
        }
        let mut change = json!({ "source": "HTTP_in" });
        for (name, value) in params.as_object().into_iter().flatten() {
            match name.as_str() {
                "on" => change["output"] = value.clone(),
                "id" | "transition_duration" => {}
                _ => change[name] = value.clone(),
            }
        }
        merge(&mut self.status[key], &change);
        self.news.push(json!({ key: change }));
        json!({ "was_on": was_on })
    }

    /// Whether who asks knows the password: RFC 7616, with `subject` for the method and the URI.
    fn knows(&mut self, given: &BTreeMap<String, String>, subject: &str, is_frame: bool) -> bool {
        self.answers += usize::from(!given.is_empty());
        let Some(password) = &self.password else { return true };
        let of = |name: &str| given.get(name).map(String::as_str).unwrap_or_default();
        let secret = hash(&format!("admin:{NAME}:{password}"));
        let (nonce, nc, cnonce) = (of("nonce"), of("nc"), of("cnonce"));
        let wanted = hash(&format!("{secret}:{nonce}:{nc}:{cnonce}:auth:{}", hash(subject)));
        let frames = FRAME_NONCE.to_string();
        // The same use of a nonce twice is somebody who listened.
        let is_fresh = if is_frame {
            nonce == frames
        } else {
            let count = u64::from_str_radix(nc, 16).unwrap_or(0);
            let is_next = self.nonces.get(nonce).is_some_and(|last| count > *last);
            if is_next {
                self.nonces.insert(nonce.to_owned(), count);
            }
            is_next
        };
        let fits = of("username") == "admin" && of("realm") == NAME && of("response") == wanted;
        fits && is_fresh && !cnonce.is_empty()
    }

    /// A nonce that nobody had before.
    fn nonce(&mut self) -> String {
        let number = HTTP_NONCE + u64::try_from(self.nonces.len()).unwrap_or(0);
        let nonce = format!("{number:x}");
        self.nonces.insert(nonce.clone(), 0);
        nonce
    }
}

fn hash(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The parameters of a header `Authorization`.
fn parameters(header: &str) -> BTreeMap<String, String> {
    let pairs = header.trim_start_matches("Digest ").split(", ").filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// The members of `auth`.
fn members(frame: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let members = frame["auth"].as_object().into_iter().flatten();
    members.map(|(name, value)| (name.clone(), text(value))).collect()
}

impl Site for Board {
    fn answer(&self, heard: &Heard) -> Reply {
        let mut shown = self.shown();
        if heard.path == "/shelly" {
            return Reply::good(shown.info.clone());
        }
        if heard.path != "/rpc" || heard.method != "POST" {
            return Reply::status(404);
        }
        let given = parameters(heard.headers.get("authorization").map(String::as_str).unwrap_or_default());
        let is_open = heard.body["method"] == "Shelly.GetDeviceInfo";
        if !is_open && !shown.knows(&given, "POST:/rpc", false) {
            let nonce = shown.nonce();
            let challenge =
                format!("Digest qop=\"auth\", realm=\"{NAME}\", nonce=\"{nonce}\", algorithm=SHA-256");
            return Reply { headers: vec![("WWW-Authenticate", challenge)], ..Reply::status(401) };
        }
        let answer = shown.call(&heard.body);
        let status = if answer.get("error").is_some() { 500 } else { 200 };
        Reply { status, ..Reply::good(answer) }
    }

    fn socket(&self) -> &'static str {
        "/rpc"
    }

    fn open(&self) -> Option<String> {
        None
    }

    fn said(&self, text: &str) -> (Option<String>, bool) {
        let frame: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let mut shown = self.shown();
        let is_open = frame["method"] == "Shelly.GetDeviceInfo";
        if !is_open && !shown.knows(&members(&frame), "dummy_method:dummy_uri", true) {
            let challenge = json!({
                "auth_type": "digest", "nonce": FRAME_NONCE, "nc": 1, "realm": NAME, "algorithm": "SHA-256",
            });
            let error = json!({ "code": 401, "message": challenge.to_string() });
            let answer = json!({ "id": frame["id"], "src": NAME, "dst": frame["src"], "error": error });
            return (Some(answer.to_string()), false);
        }
        (Some(shown.call(&frame).to_string()), frame.get("src").is_some())
    }

    fn news(&self) -> Vec<String> {
        let news = std::mem::take(&mut self.shown().news);
        let frame = |mut params: Value| {
            params["ts"] = json!(1.5);
            json!({ "src": NAME, "dst": "hearth", "method": "NotifyStatus", "params": params }).to_string()
        };
        news.into_iter().map(frame).collect()
    }
}
