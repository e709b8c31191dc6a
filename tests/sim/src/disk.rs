//! The disk of a simulated node: what is synced survives a crash, what is not may not.

use std::collections::{BTreeMap, VecDeque};

use mesh_proto::{
    mesh::Loader,
    overlay::Run,
    planted::Plant,
    record::{Batch, Record},
    vector::Vector,
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
    /// What the synced records account for.
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
        for (key, value) in &records.puts {
            self.note(key, value);
            self.synced.insert(key.clone(), value.clone());
        }
        for key in &records.deletes {
            self.synced.remove(key);
        }
    }

    fn note(&mut self, key: &[u8], value: &[u8]) {
        match Record::decode(key, value) {
            Ok(Record::Register(_, entry) | Record::Quarantined(_, entry)) => {
                self.vector.insert(entry.dot);
            }
            Ok(Record::Covered(origin, ranges)) => {
                ranges.iter().for_each(|(from, to)| self.vector.insert_range(origin, from, to));
            }
            Ok(Record::Floor(node, floor)) => drop(self.vector.raise_floor(node, floor)),
            _ => {}
        }
    }

    /// All that the synced records ever accounted for.
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
    pub(crate) fn load(&mut self, plant: Plant) -> Result<Loader, String> {
        let mut loader = Loader::new(plant);
        for (key, value) in &self.synced {
            loader.record(key, value).map_err(|error| error.to_string())?;
        }
        self.vector = Vector::default();
        let all: Vec<_> = self.synced.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        all.iter().for_each(|(key, value)| self.note(key, value));
        if loader.damaged() == 0 { Ok(loader) } else { Err("its own records read as damaged".into()) }
    }

    /// A copy for a backup: what is synced.
    pub(crate) fn backup(&self) -> Self {
        Self { pending: VecDeque::new(), ..self.clone() }
    }
}
