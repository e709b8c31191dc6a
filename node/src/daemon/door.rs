//! What stands in front of the API, as the configuration says.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

use super::addresses;
use crate::{
    api::guards::{Guards, Hosts, IsName, Origins, Pace},
    config::Config,
};

/// File descriptors that a node may need: every connection that it takes at once, its links, files and devices.
const DESCRIPTORS: u64 = 4_096;

/// The guards of the API. `is_name` knows further names of this node; `is_public` knows those that have a
/// certificate which every browser trusts.
pub(super) fn guards(config: &Config, pace: Pace, is_name: IsName, is_public: IsName) -> Guards {
    let api = &config.api;
    let hosts = Hosts::new(&api.hosts, &addresses::hostname(), &config.name, is_name);
    Guards { hosts, origins: Origins::new(&api.origins), proxies: api.proxies.clone(), pace, is_public }
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
