//! The task that speaks multicast DNS. The protocol is the library's, in a thread of its own; this
//! decides where it speaks, what it says, what is believed, and what happens when it fails.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use if_addrs::Interface;
use mdns_sd::{
    IfKind, IfPredicate, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};
use mesh_proto::{NodeId, wire::FRAME_VERSION};
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Announcement, Choice, DeviceHints, Found, Hints, HouseholdTag, InterfaceWatch, Report, SERVICE, State,
    nearby::dialable,
};

/// The port of multicast DNS (RFC 6762, section 3).
const PORT: u16 = 5353;
/// A node that has not heard its own announcement after this does not hear the others' either.
const HEARS_ITSELF_WITHIN: Duration = Duration::from_secs(10);
/// Pause before a try after a failure, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Hints are passed on at most this often after the first.
const PACE: Duration = Duration::from_millis(250);
/// How often the size of the library's memory is looked at.
const WEIGH_EVERY: Duration = Duration::from_secs(2);
/// Records that the library may remember. It has no limit of its own; a home with a hundred
/// devices has some hundreds.
const MOST_RECORDS: i64 = 4_096;
/// Timers that the library may set for each.
const TIMERS_OF_A_RECORD: i64 = 16;
/// How often the library looks at the interfaces by itself, in seconds, and how often for a moment
/// after something has changed.
const LOOK_SELDOM_S: u32 = 30;
const LOOK_OFTEN_S: u32 = 1;
const LOOK_OFTEN_FOR: Duration = Duration::from_secs(4);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(200);

/// What discovery is made of.
#[derive(Debug)]
pub struct Mdns {
    /// Whether it is wanted.
    pub enabled: bool,
    /// Where it may speak.
    pub choice: Choice,
    /// This node.
    pub me: NodeId,
    /// The household.
    pub household: HouseholdTag,
    /// The UDP port of the mesh.
    pub port: u16,
    /// The admitted nodes.
    pub members: watch::Receiver<BTreeSet<NodeId>>,
    /// What is found.
    pub found: watch::Sender<Found>,
    /// Devices that adapters want to hear of.
    pub devices: DeviceHints,
    /// Says when to stop.
    pub shutdown: watch::Receiver<bool>,
}

/// Why discovery does not work at the moment; it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum Broken {
    #[error("UDP port {PORT} cannot be had: {0}")]
    Port(String),
    #[error("multicast DNS cannot start: {0}")]
    Library(String),
    #[error("multicast DNS ended by itself")]
    Ended,
    #[error("the network floods this node with multicast DNS ({0} records)")]
    Flooded(i64),
}

impl Broken {
    fn way_out(&self) -> &'static str {
        match self {
            Self::Port(_) => {
                "`ss -lunp 'sport = 5353'` names the program that keeps the port to itself; let it share (Avahi: \
                 disallow-other-stacks=no), or set `mdns = false` under [discovery] and name nodes with `peers`"
            }
            Self::Library(_) | Self::Ended => {
                "it is tried again; until then nodes are reached where they were last"
            }
            Self::Flooded(_) => {
                "it is tried again later; find who floods with `tcpdump -ni any udp port 5353`, or take its \
                 interface out of `interfaces` under [discovery]"
            }
        }
    }
}

/// How a session ended without failing.
enum End {
    /// The daemon stops.
    Stop,
    /// The interfaces in use went or came back.
    Interfaces,
}

