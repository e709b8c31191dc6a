//! The export file: every live record, compact, checksummed, independent of the storage engine.
//!
//! Layout, all numbers little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `HEARTHX1` |
//! | 2 | version, 1 |
//! | 8 | seconds since 1970 at which it was made, by the clock of the node |
//! | per record: 4, 4, n, m | length of key, length of value, key, value; keys ascend |
//! | 4, 8 | zero, number of records |
//! | 32 | blake3 of everything before |

use super::files::{sync_parent, temporary_of};
use super::{DiskError, MAX_KEY_BYTES, MAX_VALUE_BYTES, Store, StoreError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 8] = b"HEARTHX1";
const VERSION: u16 = 1;
const HASH_BYTES: u64 = 32;

/// How many exports of one store are kept.
pub const KEPT_EXPORTS: usize = 3;

/// What may be wrong with an export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Not an export at all.
    #[error("{} is not a Hearth export", path.display())]
    NotAnExport {
        /// The file.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error("{} has version {found}, this program reads up to {VERSION}; import it with a newer hearth", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u16,
    },
    /// Its content is not what was written.
    #[error("the export {} is damaged ({reason}); take an older one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
    /// The disk refused something.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What an export holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Where it is.
    pub path: PathBuf,
    /// When it was made, by the clock that the node had then.
    pub created: SystemTime,
    /// Number of records.
    pub records: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// Writes all records of `store` to the file `to`, which appears whole and durable or not at all.
/// `progress` is called at least every 1,000 records.
///
/// # Errors
/// What the store or the disk said; an existing file at `to` is intact then.
pub fn write(
    store: &mut dyn Store,
    to: &Path,
    now: SystemTime,
    progress: &mut dyn FnMut(),
) -> Result<Export, StoreError> {
    let temporary = temporary_of(to);
    let _left_by_a_crash = fs::remove_file(&temporary);
    let written = write_temporary(store, &temporary, now, progress);
    let written = written.and_then(|written| {
        fs::rename(&temporary, to)
            .and_then(|()| sync_parent(to))
            .map_err(|error| DiskError::new("rename", to, error))?;
        Ok(Export { path: to.to_path_buf(), ..written })
    });
    if written.is_err() {
        let _partial = fs::remove_file(&temporary);
    }
    written
}

/// Writes the next numbered export into `folder`, then deletes all but the newest
/// [`KEPT_EXPORTS`]. They are numbered and not dated, because a board may not know the date.
///
/// # Errors
/// As [`write`]; the older exports are intact then.
pub fn write_next(
    store: &mut dyn Store,
    folder: &Path,
    now: SystemTime,
    progress: &mut dyn FnMut(),
) -> Result<Export, StoreError> {
    fs::create_dir_all(folder).map_err(|error| DiskError::new("create", folder, error))?;
    let older = list(folder)?;
    let number = older.first().map_or(1, |(number, _)| number + 1);
    let export = write(store, &folder.join(format!("export-{number:08}.hx")), now, progress)?;
    for (_, path) in older.iter().skip(KEPT_EXPORTS - 1) {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(file = %path.display(), %error, "an old export could not be deleted");
        }
    }
    Ok(export)
}

/// The exports in `folder` with their numbers, newest first; empty when there is no such folder.
///
/// # Errors
/// What the system said about the folder.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, ExportError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DiskError::new("list", folder, error).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| DiskError::new("list", folder, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("export-")?.strip_suffix(".hx")?.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort_unstable_by(|a: &(u64, _), b| b.cmp(a));
    Ok(found)
}

