//! The files of the trail: one ring for each class, lines that are only ever appended.
//!
//! | file | what |
//! | --- | --- |
//! | `security-N.log`, `deed-N.log`, `refused-N.log` | lines; the highest N is written, the lowest goes whole |
//!
//! A line is eight hexadecimal digits, the CRC-32 of what follows, a space and the record as JSON. What a power
//! cut tore off the end is cut off at the next opening; a line that does not match its sum is passed over.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::entry::{Class, Record};

/// Largest file.
pub(super) const MAX_FILE: u64 = 256 << 10;
/// Every ring with its name and its number of files; 2 MiB together.
const RINGS: [(Class, &str, usize); 3] =
    [(Class::Security, "security", 2), (Class::Deed, "deed", 4), (Class::Refused, "refused", 2)];

/// The files, open for writing.
#[derive(Debug)]
pub(super) struct Trail {
    rings: Vec<Ring>,
    next: u64,
    /// Bytes that were torn and cut off at the opening.
    pub(super) torn: u64,
}

#[derive(Debug)]
struct Ring {
    class: Class,
    folder: PathBuf,
    name: &'static str,
    files: usize,
    number: u64,
    file: File,
    length: u64,
    is_dirty: bool,
}

impl Trail {
    /// Opens or makes the files, and mends their ends.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let (mut rings, mut torn, mut last) = (Vec::new(), 0, 0);
        for (class, name, files) in RINGS {
            let number = numbers(folder, name)?.last().copied().unwrap_or(1);
            let path = folder.join(file_name(name, number));
            torn += mend(&path)?;
            let file = append(&path)?;
            let length = file.metadata()?.len();
            let folder = folder.to_owned();
            rings.push(Ring { class, folder, name, files, number, file, length, is_dirty: false });
        }
        for record in read(folder, |_| true)? {
            last = last.max(record.seq);
        }
        sync_folder(folder)?;
        Ok(Self { rings, next: last + 1, torn })
    }

    /// Appends a record under the next number; on the disk after the next [`Self::sync`].
    pub(super) fn append(&mut self, class: Class, mut record: Record) -> io::Result<()> {
        record.seq = self.next;
        let line = line(&record)?;
        let Some(ring) = self.rings.iter_mut().find(|ring| ring.class == class) else { return Ok(()) };
        ring.append(line.as_bytes())?;
        self.next += 1;
        Ok(())
    }

    /// Whether something waits for [`Self::sync`].
    pub(super) fn is_dirty(&self) -> bool {
        self.rings.iter().any(|ring| ring.is_dirty)
    }

    /// Brings everything onto the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        for ring in self.rings.iter_mut().filter(|ring| ring.is_dirty) {
            ring.file.sync_data()?;
            ring.is_dirty = false;
        }
        Ok(())
    }
}

impl Ring {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.length > 0 && self.length.saturating_add(bytes) > MAX_FILE {
            self.turn()?;
        }
        if let Err(error) = self.file.write_all(line) {
            // Half a line on a full disk would spoil the next one; where even this fails, only that one is lost.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += bytes;
        self.is_dirty = true;
        Ok(())
    }

    /// Begins the next file; the oldest goes.
    fn turn(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let number = self.number + 1;
        self.file = append(&self.folder.join(file_name(self.name, number)))?;
        (self.number, self.length, self.is_dirty) = (number, 0, false);
        let all = numbers(&self.folder, self.name)?;
        for old in all.iter().take(all.len().saturating_sub(self.files)) {
            fs::remove_file(self.folder.join(file_name(self.name, *old)))?;
        }
        sync_folder(&self.folder)
    }
}

/// The records of all files that are wanted, oldest first.
pub(super) fn read(folder: &Path, is_wanted: impl Fn(&Record) -> bool) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for (_, name, _) in RINGS {
        for number in numbers(folder, name)? {
            let bytes = match read_file(&folder.join(file_name(name, number))) {
                // It went while it was looked for.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            // One without its end is still being written, or was torn.
            let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|l| l.strip_suffix(b"\n"));
            let lines = whole.filter_map(record);
            records.extend(lines.filter(|record| is_wanted(record)));
        }
    }
    records.sort_by_key(|record| record.seq);
    Ok(records)
}

fn line(record: &Record) -> io::Result<String> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())))
}

