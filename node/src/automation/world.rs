//! What automations see of the home: its devices by the names that people have for them, and the time.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use device_adapters::schedule::{Home, sun_is};
use jiff::{Timestamp, Zoned, civil::Time};
use mesh_proto::Value;
use serde_json::{Map, Value as Json, json};

use super::{
    course::World,
    expression::Facts,
    program::{Bounds, Condition, Source, Sun},
};
use crate::{
    json::from_value,
    service::{FieldView, ObjectView},
};

/// Something that is known of a device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fact {
    pub(crate) value: Json,
    /// Another number each time, where the same again is news: the press of a button.
    pub(crate) turn: u64,
    /// When it was reported, in milliseconds since 1970, and by which node.
    pub(crate) at_ms: u64,
    pub(crate) by: String,
}

/// A device, as far as automations look at it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Device {
    name: String,
    label: String,
    pub(crate) facts: BTreeMap<String, Fact>,
}

impl Device {
    /// Reads a device's object. What nobody knows at present is no fact: of a device that is not online only that.
    pub(crate) fn read(object: &ObjectView) -> Self {
        let field = |name: &str| {
            object.fields.iter().find(|(known, _)| known.as_str() == name).map(|(_, field)| field)
        };
        let text =
            |name: &str| field(name).and_then(|field| field.value.as_text()).unwrap_or_default().to_owned();
        let mut facts = BTreeMap::new();
        let state = field("availability").and_then(|field| Some((field, field.value.get("state")?)));
        let is_online = state.is_none_or(|(_, state)| state.as_text() == Some("online"));
        if let Some((field, state)) = state {
            facts.insert("availability".to_owned(), fact(field, from_value(state), 0));
        }
        if let Some(reported) = field("reported").filter(|_| is_online) {
            facts.extend(reported_facts(reported));
        }
        if let Some((field, Value::Map(readings))) =
            field("readings").filter(|_| is_online).map(|field| (field, &field.value))
        {
            let known = readings.iter().filter_map(|(key, reading)| match reading.get("value") {
                None | Some(Value::Null) => None,
                Some(value) => {
                    let fact = fact(field, from_value(value), 0);
                    Some((key.to_string(), Fact { at_ms: taken(reading, field), ..fact }))
                }
            });
            facts.extend(known);
        }
        Self { name: text("name"), label: text("label"), facts }
    }

    /// What people call it.
    fn calls(&self) -> Vec<(Call, String)> {
        let (name, label) = (&self.name, &self.label);
        let calls = [(Call::Name, name.clone()), (Call::Label, label.clone())];
        let any_case = [name, label].map(|text| (Call::AnyCase, text.to_lowercase()));
        calls.into_iter().chain(any_case).filter(|(_, text)| !text.is_empty()).collect()
    }

    fn to_json(&self) -> Json {
        Json::Object(
            self.facts.iter().map(|(of, fact)| (of.clone(), fact.value.clone())).collect::<Map<_, _>>(),
        )
    }
}

/// When a reading was taken: the field is written anew with each reading of any sensor, and never before it.
fn taken(reading: &Value, field: &FieldView) -> u64 {
    let at = reading.get("at").and_then(Value::as_int).and_then(|at| u64::try_from(at).ok());
    at.filter(|at| *at <= field.at_ms).unwrap_or(field.at_ms)
}

fn fact(field: &FieldView, value: Json, turn: u64) -> Fact {
    Fact { value, turn, at_ms: field.at_ms, by: field.by.clone() }
}

fn reported_facts(field: &FieldView) -> Vec<(String, Fact)> {
    let Some(state) = field.value.get("value") else { return Vec::new() };
    let number = |name: &str| state.get(name).and_then(Value::as_int);
    let mut facts = Vec::new();
    let mut add = |of: &str, value: Option<Json>, turn: u64| {
        facts.extend(value.map(|value| (of.to_owned(), fact(field, value, turn))));
    };
    add("on", state.get("on").map(from_value), 0);
    #[expect(clippy::cast_precision_loss, reason = "at most 65 535")]
    let percent = number("brightness").map(|level| json!((level as f64 / 655.35).round()));
    add("brightness", percent, 0);
    add("kelvin", state.get("color").and_then(|color| color.get("kelvin")).map(from_value), 0);
    add("effect", state.get("effect").map(from_value), 0);
    let turn = number("count").and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
    add("event", state.get("event").map(from_value), turn);
    facts
}

