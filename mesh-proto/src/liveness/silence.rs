//! Links that fell silent.
//!
//! `foca` probes its members one after the other, in random order: where few are left to probe many, as at the edge
//! of a site whose joint died, the turn of the dead one may come last. So whoever is linked and silent is asked at
//! once, and asked for through others; if no answer comes it is suspected, and has the usual time to object.

use super::tuning::PROBE_RTT_MS;

/// A linked peer that was not heard for this long, in milliseconds, is asked...
const SILENT_MS: u64 = 500;
/// ...or for this long times the links: among many, whose probes find the dead soon enough, few are asked.
const SILENT_MS_PER_LINK: u64 = 125;
/// Asked so often, and each time given as long as a probe is.
const ASKS: u32 = 3;

/// What is known of a linked peer by what was last heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It spoke at this time, or another one just vouched for it.
    Since(u64),
    /// It was asked so often, and is waited for until then.
    Asked { times: u32, until: u64 },
    /// It is suspected in this incarnation of `foca`'s, and has until then to object.
    Suspected { incarnation: u16, until: u64 },
}

/// What is to be done about a silent peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask it: alone, or also through others.
    Ask { others: bool },
    /// Suspect it.
    Suspect,
    /// It is down unless it objected in a later incarnation than this.
    Judge { incarnation: u16 },
}

impl Silence {
    /// When something is to be done, with so many links.
    pub(super) fn due(self, links: usize) -> u64 {
        match self {
            Self::Since(at) => {
                let links = u64::try_from(links).unwrap_or(u64::MAX);
                at.saturating_add(SILENT_MS.max(SILENT_MS_PER_LINK.saturating_mul(links)))
            }
            Self::Asked { until, .. } | Self::Suspected { until, .. } => until,
        }
    }

    /// What that is. Asking changes the state; the other steps are answered by whoever takes them.
    pub(super) fn step(&mut self, now: u64) -> Step {
        let times = match *self {
            Self::Since(_) => 0,
            Self::Asked { times, .. } => times,
            Self::Suspected { incarnation, .. } => return Step::Judge { incarnation },
        };
        if times == ASKS {
            return Step::Suspect;
        }
        *self = Self::Asked { times: times + 1, until: now + PROBE_RTT_MS };
        Step::Ask { others: times > 0 }
    }

    /// This node itself was away for so long: a silence counts from now on, a suspect has its time (`suspicion`) again.
    pub(super) fn excuse(&mut self, now: u64, suspicion: u64) {
        *self = match *self {
            Self::Since(_) | Self::Asked { .. } => Self::Since(now),
            Self::Suspected { incarnation, .. } => Self::Suspected { incarnation, until: now + suspicion },
        };
    }
}
