//! Durable storage: an ordered key/value record store with atomic, durable batches.
//!
//! The store knows nothing of objects. The protocol encodes its records, hands over a
//! [`Batch`], and acknowledges a write to anybody only after [`Store::commit`] returned.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`sled`] | the store of a real node, with its recovery |
//! | [`memory`] | a map, for tests and for nodes that keep nothing |
//! | [`unsynced`] | a store with a power switch: what was not synced is gone after `crash` |
//! | [`worker`] | the thread that owns the store of a running daemon |
//! | [`export`] | the compact export file, the last resort of the recovery |
//! | [`files`] | the small durable files that live beside the store |

pub mod export;
pub mod files;
pub mod memory;
pub mod restored;
pub mod sled;
pub mod unsynced;
pub mod worker;

mod recovery;
pub(crate) mod repairs;

pub use recovery::{Recovery, RecoveryReport};

use std::collections::{BTreeMap, btree_map};
use std::io;
use std::path::{Path, PathBuf};

/// The longest key in bytes. A key has at least one byte.
pub const MAX_KEY_BYTES: usize = 512;

/// The longest value in bytes. sled keeps up to 16 values in one page and writes a whole page at a
/// time, so that larger values multiply what one small change costs.
pub const MAX_VALUE_BYTES: usize = 4096;

/// The most bytes (keys and values) that one batch may hold.
///
/// A batch is atomic, so the store never splits one: a caller that has more to write (a snapshot
/// from a peer, an import) cuts it into batches below this size itself, in an order in which
/// each prefix is a valid state, because a power cut may fall between any two of them.
/// A bulk load is fastest at [`GOOD_BATCH_BYTES`].
pub const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;

/// The batch size that suits a bulk load, in bytes of keys and values. `bench-store` writes 100,000
/// records of 200 bytes in 4.9 s with 100 in a batch, 2.9 s with 1,000, 2.2 s with 10,000 and 2.0 s
/// with 19,000, but the largest leave half as much garbage again on the disk (unoptimised build on
/// a busy two-core machine; only the proportions mean something).
pub const GOOD_BATCH_BYTES: usize = 1024 * 1024;

/// One atomic change. Applied whole or not at all.
///
/// Deletes are applied before puts, and of two puts of one key the later wins, so that a key that
/// is in both lists is there afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Keys with the value that each has afterwards.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys that are gone afterwards. Deleting an absent key is no error.
    pub deletes: Vec<Vec<u8>>,
}

impl From<mesh_proto::record::Batch> for Batch {
    fn from(records: mesh_proto::record::Batch) -> Self {
        Self { puts: records.puts, deletes: records.deletes }
    }
}

impl Batch {
    /// Bytes of all keys and values in it.
    pub fn bytes(&self) -> usize {
        let puts: usize = self.puts.iter().map(|(key, value)| key.len() + value.len()).sum();
        puts + self.deletes.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }

    /// Checks every size limit.
    ///
    /// # Errors
    /// The limit that is broken, by name. Such a batch can never be committed.
    pub fn check(&self) -> Result<(), StoreError> {
        let bytes = self.bytes();
        if bytes > MAX_BATCH_BYTES {
            return Err(StoreError::BatchTooLarge { bytes });
        }
        self.deletes.iter().try_for_each(|key| check_key(key))?;
        self.puts.iter().try_for_each(|(key, value)| check_record(key, value))
    }

    /// The last word of the batch on every key that it touches: a value, or `None` for deleted.
    pub(crate) fn outcome(&self) -> BTreeMap<&[u8], Option<&[u8]>> {
        let deletes = self.deletes.iter().map(|key| (key.as_slice(), None));
        let puts = self.puts.iter().map(|(key, value)| (key.as_slice(), Some(value.as_slice())));
        deletes.chain(puts).collect()
    }
}

/// What batches say of each key that they touch, the later over the earlier: a value, or `None` for deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Changes {
    pub(crate) fn new(keys: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Self {
        Self(keys)
    }

    pub(crate) fn add(&mut self, batch: Batch) {
        self.0.extend(batch.deletes.into_iter().map(|key| (key, None)));
        self.0.extend(batch.puts.into_iter().map(|(key, value)| (key, Some(value))));
    }

    pub(crate) fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn touches(&self, key: &[u8]) -> bool {
        self.0.contains_key(key)
    }

    /// By key, ascending.
    pub(crate) fn iter(&self) -> btree_map::Iter<'_, Vec<u8>, Option<Vec<u8>>> {
        self.0.iter()
    }

    /// All of it as one batch.
    pub(crate) fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in &self.0 {
            match value {
                Some(value) => batch.puts.push((key.clone(), value.clone())),
                None => batch.deletes.push(key.clone()),
            }
        }
        batch
    }
}

fn check_key(key: &[u8]) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(StoreError::KeyTooLong { bytes: key.len() });
    }
    Ok(())
}

fn check_record(key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    check_key(key)?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(StoreError::ValueTooLong { key: key.to_vec(), bytes: value.len() });
    }
    Ok(())
}

/// An ordered key/value store whose batches are atomic and durable.
pub trait Store: Send {
    /// Calls `each` with every record, in the order of the keys as bytes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] after every record that still reads was handed over; the caller
    /// must not take what it got for the whole.
    fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError>;

    /// Returns `Ok` only when the batch would survive a power cut.
    ///
    /// # Errors
    /// After an error the batch may or may not be in the store; committing the same batch again is
    /// always right, because a batch says what is true afterwards and not what to change.
    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError>;

