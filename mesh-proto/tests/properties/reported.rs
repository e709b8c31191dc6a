//! Regressions: each test is one fault that once was, small enough to read.

use mesh_proto::{
    Hlc, ShortId, Value,
    kinds::Author,
    mesh::{Event, Input, Mesh, Op},
    outbox::Outbox,
    overlay::{Offered, Overlay, OverlayEntry, OverlayItem, Run},
    replica::Replica,
    session::LinkId,
    vector::{Ranges, Vector},
    view,
    wire::{self, Digest, MAX_FRAME_BYTES, Message},
};

use proptest::prelude::*;

use crate::harness::*;

fn opened_run(mesh: &mut Mesh) -> Option<Run> {
    core::iter::from_fn(|| mesh.poll_event())
        .filter_map(|event| if let Event::PersistRun(run, _) = event { Some(run) } else { None })
        .last()
}

#[test]
fn a_write_numbered_zero_is_never_news_again() {
    let mut replica = Replica::default();
    let write = item(key("note/a", "x"), 5, dot(1, 1, 0), bytes(1));
    replica.apply(10, write.clone());
    assert!(!replica.apply(10, write).is_news(), "it would be forwarded in a circle for ever");
}

#[test]
fn a_dot_numbered_zero_does_not_change_what_a_vector_says() {
    let mut vector = Vector::default();
    vector.insert(dot(1, 1, 0));
    assert_eq!(vector.hash(), Vector::from_wire(&vector.to_wire()).hash());
}

#[test]
fn a_range_to_the_last_number_covers_itself() {
    let mut ranges = Ranges::default();
    ranges.insert(1, u64::MAX);
    assert!(ranges.minus(&ranges).is_empty());
}

#[test]
fn what_one_register_collects_on_a_slow_link_fits_frames() {
    let mut replica = Replica::default();
    let mut outbox = Outbox::default();
    let slider = key("note/slider", "x");
    for seq in 1..=20_000 {
        let write = item(slider.clone(), seq, dot(u64::MAX, 1, seq), bytes(1));
        replica.apply(100_000, write);
        outbox.write(&slider, dot(u64::MAX, 1, seq));
    }
    let mut told = Vector::default();
    loop {
        let messages = outbox.take(&replica, &Overlay::default(), &Default::default());
        if messages.is_empty() {
            break;
        }
        let frame = wire::encode(&messages);
        assert!(frame.len() <= MAX_FRAME_BYTES, "{} bytes, the peer would end the link", frame.len());
        for message in messages {
            let Message::Push(items) = message else { continue };
            items.iter().for_each(|item| {
                told.insert(item.entry.dot);
                for dot in &item.covers {
                    told.insert(*dot);
                }
            });
        }
    }
    assert!(told.covers(replica.applied()) && !outbox.take_overflowed());
}

#[test]
fn a_vector_of_many_origins_fits_a_frame() {
    let mut vector = Vector::default();
    for node in 0..30_000 {
        vector.insert(dot(u64::MAX - node, 1, 1));
    }
    let frame = wire::encode(&[Message::Heads(vector.to_wire())]);
    assert!(frame.len() <= MAX_FRAME_BYTES, "{} bytes", frame.len());
}

#[test]
fn a_generation_of_an_ended_incarnation_is_ended_too() {
    let mut overlay = Overlay::default();
    let entry = |generation, ms| OverlayEntry {
        stamp: Hlc::from_ms(ms),
        writer: ShortId(1),
        run: Run { incarnation: 5, generation },
        value: bytes(1),
    };
    let lamp = key("device/lamp", "desired");
    assert_eq!(overlay.offer(10, &lamp, entry(1, 1), Hlc::ZERO), Offered::New);
    overlay.end(ShortId(1), 5);
    assert_eq!(overlay.offer(10, &lamp, entry(2, 2), Hlc::ZERO), Offered::Ended);
}

