#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::sync::Arc;

use mesh_proto::{FieldName, Value};

use super::*;
use crate::api::fake::FakeLoop;

/// The node of the fake's status, by the start of its name.
const ME: ShortId = ShortId(0xab);
const OTHER: ShortId = ShortId(0xcd);

fn http(token: &str) -> Answer {
    let domain = "home.example.org".parse().unwrap();
    Answer::Http { domain, token: token.into(), key_authorization: format!("{token}.thumbprint") }
}

fn tls_alpn(digest: u8) -> Answer {
    Answer::TlsAlpn { domain: "home.example.org".parse().unwrap(), digest: [digest; 32] }
}

struct Household {
    fake: FakeLoop,
    alive: watch::Sender<BTreeSet<ShortId>>,
    _time: watch::Sender<HouseholdTime>,
    time: watch::Receiver<HouseholdTime>,
    handle: AnswersHandle,
}

struct Gateway {
    served: watch::Receiver<Arc<Served>>,
    serves: watch::Sender<Option<Serves>>,
}

const BOTH: Option<Serves> = Some(Serves { http: true, tls_alpn: true });

impl Household {
    fn new() -> Self {
        let fake = FakeLoop::start();
        let (alive, alive_rx) = watch::channel(BTreeSet::from([ME, OTHER]));
        let (_time, time) = watch::channel(HouseholdTime { ahead_ms: 0, trusted: true });
        let handle = AnswersHandle::new(fake.service(), ME, alive_rx, time.clone());
        Self { fake, alive, _time, time, handle }
    }

    /// This node's own part as a gateway.
    fn gateway(&self, serves: Option<Serves>) -> Gateway {
        let (serves, serves_rx) = watch::channel(serves);
        let (served, owner) = Answers::new(self.fake.service(), ME, self.time.clone(), serves_rx);
        tokio::spawn(owner.run());
        Gateway { served, serves }
    }

    /// Another node says that it is a gateway.
    async fn other(&self) {
        let both = Value::Map(
            [("http-01", true), ("tls-alpn-01", true)].map(|(n, t)| (n.into(), Value::Bool(t))).into(),
        );
        self.fake.called(OTHER).put(&format!("certificate/{OTHER}"), "gateway", both).await;
        self.fake.called(ME);
    }

    async fn stored(&self) -> Vec<crate::service::ObjectView> {
        self.fake.service().list("challenge/", None, 100, false).await.unwrap()
    }

