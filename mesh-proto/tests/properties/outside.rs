//! Who stands outside: a node that was removed, and boards that run under one key.

use std::collections::BTreeSet;

use mesh_proto::{
    counters::Counter,
    kinds::Author,
    mesh::{Event, Input, Mesh, Op},
    overlay::Run,
    roster::Body,
    session::{LinkId, Transport},
    wire::{ByeReason, Hello, Message, Process},
};

use crate::harness::*;

const FIRST: Process = Process { started_ms: START_MS - 9_000, number: 1 };
const SECOND: Process = Process { started_ms: START_MS - 4_000, number: 2 };

/// A board of node 2 dials the machine and introduces itself; answers with the link and what it is told.
fn dials(mesh: &mut Mesh, ms: u64, link: u64, process: Process, incarnation: u64) -> (LinkId, Vec<Message>) {
    let link = LinkId(link);
    mesh.handle_input(
        now_at(ms),
        Input::LinkUp { link, peer: node_id(2), dialed: false, transport: Transport::Quic },
    );
    let Message::Hello(hello) = hello(mesh.roster().household(), 2) else { unreachable!() };
    let run = Run { incarnation, generation: 5 };
    say(mesh, ms, link, &[Message::Process(process), Message::Hello(Hello { run, ..hello })]);
    (link, sent(mesh, link))
}

fn is_told(said: &[Message], reason: ByeReason) -> bool {
    said.last() == Some(&Message::Bye(reason))
}

#[test]
fn of_two_boards_with_one_key_one_is_turned_away_by_name_and_the_other_stays() {
    let mut mesh = machine(&household(2), 1, 1);
    let (mut now, mut link) = (0, 10);
    let mut told = Vec::new();
    // The second has the newer incarnation, so that its link stays at first; it is alive.
    let (copy, _) = dials(&mut mesh, now, link, SECOND, 9);
    for _ in 0..6 {
        (now, link) = (now + 300, link + 1);
        say(&mut mesh, now - 100, copy, &[Message::Restoring(false)]);
        let (_, said) = dials(&mut mesh, now, link, FIRST, 3);
        told.push(said.last().cloned());
    }
    assert!(is_told(&sent(&mut mesh, copy), ByeReason::Copied), "the one that started later gives way");
    assert!(told.contains(&Some(Message::Bye(ByeReason::Replaced))), "{told:?}");
    assert_eq!(mesh.copied(), [node_id(2)]);
    // Those of one board stand side by side until it answers over one.
    let live = |mesh: &Mesh| -> BTreeSet<_> {
        mesh.links().filter(|(_, link)| link.is_live()).map(|(_, l)| l.process.map(|p| p.number)).collect()
    };
    assert_eq!(live(&mesh), BTreeSet::from([Some(FIRST.number)]));
    let is_named =
        |event| matches!(event, Event::Copied { link, node } if link == copy && node == node_id(2));
    assert!(core::iter::from_fn(|| mesh.poll_event()).any(is_named));
    // It comes back with an even newer incarnation, and takes nothing from the one that stays.
    let (_, said) = dials(&mut mesh, now + 1_000, link + 1, SECOND, 50);
    assert!(is_told(&said, ByeReason::Copied), "{said:?}");
    assert_eq!(live(&mesh), BTreeSet::from([Some(FIRST.number)]));
    assert_eq!(mesh.counters().get(Counter::BeforeHello), 0);
}

#[test]
fn a_board_that_is_turned_away_hands_out_what_nobody_else_has_and_keeps_away() {
    let mut mesh = machine(&household(2), 1, 1);
    let link = introduce(&mut mesh, 2);
    mesh.write(now_at(1), Author::Client, vec![Op::Set(key("note/mine", "x"), 1.into())]).unwrap();
    // The store answers.
    let mut lost = Vec::new();
    let mut drain = |mesh: &mut Mesh| {
        while let Some(event) = mesh.poll_event() {
            match event {
                Event::Persist { batch, .. } => mesh.handle_input(now_at(2), Input::Persisted(batch)),
                Event::LostAndFound { lost: items, number } => {
                    lost.extend(items.into_iter().map(|item| item.key));
                    mesh.handle_input(now_at(2), Input::LostSaved(number));
                }
                _ => {}
            }
        }
    };
    drain(&mut mesh);
    say(&mut mesh, 3, link, &[Message::Bye(ByeReason::Copied)]);
    assert!(mesh.is_turned_away());
    drain(&mut mesh);
    // For a while it speaks to nobody, then it asks again, and hands nothing out twice.
    let again = LinkId(20);
    mesh.handle_input(
        now_at(5_000),
        Input::LinkUp { link: again, peer: node_id(2), dialed: true, transport: Transport::Quic },
    );
    assert_eq!(sent(&mut mesh, again), [Message::Bye(ByeReason::Leaving)]);
    let later = LinkId(21);
    mesh.handle_input(
        now_at(61_000),
        Input::LinkUp { link: later, peer: node_id(2), dialed: true, transport: Transport::Quic },
    );
    assert!(matches!(sent(&mut mesh, later).as_slice(), [Message::Process(_), Message::Hello(_)]));
    say(&mut mesh, 61_000, later, &[Message::Bye(ByeReason::Copied)]);
    drain(&mut mesh);
    assert_eq!(lost, [key("note/mine", "x")]);
}

#[test]
fn a_removed_node_tells_whoever_has_not_heard() {
    let mut mesh = machine(&household(3), 2, 1);
    let (informed, other) = (introduce(&mut mesh, 1), introduce(&mut mesh, 3));
    let mut roster = copy(mesh.roster());
    let body = roster.removal_of(node_id(2));
    assert!(matches!(body, Body::Revoke { honour: None, .. }), "it has said nothing yet: {body:?}");
    roster.issue(&signing(1), body).unwrap();
    let proof = roster.proof_of_removal(&node_id(2));
    say(&mut mesh, 1, informed, &[Message::Roster(proof), Message::Bye(ByeReason::Revoked)]);
    assert_eq!(mesh.roster().revoked_by(&node_id(2)), Some(node_id(1)));
    assert!(sent(&mut mesh, other).iter().any(|message| matches!(message, Message::Roster(_))));
}
