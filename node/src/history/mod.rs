//! History: what the sensors, the state and the availability of each device were, on this node and for this node.
//!
//! One task watches the objects of all devices and records what changes. Nothing of it is replicated: every node
//! sees every device, so each keeps what it saw. Every ten minutes, and when the node stops, one batch goes to each of
//! two rings of files of a fixed size in the folder `history/`:
//!
//! | ring | what | share |
//! | --- | --- | --- |
//! | `recent` | numbers as they change, one in ten seconds at most | a third |
//! | `long` | least, mean, greatest and last of each number between two flushes; states as they change | the rest |
//!
//! The sums are of ten minutes and not of some other time, so that each flush writes whole ones: a power cut costs what
//! came after the last flush, in both rings, and a start has nothing to mend.
//!
//! | module | what it is |
//! | --- | --- |
//! | `observed` | from an object to series |
//! | `recorder` | what waits for the next flush |
//! | `batch` | what is written at once, and its form on the disk |
//! | `ring` | the files |
//! | `answer` | from batches to a few points |
//! | `report` | how it is, for `hearth doctor` and `/metrics` |

mod answer;
mod batch;
mod disk;
mod observed;
mod recorder;
mod report;
mod ring;

use std::{
    collections::BTreeSet,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use crate::{
    api::ports::{
        PortError,
        history::{HistoryQuery, HistoryRequest, HistoryView, Moment},
    },
    devices::HouseholdClock,
    service::{Change, Changes, HouseholdTime, ObjectView, Service, ServiceError},
};
use disk::{Disk, Ended, Reading};
pub use observed::key_of_sensor;
use recorder::Recorder;
pub use report::{Keeping, Report};

/// How often is looked for what is due.
const TICK: Duration = Duration::from_secs(2);
/// Between two flushes.
const FLUSH_EVERY: Duration = Duration::from_secs(600);
/// A clock that goes back by more is one that was set, in seconds.
const BACK_S: u64 = 60;
/// A clock that goes on by more between two ticks is one that was set, in seconds.
const ON_S: u64 = 180;
/// Histories that are read at the same time.
const READERS: usize = 2;
/// Histories that wait to be read.
const WAITING: usize = 16;

/// What the history is made of.
pub struct HistoryParts {
    /// The way to objects.
    pub service: Service,
    /// What the API asks.
    pub requests: mpsc::Receiver<HistoryRequest>,
    /// Its folder.
    pub folder: PathBuf,
    /// Whether anything is recorded; what there is stays where nothing is.
    pub enabled: bool,
    /// Room for it on the disk in MiB, 2 or more; 0 to keep none, and delete what there is.
    pub megabytes: u32,
    /// The time of day, from the event loop.
    pub time: watch::Receiver<HouseholdTime>,
    /// Becomes `true` when the node stops. Join the task before the event loop is stopped.
    pub shutdown: watch::Receiver<bool>,
    /// Bumped at least every two seconds; the watchdog looks at it.
    pub heartbeat: Arc<AtomicU64>,
}

/// The running task.
#[derive(Debug)]
pub struct HistoryTask {
    /// Ends when the node stops, after the last flush, or when the event loop is gone.
    pub task: JoinHandle<()>,
    /// How it is.
    pub report: watch::Receiver<Report>,
}

type NextChanges = Pin<Box<dyn Future<Output = Result<Changes, ServiceError>> + Send>>;

/// The owner of the history of this node.
pub struct History {
    service: Service,
    requests: mpsc::Receiver<HistoryRequest>,
    shutdown: watch::Receiver<bool>,
    heartbeat: Arc<AtomicU64>,
    clock: HouseholdClock,
    /// The time of the last tick, in seconds since 1970.
    now: u64,
    recorder: Recorder,
    folder: PathBuf,
    megabytes: u32,
    /// None when it cannot be opened, which is tried again at each flush.
    disk: Option<Disk>,
    /// Devices whose objects are there and complete.
    known: BTreeSet<Arc<str>>,
    /// Devices that the rings hold and no object has been seen of; forgotten at the first flush.
    unseen: BTreeSet<Arc<str>>,
    flushed_at: Instant,
    report: watch::Sender<Report>,
    /// Histories that are read or wait for it.
    readers: Arc<Semaphore>,
    /// Of them those that are read.
    turns: Arc<Semaphore>,
}

impl History {
    /// Starts the task that owns the history.
    pub fn spawn(parts: HistoryParts) -> HistoryTask {
        let keeping = match (parts.enabled, parts.megabytes) {
            (_, 0) => Keeping::Nothing,
            (true, _) => Keeping::Recording,
            (false, _) => Keeping::Paused,
        };
        let known = Report { keeping, megabytes: parts.megabytes, ..Report::default() };
        let (told, report) = watch::channel(known);
        let task = tokio::spawn(async move {
            match keeping {
                Keeping::Recording => Self::new(parts, told).run().await,
                Keeping::Paused => {
                    info!(
                        "the history is switched off: nothing is recorded, and what there is stays; `megabytes = 0` deletes it"
                    );
                    refuse_all(parts).await;
                }
                Keeping::Nothing => {
                    tokio::join!(delete(parts.folder.clone(), told), refuse_all(parts));
                }
            }
        });
        HistoryTask { task, report }
    }

    fn new(parts: HistoryParts, report: watch::Sender<Report>) -> Self {
        let clock = HouseholdClock::new(parts.time);
        let now = clock.now_ms() / 1_000;
        Self {
            service: parts.service,
            requests: parts.requests,
            shutdown: parts.shutdown,
            heartbeat: parts.heartbeat,
            clock,
            now,
            recorder: Recorder::new(now),
            folder: parts.folder,
            megabytes: parts.megabytes,
            disk: None,
            known: BTreeSet::new(),
            unseen: BTreeSet::new(),
            flushed_at: Instant::now(),
            report,
            readers: Arc::new(Semaphore::new(READERS + WAITING)),
            turns: Arc::new(Semaphore::new(READERS)),
        }
    }

    async fn run(mut self) {
        self.open().await;
        self.unseen = self.disk.as_ref().map(Disk::devices).unwrap_or_default();
        if self.serve().await.is_err() {
            debug!("the event loop is gone: the history stops");
        }
        self.requests.close();
        self.flush(self.seconds(), true).await;
    }

    /// Serves until the node stops; an error means that the event loop is gone.
    async fn serve(&mut self) -> Result<(), ServiceError> {
        let mut watcher = watch_objects(&self.service).await?;
        let mut next = next_changes(&self.service, watcher);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_live = false;
        let mut absent = BTreeSet::new();
        loop {
            self.heartbeat.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                biased;
                () = stopped(&mut self.shutdown) => return Ok(()),
                changes = &mut next => {
                    match changes {
                        Ok(changes) => {
                            for change in changes.changes {
                                absent.remove(change.id.name());
                                self.see(change);
                            }
                            if changes.caught_up {
                                is_live = true;
                                std::mem::take(&mut absent).iter().for_each(|device| self.forget(device));
                            }
                        }
                        // It fell too far behind. A new one begins with what is there, not with what went.
                        Err(ServiceError::NoSuchWatcher) => {
                            absent.clone_from(&self.known);
                            watcher = watch_objects(&self.service).await?;
                        }
                        Err(stopped) => return Err(stopped),
                    }
                    next = next_changes(&self.service, watcher);
                }
                Some(HistoryRequest::Read(query, reply)) = self.requests.recv(), if is_live => {
                    self.read(query, reply);
                }
                _ = tick.tick() => self.tick().await,
            }
        }
    }

    fn see(&mut self, change: Change) {
        if change.id.kind() != "device" {
            return;
        }
        let device: Arc<str> = change.id.name().into();
        match change.object {
            Some(object) => {
                if self.unseen.remove(&device) && self.is_made_anew(&object) {
                    self.recorder.forget(&device);
                }
                self.known.insert(device.clone());
                let now = self.seconds();
                self.recorder.see(&device, observed::observed(&object), now);
            }
            None => self.forget(&device),
        }
    }

    /// A device that was there is gone. One that never was is just being made, or comes from another node in pieces.
    fn forget(&mut self, device: &Arc<str>) {
        if self.known.remove(device) {
            self.recorder.forget(device);
        }
    }

    /// Whether a device that the rings know was deleted and found again while nobody here looked: then nothing of its
    /// object is older than what was written last.
    fn is_made_anew(&self, object: &ObjectView) -> bool {
        let to = self.disk.as_ref().and_then(Disk::to).unwrap_or(0);
        object.fields.values().all(|field| field.at_ms / 1_000 > to)
    }

    async fn tick(&mut self) {
        let now = self.clock.now_ms() / 1_000;
        if now.saturating_add(BACK_S) < self.now || self.now.saturating_add(ON_S) < now {
            debug!(from = self.now, to = now, "the clock was set: the history begins anew");
            self.flush(self.now, true).await;
            self.recorder.begin_again(now);
        }
        self.now = now;
        self.recorder.settle(now);
        self.tell(|_| {});
        if self.flushed_at.elapsed() >= FLUSH_EVERY {
            // A store that was mended to nothing has no device before its peers are there.
            if !self.known.is_empty() {
                for device in std::mem::take(&mut self.unseen) {
                    self.recorder.forget(&device);
                }
            }
            self.flush(now, false).await;
        }
    }

    /// The time, in seconds since 1970, near that of the last tick: a clock that is set is noticed there.
    fn seconds(&self) -> u64 {
        let now = self.clock.now_ms() / 1_000;
        now.clamp(self.now, self.now.saturating_add(ON_S))
    }

    async fn open(&mut self) {
        let (folder, megabytes) = (self.folder.clone(), self.megabytes);
        let opened = tokio::task::spawn_blocking(move || Disk::open(&folder, megabytes));
        match self.wait_for(opened).await {
            Some(Ok(disk)) => {
                self.disk = Some(disk);
                self.tell(|report| report.failing = None);
            }
            Some(Err(error)) => self.fails(&error.to_string()),
            None => self.fails("it could not be opened"),
        }
    }

    /// Writes what waits, up to this second. Unless it `must`, nothing is written when nothing has changed for less
    /// than an hour.
    async fn flush(&mut self, now: u64, must: bool) {
        self.flushed_at = Instant::now();
        if self.disk.is_none() {
            self.open().await;
        }
        let Some(disk) = self.disk.take() else { return };
        let jobs = disk::jobs(&self.recorder, now, must);
        if jobs.is_empty() {
            self.disk = Some(disk);
            return;
        }
        let writing = tokio::task::spawn_blocking(move || disk.write(jobs));
        let Some(Ended { disk, written, failed }) = self.wait_for(writing).await else {
            return self.fails("it could not be written");
        };
        self.disk = Some(disk);
        let bytes: usize = written.iter().map(|(_, _, appended)| appended.bytes).sum();
        debug!(bytes, to = now, "wrote the history");
        for (ring, batch, appended) in &written {
            self.recorder.written(*ring, batch);
            self.recorder.drop_more(appended.left_out);
        }
        self.tell(|report| {
            report.written_bytes += bytes as u64;
            report.entries += written.len() as u64;
            report.written_at = if written.is_empty() { report.written_at } else { Some(Instant::now()) };
        });
        match failed {
            Some(error) => self.fails(&error.to_string()),
            None => self.tell(|report| report.failing = None),
        }
    }

    /// Tells how it is, for whoever looks.
    fn tell(&self, also: impl FnOnce(&mut Report)) {
        let disk = self.disk.as_ref().map(|disk| (disk.bytes(), disk.damaged()));
        self.report.send_if_modified(|report| {
            let before = report.clone();
            also(report);
            report.dropped = self.recorder.dropped();
            (report.disk_bytes, report.damaged) = disk.unwrap_or((report.disk_bytes, report.damaged));
            *report != before
        });
    }

    /// Waits for something that a disk may hold up, and shows signs of life meanwhile.
    async fn wait_for<T>(&self, mut job: JoinHandle<T>) -> Option<T> {
        let mut tick = interval(TICK);
        loop {
            tokio::select! {
                done = &mut job => return done.ok(),
                _ = tick.tick() => drop(self.heartbeat.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    fn fails(&self, reason: &str) {
        let was_failing = self.report.borrow().failing.is_some();
        self.tell(|report| report.failing = Some(reason.to_owned()));
        if !was_failing {
            warn!(%reason, "the history cannot be kept; tried again every ten minutes, and it goes on in memory as far as there is room");
        }
    }

    fn read(&self, query: HistoryQuery, reply: crate::api::ports::Reply<HistoryView>) {
        let Ok(permit) = self.readers.clone().try_acquire_owned() else {
            let _ = reply.send(Err(PortError::Overloaded)); // whoever asked is gone
            return;
        };
        let now = self.seconds();
        let at = |moment: Moment| match moment {
            Moment::At(at) => at,
            Moment::Ago(ago) => now.saturating_sub(ago.as_secs()),
        };
        let (since, until) = (at(query.since), at(query.until).min(now.saturating_add(1)));
        if since >= until {
            let detail = "the time that is asked for ends before it begins".to_owned();
            let fix = "give a `since` that is before `until` and not in the future".to_owned();
            let _ = reply.send(Err(PortError::Invalid { detail, fix }));
            return;
        }
        let grid = answer::Grid::new(since, until, query.points);
        let reading = Reading::new(&query, grid, &self.recorder, self.disk.as_ref(), now);
        let turns = self.turns.clone();
        tokio::spawn(async move {
            let turn = turns.acquire_owned().await;
            // A thread is taken only in its turn: many at once would hold up everything else on a card.
            let answered = tokio::task::spawn_blocking(move || reply.send(Ok(reading.answer())));
            let _ = answered.await; // whoever asked is gone
            drop((turn, permit));
        });
    }
}

/// Deletes what was recorded when the node had room for it.
async fn delete(folder: PathBuf, report: watch::Sender<Report>) {
    let deleted = tokio::task::spawn_blocking(move || Disk::delete(&folder)).await;
    let failed = match deleted {
        Ok(Ok(0)) => return,
        Ok(Ok(files)) => {
            return info!(
                files,
                "there is no room for a history (`megabytes = 0`): what was kept is deleted"
            );
        }
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    warn!(reason = %failed, "the history should be deleted (`megabytes = 0`) and cannot be; tried again at the next start");
    report.send_modify(|report| report.failing = Some(failed));
}

/// Answers that there is none.
async fn refuse_all(mut parts: HistoryParts) {
    let mut tick = interval(TICK);
    loop {
        parts.heartbeat.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            () = stopped(&mut parts.shutdown) => return,
            Some(HistoryRequest::Read(_, reply)) = parts.requests.recv() => {
                let refused = PortError::Conflict {
                    detail: "this node keeps no history: its config file says so".to_owned(),
                    fix: "set `enabled = true` and `megabytes` above 0 under [history], or ask another node".to_owned(),
                };
                let _ = reply.send(Err(refused)); // whoever asked is gone
            }
            _ = tick.tick() => {}
        }
    }
}

/// Returns once the node stops, or nobody is left to say so.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// The devices, and what tells the household's time: each node writes its own status.
async fn watch_objects(service: &Service) -> Result<u64, ServiceError> {
    let prefixes = ["device/", "node/"].map(str::to_owned).to_vec();
    Ok(service.watch(prefixes, None).await?.watcher)
}

fn next_changes(service: &Service, watcher: u64) -> NextChanges {
    let service = service.clone();
    Box::pin(async move { service.next_changes(watcher).await })
}

#[cfg(test)]
mod tests;
