//! What is typed on the command line, as the JSON of the API.

use mesh_proto::FieldName;
use serde_json::{Map, Value, json};

/// Longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 128;

/// One argument of `hearth put`.
#[derive(Debug, Clone, PartialEq)]
pub enum Assignment {
    /// A field and its value.
    Field(FieldName, Value),
    /// `-`: a JSON object of fields follows on stdin.
    Stdin,
}

/// A colour of a light.
#[derive(Debug, Clone, PartialEq)]
pub enum Color {
    /// A name, or `#rrggbb`; the node knows the names.
    Named(String),
    /// CIE 1931 chromaticity, each 0 to 1.
    Xy(f64, f64),
}

impl Color {
    /// The colour as the API takes it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Named(name) => json!(name),
            Self::Xy(x, y) => json!({"x": x, "y": y}),
        }
    }
}

/// Parses `field=value` (JSON if it is JSON, else text), `field:=JSON`, or `-`.
///
/// # Errors
/// A message that names the argument, the rule and the way out.
pub fn assignment(text: &str) -> Result<Assignment, String> {
    if text == "-" {
        return Ok(Assignment::Stdin);
    }
    let (name, value) = text.split_once('=').ok_or("write field=value, field:=JSON, or - for stdin")?;
    let (name, strict) = name.strip_suffix(':').map_or((name, false), |name| (name, true));
    let field = FieldName::new(name).map_err(|error| error.to_string())?;
    check_integer(value)?;
    let value = match (serde_json::from_str(value), strict) {
        (Ok(value), _) => value,
        (Err(_), false) => Value::String(value.to_owned()),
        (Err(error), true) => {
            return Err(format!("what stands behind := is not JSON ({error}); for text write {name}=TEXT"));
        }
    };
    Ok(Assignment::Field(field, value))
}

/// Parses the name of a group: 1 to 64 of a-z, 0-9, - and _.
///
/// # Errors
/// The rule.
pub fn group(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("it has a name of 1 to 64 of a-z, 0-9, - and _".into())
}

/// Latitude and longitude in degrees.
///
/// # Errors
/// The rule.
pub fn place(text: &str) -> Result<(f64, f64), String> {
    let (latitude, longitude) = text.split_once(',').unwrap_or((text, ""));
    let degrees = |text: &str, limit: f64| text.trim().parse().ok().filter(|d: &f64| d.abs() <= limit);
    degrees(latitude, 90.0)
        .zip(degrees(longitude, 180.0))
        .ok_or_else(|| "a place is latitude and longitude in degrees, such as 52.52,13.40".to_owned())
}

/// A whole number that does not fit would silently lose digits as a float.
fn check_integer(text: &str) -> Result<(), String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if whole && text.parse::<i64>().is_err() {
        return Err("whole numbers are of 64 bits, -9223372036854775808 to 9223372036854775807; \
                    write it as text, in \"quotes\""
            .into());
    }
    Ok(())
}

/// Reads the JSON object of fields that `hearth put ID -` takes from stdin.
///
/// # Errors
/// A message that names the rule and the way out.
pub fn fields_from_json(text: &str) -> Result<Map<String, Value>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("stdin is not JSON: {error}"))?;
    let Value::Object(fields) = value else {
        return Err("stdin is JSON, but not an object of fields such as {\"text\":\"milk\"}".into());
    };
    for name in fields.keys() {
        FieldName::new(name).map_err(|error| error.to_string())?;
    }
    Ok(fields)
}

/// A percentage from 0 to 100, which may have decimals.
///
/// # Errors
/// A message with the rule.
pub fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim_end_matches('%').parse().ok();
    number.filter(|n| (0.0..=100.0).contains(n)).ok_or_else(|| "brightness is 0 to 100, in percent".into())
}

/// A colour: a name, `#rrggbb`, or `x,y`.
///
/// # Errors
/// A message with the rule.
pub fn color(text: &str) -> Result<Color, String> {
    let wrong =
        || "a color is a name such as red, #rrggbb such as #ff8800, or x,y such as 0.45,0.41".to_owned();
    if let Some((x, y)) = text.split_once(',') {
        let number =
            |text: &str| text.trim().parse().ok().filter(|n| (0.0..=1.0).contains(n)).ok_or_else(wrong);
        return Ok(Color::Xy(number(x)?, number(y)?));
    }
    let fits = match text.strip_prefix('#') {
        Some(hex) => hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => {
            (1..=32).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphabetic() || b"-_ ".contains(&b))
        }
    };
    if fits { Ok(Color::Named(text.to_ascii_lowercase())) } else { Err(wrong()) }
}

/// Zones of a strip that lie side by side: their number, their colour (a name, #rrggbb, or kelvin such as 2700K), and
/// their brightness in percent: `10:red@50`. Without a brightness they are as bright as they can be.
///
/// # Errors
/// A message with the rule.
pub fn zone(text: &str) -> Result<Value, String> {
    let wrong = || "zones are COUNT:COLOR[@PERCENT], such as 10:red@50 or 4:2700K".to_owned();
    let (count, look) = text.split_once(':').ok_or_else(wrong)?;
    let count: u16 = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
    let (look, brightness) = match look.split_once('@') {
        Some((look, bright)) => (look, percent(bright)?),
        None => (look, 100.0),
    };
    match look.strip_suffix(['K', 'k']).and_then(|kelvin| kelvin.parse::<u32>().ok()) {
        Some(kelvin) => Ok(json!({"count": count, "kelvin": kelvin, "brightness": brightness})),
        None => Ok(json!({"count": count, "color": color(look)?.to_json(), "brightness": brightness})),
    }
}

