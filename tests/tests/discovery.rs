//! Nodes that find each other without being told where: real daemons on boards of their own, each
//! board a network namespace. Times are printed; but for the one that is promised, what is asserted is that it
//! happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hearth_tests::{
    daemon::{Daemon, Launch, PATIENCE, Plan, discreet, wait_until},
    network::Network,
};
use serde_json::{Value, json};

const PORT: u16 = 7843;
/// The promise: so soon after the second has started they have found each other.
const FOUND_WITHIN: Duration = Duration::from_secs(3);

/// How a node starts on a board, with mDNS on or off.
fn on(board: &str, listen: &str, mdns: bool) -> Launch {
    let listen: SocketAddr = format!("{listen}:{PORT}").parse().unwrap();
    Launch::new().on_board(board).listen(listen).variable("HEARTH_DISCOVERY_MDNS", mdns.to_string())
}

fn plan(name: &str, launch: Launch) -> Plan {
    Plan::new(name).launch(launch)
}

/// Two boards on one switch, `10.77.0.1` and `10.77.0.2`, and the nodes there, which know each other.
async fn pair(listen: &str, mdns: bool) -> (Network, [String; 2], Daemon, Daemon) {
    let mut network = Network::new(&["lan"]).unwrap();
    let boards = ["one", "two"].map(|name| network.board(name).unwrap());
    for (board, address) in boards.iter().zip(["10.77.0.1/24", "10.77.0.2/24"]) {
        network.plug(board, "eth0", "lan").unwrap();
        network.address(board, "eth0", address).unwrap();
    }
    let one = plan("one", on(&boards[0], listen, mdns)).start().await.unwrap();
    let two = one.joined_by(plan("two", on(&boards[1], listen, mdns))).await.unwrap();
    (network, boards, one, two)
}

/// Stops both and makes them forget where the other was.
async fn stop_and_forget(nodes: [&mut Daemon; 2]) {
    for node in nodes {
        node.stop().await.unwrap();
        // The founder has none.
        let _ = std::fs::remove_file(node.state_dir().join("peers"));
    }
}

/// Where `node` is linked to the other.
async fn linked_at(node: &Daemon, other: &str) -> anyhow::Result<Option<String>> {
    let status = node.status().await?;
    let found = status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == other);
    Ok(found.and_then(|node| node["address"].as_str()).map(str::to_owned))
}

/// Waits until each shows the other alive and linked at an address with this text in it, and what is
/// written on one is read on the other. Answers with how long that took.
async fn meet(one: &Daemon, two: &Daemon, at: [&str; 2], since: Instant) -> Duration {
    for (node, other, at) in [(one, two, at[1]), (two, one, at[0])] {
        let what = format!("{} is linked to {} at {at}", node.name(), other.name());
        wait_until(&what, PATIENCE, async || {
            let is_there = linked_at(node, other.name()).await?.is_some_and(|found| found.contains(at));
            Ok(is_there && node.state_of(other.name()).await? == "alive")
        })
        .await
        .unwrap_or_else(|error| panic!("{error:?}\n{}\n{}", one.log(), two.log()));
    }
    let took = since.elapsed();
    let stamp = json!({ "at": format!("{since:?}") });
    one.put("note/met", stamp.clone()).await.unwrap();
    two.converge("note/met", &stamp).await.unwrap();
    took
}

async fn discovery(node: &Daemon) -> Value {
    node.status().await.unwrap()["discovery"].clone()
}

async fn discovery_is(node: &Daemon, state: &str, text: &str) {
    let what = format!("discovery of {} is {state} and says `{text}`", node.name());
    let mut last = Value::Null;
    let done = wait_until(&what, PATIENCE, async || {
        last = node.status().await?["discovery"].clone();
        Ok(last["state"] == state && last["detail"].as_str().is_some_and(|detail| detail.contains(text)))
    });
    let done = done.await;
    done.unwrap_or_else(|error| panic!("{error:?}: {last}\n{}", node.log()));
}

