//! What an older version left in the state folder, brought to the form of this one.
//!
//! The file `version` holds the number of the folder's layout. Each step leads from one layout to the
//! next; the number is written when all of them are done. A step changes whole files only, and finding
//! its work done already it does nothing: after a power cut the next start does all of them again. For
//! the same reason a folder whose `version` is gone or damaged goes through every step.

use super::{INCARNATION_FILE, INVITES_FILE, Incarnation, LAYOUT, SETUP_FILE, StateDirError, VERSION_FILE};
use crate::auth::{InviteBook, setup::is_setup_code};
use crate::store::files::{FileError, FileKind, read_checked, write_durable};
use std::fs;
use std::path::Path;
use zeroize::Zeroizing;

type Step = fn(&Path) -> Result<(), StateDirError>;

/// The step at place N leads from layout N + 1 to the next.
const STEPS: [Step; LAYOUT as usize - 1] = [from_1, from_2, from_3];

/// Brings the folder to [`LAYOUT`]; answers with what a person should know.
///
/// # Errors
/// [`StateDirError::Newer`], and what a file says that cannot be read or written. Whatever was not
/// done is done at the next start.
pub(super) fn migrate(path: &Path) -> Result<Vec<String>, StateDirError> {
    let (from, note) = match found(path)? {
        Found::Layout(LAYOUT) => return Ok(Vec::new()),
        Found::Layout(newer) if newer > LAYOUT => {
            return Err(StateDirError::Newer { path: path.to_path_buf(), found: newer });
        }
        Found::Layout(older) => (
            older,
            Some(format!(
                "This state folder was made by an older hearth (layout {older}) and was brought to layout {LAYOUT}."
            )),
        ),
        Found::New => (LAYOUT, None),
        Found::Lost(why) => {
            (1, Some(format!("The file `version` {why}; it was written anew (layout {LAYOUT}).")))
        }
    };
    let done = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
    STEPS.iter().skip(done).try_for_each(|step| step(path))?;
    write_durable(&path.join("version"), &VERSION_FILE, &LAYOUT.to_le_bytes())
        .map_err(|error| super::refused(path, error))?;
    Ok(note.into_iter().collect())
}

enum Found {
    Layout(u32),
    /// Nobody has used this folder before.
    New,
    /// Somebody has, and the number does not read: why.
    Lost(String),
}

fn found(path: &Path) -> Result<Found, StateDirError> {
    let number = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?));
    match read_checked(&path.join("version"), &VERSION_FILE) {
        Ok(Some(bytes)) => Ok(match number(&bytes) {
            Some(number) if number > 0 => Found::Layout(number),
            _ => Found::Lost("makes no sense".into()),
        }),
        Ok(None) if ["node.key", "roster", "store"].iter().any(|name| path.join(name).exists()) => {
            Ok(Found::Lost("was missing".into()))
        }
        Ok(None) => Ok(Found::New),
        Err(FileError::Damaged { reason, .. }) => Ok(Found::Lost(format!("was damaged ({reason})"))),
        Err(error) => Err(error.into()),
    }
}

/// Layout 1 noted at the end of `incarnation` whether the last life ended in order, which nobody read.
fn from_1(path: &Path) -> Result<(), StateDirError> {
    const OLD: FileKind = FileKind { version: 1, max_bytes: 13, ..INCARNATION_FILE };
    let file = path.join("incarnation");
    let bytes = match read_checked(&file, &OLD) {
        Ok(Some(bytes)) => bytes,
        // None yet; or done already; or damaged, which is not for this step to mend.
        Ok(None) | Err(FileError::Newer { .. } | FileError::Damaged { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match bytes.get(..12).and_then(Incarnation::decode) {
        Some(life) => write_durable(&file, &INCARNATION_FILE, &life.encode())
            .map_err(|error| super::refused(path, error)),
        None => Ok(()),
    }
}

/// In layout 2 the invites and the setup code had no header, and so no checksum. The tally of the store had no
/// version: the store itself reads both forms, but an older hearth takes the new one for damage, and must
/// therefore not open this layout.
fn from_2(path: &Path) -> Result<(), StateDirError> {
    type MakesSense = fn(&[u8]) -> bool;
    let is_book: MakesSense = |bytes| InviteBook::from_bytes(bytes).is_ok();
    let is_code: MakesSense = is_setup_code;
    for (name, kind, makes_sense) in
        [("invites", &INVITES_FILE, is_book), ("setup-code", &SETUP_FILE, is_code)]
    {
        let file = path.join(name);
        // What is done already, missing, or makes no sense is not for this step to mend.
        let Ok(bytes) = fs::read(&file).map(Zeroizing::new) else { continue };
        if makes_sense(&bytes) {
            write_durable(&file, kind, &bytes).map_err(|error| super::refused(path, error))?;
        }
    }
    Ok(())
}

/// The store of layout 3 had no journal, and takes one into use by itself. An older hearth knows of none, and would go
/// on without what is in it.
fn from_3(_path: &Path) -> Result<(), StateDirError> {
    Ok(())
}
