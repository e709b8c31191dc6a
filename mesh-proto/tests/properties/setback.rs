//! Stores that were set back: restored ones, and cards of which nobody said so.

use std::collections::BTreeSet;

use mesh_proto::{
    Key,
    kinds::Author,
    mesh::{Event, Input, Mesh, Op, next_run},
    overlay::Run,
    planted::Plant,
    record::Item,
    replica::Replica,
    session::{LinkId, Transport},
    vector::Vector,
    wire::{Message, Report},
};

use crate::harness::*;

/// A store that holds these writes and claims no more.
fn store_of(items: impl IntoIterator<Item = Item>) -> Store {
    let (mut replica, mut store) = (Replica::default(), Store::default());
    items.into_iter().for_each(|item| {
        replica.apply(START_MS, item);
    });
    while replica.is_dirty() {
        store.write(&replica.take_batch(&[], origin(1, 1)).0);
    }
    store
}

fn holds(store: &Store, key: &Key) -> bool {
    store.0.contains_key(&mesh_proto::record::register_name(key))
}

/// Answers the question that a restored machine has asked over a link with all that a peer has.
fn answer(mesh: &mut Mesh, ms: u64, link: LinkId, items: Vec<Item>, vector: &Vector) {
    let mut session = None;
    for message in sent(mesh, link) {
        if let Message::Want { session: asked, .. } = message {
            session = Some(asked);
        }
    }
    let session = session.expect("the peer was asked");
    let mut pages = 0;
    for items in items.chunks(50) {
        pages += 1;
        say(mesh, ms, link, &[Message::Page { session, index: pages, items: items.to_vec() }]);
    }
    say(mesh, ms, link, &[Message::Final { session, pages, vector: vector.to_wire() }]);
}

/// Links a machine with a peer, and leaves what it says there.
fn meet(mesh: &mut Mesh, peer: u8) -> LinkId {
    let link = LinkId(u64::from(peer));
    mesh.handle_input(
        now_at(0),
        Input::LinkUp { link, peer: node_id(peer), dialed: false, transport: Transport::Quic },
    );
    say(mesh, 0, link, &[hello(mesh.roster().household(), peer)]);
    link
}

/// What becomes of a machine and its store when nothing fails.
fn finish(mesh: &mut Mesh, store: &mut Store, mut after: impl FnMut(&Store, &Event)) -> Vec<Item> {
    let mut lost = Vec::new();
    for ms in (10..20_000).step_by(200) {
        // A batch may be due a moment after the one before it.
        mesh.handle_timeout(now_at(ms));
        while let Some(event) = mesh.poll_event() {
            match &event {
                Event::Persist { batch, records } => {
                    store.write(records);
                    mesh.handle_input(now_at(ms), Input::Persisted(*batch));
                }
                Event::PersistRun(run, _) => mesh.handle_input(now_at(ms), Input::RunPersisted(*run)),
                Event::LostAndFound { number, lost: found } => {
                    lost.clone_from(found);
                    mesh.handle_input(now_at(ms), Input::LostSaved(*number));
                }
                _ => {}
            }
            after(store, &event);
        }
    }
    lost
}

#[test]
fn of_two_restored_nodes_each_asks_the_sound_one() {
    let mut net = Net::new(3);
    net.set(2, "note/a", "x", 1);
    net.run(1_000);
    for node in [0, 1] {
        net.restore(node, 2);
    }
    net.run(20_000);
    for node in &net.nodes {
        assert!(!node.is_restoring(), "{:?} still waits", node.id());
    }
}

#[test]
fn where_no_store_is_sound_the_lowest_name_decides() {
    let mut net = Net::new(3);
    for node in 0..3 {
        net.set(node, &format!("note/n{node}"), "x", 1);
    }
    net.run(1_000);
    let links = [(0, 1), (0, 2), (1, 2)];
    links.iter().for_each(|(a, b)| net.cut(*a, *b));
    (0..3).for_each(|node| net.restore(node, 2));
    net.link(0, 1);
    net.settle();
    net.run(30_000);
    assert!(net.nodes.iter().all(Mesh::is_restoring), "the third may be sound");
    net.link(0, 2);
    net.link(1, 2);
    net.settle();
    net.run(30_000);
    for node in &net.nodes {
        assert!(!node.is_restoring(), "{:?} still waits", node.id());
        assert_eq!(node.replica().len(), 3);
    }
}

