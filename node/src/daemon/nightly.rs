//! What is done for the store once a day: the export that a start falls back to when neither the store
//! nor its log reads, and then writing the store anew if it has grown far beyond what it holds.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval_at};
use tracing::{info, warn};

use crate::store::{StoreError, export, worker::StoreJobs};

/// How often is looked whether an export is due; the first time so long after the start.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// How old the newest export may become. By its file's date: boards restart, and not all know the date.
const AT_MOST: Duration = Duration::from_secs(24 * 3_600);

/// Exports the store into `folder` once a day, until it is closed. The newest three are kept.
pub(super) async fn export_nightly(jobs: StoreJobs, folder: PathBuf) {
    let mut look = interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let now = SystemTime::now();
        if !is_due(&folder, now) {
            continue;
        }
        match jobs.export(folder.clone(), now).await {
            Ok(export) => {
                info!(path = %export.path.display(), records = export.records, "exported the store")
            }
            Err(StoreError::Closed) => return,
            Err(reason) => {
                warn!(%reason, "the store could not be exported; tried again in an hour");
                continue;
            }
        }
        match jobs.rebuild_if_grown().await {
            Ok(_) => {}
            Err(StoreError::Closed) => return,
            Err(reason) => {
                warn!(%reason, "the store has grown and could not be written anew; tried again tomorrow");
            }
        }
    }
}

/// Whether the newest export is old, or dated in the future by a clock that was wrong, or missing.
fn is_due(folder: &Path, now: SystemTime) -> bool {
    let newest = export::list(folder).ok().and_then(|exports| exports.into_iter().next());
    let made = newest.and_then(|(_, path)| path.metadata().ok()?.modified().ok());
    made.is_none_or(|made| now.duration_since(made).is_ok_and(|age| age >= AT_MOST) || made > now + AT_MOST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        api::fake::TestFolder,
        store::{memory::MemoryStore, worker::StoreHandle},
    };

    #[tokio::test]
    async fn an_export_is_due_when_there_is_none_or_the_newest_is_a_day_old() {
        let folder = TestFolder::new();
        let exports = folder.path().join("exports");
        let now = SystemTime::now();
        assert!(is_due(&exports, now), "there is none");
        let (store, _committed) = StoreHandle::spawn(Box::new(MemoryStore::new())).unwrap();
        store.jobs().export(exports.clone(), now).await.unwrap();
        assert!(!is_due(&exports, now) && !is_due(&exports, now + AT_MOST / 2));
        assert!(is_due(&exports, now + AT_MOST + Duration::from_secs(60)));
        assert!(is_due(&exports, now - 2 * AT_MOST), "the clock was ahead");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_export_comes_an_hour_after_the_start_and_the_end_with_the_store() {
        let folder = TestFolder::new();
        let exports = folder.path().join("exports");
        let (store, _committed) = StoreHandle::spawn(Box::new(MemoryStore::new())).unwrap();
        let task = tokio::spawn(export_nightly(store.jobs(), exports.clone()));
        tokio::time::sleep(LOOK_EVERY - Duration::from_secs(1)).await;
        assert!(export::list(&exports).unwrap().is_empty());
        // The store thread answers in its own time, which is not paused.
        while export::list(&exports).unwrap().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        store.close().unwrap();
        std::fs::remove_dir_all(&exports).unwrap();
        task.await.unwrap();
    }
}
