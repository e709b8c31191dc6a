//! Too much of what would be harmless once.

use std::{io::Write as _, net::TcpStream, thread, time::Duration};

use hearth_tests::{daemon::PATIENCE, hostile::tcp_from};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::block_in_place;

use super::bench::{Bench, Reply, exchange, request, rest_kib};

/// Connections that say nothing.
const IDLE: usize = 10_000;

/// What is asked in a flood: more than anybody may ask at once.
const FLOOD: usize = 400;
const STATUS: &str = "/api/v1/status";

/// Who asks too often is told when to come back, and is not hung up on.
pub(crate) async fn attack(bench: &mut Bench) {
    let words = ["token", "create", "--role", "viewer", "--prefix", "note/mine"];
    let confined = bench.node.json(&words).await.unwrap()["token"].as_str().unwrap().to_owned();
    bench.secret(&confined);
    let diary = "/api/v1/objects/note/diary";
    for (name, number, one, until_then) in [
        ("a flood without a token", 248, request("GET", STATUS, &[KEPT], b""), 401),
        ("a flood of what does not exist", 249, request("GET", "/api/v1/nothing", &[KEPT], b""), 404),
        ("a flood out of a scope", 251, kept(&confined, diary), 404),
        ("a flood of what only admins may", 252, kept(&confined, "/metrics"), 403),
    ] {
        let replies = block_in_place(|| bench.repeated(number, &one, FLOOD));
        let (paced, answered): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 429);
        let told = paced.iter().all(|reply| reply.head.contains("\r\nretry-after: "));
        let others = answered.iter().filter(|reply| reply.status != until_then).count();
        bench.must(name, (paced.is_empty(), told, others, replies.len()), (false, true, 0, FLOOD)).await;
    }
}

const KEPT: (&str, &str) = ("Connection", "keep-alive");

fn kept(token: &str, target: &str) -> Vec<u8> {
    request("GET", target, &[("Authorization", &format!("Bearer {token}")), KEPT], b"")
}

/// As many files as this process may have open.
fn raise_limit() -> usize {
    let now = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_keep_nobody_out() {
    let most = raise_limit();
    assert!(most > IDLE + 500, "this machine lets a process open {most} files only: raise `ulimit -n`");
    let mut bench = Bench::start().await;
    let before = bench.node.rss_kib().unwrap();
    let mut open: Vec<TcpStream> = Vec::new();
    for number in 0..IDLE {
        let stream =
            block_in_place(|| tcp_from(2 + u8::try_from(number % 250).unwrap(), bench.node.address()));
        // Every second one begins a handshake and leaves it.
        if number.is_multiple_of(2) {
            let _ = (&stream).write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
        }
        open.push(stream);
        if number % 1_000 == 999 {
            bench.passed(&format!("{} idle connections", number + 1)).await;
        }
    }
    let grown = bench.node.rss_kib().unwrap().saturating_sub(before);
    assert!(grown < 64 * 1024, "{IDLE} idle connections cost {grown} KiB");
    drop(open);
    bench.good_is_served("the flood").await;
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_end_are_ended() {
    let mut bench = Bench::start().await;
    let mut slow = Vec::new();
    // Of the first the node does not know yet what it asks, and of the second what it means.
    for (text, status) in [
        ("GET /heal", None),
        (
            "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"user\":",
            Some(504),
        ),
    ] {
        let mut stream = bench.connect();
        stream.write_all(text.as_bytes()).unwrap();
        stream.flush().unwrap();
        slow.push((stream, status));
    }
    for (mut stream, status) in slow {
        bench.good_is_served("a slow request").await;
        stream.sock.set_read_timeout(Some(PATIENCE.max(Duration::from_secs(45)))).unwrap();
        let reply = block_in_place(|| super::bench::read_reply(&mut stream));
        assert_eq!(reply.map(|reply| reply.status), status);
    }
    bench.good_is_served("two slow requests").await;
}

/// People who try to sign in at once.
const PEOPLE: usize = 100;
/// What a hash takes, in KiB, and how many run at once (node/src/auth/passwords.rs).
const HASH_KIB: u64 = 19_456;
const HASHES: u64 = 2;
/// A hundred connections over TLS, each with its buffers, stacks and requests.
const CONNECTIONS_KIB: u64 = 20 << 10;

/// A board has 512 MB: whatever is tried at its door, it holds two hashes and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_wrong_passwords_at_once_cost_two_hashes() {
    let mut bench = Bench::start().await;
    let rest = rest_kib(&bench.node);
    // Each is somebody else from somewhere else, or the pace of guesses would keep most of them from a hash.
    let replies = thread::scope(|scope| {
        let attempts: Vec<_> = (0..PEOPLE)
            .map(|number| {
                let body =
                    format!("{{\"user\":\"guest-{number}\",\"password\":\"a guess of several words\"}}");
                let bytes = request("POST", "/api/v1/login", &[], body.as_bytes());
                let mut stream = bench.connect_from(2 + u8::try_from(number).unwrap());
                // One after the other: so many handshakes at once would drive one another out.
                stream.conn.complete_io(&mut stream.sock).unwrap();
                scope.spawn(move || exchange(stream, &bytes))
            })
            .collect();
        attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect::<Vec<Option<Reply>>>()
    });
    let peak = bench.node.peak_rss_kib().unwrap();
    let of = |status: u16, kind: &str| {
        let is = |reply: &&Reply| reply.status == status && reply.problem().as_deref() == Some(kind);
        replies.iter().flatten().filter(is).count()
    };
    let (wrong, busy) = (of(401, "wrong-password"), of(503, "overloaded"));
    println!("{PEOPLE} sign-ins: {rest} KiB at rest, {peak} KiB at most; {wrong} hashed, {busy} sent away");
    assert_eq!(wrong + busy, PEOPLE, "{replies:#?}");
    assert!(wrong >= 3, "no more than {wrong} were hashed: this measures nothing");
    assert!(peak >= rest + HASH_KIB, "a hash takes its memory: this measures nothing");
    let bound = rest + HASHES * HASH_KIB + CONNECTIONS_KIB;
    assert!(peak < bound, "from {rest} KiB at rest to {peak} KiB");
    bench.good_is_served("a hundred wrong passwords").await;
    bench.finish().await;
}
