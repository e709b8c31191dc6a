//! All boards of a kind: which addresses are asked, and which task a directive goes to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::adapter::{AdapterError, Context, Directive, Hint, Reading};
use crate::ending::stopped;
use crate::http::Origin;
use crate::model::{DeviceId, Stage};

use super::board::Board;
use super::config::Lan;
use super::station::{self, Ends, Order};
use super::unit::progress;
use super::{Address, Fault, Identity, Protocol, hardware_of, is_hardware};

/// The most addresses that are known; a hint beyond that is dropped.
const MOST_PLACES: usize = 256;
/// The most boards; a home has fewer, and what answers beyond that is noise or an attack.
const MOST_BOARDS: usize = 128;
/// The most devices that may be owned before they are found.
const MOST_EXPECTED: usize = 1_024;
/// The most addresses that are asked at the same time.
const MOST_PROBES: usize = 8;
/// The first pause before an address that did not answer is asked again; it doubles up to the setting.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// An address that was only hinted at and did not answer so often is forgotten.
const MOST_FAILURES: u32 = 10;
/// An address is not asked again sooner, however often it is hinted at.
const HINT_PAUSE: Duration = Duration::from_secs(5);
/// Orders that wait for a board.
const MOST_ORDERS: usize = 64;
/// How long the task of a board may take to have room for one more. It takes orders whatever it waits for, but for a node
/// that takes no readings.
const ORDER_WITHIN: Duration = Duration::from_secs(2);
/// How long the tasks of boards may take to end.
const END_WITHIN: Duration = Duration::from_millis(1_000);

/// An address.
#[derive(Debug)]
struct Place {
    configured: bool,
    due: Instant,
    asked: Option<Instant>,
    failures: u32,
    is_asked: bool,
    hardware: Option<String>,
}

/// The task of a board.
#[derive(Debug)]
struct Task {
    orders: mpsc::Sender<Order>,
    abort: AbortHandle,
}

struct Fleet<P: Protocol> {
    lan: Lan,
    settings: P::Settings,
    readings: mpsc::Sender<Reading>,
    places: BTreeMap<Origin, Place>,
    boards: BTreeMap<String, Task>,
    owned: BTreeSet<DeviceId>,
    probes: JoinSet<(Origin, P, Result<Identity, Fault>)>,
    /// Why a configured address did not answer when it was asked last; none once one does.
    trouble: Option<String>,
    stations: JoinSet<String>,
    /// Told by a task whose board has to be looked for.
    sought: Arc<Notify>,
    out: VecDeque<Reading>,
}

/// Finds and serves boards until the adapter must stop.
pub(crate) async fn run<P: Protocol>(
    lan: Lan,
    settings: P::Settings,
    ctx: Context,
) -> Result<(), AdapterError> {
    let Context { readings, mut commands, mut hints, mut shutdown, .. } = ctx;
    let mut fleet = Fleet::<P>::new(lan, settings, readings.clone());
    let mut hinted = true;
    let sought = fleet.sought.clone();
    loop {
        fleet.probe();
        let due = fleet.due();
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            permit = readings.reserve(), if !fleet.out.is_empty() => match permit {
                Ok(permit) => if let Some(reading) = fleet.out.pop_front() { permit.send(reading) },
                Err(_) => break,
            },
            directive = commands.recv(), if fleet.out.len() < MOST_ORDERS => match directive {
                Some(directive) => tokio::select! {
                    () = fleet.direct(directive) => {}
                    () = stopped(&mut shutdown) => break,
                },
                None => break,
            },
            hint = hints.recv(), if hinted => match hint {
                Some(hint) => fleet.hint(&hint),
                None => hinted = false,
            },
            Some(probed) = fleet.probes.join_next() => fleet.probed(probed),
            Some(ended) = fleet.stations.join_next() => fleet.ended(ended),
            () = sought.notified() => fleet.look_around(),
            () = sleep_until(due) => {}
        }
    }
    fleet.stop().await;
    Ok(())
}

