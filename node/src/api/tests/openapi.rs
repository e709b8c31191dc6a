//! The document of the API against the router, and its schemas against their examples.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use serde_json::Map;

use super::*;
use crate::api::{
    OPEN_ROUTES, ROUTES,
    openapi::{PARTS, document},
};

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];
/// Every keyword that [`check`] knows.
const KEYWORDS: &[&str] = &[
    "$ref",
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "anyOf",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "format",
    "description",
    "default",
    "example",
];

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in members(document, "paths") {
        for method in METHODS {
            found.extend(item.get(method).map(|said| (path.clone(), method.to_owned(), said.clone())));
        }
    }
    found
}

/// Every schema, with where it is.
fn schemas(document: &Value) -> Vec<(String, Value)> {
    let mut found: Vec<_> = members(&document["components"], "schemas")
        .map(|(name, schema)| (name.clone(), schema.clone()))
        .collect();
    for (path, method, operation) in operations(document) {
        let at = format!("{method} {path}");
        let bodies =
            members(&operation, "requestBody").filter(|(name, _)| *name == "content").map(|(_, body)| body);
        let answers = members(&operation, "responses").filter_map(|(_, answer)| answer.get("content"));
        for content in bodies.chain(answers) {
            let each = content.as_object().unwrap().values();
            found.extend(each.map(|media| (at.clone(), media["schema"].clone())));
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            found.push((at.clone(), parameter["schema"].clone()));
        }
    }
    found
}

#[test]
fn every_part_is_read_and_nothing_stands_twice() {
    let (mut paths, mut names) = (BTreeSet::new(), BTreeSet::new());
    for part in PARTS {
        let part: Value = serde_json::from_str(part).unwrap();
        for (path, operations) in members(&part, "paths") {
            assert!(paths.insert(path.clone()), "{path} stands twice");
            for (method, said) in operations.as_object().unwrap() {
                assert!(METHODS.contains(&&**method), "{method} {path}");
                let role = said["role"].as_str().unwrap();
                assert!(
                    ["open", "socket", "viewer", "operator", "admin"].contains(&role),
                    "{method} {path}: {role}"
                );
                assert!(said["summary"].is_string() && said["tag"].is_string(), "{method} {path}");
                assert!(!said["answers"].as_object().unwrap().is_empty(), "{method} {path}");
            }
        }
        for (name, _) in members(&part, "schemas") {
            assert!(names.insert(name.clone()), "{name} stands twice");
        }
    }
    let document = document();
    let ids: BTreeSet<_> =
        operations(&document).iter().map(|(_, _, said)| said["operationId"].to_string()).collect();
    assert_eq!(ids.len(), operations(&document).len(), "each operation has an id of its own");
    assert!(document.to_string().len() < 256 * 1024);
}

#[tokio::test]
async fn the_document_and_the_router_have_the_same_routes_and_methods() {
    let bench = Bench::new();
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method, _) in operations(&document()) {
        documented.entry(path).or_default().insert(method);
    }
    let mut served = BTreeMap::new();
    for route in ROUTES {
        let answer = bench.call(Method::OPTIONS, &route.replace(['{', '}'], ""), Value::Null).await;
        let methods = answer.headers[header::ALLOW]
            .to_str()
            .unwrap()
            .split(',')
            .map(|method| method.trim().to_lowercase());
        served.insert(route.to_owned(), methods.filter(|method| method != "head").collect::<BTreeSet<_>>());
    }
    assert_eq!(documented, served);
}

#[test]
fn the_open_routes_are_those_that_need_no_role() {
    let is_open = |said: &Value| ["open", "socket"].contains(&said["x-role"].as_str().unwrap());
    let open: BTreeSet<_> = operations(&document())
        .into_iter()
        .filter_map(|(path, _, said)| is_open(&said).then_some(path))
        .collect();
    assert_eq!(open, OPEN_ROUTES.map(str::to_owned).into());
}

