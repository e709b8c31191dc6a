//! Finding the other nodes of the household, and being found: multicast DNS (RFC 6762) with service
//! discovery (RFC 6763) under the service `_hearth._udp.local`.
//!
//! What is found is a hint: an address to dial, for a key that the roster admits already. Who
//! answers there must prove that key in the TLS handshake, so a lie costs one failed dial. What is
//! heard is bounded in every way, and what a node says of its household is a hash of its public key: it lets
//! members recognise each other and tells a stranger nothing that joins, reads or writes anything.

mod announcement;
mod devices;
mod hints;
mod interfaces;
mod mdns;
mod nearby;

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use mesh_proto::NodeId;
use serde::Serialize;

pub use announcement::{Announcement, AnnouncementError, HouseholdTag, KEYS, MOST_PAIRS, MOST_VALUE_BYTES};
pub use devices::{Announced, DeviceHints};
pub use hints::{Hints, MOST_ADDRESSES, MOST_INSTANCES};
pub use interfaces::{Choice, InterfaceWatch};
pub use mdns::Mdns;

/// The service under which nodes announce themselves, and the domain.
pub const SERVICE: &str = "_hearth._udp.local.";

/// What discovery has found, and how it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How discovery is.
    pub report: Report,
    /// Where members of the household seem to be.
    pub hints: BTreeMap<NodeId, Vec<SocketAddr>>,
}

/// How discovery is, for `hearth status` and `hearth doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In one word.
    pub state: State,
    /// Where it runs and whom it hears, or why it does not.
    pub detail: String,
    /// What a person can do about it.
    pub way_out: Option<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self { state: State::Starting, detail: "has not looked around yet".into(), way_out: None }
    }
}

/// How discovery is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody wants it.
    Off,
    /// It has not heard itself yet.
    Starting,
    /// It speaks and hears.
    On,
    /// There is no network to speak on.
    Waiting,
    /// It cannot speak or does not hear.
    Failing,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::On => "on",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
        })
    }
}
