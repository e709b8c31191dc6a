//! One piece of LIFX hardware with a serial number, such as a bulb or a switch, and the devices that it is. A pure state
//! machine that takes the time as an argument.
//!
//! What it guarantees: at most 20 messages a second to all of its parts together, of which the newest commands' come
//! first; and that they are there, gone and back together.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Change, CommandId, DeviceId, Stage};

use super::ID;
use super::action::{Action, most_urgent};
use super::face::Face;
use super::identity::Identity;
use super::line::Line;
use super::news::News;
use super::output::Output;
use super::pace::Timing;
use super::part::{Part, untold};
use super::pending::Pending;
use super::poll::Tick;
use super::products::Role;
use super::rival::{self, Rival};
use super::wire::{Reply, Request, Serial};
use super::{cleaning::Cleaning, infrared::Infrared, light::Light, relay::Relay};

/// The most devices of one piece of hardware that may be owned before it has told what it is.
const MOST_OWNED: usize = 64;

/// One piece of hardware.
#[derive(Debug)]
pub(crate) struct Hardware {
    serial: Serial,
    line: Line,
    timing: Timing,
    identity: Identity,
    /// What it is; empty until it has told its product.
    parts: Vec<Part>,
    /// Devices of it that this node owns, told or not.
    owned: BTreeSet<DeviceId>,
    last_heard: Instant,
    next_reach: Instant,
    /// Who answers to its serial number at another address.
    rival: Option<Rival>,
}

impl Hardware {
    /// Hardware that just answered for the first time, with the devices of it that this node owns.
    pub(crate) fn new(
        serial: Serial,
        addr: SocketAddr,
        source: u32,
        timing: Timing,
        owned: BTreeSet<DeviceId>,
        now: Instant,
    ) -> Self {
        Self {
            serial,
            line: Line::new(serial, source, addr, now),
            timing,
            identity: Identity::new(now),
            parts: Vec::new(),
            owned,
            last_heard: now,
            next_reach: now,
            rival: None,
        }
    }

