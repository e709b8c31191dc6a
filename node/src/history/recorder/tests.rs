#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

pub(in crate::history) fn number(key: &str, value: i64, since: u64) -> Seen {
    let kind = Kind::Number { decimals: 1 };
    Seen { key: key.to_owned(), kind, value: Value::Number(value), since }
}

pub(in crate::history) fn truth(key: &str, value: bool, since: u64) -> Seen {
    Seen { key: key.to_owned(), kind: Kind::State, value: Value::Truth(value), since }
}

fn lamp() -> Arc<str> {
    "lamp".into()
}

fn points(recorder: &Recorder, ring: Which, now: u64) -> Vec<(u64, Value)> {
    let series = recorder.batch(ring, now, None).series;
    series.into_iter().next().map(|one| one.points).unwrap_or_default()
}

#[test]
fn a_series_has_one_point_in_ten_seconds_and_the_last_of_those_between_counts() {
    let mut recorder = Recorder::new(1_000);
    for (at, value) in [(1_000, 1), (1_003, 2), (1_004, 3), (1_009, 3), (1_012, 4)] {
        recorder.settle(at);
        recorder.see(&lamp(), vec![number("t", value, at)], at);
    }
    let known = |now| points(&recorder, Which::Recent, now);
    let number = |n| Value::Number(n);
    assert_eq!(known(1_012), [(1_000, number(1)), (1_004, number(3)), (1_012, number(4))]);
    recorder.settle(1_030);
    let batch = recorder.batch(Which::Recent, 1_030, None);
    recorder.written(Which::Recent, &batch);
    assert!(points(&recorder, Which::Recent, 1_031).is_empty());
    assert_eq!(recorder.standing(Which::Recent)[0].points, [(1_030, number(4))]);
}

#[test]
fn a_state_that_goes_there_and_back_at_once_is_no_point() {
    let mut recorder = Recorder::new(1_000);
    for (at, on) in [(1_000, false), (1_020, true), (1_021, false), (1_022, true)] {
        recorder.see(&lamp(), vec![truth("on", on, at)], at);
    }
    recorder.settle(1_040);
    let found = points(&recorder, Which::Long, 1_040);
    assert_eq!(found, [(1_000, Value::Truth(false)), (1_020, Value::Truth(true))]);
}

#[test]
fn a_sum_weighs_by_time_and_what_stays_the_same_is_not_written_again() {
    let mut recorder = Recorder::new(0);
    recorder.see(&lamp(), vec![number("t", 10, 0)], 0);
    recorder.see(&lamp(), vec![number("t", 40, 450)], 450);
    let batch = recorder.batch(Which::Long, 600, None);
    let sum = batch.series[0].sum.unwrap();
    assert_eq!(sum, Sum { known_s: 600, min: 10, mean: 17, max: 40, last: Some(40) });
    recorder.written(Which::Long, &batch);
    let batch = recorder.batch(Which::Long, 1_200, None);
    assert!(batch.is_empty(), "it stayed as it was at the end of the last");
    recorder.written(Which::Long, &batch);
    assert!(recorder.batch(Which::Long, 1_800, None).is_empty());
    // Gone from its device for half of the time.
    recorder.see(&lamp(), vec![], 1_500);
    let sum = recorder.batch(Which::Long, 1_800, None).series[0].sum.unwrap();
    assert_eq!((sum.known_s, sum.mean, sum.last), (300, 40, None));
}

#[test]
fn what_waits_and_how_many_series_there_are_is_bounded() {
    let mut recorder = Recorder::new(0);
    for round in 0..100_u64 {
        for device in 0..200 {
            let device: Arc<str> = format!("d{device}").into();
            let all = (0..20).map(|key| {
                let word = Value::Word(format!("{round:0>48}").into());
                Seen { key: format!("k{key}"), kind: Kind::State, value: word, since: round * 10 }
            });
            recorder.see(&device, all.collect(), round * 10);
        }
    }
    assert_eq!(recorder.series.len(), MOST_SERIES);
    assert!(recorder.long.bytes <= LONG_BYTES);
    assert!(recorder.series.values().all(|series| series.pending.len() <= MOST_POINTS));
    // The last of each is not lost: it is held until there is room.
    let batch = recorder.batch(Which::Long, 1_000, None);
    recorder.written(Which::Long, &batch);
    recorder.settle(1_010);
    assert!(recorder.series.values().all(|series| series.written == series.value));
}

#[test]
fn a_device_that_is_forgotten_is_gone_and_the_batch_says_so() {
    let mut recorder = Recorder::new(0);
    recorder.see(&lamp(), vec![number("t", 10, 0), truth("on", true, 0)], 0);
    recorder.see(&"lamp-2".into(), vec![truth("on", true, 0)], 0);
    recorder.forget(&lamp());
    assert_eq!(recorder.recent.bytes, 0);
    for ring in [Which::Recent, Which::Long] {
        let batch = recorder.batch(ring, 10, None);
        assert_eq!(batch.forgotten, [lamp()]);
        assert!(batch.series.iter().all(|one| &*one.name.device == "lamp-2"));
        recorder.written(ring, &batch);
        assert!(recorder.batch(ring, 20, None).forgotten.is_empty());
    }
}
