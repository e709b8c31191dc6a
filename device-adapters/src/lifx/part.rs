//! One device that a piece of hardware is: its command, its polls and what is told of it. Pure; takes the time as an
//! argument.
//!
//! What it guarantees:
//! - a state is reported only when it was asked for after the newest Set was acknowledged, so a
//!   report never shows what was before a command as if it came after;
//! - a command ends in exactly one final stage, at the latest at its deadline.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Availability, Change, CommandId, DeviceId, Stage};

use super::action::Action;
use super::command::{InFlight, Need, Verdict};
use super::face::{Face, Shown};
use super::identity::Identity;
use super::line::Line;
use super::news::News;
use super::output::Output;
use super::pending::Pending;
use super::poll::{Poll, Tick};
use super::wire::{Reply, Request};

/// One device of a piece of hardware.
#[derive(Debug)]
pub(crate) struct Part {
    /// Which part it is.
    index: usize,
    /// What follows the label of the hardware in its name; nothing of the hardware itself.
    called: String,
    face: Box<dyn Face>,
    news: News,
    owned: bool,
    interval: Duration,
    poll: Poll,
    command: Option<InFlight>,
    /// What waits to be asked, and since when.
    questions: VecDeque<Request>,
    asking_since: Instant,
    /// Counts Sets that were sent.
    sets: u64,
    /// Counts everything that makes an answer on its way out of date.
    epoch: u64,
}

impl Part {
    /// A device that nobody was told of, polled at that interval once it is owned.
    pub(crate) fn new(
        index: usize,
        id: DeviceId,
        called: String,
        face: Box<dyn Face>,
        interval: Duration,
        now: Instant,
    ) -> Self {
        Self {
            index,
            called,
            face,
            news: News::new(id),
            owned: false,
            interval,
            poll: Poll::new(now, interval),
            command: None,
            questions: VecDeque::new(),
            asking_since: now,
            sets: 0,
            epoch: 0,
        }
    }

    /// Which device it is.
    pub(crate) fn id(&self) -> &DeviceId {
        self.news.device()
    }

    /// Whether the node knows that it is there, and what it is.
    pub(crate) fn is_found(&self) -> bool {
        self.news.is_found()
    }

    /// It is another than was told.
    pub(crate) fn is_another(&mut self) {
        self.news.is_another();
    }

    /// Tells what was found, once it is known what it is, with a remark on all of the hardware.
    pub(crate) fn announce(
        &mut self,
        identity: &Identity,
        address: &str,
        remark: Option<&str>,
        out: &mut Output,
    ) {
        if self.news.is_found() {
            return;
        }
        let Some((can, note)) = self.face.capabilities(identity) else { return };
        let notes: Vec<&str> = remark.into_iter().chain(note.as_deref()).collect();
        let can = (can, (!notes.is_empty()).then(|| notes.join("; ")));
        let sensors = self.face.sensors();
        if let Some(device) = identity.describe(self.news.device(), &self.called, address, can, sensors) {
            self.news.found(device, out);
        }
    }

    /// The hardware is not there any more.
    pub(crate) fn lost(&mut self, reason: &str, out: &mut Output) {
        if self.news.is_found() {
            self.news.lost(reason.to_owned(), out);
        }
    }

    /// This node owns it from now on, or no longer does.
    pub(crate) fn set_owned(&mut self, now: Instant, owned: bool, who: &str, out: &mut Output) {
        if owned == self.owned {
            return;
        }
        self.owned = owned;
        self.news.forget();
        self.clear();
        self.face.retry();
        if owned {
            self.poll = Poll::new(now, self.interval);
        } else {
            let reason =
                format!("another node owns the {who} now: send the command again, it finds the owner");
            self.end_command(Stage::Failed { reason }, out);
        }
    }

    /// Reads the state at once and reports it in any case.
    pub(crate) fn refresh(&mut self, now: Instant) {
        self.news.repeat();
        self.face.retry();
        self.poll.hurry(now);
    }

    /// Takes a command.
    pub(crate) fn command(
        &mut self,
        now: Instant,
        id: CommandId,
        change: &Change,
        deadline: Instant,
        identity: &Identity,
        out: &mut Output,
    ) {
        if self.command.as_ref().is_some_and(|command| command.id == id) {
            return; // the same again: it is on its way
        }
        let wanted = match self.fit(change, identity) {
            Ok(wanted) => wanted,
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
        self.plan(now, identity);
    }

    /// Ends what is in flight because the adapter stops.
    pub(crate) fn shut_down(&mut self, out: &mut Output) {
        let reason = "the adapter is stopping: send the command again".to_owned();
        self.end_command(Stage::Failed { reason }, out);
    }

    /// When its command runs out of time, if it has one.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.command.as_ref().map(|command| command.deadline)
    }

