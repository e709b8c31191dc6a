//! What each node knew of the occurrences and of the commands that they became, and when: an observer of its API for each life that
//! it lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use hearth_tests::daemon::{Client, Observer};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;

/// A run of an occurrence: it, who did it, and when that node began, in milliseconds since 1970.
pub(crate) type Run = (usize, usize, i64);

/// What was said of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// Whether it said that a node had begun before.
    pub(crate) again: bool,
    /// What its record said last.
    pub(crate) state: String,
    /// When it ended.
    pub(crate) ended: Option<i64>,
    /// When each node showed first that it had begun.
    pub(crate) known: BTreeMap<usize, i64>,
    /// When each node showed first that it had ended.
    pub(crate) settled: BTreeMap<usize, i64>,
}

/// Everything that was seen.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) runs: BTreeMap<Run, Told>,
    /// The ids of the commands to each device.
    pub(crate) commands: BTreeMap<String, BTreeSet<String>>,
}

/// Who sees it.
#[derive(Default)]
pub(crate) struct Witness {
    seen: Arc<Mutex<Seen>>,
    tasks: JoinSet<()>,
}

impl Witness {
    /// Watches a node by its socket from now on, whenever it lives. `ids` are the short ids of all nodes.
    pub(crate) fn watch(&mut self, node: usize, client: Client, ids: Vec<String>) {
        let seen = self.seen.clone();
        self.tasks.spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            loop {
                pace.tick().await;
                // It ends with the life of the node.
                let _ = follow(node, &client, &ids, &seen).await;
            }
        });
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn follow(node: usize, client: &Client, ids: &[String], seen: &Mutex<Seen>) -> Result<()> {
    let mut observer: Observer = client.watch().await?;
    let (snapshot, _) = observer.subscribe(&["schedule/", "command/"], None).await?;
    for message in &snapshot {
        see(node, message, ids, seen);
    }
    loop {
        if let Some(message) = observer.next_within(Duration::from_secs(3_600)).await? {
            see(node, &message, ids, seen);
        }
    }
}

fn see(node: usize, message: &Value, ids: &[String], seen: &Mutex<Seen>) {
    let now = Timestamp::now().as_millisecond();
    let object = &message["object"];
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = object["fields"]["request"]["device"].as_str() {
        seen.commands.entry(device.to_owned()).or_default().insert(object["id"].to_string());
    }
    let Some(occurrence) = object["id"].as_str().and_then(|id| number(id).ok()) else { return };
    for (writer, id) in ids.iter().enumerate() {
        let record = &object["fields"][format!("run.{id}")];
        let Some(began) = record["began"].as_i64() else { continue };
        let told = seen.runs.entry((occurrence, writer, began)).or_default();
        told.again = record["again"] == true;
        told.known.entry(node).or_insert(now);
        let state = record["state"].as_str().unwrap_or_default();
        if state != "started" {
            told.state = state.to_owned();
            told.ended = record["ended"].as_i64();
            told.settled.entry(node).or_insert(now);
        }
    }
}

/// The number in the name of a schedule.
fn number(id: &str) -> Result<usize> {
    Ok(id.strip_prefix("schedule/n").context("another one")?.parse()?)
}
