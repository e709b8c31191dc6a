//! Small durable files: written whole, replaced atomically, checked on every read.
//!
//! A file is replaced by writing a temporary file in the same folder, syncing it, renaming it over
//! the old one and syncing the folder. After a power cut either the old or the new content is
//! there. The layout, all numbers little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic of the kind of file |
//! | 2 | version of the kind |
//! | 4 | length of the payload |
//! | n | payload |
//! | 32 | blake3 of everything before |

use super::{DiskError, is_damage};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const HEADER_BYTES: usize = 14;
const HASH_BYTES: usize = 32;

/// What distinguishes one kind of small file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileKind {
    /// The first bytes of every such file.
    pub magic: [u8; 8],
    /// The version this program writes; it reads this one and older ones.
    pub version: u16,
    /// The longest payload in bytes; a longer file is refused before it is read.
    pub max_bytes: usize,
    /// Permission bits. A kind without any bit for group and others is a secret: when somebody
    /// else may read the file, it is refused.
    pub mode: u32,
    /// What a person loses when it is gone, and what to do then; the end of the error text.
    pub way_out: &'static str,
}

/// What may be wrong with a small file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The content is not what was written.
    #[error("{} is damaged ({reason}); {way_out}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// A newer program wrote it.
    #[error(
        "{} has version {found}, this program knows up to {known}; start the newer hearth again, or use another --state-dir",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u16,
        /// Newest version this program reads.
        known: u16,
    },
    /// A secret that others may read.
    #[error(
        "{} holds a secret and other users may read it (mode {mode:03o}); run: chmod 600 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// More than this kind of file may hold; nothing was written.
    #[error("{} would hold {bytes} bytes; its limit is {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The disk refused something.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Replaces the file by one with this payload. On return it survives a power cut.
///
/// # Errors
/// [`FileError::TooLarge`] or [`FileError::Disk`]; in each case the old content
/// is intact.
pub fn write_durable(path: &Path, kind: &FileKind, payload: &[u8]) -> Result<(), FileError> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= kind.max_bytes);
    let Some(length) = length else {
        return Err(FileError::TooLarge {
            path: path.to_path_buf(),
            bytes: payload.len(),
            limit: kind.max_bytes,
        });
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + payload.len() + HASH_BYTES));
    bytes.extend_from_slice(&kind.magic);
    bytes.extend_from_slice(&kind.version.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(payload);
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    replace(path, kind.mode, &bytes)
}

/// Reads the payload; `None` when there is no such file. One that the disk cannot give back is damaged.
///
/// # Errors
/// [`FileError::Damaged`], [`FileError::Newer`], [`FileError::Exposed`] or [`FileError::Disk`].
pub fn read_checked(path: &Path, kind: &FileKind) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    let refused = |action, error: io::Error| match is_damage(&error) {
        true => FileError::Damaged {
            path: path.to_path_buf(),
            reason: "the disk cannot give it back",
            way_out: kind.way_out,
        },
        false => DiskError::new(action, path, error).into(),
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused("open", error)),
    };
    let about = file.metadata().map_err(|error| refused("inspect", error))?;
    let mode = about.permissions().mode() & 0o777;
    if kind.mode & 0o077 == 0 && mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_path_buf(), mode });
    }
    let limit = HEADER_BYTES + kind.max_bytes + HASH_BYTES;
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(limit.min(usize::try_from(about.len()).unwrap_or(limit))));
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| refused("read", error))?;
    decode(path, kind, &bytes).map(|payload| Some(Zeroizing::new(payload.to_vec())))
}

fn decode<'a>(path: &Path, kind: &FileKind, bytes: &'a [u8]) -> Result<&'a [u8], FileError> {
    let damaged = |reason| FileError::Damaged { path: path.to_path_buf(), reason, way_out: kind.way_out };
    if bytes.is_empty() {
        return Err(damaged("it is empty"));
    }
    if bytes.len() > HEADER_BYTES + kind.max_bytes + HASH_BYTES {
        return Err(damaged("it is too long"));
    }
    let (body, hash) = bytes.split_last_chunk::<HASH_BYTES>().ok_or_else(|| damaged("its end is missing"))?;
    let (magic, rest) = body.split_first_chunk::<8>().ok_or_else(|| damaged("its end is missing"))?;
    if magic != &kind.magic {
        return Err(damaged("its first bytes are those of another kind of file"));
    }
    if blake3::hash(body) != *hash {
        return Err(damaged("its checksum does not match"));
    }
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(|| damaged("it has no version"))?;
    let version = u16::from_le_bytes(*version);
    if version > kind.version {
        return Err(FileError::Newer { path: path.to_path_buf(), found: version, known: kind.version });
    }
    let (length, payload) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("it has no length"))?;
    if u32::from_le_bytes(*length) as usize != payload.len() {
        return Err(damaged("its length does not match"));
    }
    Ok(payload)
}

