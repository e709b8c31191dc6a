//! A member of ill will: well-formed frames that no honest node sends. They may waste a little
//! work; they take nothing from others that outlasts the link.

use mesh_proto::{
    Hlc, NodeId,
    counters::Counter,
    mesh::{Event, Input, Mesh},
    overlay::{OverlayEntry, OverlayItem, Run},
    record,
    roster::{Body, NodeName, Roles},
    session::{LinkId, Transport},
    vector::{MAX_SEQ, Vector},
    wire::{ByeReason, Digest, Message, Report},
};

use crate::{harness::*, hostile::still_works};

/// A machine of three and its link to the second, whose words are the test's.
fn linked() -> (Mesh, LinkId) {
    let mut mesh = machine(&household(3), 1, 1);
    let link = introduce(&mut mesh, 2);
    while mesh.poll_event().is_some() {}
    (mesh, link)
}

fn me() -> u64 {
    node_id(1).short().0
}

fn third() -> u64 {
    node_id(3).short().0
}

/// Makes the machine ask for the registers of differing leaves.
fn ask_for_tree(mesh: &mut Mesh, link: LinkId) {
    let vector = mesh.commits().durable().hash();
    say(mesh, 1, link, &[Message::TreeRoot { vector, root: 1 }]);
    while mesh.poll_transmit(link).is_some() {}
}

#[test]
fn registers_of_a_tree_are_taken_only_where_asked_for() {
    let (mut mesh, link) = linked();
    let theirs = item(key("note/a", "x"), START_MS, dot(9, 1, 1), bytes(1));
    say(&mut mesh, 1, link, &[Message::TreeItems(vec![theirs.clone()])]);
    assert!(mesh.object(&object("note/a")).is_none());
    assert_eq!(mesh.counters().get(Counter::Unasked), 1);
    ask_for_tree(&mut mesh, link);
    say(&mut mesh, 2, link, &[Message::TreeItems(vec![theirs])]);
    assert!(mesh.object(&object("note/a")).is_some());
}

#[test]
fn the_last_number_does_not_end_the_writes_of_its_origin() {
    for seq in [MAX_SEQ, u64::MAX] {
        let (mut mesh, link) = linked();
        ask_for_tree(&mut mesh, link);
        let theirs = item(key("note/a", "x"), START_MS, dot(me(), 1, seq), bytes(1));
        say(&mut mesh, 2, link, &[Message::TreeItems(vec![theirs])]);
        still_works(&mut mesh, 3);
        assert!(mesh.object(&object("note/mine")).is_some());
    }
}

#[test]
fn a_repaired_write_passes_the_same_gate_as_any_other() {
    let (mut mesh, link) = linked();
    ask_for_tree(&mut mesh, link);
    let nameless = item(key("note/zero", "x"), START_MS, dot(9, 1, 0), bytes(1));
    let early = item(key("note/early", "x"), START_MS + 9_000, dot(9, 1, 1), bytes(1));
    say(&mut mesh, 2, link, &[Message::TreeItems(vec![nameless, early])]);
    let replica = mesh.replica();
    assert!(replica.live_dots().all(|(_, dot)| replica.applied().contains(dot)));
    assert!(mesh.object(&object("note/early")).is_none());
    mesh.handle_timeout(now_at(4_500));
    assert!(mesh.object(&object("note/early")).is_some(), "it was never released");
}

/// What could end the writes of the third node: its last generation as a dot, a range or a floor.
fn claims() -> Vec<Vec<Message>> {
    let last = |generation| item(key("note/x", "x"), START_MS, dot(third(), generation, 1), bytes(1));
    let mut covering = last(1);
    covering.entry.dot = dot(9, 1, 1);
    covering.covers = vec![dot(third(), u32::MAX, 1)];
    let (mut range, mut floor, mut ask) = (Vector::default(), Vector::default(), Vector::default());
    range.insert_range(origin(third(), u32::MAX), 1, 5);
    floor.raise_floor(node_id(3).short(), u32::MAX);
    ask.insert(dot(9, 1, 1));
    let answer = |vector: &Vector| {
        let heads = Message::Heads(ask.to_wire());
        vec![heads, Message::Final { session: 1, pages: 0, vector: vector.to_wire() }]
    };
    vec![
        vec![Message::Push(vec![last(u32::MAX)])],
        vec![Message::Push(vec![covering])],
        vec![Message::Page { session: 9, index: 1, items: vec![last(u32::MAX)] }],
        answer(&range),
        answer(&floor),
    ]
}

