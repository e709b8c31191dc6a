//! One board with its devices: what to ask it next, and what its answers mean. Pure; takes the time as an argument.

mod failing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::{Directive, Reading};
use crate::model::{Availability, Change, CommandId, DeviceId, Stage};

use super::command::Need;
use super::unit::{Unit, progress};
use super::whereabouts::Whereabouts;
use super::{Address, Fault, Identity, Layout, Snapshot, Timing};

/// A board that tells by itself is polled so many times more rarely.
const RARER: u32 = 3;
/// How long after an acknowledgement a state that comes by itself may be older than the command.
const MAY_BE_OLD: Duration = Duration::from_secs(1);
/// How soon a state is read after one came that may be old.
const READ_SOON: Duration = Duration::from_millis(300);
/// The least time between two attempts with a password that was refused.
const LOCKED_PAUSE: Duration = Duration::from_secs(60);
/// The most devices of one board.
const MOST_UNITS: usize = 64;

/// What to ask the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Who it is.
    Identify,
    /// What it is made of.
    Describe,
    /// What it shows.
    Read,
    /// Tell it a change.
    Tell(DeviceId, CommandId, Change),
}

/// One board.
#[derive(Debug)]
pub(super) struct Board {
    identity: Identity,
    place: Whereabouts,
    timing: Timing,
    units: BTreeMap<DeviceId, Unit>,
    /// Devices of it that this node owns, found or not.
    owned: BTreeSet<DeviceId>,
    sleeps: Option<Duration>,
    announced: bool,
    failures: u32,
    last_heard: Instant,
    last_acknowledged: Option<Instant>,
    tells: bool,
    /// It wants a password, or another one.
    locked: bool,
    /// Another board has its address, and it is to be looked for.
    sought: bool,
    describe_at: Option<Instant>,
    identify_at: Instant,
    read_at: Instant,
    out: VecDeque<Reading>,
}

impl Board {
    /// A board that just told who it is.
    pub(super) fn new(identity: Identity, place: Address, timing: Timing, now: Instant) -> Self {
        Self {
            identity,
            place: Whereabouts::new(place),
            timing,
            units: BTreeMap::new(),
            owned: BTreeSet::new(),
            sleeps: None,
            announced: false,
            failures: 0,
            last_heard: now,
            last_acknowledged: None,
            tells: false,
            locked: false,
            sought: false,
            describe_at: Some(now),
            identify_at: now + timing.discover,
            read_at: now,
            out: VecDeque::new(),
        }
    }

    /// The next reading to pass on.
    pub(super) fn poll_reading(&mut self) -> Option<Reading> {
        self.out.pop_front()
    }

    /// How many readings wait.
    pub(super) fn backlog(&self) -> usize {
        self.out.len()
    }

    /// Whether this node owns a device of it, so that it may be polled and told from.
    pub(super) fn is_owned(&self) -> bool {
        self.units.values().any(|unit| unit.owned)
    }

    /// Whether it should tell by itself what happens: not while it refuses the password, or another board has its address.
    pub(super) fn listens(&self) -> bool {
        self.is_owned() && !self.locked && !self.place.is_taken()
    }

    /// Where it is.
    pub(super) fn place(&self) -> &Whereabouts {
        &self.place
    }

    /// Whether it is worth another address: it does not answer, another board has its address, or it sleeps and has just
    /// woken.
    pub(super) fn wants_address(&self) -> bool {
        self.failures > 0 || self.sleeps.is_some()
    }

    /// Whether all addresses have to be asked for it, because another board has its own. True once for each time.
    pub(super) fn is_sought(&mut self) -> bool {
        std::mem::take(&mut self.sought)
    }

    /// Whether nobody needs it any more.
    pub(super) fn is_gone(&self, now: Instant) -> bool {
        !self.announced
            && self.failures > 0
            && self.owned.is_empty()
            && now >= self.last_heard + self.lost_after()
    }

