//! Ways to nodes without a link of their own.
//!
//! Every node tells its peers how far the nodes are that it reaches. From that each keeps the
//! nearest way to whom it is not linked with, at most [`MAX_HOPS`] links long, and only as long
//! as it is told of it. What has no link takes that way in an envelope ([`Routed`]).

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{id::ShortId, session::LinkId};

/// How many links an envelope crosses at most: five boards in a line.
pub const MAX_HOPS: u8 = 4;
/// How often a node repeats whom it reaches, in milliseconds.
pub const REPEAT_MS: u64 = 10_000;
/// How long what a peer told holds without being repeated, in milliseconds.
pub const EXPIRY_MS: u64 = 3 * REPEAT_MS;
/// The least time between two tellings, in milliseconds: in a household that starts much changes at once.
pub const TELL_MS: u64 = 200;
/// Most nodes in one telling; more are refused.
pub const MAX_REACH: usize = 1_024;
/// Largest body of an envelope that travels as a frame, in bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// How much one link may have relayed: so many a second, an envelope counting one and one more for each full KiB.
pub const RELAYS_PER_SECOND: u64 = 512;
/// How much of that may come at once.
const RELAYS_AT_ONCE: u64 = 2 * RELAYS_PER_SECOND;
/// Envelopes remembered, to take none twice.
const MAX_SEEN: usize = 4_096;

/// How far a node is from the teller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The node.
    pub node: ShortId,
    /// Links on the way to it, from 1.
    pub hops: u8,
}

/// An envelope for a node that its sender has no link to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// Who made it; only as true as the peer that handed it over.
    pub from: ShortId,
    /// Whom it is for.
    pub to: ShortId,
    /// Tells the envelopes of one sender apart.
    pub number: u32,
    /// How many more links it may cross.
    pub left: u8,
    /// What the body is: [`LIVENESS`]. A receiver skips what it does not know, a relay passes it on.
    pub kind: u8,
    /// The body.
    pub body: Vec<u8>,
}

/// The kind of an envelope that holds a liveness packet.
pub const LIVENESS: u8 = 0;

/// The way to a node without a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The peer that passes on.
    pub via: ShortId,
    /// The link to it.
    pub link: LinkId,
    /// Links on the way, from 2.
    pub hops: u8,
}

/// Whose ways appeared and disappeared.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Nodes that have a way now and had none.
    pub found: Vec<ShortId>,
    /// Nodes that had a way and have none now, nor a link.
    pub lost: Vec<ShortId>,
}

#[derive(Debug)]
struct Told {
    reach: BTreeMap<ShortId, u8>,
    expires_ms: u64,
}

/// What is left of one link's allowance.
#[derive(Debug)]
struct Allowance {
    left: u64,
    since_ms: u64,
}

/// What one node knows of ways.
#[derive(Debug)]
pub struct Routing {
    me: ShortId,
    told: BTreeMap<LinkId, Told>,
    said: BTreeMap<LinkId, Vec<Reach>>,
    direct: BTreeMap<ShortId, LinkId>,
    ways: BTreeMap<ShortId, Way>,
    /// Through whom a node that never had a link since was last heard, or who last had a link with it. A longer way
    /// does not count before something came by it: when a relay dies, those who relied on it take each other for a
    /// way for a moment.
    last_via: BTreeMap<ShortId, ShortId>,
    down: BTreeSet<ShortId>,
    allowances: BTreeMap<LinkId, Allowance>,
    seen: BTreeSet<(ShortId, u32)>,
    seen_order: VecDeque<(ShortId, u32)>,
    number: u32,
    /// Links, tellings or deaths changed since ways were last looked for.
    is_stale: bool,
    /// Ways changed since the peers were last told.
    is_untold: bool,
    told_ms: u64,
    repeat_ms: u64,
}

impl Routing {
    /// A node without links. `first` is where the numbers of its envelopes begin: not where they began
    /// before its restart.
    pub fn new(me: ShortId, first: u32) -> Self {
        Self {
            me,
            told: BTreeMap::new(),
            said: BTreeMap::new(),
            direct: BTreeMap::new(),
            ways: BTreeMap::new(),
            last_via: BTreeMap::new(),
            down: BTreeSet::new(),
            allowances: BTreeMap::new(),
            seen: BTreeSet::new(),
            seen_order: VecDeque::new(),
            number: first,
            is_stale: false,
            is_untold: false,
            told_ms: 0,
            repeat_ms: 0,
        }
    }

    /// Notes that links changed.
    pub fn touch(&mut self) {
        self.is_stale = true;
    }

