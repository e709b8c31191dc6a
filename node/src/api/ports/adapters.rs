//! What the API asks of the adapters.

use mesh_proto::ShortId;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{PortError, QUEUE, Reply, ask};
use crate::devices::AdapterState;

/// An adapter as readers see it. Secrets are named and never shown.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterView {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Who runs it: `household` (every node looks for devices), `single` (one node at a time) or `board`.
    pub scope: &'static str,
    /// Whether the household wants it.
    pub enabled: bool,
    /// Names or ids of the nodes that may run it; empty for all.
    pub nodes: Vec<String>,
    /// What the household has set.
    pub settings: Map<String, Value>,
    /// What the configuration file of the node that was asked sets; it goes before, on that node alone.
    pub local: Map<String, Value>,
    /// The secrets that are set.
    pub secrets: Vec<String>,
    /// The JSON schema of the settings.
    pub schema: Value,
    /// How pairing goes, if somebody wanted that.
    pub pairing: Option<String>,
    /// Where it stands on each node that lives.
    pub on: Vec<AdapterOnNode>,
}

/// Where an adapter stands on a node.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterOnNode {
    /// The node's short id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: AdapterState,
    /// Why.
    pub reason: Option<String>,
    /// How often it was started again.
    pub restarts: u32,
}

/// A change of an adapter; what is left out stays as it is.
#[derive(Clone, Default)]
pub struct AdapterChange {
    /// Whether the household wants it.
    pub enabled: Option<bool>,
    /// The nodes that may run it; an empty list for all.
    pub nodes: Option<Vec<ShortId>>,
    /// Settings by key; null takes one out. May hold secrets.
    pub settings: Map<String, Value>,
    /// Start it anew wherever it runs: it looks for devices again.
    pub restart: bool,
}

impl std::fmt::Debug for AdapterChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.settings.keys().collect();
        f.debug_struct("AdapterChange")
            .field("enabled", &self.enabled)
            .field("settings", &keys)
            .finish_non_exhaustive()
    }
}

/// A request to the owner of the adapters.
#[derive(Debug)]
pub enum AdaptersRequest {
    /// All of them.
    List(Reply<Vec<AdapterView>>),
    /// Changes one; answered when that is durable.
    Change(String, AdapterChange, Reply<()>),
    /// Lets a bridge in whose button is pressed within so many seconds.
    Pair(String, u32, Reply<()>),
    /// Deletes its settings and devices, and switches it off.
    Forget(String, Reply<()>),
}

/// The API's side of the adapters.
#[derive(Debug, Clone)]
pub struct AdaptersHandle(mpsc::Sender<AdaptersRequest>);

impl AdaptersHandle {
    /// Both sides.
    pub fn channel() -> (Self, mpsc::Receiver<AdaptersRequest>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self(requests), receiver)
    }

    /// Lists adapters.
    ///
    /// # Errors
    /// [`PortError::Overloaded`], [`PortError::Stopping`].
    pub async fn list(&self) -> Result<Vec<AdapterView>, PortError> {
        ask(&self.0, AdaptersRequest::List).await
    }

    /// Changes one.
    ///
    /// # Errors
    /// [`PortError::NotFound`], [`PortError::Invalid`] and what else the owner says.
    pub async fn change(&self, id: String, change: AdapterChange) -> Result<(), PortError> {
        ask(&self.0, |reply| AdaptersRequest::Change(id, change, reply)).await
    }

    /// Pairs.
    ///
    /// # Errors
    /// [`PortError::NotFound`], [`PortError::Invalid`] and what else the owner says.
    pub async fn pair(&self, id: String, seconds: u32) -> Result<(), PortError> {
        ask(&self.0, |reply| AdaptersRequest::Pair(id, seconds, reply)).await
    }

    /// Forgets one with its devices.
    ///
    /// # Errors
    /// [`PortError::NotFound`] and what else the owner says.
    pub async fn forget(&self, id: String) -> Result<(), PortError> {
        ask(&self.0, |reply| AdaptersRequest::Forget(id, reply)).await
    }
}
