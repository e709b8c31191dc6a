//! `hearth backup` and `hearth restore`: the file, and its way back in.
//!
//! A backup holds every record of the store, the membership of the household and which life of the node
//! this was. With `--with-key` it also holds the node's key and the local authority's: whoever has such
//! a file can be this node. Invites, the setup code, the configuration, and the public certificate with its key and its
//! accounts are in no backup.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`format`] | the file |
//! | [`restore`] | how a backup takes the place of what a state folder holds |
//! | [`objects`] | what a backup holds, as lines of JSON for `hearth import` |

pub mod format;
pub mod objects;
pub mod restore;

pub use format::{Backup, BackupError, Parts};

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::SystemTime,
};

use crate::{
    state_dir::StateDir,
    store::{DiskError, Store, StoreError, free_bytes, worker::StoreJobs},
};

/// Room that stays free while a backup is being made, in bytes.
const RESERVE_BYTES: u64 = 4 << 20;
/// The name of the file while it is being made by a running node.
const TEMPORARY: &str = "backup.partial";

/// A backup in a file that has no name any more: it is gone when it is closed.
#[derive(Debug)]
pub struct Made {
    /// The file, at its start.
    pub file: File,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Makes a backup of a running node, in its state folder, or where temporary files lie when that is full:
/// that is when a person wants one.
///
/// # Errors
/// What the store, the state folder or the disk says; nothing is left of the attempt.
pub async fn make(state: &StateDir, jobs: &StoreJobs, with_key: bool) -> Result<Made, BackupError> {
    let parts = Parts::of(state, with_key)?;
    let path = state.path().join(TEMPORARY);
    let elsewhere = std::env::temp_dir().join(format!("hearth-{}.{TEMPORARY}", std::process::id()));
    let made = jobs.run(move |store, progress| {
        Ok(match make_unnamed(store, &path, &parts, progress) {
            Err(
                BackupError::Store(StoreError::DiskFull { .. } | StoreError::Disk(DiskError::Full { .. }))
                | BackupError::Disk(DiskError::Full { .. }),
            ) => make_unnamed(store, &elsewhere, &parts, progress),
            made => made,
        })
    });
    made.await?
}

fn make_unnamed(
    store: &mut dyn Store,
    path: &Path,
    parts: &Parts,
    progress: &mut dyn FnMut(),
) -> Result<Made, BackupError> {
    use std::io::Seek as _;
    let needed = store.size().live_bytes.saturating_mul(2).saturating_add(RESERVE_BYTES);
    if let Some(free) = free_bytes(path.parent().unwrap_or(path)).filter(|free| *free < needed) {
        return Err(StoreError::DiskFull { path: path.to_path_buf(), free, needed }.into());
    }
    let io = |error| DiskError::new("write", path, error);
    // One that was left behind may be anybody's.
    let _absent_as_a_rule = std::fs::remove_file(path);
    let mut open = OpenOptions::new();
    let mut file = open.read(true).write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    std::fs::remove_file(path).map_err(io)?;
    let written = format::write(&mut file, path, parts, store, SystemTime::now(), progress)?;
    file.rewind().map_err(io)?;
    Ok(Made { file, bytes: written.bytes })
}
