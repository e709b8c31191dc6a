//! What the API asks of the other parts of the node: channels, one handle and one port each.
//! The handle is the API's side; the port belongs to the task that owns the matter.

use mesh_proto::{ObjectId, error::ValueError};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::{auth::Secret, backup::Made, service::ServiceError};

pub mod adapters;
pub mod automations;
mod by;
pub mod events;
pub mod history;
mod invites;
pub mod schedules;

pub use self::by::By;
pub use invites::{Invite, InviteView, InvitesHandle, InvitesRequest};

/// Requests that may wait for an owner.
const QUEUE: usize = 64;
/// Command events that a slow observer may be behind before it is told the latest only.
const LIFE_QUEUE: usize = 256;

/// Why an owner did not do what was asked. No text may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// Nothing of that name.
    #[error("there is no {0}")]
    NotFound(String),
    /// The request breaks a rule.
    #[error("{detail}")]
    Invalid {
        /// Which rule, and by what.
        detail: String,
        /// The way out.
        fix: String,
    },
    /// The node is not in a state for this: an idempotency key used for something else, a household
    /// with data that `--force` would be needed for.
    #[error("{detail}")]
    Conflict {
        /// Which state.
        detail: String,
        /// The way out.
        fix: String,
    },
    /// Another node, or a device, does not answer.
    #[error("{detail}")]
    Unreachable {
        /// Which one, and how long it was tried.
        detail: String,
        /// The way out.
        fix: String,
    },
    /// The disk of this node, or of the other one, cannot be written.
    #[error("{detail}")]
    Storage {
        /// Which one, and why.
        detail: String,
        /// The way out.
        fix: String,
    },
    /// It failed on this node.
    #[error("{detail}")]
    Failed {
        /// What failed.
        detail: String,
        /// The way out.
        fix: String,
    },
    /// Too much waits already.
    #[error("too many requests wait already")]
    Overloaded,
    /// The owner is gone or going.
    #[error("the node is stopping")]
    Stopping,
}

/// Why the event loop did not write what an owner asked of it.
impl From<ServiceError> for PortError {
    fn from(reason: ServiceError) -> Self {
        match reason {
            ServiceError::Overloaded => Self::Overloaded,
            ServiceError::Stopping => Self::Stopping,
            ServiceError::Outside(outside) => Self::Conflict { detail: outside.detail, fix: outside.fix },
            ServiceError::Value { field, reason } => {
                let fix = match reason {
                    ValueError::TooLarge { .. } => "make it shorter: a value has 3,900 bytes",
                    ValueError::TooDeep => "nest it less: lists and maps stand in one another 8 deep",
                    _ => "write what JSON can say",
                };
                Self::Invalid { detail: format!("`{field}`: {reason}"), fix: fix.to_owned() }
            }
            other => Self::Failed {
                detail: other.to_string(),
                fix: "`hearth doctor` shows what is wrong with the store".to_owned(),
            },
        }
    }
}

async fn ask<R, T>(
    to: &mpsc::Sender<R>,
    make: impl FnOnce(oneshot::Sender<Result<T, PortError>>) -> R,
) -> Result<T, PortError> {
    let (reply, answer) = oneshot::channel();
    to.try_send(make(reply)).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => PortError::Overloaded,
        mpsc::error::TrySendError::Closed(_) => PortError::Stopping,
    })?;
    answer.await.map_err(|_| PortError::Stopping)?
}

/// Where the answer to a request goes.
pub type Reply<T> = oneshot::Sender<Result<T, PortError>>;

/// What to do about a light's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// On.
    On,
    /// Off.
    Off,
    /// The other of the two; the devices module resolves it before it sends anything.
    Toggle,
}

/// The colour to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// White of a temperature in kelvin.
    Temperature(u16),
    /// CIE 1931 chromaticity, each coordinate scaled so that 65 535 is 1.0.
    Xy(u16, u16),
}

