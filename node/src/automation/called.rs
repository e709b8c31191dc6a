//! What starts an automation from outside: a person, or whoever calls its path. Any node may be asked, and one starts it: so every node is
//! told by an event of the nodes' own, and its name makes the id of the start, alike everywhere.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{
    program::Trigger,
    sentry::{Firing, Heard, id},
};

/// The topic of these events.
pub(crate) const TOPIC: &str = "hearth.start";
/// What expressions see as `trigger.kind` of a start by hand.
const HAND: &str = "hand";

/// A start from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Called {
    automation: String,
    by: Caller,
    /// Who it is, as the audit trail calls him; none where an older version says it, and for a path, which whoever knows it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    #[serde(default)]
    data: Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Caller {
    Hand,
    Webhook,
}

impl Called {
    /// Somebody starts it, whatever its triggers say.
    pub(crate) fn by_hand(automation: &str, who: String) -> Self {
        Self { automation: automation.to_owned(), by: Caller::Hand, who: Some(who), data: Json::Null }
    }

    /// Somebody called its path, with this to say.
    pub(crate) fn by_webhook(automation: &str, data: Json) -> Self {
        Self { automation: automation.to_owned(), by: Caller::Webhook, who: None, data }
    }

    /// As the data of the event.
    pub(crate) fn to_data(&self) -> Json {
        json!(self)
    }

    /// Of an event that was heard; none for what this version does not know.
    pub(super) fn read(heard: Heard<'_>) -> Option<Self> {
        if heard.topic == TOPIC { Self::deserialize(heard.data).ok() } else { None }
    }

    /// Whom it starts.
    pub(super) fn automation(&self) -> &str {
        &self.automation
    }

    /// The start; none where the automation is not started like that.
    pub(super) fn firing(self, triggers: &[Trigger], heard: Heard<'_>) -> Option<Firing> {
        let (trigger, why, data) = match self.by {
            Caller::Hand => {
                let why = format!("{} started it", self.who.as_deref().unwrap_or("somebody"));
                (None, why, json!({"kind": HAND, "by": self.who}))
            }
            Caller::Webhook => {
                let webhook = triggers.iter().position(|trigger| *trigger == Trigger::Webhook)?;
                (
                    Some(webhook),
                    "its webhook was called".to_owned(),
                    json!({"kind": "webhook", "data": self.data}),
                )
            }
        };
        Some(Firing {
            id: id(&self.automation, trigger.unwrap_or(usize::MAX), 0, heard.id),
            trigger: trigger.unwrap_or_default(),
            at: heard.at,
            why,
            data,
        })
    }
}

/// Who started a run with his own hand, by the data of what started it.
pub(super) fn starter(data: &Json) -> Option<String> {
    let who = data.get("by").filter(|_| data.get("kind").is_some_and(|kind| kind == HAND))?;
    who.as_str().map(str::to_owned)
}

/// Whether a start comes of a call of the automation's path.
pub(super) fn is_call(firing: &Firing) -> bool {
    firing.data.get("kind").is_some_and(|kind| kind == "webhook")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use jiff::Timestamp;

    use super::*;

    fn heard<'e>(id: &'e str, data: &'e Json) -> Heard<'e> {
        Heard { id, topic: TOPIC, data, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn every_node_makes_the_same_start_of_it_and_no_two_calls_are_one() {
        let said = Called::by_webhook("hall", json!({"count": 2})).to_data();
        let triggers = [Trigger::Webhook];
        let start = |id: &str| {
            let heard = heard(id, &said);
            Called::read(heard).unwrap().firing(&triggers, heard).unwrap()
        };
        assert_eq!(start("hearth.start:1"), start("hearth.start:1"));
        assert_ne!(start("hearth.start:1").id, start("hearth.start:2").id);
        assert_eq!(start("hearth.start:1").data, json!({"kind": "webhook", "data": {"count": 2}}));
        assert!(is_call(&start("hearth.start:1")));
    }

    #[test]
    fn a_person_starts_any_and_a_path_only_what_it_is_for() {
        let by_hand = Called::by_hand("hall", "user:ann".to_owned()).to_data();
        let by_webhook = Called::by_webhook("hall", json!("x")).to_data();
        let start =
            |data: &Json| Called::read(heard("hearth.start:1", data)).unwrap().firing(&[], heard("1", data));
        let started = start(&by_hand).unwrap();
        assert_eq!(
            (started.why.as_str(), starter(&started.data)),
            ("user:ann started it", Some("user:ann".into()))
        );
        assert!(!is_call(&start(&by_hand).unwrap()));
        assert_eq!(start(&by_webhook), None);
    }

    #[test]
    fn an_older_version_does_not_say_who_started_it_and_what_is_told_says_nothing_of_that() {
        let data = json!({"automation": "hall", "by": "hand"});
        let started = Called::read(heard("1", &data)).unwrap().firing(&[], heard("1", &data)).unwrap();
        assert_eq!((started.why.as_str(), starter(&started.data)), ("somebody started it", None));
        assert_eq!(starter(&json!({"kind": "event", "by": "user:ann"})), None);
    }

    #[test]
    fn what_another_version_says_is_passed_over() {
        for data in [json!(null), json!({"automation": "hall"}), json!({"automation": "hall", "by": "moon"})]
        {
            assert_eq!(Called::read(heard("hearth.start:1", &data)), None, "{data}");
        }
        let data = Called::by_hand("hall", "user:ann".to_owned()).to_data();
        assert_eq!(Called::read(Heard { topic: "hearth.stop", ..heard("1", &data) }), None);
    }
}
