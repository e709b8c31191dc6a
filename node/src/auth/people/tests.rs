//! The owner of users and sessions over an event loop in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{net::IpAddr, time::Duration};

use mesh_proto::{FieldName, ObjectId, Value, kinds::Author};
use tokio::sync::watch;

use super::*;
use crate::{
    api::fake::{FakeLoop, TestFolder},
    auth::{
        passwords::PasswordRule,
        sessions::{ABSOLUTE_MS, IDLE_MS, MAX_PER_USER, MAX_SESSIONS, PREFIX, Session},
    },
    service::{HouseholdTime, Op},
};

/// The owner over this event loop, with a clock that nobody moves.
pub(crate) fn people(fake: &FakeLoop, folder: &TestFolder) -> PeopleHandle {
    Node::start(fake, folder).people
}

struct Node {
    people: PeopleHandle,
    time: watch::Sender<HouseholdTime>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    fn start(fake: &FakeLoop, folder: &TestFolder) -> Self {
        let (time, at) = watch::channel(HouseholdTime { ahead_ms: 0, trusted: true });
        let (stop, shutdown) = watch::channel(false);
        let parts =
            PeopleParts { service: fake.service(), state_dir: folder.path().to_owned(), time: at, shutdown };
        let (people, owner) = People::open(parts).unwrap();
        let task = tokio::spawn(owner.run());
        Self { people, time, stop, task }
    }

    fn advance(&self, ms: u64) {
        self.time.send_modify(|time| time.ahead_ms += i64::try_from(ms).unwrap());
    }

    async fn is_live(&self, session: &str, expected: bool) {
        let mut live = self.people.live();
        live.wait_for(|live| live.contains(session) == expected).await.unwrap();
    }
}

const RIGHT: &str = "correct horse";

fn right() -> Secret {
    Secret::new(RIGHT)
}

fn new(name: &str, role: Role) -> NewUser {
    NewUser { name: name.into(), role, scope: Scope::default(), password: right() }
}

fn from(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([10, 0, 0, last]))
}

fn role(role: Role) -> UserChange {
    UserChange { role: Some(role), ..UserChange::default() }
}

#[tokio::test]
async fn a_person_signs_in_on_any_node_and_is_out_when_the_session_ends() {
    let (fake, folder, other) = (FakeLoop::start(), TestFolder::new(), TestFolder::new());
    let (here, there) = (Node::start(&fake, &folder), Node::start(&fake, &other));
    let made = here.people.create(new("ann", Role::Operator)).await.unwrap();
    assert_eq!(
        (made.name.as_str(), made.role, made.enabled, made.sessions),
        ("ann", Role::Operator, true, 0)
    );
    let ann = here.people.sign_in("ann", right(), from(1)).await.unwrap();
    assert!(ann.secret.expose().starts_with(PREFIX));
    there.is_live(&ann.session, true).await;
    let found = there.people.recognise(ann.secret.clone()).await.unwrap();
    assert_eq!((found.user.as_str(), found.role, &found.session), ("ann", Role::Operator, &ann.session));
    assert_eq!(there.people.recognise(Secret::new("hths_guess")).await, None);
    assert_eq!(there.people.sessions(Some("ann".into())).await.unwrap()[0].from, "10.0.0.1");
    assert_eq!(there.people.sign_out(&ann.session, Some("ben".into())).await, Err(UserError::NoSession));
    there.people.sign_out(&ann.session, Some("ann".into())).await.unwrap();
    here.is_live(&ann.session, false).await;
    assert_eq!(here.people.recognise(ann.secret.clone()).await, None);
    assert_eq!(there.people.recognise(ann.secret).await, None);
    assert_eq!(here.people.sign_out(&ann.session, None).await, Err(UserError::NoSession));
}

#[tokio::test]
async fn nothing_that_is_kept_or_printed_holds_the_password_or_the_secret() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Admin)).await.unwrap();
    let ann = node.people.sign_in("ann", right(), None).await.unwrap();
    let kept = format!("{:?}", fake.service().list("", None, 1_000, true).await.unwrap());
    assert!(kept.contains("$argon2id$"), "it is kept as a hash");
    let printed = format!("{:?}{:?}{ann:?}", node.people, node.people.users().await);
    for secret in [RIGHT, &ann.secret.expose()[PREFIX.len()..]] {
        assert!(!kept.contains(secret) && !printed.contains(secret));
    }
    assert!(!printed.contains("argon2id"));
}