#[test]
fn what_a_writer_said_before_its_end_counts_for_nothing_when_it_comes_late() {
    let mut overlay = Overlay::default();
    let entry = |incarnation, ms| OverlayEntry {
        stamp: Hlc::from_ms(ms),
        writer: ShortId(1),
        run: Run { incarnation, generation: 1 },
        value: bytes(1),
    };
    let lamp = key("device/lamp", "desired");
    assert_eq!(overlay.offer(10, &lamp, entry(1, 1), Hlc::ZERO), Offered::New);
    // It restarted and died before anything of its second incarnation came here.
    overlay.end(ShortId(1), 2);
    assert_eq!(overlay.offer(10, &lamp, entry(2, 2), Hlc::ZERO), Offered::Ended);
}

#[derive(Debug, Clone)]
enum Word {
    Offer { ms: u64, run: Run },
    Settle(u64),
    End(u64),
}

fn words() -> impl Strategy<Value = Vec<Word>> {
    let run = (1u64..4, 1u32..3).prop_map(|(incarnation, generation)| Run { incarnation, generation });
    let word = prop_oneof![
        4 => (1u64..9, run).prop_map(|(ms, run)| Word::Offer { ms, run }),
        1 => (1u64..9).prop_map(Word::Settle),
        1 => (1u64..4).prop_map(Word::End),
    ];
    prop::collection::vec(word, 1..14)
}

fn overlay_after<'a>(words: impl Iterator<Item = &'a Word>) -> Option<(Run, Hlc)> {
    let (mut overlay, mut durable) = (Overlay::default(), Hlc::ZERO);
    let (lamp, writer) = (key("device/lamp", "desired"), ShortId(1));
    for word in words {
        match word {
            Word::Offer { ms, run } => {
                let entry = OverlayEntry { stamp: Hlc::from_ms(*ms), writer, run: *run, value: bytes(1) };
                if overlay.is_new_run(writer, *run) {
                    overlay.begin(writer, *run);
                }
                overlay.offer(100, &lamp, entry, durable);
            }
            Word::Settle(ms) => {
                durable = durable.max(Hlc::from_ms(*ms));
                overlay.settle(&lamp, durable);
            }
            Word::End(incarnation) => drop(overlay.end(writer, *incarnation)),
        }
        assert_eq!(overlay.len(), overlay.iter().count());
    }
    overlay.of_writer(&lamp, writer).map(|entry| (entry.run, entry.stamp))
}

proptest! {
    /// What is left is the newest word of the newest run that has not ended, above what is durable.
    #[test]
    fn an_overlay_ends_alike_in_any_order(words in words(), seed in any::<u64>()) {
        let ended = words.iter().filter_map(|w| if let Word::End(at) = w { Some(*at) } else { None }).max();
        let durable = words.iter().filter_map(|w| if let Word::Settle(ms) = w { Some(*ms) } else { None }).max();
        let said = || words.iter().filter_map(|w| match w {
            Word::Offer { ms, run } if Some(run.incarnation) > ended => Some((*run, *ms)),
            _ => None,
        });
        let newest = said().map(|(run, _)| run).max();
        let left = said().filter(|(run, ms)| Some(*run) == newest && Some(*ms) > durable).max();
        let expected = left.map(|(run, ms)| (run, Hlc::from_ms(ms)));
        let mut order: Vec<(u64, &Word)> = (1u64..).zip(&words).collect();
        order.sort_by_key(|(at, _)| at.wrapping_mul(seed | 1).rotate_left(17));
        prop_assert_eq!(overlay_after(words.iter()), expected);
        prop_assert_eq!(overlay_after(order.into_iter().map(|(_, word)| word)), expected);
    }
}