impl Mdns {
    /// Speaks until the daemon stops.
    pub async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        if let Some(reason) = self.is_off() {
            self.report(State::Off, reason, None);
            return std::future::pending().await;
        }
        let mut watch = InterfaceWatch::new();
        loop {
            let began = Instant::now();
            match self.session(&mut watch).await {
                Ok(End::Stop) => return std::future::pending().await,
                Ok(End::Interfaces) => pause = FIRST_PAUSE,
                Err(broken) => {
                    if began.elapsed() > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                    warn!(reason = %broken, again_in = ?pause, "nodes are not discovered at the moment");
                    self.report(State::Failing, broken.to_string(), Some(broken.way_out()));
                    tokio::select! {
                        () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                        () = stopped(&mut self.shutdown) => return std::future::pending().await,
                    }
                }
            }
        }
    }

    fn is_off(&self) -> Option<&'static str> {
        if !self.enabled {
            return Some("switched off in the configuration");
        }
        self.choice.is_loopback().then_some("this node listens on the loopback alone")
    }

    /// Announces and listens for as long as it works and an interface is there.
    async fn session(&mut self, watch: &mut InterfaceWatch) -> Result<End, Broken> {
        loop {
            if !self.choice.present().is_empty() {
                break;
            }
            let detail = match self.choice.names() {
                [] => "no network interface with an address is up".to_owned(),
                names => format!("no interface of {} is up with an address", names.join(", ")),
            };
            let fix =
                "plug in the network; `ip address` shows the names; `interfaces` under [discovery] chooses";
            self.report(State::Waiting, detail, Some(fix));
            tokio::select! {
                () = watch.changed() => {}
                () = stopped(&mut self.shutdown) => return Ok(End::Stop),
            }
        }
        port_is_shared(self.choice.present().iter().map(Interface::ip))?;
        let speaking = Speaking::start(self)?;
        let ended = self.listen(&speaking, watch).await;
        speaking.say_goodbye().await;
        self.found.send_if_modified(|found| {
            let had = !found.hints.is_empty();
            found.hints.clear();
            had
        });
        ended
    }

    async fn listen(&mut self, speaking: &Speaking, watch: &mut InterfaceWatch) -> Result<End, Broken> {
        let mut heard = Heard::default();
        let mut weigh = interval(WEIGH_EVERY);
        weigh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut deadline, mut is_late) = (Some(Instant::now() + HEARS_ITSELF_WITHIN), false);
        let (mut tell_at, mut calm_at): (Option<Instant>, Option<Instant>) = (Some(Instant::now()), None);
        let mut events = speaking.browse()?;
        let mut announcements =
            self.devices.browse(&speaking.daemon).map_err(|reason| Broken::Library(reason.to_string()))?;
        let mut shutdown = self.shutdown.clone();
        let never = Instant::now() + Duration::from_secs(86_400 * 365);
        loop {
            // At every turn: what is told of a change may come before the change is complete.
            if self.choice.present().is_empty() {
                return Ok(End::Interfaces);
            }
            tokio::select! {
                () = stopped(&mut shutdown) => return Ok(End::Stop),
                event = events.recv_async() => {
                    let event = event.map_err(|_| Broken::Ended)?;
                    if self.take_in(event, &mut heard) {
                        tell_at.get_or_insert(heard.told.map_or_else(Instant::now, |told| told + PACE));
                    }
                }
                Some((service, event)) = announcements.next() => {
                    announcements.take_in(service, event, &self.choice.present());
                }
                Ok(()) = self.members.changed() => {
                    heard.hints.keep(&self.members.borrow_and_update());
                    // What was announced by those who are members only now is in the library's memory.
                    events = speaking.browse()?;
                    tell_at.get_or_insert_with(Instant::now);
                }
                () = watch.changed() => {
                    speaking.look_every(LOOK_OFTEN_S);
                    calm_at = Some(Instant::now() + LOOK_OFTEN_FOR);
                    tell_at.get_or_insert_with(Instant::now);
                }
                _ = weigh.tick() => speaking.weigh().await?,
                () = sleep_until(calm_at.unwrap_or(never)), if calm_at.is_some() => {
                    speaking.look_every(LOOK_SELDOM_S);
                    calm_at = None;
                }
                () = sleep_until(deadline.unwrap_or(never)), if deadline.is_some() => {
                    (deadline, is_late) = (None, true);
                    tell_at.get_or_insert_with(Instant::now);
                }
                () = sleep_until(tell_at.unwrap_or(never)), if tell_at.is_some() => {
                    tell_at = None;
                    heard.told = Some(Instant::now());
                    self.tell(&heard, is_late);
                }
            }
        }
    }

    /// Answers with whether there is news.
    fn take_in(&mut self, event: ServiceEvent, heard: &mut Heard) -> bool {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let said = match announced(&service) {
                    Ok(said) => said,
                    Err(reason) => {
                        debug!(name = %clip(&service.fullname), %reason, "an announcement is not understood");
                        return heard.hints.gone(&service.fullname);
                    }
                };
                if said.household != self.household {
                    return heard.hints.gone(&service.fullname);
                }
                if said.node == self.me.short() {
                    return !std::mem::replace(&mut heard.itself, true);
                }
                let own = self.choice.present();
                let addresses = addresses(&service, &own);
                debug!(node = %said.node, ?addresses, "a node announces itself");
                heard.hints.heard(&service.fullname, said.node, &self.members.borrow(), addresses)
            }
            ServiceEvent::ServiceRemoved(_, name) => heard.hints.gone(&name),
            _ => false,
        }
    }

    fn tell(&self, heard: &Heard, is_late: bool) {
        let hints = heard.hints.by_node();
        let names: BTreeSet<String> =
            self.choice.present().into_iter().map(|interface| interface.name).collect();
        let on = names.into_iter().collect::<Vec<_>>().join(", ");
        let report = if heard.itself || !hints.is_empty() {
            let others = match hints.len() {
                0 => "no other node of the household heard".to_owned(),
                1 => "1 other node of the household heard".to_owned(),
                many => format!("{many} other nodes of the household heard"),
            };
            Report { state: State::On, detail: format!("mDNS on {on}; {others}"), way_out: None }
        } else if is_late {
            let way_out = "let UDP port 5353 in and out of this machine's firewall (`nft list ruleset` shows it) and \
                           multicast through the access point, or name the other nodes with `peers`";
            let detail = format!(
                "nothing that is said to UDP port {PORT} on {on} is heard, not even by this node itself"
            );
            Report { state: State::Failing, detail, way_out: Some(way_out.into()) }
        } else {
            Report {
                state: State::Starting,
                detail: format!("mDNS on {on}; nothing heard yet"),
                way_out: None,
            }
        };
        self.found.send_if_modified(|found| {
            let next = Found { report, hints };
            let differs = *found != next;
            let Report { state, detail, .. } = &next.report;
            match state {
                _ if found.report.state == *state => {}
                State::Failing => warn!(%detail, "nodes are not discovered at the moment"),
                state => info!(%state, %detail, "discovery"),
            }
            *found = next;
            differs
        });
    }

    fn report(&self, state: State, detail: impl Into<String>, way_out: Option<&str>) {
        let report = Report { state, detail: detail.into(), way_out: way_out.map(str::to_owned) };
        self.found.send_if_modified(|found| {
            let differs = found.report != report;
            found.report = report;
            differs
        });
    }
}

