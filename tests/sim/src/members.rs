//! Liveness alone, for long times: nodes that stall, and who takes whom for dead.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use mesh_proto::{
    ShortId,
    liveness::{Liveness as _, LivenessEvent, Swim},
};

use super::rng::Rng;

const STALL_MS: u64 = 10_000;
/// Between two stalls of one node, on average.
const STALL_EVERY_MS: u64 = 3_600_000;
/// A verdict that falls so soon after a node woke is about its stall.
const WAKING_MS: u64 = 300;

enum Happening {
    Arrive { from: usize, to: usize, bytes: Vec<u8> },
    Wake { node: usize },
    Stall { node: usize },
    Woken { node: usize },
}

/// A household of which only liveness runs.
pub(crate) struct Members {
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    what: BTreeMap<(u64, u64), Happening>,
    nodes: Vec<Swim>,
    wakes: Vec<Option<u64>>,
    /// Until when a node stalls, or when its last stall ended.
    stalled: Vec<u64>,
    /// Nodes that stalled and are not seen alive by all again.
    returning: BTreeMap<usize, u64>,
    loss: u64,
    rng: Rng,
    /// Verdicts about nodes that ran.
    pub(crate) false_deaths: u64,
    pub(crate) stalls: u64,
    pub(crate) slowest_return: u64,
}

fn short(node: usize) -> ShortId {
    ShortId(node as u64 + 1)
}

impl Members {
    /// Nodes that are all linked with each other, on a network that loses so many packets in a hundred.
    pub(crate) fn new(count: usize, loss: u64, seed: u64) -> Self {
        let mut members = Self {
            now: 1_000,
            order: 0,
            queue: BinaryHeap::new(),
            what: BTreeMap::new(),
            nodes: (0..count).map(|node| Swim::new(short(node), 1, seed * 1_000 + node as u64)).collect(),
            wakes: vec![None; count],
            stalled: vec![0; count],
            returning: BTreeMap::new(),
            loss,
            rng: Rng::new(seed),
            false_deaths: 0,
            stalls: 0,
            slowest_return: 0,
        };
        let all = (0..count).map(short).collect();
        for node in 0..count {
            members.nodes[node].set_admitted(1_000, &all);
            for other in (0..count).filter(|other| *other != node) {
                members.nodes[node].link_up(1_000, short(other), 1);
            }
            let first = members.rng.between((60_000, STALL_EVERY_MS));
            members.at(1_000 + first, Happening::Stall { node });
        }
        (0..count).for_each(|node| members.pump(node));
        members
    }

    fn at(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order)));
        self.what.insert((at, self.order), what);
    }

    /// Lets so much time pass, in milliseconds.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(Reverse(next)) = self.queue.peek().copied().filter(|next| next.0.0 <= end) {
            self.queue.pop();
            self.now = next.0;
            if let Some(what) = self.what.remove(&next) {
                self.happen(what);
            }
        }
        self.now = end;
    }

    fn stalls(&self, node: usize) -> bool {
        self.stalled[node] > self.now
    }

    fn happen(&mut self, what: Happening) {
        let now = self.now;
        match what {
            // What reaches a node that stalls waits in its socket.
            Happening::Arrive { to, .. } if self.stalls(to) => self.at(self.stalled[to], what),
            Happening::Arrive { from, to, bytes } => {
                self.nodes[to].handle_packet(now, short(from), &bytes).expect("honest packets are taken");
                self.pump(to);
            }
            Happening::Wake { node } => {
                if self.wakes[node] == Some(now) && !self.stalls(node) {
                    self.wakes[node] = None;
                    self.nodes[node].handle_timeout(now);
                    self.pump(node);
                }
            }
            Happening::Stall { node } => {
                self.stalls += 1;
                self.stalled[node] = now + STALL_MS;
                self.at(now + STALL_MS, Happening::Woken { node });
                let next = self.rng.between((STALL_EVERY_MS / 2, STALL_EVERY_MS * 3 / 2));
                self.at(now + next, Happening::Stall { node });
            }
            Happening::Woken { node } => {
                self.returning.insert(node, now);
                self.nodes[node].handle_timeout(now);
                self.pump(node);
            }
        }
    }

    fn pump(&mut self, node: usize) {
        while let Some(event) = self.nodes[node].poll_event() {
            match event {
                LivenessEvent::Down { node: dead, .. } => self.judge(node, dead),
                LivenessEvent::Up { .. } => self.note_returns(),
                LivenessEvent::Rejoined { .. } => {}
            }
        }
        while let Some((to, bytes)) = self.nodes[node].poll_packet() {
            if !self.rng.percent(self.loss) {
                let at = self.now + self.rng.between((1, 5));
                let to = usize::try_from(to.0 - 1).expect("a node of this household");
                self.at(at, Happening::Arrive { from: node, to, bytes });
            }
        }
        let due = self.nodes[node].poll_timeout().map(|due| due.max(self.now));
        if due != self.wakes[node] {
            self.wakes[node] = due;
            if let Some(due) = due {
                self.at(due, Happening::Wake { node });
            }
        }
    }

    /// A verdict is true while the node stalls, and just after, when nobody can have heard of it yet. Who was away itself
    /// hears of it only then.
    fn judge(&mut self, by: usize, dead: ShortId) {
        let node = usize::try_from(dead.0 - 1).expect("a node of this household");
        let was_away =
            self.now <= self.stalled[by] + WAKING_MS && self.stalled[node] + STALL_MS > self.stalled[by];
        if self.now > self.stalled[node] + WAKING_MS && !was_away {
            self.false_deaths += 1;
        }
    }

    fn note_returns(&mut self) {
        let back: Vec<(usize, u64)> = self
            .returning
            .iter()
            .filter(|(node, _)| {
                let others = (0..self.nodes.len()).filter(|other| other != *node && !self.stalls(*other));
                others
                    .into_iter()
                    .all(|other| self.nodes[other].alive().iter().any(|(id, _)| *id == short(**node)))
            })
            .map(|(node, woke)| (*node, *woke))
            .collect();
        for (node, woke) in back {
            self.returning.remove(&node);
            self.slowest_return = self.slowest_return.max(self.now - woke);
        }
    }
}