/// All devices, by their ids and by what people call them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Devices {
    all: BTreeMap<String, Arc<Device>>,
    called: Arc<BTreeMap<(Call, String), BTreeSet<String>>>,
}

/// How people call a device, the surest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Name,
    Label,
    AnyCase,
}

impl Devices {
    /// Takes in a device as it is now.
    pub(crate) fn insert(&mut self, id: &str, device: Device) {
        let calls = device.calls();
        let before = self.all.insert(id.to_owned(), Arc::new(device)).map(|before| before.calls());
        if before.as_ref() != Some(&calls) {
            self.uncall(id, before);
            let called = Arc::make_mut(&mut self.called);
            for call in calls {
                called.entry(call).or_default().insert(id.to_owned());
            }
        }
    }

    /// Forgets a device.
    pub(crate) fn remove(&mut self, id: &str) {
        let calls = self.all.remove(id).map(|device| device.calls());
        self.uncall(id, calls);
    }

    fn uncall(&mut self, id: &str, calls: Option<Vec<(Call, String)>>) {
        let called = Arc::make_mut(&mut self.called);
        for call in calls.into_iter().flatten() {
            if let Entry::Occupied(mut ids) = called.entry(call) {
                ids.get_mut().remove(id);
                if ids.get().is_empty() {
                    ids.remove();
                }
            }
        }
    }

    /// The ids of all.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &String> {
        self.all.keys()
    }

    /// The device that a person means: by its id with or without `device/`, its name, its label, whatever their case.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub(crate) fn find(&self, given: &str) -> Result<(&str, &Device), String> {
        let id = given.strip_prefix("device/").unwrap_or(given);
        if let Some((id, device)) = self.all.get_key_value(id) {
            return Ok((id, device));
        }
        for call in [Call::Name, Call::Label, Call::AnyCase] {
            let text = if call == Call::AnyCase { given.to_lowercase() } else { given.to_owned() };
            let Some(ids) = self.called.get(&(call, text)) else { continue };
            return match (ids.first().and_then(|id| self.all.get_key_value(id)), ids.len()) {
                (Some((id, device)), 1) => Ok((id, device)),
                _ => Err(format!("`{given}` names several devices: use an id")),
            };
        }
        Err(format!("there is no device `{given}`"))
    }

    /// Something that a device has; none when nobody knows it at present.
    ///
    /// # Errors
    /// As [`Devices::find`].
    pub(crate) fn fact(&self, what: &Source) -> Result<Option<&Fact>, String> {
        self.find(&what.device).map(|(_, device)| device.facts.get(&what.of))
    }

    /// Why something of a device cannot be watched: there is no such device, or it answers and has no such thing.
    pub(crate) fn lacks(&self, what: &Source) -> Option<String> {
        let device = match self.find(&what.device) {
            Ok((_, device)) => device,
            Err(reason) => return Some(reason),
        };
        let is_online = device.facts.get("availability").is_some_and(|fact| fact.value == "online");
        // A button shows nothing before it is pressed.
        if !is_online || what.of == "event" || device.facts.contains_key(&what.of) {
            return None;
        }
        let shows = device.facts.keys().map(|of| format!("`{of}`")).collect::<Vec<_>>().join(", ");
        Some(format!("`{}` shows no `{}` at present: it shows {shows}", what.device, what.of))
    }
}

/// The home at a moment, for a run.
pub(crate) struct View<'v> {
    pub(crate) devices: &'v Arc<Devices>,
    pub(crate) home: Result<&'v Home, String>,
    pub(crate) now: Timestamp,
    /// What started the run.
    pub(crate) trigger: &'v Json,
}

