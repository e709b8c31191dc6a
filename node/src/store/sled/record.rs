//! How records lie in sled: sealed with a checksum, counted by a tally.

use crate::store::{Changes, StoreError};
use std::collections::btree_map;
use std::iter::Peekable;
use std::path::Path;

/// Bytes of the checksum at the end of every stored value.
const SEAL_BYTES: usize = 8;
const USER: u8 = 1;
/// Version of the form of the tally. Before it there was no journal.
const TALLY_VERSION: u8 = 2;
/// Bytes of its numbers; in the form before it had a version there is nothing else.
const TALLY_BYTES: usize = 24;
/// Key of the tally: it sorts before the records, whose keys all start with [`USER`].
const TALLY_KEY: &[u8] = b"\0tally";

/// A key of the caller as it lies in sled.
pub(super) fn user_key(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 1);
    stored.push(USER);
    stored.extend_from_slice(key);
    stored
}

/// The key of the tally.
pub(super) fn own_key() -> &'static [u8] {
    TALLY_KEY
}

/// The value with its checksum, which covers the key: a value under a wrong key is damage as well.
pub(super) fn seal(stored_key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + SEAL_BYTES);
    sealed.extend_from_slice(value);
    sealed.extend_from_slice(&checksum(stored_key, value));
    sealed
}

/// The value, if its checksum matches.
pub(super) fn unseal<'a>(stored_key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, seal) = sealed.split_last_chunk::<SEAL_BYTES>()?;
    (checksum(stored_key, value) == *seal).then_some(value)
}

fn checksum(stored_key: &[u8], value: &[u8]) -> [u8; SEAL_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(stored_key.len() as u64).to_le_bytes());
    hasher.update(stored_key);
    hasher.update(value);
    let mut short = [0; SEAL_BYTES];
    hasher.finalize_xof().fill(&mut short);
    short
}

fn seal_of(sealed: &[u8]) -> u64 {
    sealed.last_chunk::<SEAL_BYTES>().map_or(0, |seal| u64::from_le_bytes(*seal))
}

/// What a whole store adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Number of records.
    pub(super) records: u64,
    /// Wrapping sum of their checksums.
    pub(super) sum: u64,
    /// Commits since the store was made.
    pub(super) commits: u64,
    /// A journal lies in front of sled, and may hold what sled lacks.
    pub(super) journaled: bool,
}

impl Tally {
    pub(super) fn add(&mut self, sealed: &[u8]) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(seal_of(sealed));
    }

    pub(super) fn remove(&mut self, sealed: &[u8]) {
        self.records = self.records.saturating_sub(1);
        self.sum = self.sum.wrapping_sub(seal_of(sealed));
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let numbers = [self.records, self.sum, self.commits].map(u64::to_le_bytes).concat();
        [[TALLY_VERSION].as_slice(), &numbers, &[self.journaled.into()]].concat()
    }

    /// The error is the version, if it is one that this program does not know.
    fn decode(bytes: &[u8]) -> Result<Self, Option<u8>> {
        let (numbers, journaled) = match bytes.split_first() {
            _ if bytes.len() == TALLY_BYTES => (bytes, false),
            Some((1, numbers)) => (numbers, false),
            Some((&TALLY_VERSION, rest)) => {
                rest.split_last().map(|(last, numbers)| (numbers, *last == 1)).ok_or(None)?
            }
            Some((&newer, _)) if newer > TALLY_VERSION => return Err(Some(newer)),
            _ => return Err(None),
        };
        let ([records, sum, commits], []) = numbers.as_chunks::<8>() else { return Err(None) };
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        Ok(Self { records: number(records), sum: number(sum), commits: number(commits), journaled })
    }
}

