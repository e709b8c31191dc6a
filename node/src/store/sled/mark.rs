//! The mark: what the store held when it last came to rest, in a small file beside it.
//!
//! It shows when commits are missing at the end of sled's log or of the journal.

use crate::store::StoreError;
use crate::store::files::{FileError, FileKind, read_checked, write_durable};
use std::path::Path;

pub(super) const MARK_FILE: &str = "store.mark";

/// Its first version knew of no journal.
const KIND: FileKind = FileKind {
    magic: *b"HTHMARK\0",
    version: 2,
    max_bytes: 20,
    mode: 0o600,
    way_out: "it is written anew by itself",
};

/// What the store held when it last came to rest.
pub(super) struct Mark {
    /// Batches that sled had taken in.
    pub(super) commits: u64,
    /// Records in sled.
    pub(super) records: u64,
    /// Entries in the journal behind these.
    pub(super) entries: u32,
}

/// Replaces the mark, durably.
pub(super) fn write(root: &Path, mark: &Mark) -> Result<(), StoreError> {
    let Mark { commits, records, entries } = mark;
    let payload = [&commits.to_le_bytes()[..], &records.to_le_bytes(), &entries.to_le_bytes()].concat();
    Ok(write_durable(&root.join(MARK_FILE), &KIND, &payload)?)
}

/// The mark, if there is one.
pub(super) fn read(root: &Path) -> Result<Option<Mark>, FileError> {
    let Some(payload) = read_checked(&root.join(MARK_FILE), &KIND)? else { return Ok(None) };
    let at = |from: usize| payload.get(from..).unwrap_or_default();
    let number = |from| at(from).first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let entries = at(16).first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    Ok(Some(Mark { commits: number(0), records: number(8), entries }))
}
