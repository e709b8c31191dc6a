//! Households of real nodes without the API: event loops over QUIC on loopback, stores in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use device_adapters::Registration;
use ed25519_dalek::SigningKey;
use hearth_tests::daemon::{Folder, PATIENCE};
use mesh_proto::{
    FieldName, Hlc, NodeId, ObjectId, ShortId, Value,
    mesh::{Boot, Loader, Mesh, next_run},
    planted::Plant,
    roster::{Body, NodeName, Roles, Roster},
};
use node::{
    api::ports::{
        By, Change, Command, CommandRequest, CommandState, CommandsHandle, PortError, Power,
        adapters::AdaptersHandle, events::EventsHandle,
    },
    audit::Audit,
    devices::{AdapterSettings, Devices, DevicesParts, DevicesTask, Vault},
    discovery::Announced,
    eventloop::{Clock, EventLoop, Parts},
    service::{HouseholdTime, ObjectView, Service},
    state_dir::StateDir,
    store::{memory::MemoryStore, worker::StoreHandle},
    tls::NodeIdentity,
    transport::{Dialer, Limits, QuicTransport, Target, TransportCounters, Wanted, link_events},
};
use serde_json::json;
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinHandle,
    time::{Instant, interval, timeout_at},
};

use crate::bulb::{Bulb, REGISTRY};

pub(crate) struct Node {
    pub(crate) me: ShortId,
    pub(crate) service: Service,
    pub(crate) commands: CommandsHandle,
    pub(crate) adapters: AdaptersHandle,
    members: watch::Sender<BTreeSet<NodeId>>,
    pub(crate) devices: DevicesTask,
    pub(crate) heartbeat: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    _folder: Folder,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.devices.task.abort();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) struct Home {
    pub(crate) nodes: Vec<Node>,
    pub(crate) bulb: Arc<Bulb>,
    pub(crate) device: ObjectId,
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes(key(number).verifying_key().to_bytes())
}

fn roster(count: u8) -> Roster {
    let mut roster = Roster::found(&key(99), id(1), "node 1", None).unwrap();
    for number in 2..=count {
        let name = NodeName::new(&format!("node {number}")).unwrap();
        let body = Body::Admit { node: id(number), roles: Roles::MEMBER, name, token: None };
        roster.issue(&key(1), body).unwrap();
    }
    roster
}

impl Home {
    /// So many nodes that know each other's addresses and all reach the bulb of that name.
    pub(crate) async fn new(name: &str, count: u8) -> Self {
        Self::with(name, count, |number| json!({"bulb": name, "node": number})).await
    }

    pub(crate) async fn with(name: &str, count: u8, settings: impl Fn(u8) -> serde_json::Value) -> Self {
        Self::of(&REGISTRY, name, &format!("bulb-{name}"), count, settings).await
    }

    /// As [`Home::new`], with a device of the first adapter of another registry.
    pub(crate) async fn of(
        registry: &'static [Registration],
        name: &str,
        device: &str,
        count: u8,
        settings: impl Fn(u8) -> serde_json::Value,
    ) -> Self {
        let mut seeds = Vec::new();
        let mut nodes = Vec::new();
        for number in 1..=count {
            let household = Household { number, count, seeds: seeds.clone() };
            let (node, address) = start(household, registry, settings(number)).await;
            seeds.push((Target::Node(id(number)), vec![address]));
            nodes.push(node);
        }
        let device = ObjectId::new(&format!("device/{device}")).unwrap();
        Self { nodes, bulb: Bulb::named(name), device }
    }

    /// Waits until every node sees all nodes reach the bulb and it online; answers with the index
    /// of its owner.
    pub(crate) async fn settled(&self) -> usize {
        for node in &self.nodes {
            let all = |view: &ObjectView| {
                let reached =
                    self.nodes.iter().all(|node| field(view, &format!("reach.{}", node.me)).is_some());
                reached && availability(view) == "online" && field(view, "reported").is_some()
            };
            node.until(&self.device, "all nodes reach the bulb", all).await;
        }
        let all: BTreeSet<ShortId> = self.nodes.iter().map(|node| node.me).collect();
        let owner = node::devices::ownership::owner(&all, &all, self.device.name()).unwrap();
        self.nodes.iter().position(|node| node.me == owner).unwrap()
    }
}

