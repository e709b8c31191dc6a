//! What a run does: its steps, its trace, what takes it back, and several of one automation.

use hearth_tests::daemon::{Daemon, PATIENCE, wait_until};
use serde_json::{Value, json};

use super::home::{
    Listener, NAMES, hears, home, is_on, lines, publish, put, reaches, runs, set, show, shows, turn,
};

#[tokio::test]
async fn motion_turns_the_light_on_and_later_off_and_the_trace_says_what_when_why_and_how_long() {
    let (emulator, nodes) = home(1, &["one"]).await;
    let node = &nodes[0];
    let program = json!({
        "triggers": [{"event": "motion.*"}],
        "conditions": [{"state": NAMES[0], "is": false}, {"expression": "trigger.data.by == 'test'"}],
        "actions": [turn(0, true), {"delay": "10s"}, turn(0, false)],
    });
    let made = put(&nodes, "hall", program).await;
    assert_eq!((&made["state"], &made["by"]), (&"waiting".into(), &"one".into()), "{made}");
    publish(node, "motion.hall").await;
    shows(&emulator, 0, true).await;
    let under_way = runs(node, "hall", &["running"]).await;
    assert_eq!(show(node, "hall").await["state"], "running", "{under_way:#?}");
    shows(&emulator, 0, false).await;
    let [run] = &runs(node, "hall", &["done"]).await[..] else { panic!() };
    assert_eq!(
        (&run["why"], &run["node"], &run["left_out"]),
        (&"event motion.hall".into(), &"one".into(), &0.into())
    );
    assert_eq!(lines(run), [("0", "ok"), ("1", "over"), ("2", "ok")], "{run:#}");
    let trace = run["trace"].as_array().unwrap();
    assert_eq!(trace[1]["what"], "waits 10s", "{run:#}");
    assert!(trace[0]["what"].as_str().unwrap().contains(NAMES[0]), "{run:#}");
    assert!((9_900..60_000).contains(&trace[1]["took_ms"].as_u64().unwrap()), "{run:#}");
    let times: Vec<&str> = trace.iter().map(|line| line["at"].as_str().unwrap()).collect();
    let ends = [run["at"].as_str().unwrap(), run["ended"].as_str().unwrap()];
    assert!(ends[0] <= times[0] && times.is_sorted() && times[2] <= ends[1], "{run:#}");
    // When it is on already nothing comes of it, and that is told.
    set(&emulator, 0, true).await;
    hears(node, 0, true).await;
    publish(node, "motion.hall").await;
    let [refused, _] = &runs(node, "hall", &["refused", "done"]).await[..] else { panic!() };
    assert_eq!(
        (&refused["end"], &refused["trace"]),
        (&"a condition does not hold".into(), &json!([])),
        "{refused:#}"
    );
    assert!(is_on(&emulator, 0).await);
}

#[tokio::test]
async fn a_scene_is_a_step_and_its_lamps_show_it() {
    let (emulator, nodes) = home(2, &["one"]).await;
    let node = &nodes[0];
    set(&emulator, 0, true).await;
    hears(node, 0, true).await;
    node.cli(&["scene", "save", "evening", NAMES[0], NAMES[1]]).await.unwrap().ok().unwrap();
    for (bulb, on) in [(0, false), (1, true)] {
        set(&emulator, bulb, on).await;
        hears(node, bulb, on).await;
    }
    let program = json!({
        "triggers": [{"event": "evening"}],
        "actions": [{"scene": "evening", "deadline": "40s"}, {"event": "lit"}],
    });
    put(&nodes, "evening", program).await;
    publish(node, "evening").await;
    shows(&emulator, 0, true).await;
    shows(&emulator, 1, false).await;
    let [run] = &runs(node, "evening", &["done"]).await[..] else { panic!() };
    assert_eq!(lines(run), [("0", "ok"), ("1", "ok")], "{run:#}");
    assert_eq!(run["trace"][0]["what"], r#"scene "evening""#, "{run:#}");
}

#[tokio::test]
async fn the_deepest_program_is_taken_shown_as_it_is_written_and_done_after_a_restart() {
    let (emulator, mut nodes) = home(1, &["one"]).await;
    let mut deep = turn(0, true);
    deep["undo"] = json!([turn(0, false)]);
    let off = json!({"not": {"state": NAMES[0], "is": true}});
    let condition = (0..6).fold(off, |within, _| json!({"any": [within]}));
    for _ in 0..5 {
        deep = json!({"choose": [{"if": [condition], "do": [deep]}]});
    }
    let made = put(&nodes, "deep", json!({"triggers": [{"event": "go"}], "actions": [deep]})).await;
    assert_eq!(
        (&made["state"], &made["program"]["actions"]),
        (&"waiting".into(), &json!([deep])),
        "{made:#}"
    );
    let file = nodes[0].cli(&["automation", "show", "deep", "--toml"]).await.unwrap().ok().unwrap().stdout;
    nodes[0].kill().await.unwrap();
    nodes[0].start().await.unwrap();
    reaches(&nodes[0], 0).await;
    assert_eq!(show(&nodes[0], "deep").await["program"], made["program"]);
    publish(&nodes[0], "go").await;
    shows(&emulator, 0, true).await;
    let [run] = &runs(&nodes[0], "deep", &["done"]).await[..] else { panic!() };
    assert_eq!(lines(run), [("0.0.0.0.0.0.0.0.0.0.0", "ok")], "{run:#}");
    let set = nodes[0].cli_with(&["automation", "set", "again", "-"], file.as_bytes()).await.unwrap();
    set.ok().unwrap();
    assert_eq!(show(&nodes[0], "again").await["program"], made["program"]);
}

#[tokio::test]
async fn a_call_that_nobody_answers_ends_at_the_deadline_of_its_step() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = silent.local_addr().unwrap().to_string();
    let (_emulator, nodes) = home(1, &["one"]).await;
    let node = &nodes[0];
    node.cli(&["home", "set", "--allow-http", &host]).await.unwrap().ok().unwrap();
    let call = json!({"http": {"url": format!("http://{host}/word")}, "deadline": "400ms"});
    put(&nodes, "call", json!({"triggers": [{"event": "call"}], "actions": [call]})).await;
    // The task that knows whom it may call may be a moment behind the one that was told.
    for tries in 1..8 {
        publish(node, "call").await;
        let run = runs(node, "call", &vec!["failed"; tries]).await.swap_remove(0);
        assert!(!run.to_string().contains("word"), "{run:#}");
        let end = run["end"].as_str().unwrap();
        if end.contains("within 400 ms") {
            return;
        }
        assert!(end.contains("may not be called"), "{run:#}");
    }
    panic!("nobody may be called: {:#}", show(node, "call").await);
}

