//! What a node did about a schedule last: the field `run.NODE` of the schedule's object.
//!
//! It is written before the first command and after the last one, flushed both times, and in place: nothing adds up.

use jiff::Timestamp;
use mesh_proto::Value;
use serde::{Deserialize, Serialize};

use crate::devices::{decode, encode};

/// Most failures that are kept, and the longest of them in characters.
const MAX_FAILED: usize = 8;
const MAX_TEXT: usize = 200;

/// Where an occurrence stands on the node that wrote so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It is being carried out, or the node died over it.
    Started,
    /// Every command came to its end well.
    Done,
    /// Some did not.
    Failed,
    /// It was missed, and is not made up for.
    PassedOver,
    /// What a newer version says: nothing is left to be done about it.
    #[serde(other)]
    Other,
}

/// What a node did about a schedule last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Which occurrence.
    pub(crate) at: Timestamp,
    pub(crate) state: State,
    pub(crate) began: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    /// Occurrences before it that came while nobody could carry them out.
    pub(crate) passed_over: u32,
    /// Occurrences before it that came while the one before them was under way.
    pub(crate) under_way: u32,
    /// Whether a node had begun that died, or was started anew: some of its commands may have come twice.
    pub(crate) again: bool,
    /// What failed, for people.
    pub(crate) failed: Vec<String>,
}

/// A record as it is stored: times in milliseconds since 1970.
#[derive(Serialize, Deserialize)]
struct Stored {
    at: i64,
    state: State,
    began: i64,
    #[serde(default)]
    ended: Option<i64>,
    #[serde(default)]
    passed_over: u32,
    #[serde(default)]
    under_way: u32,
    #[serde(default)]
    again: bool,
    #[serde(default)]
    failed: Vec<String>,
}

impl Record {
    pub(super) fn new(at: Timestamp, state: State, began: Timestamp) -> Self {
        Self { at, state, began, ended: None, passed_over: 0, under_way: 0, again: false, failed: Vec::new() }
    }

    /// The same once its commands have ended, with what failed.
    pub(super) fn ended(self, failed: &[String], ended: Option<Timestamp>) -> Self {
        let state = if failed.is_empty() { State::Done } else { State::Failed };
        let short = |text: &String| text.chars().take(MAX_TEXT).collect();
        Self { state, ended, failed: failed.iter().take(MAX_FAILED).map(short).collect(), ..self }
    }

    /// None for what does not fit.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let stored: Stored = decode(value)?;
        let time = |ms| Timestamp::from_millisecond(ms).ok();
        Some(Self {
            at: time(stored.at)?,
            state: stored.state,
            began: time(stored.began)?,
            ended: stored.ended.and_then(time),
            passed_over: stored.passed_over,
            under_way: stored.under_way,
            again: stored.again,
            failed: stored.failed,
        })
    }

    pub(super) fn to_value(&self) -> Value {
        encode(&Stored {
            at: self.at.as_millisecond(),
            state: self.state,
            began: self.began.as_millisecond(),
            ended: self.ended.map(Timestamp::as_millisecond),
            passed_over: self.passed_over,
            under_way: self.under_way,
            again: self.again,
            failed: self.failed.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_and_fits_a_field() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let whole = Record {
            ended: Some(at),
            passed_over: 3,
            under_way: 2,
            again: true,
            failed: vec!["lamp: no answer".to_owned()],
            ..Record::new(at, State::Failed, at)
        };
        assert_eq!(Record::read(&whole.to_value()).unwrap(), whole);
        let long = whole.ended(&vec!["ä".repeat(5_000); 40], Some(at));
        assert!(long.to_value().encode().is_ok());
        assert_eq!(Record::read(&long.to_value()).unwrap(), long);
        assert!(Record::read(&Value::Int(3)).is_none());
        let newer = serde_json::json!({"at": 1_000, "began": 1_001, "state": "undone", "by": "hand"});
        assert_eq!(Record::read(&encode(&newer)).unwrap().state, State::Other);
    }
}
