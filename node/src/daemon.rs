//! The composition root: builds, wires and joins every part, and knows them all.
//!
//! The process goes through one or more *lives*. A life belongs to one household; when the node
//! joins another or leaves, everything but the lock on the state folder is taken down and a
//! new life begins.

pub mod addresses;
mod boot;
mod certificates;
mod challenges;
pub mod control;
pub mod doctor;
mod door;
pub mod household;
mod metrics;
mod nightly;
mod parts;
pub mod presence;
mod start;
mod web;

use std::{
    collections::BTreeSet,
    error::Error,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use ed25519_dalek::SigningKey;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use self::metrics::{
    adapter_metrics, automation_metrics, history_metrics, http_metrics, join_metrics, store_metrics,
    transport_metrics,
};
use crate::{
    api::{
        self, ApiContext,
        metrics::Metrics,
        ports::{
            CommandsHandle, ControlHandle, InvitesHandle, adapters::AdaptersHandle,
            automations::AutomationsHandle, events::EventsHandle, history::HistoryHandle,
            schedules::SchedulesHandle,
        },
    },
    audit::Audit,
    auth::{JoinCounters, serve_joins},
    automation::{self, Automation, AutomationParts, Engine, EngineParts, webhooks::Webhooks},
    cli::Ready,
    config::Config,
    devices::{Devices, DevicesParts, HouseholdClock, Vault},
    discovery::{Announced, Choice, DeviceHints, Found, HouseholdTag, Mdns},
    eventloop::{self, Clock, EventLoop},
    history::{History, HistoryParts, HistoryTask},
    listener::{self, Ports, TcpLimits},
    service::{HouseholdTime, Service},
    state_dir::StateDir,
    store::worker::StoreHandle,
    supervisor::{self, Health, PATIENCE, Pulse, Systemd},
    timekeeping::{self, BUILD_S, TimePrograms, unix_seconds},
    tls::{acme::report::Report, identity::NodeIdentity, local_ca::WallClock},
    transport::{Dialer, Limits, QuicTransport, TransportCounters, Ways, WebSocketTransport, link_events},
};
use certificates::Certificates;
use challenges::{Challenges, ChallengesParts};
use control::{Control, End};
use doctor::Doctor;
use door::{Door, DoorParts, door_metrics};
pub use parts::Failed;
use parts::Parts;
use start::{Opened, StopSignal, open};
use web::{follow_addresses, listen_info, web_names};

/// How long the parts of a life may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// How long a life that has ended may take to let go of its ports.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the daemon until it is told to stop. Each life announces itself once it serves.
///
/// # Errors
/// Why it could not start, or, as [`Failed`], what went wrong later; the text holds the way out.
pub fn run(config: Config, announce: &dyn Fn(&Ready)) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    door::raise_descriptors();
    let ended = runtime.block_on(async {
        let mut stop = StopSignal::listen()?;
        let state = Arc::new(StateDir::open(&config.state_dir)?);
        let mut join = config.join.clone();
        let mut patience = Duration::ZERO;
        loop {
            let life = Life { config: &config, state: state.clone(), patience, announce };
            match life.run(join.as_ref().map(|token| token.expose()), &mut stop).await? {
                End::Stop => return Ok(()),
                End::Again => info!("starting again in the new household"),
            }
            join = None;
            patience = RELEASE_PATIENCE;
        }
    });
    // A name that is being looked up is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// One life of the daemon.
struct Life<'a> {
    config: &'a Config,
    state: Arc<StateDir>,
    /// How long the ports may still be held by the life before.
    patience: Duration,
    /// Told once it serves.
    announce: &'a dyn Fn(&Ready),
}

