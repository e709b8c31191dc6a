//! The nodes that are measured.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hearth_tests::{
    daemon::{Daemon, Folder, Launch, Observer, PATIENCE, Plan, Session, discreet, steady_pace, wait_until},
    emulator::{COLOR_BULB, Emulator},
};
use serde_json::{Value, json};
use tokio::{
    net::UnixDatagram,
    time::{Interval, timeout},
};

const LAMP: &str = "device/lifx-d073d5000001";
const NOTE: &str = "note/bench";

/// Two nodes; a client writes to the first by a connection that it keeps, and a client watches the
/// second by a WebSocket, both over TLS.
pub(crate) struct Home {
    near: Daemon,
    _far: Daemon,
    writer: Session,
    pace: Interval,
    observer: Observer,
    /// The commands that the observer has been told of.
    commands: BTreeSet<String>,
    _emulator: Emulator,
}

impl Home {
    /// Starts them with a bulb: what clients change on the overlay is a command, a command is for a device, and
    /// only an adapter makes one.
    pub(crate) async fn start(launch: &Launch) -> Result<Self> {
        let emulator = Emulator::start(&[COLOR_BULB]).await?;
        let config = format!("[adapters.lifx]\naddresses = [\"{}\"]\nbroadcast = []\n", emulator.address());
        let plan = |name| Plan::new(name).launch(launch.clone()).config(&config);
        let near = plan("near").start().await?;
        let far = near.joined_by(plan("far")).await?;
        wait_until("both know the bulb", PATIENCE, async || {
            let known = async |node: &Daemon| Ok::<_, anyhow::Error>(node.fields(LAMP).await? != Value::Null);
            Ok(known(&near).await? && known(&far).await?)
        })
        .await?;
        let writer = near.web(Some(&near.token("operator").await?)).await?.session().await?;
        let token = near.token("viewer").await?;
        wait_until("the token is known to both", PATIENCE, async || {
            Ok(far.web(Some(&token)).await?.get("/api/v1/status").await?.status == 200)
        })
        .await?;
        let mut observer = far.web(Some(&token)).await?.watch().await?;
        observer.subscribe(&["command/", NOTE], None).await?;
        let commands = BTreeSet::new();
        Ok(Self { near, _far: far, writer, pace: steady_pace(), observer, commands, _emulator: emulator })
    }

    /// One change on the overlay, which clients make by a command: until it is seen at the other end, and
    /// until whoever gave it is answered. What becomes of it then is the bulb's time, not the mesh's.
    pub(crate) async fn overlay(&mut self, round: usize) -> Result<(Duration, Duration)> {
        self.pace.tick().await;
        let body = json!({ "device": LAMP, "change": { "brightness": round % 101 }, "deadline_ms": 1_000 });
        let commands = &mut self.commands;
        let is_new = |object: &Value| {
            let id = object["id"].as_str().unwrap_or_default();
            id.starts_with("command/") && commands.insert(id.to_owned())
        };
        exchange(&mut self.writer, &mut self.observer, ("POST", "/api/v1/commands"), &body, is_new).await
    }

    /// One change on the durable plane, until it is seen and until it is answered.
    pub(crate) async fn durable(&mut self, payload: String) -> Result<(Duration, Duration)> {
        self.pace.tick().await;
        let body = json!({ "set": { "text": payload } });
        let path = format!("/api/v1/objects/{NOTE}");
        let is_new = |object: &Value| object["id"] == NOTE && object["fields"]["text"] == payload;
        exchange(&mut self.writer, &mut self.observer, ("PATCH", &path), &body, is_new).await
    }

    /// Resident memory of the node that is written to, in KiB.
    pub(crate) fn rss_kib(&self) -> Result<u64> {
        self.near.rss_kib()
    }

    /// A folder on the disk of the store.
    pub(crate) fn folder(&self) -> PathBuf {
        self.near.state_dir().to_owned()
    }
}

