//! Files of the kernel that hold one value: sysfs, Documentation/filesystems/sysfs.rst.
//!
//! A file there has at most a page, and what the kernel calls a value ends with a line feed. Anything else may stand in a
//! folder that somebody configured, so everything is bounded.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// The most bytes of a value.
const MOST_VALUE: u64 = 4_096;
/// The most bytes of a list that outgrows a page: a LED's triggers, one for each processor.
const MOST_LIST: u64 = 65_536;
/// The most names of a folder that are taken.
const MOST_ENTRIES: usize = 1_024;

/// Why an attribute has no value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttributeError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is longer than the kernel makes one.
    #[error("{path} holds more than {most} bytes: the kernel writes no such value")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most.
        most: u64,
    },
    /// It is empty, or no text.
    #[error("{path} holds {found:?}, which is not {wanted}")]
    Strange {
        /// The file.
        path: PathBuf,
        /// What it holds, shortened.
        found: String,
        /// What belongs there.
        wanted: &'static str,
    },
}

impl AttributeError {
    /// Whether somebody must give a right first. systemd shows a service a sysfs that is read-only.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self.kind(), Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem))
    }

    /// Whether the file is not there.
    pub(crate) fn is_missing(&self) -> bool {
        self.kind() == Some(io::ErrorKind::NotFound)
    }

    /// Whether it was read and holds what does not belong there.
    pub(crate) fn is_strange(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::Strange { .. })
    }

    fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => Some(source.kind()),
            Self::TooLong { .. } | Self::Strange { .. } => None,
        }
    }
}

/// One attribute of one device.
#[derive(Debug, Clone)]
pub(crate) struct Attribute(PathBuf);

impl Attribute {
    /// The attribute of that name in a folder.
    pub(crate) fn of(folder: &Path, name: &str) -> Self {
        Self(folder.join(name))
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Its text, without white space at the end.
    pub(crate) fn text(&self) -> Result<String, AttributeError> {
        self.at_most(MOST_VALUE)
    }

    /// Its text, when that may be longer than a value.
    pub(crate) fn list(&self) -> Result<String, AttributeError> {
        self.at_most(MOST_LIST)
    }

    /// Its text, if it is there.
    pub(crate) fn optional(&self) -> Option<String> {
        self.text().ok()
    }

    /// Its whole number.
    pub(crate) fn integer(&self) -> Result<i64, AttributeError> {
        let text = self.text()?;
        text.parse().map_err(|_| self.strange(&text, "a whole number"))
    }

    /// Its number, finite.
    pub(crate) fn number(&self) -> Result<f64, AttributeError> {
        let text = self.text()?;
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| self.strange(&text, "a number"))
    }

    /// Writes a value, in one piece as the kernel wants it.
    pub(crate) fn write(&self, value: &str) -> Result<(), AttributeError> {
        let failed = |source| AttributeError::Write { path: self.0.clone(), source };
        let mut file = OpenOptions::new().write(true).truncate(true).open(&self.0).map_err(failed)?;
        file.write_all(format!("{value}\n").as_bytes()).map_err(failed)
    }

    /// The error for what does not belong there.
    pub(crate) fn strange(&self, found: &str, wanted: &'static str) -> AttributeError {
        let found = found.chars().take(60).collect();
        AttributeError::Strange { path: self.0.clone(), found, wanted }
    }

    fn at_most(&self, most: u64) -> Result<String, AttributeError> {
        let failed = |source| AttributeError::Read { path: self.0.clone(), source };
        let mut bytes = Vec::new();
        let file = File::open(&self.0).map_err(failed)?;
        file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > most) {
            return Err(AttributeError::TooLong { path: self.0.clone(), most });
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim_end().to_owned()),
            _ => Err(self.strange(&String::from_utf8_lossy(&bytes), "a text")),
        }
    }
}

/// The names in a folder that fit, sorted; none when it is not there. Of too many the first in that order, so that they
/// are the same at each look.
///
/// # Errors
/// When it cannot be listed to its end: what is missing then may be there all the same.
pub(crate) fn entries(folder: &Path, fits: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot list {}: {error}", folder.display()));
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = BTreeSet::new();
    for entry in listed {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.to_str().filter(|name| fits(name)).map(str::to_owned));
        if names.len() > MOST_ENTRIES {
            names.pop_last();
        }
    }
    Ok(names.into_iter().collect())
}