#[tokio::test]
async fn what_nobody_can_judge_refuses_the_run_in_words() {
    let (emulator, nodes) = home(1, &["one"]).await;
    nodes[0].cli(&["home", "set", "--zone", "UTC"]).await.unwrap().ok().unwrap();
    // Ten thousand times ten thousand turns.
    let endless =
        "(range(9999) | map('string') | join | length) + (range(9999) | map('string') | join | length)";
    for (name, condition, part) in [
        ("attic", json!({"state": "attic", "is": true}), "there is no device `attic`"),
        ("night", json!({"sun": {"after": "sunset"}}), "the place of the home"),
        ("dry", json!({"expression": format!("device('{}').humidity > 3", NAMES[0])}), "humidity"),
        ("endless", json!({"expression": endless}), "it does not end within 10000 steps"),
    ] {
        let program =
            json!({"triggers": [{"event": "go"}], "conditions": [condition], "actions": [turn(0, true)]});
        put(&nodes, name, program).await;
        publish(&nodes[0], "go").await;
        let [run] = &runs(&nodes[0], name, &["refused"]).await[..] else { panic!() };
        assert!(run["end"].as_str().unwrap().contains(part), "{name}: {run:#}");
        nodes[0]
            .client()
            .send("DELETE", &format!("/api/v1/automations/{name}"), None)
            .await
            .unwrap()
            .success()
            .unwrap();
    }
    // The node answers, and others go on.
    put(&nodes, "fine", json!({"triggers": [{"event": "go"}], "actions": [turn(0, true)]})).await;
    publish(&nodes[0], "go").await;
    shows(&emulator, 0, true).await;
}

#[tokio::test]
async fn when_a_step_fails_what_was_done_is_taken_back_in_reverse_order() {
    let (emulator, nodes) = home(3, &["one"]).await;
    let node = &nodes[0];
    set(&emulator, 1, true).await;
    hears(node, 1, true).await;
    let with_undo = |bulb: usize, on: bool| {
        let mut action = turn(bulb, on);
        action["undo"] = json!([turn(bulb, !on), {"event": format!("undone.{bulb}")}]);
        action
    };
    let lost = json!({"device": NAMES[2], "change": {"on": true}, "deadline": "1s", "retry": 1});
    let program = json!({
        "triggers": [{"event": "evening"}],
        "actions": [with_undo(0, true), with_undo(1, false), lost, {"event": "never"}],
    });
    put(&nodes, "evening", program).await;
    emulator.remove(super::home::serial(2)).await.unwrap();
    let mut listener = Listener::new(node).await;
    publish(node, "evening").await;
    let [run] = &runs(node, "evening", &["failed"]).await[..] else { panic!() };
    assert!(run["end"].as_str().unwrap().contains(NAMES[2]), "{run:#}");
    let steps: Vec<&str> = lines(run).into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, ["0", "1", "2", "2", "1", "1", "0", "0"], "{run:#}");
    let ends: Vec<bool> = lines(run).into_iter().map(|(_, outcome)| outcome == "ok").collect();
    assert_eq!(ends, [true, true, false, false, true, true, true, true], "{run:#}");
    assert_eq!(
        (is_on(&emulator, 0).await, is_on(&emulator, 1).await),
        (false, true),
        "the house is as before"
    );
    publish(node, "over").await;
    assert_eq!(listener.until("over").await, ["evening", "undone.1", "undone.0"]);

    // One that is gone is named at once.
    node.cli(&["device", "forget", NAMES[2]]).await.unwrap().ok().unwrap();
    publish(node, "evening").await;
    let [run, _] = &runs(node, "evening", &["failed", "failed"]).await[..] else { panic!() };
    assert!(run["end"].as_str().unwrap().contains(NAMES[2]), "{run:#}");
    assert_eq!(
        (is_on(&emulator, 0).await, is_on(&emulator, 1).await),
        (false, true),
        "the house is as before"
    );
}

