//! How often an automation does what it was started for: three nodes, one that publishes what starts it, and nodes that are killed,
//! cut off, healed and started at random. Its own events are counted; each start is acted upon, and whatever came twice is
//! explained by a record that could not have arrived. Another seed: `HEARTH_SEED=7`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../schedules_chaos/faults.rs"]
mod faults;
mod listener;

use std::{collections::BTreeMap, time::Duration};

use hearth_tests::{
    daemon::{Daemon, Launch, PATIENCE, Plan, wait_until},
    network::Network,
};
use jiff::Timestamp;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use faults::{Fault, Faults};
use listener::{Heard, Listeners};

const NODES: usize = 3;
const NAMES: [&str; NODES] = ["one", "two", "three"];
/// How often it is started, and how long lies between two.
const STARTS: usize = 12;
const APART: Duration = Duration::from_millis(2_500);
/// How long until every run has come to its end, once the network is whole: who comes back is heard out first.
const QUIET: Duration = Duration::from_secs(90);
/// How long what started it waits for somebody who acts on it.
const ON_TIME_MS: i64 = 30_000;
/// In the network between the nodes nothing passes.
const CUT: &str = "table inet cut { chain in { type filter hook input priority 0; iifname \"eth0\" drop; }; \
                   chain out { type filter hook output priority 0; oifname \"eth0\" drop; }; }";

struct Home {
    nodes: Vec<Daemon>,
    listeners: Listeners,
    faults: Faults,
    /// Which node was told of a start, and when, in milliseconds since 1970.
    told: BTreeMap<usize, (usize, i64)>,
    boards: Vec<String>,
    network: Network,
}

impl Home {
    async fn new() -> Self {
        let mut network = Network::new(&["mesh"]).unwrap();
        let (mut nodes, mut boards): (Vec<Daemon>, _) = (Vec::new(), Vec::new());
        for (number, name) in NAMES.iter().enumerate() {
            let board = network.board(name).unwrap();
            network.plug(&board, "eth0", "mesh").unwrap();
            network.address(&board, "eth0", &format!("10.210.0.{}/24", number + 1)).unwrap();
            let listen = format!("10.210.0.{}:7843", number + 1).parse().unwrap();
            let launch = Launch::new().on_board(&board).listen(listen);
            let plan = Plan::new(name).launch(launch).variable("HEARTH_CLOCK", "trusted");
            boards.push(board);
            let node = match nodes.first() {
                Some(first) => first.joined_by(plan).await.unwrap(),
                None => plan.start().await.unwrap(),
            };
            nodes.push(node);
        }
        let (listeners, told) = (Listeners::default(), BTreeMap::new());
        let mut home = Self { nodes, listeners, faults: Faults::default(), told, boards, network };
        home.are_one().await;
        let mut ids = Vec::new();
        for node in &home.nodes {
            ids.push(node.id().await.unwrap()[..16].to_owned());
        }
        for node in &home.nodes {
            home.listeners.listen(node.client(), ids.clone());
        }
        home.make().await;
        home
    }

    async fn are_one(&self) {
        for one in &self.nodes {
            for other in self.nodes.iter().filter(|other| other.name() != one.name()) {
                one.sees(other, "alive").await.unwrap();
            }
        }
    }

    /// Makes the automation; every node knows it.
    async fn make(&self) {
        let said = |topic: &str| json!({"event": topic, "data": {"n": "{{ trigger.data.n }}"}});
        let program = json!({
            "triggers": [{"event": "start"}],
            "actions": [said("began"), {"delay": "1s"}, said("ended")],
            "mode": "parallel",
        });
        let put = self.nodes[0].client();
        put.send("PUT", "/api/v1/automations/act", Some(&program)).await.unwrap().success().unwrap();
        for node in &self.nodes {
            wait_until("it is known", PATIENCE, async || {
                Ok(node.client().get("/api/v1/automations/act").await?.status == 200)
            })
            .await
            .unwrap();
        }
    }

    fn is_down(&self, node: usize) -> bool {
        self.faults.is_down(node, Timestamp::now().as_millisecond())
    }

    /// Tells a node that runs of a start.
    async fn tell(&mut self, number: usize, node: usize) {
        let node = (node..).map(|node| node % NODES).find(|node| !self.is_down(*node)).unwrap();
        let body = json!({"topic": "start", "data": {"n": number}});
        let answer = self.nodes[node].client().send("POST", "/api/v1/events", Some(&body)).await.unwrap();
        answer.success().unwrap();
        self.told.insert(number, (node, Timestamp::now().as_millisecond()));
    }

    /// One thing that happens to a node.
    async fn strike(&mut self, node: usize, chance: u64) {
        let cut = (0..NODES).find(|node| self.faults.is_cut(*node, Timestamp::now().as_millisecond()));
        let down = (0..NODES).filter(|node| self.is_down(*node)).count();
        match (self.is_down(node), cut, chance % 3) {
            (true, ..) => self.start(node).await,
            (false, None, 0) => {
                self.network.run(&self.boards[node], &["nft", CUT]).unwrap();
                self.faults.note(node, Fault::Cut);
            }
            (false, Some(cut), 0 | 1) => self.heal(cut),
            _ if down + 1 < NODES => {
                self.nodes[node].kill().await.unwrap();
                self.faults.note(node, Fault::Down);
            }
            _ => {}
        }
    }

    async fn start(&mut self, node: usize) {
        self.faults.note(node, Fault::Up);
        self.nodes[node].start().await.unwrap();
    }

