//! Who is in: a pure function of the set of stored statements.
//!
//! The rule, in four steps.
//! 1. *Path.* Each issuer's statements form a tree, a bare chain unless it signed two for one
//!    place. The path starts at 0 and takes at a fork the branch that leads to a statement which some
//!    revocation of the issuer names as its last honoured one, else the one with the lower hash. A `Leave` ends it.
//! 2. *Cut.* A revocation of an issuer cuts its path behind the statement it names (`None`: at 0).
//!    Of several the lowest cut wins.
//! 3. *Honoured under X.* Given a set X of revocations, the root's path is honoured; so is
//!    the path, up to the lowest cut by X, of every key which an honoured statement admits as admin or recovery key.
//!    Let Γ(X) be the revocations so honoured. More cuts honour less: Γ is antitone.
//! 4. *In effect.* From U = Γ(∅), repeat L = Γ(U), U' = Γ(L) until U' = U. U only shrinks, so this ends.
//!    L holds the revocations that stand whatever the others do; U adds those that stand or fall only by
//!    each other (A revokes B, B revokes A, neither having seen the other). All of U is in effect: both are out.
//!
//! A key is admitted when a statement honoured under U admits it, no revocation in U names it and
//! its own path under U holds no `Leave`.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{Member, statement::*};
use crate::id::{NodeId, ShortId};

/// What the statements amount to.
#[derive(Clone, Default)]
pub(super) struct Verdict {
    /// Keys that count, with their roles; the root is not among them.
    pub(super) keys: BTreeMap<NodeId, Member>,
    /// The nodes among them.
    pub(super) by_short: BTreeMap<ShortId, NodeId>,
    /// Keys that are out for good by someone else's word, and the revocation in effect that says so.
    pub(super) revoked: BTreeMap<NodeId, Hash>,
}

/// Evaluates the statements of the household with this root key.
pub(super) fn evaluate(
    root: NodeId,
    log: &[Statement],
    #[cfg(feature = "planted-bugs")] chained: bool,
) -> Verdict {
    let chains = Chains::new(
        root,
        log,
        #[cfg(feature = "planted-bugs")]
        chained,
    );
    let in_effect = chains.in_effect();
    let cuts = chains.cuts(&in_effect);
    let mut verdict = Verdict::default();
    for (revocation, _) in chains.revocations.iter().zip(&in_effect).filter(|(_, on)| **on) {
        verdict.revoked.entry(revocation.node).or_insert(revocation.hash);
    }
    let authorities = chains.authorities(&cuts);
    let mut left = BTreeSet::new();
    let mut admissions: BTreeMap<NodeId, (Hash, Member)> = BTreeMap::new();
    for issuer in chains.paths.keys() {
        for statement in chains.honoured(*issuer, &cuts) {
            match statement.body() {
                Body::Leave => drop(left.insert(*issuer)),
                Body::Admit { node, roles, name, .. } if authorities.contains(issuer) => {
                    let member = Member::new(*node, *roles, name.clone(), *issuer);
                    admissions
                        .entry(*node)
                        .and_modify(|(hash, known)| known.merge(hash, statement.hash(), &member))
                        .or_insert((statement.hash(), member));
                }
                _ => {}
            }
        }
    }
    admissions.retain(|node, _| !left.contains(node) && !verdict.revoked.contains_key(node));
    settle(&mut verdict, admissions);
    verdict
}

/// Of two nodes with one short name the one whose admission has the lower hash is in.
fn settle(verdict: &mut Verdict, admissions: BTreeMap<NodeId, (Hash, Member)>) {
    let mut order: Vec<(Hash, Member)> = admissions.into_values().collect();
    order.sort_by_key(|(hash, member)| (*hash, member.id));
    for (_, member) in order {
        if member.roles.contains(Roles::MEMBER) {
            if verdict.by_short.contains_key(&member.short) {
                continue;
            }
            verdict.by_short.insert(member.short, member.id);
        }
        verdict.keys.insert(member.id, member);
    }
}

struct Revocation {
    issuer: NodeId,
    /// Its place in the issuer's path.
    place: usize,
    hash: Hash,
    node: NodeId,
    /// How many of the revoked key's path still count.
    cut: usize,
}

struct Chains<'a> {
    root: NodeId,
    paths: BTreeMap<NodeId, Vec<&'a Statement>>,
    revocations: Vec<Revocation>,
}

type Cuts = BTreeMap<NodeId, usize>;

impl<'a> Chains<'a> {
    fn new(root: NodeId, log: &'a [Statement], #[cfg(feature = "planted-bugs")] chained: bool) -> Self {
        let by_hash: BTreeMap<Hash, &Statement> = log.iter().map(|s| (s.hash(), s)).collect();
        #[cfg(feature = "planted-bugs")]
        let paths = if chained { paths(log, &by_hash) } else { unchained_paths(log) };
        #[cfg(not(feature = "planted-bugs"))]
        let paths = paths(log, &by_hash);
        let mut chains = Self { root, paths, revocations: Vec::new() };
        for (issuer, path) in &chains.paths {
            for (place, statement) in path.iter().enumerate() {
                if let Body::Revoke { node, honour } = statement.body() {
                    let cut = honour.map_or(0, |limit| chains.cut(*node, limit, &by_hash));
                    chains.revocations.push(Revocation {
                        issuer: *issuer,
                        place,
                        hash: statement.hash(),
                        node: *node,
                        cut,
                    });
                }
            }
        }
        chains
    }

