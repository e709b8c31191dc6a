//! What a node tells the others of itself, and of copied cards that it has seen, for as long as it lives: the field `status` of its object,
//! which is kept in memory only and goes with it.

use std::time::Duration;

use mesh_proto::{FieldName, ObjectId, ShortId, Value, error::NameError, kinds::Author};
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::service::{Op, Service, ServiceError};

/// How often is looked for news; without any nothing is sent.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Tells how many objects this node holds, whenever that has changed, until the node stops.
///
/// # Errors
/// [`NameError`] for a name that no node has.
pub async fn tell_status(service: Service, me: ShortId) -> Result<(), NameError> {
    let (id, field) = (ObjectId::new(&format!("node/{me}"))?, FieldName::new("status")?);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        look.tick().await;
        let Ok(status) = service.status().await else { return Ok(()) };
        let news = (status.objects, status.copies_seen);
        if told.as_ref() == Some(&news) {
            continue;
        }
        let (objects, copies) = &news;
        let count = Value::Int(i64::try_from(*objects).unwrap_or(i64::MAX));
        let mut value = std::collections::BTreeMap::from([("objects".into(), count)]);
        if !copies.is_empty() {
            let at = |(node, at): (&String, &String)| (node.as_str().into(), Value::from(at.as_str()));
            value.insert("copies".into(), Value::Map(copies.iter().map(at).collect()));
        }
        let value = Value::Map(value);
        match service.write(Author::Node, vec![Op::Set(id.clone(), field.clone(), value)]).await {
            Ok(()) => told = Some(news),
            Err(ServiceError::Stopping) => return Ok(()),
            Err(reason) => debug!(%reason, "the number of objects is told later"),
        }
    }
}
