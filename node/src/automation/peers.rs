//! The nodes of the household, as whoever does something by itself must know them: who lives, who wins, and whether what they did has
//! been heard here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_proto::{FieldName, ObjectId, ShortId};
use tokio::{sync::watch, time::Instant};

use crate::{
    devices::ownership::winner,
    service::{Change, ServiceError},
};

/// How long after the start, or after a node came to life, its records are waited for.
pub(super) const HEAR_OUT: Duration = Duration::from_secs(10);

/// What is watched for it.
pub(super) const PREFIX: &str = "node/";

/// The nodes.
pub(super) struct Peers {
    pub(super) me: ShortId,
    alive: watch::Receiver<BTreeSet<ShortId>>,
    pub(super) living: BTreeSet<ShortId>,
    /// Since when just these live.
    pub(super) living_since: Instant,
    /// Whether nothing is missing here of what the linked peers hold.
    caught_up: watch::Receiver<bool>,
    /// Until then what peers recorded is waited for.
    hears_out_until: Instant,
    /// Friendly names of the nodes, those of dead ones too.
    called: BTreeMap<ShortId, String>,
}

/// What has changed of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// Others live than before.
    Living {
        /// One more, who may have seen others win, or nobody else live.
        has_come: bool,
    },
    /// What was heard of them.
    Heard,
}

impl Peers {
    pub(super) fn new(
        me: ShortId,
        alive: watch::Receiver<BTreeSet<ShortId>>,
        caught_up: watch::Receiver<bool>,
    ) -> Self {
        let now = Instant::now();
        Self {
            me,
            alive,
            living: BTreeSet::from([me]),
            living_since: now,
            caught_up,
            hears_out_until: now + HEAR_OUT,
            called: BTreeMap::new(),
        }
    }

    /// Takes in an object below [`PREFIX`].
    pub(super) fn see(&mut self, change: &Change) {
        let Ok(node) = change.id.name().parse() else { return };
        let Some(object) = &change.object else { return drop(self.called.remove(&node)) };
        let name = FieldName::new("name").ok().and_then(|field| object.fields.get(&field));
        if let Some(name) = name.and_then(|name| name.value.as_text()) {
            self.called.insert(node, name.to_owned());
        }
    }

    /// Waits until something has changed.
    ///
    /// # Errors
    /// The event loop is gone.
    pub(super) async fn changed(&mut self) -> Result<Changed, ServiceError> {
        tokio::select! {
            biased;
            changed = self.alive.changed() => {
                changed.map_err(|_| ServiceError::Stopping)?;
                Ok(Changed::Living { has_come: self.see_alive() })
            }
            changed = self.caught_up.changed() => {
                changed.map_err(|_| ServiceError::Stopping)?;
                Ok(Changed::Heard)
            }
        }
    }

    /// Looks at who lives; whether one more does.
    pub(super) fn see_alive(&mut self) -> bool {
        let living = self.alive.borrow_and_update().clone();
        let now = Instant::now();
        let has_come = living.difference(&self.living).next().is_some();
        if has_come {
            self.hears_out_until = now + HEAR_OUT;
        }
        (self.living, self.living_since) = (living, now);
        has_come
    }

    /// Who of the living is the one to act on an object.
    pub(super) fn winner(&self, object: &ObjectId) -> Option<ShortId> {
        winner(self.living.iter().copied(), object.as_str())
    }

    /// Whether that is this node.
    pub(super) fn is_mine(&self, object: &ObjectId) -> bool {
        self.winner(object) == Some(self.me)
    }

    /// Why this node may not act, if so.
    pub(super) fn held(&self) -> Option<&'static str> {
        // Of none this node is none either: it stands outside of its household.
        if self.living.is_empty() {
            return Some("this node stands outside of its household");
        }
        (!self.has_heard()).then_some("what the other nodes have done is being heard out")
    }

    /// Whether this node knows what the others knew when it started, or when one came to life; those that say nothing are waited for
    /// for a while.
    pub(super) fn has_heard(&self) -> bool {
        let is_alone = self.called.keys().all(|node| *node == self.me);
        is_alone || *self.caught_up.borrow() || Instant::now() >= self.hears_out_until
    }

    /// The name of a node, or its id where nobody knows it.
    pub(super) fn call(&self, node: ShortId) -> String {
        self.called.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }
}
