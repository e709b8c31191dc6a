//! The two rings together: where they are, what is written to them, and how a question is answered from them.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use serde_json::Value as Json;

use super::{
    answer::{Gathering, Grid, Shown},
    batch::{Batch, Recorded, Value},
    recorder::{Recorder, Which},
    ring::{self, Appended, Part, Ring, SEGMENT_BYTES},
};
use crate::{
    api::ports::history::{HistoryQuery, HistoryView, SeriesView},
    store::DiskError,
};

/// The rings on the disk.
#[derive(Debug)]
pub(super) struct Disk {
    recent: Ring,
    long: Ring,
}

/// The folders of the rings.
const RECENT: &str = "recent";
const LONG: &str = "long";

/// What is to be written to a ring.
#[derive(Debug)]
pub(super) struct Job {
    ring: Which,
    batch: Batch,
    standing: Vec<Recorded>,
}

/// What became of a flush.
pub(super) struct Ended {
    pub(super) disk: Disk,
    /// What was written, and what that took.
    pub(super) written: Vec<(Which, Batch, Appended)>,
    pub(super) failed: Option<DiskError>,
}

/// When nothing has changed for so long, that is written down, in seconds: after a power cut it is known still.
const MARK_EVERY_S: u64 = 3_600;

/// What is to be written now; unless it `must`, nothing of what stayed as it was.
pub(super) fn jobs(recorder: &Recorder, now: u64, must: bool) -> Vec<Job> {
    let is_recording = !recorder.is_empty();
    let job = |ring| {
        let batch = recorder.batch(ring, now, None);
        let lasted = batch.to.saturating_sub(batch.from);
        let is_mark = is_recording && (must && lasted > 0 || lasted >= MARK_EVERY_S);
        let is_worth_it = !batch.is_empty() || is_mark;
        is_worth_it.then(|| Job { ring, standing: recorder.standing(ring), batch })
    };
    [Which::Recent, Which::Long].into_iter().filter_map(job).collect()
}

impl Disk {
    /// Opens the rings in a folder, or makes them; a third of the room is for the recent one.
    ///
    /// # Errors
    /// What the disk refuses.
    pub(super) fn open(folder: &Path, megabytes: u32) -> Result<Self, DiskError> {
        let segments = (megabytes as usize).saturating_mul(1024 * 1024 / SEGMENT_BYTES);
        let recent = (segments / 3).max(2);
        let long = segments.saturating_sub(recent);
        Ok(Self {
            recent: Ring::open(&folder.join(RECENT), recent)?,
            long: Ring::open(&folder.join(LONG), long)?,
        })
    }

    /// Deletes the rings in a folder. Answers with how many files there were.
    ///
    /// # Errors
    /// What the disk refuses; the rest goes the next time.
    pub(super) fn delete(folder: &Path) -> Result<usize, DiskError> {
        let deleted = ring::delete(&folder.join(RECENT))? + ring::delete(&folder.join(LONG))?;
        // What a person put there stays.
        let _ = std::fs::remove_dir(folder);
        Ok(deleted)
    }

    /// What both rings take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.recent.bytes() + self.long.bytes()
    }

    /// How many damaged entries were found since the start, of those that are still there.
    pub(super) fn damaged(&self) -> usize {
        self.recent.damaged() + self.long.damaged()
    }

    /// The end of what was written last, in seconds since 1970.
    pub(super) fn to(&self) -> Option<u64> {
        self.recent.to().max(self.long.to())
    }

    /// The devices of which something is known.
    pub(super) fn devices(&self) -> BTreeSet<Arc<str>> {
        let mut devices = self.recent.devices();
        devices.append(&mut self.long.devices());
        devices
    }

    #[cfg(test)]
    pub(super) fn ring(&self, which: Which) -> &Ring {
        match which {
            Which::Recent => &self.recent,
            Which::Long => &self.long,
        }
    }

    /// Writes; what cannot be written keeps the rest from nothing.
    pub(super) fn write(mut self, jobs: Vec<Job>) -> Ended {
        let (mut written, mut failed) = (Vec::new(), None);
        for Job { ring, batch, standing } in jobs {
            let to = match ring {
                Which::Recent => &mut self.recent,
                Which::Long => &mut self.long,
            };
            match to.append(&batch, &standing) {
                Ok(appended) => written.push((ring, batch, appended)),
                Err(error) => failed = Some(error),
            }
        }
        Ended { disk: self, written, failed }
    }
}

/// A question with all that is needed to answer it, apart from the task that owns the history.
pub(super) struct Reading {
    device: String,
    key: Option<String>,
    grid: Grid,
    recent: Vec<Part>,
    long: Vec<Part>,
    /// Where the recent ring begins.
    recent_from: u64,
    /// What has not been written yet.
    waiting: [Batch; 2],
}

impl Reading {
    pub(super) fn new(
        query: &HistoryQuery,
        grid: Grid,
        recorder: &Recorder,
        disk: Option<&Disk>,
        now: u64,
    ) -> Self {
        let device = query.device.name().to_owned();
        let waiting = [Which::Recent, Which::Long].map(|ring| recorder.batch(ring, now, Some(&device)));
        let parts = |ring: fn(&Disk) -> &Ring| disk.map(|disk| ring(disk).parts(grid.since));
        let recent_from = disk.and_then(|disk| disk.recent.from());
        Self {
            key: query.key.clone(),
            grid,
            recent: parts(|disk| &disk.recent).unwrap_or_default(),
            long: parts(|disk| &disk.long).unwrap_or_default(),
            recent_from: recent_from.unwrap_or(u64::MAX).min(waiting[0].from),
            waiting,
            device,
        }
    }

    /// Reads the rings; numbers from the recent one as far back as it goes.
    pub(super) fn answer(self) -> HistoryView {
        let [waiting_recent, waiting_long] = &self.waiting;
        let mut recent = Gathering::new(self.grid, self.key.clone());
        let mut long = Gathering::new(self.grid, self.key.clone()).numbers_before(self.recent_from);
        self.gather(&self.long, waiting_long, &mut long);
        self.gather(&self.recent, waiting_recent, &mut recent);
        let series = long.finish(recent).into_iter().map(|(key, shown)| (key, view(shown)));
        HistoryView {
            since: self.grid.since,
            until: self.grid.until,
            step_s: self.grid.step,
            series: series.collect(),
        }
    }

    fn gather(&self, parts: &[Part], waiting: &Batch, to: &mut Gathering) {
        for part in parts {
            part.read(&self.device, &mut |batch| to.take(batch, &self.device));
        }
        to.take(waiting, &self.device);
    }
}

fn view(shown: Shown) -> SeriesView {
    match shown {
        Shown::Numbers(stretches) => {
            let point = |stretch: super::answer::Stretch| {
                (stretch.at.saturating_mul(1_000), stretch.min, stretch.mean, stretch.max)
            };
            let last = stretches.last().map(|stretch| stretch.last);
            SeriesView::Numeric { points: stretches.into_iter().map(point).collect(), last }
        }
        Shown::States(changes, thinned) => {
            let point = |(at, value): (u64, Value)| {
                let value = match value {
                    Value::Truth(truth) => Json::Bool(truth),
                    Value::Word(word) => Json::String(word.into()),
                    Value::Unknown | Value::Number(_) => Json::Null,
                };
                (at.saturating_mul(1_000), value)
            };
            SeriesView::State { points: changes.into_iter().map(point).collect(), thinned }
        }
    }
}
