//! The records in sled's log, put together from its pages as sled would do it, or from as much of
//! them as still reads.
//!
//! A page is its last whole image and the single changes behind it. A leaf holds the records of a
//! range of keys; every whole image says what that range held when it was written. So for each key
//! the leaf with the newest image whose range covers it has the word, be it with no record: pages
//! that were split, merged or given up cannot speak up again.

use super::log::{Contents, Kind, Log, Message, take_number};
use super::record::Scan;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound::{Included, Unbounded};

/// A log whose messages were read.
pub(super) struct Replay {
    log: Log,
    contents: Contents,
}

/// Where a page lies in the log.
struct Parts {
    image: Message,
    changes: Vec<Message>,
}

/// What is needed of a leaf to put the leaves in order.
struct Claim {
    parts: Parts,
    merging: bool,
}

/// Keys from `low` up to but not including `high`; all keys above when that is empty.
#[derive(Clone)]
struct Range {
    low: Vec<u8>,
    high: Vec<u8>,
}

struct Leaf {
    range: Range,
    merging: bool,
    prefix: Vec<u8>,
    /// By the key behind the prefix.
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Replay {
    /// # Errors
    /// What the system says on reading.
    pub(super) fn new(log: Log) -> io::Result<Self> {
        let contents = log.contents()?;
        Ok(Self { log, contents })
    }

    /// The log that was read.
    pub(super) fn into_log(self) -> Log {
        self.log
    }

    /// Positions at which the log may end when nothing that was acknowledged is missing, the
    /// likelier first: behind everything but an incomplete batch, and, as writes may reach the disk
    /// in another order, before the first gap of the last batch.
    pub(super) fn ends(&self) -> Vec<u64> {
        let mut batches = self.contents.messages.iter().filter_map(|message| match message.kind {
            Kind::Batch { last } => Some((message.at, last)),
            _ => None,
        });
        let newest = batches.clone().next_back();
        let incomplete = batches.find(|(_, last)| *last >= self.contents.end);
        let mut ends = vec![incomplete.map_or(self.contents.end, |(begins, _)| begins)];
        let (begins, last) = newest.unwrap_or((0, 0));
        if let Some(gap) = self.contents.gaps.iter().copied().find(|gap| *gap > begins) {
            ends.push(if last >= gap { begins } else { gap });
        }
        ends
    }

    /// Hands over every record that the log holds when it ends at `end`, in no order, and adds
    /// them up.
    ///
    /// # Errors
    /// What the system says on reading.
    pub(super) fn records(&self, end: u64, each: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<Scan> {
        let mut claims = Vec::new();
        for parts in self.pages(end).into_values() {
            if let Some(leaf) = self.leaf(&parts)? {
                claims.push(Claim { parts, merging: leaf.merging });
            }
        }
        // A leaf whose records were moved into its neighbour comes last: its image may be copied
        // about after that.
        claims.sort_by_key(|claim| (claim.merging, Reverse(claim.parts.image.at)));
        let mut scan = Scan::default();
        let mut covered = Covered::default();
        for claim in claims {
            let Some(leaf) = self.leaf(&claim.parts)? else { continue };
            for (key, value) in &leaf.records {
                let key = [leaf.prefix.as_slice(), key].concat();
                if leaf.range.contains(&key) && !covered.contains(&key) {
                    scan.take(&key, value, each);
                }
            }
            covered.add(leaf.range);
        }
        Ok(scan)
    }

    fn pages(&self, end: u64) -> BTreeMap<u64, Parts> {
        let mut pages: BTreeMap<u64, Parts> = BTreeMap::new();
        for &message in self.contents.messages.iter().take_while(|message| message.at < end) {
            match message.kind {
                Kind::Node => {
                    pages.insert(message.page, Parts { image: message, changes: Vec::new() });
                }
                Kind::Link => {
                    if let Some(page) = pages.get_mut(&message.page) {
                        page.changes.push(message);
                    }
                }
                Kind::Free => {
                    pages.remove(&message.page);
                }
                Kind::Other | Kind::Cap | Kind::Batch { .. } => {}
            }
        }
        pages
    }

    fn leaf(&self, parts: &Parts) -> io::Result<Option<Leaf>> {
        let Some(image) = self.log.payload(&parts.image)? else { return Ok(None) };
        let Some(mut leaf) = Leaf::decode(&image) else { return Ok(None) };
        for change in &parts.changes {
            if let Some(change) = self.log.payload(change)? {
                // A change that cannot be decoded is one that is missing: the tally shows it.
                let _applied = leaf.change(&change);
            }
        }
        Ok(Some(leaf))
    }
}

impl Leaf {
    /// `None` for pages that hold no records of their own.
    fn decode(mut image: &[u8]) -> Option<Self> {
        let from = &mut image;
        let _next = take_number(from)?;
        let _merging_child = take_number(from)?;
        let merging = take_byte(from)? != 0;
        let prefix_bytes = usize::from(take_byte(from)?);
        let range = Range { low: take_bytes(from)?, high: take_bytes(from)? };
        if take_byte(from)? != 0 {
            return None;
        }
        // Every key takes a byte at least.
        let count = usize::try_from(take_number(from)?).ok().filter(|count| *count <= from.len())?;
        let keys = (0..count).map(|_| take_bytes(from)).collect::<Option<Vec<_>>>()?;
        let values = (0..count).map(|_| take_bytes(from)).collect::<Option<Vec<_>>>()?;
        let prefix = range.low.get(..prefix_bytes)?.to_vec();
        Some(Self { range, merging, prefix, records: keys.into_iter().zip(values).collect() })
    }

    fn change(&mut self, mut change: &[u8]) -> Option<()> {
        let from = &mut change;
        match take_byte(from)? {
            0 => {
                let key = take_bytes(from)?;
                self.records.insert(key, take_bytes(from)?);
            }
            1 => {
                self.records.remove(&take_bytes(from)?);
            }
            4 => self.merging = true,
            _ => {}
        }
        Some(())
    }
}

fn take_byte(from: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = from.split_first()?;
    *from = rest;
    Some(byte)
}

fn take_bytes(from: &mut &[u8]) -> Option<Vec<u8>> {
    let count = usize::try_from(take_number(from)?).ok()?;
    let (bytes, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(bytes.to_vec())
}

impl Range {
    fn contains(&self, key: &[u8]) -> bool {
        *self.low <= *key && (self.high.is_empty() || *key < *self.high)
    }

    /// Whether a range that begins at `low` overlaps this one or touches its end.
    fn reaches(&self, low: &[u8]) -> bool {
        self.high.is_empty() || *low <= *self.high
    }
}

/// Ranges that do not touch each other, by their low ends.
#[derive(Default)]
struct Covered(BTreeMap<Vec<u8>, Range>);

impl Covered {
    fn contains(&self, key: &[u8]) -> bool {
        let below = self.0.range::<[u8], _>((Unbounded, Included(key))).next_back();
        below.is_some_and(|(_, range)| range.contains(key))
    }

    fn add(&mut self, mut range: Range) {
        let touching: BTreeSet<Vec<u8>> = {
            let low = range.low.as_slice();
            let before = self.0.range::<[u8], _>((Unbounded, Included(low))).next_back();
            let before = before.filter(|(_, before)| before.reaches(low));
            let after = self.0.range::<[u8], _>((Included(low), Unbounded));
            let after = after.take_while(|(low, _)| range.reaches(low));
            before.into_iter().chain(after).map(|(low, _)| low.clone()).collect()
        };
        for other in touching.iter().filter_map(|low| self.0.remove(low)) {
            range.low = range.low.min(other.low);
            range.high = if range.high.is_empty() || other.high.is_empty() {
                Vec::new()
            } else {
                range.high.max(other.high)
            };
        }
        self.0.insert(range.low.clone(), range);
    }
}