#[tokio::test]
async fn two_nodes_that_know_only_their_household_find_each_other() {
    let (network, boards, mut one, mut two) = pair("0.0.0.0", true).await;
    stop_and_forget([&mut one, &mut two]).await;
    network.address(&boards[0], "eth0", "10.77.0.11/24").unwrap();
    network.address(&boards[1], "eth0", "10.77.0.12/24").unwrap();
    let mut took = Vec::new();
    // One of three: the other times this machine may have been busy.
    while took.last().is_none_or(|last| *last > FOUND_WITHIN) {
        assert!(took.len() < 3, "{took:?}");
        if !took.is_empty() {
            stop_and_forget([&mut one, &mut two]).await;
        }
        one.start().await.unwrap();
        let since = Instant::now();
        two.start().await.unwrap();
        took.push(meet(&one, &two, ["10.77.0.11:7843", "10.77.0.12:7843"], since).await);
        println!("found by mDNS {took:?} after the start");
    }
    for node in [&one, &two] {
        discovery_is(node, "on", "mDNS on eth0; 1 other node of the household heard").await;
        let shown = node.cli(&["status"]).await.unwrap().ok().unwrap().stdout;
        assert!(shown.contains("discovery  on: mDNS on eth0"), "{shown}");
        let doctor = node.json(&["doctor"]).await.unwrap();
        let checks = doctor.as_array().or_else(|| doctor["checks"].as_array()).unwrap();
        let check = checks.iter().find(|check| check["name"] == "discovery").unwrap();
        assert_eq!(check["status"], "ok", "{check}");
    }
}

