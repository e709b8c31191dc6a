//! What the API asks of what the home does by itself.

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{PortError, QUEUE, Reply, ask};
use crate::automation::{HomeText, ScheduleText};

/// A schedule as readers see it. Times are RFC 3339.
#[derive(Debug, Clone, Serialize)]
pub struct ScheduleView {
    /// Its name.
    pub name: String,
    /// When.
    pub when: String,
    /// Only on these dates; empty for all.
    pub only: String,
    /// Not on these.
    pub except: String,
    /// What becomes of what was missed.
    pub missed: String,
    /// Its commands.
    #[serde(rename = "do")]
    pub commands: Vec<Value>,
    /// Whether it is on.
    pub enabled: bool,
    /// `waiting`, `running`, `held`, `invalid`, `over` or `off`.
    pub state: &'static str,
    /// Why, where it does not wait or run.
    pub reason: Option<String>,
    /// The next occurrences.
    pub next: Vec<NextView>,
    /// What whoever made it should know, though it is followed.
    pub note: Option<String>,
    /// What the nodes recorded of the latest one: more than one record where two carried it out.
    pub last: Vec<LastView>,
    /// The node that is to carry the next one out.
    pub by: Option<String>,
}

/// An occurrence to come.
#[derive(Debug, Clone, Serialize)]
pub struct NextView {
    /// The moment.
    pub at: String,
    /// The same by the clock of the home, with its offset.
    pub local: String,
    /// Why then.
    pub why: String,
}

/// What a node recorded of an occurrence.
#[derive(Debug, Clone, Serialize)]
pub struct LastView {
    /// Which.
    pub at: String,
    /// The same by the clock of the home, with its offset.
    pub local: String,
    /// The name of the node.
    pub node: String,
    /// `started`, `done`, `failed` or `passed_over`.
    pub state: &'static str,
    /// When it began.
    pub began: String,
    /// When its last command had ended.
    pub ended: Option<String>,
    /// Occurrences before it that came while nobody could carry them out.
    pub passed_over: u32,
    /// Occurrences before it that came while the one before them was under way.
    pub under_way: u32,
    /// Whether a node had begun before that died: some commands may have come twice.
    pub again: bool,
    /// What failed.
    pub failed: Vec<String>,
}

/// The home, as readers see it.
#[derive(Debug, Clone, Serialize)]
pub struct HomeView {
    /// Its time zone.
    pub zone: Option<String>,
    /// Degrees north.
    pub latitude: Option<f64>,
    /// Degrees east.
    pub longitude: Option<f64>,
    /// The hosts that automations may call over HTTP.
    pub allowed_http: Vec<String>,
}

/// A change of the home; what is left out stays as it is.
#[derive(Debug, Clone, Default)]
pub struct HomeChange {
    /// Its time zone.
    pub zone: Option<String>,
    /// Degrees north and east.
    pub place: Option<(f64, f64)>,
    /// Hosts that automations may call from now on, `HOST` or `HOST:PORT`.
    pub allow_http: Vec<String>,
    /// Hosts that they may not call any more.
    pub deny_http: Vec<String>,
}

impl HomeChange {
    /// The home with another zone or place.
    pub fn apply(&self, home: &HomeText) -> HomeText {
        let zone = self.zone.as_ref().unwrap_or(&home.zone).clone();
        HomeText { zone, place: self.place.or(home.place), ..home.clone() }
    }
}

/// A request to the owner of the schedules.
#[derive(Debug)]
pub enum SchedulesRequest {
    /// All of them.
    List(Reply<Vec<ScheduleView>>),
    /// One, if there is one of that name.
    Get(String, Reply<Option<ScheduleView>>),
    /// Makes one, or replaces it; answered when that is durable.
    Put(String, ScheduleText, Reply<()>),
    /// Switches one on or off.
    Enable(String, bool, Reply<()>),
    /// Deletes one.
    Remove(String, Reply<()>),
    /// The home.
    Home(Reply<HomeView>),
    /// Changes the home.
    SetHome(HomeChange, Reply<()>),
}

/// The API's side of the schedules.
#[derive(Debug, Clone)]
pub struct SchedulesHandle(mpsc::Sender<SchedulesRequest>);

impl SchedulesHandle {
    /// Both sides.
    pub fn channel() -> (Self, mpsc::Receiver<SchedulesRequest>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self(requests), receiver)
    }

    /// Lists schedules.
    ///
    /// # Errors
    /// [`PortError::Overloaded`], [`PortError::Stopping`].
    pub async fn list(&self) -> Result<Vec<ScheduleView>, PortError> {
        ask(&self.0, SchedulesRequest::List).await
    }

    /// One, if there is one of that name.
    ///
    /// # Errors
    /// [`PortError::Overloaded`], [`PortError::Stopping`].
    pub async fn get(&self, name: String) -> Result<Option<ScheduleView>, PortError> {
        ask(&self.0, |reply| SchedulesRequest::Get(name, reply)).await
    }

    /// Makes or replaces one.
    ///
    /// # Errors
    /// [`PortError::Invalid`] and what else the owner says.
    pub async fn put(&self, name: String, text: ScheduleText) -> Result<(), PortError> {
        ask(&self.0, |reply| SchedulesRequest::Put(name, text, reply)).await
    }

    /// Switches one on or off.
    ///
    /// # Errors
    /// [`PortError::NotFound`] and what else the owner says.
    pub async fn enable(&self, name: String, enabled: bool) -> Result<(), PortError> {
        ask(&self.0, |reply| SchedulesRequest::Enable(name, enabled, reply)).await
    }

    /// Deletes one.
    ///
    /// # Errors
    /// [`PortError::NotFound`] and what else the owner says.
    pub async fn remove(&self, name: String) -> Result<(), PortError> {
        ask(&self.0, |reply| SchedulesRequest::Remove(name, reply)).await
    }

    /// The home.
    ///
    /// # Errors
    /// [`PortError::Overloaded`], [`PortError::Stopping`].
    pub async fn home(&self) -> Result<HomeView, PortError> {
        ask(&self.0, SchedulesRequest::Home).await
    }

    /// Changes the home.
    ///
    /// # Errors
    /// [`PortError::Invalid`] and what else the owner says.
    pub async fn set_home(&self, change: HomeChange) -> Result<(), PortError> {
        ask(&self.0, |reply| SchedulesRequest::SetHome(change, reply)).await
    }
}
