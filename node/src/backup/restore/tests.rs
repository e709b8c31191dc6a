#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use crate::{
    backup::format,
    store::{
        Recovery, Store as _,
        sled::SledStore,
        tests::{Folder, Tmpfs, records_of, sample},
    },
};
use ed25519_dalek::SigningKey;
use std::fs::File;
use std::path::PathBuf;

const LIFE: Incarnation = Incarnation { generation: 70_000, incarnation: 9_000_000 };

fn household(root: u8, node: u8) -> Roster {
    let root = SigningKey::from_bytes(&[root; 32]);
    Roster::found(&root, node_of(&[node; 32]), "kitchen", None).unwrap()
}

/// A folder of the node with this key, in the household with this root, with so many records.
fn node(folder: &Path, root: u8, key: u8, records: usize) -> StateDir {
    let state = StateDir::open(folder).unwrap();
    state.set_node_key(&Seed::new([key; 32])).unwrap();
    state.set_roster(&household(root, key).to_bytes()).unwrap();
    state.set_incarnation(LIFE).unwrap();
    state.set_clock_ceiling(500).unwrap();
    write_private(&folder.join("ca.pem"), b"certificate").unwrap();
    write_private(&folder.join("ca.key"), b"private").unwrap();
    let mut store = open(folder);
    store.commit(&sample(0..records)).unwrap();
    state
}

fn open(folder: &Path) -> SledStore {
    let (store, report) = SledStore::open(folder, SledOptions::default()).unwrap();
    assert_eq!(report.outcome, Recovery::Clean, "{:?}", report.steps);
    store
}

fn backup(state: &StateDir, to: PathBuf, with_key: bool) -> Backup {
    let parts = Parts::of(state, with_key).unwrap();
    let mut file = File::create(&to).unwrap();
    format::write(&mut file, &to, &parts, &mut open(state.path()), SystemTime::now(), &mut || ()).unwrap();
    Backup::open(&to).unwrap()
}

fn restore(state: &StateDir, backup: &Backup, force: bool) -> Result<Restored, RestoreError> {
    stage(state, backup, force)?;
    Ok(carry_out(state, &SledOptions::default(), &mut || ())?.unwrap())
}

#[test]
fn a_backup_takes_the_place_of_the_store_and_numbers_only_rise() {
    let folder = Folder::new();
    let state = node(&folder.join("a"), 1, 2, 100);
    let backup = backup(&state, folder.join("b"), false);
    open(state.path()).commit(&sample(100..150)).unwrap();
    let later = Incarnation { generation: 80_000, incarnation: 9_900_000 };
    state.set_incarnation(later).unwrap();
    // What this generation and later ones wrote is newer than the mark: not so in a backup.
    restored::set_mark(state.path(), Some(75_000)).unwrap();

    assert!(matches!(restore(&state, &backup, false), Err(RestoreError::HoldsData(_))));
    assert_eq!(open(state.path()).len(), 150, "nothing has changed");
    let done = restore(&state, &backup, true).unwrap();
    assert_eq!(done, Restored { records: 100, has_replaced: true });
    assert_eq!(records_of(&mut open(state.path())), sample(0..100).puts.into_iter().collect());
    assert_eq!(state.incarnation().unwrap(), Some(later), "never taken back");
    assert_eq!(restored::mark(state.path()).unwrap(), Some(None));
    assert!(state.path().join("store.replaced/db").exists());
    assert!(!state.path().join("restore").exists());
    assert_eq!(carry_out(&state, &SledOptions::default(), &mut || ()).unwrap(), None, "once");
}

#[test]
fn with_its_key_a_backup_makes_this_node_of_an_empty_folder() {
    let folder = Folder::new();
    let state = node(&folder.join("a"), 1, 2, 100);
    let (without, with) = (backup(&state, folder.join("b"), false), backup(&state, folder.join("c"), true));
    let fresh = StateDir::open(&folder.join("fresh")).unwrap();
    assert!(matches!(restore(&fresh, &without, true), Err(RestoreError::NoKey)));
    assert_eq!(restore(&fresh, &with, false).unwrap(), Restored { records: 100, has_replaced: false });
    assert_eq!(fresh.node_key().unwrap(), Some(Seed::new([2; 32])));
    assert_eq!(fresh.roster().unwrap(), state.roster().unwrap());
    assert_eq!(fresh.incarnation().unwrap(), Some(LIFE));
    assert_eq!(fresh.clock_ceiling().unwrap(), Some(500));
    assert_eq!(restored::mark(fresh.path()).unwrap(), Some(None), "the life that is unknown is left out");
    assert_eq!(fs::read(fresh.path().join("ca.key")).unwrap(), b"private");
    assert_eq!(open(fresh.path()).len(), 100);
}

#[test]
fn a_backup_of_another_node_or_household_is_refused_and_changes_nothing() {
    let folder = Folder::new();
    let (a, sibling, stranger) = (
        node(&folder.join("a"), 1, 2, 10),
        node(&folder.join("s"), 1, 3, 20),
        node(&folder.join("x"), 4, 5, 30),
    );
    for (other, file) in [(&sibling, "sibling"), (&stranger, "stranger")] {
        let backup = backup(other, folder.join(file), true);
        let error = restore(&a, &backup, true).unwrap_err();
        assert!(matches!(error, RestoreError::OtherNode { .. } | RestoreError::OtherHousehold), "{error}");
    }
    assert_eq!(open(a.path()).len(), 10);
    assert_eq!(restored::mark(a.path()).unwrap(), None);
}

