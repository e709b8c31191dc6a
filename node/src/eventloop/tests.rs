//! The loop with a real machine, a real state folder, and a store that forgets what was not synced and fails
//! when told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod power;

use std::sync::atomic::AtomicBool;

use ed25519_dalek::SigningKey;
use mesh_proto::{
    FieldName, ObjectId, Value,
    hlc::Hlc,
    kinds::Author,
    mesh::{Boot, Loader},
    planted::Plant,
    roster::{Body, NodeName, Roles, Roster},
};

use super::*;
use crate::{
    service::{Changes, HouseholdTime, Op, Service},
    state_dir::StateDir,
    store::{
        tests::{Card, Folder},
        unsynced::{Moment, Power},
    },
    transport::link_events,
};

/// Longer than anything here should take, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Default)]
struct Disk {
    is_full: Arc<AtomicBool>,
    is_broken: Arc<AtomicBool>,
}

impl Disk {
    fn card(&self) -> Card {
        let disk = self.clone();
        Card::new(Box::new(move |_, at| {
            assert!(!disk.is_broken.load(Ordering::SeqCst), "the disk of the test broke");
            let refuses = at == Moment::Before && disk.is_full.load(Ordering::SeqCst);
            if refuses { Power::Refuse } else { Power::On }
        }))
    }
}

/// A loop that does not run yet, and what belongs to it.
pub(crate) struct Bench {
    event_loop: EventLoop,
    service: Service,
    state: Arc<StateDir>,
    disk: Disk,
    folder: Folder,
    /// Kept, or the loop ends.
    _links: crate::transport::LinkEventSender,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let disk = Disk::default();
        Self { disk: disk.clone(), ..Self::over(disk.card()) }
    }

    /// The same over an empty card.
    fn over(card: Card) -> Self {
        let folder = Folder::new();
        let state = Arc::new(StateDir::open(&folder.join("state")).unwrap());
        let boot = boot(1);
        state.set_roster(&boot.roster.to_bytes()).unwrap();
        let clock = Clock::new();
        let mesh = Mesh::new(boot, clock.now(), Loader::new(Plant::default()));
        let (store, committed) = StoreHandle::spawn(Box::new(card)).unwrap();
        let (service, requests) = Service::channel();
        let (links_in, links) = link_events();
        let event_loop = EventLoop::new(Parts {
            mesh,
            state: state.clone(),
            store,
            committed,
            links,
            requests,
            wanted: watch::Sender::default(),
            seeds: Vec::new(),
            discovered: watch::channel(Found::default()).1,
            alive: watch::Sender::default(),
            members: watch::Sender::default(),
            heartbeat: Arc::default(),
            clock,
            synchronised: watch::channel(true).1,
            time: watch::channel(HouseholdTime::default()).0,
            caught_up: watch::channel(false).0,
        });
        Self { event_loop, service, state, disk: Disk::default(), folder, _links: links_in }
    }

    /// Rises with every turn of the loop.
    pub(crate) fn heartbeat(&self) -> Arc<AtomicU64> {
        self.event_loop.heartbeat.clone()
    }

    /// Runs the loop for as long as anybody waits for its end.
    pub(crate) async fn run(self) {
        let Self { event_loop, service: _asks, folder: _kept, _links: _links_in, .. } = self;
        let (_never, shutdown) = watch::channel(false);
        event_loop.run(shutdown).await.unwrap();
    }

    /// The file of the membership cannot be replaced: a folder is in its place.
    fn block_roster(&self) {
        let path = self.folder.join("state/roster");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
    }

    fn free_roster(&self) {
        std::fs::remove_dir_all(self.folder.join("state/roster")).unwrap();
    }

    /// What the file of the membership says.
    fn saved_roster(&self) -> Roster {
        Roster::from_bytes(&self.state.roster().unwrap().unwrap()).unwrap()
    }

    /// Takes the result of the write that is under way.
    async fn take_saved(&mut self) {
        let saved = tokio::time::timeout(PATIENCE, self.event_loop.files.saved()).await.unwrap();
        self.event_loop.saved(saved);
        self.event_loop.turn();
    }

    fn write(&mut self, ops: Vec<mesh_proto::mesh::Op>) {
        let now = self.event_loop.clock.now();
        self.event_loop.mesh.write(now, Author::Node, ops).unwrap();
        self.event_loop.turn();
    }

    /// The next changes of an observer, which must be there.
    fn next(&mut self, watcher: u64) -> Result<Changes, ServiceError> {
        let (reply, mut answer) = oneshot::channel();
        self.event_loop.watchers.next(watcher, reply, &self.event_loop.mesh);
        answer.try_recv().expect("an answer at once")
    }

    fn watch(&mut self) -> u64 {
        self.event_loop.watchers.watch(vec![], None, &self.event_loop.mesh).watcher
    }
}