#[tokio::test]
async fn wrong_names_and_wrong_passwords_are_refused_alike_and_paced() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let mut node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Viewer)).await.unwrap();
    let wrong = || Secret::new("wrong horse");
    for user in ["ann", "nobody", "No Name"] {
        assert_eq!(node.people.sign_in(user, wrong(), from(9)).await, Err(UserError::Wrong), "{user}");
    }
    let long = Secret::new("x".repeat(10_000));
    assert_eq!(node.people.sign_in("ann", long, from(9)).await, Err(UserError::Wrong));
    assert_eq!(node.people.sign_in("ann", wrong(), from(9)).await, Err(UserError::Wrong));
    let paced = node.people.sign_in("ann", right(), from(9)).await;
    assert!(matches!(paced, Err(UserError::Paced { retry_after_s: 1 })), "{paced:?}");
    let counters = node.people.counters().clone();
    assert_eq!((counters.get("sign_in_wrong"), counters.get("sign_in_paced")), (5, 1));
    // Stopped and started: what was tried is known.
    node.stop.send(true).unwrap();
    drop(std::mem::replace(&mut node.people, people(&fake, &TestFolder::new())));
    node.task.await.unwrap();
    let again = Node::start(&fake, &folder);
    let paced = again.people.sign_in("ann", right(), from(9)).await;
    assert!(matches!(paced, Err(UserError::Paced { .. })), "{paced:?}");
    let file = folder.path().join(crate::auth::backoff::FILE);
    assert!(!String::from_utf8_lossy(&std::fs::read(file).unwrap()).contains("ann"));
}

#[tokio::test]
async fn who_is_known_at_an_address_gets_in_whatever_others_try() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Viewer)).await.unwrap();
    node.people.sign_in("ann", right(), from(1)).await.unwrap();
    while node.people.sign_in("ann", Secret::new("guess"), from(9)).await == Err(UserError::Wrong) {}
    assert!(matches!(node.people.sign_in("ann", right(), from(9)).await, Err(UserError::Paced { .. })));
    assert!(matches!(node.people.sign_in("ann", right(), from(2)).await, Err(UserError::Paced { .. })));
    assert!(node.people.sign_in("ann", right(), from(1)).await.is_ok());
}

#[tokio::test]
async fn every_change_of_somebody_ends_the_sessions_everywhere() {
    let (fake, folder, other) = (FakeLoop::start(), TestFolder::new(), TestFolder::new());
    let (here, there) = (Node::start(&fake, &folder), Node::start(&fake, &other));
    here.people.create(new("ann", Role::Operator)).await.unwrap();
    let off = UserChange { enabled: Some(false), ..UserChange::default() };
    let on = UserChange { enabled: Some(true), ..UserChange::default() };
    let part = Scope { areas: vec!["hall".into()], ..Scope::default() };
    let scoped = UserChange { scope: Some(part.clone()), ..UserChange::default() };
    for change in [role(Role::Viewer), role(Role::Viewer), scoped, off] {
        let ann = here.people.sign_in("ann", right(), None).await.unwrap();
        there.is_live(&ann.session, true).await;
        here.people.change("ann", change, None, false).await.unwrap();
        assert_eq!(here.people.recognise(ann.secret).await, None);
        there.is_live(&ann.session, false).await;
    }
    assert_eq!(here.people.sign_in("ann", right(), None).await, Err(UserError::Wrong), "she is disabled");
    here.people.change("ann", on, None, false).await.unwrap();
    let ann = here.people.sign_in("ann", right(), None).await.unwrap();
    let found = here.people.recognise(ann.secret.clone()).await.unwrap();
    assert_eq!((found.role, &found.scope), (Role::Viewer, &part));
    // By an admin, who need not know the old one.
    here.people
        .change("ann", UserChange::default(), Some(Secret::new("another horse")), false)
        .await
        .unwrap();
    there.is_live(&ann.session, false).await;
    assert_eq!(here.people.sign_in("ann", right(), None).await, Err(UserError::Wrong));
    let ann = here.people.sign_in("ann", Secret::new("another horse"), None).await.unwrap();
    there.is_live(&ann.session, true).await;
    there.people.sign_out_everywhere("ann").await.unwrap();
    here.is_live(&ann.session, false).await;
    assert!(here.people.sessions(None).await.unwrap().is_empty());
    assert_eq!(here.people.sign_out_everywhere("nobody").await, Err(UserError::NotFound));
}