impl Life<'_> {
    async fn run(self, token: Option<&str>, stop_signal: &mut StopSignal) -> Result<End, Box<dyn Error>> {
        let (config, state) = (self.config, &self.state);
        let systemd = Systemd::from_environment();
        // Whatever is left half done is ended by the next start, as after a power cut.
        let opened = stop_signal.or(open(config, state, self.patience, token, &systemd)).await.transpose()?;
        let Some(Opened { ports, household, store, recovery, loader }) = opened else {
            return Ok(End::Stop);
        };
        let identity = NodeIdentity::from_seed(household.seed.as_bytes())?;
        let me = identity.id();
        let programs = TimePrograms::default();
        let (synchronised, keep_looking) = timekeeping::follow(config.clock, programs.clone()).await;
        let wall = timekeeping::at_start(config.clock, &programs, *synchronised.borrow());
        let mesh = self.mesh(&household, me, loader, wall)?;
        let run = mesh.run();
        let (stop, shutdown) = watch::channel(false);
        let mut tasks = Parts::default();
        tasks.spawn("the watch over the clock", keep_looking);
        let (service, requests) = Service::channel();
        let (events, links) = link_events();
        let (wanted, wanted_rx) = watch::channel(Default::default());
        let (alive, alive_rx) = watch::channel(BTreeSet::from([me.short()]));
        let (time_told, household_time) = watch::channel(HouseholdTime::default());
        let (caught_up_told, caught_up) = watch::channel(false);
        let clock = HouseholdClock::new(household_time.clone());
        let (audit, auditing) = Audit::spawn(state.path(), move || clock.now_ms())?;
        let (joins, joins_rx) = mpsc::channel(16);
        let transport_counters = Arc::new(TransportCounters::default());
        let join_counters = Arc::new(JoinCounters::default());
        let Ports { tcp, udp, address } = ports;
        let quic = QuicTransport::start(
            &identity,
            udp,
            events,
            joins,
            transport_counters.clone(),
            Limits::default(),
        )?;
        let websocket = WebSocketTransport::new(&identity, &quic)?;
        let (members, mut members_rx) = watch::channel(BTreeSet::new());
        let (members_of_household, members_of_vault) = (members_rx.clone(), members_rx.clone());
        let known = quic.clone();
        tasks.spawn("the list of members", async move {
            while members_rx.changed().await.is_ok() {
                known.know(members_rx.borrow_and_update().clone());
            }
        });

        let advertise: Vec<SocketAddr> = config
            .advertise
            .iter()
            .map(|at| if at.port() == 0 { SocketAddr::new(at.ip(), address.port()) } else { *at })
            .collect();
        let choice = Choice::new(address, config.discovery.interfaces.clone());
        let (addresses, addresses_rx) = watch::channel(addresses::reachable(address, &advertise, &choice));
        let (names, names_rx) = watch::channel(web_names(address, &advertise));
        let (info, listen_rx) = watch::channel(listen_info(address, &advertise, &addresses_rx.borrow()));
        let ways = Ways { quic: quic.clone(), websocket: websocket.clone() };
        let dialer = Dialer::new(ways, wanted_rx).retry_quic(config.quic_retry, addresses_rx.clone());
        tasks.spawn("the dialer", dialer.run());
        let choosing = choice.clone();
        let following = follow_addresses(quic.clone(), address, advertise, choosing, addresses, names, info);
        tasks.spawn("the addresses", following);
        let (found, discovered) = watch::channel(Found::default());
        let (announced, devices_announced) = watch::channel(Announced::new());
        let services = device_adapters::registry().iter().flat_map(|adapter| adapter.descriptor.mdns);
        let discovery = Mdns {
            enabled: config.discovery.mdns,
            choice,
            me,
            household: HouseholdTag::of(&household.roster.household()),
            port: address.port(),
            members: members_of_household,
            found,
            devices: DeviceHints { services: services.copied().collect(), announced },
            shutdown: shutdown.clone(),
        };
        tasks.spawn("the discovery", discovery.run());

        let (store, committed) = StoreHandle::spawn(Box::new(store))?;
        let (store_beats, jobs) = (store.heartbeat(), store.jobs());
        let exports = state.path().join(crate::store::sled::EXPORT_FOLDER);
        tasks.spawn("the nightly export", nightly::export_nightly(jobs.clone(), exports));
        let loop_beats = Arc::new(AtomicU64::new(0));
        let event_loop = EventLoop::new(eventloop::Parts {
            mesh,
            state: state.clone(),
            store,
            committed,
            links,
            requests,
            wanted,
            seeds: self.seeds(&household),
            discovered,
            alive,
            members,
            heartbeat: loop_beats.clone(),
            clock: Clock::new(),
            synchronised: synchronised.clone(),
            time: time_told,
            caught_up: caught_up_told,
        });
        let (stop_loop, loop_shutdown) = watch::channel(false);
        let looping = tokio::spawn(event_loop.run(loop_shutdown));
        let desk = self.invites(me, &household)?;
        let (admit, admissions) = mpsc::channel(16);
        let joining = serve_joins(joins_rx, desk.clone(), admit, addresses_rx.clone(), join_counters.clone());
        tasks.spawn("the admission of nodes", joining);
        tasks.spawn("the admission of nodes", control::serve_admissions(admissions, service.clone()));
        let (invites, invite_requests) = InvitesHandle::channel();
        let inviting =
            control::serve_invites(invite_requests, desk, service.clone(), me, addresses_rx.clone());
        tasks.spawn("the invites", inviting);
        let (introduced, name, is_new) = (service.clone(), config.name.clone(), household.is_new);
        let announced = addresses_rx.clone();
        tasks.spawn("the introduction", async move {
            control::introduce(&introduced, me, &name, is_new, announced).await;
        });
        let telling = service.clone();
        tasks.spawn("the status of this node", async move {
            if let Err(rule) = presence::tell_status(telling, me.short()).await {
                error!(%rule, "this node cannot tell its status");
            }
        });

        let challenges = Challenges::spawn(
            &mut tasks,
            ChallengesParts {
                config,
                service: service.clone(),
                me: me.short(),
                time: household_time.clone(),
                names: names_rx.clone(),
                api_port: address.port(),
            },
        );
        let (commands, commands_port) = CommandsHandle::channel();
        let (adapters, adapter_requests) = AdaptersHandle::channel();
        let devices_beats = Arc::new(AtomicU64::new(0));
        let (events, event_requests) = EventsHandle::channel();
        let mut devices = Devices::spawn(DevicesParts {
            service: service.clone(),
            commands: commands_port,
            requests: adapter_requests,
            happenings: events.clone(),
            announced: devices_announced,
            audit: audit.clone(),
            vault: Vault::new(SigningKey::from_bytes(household.seed.as_bytes()), members_of_vault),
            alive: alive_rx.clone(),
            time: household_time.clone(),
            me: me.short(),
            incarnation: run.incarnation,
            adapters: self.adapters(),
            shutdown: shutdown.clone(),
            heartbeat: devices_beats.clone(),
        });
        let (schedules, schedule_requests) = SchedulesHandle::channel();
        let (automations, automation_requests) = AutomationsHandle::channel();
        let engine_beats = Arc::new(AtomicU64::new(0));
        let (hooks_tx, hooks) = watch::channel(None);
        let (webhooks, webhooks_owner) = Webhooks::new(hooks);
        tasks.spawn("the webhooks", webhooks_owner.run());
        let mut engine = Engine::spawn(EngineParts {
            service: service.clone(),
            commands: commands.clone(),
            events: events.clone(),
            requests: automation_requests,
            alive: alive_rx.clone(),
            time: household_time.clone(),
            caught_up: caught_up.clone(),
            webhooks: hooks_tx,
            me: me.short(),
            shutdown: shutdown.clone(),
            heartbeat: engine_beats.clone(),
        });
        let by_itself = Arc::new(automation::Counts::default());
        let automation_beats = Arc::new(AtomicU64::new(0));
        let mut automating = Automation::spawn(AutomationParts {
            service: service.clone(),
            commands: commands.clone(),
            requests: schedule_requests,
            events: event_requests,
            alive: alive_rx.clone(),
            time: household_time.clone(),
            caught_up: caught_up.clone(),
            me: me.short(),
            counts: by_itself.clone(),
            shutdown: shutdown.clone(),
            heartbeat: automation_beats.clone(),
        });
        let (history, history_requests) = HistoryHandle::channel();
        let history_beats = Arc::new(AtomicU64::new(0));
        let HistoryTask { task: mut recording, report: recorded } = History::spawn(HistoryParts {
            service: service.clone(),
            requests: history_requests,
            folder: state.path().join("history"),
            enabled: config.history.enabled,
            megabytes: config.history.megabytes,
            time: household_time.clone(),
            shutdown: shutdown.clone(),
            heartbeat: history_beats.clone(),
        });
        let (end, mut ends) = mpsc::channel(2);
        let (control, control_requests) = ControlHandle::channel();
        let found = store_metrics(&recovery);
        let (certified, certificate) = watch::channel(Report::default());
        let wall_clock =
            move || WallClock { unix: unix_seconds().max(BUILD_S), trusted: *synchronised.borrow() };
        let (ca_pem, resolver) = web::local(&mut tasks, state.path(), names_rx, wall_clock.clone())?;
        let is_alone = household.roster.members().count() == 1;
        let is_founded = household.is_new && is_alone;
        let public = Certificates {
            config: config.tls.clone(),
            folder: state.path().join("acme"),
            service: service.clone(),
            me: me.short(),
            alive: alive_rx,
            hears: (!is_alone).then_some(caught_up),
            time: household_time.clone(),
            resolver: resolver.clone(),
            report: certified,
            shutdown: shutdown.clone(),
        };
        tasks.spawn("the public certificate", public.run(wall_clock));
        let web_tls = listener::WebTls { config: Arc::new(resolver.web_tls()?), answers: challenges.answers };
        let door_parts = DoorParts {
            config,
            service: &service,
            state_dir: state.path(),
            time: household_time,
            resolver,
            shutdown: shutdown.clone(),
        };
        let Door { tokens, people, issuers, setup, guards } = Door::open(&mut tasks, door_parts)?;
        let setup_code = door::code_for_founder(&setup, is_founded).await;
        let doctor = Doctor {
            service: service.clone(),
            recovery,
            notes: state.notes().to_vec(),
            jobs,
            state_dir: state.path().to_owned(),
            adapters: devices.adapters.clone(),
            history: recorded.clone(),
            certificate: certificate.clone(),
            http_port: challenges.http_port,
            issuers: issuers.clone(),
        };
        let owner = Control {
            state: state.clone(),
            service: service.clone(),
            identity: identity.clone(),
            name: config.name.clone(),
            doctor,
            end,
        };
        tasks.spawn("the control", owner.run(control_requests));
        let at_the_door = door_metrics(people.counters().clone(), issuers.clone());
        let metrics = Arc::new(Metrics::default());
        let (stalled_now, stalled) = watch::channel(Vec::new());
        let context = Arc::new(ApiContext {
            service: service.clone(),
            tokens,
            people,
            issuers,
            setup,
            invites,
            commands,
            adapters,
            history,
            automations,
            events,
            webhooks,
            schedules,
            control,
            ca_pem,
            guards,
            audit,
            certificate: certificate.clone(),
            listen: listen_rx.clone(),
            metrics: metrics.clone(),
            metrics_sources: vec![
                transport_metrics(transport_counters.clone()),
                join_metrics(join_counters),
                found,
                adapter_metrics(devices.adapters.clone()),
                history_metrics(recorded),
                automation_metrics(by_itself),
                at_the_door,
                certificates::metrics(certificate),
                http_metrics(challenges.counters),
            ],
            stalled,
            shutdown: shutdown.clone(),
        });
        let socket = state.path().join("hearth.sock");
        let unix = api::serve::bind_unix(&socket, &config.api.unix_group).await?;
        let connections = web::serve(&mut tasks, &context, unix);
        let listening =
            listener::serve(tcp, web_tls, websocket, connections, transport_counters, TcpLimits::default());
        tasks.spawn("the listener", listening);

        let pulses = vec![
            Pulse { name: "event loop", beats: loop_beats },
            Pulse { name: "store", beats: store_beats },
            Pulse { name: "devices", beats: devices_beats },
            Pulse { name: "history", beats: history_beats },
            Pulse { name: "schedules", beats: automation_beats },
            Pulse { name: "automations", beats: engine_beats },
            Pulse { name: "QUIC", beats: quic.heartbeat() },
        ];
        let health = Health::new(pulses, Some(address), PATIENCE);
        info!(node = %me.short(), household = ?household.roster.household(), %address, "ready");
        (self.announce)(&Ready {
            node: me.short().to_string(),
            name: config.name.clone(),
            household: household.roster.household().to_string(),
            api: listen_rx.borrow().api.clone(),
            is_founded,
            setup_code,
        });
        let status = format!("listening on {address}");
        let mut watching =
            tokio::spawn(supervisor::run(health, systemd, status, stalled_now, shutdown.clone()));

        let mut looping = looping;
        let ended = tokio::select! {
            end = ends.recv() => Ok(end.unwrap_or(End::Stop)),
            () = stop_signal.comes() => Ok(End::Stop),
            died = &mut looping => Err(parts::why(died)),
            name = tasks.first_to_end() => {
                Err(parts::cause(format!("{name} ended by itself"), &mut looping).await)
            }
            _ = &mut devices.task => {
                Err(parts::cause("the devices ended by themselves".to_owned(), &mut looping).await)
            }
            _ = &mut recording => {
                Err(parts::cause("the history ended by itself".to_owned(), &mut looping).await)
            }
            _ = &mut engine => {
                Err(parts::cause("the automations ended by themselves".to_owned(), &mut looping).await)
            }
            _ = &mut automating => {
                Err(parts::cause("the automation ended by itself".to_owned(), &mut looping).await)
            }
            _ = &mut watching => Err("the supervisor ended by itself".to_owned()),
        };
        info!("stopping");
        if !matches!(ended, Ok(End::Again)) {
            Systemd::from_environment().stops();
        }
        let _nobody_left = stop.send(true);
        let parts = async {
            // A part that panicked has been logged; the rest stops all the same.
            let parts = [&mut engine, &mut automating, &mut devices.task, &mut recording, &mut watching];
            for part in parts.into_iter().filter(|part| !part.is_finished()) {
                let _ = part.await;
            }
        };
        if tokio::time::timeout(STOP_PATIENCE, parts).await.is_err() {
            warn!("some parts did not stop in time");
        }
        // What is broken now would be served again: systemd starts a process that failed anew.
        if let Err(reason) = &ended
            && looping.is_finished()
        {
            return Err(Failed(reason.clone()).into());
        }
        let _ = stop_loop.send(true);
        let outcome = tokio::time::timeout(STOP_PATIENCE, looping).await;
        quic.shutdown(Duration::from_secs(1)).await;
        tasks.stop().await;
        auditing.stop().await;
        // Whoever finds a leftover socket replaces it.
        let _ = std::fs::remove_file(&socket);
        match outcome {
            Ok(Ok(Ok(()))) => ended.map_err(|reason| Failed(reason).into()),
            Ok(Ok(Err(reason))) => Err(Failed(reason.to_string()).into()),
            Ok(Err(reason)) => Err(Failed(reason.to_string()).into()),
            Err(_) => Err(Failed("the event loop did not stop in time".into()).into()),
        }
    }
}
