//! The store on a real disk: full ones, failed syncs, limits. What damage does is in `damage` and, to the journal,
//! in `journaled`, how it is mended in `recovery`, and what any sequence of steps keeps in `properties`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use crate::store::memory::MemoryStore;
use crate::store::tests::{Folder, Tmpfs, records_of, sample};
use crate::store::{Recovery, export, repairs, restored};
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

/// Whoever loads the records fails at one.
#[derive(Default)]
struct Faulty;

impl Sink for Faulty {
    fn take(&mut self, _key: &[u8], _value: &[u8]) {
        panic!("a fault of the loader");
    }
}

#[test]
fn a_fault_of_who_takes_the_records_in_is_no_damage_of_the_store() {
    let folder = Folder::new();
    open_clean(folder.path()).commit(&sample(0..10)).unwrap();
    let error = SledStore::open_into::<Faulty>(folder.path(), SledOptions::default()).err().unwrap();
    assert!(error.to_string().contains("a fault of the loader"), "{error}");
    assert!(!folder.path().join("store.damaged-1").exists(), "nothing was repaired");
    assert_eq!(open_clean(folder.path()).len(), 10);
}

#[test]
fn a_full_disk_is_named_and_the_same_batch_is_taken_later() {
    let disk = Tmpfs::new("16m");
    let filler = disk.path().join("filler");
    let mut store = open_clean(disk.path());
    store.commit(&sample(0..100)).unwrap();
    let _until_full = fs::write(&filler, vec![0; 32 << 20]);
    let error = store.commit(&sample(100..200)).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
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
fn a_hundred_thousand_records_are_there_when_it_is_opened_again() {
    let folder = Folder::new();
    let mut store = open_clean(folder.path());
    for n in 0..100 {
        store.commit(&sample(n * 1000..(n + 1) * 1000)).unwrap();
    }
    drop(store);
    let mut count = 0;
    open_clean(folder.path()).load(&mut |_, _| count += 1).unwrap();
    assert_eq!(count, 100_000);
}

#[test]
fn a_large_store_on_a_slow_card_is_given_time_by_its_size() {
    let original = Original::new();
    // Without what its size adds no attempt could be in time.
    let options = SledOptions { open_deadline: Duration::ZERO, ..SledOptions::default() };
    let (mut store, report) = SledStore::open(original.folder.path(), options.clone()).unwrap();
    assert_eq!(report.outcome, Recovery::Clean, "{:?}", report.steps);
    assert_eq!(records_of(&mut store), original.records);
    let log = fs::File::create(original.folder.join("db")).unwrap();
    log.set_len(300 << 20).unwrap();
    assert_eq!(options.time_for(original.folder.path()), 300 * OPEN_PER_MIB);
}

mod damage;
mod journaled;
mod properties;
mod rebuild;
mod recovery;
