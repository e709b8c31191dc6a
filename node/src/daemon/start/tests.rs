//! What the start says of records that make no sense, and of what a newer hearth wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use crate::{
    auth::InviteBook,
    backup::{Backup, Parts, format, restore},
    state_dir::{INVITES_FILE, PEERS_FILE, SETUP_FILE, SIGN_INS_FILE, StateDir},
    store::{
        export,
        files::write_durable,
        sled::STORE_FOLDER,
        tests::{Folder, records_of},
    },
};
use mesh_proto::{Hlc, record};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// A closed store with these records.
fn store(folder: &Folder, puts: Vec<(Vec<u8>, Vec<u8>)>) {
    let (mut store, _) = SledStore::open(folder.path(), SledOptions::default()).unwrap();
    store.commit(&Batch { puts, deletes: Vec::new() }).unwrap();
}

#[tokio::test]
async fn records_that_make_no_sense_are_told_and_count_as_lost_writes() {
    let folder = Folder::new();
    let good = record::ceiling(Hlc::from_ms(77));
    let senseless = [(b"rnote/a\0text".to_vec(), b"\x01rot".to_vec()), (b"?".to_vec(), b"\x01".to_vec())];
    store(&folder, [vec![good.clone()], senseless.to_vec()].concat());
    let state = Arc::new(StateDir::open(folder.path()).unwrap());
    let (mut opened, report, _) = open_store(state.clone()).await.unwrap();
    assert_eq!(report.outcome, Recovery::Salvaged { kept: 1, lost: 2 });
    assert!(report.steps.len() == 1 && report.steps[0].contains("2 records make no sense"), "{report:?}");
    assert_eq!(restored::mark(folder.path()).unwrap(), Some(None));
    assert!(repairs::list(folder.path()).iter().any(|step| step.ends_with(&report.steps[0])));
    assert_eq!(records_of(&mut opened).into_iter().collect::<Vec<_>>(), [good]);
    drop(opened);
    let (_, report, _) = open_store(state).await.unwrap();
    assert_eq!((report.outcome, report.steps), (Recovery::Clean, vec![]), "told once");
}

/// The folder of a node as a life of it leaves it, with every small file that there is.
async fn lived(root: &Path) -> Arc<StateDir> {
    let state = Arc::new(StateDir::open(root).unwrap());
    household::open(&state, "kitchen", None).await.unwrap();
    state.set_incarnation(Default::default()).unwrap();
    state.set_clock_ceiling(5).unwrap();
    write_durable(&root.join("peers"), &PEERS_FILE, b"addresses").unwrap();
    write_durable(&root.join("invites"), &INVITES_FILE, &InviteBook::default().to_bytes()).unwrap();
    write_durable(&root.join("setup-code"), &SETUP_FILE, b"v2 spent\n").unwrap();
    write_durable(&root.join("sign-ins"), &SIGN_INS_FILE, b"counts").unwrap();
    let (mut store, _) = SledStore::open(root, SledOptions::default()).unwrap();
    store.commit(&Batch { puts: vec![record::ceiling(Hlc::from_ms(5))], deletes: Vec::new() }).unwrap();
    state
}

/// All that a start reads, in the order in which a life does.
async fn begin(root: &Path) -> Result<(), String> {
    let state = Arc::new(StateDir::open(root).map_err(|error| error.to_string())?);
    restore::end_interrupted(state.clone()).await.map_err(|error| error.to_string())?;
    household::open(&state, "kitchen", None).await.map_err(|error| error.to_string())?;
    open_store(state).await.map_err(|error| error.to_string())?;
    Ok(())
}

/// Every file below a folder with its content, but for the lock, which names the process, and the files of
/// sled, which it changes by opening them.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().unwrap().to_str().unwrap() {
            "lock" | STORE_FOLDER => {}
            _ if path.is_dir() => all.extend(content(&path)),
            _ => drop(all.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    all
}

/// A small file as a program of the next version would have written it; `None` for other files.
fn one_higher(bytes: &[u8]) -> Option<Vec<u8>> {
    let (body, _) = bytes.strip_prefix(b"HTH").and(bytes.split_last_chunk::<32>())?;
    let mut body = body.to_vec();
    let version = u16::from_le_bytes([body[8], body[9]]) + 1;
    body[8..10].copy_from_slice(&version.to_le_bytes());
    let hash = blake3::hash(&body);
    Some([body.as_slice(), hash.as_bytes()].concat())
}

fn refused(what: &str, words: Option<String>) {
    let words = words.unwrap_or_else(|| panic!("{what} of a newer version was taken"));
    assert!(words.to_lowercase().contains("newer hearth") && words.contains("version"), "{what}: {words}");
}