    /// How much of a path a limit leaves: up to the named statement; when that one lies on another
    /// branch, what both share; when it has not arrived, what comes before its number.
    fn cut(&self, node: NodeId, (seq, hash): (u32, Hash), by_hash: &BTreeMap<Hash, &Statement>) -> usize {
        let Some(path) = self.paths.get(&node) else { return 0 };
        let place = |hash: Hash| path.iter().position(|s| s.hash() == hash).map(|place| place + 1);
        let mut at = by_hash.get(&hash).filter(|s| s.issuer() == node);
        if at.is_none() {
            return path.iter().take_while(|s| s.seq() < seq).count();
        }
        while let Some(statement) = at {
            if let Some(cut) = place(statement.hash()) {
                return cut;
            }
            at = by_hash.get(&statement.prev());
        }
        0
    }

    fn in_effect(&self) -> Vec<bool> {
        let gamma = |on: &[bool]| {
            let cuts = self.cuts(on);
            let authorities = self.authorities(&cuts);
            let stands =
                |r: &Revocation| authorities.contains(&r.issuer) && r.place < limit(&cuts, &r.issuer);
            self.revocations.iter().map(stands).collect::<Vec<bool>>()
        };
        let mut upper = gamma(&[]);
        loop {
            let next = gamma(&gamma(&upper));
            if next == upper {
                return upper;
            }
            upper = next;
        }
    }

    fn cuts(&self, on: &[bool]) -> Cuts {
        let mut cuts = Cuts::new();
        for (revocation, _) in self.revocations.iter().zip(on).filter(|(_, on)| **on) {
            let cut = cuts.entry(revocation.node).or_insert(usize::MAX);
            *cut = revocation.cut.min(*cut);
        }
        cuts
    }

    /// Keys whose statements count under these cuts: the least set with the root that is closed under admission.
    fn authorities(&self, cuts: &Cuts) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::from([self.root]);
        let mut todo = Vec::from([self.root]);
        while let Some(issuer) = todo.pop() {
            for statement in self.honoured(issuer, cuts) {
                if let Body::Admit { node, roles, .. } = statement.body()
                    && roles.may_issue()
                    && found.insert(*node)
                {
                    todo.push(*node);
                }
            }
        }
        found
    }

    fn honoured(&self, issuer: NodeId, cuts: &Cuts) -> impl Iterator<Item = &'a Statement> {
        let path = self.paths.get(&issuer).map_or(&[][..], Vec::as_slice);
        path.iter().take(limit(cuts, &issuer)).copied()
    }
}

fn limit(cuts: &Cuts, issuer: &NodeId) -> usize {
    cuts.get(issuer).copied().unwrap_or(usize::MAX)
}

fn paths<'a>(
    log: &'a [Statement],
    by_hash: &BTreeMap<Hash, &'a Statement>,
) -> BTreeMap<NodeId, Vec<&'a Statement>> {
    let named = named_branches(log, by_hash);
    let mut children: BTreeMap<(NodeId, Hash), &Statement> = BTreeMap::new();
    let rank = |s: &Statement| (!named.contains(&s.hash()), s.hash());
    for statement in log {
        let best = children.entry((statement.issuer(), statement.prev())).or_insert(statement);
        if rank(statement) < rank(best) {
            *best = statement;
        }
    }
    let issuers: BTreeSet<NodeId> = log.iter().map(Statement::issuer).collect();
    let walk = |issuer: NodeId| {
        let mut path: Vec<&Statement> = Vec::new();
        let mut prev = Hash::default();
        while let Some(statement) = children.get(&(issuer, prev)) {
            path.push(statement);
            prev = statement.hash();
            if matches!(statement.body(), Body::Leave) {
                break;
            }
        }
        (issuer, path)
    };
    issuers.into_iter().map(walk).collect()
}

/// The statements that lead to one which a revocation names as its last honoured: whoever
/// holds a revoked key cannot move its past to a branch made afterwards.
fn named_branches(log: &[Statement], by_hash: &BTreeMap<Hash, &Statement>) -> BTreeSet<Hash> {
    let mut named = BTreeSet::new();
    for statement in log {
        let Body::Revoke { node, honour: Some((_, hash)) } = statement.body() else { continue };
        let mut at = by_hash.get(hash).filter(|s| s.issuer() == *node);
        while let Some(statement) = at.filter(|s| named.insert(s.hash())) {
            at = by_hash.get(&statement.prev());
        }
    }
    named
}

#[cfg(feature = "planted-bugs")]
fn unchained_paths(log: &[Statement]) -> BTreeMap<NodeId, Vec<&Statement>> {
    let mut paths: BTreeMap<NodeId, Vec<&Statement>> = BTreeMap::new();
    for statement in log {
        paths.entry(statement.issuer()).or_default().push(statement);
    }
    paths
}

/// The end of the issuer's path.
pub(super) fn last<'a>(log: &'a [Statement], issuer: &NodeId) -> Option<&'a Statement> {
    let by_hash = log.iter().map(|s| (s.hash(), s)).collect();
    paths(log, &by_hash).get(issuer).and_then(|path| path.last().copied())
}
