//! What is in the journal when the power goes, and what damage to it costs.
use super::journal::JOURNAL_FILE;
use super::*;

fn put(key: &str, value: impl Into<Vec<u8>>) -> Batch {
    Batch { puts: vec![(key.into(), value.into())], deletes: vec![] }
}

/// More than the journal takes.
fn large() -> Batch {
    sample(0..200)
}

/// A store with records in sled and so many changes in the journal over them: each third one deletes, adds to
/// or writes over what sled has.
fn journaled(changes: usize) -> (Folder, SledStore, MemoryStore) {
    let folder = Folder::new();
    let (mut store, mut model) = (open_clean(folder.path()), MemoryStore::new());
    let changes = (0..changes).map(|n| match n % 3 {
        0 => Batch { puts: vec![], deletes: vec![format!("light/lamp-{n:06}/on").into_bytes()] },
        1 => put(&format!("light/lamp-{n:06}/on"), vec![1; 2_000]),
        _ => put(&format!("note/{n:06}"), "new"),
    });
    for batch in [large()].into_iter().chain(changes) {
        store.commit(&batch).unwrap();
        model.commit(&batch).unwrap();
    }
    (folder, store, model)
}

/// What is on the disk when the power goes now.
fn killed(folder: &Folder) -> Folder {
    let left = Folder::new();
    copy(folder.path(), left.path());
    left
}

fn db(folder: &Folder) -> Vec<u8> {
    fs::read(folder.join("store/db")).unwrap()
}

fn damage_journal(folder: &Folder, damage: impl FnOnce(&mut Vec<u8>)) {
    let file = folder.join(STORE_FOLDER).join(JOURNAL_FILE);
    let mut bytes = fs::read(&file).unwrap();
    damage(&mut bytes);
    fs::write(file, bytes).unwrap();
}

/// Offsets of the blocks in which entries begin.
fn entries(folder: &Folder) -> Vec<usize> {
    let bytes = fs::read(folder.join(STORE_FOLDER).join(JOURNAL_FILE)).unwrap();
    (32 << 10..bytes.len()).step_by(512).filter(|at| bytes[*at] == 1).collect()
}

#[test]
fn small_changes_leave_sled_alone_until_the_store_is_closed() {
    let (folder, mut store, mut model) = journaled(0);
    let before = db(&folder);
    for batch in (0..30).map(|n| put(&format!("note/{n}"), "text")) {
        store.commit(&batch).unwrap();
        model.commit(&batch).unwrap();
        assert_eq!(store.len(), model.records().len() as u64);
    }
    assert!(db(&folder) == before, "sled wrote");
    assert_eq!(&records_of(&mut store), model.records(), "what is pending is read with the rest");
    store.close().unwrap();
    assert_eq!(&read_log(folder.path()), model.records());
}

#[test]
fn a_power_cut_after_any_commit_costs_nothing() {
    let (folder, mut store, mut model) = journaled(0);
    // The journal is full and begins anew more than once; large batches go past it.
    for n in 0..1_300 {
        let batch =
            if n % 400 == 399 { large() } else { put(&format!("note/{:03}", n % 150), vec![7; n % 900]) };
        store.commit(&batch).unwrap();
        model.commit(&batch).unwrap();
        if n % 47 == 0 || n % 400 > 397 {
            let left = killed(&folder);
            assert_eq!(&records_of(&mut open_clean(left.path())), model.records(), "after {n}");
            assert_eq!(&records_of(&mut open_clean(left.path())), model.records(), "after {n}, once more");
        }
    }
}

#[test]
fn whoever_loads_a_store_gets_the_newest_of_each_record_once_and_in_order() {
    #[derive(Default)]
    struct Taken(Vec<(Vec<u8>, Vec<u8>)>);
    impl Sink for Taken {
        fn take(&mut self, key: &[u8], value: &[u8]) {
            self.0.push((key.to_vec(), value.to_vec()));
        }
    }
    let (folder, mut store, model) = journaled(90);
    let expected: Vec<_> = model.records().clone().into_iter().collect();
    let (_, Taken(taken), report) =
        SledStore::open_into::<Taken>(killed(&folder).path(), SledOptions::default()).unwrap();
    assert_eq!((taken, report.outcome), (expected.clone(), Recovery::Clean));
    let mut loaded = Vec::new();
    store.load(&mut |key, value| loaded.push((key.to_vec(), value.to_vec()))).unwrap();
    assert_eq!(loaded, expected);
}

