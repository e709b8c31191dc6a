//! What the fuzz target `weather` runs of this adapter; built with `--cfg fuzzing`, and for the tests.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use jiff::tz::{Offset, TimeZone};

use crate::model::weather::{MOST_DAYS, MOST_HOURS};

use super::{outlook, wire};

/// Takes an answer, and looks at it at this moment, in seconds since 1970.
///
/// # Panics
/// When a rule is broken: that is what is looked for.
pub(crate) fn run(now: i64, body: &[u8]) {
    let Ok(steps) = wire::read(body) else { return };
    assert!(steps.is_sorted_by(|before, after| before.at < after.at));
    let zone = TimeZone::fixed(Offset::constant(2));
    let forecast = outlook::view(&steps, &zone, now).forecast;
    assert!(forecast.hourly.len() <= MOST_HOURS && forecast.daily.len() <= MOST_DAYS);
}
