//! The store of a real node: one sled tree under rules that were measured.
//!
//! - A small batch goes to a journal in front of sled, which takes many of them in as one (see [`journal`]):
//!   made durable by sled alone, a change of a few bytes costs two pages of the disk.
//! - sled's own flush calls `sync_file_range`, which leaves the disk's cache and new extents of the
//!   file to chance; a batch that goes to sled therefore ends with `fdatasync` of the files that sled wrote.
//! - Every value carries a checksum over its key and itself, and every commit updates a tally (how
//!   many records, sum of their checksums, number of batches that sled took) in the same atomic batch. sled takes
//!   some kinds of damage for the end of its log and silently goes on without the records behind
//!   it; the tally shows when records are missing in the middle. A small file beside the store, the
//!   mark, shows when commits are missing at the end.
//! - A failed write leaves sled unusable until it is opened again. One that the disk refused, and a failed
//!   `fdatasync`, leave doubt about what is on the disk, so the whole store is then written anew before it goes on.
//!   A full disk is seen before sled writes, because sled cannot go back.
//! - sled takes a segment of its log into use again once the pages it held are written elsewhere, by
//!   `sync_file_range` only. A power cut between that and the next `fdatasync` can thus hurt older
//!   records on a disk that reorders writes; the tally shows it, and recovery does the rest.
//! - Opening, sled may take its own log for empty or for shorter than it is, and destroys the rest;
//!   the log is therefore looked through first (see [`log`]).
//! - sled may panic, on opening and later; it is called where a panic can be survived.

mod attempt;
mod engine;
mod fresh;
mod guard;
mod journal;
mod log;
mod mark;
mod opening;
mod pages;
mod rebuild;
mod record;

pub use self::rebuild::{REPLACED_FOLDER, replace_by_export};

use self::engine::{Engine, Failed, drop_engine};
use self::guard::catch_panic;
use self::journal::Journal;
use self::mark::{MARK_FILE, Mark};
use self::record::{Over, Tally};
use super::{Batch, Changes, DiskError, Rebuilt, RecoveryReport, Store, StoreError, StoreSize, free_bytes};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The folder of sled inside the state folder.
pub const STORE_FOLDER: &str = "store";
/// The folder of the exports inside the state folder.
pub const EXPORT_FOLDER: &str = "exports";

/// Room that stays free after a commit, in bytes: sled writes whole segments of 512 KiB and moves
/// live pages before it can free old ones.
const RESERVE_BYTES: u64 = 2 * 1024 * 1024;
/// A mark costs some pages of the disk, its own and those of its folder, and vouching in the journal a block, as a
/// small change does: each is done at most so often, and the mark when the store is closed.
const VOUCH_EVERY: Duration = Duration::from_secs(30);
/// sled reads its log once when it opens, and the check each of its pages once more, wherever they lie: 256
/// reads of 4 KiB for a MiB. A worn card on a busy board may give back no more than 64 of them in a second; a
/// large store on it must not be taken for a broken one, which costs writes.
const OPEN_PER_MIB: Duration = Duration::from_secs(4);
/// How many bytes sled writes at most for one byte of a batch (page rewrites included).
const WRITE_AMPLIFICATION: u64 = 8;

/// How sled is run.
#[derive(Clone, Debug)]
pub struct SledOptions {
    /// Page cache in bytes; 8 to 16 MiB suits a board (sled's default is a gigabyte).
    pub cache_bytes: u64,
    /// After this long, and [`OPEN_PER_MIB`] more for each MiB of its log, an attempt to open and check the
    /// store counts as failed.
    pub open_deadline: Duration,
}

impl SledOptions {
    /// How long the store in sled's `folder` may take to be opened and checked.
    fn time_for(&self, folder: &Path) -> Duration {
        let bytes = std::fs::metadata(folder.join("db")).map_or(0, |about| about.len());
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        self.open_deadline.saturating_add(OPEN_PER_MIB.saturating_mul(mib))
    }
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { cache_bytes: 8 * 1024 * 1024, open_deadline: Duration::from_secs(60) }
    }
}

/// Takes in the records of a store while it is opened. An attempt that fails is begun again with a new one.
pub trait Sink: Default + Send + 'static {
    /// A record, once.
    fn take(&mut self, key: &[u8], value: &[u8]);
}

/// For whom the records do not matter.
impl Sink for () {
    fn take(&mut self, _key: &[u8], _value: &[u8]) {}
}

/// The durable store in a state folder. At most one per folder, over all processes.
pub struct SledStore {
    root: PathBuf,
    options: SledOptions,
    engine: Option<Engine>,
    /// Takes small batches in front of the engine; `None` where it cannot be had.
    journal: Option<Journal>,
    /// What is in the journal, and not yet in the engine.
    pending: Changes,
    /// Commits that the engine had taken in when it was closed after a failure.
    acknowledged: u64,
    /// Commits up to which the mark beside the store vouches.
    marked: u64,
    /// When something was vouched for last since the store was opened.
    vouched_at: Option<Instant>,
    /// The disk refused the last write or `fdatasync`: what is on it is in doubt although it still reads.
    in_doubt: bool,
    closed: bool,
    /// How it was last written anew since it was opened.
    rebuilt: Option<Rebuilt>,
}

