//! The way of this node's own writes to the disk.
//!
//! Writes wait by register, so that what changes often is written once. When one is due and
//! the store is idle, all that are due get their dots, in order and without holes, and go to
//! the store in one batch together with what arrived from peers. Only when that batch is
//! flushed are they acknowledged, advertised and pushed.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    hlc::Hlc,
    id::{Dot, Key, Origin},
    merge::{Bytes, Entry},
    vector::Vector,
};

/// Names a write request until it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteToken(pub u64);

/// Most registers that may wait; beyond, writes are refused.
pub const MAX_WAITING: usize = 65_536;
/// Most own writes that go into one batch, and their bytes.
const MAX_BATCH_WRITES: usize = 2_048;
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// What is due so soon after what is due now goes into the same batch, in milliseconds: each batch costs the
/// disk pages of its own, and what a light should show and what it shows are due within moments.
const TOGETHER_MS: u64 = 1_000;
/// Most bytes of own writes in a batch that is not to be divided: stores take 64 MiB in one.
const MAX_UNDIVIDED_BYTES: usize = 32 * 1024 * 1024;

/// A write that waits for its dot.
#[derive(Debug)]
struct Waiting {
    stamp: Hlc,
    value: Bytes,
    due_ms: u64,
    tokens: Vec<WriteToken>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        64 + self.value.as_deref().map_or(0, <[u8]>::len)
    }
}

/// A batch at the store.
#[derive(Debug)]
struct InFlight {
    batch: u64,
    covered: Vector,
    own: Vec<(Key, Dot)>,
    tokens: Vec<WriteToken>,
}

/// What a flushed batch brought.
#[derive(Debug)]
pub struct Flushed {
    /// This node's writes in it, now to be pushed.
    pub own: Vec<(Key, Dot)>,
    /// The requests it completes.
    pub tokens: Vec<WriteToken>,
}

/// The queue and the batch at the store.
#[derive(Debug, Default)]
pub struct Commits {
    waiting: BTreeMap<Key, Waiting>,
    in_flight: Option<InFlight>,
    last_batch: u64,
    durable: Vector,
    unflushed: BTreeSet<Dot>,
    /// Whether the next batch takes all that waits, however much.
    is_undivided: bool,
}

impl Commits {
    /// With what the store held at the start.
    pub fn new(durable: Vector) -> Self {
        Self { durable, ..Self::default() }
    }

    /// What is flushed.
    pub fn durable(&self) -> &Vector {
        &self.durable
    }

    /// This node's writes that have dots and are not flushed.
    pub fn unflushed(&self) -> &BTreeSet<Dot> {
        &self.unflushed
    }

    /// Whether a batch is at the store.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// How many registers wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Queues a write, replacing one that waits for the same register; the earlier of the two
    /// moments counts, and both requests are acknowledged.
    pub fn queue(&mut self, key: Key, stamp: Hlc, value: Bytes, due_ms: u64, token: Option<WriteToken>) {
        let fresh = Waiting { stamp, value: None, due_ms, tokens: Vec::new() };
        let waiting = self.waiting.entry(key).or_insert(fresh);
        waiting.tokens.extend(token);
        waiting.due_ms = waiting.due_ms.min(due_ms);
        if stamp >= waiting.stamp {
            waiting.stamp = stamp;
            waiting.value = value;
        }
    }

    /// The lowest stamp that waits.
    pub fn oldest_waiting(&self) -> Option<Hlc> {
        self.waiting.values().map(|waiting| waiting.stamp).min()
    }

    /// The stamp of the write that waits for a register.
    pub fn waiting_stamp(&self, key: &Key) -> Option<Hlc> {
        self.waiting.get(key).map(|waiting| waiting.stamp)
    }

    /// Queues a write in place of one that waits for the same register, whose requests it answers.
    pub fn replace(&mut self, key: Key, stamp: Hlc, value: Bytes, due_ms: u64) {
        let tokens = self.waiting.remove(&key).map(|waiting| waiting.tokens).unwrap_or_default();
        self.waiting.insert(key, Waiting { stamp, value, due_ms, tokens });
    }

    /// When the next write is due.
    pub fn next_due(&self) -> Option<u64> {
        self.waiting.values().map(|w| w.due_ms).min()
    }

