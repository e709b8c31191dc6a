//! Where UDP does not pass: nodes in network namespaces of their own, joined by one cable, that find
//! each other over WebSockets, lose UDP while they are linked, and get it back. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::fd::AsFd as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use hearth_tests::daemon::{BUSY, Daemon, Folder, Launch, Observer, PATIENCE, discreet, wait_until};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;

const PORT: u16 = 7843;
/// The promise: so soon the nodes are linked again after UDP is cut off.
const FALLBACK_WITHIN: Duration = Duration::from_secs(2);
/// How often QUIC is tried again here.
const RETRY: Duration = Duration::from_secs(2);

/// Two namespaces and the cable between them; they go when it is dropped.
struct Cable {
    names: [String; 2],
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is missing, run tests/setup: {error}"));
    assert!(output.status.success(), "{program} {args:?} (this test needs root): {output:?}");
}

impl Cable {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("hearth-{}-ws{number}{end}", std::process::id());
        let cable = Self { names: [name("a"), name("b")] };
        for name in &cable.names {
            run("ip", &["netns", "add", name]);
        }
        let [a, b] = &cable.names;
        run("ip", &["-n", a, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b]);
        for (name, host) in [(a, 1), (b, 2)] {
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
            run("ip", &["-n", name, "addr", "add", &format!("10.77.0.{host}/24"), "dev", "eth0"]);
            run("ip", &["-n", name, "link", "set", "eth0", "up"]);
            nft(name, "add table inet test");
            nft(name, "add chain inet test in { type filter hook input priority 0 ; }");
        }
        cable
    }

    fn address(end: usize) -> SocketAddr {
        format!("10.77.0.{}:{PORT}", end + 1).parse().unwrap()
    }

    /// No UDP arrives at this end any more.
    fn block(&self, end: usize) {
        nft(&self.names[end], "add rule inet test in meta l4proto udp drop");
    }

    fn open(&self) {
        self.names.iter().for_each(|name| nft(name, "flush chain inet test in"));
    }

    /// What this thread starts from now on is at this end.
    fn enter(&self, end: usize) {
        let namespace = fs::File::open(format!("/run/netns/{}", self.names[end])).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            // One that was never made is as it should be.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn nft(namespace: &str, rule: &str) {
    let words: Vec<&str> = ["netns", "exec", namespace, "nft"].into_iter().chain(rule.split(' ')).collect();
    run("ip", &words);
}

/// The two nodes of a household at the ends of a cable. The processes go first.
struct Home {
    nodes: [Daemon; 2],
    cable: Cable,
    _folder: Folder,
}

async fn start(cable: &Cable, folder: &Folder, end: usize, join: Option<&str>) -> Daemon {
    let name = ["one", "two"][end];
    let state = folder.join(name);
    fs::create_dir(&state).unwrap();
    let config = discreet(&format!("quic_retry = \"{}s\"\n", RETRY.as_secs()));
    fs::write(state.join("hearth.toml"), config).unwrap();
    let launch = Launch::new().listen(Cable::address(end)).with(&["--name", name]);
    let launch = match join {
        Some(token) => launch.variable("HEARTH_JOIN", token),
        None => launch,
    };
    cable.enter(end);
    Daemon::on(&state, &launch).await.unwrap()
}

impl Home {
    async fn new(cable: Cable) -> Self {
        let folder = Folder::new().unwrap();
        let one = start(&cable, &folder, 0, None).await;
        let token = one.invite().await.unwrap();
        let two = start(&cable, &folder, 1, Some(&token)).await;
        one.sees(&two, "alive").await.unwrap();
        two.sees(&one, "alive").await.unwrap();
        Self { nodes: [one, two], cable, _folder: folder }
    }

    /// How a node shows its link to the other.
    async fn transport(&self, node: usize) -> anyhow::Result<String> {
        let status = self.nodes[node].status().await?;
        let other = self.nodes[1 - node].name();
        let all = status["nodes"].as_array().unwrap();
        let found = all.iter().find(|shown| shown["name"] == other).unwrap();
        Ok(found["transport"].as_str().unwrap_or("none").to_owned())
    }

