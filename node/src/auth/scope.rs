//! To which part of the home a client is confined.
//!
//! Pure: a scope and an object say together whether the object is within. What is confined is never widened by what its client writes,
//! for a confined client writes neither devices, whose areas count here, nor tokens.

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::{FieldName, ObjectId, Value};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::service::ObjectView;

/// Most entries of a scope, those of its three lists together.
pub const MAX_ENTRIES: usize = 64;
/// Longest name of an area, in bytes.
pub const MAX_AREA_BYTES: usize = 128;

/// All of the home.
pub static WHOLE: Scope = Scope { prefixes: Vec::new(), areas: Vec::new(), devices: Vec::new() };

/// A part of the home; by default all of it. The lists add up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Objects, by the prefixes of their names.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Devices of these areas, whatever the case.
    #[serde(default)]
    pub areas: Vec<String>,
    /// Devices, by the names of their objects without `device/`.
    #[serde(default)]
    pub devices: Vec<String>,
}

/// Why lists are no scope.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScopeError {
    /// More than [`MAX_ENTRIES`].
    #[error("a scope has {0} entries, and {MAX_ENTRIES} are the most")]
    TooMany(usize),
    /// No beginning of an object's name.
    #[error("`{0}` is no prefix: it is a kind, a slash, and perhaps the beginning of a name, such as note/")]
    Prefix(String),
    /// No name of an area.
    #[error("`{0}` is no area: its name has 1 to {MAX_AREA_BYTES} bytes and no control characters")]
    Area(String),
    /// No name of a device.
    #[error("`{0}` is no device: it is called as its object is, without `device/`")]
    Device(String),
}

impl Scope {
    /// Whether it is all of the home.
    pub fn is_whole(&self) -> bool {
        *self == WHOLE
    }

    /// Whether an object is within by its name alone, whatever stands in it.
    pub fn covers(&self, name: &str) -> bool {
        self.is_whole() || self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }

    /// Whether an object is within.
    pub fn sees(&self, object: &ObjectView) -> bool {
        let id = &object.id;
        self.covers(id.as_str()) || id.kind() == "device" && (self.names(id.name()) || self.has_area(object))
    }

    /// Whether nothing is within that is not within the other, whatever there is and will be.
    pub fn is_within(&self, outer: &Self) -> bool {
        outer.is_whole()
            || !self.is_whole()
                && self.prefixes.iter().all(|prefix| outer.covers(prefix))
                && self.areas.iter().all(|area| outer.covers("device/") || outer.names_area(area))
                && self
                    .devices
                    .iter()
                    .all(|name| outer.names(name) || outer.covers(&format!("device/{name}")))
    }

    /// Checks the bounds and the form of every entry.
    ///
    /// # Errors
    /// [`ScopeError`] names the entry.
    pub fn check(&self) -> Result<(), ScopeError> {
        let entries = self.prefixes.len() + self.areas.len() + self.devices.len();
        if entries > MAX_ENTRIES {
            return Err(ScopeError::TooMany(entries));
        }
        // With one letter more it is a name, be it the shortest.
        let is_prefix =
            |prefix: &str| prefix.contains('/') && [prefix, &format!("{prefix}x")].into_iter().any(is_name);
        let is_area =
            |area: &str| (1..=MAX_AREA_BYTES).contains(&area.len()) && !area.contains(char::is_control);
        let is_device = |name: &str| is_name(&format!("device/{name}"));
        let wrong = |list: &[String], is_good: &dyn Fn(&str) -> bool| {
            list.iter().find(|entry| !is_good(entry)).map(|entry| clip(entry))
        };
        if let Some(prefix) = wrong(&self.prefixes, &is_prefix) {
            return Err(ScopeError::Prefix(prefix));
        }
        if let Some(area) = wrong(&self.areas, &is_area) {
            return Err(ScopeError::Area(area));
        }
        wrong(&self.devices, &is_device).map_or(Ok(()), |name| Err(ScopeError::Device(name)))
    }

