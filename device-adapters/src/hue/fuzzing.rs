//! What the fuzz target `hue` runs; built with `--cfg fuzzing`, and for the tests.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::home::Home;
use super::sse::Parser;
use super::wire;

/// Takes what a bridge answers and then its stream of events: the first two bytes (little-endian) say how long the
/// answer is, the third where the stream is cut.
///
/// # Panics
/// When a rule is broken: that is what is looked for.
pub fn run(data: &[u8]) {
    let Some(([low, high, cut], rest)) = data.split_first_chunk::<3>() else { return };
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (answer, stream) = rest.split_at(length);
    let _ = (wire::put(answer), wire::public(answer), wire::paired(answer));
    let mut home = Home::default();
    if let Ok(resources) = wire::resources(answer) {
        home.replace(resources, "192.0.2.1");
    }
    look(&home);
    let mut whole = Parser::default();
    let events = whole.take(stream).expect("less than the longest event");
    let (before, after) = stream.split_at(stream.len() * usize::from(*cut) / 255);
    let mut parser = Parser::default();
    let mut pieces = parser.take(before).expect("as above");
    pieces.extend(parser.take(after).expect("as above"));
    assert_eq!(events, pieces, "how it is cut makes no difference");
    for event in events {
        if let Ok(events) = wire::events(&event) {
            home.apply(events);
            look(&home);
        }
    }
}

/// Whatever the bridge says, each of its devices can be shown.
fn look(home: &Home) {
    for role in home.roles().values() {
        let _ = (home.state(role), home.measured(role), home.availability(role), home.last_press(role));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_answer_and_stream_are_taken(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::run(&data);
        }
    }
}
