//! JSON as it comes in (checked before anything is built from it) and as it goes out.
//!
//! A [`Value`] maps to JSON directly, except bytes, which are `{"$bytes":"<base64>"}`. So that a
//! map with such a name survives too, a name of dollars before `bytes` gets one more dollar on
//! the way out and loses it on the way in.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use mesh_proto::Value;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value as Json, json};
use thiserror::Error;

/// Largest JSON document taken, in bytes.
pub const MAX_JSON_BYTES: usize = 1024 * 1024;
/// Deepest nesting of a JSON document taken.
pub const MAX_JSON_DEPTH: usize = 16;

/// Most values of the JSON document of a request. A byte or two can be one, and each costs a few dozen bytes when it is read.
pub const MAX_JSON_VALUES: usize = 65_536;

/// Why a JSON document was refused; nothing was built from it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonError {
    /// Too long.
    #[error("the document has more than {MAX_JSON_BYTES} bytes")]
    TooLarge,
    /// Nested deeper than so many levels.
    #[error("the document nests deeper than {0} levels")]
    TooDeep(usize),
    /// Of too many values.
    #[error("the document has more than {MAX_JSON_VALUES} values")]
    TooMany,
    /// A whole number that does not fit.
    #[error("the number {0}… does not fit into 64 bits with a sign")]
    NumberOutOfRange(String),
    /// Not JSON.
    #[error("this is not JSON: {0}")]
    Syntax(String),
    /// JSON of another shape than was asked for.
    #[error("{0}")]
    Shape(String),
    /// `$bytes` that are none.
    #[error("`$bytes` must stand alone in its map and hold standard base64 with padding")]
    Bytes,
    /// An object document without a usable name or fields.
    #[error("an object has `id` (\"kind/name\") and `fields` (a map)")]
    NotAnObject,
}

/// Reads a document after checking its size, its depth and its whole numbers.
///
/// # Errors
/// Every [`JsonError`] but `TooMany`, `Bytes` and `NotAnObject`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    parse_scanned(bytes, MAX_JSON_DEPTH, usize::MAX)
}

/// The same for the document of a request, of which many may come at once. It may nest so deep; 100 is as deep as the library goes.
///
/// # Errors
/// As [`parse`], and `TooMany`.
pub fn parse_request<T: DeserializeOwned>(bytes: &[u8], depth: usize) -> Result<T, JsonError> {
    parse_scanned(bytes, depth, MAX_JSON_VALUES)
}

fn parse_scanned<T: DeserializeOwned>(bytes: &[u8], depth: usize, values: usize) -> Result<T, JsonError> {
    scan(bytes, depth, values)?;
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => JsonError::Shape(without_text(&error.to_string())),
        _ => JsonError::Syntax(error.to_string()),
    })
}

/// The library's words about a value in the wrong place, without the text that stands there: it may be a password.
fn without_text(said: &str) -> String {
    let quoted = said.split_once("string \"").zip(said.rsplit_once("\", expected "));
    match quoted {
        Some(((before, _), (_, expected))) => format!("{before}string, expected {expected}"),
        None => said.to_owned(),
    }
}

/// Looks at the bytes only, in one pass and without memory of its own.
fn scan(bytes: &[u8], most: usize, values: usize) -> Result<(), JsonError> {
    if bytes.len() > MAX_JSON_BYTES {
        return Err(JsonError::TooLarge);
    }
    let (mut depth, mut rest, mut count) = (0usize, bytes, 1usize);
    while let [first, after @ ..] = rest {
        // A list or a map begins a value, and a comma another one.
        count += usize::from(b"[{,".contains(first));
        if count > values {
            return Err(JsonError::TooMany);
        }
        rest = match first {
            b'"' => skip_string(after),
            b'[' | b'{' => {
                depth += 1;
                if depth > most {
                    return Err(JsonError::TooDeep(most));
                }
                after
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                after
            }
            b'-' | b'0'..=b'9' => check_number(rest)?,
            _ => after,
        };
    }
    Ok(())
}

fn skip_string(mut rest: &[u8]) -> &[u8] {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return after,
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
            [] => return rest,
        };
    }
}

/// serde_json turns a whole number beyond 64 bits into a float without a word; we say so.
fn check_number(rest: &[u8]) -> Result<&[u8], JsonError> {
    let is_part = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
    let length = rest.iter().position(|b| !is_part(b)).unwrap_or(rest.len());
    let (number, after) = rest.split_at(length);
    let whole = !number.iter().any(|b| b".eE".contains(b));
    let text = std::str::from_utf8(number).unwrap_or_default();
    let overflows = text.parse::<i64>().is_err_and(|error| {
        matches!(error.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow)
    });
    if whole && overflows {
        return Err(JsonError::NumberOutOfRange(text.chars().take(24).collect()));
    }
    Ok(after)
}

/// A value as JSON.
pub fn from_value(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => Json::from(*number),
        // Values hold finite floats only.
        Value::Float(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::Text(text) => Json::from(&**text),
        Value::Bytes(bytes) => json!({ "$bytes": BASE64.encode(bytes) }),
        Value::List(items) => Json::Array(items.iter().map(from_value).collect()),
        Value::Map(items) => {
            let escape = |name: &str| if is_reserved(name) { format!("${name}") } else { name.to_owned() };
            Json::Object(items.iter().map(|(name, item)| (escape(name), from_value(item))).collect())
        }
    }
}