impl SledStore {
    /// Opens the store in the state folder `root`, makes one if there is none, and repairs it if it
    /// is damaged. The report must be read: see [`RecoveryReport::may_have_lost_writes`]. If it may
    /// have, that is durable before the repaired store is: see [`super::restored::mark`].
    ///
    /// # Errors
    /// Only what the surroundings refuse (locked, full, no permission); damage is never an error.
    pub fn open(root: &Path, options: SledOptions) -> Result<(Self, RecoveryReport), StoreError> {
        let (store, (), report) = Self::open_into(root, options)?;
        Ok((store, report))
    }

    /// The same, and hands on the records, which are read anyway to check them: to load them afterwards would be to
    /// read and check them all again.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn open_into<S: Sink>(
        root: &Path,
        options: SledOptions,
    ) -> Result<(Self, S, RecoveryReport), StoreError> {
        require_room(root, 0)?;
        let (engine, records, report) = opening::open(root, &options)?;
        let is_whole = report.steps.is_empty();
        // The mark may vouch for less, but a new one is not worth its page.
        let marked = if is_whole { engine.tally.commits } else { 0 };
        let root = root.to_path_buf();
        let acknowledged = engine.tally.commits;
        let engine = Some(engine);
        let mut store = Self {
            root,
            options,
            engine,
            journal: None,
            pending: Changes::default(),
            acknowledged,
            marked,
            in_doubt: false,
            closed: false,
            rebuilt: None,
            vouched_at: None,
        };
        store.open_journal()?;
        // The old one may not read, or may speak of what was lost.
        if !is_whole {
            store.mark()?;
        }
        if let Err(error) = store.rebuild_grown(&mut || ()) {
            tracing::warn!(%error, "the store takes far more room than its records and could not be written anew");
            store.engine()?;
        }
        Ok((store, records, report))
    }

    /// Number of records in it.
    pub fn len(&self) -> u64 {
        self.totals().0.records
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn folder(&self) -> PathBuf {
        self.root.join(STORE_FOLDER)
    }

    /// The engine, opened again if the last commit left it unusable.
    fn engine(&mut self) -> Result<&mut Engine, StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        if self.engine.is_none() || self.in_doubt {
            self.reopen()?;
        }
        self.engine.as_mut().ok_or(StoreError::Closed)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.drop_engine();
        self.journal = None;
        tracing::warn!("the store is opened again after a failed write");
        let (root, acknowledged, in_doubt) = (&self.root, self.acknowledged, self.in_doubt);
        let opened = opening::reopen(root, &self.options, acknowledged, in_doubt, &self.pending, &mut || ());
        self.in_doubt |= matches!(opened, Err(StoreError::Disk(DiskError::Io { .. })));
        let engine = opened?;
        if engine.tally.commits > acknowledged {
            // The batch that failed is in it all the same, or it was written anew: each with what was pending.
            self.pending = Changes::default();
        }
        self.engine = Some(engine);
        self.in_doubt = false;
        if !self.pending.is_empty() {
            self.take_in(&self.pending.batch())?;
        }
        self.open_journal()
    }

    /// Opens the journal and has sled note that there is one. A store without is slower, and as durable.
    fn open_journal(&mut self) -> Result<(), StoreError> {
        let folder = self.folder();
        let Some(engine) = &mut self.engine else { return Err(StoreError::Closed) };
        // One that sled does not rely on may be begun only, or on blocks that the disk does not write.
        let cleared = if engine.tally.journaled { Ok(()) } else { journal::remove(&folder) };
        let journal = cleared.and_then(|()| Journal::open(&folder)).inspect_err(|error| {
            tracing::warn!(%error, "the store goes on without its journal");
        });
        if engine.tally.journaled != journal.is_ok() {
            engine.tally.journaled = journal.is_ok();
            self.take_in(&Batch::default())?;
        }
        self.journal = journal.ok();
        Ok(())
    }

    fn commit_whatever_the_room(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let base = self.engine()?.tally.commits;
        if batch.is_empty() {
            return Ok(());
        }
        if self.is_journaled(base, batch) {
            self.pending.add(batch.clone());
            return Ok(());
        }
        if self.pending.is_empty() {
            return self.take_in(batch);
        }
        let mut all = self.pending.clone();
        all.add(batch.clone());
        self.take_in(&all.batch())
    }

    /// Whether a batch is durable in the journal. Of one that failed nobody knows what is in it: sled, which takes
    /// everything in then, notes with it that there is none.
    fn is_journaled(&mut self, base: u64, batch: &Batch) -> bool {
        let appended = self.journal.as_mut().map_or(Ok(false), |journal| journal.append(base, batch));
        appended.unwrap_or_else(|error| {
            self.give_up_journal(&error);
            false
        })
    }

    /// Sled must take in what is pending afterwards.
    fn give_up_journal(&mut self, error: &DiskError) {
        tracing::warn!(%error, "the store goes on without its journal");
        self.journal = None;
        if let Some(engine) = &mut self.engine {
            engine.tally.journaled = false;
        }
    }

    /// Has the engine take in a batch that holds all that is pending.
    fn take_in(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let folder = self.folder();
        let Some(engine) = &mut self.engine else { return Err(StoreError::Closed) };
        let failed = match catch_panic(|| engine.commit(&folder, batch)) {
            Ok(Ok(())) => {
                self.pending = Changes::default();
                return Ok(());
            }
            Ok(Err(failed)) => failed,
            Err(reason) => Failed::Write(StoreError::Engine { action: "write", path: folder, reason }),
        };
        self.drop_engine();
        match failed {
            Failed::Write(error) => Err(error),
            Failed::Sync(error) => {
                self.in_doubt = true;
                Err(error)
            }
        }
    }

    /// Closes the engine. It must have as many commits when it is opened again.
    fn drop_engine(&mut self) {
        if let Some(engine) = self.engine.take() {
            self.acknowledged = engine.tally.commits;
            drop_engine(Some(engine));
        }
    }

    /// Has sled take in what is pending, unless it has no room, and leaves nothing in doubt.
    fn settle(&mut self) -> Result<(), StoreError> {
        let has_room = require_room(&self.root, self.journal.as_ref().map_or(0, Journal::used)).is_ok();
        if has_room && self.engine.is_some() && !self.in_doubt && !self.pending.is_empty() {
            let taken = self.take_in(&self.pending.batch());
            if !self.in_doubt {
                return taken;
            }
        }
        if self.in_doubt { self.reopen() } else { Ok(()) }
    }
}

