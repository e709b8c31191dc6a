//! What the fuzz target `weather` runs of this adapter; built with `--cfg fuzzing`, and for the tests.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use crate::model::weather::{MOST_DAYS, MOST_HOURS};

use super::wire;

/// Takes an answer, and looks at it at this moment, in seconds since 1970.
///
/// # Panics
/// When a rule is broken: that is what is looked for.
pub(crate) fn run(now: i64, body: &[u8]) {
    let _ = wire::reason(body);
    let Ok(answer) = wire::read(body) else { return };
    let _ = wire::zone(&answer);
    let forecast = wire::view(&answer, now).forecast;
    assert!(forecast.hourly.len() <= MOST_HOURS && forecast.daily.len() <= MOST_DAYS);
}
