//! For the fuzz target, and for the properties of the tests: an answer of a name server, or of whoever pretends to be one.

use zeroize::Zeroizing;

use super::message::{Message, kind, query, unsigned};
use super::name::Name;
use super::tsig::Key;
use crate::config::TsigAlgorithm;

/// Reads an answer as the resolver, the updater and the checker of signatures do.
///
/// # Panics
/// When what is read is more than there is, is not what was written, or has a signature that nobody made.
pub fn run(data: &[u8]) {
    let Ok(read) = Message::read(data) else { return };
    assert!(read.texts().map(<[u8]>::len).sum::<usize>() <= data.len());
    assert!(read.addresses().count() <= data.len() / 4);
    let owners = read.questions.iter().map(|question| &question.name);
    for name in owners.chain(read.servers()) {
        let _zone_and_alias = (read.zone_of(name), read.alias_of(name));
        again(name);
    }
    let Some(name) = Name::of_labels([b"key".as_slice()]) else { return };
    let key = Key::new(name, TsigAlgorithm::HmacSha256, Zeroizing::new(vec![7; 32]));
    assert!(key.verify(data, &read, b"the request's", 1_800_000_000).is_err());
    if let (Some((_, signature)), Some(at)) = (read.signature(), read.signature_at)
        && let Some(whole) = unsigned(data, at, signature.original_id)
    {
        assert_eq!(whole.len(), at);
    }
}

/// A name that was read, written into a question of our own, is read as the same one; so is what people are shown, if it is plain.
fn again(name: &Name) {
    let asked = Message::read(&query(1, name, kind::TXT, false));
    assert!(asked.is_ok_and(|asked| asked.questions.first().map(|question| &question.name) == Some(name)));
    if let Ok(shown) = name.to_string().parse::<Name>() {
        assert_eq!(shown, *name);
    }
    assert!(name.is_within(name));
}