/// How the founder of a household starts for the `start`th time.
fn boot(start: u32) -> Boot {
    let key = SigningKey::from_bytes(&[1; 32]);
    let founder = NodeId::from_bytes(key.verifying_key().to_bytes());
    let roster = Roster::found(&SigningKey::from_bytes(&[9; 32]), founder, "one", None).unwrap();
    Boot {
        key,
        roster,
        run: Run { incarnation: start.into(), generation: start },
        ceiling: Hlc::ZERO,
        build_ms: 0,
        wall: mesh_proto::time::WallClock::Right,
        restored: None,
        seed: 1,
        software: "test".into(),
        limits: mesh_proto::limits::Limits::default(),
        plant: Plant::default(),
    }
}

fn id(name: &str) -> ObjectId {
    ObjectId::new(name).unwrap()
}

fn field(name: &str) -> FieldName {
    FieldName::new(name).unwrap()
}

fn key(object: &str, name: &str) -> mesh_proto::Key {
    mesh_proto::Key { object: id(object), field: field(name) }
}

fn set(object: &str, name: &str) -> mesh_proto::mesh::Op {
    mesh_proto::mesh::Op::Set(key(object, name), Value::from(1))
}

fn unset(object: &str, name: &str) -> mesh_proto::mesh::Op {
    mesh_proto::mesh::Op::Unset(key(object, name))
}

