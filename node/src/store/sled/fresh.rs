//! Writing a whole store anew, beside the one that it will replace.

use super::SledOptions;
use super::attempt::{open_engine, sync_folder};
use super::engine::{Engine, Failed, drop_engine, engine_error};
use super::journal::Journal;
use super::record::Tally;
use crate::store::{Batch, Changes, GOOD_BATCH_BYTES, StoreError};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the store is written until it is whole.
pub(super) const REBUILD_FOLDER: &str = "store.rebuild";

/// A store being filled beside the one that it will replace.
pub(super) struct Fresh {
    folder: PathBuf,
    engine: Engine,
    /// What is newer than anything that is put here.
    newest: Changes,
    batch: Batch,
    bytes: usize,
    failed: Option<StoreError>,
}

impl Fresh {
    /// `commits` continues the count of the store that it replaces, so that the mark still fits; `newest` is
    /// what that store had in its journal only.
    pub(super) fn create(
        root: &Path,
        options: &SledOptions,
        commits: u64,
        newest: Changes,
    ) -> Result<Self, StoreError> {
        let folder = root.join(REBUILD_FOLDER);
        remove_tree(&folder)?;
        let db = open_engine(&folder, options).map_err(|error| engine_error("create", &folder, error))?;
        let journaled = Journal::open(&folder).is_ok();
        let engine = Engine::new(&folder, db, Tally { commits, journaled, ..Tally::default() }, 0)?;
        Ok(Self { folder, engine, newest, batch: Batch::default(), bytes: 0, failed: None })
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        if !self.newest.touches(key) {
            self.add(key, value);
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
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
            && let Err(Failed::Write(error) | Failed::Sync(error)) = self.engine.commit(&self.folder, &batch)
        {
            self.failed = Some(error);
        }
    }

    /// Makes it durable and closes it; the number of its records.
    pub(super) fn finish(mut self) -> Result<u64, StoreError> {
        for (key, value) in std::mem::take(&mut self.newest).iter() {
            if let Some(value) = value {
                self.add(key, value);
            }
        }
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

/// Deletes a folder with all that is in it, if it is there.
pub(super) fn remove_tree(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("delete", folder, error)),
        _ => Ok(()),
    }
}
