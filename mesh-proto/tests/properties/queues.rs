//! The queues: own writes on their way to the disk, writes on their way to a peer, and the
//! rounds that collect tombstones.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use mesh_proto::{
    Dot, Hlc, ShortId,
    collect::Collector,
    commit::{Commits, WriteToken},
    limits::Limits,
    merge::Entry,
    outbox::Outbox,
    overlay::{Overlay, Run},
    record::Item,
    replica::{Applied, Replica},
    vector::Vector,
    wire::{Message, Report},
};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use crate::harness::*;

const FIELDS: [&str; 3] = ["x", "y", "z"];

#[derive(Debug, Clone)]
enum Step {
    Queue { field: usize, after: u64, token: bool },
    Take,
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..3, 0u64..30, any::<bool>())
            .prop_map(|(field, after, token)| Step::Queue { field, after, token }),
        2 => Just(Step::Take),
        2 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn dots_have_no_holes_and_tokens_come_once_after_their_flush(steps in steps()) {
        let (own, mut commits) = (origin(1, 1), Commits::default());
        let (mut head, mut now, mut last_token) = (0, 0, 0);
        let mut open: BTreeMap<WriteToken, (usize, Hlc)> = BTreeMap::new();
        // The newest stamp of each field that a batch carried, in flight and flushed.
        let (mut at_store, mut flushed) = (BTreeMap::new(), BTreeMap::<usize, Hlc>::new());
        let mut batch = 0;
        for step in steps.into_iter().chain([Step::Flush, Step::Take, Step::Flush]) {
            now += 10;
            match step {
                Step::Queue { field, after, token } => {
                    let token = token.then(|| { last_token += 1; WriteToken(last_token) });
                    let stamp = Hlc::from_ms(now);
                    commits.queue(key("note/a", FIELDS[field]), stamp, bytes(1), now + after, token);
                    open.extend(token.map(|token| (token, (field, stamp))));
                }
                Step::Take if !commits.is_busy() => {
                    let (writes, tokens) = commits.take_due(now + 1_000 * u64::from(batch % 2 == 1), own, head);
                    if writes.is_empty() {
                        continue;
                    }
                    let mut covered = Vector::default();
                    for (key, entry) in &writes {
                        prop_assert_eq!(entry.dot, dot(1, 1, head + 1), "a hole");
                        head += 1;
                        covered.insert(entry.dot);
                        let field = FIELDS.iter().position(|f| *f == key.field.as_str()).unwrap();
                        at_store.insert(field, entry.stamp);
                    }
                    prop_assert!(commits.durable().head(own) < head, "claimed before the flush");
                    let dots = writes.iter().map(|(key, entry)| (key.clone(), entry.dot)).collect();
                    batch = commits.begin(covered, dots, tokens);
                }
                Step::Flush if commits.is_busy() => {
                    prop_assert!(commits.flushed(batch + 1).is_none(), "another batch's number");
                    let done = commits.flushed(batch).unwrap();
                    flushed.append(&mut at_store);
                    prop_assert_eq!(commits.durable().head(own), head);
                    prop_assert!(commits.unflushed().is_empty());
                    for token in done.tokens {
                        let (field, stamp) = open.remove(&token).expect("acknowledged twice");
                        prop_assert!(flushed.get(&field).is_some_and(|durable| *durable >= stamp));
                    }
                }
                Step::Take | Step::Flush => {}
            }
        }
        commits.hasten(now);
        if !commits.is_empty() {
            let (writes, tokens) = commits.take_due(now, own, head);
            let dots = writes.iter().map(|(key, entry)| (key.clone(), entry.dot)).collect();
            let batch = commits.begin(Vector::default(), dots, tokens);
            commits.flushed(batch).unwrap().tokens.iter().for_each(|token| { open.remove(token); });
        }
        prop_assert!(open.is_empty(), "never acknowledged: {open:?}");
    }

    /// Fields only: a register that an object's tombstone emptied is left to anti-entropy.
    #[test]
    fn what_leaves_an_outbox_accounts_for_every_write_that_entered(
        writes in prop::collection::vec(
            (1u64..3, 0usize..3, prop_oneof![5 => 1u64..50, 1 => 90_000u64..90_010], any::<bool>(), any::<bool>()),
            1..60,
        )
    ) {
        let (mut replica, mut outbox) = (Replica::default(), Outbox::default());
        let (mut peer, mut entered) = (Replica::default(), Vector::default());
        let overlay = Overlay::default();
        let mut unflushed: BTreeSet<Dot> = BTreeSet::new();
        let mut heads = [0u64; 3];
        let drain = |outbox: &mut Outbox, replica: &Replica, unflushed: &BTreeSet<Dot>, peer: &mut Replica| {
            loop {
                let messages = outbox.take(replica, &overlay, unflushed);
                if messages.is_empty() {
                    break;
                }
                for message in messages {
                    let Message::Push(items) = message else { panic!("only writes were queued") };
                    assert!(items.iter().all(|item| !unflushed.contains(&item.entry.dot)));
                    items.into_iter().for_each(|item| { peer.apply(100, item); });
                }
            }
        };
        for (node, field, ms, delete, pause) in writes {
            heads[usize::try_from(node).unwrap()] += 1;
            let dot = dot(node, 1, heads[usize::try_from(node).unwrap()]);
            // Own writes are never held back.
            let ms = if node == 1 { ms % 50 } else { ms };
            let key = key("note/a", FIELDS[field]);
            let value = if delete { None } else { bytes(i64::try_from(ms).unwrap()) };
            replica.apply(100, item(key.clone(), ms, dot, value));
            outbox.write(&key, dot);
            entered.insert(dot);
            prop_assert!(outbox.bytes() <= Limits::default().queue_bytes);
            if node == 1 && pause {
                unflushed.insert(dot);
            } else if pause {
                drain(&mut outbox, &replica, &unflushed, &mut peer);
                unflushed.clear();
            }
        }
        unflushed.clear();
        drain(&mut outbox, &replica, &unflushed, &mut peer);
        prop_assert!(outbox.is_empty() && outbox.bytes() == 0 && !outbox.take_overflowed());
        prop_assert!(peer.applied().covers(&entered), "some dots were never accounted for");
        for field in FIELDS {
            let key = key("note/a", field);
            prop_assert_eq!(peer.entry(&key), replica.entry(&key));
        }
    }
}

