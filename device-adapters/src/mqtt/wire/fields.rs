//! The fields of an announcement, read with their bounds.

use serde_json::{Map, Value};

use crate::mqtt::template::{Template, TemplateError, as_text};

/// The longest text of an announcement, in bytes.
const MOST_TEXT: usize = 256;
/// The longest topic, in bytes.
const MOST_TOPIC: usize = 512;
/// The most items of a list.
const MOST_ITEMS: usize = 256;

/// Why an announcement, or one of its parts, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldError {
    /// A field that must be there is not.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A topic that cannot be one.
    #[error("its {key} {topic:?} is no topic: 1 to {MOST_TOPIC} bytes without wildcards")]
    Topic {
        /// The field.
        key: String,
        /// Its value, shortened.
        topic: String,
    },
    /// A template that cannot be used.
    #[error("its {key} is {source}")]
    Template {
        /// The field.
        key: String,
        /// What is wrong.
        source: TemplateError,
    },
    /// A light of a kind that is not supported here.
    #[error("it is a light of the schema {0:?}: default and json are understood")]
    Schema(String),
}

/// The fields of one announcement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// A text; numbers and truth values as Python writes them, for so they are compared.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match self.0.get(key)? {
            Value::Null | Value::Array(_) | Value::Object(_) => None,
            scalar => Some(shortened(&as_text(scalar))),
        }
    }

    /// A text, or what stands for it.
    pub(crate) fn text_or(&self, key: &str, default: &str) -> String {
        self.text(key).unwrap_or_else(|| default.to_owned())
    }

    /// Whether a flag is set.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A number above zero, to the next whole one: ESPHome announces mireds with a fraction.
    pub(crate) fn number(&self, key: &str) -> Option<u32> {
        let number = self.0.get(key)?;
        let number = number.as_f64().or_else(|| number.as_str()?.parse().ok())?.round();
        if !(1.0..=f64::from(u32::MAX)).contains(&number) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        let whole = number as u32;
        Some(whole)
    }

    /// A list of texts; a single one counts as a list of one.
    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        match self.0.get(key) {
            Some(Value::Array(items)) => {
                items.iter().filter_map(Value::as_str).take(MOST_ITEMS).map(shortened).collect()
            }
            Some(Value::String(text)) => vec![shortened(text)],
            _ => Vec::new(),
        }
    }

    /// A topic to which, or at which, a message may be.
    pub(crate) fn topic(&self, key: &str) -> Result<Option<String>, FieldError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(topic)) if is_topic(topic) => Ok(Some(topic.clone())),
            Some(other) => {
                let topic = other.to_string().chars().take(60).collect();
                Err(FieldError::Topic { key: key.to_owned(), topic })
            }
        }
    }

    /// A template.
    pub(crate) fn template(&self, key: &str) -> Result<Option<Template>, FieldError> {
        let Some(source) = self.0.get(key).and_then(Value::as_str).filter(|source| !source.is_empty()) else {
            return Ok(None);
        };
        let parsed = Template::parse(source);
        parsed.map(Some).map_err(|source| FieldError::Template { key: key.to_owned(), source })
    }

    /// An object in it.
    pub(crate) fn inside(&self, key: &str) -> Option<Fields<'a>> {
        self.0.get(key)?.as_object().map(Fields)
    }
}

/// Whether a message can be at a topic of that name.
pub(crate) fn is_topic(topic: &str) -> bool {
    (1..=MOST_TOPIC).contains(&topic.len())
        && !topic.chars().any(|c| c == '+' || c == '#' || c.is_control())
        && !topic.starts_with('$')
}

/// A text of at most [`MOST_TEXT`] bytes, without what a terminal could take for orders.
pub(crate) fn shortened(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if short.len() + c.len_utf8() > MOST_TEXT {
            break;
        }
        short.push(c);
    }
    short
}
