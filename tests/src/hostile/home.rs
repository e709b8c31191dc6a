//! A small household: one node under attack, one good peer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::{Daemon, Folder, Launch, PATIENCE, RSS_BOUND_KIB, RUNTIME, must, wait_until};
use crate::daemon::Client;

/// Two daemons of one household: `a` founded it and is the one under attack, `b` is the good peer.
#[derive(Debug)]
pub struct Home {
    /// The founder.
    pub a: Daemon,
    /// The good peer.
    pub b: Daemon,
    /// Holds all state folders.
    pub folder: Folder,
    rss_before: u64,
    rounds: AtomicU32,
    /// A good client at work all the time, unless the test stops nodes itself.
    client: Mutex<Option<GoodClient>>,
}

impl Home {
    /// Founds a household and lets a second node join it.
    pub fn new() -> Self {
        Self::with(&Launch::new(), &Launch::new())
    }

    /// The same, started in these ways.
    pub fn with(first: &Launch, second: &Launch) -> Self {
        let folder = Folder::new().expect("a temp folder");
        let a = Daemon::start(&folder.join("a"), first);
        let token = a.invite("member", 900);
        let b = Daemon::start(&folder.join("b"), &second.clone().with(&["--join", &token]));
        let before = a.rss_kib();
        let home = Self::of(a, b, folder, before);
        home.is_served();
        home.serve();
        home
    }

    /// The same of daemons that run already; `rss_before` is the memory of `a` before the attack.
    pub fn of(a: Daemon, b: Daemon, folder: Folder, rss_before: u64) -> Self {
        Self { rss_before, a, b, folder, rounds: AtomicU32::new(0), client: Mutex::default() }
    }

    fn serve(&self) {
        // Nobody serves a million rounds in between.
        let first = self.rounds.load(Ordering::Relaxed) * 1_000_000;
        let client = GoodClient::begin(self.a.client(), self.b.client(), first);
        *self.client.lock().expect("the client") = Some(client);
    }

    /// The daemons and the folder, to be stopped and started one by one.
    pub fn split(self) -> (Daemon, Daemon, Folder) {
        (self.a, self.b, self.folder)
    }

    /// The good peer and a good client are served: a write on one node is read on the other, both
    /// ways, and the API answers over TLS. It was so all the time since this was last asked.
    #[track_caller]
    pub fn is_served(&self) {
        let client = self.client.lock().expect("the client").take();
        if let Some(client) = client {
            must(client.was_served());
            self.serve();
        }
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        let object = format!("note/served-{round}");
        self.a.put(&object, "from-a", &json!(round));
        self.b.put(&object, "from-b", &json!(round));
        wait_until("the good peer is served", || {
            self.b.field(&object, "from-a") == Some(json!(round))
                && self.a.field(&object, "from-b") == Some(json!(round))
        });
        assert_eq!(self.a.https("GET", "/healthz", b"").0, 200);
    }

    /// The memory of both nodes was within its bound at every moment since the start.
    #[track_caller]
    pub fn memory_is_bounded(&self) {
        let before = self.rss_before;
        for (name, most) in [("a", self.a.peak_rss_kib()), ("b", self.b.peak_rss_kib())] {
            assert!(most <= before + RSS_BOUND_KIB, "{name}: from {before} KiB to {most} KiB");
        }
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes on each of two nodes and waits until the other has it, again and again.
#[derive(Debug)]
struct GoodClient {
    end: watch::Sender<bool>,
    task: JoinHandle<Result<u32>>,
}

impl GoodClient {
    /// Each round writes another number than every round before; `first` is that of the first.
    fn begin(a: Client, b: Client, first: u32) -> Self {
        let (end, ended) = watch::channel(false);
        let task = RUNTIME.spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            for round in first.. {
                pace.tick().await;
                crosses(&a, &b, "from-a", round).await?;
                crosses(&b, &a, "from-b", round).await?;
                if *ended.borrow() {
                    return Ok(round);
                }
            }
            Ok(0)
        });
        Self { end, task }
    }

    /// Ends it. Fails when one of its writes was refused, or was not read on the other node in time.
    async fn was_served(mut self) -> Result<()> {
        self.end.send_replace(true);
        (&mut self.task).await?.context("a good client was not served meanwhile").map(drop)
    }
}

/// A write on the one node is read on the other.
async fn crosses(from: &Client, to: &Client, field: &str, round: u32) -> Result<()> {
    let path = "/api/v1/objects/note/meanwhile";
    from.send("PATCH", path, Some(&json!({ "set": { field: round } }))).await?.success()?;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let arrives = async {
        loop {
            pace.tick().await;
            let answer = to.get(path).await?;
            if answer.status == 200 && answer.json()?["fields"][field] == round {
                return Ok(());
            }
        }
    };
    timeout(PATIENCE, arrives).await.with_context(|| format!("round {round} never reached the other node"))?
}

impl Drop for GoodClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}
