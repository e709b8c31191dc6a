//! The state folder: who may use it, and the small durable files in it.
//!
//! | name | what |
//! | --- | --- |
//! | `lock` | held while a daemon runs; holds its process number |
//! | `version` | version of the layout |
//! | `node.key` | the seed of the node's Ed25519 key, secret |
//! | `incarnation` | generation and boot incarnation |
//! | `clock` | ceiling of the hybrid clock |
//! | `roster` | signed membership statements |
//! | `next` | what the node is to become at its next start, after joining or leaving |
//! | `peers` | where members were reached when this node joined |
//! | `invites` | invites that this node made, secret |
//! | `setup-code` | state of the setup code, secret |
//! | `ca.pem`, `ca.key` | certificate of the authority for the web, and its key, secret |
//! | `acme/` | accounts, orders and the public certificate with its key, secret, see [`crate::tls::acme`] |
//! | `hearth.sock` | the API for this machine, while a daemon runs |
//! | `store/`, `store.mark`, `store.rebuild/`, `store.damaged-N/`, `exports/` | see [`crate::store`] |
//! | `restored` | marks a store that was set back, see [`crate::store::restored`] |
//! | `restore/`, `restore.partial/`, `store.replaced/` | a backup on its way in, and what it replaced, see [`crate::backup`] |
//! | `lost-and-found-N.json` | what such a store held and its peers had deleted |
//! | `history/` | what sensors and devices were, see [`crate::history`] |
//! | `repairs` | what was mended so far, for `hearth doctor` |
//! | `node.key.copy`, `roster.copy`, `incarnation.copy` | what nothing else could bring back, once more |
//!
//! Every file names its version: the small ones in their header (see [`crate::store::files`]), the
//! records of the store and the exports in theirs, the rest in its first line. What
//! another version left is the matter of `migrate`, what is missing or damaged that of `mend`.

use crate::store::files::{FileError, FileKind, patiently, read_checked, write_durable};
use crate::store::{DiskError, free_bytes, repairs};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use zeroize::Zeroize;

mod mend;
mod migrate;

/// Version of the layout of the folder.
const LAYOUT: u32 = 4;
/// A process that has just ended, or was just begun by the holder, may have the lock for a moment longer: on a busy board,
/// until its turn comes.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// A daemon does not start with less room than this, in bytes.
const MIN_FREE_BYTES: u64 = 1024 * 1024;
/// The longest roster in bytes.
pub const MAX_ROSTER_BYTES: usize = 4 * 1024 * 1024;

const fn kind(magic: [u8; 8], max_bytes: usize, way_out: &'static str) -> FileKind {
    FileKind { magic, version: 1, max_bytes, mode: 0o600, way_out }
}

const VERSION_FILE: FileKind =
    kind(*b"HTHLAYT\0", 4, "delete it if this folder was made by this version of hearth");
const KEY_FILE: FileKind = kind(
    *b"HTHNKEY\0",
    32,
    "restore it from a backup, or move the state folder away and join again as a new node",
);
const INCARNATION_FILE: FileKind = FileKind {
    version: 2,
    ..kind(*b"HTHINCA\0", 12, "move the state folder away and join again as a new node")
};
const CLOCK_FILE: FileKind =
    kind(*b"HTHCLCK\0", 8, "delete it once the clock of this board is right; peers bring it up to date");
const ROSTER_FILE: FileKind = kind(
    *b"HTHROST\0",
    MAX_ROSTER_BYTES,
    "restore it from a backup (`hearth restore`), or move the state folder away and join again",
);
/// Where members were reached when this node joined; written by [`crate::daemon::household`].
pub(crate) const PEERS_FILE: FileKind =
    kind(*b"HTHPEER\0", 64 << 10, "remove it; name a peer in the configuration until the nodes have met");
/// The invites that this node made; written by the daemon.
pub(crate) const INVITES_FILE: FileKind =
    kind(*b"HTHINVI\0", 256 << 10, "remove it, and make new ones with `hearth invite`");