    /// Notes what liveness says of a node: nothing goes by way of the dead.
    pub fn judge(&mut self, node: ShortId, is_alive: bool) {
        let changed = if is_alive { self.down.remove(&node) } else { self.down.insert(node) };
        self.is_stale |= changed;
    }

    /// Takes in whom a peer reaches: all that it said before is void. `false`: no honest peer says that.
    pub fn hear(&mut self, now_ms: u64, link: LinkId, told: &[Reach]) -> bool {
        if told.len() > MAX_REACH || told.iter().any(|reach| reach.hops == 0) {
            return false;
        }
        let near = |reach: &&Reach| reach.hops < MAX_HOPS && reach.node != self.me;
        let reach = told.iter().filter(near).map(|reach| (reach.node, reach.hops)).collect();
        let told = Told { reach, expires_ms: now_ms + EXPIRY_MS };
        let before = self.told.insert(link, told);
        let after = self.told.get(&link);
        self.is_stale |= before.map(|told| told.reach) != after.map(|told| told.reach.clone());
        true
    }

    /// Whether the peer of a link said that it reaches a node.
    pub fn was_told(&self, link: LinkId, node: ShortId) -> bool {
        self.told.get(&link).is_some_and(|told| told.reach.contains_key(&node))
    }

    /// Whether ways must be looked for again; what was told too long ago is dropped.
    pub fn is_due(&mut self, now_ms: u64) -> bool {
        let before = self.told.len();
        self.told.retain(|_, told| told.expires_ms > now_ms);
        core::mem::take(&mut self.is_stale) || self.told.len() < before
    }

    /// Looks for ways anew, with the links that are up.
    pub fn find(&mut self, direct: BTreeMap<ShortId, LinkId>, admitted: &BTreeSet<ShortId>) -> Changed {
        let is_up = |link: &LinkId| direct.values().any(|up| up == link);
        self.told.retain(|link, _| is_up(link));
        self.said.retain(|link, _| is_up(link));
        self.allowances.retain(|link, _| is_up(link));
        let mut ways: BTreeMap<ShortId, Way> = BTreeMap::new();
        for (via, link) in direct.iter().filter(|(via, _)| !self.down.contains(*via)) {
            let reach = self.told.get(link).into_iter().flat_map(|told| &told.reach);
            for (node, hops) in reach.filter(|(n, _)| admitted.contains(*n) && !direct.contains_key(*n)) {
                let way = Way { via: *via, link: *link, hops: hops + 1 };
                let best = ways.entry(*node).or_insert(way);
                if (way.hops, way.via) < (best.hops, best.via) {
                    *best = way;
                }
            }
        }
        let found = ways.keys().filter(|node| !self.ways.contains_key(*node)).copied().collect();
        let is_lost = |node: &&ShortId| !ways.contains_key(*node) && !direct.contains_key(*node);
        let lost = self.ways.keys().filter(is_lost).copied().collect();
        self.last_via.retain(|node, _| admitted.contains(node) && !direct.contains_key(node));
        for (node, way) in &ways {
            // Of a link of its own a peer knows; of a longer way it may have heard from one that is about to lose it.
            if way.hops == 2 || !self.last_via.contains_key(node) {
                self.last_via.insert(*node, way.via);
            }
        }
        self.is_untold = true;
        (self.direct, self.ways) = (direct, ways);
        Changed { found, lost }
    }

    /// What the peers are to hear now, by link.
    pub fn tell(&mut self, now_ms: u64) -> Vec<(LinkId, Vec<Reach>)> {
        let repeats = self.has_said() && self.repeat_ms <= now_ms;
        let changes = self.is_untold && self.tell_at() <= now_ms;
        if !repeats && !changes {
            return Vec::new();
        }
        self.is_untold = false;
        self.told_ms = now_ms;
        if repeats || !self.has_said() {
            self.repeat_ms = now_ms + REPEAT_MS;
        }
        let mut all = Vec::new();
        for (peer, link) in &self.direct {
            let reach = self.reach_for(*peer);
            let said = self.said.entry(*link).or_default();
            if *said != reach || (repeats && !reach.is_empty()) {
                said.clone_from(&reach);
                all.push((*link, reach));
            }
        }
        all
    }

    /// Whom this node reaches without the peer's help.
    fn reach_for(&self, peer: ShortId) -> Vec<Reach> {
        let links = self.direct.keys().filter(|node| **node != peer && !self.down.contains(*node));
        let near = |way: &Way| way.via != peer && way.hops < MAX_HOPS;
        let ways = self.ways.iter().filter(|(_, way)| near(way));
        let links = links.map(|node| Reach { node: *node, hops: 1 });
        links.chain(ways.map(|(node, way)| Reach { node: *node, hops: way.hops })).take(MAX_REACH).collect()
    }

