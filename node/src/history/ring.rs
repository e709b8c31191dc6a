//! A ring of segment files of one size: what is new goes to the end of the newest, and the oldest is deleted when
//! another one is needed.
//!
//! A segment is `NUMBER.hist`; it begins with 8 bytes of magic, 2 of the version, 1 that says whether it follows the
//! one before in time, 8 of the time of its first batch (seconds since 1970), all little-endian, and a CRC-32 of
//! these. Then come frames (see [`super::batch`]) until the end of the file. The first batch of a segment repeats what
//! each series is, so that a segment reads without those before it.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tracing::warn;

use super::batch::{Batch, Dictionary, Frame, Recorded, decode, encode};
use crate::store::{DiskError, files::sync_parent};

/// The most bytes of a segment.
pub(super) const SEGMENT_BYTES: usize = 512 * 1024;

const MAGIC: [u8; 8] = *b"HTHHIST\0";
/// Of the first nothing was released: in it a frame had no checksum of its length.
const VERSION: u16 = 2;
const HEAD_BYTES: usize = 23;

/// A segment.
#[derive(Debug)]
struct Segment {
    number: u64,
    from: u64,
    /// Whether no batch of an older one is newer than its first.
    follows: bool,
    /// What of the file is written.
    bytes: usize,
    /// Frames that were found damaged when it was read last. Readers note it.
    damaged: Arc<AtomicUsize>,
}

/// The newest segment, to which is appended.
#[derive(Debug)]
struct Newest {
    file: File,
    dictionary: Dictionary,
    /// The end of its last batch.
    to: u64,
}

/// A ring in a folder of its own.
#[derive(Debug)]
pub(super) struct Ring {
    folder: PathBuf,
    most: usize,
    segments: VecDeque<Segment>,
    /// The number of the segment that is begun next.
    next: u64,
    /// Segments that the disk does not give back. They are passed over.
    unreadable: usize,
    newest: Option<Newest>,
}

/// A segment that is to be read, as far as it was written when it was looked up.
#[derive(Debug, Clone)]
pub(super) struct Part {
    path: PathBuf,
    bytes: usize,
    damaged: Arc<AtomicUsize>,
}

/// What an appended batch took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) bytes: usize,
    /// Series for which there was no room.
    pub(super) left_out: usize,
}

impl Ring {
    /// Opens the ring in a folder, or makes it (mode 0700). It has at most so many segments, 2 or more. What is damaged
    /// at the end of the newest is cut off, segments without a head are deleted, and those that the disk does not give
    /// back are passed over: one bad sector does not cost the rest.
    ///
    /// # Errors
    /// What the disk refuses.
    pub(super) fn open(folder: &Path, most: usize) -> Result<Self, DiskError> {
        let refused = |error| DiskError::new("open", folder, error);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(refused)?;
        let (mut segments, mut last, mut unreadable) = (Vec::new(), 0, 0);
        for entry in fs::read_dir(folder).map_err(refused)? {
            let path = entry.map_err(refused)?.path();
            let Some(number) = number_of(&path) else { continue };
            last = last.max(number);
            match read_head(&path) {
                Ok(Some(Head { from, follows, bytes })) => {
                    segments.push(Segment { number, from, follows, bytes, damaged: Arc::default() });
                }
                Ok(None) => {
                    warn!(path = %path.display(), "a part of the history has no head, or one that no release wrote, and is deleted");
                    remove(&path)?;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(DiskError::new("read", &path, error));
                }
                Err(error) => {
                    unreadable += 1;
                    warn!(path = %path.display(), %error, "a part of the history cannot be read and is passed over");
                }
            }
        }
        segments.sort_by_key(|segment| segment.number);
        let (folder, most) = (folder.to_path_buf(), most.max(2));
        let next = last.saturating_add(1);
        let mut ring = Self { folder, most, segments: segments.into(), next, unreadable, newest: None };
        ring.shrink_to(most)?;
        ring.open_newest()?;
        Ok(ring)
    }

    /// Appends a batch; on return it survives a power cut. `standing` is what each series is at the beginning of the
    /// batch, for the beginning of a segment.
    ///
    /// # Errors
    /// What the disk refuses; nothing of the batch is in the ring then.
    pub(super) fn append(&mut self, batch: &Batch, standing: &[Recorded]) -> Result<Appended, DiskError> {
        let follows = self.is_followed_by(batch.from);
        if let Some(newest) = self.newest.take().filter(|_| follows) {
            let mut dictionary = newest.dictionary.clone();
            let (frame, left_out) = frame_of(batch, &mut dictionary, SEGMENT_BYTES)?;
            if self.end() + frame.len() <= SEGMENT_BYTES {
                let bytes = self.write(newest, &frame, dictionary, batch.to)?;
                return Ok(Appended { bytes, left_out });
            }
        }
        self.begin(batch, standing, follows)
    }