/// An idempotency key of 1 to 128 bytes without control characters.
///
/// # Errors
/// A message with the rule.
pub fn idempotency_key(text: &str) -> Result<String, String> {
    let fits = (1..=MAX_KEY_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("a key is 1 to 128 bytes without control characters".into()) }
}

/// A value on one line as people read it: text in quotes only where it could be mistaken, bytes
/// as their size.
pub fn show(value: &Value) -> String {
    match value {
        Value::String(text) if reads_as_text(text) => text.clone(),
        Value::Object(map) => match (map.len(), map.get("$bytes").and_then(Value::as_str)) {
            (1, Some(base64)) => format!("{} bytes", base64.trim_end_matches('=').len() * 3 / 4),
            _ => value.to_string(),
        },
        _ => value.to_string(),
    }
}

/// A change of a device in the form of the API.
pub fn show_change(change: &Value) -> String {
    let parts = change.as_object().into_iter().flatten();
    parts.map(|(name, value)| format!("{name} {}", show(value))).collect::<Vec<_>>().join(", ")
}

fn reads_as_text(text: &str) -> bool {
    !text.is_empty()
        && text.trim() == text
        && !text.chars().any(char::is_control)
        && serde_json::from_str::<Value>(text).is_err()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Value {
        match assignment(text).unwrap() {
            Assignment::Field(_, value) => value,
            Assignment::Stdin => json!("stdin"),
        }
    }

    #[test]
    fn values_are_json_if_they_can_be_and_else_text() {
        for (text, expected) in [
            ("a=3", json!(3)),
            ("a=-3", json!(-3)),
            ("a=3.5", json!(3.5)),
            ("a=true", json!(true)),
            ("a=null", json!(null)),
            ("a=milk", json!("milk")),
            ("a=", json!("")),
            ("a=b=c", json!("b=c")),
            ("a=\"3\"", json!("3")),
            ("a=[1", json!("[1")),
            ("a={\"b\":[1]}", json!({"b": [1]})),
            ("a:=[1,2]", json!([1, 2])),
            ("a=9223372036854775807", json!(i64::MAX)),
            ("a=007", json!("007")),
            ("a= x", json!(" x")),
            ("a.b-c_d=1", json!(1)),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        assert_eq!(assignment("-").unwrap(), Assignment::Stdin);
    }

    #[test]
    fn what_is_no_assignment_is_told_the_way_out() {
        for (text, expected) in [
            ("a", "write field=value"),
            ("=1", "is not a field name"),
            ("A=1", "`A` is not a field name"),
            ("a:=milk", "for text write a=TEXT"),
            ("a=9223372036854775808", "64 bits"),
            ("a=-9223372036854775809", "64 bits"),
        ] {
            let error = assignment(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn stdin_is_an_object_of_fields() {
        assert_eq!(fields_from_json("{\"a\":1}").unwrap().get("a"), Some(&json!(1)));
        for (text, expected) in
            [("", "not JSON"), ("[1]", "not an object"), ("{\"A\":1}", "`A` is not a field")]
        {
            let error = fields_from_json(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(fields_from_json(&"[".repeat(100_000)).is_err(), "depth is bounded");
    }

    #[test]
    fn colours_and_percentages_follow_their_rules() {
        assert_eq!(color("#FF8800").unwrap().to_json(), json!("#ff8800"));
        assert_eq!(color("Red").unwrap().to_json(), json!("red"));
        assert_eq!(color("0.45, 0.41").unwrap().to_json(), json!({"x": 0.45, "y": 0.41}));
        for bad in ["", "#ff88", "#gg0000", "1.2,0", "0.1,NaN", "1,2,3", "re\u{7}d"] {
            assert!(color(bad).is_err(), "{bad}");
        }
        assert_eq!(percent("40%").unwrap(), 40.0);
        assert_eq!(percent("0.5").unwrap(), 0.5);
        assert!(percent("-1").is_err() && percent("100.1").is_err() && percent("NaN").is_err());
    }

    #[test]
    fn values_are_shown_without_doubt() {
        for (value, shown) in [
            (json!("milk"), "milk"),
            (json!("3"), "\"3\""),
            (json!("true"), "\"true\""),
            (json!(""), "\"\""),
            (json!("a\nb"), "\"a\\nb\""),
            (json!(3), "3"),
            (json!({"$bytes": "AAECAw=="}), "4 bytes"),
            (json!({"a": 1}), "{\"a\":1}"),
        ] {
            assert_eq!(show(&value), shown);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_of_text_and_numbers_is_put_back(text in ".{0,24}", number: i64, truth: bool) {
            for original in [json!(text), json!(number), json!(truth)] {
                let typed = format!("a={}", show(&original));
                prop_assert_eq!(value(&typed), original);
            }
        }

        #[test]
        fn strict_json_is_taken_as_it_is(items in proptest::collection::vec(any::<i32>(), 0..5), text in ".{0,12}") {
            let original = json!({"items": items, "text": text});
            prop_assert_eq!(value(&format!("a:={original}")), original);
        }

        #[test]
        fn no_argument_panics(text in ".{0,40}") {
            let _ = assignment(&text);
            let _ = color(&text);
            let _ = percent(&text);
        }
    }
}
