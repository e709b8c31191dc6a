//! What a node keeps beside a store that was set back: the mark that says so, and the
//! lost-and-found, what had no place in the state of the peer that took the store's place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mesh_proto::{Value, kinds::guards_the_door, record::Item};
use serde_json::{Value as Json, json};

use super::{
    DiskError,
    files::{FileError, sync_parent, write_private},
    is_damage,
};
use crate::json::from_value;

/// The file that marks a restored store in the state folder.
pub const MARK: &str = "restored";
/// How many lost-and-found files are kept.
const KEPT: usize = 3;
const PREFIX: &str = "lost-and-found-";
const SUFFIX: &str = ".json";

/// Whether the store is marked as restored, and since which generation. A mark whose content makes
/// no sense, or cannot be given back by the disk, is one without a generation: that it is there is what
/// counts.
///
/// # Errors
/// When the mark is there and cannot be read.
pub fn mark(folder: &Path) -> io::Result<Option<Option<u32>>> {
    match fs::read(folder.join(MARK)) {
        Ok(bytes) => {
            let text = std::str::from_utf8(&bytes).unwrap_or_default();
            Ok(Some(text.lines().find_map(|line| line.strip_prefix("generation ")?.parse().ok())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if is_damage(&error) => Ok(Some(None)),
        Err(error) => Err(error),
    }
}

/// Marks the store as restored: what this node writes from this generation on is new.
///
/// # Errors
/// [`FileError`]; an older mark is intact then.
pub fn set_mark(folder: &Path, since: Option<u32>) -> Result<(), FileError> {
    let mut text = String::from("this store was set back; a peer's state replaces it\nformat 1\n");
    if let Some(since) = since {
        text.push_str(&format!("generation {since}\n"));
    }
    write_private(&folder.join(MARK), text.as_bytes())
}

/// Marks the store as restored unless it is: an older mark knows the generation since which what
/// this node wrote is held by no peer.
///
/// # Errors
/// [`FileError`]; an older mark is intact then.
pub fn ensure_mark(folder: &Path) -> Result<(), FileError> {
    match mark(folder).map_err(|error| DiskError::new("read", &folder.join(MARK), error))? {
        Some(_) => Ok(()),
        None => set_mark(folder, None),
    }
}

/// Removes the mark.
///
/// # Errors
/// When it is there and stays.
pub fn remove_mark(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Exports registers durably as JSON into a new file of the folder, and removes the oldest beyond
/// three. The same registers twice in a row are one file.
///
/// # Errors
/// [`FileError`]; nothing was written, or it is not known to be durable.
pub fn export_lost(folder: &Path, lost: &[Item]) -> Result<PathBuf, FileError> {
    let registers: Vec<Json> = lost.iter().map(register).collect();
    let text = format!("{:#}\n", json!({ "format": 1, "registers": registers }));
    let mut files = lost_files(folder).map_err(|error| DiskError::new("read", folder, error))?;
    if let Some((_, newest)) = files.last()
        && fs::read(newest).is_ok_and(|bytes| bytes == text.as_bytes())
    {
        // Perhaps the attempt before ended between the renaming and this.
        sync_parent(newest).map_err(|error| DiskError::new("sync the folder of", newest, error))?;
        return Ok(newest.clone());
    }
    let number = files.last().map_or(1, |(number, _)| number.saturating_add(1));
    let path = folder.join(format!("{PREFIX}{number}{SUFFIX}"));
    write_private(&path, text.as_bytes())?;
    files.push((number, path.clone()));
    for (_, old) in files.iter().rev().skip(KEPT) {
        // One file too many does no harm; the next export tries again.
        let _ = fs::remove_file(old);
    }
    Ok(path)
}

/// The lost-and-found files of a folder, the oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn lost_files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        files.extend(number.map(|number| (number, path)));
    }
    files.sort_unstable();
    Ok(files)
}

fn register(item: &Item) -> Json {
    // Nobody needs the hash of a password to see that a user is missing.
    let shown = item.entry.value.as_deref().filter(|_| !guards_the_door(item.key.object.kind()));
    let value = shown.and_then(|bytes| Value::decode(bytes).ok());
    json!({
        "object": item.key.object.as_str(),
        "field": item.key.field.as_str(),
        "deleted": item.entry.value.is_none(),
        "value": value.as_ref().map(from_value),
        "time_ms": item.entry.stamp.ms(),
        "node": item.entry.dot.origin.node.to_string(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use mesh_proto::{Dot, FieldName, Hlc, Key, ObjectId, Origin, ShortId, merge::Entry};

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("hearth-restored-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn lost(text: &str) -> Vec<Item> {
        let key =
            Key { object: ObjectId::new("zone/attic").unwrap(), field: FieldName::new("name").unwrap() };
        let dot = Dot { origin: Origin { node: ShortId(7), generation: 1 }, seq: 2 };
        let value = Some(Value::from(text).encode().unwrap());
        vec![Item { key, entry: Entry { stamp: Hlc::from_ms(5), dot, value }, covers: Vec::new() }]
    }

    #[test]
    fn a_mark_is_there_until_it_is_removed() {
        let folder = folder("mark");
        assert_eq!(mark(&folder).unwrap(), None);
        set_mark(&folder, None).unwrap();
        assert_eq!(mark(&folder).unwrap(), Some(None));
        set_mark(&folder, Some(70_000)).unwrap();
        assert_eq!(mark(&folder).unwrap(), Some(Some(70_000)));
        ensure_mark(&folder).unwrap();
        assert_eq!(mark(&folder).unwrap(), Some(Some(70_000)), "an older mark stays");
        remove_mark(&folder).unwrap();
        remove_mark(&folder).unwrap();
        assert_eq!(mark(&folder).unwrap(), None);
        ensure_mark(&folder).unwrap();
        assert_eq!(mark(&folder).unwrap(), Some(None));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_mark_that_makes_no_sense_still_marks() {
        let folder = folder("nonsense");
        for content in [&b""[..], b"generation \xff\xfe\n", b"\xff\ngeneration 7\n", b"generation -1\n"] {
            fs::write(folder.join(MARK), content).unwrap();
            assert_eq!(mark(&folder).unwrap(), Some(None), "{}", content.escape_ascii());
            ensure_mark(&folder).unwrap();
            assert_eq!(fs::read(folder.join(MARK)).unwrap(), content, "it is left as it is");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_mark_that_the_disk_cannot_give_back_still_marks() {
        let folder = folder("spoiled");
        crate::store::tests::spoil(&folder.join(MARK));
        assert_eq!(mark(&folder).unwrap(), Some(None));
        set_mark(&folder, Some(7)).unwrap();
        assert_eq!(mark(&folder).unwrap(), Some(Some(7)));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn three_lost_and_found_files_are_kept_with_their_values() {
        let folder = folder("lost");
        let first = export_lost(&folder, &lost("0")).unwrap();
        assert_eq!(export_lost(&folder, &lost("0")).unwrap(), first, "the same again is no other file");
        for number in 1..12 {
            let path = export_lost(&folder, &lost(&number.to_string())).unwrap();
            let text: Json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            assert_eq!(text["registers"][0]["value"], number.to_string());
            assert_eq!(text["registers"][0]["object"], "zone/attic");
        }
        let numbers: Vec<u64> = lost_files(&folder).unwrap().into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [10, 11, 12]);
        assert!(export_lost(&folder.join("missing"), &lost("1")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
