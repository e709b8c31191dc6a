//! The joiner's side of an admission.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_proto::{HouseholdId, NodeId};
use quinn::{ClientConfig, Endpoint};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    exchange::{
        JoinReply, JoinRequest, MAX_REPLY, MAX_REQUEST, MessageError, Refusal, is_good_name, read_message,
        write_message,
    },
    invite::Binding,
    token::InviteToken,
};
use crate::{
    tls::identity::{ALPN_JOIN, IdentityError, NodeIdentity},
    transport::{
        CloseCode, DialError, clip,
        dialer::HEAD_START,
        pipe::JoinPipe,
        race::{AttemptError, Race},
        ways::race,
        websocket::WebSocketRace,
    },
};

/// Within which a join must succeed, all addresses and retries included.
pub const JOIN_WITHIN: Duration = Duration::from_secs(15);
const DIAL_WITHIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(300);

/// What a node has when it was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The household.
    pub household: HouseholdId,
    /// The node that admitted this one.
    pub issuer: NodeId,
    /// The roster's signed statements, this node's own among them, not yet verified.
    pub statements: Vec<Vec<u8>>,
    /// Where the household can be reached.
    pub addresses: Vec<SocketAddr>,
}

/// Why a node did not join.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The issuer was not reached.
    #[error("the node that made the invite was not reached: {0}")]
    NotReached(DialError),
    /// The issuer said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The connection broke while talking.
    #[error("the connection to the issuer broke ({0}): try again with the same invite")]
    Broken(String),
    /// Time ran out.
    #[error("the issuer did not answer within {} s: try again with the same invite", JOIN_WITHIN.as_secs())]
    Deadline,
    /// The reply is of a newer version.
    #[error(
        "the issuer answered in a newer version of Hearth: update this node, then try again with the same invite"
    )]
    NewerReply,
    /// No socket could be opened.
    #[error("no UDP socket could be opened: {0}")]
    Socket(#[from] io::Error),
    /// The node's key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Redeems an invite: finds its issuer, checks its key, proves the secret, and returns what
/// the household says. May be called again with the same invite after any error.
///
/// # Errors
/// [`JoinError`] says what to do.
pub async fn join(token: &InviteToken, identity: &NodeIdentity, name: &str) -> Result<Joined, JoinError> {
    let any: SocketAddr = if token.addresses.iter().any(SocketAddr::is_ipv6) {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    // A machine without IPv6 still has the other family.
    let endpoint = Endpoint::client(any).or_else(|_| Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()))?;
    let outcome = join_over(&endpoint, token, identity, name, JOIN_WITHIN).await;
    endpoint.close(CloseCode::Done.number().into(), b"");
    outcome
}

/// [`join`] over a given endpoint (or TCP, where UDP is dropped), which stays open, and in a given time.
///
/// # Errors
/// As [`join`].
pub async fn join_over(
    endpoint: &Endpoint,
    token: &InviteToken,
    identity: &NodeIdentity,
    name: &str,
    within: Duration,
) -> Result<Joined, JoinError> {
    if !is_good_name(name) {
        return Err(JoinError::Refused(Refusal::BadName));
    }
    let deadline = Instant::now() + within;
    let joiner = Joiner {
        endpoint,
        config: identity.client_quic(ALPN_JOIN)?,
        tls: Arc::new(identity.client_tls(ALPN_JOIN)?),
        token,
        ourselves: identity.id(),
        name,
    };
    let mut last = JoinError::Deadline;
    while let Ok(outcome) = timeout_at(deadline, joiner.attempt()).await {
        match outcome {
            Err(error) if is_passing(&error) => last = error,
            outcome => return outcome,
        }
        if timeout_at(deadline, sleep(PAUSE)).await.is_err() {
            break;
        }
    }
    Err(last)
}

/// Whether the same attempt may succeed in a moment.
fn is_passing(error: &JoinError) -> bool {
    match error {
        JoinError::NotReached(DialError::Failed(failures)) => {
            failures.iter().any(|(_, error)| error.is_passing())
        }
        JoinError::Broken(_) | JoinError::Refused(Refusal::Busy) => true,
        _ => false,
    }
}

struct Joiner<'a> {
    endpoint: &'a Endpoint,
    config: ClientConfig,
    tls: Arc<rustls::ClientConfig>,
    token: &'a InviteToken,
    ourselves: NodeId,
    name: &'a str,
}

impl Joiner<'_> {
    async fn attempt(&self) -> Result<Joined, JoinError> {
        let opened = race(HEAD_START, self.over_quic(), self.over_tcp()).await;
        let mut pipe = opened.map_err(JoinError::NotReached)?;
        let closer = pipe.closer();
        let outcome = self.exchange(&mut pipe).await;
        let ended_with = closer.closed_by_peer();
        closer.close(CloseCode::Done, "");
        match (outcome, ended_with) {
            (Ok(JoinReply::Accepted { statements, addresses }), _) => Ok(Joined {
                household: self.token.household,
                issuer: self.token.issuer,
                statements,
                addresses,
            }),
            (Ok(JoinReply::Refused(Refusal::Rejected(words))), _) => {
                Err(JoinError::Refused(Refusal::Rejected(clip(words.as_bytes()))))
            }
            (Ok(JoinReply::Refused(refusal)), _) => Err(JoinError::Refused(refusal)),
            (Err(_), Some(CloseCode::Busy)) => Err(JoinError::Refused(Refusal::Busy)),
            (Err(MessageError::Newer(_)), _) => Err(JoinError::NewerReply),
            (Err(error), _) => Err(JoinError::Broken(clip(error.to_string().as_bytes()))),
        }
    }

    async fn over_quic(&self) -> Result<JoinPipe, DialError> {
        let race = Race {
            endpoint: self.endpoint,
            config: &self.config,
            ourselves: self.ourselves,
            expected: Some(self.token.issuer),
            within: DIAL_WITHIN,
        };
        let connected = race.run(&self.token.addresses).await?;
        let lost = |error: quinn::ConnectionError| {
            let words = clip(error.to_string().as_bytes());
            DialError::Failed(vec![(connected.address, AttemptError::Refused(words))])
        };
        let (send, recv) = connected.connection.open_bi().await.map_err(lost)?;
        Ok(JoinPipe::quic(connected.connection, send, recv))
    }

    async fn over_tcp(&self) -> Result<JoinPipe, DialError> {
        let race = WebSocketRace {
            client: &self.tls,
            ourselves: self.ourselves,
            expected: Some(self.token.issuer),
            within: DIAL_WITHIN,
        };
        Ok(race.run(&self.token.addresses).await?.into_pipe())
    }

    async fn exchange(&self, pipe: &mut JoinPipe) -> Result<JoinReply, MessageError> {
        let token = self.token;
        // The handshake proved the issuer's key.
        let binding = Binding {
            exporter: pipe.binding().ok_or(MessageError::Malformed)?,
            joiner: self.ourselves,
            issuer: token.issuer,
            household: token.household,
        };
        let request = JoinRequest {
            household: token.household,
            issuer: token.issuer,
            token: token.id,
            proof: binding.prove(token),
            name: self.name.into(),
        };
        write_message(pipe.writer(), &request, MAX_REQUEST).await?;
        read_message(pipe.reader(), MAX_REPLY).await
    }
}
