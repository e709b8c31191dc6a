//! What is written at once: the points of some minutes, and their form on the disk.
//!
//! A frame is a head and a batch. The head is the length of the batch, its CRC-32, and a CRC-32 of these two, of four
//! bytes each (little-endian): a length that is damaged is known for it, and the next frame is found by its head. The
//! batch is in postcard: every whole number takes as many bytes as it needs, one with a sign by zigzag. Times are
//! differences to the one before, in seconds; values of sensors are whole numbers of their last digit, as differences
//! too. A series has its name once in each segment and a number elsewhere.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

/// Bytes of a frame before its batch.
pub(super) const FRAME_HEAD: usize = 12;

/// What a series consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Numbers with so many digits after the point.
    Number { decimals: u8 },
    /// States: true and false, or words.
    State,
}

/// The name of a series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// The device's object without its kind.
    pub(super) device: Arc<str>,
    /// The sensor, or what else of the device.
    pub(super) key: Arc<str>,
    pub(super) kind: Kind,
}

/// What a series is at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nobody knows.
    Unknown,
    /// In units of the last digit.
    Number(i64),
    Truth(bool),
    Word(Box<str>),
}

/// What a series was in the time of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    /// For how many seconds it was known.
    pub(super) known_s: u64,
    pub(super) min: i64,
    /// Each value by the time for which it held.
    pub(super) mean: i64,
    pub(super) max: i64,
    /// At the end; none when it was unknown then.
    pub(super) last: Option<i64>,
}

/// What is written of one series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) name: Name,
    /// Since when it was what, in seconds since 1970, ascending.
    pub(super) points: Vec<(u64, Value)>,
    pub(super) sum: Option<Sum>,
}

/// All that is known of the time from one moment to another. A series of which it says nothing stayed as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// In seconds since 1970.
    pub(super) from: u64,
    /// In seconds since 1970.
    pub(super) to: u64,
    /// Devices of which everything before is forgotten.
    pub(super) forgotten: Vec<Arc<str>>,
    pub(super) series: Vec<Recorded>,
}

impl Batch {
    /// Whether it says nothing but that time went by.
    pub(super) fn is_empty(&self) -> bool {
        self.series.is_empty() && self.forgotten.is_empty()
    }
}

/// The numbers that series have in a segment.
#[derive(Debug, Clone, Default)]
pub(super) struct Dictionary {
    ids: BTreeMap<Name, u32>,
    names: BTreeMap<u32, Name>,
}

impl Dictionary {
    fn id(&mut self, name: &Name, news: &mut Vec<NewName>) -> u32 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.names.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        self.learn(id, name.clone());
        news.push(NewName {
            id,
            device: name.device.as_ref().into(),
            key: name.key.as_ref().into(),
            kind: name.kind,
        });
        id
    }

    fn learn(&mut self, id: u32, name: Name) {
        self.ids.insert(name.clone(), id);
        self.names.insert(id, name);
    }

    /// The devices that have a series.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Arc<str>> {
        self.ids.keys().map(|name| &name.device)
    }
}

