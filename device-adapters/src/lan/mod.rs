//! What adapters of devices with a web server of their own share: they are found by hints and by configured addresses, each
//! is asked for who it is, only what is owned is polled and told from, and commands are confirmed by what is read back.
//!
//! - [`fleet`] finds boards and gives each to a task of its own; a board that changes its address keeps its task.
//! - [`station`] is that task: the sockets. [`board`] decides what it does next, and is pure. [`whereabouts`] is its address:
//!   after anything that failed the board has to say who it is before it is told anything.
//! - [`client`] asks over HTTP, no faster than the board bears.
//!
//! An adapter implements [`Protocol`] and calls [`fleet::run`].

mod board;
pub(crate) mod client;
mod command;
pub(crate) mod config;
pub(crate) mod fleet;
mod station;
#[cfg(test)]
mod tests;
mod unit;
mod whereabouts;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::http::Origin;
use crate::model::{Change, Description, DeviceId, Measurement, State};
use crate::net::Route;
use crate::websocket::Feed;

/// Why a board did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Nothing came, or what came is not its protocol.
    #[error("{0}")]
    Failed(String),
    /// Another board answered: its MAC address.
    #[error("another device, {0}, answered")]
    Other(String),
    /// It wants a password, or another one.
    #[error("{0}")]
    Locked(String),
    /// It understood, and will not.
    #[error("{0}")]
    Rejected(String),
}

/// Where a board is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) origin: Origin,
    /// Whether a person named it in the settings; anybody on the network can announce one.
    pub(crate) configured: bool,
}

/// Who a board is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its MAC address: 12 hexadecimal digits in lower case.
    pub(crate) hardware: String,
    /// Changes when its description has to be read again.
    pub(crate) fingerprint: String,
}

/// What a board is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Layout {
    /// The devices on it; the id of each begins with the adapter's prefix and the board's MAC address.
    pub(crate) devices: Vec<Description>,
    /// How long it sleeps between two signs of life, if it does.
    pub(crate) sleeps: Option<Duration>,
    /// It could not be read for want of a password, and is read again by and by.
    pub(crate) provisional: bool,
}

/// What the devices of a board show.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// The states that are known.
    pub(crate) states: BTreeMap<DeviceId, State>,
    /// What sensors yielded.
    pub(crate) measured: BTreeMap<DeviceId, BTreeMap<String, Measurement>>,
    /// What was pressed.
    pub(crate) events: Vec<(DeviceId, String)>,
    /// Whether it is all there is, so that what is missing is unknown.
    pub(crate) is_whole: bool,
    /// Whether the description has to be read again.
    pub(crate) is_changed: bool,
}

/// How often a board is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    /// Between two polls of an owned board that tells nothing by itself.
    pub(crate) poll: Duration,
    /// Between two questions to any board whether it is there.
    pub(crate) discover: Duration,
}

/// The language of a kind of board. The first board that it meets is the one it speaks to: what another says is
/// [`Fault::Other`], and is never taken in ([`client::Caller::meets`]).
pub(crate) trait Protocol: Send + Sized + 'static {
    /// The settings that it needs.
    type Settings: Clone + Send + Sync + 'static;

    /// The adapter's id.
    const ID: &'static str;
    /// The service by which boards announce themselves.
    const SERVICE: &'static str;

    /// Nothing is connected yet.
    fn new(settings: &Self::Settings, route: &Route, to: &Address) -> Self;

    /// From now on the board is asked there, over new connections.
    fn move_to(&mut self, to: Address);

    /// When the board bears the next request.
    fn ready(&self) -> Instant;

    /// Asks who it is; any board may be asked that.
    fn identify(&mut self) -> impl Future<Output = Result<Identity, Fault>> + Send;

    /// Asks what it is made of.
    fn describe(&mut self) -> impl Future<Output = Result<Layout, Fault>> + Send;

    /// Asks for all states and measurements.
    fn read(&mut self) -> impl Future<Output = Result<Snapshot, Fault>> + Send;

    /// Tells it a change; returns once it acknowledged.
    fn change(
        &mut self,
        device: &DeviceId,
        change: &Change,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Opens what it tells by itself.
    fn feed(&self) -> Feed;

    /// What a text that it told means; nothing of a text that is not understood.
    fn told(&mut self, text: &str) -> Result<Snapshot, Fault>;
}

/// The MAC address in the id of a device: what follows the adapter's prefix.
fn hardware_of(device: &DeviceId, adapter: &str) -> Option<String> {
    let rest = device.as_str().strip_prefix(adapter)?.strip_prefix('-')?;
    let hardware = rest.split('-').next()?;
    is_hardware(hardware).then(|| hardware.to_owned())
}

fn is_hardware(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A MAC address as boards write it: with colons or without, in upper or lower case.
pub(crate) fn hardware(text: &str) -> Option<String> {
    let bare: String = text.chars().take(40).filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    is_hardware(&bare).then_some(bare)
}

/// A text of a board as people may read it: without control characters, of at most `most` characters.
pub(crate) fn readable(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect::<String>().trim().to_owned()
}
