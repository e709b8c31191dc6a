//! The log of sled 0.34.7, read without sled. Nothing here changes a byte of it.
//!
//! sled writes while it opens: it fills with zeros every segment that it does not take into
//! account. It looks for the end of its log from the segment that the newest segment header names
//! as stable, and takes the log for empty when that one is missing. It is missing when all of its
//! pages were written anew, so that it was freed, and no later segment was begun since. The same
//! search ends at the first message that does not match its checksum, and so gives up everything
//! behind one wrong byte. [`Log::prospect`] tells before sled is let at the files.
//!
//! The file is an array of segments of 512 KiB. A segment has a header of 20 bytes (CRC-32, its
//! position in the log, the position known to be on the disk when it was begun; the last two
//! xored) and then messages: CRC-32, kind, length, number of the segment, page, payload. Numbers
//! are of variable length. A position (sled's `Lsn`) counts bytes since the store was made.
//!
//! A block that the disk cannot give back (EIO) is damage like any other, and costs what lies in it.

use crate::store::is_damage;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SEGMENT_BYTES: usize = 512 * 1024;
const SEGMENT: u64 = SEGMENT_BYTES as u64;
const SEGMENT_HEADER_BYTES: usize = 20;
/// No message begins closer than this to the end of its segment.
const RED_ZONE_BYTES: usize = 32;
/// A segment in use has something in its first bytes.
const QUICK_LOOK_BYTES: usize = 8 * 1024;
/// What is read at a time where a longer read fails, in bytes: no disk has smaller units that fail.
const BLOCK_BYTES: usize = 4096;
/// Stands for bytes that cannot be read. No kind of a message, and unlike zeros not what a segment
/// without content looks like.
const UNREADABLE: u8 = 0xff;
/// A blob holds one page of sled, which holds at most 17 of our records.
const MAX_BLOB_BYTES: u64 = 1024 * 1024;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing about a record.
    Other,
    /// Nothing more follows in this segment.
    Cap,
    /// What follows up to position `last` counts only as a whole.
    Batch { last: u64 },
    /// The page is given up.
    Free,
    /// The whole page.
    Node,
    /// One change of the page.
    Link,
}

/// One message whose checksum matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) page: u64,
    /// Position in the log.
    pub(super) at: u64,
    /// Offset of the payload in the file.
    payload: u64,
    payload_bytes: u32,
    /// The payload is only the name of a file in `blobs`.
    in_blob: bool,
}

/// What sled would do with the log if it were opened now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Prospect {
    /// Take all of it into account.
    KeepsAll,
    /// Leave out the last batch, which is not complete: what a power cut leaves behind.
    CutsLastBatch,
    /// Lose something that can be read, or fail.
    Loses(String),
}

struct Segment {
    begins: u64,
    offset: u64,
    /// Highest position known to be on the disk when the segment was begun.
    stable: i64,
}

/// The messages of one segment.
struct Walk {
    messages: Vec<Message>,
    /// Positions of what does not read although something that does follows.
    gaps: Vec<u64>,
    /// Position behind the last message.
    end: u64,
    /// No message can follow.
    closed: bool,
}

/// All that reads.
pub(super) struct Contents {
    /// In the order in which they were written.
    pub(super) messages: Vec<Message>,
    /// See [`Walk::gaps`]; ascending.
    pub(super) gaps: Vec<u64>,
    /// Position behind the last message.
    pub(super) end: u64,
}

/// The files of a database.
pub(super) struct Log {
    file: File,
    folder: PathBuf,
    bytes: u64,
    /// Some of it could not be read so far.
    has_unreadable: Cell<bool>,
}