#[test]
fn the_old_goes_only_when_the_new_is_durable_and_the_lost_is_exported() {
    const WRITES: u64 = 1_000;
    let roster = household(2);
    // Each holds what no peer has heard of; the attic was deleted there, but for what came late.
    let long = Some(mesh_proto::Value::from("x".repeat(3_000).as_str()).encode().unwrap());
    let own =
        |seq| item(key(&format!("note/n{seq}"), "x"), seq, dot(node_id(1).short().0, 1, seq), long.clone());
    let (kept, late) = (dot(9, 1, 1), dot(9, 1, 2));
    let attic =
        [item(key("zone/attic", "x"), 5, kept, bytes(1)), item(key("zone/attic", "y"), 6, late, bytes(2))];
    let mut store = store_of((1..=WRITES).map(own).chain(attic));
    let mut mesh = Mesh::new(boot(&roster, 1, 2, true), now_at(0), store.load());
    let link = meet(&mut mesh, 2);
    let mut known = Vector::default();
    known.insert(kept);
    // What the peer holds makes several batches.
    let theirs = |n| item(key(&format!("board/b{n}"), "x"), n, dot(9, 1, 10 + n), long.clone());
    let theirs: Vec<Item> = (1..=WRITES).map(theirs).collect();
    for item in &theirs {
        known.insert(item.entry.dot);
    }
    answer(&mut mesh, 1, link, theirs, &known);
    let (mut exported, mut batches) = (false, 0);
    let lost = finish(&mut mesh, &mut store, |store, event| {
        exported |= matches!(event, Event::LostAndFound { .. });
        batches += u32::from(matches!(event, Event::Persist { .. }));
        assert!(exported || holds(store, &key("zone/attic", "y")), "deleted before it was exported");
        let notes = (1..=WRITES).filter(|seq| holds(store, &key(&format!("note/n{seq}"), "x"))).count();
        assert_eq!(notes, 1_000, "a crash now loses acknowledged writes");
    });
    assert!(exported && batches > 2, "{batches} batches");
    assert_eq!(lost.iter().map(|item| item.key.clone()).collect::<Vec<_>>(), [key("zone/attic", "y")]);
    assert!(!mesh.is_restoring() && !holds(&store, &key("zone/attic", "y")));
}

#[test]
fn an_export_that_is_not_durable_holds_the_replacement_back() {
    let roster = household(2);
    let (kept, late) = (dot(9, 1, 1), dot(9, 1, 2));
    let store =
        store_of([item(key("zone/a", "x"), 5, kept, bytes(1)), item(key("zone/a", "y"), 6, late, bytes(2))]);
    let mut mesh = Mesh::new(boot(&roster, 1, 2, true), now_at(0), store.load());
    let link = meet(&mut mesh, 2);
    let mut known = Vector::default();
    known.insert(kept);
    for round in 1..4 {
        answer(&mut mesh, round * 5_000, link, Vec::new(), &known);
        let events: Vec<Event> = core::iter::from_fn(|| mesh.poll_event()).collect();
        assert!(events.iter().any(|e| matches!(e, Event::LostAndFound { .. })), "it is handed out anew");
        assert!(!events.iter().any(|e| matches!(e, Event::Persist { .. } | Event::Restored)));
        mesh.handle_timeout(now_at(round * 5_000 + 4_000));
    }
}

#[test]
fn a_peer_that_has_only_just_joined_does_not_replace_a_restored_store() {
    let roster = household(3);
    // The lamp was deleted while this node was away, and its tombstone is gone.
    let lamp = dot(9, 1, 1);
    let store = store_of([item(key("device/lamp", "x"), 5, lamp, bytes(1))]);
    let mut mesh = Mesh::new(boot(&roster, 1, 2, true), now_at(0), store.load());
    let fresh = meet(&mut mesh, 2);
    answer(&mut mesh, 1, fresh, Vec::new(), &Vector::default());
    assert!(mesh.is_restoring());
    assert!(mesh.replica().entry(&key("device/lamp", "x")).is_some(), "alone, the store is used as it is");
    let sound = meet(&mut mesh, 3);
    let mut known = Vector::default();
    known.insert_range(lamp.origin, 1, 2);
    answer(&mut mesh, 2, sound, Vec::new(), &known);
    finish(&mut mesh, &mut Store::default(), |_, _| {});
    assert!(!mesh.is_restoring());
    assert!(mesh.replica().entry(&key("device/lamp", "x")).is_none(), "it came back");
}