    /// Called when nothing was committed for about a second: a moment for bookkeeping that no
    /// commit should wait for. Called again and again; writes only when something changed.
    ///
    /// # Errors
    /// What stopped the bookkeeping. No record is affected.
    fn rest(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What it holds, and what that takes on the disk.
    fn size(&self) -> StoreSize {
        StoreSize::default()
    }

    /// Writes itself anew if it takes far more room on the disk than its records need; `None` when it
    /// does not. Takes as long as it holds much: a job for the start or the night. `progress` is called
    /// at least every record.
    ///
    /// # Errors
    /// What stopped it; no record is affected.
    fn rebuild_if_grown(&mut self, progress: &mut dyn FnMut()) -> Result<Option<Rebuilt>, StoreError> {
        progress();
        Ok(None)
    }

    /// Flushes and releases what the store holds. Later calls answer [`StoreError::Closed`].
    ///
    /// # Errors
    /// What stopped the last flush. Every commit that returned `Ok` is durable all the same.
    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What a store holds and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Number of records.
    pub records: u64,
    /// Bytes of their keys and values, as they are stored.
    pub live_bytes: u64,
    /// Bytes of the store's files.
    pub disk_bytes: u64,
    /// How it was last written anew since it was opened.
    pub rebuilt: Option<Rebuilt>,
}

/// A store that was written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Bytes of its files before.
    pub from_bytes: u64,
    /// Bytes of its files afterwards.
    pub to_bytes: u64,
}

/// What the disk refused. Nothing that was there before is hurt.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No room; nothing is left of the attempt.
    #[error("no room on the disk to write {}; free some space and try again", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl DiskError {
    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::Full { path: path.to_path_buf() };
        }
        Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// What a store may answer instead of doing its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A record without a key.
    #[error("a record has an empty key; keys are 1 to {MAX_KEY_BYTES} bytes")]
    EmptyKey,
    /// A key over the limit.
    #[error("a key has {bytes} bytes; keys are 1 to {MAX_KEY_BYTES} bytes")]
    KeyTooLong {
        /// Length of the key.
        bytes: usize,
    },
    /// A value over the limit.
    #[error(
        "the value of {} has {bytes} bytes; the limit is {MAX_VALUE_BYTES}; split it over several records",
        show_key(key)
    )]
    ValueTooLong {
        /// The key.
        key: Vec<u8>,
        /// Length of the value.
        bytes: usize,
    },
    /// A batch over the limit.
    #[error("a batch has {bytes} bytes; the limit is {MAX_BATCH_BYTES}; commit it in several batches")]
    BatchTooLarge {
        /// Bytes of keys and values.
        bytes: usize,
    },
    /// Too little room is left to begin. Nothing was written; the same batch can be committed again later.
    #[error(
        "the disk that holds {} is full ({free} bytes free, {needed} needed); free some space and it goes on by itself",
        path.display()
    )]
    DiskFull {
        /// The folder of the store.
        path: PathBuf,
        /// Bytes free for this user.
        free: u64,
        /// Bytes that must be free before the store writes.
        needed: u64,
    },
    /// Another process has the store open.
    #[error("{} is open in another process; stop the other daemon or give this one another --state-dir", path.display())]
    Locked {
        /// The folder of the store.
        path: PathBuf,
    },
    /// The disk or the operating system refused something.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Records are missing or do not match their checksum.
    #[error(
        "the store {} is damaged: {reason}; restart the daemon to repair it, or see `hearth doctor`",
        path.display()
    )]
    Damaged {
        /// The folder of the store.
        path: PathBuf,
        /// What was found.
        reason: String,
        /// Keys whose value does not match its checksum.
        keys: Vec<Vec<u8>>,
    },
    /// A newer program wrote it. Nothing was changed.
    #[error(
        "the store {} was written by a newer hearth (version {found}, this one knows up to {known}); start the newer one again, or give this one another --state-dir",
        path.display()
    )]
    Newer {
        /// The folder of the store.
        path: PathBuf,
        /// Version in it.
        found: u8,
        /// Newest version that this program reads.
        known: u8,
    },
    /// sled itself failed or panicked.
    #[error("the storage engine failed to {action} {}: {reason}", path.display())]
    Engine {
        /// What was tried, as a verb.
        action: &'static str,
        /// The folder of the store.
        path: PathBuf,
        /// What sled said.
        reason: String,
    },
    /// An export could not be written or read.
    #[error(transparent)]
    Export(#[from] export::ExportError),
    /// A small file beside the store could not be written or read.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// An earlier batch failed and must be committed first, else a retry of it would put old values
    /// over new ones.
    #[error("batch {failed} failed earlier and must be committed again before this one")]
    Blocked {
        /// Number of the batch that failed.
        failed: u64,
    },
    /// The store was closed, or its power was cut in a test.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        DiskError::new(action, path, source).into()
    }
}

/// Whether an error of the system speaks of the content of a file and not of the surroundings: a block that
/// the disk cannot give back (EIO) is damage like any other.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    let content = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData);
    content || error.raw_os_error() == Some(EIO)
}

/// Keys are mostly text; the rest is escaped, and it is cut so that a log line stays a line.
pub(crate) fn show_key(key: &[u8]) -> String {
    key.escape_ascii().take(96).map(char::from).collect()
}

/// Bytes that this user may still write on the disk that holds `path`, if the system tells.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
pub(crate) mod tests;
