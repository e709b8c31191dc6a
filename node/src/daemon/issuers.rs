//! The outside issuers.

use std::path::Path;

use tokio::sync::watch;

use super::parts::Parts;
use crate::{
    auth::jwt::{Issuers, IssuersHandle, IssuersParts},
    service::{HouseholdTime, Service},
};

/// Starts their owner, which keeps their keys in a folder of the state folder.
pub(super) fn start(
    tasks: &mut Parts,
    service: &Service,
    time: &watch::Receiver<HouseholdTime>,
    state: &Path,
) -> IssuersHandle {
    let folder = state.join("issuers");
    let (handle, owner) = Issuers::new(IssuersParts { service: service.clone(), time: time.clone(), folder });
    tasks.spawn("the issuers", owner.run());
    handle
}