    /// Where the newest segment ends, in bytes.
    pub(super) fn end(&self) -> usize {
        self.segments.back().map_or(0, |newest| newest.bytes)
    }

    /// What all segments take on the disk, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// How many frames were found damaged, in the segments that were read since the start; a segment that cannot be
    /// read is one.
    pub(super) fn damaged(&self) -> usize {
        let damaged = self.segments.iter().map(|segment| segment.damaged.load(Ordering::Relaxed));
        self.unreadable + damaged.sum::<usize>()
    }

    /// The end of the last batch, in seconds since 1970; none of an empty ring.
    pub(super) fn to(&self) -> Option<u64> {
        self.newest.as_ref().map(|newest| newest.to)
    }

    /// The beginning of the oldest batch since when the clock was not set.
    pub(super) fn from(&self) -> Option<u64> {
        let since = self.segments.iter().rposition(|segment| !segment.follows).unwrap_or(0);
        self.segments.iter().skip(since).map(|segment| segment.from).min()
    }

    /// The devices of the newest segment.
    pub(super) fn devices(&self) -> BTreeSet<Arc<str>> {
        self.newest.iter().flat_map(|newest| newest.dictionary.devices().cloned()).collect()
    }

    /// The segments that may hold something of the time since then, oldest first.
    pub(super) fn parts(&self, since: u64) -> Vec<Part> {
        let is_needless = |next: &Segment| next.follows && next.from <= since;
        let first = self.segments.iter().rposition(is_needless).unwrap_or(0);
        let part = |segment: &Segment| Part {
            path: self.path(segment.number),
            bytes: segment.bytes,
            damaged: segment.damaged.clone(),
        };
        self.segments.iter().skip(first).map(part).collect()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:010}.hist"))
    }

    /// Whether nothing that was written is newer.
    fn is_followed_by(&self, from: u64) -> bool {
        let begun = self.segments.iter().all(|segment| segment.from <= from);
        begun && self.newest.as_ref().is_none_or(|newest| newest.to <= from)
    }

    fn begin(&mut self, batch: &Batch, standing: &[Recorded], follows: bool) -> Result<Appended, DiskError> {
        // First, so that the ring never takes more room than it may.
        self.shrink_to(self.most.saturating_sub(1))?;
        let number = self.next;
        self.next = number.saturating_add(1);
        let mut dictionary = Dictionary::default();
        let whole = with_standing(batch, standing);
        let (frame, left_out) = frame_of(&whole, &mut dictionary, SEGMENT_BYTES - HEAD_BYTES)?;
        let path = self.path(number);
        let mut open = OpenOptions::new();
        let open = open.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = open.open(&path).map_err(|error| DiskError::new("create", &path, error))?;
        let damaged = Arc::default();
        self.segments.push_back(Segment { number, from: batch.from, follows, bytes: 0, damaged });
        let head = head(batch.from, follows);
        let newest = Newest { file, dictionary: Dictionary::default(), to: batch.from };
        let written = self.write(newest, &[head, frame].concat(), dictionary, batch.to);
        let synced = written.and_then(|bytes| {
            let synced = sync_parent(&path).map_err(|error| DiskError::new("sync", &path, error));
            synced.map(|()| Appended { bytes, left_out })
        });
        if synced.is_err() {
            self.newest = None;
            self.segments.pop_back();
            remove(&path)?;
        }
        synced
    }

    fn write(
        &mut self,
        mut newest: Newest,
        bytes: &[u8],
        dictionary: Dictionary,
        to: u64,
    ) -> Result<usize, DiskError> {
        let at = self.end() as u64;
        let written = newest.file.seek(SeekFrom::Start(at)).and_then(|_| newest.file.write_all(bytes));
        if let Err(error) = written.and_then(|()| newest.file.sync_data()) {
            let error = DiskError::new("write", &self.folder, error);
            // Where not even that can be done, the next batch begins another segment.
            if newest.file.set_len(at).is_ok() {
                self.newest = Some(newest);
            }
            return Err(error);
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += bytes.len();
        }
        (newest.dictionary, newest.to) = (dictionary, to);
        self.newest = Some(newest);
        Ok(bytes.len())
    }

    fn shrink_to(&mut self, most: usize) -> Result<(), DiskError> {
        while self.segments.len() > most
            && let Some(oldest) = self.segments.pop_front()
        {
            remove(&self.path(oldest.number))?;
        }
        Ok(())
    }

    /// Finds the end of what reads of the newest segment, and cuts off the rest.
    fn open_newest(&mut self) -> Result<(), DiskError> {
        let Some(number) = self.segments.back().map(|segment| segment.number) else { return Ok(()) };
        let path = self.path(number);
        let Some(segment) = self.segments.back_mut() else { return Ok(()) };
        let refused = |error| DiskError::new("open", &path, error);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(refused)?;
        let mut bytes = Vec::new();
        if let Err(error) = (&file).take(SEGMENT_BYTES as u64).read_to_end(&mut bytes) {
            warn!(path = %path.display(), %error, "a part of the history cannot be read and is passed over");
            segment.damaged.store(1, Ordering::Relaxed);
            return Ok(()); // what comes next begins another one
        }
        let mut dictionary = Dictionary::default();
        let mut to = segment.from;
        let read = read_frames(&bytes, &mut dictionary, None, &mut |batch| to = to.max(batch.to));
        if read.damaged > 0 {
            warn!(path = %path.display(), frames = read.damaged, "a part of the history is damaged and is passed over");
        }
        if file.metadata().map_err(refused)?.len() > read.end as u64 {
            warn!(path = %path.display(), "the last entry of the history was cut by a power cut or is damaged, and is dropped");
            file.set_len(read.end as u64).map_err(refused)?;
        }
        segment.bytes = read.end;
        segment.damaged.store(read.damaged, Ordering::Relaxed);
        self.newest = Some(Newest { file, dictionary, to });
        Ok(())
    }
}