impl View<'_> {
    /// What expressions can name.
    pub(crate) fn facts(&self) -> Facts {
        let devices = Arc::clone(self.devices);
        let now = self.home.as_ref().map_or(Json::Null, |home| clock(&self.now.to_zoned(home.zone.clone())));
        Facts {
            devices: Arc::new(move |name| devices.find(name).ok().map(|(_, device)| device.to_json())),
            trigger: self.trigger.clone(),
            now,
        }
    }

    /// Whether all of some conditions hold.
    ///
    /// # Errors
    /// Why nobody can say.
    pub(crate) fn all_hold(&self, conditions: &[Condition]) -> Result<bool, String> {
        for condition in conditions {
            if !self.holds(condition)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn home(&self) -> Result<&Home, String> {
        self.home.clone()
    }

    fn sun(&self, after: Option<Sun>, before: Option<Sun>) -> Result<bool, String> {
        sun_is(after, before, self.now, self.home()?).map_err(|reason| reason.to_string())
    }
}

/// The time by the clock of the home, as expressions see it.
fn clock(now: &Zoned) -> Json {
    json!({
        "date": now.date().to_string(),
        "time": now.strftime("%H:%M:%S").to_string(),
        "hour": now.hour(),
        "minute": now.minute(),
        "weekday": now.weekday().to_monday_one_offset(),
    })
}

impl World for View<'_> {
    fn holds(&self, condition: &Condition) -> Result<bool, String> {
        let one = |condition: &Condition| self.holds(condition);
        match condition {
            Condition::All(all) => self.all_hold(all),
            Condition::Any(any) => {
                for condition in any {
                    if one(condition)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Condition::Not(not) => one(not).map(|holds| !holds),
            Condition::State(what, is) => {
                Ok(self.devices.fact(what)?.is_some_and(|fact| same(&fact.value, is)))
            }
            Condition::Number(what, bounds) => {
                Ok(self.devices.fact(what)?.is_some_and(|fact| lies(&fact.value, *bounds)))
            }
            Condition::Time { after, before, days } => {
                let now = self.now.to_zoned(self.home()?.zone.clone());
                let begun = if is_past_midnight(now.time(), *after, *before) {
                    now.date().yesterday().unwrap_or_else(|_| now.date())
                } else {
                    now.date()
                };
                Ok(is_between(now.time(), *after, *before)
                    && (days.is_empty() || days.contains(&begun.weekday())))
            }
            Condition::Sun { after, before } => self.sun(*after, *before),
            Condition::Expression(expression) => expression.is_true(&self.facts()),
        }
    }
}

fn is_between(time: Time, after: Option<Time>, before: Option<Time>) -> bool {
    match (after, before) {
        (Some(after), Some(before)) if after > before => time >= after || time < before,
        _ => after.is_none_or(|after| time >= after) && before.is_none_or(|before| time < before),
    }
}

/// Whether the stretch began the day before.
fn is_past_midnight(time: Time, after: Option<Time>, before: Option<Time>) -> bool {
    matches!((after, before), (Some(after), Some(before)) if after > before && time < before)
}

/// Whether two values are alike; numbers by their value, however they are written.
pub(crate) fn same(one: &Json, other: &Json) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => (one - other).abs() < 1e-9,
        _ => one == other,
    }
}

