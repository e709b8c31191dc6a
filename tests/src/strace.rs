//! The system calls of a daemon that runs, shown or held up by strace(1).

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use crate::daemon::PATIENCE;

/// A strace that is attached; what it was attached to goes on when it is dropped.
pub struct Strace {
    process: Child,
    /// Kept open: strace tells of each thread that begins or ends.
    _says: Lines<BufReader<ChildStderr>>,
}

impl Strace {
    /// Attaches with these arguments, among which `-p` says to what, and writes to `log`. Returns when it has.
    ///
    /// # Errors
    /// When strace is missing or may not.
    pub async fn attach(arguments: &[&str], log: &Path) -> Result<Self> {
        let mut command = Command::new("strace");
        command.args(arguments).arg("-o").arg(log).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process =
            command.spawn().context("this test needs strace: run tests/setup, or apt-get install strace")?;
        let mut says = BufReader::new(process.stderr.take().context("no standard error")?).lines();
        let first = timeout(PATIENCE, says.next_line()).await.context("strace says nothing")??;
        let attached = first.as_ref().is_some_and(|line| line.contains(" attached"));
        ensure!(attached, "strace cannot attach; run this test as root: {first:?}");
        Ok(Self { process, _says: says })
    }

    /// Lets go of it; the log is whole then.
    ///
    /// # Errors
    /// When strace does not end.
    pub async fn detach(mut self) -> Result<()> {
        let pid = self.process.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.context("strace has ended by itself")?, Signal::TERM)?;
        timeout(PATIENCE, self.process.wait()).await.context("strace does not end")??;
        Ok(())
    }
}
