//! Why a statement was refused, by name.

use thiserror::Error;

use crate::id::{NodeId, ShortId};

/// Why a statement was refused. The roster is as before, but where said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RosterError {
    /// Another household's.
    #[error("the statement belongs to another household: this node follows one only")]
    WrongHousehold,
    /// The signature does not fit key, household and bytes.
    #[error("the statement's signature is not {issuer:?}'s: it was damaged or forged")]
    BadSignature {
        /// The key it claims.
        issuer: NodeId,
    },
    /// Self-made: no admission gives the issuer the right. It is put aside in the waiting room while there is
    /// room, should that admission be under way, and counts for nothing.
    #[error("{issuer:?} may not say this: an admin has to admit it, as admin if it is to admit or revoke")]
    NotAuthorised {
        /// The key that signed.
        issuer: NodeId,
    },
    /// The issuer signed two statements for one place. Both are kept as evidence (the roster changed) and both are to be
    /// passed on; the one with the lower hash counts.
    #[error("{issuer:?} signed two statements numbered {seq}: its key is used in two places, revoke it")]
    Forked {
        /// The key that signed both.
        issuer: NodeId,
        /// Their number.
        seq: u32,
    },
    /// Two keys share a short name. The statement is kept (the roster changed), the admission with the lower hash counts.
    #[error("another key has the short name {short}: make a new key for the new node")]
    ShortIdTaken {
        /// The short name.
        short: ShortId,
    },
    /// Number and previous statement do not fit together.
    #[error("statement {seq} of {issuer:?} does not continue its chain: fetch the chain from its start")]
    BrokenChain {
        /// Whose chain.
        issuer: NodeId,
        /// The number it claims.
        seq: u32,
    },
    /// Over the limit.
    #[error("the statement has {bytes} bytes, the limit is 512")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not a statement.
    #[error("the bytes are not a statement: they were damaged or cut")]
    Malformed,
    /// The signing node's state was restored, and no member has told it yet what it signed since.
    #[error(
        "this node was restored from a backup and does not know what it signed since: start another member, wait until this one has heard it, then try again"
    )]
    Behind,
    /// Written by a newer version.
    #[error("the bytes have version {0}, which this version does not know: update this node")]
    UnknownVersion(u8),
    /// A name that breaks its rule.
    #[error("not a node name: use 1 to 64 bytes without control characters")]
    Name,
    /// It admits or revokes the root, or its own issuer.
    #[error("nobody admits or revokes the root key, and no key revokes itself: let the node leave instead")]
    Body,
    /// The issuer's chain is at its limit.
    #[error("{issuer:?} signed 1024 statements, the limit of one key: let another admin sign")]
    TooManyOfIssuer {
        /// Whose chain.
        issuer: NodeId,
    },
    /// The roster is at its limit.
    #[error(
        "the roster holds 4096 statements, its limit: only the founder and the recovery key may say more, such as revoke who filled it"
    )]
    Full,
    /// The waiting room is at its limit.
    #[error("256 statements wait for ones before them: send chains from their start")]
    PendingFull,
}
