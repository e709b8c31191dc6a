//! What starts an automation, and what one waits for.

use hearth_tests::daemon::{PATIENCE, wait_until};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::home::{Listener, NAMES, dim, home, publish, put, runs, set, show, shows, state, turn};

#[tokio::test]
async fn a_threshold_must_be_crossed_for_long_enough() {
    const HOLD: SignedDuration = SignedDuration::from_secs(20);
    let (emulator, nodes) = home(1, &["one"]).await;
    let node = &nodes[0];
    let bright = |percent: u32| {
        let emulator = &emulator;
        async move {
            dim(emulator, 0, percent).await;
            wait_until("the node sees it", PATIENCE, async || {
                let fields = node.fields(&format!("device/{}", NAMES[0])).await?;
                let seen = fields["reported"]["value"]["brightness"].as_f64().unwrap_or(0.0) / 655.35;
                Ok((seen - f64::from(percent)).abs() < 1.0)
            })
            .await
            .unwrap();
            Timestamp::now()
        }
    };
    bright(20).await;
    let program = json!({
        "triggers": [{"number": NAMES[0], "of": "brightness", "above": 50, "for": "20s"}],
        "actions": [{"event": "bright"}],
    });
    put(&nodes, "glare", program).await;
    bright(80).await;
    let dark = bright(30).await;
    bright(90).await;
    let since = bright(95).await;
    let [run] = &runs(node, "glare", &["done"]).await[..] else { panic!() };
    let at: Timestamp = run["at"].as_str().unwrap().parse().unwrap();
    // Of the second stretch, and from its beginning: that it became brighter yet began nothing.
    assert!(
        at >= dark + HOLD - SignedDuration::from_secs(1) && at <= since + HOLD,
        "dark {dark}, {since}: {run:#}"
    );
    assert!(run["why"].as_str().unwrap().contains("brightness is 9"), "{run:#}");
}

#[tokio::test]
async fn a_device_that_does_not_answer_starts_it_once() {
    let (emulator, nodes) = home(2, &["one"]).await;
    let actions = json!([turn(1, true), {"event": "lost"}]);
    put(&nodes, "lost", json!({"triggers": [{"offline": NAMES[0]}], "actions": actions})).await;
    put(&nodes, "mark", json!({"triggers": [{"event": "lost"}], "actions": [{"event": "marked"}]})).await;
    emulator.remove(super::home::serial(0)).await.unwrap();
    shows(&emulator, 1, true).await;
    let [run] = &runs(&nodes[0], "lost", &["done"]).await[..] else { panic!() };
    assert!(run["why"].as_str().unwrap().contains("availability is"), "{run:#}");
    runs(&nodes[0], "mark", &["done"]).await;
    // The whole adapter's peer is gone, too.
    put(&nodes, "dark", json!({"triggers": [{"offline": NAMES[1]}], "actions": [{"event": "dark"}]})).await;
    drop(emulator);
    runs(&nodes[0], "dark", &["done"]).await;
    runs(&nodes[0], "lost", &["done"]).await;
}

#[tokio::test]
async fn what_is_waited_for_ends_the_wait_as_soon_as_it_comes() {
    let (emulator, nodes) = home(2, &["one"]).await;
    let node = &nodes[0];
    let actions = json!([
        {"wait": [{"state": NAMES[0], "is": true}], "timeout": "1h"},
        {"wait": {"event": "go*"}, "timeout": "1h"},
        turn(1, true),
        {"wait": [{"state": NAMES[0], "is": false}], "timeout": "100ms", "otherwise": "go_on"},
        {"wait": [{"state": NAMES[0], "is": false}], "timeout": "100ms"},
        turn(1, false),
    ]);
    put(&nodes, "wait", json!({"triggers": [{"event": "begin"}], "actions": actions})).await;
    publish(node, "begin").await;
    let waits = async |lines: usize| {
        wait_until("it waits", PATIENCE, async || {
            Ok(show(node, "wait").await["runs"][0]["trace"]
                .as_array()
                .is_some_and(|trace| trace.len() == lines))
        })
        .await
        .unwrap();
    };
    waits(1).await;
    set(&emulator, 0, true).await;
    waits(2).await;
    publish(node, "go.on").await;
    shows(&emulator, 1, true).await;
    let [run] = &runs(node, "wait", &["stopped"]).await[..] else { panic!() };
    assert_eq!(run["end"], "what it waited for did not come", "{run:#}");
    let steps: Vec<&str> = super::home::lines(run).into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, ["0", "1", "2", "3", "4"], "{run:#}");
    assert!(super::home::is_on(&emulator, 1).await, "what comes after it is not done");
}

#[tokio::test]
async fn a_time_starts_it_once_on_three_nodes() {
    let (_emulator, nodes) = home(1, &["one", "two", "three"]).await;
    nodes[0].cli(&["home", "set", "--zone", "UTC"]).await.unwrap().ok().unwrap();
    let mut listener = Listener::new(&nodes[0]).await;
    let at = Timestamp::from_second(Timestamp::now().as_second() + 25).unwrap();
    let cron = at.strftime("cron %-S %-M %-H * * *").to_string();
    put(&nodes, "tick", json!({"triggers": [{"at": cron}], "actions": [{"event": "tick"}]})).await;
    for node in &nodes {
        let [run] = &runs(node, "tick", &["done"]).await[..] else { panic!() };
        assert_eq!(run["at"].as_str().unwrap().parse::<Timestamp>().unwrap(), at, "{run:#}");
    }
    publish(&nodes[1], "over").await;
    assert_eq!(listener.until("over").await, ["tick"]);
}

#[tokio::test]
async fn a_trigger_that_can_start_nothing_yet_is_told_and_holds_up_no_other() {
    let (_emulator, nodes) = home(1, &["one"]).await;
    let node = &nodes[0];
    let at = |when: &str| json!({"triggers": [{"at": when}], "actions": [{"event": "x"}]});
    put(&nodes, "dusk", at("sunset - 30m")).await;
    assert!(state(node, "dusk", "held").await.contains("zone"));
    node.cli(&["home", "set", "--zone", "UTC"]).await.unwrap().ok().unwrap();
    wait_until("the place is missed", PATIENCE, async || {
        Ok(state(node, "dusk", "held").await.contains("the place of the home"))
    })
    .await
    .unwrap();
    // A time beside it comes all the same.
    let triggers = json!([{"at": "sunset"}, {"at": "cron * * * * * *"}]);
    put(&nodes, "both", json!({"triggers": triggers, "actions": [{"event": "y"}]})).await;
    wait_until("it comes", PATIENCE, async || {
        Ok(show(node, "both").await["runs"].as_array().is_some_and(|runs| !runs.is_empty()))
    })
    .await
    .unwrap();
    node.cli(&["home", "set", "--place", "52.52,13.40"]).await.unwrap().ok().unwrap();
    state(node, "dusk", "waiting").await;
    put(&nodes, "attic", json!({"triggers": [{"state": "attic"}], "actions": [{"event": "x"}]})).await;
    assert_eq!(state(node, "attic", "held").await, "there is no device `attic`");
}
