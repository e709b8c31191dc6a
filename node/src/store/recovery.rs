//! What opening a store may find, in types that a caller cannot overlook.

use std::path::PathBuf;
use std::time::Duration;

/// How the records that a store opened with came to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing was wrong.
    Clean,
    /// sled could not have opened the store without a loss, because of its snapshot, its settings or
    /// the way in which it looks for the end of its log. Every record was read from the log without
    /// it and written into a fresh store. No record was lost.
    SnapshotRebuilt,
    /// The store was damaged; every record that still read with the right checksum was moved into
    /// a fresh one.
    Salvaged {
        /// Records that were saved.
        kept: u64,
        /// Records known to be lost or to be older than they were: at least this many.
        lost: u64,
    },
    /// Nothing better than the last export was readable.
    FromExport {
        /// The export.
        file: PathBuf,
        /// Its age by the clock of this node, zero if the clock stands before its making.
        age: Duration,
    },
    /// Nothing was readable; the store is empty and must be filled by the peers.
    Empty,
}

impl Recovery {
    /// Whether the store may be older than what this node once acknowledged. When it is, the node
    /// must raise its generation before it writes (a sequence number is never used twice) and take
    /// a peer's snapshot instead of merging.
    #[must_use = "a store that lost writes must not go on under its old generation"]
    pub fn may_have_lost_writes(&self) -> bool {
        match self {
            Self::Clean | Self::SnapshotRebuilt => false,
            Self::Salvaged { .. } | Self::FromExport { .. } | Self::Empty => true,
        }
    }
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clean => write!(f, "the store is whole"),
            Self::SnapshotRebuilt => {
                write!(f, "the store is whole; it was read from its log and written anew")
            }
            Self::Salvaged { kept, lost } => {
                write!(f, "the store was damaged; {kept} records were saved, at least {lost} lost")
            }
            Self::FromExport { file, age } => {
                let hours = age.as_secs() / 3600;
                write!(f, "the store was lost; restored from {}, {hours} hours old", file.display())
            }
            Self::Empty => write!(f, "the store was lost and no export is readable; it starts empty"),
        }
    }
}

/// The outcome with the steps that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// What the store opened with.
    pub outcome: Recovery,
    /// What was found and done, in order, in words for the owner of the home; empty when clean.
    pub steps: Vec<String>,
}

impl RecoveryReport {
    /// See [`Recovery::may_have_lost_writes`].
    #[must_use = "a store that lost writes must not go on under its old generation"]
    pub fn may_have_lost_writes(&self) -> bool {
        self.outcome.may_have_lost_writes()
    }
}
