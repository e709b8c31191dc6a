//! How a run ends, which is the same for every adapter.

use tokio::sync::{mpsc, watch};

use crate::adapter::Reading;

/// Returns once the adapter must stop, or nobody is left to say so.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Passes on what fits; nobody may be reading any more.
pub(crate) fn pass_on(readings: &mpsc::Sender<Reading>, mut next: impl FnMut() -> Option<Reading>) {
    while let Some(reading) = next() {
        if readings.try_send(reading).is_err() {
            return;
        }
    }
}
