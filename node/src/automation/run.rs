//! An occurrence in the hands of this node, in a task of its own: neither a slow disk nor a slow device holds up the rest.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mesh_proto::{FieldName, ObjectId, ShortId, kinds::Author};
use serde_json::Value as Json;
use tracing::warn;

use super::{
    Counts,
    carry::Hands,
    record::{Record, State},
    spec::run_field,
};
use crate::{
    devices::HouseholdClock,
    service::{Op, ServiceError},
};

/// What was given so long ago has ended, one way or another: commands have half a minute unless their schedule says more.
const GIVEN_UP: SignedDuration = SignedDuration::from_secs(40);

/// What is to be done, and recorded.
pub(super) struct Run {
    pub(super) hands: Hands,
    pub(super) clock: HouseholdClock,
    pub(super) counts: Arc<Counts>,
    pub(super) object: ObjectId,
    /// The field that this node records in.
    pub(super) field: FieldName,
    /// How it begins; with another state than `Started` nothing is left but to record it.
    pub(super) record: Record,
    pub(super) commands: Vec<Json>,
    /// Nodes whose records nobody needs once this one is there.
    pub(super) outdated: Vec<ShortId>,
}

impl Run {
    /// Records that it begins, gives the commands, and records how they ended, flushed both times. Answers with that record.
    pub(super) async fn finish(self) -> Record {
        let mut record = self.record.clone();
        if record.state == State::Started {
            // Where the disk fails the home goes on: what comes twice is told by no record then.
            self.note(&record, &[]).await;
            let failed = self.hands.carry_out(self.object.as_str(), self.given_at(), &self.commands).await;
            record = record.ended(&failed, now(&self.clock));
            self.counts.ended(&record);
        }
        self.note(&record, &self.outdated).await;
        record
    }

    /// The time that tells its commands from those of other occurrences. What another node has only just given is the same
    /// command; but one that timed out in a power cut would do so for ever.
    fn given_at(&self) -> Timestamp {
        let Record { at, began, again, .. } = self.record;
        if again && began.duration_since(at) > GIVEN_UP { began } else { at }
    }

    async fn note(&self, record: &Record, outdated: &[ShortId]) {
        if let Err(reason) = self.write(record, outdated).await {
            warn!(object = %self.object, %reason, "what was done is not recorded: after a restart it may be done again");
        }
    }

    async fn write(&self, record: &Record, outdated: &[ShortId]) -> Result<(), ServiceError> {
        // A record would bring a schedule back, in part, that was deleted meanwhile.
        if self.hands.service.get(self.object.clone()).await?.is_none() {
            return Ok(());
        }
        let mut ops = vec![Op::Set(self.object.clone(), self.field.clone(), record.to_value())];
        let fields = outdated.iter().filter_map(|node| run_field(*node));
        ops.extend(fields.map(|field| Op::Unset(self.object.clone(), field)));
        self.hands.service.write(Author::Node, ops).await
    }
}

/// The household's time of day.
pub(super) fn now(clock: &HouseholdClock) -> Option<Timestamp> {
    i64::try_from(clock.now_ms()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok())
}