/// What a session has heard.
#[derive(Debug, Default)]
struct Heard {
    hints: Hints,
    /// Whether this node's own announcement came back, as multicast does.
    itself: bool,
    /// When hints were passed on last.
    told: Option<Instant>,
}

/// The library at work. Dropping it says goodbye and ends its thread.
struct Speaking {
    daemon: ServiceDaemon,
    is_over: bool,
}

impl Speaking {
    fn start(mdns: &Mdns) -> Result<Self, Broken> {
        let failed = |reason: mdns_sd::Error| Broken::Library(reason.to_string());
        let said =
            Announcement { version: FRAME_VERSION.into(), node: mdns.me.short(), household: mdns.household };
        let name = said.node.to_string();
        let host = format!("hearth-{name}.local.");
        let pairs: HashMap<String, String> =
            said.pairs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut service =
            ServiceInfo::new(SERVICE, &name, &host, "", mdns.port, pairs).map_err(failed)?.enable_addr_auto();
        // The name is made of the key: nobody else has it, and a copy of this node must not rename it.
        service.set_requires_probe(false);
        let chosen = || {
            let choice = mdns.choice.clone();
            IfKind::Predicate(IfPredicate::new(move |interface: &Interface| choice.takes(interface)))
        };
        service.set_interfaces(vec![chosen()]);
        let speaking = Self { daemon: ServiceDaemon::new().map_err(failed)?, is_over: false };
        let daemon = &speaking.daemon;
        // Nothing is sent before the interfaces are chosen.
        daemon.disable_interface(IfKind::All).map_err(failed)?;
        daemon.enable_interface(chosen()).map_err(failed)?;
        daemon.set_ip_check_interval(LOOK_SELDOM_S).map_err(failed)?;
        daemon.register(service).map_err(failed)?;
        Ok(speaking)
    }