#[test]
fn nobody_uses_up_the_generations_of_another() {
    for (number, claim) in claims().into_iter().enumerate() {
        let (mut mesh, link) = linked();
        claim.into_iter().for_each(|message| say(&mut mesh, 1, link, &[message]));
        let write = item(key("note/hers", "x"), START_MS, dot(third(), 1, 1), bytes(1));
        let run = Run { incarnation: 1, generation: 1 };
        let writer = node_id(3).short();
        let entry = OverlayEntry { stamp: Hlc::from_ms(START_MS), writer, run, value: bytes(1) };
        let said = OverlayItem { key: key("device/hers", "desired"), entry };
        say(&mut mesh, 2, link, &[Message::Push(vec![write]), Message::Overlay(vec![said])]);
        assert!(mesh.object(&object("note/hers")).is_some(), "claim {number}: her writes count for nothing");
        assert!(mesh.object(&object("device/hers")).is_some(), "claim {number}: her overlay is over");
        assert!(mesh.replica().applied().highest_generation(writer) <= 1, "claim {number}");
    }
}

#[test]
fn nobody_uses_up_the_generations_of_this_node() {
    let mut known = Vector::default();
    known.insert_range(origin(me(), u32::MAX), 1, 5);
    let mut floor = Vector::default();
    floor.raise_floor(node_id(1).short(), u32::MAX);
    for claim in [known, floor] {
        let (mut mesh, link) = linked();
        say(&mut mesh, 1, link, &[Message::Heads(claim.to_wire())]);
        still_works(&mut mesh, 2);
        assert!(mesh.object(&object("note/mine")).is_some());
        assert!(mesh.run().generation < u32::MAX / 2);
    }
}

#[test]
fn a_generation_far_ahead_that_its_node_names_itself_is_believed() {
    let (mut mesh, link) = linked();
    let far = u32::MAX - 100;
    let write = item(key("note/hers", "x"), START_MS, dot(third(), far, 1), bytes(1));
    say(&mut mesh, 1, link, &[Message::Push(vec![write.clone()])]);
    assert!(mesh.object(&object("note/hers")).is_none());
    let other = LinkId(3);
    mesh.handle_input(
        now_at(2),
        Input::LinkUp { link: other, peer: node_id(3), dialed: false, transport: Transport::Quic },
    );
    let Message::Hello(mut hello) = hello(mesh.roster().household(), 3) else { unreachable!() };
    hello.run.generation = far;
    say(&mut mesh, 2, other, &[Message::Hello(hello)]);
    say(&mut mesh, 3, link, &[Message::Push(vec![write])]);
    assert!(mesh.object(&object("note/hers")).is_some());
}

#[test]
fn a_node_that_was_made_to_leap_says_so_and_is_believed() {
    let (mut mesh, link, other) = linked_twice();
    let mut claim = Vector::default();
    claim.insert_range(origin(me(), u32::MAX / 2), 1, 5);
    say(&mut mesh, 1, link, &[Message::Heads(claim.to_wire())]);
    still_works(&mut mesh, 2);
    let run = mesh.run();
    assert!(run.generation > u32::MAX / 2);
    let says = |m: &Message| if let Message::Hello(hello) = m { hello.run == run } else { false };
    assert!(sent(&mut mesh, other).iter().any(says));

    let far = u32::MAX - 100;
    let Message::Hello(mut hello) = hello(mesh.roster().household(), 3) else { unreachable!() };
    hello.run.generation = far;
    say(&mut mesh, 3, other, &[Message::Hello(hello)]);
    let write = item(key("note/hers", "x"), START_MS, dot(third(), far, 1), bytes(1));
    say(&mut mesh, 4, link, &[Message::Push(vec![write])]);
    assert!(mesh.object(&object("note/hers")).is_some());
}

#[test]
fn a_store_that_accounts_for_all_of_this_generation_opens_the_next() {
    let mut ranges = mesh_proto::vector::Ranges::default();
    ranges.insert(1, MAX_SEQ);
    for record in [record::floor(node_id(1).short(), 7), record::covered(origin(me(), 1), &ranges)] {
        let mut store = Store::default();
        store.0.extend([record]);
        let mut mesh = Mesh::new(boot(&household(1), 1, 1, false), now_at(0), store.load());
        still_works(&mut mesh, 1);
        assert!(mesh.object(&object("note/mine")).is_some(), "acknowledged, and gone");
        assert!(
            core::iter::from_fn(|| mesh.poll_event()).all(|event| !matches!(event, Event::PersistRun(..)))
        );
    }
}

