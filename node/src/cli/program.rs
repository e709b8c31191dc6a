//! The file of an automation, as people write it: TOML or JSON; and back.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::exit::{Exit, Failure};

/// The largest body of the API, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The lists of an automation, in the order in which they are read.
const LISTS: [&str; 3] = ["triggers", "conditions", "actions"];
/// What says what a part is stands first in it.
const KINDS: [&str; 20] = [
    "state",
    "number",
    "event",
    "at",
    "offline",
    "webhook",
    "all",
    "any",
    "not",
    "time",
    "sun",
    "expression",
    "device",
    "scene",
    "http",
    "delay",
    "wait",
    "choose",
    "repeat",
    "if",
];

/// Reads the file of an automation; `-` is stdin.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn read(from: &Path) -> Result<Map<String, Value>, Failure> {
    let is_stdin = from.as_os_str() == "-";
    let name = if is_stdin { "stdin".to_owned() } else { from.display().to_string() };
    let unreadable = |error: io::Error| {
        let detail = format!("{name} cannot be read: {error}");
        Failure::new(Exit::Failure, detail, "give a file in TOML or JSON, or - for stdin")
    };
    let source: Box<dyn Read> =
        if is_stdin { Box::new(io::stdin()) } else { Box::new(File::open(from).map_err(unreadable)?) };
    let mut text = String::new();
    let length = source.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    let fix = "docs/automation.md has the forms";
    if u64::try_from(length).is_ok_and(|length| length > MAX_FILE) {
        let detail = format!("{name} holds more than 1 MiB, the most that an automation may be");
        return Err(Failure::new(Exit::Usage, detail, fix));
    }
    let is_json = from.extension().is_some_and(|extension| extension == "json");
    parse(&text, is_json).map_err(|wrong| Failure::new(Exit::Usage, format!("{name}: {wrong}"), fix))
}

/// Reads the text of an automation. What begins with a brace is JSON: no TOML does.
pub(super) fn parse(text: &str, is_json: bool) -> Result<Map<String, Value>, String> {
    if is_json || text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("it is no JSON object: {error}"));
    }
    let table: toml::Table = text.parse().map_err(|error| told(text, &error))?;
    Ok(table.into_iter().map(|(name, value)| (name, plain(value))).collect())
}

/// What TOML says of an error, on one line, with its place.
fn told(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    format!("line {line}: {}", error.message().trim().replace('\n', ", "))
}

fn plain(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        // TOML takes a date without quotes, too.
        toml::Value::Datetime(at) => at.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(plain).collect(),
        toml::Value::Table(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, plain(value))).collect())
        }
    }
}

/// The file that makes an automation again; none for one with a null somewhere, which TOML has no word for.
pub(super) fn to_toml(program: &Map<String, Value>) -> Option<String> {
    let (mut head, mut tables) = (String::new(), String::new());
    for name in ["mode", "max", "enabled"] {
        match program.get(name) {
            None | Some(Value::Null) => {}
            // As it is where nobody says so.
            Some(value) if value == "" || *value == Value::Bool(true) => {}
            Some(value) => head.push_str(&format!("{name} = {}\n", inline(value, 0)?)),
        }
    }
    for name in LISTS {
        let parts = program.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let members: Option<Vec<_>> = parts.iter().map(Value::as_object).collect();
        match members {
            Some(parts) if !parts.is_empty() => {
                for part in parts {
                    tables.push_str(&format!("\n[[{name}]]\n{}", lines(part)?));
                }
            }
            _ if name == "conditions" && parts.is_empty() => {}
            _ => head.push_str(&format!("{name} = {}\n", array(parts, 0)?)),
        }
    }
    Some(format!("{head}{tables}").trim_start().to_owned())
}

/// The members of a part, each on a line.
fn lines(part: &Map<String, Value>) -> Option<String> {
    ordered(part).map(|(name, value)| Some(format!("{} = {}\n", key(name), inline(value, 0)?))).collect()
}

fn inline(value: &Value, depth: usize) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => array(items, depth)?,
        Value::Object(members) if members.is_empty() => "{}".to_owned(),
        Value::Object(members) => {
            let member =
                |(name, value): (&String, &Value)| Some(format!("{} = {}", key(name), inline(value, depth)?));
            let members: Option<Vec<_>> = ordered(members).map(member).collect();
            format!("{{ {} }}", members?.join(", "))
        }
    })
}

/// A list on one line, or with a line for each of its objects.
fn array(items: &[Value], depth: usize) -> Option<String> {
    let has_objects = items.iter().any(Value::is_object);
    let depth = if has_objects { depth + 1 } else { depth };
    let shown: Vec<String> = items.iter().map(|item| inline(item, depth)).collect::<Option<_>>()?;
    if !has_objects {
        return Some(format!("[{}]", shown.join(", ")));
    }
    let indent = "  ".repeat(depth);
    let shown: String = shown.iter().map(|item| format!("{indent}{item},\n")).collect();
    Some(format!("[\n{shown}{}]", "  ".repeat(depth - 1)))
}

