//! The commands that this node knows, and their life.
//!
//! Two fields with one writer each keep concurrent writers from erasing one another: the node
//! that took the command writes `request` (and there, when nobody else does, how it ended), the
//! device's owner writes `life`. A record joins both, and comes out the same in whatever order they
//! arrive: what the owner says only goes forward and ends once, and its end counts; the end that
//! the other node had to give stands only as long as the owner has told none. Should two owners have
//! told different ends on the two sides of a cut, the field's own merge decides between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use device_adapters::model::{Change, CommandId};
use mesh_proto::{ObjectId, Value};
use tokio::time::Instant;

use super::convert::{clipped, decode, encode, map, millis, text};
use crate::api::ports::{Command, CommandState};

/// Most commands remembered; the oldest are forgotten first.
pub(super) const MAX_COMMANDS: usize = 10_000;
/// How long a command is remembered: as long as its object lasts.
pub(super) const REMEMBER: Duration = Duration::from_secs(600);
/// How long after its deadline a command that nobody ended is ended by the node that took it.
pub(super) const OVERDUE: Duration = Duration::from_secs(1);

/// A state and when it began, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) state: CommandState,
    pub(super) at_ms: u64,
    pub(super) reason: Option<String>,
}

/// What is known of a command when it is first heard of.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The device's object.
    pub(super) device: ObjectId,
    /// What was asked.
    pub(super) change: Change,
    /// When it was asked, in milliseconds since 1970 by the household's time.
    pub(super) at_ms: u64,
    /// How long it may take, in milliseconds.
    pub(super) within_ms: u64,
    /// What was asked, hashed, for its idempotency key.
    pub(super) hash: Option<[u8; 32]>,
    /// Whether this node took it from a client.
    pub(super) is_mine: bool,
    /// Who gave it, as far as is known.
    pub(super) by: Option<String>,
}

#[derive(Debug)]
struct Record {
    known: Known,
    /// What the device's owner says, beginning with `accepted`.
    life: Vec<Step>,
    /// How it ended by the node that took it, which had not heard of an end.
    ended: Option<Step>,
    ends: Instant,
}

impl Record {
    /// What the owner said last.
    fn said(&self) -> CommandState {
        self.life.last().map_or(CommandState::Accepted, |step| step.state)
    }

    /// The end that the owner did not tell.
    fn end_without_owner(&self) -> Option<&Step> {
        self.ended.as_ref().filter(|_| !self.said().is_final())
    }

    fn last(&self) -> Option<&Step> {
        self.end_without_owner().or(self.life.last())
    }

    fn state(&self) -> CommandState {
        self.last().map_or(CommandState::Accepted, |step| step.state)
    }

    fn view(&self, id: CommandId) -> Command {
        let last = self.last();
        let life = self.life.iter().chain(self.end_without_owner());
        Command {
            id: id.to_string(),
            device: self.known.device.clone(),
            by: self.known.by.clone(),
            state: self.state(),
            at_ms: last.map_or(self.known.at_ms, |step| step.at_ms),
            deadline_ms: self.known.at_ms.saturating_add(self.known.within_ms),
            reason: last.and_then(|step| step.reason.clone()),
            life: life.map(|step| (step.state, step.at_ms)).collect(),
        }
    }
}

/// All commands that this node remembers.
#[derive(Debug, Default)]
pub(super) struct Book {
    records: BTreeMap<CommandId, Record>,
    by_age: BTreeSet<(Instant, CommandId)>,
    /// Those that have not ended, by device, with when they were asked.
    open: BTreeMap<ObjectId, BTreeMap<CommandId, u64>>,
}

