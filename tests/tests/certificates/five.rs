//! Five owners of one household with one authority: each orders for itself, all go by what they tell each other, and the test says
//! what time it is.

use std::{collections::BTreeMap, sync::Arc};

use hearth_tests::pebble::{Pebble, Plan};
use instant_acme::HttpClient;
use mesh_proto::{FieldName, ObjectId, ShortId};
use node::{
    config::tls::{Directory, TlsConfig},
    service::{FieldView, ObjectView, Op, Request, Service},
    tls::{
        WallClock,
        acme::{
            engine::{Engine, Look},
            record::Records,
        },
    },
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::owner::{Board, DAY, HOUR, Txt, config, now, quickly};

pub(crate) const NODES: usize = 5;
/// A node is started anew after so long at most.
const MOST_RUN: u64 = 4 * DAY;

struct Member {
    board: Board,
    engine: Engine<Txt>,
    /// When it looks next.
    due: u64,
    /// When it is started anew.
    restart: u64,
}

/// The owners, their authority, and their time.
pub(crate) struct Five {
    pub(crate) pebble: Pebble,
    /// In seconds since 1970.
    pub(crate) now: u64,
    members: Vec<Member>,
    chance: ChaCha8Rng,
}

impl Five {
    /// Those who want a certificate for these names at this directory, each by a way of its own.
    pub(crate) async fn of(
        pebble: Pebble,
        names: &[&str],
        directory: Directory,
        way: impl Fn() -> Arc<dyn HttpClient>,
    ) -> Self {
        let config: TlsConfig = config(names, directory);
        let (service, now, mut chance) = (household(), now(), ChaCha8Rng::seed_from_u64(5));
        let mut members = Vec::new();
        for number in 1..=NODES {
            let me = ShortId(u64::try_from(number).unwrap());
            let records = Records::new(service.clone(), me).unwrap();
            let board = Board::new(config.clone(), records, &pebble.names, way());
            let engine = board.open().await.0;
            members.push(Member { board, engine, due: now, restart: now + run(&mut chance) });
        }
        Self { pebble, now, members, chance }
    }

    /// An authority that refuses no nonce.
    pub(crate) async fn authority() -> Pebble {
        Pebble::start(Plan { refused_nonces: 0, ..Plan::new(1, 1) }).await.unwrap()
    }

    /// Whoever is due first looks; now and then it was started anew before.
    pub(crate) async fn look(&mut self) -> Look {
        let member = self.members.iter_mut().min_by_key(|member| member.due).unwrap();
        self.now = self.now.max(member.due);
        if self.now >= member.restart {
            member.engine = member.board.open().await.0;
            member.restart = self.now + run(&mut self.chance);
        }
        let look = quickly(member.engine.look(WallClock { unix: self.now, trusted: true })).await;
        assert!(look.next > self.now, "it would look for ever: {look:?}");
        // As the daemon does, which looks once an hour whatever comes.
        member.due = look.next.min(self.now + HOUR);
        look
    }

    /// A name can, or cannot, be proven by the DNS.
    pub(crate) async fn broken(&self, names: &[&str], are_broken: bool) {
        for name in names {
            self.pebble.names.broken(&format!("_acme-challenge.{name}"), are_broken).await.unwrap();
        }
    }
}

/// How long a node runs until it is started anew.
fn run(chance: &mut ChaCha8Rng) -> u64 {
    1 + chance.next_u64() % MOST_RUN
}

/// What the nodes of a household tell each other; it is heard by all at once.
fn household() -> Service {
    let (service, mut requests) = Service::channel();
    tokio::spawn(async move {
        let mut told = BTreeMap::<ObjectId, BTreeMap<FieldName, FieldView>>::new();
        while let Some(request) = requests.recv().await {
            match request {
                Request::List { prefix, reply, .. } => drop(reply.send(listed(&told, &prefix))),
                Request::Write(_, ops, reply) => {
                    ops.into_iter().for_each(|op| write(&mut told, op));
                    drop(reply.send(Ok(())));
                }
                other => panic!("no owner of a certificate asks for this: {other:?}"),
            }
        }
    });
    service
}

fn listed(told: &BTreeMap<ObjectId, BTreeMap<FieldName, FieldView>>, prefix: &str) -> Vec<ObjectView> {
    let with = told.iter().filter(|(id, _)| id.as_str().starts_with(prefix));
    with.map(|(id, fields)| ObjectView { id: id.clone(), fields: fields.clone(), complete: true }).collect()
}

fn write(told: &mut BTreeMap<ObjectId, BTreeMap<FieldName, FieldView>>, op: Op) {
    match op {
        Op::Set(id, field, value) => {
            let view = FieldView { value, at_ms: 0, by: String::new(), durable: true };
            told.entry(id).or_default().insert(field, view);
        }
        Op::Unset(id, field) => drop(told.entry(id).or_default().remove(&field)),
        Op::Delete(id) => drop(told.remove(&id)),
    }
}
