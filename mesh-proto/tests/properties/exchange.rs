//! Anti-entropy: after an exchange the asker accounts for all that the answering side does, and
//! holds, or has later than, everything live there.

use std::collections::BTreeSet;

use mesh_proto::{
    Dot,
    kinds::Author,
    mesh::{Event, Input, Op},
    replica::{Applied, Replica},
    sync::{Fetch, LeafAnswer, Serve},
    vector::Vector,
    wire::{MAX_FRAME_BYTES, Message, encode},
};
use proptest::prelude::*;

use crate::harness::*;

const NOW: u64 = 100;

/// The answering side: what is flushed at once comes from others, its own writes wait a while.
struct Side {
    replica: Replica,
    unflushed: BTreeSet<Dot>,
    durable: Vector,
    head: u64,
}

impl Side {
    fn remote(&mut self, serve: Option<&mut Serve>, name: &str, ms: u64, dot: Dot, delete: bool) {
        let field = if delete && ms.is_multiple_of(2) { "" } else { "x" };
        let value = if delete { None } else { long(ms) };
        let outcome = self.replica.apply(NOW, item(key(name, field), ms, dot, value));
        self.durable.insert(dot);
        if let (Applied::Won | Applied::Quarantined, Some(serve)) = (outcome, serve) {
            serve.note(dot);
        }
    }

    fn own(&mut self, name: &str, ms: u64) {
        self.head += 1;
        let dot = dot(1, 1, self.head);
        self.replica.apply(NOW, item(key(name, "x"), ms, dot, long(ms)));
        self.unflushed.insert(dot);
    }

    fn flush(&mut self, serve: Option<&mut Serve>) {
        let flushed = core::mem::take(&mut self.unflushed);
        for dot in &flushed {
            self.durable.insert(*dot);
        }
        if let Some(serve) = serve {
            flushed.into_iter().for_each(|dot| serve.note(dot));
        }
    }
}

/// Long enough that a few dozen writes need several pages.
fn long(ms: u64) -> mesh_proto::merge::Bytes {
    let text: String = std::iter::repeat_n('a', 3_000).chain(ms.to_string().chars()).collect();
    Some(mesh_proto::Value::from(text.as_str()).encode().unwrap())
}

#[derive(Debug, Clone)]
enum Act {
    Page { lose: bool, late: bool },
    Ack,
    Remote { name: u8, ms: u64, delete: bool },
    Own { name: u8, ms: u64 },
    Flush,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let ms = || prop_oneof![9 => 1u64..60, 1 => 50_000u64..50_009];
    let act = prop_oneof![
        5 => (prop::bool::weighted(0.05), prop::bool::weighted(0.2)).prop_map(|(lose, late)| Act::Page { lose, late }),
        3 => Just(Act::Ack),
        2 => (0u8..40, ms(), prop::bool::weighted(0.2)).prop_map(|(name, ms, delete)| Act::Remote { name, ms, delete }),
        2 => (0u8..40, 1u64..60).prop_map(|(name, ms)| Act::Own { name, ms }),
        2 => Just(Act::Flush),
    ];
    prop::collection::vec(act, 0..80)
}

fn name(number: u8) -> String {
    format!("note/n{number}")
}

