//! What the machine asks of the loop, or tells it.

use std::path::PathBuf;

use mesh_proto::{
    NodeId,
    counters::Counter,
    mesh::{Event, Input},
    overlay::Run,
    session,
    wire::ByeReason,
};
use tracing::{error, info, warn};

use super::{EventLoop, peers::kind};
use crate::transport::{LinkId, TransportKind};

/// Peers and rules whose offences are counted apart.
const MAX_OFFENCES: usize = 1_024;

impl EventLoop {
    pub(super) fn handle_event(&mut self, event: Event) {
        match event {
            Event::Persist { batch, records } => {
                self.in_flight = Some((batch, records.clone()));
                if let Err(reason) = self.store.commit(batch, records.into()) {
                    error!(%reason, "the store is gone");
                }
            }
            Event::PersistRun(run, mark) => {
                self.run_wanted = Some((run, mark));
                self.save_run();
            }
            Event::Written(token) => {
                if let Some(reply) = self.writes.remove(&token) {
                    let _ = reply.send(Ok(()));
                }
            }
            Event::Close(link, reason) => self.close(link, reason),
            Event::RosterChanged => self.roster_changed(),
            Event::Linked(link, node) => self.linked(link, node),
            Event::NodeUp(node, _) => {
                info!(node = %self.name_of(node), "node is alive");
                self.is_heard.insert(node);
                self.publish_alive();
            }
            Event::NodeDown(node, _) => {
                warn!(node = %self.name_of(node), "node is down");
                self.publish_alive();
            }
            Event::Offence(node, counter) => self.offence(node, counter),
            Event::ClockCorrected(_) => {
                warn!(
                    "the clock was ahead and has been set back; what was written meanwhile is written again"
                );
            }
            Event::Rewound(node) => warn!(
                node = %self.name_of(node.short()),
                "a peer knows writes of this node that it lost or never made: was this card restored or cloned? A peer's state replaces its store"
            ),
            Event::Refused(node, reason) => self.refused(node, reason),
            Event::Copied { node, link } => self.copied(node, link),
            Event::LostAndFound { number, lost } => self.files.save_lost(number, lost),
            Event::Restored => {
                info!("a peer's state replaced the restored store");
                self.unmark_wanted = true;
                // A run that could not be saved yet must not bring the mark back.
                if let Some((_, mark)) = &mut self.run_wanted {
                    *mark = None;
                }
                self.save_run();
            }
        }
    }

    /// Begins to make the wanted run durable, unless a write of one is under way. A mark that is to
    /// go goes before: the run may bring a new one.
    pub(super) fn save_run(&mut self) {
        if self.run_saving {
            return;
        }
        if std::mem::take(&mut self.unmark_wanted) {
            self.run_saving = true;
            self.files.remove_mark();
        } else if let Some((run, mark)) = self.run_wanted {
            self.run_saving = true;
            self.files.save_run(run, mark);
        }
    }

    pub(super) fn run_saved(&mut self, run: Run, result: Result<(), String>) {
        self.run_saving = false;
        match result {
            Ok(()) => {
                if std::mem::take(&mut self.run_failed) {
                    info!("the new generation is saved");
                }
                self.run_wanted = self.run_wanted.filter(|(wanted, _)| *wanted != run);
                self.mesh.handle_input(self.clock.now(), Input::RunPersisted(run));
                self.save_run();
            }
            Err(reason) => {
                if !std::mem::replace(&mut self.run_failed, true) {
                    error!(%reason, "the new generation cannot be saved yet; writes wait");
                }
            }
        }
    }

    /// Says the first, the second, the fourth… time: a peer that goes on must not fill the journal.
    fn offence(&mut self, node: NodeId, counter: Counter) {
        if self.offences.len() >= MAX_OFFENCES {
            self.offences.clear();
        }
        let times = self.offences.entry((node, counter)).or_insert(0_u64);
        *times += 1;
        let times = *times;
        if times.is_power_of_two() {
            let node = self.name_of(node.short());
            warn!(%node, offence = counter.name(), times, "a peer broke a rule");
        }
    }

    fn linked(&mut self, link: session::LinkId, node: NodeId) {
        if let Some(open) = self.links.get(&LinkId(link.0)) {
            open.handle.admit();
            let over = self.mesh.links().find(|(id, _)| *id == link).map(|(_, link)| kind(link.transport));
            let over = over.map_or("", TransportKind::name);
            info!(node = %self.name_of(node.short()), address = %open.address, over, "linked");
        }
        self.want_peers();
    }

    fn refused(&self, node: NodeId, reason: ByeReason) {
        let node = self.name_of(node.short());
        match reason {
            ByeReason::Revoked => error!(
                %node,
                "a peer says that this node was removed from the household; to come back, run `hearth leave` here and join with a new invite"
            ),
            // What follows from it is said where it is seen.
            ByeReason::Copied => {}
            other => warn!(%node, reason = ?other, "a peer refused this node"),
        }
    }

    /// What became of an export of the lost-and-found. Nothing is replaced before it is durable;
    /// when it failed the machine asks again.
    pub(super) fn lost_saved(&mut self, number: u32, result: Result<PathBuf, String>) {
        match result {
            Ok(path) => {
                self.lost_failed = false;
                let path = path.display();
                warn!(%path, "lost and found: what this store held and the others do not have");
                self.mesh.handle_input(self.clock.now(), Input::LostSaved(number));
            }
            Err(reason) => {
                if !std::mem::replace(&mut self.lost_failed, true) {
                    error!(%reason, "the lost-and-found cannot be saved; the restored store stays");
                }
            }
        }
    }
}