impl Part {
    /// Gives each batch of the segment to `take`, with the series of one device only. A segment that is gone meanwhile
    /// has none, and one that cannot be read is passed over as one damaged frame.
    pub(super) fn read(&self, device: &str, take: &mut dyn FnMut(&Batch)) {
        let mut bytes = Vec::new();
        let most = self.bytes.min(SEGMENT_BYTES) as u64;
        let read = File::open(&self.path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        let damaged = match &read {
            Ok(_) => read_frames(&bytes, &mut Dictionary::default(), Some(device), take).damaged,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => 1,
        };
        if self.damaged.swap(damaged, Ordering::Relaxed) < damaged {
            let error = read.err();
            warn!(path = %self.path.display(), entries = damaged, ?error, "a part of the history is damaged and is passed over");
        }
    }
}

/// Deletes the segments of a folder, and the folder if nothing else is in it. Answers with how many there were.
///
/// # Errors
/// What the disk refuses; what was deleted before is gone.
pub(super) fn delete(folder: &Path) -> Result<usize, DiskError> {
    let refused = |error| DiskError::new("delete", folder, error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(refused(error)),
    };
    let mut deleted = 0;
    for entry in entries {
        let path = entry.map_err(refused)?.path();
        if number_of(&path).is_some() {
            remove(&path)?;
            deleted += 1;
        }
    }
    // What a person put there stays.
    let _ = fs::remove_dir(folder);
    Ok(deleted)
}

struct ReadFrames {
    /// Where the last frame ends.
    end: usize,
    damaged: usize,
}

fn read_frames(
    bytes: &[u8],
    dictionary: &mut Dictionary,
    device: Option<&str>,
    take: &mut dyn FnMut(&Batch),
) -> ReadFrames {
    let mut read = ReadFrames { end: HEAD_BYTES.min(bytes.len()), damaged: 0 };
    let (mut at, mut pending) = (HEAD_BYTES, 0);
    while let Some(rest) = bytes.get(at..) {
        match decode(rest, dictionary, device) {
            Frame::Whole(batch, length) => {
                take(&batch);
                at += length;
                read.end = at;
                // Damage that something whole follows is no torn end.
                read.damaged += std::mem::take(&mut pending);
            }
            Frame::Damaged(length) => {
                at += length;
                pending += 1;
            }
            Frame::End => break,
        }
    }
    read
}

/// A frame, and how many series found no room in it.
fn frame_of(batch: &Batch, dictionary: &mut Dictionary, room: usize) -> Result<(Vec<u8>, usize), DiskError> {
    let encoded = encode(batch, dictionary, room);
    let (frame, left_out) = encoded.map_err(|error| {
        DiskError::new("encode", Path::new("history"), io::Error::new(io::ErrorKind::InvalidData, error))
    })?;
    if left_out > 0 {
        warn!(series = left_out, "too much history for one entry: some of it is left out");
    }
    Ok((frame, left_out))
}

/// The batch with what stood at its beginning before its own points.
fn with_standing(batch: &Batch, standing: &[Recorded]) -> Batch {
    let mut whole = batch.clone();
    for stood in standing.iter().filter(|stood| !batch.forgotten.contains(&stood.name.device)) {
        match whole.series.iter_mut().find(|recorded| recorded.name == stood.name) {
            Some(recorded) => drop(recorded.points.splice(0..0, stood.points.iter().cloned())),
            None => whole.series.push(stood.clone()),
        }
    }
    whole
}

fn number_of(path: &Path) -> Option<u64> {
    let is_segment = path.extension().is_some_and(|extension| extension == "hist");
    path.file_stem().filter(|_| is_segment)?.to_str()?.parse().ok()
}

fn head(from: u64, follows: bool) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.push(u8::from(follows));
    bytes.extend_from_slice(&from.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// What the head of a segment says, and how long its file is.
struct Head {
    from: u64,
    follows: bool,
    bytes: usize,
}

/// The head of a segment; none of what is no segment.
fn read_head(path: &Path) -> io::Result<Option<Head>> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES);
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(SEGMENT_BYTES);
    file.take(HEAD_BYTES as u64).read_to_end(&mut bytes)?;
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
    let is_whole = bytes.len() == HEAD_BYTES && crc32fast::hash(body) == u32::from_le_bytes(*crc);
    let Some(rest) = body.strip_prefix(&MAGIC).filter(|_| is_whole) else { return Ok(None) };
    let Some((version, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
    let Some(([follows], from)) = rest.split_first_chunk::<1>() else { return Ok(None) };
    let version = u16::from_le_bytes(*version);
    if version > VERSION {
        let newer = "a newer hearth wrote it; start that one again, or move the folder of the history away";
        return Err(io::Error::new(io::ErrorKind::InvalidData, newer));
    }
    let from = from.try_into().ok().map(u64::from_le_bytes).filter(|_| version == VERSION);
    Ok(from.map(|from| Head { from, follows: *follows == 1, bytes: length }))
}

fn remove(path: &Path) -> Result<(), DiskError> {
    crate::store::files::remove_if_there(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::{
        super::batch::{
            FRAME_HEAD, Kind, Value,
            tests::{batches, name},
        },
        *,
    };
    use crate::store::tests::Folder;

    fn readable(ring: &Ring) -> Vec<Batch> {
        let mut found = Vec::new();
        for part in ring.parts(0) {
            part.read("a", &mut |batch| found.push(batch.clone()));
        }
        found
    }

    fn all(ring: &Ring) -> Vec<Batch> {
        let found = readable(ring);
        assert_eq!(ring.damaged(), 0);
        found
    }

    fn of(from: u64, number: i64) -> Batch {
        let name = name("a", "t", Kind::Number { decimals: 0 });
        let points = vec![(from, Value::Number(number))];
        Batch { from, to: from + 10, forgotten: vec![], series: vec![Recorded { name, points, sum: None }] }
    }

    /// One that takes about so many bytes.
    fn large(from: u64, bytes: usize) -> Batch {
        let name = name("a", "w", Kind::State);
        let word = |at| (from, Value::Word(format!("{at:0>100}").into()));
        let points = (0..bytes / 103).map(word).collect();
        Batch { from, to: from + 10, forgotten: vec![], series: vec![Recorded { name, points, sum: None }] }
    }

    fn size(folder: &Path) -> u64 {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    #[test]
    fn what_was_appended_is_there_after_another_opening() {
        let folder = Folder::new();
        let path = folder.join("ring");
        let mut ring = Ring::open(&path, 4).unwrap();
        assert_eq!((ring.to(), ring.from()), (None, None));
        for at in 0..5 {
            ring.append(&of(at * 10, 7), &[]).unwrap();
        }
        drop(ring);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let file = fs::metadata(path.join("0000000001.hist")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        let mut ring = Ring::open(&path, 4).unwrap();
        assert_eq!((ring.to(), ring.from(), ring.devices()), (Some(50), Some(0), ["a".into()].into()));
        ring.append(&of(100, 8), &[]).unwrap();
        let found = all(&ring);
        assert_eq!(found.len(), 6);
        assert_eq!(found[5], of(100, 8));
    }

    #[test]
    fn a_ring_never_exceeds_its_size_and_loses_the_oldest() {
        let folder = Folder::new();
        let mut ring = Ring::open(folder.path(), 3).unwrap();
        let standing = of(0, 5).series;
        for at in 0..80 {
            ring.append(&large(at * 10, 50_000), &standing).unwrap();
            assert!(size(folder.path()) <= 3 * SEGMENT_BYTES as u64);
        }
        assert!(ring.from().unwrap() > 0 && ring.to() == Some(800));
        // Each segment begins with what stands.
        for part in ring.parts(0) {
            let mut first = None;
            part.read("a", &mut |batch| {
                first.get_or_insert(batch.clone());
            });
            let first = first.unwrap();
            let stood = first.series.iter().find(|one| one.name == standing[0].name).unwrap();
            assert_eq!(stood.points, [(first.from, Value::Number(5))]);
        }
        // What lies before a segment is not read for what lies in it.
        let since = ring.segments.back().unwrap().from;
        assert_eq!((ring.parts(since).len(), ring.parts(since - 1).len()), (1, 2));
        drop(ring);
        assert_eq!(Ring::open(folder.path(), 2).unwrap().segments.len(), 2, "it was made smaller");
    }

    #[test]
    fn a_tail_that_is_torn_at_any_byte_is_dropped_and_the_rest_stays() {
        let folder = Folder::new();
        let mut ring = Ring::open(folder.path(), 2).unwrap();
        ring.append(&of(0, 1), &[]).unwrap();
        let path = ring.path(1);
        let good = fs::read(&path).unwrap().len();
        ring.append(&of(10, 2), &[]).unwrap();
        drop(ring);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            for filling in [vec![], vec![0; whole.len() - cut], vec![0xa5; whole.len() - cut]] {
                let torn = [&whole[..cut], &filling].concat();
                fs::write(&path, &torn).unwrap();
                let mut ring = Ring::open(folder.path(), 2).unwrap();
                let begins = |with: usize| torn.starts_with(&whole[..with]);
                let kept = usize::from(begins(good)) + usize::from(begins(whole.len()));
                assert_eq!(all(&ring).len(), kept, "cut at {cut}, filled with {filling:?}");
                ring.append(&of(20, 3), &[]).unwrap();
                assert_eq!(all(&ring).last(), Some(&of(20, 3)), "cut at {cut}");
                drop(ring);
                let mut ring = Ring::open(folder.path(), 2).unwrap();
                assert_eq!(all(&ring).len(), kept + 1);
                ring.shrink_to(0).unwrap();
            }
        }
    }

    #[test]
    fn damage_of_any_byte_costs_no_entry_but_its_own() {
        let folder = Folder::new();
        let mut ring = Ring::open(folder.path(), 2).unwrap();
        for at in 0..3 {
            ring.append(&of(at * 10, 7), &[]).unwrap();
        }
        let path = ring.path(1);
        let whole = fs::read(&path).unwrap();
        let body = |at: usize| u32::from_le_bytes(whole[HEAD_BYTES + at..][..4].try_into().unwrap()) as usize;
        let first = FRAME_HEAD + body(0);
        let second = first..first + FRAME_HEAD + body(first);
        for at in second {
            for flipped in [1, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[HEAD_BYTES + at] ^= flipped;
                fs::write(&path, &bytes).unwrap();
                let mut ring = Ring::open(folder.path(), 2).unwrap();
                let found: Vec<u64> = readable(&ring).iter().map(|batch| batch.from).collect();
                assert_eq!((found, ring.damaged()), (vec![0, 20], 1), "byte {at}");
                assert_eq!(fs::read(&path).unwrap(), bytes, "nothing is cut off");
                ring.append(&of(30, 7), &[]).unwrap();
                assert_eq!(readable(&ring).last(), Some(&of(30, 7)));
            }
        }
    }

    #[test]
    fn a_segment_that_the_disk_does_not_give_back_costs_no_other() {
        let folder = Folder::new();
        let mut ring = Ring::open(folder.path(), 4).unwrap();
        ring.append(&of(0, 7), &[]).unwrap();
        ring.append(&of(10, 7), &[]).unwrap();
        drop(ring);
        // A folder cannot be read as a file.
        fs::create_dir(folder.path().join("0000000002.hist")).unwrap();
        let mut ring = Ring::open(folder.path(), 4).unwrap();
        assert_eq!((ring.damaged(), readable(&ring).len()), (1, 2));
        for at in 2..24 {
            ring.append(&large(at * 10, 50_000), &[]).unwrap();
        }
        assert!(readable(&ring).len() == 24 && ring.path(3).exists());
        fs::remove_file(ring.path(1)).unwrap();
        fs::create_dir(ring.path(1)).unwrap();
        let left = readable(&ring).len();
        assert!((1..24).contains(&left) && ring.damaged() == 2, "{left}");
    }

    #[test]
    fn a_segment_that_no_release_wrote_goes_and_one_of_a_newer_release_stays() {
        let folder = Folder::new();
        Ring::open(folder.path(), 2).unwrap().append(&of(0, 7), &[]).unwrap();
        let path = folder.path().join("0000000001.hist");
        let whole = fs::read(&path).unwrap();
        let of_version = |version: u16| {
            let mut bytes = whole.clone();
            bytes[MAGIC.len()..][..2].copy_from_slice(&version.to_le_bytes());
            let crc = crc32fast::hash(&bytes[..HEAD_BYTES - 4]);
            bytes[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
            fs::write(&path, bytes).unwrap();
        };
        of_version(VERSION + 1);
        assert!(Ring::open(folder.path(), 2).unwrap_err().to_string().contains("newer hearth"));
        assert!(path.exists());
        of_version(VERSION - 1);
        assert_eq!(Ring::open(folder.path(), 2).unwrap().to(), None);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_ring_takes_is_known_before_and_after_another_opening() {
        let folder = Folder::new();
        let mut ring = Ring::open(folder.path(), 3).unwrap();
        for at in 0..30 {
            ring.append(&large(at * 10, 50_000), &[]).unwrap();
            assert_eq!(ring.bytes() as u64, size(folder.path()));
        }
        drop(ring);
        assert_eq!(Ring::open(folder.path(), 3).unwrap().bytes() as u64, size(folder.path()));
    }

    #[test]
    fn a_clock_that_went_back_begins_a_segment_that_is_read_for_any_time() {
        let folder = Folder::new();
        let mut ring = Ring::open(folder.path(), 4).unwrap();
        ring.append(&of(1_000_000, 1), &[]).unwrap();
        ring.append(&of(500, 2), &[]).unwrap();
        assert!(!ring.segments[1].follows);
        assert_eq!((ring.segments.len(), ring.parts(999_999).len(), all(&ring).len()), (2, 2, 2));
        drop(ring);
        assert_eq!(Ring::open(folder.path(), 4).unwrap().to(), Some(510));
    }

    #[test]
    fn a_full_disk_leaves_the_ring_whole() {
        let disk = crate::store::tests::Tmpfs::new("1m");
        let mut ring = Ring::open(&disk.path().join("ring"), 8).unwrap();
        let mut kept = 0;
        let refused = loop {
            match ring.append(&large(kept * 10, 100_000), &[]) {
                Ok(_) => kept += 1,
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, DiskError::Full { .. }), "{refused}");
        assert!(kept > 5);
        assert_eq!(all(&ring).len() as u64, kept);
        fs::remove_file(ring.path(1)).unwrap();
        ring.append(&of(kept * 10, 1), &[]).unwrap();
        assert_eq!(all(&ring).last(), Some(&of(kept * 10, 1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_restart_finds_what_was_flushed(mut given in prop::collection::vec(batches(), 1..6)) {
            given.sort_by_key(|batch| batch.from);
            for (at, batch) in given.iter_mut().enumerate() {
                // In order and apart.
                let shift = at as u64 * 1_000_000_000_000;
                (batch.from, batch.to) = (batch.from + shift, batch.to + shift);
                let points = batch.series.iter_mut().flat_map(|one| &mut one.points);
                points.for_each(|(time, _)| *time += shift);
                batch.series.retain(|one| &*one.name.device == "a");
            }
            let folder = Folder::new();
            for batch in &given {
                Ring::open(folder.path(), 4).unwrap().append(batch, &[]).unwrap();
            }
            let mut found = all(&Ring::open(folder.path(), 4).unwrap());
            found.iter_mut().for_each(|batch| batch.series.sort_by(|a, b| a.name.cmp(&b.name)));
            prop_assert_eq!(found, given);
        }
    }
}
