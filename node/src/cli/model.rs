//! The answers of the API as far as the command line shows them. Unknown members are ignored and
//! missing ones read as unknown, so that a node of another version can still be looked at.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::garbled;
use super::exit::Failure;

/// `GET /api/v1/status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) household: String,
    pub(crate) node: String,
    pub(crate) version: String,
    pub(crate) uptime_s: u64,
    pub(crate) objects: u64,
    pub(crate) incomplete: u64,
    pub(crate) quarantined: u64,
    pub(crate) held_back_by: Vec<String>,
    pub(crate) clock_synchronised: bool,
    pub(crate) store_error: Option<String>,
    pub(crate) discovery: Option<Discovery>,
    pub(crate) outside: Option<Outside>,
    pub(crate) copies: Vec<Copies>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) api: Vec<String>,
    pub(crate) public: Vec<String>,
    pub(crate) listen: Option<String>,
    pub(crate) certificate: Option<Certificate>,
}

/// How it is with the public certificate of the node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Certificate {
    pub(crate) names: Vec<String>,
    pub(crate) directory: String,
    pub(crate) until: Option<Value>,
    pub(crate) renewal: Option<Renewal>,
    pub(crate) doing: String,
    pub(crate) next_try: Option<Value>,
    pub(crate) error: Option<Wrong>,
}

/// When a certificate is renewed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Renewal {
    pub(crate) at: Value,
    pub(crate) why: String,
}

/// What was wrong.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wrong {
    pub(crate) at: Value,
    pub(crate) words: String,
}

/// How the discovery of other nodes is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Discovery {
    pub(crate) state: String,
    pub(crate) detail: String,
}

/// Why the node stands outside of its household.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Outside {
    pub(crate) detail: String,
    pub(crate) fix: String,
}

/// A node under whose key several boards run.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Copies {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) turned_away_at: Vec<String>,
}

/// One node of the household.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) roles: Vec<String>,
    pub(crate) state: String,
    pub(crate) address: Option<String>,
    pub(crate) transport: Option<String>,
    pub(crate) via: Option<String>,
    pub(crate) hops: Option<u64>,
    pub(crate) rtt_us: Option<u64>,
    pub(crate) version: Option<String>,
    pub(crate) objects: Option<u64>,
    pub(crate) lag: Option<u64>,
    pub(crate) clock_offset_ms: Option<i64>,
}

/// An object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Object {
    pub(crate) id: String,
    pub(crate) fields: BTreeMap<String, Value>,
    pub(crate) meta: BTreeMap<String, FieldMeta>,
    pub(crate) complete: Option<bool>,
}

/// When and by whom a field was written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FieldMeta {
    pub(crate) at: Value,
    pub(crate) by: String,
    pub(crate) durable: Option<bool>,
}

/// The life of a command.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Command {
    pub(crate) id: String,
    pub(crate) device: String,
    pub(crate) state: String,
    pub(crate) at: Value,
    pub(crate) reason: Option<String>,
    pub(crate) by: Option<String>,
    pub(crate) life: Vec<Step>,
}

/// One step in the life of a command.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Step {
    pub(crate) state: String,
    pub(crate) at: Value,
    pub(crate) reason: Option<String>,
}

/// Whether a command in this state has come to its end.
pub(crate) fn is_final(state: &str) -> bool {
    matches!(state, "confirmed" | "assumed" | "timed_out" | "superseded" | "failed")
}

/// One check of `hearth doctor`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) detail: String,
    pub(crate) fix: Option<String>,
}

/// Reads an answer, or one member of it.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    T::deserialize(value).map_err(|error| garbled(error.to_string()))
}

/// Reads the list under a name; one that is missing is a garbled answer, not an empty one.
pub(crate) fn read_list<T: DeserializeOwned>(value: &Value, name: &str) -> Result<Vec<T>, Failure> {
    read(value.get(name).ok_or_else(|| garbled(format!("its answer has no `{name}`")))?)
}

/// A moment of the API: text by RFC 3339, or milliseconds since 1970.
pub(crate) fn moment(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => Timestamp::from_millisecond(number.as_i64()?).ok(),
        _ => None,
    }
}

/// A moment on one line, in UTC with milliseconds.
pub(crate) fn show_moment(value: &Value) -> String {
    moment(value).map(|at| format!("{at:.3}")).unwrap_or_default()
}
