//! Nodes without a link between them: what crosses a node in the middle, and what it must refuse.

use mesh_proto::{
    ShortId,
    counters::Counter,
    mesh::{Input, Mesh, Transmit},
    routing::{LIVENESS, MAX_HOPS, Reach, Routed},
    session::LinkId,
    wire::{self, Message, ROUTED_PACKET},
};

use crate::harness::*;

/// Machines of which each is linked with the next.
fn line(count: usize) -> Net {
    let mut net = Net::new(count);
    for a in 0..count {
        (a + 2..count).for_each(|b| net.cut(a, b));
    }
    net.settle();
    net.run(4_000);
    net
}

fn short(node: u8) -> ShortId {
    node_id(node).short()
}

fn sees(net: &Net, node: usize, other: u8) -> bool {
    net.nodes[node].alive().iter().any(|(name, _)| *name == short(other))
}

#[test]
fn five_in_a_line_all_see_each_other_by_ways_of_up_to_four_links() {
    let mut net = line(5);
    net.run(30_000);
    for node in 0..5 {
        for other in (1..=5u8).filter(|other| usize::from(*other) != node + 1) {
            assert!(sees(&net, node, other), "{node} misses {other}");
            let hops = (usize::from(other) - 1).abs_diff(node);
            let way = net.nodes[node].way_to(short(other)).map(|way| usize::from(way.hops));
            assert_eq!(way, (hops > 1).then_some(hops), "from {node} to {other}");
        }
    }
    assert!(net.nodes[2].counters().get(Counter::Relayed) > 100);
    let offences = net.nodes.iter().flat_map(|node| node.counters().iter());
    let offences: Vec<_> =
        offences.filter(|(name, count)| name.starts_with("offence") && *count > 0).collect();
    assert!(offences.is_empty(), "{offences:?}");
}

#[test]
fn what_a_node_fetches_is_soon_behind_it_also_when_it_fetches_again_at_once() {
    for pause in [10, 100, 500, 900, 1_100] {
        let mut net = line(3);
        for name in ["note/first", "note/second"] {
            // What is written without a link comes in pages once there is one.
            net.cut(1, 2);
            net.set(2, name, "text", 1);
            net.link(1, 2);
            net.settle();
            assert!(net.nodes[1].object(&object(name)).is_some(), "the middle has it");
            net.run(pause);
        }
        net.run(1_200);
        for name in ["note/first", "note/second"] {
            assert!(
                net.nodes[0].object(&object(name)).is_some(),
                "{name}, {pause} ms: not by the next digest"
            );
        }
    }
}

#[test]
fn the_death_of_the_middle_is_told_with_who_lay_behind_it_and_the_overlay_ends() {
    for phase in 0..10 {
        let mut net = line(3);
        net.run(phase * 130);
        net.set(2, "device/lamp", "reported", 7);
        assert!(net.nodes[0].object(&object("device/lamp")).is_some());
        // The links stand: nobody closes them for a node whose power failed.
        net.dead = Some(1);
        net.run(3_000);
        assert!(!sees(&net, 0, 2) && !sees(&net, 0, 3), "phase {phase}");
        assert!(net.nodes[0].is_cut_off(short(3)) && !net.nodes[0].is_cut_off(short(2)));
        assert_eq!(net.nodes[0].way_to(short(3)), None);
        assert!(net.nodes[0].overlay().is_empty(), "what is behind it is as dead");
        net.dead = None;
        net.run(25_000);
        assert!(sees(&net, 0, 2) && sees(&net, 0, 3) && !net.nodes[0].is_cut_off(short(3)));
    }
}

#[test]
fn those_who_relied_on_one_relay_do_not_take_each_other_for_the_way() {
    // The first two and the last two are linked with each other and with the one in the middle.
    let mut net = Net::new(5);
    [(0, 3), (0, 4), (1, 3), (1, 4)].iter().for_each(|(a, b)| net.cut(*a, *b));
    net.settle();
    for phase in 0..10 {
        net.run(4_000 + phase * 130);
        net.dead = Some(2);
        net.run(3_000);
        for (node, far) in [(0, [4, 5]), (1, [4, 5]), (3, [1, 2]), (4, [1, 2])] {
            assert!(
                !net.nodes[node].is_cut_off(short(3)) && !sees(&net, node, 3),
                "phase {phase}: it is dead"
            );
            for far in far {
                assert!(
                    !sees(&net, node, far) && net.nodes[node].is_cut_off(short(far)),
                    "{phase}: {node} {far}"
                );
            }
        }
        assert!(sees(&net, 0, 2) && sees(&net, 4, 4));
        net.dead = None;
        net.run(25_000);
        assert!((1..=5).all(|other| other == 1 || sees(&net, 0, other)), "phase {phase}: it is back");
    }
}

