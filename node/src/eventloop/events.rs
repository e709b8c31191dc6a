//! What the machine asks of the loop, or tells it.

use mesh_proto::{
    NodeId,
    mesh::{Event, Input},
    overlay::Run,
    record::Item,
    session,
    wire::ByeReason,
};
use tracing::{error, info, warn};

use super::EventLoop;
use crate::{
    state_dir::{Incarnation, StateDirError},
    transport::LinkId,
};

impl EventLoop {
    pub(super) fn handle_event(&mut self, event: Event) {
        match event {
            Event::Persist { batch, records } => {
                self.in_flight = Some((batch, records.clone()));
                if let Err(reason) = self.store.commit(batch, records.into()) {
                    error!(%reason, "the store is gone");
                }
            }
            Event::PersistRun(run) => self.persist_run(run),
            Event::Written(token) => {
                if let Some(reply) = self.writes.remove(&token) {
                    let _ = reply.send(Ok(()));
                }
            }
            Event::Close(link, reason) => self.close(link, reason),
            Event::RosterChanged => {
                if let Err(reason) = self.save_roster(self.mesh.roster().to_bytes()) {
                    error!(%reason, "the membership cannot be saved");
                }
                self.members.send_replace(self.mesh.roster().members().map(|member| member.id).collect());
                self.publish_alive();
                self.want_peers();
            }
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
            // The first, the second, the fourth…: a peer that goes on must not fill the journal.
            Event::Offence(_, counter) if !self.mesh.counters().get(counter).is_power_of_two() => {}
            Event::Offence(node, counter) => {
                warn!(node = %self.name_of(node.short()), offence = counter.name(), "a peer broke a rule");
            }
            Event::ClockCorrected(_) => {
                warn!(
                    "the clock was ahead and has been set back; what was written meanwhile is written again"
                );
            }
            Event::Rewound(node) => warn!(
                node = %self.name_of(node.short()),
                "a peer knows writes of this node that it never made: was this card restored or cloned?"
            ),
            Event::Refused(node, reason) => self.refused(node, reason),
            Event::Restored { lost } => self.restored(&lost),
        }
    }

    fn persist_run(&mut self, run: Run) {
        let stored = Incarnation { generation: run.generation, incarnation: run.incarnation, clean: false };
        match self.state.set_incarnation(stored) {
            Ok(()) => {
                self.unsaved_run = None;
                self.mesh.handle_input(self.clock.now(), Input::RunPersisted(run));
            }
            Err(reason) => {
                // Said once, tried again with each round of chores: until then no write is flushed.
                if self.unsaved_run.replace(run).is_none() {
                    error!(%reason, "the new generation cannot be saved; writes wait until it can");
                }
            }
        }
    }

    pub(super) fn retry_run(&mut self) {
        if let Some(run) = self.unsaved_run {
            self.persist_run(run);
        }
    }

    pub(super) fn save_roster(&mut self, bytes: Vec<u8>) -> Result<(), StateDirError> {
        if bytes != self.roster_saved {
            self.state.set_roster(&bytes)?;
            self.roster_saved = bytes;
        }
        Ok(())
    }

    fn linked(&mut self, link: session::LinkId, node: NodeId) {
        if let Some(open) = self.links.get(&LinkId(link.0)) {
            open.handle.admit();
            info!(node = %self.name_of(node.short()), address = %open.address, "linked");
        }
        self.want_peers();
    }

    fn refused(&self, node: NodeId, reason: ByeReason) {
        let node = self.name_of(node.short());
        match reason {
            ByeReason::Revoked => error!(
                %node,
                "this node was removed from the household; to come back, run `hearth leave` here and join with a new invite"
            ),
            other => warn!(%node, reason = ?other, "a peer refused this node"),
        }
    }

    fn restored(&self, lost: &[Item]) {
        if let Err(reason) = std::fs::remove_file(&self.restored_marker)
            && reason.kind() != std::io::ErrorKind::NotFound
        {
            error!(%reason, "the mark of the restored store cannot be removed");
        }
        info!(lost = lost.len(), "a peer's state replaced the restored store");
        for item in lost {
            warn!(register = ?item.key, "lost and found: its object was deleted while this store was away");
        }
    }
}
