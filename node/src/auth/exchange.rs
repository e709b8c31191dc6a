//! The two messages of an admission, on one stream of a connection with its own ALPN, over QUIC or over
//! a WebSocket.
//!
//! A message is a length of four bytes (big end first), a version byte, and a postcard body.
//! A version that was published never changes; what comes later gets the next number.

use std::{io, net::SocketAddr};

use mesh_proto::{HouseholdId, NodeId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::token::TokenId;

/// The version that this node speaks.
const VERSION: u8 = 1;
/// Largest request, in bytes.
pub(crate) const MAX_REQUEST: usize = 16 << 10;
/// Largest reply, in bytes: a roster of some thousand statements.
pub(crate) const MAX_REPLY: usize = 1 << 20;
/// Longest friendly name of a node, in bytes.
pub const MAX_NODE_NAME: usize = 64;

/// What the joiner sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub(crate) household: HouseholdId,
    pub(crate) issuer: NodeId,
    pub(crate) token: TokenId,
    pub(crate) proof: [u8; 32],
    pub(crate) name: String,
}

/// What the issuer answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JoinReply {
    Accepted { statements: Vec<Vec<u8>>, addresses: Vec<SocketAddr> },
    Refused(Refusal),
}

/// Why a node was not admitted. Nothing has changed on either side, unless said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// The issuer knows no such invite.
    #[error(
        "the issuer does not know this invite (taken back, or older than a day): ask for a new one with `hearth invite`"
    )]
    Unknown,
    /// Too late.
    #[error("the invite has expired: ask for a new one with `hearth invite`, and a longer --ttl if need be")]
    Expired,
    /// Another key was faster.
    #[error(
        "another node has used this invite: ask for a new one with `hearth invite`; `hearth nodes` on the issuer shows which one did"
    )]
    AlreadyUsed,
    /// The secret, or the session it is bound to, is another.
    #[error(
        "the invite's secret does not match: copy the invite again, or ask for a new one with `hearth invite`"
    )]
    BadProof,
    /// The issuer has moved to another household.
    #[error("the issuer belongs to another household by now: ask for a new invite in the household you mean")]
    WrongHousehold,
    /// Another node made the invite.
    #[error(
        "another node made this invite, and only that one can redeem it: start it, or ask for a new invite here"
    )]
    NotIssuer,
    /// Too many ask at once.
    #[error("the issuer is busy with others who want to join: try again in a minute")]
    Busy,
    /// The issuer is older than this node.
    #[error("the issuer runs an older version of Hearth: update it, or let a newer node make the invite")]
    VersionTooNew,
    /// The request could not be read.
    #[error("the issuer could not read the request: update both nodes to the same version")]
    Malformed,
    /// The friendly name breaks its rule.
    #[error(
        "the node's name must have 1 to {MAX_NODE_NAME} bytes and no control characters: choose another with --name"
    )]
    BadName,
    /// The issuer could not save that the invite is used.
    #[error("the issuer could not save the admission: free its disk, then try again with the same invite")]
    NotSaved,
    /// The household does not want this node; the words are the issuer's.
    #[error("the household refused: {0}")]
    Rejected(String),
}

/// Whether a friendly name may be shown to people as it is.
pub(crate) fn is_good_name(name: &str) -> bool {
    (1..=MAX_NODE_NAME).contains(&name.len()) && !name.trim().is_empty() && !name.contains(char::is_control)
}

/// Why a message could not be read.
#[derive(Debug, Error)]
pub(crate) enum MessageError {
    #[error("a message of {0} bytes is too large")]
    TooLarge(usize),
    #[error("a message of version {0}, newer than this node understands")]
    Newer(u8),
    #[error("a message that cannot be read")]
    Malformed,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
}

/// Reads one message, whose size is checked before there is room made for it.
pub(crate) async fn read_message<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin + ?Sized),
    limit: usize,
) -> Result<T, MessageError> {
    let length = usize::try_from(from.read_u32().await?).unwrap_or(usize::MAX);
    if length > limit {
        return Err(MessageError::TooLarge(length));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|_| MessageError::Malformed),
        Some((&newer, _)) if newer > VERSION => Err(MessageError::Newer(newer)),
        _ => Err(MessageError::Malformed),
    }
}

/// Writes one message.
pub(crate) async fn write_message(
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    message: &impl Serialize,
    limit: usize,
) -> Result<(), MessageError> {
    let body = postcard::to_allocvec(message).map_err(|_| MessageError::Malformed)?;
    let length = body.len() + 1;
    if length > limit {
        return Err(MessageError::TooLarge(length));
    }
    let length = u32::try_from(length).map_err(|_| MessageError::TooLarge(length))?;
    let bytes = [length.to_be_bytes().as_slice(), &[VERSION], &body].concat();
    to.write_all(&bytes).await?;
    Ok(to.flush().await?)
}
