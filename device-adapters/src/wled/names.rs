//! The names of effects and palettes, which a board lists by their numbers. Pure.

use std::collections::BTreeSet;

use crate::lan::readable;

use super::wire::MOST_NAME;

/// The most effects and the most palettes: their numbers are bytes.
const MOST_NAMES: usize = 256;

/// The names of effects and palettes by their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    effects: Vec<Option<String>>,
    palettes: Vec<Option<String>>,
}

impl Names {
    /// The names as boards list them: `RSVD` and `-` stand for what this build does not have.
    pub(super) fn new(effects: Vec<String>, palettes: Vec<String>) -> Self {
        Self { effects: named(effects), palettes: named(palettes) }
    }

    /// Those that a person may choose. The first effect is the plain light, which is what no effect means.
    pub(super) fn effects(&self) -> Vec<String> {
        self.effects.iter().skip(1).flatten().cloned().collect()
    }

    pub(super) fn palettes(&self) -> Vec<String> {
        self.palettes.iter().flatten().cloned().collect()
    }

    /// The name of an effect, or of its number where it has none.
    pub(super) fn effect(&self, number: u16) -> String {
        name_of(&self.effects, number, "effect")
    }

    pub(super) fn palette(&self, number: u16) -> String {
        name_of(&self.palettes, number, "palette")
    }

    pub(super) fn number_of_effect(&self, name: &str) -> Option<usize> {
        number_of(&self.effects, name)
    }

    pub(super) fn number_of_palette(&self, name: &str) -> Option<usize> {
        number_of(&self.palettes, name)
    }
}

fn named(names: Vec<String>) -> Vec<Option<String>> {
    let mut seen = BTreeSet::new();
    let numbered = names.into_iter().take(MOST_NAMES).enumerate();
    let unique = numbered.map(|(number, name)| {
        let name = readable(name.split('@').next().unwrap_or_default(), MOST_NAME);
        if name.is_empty() || name == "RSVD" || name == "-" {
            return None;
        }
        // Old firmware lists some names twice.
        let name = if seen.contains(&name) { format!("{name} ({number})") } else { name };
        seen.insert(name.clone());
        Some(name)
    });
    unique.collect()
}

fn name_of(names: &[Option<String>], number: u16, what: &str) -> String {
    names.get(usize::from(number)).cloned().flatten().unwrap_or_else(|| format!("{what} {number}"))
}

fn number_of(names: &[Option<String>], name: &str) -> Option<usize> {
    names.iter().position(|known| known.as_deref() == Some(name))
}
