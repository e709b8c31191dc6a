//! The engine with an event loop, an owner of commands and a mesh of events that are fakes, in time that does not pass by itself. Several
//! nodes share one event loop: what one writes all others see. The time of day is what a test says, and goes on from there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod clients;
mod going;
mod ledger;
mod load;
mod starts;
mod steps;
mod takeover;
mod trips;

use std::{ops::Deref, sync::Mutex};

use mesh_proto::{FieldName, Value, kinds::Author};
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::{
    super::{
        fake::{Day, Holds, at, own},
        peers::HEAR_OUT,
        runs::{Run, State, run_field},
        sentry::Firing,
        steps::SETTLE,
    },
    *,
};
use crate::{
    api::{
        fake::FakeLoop,
        ports::{
            CommandRequest,
            automations::{AutomationView, AutomationsHandle},
            events::EventsRequest,
        },
    },
    devices::encode,
    devices::ownership::winner,
    service::Op,
};

const ME: ShortId = ShortId(0xab);
const OTHER: ShortId = ShortId(0xcd);
const BOTH: [ShortId; 2] = [ME, OTHER];
/// Longer than anything takes that happens by itself.
const LONG: Duration = Duration::from_secs(30);

type Runs = BTreeMap<(ShortId, u8), Run>;

/// A command as it was given, and the runs of its automation that were stored by then.
#[derive(Debug, Clone)]
struct Given {
    device: String,
    key: String,
    at: Timestamp,
    runs: Vec<Run>,
}

async fn take(service: Service, given: Arc<Mutex<Vec<Given>>>, day: Day, request: CommandRequest) {
    let (key, device) = (request.key.unwrap(), request.device.to_string());
    let runs = stored(&service, key.split('#').next().unwrap()).await.into_values().collect();
    given.lock().unwrap().push(Given { device, key, at: day.now(), runs });
}

/// The runs of an automation as they are stored.
async fn stored(service: &Service, object: &str) -> Runs {
    let object = service.get(ObjectId::new(object).unwrap()).await.unwrap();
    object.map(|object| Spec::read(&object, None).runs).unwrap_or_default()
}

/// The home, and all that its nodes share.
struct House {
    fake: FakeLoop,
    given: Arc<Mutex<Vec<Given>>>,
    held: watch::Sender<Holds>,
    day: Day,
    alive: watch::Sender<BTreeSet<ShortId>>,
    caught_up: watch::Sender<bool>,
}

/// The home, and a node in it.
struct Bench {
    house: House,
    node: Node,
}

impl Deref for Bench {
    type Target = House;

    fn deref(&self) -> &House {
        &self.house
    }
}

/// An engine.
struct Node {
    automations: AutomationsHandle,
    heartbeat: Arc<AtomicU64>,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Node {
    /// It is gone from one moment to the next, and all that it had under way.
    async fn dies(&mut self) {
        self.task.abort();
        assert!((&mut self.task).await.is_err());
    }
}

impl Bench {
    /// A node in its home at six o'clock, alone, with lamps.
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same in a household of which others are known, though nobody lives.
    async fn with(others: &[ShortId]) -> Self {
        let fake = FakeLoop::start();
        let day = Day::begin("06:00:00");
        let clock = day.clone();
        fake.go_by(move || u64::try_from(clock.now().as_millisecond()).unwrap());
        fake.put("home/main", "zone", Value::Text("UTC".into())).await;
        for device in ["lamp", "desk", "bad"] {
            fake.put(&format!("device/{device}"), "adapter", Value::Text("lifx".into())).await;
        }
        for other in others {
            fake.put(&format!("node/{other}"), "name", Value::Text("other".into())).await;
        }
        let (alive, _) = watch::channel(BTreeSet::from([ME]));
        let (caught_up, _) = watch::channel(true);
        let house = House {
            fake,
            given: Arc::default(),
            held: watch::channel(Holds::Nothing).0,
            day,
            alive,
            caught_up,
        };
        Self { node: house.engine(ME), house }
    }

    /// The same with another node that lives, and the name of an automation that is its own.
    async fn of_two() -> (String, Self, Node) {
        let bench = Self::with(&[OTHER]).await;
        bench.live(&BOTH);
        let other = bench.engine(OTHER);
        (Self::won_by(OTHER), bench, other)
    }

    fn live(&self, nodes: &[ShortId]) {
        self.alive.send_replace(nodes.iter().copied().collect());
    }

    /// The time of day becomes that.
    fn clock(&self, time: Timestamp, trusted: bool) {
        self.day.set(time, trusted);
    }

    /// Writes an automation, and waits until the node has seen it.
    async fn make(&self, name: &str, program: Json) {
        self.write(name, program.clone()).await;
        let is_seen = async || {
            let view = self.find(name).await;
            view.is_some_and(|view| view.program["actions"] == program["actions"])
        };
        self.until("it is seen", is_seen).await;
    }

    async fn write(&self, name: &str, program: Json) {
        let object = ObjectId::new(&format!("automation/{name}")).unwrap();
        let set = |(field, value): (&String, &Json)| {
            Op::Set(object.clone(), FieldName::new(field).unwrap(), encode(value))
        };
        let ops = program.as_object().unwrap().iter().map(set).collect();
        self.fake.service().write(Author::Node, ops).await.unwrap();
    }