    /// Ends a command whose time is over, and makes the Sets of one that waits for what it builds on.
    pub(crate) fn handle_timeout(&mut self, now: Instant, identity: &Identity, out: &mut Output) {
        if let Some(command) = self.command.as_ref().filter(|command| command.deadline <= now) {
            let without = self.face.without_basis(&command.wanted);
            let reason = command.why_timed_out(now, identity.noun(), without);
            self.face.forget(); // its Sets may have arrived, or may yet
            self.end_command(Stage::TimedOut { reason }, out);
            self.poll.hurry(now);
        }
        self.plan(now, identity);
    }

    /// What its command needs next, and when.
    pub(crate) fn need(&self) -> Option<(Instant, Action)> {
        let (due, need) = self.command.as_ref()?.need();
        Some((due, Action::Command(self.index, need)))
    }

    /// The next question of a read that has begun, and since when it is due.
    pub(crate) fn question(&self) -> Option<(Instant, Action)> {
        (!self.questions.is_empty()).then_some((self.asking_since, Action::Question(self.index)))
    }

    /// The next poll, and when it is due.
    pub(crate) fn next_poll(&self) -> Option<(Instant, Action)> {
        // A poll would tell nothing of a command that is being delivered, or fades.
        let settled = |command: &InFlight| command.settled_at().is_some_and(|at| at > self.poll.due());
        let useful = self.command.as_ref().is_none_or(settled);
        (self.owned && useful).then(|| (self.poll.due(), Action::Poll(self.index)))
    }

    /// Sends what its command needs.
    pub(crate) fn serve(
        &mut self,
        now: Instant,
        need: Need,
        identity: &Identity,
        line: &mut Line,
        out: &mut Output,
    ) {
        if let Need::Set(step) = need {
            return self.send_set(now, step, line, out);
        }
        let Some(command) = &mut self.command else { return };
        command.send_read(now);
        if need == Need::Base {
            let questions = self.face.basis(now, &command.wanted, identity);
            self.ask(now, questions, line, out);
        } else {
            self.begin_read(now, identity, line, out);
        }
    }

