//! JSON objects that are made field by field.

use std::fmt;

use serde_json::{Map, Value};

/// An object.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Body(Map<String, Value>);

impl Body {
    /// One that holds this already; anything but an object counts as an empty one.
    pub(crate) fn of(start: Value) -> Self {
        match start {
            Value::Object(map) => Self(map),
            _ => Self::default(),
        }
    }

    /// Sets one field.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }
}

impl From<Body> for Value {
    fn from(body: Body) -> Self {
        Self::Object(body.0)
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(&self.0).map_err(|_| fmt::Error)?)
    }
}
