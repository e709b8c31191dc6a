//! Scenes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use device_adapters::model::{
    Capabilities, ColorMode, KelvinRange, LightCapabilities, LightState, State as Shows,
};

use super::*;
use crate::devices::encode;

impl Bench {
    /// A lamp of whites that shows this.
    async fn lamp(&self, name: &str, on: bool, brightness: u16) {
        let id = format!("device/{name}");
        let can = LightCapabilities {
            brightness: true,
            color_temperature: Some(KelvinRange { min_k: 2_700, max_k: 6_500 }),
            transition: true,
            ..LightCapabilities::default()
        };
        self.fake.put(&id, "adapter", Stored::from("lifx")).await;
        self.fake.put(&id, "capabilities", encode(&Capabilities::Light(can))).await;
        self.fake.put(&id, "area", Stored::from("hall")).await;
        self.shows(name, on, brightness).await;
    }

    async fn shows(&self, name: &str, on: bool, brightness: u16) {
        let state = Shows::Light(LightState::plain(on, brightness, ColorMode::Temperature { kelvin: 2_700 }));
        let reported = encode(&json!({ "value": state, "source": "read_back" }));
        self.fake.put(&format!("device/{name}"), "reported", reported).await;
    }

    /// What its last command asked for.
    async fn was_asked(&self, name: &str, brightness: u16) {
        let change = json!({"kind": "light", "on": true, "brightness": brightness, "transition_ms": 500,
            "color": {"mode": "temperature", "kelvin": 2_700}});
        let asked = json!({ "command": "07".repeat(16), "change": change, "at": 0, "deadline_ms": 5_000 });
        self.fake.put(&format!("device/{name}"), "desired", encode(&asked)).await;
    }

    async fn forget(&self, name: &str) {
        let gone = self.call(Method::DELETE, &format!("/api/v1/objects/device/{name}"), Value::Null).await;
        assert_eq!(gone.status, StatusCode::NO_CONTENT);
    }

    async fn scene(&self, method: Method, rest: &str, body: Value) -> Answer {
        self.call(method, &format!("/api/v1/scenes/{rest}"), body).await
    }
}

fn dim(brightness: f64) -> Value {
    json!({ "on": true, "brightness": brightness, "kelvin": 2_700 })
}

#[tokio::test]
async fn what_devices_are_is_saved_activated_and_put_back() {
    let bench = Bench::new();
    bench.lamp("lamp", true, 65_535).await;
    bench.lamp("dark", false, 65_535).await;
    bench.fake.put("device/window", "adapter", Stored::from("mqtt")).await;
    bench.fake.put("device/window", "capabilities", encode(&Capabilities::Sensor)).await;
    bench.fake.put("device/window", "area", Stored::from("hall")).await;
    let saved =
        bench.scene(Method::PUT, "bright", json!({"save": ["hall"], "transition_ms": 500})).await.json();
    let devices = json!({"device/lamp": dim(100.0), "device/dark": {"on": false}});
    assert_eq!((&saved["devices"], &saved["refused"]), (&devices, &json!([])), "the sensor is passed over");

    bench.shows("lamp", true, 6_554).await;
    bench.shows("dark", true, 6_554).await;
    let given = bench.scene(Method::POST, "bright/activate", json!({"wait": true})).await;
    assert_eq!((given.status, &given.json()["transition_ms"]), (StatusCode::OK, &json!(500)));
    let ends: Vec<_> =
        given.json()["commands"].as_array().unwrap().iter().map(|c| c["state"].clone()).collect();
    assert_eq!(ends, ["confirmed", "confirmed"]);
    let shown = bench.scene(Method::GET, "bright", Value::Null).await.json();
    assert_eq!(shown["before"], json!({"device/lamp": dim(10.001), "device/dark": dim(10.001)}));
    assert_eq!(shown["activated"]["by"], "socket");
    let listed = bench.call(Method::GET, "/api/v1/scenes", Value::Null).await.json();
    assert_eq!(listed["scenes"][0], shown);

    // The lamp is as the scene wants it because of the scene, and somebody has dimmed the other.
    bench.shows("lamp", true, 65_535).await;
    bench.was_asked("lamp", 65_535).await;
    bench.shows("dark", true, 13_107).await;
    bench.scene(Method::POST, "bright/activate", Value::Null).await;
    let shown = bench.scene(Method::GET, "bright", Value::Null).await.json();
    assert_eq!(shown["before"], json!({"device/lamp": dim(10.001), "device/dark": dim(20.0)}));
    // Where somebody else made it so, that is what it was before.
    bench.was_asked("lamp", 6_554).await;
    bench.scene(Method::POST, "bright/activate", Value::Null).await;
    let shown = bench.scene(Method::GET, "bright", Value::Null).await.json();
    assert_eq!(shown["before"]["device/lamp"], dim(100.0));

    let back = bench.scene(Method::POST, "bright/undo", json!({"wait": true})).await;
    assert_eq!((back.status, back.json()["commands"].as_array().unwrap().len()), (StatusCode::OK, 2));
    let shown = bench.scene(Method::GET, "bright", Value::Null).await.json();
    assert_eq!((&shown["before"], &shown["activated"]), (&json!({}), &Value::Null));
    let again = bench.scene(Method::POST, "bright/undo", Value::Null).await;
    assert_eq!((again.status, again.problem().as_str()), (StatusCode::CONFLICT, "nothing-to-undo"));
}

