#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use crate::store::tests::{Folder, Tmpfs, spoil};

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
    for name in ["node.key", "incarnation", "clock", "roster"] {
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

/// A folder as layout 1 left it, with the mark of the last life's end in `incarnation`.
fn layout_1(folder: &Folder, life: Incarnation, clean: u8) {
    let dir = StateDir::open(folder.path()).unwrap();
    dir.set_node_key(&Seed::new([9; 32])).unwrap();
    dir.set_roster(b"statements").unwrap();
    drop(dir);
    for name in ["node.key.copy", "roster.copy"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    const OLD: FileKind = FileKind { version: 1, max_bytes: 13, ..INCARNATION_FILE };
    let bytes = [&life.encode()[..], &[clean]].concat();
    write_durable(&folder.join("incarnation"), &OLD, &bytes).unwrap();
    write_durable(&folder.join("version"), &VERSION_FILE, &1_u32.to_le_bytes()).unwrap();
}

#[test]
fn a_folder_of_layout_1_is_brought_to_this_one_s_form_once() {
    let life = Incarnation { generation: 70_000, incarnation: 9_000_000 };
    for clean in [0, 1] {
        let folder = Folder::new();
        layout_1(&folder, life, clean);
        let dir = StateDir::open(folder.path()).unwrap();
        assert_eq!(dir.incarnation().unwrap(), Some(life));
        assert_eq!(dir.notes().len(), 1, "{:?}", dir.notes());
        assert!(dir.notes()[0].contains("older hearth (layout 1)"), "{:?}", dir.notes());
        assert_eq!(dir.node_key().unwrap(), Some(Seed::new([9; 32])));
        assert!(folder.join("node.key.copy").exists() && folder.join("roster.copy").exists());
        drop(dir);
        assert!(StateDir::open(folder.path()).unwrap().notes().is_empty(), "once");
    }
}

#[test]
fn what_had_no_header_in_layout_2_gets_one_and_what_makes_no_sense_is_told() {
    let book = crate::auth::InviteBook::default().to_bytes();
    let code = b"v2 open 3 KT4M-9QWZ-H2PC\n".to_vec();
    for (invites, code, told) in [(&book, &code, 1), (&vec![2, 9], &code, 2), (&book, &b"v2 op".to_vec(), 2)]
    {
        let folder = Folder::new();
        drop(StateDir::open(folder.path()).unwrap());
        fs::write(folder.join("invites"), invites).unwrap();
        fs::write(folder.join("setup-code"), code).unwrap();
        for name in ["invites", "setup-code"] {
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        write_durable(&folder.join("version"), &VERSION_FILE, &2_u32.to_le_bytes()).unwrap();
        let dir = StateDir::open(folder.path()).unwrap();
        assert_eq!(dir.notes().len(), told, "{:?}", dir.notes());
        assert!(dir.notes()[0].contains("older hearth (layout 2)"), "{:?}", dir.notes());
        let kept = [("invites", &INVITES_FILE, invites), ("setup-code", &SETUP_FILE, code)]
            .into_iter()
            .filter(|(name, kind, content)| {
                read_checked(&folder.join(name), kind).unwrap().is_some_and(|bytes| *bytes == **content)
            });
        assert_eq!(kept.count(), 3 - told);
    }
}

#[test]
fn a_migration_that_was_interrupted_is_done_at_the_next_start() {
    let life = Incarnation { generation: 70_000, incarnation: 9_000_000 };
    // The step was done, its number was not written; or the number is lost.
    for version in [Some(1_u32), None] {
        let folder = Folder::new();
        layout_1(&folder, life, 1);
        write_durable(&folder.join("incarnation"), &INCARNATION_FILE, &life.encode()).unwrap();
        match version {
            Some(number) => {
                write_durable(&folder.join("version"), &VERSION_FILE, &number.to_le_bytes()).unwrap()
            }
            None => fs::remove_file(folder.join("version")).unwrap(),
        }
        let dir = StateDir::open(folder.path()).unwrap();
        assert_eq!(dir.incarnation().unwrap(), Some(life));
        assert_eq!(dir.notes().len(), 1, "{:?}", dir.notes());
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused_whatever_the_folder_says() {
    let folder = Folder::new();
    layout_1(&folder, Incarnation::default(), 1);
    write_durable(&folder.join("incarnation"), &FileKind { version: 9, ..INCARNATION_FILE }, b"x").unwrap();
    let error = StateDir::open(folder.path()).unwrap_err();
    assert!(matches!(error, StateDirError::File(FileError::Newer { found: 9, .. })), "{error}");
}

/// What is done to a file: its name, and its content as it was; none deletes it.
type Damage = (&'static str, fn(&[u8]) -> Option<Vec<u8>>);

const DAMAGES: [Damage; 4] = [
    ("missing", |_| None),
    ("empty", |_| Some(Vec::new())),
    ("cut", |good| Some(good[..good.len() / 2].to_vec())),
    ("flipped", |good| {
        let mut bad = good.to_vec();
        bad[good.len() / 2] ^= 0x10;
        Some(bad)
    }),
];

#[test]
fn each_small_file_that_is_lost_or_damaged_is_mended_and_told() {
    let life = Incarnation { generation: 70_000, incarnation: 9_000_000 };
    let names = [
        "version",
        "node.key",
        "roster",
        "incarnation",
        "clock",
        "peers",
        "invites",
        "setup-code",
        "sign-ins",
    ];
    for name in names {
        for (what, damage) in DAMAGES {
            let folder = Folder::new();
            let dir = StateDir::open(folder.path()).unwrap();
            dir.set_node_key(&Seed::new([9; 32])).unwrap();
            dir.set_roster(b"statements").unwrap();
            dir.set_incarnation(life).unwrap();
            dir.set_clock_ceiling(77).unwrap();
            drop(dir);
            write_durable(&folder.join("peers"), &PEERS_FILE, b"addresses").unwrap();
            write_durable(&folder.join("invites"), &INVITES_FILE, b"invites").unwrap();
            write_durable(&folder.join("setup-code"), &SETUP_FILE, b"v2 spent\n").unwrap();
            write_durable(&folder.join("sign-ins"), &SIGN_INS_FILE, b"counts").unwrap();
            let file = folder.join(name);
            match damage(&fs::read(&file).unwrap()) {
                Some(bytes) => fs::write(&file, bytes).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let dir = StateDir::open(folder.path()).unwrap();
            // Without these nothing is lost that anybody would miss, or nobody knows that there was one.
            let silent = what == "missing" && names[4..].contains(&name);
            assert_eq!(dir.notes().len(), usize::from(!silent), "{name} {what}: {:?}", dir.notes());
            assert!(dir.notes().iter().all(|note| note.contains(&format!("`{name}`"))), "{:?}", dir.notes());
            assert_eq!(dir.node_key().unwrap(), Some(Seed::new([9; 32])), "{name} {what}");
            assert_eq!(dir.roster().unwrap().as_deref(), Some(&b"statements"[..]), "{name} {what}");
            let found = dir.incarnation().unwrap().unwrap();
            if name == "incarnation" {
                assert!(found.generation > life.generation && found.incarnation > life.incarnation);
            } else {
                assert_eq!(found, life);
            }
            assert_eq!(dir.clock_ceiling().unwrap(), (name != "clock").then_some(77));
            let remembered = repairs::list(folder.path());
            assert_eq!(remembered.len(), dir.notes().len(), "{name} {what}: {remembered:?}");
            drop(dir);
            assert!(StateDir::open(folder.path()).unwrap().notes().is_empty(), "{name} {what}: told once");
            assert_eq!(repairs::list(folder.path()), remembered, "{name} {what}");
        }
    }
}

#[test]
fn a_small_file_that_the_disk_cannot_give_back_is_mended_as_a_damaged_one() {
    let life = Incarnation { generation: 70_000, incarnation: 9_000_000 };
    for name in [
        "version",
        "node.key",
        "roster",
        "incarnation",
        "clock",
        "peers",
        "invites",
        "setup-code",
        "sign-ins",
    ] {
        let folder = Folder::new();
        let dir = StateDir::open(folder.path()).unwrap();
        dir.set_node_key(&Seed::new([9; 32])).unwrap();
        dir.set_roster(b"statements").unwrap();
        dir.set_incarnation(life).unwrap();
        drop(dir);
        spoil(&folder.join(name));
        let dir = StateDir::open(folder.path()).unwrap();
        assert_eq!(dir.notes().len(), 1, "{name}: {:?}", dir.notes());
        assert!(dir.notes()[0].contains("cannot give it back"), "{name}: {:?}", dir.notes());
        assert_eq!(dir.node_key().unwrap(), Some(Seed::new([9; 32])), "{name}");
        assert_eq!(dir.roster().unwrap().as_deref(), Some(&b"statements"[..]), "{name}");
        assert!(dir.incarnation().unwrap().unwrap().generation >= life.generation, "{name}");
        drop(dir);
        assert!(StateDir::open(folder.path()).unwrap().notes().is_empty(), "{name}: told once");
    }
}

#[test]
fn a_damaged_copy_is_written_anew() {
    let folder = Folder::new();
    let dir = StateDir::open(folder.path()).unwrap();
    dir.set_roster(b"statements").unwrap();
    drop(dir);
    fs::write(folder.join("roster.copy"), b"rot").unwrap();
    assert!(StateDir::open(folder.path()).unwrap().notes().is_empty());
    assert_eq!(fs::read(folder.join("roster.copy")).unwrap(), fs::read(folder.join("roster")).unwrap());
}

#[test]
fn without_any_incarnation_the_node_goes_on_under_new_numbers() {
    for (what, damage) in DAMAGES {
        let folder = Folder::new();
        let dir = StateDir::open(folder.path()).unwrap();
        dir.set_incarnation(Incarnation { generation: 7, incarnation: 9 }).unwrap();
        drop(dir);
        fs::create_dir(folder.join("store")).unwrap();
        for name in ["incarnation", "incarnation.copy"] {
            match damage(&fs::read(folder.join(name)).unwrap()) {
                Some(bytes) => fs::write(folder.join(name), bytes).unwrap(),
                None => fs::remove_file(folder.join(name)).unwrap(),
            }
        }
        let dir = StateDir::open(folder.path()).unwrap();
        assert_eq!(dir.notes().len(), 1, "{what}: {:?}", dir.notes());
        assert!(dir.incarnation().unwrap().unwrap().incarnation > 1_000_000_000_000, "{what}");
        assert_eq!(crate::store::restored::mark(folder.path()).unwrap(), Some(None), "{what}");
    }
}
