//! The mark: what the store held when it last came to rest, in a small file beside it.
//!
//! It shows when commits are missing at the end of sled's log.

use crate::store::StoreError;
use crate::store::files::{FileError, FileKind, read_checked, write_durable};
use std::path::Path;

pub(super) const MARK_FILE: &str = "store.mark";

const KIND: FileKind = FileKind {
    magic: *b"HTHMARK\0",
    version: 1,
    max_bytes: 16,
    mode: 0o600,
    way_out: "it is written anew by itself",
};

/// What the store held when it last came to rest.
pub(super) struct Mark {
    /// Batches that it had taken in.
    pub(super) commits: u64,
    pub(super) records: u64,
}

/// Replaces the mark, durably.
pub(super) fn write(root: &Path, mark: &Mark) -> Result<(), StoreError> {
    let payload = [mark.commits.to_le_bytes(), mark.records.to_le_bytes()].concat();
    Ok(write_durable(&root.join(MARK_FILE), &KIND, &payload)?)
}

/// The mark, if there is one.
pub(super) fn read(root: &Path) -> Result<Option<Mark>, FileError> {
    let Some(payload) = read_checked(&root.join(MARK_FILE), &KIND)? else { return Ok(None) };
    let number = |from: &[u8]| from.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let records = number(payload.get(8..).unwrap_or_default());
    Ok(Some(Mark { commits: number(&payload), records }))
}
