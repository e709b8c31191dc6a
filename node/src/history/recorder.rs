//! What is known of each series since the last flush, without a disk or a clock.
//!
//! Two things become of what is seen. Points go to one of two rings: those of numbers to `recent`, those of states to
//! `long`, for states change seldom and should not go with the noise of a power meter. Of numbers `long` gets a sum
//! for each flush: the least, the mean by time, the greatest and the last.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing::warn;

use super::batch::{Batch, Kind, Name, Recorded, Sum, Value, point_bytes};

/// A series has at most one point in so many seconds; of what comes sooner the last counts.
pub(super) const PACE_S: u64 = 10;
/// Series beyond these are not recorded.
pub(super) const MOST_SERIES: usize = 2_048;
/// Points of a series that may wait for a flush.
const MOST_POINTS: usize = 64;
/// Bytes of points of numbers that a flush writes at most.
const RECENT_BYTES: usize = 48 * 1024;
/// Bytes of points of states that a flush writes at most.
const LONG_BYTES: usize = 12 * 1024;
/// Devices that are forgotten in one batch at most; more wait for the next.
const MOST_FORGOTTEN: usize = 256;

/// One of the two rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Recent,
    Long,
}

/// Something that was seen of a device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) key: String,
    pub(super) kind: Kind,
    pub(super) value: Value,
    /// Since when it is so, in seconds since 1970.
    pub(super) since: u64,
}

/// The series of all devices.
#[derive(Debug)]
pub(super) struct Recorder {
    series: BTreeMap<Name, Series>,
    recent: Side,
    long: Side,
    is_crowded: bool,
    is_thinned: bool,
    /// Values for which there was no room, since the start.
    dropped: u64,
}

/// What belongs to one of the rings.
#[derive(Debug)]
struct Side {
    /// The end of what was written.
    from: u64,
    /// Bytes of the points that wait.
    bytes: usize,
    forgotten: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Series {
    /// What it is now.
    value: Value,
    /// The points that wait to be written.
    pending: Vec<(u64, Value)>,
    /// A point that came too soon after the last.
    held: Option<(u64, Value)>,
    /// When the next point may be.
    next_s: u64,
    /// What it was at the end of what was written.
    written: Value,
    summing: Summing,
}

/// The sum of a number so far.
#[derive(Debug)]
struct Summing {
    since: u64,
    known_s: u64,
    weighted: i128,
    least_most: Option<(i64, i64)>,
    written: Option<i64>,
}

impl Recorder {
    /// A recorder that begins now, in seconds since 1970.
    pub(super) fn new(now: u64) -> Self {
        let side = || Side { from: now, bytes: 0, forgotten: BTreeSet::new() };
        Self {
            series: BTreeMap::new(),
            recent: side(),
            long: side(),
            is_crowded: false,
            is_thinned: false,
            dropped: 0,
        }
    }

    /// Takes in all that a device is now. A series of it that is not named is unknown from now on.
    pub(super) fn see(&mut self, device: &Arc<str>, all: Vec<Seen>, now: u64) {
        let mut unnamed: BTreeSet<Name> = self
            .of(device)
            .filter(|(_, series)| series.value != Value::Unknown)
            .map(|(name, _)| name.clone())
            .collect();
        for seen in all {
            let name = Name { device: device.clone(), key: seen.key.as_str().into(), kind: seen.kind };
            unnamed.remove(&name);
            self.point(name, seen.value, seen.since, now);
        }
        for name in unnamed {
            self.point(name, Value::Unknown, now, now);
        }
    }

    /// Forgets a device with all that was recorded of it.
    pub(super) fn forget(&mut self, device: &Arc<str>) {
        let names: Vec<Name> = self.of(device).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(series) = self.series.remove(&name) {
                let side = self.side(which(name.kind));
                side.bytes = side.bytes.saturating_sub(series.bytes());
            }
        }
        for side in [&mut self.recent, &mut self.long] {
            side.forgotten.insert(device.clone());
        }
    }

    /// Values for which there was no room, since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// More was left out where it should be written.
    pub(super) fn drop_more(&mut self, values: usize) {
        self.dropped += values as u64;
    }

    /// Whether nothing is known of any device.
    pub(super) fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Moves on those points whose time has come.
    pub(super) fn settle(&mut self, now: u64) {
        let due = |series: &&mut Series| series.held.is_some() && series.next_s <= now;
        for (name, series) in &mut self.series {
            if let Some(series) = Some(series).filter(due) {
                let side = match which(name.kind) {
                    Which::Recent => &mut self.recent,
                    Which::Long => &mut self.long,
                };
                self.is_thinned |= !series.push(side, most_bytes(which(name.kind)), now);
            }
        }
    }

