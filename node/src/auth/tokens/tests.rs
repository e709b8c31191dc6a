#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use mesh_proto::{FieldName, ObjectId, Value, kinds::Author};

use super::{owner::Tokens, stored::object, *};
use crate::{
    api::fake::FakeLoop,
    service::{HouseholdTime, Op},
};

const DAY_MS: i64 = 24 * 3_600_000;

fn start() -> (FakeLoop, TokensHandle) {
    let fake = FakeLoop::start();
    let (handle, tokens) = Tokens::new(fake.service());
    tokio::spawn(tokens.run());
    (fake, handle)
}

/// The same by a clock that the test turns.
fn timed(trusted: bool) -> (FakeLoop, TokensHandle, watch::Sender<HouseholdTime>) {
    let fake = FakeLoop::start();
    let (turn, time) = watch::channel(HouseholdTime { ahead_ms: 0, trusted });
    let (handle, tokens) = Tokens::new(fake.service());
    tokio::spawn(tokens.by(time).run());
    (fake, handle, turn)
}

fn wanted(role: Role) -> Wanted {
    Wanted { role, label: "wall".into(), scope: WHOLE.clone(), end: None, by: None, ends_ms: None }
}

fn kitchen() -> Scope {
    Scope { areas: vec!["kitchen".into()], ..Scope::default() }
}

fn hour() -> Option<End> {
    Some(End::After(Duration::from_secs(3_600)))
}

#[tokio::test]
async fn a_token_opens_what_its_role_says_until_it_is_revoked() {
    let (fake, tokens) = start();
    let (id, token) = tokens.create(Role::Operator, "script".into()).await.unwrap();
    assert!(token.expose().starts_with("hth_") && token.expose().len() == 4 + 52);
    let grant = tokens.verify(token.clone(), None).await.unwrap();
    assert_eq!((grant.id, grant.role, grant.label.as_str()), (id.clone(), Role::Operator, "script"));
    assert!(grant.scope.is_whole());
    let stored = fake.service().get(object(&id).unwrap()).await.unwrap().unwrap();
    assert!(!format!("{stored:?}").contains(&token.expose()[4..]), "only the hash is stored");
    assert_eq!(format!("{token:?}"), "<secret>");
    let listed = &tokens.list().await.unwrap()[0];
    assert_eq!(
        (listed.label.as_str(), listed.by.as_str(), listed.expires_ms),
        ("script", "setup-code", None)
    );
    tokens.revoke(id.clone()).await.unwrap();
    assert_eq!(tokens.verify(token, None).await, Err(Denied::Unknown));
    assert_eq!(tokens.revoke(id).await, Err(TokenError::NotFound));
    assert_eq!(tokens.denied(), 1);
}

#[tokio::test]
async fn tokens_of_other_nodes_count_when_they_arrive_and_stop_when_they_go() {
    let (fake, here) = start();
    let (there, task) = Tokens::new(fake.service());
    tokio::spawn(task.run());
    let confined = Wanted { scope: kitchen(), end: hour(), ..wanted(Role::Viewer) };
    let Made { id, token, .. } = there.make(confined).await.unwrap();
    let mut live = here.live();
    live.wait_for(|live| live.contains_key(&id)).await.unwrap();
    let grant = here.verify(token.clone(), None).await.unwrap();
    assert_eq!((grant.role, grant.scope), (Role::Viewer, kitchen()), "the scope is the same everywhere");
    there.revoke(id.clone()).await.unwrap();
    live.wait_for(|live| !live.contains_key(&id)).await.unwrap();
    assert_eq!(here.verify(token, None).await, Err(Denied::Unknown));
}

#[tokio::test]
async fn a_restart_honours_the_tokens_it_finds() {
    let (fake, first) = start();
    let (id, token) = first.create(Role::Admin, String::new()).await.unwrap();
    let (second, task) = Tokens::new(fake.service());
    tokio::spawn(task.run());
    assert_eq!(second.verify(token, None).await.unwrap().id, id);
}

#[tokio::test]
async fn wrong_tokens_are_paced_per_address_and_right_ones_are_not() {
    let (_fake, tokens) = start();
    let (_, right) = tokens.create(Role::Admin, String::new()).await.unwrap();
    let (noisy, calm) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])));
    let guess = || Secret::new("hth_guess");
    for _ in 0..6 {
        assert_eq!(tokens.verify(guess(), noisy).await, Err(Denied::Unknown));
    }
    assert!(matches!(tokens.verify(guess(), noisy).await, Err(Denied::Paced { retry_after_s: 1..=2 })));
    assert_eq!(tokens.verify(guess(), calm).await, Err(Denied::Unknown));
    assert!(tokens.verify(right, noisy).await.is_ok());
}

