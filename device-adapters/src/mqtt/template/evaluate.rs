//! From the parts of a template to a text.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::numbers::{computed, equal, from_f64, no_number, number_of, order, rounded, whole};
use super::parse::{Callee, Expression, Node};
use super::{MOST_TEXT, TemplateError, as_text};

/// A value; none where there is no such thing.
pub(super) type Found<'a> = Option<Cow<'a, Value>>;

/// The names that a template may use.
pub(super) struct Scope<'a> {
    names: Vec<(&'a str, &'a Value)>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(names: Vec<(&'a str, &'a Value)>) -> Self {
        Self { names }
    }

    /// Appends what the parts yield.
    pub(super) fn render(&self, nodes: &[Node], text: &mut String) -> Result<(), TemplateError> {
        for node in nodes {
            match node {
                Node::Text(plain) => text.push_str(plain),
                Node::Print(expression) => {
                    if let Some(value) = self.value(expression)? {
                        text.push_str(&as_text(&value));
                    }
                }
                Node::If(branches, otherwise) => self.render(self.branch(branches, otherwise)?, text)?,
            }
            within(text)?;
        }
        Ok(())
    }

    fn branch<'n>(
        &self,
        branches: &'n [(Expression, Vec<Node>)],
        otherwise: &'n [Node],
    ) -> Result<&'n [Node], TemplateError> {
        for (asked, nodes) in branches {
            if is_true(&self.value(asked)?) {
                return Ok(nodes);
            }
        }
        Ok(otherwise)
    }

    /// What an expression yields. No text on the way is longer than the longest that may come out, be it of the message (a
    /// long one may hold a short one that is asked for) or made here: a filter that quotes what another has quoted doubles it
    /// each time.
    fn value(&self, expression: &Expression) -> Result<Found<'a>, TemplateError> {
        let found = self.evaluate(expression)?;
        match &found {
            Some(text) if text.is_string() => within(text.as_str().unwrap_or_default())?,
            Some(Cow::Owned(Value::Array(items))) => {
                items.iter().filter_map(Value::as_str).try_for_each(within)?;
            }
            _ => {}
        }
        Ok(found)
    }

    fn evaluate(&self, expression: &Expression) -> Result<Found<'a>, TemplateError> {
        Ok(match expression {
            Expression::Literal(value) => made(value.clone()),
            Expression::Name(name) => {
                let found = self.names.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| Cow::Borrowed(*value))
            }
            Expression::List(items) => {
                let items: Result<Vec<Value>, TemplateError> =
                    items.iter().map(|item| Ok(plain(self.value(item)?))).collect();
                made(Value::Array(items?))
            }
            Expression::Attribute(of, name) => member(self.value(of)?, name),
            Expression::Index(of, index) => {
                let (of, index) = (self.value(of)?, self.value(index)?);
                match index.as_deref() {
                    Some(Value::String(name)) => member(of, name),
                    Some(Value::Number(number)) => element(of, number.as_i64()),
                    _ => None,
                }
            }
            Expression::Slice(of, start, end) => {
                let bound = |bound: &Option<Box<Expression>>| match bound {
                    None => Ok(None),
                    Some(bound) => Ok(self.value(bound)?.and_then(|value| value.as_i64())),
                };
                slice(self.value(of)?, bound(start)?, bound(end)?)
            }
            Expression::Call(callee, name, values) => return self.call(*callee, name, values),
            Expression::Test(of, name) => made(Value::Bool(holds(&self.value(of)?, name)?)),
            Expression::Not(of) => made(Value::Bool(!is_true(&self.value(of)?))),
            Expression::Minus(of) => made(computed(
                "-",
                &Value::from(0),
                &number_of(self.value(of)?.as_deref()).unwrap_or(Value::Null),
            )?),
            Expression::Binary(operator, left, right) => return self.binary(operator, left, right),
            Expression::Choice(asked, value, otherwise) => {
                if is_true(&self.value(asked)?) {
                    self.value(value)?
                } else {
                    match otherwise {
                        Some(otherwise) => self.value(otherwise)?,
                        None => None,
                    }
                }
            }
        })
    }

    fn binary(
        &self,
        operator: &str,
        left: &Expression,
        right: &Expression,
    ) -> Result<Found<'a>, TemplateError> {
        let left = self.value(left)?;
        match operator {
            "and" if !is_true(&left) => return Ok(left),
            "or" if is_true(&left) => return Ok(left),
            "and" | "or" => return self.value(right),
            _ => {}
        }
        let right = self.value(right)?;
        let (left, right) =
            (left.as_deref().unwrap_or(&Value::Null), right.as_deref().unwrap_or(&Value::Null));
        let truth = |truth| Ok(made(Value::Bool(truth)));
        match operator {
            "==" => truth(equal(left, right)),
            "!=" => truth(!equal(left, right)),
            "<" => truth(order(left, right)? == Ordering::Less),
            ">" => truth(order(left, right)? == Ordering::Greater),
            "<=" => truth(order(left, right)? != Ordering::Greater),
            ">=" => truth(order(left, right)? != Ordering::Less),
            "in" => truth(match right {
                Value::Array(items) => items.iter().any(|item| equal(item, left)),
                Value::Object(map) => map.contains_key(&as_text(left)),
                Value::String(text) => text.contains(&as_text(left)),
                _ => false,
            }),
            "~" => Ok(made(joined(left, right)?)),
            "+" if left.is_string() && right.is_string() => Ok(made(joined(left, right)?)),
            _ => Ok(made(computed(operator, left, right)?)),
        }
    }

    fn call(&self, callee: Callee, name: &str, values: &[Expression]) -> Result<Found<'a>, TemplateError> {
        let found: Result<Vec<Found<'a>>, _> = values.iter().map(|value| self.value(value)).collect();
        let mut found = found?.into_iter();
        let subject = found.next().flatten();
        let arguments: Vec<Value> = found.map(plain).collect();
        let first = arguments.first();
        Ok(match (callee, name) {
            (Callee::Filter, "default" | "d") => {
                let replaces_false = arguments.get(1).is_some_and(|flag| flag == &Value::Bool(true));
                let keeps = subject.is_some() && (!replaces_false || is_true(&subject));
                if keeps { subject } else { made(first.cloned().unwrap_or_else(|| Value::from(""))) }
            }
            (Callee::Filter, "is_defined") => Some(subject.ok_or(TemplateError::Missing)?),
            (Callee::Filter | Callee::Function, "float") => {
                let number = number_of(subject.as_deref()).and_then(|number| number.as_f64());
                made(
                    number
                        .and_then(from_f64)
                        .or_else(|| first.cloned())
                        .ok_or_else(|| no_number(&subject))?,
                )
            }
            (Callee::Filter | Callee::Function, "int") => {
                let number = number_of(subject.as_deref()).and_then(|number| whole(&number));
                made(number.or_else(|| first.cloned()).ok_or_else(|| no_number(&subject))?)
            }
            (Callee::Filter, "round") => made(rounded(&subject, first)?),
            (Callee::Filter, "abs") => {
                let number = number_of(subject.as_deref()).and_then(|number| number.as_f64());
                made(number.and_then(|number| from_f64(number.abs())).ok_or_else(|| no_number(&subject))?)
            }
            (Callee::Filter, "multiply") => {
                made(computed("*", &plain(subject), first.unwrap_or(&Value::Null))?)
            }
            (Callee::Filter | Callee::Function, "iif") => {
                let (yes, no) = (Value::Bool(true), Value::Bool(false));
                let chosen =
                    if is_true(&subject) { first.unwrap_or(&yes) } else { arguments.get(1).unwrap_or(&no) };
                made(chosen.clone())
            }
            (Callee::Filter, "length" | "count") => made(Value::from(length(&subject))),
            (Callee::Filter, "first") => element(subject, Some(0)),
            (Callee::Filter, "last") => element(subject, Some(-1)),
            (Callee::Filter, "join") => made(list_joined(&subject, first)?),
            (Callee::Filter, "string") => made(Value::String(as_text(&plain(subject)))),
            (Callee::Filter, "tojson" | "to_json") => made(Value::String(plain(subject).to_string())),
            (Callee::Filter | Callee::Method, "lower") => made(text_of(subject, |text| text.to_lowercase())),
            (Callee::Filter | Callee::Method, "upper") => made(text_of(subject, |text| text.to_uppercase())),
            (Callee::Filter, "trim") | (Callee::Method, "strip") => {
                made(text_of(subject, |text| text.trim().to_owned()))
            }
            (Callee::Filter, "truncate") => made(truncated(&subject, &arguments)),
            (Callee::Filter | Callee::Method, "replace") => made(replaced(&subject, &arguments)?),
            (Callee::Filter | Callee::Method, "split") => made(split(&subject, first)),
            (Callee::Method, "get") => {
                let name = first.map(as_text).unwrap_or_default();
                member(subject, &name).or_else(|| arguments.get(1).cloned().map(Cow::Owned))
            }
            (Callee::Method, "startswith") => made(Value::Bool(
                as_text(&plain(subject)).starts_with(&first.map(as_text).unwrap_or_default()),
            )),
            (Callee::Method, "endswith") => {
                made(Value::Bool(as_text(&plain(subject)).ends_with(&first.map(as_text).unwrap_or_default())))
            }
            (_, name) => return Err(TemplateError::NotUnderstood(name.chars().take(40).collect())),
        })
    }
}

