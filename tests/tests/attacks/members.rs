//! What strangers and members of the mesh make themselves: statements of membership, names of others, frames without an end.

use hearth_tests::{
    daemon::{PATIENCE, wait_until},
    hostile::peer::{Member, Stranger, WebSocket, within},
};
use mesh_proto::{
    HouseholdId, NodeId, Value as Stored,
    roster::{Body, NodeName, Roles, Statement},
    wire::{ByeReason, Digest, Message},
};
use node::{
    auth::{InviteToken, JoinError, Refusal, join},
    tls::identity::{ALPN_JOIN, ALPN_MESH},
};
use serde_json::json;

use super::bench::{Bench, Problem, asked};

// Close codes (node/src/transport/mod.rs).
const NOT_ADMITTED: u32 = 4;
const REVOKED: u32 = 5;
const OFFENCE: u32 = 6;
const OVERSIZED: u32 = 7;
const HOUSEHOLD: u32 = 9;

pub(crate) async fn attack(bench: &mut Bench) {
    invites(bench).await;
    strangers(bench).await;
    let token = bench.node.invite().await.unwrap();
    bench.secret(&token);
    let mut mallory = Stranger::new().join(&token).await;
    statements(bench, &mallory).await;
    others(bench, &mut mallory).await;
    removed(bench, &mallory).await;
}

/// Waits until the node has counted an offence.
async fn counted(bench: &Bench, name: &str, at_least: u64) {
    let what = format!("{name} reaches {at_least}");
    let seen =
        async || Ok(bench.node.status().await?["counters"][name].as_u64().is_some_and(|n| n >= at_least));
    wait_until(&what, PATIENCE, seen).await.unwrap();
}

/// The names of all nodes of the household.
async fn names(bench: &Bench) -> Vec<String> {
    let status = bench.node.status().await.unwrap();
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes.map(|node| format!("{} {}", node["name"].as_str().unwrap(), node["roles"])).collect()
}

