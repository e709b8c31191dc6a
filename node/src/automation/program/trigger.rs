//! Triggers: what starts an automation.

use std::time::Duration;

use device_adapters::schedule::{Rule, RuleError};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{
    Source,
    condition::Bounds,
    fault::{Fault, Place},
    optional_time, source,
};
use crate::automation::events::{INTERNAL, is_internal};

/// Triggers of one automation, at most.
const MAX_TRIGGERS: usize = 16;
const KINDS: [&str; 6] = ["state", "number", "event", "at", "offline", "webhook"];

/// What starts an automation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Trigger {
    /// Something becomes another value.
    State {
        what: Source,
        from: Option<Json>,
        to: Option<Json>,
        /// For so long it must stay so.
        hold: Duration,
    },
    /// A number comes to lie between bounds.
    Number { what: Source, bounds: Bounds, hold: Duration },
    /// Something happened.
    Event { topic: Topic, data: Map<String, Json> },
    /// A time comes.
    At(Rule),
    /// A device does not answer.
    Offline { device: String, hold: Duration },
    /// Somebody calls its path.
    Webhook,
}

/// A topic, or all that begin so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    text: String,
    is_prefix: bool,
}

impl Topic {
    /// Whether an event of that topic is one of these; what the nodes tell one another never is.
    pub(crate) fn takes(&self, topic: &str) -> bool {
        let is_meant = if self.is_prefix { topic.starts_with(&self.text) } else { topic == self.text };
        is_meant && !is_internal(topic)
    }

    pub(super) fn read(place: &Place, text: &str) -> Result<Self, Fault> {
        let is_prefix = text.ends_with('*');
        let name = text.trim_end_matches('*');
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        if name.len() > 40 || (name.is_empty() && !is_prefix) || !name.bytes().all(allowed) {
            return Err(place.fault(format!(
                "`{text}` is no topic: write doorbell.front, or doorbell* for all that begin so"
            )));
        }
        if is_internal(name) {
            return Err(
                place.fault(format!("`{text}`: topics that begin with `{INTERNAL}` are the nodes' own"))
            );
        }
        Ok(Self { text: name.to_owned(), is_prefix })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateText {
    state: String,
    of: Option<String>,
    from: Option<Json>,
    to: Option<Json>,
    r#for: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NumberText {
    number: String,
    of: String,
    above: Option<f64>,
    below: Option<f64>,
    r#for: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventText {
    event: String,
    #[serde(default)]
    data: Map<String, Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AtText {
    at: String,
    #[serde(default)]
    only: String,
    #[serde(default)]
    except: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfflineText {
    offline: String,
    r#for: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookText {
    webhook: bool,
}

pub(super) fn triggers(place: &Place, parts: &[Json]) -> Result<Vec<Trigger>, Fault> {
    if parts.is_empty() {
        return Err(place.fault(format!("there is none: give 1 to {MAX_TRIGGERS}")));
    }
    let triggers = place.list(parts, MAX_TRIGGERS, trigger)?;
    if triggers.iter().filter(|trigger| **trigger == Trigger::Webhook).count() > 1 {
        return Err(place.fault("there are two webhooks: an automation has one path"));
    }
    Ok(triggers)
}

fn trigger(place: &Place, part: &Json) -> Result<Trigger, Fault> {
    let (kind, members) = place.kind(part, &KINDS)?;
    let hold = |text: Option<&String>| {
        Ok::<_, Fault>(optional_time(&place.member("for"), text)?.unwrap_or_default())
    };
    match kind {
        "state" => {
            let StateText { state, of, from, to, r#for } = place.read(members)?;
            Ok(Trigger::State { what: source(place, state, of)?, from, to, hold: hold(r#for.as_ref())? })
        }
        "number" => {
            let NumberText { number, of, above, below, r#for } = place.read(members)?;
            let (what, bounds) = (source(place, number, Some(of))?, Bounds::read(place, above, below)?);
            Ok(Trigger::Number { what, bounds, hold: hold(r#for.as_ref())? })
        }
        "event" => {
            let EventText { event, data } = place.read(members)?;
            Ok(Trigger::Event { topic: Topic::read(place, &event)?, data })
        }
        "at" => at(place, members),
        "offline" => {
            let OfflineText { offline, r#for } = place.read(members)?;
            let device = source(place, offline, None)?.device;
            Ok(Trigger::Offline { device, hold: hold(r#for.as_ref())? })
        }
        _ => match place.read(members)? {
            WebhookText { webhook: true } => Ok(Trigger::Webhook),
            WebhookText { webhook: false } => Err(place.fault("leave the webhook out, or write `true`")),
        },
    }
}

fn at(place: &Place, members: Map<String, Json>) -> Result<Trigger, Fault> {
    let AtText { at, only, except } = place.read(members)?;
    let rule = || {
        let (when, only, except) = (at.parse()?, only.parse()?, except.parse()?);
        Ok::<_, RuleError>(Rule { when, only, except })
    };
    rule().map(Trigger::At).map_err(|rule| place.fault(rule))
}
