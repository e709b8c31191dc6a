//! A disk that cannot give back some blocks, in tests.

use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// By folder and inode: another file in the place of this one reads.
static BAD: Mutex<Vec<(PathBuf, u64, Range<u64>)>> = Mutex::new(Vec::new());

/// From now on no read of the log in sled's `folder` that touches `bytes` succeeds.
pub(in super::super) fn break_log(folder: &Path, bytes: Range<u64>) {
    let inode = fs::metadata(folder.join("db")).map_or(0, |about| about.ino());
    let mut bad = BAD.lock().unwrap_or_else(PoisonError::into_inner);
    bad.push((folder.to_path_buf(), inode, bytes));
}

/// The log in `folder` reads again.
pub(in super::super) fn mend(folder: &Path) {
    BAD.lock().unwrap_or_else(PoisonError::into_inner).retain(|(at, _, _)| at != folder);
}

pub(super) fn check(folder: &Path, file: &File, offset: u64, count: usize) -> io::Result<()> {
    let end = offset + count as u64;
    let inode = || file.metadata().as_ref().map(Metadata::ino).ok();
    let bad = BAD.lock().unwrap_or_else(PoisonError::into_inner);
    let is_bad = bad.iter().any(|(at, number, bytes)| {
        at == folder && offset < bytes.end && bytes.start < end && inode() == Some(*number)
    });
    if is_bad { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
}
