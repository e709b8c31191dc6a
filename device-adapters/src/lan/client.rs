//! HTTP and JSON with one board: one request at a time, and no faster than it bears.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use crate::http::{Client, HttpError, Origin, Request, Response};
use crate::net::Route;

use super::{Fault, readable};

/// How long a board on the LAN may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A client of one board.
pub(crate) struct Caller {
    client: Client,
    route: Route,
    gap: Duration,
    ready: Instant,
    /// The MAC address of the board, once it said it.
    peer: Option<String>,
}

impl Caller {
    /// Nothing is connected yet; `gap` is the least time between two requests.
    pub(crate) fn new(route: &Route, to: &Origin, gap: Duration) -> Self {
        let client = Client::new(to.clone(), route.clone(), None);
        Self { client, route: route.clone(), gap, ready: Instant::now(), peer: None }
    }

    /// Asks there from now on.
    pub(crate) fn move_to(&mut self, to: Origin) {
        self.client = Client::new(to, self.route.clone(), None);
    }

    /// A board said who it is. The first to do so is the one that is spoken to.
    pub(crate) fn meets(&mut self, hardware: &str) -> Result<(), Fault> {
        match &self.peer {
            Some(peer) if peer != hardware => Err(Fault::Other(hardware.to_owned())),
            Some(_) => Ok(()),
            None => {
                self.peer = Some(hardware.to_owned());
                Ok(())
            }
        }
    }

    /// When the next request may be sent.
    pub(crate) fn ready(&self) -> Instant {
        self.ready
    }

    /// Where it asks.
    pub(crate) fn origin(&self) -> &Origin {
        self.client.origin()
    }

    /// How it connects.
    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    /// Sends a request when the board bears it.
    pub(crate) async fn send(&mut self, request: Request) -> Result<Response, Fault> {
        sleep_until(self.ready).await;
        self.ready = Instant::now() + self.gap;
        let answer = self.client.send(&request.within(ANSWER_WITHIN)).await;
        answer.map_err(|error| Fault::Failed(told(&error)))
    }

    /// The value that a successful answer holds.
    pub(crate) fn read<T: DeserializeOwned>(&self, path: &str, answer: &Response) -> Result<T, Fault> {
        if !answer.status.is_success() {
            return Err(Fault::Failed(format!("{} answers {path} with {}", self.origin(), answer.status)));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            let found = readable(&String::from_utf8_lossy(answer.body.get(..40).unwrap_or(&answer.body)), 40);
            let why = readable(&error.to_string(), 120);
            Fault::Failed(format!(
                "{} answers {path} with {found:?}, which is not the protocol: {why}",
                self.origin()
            ))
        })
    }
}

/// An error with what caused it.
fn told(error: &HttpError) -> String {
    use std::error::Error as _;
    match error.source().and_then(std::error::Error::source) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