struct Household {
    number: u8,
    count: u8,
    seeds: Vec<(Target, Vec<SocketAddr>)>,
}

async fn start(
    household: Household,
    registry: &'static [Registration],
    settings: serde_json::Value,
) -> (Node, SocketAddr) {
    let Household { number, count, seeds } = household;
    let folder = Folder::new().unwrap();
    let state = Arc::new(StateDir::open(&folder.join("state")).unwrap());
    let clock = Clock::new();
    let boot = Boot {
        key: key(number),
        roster: roster(count),
        run: next_run(None, 0, false, 0, Plant::default()),
        ceiling: Hlc::ZERO,
        build_ms: 0,
        wall: mesh_proto::time::WallClock::Right,
        restored: None,
        seed: number.into(),
        software: "test".to_owned(),
        limits: mesh_proto::limits::Limits::default(),
        plant: Plant::default(),
    };
    let mesh = Mesh::new(boot, clock.now(), Loader::new(Plant::default()));
    let me = id(number).short();
    let (service, requests) = Service::channel();
    let (events, links) = link_events();
    let (wanted, wanted_rx) = watch::channel(Wanted::default());
    let (alive, alive_rx) = watch::channel(BTreeSet::from([me]));
    let (members, _) = watch::channel(BTreeSet::new());
    let (joins, _) = mpsc::channel(1);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let identity = NodeIdentity::from_seed(&[number; 32]).unwrap();
    let counters = Arc::new(TransportCounters::default());
    let quic = QuicTransport::start(&identity, socket, events, joins, counters, Limits::default()).unwrap();
    quic.know((1..=count).map(id).collect());
    let address = quic.local_address().unwrap();
    let (store, committed) = StoreHandle::spawn(Box::new(MemoryStore::new())).unwrap();
    let (time, household_time) = watch::channel(HouseholdTime::default());
    let event_loop = EventLoop::new(Parts {
        mesh,
        state,
        store,
        committed,
        links,
        requests,
        wanted,
        seeds,
        discovered: watch::channel(node::discovery::Found::default()).1,
        alive,
        members,
        heartbeat: Arc::default(),
        clock,
        synchronised: watch::channel(true).1,
        time,
        caught_up: watch::channel(false).0,
    });
    let (stop, shutdown) = watch::channel(false);
    let (_never, loop_shutdown) = watch::channel(false);
    let looping = tokio::spawn(async move {
        let _never = _never;
        event_loop.run(loop_shutdown).await.unwrap();
    });
    let dialing = tokio::spawn(Dialer::new(quic, wanted_rx).run());
    let (commands, port) = CommandsHandle::channel();
    let (adapters, adapter_requests) = AdaptersHandle::channel();
    let (admitted, vault_members) = watch::channel((1..=count).map(id).collect());
    let heartbeat = Arc::new(AtomicU64::new(0));
    let adapter = registry[0].descriptor.id;
    let parts = DevicesParts {
        service: service.clone(),
        commands: port,
        requests: adapter_requests,
        happenings: EventsHandle::channel().0,
        announced: watch::channel(Announced::new()).1,
        audit: Audit::spawn(&folder.join("state"), || 0).unwrap().0,
        vault: Vault::new(key(number), vault_members),
        alive: alive_rx,
        time: household_time,
        me,
        incarnation: 1,
        adapters: BTreeMap::from([(adapter.to_owned(), AdapterSettings { enabled: true, settings })]),
        shutdown,
        heartbeat: heartbeat.clone(),
    };
    let devices = Devices::spawn_with(parts, registry);
    let tasks = vec![looping, dialing];
    let members = admitted;
    let node =
        Node { me, service, commands, adapters, members, devices, heartbeat, stop, tasks, _folder: folder };
    (node, address)
}

