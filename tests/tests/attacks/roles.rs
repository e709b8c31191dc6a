//! Who has a role and wants another.

use serde_json::{Value, json};

use super::bench::{Bench, Case, Problem, Refusal, asked};

pub(crate) async fn attack(bench: &mut Bench) {
    above(bench).await;
    forged(bench).await;
    beyond(bench).await;
}

/// Who is confined to a part of the home and wants more of it.
async fn beyond(bench: &mut Bench) {
    let node = &bench.node;
    node.put("note/diary", json!({"text": "private"})).await.unwrap();
    let words = ["token", "create", "--role", "operator", "--prefix", "note/shopping", "--prefix", "user/"];
    let confined = node.json(&words).await.unwrap()["token"].as_str().unwrap().to_owned();
    bench.secret(&confined);
    let (admin, outside) = (bench.admin.clone(), Problem(403, "out-of-scope"));
    let set = |fields: Value| Some(json!({ "set": fields }));
    let all = json!({"role": "viewer", "label": "all of it"});
    let part = json!({"role": "admin", "scope": {"prefixes": ["note/"]}});
    let nobody = json!({"role": "viewer", "scope": {"prefixes": [""]}});
    let cases: Vec<Case<'_>> = vec![
        (
            "a note out of a scope",
            &confined,
            "GET",
            "/api/v1/objects/note/diary",
            None,
            Problem(404, "not-found"),
        ),
        (
            "a user who is within a scope by his name",
            &confined,
            "GET",
            "/api/v1/objects/user/ann",
            None,
            Problem(404, "not-found"),
        ),
        (
            "a user written by a scope that names users",
            &confined,
            "PATCH",
            "/api/v1/objects/user/ann",
            set(json!({"account": {"role": "admin"}})),
            Problem(403, "forbidden"),
        ),
        (
            "a write out of a scope",
            &confined,
            "PATCH",
            "/api/v1/objects/note/diary",
            set(json!({"text": "x"})),
            outside,
        ),
        (
            "a name that begins like the scope and leaves it",
            &confined,
            "PATCH",
            "/api/v1/objects/note/shop",
            set(json!({"text": "x"})),
            outside,
        ),
        (
            "a device that is moved into a scope",
            &confined,
            "PATCH",
            "/api/v1/objects/device/lamp",
            set(json!({"area": "note/shopping"})),
            outside,
        ),
        (
            "a group that would reach beyond a scope",
            &confined,
            "PATCH",
            "/api/v1/objects/group/all",
            set(json!({"device/lamp": true})),
            outside,
        ),
        (
            "a program that would act beyond a scope",
            &confined,
            "PUT",
            "/api/v1/automations/mine",
            Some(json!({"triggers": [], "actions": []})),
            outside,
        ),
        ("a deletion out of a scope", &confined, "DELETE", "/api/v1/objects/note/diary", None, outside),
        ("all that is counted, for a confined client", &confined, "GET", "/metrics", None, outside),
        (
            "a token made by a confined client",
            &confined,
            "POST",
            "/api/v1/tokens",
            Some(all),
            Problem(403, "forbidden"),
        ),
        (
            "an admin who would be confined",
            &admin,
            "POST",
            "/api/v1/tokens",
            Some(part),
            Problem(422, "invalid-request"),
        ),
        (
            "a scope that is everything",
            &admin,
            "POST",
            "/api/v1/tokens",
            Some(nobody),
            Problem(422, "invalid-request"),
        ),
        (
            "the role of boards for a token",
            &admin,
            "POST",
            "/api/v1/tokens",
            Some(json!({"role": "node"})),
            Problem(422, "invalid-request"),
        ),
        (
            "the role of boards for a user",
            &admin,
            "POST",
            "/api/v1/users",
            Some(json!({"name": "board", "role": "node", "password": "long enough for all"})),
            Problem(422, "invalid-request"),
        ),
    ];
    for (name, token, method, path, body, refusal) in cases {
        bench.http(name, &asked(token, method, path, body.as_ref()), refusal).await;
    }
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
    let cases: [(&str, &str, &str, Option<Value>, Refusal); 10] = [
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
            "a node renamed by an operator",
            "PATCH",
            "/api/v1/objects/node/0000000000000000",
            Some(json!({"set": {"name": "front"}})),
            Problem(403, "forbidden"),
        ),
        (
            "the address of a node",
            "PATCH",
            "/api/v1/objects/node/0000000000000000",
            Some(json!({"set": {"addresses": ["192.0.2.1:7843"]}})),
            Problem(403, "forbidden"),
        ),
    ];
    for (name, method, path, body, refusal) in cases {
        bench.http(name, &asked(&operator, method, path, body.as_ref()), refusal).await;
    }
}
