//! Anti-entropy: how a node gets the durable writes that it missed.
//!
//! One exchange: the asker sends what it accounts for ([`Message::Want`]); the answering side
//! sends every live write that this does not cover, newest first, in pages paced by
//! acknowledgements, together with all that becomes live meanwhile; and at a moment when all
//! of that is sent and nothing of its own is unflushed, its durable vector
//! ([`Message::Final`]). Only then, with every page taken in, may the asker account for the
//! dots that no page held: each was superseded by a write that the asker now has.

use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};

use crate::{
    hlc::Hlc,
    id::{Dot, Key, ShortId},
    overlay::{Overlay, OverlayItem},
    replica::Replica,
    vector::{Ranges, Vector},
    wire::{Message, TARGET_FRAME_BYTES},
};

/// Pages in flight before the answering side waits for acknowledgements.
pub const PAGE_WINDOW: u32 = 8;
/// Writes that may become live here while an asker has not acknowledged the pages before them.
const MAX_FRESH: usize = 65_536;
/// An exchange in which nothing has arrived for so long is given up, in milliseconds.
pub const FETCH_PATIENCE_MS: u64 = 3_000;

/// The asking side of an exchange.
#[derive(Debug)]
pub struct Fetch {
    session: u32,
    received: Ranges,
    last: Option<(u32, Vector)>,
    deadline_ms: u64,
    planted_early: bool,
}

impl Fetch {
    /// Begins an exchange.
    pub fn new(session: u32, now_ms: u64, planted_early: bool) -> Self {
        let deadline_ms = now_ms + FETCH_PATIENCE_MS;
        Self { session, received: Ranges::default(), last: None, deadline_ms, planted_early }
    }

    /// The exchange's number.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// When the exchange is given up, if nothing arrives before.
    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// Notes a page that was taken in. Only a new page within the window prolongs the exchange.
    pub fn page(&mut self, now_ms: u64, index: u32, items: usize) {
        let index = u64::from(index);
        let is_news = items > 0 && !self.received.contains(index);
        if is_news && index <= self.received.head() + u64::from(2 * PAGE_WINDOW) {
            self.deadline_ms = now_ms + FETCH_PATIENCE_MS;
            self.received.insert(index, index);
        }
    }

    /// Notes the end of the answer, which may overtake pages. Said again it changes nothing, lest
    /// one peer holds up the exchanges with all others.
    pub fn last(&mut self, now_ms: u64, pages: u32, vector: Vector) {
        if self.last.is_none() {
            self.deadline_ms = now_ms + FETCH_PATIENCE_MS;
            self.last = Some((pages, vector));
        }
    }

    /// The vector to account for, once the end and every page before it have been taken in.
    pub fn finished(&self) -> Option<&Vector> {
        let (pages, vector) = self.last.as_ref()?;
        let mut all = Ranges::default();
        all.insert(1, u64::from(*pages));
        (self.planted_early || self.received.covers(&all)).then_some(vector)
    }
}

/// The answering side of an exchange.
#[derive(Debug)]
pub struct Serve {
    session: u32,
    have: Vector,
    /// Oldest first, taken from the end.
    pending: Vec<Dot>,
    /// What became live since the exchange began.
    fresh: VecDeque<Dot>,
    sent: u32,
    acknowledged: u32,
    ended: bool,
}

impl Serve {
    /// Begins the answer to an asker who accounts for `have`.
    pub fn new(session: u32, have: Vector, replica: &Replica) -> Self {
        let mut missing: Vec<(Hlc, Dot)> =
            replica.live_dots().filter(|(_, dot)| !have.contains(*dot)).collect();
        missing.sort_unstable();
        let pending = missing.into_iter().map(|(_, dot)| dot).collect();
        Self { session, have, pending, fresh: VecDeque::new(), sent: 0, acknowledged: 0, ended: false }
    }

    /// Notes that a write became live here.
    pub fn note(&mut self, dot: Dot) {
        if !self.ended && !self.have.contains(dot) {
            self.fresh.push_back(dot);
        }
    }

    /// Whether more became live here than an asker that keeps up would leave waiting.
    pub fn is_overtaken(&self) -> bool {
        self.fresh.len() > MAX_FRESH
    }

    /// Notes an acknowledgement.
    pub fn acknowledge(&mut self, session: u32, index: u32) {
        if session == self.session {
            self.acknowledged = self.acknowledged.max(index.min(self.sent));
        }
    }