/// Replaces the file by one that holds just these bytes, readable by its owner alone: for files
/// whose format is not ours. On return it survives a power cut.
///
/// # Errors
/// [`FileError::Disk`]; the old content is intact then.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, 0o600, bytes)
}

/// Puts `bytes` at `path` by way of a temporary file, durably.
fn replace(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = temporary_of(path);
    let _left_by_a_crash = fs::remove_file(&temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _partial = fs::remove_file(&temporary);
        return Err(DiskError::new("write", path, error).into());
    }
    Ok(sync_parent(path).map_err(|error| DiskError::new("sync the folder of", path, error))?)
}

/// The name next to `path` under which its next content is written.
pub(crate) fn temporary_of(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Makes names created in, renamed into or removed from the folder of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Deletes a file, if it is there.
///
/// # Errors
/// What the disk refuses.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::new("delete", path, error)),
        _ => Ok(()),
    }
}

/// Tries again for a moment while somebody else holds the lock.
pub(crate) fn patiently<T, E>(
    patience: Duration,
    mut open: impl FnMut() -> Result<T, E>,
    is_locked: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match open() {
            Err(error) if is_locked(&error) && began.elapsed() < patience => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "there is no way to wait for the lock with a deadline"
                )]
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::store::tests::Folder;

    const KIND: FileKind = FileKind {
        magic: *b"HTHTEST\0",
        version: 2,
        max_bytes: 64,
        mode: 0o600,
        way_out: "delete it and it is made again",
    };

    #[test]
    fn what_was_written_is_read_and_replaced() {
        let folder = Folder::new();
        let path = folder.join("a");
        assert!(read_checked(&path, &KIND).unwrap().is_none());
        for payload in [b"one".as_slice(), b"", &[7; 64]] {
            write_durable(&path, &KIND, payload).unwrap();
            assert_eq!(read_checked(&path, &KIND).unwrap().unwrap().as_slice(), payload);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_named() {
        let folder = Folder::new();
        let path = folder.join("a");
        write_durable(&path, &KIND, b"payload").unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(&path, &bad).unwrap();
                let error = read_checked(&path, &KIND).unwrap_err();
                assert!(matches!(error, FileError::Damaged { .. }), "byte {at}: {error}");
            }
            fs::write(&path, &good[..at]).unwrap();
            let error = read_checked(&path, &KIND).unwrap_err();
            assert!(matches!(error, FileError::Damaged { .. }), "cut at {at}: {error}");
            assert!(error.to_string().contains("made again"), "names the way out: {error}");
        }
        fs::write(&path, [good.as_slice(), b"x"].concat()).unwrap();
        assert!(matches!(read_checked(&path, &KIND), Err(FileError::Damaged { .. })));
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        assert!(
            matches!(read_checked(&path, &KIND), Err(FileError::Damaged { .. })),
            "a huge file is not read"
        );
    }

    #[test]
    fn a_newer_version_an_exposed_secret_and_a_long_payload_are_refused() {
        let folder = Folder::new();
        let path = folder.join("a");
        write_durable(&path, &FileKind { version: 3, ..KIND }, b"x").unwrap();
        assert!(matches!(read_checked(&path, &KIND), Err(FileError::Newer { found: 3, known: 2, .. })));
        write_durable(&path, &FileKind { version: 1, ..KIND }, b"x").unwrap();
        assert!(read_checked(&path, &KIND).is_ok(), "an older one is read");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_checked(&path, &KIND), Err(FileError::Exposed { mode: 0o640, .. })));
        assert!(matches!(write_durable(&path, &KIND, &[0; 65]), Err(FileError::TooLarge { bytes: 65, .. })));
    }

    #[test]
    fn a_temporary_file_left_by_a_crash_is_no_obstacle() {
        let folder = Folder::new();
        let path = folder.join("a");
        fs::write(temporary_of(&path), b"half").unwrap();
        write_durable(&path, &KIND, b"x").unwrap();
        assert_eq!(read_checked(&path, &KIND).unwrap().unwrap().as_slice(), b"x");
    }
}
