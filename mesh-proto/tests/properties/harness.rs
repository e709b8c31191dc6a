//! Names and values for tests, and a few machines on a net that loses nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ed25519_dalek::SigningKey;
use mesh_proto::{
    Dot, FieldName, Hlc, HouseholdId, Key, NodeId, ObjectId, Origin, ShortId, Value,
    kinds::Author,
    limits::Limits,
    merge::{Bytes, Entry},
    mesh::{Boot, Event, Input, Loader, Mesh, Op, Transmit},
    overlay::Run,
    planted::Plant,
    record::{Batch, Item},
    roster::{Body, NodeName, Roles, Roster},
    session::{LinkId, Transport},
    time::{Now, TimeOfDay},
    wire::{self, Hello, Message},
};

/// The time of day at which every test begins, in milliseconds since 1970.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

pub(crate) fn object(name: &str) -> ObjectId {
    ObjectId::new(name).unwrap()
}

pub(crate) fn key(name: &str, field: &str) -> Key {
    let field = if field.is_empty() { FieldName::object() } else { FieldName::new(field).unwrap() };
    Key { object: object(name), field }
}

pub(crate) fn origin(node: u64, generation: u32) -> Origin {
    Origin { node: ShortId(node), generation }
}

pub(crate) fn dot(node: u64, generation: u32, seq: u64) -> Dot {
    Dot { origin: origin(node, generation), seq }
}

pub(crate) fn bytes(number: i64) -> Bytes {
    Some(Value::from(number).encode().unwrap())
}

pub(crate) fn item(key: Key, ms: u64, dot: Dot, value: Bytes) -> Item {
    Item { key, entry: Entry { stamp: Hlc::from_ms(ms), dot, value }, covers: Vec::new() }
}

pub(crate) fn signing(node: u8) -> SigningKey {
    SigningKey::from_bytes(&[node; 32])
}

pub(crate) fn node_id(node: u8) -> NodeId {
    NodeId::from_bytes(signing(node).verifying_key().to_bytes())
}

/// A household of the nodes 1 to `count`; the first is its admin.
pub(crate) fn household(count: u8) -> Roster {
    let mut roster = Roster::found(&signing(200), node_id(1), "node", None).unwrap();
    for node in 2..=count {
        let name = NodeName::new("node").unwrap();
        let body = Body::Admit { node: node_id(node), roles: Roles::MEMBER, name, token: None };
        roster.issue(&signing(1), body).unwrap();
    }
    roster
}

pub(crate) fn copy(roster: &Roster) -> Roster {
    Roster::from_bytes(&roster.to_bytes()).unwrap()
}

pub(crate) fn now_at(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: START_MS + ms }
}

pub(crate) fn boot(roster: &Roster, node: u8, generation: u32, restored: bool) -> Boot {
    Boot {
        key: signing(node),
        roster: copy(roster),
        run: Run { incarnation: u64::from(generation), generation },
        ceiling: Hlc::ZERO,
        build_ms: 0,
        wall: mesh_proto::time::WallClock::Right,
        restored: restored.then_some(generation),
        seed: u64::from(node),
        software: "test".into(),
        limits: Limits::default(),
        plant: Plant::default(),
    }
}

pub(crate) fn machine(roster: &Roster, node: u8, generation: u32) -> Mesh {
    Mesh::new(boot(roster, node, generation, false), now_at(0), Loader::new(Plant::default()))
}

/// What a peer of the same household says first.
pub(crate) fn hello(household: HouseholdId, node: u8) -> Message {
    Message::Hello(Hello {
        protocol: wire::PROTOCOL,
        oldest: wire::OLDEST_PROTOCOL,
        household,
        node: node_id(node),
        run: Run { incarnation: 1, generation: 1 },
        time: TimeOfDay { ms: START_MS, stratum: 1, word: 0 },
        proof: Vec::new(),
        software: "test".into(),
    })
}

