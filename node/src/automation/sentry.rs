//! The triggers of an automation: from what changes in the home to what starts it. Pure.
//!
//! Every node watches alike, and what started an automation has an id that is made of what changed and when it was written, so that the
//! node that takes over from a dead one knows which starts it has seen and nobody acted upon.

use std::{collections::BTreeMap, time::Duration};

use device_adapters::schedule::{Home, Occurrence, Rule, When};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json, json};

use super::{
    program::{Source, Trigger},
    world::{Devices, Fact, lies, same},
};

/// What started an automation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Firing {
    /// Alike on every node that saw the same.
    pub(crate) id: u64,
    /// Which of its triggers.
    pub(crate) trigger: usize,
    pub(crate) at: Timestamp,
    /// Why, for people.
    pub(crate) why: String,
    /// What expressions see as `trigger`.
    pub(crate) data: Json,
}

/// An event that was heard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard<'e> {
    /// Its object's name, which no other has.
    pub(crate) id: &'e str,
    pub(crate) topic: &'e str,
    pub(crate) data: &'e Json,
    pub(crate) at: Timestamp,
}

/// The watch over the triggers of one automation.
#[derive(Debug, Default)]
pub(crate) struct Sentry {
    /// What each trigger saw last of what it watches.
    seen: BTreeMap<usize, Seen>,
    /// What is so and must stay so for a while.
    held: BTreeMap<usize, Held>,
    /// Up to when times were looked for, and when the first one comes after that.
    looked: Option<(Timestamp, Timestamp)>,
    /// Why a time cannot be known, such as a home without a place.
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Seen {
    fact: Fact,
    fits: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Held {
    since: Timestamp,
    hold: SignedDuration,
    firing: Firing,
}

impl Held {
    fn until(&self) -> Timestamp {
        self.since.checked_add(self.hold).unwrap_or(Timestamp::MAX)
    }
}

impl Sentry {
    /// Looks at the devices; what has started the automation since. Where something was not seen before, that it is so starts nothing.
    pub(crate) fn look(&mut self, name: &str, triggers: &[Trigger], devices: &Devices) -> Vec<Firing> {
        let mut fired = Vec::new();
        for (index, trigger) in triggers.iter().enumerate() {
            let Some((what, hold)) = watched(trigger) else { continue };
            // What nobody knows at present is as it was: a device that is back says no news by that.
            let Ok(Some(fact)) = devices.fact(&what) else { continue };
            fired.extend(self.see(name, index, trigger, &what, hold, fact));
        }
        fired
    }

    fn see(
        &mut self,
        name: &str,
        index: usize,
        trigger: &Trigger,
        what: &Source,
        hold: Duration,
        fact: &Fact,
    ) -> Option<Firing> {
        let now = Seen { fact: fact.clone(), fits: fits(trigger, &fact.value) };
        let before = self.seen.insert(index, now.clone());
        if !now.fits {
            self.held.remove(&index);
            return None;
        }
        let begins = before.as_ref().is_some_and(|before| begins(trigger, before, &now));
        let firing = || Firing {
            id: id(name, index, fact.at_ms, &fact.by),
            trigger: index,
            at: moment(fact.at_ms),
            why: format!("{}: {} is {}", what.device, what.of, fact.value),
            data: json!({
                "kind": kind(trigger), "device": what.device, "of": what.of, "to": fact.value,
                "from": before.as_ref().map(|before| &before.fact.value),
            }),
        };
        if hold.is_zero() {
            return begins.then(firing);
        }
        // What was so already when this node was started is held since it was reported last.
        if begins || before.is_none() {
            let hold = SignedDuration::try_from(hold).unwrap_or(SignedDuration::MAX);
            self.held.insert(index, Held { since: moment(fact.at_ms), hold, firing: firing() });
        }
        None
    }

    /// What has stayed so for long enough. Nothing is so since a moment that is yet to come: a clock that was ahead said that.
    pub(crate) fn ripe(&mut self, now: Timestamp) -> Vec<Firing> {
        self.held.values_mut().for_each(|held| held.since = held.since.min(now));
        let ripe = self.held.extract_if(.., |_, held| held.until() <= now);
        ripe.map(|(_, held)| Firing { at: held.until(), ..held.firing }).collect()
    }

    /// Looks at the clock: the latest time of each trigger that has come since it was looked last.
    pub(crate) fn look_at_clock(
        &mut self,
        name: &str,
        triggers: &[Trigger],
        home: &Home,
        now: Timestamp,
    ) -> Vec<Firing> {
        let looked = self.looked.filter(|(since, _)| *since <= now);
        if looked.is_some_and(|(_, next)| now < next) {
            return Vec::new();
        }
        let since = looked.map_or(now, |(since, _)| since);
        let (mut fired, mut next, mut problems) = (Vec::new(), Timestamp::MAX, Vec::new());
        for (index, trigger) in triggers.iter().enumerate() {
            let Trigger::At(rule) = trigger else { continue };
            match rule.last(since, now, home).and_then(|due| Ok((due, rule.next(now, home)?))) {
                Ok((due, coming)) => {
                    fired.extend(due.map(|due| at_time(name, index, rule, &due)));
                    match coming {
                        Some(coming) => next = next.min(coming.at),
                        // A moment that has passed is none.
                        None if matches!(rule.when, When::Local(_) | When::Instant(_)) => {}
                        None => problems.extend(rule.check(now, home).err()),
                    }
                }
                Err(rule) => problems.push(rule),
            }
        }
        self.problem = problems.first().map(ToString::to_string);
        self.looked = Some((now, next));
        fired
    }

    /// When something is due next by the clock.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let held = self.held.values().map(Held::until);
        held.chain(self.looked.map(|(_, next)| next)).min()
    }

    /// The home is another one: its times come at other moments.
    pub(crate) fn look_anew(&mut self) {
        self.looked = None;
    }

    /// The clock was set by so much: what must stay so for a length of time must do so no longer and no shorter.
    pub(crate) fn shift(&mut self, by: SignedDuration) {
        for held in self.held.values_mut() {
            held.since = held.since.checked_add(by).unwrap_or(held.since);
        }
    }
}

fn at_time(name: &str, index: usize, rule: &Rule, due: &Occurrence) -> Firing {
    Firing {
        id: id(name, index, u64::try_from(due.at.as_millisecond()).unwrap_or(0), ""),
        trigger: index,
        at: due.at,
        why: format!("{}: {}", rule.when, due.why),
        data: json!({"kind": "at", "at": format!("{:.0}", due.at)}),
    }
}

/// Whether an event starts it, and how.
pub(crate) fn hear(name: &str, triggers: &[Trigger], heard: Heard<'_>) -> Option<Firing> {
    let takes = |trigger: &Trigger| match trigger {
        Trigger::Event { topic, data } => topic.takes(heard.topic) && holds_all(heard.data, data),
        _ => false,
    };
    let index = triggers.iter().position(takes)?;
    Some(Firing {
        id: id(name, index, 0, heard.id),
        trigger: index,
        at: heard.at,
        why: format!("event {}", heard.topic),
        data: json!({"kind": "event", "topic": heard.topic, "data": heard.data}),
    })
}

/// Why one of some triggers can start nothing: there is no device of that name, or it has no such thing.
pub(crate) fn misses(triggers: &[Trigger], devices: &Devices) -> Option<String> {
    triggers.iter().filter_map(watched).find_map(|(what, _)| devices.lacks(&what))
}

/// What a trigger watches, and for how long it must stay so.
fn watched(trigger: &Trigger) -> Option<(Source, Duration)> {
    match trigger {
        Trigger::State { what, hold, .. } | Trigger::Number { what, hold, .. } => Some((what.clone(), *hold)),
        Trigger::Offline { device, hold } => {
            Some((Source { device: device.clone(), of: "availability".to_owned() }, *hold))
        }
        Trigger::Event { .. } | Trigger::At(_) | Trigger::Webhook => None,
    }
}

fn kind(trigger: &Trigger) -> &'static str {
    match trigger {
        Trigger::State { .. } => "state",
        Trigger::Number { .. } => "number",
        Trigger::Offline { .. } => "offline",
        Trigger::Event { .. } => "event",
        Trigger::At(_) => "at",
        Trigger::Webhook => "webhook",
    }
}

