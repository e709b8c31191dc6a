//! Real nodes as processes: started, asked, killed, and cleaned up.
//!
//! Each [`Daemon`] runs the built `hearth` in a temporary state folder on a port of its own on
//! loopback. It is killed when dropped, and shows its log when the test fails. Nothing here waits
//! for a time to pass: [`wait_until`] polls a condition and names it when its deadline passes.
#![allow(clippy::indexing_slicing, reason = "only JSON is indexed, which answers null for what is not there")]

mod cli;
pub mod client;
mod launch;
pub mod namespaces;
mod place;
mod program;
mod wait;

use std::{
    fmt, fs,
    net::SocketAddr,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout},
};

pub use cli::Cli;
pub use client::{Answer, Client, Observer, Session, steady_pace, trusting};
pub use launch::{Launch, another_time, clean, discreet};
pub use namespaces::Namespaces;
pub use place::{Folder, free_port};
pub use program::hearth as program;
pub use wait::wait_until;

use wait::pace;

/// How long anything that works may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// So many times as long as the promise for a board that has nothing else to do: other tests run beside.
pub const BUSY: u32 = 2;
/// How much of a log is shown.
const LOG_LINES: usize = 80;

/// How to start a node.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    name: String,
    config: String,
    join: Option<String>,
    launch: Launch,
}

impl Plan {
    /// A node of this name that founds a household and speaks to no devices.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// With this config file. Adapters that it does not speak of leave the machine and its LAN alone.
    #[must_use]
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = toml.into();
        self
    }

    /// Joins with a token at its first start.
    #[must_use]
    pub fn join(mut self, token: &str) -> Self {
        self.join = Some(token.to_owned());
        self
    }

    /// Started like this instead.
    #[must_use]
    pub fn launch(mut self, launch: Launch) -> Self {
        self.launch = launch;
        self
    }

    /// Runs this program instead; see [`Launch::program`].
    #[must_use]
    pub fn program(mut self, words: &[&str]) -> Self {
        self.launch = self.launch.program(words);
        self
    }

    /// With this variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.launch = self.launch.variable(name, value);
        self
    }

    /// In a network namespace, by its full name, where it listens at this address.
    #[must_use]
    pub fn network(mut self, namespace: &str, listen: SocketAddr) -> Self {
        self.launch = self.launch.on_board(namespace).listen(listen);
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When the program is not built, or the node ends or does not answer in time.
    pub async fn start(self) -> Result<Daemon> {
        let folder = Folder::new()?;
        let state = folder.join(&self.name);
        fs::create_dir(&state)?;
        fs::write(state.join("hearth.toml"), discreet(&self.config))?;
        let launch = self.launch.with(&["--name", &self.name]);
        let first = match &self.join {
            // Where other users of the machine cannot see it.
            Some(token) => launch.clone().variable("HEARTH_JOIN", token),
            None => launch.clone(),
        };
        let mut daemon = Daemon::on(&state, &first).await?;
        daemon.launch = launch;
        daemon.folder = Some(folder);
        Ok(daemon)
    }
}

