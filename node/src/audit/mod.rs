//! The audit trail: who did what to which object and device, from where, and what came of it, on this node.
//!
//! Reads are not part of it, attempts that were refused are. One thread owns the files (see [`trail`]), for
//! bringing them onto the disk takes as long as a card needs. What belongs to security is on the disk at once,
//! everything else within five seconds; what repeats within seconds is one record with a count (see [`ledger`]).
//! Each node keeps its own: the trail of a board that was taken over says nothing about the others.

mod entry;
mod ledger;
mod trail;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::oneshot;
use tracing::warn;

pub use self::entry::{Class, Entry, Record};
use self::{ledger::Ledger, trail::Trail};
use crate::api::ports::PortError;

/// The folder within the state folder.
pub const FOLDER: &str = "audit";
/// Entries that may wait for the disk; more are counted and lost.
const QUEUE: usize = 1_024;
/// How long what need not be on the disk at once may wait for the next.
const GATHER: Duration = Duration::from_secs(5);
/// How often a disk that refuses is tried again, and complained of.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// Longest time without a look, where nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);
/// Most records of one answer.
pub const MAX_RECORDS: usize = 1_000;

/// Which records are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// At most so many: the newest, or with `after` the ones that follow it.
    pub limit: usize,
    /// Only those with a higher number.
    pub after: Option<u64>,
    /// Only those of whom this is the name, or with a colon at its end the kind: `user:ann`, `token:`. Who did
    /// it by a scene, and the scene itself, are meant too.
    pub who: Option<String>,
    /// Only those to the object of this name, or its beginning.
    pub object: Option<String>,
    /// Only those since then, in milliseconds since 1970.
    pub since_ms: Option<u64>,
}

impl Query {
    fn wants(&self, record: &Record) -> bool {
        let begins = |text: Option<&str>, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| text.is_some_and(|text| text.starts_with(wanted)))
        };
        self.after.is_none_or(|after| record.seq > after)
            && self.since_ms.is_none_or(|since| record.at >= since)
            && self.who.as_ref().is_none_or(|wanted| entry::is_by(&record.who, wanted))
            && begins(record.object.as_deref(), &self.object)
    }
}

enum Message {
    Record(Box<Entry>),
    /// Answered once everything before it is written.
    Written(oneshot::Sender<()>),
    Stop,
}

/// The way to the trail. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditHandle {
    sender: SyncSender<Message>,
    /// Entries in the channel.
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    folder: Arc<Path>,
}

