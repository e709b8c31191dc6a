//! How a daemon is started: arguments, mounts of its own, a clock of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use super::{Refused, clean, finish, hearth};

/// How to start a daemon.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    /// Shell commands that run in a mount namespace of the daemon's own before it starts.
    mounts: Option<String>,
    /// Whether it may take any port, or the one given.
    listen: Option<String>,
}

impl Launch {
    /// A plain start on any port of the loopback.
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
        self.listen = Some(address.to_string());
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
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

    /// The daemon believes that NTP keeps its clock right.
    #[must_use]
    pub fn synchronised(self) -> Self {
        self.mounts(
            "mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/systemd/timesync && \
             touch /run/systemd/timesync/synchronized",
        )
    }

    /// The daemon starts at another time of day, in the form that libfaketime takes
    /// (`@1970-01-01 00:00:10`, `+365d`). The clock that never goes back stays as it is.
    #[must_use]
    pub fn clock(self, time: &str) -> Self {
        let found = ["x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf"]
            .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketime.so.1"))
            .into_iter()
            .find(|path| Path::new(path).exists());
        let library = found.expect("libfaketime is missing: run tests/setup, which installs `faketime`");
        self.variable("LD_PRELOAD", &library)
            .variable("FAKETIME", time)
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .variable("DONT_FAKE_MONOTONIC", "1")
            .variable("FAKETIME_NO_CACHE", "1")
            .variable("TZ", "UTC")
    }

    /// The command that starts the daemon on this state folder.
    pub fn command(&self, state: &Path) -> Command {
        let mut command = match &self.mounts {
            None => Command::new(hearth()),
            Some(mounts) => {
                require_mounts();
                let mut shell = Command::new("unshare");
                let script = format!("set -e; {{ {mounts}; }} >&2; exec \"$0\" \"$@\"");
                shell.args(["--mount", "--propagation", "private", "sh", "-c", &script]).arg(hearth());
                shell
            }
        };
        command.args(["run", "--listen", self.listen.as_deref().unwrap_or("127.0.0.1:0")]);
        command.arg("--state-dir").arg(state).args(&self.arguments);
        clean(&mut command);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Starts a daemon that is expected to end by itself, and returns what it said.
    pub fn fails(&self, state: &Path) -> Refused {
        let mut command = self.command(state);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the daemon starts");
        Refused::from(finish(child, "a daemon that cannot start ends"))
    }
}

/// Fails unless mounts can be made in a namespace of one's own.
fn require_mounts() {
    let tried = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    let works = tried.as_ref().is_ok_and(|output| output.status.success());
    assert!(works, "this test mounts file systems in a namespace of its own: run it as root ({tried:?})");
}
