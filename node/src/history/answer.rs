//! From batches to what somebody wants to see: a few points for each series, in equal stretches of time.

use std::collections::BTreeMap;

use super::batch::{Batch, Kind, Name, Recorded, Value};

/// A stretch of time of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stretch {
    /// Its beginning, in seconds since 1970.
    pub(super) at: u64,
    pub(super) min: f64,
    /// By time.
    pub(super) mean: f64,
    pub(super) max: f64,
    /// At its end, as far as that is known.
    pub(super) last: f64,
}

/// A series as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shown {
    /// The stretches in which something was known.
    Numbers(Vec<Stretch>),
    /// Since when it was what; whether there were more changes than asked for, of which each stretch shows the last.
    States(Vec<(u64, Value)>, bool),
}

/// The time that is asked for, cut into equal stretches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    /// In seconds since 1970.
    pub(super) since: u64,
    /// In seconds since 1970, after `since`.
    pub(super) until: u64,
    /// Length of a stretch in seconds.
    pub(super) step: u64,
    points: usize,
}

impl Grid {
    /// At most so many stretches, none shorter than a series has points.
    pub(super) fn new(since: u64, until: u64, points: usize) -> Self {
        let until = until.max(since.saturating_add(1));
        let points = points.max(1);
        let step = (until - since).div_ceil(points as u64).max(super::recorder::PACE_S);
        Self { since, until, step, points }
    }

    fn place(&self, at: u64) -> u64 {
        at.saturating_sub(self.since) / self.step
    }

    fn start(&self, place: u64) -> u64 {
        self.since.saturating_add(place.saturating_mul(self.step))
    }
}

/// Takes the batches of one device from one ring, oldest first.
#[derive(Debug)]
pub(super) struct Gathering {
    grid: Grid,
    /// Numbers of later times are left to another ring.
    numbers_before: u64,
    /// The only series that is wanted, if one is.
    key: Option<String>,
    /// What each series is at the end of the last batch.
    standing: BTreeMap<Name, Value>,
    /// The end of the last batch.
    to: Option<u64>,
    numbers: BTreeMap<String, BTreeMap<u64, Weighing>>,
    states: BTreeMap<String, Changes>,
}

/// What is known of a stretch so far.
#[derive(Debug, Clone, Copy)]
struct Weighing {
    min: f64,
    max: f64,
    /// Value times seconds.
    weighted: f64,
    seconds: u64,
    last: f64,
}

#[derive(Debug, Default)]
struct Changes {
    /// All of them, as long as these are not too many.
    all: Vec<(u64, Value)>,
    is_cut: bool,
    /// The last of each stretch.
    by_place: BTreeMap<u64, (u64, Value)>,
    last: Option<Value>,
}

impl Gathering {
    /// For these stretches of time, and for one series if its key is given.
    pub(super) fn new(grid: Grid, key: Option<String>) -> Self {
        let (numbers, states) = (BTreeMap::new(), BTreeMap::new());
        let numbers_before = grid.until;
        Self { grid, numbers_before, key, standing: BTreeMap::new(), to: None, numbers, states }
    }

    /// Leaves numbers of later times, in seconds since 1970, to another ring.
    pub(super) fn numbers_before(self, end: u64) -> Self {
        Self { numbers_before: self.grid.until.min(end), ..self }
    }

    /// Takes a batch that holds the series of one device only; `device` is its name.
    pub(super) fn take(&mut self, batch: &Batch, device: &str) {
        if batch.forgotten.iter().any(|forgotten| **forgotten == *device) {
            self.standing.clear();
            self.numbers.clear();
            self.states.clear();
        }
        if self.to != Some(batch.from) {
            self.lose(self.to);
        }
        let recorded: BTreeMap<&Name, &Recorded> =
            batch.series.iter().map(|recorded| (&recorded.name, recorded)).collect();
        let stood: Vec<Name> =
            self.standing.keys().filter(|name| !recorded.contains_key(name)).cloned().collect();
        for name in stood {
            let value = self.standing.get(&name).cloned().unwrap_or(Value::Unknown);
            self.hold(&name, &value, batch.from, batch.to);
        }
        for recorded in &batch.series {
            self.take_series(recorded, batch);
        }
        self.to = Some(batch.to);
    }

    /// All that was gathered, with what another ring has of numbers.
    pub(super) fn finish(self, other: Self) -> BTreeMap<String, Shown> {
        let (grid, mut numbers) = (self.grid, self.numbers);
        for (key, places) in other.numbers {
            let known = numbers.entry(key).or_default();
            for (place, weighing) in places {
                known.entry(place).and_modify(|before| before.join(&weighing)).or_insert(weighing);
            }
        }
        let numbers = numbers.into_iter().map(|(key, places)| {
            let shown = places.iter().map(|(place, weighing)| weighing.stretch(grid.start(*place)));
            (key, Shown::Numbers(shown.collect()))
        });
        let states = self.states.into_iter().chain(other.states);
        let states = states.map(|(key, changes)| (key, changes.shown(&grid)));
        // A key that once was another kind of series: what it is as a number is shown.
        states.chain(numbers).filter(|(_, shown)| !shown.is_empty()).collect()
    }

    fn is_wanted(&self, name: &Name) -> bool {
        self.key.as_ref().is_none_or(|key| **key == *name.key)
    }

