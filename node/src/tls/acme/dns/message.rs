//! DNS messages (RFC 1035, section 4): queries and updates are built, answers are read. Pure: bytes to values and back.
//!
//! What is read comes from strangers: every length is checked, and following compressed names always ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use super::name::{MAX_BYTES, Name};

/// The length of a header, in bytes.
pub(super) const HEADER: usize = 12;
/// How often a name may jump: as often as it can have labels.
const MAX_JUMPS: u8 = 128;
/// Where in a header the count of additional records stands.
const ADDITIONAL_COUNT: usize = 10;

/// The types of records that we know (RFC 1035, section 3.2.2; RFC 3596; RFC 8945).
pub(super) mod kind {
    /// An IPv4 address.
    pub(crate) const A: u16 = 1;
    /// An authoritative server.
    pub(crate) const NS: u16 = 2;
    /// Another name for this one.
    pub(crate) const CNAME: u16 = 5;
    /// The beginning of a zone.
    pub(crate) const SOA: u16 = 6;
    /// Text.
    pub(crate) const TXT: u16 = 16;
    /// An IPv6 address.
    pub(crate) const AAAA: u16 = 28;
    /// The signature of a message.
    pub(crate) const TSIG: u16 = 250;
}

/// The classes of records (RFC 1035, section 3.2.4; RFC 2136, section 2.4).
pub(super) mod class {
    /// The Internet.
    pub(crate) const IN: u16 = 1;
    /// In an update: delete exactly this record.
    pub(crate) const NONE: u16 = 254;
    /// What belongs to no class.
    pub(crate) const ANY: u16 = 255;
}

/// How a question was answered (RFC 1035, section 4.1.1; RFC 2136, section 2.2).
pub(super) mod rcode {
    /// It was.
    pub(crate) const NOERROR: u8 = 0;
    /// There is no such name.
    pub(crate) const NXDOMAIN: u8 = 3;
    /// By its own rules the server does not.
    pub(crate) const REFUSED: u8 = 5;
    /// The server does not keep that zone, or does not know who asks.
    pub(crate) const NOTAUTH: u8 = 9;
    /// The name lies outside the zone.
    pub(crate) const NOTZONE: u8 = 10;
}

/// What a code is called, for people.
pub(super) fn rcode_name(code: u8) -> &'static str {
    match code {
        rcode::NOERROR => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        rcode::NXDOMAIN => "NXDOMAIN",
        4 => "NOTIMP",
        rcode::REFUSED => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        rcode::NOTAUTH => "NOTAUTH",
        rcode::NOTZONE => "NOTZONE",
        _ => "an unknown code",
    }
}

/// Why bytes are no DNS message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MessageError {
    /// It ends in the middle of something.
    #[error("the message is cut off")]
    Short,
    /// A compressed name that points forward or at itself, or jumps too often.
    #[error("a name points forward, at itself, or on and on")]
    Pointer,
    /// A name longer than 255 bytes, or with a label of a kind that does not exist.
    #[error("a name breaks the rules of names")]
    Name,
    /// The data of a record has another length than its type has.
    #[error("the data of a record has a wrong length")]
    Data,
    /// A signature that is not the last record, or not alone.
    #[error("a signature is not the last record")]
    Signature,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) kind: u16,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: Name,
    pub(super) data: Data,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    /// An address.
    Address(IpAddr),
    /// The name of a server.
    Server(Name),
    /// The name that this one stands for.
    Alias(Name),
    /// That a zone begins here.
    Zone,
    /// Text, its pieces joined (as RFC 7208, section 3.3, reads it).
    Text(Vec<u8>),
    /// The signature of the message.
    Signature(Signature),
    /// What we do not read.
    Other(u16),
}

/// The data of a TSIG record (RFC 8945, section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) algorithm: Name,
    /// In seconds since 1970, 48 bits.
    pub(super) time: u64,
    /// How many seconds a clock may be off.
    pub(super) fudge: u16,
    pub(super) mac: Vec<u8>,
    pub(super) original_id: u16,
    pub(super) error: u16,
    pub(super) other: Vec<u8>,
}

