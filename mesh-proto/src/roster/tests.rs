#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
extern crate std;

use alloc::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn id(key: &SigningKey) -> NodeId {
    NodeId::from_bytes(key.verifying_key().to_bytes())
}

fn admit(node: u8, roles: Roles) -> Body {
    Body::Admit {
        node: id(&key(node)),
        roles,
        name: NodeName::new("board").unwrap(),
        token: Some([node; 16]),
    }
}

fn revoke(node: u8, honour: Option<(u32, Hash)>) -> Body {
    Body::Revoke { node: id(&key(node)), honour }
}

const ADMIN: Roles = Roles::MEMBER.and(Roles::ADMIN);

/// Root key 1, founder 2 (admin), recovery key 9.
fn household() -> Roster {
    Roster::found(&key(1), id(&key(2)), "kitchen", Some(id(&key(9)))).unwrap()
}

/// Signs as any key may who keeps to no rule.
fn rogue(roster: &Roster, by: u8, seq: u32, prev: Hash, body: Body) -> Statement {
    Statement::sign(roster.household(), &key(by), seq, prev, body).unwrap()
}

fn copy(roster: &Roster) -> Roster {
    Roster::from_bytes(&roster.to_bytes()).unwrap()
}

fn members(roster: &Roster) -> Vec<NodeId> {
    roster.members().map(|member| member.id).collect()
}

type Picture = (Hash, Vec<Member>, Vec<NodeId>, Vec<(NodeId, u32)>);

fn picture(roster: &Roster) -> Picture {
    let keys = roster.verdict.keys.values().cloned().collect();
    (roster.hash(), keys, roster.revoked().copied().collect(), roster.forks().collect())
}

#[test]
fn a_household_is_founded_grows_and_survives_a_file() {
    let mut roster = household();
    roster.issue(&key(2), admit(3, Roles::MEMBER)).unwrap();
    assert!(roster.is_admitted(&id(&key(2))) && roster.is_admitted(&id(&key(3))));
    assert!(!roster.is_admitted(&id(&key(9))), "the recovery key runs no node");
    assert!(roster.roles(&id(&key(9))).may_issue());
    assert_eq!(roster.by_short(id(&key(3)).short()), Some(id(&key(3))));
    assert_eq!(roster.next_seq(&id(&key(2))), 1);
    assert!(roster.redeemed(&[3; 16]).is_some() && roster.redeemed(&[4; 16]).is_none());
    assert_eq!(picture(&copy(&roster)), picture(&roster));
    assert!(roster.statements().all(|bytes| bytes.len() <= MAX_STATEMENT_BYTES));
}

#[test]
fn statements_and_proofs_go_in_without_waiting() {
    let mut roster = household();
    roster.issue(&key(2), admit(3, ADMIN)).unwrap();
    roster.issue(&key(3), admit(4, Roles::MEMBER)).unwrap();
    roster.issue(&key(2), admit(5, Roles::MEMBER)).unwrap();
    let mut joiner = Roster::empty(roster.household());
    for bytes in roster.statements() {
        assert_eq!(joiner.insert(bytes), Ok(Inserted::New));
        assert_eq!(joiner.insert(bytes), Ok(Inserted::Known));
    }
    assert_eq!(picture(&joiner), picture(&roster));
    let mut stranger = Roster::empty(roster.household());
    let proof = roster.proof_for(&id(&key(4)));
    assert_eq!(proof.len(), 3, "founder, 3 and 4: no more than is needed");
    for bytes in proof {
        assert_eq!(stranger.insert(&bytes), Ok(Inserted::New));
    }
    assert!(stranger.is_admitted(&id(&key(4))));
    assert!(roster.proof_for(&id(&key(77))).is_empty());
}

#[test]
fn what_is_out_of_order_waits_and_counts_for_nothing() {
    let mut roster = household();
    let mut other = copy(&roster);
    let s: Vec<_> = (3..6).map(|n| roster.issue(&key(2), admit(n, Roles::MEMBER)).unwrap()).collect();
    assert_eq!(other.insert(s[2].bytes()), Ok(Inserted::Pending));
    assert_eq!(other.insert(s[1].bytes()), Ok(Inserted::Pending));
    assert_eq!((other.pending(), members(&other).len()), (2, 1));
    assert_eq!(other.insert(s[0].bytes()), Ok(Inserted::New));
    assert_eq!(other.pending(), 0);
    assert_eq!(picture(&other), picture(&roster));
}

