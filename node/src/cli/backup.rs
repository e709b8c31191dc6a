//! `backup` and `restore`.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use hyper::{Method, header::CONTENT_LENGTH};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    Session,
    args::{BackupArgs, RestoreArgs},
    client::broken_off,
    exit::{Exit, Failure},
    output::{Done, Output},
    part::Part,
};
use crate::{
    api::json::timestamp,
    backup::{
        Backup, BackupError, Parts, format,
        objects::write_lines,
        restore::{self, RestoreError, Restored},
    },
    state_dir::{StateDir, StateDirError},
    store::sled::{SledOptions, SledStore},
};

/// How long a running node may take to put its backup together.
const MAKING: Duration = Duration::from_secs(600);
/// How long the stream may stand still.
const STALL: Duration = Duration::from_secs(60);
/// How often is told how far it has come.
const TELL_EVERY: Duration = Duration::from_secs(2);

impl Session {
    pub(super) async fn backup(&self, args: &BackupArgs) -> Done<Exit> {
        let to = args.file.as_path();
        refuse_overwriting(to, args.force)?;
        let mut part = Part::create(to).map_err(|error| unwritable(to, &error))?;
        let path = format!("/api/v1/backup?with_key={}", args.with_key);
        match self.client.patient(MAKING).send(Method::GET, &path, None).await {
            Ok(response) => self.download(response, &mut part).await?,
            // No node runs: its folder is read by this program.
            Err(failure) if failure.exit == Exit::Unreachable && is_of_a_node(self.client.state_dir()) => {
                backup_stopped(self.client.state_dir(), args.with_key, &mut part, self.out)?;
            }
            Err(failure) => return Err(failure.into()),
        }
        let backup = Backup::open(&part.path).map_err(|error| refused(&error))?;
        part.finish(to).map_err(|error| unwritable(to, &error))?;
        let about = about(&backup, to);
        self.out.either(&about, || {
            format!("{} is a backup of {} KiB", to.display(), backup.bytes.div_ceil(1_024))
        })?;
        self.out.note(if args.with_key {
            "It holds the key of this node: whoever has the file can be this node. Keep it where nobody else reads it."
        } else {
            "It holds no key: it can be restored into the folder of this node; on a new card the node joins again first."
        });
        Ok(Exit::Ok)
    }

    async fn download(&self, response: hyper::Response<hyper::body::Incoming>, part: &mut Part) -> Done {
        let length =
            response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let mut progress = Progress::new(self.out, length);
        let mut body = response.into_body();
        loop {
            let still = || broken_off(&format!("nothing came for {} s", STALL.as_secs()));
            let Some(frame) = timeout(STALL, body.frame()).await.map_err(|_| still())? else { return Ok(()) };
            let frame = frame.map_err(|error| broken_off(&error.to_string()))?;
            if let Some(piece) = frame.data_ref() {
                part.file.write_all(piece).map_err(|error| unwritable(&part.path, &error))?;
                progress.add(piece.len() as u64);
            }
        }
    }
}

/// `hearth restore`: needs the folder of a node that does not run.
pub(super) fn restore(args: &RestoreArgs, state_dir: &Path, out: Output) -> Done<Exit> {
    let backup = Backup::open(&args.file).map_err(|error| refused(&error))?;
    let about = about(&backup, &args.file);
    if args.check {
        out.either(&about, || describe(&backup))?;
        return Ok(Exit::Ok);
    }
    if let Some(to) = &args.objects {
        return objects(&backup, to, args.force, out);
    }
    let state = StateDir::open(state_dir).map_err(|error| no_folder(&error))?;
    out.note(describe(&backup));
    restore::stage(&state, &backup, args.force).map_err(|error| explain(&error, args, state_dir))?;
    let mut progress = Progress::new(out, None);
    let options = SledOptions::default();
    let done = restore::carry_out(&state, &options, &mut || progress.add(1));
    let done = done.map_err(|error| explain(&error, args, state_dir))?;
    let Restored { records, has_replaced } = done.unwrap_or(Restored { records: 0, has_replaced: false });
    let mut document = about;
    if let Some(map) = document.as_object_mut() {
        map.insert("records".into(), json!(records));
        map.insert("state_dir".into(), json!(state_dir.to_string_lossy()));
        map.insert("replaced".into(), json!(has_replaced));
    }
    out.either(&document, || format!("{records} records are restored in {}", state_dir.display()))?;
    out.note("Start the node now. The state of the first other node that it meets replaces what was restored; what has no place\nthere is kept in a lost-and-found file. Alone it goes on with what was restored.");
    if has_replaced {
        out.note(format!("What was there before is kept in {}/store.replaced.", state_dir.display()));
    }
    if backup.parts.as_ref().is_some_and(|parts| parts.secrets.is_some()) {
        out.note(
            "This node now has the key of the one that made the backup: never start that one's card again.",
        );
    }
    Ok(Exit::Ok)
}

fn objects(backup: &Backup, to: &Path, force: bool, out: Output) -> Done<Exit> {
    refuse_overwriting(to, force)?;
    let mut part = Part::create(to).map_err(|error| unwritable(to, &error))?;
    let mut records = part.path.clone().into_os_string();
    records.push(".records");
    let records = PathBuf::from(records);
    let written = backup.extract(&records).and_then(|_| write_lines(&records, &mut part.file));
    // It is made anew each time.
    let _ = std::fs::remove_file(&records);
    let count = written.map_err(|error| refused(&error))?;
    part.finish(to).map_err(|error| unwritable(to, &error))?;
    out.either(&json!({ "file": to.to_string_lossy(), "objects": count }), || {
        format!("{count} objects are in {}", to.display())
    })?;
    out.note(format!("Bring them into a node that runs: hearth import {}", to.display()));
    Ok(Exit::Ok)
}

