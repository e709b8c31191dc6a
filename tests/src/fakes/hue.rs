//! A Hue bridge of the second generation: TLS 1.2 with a certificate that names its id, pairing by the button, the resources of the
//! CLIP API (version 2), its event stream and its rate limit. It can fall silent, come back, and answer wrongly.
//!
//! Written from <https://developers.meethue.com/develop/hue-api-v2/>; proved by `aiohue`.

mod resources;
mod web;
mod wrong;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use device_adapters::Hint;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use self::resources::Resources;
pub use self::resources::{BUTTON, GROUP, LAMP, MOTION, PLUG, SENSOR, STRIP};
pub use self::wrong::Wrong;
use super::web as server;
use super::web::{Heard, Reply};

/// How long a press of the button counts.
const PRESS: Duration = Duration::from_secs(30);

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Well,
    /// Not at all.
    Silent,
    /// Wrongly.
    Wrong(Wrong),
}

/// A running bridge. It ends when dropped.
#[derive(Debug)]
pub struct Bridge {
    address: SocketAddr,
    id: String,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    id: String,
    mood: watch::Sender<Mood>,
    state: Mutex<State>,
    /// Messages for event streams.
    events: broadcast::Sender<String>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).finish_non_exhaustive()
    }
}

struct State {
    tls: TlsAcceptor,
    pin: String,
    resources: Resources,
    keys: BTreeSet<String>,
    pressed: Option<Instant>,
    asked: Vec<(Instant, String)>,
    /// What it bears in a second.
    limit: usize,
    recent: VecDeque<Instant>,
    ignores_changes: bool,
    tells_events: bool,
    gathers: Duration,
    pending: BTreeMap<String, Value>,
}

impl Reply {
    fn data(data: impl Into<Value>) -> Self {
        Self { status: 200, headers: Vec::new(), body: json!({ "errors": [], "data": data.into() }) }
    }

    fn error(status: u16, description: &str) -> Self {
        let body = json!({ "errors": [{ "description": description }], "data": [] });
        Self { status, headers: Vec::new(), body }
    }
}

impl Bridge {
    /// Starts a bridge of that id, 16 hexadecimal digits, that nobody is paired with.
    ///
    /// # Errors
    /// When no port is free or no certificate can be made.
    pub async fn start(id: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (tls, pin) = certificate(id)?;
        let state = State {
            tls,
            pin,
            resources: Resources::new(id),
            keys: BTreeSet::new(),
            pressed: None,
            asked: Vec::new(),
            limit: 10,
            recent: VecDeque::new(),
            ignores_changes: false,
            tells_events: true,
            gathers: Duration::from_millis(50),
            pending: BTreeMap::new(),
        };
        let shared = Arc::new(Shared {
            id: id.to_owned(),
            mood: watch::Sender::new(Mood::Well),
            state: Mutex::new(state),
            events: broadcast::Sender::new(256),
        });
        let mut task = JoinSet::new();
        task.spawn(web::accept(listener, shared.clone()));
        Ok(Self { address, id: id.to_owned(), shared, _task: task })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it announces itself.
    #[must_use]
    pub fn hint(&self) -> Hint {
        let txt = [("bridgeid", self.id.as_str()), ("modelid", "BSB002")];
        Hint {
            service: "_hue._tcp".to_owned(),
            name: format!("Hue Bridge - {}", &self.id[10..].to_uppercase()),
            addresses: vec![self.address.ip()],
            port: self.address.port(),
            txt: txt.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }
    }

    /// Somebody presses its button.
    pub fn press_button(&self) {
        self.state().pressed = Some(Instant::now());
    }

    /// A key as of somebody who paired with it before, with its pin, as the setting `keys` holds it.
    #[must_use]
    pub fn paired(&self) -> String {
        let mut state = self.state();
        let key = format!("paired-before-{}", state.keys.len());
        state.keys.insert(key.clone());
        format!("{}={key}@{}", self.id, state.pin)
    }

    /// The SHA-256 of its public key, in hexadecimal.
    #[must_use]
    pub fn pin(&self) -> String {
        self.state().pin.clone()
    }

    /// Forgets every key that it gave.
    pub fn withdraw_keys(&self) {
        self.state().keys.clear();
    }

    /// Becomes another machine that calls itself the same. Connections that are open stay.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn change_certificate(&self) -> Result<()> {
        let (tls, pin) = certificate(&self.id)?;
        let mut state = self.state();
        (state.tls, state.pin) = (tls, pin);
        Ok(())
    }

