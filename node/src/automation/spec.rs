//! What a household says of a schedule and of its home, from fields and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use device_adapters::schedule::{Dates, Home, Place, Rule, When, zone};
use jiff::{SignedDuration, Timestamp};
use mesh_proto::{FieldName, ShortId, Value};
use serde_json::Value as Json;

use super::{hosts, record::Record};
use crate::{
    devices::{decode, encode},
    service::ObjectView,
};

/// Most commands of one schedule.
pub(super) const MAX_COMMANDS: usize = 16;
/// Longest time for which what was missed may be made up for.
const MAX_WITHIN: SignedDuration = SignedDuration::from_hours(24 * 7);

/// What becomes of an occurrence that was missed: no node ran, or none knew the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Nothing.
    Skip,
    /// The latest is carried out if it is not older.
    RunOnceIfWithin(SignedDuration),
    /// The latest is carried out, however old it is.
    RunLatest,
}

impl Default for Missed {
    /// A board that was started anew makes up for what came meanwhile.
    fn default() -> Self {
        Self::RunOnceIfWithin(SignedDuration::from_mins(10))
    }
}

impl FromStr for Missed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            let shown: String = text.chars().take(64).collect();
            format!(
                "`{shown}` is no policy: write `skip`, `run_once_if_within 30m` (a week at most) or `run_latest`"
            )
        };
        match text.trim().split_once(' ').unwrap_or((text.trim(), "")) {
            ("skip", "") => Ok(Self::Skip),
            ("run_latest", "") => Ok(Self::RunLatest),
            ("run_once_if_within", limit) => {
                let limit: SignedDuration = limit.trim().parse().map_err(|_| refused())?;
                let fits = limit.is_positive() && limit <= MAX_WITHIN;
                fits.then_some(Self::RunOnceIfWithin(limit)).ok_or_else(refused)
            }
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skip => f.write_str("skip"),
            Self::RunLatest => f.write_str("run_latest"),
            Self::RunOnceIfWithin(limit) => write!(f, "run_once_if_within {limit:#}"),
        }
    }
}

/// A schedule in the words of the household.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleText {
    /// When: `cron 30 7 * * mon-fri`, `sunset - 30m`, `at 2026-12-24 17:00`.
    pub when: String,
    /// Only on these dates, with commas between them; empty for all.
    pub only: String,
    /// Not on these.
    pub except: String,
    /// What becomes of what was missed.
    pub missed: String,
    /// The commands, as the API takes them.
    pub commands: Vec<Json>,
    /// Whether it is on.
    pub enabled: bool,
}

/// A schedule that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) rule: Rule,
    pub(super) missed: Missed,
}

impl ScheduleText {
    /// Understands it.
    ///
    /// # Errors
    /// Which part is wrong, the rule and the way out.
    pub(super) fn parse(&self) -> Result<Parsed, String> {
        let when: When =
            self.when.parse().map_err(|rule: device_adapters::schedule::RuleError| rule.to_string())?;
        let dates = |text: &str| text.parse::<Dates>().map_err(|rule| rule.to_string());
        if self.commands.is_empty() || self.commands.len() > MAX_COMMANDS {
            return Err(format!("{} commands: a schedule has 1 to {MAX_COMMANDS}", self.commands.len()));
        }
        let missed = if self.missed.is_empty() { Missed::default() } else { self.missed.parse()? };
        Ok(Parsed { rule: Rule { when, only: dates(&self.only)?, except: dates(&self.except)? }, missed })
    }
}

/// A schedule's object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    pub(super) text: ScheduleText,
    pub(super) parsed: Result<Parsed, String>,
    /// Only what comes after that counts.
    pub(super) since: Timestamp,
    /// What each node did last.
    pub(super) records: BTreeMap<ShortId, Record>,
}

/// The prefix of the fields that nodes record in.
const RUN: &str = "run.";

impl Spec {
    pub(super) fn read(object: &ObjectView) -> Self {
        let value = |name: &str| {
            FieldName::new(name).ok().and_then(|name| object.fields.get(&name)).map(|field| &field.value)
        };
        let text = |name: &str| value(name).and_then(Value::as_text).unwrap_or_default().to_owned();
        let text = ScheduleText {
            when: text("when"),
            only: text("only"),
            except: text("except"),
            missed: text("missed"),
            commands: value("do").and_then(decode).unwrap_or_default(),
            enabled: value("enabled") != Some(&Value::Bool(false)),
        };
        let record = |(name, field): (&FieldName, &crate::service::FieldView)| {
            let node = name.as_str().strip_prefix(RUN)?.parse().ok()?;
            Some((node, Record::read(&field.value)?))
        };
        Self {
            parsed: text.parse(),
            text,
            since: moment(value("since")),
            records: object.fields.iter().filter_map(record).collect(),
        }
    }
}

