//! What the engine has to store, flushed, while it goes on: a slow disk holds up the step that waits for its record, and no other.
//!
//! What is written over before the disk came to it is not stored: so no more waits than there are fields.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
};

use mesh_proto::{FieldName, ObjectId, Value, kinds::Author};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use crate::service::{Op, Service, ServiceError};

/// Records that are flushed together at most.
const TOGETHER: usize = 256;

/// What fields are to hold, or that they are to go, and who waits for that.
type Records = BTreeMap<(ObjectId, FieldName), (Option<Value>, Vec<oneshot::Sender<()>>)>;

/// The way to the one that writes.
pub(super) struct Ledger {
    waiting: Records,
    writer: mpsc::Sender<Records>,
}

impl Ledger {
    pub(super) fn open(service: Service) -> Self {
        let (writer, records) = mpsc::channel(1);
        tokio::spawn(write_all(service, records));
        Self { waiting: Records::new(), writer }
    }

    /// Takes a record; what it answers with is ready once that is flushed, or could not be. Where the disk fails the home goes on.
    pub(super) fn write(
        &mut self,
        object: &ObjectId,
        field: FieldName,
        value: Option<Value>,
    ) -> oneshot::Receiver<()> {
        let (done, is_flushed) = oneshot::channel();
        let (latest, waiting) = self.waiting.entry((object.clone(), field)).or_default();
        *latest = value;
        waiting.push(done);
        is_flushed
    }

    /// Hands over what waits, if the one that writes takes more.
    pub(super) fn hand_over(&mut self) {
        if !self.waiting.is_empty()
            && let Ok(place) = self.writer.try_reserve()
        {
            place.send(std::mem::take(&mut self.waiting));
        }
    }

    /// Hands over the rest, for good.
    pub(super) async fn close(&mut self) {
        if let Ok(place) = self.writer.reserve().await {
            place.send(std::mem::take(&mut self.waiting));
        }
    }

    /// Returns once something waits that can be handed over.
    pub(super) async fn is_ready(&self) {
        if self.waiting.is_empty() || self.writer.reserve().await.is_err() {
            pending::<()>().await;
        }
    }
}

async fn write_all(service: Service, mut receiver: mpsc::Receiver<Records>) {
    let mut fails = false;
    while let Some(mut records) = receiver.recv().await {
        while !records.is_empty() {
            let later = records.keys().nth(TOGETHER).cloned();
            let later = later.map(|first| records.split_off(&first)).unwrap_or_default();
            match write(&service, std::mem::replace(&mut records, later)).await {
                Ok(()) => fails = false,
                // On a full disk each one fails.
                Err(reason) if fails => debug!(%reason, "what the automations do is still not stored"),
                Err(reason) => {
                    fails = true;
                    warn!(%reason, "what the automations do is not stored: it is not gone on with after a restart");
                }
            }
        }
    }
}

async fn write(service: &Service, records: Records) -> Result<(), ServiceError> {
    let objects: BTreeSet<ObjectId> = records.keys().map(|(object, _)| object.clone()).collect();
    let mut known = BTreeSet::new();
    for object in objects {
        // A record would bring an automation back, in part, that was deleted meanwhile.
        if service.get(object.clone()).await?.is_some_and(|object| object.complete) {
            known.insert(object);
        }
    }
    let (ops, waiting): (Vec<Option<Op>>, Vec<_>) = records
        .into_iter()
        .map(|((object, field), (value, waiting))| {
            let is_known = known.contains(&object);
            let op = match value {
                Some(value) => Op::Set(object, field, value),
                None => Op::Unset(object, field),
            };
            (is_known.then_some(op), waiting)
        })
        .unzip();
    let written = service.write(Author::Node, ops.into_iter().flatten().collect()).await;
    for done in waiting.into_iter().flatten() {
        let _ = done.send(()); // whoever waited is gone
    }
    written
}