impl Node {
    /// Waits until the object is as `is` says.
    pub(crate) async fn until(
        &self,
        object: &ObjectId,
        what: &str,
        is: impl Fn(&ObjectView) -> bool,
    ) -> ObjectView {
        let deadline = Instant::now() + PATIENCE;
        let mut pace = interval(Duration::from_millis(10));
        loop {
            let view = self.service.get(object.clone()).await.unwrap();
            if let Some(view) = view.as_ref().filter(|view| is(view)) {
                return view.clone();
            }
            assert!(Instant::now() < deadline, "waited for {what} on {}: {view:#?}", self.me);
            pace.tick().await;
        }
    }

    pub(crate) async fn submit(&self, device: &ObjectId, change: Change) -> Command {
        self.submit_within(device, change, 30_000).await
    }

    pub(crate) async fn submit_within(&self, device: &ObjectId, change: Change, deadline_ms: u32) -> Command {
        self.try_submit(device, change, deadline_ms, None).await.unwrap()
    }

    pub(crate) async fn try_submit(
        &self,
        device: &ObjectId,
        change: Change,
        deadline_ms: u32,
        key: Option<&str>,
    ) -> Result<Command, PortError> {
        let (device, key) = (device.clone(), key.map(str::to_owned));
        let by = By::name("user:ann");
        self.commands.submit(CommandRequest { device, change, key, deadline_ms, by }).await
    }

    /// Waits until the command has ended, as this node sees it.
    pub(crate) async fn ended(&self, id: &str) -> Command {
        let deadline = Instant::now() + PATIENCE;
        let mut pace = interval(Duration::from_millis(10));
        loop {
            let command = self.commands.get(id.to_owned()).await.unwrap();
            if let Some(command) = command.clone().filter(|command| command.state.is_final()) {
                return command;
            }
            assert!(Instant::now() < deadline, "waited for the end of {command:?} on {}", self.me);
            pace.tick().await;
        }
    }

    /// From now on the node takes these for the members of the household, by their numbers.
    pub(crate) fn admit(&self, numbers: impl IntoIterator<Item = u8>) {
        self.members.send_replace(numbers.into_iter().map(id).collect());
    }

    /// Stops the devices of this node as a stop of the daemon does.
    pub(crate) async fn stop_devices(&mut self) {
        self.stop.send(true).unwrap();
        timeout_at(Instant::now() + PATIENCE, &mut self.devices.task).await.expect("stops in time").unwrap();
    }

    pub(crate) fn beats(&self) -> u64 {
        self.heartbeat.load(Ordering::Relaxed)
    }
}

/// The states of one command as they come, up to its end.
pub(crate) async fn life(events: &mut broadcast::Receiver<Command>, id: &str) -> Vec<CommandState> {
    let deadline = Instant::now() + PATIENCE;
    let mut states = Vec::new();
    loop {
        let event = timeout_at(deadline, events.recv()).await;
        let event = event.unwrap_or_else(|_| panic!("no end of {id} after {states:?}")).unwrap();
        if event.id == id {
            states.push(event.state);
            if event.state.is_final() {
                return states;
            }
        }
    }
}

pub(crate) fn field<'a>(view: &'a ObjectView, name: &str) -> Option<&'a Value> {
    view.fields.get(&FieldName::new(name).unwrap()).map(|field| &field.value)
}

pub(crate) fn availability(view: &ObjectView) -> &str {
    field(view, "availability").and_then(|value| value.get("state")?.as_text()).unwrap_or("unknown")
}

pub(crate) fn reason(view: &ObjectView) -> &str {
    field(view, "availability").and_then(|value| value.get("reason")?.as_text()).unwrap_or_default()
}

pub(crate) fn power(power: Power) -> Change {
    Change { on: Some(power), ..Change::default() }
}

pub(crate) fn brightness(brightness: u16) -> Change {
    Change { brightness: Some(brightness), ..Change::default() }
}
