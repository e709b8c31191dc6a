//! What the fuzz target `onewire` runs; built with `--cfg fuzzing`, and for the tests.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::belief::{Belief, MOST_TRIES, Verdict};
use super::wire::{Rom, parse_temperature, parse_w1_slave};

/// Takes the name of a sensor in the first line, and what it sent in the others: it is read again and again.
///
/// # Panics
/// When a rule is broken: that is what is looked for.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (name, text) = text.split_once('\n').unwrap_or_default();
    let _ = parse_temperature(text);
    let Some(rom) = Rom::parse(name) else { return };
    let mut belief = Belief::new(rom, None);
    for tries in 1.. {
        match belief.take(parse_w1_slave(text).map_err(|why| why.to_string())) {
            Verdict::Again => assert!(tries < MOST_TRIES, "it is read for ever"),
            Verdict::Believed(celsius) => return assert!(rom.range().contains(&celsius), "{celsius}"),
            Verdict::Unknown(why) => return assert!(!why.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_ends_in_a_verdict(text in "28-0316a2794cff\n([0-9a-f ]{0,27} : crc=[0-9a-f]{2} (YES|NO)\n[0-9a-f ]{0,27} t=)?-?[0-9]{0,7}") {
            super::run(text.as_bytes());
        }
    }
}
