//! One bulb: a pure state machine that takes the time as an argument.
//!
//! What it guarantees:
//! - at most 20 messages a second, of which the newest command's come first;
//! - a state is reported only when it was asked for after the newest Set was acknowledged, so a
//!   report never shows what was before a command as if it came after;
//! - a command ends in exactly one final stage, at the latest at its deadline.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::Reading;
use crate::model::{
    Availability, Capabilities, Change, CommandId, DeviceId, LightState, Source, Stage, State,
};

use super::action::{Action, most_urgent};
use super::command::{Base, InFlight, Means, Need, Verdict};
use super::identity::Identity;
use super::output::{Output, Transmit};
use super::pace::{Pace, Timing};
use super::pending::{Pending, Requests};
use super::poll::{Poll, Tick};
use super::reading::{self, Partial};
use super::wire::{self, Effect, Hsbk, Reply, Request, Serial};

/// How old what is known of a bulb may be to build a Set on it. Somebody with another app may have
/// changed the colour since, and a command for brightness must not undo that.
const BASE_FRESH: Duration = Duration::from_secs(1);

/// One bulb.
#[derive(Debug)]
pub(crate) struct Bulb {
    id: DeviceId,
    serial: Serial,
    source: u32,
    addr: SocketAddr,
    timing: Timing,
    pace: Pace,
    requests: Requests,
    identity: Identity,
    announced: bool,
    last_heard: Instant,
    next_reach: Instant,
    owned: bool,
    availability: Option<Availability>,
    poll: Poll,
    command: Option<InFlight>,
    base: Option<Base>,
    reading: Partial,
    /// The effect that it ran when it was last read, or was last told to run.
    effect: Option<Effect>,
    /// Counts Sets that were sent.
    sets: u64,
    /// Counts everything that makes an answer on its way out of date.
    epoch: u64,
    /// The newest command all of whose Sets were acknowledged.
    followed: Option<CommandId>,
    last_report: Option<(LightState, Option<CommandId>)>,
}

impl Bulb {
    /// A bulb that just answered for the first time.
    pub(crate) fn new(
        id: DeviceId,
        serial: Serial,
        addr: SocketAddr,
        source: u32,
        timing: Timing,
        now: Instant,
    ) -> Self {
        Self {
            id,
            serial,
            source,
            addr,
            timing,
            pace: Pace::new(now),
            requests: Requests::default(),
            identity: Identity::new(now),
            announced: false,
            last_heard: now,
            next_reach: now,
            owned: false,
            availability: None,
            poll: Poll::new(now),
            command: None,
            base: None,
            reading: Partial::new(now),
            effect: None,
            sets: 0,
            epoch: 0,
            followed: None,
            last_report: None,
        }
    }

    /// Where it is spoken to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether nobody needs it any more: lost, and not ours.
    pub(crate) fn is_gone(&self, now: Instant) -> bool {
        !self.owned && now >= self.last_heard + self.timing.lost()
    }

    /// It answered a discovery from `addr`.
    pub(crate) fn discovered(&mut self, now: Instant, addr: SocketAddr, out: &mut Output) {
        self.addr = addr;
        self.heard(now, out);
    }

    /// This node owns it from now on, or no longer does.
    pub(crate) fn set_owned(&mut self, now: Instant, owned: bool, out: &mut Output) {
        if owned == self.owned {
            return;
        }
        self.owned = owned;
        self.availability = None;
        self.last_report = None;
        self.reading.clear();
        self.reading.retry();
        if owned {
            self.poll = Poll::new(now);
        } else {
            let reason = "another node owns the bulb now: send the command again, it finds the owner";
            self.end_command(Stage::Failed { reason: reason.to_owned() }, out);
        }
    }

