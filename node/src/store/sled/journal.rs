//! What was committed since sled was written last: a file of fixed size in front of it.
//!
//! sled takes two pages of the disk, and now and then three, for each batch that it makes durable. So a small
//! batch goes here first, in blocks of 512 bytes written past the page cache, and is acknowledged when
//! `fdatasync` has returned. sled gets many of them as one: when the file is full, when a large batch comes,
//! when the store is opened or closed.
//!
//! An entry names its base, which is how many commits sled had then, and its number among the entries of
//! that base. sled counts a commit in the batch itself; so with the batch that takes the entries in, and in
//! the same instant, they have a base of the past and are void. The file is then written from its beginning
//! again; nothing in it is ever erased.
//!
//! Whatever was torn by a power cut is the last entry and was acknowledged to nobody. One that is missing
//! before others is damage, and so is a journal that does not read although sled says that there is one. Now
//! and then a voucher, an entry without changes in front of all others, says how many there are of a base, so
//! that the newest are missed as well. Each block says in its first byte whether an entry begins in it, so no
//! value can pass for an entry.

use super::record::Tally;
use crate::store::files::{remove_if_there, sync_parent};
use crate::store::{Batch, Changes, DiskError, StoreError, is_damage};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Its name in sled's folder.
pub(super) const JOURNAL_FILE: &str = "journal";
/// Bytes of the file: about 450 small changes, and the vouchers.
const JOURNAL_BYTES: usize = 256 * 1024;
/// Where the two vouchers lie, of which the older is written over: so far from each other and from the entries that
/// no page of a card holds two of them.
const VOUCHERS: [usize; 2] = [0, 16 * 1024];
/// Where the entries begin.
const ENTRIES: usize = 32 * 1024;
/// A batch with more bytes than this is no cheaper here, for sled has to take it in as well.
const MAX_ENTRY_BYTES: usize = 32 * 1024;
/// What is written at the least. No disk has smaller sectors.
const BLOCK: usize = 512;
/// What is written at the least on a disk with larger sectors, and how memory is aligned for any.
const PAGE: usize = 4096;
/// The first byte of a block in which an entry begins, and of one in which it goes on.
const BEGINS: u8 = 1;
const GOES_ON: u8 = 2;
/// Bytes of an entry in a block.
const BODY: usize = BLOCK - 1;
/// Version of the form of an entry.
const VERSION: u8 = 1;
/// Bytes of an entry's version, its checksum, and the length of what that covers.
const HEAD_BYTES: usize = 1 + SUM_BYTES + 4;
const SUM_BYTES: usize = 8;

/// The journal of an open store.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    /// What the disk wants positions and lengths to be a multiple of.
    sector: usize,
    base: u64,
    number: u32,
    /// Where the next entry begins.
    at: usize,
    /// How many vouchers were written, and the number in the last one.
    vouchers: usize,
    vouched: u32,
}

