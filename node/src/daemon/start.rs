//! What a life of the daemon begins with, and what ends it from outside.

use std::error::Error;

use mesh_proto::{mesh::Loader, planted::Plant};
use tracing::warn;

use super::household;
use crate::store::{
    RecoveryReport, Store as _,
    sled::{SledOptions, SledStore},
};

pub(super) async fn open_store(
    state_dir: std::path::PathBuf,
) -> Result<(SledStore, RecoveryReport, Loader), Box<dyn Error>> {
    let opened = tokio::task::spawn_blocking(move || {
        let (mut store, report) = SledStore::open(&state_dir, SledOptions::default())?;
        let mut loader = Loader::new(Plant::default());
        let mut newer = None;
        store.load(&mut |key, value| {
            if let Err(reason) = loader.record(key, value) {
                newer.get_or_insert(reason);
            }
        })?;
        Ok::<_, crate::store::StoreError>((store, report, loader, newer))
    });
    let (store, report, loader, newer) = opened.await??;
    if let Some(reason) = newer {
        return Err(reason.into());
    }
    if loader.damaged() > 0 {
        warn!(records = loader.damaged(), "records of the store make no sense and were left out");
    }
    Ok((store, report, loader))
}

pub(super) fn random_seed() -> Result<u64, Box<dyn Error>> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| household::HouseholdError::NoRandomness)?;
    Ok(u64::from_le_bytes(bytes))
}

pub(super) async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