#[test]
fn what_a_second_relay_knows_counts_when_the_first_dies_with_who_lay_behind_it() {
    // The second and the third join the first with the fourth.
    let mut net = Net::new(4);
    [(0, 3), (1, 2)].iter().for_each(|(a, b)| net.cut(*a, *b));
    net.settle();
    net.run(10_000);
    net.dead = Some(3);
    net.cut(0, 1);
    net.cut(1, 3);
    net.run(6_000);
    assert!(sees(&net, 0, 3) && !sees(&net, 0, 4));
    assert!(!net.nodes[0].is_cut_off(short(4)), "the third is there, and knows");
}

#[test]
fn what_the_middle_fetched_goes_on_at_once() {
    let mut net = line(3);
    net.cut(0, 1);
    net.set(0, "note/milk", "text", 1);
    net.link(0, 1);
    net.settle();
    assert!(net.nodes[2].object(&object("note/milk")).is_none(), "nobody pushed it");
    net.run(2_000);
    assert!(net.nodes[2].object(&object("note/milk")).is_some());
}

#[test]
fn a_node_that_dies_behind_a_living_middle_is_dead_and_not_cut_off() {
    let mut net = line(3);
    net.dead = Some(2);
    net.run(3_500);
    assert!(sees(&net, 0, 2) && !sees(&net, 0, 3));
    assert!(!net.nodes[0].is_cut_off(short(3)), "the middle knows");
}

/// A machine of five, the first, linked with the second and the third, whose words are the test's.
/// The second says that it reaches the fourth, the third says that it reaches the fifth.
fn middle() -> (Mesh, LinkId, LinkId) {
    let mut mesh = machine(&household(5), 1, 1);
    let (two, three) = (introduce(&mut mesh, 2), introduce(&mut mesh, 3));
    say(&mut mesh, 1, two, &[Message::Neighbours(vec![Reach { node: short(4), hops: 1 }])]);
    say(&mut mesh, 1, three, &[Message::Neighbours(vec![Reach { node: short(5), hops: 1 }])]);
    drain(&mut mesh, two);
    drain(&mut mesh, three);
    (mesh, two, three)
}

fn drain(mesh: &mut Mesh, link: LinkId) {
    while mesh.poll_transmit(link).is_some() {}
}

fn envelope(from: u8, to: u8, number: u32) -> Routed {
    Routed { from: short(from), to: short(to), number, left: MAX_HOPS - 1, kind: 9, body: vec![1, 2, 3] }
}

fn hand_over(mesh: &mut Mesh, ms: u64, link: LinkId, routed: Routed) {
    let frame = wire::encode(&[Message::Routed(routed)]);
    let packet = [&[ROUTED_PACKET], frame.as_slice()].concat();
    mesh.handle_input(now_at(ms), Input::Packet(link, packet));
}

/// The envelopes that a machine hands on over a link, as packets and as frames.
fn handed_on(mesh: &mut Mesh, link: LinkId) -> (Vec<Routed>, Vec<Routed>) {
    let (mut packets, mut frames) = (Vec::new(), Vec::new());
    while let Some(sent) = mesh.poll_transmit(link) {
        let (bytes, found) = match &sent {
            Transmit::Packet(packet) if packet[0] == ROUTED_PACKET => (&packet[1..], &mut packets),
            Transmit::Packet(_) => continue,
            Transmit::Frame(frame) => (frame.as_slice(), &mut frames),
        };
        found.extend(wire::decode(bytes).unwrap().0.into_iter().filter_map(|message| match message {
            Message::Routed(routed) if routed.kind == 9 => Some(routed),
            _ => None,
        }));
    }
    (packets, frames)
}

#[test]
fn an_envelope_goes_on_once_to_one_peer_as_it_came_and_one_step_nearer() {
    let (mut mesh, two, three) = middle();
    hand_over(&mut mesh, 2, two, envelope(4, 5, 1));
    hand_over(&mut mesh, 2, two, envelope(4, 5, 1));
    say(&mut mesh, 2, two, &[Message::Routed(envelope(2, 3, 2))]);
    assert_eq!(handed_on(&mut mesh, two), (vec![], vec![]));
    let near = |routed: Routed| Routed { left: MAX_HOPS - 2, ..routed };
    let expected = (vec![near(envelope(4, 5, 1))], vec![near(envelope(2, 3, 2))]);
    assert_eq!(handed_on(&mut mesh, three), expected);
    assert_eq!((count(&mesh, Counter::Relayed), count(&mesh, Counter::RelayRepeated)), (2, 1));
}

