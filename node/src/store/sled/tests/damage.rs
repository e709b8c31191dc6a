//! Flipped, missing and unreadable bytes, wherever they lie.
use super::*;

/// A segment of sled holds about 2,000 of these records; a page at most 17.
const NEAR: u64 = 40;

/// Flips one byte and checks that this costs no more than the records near it.
fn flip(original: &Original, file: &Path, at: usize, bit: u8) -> Recovery {
    let what = format!("{} flipped at {at}", file.display());
    let outcome = original.after(&what, |root| {
        let mut bytes = fs::read(root.join(file)).unwrap();
        bytes[at] ^= bit;
        fs::write(root.join(file), bytes).unwrap();
    });
    match outcome {
        Recovery::Clean | Recovery::SnapshotRebuilt => {}
        Recovery::Salvaged { kept, lost } => {
            assert!(file.ends_with("db"), "{what}: damage outside of the log costs no record: {outcome}");
            assert!(kept + NEAR >= 2400 && lost <= NEAR, "{what}: {outcome}");
        }
        Recovery::FromExport { .. } | Recovery::Empty => panic!("{what}: {outcome}"),
    }
    outcome
}

#[test]
fn a_flipped_byte_anywhere_in_any_file_costs_only_the_records_near_it() {
    for original in [Original::new(), Original::never_reopened()] {
        let mut noticed = 0;
        for file in original.files() {
            let bytes = fs::metadata(original.folder.path().join(&file)).unwrap().len();
            for at in offsets(usize::try_from(bytes).unwrap(), 24) {
                noticed += u32::from(flip(&original, &file, at, 0x20) != Recovery::Clean);
            }
        }
        assert!(noticed > 0, "some damage was noticed");
        // Whether a flip costs a record depends on what lies there; half of the log costs some in any case.
        let cut = original.after("half of the log", |root| {
            let log = root.join(STORE_FOLDER).join("db");
            let bytes = fs::metadata(&log).unwrap().len();
            fs::OpenOptions::new().write(true).open(log).unwrap().set_len(bytes / 2).unwrap();
        });
        assert!(cut.may_have_lost_writes(), "half of the log was taken for the whole: {cut}");
    }
}

#[test]
fn blocks_that_the_disk_cannot_give_back_cost_only_the_records_in_them() {
    const BLOCK: u64 = 4096;
    const SEGMENT: u64 = 512 * 1024;
    let original = Original::never_reopened();
    let bytes = fs::metadata(original.folder.join("store/db")).unwrap().len();
    assert!(bytes > SEGMENT, "a segment that counts is not the first");
    let mut noticed = 0;
    for segment in 0..bytes.div_ceil(SEGMENT) {
        for block in [0, 1, 60] {
            let from = segment * SEGMENT + block * BLOCK;
            let what = format!("no read from {from}");
            let outcome = original.after(&what, |root| {
                log::faults::break_log(&root.join(STORE_FOLDER), from..from + BLOCK);
            });
            match outcome {
                Recovery::Clean | Recovery::SnapshotRebuilt => {}
                // A block holds parts of some twenty records.
                Recovery::Salvaged { kept, .. } => assert!(kept + 2 * NEAR >= 2400, "{what}: {outcome}"),
                Recovery::FromExport { .. } | Recovery::Empty => panic!("{what}: {outcome}"),
            }
            noticed += u32::from(outcome != Recovery::Clean);
        }
    }
    assert!(noticed > 0, "some blocks were missed");
    // What a block costs depends on what the engine put there; half of them cost some in any case.
    let half = original.after("no read from the second half", |root| {
        log::faults::break_log(&root.join(STORE_FOLDER), bytes / 2..bytes);
    });
    assert!(half.may_have_lost_writes(), "half of the log was taken for the whole: {half}");
    let outcome = original.after("nothing of the log reads", |root| {
        log::faults::break_log(&root.join(STORE_FOLDER), 0..bytes);
    });
    assert_eq!(outcome, Recovery::Empty);
}

/// `HEARTH_FLIPS` flips at random places, from the seed `HEARTH_SEED`; hundreds take minutes.
#[test]
fn many_flipped_bytes_cost_only_the_records_near_them() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let mut random = blake3::Hasher::new().update(&number("HEARTH_SEED", 1).to_le_bytes()).finalize_xof();
    let mut next = |below: u64| {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % below
    };
    for original in [Original::new(), Original::never_reopened()] {
        let files = original.files();
        for _ in 0..number("HEARTH_FLIPS", 40) / 2 {
            let db = files.iter().find(|file| file.ends_with("db")).unwrap();
            let file =
                if next(4) > 0 { db } else { &files[usize::try_from(next(files.len() as u64)).unwrap()] };
            let bytes = fs::metadata(original.folder.path().join(file)).unwrap().len();
            let at = usize::try_from(next(bytes)).unwrap();
            flip(&original, file, at, 1 << next(8));
        }
    }
}

