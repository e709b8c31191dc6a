//! Frames of strangers, of another household, and of members that turned.

use std::{fs, sync::Arc};

use hearth_tests::hostile::{
    Daemon, Home, Launch, RSS_BOUND_KIB, discreet,
    peer::{Member, Stranger, Wire, noise, now_ms, within},
    wait_until,
};
use mesh_proto::{
    Hlc, Value,
    roster::{Body, NodeName, Roles, Statement},
    time::{SYNCHRONISED, TimeOfDay, UNSYNCHRONISED},
    wire::{self, ByeReason, Digest, Hello, Message},
};
use node::tls::identity::{ALPN_JOIN, ALPN_MESH};
use serde_json::json;
use tokio::task::block_in_place;

// Close codes (node/src/transport/mod.rs).
const NOT_ADMITTED: u32 = 4;
const OFFENCE: u32 = 6;
const OVERSIZED: u32 = 7;
const VERSION: u32 = 8;

async fn member(home: &Home, role: &str) -> Member {
    let token = block_in_place(|| home.a.invite(role, 900));
    Stranger::new().join(&token).await
}

fn finish(home: &Home) {
    block_in_place(|| {
        home.is_served();
        home.memory_is_bounded();
    });
}

fn count(home: &Home, name: &str, at_least: u64) {
    block_in_place(|| home.a.wait_counter(name, at_least));
}

fn admit(name: &str) -> Body {
    Body::Admit {
        node: Stranger::new().identity.id(),
        roles: Roles::MEMBER,
        name: NodeName::new(name).expect("a name"),
        token: None,
    }
}