/// An invite is what its maker made of it, for one key.
async fn invites(bench: &mut Bench) {
    let text = bench.node.invite().await.unwrap();
    bench.secret(&text);
    let own: InviteToken = text.parse().unwrap();
    let changed = |change: fn(&mut InviteToken)| {
        let mut token = own.clone();
        change(&mut token);
        token
    };
    let before = names(bench).await;
    let cases: [(&str, InviteToken, &str, Refusal); 6] = [
        ("an invite with the role of an admin", changed(|token| token.roles = 3), "eve", Refusal::BadProof),
        (
            "an invite with the role of the printed key",
            changed(|token| token.roles = 4),
            "eve",
            Refusal::BadProof,
        ),
        ("an invite under another id", changed(|token| token.id.0[0] ^= 1), "eve", Refusal::Unknown),
        (
            "an invite into another household",
            changed(|token| token.household = HouseholdId::from_bytes([7; 32])),
            "eve",
            Refusal::WrongHousehold,
        ),
        ("a node whose name nobody could read", own.clone(), "front\u{7}", Refusal::BadName),
        ("a node without a name", own.clone(), " ", Refusal::BadName),
    ];
    for (name, token, called, expected) in cases {
        match join(&token, &Stranger::new().identity, called).await {
            Err(JoinError::Refused(refusal)) => assert_eq!(refusal, expected, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        bench.passed(name).await;
    }
    assert_eq!(names(bench).await, before, "nobody came in");
    // Nothing of that used it up; the key that does is the only one.
    let (first, second) = (Stranger::new(), Stranger::new());
    join(&own, &first.identity, "late").await.unwrap();
    match join(&own, &second.identity, "late").await {
        Err(JoinError::Refused(Refusal::AlreadyUsed)) => {}
        other => panic!("{other:?}"),
    }
    bench.passed("an invite that another key has used").await;
}

/// Who is in no household has one word to say, of bounded length.
async fn strangers(bench: &mut Bench) {
    let (address, stranger) = (bench.node.address(), Stranger::new());
    let status = bench.node.status().await.unwrap();
    let household: HouseholdId = status["household"].as_str().unwrap().parse().unwrap();
    let front: NodeId = status["node"].as_str().unwrap().parse().unwrap();

    for alpn in [b"h3".as_slice(), b"hearth/0", b"http/1.1"] {
        let ended = within("a refusal", stranger.try_connect(address, alpn)).await;
        let ended = ended.err().map(|error| error.to_string()).unwrap_or_default();
        let name = format!("QUIC of the protocol {}", String::from_utf8_lossy(alpn));
        // No application protocol (RFC 7301, section 3.2).
        assert!(ended.contains("error 120"), "{name}: {ended}");
        bench.passed(&name).await;
    }
    for (name, alpn) in [("a mesh", ALPN_MESH), ("a joiners'", ALPN_JOIN)] {
        let mut wire = stranger.open(address, alpn).await;
        wire.bytes(&u32::MAX.to_be_bytes()).await;
        let end = within("the end of the connection", wire.connection.closed()).await.to_string();
        let expected =
            if alpn == ALPN_MESH { format!("code {OVERSIZED}") } else { "closed by peer: 0".to_owned() };
        assert!(end.contains(&expected), "{name}: {end}");
        bench.passed(&format!("{name} frame of four gigabytes before an introduction")).await;
    }
    let mut socket = stranger.open_websocket(address).await;
    // A binary message, masked, that announces a terabyte (RFC 6455, section 5.2).
    socket.bytes(&[&[0x82, 0xff], (1_u64 << 40).to_be_bytes().as_slice(), &[0; 4]].concat()).await;
    socket.closed(OVERSIZED).await;
    bench.passed("a message of a terabyte on the mesh's WebSocket").await;
    let mut socket: WebSocket = stranger.open_websocket(address).await;
    // Compressed, on which nobody agreed (RFC 7692, section 6).
    socket.bytes(&[&[0xc2, 0x85], [0; 4].as_slice(), b"hello"].concat()).await;
    socket.ended().await;
    bench.passed("a compressed message on the mesh's WebSocket").await;

    let digest = Digest { vector: [0; 8], overlay: [0; 8], roster: [0; 8] };
    let mut squatter = stranger.hello(household, Vec::new());
    squatter.node = front;
    let mut neighbour = stranger.hello(household, Vec::new());
    neighbour.household = HouseholdId::from_bytes([7; 32]);
    let cases = [
        ("a word before an introduction", Message::Digest(digest), ByeReason::Misbehaved, OFFENCE),
        ("the id of this node on another key", Message::Hello(squatter), ByeReason::Misbehaved, OFFENCE),
        ("a node of another household", Message::Hello(neighbour), ByeReason::WrongHousehold, HOUSEHOLD),
        (
            "an introduction that proves nothing",
            Message::Hello(stranger.hello(household, Vec::new())),
            ByeReason::NotAdmitted,
            NOT_ADMITTED,
        ),
    ];
    for (name, message, reason, code) in cases {
        let mut wire = stranger.open(address, ALPN_MESH).await;
        wire.say(&[message]).await;
        wire.ends(reason, code).await;
        bench.passed(name).await;
    }
}

/// Statements count when an admin of the household has signed them. Whoever is in and no admin makes nobody anything.
async fn statements(bench: &mut Bench, mallory: &Member) {
    let (address, before) = (bench.node.address(), names(bench).await);
    let accomplice = Stranger::new();
    let admit = |node: NodeId, household, key| {
        let name = NodeName::new("accomplice").unwrap();
        let body = Body::Admit { node, roles: Roles::MEMBER | Roles::ADMIN, name, token: None };
        Statement::sign(household, key, 0, [0; 32], body).unwrap().bytes().to_vec()
    };
    let household = mallory.roster.household();
    let key = &mallory.stranger.key;
    let for_another = admit(accomplice.identity.id(), household, key);
    let mut damaged = for_another.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let cases = [
        (
            "a statement that admits another, by a member",
            for_another.clone(),
            "offence_self_made_statement",
            1,
        ),
        (
            "a statement that makes its own signer an admin",
            admit(mallory.id(), household, key),
            "offence_self_made_statement",
            2,
        ),
        (
            "a statement that a stranger signed",
            admit(accomplice.identity.id(), household, &accomplice.key),
            "offence_self_made_statement",
            3,
        ),
        ("a statement under a signature that is wrong", damaged, "offence_bad_statement", 1),
        (
            "a statement of another household",
            admit(accomplice.identity.id(), HouseholdId::from_bytes([7; 32]), key),
            "offence_bad_statement",
            2,
        ),
    ];
    for (name, statement, offence, times) in cases {
        let mut wire = mallory.link(address).await;
        wire.say(&[Message::Roster(vec![statement])]).await;
        counted(bench, offence, times).await;
        bench.passed(name).await;
    }
    let mut proof: Vec<Vec<u8>> = mallory.roster.statements().map(<[u8]>::to_vec).collect();
    proof.push(for_another.clone());
    let mut wire = accomplice.open(address, ALPN_MESH).await;
    wire.say(&[Message::Hello(accomplice.hello(household, proof))]).await;
    wire.ends(ByeReason::NotAdmitted, NOT_ADMITTED).await;
    bench.passed("a stranger who shows a statement that a member made").await;

    // The same as an object is a note of somebody, and says nothing to the roster.
    let operator = bench.operator.clone();
    let bytes = data_encoding::BASE64.encode(&for_another);
    let body = json!({"set": {"statement": {"$bytes": bytes}, "roles": ["admin"]}});
    let reply = bench.exchange(&asked(&operator, "PATCH", "/api/v1/objects/statement/forged", Some(&body)));
    assert_eq!(reply.map(|reply| reply.status), Some(200), "objects of any other kind are free");
    bench.passed("a statement written as an object").await;
    assert_eq!(names(bench).await, before, "nobody is more than he was");
}

/// A member that writes in the name of others.
async fn others(bench: &mut Bench, mallory: &mut Member) {
    let front = bench.node.id().await.unwrap()[..16].to_owned();
    let (node, certificate) = (format!("node/{front}"), format!("certificate/{front}"));
    let before = bench.node.fields(&node).await.unwrap();
    let fields = [(&node, "version"), (&node, "addresses"), (&node, "closed.9"), (&certificate, "issued")];
    let mut wire = mallory.link(bench.node.address()).await;
    for (number, (object, field)) in (1..).zip(fields) {
        let item = mallory.write(object, field, text("forged"));
        wire.say(&[Message::Push(vec![item])]).await;
        counted(bench, "offence_forbidden_writer", number).await;
        bench.passed(&format!("`{field}` of another node, by a member")).await;
    }
    let after = bench.node.fields(&node).await.unwrap();
    for field in ["version", "addresses", "closed.9"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    // A name that is taken: the household goes by keys, and asks which of both is meant.
    let item = mallory.write(&format!("node/{}", mallory.id().short()), "name", text("front"));
    wire.say(&[Message::Push(vec![item])]).await;
    let taken = async || Ok(names(bench).await.iter().filter(|name| name.starts_with("front ")).count() == 2);
    wait_until("two nodes are called front", PATIENCE, taken).await.unwrap();
    let admin = bench.admin.clone();
    let removal = asked(&admin, "DELETE", "/api/v1/nodes/front", None);
    bench.http("a node that calls itself as another", &removal, Problem(409, "ambiguous-node")).await;
}

fn text(text: &str) -> Vec<u8> {
    Stored::from(text).encode().unwrap().to_vec()
}

/// Whoever was removed stays out, whatever it still holds.
async fn removed(bench: &mut Bench, mallory: &Member) {
    let admin = bench.node.client();
    let gone = admin.send("DELETE", &format!("/api/v1/nodes/{}", mallory.id()), None).await.unwrap();
    gone.success().unwrap();
    let address = bench.node.address();
    let proof: Vec<Vec<u8>> = mallory.roster.statements().map(<[u8]>::to_vec).collect();
    let mut wire = mallory.stranger.open(address, ALPN_MESH).await;
    wire.say(&[Message::Hello(mallory.stranger.hello(mallory.roster.household(), proof))]).await;
    wire.ends(ByeReason::Revoked, REVOKED).await;
    bench.passed("a removed node that comes back").await;
}