/// Whether a value is as the trigger wants it.
fn fits(trigger: &Trigger, value: &Json) -> bool {
    match trigger {
        Trigger::State { to, .. } => to.as_ref().is_none_or(|to| same(value, to)),
        Trigger::Number { bounds, .. } => lies(value, *bounds),
        Trigger::Offline { .. } => value != "online",
        Trigger::Event { .. } | Trigger::At(_) | Trigger::Webhook => false,
    }
}

/// Whether what fits now did not before. A number that moves within its bounds, and a device that is offline for another reason,
/// begin nothing.
fn begins(trigger: &Trigger, before: &Seen, now: &Seen) -> bool {
    match trigger {
        Trigger::State { from, .. } => {
            let is_news = !same(&before.fact.value, &now.fact.value) || before.fact.turn != now.fact.turn;
            is_news && from.as_ref().is_none_or(|from| same(&before.fact.value, from))
        }
        _ => !before.fits,
    }
}

/// Whether the data of an event holds all of these members.
fn holds_all(data: &Json, wanted: &Map<String, Json>) -> bool {
    wanted.iter().all(|(name, value)| data.get(name).is_some_and(|given| same(given, value)))
}

fn moment(ms: u64) -> Timestamp {
    i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default()
}

/// An id that every node makes alike.
pub(super) fn id(name: &str, trigger: usize, at_ms: u64, by: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in [name.as_bytes(), by.as_bytes()] {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part);
    }
    hasher.update(&u64::try_from(trigger).unwrap_or(u64::MAX).to_be_bytes());
    hasher.update(&at_ms.to_be_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    // A value holds numbers up to this.
    u64::from_be_bytes(bytes) >> 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use device_adapters::schedule::zone;

    use super::*;
    use crate::automation::{program::ProgramText, world::Device};

    fn triggers(triggers: Json) -> Vec<Trigger> {
        let text = json!({"triggers": triggers, "actions": [{"delay": "1s"}]});
        serde_json::from_value::<ProgramText>(text).unwrap().parse().unwrap().triggers
    }

    fn second(at: u64) -> Timestamp {
        moment(1_800_000_000_000 + at * 1_000)
    }

    /// A home with one device, of which one thing is known.
    fn home(of: &str, value: Json, turn: u64, at: u64) -> Devices {
        let at_ms = 1_800_000_000_000 + at * 1_000;
        let fact = Fact { value, turn, at_ms, by: "a".to_owned() };
        let mut device = Device::default();
        device.facts.insert(of.to_owned(), fact);
        let mut devices = Devices::default();
        devices.insert("x", device);
        devices
    }

    fn look(sentry: &mut Sentry, triggers: &[Trigger], devices: &Devices, now: Timestamp) -> Vec<Firing> {
        let mut fired = sentry.look("one", triggers, devices);
        fired.extend(sentry.ripe(now));
        fired
    }

    /// What fired as something took these values, one a second.
    fn fired(trigger: Json, of: &str, values: &[Json]) -> Vec<usize> {
        let (mut sentry, triggers) = (Sentry::default(), triggers(json!([trigger])));
        let mut look_at = |(at, value): (usize, &Json)| {
            let at = u64::try_from(at).unwrap();
            look(&mut sentry, &triggers, &home(of, value.clone(), 0, at), second(at)).len()
        };
        values.iter().enumerate().filter_map(|each| (look_at(each) > 0).then_some(each.0)).collect()
    }

    #[test]
    fn a_state_starts_it_when_it_becomes_so_and_not_when_it_is_so_at_first() {
        let values = [json!(true), json!(true), json!(false), json!(true), json!(true)];
        assert_eq!(fired(json!({"state": "x", "to": true}), "on", &values), [3]);
        assert_eq!(fired(json!({"state": "x"}), "on", &values), [2, 3]);
        assert_eq!(fired(json!({"state": "x", "from": true, "to": false}), "on", &values), [2]);
        assert_eq!(fired(json!({"state": "x", "from": "a", "to": false}), "on", &values), [0; 0]);
        let away = [json!("online"), json!("offline"), json!("stale"), json!("online"), json!("stale")];
        assert_eq!(fired(json!({"offline": "x"}), "availability", &away), [1, 4]);
    }

    #[test]
    fn a_number_starts_it_when_it_crosses_the_bound() {
        let values = [4.0, 5.0, 6.0, 7.0, 5.0, 6.0].map(|number| json!(number));
        assert_eq!(fired(json!({"number": "x", "of": "t", "above": 5}), "t", &values), [2, 5]);
        assert_eq!(fired(json!({"number": "x", "of": "t", "above": 4, "below": 6}), "t", &values), [1, 4]);
    }

    #[test]
    fn a_button_that_is_pressed_the_same_way_again_starts_it_again() {
        let (mut sentry, triggers) =
            (Sentry::default(), triggers(json!([{"state": "x", "of": "event", "to": "press"}])));
        let mut press = |turn, at| {
            look(&mut sentry, &triggers, &home("event", json!("press"), turn, at), second(at)).len()
        };
        assert_eq!([press(1, 0), press(1, 1), press(2, 2), press(3, 3)], [0, 0, 1, 1]);
    }

    #[test]
    fn what_must_stay_so_is_waited_for_also_by_a_node_that_is_started_anew() {
        let triggers = triggers(json!([{"state": "x", "to": true, "for": "10s"}]));
        let so = |value: bool, at| home("on", json!(value), 0, at);
        let mut sentry = Sentry::default();
        let mut look_at = |devices: &Devices, now| look(&mut sentry, &triggers, devices, second(now));
        assert!(look_at(&so(false, 0), 0).is_empty());
        assert!(look_at(&so(true, 5), 5).is_empty());
        assert!(look_at(&so(false, 8), 8).is_empty(), "it was not so for long enough");
        assert!(look_at(&so(true, 20), 20).is_empty());
        assert!(look_at(&so(true, 20), 29).is_empty());
        let fired = look_at(&so(true, 20), 30);
        assert_eq!((fired.len(), fired[0].at), (1, second(30)));
        assert!(look_at(&so(true, 20), 40).is_empty(), "once");
        let mut anew = Sentry::default();
        assert!(look(&mut anew, &triggers, &so(true, 20), second(25)).is_empty());
        let again = look(&mut anew, &triggers, &so(true, 20), second(31));
        assert_eq!((again[0].id, again[0].at), (fired[0].id, fired[0].at));
    }

    #[test]
    fn what_a_clock_wrote_that_was_ahead_is_waited_for_no_longer_than_what_is_new() {
        let triggers = triggers(json!([{"state": "x", "to": true, "for": "10s"}]));
        let so = |value: bool, at| home("on", json!(value), 0, at);
        let mut anew = Sentry::default();
        let mut look_at = |devices: &Devices, now| look(&mut anew, &triggers, devices, second(now)).len();
        assert_eq!([20, 29].map(|now| look_at(&so(true, 7_200), now)), [0, 0]);
        assert_eq!(look_at(&so(true, 7_200), 30), 1);
        // And what becomes so while the stamps are still ahead.
        assert_eq!(look_at(&so(false, 7_201), 40), 0);
        assert_eq!([50, 59].map(|now| look_at(&so(true, 7_202), now)), [0, 0]);
        assert_eq!(look_at(&so(true, 7_202), 60), 1);
    }

    #[test]
    fn times_and_events_start_it() {
        let triggers =
            triggers(json!([{"at": "cron 0 12 * * *"}, {"event": "bell*", "data": {"side": "front"}}]));
        let home = Home { zone: zone("UTC").unwrap(), place: None };
        let at = |text: &str| format!("2026-06-01T{text}Z").parse::<Timestamp>().unwrap();
        let mut sentry = Sentry::default();
        let mut look = |time: &str| sentry.look_at_clock("one", &triggers, &home, at(time));
        assert!(look("11:59:00").is_empty());
        let fired = look("12:00:01");
        assert_eq!((fired.len(), fired[0].at, fired[0].trigger), (1, at("12:00:00"), 0));
        assert!(look("12:00:02").is_empty());
        assert!(look("11:00:00").is_empty(), "the clock went back");
        assert_eq!(look("12:30:00")[0].id, fired[0].id, "and shows it again: the same occurrence");
        assert_eq!(sentry.due(), Some(at("12:00:00") + SignedDuration::from_hours(24)));
        let hear = |topic: &str, side: &str| {
            let data = json!({"side": side, "count": 2});
            hear("one", &triggers, Heard { id: "bell:1", topic, data: &data, at: at("13:00:00") })
        };
        assert_eq!(hear("bell.door", "front").unwrap().data["data"]["count"], 2);
        assert!(hear("bell.door", "back").is_none() && hear("door", "front").is_none());
    }

    #[test]
    fn a_time_that_cannot_be_known_holds_up_no_other() {
        let triggers =
            triggers(json!([{"at": "sunset"}, {"at": "cron 0 12 * * *"}, {"at": "cron 0 0 30 2 *"}]));
        let mut home = Home { zone: zone("UTC").unwrap(), place: None };
        let at = |text: &str| format!("2026-06-01T{text}Z").parse::<Timestamp>().unwrap();
        let mut sentry = Sentry::default();
        assert!(sentry.look_at_clock("one", &triggers, &home, at("11:59:00")).is_empty());
        assert_eq!(sentry.look_at_clock("one", &triggers, &home, at("12:00:00")).len(), 1);
        assert!(sentry.look_at_clock("one", &triggers, &home, at("12:00:01")).is_empty());
        assert!(sentry.problem.as_ref().unwrap().contains("place"));
        home.place = device_adapters::schedule::Place::new(52.5, 13.4);
        sentry.look_anew();
        assert!(sentry.look_at_clock("one", &triggers, &home, at("12:00:02")).is_empty());
        assert!(sentry.due().unwrap() < at("23:59:00"), "{:?}", sentry.due());
        assert!(sentry.problem.as_ref().unwrap().contains("never comes"), "{:?}", sentry.problem);
    }

    #[test]
    fn a_moment_that_has_passed_is_no_problem() {
        let triggers = triggers(json!([{"at": "at 2026-05-01 12:00"}]));
        let home = Home { zone: zone("UTC").unwrap(), place: None };
        let mut sentry = Sentry::default();
        let now = "2026-06-01T12:00:00Z".parse().unwrap();
        assert!(sentry.look_at_clock("one", &triggers, &home, now).is_empty());
        assert_eq!(sentry.problem, None);
    }

    #[test]
    fn a_trigger_that_can_start_nothing_is_told() {
        let mut devices = home("power1", json!(3), 0, 0);
        let told = |trigger: Json, devices: &Devices| misses(&triggers(json!([trigger])), devices);
        let power = || json!({"number": "x", "of": "power", "above": 90});
        assert_eq!(told(json!({"state": "y"}), &devices).unwrap(), "there is no device `y`");
        assert_eq!(told(power(), &devices), None, "whatever it shows, it may be away");
        let mut device = Device::default();
        for (of, value) in [("availability", json!("online")), ("power1", json!(3))] {
            device.facts.insert(of.to_owned(), Fact { value, turn: 0, at_ms: 0, by: String::new() });
        }
        devices.insert("x", device);
        let reason = "`x` shows no `power` at present: it shows `availability`, `power1`";
        assert_eq!(told(power(), &devices).unwrap(), reason);
        for fine in [json!({"number": "x", "of": "power1", "above": 1}), json!({"state": "x", "of": "event"})]
        {
            assert_eq!(told(fine.clone(), &devices), None, "{fine}");
        }
        for fine in [json!({"offline": "x"}), json!({"event": "x"}), json!({"at": "sunset"})] {
            assert_eq!(told(fine.clone(), &devices), None, "{fine}");
        }
    }

    #[test]
    fn a_device_that_is_away_and_comes_back_as_it_was_starts_nothing() {
        let triggers = triggers(json!([{"state": "x", "to": true}]));
        let mut sentry = Sentry::default();
        let mut look_at = |devices: &Devices, at| look(&mut sentry, &triggers, devices, second(at)).len();
        assert_eq!(look_at(&home("on", json!(true), 0, 0), 0), 0);
        assert_eq!(look_at(&home("availability", json!("offline"), 0, 1), 1), 0);
        assert_eq!(look_at(&home("on", json!(true), 0, 2), 2), 0);
    }
}
