//! Membership: a set of signed statements that only grows.
//!
//! The household's root key signs who is first; admins sign who follows and who is out. Every
//! issuer chains its own statements by sequence number and hash, so that none can be left out or
//! slipped in. Who is a member is a pure function of the set of statements (the rule is in
//! `evaluate.rs`), hence the same on every node that holds the same set, whatever came first.

mod error;
mod evaluate;
mod removal;
mod statement;
#[cfg(test)]
mod tests;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use ed25519_dalek::SigningKey;

pub use self::error::RosterError;
use self::evaluate::Verdict;
pub use self::statement::{
    Body, Hash, MAX_NODE_NAME_BYTES, MAX_PER_ISSUER, MAX_STATEMENT_BYTES, NodeName, Roles, Statement,
};
use crate::id::{HouseholdId, NodeId, ShortId};

/// A roster holds this many statements; of keys that the root itself admitted, more.
pub const MAX_STATEMENTS: usize = 4_096;
/// This many statements wait for one that comes before them.
pub const MAX_PENDING: usize = 256;
/// Of those, this many by keys that no admission covers yet.
pub const MAX_PENDING_STRANGERS: usize = 64;
/// Largest proof of a node's admission, in bytes, as an introduction carries it.
pub const MAX_PROOF_BYTES: usize = 64 * 1024;

const FILE_VERSION: u8 = 1;

/// A key that counts in the household.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The key.
    pub id: NodeId,
    /// Its short name.
    pub short: ShortId,
    /// What it may do: all that its admissions gave it.
    pub roles: Roles,
    /// What it was called when admitted, by the admission with the lowest hash.
    pub name: NodeName,
    /// Who signed that admission: a node, the recovery key or the root.
    pub admitted_by: NodeId,
}

impl Member {
    fn new(id: NodeId, roles: Roles, name: NodeName, admitted_by: NodeId) -> Self {
        Self { id, short: id.short(), roles, name, admitted_by }
    }

    /// Takes in another admission of the same key.
    fn merge(&mut self, hash: &mut Hash, other_hash: Hash, other: &Self) {
        let roles = self.roles | other.roles;
        if other_hash < *hash {
            *hash = other_hash;
            self.clone_from(other);
        }
        self.roles = roles;
    }
}

/// What became of a statement that is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It was taken; pass it on. It may have released others that were pending.
    New,
    /// It was here already.
    Known,
    /// It waits for the statement before it and counts for nothing yet.
    Pending,
}

/// The statements a node holds, and what they amount to.
#[derive(Clone)]
pub struct Roster {
    household: HouseholdId,
    /// In an order in which each follows what it depends on.
    log: Vec<Statement>,
    by_hash: BTreeMap<Hash, usize>,
    /// Stored statements per issuer.
    count: BTreeMap<NodeId, u32>,
    /// Keys that some stored statement admits, and with what roles, whatever was revoked since: who may
    /// have its statements stored. It only grows, so that what is stored never depends on the order.
    ever: BTreeMap<NodeId, Roles>,
    pending: BTreeMap<Hash, Statement>,
    forks: BTreeSet<(NodeId, u32)>,
    verdict: Verdict,
    hash: Hash,
    #[cfg(feature = "planted-bugs")]
    planted_unchained: bool,
}

impl Roster {
    /// Founds a household: the root key admits the founder as admin and, where given, the recovery
    /// key. The caller throws the root key away.
    ///
    /// # Errors
    /// `Name` for a name that breaks its rule, `Body` when a key is the root itself.
    pub fn found(
        root: &SigningKey,
        founder: NodeId,
        name: &str,
        recovery: Option<NodeId>,
    ) -> Result<Self, RosterError> {
        let mut roster = Self::empty(HouseholdId::from_bytes(root.verifying_key().to_bytes()));
        let (name, roles) = (NodeName::new(name)?, Roles::MEMBER | Roles::ADMIN);
        roster.issue(root, Body::Admit { node: founder, roles, name, token: None })?;
        if let Some(node) = recovery {
            let name = NodeName::new("recovery key")?;
            roster.issue(root, Body::Admit { node, roles: Roles::RECOVERY, name, token: None })?;
        }
        Ok(roster)
    }

    /// A household of which nothing is known yet: a joiner starts here.
    pub fn empty(household: HouseholdId) -> Self {
        Self {
            household,
            log: Vec::new(),
            by_hash: BTreeMap::new(),
            count: BTreeMap::new(),
            ever: BTreeMap::new(),
            pending: BTreeMap::new(),
            forks: BTreeSet::new(),
            verdict: Verdict::default(),
            hash: statement::digest(&BTreeMap::new()),
            #[cfg(feature = "planted-bugs")]
            planted_unchained: false,
        }
    }

