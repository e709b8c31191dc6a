//! Checking an adapter's settings, so that every mistake is answered with the key it is in.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::adapter::{Descriptor, SettingsError};

/// An adapter's settings, all of whose keys are known.
pub(crate) struct Settings<'a> {
    adapter: &'static str,
    /// Where these stand among the adapter's settings, such as `lines[0].`; empty for all of them.
    within: String,
    /// The schema of each key.
    properties: Map<String, Value>,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Settings<'a> {
    /// Takes an object (or null, which counts as empty) whose keys the descriptor's schema knows.
    pub(crate) fn new(descriptor: &Descriptor, value: &'a Value) -> Result<Self, SettingsError> {
        let adapter = descriptor.id;
        let map = match value {
            Value::Null => None,
            Value::Object(map) => Some(map),
            other => return Err(SettingsError::NotAnObject { adapter, found: kind_of(other) }),
        };
        let schema = (descriptor.settings_schema)();
        Self::of(adapter, String::new(), properties_of(&schema), map)
    }

    /// The error for a value that breaks its rule.
    pub(crate) fn invalid(&self, key: &str, value: &Value, rule: &str) -> SettingsError {
        SettingsError::Invalid {
            adapter: self.adapter,
            key: format!("{}{key}", self.within),
            value: without_password(&value.to_string()),
            rule: rule.to_owned(),
        }
    }

    /// The error for a key that must be given and is not.
    pub(crate) fn missing(&self, key: &str, rule: &str) -> SettingsError {
        SettingsError::Invalid {
            adapter: self.adapter,
            key: format!("{}{key}", self.within),
            value: "missing".to_owned(),
            rule: rule.to_owned(),
        }
    }

    /// A time in seconds within `range`, or `default`.
    pub(crate) fn seconds(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<f64>,
        default: f64,
    ) -> Result<Duration, SettingsError> {
        let Some(value) = self.get(key) else { return Ok(Duration::from_secs_f64(default)) };
        match value.as_f64() {
            Some(seconds) if range.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => {
                let rule = format!("a number of seconds from {} to {}", range.start(), range.end());
                Err(self.invalid(key, value, &rule))
            }
        }
    }

    /// A number within `range`; `unit` follows it in words. None where there is none.
    pub(crate) fn number(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<f64>,
        unit: &str,
    ) -> Result<Option<f64>, SettingsError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let rule = format!("a number of {unit} from {} to {}", range.start(), range.end());
                Err(self.invalid(key, value, &rule))
            }
        }
    }

    /// What `parse` makes of a text, or of `default`.
    pub(crate) fn text<T>(
        &self,
        key: &str,
        rule: &str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, SettingsError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_str().and_then(parse).ok_or_else(|| self.invalid(key, value, rule))
    }

    /// What `parse` makes of each text of a list of at most `most`, or `default`.
    pub(crate) fn list<T>(
        &self,
        key: &str,
        rule: &str,
        most: usize,
        default: Vec<T>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, SettingsError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let items = value.as_array().filter(|items| items.len() <= most).ok_or_else(|| {
            self.invalid(key, value, &format!("a list of at most {most} texts, each {rule}"))
        })?;
        items
            .iter()
            .map(|item| {
                item.as_str()
                    .and_then(&parse)
                    .ok_or_else(|| self.invalid(key, item, &format!("a list of texts, each {rule}")))
            })
            .collect()
    }

    /// The same for a secret, which the error does not show.
    pub(crate) fn secret<T>(
        &self,
        key: &str,
        rule: &str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, SettingsError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let hidden = || self.invalid(key, &Value::String("(a secret)".to_owned()), rule);
        value.as_str().and_then(parse).ok_or_else(hidden)
    }

    /// True, false, or `default`.
    pub(crate) fn truth(&self, key: &str, default: bool) -> Result<bool, SettingsError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.invalid(key, value, "true or false"))
    }

    /// A whole number within `range`, or `default`.
    pub(crate) fn integer(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, SettingsError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_u64().filter(|number| range.contains(number)).ok_or_else(|| {
            self.invalid(key, value, &format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// What `parse` makes of each object of a list of at most `most`; nothing when the key is not given. An object may have
    /// the keys that the schema names under `items`; an error names one of them as `lines[0].name`.
    pub(crate) fn objects<T>(
        &self,
        key: &str,
        most: usize,
        parse: impl Fn(&Settings<'a>) -> Result<T, SettingsError>,
    ) -> Result<Vec<T>, SettingsError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let rule = format!("a list of at most {most} objects");
        let items = value.as_array().filter(|items| items.len() <= most);
        let items = items.ok_or_else(|| self.invalid(key, value, &rule))?;
        let schema = self.properties.get(key).and_then(|schema| schema.get("items"));
        let properties = schema.map(properties_of).unwrap_or_default();
        let parse_one = |(index, item): (usize, &'a Value)| {
            let map = item.as_object().ok_or_else(|| self.invalid(key, item, &rule))?;
            let within = format!("{}{key}[{index}].", self.within);
            parse(&Settings::of(self.adapter, within, properties.clone(), Some(map))?)
        };
        items.iter().enumerate().map(parse_one).collect()
    }

    /// The value of a key as it was given.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.and_then(|map| map.get(key))
    }

    fn of(
        adapter: &'static str,
        within: String,
        properties: Map<String, Value>,
        map: Option<&'a Map<String, Value>>,
    ) -> Result<Self, SettingsError> {
        match map.and_then(|map| map.keys().find(|key| !properties.contains_key(*key))) {
            Some(key) => {
                let known = properties.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                let key = shorten(&format!("{within}{key}"));
                Err(SettingsError::UnknownKey { adapter, key, known })
            }
            None => Ok(Self { adapter, within, properties, map }),
        }
    }
}

/// The schemas of the keys that a schema of an object names.
fn properties_of(schema: &Value) -> Map<String, Value> {
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The name of a network interface: Linux takes 1 to 15 bytes without spaces and slashes.
pub(crate) fn parse_interface(text: &str) -> Option<String> {
    let is_fit = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
    ((1..=15).contains(&text.len()) && text.chars().all(is_fit)).then(|| text.to_owned())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value as an error shows it: an address with a name and a password in it is not for logs.
fn without_password(text: &str) -> String {
    if text.contains('@') {
        "\"…\" (not shown, for an @ may stand behind a password)".to_owned()
    } else {
        shorten(text)
    }
}

/// At most 60 characters of a text, so that an error about a huge value stays readable.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_password_in_it_is_not_shown() {
        let shown = without_password("\"mqtt://me:hunter2@broker\"");
        assert!(!shown.contains("hunter2") && shown.contains("not shown"), "{shown}");
        assert_eq!(without_password("\"mqtt.local:99999\""), "\"mqtt.local:99999\"");
    }
}