#[test]
fn a_torn_entry_was_acknowledged_to_nobody_and_takes_none_with_it() {
    let (folder, mut store, model) = journaled(9);
    store.commit(&put("note/torn", vec![5; 2_000])).unwrap();
    let last = *entries(&folder).last().unwrap();
    for torn in 0..4 {
        let left = killed(&folder);
        damage_journal(&left, |bytes| bytes[last + torn * 512..last + (torn + 1) * 512].fill(0));
        let mut store = open_clean(left.path());
        assert_eq!(&records_of(&mut store), model.records(), "block {torn} was not written");
        store.commit(&put("note/next", "text")).unwrap();
        let again = killed(&left);
        drop(store);
        assert_eq!(records_of(&mut open_clean(again.path())).len(), model.records().len() + 1);
    }
}

/// Opens what is left, which lost writes; what it holds.
fn open_lossy(left: &Folder) -> Records {
    let (mut store, report) = open(left.path());
    assert!(report.may_have_lost_writes(), "{report:?}");
    assert!(report.steps.iter().any(|step| step.contains("journal")), "{:?}", report.steps);
    assert_eq!(restored::mark(left.path()).unwrap(), Some(None), "it is never merged");
    let found = records_of(&mut store);
    assert_eq!(report.outcome, Recovery::Salvaged { kept: found.len() as u64, lost: 1 });
    store.commit(&put("note/next", "text")).unwrap();
    let again = killed(left);
    drop(store);
    for left in [left, &again] {
        assert_eq!(records_of(&mut open_clean(left.path())).len(), found.len() + 1, "whole afterwards");
    }
    found
}

#[test]
fn an_entry_that_does_not_read_before_others_is_told_and_the_others_count() {
    let (folder, _store, model) = journaled(30);
    for (number, at) in entries(&folder).into_iter().enumerate().take(29).step_by(7) {
        let left = killed(&folder);
        damage_journal(&left, |bytes| bytes[at + 20] ^= 0x20);
        let found = open_lossy(&left);
        let differ = |key: &Vec<u8>| found.get(key) != model.records().get(key);
        let keys = found.keys().chain(model.records().keys());
        let different: std::collections::BTreeSet<_> = keys.filter(|key| differ(key)).collect();
        assert_eq!(different.len(), 1, "entry {number}");
    }
}

#[test]
fn a_journal_that_is_gone_cut_or_cannot_be_read_is_told() {
    let (folder, store, _) = journaled(30);
    let damages: [fn(&Path); 5] = [
        |file| fs::write(file, [0; 256 << 10]).unwrap(),
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, b"").unwrap(),
        |file| fs::OpenOptions::new().write(true).open(file).unwrap().set_len(4_096).unwrap(),
        crate::store::tests::spoil,
    ];
    for damage in damages {
        let left = killed(&folder);
        damage(&left.join(STORE_FOLDER).join(JOURNAL_FILE));
        open_lossy(&left);
    }
    drop(store);
}

#[test]
fn what_a_new_store_has_in_its_journal_alone_is_missed_as_well() {
    let folder = Folder::new();
    let mut store = open_clean(folder.path());
    store.commit(&put("note/first", "text")).unwrap();
    let left = killed(&folder);
    assert_eq!(records_of(&mut open_clean(left.path())).len(), 1);
    let left = killed(&folder);
    fs::remove_file(left.join(STORE_FOLDER).join(JOURNAL_FILE)).unwrap();
    open_lossy(&left);
}

#[test]
fn the_newest_entries_are_missed_when_the_journal_vouches_for_them() {
    let (folder, mut store, model) = journaled(30);
    store.rest().unwrap();
    let at_rest = fs::read(folder.join(STORE_FOLDER).join(JOURNAL_FILE)).unwrap();
    store.rest().unwrap();
    assert!(fs::read(folder.join(STORE_FOLDER).join(JOURNAL_FILE)).unwrap() == at_rest, "once is enough");
    store.commit(&put("note/unvouched", "text")).unwrap();
    let last = entries(&folder);
    for (lost, from) in [(0, last[30]), (1, last[29])] {
        let left = killed(&folder);
        damage_journal(&left, |bytes| bytes[from..].fill(0));
        if lost == 0 {
            assert_eq!(&records_of(&mut open_clean(left.path())), model.records());
        } else {
            assert_eq!(open_lossy(&left).len(), model.records().len() - 1);
        }
    }
}