#[test]
fn offences_have_names() {
    let mut roster = household();
    let before = picture(&roster);
    let zero = Hash::default();
    let own = rogue(&roster, 50, 0, zero, admit(50, ADMIN));
    assert_eq!(roster.insert(own.bytes()), Err(RosterError::NotAuthorised { issuer: id(&key(50)) }));
    let member = roster.issue(&key(2), admit(3, Roles::MEMBER)).unwrap();
    assert!(matches!(roster.issue(&key(3), admit(4, Roles::MEMBER)), Err(RosterError::NotAuthorised { .. })));
    let foreign = Roster::found(&key(7), id(&key(2)), "x", None).unwrap();
    let theirs = foreign.statements().next().unwrap().to_vec();
    assert_eq!(roster.insert(&theirs), Err(RosterError::WrongHousehold));
    let mut forged = rogue(&roster, 2, 1, member.hash(), admit(4, ADMIN)).bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(roster.insert(&forged), Err(RosterError::BadSignature { issuer: id(&key(2)) }));
    assert_eq!(roster.insert(&[0; 513]), Err(RosterError::TooLarge { bytes: 513 }));
    assert_eq!(roster.insert(&[0; 100]), Err(RosterError::Malformed));
    assert_eq!(roster.insert(&[9; 100]), Err(RosterError::UnknownVersion(9)));
    assert_eq!(roster.insert(&[]), Err(RosterError::Malformed));
    let skips = rogue(&roster, 2, 2, member.hash(), admit(4, ADMIN));
    assert!(matches!(roster.insert(skips.bytes()), Err(RosterError::BrokenChain { seq: 2, .. })));
    let root = id(&key(1));
    assert_eq!(
        roster.issue(&key(2), Body::Revoke { node: root, honour: None }).err(),
        Some(RosterError::Body)
    );
    assert_eq!(roster.issue(&key(2), revoke(2, None)).err(), Some(RosterError::Body));
    for bad in ["", "a\nb", &"x".repeat(65)] {
        assert_eq!(NodeName::new(bad), Err(RosterError::Name));
    }
    assert_eq!(members(&roster), {
        let mut m = vec![id(&key(2)), id(&key(3))];
        m.sort();
        m
    });
    assert_eq!(before.2, picture(&roster).2);
}

#[test]
fn at_a_fork_the_lower_hash_counts_and_both_are_kept() {
    let base = household();
    let a = rogue(&base, 2, 0, Hash::default(), admit(3, Roles::MEMBER));
    let b = rogue(&base, 2, 0, Hash::default(), admit(4, Roles::MEMBER));
    let (low, high) = if a.hash() < b.hash() { (&a, &b) } else { (&b, &a) };
    let high_next = rogue(&base, 2, 1, high.hash(), admit(5, Roles::MEMBER));
    for order in [[&a, &b, &high_next], [&b, &high_next, &a], [&high_next, &b, &a]] {
        let mut roster = copy(&base);
        let results: Vec<_> = order.iter().map(|s| roster.insert(s.bytes())).collect();
        assert!(results.contains(&Err(RosterError::Forked { issuer: id(&key(2)), seq: 0 })));
        assert_eq!(roster.forks().collect::<Vec<_>>(), vec![(id(&key(2)), 0)]);
        let Body::Admit { node, .. } = low.body() else { panic!() };
        let mut expected = vec![id(&key(2)), *node];
        expected.sort();
        assert_eq!(members(&roster), expected);
        assert_eq!(roster.len(), 5, "all are kept");
    }
}

#[test]
fn a_revocation_wins_over_any_later_admission() {
    let mut roster = household();
    roster.issue(&key(2), admit(3, ADMIN)).unwrap();
    roster.issue(&key(3), admit(4, Roles::MEMBER)).unwrap();
    let honoured = roster.last_of(&id(&key(3)));
    roster.issue(&key(3), admit(5, Roles::MEMBER)).unwrap();
    roster.issue(&key(2), revoke(3, honoured)).unwrap();
    roster.issue(&key(2), admit(3, ADMIN)).unwrap();
    assert!(roster.is_revoked(&id(&key(3))) && !roster.is_admitted(&id(&key(3))));
    assert!(roster.is_admitted(&id(&key(4))), "admitted up to the honoured statement");
    assert!(!roster.is_admitted(&id(&key(5))), "admitted after it");
    assert!(matches!(roster.issue(&key(3), admit(6, Roles::MEMBER)), Err(RosterError::NotAuthorised { .. })));
    // Another admin sets a lower limit: the lowest wins.
    roster.issue(&key(9), revoke(3, None)).unwrap();
    assert!(!roster.is_admitted(&id(&key(4))));
}