/// A run of neighbouring zones that show the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone {
    /// How many zones it is long.
    pub count: u16,
    /// Their colour.
    pub color: Color,
    /// Their brightness, 0 to 65 535.
    pub brightness: u16,
}

/// A change of a device; what is `None` stays as it is. A press stands alone; else at least one of the others but
/// the transition is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// A button is pressed.
    pub press: bool,
    /// Power.
    pub on: Option<Power>,
    /// Brightness, 0 to 65 535.
    pub brightness: Option<u16>,
    /// Colour.
    pub color: Option<Color>,
    /// The effect to run, by a name that the light knows; `none` ends the one that runs.
    pub effect: Option<String>,
    /// The palette for its effects.
    pub palette: Option<String>,
    /// What zones show from the first one on, instead of one colour and brightness for all.
    pub zones: Option<Vec<Zone>>,
    /// How long it takes to get there, in milliseconds, at most [`MAX_TRANSITION_MS`].
    pub transition_ms: u32,
}

/// Longest transition, in milliseconds: one hour.
pub const MAX_TRANSITION_MS: u32 = 3_600_000;

/// A command as a client gives it, checked against what the device says it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRequest {
    /// The device's object, which existed a moment ago.
    pub device: ObjectId,
    /// What to change.
    pub change: Change,
    /// The client's idempotency key, 1 to 128 bytes: the same key with the same request gets the
    /// same command; with another request [`PortError::Conflict`].
    pub key: Option<String>,
    /// How long it may take, in milliseconds.
    pub deadline_ms: u32,
    /// Who gives it.
    pub by: By,
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// Taken by this household.
    Accepted,
    /// On its way to the device.
    Sent,
    /// The device has it.
    Acknowledged,
    /// Final: read back as asked for.
    Confirmed,
    /// Final: the device took it, and nothing can be read back from it.
    Assumed,
    /// Final: the deadline passed first.
    TimedOut,
    /// Final: a newer command took over.
    Superseded,
    /// Final: it cannot be carried out.
    Failed,
}

impl CommandState {
    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        self >= Self::Confirmed
    }
}

/// A command as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// The device's object.
    pub device: ObjectId,
    /// Who gave it; none where a node of an older version took it.
    pub by: Option<String>,
    /// Where it stands.
    pub state: CommandState,
    /// Since when, in milliseconds since 1970.
    pub at_ms: u64,
    /// When it times out, in milliseconds since 1970.
    pub deadline_ms: u64,
    /// Why it ended, unless it was confirmed.
    pub reason: Option<String>,
    /// Every state it went through with its time, oldest first; the last is `state`.
    pub life: Vec<(CommandState, u64)>,
}

/// A request to the owner of commands.
#[derive(Debug)]
pub enum CommandsRequest {
    /// Takes a command in; answered once it is accepted, before it is carried out.
    Submit(CommandRequest, Reply<Command>),
    /// Reads a command by its id; `None` when unknown or forgotten.
    Get(String, Reply<Option<Command>>),
}

/// The API's side of the commands.
#[derive(Debug, Clone)]
pub struct CommandsHandle {
    requests: mpsc::Sender<CommandsRequest>,
    life: broadcast::Sender<Command>,
}

/// The owner's side of the commands.
#[derive(Debug)]
pub struct CommandsPort {
    /// What is asked; answer every request, or drop its reply when stopping.
    pub requests: mpsc::Receiver<CommandsRequest>,
    /// Send the whole command here on every change of its state; an error means nobody listens.
    pub life: broadcast::Sender<Command>,
}

impl CommandsHandle {
    /// Both sides.
    pub fn channel() -> (Self, CommandsPort) {
        let ((requests, receiver), (life, _)) = (mpsc::channel(QUEUE), broadcast::channel(LIFE_QUEUE));
        (Self { requests, life: life.clone() }, CommandsPort { requests: receiver, life })
    }

