#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

pub(in crate::history) fn name(device: &str, key: &str, kind: Kind) -> Name {
    Name { device: device.into(), key: key.into(), kind }
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![1 => Just(Value::Unknown), 9 => any::<i32>().prop_map(|n| Value::Number(n.into()))]
}

fn state() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Unknown),
        any::<bool>().prop_map(Value::Truth),
        "[a-zé ]{0,12}".prop_map(|word| Value::Word(word.into())),
    ]
}

fn recorded(from: u64) -> impl Strategy<Value = Recorded> {
    let at = move |steps: Vec<(u16, Value)>| {
        let mut time = from;
        steps.into_iter().map(move |(step, value)| {
            time += u64::from(step);
            (time, value)
        })
    };
    let numbers = (prop::collection::vec((any::<u16>(), number()), 0..20), any::<Option<[i16; 4]>>());
    let states = prop::collection::vec((any::<u16>(), state()), 1..20);
    prop_oneof![
        ("[a-c]", "[a-c]", 0..7_u8, numbers).prop_map(move |(device, key, decimals, (steps, sum))| {
            let sum = sum.map(|[a, b, c, d]| {
                let (min, max) = (i64::from(a.min(b)), i64::from(a.max(b)));
                let (mean, last) = (i64::from(c).clamp(min, max), i64::from(d).clamp(min, max));
                Sum { known_s: 500, min, mean, max, last: (d % 2 == 0).then_some(last) }
            });
            let name = name(&device, &key, Kind::Number { decimals });
            Recorded { name, points: at(steps).collect(), sum }
        }),
        ("[a-c]", "[d-f]", states).prop_map(move |(device, key, steps)| Recorded {
            name: name(&device, &key, Kind::State),
            points: at(steps).collect(),
            sum: None
        }),
    ]
}

prop_compose! {
    pub(in crate::history) fn batches()(from in 0..u64::from(u32::MAX))
        (series in prop::collection::vec(recorded(from), 0..6), forgotten in prop::option::of("[a-c]"),
         from in Just(from)) -> Batch {
        // One entry for each name, and none that says nothing.
        let series: BTreeMap<Name, Recorded> = series
            .into_iter()
            .filter(|one| !one.points.is_empty() || one.sum.is_some())
            .map(|one| (one.name.clone(), one))
            .collect();
        let forgotten = forgotten.iter().map(|device| device.as_str().into()).collect();
        Batch { from, to: from + 600, forgotten, series: series.into_values().collect() }
    }
}

fn sorted(mut batch: Batch) -> Batch {
    batch.series.sort_by(|a, b| a.name.cmp(&b.name));
    batch
}

proptest! {
    #[test]
    fn batches_come_back_as_they_were(all in prop::collection::vec(batches(), 1..5)) {
        let (mut writing, mut reading) = (Dictionary::default(), Dictionary::default());
        for batch in all {
            let (frame, left_out) = encode(&batch, &mut writing, 1 << 20).unwrap();
            prop_assert_eq!(left_out, 0);
            let Frame::Whole(back, bytes) = decode(&frame, &mut reading, None) else { panic!("damaged") };
            prop_assert_eq!(bytes, frame.len());
            prop_assert_eq!(sorted(back), batch);
        }
    }

    #[test]
    fn a_frame_is_never_longer_than_its_room(batch in batches(), room in 0..4_096_usize) {
        let (frame, _) = encode(&batch, &mut Dictionary::default(), room).unwrap();
        prop_assert!(frame.len() <= room.max(96), "{} in {room}", frame.len());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, &mut Dictionary::default(), None);
        let mut frame = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
        frame.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        frame.extend_from_slice(&crc32fast::hash(&frame).to_le_bytes());
        frame.extend_from_slice(&bytes);
        let _ = decode(&frame, &mut Dictionary::default(), None);
    }
}

#[test]
fn the_form_on_the_disk_does_not_change() {
    let temperature = name("a-1", "t", Kind::Number { decimals: 1 });
    let points = vec![(1_000, Value::Number(215)), (1_010, Value::Number(214)), (1_030, Value::Unknown)];
    let sum = Sum { known_s: 30, min: 214, mean: 214, max: 215, last: None };
    let on = name("a-1", "on", Kind::State);
    let states = vec![
        (1_000, Value::Truth(true)),
        (1_005, Value::Word("x".into())),
        (1_006, Value::Truth(false)),
        (1_007, Value::Unknown),
    ];
    let batch = Batch {
        from: 1_000,
        to: 1_600,
        forgotten: vec!["b".into()],
        series: vec![
            Recorded { name: temperature, points, sum: Some(sum) },
            Recorded { name: on, points: states, sum: None },
        ],
    };
    let (frame, _) = encode(&batch, &mut Dictionary::default(), 4_096).unwrap();
    let shown: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = concat!(
        "3b000000bc50e7221f6bc242", // 59 bytes, their checksum, and that of the two
        "00e807d804",               // the first version, from 1000, for 600 seconds
        "020003612d31017400",       // two names: 0 is `t` of `a-1`, a number
        "010103612d31026f6e01",     // with a digit, 1 is `on`, a state
        "010162",                   // `b` is forgotten
        "01000300ae0314012900",     // of 0 three points: 215, 10 s later one less, 20 s later unknown
        "0101040002050301780101",   // of 1 four: true, 5 s later `x`, a second later false
        "0100",                     // and a second later unknown
        "0100f508ac03000100"        // the sum of 0: unknown for 570 s and at the end, 214, 214, 215
    );
    assert_eq!(shown, expected);
}

#[test]
fn a_point_of_a_regular_sensor_takes_two_bytes() {
    assert_eq!(point_bytes(10, &Value::Number(2_150), &Value::Number(2_145)), 2);
    assert_eq!(point_bytes(10, &Value::Truth(true), &Value::Truth(false)), 2);
    assert_eq!([0, 127, 128, u64::MAX].map(varint), [1, 1, 2, 10]);
}
