//! What is done at the start about small files that are missing or damaged.
//!
//! | file | what happens |
//! | --- | --- |
//! | `node.key`, `roster`, `incarnation` | kept twice: the copy takes its place |
//! | `incarnation` without a copy | the store counts as set back: no number is used twice, a peer's state replaces it |
//! | `clock` | removed: the store knows a ceiling, peers bring it up to date |
//! | `peers` | removed: discovery, the configuration and the others' addresses lead back |
//! | `invites`, `setup-code` | removed: a person makes new ones |
//! | `sign-ins` | removed: wrong passwords are counted anew |
//! | `node.key`, `roster` without a copy | the start is refused, with what to do: see [`crate::daemon::household`] |
//!
//! What the disk cannot give back is damaged like what does not match its checksum. A folder with a file of
//! a newer version is refused before anything in it is changed. A file that others may read and one that the
//! system refuses for another reason are left as they are: whoever needs them says so.

use super::{
    CLOCK_FILE, INCARNATION_FILE, INVITES_FILE, Incarnation, KEY_FILE, PEERS_FILE, ROSTER_FILE, SETUP_FILE,
    SIGN_INS_FILE, StateDirError,
};
use crate::store::files::{FileError, FileKind, read_checked, sync_parent, write_durable};
use crate::store::{DiskError, restored};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is kept twice, because nothing else can bring it back.
const KEPT_TWICE: [(&str, &FileKind, &str); 3] = [
    ("node.key", &KEY_FILE, "Nothing was lost."),
    ("roster", &ROSTER_FILE, "What it may lack of the membership comes from the other nodes."),
    ("incarnation", &INCARNATION_FILE, "Numbers that may have been used are left out."),
];
/// What is made anew.
const MADE_ANEW: [(&str, &FileKind, &str); 5] = [
    ("clock", &CLOCK_FILE, "The time of the newest record counts in its place."),
    ("peers", &PEERS_FILE, "This node finds the others by its network, or by `peers` in its configuration."),
    ("invites", &INVITES_FILE, "The invites that were open are void: make new ones with `hearth invite`."),
    ("setup-code", &SETUP_FILE, "`hearth setup-code` makes a new code."),
    ("sign-ins", &SIGN_INS_FILE, "Wrong passwords are counted anew."),
];
/// A start leads at most so far beyond the one before, in generations and in incarnations.
const ONE_START: u32 = 1 << 15;

/// Mends what can be; adds what was found and done to `notes`, in words for the owner of the home.
///
/// # Errors
/// When the disk refuses to write what was mended.
pub(super) fn mend(path: &Path, notes: &mut Vec<String>) -> Result<(), StateDirError> {
    for (name, kind, outcome) in KEPT_TWICE {
        if let Some(why) = keep_twice(path, name, kind)? {
            notes.push(format!("The file `{name}` {why}; its copy took its place. {outcome}"));
        }
    }
    if let Some(why) = without_incarnation(path)? {
        notes.push(format!(
            "The file `incarnation` {why} and has no copy. This node goes on under new numbers, and takes the \
             state of another node as soon as one is there."
        ));
    }
    for (name, kind, outcome) in MADE_ANEW {
        if let Some(why) = damage(&path.join(name), kind) {
            remove(&path.join(name))?;
            notes.push(format!("The file `{name}` {why} and was removed. {outcome}"));
        }
    }
    Ok(())
}

/// Whether every file is of a version that this program knows.
///
/// # Errors
/// The first one that is not.
pub(super) fn refuse_newer(path: &Path) -> Result<(), StateDirError> {
    let twice =
        KEPT_TWICE.iter().flat_map(|(name, kind, _)| [(path.join(name), kind), (copy(path, name), kind)]);
    let once = MADE_ANEW.iter().map(|(name, kind, _)| (path.join(name), kind));
    twice.chain(once).try_for_each(|(file, kind)| match read_checked(&file, kind) {
        Err(newer @ FileError::Newer { .. }) => Err(newer.into()),
        _ => Ok(()),
    })
}

/// The second file of one that is kept twice.
pub(super) fn copy_of(path: &Path, name: &str) -> Option<PathBuf> {
    let is_kept = KEPT_TWICE.iter().any(|(kept, ..)| *kept == name);
    is_kept.then(|| copy(path, name))
}

fn copy(path: &Path, name: &str) -> PathBuf {
    path.join(format!("{name}.copy"))
}

/// Why a file is of no use, if it is damaged.
fn damage(file: &Path, kind: &FileKind) -> Option<String> {
    match read_checked(file, kind) {
        Err(FileError::Damaged { reason, .. }) => Some(format!("was damaged ({reason})")),
        _ => None,
    }
}

/// Brings a file and its copy in line; says what was wrong with the file if the copy took its place.
fn keep_twice(path: &Path, name: &str, kind: &FileKind) -> Result<Option<String>, StateDirError> {
    let (file, copy) = (path.join(name), copy(path, name));
    let copied = read_checked(&copy, kind);
    let write =
        |to: &Path, bytes: &[u8]| write_durable(to, kind, bytes).map_err(|error| super::refused(path, error));
    let why = match read_checked(&file, kind) {
        Ok(Some(bytes)) => {
            let same = copied.is_ok_and(|copied| copied.is_some_and(|copied| *copied == *bytes));
            return if same { Ok(None) } else { write(&copy, &bytes).map(|()| None) };
        }
        Ok(None) => "was missing".to_owned(),
        Err(FileError::Damaged { reason, .. }) => format!("was damaged ({reason})"),
        Err(_) => return Ok(None),
    };
    let Ok(Some(bytes)) = copied else { return Ok(None) };
    match (name, Incarnation::decode(&bytes)) {
        // The copy is written last: it may be that of the start before.
        ("incarnation", Some(life)) => {
            let ahead = Incarnation {
                generation: life.generation.saturating_add(ONE_START),
                incarnation: life.incarnation.saturating_add(u64::from(ONE_START)),
            };
            write(&file, &ahead.encode())?;
        }
        _ => write(&file, &bytes)?,
    }
    Ok(Some(why))
}

/// Where no file tells the incarnation of a node that has lived before, the time of day does: it is
/// above what starts count up to. The generation is read from the store by whoever begins a run.
fn without_incarnation(path: &Path) -> Result<Option<String>, StateDirError> {
    let file = path.join("incarnation");
    let why = match read_checked(&file, &INCARNATION_FILE) {
        Ok(None) if path.join("store").exists() => "is missing".to_owned(),
        Err(FileError::Damaged { reason, .. }) => format!("was damaged ({reason})"),
        _ => return Ok(None),
    };
    restored::ensure_mark(path)?;
    // In microseconds, of which even the quickest start takes more than it counts up.
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let incarnation = u64::try_from(micros).unwrap_or(0).max(crate::timekeeping::BUILD_S * 1_000_000);
    let life = Incarnation { generation: 0, incarnation };
    write_durable(&file, &INCARNATION_FILE, &life.encode()).map_err(|error| super::refused(path, error))?;
    Ok(Some(why))
}

fn remove(file: &Path) -> Result<(), StateDirError> {
    fs::remove_file(file)
        .and_then(|()| sync_parent(file))
        .map_err(|error| FileError::from(DiskError::new("delete", file, error)).into())
}
