//! Automations that are wrong: told in words, and the others go on.

use hearth_tests::daemon::{Daemon, PATIENCE, Plan, wait_until};
use serde_json::{Value, json};

use super::home::{Listener, NAMES, home, is_on, publish, put, reaches, runs, show, shows, state, turn};

/// The node answers, and an automation does what it shall.
async fn goes_on(nodes: &[Daemon], listener: &mut Listener) {
    nodes[0].status().await.unwrap();
    put(nodes, "fine", json!({"triggers": [{"event": "ask"}], "actions": [{"event": "answer"}]})).await;
    wait_until("an event is taken", PATIENCE, async || {
        let body = json!({"topic": "ask"});
        Ok(nodes[0].client().send("POST", "/api/v1/events", Some(&body)).await?.status == 202)
    })
    .await
    .unwrap();
    listener.until("answer").await;
}

async fn trusted(name: &str) -> [Daemon; 1] {
    [Plan::new(name).variable("HEARTH_CLOCK", "trusted").start().await.unwrap()]
}

/// A line of the log has all of that.
async fn logs(node: &Daemon, parts: &[&str]) {
    let said = || node.log().lines().any(|line| parts.iter().all(|part| line.contains(part)));
    wait_until(&format!("the log says {parts:?}"), PATIENCE, async || Ok(said())).await.unwrap();
}

