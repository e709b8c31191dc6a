//! This node's own writes, the batches for the store, and the clock that was wrong.

use alloc::{collections::BTreeSet, string::ToString, vec::Vec};

use super::{Event, Mesh, Op, REMOTE_FLUSH_MS, WriteError};
use crate::{
    commit::{MAX_WAITING, WriteToken},
    counters::Counter,
    hlc::{Hlc, MAX_AHEAD_MS},
    id::{Dot, FieldName, Key, ObjectId, Origin},
    kinds::{self, Author, CLOSED_PREFIX, Durability},
    merge::{Bytes, Entry},
    overlay::{Offered, OverlayEntry, Run},
    planted::planted,
    record::{self, Item},
    replica::Applied,
    session::Link,
    time::{Now, TimeKeeper},
    value::Value,
    view,
    wire::Message,
};

/// Most changes in one write request.
pub(super) const MAX_OPS: usize = 1_024;
/// Writes of peers that wait for a flush before it is hastened.
const MAX_UNFLUSHED: usize = 512;

impl Mesh {
    /// Writes. The token comes back as [`Event::Written`] when every `config` field among the
    /// changes is durable; `state` and `presence` fields are visible at once.
    ///
    /// # Errors
    /// [`WriteError`]; nothing has changed.
    pub fn write(&mut self, now: Now, author: Author, ops: Vec<Op>) -> Result<WriteToken, WriteError> {
        self.now = now;
        let writes = self.check(author, ops)?;
        self.last_token += 1;
        let token = WriteToken(self.last_token);
        let stamp = self.time.issue(now);
        let mut config = false;
        for (key, value) in writes {
            match kinds::durability(&key) {
                Durability::Config => {
                    config = true;
                    self.commits.queue(key, stamp, value, now.mono_ms, Some(token));
                }
                Durability::State | Durability::Measured => {
                    let within_ms = kinds::flush_within_ms(&key) - 500;
                    // What has no room in the overlay is seen once it is flushed: at once, then.
                    let is_said = self.say(&key, stamp, value.clone());
                    let due = now.mono_ms + if is_said { within_ms } else { 0 };
                    self.commits.queue(key, stamp, value, due, None);
                }
                Durability::Presence => {
                    self.say(&key, stamp, value);
                }
            }
        }
        if !config {
            self.events.push_back(Event::Written(token));
        }
        self.settle();
        Ok(token)
    }

    fn check(&self, author: Author, ops: Vec<Op>) -> Result<Vec<(Key, Bytes)>, WriteError> {
        if ops.len() > MAX_OPS {
            return Err(WriteError::TooMany(ops.len()));
        }
        if self.commits.len() + ops.len() > MAX_WAITING {
            return Err(WriteError::Overloaded);
        }
        let me = self.id.short();
        let writes: Vec<(Key, Bytes)> = ops
            .into_iter()
            .map(|op| {
                let (key, value) = match op {
                    Op::Set(key, _) if key.field.is_object() => {
                        return Err(WriteError::Forbidden(key.object, key.field.to_string()));
                    }
                    Op::Set(key, value) => match value.encode() {
                        Ok(bytes) => (key, Some(bytes)),
                        Err(error) => {
                            return Err(WriteError::Value(key.object, key.field.to_string(), error));
                        }
                    },
                    Op::Unset(key) => (key, None),
                    Op::Delete(object) => (Key { object, field: FieldName::object() }, None),
                };
                if kinds::may_author(&key, author, me) {
                    Ok((key, value))
                } else {
                    Err(WriteError::Forbidden(key.object, key.field.to_string()))
                }
            })
            .collect::<Result<_, _>>()?;
        // These are nowhere but in the overlay.
        let presence = writes.iter().filter(|(key, _)| kinds::durability(key) == Durability::Presence);
        let growth = presence.map(|(key, value)| self.overlay.growth(key, me, value)).sum();
        if self.overlay.has_room(me, growth) { Ok(writes) } else { Err(WriteError::Overloaded) }
    }

    /// Puts a value into the overlay and on its way to the peers. Returns whether there was room for it.
    fn say(&mut self, key: &Key, stamp: Hlc, value: Bytes) -> bool {
        let writer = self.id.short();
        let entry = OverlayEntry { stamp, writer, run: self.run, value };
        let floor = view::floor(&self.replica, key);
        // What a node says itself counts at once, however far its stamps run ahead.
        let time_ms = self.time_ms().max(stamp.ms());
        let offered = self.overlay.offer(time_ms, key, entry, floor);
        match offered {
            Offered::New => {
                self.changed.insert(key.object.clone());
                self.announce(key);
            }
            Offered::Full => self.counters.bump(Counter::OverlayFull),
            _ => {}
        }
        offered != Offered::Full
    }