#[test]
fn what_is_said_again_after_a_false_death_does_not_beat_what_was_said_meanwhile() {
    for (early, late) in [(0, 2), (2, 0)] {
        let mut net = Net::new(3);
        net.run(2_000);
        let reach = key("device/lamp", "reach.x");
        net.set(early, "device/lamp", "reach.x", 1);
        net.run(100);
        let others: Vec<usize> = (0..3).filter(|other| *other != early).collect();
        others.iter().for_each(|other| net.cut(early, *other));
        net.run(8_000);
        net.set(late, "device/lamp", "reach.x", 2);
        net.run(1_000);
        others.iter().for_each(|other| net.link(early, *other));
        net.settle();
        net.run(25_000);
        for node in &net.nodes {
            let shown = view::field(node.replica(), node.overlay(), &reach).map(|field| field.value);
            assert_eq!(shown, Some(Value::from(2)), "{:?}, said first by {early}", node.id());
            assert_eq!(node.overlay().len(), 2, "{:?}", node.id());
        }
    }
}

#[test]
fn observers_hear_of_what_a_newer_run_ends() {
    let roster = household(3);
    let mut mesh = machine(&roster, 1, 1);
    let link = introduce(&mut mesh, 2);
    let said = |name: &str, incarnation, ms| {
        let entry = OverlayEntry {
            stamp: Hlc::from_ms(START_MS + ms),
            writer: node_id(3).short(),
            run: Run { incarnation, generation: 1 },
            value: bytes(1),
        };
        Message::Overlay(vec![OverlayItem { key: key(name, "desired"), entry }])
    };
    say(&mut mesh, 1, link, &[said("device/a", 1, 1)]);
    mesh.take_changed(usize::MAX);
    say(&mut mesh, 2, link, &[said("device/b", 2, 2)]);
    assert!(mesh.object(&object("device/a")).is_none());
    assert!(mesh.take_changed(usize::MAX).contains(&object("device/a")));
}

/// What a peer knows of node 1: two generations that it used before its card was set back.
fn rewound_by(heads: &Vector) -> Mesh {
    let roster = household(2);
    let mut mesh = machine(&roster, 1, 1);
    let link = introduce(&mut mesh, 2);
    while mesh.poll_event().is_some() {}
    say(&mut mesh, 1, link, &[Message::Heads(heads.to_wire())]);
    mesh
}

#[test]
fn a_rewound_node_opens_a_generation_that_no_peer_knows() {
    let me = node_id(1).short();
    let mut known = Vector::default();
    known.insert_range(origin(me.0, 1), 1, 5);
    known.insert_range(origin(me.0, 2), 1, 3);
    let mut mesh = rewound_by(&known);
    assert!(opened_run(&mut mesh).is_some_and(|run| run.generation > 2), "a dot would be used twice");
}

#[test]
fn a_new_generation_begins_only_when_the_last_batch_of_the_old_one_is_flushed() {
    let mut mesh = machine(&household(2), 1, 1);
    let link = introduce(&mut mesh, 2);
    mesh.write(now_at(1), Author::Client, vec![Op::Set(key("note/a", "x"), Value::from(1))]).unwrap();
    let persist = |event| if let Event::Persist { batch, .. } = event { Some(batch) } else { None };
    let batch = core::iter::from_fn(|| mesh.poll_event()).find_map(persist).unwrap();
    let mut known = Vector::default();
    known.insert_range(origin(node_id(1).short().0, 1), 7, 9);
    say(&mut mesh, 2, link, &[Message::Heads(known.to_wire())]);
    let run = opened_run(&mut mesh).unwrap();
    mesh.handle_input(now_at(3), Input::RunPersisted(run));
    assert_eq!(mesh.run().generation, 1, "a report now would call an incomplete generation complete");
    mesh.handle_input(now_at(4), Input::Persisted(batch));
    assert_eq!(mesh.run(), run);
}

#[test]
fn a_rewound_node_notices_a_floor_above_its_generation() {
    let me = node_id(1).short();
    let mut known = Vector::default();
    known.raise_floor(me, 5);
    let mut mesh = rewound_by(&known);
    assert!(opened_run(&mut mesh).is_some_and(|run| run.generation >= 5), "its writes would be lost");
}

