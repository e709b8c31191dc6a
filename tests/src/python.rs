//! The real client of the README: `tests/watch.py`, run by the Python that tests/setup fills.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::daemon::{Daemon, PATIENCE};

/// How long a client may take: to load the libraries of some is seconds of work, on a busy machine half a minute.
const CLIENT_WITHIN: Duration = Duration::from_secs(150);

/// The Python of the tests.
///
/// # Errors
/// When it is not installed.
pub fn python() -> Result<Command> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/venv/bin/python");
    ensure!(python.exists(), "{} is missing: run tests/setup, which makes it", python.display());
    Ok(Command::new(python))
}

/// What a script of `tests/peers` prints: one line of JSON.
///
/// # Errors
/// When it fails, with what it said, or takes too long.
pub async fn peer(script: &str, arguments: &[&str]) -> Result<Value> {
    let mut command = python()?;
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script)).args(arguments);
    let ran = timeout(CLIENT_WITHIN, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let output = ran.with_context(|| format!("{script} did not end in time"))??;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{script} failed: {said}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).with_context(|| format!("{script} said {said}"))
}

/// A running `watch.py`, killed when dropped.
#[derive(Debug)]
pub struct Watch {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    /// Watches a node with its CA file and a token of a viewer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn of(node: &Daemon, prefixes: &[&str]) -> Result<Self> {
        let ca = node.state_dir().join("home.pem");
        node.cli(&["ca", "export", "--out", &ca.to_string_lossy()]).await?.ok()?;
        let mut command = python()?;
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("watch.py"));
        command.arg(node.address().to_string()).arg(&ca).args(prefixes);
        command.env("HEARTH_TOKEN", node.token("viewer").await?);
        let mut process = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = process.stdout.take().context("it has no output")?;
        Ok(Self { _process: process, lines: BufReader::new(stdout).lines() })
    }

    /// The next line.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn line(&mut self) -> Result<String> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.context("no line came in time")??;
        line.context("it ended")
    }

    /// The next line as an object: its id and fields, `null` for one that is gone.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn object(&mut self) -> Result<Value> {
        let line = self.line().await?;
        let (id, fields) = line.split_once(' ').with_context(|| format!("no object: {line}"))?;
        Ok(json!({"id": id, "fields": serde_json::from_str(fields).unwrap_or(Value::Null)}))
    }
}
