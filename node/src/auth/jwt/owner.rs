//! The owner of the issuers: what the household says of each, and the keys that each published last.
//!
//! Keys are fetched when an issuer is new, when they are no longer fresh, and when a token names one that is not among
//! them; never more than twice a minute for one issuer, whoever sends whatever. An issuer that is down, or answers nonsense, keeps
//! the keys that it had: they count until it publishes others. They are kept in a file, so that they outlive the node's run, too.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_proto::kinds::Author;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};

use super::{
    Issuer, IssuersHandle, Keys, Known, PutError, Spec, Unfetched,
    fetch::{Fetched, MOST, fetch},
    issuers::Request,
    spec::object,
};
use crate::{
    auth::follower::{Follower, News},
    service::{HouseholdTime, Op, Service},
    store::files::{FileKind, read_checked, write_durable},
    timekeeping::unix_seconds,
};

/// Issuers that can be made; others that come from other nodes are honoured up to the same bound.
pub(super) const MAX_ISSUERS: usize = 16;
/// Fetches for one issuer within [`WINDOW`].
const MOST_FETCHES: usize = 2;
const WINDOW: Duration = Duration::from_secs(60);
/// How soon a fetch that failed is tried again, and how soon at last.
const AGAIN: Duration = Duration::from_secs(60);
const AGAIN_AT_LAST: Duration = Duration::from_secs(3_600);
/// Clients that wait for one fetch; the rest is answered at once.
const MAX_WAITING: usize = 64;
/// Tokens whose signatures are looked at at once: others of the board's cores stay free.
const AT_ONCE: usize = 2;
/// What a file says before the keys: of which source they are, and when they were fetched.
const HEAD_BYTES: usize = 32 + 8;

/// A file with the keys of an issuer.
const FILE: FileKind = FileKind {
    magic: *b"HTHJWKS\0",
    version: 1,
    max_bytes: HEAD_BYTES + MOST,
    mode: 0o600,
    way_out: "remove it; the keys of the issuer are fetched anew",
};

/// What the owner works with.
#[derive(Debug)]
pub struct IssuersParts {
    /// The event loop.
    pub service: Service,
    /// The household's time of day.
    pub time: watch::Receiver<HouseholdTime>,
    /// Where keys are kept; made when there are any.
    pub folder: PathBuf,
}

/// An issuer as its owner has it.
struct Held {
    issuer: Issuer,
    source: blake3::Hash,
    /// When its keys are fetched next.
    due: Instant,
    failures: u32,
    /// When they were fetched within the last [`WINDOW`].
    recent: VecDeque<Instant>,
    fetching: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

/// How a fetch ended.
struct Outcome {
    name: String,
    source: blake3::Hash,
    result: Result<Fetched, String>,
}

/// The owner of the issuers; a task runs it.
pub struct Issuers {
    service: Service,
    folder: PathBuf,
    requests: mpsc::Receiver<Request>,
    known: watch::Sender<Option<Arc<Known>>>,
    held: BTreeMap<String, Held>,
    fetches: JoinSet<Outcome>,
    /// Fetches that failed since the start.
    failures: Arc<AtomicU64>,
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuers").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl Issuers {
    /// The owner and the way to it.
    pub fn new(parts: IssuersParts) -> (IssuersHandle, Self) {
        let IssuersParts { service, time, folder } = parts;
        let (sender, requests) = mpsc::channel(64);
        let (known, receiver) = watch::channel(None);
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let failures = Arc::new(AtomicU64::new(0));
        let handle =
            IssuersHandle { requests: sender, known: receiver, time, turns, failures: failures.clone() };
        let (held, fetches) = (BTreeMap::new(), JoinSet::new());
        (handle, Self { service, folder, requests, known, held, fetches, failures })
    }

    /// Serves until the event loop or every handle is gone. Tokens wait until the issuers are known.
    pub async fn run(mut self) {
        let mut follower = Follower::new(self.service.clone(), &["issuer/"]);
        loop {
            let is_known = follower.has_caught_up();
            if is_known {
                self.fetch_what_is_due();
            }
            let due = self.held.values().filter(|held| is_known && !held.fetching).map(|held| held.due).min();
            let until_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                news = follower.next() => match news {
                    Some(news) => self.take(news).await,
                    None => return,
                },
                request = self.requests.recv(), if is_known => match request {
                    Some(request) => self.handle(request).await,
                    None => return follower.end().await,
                },
                Some(Ok(outcome)) = self.fetches.join_next() => self.fetched(outcome).await,
                () = until_due => {}
            }
        }
    }