/// JSON as a value. The depth was bounded by [`parse`]; the value's own limits are checked when
/// it is written.
///
/// # Errors
/// [`JsonError::Bytes`], [`JsonError::NumberOutOfRange`].
pub fn to_value(json: Json) -> Result<Value, JsonError> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(truth),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(float)) if number.is_f64() => Value::Float(float),
            _ => return Err(JsonError::NumberOutOfRange(number.to_string())),
        },
        Json::String(text) => Value::Text(text.into()),
        Json::Array(items) => Value::List(items.into_iter().map(to_value).collect::<Result<_, _>>()?),
        Json::Object(items) => return to_map(items),
    })
}

fn to_map(items: Map<String, Json>) -> Result<Value, JsonError> {
    if let Some(bytes) = items.get("$bytes") {
        let text = bytes.as_str().filter(|_| items.len() == 1).ok_or(JsonError::Bytes)?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| JsonError::Bytes)?;
        return Ok(Value::Bytes(bytes.into()));
    }
    let mut map = BTreeMap::new();
    for (name, item) in items {
        let name = if is_reserved(&name) { name.get(1..).unwrap_or_default() } else { &name };
        map.insert(name.into(), to_value(item)?);
    }
    Ok(Value::Map(map))
}

/// One or more dollars before `bytes`.
fn is_reserved(name: &str) -> bool {
    name.strip_suffix("bytes")
        .is_some_and(|dollars| !dollars.is_empty() && dollars.bytes().all(|b| b == b'$'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::Float),
            any::<String>().prop_map(|text| Value::Text(text.into())),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(|bytes| Value::Bytes(bytes.into())),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let name = prop_oneof!["[$]{0,3}bytes", "[a-z$\"\\\\]{0,6}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                proptest::collection::btree_map(name.prop_map(|s: String| s.into()), inner, 0..4)
                    .prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_survives_the_way_through_json_text(value in any_value()) {
            let text = serde_json::to_vec(&from_value(&value)).unwrap();
            prop_assert_eq!(to_value(parse(&text).unwrap()).unwrap(), value);
        }

        #[test]
        fn any_bytes_parse_or_name_their_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let ours = parse::<Json>(&bytes);
            if let Ok(json) = ours {
                let _ = to_value(json);
            }
        }

        /// Text made of JSON's own marks: the scan never refuses what is shallow and small.
        #[test]
        fn the_scan_agrees_with_the_parser(text in "[\\[\\]{}\",:\\\\ 0-9.eE+-]{0,40}") {
            if serde_json::from_str::<Json>(&text).is_ok() && !text.contains(&"[".repeat(17)) {
                let long_number = text.split(|c: char| !c.is_ascii_digit()).any(|run| run.len() > 18);
                prop_assert!(long_number || parse::<Json>(text.as_bytes()).is_ok(), "{}", text);
            }
        }
    }

    #[test]
    fn what_stands_in_the_wrong_place_is_not_repeated() {
        let said = |text: &str| parse::<Map<String, Json>>(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(said("\"my \\\"secret\""), "invalid type: string, expected a map at line 1 column 13");
        assert_eq!(said("\"\\\", expected x\""), "invalid type: string, expected a map at line 1 column 16");
        assert_eq!(said("[]"), "invalid type: sequence, expected a map at line 1 column 0");
    }

    #[test]
    fn depth_counts_structure_and_not_text() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse::<Json>(deep(16).as_bytes()).is_ok());
        assert_eq!(parse::<Json>(deep(17).as_bytes()), Err(JsonError::TooDeep(MAX_JSON_DEPTH)));
        let text = format!("\"\\\"{}\"", "[".repeat(50));
        assert_eq!(parse::<String>(text.as_bytes()).unwrap(), format!("\"{}", "[".repeat(50)));
        assert_eq!(parse::<Json>(&vec![b'['; MAX_JSON_BYTES]), Err(JsonError::TooDeep(MAX_JSON_DEPTH)));
        assert_eq!(parse::<Json>(&vec![b' '; MAX_JSON_BYTES + 1]), Err(JsonError::TooLarge));
        // The list is one, and each comma stands before one more.
        let wide = |values: usize| format!("[{}\",,,\"]", "0,".repeat(values - 2));
        assert!(parse_request::<Json>(wide(MAX_JSON_VALUES).as_bytes(), 1).is_ok());
        let too_wide = wide(MAX_JSON_VALUES + 1);
        assert_eq!(parse_request::<Json>(too_wide.as_bytes(), 1), Err(JsonError::TooMany));
        assert!(parse::<Json>(too_wide.as_bytes()).is_ok(), "what was exported is taken in again");
    }

    #[test]
    fn whole_numbers_beyond_64_bits_are_named() {
        for edge in ["9223372036854775807", "-9223372036854775808", "1e300", "0", "-0"] {
            assert!(parse::<Json>(edge.as_bytes()).is_ok(), "{edge}");
        }
        for beyond in ["9223372036854775808", "-9223372036854775809", "[1,99999999999999999999999999]"] {
            assert!(
                matches!(parse::<Json>(beyond.as_bytes()), Err(JsonError::NumberOutOfRange(_))),
                "{beyond}"
            );
        }
        assert!(parse::<Json>(b"\"9223372036854775808\"").is_ok(), "digits in text are text");
    }

    #[test]
    fn bytes_that_are_none_are_refused() {
        for bad in [r#"{"$bytes":"?"}"#, r#"{"$bytes":1}"#, r#"{"$bytes":"QQ==","more":1}"#] {
            assert_eq!(to_value(parse(bad.as_bytes()).unwrap()), Err(JsonError::Bytes), "{bad}");
        }
    }
}
