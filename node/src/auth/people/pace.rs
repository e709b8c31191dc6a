//! The pace of sign-ins and the file that outlives the daemon: see [`crate::auth::backoff`].

use std::{net::IpAddr, path::PathBuf, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::warn;

use crate::{
    auth::backoff::{self, Attempt, Backoff},
    state_dir::SIGN_INS_FILE,
    store::files::{read_checked, write_durable},
};

/// What has changed is written so soon.
const SAVE_WITHIN: Duration = Duration::from_secs(5);

/// The counts, which are written a while after they have changed: not at each guess.
pub(super) struct Pace {
    backoff: Backoff,
    file: PathBuf,
    save_at: Option<Instant>,
    /// The write that runs; whether it succeeded.
    saving: Option<JoinHandle<bool>>,
}

impl Pace {
    /// What the file of this state folder held.
    pub(super) fn open(state_dir: &std::path::Path) -> Self {
        let file = state_dir.join(backoff::FILE);
        let backoff = match read_checked(&file, &SIGN_INS_FILE) {
            Ok(Some(bytes)) => Backoff::read(&bytes, Instant::now(), wall_s()),
            // A damaged file was told of when the state folder was opened.
            Ok(None) | Err(_) => Backoff::new(Instant::now()),
        };
        Self { backoff, file, save_at: None, saving: None }
    }

    pub(super) fn begin(&mut self, user: &str, address: Option<IpAddr>) -> Result<Attempt, u64> {
        let begun = self.backoff.begin(user, address, Instant::now());
        self.plan();
        begun
    }

    pub(super) fn succeeded(&mut self, attempt: &Attempt) {
        self.backoff.succeeded(attempt, Instant::now());
        self.plan();
    }

    pub(super) fn take_back(&mut self, attempt: &Attempt) {
        self.backoff.take_back(attempt);
        self.plan();
    }

    fn plan(&mut self) {
        if self.backoff.is_changed() {
            self.save_at.get_or_insert_with(|| Instant::now() + SAVE_WITHIN);
        }
    }

    /// Returns when it is time to save; never while nothing has changed. Safe to cancel.
    pub(super) async fn due(&self) {
        match self.save_at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Begins to write, once the write before is done.
    pub(super) fn save(&mut self) {
        self.save_at = None;
        if let Some(mut running) = self.saving.take() {
            match (&mut running).now_or_never() {
                None => {
                    self.saving = Some(running);
                    self.save_at = Some(Instant::now() + SAVE_WITHIN);
                    return;
                }
                Some(Ok(true)) => {}
                Some(_) => self.backoff.not_saved(),
            }
        }
        let Some(bytes) = self.backoff.save(Instant::now(), wall_s()) else { return };
        let file = self.file.clone();
        self.saving = Some(spawn_blocking(move || match write_durable(&file, &SIGN_INS_FILE, &bytes) {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "the counts of wrong passwords cannot be written: a restart forgets them");
                false
            }
        }));
    }

    /// Writes what has changed and waits until that is done.
    pub(super) async fn save_now(&mut self) {
        if let Some(running) = self.saving.take()
            && !running.await.unwrap_or(false)
        {
            self.backoff.not_saved();
        }
        self.save();
        if let Some(running) = self.saving.take() {
            // It has told what is wrong.
            let _ = running.await;
        }
    }
}

fn wall_s() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}