    /// The batch that is to be written to a ring now, with what has not come to its time yet; of one device only, if
    /// one is named.
    pub(super) fn batch(&self, ring: Which, now: u64, device: Option<&str>) -> Batch {
        let side = match ring {
            Which::Recent => &self.recent,
            Which::Long => &self.long,
        };
        let to = now.max(side.from);
        let is_wanted = |name: &&Name| device.is_none_or(|device| *name.device == *device);
        let series = self.series.iter().filter(|(name, _)| is_wanted(name));
        let recorded = series.filter_map(|(name, series)| {
            let points = if which(name.kind) == ring { series.points(side.from) } else { Vec::new() };
            let is_summed = ring == Which::Long && matches!(name.kind, Kind::Number { .. });
            let sum = if is_summed { series.sum(side.from, to) } else { None };
            let is_news = !points.is_empty() || sum.is_some();
            is_news.then(|| Recorded { name: name.clone(), points, sum })
        });
        let series: Vec<Recorded> = recorded.collect();
        // Nothing is later than its batch, also where the clock was set back a little.
        let last = series.iter().filter_map(|one| one.points.last()).map(|(at, _)| *at).max();
        let forgotten = side.forgotten.iter().filter(|one| device.is_none_or(|device| ***one == *device));
        Batch {
            from: side.from,
            to: to.max(last.unwrap_or(to)),
            forgotten: forgotten.take(MOST_FORGOTTEN).cloned().collect(),
            series,
        }
    }

    /// What each series of a ring was when its last batch ended, for the beginning of a segment.
    pub(super) fn standing(&self, ring: Which) -> Vec<Recorded> {
        let side = match ring {
            Which::Recent => &self.recent,
            Which::Long => &self.long,
        };
        let stood = |(name, series): (&Name, &Series)| {
            let value = match (which(name.kind) == ring, ring) {
                (true, _) => Some(series.written.clone()),
                (false, Which::Long) => series.summing.written.map(Value::Number),
                (false, Which::Recent) => None,
            };
            let value = value.filter(|value| *value != Value::Unknown)?;
            Some(Recorded { name: name.clone(), points: vec![(side.from, value)], sum: None })
        };
        self.series.iter().filter_map(stood).collect()
    }

    /// A batch was written: what was in it does not wait any more.
    pub(super) fn written(&mut self, ring: Which, batch: &Batch) {
        for (name, series) in &mut self.series {
            if which(name.kind) == ring {
                series.is_written(batch.to);
            }
            if ring == Which::Long && matches!(name.kind, Kind::Number { .. }) {
                series.begin_sum(batch.to);
            }
        }
        let side = self.side(ring);
        (side.from, side.bytes) = (batch.to, 0);
        side.forgotten.retain(|device| !batch.forgotten.contains(device));
        let is_of_use = |series: &Series| {
            series.value != Value::Unknown
                || series.written != Value::Unknown
                || series.summing.written.is_some()
                || !series.pending.is_empty()
                || series.held.is_some()
        };
        self.series.retain(|_, series| is_of_use(series));
        (self.is_crowded, self.is_thinned) = (false, false);
    }

    /// The clock made a leap: nothing is known of the time between, and what waits is dropped.
    pub(super) fn begin_again(&mut self, now: u64) {
        self.series.retain(|_, series| series.value != Value::Unknown);
        for series in self.series.values_mut() {
            let value = std::mem::replace(&mut series.value, Value::Unknown);
            *series = Series::new(now);
            series.pending.push((now, value.clone()));
            series.take(value, now);
        }
        (self.recent.from, self.long.from) = (now, now);
        (self.recent.bytes, self.long.bytes) = (0, 0);
    }

    fn of(&self, device: &Arc<str>) -> impl Iterator<Item = (&Name, &Series)> {
        let least = Name { device: device.clone(), key: "".into(), kind: Kind::Number { decimals: 0 } };
        self.series.range(least..).take_while(|(name, _)| name.device == *device)
    }

    fn side(&mut self, ring: Which) -> &mut Side {
        match ring {
            Which::Recent => &mut self.recent,
            Which::Long => &mut self.long,
        }
    }

    fn point(&mut self, name: Name, value: Value, since: u64, now: u64) {
        let ring = which(name.kind);
        if !self.series.contains_key(&name) {
            if value == Value::Unknown {
                return;
            }
            if self.series.len() >= MOST_SERIES {
                self.dropped += 1;
                if !std::mem::replace(&mut self.is_crowded, true) {
                    warn!(device = %name.device, series = MOST_SERIES, "there are too many series for the history: some are not recorded");
                }
                return;
            }
        }
        let side = match ring {
            Which::Recent => &mut self.recent,
            Which::Long => &mut self.long,
        };
        let series = self.series.entry(name).or_insert_with(|| Series::new(now));
        if series.value == value {
            return;
        }
        let since = series.after(since.clamp(side.from, now.max(side.from)));
        series.take(value.clone(), since);
        series.held = Some((since, value));
        if series.next_s > now || series.push(side, most_bytes(ring), now) {
            return;
        }
        self.dropped += 1;
        if !std::mem::replace(&mut self.is_thinned, true) {
            warn!("more changes than the history takes in one flush: some are left out");
        }
    }
}

