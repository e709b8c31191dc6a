//! A file that appears under its name when it is whole.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::store::files::sync_parent;

/// What is written so far, beside the place of the whole. Its mode is 0600: it holds the home.
pub(super) struct Part {
    pub(super) file: File,
    pub(super) path: PathBuf,
    done: bool,
}

impl Part {
    pub(super) fn create(to: &Path) -> io::Result<Self> {
        let mut name = to.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        // One that was left behind may have another mode.
        let _ = std::fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path, done: false })
    }

    pub(super) fn finish(mut self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, to)?;
        // In its place, whatever becomes of the rest.
        self.done = true;
        sync_parent(to)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            // Nobody can be told, and the next attempt removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_part_that_is_not_finished_leaves_nothing() {
        let folder = crate::cli::testing::TempDir::new();
        let to = folder.path().join("home.ndjson");
        std::fs::write(&to, "old").unwrap();
        drop(Part::create(&to).unwrap());
        assert_eq!(std::fs::read(&to).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut part = Part::create(&to).unwrap();
        part.file.write_all(b"new").unwrap();
        part.finish(&to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"new");
    }
}