    fn take_series(&mut self, recorded: &Recorded, batch: &Batch) {
        let name = &recorded.name;
        let stood = self.standing.remove(name).unwrap_or(Value::Unknown);
        let mut value = stood;
        let mut at = batch.from;
        for (since, next) in &recorded.points {
            // A batch with a sum has points only where a segment begins.
            if recorded.sum.is_none() {
                self.hold(name, &value, at, (*since).min(batch.to));
            }
            at = at.max(*since);
            value.clone_from(next);
            if name.kind == Kind::State {
                self.changed(name, at, &value);
            }
        }
        match &recorded.sum {
            Some(sum) => {
                let last = sum.last.unwrap_or(sum.mean);
                self.add(name, batch.from, batch.to, [sum.min, sum.mean, sum.max, last], sum.known_s);
                value = sum.last.map_or(Value::Unknown, Value::Number);
            }
            None => self.hold(name, &value, at, batch.to),
        }
        self.standing.insert(name.clone(), value);
    }

    /// A value held from one moment to another.
    fn hold(&mut self, name: &Name, value: &Value, from: u64, to: u64) {
        if let Value::Number(number) = value {
            self.add(name, from, to, [*number; 4], to.saturating_sub(from));
        }
    }

    /// Adds what a number was in a time (least, mean, greatest, last) to the stretches that it touches. What it was
    /// known for is spread over it evenly.
    fn add(&mut self, name: &Name, from: u64, to: u64, numbers: [i64; 4], known_s: u64) {
        let Kind::Number { decimals } = name.kind else { return };
        let grid = self.grid;
        let (since, until) = (from.max(grid.since), to.min(self.numbers_before));
        let is_within = since < until || (from == to && (grid.since..self.numbers_before).contains(&from));
        if !is_within || !self.is_wanted(name) {
            return;
        }
        let numbers = numbers.map(|number| unscaled(number, decimals));
        let lasted = to.saturating_sub(from);
        let places = self.numbers.entry(name.key.as_ref().to_owned()).or_default();
        for place in grid.place(since)..=grid.place(until.saturating_sub(1).max(since)) {
            let (start, end) = (grid.start(place).max(since), grid.start(place + 1).min(until));
            let seconds = end.saturating_sub(start);
            let known =
                if lasted == known_s { seconds } else { seconds.saturating_mul(known_s) / lasted.max(1) };
            let added = Weighing::of(numbers, known);
            places.entry(place).and_modify(|before| before.join(&added)).or_insert(added);
        }
    }

    fn changed(&mut self, name: &Name, at: u64, value: &Value) {
        if self.is_wanted(name) && at < self.grid.until {
            let changes = self.states.entry(name.key.as_ref().to_owned()).or_default();
            changes.push(at, value, &self.grid);
        }
    }

    /// Nothing is known from then until the next batch.
    fn lose(&mut self, at: Option<u64>) {
        let standing = std::mem::take(&mut self.standing);
        let Some(at) = at else { return };
        for name in standing.keys().filter(|name| name.kind == Kind::State) {
            self.changed(name, at, &Value::Unknown);
        }
    }
}

impl Shown {
    fn is_empty(&self) -> bool {
        match self {
            Self::Numbers(stretches) => stretches.is_empty(),
            Self::States(changes, _) => changes.iter().all(|(_, value)| *value == Value::Unknown),
        }
    }
}

impl Weighing {
    fn of([min, mean, max, last]: [f64; 4], seconds: u64) -> Self {
        Self { min, max, weighted: mean * seconds as f64, seconds, last }
    }

    fn join(&mut self, other: &Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.weighted += other.weighted;
        self.seconds = self.seconds.saturating_add(other.seconds);
        self.last = other.last;
    }

    fn stretch(&self, at: u64) -> Stretch {
        let mean = if self.seconds == 0 { self.last } else { self.weighted / self.seconds as f64 };
        // No sensor has more digits that mean something.
        let mean = (mean * 1e6).round() / 1e6;
        Stretch { at, min: self.min, mean: mean.clamp(self.min, self.max), max: self.max, last: self.last }
    }
}

impl Changes {
    fn push(&mut self, at: u64, value: &Value, grid: &Grid) {
        if self.last.as_ref() == Some(value) {
            return;
        }
        self.last = Some(value.clone());
        if at <= grid.since {
            // What it was before is what it was at the beginning.
            (self.all, self.by_place, self.is_cut) = (Vec::new(), BTreeMap::new(), false);
        }
        let at = at.max(grid.since);
        if self.all.len() < grid.points {
            self.all.push((at, value.clone()));
        } else {
            self.is_cut = true;
        }
        let place = grid.place(at);
        self.by_place.insert(place, (grid.start(place), value.clone()));
    }

    fn shown(self, grid: &Grid) -> Shown {
        if !self.is_cut {
            let mut all = self.all;
            // The clock may have gone back.
            all.sort_by_key(|(at, _)| *at);
            return Shown::States(all, false);
        }
        debug_assert!(self.by_place.len() <= grid.points + 1);
        let mut last = None;
        let changes = self.by_place.into_values();
        let changes = changes.filter(|(_, value)| last.replace(value.clone()).as_ref() != Some(value));
        Shown::States(changes.collect(), true)
    }
}

fn unscaled(number: i64, decimals: u8) -> f64 {
    // Beyond 2^53 the last digits of a float are no digits any more.
    number as f64 / 10_f64.powi(i32::from(decimals))
}