impl Journal {
    /// Opens the journal in sled's `folder`, or makes it. What is in it must have been taken in or be void.
    ///
    /// # Errors
    /// What the disk refuses.
    pub(super) fn open(folder: &Path) -> Result<Self, DiskError> {
        let path = folder.join(JOURNAL_FILE);
        // A file system in memory has no other way than its cache, and some refuse to be asked for one.
        let direct = |flags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
            let file = options.open(&path)?;
            fill(&file, &path).map(|()| file)
        };
        let past_the_cache = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let file = match direct(past_the_cache) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => direct(0),
            other => other,
        };
        let file = file.map_err(|error| DiskError::new("make", &path, error))?;
        Ok(Self { file, path, sector: BLOCK, base: 0, number: 0, at: ENTRIES, vouchers: 0, vouched: 0 })
    }

    /// Makes a batch durable that was committed when sled had `base` commits; false when it does not fit,
    /// and nothing was written.
    ///
    /// # Errors
    /// What the disk refuses; whether the batch is in the journal is not known then.
    pub(super) fn append(&mut self, base: u64, batch: &Batch) -> Result<bool, DiskError> {
        if batch.bytes() > MAX_ENTRY_BYTES {
            return Ok(false);
        }
        if base != self.base {
            (self.base, self.number, self.at, self.vouched) = (base, 0, ENTRIES, 0);
        }
        let Some(entry) = seal(base, self.number, &batch.outcome()) else { return Ok(false) };
        let entry = blocks(&entry);
        let Some(end) = self.write(&entry, self.at)? else { return Ok(false) };
        (self.number, self.at) = (self.number + 1, end);
        Ok(true)
    }

    /// Writes down how many entries there are, if that is not known; false when it is.
    ///
    /// # Errors
    /// What the disk refuses. No entry is affected.
    pub(super) fn vouch(&mut self) -> Result<bool, DiskError> {
        let Some(voucher) = seal(self.base, self.number, &BTreeMap::new()) else { return Ok(false) };
        if self.vouched == self.number {
            return Ok(false);
        }
        let place = if self.vouchers.is_multiple_of(2) { VOUCHERS[0] } else { VOUCHERS[1] };
        self.write(&blocks(&voucher), place)?;
        (self.vouchers, self.vouched) = (self.vouchers + 1, self.number);
        Ok(true)
    }

    /// Bytes of the entries in it.
    pub(super) fn used(&self) -> u64 {
        (self.at - ENTRIES) as u64
    }

    /// Writes an entry at the next sector from `at` on, makes it durable and answers where it ends; `None` when
    /// there is no room.
    fn write(&mut self, entry: &[u8], at: usize) -> Result<Option<usize>, DiskError> {
        loop {
            let at = at.next_multiple_of(self.sector);
            let bytes = entry.len().next_multiple_of(self.sector);
            if at + bytes > JOURNAL_BYTES {
                return Ok(None);
            }
            match write_aligned(&self.file, entry, bytes, at) {
                Ok(()) => {
                    self.file.sync_data().map_err(|error| DiskError::new("sync", &self.path, error))?;
                    return Ok(Some(at + bytes));
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && self.sector < PAGE => {
                    self.sector = PAGE;
                }
                Err(error) => return Err(DiskError::new("write", &self.path, error)),
            }
        }
    }
}

/// Removes the journal in sled's `folder`, so that [`Journal::open`] makes a new one of other blocks of the disk.
///
/// # Errors
/// What the disk refuses.
pub(super) fn remove(folder: &Path) -> Result<(), DiskError> {
    remove_if_there(&folder.join(JOURNAL_FILE))
}

/// Gives a new journal its blocks, so that no entry has to wait for the file system to find room, and its
/// vouchers, without which it is no journal.
fn fill(file: &File, path: &Path) -> io::Result<()> {
    if file.metadata()?.len() >= JOURNAL_BYTES as u64 {
        return Ok(());
    }
    let mut content = vec![0; ENTRIES];
    for at in VOUCHERS {
        let voucher = seal(0, 0, &BTreeMap::new()).map(|voucher| blocks(&voucher)).unwrap_or_default();
        content.splice(at..at + voucher.len(), voucher);
    }
    write_aligned(file, &content, JOURNAL_BYTES, 0)?;
    file.sync_all()?;
    sync_parent(path)
}

/// Writes `bytes` from `at` on: the content, and zeros. Past the page cache memory must be aligned.
fn write_aligned(file: &File, content: &[u8], bytes: usize, at: usize) -> io::Result<()> {
    let mut memory = vec![0; bytes + PAGE];
    let from = memory.as_ptr().align_offset(PAGE);
    let aligned = memory.get_mut(from..from + bytes).ok_or(io::ErrorKind::OutOfMemory)?;
    for (to, byte) in aligned.iter_mut().zip(content) {
        *to = *byte;
    }
    file.write_all_at(aligned, at as u64)
}

