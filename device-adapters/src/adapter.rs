//! The contract between an adapter and the node that runs it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::model::{
    Availability, Change, CommandId, Description, DeviceId, Forecast, Measurement, Source, Stage, State,
};

/// Who runs an adapter, and who may own what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every board looks for devices. Several may reach the same one; one of them owns it at a time.
    Household,
    /// One board at a time runs it and owns all that it finds: a bridge, a broker or a service that many clients at
    /// once would burden. One that cannot reach its service ends with an error, and another board tries.
    Single,
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
    /// Who runs it.
    pub scope: Scope,
    /// The DNS-SD service types by which its devices announce themselves, such as `_wled._tcp`
    /// (RFC 6763); it gets what is found as [`Hint`]s.
    pub mdns: &'static [&'static str],
    /// Whether it wants to see all devices of the home ([`Directive::Show`]), to show them to somebody else.
    pub shows_home: bool,
    /// The JSON schema of its settings: an object whose `properties` are all the keys it knows, each with a
    /// `description`. One that is `writeOnly` holds a secret: it is never shown again.
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

/// Why an adapter stopped by itself. The node restarts it with backoff, unless it says otherwise here.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// It cannot do anything before somebody sets something. It is started again when its settings change.
    #[error("{adapter} waits for its settings: {what}")]
    Unconfigured {
        /// The adapter's id.
        adapter: &'static str,
        /// What must be set, and how.
        what: String,
    },
    /// Its service refuses it: a wrong password, a key that was withdrawn.
    #[error("{adapter} is refused: {what}")]
    Refused {
        /// The adapter's id.
        adapter: &'static str,
        /// Who refuses it, what was said, and the way out. Holds no secret.
        what: String,
    },
    /// Its service cannot be reached, or does not speak the protocol.
    #[error("{adapter}: {what}")]
    Unreachable {
        /// The adapter's id.
        adapter: &'static str,
        /// Who was asked, and what came instead.
        what: String,
    },
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

/// Something that announced itself by DNS-SD. A hint only: whoever is on the network can announce anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The type of the service, such as `_wled._tcp`.
    pub service: String,
    /// The name of its instance, without the type.
    pub name: String,
    /// Where it is.
    pub addresses: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Its TXT record.
    pub txt: BTreeMap<String, String>,
}

/// What an adapter gets from the node for one run.
#[derive(Debug)]
pub struct Context {
    /// Where readings go. Bounded: when the node is slow the adapter waits, and goes on taking commands.
    pub readings: mpsc::Sender<Reading>,
    /// What the node asks for. Closed means the same as shutdown.
    pub commands: mpsc::Receiver<Directive>,
    /// What announced itself by one of the services of the descriptor. May close before the others.
    pub hints: mpsc::Receiver<Hint>,
    /// Becomes `true` when the adapter must stop; it then returns within 2 s.
    pub shutdown: watch::Receiver<bool>,
    /// The board that runs it: 16 of `0-9` and `a-f`, the same at each start and different on every board. Part of the ids
    /// of devices that are wired to a board and have no id of their own; nothing else depends on it.
    pub board: String,
}

/// The board of a [`Context::channel`] whose maker named none.
const NO_BOARD: &str = "0000000000000000";

/// The other side of a [`Context`]: what the node, or a test, holds of a run.
#[derive(Debug)]
pub struct Handle {
    /// What the adapter tells.
    pub readings: mpsc::Receiver<Reading>,
    /// What it is asked for.
    pub commands: mpsc::Sender<Directive>,
    /// What announced itself.
    pub hints: mpsc::Sender<Hint>,
    /// Send `true` to stop it.
    pub stop: watch::Sender<bool>,
}

impl Context {
    /// Both sides, with room for so many readings and so many directives. The board is `0000000000000000`: whoever runs an
    /// adapter of [`Scope::Board`] for real sets it.
    #[must_use]
    pub fn channel(readings: usize, directives: usize) -> (Self, Handle) {
        let (reading_sender, readings) = mpsc::channel(readings);
        let (commands, command_receiver) = mpsc::channel(directives);
        let (hints, hint_receiver) = mpsc::channel(64);
        let (stop, shutdown) = watch::channel(false);
        let context = Self {
            readings: reading_sender,
            commands: command_receiver,
            hints: hint_receiver,
            shutdown,
            board: NO_BOARD.to_owned(),
        };
        (context, Handle { readings, commands, hints, stop })
    }
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A device of the home as an adapter that shows the home sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// What it is. The name is what people call it, whatever the hardware says.
    pub device: Description,
    /// The area it is in, for people.
    pub area: Option<String>,
    /// Its state, when it has one and that is known.
    pub state: Option<State>,
    /// What its sensors measured last.
    pub measured: BTreeMap<String, Measurement>,
    /// Whether it answers.
    pub availability: Availability,
}

