//! The thread that owns the store of a running daemon.
//!
//! Commits block on the disk, so they happen on a thread of their own. Batches that wait while one
//! commit is under way are committed together: that is the group commit which makes many writers
//! cheap. Results come back in the order of the batches, and the result of a batch is sent only
//! after everything up to it is durable.
//!
//! After a commit fails (the disk is full), batches that follow are refused with
//! [`StoreError::Blocked`] until the failed one is committed again under its number: were a later
//! batch let through, a retry of the earlier one would put old values over new ones. The caller
//! keeps its batches until their result is `Ok`, and after an error commits all that are left, in
//! order.

use super::export::{self, Export};
use super::{Batch, Changes, MAX_BATCH_BYTES, Rebuilt, Store, StoreError, StoreSize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// How long the worker waits for work before it tells the store to rest.
const IDLE: Duration = Duration::from_millis(500);
/// A store that is never idle rests after this many commits all the same.
const COMMITS_PER_REST: u32 = 10_000;

/// The result of one batch.
#[derive(Debug)]
pub struct Committed {
    /// The number that the batch was handed over with.
    pub batch_id: u64,
    /// `Ok` when it would survive a power cut. After an error the caller still holds the batch and
    /// decides whether to commit it again.
    pub result: Result<(), StoreError>,
}

/// Something to be done with the store between two commits; it calls its second argument often, as
/// its sign of life.
type Job = Box<dyn FnOnce(&mut dyn Store, &mut dyn FnMut()) + Send>;

enum Request {
    Commit { batch_id: u64, batch: Batch },
    Job(Job),
    Close,
}

/// The way to the store thread. Dropping it closes the store like [`StoreHandle::close`].
pub struct StoreHandle {
    requests: std_mpsc::Sender<Request>,
    heartbeat: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

impl StoreHandle {
    /// Starts the thread. The receiver yields one [`Committed`] for each batch, in order, and ends
    /// when the store was closed.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn spawn(store: Box<dyn Store>) -> std::io::Result<(Self, mpsc::UnboundedReceiver<Committed>)> {
        let (requests, received) = std_mpsc::channel();
        #[expect(
            clippy::disallowed_methods,
            reason = "one result for each batch that the caller handed over"
        )]
        let (results, committed) = mpsc::unbounded_channel();
        let heartbeat = Arc::new(AtomicU64::new(0));
        let worker =
            Worker { store, received, results, heartbeat: Arc::clone(&heartbeat), failed: None, unrested: 0 };
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || worker.run())?;
        Ok((Self { requests, heartbeat, thread: Some(thread) }, committed))
    }

    /// Hands a batch over; never blocks. Numbers should rise.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when the thread has ended; no result follows then.
    pub fn commit(&self, batch_id: u64, batch: Batch) -> Result<(), StoreError> {
        self.requests.send(Request::Commit { batch_id, batch }).map_err(|_| StoreError::Closed)
    }

    /// The way to have other things done with the store, for as long as it is open.
    pub fn jobs(&self) -> StoreJobs {
        StoreJobs { requests: self.requests.clone() }
    }

    /// Rises at least once a second while the thread lives and the disk answers; for the watchdog.
    pub fn heartbeat(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.heartbeat)
    }

    /// Commits what was handed over, flushes, closes the store and waits for the thread. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// What the store said on closing.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        let _ended_already = self.requests.send(Request::Close);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(closed)) => closed,
            Some(Err(_)) => Err(StoreError::Closed),
            None => Ok(()),
        }
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "the store did not close as it should");
        }
    }
}

/// Has the store thread do other things than commit. Commits wait meanwhile, so what takes long belongs
/// in the quiet hours. Everything handed over before counts.
#[derive(Clone)]
pub struct StoreJobs {
    requests: std_mpsc::Sender<Request>,
}

impl StoreJobs {
    /// Runs `job` on the store thread. Its second argument is to be called often: it is the thread's
    /// sign of life.
    ///
    /// # Errors
    /// What the job says, or [`StoreError::Closed`].
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Store, &mut dyn FnMut()) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |store, progress| {
            let _asker_is_gone = reply.send(job(store, progress));
        });
        self.requests.send(Request::Job(job)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Writes the next numbered export into `folder`.
    ///
    /// # Errors
    /// What [`export::write_next`] says, or [`StoreError::Closed`].
    pub async fn export(&self, folder: PathBuf, now: SystemTime) -> Result<Export, StoreError> {
        self.run(move |store, progress| export::write_next(store, &folder, now, progress)).await
    }

    /// See [`Store::rebuild_if_grown`].
    ///
    /// # Errors
    /// What it says, or [`StoreError::Closed`].
    pub async fn rebuild_if_grown(&self) -> Result<Option<Rebuilt>, StoreError> {
        self.run(|store, progress| store.rebuild_if_grown(progress)).await
    }

    /// See [`Store::size`].
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn size(&self) -> Result<StoreSize, StoreError> {
        self.run(|store, _| Ok(store.size())).await
    }
}

