//! Invites that are expired, used up, cut off, of somebody else, or used by a thousand at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hearth_tests::hostile::{Daemon, Folder, Home, Launch, peer::noise};
use mesh_proto::HouseholdId;
use node::auth::{InviteToken, JoinError, Refusal, join_over};
use serde_json::json;
use tokio::sync::Barrier;

/// Exit code of a daemon that cannot start.
const CANNOT_START: i32 = 8;

fn nodes_of(daemon: &Daemon) -> usize {
    daemon.status()["nodes"].as_array().expect("nodes").len()
}

fn changed(token: &InviteToken, change: impl FnOnce(&mut InviteToken)) -> InviteToken {
    let mut token = token.clone();
    change(&mut token);
    token
}

#[test]
fn an_expired_invite_is_refused_by_the_issuers_clock() {
    let folder = Folder::new().expect("a temp folder");
    let issuer = Daemon::start(&folder.join("a"), &Launch::new());
    let short = issuer.invite("member", 60);
    let long = issuer.invite("member", 3_600);
    let at = issuer.address;
    issuer.stop();
    // Its clock is two minutes on, and nobody had to wait for them.
    let issuer = Daemon::start(&folder.join("a"), &Launch::new().listen(at).clock("+120"));
    let before = issuer.rss_kib();
    let refused = Launch::new().with(&["--join", &short]).fails(&folder.join("late"));
    refused.expect(CANNOT_START, &["the invite has expired", "hearth invite", "--ttl"]);
    assert_eq!(issuer.counter("join_refused_expired"), 1);
    assert_eq!(nodes_of(&issuer), 1);
    // The same folder joins with one that holds.
    let joined = Daemon::start(&folder.join("late"), &Launch::new().with(&["--join", &long]));
    let home = Home::of(issuer, joined, folder, before);
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn a_used_invite_is_refused_to_another_key() {
    let home = Home::new();
    let token = home.a.invite("member", 900);
    let first = Daemon::start(&home.folder.join("c"), &Launch::new().with(&["--join", &token]));
    let refused = Launch::new().with(&["--join", &token]).fails(&home.folder.join("d"));
    refused.expect(CANNOT_START, &["another node has used this invite", "ask for a new one"]);
    assert_eq!(home.a.counter("join_refused_already_used"), 1);
    assert_eq!(nodes_of(&home.a), 3);
    drop(first);
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn a_truncated_invite_is_named_as_one_and_costs_the_issuer_nothing() {
    let home = Home::new();
    let token = home.a.invite("member", 900);
    for length in [9, 40, token.len() / 2, token.len() - 1] {
        let cut = &token[..length];
        let refused = Launch::new().with(&["--join", cut]).fails(&home.folder.join("c"));
        refused.expect(CANNOT_START, &["the invite is cut off", "copy all of it"]);
        let refused = home.b.cli(&["join", cut]);
        refused.expect(6, &["the invite is cut off", "copy all of it"]);
    }
    let mut mistyped = token.clone().into_bytes();
    mistyped[100] = if mistyped[100] == b'a' { b'b' } else { b'a' };
    let mistyped = String::from_utf8(mistyped).expect("text");
    let refused = Launch::new().with(&["--join", &mistyped]).fails(&home.folder.join("c"));
    refused.expect(CANNOT_START, &["the invite is mistyped", "copy it again"]);
    let metrics = home.b.http_raw("GET", "/metrics", b"").1;
    let count = metrics.lines().find(|line| line.contains("/api/v1/join\"") && line.contains("4xx"));
    assert!(count.is_some_and(|line| line.ends_with(" 4")), "{metrics}");
    // None of it used the invite up, nor made the good node leave its household.
    let joined = Daemon::start(&home.folder.join("c"), &Launch::new().with(&["--join", &token]));
    assert_eq!(nodes_of(&home.a), 3);
    drop(joined);
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn a_foreign_invite_is_refused_on_both_sides() {
    let home = Home::new();
    let other = Daemon::start(&home.folder.join("other"), &Launch::new());
    let foreign: InviteToken = other.invite("member", 900).parse().expect("a token");

    // Its issuer is not the node at that address: the joiner notices and proves nothing to it.
    let misdirected = changed(&foreign, |token| token.addresses = vec![home.a.address]);
    let refused = Launch::new().with(&["--join", &misdirected.to_string()]).fails(&home.folder.join("c"));
    refused.expect(CANNOT_START, &["answered instead of", &home.a.short(), &other.short()]);

    // A token of this issuer that names another household: the issuer notices.
    let own: InviteToken = home.a.invite("member", 900).parse().expect("a token");
    let altered = changed(&own, |token| token.household = HouseholdId::from_bytes([7; 32]));
    let refused = Launch::new().with(&["--join", &altered.to_string()]).fails(&home.folder.join("c"));
    refused.expect(CANNOT_START, &["belongs to another household"]);
    assert_eq!(home.a.counter("join_refused_wrong_household"), 1);

    // One that claims more rights than it was made with proves nothing.
    let greedy = changed(&own, |token| token.roles = 3);
    let refused = Launch::new().with(&["--join", &greedy.to_string()]).fails(&home.folder.join("c"));
    refused.expect(CANNOT_START, &["secret does not match"]);
    assert_eq!(home.a.counter("join_refused_bad_proof"), 1);

    assert_eq!((nodes_of(&home.a), nodes_of(&other)), (2, 1));
    home.is_served();
    home.memory_is_bounded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_who_use_one_invite_at_once_one_wins() {
    const JOINERS: usize = 1_000;
    // Each goes on trying until it is told; on a busy machine that takes minutes.
    const STORM: Duration = Duration::from_secs(600);
    let home = Home::new();
    let token: Arc<InviteToken> = Arc::new(home.a.invite("member", 900).parse().expect("a token"));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let start = Arc::new(Barrier::new(JOINERS));
    let joiners = (0..JOINERS).map(|number| {
        let (token, endpoint, start) = (token.clone(), endpoint.clone(), start.clone());
        tokio::spawn(async move {
            let stranger = node::tls::NodeIdentity::from_seed(&noise(32).try_into().expect("32 bytes"));
            let stranger = stranger.expect("a key");
            start.wait().await;
            join_over(&endpoint, &token, &stranger, &format!("joiner {number}"), STORM).await
        })
    });
    let joiners: Vec<_> = joiners.collect();
    // The household goes on meanwhile.
    let served = tokio::task::spawn_blocking(move || {
        for _ in 0..5 {
            home.is_served();
        }
        home
    });
    let (mut winners, mut losers) = (0, BTreeMap::<String, usize>::new());
    for joiner in joiners {
        match joiner.await.expect("a joiner") {
            Ok(_) => winners += 1,
            Err(JoinError::Refused(Refusal::AlreadyUsed)) => *losers.entry("used".into()).or_default() += 1,
            Err(other) => *losers.entry(other.to_string()).or_default() += 1,
        }
    }
    let home = served.await.expect("the household was served");
    assert_eq!(winners, 1, "{losers:?}");
    assert_eq!(losers, BTreeMap::from([("used".into(), JOINERS - 1)]));
    tokio::task::block_in_place(|| {
        assert_eq!(home.a.counter("join_accepted"), 2, "the good peer and the winner");
        // Who lost may have asked more than once; nobody lost without being told.
        assert!(home.a.counter("join_refused_already_used") >= (JOINERS - 1) as u64);
        assert_eq!(nodes_of(&home.a), 3);
        home.a.put("note/after", "storm", &json!(true));
        home.is_served();
        home.memory_is_bounded();
    });
}