#[tokio::test]
async fn who_is_gone_or_unknown_is_named_and_the_others_go_on() {
    let bench = Bench::new();
    for lamp in ["one", "two"] {
        bench.lamp(lamp, true, 65_535).await;
    }
    bench.light("blank", "", "", false).await;
    let saved = bench.scene(Method::PUT, "all", json!({"save": ["one", "two", "blank"]})).await.json();
    assert_eq!(saved["devices"].as_object().unwrap().len(), 2);
    assert_eq!(saved["refused"][0]["device"], "device/blank");
    assert!(saved["refused"][0]["detail"].as_str().unwrap().contains("nothing is known"), "{saved}");
    let blank = bench.scene(Method::PUT, "none", json!({"save": ["blank"]})).await;
    assert_eq!(blank.problem(), "invalid-request");
    assert!(blank.json()["detail"].as_str().unwrap().starts_with("device/blank: nothing is known"));
    let offline = json!({"state": "offline", "reason": "it does not answer", "since": 1});
    bench.fake.put("device/one", "availability", encode(&offline)).await;
    let kept = bench.scene(Method::PUT, "all", json!({"save": []})).await.json();
    assert!(kept["refused"][0]["detail"].as_str().unwrap().contains("offline"), "{kept}");
    let said = json!({"devices": {"one": {"on": false}, "two": {"on": true}}});
    assert_eq!(bench.scene(Method::PUT, "all", said).await.status, StatusCode::OK);

    bench.forget("two").await;
    let given = bench.scene(Method::POST, "all/activate", Value::Null).await;
    assert_eq!(
        (given.status, &given.json()["commands"][0]["device"]),
        (StatusCode::ACCEPTED, &json!("device/one"))
    );
    assert_eq!(given.json()["refused"][0]["device"], "device/two");
    assert!(given.json()["refused"][0]["detail"].as_str().unwrap().contains("it is gone"));
    assert_eq!(bench.scene(Method::GET, "all", Value::Null).await.json()["gone"], json!(["device/two"]));
    bench.forget("one").await;
    for what in ["all/activate", "all/undo"] {
        let empty = bench.scene(Method::POST, what, Value::Null).await;
        assert_eq!((empty.status, empty.problem().as_str()), (StatusCode::CONFLICT, "empty-scene"), "{what}");
    }
    let cleared = bench.scene(Method::POST, "all/undo", Value::Null).await;
    assert_eq!(cleared.problem(), "nothing-to-undo", "what cannot be put back does not stay");
}