/// An entry as one sequence of bytes.
fn seal(base: u64, number: u32, outcome: &BTreeMap<&[u8], Option<&[u8]>>) -> Option<Vec<u8>> {
    let covered = postcard::to_allocvec(&(base, number, outcome)).ok()?;
    let length = u32::try_from(covered.len()).ok()?;
    Some([&[VERSION][..], &checksum(VERSION, &covered), &length.to_le_bytes(), &covered].concat())
}

fn checksum(version: u8, covered: &[u8]) -> [u8; SUM_BYTES] {
    let mut short = [0; SUM_BYTES];
    blake3::Hasher::new().update(&[version]).update(covered).finalize_xof().fill(&mut short);
    short
}

/// The sequence cut into blocks, each with its first byte.
fn blocks(entry: &[u8]) -> Vec<u8> {
    let mut blocks = Vec::with_capacity(entry.len().div_ceil(BODY) * BLOCK);
    for (number, body) in entry.chunks(BODY).enumerate() {
        blocks.push(if number == 0 { BEGINS } else { GOES_ON });
        blocks.extend_from_slice(body);
    }
    blocks
}

/// What a journal holds, void entries included.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// By base and number.
    entries: BTreeMap<(u64, u32), Changes>,
    /// All of the file was there to be read.
    is_whole: bool,
    /// Of some bases how many entries there were at least.
    vouched: Vec<(u64, u32)>,
}

/// What sled has not taken in of a journal.
#[derive(Clone, Debug, Default)]
pub(super) struct Lacking {
    pub(super) changes: Changes,
    /// At least so many entries that were acknowledged do not read.
    pub(super) lost: u64,
}

impl Found {
    /// Reads the journal in sled's `folder`.
    ///
    /// # Errors
    /// [`StoreError::Newer`], and what the system says on reading, if it is not damage.
    pub(super) fn read(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(JOURNAL_FILE);
        let (bytes, is_whole) = bytes_of(&path).map_err(|error| StoreError::io("read", &path, error))?;
        let mut found = Self { is_whole, ..Self::default() };
        let vouchers = VOUCHERS.into_iter().filter_map(|at| unseal(bytes.get(at..)?));
        for (version, covered) in vouchers {
            refuse_newer(folder, version)?;
            found.vouched.extend(decode(&covered).map(|(place, _)| place));
        }
        let mut rest = bytes.get(ENTRIES..).unwrap_or_default();
        while !rest.is_empty() {
            let mut blocks = 1;
            if let Some((version, covered)) = unseal(rest) {
                refuse_newer(folder, version)?;
                blocks = (HEAD_BYTES + covered.len()).div_ceil(BODY);
                found.entries.extend(decode(&covered));
            }
            rest = rest.get(blocks * BLOCK..).unwrap_or_default();
        }
        Ok(found)
    }

    /// What an open store knows of its own: changes that a sled with so many commits lacks.
    pub(super) fn over(commits: u64, changes: &Changes) -> Self {
        let entries = BTreeMap::from([((commits, 0), changes.clone())]);
        Self { entries, is_whole: true, vouched: vec![(0, 0)] }
    }

    /// How many commits sled had when the newest entry was written.
    pub(super) fn commits(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |((base, _), _)| *base)
    }

    /// What a sled with this tally has not taken in.
    pub(super) fn lacking(&self, tally: Tally) -> Lacking {
        let Tally { commits, journaled, .. } = tally;
        let mut lacking = Lacking::default();
        for changes in self.entries.range((commits, 0)..).map(|(_, changes)| changes) {
            lacking.changes.extend(changes.clone());
        }
        let of_newest = self.entries.range((commits.max(self.commits()), 0)..);
        let there = of_newest.clone().count() as u64;
        let numbered = of_newest.last().map_or(0, |((_, number), _)| u64::from(*number) + 1);
        let vouched = self.vouched.iter().filter(|(base, _)| *base == commits).map(|(_, number)| *number);
        let numbered = numbered.max(vouched.max().unwrap_or(0).into());
        let is_missed = journaled && (!self.is_whole || self.vouched.is_empty());
        lacking.lost = (numbered - there).max(u64::from(is_missed));
        lacking
    }
}