#[test]
fn what_sled_alone_would_lose_without_its_snapshot_is_read_from_the_log() {
    let folder = Folder::new();
    let mut model = MemoryStore::new();
    let mut lost_by_sled = 0;
    for n in 0..40_u8 {
        let mut store = open_clean(folder.path());
        // The same keys again and again, so that the older segments hold nothing that counts.
        for round in 0..3 {
            let bytes = |key| if key % 8 == round { 4000 } else { 60 };
            let puts = (0..40_u8).map(|key| (vec![key], vec![n; bytes(key)])).collect();
            let batch = Batch { puts, deletes: vec![] };
            store.commit(&batch).unwrap();
            model.commit(&batch).unwrap();
        }
        drop(store);

        let (alone, ours) = (Folder::new(), Folder::new());
        copy(folder.path(), alone.path());
        copy(folder.path(), ours.path());
        remove_snapshots(alone.path());
        remove_snapshots(ours.path());
        let found = guard::catch_panic(|| {
            let db = attempt::open_engine(&alone.join(STORE_FOLDER), &SledOptions::default()).unwrap();
            record::scan(&db, &mut |_, _| ()).found.records
        });
        lost_by_sled += u32::from(found != Ok(40));
        assert_eq!(&read_log(ours.path()), model.records(), "{n}, read without sled");
        let (mut store, report) = open(ours.path());
        let expected = if found == Ok(40) { Recovery::Clean } else { Recovery::SnapshotRebuilt };
        assert_eq!(report.outcome, expected, "{n}: sled alone {found:?}, {report:?}");
        assert_eq!(&records_of(&mut store), model.records(), "{n}");
    }
    assert!(lost_by_sled > 0, "sled alone did well each time: this test shows nothing");
}

#[test]
fn a_tail_cut_off_any_file_loses_nothing_silently() {
    let original = Original::new();
    for file in original.files() {
        let bytes = fs::metadata(original.folder.path().join(&file)).unwrap().len();
        for keep in [0, 1, bytes / 4, bytes / 2, bytes - bytes / 8, bytes - 1] {
            original.after(&format!("{} cut to {keep} of {bytes}", file.display()), |root| {
                fs::OpenOptions::new().write(true).open(root.join(&file)).unwrap().set_len(keep).unwrap();
            });
        }
    }
}

#[test]
fn a_log_that_ends_too_early_holds_whole_commits() {
    let folder = Folder::new();
    let mut store = open_clean(folder.path());
    let mut model = MemoryStore::new();
    let mut states = vec![model.records().clone()];
    for n in 0..40 {
        let batch = Batch {
            deletes: sample(n * 10..n * 10 + 5).puts.into_iter().map(|(key, _)| key).collect(),
            // More than the journal takes.
            ..sample(n * 10 + 10..n * 10 + 210)
        };
        store.commit(&batch).unwrap();
        model.commit(&batch).unwrap();
        states.push(model.records().clone());
    }
    drop(store);
    // As a power cut leaves it: the mark is older than the log.
    fs::remove_file(folder.join(MARK_FILE)).unwrap();
    let bytes = fs::read(folder.join("store/db")).unwrap();
    let mut fewest = states.len();
    for at in offsets(bytes.len(), 60).into_iter().filter(|at| *at > 0) {
        let torn = Folder::new();
        copy(folder.path(), torn.path());
        let zeros = vec![0; bytes.len() - at];
        fs::write(torn.join("store/db"), [&bytes[..at], &zeros].concat()).unwrap();
        let (mut store, report) = open(torn.path());
        assert_eq!(report.outcome, Recovery::Clean, "zeros from {at}");
        let found = records_of(&mut store);
        let state = states.iter().position(|state| *state == found);
        fewest = fewest.min(state.unwrap_or_else(|| panic!("zeros from {at}: part of a commit")));
    }
    assert!(fewest < 5, "some commits were cut off");
}

#[test]
fn a_missing_file_or_folder_loses_nothing_silently() {
    let original = Original::new();
    for file in original.files() {
        let outcome = original.after(&format!("{} missing", file.display()), |root| {
            fs::remove_file(root.join(&file)).unwrap();
        });
        // What was in a journal nobody can know.
        let is_needed = file.ends_with("db") || file.ends_with("journal");
        assert_eq!(outcome.may_have_lost_writes(), is_needed, "{}: {outcome}", file.display());
    }
    let outcome =
        original.after("store missing", |root| fs::remove_dir_all(root.join(STORE_FOLDER)).unwrap());
    assert_eq!(outcome, Recovery::Empty);
}

#[test]
fn an_empty_or_partial_snapshot_that_was_not_finished_is_no_obstacle() {
    let original = Original::new();
    for content in [&b""[..], b"half", &[0; 40]] {
        let outcome = original.after("snap.*.generating", |root| {
            fs::write(root.join(STORE_FOLDER).join("snap.00000000FFFFFFFF.generating"), content).unwrap();
        });
        assert_eq!(outcome, Recovery::Clean);
    }
}
