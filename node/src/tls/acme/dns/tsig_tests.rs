#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::{prelude::*, sample::Index};

use super::super::message::{Change, update};
use super::*;

const NOW: u64 = 1_800_000_000;

fn key(secret: &[u8], algorithm: TsigAlgorithm) -> Key {
    Key::new("Hearth-Key".parse().unwrap(), algorithm, Zeroizing::new(secret.to_vec()))
}

fn ours() -> Key {
    key(&[7; 32], TsigAlgorithm::HmacSha256)
}

fn request() -> Vec<u8> {
    let zone: Name = "example.org".parse().unwrap();
    update(77, &zone, Change::Add, &zone.below("_acme-challenge").unwrap(), "value", 60)
}

/// What a server with that key answers to a request of that code, with what it says of it.
fn answer(key: &Key, code: &[u8], error: u16, other: &[u8], at: u64) -> Vec<u8> {
    let mut bytes = request();
    bytes[2] |= 0x80;
    let mut signature = Signature {
        algorithm: key.algorithm_name().unwrap(),
        time: at,
        fudge: FUDGE,
        mac: Vec::new(),
        original_id: 77,
        error,
        other: other.to_vec(),
    };
    let covered = key.covered(code, &bytes, &signature);
    if !matches!(error, 16 | 17) {
        signature.mac = hmac::sign(&key.hmac(), &covered).as_ref().to_vec();
    }
    push_signature(&mut bytes, &key.name, &signature);
    bytes
}

fn verify(bytes: &[u8], code: &[u8]) -> Result<(), TsigError> {
    ours().verify(bytes, &Message::read(bytes).unwrap(), code, NOW)
}

#[test]
fn a_request_is_signed_over_all_that_it_says() {
    for algorithm in [TsigAlgorithm::HmacSha256, TsigAlgorithm::HmacSha384, TsigAlgorithm::HmacSha512] {
        let key = key(&[1; 64], algorithm);
        let mut bytes = request();
        let code = key.sign(&mut bytes, NOW);
        let read = Message::read(&bytes).unwrap();
        let (name, signature) = read.signature().unwrap();
        assert_eq!((name, &signature.mac, signature.time), (&key.name, &code, NOW));
        // A server makes the same code of what it reads.
        let whole = unsigned(&bytes, read.signature_at.unwrap(), 77).unwrap();
        assert_eq!(whole, request());
        assert!(hmac::verify(&key.hmac(), &key.covered(&[], &whole, signature), &code).is_ok());
    }
}

#[test]
fn an_answer_counts_when_its_signature_fits_it_and_the_request() {
    let code = ours().sign(&mut request(), NOW);
    let good = answer(&ours(), &code, 0, &[], NOW - 300);
    assert_eq!(verify(&good, &code), Ok(()));
    // The number may be changed on the way by whoever passes messages on.
    let mut passed = good.clone();
    passed[0] ^= 1;
    assert_eq!(verify(&passed, &code), Ok(()));
    let mut changed = good.clone();
    changed[3] ^= 5;
    assert_eq!(verify(&changed, &code), Err(TsigError::Forged));
    assert_eq!(verify(&good, &[0; 32]), Err(TsigError::Forged), "of another request");
    for other in [key(&[8; 32], TsigAlgorithm::HmacSha256), key(&[7; 32], TsigAlgorithm::HmacSha512)] {
        assert_eq!(verify(&answer(&other, &code, 0, &[], NOW), &code), Err(TsigError::Forged));
    }
    assert_eq!(verify(&request(), &code), Err(TsigError::Unsigned));
}

#[test]
fn a_code_that_is_cut_is_another_one() {
    let code = ours().sign(&mut request(), NOW);
    let bytes = answer(&ours(), &code, 0, &[], NOW);
    let read = Message::read(&bytes).unwrap();
    for length in [0, 1, 16, 31] {
        let mut cut = unsigned(&bytes, read.signature_at.unwrap(), 77).unwrap();
        let (name, signature) = read.signature().unwrap();
        let mut signature = signature.clone();
        signature.mac.truncate(length);
        push_signature(&mut cut, name, &signature);
        assert_eq!(verify(&cut, &code), Err(TsigError::Forged), "{length}");
    }
}

#[test]
fn an_answer_of_another_time_does_not_count() {
    let code = ours().sign(&mut request(), NOW);
    for (at, away) in [(NOW - 301, 301), (NOW + 4_000, 4_000)] {
        assert_eq!(verify(&answer(&ours(), &code, 0, &[], at), &code), Err(TsigError::Stale(away)));
    }
}

#[test]
fn what_the_server_says_of_the_signature_is_told_with_the_way_out() {
    let code = ours().sign(&mut request(), NOW);
    let late = (NOW + 5_000).to_be_bytes();
    for (error, other, text) in [
        (16, &[][..], "another secret for the key hearth-key (BADSIG)"),
        (17, &[], "not accept the key hearth-key of hmac-sha256 for this (BADKEY)"),
        (18, &late[2..], "differs from ours by 5000 s (BADTIME)"),
        (22, &[], "error 22"),
    ] {
        let told = verify(&answer(&ours(), &code, error, other, NOW), &code).unwrap_err().to_string();
        assert!(told.contains(text), "{told}");
    }
}

#[test]
fn a_key_does_not_show_its_secret() {
    let shown = format!("{:?}", key(b"not to be seen...", TsigAlgorithm::HmacSha256));
    assert!(shown.contains("hearth-key") && !shown.contains("seen") && !shown.contains("110"), "{shown}");
}

proptest! {
    /// Only the number may change on the way, which names no record.
    #[test]
    fn an_answer_that_was_changed_anywhere_does_not_count(at in any::<Index>(), flip in 1..=255_u8) {
        let code = ours().sign(&mut request(), NOW);
        let good = answer(&ours(), &code, 0, &[], NOW);
        prop_assert_eq!(verify(&good, &code), Ok(()));
        let mut bad = good.clone();
        let at = 2 + at.index(bad.len() - 2);
        bad[at] ^= flip;
        if let Ok(read) = Message::read(&bad) {
            let counts = ours().verify(&bad, &read, &code, NOW).is_ok();
            // Names are the same in capitals, and nobody covers the class and the life of the signature's own record.
            let is_same = read == Message::read(&good).unwrap();
            prop_assert!(!counts || is_same, "byte {at} flipped by {flip:#x}");
        }
    }
}