#[tokio::test]
async fn what_is_no_token_is_refused_and_nothing_is_made() {
    let (_fake, tokens) = start();
    let long = Scope { prefixes: vec!["note/".into(); 65], ..Scope::default() };
    let years = Some(End::After(Duration::from_secs(MAX_LIFE_S + 1)));
    for (wanted, error) in [
        (Wanted { label: "x".repeat(65), ..wanted(Role::Viewer) }, TokenError::Label),
        (Wanted { label: "a\nb".into(), ..wanted(Role::Viewer) }, TokenError::Label),
        (Wanted { scope: kitchen(), ..wanted(Role::Admin) }, TokenError::ConfinedAdmin),
        (Wanted { scope: long, ..wanted(Role::Viewer) }, ScopeError::TooMany(65).into()),
        (Wanted { end: Some(End::At(1)), ..wanted(Role::Viewer) }, TokenError::End),
        (Wanted { end: Some(End::After(Duration::ZERO)), ..wanted(Role::Viewer) }, TokenError::End),
        (Wanted { end: years, ..wanted(Role::Viewer) }, TokenError::End),
    ] {
        assert_eq!(tokens.make(wanted).await.unwrap_err(), error);
    }
    assert!(tokens.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn no_token_is_made_by_one_that_ends_sooner() {
    let (_fake, tokens) = start();
    let maker = tokens.make(Wanted { end: hour(), ..wanted(Role::Admin) }).await.unwrap();
    let who = Who::Token { id: maker.id, label: String::new() };
    let asked = |end| Wanted { end, by: Some(who.clone()), ..wanted(Role::Viewer) };
    let later = Some(End::After(Duration::from_secs(7_200)));
    for end in [None, later] {
        assert_eq!(tokens.make(asked(end)).await.unwrap_err(), TokenError::Outlives);
    }
    let sooner = tokens.make(asked(Some(End::After(Duration::from_secs(60))))).await.unwrap();
    let listed = tokens.list().await.unwrap();
    let shown = listed.iter().find(|view| view.id == sooner.id).unwrap();
    assert_eq!(shown.by, who.to_string());
}

#[tokio::test]
async fn who_came_by_an_issuer_or_by_a_token_that_is_gone_leaves_nothing_that_lasts_longer() {
    let (_fake, tokens, _turn) = timed(true);
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    let outside = Some(Who::Outside { issuer: "work".into(), subject: "ann".into() });
    let asked =
        |end| Wanted { end, by: outside.clone(), ends_ms: Some(now + 600_000), ..wanted(Role::Viewer) };
    for end in [None, hour()] {
        assert_eq!(tokens.make(asked(end)).await.unwrap_err(), TokenError::Outlives);
    }
    let end = Some(End::After(Duration::from_secs(60)));
    tokens.make(asked(end)).await.unwrap();
    let (id, _) = tokens.create(Role::Admin, String::new()).await.unwrap();
    tokens.revoke(id.clone()).await.unwrap();
    let by = Some(Who::Token { id, label: String::new() });
    let late = tokens.make(Wanted { end, by, ..wanted(Role::Admin) }).await;
    assert_eq!(late.unwrap_err(), TokenError::Outlives, "its maker was revoked");
}

#[tokio::test]
async fn a_token_is_revoked_also_where_the_disk_is_full_and_goes_once_it_is_not() {
    let (fake, tokens, turn) = timed(true);
    let (id, token) = tokens.create(Role::Admin, String::new()).await.unwrap();
    let gone = object(&id).unwrap();
    fake.break_store(Some("full"));
    for _ in 0..2 {
        assert!(matches!(tokens.revoke(id.clone()).await, Err(TokenError::Service(_))));
        assert_eq!(tokens.verify(token.clone(), None).await, Err(Denied::Unknown));
        assert!(!tokens.live().borrow().contains_key(&id));
        // Observed anew, it is still there, and is not believed.
        fake.forget_observers().await;
    }
    assert!(tokens.list().await.unwrap().is_empty());
    assert_eq!(tokens.verify(token, None).await, Err(Denied::Unknown));
    assert!(fake.service().get(gone.clone()).await.unwrap().is_some());
    fake.break_store(None);
    for ahead_ms in 0.. {
        if fake.service().get(gone.clone()).await.unwrap().is_none() {
            break;
        }
        turn.send_replace(HouseholdTime { ahead_ms, trusted: true });
        tokio::task::yield_now().await;
    }
    assert_eq!(tokens.revoke("ffff".into()).await, Err(TokenError::NotFound));
}

#[tokio::test]
async fn a_token_ends_is_shown_for_a_week_and_goes() {
    let (fake, tokens, turn) = timed(true);
    let Made { id, token, .. } = tokens.make(Wanted { end: hour(), ..wanted(Role::Viewer) }).await.unwrap();
    let (stays, _) = tokens.create(Role::Viewer, String::new()).await.unwrap();
    let mut live = tokens.live();
    live.wait_for(|live| live.contains_key(&id)).await.unwrap();
    assert!(tokens.verify(token.clone(), None).await.is_ok());
    turn.send_replace(HouseholdTime { ahead_ms: DAY_MS, trusted: true });
    // What observers go by: they end with it.
    live.wait_for(|live| !live.contains_key(&id)).await.unwrap();
    assert_eq!(tokens.verify(token.clone(), None).await, Err(Denied::Expired));
    let listed = tokens.list().await.unwrap();
    assert!(listed.iter().any(|view| view.id == id && view.expired));
    turn.send_replace(HouseholdTime { ahead_ms: 9 * DAY_MS, trusted: true });
    while tokens.list().await.unwrap().len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tokens.verify(token, None).await, Err(Denied::Unknown));
    assert!(
        fake.service().get(object(&id).unwrap()).await.unwrap().is_none(),
        "by the node whose part it is"
    );
    assert!(live.borrow().contains_key(&stays));
}

#[tokio::test]
async fn what_a_use_leaves_of_a_token_that_was_revoked_meanwhile_goes_after_a_week() {
    let fake = FakeLoop::start();
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    fake.go_by(move || now);
    let (turn, time) = watch::channel(HouseholdTime { ahead_ms: 0, trusted: true });
    // It was used on a node that had not heard of it, before this one was started.
    fake.put("token/ff", "used", Value::Int(5)).await;
    let (tokens, owner) = Tokens::new(fake.service());
    tokio::spawn(owner.by(time).run());
    let (stays, _) = tokens.create(Role::Viewer, String::new()).await.unwrap();
    let is_there = async || fake.service().get(object("ff").unwrap()).await.unwrap().is_some();
    turn.send_replace(HouseholdTime { ahead_ms: 6 * DAY_MS, trusted: true });
    for _ in 0..100 {
        assert!(is_there().await, "others may not have heard yet that it is revoked");
    }
    turn.send_replace(HouseholdTime { ahead_ms: 8 * DAY_MS, trusted: true });
    let goes = async {
        while is_there().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), goes).await.expect("it is still there");
    let listed: Vec<_> = tokens.list().await.unwrap().into_iter().map(|view| view.id).collect();
    assert_eq!(listed, [stays]);
}