#[test]
fn what_the_guards_answer_is_told_everywhere_and_a_session_beside_a_token() {
    let document = document();
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(
        (&schemes["session"]["in"], &schemes["session"]["name"]),
        (&json!("cookie"), &json!("__Host-hearth"))
    );
    let mut by_session = Vec::new();
    for (path, method, operation) in operations(&document) {
        for status in ["400", "403", "415", "417", "421", "429"] {
            assert!(operation["responses"].get(status).is_some(), "{method} {path}: {status}");
        }
        let security = &operation["security"];
        if ["open", "socket"].contains(&operation["x-role"].as_str().unwrap()) {
            assert_eq!(*security, json!([]), "{method} {path}");
        } else if *security == json!([{"session": []}]) {
            by_session.push(format!("{method} {path}"));
        } else {
            assert_eq!(*security, json!([{"bearer": []}, {"session": []}]), "{method} {path}");
        }
    }
    assert_eq!(by_session, ["post /api/v1/logout", "put /api/v1/me/password"]);
}

#[tokio::test]
async fn every_operation_demands_the_role_that_the_document_says() {
    let bench = Bench::new();
    let mut tokens = Vec::new();
    for role in ["viewer", "operator", "admin"] {
        tokens.push((role, bench.token(role.parse().unwrap()).await));
    }
    for (path, method, operation) in operations(&document()) {
        let role = operation["x-role"].as_str().unwrap();
        // A WebSocket's client may show its token later; files that stream are no answers to wait for.
        if ["/api/v1/watch", "/api/v1/backup", "/api/v1/export", "/api/v1/import"].contains(&&*path) {
            continue;
        }
        // Who came by a token has no sessions and no password of his own.
        let is_own = path.starts_with("/api/v1/sessions") || path == "/api/v1/me/password";
        let path = path.replace(['{', '}'], "");
        let outcome = refused(&bench, &method, &path, None).await;
        match role {
            "open" => assert_ne!(outcome, Some(401), "{method} {path}"),
            "socket" => assert_eq!(outcome, Some(403), "{method} {path}"),
            _ => assert_eq!(outcome, Some(401), "{method} {path}"),
        }
        let needed = tokens.iter().position(|(name, _)| *name == role).filter(|_| !is_own);
        let Some(needed) = needed else { continue };
        for (given, (name, token)) in tokens.iter().enumerate() {
            let outcome = refused(&bench, &method, &path, Some(token)).await;
            assert_eq!(outcome.is_some(), given < needed, "{method} {path} as {name}: {outcome:?}");
        }
    }
}

