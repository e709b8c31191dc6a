//! The simulated network: links with windows, delay, loss, reordering, cuts.

use std::collections::{BTreeMap, BTreeSet};

use mesh_proto::{mesh::Transmit, session};

use super::rng::Rng;

/// How the network treats what it carries.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    /// Shortest and longest delay, in milliseconds.
    pub(crate) delay: (u64, u64),
    /// Frames arrive in order and none is lost, as over QUIC. If not, they are delayed
    /// independently.
    pub(crate) ordered: bool,
    /// Frames lost, in percent; only when not ordered.
    pub(crate) loss: u64,
    /// Frames that arrive twice, in percent; only when not ordered.
    pub(crate) duplicates: u64,
    /// Packets lost, in percent.
    pub(crate) packet_loss: u64,
    /// Frames in flight per direction before a link has no room.
    pub(crate) window: usize,
}

impl Transport {
    /// A healthy LAN.
    pub(crate) fn calm() -> Self {
        Self { delay: (1, 5), ordered: true, loss: 0, duplicates: 0, packet_loss: 0, window: 32 }
    }
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Coming,
    Up,
    Down,
}

/// A connection between two nodes.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) nodes: [usize; 2],
    pub(crate) epochs: [u32; 2],
    pub(crate) ends: [End; 2],
    /// Which end dialed.
    pub(crate) dialer: usize,
    /// What carries it.
    pub(crate) carrier: session::Transport,
    /// Frames under way from each end.
    pub(crate) in_flight: [usize; 2],
    /// When the last frame from each end arrives.
    last_at: [u64; 2],
    /// What arrived at an end before it was up.
    pub(crate) early: [Vec<Transmit>; 2],
    /// Frames from each end that a cut holds up.
    stalled: [Vec<Vec<u8>>; 2],
}

impl Link {
    /// Which end of the link a node is.
    pub(crate) fn end_of(&self, node: usize) -> usize {
        usize::from(self.nodes[1] == node)
    }

    /// When all that was sent from an end has arrived.
    pub(crate) fn drained_at(&self, end: usize) -> u64 {
        self.last_at[end]
    }
}

/// Something that is to arrive: at which time, at which end, what. A lost frame arrives as
/// nothing, and gives its room in the window back.
pub(crate) type Arrival = (u64, usize, Option<Transmit>, bool);

/// All links and cuts.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) transport: Transport,
    pub(crate) links: BTreeMap<u64, Link>,
    /// Directions in which nothing passes.
    cuts: BTreeSet<(usize, usize)>,
    last_link: u64,
    /// How many links there have ever been.
    pub(crate) created: u64,
}

impl Net {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport, links: BTreeMap::new(), cuts: BTreeSet::new(), last_link: 0, created: 0 }
    }

    /// Adds a link whose ends are still to come up.
    pub(crate) fn connect(
        &mut self,
        [dialer, other]: [usize; 2],
        epochs: [u32; 2],
        carrier: session::Transport,
    ) -> u64 {
        self.last_link += 1;
        self.created += 1;
        self.links.insert(
            self.last_link,
            Link {
                nodes: [dialer, other],
                epochs,
                ends: [End::Coming; 2],
                dialer: 0,
                carrier,
                in_flight: [0; 2],
                last_at: [0; 2],
                early: [Vec::new(), Vec::new()],
                stalled: [Vec::new(), Vec::new()],
            },
        );
        self.last_link
    }

    /// Whether any link, coming or up at either end, joins two nodes.
    pub(crate) fn are_joined(&self, a: usize, b: usize) -> bool {
        self.links.values().any(|link| {
            (link.nodes == [a, b] || link.nodes == [b, a]) && link.ends.iter().any(|end| *end != End::Down)
        })
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Ends all cuts. Returns the arrivals of what they held up, by link.
    pub(crate) fn heal(&mut self, now: u64, rng: &mut Rng) -> Vec<(u64, Arrival)> {
        self.cuts.clear();
        let mut all = Vec::new();
        for (id, link) in &mut self.links {
            for end in 0..2 {
                for frame in std::mem::take(&mut link.stalled[end]) {
                    let at = (now + rng.between(self.transport.delay)).max(link.last_at[end]);
                    link.last_at[end] = at;
                    all.push((*id, (at, 1 - end, Some(Transmit::Frame(frame)), true)));
                }
            }
        }
        all
    }

    /// Puts something on its way from an end of a link.
    pub(crate) fn send(
        &mut self,
        now: u64,
        id: u64,
        end: usize,
        what: Transmit,
        rng: &mut Rng,
    ) -> Vec<Arrival> {
        let transport = self.transport.clone();
        let cut = {
            let Some(link) = self.links.get(&id) else { return Vec::new() };
            self.is_cut(link.nodes[end], link.nodes[1 - end])
        };
        let Some(link) = self.links.get_mut(&id) else { return Vec::new() };
        let to = 1 - end;
        let at = now + rng.between(transport.delay);
        match what {
            Transmit::Packet(_) if cut || rng.percent(transport.packet_loss) => Vec::new(),
            Transmit::Packet(_) => vec![(at, to, Some(what), false)],
            Transmit::Frame(frame) => {
                link.in_flight[end] += 1;
                if transport.ordered {
                    if cut || !link.stalled[end].is_empty() {
                        link.stalled[end].push(frame);
                        return Vec::new();
                    }
                    let at = at.max(link.last_at[end]);
                    link.last_at[end] = at;
                    return vec![(at, to, Some(Transmit::Frame(frame)), true)];
                }
                link.last_at[end] = link.last_at[end].max(at);
                if cut || rng.percent(transport.loss) {
                    return vec![(at, to, None, true)];
                }
                let mut arrivals = Vec::new();
                if rng.percent(transport.duplicates) {
                    let again = at + rng.between((0, 500));
                    arrivals.push((again, to, Some(Transmit::Frame(frame.clone())), false));
                }
                arrivals.push((at, to, Some(Transmit::Frame(frame)), true));
                arrivals
            }
        }
    }
}