/// Whether a value is a number between bounds.
pub(crate) fn lies(value: &Json, bounds: Bounds) -> bool {
    value.as_f64().is_some_and(|number| bounds.hold(number))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use device_adapters::schedule::{Place, zone};
    use jiff::SignedDuration;
    use mesh_proto::{FieldName, ObjectId};

    use super::*;
    use crate::automation::program::ProgramText;

    fn object(id: &str, fields: Json) -> ObjectView {
        let field = |(name, value): (&String, &Json)| {
            let value = crate::devices::encode(value);
            let view = FieldView { value, at_ms: 7, by: "a".to_owned(), durable: true };
            (FieldName::new(name).unwrap(), view)
        };
        let fields = fields.as_object().unwrap().iter().map(field).collect();
        ObjectView { id: ObjectId::new(id).unwrap(), fields, complete: true }
    }

    fn devices() -> Arc<Devices> {
        let lamp = object(
            "device/lifx-1",
            json!({
                "name": "Hall", "label": "LIFX 1", "availability": {"state": "online"},
                "reported": {"value": {"kind": "light", "on": true, "brightness": 26_214, "color": {"mode": "temperature", "kelvin": 2700}}},
                "readings": {"power": {"value": 4.5, "at": 1}, "dust": {"value": null, "reason": "x", "at": 1}}
            }),
        );
        let gone = object(
            "device/mqtt-2",
            json!({
                "name": "Freezer", "availability": {"state": "offline"},
                "readings": {"temperature": {"value": -18, "at": 1}}
            }),
        );
        let twin = object("device/mqtt-3", json!({"name": "freezer"}));
        let all = [("lifx-1", lamp), ("mqtt-2", gone), ("mqtt-3", twin)];
        let mut devices = Devices::default();
        all.iter().for_each(|(id, object)| devices.insert(id, Device::read(object)));
        Arc::new(devices)
    }

    fn holds(condition: Json, now: &str) -> Result<bool, String> {
        holds_at(condition, now, Place::new(52.52, 13.4))
    }

    fn holds_at(condition: Json, now: &str, place: Option<Place>) -> Result<bool, String> {
        let text =
            json!({"triggers": [{"event": "x"}], "conditions": [condition], "actions": [{"delay": "1s"}]});
        let program = serde_json::from_value::<ProgramText>(text).unwrap().parse().unwrap();
        let home = Home { zone: zone("Europe/Berlin").unwrap(), place };
        let (devices, trigger) = (devices(), json!({"kind": "event"}));
        let view = View { devices: &devices, home: Ok(&home), now: now.parse().unwrap(), trigger: &trigger };
        view.holds(&program.conditions[0])
    }

    #[test]
    fn devices_are_looked_at_by_their_names() {
        let now = "2026-11-29T12:00:00Z";
        assert!(holds(json!({"state": "hall", "is": true}), now).unwrap());
        assert!(holds(json!({"state": "device/lifx-1", "of": "brightness", "is": 40}), now).unwrap());
        assert!(
            holds(json!({"number": "LIFX 1", "of": "kelvin", "above": 2699, "below": 2701}), now).unwrap()
        );
        assert!(holds(json!({"number": "Hall", "of": "power", "above": 4}), now).unwrap());
        assert!(!holds(json!({"number": "Hall", "of": "dust", "above": 0}), now).unwrap(), "nobody knows");
        assert!(
            !holds(json!({"number": "Freezer", "of": "temperature", "below": 0}), now).unwrap(),
            "it is offline"
        );
        assert!(holds(json!({"state": "Freezer", "of": "availability", "is": "offline"}), now).unwrap());
        assert!(holds(json!({"state": "attic", "is": true}), now).unwrap_err().contains("no device `attic`"));
        assert!(holds(json!({"state": "FREEZER", "is": true}), now).unwrap_err().contains("several"));
        assert!(
            holds(
                json!({"all": [{"state": "hall", "is": true}, {"not": {"state": "hall", "is": false}}]}),
                now
            )
            .unwrap()
        );
        assert!(!holds(json!({"any": [{"state": "hall", "is": false}]}), now).unwrap());
        assert!(
            holds(json!({"expression": "device('Hall').power * 2 == 9 and trigger.kind == 'event'"}), now)
                .unwrap()
        );
        assert!(
            holds(json!({"expression": "now.weekday == 7 and now.hour == 13"}), now).unwrap(),
            "Berlin's clock"
        );
    }

    #[test]
    fn a_reading_is_as_old_as_itself_whatever_else_the_device_has_measured_since() {
        let readings = json!({
            "old": {"value": 1.5, "at": 3}, "new": {"value": 2.5, "at": 7},
            "ahead": {"value": 3.5, "at": 8}, "odd": {"value": 4.5, "at": -1}, "none": {"value": 5.5}
        });
        let on = json!({"value": {"kind": "switch", "on": true}});
        let device = Device::read(&object("device/x", json!({"readings": readings, "reported": on})));
        let at = ["old", "new", "ahead", "odd", "none", "on"].map(|of| device.facts[of].at_ms);
        assert_eq!(at, [3, 7, 7, 7, 7, 7], "the field was written at 7");
    }

    #[test]
    fn a_device_that_is_renamed_or_gone_is_not_found_by_its_old_name() {
        let mut devices = Devices::clone(&devices());
        let id = |devices: &Devices, given: &str| devices.find(given).map(|(id, _)| id.to_owned());
        assert_eq!(id(&devices, "hALL").unwrap(), "lifx-1");
        devices.insert("lifx-1", Device::read(&object("device/lifx-1", json!({"name": "Attic"}))));
        assert_eq!(id(&devices, "attic").unwrap(), "lifx-1");
        assert!(
            id(&devices, "Hall").is_err() && id(&devices, "LIFX 1").is_err() && id(&devices, "").is_err()
        );
        assert_eq!(id(&devices, "Freezer").unwrap(), "mqtt-2", "written exactly so");
        devices.remove("mqtt-2");
        assert_eq!(id(&devices, "Freezer").unwrap(), "mqtt-3");
        devices.remove("mqtt-3");
        assert!(id(&devices, "Freezer").unwrap_err().contains("no device"));
        assert_eq!(devices.ids().collect::<Vec<_>>(), ["lifx-1"]);
    }

    #[test]
    fn times_of_day_go_over_midnight_and_belong_to_the_day_on_which_they_began() {
        let night = json!({"time": {"after": "22:00", "before": "06:00", "days": "sat"}});
        assert!(holds(night.clone(), "2026-11-28T21:30:00Z").unwrap(), "Saturday, half past ten");
        assert!(holds(night.clone(), "2026-11-29T04:59:00Z").unwrap(), "Sunday before six: Saturday's night");
        assert!(!holds(night.clone(), "2026-11-29T05:00:00Z").unwrap());
        assert!(!holds(night, "2026-11-29T21:30:00Z").unwrap(), "Sunday's night");
        assert!(holds(json!({"time": {"before": "06:00"}}), "2026-11-28T23:30:00Z").unwrap());
        assert!(!holds(json!({"time": {"days": "mon-fri"}}), "2026-11-28T12:00:00Z").unwrap());
    }

    #[test]
    fn the_sun_is_up_or_down() {
        let dark = json!({"sun": {"after": "sunset", "before": "sunrise"}});
        assert!(holds(dark.clone(), "2026-11-29T16:00:00Z").unwrap());
        assert!(holds(dark.clone(), "2026-11-30T05:00:00Z").unwrap());
        assert!(!holds(dark, "2026-11-29T11:00:00Z").unwrap());
        assert!(holds(json!({"sun": {"after": "sunset - 1h"}}), "2026-11-29T14:30:00Z").unwrap());
        assert!(!holds(json!({"sun": {"after": "sunset"}}), "2026-11-30T05:00:00Z").unwrap(), "not today's");
        assert!(holds(json!({"sun": {"before": "sunrise"}}), "2026-11-30T05:00:00Z").unwrap());
    }

    #[test]
    fn a_light_that_goes_on_in_the_dark_does_so_all_winter_where_the_sun_does_not_rise() {
        let dark = json!({"sun": {"after": "sunset", "before": "sunrise"}});
        for (now, is_dark) in [("2026-12-21T11:00:00Z", true), ("2026-06-21T23:00:00Z", false)] {
            let place = Place::new(69.65, 18.96);
            assert_eq!(holds_at(dark.clone(), now, place).unwrap(), is_dark, "{now}");
        }
    }

    #[test]
    fn a_home_without_a_place_is_told_when_the_sun_is_asked_for() {
        let (devices, trigger) = (devices(), Json::Null);
        let home = Home { zone: zone("UTC").unwrap(), place: None };
        let view = View { devices: &devices, home: Ok(&home), now: Timestamp::UNIX_EPOCH, trigger: &trigger };
        let sun = Condition::Sun {
            after: Some((device_adapters::schedule::SunEvent::Sunset, SignedDuration::ZERO)),
            before: None,
        };
        assert!(view.holds(&sun).unwrap_err().contains("place of the home"));
    }
}
