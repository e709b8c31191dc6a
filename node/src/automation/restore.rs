//! What a household decided of its home, its schedules, scenes and automations, as an export has it: brought back into any home.
//!
//! It is checked like what somebody writes anew, except that its devices need not be there yet: they are found after the restore. What
//! was of the moment stays behind: runs, what was before an activation, and since when a schedule counts.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use mesh_proto::{FieldName, ObjectId, Value};

use super::{
    HOME, hosts,
    program::kept,
    requests::{home_fields, named, set},
    scenes::{self, Scene},
    spec::{HomeText, Spec, fields},
};
use crate::{
    api::{
        commands::{check_change_kept, check_later},
        problem::Problem,
    },
    service::{FieldView, ObjectView, Op},
};

/// What of an automation somebody wrote. A webhook's address is a secret of the home that made it.
const PROGRAM: [&str; 6] = ["triggers", "conditions", "actions", "mode", "max", "enabled"];

/// The writes that bring an object back; none for a kind that clients write themselves.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn restore(
    id: &ObjectId,
    values: &BTreeMap<FieldName, Value>,
    now: Timestamp,
) -> Option<Result<Vec<Op>, String>> {
    let object = view(id, values);
    match id.kind() {
        "home" => Some(home(&object, now)),
        "schedule" => Some(checked_name(id).and_then(|()| schedule(&object, now))),
        "scene" => Some(checked_name(id).and_then(|()| scene(&object))),
        "automation" => Some(checked_name(id).and_then(|()| automation(id, values))),
        _ => None,
    }
}

fn home(object: &ObjectView, now: Timestamp) -> Result<Vec<Op>, String> {
    if object.id.name() != HOME {
        return Err(format!("{} is no home: there is home/{HOME} alone", object.id));
    }
    let home = HomeText { since: now, ..HomeText::read(object) };
    home.home()?;
    let callable: Vec<String> = home.hosts.iter().map(ToString::to_string).collect();
    let mut ops =
        hosts::change(&object.id, &BTreeSet::new(), &callable, &[]).map_err(|refused| refused.to_string())?;
    ops.extend(home_fields(&home));
    Ok(ops)
}

fn schedule(object: &ObjectView, now: Timestamp) -> Result<Vec<Op>, String> {
    let Spec { text, parsed, .. } = Spec::read(object);
    parsed?;
    for command in &text.commands {
        let checked = match command.get("scene") {
            Some(_) => scenes::check_step(command),
            None => check_later(command).map(drop),
        };
        checked.map_err(|problem| told(&problem))?;
    }
    Ok(set(&object.id, fields(&text, now)))
}

fn scene(object: &ObjectView) -> Result<Vec<Op>, String> {
    let scene = Scene::read(object);
    scenes::check_size(&scene).map_err(|problem| told(&problem))?;
    for (device, change) in &scene.set {
        check_change_kept(device, change).map_err(|problem| told(&problem))?;
        Scene::fits(device, change).map_err(|reason| format!("{device}: {reason}"))?;
    }
    Ok(Scene::new(object.id.clone()).become_ops(&scene))
}

/// One that is not understood is brought back all the same, and says so, as when somebody writes it.
fn automation(id: &ObjectId, values: &BTreeMap<FieldName, Value>) -> Result<Vec<Op>, String> {
    for name in ["triggers", "actions"] {
        let is_list = |value| kept(value).is_some();
        if !FieldName::new(name).is_ok_and(|field| values.get(&field).is_some_and(is_list)) {
            return Err(format!("{id} has no list of {name}"));
        }
    }
    let kept = values.iter().filter(|(field, _)| PROGRAM.contains(&field.as_str()));
    Ok(kept.map(|(field, value)| Op::Set(id.clone(), field.clone(), value.clone())).collect())
}

fn checked_name(id: &ObjectId) -> Result<(), String> {
    named(id.kind(), id.name()).map(drop).map_err(|refused| refused.to_string())
}

fn told(problem: &Problem) -> String {
    problem.detail().to_owned()
}

