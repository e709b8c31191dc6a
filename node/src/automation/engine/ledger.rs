//! What the engine has to store, one after another and flushed, while it goes on: a slow disk holds up the step that waits for its
//! record, and no other.

use mesh_proto::kinds::Author;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::service::{Op, Service};

/// Records that are flushed together at most.
const TOGETHER: usize = 32;

/// Records that wait: more than all runs of all automations have.
const WAITING: usize = 4_096;

type Entry = (Op, oneshot::Sender<()>);

/// The way to the one that writes.
#[derive(Clone)]
pub(super) struct Ledger(mpsc::Sender<Entry>);

impl Ledger {
    pub(super) fn open(service: Service) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(write_all(service, receiver));
        Self(sender)
    }

    /// Hands in a record; what it answers with is ready once that is flushed, or could not be. Where the disk fails the home goes on.
    pub(super) fn write(&self, op: Op) -> oneshot::Receiver<()> {
        let (done, is_flushed) = oneshot::channel();
        if let Err(refused) = self.0.try_send((op, done)) {
            warn!(%refused, "what an automation does is not stored");
        }
        is_flushed
    }
}

async fn write_all(service: Service, mut receiver: mpsc::Receiver<Entry>) {
    let mut records = Vec::with_capacity(TOGETHER);
    while receiver.recv_many(&mut records, TOGETHER).await > 0 {
        let (ops, waiting): (Vec<Op>, Vec<_>) = records.drain(..).unzip();
        if let Err(reason) = service.write(Author::Node, ops).await {
            warn!(%reason, "what the automations do is not stored: it is not gone on with after a restart");
        }
        for done in waiting {
            let _ = done.send(()); // whoever waited is gone
        }
    }
}