    /// Looks for others; whoever is known already is told again.
    fn browse(&self) -> Result<Receiver<ServiceEvent>, Broken> {
        self.daemon.browse(SERVICE).map_err(|reason| Broken::Library(reason.to_string()))
    }

    fn look_every(&self, seconds: u32) {
        if let Err(reason) = self.daemon.set_ip_check_interval(seconds) {
            debug!(%reason, "the interfaces are looked at later");
        }
    }

    /// Fails when the library remembers more than it should.
    async fn weigh(&self) -> Result<(), Broken> {
        let metrics = self.daemon.get_metrics().map_err(|_| Broken::Ended)?;
        let metrics = timeout(WEIGH_EVERY * 5, metrics.recv_async()).await;
        let metrics = metrics.map_err(|_| Broken::Ended)?.map_err(|_| Broken::Ended)?;
        let records =
            metrics.iter().filter(|(name, _)| name.starts_with("cached-")).map(|(_, count)| count).sum();
        let timers = metrics.get("timer").copied().unwrap_or_default();
        let records = i64::max(records, timers / TIMERS_OF_A_RECORD);
        if records > MOST_RECORDS { Err(Broken::Flooded(records)) } else { Ok(()) }
    }

    async fn say_goodbye(mut self) {
        self.is_over = true;
        if let Ok(said) = self.daemon.shutdown() {
            // It goes on by itself if it takes longer.
            let _ = timeout(GOODBYE, said.recv_async()).await;
        }
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        if !self.is_over {
            // A thread that has ended needs no end.
            let _ = self.daemon.shutdown();
        }
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // Nobody is left to say so: that is a stop, too.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

fn announced(service: &ResolvedService) -> Result<Announcement, super::AnnouncementError> {
    Announcement::parse(service.get_properties().iter().map(|pair| (pair.key(), pair.val())))
}

fn addresses(service: &ResolvedService, own: &[Interface]) -> Vec<SocketAddr> {
    let address = |ip: &ScopedIp| {
        let scope = if let ScopedIp::V6(v6) = ip { v6.scope_id().index } else { 0 };
        dialable(ip.to_ip_addr(), scope, service.port, own)
    };
    let mut addresses: Vec<SocketAddr> = service.addresses.iter().filter_map(address).collect();
    addresses.sort_unstable();
    addresses
}

/// The library shares the port with others who do, and says nothing when it cannot.
fn port_is_shared(used: impl Iterator<Item = IpAddr>) -> Result<(), Broken> {
    let families: BTreeSet<bool> = used.map(|ip| ip.is_ipv6()).collect();
    for is_v6 in families {
        let (family, any) = if is_v6 {
            (AddressFamily::INET6, IpAddr::from([0_u16; 8]))
        } else {
            (AddressFamily::INET, IpAddr::from([0_u8; 4]))
        };
        let tried = socket(family, SocketType::DGRAM, None).and_then(|socket| {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            sockopt::set_socket_reuseport(&socket, true)?;
            if is_v6 {
                sockopt::set_ipv6_v6only(&socket, true)?;
            }
            bind(&socket, &SocketAddr::new(any, PORT))
        });
        tried.map_err(|reason| Broken::Port(std::io::Error::from(reason).to_string()))?;
    }
    Ok(())
}

/// A name from the network, for the log.
fn clip(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}