/// A node, running or stopped.
pub struct Daemon {
    name: String,
    launch: Launch,
    state: PathBuf,
    log: PathBuf,
    address: SocketAddr,
    process: Option<Child>,
    started: std::time::Instant,
    folder: Option<Folder>,
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Daemon {
    /// Starts a node that founds a household.
    ///
    /// # Errors
    /// See [`Plan::start`].
    pub async fn found(name: &str) -> Result<Self> {
        Plan::new(name).start().await
    }

    /// Starts a node on a state folder, which keeps its own files apart from the log beside it.
    ///
    /// # Errors
    /// See [`Plan::start`].
    pub async fn on(state: &Path, launch: &Launch) -> Result<Self> {
        let name = state.file_name().context("a state folder has a name")?.to_string_lossy().into_owned();
        let address = launch.address()?;
        let (state, log) = (state.to_owned(), state.with_extension("log"));
        let started = std::time::Instant::now();
        let launch = launch.clone();
        let mut daemon = Self { name, launch, state, log, address, process: None, started, folder: None };
        daemon.start().await?;
        Ok(daemon)
    }

    /// Starts a node that joins this one's household, and waits until each sees the other alive.
    ///
    /// # Errors
    /// See [`Plan::start`].
    pub async fn joined(&self, name: &str) -> Result<Self> {
        self.joined_by(Plan::new(name)).await
    }

    /// The same by a plan.
    ///
    /// # Errors
    /// See [`Plan::start`].
    pub async fn joined_by(&self, plan: Plan) -> Result<Self> {
        let other = plan.join(&self.invite().await?).start().await?;
        self.sees(&other, "alive").await?;
        other.sees(self, "alive").await?;
        Ok(other)
    }

    /// A fresh token.
    ///
    /// # Errors
    /// When this node may not invite.
    pub async fn invite(&self) -> Result<String> {
        Ok(self.cli(&["invite", "-q"]).await?.ok()?.stdout.trim().to_owned())
    }

    /// The friendly name with which it was started.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The state folder.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// The state folder as the node itself sees it, mounts of its own included.
    #[must_use]
    pub fn inner_state_dir(&self) -> PathBuf {
        if !self.launch.has_mounts() {
            return self.state.clone();
        }
        let inside = PathBuf::from(format!("/proc/{}/root{}", self.pid().unwrap_or(0), self.state.display()));
        let socket = fs::metadata(inside.join("hearth.sock"));
        if socket.is_ok_and(|about| about.file_type().is_socket()) { inside } else { self.state.clone() }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process; none when it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Child::id)
    }

