//! The disk of a simulated node: what is synced survives a crash, what is not may not.

use std::collections::{BTreeMap, VecDeque};

use mesh_proto::{
    Dot,
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
    /// The roster file.
    pub(crate) roster: Vec<u8>,
    /// Whether the store was set back and no peer's state has replaced it yet.
    pub(crate) restored: bool,
    /// What the mark of the restored store holds: the generation of the first run since.
    pub(crate) since: Option<u32>,
    /// By which time of day all that the synced records put into effect was in time.
    pub(crate) in_time: u64,
    /// What the synced records claim beyond the writes that they hold.
    claims: Vector,
    /// The writes that the synced records hold, and how many records each: one that is released
    /// from quarantine may stand in two.
    held: BTreeMap<Dot, usize>,
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
            let before = self.synced.insert(key.clone(), value.clone());
            self.forget(key, before.as_deref());
            self.note(key, value);
        }
        for key in &records.deletes {
            let before = self.synced.remove(key);
            self.forget(key, before.as_deref());
        }
    }

    fn forget(&mut self, key: &[u8], before: Option<&[u8]>) {
        match before.and_then(|value| Record::decode(key, value).ok()) {
            Some(Record::Register(_, entry) | Record::Quarantined(_, entry)) => {
                if let Some(count) = self.held.get_mut(&entry.dot) {
                    *count -= 1;
                    if *count == 0 {
                        self.held.remove(&entry.dot);
                    }
                }
            }
            Some(Record::Covered(origin, _)) => drop(self.claims.take_origin(origin)),
            _ => {}
        }
    }

    fn note(&mut self, key: &[u8], value: &[u8]) {
        match Record::decode(key, value) {
            Ok(Record::Register(_, entry) | Record::Quarantined(_, entry)) => {
                *self.held.entry(entry.dot).or_default() += 1;
            }
            Ok(Record::Covered(origin, ranges)) => {
                ranges.iter().for_each(|(from, to)| self.claims.insert_range(origin, from, to));
            }
            Ok(Record::Floor(node, floor)) => drop(self.claims.raise_floor(node, floor)),
            _ => {}
        }
    }

    /// Whether the synced records account for a write.
    pub(crate) fn contains(&self, dot: Dot) -> bool {
        self.held.contains_key(&dot) || self.claims.contains(dot)
    }

    /// A write of `vector` for which the synced records do not account.
    pub(crate) fn lacks(&self, vector: &Vector) -> Option<Dot> {
        let missing = self.claims.missing(vector);
        let dots = missing.origins().flat_map(|(origin, ranges)| {
            ranges.iter().flat_map(move |(from, to)| (from..=to).map(move |seq| Dot { origin, seq }))
        });
        dots.into_iter().find(|dot| !self.held.contains_key(dot))
    }

    /// Whether `vector` has all that the synced records account for.
    pub(crate) fn is_covered_by(&self, vector: &Vector) -> bool {
        vector.covers(&self.claims) && self.held.keys().all(|dot| vector.contains(*dot))
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
