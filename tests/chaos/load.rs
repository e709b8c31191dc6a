//! Writers that remember what was acknowledged, one for each node.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use hearth_tests::daemon::{Client, wait_until};
use serde_json::{Map, Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::home::{Home, Node, PATIENCE};

/// How many writes go to one object, each to a field of its own that is never written again: whatever
/// was acknowledged can be told from every other write.
const FIELDS: u64 = 50;
/// How often each writer writes.
const PACE: Duration = Duration::from_millis(10);

/// The fields of objects, by the objects' names.
type Fields = BTreeMap<String, Map<String, Value>>;

/// What one writer has written.
#[derive(Debug, Default)]
struct Book {
    /// The number of the last write, acknowledged or not.
    last: u64,
    acknowledged: Fields,
}

/// A writer on each node, at work or at rest.
pub(crate) struct Load {
    books: Vec<Book>,
    working: Vec<Option<Working>>,
}

struct Working {
    stop: watch::Sender<bool>,
    task: JoinHandle<Book>,
}

/// Where the writes of a node begin.
fn prefix(number: usize) -> String {
    format!("load/n{number}-")
}

impl Load {
    /// Writers for so many nodes, at rest.
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            books: (0..nodes).map(|_| Book::default()).collect(),
            working: (0..nodes).map(|_| None).collect(),
        }
    }

    /// Sets the writers of these nodes to work.
    pub(crate) fn begin(&mut self, home: &Home, nodes: impl IntoIterator<Item = usize>) {
        for number in nodes {
            let place = (home.nodes.get(number), self.books.get_mut(number), self.working.get_mut(number));
            if let (Some(node), Some(book), Some(working)) = place {
                let (stop, stopped) = watch::channel(false);
                let task = tokio::spawn(write(node.client(), number, std::mem::take(book), stopped));
                *working = Some(Working { stop, task });
            }
        }
    }

    /// Stops the writer of a node when its request is answered or has failed.
    pub(crate) async fn rest(&mut self, number: usize) -> Result<()> {
        if let Some(working) = self.working.get_mut(number).and_then(Option::take) {
            working.stop.send_replace(true);
            *self.books.get_mut(number).context("no such writer")? = working.task.await?;
        }
        Ok(())
    }

    /// Stops all of them.
    pub(crate) async fn end(&mut self) -> Result<()> {
        for number in 0..self.working.len() {
            self.rest(number).await?;
        }
        Ok(())
    }

    /// A node holds all that it acknowledged itself, now.
    pub(crate) async fn survived_on(&self, node: &Node) -> Result<()> {
        let book = self.books.get(node.number).context("no such writer")?;
        let lost = lost(node, node.number, &book.acknowledged).await?;
        ensure!(lost.is_empty(), "n{} lost what it had acknowledged: {lost:?}", node.number);
        Ok(())
    }

    /// Every write that was acknowledged anywhere is there on every node, or will soon be. Says how many
    /// they are. The writers rest.
    pub(crate) async fn is_everywhere(&self, home: &Home) -> Result<usize> {
        for node in &home.nodes {
            for (number, book) in self.books.iter().enumerate() {
                let mut last = Vec::new();
                let arrived = wait_until("all acknowledged writes are there", PATIENCE, async || {
                    last = lost(node, number, &book.acknowledged).await?;
                    Ok(last.is_empty())
                });
                let arrived = arrived.await;
                arrived.with_context(|| format!("n{} lacks {last:?} of n{number}", node.number))?;
            }
        }
        let count = self.books.iter().flat_map(|book| book.acknowledged.values()).map(Map::len).sum();
        ensure!(count > 0, "nothing was written");
        Ok(count)
    }
}

/// Which of these writes are not on a node, or changed.
async fn lost(node: &Node, writer: usize, acknowledged: &Fields) -> Result<Vec<String>> {
    let found = node.client().objects(&prefix(writer)).await?;
    let mut lost = Vec::new();
    for (object, fields) in acknowledged {
        for (field, value) in fields {
            if found.get(object).is_none_or(|there| there[field.as_str()] != *value) {
                lost.push(format!("{object} {field}"));
            }
        }
    }
    Ok(lost)
}

/// Writes until told to stop. A node that does not answer is asked again: what it did not acknowledge
/// counts for nothing.
async fn write(client: Client, number: usize, mut book: Book, stop: watch::Receiver<bool>) -> Book {
    let mut pace = tokio::time::interval(PACE);
    // Whoever failed and let go of it wants no more writes either.
    while stop.has_changed().is_ok() && !*stop.borrow() {
        pace.tick().await;
        book.last += 1;
        let n = book.last;
        let object = format!("{}{}", prefix(number), n / FIELDS);
        let (field, path) = (format!("w{n}"), format!("/api/v1/objects/{object}"));
        let body = json!({ "set": { field.as_str(): n } });
        let answer = client.send("PATCH", &path, Some(&body)).await;
        if answer.is_ok_and(|answer| answer.success().is_ok()) {
            book.acknowledged.entry(object).or_default().insert(field, json!(n));
        }
    }
    book
}
