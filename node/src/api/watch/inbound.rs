//! What an observer says.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::{StreamExt as _, stream::SplitStream};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::{sync::mpsc, time::timeout};

use super::{
    super::{
        ApiContext,
        access::{Guard, Peer, Principal},
        commands::{self, CommandBody, Taken},
        guards::{Reason, Speech},
        ports::By,
        problem::Problem,
    },
    FAREWELL, parse_resume,
};
use crate::{
    audit::{Class, Entry},
    auth::{Secret, tokens::Role},
    json::parse,
    service::ResumeToken,
};

/// The reading half of the socket.
pub(super) type Stream = SplitStream<WebSocket>;

/// A peer of which nothing was heard for so long, while nine pings went out, is gone. One that only
/// stopped reading for a minute or two is not: its pings wait unread in the kernel's buffers, and
/// nobody can tell that from here.
const SILENCE: Duration = Duration::from_secs(180);
/// Taking a command in may take so long.
const COMMAND_WITHIN_S: u64 = 30;
const MAX_PREFIXES: usize = 64;
/// Longest `kind/name`, and so the longest prefix that can match one.
const MAX_PREFIX_BYTES: usize = 129;
/// Longest reference of a command, as JSON.
const MAX_REFERENCE_BYTES: usize = 256;

/// Why nothing more is read.
pub(super) enum ReadEnd {
    /// The peer has closed and was answered, or is gone.
    Closed,
    /// Nothing was heard for too long.
    Silent,
    /// A message is over the limit.
    TooLarge,
    /// What came is no WebSocket (RFC 6455), or compressed, on which nobody agreed.
    Broken,
}

impl From<&axum::Error> for ReadEnd {
    /// Why the socket gave up.
    fn from(error: &axum::Error) -> Self {
        use tokio_tungstenite::tungstenite::{Error, error::ProtocolError};
        let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
        match cause {
            Some(Error::Capacity(_)) => Self::TooLarge,
            // Nobody is there to be told.
            Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Self::Closed,
            Some(Error::Protocol(_) | Error::Utf8(_)) => Self::Broken,
            _ => Self::Closed,
        }
    }
}

/// What the reader hands to the writer.
pub(super) enum FromReader {
    Pong,
    Refused(Problem, Option<Value>),
    Commanded(Taken, Option<Value>),
    Subscribe { prefixes: Vec<String>, resume: Option<ResumeToken> },
}

