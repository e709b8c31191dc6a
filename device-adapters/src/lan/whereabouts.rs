//! Where a board is, whether that is proven, and where else it was seen. Pure.

use std::fmt;

use super::Address;

/// The address of a board.
///
/// An address is lent by a router, and may be another board's tomorrow: what is told there is told to whoever has it.
/// So it counts only as long as nothing speaks against it.
#[derive(Debug)]
pub(super) struct Whereabouts {
    at: Address,
    standing: Standing,
    elsewhere: Option<Address>,
}

/// Who is at the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The board: it said so, and nothing failed since.
    Proven,
    /// Perhaps the board.
    Doubted,
    /// Another board.
    Taken,
}

impl Whereabouts {
    /// Where a board just said who it is.
    pub(super) fn new(at: Address) -> Self {
        Self { at, standing: Standing::Proven, elsewhere: None }
    }

    /// Whether the board is there.
    pub(super) fn is_proven(&self) -> bool {
        self.standing == Standing::Proven
    }

    /// Whether another board is there.
    pub(super) fn is_taken(&self) -> bool {
        self.standing == Standing::Taken
    }

    /// Something failed.
    pub(super) fn doubt(&mut self) {
        if self.is_proven() {
            self.standing = Standing::Doubted;
        }
    }

    /// Another board said that it is there.
    pub(super) fn take(&mut self) {
        self.standing = Standing::Taken;
    }

    /// The board said that it is there.
    pub(super) fn prove(&mut self) {
        self.standing = Standing::Proven;
    }

    /// The board was seen; true at another address than this.
    pub(super) fn seen(&mut self, at: Address) -> bool {
        let is_other = at.origin != self.at.origin;
        self.elsewhere = Some(at);
        is_other
    }

    /// It is well where it is.
    pub(super) fn stay(&mut self) {
        self.elsewhere = None;
    }

    /// Whether it was seen where a person said that it is, and is known from an announcement alone.
    fn is_named_elsewhere(&self) -> bool {
        !self.at.configured && self.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.configured)
    }

    /// Whether a person named this place, and where it was seen is known from an announcement alone.
    fn is_named_here(&self) -> bool {
        self.at.configured && self.elsewhere.as_ref().is_some_and(|elsewhere| !elsewhere.configured)
    }

    /// Goes to where it was seen last, when it is ill here or a person named that place; from a place that a person named to
    /// one that nobody did only when it is lost here, for a password is proven at named places alone. The address is doubted
    /// until the board says there who it is.
    pub(super) fn go(&mut self, is_ill: bool, is_lost: bool) -> Option<Moved> {
        let has_to = if self.is_named_here() { is_lost } else { is_ill };
        if !has_to && !self.is_named_elsewhere() {
            return None;
        }
        let to = self.elsewhere.take()?;
        let is_new = to.origin != self.at.origin;
        (self.at, self.standing) = (to.clone(), Standing::Doubted);
        Some(Moved { to, is_new })
    }
}

/// Where a board is asked from now on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) to: Address,
    /// Whether it is another address than before.
    pub(super) is_new: bool,
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.origin.fmt(f)
    }
}