#[tokio::test]
async fn a_clock_that_is_not_known_ends_no_token_and_opens_none_that_has_ended() {
    let (fake, tokens, turn) = timed(true);
    let Made { id, token, .. } = tokens.make(Wanted { end: hour(), ..wanted(Role::Viewer) }).await.unwrap();
    // A restart without a battery and without a network: years behind, and nobody vouches for it.
    turn.send_replace(HouseholdTime { ahead_ms: -1_000 * DAY_MS, trusted: false });
    assert!(tokens.verify(token.clone(), None).await.is_ok());
    let refused = tokens.make(Wanted { end: hour(), ..wanted(Role::Viewer) }).await.unwrap_err();
    assert_eq!(refused, TokenError::NoTime);
    // Somebody wrote about a token a day after its end: so late it is.
    let later = tokens.list().await.unwrap()[0].expires_ms.unwrap() + 1;
    fake.go_by(move || later);
    let label = Op::Set(object(&id).unwrap(), FieldName::new("label").unwrap(), Value::from("found"));
    fake.service().write(Author::Node, vec![label]).await.unwrap();
    tokens.live().wait_for(|live| !live.contains_key(&id)).await.unwrap();
    assert_eq!(tokens.verify(token, None).await, Err(Denied::Expired));
}

#[tokio::test]
async fn the_last_use_is_said_once_in_ten_minutes() {
    let (fake, tokens, turn) = timed(true);
    let Made { id, token, .. } = tokens.make(wanted(Role::Viewer)).await.unwrap();
    let used = async || {
        let object = fake.service().get(object(&id).unwrap()).await.unwrap().unwrap();
        object.fields.get(&FieldName::new("used").unwrap()).and_then(|field| field.value.as_int())
    };
    assert_eq!(used().await, None);
    tokens.verify(token.clone(), None).await.unwrap();
    while used().await.is_none() {
        tokio::task::yield_now().await;
    }
    let first = used().await;
    while tokens.list().await.unwrap()[0].used_ms.is_none() {
        tokio::task::yield_now().await;
    }
    for ahead_ms in [60_000, 599_000] {
        turn.send_replace(HouseholdTime { ahead_ms, trusted: true });
        tokens.verify(token.clone(), None).await.unwrap();
    }
    // Answered after whatever was written before it.
    fake.service().status().await.unwrap();
    assert_eq!(used().await, first);
    assert_eq!(tokens.list().await.unwrap()[0].used_ms, first.map(|ms| u64::try_from(ms).unwrap()));
}