    fn heal(&mut self, node: usize) {
        self.faults.note(node, Fault::Healed);
        self.network.run(&self.boards[node], &["nft", "flush", "ruleset"]).unwrap();
    }

    /// Starts the automation again and again, and after each start something happens: before, while or after it is done.
    async fn suffer(&mut self, seed: u64) {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |below: u64| chance.next_u64() % below;
        let begin = Instant::now();
        for number in 0..STARTS {
            let at = begin + APART * u32::try_from(number).unwrap();
            sleep_until(at).await;
            self.tell(number, usize::try_from(draw(3)).unwrap()).await;
            sleep_until(at + Duration::from_millis(draw(2_000))).await;
            self.strike(usize::try_from(draw(3)).unwrap(), draw(3)).await;
        }
        for node in 0..NODES {
            if self.faults.is_cut(node, Timestamp::now().as_millisecond()) {
                self.heal(node);
            }
            if self.is_down(node) {
                self.start(node).await;
            }
        }
    }

    /// Nothing is left to be done: no run goes on, and what was heard has been acted upon or cannot be any more.
    async fn comes_to_rest(&self) {
        self.are_one().await;
        let last = self.told.values().map(|(_, at)| *at).max().unwrap();
        for node in &self.nodes {
            wait_until(&format!("{} is at rest", node.name()), QUIET, async || {
                let shown = node.client().get("/api/v1/automations/act").await?.success()?;
                let heard = self.listeners.heard();
                let is_done = (0..STARTS).all(|number| heard.iter().any(|event| event.is("ended", number)));
                let is_late = Timestamp::now().as_millisecond() > last + ON_TIME_MS;
                Ok(shown["state"] == "waiting" && (is_done || is_late))
            })
            .await
            .unwrap();
        }
    }

    /// What came of a start, in words; an error where it came twice without a reason, or never.
    fn judge(&self, number: usize, heard: &[Heard]) -> Result<Vec<String>, String> {
        let mut reasons = Vec::new();
        for topic in ["began", "ended"] {
            let events: Vec<&Heard> = heard.iter().filter(|event| event.is(topic, number)).collect();
            if events.is_empty() {
                reasons.push(self.went_with_its_node(number, topic)?);
            }
            for (index, again) in events.iter().enumerate() {
                for first in &events[..index] {
                    let reason = self.repeated(first, again).or_else(|why| {
                        self.continued(first, heard, again).ok_or(format!("{number} {topic} twice: {why}"))
                    });
                    reasons.push(reason?);
                }
            }
        }
        Ok(reasons)
    }

    /// A start that is not acted upon died with the node that was told of it, before another one could hear of it.
    fn went_with_its_node(&self, number: usize, topic: &str) -> Result<String, String> {
        let (node, at) = self.told[&number];
        let Some(died) = self.faults.death(node, at, at + ON_TIME_MS) else {
            return Err(format!("{number} never {topic}, and {} that was told lived on", NAMES[node]));
        };
        let others = (0..NODES).filter(|other| *other != node);
        let heard: Vec<usize> =
            others.filter(|other| self.faults.could_arrive(node, at, *other, died, NODES)).collect();
        if heard.is_empty() {
            return Ok(format!("never {topic}: {} that was told died {} ms later", NAMES[node], died - at));
        }
        Err(format!("{number} never {topic}, and could have been heard by {heard:?}"))
    }

    /// A third node that could not know of the first began as well, and died over it: its run was gone on with.
    fn continued(&self, first: &Heard, heard: &[Heard], again: &Heard) -> Option<String> {
        let is_same = |event: &&Heard| event.number == first.number && event.by != first.by;
        let mut between =
            heard.iter().filter(|event| (first.at..again.at).contains(&event.at)).filter(is_same);
        between.find_map(|third| {
            self.faults.death(third.by, third.at, again.at)?;
            let reason = self.repeated(first, third).ok()?;
            self.repeated(third, again).ok().map(|then| format!("{reason}; {then}"))
        })
    }

    /// Why what the first recorded could not have been known to the second.
    fn repeated(&self, first: &Heard, again: &Heard) -> Result<String, String> {
        let (one, two) = (NAMES[first.by], NAMES[again.by]);
        if !self.faults.parted(first.by, again.by, first.at, again.at) {
            return Err(format!("{one} and {two} heard each other all the time: {first:?} {again:?}"));
        }
        if self.faults.could_arrive(first.by, first.at, again.by, again.at, NODES) {
            return Err(format!("what {one} recorded could have come to {two}: {first:?} {again:?}"));
        }
        Ok(format!("{} twice: {one}, and {two} {} ms later", first.topic, again.at - first.at))
    }
}

#[tokio::test]
async fn every_start_is_acted_upon_and_what_comes_twice_is_explained() {
    let seed = std::env::var("HEARTH_SEED").map_or(5, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut home = Home::new().await;
    home.suffer(seed).await;
    home.comes_to_rest().await;

    let heard = home.listeners.heard();
    let (mut once, mut wrong) = (0, Vec::new());
    for number in 0..STARTS {
        match home.judge(number, &heard) {
            Ok(reasons) if reasons.is_empty() => once += 1,
            Ok(reasons) => reasons.iter().for_each(|reason| println!("  {number}: {reason}")),
            Err(why) => wrong.push(why),
        }
    }
    let now = Timestamp::now().as_millisecond();
    let lives: usize = (0..NODES).map(|node| home.faults.life(node, now)).sum();
    println!(
        "{STARTS} starts: {once} were acted upon once, {} otherwise; nodes were started anew {lives} times",
        STARTS - once
    );
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}\n{:#?}\n{:#?}\n{heard:#?}", home.faults, home.told);
}
