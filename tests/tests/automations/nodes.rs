//! Runs whose node is killed or started anew.

use std::{collections::BTreeSet, time::Duration};

use hearth_tests::{
    daemon::{Daemon, PATIENCE, wait_until},
    emulator::{COLOR_BULB, Emulator},
};
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

use super::home::{
    Listener, NAMES, home, is_on, lines, plan, publish, put, reaches, runs, set, show, shows, state, turn,
};

/// On, nothing for so long, and another one on, each told by an event.
fn two_lights(delay: &str) -> Value {
    json!({
        "triggers": [{"event": "motion"}],
        "actions": [turn(0, true), {"event": "first"}, {"delay": delay}, turn(1, true), {"event": "second"}],
    })
}

/// A node shows that the run waits.
async fn waits(node: &Daemon, name: &str) {
    wait_until("it waits", PATIENCE, async || {
        let line = show(node, name).await["runs"][0]["trace"][2]["what"].clone();
        Ok(line.as_str().is_some_and(|what| what.starts_with("waits")))
    })
    .await
    .unwrap();
}

/// What the node shows of the latest run is on its disk as well: the power may go.
async fn is_stored(node: &Daemon, name: &str) {
    let object = format!("automation/{name}");
    wait_until("its object has the run as it is shown", PATIENCE, async || {
        let shown = show(node, name).await["runs"][0]["trace"].clone();
        let fields = node.fields(&object).await?;
        let mut runs =
            fields.as_object().into_iter().flatten().filter(|(field, _)| field.starts_with("run."));
        Ok(shown.is_array() && runs.any(|(_, run)| told(&run["trace"]) == told(&shown)))
    })
    .await
    .unwrap();
    // What is acknowledged has been flushed, and all that was written before it.
    node.put("note/flushed", json!({ "text": "" })).await.unwrap();
}

/// What a trace says, step by step.
fn told(trace: &Value) -> Vec<(&Value, &Value)> {
    trace.as_array().into_iter().flatten().map(|line| (&line["step"], &line["what"])).collect()
}

#[tokio::test]
async fn a_delay_survives_a_power_cut_and_what_was_done_is_not_done_again() {
    let (emulator, mut nodes) = home(2, &["one"]).await;
    put(&nodes, "hall", two_lights("5s")).await;
    publish(&nodes[0], "motion").await;
    waits(&nodes[0], "hall").await;
    is_stored(&nodes[0], "hall").await;
    nodes[0].kill().await.unwrap();
    assert!(is_on(&emulator, 0).await);
    set(&emulator, 0, false).await;
    nodes[0].start().await.unwrap();
    shows(&emulator, 1, true).await;
    let [run] = &runs(&nodes[0], "hall", &["done"]).await[..] else { panic!() };
    let steps: Vec<&str> = lines(run).into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps[..4], ["0", "1", "2", ""], "{run:#}");
    assert_eq!(steps[steps.len() - 2..], ["3", "4"], "{run:#}");
    assert_eq!(run["trace"][3]["what"], "it was broken off by a restart", "{run:#}");
    assert!(!is_on(&emulator, 0).await, "the first step was done once");
}

#[tokio::test]
async fn a_run_from_before_a_power_cut_is_held_until_the_time_is_known() {
    let emulator = Emulator::start(&[COLOR_BULB; 2]).await.unwrap();
    for bulb in 0..2 {
        set(&emulator, bulb, false).await;
    }
    let mut nodes = [plan("one", &emulator).start().await.unwrap()];
    for bulb in 0..2 {
        reaches(&nodes[0], bulb).await;
    }
    put(&nodes, "hall", two_lights("1h")).await;
    // What needs no time of day goes on without it.
    publish(&nodes[0], "motion").await;
    waits(&nodes[0], "hall").await;
    is_stored(&nodes[0], "hall").await;
    nodes[0].kill().await.unwrap();
    nodes[0].start().await.unwrap();
    reaches(&nodes[0], 1).await;
    let reason = state(&nodes[0], "hall", "held").await;
    assert!(reason.contains("hearth time set"), "{reason}");
    put(&nodes, "noon", json!({"triggers": [{"at": "cron 0 12 * * *"}], "actions": [{"event": "noon"}]}))
        .await;
    let reason = state(&nodes[0], "noon", "held").await;
    assert!(reason.contains("hearth time set"), "{reason}");
    // Others are started all the same.
    put(&nodes, "bell", json!({"triggers": [{"event": "bell"}], "actions": [{"event": "rung"}]})).await;
    publish(&nodes[0], "bell").await;
    runs(&nodes[0], "bell", &["done"]).await;
    assert!(!is_on(&emulator, 1).await);
    let later = (Timestamp::now() + 2.hours()).to_string();
    nodes[0].cli(&["time", "set", &later]).await.unwrap().ok().unwrap();
    shows(&emulator, 1, true).await;
    runs(&nodes[0], "hall", &["done"]).await;
}