fn admission(seed: u8, token: Option<[u8; 16]>) -> (NodeId, Body) {
    let node = NodeId::from_bytes(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes());
    (node, Body::Admit { node, roles: Roles::MEMBER, name: NodeName::new("two").unwrap(), token })
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_store_thread_that_dies_ends_the_loop_with_an_error() {
    let bench = Bench::new();
    bench.disk.is_broken.store(true, Ordering::SeqCst);
    let (_stop, shutdown) = watch::channel(false);
    let running = tokio::spawn(bench.event_loop.run(shutdown));
    let op = Op::Set(id("note/x"), field("text"), Value::from(1));
    let written = tokio::time::timeout(PATIENCE, bench.service.write(Author::Client, vec![op])).await;
    assert_eq!(written.unwrap(), Err(ServiceError::Stopping), "nobody waits for ever");
    let ended = tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    assert!(ended.unwrap_err().to_string().contains("the store has ended by itself"));
}

#[tokio::test]
async fn a_full_disk_refuses_what_must_be_durable_and_nothing_else() {
    let bench = Bench::new();
    bench.disk.is_full.store(true, Ordering::SeqCst);
    let (stop, shutdown) = watch::channel(false);
    let running = tokio::spawn(bench.event_loop.run(shutdown));
    let service = &bench.service;
    assert_eq!(service.health().await.unwrap().reasons, Vec::<&str>::new());
    let note = || vec![Op::Set(id("note/x"), field("text"), Value::from(1))];
    for _ in 0..2 {
        let refused = service.write(Author::Client, note()).await;
        assert!(matches!(refused, Err(ServiceError::Store(_))), "{refused:?}");
    }
    assert_eq!(service.health().await.unwrap().reasons, ["the store cannot be written"]);
    let reported = Op::Set(id("device/x"), field("reported"), Value::from(7));
    let life = Op::Set(id("command/x"), field("life"), Value::from(8));
    service.write(Author::Node, vec![reported.clone(), life]).await.unwrap();
    let shown = service.get(id("device/x")).await.unwrap().unwrap();
    assert_eq!(shown.fields[&field("reported")].value, Value::from(7));
    let [first] = <[Op; 1]>::try_from(note()).unwrap();
    assert!(service.write(Author::Node, vec![reported, first]).await.is_err(), "the request as a whole");
    assert!(service.write(Author::Client, vec![Op::Delete(id("device/x"))]).await.is_err());

    bench.disk.is_full.store(false, Ordering::SeqCst);
    eventually("the store is written again", async || service.health().await.unwrap().reasons.is_empty())
        .await;
    service.write(Author::Client, note()).await.unwrap();
    stop.send_replace(true);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_membership_that_could_not_be_saved_is_saved_by_the_chores() {
    let mut bench = Bench::new();
    bench.event_loop.turn();
    bench.block_roster();
    // As when a peer tells of it: it counts at once.
    let (node, body) = admission(2, None);
    let statement = bench.event_loop.mesh.sign(body).unwrap();
    bench.event_loop.mesh.publish(bench.event_loop.clock.now(), &statement).unwrap();
    bench.event_loop.turn();
    bench.take_saved().await;
    assert_eq!(bench.event_loop.health().reasons, ["the membership cannot be saved"]);
    assert!(bench.event_loop.status().store_error.unwrap().contains("membership"));
    bench.event_loop.chores_at = Instant::now();
    bench.event_loop.turn();
    bench.take_saved().await;
    assert_eq!(bench.event_loop.health().reasons, ["the membership cannot be saved"], "tried, in vain");

    bench.free_roster();
    bench.event_loop.chores_at = Instant::now();
    bench.event_loop.turn();
    bench.take_saved().await;
    assert!(bench.event_loop.health().reasons.is_empty());
    assert!(bench.saved_roster().is_admitted(&node), "a reboot finds it");
}

#[tokio::test]
async fn a_statement_that_was_refused_does_not_stay_in_the_file() {
    let mut bench = Bench::new();
    bench.event_loop.turn();
    let (node, body) = admission(2, None);
    // The file was replaced, and only then the disk failed: its folder could not be made durable.
    let (reply, mut answer) = oneshot::channel();
    bench.event_loop.issue(body, membership::IssueReply::Proof(reply));
    let Saved::Roster(Ok(())) = bench.event_loop.files.saved().await else { panic!("it is written") };
    assert!(bench.saved_roster().is_admitted(&node));
    bench.event_loop.saved(Saved::Roster(Err("the folder is not durable".into())));
    assert!(matches!(answer.try_recv().unwrap(), Err(ServiceError::Store(_))));

    bench.block_roster();
    bench.event_loop.chores_at = Instant::now();
    bench.event_loop.turn();
    assert_eq!(bench.event_loop.health().reasons, ["the membership cannot be saved"], "nothing was written");
    bench.take_saved().await;
    bench.free_roster();
    bench.event_loop.chores_at = Instant::now();
    bench.event_loop.turn();
    bench.take_saved().await;
    assert!(bench.event_loop.health().reasons.is_empty());
    assert!(!bench.saved_roster().is_admitted(&node), "a reboot does not let it count");
}

#[tokio::test]
async fn statements_are_durable_before_they_count_and_never_share_a_place() {
    let bench = Bench::new();
    let (stop, shutdown) = watch::channel(false);
    bench.block_roster();
    let (state, service) = (bench.state.clone(), bench.service.clone());
    let folder = bench.folder.join("state/roster");
    let running = tokio::spawn(bench.event_loop.run(shutdown));
    let ((two, second), (three, third)) = (admission(2, Some([2; 16])), admission(3, None));
    let refused = service.issue(second.clone()).await;
    assert!(matches!(refused, Err(ServiceError::Store(_))), "{refused:?}");
    assert_eq!(service.status().await.unwrap().nodes.len(), 1, "nobody heard of it");

    std::fs::remove_dir_all(folder).unwrap();
    let (first, other) = tokio::join!(service.issue(second.clone()), service.issue(third));
    let saved = Roster::from_bytes(&state.roster().unwrap().unwrap()).unwrap();
    assert!(saved.is_admitted(&two) && saved.is_admitted(&three) && saved.forks().next().is_none());
    assert!(!other.unwrap().is_empty());
    assert_eq!(service.issue(second).await, first, "the same invite, the same statements");
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    let saved = Roster::from_bytes(&state.roster().unwrap().unwrap()).unwrap();
    assert_eq!((saved.members().count(), saved.len()), (3, 3));
}

#[tokio::test]
async fn a_run_that_could_not_be_saved_is_saved_by_the_chores() {
    let mut bench = Bench::new();
    let path = bench.folder.join("state/incarnation");
    std::fs::create_dir_all(path.join("in the way")).unwrap();
    let run = Run { incarnation: 1, generation: 2 };
    bench.event_loop.run_wanted = Some((run, Some(70)));
    bench.event_loop.save_run();
    bench.take_saved().await;
    std::fs::remove_dir_all(&path).unwrap();
    bench.event_loop.chores_at = Instant::now();
    bench.event_loop.turn();
    bench.take_saved().await;
    assert_eq!(bench.state.incarnation().unwrap().unwrap().generation, 2);
    assert_eq!(bench.event_loop.run_wanted, None);
    let mark = crate::store::restored::mark(bench.state.path()).unwrap();
    assert_eq!(mark, Some(Some(70)), "a card that was found set back is marked");
    bench.event_loop.handle_event(mesh_proto::mesh::Event::Restored);
    bench.take_saved().await;
    assert_eq!(crate::store::restored::mark(bench.state.path()).unwrap(), None);
}

#[tokio::test]
async fn a_store_that_was_replaced_is_not_marked_again_by_a_run_that_waits() {
    let mut bench = Bench::new();
    bench.event_loop.turn();
    let path = bench.folder.join("state/incarnation");
    std::fs::create_dir_all(path.join("in the way")).unwrap();
    bench.event_loop.run_wanted = Some((Run { incarnation: 1, generation: 2 }, Some(70)));
    bench.event_loop.save_run();
    bench.take_saved().await;
    bench.event_loop.handle_event(mesh_proto::mesh::Event::Restored);
    bench.take_saved().await;
    bench.take_saved().await;
    std::fs::remove_dir_all(&path).unwrap();
    bench.event_loop.chores_at = Instant::now();
    bench.event_loop.turn();
    bench.take_saved().await;
    assert_eq!(bench.state.incarnation().unwrap().unwrap().generation, 2);
    assert_eq!(crate::store::restored::mark(bench.state.path()).unwrap(), None, "the store is sound");
}

#[tokio::test]
async fn a_snapshot_says_nothing_of_what_is_incomplete() {
    let mut bench = Bench::new();
    bench.write(vec![set("device/half", "reported"), set("command/whole", "life")]);
    let watcher = bench.watch();
    let changes = bench.next(watcher).unwrap();
    let names: Vec<&str> = changes.changes.iter().map(|change| change.id.as_str()).collect();
    assert_eq!((names, changes.caught_up), (vec!["command/whole"], true));
}

#[tokio::test]
async fn names_that_change_all_the_time_do_not_hide_those_after_them() {
    let mut bench = Bench::new();
    let watcher = bench.watch();
    assert!(bench.next(watcher).unwrap().caught_up);
    let names: Vec<ObjectId> = (100..500).map(|n| id(&format!("note/{n}"))).collect();
    bench.event_loop.watchers.changed(&names);
    assert!(!bench.next(watcher).unwrap().caught_up);
    bench.event_loop.watchers.changed(&names[..256]);
    let second = bench.next(watcher).unwrap();
    assert_eq!((&second.changes[0].id, second.changes.len()), (&names[256], 256));
    let third = bench.next(watcher).unwrap();
    assert_eq!((&third.changes[0].id, third.caught_up), (&names[112], true));
}

#[tokio::test]
async fn an_observer_that_takes_nothing_does_not_collect_names_for_ever() {
    let mut bench = Bench::new();
    let (slow, good) = (bench.watch(), bench.watch());
    for watcher in [slow, good] {
        assert!(bench.next(watcher).unwrap().caught_up);
    }
    let mut told = 0;
    for round in 0..101 {
        let names: Vec<ObjectId> = (0..1_000).map(|n| id(&format!("note/{round}-{n}"))).collect();
        bench.event_loop.watchers.changed(&names);
        while told < (round + 1) * 1_000 {
            told += bench.next(good).unwrap().changes.len();
        }
    }
    assert_eq!(bench.next(slow).unwrap_err(), ServiceError::NoSuchWatcher, "it is told to begin anew");
    assert_eq!(told, 101_000, "one that takes what it is given hears of all");
}

#[tokio::test]
async fn objects_are_counted_as_they_come_and_go() {
    let mut bench = Bench::new();
    let counts = |bench: &mut Bench| {
        let status = bench.event_loop.status();
        (status.objects, status.incomplete)
    };
    assert_eq!(counts(&mut bench), (0, 0));
    bench.write(vec![set("device/a", "reported"), set("command/a", "life"), set("command/b", "life")]);
    assert_eq!(counts(&mut bench), (2, 1));
    bench.write(vec![unset("command/b", "life"), set("device/a", "desired")]);
    assert_eq!(counts(&mut bench), (1, 1));
    bench.write(vec![unset("device/a", "reported"), unset("device/a", "desired")]);
    assert_eq!(counts(&mut bench), (1, 0));
}
