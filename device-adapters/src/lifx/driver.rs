//! All LIFX hardware on the network: discovery, and which answer belongs to which piece of it. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::{Directive, Reading};
use crate::model::{DeviceId, Stage};

use super::ID;
use super::config::Config;
use super::hardware::Hardware;
use super::output::{Output, Transmit};
use super::pace::Timing;
use super::wire::{self, Incoming, Reply, Request, Serial, WireError};

/// The most pieces of hardware; a home has fewer, and what answers beyond that is noise or an attack.
const MOST_HARDWARE: usize = 512;
/// The most devices that may be owned before their hardware is found.
const MOST_EXPECTED: usize = 1_024;
/// The first pause between two rounds of discovery; it doubles up to the setting.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How many rounds of discovery may still be answered.
const OPEN_ROUNDS: usize = 4;
/// The service number of the protocol spoken here.
const SERVICE_UDP: u8 = 1;

/// What was received and not used, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Not a message, or not one of ours to read.
    pub(crate) malformed: u64,
    /// An answer to somebody else's request.
    pub(crate) foreign: u64,
    /// An answer that no request of ours waits for: late, repeated, or made up.
    pub(crate) unexpected: u64,
    /// New hardware when the table was full.
    pub(crate) overflow: u64,
}

/// All hardware.
#[derive(Debug)]
pub(crate) struct Driver {
    source: u32,
    targets: Vec<SocketAddr>,
    pinned: BTreeSet<SocketAddr>,
    timing: Timing,
    hardware: BTreeMap<Serial, Hardware>,
    /// Devices that this node owns and whose hardware is not found.
    expected: BTreeSet<DeviceId>,
    rounds: VecDeque<u8>,
    sequence: u8,
    next_round: Instant,
    pause: Duration,
    out: Output,
    dropped: Dropped,
}

impl Driver {
    /// Nothing is known; the first round of discovery is due. `source` must not be zero.
    pub(crate) fn new(config: &Config, source: u32, now: Instant) -> Self {
        Self {
            source,
            targets: config.broadcast.iter().chain(&config.addresses).copied().collect(),
            pinned: config.addresses.iter().copied().collect(),
            timing: Timing { poll: config.poll, discover: config.discover, clean: config.clean },
            hardware: BTreeMap::new(),
            expected: BTreeSet::new(),
            rounds: VecDeque::new(),
            sequence: 0,
            next_round: now,
            pause: FIRST_PAUSE,
            out: Output::default(),
            dropped: Dropped::default(),
        }
    }