impl Log {
    /// Opens the log in sled's folder to read it; `None` when there is no log, or none that the disk
    /// can give back.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(folder: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(folder.join("db")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_damage(&error) => return Ok(None),
            opened => opened?,
        };
        let bytes = file.metadata()?.len();
        let has_unreadable = Cell::new(false);
        Ok(Some(Self { file, folder: folder.to_path_buf(), bytes, has_unreadable }))
    }

    /// Takes the lock that sled takes, and holds it until this is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when somebody else has it; else what the system says.
    pub(super) fn lock(&self) -> io::Result<()> {
        Ok(self.file.try_lock()?)
    }

    /// What sled would do.
    ///
    /// # Errors
    /// What the system says on reading, if it is not damage.
    pub(super) fn prospect(&self) -> io::Result<Prospect> {
        match self.prospect_of_what_reads()? {
            Prospect::KeepsAll | Prospect::CutsLastBatch if self.has_unreadable.get() => {
                Ok(Prospect::Loses("part of its log cannot be read".into()))
            }
            prospect => Ok(prospect),
        }
    }

    fn prospect_of_what_reads(&self) -> io::Result<Prospect> {
        let lose = |what: &str| Ok(Prospect::Loses(what.into()));
        let Some(from) = snapshot_position(&self.folder)? else {
            return lose("its index is damaged");
        };
        let from = from / SEGMENT * SEGMENT;
        let mut order: BTreeMap<u64, Segment> = BTreeMap::new();
        for offset in self.offsets() {
            let Some(segment) = self.header(offset)? else {
                if self.begin_by_messages(offset)?.is_some_and(|begins| begins >= from) {
                    return lose("the header of a segment of its log is damaged");
                }
                continue;
            };
            if segment.begins >= from && order.insert(segment.begins, segment).is_some() {
                return lose("two segments of its log claim the same place");
            }
        }
        let Some(last) = order.last_key_value().map(|(begins, _)| *begins) else {
            return Ok(Prospect::KeepsAll);
        };
        let stable = order.values().filter_map(|segment| u64::try_from(segment.stable).ok()).max();
        let tail = stable.unwrap_or(0).max(from) / SEGMENT * SEGMENT;
        let expected = (0..).map(|n| tail + n * SEGMENT);
        if tail > last || order.range(tail..).zip(expected).any(|((begins, _), expected)| *begins != expected)
        {
            return lose("a segment that its end is looked for from was freed");
        }
        let (mut end, mut promised) = (0, 0);
        for (begins, segment) in &order {
            let walk = self.walk(segment)?;
            if !walk.gaps.is_empty() || (!walk.closed && *begins != last) {
                return lose("a message in its log does not match its checksum");
            }
            end = walk.end;
            promised = walk.messages.iter().fold(promised, |promised, message| match message.kind {
                Kind::Batch { last } => promised.max(last),
                _ => promised,
            });
        }
        Ok(if promised >= end { Prospect::CutsLastBatch } else { Prospect::KeepsAll })
    }

    /// Reads every message that can be read.
    ///
    /// # Errors
    /// What the system says on reading, if it is not damage.
    pub(super) fn contents(&self) -> io::Result<Contents> {
        let mut order = BTreeMap::new();
        for offset in self.offsets() {
            if let Some(segment) = self.header(offset)? {
                order.entry(segment.begins).or_insert(segment);
            }
        }
        for offset in self.offsets() {
            if self.header(offset)?.is_none()
                && let Some(begins) = self.begin_by_messages(offset)?
            {
                order.entry(begins).or_insert(Segment { begins, offset, stable: 0 });
            }
        }
        let mut contents = Contents { messages: Vec::new(), gaps: Vec::new(), end: 0 };
        let last = order.last_key_value().map_or(0, |(begins, _)| *begins);
        for segment in order.values() {
            let walk = self.walk(segment)?;
            contents.messages.extend(walk.messages);
            contents.gaps.extend(walk.gaps);
            if !walk.closed && segment.begins != last {
                contents.gaps.push(walk.end);
            }
            contents.end = walk.end;
        }
        Ok(contents)
    }

    /// The payload of a message, from the log or its blob; `None` when it does not read.
    ///
    /// # Errors
    /// What the system says on reading, if it is not damage.
    pub(super) fn payload(&self, message: &Message) -> io::Result<Option<Vec<u8>>> {
        let mut payload = vec![0; message.payload_bytes as usize];
        if !self.read(&mut payload, message.payload)? {
            return Ok(None);
        }
        if !message.in_blob {
            return Ok(Some(payload));
        }
        let Some(name) = payload.first_chunk().map(|bytes| i64::from_le_bytes(*bytes)) else {
            return Ok(None);
        };
        let path = self.folder.join("blobs").join(name.to_string());
        if !fs::metadata(&path).is_ok_and(|about| about.len() <= MAX_BLOB_BYTES) {
            return Ok(None);
        }
        let Some(blob) = unless_damaged(fs::read(path))? else { return Ok(None) };
        let Some((crc, content)) = blob.split_first_chunk() else { return Ok(None) };
        let matches = crc32fast::hash(content) == u32::from_le_bytes(*crc);
        Ok(content.split_first().filter(|_| matches).map(|(_kind, page)| page.to_vec()))
    }

    fn offsets(&self) -> impl Iterator<Item = u64> + use<> {
        let bytes = self.bytes;
        (0..).map(|n| n * SEGMENT).take_while(move |offset| offset + SEGMENT_HEADER_BYTES as u64 <= bytes)
    }

    /// The segment at `offset` by its header, if that matches its checksum.
    fn header(&self, offset: u64) -> io::Result<Option<Segment>> {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        if !self.read(&mut header, offset)? {
            return Ok(None);
        }
        let Some((crc, numbers)) = header.split_first_chunk() else { return Ok(None) };
        if crc32fast::hash(numbers) != u32::from_le_bytes(*crc) ^ u32::MAX {
            return Ok(None);
        }
        let ([begins, stable], _) =
            numbers.as_chunks::<8>().0.split_first_chunk::<2>().unwrap_or((&[[0; 8]; 2], &[]));
        let begins = u64::try_from(i64::from_le_bytes(*begins) ^ i64::MAX).ok();
        let stable = i64::from_le_bytes(*stable) ^ i64::MAX;
        Ok(begins.filter(|begins| begins % SEGMENT == 0).map(|begins| Segment { begins, offset, stable }))
    }

    /// Fills `bytes` from `offset` on; false when the disk cannot give them back.
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
        #[cfg(test)]
        let read = faults::check(&self.folder, &self.file, offset, bytes.len());
        #[cfg(not(test))]
        let read = Ok(());
        let reads = unless_damaged(read.and_then(|()| self.file.read_exact_at(bytes, offset)))?.is_some();
        self.has_unreadable.set(self.has_unreadable.get() || !reads);
        Ok(reads)
    }

    /// As many bytes from `offset` on, or fewer where the file ends; [`UNREADABLE`] in the place of
    /// blocks that the disk cannot give back.
    fn bytes_at(&self, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        let there = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(count);
        let mut bytes = vec![0; there.min(count)];
        if self.read(&mut bytes, offset)? {
            return Ok(bytes);
        }
        // Offsets are those of segments, so these are blocks of the file.
        for (number, block) in (0..).zip(bytes.chunks_mut(BLOCK_BYTES)) {
            if !self.read(block, offset + number * BLOCK_BYTES as u64)? {
                block.fill(UNREADABLE);
            }
        }
        Ok(bytes)
    }

    /// Where in the log a segment begins whose header does not read: every message says it.
    fn begin_by_messages(&self, offset: u64) -> io::Result<Option<u64>> {
        // Most are filled with zeros because nothing in them counts: that is quick to see.
        if self.bytes_at(offset, QUICK_LOOK_BYTES)?.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let bytes = self.bytes_at(offset, SEGMENT_BYTES)?;
        let found = next_message(&bytes, SEGMENT_HEADER_BYTES, None);
        Ok(found.and_then(|(_, raw)| raw.segment.checked_mul(SEGMENT)).filter(|begins| *begins < 1 << 60))
    }

    fn walk(&self, segment: &Segment) -> io::Result<Walk> {
        let bytes = self.bytes_at(segment.offset, SEGMENT_BYTES)?;
        let number = Some(segment.begins / SEGMENT);
        let position = |at: usize| segment.begins + at as u64;
        let mut walk = Walk { messages: Vec::new(), gaps: Vec::new(), end: 0, closed: false };
        let mut at = SEGMENT_HEADER_BYTES;
        while at + RED_ZONE_BYTES <= SEGMENT_BYTES {
            let Some((found_at, raw)) = next_message(&bytes, at, number) else { break };
            if found_at != at {
                walk.gaps.push(position(at));
            }
            at = found_at + raw.bytes;
            let kind = raw.meaning(&bytes, found_at);
            if kind == Kind::Cap {
                at = found_at;
                walk.closed = true;
                break;
            }
            walk.messages.push(Message {
                kind,
                page: raw.page,
                at: position(found_at),
                payload: segment.offset + (found_at + raw.header_bytes) as u64,
                payload_bytes: u32::try_from(raw.bytes - raw.header_bytes).unwrap_or(0),
                in_blob: matches!(raw.kind, 7 | 9 | 11),
            });
        }
        walk.end = position(at);
        walk.closed |= at + RED_ZONE_BYTES >= SEGMENT_BYTES;
        Ok(walk)
    }
}

