//! What is wrong with a program, and where.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

/// What is wrong with a program, and where, such as `actions[2].do[0]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    place: String,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Where in a program something stands.
#[derive(Debug, Clone)]
pub(super) struct Place(String);

impl Place {
    pub(super) fn new(member: &str) -> Self {
        Self(member.to_owned())
    }

    pub(super) fn member(&self, name: &str) -> Self {
        Self(format!("{}.{name}", self.0))
    }

    pub(super) fn at(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    pub(super) fn fault(&self, what: impl fmt::Display) -> Fault {
        Fault { place: self.0.clone(), what: what.to_string() }
    }

    /// The one of these kinds that a part is, by the member that names it.
    pub(super) fn kind<'k>(
        &self,
        part: &Json,
        kinds: &[&'k str],
    ) -> Result<(&'k str, Map<String, Json>), Fault> {
        let named = || kinds.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
        let Json::Object(members) = part else {
            return Err(self.fault(format!("it is no object: write one with one of {}", named())));
        };
        let mut found = kinds.iter().filter(|kind| members.contains_key(**kind));
        match (found.next(), found.next()) {
            (Some(kind), None) => Ok((kind, members.clone())),
            (Some(one), Some(two)) => {
                Err(self.fault(format!("it has both `{one}` and `{two}`: make two of it")))
            }
            (None, _) => Err(self.fault(format!("it has none of {}", named()))),
        }
    }

    /// A part in its form.
    pub(super) fn read<T: DeserializeOwned>(&self, part: Map<String, Json>) -> Result<T, Fault> {
        serde_json::from_value(Json::Object(part)).map_err(|rule| self.fault(rule))
    }

    /// A list of parts, at most so many.
    pub(super) fn list<T>(
        &self,
        parts: &[Json],
        max: usize,
        mut read: impl FnMut(&Self, &Json) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        if parts.len() > max {
            return Err(self.fault(format!("{} of them, and {max} are the most", parts.len())));
        }
        parts.iter().enumerate().map(|(index, part)| read(&self.at(index), part)).collect()
    }
}