#[test]
fn a_store_that_crashed_between_two_batches_shows_no_deleted_field() {
    let mut store = Store::default();
    let mut replica = Replica::default();
    let own = origin(1, 1);
    replica.apply(10, item(key("zone/attic", "x"), 5, dot(1, 1, 1), bytes(1)));
    store.write(&replica.take_batch(&[], own).0);
    // A snapshot is coming in while the object is deleted here.
    let large = Some(Value::Bytes(vec![0; 3_800].into()).encode().unwrap());
    for seq in 1..=300 {
        replica.apply(10, item(key(&format!("note/n{seq}"), "x"), 5, dot(2, 1, seq), large.clone()));
    }
    let tombstone = key("zone/attic", "");
    replica.apply(10, item(tombstone.clone(), 6, dot(1, 1, 2), None));
    store.write(&replica.take_batch(&[tombstone], own).0);
    assert!(replica.is_dirty(), "the crash comes between two batches");
    let mesh = Mesh::new(boot(&household(1), 1, 2, false), now_at(0), store.load());
    assert!(mesh.object(&object("zone/attic")).is_none());
    assert!(view::field(mesh.replica(), mesh.overlay(), &key("zone/attic", "x")).is_none());
}

#[test]
fn a_link_that_is_closing_wakes_nobody() {
    let roster = household(2);
    let mut mesh = machine(&roster, 1, 1);
    let link = introduce(&mut mesh, 2);
    mesh.handle_timeout(now_at(20_000));
    mesh.handle_input(now_at(20_000), Input::Frame(link, vec![9]));
    mesh.handle_timeout(now_at(20_001));
    assert!(mesh.poll_timeout().is_none_or(|due| due > 20_001), "the caller would spin");
}

#[test]
fn a_run_that_waits_to_be_persisted_wakes_nobody() {
    let me = node_id(1).short();
    let mut known = Vector::default();
    known.insert_range(origin(me.0, 1), 1, 5);
    let mut mesh = rewound_by(&known);
    mesh.write(now_at(2), Author::Client, vec![Op::Set(key("note/a", "x"), Value::from(1))]).unwrap();
    mesh.handle_timeout(now_at(500));
    assert!(mesh.poll_timeout().is_none_or(|due| due > 500), "the caller would spin while its disk is full");
}

#[test]
fn digests_do_not_make_a_silent_link_queue_the_roster_again_and_again() {
    let roster = household(20);
    let mut mesh = machine(&roster, 1, 1);
    let link = introduce(&mut mesh, 2);
    let digest = Message::Digest(Digest { vector: [0; 8], overlay: [0; 8], roster: [0; 8] });
    say(&mut mesh, 1, link, &vec![digest; 2_000]);
    let queued = core::iter::from_fn(|| mesh.poll_transmit(link)).count();
    assert!(queued < 100, "{queued} frames wait because of one");
}

#[test]
fn packets_for_a_link_that_is_not_polled_do_not_pile_up() {
    let mut net = Net::new(3);
    net.run(2_000);
    let (a, b) = (node_id(1), node_id(2));
    assert_ne!(a, b);
    // The link 1–2 stands still while both are known to be alive through the third.
    let link = LinkId(1);
    let mut packets = 0;
    for step in 0..2_000 {
        net.ms += 100;
        for node in 0..3 {
            net.nodes[node].handle_timeout(now_at(net.ms));
        }
        for (x, y, id) in [(0, 2, LinkId(2)), (1, 2, LinkId(102))] {
            for (from, to) in [(x, y), (y, x)] {
                while let Some(sent) = net.nodes[from].poll_transmit(id) {
                    let input = match sent {
                        mesh_proto::mesh::Transmit::Frame(bytes) => Input::Frame(id, bytes),
                        mesh_proto::mesh::Transmit::Packet(bytes) => Input::Packet(id, bytes),
                    };
                    net.nodes[to].handle_input(now_at(net.ms), input);
                }
            }
        }
        if step == 1_999 {
            packets = core::iter::from_fn(|| net.nodes[0].poll_transmit(link)).count();
        }
    }
    assert!(packets <= 128, "{packets} packets waited, each too late to be of use");
}