/// Checks the whole file, and only then calls `each` with every record in key order.
///
/// # Errors
/// What is wrong with it; `each` was not called then, unless the file changed meanwhile.
pub fn read(path: &Path, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<Export, ExportError> {
    let mut file = File::open(path).map_err(|error| DiskError::new("open", path, error))?;
    Reader::new(&mut file, path)?.run(&mut |_, _| ())?;
    file.rewind().map_err(|error| DiskError::new("read", path, error))?;
    Reader::new(&mut file, path)?.run(each)
}

/// Checks the whole file without handing out a record.
///
/// # Errors
/// What is wrong with it.
pub fn verify(path: &Path) -> Result<Export, ExportError> {
    let mut file = File::open(path).map_err(|error| DiskError::new("open", path, error))?;
    Reader::new(&mut file, path)?.run(&mut |_, _| ())
}

fn write_temporary(
    store: &mut dyn Store,
    path: &Path,
    now: SystemTime,
    progress: &mut dyn FnMut(),
) -> Result<Export, StoreError> {
    let io = |error| DiskError::new("write", path, error);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    let mut out = BufWriter::new(file);
    let export = write_to(store, &mut out, path, now, progress)?;
    let file = out.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    Ok(export)
}

/// Writes an export to `out`, which is the file at `path` or a part of it, and makes nothing durable.
pub(crate) fn write_to(
    store: &mut dyn Store,
    out: &mut dyn Write,
    path: &Path,
    now: SystemTime,
    progress: &mut dyn FnMut(),
) -> Result<Export, StoreError> {
    let io = |error| DiskError::new("write", path, error);
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut out = Hashing { inner: out, hash: blake3::Hasher::new(), bytes: 0 };
    let header = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &seconds.to_le_bytes()].concat();
    let mut written = out.write_all(&header);
    let mut records = 0_u64;
    store.load(&mut |key, value| {
        if written.is_ok() {
            written = put_record(&mut out, key, value);
            records += 1;
        }
        if records.is_multiple_of(1_000) {
            progress();
        }
    })?;
    let end = [&0_u32.to_le_bytes()[..], &records.to_le_bytes()].concat();
    written.and_then(|()| out.write_all(&end)).map_err(io)?;
    let hash = out.hash.finalize();
    out.write_all(hash.as_bytes()).map_err(io)?;
    let created = UNIX_EPOCH + Duration::from_secs(seconds);
    Ok(Export { path: path.to_path_buf(), created, records, bytes: out.bytes })
}

fn put_record(out: &mut Hashing<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    // The store keeps to its limits, which fit in 32 bits.
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    out.write_all(&length(key))?;
    out.write_all(&length(value))?;
    out.write_all(key)?;
    out.write_all(value)
}

/// Sums up what passes through it.
pub(crate) struct Hashing<'a> {
    pub(crate) inner: &'a mut dyn Write,
    pub(crate) hash: blake3::Hasher,
    pub(crate) bytes: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Reader<'a> {
    inner: BufReader<io::Take<&'a mut File>>,
    path: &'a Path,
    hash: blake3::Hasher,
    hash_in_file: bool,
    bytes: u64,
}

impl<'a> Reader<'a> {
    fn new(file: &'a mut File, path: &'a Path) -> Result<Self, ExportError> {
        let about = file.metadata().map_err(|error| DiskError::new("inspect", path, error))?;
        if !about.is_file() {
            return Err(ExportError::NotAnExport { path: path.to_path_buf() });
        }
        let bytes = about.len();
        let inner = BufReader::with_capacity(64 * 1024, file.take(bytes));
        Ok(Self { inner, path, hash: blake3::Hasher::new(), hash_in_file: false, bytes })
    }

