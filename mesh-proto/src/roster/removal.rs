//! Who was removed, by whom, and how that is shown to the one who was.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{Body, Hash, MAX_PROOF_BYTES, Roster, Statement};
use crate::id::NodeId;

impl Roster {
    /// What an admin says to remove a key: all that the key said so far stays honoured, whom it
    /// admitted stays in, and nothing that it says from now on counts.
    pub fn removal_of(&self, node: NodeId) -> Body {
        Body::Revoke { node, honour: self.last_of(&node) }
    }

    /// The key whose revocation of this one is in effect; of several the one with the lowest key.
    pub fn revoked_by(&self, key: &NodeId) -> Option<NodeId> {
        let hash = self.verdict.revoked.get(key)?;
        self.statement(hash).map(Statement::issuer)
    }

    /// What this key was called at its admission, whatever became of it since.
    pub fn admitted_name(&self, key: &NodeId) -> Option<&str> {
        self.log.iter().find_map(|statement| match statement.body() {
            Body::Admit { node, name, .. } if node == key => Some(name.as_str()),
            _ => None,
        })
    }

    /// The nodes that are in by the word of this key.
    pub fn admitted_by(&self, key: &NodeId) -> impl Iterator<Item = NodeId> {
        self.members().filter(|member| member.admitted_by == *key).map(|member| member.id)
    }

    /// The statements by which a removed key can see that it is out, in the order to insert them:
    /// the revocation, what comes before it in its issuer's chain, and what admits the issuer. Nothing
    /// that was said later is among them. Empty when the key is not revoked, or when they exceed
    /// [`MAX_PROOF_BYTES`].
    pub fn proof_of_removal(&self, key: &NodeId) -> Vec<Vec<u8>> {
        let Some(revocation) = self.verdict.revoked.get(key).and_then(|hash| self.statement(hash)) else {
            return Vec::new();
        };
        let mut proof = self.proof_for(&revocation.issuer());
        let known: BTreeSet<Hash> = proof.iter().map(|bytes| *blake3::hash(bytes).as_bytes()).collect();
        let mut chain = Vec::new();
        let mut at = Some(revocation);
        while let Some(statement) = at.filter(|statement| !known.contains(&statement.hash())) {
            chain.push(statement.bytes().to_vec());
            at = self.statement(&statement.prev());
        }
        proof.extend(chain.into_iter().rev());
        let size: usize = proof.iter().map(Vec::len).sum();
        if size > MAX_PROOF_BYTES { Vec::new() } else { proof }
    }
}
