//! What the engine has to store, flushed, while it goes on: a slow disk holds up the step that waits for its record, and no other.
//!
//! What is written over before the disk came to it is not stored: so no more waits than there are fields. What could not be stored is kept
//! and tried again, unless something newer takes its place: a record that stays as it was before would say for ever that a run goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    time::Duration,
};

use mesh_proto::{FieldName, ObjectId, Value, kinds::Author};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use tracing::{debug, info, warn};

use crate::service::{Op, Service, ServiceError};

/// Records that are flushed together at most.
const TOGETHER: usize = 256;
/// How long after records could not be stored they are tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Records that are kept for that, at most: more than the automations of a household have.
const MAX_KEPT: usize = 2_048;

/// Which field of which object.
type Key = (ObjectId, FieldName);
/// What fields are to hold, or that they are to go, and who waits for that.
type Records = BTreeMap<Key, (Option<Value>, Vec<oneshot::Sender<()>>)>;
/// The same, and nobody waits.
type Kept = BTreeMap<Key, Option<Value>>;
/// What could not be stored, and why.
type Failed = Option<(Kept, ServiceError)>;

/// Writes one set of records after another, in a task of its own.
pub(super) struct Ledger {
    service: Service,
    waiting: Records,
    writing: Option<JoinHandle<Failed>>,
    /// What could not be stored, and when it is tried again.
    kept: Kept,
    retry_at: Instant,
    fails: bool,
}

impl Ledger {
    pub(super) fn new(service: Service) -> Self {
        let (waiting, kept) = (Records::new(), Kept::new());
        Self { service, waiting, writing: None, kept, retry_at: Instant::now(), fails: false }
    }

    /// Takes a record; what it answers with is ready once that is flushed, or could not be. Where the disk fails the home goes on.
    pub(super) fn write(
        &mut self,
        object: &ObjectId,
        field: FieldName,
        value: Option<Value>,
    ) -> oneshot::Receiver<()> {
        let (done, is_flushed) = oneshot::channel();
        let key = (object.clone(), field);
        self.kept.remove(&key);
        let (latest, waiting) = self.waiting.entry(key).or_default();
        *latest = value;
        waiting.push(done);
        is_flushed
    }

    /// Somebody else has said what some fields are to hold, or their object is gone.
    pub(super) fn forget(&mut self, is_void: impl Fn(&ObjectId, &FieldName) -> bool) {
        self.waiting.retain(|(object, field), _| !is_void(object, field));
        self.kept.retain(|(object, field), _| !is_void(object, field));
    }

    /// Begins to write what waits, unless something is being written.
    pub(super) fn hand_over(&mut self) {
        if Instant::now() >= self.retry_at {
            self.retry();
        }
        if self.writing.is_none() && !self.waiting.is_empty() {
            let records = std::mem::take(&mut self.waiting);
            self.writing = Some(tokio::spawn(write_all(self.service.clone(), records)));
        }
    }

    /// Returns once something was written, or could not be.
    pub(super) async fn has_written(&mut self) {
        let Some(writing) = &mut self.writing else { return pending().await };
        let ended = writing.await;
        self.writing = None;
        match ended {
            Ok(Some((records, reason))) => self.keep(records, &reason),
            Ok(None) => {
                if std::mem::take(&mut self.fails) {
                    info!("what the automations do is stored again");
                }
            }
            Err(error) => warn!(%error, "storing what the automations do broke off"),
        }
    }

    /// Writes the rest, what could not be stored before with it, for good.
    pub(super) async fn close(&mut self) {
        self.retry();
        while self.writing.is_some() || !self.waiting.is_empty() {
            self.hand_over();
            self.has_written().await;
        }
    }

    fn keep(&mut self, records: Kept, reason: &ServiceError) {
        // On a full disk each one fails.
        if std::mem::replace(&mut self.fails, true) {
            debug!(%reason, "what the automations do is still not stored");
        } else {
            warn!(%reason, "what the automations do is not stored yet, and not gone on with after a restart; it is tried again");
        }
        for (key, value) in records {
            if !self.waiting.contains_key(&key) && self.kept.len() < MAX_KEPT {
                self.kept.insert(key, value);
            }
        }
        self.retry_at = Instant::now() + RETRY;
    }

    fn retry(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        self.waiting.extend(kept.into_iter().map(|(key, value)| (key, (value, Vec::new()))));
    }
}

async fn write_all(service: Service, mut records: Records) -> Failed {
    let mut failed: Failed = None;
    while !records.is_empty() {
        let later = records.keys().nth(TOGETHER).cloned();
        let later = later.map(|first| records.split_off(&first)).unwrap_or_default();
        if let Some((more, reason)) = write(&service, std::mem::replace(&mut records, later)).await {
            failed.get_or_insert((Kept::new(), reason)).0.extend(more);
        }
    }
    failed
}

async fn write(service: &Service, records: Records) -> Failed {
    let objects: BTreeSet<ObjectId> = records.keys().map(|(object, _)| object.clone()).collect();
    let mut known = BTreeSet::new();
    for object in objects {
        // A record would bring an automation back, in part, that was deleted meanwhile.
        if service.get(object.clone()).await.ok()?.is_some_and(|object| object.complete) {
            known.insert(object);
        }
    }
    let (mut values, mut waiting) = (Kept::new(), Vec::new());
    for (key, (value, done)) in records {
        waiting.extend(done);
        if known.contains(&key.0) {
            values.insert(key, value);
        }
    }
    let failed = flush(service, values).await;
    for done in waiting {
        let _ = done.send(()); // whoever waited is gone
    }
    failed
}

async fn flush(service: &Service, records: Kept) -> Failed {
    let ops = records.iter().map(|(key, value)| op(key, value.as_ref())).collect();
    match service.write(Author::Node, ops).await {
        Ok(()) => None,
        Err(ServiceError::Value { .. }) => one_by_one(service, records).await,
        Err(reason) => Some((records, reason)),
    }
}

/// One that breaks a rule keeps the others from being stored, and is never stored itself.
async fn one_by_one(service: &Service, records: Kept) -> Failed {
    let mut failed: Failed = None;
    for (key, value) in records {
        match service.write(Author::Node, vec![op(&key, value.as_ref())]).await {
            Ok(()) => {}
            Err(reason @ ServiceError::Value { .. }) => {
                warn!(object = %key.0, %reason, "a record of an automation is not stored");
            }
            Err(reason) => drop(failed.get_or_insert((Kept::new(), reason)).0.insert(key, value)),
        }
    }
    failed
}

fn op((object, field): &Key, value: Option<&Value>) -> Op {
    let (object, field) = (object.clone(), field.clone());
    match value {
        Some(value) => Op::Set(object, field, value.clone()),
        None => Op::Unset(object, field),
    }
}