fn publish(mesh: &mut Mesh, ms: u64, body: Body) {
    let statement = mesh.sign(body).unwrap();
    mesh.publish(now_at(ms), &statement).unwrap();
}

#[test]
fn a_revoked_node_gets_no_more_of_an_answer() {
    let (mut mesh, link) = linked();
    let large = Some(mesh_proto::Value::Bytes(vec![0; 3_800].into()).encode().unwrap());
    let items =
        (1..=60).map(|seq| item(key(&format!("note/n{seq}"), "x"), START_MS, dot(9, 1, seq), large.clone()));
    say(&mut mesh, 1, link, &[Message::Push(items.collect())]);
    sent(&mut mesh, link);
    let have = Vector::default().to_wire();
    say(&mut mesh, 2, link, &[Message::Want { session: 1, have }]);
    publish(&mut mesh, 3, Body::Revoke { node: node_id(2), honour: None });
    let heard = sent(&mut mesh, link);
    let [Message::Roster(proof), Message::Bye(ByeReason::Revoked)] = heard.as_slice() else {
        panic!("{heard:?}")
    };
    // It can see for itself by whom it was removed.
    let mut theirs = household(2);
    proof.iter().for_each(|statement| drop(theirs.insert(statement)));
    assert_eq!(theirs.revoked_by(&node_id(2)), Some(node_id(1)));
}

/// A machine with two links, and what it says over the second from now on.
fn linked_twice() -> (Mesh, LinkId, LinkId) {
    let (mut mesh, link) = linked();
    let other = introduce(&mut mesh, 3);
    while mesh.poll_event().is_some() {}
    (mesh, link, other)
}

fn has_roster_event(mesh: &mut Mesh) -> bool {
    core::iter::from_fn(|| mesh.poll_event()).any(|event| matches!(event, Event::RosterChanged))
}

#[test]
fn what_a_refused_node_proves_of_others_counts() {
    let (mut mesh, _, other) = linked_twice();
    let mut roster = copy(mesh.roster());
    let revoke = roster.issue(&signing(1), Body::Revoke { node: node_id(2), honour: None }).unwrap();
    let stranger = LinkId(9);
    mesh.handle_input(
        now_at(2),
        Input::LinkUp { link: stranger, peer: node_id(9), dialed: false, transport: Transport::Quic },
    );
    let Message::Hello(mut hello) = hello(roster.household(), 9) else { unreachable!() };
    hello.proof = vec![revoke.bytes().to_vec()];
    say(&mut mesh, 2, stranger, &[Message::Hello(hello)]);
    assert!(!mesh.roster().is_admitted(&node_id(2)));
    assert!(mesh.links().all(|(_, link)| link.node != node_id(2) || !link.is_live()), "it stays linked");
    assert!(sent(&mut mesh, other).contains(&Message::Roster(vec![revoke.bytes().to_vec()])));
    assert!(has_roster_event(&mut mesh), "the statement is not saved");
}

#[test]
fn an_admission_under_a_name_that_is_taken_is_saved_and_passed_on_with_what_waited_for_it() {
    let (mut mesh, link, other) = linked_twice();
    let mut roster = copy(mesh.roster());
    let mut twin = *node_id(3).as_bytes();
    twin[31] ^= 1;
    let body = Body::Admit {
        node: NodeId::from_bytes(twin),
        roles: Roles::MEMBER,
        name: NodeName::new("twin").unwrap(),
        token: None,
    };
    let (seq, prev) = roster.last_of(&node_id(1)).unwrap();
    let sign = |seq, prev, body| {
        mesh_proto::roster::Statement::sign(roster.household(), &signing(1), seq, prev, body).unwrap()
    };
    let admit = sign(seq + 1, prev, body);
    let revoke = sign(seq + 2, admit.hash(), Body::Revoke { node: node_id(2), honour: None });
    let _ = roster.insert(admit.bytes());
    roster.insert(revoke.bytes()).unwrap();
    say(&mut mesh, 1, link, &[Message::Roster(vec![revoke.bytes().to_vec()])]);
    assert!(mesh.roster().is_admitted(&node_id(2)));
    while mesh.poll_event().is_some() {}
    say(&mut mesh, 2, link, &[Message::Roster(vec![admit.bytes().to_vec()])]);
    assert_eq!(mesh.roster().hash(), roster.hash());
    assert!(mesh.links().all(|(_, link)| link.node != node_id(2) || !link.is_live()), "it stays linked");
    let both = vec![admit.bytes().to_vec(), revoke.bytes().to_vec()];
    assert!(sent(&mut mesh, other).contains(&Message::Roster(both)));
    assert!(has_roster_event(&mut mesh), "the statements are not saved");
}

