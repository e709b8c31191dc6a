//! The membership on its way to the disk, and the statements that this node signs.
//!
//! One write is under way at a time. A statement of this node is durable before it counts or
//! anybody hears of it: a node that forgets what it signed would fork its chain. While one is under
//! way the next waits, or two would take the same place. What cannot be written is tried again with
//! the chores, so that a revocation heard while the disk was full is not forgotten by a reboot.

use std::collections::VecDeque;

use mesh_proto::{
    NodeId,
    roster::{Body, Roster, RosterError, Statement},
};
use tokio::sync::oneshot;
use tracing::{error, info};

use super::EventLoop;
use crate::service::ServiceError;

/// Statements that may wait to be signed.
const MAX_WAITING: usize = 64;

/// Where the answer to an issue goes.
pub(super) enum IssueReply {
    /// The statements that prove the subject's membership.
    Proof(oneshot::Sender<Result<Vec<Vec<u8>>, ServiceError>>),
    /// The nodes that are in by the word of the subject, which is out.
    Removed(oneshot::Sender<Result<Vec<NodeId>, ServiceError>>),
}

impl IssueReply {
    /// Answers; whoever is gone no longer needs it.
    fn send(self, result: Result<(), ServiceError>, roster: &Roster, subject: NodeId) {
        match self {
            Self::Proof(reply) => drop(reply.send(result.map(|()| roster.proof_for(&subject)))),
            Self::Removed(reply) => {
                drop(reply.send(result.map(|()| roster.admitted_by(&subject).collect())));
            }
        }
    }

    /// Nothing was said.
    fn refuse(self, error: ServiceError) {
        match self {
            Self::Proof(reply) => drop(reply.send(Err(error))),
            Self::Removed(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// What the file holds, and what is on its way.
pub(super) struct Membership {
    /// What the file holds. Unknown after a write that failed: it may have replaced the file, and
    /// only what comes after it did not become durable.
    saved: Option<Vec<u8>>,
    saving: Option<Saving>,
    /// Whether the membership may differ from what the file holds or will hold.
    is_behind: bool,
    /// Why the last write failed.
    failed: Option<String>,
    waiting: VecDeque<(Body, IssueReply)>,
}

struct Saving {
    bytes: Vec<u8>,
    issue: Option<Issuing>,
}

struct Issuing {
    statement: Statement,
    subject: NodeId,
    reply: IssueReply,
}

impl Membership {
    /// `saved` is what the file holds.
    pub(super) fn new(saved: Vec<u8>) -> Self {
        Self { saved: Some(saved), saving: None, is_behind: false, failed: None, waiting: VecDeque::new() }
    }

    /// Why it cannot be written at the moment, if so.
    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Whether a write is under way.
    pub(super) fn is_saving(&self) -> bool {
        self.saving.is_some()
    }
}

impl EventLoop {
    /// Signs, makes durable, publishes, then answers.
    pub(super) fn issue(&mut self, body: Body, reply: IssueReply) {
        if self.membership.waiting.len() >= MAX_WAITING {
            reply.refuse(ServiceError::Overloaded);
            return;
        }
        self.membership.waiting.push_back((body, reply));
        self.save_membership();
    }

    pub(super) fn roster_changed(&mut self) {
        self.membership.is_behind = true;
        self.save_membership();
        self.members.send_replace(self.mesh.roster().members().map(|member| member.id).collect());
        self.publish_alive();
        self.want_peers();
    }

    /// Begins the next write, if one is due and none is under way.
    pub(super) fn save_membership(&mut self) {
        while self.membership.saving.is_none() {
            if let Some((body, reply)) = self.membership.waiting.pop_front() {
                self.begin_issue(body, reply);
                continue;
            }
            if !std::mem::take(&mut self.membership.is_behind) {
                return;
            }
            let bytes = self.mesh.roster().to_bytes();
            if self.membership.saved.as_ref() != Some(&bytes) {
                self.save_bytes(bytes, None);
            }
        }
    }

    fn begin_issue(&mut self, body: Body, reply: IssueReply) {
        if let Body::Admit { node, token: Some(token), .. } = &body
            && self.mesh.roster().redeemed(token).is_some()
            && self.mesh.roster().is_admitted(node)
        {
            // A retry, perhaps after a power cut in between, gets the same statements.
            reply.send(Ok(()), self.mesh.roster(), *node);
            return;
        }
        let subject = match &body {
            Body::Admit { node, .. } | Body::Revoke { node, .. } => *node,
            Body::Leave => self.mesh.id(),
        };
        match self.mesh.sign(body) {
            Ok(statement) => {
                let bytes = self.mesh.roster().to_bytes_with(&statement);
                self.save_bytes(bytes, Some(Issuing { statement, subject, reply }));
            }
            Err(error) => {
                reply.refuse(refused(&error));
            }
        }
    }

    fn save_bytes(&mut self, bytes: Vec<u8>, issue: Option<Issuing>) {
        self.files.save_roster(bytes.clone());
        self.membership.saving = Some(Saving { bytes, issue });
    }

    /// A write has ended.
    pub(super) fn roster_saved(&mut self, result: Result<(), String>) {
        let Some(Saving { bytes, issue }) = self.membership.saving.take() else { return };
        match result {
            Ok(()) => {
                self.membership.saved = Some(bytes);
                if self.membership.failed.take().is_some() {
                    info!("the membership can be saved again");
                }
                if let Some(issuing) = issue {
                    self.publish_statement(issuing);
                }
                self.save_membership();
            }
            Err(reason) => {
                if self.membership.failed.is_none() {
                    error!(%reason, "the membership cannot be saved; it is tried again until it can");
                }
                self.membership.failed = Some(reason.clone());
                // Written anew whatever the membership is: a statement that was refused must not
                // stay in the file, where the next start would let it count.
                self.membership.saved = None;
                self.membership.is_behind = true;
                if let Some(issuing) = issue {
                    issuing.reply.refuse(ServiceError::Store(reason));
                }
                // Whoever waits is told by an attempt of its own; the rest is for the chores.
                if !self.membership.waiting.is_empty() {
                    self.save_membership();
                }
            }
        }
    }

    fn publish_statement(&mut self, issuing: Issuing) {
        let Issuing { statement, subject, reply } = issuing;
        let published = self.mesh.publish(self.clock.now(), &statement);
        // If another took its place meanwhile, the file holds one that counts for nothing.
        self.membership.is_behind |= published.is_err();
        reply.send(published.map_err(|error| refused(&error)), self.mesh.roster(), subject);
    }
}

fn refused(error: &RosterError) -> ServiceError {
    ServiceError::Roster(error.to_string())
}