/// Links a machine with a peer that the test plays itself, and drops what it says at first.
pub(crate) fn introduce(mesh: &mut Mesh, peer: u8) -> LinkId {
    let link = LinkId(u64::from(peer));
    mesh.handle_input(
        now_at(0),
        Input::LinkUp { link, peer: node_id(peer), dialed: false, transport: Transport::Quic },
    );
    say(mesh, 0, link, &[hello(mesh.roster().household(), peer)]);
    while mesh.poll_transmit(link).is_some() {}
    link
}

pub(crate) fn say(mesh: &mut Mesh, ms: u64, link: LinkId, messages: &[Message]) {
    mesh.handle_input(now_at(ms), Input::Frame(link, wire::encode(messages)));
}

/// What a machine has to say over a link.
pub(crate) fn sent(mesh: &mut Mesh, link: LinkId) -> Vec<Message> {
    let frames = core::iter::from_fn(|| mesh.poll_transmit(link));
    let messages = frames.filter_map(|sent| match sent {
        Transmit::Frame(bytes) => Some(wire::decode(&bytes).unwrap().0),
        Transmit::Packet(_) => None,
    });
    messages.flatten().collect()
}

/// A store: records by key, in the order in which batches were flushed.
#[derive(Default, Clone)]
pub(crate) struct Store(pub(crate) BTreeMap<Vec<u8>, Vec<u8>>);

impl Store {
    pub(crate) fn write(&mut self, batch: &Batch) {
        batch.puts.iter().for_each(|(key, value)| drop(self.0.insert(key.clone(), value.clone())));
        batch.deletes.iter().for_each(|key| drop(self.0.remove(key)));
    }

    pub(crate) fn load(&self) -> Loader {
        let mut loader = Loader::new(Plant::default());
        self.0.iter().for_each(|(key, value)| loader.record(key, value).unwrap());
        loader
    }
}

/// Machines that are linked pairwise where the test says so. Frames arrive at once.
pub(crate) struct Net {
    pub(crate) nodes: Vec<Mesh>,
    pub(crate) stores: Vec<Store>,
    pub(crate) events: Vec<Vec<Event>>,
    /// Nodes whose store does not answer.
    pub(crate) stalled: BTreeSet<usize>,
    /// A node without power: nothing reaches it and it does nothing, but its links stand.
    pub(crate) dead: Option<usize>,
    waiting: Vec<VecDeque<(u64, Batch)>>,
    links: BTreeSet<(usize, usize)>,
    pub(crate) ms: u64,
}

impl Net {
    /// A household of so many nodes, all linked with each other.
    pub(crate) fn new(count: usize) -> Self {
        Self::with_limits(&vec![Limits::default(); count])
    }

    /// One node for each of these limits, all linked with each other.
    pub(crate) fn with_limits(limits: &[Limits]) -> Self {
        let count = limits.len();
        let roster = household(u8::try_from(count).unwrap());
        let start = |(node, limits): (u8, &Limits)| {
            let boot = Boot { limits: *limits, ..boot(&roster, node, 1, false) };
            Mesh::new(boot, now_at(0), Loader::new(Plant::default()))
        };
        let nodes = (1..).zip(limits).map(start).collect();
        let mut net = Self {
            nodes,
            stores: vec![Store::default(); count],
            events: (0..count).map(|_| Vec::new()).collect(),
            stalled: BTreeSet::new(),
            dead: None,
            waiting: vec![VecDeque::new(); count],
            links: BTreeSet::new(),
            ms: 0,
        };
        for a in 0..count {
            for b in a + 1..count {
                net.link(a, b);
            }
        }
        net.settle();
        net
    }

    fn id(a: usize, b: usize) -> LinkId {
        LinkId(u64::try_from(a.min(b) * 100 + a.max(b)).unwrap())
    }