#[tokio::test]
async fn a_newer_version_of_anything_stored_is_refused_in_words_and_left_as_it_is() {
    type Prepare = fn(&Arc<StateDir>, &Path);
    let staged: Prepare = |state, aside| {
        let parts = Parts::of(state, true).unwrap();
        let (mut store, _) = SledStore::open(state.path(), SledOptions::default()).unwrap();
        let now = SystemTime::now();
        format::write(&mut fs::File::create(aside).unwrap(), aside, &parts, &mut store, now, &mut || ())
            .unwrap();
        restore::stage(state, &Backup::open(aside).unwrap(), true).unwrap();
    };
    let leaving: Prepare = |state, _| household::prepare_to_leave(state).unwrap();
    let nothing: Prepare = |_, _| ();
    let mut seen = Vec::new();
    for (prepare, only) in [(nothing, None), (leaving, Some("next")), (staged, Some("parts"))] {
        let folder = Folder::new();
        let root = folder.join("state");
        let state = lived(&root).await;
        prepare(&state, &folder.join("home.hearth"));
        drop(state);
        for (path, good) in content(&root) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if only.is_some_and(|only| only != name) {
                continue;
            }
            let Some(newer) = one_higher(&good) else { continue };
            fs::write(&path, newer).unwrap();
            let before = content(&root);
            refused(&name, begin(&root).await.err());
            assert!(content(&root) == before, "{name}: something was changed");
            fs::write(&path, good).unwrap();
            seen.push(name);
        }
        begin(&root).await.unwrap();
    }
    seen.sort();
    let all = [
        "clock",
        "incarnation",
        "incarnation.copy",
        "invites",
        "next",
        "node.key",
        "node.key.copy",
        "parts",
        "peers",
        "roster",
        "roster.copy",
        "setup-code",
        "sign-ins",
        "store.mark",
        "version",
    ];
    assert_eq!(seen, all, "every small file that there is");
}

#[tokio::test]
async fn a_newer_version_of_a_record_or_of_the_store_itself_is_refused_and_no_record_is_touched() {
    let folder = Folder::new();
    drop(lived(folder.path()).await);
    let held = || {
        let (mut store, report) = SledStore::open(folder.path(), SledOptions::default()).unwrap();
        (report.steps, records_of(&mut store))
    };
    store(&folder, vec![(record::ceiling(Hlc::from_ms(6)).0, b"\x02of a newer form".to_vec())]);
    let before = (content(folder.path()), held());
    refused("a record", begin(folder.path()).await.err());
    assert!((content(folder.path()), held()) == before, "something was changed");

    store(&folder, vec![record::ceiling(Hlc::from_ms(6))]);
    let (files, records) = (content(folder.path()), held());
    change_tally(folder.path(), |now| [[now[0] + 1].as_slice(), &now[1..], b"and more"].concat());
    refused("the store", begin(folder.path()).await.err());
    assert!(content(folder.path()) == files, "something was changed");
    // Neither is it repaired where its log must be read without sled.
    let snapshots: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(folder.join(STORE_FOLDER))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().as_encoded_bytes().starts_with(b"snap."))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    assert!(!snapshots.is_empty());
    snapshots.iter().for_each(|(path, _)| fs::write(path, b"rot").unwrap());
    refused("the log", begin(folder.path()).await.err());
    assert!(!folder.join("store.damaged-1").exists() && !folder.join("store.rebuild").exists());
    snapshots.iter().for_each(|(path, whole)| fs::write(path, whole).unwrap());

    change_tally(folder.path(), |newer| [[newer[0] - 1].as_slice(), &newer[1..newer.len() - 8]].concat());
    assert_eq!(held(), records);
    // The form before there was a journal is read, and the one before it had a version.
    for older in [|now: &[u8]| [&[1], &now[1..25]].concat(), |now: &[u8]| now[1..25].to_vec()] {
        change_tally(folder.path(), older);
        assert_eq!(held(), records);
    }
    begin(folder.path()).await.unwrap();
}

/// Gives the tally of a closed store another form. It is sealed like the records, by a key of its own.
fn change_tally(root: &Path, form: impl Fn(&[u8]) -> Vec<u8>) {
    let key = b"\0tally".as_slice();
    let deadline = Instant::now() + Duration::from_secs(10);
    let db = loop {
        match ::sled::open(root.join(STORE_FOLDER)) {
            Ok(db) => break db,
            // The lock may outlive the store for a moment.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    let sealed = db.get(key).unwrap().unwrap();
    let value = form(&sealed[..sealed.len() - 8]);
    let mut seal = blake3::Hasher::new();
    seal.update(&(key.len() as u64).to_le_bytes()).update(key).update(&value);
    let mut short = [0; 8];
    seal.finalize_xof().fill(&mut short);
    db.insert(key, [value.as_slice(), &short].concat()).unwrap();
    db.flush().unwrap();
}

#[tokio::test]
async fn a_newer_version_of_an_export_or_a_backup_is_refused_in_words() {
    let folder = Folder::new();
    let root = folder.join("state");
    let state = lived(&root).await;
    let (mut store, _) = SledStore::open(&root, SledOptions::default()).unwrap();
    let (export, backup, now) = (folder.join("a.hx"), folder.join("a.hearth"), SystemTime::now());
    export::write(&mut store, &export, now, &mut || ()).unwrap();
    let (parts, mut file) = (Parts::of(&state, false).unwrap(), fs::File::create(&backup).unwrap());
    format::write(&mut file, &backup, &parts, &mut store, now, &mut || ()).unwrap();
    for path in [&export, &backup] {
        let mut bytes = fs::read(path).unwrap();
        bytes[8] += 1;
        fs::write(path, &bytes).unwrap();
        refused(&path.display().to_string(), Backup::open(path).err().map(|error| error.to_string()));
        assert_eq!(fs::read(path).unwrap(), bytes);
    }
    refused("an export", export::verify(&export).err().map(|error| error.to_string()));
}