#[test]
fn schemas_say_what_their_examples_are_and_use_words_that_are_checked() {
    let document = document();
    let (mut examples, mut refs) = (0, 0);
    for (at, schema) in schemas(&document) {
        walk(&schema, &mut |schema| {
            for keyword in schema.keys() {
                assert!(KEYWORDS.contains(&&**keyword), "{at}: {keyword}");
            }
            if let Some(reference) = schema.get("$ref") {
                refs += 1;
                assert!(resolve(&document, reference.as_str().unwrap()).is_some(), "{at}: {reference}");
            }
            if let Some(required) = schema.get("required") {
                for name in required.as_array().unwrap() {
                    let is_there = schema["properties"].get(name.as_str().unwrap()).is_some();
                    assert!(is_there, "{at}: {name} is required and not described");
                }
            }
            if let Some(example) = schema.get("example") {
                examples += 1;
                let outcome = check(&document, &Value::Object(schema.clone()), example);
                assert_eq!(outcome, Ok(()), "{at}: {example}");
            }
            if let Some(default) = schema.get("default") {
                assert_eq!(
                    check(&document, &Value::Object(schema.clone()), default),
                    Ok(()),
                    "{at}: {default}"
                );
            }
        });
    }
    assert!(examples >= 30 && refs >= 80, "{examples} examples, {refs} references");
    // The check itself finds what is wrong.
    let command = json!({"$ref": "#/components/schemas/Command"});
    for wrong in [
        json!({}),
        json!({"device": 1, "change": {"on": true}}),
        json!({"device": "x", "change": {}}),
        json!({"device": "x", "change": {"on": "maybe"}}),
        json!({"device": "x", "change": {"brightness": 101}}),
        json!({"device": "x", "change": {"on": true}, "key": ""}),
        json!({"device": "x", "change": {"on": true}, "more": 1}),
    ] {
        assert!(check(&document, &command, &wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn what_the_routes_answer_is_what_the_document_says() {
    let bench = Bench::new();
    let document = document();
    let token = bench.token("admin".parse().unwrap()).await;
    for (path, method, operation) in operations(&document) {
        let unhurried = ["/api/v1/watch", "/api/v1/backup", "/api/v1/export", "/api/v1/import"];
        if method != "get" || unhurried.contains(&&*path) {
            continue;
        }
        let told = bench.bearer(Some(&token), Method::GET, &path.replace(['{', '}'], ""), Value::Null).await;
        let (status, media) = (told.status.as_u16(), told.headers[header::CONTENT_TYPE].to_str().unwrap());
        let answer = &operation["responses"][status.to_string()];
        let answer =
            answer["$ref"].as_str().map_or(answer, |reference| resolve(&document, reference).unwrap());
        let content = &answer["content"][media.split(';').next().unwrap()];
        assert!(content.is_object(), "{path} answers {status} {media}");
        if media.contains("json") {
            assert_eq!(check(&document, &content["schema"], &told.json()), Ok(()), "{path}");
        }
    }
}

/// The status with which the guard refuses it, if it does.
async fn refused(bench: &Bench, method: &str, path: &str, token: Option<&str>) -> Option<u16> {
    let method = method.to_uppercase().parse().unwrap();
    let answer = bench.bearer(token, method, path, Value::Null).await;
    let is_refusal = matches!(answer.status.as_u16(), 401 | 403)
        && ["unauthenticated", "forbidden"].contains(&&*answer.problem());
    is_refusal.then_some(answer.status.as_u16())
}

fn members<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(name).and_then(Value::as_object).into_iter().flatten()
}

/// Looks at a schema and all that are in it.
fn walk(schema: &Value, look: &mut impl FnMut(&Map<String, Value>)) {
    let Some(members_of) = schema.as_object() else { return };
    look(members_of);
    for (_, inner) in members(schema, "properties") {
        walk(inner, look);
    }
    for name in ["items", "additionalProperties"] {
        schema.get(name).into_iter().for_each(|inner| walk(inner, look));
    }
    schema["anyOf"].as_array().into_iter().flatten().for_each(|inner| walk(inner, look));
}

fn resolve<'a>(document: &'a Value, reference: &str) -> Option<&'a Value> {
    document.pointer(reference.strip_prefix('#')?)
}

/// Whether a value is what a schema says, for the keywords that are used here.
fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {value} is not {schema}"));
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return check(document, resolve(document, reference).ok_or(reference)?, value);
    }
    if let Some(either) = schema.get("anyOf").and_then(Value::as_array)
        && !either.iter().any(|one| check(document, one, value).is_ok())
    {
        return wrong("anyOf");
    }
    let is_type = |name: &Value| match name.as_str().unwrap() {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    match schema.get("type") {
        Some(Value::Array(names)) if !names.iter().any(is_type) => return wrong("type"),
        Some(name @ Value::String(_)) if !is_type(name) => return wrong("type"),
        _ => {}
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|all| !all.contains(value)) {
        return wrong("enum");
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return wrong("const");
    }
    let size = match value {
        Value::String(text) => Some(("Length", text.chars().count())),
        Value::Array(items) => Some(("Items", items.len())),
        Value::Object(members) => Some(("Properties", members.len())),
        _ => None,
    };
    let bound = |name: String| schema.get(&name).and_then(Value::as_f64);
    if let Some((what, size)) = size {
        let (least, most) = (bound(format!("min{what}")), bound(format!("max{what}")));
        if least.is_some_and(|least| (size as f64) < least) || most.is_some_and(|most| size as f64 > most) {
            return wrong(what);
        }
    }
    if let Some(number) = value.as_f64() {
        let (least, most) = (bound("minimum".into()), bound("maximum".into()));
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            return wrong("range");
        }
    }
    if schema.get("format").is_some_and(|format| format == "date-time")
        && value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_err())
    {
        return wrong("date-time");
    }
    for item in value.as_array().into_iter().flatten() {
        schema.get("items").map_or(Ok(()), |inner| check(document, inner, item))?;
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    if value.is_object() && required.filter_map(Value::as_str).any(|name| value.get(name).is_none()) {
        return wrong("required");
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let known = schema.get("properties").and_then(|properties| properties.get(name));
        match known.or_else(|| schema.get("additionalProperties")) {
            Some(Value::Bool(false)) => return wrong(name),
            Some(inner) => check(document, inner, member)?,
            None => {}
        }
    }
    Ok(())
}
