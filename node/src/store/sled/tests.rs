#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use crate::store::memory::MemoryStore;
use crate::store::tests::{Folder, Tmpfs, records_of, sample};
use crate::store::{Recovery, export, restored};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Instant, SystemTime};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(root: &Path) -> (SledStore, RecoveryReport) {
    SledStore::open(root, SledOptions::default()).unwrap()
}

fn open_clean(root: &Path) -> SledStore {
    let (store, report) = open(root);
    assert_eq!(report, RecoveryReport { outcome: Recovery::Clean, steps: vec![] });
    store
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// A closed store of 2,500 records, written in batches, partly written over and deleted again.
struct Original {
    folder: Folder,
    records: Records,
    /// Every record that was ever written.
    written: Records,
}

impl Original {
    /// With its snapshot.
    fn new() -> Self {
        let original = Self::never_reopened();
        open_clean(original.folder.path()).close().unwrap();
        original
    }

    /// Without: sled writes it when it opens a store that has records.
    fn never_reopened() -> Self {
        let folder = Folder::new();
        let mut store = open_clean(folder.path());
        for n in 0..10 {
            store.commit(&sample(n * 250..(n + 1) * 250)).unwrap();
        }
        let deletes = (0..100).map(|n| format!("light/lamp-{n:06}/on").into_bytes()).collect();
        store.commit(&Batch { puts: sample(1000..1200).puts, deletes }).unwrap();
        let records = records_of(&mut store);
        assert_eq!((records.len(), store.len()), (2400, 2400));
        store.close().unwrap();
        drop(store);
        Self { folder, records, written: sample(0..2500).puts.into_iter().collect() }
    }

    /// Opens a copy that `damage` was done to, and checks what must hold for any damage at all.
    fn after(&self, what: &str, damage: impl FnOnce(&Path)) -> Recovery {
        let copied = Folder::new();
        copy(self.folder.path(), copied.path());
        damage(copied.path());
        let started = Instant::now();
        let (mut store, report) = open(copied.path());
        assert!(started.elapsed() < Duration::from_secs(30), "{what}: hangs");
        let found = records_of(&mut store);
        for (key, value) in &found {
            assert_eq!(Some(value), self.written.get(key), "{what}: a value that nobody wrote");
        }
        if !report.may_have_lost_writes() {
            assert!(
                found == self.records,
                "{what}: {} records lost without a word",
                self.records.len() - found.len()
            );
        } else {
            assert!(!report.steps.is_empty(), "{what}: no word about {}", report.outcome);
        }
        if let Recovery::Salvaged { kept, lost } = report.outcome {
            assert_eq!(kept, found.len() as u64, "{what}");
            assert!(lost >= 1, "{what}");
        }
        store.commit(&sample(9_000..9_001)).unwrap();
        drop(store);
        // A block that did not count may count from now on.
        log::faults::mend(&copied.join(STORE_FOLDER));
        assert_eq!(
            records_of(&mut open_clean(copied.path())).len(),
            found.len() + 1,
            "{what}: whole afterwards"
        );
        report.outcome
    }

    fn files(&self) -> Vec<PathBuf> {
        let inner = fs::read_dir(self.folder.join(STORE_FOLDER)).unwrap();
        let inner = inner.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let mut files: Vec<PathBuf> = inner.chain([self.folder.join(MARK_FILE)]).collect();
        files.sort();
        files.into_iter().map(|path| path.strip_prefix(self.folder.path()).unwrap().to_path_buf()).collect()
    }
}

/// About `count` offsets spread over a file of `bytes`, the first and last among them.
fn offsets(bytes: usize, count: usize) -> Vec<usize> {
    let step = (bytes / count).max(1);
    let mut offsets: Vec<usize> = (0..bytes).step_by(step).collect();
    offsets.extend([bytes - 1]);
    offsets
}

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
    let mut outcomes = BTreeMap::new();
    for original in [Original::new(), Original::never_reopened()] {
        let files = original.files();
        for _ in 0..number("HEARTH_FLIPS", 40) / 2 {
            let db = files.iter().find(|file| file.ends_with("db")).unwrap();
            let file =
                if next(4) > 0 { db } else { &files[usize::try_from(next(files.len() as u64)).unwrap()] };
            let bytes = fs::metadata(original.folder.path().join(file)).unwrap().len();
            let at = usize::try_from(next(bytes)).unwrap();
            let outcome = flip(&original, file, at, 1 << next(8));
            let name =
                outcome.to_string().replace(char::is_numeric, "").split(';').next().unwrap().to_string();
            *outcomes.entry((file.clone(), name)).or_insert(0) += 1;
        }
    }
    println!("{outcomes:#?}");
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
        let found = opening::catch_panic(|| {
            let db = opening::open_engine(&alone.join(STORE_FOLDER), &SledOptions::default()).unwrap();
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

fn remove_snapshots(root: &Path) {
    for entry in fs::read_dir(root.join(STORE_FOLDER)).unwrap().flatten() {
        if entry.file_name().to_str().unwrap().starts_with("snap.") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// What the log of a closed store says without sled.
fn read_log(root: &Path) -> Records {
    let log = log::Log::open(&root.join(STORE_FOLDER)).unwrap().unwrap();
    let replay = pages::Replay::new(log).unwrap();
    let end = replay.ends()[0];
    let mut records = Records::new();
    let scan = replay
        .records(end, &mut |key, value| {
            assert!(records.insert(key.to_vec(), value.to_vec()).is_none(), "a key twice");
        })
        .unwrap();
    assert_eq!(scan.problem(scan.stored.unwrap_or_default()), None);
    records
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
            ..sample(n * 10 + 10..n * 10 + 60)
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
        assert_eq!(outcome.may_have_lost_writes(), file.ends_with("db"), "{}: {outcome}", file.display());
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

#[test]
fn the_last_export_is_used_when_it_holds_more_than_could_be_saved() {
    let original = Original::new();
    let exported = {
        let mut store = open_clean(original.folder.path());
        let folder = original.folder.join(EXPORT_FOLDER);
        export::write_next(&mut store, &folder, SystemTime::now(), &mut || ()).unwrap();
        export::write_next(&mut store, &folder, SystemTime::now(), &mut || ()).unwrap().path
    };
    let name = exported.file_name().unwrap();
    let cut = |root: &Path| {
        fs::OpenOptions::new().write(true).open(root.join("store/db")).unwrap().set_len(1000).unwrap();
    };
    let outcome = original.after("log gone, export there", cut);
    let Recovery::FromExport { file, age } = outcome else { panic!("{outcome}") };
    assert_eq!(file.file_name().unwrap(), name);
    assert!(age < Duration::from_secs(600));
    let outcome = original.after("log gone, newest export damaged", |root| {
        cut(root);
        fs::write(root.join(EXPORT_FOLDER).join(name), b"HEARTHX1 damaged").unwrap();
    });
    let Recovery::FromExport { file, .. } = outcome else { panic!("{outcome}") };
    assert_ne!(file.file_name().unwrap(), name, "the older export is taken");
}

#[test]
fn lost_writes_are_marked_before_the_repaired_store_is_in_place() {
    let original = Original::new();
    let repair = |prepare: &dyn Fn(&Path)| {
        let folder = Folder::new();
        copy(original.folder.path(), folder.path());
        assert_eq!(restored::mark(folder.path()).unwrap(), None);
        fs::OpenOptions::new().write(true).open(folder.join("store/db")).unwrap().set_len(1000).unwrap();
        prepare(folder.path());
        let opened = SledStore::open(folder.path(), SledOptions::default()).map(|(_, report)| report);
        (folder, opened)
    };
    let (folder, report) = repair(&|_| ());
    assert!(report.unwrap().may_have_lost_writes());
    drop(open_clean(folder.path()));
    assert_eq!(restored::mark(folder.path()).unwrap(), Some(None), "known although it opens clean now");

    let (folder, report) = repair(&|root| restored::set_mark(root, Some(5)).unwrap());
    assert!(report.unwrap().may_have_lost_writes());
    assert_eq!(restored::mark(folder.path()).unwrap(), Some(Some(5)), "what is held since then");

    // The mark cannot be written: the damaged store stays where it is, for the next start.
    let (folder, report) = repair(&|root| fs::create_dir(root.join(".restored.new")).unwrap());
    report.unwrap_err();
    assert!(!folder.join("store.damaged-1").exists());
    fs::remove_dir(folder.join(".restored.new")).unwrap();
    assert!(open(folder.path()).1.may_have_lost_writes());
}

#[test]
fn a_store_that_is_not_whole_is_not_copied_when_it_is_opened_again() {
    let original = Original::never_reopened();
    let commits = read_mark(original.folder.path()).unwrap().unwrap().0;
    let log = fs::read(original.folder.join("store/db")).unwrap();
    let flipped = offsets(log.len(), 24).into_iter().map(|at| {
        let mut bytes = log.clone();
        bytes[at] ^= 0x20;
        (format!("flipped at {at}"), bytes)
    });
    // What a flip costs depends on what lies there; half of the log is too little in any case.
    let half = ("half".to_owned(), log[..log.len() / 2].to_vec());
    let mut refused = 0;
    for (what, bytes) in flipped.chain([half]) {
        let folder = Folder::new();
        copy(original.folder.path(), folder.path());
        fs::write(folder.join("store/db"), bytes).unwrap();
        match opening::reopen(folder.path(), &SledOptions::default(), commits, false) {
            Ok(engine) => drop_engine(Some(engine)),
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
                assert!(!folder.join("store.rebuild").exists(), "{what}: it was copied");
                assert!(!folder.join("store.damaged-1").exists(), "{what}: it was moved");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "half of the log was taken for the whole");
}

#[test]
fn damaged_folders_are_kept_aside_the_newest_two() {
    let folder = Folder::new();
    for n in 0..4 {
        let (mut store, report) = open(folder.path());
        assert_eq!(report.may_have_lost_writes(), n > 0);
        store.commit(&sample(0..50)).unwrap();
        drop(store);
        fs::OpenOptions::new().write(true).open(folder.join("store/db")).unwrap().set_len(100).unwrap();
    }
    drop(open(folder.path()));
    let mut kept: Vec<String> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    kept.retain(|name| name.starts_with("store."));
    kept.sort();
    assert_eq!(kept, ["store.damaged-3", "store.damaged-4", "store.mark"]);
}

#[test]
fn a_repair_that_was_interrupted_starts_again() {
    let original = Original::new();
    let outcome = original.after("renamed, successor not in place", |root| {
        fs::rename(root.join(STORE_FOLDER), root.join("store.damaged-1")).unwrap();
        fs::create_dir(root.join("store.rebuild")).unwrap();
    });
    assert_eq!(outcome, Recovery::Clean);
}

#[test]
fn a_full_disk_is_named_and_the_same_batch_is_taken_later() {
    let disk = Tmpfs::new("16m");
    let filler = disk.path().join("filler");
    let mut store = open_clean(disk.path());
    store.commit(&sample(0..100)).unwrap();
    let _until_full = fs::write(&filler, vec![0; 32 << 20]);
    let error = store.commit(&sample(100..200)).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }) && error.is_worth_a_retry(), "{error}");
    // Once more without the reserve, as when another program took the room in between: sled itself
    // fails then, and is unusable until it is opened again.
    for n in 1..100 {
        if store.commit_whatever_the_room(&sample(n * 100..(n + 1) * 100)).is_err() {
            break;
        }
        assert!(n < 99, "the disk never got full");
    }
    let error = store.commit(&sample(100..200)).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    fs::remove_file(&filler).unwrap();
    store.commit(&sample(100..200)).unwrap();
    let found = records_of(&mut store);
    drop(store);
    assert_eq!(records_of(&mut open_clean(disk.path())), found);
    assert!(sample(0..200).puts.iter().all(|(key, value)| found.get(key) == Some(value)));
}

#[test]
fn after_a_failed_sync_every_record_is_written_anew() {
    let folder = Folder::new();
    let mut store = open_clean(folder.path());
    store.commit(&sample(0..500)).unwrap();
    store.in_doubt = true;
    store.commit(&sample(500..600)).unwrap();
    assert!(folder.join("store.damaged-1").exists(), "the doubtful files are not used further");
    let found = records_of(&mut store);
    drop(store);
    assert_eq!(found.len(), 600);
    assert_eq!(records_of(&mut open_clean(folder.path())), found);
}

#[test]
fn a_second_store_in_one_folder_and_a_closed_one_are_refused() {
    let folder = Folder::new();
    let mut store = open_clean(folder.path());
    let error = SledStore::open(folder.path(), SledOptions::default()).err().unwrap();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    store.close().unwrap();
    assert!(matches!(store.commit(&sample(0..1)), Err(StoreError::Closed)));
    assert!(matches!(store.load(&mut |_, _| ()), Err(StoreError::Closed)));
}

#[test]
fn a_hundred_thousand_records_load_fast() {
    let folder = Folder::new();
    let mut store = open_clean(folder.path());
    for n in 0..100 {
        store.commit(&sample(n * 1000..(n + 1) * 1000)).unwrap();
    }
    drop(store);
    let started = Instant::now();
    let mut store = open_clean(folder.path());
    let opened = started.elapsed();
    let started = Instant::now();
    let mut count = 0;
    store.load(&mut |_, _| count += 1).unwrap();
    let loaded = started.elapsed();
    assert_eq!(count, 100_000);
    assert!(opened + loaded < Duration::from_secs(20), "far slower than any sane store");
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Batch),
    Reopen,
    ReopenWithoutSnapshot,
    /// Without closing it: what is on the disk between two commits is all there is.
    Kill,
}

/// As many cases as PROPTEST_CASES says, else few: each opens stores.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(24, |cases| cases.parse().unwrap())
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let key = || (0_u8..40).prop_map(|n| vec![b'k', n / 4, n]);
    let value = prop_oneof![4 => 0..64_usize, 1 => 4000..=4096_usize];
    let put = (key(), value, any::<u8>()).prop_map(|(key, len, fill)| (key, vec![fill; len]));
    (prop::collection::vec(put, 0..30), prop::collection::vec(key(), 0..10))
        .prop_map(|(puts, deletes)| Batch { puts, deletes })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_holds_what_a_map_holds_after_any_batches_and_restarts(steps in prop::collection::vec(
        prop_oneof![
            8 => any_batch().prop_map(Step::Commit),
            1 => Just(Step::Reopen),
            1 => Just(Step::ReopenWithoutSnapshot),
            1 => Just(Step::Kill),
        ],
        1..60,
    )) {
        let mut folder = Folder::new();
        let mut store = open_clean(folder.path());
        let mut model = MemoryStore::new();
        for step in steps {
            match step {
                Step::Commit(batch) => {
                    store.commit(&batch).unwrap();
                    model.commit(&batch).unwrap();
                }
                Step::Reopen => {
                    drop(store);
                    prop_assert_eq!(&read_log(folder.path()), model.records());
                    store = open_clean(folder.path());
                }
                Step::Kill => {
                    let left = Folder::new();
                    copy(folder.path(), left.path());
                    drop(store);
                    folder = left;
                    let (opened, report) = open(folder.path());
                    prop_assert!(!report.may_have_lost_writes(), "{:?}", report);
                    store = opened;
                }
                Step::ReopenWithoutSnapshot => {
                    drop(store);
                    remove_snapshots(folder.path());
                    let (opened, report) = open(folder.path());
                    prop_assert!(!report.may_have_lost_writes(), "{:?}", report);
                    store = opened;
                }
            }
            prop_assert_eq!(store.len(), model.records().len() as u64);
        }
        drop(store);
        prop_assert_eq!(&records_of(&mut open_clean(folder.path())), model.records());
    }
}
