//! An event loop for unit tests: it serves every [`Request`] as the real one does, from one map in
//! memory, by the kinds' own rules.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use mesh_proto::{
    FieldName, Key, ObjectId, ShortId, Value,
    kinds::{Author, Durability, durability, is_complete, may_author},
    time::Basis,
};
use tokio::sync::{mpsc, oneshot};

use crate::service::{
    Change, Changes, FieldView, NodeHealth, NodeStatus, ObjectView, Op, Request, ResumeToken, Service,
    ServiceError, Status, TimeView, Watching,
};

/// The key of the fake's node.
pub(crate) const NODE: &str = "00000000000000ab00000000000000000000000000000000000000000000cdef";
const INCARNATION: u64 = 7;
const BATCH: usize = 256;

/// A running fake; it ends with the last handle to its service.
pub(crate) struct FakeLoop {
    service: Service,
    store_error: Arc<Mutex<Option<String>>>,
    broken_kind: Arc<Mutex<Option<String>>>,
    clock: Arc<Mutex<Option<Clock>>>,
    me: Arc<AtomicU64>,
}

/// What says the time, in milliseconds since 1970.
type Clock = Box<dyn Fn() -> u64 + Send>;

impl FakeLoop {
    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    /// With a store that cannot be written, for this reason.
    pub(crate) fn start_with(store_error: Option<&str>) -> Self {
        let (service, requests) = Service::channel();
        let store_error = Arc::new(Mutex::new(store_error.map(str::to_owned)));
        let broken_kind = Arc::<Mutex<Option<String>>>::default();
        let clock = Arc::default();
        let me = Arc::new(AtomicU64::new(0xab));
        let state = State {
            store_error: store_error.clone(),
            broken_kind: Arc::clone(&broken_kind),
            clock: Arc::clone(&clock),
            me: Arc::clone(&me),
            ..State::default()
        };
        tokio::spawn(state.run(requests));
        Self { service, store_error, broken_kind, clock, me }
    }

    /// From now on what is written comes from this node.
    pub(crate) fn called(&self, node: ShortId) -> &Self {
        self.me.store(node.0, Ordering::Relaxed);
        self
    }

    /// From now on what is written carries the time that this says, not a number that counts up.
    pub(crate) fn go_by(&self, clock: impl Fn() -> u64 + Send + 'static) {
        *self.clock.lock().unwrap() = Some(Box::new(clock));
    }

    /// From now on the store cannot be written, for this reason, or can be.
    pub(crate) fn break_store(&self, reason: Option<&str>) {
        *self.store_error.lock().unwrap() = reason.map(str::to_owned);
    }

    /// From now on objects of this kind cannot be written, or can be.
    pub(crate) fn break_kind(&self, kind: Option<&str>) {
        *self.broken_kind.lock().unwrap() = kind.map(str::to_owned);
    }

    pub(crate) fn service(&self) -> Service {
        self.service.clone()
    }

    /// Tells every observer that it does not exist any more.
    pub(crate) async fn forget_observers(&self) {
        let last = self.service.watch(vec![], None).await.unwrap().watcher;
        for watcher in 1..=last {
            self.service.unwatch(watcher).await;
        }
        // Answered after the above: they are gone.
        self.service.status().await.unwrap();
    }

    /// Writes a field as a node does.
    pub(crate) async fn put(&self, id: &str, field: &str, value: Value) {
        let op = Op::Set(ObjectId::new(id).unwrap(), FieldName::new(field).unwrap(), value);
        self.service.write(Author::Node, vec![op]).await.unwrap();
    }
}

type Parked = oneshot::Sender<Result<Changes, ServiceError>>;

struct Watcher {
    prefixes: Vec<String>,
    dirty: BTreeSet<ObjectId>,
    /// Whether nothing was delivered yet that was caught up.
    fresh: bool,
    parked: Option<Parked>,
}

impl Watcher {
    fn wants(&self, id: &ObjectId) -> bool {
        self.prefixes.iter().any(|prefix| id.as_str().starts_with(prefix))
    }
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectId, BTreeMap<FieldName, FieldView>>,
    /// When each object last changed, gone ones included.
    changed: BTreeMap<ObjectId, u64>,
    revision: u64,
    watchers: BTreeMap<u64, Watcher>,
    last_watcher: u64,
    store_error: Arc<Mutex<Option<String>>>,
    broken_kind: Arc<Mutex<Option<String>>>,
    clock: Arc<Mutex<Option<Clock>>>,
    me: Arc<AtomicU64>,
    said_ms: Option<u64>,
}

