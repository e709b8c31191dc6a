//! Admissions over real QUIC on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    io,
    net::UdpSocket,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_proto::HouseholdId;
use quinn::Endpoint;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{admission::Redemption, exchange::JoinRequest, invite::Binding, join::join_over, *};
use crate::{
    tls::{
        NodeIdentity,
        identity::{ALPN_JOIN, SERVER_NAME},
    },
    transport::{DialError, Limits, testing::*},
};

const NOW: u64 = 1_800_000_000;

/// A node that admits whoever has an invite.
struct Issuer {
    node: TestNode,
    desk: InviteDesk,
    counters: Arc<JoinCounters>,
    saved: Arc<Mutex<Vec<u8>>>,
    disk_full: Arc<AtomicBool>,
    now: Arc<AtomicU64>,
    admitted: Arc<Mutex<Vec<mesh_proto::NodeId>>>,
}

fn household() -> HouseholdId {
    HouseholdId::from_bytes([1; 32])
}

impl Issuer {
    fn start(limits: Limits) -> Self {
        Self::on(TestNode::with_limits(1, limits))
    }

    fn on(mut node: TestNode) -> Self {
        let saved = Arc::new(Mutex::new(Vec::new()));
        let disk_full = Arc::new(AtomicBool::new(false));
        let now = Arc::new(AtomicU64::new(NOW));
        let admitted = Arc::new(Mutex::new(Vec::new()));
        let (file, full, time) = (saved.clone(), disk_full.clone(), now.clone());
        let desk = InviteDesk::start(
            InviteBook::default(),
            node.identity.id(),
            household(),
            Box::new(move |bytes| {
                if full.load(Ordering::SeqCst) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                *file.lock().unwrap() = bytes.to_vec();
                Ok(())
            }),
            Box::new(move || {
                let unix = time.load(Ordering::SeqCst);
                Moment { unix, running: unix - NOW }
            }),
        );
        let (admit, mut requests) = mpsc::channel::<AdmitRequest>(8);
        let (list, file) = (admitted.clone(), saved.clone());
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                // By now the use of the invite must be on disk.
                let book = InviteBook::from_bytes(&file.lock().unwrap()).unwrap();
                assert!(book.list().iter().any(|invite| invite.used_by == Some(request.node)));
                let mut list = list.lock().unwrap();
                if !list.contains(&request.node) {
                    list.push(request.node);
                }
                let answer = if request.name == "unwanted" {
                    Err("this key was removed from the household".into())
                } else {
                    Ok(vec![request.node.as_bytes().to_vec(), request.name.into_bytes()])
                };
                let _ = request.reply.send(answer);
            }
        });
        let counters = Arc::new(JoinCounters::default());
        let joins = std::mem::replace(&mut node.joins, mpsc::channel(1).1);
        let (_, addresses) = watch::channel(vec![node.address]);
        tokio::spawn(serve_joins(joins, desk.clone(), admit, addresses, counters.clone()));
        Self { node, desk, counters, saved, disk_full, now, admitted }
    }

    async fn invite(&self) -> InviteToken {
        self.desk.create(900, 1, vec![self.node.address]).await.unwrap()
    }

    async fn refusal(&self, token: &InviteToken, seed: u8) -> Refusal {
        match join(token, &identity(seed), "kitchen").await.unwrap_err() {
            JoinError::Refused(refusal) => refusal,
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn an_invite_admits_one_node_once() {
    let issuer = Issuer::start(Limits::default());
    let token: InviteToken = issuer.invite().await.to_string().parse().unwrap();
    let joined = join(&token, &identity(2), "kitchen").await.unwrap();
    let expected = Joined {
        household: household(),
        issuer: issuer.node.identity.id(),
        statements: vec![identity(2).id().as_bytes().to_vec(), b"kitchen".to_vec()],
        addresses: vec![issuer.node.address],
    };
    assert_eq!(joined, expected);
    // The answer may have been lost: the same key gets it again, another key does not.
    assert_eq!(join(&token, &identity(2), "kitchen").await.unwrap(), expected);
    assert_eq!(issuer.refusal(&token, 3).await, Refusal::AlreadyUsed);
    assert_eq!(issuer.counters.get("join_accepted"), 2);
    assert_eq!(issuer.counters.get("join_refused_already_used"), 1);
    assert_eq!(*issuer.admitted.lock().unwrap(), [identity(2).id()]);
    assert_eq!(issuer.node.counters.get("link_up"), 0);
    let saved = issuer.saved.lock().unwrap().clone();
    assert_eq!(InviteBook::from_bytes(&saved).unwrap().list()[0].used_by, Some(identity(2).id()));
}

#[tokio::test]
async fn where_udp_does_not_pass_an_invite_admits_over_a_websocket() {
    let web = crate::listener::tests::Web::start(crate::listener::TcpLimits::default()).await;
    let at = web.address();
    let issuer = Issuer::on(web.mesh);
    let token = issuer.desk.create(900, 1, vec![at]).await.unwrap();
    // An endpoint that is closed reaches nobody.
    let endpoint = Endpoint::client(loopback()).unwrap();
    endpoint.close(0_u8.into(), b"");
    let joined = join_over(&endpoint, &token, &identity(2), "kitchen", PATIENCE).await.unwrap();
    assert_eq!(joined.statements, [identity(2).id().as_bytes().to_vec(), b"kitchen".to_vec()]);
    let again = join_over(&endpoint, &token, &identity(3), "hall", PATIENCE).await.unwrap_err();
    assert!(matches!(again, JoinError::Refused(Refusal::AlreadyUsed)), "{again}");
    // The proof is bound to its own session and key, as over QUIC.
    let forged =
        InviteToken { secret: token::Secret([0; 32]), ..issuer.desk.create(900, 1, vec![at]).await.unwrap() };
    let refused = join_over(&endpoint, &forged, &identity(4), "attic", PATIENCE).await.unwrap_err();
    assert!(matches!(refused, JoinError::Refused(Refusal::BadProof)), "{refused}");
    assert_eq!((issuer.counters.get("join_accepted"), issuer.node.counters.get("link_up")), (1, 0));
}

#[tokio::test]
async fn every_bad_invite_is_refused_by_name() {
    let issuer = Issuer::start(Limits::default());
    let good = issuer.invite().await;

    let unknown = InviteToken { id: TokenId([9; 16]), ..good.clone() };
    assert_eq!(issuer.refusal(&unknown, 2).await, Refusal::Unknown);
    let forged = InviteToken { secret: token::Secret([0; 32]), ..good.clone() };
    assert_eq!(issuer.refusal(&forged, 2).await, Refusal::BadProof);
    let greedy = InviteToken { roles: 255, ..good.clone() };
    assert_eq!(issuer.refusal(&greedy, 2).await, Refusal::BadProof);
    let foreign = InviteToken { household: HouseholdId::from_bytes([2; 32]), ..good.clone() };
    assert_eq!(issuer.refusal(&foreign, 2).await, Refusal::WrongHousehold);
    let JoinError::Refused(Refusal::Rejected(why)) = join(&good, &identity(2), "unwanted").await.unwrap_err()
    else {
        panic!()
    };
    assert_eq!(why, "this key was removed from the household");
    let late = issuer.invite().await;
    issuer.now.fetch_add(900, Ordering::SeqCst);
    assert_eq!(issuer.refusal(&late, 3).await, Refusal::Expired);
    let revoked = issuer.invite().await;
    issuer.desk.revoke(revoked.id).await.unwrap();
    assert_eq!(issuer.refusal(&revoked, 3).await, Refusal::Unknown);
    for (name, count) in [
        ("join_refused_unknown", 2),
        ("join_refused_bad_proof", 2),
        ("join_refused_wrong_household", 1),
        ("join_refused_rejected", 1),
        ("join_refused_expired", 1),
        ("join_accepted", 0),
    ] {
        assert_eq!(issuer.counters.get(name), count, "{name}");
    }
    for (hint, text) in [
        ("hearth invite list", InviteError::NoSuch.to_string()),
        ("hearth invite revoke ID", InviteError::TooMany.to_string()),
        ("hearth invite list", TokenError::NotAnId.to_string()),
        ("hearth nodes", Refusal::AlreadyUsed.to_string()),
    ] {
        assert!(text.contains(&format!("`{hint}`")), "{text}");
        // What is named is a command, as `hearth` itself parses it.
        clap::Parser::try_parse_from(hint.split(' ')).map(|_: crate::cli::args::Cli| ()).unwrap();
    }
    for refusal in [Refusal::Unknown, Refusal::Busy, Refusal::VersionTooNew, Refusal::NotSaved] {
        assert!(refusal.to_string().contains(':'), "a way out: {refusal}");
    }
}

#[tokio::test]
async fn what_cannot_be_saved_is_not_granted() {
    let issuer = Issuer::start(Limits::default());
    let token = issuer.invite().await;
    issuer.disk_full.store(true, Ordering::SeqCst);
    assert_eq!(issuer.refusal(&token, 2).await, Refusal::NotSaved);
    assert!(issuer.desk.create(900, 1, vec![]).await.is_err());
    assert!(issuer.admitted.lock().unwrap().is_empty());
    issuer.disk_full.store(false, Ordering::SeqCst);
    join(&token, &identity(3), "kitchen").await.unwrap();
}

#[tokio::test]
async fn another_node_at_the_address_is_never_asked() {
    let issuer = Issuer::start(Limits::default());
    let other = TestNode::start(9);
    let silent = UdpSocket::bind(loopback()).unwrap();
    let token = InviteToken { addresses: vec![other.address], ..issuer.invite().await };
    let error = join(&token, &identity(2), "kitchen").await.unwrap_err();
    assert!(matches!(&error, JoinError::NotReached(DialError::Failed(_))), "{error}");
    let words = error.to_string();
    assert!(words.contains(&other.address.to_string()) && words.contains("answered instead"), "{words}");
    // With the right address among the wrong ones it succeeds at once.
    let addresses = vec![other.address, silent.local_addr().unwrap(), issuer.node.address];
    let token = InviteToken { addresses, ..token };
    join(&token, &identity(2), "kitchen").await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_is_away_is_named_with_its_addresses() {
    let issuer = Issuer::start(Limits::default());
    let silent = UdpSocket::bind(loopback()).unwrap();
    let address = silent.local_addr().unwrap();
    let token = InviteToken { addresses: vec![address], ..issuer.invite().await };
    let endpoint = Endpoint::client(loopback()).unwrap();
    let outcome = join_over(&endpoint, &token, &identity(2), "kitchen", Duration::from_millis(300)).await;
    assert!(matches!(outcome, Err(JoinError::Deadline)));
    let nowhere = InviteToken { addresses: vec![], ..token };
    let error = join(&nowhere, &identity(2), "kitchen").await.unwrap_err();
    assert!(matches!(error, JoinError::NotReached(DialError::NoAddress)));
}

#[tokio::test]
async fn malformed_newer_and_slow_requests_are_counted_and_a_good_one_is_served() {
    let limits = Limits { join_deadline: Duration::from_secs(2), ..Limits::default() };
    let issuer = Issuer::start(limits);
    let mut endpoint = Endpoint::client(loopback()).unwrap();
    endpoint.set_default_client_config(identity(2).client_quic(ALPN_JOIN).unwrap());
    let mut open = Vec::new();
    for bytes in [
        [0xff_u8, 0xff, 0xff, 0xff].as_slice(),
        &[0, 0, 0, 3, 1, 0xff, 0xff],
        &[0, 0, 0, 0],
        &[0, 0, 0, 2, 9, 9],
        &[0, 0, 1, 0, 1],
    ] {
        let connection = endpoint.connect(issuer.node.address, SERVER_NAME).unwrap().await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        open.push(tokio::spawn(async move {
            let _ = recv.read_to_end(1_000).await;
            drop(send);
            connection.close(0_u8.into(), b"");
        }));
    }
    join(&issuer.invite().await, &identity(3), "kitchen").await.unwrap();
    eventually("bad requests are counted", || {
        let counters = &issuer.counters;
        (counters.get("join_refused_malformed"), counters.get("join_refused_version")) == (3, 1)
            && counters.get("join_timeout") == 1
    })
    .await;
    assert_eq!(issuer.refusal_of_name("").await, Refusal::BadName);
    assert_eq!(issuer.refusal_of_name("a\u{7}b").await, Refusal::BadName);
}

impl Issuer {
    async fn refusal_of_name(&self, name: &str) -> Refusal {
        let token = self.invite().await;
        let Err(JoinError::Refused(refusal)) = join(&token, &identity(4), name).await else { panic!() };
        refusal
    }
}

/// A thousand keys ask the owner of the invites at once.
#[tokio::test]
async fn of_a_thousand_concurrent_uses_one_wins() {
    let issuer = Issuer::start(Limits::default());
    let token = issuer.invite().await;
    let mut uses = JoinSet::new();
    for number in 0..1_000_u16 {
        let mut key = [5; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        let joiner = mesh_proto::NodeId::from_bytes(key);
        let binding = Binding {
            exporter: [number as u8; 32],
            joiner,
            issuer: token.issuer,
            household: token.household,
        };
        let request = JoinRequest {
            household: token.household,
            issuer: token.issuer,
            token: token.id,
            proof: binding.prove(&token),
            name: "kitchen".into(),
        };
        let (desk, exporter) = (issuer.desk.clone(), binding.exporter);
        uses.spawn(async move { desk.redeem(Redemption { request, joiner, exporter }).await });
    }
    let outcomes = uses.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let used = outcomes.iter().filter(|outcome| **outcome == Err(Refusal::AlreadyUsed)).count();
    assert_eq!(used, 999);
}

/// A thousand keys dial at once; most are told to try later, one wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_concurrent_connections_one_wins() {
    let issuer = Issuer::start(Limits::default());
    let token = Arc::new(issuer.invite().await);
    let endpoint = Endpoint::client(loopback()).unwrap();
    let mut uses = JoinSet::new();
    for number in 0..1_000_u16 {
        let mut seed = [5; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let (token, endpoint) = (token.clone(), endpoint.clone());
        uses.spawn(async move {
            let identity = NodeIdentity::from_seed(&seed).unwrap();
            join_over(&endpoint, &token, &identity, "kitchen", PATIENCE * 2).await
        });
    }
    // The first may take its time on a busy machine; the others go on trying for a while after it.
    let mut outcomes = Vec::new();
    let mut end = Instant::now() + PATIENCE;
    while let Ok(Some(outcome)) = timeout_at(end, uses.join_next()).await {
        outcomes.push(outcome.unwrap());
        if outcomes.last().is_some_and(Result::is_ok) {
            end = Instant::now() + Duration::from_secs(5);
        }
    }
    drop(uses);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(issuer.admitted.lock().unwrap().len(), 1);
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        let expected = matches!(
            error,
            JoinError::Refused(Refusal::AlreadyUsed | Refusal::Busy)
                | JoinError::NotReached(_)
                | JoinError::Broken(_)
                | JoinError::Deadline
        );
        assert!(expected, "{error:?}");
    }
    // The flood has left nothing behind: the next invite works.
    let token = issuer.invite().await;
    join(&token, &identity(200), "hall").await.unwrap();
}

/// Strangers that open a connection, send one byte and sit there.
async fn sit(issuer: &Issuer, from: u8, count: u8) -> Vec<(quinn::Connection, quinn::SendStream)> {
    let mut sitting = Vec::new();
    for number in 0..count {
        let mut endpoint = Endpoint::client(([127, 0, 0, from], 0).into()).unwrap();
        let key = NodeIdentity::from_seed(&[100 + 10 * from + number; 32]).unwrap();
        endpoint.set_default_client_config(key.client_quic(ALPN_JOIN).unwrap());
        let connection = endpoint.connect(issuer.node.address, SERVER_NAME).unwrap().await.unwrap();
        // One that is told to try later has lost already.
        let Ok((mut send, _)) = connection.open_bi().await else { continue };
        let _ = send.write_all(&[0]).await;
        sitting.push((connection, send));
    }
    sitting
}

#[tokio::test]
async fn strangers_that_only_sit_there_keep_nobody_out() {
    let limits = Limits { join_deadline: PATIENCE, ..Limits::default() };
    let issuer = Issuer::start(limits);
    let counted = |name| issuer.node.counters.get(name);
    let from = |address: [u8; 4]| Endpoint::client((address, 0).into()).unwrap();
    // One address has its own places only: of ten, six are refused, or replace an older one of it.
    let many = sit(&issuer, 2, 10).await;
    eventually("six were too many", || counted("join_busy") + counted("join_evicted") == 6).await;
    let evicted = counted("join_evicted");
    let token = issuer.invite().await;
    join_over(&from([127, 0, 0, 9]), &token, &identity(2), "kitchen", PATIENCE).await.unwrap();
    assert_eq!(counted("join_evicted"), evicted, "there was room for others");
    // Somebody else at the same address gets in as well.
    let token = issuer.invite().await;
    join_over(&from([127, 0, 0, 2]), &token, &identity(3), "hall", PATIENCE).await.unwrap();
    assert_eq!(counted("join_evicted"), evicted + 1);
    // All places taken, by many addresses.
    let mut others = Vec::new();
    for address in 3..7 {
        others.push(sit(&issuer, address, 4).await);
    }
    let evicted = counted("join_evicted");
    let token = issuer.invite().await;
    join_over(&from([127, 0, 0, 9]), &token, &identity(4), "attic", PATIENCE).await.unwrap();
    assert!(counted("join_evicted") > evicted);
    assert_eq!(issuer.counters.get("join_timeout"), 0, "nobody had to wait for a deadline");
    assert_eq!(issuer.counters.get("join_accepted"), 3);
    drop((many, others));
}
