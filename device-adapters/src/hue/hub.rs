//! All bridges of a home: who is there, who is spoken to, and when the run is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::adapter::{AdapterError, Directive, Hint, Reading, Secret};
use crate::http::Client;
use crate::model::{DeviceId, Stage};
use crate::net::Route;

use super::ID;
use super::config::Config;
use super::driver::{Answer, Driver};
use super::keys::{BridgeId, Entry, Keyring};
use super::link::{self, Failure, Heard, Link};
use super::pairing::Pairing;
use super::places::{Known, Places};
use super::wire::Paired;

/// How long no bridge that should answer may answer before the run ends, so that another board tries.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How long a bridge with another key than it should have may be the only one that answers.
const REFUSED_AFTER: Duration = Duration::from_secs(3);
/// A bridge that fails for so long may be elsewhere.
const MISSED_AFTER: Duration = Duration::from_secs(4);
/// The most devices that may be owned before they are found.
const MOST_EXPECTED: usize = 1_024;
/// Messages of event streams that wait; a stream that is faster waits itself.
const MOST_HEARD: usize = 64;
/// The longest sleep; what is due earlier says so.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What was waited for and is done.
pub(crate) enum Done {
    /// A place was asked who is there.
    Probed { place: String, result: Result<Known, Failure> },
    /// A bridge was asked what its driver wants to know; number tells sessions of a bridge apart.
    Asked { bridge: BridgeId, number: u64, client: Client, result: Result<Answer, Failure> },
    /// A bridge was asked for a key.
    Paired { known: Known, result: Result<Paired, Failure> },
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A bridge that is spoken to.
struct Session {
    driver: Driver,
    link: Link,
    key: Secret,
    number: u64,
    /// The client, while it is not asking.
    client: Option<Client>,
    listener: Option<AbortHandle>,
    /// The number of the listener: what an older one said is past.
    listening: u64,
}

/// All bridges.
pub(crate) struct Hub {
    config: Config,
    keys: Keyring,
    places: Places,
    sessions: BTreeMap<BridgeId, Session>,
    owned: BTreeSet<DeviceId>,
    pairing: Option<Pairing>,
    /// Why a bridge that has a key is not spoken to.
    refused: BTreeMap<BridgeId, String>,
    began: Instant,
    /// When somebody answered who should: a bridge with a key, or where there is none, any.
    answered: Instant,
    trouble: Option<String>,
    is_hinted: bool,
    numbers: u64,
    out: VecDeque<Reading>,
    /// What is waited for.
    pub(crate) work: FuturesUnordered<Work>,
    /// What event streams say.
    pub(crate) heard: mpsc::Receiver<(BridgeId, u64, Heard)>,
    hearing: mpsc::Sender<(BridgeId, u64, Heard)>,
    listeners: JoinSet<()>,
}

impl Hub {
    /// Nobody is known yet.
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        let (hearing, heard) = mpsc::channel(MOST_HEARD);
        Self {
            keys: config.keys.clone(),
            places: Places::new(&config.addresses, now),
            config,
            sessions: BTreeMap::new(),
            owned: BTreeSet::new(),
            pairing: None,
            refused: BTreeMap::new(),
            began: now,
            answered: now,
            trouble: None,
            is_hinted: true,
            numbers: 0,
            out: VecDeque::new(),
            work: FuturesUnordered::new(),
            heard,
            hearing,
            listeners: JoinSet::new(),
        }
    }

    /// The next reading to pass on.
    pub(crate) fn poll_reading(&mut self) -> Option<Reading> {
        let of_bridges = || self.sessions.values_mut().find_map(|session| session.driver.poll_reading());
        self.out.pop_front().or_else(of_bridges)
    }

    /// How many readings wait.
    pub(crate) fn backlog(&self) -> usize {
        self.out.len() + self.sessions.values().map(|session| session.driver.backlog()).sum::<usize>()
    }

    /// Whether announcements still come.
    pub(crate) fn is_hinted(&self) -> bool {
        self.is_hinted
    }

    /// Whether something is waited for.
    pub(crate) fn is_working(&self) -> bool {
        !self.work.is_empty()
    }