/// A message that was understood.
pub(super) enum ClientMessage {
    Auth(Secret),
    Ping,
    Subscribe { prefixes: Vec<String>, resume: Option<ResumeToken> },
    Command(Box<CommandBody>, Option<Value>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthBody {
    token: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeBody {
    prefixes: Vec<String>,
    resume: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

impl ClientMessage {
    /// Understands a text message; a problem comes with the client's reference, if it gave one.
    fn read(text: &str) -> Result<Self, (Problem, Option<Value>)> {
        let mut map: Map<String, Value> = parse(text.as_bytes()).map_err(|error| (error.into(), None))?;
        let kind = map.remove("type");
        let reference = map.remove("ref");
        if reference.as_ref().is_some_and(|r| r.to_string().len() > MAX_REFERENCE_BYTES) {
            let detail = format!("`ref` has more than {MAX_REFERENCE_BYTES} bytes");
            return Err((Problem::invalid(detail, "use a short text or a number"), None));
        }
        let read =
            Self::read_body(kind.as_ref().and_then(Value::as_str), Value::Object(map), reference.clone());
        read.map_err(|problem| (problem, reference))
    }

    fn read_body(kind: Option<&str>, body: Value, reference: Option<Value>) -> Result<Self, Problem> {
        match kind {
            Some("auth") => shape::<AuthBody>(body).map(|body| Self::Auth(body.token)),
            Some("ping") => shape::<Empty>(body).map(|_| Self::Ping),
            Some("subscribe") => shape::<SubscribeBody>(body).and_then(SubscribeBody::check),
            Some("command") => {
                shape::<CommandBody>(body).map(|body| Self::Command(Box::new(body), reference))
            }
            _ => {
                let fix = "send {\"type\":\"subscribe\",\"prefixes\":[\"device/\"]}, \"command\", \"ping\" or \"auth\"";
                Err(Problem::invalid("the message has no `type` that is known here", fix))
            }
        }
    }
}

impl SubscribeBody {
    fn check(self) -> Result<ClientMessage, Problem> {
        if self.prefixes.is_empty() || self.prefixes.len() > MAX_PREFIXES {
            let detail =
                format!("`prefixes` has {} entries, 1 to {MAX_PREFIXES} are allowed", self.prefixes.len());
            return Err(Problem::invalid(detail, "name the kinds that matter; \"\" is everything"));
        }
        if let Some(long) = self.prefixes.iter().find(|prefix| prefix.len() > MAX_PREFIX_BYTES) {
            let detail = format!("a prefix has {} bytes, more than any object's name", long.len());
            return Err(Problem::invalid(detail, "use the start of kind/name"));
        }
        let resume = self.resume.as_deref().and_then(parse_resume);
        Ok(ClientMessage::Subscribe { prefixes: self.prefixes, resume })
    }
}

fn shape<T: for<'de> Deserialize<'de>>(body: Value) -> Result<T, Problem> {
    serde_json::from_value(body)
        .map_err(|error| Problem::invalid(error.to_string(), "correct the field named in `detail`"))
}

/// The first message of a client that came without a header; `None` if it does not get in.
pub(super) async fn authenticate(
    guard: &Guard,
    peer: Option<Peer>,
    socket: &mut WebSocket,
) -> Option<Principal> {
    loop {
        match socket.recv().await?.ok()? {
            Message::Text(text) => return sign_in(guard, peer, &text).await,
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Binary(_) | Message::Close(_) => return None,
        }
    }
}

/// A refusal is in the trail and counts for the address, as one of a header does.
async fn sign_in(guard: &Guard, peer: Option<Peer>, text: &str) -> Option<Principal> {
    let (who, problem) = match ClientMessage::read(text) {
        Ok(ClientMessage::Auth(token)) => match guard.admit(token, peer.clone()).await {
            Ok(principal) => match principal.must_be(guard.role) {
                Ok(()) => return Some(principal),
                Err(problem) => (Some(principal.who), problem),
            },
            Err(problem) => (None, problem),
        },
        Ok(_) => (None, Problem::unauthenticated()),
        Err((problem, _)) => (None, problem),
    };
    let who = who.map_or_else(|| "nobody".to_owned(), |who| who.to_string());
    let entry = Entry::new(Class::Refused, who, "WebSocket auth", problem.status().as_u16());
    let (from, via) = peer.map_or((None, None), |peer| (Some(peer.address.ip()), peer.via));
    guard.context.audit.record(entry.from(from, via));
    if let Some(address) = from
        && guard.context.guards.pace.address(address).await.is_err()
    {
        guard.context.metrics.refused(Reason::Pace);
    }
    None
}

/// Reads until the peer closes, breaks a rule of WebSocket, or was silent for too long.
pub(super) async fn read(
    context: &ApiContext,
    principal: &Principal,
    by: &By,
    stream: &mut Stream,
    writer: mpsc::Sender<FromReader>,
) -> ReadEnd {
    let mut speech = Speech::new();
    loop {
        while let Some(wait) = speech.wait() {
            tokio::time::sleep(wait).await;
        }
        let message = match timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return ReadEnd::from(&error),
            Ok(None) => return ReadEnd::Closed,
            Err(_elapsed) => return ReadEnd::Silent,
        };
        let message = match message {
            Message::Text(text) => answer(context, principal, by, &text).await,
            Message::Binary(_) => {
                let problem = Problem::invalid("a message is binary", "send JSON in text messages");
                FromReader::Refused(problem, None)
            }
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => {
                // Reading on is what sends the answer, with the peer's own code.
                let answered = async { while let Some(Ok(_)) = stream.next().await {} };
                let _ = timeout(FAREWELL, answered).await;
                return ReadEnd::Closed;
            }
        };
        // A full inbox waits here: a peer that asks faster than it reads is not read either.
        if writer.send(message).await.is_err() {
            return ReadEnd::Closed;
        }
    }
}

async fn answer(context: &ApiContext, principal: &Principal, by: &By, text: &str) -> FromReader {
    match ClientMessage::read(text) {
        Err((problem, reference)) => FromReader::Refused(problem, reference),
        Ok(ClientMessage::Ping) => FromReader::Pong,
        Ok(ClientMessage::Subscribe { prefixes, resume }) => FromReader::Subscribe { prefixes, resume },
        Ok(ClientMessage::Auth(_)) => {
            let fix = "open another socket to be somebody else";
            FromReader::Refused(Problem::invalid("this socket is authenticated already", fix), None)
        }
        Ok(ClientMessage::Command(body, reference)) => match command(context, principal, by, *body).await {
            Ok(taken) => FromReader::Commanded(taken, reference),
            Err(problem) => {
                // What is taken in is recorded where that is done.
                let status = problem.status().as_u16();
                let entry = Entry::new(Class::Refused, &by.who, "WebSocket command", status);
                context.audit.record(entry.from(by.from, None));
                FromReader::Refused(problem, reference)
            }
        },
    }
}

async fn command(
    context: &ApiContext,
    principal: &Principal,
    by: &By,
    body: CommandBody,
) -> Result<Taken, Problem> {
    principal.must_be(Role::Operator)?;
    commands::check_key(&body)?;
    let taken = timeout(
        Duration::from_secs(COMMAND_WITHIN_S),
        commands::hand_in(&context.service, &context.commands, &principal.scope, body, by),
    )
    .await;
    taken.unwrap_or_else(|_| Err(Problem::deadline(COMMAND_WITHIN_S)))
}
