//! Bytes that nobody meant: they are refused by name, and nothing panics.

use mesh_proto::{
    Value,
    mesh::{Event, Input, Loader, Mesh, Op},
    planted::Plant,
    record::{self, Record},
    roster::Roster,
    wire::{self, Digest, MAX_FRAME_BYTES, Message},
};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::harness::*;

fn some_frame() -> Vec<u8> {
    let items: Vec<_> = (1..20).map(|seq| item(key("note/a", "x"), seq, dot(2, 1, seq), bytes(1))).collect();
    let mut vector = mesh_proto::vector::Vector::default();
    vector.insert_range(origin(2, 1), 1, 9);
    wire::encode(&[
        Message::Push(items.clone()),
        Message::Digest(Digest { vector: [1; 8], overlay: [2; 8], roster: [3; 8] }),
        Message::Want { session: 1, have: vector.to_wire() },
        Message::Page { session: 1, index: 1, items },
        Message::Final { session: 1, pages: 1, vector: vector.to_wire() },
        Message::TreeLeaves(vec![7; 256]),
    ])
}

/// How many values a message holds, whatever their kind: none may take less than a byte of the frame.
fn count(message: &Message) -> usize {
    match message {
        Message::Push(items) | Message::TreeItems(items) | Message::Page { items, .. } => {
            items.iter().map(|item| 1 + item.covers.len()).sum()
        }
        Message::Roster(statements) => statements.iter().map(|bytes| 1 + bytes.len()).sum(),
        Message::Overlay(items) => items.len(),
        Message::TreeLeaves(leaves) => leaves.len(),
        Message::Reports(reports) => reports.len(),
        _ => 0,
    }
}

/// Takes a few bytes out, puts some in, turns some over.
fn mutate(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..bytes.len().max(1));
        match rng.random_range(0..4) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] = 0xff,
            _ => bytes.insert(at.min(bytes.len()), rng.random()),
        }
    }
}

/// The machine goes on: it takes a write and flushes it.
pub(crate) fn still_works(mesh: &mut Mesh, ms: u64) {
    let token = mesh
        .write(
            now_at(ms),
            mesh_proto::kinds::Author::Client,
            vec![Op::Set(key("note/mine", "x"), Value::from(1))],
        )
        .unwrap();
    for step in 0..50 {
        while let Some(event) = mesh.poll_event() {
            match event {
                Event::Persist { batch, .. } => mesh.handle_input(now_at(ms), Input::Persisted(batch)),
                Event::PersistRun(run, _) => mesh.handle_input(now_at(ms), Input::RunPersisted(run)),
                Event::Written(written) if written == token => return,
                _ => {}
            }
        }
        mesh.handle_timeout(now_at(ms + step));
    }
    panic!("the write was never acknowledged");
}

proptest! {
    #[test]
    fn random_bytes_are_no_frame_or_a_bounded_one(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let framed = [&[wire::FRAME_VERSION], bytes.as_slice()].concat();
        for frame in [bytes.clone(), framed] {
            if let Ok((messages, _)) = wire::decode(&frame) {
                prop_assert!(messages.iter().map(count).sum::<usize>() <= frame.len());
                prop_assert_eq!(wire::decode(&wire::encode(&messages)).unwrap().0, messages);
            }
        }
    }

    #[test]
    fn damaged_frames_are_refused_or_bounded(seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut frame = some_frame();
        mutate(&mut rng, &mut frame);
        if let Ok((messages, _)) = wire::decode(&frame) {
            prop_assert!(messages.iter().map(count).sum::<usize>() <= frame.len());
        }
    }

    #[test]
    fn a_store_of_random_and_damaged_records_loads_and_works(seed in any::<u64>()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut loader = Loader::new(Plant::default());
        let register = item(key("zone/a", "x"), 5, dot(1, 1, 3), bytes(2));
        let mut ranges = mesh_proto::vector::Ranges::default();
        ranges.insert(1, 9);
        let good = [
            record::register(&register.key, &register.entry),
            record::quarantined(&register.key, &register.entry),
            record::covered(origin(1, 1), &ranges),
            record::floor(mesh_proto::ShortId(1), 1),
            record::ceiling(mesh_proto::Hlc::from_ms(7)),
        ];
        for _ in 0..40 {
            let (mut name, mut value) = good[rng.random_range(0..good.len())].clone();
            if rng.random_bool(0.4) { mutate(&mut rng, &mut name); }
            if rng.random_bool(0.4) { mutate(&mut rng, &mut value); }
            // The only error is that of a newer version, and it stops the start.
            let is_newer = value.first().is_some_and(|version| *version > record::RECORD_VERSION);
            prop_assert_eq!(loader.record(&name, &value).is_err(), is_newer);
            let _ = Record::decode(&value, &name);
        }
        let mut mesh = Mesh::new(boot(&household(1), 1, 2, false), now_at(0), loader);
        still_works(&mut mesh, 10);
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_before_it_is_read() {
    let frame = vec![wire::FRAME_VERSION; MAX_FRAME_BYTES + 1];
    assert!(matches!(wire::decode(&frame), Err(mesh_proto::error::FrameError::TooLarge { .. })));
}

#[test]
fn a_list_that_claims_four_billion_entries_is_refused() {
    for variant in 0..15u8 {
        let body = [&[variant][..], &[255, 255, 255, 255, 15].repeat(4)].concat();
        let length = u8::try_from(body.len()).unwrap();
        let frame = [&[wire::FRAME_VERSION, length][..], &body].concat();
        assert!(wire::decode(&frame).is_err(), "variant {variant}");
    }
}

/// A bounded run of what the fuzz targets of `tests/fuzz` do without bound.
#[test]
fn a_live_link_survives_damaged_frames_and_packets() {
    let roster = household(3);
    let mut rng = ChaCha8Rng::seed_from_u64(20_260_101);
    for round in 0..300u64 {
        let mut mesh = machine(&roster, 1, 1);
        let link = introduce(&mut mesh, 2);
        for ms in 1..6 {
            let mut frame = some_frame();
            if rng.random_bool(0.7) {
                mutate(&mut rng, &mut frame);
            }
            mesh.handle_input(now_at(ms), Input::Frame(link, frame));
            let mut packet = vec![wire::FRAME_VERSION, 1, 2, 3, 4, 5, 6, 7, 8];
            mutate(&mut rng, &mut packet);
            mesh.handle_input(now_at(ms), Input::Packet(link, packet));
            while mesh.poll_transmit(link).is_some() {}
        }
        if round % 10 == 0 {
            still_works(&mut mesh, 20);
        }
    }
}

#[test]
fn damaged_statements_and_values_are_refused_or_mean_what_they_say() {
    let roster = household(4);
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let nested = Value::List(vec![Value::from("text"), Value::Int(-5), Value::Float(0.5), Value::Bool(true)]);
    let nested = Value::Map([("a".into(), nested), ("b".into(), Value::Null)].into_iter().collect());
    let members = |roster: &Roster| roster.members().count();
    for _ in 0..400 {
        for statement in roster.statements() {
            let mut bytes = statement.to_vec();
            mutate(&mut rng, &mut bytes);
            let mut other = copy(&roster);
            let _ = other.insert(&bytes);
            assert_eq!(members(&other), members(&roster));
        }
        let mut bytes = nested.encode().unwrap().to_vec();
        mutate(&mut rng, &mut bytes);
        if let Ok(value) = Value::decode(&bytes) {
            assert_eq!(Value::decode(&value.encode().unwrap()).unwrap(), value);
        }
    }
}
