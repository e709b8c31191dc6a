//! Devices and commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

#[tokio::test]
async fn devices_are_found_by_what_people_call_them() {
    let bench = Bench::new();
    bench.light("lifx-1", "Kitchen", "LIFX A19", true).await;
    bench.light("lifx-2", "", "Kitchen", false).await;
    bench.light("lifx-3", "", "Hall", false).await;
    bench.light("lifx-4", "", "Hall", false).await;
    let device = |name: &'static str| {
        let bench = &bench;
        async move {
            let body = json!({ "device": name, "change": { "on": true } });
            bench.call(Method::POST, "/api/v1/commands", body).await
        }
    };
    let names = [
        ("device/lifx-2", "lifx-2"),
        ("Kitchen", "lifx-1"),
        ("lifx-2", "lifx-2"),
        ("kitchen", ""),
        ("LIFX a19", "lifx-1"),
    ];
    for (name, expected) in names {
        let answer = device(name).await;
        match expected {
            "" => assert_eq!(answer.problem(), "ambiguous-device"),
            _ => assert_eq!(answer.json()["device"], format!("device/{expected}"), "{name}"),
        }
    }
    let answer = device("Hall").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::CONFLICT, "ambiguous-device"));
    assert_eq!(answer.json()["candidates"], json!(["device/lifx-3", "device/lifx-4"]));
    for unknown in ["", "Cellar", "device/none", "note/x"] {
        assert_eq!(device(unknown).await.problem(), "not-found", "{unknown}");
    }
    let listed = bench.call(Method::GET, "/api/v1/devices", Value::Null).await.json();
    assert_eq!(listed["devices"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn commands_are_accepted_awaited_and_read() {
    let bench = Bench::new();
    bench.light("lifx-1", "Kitchen", "", true).await;
    bench.light("stuck", "", "", true).await;
    let body = json!({ "device": "Kitchen", "change": { "on": "toggle", "brightness": 12.5, "color": "#ff8800",
        "transition_ms": 300 }, "key": "k1", "wait": true });
    let done = bench.call(Method::POST, "/api/v1/commands", body.clone()).await;
    let command = done.json();
    assert_eq!((done.status, &command["state"]), (StatusCode::OK, &json!("confirmed")));
    let states: Vec<_> =
        command["life"].as_array().unwrap().iter().map(|step| step["state"].clone()).collect();
    assert_eq!(states, ["accepted", "sent", "acknowledged", "confirmed"]);
    assert_eq!(command["deadline"], "1970-01-01T00:00:06.000Z");
    let again = bench.call(Method::POST, "/api/v1/commands", body.clone()).await.json();
    assert_eq!(again["id"], command["id"], "the key makes it one command");
    let mut other = body;
    other["change"]["on"] = json!(false);
    let conflict = bench.call(Method::POST, "/api/v1/commands", other).await;
    assert_eq!((conflict.status, conflict.problem().as_str()), (StatusCode::CONFLICT, "idempotency-key"));
    let path = format!("/api/v1/commands/{}", command["id"].as_str().unwrap());
    assert_eq!(bench.call(Method::GET, &path, Value::Null).await.json(), command);
    let body = json!({ "device": "stuck", "change": { "kelvin": 2700 } });
    let accepted = bench.call(Method::POST, "/api/v1/commands", body).await;
    assert_eq!((accepted.status, &accepted.json()["state"]), (StatusCode::ACCEPTED, &json!("accepted")));
    assert_eq!(bench.call(Method::GET, "/api/v1/commands/none", Value::Null).await.problem(), "not-found");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_before_the_request_does() {
    let bench = Bench::new();
    bench.light("stuck", "", "", true).await;
    let body = json!({ "device": "stuck", "change": { "on": true }, "wait": true, "deadline_ms": 600_000 });
    let answer = bench.call(Method::POST, "/api/v1/commands", body).await;
    assert_eq!((answer.status, &answer.json()["state"]), (StatusCode::ACCEPTED, &json!("accepted")));
}

#[tokio::test]
async fn changes_that_make_no_sense_are_named() {
    let bench = Bench::new();
    bench.light("white", "", "", false).await;
    let refused = |change: Value| {
        let bench = &bench;
        async move {
            let body = json!({ "device": "white", "change": change });
            bench.call(Method::POST, "/api/v1/commands", body).await
        }
    };
    let cases = [
        (json!({}), "invalid-request"),
        (json!({ "transition_ms": 5 }), "invalid-request"),
        (json!({ "on": "maybe" }), "invalid-request"),
        (json!({ "on": 1 }), "invalid-request"),
        (json!({ "brightness": 101 }), "invalid-request"),
        (json!({ "brightness": -1 }), "invalid-request"),
        (json!({ "brightness": "50" }), "invalid-request"),
        (json!({ "brightnes": 5 }), "invalid-request"),
        (json!({ "kelvin": 2700, "color": "red" }), "invalid-request"),
        (json!({ "transition_ms": 3_600_001, "on": true }), "invalid-request"),
        (json!({ "color": "reddish" }), "color"),
        (json!({ "color": { "x": 0.9, "y": 0.9 } }), "color"),
        (json!({ "color": { "x": 0.3 } }), "color"),
        (json!({ "color": "red" }), "not-capable"),
        (json!({ "kelvin": 2699 }), "kelvin-out-of-range"),
        (json!({ "kelvin": 1e300 }), "kelvin-out-of-range"),
        (json!({ "kelvin": -5 }), "kelvin-out-of-range"),
    ];
    for (change, slug) in cases {
        let answer = refused(change.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (422, slug), "{change}");
    }
    let detail = refused(json!({ "kelvin": 9000 })).await.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("2700") && detail.contains("6500"), "{detail}");
    let on = json!({ "on": true });
    let bad = [
        json!({ "device": "white", "change": on, "key": "" }),
        json!({ "device": "white", "change": on, "key": "k".repeat(129) }),
        json!({ "device": "white", "change": on, "key": "schedule/wake@1800000000#0" }),
        json!({ "device": "white", "change": on, "key": "automation/x#0000000000000001.0" }),
        json!({ "device": "white", "change": on, "deadline_ms": 1 }),
        json!({ "device": "white" }),
        json!({ "device": "white", "change": on, "extra": 1 }),
    ];
    for body in bad {
        assert_eq!(
            bench.call(Method::POST, "/api/v1/commands", body.clone()).await.problem(),
            "invalid-request",
            "{body}"
        );
    }
}