    /// Takes the due writes out of the queue, and with them those that will be due soon, with the dots that
    /// follow `head`. Nothing is taken while nothing is due.
    pub fn take_due(
        &mut self,
        now_ms: u64,
        origin: Origin,
        head: u64,
    ) -> (Vec<(Key, Entry)>, Vec<WriteToken>) {
        let is_due = self.next_due().is_some_and(|due_ms| due_ms <= now_ms);
        let soon_ms = if is_due { now_ms.saturating_add(TOGETHER_MS) } else { now_ms };
        let mut due: Vec<(Hlc, Key)> = self
            .waiting
            .iter()
            .filter(|(_, w)| w.due_ms <= soon_ms)
            .map(|(key, w)| (w.stamp, key.clone()))
            .collect();
        // In order of stamps: a closing of a generation goes before what is written again.
        due.sort_unstable();
        let undivided = core::mem::take(&mut self.is_undivided) && self.bytes() <= MAX_UNDIVIDED_BYTES;
        due.truncate(if undivided { usize::MAX } else { MAX_BATCH_WRITES });
        let (mut writes, mut tokens, mut bytes) = (Vec::new(), Vec::new(), 0);
        for ((_, key), seq) in due.into_iter().zip(head + 1..) {
            if bytes > MAX_BATCH_BYTES && !undivided {
                break;
            }
            let Some(waiting) = self.waiting.remove(&key) else { continue };
            let dot = Dot { origin, seq };
            bytes += waiting.bytes();
            tokens.extend(waiting.tokens);
            writes.push((key, Entry { stamp: waiting.stamp, dot, value: waiting.value }));
        }
        (writes, tokens)
    }

    /// Notes that a batch was given to the store. Returns its number.
    pub fn begin(&mut self, covered: Vector, own: Vec<(Key, Dot)>, tokens: Vec<WriteToken>) -> u64 {
        self.last_batch += 1;
        self.unflushed.extend(own.iter().map(|(_, dot)| *dot));
        self.in_flight = Some(InFlight { batch: self.last_batch, covered, own, tokens });
        self.last_batch
    }

    /// Notes that the store flushed a batch.
    pub fn flushed(&mut self, batch: u64) -> Option<Flushed> {
        let done = self.in_flight.take_if(|in_flight| in_flight.batch == batch)?;
        self.durable.join(&done.covered);
        for (_, dot) in &done.own {
            self.unflushed.remove(dot);
        }
        // A request is done when no part of it waits any more.
        let left: BTreeSet<WriteToken> =
            self.waiting.values().flat_map(|w| w.tokens.iter().copied()).collect();
        let tokens: BTreeSet<WriteToken> = done.tokens.into_iter().filter(|t| !left.contains(t)).collect();
        Some(Flushed { own: done.own, tokens: tokens.into_iter().collect() })
    }

    /// Makes every waiting write due.
    pub fn hasten(&mut self, now_ms: u64) {
        self.waiting.values_mut().for_each(|waiting| waiting.due_ms = waiting.due_ms.min(now_ms));
    }

    fn bytes(&self) -> usize {
        self.waiting.values().map(Waiting::bytes).sum()
    }

    /// Whether the next batch takes all that waits.
    pub fn is_undivided(&self) -> bool {
        self.is_undivided
    }

    /// Makes every waiting write due, all in one batch unless that would exceed what a store takes.
    pub fn hasten_undivided(&mut self, now_ms: u64) {
        self.hasten(now_ms);
        self.is_undivided = true;
    }

    /// Notes own writes that have dots and will be in several batches.
    pub fn hold(&mut self, dots: impl Iterator<Item = Dot>) {
        self.unflushed.extend(dots);
    }

    /// Forgets what was durable: the state is being replaced and flushed anew.
    pub fn forget_durable(&mut self) {
        self.durable = Vector::default();
    }

    /// Gives every waiting write stamped above `limit` a new stamp: the clock was set back.
    pub fn restamp(&mut self, limit: Hlc, mut stamp: impl FnMut() -> Hlc) {
        let late = self.waiting.values_mut().filter(|waiting| waiting.stamp > limit);
        let mut by_age: Vec<&mut Waiting> = late.collect();
        by_age.sort_by_key(|waiting| waiting.stamp);
        by_age.into_iter().for_each(|waiting| waiting.stamp = stamp());
    }
}
