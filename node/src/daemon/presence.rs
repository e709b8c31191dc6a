//! What a node tells the others of itself for as long as it lives: the field `status` of its object,
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
        let Ok(objects) = service.status().await.map(|status| status.objects) else { return Ok(()) };
        if told == Some(objects) {
            continue;
        }
        let count = Value::Int(i64::try_from(objects).unwrap_or(i64::MAX));
        let value = Value::Map([("objects".into(), count)].into());
        match service.write(Author::Node, vec![Op::Set(id.clone(), field.clone(), value)]).await {
            Ok(()) => told = Some(objects),
            Err(ServiceError::Stopping) => return Ok(()),
            Err(reason) => debug!(%reason, "the number of objects is told later"),
        }
    }
}
