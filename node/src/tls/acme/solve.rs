//! Joins the ways by which a name is proven: what any gateway of the household answers, and what is put into the DNS.

use std::fmt;
use std::future::Future;

use instant_acme::ChallengeType;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Domain;
use crate::config::Challenge;

/// What stands where the authority looks, for one name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Which name.
    pub domain: String,
    /// By which challenge.
    pub by: ProofBy,
}

/// What a [`Proof`] holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProofBy {
    /// A file.
    Http {
        /// The challenge's token.
        token: String,
        /// What the file holds.
        key_authorization: String,
    },
    /// A certificate.
    TlsAlpn {
        /// SHA-256 of the key authorization.
        digest: [u8; 32],
    },
    /// A TXT record.
    Dns {
        /// Its value.
        value: String,
    },
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Challenge {
    /// The challenge as the library names it.
    pub(super) fn kind(self) -> ChallengeType {
        match self {
            Self::Http => ChallengeType::Http01,
            Self::TlsAlpn => ChallengeType::TlsAlpn01,
            Self::Dns => ChallengeType::Dns01,
        }
    }
}

/// Why a proof is not where the authority looks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SolveError(pub String);

/// Puts proofs where an authority looks, and takes them away.
pub trait Solver: Send + Sync + 'static {
    /// Returns once it stands wherever the authority may look.
    fn publish(&self, domain: &Domain, proof: &ProofBy)
    -> impl Future<Output = Result<(), SolveError>> + Send;

    /// Takes it away. What is not there, or cannot be taken away, does no harm.
    fn withdraw(&self, domain: &Domain, proof: &ProofBy) -> impl Future<Output = ()> + Send;
}