/// The names that a call may have, so that a template with another is refused before a message comes.
pub(super) fn is_known(callee: Callee, name: &str) -> bool {
    const FUNCTIONS: [&str; 3] = ["float", "int", "iif"];
    const METHODS: [&str; 8] =
        ["lower", "upper", "strip", "replace", "split", "get", "startswith", "endswith"];
    const FILTERS: [&str; 22] = [
        "default",
        "d",
        "is_defined",
        "float",
        "int",
        "round",
        "abs",
        "multiply",
        "iif",
        "length",
        "count",
        "first",
        "last",
        "join",
        "string",
        "tojson",
        "to_json",
        "lower",
        "upper",
        "trim",
        "truncate",
        "replace",
    ];
    match callee {
        Callee::Function => FUNCTIONS.contains(&name),
        Callee::Method => METHODS.contains(&name),
        Callee::Filter => FILTERS.contains(&name) || name == "split",
    }
}

fn made<'a>(value: Value) -> Found<'a> {
    Some(Cow::Owned(value))
}

fn plain(found: Found<'_>) -> Value {
    found.map_or(Value::Null, Cow::into_owned)
}

fn within(text: &str) -> Result<(), TemplateError> {
    if text.len() > MOST_TEXT { Err(TemplateError::TooMuch) } else { Ok(()) }
}

