//! How many objects there are, without looking at each of them every time.

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::{ObjectId, mesh::Mesh};

/// Names that may wait to be looked at beyond those that are known; with more, all are looked at.
const MAX_STALE: usize = 100_000;

/// Counts the objects when first asked, and from then on those that changed.
#[derive(Default)]
pub(super) struct Counts {
    /// Visible objects, and whether each is complete; none until somebody asks.
    known: Option<BTreeMap<ObjectId, bool>>,
    stale: BTreeSet<ObjectId>,
    incomplete: usize,
}

impl Counts {
    /// Notes which objects changed.
    pub(super) fn changed(&mut self, ids: &[ObjectId]) {
        let Some(known) = &self.known else { return };
        self.stale.extend(ids.iter().cloned());
        if self.stale.len() > known.len() + MAX_STALE {
            *self = Self::default();
        }
    }

    /// The complete objects, and the incomplete ones.
    pub(super) fn count(&mut self, mesh: &Mesh) -> (usize, usize) {
        if self.known.is_none() {
            self.stale = mesh.names_from(None).cloned().collect();
        }
        let known = self.known.get_or_insert_default();
        for id in std::mem::take(&mut self.stale) {
            let complete = mesh.object(&id).map(|object| object.complete);
            let before = match complete {
                Some(complete) => known.insert(id, complete),
                None => known.remove(&id),
            };
            self.incomplete += usize::from(complete == Some(false));
            self.incomplete -= usize::from(before == Some(false));
        }
        (known.len() - self.incomplete, self.incomplete)
    }
}