fn view(id: &ObjectId, values: &BTreeMap<FieldName, Value>) -> ObjectView {
    let field =
        |value: &Value| FieldView { value: value.clone(), at_ms: 0, by: String::new(), durable: true };
    let fields = values.iter().map(|(name, value)| (name.clone(), field(value))).collect();
    ObjectView { id: id.clone(), fields, complete: true }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::devices::encode;

    fn names(id: &str, fields: &Json) -> Result<Vec<String>, String> {
        let values = fields.as_object().unwrap();
        let values =
            values.iter().map(|(name, value)| (FieldName::new(name).unwrap(), encode(value))).collect();
        let ops = restore(&ObjectId::new(id).unwrap(), &values, Timestamp::UNIX_EPOCH).unwrap()?;
        let name = |op: Op| match op {
            Op::Set(object, field, _) if object.as_str() == id => field.as_str().to_owned(),
            op => format!("{op:?}"),
        };
        Ok(ops.into_iter().map(name).collect())
    }

    #[test]
    fn what_somebody_decided_comes_back_and_what_was_of_the_moment_does_not() {
        let run = json!({"at": 1_000, "began": 1_000, "state": "done"});
        let schedule = json!({"when": "sunset", "missed": "", "do": [
            {"device": "device/lamp", "change": {"on": true}}, {"scene": "cosy"}], "since": 5, "run.00000000000000ab": run});
        assert_eq!(
            names("schedule/x", &schedule).unwrap(),
            ["when", "only", "except", "missed", "do", "enabled", "since"]
        );
        let scene = json!({"transition_ms": 5, "set.lamp": {"on": true}, "before.lamp": {"on": false}, "activated": {"at": 1, "by": "x"}});
        assert_eq!(names("scene/x", &scene).unwrap(), ["set.lamp", "transition_ms"]);
        let home = json!({"zone": "Europe/Berlin", "latitude": 52.5, "longitude": 13.4, "since": 5});
        assert_eq!(names("home/main", &home).unwrap(), ["zone", "since", "latitude", "longitude"]);
        let callable = json!({"zone": "UTC", "http.x": "ntfy.sh"});
        assert_eq!(
            names("home/main", &callable).unwrap().len(),
            3,
            "the host that may be called is among it"
        );
        let program = json!({"triggers": [], "actions": [{"nonsense": 1}], "enabled": false, "webhook": "secret", "tripped": "x",
            "run.00000000000000ab.1": run});
        assert_eq!(names("automation/x", &program).unwrap(), ["actions", "enabled", "triggers"]);
        let texts = json!({"triggers": "[]", "conditions": "[]", "actions": r#"[{"event": "x"}]"#});
        assert_eq!(names("automation/x", &texts).unwrap(), ["actions", "conditions", "triggers"]);
    }

    #[test]
    fn what_nobody_could_have_written_is_refused_in_words() {
        let light = json!([{"device": "device/lamp", "change": {"on": true}}]);
        for (id, fields, word) in [
            ("home/other", json!({"zone": "UTC"}), "home/main"),
            ("home/main", json!({"zone": "Europe/Nowhere"}), "Europe/Nowhere"),
            ("schedule/x", json!({"when": "noon", "do": light}), "noon"),
            ("schedule/x", json!({"when": "sunset", "do": []}), "1 to 16"),
            (
                "schedule/x",
                json!({"when": "sunset", "do": [{"device": "x", "change": {"on": "toggle"}}]}),
                "toggle",
            ),
            ("schedule/x", json!({"when": "sunset", "do": [{"scene": "x", "key": "k"}]}), "key"),
            ("schedule/X.y", json!({"when": "sunset", "do": light}), "X.y"),
            ("scene/x", json!({"transition_ms": 0}), "0 devices"),
            ("scene/x", json!({"transition_ms": 0, "set.lamp": {"press": true}}), "press"),
            ("scene/x", json!({"transition_ms": 99_000_000, "set.lamp": {"on": true}}), "transition_ms"),
            ("automation/x", json!({"triggers": 5, "actions": []}), "triggers"),
            ("automation/x", json!({"triggers": "[]", "actions": "[5"}), "actions"),
        ] {
            let refused = names(id, &fields).unwrap_err();
            assert!(refused.contains(word), "{id} {fields}: {refused}");
        }
    }
}
