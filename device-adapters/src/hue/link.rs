//! The connections to one bridge. This is the network; [`super::driver`] decides.

use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::sync::mpsc;

use crate::adapter::Secret;
use crate::http::{Client, HttpError, Origin, Request};
use crate::net::Route;

use super::driver::{Answer, Ask};
use super::keys::{BridgeId, Pin};
use super::places::{Known, Probe};
use super::sse::Parser;
use super::tls::{RefusedCertificate, Verifier};
use super::wire::{self, Event, MOST_BODY, Paired};

/// How long a bridge may take to answer, and to tell all that it has.
const WITHIN: Duration = Duration::from_millis(2_500);
const ALL_WITHIN: Duration = Duration::from_secs(8);
/// The header that carries the application key.
const KEY_HEADER: &str = "hue-application-key";

/// Why a bridge did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It shows another public key than it should.
    OtherKey(String),
    /// It answered with that status, and no more.
    Status(u16),
    /// Anything else.
    Broken(String),
}

impl Failure {
    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::OtherKey(why) | Self::Broken(why) => why.clone(),
            Self::Status(status) => format!("it answered with HTTP status {status}"),
        }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        if let HttpError::Tls { source, .. } = &error
            && let Some(refused) = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
            && let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = refused
            && let Some(refused) = other.0.downcast_ref::<RefusedCertificate>()
        {
            return match refused {
                RefusedCertificate::OtherKey { .. } => Self::OtherKey(refused.to_string()),
                other => Self::Broken(format!("{error}: {other}")),
            };
        }
        Self::Broken(error.to_string())
    }
}

/// How a bridge is reached.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    origin: Origin,
    route: Route,
    verifier: Arc<Verifier>,
    tls: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl Link {
    /// To a bridge with that id and key, as far as they are known.
    pub(crate) fn new(
        origin: Origin,
        route: Route,
        expected: Option<BridgeId>,
        pin: Option<Pin>,
    ) -> Result<Self, Failure> {
        let verifier = Verifier::new(expected, pin);
        let tls = verifier.tls().map_err(Failure::Broken)?;
        Ok(Self { origin, route, verifier, tls, server_name: expected.and_then(name_of) })
    }

    /// Where the bridge is.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// A client that keeps one connection.
    pub(crate) fn client(&self) -> Client {
        let client = Client::new(self.origin.clone(), self.route.clone(), Some(self.tls.clone()));
        match &self.server_name {
            Some(name) => client.with_server_name(name.clone()),
            None => client,
        }
    }
}

fn name_of(id: BridgeId) -> Option<ServerName<'static>> {
    ServerName::try_from(id.to_string()).ok()
}

/// Asks who is there.
pub(crate) async fn probe(probe: Probe, route: Route) -> Result<Known, Failure> {
    let mut link = Link::new(probe.origin.clone(), route, None, None)?;
    // What was announced may be wrong, and then does not stand in the way: it is a name to ask for, no more.
    link.server_name = probe.expected.and_then(name_of);
    let answer = link.client().send(&Request::get("/api/0/config").within(WITHIN)).await?;
    if answer.status != StatusCode::OK {
        return Err(Failure::Status(answer.status.as_u16()));
    }
    let public = wire::public(&answer.body).map_err(|error| Failure::Broken(error.to_string()))?;
    let identity = link.verifier.seen().filter(|identity| identity.id == public.id);
    let identity = identity.ok_or_else(|| {
        Failure::Broken(format!("it calls itself {}, which its certificate does not say", public.id))
    })?;
    let name = if public.name.is_empty() { public.model } else { public.name };
    Ok(Known { id: identity.id, pin: identity.pin, name, origin: probe.origin })
}

/// Asks for an application key.
pub(crate) async fn pair(known: Known, route: Route, name: String) -> Result<Paired, Failure> {
    let link = Link::new(known.origin, route, Some(known.id), Some(known.pin))?;
    // The second key of the answer is for the streaming of colours, which is not used.
    let body = json!({ "devicetype": format!("hearth#{name}"), "generateclientkey": true });
    let answer = link.client().send(&Request::json(Method::POST, "/api", &body).within(WITHIN)).await?;
    if answer.status != StatusCode::OK {
        return Err(Failure::Status(answer.status.as_u16()));
    }
    wire::paired(&answer.body).map_err(|error| Failure::Broken(error.to_string()))
}

/// Asks what the driver wants to know.
pub(crate) async fn ask(client: &mut Client, key: &Secret, ask: &Ask) -> Result<Answer, Failure> {
    let base = "/clip/v2/resource";
    let request = match ask {
        Ask::All => Request { most: MOST_BODY, ..Request::get(base).within(ALL_WITHIN) },
        Ask::Alive => Request::get(format!("{base}/bridge")).within(WITHIN),
        Ask::Light { path } => Request::get(format!("{base}/{path}")).within(WITHIN),
        Ask::Put { path, body, .. } => {
            Request::json(Method::PUT, format!("{base}/{path}"), body).within(WITHIN)
        }
    };
    let answer = client.send(&request.header(KEY_HEADER, key.0.clone())).await?;
    let retry_after = answer.header("retry-after").and_then(|text| text.trim().parse().ok());
    Ok(Answer { status: answer.status.as_u16(), retry_after, body: answer.body })
}

/// What the stream of events says.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It is open.
    Opened,
    /// This happened.
    Events(Vec<Event>),
    /// It ended, or could not be opened.
    Ended(Failure),
}

/// Listens to the stream of events until it ends or nobody wants to know.
pub(crate) async fn listen(
    link: Link,
    key: Secret,
    bridge: BridgeId,
    number: u64,
    heard: mpsc::Sender<(BridgeId, u64, Heard)>,
) {
    let failure = events(&link, key, |what| {
        let heard = heard.clone();
        async move { heard.send((bridge, number, what)).await.is_ok() }
    })
    .await;
    let _ = heard.send((bridge, number, Heard::Ended(failure))).await; // nobody may want to know any more
}

async fn events<F: Future<Output = bool>>(link: &Link, key: Secret, tell: impl Fn(Heard) -> F) -> Failure {
    let broken = |what: &str| Failure::Broken(format!("the stream of events {what}"));
    let request = Request::get("/eventstream/clip/v2").within(WITHIN);
    let request = request.header("accept", "text/event-stream").header(KEY_HEADER, key.0);
    let mut stream = match link.client().stream(&request).await {
        Ok(stream) => stream,
        Err(error) => return error.into(),
    };
    if stream.status != StatusCode::OK {
        return Failure::Status(stream.status.as_u16());
    }
    if !tell(Heard::Opened).await {
        return broken("is not wanted any more");
    }
    let mut parser = Parser::default();
    while let Some(bytes) = stream.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return error.into(),
        };
        let messages = match parser.take(&bytes) {
            Ok(messages) => messages,
            Err(error) => return broken(&error.to_string()),
        };
        for message in messages {
            let events = match wire::events(&message) {
                Ok(events) => events,
                Err(error) => return broken(&error.to_string()),
            };
            if !tell(Heard::Events(events)).await {
                return broken("is not wanted any more");
            }
        }
    }
    broken("was closed by the bridge")
}
