#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use crate::store::tests::{Folder, Tmpfs};

#[test]
fn what_is_stored_is_there_at_the_next_start() {
    let folder = Folder::new();
    let path = folder.join("deep/state");
    let life = Incarnation { generation: 7, incarnation: 1 << 40 };
    let seed = Seed::new([9; 32]);
    {
        let dir = StateDir::open(&path).unwrap();
        assert!(dir.node_key().unwrap().is_none() && dir.incarnation().unwrap().is_none());
        assert!(dir.clock_ceiling().unwrap().is_none() && dir.roster().unwrap().is_none());
        dir.set_node_key(&seed).unwrap();
        dir.set_incarnation(life).unwrap();
        dir.set_clock_ceiling(u64::MAX - 1).unwrap();
        dir.set_roster(b"statements").unwrap();
    }
    let dir = StateDir::open(&path).unwrap();
    assert_eq!(dir.node_key().unwrap(), Some(seed.clone()));
    assert_eq!(dir.incarnation().unwrap(), Some(life));
    assert_eq!(dir.clock_ceiling().unwrap(), Some(u64::MAX - 1));
    assert_eq!(dir.roster().unwrap().as_deref(), Some(b"statements".as_slice()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(path.join("node.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(format!("{seed:?}"), "Seed(redacted)");
}

#[test]
fn a_second_daemon_learns_the_process_of_the_first() {
    let folder = Folder::new();
    let first = StateDir::open(folder.path()).unwrap();
    let error = StateDir::open(folder.path()).unwrap_err();
    assert!(matches!(error, StateDirError::Locked { holder: Some(pid), .. } if pid == std::process::id()));
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(first);
    StateDir::open(folder.path()).unwrap();
}

#[test]
fn damage_in_each_file_is_named_and_touches_no_other() {
    let folder = Folder::new();
    let dir = StateDir::open(folder.path()).unwrap();
    dir.set_node_key(&Seed::new([9; 32])).unwrap();
    dir.set_incarnation(Incarnation::default()).unwrap();
    dir.set_clock_ceiling(5).unwrap();
    dir.set_roster(b"statements").unwrap();
    for name in ["node.key", "incarnation", "clock", "roster", "version"] {
        let path = folder.join(name);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            for bytes in [&bad[..], &good[..at]] {
                fs::write(&path, bytes).unwrap();
                let results = [
                    ("node.key", dir.node_key().err()),
                    ("incarnation", dir.incarnation().err()),
                    ("clock", dir.clock_ceiling().err()),
                    ("roster", dir.roster().err()),
                    ("version", dir.check_version().err()),
                ];
                for (which, error) in results {
                    let damaged = matches!(error, Some(StateDirError::File(FileError::Damaged { .. })));
                    assert_eq!(damaged, which == name, "{which} with {name} damaged at {at}: {error:?}");
                }
            }
        }
        fs::write(&path, &good).unwrap();
    }
    fs::remove_file(folder.join("node.key")).unwrap();
    assert!(dir.node_key().unwrap().is_none());
}

#[test]
fn a_folder_of_a_newer_version_or_another_user_or_no_folder_is_refused_with_a_way_out() {
    let folder = Folder::new();
    let path = folder.join("newer");
    drop(StateDir::open(&path).unwrap());
    write_durable(&path.join("version"), &VERSION_FILE, &9_u32.to_le_bytes()).unwrap();
    let error = StateDir::open(&path).unwrap_err();
    assert!(matches!(error, StateDirError::Newer { found: 9, .. }));
    assert!(error.to_string().contains("--state-dir"), "{error}");

    let file = folder.join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(StateDir::open(&file), Err(StateDirError::NotAFolder(_))));
    assert!(matches!(StateDir::open(&file.join("below")), Err(StateDirError::NotAFolder(_))));

    let other = folder.join("other");
    fs::create_dir(&other).unwrap();
    std::os::unix::fs::chown(&other, Some(12345), None)
        .expect("this test gives a folder to another user: run it as root");
    let error = StateDir::open(&other).unwrap_err();
    assert!(matches!(error, StateDirError::OwnedByAnother { owner: 12345, .. }), "{error}");
}

#[test]
fn a_read_only_and_a_full_disk_are_named() {
    let disk = Tmpfs::new("4m");
    let path = disk.path().join("state");
    drop(StateDir::open(&path).unwrap());
    disk.remount("ro");
    assert!(matches!(StateDir::open(&path), Err(StateDirError::ReadOnly(_))));
    assert!(matches!(StateDir::open(&disk.path().join("new")), Err(StateDirError::ReadOnly(_))));
    disk.remount("rw");
    let dir = StateDir::open(&path).unwrap();
    dir.set_clock_ceiling(1).unwrap();
    let filler = disk.path().join("filler");
    let _until_full = fs::write(&filler, vec![0; 8 << 20]);
    assert!(matches!(dir.set_roster(&vec![1; 100_000]), Err(StateDirError::Full { .. })));
    assert_eq!(dir.clock_ceiling().unwrap(), Some(1), "nothing old is harmed");
    assert!(!path.join(".roster.new").exists(), "nothing partial stays");
    drop(dir);
    let error = StateDir::open(&path).unwrap_err();
    assert!(matches!(error, StateDirError::Full { .. }), "{error}");
    fs::remove_file(&filler).unwrap();
    StateDir::open(&path).unwrap();
}
