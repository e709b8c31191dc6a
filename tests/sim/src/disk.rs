//! The disk of a simulated node: what is synced survives a crash, what is not may not.

use std::collections::{BTreeMap, VecDeque};

use mesh_proto::{
    Dot, Origin, ShortId,
    mesh::Loader,
    overlay::Run,
    planted::Plant,
    record::{Batch, Record},
    vector::{Ranges, Vector},
};

use super::rng::Rng;

/// A store and the small files beside it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    synced: BTreeMap<Vec<u8>, Vec<u8>>,
    pending: VecDeque<(u64, Batch)>,
    /// The run file.
    pub(crate) run: Option<Run>,
    /// Whether the last stop was clean.
    pub(crate) clean: bool,
    /// The roster file.
    pub(crate) roster: Vec<u8>,
    /// Whether the store was set back and no peer's state has replaced it yet.
    pub(crate) restored: bool,
    /// The dots of the synced registers, held-back ones too, by the names of their records.
    dots: BTreeMap<Vec<u8>, Dot>,
    /// What the synced records of origins cover, by their names.
    covered: BTreeMap<Vec<u8>, (Origin, Ranges)>,
    floors: BTreeMap<ShortId, u32>,
    /// What all of these account for.
    vector: Vector,
}

impl Disk {
    /// Takes a batch that is not synced yet.
    pub(crate) fn write(&mut self, batch: u64, records: Batch) {
        self.pending.push_back((batch, records));
    }

    /// Syncs the batch and all before it. Returns what was synced.
    pub(crate) fn sync(&mut self, batch: u64) -> Vec<Batch> {
        let mut done = Vec::new();
        while let Some((number, _)) = self.pending.front()
            && *number <= batch
        {
            let Some((_, records)) = self.pending.pop_front() else { break };
            self.commit(&records);
            done.push(records);
        }
        done
    }

    /// A crash: each batch that is not synced survives whole or not at all, in order.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> Vec<Batch> {
        let mut survived = Vec::new();
        while let Some((_, records)) = self.pending.pop_front() {
            if !rng.percent(30) {
                break;
            }
            self.commit(&records);
            survived.push(records);
        }
        self.pending.clear();
        survived
    }

    fn commit(&mut self, records: &Batch) {
        let mut forgotten = false;
        for (name, value) in &records.puts {
            forgotten |= self.note(name, value);
            self.synced.insert(name.clone(), value.clone());
        }
        for name in &records.deletes {
            forgotten |= self.dots.remove(name).is_some() | self.covered.remove(name).is_some();
            self.synced.remove(name);
        }
        if forgotten {
            self.account_anew();
        }
    }

    /// Accounts for a record. Returns whether it took the place of one that may have said more.
    fn note(&mut self, name: &[u8], value: &[u8]) -> bool {
        match Record::decode(name, value) {
            Ok(Record::Register(_, entry) | Record::Quarantined(_, entry)) => {
                self.vector.insert(entry.dot);
                self.dots.insert(name.to_vec(), entry.dot).is_some_and(|old| old != entry.dot)
            }
            Ok(Record::Covered(origin, ranges)) => {
                ranges.iter().for_each(|(from, to)| self.vector.insert_range(origin, from, to));
                let old = self.covered.insert(name.to_vec(), (origin, ranges.clone()));
                old.is_some_and(|(_, old)| !ranges.covers(&old))
            }
            Ok(Record::Floor(node, floor)) => {
                drop(self.vector.raise_floor(node, floor));
                self.floors.insert(node, floor).is_some_and(|old| old > floor)
            }
            _ => false,
        }
    }

    fn account_anew(&mut self) {
        self.vector = Vector::default();
        for (node, floor) in &self.floors {
            drop(self.vector.raise_floor(*node, *floor));
        }
        for (origin, ranges) in self.covered.values() {
            ranges.iter().for_each(|(from, to)| self.vector.insert_range(*origin, from, to));
        }
        for dot in self.dots.values() {
            self.vector.insert(*dot);
        }
    }

    /// All that the synced records account for.
    pub(crate) fn vector(&self) -> &Vector {
        &self.vector
    }

    /// A synced record.
    pub(crate) fn record(&self, name: &[u8]) -> Option<Record> {
        self.synced.get(name).and_then(|value| Record::decode(name, value).ok())
    }

    /// Every synced record.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.synced.iter().filter_map(|(key, value)| Record::decode(key, value).ok())
    }

    /// What a start reads.
    pub(crate) fn load(&self, plant: Plant) -> Result<Loader, String> {
        let mut loader = Loader::new(plant);
        for (key, value) in &self.synced {
            loader.record(key, value).map_err(|error| error.to_string())?;
        }
        if loader.damaged() == 0 { Ok(loader) } else { Err("its own records read as damaged".into()) }
    }

    /// A copy for a backup: what is synced.
    pub(crate) fn backup(&self) -> Self {
        Self { pending: VecDeque::new(), ..self.clone() }
    }
}
