//! Real name servers (Knot DNS and BIND) for one test, which take dynamic updates.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::daemon::{Folder, PATIENCE, another_time, free_port, wait_until};

/// The key that a server has, in base64.
pub const SECRET: &str = "Zm9yIHRoZSBuYW1lIHNlcnZlciBvZiBhIHRlc3Q9PT0=";
/// Its name.
pub const KEY: &str = "hearth";
/// Where a server says what it does.
const LOG: &str = "log";
/// How many ports are tried: somebody else may take one between the look and the start.
const MOST_TRIES: usize = 8;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Knot DNS.
    Knot,
    /// BIND.
    Bind,
}

impl Program {
    /// Where Debian puts it.
    fn path(self) -> &'static str {
        match self {
            Self::Knot => "/usr/sbin/knotd",
            Self::Bind => "/usr/sbin/named",
        }
    }

    /// What it says once it listens.
    fn runs(self, log: &str) -> bool {
        match self {
            Self::Knot => log.contains("server started in the foreground"),
            Self::Bind => log.contains(" running\n"),
        }
    }
}

/// What a server keeps.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Its name, without the dot at its end.
    pub name: &'static str,
    /// Its records as a zone file has them, but for SOA.
    pub records: String,
    /// The names in it, without the zone's, whose TXT records the key may change.
    pub changeable: &'static [&'static str],
    /// The server that it is fetched from, at the same port; it keeps its own records otherwise.
    pub from: Option<Ipv4Addr>,
    /// Servers that fetch it, which are told of changes, at the same port.
    pub told: Vec<Ipv4Addr>,
}

impl Zone {
    /// One whose name server is at loopback, and that may be changed at `_acme-challenge` and `_acme-challenge.home`.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            records: "@ NS ns1\nns1 A 127.0.0.1\n".to_owned(),
            changeable: &["_acme-challenge", "_acme-challenge.home"],
            from: None,
            told: Vec::new(),
        }
    }

    fn file(&self) -> String {
        format!("$ORIGIN {}.\n$TTL 60\n@ SOA ns1 root 1 3600 600 86400 60\n{}", self.name, self.records)
    }
}

/// A name server on a free port of this machine alone.
#[derive(Debug)]
pub struct NameServer {
    program: Program,
    /// Where it listens.
    pub at: SocketAddr,
    algorithm: &'static str,
    process: Child,
    folder: Folder,
}

impl NameServer {
    /// Starts one on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// When it is not installed, or does not listen in time.
    pub async fn start(program: Program, algorithm: &'static str, zones: &[Zone]) -> Result<Self> {
        Self::with_clock(program, algorithm, zones, None).await
    }

    /// Starts one that begins at another time, as [`another_time`] takes it.
    ///
    /// # Errors
    /// As [`NameServer::start`].
    pub async fn with_clock(
        program: Program,
        algorithm: &'static str,
        zones: &[Zone],
        time: Option<&str>,
    ) -> Result<Self> {
        for _ in 0..MOST_TRIES {
            let at = (Ipv4Addr::LOCALHOST, free_port()?).into();
            if let Some(server) = Self::begin(program, at, algorithm, zones, time).await? {
                return Ok(server);
            }
        }
        bail!("{} starts on none of {MOST_TRIES} ports", program.path())
    }

    /// Starts one there; `None` when the port is taken.
    ///
    /// # Errors
    /// As [`NameServer::start`].
    pub async fn begin(
        program: Program,
        at: SocketAddr,
        algorithm: &'static str,
        zones: &[Zone],
        time: Option<&str>,
    ) -> Result<Option<Self>> {
        ensure!(Path::new(program.path()).exists(), "{} is missing: run tests/setup", program.path());
        let folder = Folder::new()?;
        for zone in zones.iter().filter(|zone| zone.from.is_none()) {
            std::fs::write(folder.join(zone.name), zone.file())?;
        }
        let config = match program {
            Program::Knot => knot(&folder, at, algorithm, zones)?,
            Program::Bind => bind(&folder, at, algorithm, zones)?,
        };
        std::fs::write(folder.join("config"), config)?;
        // A copy: AppArmor lets Debian's own read and write in the folders of its service alone. Another program makes it: a
        // process that was forked here meanwhile would hold what this one wrote open, and nobody can start that ("text file busy").
        let copy = folder.join("server");
        let copied = Command::new("cp").arg(program.path()).arg(&copy).status().await?;
        ensure!(copied.success(), "{} cannot be copied: {copied}", program.path());
        let mut server =
            Self { program, at, algorithm, process: spawn(program, &copy, &folder, time)?, folder };
        let mut runs = false;
        wait_until("the name server listens, or ends", PATIENCE, async || {
            let taken = server.said().contains("address in use") || server.said().contains("already in use");
            runs = server.program.runs(&server.said()) && !taken;
            Ok(runs || taken || server.process.try_wait()?.is_some())
        })
        .await?;
        let ended = server.process.try_wait()?.is_some();
        ensure!(!ended || server.said().contains("in use"), "the name server ended: {}", server.said());
        Ok(Some(server).filter(|_| runs))
    }

