//! How a backup takes the place of what a state folder holds.
//!
//! It is never merged: the store counts as set back, so that a peer's state replaces it, and what has
//! no place there goes to the lost-and-found; alone it is used as it is. The generation rises
//! beyond every one that was used before, so that no sequence number is used twice.
//!
//! All that is needed is first put together in `restore.partial/`, which is then renamed to `restore/`;
//! from there it is carried out step by step, each of which may be done again, and is renamed back before it
//! is removed. After a power cut the next start of the daemon goes on where it ended.

use std::{fs, io, path::Path, sync::Arc, time::SystemTime};

use mesh_proto::{NodeId, roster::Roster};
use thiserror::Error;

use super::format::{Backup, BackupError, Parts, node_of};
use crate::{
    state_dir::{Incarnation, Seed, StateDir},
    store::{
        DiskError,
        files::{FileError, FileKind, read_checked, sync_parent, write_durable, write_private},
        restored,
        sled::{REPLACED_FOLDER, STORE_FOLDER, SledOptions, replace_by_export},
    },
};

const PARTIAL: &str = "restore.partial";
const READY: &str = "restore";
const RECORDS: &str = "records.hx";
const PARTS: &str = "parts";
const PARTS_FILE: FileKind = FileKind {
    magic: *b"HTHREST\0",
    version: 1,
    max_bytes: 8 << 20,
    mode: 0o600,
    way_out: "remove the folder `restore` and run `hearth restore` again",
};

/// Why a backup cannot take the place of what a folder holds. Nothing has changed then.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// It is of another node.
    #[error("the backup is of node {backup}, and this folder of node {here}")]
    OtherNode {
        /// The backup's.
        backup: NodeId,
        /// The folder's.
        here: NodeId,
    },
    /// It is of another household.
    #[error("the backup is of another household than this folder")]
    OtherHousehold,
    /// It has no key, and neither has the folder.
    #[error("the backup holds no key of the node, and this folder is that of no node")]
    NoKey,
    /// A nightly export says nothing of node and household.
    #[error("a nightly export can be restored only in the folder of the node that made it")]
    NoParts,
    /// The folder holds a store already.
    #[error("{0} holds data already, which the backup would replace")]
    HoldsData(String),
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A small file.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<crate::state_dir::StateDirError> for RestoreError {
    fn from(error: crate::state_dir::StateDirError) -> Self {
        Self::Backup(error.into())
    }
}

impl From<crate::store::StoreError> for RestoreError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Backup(error.into())
    }
}

impl From<DiskError> for RestoreError {
    fn from(error: DiskError) -> Self {
        Self::Backup(error.into())
    }
}

/// A backup that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Its records.
    pub records: u64,
    /// Whether a store was replaced, which is kept aside.
    pub has_replaced: bool,
}

/// Checks that the backup belongs into this folder and puts together what [`carry_out`] needs; answers
/// with the number of records. With `force` a store that is there is replaced.
///
/// # Errors
/// [`RestoreError`]; nothing has changed.
pub fn stage(state: &StateDir, backup: &Backup, force: bool) -> Result<u64, RestoreError> {
    let root = state.path();
    belongs(state, backup)?;
    if !force && root.join(STORE_FOLDER).exists() {
        return Err(RestoreError::HoldsData(root.display().to_string()));
    }
    let partial = root.join(PARTIAL);
    remove(&partial)?;
    fs::create_dir(&partial).map_err(|error| DiskError::new("create", &partial, error))?;
    let records = backup.extract(&partial.join(RECORDS))?;
    if let Some(parts) = &backup.parts {
        write_durable(&partial.join(PARTS), &PARTS_FILE, &parts.encode())?;
    }
    sync_parent(&partial.join(RECORDS)).map_err(|error| DiskError::new("sync", &partial, error))?;
    remove(&root.join(REPLACED_FOLDER))?;
    let ready = root.join(READY);
    remove(&ready)?;
    fs::rename(&partial, &ready)
        .and_then(|()| sync_parent(&ready))
        .map_err(|error| DiskError::new("rename", &partial, error))?;
    Ok(records)
}