/// The record of a line; none when it does not match its sum.
fn record(line: &[u8]) -> Option<Record> {
    let (sum, json) = (line.get(..8)?, line.get(9..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (crc32fast::hash(json) == sum).then(|| serde_json::from_slice(json).ok()).flatten()
}

/// Cuts off what follows the last whole line; answers with how much that was.
fn mend(path: &Path) -> io::Result<u64> {
    let bytes = match read_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let torn = bytes.len() - whole;
    if torn > 0 {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(u64::try_from(whole).unwrap_or(0))?;
        file.sync_all()?;
    }
    Ok(u64::try_from(torn).unwrap_or(u64::MAX))
}

/// Bounded, whatever somebody put there.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(2 * MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn file_name(name: &str, number: u64) -> String {
    format!("{name}-{number:08}.log")
}

/// The numbers of the files of a ring, in order; none where there is no folder.
fn numbers(folder: &Path, name: &str) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let number = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('-'));
        numbers.extend(number.and_then(|rest| rest.strip_suffix(".log")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::{super::entry::Entry, *};
    use crate::api::fake::TestFolder;

    fn add(trail: &mut Trail, class: Class, object: &str) {
        let entry = Entry::new(class, "user:ann", "command", "confirmed").object(Some(object));
        trail.append(class, entry.record(7)).unwrap();
    }

    fn objects(folder: &Path) -> Vec<String> {
        read(folder, |_| true).unwrap().into_iter().filter_map(|record| record.object).collect()
    }

    #[test]
    fn what_was_written_is_read_in_order_and_goes_on_after_a_restart() {
        let folder = TestFolder::new();
        let folder = folder.path().join("audit");
        let mut trail = Trail::open(&folder).unwrap();
        assert!(!trail.is_dirty());
        for (class, object) in [(Class::Deed, "a"), (Class::Security, "b"), (Class::Refused, "c")] {
            add(&mut trail, class, object);
        }
        assert!(trail.is_dirty());
        trail.sync().unwrap();
        assert!(!trail.is_dirty());
        drop(trail);
        let mut trail = Trail::open(&folder).unwrap();
        assert_eq!(trail.torn, 0);
        add(&mut trail, Class::Deed, "d");
        assert_eq!(objects(&folder), ["a", "b", "c", "d"]);
        let numbers: Vec<_> = read(&folder, |_| true).unwrap().iter().map(|record| record.seq).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
    }

    #[test]
    fn a_torn_end_is_cut_off_and_a_damaged_line_is_passed_over() {
        let folder = TestFolder::new();
        let path = folder.path().join(file_name("deed", 1));
        let mut trail = Trail::open(folder.path()).unwrap();
        ["a", "b", "c"].iter().for_each(|object| add(&mut trail, Class::Deed, object));
        drop(trail);
        let whole = fs::read(&path).unwrap();
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in second..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let before = objects(folder.path());
            let mut trail = Trail::open(folder.path()).unwrap();
            add(&mut trail, Class::Deed, "d");
            drop(trail);
            assert_eq!(objects(folder.path()), [before, vec!["d".to_owned()]].concat(), "cut at {cut}");
        }
        // Zeros are what some file systems leave where nothing had been written yet.
        fs::write(&path, [&whole[..], &[0; 300]].concat()).unwrap();
        assert_eq!(Trail::open(folder.path()).unwrap().torn, 300);
        let mut flipped = whole;
        flipped[second + 20] ^= 1;
        fs::write(&path, flipped).unwrap();
        Trail::open(folder.path()).unwrap();
        assert_eq!(objects(folder.path()), ["a", "c"]);
    }

    #[test]
    fn a_ring_is_bounded_and_drives_nothing_out_of_another() {
        let folder = TestFolder::new();
        let mut trail = Trail::open(folder.path()).unwrap();
        add(&mut trail, Class::Security, "kept");
        (0..20_000).for_each(|number| add(&mut trail, Class::Refused, &format!("note/{number}")));
        let sizes: Vec<u64> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 1 + 1 + 2, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= MAX_FILE), "{sizes:?}");
        let objects = objects(folder.path());
        assert_eq!((objects[0].as_str(), objects.last().unwrap().as_str()), ("kept", "note/19999"));
        drop(trail);
        assert_eq!(Trail::open(folder.path()).unwrap().next, 20_002);
    }
}