#[test]
fn a_revoked_admin_cannot_hit_back_once_its_end_is_named() {
    let mut roster = household();
    roster.issue(&key(2), admit(3, ADMIN)).unwrap();
    let last = roster.last_of(&id(&key(3)));
    roster.issue(&key(2), revoke(3, last)).unwrap();
    // It honours all of 2, so the revocation stands and its own comes too late.
    let honours = roster.last_of(&id(&key(2)));
    let back = rogue(&roster, 3, 0, Hash::default(), revoke(2, honours));
    assert_eq!(roster.insert(back.bytes()), Ok(Inserted::New));
    assert!(roster.is_admitted(&id(&key(2))) && !roster.is_admitted(&id(&key(3))));
}

#[test]
fn two_that_revoke_each_other_are_both_out_in_either_order() {
    let mut base = household();
    base.issue(&key(2), admit(3, ADMIN)).unwrap();
    let limit = base.last_of(&id(&key(2)));
    let a = rogue(&base, 2, 1, limit.unwrap().1, revoke(3, None));
    let b = rogue(&base, 3, 0, Hash::default(), revoke(2, limit));
    for order in [[&a, &b], [&b, &a]] {
        let mut roster = copy(&base);
        order.iter().for_each(|s| drop(roster.insert(s.bytes())));
        assert!(members(&roster).is_empty());
        assert!(roster.is_revoked(&id(&key(2))) && roster.is_revoked(&id(&key(3))));
        // The recovery key opens the way back.
        roster.issue(&key(9), admit(6, ADMIN)).unwrap();
        assert_eq!(members(&roster), vec![id(&key(6))]);
    }
}

#[test]
fn a_helper_admitted_after_the_end_cannot_save_a_revoked_admin() {
    let mut roster = household();
    roster.issue(&key(2), admit(3, ADMIN)).unwrap();
    let own = rogue(&roster, 3, 0, Hash::default(), admit(4, ADMIN));
    roster.insert(own.bytes()).unwrap();
    let helped = rogue(&roster, 4, 0, Hash::default(), revoke(2, None));
    roster.issue(&key(9), revoke(3, None)).unwrap();
    roster.insert(helped.bytes()).unwrap();
    assert_eq!(members(&roster), vec![id(&key(2))], "4 lost its admission, so it revokes nobody");
}

#[test]
fn a_stolen_key_cannot_move_a_named_past() {
    let mut roster = household();
    roster.issue(&key(2), admit(3, ADMIN)).unwrap();
    let honest = roster.issue(&key(3), admit(4, Roles::MEMBER)).unwrap();
    roster.issue(&key(2), revoke(3, Some((0, honest.hash())))).unwrap();
    // The thief tries until its statement has the lower hash.
    let forged = (0..=255u8)
        .map(|n| {
            let name = NodeName::new(&std::format!("n{n}")).unwrap();
            let body = Body::Admit { node: id(&key(66)), roles: ADMIN, name, token: None };
            rogue(&roster, 3, 0, Hash::default(), body)
        })
        .find(|s| s.hash() < honest.hash())
        .unwrap();
    assert!(matches!(roster.insert(forged.bytes()), Err(RosterError::Forked { .. })));
    assert!(roster.is_admitted(&id(&key(4))) && !roster.is_admitted(&id(&key(66))));
}

#[test]
fn who_left_is_out_and_stays_out() {
    let mut roster = household();
    roster.issue(&key(2), admit(3, Roles::MEMBER)).unwrap();
    roster.issue(&key(3), Body::Leave).unwrap();
    assert!(!roster.is_admitted(&id(&key(3))) && !roster.is_revoked(&id(&key(3))));
    roster.issue(&key(2), admit(3, Roles::MEMBER)).unwrap();
    assert!(!roster.is_admitted(&id(&key(3))));
}

