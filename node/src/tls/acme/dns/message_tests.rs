#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// An answer as BIND sends it: its names compressed, of each type that we read.
fn answer() -> Vec<u8> {
    let mut bytes = header(0x1234, 0x8580, [1, 3, 2, 2]);
    push_question(&mut bytes, &name("_acme-challenge.example.org"), kind::TXT); // at 12, example.org at 28
    let mut record = |owner: &[u8], kind: u16, data: &[u8]| {
        bytes.extend(owner);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 60]);
        push_counted(&mut bytes, data);
    };
    record(b"\xc0\x0c", kind::TXT, b"\x03abc\x02de");
    record(b"\xc0\x0c", kind::TXT, b"\x00");
    record(b"\x05alias\xc0\x1c", kind::CNAME, b"\xc0\x0c");
    record(b"\xc0\x1c", kind::NS, b"\x02NS\xc0\x1c");
    record(b"\xc0\x1c", kind::SOA, &[b"\x02ns\xc0\x1c\x04root\xc0\x1c".as_slice(), &[7; 20]].concat());
    record(b"\x02ns\xc0\x1c", kind::A, &[192, 0, 2, 1]);
    record(b"\x02ns\xc0\x1c", kind::AAAA, &[0x20; 16]);
    bytes
}

#[test]
fn queries_are_as_rfc_1035_has_them() {
    let bytes = query(0xbeef, &name("a.example.org"), kind::TXT, true);
    assert_eq!(bytes, b"\xbe\xef\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\x03org\0\0\x10\0\x01");
    let read = Message::read(&bytes).unwrap();
    assert!(!read.is_answer() && read.questions[0].kind == kind::TXT && read.answers.is_empty());
}

#[test]
fn updates_are_as_rfc_2136_has_them() {
    let at = name("_acme-challenge.example.org");
    let added = update(1, &name("example.org"), Change::Add, &at, "value", 60);
    let mut expected = b"\0\x01\x28\0\0\x01\0\0\0\x01\0\0\x07example\x03org\0\0\x06\0\x01".to_vec();
    expected.extend(at.wire());
    expected.extend(b"\0\x10\0\x01\0\0\0\x3c\0\x06\x05value");
    assert_eq!(added, expected);
    let deleted = update(1, &name("example.org"), Change::Delete, &at, "value", 60);
    assert_eq!(&deleted[deleted.len() - 16..], b"\0\x10\0\xfe\0\0\0\0\0\x06\x05value");
    let read = Message::read(&deleted).unwrap();
    assert_eq!(read.authority[0].data, Data::Text(b"value".to_vec()));
}

#[test]
fn answers_are_read_with_their_names_whole() {
    let read = Message::read(&answer()).unwrap();
    assert!(read.is_answer() && read.is_authoritative() && !read.is_truncated());
    assert_eq!((read.id, read.rcode()), (0x1234, rcode::NOERROR));
    let asked = name("_acme-challenge.example.org");
    assert_eq!(read.texts().collect::<Vec<_>>(), [b"abcde".as_slice(), b""]);
    assert_eq!(read.alias_of(&name("alias.example.org")), Some(&asked));
    assert_eq!(read.alias_of(&asked), None);
    assert_eq!(read.zone_of(&asked), Some(&name("example.org")));
    assert_eq!(read.zone_of(&name("example.net")), None);
    assert_eq!(read.authority[0].data, Data::Server(name("ns.example.org")));
    assert_eq!(read.additional[0].data, Data::Address("192.0.2.1".parse().unwrap()));
    assert!(read.signature().is_none());
}

#[test]
fn a_message_that_is_cut_off_is_none() {
    let whole = answer();
    for length in 0..whole.len() {
        assert!(Message::read(&whole[..length]).is_err(), "{length}");
    }
    // What follows the last record is none of it.
    assert!(Message::read(&[whole.as_slice(), b"rest"].concat()).is_ok());
}

#[test]
fn names_that_run_in_circles_are_refused() {
    let ask = |name: &[u8]| {
        let mut bytes = header(0, 0, [1, 0, 0, 0]);
        bytes.extend(name);
        bytes.extend([0, 16, 0, 1]);
        Message::read(&bytes).unwrap_err()
    };
    assert_eq!(ask(b"\xc0\x0c"), MessageError::Pointer, "at itself");
    assert_eq!(ask(b"\x01a\xc0\x0c"), MessageError::Pointer, "at its own beginning");
    assert_eq!(ask(b"\xc0\x0e\xc0\x0c"), MessageError::Pointer, "forward");
    assert_eq!(ask(b"\x80a\0"), MessageError::Name, "a label of no kind");
    assert_eq!(ask(&[b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4)), MessageError::Name, "too long");
}

