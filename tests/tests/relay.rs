//! Nodes that have no network in common: three in a line, and two sites joined by one node. What they say to each
//! other crosses the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use hearth_tests::{
    daemon::{BUSY, Daemon, Namespaces, PATIENCE, Plan, wait_until},
    emulator::{COLOR_BULB, Emulator},
};
use serde_json::{Value, json};

/// What a node that was killed takes with it is seen within this time; the simulation proves the promise of 3 s.
const SEEN_WITHIN: Duration = Duration::from_secs(3).saturating_mul(BUSY);

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
    let see = [(&west, "east"), (&east, "west")].map(async |(node, far)| {
        let what = format!("{} says that the middle is dead and {far} unreachable", node.name());
        wait_until(&what, SEEN_WITHIN, async || {
            let (near, far) = (row(node, "middle").await?, row(node, far).await?);
            Ok(near["state"] == "dead" && far["state"] == "unreachable" && far["via"].is_null())
        })
        .await
        .unwrap();
    });
    join_all(see).await;
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

/// The cables of two sites: each node of a site to the other and to the middle.
const CABLES: [(&str, &str); 6] = [
    ("west1", "west2"),
    ("west1", "joint"),
    ("west2", "joint"),
    ("joint", "east1"),
    ("joint", "east2"),
    ("east1", "east2"),
];
const SITES: [[&str; 2]; 2] = [["west1", "west2"], ["east1", "east2"]];

/// Five nodes; a bulb that only `east1` reaches.
struct Sites {
    west: [Daemon; 2],
    middle: Daemon,
    east: [Daemon; 2],
    _bulb: Emulator,
    networks: Namespaces,
}

impl Sites {
    async fn new() -> Self {
        let networks = Namespaces::new(&["west1", "west2", "joint", "east1", "east2"]).unwrap();
        for (number, (one, other)) in CABLES.iter().enumerate() {
            networks.cable(one, other, &format!("10.202.{number}")).unwrap();
        }
        let bulb = Emulator::start_in(&networks.name("east1"), &[COLOR_BULB]).await.unwrap();
        let plan = |name: &str| Plan::new(name).network(&networks.name(name), everywhere());
        let lights = format!(
            "[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\ndiscover_s = 1\npoll_s = 1\n",
            bulb.address()
        );
        let west1 = plan("west1").start().await.unwrap();
        let west2 = plan("west2").join(&invite(&west1, &[]).await).start().await.unwrap();
        let token = invite(&west1, &["--role", "admin"]).await;
        let middle = Plan::new("middle").network(&networks.name("joint"), everywhere());
        let middle = middle.join(&token).start().await.unwrap();
        let east1 = plan("east1").config(lights).join(&invite(&middle, &[]).await).start().await.unwrap();
        let east2 = plan("east2").join(&invite(&middle, &[]).await).start().await.unwrap();
        let sites = Self { west: [west1, west2], middle, east: [east1, east2], _bulb: bulb, networks };
        sites.are_one().await;
        sites
    }

    /// Everybody sees everybody, and each site the other by way of the middle.
    async fn are_one(&self) {
        for (site, others) in [(&self.west, SITES[1]), (&self.east, SITES[0])] {
            for node in site {
                for other in others {
                    let what = format!("{} reaches {other} by way of the middle", node.name());
                    wait_until(&what, PATIENCE, async || {
                        Ok(row(node, other).await?["state"] == "alive" && goes_by_middle(node, other).await?)
                    })
                    .await
                    .unwrap();
                }
            }
        }
        for [one, two] in [&self.west, &self.east] {
            one.sees(two, "alive").await.unwrap();
            two.sees(one, "alive").await.unwrap();
        }
    }

    fn all(&self) -> [&Daemon; 5] {
        let ([west1, west2], [east1, east2]) = (&self.west, &self.east);
        [west1, west2, &self.middle, east1, east2]
    }

    /// Pulls both cables of the east out of the middle, or plugs them in.
    fn plug(&self, is_in: bool) {
        SITES[1].iter().for_each(|east| self.networks.plug("joint", east, is_in).unwrap());
    }
}

/// Within the promised time it says that the middle is dead, and the other site unreachable.
async fn sees_the_joint_gone(node: &Daemon, others: [&str; 2]) {
    let what = format!("{} says that the middle is dead and the other site unreachable", node.name());
    wait_until(&what, SEEN_WITHIN, async || {
        let mut is_so = row(node, "middle").await?["state"] == "dead";
        for far in others {
            is_so &= row(node, far).await?["state"] == "unreachable";
        }
        Ok(is_so)
    })
    .await
    .unwrap();
}

const BULB: &str = "device/lifx-d073d5000001";

/// Switches the bulb from a node; its life is that of a command that all goes well with.
async fn switch(node: &Daemon, on: bool) {
    wait_until("the bulb is known here and online", PATIENCE, async || {
        Ok(node.fields(BULB).await?["availability"]["state"] == "online")
    })
    .await
    .unwrap();
    let word = if on { "on" } else { "off" };
    let switched = node.cli(&["light", "LIFX A19 000001", word]).await.unwrap().ok().unwrap();
    assert!(switched.stdout.contains("confirmed"), "{switched:?}");
}

#[tokio::test]
async fn two_sites_that_one_node_joins_are_one_home_and_each_goes_on_without_it() {
    let mut sites = Sites::new().await;

    // Commands from the far site, and what comes of them at every observer.
    for on in [false, true] {
        switch(&sites.west[1], on).await;
        for node in sites.all() {
            wait_until("what the bulb reports is seen everywhere", PATIENCE, async || {
                Ok(node.fields(BULB).await?["reported"]["value"]["on"] == on)
            })
            .await
            .unwrap();
        }
    }

    // The cables to the east flap while both sites write, and at last are out until it is noticed.
    let mut written = 0;
    let mut pace = tokio::time::interval(Duration::from_millis(700));
    for flap in 0..4 {
        for is_in in [false, true] {
            sites.plug(is_in);
            for _ in 0..5 {
                for node in [&sites.west[0], &sites.east[1]] {
                    let object = format!("note/{}-{written}", node.name());
                    node.put(&object, json!({ "n": written })).await.unwrap();
                }
                written += 1;
            }
            pace.tick().await;
            if flap == 3 && !is_in {
                wait_until("the cut is noticed", PATIENCE, async || {
                    Ok(row(&sites.west[0], "east1").await?["state"] != "alive")
                })
                .await
                .unwrap();
            }
        }
    }
    sites.are_one().await;
    for node in sites.all() {
        for writer in ["west1", "east2"] {
            for n in 0..written {
                node.converge(&format!("note/{writer}-{n}"), &json!({ "n": n })).await.unwrap();
            }
        }
    }

    sites.middle.kill().await.unwrap();
    let west = sites.west.iter().map(|node| sees_the_joint_gone(node, SITES[1]));
    let east = sites.east.iter().map(|node| sees_the_joint_gone(node, SITES[0]));
    join_all(west.chain(east)).await;
    // Each site goes on: writes in the west, the bulb in the east.
    sites.west[0].put("note/alone", json!({ "text": "west" })).await.unwrap();
    sites.west[1].converge("note/alone", &json!({ "text": "west" })).await.unwrap();
    switch(&sites.east[1], false).await;
    sites.middle.start().await.unwrap();
    sites.are_one().await;
    sites.east[0].converge("note/alone", &json!({ "text": "west" })).await.unwrap();
    switch(&sites.west[0], true).await;
}
