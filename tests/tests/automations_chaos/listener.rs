//! What the automation said, as every node heard it: an observer of its API for each life that it lives.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use hearth_tests::daemon::{Client, Observer};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;

/// An event of the automation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) topic: String,
    /// Of which start.
    pub(crate) number: usize,
    /// Which node published it.
    pub(crate) by: usize,
    /// When, in milliseconds since 1970.
    pub(crate) at: i64,
}

impl Heard {
    pub(crate) fn is(&self, topic: &str, number: usize) -> bool {
        self.topic == topic && self.number == number
    }
}

/// Everything that was heard, each event once.
#[derive(Default)]
pub(crate) struct Listeners {
    heard: Arc<Mutex<BTreeMap<String, Heard>>>,
    tasks: JoinSet<()>,
}

impl Listeners {
    /// Listens to a node by its socket from now on, whenever it lives. `ids` are the short ids of all nodes.
    pub(crate) fn listen(&mut self, client: Client, ids: Vec<String>) {
        let heard = self.heard.clone();
        self.tasks.spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            loop {
                pace.tick().await;
                // It ends with the life of the node.
                let _ = follow(&client, &ids, &heard).await;
            }
        });
    }

    /// All of it, oldest first.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heard: Vec<Heard> = heard.values().cloned().collect();
        heard.sort_by_key(|event| event.at);
        heard
    }
}

async fn follow(client: &Client, ids: &[String], heard: &Mutex<BTreeMap<String, Heard>>) -> Result<()> {
    let mut observer: Observer = client.watch().await?;
    let (snapshot, _) = observer.subscribe(&["event/began", "event/ended"], None).await?;
    for message in &snapshot {
        see(message, ids, heard);
    }
    loop {
        if let Some(message) = observer.next_within(Duration::from_secs(3_600)).await? {
            see(&message, ids, heard);
        }
    }
}

fn see(message: &Value, ids: &[String], heard: &Mutex<BTreeMap<String, Heard>>) {
    let Some((id, event)) = read(&message["object"], ids) else { return };
    heard.lock().unwrap_or_else(PoisonError::into_inner).insert(id, event);
}

fn read(object: &Value, ids: &[String]) -> Option<(String, Heard)> {
    let id = object["id"].as_str()?.to_owned();
    let topic = id.strip_prefix("event/")?.split(':').next()?.to_owned();
    let number = usize::try_from(object["fields"]["data"]["n"].as_u64()?).ok()?;
    let about = &object["meta"]["data"];
    let by = ids.iter().position(|id| about["by"] == id.as_str())?;
    let at = about["at"].as_str()?.parse::<Timestamp>().ok()?.as_millisecond();
    Some((id, Heard { topic, number, by, at }))
}
