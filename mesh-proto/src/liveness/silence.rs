//! Links that fell silent.
//!
//! `foca` probes its members one after the other, in random order: where few are left to probe many, as at the edge
//! of a site whose joint died, the turn of the dead one may come last. So whoever is linked and silent is asked at
//! once, and asked for through others; if no answer comes it is suspected, and has the usual time to object.

use alloc::{collections::BTreeMap, vec::Vec};
use core::cmp::Reverse;

use foca::{Header, Member, Message, ProbeNumber, State};

use super::{
    packet::Packet,
    swim::{Identity, Link, Swim},
    tuning::{PROBE_RTT_MS, suspicion_ms},
};
use crate::id::ShortId;

/// A linked peer that was not heard for this long, in milliseconds, is asked...
const SILENT_MS: u64 = 500;
/// ...and for so much longer with each link beyond these: many neighbours probe in turn, and find the dead soon enough.
const SILENT_MS_PER_LINK: u64 = 250;
const FEW_LINKS: usize = 4;
/// Asked so often, and each time given as long as a probe is.
const ASKS: u32 = 3;

/// So many others are asked to ping a silent peer too.
const HELPERS: usize = 3;
/// The number of a ping outside of `foca`'s probes. Should a probe through others have it too, an answer may stand
/// for the wrong one of both: its target is then probed again a round later.
const UNNUMBERED: ProbeNumber = 0;

/// What is known of a linked peer by what was last heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// It spoke at this time, or another one just vouched for it.
    Since(u64),
    /// It was asked so often, and is waited for until then.
    Asked { times: u32, until: u64 },
    /// It is suspected in this incarnation of `foca`'s, and has until then to object.
    Suspected { incarnation: u16, until: u64 },
}

/// What is to be done about a silent peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask it: alone, or also through others.
    Ask { others: bool },
    /// Suspect it.
    Suspect,
    /// It is down unless it objected in a later incarnation than this.
    Judge { incarnation: u16 },
}

impl Silence {
    /// When something is to be done, with so many links.
    pub(super) fn due(self, links: usize) -> u64 {
        match self {
            Self::Since(at) => {
                let more = u64::try_from(links.saturating_sub(FEW_LINKS)).unwrap_or(u64::MAX);
                at.saturating_add(SILENT_MS).saturating_add(SILENT_MS_PER_LINK.saturating_mul(more))
            }
            Self::Asked { until, .. } | Self::Suspected { until, .. } => until,
        }
    }

    /// What that is. Asking changes the state; the other steps are answered by whoever takes them.
    pub(super) fn step(&mut self, now: u64) -> Step {
        let times = match *self {
            Self::Since(_) => 0,
            Self::Asked { times, .. } => times,
            Self::Suspected { incarnation, .. } => return Step::Judge { incarnation },
        };
        if times == ASKS {
            return Step::Suspect;
        }
        *self = Self::Asked { times: times + 1, until: now + PROBE_RTT_MS };
        Step::Ask { others: times > 0 }
    }

    /// This node itself stalled: a silence counts from now on, a suspect has its time (`suspicion_ms`) again.
    pub(super) fn excuse(&mut self, now: u64, suspicion_ms: u64) {
        *self = match *self {
            Self::Since(_) | Self::Asked { .. } => Self::Since(now),
            Self::Suspected { incarnation, .. } => Self::Suspected { incarnation, until: now + suspicion_ms },
        };
    }
}

impl Swim {
    /// The linked peers that are alive, and when the silence of each is due for its next step.
    pub(super) fn silences(&self) -> impl Iterator<Item = (ShortId, u64)> {
        let watched = |(peer, link): (&ShortId, &Link)| link.silence.map(|silence| (*peer, silence));
        let links = self.links.values().filter(|link| link.silence.is_some()).count();
        let alive = self.links.iter().filter_map(watched).filter(|(peer, _)| self.alive.contains_key(peer));
        alive.map(move |(peer, silence)| (peer, silence.due(links)))
    }

    /// What the sender of a packet that was taken in proves by it: that it lives, that another one does, or that it
    /// got the announcement.
    pub(super) fn listen(&mut self, header: &Header<Identity>) {
        let sender = header.src;
        let known = self.member(sender.node).filter(|member| *member.id() == sender);
        let Some(member) = known.filter(|_| header.dst == *self.foca.identity()) else { return };
        heard(&mut self.links, sender.node, self.io.now);
        if header.message == Message::Feed
            && let Some(link) = self.links.get_mut(&sender.node)
        {
            link.due = None;
        }
        if let Message::ForwardedAck { origin, .. } = &header.message
            && self.alive.get(&origin.node) == Some(origin)
        {
            heard(&mut self.links, origin.node, self.io.now);
        }
        // Who speaks and is suspected may not know it: the gossip of that went out while nothing reached it.
        if member.state() == State::Suspect {
            self.say(sender, Message::Gossip, Vec::from([member]));
        }
    }