    async fn take(&mut self, news: News) {
        for change in news.changes {
            let name = change.id.name().to_owned();
            match change.object.as_ref().and_then(Spec::of) {
                Some(spec) if self.held.len() < MAX_ISSUERS || self.held.contains_key(&name) => {
                    self.hold(name, spec).await;
                }
                _ => self.forget(&name).await,
            }
        }
        if let Some(all) = news.all {
            self.held.retain(|name, _| object(name).is_ok_and(|object| all.contains(&object)));
            self.tidy().await;
        }
        if news.is_whole {
            self.publish();
        }
    }

    /// Keys stay where they are still those of the same source.
    async fn hold(&mut self, name: String, spec: Spec) {
        let source = spec.source();
        let spec = Arc::new(spec);
        if let Some(held) = self.held.get_mut(&name).filter(|held| held.source == source) {
            if held.issuer.spec != spec {
                held.issuer.spec = spec;
            }
            return;
        }
        let path = self.folder.join(&name);
        let kept = spawn_blocking(move || read(&path, source)).await.ok().flatten();
        let (keys, fetched_ms) = kept.unzip();
        let issuer = Issuer { spec, keys: keys.map(Arc::new), fetched_ms, error: None };
        let (recent, waiting) = (VecDeque::new(), Vec::new());
        let held =
            Held { issuer, source, due: Instant::now(), failures: 0, recent, fetching: false, waiting };
        self.held.insert(name, held);
    }

    async fn forget(&mut self, name: &str) {
        if self.held.remove(name).is_some() {
            let path = self.folder.join(name);
            let removed = spawn_blocking(move || remove(&path)).await;
            tracing::debug!(?removed, "forgot an issuer");
        }
    }

    /// Removes the keys of issuers that went while this node was down.
    async fn tidy(&self) {
        let (folder, names) = (self.folder.clone(), self.held.keys().cloned().collect::<BTreeSet<_>>());
        let tidied = spawn_blocking(move || {
            let Ok(entries) = fs::read_dir(&folder) else { return };
            for entry in entries.flatten() {
                if !entry.file_name().to_str().is_some_and(|name| names.contains(name)) {
                    let _ = remove(&entry.path());
                }
            }
        });
        // What could not be removed is not read either.
        let _ = tidied.await;
    }

    fn publish(&self) {
        let known: Known = self.held.iter().map(|(name, held)| (name.clone(), held.issuer.clone())).collect();
        self.known.send_replace(Some(Arc::new(known)));
    }

    /// A reply that nobody waits for any more is dropped.
    async fn handle(&mut self, request: Request) {
        match request {
            Request::Put(name, spec, reply) => {
                let _ = reply.send(self.put(name, *spec).await);
            }
            Request::Remove(name, reply) => {
                let _ = reply.send(self.remove(&name).await);
            }
            Request::Fetch(name, reply) => {
                let Some(held) = self.held.get_mut(&name) else { return };
                if !held.fetching && held.may_fetch(Instant::now()) {
                    self.begin(&name);
                }
                let held = self.held.get_mut(&name).filter(|held| held.fetching);
                if let Some(held) = held.filter(|held| held.waiting.len() < MAX_WAITING) {
                    held.waiting.push(reply);
                }
            }
        }
    }

    async fn put(&mut self, name: String, spec: Spec) -> Result<(), PutError> {
        let op = spec.to_op(&name)?;
        let twin = self.held.iter().find(|(other, held)| **other != name && held.issuer.spec.url == spec.url);
        if let Some((twin, _)) = twin {
            return Err(PutError::Taken(twin.clone()));
        }
        if self.held.len() >= MAX_ISSUERS && !self.held.contains_key(&name) {
            return Err(PutError::TooMany);
        }
        self.service.write(Author::Node, vec![op]).await?;
        self.hold(name, spec).await;
        self.publish();
        Ok(())
    }

    async fn remove(&mut self, name: &str) -> Result<(), PutError> {
        if !self.held.contains_key(name) {
            return Err(PutError::NotFound);
        }
        self.service.write(Author::Node, vec![Op::Delete(object(name)?)]).await?;
        self.forget(name).await;
        self.publish();
        Ok(())
    }

