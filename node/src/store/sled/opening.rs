//! Opening the store, and what is done when it does not open or does not hold what it should.
//!
//! In this order, each step only when the one before did not give a whole store:
//! open; derive snapshot and settings of sled again (only when it did not open); salvage record by
//! record into a fresh store; the newest readable export; an empty store. Damaged folders are kept, the newest two.

use super::record::{Scan, Tally, scan, scan_around};
use super::{EXPORT_FOLDER, Engine, STORE_FOLDER, SledOptions, drop_engine, engine_error, read_mark};
use crate::store::export::{self, Export};
use crate::store::{Batch, GOOD_BATCH_BYTES, Recovery, RecoveryReport, StoreError};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

const REBUILD_FOLDER: &str = "store.rebuild";
const DAMAGED_PREFIX: &str = "store.damaged-";
const KEPT_DAMAGED: usize = 2;
/// sled's lock may outlive its handle for a moment, until its last thread is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Opens or repairs the store in `root`.
pub(super) fn open(root: &Path, options: &SledOptions) -> Result<(Engine, RecoveryReport), StoreError> {
    let mut opening = Opening { root, options, steps: Vec::new(), expected: Tally::default() };
    let (engine, outcome) = opening.run()?;
    Ok((engine, RecoveryReport { outcome, steps: opening.steps }))
}

/// Opens a store again after a failed write, without repairing it: that changes what the node may
/// say about itself and belongs to its start. When what is on the disk is `in_doubt`, every record
/// is first written anew and synced.
pub(super) fn reopen(root: &Path, options: &SledOptions, in_doubt: bool) -> Result<Engine, StoreError> {
    let folder = root.join(STORE_FOLDER);
    let damaged = |reason| StoreError::Damaged { path: folder.clone(), reason, keys: Vec::new() };
    let mut opening = Opening { root, options, steps: Vec::new(), expected: Tally::default() };
    match opening.attempt(&folder)? {
        Attempt::Whole(engine) if in_doubt => {
            let mut fresh = Fresh::create(root, options, engine.tally.commits)?;
            let copied = scan(&engine.db, &mut |key, value| fresh.put(key, value));
            let problem = copied.problem(engine.tally);
            drop_engine(Some(engine));
            fresh.finish()?;
            if let Some(reason) = problem {
                return Err(damaged(reason));
            }
            opening.replace_store()?;
            match opening.attempt(&folder)? {
                Attempt::Whole(engine) => Ok(engine),
                Attempt::Broken { reason, .. } => Err(damaged(reason)),
            }
        }
        Attempt::Whole(engine) => Ok(engine),
        Attempt::Broken { engine, reason, .. } => {
            drop_engine(engine);
            Err(damaged(reason))
        }
    }
}

/// Calls `work` and turns a panic into its message.
pub(super) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_string()
    })
}

/// Makes every file in `folder`, and their names, durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match File::open(&path) {
            Ok(file) => file.sync_data()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    File::open(folder)?.sync_all()
}

/// What one attempt to open a folder gave. Trouble that is not in the folder itself is an error.
enum Attempt {
    Whole(Engine),
    Broken { engine: Option<Engine>, scan: Scan, reason: String },
}

struct Opening<'a> {
    root: &'a Path,
    options: &'a SledOptions,
    steps: Vec<String>,
    /// What the store should hold at least, as far as anybody knows.
    expected: Tally,
}