/// A message that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: u16,
    flags: u16,
    pub(super) questions: Vec<Question>,
    pub(super) answers: Vec<Record>,
    pub(super) authority: Vec<Record>,
    pub(super) additional: Vec<Record>,
    /// Where the signature begins, if there is one.
    pub(super) signature_at: Option<usize>,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// [`MessageError`].
    pub(super) fn read(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader { bytes, at: 0 };
        let (id, flags) = (reader.u16()?, reader.u16()?);
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let [questions, answers, authority, additional] = counts;
        // What a count says is never reserved: each record must be there first.
        let questions = (0..questions).map(|_| reader.question()).collect::<Result<_, _>>()?;
        let mut records = |count: u16| (0..count).map(|_| reader.record()).collect::<Result<Vec<_>, _>>();
        let (answers, authority) = (records(answers)?, records(authority)?);
        let mut signature_at = None;
        let mut rest = Vec::new();
        for _ in 0..additional {
            if signature_at.is_some() {
                return Err(MessageError::Signature);
            }
            let at = reader.at;
            let record = reader.record()?;
            signature_at = matches!(record.data, Data::Signature(_)).then_some(at);
            rest.push(record);
        }
        Ok(Self { id, flags, questions, answers, authority, additional: rest, signature_at })
    }

    /// Whether it is an answer.
    pub(super) fn is_answer(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Whether whoever answers keeps the zone.
    pub(super) fn is_authoritative(&self) -> bool {
        self.flags & 0x0400 != 0
    }

    /// Whether it did not fit into a datagram.
    pub(super) fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// How the question was answered.
    pub(super) fn rcode(&self) -> u8 {
        self.flags.to_be_bytes()[1] & 0x0f
    }

    /// The texts that answer: those at an alias stand beside it.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.answers.iter().filter_map(|record| match &record.data {
            Data::Text(text) => Some(text.as_slice()),
            _ => None,
        })
    }

    /// What a name stands for, if it is another name for something.
    pub(super) fn alias_of(&self, name: &Name) -> Option<&Name> {
        self.answers.iter().find_map(|record| match &record.data {
            Data::Alias(target) if record.name == *name => Some(target),
            _ => None,
        })
    }

    /// The zone that holds the name which was asked for.
    pub(super) fn zone_of(&self, name: &Name) -> Option<&Name> {
        let all = self.answers.iter().chain(&self.authority);
        all.filter(|record| record.data == Data::Zone)
            .map(|record| &record.name)
            .find(|zone| name.is_within(zone))
    }

    /// The servers of a zone.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Name> {
        self.answers.iter().filter_map(|record| match &record.data {
            Data::Server(server) => Some(server),
            _ => None,
        })
    }

    /// All addresses in the answer: those of an alias stand beside it.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.answers.iter().filter_map(|record| match record.data {
            Data::Address(address) => Some(address),
            _ => None,
        })
    }

    /// The signature, with the name of its key.
    pub(super) fn signature(&self) -> Option<(&Name, &Signature)> {
        self.additional.last().and_then(|record| match &record.data {
            Data::Signature(signature) => Some((&record.name, signature)),
            _ => None,
        })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MessageError> {
        let end = self.at.checked_add(count).ok_or(MessageError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(MessageError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        self.take(N)?.try_into().map_err(|_| MessageError::Short)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_be_bytes)
    }

    /// A name, its compression undone (RFC 1035, section 4.1.4). Each jump goes further back than the one before, so it
    /// ends; and both the jumps and what is gathered are bounded.
    fn name(&mut self) -> Result<Name, MessageError> {
        let mut labels: Vec<&[u8]> = Vec::new();
        let mut length = 1;
        let mut jumped = Reader { bytes: self.bytes, at: self.at };
        let mut after = None;
        let mut before = self.at;
        let mut jumps = 0;
        loop {
            let [first] = jumped.array()?;
            match first {
                0 => break,
                1..=63 => {
                    let label = jumped.take(first.into())?;
                    length += 1 + label.len();
                    if length > MAX_BYTES {
                        return Err(MessageError::Name);
                    }
                    labels.push(label);
                }
                0xc0.. => {
                    let [second] = jumped.array()?;
                    let target = usize::from(u16::from_be_bytes([first & 0x3f, second]));
                    jumps += 1;
                    if target >= before || jumps > MAX_JUMPS {
                        return Err(MessageError::Pointer);
                    }
                    after.get_or_insert(jumped.at);
                    before = target;
                    jumped.at = target;
                }
                _ => return Err(MessageError::Name),
            }
        }
        self.at = after.unwrap_or(jumped.at);
        Name::of_labels(labels).ok_or(MessageError::Name)
    }

    fn question(&mut self) -> Result<Question, MessageError> {
        let (name, kind, _class) = (self.name()?, self.u16()?, self.u16()?);
        Ok(Question { name, kind })
    }

    fn record(&mut self) -> Result<Record, MessageError> {
        let (name, kind, class) = (self.name()?, self.u16()?, self.u16()?);
        let _ttl: [u8; 4] = self.array()?;
        let length = self.u16()?;
        let end = self.at + usize::from(length);
        // Data ends where it says, and names in it may point to what stands before.
        let whole = self.bytes.get(..end).ok_or(MessageError::Short)?;
        let mut data = Reader { bytes: whole, at: self.at };
        let read = data.data(kind, class).map_err(|error| match error {
            MessageError::Short => MessageError::Data,
            other => other,
        })?;
        self.at = end;
        Ok(Record { name, data: read })
    }

    /// The data of a record, to the end of the bytes. What is deleted by an update has none.
    fn data(&mut self, kind: u16, class: u16) -> Result<Data, MessageError> {
        let data = match (kind, class) {
            (kind::A, class::IN) => Data::Address(Ipv4Addr::from(self.array::<4>()?).into()),
            (kind::AAAA, class::IN) => Data::Address(Ipv6Addr::from(self.array::<16>()?).into()),
            (kind::NS, class::IN) => Data::Server(self.name()?),
            (kind::CNAME, class::IN) => Data::Alias(self.name()?),
            (kind::TXT, class::IN | class::NONE) => Data::Text(self.text()?),
            (kind::TSIG, class::ANY) => Data::Signature(self.signature()?),
            (kind::SOA, class::IN) => {
                let _primary_and_mailbox = (self.name()?, self.name()?);
                let _numbers: [u8; 20] = self.array()?;
                Data::Zone
            }
            _ => return Ok(Data::Other(kind)),
        };
        if self.at == self.bytes.len() { Ok(data) } else { Err(MessageError::Data) }
    }

    fn text(&mut self) -> Result<Vec<u8>, MessageError> {
        let mut text = Vec::new();
        while self.at < self.bytes.len() {
            let [length] = self.array()?;
            text.extend(self.take(length.into())?);
        }
        Ok(text)
    }

    fn signature(&mut self) -> Result<Signature, MessageError> {
        let algorithm = self.name()?;
        let [a, b, c, d, e, f] = self.array()?;
        let (fudge, length) = (self.u16()?, self.u16()?);
        let mac = self.take(length.into())?.to_vec();
        let (original_id, error, length) = (self.u16()?, self.u16()?, self.u16()?);
        let other = self.take(length.into())?.to_vec();
        let time = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Ok(Signature { algorithm, time, fudge, mac, original_id, error, other })
    }
}

/// A query with one question (RFC 1035, section 4.1).
pub(super) fn query(id: u16, name: &Name, kind: u16, recursion: bool) -> Vec<u8> {
    let mut bytes = header(id, if recursion { 0x0100 } else { 0 }, [1, 0, 0, 0]);
    push_question(&mut bytes, name, kind);
    bytes
}

/// What an update does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Adds a record, beside others (RFC 2136, section 2.5.1).
    Add,
    /// Deletes exactly this record (RFC 2136, section 2.5.4).
    Delete,
}

