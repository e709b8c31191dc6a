//! The invites that this node has made and not forgotten: pure state, persisted by its owner.
//!
//! The file holds the secrets themselves, because checking a proof needs them: it must be
//! readable by the daemon only (mode 0600).

use std::{collections::BTreeMap, fmt};

use mesh_proto::{HouseholdId, NodeId};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::token::{InviteToken, MAX_TOKEN_ADDRESSES, Secret, TokenId};

/// Invites that may be open at once.
pub const MAX_OPEN: usize = 64;
/// Longest life of an invite, in seconds: a week.
pub const MAX_TTL: u64 = 7 * 24 * 3_600;
/// Redeemed and expired invites are remembered for this many seconds past their end, so that
/// a retry is answered and a late use is told why; at most [`MAX_CLOSED`] of them.
const MEMORY: u64 = 24 * 3_600;
const MAX_CLOSED: usize = 256;

/// A wall clock that was set back by no more than this, in seconds, ends no invite that was made
/// before the last start.
const SET_BACK: u64 = 60;

const FORMAT: u8 = 2;
/// The format before, which did not say when an invite was made.
const FORMAT_1: u8 = 1;
const PROOF_LABEL: &[u8] = b"hearth join proof v1";

/// What a proof is bound to: one TLS session between two keys, one household.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Keying material exported from the TLS session (RFC 8446, section 7.5).
    pub exporter: [u8; 32],
    /// The key that asks.
    pub joiner: NodeId,
    /// The key that admits.
    pub issuer: NodeId,
    /// The household.
    pub household: HouseholdId,
}

impl Binding {
    /// Every part has a fixed length, so no two bindings give the same bytes.
    fn message(&self, id: TokenId, roles: u8) -> Vec<u8> {
        [
            PROOF_LABEL,
            self.exporter.as_slice(),
            self.joiner.as_bytes(),
            self.issuer.as_bytes(),
            self.household.as_bytes(),
            &id.0,
            &[roles],
        ]
        .concat()
    }

    /// The proof that the joiner knows the token's secret (HMAC-SHA256, RFC 2104).
    pub(crate) fn prove(&self, token: &InviteToken) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &token.secret.0);
        let tag = hmac::sign(&key, &self.message(token.id, token.roles));
        tag.as_ref().try_into().unwrap_or_default()
    }

    /// Compares in constant time.
    fn verify(&self, invite: &Invite, id: TokenId, proof: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &invite.secret.0);
        hmac::verify(&key, &self.message(id, invite.roles), proof).is_ok()
    }
}

/// Why an invite was not made or changed. Nothing has changed then.
#[derive(Debug, Error)]
pub enum InviteError {
    /// Too many are open.
    #[error(
        "{MAX_OPEN} invites are open, no more are possible: revoke one with `hearth invite revoke ID`, or wait until one expires"
    )]
    TooMany,
    /// It would live too long, or not at all.
    #[error("an invite lives from 1 second to 7 days: choose another --ttl")]
    Ttl,
    /// There is no such open invite.
    #[error("there is no open invite with this id: `hearth invite list` shows them")]
    NoSuch,
    /// The system gave no random numbers.
    #[error("the system gave no random numbers: try again when it has finished starting")]
    NoRandomness,
    /// The book could not be saved.
    #[error(
        "the invites could not be saved ({0}): see that the state folder is writable and its disk has room"
    )]
    Save(#[from] std::io::Error),
    /// The task that owns the book has ended.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Why an invite was not redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedeemError {
    /// No such invite, or one forgotten long ago.
    Unknown,
    /// Its time is over.
    Expired,
    /// Another key used it.
    AlreadyUsed,
    /// The proof does not match.
    BadProof,
}

/// One invite, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteInfo {
    /// Which one.
    pub id: TokenId,
    /// When it ends, in Unix seconds.
    pub expires: u64,
    /// The roles it gives.
    pub roles: u8,
    /// Who used it.
    pub used_by: Option<NodeId>,
}

/// What the clocks of the issuer show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Unix seconds by the wall clock, which somebody may set while the node runs.
    pub unix: u64,
    /// Seconds since some moment before the node started, which nobody sets.
    pub running: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Invite {
    secret: Secret,
    roles: u8,
    /// When it was made and when it ends by the wall clock, in Unix seconds.
    created: u64,
    expires: u64,
    used_by: Option<NodeId>,
    /// When it was made in this run of the node; none after a restart.
    #[serde(skip)]
    made: Option<u64>,
}

#[derive(Deserialize)]
struct Invite1 {
    secret: Secret,
    roles: u8,
    expires: u64,
    used_by: Option<NodeId>,
}

impl From<Invite1> for Invite {
    fn from(old: Invite1) -> Self {
        let Invite1 { secret, roles, expires, used_by } = old;
        Self { secret, roles, created: 0, expires, used_by, made: None }
    }
}