fn count(mesh: &Mesh, counter: Counter) -> u64 {
    mesh.counters().get(counter)
}

#[test]
fn what_may_not_be_relayed_is_counted_by_name_and_goes_nowhere() {
    let stranger = ShortId(77);
    let large = Routed { body: vec![0; 1_101], ..envelope(4, 5, 1) };
    let cases = [
        (Routed { from: stranger, ..envelope(4, 5, 1) }, Counter::RelayStranger),
        (Routed { to: stranger, ..envelope(4, 5, 1) }, Counter::RelayStranger),
        (large, Counter::RelayTooLarge),
        // The fifth is behind the third; the second never said that it reaches it.
        (envelope(5, 3, 1), Counter::RelayOriginUnknown),
        (envelope(1, 3, 1), Counter::RelayOriginUnknown),
        // No way back over the link on which it came.
        (envelope(2, 4, 1), Counter::RelayNoWay),
        (Routed { left: 0, ..envelope(4, 5, 1) }, Counter::RelayNoWay),
        (envelope(4, 1, 1), Counter::UnknownMessage),
        (Routed { kind: LIVENESS, ..envelope(4, 1, 1) }, Counter::BadRelayed),
    ];
    for (routed, counter) in cases {
        let (mut mesh, two, three) = middle();
        hand_over(&mut mesh, 2, two, routed.clone());
        assert_eq!(count(&mesh, counter), 1, "{routed:?}");
        assert_eq!(
            (handed_on(&mut mesh, two), handed_on(&mut mesh, three)),
            Default::default(),
            "{routed:?}"
        );
    }
}

#[test]
fn a_flood_is_cut_to_the_allowance_of_its_link_and_others_keep_theirs() {
    let (mut mesh, two, three) = middle();
    for number in 0..5_000 {
        hand_over(&mut mesh, 2, two, envelope(4, 5, number));
    }
    hand_over(&mut mesh, 2, three, envelope(5, 4, 1));
    assert_eq!(handed_on(&mut mesh, two).0.len(), 1, "the other way is free");
    assert!(count(&mesh, Counter::RelayFlood) > 3_900);
    let (packets, _) = handed_on(&mut mesh, three);
    assert!(packets.len() <= 64, "no more wait for a link than packets of its own would");
}

#[test]
fn of_a_linked_node_nobody_elses_word_is_taken() {
    let (mut mesh, two, _) = middle();
    say(&mut mesh, 1, two, &[Message::Neighbours(vec![Reach { node: short(3), hops: 1 }])]);
    hand_over(&mut mesh, 2, two, Routed { kind: LIVENESS, ..envelope(3, 1, 1) });
    assert_eq!((count(&mesh, Counter::RelayRepeated), count(&mesh, Counter::BadRelayed)), (1, 0));
}

#[test]
fn packets_for_relays_that_are_none_and_lies_about_reach_are_counted() {
    let (mut mesh, two, _) = middle();
    let frames = [vec![], vec![1, 2, 3], wire::encode(&[Message::Restoring(true)]), wire::encode(&[])];
    for frame in frames {
        mesh.handle_input(now_at(2), Input::Packet(two, [&[ROUTED_PACKET], frame.as_slice()].concat()));
    }
    assert_eq!(count(&mesh, Counter::BadPacket), 4);
    say(&mut mesh, 3, two, &[Message::Neighbours(vec![Reach { node: short(4), hops: 0 }])]);
    assert_eq!(count(&mesh, Counter::BadNeighbours), 1);
    assert!(mesh.way_to(short(4)).is_some(), "what it said before holds");
    say(&mut mesh, 4, two, &[Message::Neighbours(vec![])]);
    assert!(mesh.way_to(short(4)).is_none());
}

#[test]
fn a_peer_that_knows_no_relays_is_never_given_any() {
    let mut mesh = machine(&household(3), 1, 1);
    let two = introduce(&mut mesh, 2);
    mesh.handle_timeout(now_at(5_000));
    while let Some(sent) = mesh.poll_transmit(two) {
        if let Transmit::Packet(packet) = sent {
            assert_ne!(packet[0], ROUTED_PACKET);
        }
    }
    assert_eq!(mesh.way_to(short(3)), None);
}