#[test]
fn a_long_chain_of_names_is_refused() {
    let mut bytes = header(0, 0x8000, [0, 1, 0, 0]);
    bytes.extend(b"\0\0\xff\0\x01\0\0\0\0");
    let mut chain = b"\0".to_vec();
    let first = bytes.len() + 2;
    chain.extend(u16::try_from(0xc000 + first).unwrap().to_be_bytes());
    for hop in 0..400 {
        chain.extend(u16::try_from(0xc000 + first + 1 + 2 * hop).unwrap().to_be_bytes());
    }
    let last = u16::try_from(0xc000 + first + chain.len() - 2).unwrap();
    push_counted(&mut bytes, &chain);
    assert!(Message::read(&bytes).is_ok());
    // One more record, whose name is at the end of the chain that stands in the data of the first.
    bytes[9] = 1;
    bytes.extend(last.to_be_bytes());
    bytes.extend([0, 16, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Message::read(&bytes).unwrap_err(), MessageError::Pointer);
}

#[test]
fn data_of_a_wrong_length_is_refused() {
    for (kind, data) in [
        (kind::A, b"\x01\x02\x03".as_slice()),
        (kind::A, b"\x01\x02\x03\x04\x05"),
        (kind::AAAA, b"\x01"),
        (kind::TXT, b"\x05abc"),
        (kind::NS, b"\x01a"),
        (kind::CNAME, b"\x01a\0\0"),
        (kind::SOA, b"\0\0short"),
    ] {
        let mut bytes = header(0, 0x8000, [0, 1, 0, 0]);
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 0]);
        push_counted(&mut bytes, data);
        assert_eq!(Message::read(&bytes).unwrap_err(), MessageError::Data, "{kind} {data:?}");
    }
}

#[test]
fn a_signature_is_the_last_record() {
    let signature = Signature {
        algorithm: name("hmac-sha256"),
        time: 0x0102_0304_0506,
        fudge: 300,
        mac: vec![1; 32],
        original_id: 1,
        error: 0,
        other: vec![9],
    };
    let plain = query(1, &name("a.org"), kind::TXT, false);
    let mut bytes = plain.clone();
    push_signature(&mut bytes, &name("key"), &signature);
    let read = Message::read(&bytes).unwrap();
    assert_eq!(read.signature(), Some((&name("key"), &signature)));
    assert_eq!(unsigned(&bytes, read.signature_at.unwrap(), 1).unwrap(), plain);
    push_signature(&mut bytes, &name("key"), &signature);
    assert_eq!(Message::read(&bytes).unwrap_err(), MessageError::Signature);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..700)) {
        let _read = Message::read(&bytes);
    }

    /// Those that a header promises much of.
    #[test]
    fn any_bytes_behind_a_header_are_read_or_refused(
        counts in any::<[u8; 4]>(),
        body in vec(prop_oneof![Just(0_u8), Just(1), Just(0xc0), Just(12), any::<u8>()], 0..700),
    ) {
        let mut bytes = header(0, 0x8000, counts.map(u16::from));
        bytes.extend(body);
        super::super::fuzzing::run(&bytes);
    }

    #[test]
    fn a_damaged_answer_is_read_or_refused(at in 0..200_usize, with in any::<u8>()) {
        let mut bytes = answer();
        let length = bytes.len();
        bytes[at % length] = with;
        super::super::fuzzing::run(&bytes);
    }

    #[test]
    fn what_is_built_is_read(label in "[a-z0-9_-]{1,63}", id in any::<u16>(), value in "[A-Za-z0-9_-]{1,255}") {
        let zone = name("example.org");
        let at = zone.below(&label).unwrap();
        let read = Message::read(&query(id, &at, kind::SOA, false)).unwrap();
        prop_assert_eq!((read.id, &read.questions[0].name), (id, &at));
        let read = Message::read(&update(id, &zone, Change::Add, &at, &value, 1)).unwrap();
        prop_assert_eq!(&read.authority[0].data, &Data::Text(value.into_bytes()));
    }
}