    /// So many events of a topic, at once.
    async fn tell(&self, topic: &str, count: usize) {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let event = |_| {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let object = ObjectId::new(&format!("event/{topic}:{number:016x}")).unwrap();
            Op::Set(object, FieldName::new("data").unwrap(), encode(&json!({"side": "front"})))
        };
        self.fake.service().write(Author::Node, (0..count).map(event).collect()).await.unwrap();
    }

    /// A lamp is on or off, as it says.
    async fn lamp(&self, on: bool) {
        let reported = json!({"value": {"kind": "light", "on": on}});
        self.fake.put("device/lamp", "reported", encode(&reported)).await;
    }

    /// The first automation of this kind of name that is won by a node, of this one and the other.
    fn won_by(node: ShortId) -> String {
        let wins = |name: &String| winner(BOTH, &format!("automation/{name}")) == Some(node);
        (0..).map(|number| format!("x{number}")).find(wins).unwrap()
    }

    async fn find(&self, name: &str) -> Option<AutomationView> {
        self.node.automations.list().await.unwrap().into_iter().find(|view| view.name == name)
    }

    async fn state(&self, name: &str) -> &'static str {
        self.find(name).await.unwrap().state
    }

    async fn runs(&self, name: &str) -> Runs {
        stored(&self.fake.service(), &format!("automation/{name}")).await
    }

    /// How many runs are stored in a state.
    async fn count(&self, name: &str, state: State) -> usize {
        self.runs(name).await.values().filter(|run| run.state == state).count()
    }

    /// The devices that were commanded, in their order.
    fn devices(&self) -> Vec<String> {
        self.given.lock().unwrap().iter().map(|given| given.device.replace("device/", "")).collect()
    }

    fn keys(&self) -> Vec<String> {
        self.given.lock().unwrap().iter().map(|given| given.key.clone()).collect()
    }

    /// Once so many commands were given, the last of them.
    async fn given(&self, count: usize) -> Given {
        self.until("commands are given", async || self.devices().len() >= count).await;
        assert_eq!(self.devices().len(), count, "{:?}", self.keys());
        self.given.lock().unwrap()[count - 1].clone()
    }

    async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let holds = async {
            while !condition().await {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(LONG * 4, holds).await.is_err() {
            panic!("{what}: {:?}", self.node.automations.list().await);
        }
    }

    /// Once so many runs are stored in a state.
    async fn ends(&self, name: &str, state: State, count: usize) {
        self.until(&format!("{state:?}"), async || self.count(name, state).await >= count).await;
    }
}

impl House {
    /// An engine: of this node, of another one, or of one that is started anew.
    fn engine(&self, me: ShortId) -> Node {
        let (shutdown, stopping) = watch::channel(false);
        let (automations, requests) = AutomationsHandle::channel();
        let heartbeat = Arc::default();
        let parts = self.parts(me, requests, stopping, &heartbeat);
        Node { automations, heartbeat, shutdown, task: Engine::spawn(parts) }
    }

    /// An engine that is told each turn to take.
    fn engine_by_hand(&self) -> Engine {
        let (_, requests) = AutomationsHandle::channel();
        let (_, stopping) = watch::channel(false);
        Engine::new(self.parts(ME, requests, stopping, &Arc::default()))
    }

    fn parts(
        &self,
        me: ShortId,
        requests: mpsc::Receiver<AutomationsRequest>,
        shutdown: watch::Receiver<bool>,
        heartbeat: &Arc<AtomicU64>,
    ) -> EngineParts {
        let (commands, port) = CommandsHandle::channel();
        let (service, given, day) = (self.fake.service(), self.given.clone(), self.day.clone());
        let show = move |request| take(service.clone(), given.clone(), day.clone(), request);
        tokio::spawn(own(port, self.held.subscribe(), show));
        let (events, published) = EventsHandle::channel();
        tokio::spawn(publish(self.fake.service(), published));
        EngineParts {
            service: self.fake.service(),
            commands,
            events,
            requests,
            webhooks: watch::channel(None).0,
            alive: self.alive.subscribe(),
            time: self.day.watch(),
            caught_up: self.caught_up.subscribe(),
            me,
            shutdown,
            heartbeat: heartbeat.clone(),
        }
    }
}

/// Publishes events as a node does, as many as it is asked to.
async fn publish(service: Service, mut requests: mpsc::Receiver<EventsRequest>) {
    static NUMBER: AtomicU64 = AtomicU64::new(1 << 32);
    while let Some(EventsRequest { topic, data, reply, .. }) = requests.recv().await {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let object = ObjectId::new(&format!("event/{topic}:{number:016x}")).unwrap();
        let op = Op::Set(object.clone(), FieldName::new("data").unwrap(), encode(&data));
        service.write(Author::Node, vec![op]).await.unwrap();
        let _ = reply.send(Ok(object));
    }
}

fn command(device: &str) -> Json {
    json!({"device": format!("device/{device}"), "change": {"on": true}})
}

fn by_hand(at: Timestamp) -> Firing {
    Firing { id: 7, trigger: 0, at, why: "a test".to_owned(), data: Json::Null }
}

/// What a bell starts.
fn on_bell(actions: Json) -> Json {
    json!({"triggers": [{"event": "bell"}], "actions": actions})
}

fn with_mode(mut program: Json, mode: &str, max: u8) -> Json {
    program["mode"] = json!(mode);
    program["max"] = json!(max);
    program
}