#[test]
fn a_restored_store_is_reported_replaced_only_once_it_is() {
    let roster = household(2);
    let mut old = Replica::default();
    old.apply(10, item(key("note/old", "x"), 5, dot(9, 1, 1), bytes(1)));
    let mut store = Store::default();
    store.write(&old.take_batch(&[], origin(1, 1)).0);
    let mut mesh = Mesh::new(boot(&roster, 1, 2, true), now_at(0), store.load());
    let link = introduce(&mut mesh, 2);
    let mut known = Vector::default();
    known.insert(dot(9, 1, 1));
    let last = Message::Final { session: 1, pages: 0, vector: known.to_wire() };
    say(&mut mesh, 1, link, &[last]);
    let mut events = Vec::new();
    for _ in 0..20 {
        while let Some(event) = mesh.poll_event() {
            if let Event::Persist { batch, records } = &event {
                assert!(
                    !events.iter().any(|e| matches!(e, Event::Restored)),
                    "a crash now leaves the old store without its mark"
                );
                store.write(records);
                mesh.handle_input(now_at(2), Input::Persisted(*batch));
            }
            events.push(event);
        }
    }
    assert!(events.iter().any(|e| matches!(e, Event::Restored)));
    assert!(!store.0.keys().any(|key| key.starts_with(b"rnote/old")));
}

#[test]
fn a_state_that_is_taken_over_settles_the_overlay() {
    let roster = household(3);
    let mut mesh = Mesh::new(boot(&roster, 1, 2, true), now_at(0), Store::default().load());
    let link = introduce(&mut mesh, 2);
    let entry = OverlayEntry {
        stamp: Hlc::from_ms(START_MS),
        writer: node_id(3).short(),
        run: Run { incarnation: 1, generation: 1 },
        value: bytes(1),
    };
    let said = vec![OverlayItem { key: key("device/a", "desired"), entry }];
    let tombstone = item(key("device/a", ""), START_MS + 1, dot(9, 1, 1), None);
    let mut vector = Vector::default();
    vector.insert(dot(9, 1, 1));
    let vector = vector.to_wire();
    let answer = Message::Page { session: 1, index: 1, items: vec![tombstone] };
    say(
        &mut mesh,
        1,
        link,
        &[Message::Overlay(said), answer, Message::Final { session: 1, pages: 1, vector }],
    );
    while let Some(event) = mesh.poll_event() {
        if let Event::Persist { batch, .. } = event {
            mesh.handle_input(now_at(2), Input::Persisted(batch));
        }
    }
    assert!(!mesh.is_restoring());
    assert_eq!(mesh.overlay().len(), 0, "it would be seen again once the tombstone is collected");
}

#[test]
fn tombstones_go_everywhere_while_writes_go_on() {
    let mut net = Net::new(2);
    net.set(0, "zone/attic", "x", 1);
    net.write(0, vec![Op::Delete(object("zone/attic"))]);
    // Since the second node started later, the two look at different moments.
    net.run(4_000);
    net.restart(1, 2);
    for round in 0..100 {
        net.run(2_300);
        net.set(round % 2, "note/busy", "x", i64::try_from(round).unwrap());
    }
    for node in &net.nodes {
        assert_eq!(node.replica().tombstones().count(), 0, "{:?} still waits", node.id());
    }
}

#[test]
fn a_write_that_waited_out_a_full_disk_does_not_undo_a_collected_deletion() {
    let mut net = Net::new(2);
    net.set(0, "device/lamp", "adapter", 1);
    net.run(3_000);
    // The second node's slider waits for its flush; the first deletes the lamp a moment later.
    net.set(1, "device/lamp", "desired", 7);
    net.run(5);
    net.write(0, vec![Op::Delete(object("device/lamp"))]);
    net.run(2_000);
    net.stalled.insert(1);
    net.set(1, "note/other", "x", 1);
    net.run(150_000);
    net.stalled.clear();
    net.run(20_000);
    for node in &net.nodes {
        assert!(node.object(&object("device/lamp")).is_none(), "{:?} sees it again", node.id());
    }
}
