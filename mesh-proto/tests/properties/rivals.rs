//! Several links between two nodes: one is kept, and nothing is lost on the way.

use std::collections::{BTreeMap, VecDeque};

use mesh_proto::{
    Value,
    kinds::Author,
    mesh::{Event, Input, Mesh, Op, Transmit},
    session::{LinkId, Transport},
    wire::{self, ByeReason, Message},
};
use proptest::prelude::*;

use super::harness::{Store, hello, household, introduce, key, machine, node_id, now_at, object, say, sent};

/// A link between two machines, frames under way in both directions included.
#[derive(Default)]
struct Way {
    queues: [VecDeque<Transmit>; 2],
    open: [bool; 2],
    /// Nothing passes any more in the direction of this end.
    is_cut: [bool; 2],
}

/// Two machines; frames arrive when the test says so.
struct Pair {
    nodes: [Mesh; 2],
    stores: [Store; 2],
    ways: BTreeMap<u64, Way>,
    ms: u64,
}

impl Pair {
    fn new() -> Self {
        let roster = household(2);
        let nodes = [machine(&roster, 1, 1), machine(&roster, 2, 1)];
        Self { nodes, stores: Default::default(), ways: BTreeMap::new(), ms: 0 }
    }

    /// Whose word counts.
    fn decider(&self) -> usize {
        usize::from(self.nodes[1].id() < self.nodes[0].id())
    }

    fn input(&mut self, node: usize, input: Input) {
        self.nodes[node].handle_input(now_at(self.ms), input);
        self.pump(node);
    }

    fn open(&mut self, link: u64, dialer: usize, transport: Transport) {
        self.ways.insert(link, Way { open: [true; 2], ..Way::default() });
        for node in [0, 1] {
            let peer = self.nodes[1 - node].id();
            let dialed = node == dialer;
            self.input(node, Input::LinkUp { link: LinkId(link), peer, dialed, transport });
        }
    }

    /// Takes out what a machine has to say.
    fn pump(&mut self, node: usize) {
        loop {
            let mut quiet = true;
            while let Some(event) = self.nodes[node].poll_event() {
                quiet = false;
                match event {
                    Event::Persist { batch, records } => {
                        self.stores[node].write(&records);
                        self.nodes[node].handle_input(now_at(self.ms), Input::Persisted(batch));
                    }
                    Event::Close(link, _) => {
                        self.say(node, link.0);
                        if let Some(way) = self.ways.get_mut(&link.0) {
                            way.open[node] = false;
                        }
                        self.nodes[node].handle_input(now_at(self.ms), Input::LinkDown(link));
                    }
                    Event::Offence(_, counter) => panic!("{counter:?}"),
                    _ => {}
                }
            }
            let links: Vec<u64> = self.ways.keys().copied().collect();
            for link in links {
                quiet &= !self.say(node, link);
            }
            if quiet {
                return;
            }
        }
    }

    fn say(&mut self, node: usize, link: u64) -> bool {
        let mut busy = false;
        let Some(way) = self.ways.get_mut(&link).filter(|way| way.open[node]) else { return false };
        while let Some(sent) = self.nodes[node].poll_transmit(LinkId(link)) {
            busy = true;
            if !way.is_cut[1 - node] {
                way.queues[1 - node].push_back(sent);
            }
        }
        busy
    }

    /// One thing arrives over a link, or its end is noticed.
    fn arrive(&mut self, link: u64, node: usize) -> bool {
        let Some(way) = self.ways.get_mut(&link).filter(|way| way.open[node]) else { return false };
        let input = match way.queues[node].pop_front() {
            Some(Transmit::Frame(bytes)) => Input::Frame(LinkId(link), bytes),
            Some(Transmit::Packet(bytes)) => Input::Packet(LinkId(link), bytes),
            None if !way.open[1 - node] && !way.is_cut[node] => {
                way.open[node] = false;
                Input::LinkDown(LinkId(link))
            }
            None => return false,
        };
        self.input(node, input);
        true
    }