struct Worker {
    store: Box<dyn Store>,
    received: std_mpsc::Receiver<Request>,
    results: mpsc::UnboundedSender<Committed>,
    heartbeat: Arc<AtomicU64>,
    /// The batch that must be committed again before any other.
    failed: Option<u64>,
    unrested: u32,
}

impl Worker {
    fn run(mut self) -> Result<(), StoreError> {
        let mut next = None;
        loop {
            let request = match next.take() {
                Some(request) => request,
                None => match self.received.recv_timeout(IDLE) {
                    Ok(request) => request,
                    Err(RecvTimeoutError::Timeout) => {
                        self.rest();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => Request::Close,
                },
            };
            match request {
                Request::Commit { batch_id, batch } => {
                    next = self.commit_group(batch_id, batch);
                }
                Request::Job(job) => {
                    let beat = Arc::clone(&self.heartbeat);
                    let mut progress = || {
                        beat.fetch_add(1, Ordering::Relaxed);
                    };
                    job(self.store.as_mut(), &mut progress);
                }
                Request::Close => return self.store.close(),
            }
            self.beat();
        }
    }

    fn beat(&self) {
        self.heartbeat.fetch_add(1, Ordering::Relaxed);
    }

    fn rest(&mut self) {
        self.unrested = 0;
        if let Err(error) = self.store.rest() {
            tracing::warn!(%error, "the store could not write its mark");
        }
        self.beat();
    }

    /// Commits the batch and those that wait behind it, up to the size limit, as one. Returns the
    /// first request that is not part of the group.
    fn commit_group(&mut self, batch_id: u64, batch: Batch) -> Option<Request> {
        let mut group = Group::default();
        self.join(&mut group, batch_id, batch);
        let mut next = None;
        loop {
            match self.received.try_recv() {
                Ok(Request::Commit { batch_id, batch }) => {
                    if group.bytes + batch.bytes() > MAX_BATCH_BYTES {
                        next = Some(Request::Commit { batch_id, batch });
                        break;
                    }
                    self.join(&mut group, batch_id, batch);
                }
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        self.commit(group);
        self.unrested += 1;
        if self.unrested >= COMMITS_PER_REST {
            self.rest();
        }
        next
    }

    /// Adds a batch to the group, or notes why it is none of it.
    fn join(&mut self, group: &mut Group, batch_id: u64, batch: Batch) {
        let bytes = batch.bytes();
        let refused = match (batch.check(), self.failed) {
            (Err(error), _) => Some(error),
            (Ok(()), Some(failed)) if failed != batch_id => Some(StoreError::Blocked { failed }),
            (Ok(()), _) => None,
        };
        if refused.is_none() {
            self.failed = None;
            group.bytes += bytes;
            group.add(batch);
        }
        group.members.push(Member { batch_id, refused });
    }

    fn commit(&mut self, group: Group) {
        let batch = group.batch();
        let mut result = if batch.is_empty() { Ok(()) } else { self.store.commit(&batch) };
        for Member { batch_id, refused } in group.members {
            let result = match refused {
                Some(refused) => Err(refused),
                // The first batch of a failed group carries the error and blocks the rest.
                None => match (std::mem::replace(&mut result, Ok(())), self.failed) {
                    (Err(error), _) => {
                        self.failed = Some(batch_id);
                        Err(error)
                    }
                    (Ok(()), Some(failed)) => Err(StoreError::Blocked { failed }),
                    (Ok(()), None) => Ok(()),
                },
            };
            let _nobody_listens = self.results.send(Committed { batch_id, result });
        }
    }
}

struct Member {
    batch_id: u64,
    refused: Option<StoreError>,
}

/// Batches to be committed as one, the later over the earlier.
#[derive(Default)]
struct Group {
    members: Vec<Member>,
    bytes: usize,
    single: Option<Batch>,
    merged: Changes,
}

impl Group {
    fn add(&mut self, batch: Batch) {
        if self.single.is_none() && self.merged.is_empty() {
            self.single = Some(batch);
            return;
        }
        if let Some(first) = self.single.take() {
            self.merged.add(first);
        }
        self.merged.add(batch);
    }

    fn batch(&self) -> Batch {
        self.single.clone().unwrap_or_else(|| self.merged.batch())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::tests::{Card, Folder};
    use crate::store::unsynced::{Moment, Power};
    use std::ops::RangeInclusive;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    type Seen = Arc<Mutex<Records>>;
    type Records = Vec<(Vec<u8>, Vec<u8>)>;
    type Gate = Sender<Result<(), StoreError>>;

    /// A store that waits at each commit for the test to say how it ends, and shows its content.
    struct Gated {
        inner: MemoryStore,
        gate: Receiver<Result<(), StoreError>>,
        entered: Sender<usize>,
        seen: Seen,
    }

    impl Store for Gated {
        fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
            self.inner.load(each)
        }
        fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
            self.entered.send(batch.puts.len()).unwrap();
            self.gate.recv().unwrap()?;
            self.inner.commit(batch)
        }
        fn close(&mut self) -> Result<(), StoreError> {
            *self.seen.lock().unwrap() = self.inner.records().clone().into_iter().collect();
            Ok(())
        }
    }

    fn gated() -> (Box<dyn Store>, Gate, Receiver<usize>, Seen) {
        let (open, gate) = channel();
        let (entered, watch) = channel();
        let seen = Seen::default();
        let store = Gated { inner: MemoryStore::new(), gate, entered, seen: Arc::clone(&seen) };
        (Box::new(store), open, watch, seen)
    }

    fn put(key: &str, value: &str) -> Batch {
        Batch { puts: vec![(key.into(), value.into())], deletes: vec![] }
    }

    fn full() -> Result<(), StoreError> {
        Err(StoreError::DiskFull { path: "/x".into(), free: 0, needed: 1 })
    }

    #[test]
    fn batches_that_wait_are_committed_together_and_answered_in_order() {
        let (store, open, entered, seen) = gated();
        let (handle, mut results) = StoreHandle::spawn(store).unwrap();
        handle.commit(1, put("a", "1")).unwrap();
        assert_eq!(entered.recv().unwrap(), 1);
        for id in 2..=5 {
            handle.commit(id, put(&format!("k{}", id % 2), &id.to_string())).unwrap();
        }
        handle.commit(6, Batch { puts: vec![], deletes: vec![b"k0".to_vec()] }).unwrap();
        assert!(results.try_recv().is_err(), "nothing is acknowledged before its commit returns");
        open.send(Ok(())).unwrap();
        assert_eq!(entered.recv().unwrap(), 1, "five batches in one commit, two keys, one of them deleted");
        open.send(Ok(())).unwrap();
        let ids: Vec<u64> = (0..6).map(|_| results.blocking_recv().unwrap()).map(|c| c.batch_id).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
        handle.close().unwrap();
        assert_eq!(*seen.lock().unwrap(), [(b"a".to_vec(), b"1".to_vec()), (b"k1".to_vec(), b"5".to_vec())]);
        assert!(results.blocking_recv().is_none(), "the results end");
    }

    #[test]
    fn after_a_full_disk_nothing_overtakes_the_batch_that_failed() {
        let (store, open, entered, seen) = gated();
        let (handle, mut results) = StoreHandle::spawn(store).unwrap();
        handle.commit(1, put("a", "old")).unwrap();
        entered.recv().unwrap();
        open.send(full()).unwrap();
        let first = results.blocking_recv().unwrap();
        assert!(matches!(first, Committed { batch_id: 1, result: Err(StoreError::DiskFull { .. }) }));
        handle.commit(2, put("a", "new")).unwrap();
        let second = results.blocking_recv().unwrap();
        assert!(matches!(second, Committed { batch_id: 2, result: Err(StoreError::Blocked { failed: 1 }) }));
        handle.commit(1, put("a", "old")).unwrap();
        entered.recv().unwrap();
        handle.commit(2, put("a", "new")).unwrap();
        open.send(Ok(())).unwrap();
        open.send(Ok(())).unwrap();
        for id in 1..=2 {
            let done = results.blocking_recv().unwrap();
            assert_eq!((done.batch_id, done.result.is_ok()), (id, true));
        }
        handle.close().unwrap();
        assert_eq!(*seen.lock().unwrap(), [(b"a".to_vec(), b"new".to_vec())]);
    }

    const MOMENTS: [Moment; 3] = [Moment::Before, Moment::Written, Moment::Synced];

    /// Batch 1 is a commit of its own, 2 to 6 wait for it and are the second, 7 is the third. In the second the disk
    /// may refuse once, and what was not answered with `Ok` is then committed again. The power goes at `cut`.
    /// Returns the batches that were answered with `Ok`, and those that the next boot finds.
    fn group_of_five(refuses: Option<Moment>, cut: (u64, Moment)) -> (Vec<u64>, Vec<u64>) {
        let mut refuses = refuses.map(|moment| (1, moment));
        let card = Card::new(Box::new(move |commit, moment| {
            if (commit, moment) == cut {
                Power::Cut
            } else if refuses.take_if(|point| *point == (commit, moment)).is_some() {
                Power::Refuse
            } else {
                Power::On
            }
        }));
        let (handle, mut results) = StoreHandle::spawn(Box::new(card.clone())).unwrap();
        let numbered = |id: u64| {
            let mut batch = put(&format!("batch/{id}"), &id.to_string());
            batch.puts.push((b"newest".to_vec(), vec![u8::try_from(id).unwrap()]));
            batch
        };
        let mut answered = Vec::new();
        // The thread takes them when all are handed over.
        let mut commit = |ids: RangeInclusive<u64>| {
            let (open, gate) = channel::<()>();
            let wait = Request::Job(Box::new(move |_, _| assert!(gate.recv().is_err())));
            assert!(handle.requests.send(wait).is_ok());
            ids.clone().for_each(|id| handle.commit(id, numbered(id)).unwrap());
            drop(open);
            for id in ids {
                let Committed { batch_id, result } = results.blocking_recv().unwrap();
                assert_eq!(batch_id, id);
                answered.extend(result.is_ok().then_some(id));
            }
            answered.last().map_or(1, |last| last + 1)
        };
        commit(1..=1);
        let next = commit(2..=6);
        commit(next..=6);
        commit(7..=7);

        let mut found = Vec::new();
        let mut newest = 0;
        let mut each = |key: &[u8], value: &[u8]| match key {
            b"newest" => newest = value[0].into(),
            _ => found.push(std::str::from_utf8(value).unwrap().parse().unwrap()),
        };
        card.pull().crash().load(&mut each).unwrap();
        assert_eq!(found.last().copied().unwrap_or(0), newest, "the newest of {found:?}");
        (answered, found)
    }

    #[test]
    fn of_a_group_commit_nothing_is_answered_that_a_power_cut_takes() {
        for moment in MOMENTS {
            let kept = |before: u64, with: u64| if moment == Moment::Synced { with } else { before };
            for (commit, answered, found) in [(0, 0, kept(0, 1)), (1, 1, kept(1, 6)), (2, 6, kept(6, 7))] {
                let expected = ((1..=answered).collect(), (1..=found).collect());
                assert_eq!(group_of_five(None, (commit, moment)), expected, "commit {commit}, {moment:?}");
            }
        }
    }

    #[test]
    fn nor_of_one_that_failed_and_was_committed_again() {
        for (refuses, cut) in MOMENTS.into_iter().flat_map(|refuses| MOMENTS.map(|cut| (refuses, cut))) {
            let (answered, found) = group_of_five(Some(refuses), (2, cut));
            assert_eq!(answered, [1, 2, 3, 4, 5, 6], "refused {refuses:?}, cut {cut:?}");
            let all = if cut == Moment::Synced { 7 } else { 6 };
            assert_eq!(found, (1..=all).collect::<Vec<_>>(), "refused {refuses:?}, cut {cut:?}");
        }
    }

    #[test]
    fn a_wrong_batch_is_answered_alone_and_blocks_nobody() {
        let (handle, mut results) = StoreHandle::spawn(Box::new(MemoryStore::new())).unwrap();
        handle.commit(1, put("", "x")).unwrap();
        handle.commit(2, put("a", "x")).unwrap();
        assert!(matches!(results.blocking_recv().unwrap().result, Err(StoreError::EmptyKey)));
        assert!(results.blocking_recv().unwrap().result.is_ok());
    }

    #[test]
    fn the_heart_beats_when_idle_and_stops_when_the_disk_hangs() {
        let (store, open, entered, _) = gated();
        let (handle, _results) = StoreHandle::spawn(store).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let beats = || handle.heartbeat().load(Ordering::Relaxed);
        while beats() < 2 {
            assert!(Instant::now() < deadline, "no heartbeat");
            std::thread::yield_now();
        }
        handle.commit(1, put("a", "1")).unwrap();
        entered.recv().unwrap();
        let stopped = beats();
        assert!(entered.recv_timeout(Duration::from_millis(1200)).is_err());
        assert_eq!(beats(), stopped, "the watchdog sees a commit that hangs");
        open.send(Ok(())).unwrap();
    }

    #[tokio::test]
    async fn an_export_holds_what_was_handed_over_before_it() {
        let folder = Folder::new();
        let (handle, _results) = StoreHandle::spawn(Box::new(MemoryStore::new())).unwrap();
        for id in 0..10 {
            handle.commit(id, put(&format!("k{id}"), "v")).unwrap();
        }
        let export = handle.jobs().export(folder.join("exports"), SystemTime::now()).await.unwrap();
        assert_eq!(export.records, 10);
        assert_eq!(export::verify(&export.path).unwrap(), export);
    }
}