/// The state of the setup code; written by [`crate::auth::setup`].
pub(crate) const SETUP_FILE: FileKind =
    kind(*b"HTHSETU\0", 256, "remove it; `hearth setup-code` shows a new one after a start");

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Something else is there.
    #[error("{} is not a folder; give another --state-dir", .0.display())]
    NotAFolder(PathBuf),
    /// It belongs to somebody else.
    #[error(
        "{} belongs to user {owner} and this is user {user}; run hearth as that user, or: chown -R {user} {}",
        path.display(), path.display()
    )]
    OwnedByAnother {
        /// The folder.
        path: PathBuf,
        /// Number of its owner.
        owner: u32,
        /// Number of the user that this process runs as.
        user: u32,
    },
    /// It cannot be entered or changed.
    #[error("no permission to use {}; check its owner and mode, or give another --state-dir", .0.display())]
    NotAllowed(PathBuf),
    /// Its file system cannot be written.
    #[error(
        "{} is on a read-only file system; remount it for writing, or give another --state-dir",
        .0.display()
    )]
    ReadOnly(PathBuf),
    /// Its disk is full.
    #[error(
        "the disk that holds {} is full ({free} bytes free, {MIN_FREE_BYTES} needed); free some space and start again",
        path.display()
    )]
    Full {
        /// The folder.
        path: PathBuf,
        /// Bytes free for this user.
        free: u64,
    },
    /// Another daemon uses it.
    #[error(
        "{} is in use by another hearth ({}); stop that one, or give this one another --state-dir",
        path.display(), show_holder(*holder)
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Process number of the other daemon, if it could be read.
        holder: Option<u32>,
    },
    /// A newer program made it.
    #[error(
        "{} was made by a newer hearth (layout {found}, this one knows {LAYOUT}); start the newer one, or give another --state-dir",
        path.display()
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its layout version.
        found: u32,
    },
    /// One of its files cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The operating system refused something else.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

fn show_holder(holder: Option<u32>) -> String {
    holder.map_or_else(|| "its process is unknown".into(), |pid| format!("process {pid}"))
}

/// The seed of the node's Ed25519 key. Erased from memory when dropped; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// Wraps the 32 bytes of an RFC 8032 private key.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(redacted)")
    }
}

/// Which life of the node this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incarnation {
    /// Rises at every start, and when the card is found set back or the clock is corrected, so that
    /// no sequence number is used twice.
    pub generation: u32,
    /// Rises at every start.
    pub incarnation: u64,
}

impl Incarnation {
    fn encode(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let (generation, incarnation) = bytes.split_at_mut(4);
        generation.copy_from_slice(&self.generation.to_le_bytes());
        incarnation.copy_from_slice(&self.incarnation.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (generation, rest) = bytes.split_first_chunk::<4>()?;
        let incarnation = rest.try_into().ok()?;
        Some(Self {
            generation: u32::from_le_bytes(*generation),
            incarnation: u64::from_le_bytes(incarnation),
        })
    }
}

/// A state folder that this process alone may use, until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The lock ends with this handle.
    _lock: File,
    notes: Vec<String>,
}

impl StateDir {
    /// Opens the folder, makes it (mode 0700) when it is absent, and locks it. One of an older version
    /// is brought to this one's form, and small files that are missing or damaged are mended where
    /// that can be done. From then on whatever this process writes is nobody else's to read, whoever may pass
    /// through the folder: not everything that writes there says of each file who may.
    ///
    /// # Errors
    /// Each says what is wrong with the folder and the way out.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let path = std::path::absolute(path).map_err(|error| classify("find", path, error))?;
        make_folder(&path)?;
        check_owner(&path)?;
        let lock = take_lock(&path)?;
        if let Some(free) = free_bytes(&path).filter(|free| *free < MIN_FREE_BYTES) {
            return Err(StateDirError::Full { path, free });
        }
        write_pid(&path, &lock)?;
        mend::refuse_newer(&path)?;
        let mut notes = migrate::migrate(&path)?;
        let mended = mend::mend(&path, &mut notes);
        notes.iter().for_each(|note| tracing::warn!("{note}"));
        repairs::remember(&path, SystemTime::now(), &notes);
        mended?;
        Ok(Self { path, _lock: lock, notes })
    }

    /// What was brought to another form or mended when it was opened, in words for the owner of the home.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The folder, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key of the node; `None` before it has one.
    ///
    /// # Errors
    /// [`StateDirError::File`], also when other users may read it.
    pub fn node_key(&self) -> Result<Option<Seed>, StateDirError> {
        self.get("node.key", &KEY_FILE, |bytes| Some(Seed(bytes.try_into().ok()?)))
    }

    /// Stores the key of the node durably, readable by its owner alone.
    ///
    /// # Errors
    /// [`StateDirError::File`]; the old key is intact then.
    pub fn set_node_key(&self, seed: &Seed) -> Result<(), StateDirError> {
        self.set("node.key", &KEY_FILE, &seed.0)
    }

    /// The incarnation last stored; `None` at the first start.
    ///
    /// # Errors
    /// [`StateDirError::File`].
    pub fn incarnation(&self) -> Result<Option<Incarnation>, StateDirError> {
        self.get("incarnation", &INCARNATION_FILE, Incarnation::decode)
    }

    /// Stores the incarnation durably.
    ///
    /// # Errors
    /// [`StateDirError::File`]; the old one is intact then.
    pub fn set_incarnation(&self, incarnation: Incarnation) -> Result<(), StateDirError> {
        self.set("incarnation", &INCARNATION_FILE, &incarnation.encode())
    }

    /// The ceiling above every stamp issued or merged; `None` at the first start.
    ///
    /// # Errors
    /// [`StateDirError::File`].
    pub fn clock_ceiling(&self) -> Result<Option<u64>, StateDirError> {
        self.get("clock", &CLOCK_FILE, |bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)))
    }

    /// Stores the ceiling durably; before any stamp up to it is used.
    ///
    /// # Errors
    /// [`StateDirError::File`]; the old one is intact then.
    pub fn set_clock_ceiling(&self, ceiling: u64) -> Result<(), StateDirError> {
        self.set("clock", &CLOCK_FILE, &ceiling.to_le_bytes())
    }

    /// The membership statements as the protocol encoded them; `None` outside of a household.
    ///
    /// # Errors
    /// [`StateDirError::File`].
    pub fn roster(&self) -> Result<Option<Vec<u8>>, StateDirError> {
        self.get("roster", &ROSTER_FILE, |bytes| Some(bytes.to_vec()))
    }

    /// Stores the membership statements durably; at most [`MAX_ROSTER_BYTES`].
    ///
    /// # Errors
    /// [`StateDirError::File`]; the old ones are intact then.
    pub fn set_roster(&self, roster: &[u8]) -> Result<(), StateDirError> {
        self.set("roster", &ROSTER_FILE, roster)
    }

    fn get<T>(
        &self,
        name: &str,
        kind: &FileKind,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, StateDirError> {
        let path = self.path.join(name);
        let Some(payload) = read_checked(&path, kind)? else { return Ok(None) };
        let decoded = decode(&payload).map(Some);
        let damaged =
            FileError::Damaged { path, reason: "its content has the wrong form", way_out: kind.way_out };
        decoded.ok_or(StateDirError::File(damaged))
    }

    fn set(&self, name: &str, kind: &FileKind, payload: &[u8]) -> Result<(), StateDirError> {
        write_durable(&self.path.join(name), kind, payload).map_err(|error| refused(&self.path, error))?;
        if let Some(copy) = mend::copy_of(&self.path, name)
            && let Err(error) = write_durable(&copy, kind, payload)
        {
            // The next start does it.
            tracing::warn!(%error, "the copy of `{name}` could not be written");
        }
        Ok(())
    }
}

