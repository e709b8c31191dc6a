//! What a life of the daemon begins with, and what ends it from outside.

use std::{error::Error, path::Path, time::SystemTime};

use mesh_proto::{mesh::Loader, planted::Plant};
use tracing::warn;

use super::household;
use crate::store::{
    Batch, Recovery, RecoveryReport, Store, StoreError, repairs, restored, show_key,
    sled::{SledOptions, SledStore},
};

/// So many records are taken out in one batch.
const TAKEN_OUT: usize = 1_000;

pub(super) async fn open_store(
    state_dir: std::path::PathBuf,
) -> Result<(SledStore, RecoveryReport, Loader), Box<dyn Error>> {
    let opened = tokio::task::spawn_blocking(move || {
        let (mut store, mut report) = SledStore::open(&state_dir, SledOptions::default())?;
        let mut loader = Loader::new(Plant::default());
        let (mut newer, mut senseless) = (None, Vec::new());
        store.load(&mut |key, value| {
            let damaged = loader.damaged();
            match loader.record(key, value) {
                Err(reason) => {
                    newer.get_or_insert(reason);
                }
                Ok(()) if loader.damaged() > damaged => senseless.push(key.to_vec()),
                Ok(()) => {}
            }
        })?;
        if newer.is_none() {
            take_out(&state_dir, &mut store, &mut report, &senseless)?;
        }
        Ok::<_, StoreError>((store, report, loader, newer))
    });
    let (store, report, loader, newer) = opened.await??;
    match newer {
        Some(reason) => Err(reason.into()),
        None => Ok((store, report, loader)),
    }
}

/// Takes out the records that make no sense: with them the store has lost writes, and were they left in it,
/// each start would find that anew.
fn take_out(
    state_dir: &Path,
    store: &mut SledStore,
    report: &mut RecoveryReport,
    senseless: &[Vec<u8>],
) -> Result<(), StoreError> {
    let Some(first) = senseless.first() else { return Ok(()) };
    let lost = senseless.len() as u64;
    let step =
        format!("{lost} records make no sense and were taken out of the store: `{}` first.", show_key(first));
    warn!("{step}");
    repairs::remember(state_dir, SystemTime::now(), [&step]);
    report.steps.push(step);
    // Before they are gone: the next start would find the store whole.
    restored::ensure_mark(state_dir)?;
    for some in senseless.chunks(TAKEN_OUT) {
        store.commit(&Batch { puts: Vec::new(), deletes: some.to_vec() })?;
    }
    if !report.may_have_lost_writes() {
        report.outcome = Recovery::Salvaged { kept: store.len(), lost };
    }
    Ok(())
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

#[cfg(test)]
mod tests;
