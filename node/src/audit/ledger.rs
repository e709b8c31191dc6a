//! What of all that happens becomes a record: the first of its kind at once, what repeats it
//! within a window as one more record with a count. Pure; time is given.
//!
//! Whoever does very much, and whoever is refused very often, runs out of records of their own; the
//! rest of it is only counted. So no flood fills the rings in an hour or wears out a card.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::entry::{Class, Entry, Record, behind};
use crate::{
    buckets::{Bucket, Buckets, Rate},
    origin::origin,
};

/// How long the same deed of the same one is only counted: a slider moves for seconds.
const DEEDS: Duration = Duration::from_secs(10);
/// The same for what is refused.
const REFUSALS: Duration = Duration::from_secs(60);
/// Windows at once.
const MAX_WINDOWS: usize = 512;
/// Records of one identity: a busy day has some hundred.
const OF_ONE: Rate = Rate { burst: 256.0, a_second: 0.1 };
/// Records of refusals of one address.
const REFUSED_OF_ONE: Rate = Rate { burst: 32.0, a_second: 1.0 / 60.0 };
/// Records of refusals of all addresses together.
const REFUSED_OF_ALL: Rate = Rate { burst: 256.0, a_second: 0.1 };
/// What stands for the deeds that are only counted.
const SEVERAL: &str = "several";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    class: Class,
    who: String,
    from: Option<IpAddr>,
    what: String,
    object: Option<String>,
    outcome: String,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    /// What was counted since the record that opened it, if anything.
    repeats: Option<Record>,
}

/// What was written a moment ago, and how much each may still have written.
#[derive(Debug)]
pub(super) struct Ledger {
    windows: BTreeMap<Key, Window>,
    identities: Buckets<String>,
    addresses: Buckets<Option<IpAddr>>,
    refusals: Bucket,
}

impl Ledger {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            windows: BTreeMap::new(),
            identities: Buckets::new(OF_ONE),
            addresses: Buckets::new(REFUSED_OF_ONE),
            refusals: Bucket::new(REFUSED_OF_ALL, now),
        }
    }

    /// Takes an entry in; answers with the record that is to be written now, if one is.
    pub(super) fn take(&mut self, entry: Entry, now: Instant, at_ms: u64) -> Option<(Class, Record)> {
        let key = Key {
            class: entry.class,
            who: entry.who.clone(),
            from: entry.from.map(origin),
            what: entry.what.clone(),
            object: entry.object.clone(),
            outcome: entry.outcome.clone(),
        };
        if let Some(window) = self.windows.get_mut(&key) {
            count(window, entry.record(at_ms));
            return None;
        }
        let has_room = self.windows.len() < MAX_WINDOWS;
        // What belongs to security is told in any case; where no window has room, so is what repeats it.
        if (has_room || entry.class == Class::Security) && self.may_be_written(&key, now) {
            if has_room {
                self.windows.insert(key, Window { ends: now + lasts(entry.class), repeats: None });
            }
            return Some((entry.class, entry.record(at_ms)));
        }
        self.fold(entry, now, at_ms);
        None
    }

    fn may_be_written(&mut self, key: &Key, now: Instant) -> bool {
        match key.class {
            // Nobody gets here without having been let in to do it.
            Class::Security => true,
            Class::Deed => self.identities.take(&behind(&key.who).to_owned(), now).is_ok(),
            Class::Refused => {
                self.addresses.take(&key.from, now).is_ok() && self.refusals.take(REFUSED_OF_ALL, now).is_ok()
            }
        }
    }

    /// Counts it with the rest of what the same one does; where even those are too many, of everybody.
    fn fold(&mut self, entry: Entry, now: Instant, at_ms: u64) {
        let mut key = Key {
            class: entry.class,
            who: behind(&entry.who).to_owned(),
            from: None,
            what: SEVERAL.to_owned(),
            object: None,
            outcome: String::new(),
        };
        if !self.windows.contains_key(&key) && self.windows.len() >= 2 * MAX_WINDOWS {
            key.who = SEVERAL.to_owned();
        }
        let mut folded = entry.record(at_ms);
        folded.who.clone_from(&key.who);
        SEVERAL.clone_into(&mut folded.what);
        SEVERAL.clone_into(&mut folded.outcome);
        // They may have come from anywhere: the address of the last one would accuse it of all.
        (folded.object, folded.command, folded.from, folded.via) = (None, None, None, None);
        let ends = now + REFUSALS;
        let window = self.windows.entry(key).or_insert(Window { ends, repeats: None });
        count(window, folded);
    }

    /// The records of the windows that have ended.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Class, Record)> {
        self.close(|window| window.ends <= now)
    }

    /// The records of all windows, for the end.
    pub(super) fn all(&mut self) -> Vec<(Class, Record)> {
        self.close(|_| true)
    }

    fn close(&mut self, is_over: impl Fn(&Window) -> bool) -> Vec<(Class, Record)> {
        let closed = self.windows.extract_if(.., |_, window| is_over(window));
        closed.filter_map(|(key, window)| Some((key.class, window.repeats?))).collect()
    }

    /// When the next window ends.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.windows.values().map(|window| window.ends).min()
    }
}

fn lasts(class: Class) -> Duration {
    if class == Class::Refused { REFUSALS } else { DEEDS }
}

