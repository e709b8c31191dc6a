//! Whether this machine's clock is right: asks the programs that keep it so.
//!
//! The kernel knows as well (`STA_UNSYNC` of adjtimex(2)), but neither std, rustix nor nix can ask
//! it without `unsafe`, and no crate that wraps the call builds for 32-bit ARM. So each program is
//! asked in its own way, on this machine only:
//!
//! | program | how |
//! | --- | --- |
//! | systemd-timesyncd | the file that it leaves once the clock was set (`time-sync.target`) |
//! | chrony | its command port, UDP 323 on loopback (`candm.h`, version 6) |
//! | ntpd, NTPsec, OpenNTPD and others that serve time | NTP, UDP 123 on loopback (RFC 5905) |
//!
//! Both ports are below 1024, so that no ordinary user of the machine can answer in their place.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_proto::time::WallClock;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{sleep, timeout},
};
use tracing::info;

/// When this software was built, in seconds since 1970: no clock is before it.
pub const BUILD_S: u64 = 1_763_769_600;

/// How long a program of this machine may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How often a clock that is not known to be right is looked at: others wait for it.
const LOOK_SOON: Duration = Duration::from_secs(5);
/// How often a clock that is right is looked at.
const LOOK_LATER: Duration = Duration::from_secs(60);

/// Whether the clock counts as right, by the setting `clock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockRule {
    /// When a program that keeps it says so.
    #[default]
    Ask,
    /// Always: a battery clock or a receiver keeps it, of which Hearth cannot know.
    Trusted,
    /// Never.
    Untrusted,
}

impl ClockRule {
    /// As it stands in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Trusted => "trusted",
            Self::Untrusted => "untrusted",
        }
    }
}

/// Where the programs are asked.
#[derive(Debug, Clone)]
pub struct TimePrograms {
    /// The file of systemd-timesyncd.
    pub timesyncd: PathBuf,
    /// The command port of chrony.
    pub chrony: SocketAddr,
    /// The NTP port of this machine.
    pub ntp: SocketAddr,
    /// The battery clocks that the kernel knows.
    pub rtc: PathBuf,
}

impl Default for TimePrograms {
    fn default() -> Self {
        Self {
            timesyncd: "/run/systemd/timesync/synchronized".into(),
            chrony: (Ipv4Addr::LOCALHOST, 323).into(),
            ntp: (Ipv4Addr::LOCALHOST, 123).into(),
            rtc: "/sys/class/rtc".into(),
        }
    }
}

impl TimePrograms {
    /// Whether one of them says that it keeps the clock right.
    pub async fn keep_the_clock(&self) -> bool {
        if self.timesyncd.exists() {
            return true;
        }
        let (chrony, ntp) = tokio::join!(self.ask_chrony(), self.ask_ntp());
        chrony || ntp
    }

    /// Whether the kernel set its clock by a battery clock when the machine started (`hctosys`, the kernel's rtc.rst).
    pub fn began_by_battery(&self) -> bool {
        let Ok(clocks) = std::fs::read_dir(&self.rtc) else { return false };
        let set_the_clock = |clock: std::fs::DirEntry| {
            std::fs::read_to_string(clock.path().join("hctosys")).is_ok_and(|answer| answer.trim() == "1")
        };
        clocks.flatten().any(set_the_clock)
    }

    async fn ask_chrony(&self) -> bool {
        let Some(number) = random::<4>() else { return false };
        let answer = ask(self.chrony, &chrony_question(number)).await;
        answer.is_ok_and(|answer| chrony_is_synchronised(&answer, number))
    }

    async fn ask_ntp(&self) -> bool {
        let Some(number) = random::<8>() else { return false };
        let answer = ask(self.ntp, &ntp_question(number)).await;
        answer.is_ok_and(|answer| ntp_is_synchronised(&answer, number))
    }
}

/// Looks at the clock once, and answers with what was seen and with the task that goes on looking.
pub async fn follow(
    rule: ClockRule,
    programs: TimePrograms,
) -> (watch::Receiver<bool>, impl Future<Output = ()> + Send) {
    let (sender, receiver) = watch::channel(look(rule, &programs, unix_seconds()).await);
    let follow = async move {
        loop {
            let known = *sender.borrow();
            tokio::select! {
                () = sleep(if known { LOOK_LATER } else { LOOK_SOON }) => {}
                () = sender.closed() => return,
            }
            let seen = look(rule, &programs, unix_seconds()).await;
            if sender.send_if_modified(|known| std::mem::replace(known, seen) != seen) {
                info!(synchronised = seen, "the state of this machine's clock has changed");
            }
        }
    };
    (receiver, follow)
}