    fn settle(&mut self) {
        let links: Vec<u64> = self.ways.keys().copied().collect();
        while links.iter().any(|link| self.arrive(*link, 0) | self.arrive(*link, 1)) {}
    }

    /// Lets time pass in steps of 100 ms, with all that is due.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.ms += 100;
            for node in [0, 1] {
                self.nodes[node].handle_timeout(now_at(self.ms));
                self.pump(node);
            }
            self.settle();
        }
    }

    fn write(&mut self, node: usize, name: &str) {
        let op = Op::Set(key(name, "x"), Value::from(1));
        self.nodes[node].write(now_at(self.ms), Author::Node, vec![op]).unwrap();
        self.pump(node);
    }

    /// The live links of a node.
    fn live(&self, node: usize) -> Vec<u64> {
        self.nodes[node].links().filter(|(_, link)| link.is_live()).map(|(id, _)| id.0).collect()
    }

    fn both_have(&self, name: &str) -> bool {
        self.nodes.iter().all(|node| node.object(&object(name)).is_some())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open(usize, bool),
    Write(usize),
    Arrive(u64, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0_usize..2, any::<bool>()).prop_map(|(dialer, quic)| Step::Open(dialer, quic)),
        3 => (0_usize..2).prop_map(Step::Write),
        12 => (1_u64..5, 0_usize..2).prop_map(|(link, node)| Step::Arrive(link, node)),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn both_keep_the_same_link_and_every_write_arrives(steps in steps()) {
        let mut pair = Pair::new();
        let (mut links, mut writes, mut is_quic) = (0, 0, false);
        for step in steps {
            match step {
                Step::Open(dialer, quic) if links < 4 => {
                    links += 1;
                    is_quic |= quic;
                    pair.open(links, dialer, if quic { Transport::Quic } else { Transport::WebSocket });
                }
                Step::Open(..) => {}
                Step::Write(node) => {
                    writes += 1;
                    pair.write(node, &format!("note/n{writes}"));
                }
                Step::Arrive(link, node) => drop(pair.arrive(link, node)),
            }
        }
        pair.settle();
        // Long enough for a flush, too short for the digest of the next round.
        pair.pass(3_000);
        if links > 0 {
            let (one, two) = (pair.live(0), pair.live(1));
            prop_assert_eq!(one.len(), 1, "{:?}", one);
            prop_assert_eq!(&one, &two);
            let kept = pair.nodes[0].links().next().unwrap().1.transport;
            prop_assert_eq!(kept == Transport::Quic, is_quic);
            for number in 1..=writes {
                prop_assert!(pair.both_have(&format!("note/n{number}")), "note/n{number} is lost");
            }
        }
        prop_assert!(pair.nodes.iter().all(|node| node.links().count() == usize::from(links > 0)));
    }
}

/// Two nodes linked by QUIC, over which nothing arrives at these ends any more.
fn cut_pair(cut: [bool; 2]) -> Pair {
    let mut pair = Pair::new();
    pair.open(1, 0, Transport::Quic);
    pair.settle();
    pair.ways.get_mut(&1).unwrap().is_cut = cut;
    for node in [0, 1] {
        pair.write(node, &format!("note/lost{node}"));
        if cut[node] {
            pair.input(node, Input::LinkSilent(LinkId(1), true));
        }
    }
    pair
}

