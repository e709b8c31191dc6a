//! A message of the broker as those read it who listen to its topic: its JSON is parsed once for all of them. Pure.

use std::cell::OnceCell;

use serde_json::Value;

/// A message.
#[derive(Debug)]
pub(crate) struct Incoming {
    text: Value,
    json: OnceCell<Option<Value>>,
}

impl Incoming {
    /// One of that text.
    pub(crate) fn new(text: &str) -> Self {
        Self { text: Value::String(text.to_owned()), json: OnceCell::new() }
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        self.text.as_str().unwrap_or_default()
    }

    /// The same, as a template wants it.
    pub(crate) fn value(&self) -> &Value {
        &self.text
    }

    /// The JSON in it; none where it is no JSON.
    pub(crate) fn json(&self) -> Option<&Value> {
        self.json.get_or_init(|| serde_json::from_str(self.text()).ok()).as_ref()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::mqtt::template::Template;

    #[test]
    fn all_who_listen_are_given_the_same_json() {
        let message = Incoming::new(r#"{"state":"ON"}"#);
        let first: *const Value = message.json().unwrap();
        Template::parse("{{ value_json.state }}").unwrap().of_message(&message).unwrap();
        assert!(std::ptr::eq(first, message.json().unwrap()));
        assert_eq!(Incoming::new("ON").json(), None);
    }
}