    /// How it answers from now on.
    pub fn set(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// Whether it acknowledges changes and does nothing.
    pub fn ignore_changes(&self, ignores: bool) {
        self.state().ignores_changes = ignores;
    }

    /// Whether it tells what happens.
    pub fn tell_events(&self, tells: bool) {
        self.state().tells_events = tells;
    }

    /// How long it gathers what happened before it tells.
    pub fn gather_for(&self, time: Duration) {
        self.state().gathers = time;
    }

    /// How many requests it bears in a second; more are answered with 429.
    pub fn limit(&self, limit: usize) {
        self.state().limit = limit;
    }

    /// Somebody else changes a resource: the members of the patch replace those of the resource, and an event tells them.
    pub fn change(&self, rid: &str, patch: &Value) {
        let told = self.state().resources.patch(rid, patch);
        self.shared.happened(told);
    }

    /// Somebody pulls the plug of a light. The bridge finds that out by telling it something, and only then objects; what it shows is
    /// what it told.
    pub fn unplug(&self, rid: &str) {
        self.state().resources.unplug(rid);
    }

    /// Somebody presses a button of the dimmer switch.
    pub fn press(&self, event: &str) {
        let told = self.state().resources.press(event);
        self.shared.happened(vec![told]);
    }

    /// What event streams are sent as it is.
    pub fn say(&self, text: impl Into<String>) {
        let _ = self.shared.events.send(text.into()); // nobody may be listening
    }

    /// What a resource is now.
    #[must_use]
    pub fn resource(&self, rid: &str) -> Value {
        self.state().resources.get(rid).cloned().unwrap_or(Value::Null)
    }

    /// When each request came, and what it asked for: its method and path.
    #[must_use]
    pub fn log(&self) -> Vec<(Instant, String)> {
        self.state().asked.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gathers what happened, and tells it after a while in one message.
    fn happened(self: &Arc<Self>, told: Vec<Value>) {
        let mut state = self.lock();
        let is_first = state.pending.is_empty();
        for one in told {
            let rid = one["id"].as_str().unwrap_or_default().to_owned();
            // A press is not overwritten by the next one.
            let key = if one["type"] == "button" { format!("{rid} {}", one["button"]) } else { rid };
            match state.pending.get_mut(&key) {
                Some(pending) => resources::lay(pending, &one),
                None => drop(state.pending.insert(key, one)),
            }
        }
        if !is_first || state.pending.is_empty() {
            return;
        }
        let (shared, gathers) = (self.clone(), state.gathers);
        drop(state);
        tokio::spawn(async move {
            sleep_until(Instant::now() + gathers).await;
            let mut state = shared.lock();
            let data: Vec<Value> = std::mem::take(&mut state.pending).into_values().collect();
            if state.tells_events && *shared.mood.borrow() != Mood::Silent {
                let events = json!([{
                    "creationtime": "2026-01-02T03:04:05Z", "id": "19845c30-2e4c-4205-a7b4-8bd496f3407d",
                    "type": "update", "data": data
                }]);
                let _ = shared.events.send(format!("id: 1767323045:0\ndata: {events}\n\n"));
            }
        });
    }

    /// Whether a request comes too soon.
    fn is_busy(&self, asked: &str) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        state.asked.push((now, asked.to_owned()));
        while state.recent.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(1)) {
            state.recent.pop_front();
        }
        let is_busy = state.recent.len() >= state.limit;
        if !is_busy {
            state.recent.push_back(now);
        }
        is_busy
    }

    fn answer(self: &Arc<Self>, heard: &Heard) -> Reply {
        match (heard.method.as_str(), heard.path.as_str()) {
            ("GET", "/api/0/config" | "/api/config") => {
                let body = json!({
                    "name": "Hall bridge", "datastoreversion": "172", "swversion": "1967054020", "apiversion": "1.67.0",
                    "mac": "ec:b5:fa:12:34:56", "bridgeid": self.id.to_uppercase(), "factorynew": false,
                    "replacesbridgeid": null, "modelid": "BSB002", "starterkitid": ""
                });
                Reply { status: 200, headers: Vec::new(), body }
            }
            ("POST", "/api") => self.pair(&heard.body),
            (method, path) => {
                let key = heard.headers.get("hue-application-key").cloned().unwrap_or_default();
                if !self.lock().keys.contains(&key) {
                    return Reply::error(403, "unauthorized user");
                }
                let Some(rest) = path.strip_prefix("/clip/v2/resource") else {
                    return Reply::error(404, "Not Found");
                };
                let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
                match (method, parts.as_slice()) {
                    ("GET", parts) => self.lock().resources.read(parts),
                    ("PUT", [kind, rid]) => self.put(kind, rid, &heard.body),
                    _ => Reply::error(405, "method not allowed"),
                }
            }
        }
    }

    fn pair(&self, body: &Value) -> Reply {
        let mut state = self.lock();
        let name = body["devicetype"].as_str().unwrap_or_default();
        let is_name = name
            .split_once('#')
            .is_some_and(|(app, device)| (1..=20).contains(&app.len()) && (1..=19).contains(&device.len()));
        let body = if !is_name {
            json!([{ "error": { "type": 7, "address": "/devicetype", "description": "invalid value" } }])
        } else if state.pressed.is_some_and(|at| at.elapsed() < PRESS) {
            state.pressed = None;
            let key = format!("fake-{}-{}", state.keys.len(), "A".repeat(30));
            state.keys.insert(key.clone());
            json!([{ "success": { "username": key, "clientkey": "33DDF493992908E3D97FAAA5A6F189E1" } }])
        } else {
            json!([{ "error": { "type": 101, "address": "", "description": "link button not pressed" } }])
        };
        Reply { status: 200, headers: Vec::new(), body }
    }

    fn put(self: &Arc<Self>, kind: &str, rid: &str, body: &Value) -> Reply {
        let mut state = self.lock();
        if state.ignores_changes {
            return Reply::data(json!([{ "rid": rid, "rtype": kind }]));
        }
        match state.resources.put(kind, rid, body) {
            Ok((reply, told)) => {
                drop(state);
                self.happened(told);
                reply
            }
            Err(reply) => reply,
        }
    }
}

fn certificate(id: &str) -> Result<(TlsAcceptor, String)> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "NL");
    params.distinguished_name.push(DnType::OrganizationName, "Philips Hue");
    params.distinguished_name.push(DnType::CommonName, id);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.der().clone();
    let pin = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
    let pin = pin.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Bridges of the second generation speak nothing newer.
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private)?;
    Ok((TlsAcceptor::from(Arc::new(config)), pin))
}