/// Sends a request and waits for its answer and for what it makes the observer see; answers with how long it took
/// until it was seen, and until it was answered.
async fn exchange(
    writer: &mut Session,
    observer: &mut Observer,
    (method, path): (&str, &str),
    body: &Value,
    mut is_it: impl FnMut(&Value) -> bool,
) -> Result<(Duration, Duration)> {
    let begun = Instant::now();
    let answered = async {
        let answer = writer.exchange(method, path, Some(("application/json", body.to_string()))).await?;
        answer.success()?;
        anyhow::Ok(begun.elapsed())
    };
    let seen = async {
        loop {
            if is_it(&observer.next().await?["object"]) {
                return anyhow::Ok(begun.elapsed());
            }
        }
    };
    let (answered, seen) = tokio::try_join!(answered, seen)?;
    Ok((seen, answered))
}

/// What a node alone needs; memory in KiB, times in microseconds.
pub(crate) struct Alone {
    pub(crate) empty_kib: u64,
    pub(crate) written_kib: u64,
    pub(crate) restarted_kib: u64,
    /// The start that founds the household.
    pub(crate) first_us: u64,
    pub(crate) empty_us: u64,
    pub(crate) objects_us: u64,
}

/// How often a start is measured; the median counts.
const STARTS: usize = 15;

/// Measures a node without peers, empty and with so many objects of 200 bytes.
pub(crate) async fn alone(launch: &Launch, objects: usize) -> Result<Alone> {
    let folder = Folder::new()?;
    let ready = Ready::listen(&folder)?;
    let launch = launch.clone().variable("NOTIFY_SOCKET", ready.path.display().to_string());
    let state = folder.join("node");
    std::fs::create_dir(&state)?;
    std::fs::write(state.join("hearth.toml"), discreet(""))?;
    let (node, at) = tokio::join!(Daemon::on(&state, &launch), ready.heard());
    let mut node = node?;
    let first_us = micros(at?.saturating_duration_since(node.started()));
    let empty_us = restarts(&mut node, &ready).await?;
    let empty_kib = node.rss_kib()?;
    let lines: String = (0..objects)
        .map(|n| {
            format!("{}\n", json!({ "id": format!("note/n{n}"), "fields": { "text": "x".repeat(200) } }))
        })
        .collect();
    node.cli_with(&["import", "-"], lines.as_bytes()).await?.ok()?;
    let held = node.status().await?["objects"].as_u64().context("no count")?;
    ensure!(held >= objects as u64, "{held} of {objects} objects were imported");
    let written_kib = node.rss_kib()?;
    let objects_us = restarts(&mut node, &ready).await?;
    Ok(Alone { empty_kib, written_kib, restarted_kib: node.rss_kib()?, first_us, empty_us, objects_us })
}

/// The median time of a few starts, in microseconds.
async fn restarts(node: &mut Daemon, ready: &Ready) -> Result<u64> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        node.stop().await?;
        ready.drain();
        let (started, at) = tokio::join!(node.start(), ready.heard());
        started?;
        times.push(micros(at?.saturating_duration_since(node.started())));
    }
    times.sort_unstable();
    times.get(STARTS / 2).copied().context("no start")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What systemd would hear (sd_notify(3)).
struct Ready {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Ready {
    fn listen(folder: &Folder) -> Result<Self> {
        let path = folder.join("notify");
        Ok(Self { socket: UnixDatagram::bind(&path)?, path })
    }

    /// The moment at which a node says that it is ready.
    async fn heard(&self) -> Result<Instant> {
        let mut bytes = [0; 4_096];
        loop {
            let length =
                timeout(PATIENCE, self.socket.recv(&mut bytes)).await.context("no node is ready")??;
            let at = Instant::now();
            if String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).contains("READY=1") {
                return Ok(at);
            }
        }
    }

    fn drain(&self) {
        while self.socket.try_recv(&mut [0; 4_096]).is_ok() {}
    }
}
