//! The small files that the loop keeps: the membership, the run, the mark of a restored store.
//!
//! Each change waits for the disk on a thread of the blocking pool, and its result comes back as
//! one more input of the loop, which itself never waits.

use std::{path::PathBuf, sync::Arc};

use mesh_proto::overlay::Run;
use tokio::sync::mpsc;
use tracing::error;

use crate::state_dir::{Incarnation, StateDir, StateDirError};

/// The loop has at most one write of each kind under way.
const KINDS: usize = 2;

/// How a write ended.
#[derive(Debug)]
pub(super) enum Saved {
    /// The membership.
    Roster(Result<(), String>),
    /// The run.
    Run(Run, Result<(), String>),
}

/// The way to the files, and their answers.
pub(super) struct Files {
    state: Arc<StateDir>,
    marker: PathBuf,
    sender: mpsc::Sender<Saved>,
    results: mpsc::Receiver<Saved>,
}

impl Files {
    pub(super) fn new(state: Arc<StateDir>, marker: PathBuf) -> Self {
        let (sender, results) = mpsc::channel(KINDS);
        Self { state, marker, sender, results }
    }

    /// The next result. Safe to cancel; pends while nothing is under way.
    pub(super) async fn saved(&mut self) -> Saved {
        match self.results.recv().await {
            Some(saved) => saved,
            // Never: a sender is kept here.
            None => std::future::pending().await,
        }
    }

    /// Makes the membership durable; [`Saved::Roster`] follows.
    pub(super) fn save_roster(&self, bytes: Vec<u8>) {
        self.save(move |state| state.set_roster(&bytes), Saved::Roster);
    }

    /// Makes the run durable, as one that has not ended; [`Saved::Run`] follows.
    pub(super) fn save_run(&self, run: Run) {
        let Run { generation, incarnation } = run;
        let stored = Incarnation { generation, incarnation, clean: false };
        self.save(move |state| state.set_incarnation(stored), move |result| Saved::Run(run, result));
    }

    /// The store counts as whole again. If that fails, the next start takes a peer's state again:
    /// slow, and harmless.
    pub(super) fn remove_marker(&self) {
        let marker = self.marker.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(reason) = std::fs::remove_file(marker)
                && reason.kind() != std::io::ErrorKind::NotFound
            {
                error!(%reason, "the mark of the restored store cannot be removed");
            }
        });
    }

    fn save(
        &self,
        write: impl FnOnce(&StateDir) -> Result<(), StateDirError> + Send + 'static,
        tell: impl FnOnce(Result<(), String>) -> Saved + Send + 'static,
    ) {
        let (state, sender) = (Arc::clone(&self.state), self.sender.clone());
        tokio::spawn(async move {
            let written = tokio::task::spawn_blocking(move || write(&state)).await;
            let result = match written {
                Ok(result) => result.map_err(|reason| reason.to_string()),
                Err(died) => Err(died.to_string()),
            };
            // A loop that has ended needs no answer.
            let _ = sender.send(tell(result)).await;
        });
    }
}
