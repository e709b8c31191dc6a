//! Secrets of adapters inside the replicated objects: each sealed for one node, readable by that node alone.
//!
//! A sealed secret is an ephemeral X25519 key (RFC 7748) and a ChaCha20-Poly1305 box (RFC 8439) under a key that
//! HKDF-SHA256 (RFC 5869) makes of the shared secret. The key of a node is its Ed25519 identity on the other form of the
//! same curve. What the secret is for is authenticated with it, so that a box put elsewhere does not open.

use std::collections::BTreeMap;

use curve25519_dalek::{MontgomeryPoint, traits::IsIdentity as _};
use ed25519_dalek::{SigningKey, VerifyingKey};
use mesh_proto::{NodeId, ShortId};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral},
    hkdf::{HKDF_SHA256, Salt},
    rand::SystemRandom,
};
use thiserror::Error;
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Bytes of a public key at the start of a box.
const KEY_BYTES: usize = 32;
/// The longest secret, in bytes.
pub(super) const MAX_SECRET: usize = 2_048;

/// Why a secret cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum SealError {
    /// It is empty or too long.
    #[error("a secret has 1 to {MAX_SECRET} bytes")]
    Length,
    /// The key of a node cannot be used for this.
    #[error("the key of a node is not sound")]
    Key,
    /// The system gives no randomness.
    #[error("the system has no randomness")]
    Random,
}

/// Opens what was sealed for this node, and seals for the others.
pub struct Vault {
    key: SigningKey,
    members: watch::Receiver<std::collections::BTreeSet<NodeId>>,
}

impl Vault {
    /// With this node's key, for the nodes that are admitted.
    pub fn new(key: SigningKey, members: watch::Receiver<std::collections::BTreeSet<NodeId>>) -> Self {
        Self { key, members }
    }

    /// The nodes that secrets are sealed for; this one is always among them.
    pub(super) fn members(&self) -> BTreeMap<ShortId, NodeId> {
        let mut members: BTreeMap<ShortId, NodeId> =
            self.members.borrow().iter().map(|id| (id.short(), *id)).collect();
        let me = NodeId::from_bytes(self.key.verifying_key().to_bytes());
        members.insert(me.short(), me);
        members
    }

    /// Seals a secret for one node. `context` says what it is for.
    pub(super) fn seal(to: &NodeId, context: &str, secret: &str) -> Result<Vec<u8>, SealError> {
        if secret.is_empty() || secret.len() > MAX_SECRET {
            return Err(SealError::Length);
        }
        let recipient = VerifyingKey::from_bytes(to.as_bytes()).map_err(|_| SealError::Key)?.to_montgomery();
        let random = SystemRandom::new();
        let ephemeral = EphemeralPrivateKey::generate(&X25519, &random).map_err(|_| SealError::Random)?;
        let public = ephemeral.compute_public_key().map_err(|_| SealError::Random)?;
        let peer = UnparsedPublicKey::new(&X25519, recipient.to_bytes());
        let key = agree_ephemeral(ephemeral, &peer, |shared| box_key(shared, public.as_ref(), to));
        let key = key.ok().flatten().ok_or(SealError::Key)?;
        let mut sealed = secret.as_bytes().to_vec();
        key.seal_in_place_append_tag(nonce(), Aad::from(context), &mut sealed).map_err(|_| SealError::Key)?;
        Ok([public.as_ref(), &sealed].concat())
    }

    /// Opens what was sealed for this node and this context; none for anything else.
    pub(super) fn open(&self, context: &str, sealed: &[u8]) -> Option<Zeroizing<String>> {
        let (public, sealed) = sealed.split_first_chunk::<KEY_BYTES>()?;
        let scalar = Zeroizing::new(self.key.to_scalar_bytes());
        let shared = MontgomeryPoint(*public).mul_clamped(*scalar);
        if shared.is_identity() {
            return None;
        }
        let me = NodeId::from_bytes(self.key.verifying_key().to_bytes());
        let key = box_key(shared.as_bytes(), public, &me)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let plain = key.open_in_place(nonce(), Aad::from(context), &mut sealed).ok()?;
        std::str::from_utf8(plain).ok().map(|text| Zeroizing::new(text.to_owned()))
    }
}

/// Each key seals one box, so the nonce may be the same for all.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn box_key(shared: &[u8], public: &[u8], recipient: &NodeId) -> Option<LessSafeKey> {
    let salt = [public, recipient.as_bytes().as_slice()].concat();
    let extracted = Salt::new(HKDF_SHA256, &salt).extract(shared);
    let expanded = extracted.expand(&[b"hearth sealed secret v1"], &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(expanded)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    fn vault(seed: u8) -> (Vault, NodeId) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let id = NodeId::from_bytes(key.verifying_key().to_bytes());
        (Vault::new(key, watch::channel(BTreeSet::new()).1), id)
    }

    #[test]
    fn a_secret_opens_for_its_node_and_its_purpose_alone() {
        let ((mine, me), (other, _)) = (vault(1), vault(2));
        let sealed = Vault::seal(&me, "adapter/mqtt password", "hunter2").unwrap();
        assert_eq!(mine.open("adapter/mqtt password", &sealed).unwrap().as_str(), "hunter2");
        assert!(mine.open("adapter/mqtt username", &sealed).is_none());
        assert!(other.open("adapter/mqtt password", &sealed).is_none());
        let again = Vault::seal(&me, "adapter/mqtt password", "hunter2").unwrap();
        assert_ne!(sealed, again, "the same secret twice looks different");
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
    }

    #[test]
    fn what_was_changed_or_made_up_does_not_open() {
        let (mine, me) = vault(1);
        let sealed = Vault::seal(&me, "x", "secret").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            // The highest bit of the public key does not count (RFC 7748, section 5), but is authenticated here.
            assert!(mine.open("x", &changed).is_none(), "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(mine.open("x", &sealed[..length]).is_none());
        }
        assert!(mine.open("x", &[0; 100]).is_none(), "a point of small order");
    }

    #[test]
    fn a_secret_has_a_length() {
        let (_, me) = vault(1);
        assert_eq!(Vault::seal(&me, "x", ""), Err(SealError::Length));
        assert_eq!(Vault::seal(&me, "x", &"s".repeat(MAX_SECRET + 1)), Err(SealError::Length));
        assert!(Vault::seal(&me, "x", &"s".repeat(MAX_SECRET)).is_ok());
        let unsound = NodeId::from_bytes([2; 32]);
        assert_eq!(Vault::seal(&unsound, "x", "s").is_err(), VerifyingKey::from_bytes(&[2; 32]).is_err());
    }
}