/// A batch on the disk. A new version is a new variant at the end.
#[derive(Debug, Serialize, Deserialize)]
enum Stored {
    V1(StoredV1),
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredV1 {
    from: u64,
    lasts_s: u64,
    names: Vec<NewName>,
    forgotten: Vec<Box<str>>,
    numbers: Vec<(u32, Vec<NumberPoint>)>,
    states: Vec<(u32, Vec<(u64, Word)>)>,
    sums: Vec<(u32, StoredSum)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct NewName {
    id: u32,
    device: Box<str>,
    key: Box<str>,
    kind: Kind,
}

/// Seconds since the point before, doubled, plus one when it becomes unknown; and how much more it is.
type NumberPoint = (u64, i64);

#[derive(Debug, Serialize, Deserialize)]
enum Word {
    Unknown,
    False,
    True,
    Text(Box<str>),
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSum {
    /// Seconds for which it was unknown, doubled, plus one when it was at the end.
    unknown: u64,
    min: i64,
    /// By how much more than the least.
    mean: u64,
    max: u64,
    last: u64,
}

/// A frame with what of the batch fits `room`; the rest is left out. Also how many series were left out.
///
/// # Errors
/// What postcard says, which never fails on these types.
pub(super) fn encode(
    batch: &Batch,
    dictionary: &mut Dictionary,
    room: usize,
) -> Result<(Vec<u8>, usize), postcard::Error> {
    let mut stored = StoredV1 {
        from: batch.from,
        lasts_s: batch.to.saturating_sub(batch.from),
        names: Vec::new(),
        forgotten: batch.forgotten.iter().map(|device| device.as_ref().into()).collect(),
        numbers: Vec::new(),
        states: Vec::new(),
        sums: Vec::new(),
    };
    // The heads of the lists and of the frame, at their longest.
    let mut length = 64 + batch.forgotten.iter().map(|device| device.len() + 2).sum::<usize>();
    let mut left_out = 0;
    for recorded in &batch.series {
        let longest = longest(recorded);
        if length + longest > room {
            left_out += 1;
            continue;
        }
        length += longest;
        let id = dictionary.id(&recorded.name, &mut stored.names);
        match recorded.name.kind {
            _ if recorded.points.is_empty() => {}
            Kind::Number { .. } => stored.numbers.push((id, numbers(batch.from, &recorded.points))),
            Kind::State => stored.states.push((id, states(batch.from, &recorded.points))),
        }
        stored.sums.extend(recorded.sum.as_ref().map(|sum| (id, stored_sum(sum, stored.lasts_s))));
    }
    let body = postcard::to_allocvec(&Stored::V1(stored))?;
    let mut frame = Vec::with_capacity(FRAME_HEAD + body.len());
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_le_bytes());
    frame.extend_from_slice(&body);
    Ok((frame, left_out))
}

/// The length and the checksum of the batch, of a head that is sound. One of zeros is not.
fn head(bytes: &[u8]) -> Option<(usize, u32)> {
    let (head, crc) = bytes.get(..FRAME_HEAD)?.split_last_chunk::<4>()?;
    let (length, body) = head.split_first_chunk::<4>()?;
    (crc32fast::hash(head) == u32::from_le_bytes(*crc)).then_some(())?;
    Some((u32::from_le_bytes(*length) as usize, u32::from_le_bytes(body.try_into().ok()?)))
}

/// What a frame turned out to be.
#[derive(Debug)]
pub(super) enum Frame {
    /// A batch and the bytes of its frame. Only the wanted device's series are in it, if one is wanted.
    Whole(Batch, usize),
    /// Bytes that are no batch, to be skipped.
    Damaged(usize),
    /// Nothing that reads follows.
    End,
}

/// Reads the frame at the beginning of `bytes`.
pub(super) fn decode(bytes: &[u8], dictionary: &mut Dictionary, wanted: Option<&str>) -> Frame {
    let Some((length, crc)) = head(bytes) else {
        let next = bytes.windows(FRAME_HEAD).position(|bytes| head(bytes).is_some());
        return next.map_or(Frame::End, Frame::Damaged);
    };
    let whole = FRAME_HEAD.saturating_add(length);
    let Some(body) = bytes.get(FRAME_HEAD..whole) else { return Frame::End };
    if crc32fast::hash(body) != crc {
        return Frame::Damaged(whole);
    }
    match postcard::from_bytes(body) {
        Ok(Stored::V1(stored)) => Frame::Whole(restored(stored, dictionary, wanted), whole),
        Err(_) => Frame::Damaged(whole),
    }
}

/// How many bytes a point takes, given the one before.
pub(super) fn point_bytes(since: u64, before: &Value, value: &Value) -> usize {
    let time = varint(since.saturating_mul(2));
    match (before, value) {
        (_, Value::Unknown | Value::Truth(_)) => time + 1,
        (_, Value::Word(word)) => time + 2 + word.len(),
        (Value::Number(before), Value::Number(number)) => {
            time + varint(number.wrapping_sub(*before).unsigned_abs().saturating_mul(2))
        }
        (_, Value::Number(number)) => time + varint(number.unsigned_abs().saturating_mul(2)),
    }
}

/// Bytes of a whole number in postcard.
fn varint(number: u64) -> usize {
    let bits = 64 - number.leading_zeros().min(63);
    (bits as usize).div_ceil(7)
}

/// The most bytes that a series takes in a frame.
fn longest(recorded: &Recorded) -> usize {
    // The number in each of three lists and the lengths, at their longest.
    let name = recorded.name.device.len() + recorded.name.key.len() + 24;
    let mut before = (0, &Value::Unknown);
    let mut points = 8;
    for (at, value) in &recorded.points {
        points += point_bytes(at.saturating_sub(before.0), before.1, value) + 1;
        before = (*at, value);
    }
    let sum = if recorded.sum.is_some() { 50 } else { 0 };
    name + points + sum
}

fn numbers(from: u64, points: &[(u64, Value)]) -> Vec<NumberPoint> {
    let (mut time, mut number) = (from, 0_i64);
    let one = |(at, value): &(u64, Value)| {
        let since = at.saturating_sub(time).saturating_mul(2);
        time = time.max(*at);
        match value {
            Value::Number(next) => {
                let more = next.wrapping_sub(number);
                number = *next;
                (since, more)
            }
            _ => (since | 1, 0),
        }
    };
    points.iter().map(one).collect()
}

fn states(from: u64, points: &[(u64, Value)]) -> Vec<(u64, Word)> {
    let mut time = from;
    let one = |(at, value): &(u64, Value)| {
        let since = at.saturating_sub(time);
        time = time.max(*at);
        let word = match value {
            Value::Truth(true) => Word::True,
            Value::Truth(false) => Word::False,
            Value::Word(word) => Word::Text(word.clone()),
            Value::Unknown | Value::Number(_) => Word::Unknown,
        };
        (since, word)
    };
    points.iter().map(one).collect()
}

fn stored_sum(sum: &Sum, lasts_s: u64) -> StoredSum {
    let above = |number: i64| number.saturating_sub(sum.min).unsigned_abs();
    let unknown = lasts_s.saturating_sub(sum.known_s).saturating_mul(2) | u64::from(sum.last.is_none());
    let last = sum.last.map_or(0, above);
    StoredSum { unknown, min: sum.min, mean: above(sum.mean), max: above(sum.max), last }
}

fn restored(stored: StoredV1, dictionary: &mut Dictionary, wanted: Option<&str>) -> Batch {
    for name in stored.names {
        let NewName { id, device, key, kind } = name;
        dictionary.learn(id, Name { device: device.into(), key: key.into(), kind });
    }
    let (from, lasts_s) = (stored.from, stored.lasts_s);
    let mut series: BTreeMap<u32, Recorded> = BTreeMap::new();
    let of = |id: u32| {
        let name = dictionary.names.get(&id)?;
        let is_wanted = wanted.is_none_or(|wanted| *name.device == *wanted);
        is_wanted.then(|| Recorded { name: name.clone(), points: Vec::new(), sum: None })
    };
    for (id, points) in stored.numbers {
        if let Some(recorded) = of(id) {
            series.entry(id).or_insert(recorded).points = number_values(from, points);
        }
    }
    for (id, points) in stored.states {
        if let Some(recorded) = of(id) {
            series.entry(id).or_insert(recorded).points = state_values(from, points);
        }
    }
    for (id, sum) in stored.sums {
        if let Some(recorded) = of(id) {
            series.entry(id).or_insert(recorded).sum = Some(restored_sum(&sum, lasts_s));
        }
    }
    Batch {
        from,
        to: from.saturating_add(lasts_s),
        forgotten: stored.forgotten.into_iter().map(Into::into).collect(),
        series: series.into_values().collect(),
    }
}

fn number_values(from: u64, points: Vec<NumberPoint>) -> Vec<(u64, Value)> {
    let (mut time, mut number) = (from, 0_i64);
    let one = |(since, more): NumberPoint| {
        time = time.saturating_add(since / 2);
        if since % 2 == 1 {
            return (time, Value::Unknown);
        }
        number = number.wrapping_add(more);
        (time, Value::Number(number))
    };
    points.into_iter().map(one).collect()
}

fn state_values(from: u64, points: Vec<(u64, Word)>) -> Vec<(u64, Value)> {
    let mut time = from;
    let one = |(since, word): (u64, Word)| {
        time = time.saturating_add(since);
        let value = match word {
            Word::Unknown => Value::Unknown,
            Word::False => Value::Truth(false),
            Word::True => Value::Truth(true),
            Word::Text(text) => Value::Word(text),
        };
        (time, value)
    };
    points.into_iter().map(one).collect()
}

fn restored_sum(stored: &StoredSum, lasts_s: u64) -> Sum {
    let more = |by: u64| stored.min.saturating_add_unsigned(by);
    Sum {
        known_s: lasts_s.saturating_sub(stored.unknown / 2),
        min: stored.min,
        mean: more(stored.mean),
        max: more(stored.max),
        last: (stored.unknown & 1 == 0).then(|| more(stored.last)),
    }
}

#[cfg(test)]
pub(super) mod tests;