impl Invite {
    /// Whether its time is over. In the run in which it was made only time that has passed counts,
    /// whatever the wall clock was set to meanwhile: a board without a battery makes invites in 1970.
    /// After a restart the wall clock counts, unless it shows a time before the invite was made:
    /// then one of both times is wrong, and nobody knows how old the invite is.
    fn is_over(&self, now: Moment) -> bool {
        match self.made {
            Some(made) => now.running >= made.saturating_add(self.ttl()),
            None => now.unix >= self.expires || now.unix.saturating_add(SET_BACK) < self.created,
        }
    }

    /// For how long it has been over, in seconds, as far as that is known.
    fn over_for(&self, now: Moment) -> u64 {
        match self.made {
            Some(made) => now.running.saturating_sub(made.saturating_add(self.ttl())),
            None => now.unix.saturating_sub(self.expires),
        }
    }

    fn ttl(&self) -> u64 {
        self.expires.saturating_sub(self.created)
    }
}

/// A granted redemption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The roles of the invite.
    pub roles: u8,
    /// The book changed and must be saved before anybody is told.
    pub save: bool,
}

/// All invites of this node.
#[derive(Clone, Default)]
pub struct InviteBook {
    invites: BTreeMap<TokenId, Invite>,
}

impl fmt::Debug for InviteBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InviteBook({} invites)", self.invites.len())
    }
}

/// Bytes that are not a book of this version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the saved invites cannot be read (damaged, or of a newer version): remove the file to forget all open invites"
)]
pub struct BookError;