    /// As it is kept in a field.
    pub fn to_value(&self) -> Value {
        let list =
            |items: &[String]| Value::List(items.iter().map(|item| Value::from(item.as_str())).collect());
        let lists = [("prefixes", &self.prefixes), ("areas", &self.areas), ("devices", &self.devices)];
        Value::Map(lists.into_iter().map(|(name, items)| (name.into(), list(items))).collect())
    }

    /// What is kept in a field; none for what this version does not understand to the last word, and for what confines to nothing:
    /// to take it for less would open more.
    pub fn from_value(value: &Value) -> Option<Self> {
        let Value::Map(map) = value else { return None };
        let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, list) in map {
            let Value::List(items) = list else { return None };
            let texts: Option<Vec<_>> = items.iter().map(|item| item.as_text().map(str::to_owned)).collect();
            lists.insert(name, texts?);
        }
        let mut take = |name| lists.remove(name).unwrap_or_default();
        let scope = Self { prefixes: take("prefixes"), areas: take("areas"), devices: take("devices") };
        let is_understood = lists.is_empty() && !scope.is_whole() && scope.check().is_ok();
        is_understood.then_some(scope)
    }

    /// The same without what is said twice, in order.
    #[must_use]
    pub fn tidy(self) -> Self {
        let once = |list: Vec<String>| list.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        Self { prefixes: once(self.prefixes), areas: once(self.areas), devices: once(self.devices) }
    }

    fn names(&self, device: &str) -> bool {
        self.devices.iter().any(|name| name == device)
    }

    fn names_area(&self, area: &str) -> bool {
        let area = area.to_lowercase();
        self.areas.iter().any(|own| own.to_lowercase() == area)
    }

    fn has_area(&self, device: &ObjectView) -> bool {
        let field = FieldName::new("area").ok().and_then(|field| device.fields.get(&field));
        field.and_then(|field| field.value.as_text()).is_some_and(|area| self.names_area(area))
    }
}