    /// Takes in one encoded statement.
    ///
    /// # Errors
    /// See [`RosterError`]; after `Forked` and `ShortIdTaken` the statement is kept and is to be passed on.
    pub fn insert(&mut self, bytes: &[u8]) -> Result<Inserted, RosterError> {
        let statement = Statement::decode(self.household, bytes)?;
        let known = self.log.len();
        let result = self.take(statement);
        if self.log.len() != known {
            self.refresh();
        }
        result
    }

    /// Signs the next statement of this key's chain and takes it in.
    ///
    /// # Errors
    /// As [`Roster::sign`].
    pub fn issue(&mut self, key: &SigningKey, body: Body) -> Result<Statement, RosterError> {
        let statement = self.sign(key, body)?;
        self.store(statement.clone());
        self.refresh();
        Ok(statement)
    }

    /// Signs the next statement of this key's chain without taking it in: a node makes it durable
    /// (see [`Roster::to_bytes_with`]) before it counts, or a power cut would let it sign another for the same place.
    ///
    /// # Errors
    /// `NotAuthorised` when the key may not say this now, `ShortIdTaken`, `TooManyOfIssuer`, `Full`, `Body`.
    pub fn sign(&self, key: &SigningKey, body: Body) -> Result<Statement, RosterError> {
        let issuer = NodeId::from_bytes(key.verifying_key().to_bytes());
        let may = match &body {
            Body::Leave => self.verdict.keys.contains_key(&issuer),
            _ => issuer == self.root() || self.roles(&issuer).may_issue(),
        };
        if !may {
            return Err(RosterError::NotAuthorised { issuer });
        }
        if let Some(short) = self.collision(&body) {
            return Err(RosterError::ShortIdTaken { short });
        }
        let (seq, prev) = self.last(&issuer).map_or((0, Hash::default()), |s| (s.seq() + 1, s.hash()));
        if seq >= MAX_PER_ISSUER {
            return Err(RosterError::TooManyOfIssuer { issuer });
        }
        let statement = Statement::sign(self.household, key, seq, prev, body)?;
        self.check_room(&statement)?;
        Ok(statement)
    }

    /// The household.
    pub fn household(&self) -> HouseholdId {
        self.household
    }