impl State {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            self.serve(request);
        }
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Get(id, reply) => drop(reply.send(self.view(&id))),
            Request::List { prefix, after, limit, incomplete, reply } => {
                let ids = self.objects.keys().filter(|id| id.as_str().starts_with(&prefix));
                let ids = ids.filter(|id| after.as_ref().is_none_or(|after| *id > after));
                let views = ids.filter_map(|id| self.view(id)).filter(|view| view.complete || incomplete);
                drop(reply.send(views.take(limit).collect()));
            }
            Request::Write(author, ops, reply) => drop(reply.send(self.write(author, ops))),
            Request::Watch(prefixes, resume, reply) => drop(reply.send(self.watch(prefixes, resume))),
            Request::NextChanges(number, reply) => match self.watchers.get_mut(&number) {
                Some(watcher) => {
                    watcher.parked = Some(reply);
                    self.wake(number);
                }
                None => drop(reply.send(Err(ServiceError::NoSuchWatcher))),
            },
            Request::Unwatch(number) => {
                if let Some(parked) = self.watchers.remove(&number).and_then(|watcher| watcher.parked) {
                    drop(parked.send(Err(ServiceError::NoSuchWatcher)));
                }
            }
            Request::Status(reply) => drop(reply.send(self.status())),
            Request::Time(reply) => {
                let (ms, basis) = (self.said_ms.unwrap_or(1_000), Basis::Person);
                let trusted = self.said_ms.is_some();
                drop(reply.send(TimeView { ms, wall_ms: 1_000, trusted, basis, peer: None }));
            }
            Request::SetTime(ms, reply) => {
                self.said_ms = Some(ms);
                let _ = reply.send(Ok(()));
            }
            Request::Health(reply) => {
                let broken = self.store_error.lock().unwrap();
                let reasons = broken.iter().map(|_| "the store cannot be written").collect();
                drop(reply.send(NodeHealth { reasons }));
            }
            Request::Issue(_, reply) => drop(reply.send(Err(ServiceError::Roster("no admin".into())))),
            Request::Remove(_, reply) => drop(reply.send(Err(ServiceError::Roster("no admin".into())))),
        }
    }

    fn view(&self, id: &ObjectId) -> Option<ObjectView> {
        let fields = self.objects.get(id)?.clone();
        let complete = is_complete(id.kind(), |name| fields.contains_key(&FieldName::new(name).unwrap()));
        Some(ObjectView { id: id.clone(), fields, complete })
    }

    fn write(&mut self, author: Author, ops: Vec<Op>) -> Result<(), ServiceError> {
        if ops.len() > 1_024 {
            return Err(ServiceError::TooManyOps(ops.len()));
        }
        // What is in memory alone needs no disk.
        let needs_disk = ops.iter().any(|op| match op {
            Op::Set(object, field, _) | Op::Unset(object, field) => {
                durability(&Key { object: object.clone(), field: field.clone() }) != Durability::Presence
            }
            Op::Delete(_) => true,
        });
        if let Some(error) = self.store_error.lock().unwrap().clone().filter(|_| needs_disk) {
            return Err(ServiceError::Store(error));
        }
        let kind = self.broken_kind.lock().unwrap().clone();
        let is_broken = |op: &Op| {
            let (Op::Set(object, ..) | Op::Unset(object, _) | Op::Delete(object)) = op;
            kind.as_deref() == Some(object.kind())
        };
        if ops.iter().any(is_broken) {
            return Err(ServiceError::Store("full".into()));
        }
        for op in &ops {
            let (object, field) = match op {
                Op::Set(object, field, _) | Op::Unset(object, field) => (object.clone(), field.clone()),
                Op::Delete(object) => (object.clone(), FieldName::object()),
            };
            let key = Key { object, field };
            if !may_author(&key, author, ShortId(self.me.load(Ordering::Relaxed))) {
                return Err(ServiceError::Forbidden(format!("{key:?}")));
            }
            if let Op::Set(_, field, value) = op
                && let Err(error) = value.encode()
            {
                return Err(ServiceError::Value { field: field.to_string(), reason: error });
            }
        }
        for op in ops {
            self.apply(op);
        }
        for number in self.watchers.keys().copied().collect::<Vec<_>>() {
            self.wake(number);
        }
        Ok(())
    }

    fn apply(&mut self, op: Op) {
        self.revision += 1;
        let id = match op {
            Op::Set(id, field, value) => {
                let at_ms = self.clock.lock().unwrap().as_ref().map_or(self.revision, |clock| clock());
                let view = FieldView { value, at_ms, by: NODE[..16].into(), durable: true };
                self.objects.entry(id.clone()).or_default().insert(field, view);
                id
            }
            Op::Unset(id, field) => {
                if let Some(fields) = self.objects.get_mut(&id) {
                    fields.remove(&field);
                    if fields.is_empty() {
                        self.objects.remove(&id);
                    }
                }
                id
            }
            Op::Delete(id) => {
                self.objects.remove(&id);
                id
            }
        };
        for watcher in self.watchers.values_mut().filter(|watcher| watcher.wants(&id)) {
            watcher.dirty.insert(id.clone());
        }
        self.changed.insert(id, self.revision);
    }

    fn watch(&mut self, prefixes: Vec<String>, resume: Option<ResumeToken>) -> Watching {
        let known = resume.filter(|t| t.incarnation == INCARNATION && t.revision <= self.revision);
        let mut watcher = Watcher { prefixes, dirty: BTreeSet::new(), fresh: true, parked: None };
        watcher.dirty = match known {
            Some(token) => {
                self.changed.iter().filter(|(_, at)| **at > token.revision).map(|(id, _)| id).collect()
            }
            None => {
                let whole = |id: &&ObjectId| self.view(id).is_some_and(|view| view.complete);
                self.objects.keys().filter(whole).collect::<Vec<_>>()
            }
        }
        .into_iter()
        .filter(|id| watcher.wants(id))
        .cloned()
        .collect();
        self.last_watcher += 1;
        self.watchers.insert(self.last_watcher, watcher);
        Watching { watcher: self.last_watcher, reset: known.is_none() }
    }

    /// Answers a waiting observer if there is something to say.
    fn wake(&mut self, number: u64) {
        let Some(watcher) = self.watchers.get_mut(&number) else { return };
        if watcher.parked.is_none() || (watcher.dirty.is_empty() && !watcher.fresh) {
            return;
        }
        let ids: Vec<_> = watcher.dirty.iter().take(BATCH).cloned().collect();
        for id in &ids {
            watcher.dirty.remove(id);
        }
        let caught_up = watcher.dirty.is_empty();
        watcher.fresh &= !caught_up;
        let parked = watcher.parked.take();
        // An incomplete object reads as absent.
        let whole = |id: &ObjectId| self.view(id).filter(|view| view.complete);
        let changes = ids.into_iter().map(|id| Change { object: whole(&id), id }).collect();
        let token = ResumeToken { incarnation: INCARNATION, revision: self.revision };
        if let Some(parked) = parked {
            drop(parked.send(Ok(Changes { changes, token, caught_up })));
        }
    }

    fn status(&self) -> Status {
        let node = NodeStatus {
            id: NODE.into(),
            name: "attic".into(),
            roles: vec!["admin", "member"],
            state: "self",
            address: None,
            transport: None,
            via: None,
            hops: None,
            rtt_us: None,
            version: Some("0.1.0".into()),
            objects: Some(2),
            lag: None,
            clock_offset_ms: None,
        };
        Status {
            household: "11".repeat(32),
            node: NODE.into(),
            version: "0.1.0",
            uptime_s: 5,
            objects: self.objects.len(),
            incomplete: 0,
            registers: 0,
            tombstones: 0,
            held_back_by: Vec::new(),
            overlay: 0,
            quarantined: 0,
            clock_synchronised: true,
            generation: 1,
            store_error: self.store_error.lock().unwrap().clone(),
            discovery: Default::default(),
            outside: None,
            copies: Vec::new(),
            copies_seen: BTreeMap::new(),
            nodes: vec![node],
            counters: BTreeMap::from([("frames_refused", 3)]),
        }
    }
}

/// A folder that goes when the test ends.
pub(crate) struct TestFolder(PathBuf);

impl TestFolder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hearth-api-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