fn is_name(text: &str) -> bool {
    ObjectId::new(text).is_ok()
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;
    use crate::service::FieldView;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn scope(prefixes: &[&str], areas: &[&str], devices: &[&str]) -> Scope {
        Scope { prefixes: texts(prefixes), areas: texts(areas), devices: texts(devices) }
    }

    fn object(id: &str, area: &str) -> ObjectView {
        let value = FieldView { value: Value::from(area), at_ms: 0, by: String::new(), durable: true };
        let fields = [(FieldName::new("area").unwrap(), value)].into_iter().filter(|_| !area.is_empty());
        ObjectView { id: ObjectId::new(id).unwrap(), fields: fields.collect(), complete: true }
    }

    #[test]
    fn a_scope_is_what_its_lists_come_to() {
        let tablet = scope(&["note/", "scene/evening"], &["Küche"], &["lifx-1"]);
        for (id, area) in [
            ("note/shopping", ""),
            ("scene/evening", ""),
            ("device/lifx-1", "hall"),
            ("device/lifx-2", "küche"),
            ("device/lifx-2", "KÜCHE"),
        ] {
            assert!(tablet.sees(&object(id, area)) && WHOLE.sees(&object(id, area)), "{id} {area}");
        }
        for (id, area) in [
            ("device/lifx-2", "hall"),
            ("device/lifx-2", ""),
            ("device/lifx-11", ""),
            ("scene/morning", ""),
            ("group/kitchen", "Küche"),
            ("notebook/x", ""),
            ("command/lifx-1", "Küche"),
        ] {
            assert!(!tablet.sees(&object(id, area)) && WHOLE.sees(&object(id, area)), "{id} {area}");
        }
        assert!(tablet.covers("note/x") && !tablet.covers("device/lifx-1"), "a device is not its name");
    }

    #[test]
    fn what_is_no_scope_is_named() {
        let long = "x".repeat(129);
        for (prefix, _) in
            [("", 0), ("note", 0), ("/", 0), ("Note/", 0), ("note/ä", 0), (&format!("note/{long}"), 0)]
        {
            assert!(matches!(scope(&[prefix], &[], &[]).check(), Err(ScopeError::Prefix(_))), "{prefix}");
        }
        for area in ["", "a\nb", &long] {
            assert!(matches!(scope(&[], &[area], &[]).check(), Err(ScopeError::Area(_))), "{area}");
        }
        for device in ["", "device/x", "a b"] {
            assert!(matches!(scope(&[], &[], &[device]).check(), Err(ScopeError::Device(_))), "{device}");
        }
        let many = vec!["note/"; 65];
        assert_eq!(scope(&many, &[], &[]).check(), Err(ScopeError::TooMany(65)));
        assert!(scope(&["note/", "device/lifx-"], &["Living room"], &["lifx-1"]).check().is_ok());
    }

    #[test]
    fn what_is_not_understood_to_the_last_word_opens_nothing() {
        let good = scope(&["note/"], &["hall"], &["lifx-1"]);
        assert_eq!(Scope::from_value(&good.to_value()), Some(good.clone()));
        let with = |name: &str, value: Value| {
            let Value::Map(mut map) = good.to_value() else { panic!() };
            map.insert(name.into(), value);
            Value::Map(map)
        };
        for wrong in [
            Value::Null,
            Value::Map(BTreeMap::new()),
            WHOLE.to_value(),
            with("floors", Value::List(Vec::new())),
            with("areas", Value::from("hall")),
            with("areas", Value::List(vec![Value::Int(1)])),
            with("prefixes", Value::List(vec![Value::from("")])),
        ] {
            assert_eq!(Scope::from_value(&wrong), None, "{wrong:?}");
        }
    }

    fn entries(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(proptest::sample::select(of).prop_map(str::to_owned), 0..3)
    }

    fn any_scope() -> impl Strategy<Value = Scope> {
        let prefixes = &["device/", "device/a", "device/ab", "note/", "note/a", "scene/"];
        (entries(prefixes), entries(&["hall", "Hall", "attic"]), entries(&["a", "ab", "c"]))
            .prop_map(|(prefixes, areas, devices)| Scope { prefixes, areas, devices })
    }

    fn any_object() -> impl Strategy<Value = ObjectView> {
        let ids = &[
            "device/a",
            "device/ab",
            "device/c",
            "note/a",
            "note/b",
            "scene/a",
            "token/a",
            "group/hall",
        ][..];
        (
            proptest::sample::select(ids),
            proptest::sample::select(&["", "hall", "HALL", "attic", "cellar"][..]),
        )
            .prop_map(|(id, area)| object(id, area))
    }

    proptest! {
        #[test]
        fn what_is_within_another_sees_no_more(inner in any_scope(), outer in any_scope(), object in any_object()) {
            if inner.is_within(&outer) {
                prop_assert!(!inner.sees(&object) || outer.sees(&object));
            }
            prop_assert!(inner.is_within(&inner) && inner.is_within(&WHOLE));
            prop_assert!(inner.is_whole() || !WHOLE.is_within(&inner));
        }

        #[test]
        fn a_longer_list_sees_no_less(scope in any_scope(), other in any_scope(), object in any_object()) {
            let join = |a: &[String], b: &[String]| [a, b].concat();
            let both = Scope {
                prefixes: join(&scope.prefixes, &other.prefixes),
                areas: join(&scope.areas, &other.areas),
                devices: join(&scope.devices, &other.devices),
            };
            if !scope.is_whole() && !other.is_whole() {
                prop_assert_eq!(both.sees(&object), scope.sees(&object) || other.sees(&object));
            }
            prop_assert!(scope.is_whole() || scope.is_within(&both));
        }

        #[test]
        fn a_scope_is_read_back_as_it_was_kept(scope in any_scope()) {
            let read = Scope::from_value(&scope.to_value());
            prop_assert_eq!(read, Some(scope.clone()).filter(|scope| !scope.is_whole()));
            let tidy = scope.clone().tidy();
            prop_assert!(tidy.is_within(&scope) && scope.is_within(&tidy));
        }

        #[test]
        fn no_value_is_read_as_the_whole_home(keys in entries(&["prefixes", "areas", "devices", "x"]), texts in entries(&["", "note/", "a"])) {
            let list = || Value::List(texts.iter().map(|text| Value::from(text.as_str())).collect());
            let map = keys.iter().map(|key| (key.as_str().into(), list())).collect();
            prop_assert!(!Scope::from_value(&Value::Map(map)).is_some_and(|scope| scope.is_whole()));
        }
    }
}
