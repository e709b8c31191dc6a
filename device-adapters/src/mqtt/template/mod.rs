//! The templates of announcements: the part of Jinja that devices really announce, bounded in time and memory.
//!
//! There are no loops, no variables and no macros, so a template takes as many steps as it has parts; every text that it
//! makes is bounded as well. (An engine with a limit on steps alone is not enough: `"a" * 100000000` is one step.)
//!
//! Sources: <https://www.home-assistant.io/docs/configuration/templating/#using-templates-with-the-mqtt-integration>,
//! <https://jinja.palletsprojects.com/en/stable/templates/>.

mod evaluate;
mod numbers;
mod parse;
#[cfg(test)]
mod tests;

use serde_json::Value;

use self::evaluate::Scope;
use self::parse::Node;
use super::wire::incoming::Incoming;

/// The longest template, in bytes.
pub(crate) const MOST_TEMPLATE: usize = 1_024;
/// The longest text in one, on its way or coming out, in bytes.
pub(crate) const MOST_TEXT: usize = 32 * 1_024;

/// Why a template cannot be used, or yields nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// It is too long.
    #[error("a template of {0} bytes: at most {MOST_TEMPLATE} are read")]
    TooLong(usize),
    /// It is not a template, or uses what is not supported here.
    #[error("a template that is not understood here, at {0:?}")]
    NotUnderstood(String),
    /// It is nested too deeply.
    #[error("a template that is nested too deeply")]
    TooDeep,
    /// It makes too long a text.
    #[error("a text of more than {MOST_TEXT} bytes")]
    TooMuch,
    /// What it builds on is not in the message, so the message is not meant for it.
    #[error("the message does not hold what the template needs")]
    Missing,
    /// It cannot be applied to this message.
    #[error("{0}")]
    Unfit(String),
}

/// A template, parsed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Parses one.
    ///
    /// # Errors
    /// That it is too long, nested too deeply or not understood.
    pub(crate) fn parse(source: &str) -> Result<Self, TemplateError> {
        if source.len() > MOST_TEMPLATE {
            return Err(TemplateError::TooLong(source.len()));
        }
        Ok(Self { nodes: parse::template(source)? })
    }

    /// What it makes of a message.
    ///
    /// # Errors
    /// That it makes nothing of this message.
    pub(crate) fn of_message(&self, message: &Incoming) -> Result<String, TemplateError> {
        // Where the message is no JSON the name stays undefined, as Home Assistant leaves it.
        let json = message.json().map(|json| ("value_json", json));
        self.render([("value", message.value())].into_iter().chain(json).collect())
    }

    /// What it makes of named values, for a command.
    ///
    /// # Errors
    /// That it makes nothing of them.
    pub(crate) fn of_values(&self, values: &[(&str, &Value)]) -> Result<String, TemplateError> {
        self.render(values.to_vec())
    }

    fn render(&self, values: Vec<(&str, &Value)>) -> Result<String, TemplateError> {
        let mut text = String::new();
        Scope::new(values).render(&self.nodes, &mut text)?;
        Ok(text.trim().to_owned())
    }
}

/// A value as Python writes it, which is how payloads are compared with what announcements say.
pub(crate) fn as_text(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
