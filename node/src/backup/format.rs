//! The file of a backup.
//!
//! Layout, all numbers little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `HEARTHB1` |
//! | 2 | version, 1 |
//! | 8 | seconds since 1970 at which it was made, by the clock of the node |
//! | 4, n | length of the parts, the parts: [`Parts`] in postcard |
//! | m | the records: an export, see [`crate::store::export`] |
//! | 32 | blake3 of everything before |
//!
//! A nightly export is read as a backup without parts.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use mesh_proto::{NodeId, roster::Roster};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    state_dir::{MAX_ROSTER_BYTES, StateDir, StateDirError},
    store::{
        DiskError, Store, StoreError,
        export::{self, ExportError, Hashing},
    },
};

const MAGIC: &[u8; 8] = b"HEARTHB1";
const EXPORT_MAGIC: &[u8; 8] = b"HEARTHX1";
const VERSION: u16 = 1;
const HASH_BYTES: u64 = 32;
/// Before the parts.
const HEADER_BYTES: u64 = 22;
const MAX_PARTS_BYTES: usize = MAX_ROSTER_BYTES + (64 << 10);
/// More than the files of the authority can have.
const MAX_CA_BYTES: u64 = 16 << 10;

/// Why a backup cannot be made or read.
#[derive(Debug, Error)]
pub enum BackupError {
    /// Something else.
    #[error("{} is not a Hearth backup{hint}", path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// What it may be, and what to do with that.
        hint: &'static str,
    },
    /// A newer program wrote it.
    #[error("{} has version {found}, this hearth reads up to {VERSION}; restore it with a newer hearth", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// Its content is not what was written.
    #[error("the backup {} is damaged ({reason}); take an older one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
    /// This folder is of no node that could be backed up.
    #[error("{} holds no node: it has no key or no membership", .0.display())]
    NoNode(PathBuf),
    /// The records in it.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk refused something.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The membership in it cannot be used.
    #[error("the membership in it cannot be used: {0}; update hearth, or take another backup")]
    Roster(#[from] mesh_proto::roster::RosterError),
}

/// What makes whoever has it this node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// The seed of the node's Ed25519 key.
    pub seed: [u8; 32],
    /// `ca.pem` and `ca.key` of the local authority, if it has one.
    pub authority: Option<(Vec<u8>, Vec<u8>)>,
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.seed.zeroize();
        if let Some((_, key)) = &mut self.authority {
            key.zeroize();
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(redacted)")
    }
}

/// What a backup holds besides the records. A published struct never changes: another version of the
/// file gets a struct of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The node.
    pub node: NodeId,
    /// The membership statements as the protocol encodes them.
    pub roster: Vec<u8>,
    /// The generation of the node when it was made.
    pub generation: u32,
    /// Its incarnation.
    pub incarnation: u64,
    /// The ceiling of its clock, if one was written.
    pub clock: Option<u64>,
    /// Only with `--with-key`.
    pub secrets: Option<Secrets>,
}

impl Parts {
    /// What the state folder holds now.
    ///
    /// # Errors
    /// [`BackupError::NoNode`], or what the files say.
    pub fn of(state: &StateDir, with_key: bool) -> Result<Self, BackupError> {
        let nobody = || BackupError::NoNode(state.path().to_path_buf());
        let (seed, roster) = (state.node_key()?.ok_or_else(nobody)?, state.roster()?.ok_or_else(nobody)?);
        let life = state.incarnation()?.unwrap_or_default();
        let authority = || {
            let read = |name: &str| {
                let file = File::open(state.path().join(name)).ok()?;
                let mut bytes = Vec::new();
                file.take(MAX_CA_BYTES).read_to_end(&mut bytes).ok()?;
                Some(bytes)
            };
            Some((read("ca.pem")?, read("ca.key")?))
        };
        let secrets = with_key.then(|| Secrets { seed: *seed.as_bytes(), authority: authority() });
        Ok(Self {
            node: node_of(seed.as_bytes()),
            roster,
            generation: life.generation,
            incarnation: life.incarnation,
            clock: state.clock_ceiling()?,
            secrets,
        })
    }

