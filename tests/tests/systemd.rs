//! What systemd is told (sd_notify(3)) of a node that runs, hangs, moves to another household, and ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{path::PathBuf, time::Duration};

use hearth_tests::daemon::{Daemon, PATIENCE, Plan};
use rustix::process::Signal;
use tokio::{net::UnixDatagram, time::timeout};

/// What a node tells systemd.
struct Told {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Told {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hearth-notify-{name}-{}", std::process::id()));
        let _left = std::fs::remove_file(&path);
        Self { socket: UnixDatagram::bind(&path).unwrap(), path }
    }

    /// The next message, if one comes within a time.
    async fn next(&self, within: Duration) -> Option<String> {
        let mut buffer = [0; 4_096];
        let length = timeout(within, self.socket.recv(&mut buffer)).await.ok()?.unwrap();
        Some(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
    }

    /// Reads until a message has this line; answers with what came before.
    async fn until(&self, line: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let told = self.next(PATIENCE).await.unwrap_or_else(|| panic!("no {line} after {before:?}"));
            if told.lines().any(|found| found == line) {
                return before;
            }
            before.push(told);
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[tokio::test]
async fn systemd_is_told_that_it_is_ready_and_alive_until_it_is_not() {
    let told = Told::new("alive");
    // One ping every 400 ms.
    let every = Duration::from_millis(400);
    let plan = Plan::new("one")
        .variable("NOTIFY_SOCKET", told.path.to_str().unwrap())
        .variable("WATCHDOG_USEC", "1200000");
    let mut node = plan.start().await.unwrap();
    let first = told.next(PATIENCE).await.unwrap();
    assert!(first.lines().any(|line| line == "READY=1"), "{first}");
    assert!(first.contains(&format!("STATUS=listening on {}", node.address())), "{first}");
    for _ in 0..3 {
        assert_eq!(told.next(PATIENCE).await.unwrap(), "WATCHDOG=1");
    }
    node.signal(Signal::STOP).unwrap();
    // What was sent before lies in the socket; then four pings must be missing.
    let mut left = 0;
    while told.next(every * 4).await.is_some() {
        left += 1;
        assert!(left < 5, "a stopped process feeds the watchdog");
    }
    node.signal(Signal::CONT).unwrap();
    assert_eq!(told.next(PATIENCE).await.unwrap(), "WATCHDOG=1");
    assert_eq!(node.stop().await.unwrap(), Some(0));
    told.until("STOPPING=1").await;
}

/// From `STOPPING=1` on systemd waits for the end of the process, and kills it when that does not come.
#[tokio::test]
async fn a_node_that_joins_or_leaves_goes_on_as_the_same_service() {
    let one = Daemon::found("one").await.unwrap();
    let told = Told::new("joins");
    let plan = Plan::new("two").variable("NOTIFY_SOCKET", told.path.to_str().unwrap());
    let mut two = plan.start().await.unwrap();
    told.until("READY=1").await;
    let token = one.invite().await.unwrap();
    for change in [&["join", token.as_str()][..], &["leave"]] {
        two.cli(change).await.unwrap().ok().unwrap();
        let between = told.until("READY=1").await;
        assert!(!between.iter().any(|message| message.contains("STOPPING=1")), "{between:?}");
    }
    assert_eq!(two.stop().await.unwrap(), Some(0));
    told.until("STOPPING=1").await;
}