    fn damaged(&self, reason: &'static str) -> ExportError {
        ExportError::Damaged { path: self.path.to_path_buf(), reason }
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), ExportError> {
        match self.inner.read_exact(into) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged("its end is missing"));
            }
            Err(error) => return Err(DiskError::new("read", self.path, error).into()),
        }
        if !self.hash_in_file {
            self.hash.update(into);
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ExportError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn run(mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<Export, ExportError> {
        let not_an_export = || ExportError::NotAnExport { path: self.path.to_path_buf() };
        if self.bytes < MAGIC.len() as u64 {
            return Err(not_an_export());
        }
        if &self.array::<8>()? != MAGIC {
            return Err(ExportError::NotAnExport { path: self.path.to_path_buf() });
        }
        let version = u16::from_le_bytes(self.array()?);
        if version != VERSION {
            return Err(self.unknown_version(version));
        }
        let seconds = u64::from_le_bytes(self.array()?);
        let records = self.records(each)?;
        if u64::from_le_bytes(self.array()?) != records {
            return Err(self.damaged("its number of records does not match"));
        }
        self.hash_in_file = true;
        if self.hash.finalize() != self.array::<{ HASH_BYTES as usize }>()? {
            return Err(self.damaged("its checksum does not match"));
        }
        if self.fill(&mut [0]).is_ok() {
            return Err(self.damaged("something follows its end"));
        }
        let created = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
        Ok(Export { path: self.path.to_path_buf(), created, records, bytes: self.bytes })
    }

    fn unknown_version(&self, found: u16) -> ExportError {
        if found == 0 {
            return self.damaged("it has no version");
        }
        ExportError::Newer { path: self.path.to_path_buf(), found }
    }

    fn records(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<u64, ExportError> {
        let (mut key, mut value, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for count in 0_u64.. {
            let key_bytes = u32::from_le_bytes(self.array()?) as usize;
            if key_bytes == 0 {
                return Ok(count);
            }
            let value_bytes = u32::from_le_bytes(self.array()?) as usize;
            if key_bytes > MAX_KEY_BYTES || value_bytes > MAX_VALUE_BYTES {
                return Err(self.damaged("a record is longer than records may be"));
            }
            key.resize(key_bytes, 0);
            value.resize(value_bytes, 0);
            self.fill(&mut key)?;
            self.fill(&mut value)?;
            if key <= last {
                return Err(self.damaged("its records are out of order"));
            }
            each(&key, &value);
            std::mem::swap(&mut key, &mut last);
        }
        Err(self.damaged("it has no end"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::tests::{Folder, records_of, sample};

    fn store(records: usize) -> MemoryStore {
        let mut store = MemoryStore::new();
        store.commit(&sample(0..records)).unwrap();
        store
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    #[test]
    fn what_was_exported_is_read_again() {
        for count in [0, 1, 3_000] {
            let folder = Folder::new();
            let path = folder.join("a.hx");
            let mut from = store(count);
            let written = write(&mut from, &path, now(), &mut || ()).unwrap();
            let mut to = std::collections::BTreeMap::new();
            let read = read(&path, &mut |key, value| drop(to.insert(key.to_vec(), value.to_vec()))).unwrap();
            assert_eq!((read.clone(), to), (written, records_of(&mut from)));
            assert_eq!((read.created, read.records), (now(), count as u64));
            assert_eq!(read.bytes, fs::metadata(&path).unwrap().len());
        }
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_named_before_a_record_is_handed_out() {
        let folder = Folder::new();
        let path = folder.join("a.hx");
        write(&mut store(5), &path, now(), &mut || ()).unwrap();
        let good = fs::read(&path).unwrap();
        let refuse = |what: &str| {
            let error = read(&path, &mut |_, _| panic!("a record of a damaged export")).unwrap_err();
            assert!(
                matches!(
                    error,
                    ExportError::Damaged { .. } | ExportError::NotAnExport { .. } | ExportError::Newer { .. }
                ),
                "{what}: {error}"
            );
        };
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            fs::write(&path, &bad).unwrap();
            refuse(&format!("byte {at}"));
            fs::write(&path, &good[..at]).unwrap();
            refuse(&format!("cut at {at}"));
        }
        fs::write(&path, [good.as_slice(), b"x"].concat()).unwrap();
        refuse("a byte too many");
    }

    #[test]
    fn a_length_that_claims_gigabytes_is_refused_before_allocation() {
        let folder = Folder::new();
        let path = folder.join("a.hx");
        let huge = u32::MAX.to_le_bytes();
        let bytes = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &[0; 8], &huge, &huge].concat();
        fs::write(&path, bytes).unwrap();
        let error = verify(&path).unwrap_err();
        assert!(matches!(error, ExportError::Damaged { reason, .. } if reason.contains("longer")), "{error}");
    }

    #[test]
    fn the_three_newest_are_kept_by_number() {
        let folder = Folder::new();
        for _ in 0..5 {
            write_next(&mut store(2), folder.path(), UNIX_EPOCH, &mut || ()).unwrap();
        }
        let numbers: Vec<u64> = list(folder.path()).unwrap().into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [5, 4, 3]);
        assert!(list(&folder.join("absent")).unwrap().is_empty());
    }

    #[test]
    fn a_store_that_fails_leaves_no_partial_export() {
        struct Failing;
        impl Store for Failing {
            fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
                each(b"a", b"b");
                Err(StoreError::Closed)
            }
            fn commit(&mut self, _: &super::super::Batch) -> Result<(), StoreError> {
                Err(StoreError::Closed)
            }
        }
        let folder = Folder::new();
        assert!(write(&mut Failing, &folder.join("a.hx"), now(), &mut || ()).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
