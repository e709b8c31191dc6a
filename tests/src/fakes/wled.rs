//! A fake WLED, written from <https://kno.wled.ge/interfaces/json-api/>.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use device_adapters::Hint;
use serde_json::{Value, json};

use super::web::{Heard, Reply, Site, Web};

/// A WLED board.
#[derive(Debug)]
pub struct Wled {
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
    state: Value,
    info: Value,
    /// Takes what it is told and does not do it.
    ignores: bool,
    transitions: Vec<u64>,
    is_news: bool,
}

impl Wled {
    /// A strip of 30 LEDs with so many segments and these capabilities (`lc`).
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(segments: u16, lc: u8) -> Result<Self> {
        let seg: Vec<Value> = (0..segments).map(|id| segment(id, segments)).collect();
        let state = json!({
            "on": true, "bri": 127, "transition": 7, "ps": -1, "pl": -1, "lor": 0, "mainseg": 0,
            "nl": { "on": false, "dur": 60, "mode": 1, "tbri": 0, "rem": -1 },
            "udpn": { "send": false, "recv": true, "sgrp": 1, "rgrp": 1 },
            "seg": seg,
        });
        let info = json!({
            "ver": "0.15.0", "vid": 2_412_100, "cn": "Kōsen", "release": "ESP32", "name": "Shelf",
            "leds": {
                "count": 30, "pwr": 420, "fps": 42, "maxpwr": 850, "maxseg": 32,
                "seglc": vec![lc; usize::from(segments)], "lc": lc, "rgbw": lc & 2 != 0, "wv": 0, "cct": 0,
            },
            "str": false, "udpport": 21_324, "live": false, "liveseg": -1, "lm": "", "lip": "", "ws": 0,
            "fxcount": 6, "palcount": 5, "maps": [{ "id": 0 }],
            "wifi": { "bssid": "00:00:5E:00:53:01", "rssi": -61, "signal": 78, "channel": 6, "ap": false },
            "fs": { "u": 12, "t": 983, "pmt": 0 }, "ndc": 0, "arch": "esp32", "core": "v3.3.6", "clock": 240,
            "flash": 4, "lwip": 0, "freeheap": 180_000, "uptime": 17_985, "time": "2026-1-1, 12:00:00", "opt": 79,
            "brand": "WLED", "product": "FOSS", "mac": "60019423b441", "ip": "127.0.0.1",
        });
        let shown = Shown { state, info, ignores: false, transitions: Vec::new(), is_news: false };
        let board = Arc::new(Board { shown: Mutex::new(shown) });
        Ok(Self { web: Web::start(board.clone()).await?, board })
    }

    /// Its MAC address.
    pub const MAC: &'static str = "60019423b441";

    /// What announces it.
    #[must_use]
    pub fn hint(&self) -> Hint {
        hint(
            "_wled._tcp",
            "wled-shelf",
            self.web.address(),
            BTreeMap::from([("mac".into(), Self::MAC.into())]),
        )
    }

    /// What it shows.
    #[must_use]
    pub fn state(&self) -> Value {
        self.board.shown().state.clone()
    }

    /// The transitions that it was told so far, in units of 100 ms.
    #[must_use]
    pub fn transitions(&self) -> Vec<u64> {
        self.board.shown().transitions.clone()
    }

    /// Somebody else changes it.
    pub fn set(&self, change: &Value) {
        self.board.shown().apply(change);
        for text in self.board.news() {
            self.web.tell(text);
        }
    }

    /// The two boards take each other's address, as a router may lend them: this is the other board at the old address.
    pub fn swap_addresses(&self, other: &Self) {
        std::mem::swap(&mut *self.board.shown(), &mut *other.board.shown());
    }

    /// Something about it changes.
    pub fn set_info(&self, key: &str, value: Value) {
        self.board.shown().info[key] = value;
    }

    /// Takes what it is told, and does not do it.
    pub fn ignore_changes(&self, ignores: bool) {
        self.board.shown().ignores = ignores;
    }
}

/// An announcement.
pub(super) fn hint(service: &str, name: &str, at: SocketAddr, txt: BTreeMap<String, String>) -> Hint {
    let addresses: Vec<IpAddr> = vec![at.ip()];
    Hint { service: service.to_owned(), name: name.to_owned(), addresses, port: at.port(), txt }
}