#[test]
fn an_outbox_that_is_not_emptied_stays_bounded_and_says_so() {
    let mut outbox = Outbox::default();
    let mut overflowed = false;
    for at in 0..60_000u64 {
        outbox.write(&key(&format!("note/n{at}"), "x"), dot(1, 1, at + 1));
        assert!(outbox.bytes() <= Limits::default().queue_bytes);
        overflowed |= outbox.take_overflowed();
    }
    assert!(overflowed);
}

/// One node of the collection's model: everything it takes in is flushed at once.
struct Keeper {
    short: ShortId,
    replica: Replica,
    collector: Collector,
    clock: u64,
    head: u64,
    reports: u32,
}

impl Keeper {
    fn new(node: u64) -> Self {
        Self {
            short: ShortId(node),
            replica: Replica::default(),
            collector: Collector::default(),
            clock: 0,
            head: 0,
            reports: 0,
        }
    }

    fn write(&mut self, delete: bool) -> Item {
        self.clock += 1;
        self.head += 1;
        let value = if delete { None } else { bytes(1) };
        let written = item(key("note/a", "x"), self.clock, dot(self.short.0, 1, self.head), value);
        self.replica.apply(u64::MAX / 2, written.clone());
        written
    }

    fn take_in(&mut self, item: Item) -> Applied {
        self.clock = self.clock.max(item.entry.stamp.ms());
        self.replica.apply(u64::MAX / 2, item)
    }

    fn report(&mut self) -> Report {
        self.reports += 1;
        let run = Run { incarnation: 1, generation: 1 };
        let durable = self.replica.applied().to_wire();
        let report = Report { node: self.short, run, number: self.reports, durable };
        self.collector.hear(&report);
        report
    }
}

