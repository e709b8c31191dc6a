//! Expressions of automations: what Jinja writes between its braces, by the library minijinja, with a bound on what it may cost.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, value::Serde};
use serde_json::Value as Json;

/// Longest expression, in bytes.
const MAX_TEXT: usize = 512;
/// Steps of the library that one evaluation may take: a few milliseconds on a small board.
const FUEL: u64 = 10_000;
/// Longest result, as JSON in bytes.
const MAX_RESULT: usize = 4_096;
/// What an expression may name, beside the functions of the library.
const NAMES: [&str; 3] = ["device", "now", "trigger"];

/// An expression that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expression(String);

impl Expression {
    /// Its value.
    ///
    /// # Errors
    /// Why it has none: a device that is not there, a type that does not fit, a cost beyond the bound.
    pub(crate) fn value(&self, facts: &Facts) -> Result<Json, String> {
        // The reason first: what is long is cut where it is shown.
        let told = |error: minijinja::Error| match error.kind() {
            ErrorKind::OutOfFuel => format!("it does not end within {FUEL} steps: `{self}`"),
            _ => format!("{error}: `{self}`"),
        };
        let compiled = environment().compile_expression(&self.0).map_err(told)?;
        let value = compiled.eval(facts.context()).map_err(told)?;
        if value.is_undefined() {
            return Err(format!("there is no such value: `{self}`"));
        }
        let value = serde_json::to_value(&value).map_err(|error| format!("{error}: `{self}`"))?;
        if value.to_string().len() > MAX_RESULT {
            return Err(format!("its value has more than {MAX_RESULT} bytes: `{self}`"));
        }
        Ok(value)
    }

    /// Whether it is true, as Jinja takes it: not false, none, zero or empty.
    ///
    /// # Errors
    /// As [`Expression::value`].
    pub(crate) fn is_true(&self, facts: &Facts) -> Result<bool, String> {
        Ok(match self.value(facts)? {
            Json::Null => false,
            Json::Bool(truth) => truth,
            Json::Number(number) => number.as_f64() != Some(0.0),
            Json::String(text) => !text.is_empty(),
            Json::Array(items) => !items.is_empty(),
            Json::Object(members) => !members.is_empty(),
        })
    }
}

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(format!("an expression has 1 to {MAX_TEXT} bytes, not {}", text.len()));
        }
        let compiled = environment()
            .compile_expression(text)
            .map_err(|error| format!("`{text}` is no expression: {error}"))?;
        let is_known = |name: &String| {
            NAMES.contains(&name.as_str()) || environment().globals().any(|(known, _)| known == name)
        };
        if let Some(unknown) = compiled.undeclared_variables(false).iter().find(|name| !is_known(name)) {
            return Err(format!("`{text}` names `{unknown}`, and there are {}", NAMES.join(", ")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a device is, by any name that people have for it.
pub(crate) type Devices = Arc<dyn Fn(&str) -> Option<Json> + Send + Sync>;

/// What an expression can name. Devices are looked up when they are named.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) devices: Devices,
    /// What started the run.
    pub(crate) trigger: Json,
    /// The time by the clock of the home: `date`, `time`, `hour`, `minute`, `weekday` from 1 for Monday.
    pub(crate) now: Json,
}

impl Facts {
    fn context(&self) -> Value {
        let devices = Arc::clone(&self.devices);
        let device = Value::from_function(move |name: String| {
            devices(&name).map(plain).ok_or_else(|| {
                minijinja::Error::new(ErrorKind::InvalidOperation, format!("there is no device `{name}`"))
            })
        });
        Value::from_pairs([
            ("device", device),
            ("trigger", plain(self.trigger.clone())),
            ("now", plain(self.now.clone())),
        ])
    }
}

fn plain(json: Json) -> Value {
    Value::from(Serde(json))
}

/// The library with its bounds. It knows no template and no file.
fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use serde_json::json;

    use super::*;

    fn facts() -> Facts {
        Facts {
            devices: Arc::new(|name| {
                (name == "Cellar").then(|| json!({"on": true, "temperature": 7.5, "availability": "online"}))
            }),
            trigger: json!({"kind": "event", "data": {"count": 3}}),
            now: json!({"hour": 22, "weekday": 7}),
        }
    }

    fn value(text: &str) -> Result<Json, String> {
        text.parse::<Expression>()?.value(&facts())
    }

    #[test]
    fn devices_the_trigger_and_the_time_are_named() {
        assert_eq!(value("device('Cellar').temperature + 1").unwrap(), json!(8.5));
        assert_eq!(value("trigger.data.count > 2 and now.hour >= 22").unwrap(), json!(true));
        assert_eq!(value("'night' if now.hour > 20 else 'day'").unwrap(), json!("night"));
        assert_eq!(value("device('Cellar').temperature | round").unwrap(), json!(8.0));
        let truth = |text: &str| text.parse::<Expression>().unwrap().is_true(&facts()).unwrap();
        assert!(truth("device('Cellar').on") && !truth("''") && !truth("0") && truth("[0]"));
    }

    #[test]
    fn what_is_wrong_is_told_before_it_runs_and_what_is_not_there_when_it_does() {
        for (text, part) in [
            ("", "1 to 512 bytes"),
            ("1 +", "is no expression"),
            ("states('x')", "names `states`, and there are device, now, trigger"),
            ("{{ 1 }}", "is no expression"),
        ] {
            let refused = text.parse::<Expression>().unwrap_err();
            assert!(refused.contains(part), "{text}: {refused}");
        }
        assert!(value("device('Attic').on").unwrap_err().contains("there is no device `Attic`"));
        assert!(value("device('Cellar').humidity > 3").is_err(), "it measures none");
        assert!(value("trigger.data.count.more.yet").is_err());
        assert_eq!(value("trigger.nothing").unwrap_err(), "there is no such value: `trigger.nothing`");
    }

    #[test]
    fn an_expression_that_never_ends_ends() {
        let mut costly = "range(99999)".to_owned();
        for _ in 0..3 {
            costly = format!("({costly}) | map('string') | join | length");
        }
        for text in [
            costly.as_str(),
            "range(99999) | map('string') | map('upper') | list | length",
            "'x' * 1000000000",
            "'x' * 100000",
            "9 ** 9 ** 9",
        ] {
            let started = std::time::Instant::now();
            let _ = value(text);
            assert!(started.elapsed() < std::time::Duration::from_secs(20), "{text}");
        }
        assert!(value("'x' * 100000").unwrap_err().contains("4096 bytes"));
        assert!(value(&costly).unwrap_err().starts_with("it does not end within 10000 steps: `"));
    }
}