    /// Where it is spoken to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.line.addr
    }

    /// Whether nobody needs it any more: lost, and nothing of it ours.
    pub(crate) fn is_gone(&self, now: Instant) -> bool {
        self.owned.is_empty() && now >= self.lost_at()
    }

    /// It answered a discovery from `addr`, or another that calls itself the same.
    pub(crate) fn discovered(&mut self, now: Instant, addr: SocketAddr, out: &mut Output) {
        if addr == self.line.addr {
            self.is_here(now, out);
            return;
        }
        let rival = self.rival.get_or_insert_with(|| Rival::new(addr, now));
        if rival.addr == addr {
            rival.heard(now);
            self.next_reach = now;
        }
    }

    /// From now on it is spoken to there.
    pub(crate) fn moved(&mut self, now: Instant, addr: SocketAddr, out: &mut Output) {
        (self.line.addr, self.rival) = (addr, None);
        self.describe_anew(out);
        self.heard(now, out);
    }

    /// This node owns a device of it from now on, or no longer does.
    pub(crate) fn own(&mut self, now: Instant, device: DeviceId, owned: bool, out: &mut Output) {
        let who = self.identity.noun();
        if let Some(part) = self.parts.iter_mut().find(|part| *part.id() == device) {
            part.set_owned(now, owned, who, out);
        }
        if !owned {
            self.owned.remove(&device);
        } else if self.owned.len() < MOST_OWNED {
            self.owned.insert(device);
        }
    }

    /// Reads the state of a device at once and reports it in any case.
    pub(crate) fn refresh(&mut self, now: Instant, device: &DeviceId) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.id() == device) {
            part.refresh(now);
        }
    }

    /// Takes a command.
    pub(crate) fn command(
        &mut self,
        now: Instant,
        device: DeviceId,
        id: CommandId,
        change: &Change,
        deadline: Instant,
        out: &mut Output,
    ) {
        match self.parts.iter_mut().find(|part| *part.id() == device) {
            Some(part) => part.command(now, id, change, deadline, &self.identity, out),
            None => {
                let reason = untold(&device);
                News::new(device).progress(id, Stage::Failed { reason }, out);
            }
        }
    }

    /// Ends what is in flight because the adapter stops.
    pub(crate) fn shut_down(&mut self, out: &mut Output) {
        for part in &mut self.parts {
            part.shut_down(out);
        }
    }

    /// Takes an answer. `false` means that nothing asked for it; it is then ignored.
    pub(crate) fn handle_reply(
        &mut self,
        now: Instant,
        from: SocketAddr,
        sequence: u8,
        reply: Reply,
        out: &mut Output,
    ) -> bool {
        let Some(pending) = self.line.answered_by(now, from, sequence, &reply) else { return false };
        self.is_here(now, out);
        if let Some(part) = pending.part.and_then(|index| self.parts.get_mut(index)) {
            part.answered(now, &pending, &reply, &self.identity, out);
        }
        match reply {
            Reply::StateUnhandled(_) => self.identity.refused(now, &pending.request),
            reply => self.learn(now, reply, out),
        }
        self.announce(out);
        true
    }

    /// When something is due next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let (due, _) = self.next_action();
        let deadlines = self.parts.iter().filter_map(Part::deadline);
        let lost = self.is_found().then(|| self.lost_at());
        let rival = self.rival.as_ref().map(|rival| rival.due(self.timing.lost()));
        deadlines.chain(lost).chain(rival).fold(due.max(self.line.ready()), Instant::min)
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        self.line.forget_old(now);
        for part in &mut self.parts {
            part.handle_timeout(now, &self.identity, out);
        }
        if now >= self.lost_at() {
            let reason = format!("no answer for {}", ago(now, self.last_heard));
            self.parts.iter_mut().for_each(|part| part.lost(&reason, out));
        }
        self.judge_rival(now, out);
        loop {
            let (due, action) = self.next_action();
            if due > now || self.line.ready() > now {
                return;
            }
            self.perform(now, action, out);
        }
    }

    fn next_action(&self) -> (Instant, Action) {
        let parts = || self.parts.iter();
        let identify = self.identity.need().map(|(due, request)| (due, Action::Identify(request)));
        let reads = parts().filter_map(Part::question).chain(parts().filter_map(Part::next_poll));
        let quiet = self.last_heard + self.timing.quiet();
        let reach = if self.is_contested() { self.next_reach } else { quiet.max(self.next_reach) };
        most_urgent(parts().filter_map(Part::need), reads.chain(identify), reach, self.line.ready())
    }

    fn perform(&mut self, now: Instant, action: Action, out: &mut Output) {
        match action {
            Action::Command(index, need) => {
                if let Some(part) = self.parts.get_mut(index) {
                    part.serve(now, need, &self.identity, &mut self.line, out);
                }
            }
            Action::Question(index) => {
                if let Some(part) = self.parts.get_mut(index) {
                    part.ask_next(now, &mut self.line, out);
                }
            }
            Action::Poll(index) => self.poll(now, index, out),
            Action::Identify(request) => {
                self.identity.asked(now, &request);
                self.line.send(Pending::of_all(request, now), out);
                self.announce(out); // what was asked for in vain long enough is given up
            }
            Action::Reach => {
                let pause = (self.timing.discover / 6).max(Duration::from_millis(500));
                self.next_reach = now + if self.is_contested() { rival::ASKED_EVERY } else { pause };
                self.line.send(Pending::of_all(Request::GetService, now), out);
            }
        }
    }

    fn poll(&mut self, now: Instant, index: usize, out: &mut Output) {
        let Some(part) = self.parts.get_mut(index) else { return };
        match part.tick(now, &self.identity, &mut self.line, out) {
            Tick::Missed if part.is_stuck() => self.identity.look_again(now),
            Tick::Ask | Tick::Missed => {}
            Tick::Silent(missed) => self.silent(now, missed, out),
        }
    }

    /// It answered where it is spoken to; who does so elsewhere is another.
    fn is_here(&mut self, now: Instant, out: &mut Output) {
        self.heard(now, out);
        let Some(rival) = self.rival.as_mut().filter(|rival| rival.is_open()) else { return };
        if rival.is_another() {
            let (serial, used, left) = (self.serial, self.line.addr, rival.addr);
            tracing::warn!(%serial, %used, %left, "two LIFX devices have one serial number: take one of them off the network");
            self.describe_anew(out);
        }
    }

    /// Whether it may have moved.
    fn is_contested(&self) -> bool {
        self.rival.as_ref().is_some_and(Rival::is_open)
    }

    /// Follows hardware that has moved, and forgets another one that is gone.
    fn judge_rival(&mut self, now: Instant, out: &mut Output) {
        let Some(rival) = self.rival.take_if(|rival| rival.due(self.timing.lost()) <= now) else { return };
        if rival.is_it(now) {
            self.moved(now, rival.addr, out);
        } else {
            self.describe_anew(out);
        }
    }

    /// A valid answer came.
    fn heard(&mut self, now: Instant, out: &mut Output) {
        (self.last_heard, self.next_reach) = (now, now);
        let who = self.identity.noun();
        let mut is_back = false;
        for part in &mut self.parts {
            is_back |= part.heard(now, who, out);
        }
        if is_back {
            self.identity.look_again(now);
        }
        self.announce(out);
    }

    /// So many polls in a row stayed without an answer.
    fn silent(&mut self, now: Instant, missed: u32, out: &mut Output) {
        let reason = format!(
            "no answer from {} to {missed} polls in a row, last heard {} ago: is it switched off at the wall?",
            self.line.addr,
            ago(now, self.last_heard)
        );
        self.parts.iter_mut().for_each(|part| part.silent(&reason, out));
    }

    fn learn(&mut self, now: Instant, reply: Reply, out: &mut Output) {
        if self.identity.learn(now, reply) {
            self.parts.iter_mut().for_each(Part::is_another);
        }
        if self.parts.is_empty() {
            self.lay_out(now, out);
        }
    }

    /// Makes the parts, once it has told its product.
    fn lay_out(&mut self, now: Instant, out: &mut Output) {
        for &role in self.identity.roles() {
            let called = role.called();
            let Some(id) = self.id_of(&called) else { continue };
            let is_owned = self.owned.contains(&id);
            let face = self.face_of(role);
            let mut part = Part::new(self.parts.len(), id, called, face, self.timing.poll, now);
            part.set_owned(now, is_owned, self.identity.noun(), out);
            self.parts.push(part);
        }
    }

    /// The id of the part that is called so: `lifx-d073d5000001`, `lifx-d073d5000001-relay-1`.
    fn id_of(&self, called: &str) -> Option<DeviceId> {
        let id = DeviceId::from_hardware(ID, &self.serial.0).ok()?;
        if called.is_empty() {
            return Some(id);
        }
        DeviceId::new(format!("{id}-{}", called.replace(' ', "-"))).ok()
    }

    fn face_of(&self, role: Role) -> Box<dyn Face> {
        match role {
            Role::Light => Box::new(Light::default()),
            Role::Infrared => Box::new(Infrared::new()),
            Role::Cleaning => Box::new(Cleaning::new(self.timing.clean)),
            Role::Relay(index) => Box::new(Relay(index)),
        }
    }

    fn announce(&mut self, out: &mut Output) {
        let address = self.line.addr.to_string();
        let remark = self.rival.as_ref().and_then(|rival| rival.remark(self.serial, &address));
        for part in &mut self.parts {
            part.announce(&self.identity, &address, remark.as_deref(), out);
        }
    }

    /// What was told of where it is, and beside whom, holds no more.
    fn describe_anew(&mut self, out: &mut Output) {
        if self.is_found() {
            self.parts.iter_mut().for_each(Part::is_another);
            self.announce(out);
        }
    }

    fn is_found(&self) -> bool {
        self.parts.iter().any(Part::is_found)
    }

    fn lost_at(&self) -> Instant {
        self.last_heard + self.timing.lost()
    }
}

fn ago(now: Instant, then: Instant) -> String {
    format!("{} s", now.saturating_duration_since(then).as_secs())
}
