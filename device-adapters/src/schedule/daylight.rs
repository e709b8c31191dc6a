//! Whether a moment lies after one turn of the sun and before another: also where it does not rise or set (docs/automation.md).
//!
//! Every solar day has each turn once: where the sun stays below a horizon, it rises above it and sets at its highest; where it stays
//! above, it sets and rises at its lowest.

use jiff::{SignedDuration, Timestamp};

use super::{Home, RuleError, SunEvent, sun::Place};

/// No date reaches farther from a moment in it.
const A_DATE: SignedDuration = SignedDuration::from_hours(26);

/// An event of the sun, and how long after it (before it, when negative).
pub type Turn = (SunEvent, SignedDuration);

/// Whether a moment lies after one turn and before the other. One alone is about the one of its date.
///
/// # Errors
/// [`RuleError::NoPlace`].
pub fn sun_is(
    after: Option<Turn>,
    before: Option<Turn>,
    now: Timestamp,
    home: &Home,
) -> Result<bool, RuleError> {
    let place = home.place.ok_or(RuleError::NoPlace)?;
    Ok(match (after, before) {
        (Some(after), Some(before)) => is_between(after, before, now, place),
        (Some(after), None) => has_been_today(after, now, home, place),
        (None, Some(before)) => !has_been_today(before, now, home, place),
        (None, None) => true,
    })
}

/// Whether one of the stretches that begin with `after` is under way. It ends with the first `before` whose event is not the earlier
/// one: where a day is so short that the offsets swap the two, one stretch goes over into the next.
fn is_between(after: Turn, before: Turn, now: Timestamp, place: Place) -> bool {
    let at = |(event, offset): Turn, day| event.of_solar_day(day, place)?.checked_add(offset).ok();
    let is_under_way = |day: i64| {
        let begin = at(after, day).filter(|begin| *begin <= now)?;
        let first = if before.0 >= after.0 { day } else { day + 1 };
        // The offsets are 12 hours each at most.
        let end = (first..first + 4).filter_map(|day| at(before, day)).find(|end| *end >= begin)?;
        (now < end).then_some(())
    };
    let today = place.solar_day(now);
    (today - 3..=today + 1).any(|day| is_under_way(day).is_some())
}

/// Whether the turn of this date by the clock of the home has been. On a date without one, where the sun stands says it.
fn has_been_today((event, offset): Turn, now: Timestamp, home: &Home, place: Place) -> bool {
    let date = |at: Timestamp| home.zone.to_datetime(at).date();
    let Ok(then) = now.checked_sub(offset) else { return false };
    let [Ok(from), Ok(until)] = [then.checked_sub(A_DATE), then.checked_add(A_DATE)] else { return false };
    let turns = event.between(from, until, place).filter_map(|at| at.checked_add(offset).ok());
    match turns.filter(|at| date(*at) == date(now)).min() {
        Some(turn) => turn <= now,
        None => event.is_over(then, place),
    }
}
