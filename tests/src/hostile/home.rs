//! A small household: one node under attack, one good peer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::{Daemon, Folder, Launch, RSS_BOUND_KIB, wait_until};

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
        home
    }

    /// The same of daemons that run already; `rss_before` is the memory of `a` before the attack.
    pub fn of(a: Daemon, b: Daemon, folder: Folder, rss_before: u64) -> Self {
        Self { rss_before, a, b, folder, rounds: AtomicU32::new(0) }
    }

    /// The daemons and the folder, to be stopped and started one by one.
    pub fn split(self) -> (Daemon, Daemon, Folder) {
        (self.a, self.b, self.folder)
    }

    /// The good peer and a good client are served: a write on one node is read on the other, both
    /// ways, and the API answers over TLS.
    #[track_caller]
    pub fn is_served(&self) {
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

    /// The memory of both nodes stayed within its bound since the start.
    #[track_caller]
    pub fn memory_is_bounded(&self) {
        let before = self.rss_before;
        for (name, now) in [("a", self.a.rss_kib()), ("b", self.b.rss_kib())] {
            assert!(now <= before + RSS_BOUND_KIB, "{name}: from {before} KiB to {now} KiB");
        }
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}
