//! What the API asks of the automations.

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{PortError, QUEUE, Reply, ask};
use crate::{auth::Secret, automation::Rehearsal};

/// An automation as readers see it.
#[derive(Debug, Clone, Serialize)]
pub struct AutomationView {
    /// Its name.
    pub name: String,
    /// Its program, as it is written.
    pub program: Value,
    /// Whether it is on.
    pub enabled: bool,
    /// `waiting`, `running`, `held`, `invalid`, `tripped` or `off`.
    pub state: &'static str,
    /// Why, where it does not wait or run.
    pub reason: Option<String>,
    /// Whether it has a path that can be called.
    pub webhook: bool,
    /// Its runs, the latest first.
    pub runs: Vec<RunView>,
    /// The node that starts it.
    pub by: Option<String>,
}

/// A run as readers see it. Times are RFC 3339.
#[derive(Debug, Clone, Serialize)]
pub struct RunView {
    /// What started it.
    pub why: String,
    /// Who did, where somebody started it by hand, as the audit trail calls him.
    pub by: Option<String>,
    /// When that was.
    pub at: String,
    /// `running`, `queued`, `done`, `stopped`, `failed` or `refused`.
    pub state: String,
    /// Why it ended so.
    pub end: String,
    /// When it ended.
    pub ended: Option<String>,
    /// The node that is at it, or was.
    pub node: String,
    /// What it did, oldest first.
    pub trace: Vec<LineView>,
    /// Lines left out of the middle of the trace.
    pub left_out: u32,
}

/// A line of a trace.
#[derive(Debug, Clone, Serialize)]
pub struct LineView {
    /// When.
    pub at: String,
    /// The step's place in the program, such as `2.0.1`.
    pub step: String,
    /// What was done.
    pub what: String,
    /// How it went: `ok`, what failed, or nothing while it is under way.
    pub outcome: String,
    /// How long it took, in milliseconds.
    pub took_ms: u32,
}

/// A device that the automations of this node leave alone for a while, because it keeps failing.
#[derive(Debug, Clone, Serialize)]
pub struct CircuitView {
    /// Its object.
    pub device: String,
    /// `open`, or `half_open` when the next command may try it.
    pub state: &'static str,
    /// Commands that failed one after another.
    pub failed: u32,
    /// Why the last one did.
    pub reason: String,
    /// In how many seconds it is tried again.
    pub again_in_s: u64,
}

/// A request to the owner of the automations.
#[derive(Debug)]
pub enum AutomationsRequest {
    /// All of them.
    List(Reply<Vec<AutomationView>>),
    /// One of them; none where there is none of that name.
    Get(String, Reply<Option<AutomationView>>),
    /// The devices that are left alone.
    Circuits(Reply<Vec<CircuitView>>),
    /// Makes one, or replaces it; one that is not understood is stored, is off by that, and says why.
    Put(String, Map<String, Value>, Reply<()>),
    /// Switches one on or off; on, it is no longer tripped.
    Enable(String, bool, Reply<()>),
    /// Deletes one.
    Remove(String, Reply<()>),
    /// Says what one would do now.
    Rehearse(String, Reply<Rehearsal>),
    /// Starts one now, whatever its triggers say; its conditions hold or not as ever. With who does. Answered when every node was
    /// told.
    Start(String, String, Reply<()>),
    /// Makes a fresh path for one; the one before is void. The answer is what is secret of it, and shown this once.
    Webhook(String, Reply<Secret>),
    /// Takes its path away.
    RevokeWebhook(String, Reply<()>),
}

/// The API's side of the automations.
#[derive(Debug, Clone)]
pub struct AutomationsHandle(mpsc::Sender<AutomationsRequest>);

impl AutomationsHandle {
    /// Both sides.
    pub fn channel() -> (Self, mpsc::Receiver<AutomationsRequest>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self(requests), receiver)
    }

    /// Lists automations.
    ///
    /// # Errors
    /// [`PortError::Overloaded`], [`PortError::Stopping`].
    pub async fn list(&self) -> Result<Vec<AutomationView>, PortError> {
        ask(&self.0, AutomationsRequest::List).await
    }

    /// Shows one.
    ///
    /// # Errors
    /// [`PortError::Overloaded`], [`PortError::Stopping`].
    pub async fn get(&self, name: String) -> Result<Option<AutomationView>, PortError> {
        ask(&self.0, |reply| AutomationsRequest::Get(name, reply)).await
    }

    /// Lists the devices that are left alone.
    ///
    /// # Errors
    /// [`PortError::Overloaded`], [`PortError::Stopping`].
    pub async fn circuits(&self) -> Result<Vec<CircuitView>, PortError> {
        ask(&self.0, AutomationsRequest::Circuits).await
    }

    /// Makes or replaces one.
    ///
    /// # Errors
    /// [`PortError::Invalid`] for a name or a size; what else the owner says.
    pub async fn put(&self, name: String, program: Map<String, Value>) -> Result<(), PortError> {
        ask(&self.0, |reply| AutomationsRequest::Put(name, program, reply)).await
    }

    /// Switches one on or off.
    ///
    /// # Errors
    /// [`PortError::NotFound`] and what else the owner says.
    pub async fn enable(&self, name: String, enabled: bool) -> Result<(), PortError> {
        ask(&self.0, |reply| AutomationsRequest::Enable(name, enabled, reply)).await
    }

    /// Deletes one.
    ///
    /// # Errors
    /// [`PortError::NotFound`] and what else the owner says.
    pub async fn remove(&self, name: String) -> Result<(), PortError> {
        ask(&self.0, |reply| AutomationsRequest::Remove(name, reply)).await
    }

    /// Says what one would do now.
    ///
    /// # Errors
    /// [`PortError::NotFound`], [`PortError::Invalid`] for one that is not understood.
    pub async fn rehearse(&self, name: String) -> Result<Rehearsal, PortError> {
        ask(&self.0, |reply| AutomationsRequest::Rehearse(name, reply)).await
    }

    /// Starts one now, as `who` asks.
    ///
    /// # Errors
    /// [`PortError::NotFound`] and what else the owner says.
    pub async fn start(&self, name: String, who: String) -> Result<(), PortError> {
        ask(&self.0, |reply| AutomationsRequest::Start(name, who, reply)).await
    }

    /// Makes a fresh path for one; the one before is void.
    ///
    /// # Errors
    /// [`PortError::NotFound`], [`PortError::Invalid`] for one that no webhook starts; what else the owner says.
    pub async fn make_webhook(&self, name: String) -> Result<Secret, PortError> {
        ask(&self.0, |reply| AutomationsRequest::Webhook(name, reply)).await
    }

    /// Takes its path away.
    ///
    /// # Errors
    /// [`PortError::NotFound`] and what else the owner says.
    pub async fn revoke_webhook(&self, name: String) -> Result<(), PortError> {
        ask(&self.0, |reply| AutomationsRequest::RevokeWebhook(name, reply)).await
    }
}