    /// The membership.
    ///
    /// # Errors
    /// [`BackupError::Roster`].
    pub fn roster(&self) -> Result<Roster, BackupError> {
        Ok(Roster::from_bytes(&self.roster)?)
    }

    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(postcard::to_allocvec(self).unwrap_or_default())
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

/// The node of a key.
pub(super) fn node_of(seed: &[u8; 32]) -> NodeId {
    NodeId::from_bytes(SigningKey::from_bytes(seed).verifying_key().to_bytes())
}

/// A backup that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its records.
    pub records: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Writes a backup of `store` into `file`, whose name is `path`, durably. `progress` is called at least
/// every 1,000 records.
///
/// # Errors
/// What the store or the disk says; the file is of no use then.
pub fn write(
    file: &mut File,
    path: &Path,
    parts: &Parts,
    store: &mut dyn Store,
    now: SystemTime,
    progress: &mut dyn FnMut(),
) -> Result<Written, BackupError> {
    let io = |error| DiskError::new("write", path, error);
    let mut buffered = BufWriter::new(file);
    let mut out = Hashing { inner: &mut buffered, hash: blake3::Hasher::new(), bytes: 0 };
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let encoded = parts.encode();
    let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    let header = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &seconds.to_le_bytes(), &length.to_le_bytes()];
    out.write_all(&header.concat()).and_then(|()| out.write_all(&encoded)).map_err(io)?;
    let export = export::write_to(store, &mut out, path, now, progress)?;
    let (hash, bytes) = (out.hash.finalize(), out.bytes + HASH_BYTES);
    buffered.write_all(hash.as_bytes()).and_then(|()| buffered.flush()).map_err(io)?;
    buffered.get_ref().sync_all().map_err(io)?;
    Ok(Written { records: export.records, bytes })
}

/// A backup, or a nightly export, that was read and is whole.
#[derive(Debug)]
pub struct Backup {
    /// Where it is.
    pub path: PathBuf,
    /// When it was made, by the clock that the node had then.
    pub created: SystemTime,
    /// Its length in bytes.
    pub bytes: u64,
    /// What it holds besides the records; none for a nightly export.
    pub parts: Option<Parts>,
    /// Where the records begin, and how many bytes they are.
    records_at: (u64, u64),
}

