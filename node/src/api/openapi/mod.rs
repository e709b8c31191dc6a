//! The document of the API (OpenAPI 3.1), served at `/api/v1/openapi.json` to whoever asks.
//!
//! It is written by hand, a file for each part of the API, in a shorthand that leaves out what is the same everywhere: `role` stands for
//! the security and its refusals, `session` for what goes by cookie alone, `problems` for problem documents by their status, `answers` and `body` for media types, and
//! the names in a path are parameters. It is put together once. Tests (`api/tests/openapi.rs`) hold it against the router.

use std::sync::LazyLock;

use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::cookie;

/// The parts. A new route gets its place in the one that it belongs to, or in a file of its own here.
pub(super) const PARTS: [&str; 13] = [
    include_str!("common.json"),
    include_str!("node.json"),
    include_str!("objects.json"),
    include_str!("devices.json"),
    include_str!("adapters.json"),
    include_str!("automations.json"),
    include_str!("schedules.json"),
    include_str!("scenes.json"),
    include_str!("household.json"),
    include_str!("clients.json"),
    include_str!("issuers.json"),
    include_str!("people.json"),
    include_str!("audit.json"),
];

/// What every answer may be, whatever is asked: what the guards before the handlers say is among it.
const ALWAYS: &[u64] = &[400, 403, 415, 417, 421, 429, 500, 503, 504];
/// What it may be where a token is needed, a body is read, a query, or names in a path.
const OF_TOKENS: &[u64] = &[401];
const OF_BODIES: &[u64] = &[413, 422];
const OF_QUERIES: &[u64] = &[422];
const OF_NAMES: &[u64] = &[422];

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document().to_string()));

pub(super) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// The whole document.
pub(super) fn document() -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    // A part that is no JSON has nothing to tell: a test reads each.
    for part in PARTS.iter().filter_map(|part| serde_json::from_str::<Value>(part).ok()) {
        for (path, operations) in members(&part, "paths") {
            paths.insert(path.clone(), path_item(path, operations));
        }
        schemas.extend(members(&part, "schemas").map(|(name, schema)| (name.clone(), schema.clone())));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Hearth",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The boards of a home as one, without a hub.",
            "description": "Every node answers for all of the household. Errors are problem documents (RFC 9457). Bodies have \
                            1 MiB, 65,536 values and 16 levels at most, whole numbers 64 bits.",
            "license": {"name": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Problem": {
                "description": "It was not done, and why.",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of this household (`hth_…`), or a JWT of an issuer that it trusts (RFC 6750, RFC 7519).",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": cookie::NAME,
                    "description": "The session of a browser, from `/api/v1/login`. What changes something, and a WebSocket, needs an \
                                    `Origin` that is this node's (or `Sec-Fetch-Site` that says so) beside it.",
                },
            },
        },
    })
}

fn path_item(path: &str, operations: &Value) -> Value {
    let operations = operations.as_object().into_iter().flatten();
    let mut item: Map<_, _> =
        operations.map(|(method, said)| (method.clone(), operation(path, method, said))).collect();
    let parameters: Vec<_> = path
        .split('/')
        .filter_map(|step| step.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}))
        .collect();
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), parameters.into());
    }
    Value::Object(item)
}

fn operation(path: &str, method: &str, said: &Value) -> Value {
    let role = said.get("role").and_then(Value::as_str).unwrap_or_default();
    let needs_token = !matches!(role, "open" | "socket");
    let mut told = json!({
        "operationId": id(path, method),
        "summary": said.get("summary"),
        "tags": [said.get("tag")],
        "x-role": role,
        "security": security(said, needs_token),
        "responses": responses(said, needs_token, path.contains('{')),
    });
    let Value::Object(operation) = &mut told else { return told };
    let query: Vec<_> = members(said, "query")
        .map(|(name, schema)| json!({"name": name, "in": "query", "required": false, "schema": schema}))
        .collect();
    if !query.is_empty() {
        operation.insert("parameters".to_owned(), query.into());
    }
    if let Some(schema) = said.get("body") {
        let media = said.get("body_media").and_then(Value::as_str).unwrap_or("application/json");
        let required = said.get("body_optional").is_none();
        let body = json!({"required": required, "content": {media: {"schema": schema}}});
        operation.insert("requestBody".to_owned(), body);
    }
    operation.extend(said.get("description").map(|text| ("description".to_owned(), text.clone())));
    told
}

/// By what its client shows who it is: a token or a session; where it is about the session itself, that alone.
fn security(said: &Value, needs_token: bool) -> Value {
    match (needs_token, said.get("session").is_some()) {
        (false, _) => json!([]),
        (true, false) => json!([{"bearer": []}, {"session": []}]),
        (true, true) => json!([{"session": []}]),
    }
}

/// What it may answer: what it says itself, the problems that it names, and those that are everybody's.
fn responses(said: &Value, needs_token: bool, has_names: bool) -> Value {
    let mut responses = Map::new();
    for (status, answer) in members(said, "answers") {
        let mut told = json!({"description": answer.get("says")});
        if let (Some(schema), Value::Object(told)) = (answer.get("schema"), &mut told) {
            let media = answer.get("media").and_then(Value::as_str).unwrap_or("application/json");
            told.insert("content".to_owned(), json!({media: {"schema": schema}}));
        }
        responses.insert(status.clone(), told);
    }
    let named = said.get("problems").and_then(Value::as_array).into_iter().flatten();
    let has = |name: &str| said.get(name).is_some();
    let common = [
        (true, ALWAYS),
        (needs_token, OF_TOKENS),
        (has("body"), OF_BODIES),
        (has("query"), OF_QUERIES),
        (has_names, OF_NAMES),
    ];
    let common =
        common.into_iter().filter(|(applies, _)| *applies).flat_map(|(_, statuses)| statuses.iter().copied());
    for status in named.filter_map(Value::as_u64).chain(common) {
        responses.insert(status.to_string(), json!({"$ref": "#/components/responses/Problem"}));
    }
    Value::Object(responses)
}

/// `putSchedulesName` of `PUT /api/v1/schedules/{name}`.
fn id(path: &str, method: &str) -> String {
    let steps =
        path.trim_start_matches("/api/v1").split(['/', '-', '.', '{', '}']).filter(|step| !step.is_empty());
    let capital = |step: &str| {
        let mut letters = step.chars();
        letters
            .next()
            .map(|first| format!("{}{}", first.to_ascii_uppercase(), letters.as_str()))
            .unwrap_or_default()
    };
    std::iter::once(method.to_owned()).chain(steps.map(capital)).collect()
}

fn members<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(name).and_then(Value::as_object).into_iter().flatten()
}
