//! A device of Hearth made of components: at most one that acts, and sensors. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::Reading;
use crate::model::{
    Availability, Change, CommandId, Description, DeviceId, Measurement, Source, Stage, State,
};
use crate::mqtt::output::{Output, Token};
use crate::mqtt::wire::discovery::Slot;
use crate::mqtt::wire::light::Parts;

use super::flight::{Flight, Verdict};
use super::live::{Live, Presence};

/// The least time between two commands to one device: what a Zigbee bulb bears.
const PACE: Duration = Duration::from_millis(110);
/// How long a device may take to say that it is there.
const SAYS_WITHIN: Duration = Duration::from_secs(5);

/// All components, by what they are known.
pub(crate) type Components = BTreeMap<Slot, Live>;

/// A device.
#[derive(Debug)]
pub(crate) struct Device {
    /// What it is.
    pub(crate) description: Description,
    /// The component that acts, if one does.
    pub(crate) actuator: Option<Slot>,
    /// The components that measure, by the key of the sensor.
    pub(crate) sensors: BTreeMap<String, Slot>,
    /// When it was made of these.
    since: Instant,
    owned: bool,
    flight: Option<Flight>,
    last_sent: Option<Instant>,
    /// The newest command that the state follows.
    followed: Option<CommandId>,
    reported: Option<(State, Option<CommandId>, Source)>,
    measured: BTreeMap<String, Measurement>,
    availability: Option<(Availability, String)>,
    /// What was last assumed, of a device that does not tell.
    assumed: Parts,
}

/// How things stand with the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// Connected since.
    Up(Instant),
    /// Not connected, and why.
    Down(String),
}

impl Device {
    /// One that was just made of its components.
    pub(crate) fn new(
        now: Instant,
        description: Description,
        actuator: Option<Slot>,
        sensors: BTreeMap<String, Slot>,
        owned: bool,
    ) -> Self {
        Self {
            description,
            actuator,
            sensors,
            since: now,
            owned,
            flight: None,
            last_sent: None,
            followed: None,
            reported: None,
            measured: BTreeMap::new(),
            availability: None,
            assumed: Parts::default(),
        }
    }

    /// The same device, described and made anew.
    pub(crate) fn remake(
        &mut self,
        now: Instant,
        description: Description,
        actuator: Option<Slot>,
        sensors: BTreeMap<String, Slot>,
    ) {
        (self.since, self.description, self.actuator) = (now, description, actuator);
        self.measured.retain(|key, _| sensors.contains_key(key));
        self.sensors = sensors;
    }

    /// This node owns it from now on, or no longer does.
    pub(crate) fn set_owned(
        &mut self,
        now: Instant,
        owned: bool,
        parts: &Components,
        link: &Link,
        out: &mut Output,
    ) {
        self.owned = owned;
        if owned {
            self.refresh(now, parts, link, out);
            return;
        }
        self.fail("this node no longer owns the device", out);
        (self.reported, self.availability) = (None, None);
        self.measured.clear();
    }

    /// Tells all that is known, and asks the device where it can be asked.
    pub(crate) fn refresh(&mut self, now: Instant, parts: &Components, link: &Link, out: &mut Output) {
        if !self.owned {
            return;
        }
        (self.reported, self.availability) = (None, None);
        self.measured.clear();
        self.tell(now, parts, link, out);
        if matches!(link, Link::Up(_)) {
            self.ask(parts, out);
        }
    }

    /// Takes a command.
    pub(crate) fn command(
        &mut self,
        now: Instant,
        id: CommandId,
        change: &Change,
        deadline: Instant,
        out: &mut Output,
    ) {
        if self.flight.as_ref().is_some_and(|flight| flight.id == id) {
            return;
        }
        if !self.owned {
            let reason = format!("this node does not own {}", self.description.id);
            self.progress(id, Stage::Failed { reason }, out);
            return;
        }
        let change = match self.description.capabilities.fit(change) {
            Ok(change) => change,
            Err(error) => {
                self.progress(id, Stage::Failed { reason: error.to_string() }, out);
                return;
            }
        };
        let wanted = match self.flight.take() {
            None => change,
            Some(older) => {
                self.progress(older.id, Stage::Superseded, out);
                older.wanted.then(&change)
            }
        };
        let due = self.last_sent.map_or(now, |sent| now.max(sent + PACE));
        self.flight = Some(Flight::new(id, wanted, deadline, due));
    }

    /// The component that acts told something, just now.
    pub(crate) fn heard(&mut self, told: &Parts) {
        if let Some(flight) = &mut self.flight {
            flight.heard(told);
        }
    }