/// Starts an automation of a mode twice; each run ends at an event of its own.
async fn twice(node: &[Daemon], mode: &str) -> Vec<Value> {
    let program = json!({
        "triggers": [{"event": "go"}],
        "actions": [{"event": "began"}, {"wait": {"event": "end"}, "timeout": "2m"}],
        "mode": mode,
    });
    put(node, mode, program).await;
    publish(&node[0], "go").await;
    waits(&node[0], mode, 0).await;
    publish(&node[0], "go").await;
    wait_until("there are two", PATIENCE, async || {
        Ok(show(&node[0], mode).await["runs"].as_array().unwrap().len() == 2)
    })
    .await
    .unwrap();
    show(&node[0], mode).await["runs"].as_array().unwrap().clone()
}

/// A run waits for its event.
async fn waits(node: &Daemon, name: &str, run: usize) {
    wait_until("it waits", PATIENCE, async || {
        let trace = show(node, name).await["runs"][run]["trace"].clone();
        Ok(trace[1]["what"].as_str().is_some_and(|what| what.starts_with("waits")))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_automation_that_is_started_while_it_runs_does_as_its_mode_says() {
    let nodes =
        [hearth_tests::daemon::Plan::new("one").variable("HEARTH_CLOCK", "trusted").start().await.unwrap()];
    let node = &nodes[0];

    twice(&nodes, "single").await;
    let [refused, _] = &runs(node, "single", &["refused", "running"]).await[..] else { panic!() };
    assert_eq!(refused["end"], "it runs already", "{refused:#}");
    publish(node, "end").await;
    runs(node, "single", &["refused", "done"]).await;

    twice(&nodes, "restart").await;
    let [_, first] = &runs(node, "restart", &["running", "stopped"]).await[..] else { panic!() };
    assert_eq!(first["end"], "it was started again", "{first:#}");
    waits(node, "restart", 0).await;
    publish(node, "end").await;
    runs(node, "restart", &["done", "stopped"]).await;

    twice(&nodes, "queued").await;
    let [second, _] = &runs(node, "queued", &["queued", "running"]).await[..] else { panic!() };
    assert_eq!(second["trace"], json!([]), "{second:#}");
    publish(node, "end").await;
    runs(node, "queued", &["running", "done"]).await;
    waits(node, "queued", 0).await;
    publish(node, "end").await;
    let [second, first] = &runs(node, "queued", &["done", "done"]).await[..] else { panic!() };
    assert!(
        first["ended"].as_str().unwrap() <= second["trace"][0]["at"].as_str().unwrap(),
        "{second:#} {first:#}"
    );

    twice(&nodes, "parallel").await;
    runs(node, "parallel", &["running", "running"]).await;
    waits(node, "parallel", 0).await;
    publish(node, "end").await;
    runs(node, "parallel", &["done", "done"]).await;
}

#[tokio::test]
async fn a_rehearsal_tells_the_steps_and_does_nothing() {
    let (emulator, nodes) = home(2, &["one"]).await;
    let node = &nodes[0];
    let program = json!({
        "triggers": [{"event": "evening"}],
        "conditions": [{"state": NAMES[0], "is": true}, {"state": "attic", "is": true}],
        "actions": [
            turn(0, true),
            {"delay": "90s"},
            {"choose": [{"if": [{"state": NAMES[1], "is": false}], "do": [turn(1, true)]}], "else": [{"event": "never"}]},
        ],
    });
    put(&nodes, "evening", program).await;
    let mut listener = Listener::new(node).await;
    let told = node.client().get("/api/v1/automations/evening/test").await.unwrap().success().unwrap();
    let steps: Vec<&str> =
        told["steps"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
    assert_eq!(steps.len(), 3, "{told:#}");
    assert!(
        steps[0].contains(NAMES[0]) && steps[1] == "waits 1m 30s" && steps[2].contains(NAMES[1]),
        "{told:#}"
    );
    assert_eq!(told["end"], "it comes to its end", "{told:#}");
    assert_eq!(told["conditions"][0]["holds"], false, "{told:#}");
    assert_eq!(told["conditions"][1]["reason"], "there is no device `attic`", "{told:#}");
    // What is done on purpose after it comes first: nothing was under way.
    publish(node, "over").await;
    assert_eq!(listener.until("over").await, [""; 0]);
    assert_eq!((is_on(&emulator, 0).await, is_on(&emulator, 1).await), (false, false));
    assert_eq!(show(node, "evening").await["runs"], json!([]));
    let commands = node.client().objects("command/").await.unwrap();
    assert!(commands.is_empty(), "{commands:?}");
    let none = node.client().get("/api/v1/automations/nobody/test").await.unwrap();
    assert_eq!(none.status, 404, "{none:?}");
}