fn names_of(daemon: &Daemon) -> Vec<String> {
    let status = daemon.status();
    let nodes = status["nodes"].as_array().expect("nodes").iter();
    nodes.map(|node| node["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_node_of_another_household_is_turned_away() {
    let home = Home::new();
    let folder = home.folder.join("c");
    fs::create_dir_all(&folder).expect("a folder");
    let peers = format!("peers = [\"{}\"]\nname = \"neighbour\"\n", home.a.address);
    fs::write(folder.join("hearth.toml"), discreet(&peers)).expect("a config");
    let neighbour = Daemon::start(&folder, &Launch::new());
    neighbour.put("note/theirs", "text", &json!("not yours"));
    wait_until("one of them says why", || {
        home.a.counter("offence_wrong_household") + neighbour.counter("offence_wrong_household") >= 1
            && neighbour.said().contains("WrongHousehold")
    });
    home.a.wait_counter("offence_wrong_household", 1);
    assert_eq!(home.a.field("note/theirs", "text"), None);
    assert!(!names_of(&home.a).contains(&"neighbour".to_owned()));
    assert_eq!(names_of(&neighbour).len(), 1);
    home.is_served();
    home.memory_is_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_self_made_statement_admits_nobody() {
    let home = Home::new();
    let mallory = member(&home, "member").await;
    let accomplice = Stranger::new();
    let forged = Statement::sign(
        mallory.roster.household(),
        &mallory.stranger.key,
        0,
        [0; 32],
        Body::Admit {
            node: accomplice.identity.id(),
            roles: Roles::MEMBER | Roles::ADMIN,
            name: NodeName::new("accomplice").expect("a name"),
            token: None,
        },
    )
    .expect("a statement");
    let mut wire = mallory.link(home.a.address).await;
    wire.say(&[Message::Roster(vec![forged.bytes().to_vec()])]).await;
    count(&home, "offence_self_made_statement", 1);
    // A damaged signature is named apart from it.
    let mut damaged = forged.bytes().to_vec();
    *damaged.last_mut().expect("a byte") ^= 1;
    wire.say(&[Message::Roster(vec![damaged])]).await;
    count(&home, "offence_bad_statement", 1);
    // The accomplice presents it as well, and stays out.
    let mut proof: Vec<Vec<u8>> = mallory.roster.statements().map(<[u8]>::to_vec).collect();
    proof.push(forged.bytes().to_vec());
    let mut other = accomplice.open(home.a.address, ALPN_MESH).await;
    other.say(&[Message::Hello(accomplice.hello(mallory.roster.household(), proof))]).await;
    other.ends(ByeReason::NotAdmitted, NOT_ADMITTED).await;
    count(&home, "offence_not_admitted", 1);
    block_in_place(|| {
        for daemon in [&home.a, &home.b] {
            assert!(!names_of(daemon).contains(&"accomplice".to_owned()));
        }
    });
    finish(&home);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forked_chain_is_kept_as_evidence_and_one_branch_counts_everywhere() {
    let home = Home::new();
    let mallory = member(&home, "admin").await;
    let household = mallory.roster.household();
    let sign = |name: &str| {
        Statement::sign(household, &mallory.stranger.key, 0, [0; 32], admit(name)).expect("a statement")
    };
    let (left, right) = (sign("left"), sign("right"));
    let counts = if left.hash() < right.hash() { "left" } else { "right" };
    let mut wire = mallory.link(home.a.address).await;
    wire.say(&[Message::Roster(vec![left.bytes().to_vec(), right.bytes().to_vec()])]).await;
    count(&home, "offence_forked_statement", 1);
    block_in_place(|| {
        for daemon in [&home.a, &home.b] {
            wait_until("both nodes let the same branch count", || {
                let names = names_of(daemon);
                let forked: Vec<_> =
                    names.iter().filter(|name| *name == "left" || *name == "right").collect();
                forked == [counts]
            });
        }
    });
    finish(&home);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unadmitted_key_may_send_nothing_but_join_frames() {
    let home = Home::new();
    let a = home.a.address;
    let household = block_in_place(|| home.a.status()["household"].as_str().expect("a key").to_owned());
    let household = household.parse().expect("a household");

    // Something other than an introduction.
    let mut wire = Stranger::new().open(a, ALPN_MESH).await;
    let digest = Digest { vector: [0; 8], overlay: [0; 8], roster: [0; 8] };
    wire.say(&[Message::Digest(digest)]).await;
    wire.ends(ByeReason::Misbehaved, OFFENCE).await;
    count(&home, "offence_before_hello", 1);

    // An introduction that proves nothing, and one under another name.
    let stranger = Stranger::new();
    let mut wire = stranger.open(a, ALPN_MESH).await;
    wire.say(&[Message::Hello(stranger.hello(household, Vec::new()))]).await;
    wire.ends(ByeReason::NotAdmitted, NOT_ADMITTED).await;
    count(&home, "offence_not_admitted", 1);
    let mut wire = stranger.open(a, ALPN_MESH).await;
    let mut hello = stranger.hello(household, Vec::new());
    hello.node = Stranger::new().identity.id();
    wire.say(&[Message::Hello(hello)]).await;
    wire.ends(ByeReason::Misbehaved, OFFENCE).await;
    count(&home, "offence_wrong_identity", 1);

    // A frame that is none.
    let mut wire = stranger.open(a, ALPN_MESH).await;
    wire.frame(&[&[wire::FRAME_VERSION], noise(60).as_slice()].concat()).await;
    within("the end of the link", wire.connection.closed()).await;
    count(&home, "offence_malformed_frame", 1);

    // On the protocol of joiners: noise, a mesh frame, a request of gigabytes.
    let garbage = [&40_u32.to_be_bytes(), [1_u8].as_slice(), &noise(39)].concat();
    let mesh = wire::encode(&[Message::Digest(digest)]);
    let mesh = [&u32::try_from(mesh.len()).expect("a frame").to_be_bytes(), mesh.as_slice()].concat();
    let huge = u32::MAX.to_be_bytes().to_vec();
    for (number, bytes) in [garbage, mesh, huge].into_iter().enumerate() {
        let mut wire = stranger.open(a, ALPN_JOIN).await;
        wire.bytes(&bytes).await;
        let answer = within("an answer", wire.recv.read_to_end(1_024)).await.expect("an answer");
        assert!(!answer.is_empty());
        within("the end of the exchange", wire.connection.closed()).await;
        count(&home, "join_refused_malformed", number as u64 + 1);
    }
    // A newer version of the request is told so.
    let mut wire = stranger.open(a, ALPN_JOIN).await;
    wire.bytes(&[0, 0, 0, 2, 9, 9]).await;
    within("an answer", wire.recv.read_to_end(1_024)).await.expect("an answer");
    count(&home, "join_refused_version", 1);
    block_in_place(|| assert_eq!(names_of(&home.a).len(), 2));
    finish(&home);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_another_version_ends_the_link_with_the_reason() {
    let home = Home::new();
    let mallory = member(&home, "member").await;
    for (version, reason) in [(9, ByeReason::TooNew), (0, ByeReason::TooOld)] {
        let mut wire = mallory.link(home.a.address).await;
        wire.frame(&[&[version], noise(100).as_slice()].concat()).await;
        wire.ends(reason, VERSION).await;
    }
    count(&home, "offence_unknown_frame_version", 2);
    // A whole protocol that is too new says so in its introduction.
    let mut wire = mallory.stranger.open(home.a.address, ALPN_MESH).await;
    let mut hello = mallory.stranger.hello(mallory.roster.household(), Vec::new());
    (hello.protocol, hello.oldest) = (99, 98);
    wire.say(&[Message::Hello(hello)]).await;
    wire.ends(ByeReason::TooNew, VERSION).await;
    count(&home, "offence_wrong_protocol", 1);
    // A message that this version does not know is skipped, and what follows it counts.
    let mut mallory = mallory;
    let mut wire = mallory.link(home.a.address).await;
    let value = Value::from("understood").encode().expect("a value").to_vec();
    let item = mallory.write("note/mallory", "text", value);
    let unknown = [wire::FRAME_VERSION, 3, 99, 1, 2];
    let known = wire::encode(&[Message::Push(vec![item])]);
    wire.frame(&[&unknown, &known[1..]].concat()).await;
    count(&home, "messages_unknown", 1);
    block_in_place(|| {
        wait_until("what follows counts", || {
            home.b.field("note/mallory", "text") == Some(json!("understood"))
        });
    });
    finish(&home);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_frame_is_refused_by_its_length_alone() {
    let home = Home::new();
    let mallory = member(&home, "member").await;
    let before = home.a.rss_kib();
    for announced in [u32::MAX, 1 << 30, 262_145] {
        let mut wire = mallory.link(home.a.address).await;
        wire.bytes(&announced.to_be_bytes()).await;
        wire.bytes(&noise(4_096)).await;
        wire.closed(OVERSIZED).await;
    }
    count(&home, "oversized_frame", 3);
    // A datagram over the limit is dropped and counted, and the link stays.
    let wire = mallory.link(home.a.address).await;
    let room = wire.connection.max_datagram_size().expect("datagrams");
    assert!(room > 1_100, "a datagram of {room} bytes is not over the limit");
    wire.connection.send_datagram(noise(room).into()).expect("it is sent");
    count(&home, "oversized_datagram", 1);
    assert!(wire.connection.close_reason().is_none());
    wire.connection.send_datagram(noise(200).into()).expect("it is sent");
    count(&home, "offence_bad_packet", 1);
    assert!(home.a.peak_rss_kib() < before + RSS_BOUND_KIB / 2);
    finish(&home);
}

/// What holds on the UDP port holds on the TCP port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_over_a_websocket_are_judged_alike() {
    let home = Home::new();
    let a = home.a.address;
    let stranger = Stranger::new();
    let mut socket = stranger.open_websocket(a).await;
    socket.frame(&[&[wire::FRAME_VERSION], noise(60).as_slice()].concat()).await;
    socket.closed(OFFENCE).await;
    count(&home, "offence_malformed_frame", 1);
    let mut socket = stranger.open_websocket(a).await;
    let digest = Digest { vector: [0; 8], overlay: [0; 8], roster: [0; 8] };
    socket.frame(&wire::encode(&[Message::Digest(digest)])).await;
    socket.closed(OFFENCE).await;
    count(&home, "offence_before_hello", 1);

    let mallory = member(&home, "member").await;
    let mut socket = mallory.link_websocket(a).await;
    socket.frame(&[&[9], noise(100).as_slice()].concat()).await;
    socket.closed(VERSION).await;
    count(&home, "offence_unknown_frame_version", 1);
    // A binary message, masked, that announces a terabyte (RFC 6455, section 5.2): its length is enough.
    let before = home.a.rss_kib();
    let mut socket = mallory.link_websocket(a).await;
    socket.bytes(&[&[0x82, 0xff], (1_u64 << 40).to_be_bytes().as_slice(), &noise(4_096)].concat()).await;
    socket.closed(OVERSIZED).await;
    count(&home, "oversized_frame", 1);
    // Half a message, and never the rest.
    let mut socket = mallory.link_websocket(a).await;
    socket.bytes(&[&[0x82, 0xfe, 0x40, 0], noise(1_000).as_slice()].concat()).await;
    count(&home, "link_silent", 1);
    socket.ended().await;
    assert!(home.a.peak_rss_kib() < before + RSS_BOUND_KIB / 2);
    finish(&home);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_writes_no_value_over_the_limit_and_no_field_of_another() {
    let home = Home::new();
    let mut mallory = member(&home, "member").await;
    let mut wire = mallory.link(home.a.address).await;
    let long = Value::from("x".repeat(3_800).as_str()).encode().expect("a value");
    let bad = [
        // 5,000 bytes of text, in the encoding of a value: its variant, its length, the text.
        [&[4, 0x88, 0x27], "x".repeat(5_000).as_bytes()].concat(),
        // Nested lists without end.
        vec![6; 2_000].chunks(1).flat_map(|_| [6, 1]).collect(),
        noise(64).into_iter().map(|byte| byte | 0x80).collect(),
    ];
    let bad: Vec<_> = bad.into_iter().map(|value| mallory.write("note/bad", "text", value)).collect();
    wire.say(&[Message::Push(bad)]).await;
    count(&home, "offence_bad_value", 3);

    let victim = block_in_place(|| home.b.short());
    let version = block_in_place(|| home.b.field(&format!("node/{victim}"), "version"));
    let wrong = Value::from("666").encode().expect("a value").to_vec();
    let item = mallory.write(&format!("node/{victim}"), "version", wrong);
    wire.say(&[Message::Push(vec![item])]).await;
    count(&home, "offence_forbidden_writer", 1);

    // The link stays, and what is in order is taken from the same member.
    let good = mallory.write("note/good", "text", long.to_vec());
    wire.say(&[Message::Push(vec![good])]).await;
    block_in_place(|| {
        wait_until("the good write arrives everywhere", || {
            [&home.a, &home.b].iter().all(|daemon| daemon.field("note/good", "text").is_some())
        });
        for daemon in [&home.a, &home.b] {
            assert_eq!(daemon.field("note/bad", "text"), None);
            assert_eq!(daemon.field(&format!("node/{victim}"), "version"), version);
        }
    });
    finish(&home);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_stamped_in_the_future_are_held_back() {
    let home = Home::new();
    let mut mallory = member(&home, "member").await;
    let mut wire = mallory.link(home.a.address).await;
    block_in_place(|| home.a.put("note/x", "text", &json!("now")));
    let value = Value::from("from next year").encode().expect("a value");
    let mut item = mallory.write("note/x", "text", Vec::new());
    item.entry.value = Some(Arc::clone(&value));
    item.entry.stamp = Hlc::from_ms(now_ms() + 365 * 86_400_000);
    wire.say(&[Message::Push(vec![item])]).await;
    count(&home, "writes_quarantined", 1);
    block_in_place(|| {
        home.b.put("note/x", "text", &json!("later"));
        wait_until("the later write wins", || {
            [&home.a, &home.b].iter().all(|daemon| daemon.field("note/x", "text") == Some(json!("later")))
        });
    });
    finish(&home);
}

/// A member that takes nothing in: what it is owed must not pile up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_reads_nothing_costs_bounded_memory() {
    let home = Home::new();
    let mallory = member(&home, "member").await;
    let mut deaf = mallory.link(home.a.address).await;
    let home = tokio::task::spawn_blocking(move || {
        let write = |object: String, name: &str, text: String| {
            let fields = (0..100).map(|n| (format!("{name}{n}"), json!(text)));
            let fields: serde_json::Map<String, serde_json::Value> = fields.collect();
            let (status, body) =
                home.a.http("PATCH", &format!("/api/v1/objects/{object}"), &json!({"set": fields}));
            assert_eq!(status, 200, "{body}");
        };
        // More bytes than the memory may grow by, and more names than a queue may hold.
        let text = "x".repeat(3_800);
        (0..200).for_each(|round| write(format!("note/n{}", round % 10), "f", format!("{round} {text}")));
        let long = "l".repeat(60);
        (0..100).for_each(|round| write(format!("note/{}{round}", "o".repeat(80)), &long, round.to_string()));
        wait_until("the good peer has it all", || {
            let last = home.b.field(&format!("note/{}99", "o".repeat(80)), &format!("{long}99"));
            last == Some(json!("99"))
                && home
                    .b
                    .field("note/n9", "f99")
                    .is_some_and(|value| value.as_str().is_some_and(|text| text.starts_with("199 ")))
        });
        home
    })
    .await
    .expect("the good peer is served");
    assert!(deaf.connection.close_reason().is_none(), "{:?}", deaf.connection.close_reason());
    block_in_place(|| home.memory_is_bounded());
    // It is told what was dropped when it reads again.
    deaf.hear("the next digest", |message| matches!(message, Message::Digest(_))).await;
    count(&home, "queues_overflowed", 1);
    finish(&home);
}

/// A member that says it is this time of day.
async fn member_at(home: &Home, time: TimeOfDay) -> Wire {
    let mallory = member(home, "member").await;
    let mut wire = mallory.stranger.open(home.a.address, ALPN_MESH).await;
    let hello = mallory.stranger.hello(mallory.roster.household(), Vec::new());
    wire.say(&[Message::Hello(Hello { time, ..hello })]).await;
    wire
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_a_year_ahead_does_not_part_two_others() {
    let home = block_in_place(Home::new);
    let mut wire =
        member_at(&home, TimeOfDay { ms: now_ms() + 365 * 86_400_000, stratum: UNSYNCHRONISED, word: 0 })
            .await;
    wire.hear("its introduction", |message| matches!(message, Message::Digest(_))).await;
    count(&home, "clock_adopted", 1);
    finish(&home);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_of_day_that_no_stamp_can_hold_is_refused() {
    let home = block_in_place(Home::new);
    let mut wire = member_at(&home, TimeOfDay { ms: u64::MAX / 2, stratum: SYNCHRONISED, word: 0 }).await;
    wire.ends(ByeReason::Misbehaved, OFFENCE).await;
    finish(&home);
}
