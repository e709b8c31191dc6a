//! One link to a peer: the introduction, and what is under way over the link.

use alloc::{collections::BTreeSet, string::String, vec::Vec};

use crate::{
    counters::Counter,
    id::{NodeId, ShortId},
    outbox::Outbox,
    overlay::Run,
    roster::{MAX_PROOF_BYTES, Roster},
    sync::{LeafAnswer, Repetition, Serve, Telling},
    time::{Now, TimeOfDay},
    vector::Vector,
    wire::{ByeReason, Hello, OLDEST_PROTOCOL, PROTOCOL, Process, WireVector},
};

/// Names a link; the caller chooses the number and never uses one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What carries a link, the worse first. The frames are the same on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A WebSocket over TLS and TCP, for networks that drop UDP.
    WebSocket,
    /// QUIC over UDP.
    Quic,
}

/// The last millisecond that a stamp can hold.
pub const MAX_TIME_MS: u64 = (1 << 48) - 1;
/// A link on which no introduction has arrived by then is closed, in milliseconds.
pub const HELLO_PATIENCE_MS: u64 = 10_000;

/// What is known of the peer once it has introduced itself.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its run.
    pub run: Run,
    /// Its software.
    pub software: String,
    /// What it last said of the time.
    pub time: TimeOfDay,
    /// When that came, on the clock that never goes back, in milliseconds.
    pub time_at_ms: u64,
}

impl Peer {
    /// Its time of day now, in milliseconds since 1970.
    pub fn time_ms(&self, now: Now) -> u64 {
        self.time.ms.saturating_add(now.mono_ms.saturating_sub(self.time_at_ms))
    }
}

/// A peer's state, offered in place of a store that was set back.
#[derive(Debug)]
pub struct Offer {
    /// The hash of its vector.
    pub vector: [u8; 8],
    /// How many writes it does not account for that it should.
    pub lacking: u64,
}

/// A link.
#[derive(Debug)]
pub struct Link {
    /// The key that the transport verified.
    pub node: NodeId,
    /// Whether this side dialed.
    pub dialed: bool,
    /// What carries it.
    pub transport: Transport,
    /// Whether the transport hears nothing of the peer although it asked.
    pub is_silent: bool,
    /// Whether the peer has shown that it took in this side's introduction.
    pub is_confirmed: bool,
    /// Set once another link is kept instead: until then what is under way is still taken in.
    pub drain_due_ms: Option<u64>,
    /// The peer, after its introduction was accepted.
    pub peer: Option<Peer>,
    /// The peer's process, as it said before its introduction; nothing of older software.
    pub process: Option<Process>,
    /// When something last came over the link, on the clock that never goes back, in milliseconds.
    pub heard_ms: u64,
    /// What waits to be sent.
    pub outbox: Outbox,
    /// The peer's question, until there is room to answer it: its number, and what the peer has.
    pub wanted: Option<(u32, WireVector)>,
    /// The answer under way to the peer's question.
    pub serve: Option<Serve>,
    /// Registers of differing leaves under way to the peer.
    pub leaves: Option<LeafAnswer>,
    /// Nodes whose newest reports the peer is to hear.
    pub reports: BTreeSet<ShortId>,
    /// Acknowledgements owed while this node's store catches up.
    pub owed_acks: Vec<(u32, u32)>,
    /// Whether the peer holds writes that are missing here.
    pub has_missing: bool,
    /// Whether the peer's store is being replaced, so that it answers nobody.
    pub is_restoring: bool,
    /// What the peer once offered in place of a store that was set back.
    pub offer: Option<Offer>,
    /// Whether the peer's last digest said that it accounts for the same writes.
    pub in_step: bool,
    /// What the peer last said it accounts for.
    pub heads: Option<Vector>,
    /// Whether this side is to send its heads, once it may again.
    pub heads_wanted: bool,
    /// Whether it was to send them since its last digest: it answers heads with its own but once.
    pub heads_said: bool,
    /// When it may send them next.
    pub heads_free_ms: u64,
    /// The whole overlay, on its way to the peer.
    pub telling: Option<Telling>,
    /// When the whole overlay is to be said again.
    pub repetition: Repetition,
    /// The last suspicion looked into over this link, and how many more roots to send for it.
    pub suspicion: (u32, u8),
    /// Whether this side sent a tree root and owes its leaves to a peer whose root differs.
    pub tree_asked: bool,
    /// Whether this side sent its leaves, so that the peer may send registers of those that differ.
    pub leaves_sent: bool,
    /// When the next digest goes out.
    pub digest_due_ms: u64,
    /// When the link is closed unless the peer has introduced itself.
    pub hello_due_ms: u64,
}