    /// When [`Hub::turn`] must be called next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let drivers = self.sessions.values().filter_map(|session| session.driver.poll_timeout());
        let places = self.places.poll_timeout(&self.served(Instant::now()));
        let pairing = self.pairing.as_ref().map(|pairing| pairing.poll_timeout(&self.waiting()));
        drivers.chain(places).chain(pairing).fold(Instant::now() + LONGEST_SLEEP, Instant::min)
    }

    /// Does what is due.
    pub(crate) fn turn(&mut self, now: Instant) {
        while self.listeners.try_join_next().is_some() {}
        if self.sessions.values().any(|session| is_missed(&session.driver, now)) {
            self.places.hurry(now);
        }
        let served = self.served(now);
        while let Some(probe) = self.places.poll(now, &served) {
            let (place, route) = (probe.place.clone(), self.route());
            self.work.push(Box::pin(async move {
                let result = link::probe(probe, route).await;
                Done::Probed { place, result }
            }));
        }
        let bridges: Vec<BridgeId> = self.sessions.keys().copied().collect();
        for bridge in bridges {
            self.turn_of(now, bridge);
        }
        self.turn_pairing(now);
    }

    /// Why the run is over, if it is.
    pub(crate) fn verdict(&self, now: Instant) -> Option<AdapterError> {
        if self.pairing.is_some() {
            return None; // somebody stands before the bridge
        }
        if self.keys.is_empty() && self.places.is_empty() && !self.is_hinted {
            let what = "it found no bridge, and nothing can announce one any more: give its address in the setting \"addresses\"";
            return Some(AdapterError::Unconfigured { adapter: ID, what: what.to_owned() });
        }
        let refusals: Vec<&str> = self.keys.bridges().filter_map(|id| self.refusal(id, now)).collect();
        if !self.keys.is_empty() && refusals.len() == self.keys.bridges().count() {
            return Some(AdapterError::Refused { adapter: ID, what: refusals.join("; ") });
        }
        let is_expected = !self.keys.is_empty() || !self.config.addresses.is_empty();
        if self.keys.is_empty() && !self.places.known().is_empty() {
            return None; // one is there, and waits to be paired
        }
        let heard =
            self.sessions.values().map(|session| session.driver.failing(now)).any(|failing| match failing {
                None => true,
                Some((silent, _)) => silent < GONE_AFTER,
            });
        if !is_expected || heard || now < self.answered + GONE_AFTER {
            return None;
        }
        let failing = self.sessions.values().find_map(|session| session.driver.failing(now));
        let why = failing.map(|(_, trouble)| trouble.to_owned()).or_else(|| self.trouble.clone());
        let why = why.unwrap_or_else(|| "no bridge announced itself".to_owned());
        let seconds = GONE_AFTER.as_secs();
        let what = format!("no bridge that was set up answered for {seconds} s: {why}");
        Some(AdapterError::Unreachable { adapter: ID, what })
    }

    /// Takes an announcement; none when there will be no more.
    pub(crate) fn hint(&mut self, now: Instant, hint: Option<&Hint>) {
        match hint {
            Some(hint) => self.places.hint(hint, now),
            None => self.is_hinted = false,
        }
    }

    /// Takes a directive of the node.
    pub(crate) fn handle_directive(&mut self, now: Instant, directive: Directive) {
        match directive {
            Directive::Own { device, owned } => self.own(device, owned),
            Directive::Refresh { device } => {
                for session in self.sessions.values_mut() {
                    session.driver.refresh(device.clone());
                }
            }
            Directive::Command { device, command, change, deadline } => {
                match self.sessions.values_mut().find(|session| session.driver.has(&device)) {
                    Some(session) => session.driver.command(now, device, command, &change, deadline),
                    None => {
                        let reason = format!("no bridge that this node reaches has {device}");
                        let stage = Stage::Failed { reason };
                        self.out.push_back(Reading::Progress { device, command, stage });
                    }
                }
            }
            Directive::Pair { until } => match &mut self.pairing {
                Some(pairing) => pairing.extend(until),
                None => self.pairing = Some(Pairing::new(now, until)),
            },
            Directive::Probe | Directive::Show(_) | Directive::Hide { .. } => {}
        }
    }

    /// Something that was waited for is done.
    pub(crate) fn done(&mut self, now: Instant, done: Done) {
        match done {
            Done::Probed { place, result } => self.probed(now, &place, result),
            Done::Asked { bridge, number, client, result } => {
                let Some(session) = self.sessions.get_mut(&bridge).filter(|session| session.number == number)
                else {
                    return;
                };
                session.client = Some(client);
                match result {
                    Ok(answer) => session.driver.handle_answer(now, Ok(answer)),
                    Err(Failure::OtherKey(why)) => session.driver.refuse(now, why),
                    Err(failure) => session.driver.handle_answer(now, Err(failure.text())),
                }
            }
            Done::Paired { known, result } => self.paired(now, known, result),
        }
    }

    /// An event stream says something.
    pub(crate) fn hear(&mut self, now: Instant, bridge: BridgeId, number: u64, heard: Heard) {
        let current = self.sessions.get_mut(&bridge).filter(|session| session.listening == number);
        let Some(session) = current else { return };
        let driver = &mut session.driver;
        match heard {
            Heard::Opened => driver.stream_opened(now),
            Heard::Events(events) => driver.handle_events(now, events),
            Heard::Ended(Failure::OtherKey(why)) => driver.refuse(now, why),
            Heard::Ended(Failure::Status(401 | 403)) => driver.withdrawn(now),
            Heard::Ended(failure) => driver.stream_ended(now, &failure.text()),
        }
    }

    /// The run ends because no bridge answers: nothing that is owned does.
    pub(crate) fn lose(&mut self, why: &str) {
        for session in self.sessions.values_mut() {
            session.driver.lose(why);
        }
    }

    /// Ends every command that is in flight, because the adapter stops.
    pub(crate) fn shut_down(&mut self) {
        for session in self.sessions.values_mut() {
            session.driver.shut_down();
        }
    }

    fn route(&self) -> Route {
        Route { interface: self.config.interface.clone() }
    }

    /// The bridges that answer, and need not be looked for.
    fn served(&self, now: Instant) -> BTreeSet<BridgeId> {
        let is_well =
            |session: &Session| session.driver.refused().is_none() && !is_missed(&session.driver, now);
        self.sessions.iter().filter(|(_, session)| is_well(session)).map(|(id, _)| *id).collect()
    }

    /// The bridges that wait for their button: no key opens them.
    fn waiting(&self) -> BTreeMap<BridgeId, &Known> {
        let mut known = self.places.known();
        known.retain(|id, _| self.sessions.get(id).is_none_or(|session| session.driver.refused().is_some()));
        known
    }

    fn refusal(&self, id: BridgeId, now: Instant) -> Option<&str> {
        let of_session = self.sessions.get(&id).map(|session| session.driver.refused());
        match of_session {
            Some(refused) => refused,
            None if now >= self.began + REFUSED_AFTER => self.refused.get(&id).map(String::as_str),
            None => None,
        }
    }

    fn turn_of(&mut self, now: Instant, bridge: BridgeId) {
        let Some(session) = self.sessions.get_mut(&bridge) else { return };
        session.driver.handle_timeout(now);
        if session.driver.is_deaf(now) {
            tracing::debug!(%bridge, "the stream of events of a Hue bridge tells nothing: it is opened anew");
            session.hang_up();
            session.driver.stream_ended(now, "it tells nothing any more");
        }
        if session.driver.poll_stream(now) {
            session.hang_up();
            self.numbers += 1;
            session.listening = self.numbers;
            let (link, key, heard) = (session.link.clone(), session.key.clone(), self.hearing.clone());
            session.listener =
                Some(self.listeners.spawn(link::listen(link, key, bridge, self.numbers, heard)));
        }
        if session.client.is_some()
            && let Some(ask) = session.driver.poll_ask(now)
            && let Some(mut client) = session.client.take()
        {
            let (key, number) = (session.key.clone(), session.number);
            self.work.push(Box::pin(async move {
                let result = link::ask(&mut client, &key, &ask).await;
                Done::Asked { bridge, number, client, result }
            }));
        }
    }

    fn turn_pairing(&mut self, now: Instant) {
        let Some(mut pairing) = self.pairing.take() else { return };
        if now >= pairing.until() {
            self.out.push_back(pairing.given_up());
            self.answered = now; // those who end for want of an answer begin to wait now
            return;
        }
        loop {
            let (ask, told) = pairing.poll(now, &self.waiting());
            if ask.is_none() && told.is_none() {
                break;
            }
            self.out.extend(told);
            if let Some(known) = ask {
                let (route, name) = (self.route(), self.config.name.clone());
                self.work.push(Box::pin(async move {
                    let result = link::pair(known.clone(), route, name).await;
                    Done::Paired { known, result }
                }));
            }
        }
        self.pairing = Some(pairing);
    }

    fn own(&mut self, device: DeviceId, owned: bool) {
        for session in self.sessions.values_mut() {
            session.driver.own(device.clone(), owned);
        }
        if !owned {
            self.owned.remove(&device);
        } else if self.owned.len() < MOST_EXPECTED {
            self.owned.insert(device);
        } else {
            tracing::warn!(%device, most = MOST_EXPECTED, "too many owned devices: this one is not told of after a restart of its bridge");
        }
    }

    fn probed(&mut self, now: Instant, place: &str, result: Result<Known, Failure>) {
        let known = match result {
            Ok(known) => known,
            Err(failure) => {
                tracing::debug!(place, why = failure.text(), "no Hue bridge answers there");
                self.trouble = Some(failure.text());
                return self.places.answered(now, place, None);
            }
        };
        self.places.answered(now, place, Some(known.clone()));
        if self.keys.is_empty() {
            self.answered = now;
            tracing::debug!(bridge = %known.id, name = known.name, place, "a Hue bridge waits to be paired");
        }
        let Some(entry) = self.keys.get(known.id).cloned() else { return };
        if entry.pin.is_some_and(|pin| pin != known.pin) {
            let why = super::tls::RefusedCertificate::OtherKey { id: known.id };
            let is_news = self.refused.insert(known.id, format!("the one at {place}: {why}")).is_none();
            if is_news {
                tracing::warn!(bridge = %known.id, place, %why, "a Hue bridge is not trusted");
            }
            return;
        }
        match self.sessions.get(&known.id) {
            None => self.begin(now, &known, entry),
            Some(session) if *session.link.origin() == known.origin => {}
            Some(session) if is_missed(&session.driver, now) => self.follow(now, &known, entry),
            Some(_) => {}
        }
    }

    /// Speaks to a bridge from now on.
    fn begin(&mut self, now: Instant, known: &Known, entry: Entry) {
        if entry.pin.is_none() {
            let pinned = Entry { key: entry.key.clone(), pin: Some(known.pin) };
            self.learn(known.id, pinned);
        }
        let Some(link) = self.link(known) else { return };
        let driver = Driver::new(known.origin.host.clone(), self.config.poll, self.owned.clone(), now);
        tracing::info!(bridge = %known.id, name = known.name, address = %known.origin, "speaks to a Hue bridge");
        self.numbers += 1;
        let client = Some(link.client());
        let (number, key) = (self.numbers, entry.key);
        let session = Session { driver, link, key, number, client, listener: None, listening: 0 };
        self.refused.remove(&known.id);
        self.sessions.insert(known.id, session);
        self.answered = now;
    }

    /// A bridge that does not answer where it was is elsewhere.
    fn follow(&mut self, now: Instant, known: &Known, entry: Entry) {
        let Some(link) = self.link(known) else { return };
        let Some(session) = self.sessions.get_mut(&known.id) else { return };
        tracing::info!(bridge = %known.id, address = %known.origin, "a Hue bridge moved");
        session.hang_up();
        self.numbers += 1;
        session.number = self.numbers;
        session.client = Some(link.client());
        session.link = link;
        session.key = entry.key;
        session.driver.moved(now, known.origin.host.clone());
    }

    fn link(&self, known: &Known) -> Option<Link> {
        let link = Link::new(known.origin.clone(), self.route(), Some(known.id), Some(known.pin));
        link.inspect_err(|failure| tracing::warn!(why = failure.text(), "cannot use TLS")).ok()
    }

    fn learn(&mut self, id: BridgeId, entry: Entry) {
        if self.keys.insert(id, entry) {
            self.out.push_back(Reading::Learnt { setting: "keys", value: self.keys.to_secret() });
        }
    }

    fn paired(&mut self, now: Instant, known: Known, result: Result<Paired, Failure>) {
        match result {
            Ok(Paired::Key(key)) => {
                let entry = Entry { key, pin: Some(known.pin) };
                self.learn(known.id, entry.clone());
                self.out.push_back(Pairing::done(&known));
                self.pairing = None;
                self.sessions.remove(&known.id); // one that was refused
                self.begin(now, &known, entry);
            }
            Ok(Paired::NotPressed) => self.still_pairing(now, known.id, None),
            Err(failure) => self.still_pairing(now, known.id, Some(failure.text())),
        }
    }

    fn still_pairing(&mut self, now: Instant, id: BridgeId, trouble: Option<String>) {
        if let Some(pairing) = &mut self.pairing {
            pairing.answered(now, id, trouble);
        }
    }
}

impl Session {
    fn hang_up(&mut self) {
        self.listening = 0;
        if let Some(listener) = self.listener.take() {
            listener.abort();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hang_up();
    }
}

fn is_missed(driver: &Driver, now: Instant) -> bool {
    driver.failing(now).is_some_and(|(silent, _)| silent >= MISSED_AFTER)
}