    /// What it said so far.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join(LOG)).unwrap_or_default()
    }

    /// Stops it at once.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Holds it, so that it neither answers nor closes anything.
    ///
    /// # Errors
    /// When it does not run.
    pub fn hold(&self) -> Result<()> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(kill_process(id.context("the name server ended by itself")?, Signal::STOP)?)
    }

    /// The texts at a name, in order, as the clients that come with the servers read them.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn texts(&self, name: &str) -> Result<Vec<String>> {
        let client = match self.program {
            Program::Knot => "kdig",
            Program::Bind => "dig",
        };
        let mut ask = Command::new(client);
        ask.arg(format!("@{}", self.at.ip())).args(["-p", &self.at.port().to_string(), "+short", "+norec"]);
        let answer = ask.args([name, "TXT"]).stdin(Stdio::null()).output().await;
        let answer = answer.with_context(|| format!("{client} is missing: run tests/setup"))?;
        ensure!(answer.status.success(), "{client}: {}", String::from_utf8_lossy(&answer.stdout));
        let text = String::from_utf8(answer.stdout)?;
        let mut texts: Vec<String> = text.lines().map(|line| line.trim_matches('"').to_owned()).collect();
        texts.sort();
        Ok(texts)
    }

    /// A file with that in it, in the server's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.join(name);
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// What makes its key's codes.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }
}

fn spawn(program: Program, copy: &Path, folder: &Folder, time: Option<&str>) -> Result<Child> {
    let log = std::fs::File::create(folder.join(LOG))?;
    let mut command = Command::new(copy);
    command.arg("-c").arg(folder.join("config"));
    if program == Program::Bind {
        // In the foreground, with its log on the standard error, and one thread.
        command.args(["-g", "-n", "1"]);
    }
    command.envs(time.into_iter().flat_map(another_time));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    command.spawn().context("the name server does not start")
}

/// The configuration of Knot DNS.
fn knot(folder: &Folder, at: SocketAddr, algorithm: &str, zones: &[Zone]) -> Result<String> {
    let place = folder.join("").display().to_string();
    let (ip, port) = (at.ip(), at.port());
    let mut config = format!(
        "server:\n    rundir: {place:?}\n    listen: {ip}@{port}\n    background-workers: 1\n    udp-workers: 1\n    \
         tcp-workers: 1\nlog:\n  - target: stderr\n    any: info\ndatabase:\n    storage: {place:?}\n    \
         journal-db-max-size: 16M\n    kasp-db-max-size: 16M\n    timer-db-max-size: 1M\n\
         key:\n  - id: {KEY}\n    algorithm: {algorithm}\n    secret: {SECRET}\n"
    );
    let others: Vec<Ipv4Addr> =
        zones.iter().flat_map(|zone| zone.told.iter().copied().chain(zone.from)).collect();
    if !others.is_empty() {
        config.push_str("remote:\n");
    }
    for other in others {
        writeln!(config, "  - id: at-{other}\n    address: {other}@{port}")?;
    }
    config.push_str("acl:\n  - id: transfer\n    address: 127.0.0.0/8\n    action: [transfer, notify]\n");
    for zone in zones.iter().filter(|zone| !zone.changeable.is_empty()) {
        let (name, changeable) = (zone.name, zone.changeable.join(", "));
        writeln!(config, "  - id: {name}\n    key: {KEY}\n    action: update\n    update-type: TXT")?;
        writeln!(
            config,
            "    update-owner: name\n    update-owner-match: equal\n    update-owner-name: [{changeable}]"
        )?;
    }
    config.push_str("zone:\n");
    for zone in zones {
        let name = zone.name;
        let rules =
            if zone.changeable.is_empty() { "transfer".to_owned() } else { format!("transfer, {name}") };
        writeln!(config, "  - domain: {name}\n    storage: {place:?}\n    file: {name}\n    acl: [{rules}]")?;
        writeln!(config, "    zonefile-sync: -1\n    journal-content: all")?;
        if let Some(from) = zone.from {
            writeln!(config, "    master: at-{from}")?;
        }
        for told in &zone.told {
            writeln!(config, "    notify: at-{told}")?;
        }
    }
    Ok(config)
}

/// The configuration of BIND.
fn bind(folder: &Folder, at: SocketAddr, algorithm: &str, zones: &[Zone]) -> Result<String> {
    let place = folder.join("").display().to_string();
    let (ip, port) = (at.ip(), at.port());
    let mut config = format!(
        "options {{ directory {place:?}; pid-file none; session-keyfile \"session.key\"; managed-keys-directory \".\"; \
         listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }}; query-source address {ip}; \
         notify-source {ip}; transfer-source {ip}; recursion no; notify explicit; dnssec-validation no; }};\n\
         controls {{ }};\nkey {KEY:?} {{ algorithm {algorithm}; secret {SECRET:?}; }};\n"
    );
    for zone in zones {
        let name = zone.name;
        writeln!(config, "zone {name:?} {{ file {name:?}; allow-transfer {{ 127.0.0.0/8; }};")?;
        if let Some(from) = zone.from {
            writeln!(
                config,
                "type secondary; primaries {{ {from} port {port}; }}; allow-notify {{ 127.0.0.0/8; }};"
            )?;
        } else {
            let grants =
                zone.changeable.iter().map(|owner| format!("grant {KEY} name {owner}.{name}. TXT; "));
            let grants: String = grants.collect();
            let rules =
                if grants.is_empty() { String::new() } else { format!("update-policy {{ {grants}}};") };
            writeln!(config, "type primary; notify-delay 0; {rules}")?;
        }
        if !zone.told.is_empty() {
            let told: Vec<String> = zone.told.iter().map(|ip| format!("{ip} port {port};")).collect();
            writeln!(config, "also-notify {{ {} }};", told.join(" "))?;
        }
        config.push_str("};\n");
    }
    Ok(config)
}
