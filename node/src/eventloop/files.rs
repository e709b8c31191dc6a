//! The small files that the loop keeps: the membership, the run, the mark of a restored store.
//!
//! Each change waits for the disk on a thread of the blocking pool, and its result comes back as
//! one more input of the loop, which itself never waits.

use std::{path::PathBuf, sync::Arc};

use mesh_proto::{overlay::Run, record::Item};
use tokio::sync::mpsc;
use tracing::error;

use crate::{
    state_dir::{Incarnation, StateDir, StateDirError},
    store::{files::FileError, restored},
};

/// The loop has at most one write of the membership under way, and one of the run or its mark. An
/// export of the lost-and-found that takes long may be asked for again: its result waits for room.
const RESULTS: usize = 3;

/// Why a run could not be saved.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    /// Its mark.
    #[error(transparent)]
    Mark(#[from] FileError),
    /// The run itself.
    #[error(transparent)]
    Run(#[from] StateDirError),
}

/// How a write ended.
#[derive(Debug)]
pub(super) enum Saved {
    /// The membership.
    Roster(Result<(), String>),
    /// The run.
    Run(Run, Result<(), String>),
    /// The mark of a restored store was removed, or the log says why not.
    Unmarked,
    /// The lost-and-found with this number: its file.
    Lost(u32, Result<PathBuf, String>),
}

/// The way to the files, and their answers.
pub(super) struct Files {
    state: Arc<StateDir>,
    sender: mpsc::Sender<Saved>,
    results: mpsc::Receiver<Saved>,
}

impl Files {
    pub(super) fn new(state: Arc<StateDir>) -> Self {
        let (sender, results) = mpsc::channel(RESULTS);
        Self { state, sender, results }
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

    /// Makes the run durable, as one that has not ended, and before it the mark of a restored store,
    /// if it is one: a node that has seen that its card was set back must not forget it.
    /// [`Saved::Run`] follows.
    pub(super) fn save_run(&self, run: Run, mark: Option<u32>) {
        let Run { generation, incarnation } = run;
        let stored = Incarnation { generation, incarnation };
        let write = move |state: &StateDir| -> Result<(), SaveError> {
            if mark.is_some() {
                restored::set_mark(state.path(), mark)?;
            }
            Ok(state.set_incarnation(stored)?)
        };
        self.save(write, move |result| Saved::Run(run, result));
    }

    /// The store counts as whole again; [`Saved::Unmarked`] follows. If that fails, the next start
    /// takes a peer's state again: slow, and harmless.
    pub(super) fn remove_mark(&self) {
        let tell = |result: Result<(), String>| {
            if let Err(reason) = result {
                error!(%reason, "the mark of the restored store cannot be removed");
            }
            Saved::Unmarked
        };
        self.save(|state| restored::remove_mark(state.path()), tell);
    }

    /// Exports what a restored store holds and nobody else; [`Saved::Lost`] follows.
    pub(super) fn save_lost(&self, number: u32, lost: Vec<Item>) {
        let write = move |state: &StateDir| restored::export_lost(state.path(), &lost);
        self.save(write, move |result| Saved::Lost(number, result));
    }

    fn save<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
        &self,
        write: impl FnOnce(&StateDir) -> Result<T, E> + Send + 'static,
        tell: impl FnOnce(Result<T, String>) -> Saved + Send + 'static,
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
