//! The proofs of an order: when they come to where the authority looks, and when they go.

use instant_acme::{
    AuthorizationHandle, AuthorizationStatus, Authorizations, ChallengeHandle, ChallengeStatus, Error, Order,
};

use super::super::files::OrderFile;
use super::super::refusal::{OrderError, refused, shown_kind};
use super::super::solve::{Proof, ProofBy, Solver};
use super::super::{Domain, words};
use super::{Job, Pauses};
use crate::config::Challenge;

/// A name that is to be proven.
struct Open {
    /// Which of the order's.
    place: usize,
    proof: Proof,
}

impl<S: Solver> Job<'_, S> {
    /// Proves each name that is not proven yet.
    ///
    /// TXT records stand side by side before the authority looks at the first: its resolver may remember for a while what it saw at a
    /// name, and would not see a second value there. All else is proven one name after the other: where one fails, the others have
    /// cost nothing, and a DNS that holds one value at a time will do.
    pub(super) async fn prove(&self, order: &mut Order, saved: &mut OrderFile) -> Result<(), OrderError> {
        let most = if self.solver.holds_many() { usize::MAX } else { 1 };
        loop {
            let open = self.open(order, most).await;
            let is_over = open.as_ref().is_ok_and(Vec::is_empty);
            let proven = match open {
                Ok(open) if !is_over => self.prove_these(order, &open, saved).await,
                ended => ended.map(drop),
            };
            // Whatever came of it: nothing is left where it was published.
            self.withdraw_all(saved).await?;
            proven?;
            if is_over {
                return Ok(());
            }
        }
    }

    /// The first names that are to be proven, with what proves them.
    async fn open(&self, order: &mut Order, most: usize) -> Result<Vec<Open>, OrderError> {
        let mut open = Vec::new();
        let mut authorizations = order.authorizations();
        for place in 0.. {
            if open.len() >= most {
                break;
            }
            let Some(mut authorization) = authorizations.next().await.transpose()? else { break };
            if let Some(proof) = self.wanted(&mut authorization)? {
                open.push(Open { place, proof });
            }
        }
        Ok(open)
    }

    /// What proves a name; nothing if it is proven.
    fn wanted<'a>(
        &self,
        authorization: &'a mut AuthorizationHandle<'a>,
    ) -> Result<Option<Proof>, OrderError> {
        match authorization.status {
            AuthorizationStatus::Valid => return Ok(None),
            AuthorizationStatus::Pending => {}
            _ => return Err(refused(authorization)),
        }
        let domain = authorization.identifier().to_string();
        if domain.parse::<Domain>().is_err() {
            return Err(OrderError::Odd("it asks for the proof of a name that is none".into()));
        }
        let challenge = self.challenge(authorization)?;
        Ok(Some(Proof { domain, by: self.proof(&challenge)? }))
    }

    fn challenge<'a>(
        &self,
        authorization: &'a mut AuthorizationHandle<'a>,
    ) -> Result<ChallengeHandle<'a>, OrderError> {
        let domain = authorization.identifier().to_string();
        let offered: Vec<String> = authorization.challenges.iter().map(|c| shown_kind(&c.r#type)).collect();
        let challenge = self.config.challenge.as_str();
        let none = OrderError::NoChallenge { domain, challenge, offered: offered.join(", ") };
        authorization.challenge(self.config.challenge.kind()).ok_or(none)
    }

    fn proof(&self, challenge: &ChallengeHandle<'_>) -> Result<ProofBy, OrderError> {
        let said = challenge.key_authorization();
        Ok(match self.config.challenge {
            Challenge::Http => {
                ProofBy::Http { token: challenge.token.clone(), key_authorization: said.as_str().to_owned() }
            }
            Challenge::TlsAlpn => {
                let digest = said.digest().as_ref().try_into();
                ProofBy::TlsAlpn { digest: digest.map_err(|_| OrderError::Odd("no digest".into()))? }
            }
            Challenge::Dns => ProofBy::Dns { value: said.dns_value() },
        })
    }

    /// Puts these proofs where the authority looks, all of them, and then has it look at one after the other.
    async fn prove_these(
        &self,
        order: &mut Order,
        open: &[Open],
        saved: &mut OrderFile,
    ) -> Result<(), OrderError> {
        // What a restart has left there, and the authority may be looking for.
        let stands = open.iter().all(|open| saved.published.contains(&open.proof));
        if !stands {
            self.withdraw_all(saved).await?;
            saved.published = open.iter().map(|open| open.proof.clone()).collect();
            self.files.set_order(saved).await?;
        }
        self.publish(&saved.published, stands).await?;
        if !saved.is_looked_for {
            saved.is_looked_for = true;
            self.files.set_order(saved).await?;
        }
        for open in open {
            self.have_it_look(order, open.place).await?;
            self.await_proof(order, open.place).await?;
        }
        Ok(())
    }

    /// Returns once these stand wherever the authority may look. `stands` says that they did before a restart.
    async fn publish(&self, proofs: &[Proof], stands: bool) -> Result<(), OrderError> {
        let domain = |proof: &Proof| {
            let odd = |_| OrderError::Odd("it asks for the proof of a name that is none".into());
            proof.domain.parse::<Domain>().map_err(odd)
        };
        let wrong = |proof: &Proof, reason: &str| OrderError::Solve {
            domain: proof.domain.clone(),
            reason: words::shown(reason),
        };
        for proof in proofs.iter().filter(|proof| !stands || !proof.by.lasts()) {
            let published = self.solver.publish(&domain(proof)?, &proof.by).await;
            published.map_err(|reason| wrong(proof, &reason.0))?;
        }
        for proof in proofs {
            let seen = self.solver.seen(&domain(proof)?, &proof.by).await;
            seen.map_err(|reason| wrong(proof, &reason.0))?;
        }
        Ok(())
    }

    /// Has the authority look at a proof, unless it does already.
    async fn have_it_look(&self, order: &mut Order, place: usize) -> Result<(), OrderError> {
        let mut authorizations = order.authorizations();
        let Some(mut authorization) = nth(&mut authorizations, place).await? else { return Ok(()) };
        let mut challenge = self.challenge(&mut authorization)?;
        if challenge.status == ChallengeStatus::Pending {
            challenge.set_ready().await?;
        }
        Ok(())
    }

    async fn await_proof(&self, order: &mut Order, place: usize) -> Result<(), OrderError> {
        let mut authorizations = order.authorizations();
        let Some(mut authorization) = nth(&mut authorizations, place).await? else { return Ok(()) };
        let mut pauses = Pauses::new();
        loop {
            match authorization.refresh().await?.status {
                AuthorizationStatus::Valid => return Ok(()),
                AuthorizationStatus::Pending => {}
                _ => return Err(refused(&authorization)),
            }
            pauses.pause("to look at the proof of a name").await?;
        }
    }

    /// Takes away what was published, and only then forgets that it was.
    pub(super) async fn withdraw_all(&self, saved: &mut OrderFile) -> Result<(), OrderError> {
        if saved.published.is_empty() {
            return Ok(());
        }
        for proof in &saved.published {
            if let Ok(domain) = proof.domain.parse() {
                self.solver.withdraw(&domain, &proof.by).await;
            }
        }
        saved.published.clear();
        saved.is_looked_for = false;
        Ok(self.files.set_order(saved).await?)
    }
}

/// The authorization in this place; those before it are known already and cost no question.
async fn nth<'a>(
    authorizations: &'a mut Authorizations<'_>,
    place: usize,
) -> Result<Option<AuthorizationHandle<'a>>, Error> {
    for _ in 0..place {
        if let Some(Err(error)) = authorizations.next().await {
            return Err(error);
        }
    }
    authorizations.next().await.transpose()
}