#[test]
fn of_two_keys_with_one_short_name_one_is_in() {
    let mut base = household();
    let admission = |last: u8| {
        let mut bytes = [5; 32];
        bytes[31] = last;
        let node = NodeId::from_bytes(bytes);
        Body::Admit { node, roles: Roles::MEMBER, name: NodeName::new("twin").unwrap(), token: None }
    };
    base.issue(&key(2), admit(3, ADMIN)).unwrap();
    let a = rogue(&base, 2, 1, base.last_of(&id(&key(2))).unwrap().1, admission(1));
    let b = rogue(&base, 3, 0, Hash::default(), admission(2));
    let mut outcomes = vec![];
    for order in [[&a, &b], [&b, &a]] {
        let mut roster = copy(&base);
        assert_eq!(roster.insert(order[0].bytes()), Ok(Inserted::New));
        let short = NodeId::from_bytes([5; 32]).short();
        assert_eq!(roster.insert(order[1].bytes()), Err(RosterError::ShortIdTaken { short }));
        assert_eq!(roster.issue(&key(2), admission(3)).err(), Some(RosterError::ShortIdTaken { short }));
        outcomes.push((members(&roster), roster.by_short(short)));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[0].0.len(), 3);
}

#[test]
fn strangers_fill_neither_the_roster_nor_the_waiting_room() {
    let mut roster = household();
    for n in 0..100u8 {
        let body = admit(n.wrapping_add(100), ADMIN);
        let own = Statement::sign(
            roster.household(),
            &SigningKey::from_bytes(&[
                n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
                26, 27, 28, 29, 30, 31,
            ]),
            0,
            Hash::default(),
            body,
        )
        .unwrap();
        assert!(matches!(roster.insert(own.bytes()), Err(RosterError::NotAuthorised { .. })));
    }
    assert_eq!((roster.len(), roster.pending()), (2, MAX_PENDING_STRANGERS));
    let mut prev = [7; 32];
    for seq in 5..=(5 + u32::try_from(MAX_PENDING).unwrap()) {
        let s = rogue(&roster, 2, seq, prev, admit(3, Roles::MEMBER));
        prev = s.hash();
        let result = roster.insert(s.bytes());
        assert!(matches!(result, Ok(Inserted::Pending) | Err(RosterError::PendingFull)), "{result:?}");
    }
    assert_eq!(roster.pending(), MAX_PENDING);
}

#[test]
fn damaged_files_and_hostile_bytes_are_refused_by_name() {
    let mut roster = household();
    roster.issue(&key(2), admit(3, ADMIN)).unwrap();
    let file = roster.to_bytes();
    for cut in 0..file.len() {
        match Roster::from_bytes(&file[..cut]) {
            Ok(part) => assert!(part.len() < roster.len()),
            Err(error) => assert_eq!(error, RosterError::Malformed),
        }
    }
    for at in 0..file.len() {
        let mut file = file.clone();
        file[at] ^= 0x55;
        assert!(Roster::from_bytes(&file).is_err(), "byte {at}");
    }
}

/// A storm of statements by three admins, a recovery key and rogue moves of theirs: forks,
/// cycles of revocations, admissions of the revoked, leaves.
fn storm(moves: &[(u8, u8, u8, u8)]) -> Vec<Vec<u8>> {
    let mut base = household();
    base.issue(&key(2), admit(3, ADMIN)).unwrap();
    base.issue(&key(2), admit(4, ADMIN)).unwrap();
    let mut chains: BTreeMap<u8, Vec<Statement>> = BTreeMap::new();
    let start = base.statement(&base.last_of(&id(&key(2))).unwrap().1).unwrap().clone();
    chains.insert(2, vec![start]);
    let mut all: Vec<Vec<u8>> = base.statements().map(<[u8]>::to_vec).collect();
    for (by, what, whom, back) in moves {
        let by = [2, 3, 4, 9, 6][usize::from(*by % 5)];
        let whom = [2, 3, 4, 6, 7, 8][usize::from(*whom % 6)];
        let chain = chains.get(&by).cloned().unwrap_or_default();
        // Now and then it continues from an earlier statement: a fork.
        let keep = if *back % 6 == 0 { chain.len().saturating_sub(1) } else { chain.len() };
        let last = chain[..keep].last();
        let (seq, prev) = last.map_or((0, Hash::default()), |s| (s.seq() + 1, s.hash()));
        let of = chains.get(&whom).and_then(|c| c.get(usize::from(*back) % (c.len() + 1)));
        let body = match what % 5 {
            0 | 1 => admit(whom, if *back % 2 == 0 { ADMIN } else { Roles::MEMBER }),
            4 if *back % 4 == 0 => Body::Leave,
            _ if whom == by => continue,
            _ => revoke(whom, of.map(|s| (s.seq(), s.hash()))),
        };
        let statement = rogue(&base, by, seq, prev, body);
        all.push(statement.bytes().to_vec());
        chains.entry(by).or_default().truncate(keep.max(chain.len()));
        chains.entry(by).or_default().push(statement);
    }
    all
}

