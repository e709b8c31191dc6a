//! What a life of the daemon begins with, and what ends it from outside.

use std::{
    error::Error,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_proto::{mesh::Loader, planted::Plant, record::RecordError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::household::{self, Household};
use crate::{
    backup::restore::end_interrupted,
    config::Config,
    listener::{Ports, bind_ports_within},
    state_dir::StateDir,
    store::{
        Batch, Recovery, RecoveryReport, Store as _, StoreError, repairs, restored, show_key,
        sled::{Sink, SledOptions, SledStore},
    },
    supervisor::Systemd,
};

/// So many records are taken out in one batch.
const TAKEN_OUT: usize = 1_000;

/// The records of the store on their way into the machine.
struct Loading {
    loader: Loader,
    /// Why this program must not start with this store, if it must not.
    newer: Option<RecordError>,
    /// Keys of records that make no sense.
    senseless: Vec<Vec<u8>>,
}

impl Default for Loading {
    fn default() -> Self {
        Self { loader: Loader::new(Plant::default()), newer: None, senseless: Vec::new() }
    }
}

impl Sink for Loading {
    fn take(&mut self, key: &[u8], value: &[u8]) {
        let damaged = self.loader.damaged();
        if let Err(reason) = self.loader.record(key, value) {
            self.newer.get_or_insert(reason);
        }
        if self.loader.damaged() > damaged {
            self.senseless.push(key.to_vec());
        }
    }
}

/// What the parts of a life are made of.
pub(super) struct Opened {
    pub(super) ports: Ports,
    pub(super) household: Household,
    pub(super) store: SledStore,
    pub(super) recovery: RecoveryReport,
    pub(super) loader: Loader,
}

/// What a life begins with. It may take long: the household to join has to be found, a store to be repaired. `patience` is how long the
/// ports may still be held by the life before.
pub(super) async fn open(
    config: &Config,
    state: &Arc<StateDir>,
    patience: Duration,
    token: Option<&str>,
    systemd: &Systemd,
) -> Result<Opened, Box<dyn Error>> {
    let ports = bind_ports_within(config.listen, patience).await?;
    systemd.while_opening(end_interrupted(state.clone())).await?;
    let household = household::open(state, &config.name, token).await?;
    let (store, recovery, loader) = systemd.while_opening(open_store(state.clone())).await?;
    Ok(Opened { ports, household, store, recovery, loader })
}

/// The folder stays locked until this is over, whoever waits for it meanwhile.
async fn open_store(state: Arc<StateDir>) -> Result<(SledStore, RecoveryReport, Loader), Box<dyn Error>> {
    let opened = tokio::task::spawn_blocking(move || {
        let root = state.path();
        let (mut store, loading, mut report) = SledStore::open_into::<Loading>(root, SledOptions::default())?;
        if loading.newer.is_none() {
            take_out(root, &mut store, &mut report, &loading.senseless)?;
        }
        Ok::<_, StoreError>((store, report, loading))
    });
    let (store, report, loading) = opened.await??;
    match loading.newer {
        Some(reason) => Err(reason.into()),
        None => Ok((store, report, loading.loader)),
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

/// SIGTERM of systemd, and Ctrl-C. One that comes before anybody asks for it is kept: none is lost while a life
/// begins, or between two.
pub(super) struct StopSignal {
    term: Signal,
    int: Signal,
}

impl StopSignal {
    /// From now on they no longer end the process by themselves.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// None when one comes before something is over, which is then given up.
    pub(super) async fn or<T>(&mut self, something: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            over = something => Some(over),
            () = self.comes() => {
                info!("stopping before it is ready");
                None
            }
        }
    }

    /// Returns when one has come.
    pub(super) async fn comes(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