/// The object of a token whose secret is `hth_x`.
fn stored(fields: &[(&str, Value)]) -> Vec<Op> {
    let object = ObjectId::new("token/aa").unwrap();
    let hash = Value::Bytes(blake3::hash(b"hth_x").as_bytes().as_slice().into());
    let fields = fields.iter().cloned().chain([("hash", hash)]);
    fields.map(|(name, value)| Op::Set(object.clone(), FieldName::new(name).unwrap(), value)).collect()
}

#[tokio::test]
async fn a_token_of_before_there_were_scopes_is_honoured() {
    let (fake, tokens) = start();
    let old = stored(&[
        ("role", Value::from("admin")),
        ("label", Value::from("phone")),
        ("created", Value::Int(5)),
    ]);
    fake.service().write(Author::Node, old).await.unwrap();
    tokens.live().wait_for(|live| live.contains_key("aa")).await.unwrap();
    let listed = &tokens.list().await.unwrap()[0];
    assert_eq!((listed.by.as_str(), listed.expires_ms, listed.used_ms), ("", None, None));
    let grant = tokens.verify(Secret::new("hth_x"), None).await.unwrap();
    assert_eq!((grant.role, grant.scope.is_whole()), (Role::Admin, true));
}

#[tokio::test]
async fn a_token_that_is_not_understood_to_the_last_word_opens_nothing() {
    let viewer = ("limited", Value::from("viewer"));
    let empty = Value::Map(Default::default());
    for fields in [
        &[("role", Value::from("node"))][..],
        &[("role", Value::from("king"))],
        &[],
        &[viewer.clone(), ("scope", Value::from("kitchen"))],
        &[viewer.clone(), ("scope", empty)],
        &[viewer.clone(), ("expires", Value::from("tomorrow"))],
        &[viewer.clone(), ("expires", Value::Int(-1))],
        &[("limited", Value::from("admin")), ("scope", kitchen().to_value())],
    ] {
        let (fake, tokens) = start();
        fake.service().write(Author::Node, stored(fields)).await.unwrap();
        let (other, _) = tokens.create(Role::Viewer, String::new()).await.unwrap();
        tokens.live().wait_for(|live| live.contains_key(&other)).await.unwrap();
        assert_eq!(tokens.verify(Secret::new("hth_x"), None).await, Err(Denied::Unknown), "{fields:?}");
    }
}

#[tokio::test]
async fn a_node_of_before_there_were_scopes_finds_no_role_in_a_token_with_one() {
    let (fake, tokens) = start();
    for (scope, end) in [(kitchen(), None), (WHOLE.clone(), hour())] {
        let made = tokens.make(Wanted { scope, end, ..wanted(Role::Operator) }).await.unwrap();
        let object = fake.service().get(object(&made.id).unwrap()).await.unwrap().unwrap();
        assert!(!object.fields.contains_key(&FieldName::new("role").unwrap()));
        assert_eq!(tokens.verify(made.token, None).await.unwrap().role, Role::Operator);
    }
}
