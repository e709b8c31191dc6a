//! What the nodes of a household tell each other of their certificates, so that they do not order all at once and count together:
//! the object `certificate/NODE` of each. Whose turn it is follows from all of them alike.

use mesh_proto::{FieldName, ObjectId, ShortId, Value, error::NameError, kinds::Author};
use tracing::debug;

use super::pace::{Counted, Issued};
use crate::devices::ownership::winner;
use crate::service::{ObjectView, Op, Service, ServiceError};

/// The prefix of the objects.
const PREFIX: &str = "certificate/";
/// What the turn is drawn for: the same for all nodes.
const DRAWN_FOR: &str = "certificate";
/// More records than any household has gateways.
const MAX_RECORDS: usize = 256;
/// The most moments that are believed of one node.
const MAX_MOMENTS: usize = 64;

/// Whether a node orders, or waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Whether it orders now; else it waits.
    pub orders: bool,
    /// Until when that holds, in seconds since 1970. A node that has died says nothing more, and is waited for no longer.
    pub until: u64,
}

/// The record of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Its turn; none when it wants none.
    pub turn: Option<Turn>,
    /// What it has had.
    pub counted: Counted,
}

/// How long the turn of a node holds without a word of it, in seconds.
pub const TURN_S: u64 = 300;

impl Record {
    /// The same without what a clock has written that is ahead.
    fn believed(mut self, now: u64) -> Self {
        self.turn = self.turn.filter(|turn| turn.until <= now.saturating_add(2 * TURN_S));
        self.counted.believe(now);
        self
    }
}

/// Whether it is this node's turn to order, by the records of the others.
pub fn may_go(me: ShortId, now: u64, others: &[(ShortId, Record)]) -> bool {
    let turns = others.iter().filter_map(|(node, record)| Some((*node, record.turn?)));
    let open: Vec<(ShortId, Turn)> = turns.filter(|(_, turn)| turn.until > now).collect();
    let waiting = open.iter().map(|(node, _)| *node).chain([me]);
    !open.iter().any(|(_, turn)| turn.orders) && winner(waiting, DRAWN_FOR) == Some(me)
}

/// Whether this node, which has just said that it orders, steps back: another one said so, too, and goes first.
pub fn steps_back(me: ShortId, now: u64, others: &[(ShortId, Record)]) -> bool {
    let orders = |record: &Record| record.turn.is_some_and(|turn| turn.orders && turn.until > now);
    let rivals = others.iter().filter(|(_, record)| orders(record)).map(|(node, _)| *node);
    winner(rivals.chain([me]), DRAWN_FOR) != Some(me)
}

/// The way to the records.
#[derive(Debug, Clone)]
pub struct Records {
    household: Option<(Service, ObjectId)>,
    me: ShortId,
}

/// What of its record a node writes.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Its turn.
    Turn(Option<Turn>),
    /// What it has had.
    Counted(Counted),
    /// What is shown of its certificate.
    Standing(Value),
}

impl Records {
    /// In a household.
    ///
    /// # Errors
    /// [`NameError`] for a name that no node has.
    pub fn new(service: Service, me: ShortId) -> Result<Self, NameError> {
        let own = ObjectId::new(&format!("{PREFIX}{me}"))?;
        Ok(Self { household: Some((service, own)), me })
    }

    /// Of a node that is alone: nobody is told, and nobody is waited for.
    pub fn alone(me: ShortId) -> Self {
        Self { household: None, me }
    }

    /// This node.
    pub fn me(&self) -> ShortId {
        self.me
    }

    /// The records of the other nodes, as far as they are believed at this time.
    ///
    /// # Errors
    /// [`ServiceError`]
    pub async fn others(&self, now: u64) -> Result<Vec<(ShortId, Record)>, ServiceError> {
        let Some((service, own)) = &self.household else { return Ok(Vec::new()) };
        let objects = service.list(PREFIX, None, MAX_RECORDS, true).await?;
        let others = objects.iter().filter(|object| object.id != *own);
        Ok(others
            .filter_map(|object| Some((object.id.name().parse().ok()?, read(object).believed(now))))
            .collect())
    }

    /// Tells the others. Answers whether they will hear of it; else it is to be told again.
    pub async fn tell(&self, news: Vec<News>) -> bool {
        let Some((service, own)) = &self.household else { return true };
        let ops = news.into_iter().flat_map(written).filter_map(|(name, value)| {
            let field = FieldName::new(name).ok()?;
            Some(match value {
                Some(value) => Op::Set(own.clone(), field, value),
                None => Op::Unset(own.clone(), field),
            })
        });
        let written = service.write(Author::Node, ops.collect()).await;
        if let Err(reason) = &written {
            debug!(%reason, "the household is told of this node's certificate later");
        }
        written.is_ok()
    }
}

