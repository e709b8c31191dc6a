//! The world as `foca` sees it: packets it sends, timers it sets.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::time::Duration;

use foca::Timer;

use super::swim::Identity;
use crate::id::ShortId;

/// Packets that nobody fetches are dropped from the oldest.
const MAX_WAITING_PACKETS: usize = 1_024;

/// What `foca` asks of the world: packets, and timers in one small table.
pub(super) struct Io {
    pub(super) me: ShortId,
    pub(super) now: u64,
    pub(super) admitted: BTreeSet<ShortId>,
    pub(super) out: VecDeque<(ShortId, Vec<u8>)>,
    pub(super) timers: BTreeMap<(u64, u64), Timer<Identity>>,
    order: u64,
    pub(super) rejoined: bool,
}

impl Io {
    pub(super) fn new(me: ShortId) -> Self {
        Self {
            me,
            now: 0,
            admitted: BTreeSet::new(),
            out: VecDeque::new(),
            timers: BTreeMap::new(),
            order: 0,
            rejoined: false,
        }
    }

    pub(super) fn knows(&self, node: ShortId) -> bool {
        node == self.me || self.admitted.contains(&node)
    }

    pub(super) fn send(&mut self, to: ShortId, packet: Vec<u8>) {
        if self.admitted.contains(&to) {
            if self.out.len() >= MAX_WAITING_PACKETS {
                self.out.pop_front();
            }
            self.out.push_back((to, packet));
        }
    }
}

impl foca::Runtime<Identity> for Io {
    fn notify(&mut self, notification: foca::Notification<'_, Identity>) {
        if let foca::Notification::Rejoin(_) = notification {
            self.rejoined = true;
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.send(to.node, data.to_vec());
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        // `foca` sets a timer anew only after the old one fired or lost its meaning, so one of each kind is
        // enough, and a peer that makes it start over and over cannot fill the table.
        self.timers.retain(|_, waiting| !replaces(&event, waiting));
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.order += 1;
        self.timers.insert((self.now.saturating_add(after), self.order), event);
    }
}

fn replaces(new: &Timer<Identity>, old: &Timer<Identity>) -> bool {
    match (new, old) {
        (
            Timer::ChangeSuspectToDown { member_id: new, .. },
            Timer::ChangeSuspectToDown { member_id: old, .. },
        ) => {
            // A suspect that is probed again keeps its first deadline; only an older identity's is void.
            new.node == old.node && new > old
        }
        _ => core::mem::discriminant(new) == core::mem::discriminant(old),
    }
}