#[test]
fn a_silent_link_loses_and_what_it_swallowed_arrives() {
    for which in [[true, true], [true, false], [false, true]] {
        let mut pair = cut_pair(which);
        assert_eq!((pair.live(0), pair.live(1)), (vec![1], vec![1]), "it is all there is");
        pair.open(2, 1, Transport::WebSocket);
        pair.settle();
        pair.pass(500);
        assert!(pair.both_have("note/lost0") && pair.both_have("note/lost1"), "{which:?}");
        assert_eq!(pair.live(pair.decider()), [2], "{which:?}");
        let best = |node: usize| pair.nodes[node].best_link_to(pair.nodes[1 - node].id().short()).unwrap().0;
        assert_eq!((best(0), best(1)), (LinkId(2), LinkId(2)), "{which:?}");
        // The transport notices in its own time.
        pair.pass(3_000);
        for node in [0, 1] {
            pair.input(node, Input::LinkDown(LinkId(1)));
        }
        assert_eq!((pair.live(0), pair.live(1)), (vec![2], vec![2]));
        // UDP passes again, and a link over it opens.
        pair.open(3, 0, Transport::Quic);
        pair.write(1, "note/after");
        pair.settle();
        pair.pass(500);
        assert_eq!((pair.live(0), pair.live(1)), (vec![3], vec![3]));
        assert!(pair.both_have("note/after"));
    }
}

#[test]
fn a_link_heard_again_is_kept() {
    let mut pair = cut_pair([true, true]);
    pair.ways.get_mut(&1).unwrap().is_cut = [false; 2];
    for node in [0, 1] {
        pair.input(node, Input::LinkSilent(LinkId(1), false));
    }
    pair.open(2, 0, Transport::WebSocket);
    pair.settle();
    assert_eq!((pair.live(0), pair.live(1)), (vec![1], vec![1]));
}

/// A machine that decides, its QUIC link to the peer, and a WebSocket that took its place.
fn deciding() -> (Mesh, LinkId, LinkId) {
    let roster = household(2);
    let lower = if node_id(1) < node_id(2) { 1 } else { 2 };
    let mut mesh = machine(&roster, lower, 1);
    let first = introduce(&mut mesh, 3 - lower);
    let second = LinkId(77);
    let peer = node_id(3 - lower);
    mesh.handle_input(
        now_at(1),
        Input::LinkUp { link: second, peer, dialed: true, transport: Transport::Quic },
    );
    say(&mut mesh, 1, second, &[hello(roster.household(), 3 - lower)]);
    (mesh, first, second)
}

#[test]
fn nothing_is_given_up_before_the_peer_can_use_what_is_kept() {
    let (mut mesh, first, second) = deciding();
    say(&mut mesh, 2, first, &[Message::Unheard]);
    assert!(!sent(&mut mesh, first).contains(&Message::Bye(ByeReason::Replaced)));
    // It also shows that the loser still delivers.
    let time = mesh_proto::time::TimeOfDay { ms: now_at(2).wall_ms, stratum: 3, word: 0 };
    say(&mut mesh, 3, second, &[Message::Time(time)]);
    let gone = if mesh.links().any(|(id, link)| id == first && link.is_live()) { second } else { first };
    assert!(sent(&mut mesh, gone).contains(&Message::Bye(ByeReason::Replaced)));
    assert_eq!(mesh.links().filter(|(_, link)| link.is_live()).count(), 1);
    assert!(mesh.poll_event().is_none_or(|event| !matches!(event, Event::Close(..))), "it drains first");
    mesh.handle_input(now_at(4), Input::Frame(gone, wire::encode(&[Message::Bye(ByeReason::Replaced)])));
    let closed = core::iter::from_fn(|| mesh.poll_event())
        .any(|event| matches!(event, Event::Close(id, ByeReason::Replaced) if id == gone));
    assert!(closed);
}

#[test]
fn a_loser_that_never_says_goodbye_is_closed_all_the_same() {
    let (mut mesh, first, second) = deciding();
    for link in [first, second] {
        say(&mut mesh, 2, link, &[Message::PageAck { session: 9, index: 1 }]);
    }
    while mesh.poll_event().is_some() {}
    assert!(mesh.poll_timeout().unwrap() <= 2_002);
    mesh.handle_timeout(now_at(2_002));
    assert!(core::iter::from_fn(|| mesh.poll_event()).any(|event| matches!(event, Event::Close(..))));
    assert_eq!(mesh.links().filter(|(_, link)| link.is_live()).count(), 1);
}
