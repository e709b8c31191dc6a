//! An authority in memory for unit tests: as much of RFC 8555 and RFC 9773 as an order needs, with faults on demand. It looks at proofs
//! where the [`Shelf`] puts them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rcgen::{
    Certificate, CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Domain;
use super::check::tests::authority_named;
use super::der::Reader;
use super::solve::{ProofBy, SolveError, Solver};

const NOW: u64 = 1_800_000_000;
const LIFE: u64 = 90 * 86_400;

/// What stands where the authority looks.
#[derive(Clone, Default)]
pub(super) struct Shelf {
    proofs: Arc<Mutex<Vec<(String, ProofBy)>>>,
    /// Whether proofs are to stand side by side.
    pub(super) holds_many: bool,
}

impl Shelf {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.proofs.lock().unwrap().len()
    }

    fn holds(&self, domain: &str, token: &str) -> bool {
        let proves = |by: &ProofBy| match by {
            ProofBy::Http { token: own, key_authorization } => {
                own == token && key_authorization.starts_with(&format!("{token}."))
            }
            _ => false,
        };
        self.proofs.lock().unwrap().iter().any(|(name, by)| name == domain && proves(by))
    }
}

impl Solver for Shelf {
    async fn publish(&self, domain: &Domain, proof: &ProofBy) -> Result<(), SolveError> {
        let mut proofs = self.proofs.lock().unwrap();
        let proof = (domain.to_string(), proof.clone());
        assert!(self.holds_many || proofs.iter().all(|there| *there == proof), "one at a time");
        if !proofs.contains(&proof) {
            proofs.push(proof);
        }
        Ok(())
    }

    fn holds_many(&self) -> bool {
        self.holds_many
    }

    async fn withdraw(&self, domain: &Domain, proof: &ProofBy) {
        self.proofs.lock().unwrap().retain(|(name, by)| *name != domain.to_string() || by != proof);
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No proof is found.
    Validation,
    /// No order is taken before so many seconds.
    Limited(u64),
    /// It is under repair, and says so in HTML.
    Down,
    /// What is to be replaced was replaced.
    Replaced,
    /// It breaks over what is to be replaced.
    Lost,
    /// It signs another key.
    OtherKey,
    /// It signs another name.
    OtherName,
    /// What it signs has ended.
    Expired,
}

/// One order.
pub(super) struct FakeOrder {
    domains: Vec<String>,
    proven: Vec<&'static str>,
    status: &'static str,
    chain: Option<String>,
    replaces: Option<String>,
}

/// What the authority knows.
#[derive(Default)]
pub(super) struct CaState {
    pub(super) requests: usize,
    pub(super) accounts: Vec<String>,
    pub(super) orders: Vec<FakeOrder>,
    pub(super) issued: usize,
    pub(super) failed: usize,
    /// What each order was to replace.
    pub(super) replaced: Vec<Option<String>>,
    pub(super) window: Option<(u64, u64)>,
    pub(super) fault: Option<Fault>,
    /// After how many more requests it looks at a proof that it was told of.
    pub(super) looks_after: usize,
    /// When it looks at which proof, by the number of the request.
    looking: Vec<(usize, usize, usize)>,
    /// How many proofs stood on the shelf each time that it was told to look.
    pub(super) stood: Vec<usize>,
    kill: Option<(usize, bool)>,
    nonce: usize,
}

/// An authority.
pub(super) struct Ca {
    host: String,
    state: Mutex<CaState>,
    shelf: Shelf,
    killed: Notify,
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// The authorities of the world.
#[derive(Clone)]
pub(super) struct Hosts(BTreeMap<String, Arc<Ca>>);

type Answer = (u16, Value, Vec<(&'static str, String)>);

impl Hosts {
    pub(super) fn new(shelf: &Shelf, hosts: &[&str]) -> Self {
        Self(hosts.iter().map(|host| ((*host).to_owned(), Arc::new(Ca::new(host, shelf)))).collect())
    }

    pub(super) fn ca(&self, host: &str) -> Arc<Ca> {
        self.0[host].clone()
    }
}

impl HttpClient for Hosts {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let ca = self.0.get(request.uri().host().unwrap()).cloned();
        Box::pin(async move {
            let ca = ca.ok_or_else(|| Error::Other("no such host".into()))?;
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            ca.answer(&path, &body).await
        })
    }
}

impl Ca {
    fn new(host: &str, shelf: &Shelf) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = authority_named(host);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            host: host.to_owned(),
            state: Mutex::default(),
            shelf: shelf.clone(),
            killed: Notify::new(),
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut CaState)) {
        change(&mut self.state.lock().unwrap());
    }

    pub(super) fn get<T>(&self, look: impl FnOnce(&CaState) -> T) -> T {
        look(&self.state.lock().unwrap())
    }

    /// What was proven for the first order, or was to be, is so from now on.
    pub(super) fn turn(&self, status: &'static str) {
        self.set(|state| {
            state.orders[0].proven.fill(status);
            if status == "invalid" {
                state.orders[0].status = status;
            }
        });
    }