    /// Waits until both show this; answers with how long it took.
    async fn linked_over(&self, transport: &str) -> Duration {
        let since = Instant::now();
        for node in [0, 1] {
            wait_until(&format!("the link is {transport}"), PATIENCE, async || {
                Ok(self.transport(node).await? == transport)
            })
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.nodes[0].log(), self.nodes[1].log()));
        }
        since.elapsed()
    }

    /// Writes one object on each node.
    async fn write(&self, number: usize) {
        for (node, name) in self.nodes.iter().zip(["a", "b"]) {
            node.put(&format!("note/{name}{number}"), json!({ "text": number.to_string() })).await.unwrap();
        }
    }

    async fn both_have(&self, number: usize) {
        for name in ["a", "b"] {
            for node in &self.nodes {
                let fields = json!({ "text": number.to_string() });
                node.converge(&format!("note/{name}{number}"), &fields).await.unwrap();
            }
        }
    }

    /// Nobody was ever taken for dead.
    fn stayed_alive(&self) {
        for node in &self.nodes {
            assert!(!node.log().contains("node is down"), "{}", node.log());
        }
    }
}

/// Each of these writes of both nodes is told once, whichever link it came by.
async fn each_once(observer: &mut Observer, numbers: usize) {
    let mut told = BTreeSet::new();
    while told.len() < numbers * 2 {
        let message = observer.next().await.unwrap();
        if message["type"] == "object" {
            let id = message["object"]["id"].as_str().unwrap().to_owned();
            assert_eq!(message["object"]["fields"]["text"], id["note/a".len()..], "{message}");
            assert!(told.insert(id), "twice: {message}");
        }
    }
    let more = observer.next_within(Duration::from_secs(1)).await.unwrap();
    assert!(more.as_ref().is_none_or(|message| message["type"] != "object"), "{more:?}");
}

#[tokio::test]
async fn nodes_join_and_converge_where_udp_never_passes() {
    let cable = Cable::new();
    cable.block(0);
    cable.block(1);
    let home = Home::new(cable).await;
    home.linked_over("websocket").await;
    home.write(1).await;
    home.both_have(1).await;
    let table = home.nodes[0].cli(&["status"]).await.unwrap().ok().unwrap().stdout;
    assert!(table.contains("websocket"), "{table}");
    home.cable.open();
    let took = home.linked_over("quic").await;
    println!("QUIC took over {} ms after UDP opened, tried every {} ms", took.as_millis(), RETRY.as_millis());
    home.write(2).await;
    home.both_have(2).await;
    home.stayed_alive();
}

#[tokio::test]
async fn a_link_that_loses_udp_goes_on_over_tcp_and_returns() {
    let home = Home::new(Cable::new()).await;
    home.linked_over("quic").await;
    let mut observers = Vec::new();
    for node in &home.nodes {
        let mut observer = node.client().watch().await.unwrap();
        observer.subscribe(&["note/"], None).await.unwrap();
        observers.push(observer);
    }
    let mut number = 0;
    let mut took = Vec::new();
    // Both directions, and one of them each.
    for ends in [[0, 1].as_slice(), &[0], &[1]] {
        home.write(number).await;
        for end in ends {
            home.cable.block(*end);
        }
        let since = Instant::now();
        let writing = async {
            for _ in 0..20 {
                number += 1;
                home.write(number).await;
            }
        };
        let (fallback, ()) = tokio::join!(home.linked_over("websocket"), writing);
        println!("UDP blocked at {ends:?}: linked over TCP after {} ms", fallback.as_millis());
        took.push(fallback);
        home.both_have(number).await;
        println!("    all writes of that time on both nodes after {} ms", since.elapsed().as_millis());
        home.cable.open();
        let back = home.linked_over("quic").await;
        println!(
            "    back on QUIC {} ms after UDP opened (tried every {} s)",
            back.as_millis(),
            RETRY.as_secs()
        );
        number += 1;
    }
    for number in 0..number {
        home.both_have(number).await;
    }
    for observer in &mut observers {
        each_once(observer, number).await;
    }
    took.sort_unstable();
    assert!(took[0] <= FALLBACK_WITHIN && took[took.len() - 1] <= FALLBACK_WITHIN * BUSY, "{took:?}");
}