fn is_true(found: &Found<'_>) -> bool {
    match found.as_deref() {
        None | Some(Value::Null) => false,
        Some(Value::Bool(truth)) => *truth,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
    }
}

fn holds(found: &Found<'_>, test: &str) -> Result<bool, TemplateError> {
    let value = found.as_deref();
    Ok(match test {
        "defined" => value.is_some(),
        "undefined" => value.is_none(),
        "none" => value == Some(&Value::Null),
        "string" => value.is_some_and(Value::is_string),
        "number" => value.is_some_and(Value::is_number),
        "boolean" => value.is_some_and(Value::is_boolean),
        "mapping" => value.is_some_and(Value::is_object),
        "true" => value == Some(&Value::Bool(true)),
        "false" => value == Some(&Value::Bool(false)),
        other => return Err(TemplateError::NotUnderstood(other.chars().take(40).collect())),
    })
}

fn member<'a>(of: Found<'a>, name: &str) -> Found<'a> {
    match of? {
        Cow::Borrowed(value) => value.get(name).map(Cow::Borrowed),
        Cow::Owned(value) => value.get(name).cloned().map(Cow::Owned),
    }
}

fn element(of: Found<'_>, index: Option<i64>) -> Found<'_> {
    let of = of?;
    let length = i64::try_from(length(&Some(Cow::Borrowed(&*of)))).ok()?;
    let index = index.map(|index| if index < 0 { length + index } else { index })?;
    let index = usize::try_from(index).ok()?;
    match of {
        Cow::Borrowed(Value::Array(items)) => items.get(index).map(Cow::Borrowed),
        Cow::Owned(Value::Array(items)) => items.into_iter().nth(index).map(Cow::Owned),
        other => other.as_str()?.chars().nth(index).map(|c| Cow::Owned(Value::String(c.to_string()))),
    }
}

fn slice(of: Found<'_>, start: Option<i64>, end: Option<i64>) -> Found<'_> {
    let length = i64::try_from(length(&of)).ok()?;
    let of = of?;
    let place = |bound: i64| usize::try_from(if bound < 0 { length + bound } else { bound }).unwrap_or(0);
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(length)));
    let count = end.saturating_sub(start);
    match &*of {
        Value::Array(items) => made(Value::Array(items.iter().skip(start).take(count).cloned().collect())),
        Value::String(text) => made(Value::String(text.chars().skip(start).take(count).collect())),
        _ => None,
    }
}

