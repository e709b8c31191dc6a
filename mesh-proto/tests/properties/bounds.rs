//! Limits that are met: what is refused is counted by name, and a full table makes no noise.

use mesh_proto::{
    Hlc, ShortId, Value,
    counters::Counter,
    kinds::Author,
    limits::Limits,
    mesh::{Op, WriteError},
    overlay::{self, Offered, Overlay, OverlayEntry, OverlayItem, Run},
    planted::Plant,
    wire::{Digest, Message},
};

use crate::harness::*;

fn entry(writer: u64, ms: u64, padding: usize) -> OverlayEntry {
    let value = Some(Value::from("-".repeat(padding).as_str()).encode().unwrap());
    let run = Run { incarnation: 1, generation: 1 };
    OverlayEntry { stamp: Hlc::from_ms(ms), writer: ShortId(writer), run, value }
}

#[test]
fn one_writer_leaves_the_room_of_the_others_and_all_together_fill_no_more_than_the_limit() {
    let limits = Limits::default();
    let mut overlay = Overlay::new(Plant::default(), limits);
    for writer in 1..=9 {
        let mut offered = Offered::New;
        for at in 0..1_000 {
            let said = entry(writer, 10, 3_800);
            offered = overlay.offer(100, &key(&format!("device/n{at}"), "reach.x"), said, Hlc::ZERO);
            assert!(overlay.bytes() <= limits.overlay_bytes);
            assert!(overlay.bytes_of(ShortId(writer)) <= limits.overlay_share_bytes);
            if offered != Offered::New {
                break;
            }
        }
        assert_eq!(offered, Offered::Full, "writer {writer}");
    }
    assert!(overlay.bytes() > limits.overlay_bytes / 10 * 9, "the shares leave room that nobody gets");
    overlay.end(ShortId(1), 1);
    let late = entry(9, 11, 3_800);
    assert_eq!(overlay.offer(100, &key("device/late", "reach.x"), late, Hlc::ZERO), Offered::New);
    let counted: usize = overlay.iter().map(|(key, entry)| overlay::weigh(key, entry)).sum();
    assert_eq!(counted, overlay.bytes());
}

#[test]
fn a_full_overlay_keeps_what_it_holds_and_takes_what_is_smaller() {
    let limits = Limits { overlay_share_bytes: 600, ..Limits::default() };
    let mut overlay = Overlay::new(Plant::default(), limits);
    let lamp = key("device/lamp", "reach.x");
    assert_eq!(overlay.offer(100, &lamp, entry(1, 10, 300), Hlc::ZERO), Offered::New);
    assert_eq!(overlay.offer(100, &lamp, entry(1, 11, 500), Hlc::ZERO), Offered::Full);
    assert_eq!(overlay.newest(&lamp).unwrap().stamp, Hlc::from_ms(10));
    assert_eq!(overlay.offer(100, &lamp, entry(1, 12, 10), Hlc::ZERO), Offered::New);
    assert_eq!(overlay.offer(100, &lamp, entry(1, 10, 500), Hlc::ZERO), Offered::Old);
}

#[test]
fn a_value_that_lives_in_memory_alone_is_refused_where_there_is_no_room() {
    let limits = Limits { overlay_share_bytes: 600, ..Limits::default() };
    let mut net = Net::with_limits(&[limits]);
    let op = |value: &str| vec![Op::Set(key("device/lamp", "reach.x"), Value::from(value))];
    net.write(0, op("here"));
    let refused = net.nodes[0].write(now_at(1), Author::Node, op(&"-".repeat(600)));
    assert_eq!(refused, Err(WriteError::Overloaded));
    net.write(0, op("gone"));
}

/// A peer that never agrees: its overlay holds what has no room here.
#[test]
fn a_full_overlay_is_counted_by_name_and_everything_is_said_again_ever_more_seldom() {
    let limits = Limits { overlay_bytes: 1_000, overlay_share_bytes: 1_000, ..Limits::default() };
    let mut net = Net::with_limits(&[limits]);
    net.nodes[0] = machine_of_two(limits);
    let mesh = &mut net.nodes[0];
    let link = introduce(mesh, 2);
    for at in 0..10 {
        let said = OverlayEntry { writer: node_id(2).short(), ..entry(0, START_MS, 10) };
        let item = OverlayItem { key: key(&format!("device/n{at}"), "reach.x"), entry: said };
        say(mesh, 1, link, &[Message::Overlay(vec![item])]);
    }
    assert_eq!(Counter::OverlayFull.name(), "overlay_full");
    assert!(mesh.counters().get(Counter::OverlayFull) > 0 && !mesh.overlay().is_empty());
    let mut told = 0;
    for round in 1..=360 {
        let digest = Digest { vector: [1; 8], overlay: [2; 8], roster: [3; 8] };
        say(mesh, round * 10_000, link, &[Message::Digest(digest)]);
        told += sent(mesh, link).iter().filter(|m| matches!(m, Message::Overlay(_))).count();
    }
    assert!((2..=11).contains(&told), "said again {told} times in an hour");
}

fn machine_of_two(limits: Limits) -> mesh_proto::mesh::Mesh {
    let boot = mesh_proto::mesh::Boot { limits, ..boot(&household(2), 1, 1, false) };
    mesh_proto::mesh::Mesh::new(boot, now_at(0), mesh_proto::mesh::Loader::new(Plant::default()))
}

/// The names of all entries have no room in the queue of the new link.
#[test]
fn an_overlay_larger_than_a_queue_reaches_a_new_peer_whole() {
    let limits = Limits { queue_bytes: 2_048, ..Limits::default() };
    let mut net = Net::with_limits(&[limits, limits]);
    net.cut(0, 1);
    for at in 0..100 {
        net.set(0, &format!("device/n{at}"), "reach.x", at);
    }
    net.link(0, 1);
    net.settle();
    assert_eq!(net.nodes[1].overlay().len(), 100);
    let overflowed = |node: &mesh_proto::mesh::Mesh| node.counters().get(Counter::QueuesOverflowed);
    assert_eq!(net.nodes.iter().map(overflowed).sum::<u64>(), 0);
}
