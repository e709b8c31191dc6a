//! What others have announced and may be true. Bounded whatever is announced.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use mesh_proto::{NodeId, ShortId};

/// Most announcements that are kept. There is one for each member, but a node that moved may leave
/// an old one behind, and another may use its name.
pub const MOST_INSTANCES: usize = 256;
/// Most announcements that are kept for one node.
const MOST_INSTANCES_OF_ONE: usize = 4;
/// Most addresses that are passed on for one node.
pub const MOST_ADDRESSES: usize = 8;

/// The announcements of members, by the name of the service instance.
#[derive(Debug, Default)]
pub struct Hints {
    instances: BTreeMap<String, (NodeId, BTreeSet<SocketAddr>)>,
    refused: u64,
}

impl Hints {
    /// Takes in that `node` announces itself under a name at these addresses, if it is a member and
    /// the name is its short one, or begins with it as after a conflict of names. Answers with
    /// whether anything changed.
    pub fn heard(
        &mut self,
        name: &str,
        node: ShortId,
        members: &BTreeSet<NodeId>,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> bool {
        let Some(member) = members.iter().find(|member| member.short() == node) else {
            return self.gone(name);
        };
        let (own, label) = (node.to_string(), name.split('.').next().unwrap_or_default());
        if !label.starts_with(&own) {
            self.refused += 1;
            return self.gone(name);
        }
        let addresses: BTreeSet<SocketAddr> = addresses.into_iter().take(MOST_ADDRESSES).collect();
        if addresses.is_empty() {
            return self.gone(name);
        }
        if !self.instances.contains_key(name) {
            let of_this = self.instances.iter().filter(|(_, (of, _))| of == member).map(|(name, _)| name);
            let of_this: Vec<String> = of_this.cloned().collect();
            if of_this.len() >= MOST_INSTANCES_OF_ONE || self.instances.len() >= MOST_INSTANCES {
                self.refused += 1;
                // The name that the node itself uses always has its place.
                match of_this.last() {
                    Some(last) if label == own => self.gone(last),
                    _ => return false,
                };
            }
        }
        let next = (*member, addresses);
        let differs = self.instances.get(name) != Some(&next);
        self.instances.insert(name.to_owned(), next);
        differs
    }

    /// Forgets what was announced under a name. Answers with whether there was anything.
    pub fn gone(&mut self, name: &str) -> bool {
        self.instances.remove(name).is_some()
    }

    /// Forgets whoever is no member any more. Answers with whether there was anybody.
    pub fn keep(&mut self, members: &BTreeSet<NodeId>) -> bool {
        let before = self.instances.len();
        self.instances.retain(|_, (node, _)| members.contains(node));
        self.instances.len() != before
    }

    /// Where each node seems to be; what was announced under its own name comes first.
    pub fn by_node(&self) -> BTreeMap<NodeId, Vec<SocketAddr>> {
        let mut nodes: BTreeMap<NodeId, Vec<SocketAddr>> = BTreeMap::new();
        let is_own = |name: &str, node: &NodeId| name.split('.').next() == Some(&node.short().to_string());
        let (own, other): (Vec<_>, Vec<_>) =
            self.instances.iter().partition(|(name, (node, _))| is_own(name, node));
        for (_, (node, addresses)) in own.into_iter().chain(other) {
            let all = nodes.entry(*node).or_default();
            for address in addresses {
                if all.len() < MOST_ADDRESSES && !all.contains(address) {
                    all.push(*address);
                }
            }
        }
        nodes
    }

    /// Announcements that found no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_member_is_where_it_was_announced_last() {
        let members = BTreeSet::from([node(1), node(2)]);
        let (mut hints, one) = (Hints::default(), node(1).short());
        let name = format!("{one}._hearth._udp.local.");
        assert!(hints.heard(&name, one, &members, [at("10.0.0.1:1")]));
        assert!(!hints.heard(&name, one, &members, [at("10.0.0.1:1")]), "no news");
        assert!(hints.heard(&name, one, &members, [at("10.0.0.9:1")]));
        assert_eq!(hints.by_node(), BTreeMap::from([(node(1), vec![at("10.0.0.9:1")])]));
        assert!(hints.heard(&name, one, &members, []), "no address is as good as gone");
        assert!(hints.by_node().is_empty() && !hints.gone(&name));
    }

    #[test]
    fn strangers_are_not_kept_and_who_was_removed_is_forgotten() {
        let mut hints = Hints::default();
        let members = BTreeSet::from([node(1)]);
        let (one, nine) = (node(1).short(), node(9).short());
        let name = format!("{one}._hearth._udp.local.");
        assert!(!hints.heard(&nine.to_string(), nine, &members, [at("10.0.0.1:1")]));
        assert!(hints.heard(&name, one, &members, [at("10.0.0.1:1")]));
        // The name of a member's announcement, taken by a stranger.
        assert!(hints.heard(&name, nine, &members, [at("10.0.0.1:1")]));
        assert!(hints.by_node().is_empty());
        assert!(hints.heard(&name, one, &members, [at("10.0.0.1:1")]));
        assert!(!hints.keep(&members) && hints.keep(&BTreeSet::new()));
        assert!(hints.by_node().is_empty());
    }

    #[test]
    fn liars_cannot_take_the_place_of_a_node() {
        let (members, one, mut hints) = (BTreeSet::from([node(1)]), node(1).short(), Hints::default());
        assert!(!hints.heard("anybody._hearth._udp.local.", one, &members, [at("10.0.0.66:1")]));
        for number in 0..300_u16 {
            let name = format!("{one} ({number})._hearth._udp.local.");
            let many = (0..9).map(|last| SocketAddr::from(([10, 0, 1, last], number)));
            hints.heard(&name, one, &members, many);
        }
        assert!(hints.heard(&format!("{one}._hearth._udp.local."), one, &members, [at("10.0.0.1:1")]));
        assert!(hints.by_node()[&node(1)].contains(&at("10.0.0.1:1")));
        assert!(hints.refused() > 290);
    }

    proptest! {
        #[test]
        fn nothing_that_is_announced_makes_it_grow_without_bound(
            said in proptest::collection::vec((0u16..600, 0u8..20, 1u16..40, any::<bool>()), 0..600)
        ) {
            let members: BTreeSet<NodeId> = (0..12).map(node).collect();
            let mut hints = Hints::default();
            for (name, who, addresses, goes) in said {
                let name = format!("{}{}", node(who).short(), if name == 0 { String::new() } else { name.to_string() });
                if goes {
                    hints.gone(&name);
                    continue;
                }
                let addresses = (1..=addresses).map(|port| SocketAddr::from(([10, 0, 0, who], port)));
                hints.heard(&name, node(who).short(), &members, addresses);
            }
            prop_assert!(hints.instances.len() <= members.len() * MOST_INSTANCES_OF_ONE);
            let nodes = hints.by_node();
            prop_assert!(nodes.keys().all(|node| members.contains(node)));
            prop_assert!(nodes.values().all(|list| (1..=MOST_ADDRESSES).contains(&list.len())));
        }
    }
}