/// A message as it lies in its segment.
struct Raw {
    kind: u8,
    segment: u64,
    page: u64,
    header_bytes: usize,
    /// Of header and payload.
    bytes: usize,
}

impl Raw {
    fn meaning(&self, segment: &[u8], at: usize) -> Kind {
        match self.kind {
            2 => Kind::Cap,
            3 => {
                let last = segment.get(at + self.header_bytes..).and_then(|payload| payload.first_chunk());
                Kind::Batch { last: last.map_or(0, |last| u64::from_le_bytes(*last)) }
            }
            4 => Kind::Free,
            8 | 9 => Kind::Node,
            10 | 11 => Kind::Link,
            _ => Kind::Other,
        }
    }
}

/// The message at `at`, or the next one behind what does not read, and where it is.
fn next_message(segment: &[u8], at: usize, number: Option<u64>) -> Option<(usize, Raw)> {
    if let Some(raw) = message_at(segment, at, number) {
        return Some((at, raw));
    }
    // The kind of a message is its fifth byte and never zero, so behind the last such byte is none.
    let used = segment.iter().rposition(|byte| *byte != 0)?;
    let last = used.checked_sub(4)?.min(SEGMENT_BYTES - RED_ZONE_BYTES);
    (at..=last).find_map(|at| Some((at, message_at(segment, at, number)?)))
}