fn segment(id: u16, of: u16) -> Value {
    let length = 30 / of.max(1);
    json!({
        "id": id, "start": id * length, "stop": (id + 1) * length, "len": length, "grp": 1, "spc": 0, "of": 0,
        "on": true, "frz": false, "bri": 255, "cct": 127, "set": 0,
        "col": [[255, 160, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], "fx": 0, "sx": 128, "ix": 128, "pal": 0,
        "c1": 128, "c2": 128, "c3": 16, "sel": true, "rev": false, "mi": false, "o1": false, "o2": false, "o3": false,
        "si": 0, "m12": 0,
    })
}

impl Board {
    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn both(&self) -> Value {
        let shown = self.shown();
        json!({ "state": shown.state, "info": shown.info })
    }
}

impl Shown {
    fn apply(&mut self, change: &Value) {
        self.transitions.extend(change.get("tt").and_then(Value::as_u64));
        if self.ignores {
            return;
        }
        self.is_news = true;
        set_power(&mut self.state, change);
        let told = match change.get("seg") {
            Some(Value::Array(segments)) => segments.clone(),
            Some(segment @ Value::Object(_)) => vec![segment.clone()],
            _ => Vec::new(),
        };
        for (order, told) in told.iter().enumerate() {
            let id = told.get("id").cloned().unwrap_or_else(|| order.into());
            let segments = self.state["seg"].as_array_mut().into_iter().flatten();
            for segment in segments.filter(|segment| segment["id"] == id) {
                set_power(segment, told);
                for (key, value) in told.as_object().into_iter().flatten() {
                    match key.as_str() {
                        "on" | "bri" => {}
                        "col" => merge_colors(&mut segment["col"], value),
                        _ => segment[key] = value.clone(),
                    }
                }
            }
        }
    }
}

/// A brightness switches on unless it comes with `on`; 0 switches off, and the brightness stays.
fn set_power(shown: &mut Value, told: &Value) {
    let brightness = told.get("bri").filter(|brightness| brightness.is_u64());
    if let Some(brightness) = brightness {
        shown["on"] = json!(*brightness != 0);
        if *brightness != 0 {
            shown["bri"] = brightness.clone();
        }
    }
    if let Some(on) = told.get("on") {
        shown["on"] = on.clone();
    }
}

/// A colour of three bytes leaves the white channel as it is.
fn merge_colors(shown: &mut Value, told: &Value) {
    for (slot, color) in told.as_array().into_iter().flatten().enumerate() {
        for (channel, value) in color.as_array().into_iter().flatten().enumerate() {
            shown[slot][channel] = value.clone();
        }
    }
}

impl Site for Board {
    fn answer(&self, heard: &Heard) -> Reply {
        let effects = json!(["Solid", "Blink", "RSVD", "Rainbow", "-", "Fire 2012"]);
        let palettes = json!(["Default", "* Random Cycle", "Party", "Lava", "Ocean"]);
        let shown = self.shown();
        let body = match (heard.method.as_str(), heard.path.as_str()) {
            ("GET", "/json/info") => shown.info.clone(),
            ("GET", "/json/state") => shown.state.clone(),
            ("GET", "/json/si") => json!({ "state": shown.state, "info": shown.info }),
            ("GET", "/json/eff" | "/json/effects") => effects,
            ("GET", "/json/pal" | "/json/palettes") => palettes,
            ("GET", "/json/fxdata") => json!(["", "!", "", "!,Size", "", "Cooling"]),
            ("GET", "/json/cfg") => json!({ "hw": { "led": { "ins": [] } } }),
            ("GET", "/presets.json") => json!({ "0": {} }),
            ("GET", "/json") => {
                json!({ "state": shown.state, "info": shown.info, "effects": effects, "palettes": palettes })
            }
            ("POST", "/json/state" | "/json") => {
                let mut shown = shown;
                shown.apply(&heard.body);
                // Who asks for it gets the state instead.
                if heard.body["v"] == true { shown.state.clone() } else { json!({ "success": true }) }
            }
            _ => return Reply::status(404),
        };
        Reply::good(body)
    }

    fn socket(&self) -> &'static str {
        "/ws"
    }

    fn open(&self) -> Option<String> {
        Some(self.both().to_string())
    }

    fn said(&self, text: &str) -> (Option<String>, bool) {
        let told: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        self.shown().apply(&told);
        (Some(self.both().to_string()), true)
    }

    fn news(&self) -> Vec<String> {
        let is_news = std::mem::take(&mut self.shown().is_news);
        if is_news { vec![self.both().to_string()] } else { Vec::new() }
    }

    fn most_sockets(&self) -> usize {
        4
    }
}