/// The store in `root`, closed, as it was before there was a journal.
fn without_journal(root: &Path) {
    let db = opening_of(root);
    let tally = record::stored_tally(&db).unwrap().unwrap();
    let without = record::Tally { journaled: false, ..tally };
    db.insert(record::own_key(), record::seal(record::own_key(), &without.encode())).unwrap();
    db.flush().unwrap();
    let _absent = fs::remove_file(root.join(STORE_FOLDER).join(JOURNAL_FILE));
}

fn opening_of(root: &Path) -> ::sled::Db {
    attempt::open_engine(&root.join(STORE_FOLDER), &SledOptions::default()).unwrap()
}

#[test]
fn a_store_of_before_the_journal_takes_one_into_use_and_misses_none() {
    let (folder, store, model) = journaled(30);
    drop(store);
    without_journal(folder.path());
    // The power goes while the journal is made.
    let partial: [fn(&Path); 3] =
        [|_| (), |file| fs::write(file, b"").unwrap(), |file| fs::write(file, [0; 5_000]).unwrap()];
    for made in partial {
        let left = killed(&folder);
        made(&left.join(STORE_FOLDER).join(JOURNAL_FILE));
        let mut store = open_clean(left.path());
        assert_eq!(&records_of(&mut store), model.records());
        store.commit(&put("note/next", "text")).unwrap();
        let again = killed(&left);
        assert_eq!(records_of(&mut open_clean(again.path())).len(), model.records().len() + 1);
    }
}

#[test]
fn the_journal_tells_that_the_last_commits_of_sled_are_missing() {
    let (folder, mut store, _) = journaled(0);
    let older = db(&folder);
    store.commit(&sample(200..400)).unwrap();
    store.commit(&put("note/newest", "text")).unwrap();
    let left = killed(&folder);
    fs::write(left.join("store/db"), older).unwrap();
    let _none_yet = fs::remove_file(left.join(MARK_FILE));
    let (mut store, report) = open(left.path());
    assert!(report.may_have_lost_writes(), "{report:?}");
    let found = records_of(&mut store);
    assert_eq!((found.len(), found.contains_key(&b"note/newest"[..])), (201, true));
}

#[test]
fn a_store_that_only_sled_cannot_read_is_whole_with_its_journal() {
    let (folder, mut model, mut rebuilt) = (Folder::new(), MemoryStore::new(), 0);
    for n in 0..40_u8 {
        // The same keys again and again, so that the older segments hold nothing that counts.
        for round in 0..3 {
            let bytes = |key| if key % 8 == round { 4_000 } else { 60 };
            let puts = (0..40_u8).map(|key| (vec![key], vec![n; bytes(key)])).collect();
            let batch = Batch { puts, deletes: vec![] };
            // Closed each time, so that sled has it.
            open_clean(folder.path()).commit(&batch).unwrap();
            model.commit(&batch).unwrap();
        }
        let mut store = open_clean(folder.path());
        for batch in [put("pending", vec![n]), Batch { puts: vec![], deletes: vec![vec![n % 40]] }] {
            store.commit(&batch).unwrap();
            model.commit(&batch).unwrap();
        }
        let left = killed(&folder);
        remove_snapshots(left.path());
        let (mut store, report) = open(left.path());
        assert!(!report.may_have_lost_writes(), "{n}: {report:?}");
        rebuilt += u32::from(report.outcome == Recovery::SnapshotRebuilt);
        assert_eq!(&records_of(&mut store), model.records(), "{n}: {report:?}");
    }
    assert!(rebuilt > 0, "sled alone did well each time: this test shows nothing");
}

