//! Too much of what would be harmless once.

use std::{io::Write as _, net::TcpStream, time::Duration};

use hearth_tests::{daemon::PATIENCE, hostile::tcp_from};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::block_in_place;

use super::bench::Bench;

/// Connections that say nothing.
const IDLE: usize = 10_000;

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
    let before = memory_kib(&bench);
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
    let grown = memory_kib(&bench).saturating_sub(before);
    assert!(grown < 64 * 1024, "{IDLE} idle connections cost {grown} KiB");
    drop(open);
    bench.good_is_served("the flood").await;
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_end_are_ended() {
    let mut bench = Bench::start().await;
    let mut slow = Vec::new();
    for text in [
        "GET /heal",
        "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"user\":",
    ] {
        let mut stream = bench.connect();
        stream.write_all(text.as_bytes()).unwrap();
        stream.flush().unwrap();
        slow.push(stream);
    }
    for mut stream in slow {
        bench.good_is_served("a slow request").await;
        stream.sock.set_read_timeout(Some(PATIENCE.max(Duration::from_secs(45)))).unwrap();
        let reply = block_in_place(|| super::bench::read_reply(&mut stream));
        assert!(reply.as_ref().is_none_or(|reply| reply.status >= 400), "{reply:?}");
    }
    bench.good_is_served("two slow requests").await;
}

fn memory_kib(bench: &Bench) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bench.node.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
