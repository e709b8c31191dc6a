//! The JSON of the CLIP API, version 2, and of the pairing, which is still that of version 1. Pure.
//!
//! Sources: <https://developers.meethue.com/develop/hue-api-v2/core-concepts/> (errors, the event stream, rates),
//! <https://developers.meethue.com/develop/hue-api/7-configuration-api/> (the key, the public part of the configuration).

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::adapter::Secret;

use super::keys::{BridgeId, is_key};
use super::resource::{Kind, Ref, Resource};

/// The most resources of one message; a bridge holds fewer than 1 000 of the kinds read here.
pub(crate) const MOST_RESOURCES: usize = 4_096;
/// The longest body of all resources, in bytes; a full bridge sends a fifth of it.
pub(crate) const MOST_BODY: usize = 4 * 1024 * 1024;
/// The longest text of a bridge that is shown to people, in characters.
const MOST_TEXT: usize = 160;

/// Why a message was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// It is not the JSON that belongs there.
    #[error("the bridge sent what the CLIP API does not have: {0}")]
    Json(#[from] serde_json::Error),
    /// The bridge says no more than what is wrong.
    #[error("the bridge answered: {0}")]
    Refused(String),
    /// It cannot tell the lamp.
    #[error("the bridge does not reach it, or not all of its lights: {0}")]
    Unreached(String),
}

/// What happened to resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Happening {
    Update,
    Add,
    Delete,
    #[serde(other)]
    Other,
}

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) happening: Happening,
    #[serde(default, deserialize_with = "known")]
    pub(crate) data: Vec<Resource>,
}

/// The events of one message of the stream.
pub(crate) fn events(data: &[u8]) -> Result<Vec<Event>, WireError> {
    Ok(serde_json::from_slice(data)?)
}

#[derive(Deserialize)]
struct ErrorText {
    #[serde(default)]
    description: String,
    /// `communication_error`, `attribute_may_have_no_effect` (the lamp is off), `client_error` or `internal_error`; older firmware
    /// sends none.
    error_code: Option<String>,
}

impl ErrorText {
    fn is_of_radio(&self) -> bool {
        match self.error_code.as_deref() {
            Some(code) => code == "communication_error",
            None => self.description.contains("communication issues"),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    errors: Vec<ErrorText>,
    #[serde(default, deserialize_with = "known")]
    data: Vec<Resource>,
}

/// The resources of an answer to a `GET`.
pub(crate) fn resources(body: &[u8]) -> Result<Vec<Resource>, WireError> {
    let answer: Answer = serde_json::from_slice(body)?;
    match errors(&answer.errors) {
        Some(why) if answer.data.is_empty() => Err(WireError::Refused(why)),
        _ => Ok(answer.data),
    }
}

/// What a bridge says of a `PUT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    /// It took at least a part of it.
    pub(crate) taken: bool,
    /// It does not reach the lamp, or one of a group. It took the change all the same, and shows it as if it were so.
    pub(crate) is_unreached: bool,
    /// What it objects to.
    pub(crate) objection: Option<String>,
}

/// The answer to a `PUT`, with whatever status: errors and data may come together (207).
pub(crate) fn put(body: &[u8]) -> Result<Put, WireError> {
    #[derive(Deserialize)]
    struct Taken {
        #[serde(default)]
        errors: Vec<ErrorText>,
        #[serde(default)]
        data: Vec<Ref>,
    }
    let answer: Taken = serde_json::from_slice(body)?;
    Ok(Put {
        taken: !answer.data.is_empty(),
        is_unreached: answer.errors.iter().any(ErrorText::is_of_radio),
        objection: errors(&answer.errors),
    })
}

fn errors(errors: &[ErrorText]) -> Option<String> {
    let texts: Vec<_> = errors.iter().take(4).map(|error| text(&error.description)).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// What a bridge tells everybody of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Public {
    pub(crate) id: BridgeId,
    pub(crate) name: String,
    pub(crate) model: String,
}

/// The answer to `GET /api/0/config`.
pub(crate) fn public(body: &[u8]) -> Result<Public, WireError> {
    #[derive(Deserialize)]
    struct Config {
        bridgeid: String,
        #[serde(default)]
        name: String,
        #[serde(default)]
        modelid: String,
    }
    let config: Config = serde_json::from_slice(body)?;
    let id = BridgeId::parse(&config.bridgeid)
        .ok_or_else(|| WireError::Refused(format!("its bridge id is {:?}", text(&config.bridgeid))))?;
    Ok(Public { id, name: text(&config.name), model: text(&config.modelid) })
}

/// What a bridge says when it is asked for a key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Paired {
    /// Here it is.
    Key(Secret),
    /// Nobody pressed the button in the last 30 s.
    NotPressed,
}

/// The answer to `POST /api`.
pub(crate) fn paired(body: &[u8]) -> Result<Paired, WireError> {
    /// "link button not pressed", <https://developers.meethue.com/develop/hue-api/error-messages/>.
    const NOT_PRESSED: f64 = 101.0;
    #[derive(Deserialize)]
    struct Success {
        username: String,
    }
    #[derive(Deserialize)]
    struct Failure {
        #[serde(rename = "type")]
        number: f64,
        #[serde(default)]
        description: String,
    }
    #[derive(Deserialize)]
    struct Item {
        success: Option<Success>,
        error: Option<Failure>,
    }
    let items: Vec<Item> = serde_json::from_slice(body)?;
    match items.into_iter().next() {
        Some(Item { success: Some(success), .. }) if is_key(&success.username) => {
            Ok(Paired::Key(Secret(success.username)))
        }
        Some(Item { error: Some(error), .. }) if (error.number - NOT_PRESSED).abs() < 0.5 => {
            Ok(Paired::NotPressed)
        }
        Some(Item { error: Some(error), .. }) => Err(WireError::Refused(text(&error.description))),
        _ => Err(WireError::Refused("neither a key nor an error".to_owned())),
    }
}

/// A text of a bridge, short and without what would disturb a terminal.
pub(crate) fn text(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MOST_TEXT).collect()
}

/// The resources of a list that are of a kind used here and as they should be; what else is in it is left out, for one odd
/// resource must not hide the others.
fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Resource>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Item {
        Known(Box<Resource>),
        Odd(IgnoredAny),
    }
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<Resource>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of resources")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = seq.next_element()? {
                match item {
                    Item::Known(resource) if resource.kind != Kind::Other && list.len() < MOST_RESOURCES => {
                        list.push(*resource);
                    }
                    Item::Known(_) | Item::Odd(_) => {}
                }
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(List)
}
