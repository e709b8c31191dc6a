//! What the owner of the certificate shows of it: to people here, and to the household.

use std::collections::BTreeMap;

use mesh_proto::Value;

use super::super::report::{BY_LIFE, OTHER_SETTINGS, Renewal, Report, SERVED, SUGGESTED, Wrong};
use super::super::solve::Solver;
use super::{Engine, Held};

/// The longest text in the record, in bytes: all of them together fit one value.
const MAX_SHOWN: usize = 800;

impl<S: Solver> Engine<S> {
    pub(super) fn show(&self, doing: String, next: Option<u64>) {
        let renewal = match (&self.held, &self.plan) {
            (Some(Held { fits: false, .. }), _) => Some(Renewal { at: 0, why: OTHER_SETTINGS }),
            (Some(_), Some(plan)) => {
                Some(Renewal { at: plan.at, why: if plan.window.is_some() { SUGGESTED } else { BY_LIFE } })
            }
            _ => None,
        };
        self.report.send_modify(|report| {
            *report = Report {
                names: self.config.domains.iter().map(ToString::to_string).collect(),
                directory: self.config.directory.to_string(),
                challenge: self.config.challenge.as_str(),
                until: self.held.as_ref().map(|held| held.validity.1),
                served: self.held.as_ref().map(|held| held.names.clone()).unwrap_or_default(),
                renewal,
                next_try: next.filter(|_| doing != SERVED),
                doing,
                error: self
                    .broken
                    .clone()
                    .or_else(|| self.tries.wrong.clone())
                    .map(|(at, words)| Wrong { at, words }),
                attempts: report.attempts,
                failures: report.failures,
            };
        });
    }

    /// The same for the household, as an object may hold it.
    pub(super) fn standing(&self) -> Value {
        let report = self.report.borrow();
        let text = |text: &str| {
            let end = (0..=text.len().min(MAX_SHOWN)).rev().find(|end| text.is_char_boundary(*end));
            Value::from(text.get(..end.unwrap_or(0)).unwrap_or_default())
        };
        let moment = |at: u64| Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
        let mut map: BTreeMap<Box<str>, Value> = BTreeMap::from([
            ("names".into(), text(&report.names.join(" "))),
            ("directory".into(), text(&report.directory)),
            ("doing".into(), text(&report.doing)),
        ]);
        map.extend(report.until.map(|at| ("until".into(), moment(at))));
        map.extend(report.renewal.as_ref().map(|renewal| ("renewal".into(), moment(renewal.at))));
        map.extend(report.error.as_ref().map(|wrong| ("error".into(), text(&wrong.words))));
        Value::Map(map)
    }
}