/// What one pass over a database found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The records that read, added up; `commits` is what the stored tally says.
    pub(super) found: Tally,
    /// Bytes of these records, as they are stored.
    pub(super) bytes: u64,
    /// The stored tally, if it reads.
    pub(super) stored: Option<Tally>,
    /// The version of the stored tally, if a newer program wrote it.
    newer: Option<u8>,
    /// Keys of the caller whose value does not match its checksum.
    pub(super) damaged: Vec<Vec<u8>>,
    /// Why the pass stopped before the end, if it did.
    pub(super) stopped: Option<String>,
}

impl Scan {
    /// What keeps this from being the whole store that `tally` describes.
    pub(super) fn problem(&self, tally: Tally) -> Option<String> {
        if let Some(reason) = &self.stopped {
            return Some(format!("after {} records it cannot be read: {reason}", self.found.records));
        }
        if !self.damaged.is_empty() {
            return Some(format!("{} records do not match their checksum", self.damaged.len()));
        }
        if (self.found.records, self.found.sum) != (tally.records, tally.sum) {
            return Some(format!(
                "it holds {} records and should hold {}",
                self.found.records, tally.records
            ));
        }
        None
    }

    /// Whether this program knows what it reads: of a store that a newer one wrote it cannot tell whether it is
    /// whole, and must not repair it.
    pub(super) fn refuse_newer(&self, folder: &Path) -> Result<(), StoreError> {
        match self.newer {
            Some(found) => Err(StoreError::Newer { path: folder.to_path_buf(), found, known: TALLY_VERSION }),
            None => Ok(()),
        }
    }

    /// Adds a record as it lies in sled, and hands it on if it is one of the caller and whole.
    pub(super) fn take(&mut self, key: &[u8], sealed: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) {
        match (key.split_first(), unseal(key, sealed)) {
            (Some((&USER, key)), Some(value)) => {
                self.found.add(sealed);
                self.bytes += (1 + key.len() + sealed.len()) as u64;
                each(key, value);
            }
            (Some((&USER, key)), None) => self.damaged.push(key.to_vec()),
            (_, Some(value)) if key == TALLY_KEY => {
                let tally = Tally::decode(value);
                self.newer = tally.err().flatten();
                self.stored = tally.ok();
                self.found.commits = self.stored.map_or(0, |tally| tally.commits);
            }
            _ => self.damaged.push(key.to_vec()),
        }
    }
}

/// Reads from the first record on. It stops at the first error, because sled's iterator then
/// returns errors for ever.
pub(super) fn scan(db: &::sled::Db, each: &mut dyn FnMut(&[u8], &[u8])) -> Scan {
    let mut scan = Scan::default();
    for item in db.iter() {
        match item {
            Ok((key, sealed)) => scan.take(&key, &sealed, each),
            Err(error) => {
                scan.stopped = Some(error.to_string());
                break;
            }
        }
    }
    scan
}

/// The tally that is stored, if it makes sense.
pub(super) fn stored_tally(db: &::sled::Db) -> Result<Option<Tally>, ::sled::Error> {
    let sealed = db.get(TALLY_KEY)?;
    Ok(sealed.and_then(|sealed| Tally::decode(unseal(TALLY_KEY, &sealed)?).ok()))
}

/// Hands on records, which come in the order of their keys, with changes put over them.
pub(super) struct Over<'a, F> {
    changes: Peekable<btree_map::Iter<'a, Vec<u8>, Option<Vec<u8>>>>,
    each: F,
}

impl<'a, F: FnMut(&[u8], &[u8])> Over<'a, F> {
    pub(super) fn new(changes: &'a Changes, each: F) -> Self {
        Self { changes: changes.iter().peekable(), each }
    }

    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) {
        let mut is_changed = false;
        while let Some((changed, value)) = self.changes.next_if(|(changed, _)| changed.as_slice() <= key) {
            is_changed = changed == key;
            if let Some(value) = value {
                (self.each)(changed, value);
            }
        }
        if !is_changed {
            (self.each)(key, value);
        }
    }

    /// Hands on what is new behind the last record.
    pub(super) fn finish(mut self) {
        for (key, value) in self.changes {
            if let Some(value) = value {
                (self.each)(key, value);
            }
        }
    }
}
