//! All devices of one kind that are wired to this board: which are there, what is done next, and on which bus. Pure.
//!
//! What it guarantees:
//! - one job at a time on each lane; a lane whose job never comes back is left alone, and its devices are offline;
//! - a command ends in exactly one final stage, at the latest at its deadline, whatever hangs;
//! - only owned devices are read and changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::{Directive, Reading};
use crate::model::{Change, CommandId, DeviceId, Stage};

use super::device::{Device, Due};
use super::{Applied, Event, Fault, Found, Listing, Readings, Sample};

/// The time between two looks for devices that came or went.
const SCAN: Duration = Duration::from_secs(5);
/// A job that takes longer hangs: a 1-Wire sensor that is read four times takes 3 s.
pub(super) const HANGS: Duration = Duration::from_secs(10);
/// The most devices; a board has fewer.
const MOST_DEVICES: usize = 128;
/// The most devices that may be owned before they are found.
const MOST_EXPECTED: usize = 512;
/// The most remarks that are remembered as told.
const MOST_REMARKS: usize = 64;
/// The lane of listing; devices have lanes that are not empty.
const LISTING: &str = "";

/// Something to be done that may block.
#[derive(Debug)]
pub(super) struct Job<P> {
    /// Where; nothing else is done there before this came back.
    pub(super) lane: String,
    /// What.
    pub(super) task: Task<P>,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) enum Task<P> {
    /// Look for devices.
    List {
        /// Those that were there the last time.
        known: BTreeMap<DeviceId, P>,
    },
    /// Read one.
    Read { device: DeviceId, place: P, last: Option<Sample> },
    /// Change one, and read it after that.
    Apply { device: DeviceId, command: CommandId, place: P, change: Change, last: Option<Sample> },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome<P> {
    /// Of looking for devices.
    Listed(io::Result<Listing<P>>),
    /// Of a read.
    Read { device: DeviceId, result: Result<Sample, String> },
    /// Of a change.
    Applied { device: DeviceId, command: CommandId, result: Result<Applied, Fault> },
}

/// A lane on which something is being done.
#[derive(Debug)]
struct Busy {
    since: Instant,
    hangs: bool,
}

/// All devices of one adapter.
#[derive(Debug)]
pub(super) struct Keeper<P> {
    adapter: &'static str,
    poll: Duration,
    devices: BTreeMap<DeviceId, Device<P>>,
    /// Devices that this node owns, found or not.
    owned: BTreeSet<DeviceId>,
    busy: BTreeMap<String, Busy>,
    next_scan: Instant,
    remarks: BTreeSet<String>,
    out: Readings,
}

impl<P: Clone> Keeper<P> {
    /// Nothing is known; the first look is due.
    pub(super) fn new(adapter: &'static str, poll: Duration, now: Instant) -> Self {
        Self {
            adapter,
            poll,
            devices: BTreeMap::new(),
            owned: BTreeSet::new(),
            busy: BTreeMap::new(),
            next_scan: now,
            remarks: BTreeSet::new(),
            out: Readings::new(),
        }
    }

    /// The next thing to do, if one is due and its lane is free.
    pub(super) fn poll_job(&mut self, now: Instant) -> Option<Job<P>> {
        if self.next_scan <= now && !self.busy.contains_key(LISTING) {
            self.next_scan = now + SCAN;
            let known = self.devices.iter().map(|(id, device)| (id.clone(), device.place.clone()));
            let task = Task::List { known: known.collect() };
            return Some(self.begin(now, LISTING.to_owned(), task));
        }
        let due = self.devices.values().filter(|device| !self.busy.contains_key(&device.lane));
        let due = due.filter_map(|device| {
            let (at, due) = device.due().filter(|(at, _)| *at <= now)?;
            // What people wait for goes before what is merely due.
            Some(((matches!(due, Due::Read), at), device.description.id.clone(), due))
        });
        let (_, id, due) = due.min_by(|one, other| one.0.cmp(&other.0))?;
        let device = self.devices.get_mut(&id)?;
        device.started(now, &due, &mut self.out);
        let (lane, place, last) = (device.lane.clone(), device.place.clone(), device.last());
        let task = match due {
            Due::Read => Task::Read { device: id, place, last },
            Due::Apply(command, change) => Task::Apply { device: id, command, place, change, last },
        };
        Some(self.begin(now, lane, task))
    }

    /// The next reading to pass on.
    pub(super) fn poll_reading(&mut self) -> Option<Reading> {
        self.out.pop_front()
    }

    /// How many readings wait.
    pub(super) fn backlog(&self) -> usize {
        self.out.len()
    }

    /// When [`Keeper::handle_timeout`] must be called next; none while all that there is hangs.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let free = |lane: &str| !self.busy.contains_key(lane);
        let scan = free(LISTING).then_some(self.next_scan);
        let hangs = self.busy.values().filter(|busy| !busy.hangs).map(|busy| busy.since + HANGS);
        let deadlines = self.devices.values().filter_map(Device::deadline);
        let due = self.devices.values().filter(|device| free(&device.lane)).filter_map(Device::due);
        let all = scan.into_iter().chain(hangs).chain(deadlines).chain(due.map(|(at, _)| at));
        all.min()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for device in self.devices.values_mut() {
            device.handle_timeout(now, &mut self.out);
        }
        for (lane, busy) in &mut self.busy {
            let what = if lane == LISTING { "the list of devices" } else { lane.as_str() };
            let hangs = now >= busy.since + HANGS;
            if hangs && !std::mem::replace(&mut busy.hangs, true) {
                tracing::warn!(adapter = self.adapter, bus = what, seconds = HANGS.as_secs(), "a read hangs");
            }
            let on_it = self.devices.values_mut().filter(|device| hangs && device.lane == *lane);
            let why = format!("the kernel has not come back from {what} for {} s", HANGS.as_secs());
            on_it.for_each(|device| device.hangs(&why, &mut self.out));
        }
    }

    /// Takes what came of a job.
    pub(super) fn handle_done(&mut self, now: Instant, lane: &str, outcome: Outcome<P>) {
        self.busy.remove(lane);
        match outcome {
            Outcome::Listed(listing) => self.listed(now, listing),
            Outcome::Read { device, result } => {
                if let Some(device) = self.devices.get_mut(&device) {
                    device.was_read(now, result, &mut self.out);
                }
            }
            Outcome::Applied { device, command, result } => {
                if let Some(device) = self.devices.get_mut(&device) {
                    device.was_applied(now, command, result, &mut self.out);
                }
            }
        }
    }

    /// Takes what the hardware tells unasked.
    pub(super) fn handle_event(&mut self, _now: Instant, event: Event) {
        let id = match &event {
            Event::Pressed { device, .. } | Event::Sampled { device, .. } => device,
        };
        let Some(device) = self.devices.get_mut(id) else { return };
        match event {
            Event::Pressed { event, .. } => device.pressed(event, &mut self.out),
            Event::Sampled { sample, .. } => device.told(sample, &mut self.out),
        }
    }

    /// Takes a directive of the node.
    pub(super) fn handle_directive(&mut self, now: Instant, directive: Directive) {
        directive.log(self.adapter);
        match directive {
            Directive::Own { device, owned } => self.own(now, device, owned),
            Directive::Refresh { device } => {
                if let Some(device) = self.devices.get_mut(&device) {
                    device.refresh(now);
                }
            }
            Directive::Command { device, command, change, deadline, by: _ } => {
                if let Some(device) = self.devices.get_mut(&device) {
                    device.command(now, command, &change, deadline, &mut self.out);
                } else {
                    let reason = format!("{device} is not wired to this board, or does not answer");
                    let stage = Stage::Failed { reason };
                    self.out.push_back(Reading::Progress { device, command, stage });
                }
            }
            Directive::Probe
            | Directive::Pair { .. }
            | Directive::Show(_)
            | Directive::Hide { .. }
            | Directive::Tell(_) => {}
        }
        self.handle_timeout(now);
    }

    /// Ends every command that is in flight, because the adapter stops.
    pub(super) fn shut_down(&mut self) {
        let reason = "this node stops: send the command again when it is back";
        for device in self.devices.values_mut() {
            device.end_command(Stage::Failed { reason: reason.to_owned() }, &mut self.out);
        }
    }

    fn begin(&mut self, now: Instant, lane: String, task: Task<P>) -> Job<P> {
        self.busy.insert(lane.clone(), Busy { since: now, hangs: false });
        Job { lane, task }
    }

    fn own(&mut self, now: Instant, id: DeviceId, owned: bool) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.set_owned(now, owned, &mut self.out);
        }
        if !owned {
            self.owned.remove(&id);
        } else if self.owned.len() < MOST_EXPECTED {
            self.owned.insert(id);
        }
    }

    fn listed(&mut self, now: Instant, listing: io::Result<Listing<P>>) {
        let Listing { found, unsure, remarks } = listing.unwrap_or_else(|error| Listing {
            found: Vec::new(),
            unsure: self.devices.keys().cloned().collect(),
            remarks: vec![format!("devices cannot be listed: {error}")],
        });
        let mut here = BTreeSet::new();
        let mut remarks: BTreeSet<String> = remarks.into_iter().take(MOST_REMARKS).collect();
        for one in found {
            if here.len() >= MOST_DEVICES {
                remarks.insert(format!("there are more than {MOST_DEVICES} devices: the others are ignored"));
            } else if here.insert(one.description.id.clone()) {
                self.found(now, one);
            } else {
                remarks.insert(format!(
                    "a second {}: its name differs too little from the first's",
                    one.description.id
                ));
            }
        }
        here.extend(unsure);
        self.forget(&here);
        for remark in remarks.difference(&self.remarks) {
            tracing::warn!(adapter = self.adapter, reason = %remark, "hardware of this board cannot be used");
        }
        self.remarks = remarks;
    }

    fn found(&mut self, now: Instant, found: Found<P>) {
        let id = found.description.id.clone();
        if let Some(device) = self.devices.get_mut(&id) {
            let Found { description, lane, place } = found;
            let is_news = device.description != description;
            (device.description, device.lane, device.place) = (description.clone(), lane, place);
            if is_news {
                self.out.push_back(Reading::Found { device: description });
                device.refresh(now);
            }
            return;
        }
        self.out.push_back(Reading::Found { device: found.description.clone() });
        let mut device = Device::new(found, self.poll, now);
        device.set_owned(now, self.owned.contains(&id), &mut self.out);
        self.devices.insert(id, device);
    }

    fn forget(&mut self, here: &BTreeSet<DeviceId>) {
        for (id, device) in self.devices.iter_mut().filter(|(id, _)| !here.contains(*id)) {
            let place = device.description.address.as_deref().unwrap_or(id.as_str());
            let why = format!("{place} is no longer there, or no longer to be used");
            device.lost(&why, &mut self.out);
        }
        self.devices.retain(|id, _| here.contains(id));
    }
}