fn message_at(segment: &[u8], at: usize, number: Option<u64>) -> Option<Raw> {
    let all = segment.get(at..)?;
    let (crc, rest) = all.split_first_chunk::<4>()?;
    let (&kind, mut rest) = rest.split_first()?;
    if !(1..=11).contains(&kind) {
        return None;
    }
    let payload_bytes = usize::try_from(take_number(&mut rest)?).ok()?;
    let segment_number = take_number(&mut rest)?;
    if number.is_some_and(|number| number != segment_number) {
        return None;
    }
    let page = take_number(&mut rest)?;
    let header_bytes = all.len() - rest.len();
    let payload = rest.get(..payload_bytes)?;
    let mut crc_found = crc32fast::Hasher::new();
    crc_found.update(payload);
    crc_found.update(all.get(4..header_bytes)?);
    if crc_found.finalize() ^ u32::MAX != u32::from_le_bytes(*crc) {
        return None;
    }
    Some(Raw { kind, segment: segment_number, page, header_bytes, bytes: header_bytes + payload_bytes })
}

/// Takes a number of variable length off the front.
pub(super) fn take_number(from: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = from.split_first()?;
    let wide = |count: usize| {
        let mut number = [0; 8];
        number.get_mut(..count)?.copy_from_slice(rest.get(..count)?);
        Some(u64::from_le_bytes(number))
    };
    let byte = |at: usize| rest.get(at).copied().map(u64::from);
    let (number, used) = match first {
        0..=240 => (u64::from(first), 0),
        241..=248 => (240 + 256 * (u64::from(first) - 241) + byte(0)?, 1),
        249 => (2288 + 256 * byte(0)? + byte(1)?, 2),
        250..=255 => (wide(usize::from(first) - 247)?, usize::from(first) - 247),
    };
    *from = rest.get(used..)?;
    Some(number)
}

/// What was read; `None` when it is damaged.
fn unless_damaged<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if is_damage(&error) => Ok(None),
        read => read.map(Some),
    }
}

/// Up to which position sled's newest snapshot accounts for the log: zero without one, `None` when
/// it is damaged.
fn snapshot_position(folder: &Path) -> io::Result<Option<u64>> {
    let mut newest: Option<PathBuf> = None;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_one = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"snap."));
        if is_one && newest.as_ref().is_none_or(|newest| *newest < path) {
            newest = Some(path);
        }
    }
    let Some(newest) = newest else { return Ok(Some(0)) };
    let Some(bytes) = unless_damaged(fs::read(newest))? else { return Ok(None) };
    let Some((rest, crc)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
    let Some((snapshot, _length)) = rest.split_last_chunk::<8>() else { return Ok(None) };
    let shifted = snapshot.first_chunk::<8>().map(|bytes| i64::from_le_bytes(*bytes));
    let matches = crc32fast::hash(snapshot) == u32::from_le_bytes(*crc);
    // Zero stands for none.
    let position =
        shifted.and_then(|shifted| u64::try_from(shifted).ok()).map(|shifted| shifted.saturating_sub(1));
    Ok(position.filter(|_| matches))
}

#[cfg(test)]
#[path = "faults.rs"]
pub(super) mod faults;
