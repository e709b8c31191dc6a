//! Adapters that their objects start, stop, change and move, and one of which one node at a time runs.

use std::time::Duration;

use mesh_proto::ObjectId;
use node::{
    api::ports::{CommandState, PortError, Power, adapters::AdapterChange},
    service::ObjectView,
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    bulb::{Mood, PASSWORD, SINGLE},
    home::{Home, Node, availability, field, power},
};

fn adapter() -> ObjectId {
    ObjectId::new("adapter/single").unwrap()
}

fn settings(settings: serde_json::Value) -> AdapterChange {
    AdapterChange { settings: settings.as_object().unwrap().clone(), ..AdapterChange::default() }
}

/// So many nodes that may run the bridge, which nobody has set up.
async fn bare(name: &str, count: u8) -> Home {
    Home::of(&SINGLE, name, &format!("single-{name}"), count, |number| json!({"node": number})).await
}

/// The same, set up, with its bulb online; answers with the index of the node that runs it as well.
async fn set_up(name: &str, count: u8) -> (Home, usize) {
    let home = bare(name, count).await;
    let change = settings(json!({"bulb": name, "password": PASSWORD}));
    home.nodes[0].adapters.change("single".to_owned(), change).await.unwrap();
    let runner = running(&home).await;
    (home, runner)
}

fn state(view: &ObjectView, node: &Node) -> Option<String> {
    let standing = field(view, &format!("state.{}", node.me))?;
    standing.get("state")?.as_text().map(str::to_owned)
}