#[tokio::test]
async fn one_that_starts_itself_is_stopped_and_named_until_somebody_switches_it_on() {
    let nodes = trusted("one").await;
    let mut listener = Listener::new(&nodes[0]).await;
    let mut program =
        json!({"triggers": [{"event": "echo"}], "actions": [{"event": "echo"}], "mode": "parallel"});
    put(&nodes, "echo", program.clone()).await;
    publish(&nodes[0], "echo").await;
    let reason = state(&nodes[0], "echo", "tripped").await;
    for part in ["more than 30 times within a minute", "event echo", "does not start itself"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(nodes[0].log().contains("an automation runs away"), "it is logged");
    goes_on(&nodes, &mut listener).await;
    // Mended and switched on it does its work again.
    program["actions"] = json!([{"event": "silence"}]);
    put(&nodes, "echo", program).await;
    state(&nodes[0], "echo", "waiting").await;
    publish(&nodes[0], "echo").await;
    listener.until("silence").await;
    runs(&nodes[0], "fine", &["done"]).await;
}

#[tokio::test]
async fn two_that_fight_are_named_with_each_other() {
    let (emulator, nodes) = home(1, &["one"]).await;
    let mut listener = Listener::new(&nodes[0]).await;
    let wants = |on: bool| json!({"triggers": [{"state": NAMES[0], "to": !on}], "actions": [turn(0, on)]});
    put(&nodes, "bright", wants(true)).await;
    put(&nodes, "dark", wants(false)).await;
    // One of both has what it wants until somebody comes.
    super::home::set(&emulator, 0, true).await;
    let mut tripped = Vec::new();
    // More than thirty times within any one minute.
    wait_until("one is stopped", 3 * PATIENCE, async || {
        tripped.clear();
        for (name, other) in [("bright", "dark"), ("dark", "bright")] {
            let shown = show(&nodes[0], name).await;
            if shown["state"] == "tripped" {
                tripped.push((shown["reason"].as_str().unwrap().to_owned(), other));
            }
        }
        Ok(!tripped.is_empty())
    })
    .await
    .unwrap();
    for (reason, other) in tripped {
        assert!(reason.contains(&format!("does not fight with `{other}`")), "{reason}");
    }
    goes_on(&nodes, &mut listener).await;
}

#[tokio::test]
async fn one_that_is_not_understood_is_kept_inactive_with_its_reason() {
    let nodes = trusted("one").await;
    let mut listener = Listener::new(&nodes[0]).await;
    let wrong = json!({"triggers": [{"event": "ask"}], "actions": [{"event": "wrong"}, {"dance": true}]});
    let kept = put(&nodes, "wrong", wrong.clone()).await;
    assert_eq!(kept["state"], "invalid", "{kept:#}");
    assert!(kept["reason"].as_str().unwrap().starts_with("actions[1]: it has none of "), "{kept:#}");
    assert_eq!(kept["program"]["actions"], wrong["actions"], "what somebody wrote is not lost");
    logs(&nodes[0], &["an automation is not started", "wrong", "actions[1]: it has none of "]).await;
    goes_on(&nodes, &mut listener).await;
    assert_eq!(show(&nodes[0], "wrong").await["runs"], json!([]));
    for (method, path, body, status, part) in [
        ("GET", "/api/v1/automations/wrong/test", Value::Null, 422, "actions[1]"),
        ("POST", "/api/v1/automations/wrong/start", Value::Null, 422, "actions[1]"),
        ("POST", "/api/v1/automations/nobody/start", Value::Null, 404, "nobody"),
        ("PUT", "/api/v1/automations/Wrong%20one", wrong.clone(), 422, "a-z"),
        ("PUT", "/api/v1/automations/other", json!({"trigers": [], "actions": []}), 422, "trigers"),
        ("PATCH", "/api/v1/automations/nobody", json!({"enabled": true}), 404, "nobody"),
    ] {
        let body = (!body.is_null()).then_some(body);
        let answer = nodes[0].client().send(method, path, body.as_ref()).await.unwrap();
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.body.contains(part), "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_gone_fails_the_run_in_words() {
    let (emulator, nodes) = home(2, &["one"]).await;
    let node = &nodes[0];
    node.cli(&["scene", "save", "evening", NAMES[0]]).await.unwrap().ok().unwrap();
    emulator.remove(super::home::serial(0)).await.unwrap();
    node.cli(&["device", "forget", NAMES[0]]).await.unwrap().ok().unwrap();
    for (name, action, part) in [
        ("gone", json!({"scene": "evening"}), "every device of `evening` is gone"),
        ("noscene", json!({"scene": "morning"}), "there is no scene `morning`"),
        ("nodevice", json!({"device": "attic", "change": {"on": true}}), "attic"),
        (
            "nochange",
            json!({"device": NAMES[1], "change": {"on": "{{ trigger.nothing }}"}}),
            "there is no such value: `trigger.nothing`",
        ),
        ("nohost", json!({"http": {"url": "http://192.0.2.1/secret"}}), "192.0.2.1 may not be called"),
    ] {
        put(&nodes, name, json!({"triggers": [{"event": name}], "actions": [action]})).await;
        publish(node, name).await;
        let [run] = &runs(node, name, &["failed"]).await[..] else { panic!() };
        assert!(run["end"].as_str().unwrap().contains(part), "{name}: {run:#}");
        assert!(!run.to_string().contains("secret"), "{run:#}");
        logs(node, &["a run of an automation failed", name, part]).await;
    }
    assert!(!node.log().contains("secret"), "{}", node.log());
    put(&nodes, "fine", json!({"triggers": [{"event": "fine"}], "actions": [turn(1, true)]})).await;
    publish(node, "fine").await;
    shows(&emulator, 1, true).await;
}

/// The devices that the automations of a node leave alone.
async fn circuits(node: &Daemon) -> Vec<Value> {
    let answer = node.client().get("/api/v1/automations").await.unwrap().success().unwrap();
    answer["circuits"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_lamp_without_power_is_left_alone_and_tried_again_once() {
    let (emulator, nodes) = home(1, &["one"]).await;
    let node = &nodes[0];
    let lamp = json!({"device": NAMES[0], "change": {"on": true}, "deadline": "5s"});
    put(&nodes, "lamp", json!({"triggers": [{"event": "ring"}], "actions": [lamp]})).await;
    emulator.ignore_requests(1.0).await.unwrap();
    for failed in 1..=3 {
        assert_eq!(circuits(node).await, Vec::<Value>::new(), "after {failed} rings");
        publish(node, "ring").await;
        runs(node, "lamp", &vec!["failed"; failed]).await;
    }
    wait_until("it is left alone", PATIENCE, async || Ok(!circuits(node).await.is_empty())).await.unwrap();
    let [open] = &circuits(node).await[..] else { panic!() };
    assert_eq!(open["device"], format!("device/{}", NAMES[0]), "{open:#}");
    assert_eq!((&open["state"], &open["failed"]), (&json!("open"), &json!(3)), "{open:#}");
    let listed = node.cli(&["automation", "list"]).await.unwrap().ok().unwrap().stdout;
    assert!(listed.contains("is left alone: 3 commands failed"), "{listed}");
    publish(node, "ring").await;
    let refused = &runs(node, "lamp", &["failed"; 4]).await[0];
    let said = refused["trace"][0]["outcome"].as_str().unwrap();
    assert!(said.contains("is left alone: its last 3 commands failed"), "{refused:#}");
    // Power comes back. Nobody is asked to find that out but one command, when its time has come.
    emulator.answer_all().await.unwrap();
    reaches(node, 0).await;
    assert!(!is_on(&emulator, 0).await, "the refused command was never sent");
    wait_until("it may be tried", PATIENCE, async || Ok(circuits(node).await[0]["state"] == "half_open"))
        .await
        .unwrap();
    publish(node, "ring").await;
    runs(node, "lamp", &["done", "failed", "failed", "failed", "failed"]).await;
    shows(&emulator, 0, true).await;
    wait_until("it is like any other", PATIENCE, async || Ok(circuits(node).await.is_empty())).await.unwrap();
}