    fn has_said(&self) -> bool {
        self.said.values().any(|said| !said.is_empty())
    }

    fn tell_at(&self) -> u64 {
        self.told_ms + TELL_MS
    }

    /// When something is to be told again or ceases to hold.
    pub fn poll_timeout(&self) -> Option<u64> {
        let untold = self.is_untold.then(|| self.tell_at());
        let repeat = self.has_said().then_some(self.repeat_ms);
        let expiry = self.told.values().map(|told| told.expires_ms);
        untold.into_iter().chain(repeat).chain(expiry).min()
    }

    /// The way to a node that has no link.
    pub fn way(&self, node: ShortId) -> Option<Way> {
        self.ways.get(&node).copied()
    }

    /// Notes that something of a node without a link came by way of another.
    pub fn heard(&mut self, node: ShortId, via: ShortId) {
        if node != via {
            self.last_via.insert(node, via);
        }
    }

    /// Whether a node without link or way was last heard through one that is dead.
    pub fn is_cut_off(&self, node: ShortId) -> bool {
        let is_reached = self.direct.contains_key(&node) || self.ways.contains_key(&node);
        let via = self.last_via.get(&node);
        !is_reached && via.is_some_and(|via| self.down.contains(via) || !self.direct.contains_key(via))
    }

    /// An envelope of this node.
    pub fn seal(&mut self, to: ShortId, kind: u8, body: Vec<u8>) -> Routed {
        self.number = self.number.wrapping_add(1);
        Routed { from: self.me, to, number: self.number, left: MAX_HOPS - 1, kind, body }
    }