    /// When the process was started last.
    #[must_use]
    pub fn started(&self) -> std::time::Instant {
        self.started
    }

    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts it (again) in the same folder on the same port and waits until it answers.
    ///
    /// # Errors
    /// When it ends, or does not answer in time; with its log.
    pub async fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::from(self.launch.command(&self.state, self.address)?);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        self.started = std::time::Instant::now();
        self.process = Some(command.spawn().with_context(|| format!("cannot start {command:?}"))?);
        self.answers().await
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it ends, or does not answer in time; with its log.
    pub async fn answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut pace = pace();
        loop {
            pace.tick().await;
            if let Some(status) = self.process.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("{} ended at its start ({status}):\n{}", self.name, self.log());
            }
            if let Ok(answer) = self.client().get("/healthz").await
                && answer.status == 200
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} does not answer:\n{}", self.name, self.log());
        }
    }

    /// `kill -9`: no goodbye, no flush.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        process.kill().await?;
        Ok(())
    }

    /// Stops it as systemd does; answers with its exit code.
    ///
    /// # Errors
    /// When it does not run or does not stop in time.
    pub async fn stop(&mut self) -> Result<Option<i32>> {
        self.signal(Signal::TERM)?;
        self.ends().await
    }

    /// Waits until it has ended; answers with its exit code.
    ///
    /// # Errors
    /// When it does not run or does not end in time.
    pub async fn ends(&mut self) -> Result<Option<i32>> {
        let mut process = self.process.take().context("it does not run")?;
        let ended = timeout(PATIENCE, process.wait()).await;
        Ok(ended.with_context(|| format!("{} does not stop:\n{}", self.name, self.log()))??.code())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("it does not run")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Runs a command of the command line against this node.
    ///
    /// # Errors
    /// When it cannot be started or hangs.
    pub async fn cli(&self, args: &[&str]) -> Result<Cli> {
        self.cli_with(args, &[]).await
    }

    /// The same with `--json`; answers with what it printed, if it succeeded.
    ///
    /// # Errors
    /// When it fails; with all that it printed.
    pub async fn json(&self, args: &[&str]) -> Result<Value> {
        let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        self.cli(&all).await?.ok()?.json()
    }

    /// Runs a command with something on its standard input.
    ///
    /// # Errors
    /// When it cannot be started or hangs.
    pub async fn cli_with(&self, args: &[&str], input: &[u8]) -> Result<Cli> {
        let mut command = self.hearth()?;
        command.args(args);
        Cli::of(command, input).await
    }

    /// `hearth` with this node's state folder, and nothing of the caller's configuration.
    ///
    /// # Errors
    /// When it is not built, or older than its source.
    pub fn hearth(&self) -> Result<Command> {
        let mut command = launch::hearth()?;
        command.arg("--state-dir").arg(self.inner_state_dir()).current_dir(&self.state);
        Ok(command.into())
    }

    /// A client on its Unix socket, as an admin.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::socket(&self.inner_state_dir())
    }

    /// A client over TLS that trusts this node's CA alone, with a token or without.
    ///
    /// # Errors
    /// When the CA cannot be had.
    pub async fn web(&self, token: Option<&str>) -> Result<Client> {
        let pem = self.cli(&["ca", "export"]).await?.ok()?.stdout;
        Client::web(self.address(), &pem, token)
    }

    /// A token of a role.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn token(&self, role: &str) -> Result<String> {
        let made = self.json(&["token", "create", "--role", role]).await?;
        Ok(made["token"].as_str().context("no token")?.to_owned())
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn rss_kib(&self) -> Result<u64> {
        self.memory_kib("VmRSS:")
    }

    /// The most that its resident memory ever was since the process started, in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn peak_rss_kib(&self) -> Result<u64> {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, line: &str) -> Result<u64> {
        let pid = self.pid().context("it does not run")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = status.lines().find_map(|found| found.strip_prefix(line)?.split_whitespace().next());
        Ok(kib.with_context(|| format!("no {line}"))?.parse()?)
    }

    /// `hearth status --json` by its socket.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> Result<Value> {
        self.client().get("/api/v1/status").await?.success()
    }

    /// Its key in hexadecimal.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn id(&self) -> Result<String> {
        Ok(self.status().await?["node"].as_str().context("no node")?.to_owned())
    }

    /// How this node sees another: `alive`, `dead`, `unknown`; `none` when it does not know it.
    ///
    /// # Errors
    /// When this one does not answer.
    pub async fn state_of(&self, other: &str) -> Result<String> {
        let status = self.status().await?;
        let nodes = status["nodes"].as_array().context("no nodes")?;
        let found = nodes.iter().find(|node| node["name"] == other || node["id"] == other);
        Ok(found.and_then(|node| node["state"].as_str()).unwrap_or("none").to_owned())
    }

    /// Waits until this node sees the other so, by its friendly name.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn sees(&self, other: &Self, state: &str) -> Result<()> {
        let what = format!("{} sees {} {state}", self.name, other.name);
        wait_until(&what, PATIENCE, async || Ok(self.state_of(&other.name).await? == state)).await
    }

    /// The fields of an object, `null` when there is none.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn fields(&self, object: &str) -> Result<Value> {
        let answer = self.client().get(&format!("/api/v1/objects/{object}")).await?;
        if answer.status == 404 {
            return Ok(Value::Null);
        }
        Ok(answer.success()?["fields"].take())
    }

    /// Writes fields through the API; returns when the node has acknowledged it.
    ///
    /// # Errors
    /// When the node refuses or does not answer.
    pub async fn put(&self, object: &str, fields: Value) -> Result<Value> {
        let body = json!({ "set": fields });
        self.client().send("PATCH", &format!("/api/v1/objects/{object}"), Some(&body)).await?.success()
    }

    /// Waits until this node shows these fields of an object; `null` for no object.
    ///
    /// # Errors
    /// When it does not in time; with what it shows.
    pub async fn converge(&self, object: &str, fields: &Value) -> Result<()> {
        let what = format!("{} shows {object} as {fields}", self.name);
        let mut last = Value::Null;
        let done = wait_until(&what, PATIENCE, async || {
            last = self.fields(object).await?;
            Ok(last == *fields)
        });
        let done = done.await;
        done.with_context(|| format!("it shows {last}"))
    }
}

impl Drop for Daemon {
    #[expect(clippy::print_stderr, reason = "what a failed test shows")]
    #[expect(clippy::disallowed_methods, reason = "its folder is removed next, and it must be gone by then")]
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.start_kill();
            while let Ok(None) = process.try_wait() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
            eprintln!("---- the log of {} ({} lines)\n{}", self.name, lines.len(), tail.join("\n"));
        }
    }
}
