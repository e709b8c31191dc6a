//! Actions: what an automation does.

use std::time::Duration;

use device_adapters::Target;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::{
    MAX_WAIT,
    condition::{Condition, conditions},
    fault::{Fault, Place},
    optional_time, time,
    trigger::Topic,
};
use crate::automation::expression::Expression;

/// Actions of one automation, those within others among them, at most.
const MAX_ACTIONS: usize = 64;
/// How deep actions may stand in one another.
const MAX_DEPTH: usize = 6;
/// How often a part may be repeated.
const MAX_TIMES: u16 = 1_000;
/// How often an action may be tried again.
const MAX_RETRY: u8 = 10;
/// Longest time for one action.
const MAX_DEADLINE: Duration = Duration::from_secs(600);
const DEEDS: [&str; 4] = ["device", "scene", "event", "http"];
const KINDS: [&str; 8] = ["device", "scene", "event", "http", "delay", "wait", "choose", "repeat"];

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Something is done, which may fail.
    Do(Deed),
    /// Nothing, for so long.
    Delay(Duration),
    /// Nothing, until something is so, or has happened.
    Wait(Waiting),
    /// The first branch whose conditions hold.
    Choose { branches: Vec<Branch>, otherwise: Vec<Action> },
    /// So many times, as long as the conditions hold.
    Repeat { times: u16, conditions: Vec<Condition>, actions: Vec<Action> },
}

/// Something that is done and can fail, and what to do then.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Deed {
    pub(crate) what: What,
    /// How long one try may take.
    pub(crate) deadline: Duration,
    /// How often it is tried again.
    pub(crate) retry: u8,
    /// What takes it back, should a later one fail.
    pub(crate) undo: Vec<Deed>,
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// A command to a device, group or area, as the API takes it.
    Command(Json),
    /// A scene is activated.
    Scene(Json),
    /// An event is published.
    Event { topic: String, data: Json },
    /// A host that the owner allowed is called.
    Http(Http),
}

/// A call over HTTP; whom it calls was checked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) body: Json,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Waiting {
    /// These conditions hold; none when an event is waited for.
    pub(crate) until: Vec<Condition>,
    /// An event of this topic.
    pub(crate) event: Option<Topic>,
    pub(crate) timeout: Duration,
    /// Whether the run goes on when that was in vain.
    pub(crate) goes_on: bool,
}

