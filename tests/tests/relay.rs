//! Three nodes in a line: the outer two have no network in common, and what they say to each other
//! crosses the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{net::SocketAddr, time::Duration};

use hearth_tests::daemon::{Daemon, Namespaces, PATIENCE, Plan, wait_until};
use serde_json::{Value, json};

/// The promise: what a node that was killed takes with it is seen within this time.
const SEEN_WITHIN: Duration = Duration::from_secs(3);

/// Where each listens: at all addresses of its namespace.
fn everywhere() -> SocketAddr {
    "0.0.0.0:7843".parse().unwrap()
}

/// How one node shows another.
async fn row(node: &Daemon, other: &str) -> anyhow::Result<Value> {
    let status = node.status().await?;
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    Ok(nodes.into_iter().find(|row| row["name"] == other).unwrap_or_default())
}

async fn invite(node: &Daemon, more: &[&str]) -> String {
    let args: Vec<&str> = ["invite", "-q"].iter().chain(more).copied().collect();
    node.cli(&args).await.unwrap().ok().unwrap().stdout.trim().to_owned()
}

/// West - middle - east, each known to its neighbour alone.
async fn line(networks: &Namespaces) -> [Daemon; 3] {
    networks.cable("west", "middle", "10.201.1").unwrap();
    networks.cable("middle", "east", "10.201.2").unwrap();
    let plan = |name: &str| Plan::new(name).network(&networks.name(name), everywhere());
    let west = plan("west").start().await.unwrap();
    let middle = plan("middle").join(&invite(&west, &["--role", "admin"]).await).start().await.unwrap();
    let east = plan("east").join(&invite(&middle, &[]).await).start().await.unwrap();
    for (one, other) in [(&west, &middle), (&middle, &east), (&west, &east), (&east, &west)] {
        one.sees(other, "alive").await.unwrap();
    }
    [west, middle, east]
}

async fn goes_by_middle(node: &Daemon, other: &str) -> anyhow::Result<bool> {
    let row = row(node, other).await?;
    Ok(row["via"] == "middle" && row["hops"] == 2 && row["transport"] == "relay" && row["address"].is_null())
}

#[tokio::test]
async fn what_the_outer_nodes_say_crosses_the_middle_and_its_death_is_told() {
    let networks = Namespaces::new(&["west", "middle", "east"]).unwrap();
    let [west, mut middle, east] = line(&networks).await;

    for (node, other) in [(&west, "east"), (&east, "west")] {
        let what = format!("{} reaches {other} by way of the middle", node.name());
        wait_until(&what, PATIENCE, async || goes_by_middle(node, other).await).await.unwrap();
    }
    let shown = west.cli(&["status"]).await.unwrap().ok().unwrap().stdout;
    assert!(
        shown.lines().any(|line| line.starts_with("east") && line.contains("via middle, 2 hops")),
        "{shown}"
    );
    let middles = row(&middle, "east").await.unwrap();
    assert_eq!((&middles["via"], &middles["hops"]), (&Value::Null, &json!(1)), "{middles}");

    // Objects both ways, and what never reaches a disk: what each says of itself.
    west.put("note/milk", json!({"text": "milk"})).await.unwrap();
    east.converge("note/milk", &json!({"text": "milk"})).await.unwrap();
    east.put("note/milk", json!({"text": "oat milk"})).await.unwrap();
    west.converge("note/milk", &json!({"text": "oat milk"})).await.unwrap();
    wait_until("each knows how much the other holds", PATIENCE, async || {
        let (there, here) = (west.status().await?, row(&east, "west").await?);
        Ok(here["objects"].is_u64() && here["objects"] == there["objects"])
    })
    .await
    .unwrap();

    middle.kill().await.unwrap();
    let killed = tokio::time::Instant::now();
    for node in [&west, &east] {
        let far = if node.name() == "west" { "east" } else { "west" };
        let what = format!("{} says that the middle is dead and {far} unreachable", node.name());
        let left = SEEN_WITHIN.saturating_sub(killed.elapsed());
        wait_until(&what, left, async || {
            let (near, far) = (row(node, "middle").await?, row(node, far).await?);
            Ok(near["state"] == "dead" && far["state"] == "unreachable" && far["via"].is_null())
        })
        .await
        .unwrap();
    }
    assert!(row(&west, "east").await.unwrap()["objects"].is_null(), "what east said of itself is over");
    west.put("note/alone", json!({"text": "west"})).await.unwrap();

    middle.start().await.unwrap();
    wait_until("the way is back", PATIENCE, async || {
        let (there, back) = (row(&west, "east").await?, row(&east, "west").await?);
        Ok(there["state"] == "alive" && back["state"] == "alive" && goes_by_middle(&west, "east").await?)
    })
    .await
    .unwrap();
    east.converge("note/alone", &json!({"text": "west"})).await.unwrap();
}
