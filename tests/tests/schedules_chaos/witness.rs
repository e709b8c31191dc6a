//! What each node knew of the occurrences, and when: an observer of its API for each life that it lives.

use std::{
    collections::BTreeMap,
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

/// Everything that was seen, of every run.
#[derive(Default)]
pub(crate) struct Witness {
    runs: Arc<Mutex<BTreeMap<Run, Told>>>,
    tasks: JoinSet<()>,
}

impl Witness {
    /// Watches a node by its socket from now on, whenever it lives. `ids` are the short ids of all nodes.
    pub(crate) fn watch(&mut self, node: usize, client: Client, ids: Vec<String>) {
        let runs = self.runs.clone();
        self.tasks.spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            loop {
                pace.tick().await;
                // It ends with the life of the node.
                let _ = follow(node, &client, &ids, &runs).await;
            }
        });
    }

    pub(crate) fn runs(&self) -> BTreeMap<Run, Told> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn follow(
    node: usize,
    client: &Client,
    ids: &[String],
    runs: &Mutex<BTreeMap<Run, Told>>,
) -> Result<()> {
    let mut observer: Observer = client.watch().await?;
    let (snapshot, _) = observer.subscribe(&["schedule/"], None).await?;
    for message in &snapshot {
        see(node, message, ids, runs);
    }
    loop {
        if let Some(message) = observer.next_within(Duration::from_secs(3_600)).await? {
            see(node, &message, ids, runs);
        }
    }
}

fn see(node: usize, message: &Value, ids: &[String], runs: &Mutex<BTreeMap<Run, Told>>) {
    let now = Timestamp::now().as_millisecond();
    let object = &message["object"];
    let Some(occurrence) = object["id"].as_str().and_then(|id| number(id).ok()) else { return };
    for (writer, id) in ids.iter().enumerate() {
        let record = &object["fields"][format!("run.{id}")];
        let Some(began) = record["began"].as_i64() else { continue };
        let mut runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
        let told = runs.entry((occurrence, writer, began)).or_default();
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
