//! Joins the ways by which a name is proven: what any gateway of the household answers, and what is put into the DNS.

use std::fmt;
use std::future::Future;

use instant_acme::ChallengeType;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Domain;
use super::answers::{Answer, AnswersHandle};
use super::dns::DnsProvider;
use crate::config::{Challenge, DnsConfig, TlsConfig};

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
    /// Whether it stands until it is taken away; an answer of the household is given for an hour.
    pub(super) fn lasts(&self) -> bool {
        matches!(self, Self::Dns { .. })
    }

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

/// The two ways of a daemon. The secrets of the DNS are read when they are needed: what is missing then fails one attempt.
pub struct Ways {
    answers: AnswersHandle,
    dns: Option<DnsConfig>,
}

impl Ways {
    /// Those of these settings.
    pub fn new(config: &TlsConfig, answers: AnswersHandle) -> Self {
        let dns = config.dns.clone().filter(|_| config.challenge == Challenge::Dns);
        Self { answers, dns }
    }

    /// The way into the DNS. Fails with what of `[tls.dns]` cannot be used: a file that it names is missing, mostly.
    fn dns(&self) -> Result<DnsProvider, SolveError> {
        let config = self.dns.as_ref().ok_or_else(|| SolveError("`[tls.dns]` is not set".to_owned()))?;
        DnsProvider::open(config).map_err(|error| SolveError(error.to_string()))
    }
}

impl Solver for Ways {
    async fn publish(&self, domain: &Domain, proof: &ProofBy) -> Result<(), SolveError> {
        let wrong = |error: &dyn std::error::Error| SolveError(error.to_string());
        match (proof, proof.answer(domain)) {
            (_, Some(answer)) => self.answers.publish(answer).await.map_err(|e| wrong(&e)),
            (ProofBy::Dns { value }, None) => self.dns()?.put(domain, value).await.map_err(|e| wrong(&e)),
            (_, None) => Err(SolveError("there is no way to prove it so".to_owned())),
        }
    }

    async fn seen(&self, domain: &Domain, proof: &ProofBy) -> Result<(), SolveError> {
        match proof {
            ProofBy::Dns { value } => {
                self.dns()?.seen(domain, value).await.map_err(|error| SolveError(error.to_string()))
            }
            // Every gateway has acknowledged it when it was published.
            ProofBy::Http { .. } | ProofBy::TlsAlpn { .. } => Ok(()),
        }
    }

    fn holds_many(&self) -> bool {
        self.dns.is_some() && self.dns().is_ok_and(|dns| !dns.holds_one_value())
    }

    async fn withdraw(&self, domain: &Domain, proof: &ProofBy) {
        match (proof, proof.answer(domain), self.dns()) {
            (_, Some(answer), _) => self.answers.withdraw(&answer).await,
            (ProofBy::Dns { value }, None, Ok(dns)) => dns.withdraw(domain, value).await,
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
    /// Puts it there.
    fn publish(
        &self,
        domain: &Domain,
        proof: &ProofBy,
    ) -> impl Future<Output = Result<(), SolveError>> + Send;

    /// Returns once what was published stands wherever the authority may look.
    fn seen(
        &self,
        _domain: &Domain,
        _proof: &ProofBy,
    ) -> impl Future<Output = Result<(), SolveError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Whether proofs are to stand there side by side, before the authority looks at the first of them.
    fn holds_many(&self) -> bool {
        false
    }

    /// Takes it away. What is not there, or cannot be taken away, does no harm.
    fn withdraw(&self, domain: &Domain, proof: &ProofBy) -> impl Future<Output = ()> + Send;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::BTreeSet, fs, time::Duration};

    use mesh_proto::ShortId;
    use tokio::sync::watch;

    use super::*;
    use crate::api::fake::FakeLoop;
    use crate::cli::testing::TempDir;
    use crate::config::DnsProviderConfig;
    use crate::service::HouseholdTime;

    #[tokio::test]
    async fn a_secret_that_is_missing_fails_when_it_is_needed() {
        let fake = FakeLoop::start();
        let (alive, time) = (watch::channel(BTreeSet::new()).1, watch::channel(HouseholdTime::default()).1);
        let answers = AnswersHandle::new(fake.service(), ShortId(7), alive, time);
        let provider = DnsProviderConfig::DuckDns { token_file: "/nowhere/duckdns.token".into() };
        let dns = DnsConfig { provider, propagation: Duration::from_secs(1), resolvers: Vec::new() };
        let config = TlsConfig { challenge: Challenge::Dns, dns: Some(dns), ..TlsConfig::default() };
        let ways = Ways::new(&config, answers);
        let proof = ProofBy::Dns { value: "value".into() };
        let error = ways.publish(&"a.example.org".parse().unwrap(), &proof).await.unwrap_err();
        assert!(error.0.contains("/nowhere/duckdns.token"), "{error}");
    }

    #[tokio::test]
    async fn only_texts_of_a_dns_that_holds_several_stand_side_by_side() {
        let fake = FakeLoop::start();
        let (alive, time) = (watch::channel(BTreeSet::new()).1, watch::channel(HouseholdTime::default()).1);
        let answers = AnswersHandle::new(fake.service(), ShortId(7), alive, time);
        let folder = TempDir::new();
        let token_file = folder.path().join("token");
        fs::write(&token_file, "a-token").unwrap();
        let hook = DnsProviderConfig::Hook { command: "/bin/true".into() };
        for (challenge, provider, many) in [
            (Challenge::Dns, hook.clone(), true),
            (Challenge::Dns, DnsProviderConfig::DuckDns { token_file }, false),
            (Challenge::Http, hook, false),
        ] {
            let dns = DnsConfig { provider, propagation: Duration::from_secs(1), resolvers: Vec::new() };
            let config = TlsConfig { challenge, dns: Some(dns), ..TlsConfig::default() };
            assert_eq!(Ways::new(&config, answers.clone()).holds_many(), many, "{config:?}");
        }
    }
}