#[tokio::test]
async fn who_was_not_put_back_can_be_put_back_later() {
    let bench = Bench::new();
    for lamp in ["one", "two"] {
        bench.lamp(lamp, true, 65_535).await;
    }
    let said = json!({"devices": {"one": {"on": false}, "two": {"on": false}}});
    bench.scene(Method::PUT, "off", said).await;
    bench.scene(Method::POST, "off/activate", Value::Null).await;
    // The commands' owner of these tests takes a key for one device only.
    let half = bench.scene(Method::POST, "off/undo", json!({"key": "k"})).await.json();
    assert_eq!(
        (&half["commands"][0]["device"], &half["refused"][0]["device"]),
        (&json!("device/one"), &json!("device/two"))
    );
    let shown = bench.scene(Method::GET, "off", Value::Null).await.json();
    assert_eq!(shown["before"], json!({"device/two": dim(100.0)}));
    assert_eq!(shown["activated"]["by"], "socket");
    let none = bench.scene(Method::POST, "off/undo", json!({"deadline_ms": 1})).await;
    assert_eq!(none.problem(), "invalid-request");
    let rest = bench.scene(Method::POST, "off/undo", Value::Null).await.json();
    assert_eq!(rest["commands"][0]["device"], "device/two");
    assert_eq!(bench.scene(Method::POST, "off/undo", Value::Null).await.problem(), "nothing-to-undo");
}

#[tokio::test]
async fn what_is_no_scene_is_refused_in_words() {
    let bench = Bench::new();
    bench.lamp("lamp", true, 65_535).await;
    let refused = async |name: &str, body: Value, part: &str| {
        let answer = bench.scene(Method::PUT, name, body.clone()).await;
        assert_ne!(answer.status, StatusCode::OK, "{body}");
        let words = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(words.contains(part), "{body}: {words}");
    };
    refused("Evening", json!({"save": ["lamp"]}), "`Evening` is no name of a scene").await;
    refused("x", json!({"save": []}), "a scene has 1 to 128").await;
    refused("x", json!({"devices": {}}), "a scene has 1 to 128").await;
    refused("x", json!({}), "one of `save` and `devices`").await;
    refused("x", json!({"save": [], "devices": {}}), "one of `save` and `devices`").await;
    refused("x", json!({"save": ["attic"]}), "attic").await;
    refused("x", json!({"save": ["lamp"], "transition_ms": 3_600_001}), "3600001").await;
    let change = |change: Value| json!({"devices": {"lamp": change}});
    refused("x", change(json!({"on": "toggle"})), "toggle").await;
    refused("x", change(json!({"press": true})), "a press").await;
    refused("x", change(json!({"on": true, "transition_ms": 5})), "transition").await;
    refused("x", change(json!({})), "empty").await;
    refused("x", change(json!({"color": "red"})), "no colours").await;
    refused("x", change(json!({"dance": 1})), "dance").await;
    assert_eq!(bench.call(Method::GET, "/api/v1/scenes", Value::Null).await.json()["scenes"], json!([]));

    bench.scene(Method::PUT, "evening", json!({"save": ["lamp"]})).await;
    for (method, rest) in [
        (Method::GET, "evenin"),
        (Method::DELETE, "evenin"),
        (Method::POST, "evenin/activate"),
        (Method::POST, "evenin/undo"),
    ] {
        let answer = bench.scene(method, rest, Value::Null).await;
        assert_eq!(
            (answer.status, &answer.json()["candidates"]),
            (StatusCode::NOT_FOUND, &json!(["evening"]))
        );
    }
    let viewer = bench.token(Role::Viewer).await;
    for (method, rest) in [
        (Method::PUT, "evening"),
        (Method::DELETE, "evening"),
        (Method::POST, "evening/activate"),
        (Method::POST, "evening/undo"),
    ] {
        let path = format!("/api/v1/scenes/{rest}");
        let answer = bench.bearer(Some(&viewer), method, &path, json!({})).await;
        assert_eq!(answer.problem(), "forbidden", "{rest}");
    }
    let direct = json!({"set": {"set.lamp": {"on": false}}});
    let answer = bench.call(Method::PATCH, "/api/v1/objects/scene/evening", direct).await;
    assert_eq!(answer.problem(), "not-writable");
    let answer = bench.call(Method::DELETE, "/api/v1/objects/scene/evening", Value::Null).await;
    assert_eq!(answer.problem(), "not-writable");
    assert_eq!(bench.scene(Method::DELETE, "evening", Value::Null).await.json()["removed"], true);
}