    /// Puts what this node has in the overlay on its way to the peers.
    fn announce(&mut self, key: &Key) {
        let writer = self.id.short();
        self.links.values_mut().filter(|l| l.is_live()).for_each(|l| l.outbox.overlay(key, writer));
    }

    /// Gives the store its next batch, if it is idle and something is due.
    pub(super) fn commit_due(&mut self) {
        let now = self.now.mono_ms;
        if self.commits.is_busy() || self.closing.is_some() {
            return;
        }
        if self.replica.is_dirty() && self.flush_due_ms.is_none() {
            self.flush_due_ms = Some(now + REMOTE_FLUSH_MS);
        }
        let own_due = self.commits.next_due().is_some_and(|due| due <= now);
        let flush_due = self.flush_due_ms.is_some_and(|due| due <= now);
        if own_due || flush_due || self.replica.dirty_registers() > MAX_UNFLUSHED {
            self.begin_batch();
        }
    }

    fn begin_batch(&mut self) {
        let (time_ms, origin) = (self.time_ms(), self.origin());
        if self.replica.applied().is_used_up(origin) {
            // A peer's claims, or the store's, left no numbers: own writes wait for the next generation.
            return self.close_generation();
        }
        self.flush_due_ms = None;
        let head = self.replica.applied().head(origin);
        let (writes, tokens) = self.commits.take_due(self.now.mono_ms, origin, head);
        let mut own = Vec::new();
        for (key, entry) in writes {
            let (dot, stamp) = (entry.dot, entry.stamp);
            let item = Item { key: key.clone(), entry, covers: Vec::new() };
            match self.replica.apply(time_ms.max(stamp.ms()), item) {
                Applied::Won => self.settle_overlay(&key, stamp),
                outcome => debug_assert_eq!(outcome, Applied::Lost, "{key:?} {dot:?}"),
            }
            self.changed.insert(key.object.clone());
            own.push((key, dot));
        }
        let keys: Vec<Key> = own.iter().map(|(key, _)| key.clone()).collect();
        let (mut records, covered) = self.replica.take_batch(&keys, origin);
        let restored = self.completes_restore();
        if records.is_empty() && restored.is_none() {
            return;
        }
        if restored.is_some() {
            self.known_since = self.run.generation;
            records.puts.push(record::known_since(self.known_since));
        }
        let is_restored = restored.is_some();
        own.extend(restored.into_iter().flatten());
        records.puts.push(record::ceiling(self.time.last()));
        if planted!(self.plant, AdvertiseBeforeFlush) {
            self.push_own(&own);
        }
        let batch = self.commits.begin(covered, own, tokens);
        if is_restored {
            self.restored_with(batch);
        }
        self.events.push_back(Event::Persist { batch, records });
    }

    /// What the peers are told this node accounts for: only what is flushed.
    pub(super) fn advertised(&self) -> &crate::vector::Vector {
        if planted!(self.plant, AdvertiseBeforeFlush) {
            return self.replica.applied();
        }
        self.commits.durable()
    }

    pub(super) fn persisted(&mut self, batch: u64) {
        let Some(flushed) = self.commits.flushed(batch) else { return };
        self.push_own(&flushed.own);
        self.end_restore(batch);
        self.events.extend(flushed.tokens.into_iter().map(Event::Written));
        self.pay_owed_acks();
        self.finish_answers();
        self.tell_what_was_fetched();
    }

    fn push_own(&mut self, own: &[(Key, Dot)]) {
        for (key, dot) in own {
            self.note_live(*dot);
            for link in self.links.values_mut().filter(|link| link.is_live()) {
                link.outbox.write(key, *dot);
            }
        }
    }

    /// Drops the overlay entries that a durable write makes obsolete.
    pub(super) fn settle_overlay(&mut self, key: &Key, stamp: Hlc) {
        if key.field.is_object() {
            let fields: Vec<Key> = self.overlay.fields_of(&key.object).cloned().collect();
            fields.iter().for_each(|field| self.overlay.settle(field, stamp));
        } else {
            self.overlay.settle(key, stamp);
        }
    }