    /// What the other gateway would write, once an answer is there.
    async fn other_acknowledges(&self) {
        let watcher = self.fake.service().watch(vec!["challenge/".into()], None).await.unwrap().watcher;
        loop {
            let next = self.fake.service().next_changes(watcher).await.unwrap();
            let answer = next.changes.into_iter().filter_map(|change| change.object).next();
            if let Some(entry) = answer.as_ref().and_then(Entry::read) {
                let op = entry.acknowledgement(&answer.unwrap().id, OTHER).unwrap();
                return self.fake.service().write(Author::Node, vec![op]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn an_answer_is_given_once_published_and_no_more_once_withdrawn() {
    let household = Household::new();
    let mut here = household.gateway(BOTH);
    household.handle.publish(http("tok")).await.unwrap();
    let given = |served: &Arc<Served>| served.key_authorization("home.example.org", "tok").map(str::to_owned);
    assert_eq!(
        given(&here.served.borrow()).as_deref(),
        Some("tok.thumbprint"),
        "it was there when that returned"
    );
    assert_eq!(here.served.borrow().key_authorization("other.example.org", "tok"), None);
    household.handle.withdraw(&http("tok")).await;
    here.served.wait_for(|served| given(served).is_none()).await.unwrap();
    assert!(household.stored().await.is_empty());
}

#[tokio::test]
async fn a_certificate_is_given_for_the_newest_digest_of_a_name() {
    let household = Household::new();
    let here = household.gateway(BOTH);
    household.handle.publish(tls_alpn(1)).await.unwrap();
    let first = here.served.borrow().challenge_certificate("home.example.org").unwrap();
    assert!(first.cert[0].windows(34).any(|part| part == [&[4, 32][..], &[1; 32]].concat()));
    assert!(here.served.borrow().challenge_certificate("example.org").is_none());
    household.handle.withdraw(&tls_alpn(1)).await;
    household.handle.publish(tls_alpn(2)).await.unwrap();
    let second = here.served.borrow().challenge_certificate("home.example.org").unwrap();
    assert_ne!(first.cert[0], second.cert[0]);
}

#[tokio::test(start_paused = true)]
async fn every_living_gateway_must_acknowledge() {
    let household = Household::new();
    household.other().await;
    let _here = household.gateway(BOTH);
    let refused = household.handle.publish(http("tok")).await.unwrap_err();
    assert_eq!(refused, AnswerError::Unacknowledged(OTHER.to_string()));
    assert!(household.stored().await.is_empty(), "nothing is left behind");
    let (published, ()) = tokio::join!(household.handle.publish(http("tok")), household.other_acknowledges());
    published.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_an_earlier_publication_does_not_count() {
    let household = Household::new();
    household.other().await;
    let _here = household.gateway(BOTH);
    let old = Entry { answer: http("tok"), by: ME, expires_ms: 5 };
    let object = object::name(&old.answer).unwrap();
    let stale = old.acknowledgement(&object, OTHER).unwrap();
    household.fake.service().write(Author::Node, vec![stale]).await.unwrap();
    let refused = household.handle.publish(http("tok")).await.unwrap_err();
    assert_eq!(refused, AnswerError::Unacknowledged(OTHER.to_string()));
}

#[tokio::test]
async fn a_gateway_that_dies_meanwhile_is_not_waited_for() {
    let household = Household::new();
    household.other().await;
    let mut here = household.gateway(BOTH);
    let dies = async {
        here.served
            .wait_for(|served| served.key_authorization("home.example.org", "tok").is_some())
            .await
            .unwrap();
        household.alive.send_replace(BTreeSet::from([ME]));
    };
    let (published, ()) = tokio::join!(household.handle.publish(http("tok")), dies);
    published.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_start_a_gateway_that_is_not_heard_of_yet_is_waited_for() {
    let household = Household::new();
    household.other().await;
    household.alive.send_replace(BTreeSet::from([ME]));
    let _here = household.gateway(BOTH);
    let began = Instant::now();
    let (published, ()) = tokio::join!(household.handle.publish(http("tok")), household.other_acknowledges());
    published.unwrap();
    assert!(began.elapsed() < HEARS_WITHIN, "it has answered");
    household.handle.publish(http("two")).await.unwrap();
    assert!((HEARS_WITHIN..PATIENCE).contains(&began.elapsed()), "it is dead: {:?}", began.elapsed());
    let dead_since = Instant::now();
    household.handle.publish(http("three")).await.unwrap();
    assert!(dead_since.elapsed() < HEARS_WITHIN, "nobody waits for it any more");
}

#[tokio::test(start_paused = true)]
async fn who_answers_no_such_challenge_is_not_waited_for_and_nobody_at_all_is_an_error() {
    let household = Household::new();
    let here = household.gateway(Some(Serves { http: false, tls_alpn: true }));
    household.handle.publish(tls_alpn(1)).await.unwrap();
    let refused = household.handle.publish(http("tok")).await.unwrap_err();
    assert_eq!(refused, AnswerError::NoGateway("http-01"));
    assert!(here.served.borrow().key_authorization("home.example.org", "tok").is_none());
    // Its HTTP port opens.
    here.serves.send_replace(BOTH);
    household.handle.publish(http("tok")).await.unwrap();
    // A node that is no gateway neither gives nor acknowledges.
    here.serves.send_replace(None);
    let mut served = here.served.clone();
    served.wait_for(|served| served.challenge_certificate("home.example.org").is_none()).await.unwrap();
    assert_eq!(household.handle.publish(http("two")).await, Err(AnswerError::NoGateway("http-01")));
}

#[tokio::test]
async fn a_gateway_that_starts_later_gives_what_it_finds() {
    let household = Household::new();
    let first = household.gateway(BOTH);
    household.handle.publish(http("tok")).await.unwrap();
    let mut second = household.gateway(BOTH);
    second
        .served
        .wait_for(|served| served.key_authorization("home.example.org", "tok").is_some())
        .await
        .unwrap();
    drop(first);
}

#[tokio::test]
async fn what_no_authority_may_ask_is_refused_and_what_is_not_called_after_itself_is_not_given() {
    let household = Household::new();
    let mut here = household.gateway(BOTH);
    let long = "a".repeat(257);
    for token in ["", "a/b", "..", "a b", "a%2F", "a\r\nb", &long] {
        assert_eq!(household.handle.publish(http(token)).await, Err(AnswerError::Token), "{token:?}");
    }
    let wild = Answer::TlsAlpn { domain: "*.example.org".parse().unwrap(), digest: [0; 32] };
    assert_eq!(household.handle.publish(wild).await, Err(AnswerError::Token));
    assert!(household.stored().await.is_empty());
    // Written by a node that does not keep to the rules.
    household.handle.publish(http("tok")).await.unwrap();
    let answer = household.stored().await.remove(0).fields[&FieldName::new("answer").unwrap()].value.clone();
    household.fake.put("challenge/00", "answer", answer).await;
    household.fake.put("challenge/01", "answer", Value::from("nonsense")).await;
    household.handle.publish(http("two")).await.unwrap();
    here.served
        .wait_for(|served| served.key_authorization("home.example.org", "two").is_some())
        .await
        .unwrap();
    household.handle.withdraw(&http("tok")).await;
    here.served
        .wait_for(|served| served.key_authorization("home.example.org", "tok").is_none())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn leftovers_are_removed_by_their_maker_and_long_past_by_anybody() {
    let household = Household::new();
    let now = household.time.borrow().now_ms();
    let hour = 3_600_000;
    for (token, by, expires_ms) in [
        ("mine-over", ME, now - 1),
        ("mine-counts", ME, now + hour),
        ("others-over", OTHER, now - hour),
        ("others-long-past", OTHER, now - 25 * hour),
    ] {
        let entry = Entry { answer: http(token), by, expires_ms };
        household.fake.service().write(Author::Node, entry.write().unwrap().1).await.unwrap();
    }
    let mut here = household.gateway(BOTH);
    here.served
        .wait_for(|served| served.key_authorization("home.example.org", "mine-counts").is_some())
        .await
        .unwrap();
    for gone in ["mine-over", "others-over", "others-long-past"] {
        assert_eq!(here.served.borrow().key_authorization("home.example.org", gone), None);
    }
    let watcher = household.fake.service().watch(vec!["challenge/".into()], None).await.unwrap().watcher;
    while household.stored().await.len() > 2 {
        household.fake.service().next_changes(watcher).await.unwrap();
    }
    let left: Vec<_> =
        household.stored().await.iter().filter_map(Entry::read).map(|entry| entry.answer).collect();
    assert!(left.contains(&http("mine-counts")) && left.contains(&http("others-over")));
}

#[tokio::test]
async fn no_more_is_held_than_there_is_room_for() {
    let household = Household::new();
    let expires_ms = household.time.borrow().now_ms() + 60_000;
    for number in 0..300 {
        let entry = Entry { answer: http(&format!("tok{number}")), by: OTHER, expires_ms };
        household.fake.service().write(Author::Node, entry.write().unwrap().1).await.unwrap();
    }
    let mut here = household.gateway(BOTH);
    here.served.wait_for(|served| served.len() > 0).await.unwrap();
    let mut most = here.served.borrow().len();
    household.handle.withdraw(&http("tok1")).await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
        most = most.max(here.served.borrow().len());
    }
    assert!((255..=256).contains(&most), "{most}");
}

#[test]
fn nothing_of_an_answer_is_in_its_debug_output() {
    assert_eq!(format!("{:?}", http("tok")), "http-01 for home.example.org");
}
