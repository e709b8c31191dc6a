//! A task that watches one input.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::board::Event;
use crate::model::DeviceId;

use super::config::{LineConfig, Role};
use super::input::{Input, Timing, Told};
use super::{Line, sensed};

/// Watches an input; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    task: JoinHandle<()>,
    /// The level that the input settled on.
    settled: Arc<AtomicBool>,
    /// Levels that a poll saw: the kernel drops edges that nobody reads in time.
    polled: mpsc::Sender<bool>,
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
        let settled = Arc::new(AtomicBool::new(level));
        let (polled, levels) = mpsc::channel(1);
        let watched = Watched { line, input, device, events, settled: Arc::clone(&settled) };
        Self { task: runtime.spawn(watched.run(levels)), settled, polled }
    }

    /// Takes the level that a poll saw, and returns the one that counts.
    pub(super) fn compare(&self, level: bool) -> bool {
        let settled = self.settled.load(Ordering::Relaxed);
        if level != settled {
            let _ = self.polled.try_send(level); // full: another poll's waits
        }
        settled
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
    settled: Arc<AtomicBool>,
}

impl Watched {
    async fn run(mut self, mut polled: mpsc::Receiver<bool>) {
        loop {
            let due = self.input.poll_timeout();
            let told = tokio::select! {
                edge = self.line.edge() => match edge {
                    Ok(level) => self.input.edge(Instant::now(), level),
                    Err(error) => {
                        tracing::debug!(device = %self.device, %error, "a line tells no edges any more");
                        return;
                    }
                },
                Some(level) = polled.recv() => self.input.edge(Instant::now(), level),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.input.handle_timeout(Instant::now())
                }
            };
            self.settled.store(self.input.settled(), Ordering::Relaxed);
            if let Some(told) = told
                && let Err(error) = self.events.try_send(self.event(told))
            {
                tracing::debug!(device = %self.device, %error, "an event of a line is dropped");
            }
        }
    }

    fn event(&self, told: Told) -> Event {
        let device = self.device.clone();
        match told {
            Told::Level(level) => Event::Sampled { device, sample: sensed(level) },
            Told::Pressed(event) => Event::Pressed { device, event },
        }
    }
}