impl AuditHandle {
    /// Notes what somebody did. Never waits: what finds no room is counted and lost.
    pub fn record(&self, entry: Entry) {
        let room = room(entry.class);
        // Counted before it is sent: its owner must not see fewer than there are.
        let has_room = self.waiting.fetch_add(1, Relaxed) < room;
        if !has_room || self.sender.try_send(Message::Record(Box::new(entry))).is_err() {
            self.waiting.fetch_sub(1, Relaxed);
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// The records that are wanted, oldest first.
    ///
    /// # Errors
    /// [`PortError`] when the disk cannot give them, or too much waits for it.
    pub async fn read(&self, query: Query) -> Result<Vec<Record>, PortError> {
        let (reply, written) = oneshot::channel();
        self.sender.try_send(Message::Written(reply)).map_err(|error| match error {
            TrySendError::Full(_) => PortError::Overloaded,
            TrySendError::Disconnected(_) => PortError::Stopping,
        })?;
        written.await.map_err(|_| PortError::Stopping)?;
        let folder = Arc::clone(&self.folder);
        let read = tokio::task::spawn_blocking(move || read(&folder, &query));
        read.await.map_err(|_| PortError::Stopping)?.map_err(|error| PortError::Storage {
            detail: format!("the audit trail cannot be read: {error}"),
            fix: "run `hearth doctor`: it says what to free or mend".to_owned(),
        })
    }

    /// How much was lost since the start, because the disk was too slow or refused.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// How far entries of a class may fill the queue: the more of them one can cause, the less, so that no flood
/// pushes out what belongs to security.
fn room(class: Class) -> usize {
    match class {
        Class::Security => QUEUE,
        Class::Deed => QUEUE / 4 * 3,
        Class::Refused => QUEUE / 2,
    }
}

fn read(folder: &Path, query: &Query) -> io::Result<Vec<Record>> {
    let mut records = trail::read(folder, |record| query.wants(record))?;
    if query.after.is_some() {
        records.truncate(query.limit);
    } else {
        records.drain(..records.len().saturating_sub(query.limit));
    }
    Ok(records)
}

/// No thread could be started.
#[derive(Debug, Error)]
#[error("no thread can be started for the audit trail: {0}; free some memory, or raise the limit of tasks")]
pub struct NoThread(#[from] io::Error);

/// The running owner of the trail.
#[derive(Debug)]
pub struct Audit {
    sender: SyncSender<Message>,
    thread: thread::JoinHandle<()>,
}

impl Audit {
    /// Starts it; `clock` says the time in milliseconds since 1970. A disk that refuses stops nothing: it is
    /// tried again.
    ///
    /// # Errors
    /// [`NoThread`].
    pub fn spawn(
        state_dir: &Path,
        clock: impl Fn() -> u64 + Send + 'static,
    ) -> Result<(AuditHandle, Self), NoThread> {
        let folder: Arc<Path> = state_dir.join(FOLDER).into();
        let (sender, receiver) = sync_channel(QUEUE);
        let (waiting, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let writer = Writer::new(folder.to_path_buf(), Box::new(clock), Arc::clone(&lost));
        let left = Arc::clone(&waiting);
        let thread =
            thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&receiver, &left))?;
        Ok((AuditHandle { sender: sender.clone(), waiting, lost, folder }, Self { sender, thread }))
    }

    /// Ends it once everything is on the disk.
    pub async fn stop(self) {
        let Self { sender, thread } = self;
        let stopped = tokio::task::spawn_blocking(move || {
            // Whether it hears of it or is gone already: then it has ended.
            let _ = sender.send(Message::Stop);
            thread.join()
        });
        if !matches!(stopped.await, Ok(Ok(()))) {
            warn!("the audit trail ended by a panic");
        }
    }
}

/// What the thread owns.
struct Writer {
    folder: PathBuf,
    clock: Box<dyn Fn() -> u64 + Send>,
    ledger: Ledger,
    trail: Option<Trail>,
    /// Not before then is a disk tried that refused.
    try_at: Option<Instant>,
    sync_at: Option<Instant>,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn new(folder: PathBuf, clock: Box<dyn Fn() -> u64 + Send>, lost: Arc<AtomicU64>) -> Self {
        let ledger = Ledger::new(Instant::now());
        Self { folder, clock, ledger, trail: None, try_at: None, sync_at: None, lost }
    }

    fn run(mut self, messages: &Receiver<Message>, waiting: &AtomicUsize) {
        self.open(Instant::now());
        loop {
            let due = [self.ledger.next_due(), self.sync_at].into_iter().flatten().min();
            let wait = due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
            match messages.recv_timeout(wait) {
                Ok(Message::Record(entry)) => {
                    waiting.fetch_sub(1, Relaxed);
                    self.take(*entry, Instant::now());
                }
                Ok(Message::Written(reply)) => drop(reply.send(())), // whoever asked is gone
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.work(Instant::now());
        }
        let rest = self.ledger.all();
        self.write_all(rest, Instant::now());
        self.sync(Instant::now());
    }

    fn take(&mut self, entry: Entry, now: Instant) {
        let at_ms = (self.clock)();
        if let Some(record) = self.ledger.take(entry, now, at_ms) {
            self.write_all(vec![record], now);
        }
    }

    /// Does what is due.
    fn work(&mut self, now: Instant) {
        let due = self.ledger.due(now);
        self.write_all(due, now);
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync(now);
        }
    }

    fn write_all(&mut self, records: Vec<(Class, Record)>, now: Instant) {
        for (class, record) in records {
            self.open(now);
            let written = self.trail.as_mut().map(|trail| trail.append(class, record));
            match written {
                // What strangers can cause must not wear out a card: only what somebody was let in to do is worth
                // a sync of its own.
                Some(Ok(())) if class == Class::Security => self.sync(now),
                Some(Ok(())) => drop(self.sync_at.get_or_insert(now + GATHER)),
                Some(Err(error)) => self.refused(&error, now),
                None => drop(self.lost.fetch_add(1, Relaxed)),
            }
        }
    }

    fn sync(&mut self, now: Instant) {
        self.sync_at = None;
        let synced = self.trail.as_mut().filter(|trail| trail.is_dirty()).map_or(Ok(()), Trail::sync);
        if let Err(error) = synced {
            self.refused(&error, now);
        }
    }

    fn open(&mut self, now: Instant) {
        if self.trail.is_some() || self.try_at.is_some_and(|at| now < at) {
            return;
        }
        match Trail::open(&self.folder) {
            Ok(trail) => {
                if trail.torn > 0 {
                    warn!(bytes = trail.torn, "the audit trail had a torn end, which was cut off");
                }
                (self.trail, self.try_at) = (Some(trail), None);
            }
            Err(error) => self.refused(&error, now),
        }
    }

    /// The disk refuses: it is opened anew after a while.
    fn refused(&mut self, error: &io::Error, now: Instant) {
        let folder = self.folder.display();
        warn!(%folder, %error, "the audit trail cannot be written: `hearth doctor` says what to free or mend");
        self.lost.fetch_add(1, Relaxed);
        (self.trail, self.sync_at, self.try_at) = (None, None, Some(now + TRY_AGAIN));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::fs;

    use super::*;
    use crate::api::fake::TestFolder;

    fn all() -> Query {
        Query { limit: MAX_RECORDS, after: None, who: None, object: None, since_ms: None }
    }

    #[tokio::test]
    async fn records_are_found_by_who_object_and_time_and_survive_a_restart() {
        let folder = TestFolder::new();
        let (handle, audit) = Audit::spawn(folder.path(), || 5_000).unwrap();
        let ann = |class, object: &str| Entry::new(class, "user:ann", "command", 202).object(Some(object));
        handle.record(ann(Class::Deed, "device/lamp"));
        handle.record(ann(Class::Deed, "device/plug"));
        handle.record(Entry::new(Class::Security, "token:3f", "POST /api/v1/tokens", 200));
        let refused = Entry::new(Class::Refused, "nobody", "GET /api/v1/status", 401);
        handle.record(refused.from(Some([10, 0, 0, 7].into()), None));
        let found = handle.read(all()).await.unwrap();
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.is_sorted_by_key(|record| record.seq) && found.iter().all(|record| record.at == 5_000));
        let count = async |query: Query| handle.read(query).await.unwrap().len();
        assert_eq!(count(Query { who: Some("user:".into()), ..all() }).await, 2);
        assert_eq!(count(Query { who: Some("user:an".into()), ..all() }).await, 0);
        assert_eq!(count(Query { object: Some("device/lamp".into()), ..all() }).await, 1);
        assert_eq!(count(Query { since_ms: Some(5_001), ..all() }).await, 0);
        let page = handle.read(Query { limit: 1, ..all() }).await.unwrap();
        assert_eq!((page[0].seq, page[0].what.as_str()), (4, "GET /api/v1/status"), "the newest");
        let page = handle.read(Query { limit: 1, after: Some(2), ..all() }).await.unwrap();
        assert_eq!(page[0].who, "token:3f", "the next one");
        audit.stop().await;
        assert!(matches!(handle.read(all()).await, Err(PortError::Stopping)));
        let (handle, _audit) = Audit::spawn(folder.path(), || 6_000).unwrap();
        assert_eq!(handle.read(all()).await.unwrap(), found);
    }

    #[tokio::test]
    async fn a_thousand_commands_write_less_than_a_fifth_of_a_mebibyte() {
        let folder = TestFolder::new();
        let (handle, audit) = Audit::spawn(folder.path(), || 1_800_000_000_000).unwrap();
        for number in 0..1_000 {
            // A home of 50 lamps, four people: more than one ever does at once.
            let who = format!("user:person-{}", number % 4);
            let entry = Entry::new(Class::Deed, who, "command", "confirmed");
            let (object, id) = (format!("device/lifx-d073d5{:06x}", number % 50), format!("{number:032x}"));
            handle.record(
                entry.object(Some(&object)).command(Some(&id)).from(Some([192, 168, 1, 5].into()), None),
            );
            if number % 500 == 0 {
                handle.read(all()).await.unwrap();
            }
        }
        audit.stop().await;
        assert_eq!(handle.lost(), 0);
        let bytes: u64 = fs::read_dir(folder.path().join(FOLDER))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes < 200 << 10, "{bytes} bytes");
    }

    #[test]
    fn a_flood_pushes_out_nothing_that_belongs_to_security() {
        let (sender, receiver) = sync_channel(QUEUE);
        let folder: Arc<Path> = Path::new("").into();
        let handle = AuditHandle { sender, waiting: Arc::default(), lost: Arc::default(), folder };
        let flood = |class| (0..2 * QUEUE).for_each(|_| handle.record(Entry::new(class, "nobody", "x", 401)));
        flood(Class::Refused);
        assert_eq!(handle.lost(), 3 * 512);
        flood(Class::Deed);
        assert_eq!(handle.lost(), 3 * 512 + 7 * 256);
        for number in 0..QUEUE / 4 {
            handle.record(Entry::new(Class::Security, "user:ann", "POST /api/v1/tokens", number));
        }
        assert_eq!(handle.lost(), 3 * 512 + 7 * 256, "there was room for each");
        assert_eq!(receiver.try_iter().count(), QUEUE);
    }

    #[test]
    fn only_what_belongs_to_security_is_on_the_disk_at_once() {
        let folder = TestFolder::new();
        let mut writer = Writer::new(folder.path().join(FOLDER), Box::new(|| 7), Arc::default());
        let now = Instant::now();
        let entry = |class| Entry::new(class, "user:ann", "command", 403);
        for class in [Class::Deed, Class::Refused] {
            writer.take(entry(class), now);
            assert_eq!(writer.sync_at, Some(now + GATHER));
            assert!(writer.trail.as_ref().unwrap().is_dirty());
            writer.work(now + GATHER);
            assert!(!writer.trail.as_ref().unwrap().is_dirty() && writer.sync_at.is_none());
        }
        writer.take(entry(Class::Refused), now + Duration::from_secs(120));
        writer.take(entry(Class::Security), now + Duration::from_secs(120));
        assert!(!writer.trail.as_ref().unwrap().is_dirty() && writer.sync_at.is_none());
    }

    #[tokio::test]
    async fn a_disk_that_refuses_stops_nothing_and_is_counted() {
        let folder = TestFolder::new();
        fs::write(folder.path().join(FOLDER), "in the way").unwrap();
        let (handle, audit) = Audit::spawn(folder.path(), || 0).unwrap();
        handle.record(Entry::new(Class::Security, "socket:0", "POST /api/v1/tokens", 200));
        assert!(matches!(handle.read(all()).await, Err(PortError::Storage { .. })));
        audit.stop().await;
        assert!(handle.lost() >= 1);
    }
}
