//! Who has a role and wants another.

use serde_json::{Value, json};

use super::bench::{Bench, Problem, Refusal, asked};

pub(crate) async fn attack(bench: &mut Bench) {
    above(bench).await;
    forged(bench).await;
}

/// What a role does not reach.
async fn above(bench: &mut Bench) {
    let (viewer, operator) = (bench.viewer.clone(), bench.operator.clone());
    let light = json!({"device": "lamp", "change": {"on": true}});
    let token = json!({"role": "admin", "label": "mine"});
    let cases: [(&str, &str, &str, &str, Option<Value>); 12] = [
        ("a write of a viewer", &viewer, "PATCH", "/api/v1/objects/note/x", Some(json!({"set": {"a": 1}}))),
        ("a deletion of a viewer", &viewer, "DELETE", "/api/v1/objects/note/alive", None),
        ("a command of a viewer over HTTP", &viewer, "POST", "/api/v1/commands", Some(light)),
        ("an event of a viewer", &viewer, "POST", "/api/v1/events", Some(json!({"type": "doorbell"}))),
        ("a token made by a viewer", &viewer, "POST", "/api/v1/tokens", Some(token.clone())),
        ("an admin's token made by an operator", &operator, "POST", "/api/v1/tokens", Some(token)),
        ("a list of tokens for an operator", &operator, "GET", "/api/v1/tokens", None),
        ("an invite of an operator", &operator, "POST", "/api/v1/invites", Some(json!({"roles": ["admin"]}))),
        ("a node removed by an operator", &operator, "DELETE", "/api/v1/nodes/front", None),
        ("a backup for an operator", &operator, "GET", "/api/v1/backup", None),
        ("an import of an operator", &operator, "POST", "/api/v1/import", Some(json!({}))),
        (
            "an adapter changed by an operator",
            &operator,
            "PATCH",
            "/api/v1/adapters/lifx",
            Some(json!({"enabled": false})),
        ),
    ];
    for (name, token, method, path, body) in cases {
        bench.http(name, &asked(token, method, path, body.as_ref()), Problem(403, "forbidden")).await;
    }
}

/// Objects that only nodes write: whoever could write one would make himself a role, a device or a history.
async fn forged(bench: &mut Bench) {
    let operator = bench.operator.clone();
    let hash = json!({"set": {"hash": {"$bytes": "AAAA"}, "role": "admin"}});
    let cases: [(&str, &str, &str, Option<Value>, Refusal); 9] = [
        (
            "a token written as an object",
            "PATCH",
            "/api/v1/objects/token/00",
            Some(hash.clone()),
            Problem(403, "forbidden"),
        ),
        (
            "a token deleted as an object",
            "DELETE",
            "/api/v1/objects/token/00",
            None,
            Problem(403, "forbidden"),
        ),
        (
            "a user written as an object",
            "PATCH",
            "/api/v1/objects/user/mallory",
            Some(hash.clone()),
            Problem(403, "forbidden"),
        ),
        (
            "a session written as an object",
            "PATCH",
            "/api/v1/objects/session/00",
            Some(hash.clone()),
            Problem(403, "forbidden"),
        ),
        (
            "an issuer written as an object",
            "PATCH",
            "/api/v1/objects/issuer/evil",
            Some(json!({"set": {"url": "https://evil.example"}})),
            Problem(403, "forbidden"),
        ),
        (
            "what a device reports",
            "PATCH",
            "/api/v1/objects/device/lamp",
            Some(json!({"set": {"reported": {"on": true}}})),
            Problem(403, "not-writable"),
        ),
        (
            "a command written as an object",
            "PATCH",
            "/api/v1/objects/command/1",
            Some(json!({"set": {"request": {"device": "lamp"}}})),
            Problem(403, "not-writable"),
        ),
        (
            "an answer to a challenge that nobody made",
            "PATCH",
            "/api/v1/objects/challenge/x",
            Some(json!({"set": {"answer": {"token": "x"}}})),
            Problem(403, "not-writable"),
        ),
        (
            "the address of a node",
            "PATCH",
            "/api/v1/objects/node/0000000000000000",
            Some(json!({"set": {"addresses": ["192.0.2.1:7843"]}})),
            Problem(403, "not-writable"),
        ),
    ];
    for (name, method, path, body, refusal) in cases {
        bench.http(name, &asked(&operator, method, path, body.as_ref()), refusal).await;
    }
}
