//! Copies of one card: several boards that run under one key at the same time.
//!
//! Every process draws a number at its start and says it on each link before its introduction. A
//! board that is started again has another number, and the old one is never heard again. So when a
//! number that fell silent while another spoke is heard once more, two boards run with one key. It must
//! come and go three times: what two links bring may be taken in out of order once.
//!
//! Of the boards of one key the one that started first stays, by what each says of its start; every peer
//! judges alike without asking anybody. One that has not been heard for [`STAYS_MS`] has no say.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{id::NodeId, wire::Process};

/// A process that has been silent for this long, in milliseconds, gives way to one of a later start.
pub const STAYS_MS: u64 = 15_000;
/// Copies are named for this long, in milliseconds, after one was turned away last.
pub const NAMED_MS: u64 = 300_000;
/// What was heard this long ago, in milliseconds, is evidence of nothing any more.
const FORGOTTEN_MS: u64 = 600_000;
/// How often one number must be heard again after another.
const RETURNS: u8 = 3;
/// Processes remembered of each node; of more the one that was silent longest is forgotten.
const MAX_PROCESSES: usize = 8;

/// What becomes of a process that introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the only one of its key, as far as is known.
    Alone,
    /// It is one of several, and stays.
    Stays,
    /// It is one of several, and gives way.
    Yields,
}

#[derive(Debug, Default)]
struct Heard {
    /// When each process was last heard, on the clock that never goes back.
    at_ms: BTreeMap<Process, u64>,
    returns: u8,
    /// Those that were heard again after another: they run side by side, unlike the one before a start.
    returned: BTreeSet<Process>,
    turned_away_ms: Option<u64>,
}

/// What was heard of the processes of each node.
#[derive(Debug, Default)]
pub struct Copies(BTreeMap<NodeId, Heard>);

impl Copies {
    /// Notes that a process of this node was heard then.
    pub fn spoke(&mut self, node: NodeId, process: Process, at_ms: u64) {
        let heard = self.0.entry(node).or_default();
        heard.at_ms.retain(|_, at| *at + FORGOTTEN_MS > at_ms);
        heard.returned.retain(|process| heard.at_ms.contains_key(process));
        if heard.at_ms.len() < 2 {
            heard.returns = 0;
        }
        if let Some(before) = heard.at_ms.get(&process).copied() {
            let between = |at: &u64| before < *at && *at < at_ms;
            let other_spoke = heard.at_ms.iter().any(|(other, at)| *other != process && between(at));
            if other_spoke {
                heard.returns = heard.returns.saturating_add(1);
                heard.returned.insert(process);
            }
            if at_ms <= before {
                return;
            }
        } else if heard.at_ms.len() >= MAX_PROCESSES
            && let Some(silent) = heard.at_ms.iter().min_by_key(|(_, at)| **at).map(|(process, _)| *process)
        {
            heard.at_ms.remove(&silent);
        }
        heard.at_ms.insert(process, at_ms);
    }

    /// Whether this process is one of several of its key, and gives way.
    pub fn yields(&mut self, now_ms: u64, node: NodeId, process: Process) -> bool {
        let Some(heard) = self.0.get_mut(&node).filter(|heard| heard.returns >= RETURNS) else {
            return false;
        };
        let is_here = |process: &&Process| heard.at_ms.get(*process).is_some_and(|at| at + STAYS_MS > now_ms);
        let yields = heard.returned.iter().find(is_here).is_some_and(|first| *first < process);
        if yields {
            heard.turned_away_ms = Some(now_ms);
        }
        yields
    }

    /// Judges a process that introduces itself.
    pub fn introduced(&mut self, now_ms: u64, node: NodeId, process: Process) -> Verdict {
        self.spoke(node, process, now_ms);
        if self.yields(now_ms, node, process) {
            return Verdict::Yields;
        }
        let is_one_of_several = self.0.get(&node).is_some_and(|heard| heard.returns >= RETURNS);
        if is_one_of_several { Verdict::Stays } else { Verdict::Alone }
    }

    /// The nodes of which a copy was turned away not long ago.
    pub fn named(&self, now_ms: u64) -> Vec<NodeId> {
        let is_named = |heard: &Heard| heard.turned_away_ms.is_some_and(|at| at + NAMED_MS > now_ms);
        self.0.iter().filter(|(_, heard)| is_named(heard)).map(|(node, _)| *node).collect()
    }

    /// Forgets nodes that are no longer in.
    pub fn retain(&mut self, is_in: impl Fn(&NodeId) -> bool) {
        self.0.retain(|node, _| is_in(node));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const NODE: NodeId = NodeId::from_bytes([7; 32]);

    fn process(started_ms: u64) -> Process {
        Process { started_ms, number: started_ms ^ 0x5a }
    }

    #[test]
    fn a_node_that_starts_again_and_again_is_one_node() {
        let mut copies = Copies::default();
        for start in 0..50 {
            let now = start * 3_000;
            for again in 0..3 {
                // Refused at first, because the link of its last life has not been missed yet.
                assert_eq!(copies.introduced(now + again * 200, NODE, process(now)), Verdict::Alone);
            }
            copies.spoke(NODE, process(now), now + 2_900);
        }
        assert!(copies.named(150_000).is_empty());
    }

    #[test]
    fn what_arrives_late_once_is_no_copy() {
        let mut copies = Copies::default();
        for (now, start) in [(0, 1), (10, 2), (11, 1), (500, 2), (900, 2)] {
            assert_eq!(copies.introduced(now, NODE, process(start)), Verdict::Alone, "at {now}");
        }
    }

    #[test]
    fn of_two_boards_with_one_key_the_one_that_started_first_stays() {
        let mut copies = Copies::default();
        let (first, second) = (process(1_000), process(9_000));
        let mut verdicts = Vec::new();
        for round in 0..4 {
            let now = 10_000 + round * 400;
            verdicts.push(copies.introduced(now, NODE, first));
            verdicts.push(copies.introduced(now + 200, NODE, second));
        }
        use Verdict::{Alone, Stays, Yields};
        assert_eq!(verdicts, [Alone, Alone, Alone, Alone, Stays, Yields, Stays, Yields]);
        assert_eq!(copies.named(12_000), [NODE]);
        // While the first is heard on its link, the second is turned away whenever it comes.
        copies.spoke(NODE, first, 59_000);
        assert_eq!(copies.introduced(60_000, NODE, second), Yields);
        // When the first is gone for good, the second takes its place.
        assert_eq!(copies.introduced(59_000 + STAYS_MS, NODE, second), Stays);
        assert!(copies.named(60_000 + NAMED_MS).is_empty());
    }

    #[test]
    fn the_process_before_the_last_start_has_no_say() {
        let mut copies = Copies::default();
        copies.introduced(0, NODE, process(0));
        let (first, second) = (process(1_000), process(2_000));
        for round in 0..4 {
            let now = 3_000 + round * 400;
            assert_ne!(copies.introduced(now, NODE, first), Verdict::Yields);
            copies.introduced(now + 200, NODE, second);
        }
        assert_eq!(copies.introduced(5_000, NODE, second), Verdict::Yields);
    }

    #[test]
    fn a_node_that_is_out_is_forgotten_and_memory_is_bounded() {
        let mut copies = Copies::default();
        for start in 0..100 {
            copies.introduced(start, NODE, process(start));
        }
        assert_eq!(copies.0[&NODE].at_ms.len(), MAX_PROCESSES);
        copies.retain(|_| false);
        assert!(copies.0.is_empty());
    }
}