fn ordered(members: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let (first, rest): (Vec<_>, Vec<_>) =
        members.iter().partition(|(name, _)| KINDS.contains(&name.as_str()));
    first.into_iter().chain(rest)
}

fn key(name: &str) -> String {
    let is_bare =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// TOML quotes as JSON does, and forbids one letter more.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::automation::ProgramText;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(members) = value else { panic!("{value}") };
        members
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = "mode = 'queued'\nmax = 2\n[[triggers]]\nstate = 'door'\nto = true\n\
            [[actions]]\ndevice = 'hall'\nchange = { on = true, brightness = 40.5 }\n";
        let json = json!({
            "mode": "queued", "max": 2, "triggers": [{"state": "door", "to": true}],
            "actions": [{"device": "hall", "change": {"on": true, "brightness": 40.5}}],
        });
        assert_eq!(parse(toml, false).unwrap(), object(json.clone()));
        assert_eq!(parse(&format!("\n {json}"), false).unwrap(), object(json));
        assert_eq!(parse("only = 2026-12-24", false).unwrap(), object(json!({"only": "2026-12-24"})));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_place() {
        for (text, is_json, parts) in [
            ("[[triggers]]\nevent = doorbell\n", false, ["line 2: ", ""]),
            ("a = 1\n\na = 2\n", false, ["line 3: ", "duplicate key"]),
            ("{\"triggers\": [}", false, ["it is no JSON object: ", "line 1 column 15"]),
            ("[1, 2]", true, ["it is no JSON object: ", "line 1"]),
        ] {
            let wrong = parse(text, is_json).unwrap_err();
            assert!(wrong.starts_with(parts[0]) && wrong.contains(parts[1]), "{text}: {wrong}");
            assert!(!wrong.contains('\n'), "{wrong}");
        }
    }

    #[test]
    fn an_automation_is_written_as_people_would() {
        let written = to_toml(&object(json!({
            "mode": "", "max": null, "enabled": false, "conditions": [],
            "triggers": [{"event": "doorbell*", "data": {"side": "front"}}],
            "actions": [
                {"change": {"on": true}, "device": "hall", "undo": [{"change": {"on": false}, "device": "hall"}]},
                {"do": [{"delay": "1s"}], "repeat": 3},
            ],
        })));
        assert_eq!(
            written.unwrap(),
            "enabled = false\n\n[[triggers]]\nevent = \"doorbell*\"\ndata = { side = \"front\" }\n\n\
             [[actions]]\ndevice = \"hall\"\nchange = { on = true }\nundo = [\n  \
             { device = \"hall\", change = { on = false } },\n]\n\n\
             [[actions]]\nrepeat = 3\ndo = [\n  { delay = \"1s\" },\n]\n"
        );
        assert_eq!(to_toml(&object(json!({"triggers": [{"state": "a", "to": null}], "actions": []}))), None);
    }

    /// Any JSON but null.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e12_f64..1e12).prop_map(Value::from),
            "\\PC*|[\u{0}-\u{ff}]*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,8}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(
            triggers in prop::collection::vec(any_json(), 0..3),
            actions in prop::collection::vec(any_json(), 0..3),
            max in 1..9,
        ) {
            let program = object(json!({"triggers": triggers, "actions": actions, "mode": "queued", "max": max}));
            let written = to_toml(&program).unwrap();
            prop_assert_eq!(parse(&written, false).map_err(|wrong| format!("{wrong}\n{written}")), Ok(program));
        }
    }

    /// What stands between fences of these languages in a document.
    fn fenced<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
        let fence = format!("```{language}\n");
        document.split(&fence).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
    }

    #[test]
    fn every_example_of_the_documentation_is_understood() {
        let document = include_str!("../../../docs/automation.md");
        let (toml, json) = (fenced(document, "toml"), fenced(document, "json"));
        let mut shown = BTreeSet::new();
        for text in toml.into_iter().chain(json) {
            let mut example = parse(text, false).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
            names(&Value::Object(example.clone()), &mut shown);
            // An example of a part says nothing of the others.
            example.entry("triggers").or_insert_with(|| json!([{"event": "x"}]));
            example.entry("actions").or_insert_with(|| json!([{"delay": "1s"}]));
            example.remove("enabled");
            let again = parse(&to_toml(&example).unwrap(), false).unwrap();
            assert_eq!(again, example, "it comes back as it was");
            let program: ProgramText = serde_json::from_value(Value::Object(example))
                .unwrap_or_else(|rule| panic!("{rule}\n{text}"));
            program.parse().unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        }
        let missing: Vec<_> = KINDS.iter().filter(|kind| !shown.contains(**kind)).collect();
        assert!(missing.is_empty(), "no example has {missing:?}");
    }

    /// The names of all members.
    fn names(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| {
                found.insert(name.clone());
                names(value, found);
            }),
            Value::Array(items) => items.iter().for_each(|item| names(item, found)),
            _ => {}
        }
    }
}