impl Opening<'_> {
    fn run(&mut self) -> Result<(Engine, Recovery), StoreError> {
        self.read_mark();
        self.finish_interrupted()?;
        let folder = self.root.join(STORE_FOLDER);
        match self.attempt(&folder)? {
            Attempt::Whole(engine) => return Ok((engine, Recovery::Clean)),
            Attempt::Broken { engine, scan, reason } => {
                self.say(format!("The store is damaged: {reason}."));
                self.expect(&scan);
                // It opens and misses records. Without its snapshot sled would read its whole log,
                // and would not open at all when the damage is in there: save what there is.
                if engine.is_some() {
                    return self.rebuild(engine, scan);
                }
            }
        }
        remove_derived(&folder)?;
        self.say(
            "Deleted the index and settings of the storage engine, which it derives again from its log."
                .into(),
        );
        match self.attempt(&folder)? {
            Attempt::Whole(engine) => {
                self.say("The store is whole after that; nothing was lost.".into());
                Ok((engine, Recovery::SnapshotRebuilt))
            }
            Attempt::Broken { engine, scan, reason } => {
                self.say(format!("That did not help: {reason}."));
                self.expect(&scan);
                self.rebuild(engine, scan)
            }
        }
    }

    fn say(&mut self, step: String) {
        tracing::warn!("{step}");
        self.steps.push(step);
    }

    fn read_mark(&mut self) {
        match read_mark(self.root) {
            Ok(Some((commits, records))) => self.expected = Tally { records, sum: 0, commits },
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the mark beside the store does not read"),
        }
    }

    fn expect(&mut self, scan: &Scan) {
        let stored = scan.stored.unwrap_or_default();
        if stored.commits >= self.expected.commits {
            self.expected = stored;
        }
    }

    /// A power cut during a repair may have left the store renamed and its successor not in place.
    fn finish_interrupted(&mut self) -> Result<(), StoreError> {
        let folder = self.root.join(STORE_FOLDER);
        if !folder.exists()
            && self.expected.commits > 0
            && let Some((_, damaged)) = self.damaged_folders()?.first()
        {
            fs::rename(damaged, &folder).map_err(|error| StoreError::io("rename", damaged, error))?;
            self.say("A repair was interrupted; it starts again.".into());
        }
        remove_tree(&self.root.join(REBUILD_FOLDER))
    }

    /// Opens `folder` and reads all of it, on a thread of its own that may panic or never return.
    fn attempt(&mut self, folder: &Path) -> Result<Attempt, StoreError> {
        let (target, options, expected) = (folder.to_path_buf(), self.options.clone(), self.expected);
        let attempt =
            guarded(self.options.open_deadline, move || open_and_check(&target, &options, expected));
        let opened = match attempt {
            Ok(opened) => opened?,
            Err(reason) => Attempt::Broken { engine: None, scan: Scan::default(), reason },
        };
        Ok(opened)
    }

    /// Steps (c), (d) and (e): a fresh store with the best records that can be had.
    fn rebuild(&mut self, engine: Option<Engine>, broken: Scan) -> Result<(Engine, Recovery), StoreError> {
        let exports = self.readable_exports();
        let salvaged = match engine {
            Some(engine) => self.salvage(engine, exports.first())?,
            None => 0,
        };
        let expected = self.expected.records.max(broken.found.records);
        let lost = expected.saturating_sub(salvaged).max(broken.damaged.len() as u64).max(1);
        let from_export = exports.into_iter().find(|export| salvaged < lost && export.records > salvaged);
        let outcome = match from_export {
            Some(export) => self.import(&export)?,
            None if salvaged > 0 => Recovery::Salvaged { kept: salvaged, lost },
            None => {
                Fresh::create(self.root, self.options, self.expected.commits)?.finish()?;
                Recovery::Empty
            }
        };
        self.replace_store()?;
        self.say(format!("Result: {outcome}."));
        self.expected = Tally::default();
        let folder = self.root.join(STORE_FOLDER);
        match self.attempt(&folder)? {
            Attempt::Whole(engine) => Ok((engine, outcome)),
            Attempt::Broken { reason, .. } => {
                Err(StoreError::Engine { action: "read the rebuilt store in", path: folder, reason })
            }
        }
    }

    fn readable_exports(&mut self) -> Vec<Export> {
        let listed = export::list(&self.root.join(EXPORT_FOLDER)).unwrap_or_default();
        let mut readable = Vec::new();
        for (_, path) in listed {
            match export::verify(&path) {
                Ok(export) => readable.push(export),
                Err(error) => self.say(format!("An export cannot be used: {error}.")),
            }
        }
        readable
    }

    /// Writes every record that reads into a fresh store beside the damaged one.
    fn salvage(&mut self, engine: Engine, last_export: Option<&Export>) -> Result<u64, StoreError> {
        let mut hints = BTreeSet::new();
        if let Some(export) = last_export {
            export::read(&export.path, &mut |key, _| {
                hints.insert(key.to_vec());
            })?;
        }
        let mut fresh = Fresh::create(self.root, self.options, self.expected.commits)?;
        let work = move || {
            // A panic ends the reading; what was read before it is saved.
            let read =
                catch_panic(|| scan_around(&engine.db, &hints, &mut |key, value| fresh.put(key, value)));
            drop_engine(Some(engine));
            (fresh.finish(), read)
        };
        match guarded(self.options.open_deadline, work) {
            Ok((kept, read)) => {
                let kept = kept?;
                let damaged = read.map(|scan| scan.damaged).unwrap_or_default();
                self.say(format!("Saved {kept} records that still read; {} did not.", damaged.len()));
                Ok(kept)
            }
            Err(reason) => {
                self.say(format!("Saving single records failed: {reason}."));
                Ok(0)
            }
        }
    }

    fn import(&mut self, export: &Export) -> Result<Recovery, StoreError> {
        let mut fresh = Fresh::create(self.root, self.options, self.expected.commits)?;
        export::read(&export.path, &mut |key, value| fresh.put(key, value))?;
        fresh.finish()?;
        let age = SystemTime::now().duration_since(export.created).unwrap_or_default();
        Ok(Recovery::FromExport { file: export.path.clone(), age })
    }

    /// Moves the damaged folder aside and the fresh one into its place, durably.
    fn replace_store(&mut self) -> Result<(), StoreError> {
        let folder = self.root.join(STORE_FOLDER);
        let older = self.damaged_folders()?;
        let number = older.first().map_or(1, |(number, _)| number + 1);
        let aside = self.root.join(format!("{DAMAGED_PREFIX}{number}"));
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|error| StoreError::io("rename", from, error))
        };
        rename(&folder, &aside)?;
        rename(&self.root.join(REBUILD_FOLDER), &folder)?;
        let synced = File::open(self.root).and_then(|root| root.sync_all());
        synced.map_err(|error| StoreError::io("sync", self.root, error))?;
        self.say(format!("The damaged store is kept as {}.", aside.display()));
        older.iter().skip(KEPT_DAMAGED - 1).try_for_each(|(_, path)| remove_tree(path))
    }

    /// Folders kept from earlier repairs, newest first.
    fn damaged_folders(&self) -> Result<Vec<(u64, PathBuf)>, StoreError> {
        let entries = fs::read_dir(self.root).map_err(|error| StoreError::io("list", self.root, error))?;
        let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix(DAMAGED_PREFIX)?.parse().ok();
        let mut found: Vec<(u64, PathBuf)> =
            entries.flatten().filter_map(|entry| Some((number(&entry.path())?, entry.path()))).collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }
}

