//! Who comes in over the network: people, and the setup code that makes the first of them.

use std::{
    error::Error,
    io::{IsTerminal as _, stdin, stdout},
    path::Path,
    sync::Arc,
};

use tokio::sync::watch;

use super::parts::Parts;
use crate::{
    api::metrics::MetricsSource,
    auth::{
        Secret,
        people::{People, PeopleHandle, PeopleParts, SignInCounters},
        setup::{Setup, SetupHandle},
        tokens::TokensHandle,
    },
    service::{HouseholdTime, Service},
};

/// Starts the owners of users and sessions and of the setup code.
pub(super) fn start(
    tasks: &mut Parts,
    state_dir: &Path,
    service: &Service,
    tokens: &TokensHandle,
    time: watch::Receiver<HouseholdTime>,
    shutdown: watch::Receiver<bool>,
) -> Result<(PeopleHandle, SetupHandle), Box<dyn Error>> {
    let parts = PeopleParts { service: service.clone(), state_dir: state_dir.to_owned(), time, shutdown };
    let (people, people_owner) = People::open(parts)?;
    tasks.spawn("the users and sessions", people_owner.run());
    let (setup, setup_owner) = Setup::open(state_dir, tokens.clone(), people.clone())?;
    tasks.spawn("the setup code", setup_owner.run());
    Ok((people, setup))
}

/// The setup code of a household that was founded just now, if a person at a terminal has founded it: nobody else reads what is
/// printed there.
pub(super) async fn code_for_founder(setup: &SetupHandle, is_founded: bool) -> Option<Secret> {
    if !is_founded || !stdin().is_terminal() || !stdout().is_terminal() {
        return None;
    }
    setup.show().await.ok()?.code
}

pub(super) fn sign_in_metrics(counters: Arc<SignInCounters>) -> MetricsSource {
    Arc::new(move || super::metrics::samples("Ends of sign-ins since the start.", counters.metrics()))
}