fn filled<'a>(household: HouseholdId, statements: impl IntoIterator<Item = &'a Vec<u8>>) -> Roster {
    let mut roster = Roster::empty(household);
    for bytes in statements {
        match roster.insert(bytes) {
            Ok(_) | Err(RosterError::Forked { .. } | RosterError::NotAuthorised { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    roster
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_set_gives_the_same_members_in_any_order(
        moves in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..16),
        order in prop::collection::vec(any::<u32>(), 40),
        split in any::<u64>(),
    ) {
        let all = storm(&moves);
        let household = household().household();
        let reference = filled(household, &all);
        let mut shuffled: Vec<(u32, &Vec<u8>)> = order.iter().copied().zip(all.iter().chain(&all)).collect();
        shuffled.extend(all.iter().map(|bytes| (u32::MAX / 2, bytes)));
        shuffled.sort();
        let other = filled(household, shuffled.iter().map(|(_, bytes)| *bytes));
        prop_assert_eq!(picture(&other), picture(&reference));
        // Two halves, merged both ways.
        let (left, right): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(i, _)| split >> (i % 64) & 1 == 0);
        let left: Vec<_> = left.into_iter().map(|(_, bytes)| bytes).collect();
        let right: Vec<_> = right.into_iter().map(|(_, bytes)| bytes).collect();
        let one = filled(household, left.iter().chain(&right).copied());
        let two = filled(household, right.iter().chain(&left).copied());
        prop_assert_eq!(picture(&one), picture(&reference));
        prop_assert_eq!(picture(&two), picture(&reference));
        prop_assert_eq!(picture(&copy(&one)), picture(&reference));
        // Whoever is revoked is out, and everyone who is in can prove it to one who knows nothing.
        for member in reference.members() {
            prop_assert!(!reference.is_revoked(&member.id));
            let proof = reference.proof_for(&member.id);
            prop_assert!(!proof.is_empty());
            let mut fresh = Roster::empty(household);
            for bytes in &proof {
                prop_assert!(matches!(fresh.insert(bytes), Ok(Inserted::New)));
            }
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut roster = household();
        prop_assert!(roster.insert(&bytes).is_err());
        prop_assert!(Roster::from_bytes(&bytes).is_err());
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn the_planted_bug_honours_what_is_unchained() {
    let base = household();
    let loose = rogue(&base, 2, 5, [7; 32], admit(3, Roles::MEMBER));
    let mut roster = copy(&base);
    roster.insert(loose.bytes()).unwrap();
    assert!(!roster.is_admitted(&id(&key(3))));
    let mut roster = copy(&base);
    roster.set_planted_unchained(true);
    roster.insert(loose.bytes()).unwrap();
    assert!(roster.is_admitted(&id(&key(3))));
}

#[test]
fn a_roster_that_a_bad_admin_filled_still_takes_its_revocation() {
    let mut roster = household();
    roster.issue(&key(2), admit(3, ADMIN)).unwrap();
    roster.issue(&key(2), admit(4, ADMIN)).unwrap();
    let last = roster.issue(&key(3), admit(5, ADMIN)).unwrap();
    // Its helpers signed all the others; what they are does not matter here.
    roster.log.resize(MAX_STATEMENTS, last.clone());
    let more = rogue(&roster, 3, 1, last.hash(), admit(6, ADMIN));
    assert_eq!(roster.insert(more.bytes()), Err(RosterError::Full));
    assert_eq!(roster.issue(&key(4), revoke(3, None)).err(), Some(RosterError::Full));
    for by in [9, 2] {
        let mut roster = roster.clone();
        let statement = roster.sign(&key(by), revoke(3, None)).unwrap();
        assert_eq!(roster.insert(statement.bytes()), Ok(Inserted::New));
        assert!(!roster.is_admitted(&id(&key(3))) && !roster.is_admitted(&id(&key(5))));
    }
}