    fn fetch_what_is_due(&mut self) {
        let now = Instant::now();
        let due = |held: &Held| !held.fetching && held.due <= now;
        let names: Vec<_> =
            self.held.iter().filter(|(_, held)| due(held)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(held) = self.held.get_mut(&name) else { continue };
            if held.may_fetch(now) {
                self.begin(&name);
            } else {
                held.due = held.recent.front().map_or(now, |first| *first) + WINDOW;
            }
        }
    }

    fn begin(&mut self, name: &str) {
        let Some(held) = self.held.get_mut(name) else { return };
        held.fetching = true;
        held.recent.push_back(Instant::now());
        let (spec, source, name) = (Arc::clone(&held.issuer.spec), held.source, name.to_owned());
        self.fetches.spawn(async move {
            let result = fetch(&spec).await.map_err(|error| error.to_string());
            Outcome { name, source, result }
        });
    }

    async fn fetched(&mut self, outcome: Outcome) {
        let Outcome { name, source, result } = outcome;
        // Of a source that counts no more: whoever waited for it was told when that changed.
        let Some(held) = self.held.get_mut(&name).filter(|held| held.source == source) else { return };
        held.fetching = false;
        if result.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let document = held.learn(&name, result);
        let waiting = std::mem::take(&mut held.waiting);
        // Kept before they count: what was let in by them is let in after a restart, too.
        if let Some(bytes) = document {
            let folder = self.folder.clone();
            let kept = spawn_blocking(move || keep(&folder, &name, &bytes)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(%error, "the keys of an issuer could not be kept, they are fetched anew after a restart");
            }
        }
        self.publish();
        for reply in waiting {
            let _ = reply.send(());
        }
    }
}

impl Held {
    fn may_fetch(&mut self, now: Instant) -> bool {
        while self.recent.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            self.recent.pop_front();
        }
        self.recent.len() < MOST_FETCHES
    }

    /// Takes over what was fetched; answers with the bytes to keep.
    fn learn(&mut self, name: &str, result: Result<Fetched, String>) -> Option<Vec<u8>> {
        let now = Instant::now();
        let Fetched { keys, document, fresh } = match result {
            Ok(fetched) => fetched,
            Err(why) => {
                let before = self.issuer.error.take();
                if before.as_ref().is_none_or(|before| before.why != why) {
                    tracing::warn!(issuer = name, error = %why, "the keys of an issuer could not be fetched");
                }
                let since_ms = before.map_or_else(now_ms, |before| before.since_ms);
                let pause = AGAIN.saturating_mul(1 << self.failures.min(6)).min(AGAIN_AT_LAST);
                self.failures = self.failures.saturating_add(1);
                self.due = now + pause;
                self.issuer.error = Some(Unfetched { since_ms, why });
                return None;
            }
        };
        (self.failures, self.due, self.issuer.error) = (0, now + fresh, None);
        let fetched_ms = now_ms();
        self.issuer.fetched_ms = Some(fetched_ms);
        if self.issuer.keys.as_deref() == Some(&keys) {
            return None;
        }
        tracing::info!(issuer = name, keys = keys.count(), "the keys of an issuer are new");
        self.issuer.keys = Some(Arc::new(keys));
        Some([self.source.as_bytes().as_slice(), &fetched_ms.to_le_bytes(), &document].concat())
    }
}

fn now_ms() -> u64 {
    unix_seconds().saturating_mul(1_000)
}

/// The keys in a file and when they were fetched, if they are of that source. A file that cannot be read is no file.
fn read(path: &Path, source: blake3::Hash) -> Option<(Keys, u64)> {
    let bytes = match read_checked(path, &FILE) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::warn!(%error, "the keys of an issuer cannot be read, they are fetched anew");
            return None;
        }
    };
    let (of, rest) = bytes.split_first_chunk::<32>()?;
    let (at, document) = rest.split_first_chunk::<8>()?;
    let keys = Keys::parse(document).ok().filter(|_| source == *of)?;
    Some((keys, u64::from_le_bytes(*at)))
}

fn keep(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    write_durable(&folder.join(name), &FILE, bytes).map_err(io::Error::other)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