impl<P: Protocol> Fleet<P> {
    fn new(lan: Lan, settings: P::Settings, readings: mpsc::Sender<Reading>) -> Self {
        let now = Instant::now();
        let places = lan.addresses.iter().map(|at| (at.clone(), Place::new(true, now))).collect();
        Self {
            lan,
            settings,
            readings,
            places,
            boards: BTreeMap::new(),
            owned: BTreeSet::new(),
            probes: JoinSet::new(),
            trouble: None,
            stations: JoinSet::new(),
            sought: Arc::new(Notify::new()),
            out: VecDeque::new(),
        }
    }

    /// When an address has to be asked next.
    fn due(&self) -> Instant {
        let waiting = self.places.values().filter(|place| !place.is_asked).map(|place| place.due);
        let due = waiting.min().filter(|_| self.probes.len() < MOST_PROBES);
        due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600))
    }

    /// Asks the addresses that are due.
    fn probe(&mut self) {
        let now = Instant::now();
        for (at, place) in self.places.iter_mut().filter(|(_, place)| !place.is_asked && place.due <= now) {
            if self.probes.len() >= MOST_PROBES {
                return;
            }
            (place.is_asked, place.asked) = (true, Some(now));
            let at = at.clone();
            let mut protocol = P::new(&self.settings, &self.lan.route, &place.address(&at));
            self.probes.spawn(async move {
                let answer = protocol.identify().await;
                (at, protocol, answer)
            });
        }
    }

    /// Asks all addresses again, for a board is not where it was.
    fn look_around(&mut self) {
        let now = Instant::now();
        self.places.values_mut().for_each(|place| place.ask_soon(now));
    }

    fn probed(&mut self, probed: Result<(Origin, P, Result<Identity, Fault>), JoinError>) {
        let Ok((at, protocol, answer)) = probed else { return };
        let now = Instant::now();
        let Some(place) = self.places.get_mut(&at) else { return };
        place.is_asked = false;
        match answer {
            Ok(identity) => {
                place.failures = 0;
                self.trouble = self.trouble.take().filter(|_| !place.configured);
                // Who keeps a task asks by itself; here it is asked now and then whether another board has come.
                place.due = now + self.lan.timing.discover * 10;
                place.hardware = Some(identity.hardware.clone());
                let address = place.address(&at);
                self.seen(now, address, protocol, identity);
            }
            Err(fault) => {
                place.failures = place.failures.saturating_add(1);
                let pause = FIRST_PAUSE * 2_u32.saturating_pow(place.failures.saturating_sub(1).min(12));
                place.due = now + pause.min(self.lan.timing.discover);
                tracing::debug!(adapter = P::ID, %at, %fault, "an address does not answer as it should");
                if place.configured {
                    self.trouble = Some(fault.to_string());
                }
                if !place.configured && place.failures >= MOST_FAILURES {
                    self.places.remove(&at);
                }
            }
        }
    }

    fn seen(&mut self, now: Instant, at: Address, protocol: P, identity: Identity) {
        if !is_hardware(&identity.hardware) {
            return;
        }
        if let Some(task) = self.boards.get(&identity.hardware) {
            let origin = at.origin.clone();
            // A task that just ended, or has no room, hears of it when the address is asked again: soon.
            if task.orders.try_send(Order::Seen(at)).is_err()
                && let Some(place) = self.places.get_mut(&origin)
            {
                place.due = now + HINT_PAUSE;
            }
            return;
        }
        if self.boards.len() >= MOST_BOARDS {
            tracing::debug!(adapter = P::ID, at = %at.origin, most = MOST_BOARDS, "too many devices: this one is ignored");
            return;
        }
        let hardware = identity.hardware.clone();
        let mut board = Board::new(identity, at, self.lan.timing, now);
        for device in
            self.owned.iter().filter(|device| hardware_of(device, P::ID).as_ref() == Some(&hardware))
        {
            board.directive(now, Directive::Own { device: device.clone(), owned: true });
        }
        let (orders, receiver) = mpsc::channel(MOST_ORDERS);
        let ends = Ends { orders: receiver, readings: self.readings.clone(), sought: self.sought.clone() };
        let name = hardware.clone();
        let abort = self.stations.spawn(async move {
            station::serve(protocol, board, ends).await;
            name
        });
        self.boards.insert(hardware, Task { orders, abort });
    }

    fn ended(&mut self, ended: Result<String, JoinError>) {
        let now = Instant::now();
        match ended {
            Ok(hardware) => {
                self.boards.remove(&hardware);
                let discover = self.lan.timing.discover;
                for place in
                    self.places.values_mut().filter(|place| place.hardware.as_ref() == Some(&hardware))
                {
                    place.due = place.due.min(now + discover);
                }
            }
            Err(error) => {
                // A task that broke left no name behind: every board whose orders nobody takes is forgotten.
                tracing::warn!(adapter = P::ID, %error, "the task of a device broke");
                self.boards.retain(|_, task| !task.orders.is_closed());
                self.places.values_mut().for_each(|place| place.due = place.due.min(now + FIRST_PAUSE));
            }
        }
    }

    fn hint(&mut self, hint: &Hint) {
        if hint.service.trim_end_matches('.').trim_end_matches(".local") != P::SERVICE || hint.port == 0 {
            return;
        }
        let v4 = hint.addresses.iter().find(|address| address.is_ipv4());
        // A link-local address of IPv6 means nothing without its interface.
        let v6 = hint.addresses.iter().find(|address| match address {
            std::net::IpAddr::V6(v6) => !v6.is_unicast_link_local(),
            std::net::IpAddr::V4(_) => false,
        });
        let Some(address) = v4.or(v6) else { return };
        let at = Origin::plain(address, hint.port);
        let now = Instant::now();
        let is_full = self.places.len() >= MOST_PLACES;
        match self.places.get_mut(&at) {
            Some(place) => place.ask_soon(now),
            None if is_full => {
                tracing::debug!(adapter = P::ID, %at, most = MOST_PLACES, "too many addresses: a hint is dropped");
            }
            None => {
                self.places.insert(at, Place::new(false, now));
            }
        }
    }

    async fn direct(&mut self, directive: Directive) {
        directive.log(P::ID);
        let device = match &directive {
            Directive::Own { device, owned } => {
                if !owned {
                    self.owned.remove(device);
                } else if self.owned.len() < MOST_EXPECTED {
                    self.owned.insert(device.clone());
                }
                device.clone()
            }
            Directive::Command { device, .. } | Directive::Refresh { device } => device.clone(),
            Directive::Probe
            | Directive::Pair { .. }
            | Directive::Show(_)
            | Directive::Hide { .. }
            | Directive::Tell(_) => return,
        };
        let order = Order::Directive(directive);
        let (refused, why) = match hardware_of(&device, P::ID).and_then(|hardware| self.boards.get(&hardware))
        {
            None => (order, self.out_of_reach()),
            Some(task) => match task.orders.send_timeout(order, ORDER_WITHIN).await {
                Ok(()) => return,
                Err(SendTimeoutError::Closed(order)) => {
                    (order, "this node just lost it: send the command again".to_owned())
                }
                Err(SendTimeoutError::Timeout(order)) => {
                    // What it owns would not be known to it any more: it begins anew.
                    task.abort.abort();
                    let why = "its task takes no more commands and begins anew: send the command again";
                    (order, why.to_owned())
                }
            },
        };
        if let Order::Directive(Directive::Command { device, command, .. }) = refused {
            let reason = format!("{device} was not told: {why}");
            self.out.push_back(progress(&device, command, Stage::Failed { reason }));
        }
    }

    /// Why what no board that answers has is not told: also a wrong interface or address is seen there.
    fn out_of_reach(&self) -> String {
        let trouble = self.trouble.as_ref().map(|trouble| format!("; {trouble}")).unwrap_or_default();
        format!("this node does not reach it: another that does can own it{trouble}")
    }

    async fn stop(mut self) {
        self.boards.clear(); // with their orders the tasks end
        self.probes.abort_all();
        let ended = async { while self.stations.join_next().await.is_some() {} };
        if timeout(END_WITHIN, ended).await.is_err() {
            tracing::debug!(adapter = P::ID, "a task of a device did not end in time");
        }
    }
}