#[tokio::test]
async fn a_person_changes_the_own_password_and_stays_in_here_alone() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Viewer)).await.unwrap();
    let old = node.people.sign_in("ann", right(), from(1)).await.unwrap();
    let change = |old: &str, new: &str| {
        let (people, old, new) = (node.people.clone(), Secret::new(old), Secret::new(new));
        async move { people.change_password("ann", old, new, from(1)).await }
    };
    assert_eq!(change(RIGHT, "short").await, Err(UserError::Password(PasswordRule::Length)));
    assert_eq!(change("wrong horse", "a new password").await, Err(UserError::Wrong));
    assert!(node.people.recognise(old.secret.clone()).await.is_some());
    let new = change(RIGHT, "a new password").await.unwrap();
    assert_eq!(node.people.recognise(old.secret).await, None);
    assert!(node.people.recognise(new.secret).await.is_some());
    assert!(node.people.sign_in("ann", Secret::new("a new password"), from(1)).await.is_ok());
}

#[tokio::test]
async fn who_is_made_again_under_a_name_inherits_nothing() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Admin)).await.unwrap();
    assert_eq!(node.people.create(new("ann", Role::Viewer)).await, Err(UserError::Taken));
    let ann = node.people.sign_in("ann", right(), None).await.unwrap();
    let id = ObjectId::new(&format!("session/{}", ann.session)).unwrap();
    let session = fake.service().get(id.clone()).await.unwrap().unwrap();
    node.people.remove("ann", true).await.unwrap();
    assert_eq!(node.people.remove("ann", true).await, Err(UserError::NotFound));
    assert_eq!(fake.service().get(id.clone()).await.unwrap(), None, "nothing is left of it");
    node.people.create(new("ann", Role::Admin)).await.unwrap();
    // A node that was away brings the session back.
    let ops =
        session.fields.into_iter().map(|(name, field)| Op::Set(id.clone(), name, field.value)).collect();
    fake.service().write(Author::Node, ops).await.unwrap();
    let other = node.people.sign_in("ann", right(), None).await.unwrap();
    node.is_live(&other.session, true).await;
    assert_eq!(node.people.recognise(ann.secret).await, None);
    assert!(!node.people.live().borrow().contains(&ann.session));
}

#[tokio::test]
async fn the_last_admin_stays_unless_somebody_on_the_board_insists() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    for (name, is) in [("ann", Role::Admin), ("ben", Role::Admin), ("cy", Role::Viewer)] {
        node.people.create(new(name, is)).await.unwrap();
    }
    let off = UserChange { enabled: Some(false), ..UserChange::default() };
    node.people.change("ben", off.clone(), None, false).await.unwrap();
    for change in [role(Role::Operator), off] {
        let refused = node.people.change("ann", change, None, false).await;
        assert_eq!(refused, Err(UserError::LastAdmin));
    }
    assert_eq!(node.people.remove("ann", false).await, Err(UserError::LastAdmin));
    assert!(node.people.change("ann", UserChange::default(), Some(right()), false).await.is_ok());
    assert!(node.people.remove("cy", false).await.is_ok());
    node.people.change("ann", role(Role::Viewer), None, true).await.unwrap();
    assert!(node.people.remove("ann", false).await.is_ok());
}