    /// Whether an envelope was not seen before; from then on it was.
    pub fn is_news(&mut self, routed: &Routed) -> bool {
        let name = (routed.from, routed.number);
        if !self.seen.insert(name) {
            return false;
        }
        self.seen_order.push_back(name);
        if self.seen_order.len() > MAX_SEEN
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    /// Takes an envelope of so many bytes out of the allowance of a link, if there is enough of it.
    pub fn spend(&mut self, now_ms: u64, link: LinkId, bytes: usize) -> bool {
        let full = Allowance { left: RELAYS_AT_ONCE, since_ms: now_ms };
        let allowance = self.allowances.entry(link).or_insert(full);
        let gained = now_ms.saturating_sub(allowance.since_ms).saturating_mul(RELAYS_PER_SECOND) / 1_000;
        if gained > 0 {
            allowance.left = allowance.left.saturating_add(gained).min(RELAYS_AT_ONCE);
            allowance.since_ms = now_ms;
        }
        let cost = 1 + u64::try_from(bytes / 1_024).unwrap_or(u64::MAX - 1);
        let left = allowance.left.checked_sub(cost);
        allowance.left = left.unwrap_or(allowance.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use alloc::vec;

    use super::*;

    const ME: ShortId = ShortId(1);
    const B: ShortId = ShortId(2);
    const C: ShortId = ShortId(3);
    const D: ShortId = ShortId(4);
    const TO_B: LinkId = LinkId(2);
    const TO_D: LinkId = LinkId(4);

    fn everyone() -> BTreeSet<ShortId> {
        (1..9).map(ShortId).collect()
    }

    fn reach(node: ShortId, hops: u8) -> Reach {
        Reach { node, hops }
    }

    /// Linked with B alone, or with B and D.
    fn linked(links: &[(ShortId, LinkId)]) -> Routing {
        let mut routing = Routing::new(ME, 0);
        routing.find(links.iter().copied().collect(), &everyone());
        routing
    }

    fn again(routing: &mut Routing) -> Changed {
        routing.find(routing.direct.clone(), &everyone())
    }

    #[test]
    fn the_nearest_way_is_taken_and_only_that_far() {
        let mut routing = linked(&[(B, TO_B), (D, TO_D)]);
        let far = ShortId(7);
        assert!(routing.hear(0, TO_B, &[reach(C, 2), reach(far, MAX_HOPS - 1), reach(ShortId(8), MAX_HOPS)]));
        assert!(routing.hear(0, TO_D, &[reach(C, 1), reach(ME, 1), reach(B, 1)]));
        assert!(routing.is_due(0));
        assert_eq!(again(&mut routing), Changed { found: vec![C, far], lost: vec![] });
        assert_eq!(routing.way(C), Some(Way { via: D, link: TO_D, hops: 2 }));
        assert_eq!(routing.way(far), Some(Way { via: B, link: TO_B, hops: MAX_HOPS }));
        assert_eq!(routing.way(ShortId(8)), None, "too far");
        assert_eq!((routing.way(B), routing.way(ME)), (None, None), "linked, and this node itself");
    }

    #[test]
    fn what_was_told_is_void_when_it_is_not_repeated() {
        let mut routing = linked(&[(B, TO_B)]);
        routing.hear(0, TO_B, &[reach(C, 1)]);
        assert!(routing.is_due(0));
        again(&mut routing);
        assert_eq!(routing.poll_timeout(), Some(TELL_MS));
        routing.tell(TELL_MS);
        assert_eq!(routing.poll_timeout(), Some(EXPIRY_MS), "it has nothing to tell its only peer");
        assert!(!routing.is_due(EXPIRY_MS - 1) && routing.is_due(EXPIRY_MS));
        assert_eq!(again(&mut routing), Changed { found: vec![], lost: vec![C] });
        assert_eq!(routing.way(C), None);
    }

    #[test]
    fn a_peer_is_not_told_of_what_is_reached_through_it() {
        let mut routing = linked(&[(B, TO_B), (D, TO_D)]);
        routing.hear(0, TO_B, &[reach(C, 1)]);
        again(&mut routing);
        let told = routing.tell(1_000);
        assert_eq!(told, [(TO_B, vec![reach(D, 1)]), (TO_D, vec![reach(B, 1), reach(C, 2)])]);
        assert_eq!(routing.tell(1_001), [], "nothing changed");
        assert_eq!(routing.tell(1_000 + REPEAT_MS), told, "but it is repeated");
        routing.hear(0, TO_B, &[]);
        again(&mut routing);
        assert_eq!(routing.tell(1_001 + REPEAT_MS), [], "not so soon after the last");
        assert_eq!(routing.tell(1_000 + REPEAT_MS + TELL_MS), [(TO_D, vec![reach(B, 1)])]);
    }

    #[test]
    fn nothing_goes_by_way_of_the_dead_and_who_lay_behind_is_cut_off() {
        let mut routing = linked(&[(B, TO_B), (D, TO_D)]);
        routing.hear(0, TO_B, &[reach(C, 1)]);
        again(&mut routing);
        assert!(!routing.is_cut_off(C));
        routing.judge(B, false);
        assert!(routing.is_due(0));
        assert_eq!(again(&mut routing).lost, [C]);
        assert!(routing.is_cut_off(C) && !routing.is_cut_off(B) && !routing.is_cut_off(D));
        assert_eq!(routing.tell(1_000), [(TO_B, vec![reach(D, 1)])], "nobody is told of the dead");
        routing.judge(B, true);
        assert_eq!(again(&mut routing).found, [C]);
        routing.hear(0, TO_B, &[]);
        again(&mut routing);
        assert!(!routing.is_cut_off(C), "who could know says that it is gone");
    }

    #[test]
    fn only_the_admitted_have_ways() {
        let mut routing = linked(&[(B, TO_B)]);
        routing.hear(0, TO_B, &[reach(ShortId(99), 1)]);
        assert_eq!(again(&mut routing), Changed::default());
    }

    #[test]
    fn a_telling_out_of_bounds_is_refused_whole() {
        let mut routing = linked(&[(B, TO_B)]);
        let many: Vec<Reach> = (0..=1_024).map(|node| reach(ShortId(node), 1)).collect();
        assert!(!routing.hear(0, TO_B, &many));
        assert!(!routing.hear(0, TO_B, &[reach(C, 1), reach(D, 0)]));
        assert!(!routing.was_told(TO_B, C));
    }

    #[test]
    fn an_envelope_is_taken_once_and_what_is_remembered_is_bounded() {
        let mut routing = linked(&[]);
        let mut envelope = routing.seal(C, LIVENESS, vec![1]);
        assert!(routing.is_news(&envelope) && !routing.is_news(&envelope));
        let first = envelope.number;
        for number in 0..2 * u32::try_from(MAX_SEEN).unwrap() {
            envelope.number = number + 7;
            routing.is_news(&envelope);
        }
        assert_eq!((routing.seen.len(), routing.seen_order.len()), (MAX_SEEN, MAX_SEEN));
        envelope.number = first;
        assert!(routing.is_news(&envelope), "so long ago that it is forgotten");
    }

    #[test]
    fn a_link_has_no_more_relayed_than_it_may() {
        let mut routing = linked(&[(B, TO_B)]);
        let taken = |routing: &mut Routing, ms| (0..5_000).filter(|_| routing.spend(ms, TO_B, 40)).count();
        assert_eq!(taken(&mut routing, 0), 1_024);
        assert_eq!(taken(&mut routing, 500), 256);
        assert_eq!(taken(&mut routing, 60_000), 1_024);
        let large = (0..5_000).filter(|_| routing.spend(120_000, TO_B, MAX_BODY_BYTES)).count();
        assert_eq!(large, 60, "bytes count too");
    }
}