fn refused(folder: &Path, error: FileError) -> StateDirError {
    match error {
        FileError::Disk(DiskError::Full { .. }) => {
            StateDirError::Full { path: folder.to_path_buf(), free: free_bytes(folder).unwrap_or(0) }
        }
        FileError::Disk(DiskError::Io { source, .. })
            if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
        {
            StateDirError::ReadOnly(folder.to_path_buf())
        }
        other => other.into(),
    }
}

fn classify(action: &'static str, path: &Path, source: io::Error) -> StateDirError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::PermissionDenied => StateDirError::NotAllowed(path),
        io::ErrorKind::ReadOnlyFilesystem => StateDirError::ReadOnly(path),
        io::ErrorKind::NotADirectory => StateDirError::NotAFolder(path),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let free = free_bytes(&path).unwrap_or(0);
            StateDirError::Full { path, free }
        }
        _ => StateDirError::Io { action, path, source },
    }
}

fn make_folder(path: &Path) -> Result<(), StateDirError> {
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => Ok(()),
        Ok(_) => Err(StateDirError::NotAFolder(path.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .and_then(|()| crate::store::files::sync_parent(path))
            .map_err(|error| classify("create", path, error)),
        Err(error) => Err(classify("inspect", path, error)),
    }
}

fn check_owner(path: &Path) -> Result<(), StateDirError> {
    let about = fs::metadata(path).map_err(|error| classify("inspect", path, error))?;
    let (owner, user) = (about.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(StateDirError::OwnedByAnother { path: path.to_path_buf(), owner, user });
    }
    if about.permissions().mode() & 0o022 != 0 {
        tracing::warn!(path = %path.display(), "other users may write to the state folder; run: chmod 700 on it");
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File, StateDirError> {
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = open.open(path.join("lock")).map_err(|error| classify("open the lock in", path, error))?;
    let is_locked = |error: &TryLockError| matches!(error, TryLockError::WouldBlock);
    match patiently(LOCK_PATIENCE, || lock.try_lock(), is_locked) {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = Read::by_ref(&mut lock).take(16).read_to_string(&mut text);
            let holder = read.ok().and_then(|_| text.trim().parse().ok());
            Err(StateDirError::Locked { path: path.to_path_buf(), holder })
        }
        Err(TryLockError::Error(error)) => Err(classify("lock", path, error)),
    }
}

fn write_pid(path: &Path, mut lock: &File) -> Result<(), StateDirError> {
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(|error| classify("write the lock in", path, error))
}

#[cfg(test)]
mod tests;
