//! The numbers of templates, and how values are compared.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::evaluate::Found;
use super::{TemplateError, as_text};

pub(super) fn from_f64(number: f64) -> Option<Value> {
    Number::from_f64(number).map(Value::Number)
}

/// A number, or a text that is one.
pub(super) fn number_of(value: Option<&Value>) -> Option<Value> {
    match value? {
        Value::Number(number) => Some(Value::Number(number.clone())),
        Value::Bool(truth) => Some(Value::from(i64::from(*truth))),
        Value::String(text) => {
            let text = text.trim();
            text.parse::<i64>().ok().map(Value::from).or_else(|| text.parse::<f64>().ok().and_then(from_f64))
        }
        _ => None,
    }
}

pub(super) fn whole(number: &Value) -> Option<Value> {
    let exact = number.as_i64();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, and what is no number is none before"
    )]
    let cut = |number: f64| number.trunc() as i64;
    exact.or_else(|| number.as_f64().map(cut)).map(Value::from)
}

pub(super) fn no_number(found: &Found<'_>) -> TemplateError {
    match found {
        None => TemplateError::Missing,
        Some(value) => TemplateError::Unfit(format!(
            "{:?} is no number",
            as_text(value).chars().take(40).collect::<String>()
        )),
    }
}

/// To so many digits; without, or with 0, a whole number as in Home Assistant.
pub(super) fn rounded(of: &Found<'_>, digits: Option<&Value>) -> Result<Value, TemplateError> {
    let number = number_of(of.as_deref()).and_then(|number| number.as_f64()).ok_or_else(|| no_number(of))?;
    let digits = digits.and_then(Value::as_i64).unwrap_or(0).clamp(0, 9);
    let scale = 10_f64.powi(i32::try_from(digits).unwrap_or(0));
    let scaled = (number * scale).round() / scale;
    let scaled = from_f64(if scaled.is_finite() { scaled } else { number }).ok_or(TemplateError::Missing)?;
    Ok(if digits == 0 { whole(&scaled).unwrap_or(scaled) } else { scaled })
}

pub(super) fn computed(operator: &str, left: &Value, right: &Value) -> Result<Value, TemplateError> {
    let unfit = || TemplateError::Unfit(format!("{operator:?} needs two numbers"));
    // A text is no number here: `"5" * 2` is "55" in Python, and nobody means that.
    let is_fit = |value: &Value| value.is_number() || value.is_boolean();
    if !is_fit(left) || !is_fit(right) {
        return Err(unfit());
    }
    let (left, right) = (number_of(Some(left)).ok_or_else(unfit)?, number_of(Some(right)).ok_or_else(unfit)?);
    if let (Some(a), Some(b)) = (left.as_i64(), right.as_i64()) {
        let exact = match operator {
            "+" => a.checked_add(b),
            "-" => a.checked_sub(b),
            "*" => a.checked_mul(b),
            "//" => a.checked_div_euclid(b),
            "%" => a.checked_rem_euclid(b),
            _ => None,
        };
        if let Some(exact) = exact {
            return Ok(Value::from(exact));
        }
    }
    let (a, b) = (left.as_f64().ok_or_else(unfit)?, right.as_f64().ok_or_else(unfit)?);
    let result = match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "//" => (a / b).floor(),
        "%" => a.rem_euclid(b),
        _ => return Err(unfit()),
    };
    from_f64(result).ok_or_else(|| TemplateError::Unfit("a result that is no number".to_owned()))
}

pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => left == right,
    }
}

pub(super) fn order(left: &Value, right: &Value) -> Result<Ordering, TemplateError> {
    let unfit = || TemplateError::Unfit("two values that cannot be compared".to_owned());
    match (left, right) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        _ => {
            let (a, b) = (left.as_f64().ok_or_else(unfit)?, right.as_f64().ok_or_else(unfit)?);
            a.partial_cmp(&b).ok_or_else(unfit)
        }
    }
}
