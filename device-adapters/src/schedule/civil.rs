//! From what a clock shows to the moment, over the jumps of clocks.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::{Occurrence, Why};

/// The one moment of a day at which a time that a rule names comes; none beyond the calendar.
pub(super) fn once(label: DateTime, zone: &TimeZone) -> Option<Occurrence> {
    let (at, why) = match zone.to_ambiguous_timestamp(label).offset() {
        AmbiguousOffset::Unambiguous { offset } => (offset.to_timestamp(label).ok()?, Why::Shown),
        AmbiguousOffset::Fold { before, .. } => (before.to_timestamp(label).ok()?, Why::FirstOfTwo),
        AmbiguousOffset::Gap { after, .. } => {
            // By the offset that holds afterwards the skipped time lies before the jump.
            let before_the_jump = after.to_timestamp(label).ok()?;
            (zone.following(before_the_jump).next()?.timestamp(), Why::Skipped(label))
        }
    };
    Some(Occurrence { at, why })
}

/// Why a moment whose time the clock shows is one of two, if it is.
pub(super) fn shown(at: Timestamp, label: DateTime, zone: &TimeZone) -> Why {
    match zone.to_ambiguous_timestamp(label).offset() {
        AmbiguousOffset::Fold { before, .. } if before.to_timestamp(label).is_ok_and(|first| first == at) => {
            Why::FirstOfTwo
        }
        AmbiguousOffset::Fold { .. } => Why::SecondOfTwo,
        _ => Why::Shown,
    }
}