    /// The request of this number, from 1, is never answered, whether it takes effect or not.
    pub(super) fn kill_at(&self, number: usize, is_heard: bool) {
        self.set(|state| state.kill = Some((number, is_heard)));
    }

    /// Returns when that request has come.
    pub(super) async fn killed(&self) {
        self.killed.notified().await;
    }

    async fn answer(&self, path: &str, body: &[u8]) -> Result<BytesResponse, Error> {
        let kill = {
            let mut state = self.state.lock().unwrap();
            state.requests += 1;
            let requests = state.requests;
            state.kill.filter(|(number, _)| *number == requests)
        };
        if kill.is_some_and(|(_, is_heard)| !is_heard) {
            self.hang().await;
        }
        self.look_at_what_is_due();
        let (status, document, headers) = self.carry_out(path, body);
        if kill.is_some() {
            self.hang().await;
        }
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        let nonce = {
            let mut state = self.state.lock().unwrap();
            state.nonce += 1;
            format!("nonce-{}", state.nonce)
        };
        let parts = response.header("replay-nonce", nonce).body(()).unwrap().into_parts().0;
        let text = document.as_str().map_or_else(|| document.to_string(), str::to_owned);
        Ok(BytesResponse { parts, body: Box::new(Bytes::from(text)) })
    }

    fn look_at_what_is_due(&self) {
        let mut state = self.state.lock().unwrap();
        let now = state.requests;
        let (due, later) = state.looking.drain(..).partition::<Vec<_>, _>(|(at, _, _)| *at <= now);
        state.looking = later;
        for (_, place, name) in due {
            self.validate(&mut state, place, name);
        }
    }

    async fn hang(&self) {
        self.killed.notify_one();
        std::future::pending::<()>().await;
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}/{path}", self.host)
    }

    fn carry_out(&self, path: &str, body: &[u8]) -> Answer {
        let (protected, payload) = read_jws(body);
        let mut state = self.state.lock().unwrap();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let number = |at: usize| parts[at].parse::<usize>().unwrap();
        match parts[0] {
            _ if state.fault == Some(Fault::Down) => (503, json!("<html>down</html>"), vec![]),
            "dir" | "directory" => self.directory(&state),
            "nonce" => (200, json!(""), vec![]),
            "account" => {
                let jwk = protected["jwk"]["x"].as_str().unwrap().to_owned();
                let known = state.accounts.iter().position(|account| *account == jwk);
                let place = known.unwrap_or_else(|| {
                    state.accounts.push(jwk);
                    state.accounts.len() - 1
                });
                (201, json!({"status": "valid"}), vec![("location", self.url(&format!("acct/{place}")))])
            }
            "acct" => (200, json!({"status": "valid"}), vec![]),
            "ari" => {
                let (start, end) = state.window.unwrap();
                let shown = |at: u64| crate::api::json::timestamp(at * 1_000);
                let window = json!({"suggestedWindow": {"start": shown(start), "end": shown(end)}});
                (200, window, vec![("retry-after", "21600".to_owned())])
            }
            "new" => self.new_order(&mut state, &payload),
            "order" => {
                let place = number(1);
                if parts.get(2) == Some(&"finalize") {
                    self.finalize(&mut state, place, &payload);
                }
                (200, self.show_order(&state, place), vec![])
            }
            "authz" => (200, self.show_authorization(&state, number(1), number(2)), vec![]),
            "chall" => {
                state.stood.push(self.shelf.len());
                if state.looks_after == 0 {
                    self.validate(&mut state, number(1), number(2));
                } else {
                    let at = state.requests + state.looks_after;
                    state.looking.push((at, number(1), number(2)));
                }
                let shown = self.show_authorization(&state, number(1), number(2));
                let mut challenge = shown["challenges"][0].clone();
                // It has not looked yet when it answers.
                challenge["error"] = Value::Null;
                (200, challenge, vec![])
            }
            "cert" => (200, json!(state.orders[number(1)].chain.clone().unwrap()), vec![]),
            other => panic!("{other} is not known"),
        }
    }

    fn directory(&self, state: &CaState) -> Answer {
        let mut directory = json!({
            "newNonce": self.url("nonce"),
            "newAccount": self.url("account"),
            "newOrder": self.url("new"),
            "meta": {"termsOfService": self.url("terms"), "profiles": {"classic": "C"}},
        });
        if state.window.is_some() {
            directory["renewalInfo"] = json!(self.url("ari"));
        }
        (200, directory, vec![])
    }

