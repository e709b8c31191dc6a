//! Opening the store, and what is done when it does not hold what it should.
//!
//! sled changes its files while it opens them, and can lose all of them by that (see [`super::log`]).
//! So its log is looked through first, without sled. In this order, each step only when the one
//! before did not give a whole store: sled opens it; every record that the log holds is read
//! without sled and written into a fresh store, which is whole when only sled could not have read
//! it; the newest readable export; an empty store. Whatever it is gets what the journal holds beyond it.
//! Damaged folders are kept, the newest two.

use super::attempt::{Attempt, open_and_check, open_log};
use super::fresh::{Fresh, REBUILD_FOLDER, remove_tree};
use super::guard::{Patience, catch_panic, guarded};
use super::journal::{Found as Journal, Lacking};
use super::log::{Log, Prospect};
use super::mark::{self, MARK_FILE, Mark};
use super::pages::Replay;
use super::rebuild::{self, OLD_FOLDER};
use super::record::{Scan, Tally, scan};
use super::{EXPORT_FOLDER, Engine, Failed, STORE_FOLDER, Sink, SledOptions, drop_engine};
use crate::store::export::{self, Export};
use crate::store::files::FileError;
use crate::store::{Changes, Recovery, RecoveryReport, StoreError, repairs, restored};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAMAGED_PREFIX: &str = "store.damaged-";
const KEPT_DAMAGED: usize = 2;
/// How long this code's own reading of the log may take: it ends by itself, but on a disk that no longer
/// answers. What still reads on a slow card must not be given up for an older export.
const LOG_DEADLINE: Duration = Duration::from_secs(3_600);

/// Opens or repairs the store in `root`, and hands on its records.
pub(super) fn open<S: Sink>(
    root: &Path,
    options: &SledOptions,
) -> Result<(Engine, S, RecoveryReport), StoreError> {
    let mut nobody = || ();
    let mut opening = Opening {
        root,
        options,
        steps: Vec::new(),
        expected: Tally::default(),
        journal: Journal::default(),
        progress: &mut nobody,
    };
    let (engine, records, outcome) = opening.run()?;
    Ok((engine, records, RecoveryReport { outcome, steps: opening.steps }))
}

/// Opens a store again after a failed write, without repairing it: that changes what the node may
/// say about itself and belongs to its start. So it must hold `acknowledged` commits; with no more than
/// these it lacks what is `pending`. When what is on the disk is `in_doubt`, every record is first written
/// anew and synced, with what it lacks.
/// `progress` is called at least every second of what a slow card may take.
pub(super) fn reopen(
    root: &Path,
    options: &SledOptions,
    acknowledged: u64,
    in_doubt: bool,
    pending: &Changes,
    progress: &mut dyn FnMut(),
) -> Result<Engine, StoreError> {
    let folder = root.join(STORE_FOLDER);
    let damaged = |reason| StoreError::Damaged { path: folder.clone(), reason, keys: Vec::new() };
    let expected = Tally { commits: acknowledged, ..Tally::default() };
    let journal = Journal::over(acknowledged, pending);
    let mut opening = Opening { root, options, steps: Vec::new(), expected, journal, progress };
    if let Some((reason, log)) = opening.doubt(&folder)? {
        // Only a store that is whole is written anew here.
        if !opening.salvage(log, Wanted::Whole)?.whole {
            return Err(damaged(reason));
        }
        opening.replace_store()?;
    }
    let engine = match opening.attempt(&folder)? {
        Attempt::Whole(engine, ()) => engine,
        Attempt::Broken { engine, reason, .. } => {
            drop_engine(engine);
            return Err(damaged(reason));
        }
    };
    if in_doubt { opening.write_anew(engine) } else { Ok(engine) }
}

/// What the log holds when it is read without sled.
struct Found {
    replay: Replay,
    /// Where the log ends.
    end: u64,
    /// What is in it, by its own word.
    tally: Tally,
    /// Nothing is missing.
    whole: bool,
}

/// When what the log holds is to be written into a fresh store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Always.
    All,
    /// Only if nothing is missing: a copy costs the disk the size of the store.
    Whole,
}

