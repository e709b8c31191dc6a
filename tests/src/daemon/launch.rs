//! How a daemon is started: arguments, mounts of its own, a clock of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{Cli, place::free_port, program};
use crate::network::inside;

/// The adapters that look around without being told to: on the LAN, and in `/sys` of the machine.
const CURIOUS: [&str; 3] = ["lifx", "iio", "onewire"];

/// A config file in which the adapters that it does not speak of leave this machine and its LAN alone.
#[must_use]
pub fn discreet(config: &str) -> String {
    let unnamed = CURIOUS.iter().filter(|adapter| !config.contains(&format!("[adapters.{adapter}]")));
    let off = unnamed.map(|adapter| format!("[adapters.{adapter}]\nenabled = false\n"));
    std::iter::once(format!("{config}\n")).chain(off).collect()
}

/// How to start a daemon.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    /// Shell commands that run in a mount namespace of the daemon's own before it starts.
    mounts: Option<String>,
    /// The network namespace in which it runs.
    board: Option<String>,
    /// Where it listens; none is a free port of the loopback.
    listen: Option<SocketAddr>,
    /// The program, with what runs it before it; empty is the one that was built with the tests.
    program: Vec<String>,
}

impl Launch {
    /// A plain start on a free port of the loopback.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// More arguments for `hearth run`.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Where to listen.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Runs in a namespace of a [`crate::network::Network`]; say where to listen, too.
    #[must_use]
    pub fn on_board(mut self, namespace: &str) -> Self {
        self.board = Some(namespace.to_owned());
        self
    }

    /// Another program than the one that was built with the tests: its path, with an emulator and the
    /// emulator's arguments before it.
    #[must_use]
    pub fn program(mut self, words: &[&str]) -> Self {
        self.program = words.iter().map(ToString::to_string).collect();
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Shell commands that run as root in a private mount namespace before the daemon does.
    #[must_use]
    pub fn mounts(mut self, commands: &str) -> Self {
        let before = self.mounts.take().map(|before| format!("{before} && ")).unwrap_or_default();
        self.mounts = Some(format!("{before}{commands}"));
        self
    }

    /// The daemon believes that NTP keeps its clock right. Otherwise it does not trust its clock,
    /// whatever keeps that of this machine.
    #[must_use]
    pub fn synchronised(self) -> Self {
        self.variable("HEARTH_CLOCK", "ask").mounts(
            "mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/systemd/timesync && \
             touch /run/systemd/timesync/synchronized",
        )
    }

    /// The daemon starts at another time of day, in the form that libfaketime takes
    /// (`@1970-01-01 00:00:10`, `+365d`). The clock that never goes back stays as it is.
    ///
    /// # Panics
    /// When libfaketime is not installed.
    #[must_use]
    pub fn clock(self, time: &str) -> Self {
        another_time(time).into_iter().fold(self, |launch, (name, value)| launch.variable(name, value))
    }

    pub(super) fn has_mounts(&self) -> bool {
        self.mounts.is_some()
    }

    /// Where it will listen.
    pub(super) fn address(&self) -> Result<SocketAddr> {
        match self.listen {
            Some(address) => Ok(address),
            None => Ok((Ipv4Addr::LOCALHOST, free_port()?).into()),
        }
    }

    /// The command that starts the daemon on this state folder.
    pub(super) fn command(&self, state: &Path, listen: SocketAddr) -> Result<Command> {
        let mut command = match (&self.mounts, &self.board) {
            (None, None) => self.hearth()?,
            (None, Some(board)) => {
                let mut command = inside(board, &program::hearth()?);
                clean(&mut command);
                command
            }
            (Some(mounts), board) => {
                require_mounts()?;
                let unshare = Path::new("unshare");
                let mut shell =
                    board.as_ref().map_or_else(|| Command::new(unshare), |board| inside(board, unshare));
                let script = format!("set -e; {{ {mounts}; }} >&2; exec \"$0\" \"$@\"");
                shell.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
                let inner = self.hearth()?;
                shell.arg(inner.get_program()).args(inner.get_args());
                clean(&mut shell);
                shell
            }
        };
        command.args(["run", "--listen", &listen.to_string()]);
        command.arg("--state-dir").arg(state).args(&self.arguments);
        command.env("HEARTH_CLOCK", "untrusted");
        if !state.join("hearth.toml").exists() {
            // Not that of this machine; and the bulbs of this LAN are nobody's business here.
            let config = state.with_extension("toml");
            fs::write(&config, discreet(""))?;
            command.env("HEARTH_CONFIG", config);
        }
        // Nothing that a test sends may leave the machine.
        command.env("HEARTH_DISCOVERY_MDNS", "false");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// The program, with nothing of the caller's configuration.
    fn hearth(&self) -> Result<Command> {
        let Some((first, rest)) = self.program.split_first() else { return hearth() };
        let mut command = Command::new(first);
        command.args(rest);
        clean(&mut command);
        Ok(command)
    }

    /// Starts a daemon that is expected to end by itself; answers with what it said.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub async fn ends(&self, state: &Path) -> Result<Cli> {
        let listen = self.listen.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        Cli::of(self.command(state, listen)?.into(), b"").await
    }
}

/// `hearth`, with nothing of the caller's configuration.
pub(super) fn hearth() -> Result<Command> {
    let mut command = Command::new(program::hearth()?);
    clean(&mut command);
    Ok(command)
}

/// No configuration of this machine reaches the tests.
pub fn clean(command: &mut Command) {
    for variable in ["STATE_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"] {
        command.env_remove(variable);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEARTH_") {
            command.env_remove(name);
        }
    }
}

/// Fails unless mounts can be made in a namespace of one's own.
fn require_mounts() -> Result<()> {
    let tried = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    let tried = tried.context("unshare is missing: run tests/setup, which installs it")?;
    ensure!(
        tried.status.success(),
        "this test mounts file systems in a namespace of its own: run it as root ({tried:?})"
    );
    Ok(())
}

/// The variables with which a program starts at another time of day: see [`Launch::clock`].
///
/// # Panics
/// When libfaketime is not installed.
#[must_use]
#[expect(clippy::expect_used, reason = "a test that lacks it fails")]
pub fn another_time(time: &str) -> [(&'static str, String); 6] {
    let found = ["x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    let library = found.expect("libfaketime is missing: run tests/setup, which installs `faketime`");
    [
        ("LD_PRELOAD", library),
        ("FAKETIME", time.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("TZ", "UTC".to_owned()),
    ]
}
