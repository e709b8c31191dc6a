//! The contract between an adapter and the node that runs it.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::model::{Availability, CommandId, Description, DeviceId, LightChange, LightState, Source, Stage};

/// Who may own what an adapter finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Several boards may reach the same device; one of them owns it at a time.
    Household,
    /// The device is wired to this board and stays with it.
    Board,
}

/// What an adapter is, known without starting it.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// Its id, also the prefix of its device ids and its key in the configuration: 1 to 16 of `a-z`, `0-9`, `_`.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// Who may own its devices.
    pub scope: Scope,
    /// The JSON schema of its settings: an object whose `properties` are all the keys it knows, each with a `description`.
    pub settings_schema: fn() -> serde_json::Value,
}

/// One line of the registry: what the adapter is, and how to make one from its settings.
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    /// What it is.
    pub descriptor: Descriptor,
    /// Makes one; does no IO. An empty object is always valid: every setting has a default.
    pub build: fn(&serde_json::Value) -> Result<Box<dyn Adapter>, SettingsError>,
}

/// What is wrong with an adapter's settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The settings are not an object.
    #[error("settings of {adapter} must be an object of keys and values, but are {found}")]
    NotAnObject {
        /// The adapter's id.
        adapter: &'static str,
        /// What was given.
        found: &'static str,
    },
    /// A key that the adapter does not know.
    #[error("settings of {adapter} hold the unknown key {key:?}: it knows {known}")]
    UnknownKey {
        /// The adapter's id.
        adapter: &'static str,
        /// The unknown key.
        key: String,
        /// The keys it knows, with commas between them.
        known: String,
    },
    /// A value that breaks its key's rule.
    #[error("setting {key:?} of {adapter} is {value}: it must be {rule}")]
    Invalid {
        /// The adapter's id.
        adapter: &'static str,
        /// The key.
        key: String,
        /// The value that was given, shortened.
        value: String,
        /// What the value must be.
        rule: String,
    },
}

/// Why an adapter stopped by itself. The node restarts it with backoff.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The network, a file or a bus could not be used.
    #[error("{adapter}: {what}: {source}")]
    Io {
        /// The adapter's id.
        adapter: &'static str,
        /// What was being done, with the address or path.
        what: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// What an adapter gets from the node for one run.
#[derive(Debug)]
pub struct Context {
    /// Where readings go. Bounded: when the node is slow the adapter waits, and goes on taking commands.
    pub readings: mpsc::Sender<Reading>,
    /// What the node asks for. Closed means the same as shutdown.
    pub commands: mpsc::Receiver<Directive>,
    /// Becomes `true` when the adapter must stop; it then returns within 2 s.
    pub shutdown: watch::Receiver<bool>,
}

/// A running piece of code that speaks to one kind of hardware.
pub trait Adapter: Send {
    /// Runs until shutdown (`Ok`) or until it cannot go on (`Err`).
    ///
    /// It owns its sockets and its state, talks only through `ctx`, and never panics on what the
    /// network sends. Dropping the future at any point is safe: nothing half-done stays behind.
    fn run(self: Box<Self>, ctx: Context) -> Pin<Box<dyn Future<Output = Result<(), AdapterError>> + Send>>;
}

/// What the node asks of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// This node owns the device from now on, or no longer does. An adapter polls and commands only
    /// what is owned. May name a device that is not found yet: it holds from when it is.
    Own {
        /// The device.
        device: DeviceId,
        /// Whether this node owns it.
        owned: bool,
    },
    /// Change a light.
    ///
    /// A newer one for the same device supersedes the one in flight at once; what the newer leaves
    /// open stays as the older asked for it.
    Light {
        /// The device.
        device: DeviceId,
        /// The command; given again while in flight it is ignored.
        command: CommandId,
        /// What to change.
        change: LightChange,
        /// When it ends as timed out. Must lie after the end of the transition, because only then
        /// can a read-back confirm: give `now + patience + change.transition_ms`.
        deadline: Instant,
    },
    /// Read the device's state now and report it even if it has not changed.
    Refresh {
        /// The device.
        device: DeviceId,
    },
}

/// What an adapter tells the node. Readings of one device arrive in the order they happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// This node reaches the device. Sent again when the description changes.
    Found {
        /// What it is.
        device: Description,
    },
    /// This node no longer reaches the device.
    Lost {
        /// The device.
        device: DeviceId,
        /// For people: how long and how it was asked.
        reason: String,
    },
    /// The state of an owned device. Sent when it or `command` changed, after `Own`, and for `Refresh`.
    Reported {
        /// The device.
        device: DeviceId,
        /// Its state.
        state: LightState,
        /// The newest command this state is known to follow; never goes back to an older one.
        command: Option<CommandId>,
        /// How the state is known.
        source: Source,
    },
    /// Whether an owned device answers. Sent when it changes.
    Availability {
        /// The device.
        device: DeviceId,
        /// Whether it answers.
        availability: Availability,
        /// Why this is so, for people.
        reason: String,
    },
    /// Where a command stands. Every command ends in exactly one final stage, unless the run ends first.
    Progress {
        /// The device.
        device: DeviceId,
        /// The command.
        command: CommandId,
        /// Where it stands.
        stage: Stage,
    },
}
