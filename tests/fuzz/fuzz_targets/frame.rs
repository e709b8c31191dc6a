//! Frames and packets of an admitted peer, into a machine with a live link. Nothing may panic, and the machine goes on.
#![no_main]

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use mesh_proto::{
    Hlc, NodeId,
    mesh::{Boot, Event, Input, Loader, Mesh},
    overlay::Run,
    planted::Plant,
    roster::{Body, NodeName, Roles, Roster},
    session::{LinkId, Transport},
    time::{Now, TimeOfDay},
    wire::{self, Hello, MAX_FRAME_BYTES, Message},
};

const LINK: LinkId = LinkId(1);
const RUN: Run = Run { incarnation: 1, generation: 1 };
const START_MS: u64 = 1_700_000_000_000;

fn at(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: START_MS + ms }
}

fn key(node: u8) -> SigningKey {
    SigningKey::from_bytes(&[node; 32])
}

fn id(node: u8) -> NodeId {
    NodeId::from_bytes(key(node).verifying_key().to_bytes())
}

// Signed once: signatures would take most of the time of a run.
static ROSTER: LazyLock<Roster> = LazyLock::new(|| {
    let mut roster = Roster::found(&key(200), id(1), "node", None).unwrap();
    let name = NodeName::new("node").unwrap();
    let body = Body::Admit { node: id(2), roles: Roles::MEMBER, name, token: None };
    roster.issue(&key(1), body).unwrap();
    roster
});

fn machine() -> Mesh {
    let roster = ROSTER.clone();
    let household = roster.household();
    let boot = Boot {
        key: key(1),
        roster,
        run: RUN,
        ceiling: Hlc::ZERO,
        build_ms: 0,
        wall: mesh_proto::time::WallClock::Right,
        restored: None,
        seed: 1,
        software: "fuzz".into(),
        limits: mesh_proto::limits::Limits::default(),
        plant: Plant::default(),
    };
    let mut mesh = Mesh::new(boot, at(0), Loader::new(Plant::default()));
    mesh.handle_input(at(0), Input::LinkUp { link: LINK, peer: id(2), dialed: false, transport: Transport::Quic });
    let hello = Hello {
        protocol: wire::PROTOCOL,
        oldest: wire::OLDEST_PROTOCOL,
        household,
        node: id(2),
        run: RUN,
        time: TimeOfDay { ms: START_MS, stratum: 1, word: 0 },
        proof: Vec::new(),
        software: "fuzz".into(),
    };
    mesh.handle_input(at(0), Input::Frame(LINK, wire::encode(&[Message::Hello(hello)])));
    mesh
}

fuzz_target!(|data: &[u8]| {
    if let Ok((messages, _)) = wire::decode(data) {
        assert_eq!(wire::decode(&wire::encode(&messages)).unwrap().0, messages);
    }
    let mut mesh = machine();
    // The first byte says where the rest is cut: a frame, then a packet, then a frame again.
    let Some((cut, rest)) = data.split_first() else { return };
    let (frame, packet) = rest.split_at(rest.len() * usize::from(*cut) / 256);
    for (ms, input) in [
        (1, Input::Frame(LINK, frame.to_vec())),
        (2, Input::Packet(LINK, packet.to_vec())),
        (3, Input::Frame(LINK, packet.to_vec())),
    ] {
        mesh.handle_input(at(ms), input);
        while let Some(event) = mesh.poll_event() {
            match event {
                Event::Persist { batch, .. } => mesh.handle_input(at(ms), Input::Persisted(batch)),
                Event::PersistRun(run, _) => mesh.handle_input(at(ms), Input::RunPersisted(run)),
                _ => {}
            }
        }
        while let Some(sent) = mesh.poll_transmit(LINK) {
            let (mesh_proto::mesh::Transmit::Frame(bytes) | mesh_proto::mesh::Transmit::Packet(bytes)) = sent;
            assert!(bytes.len() <= MAX_FRAME_BYTES);
        }
        mesh.handle_timeout(at(ms * 10_000));
    }
});