/// The nodes of a home: the one that starts an automation, and the others.
async fn parted(mut nodes: Vec<Daemon>, name: &str) -> (Daemon, Vec<Daemon>) {
    let by = show(&nodes[0], name).await["by"].clone();
    let at = nodes.iter().position(|node| by == node.name()).unwrap();
    (nodes.remove(at), nodes)
}

#[tokio::test]
async fn the_run_of_a_node_that_dies_in_a_delay_comes_to_its_end_on_another_and_once() {
    let (emulator, nodes) = home(2, &["one", "two", "three"]).await;
    put(&nodes, "hall", two_lights("6s")).await;
    let (mut dies, others) = parted(nodes, "hall").await;
    let mut listener = Listener::new(&others[0]).await;
    publish(&others[1], "motion").await;
    for node in &others {
        waits(node, "hall").await;
        wait_until("it knows who is at it", PATIENCE, async || {
            Ok(show(node, "hall").await["runs"][0]["node"] == dies.name())
        })
        .await
        .unwrap();
    }
    dies.kill().await.unwrap();
    set(&emulator, 0, false).await;
    shows(&emulator, 1, true).await;
    let [run] = &runs(&others[0], "hall", &["done"]).await[..] else { panic!() };
    assert_ne!(run["node"], dies.name(), "{run:#}");
    assert!(
        run["trace"].as_array().unwrap().iter().any(|line| line["what"] == "the node that was at it died"),
        "{run:#}"
    );
    publish(&others[0], "over").await;
    assert_eq!(listener.until("over").await, ["motion", "first", "second"]);
    assert!(!is_on(&emulator, 0).await, "the first step was done once");

    // Who comes back hears of it and does nothing.
    dies.start().await.unwrap();
    let [known] = &runs(&dies, "hall", &["done"]).await[..] else { panic!() };
    assert_eq!(known["node"], run["node"], "{known:#}");
    for node in [&dies, &others[0], &others[1]] {
        state(node, "hall", "waiting").await;
    }
    publish(&others[0], "over").await;
    assert_eq!(listener.until("over").await, [""; 0]);
    assert!(!is_on(&emulator, 0).await, "nothing was done again");

    // And it is started again as ever: no run is left over.
    set(&emulator, 1, false).await;
    publish(&others[0], "motion").await;
    let [_, _] = &runs(&others[0], "hall", &["done", "done"]).await[..] else { panic!() };
    publish(&others[0], "over").await;
    assert_eq!(listener.until("over").await, ["motion", "first", "second"]);
    assert!(is_on(&emulator, 0).await && is_on(&emulator, 1).await);
}

/// Nothing until a lamp is on, and then nothing until a bell rings.
fn two_waits() -> Value {
    json!({
        "triggers": [{"event": "motion"}],
        "actions": [
            {"wait": [{"state": NAMES[0], "is": true}], "timeout": "1h"},
            {"event": "lit"},
            {"wait": {"event": "bell"}, "timeout": "1h"},
            {"event": "rung"},
        ],
    })
}

/// All nodes show that the run waits in a step at one of them, and was gone on with so often for this reason; which one that is.
async fn waiting_at(nodes: &[Daemon], step: &str, reason: &str, times: usize) -> usize {
    let mut at = None;
    let what = format!("it waits in step {step}, again {times} times");
    let one = wait_until(&what, PATIENCE, async || {
        let mut places = BTreeSet::new();
        for node in nodes {
            let run = show(node, "hall").await["runs"][0].clone();
            let trace = run["trace"].as_array().cloned().unwrap_or_default();
            let again = trace.iter().filter(|line| line["what"] == reason).count();
            let waits = trace.last().is_some_and(|line| {
                line["step"] == step && line["what"].as_str().is_some_and(|what| what.starts_with("waits"))
            });
            let place = nodes.iter().position(|node| run["node"] == node.name());
            places.insert(place.filter(|_| waits && again == times));
        }
        at = places.pop_first().flatten().filter(|_| places.is_empty());
        Ok(at.is_some())
    });
    if let Err(late) = one.await {
        panic!("{late:#}: {:#}", show(&nodes[0], "hall").await);
    }
    at.unwrap()
}

