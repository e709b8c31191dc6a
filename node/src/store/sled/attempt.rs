//! One attempt to open the files of a store, and to read all that is in them.

use super::engine::{Engine, engine_error};
use super::guard::catch_panic;
use super::journal::{Found as Journal, JOURNAL_FILE};
use super::log::Log;
use super::record::{Over, Scan, Tally, scan, stored_tally};
use super::{Sink, SledOptions};
use crate::store::files::{patiently, sync_parent};
use crate::store::{StoreError, is_damage};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

/// sled's lock may outlive its handle for a moment, until its last thread is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// What one attempt to open a folder gave. Trouble that is not in the folder itself is an error.
pub(super) enum Attempt<S> {
    Whole(Engine, S),
    Broken { engine: Option<Engine>, scan: Scan, reason: String },
}

/// Opens `folder` and hands on its records, with what the journal holds over them.
pub(super) fn open_and_check<S: Sink>(
    folder: &Path,
    options: &SledOptions,
    expected: Tally,
    journal: &Journal,
) -> Result<Attempt<S>, StoreError> {
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
        .and_then(|()| sync_parent(folder));
    synced.map_err(|error| StoreError::io("sync", folder, error))?;
    let (mut records, mut panic) = (S::default(), None);
    let newest = match stored_tally(&db) {
        Ok(tally) => journal.lacking(tally.unwrap_or_default()).changes,
        Err(error) => return broken(error.to_string()),
    };
    let mut over = Over::new(&newest, |key: &[u8], value: &[u8]| {
        if panic.is_none() {
            panic = catch_panic(|| records.take(key, value)).err();
        }
    });
    let scan = scan(&db, &mut |key, value| over.take(key, value));
    over.finish();
    scan.refuse_newer(folder)?;
    // Whoever takes them in is at fault, not the store: it would be repaired anew at each start.
    if let Some(reason) = panic {
        return Err(StoreError::Engine { action: "take in the records of", path: folder.into(), reason });
    }
    let tally = scan.stored.unwrap_or_default();
    let engine = Engine::new(folder, db, tally, scan.bytes)?;
    let mut reason = scan.problem(tally);
    if tally.commits < expected.commits {
        let missing = expected.commits - tally.commits;
        reason = reason.or_else(|| Some(format!("its last {missing} commits are missing")));
    }
    Ok(match reason {
        None => Attempt::Whole(engine, records),
        Some(reason) => Attempt::Broken { engine: Some(engine), scan, reason },
    })
}

/// sled in `folder`, under the rules of this store.
pub(super) fn open_engine(folder: &Path, options: &SledOptions) -> Result<::sled::Db, ::sled::Error> {
    let config = ::sled::Config::new()
        .path(folder)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(None)
        .use_compression(false);
    patiently(
        LOCK_PATIENCE,
        || config.open(),
        |error| matches!(error, ::sled::Error::Io(error) if error.to_string().contains("could not acquire lock")),
    )
}

/// Makes every file in `folder`, and their names, durable; the journal is by itself.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with(JOURNAL_FILE) {
            continue;
        }
        match File::open(&path) {
            Ok(file) => file.sync_data()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    File::open(folder)?.sync_all()
}

/// The log in `folder`, locked; `None` when there is none.
pub(super) fn open_log(folder: &Path) -> Result<Option<Log>, StoreError> {
    let Some(log) = Log::open(folder).map_err(|error| StoreError::io("read", folder, error))? else {
        return Ok(None);
    };
    match patiently(LOCK_PATIENCE, || log.lock(), |error| error.kind() == io::ErrorKind::WouldBlock) {
        Ok(()) => Ok(Some(log)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(StoreError::Locked { path: folder.to_path_buf() })
        }
        Err(error) => Err(StoreError::io("lock", folder, error)),
    }
}