#[test]
fn a_nightly_export_is_restored_where_it_was_made_only() {
    let folder = Folder::new();
    let state = node(&folder.join("a"), 1, 2, 100);
    let path = folder.join("export.hx");
    crate::store::export::write(&mut open(state.path()), &path, SystemTime::now(), &mut || ()).unwrap();
    let export = Backup::open(&path).unwrap();
    let fresh = StateDir::open(&folder.join("fresh")).unwrap();
    assert!(matches!(restore(&fresh, &export, true), Err(RestoreError::NoParts)));
    assert_eq!(restore(&state, &export, true).unwrap().records, 100);
}

#[test]
fn a_membership_that_is_lost_comes_back() {
    let folder = Folder::new();
    let state = node(&folder.join("a"), 1, 2, 100);
    let backup = backup(&state, folder.join("b"), false);
    drop(state);
    for name in ["roster", "roster.copy"] {
        fs::remove_file(folder.join("a").join(name)).unwrap();
    }
    let state = StateDir::open(&folder.join("a")).unwrap();
    restore(&state, &backup, true).unwrap();
    assert_eq!(state.roster().unwrap(), Some(household(1, 2).to_bytes()));
}

/// What a power cut may leave between two steps, in their order.
#[test]
fn a_restore_that_was_interrupted_is_ended_by_the_next_start() {
    type Cut = fn(&Path);
    let cuts: [(&str, Cut); 4] = [
        ("prepared", |_| ()),
        ("part of the fresh store", |root| {
            fs::create_dir(root.join("store.rebuild")).unwrap();
            fs::write(root.join("store.rebuild/db"), b"part").unwrap();
        }),
        ("between the renames", |root| fs::rename(root.join("store"), root.join("store.replaced")).unwrap()),
        ("after the renames", |root| {
            fs::rename(root.join("store"), root.join("store.replaced")).unwrap();
            let mut fresh = SledStore::open(root, SledOptions::default()).unwrap().0;
            fresh.commit(&sample(0..50)).unwrap();
        }),
    ];
    for (what, cut) in cuts {
        let folder = Folder::new();
        let state = node(&folder.join("a"), 1, 2, 100);
        let backup = backup(&state, folder.join("b"), false);
        open(state.path()).commit(&sample(100..150)).unwrap();
        assert_eq!(stage(&state, &backup, true).unwrap(), 100, "{what}");
        cut(state.path());
        drop(state);
        let state = StateDir::open(&folder.join("a")).unwrap();
        let done = carry_out(&state, &SledOptions::default(), &mut || ()).unwrap();
        assert_eq!(done, Some(Restored { records: 100, has_replaced: true }), "{what}");
        assert_eq!(open(state.path()).len(), 100, "{what}");
        assert_eq!(restored::mark(state.path()).unwrap(), Some(None), "{what}");
        fs::remove_dir_all(state.path().join("store")).unwrap();
        fs::rename(state.path().join("store.replaced"), state.path().join("store")).unwrap();
        fs::remove_file(state.path().join("store.mark")).unwrap_or_default();
        assert_eq!(open(state.path()).len(), 150, "{what}: what was there before is kept");
    }
}

/// A cut while the files that it came from are removed: in any order, one after the other.
#[test]
fn a_restore_that_was_interrupted_at_its_very_end_stays_done() {
    let folder = Folder::new();
    let state = node(&folder.join("a"), 1, 2, 100);
    let backup = backup(&state, folder.join("b"), false);
    open(state.path()).commit(&sample(100..150)).unwrap();
    stage(&state, &backup, true).unwrap();
    // A mount in the folder keeps it from being removed.
    let mut held = Tmpfs::over(state.path().join("restore/held"));
    carry_out(&state, &SledOptions::default(), &mut || ()).unwrap_err();
    assert!(!state.path().join("restore").exists(), "half of it would be carried out again");
    let left = state.path().join("restore.partial");
    held.is_now(left.join("held"));
    drop(held);
    // What lay in it is gone before the folder is.
    let _gone_already = fs::remove_file(left.join("records.hx"));
    drop(state);
    let state = StateDir::open(&folder.join("a")).unwrap();
    assert_eq!(carry_out(&state, &SledOptions::default(), &mut || ()).unwrap(), None);
    assert!(!left.exists());
    assert_eq!(open(state.path()).len(), 100);
}

#[test]
fn what_was_not_prepared_to_the_end_is_forgotten() {
    let folder = Folder::new();
    let state = node(&folder.join("a"), 1, 2, 100);
    fs::create_dir(state.path().join("restore.partial")).unwrap();
    fs::write(state.path().join("restore.partial/records.hx"), b"part").unwrap();
    assert_eq!(carry_out(&state, &SledOptions::default(), &mut || ()).unwrap(), None);
    assert!(!state.path().join("restore.partial").exists());
    assert_eq!(open(state.path()).len(), 100);
}
