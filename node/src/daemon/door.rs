//! Who comes in over the network, and what stands in front of the API.

pub(super) mod issuers;

use std::{
    error::Error,
    io::{IsTerminal as _, stdin, stdout},
    path::Path,
    sync::Arc,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{addresses, metrics::samples, parts::Parts};
use crate::{
    api::{
        guards::{Guards, Hosts, Origins, Pace},
        metrics::MetricsSource,
    },
    auth::{
        Secret,
        jwt::{Issuers, IssuersHandle, IssuersParts},
        people::{People, PeopleHandle, PeopleParts, SignInCounters},
        setup::{Setup, SetupHandle},
        tokens::{Tokens, TokensHandle},
    },
    config::Config,
    service::{HouseholdTime, Service},
    tls::WebResolver,
};

/// File descriptors that a node may need: every connection that it takes at once, its links, files and devices.
const DESCRIPTORS: u64 = 4_096;

/// Those who know who may come in, and the guards of the API.
pub(super) struct Door {
    pub(super) tokens: TokensHandle,
    pub(super) people: PeopleHandle,
    pub(super) issuers: IssuersHandle,
    pub(super) setup: SetupHandle,
    pub(super) guards: Guards,
}

/// What they take.
pub(super) struct DoorParts<'a> {
    pub(super) config: &'a Config,
    pub(super) service: &'a Service,
    pub(super) state_dir: &'a Path,
    pub(super) time: watch::Receiver<HouseholdTime>,
    /// Knows which names have a public certificate.
    pub(super) resolver: Arc<WebResolver>,
    pub(super) shutdown: watch::Receiver<bool>,
}

impl Door {
    /// Starts them.
    pub(super) fn open(tasks: &mut Parts, parts: DoorParts<'_>) -> Result<Self, Box<dyn Error>> {
        let DoorParts { config, service, state_dir, time, resolver, shutdown } = parts;
        let service = service.clone();
        let (tokens, owner) = Tokens::new(service.clone());
        tasks.spawn("the tokens", owner.by(time.clone()).run());
        let folder = state_dir.join("issuers");
        let (issuers, owner) =
            Issuers::new(IssuersParts { service: service.clone(), time: time.clone(), folder });
        tasks.spawn("the issuers", owner.run());
        let (people, owner) =
            People::open(PeopleParts { service, state_dir: state_dir.to_owned(), time, shutdown })?;
        tasks.spawn("the users and sessions", owner.run());
        let (setup, owner) = Setup::open(state_dir, tokens.clone(), people.clone())?;
        tasks.spawn("the setup code", owner.run());
        let (pace, owner) = Pace::channel();
        tasks.spawn("the pace of clients", owner.run());
        Ok(Self { tokens, people, issuers, setup, guards: guards(config, pace, resolver) })
    }
}

/// The guards of the API. The names of the public certificate are names of this node.
fn guards(config: &Config, pace: Pace, resolver: Arc<WebResolver>) -> Guards {
    let (api, domains) = (&config.api, config.tls.domains.clone());
    let is_name = Box::new(move |host: &str| domains.iter().any(|domain| domain.covers(host)));
    let is_public = Box::new(move |host: &str| resolver.is_public(host));
    let hosts = Hosts::new(&api.hosts, &addresses::hostname(), &config.name, is_name);
    Guards { hosts, origins: Origins::new(&api.origins), proxies: api.proxies.clone(), pace, is_public }
}

/// The setup code of a household that was founded just now, if a person at a terminal has founded it: nobody else reads what is
/// printed there.
pub(super) async fn code_for_founder(setup: &SetupHandle, is_founded: bool) -> Option<Secret> {
    if !is_founded || !stdin().is_terminal() || !stdout().is_terminal() {
        return None;
    }
    setup.show().await.ok()?.code
}

/// How sign-ins ended, and how it is with the keys of outside issuers.
pub(super) fn door_metrics(sign_ins: Arc<SignInCounters>, issuers: IssuersHandle) -> MetricsSource {
    Arc::new(move || {
        let mut all = samples("Ends of sign-ins since the start.", sign_ins.metrics());
        all.extend(issuers::metrics(&issuers.known_now(), issuers.failures()));
        all
    })
}

/// Raises the number of file descriptors as far as the system lets it: by default it is what programs of forty
/// years ago could bear.
pub(super) fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => debug!(descriptors = wanted, "may open more files"),
        Err(error) => warn!(%error, ?current, "cannot raise the number of open files"),
    }
}