/// A store being filled beside the one that it will replace.
struct Fresh {
    folder: PathBuf,
    engine: Engine,
    batch: Batch,
    bytes: usize,
    failed: Option<StoreError>,
}

impl Fresh {
    /// `commits` continues the count of the store that it replaces, so that the mark still fits.
    fn create(root: &Path, options: &SledOptions, commits: u64) -> Result<Self, StoreError> {
        let folder = root.join(REBUILD_FOLDER);
        remove_tree(&folder)?;
        let db = open_engine(&folder, options).map_err(|error| engine_error("create", &folder, error))?;
        let engine = Engine::new(&folder, db, Tally { commits, ..Tally::default() })?;
        Ok(Self { folder, engine, batch: Batch::default(), bytes: 0, failed: None })
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.bytes += key.len() + value.len();
        self.batch.puts.push((key.to_vec(), value.to_vec()));
        if self.bytes >= GOOD_BATCH_BYTES {
            self.write();
        }
    }

    fn write(&mut self) {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if self.failed.is_none()
            && let Err(super::Failed::Write(error) | super::Failed::Sync(error)) =
                self.engine.commit(&self.folder, &batch)
        {
            self.failed = Some(error);
        }
    }

    /// Makes it durable and closes it; the number of its records.
    fn finish(mut self) -> Result<u64, StoreError> {
        self.write();
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let records = self.engine.tally.records;
        let folder = self.folder.clone();
        drop_engine(Some(self.engine));
        sync_folder(&folder.join("blobs"))
            .and_then(|()| sync_folder(&folder))
            .map_err(|error| StoreError::io("sync", &folder, error))?;
        Ok(records)
    }
}