#[test]
fn a_repair_of_sled_keeps_what_the_journal_holds() {
    let (folder, _store, model) = journaled(30);
    let left = killed(&folder);
    fs::OpenOptions::new().write(true).open(left.join("store/db")).unwrap().set_len(1_000).unwrap();
    let (mut store, report) = open(left.path());
    assert!(report.may_have_lost_writes(), "{report:?}");
    let found = records_of(&mut store);
    let of_journal = |(key, value): &(&Vec<u8>, &Vec<u8>)| key.starts_with(b"note/") || value.len() == 2_000;
    let kept: Records =
        model.records().iter().filter(of_journal).map(|(k, v)| (k.clone(), v.clone())).collect();
    assert!(kept.len() == 20 && kept.iter().all(|(key, value)| found.get(key) == Some(value)));
    assert!(
        found.iter().all(|(key, value)| model.records().get(key) == Some(value)),
        "what was deleted is back"
    );
    assert!(found.len() < 100, "the damage to sled was none");
    drop(store);
    assert_eq!(records_of(&mut open_clean(left.path())), found, "and afterwards");
}

/// The next `fdatasync` of sled's log fails.
fn fail_sync(store: &mut SledStore) {
    store.engine.as_mut().unwrap().log = fs::File::open("/proc/self/mem").unwrap();
}

#[test]
fn a_batch_whose_sync_failed_is_there_whole_or_not_at_all_and_so_is_what_was_pending() {
    let something_else: [fn(&mut SledStore); 2] =
        [|store| drop(records_of(store)), |store| assert!(store.rebuild(&mut || ()).unwrap().to_bytes > 0)];
    something_else.into_iter().for_each(whole_or_not_at_all);
}

fn whole_or_not_at_all(next: fn(&mut SledStore)) {
    let (folder, mut store, _) = journaled(0);
    store.commit(&put("note/a", "old")).unwrap();
    store.commit(&put("note/kept", "text")).unwrap();
    fail_sync(&mut store);
    let mut failed = sample(200..400);
    failed.puts.push((b"note/a".to_vec(), b"new".to_vec()));
    store.commit(&failed).unwrap_err();
    let check = |left: &Folder| {
        let found = records_of(&mut open_clean(left.path()));
        assert!(found.contains_key(&b"note/kept"[..]));
        let is_in = found[&b"note/a"[..]] == b"new";
        assert_eq!(found.len(), if is_in { 402 } else { 202 });
    };
    check(&killed(&folder));
    // Something else comes before the batch is committed again.
    next(&mut store);
    assert!(folder.join("store.damaged-1").exists(), "the doubtful files are not used further");
    check(&killed(&folder));
    store.commit(&failed).unwrap();
    drop(store);
    assert_eq!(records_of(&mut open_clean(folder.path())).len(), 402);
}

#[test]
fn a_write_that_the_disk_refused_leaves_doubt_and_a_full_disk_none() {
    let failed = |kind: std::io::Error| Failed::new(StoreError::io("write", Path::new("db"), kind));
    assert!(matches!(failed(std::io::Error::from_raw_os_error(5)), Failed::Sync(_)));
    for full in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded] {
        assert!(matches!(failed(full.into()), Failed::Write(_)));
    }
}

#[test]
fn what_is_in_doubt_when_the_store_is_closed_is_written_anew_before() {
    for commits_more in [false, true] {
        let (folder, mut store, model) = journaled(30);
        fail_sync(&mut store);
        if commits_more {
            store.commit(&large()).unwrap_err();
        }
        store.close().unwrap();
        assert!(folder.join("store.damaged-1").exists());
        let found = records_of(&mut open_clean(folder.path()));
        assert!(commits_more || &found == model.records());
        assert!(model.records().keys().all(|key| found.contains_key(key)));
    }
}

#[test]
fn the_export_is_taken_when_sled_gave_nothing_whatever_the_journal_holds() {
    let (folder, mut store, model) = journaled(0);
    export::write_next(&mut store, &folder.join(EXPORT_FOLDER), SystemTime::now(), &mut || ()).unwrap();
    store.commit(&put("note/newest", "text")).unwrap();
    let left = killed(&folder);
    fs::write(left.join("store/db"), b"").unwrap();
    fs::write(left.join(MARK_FILE), b"rot").unwrap();
    let (mut store, report) = open(left.path());
    assert!(matches!(report.outcome, Recovery::FromExport { .. }), "{report:?}");
    let found = records_of(&mut store);
    assert_eq!((found.len(), found.contains_key(&b"note/newest"[..])), (model.records().len() + 1, true));
}