    /// When a command in flight runs out of time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.units.values().filter_map(|unit| unit.command.as_ref()).map(|command| command.deadline).min()
    }

    /// What to ask next, and when: what commands need goes before everything else that is due by then. While its address
    /// is not proven it is asked for nothing but who it is, for anything else may be another board's business.
    pub(super) fn next(&self, ready: Instant) -> (Instant, Action) {
        if !self.place.is_proven() {
            return (self.identify_at.max(ready), Action::Identify);
        }
        let mut others = vec![(self.identify_at, Action::Identify)];
        others.extend((self.is_owned()).then_some((self.read_at, Action::Read)));
        others.extend(self.describe_at.map(|at| (at, Action::Describe)));
        let other = others.into_iter().min_by_key(|(at, _)| *at).unwrap_or((ready, Action::Identify));
        let (other_at, other) = (other.0.max(ready), other.1);
        match self.next_of_commands() {
            Some((at, action)) if at.max(ready) <= other_at => (at.max(ready), action),
            _ => (other_at, other),
        }
    }

    /// It is being asked now.
    pub(super) fn asking(&mut self, action: &Action) {
        if let Action::Tell(device, ..) = action
            && let Some(unit) = self.units.get_mut(device)
        {
            unit.telling(&mut self.out);
        }
    }

    /// Ends commands whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        for unit in self.units.values_mut() {
            if unit.expire(now, &mut self.out) {
                self.read_at = now;
            }
        }
    }

    /// Takes a directive of the node.
    pub(super) fn directive(&mut self, now: Instant, directive: Directive) {
        match directive {
            Directive::Own { device, owned } => self.own(now, device, owned),
            Directive::Refresh { device } => {
                if let Some(unit) = self.units.get_mut(&device) {
                    unit.forget();
                    self.read_at = now;
                }
            }
            Directive::Command { device, command, change, deadline, by: _ } => {
                match self.units.get_mut(&device) {
                    Some(unit) => {
                        unit.command(now, command, &change, deadline, &mut self.out);
                        if !self.place.is_proven() {
                            self.identify_at = now; // it waits for that
                        }
                    }
                    None => {
                        let reason = format!("{} tells of no device {device}", self.place);
                        self.out.push_back(progress(&device, command, Stage::Failed { reason }));
                    }
                }
            }
            Directive::Probe
            | Directive::Pair { .. }
            | Directive::Show(_)
            | Directive::Hide { .. }
            | Directive::Tell(_) => {}
        }
    }

    /// Ends what is in flight because the adapter stops.
    pub(super) fn shut_down(&mut self) {
        let reason = "the adapter is stopping: send the command again".to_owned();
        for unit in self.units.values_mut() {
            unit.end(Stage::Failed { reason: reason.clone() }, &mut self.out);
        }
    }

    /// It answered at an address to somebody else than its own task.
    pub(super) fn seen(&mut self, now: Instant, at: Address) {
        if self.place.seen(at) {
            self.doubt(now);
        }
    }

    /// The address to ask from now on, when it is another or the connections to it are worth nothing any more.
    pub(super) fn moves(&mut self, now: Instant) -> Option<Address> {
        let is_lost = self.place.is_taken() || self.failures >= failing::MOST_FAILURES;
        let moved = self.place.go(self.wants_address(), is_lost)?;
        self.tells = false;
        (self.read_at, self.identify_at) = (now, now);
        if moved.is_new || self.describe_at.is_some() {
            self.describe_at = Some(now); // the address is a part of the description
        }
        Some(moved.to)
    }

    /// Whether it tells by itself from now on.
    pub(super) fn tells(&mut self, now: Instant, tells: bool) {
        if tells != self.tells {
            self.tells = tells;
            self.read_at = now; // what happened meanwhile was not told
            if !tells {
                self.doubt(now); // it may have left
            }
        }
    }

    /// It said who it is.
    pub(super) fn identified(&mut self, now: Instant, answer: Result<Identity, Fault>) {
        self.identify_at = now + self.timing.discover;
        match answer {
            Ok(identity) => {
                self.place.prove();
                // That it knows its name is not enough where more is asked for: its state by who owns it, what it is made of.
                if !self.is_owned() && self.describe_at.is_none() {
                    self.heard(now);
                }
                if self.failures == 0 {
                    self.place.stay();
                }
                if identity != self.identity || !self.announced {
                    self.describe_at = Some(now);
                }
                self.identity = identity;
            }
            Err(fault) => self.fault(now, fault),
        }
    }

    /// It said what it is made of.
    pub(super) fn described(&mut self, now: Instant, answer: Result<Layout, Fault>) {
        match answer {
            Ok(layout) => {
                self.heard(now);
                self.describe_at = layout.provisional.then_some(now + self.timing.discover.max(LOCKED_PAUSE));
                self.locked = layout.provisional;
                self.lay_out(now, layout);
            }
            Err(fault) => {
                self.describe_at = Some(now + self.retry(self.timing.discover));
                self.fault(now, fault);
            }
        }
    }

    /// It said what it shows, when it was asked at `asked_at`.
    pub(super) fn read(&mut self, now: Instant, asked_at: Instant, answer: Result<Snapshot, Fault>) {
        match answer {
            Ok(snapshot) => {
                self.heard(now);
                self.locked = false;
                self.read_at = now + self.timing.poll * if self.tells { RARER } else { 1 };
                self.take(now, Some(asked_at), snapshot);
            }
            Err(fault) => self.fault(now, fault),
        }
    }

    /// It told something by itself.
    pub(super) fn told(&mut self, now: Instant, told: Result<Snapshot, Fault>) {
        let mut snapshot = match told {
            Ok(snapshot) => snapshot,
            Err(fault @ Fault::Other(_)) => return self.fault(now, fault),
            Err(_) => return, // it is asked all the same, and answers that as it should or not
        };
        if snapshot == Snapshot::default() {
            return; // nothing that is understood: no sign that it works
        }
        self.heard(now);
        if !self.is_owned() {
            return;
        }
        let is_waiting = self.units.values().any(|unit| unit.command.is_some());
        if is_waiting || self.last_acknowledged.is_some_and(|at| now < at + MAY_BE_OLD) {
            if !snapshot.states.is_empty() {
                self.read_at = self.read_at.min(now + READ_SOON);
            }
            snapshot.states.clear();
        }
        self.take(now, None, snapshot);
    }

    /// How telling it a change ended.
    pub(super) fn changed(
        &mut self,
        now: Instant,
        device: &DeviceId,
        command: CommandId,
        answer: Result<(), Fault>,
    ) {
        let unit = self.units.get_mut(device);
        match answer {
            Ok(()) => {
                if let Some(unit) = unit {
                    unit.told(now, command, &mut self.out);
                }
                self.heard(now);
                self.last_acknowledged = Some(now);
                self.read_at = self.read_at.max(now + READ_SOON);
            }
            Err(Fault::Rejected(reason)) => {
                if let Some(unit) = unit.filter(|unit| unit.is_carrying_out(command)) {
                    unit.end(Stage::Failed { reason }, &mut self.out);
                }
                self.heard(now);
            }
            Err(fault) => self.fault(now, fault),
        }
    }

    fn next_of_commands(&self) -> Option<(Instant, Action)> {
        let needs = self.units.iter().filter_map(|(device, unit)| {
            let command = unit.command.as_ref()?;
            let (at, need) = command.need();
            let action = match need {
                Need::Tell => Action::Tell(device.clone(), command.id, command.wanted.clone()),
                Need::ReadBack => Action::Read,
            };
            Some((at, action))
        });
        needs.min_by_key(|(at, action)| (*at, *action == Action::Read))
    }

    fn own(&mut self, now: Instant, device: DeviceId, owned: bool) {
        if let Some(unit) = self.units.get_mut(&device) {
            unit.own(owned, &mut self.out);
        }
        if !owned {
            self.owned.remove(&device);
        } else if self.owned.len() < MOST_UNITS {
            self.owned.insert(device);
        }
        self.read_at = now;
    }

    fn lay_out(&mut self, now: Instant, layout: Layout) {
        self.sleeps = layout.sleeps;
        let mut gone: BTreeSet<DeviceId> = self.units.keys().cloned().collect();
        for device in layout.devices.into_iter().take(MOST_UNITS) {
            gone.remove(&device.id);
            let owned = self.owned.contains(&device.id);
            let unit = self.units.entry(device.id.clone());
            let mut is_new = !self.announced;
            let unit = unit.or_insert_with(|| {
                is_new = true;
                Unit::new(device.clone(), owned)
            });
            if is_new || unit.device != device {
                unit.device = device.clone();
                self.out.push_back(Reading::Found { device });
            }
        }
        for device in gone {
            if let Some(mut unit) = self.units.remove(&device) {
                let reason = format!("{} tells of it no more", self.place);
                unit.end(Stage::Failed { reason: reason.clone() }, &mut self.out);
                self.out.push_back(Reading::Lost { device, reason });
            }
        }
        self.announced = true;
        self.read_at = now;
    }

    /// Takes what it shows.
    fn take(&mut self, now: Instant, asked_at: Option<Instant>, snapshot: Snapshot) {
        let Snapshot { mut states, mut measured, events, is_whole, is_changed } = snapshot;
        let online = format!("{} answers", self.place);
        for (device, unit) in self.units.iter_mut().filter(|(_, unit)| unit.owned) {
            unit.available(Availability::Online, &online, &mut self.out);
            if let Some(state) = states.remove(device) {
                unit.state(now, asked_at, state, &mut self.out);
            } else if is_whole && asked_at.is_some() {
                unit.unseen(now);
            }
            unit.measure(measured.remove(device).unwrap_or_default(), is_whole, &mut self.out);
        }
        for (device, event) in events {
            if let Some(unit) = self.units.get_mut(&device).filter(|unit| unit.owned) {
                unit.pressed(event, &mut self.out);
            }
        }
        // A device that is new on the board, or was taken from it.
        if is_changed && self.describe_at.is_none() {
            self.describe_at = Some(now);
        }
    }

    fn heard(&mut self, now: Instant) {
        self.failures = 0;
        self.last_heard = now;
        if !self.announced && self.describe_at.is_none() {
            self.describe_at = Some(now);
        }
    }
}