/// The bytes of a journal, zeros where the disk cannot give them back, and whether it could everywhere.
fn bytes_of(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_damage(&error) => {
            return Ok((Vec::new(), false));
        }
        opened => opened?,
    };
    let (mut bytes, mut is_whole) = (vec![0; JOURNAL_BYTES], true);
    for (number, page) in (0..).zip(bytes.chunks_mut(PAGE)) {
        match file.read_exact_at(page, number * PAGE as u64) {
            Err(error) if is_damage(&error) => {
                page.fill(0);
                is_whole = false;
            }
            read => read?,
        }
    }
    Ok((bytes, is_whole))
}

fn refuse_newer(folder: &Path, version: u8) -> Result<(), StoreError> {
    if version > VERSION {
        return Err(StoreError::Newer { path: folder.into(), found: version, known: VERSION });
    }
    Ok(())
}

/// The base and number of an entry, and its changes, from what its checksum covers.
fn decode(covered: &[u8]) -> Option<((u64, u32), Changes)> {
    let (base, number, changes) = postcard::from_bytes(covered).ok()?;
    Some(((base, number), Changes::new(changes)))
}

/// The version of the entry that begins with these bytes and what its checksum covers, if it matches.
fn unseal(bytes: &[u8]) -> Option<(u8, Vec<u8>)> {
    let mut blocks = bytes.chunks(BLOCK);
    let (&BEGINS, first) = blocks.next()?.split_first()? else { return None };
    let (version, rest) = first.split_first()?;
    let (sum, rest) = rest.split_first_chunk::<SUM_BYTES>()?;
    let (length, begin) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    let mut covered = begin.to_vec();
    while covered.len() < length {
        let (&GOES_ON, body) = blocks.next()?.split_first()? else { return None };
        covered.extend_from_slice(body);
    }
    covered.truncate(length);
    (checksum(*version, &covered) == *sum).then_some((*version, covered))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::store::tests::Folder;

    impl Journal {
        /// From now on the disk refuses what is written.
        pub(in super::super) fn fail(&mut self) {
            self.file = File::open("/dev/null").unwrap();
        }
    }

    fn read(folder: &Folder) -> Found {
        Found::read(folder.path()).unwrap()
    }

    fn at(commits: u64) -> Tally {
        Tally { commits, journaled: true, ..Tally::default() }
    }

    fn put(key: &str, value: Vec<u8>) -> Batch {
        Batch { puts: vec![(key.into(), value)], deletes: vec![] }
    }

    #[test]
    fn an_entry_reads_as_it_was_written_whatever_its_length() {
        let folder = Folder::new();
        let mut journal = Journal::open(folder.path()).unwrap();
        // From part of a block to several pages; a block's end falls on each part of an entry's end.
        let lengths = (0..40).chain(440..520).chain([4_000, 4_096]);
        let batches: Vec<Batch> = lengths
            .map(|length| Batch { deletes: vec![b"gone".to_vec()], ..put("key", vec![BEGINS; length]) })
            .collect();
        for batch in &batches {
            assert!(journal.append(7, batch).unwrap());
        }
        let found = read(&folder);
        assert!(found.is_whole);
        let places = (0..).map(|number| (7, number));
        let expected = places.zip(batches).map(|(place, batch)| {
            let mut changes = Changes::default();
            changes.add(batch);
            (place, changes)
        });
        assert_eq!(found.entries, expected.collect());
        assert_eq!((found.commits(), found.lacking(at(7)).lost, found.lacking(at(8)).lost), (7, 0, 0));
        assert!(found.lacking(at(8)).changes.is_empty(), "sled has taken them in");
    }

    #[test]
    fn a_disk_with_large_sectors_gets_whole_ones() {
        let folder = Folder::new();
        let mut journal = Journal::open(folder.path()).unwrap();
        assert!(journal.append(3, &put("key", vec![1])).unwrap());
        journal.sector = PAGE;
        for length in [1, 4_000, 1] {
            assert!(journal.append(3, &put("key", vec![2; length])).unwrap());
            assert_eq!(journal.at % PAGE, 0);
        }
        let found = read(&folder);
        assert_eq!((found.entries.len(), found.lacking(at(3)).lost), (4, 0));
        for (vouched, lost) in [((3, 4), 0), ((3, 6), 2), ((2, 9), 0)] {
            let vouched = vec![vouched, (3, 1)];
            assert_eq!(Found { vouched, ..found.clone() }.lacking(at(3)).lost, lost);
        }
    }

    #[test]
    fn it_is_full_at_its_end_and_begins_anew_with_another_base() {
        let folder = Folder::new();
        let mut journal = Journal::open(folder.path()).unwrap();
        let mut count = 0;
        while journal.append(1, &put("key", vec![0; 4_000])).unwrap() {
            count += 1;
        }
        assert!((45..58).contains(&count), "{count} entries of 4 KB");
        assert_eq!(read(&folder).entries.len(), count);
        assert!(journal.append(2, &put("key", vec![1])).unwrap());
        let found = read(&folder);
        assert_eq!((found.commits(), found.entries.len()), (2, count), "one of the old is written over");
        assert_eq!(found.lacking(at(2)).changes.batch(), put("key", vec![1]));
        let all = fs_len(&folder);
        assert_eq!(all, JOURNAL_BYTES as u64, "it does not grow");
        assert!(
            !journal.append(2, &put("key", vec![0; MAX_ENTRY_BYTES])).unwrap(),
            "a large one is not for it"
        );
    }

    fn fs_len(folder: &Folder) -> u64 {
        std::fs::metadata(folder.join(JOURNAL_FILE)).unwrap().len()
    }

    #[test]
    fn no_value_passes_for_an_entry() {
        let forged = put("forged", vec![1]);
        let image = blocks(&seal(1, 1, &forged.outcome()).unwrap());
        for shift in 0..BLOCK {
            let value = [vec![BEGINS; shift], image.repeat(3)].concat();
            let entry = blocks(&seal(1, 0, &put("key", value).outcome()).unwrap());
            for (number, rest) in (0..entry.len()).step_by(BLOCK).map(|at| &entry[at..]).enumerate() {
                assert_eq!(unseal(rest).is_some(), number == 0, "shifted by {shift}, block {number}");
            }
        }
    }

    #[test]
    fn an_entry_of_a_newer_version_is_refused() {
        let folder = Folder::new();
        drop(Journal::open(folder.path()).unwrap());
        let mut entry = blocks(&seal(1, 0, &put("key", vec![1]).outcome()).unwrap());
        entry[1] = VERSION + 1;
        let write = |entry: &[u8], at: usize| {
            let mut bytes = vec![0; JOURNAL_BYTES];
            bytes[at..at + entry.len()].copy_from_slice(entry);
            std::fs::write(folder.join(JOURNAL_FILE), bytes).unwrap();
        };
        write(&entry, ENTRIES);
        assert!(read(&folder).entries.is_empty(), "a flipped byte makes no newer version");
        let length = u32::from_le_bytes(entry[10..14].try_into().unwrap()) as usize;
        let sum = checksum(VERSION + 1, &entry[14..14 + length]);
        entry[2..10].copy_from_slice(&sum);
        for at in [ENTRIES, VOUCHERS[0], VOUCHERS[1]] {
            write(&entry, at);
            let error = Found::read(folder.path()).unwrap_err();
            assert!(matches!(error, StoreError::Newer { found: 2, known: 1, .. }), "{error}");
        }
    }
}