impl Book {
    /// Takes a command in, or what is newly known of it. Answers with it when it is new.
    pub(super) fn insert(&mut self, id: CommandId, known: Known, now: Instant) -> Option<Command> {
        if let Some(record) = self.records.get_mut(&id) {
            record.known.hash = record.known.hash.or(known.hash);
            record.known.is_mine |= known.is_mine;
            record.known.by = record.known.by.take().or(known.by);
            return None;
        }
        let accepted = Step { state: CommandState::Accepted, at_ms: known.at_ms, reason: None };
        let ends = now + Duration::from_millis(known.within_ms);
        self.open.entry(known.device.clone()).or_default().insert(id, known.at_ms);
        let record = Record { known, life: vec![accepted], ended: None, ends };
        let view = record.view(id);
        self.records.insert(id, record);
        self.by_age.insert((now, id));
        self.forget(now);
        Some(view)
    }

    /// A command as readers see it.
    pub(super) fn get(&self, id: CommandId) -> Option<Command> {
        self.records.get(&id).map(|record| record.view(id))
    }

    /// What is known of a command.
    pub(super) fn known(&self, id: CommandId) -> Option<&Known> {
        self.records.get(&id).map(|record| &record.known)
    }

    /// Whether it is known and has ended.
    pub(super) fn is_final(&self, id: CommandId) -> bool {
        self.records.get(&id).is_some_and(|record| record.state().is_final())
    }

    /// Whether it is known to have been on its way to the device.
    pub(super) fn is_sent(&self, id: CommandId) -> bool {
        self.records.get(&id).is_some_and(|record| record.state() >= CommandState::Sent)
    }

    /// How a command ended, if it has.
    pub(super) fn end_of(&self, id: CommandId) -> Option<Step> {
        self.records.get(&id).and_then(Record::last).filter(|step| step.state.is_final()).cloned()
    }

    /// Moves a command on as its device's owner says: never back, never after the end that an owner
    /// told. Answers with it when that changed what is shown.
    pub(super) fn advance(&mut self, id: CommandId, step: Step) -> Option<Command> {
        self.change(id, |record| {
            let said = record.said();
            if !said.is_final() && step.state > said {
                let not_before = record.life.last().map_or(0, |step| step.at_ms);
                record.life.push(Step { at_ms: step.at_ms.max(not_before), ..step });
            }
        })
    }

    /// Ends a command as the node that took it says. Answers with it when that changed what is shown.
    pub(super) fn end(&mut self, id: CommandId, step: Step) -> Option<Command> {
        self.change(id, |record| record.ended = Some(step).filter(|step| step.state.is_final()))
    }

    /// Takes over the end in the field `life` where another was known: of two owners that told
    /// different ends, the one whose write won is believed everywhere. Answers with the command when
    /// that changed what is shown.
    pub(super) fn adopt_end(&mut self, id: CommandId, life: Vec<Step>) -> Option<Command> {
        self.change(id, |record| {
            if life.last().is_some_and(|end| end.state.is_final() && end.state != record.said()) {
                record.life = life;
            }
        })
    }

    fn change(&mut self, id: CommandId, change: impl FnOnce(&mut Record)) -> Option<Command> {
        let record = self.records.get_mut(&id)?;
        let before = record.last().cloned();
        change(record);
        let is_changed = record.last() != before.as_ref();
        let (is_final, device) = (record.state().is_final(), &record.known.device);
        if is_final && let Some(open) = self.open.get_mut(device) {
            open.remove(&id);
            if open.is_empty() {
                self.open.remove(device);
            }
        }
        self.get(id).filter(|_| is_changed)
    }

    /// The commands for a device that have not ended, with when they were asked.
    pub(super) fn open_of(&self, device: &ObjectId) -> Vec<(CommandId, u64)> {
        let open = self.open.get(device).into_iter().flatten();
        open.map(|(id, at)| (*id, *at)).collect()
    }

    /// Commands that this node took, whose deadline passed a while ago, and that nobody ended.
    pub(super) fn overdue(&self, now: Instant) -> Vec<CommandId> {
        let open = self.open.values().flatten().map(|(id, _)| *id);
        open.filter(|id| {
            self.records.get(id).is_some_and(|record| record.known.is_mine && now >= record.ends + OVERDUE)
        })
        .collect()
    }