#[test]
fn a_peer_that_asks_again_and_again_has_to_read_an_answer_for_each_search() {
    let (mut mesh, link) = linked();
    say(
        &mut mesh,
        1,
        link,
        &[Message::Push(vec![item(key("note/a", "x"), START_MS, dot(9, 1, 1), bytes(1))])],
    );
    sent(&mut mesh, link);
    let want = |session| Message::Want { session, have: Vector::default().to_wire() };
    for round in 0..20 {
        say(&mut mesh, 2, link, &(0..100).map(|at| want(round * 100 + at)).collect::<Vec<_>>());
    }
    let answers = sent(&mut mesh, link);
    assert_eq!(mesh.counters().get(Counter::Answers), 1);
    let sessions = answers
        .iter()
        .filter_map(|m| if let Message::Page { session, .. } = m { Some(*session) } else { None });
    assert_eq!(sessions.collect::<Vec<_>>(), [1_999]);
}

#[test]
fn of_digests_in_one_frame_the_last_counts() {
    let (mut mesh, link) = linked();
    let run = Run { incarnation: 1, generation: 1 };
    let entry =
        OverlayEntry { stamp: Hlc::from_ms(START_MS), writer: node_id(3).short(), run, value: bytes(1) };
    say(
        &mut mesh,
        1,
        link,
        &[Message::Overlay(vec![OverlayItem { key: key("device/a", "desired"), entry }])],
    );
    let digest = Message::Digest(Digest { vector: [1; 8], overlay: [2; 8], roster: [3; 8] });
    // Each but the last says that its overlay is another; the last says the same as here.
    let own = (1..20).find_map(|second| {
        mesh.handle_timeout(now_at(second * 1_000));
        let sent = sent(&mut mesh, link).into_iter();
        sent.filter_map(|m| if let Message::Digest(own) = m { Some(own) } else { None }).next_back()
    });
    let frame = [vec![digest.clone(); 8], vec![Message::Digest(own.unwrap())]].concat();
    say(&mut mesh, 20_001, link, &frame);
    // Said twice in a row it is true.
    let mut says_all = |ms| {
        say(&mut mesh, ms, link, core::slice::from_ref(&digest));
        sent(&mut mesh, link).iter().any(|m| matches!(m, Message::Overlay(_)))
    };
    assert!(!says_all(20_002), "another than the last was looked into");
    assert!(says_all(20_003));
}

/// A vector as large as a frame may carry.
fn wide() -> Vector {
    let mut vector = Vector::default();
    (0..4_000).for_each(|at| vector.insert_range(origin(9, 1), at * 3 + 1, at * 3 + 1));
    vector
}

#[test]
fn reports_for_a_peer_that_does_not_read_do_not_pile_up() {
    let (mut mesh, link, silent) = linked_twice();
    let run = Run { incarnation: 1, generation: 1 };
    for number in 1..=200 {
        let report = Report { node: node_id(2).short(), run, number, durable: wide().to_wire() };
        say(&mut mesh, 1, link, &[Message::Reports(vec![report])]);
    }
    let waiting = |mesh: &Mesh| mesh.links().find(|(id, _)| *id == silent).unwrap().1.outbox.control_bytes();
    assert!(waiting(&mesh) < 64 * 1024, "{} bytes wait", waiting(&mesh));
    let told: Vec<u32> = sent(&mut mesh, silent)
        .into_iter()
        .filter_map(|message| if let Message::Reports(reports) = message { Some(reports) } else { None })
        .flatten()
        .map(|report| report.number)
        .collect();
    assert_eq!(told, [200]);
}