/// One exchange. Returns whether it ended; a lost page must keep it from that.
fn exchange(session: u32, side: &mut Side, asker: &mut Replica, acts: &[Act], seq: &mut u64) -> bool {
    let mut serve = Serve::new(session, Vector::from_wire(&asker.applied().to_wire()), &side.replica);
    let mut fetch = Fetch::new(session, 0, false);
    let (mut late, mut unacknowledged, mut lost) = (Vec::new(), Vec::new(), false);
    let rest = [Act::Flush, Act::Page { lose: false, late: false }, Act::Ack];
    let rest = rest.iter().cycle().take(300);
    for act in acts.iter().chain(rest) {
        match act {
            Act::Page { lose, late: put_off } => {
                let Some(message) = serve.next(&side.replica, &side.durable, &side.unflushed) else {
                    continue;
                };
                assert!(encode(core::slice::from_ref(&message)).len() <= MAX_FRAME_BYTES);
                match message {
                    Message::Page { .. } if *lose => lost = true,
                    Message::Page { index, items, .. } => {
                        assert!(items.iter().all(|item| !side.unflushed.contains(&item.entry.dot)));
                        if *put_off {
                            late.push((index, items));
                        } else {
                            items.into_iter().for_each(|item| {
                                asker.apply(NOW, item);
                            });
                            fetch.page(0, index, 1);
                            unacknowledged.push(index);
                        }
                    }
                    Message::Final { pages, vector, .. } => {
                        assert!(side.unflushed.is_empty(), "the end came while own writes were not durable");
                        fetch.last(0, pages, Vector::from_wire(&vector));
                        assert!(late.is_empty() || fetch.finished().is_none(), "ended before a late page");
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            Act::Ack => {
                unacknowledged.drain(..).for_each(|index| serve.acknowledge(session, index));
                for (index, items) in late.drain(..) {
                    items.into_iter().for_each(|item| {
                        asker.apply(NOW, item);
                    });
                    fetch.page(0, index, 1);
                    unacknowledged.push(index);
                }
            }
            Act::Remote { name: n, ms, delete } => {
                *seq += 1;
                side.remote(Some(&mut serve), &name(*n), *ms, dot(2, 1, *seq), *delete);
            }
            Act::Own { name: n, ms } => side.own(&name(*n), *ms),
            Act::Flush => side.flush(Some(&mut serve)),
        }
    }
    for (index, items) in late {
        items.into_iter().for_each(|item| {
            asker.apply(NOW, item);
        });
        fetch.page(0, index, 1);
    }
    match fetch.finished() {
        Some(vector) => {
            assert!(!lost, "completed without a page that was lost");
            asker.cover_all(vector);
            true
        }
        None => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_exchange_that_ends_leaves_nothing_out(
        before in prop::collection::vec((0u8..40, 1u64..60, prop::bool::weighted(0.15), any::<bool>()), 0..80),
        acts in acts(),
    ) {
        let mut side = Side {
            replica: Replica::default(), unflushed: BTreeSet::new(), durable: Vector::default(), head: 0,
        };
        let mut asker = Replica::default();
        let mut seq = 0;
        for (n, ms, delete, known) in before {
            seq += 1;
            side.remote(None, &name(n), ms, dot(2, 1, seq), delete);
            // The asker missed some writes, and has some of its own.
            if known {
                if let Some(item) = side.replica.item(dot(2, 1, seq)) { asker.apply(NOW, item); }
            } else if delete {
                asker.apply(NOW, item(key(&name(n), "x"), ms, dot(3, 1, seq), long(ms)));
            }
        }
        let mut ended = exchange(1, &mut side, &mut asker, &acts, &mut seq);
        if !ended {
            ended = exchange(2, &mut side, &mut asker, &[], &mut seq);
        }
        prop_assert!(ended, "nothing was lost, and yet it did not end");
        prop_assert!(asker.applied().covers(&side.durable));
        for (_, live) in side.replica.live_dots() {
            let Some(theirs) = side.replica.item(live) else { continue };
            let own = asker.entry(&theirs.key);
            let tombstone = asker.object(&theirs.key.object).and_then(|object| object.tombstone());
            let held = asker.item(live).is_some()
                || own.is_some_and(|own| own.beats(&theirs.entry))
                || tombstone.is_some_and(|t| t.stamp >= theirs.entry.stamp);
            prop_assert!(held, "{theirs:?} is accounted for and not here");
        }
    }
}

#[test]
fn an_end_said_again_does_not_hold_up_the_exchange() {
    let mut fetch = Fetch::new(1, 0, false);
    fetch.last(1_000, 2, Vector::default());
    let deadline = fetch.deadline_ms();
    fetch.last(3_500, 2, Vector::default());
    assert_eq!(fetch.deadline_ms(), deadline);
}

#[test]
fn registers_of_leaves_come_in_pieces_that_leave_none_out() {
    let mut replica = Replica::default();
    for seq in 1..=100 {
        let field = ["x", "y", "z"][usize::try_from(seq % 3).unwrap()];
        replica.apply(
            NOW,
            item(key(&name(u8::try_from(seq / 3).unwrap()), field), seq, dot(1, 1, seq), long(seq)),
        );
    }
    let own = dot(1, 1, 50);
    let keys =
        |items: &[mesh_proto::record::Item]| items.iter().map(|item| item.key.clone()).collect::<Vec<_>>();
    for leaves in [(0..=u8::MAX).collect::<BTreeSet<u8>>(), (100..200).collect()] {
        let mut expected = replica.leaf_items(&leaves, None, usize::MAX);
        assert!(expected.iter().all(|item| leaves.contains(&mesh_proto::tree::leaf_of(&item.key))));
        expected.retain(|item| item.entry.dot != own);
        let (mut answer, mut sent, mut pieces) = (LeafAnswer::new(leaves), Vec::new(), 0);
        while let Some(message) = answer.next(&replica, &BTreeSet::from([own])) {
            assert!(encode(core::slice::from_ref(&message)).len() <= MAX_FRAME_BYTES);
            let Message::TreeItems(items) = message else { panic!("{message:?}") };
            sent.extend(keys(&items));
            pieces += 1;
        }
        assert_eq!(sent, keys(&expected));
        assert!(pieces > 1 && sent.len() > 20);
    }
}

#[test]
fn heads_are_answered_once_for_each_digest_however_long_two_differ() {
    let mut mesh = machine(&household(2), 1, 1);
    let link = introduce(&mut mesh, 2);
    mesh.write(now_at(0), Author::Node, vec![Op::Set(key("note/a", "text"), 1.into())]).unwrap();
    let mut heads = 0;
    for ms in (500..=60_000).step_by(500) {
        mesh.handle_timeout(now_at(ms));
        while let Some(event) = mesh.poll_event() {
            if let Event::Persist { batch, .. } = event {
                mesh.handle_input(now_at(ms), Input::Persisted(batch));
            }
        }
        // The peer never takes in what it lacks.
        say(&mut mesh, ms, link, &[Message::Heads(Vector::default().to_wire())]);
        heads += sent(&mut mesh, link).iter().filter(|sent| matches!(sent, Message::Heads(_))).count();
    }
    assert!((5..=7).contains(&heads), "{heads} in a minute, with a digest each ten seconds");
}