fn open_engine(folder: &Path, options: &SledOptions) -> Result<::sled::Db, ::sled::Error> {
    let config = ::sled::Config::new()
        .path(folder)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(None)
        .use_compression(false);
    let patience = Instant::now();
    loop {
        match config.open() {
            Err(::sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock")
                    && patience.elapsed() < LOCK_PATIENCE =>
            {
                #[expect(clippy::disallowed_methods, reason = "sled offers no way to wait for its lock")]
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

fn open_and_check(folder: &Path, options: &SledOptions, expected: Tally) -> Result<Attempt, StoreError> {
    let broken = |reason| Ok(Attempt::Broken { engine: None, scan: Scan::default(), reason });
    let db = match open_engine(folder, options) {
        Ok(db) => db,
        Err(::sled::Error::Io(error)) if !is_damage(&error) => {
            return Err(engine_error("open", folder, ::sled::Error::Io(error)));
        }
        Err(error) => return broken(error.to_string()),
    };
    let synced = sync_folder(&folder.join("blobs"))
        .and_then(|()| sync_folder(folder))
        .and_then(|()| crate::store::files::sync_parent(folder));
    synced.map_err(|error| StoreError::io("sync", folder, error))?;
    let scan = scan(&db, &mut |_, _| ());
    let tally = scan.stored.unwrap_or_default();
    let engine = Engine::new(folder, db, tally)?;
    let mut reason = scan.problem(tally);
    if tally.commits < expected.commits {
        let missing = expected.commits - tally.commits;
        reason = reason.or_else(|| Some(format!("its last {missing} commits are missing")));
    }
    Ok(match reason {
        None => Attempt::Whole(engine),
        Some(reason) => Attempt::Broken { engine: Some(engine), scan, reason },
    })
}

/// Whether an error of the system speaks of the content of the files and not of the surroundings.
fn is_damage(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    let content = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData);
    content || error.raw_os_error() == Some(EIO)
}

/// Deletes what sled derives from its log when it is missing: snapshots, and its settings, which
/// are always the same here.
fn remove_derived(folder: &Path) -> Result<(), StoreError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snap.") || name == "conf" {
            fs::remove_file(&path).map_err(|error| StoreError::io("delete", &path, error))?;
        }
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("delete", folder, error)),
        _ => Ok(()),
    }
}

/// Runs `work` on a thread of its own; a panic or a missed deadline is a reason, not the end. A
/// thread that misses its deadline is left behind: there is no way to stop it.
fn guarded<T: Send + 'static>(
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (send, receive) = mpsc::channel();
    let thread = std::thread::Builder::new().name("store-open".into());
    let spawned = thread.spawn(move || drop(send.send(catch_panic(work))));
    if let Err(error) = spawned {
        return Err(format!("no thread could be started: {error}"));
    }
    match receive.recv_timeout(deadline) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(panic)) => Err(format!("the storage engine gave up ({panic})")),
        Err(_) => Err(format!("the storage engine did not answer for {} s", deadline.as_secs())),
    }
}