/// A field of milliseconds since 1970.
fn moment(value: Option<&Value>) -> Timestamp {
    let ms = value.and_then(Value::as_int);
    ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The field that a node records in.
pub(super) fn run_field(node: ShortId) -> Option<FieldName> {
    FieldName::new(&format!("{RUN}{node}")).ok()
}

/// The fields of a schedule, without what nodes record.
pub(super) fn fields(text: &ScheduleText, since: Timestamp) -> [(&'static str, Value); 7] {
    let of = |text: &str| Value::Text(text.trim().into());
    [
        ("when", of(&text.when)),
        ("only", of(&text.only)),
        ("except", of(&text.except)),
        ("missed", of(&text.missed)),
        ("do", encode(&text.commands)),
        ("enabled", Value::Bool(text.enabled)),
        ("since", Value::Int(since.as_millisecond())),
    ]
}

/// What the household says of its home.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HomeText {
    /// Its time zone, by a name of the IANA database; empty until somebody says it.
    pub zone: String,
    /// Latitude and longitude in degrees, north and east positive.
    pub place: Option<(f64, f64)>,
    /// Since when that is so; the beginning of all time where nobody wrote it down.
    pub since: Timestamp,
    /// The hosts that automations may call over HTTP.
    pub hosts: BTreeSet<hosts::AllowedHost>,
}

impl HomeText {
    pub(super) fn read(object: &ObjectView) -> Self {
        let value = |name: &str| {
            FieldName::new(name).ok().and_then(|name| object.fields.get(&name)).map(|field| &field.value)
        };
        let degrees = |name: &str| match value(name) {
            Some(Value::Float(degrees)) => Some(*degrees),
            #[expect(clippy::cast_precision_loss, reason = "whole degrees")]
            Some(Value::Int(degrees)) => Some(*degrees as f64),
            _ => None,
        };
        Self {
            zone: value("zone").and_then(Value::as_text).unwrap_or_default().to_owned(),
            place: degrees("latitude").zip(degrees("longitude")),
            since: moment(value("since")),
            hosts: hosts::read(object),
        }
    }

    /// The home, to time.
    ///
    /// # Errors
    /// What is missing or wrong, and the way out.
    pub(super) fn home(&self) -> Result<Home, String> {
        if self.zone.is_empty() {
            return Err(
                "the time zone of the home is not set: hearth home set --zone Europe/Berlin".to_owned()
            );
        }
        let place = match self.place {
            None => None,
            Some((latitude, longitude)) => Some(Place::new(latitude, longitude).ok_or_else(|| {
                format!("{latitude}, {longitude} is no place: latitude is -90 to 90 degrees, longitude -180 to 180")
            })?),
        };
        Ok(Home { zone: zone(&self.zone).map_err(|rule| rule.to_string())?, place })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_are_read_and_written_alike() {
        for text in ["skip", "run_latest", "run_once_if_within 30m", "run_once_if_within 1h 30m"] {
            let missed: Missed = text.parse().unwrap();
            assert_eq!(missed.to_string().parse::<Missed>().unwrap(), missed, "{text}");
        }
        for wrong in
            ["", "skip 3", "run_once_if_within", "run_once_if_within -3m", "run_once_if_within 300d", "never"]
        {
            assert!(wrong.parse::<Missed>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_schedule_or_a_home_is_named() {
        let text = ScheduleText {
            when: "sunset".to_owned(),
            only: String::new(),
            except: String::new(),
            missed: String::new(),
            commands: vec![json!({"device": "lamp", "change": {"on": true}})],
            enabled: true,
        };
        assert!(text.parse().is_ok());
        let wrong = |change: &dyn Fn(&mut ScheduleText)| {
            let mut text = text.clone();
            change(&mut text);
            text.parse().unwrap_err()
        };
        assert!(wrong(&|text| text.when = "noon".to_owned()).contains("noon"));
        assert!(wrong(&|text| text.only = "13-40".to_owned()).contains("13-40"));
        assert!(wrong(&|text| text.missed = "often".to_owned()).contains("run_latest"));
        assert!(wrong(&|text| text.commands = Vec::new()).contains("1 to 16"));

        let home =
            |zone: &str, place| HomeText { zone: zone.to_owned(), place, ..HomeText::default() }.home();
        assert!(home("Europe/Berlin", Some((52.5, 13.4))).is_ok());
        assert!(home("", None).unwrap_err().contains("hearth home set"));
        assert!(home("Europe/Nowhere", None).unwrap_err().contains("Europe/Nowhere"));
        assert!(home("UTC", Some((91.0, 0.0))).unwrap_err().contains("latitude"));
    }
}