    /// Forgets what is too old or too much.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((since, id)) = self.by_age.first().copied()
            && (self.by_age.len() > MAX_COMMANDS || self.is_over(id, since, now))
        {
            self.by_age.pop_first();
            let Some(record) = self.records.remove(&id) else { continue };
            if let Some(open) = self.open.get_mut(&record.known.device) {
                open.remove(&id);
                if open.is_empty() {
                    self.open.remove(&record.known.device);
                }
            }
        }
    }

    /// A command of a long transition is remembered until it had its time.
    fn is_over(&self, id: CommandId, since: Instant, now: Instant) -> bool {
        let lasts = self.records.get(&id).filter(|record| !record.state().is_final());
        now >= since + REMEMBER && lasts.is_none_or(|record| now >= record.ends + OVERDUE * 2)
    }

    /// The field `life` of a command, as its device's owner writes it.
    pub(super) fn life_value(&self, id: CommandId) -> Option<Value> {
        let record = self.records.get(&id)?;
        Some(Value::List(record.life.iter().map(step_value).collect()))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.records.len(), self.by_age.len());
        self.records.len()
    }
}

fn step_value(step: &Step) -> Value {
    let state = encode(&step.state);
    match &step.reason {
        Some(reason) => map([("state", state), ("at", millis(step.at_ms)), ("reason", text(reason))]),
        None => map([("state", state), ("at", millis(step.at_ms))]),
    }
}

/// Reads a field `life`; what is not a step is passed over.
pub(super) fn life_from(value: &Value) -> Vec<Step> {
    let Value::List(items) = value else { return Vec::new() };
    items.iter().filter_map(step_from).collect()
}

fn step_from(value: &Value) -> Option<Step> {
    let at_ms = u64::try_from(value.get("at")?.as_int()?).ok()?;
    let state = match value.get("state")?.as_text()? {
        "accepted" => CommandState::Accepted,
        "sent" => CommandState::Sent,
        "acknowledged" => CommandState::Acknowledged,
        "confirmed" => CommandState::Confirmed,
        "assumed" => CommandState::Assumed,
        "timed_out" => CommandState::TimedOut,
        "superseded" => CommandState::Superseded,
        "failed" => CommandState::Failed,
        _ => return None,
    };
    Some(Step { state, at_ms, reason: value.get("reason").and_then(Value::as_text).map(clipped) })
}

/// The field `request` of a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RequestField {
    /// The device's object.
    pub(super) device: ObjectId,
    /// What was asked, made absolute.
    pub(super) change: Change,
    /// When, by the clock of the node that took it, in milliseconds since 1970.
    pub(super) at: u64,
    /// When it times out, by the same clock.
    pub(super) deadline_ms: u64,
    /// What was asked, hashed.
    pub(super) hash: [u8; 32],
    /// How it ended, when the node that took it had to say so.
    pub(super) ended: Option<Step>,
    /// Who gave it; none where an older version wrote the field.
    pub(super) who: Option<String>,
}

impl RequestField {
    /// As a value; `by` is the short name of the node that took it.
    pub(super) fn to_value(&self, by: &str) -> Value {
        let mut value = map([
            ("device", text(self.device.as_str())),
            ("change", encode(&self.change)),
            ("at", millis(self.at)),
            ("deadline_ms", millis(self.deadline_ms)),
            ("hash", Value::Bytes(self.hash.as_slice().into())),
            ("by", text(by)),
        ]);
        if let Value::Map(entries) = &mut value {
            entries.extend(self.ended.iter().map(|step| ("ended".into(), step_value(step))));
            entries.extend(self.who.iter().map(|who| ("who".into(), text(who))));
        }
        value
    }