#[derive(Debug, Clone)]
enum Move {
    Write {
        node: usize,
        delete: bool,
    },
    /// The oldest write on its way reaches a node.
    Arrive {
        at: usize,
        node: usize,
    },
    /// One node gets all that another holds.
    Fetch {
        from: usize,
        to: usize,
    },
    /// A node reports; those whose bit is set hear it at once, others later or never.
    Report {
        node: usize,
        heard_by: usize,
    },
    Hear {
        at: usize,
        node: usize,
    },
    Step {
        node: usize,
    },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let node = || 0usize..3;
    let one = prop_oneof![
        1 => (node(), any::<bool>()).prop_map(|(node, delete)| Move::Write { node, delete }),
        2 => (0usize..8, node()).prop_map(|(at, node)| Move::Arrive { at, node }),
        4 => (node(), node()).prop_map(|(from, to)| Move::Fetch { from, to }),
        6 => (node(), 0usize..8).prop_map(|(node, heard_by)| Move::Report { node, heard_by: heard_by | 1 << (heard_by % 3) }),
        3 => (0usize..8, node()).prop_map(|(at, node)| Move::Hear { at, node }),
        4 => node().prop_map(|node| Move::Step { node }),
    ];
    prop::collection::vec(one, 1..200)
}

/// Plays one schedule. Returns how often a tombstone was forgotten.
fn play(moves: Vec<Move>) -> Result<usize, TestCaseError> {
    let admitted: BTreeSet<ShortId> = (1..=3).map(ShortId).collect();
    let mut nodes: Vec<Keeper> = (1..=3).map(Keeper::new).collect();
    let (mut under_way, mut reports) = (Vec::<Item>::new(), Vec::<Report>::new());
    let (register, mut highest, mut collected) = (key("note/a", "x"), Hlc::ZERO, 0);
    for one in moves {
        match one {
            Move::Write { node, delete } => under_way.push(nodes[node].write(delete)),
            // Writes arrive in any order, late, twice or never.
            Move::Arrive { at, node } => {
                if let Some(item) = under_way.get(at).cloned() {
                    nodes[node].take_in(item);
                }
            }
            Move::Fetch { from, to } => {
                let live = nodes[from].replica.entry(&register).cloned();
                let vector = nodes[from].replica.applied().clone();
                if let Some(entry) = live {
                    nodes[to].take_in(Item { key: register.clone(), entry, covers: Vec::new() });
                }
                nodes[to].replica.cover_all(&vector);
            }
            Move::Report { node, heard_by } => {
                let report = nodes[node].report();
                for (at, other) in nodes.iter_mut().enumerate() {
                    if heard_by & (1 << at) != 0 {
                        other.collector.hear(&report);
                    }
                }
                reports.push(report);
            }
            Move::Hear { at, node } => {
                if let Some(report) = reports.iter().rev().nth(at) {
                    nodes[node].collector.hear(report);
                }
            }
            Move::Step { node } => {
                let Keeper { replica, collector, .. } = &mut nodes[node];
                let Some(cut) = collector.step(&replica.applied().clone(), &admitted) else { continue };
                let dead: Option<Entry> = replica.entry(&register).filter(|e| e.is_tombstone()).cloned();
                if let Some(entry) = dead.filter(|entry| cut.contains(entry.dot)) {
                    highest = highest.max(entry.stamp);
                    collected += 1;
                    replica.collect(&register);
                }
            }
        }
        for node in &nodes {
            let held = node.replica.entry(&register).filter(|entry| !entry.is_tombstone());
            prop_assert!(
                held.is_none_or(|entry| entry.stamp > highest),
                "{held:?} is back, below {highest:?}"
            );
        }
    }
    Ok(collected)
}

/// Whatever the schedule: once a tombstone was forgotten anywhere, no node ever holds a value below it.
#[test]
fn no_value_comes_back_below_a_tombstone_that_was_collected() {
    let collected = Cell::new(0);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_500) };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&moves(), |moves| {
        collected.set(collected.get() + play(moves)?);
        Ok(())
    });
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    assert!(
        collected.get() > 300,
        "only {} tombstones were forgotten: the schedules prove little",
        collected.get()
    );
}
