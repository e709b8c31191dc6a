//! What was done to the nodes, and what could have come from one to another meanwhile.

use jiff::Timestamp;

/// How long a record may take to the disk of its node, and to every node that hears it, on a busy machine: links are
/// made anew within it.
pub(crate) const ARRIVES_MS: i64 = 6_000;
/// How finely time is looked at.
const STEP_MS: i64 = 20;

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is killed.
    Down,
    /// It is started.
    Up,
    /// It does not hear the others, nor they it.
    Cut,
    /// It does again.
    Healed,
}

/// Everything that happened, oldest first; times in milliseconds since 1970.
#[derive(Debug, Default, Clone)]
pub(crate) struct Faults(Vec<(i64, usize, Fault)>);

impl Faults {
    pub(crate) fn note(&mut self, node: usize, fault: Fault) {
        self.0.push((Timestamp::now().as_millisecond(), node, fault));
    }

    fn is(&self, node: usize, at: i64, begins: Fault, ends: Fault) -> bool {
        let last = self
            .0
            .iter()
            .rfind(|(when, whose, fault)| *when <= at && *whose == node && [begins, ends].contains(fault));
        last.is_some_and(|(.., fault)| *fault == begins)
    }

    pub(crate) fn is_down(&self, node: usize, at: i64) -> bool {
        self.is(node, at, Fault::Down, Fault::Up)
    }

    pub(crate) fn is_cut(&self, node: usize, at: i64) -> bool {
        self.is(node, at, Fault::Cut, Fault::Healed)
    }

    /// When a node died first between two moments.
    pub(crate) fn death(&self, node: usize, from: i64, until: i64) -> Option<i64> {
        let mut deaths = self
            .0
            .iter()
            .filter(|(_, whose, fault)| *whose == node && *fault == Fault::Down)
            .map(|(when, ..)| *when);
        deaths.find(|when| (from..=until).contains(when))
    }

    /// Which of its lives a node lived: how often it had been started before.
    pub(crate) fn life(&self, node: usize, at: i64) -> usize {
        self.0
            .iter()
            .filter(|(when, whose, fault)| *when <= at && *whose == node && *fault == Fault::Up)
            .count()
    }

    fn hear(&self, one: usize, other: usize, at: i64) -> bool {
        let cut = one != other && (self.is_cut(one, at) || self.is_cut(other, at));
        !cut && !self.is_down(one, at) && !self.is_down(other, at)
    }

    /// The moments between two, each fault among them: one that is down for a moment only is not overlooked.
    fn times(&self, from: i64, until: i64) -> Vec<i64> {
        let grid = std::iter::successors(Some(from), |at| Some(at + STEP_MS)).take_while(|at| *at <= until);
        let faults = self.0.iter().map(|(when, ..)| *when).filter(|when| (from..=until).contains(when));
        let mut times: Vec<i64> = grid.chain(faults).collect();
        times.sort_unstable();
        times
    }

    /// Whether two nodes (or the two lives of one) were ever apart between two moments, or not yet together for long enough
    /// at the first.
    pub(crate) fn parted(&self, one: usize, other: usize, from: i64, until: i64) -> bool {
        self.times(from - ARRIVES_MS, until).into_iter().any(|at| !self.hear(one, other, at))
    }

    /// Whether what a node recorded at a moment could have been known to another, or to itself after a restart, by another
    /// moment. It spreads from whoever holds it to whoever hears that one for long enough, and is on the disk by then.
    pub(crate) fn could_arrive(&self, from: usize, at: i64, to: usize, until: i64, nodes: usize) -> bool {
        let mut held: Vec<bool> = vec![false; nodes];
        let mut heard = vec![0; nodes];
        let (mut remembers, mut last) = (true, at);
        for now in self.times(at, until) {
            let passed = now - std::mem::replace(&mut last, now);
            remembers &= !self.is_down(from, now);
            for node in 0..nodes {
                let hears =
                    |whom: usize| (held[whom] || (whom == from && remembers)) && self.hear(node, whom, now);
                heard[node] = if (0..nodes).any(hears) { heard[node] + passed } else { 0 };
                held[node] |= heard[node] >= ARRIVES_MS;
            }
        }
        held[to]
    }
}

#[test]
fn what_could_have_arrived_is_told_from_what_could_not() {
    use Fault::{Cut, Down, Healed, Up};
    let faults = |list: &[(i64, usize, Fault)]| {
        Faults(list.iter().map(|(seconds, node, fault)| (seconds * 1_000, *node, *fault)).collect())
    };
    let arrives = |faults: &Faults, from, at: i64, to, until: i64| {
        faults.could_arrive(from, at * 1_000, to, until * 1_000, 3)
    };
    let none = faults(&[]);
    assert!(arrives(&none, 0, 100, 1, 107) && !arrives(&none, 0, 100, 1, 104));
    assert!(!none.parted(0, 1, 100_000, 200_000));

    let cut = faults(&[(90, 0, Cut), (120, 0, Healed)]);
    assert!(!arrives(&cut, 0, 100, 1, 124) && arrives(&cut, 0, 100, 1, 127));
    assert!(arrives(&cut, 1, 100, 2, 107), "the other side hears itself");
    assert!(cut.parted(0, 1, 100_000, 101_000) && cut.parted(0, 1, 123_000, 124_000));
    assert!(!cut.parted(0, 1, 127_000, 130_000) && !cut.parted(1, 2, 100_000, 130_000));

    // It died with it before it was on the disk, and after.
    let soon = faults(&[(102, 0, Down), (110, 0, Up)]);
    assert!(!arrives(&soon, 0, 100, 1, 150) && !arrives(&soon, 0, 100, 0, 150));
    assert!(soon.parted(0, 0, 100_000, 111_000) && soon.life(0, 111_000) == 1);
    let late = faults(&[(90, 0, Cut), (108, 0, Down), (110, 0, Up), (111, 0, Healed)]);
    assert!(arrives(&late, 0, 100, 0, 111) && arrives(&late, 0, 100, 1, 118));

    let moment = Faults(vec![(103_001, 0, Down), (103_009, 0, Up)]);
    assert!(moment.parted(0, 0, 100_000, 110_000) && !arrives(&moment, 0, 100, 1, 108));

    // By way of a third that the two hear at different times.
    let third = faults(&[(90, 1, Down), (110, 0, Down), (111, 1, Up)]);
    assert!(!arrives(&third, 0, 100, 1, 115) && arrives(&third, 0, 100, 1, 118));
}
