#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use serde_json::{Value as Json, json};

use super::{trigger::Topic, *};

fn program(value: Json) -> Result<Program, String> {
    let text: ProgramText = serde_json::from_value(value).map_err(|rule| rule.to_string())?;
    text.parse().map_err(|fault| fault.to_string())
}

/// An automation of one action.
fn doing(action: Json) -> Result<Program, String> {
    program(json!({"triggers": [{"event": "x"}], "actions": [action]}))
}

/// An automation with one condition.
fn on(condition: Json) -> Result<Program, String> {
    program(json!({"triggers": [{"event": "x"}], "conditions": [condition], "actions": [{"delay": "1s"}]}))
}

fn started_by(trigger: Json) -> Result<Program, String> {
    program(json!({"triggers": [trigger], "actions": [{"delay": "1s"}]}))
}

fn light(on: bool) -> Json {
    json!({"device": "hall", "change": {"on": on}})
}

#[test]
fn a_whole_automation_is_understood() {
    let whole = program(json!({
        "triggers": [
            {"state": "door", "of": "open", "to": true, "for": "5s"},
            {"number": "cellar", "of": "temperature", "below": 5, "for": "10m"},
            {"event": "doorbell*", "data": {"side": "front"}},
            {"at": "sunset - 30m", "except": "12-24"},
            {"offline": "freezer", "for": "10m"},
            {"webhook": true}
        ],
        "conditions": [
            {"any": [
                {"time": {"after": "22:00", "before": "06:30", "days": "fri-mon,wed"}},
                {"sun": {"after": "sunset", "before": "sunrise - 1h"}},
                {"not": {"state": "alarm", "is": false}}
            ]},
            {"expression": "device('cellar').temperature < 5"}
        ],
        "actions": [
            {"device": "hall", "change": {"on": true}, "deadline": "5s", "retry": 2, "undo": [light(false)]},
            {"delay": "2m"},
            {"wait": [{"state": "door", "of": "open", "is": false}], "timeout": "1h", "otherwise": "go_on"},
            {"wait": {"event": "doorbell*"}, "timeout": "30s"},
            {"choose": [{"if": [{"state": "hall", "is": true}], "do": [light(false)]}], "else": [{"scene": "night"}]},
            {"repeat": 3, "while": [{"state": "door", "of": "open", "is": true}], "do": [{"event": "chime"}, {"delay": "1s"}]},
            {"http": {"url": "https://example.org/x", "body": {"door": true}}}
        ],
        "mode": "queued", "max": 3
    }))
    .unwrap();
    assert_eq!((whole.triggers.len(), whole.actions.len(), whole.mode), (6, 7, Mode::Queued(3)));
    let Action::Do(first) = &whole.actions[0] else { panic!() };
    assert_eq!((first.deadline, first.retry, first.undo.len()), (Duration::from_secs(5), 2, 1));
    let Condition::Any(any) = &whole.conditions[0] else { panic!() };
    let Condition::Time { days, .. } = &any[0] else { panic!() };
    assert_eq!(days.len(), 5, "friday to monday, and wednesday");
    let Action::Do(Deed { what: What::Http(http), .. }) = &whole.actions[6] else { panic!() };
    assert_eq!(http.method, "POST");
}