fn count(window: &mut Window, newest: Record) {
    let before = window.repeats.take();
    let (count, since) = before
        .map_or((1, newest.at), |before| (before.count.saturating_add(1), before.since.unwrap_or(before.at)));
    let since = (count > 1).then_some(since);
    window.repeats = Some(Record { count, since, ..newest });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn deed(who: &str, object: &str) -> Entry {
        Entry::new(Class::Deed, who, "command", 202).object(Some(object))
    }

    fn refusal(address: [u8; 4]) -> Entry {
        Entry::new(Class::Refused, "nobody", "GET /api/v1/status", 401).from(Some(address.into()), None)
    }

    #[test]
    fn a_slider_is_its_beginning_and_one_count() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let mut written = Vec::new();
        for step in 0..200_u64 {
            let now = start + Duration::from_millis(step * 20);
            let entry = deed("user:ann", "device/lamp").command(Some(&step.to_string()));
            written.extend(ledger.take(entry, now, 1_000 + step));
        }
        assert_eq!(written.len(), 1);
        assert_eq!(ledger.next_due(), Some(start + DEEDS));
        assert!(ledger.due(start + Duration::from_secs(9)).is_empty());
        let (_, counted) = ledger.due(start + DEEDS).pop().unwrap();
        assert_eq!((counted.count, counted.since, counted.at), (199, Some(1_001), 1_199));
        assert_eq!(counted.command.as_deref(), Some("199"), "the last one");
        assert!(ledger.windows.is_empty());
        // One that came twice is told without a span.
        ledger.take(deed("user:ann", "device/lamp"), start, 1);
        ledger.take(deed("user:ann", "device/lamp"), start, 2);
        let (_, second) = ledger.all().pop().unwrap();
        assert_eq!((second.count, second.since), (1, None));
    }

    #[test]
    fn what_differs_in_who_what_or_outcome_is_told_each() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        let entries = [
            deed("user:ann", "device/lamp"),
            deed("user:ben", "device/lamp"),
            deed("user:ann", "device/plug"),
            Entry::new(Class::Deed, "user:ann", "command", 422).object(Some("device/lamp")),
        ];
        let written = entries.into_iter().filter_map(|entry| ledger.take(entry, now, 1)).count();
        assert_eq!(written, 4);
    }

    #[test]
    fn a_flood_of_one_address_costs_little_and_hides_nobody_else() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let mut records = 0;
        for number in 0..100_000_u64 {
            let now = start + Duration::from_millis(number);
            let what = format!("GET /{}", number % 90);
            let entry =
                Entry::new(Class::Refused, "nobody", &what, 401).from(Some([6, 6, 6, 6].into()), None);
            records += usize::from(ledger.take(entry, now, number).is_some());
            records += ledger.due(now).len();
        }
        assert!(records < 140, "{records} records");
        let other = ledger.take(refusal([7, 7, 7, 7]), start + Duration::from_secs(100), 1);
        assert!(other.is_some(), "another address has its own records");
        assert!(ledger.take(deed("user:ann", "device/lamp"), start + Duration::from_secs(100), 1).is_some());
    }

    #[test]
    fn a_flood_of_made_up_addresses_costs_little_too() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let mut records = 0;
        for number in 0..50_000_u32 {
            let now = start + Duration::from_millis(u64::from(number));
            records += usize::from(ledger.take(refusal(number.to_be_bytes()), now, 1).is_some());
            records += ledger.due(now).len();
        }
        assert!(records < 300, "{records} records");
        assert!(ledger.windows.len() <= 2 * MAX_WINDOWS + 3);
        let all: u64 = ledger.all().iter().map(|(_, record)| record.count).sum();
        assert!(all > 40_000, "the rest is counted: {all}");
    }

    #[test]
    fn security_is_told_where_windows_are_full_and_what_is_folded_accuses_no_address() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        for number in 0..1_000_u32 {
            let deed = deed(&format!("token:{number}"), "device/lamp");
            ledger.take(deed.from(Some([10, 0, 0, 1].into()), Some([10, 0, 0, 2].into())), start, 1);
        }
        assert_eq!(ledger.windows.len(), 1_000, "half of them fold");
        for number in 0..300 {
            let entry = Entry::new(Class::Security, "user:ann", "DELETE /api/v1/tokens/{id}", 204);
            assert!(ledger.take(entry.object(Some(&format!("token/{number}"))), start, 1).is_some());
        }
        assert_eq!(ledger.windows.len(), 1_000);
        let folded = ledger.all();
        assert!(folded.iter().all(|(_, record)| record.what == SEVERAL), "{folded:?}");
        assert!(folded.iter().all(|(_, record)| (record.from, record.via) == (None, None)), "{folded:?}");
        assert_eq!(folded.len(), 1_000 - MAX_WINDOWS);
    }

    #[test]
    fn who_does_too_much_is_counted_and_the_others_are_told() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let names: Vec<String> = (0..2_000).map(|number| format!("note/{number}")).collect();
        let written = names.iter().filter_map(|name| ledger.take(deed("token:1", name), start, 1)).count();
        assert_eq!(written, 256);
        assert!(ledger.take(deed("user:ann", "device/lamp"), start, 1).is_some());
        assert_eq!(
            ledger.take(deed("scene:x by token:1", "device/lamp"), start, 1),
            None,
            "it is the same one"
        );
        let rest: Vec<_> = ledger.all();
        assert_eq!(rest.len(), 1);
        assert_eq!((rest[0].1.who.as_str(), rest[0].1.what.as_str()), ("token:1", SEVERAL));
        assert_eq!(rest[0].1.count, 2_000 - 256 + 1);
        let security = Entry::new(Class::Security, "token:1", "POST /api/v1/tokens", 200);
        assert!(ledger.take(security, start, 1).is_some(), "that is always told");
    }
}
