//! sled with the rules of this store: what a commit is, and what is known when one failed.

use super::attempt::sync_folder;
use super::guard::catch_panic;
use super::record::{self, Tally, own_key, user_key};
use crate::store::{Batch, DiskError, StoreError};
use std::fs::File;
use std::path::Path;

/// An open sled database with the tally of what it holds.
pub(super) struct Engine {
    pub(super) db: ::sled::Db,
    /// sled's log, opened once more: a sync of any handle syncs the file.
    pub(super) log: File,
    pub(super) tally: Tally,
    /// Bytes of its records, as they are stored.
    pub(super) live_bytes: u64,
}

/// A commit that failed.
pub(super) enum Failed {
    /// What reads is on the disk.
    Write(StoreError),
    /// What reads may be in the memory of the system only.
    Sync(StoreError),
}

impl Failed {
    /// sled waits for the disk in each write, and the system tells of a page that did not get there only once.
    pub(super) fn new(error: StoreError) -> Self {
        match error {
            StoreError::Disk(DiskError::Io { .. }) => Self::Sync(error),
            _ => Self::Write(error),
        }
    }
}

impl Engine {
    pub(super) fn new(
        folder: &Path,
        db: ::sled::Db,
        tally: Tally,
        live_bytes: u64,
    ) -> Result<Self, StoreError> {
        let path = folder.join("db");
        let log = File::open(&path).map_err(|error| StoreError::io("open", &path, error))?;
        Ok(Self { db, log, tally, live_bytes })
    }

    /// Makes a batch durable in sled.
    pub(super) fn commit(&mut self, folder: &Path, batch: &Batch) -> Result<(), Failed> {
        let failed = |error| Failed::new(engine_error("write", folder, error));
        let prepared = self.prepare(batch).map_err(|error| engine_error("read", folder, error));
        let (changes, tally, live_bytes) = prepared.map_err(Failed::Write)?;
        self.db.apply_batch(changes).map_err(failed)?;
        self.db.flush().map_err(failed)?;
        let sync = |error| Failed::Sync(StoreError::io("sync", folder, error));
        // sled moves pages over 128 KiB into files of their own; the value limit prevents that, but
        // nothing that it wrote may stay behind.
        let blobs = folder.join("blobs");
        if std::fs::read_dir(&blobs).map_err(sync)?.next().is_some() {
            sync_folder(&blobs).map_err(sync)?;
        }
        self.log.sync_data().map_err(sync)?;
        (self.tally, self.live_bytes) = (tally, live_bytes);
        Ok(())
    }

    /// The batch as sled takes it, with the tally and the bytes of all records as they are afterwards.
    pub(super) fn prepare(&self, batch: &Batch) -> Result<(::sled::Batch, Tally, u64), ::sled::Error> {
        let mut changes = ::sled::Batch::default();
        let (mut tally, mut live_bytes) = (self.tally, self.live_bytes);
        let bytes = |key: &[u8], sealed: &[u8]| (key.len() + sealed.len()) as u64;
        tally.commits += 1;
        for (key, value) in batch.outcome() {
            let key = user_key(key);
            if let Some(old) = self.db.get(&key)? {
                tally.remove(&old);
                live_bytes = live_bytes.saturating_sub(bytes(&key, &old));
            }
            match value {
                Some(value) => {
                    let sealed = record::seal(&key, value);
                    tally.add(&sealed);
                    live_bytes += bytes(&key, &sealed);
                    changes.insert(key, sealed);
                }
                None => changes.remove(key),
            }
        }
        changes.insert(own_key(), record::seal(own_key(), &tally.encode()));
        Ok((changes, tally, live_bytes))
    }
}

/// Closing may panic inside sled, too; nothing that was acknowledged depends on it.
pub(super) fn drop_engine(engine: Option<Engine>) {
    if let Err(reason) = catch_panic(move || drop(engine)) {
        tracing::warn!(reason, "the storage engine failed while it was closed");
    }
}

/// What sled says, in this store's words.
pub(super) fn engine_error(action: &'static str, folder: &Path, error: ::sled::Error) -> StoreError {
    match error {
        ::sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            StoreError::Locked { path: folder.to_path_buf() }
        }
        ::sled::Error::Io(source) => StoreError::io(action, folder, source),
        ::sled::Error::Corruption { .. } => StoreError::Damaged {
            path: folder.to_path_buf(),
            reason: "a page does not match its checksum".into(),
            keys: Vec::new(),
        },
        other => StoreError::Engine { action, path: folder.to_path_buf(), reason: other.to_string() },
    }
}