#[test]
fn every_fault_has_its_place_and_a_way_out() {
    for (refused, parts) in [
        (program(json!({"triggers": [], "actions": [light(true)]})), ["triggers: ", "1 to 16"]),
        (program(json!({"triggers": [{"event": "x"}], "actions": []})), ["actions: ", "does something"]),
        (
            program(json!({"triggers": [{"event": "x"}], "actions": [light(true)], "mode": "often"})),
            ["mode: ", "queued"],
        ),
        (started_by(json!({"state": "a", "event": "b"})), ["triggers[0]: ", "both"]),
        (started_by(json!({"sunset": true})), ["triggers[0]: ", "`offline`"]),
        (started_by(json!({"state": "a", "form": 1})), ["triggers[0]: ", "`form`"]),
        (started_by(json!({"at": "noon"})), ["triggers[0]: ", "`noon` says no time"]),
        (started_by(json!({"number": "a", "of": "b"})), ["triggers[0]: ", "neither `above` nor `below`"]),
        (started_by(json!({"state": "a", "for": "10 parsecs"})), ["triggers[0].for: ", "10 parsecs"]),
        (started_by(json!({"state": "a", "for": "8d"})), ["triggers[0].for: ", "a week"]),
        (started_by(json!({"event": "Door Bell"})), ["triggers[0]: ", "no topic"]),
        (
            on(json!({"all": [{"any": [{"state": "a"}]}]})),
            ["conditions[0].all[0].any[0].state: ", "missing field `is`"],
        ),
        (
            on(json!({"number": "a", "of": "b", "above": 5, "below": 5})),
            ["conditions[0].number: ", "above 5 and below 5"],
        ),
        (on(json!({"time": {"after": "25:00"}})), ["conditions[0].time: ", "22:30"]),
        (on(json!({"time": {"days": "someday"}})), ["conditions[0].time: ", "`someday`"]),
        (on(json!({"sun": {"after": "22:00"}})), ["conditions[0].sun: ", "sunset - 30m"]),
        (on(json!({"expression": "1 +"})), ["conditions[0].expression: ", "no expression"]),
        (
            on(json!({"not": {"state": "a", "is": 1}, "is": 2})),
            ["conditions[0].not: ", "`is` does not belong"],
        ),
        (doing(json!({"delay": "5"})), ["actions[0].delay: ", "`5`"]),
        (doing(json!({"wait": [], "timeout": "5s"})), ["actions[0].wait: ", "list of conditions"]),
        (doing(json!({"wait": [{"state": "a", "is": 1}]})), ["actions[0]: ", "`timeout`"]),
        (doing(json!({"choose": []})), ["actions[0].choose: ", "no branch"]),
        (
            doing(json!({"choose": [{"if": [], "do": [{"delay": "x"}]}]})),
            ["actions[0].choose[0].do[0].delay: ", "`x`"],
        ),
        (doing(json!({"repeat": 0, "do": [light(true)]})), ["actions[0].repeat: ", "1 to 1000"]),
        (doing(json!({"device": "a", "change": {}, "retry": 11})), ["actions[0].retry: ", "10 are the most"]),
        (
            doing(json!({"device": "a", "change": {}, "deadline": "1h"})),
            ["actions[0].deadline: ", "100ms to 10m"],
        ),
        (doing(json!({"device": "a", "chang": {}})), ["actions[0]: ", "`chang`"]),
        (
            doing(json!({"device": "a", "change": {}, "undo": [{"delay": "1s"}]})),
            ["actions[0].undo[0]: ", "`http`"],
        ),
        (
            doing(json!({"event": "a", "undo": [{"event": "b", "undo": [{"event": "c"}]}]})),
            ["actions[0].undo[0]: ", "no `undo` of its own"],
        ),
        (doing(json!({"http": {"url": "file:///etc/passwd"}})), ["actions[0].http.url: ", "http://"]),
        (
            doing(json!({"http": {"url": "http://me:word@host/"}})),
            ["actions[0].http.url: ", "without a name"],
        ),
        (doing(json!({"event": "hearth.start"})), ["actions[0]: ", "the nodes' own"]),
        (started_by(json!({"event": "hearth.start"})), ["triggers[0]: ", "the nodes' own"]),
        (started_by(json!({"event": "hearth.*"})), ["triggers[0]: ", "the nodes' own"]),
        (doing(json!({"http": {"url": "http://a", "method": "BREW"}})), ["actions[0].http: ", "`BREW`"]),
    ] {
        let refused = refused.unwrap_err();
        assert!(refused.starts_with(parts[0]) && refused.contains(parts[1]), "{parts:?}: {refused}");
    }
}

