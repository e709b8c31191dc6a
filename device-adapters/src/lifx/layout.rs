//! How the zones of a product lie, which decides what it is asked and told.

use std::ops::Range;

use super::chain::Chain;
use super::wire::{Effect, Hsbk, Reply, Request};

/// The most zones of a strip that are kept; the longest that there is has 120.
pub(crate) const MOST_ZONES: u16 = 1_024;

/// How the zones of a product lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// It shows one colour.
    Point,
    /// Zones in a line.
    Strip {
        /// It knows the messages that hold all zones.
        extended: bool,
    },
    /// Zones in rows.
    Matrix {
        /// It knows the effect of that name.
        sky: bool,
        /// Its tiles, once it has told.
        chain: Chain,
    },
}

/// What an answer tells of the zones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    /// How many there are.
    pub(crate) count: usize,
    /// The first of these.
    pub(crate) first: usize,
    /// What they show.
    pub(crate) colors: &'a [Hsbk],
}

impl Layout {
    /// The effects that it runs by itself.
    pub(crate) fn effects(self) -> &'static [Effect] {
        match self {
            Self::Point => &[],
            Self::Strip { .. } => &[Effect::Move],
            Self::Matrix { sky: false, .. } => &[Effect::Morph, Effect::Flame],
            Self::Matrix { sky: true, .. } => &[Effect::Morph, Effect::Flame, Effect::Sky],
        }
    }

    /// The question for the effect that it runs.
    pub(crate) fn effect_question(self) -> Option<Request> {
        match self {
            Self::Point => None,
            Self::Strip { .. } => Some(Request::GetMultiZoneEffect),
            Self::Matrix { .. } => Some(Request::GetTileEffect),
        }
    }

    /// The message that makes it run that effect.
    pub(crate) fn set_effect(self, effect: Effect) -> Option<Request> {
        match self {
            Self::Point => None,
            Self::Strip { .. } => Some(Request::SetMultiZoneEffect(effect)),
            Self::Matrix { .. } => Some(Request::SetTileEffect(effect)),
        }
    }

    /// The question for how many zones it has.
    pub(crate) fn size_question(self) -> Option<Request> {
        match self {
            Self::Point => None,
            Self::Strip { .. } => Some(Request::GetColorZones(0, 0)), // every strip knows it
            Self::Matrix { .. } => Some(Request::GetDeviceChain),
        }
    }

    /// The questions for what the zones show that are missing.
    pub(crate) fn zones_questions(self, is_missing: impl Fn(&Range<usize>) -> bool) -> Vec<Request> {
        let whole = 0..usize::from(MOST_ZONES);
        match self {
            Self::Strip { extended: true } if is_missing(&whole) => vec![Request::GetExtendedColorZones],
            Self::Strip { extended: false } if is_missing(&whole) => vec![Request::GetColorZones(0, u8::MAX)],
            Self::Matrix { chain, .. } => chain.questions(is_missing),
            Self::Point | Self::Strip { .. } => Vec::new(),
        }
    }

    /// What an answer tells of the zones, if it fits.
    pub(crate) fn told(self, reply: &Reply) -> Option<Told<'_>> {
        match (self, reply) {
            (Self::Strip { .. }, Reply::StateZones { count, first, colors }) => {
                Some(Told { count: (*count).min(MOST_ZONES).into(), first: (*first).into(), colors })
            }
            (Self::Matrix { chain, .. }, Reply::State64 { tile, row, width, colors, .. }) => {
                let zones = chain.part(*tile, *row, *width)?.zones;
                let colors = colors.get(..zones.len())?;
                Some(Told { count: chain.zones(), first: zones.start, colors })
            }
            _ => None,
        }
    }

    /// The zones behind the first `painted` that [`Layout::paint`] must know to leave them as they are.
    pub(crate) fn kept(self, painted: usize) -> Range<usize> {
        match self {
            Self::Matrix { chain, .. } => chain.shared(painted),
            Self::Point | Self::Strip { .. } => painted..painted,
        }
    }

    /// The messages that show these runs of colours from the first zone on, and behind them what was there.
    pub(crate) fn paint(self, runs: &[(u16, Hsbk)], kept: &[Hsbk], fade: u32) -> Vec<Request> {
        let each = || runs.iter().flat_map(|(count, hsbk)| std::iter::repeat_n(*hsbk, (*count).into()));
        match self {
            Self::Point => Vec::new(),
            Self::Strip { extended: true } => Request::extended_zones(&each().collect::<Vec<_>>(), fade),
            Self::Strip { extended: false } => Request::zones(runs, fade),
            Self::Matrix { chain, .. } => {
                let colors: Vec<Hsbk> = each().chain(kept.iter().copied()).collect();
                chain.paint(&colors, fade)
            }
        }
    }
}
