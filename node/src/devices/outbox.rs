//! What waits to be written: the latest value of each field, one request at a time.
//!
//! The owner of the devices never waits for a write. While one is under way newer values replace
//! older ones of the same field, so that a slow store costs detail and no memory.

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use mesh_proto::{FieldName, ObjectId, Value, kinds::Author};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use crate::service::{Op, Service, ServiceError};

/// Most fields that may wait; more are refused and logged.
const MAX_PENDING: usize = 20_000;
/// Most changes of one request, as the event loop takes them.
const MAX_OPS: usize = 1_024;
/// How long until what the store refused is offered again.
const RETRY: Duration = Duration::from_secs(1);

type Key = (ObjectId, FieldName);
type Writing = Pin<Box<dyn Future<Output = Result<(), ServiceError>> + Send>>;

/// Writes of one durability, so that a flush never holds up what needs none.
pub(super) struct Outbox {
    service: Service,
    /// `None` deletes the field.
    pending: BTreeMap<Key, Option<Value>>,
    sent: BTreeMap<Key, Option<Value>>,
    writing: Option<Writing>,
    retry_at: Option<Instant>,
}

impl Outbox {
    pub(super) fn new(service: Service) -> Self {
        Self { service, pending: BTreeMap::new(), sent: BTreeMap::new(), writing: None, retry_at: None }
    }

    /// Has the field written, or deleted.
    pub(super) fn put(&mut self, object: &ObjectId, field: FieldName, value: Option<Value>) {
        if let Some(Err(rule)) = value.as_ref().map(Value::encode) {
            warn!(%object, %field, %rule, "a field of a device is not written");
            return;
        }
        let key = (object.clone(), field);
        if self.pending.len() >= MAX_PENDING && !self.pending.contains_key(&key) {
            warn!(%object, limit = MAX_PENDING, "too many fields of devices wait to be written; one is dropped");
            return;
        }
        self.pending.insert(key, value);
    }

    /// Whether nothing waits and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.writing.is_none()
    }

    /// Writes on; returns after each request, and never while there is none. May be dropped while
    /// it waits.
    pub(super) async fn turn(&mut self) {
        if let Some(at) = self.retry_at {
            sleep_until(at).await;
            self.retry_at = None;
        }
        if self.writing.is_none() {
            self.begin();
        }
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let result = writing.await;
        self.writing = None;
        let sent = std::mem::take(&mut self.sent);
        match result {
            Ok(()) | Err(ServiceError::Stopping) => {}
            Err(reason @ (ServiceError::Overloaded | ServiceError::Store(_))) => {
                warn!(%reason, "devices are written later");
                for (key, value) in sent {
                    self.pending.entry(key).or_insert(value);
                }
                self.retry_at = Some(Instant::now() + RETRY);
            }
            Err(reason) => error!(%reason, "fields of devices are not written"),
        }
    }

    fn begin(&mut self) {
        while self.sent.len() < MAX_OPS
            && let Some((key, value)) = self.pending.pop_first()
        {
            self.sent.insert(key, value);
        }
        if self.sent.is_empty() {
            return;
        }
        let op = |((object, field), value): (&Key, &Option<Value>)| match value {
            Some(value) => Op::Set(object.clone(), field.clone(), value.clone()),
            None => Op::Unset(object.clone(), field.clone()),
        };
        let ops = self.sent.iter().map(op).collect();
        let service = self.service.clone();
        self.writing = Some(Box::pin(async move { service.write(Author::Node, ops).await }));
    }
}
