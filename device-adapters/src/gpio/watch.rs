//! A task that watches one input.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::board::Event;
use crate::model::DeviceId;

use super::config::{LineConfig, Role};
use super::input::{Input, Timing, Told};
use super::{Edge, Line, sensed};

/// Watches an input; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    line: Arc<dyn Line>,
    task: JoinHandle<()>,
    seen: Arc<Seen>,
    /// Levels that a poll saw: the kernel drops edges that nobody reads in time.
    polled: mpsc::Sender<Polled>,
}

/// What the task has seen so far.
#[derive(Debug)]
struct Seen {
    /// How many edges.
    edges: AtomicU64,
    /// The level that the input settled on.
    settled: AtomicBool,
}

/// A level that a poll saw after so many edges. It is older than an edge that was seen since.
#[derive(Debug)]
struct Polled {
    after: u64,
    edge: Edge,
}

/// What the task heard of.
enum Heard {
    Edge(Edge),
    Polled(Polled),
    /// Something is due.
    Due,
}

impl Watch {
    /// Watches a line that has this level.
    pub(super) fn start(
        runtime: &Handle,
        line: Arc<dyn Line>,
        config: &LineConfig,
        level: bool,
        device: DeviceId,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let debounce = if line.is_debounced() { std::time::Duration::ZERO } else { config.debounce };
        let long_press = (config.role == Role::Button).then_some(config.long_press);
        let input = Input::new(Timing { debounce, long_press }, level);
        let seen = Arc::new(Seen { edges: AtomicU64::new(0), settled: AtomicBool::new(level) });
        let (polled, levels) = mpsc::channel(1);
        let watched = Watched { line: Arc::clone(&line), input, device, events, seen: Arc::clone(&seen) };
        Self { line, task: runtime.spawn(watched.run(levels)), seen, polled }
    }

    /// Reads the line, and returns the level that counts.
    pub(super) fn look(&self) -> io::Result<bool> {
        // Both before the read: an edge that comes while it lasts is newer.
        let (after, at) = (self.seen.edges.load(Ordering::Acquire), Instant::now());
        let level = self.line.level()?;
        let settled = self.seen.settled.load(Ordering::Acquire);
        if level != settled {
            let polled = Polled { after, edge: Edge { at, level } };
            let _ = self.polled.try_send(polled); // full: another poll's waits
        }
        Ok(settled)
    }

    /// Whether it still watches.
    pub(super) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Watched {
    line: Arc<dyn Line>,
    input: Input,
    device: DeviceId,
    events: mpsc::Sender<Event>,
    seen: Arc<Seen>,
}

impl Watched {
    async fn run(mut self, mut polled: mpsc::Receiver<Polled>) {
        loop {
            match self.hear(&mut polled).await {
                Ok(heard) => self.take(heard),
                Err(error) => {
                    tracing::debug!(device = %self.device, %error, "a line tells no edges any more");
                    return;
                }
            }
            self.seen.settled.store(self.input.settled(), Ordering::Release);
        }
    }

    async fn hear(&self, polled: &mut mpsc::Receiver<Polled>) -> io::Result<Heard> {
        let due = self.input.poll_timeout();
        let heard = tokio::select! {
            biased;
            edge = self.line.edge() => return edge.map(Heard::Edge),
            Some(polled) = polled.recv() => Heard::Polled(polled),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Heard::Due,
        };
        // An edge that waits to be read was before: a button that was let go in time is not held, however late that is
        // heard of.
        Ok(self.line.queued()?.map_or(heard, Heard::Edge))
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Edge(edge) => {
                self.seen.edges.fetch_add(1, Ordering::Release);
                self.take_edge(edge);
            }
            Heard::Polled(Polled { after, edge }) => {
                if after == self.seen.edges.load(Ordering::Relaxed) {
                    self.take_edge(edge);
                }
            }
            Heard::Due => self.catch_up(Instant::now()),
        }
    }

    fn take_edge(&mut self, edge: Edge) {
        self.catch_up(edge.at);
        let told = self.input.edge(edge.at, edge.level);
        self.tell(told);
    }

    /// Does what was due until then.
    fn catch_up(&mut self, until: Instant) {
        while self.input.poll_timeout().is_some_and(|at| at <= until) {
            let told = self.input.handle_timeout(until);
            self.tell(told);
        }
    }

    fn tell(&self, told: Option<Told>) {
        let Some(told) = told else { return };
        let device = self.device.clone();
        let event = match told {
            Told::Level(level) => Event::Sampled { device, sample: sensed(level) },
            Told::Pressed(event) => Event::Pressed { device, event },
        };
        if let Err(error) = self.events.try_send(event) {
            tracing::debug!(device = %self.device, %error, "an event of a line is dropped");
        }
    }
}