/// The folder of a node, and not any folder.
fn is_of_a_node(state_dir: &Path) -> bool {
    state_dir.join("node.key").exists() || state_dir.join("node.key.copy").exists()
}

fn backup_stopped(state_dir: &Path, with_key: bool, part: &mut Part, out: Output) -> Done {
    out.note(format!("No node runs in {}; its folder is read.", state_dir.display()));
    let state = StateDir::open(state_dir).map_err(|error| no_folder(&error))?;
    let parts = Parts::of(&state, with_key).map_err(|error| refused(&error))?;
    let (mut store, report) =
        SledStore::open(state.path(), SledOptions::default()).map_err(|error| refused(&error.into()))?;
    for step in &report.steps {
        out.note(step);
    }
    let mut progress = Progress::new(out, None);
    let now = std::time::SystemTime::now();
    let (path, file) = (part.path.clone(), &mut part.file);
    format::write(file, &path, &parts, &mut store, now, &mut || progress.add(1_000))
        .map_err(|error| refused(&error))?;
    Ok(())
}

fn about(backup: &Backup, file: &Path) -> Value {
    let parts = backup.parts.as_ref();
    let created = backup.created.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    json!({
        "file": file.to_string_lossy(),
        "bytes": backup.bytes,
        "created": timestamp(u64::try_from(created).unwrap_or(u64::MAX)),
        "node": parts.map(|parts| parts.node.to_string()),
        "household": parts.and_then(|parts| parts.roster().ok()).map(|roster| roster.household().to_string()),
        "with_key": parts.is_some_and(|parts| parts.secrets.is_some()),
    })
}

fn describe(backup: &Backup) -> String {
    let (what, with) = match &backup.parts {
        Some(parts) if parts.secrets.is_some() => {
            (format!("a backup of node {}", parts.node.short()), ", with its key")
        }
        Some(parts) => (format!("a backup of node {}", parts.node.short()), ", without its key"),
        None => ("a nightly export".into(), ""),
    };
    format!("{} is whole: {what}{with}, {}", backup.path.display(), restore::age(backup.created))
}

fn refuse_overwriting(to: &Path, force: bool) -> Result<(), Failure> {
    if force || !to.exists() {
        return Ok(());
    }
    let detail = format!("{} exists already", to.display());
    Err(Failure::new(Exit::Refused, detail, "give another name, or replace it with --force"))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let detail = format!("{} cannot be written: {error}", path.display());
    Failure::new(Exit::Failure, detail, "free some space, or give another file")
}

/// Errors whose text holds the way out.
fn refused(error: &BackupError) -> Failure {
    let exit = match error {
        BackupError::NotABackup { .. }
        | BackupError::Newer { .. }
        | BackupError::Damaged { .. }
        | BackupError::Export(_)
        | BackupError::NoNode(_) => Exit::Refused,
        BackupError::Disk(crate::store::DiskError::Io { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            Exit::NotFound
        }
        _ => Exit::Failure,
    };
    Failure { exit, detail: error.to_string(), fix: None, problem: None }
}

fn no_folder(error: &StateDirError) -> Failure {
    let fix = match error {
        StateDirError::Locked { .. } => Some("stop the node first: sudo systemctl stop hearth".to_owned()),
        _ => None,
    };
    let exit = if matches!(error, StateDirError::Locked { .. }) { Exit::Refused } else { Exit::Failure };
    Failure { exit, detail: error.to_string(), fix, problem: None }
}

fn explain(error: &RestoreError, args: &RestoreArgs, state_dir: &Path) -> Failure {
    let (file, dir) = (args.file.display(), state_dir.display());
    let lines = format!(
        "or take only its objects: hearth restore {file} --objects home.ndjson, then hearth import home.ndjson"
    );
    let fix = match error {
        RestoreError::OtherNode { .. } | RestoreError::OtherHousehold => {
            format!(
                "restore it where that node lived; on a new card, with a backup that holds its key, move {dir} aside first (docs/disk.md, \"On a new card\"); {lines}"
            )
        }
        RestoreError::NoKey => {
            format!(
                "let this board join again (`hearth invite` on another node, `hearth run --join TOKEN` here): the others have the data; {lines}"
            )
        }
        RestoreError::NoParts => lines,
        RestoreError::HoldsData(_) => {
            "replace it with --force; what is there now is kept aside in store.replaced".into()
        }
        RestoreError::Backup(error) => return refused(error),
        RestoreError::File(_) => "free some space, then run it again".into(),
    };
    Failure::new(Exit::Refused, error.to_string(), fix)
}

/// Tells every few seconds how far long work has come.
struct Progress {
    out: Output,
    done: u64,
    /// The bytes of the whole, if it is bytes that are counted; else records are.
    whole: Option<u64>,
    told: Instant,
}

impl Progress {
    fn new(out: Output, whole: Option<u64>) -> Self {
        Self { out, done: 0, whole, told: Instant::now() }
    }

    fn add(&mut self, count: u64) {
        self.done += count;
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        self.out.note(match self.whole {
            Some(whole) => format!("{} of {} KiB", self.done >> 10, whole >> 10),
            None => format!("{} records", self.done),
        });
    }
}
