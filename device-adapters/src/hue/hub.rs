//! All bridges of a home: who is there, who is spoken to, and when the run is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::adapter::{AdapterError, Directive, Hint, Reading};
use crate::http::Client;
use crate::model::{DeviceId, Stage};
use crate::net::Route;

use super::ID;
use super::claims::Claims;
use super::config::Config;
use super::driver::{Answer, Driver};
use super::keys::{BridgeId, Entry, Keyring, MOST_BRIDGES};
use super::link::{self, Failure, Heard, Link};
use super::pairing::Pairing;
use super::places::{Known, Places};
use super::session::Session;
use super::wire::Paired;

/// How long no bridge that should answer may answer before the run ends, so that another board tries.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How long a bridge with another key than it should have may be the only one that answers.
const REFUSED_AFTER: Duration = Duration::from_secs(3);
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

/// All bridges.
pub(crate) struct Hub {
    config: Config,
    keys: Keyring,
    places: Places,
    sessions: BTreeMap<BridgeId, Session>,
    claims: Claims,
    owned: BTreeSet<DeviceId>,
    pairing: Option<Pairing>,
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
            claims: Claims::default(),
            owned: BTreeSet::new(),
            pairing: None,
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
        if let Some(reading) = self.out.pop_front() {
            return Some(reading);
        }
        for (bridge, session) in &mut self.sessions {
            while let Some(reading) = session.driver.poll_reading() {
                if self.claims.admit(*bridge, &reading) {
                    return Some(reading);
                }
            }
        }
        None
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
        if self.sessions.values().any(|session| session.is_missed(now)) {
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
        let refusals: Vec<String> = self.keys.bridges().filter_map(|id| self.refusal(id, now)).collect();
        if !self.keys.is_empty() && refusals.len() == self.keys.bridges().count() {
            return Some(AdapterError::Refused { adapter: ID, what: refusals.join("; ") });
        }
        let is_expected = !self.keys.is_empty() || !self.config.addresses.is_empty();
        if self.keys.is_empty() && self.places.is_answered() {
            return None; // one is there, and waits to be paired
        }
        // One that refuses its key is no reason to stay.
        let asked = self.sessions.values().filter(|session| session.driver.refused().is_none());
        let heard = asked
            .map(|session| session.driver.failing(now))
            .any(|failing| failing.is_none_or(|(silent, _)| silent < GONE_AFTER));
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
        directive.log("hue");
        match directive {
            Directive::Own { device, owned } => self.own(device, owned),
            Directive::Refresh { device } => {
                for session in self.sessions.values_mut() {
                    session.driver.refresh(device.clone());
                }
            }
            Directive::Command { device, command, change, deadline, by: _ } => {
                let bridge = self.claims.bridge(&device);
                match bridge.and_then(|bridge| self.sessions.get_mut(&bridge)) {
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
            Directive::Probe | Directive::Show(_) | Directive::Hide { .. } | Directive::Tell(_) => {}
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
        self.sessions.iter().filter(|(_, session)| session.is_well(now)).map(|(id, _)| *id).collect()
    }

    /// The bridges that wait for their button: no key opens them.
    fn waiting(&self) -> BTreeMap<BridgeId, &Known> {
        let mut known = self.places.known();
        known.retain(|id, _| match self.sessions.get(id) {
            Some(session) => session.driver.refused().is_some(),
            None => self.keys.get(*id).is_none(),
        });
        known
    }

    fn refusal(&self, id: BridgeId, now: Instant) -> Option<String> {
        if let Some(session) = self.sessions.get(&id) {
            return session.driver.refused().map(str::to_owned);
        }
        let mut doubted = self.places.doubted().filter(|_| now >= self.began + REFUSED_AFTER);
        let (place, _, why) = doubted.find(|(_, posed, _)| *posed == id)?;
        Some(format!("the one at {place}: {why}"))
    }

    fn turn_of(&mut self, now: Instant, bridge: BridgeId) {
        let Some(session) = self.sessions.get_mut(&bridge) else { return };
        session.driver.handle_timeout(now);
        if session.driver.refused().is_some() {
            session.hang_up();
        }
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
        self.out.extend(self.places.doubted().filter_map(|(place, _, why)| pairing.doubt(place, why)));
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
        if let Err(failure) = &result {
            tracing::debug!(place, why = failure.text(), "no Hue bridge answers there");
            self.trouble = Some(failure.text());
        }
        let known = result.ok();
        self.places.answered(now, place, known.clone());
        for (place, why) in self.places.judge(&self.keys) {
            tracing::warn!(place, why, "who answers there is not taken for a Hue bridge of this home");
        }
        let Some(known) = known.filter(|_| !self.places.doubted().any(|(doubted, _, _)| doubted == place))
        else {
            return;
        };
        if self.keys.is_empty() {
            self.answered = now;
            tracing::debug!(bridge = %known.id, name = known.name, place, "a Hue bridge waits to be paired");
        }
        let Some(entry) = self.keys.get(known.id).cloned() else { return };
        match self.sessions.get(&known.id) {
            None => self.begin(now, &known, entry),
            // It may know its key again, or the one that posed as it is not in its place any more.
            Some(session) if session.driver.refused().is_some() => self.follow(now, &known, entry),
            Some(session) if session.is_missed(now) && *session.link.origin() != known.origin => {
                self.follow(now, &known, entry);
            }
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
        self.sessions.insert(known.id, session);
        self.answered = now;
    }

    /// A bridge that does not answer where it was is elsewhere.
    fn follow(&mut self, now: Instant, known: &Known, entry: Entry) {
        let Some(link) = self.link(known) else { return };
        let Some(session) = self.sessions.get_mut(&known.id) else { return };
        tracing::debug!(bridge = %known.id, address = %known.origin, "a Hue bridge is looked for where it answered");
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

    /// Keeps a key; false when there are too many.
    fn learn(&mut self, id: BridgeId, entry: Entry) -> bool {
        let fits = self.keys.insert(id, entry);
        if fits {
            self.out.push_back(Reading::Learnt { setting: "keys", value: self.keys.to_secret() });
        }
        fits
    }

    fn paired(&mut self, now: Instant, known: Known, result: Result<Paired, Failure>) {
        let key = match result {
            Ok(Paired::Key(key)) => key,
            Ok(Paired::NotPressed) => return self.still_pairing(now, known.id, None),
            Err(failure) => return self.still_pairing(now, known.id, Some(failure.text())),
        };
        let place = known.origin.to_string();
        if self.places.doubted().any(|(doubted, _, _)| doubted == place) {
            return self.still_pairing(now, known.id, None); // somebody else of its name was found meanwhile
        }
        let entry = Entry { key, pin: Some(known.pin) };
        if !self.learn(known.id, entry.clone()) {
            let trouble = format!("the setting \"keys\" holds no more than {MOST_BRIDGES} bridges");
            return self.still_pairing(now, known.id, Some(trouble));
        }
        self.out.push_back(Pairing::done(&known));
        self.pairing = None;
        self.sessions.remove(&known.id); // one that was refused
        self.begin(now, &known, entry);
    }

    fn still_pairing(&mut self, now: Instant, id: BridgeId, trouble: Option<String>) {
        if let Some(pairing) = &mut self.pairing {
            pairing.answered(now, id, trouble);
        }
    }
}