fn length(of: &Found<'_>) -> usize {
    match of.as_deref() {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(map)) => map.len(),
        Some(Value::String(text)) => text.chars().count(),
        _ => 0,
    }
}

fn joined(left: &Value, right: &Value) -> Result<Value, TemplateError> {
    let text = as_text(left) + &as_text(right);
    within(&text)?;
    Ok(Value::String(text))
}

fn list_joined(of: &Found<'_>, between: Option<&Value>) -> Result<Value, TemplateError> {
    let between = between.map(as_text).unwrap_or_default();
    let mut text = String::new();
    for (index, item) in of.as_deref().and_then(Value::as_array).into_iter().flatten().enumerate() {
        if index > 0 {
            text.push_str(&between);
        }
        text.push_str(&as_text(item));
        within(&text)?;
    }
    Ok(Value::String(text))
}

fn text_of(of: Found<'_>, change: impl Fn(&str) -> String) -> Value {
    Value::String(change(&as_text(&plain(of))))
}

fn replaced(of: &Found<'_>, arguments: &[Value]) -> Result<Value, TemplateError> {
    let [old, new, ..] = arguments else { return Err(TemplateError::NotUnderstood("replace".to_owned())) };
    let (text, old, new) = (of.as_deref().map(as_text).unwrap_or_default(), as_text(old), as_text(new));
    if old.is_empty() {
        return Ok(Value::String(text));
    }
    // Counted before it is made.
    let places = text.matches(&old).count();
    if text.len().saturating_add(places.saturating_mul(new.len())) > MOST_TEXT {
        return Err(TemplateError::TooMuch);
    }
    Ok(Value::String(text.replace(&old, &new)))
}

/// At most so many characters (255), the end of it included (`...`), and some more (5) where nothing else would be cut off.
/// Words are cut as well, which is what Zigbee2MQTT asks for.
fn truncated(of: &Found<'_>, arguments: &[Value]) -> Value {
    let text = of.as_deref().map(as_text).unwrap_or_default();
    let number = |at: usize, default: usize| {
        let number = arguments.get(at).and_then(Value::as_u64);
        number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
    };
    let (most, end, more) =
        (number(0, 255), arguments.get(2).map_or("...".to_owned(), as_text), number(3, 5));
    if text.chars().count() <= most.saturating_add(more) {
        return Value::String(text);
    }
    let kept = most.saturating_sub(end.chars().count());
    Value::String(text.chars().take(kept).chain(end.chars()).collect())
}

fn split(of: &Found<'_>, by: Option<&Value>) -> Value {
    let text = of.as_deref().map(as_text).unwrap_or_default();
    let by = by.map(as_text).filter(|by| !by.is_empty());
    let part = |part: &str| Value::String(part.to_owned());
    Value::Array(match by {
        Some(by) => text.split(&by).map(part).collect(),
        None => text.split_whitespace().map(part).collect(),
    })
}