    /// Reads it back; none for what breaks the form.
    pub(super) fn from_value(value: &Value) -> Option<Self> {
        let ms = |name: &str| u64::try_from(value.get(name)?.as_int()?).ok();
        let device = ObjectId::new(value.get("device")?.as_text()?).ok()?;
        let Value::Bytes(hash) = value.get("hash")? else { return None };
        Some(Self {
            device: Some(device).filter(|device| device.kind() == "device")?,
            change: decode(value.get("change")?)?,
            at: ms("at")?,
            deadline_ms: ms("deadline_ms")?,
            hash: (&**hash).try_into().ok()?,
            ended: value.get("ended").and_then(step_from),
            who: value.get("who").and_then(Value::as_text).map(clipped),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    const STATES: [CommandState; 8] = [
        CommandState::Accepted,
        CommandState::Sent,
        CommandState::Acknowledged,
        CommandState::Confirmed,
        CommandState::Assumed,
        CommandState::TimedOut,
        CommandState::Superseded,
        CommandState::Failed,
    ];

    fn device() -> ObjectId {
        ObjectId::new("device/lifx-1").unwrap()
    }

    fn known(is_mine: bool) -> Known {
        let by = Some("user:ann".to_owned());
        Known {
            device: device(),
            change: Change::Press,
            at_ms: 1_000,
            within_ms: 5_000,
            hash: None,
            is_mine,
            by,
        }
    }

    fn step(state: CommandState) -> Step {
        Step { state, at_ms: 2_000, reason: state.is_final().then(|| "why".to_owned()) }
    }

    fn id(number: u32) -> CommandId {
        CommandId(u128::from(number).to_be_bytes())
    }

    proptest! {
        #[test]
        fn a_life_only_goes_forward_and_ends_once(steps in prop::collection::vec(0..8_usize, 0..20)) {
            let mut book = Book::default();
            book.insert(id(1), known(true), Instant::now());
            let mut shown = vec![CommandState::Accepted];
            for index in steps {
                if let Some(command) = book.advance(id(1), step(STATES[index])) {
                    prop_assert!(command.state > *shown.last().unwrap() && !shown.last().unwrap().is_final());
                    shown.push(command.state);
                    let life: Vec<_> = command.life.iter().map(|(state, _)| *state).collect();
                    prop_assert_eq!(&life, &shown);
                }
            }
            prop_assert!(shown.iter().filter(|state| state.is_final()).count() <= 1);
            let last = *shown.last().unwrap();
            prop_assert_eq!(book.is_final(id(1)), last.is_final());
            prop_assert_eq!(book.open_of(&device()).is_empty(), last.is_final());
        }

        #[test]
        fn what_another_node_reads_leads_to_the_same_life(steps in prop::collection::vec(1..8_usize, 0..5)) {
            let (mut here, mut there) = (Book::default(), Book::default());
            here.insert(id(1), known(false), Instant::now());
            there.insert(id(1), known(true), Instant::now());
            steps.iter().for_each(|index| drop(here.advance(id(1), step(STATES[*index]))));
            for step in life_from(&here.life_value(id(1)).unwrap()) {
                there.advance(id(1), step);
            }
            prop_assert_eq!(here.get(id(1)), there.get(id(1)));
        }
    }

    #[test]
    fn the_end_that_the_owner_tells_counts_in_whatever_order_both_ends_arrive() {
        use CommandState::{Accepted, Acknowledged, Confirmed, Sent, TimedOut};
        let life: Vec<Step> = [Accepted, Sent, Acknowledged, Confirmed].map(step).into();
        let owner = |book: &mut Book| {
            life.iter().for_each(|step| drop(book.advance(id(1), step.clone())));
            book.adopt_end(id(1), life.clone());
        };
        let taker = |book: &mut Book| drop(book.end(id(1), step(TimedOut)));
        type Arrival<'a> = &'a dyn Fn(&mut Book);
        let orders: [&[Arrival<'_>]; 4] =
            [&[&owner, &taker], &[&taker, &owner], &[&taker, &owner, &taker], &[&owner]];
        for order in orders {
            let mut book = Book::default();
            book.insert(id(1), known(true), Instant::now());
            order.iter().for_each(|arrive| arrive(&mut book));
            let command = book.get(id(1)).unwrap();
            assert_eq!(command.state, Confirmed);
            let states: Vec<_> = command.life.iter().map(|(state, _)| *state).collect();
            assert_eq!(states, [Accepted, Sent, Acknowledged, Confirmed]);
            assert!(book.open_of(&device()).is_empty());
        }
        // What the taker says is told and shown as long as nobody knows better.
        let mut book = Book::default();
        book.insert(id(1), known(false), Instant::now());
        book.advance(id(1), step(Sent)).unwrap();
        assert_eq!(book.end(id(1), step(TimedOut)).unwrap().state, TimedOut);
        assert_eq!(book.end(id(1), step(TimedOut)), None, "it is told once");
        assert_eq!(book.advance(id(1), step(Acknowledged)), None, "an end is not taken back by a step");
        assert_eq!(book.get(id(1)).unwrap().state, TimedOut);
        assert_eq!(book.advance(id(1), step(Confirmed)).unwrap().state, Confirmed);
    }

    #[test]
    fn of_two_owners_that_tell_different_ends_the_one_that_stands_in_the_object_is_believed() {
        use CommandState::{Accepted, Confirmed, Superseded};
        for (heard_first, stands) in [(Confirmed, Superseded), (Superseded, Confirmed)] {
            let mut book = Book::default();
            book.insert(id(1), known(false), Instant::now());
            book.advance(id(1), step(heard_first)).unwrap();
            assert_eq!(book.advance(id(1), step(stands)), None, "an owner ends a command once");
            let life: Vec<Step> = [Accepted, stands].map(step).into();
            assert_eq!(book.adopt_end(id(1), life).unwrap().state, stands);
            assert_eq!(book.adopt_end(id(1), vec![step(Accepted)]), None, "a step is no end");
            assert_eq!(book.get(id(1)).unwrap().state, stands);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_node_that_took_a_command_ends_it_and_not_before_its_time() {
        let mut book = Book::default();
        let start = Instant::now();
        book.insert(id(1), known(true), start);
        book.insert(id(2), known(false), start);
        assert!(book.overdue(start + Duration::from_millis(5_999)).is_empty());
        assert_eq!(book.overdue(start + Duration::from_secs(6)), [id(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn commands_are_forgotten_by_age_and_by_number() {
        let mut book = Book::default();
        let start = Instant::now();
        for number in 0..20_000 {
            book.insert(id(number), known(true), start + Duration::from_millis(number.into()));
        }
        assert_eq!(book.len(), MAX_COMMANDS);
        assert!(book.get(id(9_999)).is_none() && book.get(id(10_000)).is_some());
        assert_eq!(book.open_of(&device()).len(), MAX_COMMANDS);
        book.forget(start + REMEMBER + Duration::from_secs(20));
        assert_eq!(book.len(), 0);
        assert!(book.open.is_empty());
    }

    #[test]
    fn a_request_comes_back_and_garbage_does_not() {
        let change = Change::Switch { on: true };
        let ended = Some(step(CommandState::TimedOut));
        let who = Some("scene:evening by user:ann".to_owned());
        let mut field =
            RequestField { device: device(), change, at: 1, deadline_ms: 5_001, hash: [7; 32], ended, who };
        let value = field.to_value("00000000000000ab");
        assert!(value.encode().is_ok());
        assert_eq!(RequestField::from_value(&value), Some(field.clone()));
        // As an older version writes it.
        field.who = None;
        let value = field.to_value("00000000000000ab");
        assert!(value.get("who").is_none());
        assert_eq!(RequestField::from_value(&value), Some(field));
        assert_eq!(RequestField::from_value(&Value::Null), None);
        let note = map([("device", text("note/x"))]);
        assert_eq!(RequestField::from_value(&note), None);
        assert!(life_from(&Value::List(vec![Value::Null, map([("state", text("flying"))])])).is_empty());
    }
}