    pub(crate) fn link(&mut self, a: usize, b: usize) {
        self.links.insert((a, b));
        for (own, other, dialed) in [(a, b, true), (b, a, false)] {
            let peer = self.nodes[other].id();
            let input = Input::LinkUp { link: Self::id(a, b), peer, dialed, transport: Transport::Quic };
            self.nodes[own].handle_input(now_at(self.ms), input);
        }
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.links.remove(&(a, b));
        for node in [a, b] {
            self.nodes[node].handle_input(now_at(self.ms), Input::LinkDown(Self::id(a, b)));
        }
    }

    /// Stops a node without warning and starts it in this generation with what its store holds.
    pub(crate) fn restart(&mut self, node: usize, generation: u32) {
        self.start(node, generation, false);
    }

    /// The same, with a store that was restored.
    pub(crate) fn restore(&mut self, node: usize, generation: u32) {
        self.start(node, generation, true);
    }

    fn start(&mut self, node: usize, generation: u32, restored: bool) {
        let links: Vec<_> = self.links.iter().copied().filter(|(a, b)| *a == node || *b == node).collect();
        links.iter().for_each(|(a, b)| self.cut(*a, *b));
        let number = u8::try_from(node + 1).unwrap();
        let boot = boot(self.nodes[node].roster(), number, generation, restored);
        self.waiting[node].clear();
        self.nodes[node] = Mesh::new(boot, now_at(self.ms), self.stores[node].load());
        links.iter().for_each(|(a, b)| self.link(*a, *b));
        self.settle();
    }

    pub(crate) fn write(&mut self, node: usize, ops: Vec<Op>) {
        self.nodes[node].write(now_at(self.ms), Author::Node, ops).unwrap();
        self.settle();
    }

    pub(crate) fn set(&mut self, node: usize, name: &str, field: &str, value: i64) {
        self.write(node, vec![Op::Set(key(name, field), Value::from(value))]);
    }

    /// Carries frames and flushes batches until nobody has anything more to say.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for node in 0..self.nodes.len() {
                quiet &= !self.answer(node);
            }
            for (a, b) in self.links.clone() {
                for (from, to) in [(a, b), (b, a)] {
                    if Some(from) == self.dead {
                        continue;
                    }
                    while let Some(sent) = self.nodes[from].poll_transmit(Self::id(a, b)) {
                        quiet = false;
                        if Some(to) == self.dead {
                            continue;
                        }
                        let input = match sent {
                            Transmit::Frame(bytes) => Input::Frame(Self::id(a, b), bytes),
                            Transmit::Packet(bytes) => Input::Packet(Self::id(a, b), bytes),
                        };
                        self.nodes[to].handle_input(now_at(self.ms), input);
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn answer(&mut self, node: usize) -> bool {
        let mut busy = false;
        while let Some(event) = self.nodes[node].poll_event() {
            busy = true;
            match event {
                Event::Persist { batch, records } => self.waiting[node].push_back((batch, records)),
                Event::PersistRun(run, _) => {
                    self.nodes[node].handle_input(now_at(self.ms), Input::RunPersisted(run));
                }
                Event::LostAndFound { number, .. } => {
                    self.nodes[node].handle_input(now_at(self.ms), Input::LostSaved(number));
                }
                other => self.events[node].push(other),
            }
        }
        if !self.stalled.contains(&node)
            && let Some((batch, records)) = self.waiting[node].pop_front()
        {
            self.stores[node].write(&records);
            self.nodes[node].handle_input(now_at(self.ms), Input::Persisted(batch));
            busy = true;
        }
        busy
    }

    /// Lets so many milliseconds pass, timer by timer.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.ms + ms;
        while self.ms < end {
            let awake = self.nodes.iter().enumerate().filter(|(node, _)| Some(*node) != self.dead);
            let due = awake.filter_map(|(_, node)| node.poll_timeout()).min().unwrap_or(end);
            self.ms = due.clamp(self.ms + 1, end);
            for node in (0..self.nodes.len()).filter(|node| Some(*node) != self.dead) {
                self.nodes[node].handle_timeout(now_at(self.ms));
            }
            self.settle();
        }
    }
}