    /// Whether the answer is complete.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// The next page, or the end, if it is time for one.
    pub fn next(
        &mut self,
        replica: &Replica,
        durable: &Vector,
        unflushed: &BTreeSet<Dot>,
    ) -> Option<Message> {
        if self.ended || self.sent - self.acknowledged >= PAGE_WINDOW {
            return None;
        }
        let (mut items, mut weight) = (Vec::new(), 0);
        let mut waiting = Vec::new();
        while weight < TARGET_FRAME_BYTES
            && let Some(dot) = self.pending.pop().or_else(|| self.fresh.pop_front())
        {
            if unflushed.contains(&dot) {
                waiting.push(dot);
            } else if let Some(item) = replica.item(dot) {
                weight += item.weight();
                items.push(item);
            }
        }
        self.fresh.extend(waiting);
        if !items.is_empty() {
            self.sent += 1;
            return Some(Message::Page { session: self.session, index: self.sent, items });
        }
        if !self.fresh.is_empty() || !unflushed.is_empty() {
            return None;
        }
        self.ended = true;
        Some(Message::Final { session: self.session, pages: self.sent, vector: durable.to_wire() })
    }
}

/// The registers of tree leaves that differ, on their way to a peer: looked for piece by piece, as
/// the peer reads them.
#[derive(Debug)]
pub struct LeafAnswer {
    leaves: BTreeSet<u8>,
    sent_to: Option<Key>,
}

impl LeafAnswer {
    /// Begins with the first register of these leaves.
    pub fn new(leaves: BTreeSet<u8>) -> Self {
        Self { leaves, sent_to: None }
    }

    /// The next registers; own writes that are not flushed are left out, they are pushed once they
    /// are. `None` at the end.
    pub fn next(&mut self, replica: &Replica, unflushed: &BTreeSet<Dot>) -> Option<Message> {
        loop {
            let mut items = replica.leaf_items(&self.leaves, self.sent_to.as_ref(), TARGET_FRAME_BYTES);
            self.sent_to = Some(items.last()?.key.clone());
            items.retain(|item| !unflushed.contains(&item.entry.dot));
            if !items.is_empty() {
                return Some(Message::TreeItems(items));
            }
        }
    }
}

/// The whole overlay on its way to a peer: looked for piece by piece, as the peer reads it. Names of
/// all of it in the outbox would pass the bound of that again and again, and never arrive.
#[derive(Debug)]
pub struct Telling {
    said_to: Option<(Key, ShortId)>,
    but_of: Option<ShortId>,
    is_to_begin_again: bool,
}

impl Telling {
    /// Begins with the first entry; those of one writer may be left out.
    pub fn new(but_of: Option<ShortId>) -> Self {
        Self { said_to: None, but_of, is_to_begin_again: false }
    }

    /// Something that was said, or was to be, may not arrive: says all of it once more after the end.
    /// To begin anew here would let a slow link never come to the end.
    pub fn begin_again(&mut self) {
        self.is_to_begin_again = true;
    }

    /// The next entries; `None` at the end.
    pub fn next(&mut self, overlay: &Overlay) -> Option<Message> {
        loop {
            let (mut items, mut weight) = (Vec::new(), 0);
            for (key, entry) in overlay.iter_behind(self.said_to.as_ref()) {
                if weight > TARGET_FRAME_BYTES / 2 {
                    break;
                }
                if self.but_of != Some(entry.writer) {
                    let item = OverlayItem { key: key.clone(), entry: entry.clone() };
                    weight += item.weight();
                    items.push(item);
                }
            }
            if let Some(last) = items.last() {
                self.said_to = Some((last.key.clone(), last.entry.writer));
                return Some(Message::Overlay(items));
            }
            if !core::mem::take(&mut self.is_to_begin_again) {
                return None;
            }
            (self.said_to, self.but_of) = (None, None);
        }
    }
}

/// How long after the overlay was said again it may be said again, in milliseconds; twice as long each
/// time that it did not help.
const REPEAT_MS: u64 = 20_000;
/// The longest such time, in milliseconds.
const MAX_REPEAT_MS: u64 = 640_000;

/// When the whole overlay is said again over a link, by the peer's digests. Overlays differ for a
/// moment whenever something is under way, and for as long as one side has no room for what the other
/// holds: then nothing that is said again helps, so it is said more and more seldom.
#[derive(Debug, Default)]
pub struct Repetition {
    /// Digests in a row in which the overlays differed.
    differed: u8,
    wait_ms: u64,
    due_ms: u64,
}

impl Repetition {
    /// Takes in a digest. Returns whether everything is to be said again now.
    pub fn hear(&mut self, now_ms: u64, is_equal: bool) -> bool {
        if is_equal {
            *self = Self::default();
            return false;
        }
        self.differed = self.differed.saturating_add(1);
        if self.differed < 2 || now_ms < self.due_ms {
            return false;
        }
        self.differed = 0;
        self.wait_ms = (self.wait_ms * 2).clamp(REPEAT_MS, MAX_REPEAT_MS);
        self.due_ms = now_ms + self.wait_ms;
        true
    }
}