impl InviteBook {
    /// The bytes to save, secrets included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = postcard::to_allocvec(&self.invites).unwrap_or_default();
        [[FORMAT].as_slice(), &body].concat()
    }

    /// Reads what [`InviteBook::to_bytes`] made.
    ///
    /// # Errors
    /// [`BookError`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BookError> {
        match bytes.split_first() {
            Some((&FORMAT, body)) => {
                postcard::from_bytes(body).map(|invites| Self { invites }).map_err(|_| BookError)
            }
            Some((&FORMAT_1, body)) => {
                let old: BTreeMap<TokenId, Invite1> = postcard::from_bytes(body).map_err(|_| BookError)?;
                Ok(Self { invites: old.into_iter().map(|(id, invite)| (id, invite.into())).collect() })
            }
            _ => Err(BookError),
        }
    }

    /// Makes an invite that lives `ttl` seconds from `now`.
    ///
    /// # Errors
    /// [`InviteError`] when there are too many, or `ttl` is out of its range.
    pub fn create(
        &mut self,
        now: Moment,
        ttl: u64,
        roles: u8,
        household: HouseholdId,
        issuer: NodeId,
        mut addresses: Vec<std::net::SocketAddr>,
    ) -> Result<InviteToken, InviteError> {
        self.forget(now);
        if !(1..=MAX_TTL).contains(&ttl) {
            return Err(InviteError::Ttl);
        }
        let open = self.invites.values().filter(|i| i.used_by.is_none() && !i.is_over(now)).count();
        if open >= MAX_OPEN {
            return Err(InviteError::TooMany);
        }
        let (mut id, mut secret) = ([0; 16], [0; 32]);
        let random = SystemRandom::new();
        random
            .fill(&mut id)
            .and_then(|()| random.fill(&mut secret))
            .map_err(|_| InviteError::NoRandomness)?;
        let (id, secret, created) = (TokenId(id), Secret(secret), now.unix);
        let expires = created.saturating_add(ttl);
        addresses.truncate(MAX_TOKEN_ADDRESSES);
        let made = Some(now.running);
        let invite = Invite { secret: secret.clone(), roles, created, expires, used_by: None, made };
        self.invites.insert(id, invite);
        Ok(InviteToken { household, issuer, addresses, id, secret, expires, roles })
    }

    /// Redeems an invite for the key in `binding`. The same key may do so again and gets the
    /// same answer, also after the end of the invite: its first answer may have been lost.
    ///
    /// # Errors
    /// [`RedeemError`]; nothing has changed then.
    pub fn redeem(
        &mut self,
        now: Moment,
        id: TokenId,
        binding: &Binding,
        proof: &[u8],
    ) -> Result<Grant, RedeemError> {
        let invite = self.invites.get_mut(&id).ok_or(RedeemError::Unknown)?;
        // Who cannot prove the secret learns nothing but that.
        if !binding.verify(invite, id, proof) {
            return Err(RedeemError::BadProof);
        }
        let roles = invite.roles;
        match invite.used_by {
            Some(user) if user == binding.joiner => Ok(Grant { roles, save: false }),
            Some(_) => Err(RedeemError::AlreadyUsed),
            None if invite.is_over(now) => Err(RedeemError::Expired),
            None => {
                invite.used_by = Some(binding.joiner);
                Ok(Grant { roles, save: true })
            }
        }
    }

    /// Takes an open invite back.
    ///
    /// # Errors
    /// [`InviteError::NoSuch`] when it is unknown or used.
    pub fn revoke(&mut self, id: TokenId) -> Result<(), InviteError> {
        match self.invites.get(&id) {
            Some(invite) if invite.used_by.is_none() => {
                self.invites.remove(&id);
                Ok(())
            }
            _ => Err(InviteError::NoSuch),
        }
    }

    /// All invites that are remembered, in the order of their ends.
    pub fn list(&self) -> Vec<InviteInfo> {
        let info = |(id, invite): (&TokenId, &Invite)| InviteInfo {
            id: *id,
            expires: invite.expires,
            roles: invite.roles,
            used_by: invite.used_by,
        };
        let mut all: Vec<InviteInfo> = self.invites.iter().map(info).collect();
        all.sort_by_key(|invite| (invite.expires, invite.id));
        all
    }

    /// Forgets what ended long ago, and the oldest of what ended if there is too much of it.
    pub fn forget(&mut self, now: Moment) {
        self.invites.retain(|_, invite| invite.over_for(now) < MEMORY);
        let mut closed: Vec<(u64, TokenId)> = self
            .invites
            .iter()
            .filter(|(_, invite)| invite.used_by.is_some() || invite.is_over(now))
            .map(|(id, invite)| (invite.expires, *id))
            .collect();
        closed.sort_unstable();
        let excess = closed.len().saturating_sub(MAX_CLOSED);
        for (_, id) in closed.into_iter().take(excess) {
            self.invites.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const NOW: u64 = 1_800_000_000;

    /// So many seconds after the first moment, with nobody setting a clock.
    fn at(seconds: u64) -> Moment {
        Moment { unix: NOW + seconds, running: 7 + seconds }
    }

    fn binding(joiner: u8) -> Binding {
        Binding {
            exporter: [9; 32],
            joiner: NodeId::from_bytes([joiner; 32]),
            issuer: NodeId::from_bytes([2; 32]),
            household: HouseholdId::from_bytes([1; 32]),
        }
    }

    fn create(book: &mut InviteBook, ttl: u64) -> Result<InviteToken, InviteError> {
        book.create(at(0), ttl, 1, HouseholdId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]), vec![])
    }

    #[test]
    fn one_key_redeems_and_may_retry_another_may_not() {
        let mut book = InviteBook::default();
        let token = create(&mut book, 900).unwrap();
        let (first, second) = (binding(10), binding(11));
        let grant = book.redeem(at(0), token.id, &first, &first.prove(&token)).unwrap();
        assert_eq!(grant, Grant { roles: 1, save: true });
        // A retry may come from another session, and late.
        let again = Binding { exporter: [8; 32], ..first.clone() };
        let grant = book.redeem(at(2_000), token.id, &again, &again.prove(&token)).unwrap();
        assert_eq!(grant, Grant { roles: 1, save: false });
        let refused = book.redeem(at(0), token.id, &second, &second.prove(&token));
        assert_eq!(refused, Err(RedeemError::AlreadyUsed));
        let mut restarted = InviteBook::from_bytes(&book.to_bytes()).unwrap();
        let refused = restarted.redeem(at(0), token.id, &second, &second.prove(&token));
        assert_eq!(refused, Err(RedeemError::AlreadyUsed));
        assert_eq!(restarted.list(), book.list());
    }

    #[test]
    fn a_proof_holds_for_its_session_keys_household_and_roles_only() {
        let mut book = InviteBook::default();
        let token = create(&mut book, 900).unwrap();
        let right = binding(10);
        let proof = right.prove(&token);
        for wrong in [
            Binding { exporter: [8; 32], ..right.clone() },
            Binding { joiner: NodeId::from_bytes([11; 32]), ..right.clone() },
            Binding { issuer: NodeId::from_bytes([3; 32]), ..right.clone() },
            Binding { household: HouseholdId::from_bytes([3; 32]), ..right.clone() },
        ] {
            assert_eq!(book.redeem(at(0), token.id, &wrong, &proof), Err(RedeemError::BadProof));
        }
        let more = InviteToken { roles: 255, ..token.clone() };
        assert_eq!(book.redeem(at(0), token.id, &right, &right.prove(&more)), Err(RedeemError::BadProof));
        assert_eq!(book.redeem(at(0), token.id, &right, &proof[..31]), Err(RedeemError::BadProof));
        assert_eq!(book.redeem(at(0), TokenId([0; 16]), &right, &proof), Err(RedeemError::Unknown));
        assert!(book.redeem(at(0), token.id, &right, &proof).is_ok());
    }

    #[test]
    fn invites_end_and_are_forgotten() {
        let mut book = InviteBook::default();
        let token = create(&mut book, 900).unwrap();
        let binding = binding(10);
        let proof = binding.prove(&token);
        assert_eq!(book.redeem(at(900), token.id, &binding, &proof), Err(RedeemError::Expired));
        book.forget(at(900 + MEMORY));
        assert_eq!(book.redeem(at(0), token.id, &binding, &proof), Err(RedeemError::Unknown));
        assert!(matches!(create(&mut book, 0), Err(InviteError::Ttl)));
        assert!(matches!(create(&mut book, MAX_TTL + 1), Err(InviteError::Ttl)));
    }

    #[test]
    fn a_clock_that_is_set_neither_ends_an_invite_nor_makes_it_live_on() {
        const YEAR: u64 = 365 * 24 * 3_600;
        let (binding, household) = (binding(10), HouseholdId::from_bytes([1; 32]));
        let made = |unix| {
            let mut book = InviteBook::default();
            let now = Moment { unix, running: 100 };
            let token = book.create(now, 900, 1, household, NodeId::from_bytes([2; 32]), vec![]).unwrap();
            (book, token)
        };
        let use_it = |book: &InviteBook, token: &InviteToken, now| {
            let mut book = book.clone();
            book.forget(now);
            book.redeem(now, token.id, &binding, &binding.prove(token)).map(|grant| grant.save)
        };
        // Made in 1970, and a year ahead; then the right time comes.
        for wrong in [5, NOW + YEAR] {
            let (book, token) = made(wrong);
            let right = |running| Moment { unix: NOW + running, running: 100 + running };
            assert_eq!(use_it(&book, &token, right(899)), Ok(true), "made at {wrong}");
            assert_eq!(use_it(&book, &token, right(900)), Err(RedeemError::Expired), "made at {wrong}");
            // After a restart the wall clock is all there is, and what it shows cannot be true.
            let book = InviteBook::from_bytes(&book.to_bytes()).unwrap();
            let refused = use_it(&book, &token, Moment { unix: NOW, running: 1 });
            assert!(refused.is_err(), "made at {wrong}: {refused:?}");
        }
        let (book, token) = made(NOW);
        let restarted = InviteBook::from_bytes(&book.to_bytes()).unwrap();
        let after = |unix| Moment { unix, running: 1 };
        assert_eq!(use_it(&restarted, &token, after(NOW + 899)), Ok(true));
        assert_eq!(use_it(&restarted, &token, after(NOW - 30)), Ok(true), "set right by a little");
        assert_eq!(use_it(&restarted, &token, after(NOW + 900)), Err(RedeemError::Expired));
        assert_eq!(use_it(&restarted, &token, after(NOW - 61)), Err(RedeemError::Expired));
    }

    #[test]
    fn the_book_of_the_version_before_is_read() {
        #[derive(Serialize)]
        struct Old(Secret, u8, u64, Option<NodeId>);
        let old = BTreeMap::from([(TokenId([3; 16]), Old(Secret([4; 32]), 1, NOW + 900, None))]);
        let bytes = [[1].as_slice(), &postcard::to_allocvec(&old).unwrap()].concat();
        let book = InviteBook::from_bytes(&bytes).unwrap();
        let expected = InviteInfo { id: TokenId([3; 16]), expires: NOW + 900, roles: 1, used_by: None };
        assert_eq!(book.list(), [expected]);
        assert!(!book.invites[&TokenId([3; 16])].is_over(at(0)));
    }

    #[test]
    fn the_number_of_invites_is_bounded() {
        let mut book = InviteBook::default();
        let first = create(&mut book, 900).unwrap();
        for _ in 1..MAX_OPEN {
            create(&mut book, 900).unwrap();
        }
        assert!(matches!(create(&mut book, 900), Err(InviteError::TooMany)));
        book.revoke(first.id).unwrap();
        assert!(matches!(book.revoke(first.id), Err(InviteError::NoSuch)));
        create(&mut book, 900).unwrap();
        for round in 0..400_u64 {
            let mut book_at = |now| {
                book.create(now, 1, 1, HouseholdId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]), vec![])
            };
            book_at(at(1_000 + round * 2)).unwrap();
        }
        assert!(book.list().len() <= MAX_CLOSED + MAX_OPEN);
    }

    #[test]
    fn damaged_books_are_refused() {
        let mut book = InviteBook::default();
        create(&mut book, 900).unwrap();
        let bytes = book.to_bytes();
        assert!(InviteBook::from_bytes(&[]).is_err());
        assert!(InviteBook::from_bytes(&bytes[..bytes.len() - 5]).is_err());
        assert!(InviteBook::from_bytes(&[3, 0]).is_err());
    }
}