/// Does what [`stage`] prepared, if there is something. `progress` is called for every record.
///
/// # Errors
/// What stopped it; the next call goes on.
pub fn carry_out(
    state: &StateDir,
    options: &SledOptions,
    progress: &mut dyn FnMut(),
) -> Result<Option<Restored>, RestoreError> {
    let root = state.path();
    remove(&root.join(PARTIAL))?;
    let ready = root.join(READY);
    if !ready.exists() {
        return Ok(None);
    }
    let parts = match read_checked(&ready.join(PARTS), &PARTS_FILE)? {
        Some(bytes) => Some(Parts::decode(&bytes).ok_or_else(|| FileError::Damaged {
            path: ready.join(PARTS),
            reason: "its content has the wrong form",
            way_out: PARTS_FILE.way_out,
        })?),
        None => None,
    };
    // Whatever was marked before: nothing in this store is newer than its mark.
    restored::set_mark(root, None)?;
    if let Some(parts) = parts {
        take_in(state, &parts)?;
    }
    let records = replace_by_export(root, options, &ready.join(RECORDS), progress)?;
    // In one step, to a name that is swept first: with only some of its files it could not be carried out again.
    let done = root.join(PARTIAL);
    fs::rename(&ready, &done)
        .and_then(|()| sync_parent(&ready))
        .map_err(|error| DiskError::new("rename", &ready, error))?;
    remove(&done)?;
    Ok(Some(Restored { records, has_replaced: root.join(REPLACED_FOLDER).exists() }))
}

/// [`carry_out`] at the start of the daemon, off its event loop.
///
/// # Errors
/// As [`carry_out`].
pub async fn end_interrupted(state: Arc<StateDir>) -> Result<(), Box<dyn std::error::Error>> {
    let end = move || carry_out(&state, &SledOptions::default(), &mut || ());
    if let Some(done) = tokio::task::spawn_blocking(end).await?? {
        tracing::warn!(records = done.records, "a restore had been interrupted and was ended");
    }
    Ok(())
}

/// The small files: what is there already is never taken back.
fn take_in(state: &StateDir, parts: &Parts) -> Result<(), RestoreError> {
    if let Some(secrets) = &parts.secrets
        && state.node_key()?.is_none()
    {
        state.set_node_key(&Seed::new(secrets.seed))?;
        if let Some((pem, key)) = &secrets.authority {
            for (name, bytes) in [("ca.pem", pem), ("ca.key", key)] {
                if !state.path().join(name).exists() {
                    write_private(&state.path().join(name), bytes)?;
                }
            }
        }
    }
    let life = state.incarnation()?.unwrap_or_default();
    state.set_incarnation(Incarnation {
        generation: life.generation.max(parts.generation),
        incarnation: life.incarnation.max(parts.incarnation),
    })?;
    let ceiling = state.clock_ceiling()?.max(parts.clock);
    if let Some(ceiling) = ceiling {
        state.set_clock_ceiling(ceiling)?;
    }
    let mut roster = parts.roster()?;
    if let Some(here) = state.roster()? {
        let here = Roster::from_bytes(&here).map_err(BackupError::from)?;
        for statement in here.statements() {
            roster.insert(statement).map_err(BackupError::from)?;
        }
    }
    Ok(state.set_roster(&roster.to_bytes())?)
}

/// Whether the backup is of the node of this folder, or brings a node to a folder without one.
fn belongs(state: &StateDir, backup: &Backup) -> Result<(), RestoreError> {
    let key = state.node_key()?;
    let here = state.roster()?;
    let Some(parts) = &backup.parts else {
        return if key.is_some() && here.is_some() { Ok(()) } else { Err(RestoreError::NoParts) };
    };
    let roster = parts.roster()?;
    if let Some(here) = here
        && Roster::from_bytes(&here).map_err(BackupError::from)?.household() != roster.household()
    {
        return Err(RestoreError::OtherHousehold);
    }
    match (key.map(|key| node_of(key.as_bytes())), &parts.secrets) {
        (Some(here), _) if here != parts.node => Err(RestoreError::OtherNode { backup: parts.node, here }),
        (None, None) => Err(RestoreError::NoKey),
        (None, Some(secrets)) if node_of(&secrets.seed) != parts.node => {
            Err(BackupError::Damaged { path: backup.path.clone(), reason: "its key is not that of its node" }
                .into())
        }
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::new("delete", path, error)),
        _ => Ok(()),
    }
}

/// How old a backup is, in words; by the clock of this machine.
#[must_use]
pub fn age(created: SystemTime) -> String {
    let Ok(age) = SystemTime::now().duration_since(created) else {
        return "made in the future by this clock".into();
    };
    let hours = age.as_secs() / 3_600;
    match hours {
        0 => "less than an hour old".into(),
        1..=47 => format!("{hours} hours old"),
        _ => format!("{} days old", hours / 24),
    }
}

#[cfg(test)]
mod tests;
