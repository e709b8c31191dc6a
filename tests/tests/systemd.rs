//! What systemd is told (sd_notify(3)) of a node that runs, hangs, moves to another household, and ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{path::PathBuf, time::Duration};

use hearth_tests::daemon::{Daemon, Folder, PATIENCE, Plan, clean, discreet, free_port, program, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{net::UnixDatagram, process::Command, time::timeout};

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
        assert!(left < 50, "a stopped process feeds the watchdog");
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

/// It joins, and is told to stop as soon as its life in the old household is over.
async fn told_to_stop_while_it_moves(node: &Daemon, token: &str) {
    let stop = async {
        wait_until("it moves", PATIENCE, async || Ok(node.log().contains("in the new household"))).await?;
        node.signal(Signal::TERM)
    };
    let words = ["join", token];
    let join = node.cli(&words);
    tokio::pin!(stop, join);
    tokio::select! {
        stopped = &mut stop => stopped.unwrap(),
        // It was there before anybody looked: a stop must end it all the same.
        _ = join => stop.await.unwrap(),
    }
}

#[tokio::test]
async fn a_stop_between_two_households_is_not_lost() {
    let one = Daemon::found("one").await.unwrap();
    for _ in 0..4 {
        let token = one.invite().await.unwrap();
        let mut two = Daemon::found("two").await.unwrap();
        told_to_stop_while_it_moves(&two, &token).await;
        assert_eq!(two.ends().await.unwrap(), Some(0));
    }
}

#[tokio::test]
async fn a_node_that_is_still_on_its_way_into_a_household_stops_when_it_is_told() {
    let one = Daemon::found("one").await.unwrap();
    let token = one.invite().await.unwrap();
    // It takes connections and says nothing.
    one.signal(Signal::STOP).unwrap();
    let folder = Folder::new().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let state = folder.join(&format!("{signal:?}"));
        std::fs::create_dir(&state).unwrap();
        let config = state.with_extension("toml");
        std::fs::write(&config, discreet("")).unwrap();
        let mut command = std::process::Command::new(program().unwrap());
        clean(&mut command);
        let port = free_port().unwrap().to_string();
        command.args(["run", "--listen", &format!("127.0.0.1:{port}"), "--state-dir"]).arg(&state);
        command.env("HEARTH_CONFIG", config).env("HEARTH_JOIN", &token);
        let mut joins = Command::from(command).kill_on_drop(true).spawn().unwrap();
        wait_until("it has a key", PATIENCE, async || Ok(state.join("node.key").exists())).await.unwrap();
        let pid = Pid::from_raw(joins.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        let ended = timeout(PATIENCE, joins.wait()).await.expect("it ends").unwrap();
        assert_eq!(ended.code(), Some(0), "{signal:?}: {ended}");
    }
    one.signal(Signal::CONT).unwrap();
}
