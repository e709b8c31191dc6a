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

use crate::model::{Availability, Capabilities, Change, CommandId, DeviceId, LightState, Stage};

use super::action::{Action, most_urgent};
use super::basis::Basis;
use super::command::{InFlight, Means, Need, Verdict};
use super::identity::Identity;
use super::news::News;
use super::output::{Output, Transmit};
use super::pace::{Pace, Timing};
use super::pending::{Pending, Requests};
use super::poll::{Poll, Tick};
use super::reading::Partial;
use super::wire::{self, Effect, Hsbk, Reply, Request, Serial};

/// One bulb.
#[derive(Debug)]
pub(crate) struct Bulb {
    news: News,
    serial: Serial,
    source: u32,
    addr: SocketAddr,
    timing: Timing,
    pace: Pace,
    requests: Requests,
    identity: Identity,
    last_heard: Instant,
    next_reach: Instant,
    owned: bool,
    poll: Poll,
    command: Option<InFlight>,
    basis: Basis,
    reading: Partial,
    /// The effect that it ran when it was last read, or was last told to run.
    effect: Option<Effect>,
    /// Counts Sets that were sent.
    sets: u64,
    /// Counts everything that makes an answer on its way out of date.
    epoch: u64,
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
            news: News::new(id),
            serial,
            source,
            addr,
            timing,
            pace: Pace::new(now),
            requests: Requests::default(),
            identity: Identity::new(now),
            last_heard: now,
            next_reach: now,
            owned: false,
            poll: Poll::new(now),
            command: None,
            basis: Basis::default(),
            reading: Partial::new(now),
            effect: None,
            sets: 0,
            epoch: 0,
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
        self.news.forget();
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
        self.news.repeat();
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
                let reason =
                    format!("this node does not own {}: its owner carries commands out", self.news.device());
                return self.news.progress(id, Stage::Failed { reason }, out);
            }
            Err(reason) => return self.news.progress(id, Stage::Failed { reason }, out),
        };
        let older = self.command.take();
        let wanted = match &older {
            Some(older) => older.wanted.then(&wanted),
            None => wanted,
        };
        if let Some(older) = older {
            self.news.progress(older.id, Stage::Superseded, out);
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
            Reply::StateZones { .. } | Reply::State64 { .. } => {
                self.zones_read(now, &pending, &reply);
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
        if self.news.is_found() {
            next = next.min(self.last_heard + self.timing.lost());
        }
        next
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        self.requests.forget_old(now);
        if let Some(command) = self.command.as_ref().filter(|command| command.deadline <= now) {
            let reason = command.why_timed_out(now);
            self.basis.forget(); // its Sets may have arrived, or may yet
            self.end_command(Stage::TimedOut { reason }, out);
            self.poll.hurry(now);
        }
        if self.news.is_found() && now >= self.last_heard + self.timing.lost() {
            self.news.lost(format!("no answer for {}", ago(now, self.last_heard)), out);
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
                    self.ask_for_basis(now, out);
                } else {
                    self.begin_read(now, out);
                }
            }
            Action::Part => self.ask_next(now, out),
            Action::Poll => match self.poll.tick(now, self.timing.poll) {
                Tick::Ask => self.begin_read(now, out),
                Tick::Missed if self.reading.is_stuck() => self.identity.look_again(now),
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
        self.basis.outdate();
        self.outdate();
        self.send(now, request, None, out);
        if first {
            self.news.progress(id, Stage::Sent, out);
        }
    }

    /// What is being read now is from before something that changes it.
    fn outdate(&mut self) {
        self.epoch += 1;
        self.reading.clear();
    }

    /// Asks for what the command builds on.
    fn ask_for_basis(&mut self, now: Instant, out: &mut Output) {
        let Some(command) = &self.command else { return };
        let layout = self.identity.layout();
        let questions = self.basis.questions(now, &command.needs(layout), layout);
        self.reading.ask(now, questions);
        self.ask_next(now, out);
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
        let before = self.news.availability();
        if self.owned && before != Some(Availability::Online) {
            let again = if before.is_some() { " again" } else { "" };
            self.news.available(Availability::Online, format!("the bulb answers{again}"), out);
            if before.is_some() {
                self.identity.look_again(now);
            }
            self.reading.retry();
            self.poll.hurry(now);
        }
        self.poll.heard();
        self.announce(out);
    }

    /// So many polls in a row stayed without an answer.
    fn silent(&mut self, now: Instant, missed: u32, out: &mut Output) {
        if self.news.availability() == Some(Availability::Offline) {
            return;
        }
        let reason = format!(
            "no answer from {} to {missed} polls in a row, last heard {} ago: is it switched off at the wall?",
            self.addr,
            ago(now, self.last_heard)
        );
        self.news.available(Availability::Offline, reason, out);
        self.news.repeat();
        self.basis.forget();
    }

    fn acknowledged(&mut self, now: Instant, pending: &Pending, out: &mut Output) {
        self.basis.acknowledged(now, pending);
        if let Request::SetMultiZoneEffect(effect) | Request::SetTileEffect(effect) = pending.request {
            self.effect = Some(effect);
        }
        let Some(command) = &mut self.command else { return };
        let (id, all) = (command.id, command.acknowledge(now, pending.sets, &pending.request));
        if command.is_acknowledged() {
            self.news.follow(id);
        }
        if all {
            self.news.progress(id, Stage::Acknowledged, out);
        }
    }

    /// What a command builds on, whether or not it may be reported.
    fn light_read(&mut self, now: Instant, pending: &Pending, hsbk: Hsbk, on: bool) {
        if pending.sets == self.sets {
            self.basis.light_told(pending, hsbk, on);
        }
        self.plan(now);
        if pending.epoch != Some(self.epoch) {
            self.poll.answered(now, self.timing.poll);
        }
    }

    /// The same of zones.
    fn zones_read(&mut self, now: Instant, pending: &Pending, reply: &Reply) {
        if let Some(told) = self.identity.layout().told(reply)
            && pending.sets == self.sets
        {
            self.basis.zones_told(now, pending, told);
            self.plan(now);
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
            _ => self.reading.take(pending.at, reply, self.identity.layout()),
        }
        if let Some((asked, state, effect)) = self.reading.complete(self.identity.layout()) {
            self.poll.answered(now, self.timing.poll);
            self.effect = Some(effect);
            self.state_read(now, asked, state, out);
        }
    }

    fn state_read(&mut self, now: Instant, asked: Instant, state: LightState, out: &mut Output) {
        self.news.report(&state, out);
        let (sets, layout) = (self.sets, self.identity.layout());
        let verdict = self.command.as_mut().map(|command| command.judge(now, asked, sets, &state, layout));
        if verdict == Some(Verdict::Confirmed) {
            self.end_command(Stage::Confirmed, out);
        }
    }

    /// Makes the Sets of a command as soon as what they build on is known.
    fn plan(&mut self, now: Instant) {
        let layout = self.identity.layout();
        let means =
            Means { whites: self.identity.whites(), layout, runs_effect: self.effect != Some(Effect::Off) };
        let Some(command) = &mut self.command else { return };
        let is_planned = !matches!(command.need(), (_, Need::Base));
        if let Some((base, kept)) = self.basis.known(now, &command.needs(layout)).filter(|_| !is_planned) {
            command.plan(now, base, &kept, means);
        }
    }

    fn unhandled(&mut self, now: Instant, pending: &Pending, out: &mut Output) {
        let request = &pending.request;
        self.read(now, pending, &Reply::StateUnhandled(request.kind()), out);
        if matches!(request, Request::SetMultiZoneEffect(_) | Request::SetTileEffect(_)) {
            self.effect = Some(Effect::Off); // what it does not know it does not run
        }
        if self.command.as_mut().is_some_and(|command| command.refused(request)) {
            let reason = format!("the bulb says that it does not know messages of type {}", request.kind());
            self.end_command(Stage::Failed { reason }, out);
        }
        self.identity.refused(now, request);
        self.announce(out);
    }

    fn identified(&mut self, now: Instant, reply: Reply, out: &mut Output) {
        if self.identity.learn(now, reply) {
            self.news.is_another();
        }
        self.announce(out);
    }

    /// Tells what was found, once it is known what it is.
    fn announce(&mut self, out: &mut Output) {
        if self.news.is_found() {
            return;
        }
        if let Some(device) = self.identity.describe(self.news.device(), self.addr.to_string()) {
            self.news.found(device, out);
        }
    }

    fn fit(&self, change: &Change) -> Result<Change, String> {
        let (can, _) = self.identity.capabilities().ok_or_else(|| {
            format!(
                "{} has not told yet what it is, or is no light: try again in a second",
                self.news.device()
            )
        })?;
        Capabilities::Light(can).fit(change).map_err(|error| error.to_string())
    }

    fn end_command(&mut self, stage: Stage, out: &mut Output) {
        if let Some(command) = self.command.take() {
            self.news.progress(command.id, stage, out);
        }
    }
}

fn ago(now: Instant, then: Instant) -> String {
    format!("{} s", now.saturating_duration_since(then).as_secs())
}