    /// Asks, suspects and gives up linked peers that are silent.
    pub(super) fn mind_silence(&mut self) {
        let now = self.io.now;
        let due: Vec<ShortId> =
            self.silences().filter(|(_, due)| *due <= now).map(|(peer, _)| peer).collect();
        for node in due {
            let Some(silence) = self.links.get_mut(&node).and_then(|link| link.silence.as_mut()) else {
                continue;
            };
            let step = silence.step(now);
            let Some(member) = self.member(node) else { continue };
            match step {
                Step::Ask { others } => self.ask(*member.id(), others),
                Step::Suspect => self.suspect(member),
                Step::Judge { incarnation } if incarnation == member.incarnation() => {
                    self.give_up(*member.id())
                }
                Step::Judge { .. } => heard(&mut self.links, node, now),
            }
        }
    }

    /// Pings a silent peer, and has those ping it that this node heard from last.
    fn ask(&mut self, silent: Identity, others: bool) {
        self.say(silent, Message::Ping(UNNUMBERED), Vec::new());
        if !others {
            return;
        }
        let heard = |link: &Link| match link.silence {
            Some(Silence::Since(at)) => Some(Reverse(at)),
            _ => None,
        };
        let helper = |(node, link): (&ShortId, &Link)| Some((heard(link)?, *self.alive.get(node)?));
        let mut helpers: Vec<_> = self.links.iter().filter_map(helper).collect();
        helpers.sort_unstable();
        for (_, helper) in helpers.into_iter().take(HELPERS) {
            let request = Message::PingReq { target: silent, probe_number: UNNUMBERED };
            self.say(helper, request, Vec::new());
        }
    }

    fn suspect(&mut self, silent: Member<Identity>) {
        let (node, incarnation) = (silent.id().node, silent.incarnation());
        let suspect = Member::new(*silent.id(), incarnation, State::Suspect);
        self.tell(|foca, io| foca.apply_many(core::iter::once(suspect), true, io));
        let until = self.io.now + suspicion_ms(self.alive.len());
        if let Some(link) = self.links.get_mut(&node) {
            link.silence = Some(Silence::Suspected { incarnation, until });
        }
    }

    /// It did not object: it is down, and told so in case that it still hears.
    fn give_up(&mut self, silent: Identity) {
        self.tell(|foca, io| foca.apply_many(core::iter::once(Member::down(silent)), true, io));
        self.say(silent, Message::TurnUndead, Vec::new());
    }

    /// Sends a message outside of what `foca` itself has to say.
    fn say(&mut self, to: Identity, message: Message<Identity>, updates: Vec<Member<Identity>>) {
        if let Some(packet) = self.packet(to, message, updates) {
            self.io.send(to.node, packet);
        }
    }

    pub(super) fn packet(
        &self,
        to: Identity,
        message: Message<Identity>,
        updates: Vec<Member<Identity>>,
    ) -> Option<Vec<u8>> {
        let header = Header { src: *self.foca.identity(), src_incarnation: 0, dst: to, message };
        Packet { header, updates }.encode().ok()
    }
}

/// A peer spoke, or another one vouches for it.
pub(super) fn heard(links: &mut BTreeMap<ShortId, Link>, node: ShortId, now: u64) {
    if let Some(silence) = links.get_mut(&node).and_then(|link| link.silence.as_mut()) {
        *silence = Silence::Since(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_asked_three_times_then_suspected_then_judged() {
        let mut silence = Silence::Since(1_000);
        assert_eq!((silence.due(1), silence.due(4), silence.due(16)), (1_500, 1_500, 4_500));
        for (now, others) in [(1_500, false), (1_625, true), (1_750, true)] {
            assert_eq!((silence.due(1), silence.step(now)), (now, Step::Ask { others }));
        }
        assert_eq!((silence.due(1), silence.step(1_875)), (1_875, Step::Suspect));
        silence = Silence::Suspected { incarnation: 3, until: 3_375 };
        assert_eq!((silence.due(1), silence.step(3_375)), (3_375, Step::Judge { incarnation: 3 }));
    }

    #[test]
    fn a_stall_of_this_node_is_held_against_nobody() {
        for mut silence in [Silence::Since(1_000), Silence::Asked { times: 3, until: 1_125 }] {
            silence.excuse(9_000, 1_500);
            assert_eq!(silence, Silence::Since(9_000));
        }
        let mut suspected = Silence::Suspected { incarnation: 3, until: 1_500 };
        suspected.excuse(9_000, 1_500);
        assert_eq!(suspected, Silence::Suspected { incarnation: 3, until: 10_500 });
    }
}