#[tokio::test]
async fn a_node_whose_address_changes_while_it_runs_is_found_again_and_tells_the_others() {
    let (network, boards, one, two) = pair("0.0.0.0", true).await;
    for (board, address, at) in [
        (1, "10.77.0.22/24", ["10.77.0.1:", "10.77.0.22:"]),
        (0, "10.77.0.21/24", ["10.77.0.21:", "10.77.0.22:"]),
    ] {
        let since = Instant::now();
        network.address(&boards[board], "eth0", address).unwrap();
        let took = meet(&one, &two, at, since).await;
        println!("found again {took:?} after board {board} got another address");
    }
    let id = two.id().await.unwrap();
    let told = format!("node/{}", &id[..16]);
    wait_until("the new address is told", PATIENCE, async || {
        Ok(one.fields(&told).await?["addresses"] == json!(["10.77.0.22:7843"]))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn nodes_with_two_networks_meet_on_the_one_that_works() {
    let mut network = Network::new(&["lan", "attic"]).unwrap();
    let boards = ["one", "two"].map(|name| network.board(name).unwrap());
    for (board, last) in boards.iter().zip(["1", "2"]) {
        network.plug(board, "eth0", "lan").unwrap();
        network.plug(board, "eth1", "attic").unwrap();
        network.address(board, "eth0", &format!("10.77.0.{last}/24")).unwrap();
    }
    let one = plan("one", on(&boards[0], "0.0.0.0", true)).start().await.unwrap();
    let two = one.joined_by(plan("two", on(&boards[1], "0.0.0.0", true))).await.unwrap();
    discovery_is(&one, "on", "mDNS on eth0; 1 other").await;
    // The second network appears while they run.
    network.address(&boards[0], "eth1", "10.78.0.1/24").unwrap();
    network.address(&boards[1], "eth1", "10.78.0.2/24").unwrap();
    discovery_is(&one, "on", "mDNS on eth0, eth1; 1 other").await;
    discovery_is(&two, "on", "mDNS on eth0, eth1; 1 other").await;
    let since = Instant::now();
    network.link(&boards[0], "set eth0 down").unwrap();
    let took = meet(&one, &two, ["10.78.0.1:", "10.78.0.2:"], since).await;
    println!("met on the other network {took:?} after the first went down");
    discovery_is(&one, "on", "mDNS on eth1; 1 other").await;
}

#[tokio::test]
async fn only_the_chosen_interfaces_are_used() {
    let mut network = Network::new(&["lan", "guests"]).unwrap();
    let boards = ["one", "two"].map(|name| network.board(name).unwrap());
    for (board, last) in boards.iter().zip(["1", "2"]) {
        for (interface, switch, net) in [("eth0", "lan", 77), ("wlan0", "guests", 78)] {
            network.plug(board, interface, switch).unwrap();
            network.address(board, interface, &format!("10.{net}.0.{last}/24")).unwrap();
        }
    }
    let [first, second] = boards.each_ref().map(|board| on(board, "0.0.0.0", true));
    let first = first.with(&["--interfaces", "wlan0"]);
    let one = plan("one", first).start().await.unwrap();
    let two =
        one.joined_by(plan("two", second.variable("HEARTH_DISCOVERY_INTERFACES", "wlan0"))).await.unwrap();
    discovery_is(&one, "on", "mDNS on wlan0; 1 other").await;
    for (node, address) in [(&one, "10.78.0.1:7843"), (&two, "10.78.0.2:7843")] {
        let id = node.id().await.unwrap();
        let told = format!("node/{}", &id[..16]);
        wait_until("this address is told, and the other one to nobody", PATIENCE, async || {
            Ok(one.fields(&told).await?["addresses"] == json!([address]))
        })
        .await
        .unwrap();
    }
    let shown = two.json(&["config", "show"]).await.unwrap().to_string();
    assert!(shown.contains("discovery.interfaces"), "{shown}");
}

#[tokio::test]
async fn nodes_with_nothing_but_ipv6_find_each_other() {
    let (network, boards, mut one, mut two) = pair("[::]", true).await;
    stop_and_forget([&mut one, &mut two]).await;
    for board in &boards {
        // What is left are the link-local addresses, which need their interface.
        network.run(board, &["ip", "-4", "address", "flush", "dev", "eth0"]).unwrap();
    }
    one.start().await.unwrap();
    let since = Instant::now();
    two.start().await.unwrap();
    let took = meet(&one, &two, ["[fe80::", "[fe80::"], since).await;
    println!("found with link-local addresses {took:?} after the start");
    discovery_is(&one, "on", "mDNS on eth0; 1 other").await;
    for (board, address) in boards.iter().zip(["fd77::1/64", "fd77::2/64"]) {
        network.address(board, "eth0", address).unwrap();
    }
    let id = two.id().await.unwrap();
    wait_until("a new IPv6 address is told", PATIENCE, async || {
        Ok(one.fields(&format!("node/{}", &id[..16])).await?["addresses"] == json!(["[fd77::2]:7843"]))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_mdns_configured_peers_are_reached_by_name_and_by_link_local_address() {
    let (network, boards, mut one, mut two) = pair("[::]", false).await;
    discovery_is(&one, "off", "switched off in the configuration").await;
    stop_and_forget([&mut one, &mut two]).await;
    network.address(&boards[0], "eth0", "10.77.0.31/24").unwrap();
    network.address(&boards[1], "eth0", "10.77.0.32/24").unwrap();
    network.hosts(&boards[1], "127.0.0.1 localhost\n10.77.0.31 attic.home\n").unwrap();
    let config = |peer: &str| discreet(&format!("peers = [\"{peer}\"]\n"));
    std::fs::write(two.state_dir().join("hearth.toml"), config("attic.home")).unwrap();
    one.start().await.unwrap();
    let since = Instant::now();
    two.start().await.unwrap();
    let took = meet(&one, &two, ["10.77.0.31:", "10.77.0.32:"], since).await;
    println!("reached by a configured name {took:?} after the start");

    stop_and_forget([&mut one, &mut two]).await;
    for board in &boards {
        network.run(board, &["ip", "-4", "address", "flush", "dev", "eth0"]).unwrap();
    }
    let shown = network.run(&boards[0], &["ip", "-6", "-o", "address", "show", "dev", "eth0"]).unwrap();
    let local = shown.split_whitespace().find(|word| word.starts_with("fe80::")).unwrap();
    let peer = format!("{}%eth0", local.split('/').next().unwrap());
    std::fs::write(two.state_dir().join("hearth.toml"), config(&peer)).unwrap();
    one.start().await.unwrap();
    two.start().await.unwrap();
    meet(&one, &two, ["[fe80::", "[fe80::"], Instant::now()).await;
}

/// How many datagrams wait at a socket.
fn waiting(socket: &std::net::UdpSocket) -> usize {
    socket.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| socket.recv(&mut [0; 2_048]).ok()).count()
}

#[tokio::test]
async fn lights_are_looked_for_on_the_chosen_interfaces_only() {
    let mut network = Network::new(&["lan", "guests"]).unwrap();
    let board = network.board("one").unwrap();
    let places = [("eth0", "lan", 77), ("eth1", "guests", 78)].map(|(interface, switch, net)| {
        network.plug(&board, interface, switch).unwrap();
        network.address(&board, interface, &format!("10.{net}.0.1/24")).unwrap();
        let bulb = network.board(switch).unwrap();
        network.plug(&bulb, "eth0", switch).unwrap();
        network.address(&bulb, "eth0", &format!("10.{net}.0.9/24")).unwrap();
        (interface, network.udp(&bulb, "0.0.0.0:56700".parse().unwrap()).unwrap())
    });
    let [(_, lan), (_, guests)] = &places;
    for (chosen, [(name, asked), (_, left)]) in
        [("eth1", [("guests", guests), ("lan", lan)]), ("eth0", [("lan", lan), ("guests", guests)])]
    {
        let config = format!("[adapters.lifx]\ninterfaces = [\"{chosen}\"]\ndiscover_s = 1\n");
        let mut one = plan("one", on(&board, "0.0.0.0", false)).config(config).start().await.unwrap();
        let mut seen = 0;
        wait_until(&format!("{name} is asked for lights"), PATIENCE, async || {
            seen += waiting(asked);
            Ok(seen >= 3)
        })
        .await
        .unwrap();
        assert_eq!(waiting(left), 0, "nobody else is asked");
        one.stop().await.unwrap();
        assert_eq!(waiting(left), 0, "nobody else is asked");
        waiting(asked);
    }
}

/// A DNS name (RFC 1035, section 3.1).
fn name(text: &str) -> Vec<u8> {
    let labels = text.split_terminator('.');
    labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect()
}

/// A record (RFC 1035, section 4.1.3) that lives long.
fn record(owner: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = name(owner);
    for number in [kind, 1, 0, 4_500, data.len() as u16] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(data);
    bytes
}

/// An answer that nobody asked for.
fn answer(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [0, 0x8400, 0, records.len() as u16, 0, 0] {
        bytes.extend(u16::to_be_bytes(number));
    }
    bytes.extend(records.concat());
    bytes
}

/// The announcement of a node that is somewhere else.
fn lie(instance: &str, node: &str, household: &str, address: [u8; 4]) -> Vec<u8> {
    let (instance, host) = (format!("{instance}._hearth._udp.local"), format!("{instance}.local"));
    let server = [&[0, 0, 0, 0][..], &PORT.to_be_bytes(), &name(&host)].concat();
    let pairs = ["v=1".to_owned(), format!("id={node}"), format!("hh={household}")];
    let text: Vec<u8> = pairs.iter().flat_map(|it| [&[it.len() as u8], it.as_bytes()].concat()).collect();
    answer(&[
        record("_hearth._udp.local", 12, &name(&instance)),
        record(&instance, 33, &server),
        record(&instance, 16, &text),
        record(&host, 1, &address),
    ])
}

#[tokio::test]
async fn lies_and_noise_on_the_network_do_no_harm() {
    let (mut network, boards, mut one, mut two) = pair("0.0.0.0", true).await;
    let (id, household) = (two.id().await.unwrap(), two.status().await.unwrap()["household"].clone());
    let household = household.as_str().unwrap().parse().unwrap();
    let tag = node::discovery::HouseholdTag::of(&household).to_string();
    stop_and_forget([&mut one, &mut two]).await;
    network.address(&boards[0], "eth0", "10.77.0.11/24").unwrap();
    network.address(&boards[1], "eth0", "10.77.0.12/24").unwrap();
    let stranger = network.board("stranger").unwrap();
    network.plug(&stranger, "eth0", "lan").unwrap();
    network.address(&stranger, "eth0", "10.77.0.66/24").unwrap();
    network.run(&stranger, &["ip", "route", "add", "default", "dev", "eth0"]).unwrap();
    let socket = network.udp(&stranger, "10.77.0.66:5353".parse().unwrap()).unwrap();
    let group = "224.0.0.251:5353";

    one.start().await.unwrap();
    discovery_is(&one, "on", "no other node").await;
    let before = one.rss_kib().unwrap();
    // Whoever else knows the household says that the other node is in many places where it is not.
    let mut random = blake3::Hasher::new().finalize_xof();
    for round in 0..300_u16 {
        let [high, low] = round.to_be_bytes();
        let instance = format!("{}-{round}", &id[..16]);
        socket.send_to(&lie(&instance, &id[..16], &tag, [10, 77, 1 + high, low]), group).unwrap();
        socket.send_to(&lie(&format!("y{round}"), "00000000000000aa", &tag, [10, 77, 0, 66]), group).unwrap();
        let mut noise = vec![0; usize::from(round) * 3 + 1];
        random.fill(&mut noise);
        socket.send_to(&noise, group).unwrap();
        // Noise behind a head that promises records.
        let head = [0, 0, 0x84, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        socket.send_to(&[&head[..], &noise].concat(), group).unwrap();
    }
    let since = Instant::now();
    two.start().await.unwrap();
    let took = meet(&one, &two, ["10.77.0.11:7843", "10.77.0.12:7843"], since).await;
    println!("found among lies and noise {took:?} after the start");

    // A flood of records that are all different: they are forgotten before they fill the memory.
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for round in 0..2_000_u16 {
        let records: Vec<_> = (0..20)
            .map(|n| record(&format!("flood-{round}-{n}.local"), 1, &[10, 77, (round % 251) as u8, n]))
            .collect();
        socket.send_to(&answer(&records), group).unwrap();
        if round % 50 == 0 {
            // As fast as the other side reads, so that they arrive.
            pace.tick().await;
        }
    }
    discovery_is(&one, "failing", "floods this node").await;
    let grown = one.rss_kib().unwrap().saturating_sub(before);
    println!("a flood of 40,000 records made it grow by {grown} KiB");
    assert!(grown < 48 << 10, "it grew by {grown} KiB");
    discovery_is(&one, "on", "1 other node").await;
    assert_eq!(one.state_of("two").await.unwrap(), "alive");
}

#[tokio::test]
async fn discovery_that_cannot_work_says_why_and_what_to_do() {
    let mut network = Network::new(&["lan"]).unwrap();
    let board = network.board("one").unwrap();
    network.plug(&board, "eth0", "lan").unwrap();
    let one = plan("one", on(&board, "0.0.0.0", true).with(&["--interfaces", "eth0"])).start().await.unwrap();
    discovery_is(&one, "waiting", "no interface of eth0 is up with an address").await;

    let taken = network.udp(&board, "0.0.0.0:5353".parse().unwrap()).unwrap();
    network.address(&board, "eth0", "10.77.0.1/24").unwrap();
    discovery_is(&one, "failing", "UDP port 5353 cannot be had").await;
    let way_out = discovery(&one).await["way_out"].as_str().unwrap().to_owned();
    assert!(way_out.contains("ss -lunp") && way_out.contains("peers"), "{way_out}");
    drop(taken);
    discovery_is(&one, "on", "mDNS on eth0").await;

    let rules = "table inet wall { chain out { type filter hook output priority 0; udp dport 5353 drop; }; }";
    network.run(&board, &["nft", rules]).unwrap();
    network.link(&board, "set eth0 down").unwrap();
    discovery_is(&one, "waiting", "no interface of eth0").await;
    network.link(&board, "set eth0 up").unwrap();
    network.address(&board, "eth0", "10.77.0.1/24").unwrap();
    discovery_is(&one, "failing", "is heard").await;
    let doctor = one.cli(&["doctor"]).await.unwrap().stdout;
    assert!(doctor.contains("discovery: let UDP port 5353 in and out"), "{doctor}");
}