/// Something that happened, be it to a device or to nobody in particular: every board and every observer hears of it within a moment, and
/// nobody keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What: 1 to 40 of `a-z`, `0-9`, `.`, `_` and `-`, such as `doorbell.front`.
    pub topic: String,
    /// What there is to say about it, at most 1,024 bytes as JSON.
    pub data: serde_json::Value,
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
#[derive(Debug, Clone, PartialEq)]
pub enum Directive {
    /// This node owns the device from now on, or no longer does. An adapter polls and commands only
    /// what is owned. May name a device that is not found yet: it holds from when it is.
    Own {
        /// The device.
        device: DeviceId,
        /// Whether this node owns it.
        owned: bool,
    },
    /// Change a device.
    ///
    /// A newer one for the same device supersedes the one in flight at once; what the newer leaves
    /// open stays as the older asked for it.
    Command {
        /// The device.
        device: DeviceId,
        /// The command; given again while in flight it is ignored.
        command: CommandId,
        /// What to change.
        change: Change,
        /// Who gave it, as the audit trail calls him: `user:ann`, `token:3f2a…`, `automation:dusk`. Names and ids alone, never a
        /// secret; empty where nobody knows.
        by: String,
        /// When it ends as timed out. Must lie after the end of the transition, because only then
        /// can a read-back confirm: give `now + patience + change.transition_ms`.
        deadline: Instant,
    },
    /// Nothing. The node sends it now and then: an adapter that takes no directives hangs.
    Probe,
    /// Until then, ask a bridge that waits for its button to be pressed for a key, and tell it as
    /// [`Reading::Learnt`]. An adapter that needs no pairing ignores it.
    Pair {
        /// When to give up.
        until: Instant,
    },
    /// A device of the home, as it is now; only for an adapter that shows the home. What adapters of its own kind
    /// found is among them.
    Show(Box<Shown>),
    /// A device is in the home no more; only for an adapter that shows the home.
    Hide {
        /// The device.
        device: DeviceId,
    },
    /// Something happened in the home; only for an adapter that shows the home. What it told itself is among it.
    Tell(Event),
    /// Read the device's state now and report it even if it has not changed.
    Refresh {
        /// The device.
        device: DeviceId,
    },
}

impl Directive {
    /// Says in the log that an adapter takes a command in, and who gave it; of anything else nothing.
    pub fn log(&self, adapter: &str) {
        if let Self::Command { device, command, change, by, .. } = self {
            tracing::debug!(adapter, %device, %command, by, ?change, "an adapter takes a command in");
        }
    }
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
        state: State,
        /// The newest command this state is known to follow; never goes back to an older one.
        command: Option<CommandId>,
        /// How the state is known.
        source: Source,
    },
    /// What sensors of an owned device yielded: of one, of some or of all. Sent when something changed, after `Own`, and
    /// for `Refresh`.
    Measured {
        /// The device.
        device: DeviceId,
        /// What each yielded.
        values: BTreeMap<String, Measurement>,
    },
    /// What an owned weather service expects. Sent when it changed and after `Own`.
    Forecast {
        /// The device.
        device: DeviceId,
        /// What it expects.
        forecast: Forecast,
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
    /// Somebody to whom this adapter shows the home wants a device of it changed.
    Wish {
        /// The device.
        device: DeviceId,
        /// What it should be.
        change: Change,
    },
    /// Something happened that the home is to hear of: no state of a device, which is reported.
    Happened(Event),
    /// A setting that the adapter learnt by itself and needs again after a restart and on other boards: the key that a
    /// bridge gave it. The node keeps it with the adapter's settings.
    Learnt {
        /// The key among the settings.
        setting: &'static str,
        /// Its value; never shown.
        value: Secret,
    },
    /// Where pairing stands, for people.
    Pairing {
        /// Whether it is over, well or not.
        is_over: bool,
        /// What is waited for, what was let in, or why nothing was.
        detail: String,
    },
}
