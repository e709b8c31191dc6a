//! What is counted, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    agenda::Due,
    record::{Record, State},
};

/// What happened by itself on this node since its start.
#[derive(Debug, Default)]
pub struct Counts {
    carried_out: AtomicU64,
    failed: AtomicU64,
    again: AtomicU64,
    missed: AtomicU64,
}

impl Counts {
    /// An occurrence was carried out.
    pub(super) fn ended(&self, record: &Record) {
        let add = |which: &AtomicU64, count: u64| which.fetch_add(count, Ordering::Relaxed);
        add(&self.carried_out, 1);
        add(&self.failed, u64::from(record.state == State::Failed));
        add(&self.again, u64::from(record.again));
        add(&self.missed, record.passed_over.into());
    }

    /// An occurrence was missed, and is not made up for.
    pub(super) fn passed_over(&self, due: &Due) {
        self.missed.fetch_add(u64::from(due.passed_over) + 1, Ordering::Relaxed);
    }

    /// The counters by their names.
    pub fn metrics(&self) -> [(&'static str, u64); 4] {
        [
            ("hearth_schedule_runs_total", &self.carried_out),
            ("hearth_schedule_failed_total", &self.failed),
            ("hearth_schedule_again_total", &self.again),
            ("hearth_schedule_missed_total", &self.missed),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}
