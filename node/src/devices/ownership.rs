//! Who owns a device: the winner of rendezvous hashing over the live nodes that reach it.
//!
//! Every node computes the same from what it sees, asks nobody, and when a node dies only its own
//! devices move (Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996).

use std::collections::BTreeSet;

use mesh_proto::ShortId;

/// The node with the highest weight for the device; none of none.
pub fn winner(nodes: impl IntoIterator<Item = ShortId>, device: &str) -> Option<ShortId> {
    nodes.into_iter().max_by_key(|node| (weight(*node, device), *node))
}

/// The owner of a device that the nodes of `reach` say they reach, when those of `alive` live. Devices that are parts of one
/// piece of hardware have one owner: what it can bear is not shared out between two nodes.
pub fn owner(reach: &BTreeSet<ShortId>, alive: &BTreeSet<ShortId>, device: &str) -> Option<ShortId> {
    winner(reach.intersection(alive).copied(), hardware(device))
}

/// The part of a device's id that names its hardware: of `lifx-d073d5000001-infrared` `lifx-d073d5000001`.
fn hardware(device: &str) -> &str {
    let end = device.match_indices('-').nth(1).map_or(device.len(), |(at, _)| at);
    device.get(..end).unwrap_or(device)
}

/// The hash of the node's eight bytes (big endian) and the device's id.
fn weight(node: ShortId, device: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&node.0.to_be_bytes());
    hasher.update(device.as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    fn nodes(ids: impl IntoIterator<Item = u64>) -> BTreeSet<ShortId> {
        ids.into_iter().map(ShortId).collect()
    }

    #[test]
    fn only_live_nodes_that_reach_a_device_may_own_it() {
        let (reach, alive) = (nodes([1, 2]), nodes([2, 3]));
        assert_eq!(owner(&reach, &alive, "lifx-1"), Some(ShortId(2)));
        assert_eq!(owner(&reach, &nodes([3]), "lifx-1"), None);
        assert_eq!(owner(&nodes([]), &alive, "lifx-1"), None);
    }

    #[test]
    fn the_parts_of_one_piece_of_hardware_have_one_owner() {
        let all = nodes(0..4);
        for number in 0..50 {
            let owners = ["", "-infrared", "-clean", "-relay-1"]
                .map(|part| owner(&all, &all, &format!("lifx-d073d500{number:04}{part}")));
            assert!(owners.iter().all(|owner| *owner == owners[0]), "{number}: {owners:?}");
        }
    }

    #[test]
    fn the_winner_does_not_depend_on_the_order_in_which_nodes_are_listed() {
        let forth: Vec<_> = (0..9).map(ShortId).collect();
        let back = forth.iter().rev().copied();
        assert_eq!(winner(forth.clone(), "lifx-1"), winner(back, "lifx-1"));
    }

    #[test]
    fn the_death_of_a_node_moves_its_own_devices_and_no_others() {
        let reach = nodes(0..4);
        let (mut moved, mut owned) = (0, 0);
        for number in 0..400 {
            let device = format!("lifx-{number}");
            let before = owner(&reach, &reach, &device).unwrap();
            let after = owner(&reach, &nodes([0, 1, 2]), &device).unwrap();
            if before == ShortId(3) {
                owned += 1;
                moved += usize::from(after != before);
            } else {
                assert_eq!(before, after, "{device} moved though its owner lives");
            }
        }
        assert_eq!(moved, owned);
        assert!((60..140).contains(&owned), "one of four nodes owns {owned} of 400");
    }
}
