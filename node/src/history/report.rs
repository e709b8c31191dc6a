//! How the history is, for `hearth doctor` and `/metrics`.

use tokio::time::Instant;

/// Whether it is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keeping {
    /// It is recorded.
    #[default]
    Recording,
    /// Nothing is recorded; what there is stays, and is not shown.
    Paused,
    /// There is none.
    Nothing,
}

/// How the history is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether it is kept.
    pub keeping: Keeping,
    /// Room for it on the disk, in MiB.
    pub megabytes: u32,
    /// What it takes on the disk, in bytes.
    pub disk_bytes: usize,
    /// Bytes that were written since the start.
    pub written_bytes: u64,
    /// Entries that were written since the start: one in each ring at a flush.
    pub entries: u64,
    /// Values for which there was no room, since the start.
    pub dropped: u64,
    /// Entries that were found damaged, of those that are still there.
    pub damaged: usize,
    /// When something was written last, if anything was since the start.
    pub written_at: Option<Instant>,
    /// Why it cannot be written or deleted at the moment, if so.
    pub failing: Option<String>,
}