#[test]
fn what_a_step_does_is_checked_as_far_as_no_expression_says_it() {
    let to = |change: Json| json!({"device": "hall", "change": change});
    for (action, place, part) in [
        (to(json!({"onn": true})), "actions[0].change: ", "`onn`"),
        (to(json!({"onn": "{{ trigger.x }}"})), "actions[0].change: ", "`onn`"),
        (to(json!({})), "actions[0].change: ", "empty"),
        (json!({"device": "hall"}), "actions[0].change: ", "docs/devices.md"),
        (json!({"device": 5, "change": {"on": true}}), "actions[0].device: ", "group or area"),
        (to(json!({"brightness": 300})), "actions[0].change: ", "0 to 100"),
        (to(json!({"brightness": 300, "on": "{{ 1 }}"})), "actions[0].change: ", "0 to 100"),
        (to(json!({"on": "toggle"})), "actions[0].change: ", "undo itself: write on or off"),
        (to(json!({"on": "toggle", "brightness": "{{ 1 }}"})), "actions[0].change: ", "undo itself"),
        (to(json!({"brightness": "{{ 1 + }}"})), "actions[0]: ", "no expression"),
        (to(json!("{{ nobody }}")), "actions[0]: ", "`nobody`"),
        (json!({"device": "{{ 1 + }}", "change": {"on": true}}), "actions[0]: ", "no expression"),
        (json!({"scene": 5}), "actions[0]: ", "expected a string"),
        (json!({"scene": "x", "transition_ms": 99_000_000}), "actions[0]: ", "one hour"),
        (json!({"scene": "{{ 1 + }}"}), "actions[0]: ", "no expression"),
        (json!({"event": "chime*"}), "actions[0]: ", "whole of its topic"),
        (json!({"event": 5}), "actions[0]: ", "no topic"),
        (json!({"event": "chime", "data": "{{ 1 + }}"}), "actions[0].data: ", "no expression"),
        (json!({"event": "chime", "data": [[[[[[[[[1]]]]]]]]]}), "actions[0].data: ", "deeper than 8"),
        (
            json!({"http": {"url": "http://a", "body": {"x": ["{{ 1 + }}"]}}}),
            "actions[0].http.body: ",
            "no expression",
        ),
        (
            json!({"event": "x", "undo": [to(json!({"on": "toggle"}))]}),
            "actions[0].undo[0].change: ",
            "undo itself",
        ),
    ] {
        let refused = doing(action.clone()).unwrap_err();
        assert!(refused.starts_with(place) && refused.contains(part), "{action}: {refused}");
    }
    for fine in [
        to(json!({"press": true})),
        to(json!({"press": "{{ trigger.data.press }}"})),
        to(json!("{{ trigger.data.change }}")),
        to(json!({"brightness": "{{ trigger.data.level }}", "transition_ms": 500})),
        to(json!({"on": "{{ not device('hall').on }}", "zones": [{"count": "{{ 3 }}"}]})),
        json!({"device": "{{ trigger.device }}", "change": {"color": "red"}}),
        json!({"scene": "{{ trigger.data.scene }}", "transition_ms": "{{ 5 }}"}),
        json!({"event": "chime", "data": {"text": "{{ half"}}),
    ] {
        assert!(doing(fine.clone()).is_ok(), "{fine}: {:?}", doing(fine.clone()));
    }
}

#[test]
fn what_is_too_deep_or_too_much_is_refused() {
    let mut deep = light(true);
    for _ in 0..7 {
        deep = json!({"repeat": 1, "do": [deep]});
    }
    assert!(doing(deep).unwrap_err().contains("6 deep at most"));
    let mut condition = json!({"state": "a", "is": 1});
    for _ in 0..9 {
        condition = json!({"not": condition});
    }
    assert!(on(condition).unwrap_err().contains("8 deep at most"));
    let forty = vec![light(true); 40];
    let both = json!([{"repeat": 1, "do": forty}, {"repeat": 1, "do": forty}]);
    assert!(
        program(json!({"triggers": [{"event": "x"}], "actions": both}))
            .unwrap_err()
            .contains("64 actions at most")
    );
}

#[test]
fn topics_are_whole_or_beginnings() {
    let topic = |text: &str| Topic::read(&Place::new("x"), text).unwrap();
    assert!(topic("doorbell").takes("doorbell") && !topic("doorbell").takes("doorbell.front"));
    assert!(topic("doorbell*").takes("doorbell.front") && topic("*").takes("anything"));
    assert!(topic("hearth*").takes("hearths") && !topic("hearth*").takes("hearth.start"));
    assert!(!topic("*").takes("hearth.start"), "what the nodes tell one another");
}

#[test]
fn braces_in_what_is_done_are_filled_in() {
    let mut fill = |expression: &crate::automation::expression::Expression| Ok(json!(expression.to_string()));
    let given = json!({"a": "{{ trigger.x }}", "b": ["plain", "{{now}}", 3], "c": "{{ half"});
    assert_eq!(
        filled(&given, &mut fill).unwrap(),
        json!({"a": "trigger.x", "b": ["plain", "now", 3], "c": "{{ half"})
    );
    assert!(filled(&json!("{{ nobody }}"), &mut fill).unwrap_err().contains("`nobody`"));
}
