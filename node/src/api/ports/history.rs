//! What the API asks of the history.

use std::{collections::BTreeMap, time::Duration};

use mesh_proto::ObjectId;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{PortError, QUEUE, Reply, ask};

/// A moment, as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// In seconds since 1970.
    At(u64),
    /// So long ago.
    Ago(Duration),
}

/// What is asked of the history of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Its object.
    pub device: ObjectId,
    /// The beginning of the time that is asked for.
    pub since: Moment,
    /// Its end; one that is yet to come is now.
    pub until: Moment,
    /// The only series that is wanted.
    pub key: Option<String>,
    /// The most points of a series, 1 to 2000.
    pub points: usize,
}

/// The history of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryView {
    /// The beginning of the time, in seconds since 1970.
    pub since: u64,
    /// Its end.
    pub until: u64,
    /// The length of the stretch that a point of a number stands for, in seconds.
    pub step_s: u64,
    /// By the sensor's key, or `on`, `brightness`, `availability`.
    pub series: BTreeMap<String, SeriesView>,
}

/// A series. Times are milliseconds since 1970, as in the readings of a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SeriesView {
    /// Numbers: the beginning of a stretch, the least, the mean by time, the greatest.
    Numeric {
        /// Those stretches in which something was known.
        points: Vec<(u64, f64, f64, f64)>,
        /// At the end of the last of these.
        last: Option<f64>,
    },
    /// States.
    State {
        /// Since when it was what: true, false or a word; null when nobody knew.
        points: Vec<(u64, Value)>,
        /// Whether there were more changes than points were asked for: then each stretch shows its last.
        thinned: bool,
    },
}

/// A request to the owner of the history.
#[derive(Debug)]
pub enum HistoryRequest {
    /// The history of a device.
    Read(HistoryQuery, Reply<HistoryView>),
}

/// The API's side of the history.
#[derive(Debug, Clone)]
pub struct HistoryHandle(mpsc::Sender<HistoryRequest>);

impl HistoryHandle {
    /// Both sides.
    pub fn channel() -> (Self, mpsc::Receiver<HistoryRequest>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self(requests), receiver)
    }

    /// Reads the history of a device.
    ///
    /// # Errors
    /// [`PortError::Conflict`] when this node keeps none, [`PortError::Storage`] when it cannot be read,
    /// [`PortError::Overloaded`], [`PortError::Stopping`].
    pub async fn read(&self, query: HistoryQuery) -> Result<HistoryView, PortError> {
        ask(&self.0, |reply| HistoryRequest::Read(query, reply)).await
    }
}
