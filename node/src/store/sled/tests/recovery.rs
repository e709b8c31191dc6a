//! What a repair does: exports, marks, folders kept aside, interruptions.
use super::*;

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
fn what_a_repair_did_is_known_at_once_and_once() {
    let original = Original::new();
    let folder = Folder::new();
    copy(original.folder.path(), folder.path());
    fs::OpenOptions::new().write(true).open(folder.join("store/db")).unwrap().set_len(1000).unwrap();
    // The repair itself fails at its end, and so does the start: what it found is known all the same.
    fs::create_dir(folder.join(".restored.new")).unwrap();
    SledStore::open(folder.path(), SledOptions::default()).err().unwrap();
    let first = repairs::list(folder.path());
    assert!(!first.is_empty(), "not a word of what was found");
    fs::remove_dir(folder.join(".restored.new")).unwrap();
    let (store, report) = open(folder.path());
    drop(store);
    let all = repairs::list(folder.path());
    assert_eq!(all.len(), first.len() + report.steps.len());
    assert!(
        all.iter().rev().zip(report.steps.iter().rev()).all(|(line, step)| line.ends_with(step)),
        "{all:?}"
    );
    drop(open_clean(folder.path()));
    assert_eq!(repairs::list(folder.path()), all, "nothing is told twice");
}

#[test]
fn a_mark_that_does_not_read_is_told_and_written_anew() {
    let original = Original::new();
    let folder = Folder::new();
    copy(original.folder.path(), folder.path());
    let mark = folder.join(MARK_FILE);
    let good = fs::read(&mark).unwrap();
    let rot: fn(&Path) = |file| fs::write(file, b"rot").unwrap();
    for damage in [rot, crate::store::tests::spoil] {
        damage(&mark);
        let (store, report) = open(folder.path());
        drop(store);
        assert_eq!(report.outcome, Recovery::Clean);
        assert!(report.steps.len() == 1 && report.steps[0].contains("`store.mark`"), "{:?}", report.steps);
        assert_eq!(fs::read(&mark).unwrap(), good);
        drop(open_clean(folder.path()));
    }
}

#[test]
fn a_store_that_is_not_whole_is_not_copied_when_it_is_opened_again() {
    let original = Original::never_reopened();
    let commits = mark::read(original.folder.path()).unwrap().unwrap().commits;
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
        match opening::reopen(
            folder.path(),
            &SledOptions::default(),
            commits,
            false,
            &Changes::default(),
            &mut || (),
        ) {
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