    /// A poll is due.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        identity: &Identity,
        line: &mut Line,
        out: &mut Output,
    ) -> Tick {
        let tick = self.poll.tick(now);
        if tick == Tick::Ask {
            self.begin_read(now, identity, line, out);
        }
        tick
    }

    /// Whether it answers, and not all that it is asked.
    pub(crate) fn is_stuck(&self) -> bool {
        self.face.is_stuck()
    }

    /// Asks the next question of a read that has begun.
    pub(crate) fn ask_next(&mut self, now: Instant, line: &mut Line, out: &mut Output) {
        let Some(request) = self.questions.pop_front() else { return };
        let settled = self.command.as_ref().is_none_or(InFlight::is_acknowledged);
        let epoch = settled.then_some(self.epoch);
        line.send(Pending::of_part(self.index, request, now, epoch, self.sets), out);
    }

    /// The hardware answered something. True when it had not for a while.
    pub(crate) fn heard(&mut self, now: Instant, who: &str, out: &mut Output) -> bool {
        self.poll.heard();
        let before = self.news.availability();
        if !self.owned || before == Some(Availability::Online) {
            return false;
        }
        let is_back = before.is_some();
        let again = if is_back { " again" } else { "" };
        self.news.available(Availability::Online, format!("the {who} answers{again}"), out);
        self.face.retry();
        self.poll.hurry(now);
        is_back
    }

    /// The hardware is silent.
    pub(crate) fn silent(&mut self, reason: &str, out: &mut Output) {
        if !self.owned || self.news.availability() == Some(Availability::Offline) {
            return;
        }
        self.news.available(Availability::Offline, reason.to_owned(), out);
        self.news.repeat();
        self.face.forget();
    }

    /// Takes the answer to what was sent to it.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        pending: &Pending,
        reply: &Reply,
        identity: &Identity,
        out: &mut Output,
    ) {
        match reply {
            Reply::Acknowledgement => return self.acknowledged(now, pending, out),
            Reply::StateUnhandled(_) => self.refused(&pending.request, identity.noun(), out),
            _ if pending.sets == self.sets => {
                self.face.told(now, pending, reply, identity);
                self.plan(now, identity);
            }
            _ => {}
        }
        self.read(now, pending, reply, identity, out);
    }

    fn acknowledged(&mut self, now: Instant, pending: &Pending, out: &mut Output) {
        self.face.acknowledged(now, pending);
        let Some(command) = &mut self.command else { return };
        let (id, all) = (command.id, command.acknowledge(now, pending.sets, &pending.request));
        if command.is_acknowledged() {
            self.news.follow(id);
        }
        if all {
            self.news.progress(id, Stage::Acknowledged, out);
        }
    }

    fn refused(&mut self, request: &Request, who: &str, out: &mut Output) {
        self.face.refused(request);
        if self.command.as_mut().is_some_and(|command| command.refused(request)) {
            let reason = format!("the {who} says that it does not know messages of type {}", request.kind());
            self.end_command(Stage::Failed { reason }, out);
        }
    }

    /// A part of the state was read.
    fn read(
        &mut self,
        now: Instant,
        pending: &Pending,
        reply: &Reply,
        identity: &Identity,
        out: &mut Output,
    ) {
        if !self.owned {
            return;
        }
        if pending.epoch != Some(self.epoch) {
            // Asked for before the newest Set was acknowledged, or overtaken by a newer command since: it may show
            // what was before. It is an answer all the same.
            return self.poll.answered(now);
        }
        if let Some(shown) = self.face.read(pending, reply, identity) {
            self.questions.clear();
            self.poll.answered(now);
            self.shows(now, shown, identity, out);
        }
    }

    fn shows(&mut self, now: Instant, shown: Shown, identity: &Identity, out: &mut Output) {
        let Shown { asked, state, measured } = shown;
        self.news.report(&state, out);
        self.news.measured(measured, out);
        let Some(command) = &mut self.command else { return };
        let judgement = self.face.judge(&command.wanted, &state, identity);
        if command.judge(now, asked, self.sets, &state, judgement) == Verdict::Confirmed {
            self.end_command(Stage::Confirmed, out);
        }
    }

    /// Makes the Sets of a command as soon as what they build on is known.
    fn plan(&mut self, now: Instant, identity: &Identity) {
        let Some(command) = self.command.as_mut().filter(|command| !command.is_planned()) else { return };
        if let Some(sets) = self.face.plan(now, &command.wanted, identity) {
            command.plan(now, sets);
        }
    }

    fn send_set(&mut self, now: Instant, step: usize, line: &mut Line, out: &mut Output) {
        let Some(command) = &mut self.command else { return };
        let Some(request) = command.send_step(now, step) else { return };
        let (id, first) = (command.id, command.first_sent());
        self.sets += 1;
        self.face.sending();
        self.outdate();
        line.send(Pending::of_part(self.index, request, now, None, self.sets), out);
        if first {
            self.news.progress(id, Stage::Sent, out);
        }
    }

    /// Asks for what is missing to know the state, one question after the other, but for what is asked already.
    fn begin_read(&mut self, now: Instant, identity: &Identity, line: &mut Line, out: &mut Output) {
        let mut questions = self.face.questions(now, identity);
        questions.retain(|request| !line.is_in_flight(now, request, self.epoch));
        self.ask(now, questions, line, out);
    }

    fn ask(&mut self, now: Instant, questions: Vec<Request>, line: &mut Line, out: &mut Output) {
        (self.questions, self.asking_since) = (questions.into(), now);
        self.ask_next(now, line, out);
    }

    /// What is being read now is from before something that changes it.
    fn outdate(&mut self) {
        self.epoch += 1;
        self.clear();
    }

    fn clear(&mut self) {
        self.face.clear();
        self.questions.clear();
    }

    /// The change as it will be carried out, if this node may and the device can.
    fn fit(&self, change: &Change, identity: &Identity) -> Result<Change, String> {
        let device = self.news.device();
        let (can, _) = self.face.capabilities(identity).ok_or_else(|| untold(device))?;
        let wanted = can.fit(change).map_err(|error| error.to_string())?;
        if self.owned {
            Ok(wanted)
        } else {
            Err(format!("this node does not own {device}: its owner carries commands out"))
        }
    }

    fn end_command(&mut self, stage: Stage, out: &mut Output) {
        if let Some(command) = self.command.take() {
            self.news.progress(command.id, stage, out);
        }
    }
}

/// Why a command to a device is refused of which the hardware has not told.
pub(crate) fn untold(device: &DeviceId) -> String {
    format!("the hardware of {device} has not told yet that it is that: try again in a second")
}
