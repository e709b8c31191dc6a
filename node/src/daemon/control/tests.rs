#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use mesh_proto::HouseholdId;

use super::*;
use crate::{
    api::{
        fake::{FakeLoop, TestFolder},
        ports::ControlHandle,
    },
    auth::{
        InviteBook, Moment,
        jwt::{Issuers, IssuersHandle, IssuersParts},
    },
    service::{FieldView, HouseholdTime, NodeStatus, Request},
    store::{Recovery, RecoveryReport, memory::MemoryStore, worker::StoreHandle},
};

const HOUSEHOLD: [u8; 32] = [0x11; 32];

fn identity() -> NodeIdentity {
    NodeIdentity::from_seed(&[5; 32]).unwrap()
}

/// An invite that leads nowhere: it has no address.
fn invite(household: [u8; 32]) -> Secret {
    let household = HouseholdId::from_bytes(household);
    let issuer = NodeIdentity::from_seed(&[6; 32]).unwrap().id();
    let mut book = InviteBook::default();
    let token = book
        .create(
            Moment { unix: 1_700_000_000, running: 0 },
            900,
            Roles::MEMBER.bits(),
            household,
            issuer,
            vec![],
        )
        .unwrap();
    Secret::new(token.to_string())
}

fn object(id: &str, fields: &[&str]) -> ObjectView {
    let view = FieldView { value: Value::from(1), at_ms: 1, by: "00".into(), durable: true };
    let fields: BTreeMap<_, _> =
        fields.iter().map(|name| (FieldName::new(name).unwrap(), view.clone())).collect();
    ObjectView { id: ObjectId::new(id).unwrap(), fields, complete: true }
}

/// What the event loop of a test says and hears.
struct Script {
    /// The roles of the nodes, this one first.
    nodes: Vec<Vec<&'static str>>,
    objects: Vec<ObjectView>,
    /// Exists once the node knows what it becomes.
    next: PathBuf,
    /// Goodbyes, and those that were said before it was known.
    goodbyes: Arc<AtomicU32>,
    early: Arc<AtomicU32>,
}

