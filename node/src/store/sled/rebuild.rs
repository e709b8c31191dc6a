//! Writing a store anew that is whole: one that has grown far beyond what it holds, or a backup.
//!
//! sled takes the segments of its log into use again, but never makes its file shorter, and a store
//! that was large once, or whose records are written over and over, may take many times the room of
//! its records. The fresh store is filled and synced beside the old one, and then takes its place in
//! two renames. Whatever a power cut leaves, the next start finds one whole store:
//!
//! | cut | on the disk | the next start |
//! | --- | --- | --- |
//! | while it is filled | `store`, part of `store.rebuild` | removes the part |
//! | between the renames | `store.old`, `store.rebuild` | puts `store.old` back |
//! | after them | `store`, `store.old` | removes `store.old` |

use super::fresh::{Fresh, REBUILD_FOLDER, remove_tree};
use super::{Engine, MARK_FILE, RESERVE_BYTES, STORE_FOLDER, SledOptions, SledStore, opening, record};
use crate::store::files::{remove_if_there, sync_parent};
use crate::store::{Changes, Rebuilt, StoreError, StoreSize, export, free_bytes};
use std::fs;
use std::path::Path;

/// The old store, until the fresh one was opened in its place.
pub(super) const OLD_FOLDER: &str = "store.old";
/// The store that a backup replaced. Kept until the next one, for a person to go back.
pub const REPLACED_FOLDER: &str = "store.replaced";
/// A store that takes more than so many times the room of its records is written anew.
const GROWN: u64 = 4;
/// One that takes less than this is left as it is, in bytes: sled itself needs a few segments.
const SMALL_BYTES: u64 = 8 * 1024 * 1024;
/// A fresh store takes at most so many times the room of its records.
const FRESH: u64 = 3;

impl SledStore {
    pub(super) fn measure(&self) -> StoreSize {
        let (tally, live_bytes) = self.totals();
        StoreSize {
            records: tally.records,
            live_bytes,
            disk_bytes: folder_bytes(&self.folder()),
            rebuilt: self.rebuilt,
        }
    }

    pub(super) fn rebuild_grown(
        &mut self,
        progress: &mut dyn FnMut(),
    ) -> Result<Option<Rebuilt>, StoreError> {
        self.engine()?;
        let StoreSize { live_bytes, disk_bytes, .. } = self.measure();
        if disk_bytes <= SMALL_BYTES || disk_bytes <= live_bytes.saturating_mul(GROWN) {
            return Ok(None);
        }
        self.rebuild(progress).map(Some)
    }

    /// Writes every record into a fresh store and puts that into the place of this one.
    pub(super) fn rebuild(&mut self, progress: &mut dyn FnMut()) -> Result<Rebuilt, StoreError> {
        let from_bytes = folder_bytes(&self.folder());
        let (root, options) = (self.root.clone(), self.options.clone());
        // Opened again, it may have taken in what was pending.
        self.engine()?;
        let newest = self.pending.clone();
        let engine = self.engine()?;
        require_room(&root, engine.live_bytes)?;
        let filled = fill_from(engine, &root, &options, newest, progress);
        if filled.is_err() {
            let _what_is_left_goes_at_the_next_start = remove_tree(&root.join(REBUILD_FOLDER));
        }
        filled?;
        let commits = engine.tally.commits;
        self.drop_engine();
        self.journal = None;
        let swapped = swap(&root, OLD_FOLDER);
        if swapped.is_err() {
            finish_interrupted(&root)?;
        }
        swapped?;
        let engine = opening::reopen(&root, &options, commits, false, &self.pending, progress)?;
        self.engine = Some(engine);
        self.pending = Changes::default();
        self.open_journal()?;
        remove_tree(&root.join(OLD_FOLDER))?;
        let rebuilt = Rebuilt { from_bytes, to_bytes: folder_bytes(&self.folder()) };
        self.rebuilt = Some(rebuilt);
        tracing::info!(
            from_bytes,
            to_bytes = rebuilt.to_bytes,
            "the store took far more room than its records and was written anew"
        );
        Ok(rebuilt)
    }
}

/// Puts the records of an export into the place of the store in `root`, which becomes
/// [`REPLACED_FOLDER`]; answers with their number. Doing it once more after an interruption is right.
/// The store must not be open. `progress` is called for every record.
///
/// # Errors
/// What is wrong with the export or the disk; the store is in its place then.
pub fn replace_by_export(
    root: &Path,
    options: &SledOptions,
    export: &Path,
    progress: &mut dyn FnMut(),
) -> Result<u64, StoreError> {
    finish_interrupted(root)?;
    require_room(root, fs::metadata(export).map_or(0, |about| about.len()))?;
    let mut fresh = Fresh::create(root, options, 0, Changes::default())?;
    export::read(export, &mut |key, value| {
        fresh.put(key, value);
        progress();
    })?;
    let records = fresh.finish()?;
    // The mark counts the commits of the store that goes.
    remove_if_there(&root.join(MARK_FILE))?;
    if root.join(REPLACED_FOLDER).exists() {
        // Interrupted before, after the renames: what is in the place of the store came from this export.
        remove_tree(&root.join(STORE_FOLDER))?;
    }
    swap(root, REPLACED_FOLDER)?;
    Ok(records)
}

/// Puts the old store back where a power cut fell between two renames.
pub(super) fn finish_interrupted(root: &Path) -> Result<(), StoreError> {
    let (folder, old) = (root.join(STORE_FOLDER), root.join(OLD_FOLDER));
    if !folder.exists() && old.exists() {
        tracing::info!("writing the store anew was interrupted; the old one goes on");
        rename(&old, &folder)?;
        sync(root)?;
    }
    Ok(())
}

fn fill_from(
    engine: &Engine,
    root: &Path,
    options: &SledOptions,
    newest: Changes,
    progress: &mut dyn FnMut(),
) -> Result<(), StoreError> {
    let mut fresh = Fresh::create(root, options, engine.tally.commits, newest)?;
    let scan = record::scan(&engine.db, &mut |key, value| {
        fresh.put(key, value);
        progress();
    });
    match scan.problem(engine.tally) {
        None => fresh.finish().map(|_| ()),
        Some(reason) => {
            Err(StoreError::Damaged { path: root.join(STORE_FOLDER), reason, keys: scan.damaged })
        }
    }
}

/// Moves the store, if there is one, to `aside` and the fresh one into its place, durably.
fn swap(root: &Path, aside: &str) -> Result<(), StoreError> {
    let folder = root.join(STORE_FOLDER);
    if folder.exists() {
        rename(&folder, &root.join(aside))?;
        sync(root)?;
    }
    rename(&root.join(REBUILD_FOLDER), &folder)?;
    sync(root)
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|error| StoreError::io("rename", from, error))
}

fn sync(root: &Path) -> Result<(), StoreError> {
    sync_parent(&root.join(STORE_FOLDER)).map_err(|error| StoreError::io("sync", root, error))
}

fn require_room(root: &Path, live_bytes: u64) -> Result<(), StoreError> {
    let needed = live_bytes.saturating_mul(FRESH).saturating_add(RESERVE_BYTES);
    match free_bytes(root) {
        Some(free) if free < needed => Err(StoreError::DiskFull { path: root.to_path_buf(), free, needed }),
        _ => Ok(()),
    }
}

/// Bytes of the files in a folder, those in its folders included.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => folder_bytes(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    });
    bytes.sum()
}
