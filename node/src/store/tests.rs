//! What the tests of all stores share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::memory::MemoryStore;
use super::unsynced::{Hook, UnsyncedStore};
use super::*;
use std::ops::Range;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

/// A temporary folder that is removed at the end of its test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("hearth-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _left = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

/// A small file system of its own, unmounted at the end of the test.
pub(crate) struct Tmpfs(Folder);

impl Tmpfs {
    pub(crate) fn new(size: &str) -> Self {
        Self::mount(Folder::new(), size)
    }

    /// In a new folder of this name, which is removed with it.
    pub(crate) fn over(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        Self::mount(Folder(path), "1m")
    }

    /// A folder above it was renamed.
    pub(crate) fn is_now(&mut self, path: PathBuf) {
        self.0 = Folder(path);
    }

    fn mount(folder: Folder, size: &str) -> Self {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "hearth-test"])
            .arg(folder.path())
            .status()
            .expect("this test mounts a small tmpfs and finds no `mount`: install util-linux");
        assert!(
            status.success(),
            "this test mounts a small tmpfs: run it as root, outside of a container that forbids it"
        );
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn remount(&self, options: &str) {
        let status = std::process::Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.path())
            .status()
            .unwrap();
        assert!(status.success(), "remount {options}");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _best_effort = std::process::Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Puts a file in the place of this one that opens and gives nothing back but EIO, as a bad sector does.
pub(crate) fn spoil(file: &Path) {
    let _absent = std::fs::remove_file(file);
    std::os::unix::fs::symlink("/proc/self/mem", file).unwrap();
}

/// A store that forgets what was not synced, owned by a store thread and in the hands of a test.
#[derive(Clone)]
pub(crate) struct Card(Arc<Mutex<UnsyncedStore>>);

impl Card {
    pub(crate) fn new(hook: Hook) -> Self {
        Self(Arc::new(Mutex::new(UnsyncedStore::new().with_hook(hook))))
    }

    /// The power goes, if it has not, and the card is taken out.
    pub(crate) fn pull(&self) -> UnsyncedStore {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Store for Card {
    fn load(&mut self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.0.lock().unwrap().load(each)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.0.lock().unwrap().commit(batch)
    }
}

/// Records `range` with keys of about 20 bytes and values of 200.
pub(crate) fn sample(range: Range<usize>) -> Batch {
    let record = |n: usize| {
        let value = blake3::hash(&n.to_le_bytes()).as_bytes().repeat(7);
        (format!("light/lamp-{n:06}/on").into_bytes(), value.get(..200).unwrap().to_vec())
    };
    Batch { puts: range.map(record).collect(), deletes: Vec::new() }
}

pub(crate) fn records_of(store: &mut dyn Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut records = BTreeMap::new();
    store.load(&mut |key, value| drop(records.insert(key.to_vec(), value.to_vec()))).unwrap();
    records
}

#[test]
fn limits_are_named_and_change_nothing() {
    let mut store = MemoryStore::new();
    let mut put = |key: Vec<u8>, value: Vec<u8>| {
        store.commit(&Batch { puts: vec![(b"good".to_vec(), vec![1]), (key, value)], deletes: vec![] })
    };
    assert!(matches!(put(vec![], vec![]), Err(StoreError::EmptyKey)));
    assert!(matches!(put(vec![1; 513], vec![]), Err(StoreError::KeyTooLong { bytes: 513 })));
    let error = put(b"light/a\xff\n".to_vec(), vec![0; 4097]).unwrap_err();
    assert!(matches!(error, StoreError::ValueTooLong { bytes: 4097, .. }));
    assert!(error.to_string().contains(r"light/a\xff\n"), "{error}");
    let many = Batch {
        puts: (0..17_000_u32).map(|n| (n.to_be_bytes().to_vec(), vec![0; 4096])).collect(),
        deletes: vec![],
    };
    assert!(matches!(store.commit(&many), Err(StoreError::BatchTooLarge { .. })));
    assert!(store.records().is_empty());
}

#[test]
fn a_key_put_and_deleted_in_one_batch_is_there_with_its_last_value() {
    let batch = Batch {
        puts: vec![(b"a".to_vec(), vec![1]), (b"a".to_vec(), vec![2])],
        deletes: vec![b"a".to_vec(), b"b".to_vec()],
    };
    let mut store = MemoryStore::new();
    store.commit(&batch).unwrap();
    assert_eq!(records_of(&mut store), BTreeMap::from([(b"a".to_vec(), vec![2])]));
    assert_eq!(batch.outcome(), BTreeMap::from([(&b"a"[..], Some(&[2][..])), (b"b", None)]));
}