    /// It said that it is there, just now.
    pub(crate) fn came_back(&mut self, now: Instant) {
        if let Some(flight) = &mut self.flight {
            flight.came_back(now);
        }
    }

    /// The broker took a message, or refused it; whether it was one of this device.
    pub(crate) fn published(
        &mut self,
        now: Instant,
        token: Token,
        result: &Result<(), String>,
        out: &mut Output,
    ) -> bool {
        let Some(flight) = self.flight.as_mut().filter(|flight| flight.waits_for(token)) else {
            return false;
        };
        flight.taken(now, token);
        if let Err(refused) = result {
            self.fail(&format!("the broker refuses the message: {refused}"), out);
        }
        true
    }

    /// The broker is gone.
    pub(crate) fn disconnected(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.disconnected();
        }
    }

    /// Does what is due, and tells what changed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, parts: &Components, link: &Link, out: &mut Output) {
        self.send(now, parts, link, out);
        self.judge(now, parts, link, out);
        self.tell(now, parts, link, out);
    }

    /// When something may have to be done.
    pub(crate) fn poll_timeout(&self, now: Instant, link: &Link) -> Option<Instant> {
        let unsaid = match link {
            Link::Up(since) if self.owned => Some(self.says_by(*since)).filter(|at| *at > now),
            _ => None,
        };
        let flight = self.flight.as_ref().map(|flight| match link {
            Link::Down(_) if flight.is_unsent() => flight.deadline,
            _ => flight.poll_timeout(now),
        });
        [unsaid, flight].into_iter().flatten().min()
    }

    /// Ends the command in flight, because it cannot be carried out any more.
    pub(crate) fn fail(&mut self, reason: &str, out: &mut Output) {
        if let Some(flight) = self.flight.take() {
            self.progress(flight.id, Stage::Failed { reason: reason.to_owned() }, out);
        }
    }

    fn id(&self) -> DeviceId {
        self.description.id.clone()
    }

    fn progress(&self, command: CommandId, stage: Stage, out: &mut Output) {
        out.tell(Reading::Progress { device: self.id(), command, stage });
    }

    fn acting<'a>(&self, parts: &'a Components) -> Option<&'a Live> {
        self.actuator.as_ref().and_then(|slot| parts.get(slot))
    }

    /// Asks it what it shows, where it did not tell that since its components are what they are.
    pub(crate) fn ask_what_is_unknown(&self, parts: &Components, link: &Link, out: &mut Output) {
        let is_unknown = self.acting(parts).is_some_and(|live| live.entity.state(&live.parts).is_none());
        if self.owned && is_unknown && matches!(link, Link::Up(_)) {
            self.ask(parts, out);
        }
    }

    fn ask(&self, parts: &Components, out: &mut Output) {
        if let Some(question) = self.acting(parts).and_then(|live| live.entity.question()) {
            out.publish(question.topic, question.payload, false);
        }
    }

    fn send(&mut self, now: Instant, parts: &Components, link: &Link, out: &mut Output) {
        let is_due = self.flight.as_ref().is_some_and(|flight| flight.is_unsent() && flight.due <= now);
        if !is_due || matches!(link, Link::Down(_)) {
            return;
        }
        let Some(live) = self.acting(parts) else {
            self.fail("what carries out its commands is no longer announced", out);
            return;
        };
        let Some(flight) = &mut self.flight else { return };
        if flight.deadline <= now {
            return;
        }
        let known = if live.entity.reads_back() { &live.parts } else { &self.assumed };
        match live.entity.messages(&flight.wanted, known) {
            Err(reason) => self.fail(&reason, out),
            Ok(messages) => {
                let publish = |message: crate::mqtt::wire::light::Message| {
                    out.publish_tracked(message.topic, message.payload)
                };
                let tokens: BTreeSet<Token> = messages.into_iter().map(publish).collect();
                let is_first = !flight.told_sent;
                flight.sent(tokens, &live.parts);
                let id = flight.id;
                self.last_sent = Some(now);
                if is_first {
                    self.progress(id, Stage::Sent, out);
                }
            }
        }
    }

    fn judge(&mut self, now: Instant, parts: &Components, link: &Link, out: &mut Output) {
        let live = self.actuator.as_ref().and_then(|slot| parts.get(slot));
        let Some(flight) = &mut self.flight else { return };
        let (none, mut ended) = (Parts::default(), None);
        let known = live.map_or(&none, |live| &live.parts);
        let reads_back = live.is_some_and(|live| live.entity.reads_back());
        match flight.verdict(now, reads_back, known) {
            Verdict::Confirmed => ended = Some(Stage::Confirmed),
            Verdict::Assumed => ended = Some(Stage::Assumed),
            Verdict::Open if flight.deadline <= now => {
                let topics = live.and_then(|live| live.entity.kind.topics().last()).map(str::to_owned);
                let connected = matches!(link, Link::Up(_));
                let reason = flight.why_timed_out(connected, &topics.unwrap_or_default(), known);
                ended = Some(Stage::TimedOut { reason });
            }
            Verdict::Open => {
                if flight.asks_again(now) && matches!(link, Link::Up(_)) {
                    self.ask(parts, out);
                }
            }
        }
        let Some(stage) = ended else { return };
        let Some(flight) = self.flight.take() else { return };
        if matches!(stage, Stage::Confirmed | Stage::Assumed) {
            self.followed = Some(flight.id);
            if !reads_back && let Change::Light(change) = &flight.wanted {
                self.assumed.absorb(Parts::of_change(change));
            }
            if !reads_back && let Change::Switch { on } = &flight.wanted {
                self.assumed.on = Some(*on);
            }
            self.report(parts, out);
        }
        self.progress(flight.id, stage, out);
    }

    /// Tells what changed since it was told last.
    fn tell(&mut self, now: Instant, parts: &Components, link: &Link, out: &mut Output) {
        if !self.owned {
            return;
        }
        if let Some((availability, reason)) = self.presence(now, parts, link)
            && self.availability.as_ref().map(|(known, _)| *known) != Some(availability)
        {
            // While it was away, or the broker, it may have become something else than it told last.
            let is_back = self.availability.is_some() && availability == Availability::Online;
            self.availability = Some((availability, reason.clone()));
            out.tell(Reading::Availability { device: self.id(), availability, reason });
            if is_back {
                self.ask(parts, out);
            }
        }
        self.report(parts, out);
        let mut news = BTreeMap::new();
        for (key, slot) in &self.sensors {
            let measured = parts.get(slot).and_then(|live| live.measured.clone());
            let measured =
                measured.unwrap_or_else(|| Measurement::Unknown("it has not told anything yet".to_owned()));
            if self.measured.get(key) != Some(&measured) {
                news.insert(key.clone(), measured);
            }
        }
        if !news.is_empty() {
            self.measured.extend(news.clone());
            out.tell(Reading::Measured { device: self.id(), values: news });
        }
    }

    fn report(&mut self, parts: &Components, out: &mut Output) {
        let Some(live) = self.acting(parts) else { return };
        let reads_back = live.entity.reads_back();
        let known = if reads_back { &live.parts } else { &self.assumed };
        let source = if reads_back { Source::ReadBack } else { Source::Assumed };
        let Some(state) = live.entity.state(known) else { return };
        let report = (state, self.followed, source);
        if self.reported.as_ref() == Some(&report) {
            return;
        }
        let (state, command, source) = report.clone();
        self.reported = Some(report);
        out.tell(Reading::Reported { device: self.id(), state, command, source });
    }

    /// Until when it may say that it is there, on a connection since then: the broker is asked for that when the device is made.
    fn says_by(&self, connected: Instant) -> Instant {
        connected.max(self.since) + SAYS_WITHIN
    }

    /// Whether it answers, and why that is so; none while nothing can be said.
    fn presence(&self, now: Instant, parts: &Components, link: &Link) -> Option<(Availability, String)> {
        let since = match link {
            Link::Down(why) => return Some((Availability::Stale, why.clone())),
            Link::Up(since) => *since,
        };
        let components: Vec<&Live> = match &self.actuator {
            Some(slot) => parts.get(slot).into_iter().collect(),
            None => self.sensors.values().filter_map(|slot| parts.get(slot)).collect(),
        };
        let is = |presence: Presence| components.iter().find(|live| live.presence() == presence);
        if let Some(live) = is(Presence::There) {
            let says_so = !live.entity.presence.sources.is_empty();
            let reason = if says_so { "it says that it is there" } else { "it is announced" };
            return Some((Availability::Online, reason.to_owned()));
        }
        if let Some(live) = is(Presence::Gone) {
            let reason = format!("{} says that it is not there", live.doubts());
            return Some((Availability::Offline, reason));
        }
        let live = is(Presence::Unsaid).filter(|_| now >= self.says_by(since))?;
        let reason = format!("nothing at {} says that it is there", live.doubts());
        Some((Availability::Offline, reason))
    }
}
