//! Conditions: what must be so.

use device_adapters::schedule::SunEvent;
use jiff::{
    SignedDuration,
    civil::{Time, Weekday},
};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{
    Source,
    fault::{Fault, Place},
    source,
};
use crate::automation::expression::Expression;

/// Conditions beside each other, at most.
pub(super) const MAX_CONDITIONS: usize = 32;
/// How deep conditions may stand in one another.
const MAX_DEPTH: usize = 8;
const KINDS: [&str; 8] = ["all", "any", "not", "state", "number", "time", "sun", "expression"];

/// What must be so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// Every one of them.
    All(Vec<Condition>),
    /// One of them.
    Any(Vec<Condition>),
    /// It is not so.
    Not(Box<Condition>),
    /// Something is of this value.
    State(Source, Json),
    /// A number lies between these, the bounds not included.
    Number(Source, Bounds),
    /// The clock of the home shows a time of day within these, over midnight when the first is the later one; and the day on which that
    /// stretch began is one of these.
    Time { after: Option<Time>, before: Option<Time>, days: Vec<Weekday> },
    /// The moment lies between these of the sun.
    Sun { after: Option<Sun>, before: Option<Sun> },
    /// An expression is true.
    Expression(Expression),
}

/// An event of the sun, and how long after it.
pub(crate) type Sun = (SunEvent, SignedDuration);

/// The bounds of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) above: Option<f64>,
    pub(crate) below: Option<f64>,
}

impl Bounds {
    /// Whether a number lies between them.
    pub(crate) fn hold(self, number: f64) -> bool {
        self.above.is_none_or(|bound| number > bound) && self.below.is_none_or(|bound| number < bound)
    }

    pub(super) fn read(place: &Place, above: Option<f64>, below: Option<f64>) -> Result<Self, Fault> {
        match (above, below) {
            (None, None) => Err(place.fault("it has neither `above` nor `below`")),
            (Some(above), Some(below)) if above >= below => {
                Err(place.fault(format!("no number is above {above} and below {below}")))
            }
            _ => Ok(Self { above, below }),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateText {
    state: String,
    of: Option<String>,
    is: Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NumberText {
    number: String,
    of: String,
    above: Option<f64>,
    below: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Between {
    after: Option<String>,
    before: Option<String>,
    #[serde(default)]
    days: String,
}

/// Conditions beside each other.
pub(super) fn conditions(place: &Place, parts: &[Json]) -> Result<Vec<Condition>, Fault> {
    place.list(parts, MAX_CONDITIONS, |place, part| condition(place, part, MAX_DEPTH))
}

fn condition(place: &Place, part: &Json, depth: usize) -> Result<Condition, Fault> {
    let deeper = depth
        .checked_sub(1)
        .ok_or_else(|| place.fault(format!("conditions stand in one another {MAX_DEPTH} deep at most")))?;
    let (kind, mut members) = place.kind(part, &KINDS)?;
    let of_kind = members.get(kind).cloned().unwrap_or_default();
    let place = place.member(kind);
    if matches!(kind, "all" | "any" | "not" | "time" | "sun" | "expression") && members.len() > 1 {
        members.remove(kind);
        let more: Vec<_> = members.keys().map(String::as_str).collect();
        return Err(place.fault(format!("`{}` does not belong to it", more.join("`, `"))));
    }
    let inner = |list: &Json| match list {
        Json::Array(parts) => place.list(parts, MAX_CONDITIONS, |place, part| condition(place, part, deeper)),
        _ => Err(place.fault("it is no list of conditions")),
    };
    match kind {
        "all" => inner(&of_kind).map(Condition::All),
        "any" => inner(&of_kind).map(Condition::Any),
        "not" => condition(&place, &of_kind, deeper).map(|not| Condition::Not(Box::new(not))),
        "state" => {
            let StateText { state, of, is } = place.read(members)?;
            Ok(Condition::State(source(&place, state, of)?, is))
        }
        "number" => {
            let NumberText { number, of, above, below } = place.read(members)?;
            Ok(Condition::Number(source(&place, number, Some(of))?, Bounds::read(&place, above, below)?))
        }
        "time" => time(&place, of_kind),
        "sun" => sun(&place, of_kind),
        _ => {
            let text = of_kind.as_str().ok_or_else(|| place.fault("it is no text"))?;
            text.parse().map(Condition::Expression).map_err(|rule| place.fault(rule))
        }
    }
}

fn between(place: &Place, part: Json) -> Result<Between, Fault> {
    let Json::Object(members) = part else {
        return Err(place.fault("it is no object with `after` and `before`"));
    };
    place.read(members)
}

fn time(place: &Place, part: Json) -> Result<Condition, Fault> {
    let Between { after, before, days } = between(place, part)?;
    let read = |text: Option<String>| {
        let wrong = |text: &str| place.fault(format!("`{text}` is no time of day: write 22:30"));
        text.map(|text| text.parse::<Time>().map_err(|_| wrong(&text))).transpose()
    };
    let (after, before, days) = (read(after)?, read(before)?, weekdays(place, &days)?);
    if after.is_none() && before.is_none() && days.is_empty() {
        return Err(place.fault("it has none of `after`, `before` and `days`"));
    }
    Ok(Condition::Time { after, before, days })
}

fn sun(place: &Place, part: Json) -> Result<Condition, Fault> {
    let Between { after, before, days } = between(place, part)?;
    if !days.is_empty() {
        return Err(place.fault("`days` does not belong to it: use a `time` beside it"));
    }
    let read = |text: Option<String>| {
        use device_adapters::schedule::When;
        text.map(|text| match text.parse() {
            Ok(When::Sun(event, offset)) => Ok((event, offset)),
            _ => Err(place.fault(format!("`{text}` is nothing of the sun: write `sunset - 30m`"))),
        })
        .transpose()
    };
    let (after, before) = (read(after)?, read(before)?);
    if after.is_none() && before.is_none() {
        return Err(place.fault("it has neither `after` nor `before`"));
    }
    Ok(Condition::Sun { after, before })
}

/// Days of the week as cron writes them: `mon-fri`, `sat,sun`.
fn weekdays(place: &Place, text: &str) -> Result<Vec<Weekday>, Fault> {
    const DAYS: [(&str, Weekday); 7] = [
        ("mon", Weekday::Monday),
        ("tue", Weekday::Tuesday),
        ("wed", Weekday::Wednesday),
        ("thu", Weekday::Thursday),
        ("fri", Weekday::Friday),
        ("sat", Weekday::Saturday),
        ("sun", Weekday::Sunday),
    ];
    let day = |word: &str| {
        let found = DAYS.iter().find(|(name, _)| *name == word.trim().to_lowercase());
        found.map(|(_, day)| *day).ok_or_else(|| {
            place.fault(format!("`{word}` is no day of the week: write mon, tue, wed, thu, fri, sat, sun"))
        })
    };
    let mut days = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        days.extend(first.cycle_forward().take(7).take_while(|day| *day != last));
        days.push(last);
    }
    Ok(days)
}
