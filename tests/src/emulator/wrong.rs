//! Answers as no bulb should send them, made from the ones that a bulb sends.

/// How many ways there are.
pub const WAYS: usize = 18;

/// Of a header: its length, and where the fields are that are falsified.
const HEADER: usize = 36;
const SOURCE: usize = 4;
const TARGET: usize = 8;
const SEQUENCE: usize = 23;
const KIND: usize = 32;
const LABEL: usize = HEADER + 12;

/// What comes instead of `answer`, in the way of that number below [`WAYS`].
#[must_use]
pub fn answers(way: usize, answer: &[u8]) -> Vec<Vec<u8>> {
    let body = |with: &[u8]| sized([answer.get(..HEADER).unwrap_or_default(), with].concat());
    let length = answer.len().saturating_sub(HEADER);
    match way {
        0 => vec![Vec::new()],
        1 => vec![answer.iter().copied().take(10).collect()],
        2 => vec![answer.iter().copied().take(answer.len() - 1).collect()],
        3 => vec![sized(answer.iter().copied().take(answer.len() - 1).collect())],
        4 => vec![sized([answer, &[0; 1_400]].concat())],
        5 => vec![body(&vec![0; length])],
        6 => vec![body(&vec![0xff; length])],
        7 => vec![changed(answer, SOURCE, 0x55)],
        8 => vec![changed(answer, TARGET + 5, 0x55)],
        9 => vec![changed(answer, SEQUENCE, 0x55)],
        10 => vec![changed(answer, KIND, 0x55)],
        11 => vec![changed(answer, 3, 0x80)], // not addressed
        12 => vec![answer.to_vec(); 50],
        13 => vec![sized(kind(answer, 45, &[]))],
        14 => vec![sized(kind(answer, 223, &[101, 0])), sized(kind(answer, 223, &[0xfe, 1]))],
        15 => vec![noise(answer)],
        // A label that would be seen on a terminal, and one that is no text.
        16 => vec![overwritten(answer, LABEL, b"\x1b[2J\x1b[1;31m")],
        _ => vec![overwritten(answer, LABEL, &[0xc3, 0x28, 0xff, 0xfe])],
    }
}

/// With the length that it has.
fn sized(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
    for (byte, value) in bytes.iter_mut().zip(length) {
        *byte = value;
    }
    bytes
}

fn changed(answer: &[u8], at: usize, by: u8) -> Vec<u8> {
    answer.iter().enumerate().map(|(index, byte)| if index == at { byte ^ by } else { *byte }).collect()
}

fn overwritten(answer: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = answer.to_vec();
    for (byte, value) in bytes.iter_mut().skip(at).zip(with) {
        *byte = *value;
    }
    bytes
}

/// The same header, with another message.
fn kind(answer: &[u8], kind: u16, body: &[u8]) -> Vec<u8> {
    let header: Vec<u8> = answer.iter().copied().take(HEADER).collect();
    [overwritten(&header, KIND, &kind.to_le_bytes()).as_slice(), body].concat()
}

fn noise(answer: &[u8]) -> Vec<u8> {
    let mut state = u64::try_from(answer.len()).unwrap_or(1) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    answer.iter().map(|_| next()).collect()
}