impl Store for SledStore {
    fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let folder = self.folder();
        self.engine()?;
        let Some(engine) = &self.engine else { return Err(StoreError::Closed) };
        let mut over = Over::new(&self.pending, each);
        let scan = catch_panic(|| record::scan(&engine.db, &mut |key, value| over.take(key, value)));
        let scan =
            scan.map_err(|reason| StoreError::Engine { action: "read", path: folder.clone(), reason })?;
        over.finish();
        match scan.problem(engine.tally) {
            None => Ok(()),
            Some(reason) => Err(StoreError::Damaged { path: folder, reason, keys: scan.damaged }),
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        batch.check()?;
        let journaled = self.journal.as_ref().map_or(0, Journal::used);
        require_room(&self.root, journaled + batch.bytes() as u64)?;
        self.commit_whatever_the_room(batch)
    }

    fn rest(&mut self) -> Result<(), StoreError> {
        if self.vouched_at.is_some_and(|at| at.elapsed() < VOUCH_EVERY) {
            return Ok(());
        }
        match self.journal.as_mut().map(Journal::vouch) {
            Some(Ok(true)) => self.vouched_at = Some(Instant::now()),
            Some(Err(error)) => {
                self.give_up_journal(&error);
                self.take_in(&self.pending.batch())?;
            }
            Some(Ok(false)) | None => {}
        }
        self.mark()
    }

    fn size(&self) -> StoreSize {
        self.measure()
    }

    fn rebuild_if_grown(&mut self, progress: &mut dyn FnMut()) -> Result<Option<Rebuilt>, StoreError> {
        self.rebuild_grown(progress)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        if self.closed {
            return Ok(());
        }
        let settled = self.settle();
        let marked = self.mark();
        self.closed = true;
        self.journal = None;
        self.drop_engine();
        settled.and(marked)
    }
}

impl SledStore {
    /// What the store adds up to, and the bytes of its records, with what is pending.
    fn totals(&self) -> (Tally, u64) {
        let Some(engine) = &self.engine else { return Default::default() };
        match catch_panic(|| engine.prepare(&self.pending.batch())) {
            Ok(Ok((_, tally, bytes))) => (tally, bytes),
            _ => (engine.tally, engine.live_bytes),
        }
    }

    /// Writes the mark, if sled took something in since the last one.
    fn mark(&mut self) -> Result<(), StoreError> {
        let Some(Tally { commits, records, .. }) = self.engine.as_ref().map(|engine| engine.tally) else {
            return Ok(());
        };
        if commits == self.marked {
            return Ok(());
        }
        mark::write(&self.root, &Mark { commits, records })?;
        self.marked = commits;
        self.vouched_at = Some(Instant::now());
        Ok(())
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the store was closed without its mark");
        }
    }
}

fn require_room(root: &Path, batch_bytes: u64) -> Result<(), StoreError> {
    let needed = RESERVE_BYTES + batch_bytes.saturating_mul(WRITE_AMPLIFICATION);
    match free_bytes(root) {
        Some(free) if free < needed => Err(StoreError::DiskFull { path: root.to_path_buf(), free, needed }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
