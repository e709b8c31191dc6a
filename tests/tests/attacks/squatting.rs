//! Who takes the id of somebody else: a person's, a token's, a node's, a device's.

use serde_json::{Value, json};

use super::bench::{Bench, Case, Problem, USER, asked};

const ACCOUNT: &str = "a password of enough words";

pub(crate) async fn attack(bench: &mut Bench) {
    people(bench).await;
    objects(bench).await;
    tokens(bench).await;
}

/// Names of people are theirs, and look like nobody else's.
async fn people(bench: &mut Bench) {
    let admin = bench.admin.clone();
    let user = |name: &str| Some(json!({"name": name, "role": "admin", "password": ACCOUNT}));
    let unnamed = Problem(422, "invalid-request");
    let cases = [
        ("a second person of a name", USER, Problem(409, "name-taken")),
        ("a name that differs in its case", "Ann", unnamed),
        ("a name in letters that look alike", "\u{430}nn", unnamed),
        ("a name with a space that nobody sees", "ann\u{200b}", unnamed),
        ("a name with a space at its end", "ann ", unnamed),
        ("a name that is a path", "../token/x", unnamed),
        ("a name of nothing", "", unnamed),
    ];
    for (name, of, refusal) in cases {
        bench.http(name, &asked(&admin, "POST", "/api/v1/users", user(of).as_ref()), refusal).await;
    }
    let users = bench.node.json(&["user", "list"]).await.unwrap();
    let roles: Vec<&Value> = users["users"].as_array().unwrap().iter().map(|user| &user["role"]).collect();
    assert_eq!(roles, ["operator"], "she is who she was, and nobody came");
}

/// Objects that belong to a node, a device or the door, under the very ids that there are. Not even an admin writes them.
async fn objects(bench: &mut Bench) {
    let (admin, operator) = (bench.admin.clone(), bench.operator.clone());
    let front = bench.node.id().await.unwrap()[..16].to_owned();
    let tokens = bench.node.json(&["token", "list"]).await.unwrap();
    let token = format!("token/{}", tokens["tokens"][0]["id"].as_str().unwrap());
    let (node, certificate) = (format!("node/{front}"), format!("certificate/{front}"));
    let (door, kept) = (Problem(403, "forbidden"), Problem(403, "not-writable"));
    let before = bench.node.fields(&node).await.unwrap();
    let cases: Vec<Case<'_>> = vec![
        ("the token of another", &admin, "PATCH", &token, Some(json!({"role": "admin"})), door),
        ("an end of another's token", &admin, "DELETE", &token, None, door),
        (
            "the account of another",
            &admin,
            "PATCH",
            "user/ann",
            Some(json!({"account": {"role": "admin"}})),
            door,
        ),
        (
            "the account of somebody who is not there",
            &admin,
            "PATCH",
            "user/eve",
            Some(json!({"account": {}})),
            door,
        ),
        ("the version of this node", &admin, "PATCH", &node, Some(json!({"version": "666"})), kept),
        (
            "the addresses of this node",
            &admin,
            "PATCH",
            &node,
            Some(json!({"addresses": ["192.0.2.1:1"]})),
            kept,
        ),
        ("an end of this node's runs", &admin, "PATCH", &node, Some(json!({"closed.1": 0})), kept),
        ("this node renamed by an operator", &operator, "PATCH", &node, Some(json!({"name": "mine"})), door),
        ("this node deleted", &admin, "DELETE", &node, None, kept),
        ("the certificate of this node", &admin, "PATCH", &certificate, Some(json!({"issued": 1})), kept),
        (
            "the adapter of a device",
            &operator,
            "PATCH",
            "device/lamp",
            Some(json!({"adapter": "mine"})),
            kept,
        ),
        (
            "where a device is",
            &operator,
            "PATCH",
            "device/lamp",
            Some(json!({"reach.0000000000000000": 1})),
            kept,
        ),
        (
            "the settings of an adapter",
            &operator,
            "PATCH",
            "adapter/lifx",
            Some(json!({"settings.x": 1})),
            kept,
        ),
        ("the programs of another", &operator, "PATCH", "automation/x", Some(json!({"webhook": "x"})), kept),
        ("an event in the name of a node", &operator, "PATCH", "event/x", Some(json!({"data": {}})), kept),
    ];
    for (name, token, method, object, set, refusal) in cases {
        let body = set.map(|set| json!({ "set": set }));
        let path = format!("/api/v1/objects/{object}");
        bench.http(name, &asked(token, method, &path, body.as_ref()), refusal).await;
    }
    let after = bench.node.fields(&node).await.unwrap();
    for field in ["name", "version", "addresses"] {
        assert_eq!(after[field], before[field], "{field}");
    }
}

/// A label is no id: two tokens may share one, and an end of one is no end of the other.
async fn tokens(bench: &mut Bench) {
    let label = ["token", "create", "--role", "viewer", "--label", "wall tablet"];
    let (first, second) = (bench.node.json(&label).await.unwrap(), bench.node.json(&label).await.unwrap());
    assert_ne!(first["id"], second["id"]);
    let [first, second] = [first, second]
        .map(|made| (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned()));
    bench.secret(&first.1);
    bench.secret(&second.1);
    bench.node.cli(&["token", "revoke", &first.0]).await.unwrap().ok().unwrap();
    let client = bench.node.web(Some(&second.1)).await.unwrap();
    assert_eq!(client.get("/api/v1/me").await.unwrap().success().unwrap()["id"], second.0.as_str());
    let gone = asked(&first.1, "GET", "/api/v1/me", None);
    bench.http("a token whose label another has", &gone, Problem(401, "unauthenticated")).await;
    // By its label nobody revokes one: it would be somebody else's.
    let admin = bench.admin.clone();
    let by_label = asked(&admin, "DELETE", "/api/v1/tokens/wall%20tablet", None);
    bench.http("a token revoked by its label", &by_label, Problem(404, "not-found")).await;
}