    /// The next datagram to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmits.pop_front()
    }

    /// The next reading to pass on.
    pub(crate) fn poll_reading(&mut self) -> Option<Reading> {
        self.out.readings.pop_front()
    }

    /// How many readings wait.
    pub(crate) fn backlog(&self) -> usize {
        self.out.readings.len()
    }

    /// What was received and not used so far.
    pub(crate) fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// When [`Driver::handle_timeout`] must be called next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.hardware.values().map(Hardware::poll_timeout).fold(self.next_round, Instant::min)
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.next_round <= now {
            self.discover(now);
        }
        for hardware in self.hardware.values_mut() {
            hardware.handle_timeout(now, &mut self.out);
        }
    }

    /// Takes a datagram that came from `from`.
    pub(crate) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        match wire::decode(datagram) {
            Ok(message) => self.handle_message(now, from, message),
            Err(error) => self.drop_malformed(from, error),
        }
        // An answer often makes the next message due at once.
        self.handle_timeout(now);
    }

    /// Takes a directive of the node.
    pub(crate) fn handle_directive(&mut self, now: Instant, directive: Directive) {
        directive.log("lifx");
        match directive {
            Directive::Own { device, owned } => self.own(now, device, owned),
            Directive::Refresh { device } => {
                if let Some(hardware) = of(&mut self.hardware, &device) {
                    hardware.refresh(now, &device);
                }
            }
            Directive::Command { device, command, change, deadline, by: _ } => {
                match of(&mut self.hardware, &device) {
                    Some(hardware) => {
                        hardware.command(now, device, command, &change, deadline, &mut self.out);
                    }
                    None => {
                        let reason = format!("this node has not found {device} on its network");
                        let stage = Stage::Failed { reason };
                        self.out.readings.push_back(Reading::Progress { device, command, stage });
                    }
                }
            }
            Directive::Probe
            | Directive::Pair { .. }
            | Directive::Show(_)
            | Directive::Hide { .. }
            | Directive::Tell(_) => {}
        }
        self.handle_timeout(now);
    }

    /// Ends every command that is in flight, because the adapter stops.
    pub(crate) fn shut_down(&mut self) {
        for hardware in self.hardware.values_mut() {
            hardware.shut_down(&mut self.out);
        }
    }

    fn own(&mut self, now: Instant, device: DeviceId, owned: bool) {
        if let Some(hardware) = of(&mut self.hardware, &device) {
            hardware.own(now, device, owned, &mut self.out);
        } else if !owned {
            self.expected.remove(&device);
        } else if self.expected.len() < MOST_EXPECTED {
            self.expected.insert(device);
        } else {
            tracing::warn!(%device, most = MOST_EXPECTED, "too many owned devices: this one is not polled until it is found again");
        }
    }

    /// Sends a round of discovery, and forgets hardware that is gone.
    fn discover(&mut self, now: Instant) {
        self.next_round = now + self.pause.min(self.timing.discover);
        self.pause = (self.pause * 2).min(self.timing.discover);
        self.sequence = self.sequence.wrapping_add(1);
        self.rounds.push_back(self.sequence);
        if self.rounds.len() > OPEN_ROUNDS {
            self.rounds.pop_front();
        }
        let bytes = wire::encode(self.source, Serial::ALL, self.sequence, &Request::GetService);
        let round = self.targets.iter().map(|to| Transmit { to: *to, bytes: bytes.clone() });
        self.out.transmits.extend(round);
        self.hardware.retain(|_, hardware| !hardware.is_gone(now));
    }

    fn handle_message(&mut self, now: Instant, from: SocketAddr, message: Incoming) {
        let Incoming { source, target, sequence, reply } = message;
        if source != self.source || target == Serial::ALL {
            self.dropped.foreign += 1;
            tracing::debug!(%from, source, %target, "answer to somebody else's request dropped");
            return;
        }
        let service = match reply {
            Reply::StateService { service, port } => Some((service, port)),
            _ => None,
        };
        let known = self.hardware.get_mut(&target);
        if known.is_some_and(|known| known.handle_reply(now, from, sequence, reply, &mut self.out)) {
            return;
        }
        match service {
            Some((service, port)) if self.rounds.contains(&sequence) => {
                self.discovered(now, from, target, service, port);
            }
            _ => {
                self.dropped.unexpected += 1;
                tracing::debug!(%from, %target, sequence, "answer that no request waits for dropped");
            }
        }
    }

    fn discovered(&mut self, now: Instant, from: SocketAddr, target: Serial, service: u8, port: u32) {
        let port = u16::try_from(port).ok().filter(|port| *port != 0);
        let Some(port) = port.filter(|_| service == SERVICE_UDP) else { return };
        // Who configured an address wants it used, be it of a forwarder to another network.
        let configured = self.pinned.contains(&from);
        let addr = if configured { from } else { SocketAddr::new(from.ip(), port) };
        if let Some(known) = self.hardware.get_mut(&target) {
            match (self.pinned.contains(&known.addr()), configured) {
                (true, false) => known.discovered(now, known.addr(), &mut self.out),
                (false, true) => known.moved(now, addr, &mut self.out),
                _ => known.discovered(now, addr, &mut self.out),
            }
            return;
        }
        if self.hardware.len() >= MOST_HARDWARE {
            self.dropped.overflow += 1;
            tracing::debug!(%from, %target, most = MOST_HARDWARE, "too many LIFX devices: this one is ignored");
            return;
        }
        let is_its = |device: &DeviceId| Serial::of(device, ID) == Some(target);
        let owned = self.expected.extract_if(.., is_its).collect();
        let hardware = Hardware::new(target, addr, self.source, self.timing, owned, now);
        self.hardware.insert(target, hardware);
    }

    fn drop_malformed(&mut self, from: SocketAddr, error: WireError) {
        self.dropped.malformed += 1;
        tracing::debug!(%from, %error, "datagram dropped");
    }
}

/// The hardware of a device, if it was found.
fn of<'a>(hardware: &'a mut BTreeMap<Serial, Hardware>, device: &DeviceId) -> Option<&'a mut Hardware> {
    hardware.get_mut(&Serial::of(device, ID)?)
}