/// What is done if conditions hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Branch {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) actions: Vec<Action>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DelayText {
    delay: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitText {
    wait: Json,
    timeout: String,
    #[serde(default)]
    otherwise: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChooseText {
    choose: Vec<BranchText>,
    #[serde(default)]
    r#else: Vec<Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BranchText {
    r#if: Vec<Json>,
    r#do: Vec<Json>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RepeatText {
    repeat: u16,
    #[serde(default)]
    r#while: Vec<Json>,
    r#do: Vec<Json>,
}

/// How a deed is done, whatever it is.
#[derive(Deserialize)]
struct MannerText {
    deadline: Option<String>,
    #[serde(default)]
    retry: u8,
    #[serde(default)]
    undo: Vec<Json>,
}

/// The actions of an automation.
pub(super) fn program(place: &Place, parts: &[Json]) -> Result<Vec<Action>, Fault> {
    let mut left = MAX_ACTIONS;
    let actions = actions(place, parts, MAX_DEPTH, &mut left)?;
    if actions.is_empty() {
        return Err(place.fault("there is none: an automation does something"));
    }
    Ok(actions)
}

fn actions(place: &Place, parts: &[Json], depth: usize, left: &mut usize) -> Result<Vec<Action>, Fault> {
    place.list(parts, MAX_ACTIONS, |place, part| action(place, part, depth, left))
}

fn action(place: &Place, part: &Json, depth: usize, left: &mut usize) -> Result<Action, Fault> {
    *left = left
        .checked_sub(1)
        .ok_or_else(|| place.fault(format!("an automation has {MAX_ACTIONS} actions at most")))?;
    let deeper = depth
        .checked_sub(1)
        .ok_or_else(|| place.fault(format!("actions stand in one another {MAX_DEPTH} deep at most")))?;
    let (kind, members) = place.kind(part, &KINDS)?;
    match kind {
        "delay" => {
            let DelayText { delay } = place.read(members)?;
            Ok(Action::Delay(time(&place.member("delay"), &delay)?))
        }
        "wait" => wait(place, members),
        "choose" => choose(place, members, deeper, left),
        "repeat" => repeat(place, members, deeper, left),
        _ => deed(place, part).map(Action::Do),
    }
}

fn wait(place: &Place, members: Map<String, Json>) -> Result<Action, Fault> {
    let WaitText { wait, timeout, otherwise } = place.read(members)?;
    let goes_on = match otherwise.as_str() {
        "" | "stop" => false,
        "go_on" => true,
        other => return Err(place.member("otherwise").fault(format!("`{other}`: there are stop and go_on"))),
    };
    let timeout = time(&place.member("timeout"), &timeout)?;
    let place = place.member("wait");
    let (until, event) = match &wait {
        Json::Array(parts) if !parts.is_empty() => (conditions(&place, parts)?, None),
        Json::Object(members) if members.len() == 1 => match members.get("event") {
            Some(Json::String(topic)) => (Vec::new(), Some(Topic::read(&place, topic)?)),
            _ => return Err(place.fault("write a list of conditions, or `{\"event\": \"doorbell*\"}`")),
        },
        _ => return Err(place.fault("write a list of conditions, or `{\"event\": \"doorbell*\"}`")),
    };
    Ok(Action::Wait(Waiting { until, event, timeout, goes_on }))
}

fn choose(
    place: &Place,
    members: Map<String, Json>,
    depth: usize,
    left: &mut usize,
) -> Result<Action, Fault> {
    let ChooseText { choose, r#else } = place.read(members)?;
    let of_branches = place.member("choose");
    let mut branches = Vec::with_capacity(choose.len());
    for (index, BranchText { r#if, r#do }) in choose.iter().enumerate() {
        let place = of_branches.at(index);
        branches.push(Branch {
            conditions: conditions(&place.member("if"), r#if)?,
            actions: actions(&place.member("do"), r#do, depth, left)?,
        });
    }
    if branches.is_empty() {
        return Err(of_branches.fault("there is no branch"));
    }
    let otherwise = actions(&place.member("else"), &r#else, depth, left)?;
    Ok(Action::Choose { branches, otherwise })
}

fn repeat(
    place: &Place,
    members: Map<String, Json>,
    depth: usize,
    left: &mut usize,
) -> Result<Action, Fault> {
    let RepeatText { repeat, r#while, r#do } = place.read(members)?;
    if !(1..=MAX_TIMES).contains(&repeat) {
        return Err(place.member("repeat").fault(format!("{repeat} times: 1 to {MAX_TIMES} are possible")));
    }
    let conditions = conditions(&place.member("while"), &r#while)?;
    let actions = actions(&place.member("do"), &r#do, depth, left)?;
    if actions.is_empty() {
        return Err(place.member("do").fault("there is nothing to repeat"));
    }
    Ok(Action::Repeat { times: repeat, conditions, actions })
}

/// Something that is done. What takes it back is done plainly: it has no undo of its own.
fn deed(place: &Place, part: &Json) -> Result<Deed, Fault> {
    let (kind, mut members) = place.kind(part, &DEEDS)?;
    let manner = ["deadline", "retry", "undo"].map(|name| members.remove_entry(name));
    let MannerText { deadline, retry, undo } = place.read(manner.into_iter().flatten().collect())?;
    if retry > MAX_RETRY {
        return Err(place.member("retry").fault(format!("{retry} times: {MAX_RETRY} are the most")));
    }
    let of_deadline = place.member("deadline");
    let deadline = optional_time(&of_deadline, deadline.as_ref())?.unwrap_or(Duration::from_secs(10));
    if deadline < Duration::from_millis(100) || deadline > MAX_DEADLINE.min(MAX_WAIT) {
        return Err(of_deadline.fault("a deadline is from 100ms to 10m"));
    }
    let undo = place.member("undo").list(&undo, MAX_ACTIONS, |place, part| {
        let undo = deed(place, part)?;
        if undo.undo.is_empty() {
            Ok(undo)
        } else {
            Err(place.fault("what takes back has no `undo` of its own"))
        }
    })?;
    Ok(Deed { what: what(place, kind, members)?, deadline, retry, undo })
}

fn what(place: &Place, kind: &str, members: Map<String, Json>) -> Result<What, Fault> {
    let only = |allowed: &[&str]| match members.keys().find(|name| !allowed.contains(&name.as_str())) {
        Some(other) => {
            Err(place.fault(format!("`{other}` does not belong to it: there are {}", allowed.join(", "))))
        }
        None => Ok(()),
    };
    match kind {
        "device" => {
            only(&["device", "change"])?;
            Ok(What::Command(Json::Object(members)))
        }
        "scene" => {
            only(&["scene", "transition_ms"])?;
            Ok(What::Scene(Json::Object(members)))
        }
        "event" => {
            only(&["event", "data"])?;
            let topic = members.get("event").and_then(Json::as_str).unwrap_or_default().to_owned();
            Topic::read(place, topic.trim_end_matches('*'))?;
            Ok(What::Event { topic, data: members.get("data").cloned().unwrap_or_default() })
        }
        _ => {
            only(&["http"])?;
            let Some(Json::Object(http)) = members.get("http").cloned() else {
                return Err(place
                    .fault("`http` is an object with `url`, and `method` and `body` where they are needed"));
            };
            http_call(&place.member("http"), http).map(What::Http)
        }
    }
}

fn http_call(place: &Place, members: Map<String, Json>) -> Result<Http, Fault> {
    let mut http: Http = place.read(members)?;
    Target::of(&http.url).map_err(|rule| place.member("url").fault(rule))?;
    http.method = if http.method.is_empty() { "POST".to_owned() } else { http.method.to_uppercase() };
    if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&http.method.as_str()) {
        return Err(place.fault(format!("`{}` is none of GET, POST, PUT, PATCH, DELETE", http.method)));
    }
    Ok(http)
}

/// A text that may hold expressions of its own, `{{ … }}` alone: the value of one.
pub(crate) fn filled(
    value: &Json,
    fill: &mut impl FnMut(&Expression) -> Result<Json, String>,
) -> Result<Json, String> {
    Ok(match value {
        Json::String(text) => match inner(text) {
            Some(expression) => fill(&expression.parse()?)?,
            None => json!(text),
        },
        Json::Array(items) => items.iter().map(|item| filled(item, fill)).collect::<Result<_, _>>()?,
        Json::Object(members) => {
            let member = |(name, value): (&String, &Json)| Ok((name.clone(), filled(value, fill)?));
            Json::Object(members.iter().map(member).collect::<Result<_, String>>()?)
        }
        plain => plain.clone(),
    })
}

fn inner(text: &str) -> Option<&str> {
    text.trim().strip_prefix("{{")?.strip_suffix("}}").map(str::trim)
}
