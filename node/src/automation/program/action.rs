//! Actions: what an automation does.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{
    MAX_WAIT,
    condition::{Condition, conditions},
    fault::{Fault, Place},
    optional_time,
    step::{What, what},
    time,
    trigger::Topic,
};

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