#[derive(Default)]
struct Salvage {
    kept: u64,
    /// How many of these were not in the journal only.
    of_log: u64,
    tally: Tally,
    whole: bool,
}

struct Opening<'a> {
    root: &'a Path,
    options: &'a SledOptions,
    steps: Vec<String>,
    /// What the store should hold at least, as far as anybody knows.
    expected: Tally,
    /// What lies in front of sled.
    journal: Journal,
    progress: &'a mut dyn FnMut(),
}

impl Opening<'_> {
    fn run<S: Sink>(&mut self) -> Result<(Engine, S, Recovery), StoreError> {
        self.read_mark()?;
        self.finish_interrupted()?;
        let folder = self.root.join(STORE_FOLDER);
        self.journal = Journal::read(&folder)?;
        self.expect(Tally { commits: self.journal.commits(), ..self.expected });
        for path in remove_unfinished(&folder)? {
            self.say(format!("Removed {}, a snapshot that was not finished.", path.display()));
        }
        if let Some((doubt, log)) = self.doubt(&folder)? {
            self.say(format!("The storage engine would lose records: {doubt}."));
            return self.rebuild(Some(log), 0);
        }
        match self.attempt(&folder)? {
            Attempt::Whole(engine, records) => {
                remove_tree(&self.root.join(OLD_FOLDER))?;
                let (engine, outcome) = self.take_in(engine)?;
                Ok((engine, records, outcome))
            }
            Attempt::Broken { engine, scan, reason } => {
                self.say(format!("The store is damaged: {reason}."));
                self.expect(scan.stored.unwrap_or_default());
                drop_engine(engine);
                // Without the lock: an engine that panicked or hangs may hold it for ever.
                let log = Log::open(&folder).map_err(|error| StoreError::io("read", &folder, error))?;
                self.rebuild(log, scan.found.records)
            }
        }
    }

    /// Has sled take in what the journal holds beyond it. The records were handed on with that.
    fn take_in(&mut self, mut engine: Engine) -> Result<(Engine, Recovery), StoreError> {
        let Lacking { changes, lost } = self.journal.lacking(engine.tally);
        if changes.is_empty() && lost == 0 {
            return Ok((engine, Recovery::Clean));
        }
        let folder = self.root.join(STORE_FOLDER);
        if lost > 0 {
            self.say(format!(
                "The journal of the store is damaged: at least {lost} of its last commits are missing."
            ));
            restored::ensure_mark(self.root)?;
            // Whoever opens the journal makes it anew then.
            engine.tally.journaled = false;
        }
        let engine = match catch_panic(|| engine.commit(&folder, &changes.batch())) {
            Ok(Ok(())) => engine,
            Ok(Err(Failed::Sync(error))) => {
                self.say(format!("{error}: the store is written anew."));
                self.write_anew(engine)?
            }
            Ok(Err(Failed::Write(error))) => {
                drop_engine(Some(engine));
                return Err(error);
            }
            Err(reason) => {
                drop_engine(Some(engine));
                return Err(StoreError::Engine { action: "write", path: folder, reason });
            }
        };
        if lost == 0 {
            return Ok((engine, Recovery::Clean));
        }
        let kept = engine.tally.records;
        Ok((engine, Recovery::Salvaged { kept, lost }))
    }

    /// Writes every record of a store, and what it lacks of the journal, into a fresh one that takes its place.
    fn write_anew(&mut self, engine: Engine) -> Result<Engine, StoreError> {
        let folder = self.root.join(STORE_FOLDER);
        let damaged = |reason| StoreError::Damaged { path: folder.clone(), reason, keys: Vec::new() };
        let lacking = self.journal.lacking(engine.tally).changes;
        let mut fresh = Fresh::create(self.root, self.options, engine.tally.commits, lacking)?;
        let copied = scan(&engine.db, &mut |key, value| fresh.put(key, value));
        drop_engine(Some(engine));
        fresh.finish()?;
        if let Some(reason) = copied.problem(copied.stored.unwrap_or_default()) {
            return Err(damaged(reason));
        }
        self.replace_store()?;
        match self.attempt(&folder)? {
            Attempt::Whole(engine, ()) => Ok(engine),
            Attempt::Broken { reason, .. } => Err(damaged(reason)),
        }
    }

    fn for_log(&self) -> Patience {
        let on_a_slow_card = self.options.time_for(&self.root.join(STORE_FOLDER));
        Patience { deadline: LOG_DEADLINE, on_a_slow_card }
    }

    /// Why sled must not open `folder` as it is, if it must not, with the log, still locked.
    fn doubt(&mut self, folder: &Path) -> Result<Option<(String, Log)>, StoreError> {
        let (folder, expected) = (folder.to_path_buf(), self.expected);
        let work = move || {
            let Some(log) = open_log(&folder)? else { return Ok(None) };
            let failed = |error| StoreError::io("read", &folder, error);
            let reason = match log.prospect().map_err(failed)? {
                Prospect::KeepsAll => return Ok(None),
                Prospect::Loses(reason) => reason,
                Prospect::CutsLastBatch => {
                    let found = find(log, &folder, expected)?;
                    if found.whole {
                        return Ok(None);
                    }
                    return Ok(Some(("its last commit is damaged".into(), found.replay.into_log())));
                }
            };
            Ok(Some((reason, log)))
        };
        guarded(self.for_log(), self.progress, work).unwrap_or_else(|reason| {
            self.say(format!("Looking through the log failed: {reason}."));
            Ok(None)
        })
    }

    /// Whatever ends this before it is done, what was said is known.
    fn say(&mut self, step: String) {
        tracing::warn!("{step}");
        repairs::remember(self.root, SystemTime::now(), [&step]);
        self.steps.push(step);
    }

    fn read_mark(&mut self) -> Result<(), StoreError> {
        match mark::read(self.root) {
            Ok(Some(Mark { commits, records })) => {
                self.expected = Tally { records, commits, ..Tally::default() };
            }
            Ok(None) => {}
            Err(newer @ FileError::Newer { .. }) => return Err(newer.into()),
            Err(error) => self.say(format!(
                "The file `{MARK_FILE}` cannot be used: {error}. Whether the newest commits are there was judged without it."
            )),
        }
        Ok(())
    }

    fn expect(&mut self, stored: Tally) {
        if stored.commits >= self.expected.commits {
            self.expected = stored;
        }
    }

    /// A power cut during a repair may have left the store renamed and its successor not in place.
    fn finish_interrupted(&mut self) -> Result<(), StoreError> {
        rebuild::finish_interrupted(self.root)?;
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
    fn attempt<S: Sink>(&mut self, folder: &Path) -> Result<Attempt<S>, StoreError> {
        let (target, options, expected) = (folder.to_path_buf(), self.options.clone(), self.expected);
        let journal = self.journal.clone();
        let on_a_slow_card = self.options.time_for(folder);
        let patience = Patience { deadline: on_a_slow_card, on_a_slow_card };
        let attempt =
            guarded(patience, self.progress, move || open_and_check(&target, &options, expected, &journal));
        let opened = match attempt {
            Ok(opened) => opened?,
            Err(reason) => Attempt::Broken { engine: None, scan: Scan::default(), reason },
        };
        Ok(opened)
    }

    /// A fresh store with the best records that can be had, in place of the damaged one.
    fn rebuild<S: Sink>(
        &mut self,
        log: Option<Log>,
        read_by_sled: u64,
    ) -> Result<(Engine, S, Recovery), StoreError> {
        let salvaged = log.map_or(Ok(Salvage::default()), |log| self.salvage(log, Wanted::All))?;
        let outcome = if salvaged.whole {
            Recovery::SnapshotRebuilt
        } else {
            self.say(format!("Saved {} records that still read.", salvaged.kept));
            self.expect(salvaged.tally);
            self.best_of(&salvaged, self.expected.records.max(read_by_sled))?
        };
        if outcome.may_have_lost_writes() {
            // Before the fresh store is in its place: the next start would find that one whole.
            restored::ensure_mark(self.root)?;
        }
        self.replace_store()?;
        self.say(format!("Result: {outcome}."));
        self.expected = Tally::default();
        let folder = self.root.join(STORE_FOLDER);
        match self.attempt(&folder)? {
            Attempt::Whole(engine, records) => Ok((engine, records, outcome)),
            Attempt::Broken { reason, .. } => {
                Err(StoreError::Engine { action: "read the rebuilt store in", path: folder, reason })
            }
        }
    }

    /// Leaves the records that were saved in the fresh store, or puts the last export there when it
    /// holds more and most were lost.
    fn best_of(&mut self, salvaged: &Salvage, expected: u64) -> Result<Recovery, StoreError> {
        let Salvage { kept, of_log, .. } = *salvaged;
        let lost = expected.saturating_sub(of_log).max(1);
        let mut exports = if of_log < lost { self.readable_exports() } else { Vec::new() }.into_iter();
        match exports.find(|export| export.records > of_log) {
            Some(export) => self.import(&export),
            None if kept > 0 => Ok(Recovery::Salvaged { kept, lost }),
            None => {
                self.fresh()?.finish()?;
                Ok(Recovery::Empty)
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

    /// Writes every record that the log still holds into a fresh store beside the damaged one, if
    /// that is wanted.
    fn salvage(&mut self, log: Log, wanted: Wanted) -> Result<Salvage, StoreError> {
        let folder = self.root.join(STORE_FOLDER);
        let (root, options, expected) = (self.root.to_path_buf(), self.options.clone(), self.expected);
        let journal = self.journal.clone();
        let work = move || {
            let found = find(log, &folder, expected)?;
            let commits = found.tally.commits.max(expected.commits);
            let Lacking { changes, lost } = journal.lacking(Tally { commits, ..found.tally });
            let whole = found.whole && lost == 0;
            if wanted == Wanted::Whole && !whole {
                return Ok(Salvage { tally: found.tally, whole, ..Salvage::default() });
            }
            let mut fresh = Fresh::create(&root, &options, commits, changes)?;
            let copied = found.replay.records(found.end, &mut |key, value| fresh.put(key, value));
            let of_log = copied.map_err(|error| StoreError::io("read", &folder, error))?.found.records;
            Ok(Salvage { kept: fresh.finish()?, of_log, tally: found.tally, whole })
        };
        match guarded(self.for_log(), self.progress, work) {
            Ok(salvaged) => salvaged,
            Err(reason) => {
                self.say(format!("Reading the log without the storage engine failed: {reason}."));
                Ok(Salvage::default())
            }
        }
    }

    /// A store to be filled with something older than the journal.
    fn fresh(&self) -> Result<Fresh, StoreError> {
        let lacking = self.journal.lacking(self.expected).changes;
        Fresh::create(self.root, self.options, self.expected.commits, lacking)
    }

    fn import(&mut self, export: &Export) -> Result<Recovery, StoreError> {
        let mut fresh = self.fresh()?;
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

/// Reads the log up to an end at which it is whole, or else all that can be read of it.
fn find(log: Log, folder: &Path, expected: Tally) -> Result<Found, StoreError> {
    let failed = |error| StoreError::io("read", folder, error);
    let replay = Replay::new(log).map_err(failed)?;
    for end in replay.ends() {
        let scan = replay.records(end, &mut |_, _| ()).map_err(failed)?;
        scan.refuse_newer(folder)?;
        let tally = scan.stored.unwrap_or_default();
        if tally.commits >= expected.commits && scan.problem(tally).is_none() {
            return Ok(Found { replay, end, tally, whole: true });
        }
    }
    let scan = replay.records(u64::MAX, &mut |_, _| ()).map_err(failed)?;
    scan.refuse_newer(folder)?;
    Ok(Found { replay, end: u64::MAX, tally: scan.stored.unwrap_or_default(), whole: false })
}

/// Deletes the snapshots that sled did not finish: it would take the newest by name, finished or
/// not, and refuse to open. A finished one is never deleted.
fn remove_unfinished(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|end| end == "generating"));
    for path in &found {
        fs::remove_file(path).map_err(|error| StoreError::io("delete", path, error))?;
    }
    Ok(found)
}