    /// Drops the overlay entries that a state which replaced another makes obsolete.
    pub(super) fn settle_all(&mut self) {
        let keys: Vec<Key> = self.overlay.iter().map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.overlay.settle(key, view::floor(&self.replica, key)));
    }

    /// Stamps that run ahead of every clock in reach are of no use: close the generation.
    pub(super) fn correct_clock_if_ahead(&mut self) {
        if !self.is_closing_generation() && self.are_stamps_ahead() {
            self.close_generation();
        }
    }

    /// Whether peers hold this node's writes back. Alone there is nobody who does.
    fn are_stamps_ahead(&self) -> bool {
        self.time.is_ahead_of(self.latest_time_ms()) && self.links.values().any(Link::is_live)
    }

    /// The latest time of day of this node and of the trusted peers: what is stamped later took effect on none of
    /// them. A clock that stepped back wrongly therefore makes nothing void that the others show.
    fn latest_time_ms(&self) -> u64 {
        let peers = self.links.values().filter_map(|link| link.peer.as_ref());
        let trusted = peers.filter(|peer| peer.time.is_trusted()).map(|peer| peer.time_ms(self.now));
        trusted.fold(self.time_ms(), u64::max)
    }

    /// Whether a new generation waits to be persisted.
    pub(super) fn is_closing_generation(&self) -> bool {
        self.closing.is_some_and(|run| run.generation != self.run.generation)
    }

    /// The generation that waits to be persisted, 0 if none does.
    pub(super) fn closing_generation(&self) -> u32 {
        self.closing.map_or(0, |run| run.generation)
    }

    /// Opens the generation after the highest that this node knows of.
    pub(super) fn close_generation(&mut self) {
        let known = self.replica.applied().highest_generation(self.id.short());
        match known.max(self.run.generation).checked_add(1) {
            Some(generation) => self.open_run(Run { generation, ..self.run }),
            None => {
                // No generation is left: this key can write no more.
                self.counters.bump(Counter::BadValue);
                self.closing.get_or_insert(self.run);
            }
        }
    }

    /// Asks for a new run to be persisted; until it is, nothing of this node's own gets a dot.
    pub(super) fn open_run(&mut self, run: Run) {
        let asked = self.closing.unwrap_or(run);
        let run = Run {
            incarnation: run.incarnation.max(asked.incarnation),
            generation: run.generation.max(asked.generation),
        };
        self.closing = Some(run);
        let mark = self.restore.as_ref().map(|restore| restore.since);
        self.events.push_back(Event::PersistRun(run, mark));
    }

    pub(super) fn run_persisted(&mut self, run: Run) {
        if self.closing == Some(run) {
            self.persisted_run = Some(run);
        }
    }

    /// Begins the run that is persisted, once no batch of the old one is at the store: a report in
    /// the new run says that the old generation is complete. What the old one wrote after the
    /// corrected time is void, and is written again with stamps of the corrected clock.
    pub(super) fn begin_run(&mut self) {
        if self.commits.is_busy() {
            return;
        }
        let Some(run) = self.persisted_run.take() else { return };
        if self.closing.take_if(|closing| *closing == run).is_none() {
            return;
        }
        let ahead = self.are_stamps_ahead();
        let old = core::mem::replace(&mut self.run, run);
        if ahead {
            self.rewrite(old);
        }
        // A peer believes a leap of generations from the node itself only.
        let hello = Message::Hello(self.hello());
        self.tell_open_links(&hello);
        self.repeat_overlay(old);
        if self.is_restoring() {
            self.report();
        }
    }

    /// Sets the stamps back, closes the old generations, and writes again in the old order what became void. All of
    /// it goes to the store in one batch, if that is not too large: a crash leaves everything as it was or as it is to
    /// be.
    fn rewrite(&mut self, old: Run) {
        self.counters.bump(Counter::ClockCorrections);
        self.events.push_back(Event::ClockCorrected(self.time_ms()));
        let (me, latest_ms) = (self.id.short(), self.latest_time_ms());
        let closed = TimeKeeper::closing(latest_ms);
        // What an older store wrote before it was set back is not this run's to write again.
        let since = self.restore.as_ref().map_or(0, |restore| restore.since);
        let is_own = |origin: Origin| origin.node == me && origin.generation >= since;
        let is_void = |entry: &Entry| is_own(entry.dot.origin) && entry.stamp > closed;
        // Above all that is in effect, so that what is written again still beats what it had beaten.
        let in_effect = |entry: &Entry| entry.stamp.ms() <= latest_ms + MAX_AHEAD_MS && !is_void(entry);
        let highest = self.replica.highest_stamp(in_effect);
        self.time.reset(highest.map_or(closed, |highest| highest.max(closed)));
        let again = self.entries_where(is_void);
        // All that are listed: peers may hold back writes of a generation of which nothing is live here.
        let listed = self.replica.applied().generations(me).map(|(origin, _)| origin);
        let to_close: BTreeSet<Origin> = listed
            .chain([Origin { node: me, generation: old.generation }])
            .filter(|origin| is_own(*origin) && origin.generation <= old.generation)
            .filter(|origin| self.replica.closed_after(*origin).is_none_or(|after| after > closed))
            .collect();
        for origin in &to_close {
            self.close_one(origin.generation, closed);
        }
        let is_closed_anew =
            |key: &Key| to_close.iter().any(|o| kinds::closed_generation(key) == Some(o.generation));
        for (key, entry) in again.into_iter().filter(|(key, _)| !is_closed_anew(key)) {
            let stamp = self.time.issue(self.now);
            // Still under their old stamps: what was written later to the same register stays.
            let waiting = self.commits.waiting_stamp(&key);
            if waiting.is_none_or(|waiting| waiting < entry.stamp) {
                self.commits.replace(key, stamp, entry.value, self.now.mono_ms);
            }
        }
        let (time, now) = (&mut self.time, self.now);
        self.commits.restamp(closed, || time.issue(now));
        self.commits.hasten_undivided(now.mono_ms);
        let held_back = self.replica.hold_back(self.time_ms(), me);
        self.changed.extend(held_back.into_iter().map(|key| key.object));
        self.schedule_release();
        if self.replica.take_unapplied() {
            self.suspect_tree();
        }
    }

    fn close_one(&mut self, generation: u32, closed: Hlc) {
        let me = self.id.short().to_string();
        let object = ObjectId::new(&alloc::format!("node/{me}"));
        let field = FieldName::new(&alloc::format!("{CLOSED_PREFIX}{generation}"));
        let bits = i64::try_from(closed.to_bits()).unwrap_or(i64::MAX);
        if let (Ok(object), Ok(field), Ok(value)) = (object, field, Value::from(bits).encode()) {
            let stamp = self.time.issue(self.now);
            self.commits.queue(Key { object, field }, stamp, Some(value), self.now.mono_ms, None);
        }
    }

    /// The registers whose entries are such, in order of their stamps.
    fn entries_where(&self, is_such: impl Fn(&Entry) -> bool) -> Vec<(Key, Entry)> {
        let held = self
            .replica
            .objects()
            .iter()
            .flat_map(|(object, held)| held.entries().map(move |(field, entry)| (object, field, entry)));
        let key = |object: &ObjectId, field: &FieldName| Key { object: object.clone(), field: field.clone() };
        let mut found: Vec<(Key, Entry)> = held
            .filter(|(_, _, entry)| is_such(entry))
            .map(|(object, field, entry)| (key(object, field), entry.clone()))
            .collect();
        found.sort_by_key(|(_, entry)| entry.stamp);
        found
    }

    /// Says again, in the present run, what this node had in the overlay. The stamps stay, lest it
    /// beats what others said meanwhile; only those that peers refuse as too far ahead are new.
    pub(super) fn repeat_overlay(&mut self, old: Run) {
        let me = self.id.short();
        let own: Vec<(Key, OverlayEntry)> = self
            .overlay
            .iter()
            .filter(|(_, entry)| entry.writer == me && entry.run <= old)
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect();
        let changed = self.overlay.begin(me, self.run);
        self.mark_changed(changed);
        let latest = self.time_ms().saturating_add(MAX_AHEAD_MS);
        for (key, entry) in own {
            let is_ahead = entry.stamp.ms() > latest;
            let stamp = if is_ahead { self.time.issue(self.now) } else { entry.stamp };
            self.say(&key, stamp, entry.value.clone());
            self.announce(&key);
            if matches!(kinds::durability(&key), Durability::State | Durability::Measured) {
                self.commits.queue(key, stamp, entry.value, self.now.mono_ms, None);
            }
        }
    }
}