impl Backup {
    /// Reads and checks a whole file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let io = |error| DiskError::new("read", path, error);
        let mut file = File::open(path).map_err(|error| DiskError::new("open", path, error))?;
        let about = file.metadata().map_err(io)?;
        let not_a_backup = |hint| BackupError::NotABackup { path: path.to_path_buf(), hint };
        let mut magic = [0; 8];
        let read =
            if about.is_file() { file.read_exact(&mut magic) } else { Err(io::ErrorKind::Other.into()) };
        if read.is_ok() && &magic == EXPORT_MAGIC {
            let export = export::verify(path)?;
            let records_at = (0, export.bytes);
            let path = path.to_path_buf();
            return Ok(Self { path, created: export.created, bytes: export.bytes, parts: None, records_at });
        }
        if read.is_err() || &magic != MAGIC {
            let is_text = magic.first() == Some(&b'{');
            let hint = if is_text {
                ": it looks like lines of `hearth export`; `hearth import` reads them"
            } else {
                ""
            };
            return Err(not_a_backup(hint));
        }
        file.rewind().map_err(io)?;
        Self::read(&mut file, path, about.len())
    }

    fn read(file: &mut File, path: &Path, bytes: u64) -> Result<Self, BackupError> {
        let damaged = |reason| BackupError::Damaged { path: path.to_path_buf(), reason };
        let io = |error| DiskError::new("read", path, error);
        let body =
            bytes.checked_sub(HASH_BYTES + HEADER_BYTES).ok_or_else(|| damaged("its end is missing"))?;
        let mut inner = BufReader::with_capacity(64 * 1024, file);
        let mut hash = blake3::Hasher::new();
        let mut take = |into: &mut [u8]| -> Result<(), BackupError> {
            inner.read_exact(into).map_err(io)?;
            hash.update(into);
            Ok(())
        };
        let (mut magic, mut version, mut seconds, mut length) = ([0; 8], [0; 2], [0; 8], [0; 4]);
        take(&mut magic)?;
        take(&mut version)?;
        let version = u16::from_le_bytes(version);
        if version != VERSION {
            // A flipped byte may claim a version; nobody has written one yet that is not 1.
            return Err(if version == 0 {
                damaged("it has no version")
            } else {
                BackupError::Newer { path: path.to_path_buf(), found: version }
            });
        }
        take(&mut seconds)?;
        take(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_PARTS_BYTES || length as u64 > body {
            return Err(damaged("its parts are longer than they may be"));
        }
        let mut parts = Zeroizing::new(vec![0; length]);
        take(&mut parts)?;
        let records_at = (HEADER_BYTES + length as u64, body - length as u64);
        let (mut left, mut piece) = (records_at.1, vec![0; 64 * 1024]);
        while left > 0 {
            let some = usize::try_from(left.min(piece.len() as u64)).unwrap_or(0);
            let Some(some) = piece.get_mut(..some) else { break };
            take(some)?;
            left -= some.len() as u64;
        }
        let mut found = [0; HASH_BYTES as usize];
        inner.read_exact(&mut found).map_err(io)?;
        if hash.finalize() != found {
            return Err(damaged("its checksum does not match"));
        }
        let parts = Parts::decode(&parts).ok_or_else(|| damaged("its parts make no sense"))?;
        let seconds = Duration::from_secs(u64::from_le_bytes(seconds));
        let created = UNIX_EPOCH.checked_add(seconds).unwrap_or(UNIX_EPOCH);
        Ok(Self { path: path.to_path_buf(), created, bytes, parts: Some(parts), records_at })
    }

    /// Writes the records into a new file of their own, an export, durably; answers with their number.
    ///
    /// # Errors
    /// What is wrong with them, or what the disk says.
    pub fn extract(&self, to: &Path) -> Result<u64, BackupError> {
        let read = |error| DiskError::new("read", &self.path, error);
        let write = |error| DiskError::new("write", to, error);
        let mut from = File::open(&self.path).map_err(read)?;
        let (at, bytes) = self.records_at;
        from.seek(SeekFrom::Start(at)).map_err(read)?;
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(to).map_err(write)?;
        io::copy(&mut from.take(bytes), &mut file).and_then(|_| file.sync_all()).map_err(write)?;
        Ok(export::verify(to)?.records)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::store::{
        memory::MemoryStore,
        tests::{Folder, sample},
    };

    fn parts(secrets: Option<Secrets>) -> Parts {
        let node = node_of(&[7; 32]);
        Parts { node, roster: vec![1, 2, 3], generation: 9, incarnation: 8, clock: Some(7), secrets }
    }

    fn written(folder: &Folder, parts: &Parts, records: usize) -> PathBuf {
        let path = folder.join("a.hearth");
        let mut store = MemoryStore::new();
        store.commit(&sample(0..records)).unwrap();
        let mut file = File::create(&path).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let done = write(&mut file, &path, parts, &mut store, now, &mut || ()).unwrap();
        assert_eq!((done.records, done.bytes), (records as u64, file.metadata().unwrap().len()));
        path
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = Folder::new();
        let secrets = Secrets { seed: [7; 32], authority: Some((b"pem".to_vec(), b"key".to_vec())) };
        for secrets in [None, Some(secrets)] {
            for records in [0, 3_000] {
                let parts = parts(secrets.clone());
                let backup = Backup::open(&written(&folder, &parts, records)).unwrap();
                assert_eq!(backup.parts, Some(parts));
                assert_eq!(backup.created, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
                let to = folder.join("records.hx");
                assert_eq!(backup.extract(&to).unwrap(), records as u64);
                let mut found = Vec::new();
                export::read(&to, &mut |key, value| found.push((key.to_vec(), value.to_vec()))).unwrap();
                assert_eq!(found, sample(0..records).puts);
                // The records alone are as good as a nightly export.
                let export = Backup::open(&to).unwrap();
                assert_eq!(export.parts, None);
                assert_eq!(export.extract(&folder.join("again.hx")).unwrap(), records as u64);
            }
        }
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_named() {
        let folder = Folder::new();
        let path = written(&folder, &parts(Some(Secrets { seed: [7; 32], authority: None })), 5);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 0x10;
            for bad in [&flipped[..], &good[..at], &[&good[..], b"x"].concat()] {
                std::fs::write(&path, bad).unwrap();
                let error = Backup::open(&path).unwrap_err();
                let named = matches!(
                    error,
                    BackupError::Damaged { .. } | BackupError::NotABackup { .. } | BackupError::Newer { .. }
                );
                assert!(named, "{at}: {error}");
                assert!(error.to_string().contains("a.hearth"), "{error}");
            }
        }
        std::fs::write(&path, "{\"id\":\"note/x\"}\n").unwrap();
        assert!(Backup::open(&path).unwrap_err().to_string().contains("hearth import"));
    }

    #[test]
    fn a_length_that_claims_gigabytes_is_refused_before_allocation() {
        let folder = Folder::new();
        let path = folder.join("a.hearth");
        let head = [MAGIC.as_slice(), &1_u16.to_le_bytes(), &[0; 8], &u32::MAX.to_le_bytes(), &[0; 64]];
        std::fs::write(&path, head.concat()).unwrap();
        let error = Backup::open(&path).unwrap_err();
        assert!(error.to_string().contains("longer than they may be"), "{error}");
    }

    #[test]
    fn the_key_shows_in_no_debug_output() {
        let shown = format!("{:?}", parts(Some(Secrets { seed: [77; 32], authority: None })));
        assert!(shown.contains("redacted") && !shown.contains("77"), "{shown}");
    }
}