fn written(news: News) -> Vec<(&'static str, Option<Value>)> {
    let moment = |at: u64| Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
    match news {
        News::Turn(None) => vec![("turn", None)],
        News::Turn(Some(turn)) => {
            let map = [("orders".into(), Value::Bool(turn.orders)), ("until".into(), moment(turn.until))];
            vec![("turn", Some(Value::Map(map.into())))]
        }
        News::Counted(counted) => {
            let issued = counted.issued.iter().map(|issued| {
                let set = Value::Text(issued.set.as_str().into());
                Value::Map([("at".into(), moment(issued.at)), ("set".into(), set)].into())
            });
            let failed = counted.failed.iter().map(|at| moment(*at));
            vec![
                ("issued", Some(Value::List(issued.collect()))),
                ("failed", Some(Value::List(failed.collect()))),
            ]
        }
        News::Standing(value) => vec![("standing", Some(value))],
    }
}

/// Reads a record; what is not understood is as if it were not there.
fn read(object: &ObjectView) -> Record {
    let field = |name: &str| FieldName::new(name).ok().and_then(|name| object.fields.get(&name));
    let moment = |value: &Value| value.as_int().and_then(|at| u64::try_from(at).ok());
    let list = |name: &str| match field(name).map(|field| &field.value) {
        Some(Value::List(items)) => items.as_slice(),
        _ => &[],
    };
    let turn = field("turn").map(|field| &field.value).and_then(|turn| {
        let orders = matches!(turn.get("orders"), Some(Value::Bool(true)));
        Some(Turn { orders, until: moment(turn.get("until")?)? })
    });
    let issued = list("issued").iter().take(MAX_MOMENTS).filter_map(|item| {
        Some(Issued { at: moment(item.get("at")?)?, set: item.get("set")?.as_text()?.to_owned() })
    });
    let failed = list("failed").iter().take(MAX_MOMENTS).filter_map(moment);
    Record { turn, counted: Counted { issued: issued.collect(), failed: failed.collect() } }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::fake::{FakeLoop, NODE};

    const NOW: u64 = 1_800_000_000;

    fn record(orders: bool, until: u64) -> Record {
        Record { turn: Some(Turn { orders, until }), counted: Counted::default() }
    }

    #[test]
    fn of_those_that_wait_one_goes_and_a_turn_that_is_over_is_nobodys() {
        let nodes: Vec<ShortId> = (1..=5).map(ShortId).collect();
        let others = |me: ShortId, orders: bool, until: u64| -> Vec<(ShortId, Record)> {
            nodes.iter().filter(|node| **node != me).map(|node| (*node, record(orders, until))).collect()
        };
        let going: Vec<&ShortId> =
            nodes.iter().filter(|me| may_go(**me, NOW, &others(**me, false, NOW + 1))).collect();
        assert_eq!(going.len(), 1, "exactly one");
        for me in &nodes {
            assert!(!may_go(*me, NOW, &others(*me, true, NOW + 1)), "somebody orders");
            assert!(may_go(*me, NOW, &others(*me, true, NOW)), "what ended is nobody's");
            assert!(may_go(*me, NOW, &[(ShortId(9), Record::default())]), "who wants none is not waited for");
        }
        let stay: Vec<&ShortId> =
            nodes.iter().filter(|me| !steps_back(**me, NOW, &others(**me, true, NOW + 1))).collect();
        assert_eq!(stay, going, "of those that began together one goes on");
    }

    #[tokio::test]
    async fn whoever_cannot_be_told_was_not_told() {
        let fake = FakeLoop::start();
        let records = Records::new(fake.service(), ShortId(7)).unwrap();
        drop(fake);
        assert!(!records.tell(vec![News::Turn(None)]).await);
        assert!(Records::alone(ShortId(7)).tell(vec![News::Turn(None)]).await, "there is nobody to tell");
    }

    #[tokio::test]
    async fn what_is_told_is_read_by_the_others() {
        let fake = FakeLoop::start();
        let me: ShortId = NODE.get(..16).unwrap().parse().unwrap();
        let records = Records::new(fake.service(), me).unwrap();
        let mut counted = Counted::default();
        counted.issue(NOW, "set");
        counted.fail(NOW + 1);
        let turn = Some(Turn { orders: true, until: NOW + 60 });
        assert!(records.tell(vec![News::Turn(turn), News::Counted(counted.clone())]).await);
        assert!(records.others(NOW).await.unwrap().is_empty(), "its own is no other's");
        let another = Records::new(fake.service(), ShortId(7)).unwrap();
        assert_eq!(another.others(NOW).await.unwrap(), [(me, Record { turn, counted })]);
        let believed = another.others(NOW - 2 * 3_600).await.unwrap();
        assert_eq!(believed, [(me, Record::default())], "what lies far ahead is not believed");
        assert!(records.tell(vec![News::Turn(None)]).await);
        assert_eq!(another.others(NOW).await.unwrap().first().unwrap().1.turn, None);
        fake.put("certificate/00000000000000ab", "issued", Value::from("nonsense")).await;
    }
}
