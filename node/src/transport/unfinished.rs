//! A bounded set of handshakes that have not finished.
//!
//! When it is full the oldest gives way: a flood of slow handshakes delays nobody, since an
//! honest one finishes in milliseconds and is then no longer in the set.

use std::{collections::VecDeque, future::Future};

use tokio::task::AbortHandle;

/// Tasks that each bring one handshake to its end.
#[derive(Debug)]
pub(crate) struct Unfinished {
    tasks: VecDeque<AbortHandle>,
    limit: usize,
}

impl Unfinished {
    /// An empty set of at most `limit` tasks, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        Self { tasks: VecDeque::new(), limit: limit.max(1) }
    }

    /// How many are running.
    pub(crate) fn len(&mut self) -> usize {
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.len()
    }

    /// Starts one more; returns whether the oldest was dropped for it.
    pub(crate) fn start(&mut self, handshake: impl Future<Output = ()> + Send + 'static) -> bool {
        let full = self.len() >= self.limit;
        if full && let Some(oldest) = self.tasks.pop_front() {
            oldest.abort();
        }
        self.tasks.push_back(tokio::spawn(handshake).abort_handle());
        full
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
