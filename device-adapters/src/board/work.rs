//! Threads for what may block: a 1-Wire sensor takes 750 ms to convert, and a bus that is broken may never answer.
//!
//! Not the threads of the runtime: that waits for them when it ends, and a read that hangs would keep the daemon from
//! stopping. A thread that hangs is left behind; how many there may be is bounded for the whole process.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::sync::mpsc;

use super::Hardware;
use super::keeper::{Job, Outcome, Task};

/// The most threads of all adapters and all their runs, those that hang among them.
const MOST_THREADS: usize = 64;
/// Enough for reading a file and for its error; the default of 2 MiB is none that a board has to spare.
const STACK: usize = 256 * 1_024;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// What became of a job.
pub(super) enum Done<P> {
    /// It came back.
    Finished {
        /// Its lane.
        lane: String,
        /// What came of it.
        outcome: Outcome<P>,
    },
    /// It panicked.
    Panicked(Box<dyn Any + Send>),
}

/// Does the jobs of one run.
pub(super) struct Workers<H: Hardware> {
    hardware: Arc<H>,
    done: mpsc::Sender<Done<H::Place>>,
}

impl<H: Hardware> Workers<H> {
    /// Workers that tell by `done`.
    pub(super) fn new(hardware: Arc<H>, done: mpsc::Sender<Done<H::Place>>) -> Self {
        Self { hardware, done }
    }

    /// Starts a job. Returns what came of it when it could not be started.
    pub(super) fn start(&self, job: Job<H::Place>) -> Option<Done<H::Place>> {
        let Some(slot) = Slot::take() else {
            return Some(refused(job, &format!("{MOST_THREADS} reads of this board's hardware hang")));
        };
        let (hardware, done) = (Arc::clone(&self.hardware), self.done.clone());
        let Job { lane, task } = job;
        let spare = Job { lane: lane.clone(), task: task.clone() };
        let thread = thread::Builder::new().name(H::ADAPTER.to_owned()).stack_size(STACK);
        let started = thread.spawn(move || {
            let worked = catch_unwind(AssertUnwindSafe(|| perform(&*hardware, task)));
            drop(slot);
            let _ = done.blocking_send(match worked {
                Ok(outcome) => Done::Finished { lane, outcome },
                Err(payload) => Done::Panicked(payload),
            });
        });
        started.err().map(|error| refused(spare, &format!("no thread could be started: {error}")))
    }
}

/// One of the threads that there may be.
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let slot = Self; // gives back what it takes when it is dropped
        (THREADS.fetch_add(1, Ordering::Relaxed) < MOST_THREADS).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn perform<H: Hardware>(hardware: &H, task: Task<H::Place>) -> Outcome<H::Place> {
    match task {
        Task::List { known } => Outcome::Listed(hardware.list(&known)),
        Task::Read { device, place, last } => {
            Outcome::Read { device, result: hardware.read(&place, last.as_ref()) }
        }
        Task::Apply { device, command, place, change, last } => {
            Outcome::Applied { device, command, result: hardware.apply(&place, &change, last.as_ref()) }
        }
    }
}

fn refused<P>(job: Job<P>, why: &str) -> Done<P> {
    let outcome = match job.task {
        Task::List { .. } => Outcome::Listed(Err(io::Error::other(why.to_owned()))),
        Task::Read { device, .. } => Outcome::Read { device, result: Err(why.to_owned()) },
        Task::Apply { device, command, .. } => {
            Outcome::Applied { device, command, result: Err(super::Fault::Failed(why.to_owned())) }
        }
    };
    Done::Finished { lane: job.lane, outcome }
}