/// What is known of this machine's clock at the start.
pub fn at_start(rule: ClockRule, programs: &TimePrograms, synchronised: bool) -> WallClock {
    match rule {
        _ if synchronised => WallClock::Right,
        ClockRule::Ask | ClockRule::Trusted if programs.began_by_battery() => WallClock::Battery,
        _ => WallClock::Unknown,
    }
}

/// This machine's clock, in seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

async fn look(rule: ClockRule, programs: &TimePrograms, now_s: u64) -> bool {
    // Before this software existed: wrong, whoever vouches for it.
    now_s >= BUILD_S
        && match rule {
            ClockRule::Ask => programs.keep_the_clock().await,
            ClockRule::Trusted => true,
            ClockRule::Untrusted => false,
        }
}

/// One question and its answer. Nobody there is told at once by the system.
async fn ask(to: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    // Only datagrams of the one who was asked are received.
    socket.connect(to).await?;
    socket.send(question).await?;
    let mut answer = [0; 512];
    let length = timeout(ANSWER_WITHIN, socket.recv(&mut answer)).await??;
    Ok(answer.into_iter().take(length).collect())
}

/// What only the one who was asked can know.
fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

/// Bytes of chrony's answer about its tracking. A question is as long as its answer, so that
/// nobody's address can be flooded with answers.
const TRACKING_BYTES: usize = 104;
/// The answer's start up to the number of the question: version 6, an answer (2), to tracking (33),
/// which is of the kind 5 and a success (0).
const TRACKING_HEAD: [u8; 10] = [6, 2, 0, 0, 0, 33, 0, 5, 0, 0];

fn chrony_question(number: [u8; 4]) -> Vec<u8> {
    // Version 6, a request (1), reserved, tracking (33), first attempt.
    let mut question = [[6, 1, 0, 0, 0, 33, 0, 0].as_slice(), &number].concat();
    question.resize(TRACKING_BYTES, 0);
    question
}

fn chrony_is_synchronised(answer: &[u8], number: [u8; 4]) -> bool {
    let is_answer = answer.starts_with(&TRACKING_HEAD) && answer.get(16..20) == Some(&number);
    let reference = answer.get(28..32).and_then(|bytes| bytes.try_into().ok());
    let stratum = number_at(answer, 52).unwrap_or(0);
    let leap = number_at(answer, 54).unwrap_or(LEAP_UNKNOWN);
    is_answer && leap != LEAP_UNKNOWN && is_served(stratum, reference)
}

/// A client of version 4 (RFC 5905, section 7.3): only its transmit time is set, which the
/// answer repeats; it need not be a time.
fn ntp_question(number: [u8; 8]) -> [u8; 48] {
    let mut question = [0; 48];
    question[0] = 4 << 3 | 3;
    let (_, transmit) = question.split_at_mut(40);
    transmit.copy_from_slice(&number);
    question
}

fn ntp_is_synchronised(answer: &[u8], number: [u8; 8]) -> bool {
    let first = answer.first().copied().unwrap_or(0);
    let (leap, mode) = (u16::from(first >> 6), first & 7);
    let is_answer = answer.len() >= 48 && mode == 4 && answer.get(24..32) == Some(&number);
    let stratum = answer.get(1).copied().unwrap_or(0).into();
    let reference = answer.get(12..16).and_then(|bytes| bytes.try_into().ok());
    let half_delay = number_at(answer, 4).unwrap_or(u16::MAX) / 2;
    let distance_s = number_at(answer, 8).unwrap_or(u16::MAX).saturating_add(half_delay);
    is_answer && leap != LEAP_UNKNOWN && is_served(stratum, reference) && distance_s < MAX_DISTANCE_S
}

/// The leap indicator of a clock that is not synchronised (RFC 5905, figure 9).
const LEAP_UNKNOWN: u16 = 3;
/// MAXDISP of RFC 5905; the kernel gives up a clock at the same bound.
const MAX_DISTANCE_S: u16 = 16;

/// Whether the time comes from elsewhere: a machine that serves its own clock because it has
/// nothing better names itself as its reference.
fn is_served(stratum: u16, reference: Option<[u8; 4]>) -> bool {
    let is_own = reference.is_none_or(|id| id.starts_with(&[127, 127]) || id == *b"LOCL");
    (1..16).contains(&stratum) && !is_own
}

fn number_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