impl Script {
    async fn run(self, mut requests: mpsc::Receiver<Request>, mut status: Status) {
        let node = status.nodes.remove(0);
        status.node = identity().id().to_string();
        status.nodes = self.nodes.iter().enumerate().map(|(at, roles)| self.node(&node, at, roles)).collect();
        while let Some(request) = requests.recv().await {
            match request {
                Request::Status(reply) => drop(reply.send(status.clone())),
                Request::List { after, limit, reply, .. } => {
                    let rest = self.objects.iter().filter(|object| after.as_ref() < Some(&object.id));
                    drop(reply.send(rest.take(limit).cloned().collect()));
                }
                Request::Issue(body, reply) => {
                    assert_eq!(body, Body::Leave);
                    self.goodbyes.fetch_add(1, Ordering::SeqCst);
                    self.early.fetch_add(u32::from(!self.next.is_file()), Ordering::SeqCst);
                    drop(reply.send(Ok(vec![])));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn node(&self, like: &NodeStatus, at: usize, roles: &[&'static str]) -> NodeStatus {
        let id = if at == 0 { identity().id().to_string() } else { format!("{at:064x}") };
        NodeStatus { id, roles: roles.to_vec(), ..like.clone() }
    }
}

struct Bench {
    control: ControlHandle,
    ends: mpsc::Receiver<End>,
    folder: TestFolder,
    goodbyes: Arc<AtomicU32>,
    early: Arc<AtomicU32>,
    _store: StoreHandle,
}

impl Bench {
    async fn new(nodes: &[&[&'static str]], objects: Vec<ObjectView>) -> Self {
        let folder = TestFolder::new();
        let state = Arc::new(StateDir::open(&folder.path().join("state")).unwrap());
        let (service, requests) = Service::channel();
        let (goodbyes, early) = (Arc::default(), Arc::default());
        let script = Script {
            nodes: nodes.iter().map(|roles| roles.to_vec()).collect(),
            objects,
            next: state.path().join("next"),
            goodbyes: Arc::clone(&goodbyes),
            early: Arc::clone(&early),
        };
        let status = FakeLoop::start().service().status().await.unwrap();
        tokio::spawn(script.run(requests, status));
        let recovery = RecoveryReport { outcome: Recovery::Clean, steps: vec![] };
        let (_, adapters) = watch::channel(Vec::new());
        let (store, _committed) = StoreHandle::spawn(Box::new(MemoryStore::new())).unwrap();
        let doctor = Doctor {
            service: service.clone(),
            recovery,
            notes: Vec::new(),
            jobs: store.jobs(),
            state_dir: state.path().to_owned(),
            adapters,
            history: watch::channel(crate::history::Report::default()).1,
            certificate: watch::channel(Default::default()).1,
            http_port: watch::channel(crate::plain_http::PortStatus::NotNeeded).1,
            issuers: issuers(service.clone()),
        };
        let (end, ends) = mpsc::channel(2);
        let (control, port) = ControlHandle::channel();
        let owner = Control { state, service, identity: identity(), name: "attic".into(), doctor, end };
        tokio::spawn(owner.run(port));
        Self { control, ends, folder, goodbyes, early, _store: store }
    }

    async fn alone_with(objects: Vec<ObjectView>) -> Self {
        Self::new(&[&["admin", "member"]], objects).await
    }

    fn next(&self) -> PathBuf {
        self.folder.path().join("state/next")
    }
}

/// Of nobody.
fn issuers(service: Service) -> IssuersHandle {
    let time = watch::channel(HouseholdTime::default()).1;
    Issuers::new(IssuersParts { service, time, folder: PathBuf::new() }).0
}

/// A slider that was moved for a while: more than one page of passing objects, before the notes.
fn slider() -> Vec<ObjectView> {
    (0..1_200).map(|n| object(&format!("command/{n:05}"), &["request", "life"])).collect()
}

#[tokio::test]
async fn a_note_behind_a_thousand_commands_is_not_lost_by_joining() {
    let mut objects = slider();
    objects.push(object("note/zebra", &["text"]));
    let bench = Bench::alone_with(objects).await;
    let refused = bench.control.join(invite([0x22; 32]), false).await.unwrap_err();
    assert!(matches!(&refused, PortError::Conflict { fix, .. } if fix.contains("--force")), "{refused:?}");
    let forced = bench.control.join(invite([0x22; 32]), true).await.unwrap_err();
    assert!(matches!(forced, PortError::Unreachable { .. }), "{forced:?}");
}

#[tokio::test]
async fn what_people_gave_their_home_is_data_and_what_the_node_found_is_not() {
    let mut found = slider();
    found.push(object("device/bulb", &["adapter", "model", "capabilities", "desired", "reported"]));
    found.push(object("node/00000000000000ab", &["name", "version", "addresses"]));
    let refused = Bench::alone_with(found).await.control.join(invite([0x22; 32]), false).await.unwrap_err();
    assert!(matches!(refused, PortError::Unreachable { .. }), "it went on to the issuer: {refused:?}");
    for (id, fields) in [
        ("device/bulb", ["adapter", "name"]),
        ("node/00000000000000ab", ["name", "room"]),
        ("token/abc", ["hash", "role"]),
        ("schedule/x", ["when", "do"]),
        ("scene/x", ["transition_ms", "set.lamp"]),
        ("automation/x", ["triggers", "actions"]),
        ("note/x", ["text", "more"]),
    ] {
        let bench = Bench::alone_with(vec![object(id, &fields)]).await;
        let refused = bench.control.join(invite([0x22; 32]), false).await.unwrap_err();
        assert!(matches!(refused, PortError::Conflict { .. }), "{id}: {refused:?}");
    }
}

#[tokio::test]
async fn an_invite_of_the_own_household_is_refused_even_by_force() {
    let bench = Bench::alone_with(vec![]).await;
    for force in [false, true] {
        let refused = bench.control.join(invite(HOUSEHOLD), force).await.unwrap_err();
        assert!(
            matches!(&refused, PortError::Conflict { detail, .. } if detail.contains("already")),
            "{refused:?}"
        );
    }
    assert!(!bench.next().exists());
}

#[tokio::test]
async fn a_node_that_leaves_knows_what_it_becomes_before_it_says_goodbye() {
    let admins: &[&[&str]] = &[&["admin", "member"], &["admin", "member"]];
    let mut bench = Bench::new(admins, vec![]).await;
    // The disk says no: nothing was said, and nothing changed.
    std::fs::create_dir_all(bench.next().join("in the way")).unwrap();
    let refused = bench.control.leave(false).await.unwrap_err();
    assert!(matches!(refused, PortError::Storage { .. }), "{refused:?}");
    assert_eq!(bench.goodbyes.load(Ordering::SeqCst), 0);
    assert!(bench.ends.try_recv().is_err(), "its life goes on");

    std::fs::remove_dir_all(bench.next()).unwrap();
    bench.control.leave(false).await.unwrap();
    assert_eq!((bench.goodbyes.load(Ordering::SeqCst), bench.early.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(bench.ends.recv().await, Some(End::Again));
}

#[tokio::test]
async fn the_only_admin_leaves_others_behind_by_force_only() {
    let admin: &[&str] = &["admin", "member"];
    let member: &[&str] = &["member"];
    let bench = Bench::new(&[admin, member], vec![]).await;
    let refused = bench.control.leave(false).await.unwrap_err();
    assert!(
        matches!(&refused, PortError::Conflict { fix, .. } if fix.contains("--role admin") && fix.contains("--force")),
        "{refused:?}"
    );
    assert_eq!(bench.goodbyes.load(Ordering::SeqCst), 0);
    bench.control.leave(true).await.unwrap();
    for nodes in [vec![admin], vec![admin, admin, member], vec![member, admin]] {
        Bench::new(&nodes, vec![]).await.control.leave(false).await.unwrap();
    }
}

#[tokio::test]
async fn the_only_admin_joins_another_household_by_force_only_and_is_told_why() {
    let admin: &[&str] = &["admin", "member"];
    let member: &[&str] = &["member"];
    let bench = Bench::new(&[admin, member], vec![]).await;
    let refused = bench.control.join(invite([0x22; 32]), false).await.unwrap_err();
    let PortError::Conflict { detail, fix } = refused else { panic!("{refused:?}") };
    assert!(detail.contains("only admin"), "{detail}");
    assert!(fix.contains("--role admin") && fix.contains("hearth join TOKEN --force"), "{fix}");
    let forced = bench.control.join(invite([0x22; 32]), true).await.unwrap_err();
    assert!(matches!(forced, PortError::Unreachable { .. }), "it went on to the issuer: {forced:?}");
    let bench = Bench::new(&[admin, admin], vec![]).await;
    let refused = bench.control.join(invite([0x22; 32]), false).await.unwrap_err();
    assert!(matches!(&refused, PortError::Conflict { detail, .. } if !detail.contains("only admin")));
}

#[test]
fn every_failure_of_an_invite_or_a_join_has_its_own_kind_and_way_out() {
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    assert!(matches!(invite_error(InviteError::Save(full())), PortError::Storage { .. }));
    assert!(matches!(invite_error(InviteError::NoSuch), PortError::NotFound(_)));
    let kind = |error: HouseholdError| match refused(&error) {
        PortError::Conflict { fix, .. } => ("conflict", fix),
        PortError::Unreachable { fix, .. } => ("unreachable", fix),
        PortError::Storage { fix, .. } => ("storage", fix),
        PortError::Failed { fix, .. } => ("failed", fix),
        other => panic!("{other:?}"),
    };
    let join = |refusal| HouseholdError::Join(JoinError::Refused(refusal));
    for (error, expected, way_out) in [
        (HouseholdError::Io("store".into(), full()), "storage", "hearth doctor"),
        (HouseholdError::Join(JoinError::Deadline), "unreachable", "still holds"),
        (join(Refusal::Busy), "unreachable", "still holds"),
        (join(Refusal::NotSaved), "storage", "still holds"),
        (join(Refusal::Expired), "conflict", "new invite"),
        (join(Refusal::AlreadyUsed), "conflict", "new invite"),
        (join(Refusal::BadName), "conflict", "--name"),
        (HouseholdError::NotAdmitted, "conflict", "update"),
        (HouseholdError::NoRandomness, "failed", "log"),
    ] {
        let text = error.to_string();
        let (found, fix) = kind(error);
        assert!(found == expected && fix.contains(way_out), "{text}: {found}, {fix}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_introduction_that_could_not_be_written_is_written_later() {
    let (service, mut requests) = Service::channel();
    let tries = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&tries);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Get(_, reply) => drop(reply.send(None)),
                Request::Write(_, _, reply) => {
                    let tried = count.fetch_add(1, Ordering::SeqCst);
                    let full = Err(ServiceError::Store("the disk is full".into()));
                    drop(reply.send(if tried < 3 { full } else { Ok(()) }));
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let (_addresses, here) = watch::channel(vec!["192.0.2.1:7843".parse().unwrap()]);
    let me = identity().id();
    let introduced = introduce(&service, me, "attic", true, here);
    let hour = Duration::from_secs(3_600);
    assert!(tokio::time::timeout(hour, introduced).await.is_err(), "it goes on while addresses may change");
    assert_eq!(tries.load(Ordering::SeqCst), 4, "tried until it was written, and then no more");
}
