//! Home Assistant itself at a broker of a test, as tests/setup installs it: what it takes, what it refuses, what it shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout_at};

use crate::daemon::PATIENCE;
use crate::fakes::mosquitto::Mosquitto;

/// What runs in it.
const SCRIPT: &str = include_str!("../peers/home_assistant.py");

/// A running Home Assistant, killed when dropped.
#[derive(Debug)]
pub struct HomeAssistant {
    process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// The classes of devices that it knows.
    pub knows: Classes,
    /// The topics of the announcements that it took.
    accepted: BTreeSet<String>,
    /// Its entities by their unique ids.
    entities: BTreeMap<String, Value>,
}

/// The classes of devices that Home Assistant knows.
#[derive(Debug, Clone, Deserialize)]
pub struct Classes {
    /// Those of numbers, each with its units; an empty unit is none.
    pub units: BTreeMap<String, Vec<String>>,
    /// Those of true and false.
    pub truths: Vec<String>,
}

/// What it says.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Knows(Classes),
    Accepted {
        accepted: String,
    },
    Refused {
        refused: String,
    },
    Entity {
        entity: String,
        #[serde(flatten)]
        shown: Value,
    },
    Gone {
        gone: String,
    },
}

impl HomeAssistant {
    /// Starts one at a broker.
    ///
    /// # Errors
    /// When it is not installed, or does not start.
    pub async fn at(broker: &Mosquitto) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/home-assistant/root");
        ensure!(root.exists(), "{} is missing: run tests/setup, which makes it", root.display());
        let address = broker.address();
        let port = address.rsplit(':').next().context("a broker has a port")?;
        let mut command = Command::new("/usr/sbin/chroot");
        command.arg(root).args(["/usr/bin/env", "-i", "PYTHONPATH=/opt/home-assistant"]);
        command.args(["/usr/bin/python3", "-B", "-c", SCRIPT, port]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().context("Home Assistant does not start")?;
        let input = process.stdin.take().context("it has no input")?;
        let mut lines = BufReader::new(process.stdout.take().context("it has no output")?).lines();
        let Some(Line::Knows(knows)) = next(&mut lines).await? else {
            bail!("it does not say what it knows")
        };
        Ok(Self { process, input, lines, knows, accepted: BTreeSet::new(), entities: BTreeMap::new() })
    }

    /// Waits until it took the announcement at a topic.
    ///
    /// # Errors
    /// When it refuses anything, or does not take it in time.
    pub async fn accepts(&mut self, topic: &str) -> Result<()> {
        self.until(&format!("{topic} to be taken"), |all| all.accepted.contains(topic).then_some(())).await
    }

    /// Waits until an entity is shown as is wanted.
    ///
    /// # Errors
    /// When it refuses anything, or the entity does not become so in time.
    pub async fn shows(&mut self, id: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let is_it = |all: &Self| all.entities.get(id).filter(|entity| wanted(entity)).cloned();
        self.until(&format!("{id} to be shown so"), is_it).await
    }

    /// Waits until it has no such entity any more.
    ///
    /// # Errors
    /// As [`HomeAssistant::shows`].
    pub async fn lacks(&mut self, id: &str) -> Result<()> {
        self.until(&format!("{id} to be gone"), |all| (!all.entities.contains_key(id)).then_some(())).await
    }

    /// Waits until it refuses what has such a word in it, and gives why.
    ///
    /// # Errors
    /// When it refuses no such thing in time.
    pub async fn refuses(&mut self, word: &str) -> Result<String> {
        while let Some(line) = next(&mut self.lines).await? {
            match line {
                Line::Refused { refused } if refused.contains(word) => return Ok(refused),
                _ => {}
            }
        }
        bail!("it ended and did not refuse {word}")
    }

    /// Calls a service for an entity, as its dashboard does.
    ///
    /// # Errors
    /// When it ended.
    pub async fn call(&mut self, service: &str, id: &str, data: Value) -> Result<()> {
        let line = json!({ "service": service, "entity": id, "data": data }).to_string() + "\n";
        Ok(self.input.write_all(line.as_bytes()).await?)
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it complained after all, or does not end well.
    pub async fn stop(mut self) -> Result<()> {
        self.input.shutdown().await?;
        drop(self.input);
        while let Some(line) = next(&mut self.lines).await? {
            if let Line::Refused { refused } = line {
                bail!("Home Assistant complains: {refused}");
            }
        }
        ensure!(self.process.wait().await?.success(), "Home Assistant did not end well");
        Ok(())
    }

    /// What `pick` picks of what it took and shows, as soon as it does.
    async fn until<T>(&mut self, what: &str, pick: impl Fn(&Self) -> Option<T>) -> Result<T> {
        loop {
            if let Some(picked) = pick(self) {
                return Ok(picked);
            }
            let line = next(&mut self.lines).await;
            let line = line.with_context(|| format!("waited for {what}; it shows {:#?}", self.entities))?;
            match line.with_context(|| format!("waited for {what}, and it ended"))? {
                Line::Knows(_) => bail!("it says twice what it knows"),
                Line::Accepted { accepted } => {
                    self.accepted.insert(accepted);
                }
                Line::Refused { refused } => bail!("Home Assistant complains: {refused}"),
                Line::Entity { entity, shown } => {
                    self.entities.insert(entity, shown);
                }
                Line::Gone { gone } => {
                    self.entities.remove(&gone);
                }
            }
        }
    }
}

/// The next line; none when it ended.
async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Option<Line>> {
    let line = timeout_at(Instant::now() + PATIENCE, lines.next_line()).await;
    let Some(line) = line.context("Home Assistant says nothing more")?? else { return Ok(None) };
    Ok(Some(serde_json::from_str(&line).with_context(|| format!("no line of it: {line}"))?))
}
