//! Invites, joining, leaving, names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[tokio::test]
async fn invites_joining_and_leaving_go_to_their_owners() {
    let bench = Bench::new();
    let made = bench.call(Method::POST, "/api/v1/invites", Value::Null).await;
    assert_eq!(
        (made.status, &made.json()["expires"]),
        (StatusCode::CREATED, &json!("1970-01-01T00:15:00.000Z"))
    );
    bench.call(Method::POST, "/api/v1/invites", json!({ "ttl_s": 60, "roles": ["member", "admin"] })).await;
    let listed = bench.call(Method::GET, "/api/v1/invites", Value::Null).await.json();
    assert_eq!(listed["invites"][1]["roles"], json!(["member", "admin"]));
    assert!(!listed.to_string().contains("secret"));
    for bad in [
        json!({ "ttl_s": 1 }),
        json!({ "ttl_s": 604_801 }),
        json!({ "roles": ["king"] }),
        json!({ "ttl": 60 }),
    ] {
        assert_eq!(
            bench.call(Method::POST, "/api/v1/invites", bad.clone()).await.problem(),
            "invalid-request",
            "{bad}"
        );
    }
    assert_eq!(
        bench.call(Method::DELETE, "/api/v1/invites/inv0", Value::Null).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(bench.call(Method::DELETE, "/api/v1/invites/inv0", Value::Null).await.problem(), "not-found");
    assert_eq!(
        bench.call(Method::POST, "/api/v1/join", json!({ "token": "h1" })).await.problem(),
        "conflict"
    );
    let joined = bench.call(Method::POST, "/api/v1/join", json!({ "token": "h1", "force": true })).await;
    assert_eq!((joined.status, &joined.json()["household"]), (StatusCode::ACCEPTED, &json!("h1")));
    assert_eq!(bench.call(Method::POST, "/api/v1/leave", json!({})).await.status, StatusCode::ACCEPTED);
    let checks = bench.call(Method::GET, "/api/v1/doctor", Value::Null).await.json();
    assert_eq!(
        (&checks["checks"][0]["status"], &checks["checks"][0]["name"]),
        (&json!("warn"), &json!("clock"))
    );
}

#[tokio::test]
async fn a_node_is_renamed_by_name_or_key() {
    let bench = Bench::new();
    let key = super::super::fake::NODE;
    for given in ["attic", key, &key[..16], &key[..8]] {
        let path = format!("/api/v1/nodes/{given}");
        let answer = bench.call(Method::PATCH, &path, json!({ "name": " kitchen " })).await;
        assert_eq!(answer.json(), json!({ "id": key, "name": "kitchen" }));
    }
    let object = bench.call(Method::GET, "/api/v1/objects/node/00000000000000ab", Value::Null).await.json();
    assert_eq!(object["fields"]["name"], "kitchen");
    for bad in ["", "  ", "a\u{7}b", &"x".repeat(65)] {
        let answer = bench.call(Method::PATCH, "/api/v1/nodes/attic", json!({ "name": bad })).await;
        assert_eq!(answer.problem(), "invalid-request");
    }
    let answer = bench.call(Method::PATCH, "/api/v1/nodes/0000", json!({ "name": "x" })).await;
    assert_eq!((answer.problem().as_str(), &answer.json()["candidates"]), ("not-found", &json!(["attic"])));
}

#[tokio::test]
async fn the_nodes_of_an_adapter_are_those_of_the_household_by_name_or_key() {
    let mut bench = Bench::new();
    let (adapters, mut port) = AdaptersHandle::channel();
    Arc::get_mut(&mut bench.context).unwrap().adapters = adapters;
    let (told, mut changes) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(request) = port.recv().await {
            match request {
                AdaptersRequest::Change(_, change, reply) => {
                    told.send(change.nodes).await.unwrap();
                    drop(reply.send(Ok(())));
                }
                AdaptersRequest::List(reply) => drop(reply.send(Ok(Vec::new()))),
                _ => panic!("{request:?}"),
            }
        }
    });
    let key = super::super::fake::NODE;
    for given in ["attic", key, &key[..16]] {
        bench.call(Method::PATCH, "/api/v1/adapters/lifx", json!({ "nodes": [given] })).await;
        assert_eq!(changes.try_recv().unwrap(), Some(vec![mesh_proto::ShortId(0xab)]), "{given}");
    }
    let answer =
        bench.call(Method::PATCH, "/api/v1/adapters/lifx", json!({ "nodes": ["attic", "cellar"] })).await;
    assert_eq!((answer.problem().as_str(), &answer.json()["candidates"]), ("not-found", &json!(["attic"])));
    assert!(answer.json()["detail"].as_str().unwrap().contains("cellar"), "{}", answer.json());
    assert!(changes.try_recv().is_err(), "nothing was changed");
}

#[tokio::test]
async fn the_time_of_day_is_read_and_said() {
    let bench = Bench::new();
    let shown = bench.call(Method::GET, "/api/v1/time", Value::Null).await.json();
    assert_eq!((&shown["time"], &shown["trusted"]), (&json!("1970-01-01T00:00:01.000Z"), &json!(false)));
    let said =
        bench.call(Method::PUT, "/api/v1/time", json!({ "time": "1970-01-01T01:00:03+01:00" })).await.json();
    assert_eq!((&said["time"], &said["rests_on"]), (&json!("1970-01-01T00:00:03.000Z"), &json!("person")));
    assert_eq!(said["ahead_of_wall_clock_ms"], 2_000);
    for bad in ["17:30", "2026-11-29 17:30", "", "1969-12-31T23:59:59Z"] {
        let answer = bench.call(Method::PUT, "/api/v1/time", json!({ "time": bad })).await;
        assert_eq!(answer.problem(), "invalid-request", "{bad}");
    }
}