    /// The nodes that are in, by key: admitted as member, not revoked, not left.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.verdict.keys.values().filter(|member| member.roles.contains(Roles::MEMBER))
    }

    /// Whether this node is in.
    pub fn is_admitted(&self, node: &NodeId) -> bool {
        self.roles(node).contains(Roles::MEMBER)
    }

    /// What this key may do now; nothing when it is unknown, revoked or left.
    pub fn roles(&self, key: &NodeId) -> Roles {
        self.verdict.keys.get(key).map_or(Roles::NONE, |member| member.roles)
    }

    /// The node with this short name, of those that are in.
    pub fn by_short(&self, short: ShortId) -> Option<NodeId> {
        self.verdict.by_short.get(&short).copied()
    }

    /// Whether a revocation that is in effect names this key.
    pub fn is_revoked(&self, key: &NodeId) -> bool {
        self.verdict.revoked.contains_key(key)
    }

    /// The keys that revocations in effect name.
    pub fn revoked(&self) -> impl Iterator<Item = &NodeId> {
        self.verdict.revoked.keys()
    }

    /// Issuers that signed two statements for one place, with the number: somebody has to be told.
    pub fn forks(&self) -> impl Iterator<Item = (NodeId, u32)> {
        self.forks.iter().copied()
    }

    /// The hash of the set of statements, pending ones left out: equal on two nodes exactly when the sets are.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The number of statements held, pending ones left out.
    pub fn len(&self) -> usize {
        self.log.len()
    }

    /// Whether nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// The number of statements that wait for others.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// All statements, encoded, each after everything it depends on: whoever inserts them in
    /// this order never has one pending.
    pub fn statements(&self) -> impl Iterator<Item = &[u8]> {
        self.log.iter().map(Statement::bytes)
    }

    /// The statement with this hash.
    pub fn statement(&self, hash: &Hash) -> Option<&Statement> {
        self.by_hash.get(hash).and_then(|at| self.log.get(*at))
    }

    /// The number the issuer's next statement will have.
    pub fn next_seq(&self, issuer: &NodeId) -> u32 {
        self.last(issuer).map_or(0, |statement| statement.seq() + 1)
    }

    /// The last statement of this issuer that counts in its chain, as a revocation's `honour` takes it.
    pub fn last_of(&self, issuer: &NodeId) -> Option<(u32, Hash)> {
        self.last(issuer).map(|statement| (statement.seq(), statement.hash()))
    }

    /// The admission that redeemed this invite, if one did: a retry gets the same statement again.
    pub fn redeemed(&self, token: &[u8; 16]) -> Option<&Statement> {
        self.log.iter().find(|s| matches!(s.body(), Body::Admit { token: Some(t), .. } if t == token))
    }

    /// The statements that admit this key, in the order to insert them: empty when it is not in, or
    /// when they exceed [`MAX_PROOF_BYTES`] (then send [`Roster::statements`] piece by piece).
    pub fn proof_for(&self, node: &NodeId) -> Vec<Vec<u8>> {
        let Some(member) = self.verdict.keys.get(node) else { return Vec::new() };
        let mut needed = BTreeSet::new();
        let mut proven = BTreeSet::from([self.root()]);
        let signed = |s: &&Statement| s.issuer() == member.admitted_by && s.admits(node).is_some();
        let mut wanted = self.log.iter().find(signed);
        // An admission rests only on what stands before it in the log, so this ends at the root.
        while let Some(admission) = wanted.take() {
            let mut at = Some(admission);
            while let Some(statement) = at.filter(|s| needed.insert(s.hash())) {
                at = self.statement(&statement.prev());
            }
            let issuer = admission.issuer();
            if proven.insert(issuer) {
                wanted = self.log.iter().find(|s| s.admits(&issuer).is_some_and(Roles::may_issue));
            }
        }
        let proof: Vec<&[u8]> =
            self.log.iter().filter(|s| needed.contains(&s.hash())).map(Statement::bytes).collect();
        let size: usize = proof.iter().map(|bytes| bytes.len()).sum();
        if size > MAX_PROOF_BYTES { Vec::new() } else { proof.into_iter().map(<[u8]>::to_vec).collect() }
    }

    /// The roster for a file: version, household, then each statement behind its length (16 bits, big-endian).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::from([FILE_VERSION]);
        out.extend_from_slice(self.household.as_bytes());
        self.statements().for_each(|bytes| statement::append(&mut out, bytes));
        out
    }

    /// The roster for a file as [`Roster::to_bytes`] makes it, with one more statement, just signed.
    pub fn to_bytes_with(&self, next: &Statement) -> Vec<u8> {
        let mut out = self.to_bytes();
        statement::append(&mut out, next.bytes());
        out
    }

    /// Reads what [`Roster::to_bytes`] wrote. Every signature is checked again.
    ///
    /// # Errors
    /// `UnknownVersion`, `Malformed` for a cut or damaged file, and all that `insert` finds wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RosterError> {
        let (version, rest) = bytes.split_first().ok_or(RosterError::Malformed)?;
        if *version != FILE_VERSION {
            return Err(RosterError::UnknownVersion(*version));
        }
        let (household, mut rest) = rest.split_first_chunk::<32>().ok_or(RosterError::Malformed)?;
        let mut roster = Self::empty(HouseholdId::from_bytes(*household));
        while !rest.is_empty() {
            let (size, after) = rest.split_first_chunk::<2>().ok_or(RosterError::Malformed)?;
            let size = usize::from(u16::from_be_bytes(*size));
            let (statement, after) = after.split_at_checked(size).ok_or(RosterError::Malformed)?;
            match roster.take(Statement::decode(roster.household, statement)?) {
                Ok(Inserted::New) | Err(RosterError::Forked { .. } | RosterError::ShortIdTaken { .. }) => {}
                Ok(Inserted::Known | Inserted::Pending) => return Err(RosterError::Malformed),
                Err(error) => return Err(error),
            }
            rest = after;
        }
        roster.refresh();
        Ok(roster)
    }

    /// Plants a bug for the simulation to catch: statements count without the check of their chain.
    #[cfg(feature = "planted-bugs")]
    pub fn set_planted_unchained(&mut self, on: bool) {
        self.planted_unchained = on;
        self.refresh();
    }

    fn root(&self) -> NodeId {
        NodeId::from_bytes(*self.household.as_bytes())
    }

    /// Stores a statement and whatever waited for it, or puts it aside. Leaves the verdict to the caller.
    fn take(&mut self, statement: Statement) -> Result<Inserted, RosterError> {
        if self.by_hash.contains_key(&statement.hash()) {
            return Ok(Inserted::Known);
        }
        let (issuer, authorised) = (statement.issuer(), self.may_be_stored(&statement));
        if !self.pending.contains_key(&statement.hash()) {
            statement.verify(self.household)?;
        }
        self.check_room(&statement)?;
        let chained = self.continues(&statement)?;
        if authorised && chained {
            return self.take_with_followers(statement);
        }
        let stranger = !authorised;
        let fits =
            self.pending.len() < MAX_PENDING && (!stranger || self.strangers() < MAX_PENDING_STRANGERS);
        let held = self.pending.contains_key(&statement.hash());
        if fits {
            self.pending.insert(statement.hash(), statement);
        }
        match (chained, fits || held) {
            (true, _) => Err(RosterError::NotAuthorised { issuer }),
            // Said once: whoever is told of it as news passes it on.
            (false, _) if held => Ok(Inserted::Known),
            (false, true) => Ok(Inserted::Pending),
            (false, false) => Err(RosterError::PendingFull),
        }
    }

    fn take_with_followers(&mut self, statement: Statement) -> Result<Inserted, RosterError> {
        let (issuer, seq, hash, prev) =
            (statement.issuer(), statement.seq(), statement.hash(), statement.prev());
        let rival =
            |s: &Statement| s.issuer() == issuer && s.seq() == seq && s.hash() != hash && s.prev() == prev;
        let forked = self.log.iter().any(rival);
        let collision = self.collision(statement.body());
        self.pending.remove(&hash);
        self.store(statement);
        loop {
            let ready = |s: &&Statement| {
                self.may_be_stored(s) && self.check_room(s).is_ok() && self.continues(s) == Ok(true)
            };
            let Some(next) = self.pending.values().find(ready).map(Statement::hash) else { break };
            if let Some(statement) = self.pending.remove(&next) {
                self.store(statement);
            }
        }
        match collision {
            _ if forked => Err(RosterError::Forked { issuer, seq }),
            Some(short) => Err(RosterError::ShortIdTaken { short }),
            None => Ok(Inserted::New),
        }
    }

    fn store(&mut self, statement: Statement) {
        let (issuer, prev) = (statement.issuer(), statement.prev());
        if self.log.iter().any(|s| s.issuer() == issuer && s.prev() == prev) {
            self.forks.insert((issuer, statement.seq()));
        }
        if let Body::Admit { node, roles, .. } = statement.body() {
            let ever = self.ever.entry(*node).or_default();
            *ever = *ever | *roles;
        }
        *self.count.entry(issuer).or_default() += 1;
        self.by_hash.insert(statement.hash(), self.log.len());
        self.log.push(statement);
    }

    fn refresh(&mut self) {
        self.hash = statement::digest(&self.by_hash);
        self.verdict = evaluate::evaluate(
            self.root(),
            &self.log,
            #[cfg(feature = "planted-bugs")]
            !self.planted_unchained,
        );
    }

    /// Whether any admission, revoked since or not, gives the issuer the right to say this.
    fn may_be_stored(&self, statement: &Statement) -> bool {
        let issuer = statement.issuer();
        let ever = self.ever.get(&issuer).copied().unwrap_or_default();
        issuer == self.root() || ever.may_issue() || (*statement.body() == Body::Leave && ever != Roles::NONE)
    }

    /// Whether the statement before it is stored.
    fn continues(&self, statement: &Statement) -> Result<bool, RosterError> {
        #[cfg(feature = "planted-bugs")]
        if self.planted_unchained {
            return Ok(true);
        }
        let (issuer, seq) = (statement.issuer(), statement.seq());
        match self.statement(&statement.prev()) {
            Some(prev) if prev.issuer() == issuer && prev.seq().checked_add(1) == Some(seq) => Ok(true),
            Some(_) => Err(RosterError::BrokenChain { issuer, seq }),
            None => Ok(seq == 0),
        }
    }

    fn check_room(&self, statement: &Statement) -> Result<(), RosterError> {
        let issuer = statement.issuer();
        if self.count.get(&issuer).is_some_and(|count| *count >= MAX_PER_ISSUER) {
            return Err(RosterError::TooManyOfIssuer { issuer });
        }
        let has_room = self.log.len() < MAX_STATEMENTS || self.is_rooted(&issuer);
        if has_room { Ok(()) } else { Err(RosterError::Full) }
    }

    /// Whether this is the root or one whom the root itself admitted, the founder or the recovery
    /// key: an admin of ill will cannot fill the roster so that they cannot revoke it any more.
    fn is_rooted(&self, issuer: &NodeId) -> bool {
        let root = self.root();
        let mut by_root = self.log.iter().filter(|s| s.issuer() == root);
        *issuer == root || by_root.any(|s| s.admits(issuer).is_some_and(Roles::may_issue))
    }

    fn strangers(&self) -> usize {
        self.pending.values().filter(|statement| !self.may_be_stored(statement)).count()
    }

    /// The short name this admission would share with another key that was admitted.
    fn collision(&self, body: &Body) -> Option<ShortId> {
        let Body::Admit { node, .. } = body else { return None };
        let taken = self.ever.keys().any(|other| other != node && other.short() == node.short());
        taken.then(|| node.short())
    }

    /// The end of the issuer's chain, along the branch that counts at a fork.
    fn last(&self, issuer: &NodeId) -> Option<&Statement> {
        evaluate::last(&self.log, issuer)
    }
}

/// Holds public keys and names only, but a roster in a log would be pages of them.
impl core::fmt::Debug for Roster {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Roster({:?}, {} statements, {} members)",
            self.household,
            self.log.len(),
            self.members().count()
        )
    }
}