impl Place {
    fn new(configured: bool, now: Instant) -> Self {
        Self { configured, due: now, asked: None, failures: 0, is_asked: false, hardware: None }
    }

    fn address(&self, origin: &Origin) -> Address {
        Address { origin: origin.clone(), configured: self.configured }
    }

    /// As soon as it may be asked again.
    fn ask_soon(&mut self, now: Instant) {
        let free = self.asked.map_or(now, |asked| now.max(asked + HINT_PAUSE));
        self.due = self.due.min(free);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::super::{Layout, Snapshot, Timing};
    use super::*;
    use crate::model::{Change, CommandId};
    use crate::net::Route;
    use crate::websocket::Feed;

    const HARDWARE: &str = "60019423b441";

    /// A kind of board of which there is none.
    struct Nothing;

    impl Protocol for Nothing {
        type Settings = ();
        const ID: &'static str = "wled";
        const SERVICE: &'static str = "_wled._tcp";

        fn new((): &(), _: &Route, _: &Address) -> Self {
            Self
        }

        fn move_to(&mut self, _: Address) {}

        fn ready(&self) -> Instant {
            Instant::now()
        }

        async fn identify(&mut self) -> Result<Identity, Fault> {
            std::future::pending().await
        }

        async fn describe(&mut self) -> Result<Layout, Fault> {
            std::future::pending().await
        }

        async fn read(&mut self) -> Result<Snapshot, Fault> {
            std::future::pending().await
        }

        async fn change(&mut self, _: &DeviceId, _: &Change) -> Result<(), Fault> {
            std::future::pending().await
        }

        fn feed(&self) -> Feed {
            panic!("nobody listens to it")
        }

        fn told(&mut self, _: &str) -> Result<Snapshot, Fault> {
            Ok(Snapshot::default())
        }
    }

    fn fleet(addresses: Vec<Origin>) -> Fleet<Nothing> {
        let timing = Timing { poll: Duration::from_secs(10), discover: Duration::from_secs(60) };
        let lan = Lan { addresses, route: Route::default(), timing };
        Fleet::new(lan, (), mpsc::channel(1).0)
    }

    fn id() -> DeviceId {
        DeviceId::new(format!("wled-{HARDWARE}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_takes_no_orders_ends_and_the_command_fails_in_time() {
        let mut fleet = fleet(Vec::new());
        let (orders, _untaken) = mpsc::channel(1);
        orders.try_send(Order::Directive(Directive::Refresh { device: id() })).unwrap();
        let abort = fleet.stations.spawn(std::future::pending());
        fleet.boards.insert(HARDWARE.to_owned(), Task { orders, abort });
        let command = CommandId([1; 16]);
        let (change, deadline) = (Change::Switch { on: true }, Instant::now() + Duration::from_secs(5));
        let directive = Directive::Command { device: id(), command, change, by: String::new(), deadline };
        timeout(Duration::from_secs(3), fleet.direct(directive)).await.unwrap();
        let Some(Reading::Progress { stage: Stage::Failed { reason }, .. }) = fleet.out.pop_front() else {
            panic!("the command did not fail")
        };
        assert!(reason.contains("begins anew"), "{reason}");
        assert!(fleet.stations.join_next().await.unwrap().unwrap_err().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_looked_for_is_looked_for_everywhere_and_not_too_often() {
        let mut fleet = fleet((1..=3).map(|host| Origin::plain(format!("192.0.2.{host}"), 80)).collect());
        let asked = Instant::now();
        for place in fleet.places.values_mut() {
            (place.asked, place.due) = (Some(asked), asked + Duration::from_secs(600));
        }
        fleet.look_around();
        assert_eq!(fleet.due(), asked + HINT_PAUSE);
        assert!(fleet.places.values().all(|place| place.due == asked + HINT_PAUSE));
        tokio::time::advance(HINT_PAUSE * 2).await;
        fleet.look_around();
        assert!(fleet.due() <= Instant::now());
    }
}
