//! Events: published on one node, heard on every other, kept by none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Instant;

use hearth_tests::{
    daemon::{Daemon, PATIENCE, Plan, wait_until},
    fakes::mosquitto::{Message, Mosquitto},
};
use serde_json::{Value, json};

async fn publish(node: &Daemon, topic: &str, data: Value) -> (u16, Value) {
    let body = json!({"topic": topic, "data": data});
    let answer = node.client().send("POST", "/api/v1/events", Some(&body)).await.unwrap();
    (answer.status, answer.json().unwrap())
}

#[tokio::test]
async fn an_event_is_heard_on_every_node_by_its_prefix() {
    let one = Daemon::found("one").await.unwrap();
    let two = one.joined("two").await.unwrap();
    one.sees(&two, "alive").await.unwrap();
    let listening = two.cli(&["event", "watch", "doorbell", "--count", "2", "--json"]);
    let telling = async {
        // Whoever listens by now hears it.
        let mut number = 0;
        loop {
            publish(&one, "mail", json!(number)).await;
            let (status, event) = publish(&one, "doorbell.front", json!({"number": number})).await;
            // Where the listener takes long to start, this is a flood.
            assert!([202, 503].contains(&status), "{event}");
            if status == 202 {
                assert_eq!(event["topic"], "doorbell.front", "{event}");
                number += 1;
            }
            one.cli(&["version"]).await.unwrap();
        }
    };
    let heard = tokio::select! {
        heard = listening => heard.unwrap().ok().unwrap().stdout,
        () = telling => unreachable!("it counts for ever"),
    };
    let heard: Vec<Value> = heard.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |event: &Value| event["object"]["fields"]["data"]["number"].as_i64().unwrap();
    assert_eq!(number(&heard[1]), number(&heard[0]) + 1, "none was lost between two");
    assert!(heard[0]["object"]["id"].as_str().unwrap().starts_with("event/doorbell.front:"));
    let forgotten = wait_until("they are forgotten", PATIENCE, async || {
        let left = two.client().get("/api/v1/objects?prefix=event/&incomplete=true").await?.success()?;
        Ok(left["objects"].as_array().is_some_and(Vec::is_empty))
    });
    forgotten.await.unwrap();
}

#[tokio::test]
async fn what_is_no_event_is_refused_and_a_flood_is_held_back() {
    let node = Daemon::found("alone").await.unwrap();
    for (topic, data, part) in [
        ("Door", json!(null), "is no topic"),
        ("a/b", json!(null), "is no topic"),
        ("door", json!("x".repeat(2_000)), "2002 bytes"),
    ] {
        let (status, problem) = publish(&node, topic, data).await;
        assert!(status == 422 || status == 400, "{status}");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
    let viewer = node.token("viewer").await.unwrap();
    let web = node.web(Some(&viewer)).await.unwrap();
    let refused = web.send("POST", "/api/v1/events", Some(&json!({"topic": "door"}))).await.unwrap();
    assert_eq!(refused.status, 403);
    // As many as a slow machine needs for a flood.
    let (begun, mut held_back, mut taken) = (Instant::now(), 0, 0);
    while held_back <= 50 {
        match publish(&node, "flood", json!(1)).await.0 {
            202 => taken += 1,
            503 => held_back += 1,
            other => panic!("{other}, after {taken} were taken and {held_back} held back"),
        }
        // Forty at once, and twenty a second.
        let most = 40.0 + 20.0 * begun.elapsed().as_secs_f64();
        assert!(f64::from(taken) <= most, "{taken} were taken within {:?}", begun.elapsed());
        assert!(begun.elapsed() < PATIENCE, "{held_back} were held back, and {taken} taken");
    }
    let again =
        wait_until("it goes on", PATIENCE, async || Ok(publish(&node, "flood", json!(1)).await.0 == 202));
    again.await.unwrap();
    let forbidden = node.cli(&["put", "event/door:1", "data=1"]).await.unwrap();
    assert!(forbidden.code != 0 && forbidden.stderr.contains("only nodes write it"), "{}", forbidden.stderr);
}

#[tokio::test]
async fn events_go_out_over_mqtt_and_come_in_by_it() {
    let broker = Mosquitto::start().await.unwrap();
    let mut others = broker.client().await.unwrap();
    others.subscribe("hearth/#").await.unwrap();
    let config = format!("[adapters.mqtt]\nbroker = \"{}\"\n", broker.address());
    let node = Plan::new("one").config(config).start().await.unwrap();
    assert_eq!(others.at("hearth/status").await.unwrap(), "online");
    let (status, _) = publish(&node, "doorbell.front", json!({"presses": 2})).await;
    assert_eq!(status, 202);
    assert_eq!(others.at("hearth/event/doorbell/front").await.unwrap(), r#"{"presses":2}"#);
    // What the nodes tell one another is nobody else's: by what a start brings about one sees that it would have come.
    let program = json!({"triggers": [{"event": "never"}], "actions": [{"event": "chime"}]});
    node.client().send("PUT", "/api/v1/automations/bell", Some(&program)).await.unwrap().success().unwrap();
    let started = node.client().send("POST", "/api/v1/automations/bell/start", None).await.unwrap();
    assert_eq!(started.status, 202, "{started:?}");
    let topic = |message: &Message| message.topic.strip_prefix("hearth/event/").map(str::to_owned);
    assert_eq!(others.next("an event", topic).await.unwrap(), "chime");
    // One that somebody else tells is heard in the home, and at the broker as any other.
    let listening = node.cli(&["event", "watch", "alarm", "--count", "1", "--json"]);
    let telling = async {
        loop {
            others.publish("hearth/publish/alarm/smoke", "cellar", false).await.unwrap();
            assert_eq!(others.at("hearth/event/alarm/smoke").await.unwrap(), "\"cellar\"");
        }
    };
    let heard = tokio::select! {
        heard = listening => heard.unwrap().ok().unwrap().stdout,
        () = telling => unreachable!("it tells for ever"),
    };
    let heard: Value = serde_json::from_str(&heard).unwrap();
    assert_eq!(heard["object"]["fields"]["data"], "cellar", "{heard}");
}
