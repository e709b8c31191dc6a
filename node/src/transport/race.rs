//! Dialling all addresses of a peer at once; the first that proves the right key wins.

use std::{collections::BTreeSet, fmt, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use mesh_proto::NodeId;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use thiserror::Error;

use super::{CloseCode, clip, quic_link::down_reason};
use crate::tls::identity::{Handshake, SERVER_NAME};

/// Addresses that one dial tries; the rest are left out.
pub(crate) const MAX_ADDRESSES: usize = 16;

/// Nobody with the right key was reached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DialError {
    /// There was nothing to dial.
    #[error(
        "no address is known: name one with `peers` in the configuration, or wait until the node is seen"
    )]
    NoAddress,
    /// A configured name leads nowhere.
    #[error(
        "the name `{name}` cannot be resolved ({reason}): is the name server reachable, is the name right?"
    )]
    Unresolved {
        /// The name.
        name: String,
        /// What the system says.
        reason: String,
    },
    /// Every address failed, each in its way.
    #[error("no address answered as expected: {}", list(.0))]
    Failed(Vec<(SocketAddr, AttemptError)>),
}

fn list(failures: &[(SocketAddr, AttemptError)]) -> String {
    failures.iter().map(|(address, error)| format!("{address}: {error}")).collect::<Vec<_>>().join("; ")
}

/// How one address failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptError {
    /// Nothing came back in time.
    NoAnswer(Duration),
    /// Somebody else is there.
    WrongKey {
        /// Who was wanted.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// It is this node itself.
    Ourselves,
    /// The address cannot be dialled from here.
    Unreachable(String),
    /// The other side broke the handshake off.
    Refused(String),
    /// The same address over TCP.
    OverTcp(Box<AttemptError>),
}

impl AttemptError {
    pub(super) fn is_over_tcp(&self) -> bool {
        matches!(self, Self::OverTcp(_))
    }

    /// Whether the same attempt may succeed in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::Refused(_) => true,
            Self::OverTcp(error) => error.is_passing(),
            Self::WrongKey { .. } | Self::Ourselves | Self::Unreachable(_) => false,
        }
    }
}

impl fmt::Display for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(after) => {
                write!(
                    f,
                    "no answer within {} s (is the node running, is UDP let through?)",
                    after.as_secs_f32()
                )
            }
            Self::WrongKey { expected, found } => {
                write!(f, "node {} answered instead of {}", found.short(), expected.short())
            }
            Self::Ourselves => f.write_str("this is the node itself"),
            Self::Unreachable(why) => write!(f, "cannot be dialled from here ({why})"),
            Self::Refused(why) => write!(f, "refused ({why})"),
            Self::OverTcp(error) => match &**error {
                Self::NoAnswer(after) => write!(f, "over TCP no answer within {} s", after.as_secs_f32()),
                error => write!(f, "over TCP {error}"),
            },
        }
    }
}

/// A finished handshake with the wanted peer.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) connection: Connection,
    pub(crate) peer: NodeId,
    pub(crate) address: SocketAddr,
}

/// Tries all addresses at once; the first success ends the other attempts.
pub(super) async fn first_of<T, F: Future<Output = Result<T, AttemptError>>>(
    addresses: &[SocketAddr],
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, DialError> {
    let distinct: BTreeSet<SocketAddr> = addresses.iter().take(MAX_ADDRESSES).copied().collect();
    if distinct.is_empty() {
        return Err(DialError::NoAddress);
    }
    let attempts = distinct.into_iter().map(|address| {
        let attempt = attempt(address);
        async move { (address, attempt.await) }
    });
    let mut attempts: FuturesUnordered<_> = attempts.collect();
    let mut failures = Vec::new();
    let mut winner = None;
    while let Some((address, outcome)) = attempts.next().await {
        match outcome {
            Ok(connected) => {
                winner = Some(connected);
                break;
            }
            Err(error) => failures.push((address, error)),
        }
    }
    drop(attempts);
    failures.sort_by_key(|(address, _)| *address);
    winner.ok_or(DialError::Failed(failures))
}

/// The right peer: not this node, and the expected one if one is.
pub(super) fn check_peer(
    peer: NodeId,
    ourselves: NodeId,
    expected: Option<NodeId>,
) -> Result<(), AttemptError> {
    match expected {
        _ if peer == ourselves => Err(AttemptError::Ourselves),
        Some(expected) if expected != peer => Err(AttemptError::WrongKey { expected, found: peer }),
        _ => Ok(()),
    }
}

/// What to dial, and who must answer.
pub(crate) struct Race<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) config: &'a ClientConfig,
    /// This node, which must not talk to itself.
    pub(crate) ourselves: NodeId,
    /// The only key that will do; `None` takes any.
    pub(crate) expected: Option<NodeId>,
    /// Given to each attempt.
    pub(crate) within: Duration,
}

impl Race<'_> {
    /// Dials all addresses at once. Cancelling drops every attempt.
    pub(crate) async fn run(&self, addresses: &[SocketAddr]) -> Result<Connected, DialError> {
        first_of(addresses, |address| self.attempt(address)).await
    }

    async fn attempt(&self, address: SocketAddr) -> Result<Connected, AttemptError> {
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), address, SERVER_NAME)
            .map_err(|error| AttemptError::Unreachable(error.to_string()))?;
        let connection = tokio::time::timeout(self.within, connecting)
            .await
            .map_err(|_| AttemptError::NoAnswer(self.within))?
            .map_err(|error| self.refused(&error))?;
        let close = |code: CloseCode| connection.close(code.number().into(), b"");
        let Some(Handshake { peer, .. }) = Handshake::of(&connection) else {
            close(CloseCode::Misuse);
            return Err(AttemptError::Refused("no raw public key".into()));
        };
        check_peer(peer, self.ourselves, self.expected).inspect_err(|_| close(CloseCode::WrongPeer))?;
        Ok(Connected { connection, peer, address })
    }

    fn refused(&self, error: &ConnectionError) -> AttemptError {
        match error {
            ConnectionError::TimedOut => AttemptError::NoAnswer(self.within),
            other => AttemptError::Refused(clip(down_reason(other).to_string().as_bytes())),
        }
    }
}