/// Waits until exactly one node runs it, the others know, and its bulb is online.
async fn running(home: &Home) -> usize {
    let counted = |view: &ObjectView| {
        let states = home.nodes.iter().filter_map(|node| state(view, node));
        let states: Vec<_> = states.collect();
        let runs = states.iter().filter(|state| *state == "running").count();
        let rests = states.iter().filter(|state| *state == "elsewhere").count();
        runs == 1 && runs + rests == home.nodes.len()
    };
    let mut runner = None;
    for node in &home.nodes {
        let view = node.until(&adapter(), "one node that runs the adapter", counted).await;
        runner = home.nodes.iter().position(|node| state(&view, node).as_deref() == Some("running"));
        node.until(&home.device, "the bulb online", |view| availability(view) == "online").await;
    }
    runner.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_waits_for_its_settings_and_starts_when_they_are_there() {
    let home = bare("waits", 2).await;
    let waits =
        |view: &ObjectView| home.nodes.iter().any(|node| state(view, node).as_deref() == Some("waiting"));
    let view = home.nodes[1].until(&adapter(), "an adapter that waits", waits).await;
    assert!(format!("{view:?}").contains("set the bulb"));
    let change = settings(json!({"bulb": "waits", "password": PASSWORD}));
    home.nodes[1].adapters.change("single".to_owned(), change).await.unwrap();
    let runner = running(&home).await;
    let command = home.nodes[1 - runner].submit(&home.device, power(Power::On)).await;
    assert_eq!(home.nodes[runner].ended(&command.id).await.state, CommandState::Confirmed);
    let told: Vec<u64> = home.bulb.log().iter().map(|(node, ..)| *node).collect();
    assert_eq!(told, [runner as u64 + 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_node_that_runs_it_dies_another_takes_over_within_ten_seconds() {
    let (mut home, runner) = set_up("heirs", 3).await;
    drop(home.nodes.remove(runner));
    let began = Instant::now();
    let survivor = running(&home).await;
    let command = home.nodes[1 - survivor].submit(&home.device, power(Power::On)).await;
    assert_eq!(home.nodes[1 - survivor].ended(&command.id).await.state, CommandState::Confirmed);
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_reach_its_service_gives_way_to_another() {
    let (home, runner) = set_up("yields", 2).await;
    *home.bulb.shut_to.lock().unwrap() = Some(runner as u64 + 1);
    let restart = AdapterChange { restart: true, ..AdapterChange::default() };
    home.nodes[runner].adapters.change("single".to_owned(), restart).await.unwrap();
    let other = 1 - runner;
    home.nodes[runner]
        .until(&adapter(), "the other to run it", |view| {
            state(view, &home.nodes[other]).as_deref() == Some("running")
        })
        .await;
    assert_eq!(running(&home).await, other);
    // It stays where it runs well, though the first is able again.
    *home.bulb.shut_to.lock().unwrap() = None;
    let command = home.nodes[runner].submit(&home.device, power(Power::On)).await;
    assert_eq!(home.nodes[runner].ended(&command.id).await.state, CommandState::Confirmed);
    assert_eq!(home.bulb.log().last().unwrap().0, other as u64 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_moved_switched_off_and_on_by_its_object() {
    let (home, runner) = set_up("moves", 2).await;
    let other = &home.nodes[1 - runner];
    let to = AdapterChange { nodes: Some(vec![other.me]), ..AdapterChange::default() };
    other.adapters.change("single".to_owned(), to).await.unwrap();
    other
        .until(&adapter(), "the other to run it", |view| state(view, other).as_deref() == Some("running"))
        .await;
    other.until(&home.device, "the bulb online", |view| availability(view) == "online").await;
    let off = AdapterChange { enabled: Some(false), ..AdapterChange::default() };
    home.nodes[runner].adapters.change("single".to_owned(), off).await.unwrap();
    let is_off = |view: &ObjectView| state(view, other).as_deref() == Some("off");
    other.until(&adapter(), "it to be off", is_off).await;
    other.until(&home.device, "offline", |view| availability(view) != "online").await;
    let on = AdapterChange { enabled: Some(true), nodes: Some(Vec::new()), ..AdapterChange::default() };
    other.adapters.change("single".to_owned(), on).await.unwrap();
    running(&home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_readable_by_members_alone_and_handed_to_new_ones() {
    let home = bare("secret", 2).await;
    let [one, two] = &home.nodes[..] else { panic!() };
    for node in [one, two] {
        node.admit([1]);
    }
    let change = settings(json!({"bulb": "secret", "password": PASSWORD}));
    one.adapters.change("single".to_owned(), change).await.unwrap();
    let boxed =
        |view: &ObjectView, node: &Node| field(view, &format!("sealed.password.{}", node.me)).is_some();
    let view = one.until(&adapter(), "the sealed secret", |view| boxed(view, one)).await;
    assert!(!boxed(&view, two), "who is no member gets none");
    let shown = format!("{:?}", one.adapters.list().await.unwrap());
    assert!(shown.contains("\"password\"") && !shown.contains(PASSWORD));
    assert!(!format!("{view:?}").contains("correct horse"));
    for node in [one, two] {
        node.admit([1, 2]);
    }
    two.until(&adapter(), "the secret for the new member", |view| boxed(view, two)).await;
    one.admit([1]);
    one.until(&adapter(), "the secret of who is gone to go", |view| !boxed(view, two)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_is_refused_before_it_is_written() {
    let (home, runner) = set_up("checks", 1).await;
    let node = &home.nodes[runner];
    let refused = node.adapters.change("single".to_owned(), settings(json!({"bulb": 7}))).await;
    assert!(
        matches!(&refused, Err(PortError::Invalid { detail, .. }) if detail.contains("\"bulb\"")),
        "{refused:?}"
    );
    let refused = node.adapters.change("none".to_owned(), AdapterChange::default()).await;
    assert!(matches!(&refused, Err(PortError::NotFound(what)) if what.contains("single")), "{refused:?}");
    let refused = node.adapters.change("single".to_owned(), AdapterChange::default()).await;
    assert!(matches!(refused, Err(PortError::Invalid { .. })));
    let long = settings(json!({"password": "x".repeat(5_000)}));
    let refused = node.adapters.change("single".to_owned(), long).await;
    assert!(
        matches!(&refused, Err(PortError::Invalid { detail, .. }) if detail.contains("2048")),
        "{refused:?}"
    );
    node.until(&home.device, "still online", |view| availability(view) == "online").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_when_its_device_is_removed_with_its_adapter() {
    let (home, runner) = set_up("removed", 2).await;
    home.bulb.set(Mood::Deaf);
    let other = &home.nodes[1 - runner];
    let command = other.submit_within(&home.device, power(Power::On), 600_000).await;
    other.adapters.forget("single".to_owned()).await.unwrap();
    let ended = other.ended(&command.id).await;
    assert_eq!(
        (ended.state, ended.reason.as_deref()),
        (CommandState::Failed, Some("the device was removed"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_gone_and_found_again_when_it_is_wanted() {
    let (home, runner) = set_up("forgets", 1).await;
    let node = &home.nodes[runner];
    node.adapters.forget("single".to_owned()).await.unwrap();
    node.until(&adapter(), "no settings", |view| {
        field(view, "settings.bulb").is_none() && state(view, node).as_deref() == Some("off")
    })
    .await;
    assert!(!node.service.get(home.device.clone()).await.unwrap().is_some_and(|device| device.complete));
    let change =
        AdapterChange { enabled: Some(true), ..settings(json!({"bulb": "forgets", "password": PASSWORD})) };
    node.adapters.change("single".to_owned(), change).await.unwrap();
    running(&home).await;
}