    /// Reads the state at once and reports it in any case.
    pub(crate) fn refresh(&mut self, now: Instant) {
        self.last_report = None;
        self.reading.retry();
        self.poll.hurry(now);
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
        if self.command.as_ref().is_some_and(|command| command.id == id) {
            return; // the same again: it is on its way
        }
        let wanted = match self.fit(change) {
            Ok(Change::Light(wanted)) if self.owned => wanted,
            Ok(_) => {
                let reason = format!("this node does not own {}: its owner carries commands out", self.id);
                return self.progress(id, Stage::Failed { reason }, out);
            }
            Err(reason) => return self.progress(id, Stage::Failed { reason }, out),
        };
        let older = self.command.take();
        let wanted = match &older {
            Some(older) => older.wanted.then(&wanted),
            None => wanted,
        };
        if let Some(older) = older {
            self.progress(older.id, Stage::Superseded, out);
        }
        self.outdate();
        self.command = Some(InFlight::new(id, wanted, deadline, now, self.sets));
        self.plan(now);
    }

    /// Ends what is in flight because the adapter stops.
    pub(crate) fn shut_down(&mut self, out: &mut Output) {
        let reason = "the adapter is stopping: send the command again".to_owned();
        self.end_command(Stage::Failed { reason }, out);
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
        self.requests.forget_old(now);
        if from.ip() != self.addr.ip() {
            return false;
        }
        let Some(pending) = self.requests.answered_by(sequence, &reply) else { return false };
        self.heard(now, out);
        match &reply {
            Reply::Acknowledgement => self.acknowledged(now, &pending, out),
            Reply::LightState { hsbk, power, label } => {
                self.light_read(now, &pending, *hsbk, *power > 0);
                self.read(now, &pending, &reply, out);
                self.identified(now, Reply::StateLabel(label.clone()), out);
            }
            Reply::StateZones { .. } => {
                self.read(now, &pending, &reply, out);
                self.identified(now, reply, out);
            }
            Reply::StateMultiZoneEffect(_) | Reply::StateTileEffect(_) => {
                self.read(now, &pending, &reply, out);
            }
            Reply::StateUnhandled(_) => self.unhandled(now, &pending, out),
            Reply::StateService { .. } => {}
            _ => self.identified(now, reply, out),
        }
        true
    }

