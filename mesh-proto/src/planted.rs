//! Bugs planted on purpose, so that the simulation can prove that it would catch them.
//!
//! Without the feature `planted-bugs` neither the enum nor any of its code exists.

/// Which bug, if any, this replica carries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plant {
    #[cfg(feature = "planted-bugs")]
    /// The bug that is switched on.
    pub bug: Option<Planted>,
}

/// The twelve bugs.
#[cfg(feature = "planted-bugs")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Planted {
    AdvertiseBeforeFlush,
    SequenceReused,
    RangeCompletedEarly,
    TombstoneCollectedEarly,
    StampNotCompared,
    OverlayOutlivesWriter,
    CoversForgotten,
    GenerationNotBumped,
    QuarantineIgnored,
    RestoredStoreMerged,
    RosterUnchained,
    ForwardLoop,
}

#[cfg(feature = "planted-bugs")]
impl Planted {
    /// All of them, in the order in which the simulation takes them.
    pub const ALL: [Self; 12] = [
        Self::AdvertiseBeforeFlush,
        Self::SequenceReused,
        Self::RangeCompletedEarly,
        Self::TombstoneCollectedEarly,
        Self::StampNotCompared,
        Self::OverlayOutlivesWriter,
        Self::CoversForgotten,
        Self::GenerationNotBumped,
        Self::QuarantineIgnored,
        Self::RestoredStoreMerged,
        Self::RosterUnchained,
        Self::ForwardLoop,
    ];
}

/// Whether the named bug is switched on; `false` at compile time without the feature.
macro_rules! planted {
    ($plant:expr, $bug:ident) => {{
        #[cfg(feature = "planted-bugs")]
        let on = $plant.bug == Some(crate::planted::Planted::$bug);
        #[cfg(not(feature = "planted-bugs"))]
        let on = {
            let _: &crate::planted::Plant = &$plant;
            false
        };
        on
    }};
}
pub(crate) use planted;