    fn new_order(&self, state: &mut CaState, payload: &Value) -> Answer {
        let problem = |status: u16, kind: &str, headers| {
            (status, json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "no"}), headers)
        };
        let replaces = payload["replaces"].as_str().map(str::to_owned);
        match state.fault {
            Some(Fault::Limited(after)) => {
                return problem(429, "rateLimited", vec![("retry-after", after.to_string())]);
            }
            Some(Fault::Replaced) if replaces.is_some() => return problem(409, "alreadyReplaced", vec![]),
            Some(Fault::Lost) if replaces.is_some() => return problem(500, "serverInternal", vec![]),
            _ => {}
        }
        let names = payload["identifiers"].as_array().unwrap();
        let domains: Vec<String> =
            names.iter().map(|name| name["value"].as_str().unwrap().to_owned()).collect();
        state.replaced.push(replaces.clone());
        state.orders.push(FakeOrder {
            proven: vec!["pending"; domains.len()],
            domains,
            status: "pending",
            chain: None,
            replaces,
        });
        let place = state.orders.len() - 1;
        (201, self.show_order(state, place), vec![("location", self.url(&format!("order/{place}")))])
    }

    fn show_order(&self, state: &CaState, place: usize) -> Value {
        let order = &state.orders[place];
        let authorizations: Vec<String> =
            (0..order.domains.len()).map(|name| self.url(&format!("authz/{place}/{name}"))).collect();
        let mut shown = json!({
            "status": order.status,
            "authorizations": authorizations,
            "finalize": self.url(&format!("order/{place}/finalize")),
        });
        if order.chain.is_some() {
            shown["certificate"] = json!(self.url(&format!("cert/{place}")));
        }
        if let Some(replaces) = &order.replaces {
            shown["replaces"] = json!(replaces);
        }
        shown
    }

    fn show_authorization(&self, state: &CaState, place: usize, name: usize) -> Value {
        let order = &state.orders[place];
        let (status, token) = (order.proven[name], token(place, name));
        // A challenge does not expire by itself (RFC 8555, section 8).
        let of_challenge = if matches!(status, "valid" | "invalid") { status } else { "pending" };
        let is_looked_at = state.looking.iter().any(|(_, order, at)| (*order, *at) == (place, name));
        let mut challenge = json!({
            "type": "http-01", "status": if is_looked_at { "processing" } else { of_challenge }, "token": token,
            "url": self.url(&format!("chall/{place}/{name}")),
        });
        if status == "invalid" {
            challenge["error"] = json!({
                "type": "urn:ietf:params:acme:error:unauthorized",
                "detail": format!("expected \"{token}.{}\"", "T".repeat(43)),
            });
        }
        json!({
            "status": status,
            "identifier": {"type": "dns", "value": order.domains[name]},
            "challenges": [challenge],
        })
    }

    fn validate(&self, state: &mut CaState, place: usize, name: usize) {
        let order = &mut state.orders[place];
        if order.proven[name] != "pending" {
            return;
        }
        let is_found = self.shelf.holds(&order.domains[name], &token(place, name));
        if is_found && state.fault != Some(Fault::Validation) {
            order.proven[name] = "valid";
            if order.proven.iter().all(|status| *status == "valid") {
                order.status = "ready";
            }
        } else {
            (order.proven[name], order.status) = ("invalid", "invalid");
            state.failed += 1;
        }
    }

    fn finalize(&self, state: &mut CaState, place: usize, payload: &Value) {
        let asked = BASE64URL_NOPAD.decode(payload["csr"].as_str().unwrap().as_bytes()).unwrap();
        let key = match state.fault {
            Some(Fault::OtherKey) => Spki(KeyPair::generate().unwrap().public_key_raw().to_vec()),
            _ => Spki(key_of(&asked)),
        };
        let order = &mut state.orders[place];
        assert_eq!(order.status, "ready");
        let names = match state.fault {
            Some(Fault::OtherName) => vec!["other.example.org".to_owned()],
            _ => order.domains.clone(),
        };
        let mut params = CertificateParams::new(names).unwrap();
        let end = if state.fault == Some(Fault::Expired) { NOW - 1 } else { NOW + LIFE };
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(NOW - 3_600);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        order.chain = Some(format!("{}{}", leaf.pem(), self.certificate.pem()));
        order.status = "valid";
        state.issued += 1;
    }
}

fn token(place: usize, name: usize) -> String {
    format!("{place:022}{name:021}")
}

/// What is signed, and what it holds; nothing for a question that needs no account.
fn read_jws(body: &[u8]) -> (Value, Value) {
    let Ok(jws) = serde_json::from_slice::<Value>(body) else { return (Value::Null, Value::Null) };
    let part = |name: &str| {
        let bytes = BASE64URL_NOPAD.decode(jws[name].as_str().unwrap().as_bytes()).unwrap();
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    };
    (part("protected"), part("payload"))
}

struct Spki(Vec<u8>);

impl PublicKeyData for Spki {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// The key in a request for a certificate (RFC 2986).
fn key_of(request: &[u8]) -> Vec<u8> {
    let mut whole = Reader::new(Reader::new(request).take(0x30).unwrap());
    let mut info = Reader::new(whole.take(0x30).unwrap());
    info.take(0x02).unwrap();
    info.take(0x30).unwrap();
    let mut key = Reader::new(info.take(0x30).unwrap());
    key.take(0x30).unwrap();
    key.take(0x03).unwrap()[1..].to_vec()
}