    /// When something is due next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let (due, _) = self.next_action();
        let mut next = due.max(self.pace.ready());
        if let Some(command) = &self.command {
            next = next.min(command.deadline);
        }
        if self.announced {
            next = next.min(self.last_heard + self.timing.lost());
        }
        next
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        self.requests.forget_old(now);
        if let Some(command) = self.command.as_ref().filter(|command| command.deadline <= now) {
            let reason = command.why_timed_out(now);
            self.base = None; // its Sets may have arrived, or may yet
            self.end_command(Stage::TimedOut { reason }, out);
            self.poll.hurry(now);
        }
        if self.announced && now >= self.last_heard + self.timing.lost() {
            self.announced = false;
            // One that is lost before polls miss it is told online anew when it is back.
            self.availability = self.availability.filter(|is| *is == Availability::Offline);
            let reason = format!("no answer for {}", ago(now, self.last_heard));
            out.readings.push_back(Reading::Lost { device: self.id.clone(), reason });
        }
        self.plan(now);
        loop {
            let (due, action) = self.next_action();
            if due > now || self.pace.ready() > now {
                return;
            }
            self.perform(now, action, out);
        }
    }

    fn next_action(&self) -> (Instant, Action) {
        let command = self.command.as_ref();
        let part = self.reading.due().map(|due| (due, Action::Part));
        // A poll would tell nothing of a command that is being delivered, or fades.
        let useful = command.is_none_or(|c| c.settled_at().is_some_and(|at| at > self.poll.due()));
        let poll = (self.owned && useful).then(|| (self.poll.due(), Action::Poll));
        let identify = self.identity.need().map(|(due, request)| (due, Action::Identify(request)));
        let reach = (self.last_heard + self.timing.quiet()).max(self.next_reach);
        most_urgent(command.map(InFlight::need), [part, poll, identify], reach, self.pace.ready())
    }

    fn perform(&mut self, now: Instant, action: Action, out: &mut Output) {
        match action {
            Action::Command(Need::Set(index)) => self.send_set(now, index, out),
            Action::Command(need @ (Need::Base | Need::ReadBack)) => {
                if let Some(command) = &mut self.command {
                    command.send_read(now);
                }
                if need == Need::Base {
                    self.send(now, Request::LightGet, None, out);
                } else {
                    self.begin_read(now, out);
                }
            }
            Action::Part => self.ask_next(now, out),
            Action::Poll => match self.poll.tick(now, self.timing.poll) {
                Tick::Ask => self.begin_read(now, out),
                Tick::Missed => {}
                Tick::Silent(missed) => self.silent(now, missed, out),
            },
            Action::Identify(request) => {
                self.identity.asked(now, &request);
                self.send(now, request, None, out);
                self.announce(out); // what was asked for in vain long enough is given up
            }
            Action::Reach => {
                self.next_reach = now + (self.timing.discover / 6).max(Duration::from_millis(500));
                self.send(now, Request::GetService, None, out);
            }
        }
    }

    fn send_set(&mut self, now: Instant, index: usize, out: &mut Output) {
        let Some(command) = &mut self.command else { return };
        let Some(request) = command.send_step(now, index) else { return };
        let (id, first) = (command.id, command.first_sent());
        self.sets += 1;
        self.outdate();
        self.send(now, request, None, out);
        if first {
            self.progress(id, Stage::Sent, out);
        }
    }

    /// What is being read now is from before something that changes it.
    fn outdate(&mut self) {
        self.epoch += 1;
        self.reading.clear();
    }

    /// Asks for what is missing to know the state, one question after the other.
    fn begin_read(&mut self, now: Instant, out: &mut Output) {
        let (requests, epoch) = (&self.requests, self.epoch);
        let is_asked = |request: &Request| requests.is_in_flight(now, request, epoch);
        self.reading.begin(now, self.identity.layout(), is_asked);
        self.ask_next(now, out);
    }

    fn ask_next(&mut self, now: Instant, out: &mut Output) {
        let Some(request) = self.reading.next_question() else { return };
        let settled = self.command.as_ref().is_none_or(InFlight::is_acknowledged);
        self.send(now, request, settled.then_some(self.epoch), out);
    }

    fn send(&mut self, now: Instant, request: Request, epoch: Option<u64>, out: &mut Output) {
        self.pace.spend(now);
        let sequence = self.requests.add(now, request.clone(), epoch, self.sets);
        let bytes = wire::encode(self.source, self.serial, sequence, &request);
        out.transmits.push_back(Transmit { to: self.addr, bytes });
    }

    /// A valid answer came.
    fn heard(&mut self, now: Instant, out: &mut Output) {
        self.last_heard = now;
        self.next_reach = now;
        if self.owned && self.availability != Some(Availability::Online) {
            let again = if self.availability.is_some() { " again" } else { "" };
            self.set_availability(Availability::Online, format!("the bulb answers{again}"), out);
            self.reading.retry();
            self.poll.hurry(now);
        }
        self.poll.heard();
        self.announce(out);
    }

    /// So many polls in a row stayed without an answer.
    fn silent(&mut self, now: Instant, missed: u32, out: &mut Output) {
        if self.availability == Some(Availability::Offline) {
            return;
        }
        let reason = format!(
            "no answer from {} to {missed} polls in a row, last heard {} ago: is it switched off at the wall?",
            self.addr,
            ago(now, self.last_heard)
        );
        self.set_availability(Availability::Offline, reason, out);
        // What it shows after its return must be reported even if it is the same as before.
        self.last_report = None;
        self.base = None;
    }

    fn set_availability(&mut self, availability: Availability, reason: String, out: &mut Output) {
        self.availability = Some(availability);
        out.readings.push_back(Reading::Availability { device: self.id.clone(), availability, reason });
    }

    fn acknowledged(&mut self, now: Instant, pending: &Pending, out: &mut Output) {
        if let Some(base) = self.base.as_mut().filter(|base| base.sets < pending.sets) {
            base.take(now, pending.sets, &pending.request);
        }
        if matches!(pending.request, Request::SetColorZones(..) | Request::SetExtendedColorZones(..)) {
            self.base = None; // what the bulb makes of its zones it must tell
        }
        if let Request::SetMultiZoneEffect(effect) | Request::SetTileEffect(effect) = pending.request {
            self.effect = Some(effect);
        }
        let Some(command) = &mut self.command else { return };
        let (id, all) = (command.id, command.acknowledge(now, pending.sets, &pending.request));
        if command.is_acknowledged() {
            self.followed = Some(id);
        }
        if all {
            self.progress(id, Stage::Acknowledged, out);
        }
    }

    /// What a command builds on, whether or not it may be reported.
    fn light_read(&mut self, now: Instant, pending: &Pending, hsbk: Hsbk, on: bool) {
        if pending.sets == self.sets {
            self.base = Some(Base { hsbk, on, at: pending.at, sets: pending.sets });
        }
        self.plan(now);
        if pending.epoch != Some(self.epoch) {
            self.poll.answered(now, self.timing.poll);
        }
    }

    /// A part of the state was read.
    fn read(&mut self, now: Instant, pending: &Pending, reply: &Reply, out: &mut Output) {
        // Asked for before the newest Set was acknowledged, or overtaken by a newer command since:
        // it may show what was before.
        if !self.owned || pending.epoch != Some(self.epoch) {
            return;
        }
        match reply {
            Reply::StateUnhandled(_) => self.reading.refused(pending.at, &pending.request),
            _ => self.reading.take(pending.at, reply),
        }
        if let Some((asked, state, effect)) = self.reading.complete(self.identity.layout()) {
            self.poll.answered(now, self.timing.poll);
            self.effect = Some(effect);
            self.state_read(now, asked, state, out);
        }
    }

    fn state_read(&mut self, now: Instant, asked: Instant, state: LightState, out: &mut Output) {
        let told = (reading::bounded(state.clone()), self.followed);
        if self.last_report.as_ref() != Some(&told) {
            out.readings.push_back(Reading::Reported {
                device: self.id.clone(),
                state: State::Light(told.0.clone()),
                command: self.followed,
                source: Source::ReadBack,
            });
            self.last_report = Some(told);
        }
        let sets = self.sets;
        let verdict = self.command.as_mut().map(|command| command.judge(now, asked, sets, &state));
        if verdict == Some(Verdict::Confirmed) {
            self.end_command(Stage::Confirmed, out);
        }
    }

    /// Makes the Sets of a command as soon as what they build on is known.
    fn plan(&mut self, now: Instant) {
        let layout = self.identity.layout();
        let means =
            Means { whites: self.identity.whites(), layout, runs_effect: self.effect != Some(Effect::Off) };
        let base = self.base.filter(|base| base.at + BASE_FRESH > now);
        let Some(command) = &mut self.command else { return };
        let unplanned = matches!(command.need(), (_, Need::Base));
        if unplanned && (base.is_some() || !command.needs_base(layout)) {
            command.plan(now, base.as_ref(), means);
        }
    }

    fn unhandled(&mut self, now: Instant, pending: &Pending, out: &mut Output) {
        let request = &pending.request;
        self.read(now, pending, &Reply::StateUnhandled(request.kind()), out);
        if request.is_set() {
            let reason = "the bulb says that it does not know this message: it may not be a light";
            self.end_command(Stage::Failed { reason: reason.to_owned() }, out);
        }
        self.identity.refused(now, request);
        self.announce(out);
    }

    fn identified(&mut self, now: Instant, reply: Reply, out: &mut Output) {
        if self.identity.learn(now, reply) {
            self.announced = false;
        }
        self.announce(out);
    }

    /// Tells what was found, once it is known what it is.
    fn announce(&mut self, out: &mut Output) {
        if self.announced {
            return;
        }
        let Some(device) = self.identity.describe(&self.id, self.addr.to_string()) else { return };
        self.announced = true;
        out.readings.push_back(Reading::Found { device });
    }

    fn fit(&self, change: &Change) -> Result<Change, String> {
        let (can, _) = self.identity.capabilities().ok_or_else(|| {
            format!("{} has not told yet what it is, or is no light: try again in a second", self.id)
        })?;
        Capabilities::Light(can).fit(change).map_err(|error| error.to_string())
    }

    fn end_command(&mut self, stage: Stage, out: &mut Output) {
        if let Some(command) = self.command.take() {
            self.progress(command.id, stage, out);
        }
    }

    fn progress(&self, command: CommandId, stage: Stage, out: &mut Output) {
        out.readings.push_back(Reading::Progress { device: self.id.clone(), command, stage });
    }
}

fn ago(now: Instant, then: Instant) -> String {
    format!("{} s", now.saturating_duration_since(then).as_secs())
}
