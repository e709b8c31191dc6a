//! What a life of the daemon begins with, from the state folder and the configuration.

use std::{collections::BTreeMap, error::Error, net::SocketAddr};

use ed25519_dalek::SigningKey;
use mesh_proto::{
    Hlc, NodeId,
    mesh::{Boot, Loader, Mesh, next_run},
    overlay::Run,
    planted::Plant,
    time,
};

use super::{Life, household::Household, start::random_seed};
use crate::{
    auth::{InviteBook, InviteDesk, Moment},
    devices::AdapterSettings,
    eventloop::Clock,
    state_dir::{INVITES_FILE, Incarnation},
    store::{
        files::{read_checked, write_durable},
        restored,
    },
    timekeeping::{BUILD_S, unix_seconds},
    transport::Target,
};

impl Life<'_> {
    pub(super) fn mesh(
        &self,
        household: &Household,
        me: NodeId,
        loader: Loader,
        wall: time::WallClock,
    ) -> Result<Mesh, Box<dyn Error>> {
        let state = &self.state;
        // The store has left it when it was opened, if it may have lost writes.
        let mark = restored::mark(state.path())?;
        let last = state.incarnation()?;
        let run = next_run(
            last.map(|last| Run { incarnation: last.incarnation, generation: last.generation }),
            loader.highest_generation(me.short()),
            mark.is_some(),
            u32::try_from(random_seed()? >> 32).unwrap_or(0),
            Plant::default(),
        );
        let stored = Incarnation { generation: run.generation, incarnation: run.incarnation };
        state.set_incarnation(stored)?;
        // After the run: a mark that names it must not outlive a run that never was.
        let since = mark.map(|since| since.unwrap_or(run.generation));
        if mark == Some(None) {
            restored::set_mark(state.path(), since)?;
        }
        let boot = Boot {
            key: SigningKey::from_bytes(household.seed.as_bytes()),
            roster: household.roster.clone(),
            run,
            ceiling: Hlc::from_bits(state.clock_ceiling()?.unwrap_or(0)),
            build_ms: BUILD_S * 1000,
            wall,
            restored: since,
            seed: random_seed()?,
            software: concat!("hearth ", env!("CARGO_PKG_VERSION")).into(),
            limits: mesh_proto::limits::Limits::default(),
            plant: Plant::default(),
        };
        Ok(Mesh::new(boot, Clock::new().now(), loader))
    }

    pub(super) fn seeds(&self, household: &Household) -> Vec<(Target, Vec<SocketAddr>)> {
        let configured = self.config.peers.iter().map(|peer| (Target::Host(peer.clone()), Vec::new()));
        household.peers.iter().cloned().chain(configured).collect()
    }

    pub(super) fn invites(&self, me: NodeId, household: &Household) -> Result<InviteDesk, Box<dyn Error>> {
        let path = self.state.path().join("invites");
        // One that was damaged is gone by now, and a person was told.
        let book = match read_checked(&path, &INVITES_FILE)? {
            Some(bytes) => InviteBook::from_bytes(&bytes)?,
            None => InviteBook::default(),
        };
        let persist = Box::new(move |bytes: &[u8]| {
            write_durable(&path, &INVITES_FILE, bytes).map_err(std::io::Error::other)
        });
        let started = std::time::Instant::now();
        let clock = Box::new(move || Moment { unix: unix_seconds(), running: started.elapsed().as_secs() });
        Ok(InviteDesk::start(book, me, household.roster.household(), persist, clock))
    }

    /// Every adapter runs with its defaults unless the configuration says otherwise.
    pub(super) fn adapters(&self) -> BTreeMap<String, AdapterSettings> {
        let settings = |(id, adapter): (&String, &crate::config::AdapterConfig)| {
            (id.clone(), AdapterSettings { enabled: adapter.enabled, settings: adapter.settings.clone() })
        };
        self.config.adapters.iter().map(settings).collect()
    }
}