#[test]
fn a_store_that_is_written_anew_holds_what_was_pending() {
    let doubt: fn(&mut SledStore) = |store| {
        fail_sync(store);
        store.commit(&sample(200..400)).unwrap_err();
        store.commit(&sample(200..400)).unwrap();
    };
    let anew: fn(&mut SledStore) = |store| {
        store.rebuild(&mut || ()).unwrap();
        store.commit(&sample(200..400)).unwrap();
    };
    for rewrite in [doubt, anew] {
        let (folder, mut store, mut model) = journaled(30);
        rewrite(&mut store);
        model.commit(&sample(200..400)).unwrap();
        assert_eq!(&records_of(&mut open_clean(killed(&folder).path())), model.records());
        assert_eq!(&records_of(&mut store), model.records());
        drop(store);
        assert_eq!(&records_of(&mut open_clean(folder.path())), model.records());
    }
}

#[test]
fn a_journal_that_fails_is_done_without() {
    let (folder, mut store, mut model) = journaled(30);
    store.journal.as_mut().unwrap().fail();
    for batch in (0..3).map(|n| put(&format!("note/{n}"), "text")) {
        let before = db(&folder);
        store.commit(&batch).unwrap();
        model.commit(&batch).unwrap();
        assert!(db(&folder) != before, "sled takes it in at once");
        assert_eq!(&records_of(&mut open_clean(killed(&folder).path())), model.records());
    }
    assert!(store.journal.is_none());
    drop(store);
    // Its blocks are not trusted again, whatever they give back at the next start but one.
    let file = folder.join(STORE_FOLDER).join(JOURNAL_FILE);
    crate::store::tests::spoil(&file);
    drop(open_clean(folder.path()));
    assert!(fs::symlink_metadata(&file).unwrap().is_file(), "it was made anew");
    assert_eq!(&records_of(&mut open_clean(folder.path())), model.records());
}

#[test]
fn a_journal_that_cannot_vouch_is_done_without() {
    let (folder, mut store, model) = journaled(30);
    store.journal.as_mut().unwrap().fail();
    store.rest().unwrap();
    assert!(store.journal.is_none());
    fs::remove_file(folder.join(STORE_FOLDER).join(JOURNAL_FILE)).unwrap();
    assert_eq!(&records_of(&mut open_clean(killed(&folder).path())), model.records());
}

#[test]
fn a_full_disk_leaves_in_the_journal_what_sled_has_no_room_for() {
    let disk = Tmpfs::new("16m");
    let mut store = open_clean(disk.path());
    store.commit(&large()).unwrap();
    store.commit(&put("note/a", "text")).unwrap();
    let filler = disk.path().join("filler");
    let _until_full = fs::write(&filler, vec![0; 32 << 20]);
    assert!(matches!(store.commit(&put("note/b", "text")), Err(StoreError::DiskFull { .. })));
    let before = fs::read(disk.path().join("store/db")).unwrap();
    let _the_mark_has_no_room_either = store.close();
    drop(store);
    assert!(fs::read(disk.path().join("store/db")).unwrap() == before, "sled was let at a full disk");
    fs::remove_file(&filler).unwrap();
    let found = records_of(&mut open_clean(disk.path()));
    assert_eq!((found.len(), found.contains_key(&b"note/a"[..])), (201, true));
}

#[test]
fn a_backup_takes_the_place_of_the_journal_too_and_both_come_back() {
    let (folder, mut store, model) = journaled(30);
    let export =
        export::write_next(&mut store, &folder.join(EXPORT_FOLDER), SystemTime::now(), &mut || ()).unwrap();
    store.commit(&put("note/later", "text")).unwrap();
    let left = killed(&folder);
    let restored = replace_by_export(left.path(), &SledOptions::default(), &export.path, &mut || ()).unwrap();
    assert_eq!(restored, model.records().len() as u64);
    assert_eq!(&records_of(&mut open_clean(left.path())), model.records(), "as it was when it was written");
    fs::remove_dir_all(left.join(STORE_FOLDER)).unwrap();
    let _not_written_yet = fs::remove_file(left.join(MARK_FILE));
    fs::rename(left.join(REPLACED_FOLDER), left.join(STORE_FOLDER)).unwrap();
    assert_eq!(records_of(&mut open_clean(left.path())).len(), model.records().len() + 1);
}
