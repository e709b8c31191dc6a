//! A store that has grown, and its rebuild.
use super::*;
use crate::store::Rebuilt;

/// A closed store that was large once and holds little now.
fn grown() -> (Folder, Records) {
    let folder = Folder::new();
    let mut store = open_clean(folder.path());
    for n in 0..20 {
        store.commit(&sample(n * 2_000..(n + 1) * 2_000)).unwrap();
    }
    for n in 0..20 {
        let deletes = sample(n * 2_000 + 50..(n + 1) * 2_000).puts.into_iter().map(|(key, _)| key).collect();
        store.commit(&Batch { puts: vec![], deletes }).unwrap();
    }
    let records = records_of(&mut store);
    assert_eq!(records.len(), 1_000);
    store.close().unwrap();
    (folder, records)
}

fn files(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.starts_with("store")).collect();
    names.sort();
    names
}

#[test]
fn a_store_that_has_grown_past_four_times_its_records_is_written_anew_at_the_start() {
    let (folder, records) = grown();
    let mut store = open_clean(folder.path());
    let size = store.size();
    let Rebuilt { from_bytes, to_bytes } = size.rebuilt.expect("it was written anew");
    // What sled does not need it may cut off as it opens, so the file's length beforehand says nothing.
    assert!(
        from_bytes > 8 << 20 && from_bytes > 4 * size.live_bytes && to_bytes < from_bytes / 2,
        "{size:?}"
    );
    assert_eq!(size.disk_bytes, to_bytes);
    assert_eq!(records_of(&mut store), records);
    assert!(to_bytes <= 4 * size.live_bytes || to_bytes <= 8 << 20, "{size:?}");
    store.commit(&sample(0..100)).unwrap();
    let found = records_of(&mut store);
    drop(store);
    let mut store = open_clean(folder.path());
    assert_eq!(store.size().rebuilt, None, "once is enough");
    assert_eq!(records_of(&mut store), found);
    drop(store);
    assert_eq!(files(folder.path()), ["store", "store.mark"]);
}

#[test]
fn the_bytes_of_the_records_are_counted_as_they_come_and_go() {
    let folder = Folder::new();
    let mut store = open_clean(folder.path());
    store.commit(&sample(0..500)).unwrap();
    let deletes = sample(0..100).puts.into_iter().map(|(key, _)| key).collect();
    store.commit(&Batch { puts: vec![(b"light/lamp-000200/on".to_vec(), vec![1; 7])], deletes }).unwrap();
    let counted = store.size().live_bytes;
    assert!(counted > 400 * 200, "{counted}");
    drop(store);
    assert_eq!(open_clean(folder.path()).size().live_bytes, counted, "as a scan counts them");
}

#[test]
fn a_running_store_is_written_anew_between_two_commits() {
    let folder = Folder::new();
    let mut store = open_clean(folder.path());
    store.commit(&sample(0..5_000)).unwrap();
    assert_eq!(store.rebuild_if_grown(&mut || ()).unwrap(), None, "it has not grown");
    let (mut beats, mut later) = (0, 0);
    store
        .rebuild(&mut || {
            beats += 1;
            later += u32::from(folder.join("store.old").exists());
        })
        .unwrap();
    assert!(beats >= 5_000, "{beats} signs of life");
    assert!(later >= 2, "none while the fresh store is looked through and opened");
    store.commit(&sample(5_000..6_000)).unwrap();
    store.rest().unwrap();
    assert_eq!(records_of(&mut store).len(), 6_000);
    drop(store);
    assert_eq!(open_clean(folder.path()).len(), 6_000);
    assert_eq!(files(folder.path()), ["store", "store.mark"]);
}

#[test]
fn without_room_it_stays_as_it_is_and_works() {
    let disk = Tmpfs::new("96m");
    let (grown, records) = grown();
    copy(grown.path(), disk.path());
    let room = crate::store::free_bytes(disk.path()).unwrap();
    fs::write(disk.path().join("filler"), vec![0; usize::try_from(room - (4 << 19)).unwrap()]).unwrap();
    let mut store = open_clean(disk.path());
    assert_eq!(store.size().rebuilt, None);
    let error = store.rebuild_if_grown(&mut || ()).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert_eq!(records_of(&mut store), records);
    fs::remove_file(disk.path().join("filler")).unwrap();
    store.commit(&sample(0..10)).unwrap();
    assert!(store.rebuild_if_grown(&mut || ()).unwrap().is_some());
}

/// What a power cut may leave at each step of it.
#[test]
fn a_rebuild_that_was_interrupted_anywhere_loses_nothing_and_leaves_nothing() {
    let original = Original::new();
    let fresh = {
        let folder = Folder::new();
        copy(original.folder.path(), folder.path());
        let mut store = open_clean(folder.path());
        store.rebuild(&mut || ()).unwrap();
        drop(store);
        folder
    };
    type Cut<'a> = (&'a str, &'a dyn Fn(&Path));
    let cuts: [Cut<'_>; 5] = [
        ("nothing is written yet", &|root| fs::create_dir(root.join("store.rebuild")).unwrap()),
        ("part of it is written", &|root| {
            copy(&fresh.join("store"), &root.join("store.rebuild"));
            let log = fs::OpenOptions::new().write(true).open(root.join("store.rebuild/db")).unwrap();
            log.set_len(100_000).unwrap();
        }),
        ("between the renames", &|root| {
            copy(&fresh.join("store"), &root.join("store.rebuild"));
            fs::rename(root.join("store"), root.join("store.old")).unwrap();
        }),
        ("after the renames", &|root| {
            fs::rename(root.join("store"), root.join("store.old")).unwrap();
            copy(&fresh.join("store"), &root.join("store"));
        }),
        ("part of the old one is removed", &|root| {
            fs::rename(root.join("store"), root.join("store.old")).unwrap();
            fs::remove_file(root.join("store.old/db")).unwrap();
            copy(&fresh.join("store"), &root.join("store"));
        }),
    ];
    for (what, cut) in cuts {
        let folder = Folder::new();
        copy(original.folder.path(), folder.path());
        cut(folder.path());
        let mut store = open_clean(folder.path());
        assert_eq!(records_of(&mut store), original.records, "{what}");
        drop(store);
        assert_eq!(files(folder.path()), ["store", "store.mark"], "{what}");
    }
}