/// An update that changes one text at a name (RFC 2136, section 2). The text is at most 255 bytes long.
pub(super) fn update(id: u16, zone: &Name, change: Change, name: &Name, text: &str, ttl: u32) -> Vec<u8> {
    const OPCODE: u16 = 5 << 11;
    let (class, ttl) = match change {
        Change::Add => (class::IN, ttl),
        Change::Delete => (class::NONE, 0),
    };
    let text = text.as_bytes().get(..text.len().min(255)).unwrap_or_default();
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    let mut bytes = header(id, OPCODE, [1, 0, 1, 0]);
    push_question(&mut bytes, zone, kind::SOA);
    bytes.extend(name.wire());
    bytes.extend(kind::TXT.to_be_bytes());
    bytes.extend(class.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((u16::from(length) + 1).to_be_bytes());
    bytes.push(length);
    bytes.extend(text);
    bytes
}

/// Appends a signature to a message, which must have its whole header.
pub(super) fn push_signature(bytes: &mut Vec<u8>, key: &Name, signature: &Signature) {
    let mut data = signature.algorithm.wire().to_vec();
    data.extend(signature.time.to_be_bytes().iter().skip(2));
    data.extend(signature.fudge.to_be_bytes());
    push_counted(&mut data, &signature.mac);
    data.extend(signature.original_id.to_be_bytes());
    data.extend(signature.error.to_be_bytes());
    push_counted(&mut data, &signature.other);
    bytes.extend(key.wire());
    bytes.extend(kind::TSIG.to_be_bytes());
    bytes.extend(class::ANY.to_be_bytes());
    bytes.extend(0_u32.to_be_bytes());
    push_counted(bytes, &data);
    set_additional(bytes, |count| count.wrapping_add(1));
}

/// What a signature covers of a message that was read: all before the signature, as if there were none, under the
/// number that it had first (RFC 8945, section 5.3).
pub(super) fn unsigned(bytes: &[u8], signature_at: usize, original_id: u16) -> Option<Vec<u8>> {
    let mut bytes = bytes.get(..signature_at).filter(|bytes| bytes.len() >= HEADER)?.to_vec();
    for (place, byte) in bytes.iter_mut().zip(original_id.to_be_bytes()) {
        *place = byte;
    }
    set_additional(&mut bytes, |count| count.wrapping_sub(1));
    Some(bytes)
}

fn set_additional(bytes: &mut [u8], change: impl Fn(u16) -> u16) {
    if let Some([high, low]) = bytes.get_mut(ADDITIONAL_COUNT..HEADER) {
        [*high, *low] = change(u16::from_be_bytes([*high, *low])).to_be_bytes();
    }
}

fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend(id.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    for count in counts {
        bytes.extend(count.to_be_bytes());
    }
    bytes
}

fn push_question(bytes: &mut Vec<u8>, name: &Name, kind: u16) {
    bytes.extend(name.wire());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(class::IN.to_be_bytes());
}

/// Bytes behind their count. What we send is far shorter than 64 KiB.
fn push_counted(bytes: &mut Vec<u8>, data: &[u8]) {
    let count = u16::try_from(data.len()).unwrap_or(u16::MAX);
    bytes.extend(count.to_be_bytes());
    bytes.extend(data.iter().take(count.into()));
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