#[test]
fn of_peers_that_all_lack_something_the_best_is_taken() {
    let roster = household(3);
    let store =
        store_of((1..=3).map(|seq| item(key(&format!("note/n{seq}"), "x"), 5, dot(9, 1, seq), bytes(1))));
    let mut mesh = Mesh::new(boot(&roster, 1, 2, true), now_at(0), store.load());
    let better = meet(&mut mesh, 2);
    let mut known = Vector::default();
    known.insert_range(origin(9, 1), 1, 2);
    answer(&mut mesh, 1, better, Vec::new(), &known);
    assert!(mesh.replica().entry(&key("note/n1", "x")).is_some(), "the third may know more");
    let worse = meet(&mut mesh, 3);
    answer(&mut mesh, 2, worse, Vec::new(), &Vector::default());
    assert!(mesh.replica().entry(&key("note/n1", "x")).is_some(), "the second knows more");
    let digest = mesh_proto::wire::Digest { vector: known.hash(), overlay: [0; 8], roster: [0; 8] };
    say(&mut mesh, 3, better, &[Message::Digest(digest)]);
    answer(&mut mesh, 4, better, Vec::new(), &known);
    finish(&mut mesh, &mut Store::default(), |_, _| {});
    assert!(!mesh.is_restoring());
    assert!(mesh.replica().entry(&key("note/n1", "x")).is_none());
    assert!(mesh.replica().entry(&key("note/n3", "x")).is_some(), "nobody else has it");
}

#[test]
fn a_node_answers_nobody_until_what_replaced_its_store_is_durable() {
    let roster = household(2);
    let store = store_of([item(key("note/a", "x"), 5, dot(9, 1, 1), bytes(1))]);
    let mut mesh = Mesh::new(boot(&roster, 1, 2, true), now_at(0), store.load());
    let link = meet(&mut mesh, 2);
    let mut known = Vector::default();
    known.insert(dot(9, 1, 1));
    answer(&mut mesh, 1, link, vec![item(key("note/a", "x"), 5, dot(9, 1, 1), bytes(1))], &known);
    let want = Message::Want { session: 1, have: Vector::default().to_wire() };
    say(&mut mesh, 2, link, core::slice::from_ref(&want));
    let silent =
        sent(&mut mesh, link).iter().all(|m| !matches!(m, Message::Page { .. } | Message::Final { .. }));
    assert!(silent, "nothing is durable yet");
    finish(&mut mesh, &mut Store::default(), |_, _| {});
    let told = sent(&mut mesh, link);
    assert!(told.contains(&Message::Restoring(false)), "{told:?}");
    say(&mut mesh, 10, link, &[want]);
    assert!(sent(&mut mesh, link).iter().any(|m| matches!(m, Message::Page { .. })));
}

#[test]
fn what_was_written_alone_after_a_restore_outlives_a_crash() {
    let roster = household(2);
    let note = key("note/x", "a");
    // Before the backup the note had a text; the peer deleted it since.
    let mut store = store_of([item(key("note/x", "text"), 5, dot(9, 1, 1), bytes(1))]);
    let mut mesh = Mesh::new(boot(&roster, 1, 2, true), now_at(0), store.load());
    mesh.write(now_at(1), Author::Client, vec![Op::Set(note.clone(), 7.into())]).unwrap();
    finish(&mut mesh, &mut store, |_, _| {});
    let mut again = boot(&roster, 1, 3, true);
    again.restored = Some(2);
    let mut mesh = Mesh::new(again, now_at(0), store.load());
    let link = meet(&mut mesh, 2);
    let mut known = Vector::default();
    known.insert_range(origin(9, 1), 1, 2);
    let tombstone = item(key("note/x", ""), 6, dot(9, 1, 2), None);
    answer(&mut mesh, 2, link, vec![tombstone], &known);
    let lost = finish(&mut mesh, &mut store, |_, _| {});
    assert!(lost.is_empty() && holds(&store, &note), "acknowledged, and gone: {lost:?}");
}

/// Node 1 wrote five notes in its first run; its card was set back to the second of them, and
/// booted without a sign of that.
fn set_back(run: u32) -> (Mesh, LinkId, Vector) {
    let me = node_id(1).short();
    let store = store_of(
        (1..=2).map(|seq| item(key(&format!("note/n{seq}"), "x"), seq, dot(me.0, 1, seq), bytes(1))),
    );
    let mut mesh = Mesh::new(boot(&household(2), 1, run, false), now_at(0), store.load());
    let link = meet(&mut mesh, 2);
    let mut known = Vector::default();
    known.insert_range(origin(me.0, 1), 1, 5);
    (mesh, link, known)
}

