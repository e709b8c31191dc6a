//! Programs that end, and what they said.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// How long one command of the command line may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(90);

/// What a command of the command line came to, or a node that ended by itself.
#[derive(Debug, Clone)]
pub struct Cli {
    /// The exit code; -1 when it was killed.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it told beside.
    pub stderr: String,
}

impl Cli {
    /// What it printed, as JSON.
    ///
    /// # Errors
    /// When it is none; with all that was printed.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {self:?}"))
    }

    /// Itself, if it succeeded.
    ///
    /// # Errors
    /// When the exit code is not 0; with all that was printed.
    pub fn ok(self) -> Result<Self> {
        ensure!(self.code == 0, "it ended with {}: {}", self.code, self.text());
        Ok(self)
    }

    /// All that it said.
    #[must_use]
    pub fn text(&self) -> String {
        [self.stdout.as_str(), &self.stderr].concat()
    }

    /// Runs a program to its end, with something on its standard input.
    ///
    /// # Errors
    /// When it cannot be started or hangs.
    pub(super) async fn of(mut command: Command, input: &[u8]) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn().with_context(|| format!("{command:?}"))?;
        if let Some(mut stdin) = process.stdin.take() {
            // One that reads nothing, or refuses before it has read everything, has closed it.
            let _ = stdin.write_all(input).await;
        }
        let output = timeout(COMMAND_WITHIN, process.wait_with_output());
        let output = output.await.with_context(|| format!("{command:?} hangs"))??;
        Ok(Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