impl Link {
    /// A link that has just come up.
    pub fn new(node: NodeId, dialed: bool, transport: Transport, now_ms: u64, outbox: Outbox) -> Self {
        Self {
            node,
            dialed,
            transport,
            is_silent: false,
            is_confirmed: false,
            drain_due_ms: None,
            peer: None,
            process: None,
            heard_ms: now_ms,
            outbox,
            wanted: None,
            serve: None,
            leaves: None,
            reports: BTreeSet::new(),
            owed_acks: Vec::new(),
            has_missing: false,
            is_restoring: false,
            offer: None,
            in_step: false,
            heads: None,
            heads_wanted: false,
            heads_said: false,
            heads_free_ms: 0,
            telling: None,
            repetition: Repetition::default(),
            suspicion: (0, 0),
            tree_asked: false,
            leaves_sent: false,
            digest_due_ms: 0,
            hello_due_ms: now_ms + HELLO_PATIENCE_MS,
        }
    }

    /// The peer's short name.
    pub fn short(&self) -> ShortId {
        self.node.short()
    }

    /// When there is something to say by the clock, the peer having introduced itself.
    pub fn says_next(&self) -> u64 {
        if self.heads_wanted { self.digest_due_ms.min(self.heads_free_ms) } else { self.digest_due_ms }
    }

    /// Has the whole overlay said, but for what the peer itself says if it has just begun.
    pub fn tell_overlay(&mut self, but_of: Option<ShortId>) {
        match &mut self.telling {
            Some(telling) => telling.begin_again(),
            None => self.telling = Some(Telling::new(but_of)),
        }
    }

    /// Drops every answer that is under way: the link ends.
    pub fn drop_answers(&mut self) {
        self.telling = None;
        self.wanted = None;
        self.serve = None;
        self.leaves = None;
        self.reports.clear();
        self.owed_acks.clear();
    }

    /// Whether both sides have been introduced and no other link is kept instead.
    pub fn is_live(&self) -> bool {
        self.peer.is_some() && self.drain_due_ms.is_none()
    }
}

/// Why an introduction is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What the peer is told.
    pub reason: ByeReason,
    /// What is counted.
    pub counter: Counter,
}

/// Checks an introduction: household, name, protocol, membership. Statements that prove the
/// peer's membership are taken into the roster first.
///
/// # Errors
/// [`Refusal`] says what to tell the peer and what to count; only the roster may have changed.
pub fn check_hello(hello: &Hello, link: NodeId, roster: &mut Roster) -> Result<(), Refusal> {
    let refuse = |reason, counter| Err(Refusal { reason, counter });
    if hello.household != roster.household() {
        return refuse(ByeReason::WrongHousehold, Counter::WrongHousehold);
    }
    if hello.node != link {
        return refuse(ByeReason::Misbehaved, Counter::WrongIdentity);
    }
    if hello.time.ms > MAX_TIME_MS {
        return refuse(ByeReason::Misbehaved, Counter::BadValue);
    }
    if hello.protocol < OLDEST_PROTOCOL {
        return refuse(ByeReason::TooOld, Counter::WrongProtocol);
    }
    if hello.oldest > PROTOCOL {
        return refuse(ByeReason::TooNew, Counter::WrongProtocol);
    }
    let proof: usize = hello.proof.iter().map(Vec::len).sum();
    if proof > MAX_PROOF_BYTES {
        return refuse(ByeReason::Misbehaved, Counter::BadStatement);
    }
    if !roster.is_admitted(&link) {
        for statement in &hello.proof {
            // What does not help to admit the peer is judged by the admission below.
            let _ = roster.insert(statement);
        }
    }
    if roster.is_revoked(&link) {
        return refuse(ByeReason::Revoked, Counter::Revoked);
    }
    if !roster.is_admitted(&link) {
        return refuse(ByeReason::NotAdmitted, Counter::NotAdmitted);
    }
    Ok(())
}
