//! A user's command that changes DNS: for every provider that has some program or interface of its own.
//!
//! It is called `COMMAND present|cleanup FQDN VALUE`, as lego's `exec` provider calls its programs, with the same in
//! `HEARTH_DNS_ACTION`, `HEARTH_DNS_NAME` and `HEARTH_DNS_VALUE`; of the daemon's environment it has `PATH` alone.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::debug;

use super::name::Name;

/// How long a command may take; those of slow providers wait inside.
pub(super) const WITHIN: Duration = Duration::from_secs(60);
/// How long what a command has left in its pipes is read after its end: what it started may hold them open.
const REST: Duration = Duration::from_millis(500);
/// How much of the end of its output is kept, in bytes.
const MAX_OUTPUT: usize = 2048;
/// How much of its last line is told, in characters.
const MAX_LINE: usize = 200;

/// Why a command has not changed DNS, or perhaps has not.
#[derive(Debug, Error)]
pub enum HookError {
    /// The name is none that is handed to a program.
    #[error(
        "the command is not called for {0}: labels of a name may hold letters, digits, - and _ alone, and begin with no -; see where its CNAME leads"
    )]
    Name(String),
    /// It cannot be started.
    #[error("the command {} cannot be started: {source}; check its path, its first line and its mode", command.display())]
    Start {
        /// Which.
        command: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It failed.
    #[error("the command {} {action} ended with {status}; its last words: {last:?}", command.display())]
    Failed {
        /// Which.
        command: PathBuf,
        /// What it was to do.
        action: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last line of its output.
        last: String,
    },
    /// It took too long, and was killed with all that it started.
    #[error("the command {} {action} did not end within {} s and was killed; its last words: {last:?}", command.display(), within.as_secs())]
    Timeout {
        /// Which.
        command: PathBuf,
        /// What it was to do.
        action: &'static str,
        /// How long it had.
        within: Duration,
        /// The last line of its output.
        last: String,
    },
}

/// What a command is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Add the value.
    Present,
    /// Remove it.
    Cleanup,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Cleanup => "cleanup",
        }
    }
}

/// Runs the command and waits for its end, not longer than `within`.
///
/// # Errors
/// [`HookError`].
pub(super) async fn run(
    command: &Path,
    action: Action,
    name: &Name,
    value: &str,
    within: Duration,
) -> Result<(), HookError> {
    if !name.labels().all(is_plain) {
        return Err(HookError::Name(name.absolute()));
    }
    let mut child = start(command, action, name, value)
        .map_err(|source| HookError::Start { command: command.to_owned(), source })?;
    let group = Group::of(&child);
    let mut output = Output::default();
    let ended = timeout(within, output.until_end(&mut child)).await;
    let (command, action, last) = (command.to_owned(), action.as_str(), output.last_line());
    match ended {
        Ok(Ok(status)) => {
            group.spare();
            debug!(command = %command.display(), action, %status, last, "the command for DNS has ended");
            if status.success() { Ok(()) } else { Err(HookError::Failed { command, action, status, last }) }
        }
        Ok(Err(source)) => Err(HookError::Start { command, source }),
        Err(_) => Err(HookError::Timeout { command, action, within, last }),
    }
}

/// Whether a label is one that no script takes for anything else: a name comes from the DNS, where a CNAME may lead anywhere.
fn is_plain(label: &[u8]) -> bool {
    !label.starts_with(b"-") && label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
}

fn start(command: &Path, action: Action, name: &Name, value: &str) -> io::Result<Child> {
    let name = name.absolute();
    let mut process = Command::new(command);
    process.args([action.as_str(), &name, value]).env_clear();
    process.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    process.env("HEARTH_DNS_ACTION", action.as_str());
    process.env("HEARTH_DNS_NAME", &name).env("HEARTH_DNS_VALUE", value);
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process.current_dir("/").process_group(0).kill_on_drop(true).spawn()
}

/// The process group of a command that runs: killed when it is dropped, be it that the deadline passed or that nobody
/// waits any more.
struct Group(Option<Pid>);

impl Group {
    /// The child began it, so it bears the child's number.
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// Once the child is waited for, its number may soon be another's.
    fn spare(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended this moment.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The end of what a command says.
#[derive(Default)]
struct Output {
    said: Vec<u8>,
    complained: Vec<u8>,
}

impl Output {
    /// Reads until the command has ended. What it leaves running behind it is not waited for.
    async fn until_end(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        let (said, complained) = (child.stdout.take(), child.stderr.take());
        let reading = futures_util::future::join(
            keep_end(said, &mut self.said),
            keep_end(complained, &mut self.complained),
        );
        tokio::pin!(reading);
        let status = tokio::select! {
            _ = &mut reading => return child.wait().await,
            status = child.wait() => status?,
        };
        // Past this the output may be incomplete, which only an error's text would show.
        let _incomplete = timeout(REST, reading).await;
        Ok(status)
    }

    /// The last line that is not empty: of what it complained of, else of what it said.
    fn last_line(&self) -> String {
        let last = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
            line.map(|line| line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect())
        };
        last(&self.complained).or_else(|| last(&self.said)).unwrap_or_default()
    }
}

/// Reads to the end and keeps the last bytes, so that a command may say as much as it likes.
async fn keep_end(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; MAX_OUTPUT];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        kept.extend(buffer.iter().take(count));
        let surplus = kept.len().saturating_sub(MAX_OUTPUT);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
#[path = "hook_tests.rs"]
mod tests;
