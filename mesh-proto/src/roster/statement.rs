//! One signed statement: its bytes, its hash and its signature.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};
use core::{fmt, ops::BitOr};

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::RosterError;
use crate::id::{HouseholdId, NodeId};

/// Largest encoded statement, in bytes, its signature included.
pub const MAX_STATEMENT_BYTES: usize = 512;
/// Longest name given to a node at its admission, in bytes.
pub const MAX_NODE_NAME_BYTES: usize = 64;
/// A statement's chain may hold this many: its sequence number stays below.
pub const MAX_PER_ISSUER: u32 = 1_024;

const SIGNATURE_BYTES: usize = 64;
const CONTEXT: &[u8] = b"hearth roster v1";

/// The blake3 hash of a statement's bytes, signature included.
pub type Hash = [u8; 32];

/// What a key may do: a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Roles(pub(super) u8);

impl Roles {
    /// May do nothing.
    pub const NONE: Self = Self(0);
    /// Runs a node that holds the household's objects.
    pub const MEMBER: Self = Self(1);
    /// May admit and revoke.
    pub const ADMIN: Self = Self(2);
    /// The printed key: may admit and revoke, runs no node.
    pub const RECOVERY: Self = Self(4);

    /// These roles and those.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits, as frames and invites carry them.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The roles among these bits; bits without a meaning are left out.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & (Self::MEMBER.0 | Self::ADMIN.0 | Self::RECOVERY.0))
    }

    /// Whether every role of `other` is among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether these roles allow to admit and revoke.
    pub const fn may_issue(self) -> bool {
        self.0 & (Self::ADMIN.0 | Self::RECOVERY.0) != 0
    }
}

impl BitOr for Roles {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(Self::MEMBER, "member"), (Self::ADMIN, "admin"), (Self::RECOVERY, "recovery")];
        f.debug_set().entries(names.iter().filter(|(role, _)| self.contains(*role)).map(|(_, n)| n)).finish()
    }
}

impl Serialize for Roles {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for Roles {
    /// Refuses no role at all, and roles of which this version does not know the power.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u8::deserialize(from)? {
            bits @ 1..=7 => Ok(Self(bits)),
            _ => Err(D::Error::custom("unknown roles")),
        }
    }
}

