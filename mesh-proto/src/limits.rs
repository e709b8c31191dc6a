//! How much a node holds at most of what it is given faster than it can pass on.

/// The limits of one node, given at its start. All nodes of a household need not have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of writes and overlay names waiting for one link. Beyond, all of them are dropped and
    /// anti-entropy brings what they stood for.
    pub queue_bytes: usize,
    /// Most bytes of overlay entries, all writers together. Entries beyond are refused and counted.
    pub overlay_bytes: usize,
    /// Most bytes of overlay entries of one writer, so that one member leaves room for the others.
    pub overlay_share_bytes: usize,
    /// Most writes of one node that are held back because they are stamped in the future. Further ones
    /// are dropped as if they had never come.
    pub held_back: usize,
}

impl Default for Limits {
    /// What a small board has room for.
    fn default() -> Self {
        Self {
            queue_bytes: 1024 * 1024,
            overlay_bytes: 16 * 1024 * 1024,
            overlay_share_bytes: 2 * 1024 * 1024,
            held_back: 10_000,
        }
    }
}