#[test]
fn a_card_that_was_set_back_is_treated_as_restored() {
    for write_first in [0, 5] {
        let (mut mesh, link, known) = set_back(700);
        // More of its own than what it lost.
        for number in 0..write_first {
            let note = key(&format!("note/new{number}"), "x");
            mesh.write(now_at(1), Author::Client, vec![Op::Set(note, 7.into())]).unwrap();
        }
        let mut store = Store::default();
        finish(&mut mesh, &mut store, |_, _| {});
        say(&mut mesh, 2, link, &[Message::Heads(known.to_wire())]);
        let run = core::iter::from_fn(|| mesh.poll_event()).find_map(|event| match event {
            Event::PersistRun(run, Some(mark)) => Some((run, mark)),
            _ => None,
        });
        let (run, mark) = run.expect("noticed, and the mark is to be made durable");
        assert!(run.generation > 700 && mark <= 700, "what was written since the boot is no old state");
        mesh.handle_input(now_at(3), Input::RunPersisted(run));
        // Note 1 was deleted, and its tombstone is forgotten.
        answer(
            &mut mesh,
            4,
            link,
            vec![item(key("note/n2", "x"), 2, dot(node_id(1).short().0, 1, 2), bytes(1))],
            &known,
        );
        finish(&mut mesh, &mut store, |_, _| {});
        assert!(!mesh.is_restoring());
        assert!(mesh.replica().entry(&key("note/n1", "x")).is_none(), "it would come back everywhere");
        for number in 0..write_first {
            assert!(mesh.replica().entry(&key(&format!("note/new{number}"), "x")).is_some());
        }
    }
}

#[test]
fn a_card_that_wrote_nothing_since_is_given_away_by_its_own_report() {
    let me = node_id(1).short();
    let (mut mesh, link, _) = set_back(700);
    let mut said = Vector::default();
    said.insert_range(origin(me.0, 1), 1, 2);
    said.insert_range(origin(9, 1), 1, 4);
    let run = Run { incarnation: 1, generation: 1 };
    let report = Report { node: me, run, number: 3, durable: said.to_wire() };
    say(&mut mesh, 1, link, &[Message::Reports(vec![report])]);
    assert!(mesh.is_restoring(), "tombstones were forgotten on its word");
    let silenced = sent(&mut mesh, link).into_iter().any(|message| match message {
        Message::Reports(reports) => reports.iter().any(|r| Vector::from_wire(&r.durable).is_empty()),
        _ => false,
    });
    assert!(silenced, "its word counts no more");
}

#[test]
fn a_node_that_was_restored_does_not_take_its_own_past_for_a_sign() {
    let mut net = Net::new(3);
    net.set(0, "note/a", "x", 1);
    net.run(1_000);
    let backup = net.stores[0].clone();
    // The third hears of what the first writes last, the second does not.
    net.cut(0, 1);
    net.cut(1, 2);
    net.set(0, "note/b", "x", 2);
    net.run(1_000);
    net.cut(0, 2);
    net.stores[0] = backup;
    net.restore(0, 20);
    net.link(0, 1);
    net.settle();
    net.run(20_000);
    assert!(!net.nodes[0].is_restoring());
    net.link(0, 2);
    net.link(1, 2);
    net.settle();
    net.run(30_000);
    assert!(!net.events[0].iter().any(|event| matches!(event, Event::Rewound(_))));
    for node in &net.nodes {
        assert!(node.replica().entry(&key("note/b", "x")).is_some());
    }
}

#[test]
fn every_start_opens_a_run_that_no_image_of_the_card_will_open_again() {
    let last = Run { incarnation: 5, generation: 40 };
    let draws = (0..1_000u32).map(|n| n.wrapping_mul(0x9E37_79B9));
    let runs: BTreeSet<u32> =
        draws.clone().map(|draw| next_run(Some(last), 3, false, draw, Plant::default()).generation).collect();
    assert!(runs.len() > 900 && runs.iter().all(|generation| *generation > 40));
    let first: BTreeSet<u32> =
        draws.map(|draw| next_run(None, 0, false, draw, Plant::default()).generation).collect();
    assert!(first.len() > 900);
    let end = Run { incarnation: u64::MAX, generation: u32::MAX };
    assert_eq!(
        next_run(Some(end), 0, true, u32::MAX, Plant::default()),
        end,
        "a claim of a peer must not stop the boot"
    );
}