impl Series {
    fn new(now: u64) -> Self {
        let summing = Summing { since: now, known_s: 0, weighted: 0, least_most: None, written: None };
        Self {
            value: Value::Unknown,
            pending: Vec::new(),
            held: None,
            next_s: 0,
            written: Value::Unknown,
            summing,
        }
    }

    /// Not before what is known already.
    fn after(&self, since: u64) -> u64 {
        let last = self.pending.last().map_or(0, |(at, _)| *at);
        since.max(last).max(self.summing.since)
    }

    /// It is something else from then on.
    fn take(&mut self, value: Value, since: u64) {
        self.summing.pass(&self.value, since);
        if let Value::Number(number) = value {
            let (min, max) = self.summing.least_most.unwrap_or((number, number));
            self.summing.least_most = Some((min.min(number), max.max(number)));
        }
        self.value = value;
    }

    /// Moves the held point to those that wait. False when there is no room: it is held on, and the next one takes its
    /// place.
    fn push(&mut self, side: &mut Side, most: usize, now: u64) -> bool {
        let Some((at, value)) = self.held.take() else { return true };
        let before = self.pending.last();
        let last = before.map_or(&self.written, |(_, value)| value);
        if *last == value {
            return true;
        }
        let bytes = point_bytes(at.saturating_sub(before.map_or(side.from, |(at, _)| *at)), last, &value);
        if side.bytes + bytes > most || self.pending.len() >= MOST_POINTS {
            self.held = Some((at, value));
            return false;
        }
        side.bytes += bytes;
        self.next_s = now.saturating_add(PACE_S);
        self.pending.push((at, value));
        true
    }

    /// The points that wait, with the one that is held.
    fn points(&self, from: u64) -> Vec<(u64, Value)> {
        let last = self.pending.last().map_or(&self.written, |(_, value)| value);
        let held = self.held.iter().filter(|(_, value)| value != last);
        self.pending.iter().chain(held).map(|(at, value)| ((*at).max(from), value.clone())).collect()
    }

    fn bytes(&self) -> usize {
        let mut before = (u64::MAX, &self.written);
        let mut bytes = 0;
        for (at, value) in &self.pending {
            bytes += point_bytes(at.saturating_sub(before.0), before.1, value);
            before = (*at, value);
        }
        bytes
    }

    fn is_written(&mut self, to: u64) {
        if let Some((_, value)) = self.held.take() {
            self.pending.push((to, value));
            self.next_s = to.saturating_add(PACE_S);
        }
        if let Some((_, value)) = std::mem::take(&mut self.pending).pop() {
            self.written = value;
        }
    }

    /// The sum of the time since the last; none when it stayed as that one said, or was unknown all the time.
    fn sum(&self, from: u64, to: u64) -> Option<Sum> {
        let mut all = Summing { ..self.summing };
        all.pass(&self.value, to);
        let last = match self.value {
            Value::Number(number) => Some(number),
            _ => None,
        };
        let (min, max) = match all.least_most {
            Some(known) => known,
            // It was something and is unknown since the beginning.
            None => all.written.map(|written| (written, written)).filter(|_| last.is_none())?,
        };
        let is_whole = all.known_s == to.saturating_sub(from);
        if is_whole && min == max && last == Some(max) && all.written == last {
            return None;
        }
        let mean =
            all.weighted.checked_div(i128::from(all.known_s)).and_then(|mean| i64::try_from(mean).ok());
        let mean = mean.unwrap_or(last.unwrap_or(max)).clamp(min, max);
        Some(Sum { known_s: all.known_s, min, mean, max, last })
    }

    fn begin_sum(&mut self, to: u64) {
        let last = match self.value {
            Value::Number(number) => Some(number),
            _ => None,
        };
        let least_most = last.map(|number| (number, number));
        self.summing = Summing { since: to, known_s: 0, weighted: 0, least_most, written: last };
    }
}

impl Summing {
    /// It was so until then.
    fn pass(&mut self, value: &Value, to: u64) {
        let lasted = to.saturating_sub(self.since);
        if let Value::Number(number) = value {
            self.known_s = self.known_s.saturating_add(lasted);
            self.weighted = self.weighted.saturating_add(i128::from(*number) * i128::from(lasted));
        }
        self.since = self.since.max(to);
    }
}

/// Where the points of a series go.
fn which(kind: Kind) -> Which {
    match kind {
        Kind::Number { .. } => Which::Recent,
        Kind::State => Which::Long,
    }
}

fn most_bytes(ring: Which) -> usize {
    match ring {
        Which::Recent => RECENT_BYTES,
        Which::Long => LONG_BYTES,
    }
}

#[cfg(test)]
pub(super) mod tests;