#[tokio::test]
async fn a_wait_for_a_state_and_one_for_an_event_survive_a_power_cut() {
    let restart = "it was broken off by a restart";
    let (emulator, mut nodes) = home(1, &["one"]).await;
    put(&nodes, "hall", two_waits()).await;
    publish(&nodes[0], "motion").await;
    for (times, step) in [(0, "0"), (1, "2")] {
        waiting_at(&nodes, step, restart, times).await;
        is_stored(&nodes[0], "hall").await;
        nodes[0].kill().await.unwrap();
        nodes[0].start().await.unwrap();
        reaches(&nodes[0], 0).await;
        waiting_at(&nodes, step, restart, times + 1).await;
        set(&emulator, 0, true).await;
    }
    publish(&nodes[0], "bell").await;
    let [run] = &runs(&nodes[0], "hall", &["done"]).await[..] else { panic!() };
    assert_eq!(lines(run).last(), Some(&("3", "ok")), "{run:#}");
}

#[tokio::test]
async fn a_wait_for_a_state_and_one_for_an_event_go_on_at_another_node_when_one_dies() {
    let death = "the node that was at it died";
    let (emulator, mut nodes) = home(1, &["one", "two", "three"]).await;
    put(&nodes, "hall", two_waits()).await;
    publish(&nodes[0], "motion").await;
    for (times, step) in [(0, "0"), (1, "2")] {
        let at = waiting_at(&nodes, step, death, times).await;
        nodes.remove(at).kill().await.unwrap();
        waiting_at(&nodes, step, death, times + 1).await;
        set(&emulator, 0, true).await;
    }
    publish(&nodes[0], "bell").await;
    let [run] = &runs(&nodes[0], "hall", &["done"]).await[..] else { panic!() };
    assert_eq!((lines(run).last(), &run["node"]), (Some(&("3", "ok")), &nodes[0].name().into()), "{run:#}");
}

#[tokio::test]
async fn a_run_whose_node_dies_between_two_steps_goes_on_where_it_was() {
    const TURNS: usize = 12;
    let (emulator, nodes) = home(2, &["one", "two", "three"]).await;
    let program = json!({
        "triggers": [{"event": "motion"}],
        "actions": [{"repeat": TURNS, "do": [turn(0, true), turn(0, false)]}, turn(1, true)],
    });
    put(&nodes, "blink", program).await;
    let (mut dies, others) = parted(nodes, "blink").await;
    let mut observer = others[0].client().watch().await.unwrap();
    observer.subscribe(&["command/", "note/"], None).await.unwrap();
    publish(&others[0], "motion").await;
    wait_until("it is under way", PATIENCE, async || {
        Ok(show(&others[0], "blink").await["runs"][0]["trace"]
            .as_array()
            .is_some_and(|trace| trace.len() > 3))
    })
    .await
    .unwrap();
    dies.kill().await.unwrap();
    shows(&emulator, 1, true).await;
    let [run] = &runs(&others[0], "blink", &["done"]).await[..] else { panic!() };
    assert_ne!(run["node"], dies.name(), "{run:#}");
    assert!(!is_on(&emulator, 0).await);
    // One command for each step, and one more at most: of the step in which the node died.
    others[0].put("note/over", json!({ "text": "" })).await.unwrap();
    let mut commands = BTreeSet::new();
    loop {
        let message = observer.next().await.unwrap();
        match message["object"]["id"].as_str() {
            Some("note/over") => break,
            Some(id) => commands.extend(id.starts_with("command/").then(|| id.to_owned())),
            None => {}
        }
    }
    // What another node has done may come by another way.
    while let Some(message) = observer.next_within(Duration::from_millis(500)).await.unwrap() {
        commands.extend(message["object"]["id"].as_str().map(str::to_owned));
    }
    let steps = TURNS * 2 + 1;
    assert!((steps..=steps + 1).contains(&commands.len()), "{} commands for {steps} steps", commands.len());
}