#[tokio::test]
async fn a_session_ends_by_disuse_and_by_age() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Viewer)).await.unwrap();
    let idle = node.people.sign_in("ann", right(), None).await.unwrap();
    let used = node.people.sign_in("ann", right(), None).await.unwrap();
    let mut passed = 0;
    while passed < ABSOLUTE_MS - IDLE_MS {
        assert!(node.people.recognise(used.secret.clone()).await.is_some());
        node.advance(IDLE_MS - 1_000_000);
        passed += IDLE_MS - 1_000_000;
    }
    assert_eq!(node.people.recognise(idle.secret).await, None);
    assert!(node.people.recognise(used.secret.clone()).await.is_some());
    node.advance(ABSOLUTE_MS - passed);
    assert_eq!(node.people.recognise(used.secret).await, None);
    assert!(node.people.sessions(None).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_long_over_is_deleted_once_the_time_is_known() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Viewer)).await.unwrap();
    node.people.begin_session("ann", None).await.unwrap();
    // Somebody noted the use of a session that had been deleted elsewhere.
    fake.put("session/0011223344556677", "seen", Value::Int(5)).await;
    let left = async || fake.service().list("session/", None, 1_000, true).await.unwrap().len();
    node.time.send_modify(|time| time.trusted = false);
    node.advance(ABSOLUTE_MS + 2 * 24 * 3_600_000);
    tokio::time::sleep(Duration::from_secs(3 * 3_600)).await;
    assert_eq!(left().await, 2, "nobody knows how old they are");
    node.time.send_modify(|time| time.trusted = true);
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert_eq!(left().await, 0);
    assert_eq!(node.people.users().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_taken_away_counts_also_where_the_disk_is_full() {
    let full = |done: Result<(), UserError>| assert!(matches!(done, Err(UserError::Service(_))), "{done:?}");
    let off = UserChange { enabled: Some(false), ..UserChange::default() };
    for taken in ["session", "sessions", "disabled", "role", "password", "user"] {
        let (fake, folder) = (FakeLoop::start(), TestFolder::new());
        let node = Node::start(&fake, &folder);
        node.people.create(new("ann", Role::Operator)).await.unwrap();
        let ann = node.people.begin_session("ann", None).await.unwrap();
        fake.break_store(Some("full"));
        let change = async |change, password| {
            let done = node.people.change("ann", change, password, true).await;
            full(done.map(drop));
        };
        match taken {
            "session" => full(node.people.sign_out(&ann.session, None).await),
            "sessions" => full(node.people.sign_out_everywhere("ann").await),
            "disabled" => change(off.clone(), None).await,
            "role" => change(role(Role::Viewer), None).await,
            "password" => change(UserChange::default(), Some(Secret::new("another horse"))).await,
            _ => full(node.people.remove("ann", true).await),
        }
        for _ in 0..2 {
            assert_eq!(node.people.recognise(ann.secret.clone()).await, None, "{taken}");
            assert!(!node.people.live().borrow().contains(&ann.session), "{taken}");
            // Observed anew, the old is still there, and is not believed.
            fake.forget_observers().await;
        }
        // The same again is the same error, not a success.
        if taken == "session" {
            full(node.people.sign_out(&ann.session, None).await);
        }
        if taken == "user" {
            full(node.people.remove("ann", true).await);
        }
        fake.break_store(None);
        // Whatever is written next comes after it.
        node.people.create(new("ben", Role::Viewer)).await.unwrap();
        let again = Node::start(&fake, &TestFolder::new());
        assert_eq!(again.people.recognise(ann.secret.clone()).await, None, "{taken}");
        let user = again.people.user("ann").await;
        match taken {
            "user" => assert_eq!(user, Err(UserError::NotFound)),
            "disabled" => assert!(!user.unwrap().enabled),
            "role" => assert_eq!(user.unwrap().role, Role::Viewer),
            _ => assert!(user.unwrap().enabled),
        }
    }
}

#[tokio::test]
async fn what_is_given_counts_once_it_is_written_and_what_makes_room_goes_only_then() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Viewer)).await.unwrap();
    let first = node.people.begin_session("ann", None).await.unwrap();
    for _ in 1..MAX_PER_USER {
        node.people.begin_session("ann", None).await.unwrap();
    }
    fake.break_store(Some("full"));
    assert!(node.people.begin_session("ann", None).await.is_err());
    assert!(node.people.change("ann", role(Role::Operator), None, false).await.is_err());
    assert_eq!(node.people.user("ann").await.unwrap().role, Role::Viewer);
    assert_eq!(
        node.people.recognise(first.secret).await.unwrap().role,
        Role::Viewer,
        "nobody was thrown out"
    );
}

#[tokio::test]
async fn a_clock_that_nobody_vouches_for_does_not_bring_old_sessions_back() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    fake.go_by(move || now);
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Viewer)).await.unwrap();
    let ann = node.people.begin_session("ann", None).await.unwrap();
    // A restart without a battery: years behind.
    node.time.send_replace(HouseholdTime { ahead_ms: -100_000_000_000, trusted: false });
    assert!(node.people.recognise(ann.secret.clone()).await.is_some());
    fake.go_by(move || now + ABSOLUTE_MS);
    fake.put("user/ben", "account", Value::from("x")).await;
    node.is_live(&ann.session, false).await;
    assert_eq!(node.people.recognise(ann.secret.clone()).await, None);
    // Vouched for and years behind: it was begun in what is the future.
    node.time.send_replace(HouseholdTime { ahead_ms: -100_000_000_000, trusted: true });
    assert_eq!(node.people.recognise(ann.secret).await, None);
}