    /// Hands a command in.
    ///
    /// # Errors
    /// What the owner says; [`PortError::Overloaded`], [`PortError::Stopping`].
    pub async fn submit(&self, request: CommandRequest) -> Result<Command, PortError> {
        ask(&self.requests, |reply| CommandsRequest::Submit(request, reply)).await
    }

    /// Reads a command.
    ///
    /// # Errors
    /// [`PortError::Overloaded`], [`PortError::Stopping`].
    pub async fn get(&self, id: String) -> Result<Option<Command>, PortError> {
        ask(&self.requests, |reply| CommandsRequest::Get(id, reply)).await
    }

    /// Another handle, whose requests come out here to be looked at and forwarded.
    pub(crate) fn fork(&self) -> (Self, mpsc::Receiver<CommandsRequest>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self { requests, life: self.life.clone() }, receiver)
    }

    /// Passes on what came out of a fork; where there is no room whoever asked is told.
    pub(crate) fn forward(&self, request: CommandsRequest) {
        let (request, refusal) = match self.requests.try_send(request) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(request)) => (request, PortError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(request)) => (request, PortError::Stopping),
        };
        match request {
            CommandsRequest::Submit(_, reply) => drop(reply.send(Err(refusal))),
            CommandsRequest::Get(_, reply) => drop(reply.send(Err(refusal))),
        }
    }

    /// Every change of every command from now on.
    pub fn life(&self) -> broadcast::Receiver<Command> {
        self.life.subscribe()
    }
}

/// Where a node has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Joined {
    /// The household's key in hexadecimal.
    pub household: String,
    /// This node's key in hexadecimal.
    pub node: String,
}

/// How a check of `hearth doctor` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Works, but somebody should look.
    Warn,
    /// Does not work.
    Fail,
}

/// One check of `hearth doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it ended.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// The way out, where one is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// A request to the composition root.
#[derive(Debug)]
pub enum ControlRequest {
    /// Joins another household; answered when it has admitted this node, before the restart.
    Join {
        /// The invite's token.
        token: Secret,
        /// Whether what this node holds may be lost.
        force: bool,
        /// The answer.
        reply: Reply<Joined>,
    },
    /// Leaves the household for good; answered before the restart.
    Leave {
        /// Whether the others may be left without anybody who can invite.
        force: bool,
        /// The answer.
        reply: Reply<()>,
    },
    /// Runs the checks.
    Doctor(Reply<Vec<Check>>),
    /// Makes a backup, with the node's key or without.
    Backup {
        /// Whether it holds the key.
        with_key: bool,
        /// The answer.
        reply: Reply<Made>,
    },
}

/// The API's side of the composition root.
#[derive(Debug, Clone)]
pub struct ControlHandle(mpsc::Sender<ControlRequest>);

impl ControlHandle {
    /// Both sides.
    pub fn channel() -> (Self, mpsc::Receiver<ControlRequest>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self(requests), receiver)
    }

    /// Joins.
    ///
    /// # Errors
    /// What the owner says.
    pub async fn join(&self, token: Secret, force: bool) -> Result<Joined, PortError> {
        ask(&self.0, |reply| ControlRequest::Join { token, force, reply }).await
    }

    /// Leaves.
    ///
    /// # Errors
    /// What the owner says.
    pub async fn leave(&self, force: bool) -> Result<(), PortError> {
        ask(&self.0, |reply| ControlRequest::Leave { force, reply }).await
    }

    /// Makes a backup.
    ///
    /// # Errors
    /// What the owner says.
    pub async fn backup(&self, with_key: bool) -> Result<Made, PortError> {
        ask(&self.0, |reply| ControlRequest::Backup { with_key, reply }).await
    }

    /// Runs the checks.
    ///
    /// # Errors
    /// What the owner says.
    pub async fn doctor(&self) -> Result<Vec<Check>, PortError> {
        ask(&self.0, ControlRequest::Doctor).await
    }
}