#[test]
fn a_peer_that_makes_others_queue_bytes_and_does_not_read_loses_its_link() {
    let (mut mesh, link) = linked();
    // Each page is acknowledged.
    for index in 1..=30_000 {
        say(&mut mesh, 1, link, &[Message::Page { session: 7, index, items: Vec::new() }]);
    }
    assert!(mesh.links().all(|(id, open)| id != link || !open.is_live()));
    assert_eq!(mesh.counters().get(Counter::Flooding), 1);
}

#[test]
fn the_registers_of_a_tree_wait_outside_of_the_queue() {
    let (mut mesh, link) = linked();
    let large = Some(mesh_proto::Value::Bytes(vec![0; 3_800].into()).encode().unwrap());
    let items = |from: u64| {
        let numbers = from..from + 50;
        let note = |seq| item(key(&format!("note/n{seq}"), "x"), START_MS, dot(9, 1, seq), large.clone());
        Message::Push(numbers.map(note).collect())
    };
    (0..8).for_each(|part| say(&mut mesh, 1, link, &[items(part * 50 + 1)]));
    sent(&mut mesh, link);
    (0..3).for_each(|_| say(&mut mesh, 2, link, &[Message::TreeLeaves(vec![7; 256])]));
    let waiting = mesh.links().map(|(_, link)| link.outbox.control_bytes()).max().unwrap();
    assert!(waiting < 64 * 1024, "{waiting} bytes wait");
    let sent = sent(&mut mesh, link);
    let count = |m: &Message| if let Message::TreeItems(items) = m { items.len() } else { 0 };
    assert_eq!(sent.iter().map(count).sum::<usize>(), 400);
}

#[test]
fn an_exchange_that_brings_more_than_can_be_held_back_accounts_for_nothing() {
    let (mut mesh, link) = linked();
    let most = u64::try_from(mesh_proto::limits::Limits::default().held_back).unwrap();
    let far =
        |seq| item(key(&format!("note/n{seq}"), "x"), START_MS + 1_000_000, dot(third(), 1, seq), bytes(1));
    let mut known = Vector::default();
    known.insert_range(origin(third(), 1), 1, most + 5);
    say(&mut mesh, 1, link, &[Message::Heads(known.to_wire())]);
    let pages = (1..=most + 1).map(far).collect::<Vec<_>>();
    for (index, items) in (1..).zip(pages.chunks(1_000)) {
        say(&mut mesh, 1, link, &[Message::Page { session: 1, index, items: items.to_vec() }]);
    }
    say(&mut mesh, 1, link, &[Message::Final { session: 1, pages: 11, vector: known.to_wire() }]);
    assert_eq!(mesh.replica().applied().head(origin(third(), 1)), most, "what was dropped is accounted for");
    let asked = |mesh: &mut Mesh| sent(mesh, link).iter().any(|m| matches!(m, Message::Want { .. }));
    assert!(asked(&mut mesh));
    say(&mut mesh, 2, link, &[Message::Heads(known.to_wire())]);
    assert!(asked(&mut mesh), "it does not try again");
}

#[test]
fn pages_for_a_store_that_does_not_answer_owe_a_bounded_number_of_acknowledgements() {
    let (mut mesh, link) = linked();
    let items = |from: u64| {
        (from..from + 500).map(|seq| item(key(&format!("note/n{seq}"), "x"), seq, dot(9, 1, seq), bytes(1)))
    };
    for index in 1..=12 {
        let items = items(u64::from(index) * 500).collect();
        say(&mut mesh, 1, link, &[Message::Page { session: 7, index, items }]);
    }
    for index in 13..=10_000 {
        say(&mut mesh, 1, link, &[Message::Page { session: 7, index, items: Vec::new() }]);
    }
    let owed = mesh.links().find(|(id, _)| *id == link).unwrap().1.owed_acks.len();
    assert_eq!(owed, 64);
}

#[test]
fn a_node_that_leaves_is_known_to_have_left_at_once() {
    let mut net = Net::new(3);
    net.run(2_000);
    let (gone, ms) = (net.nodes[0].id().short(), net.ms);
    net.nodes[0].leave(now_at(ms));
    net.settle();
    for events in &net.events[1..] {
        assert!(
            events.iter().any(|event| matches!(event, Event::NodeDown(node, _) if *node == gone)),
            "{events:?}"
        );
    }
}
