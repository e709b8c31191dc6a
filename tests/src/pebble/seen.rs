//! What a request to the authority is about: its step in an order (RFC 8555, section 7), and what it names.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;

/// A step on the way to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Which addresses the authority has.
    Directory,
    /// A nonce of its own.
    NewNonce,
    /// An account is made, or looked up.
    NewAccount,
    /// An order is placed.
    NewOrder,
    /// An authorization is read.
    Authorization,
    /// The authority is told that a challenge is answered. Each is one validation.
    Ready,
    /// A challenge is read.
    Challenge,
    /// An order is read.
    Order,
    /// The certificate is asked for with a key.
    Finalize,
    /// The certificate is fetched.
    Certificate,
    /// When it is to be renewed (RFC 9773).
    RenewalInfo,
    /// Something else.
    Other,
}

impl Step {
    /// Every step of an order that goes well, in their order.
    pub const OF_AN_ORDER: [Self; 9] = [
        Self::Directory,
        Self::NewNonce,
        Self::NewAccount,
        Self::NewOrder,
        Self::Authorization,
        Self::Ready,
        Self::Finalize,
        Self::Order,
        Self::Certificate,
    ];
}

/// A request, and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it was about.
    pub step: Step,
    /// Its path.
    pub path: String,
    /// The account, by its address; none while there is none.
    pub account: Option<String>,
    /// The names of a new order, or the one whose challenge is answered.
    pub names: Vec<String>,
    /// The certificate that a new order replaces.
    pub replaces: Option<String>,
    /// The profile of a new order.
    pub profile: Option<String>,
    /// The status of the answer; none when it never had one.
    pub status: Option<u16>,
    /// The type of the problem that was answered.
    pub problem: Option<String>,
}

impl Seen {
    /// Whether it was answered with success.
    #[must_use]
    pub fn went_well(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// A request of this method to this path with this body. `challenges` says whose each challenge is.
    pub(super) fn of(path: &str, body: &[u8], challenges: &BTreeMap<String, String>) -> Self {
        let signed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let (header, payload) = (part(&signed, "protected"), part(&signed, "payload"));
        let step = step(path, !payload.is_null());
        let mut names: Vec<String> = Vec::new();
        if step == Step::NewOrder {
            let listed = payload.get("identifiers").and_then(Value::as_array).into_iter().flatten();
            names.extend(listed.filter_map(|name| text(name, "value")));
        } else if step == Step::Ready {
            names.extend(challenges.get(path).cloned());
        }
        Self {
            step,
            path: path.to_owned(),
            account: text(&header, "kid"),
            names,
            replaces: text(&payload, "replaces"),
            profile: text(&payload, "profile"),
            status: None,
            problem: None,
        }
    }
}

/// Whose the challenges of an authorization are, by their paths.
pub(super) fn challenges_of(authorization: &Value) -> Vec<(String, String)> {
    let name = authorization.get("identifier").and_then(|identifier| text(identifier, "value"));
    let listed = authorization.get("challenges").and_then(Value::as_array).into_iter().flatten();
    let paths = listed.filter_map(|challenge| path_of(&text(challenge, "url")?));
    paths.zip(std::iter::repeat(name)).filter_map(|(path, name)| Some((path, name?))).collect()
}

fn path_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    rest.find('/').and_then(|at| rest.get(at..)).map(str::to_owned)
}

/// A signed part; null for the empty one by which something is only read.
fn part(signed: &Value, name: &str) -> Value {
    let text = signed.get(name).and_then(Value::as_str).unwrap_or_default();
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// By the paths that Pebble has.
fn step(path: &str, says_something: bool) -> Step {
    let first = path.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default();
    match (first, says_something) {
        ("dir", _) => Step::Directory,
        ("nonce-plz", _) => Step::NewNonce,
        ("sign-me-up", _) => Step::NewAccount,
        ("order-plz", _) => Step::NewOrder,
        ("authZ", _) => Step::Authorization,
        ("chalZ", true) => Step::Ready,
        ("chalZ", false) => Step::Challenge,
        ("my-order", _) => Step::Order,
        ("finalize-order", _) => Step::Finalize,
        ("certZ", _) => Step::Certificate,
        _ if path.contains("renewalInfo") => Step::RenewalInfo,
        _ => Step::Other,
    }
}