/// The name a node is admitted under: 1 to [`MAX_NODE_NAME_BYTES`] bytes, no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`RosterError::Name`] when it is empty, too long, or has control characters.
    pub fn new(text: &str) -> Result<Self, RosterError> {
        let fits = (1..=MAX_NODE_NAME_BYTES).contains(&text.len());
        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text.into()))
        } else {
            Err(RosterError::Name)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(<&str>::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// What a statement says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// A key is admitted.
    Admit {
        /// The key.
        node: NodeId,
        /// What it may do. Several admissions of one key add up.
        roles: Roles,
        /// What people called it then; later names are objects.
        name: NodeName,
        /// The invite that was redeemed, so that a retry finds this statement again.
        token: Option<[u8; 16]>,
    },
    /// A key is out for good.
    Revoke {
        /// The key.
        node: NodeId,
        /// The last statement of that key still honoured, by sequence number and hash; `None`: not one.
        honour: Option<(u32, Hash)>,
    },
    /// The issuer ends its own membership for good; nothing after it in its chain counts.
    Leave,
}

/// The signed part. A new version is a new variant at the end.
#[derive(Serialize, Deserialize)]
enum Content {
    V1(ContentV1),
}

#[derive(Serialize, Deserialize)]
struct ContentV1 {
    /// The household's first bytes: enough to name a stranger's statement; the signature covers all of it.
    household: [u8; 8],
    issuer: NodeId,
    seq: u32,
    prev: Hash,
    body: Body,
}

/// One signed statement of one issuer's chain. Cheap to clone.
#[derive(Clone)]
pub struct Statement {
    issuer: NodeId,
    seq: u32,
    prev: Hash,
    body: Body,
    hash: Hash,
    bytes: Arc<[u8]>,
}

impl Statement {
    /// Signs a statement. The caller keeps the chain: `seq` counts from 0, `prev` is the hash of
    /// the issuer's statement before, zeros for the first.
    ///
    /// # Errors
    /// [`RosterError::Body`] for a body that no roster takes (see [`Statement::decode`]).
    pub fn sign(
        household: HouseholdId,
        key: &SigningKey,
        seq: u32,
        prev: Hash,
        body: Body,
    ) -> Result<Self, RosterError> {
        let issuer = NodeId::from_bytes(key.verifying_key().to_bytes());
        let content = ContentV1 { household: tag(household), issuer, seq, prev, body: body.clone() };
        let mut bytes = postcard::to_allocvec(&Content::V1(content)).map_err(|_| RosterError::Malformed)?;
        let signature = key.sign(&message(household, &bytes));
        bytes.extend_from_slice(&signature.to_bytes());
        let statement =
            Self { issuer, seq, prev, body, hash: *blake3::hash(&bytes).as_bytes(), bytes: bytes.into() };
        statement.check_body(household)?;
        Ok(statement)
    }

    /// Reads a statement of this household. Its signature is not looked at: see [`Statement::verify`].
    ///
    /// # Errors
    /// `TooLarge`, `UnknownVersion`, `Malformed`, `WrongHousehold`, `TooManyOfIssuer`, `Body`.
    pub fn decode(household: HouseholdId, bytes: &[u8]) -> Result<Self, RosterError> {
        if bytes.len() > MAX_STATEMENT_BYTES {
            return Err(RosterError::TooLarge { bytes: bytes.len() });
        }
        let (signed, _) = bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(RosterError::Malformed)?;
        match signed.first() {
            Some(0) => {}
            Some(version) => return Err(RosterError::UnknownVersion(*version)),
            None => return Err(RosterError::Malformed),
        }
        let Content::V1(content) = postcard::from_bytes(signed).map_err(|_| RosterError::Malformed)?;
        if content.household != tag(household) {
            return Err(RosterError::WrongHousehold);
        }
        let ContentV1 { issuer, seq, prev, body, .. } = content;
        let canonical =
            Content::V1(ContentV1 { household: tag(household), issuer, seq, prev, body: body.clone() });
        // One meaning has one encoding, so nobody can wear many hashes with one signature.
        if !postcard::to_allocvec(&canonical).is_ok_and(|again| again == signed) {
            return Err(RosterError::Malformed);
        }
        if (seq == 0) != (prev == Hash::default()) {
            return Err(RosterError::BrokenChain { issuer, seq });
        }
        if seq >= MAX_PER_ISSUER {
            return Err(RosterError::TooManyOfIssuer { issuer });
        }
        let statement =
            Self { issuer, seq, prev, body, hash: *blake3::hash(bytes).as_bytes(), bytes: bytes.into() };
        statement.check_body(household)?;
        Ok(statement)
    }

    /// Checks the signature (RFC 8032, strict: no small-order keys, no malleable signatures).
    ///
    /// # Errors
    /// [`RosterError::BadSignature`].
    pub fn verify(&self, household: HouseholdId) -> Result<(), RosterError> {
        let bad = || RosterError::BadSignature { issuer: self.issuer };
        let (signed, signature) = self.bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or_else(bad)?;
        VerifyingKey::from_bytes(self.issuer.as_bytes())
            .and_then(|key| key.verify_strict(&message(household, signed), &Signature::from_bytes(signature)))
            .map_err(|_| bad())
    }

    /// The key that signed: a node's, the recovery key or the household's root.
    pub fn issuer(&self) -> NodeId {
        self.issuer
    }
    /// Its place in the issuer's chain, from 0.
    pub fn seq(&self) -> u32 {
        self.seq
    }
    /// The hash of the issuer's statement before; zeros for the first.
    pub fn prev(&self) -> Hash {
        self.prev
    }
    /// What it says.
    pub fn body(&self) -> &Body {
        &self.body
    }
    /// The blake3 hash of its bytes.
    pub fn hash(&self) -> Hash {
        self.hash
    }
    /// The encoded statement, at most [`MAX_STATEMENT_BYTES`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The root is the one key that nobody admits or revokes; a key cannot revoke itself.
    fn check_body(&self, household: HouseholdId) -> Result<(), RosterError> {
        let root = NodeId::from_bytes(*household.as_bytes());
        match &self.body {
            Body::Admit { node, .. } if *node == root => Err(RosterError::Body),
            Body::Revoke { node, .. } if *node == root || *node == self.issuer => Err(RosterError::Body),
            Body::Leave if self.issuer == root => Err(RosterError::Body),
            _ => Ok(()),
        }
    }

    /// The roles that it gives to the key.
    pub(super) fn admits(&self, key: &NodeId) -> Option<Roles> {
        match self.body() {
            Body::Admit { node, roles, .. } if node == key => Some(*roles),
            _ => None,
        }
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The invite's id is of no use to a reader of logs.
        write!(f, "{:?}[{}] ", self.issuer, self.seq)?;
        match &self.body {
            Body::Admit { node, roles, .. } => write!(f, "admits {node:?} as {roles:?}"),
            Body::Revoke { node, honour } => {
                write!(f, "revokes {node:?} after {:?}", honour.map(|(seq, _)| seq))
            }
            Body::Leave => f.write_str("leaves"),
        }
    }
}

fn tag(household: HouseholdId) -> [u8; 8] {
    NodeId::from_bytes(*household.as_bytes()).short().0.to_be_bytes()
}

fn message(household: HouseholdId, signed: &[u8]) -> Vec<u8> {
    [CONTEXT, household.as_bytes(), signed].concat()
}

/// The hash of a set of statements.
pub(super) fn digest(by_hash: &BTreeMap<Hash, usize>) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("hearth roster set v1");
    for hash in by_hash.keys() {
        hasher.update(hash);
    }
    *hasher.finalize().as_bytes()
}

/// Appends a statement to a file, behind its length.
pub(super) fn append(file: &mut Vec<u8>, statement: &[u8]) {
    file.extend_from_slice(&u16::try_from(statement.len()).unwrap_or(u16::MAX).to_be_bytes());
    file.extend_from_slice(statement);
}
