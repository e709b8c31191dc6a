//! Joins the ways by which a name is proven: what any gateway of the household answers, and what is put into the DNS.

use std::fmt;
use std::future::Future;

use instant_acme::ChallengeType;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Domain;
use super::answers::{Answer, AnswersHandle};
use super::dns::DnsProvider;
use crate::config::{Challenge, TlsConfig};

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

impl ProofBy {
    /// As any gateway answers it; `None` for what is in the DNS.
    fn answer(&self, domain: &Domain) -> Option<Answer> {
        let domain = domain.clone();
        Some(match self {
            Self::Http { token, key_authorization } => {
                Answer::Http { domain, token: token.clone(), key_authorization: key_authorization.clone() }
            }
            Self::TlsAlpn { digest } => Answer::TlsAlpn { domain, digest: *digest },
            Self::Dns { .. } => return None,
        })
    }
}

/// The two ways of a daemon.
pub struct Ways {
    answers: AnswersHandle,
    dns: Option<DnsProvider>,
}

impl Ways {
    /// Those of these settings.
    ///
    /// # Errors
    /// Why `[tls.dns]` cannot be used: a file that it names is missing, mostly.
    pub fn new(config: &TlsConfig, answers: AnswersHandle) -> Result<Self, String> {
        let dns = config.dns.as_ref().filter(|_| config.challenge == Challenge::Dns);
        let dns = dns.map(DnsProvider::open).transpose().map_err(|error| error.to_string())?;
        Ok(Self { answers, dns })
    }
}

impl Solver for Ways {
    async fn publish(&self, domain: &Domain, proof: &ProofBy) -> Result<(), SolveError> {
        let wrong = |error: &dyn std::error::Error| SolveError(error.to_string());
        match (proof, proof.answer(domain), &self.dns) {
            (ProofBy::Dns { value }, _, Some(dns)) => dns.publish(domain, value).await.map_err(|e| wrong(&e)),
            (_, Some(answer), _) => self.answers.publish(answer).await.map_err(|e| wrong(&e)),
            (_, None, _) => Err(SolveError("`[tls.dns]` is not set".to_owned())),
        }
    }

    async fn withdraw(&self, domain: &Domain, proof: &ProofBy) {
        match (proof, proof.answer(domain), &self.dns) {
            (ProofBy::Dns { value }, _, Some(dns)) => dns.withdraw(domain, value).await,
            (_, Some(answer), _) => self.answers.withdraw(&answer).await,
            // Other settings than those by which it was published: whoever clears the zone up finds it.
            (_, None, _) => {}
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
    fn publish(
        &self,
        domain: &Domain,
        proof: &ProofBy,
    ) -> impl Future<Output = Result<(), SolveError>> + Send;

    /// Takes it away. What is not there, or cannot be taken away, does no harm.
    fn withdraw(&self, domain: &Domain, proof: &ProofBy) -> impl Future<Output = ()> + Send;
}