#[tokio::test]
async fn a_user_has_a_bounded_number_of_sessions_and_the_oldest_goes() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Viewer)).await.unwrap();
    node.people.create(new("ben", Role::Viewer)).await.unwrap();
    let ben = node.people.begin_session("ben", None).await.unwrap();
    let first = node.people.begin_session("ann", None).await.unwrap();
    for _ in 0..MAX_PER_USER {
        node.advance(1);
        node.people.begin_session("ann", None).await.unwrap();
    }
    assert_eq!(node.people.sessions(Some("ann".into())).await.unwrap().len(), MAX_PER_USER);
    assert_eq!(node.people.recognise(first.secret).await, None);
    assert!(node.people.recognise(ben.secret).await.is_some());
    assert_eq!(fake.service().list("session/", None, 1_000, true).await.unwrap().len(), MAX_PER_USER + 1);
}

#[tokio::test]
async fn all_users_together_have_a_bounded_number_of_sessions() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Viewer)).await.unwrap();
    for n in 0..MAX_SESSIONS {
        let begun = u64::try_from(n).unwrap() + 5;
        let (_, _, session) = Session::begin("ben", String::new(), String::new(), begun).unwrap();
        fake.service().write(Author::Node, session.ops(&format!("{n:016x}"))).await.unwrap();
    }
    let has = async |n: usize| {
        let id = ObjectId::new(&format!("session/{n:016x}")).unwrap();
        fake.service().get(id).await.unwrap().is_some()
    };
    // What was written is on its way to the owner.
    let mut begun = 0;
    while has(0).await {
        node.people.begin_session("ann", None).await.unwrap();
        begun += 1;
    }
    assert!(begun >= 1 && has(MAX_SESSIONS - 1).await);
}

#[tokio::test]
async fn a_weak_hash_is_made_anew_at_a_sign_in_and_costly_ones_of_others_are_never_computed() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    node.people.create(new("ann", Role::Viewer)).await.unwrap();
    let id = ObjectId::new("user/ann").unwrap();
    let field = |name: &str| FieldName::new(name).unwrap();
    let stored =
        fake.service().get(id.clone()).await.unwrap().unwrap().fields[&field("password")].value.clone();
    let with = |text: &str| {
        let Value::Map(mut map) = stored.clone() else { panic!() };
        map.insert("hash".into(), Value::from(text));
        Value::Map(map)
    };
    // `password`, as an older version with little memory would have hashed it.
    let weak = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    fake.put("user/ann", "password", with(weak)).await;
    let mut ann = None;
    while ann.is_none() {
        ann = node.people.sign_in("ann", Secret::new("password"), None).await.ok();
    }
    let after = fake.service().get(id.clone()).await.unwrap().unwrap();
    assert!(format!("{:?}", after.fields[&field("rehashed")].value).contains("m=19456"));
    assert!(node.people.recognise(ann.unwrap().secret).await.is_some());
    let ann = node.people.sign_in("ann", Secret::new("password"), None).await.unwrap();
    fake.put("user/ann", "password", with(&weak.replace("m=256", "m=4194304"))).await;
    node.is_live(&ann.session, false).await;
    assert_eq!(node.people.sign_in("ann", Secret::new("password"), None).await, Err(UserError::Wrong));
}

#[tokio::test]
async fn names_passwords_and_scopes_are_checked_before_anything_is_hashed() {
    let (fake, folder) = (FakeLoop::start(), TestFolder::new());
    let node = Node::start(&fake, &folder);
    let refused = async |new| node.people.create(new).await.unwrap_err();
    assert_eq!(refused(new("Ann", Role::Viewer)).await, UserError::Name);
    let common = NewUser { password: Secret::new("password1"), ..new("ann", Role::Viewer) };
    assert_eq!(refused(common).await, UserError::Password(PasswordRule::Common));
    let scope = Scope { areas: vec!["hall".into()], ..Scope::default() };
    let confined = NewUser { scope, ..new("ann", Role::Admin) };
    assert!(matches!(refused(confined).await, UserError::Scope(_)));
    let missing = node.people.change("ann", UserChange::default(), Some(right()), true).await;
    assert_eq!(missing, Err(UserError::NotFound));
    assert_eq!(node.people.begin_session("ann", None).await, Err(UserError::NotFound));
    let broken = FakeLoop::start_with(Some("full"));
    let there = Node::start(&broken, &folder);
    assert!(matches!(there.people.create(new("ann", Role::Viewer)).await, Err(UserError::Service(_))));
    assert!(there.people.users().await.unwrap().is_empty(), "nobody is half made");
}
