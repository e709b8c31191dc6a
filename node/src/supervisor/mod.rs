//! Watches over the running parts, and tells systemd (sd_notify(3)) that the node is ready, that
//! it is alive, and that it stops. `/healthz` tells everybody else.
//!
//! The watchdog is fed only while every part shows signs of life: the event loop turns, the
//! store's thread turns, QUIC connections are accepted, and the TCP listener answers. A part that
//! hangs or ends stops the pings, and systemd restarts the daemon.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{error, warn};

/// A part whose counter has not moved for so long is stalled. The event loop turns at least
/// every 5 s, the store's thread twice a second; a disk may take its time.
pub const PATIENCE: Duration = Duration::from_secs(12);
/// How long the listener may take to answer.
const PROBE: Duration = Duration::from_secs(3);
/// How often the parts are looked at when systemd asks for no watchdog.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often systemd is asked for more time while the store is opened.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// For how long it is asked each time: a board that is busy with its disk may ask late.
const ASK_FOR: Duration = Duration::from_secs(150);
/// For so long it is asked. Each step of opening and repairing a store ends by itself, the longest after an
/// hour; what takes longer than all of them waits for a disk that does not answer, and is begun anew.
const OPENING: Duration = Duration::from_secs(6 * 3_600);

/// A part by its signs of life.
#[derive(Debug, Clone)]
pub struct Pulse {
    /// Its name, for the log.
    pub name: &'static str,
    /// Rises while it lives.
    pub beats: Arc<AtomicU64>,
}

/// The signs of life of all parts.
#[derive(Debug)]
pub struct Health {
    pulses: Vec<Pulse>,
    seen: BTreeMap<&'static str, (u64, Instant)>,
    listener: Option<SocketAddr>,
    patience: Duration,
}

impl Health {
    /// Watches these parts, and the listener at an address of this machine.
    pub fn new(pulses: Vec<Pulse>, listener: Option<SocketAddr>, patience: Duration) -> Self {
        Self { pulses, seen: BTreeMap::new(), listener: listener.map(local), patience }
    }

    /// The names of the parts that show no sign of life.
    pub async fn stalled(&mut self) -> Vec<&'static str> {
        let now = Instant::now();
        let mut stalled = Vec::new();
        for Pulse { name, beats } in &self.pulses {
            let beat = beats.load(Ordering::Relaxed);
            let seen = self.seen.entry(name).or_insert((beat, now));
            if seen.0 != beat {
                *seen = (beat, now);
            } else if now - seen.1 > self.patience {
                stalled.push(*name);
            }
        }
        if let Some(listener) = self.listener
            && !answers(listener).await
        {
            stalled.push("listener");
        }
        stalled
    }
}

/// An address of this machine under which a listener on every address answers.
fn local(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, listen.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, listen.port()).into(),
        _ => listen,
    }
}

/// Asks in plain HTTP; a listener that lives says that it speaks HTTPS.
async fn answers(listener: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(listener).await?;
        stream.write_all(crate::listener::PROBE).await?;
        let mut first = [0; 5];
        stream.read_exact(&mut first).await
    };
    matches!(timeout(PROBE, ask).await, Ok(Ok(_)))
}

type Tell = dyn Fn(&[NotifyState<'_>]) -> io::Result<()> + Send;

/// The service manager, as far as this process was told of one.
pub struct Systemd {
    /// How often it wants to hear that the node is alive, if it does.
    watchdog: Option<Duration>,
    tell: Box<Tell>,
}

impl Systemd {
    /// By `NOTIFY_SOCKET` and `WATCHDOG_USEC`, as systemd sets them.
    pub fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), tell: Box::new(sd_notify::notify) }
    }

    /// Does `work`, which opens the store. It may take longer than systemd gives a start: killed then, a repair
    /// would be begun anew for ever. So systemd is asked for more time while it goes on.
    pub async fn while_opening<T>(&self, work: impl Future<Output = T>) -> T {
        const STATUS: &str = "the store is being read, and repaired where it is damaged";
        let began = Instant::now();
        let mut ask = tokio::time::interval_at(began + ASK_EVERY, ASK_EVERY);
        let mut work = pin!(work);
        let more = u32::try_from(ASK_FOR.as_micros()).unwrap_or(u32::MAX);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ask.tick(), if began.elapsed() < OPENING => {
                    self.tell(&[NotifyState::ExtendTimeoutUsec(more), NotifyState::Status(STATUS)]);
                }
            }
        }
    }

    /// Says that the process ends. Not to be said when it goes on in another household: from then on systemd waits for
    /// the end, and kills what has not ended in time.
    pub fn stops(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Without systemd there is nobody to tell, which is no error.
    fn tell(&self, state: &[NotifyState<'_>]) {
        if let Err(reason) = (self.tell)(state) {
            warn!(%reason, "systemd cannot be told how the node is");
        }
    }
}

/// Says that the node is ready, then feeds the watchdog until `shutdown`. `stalled_now` is told the names
/// of the parts that show no sign of life.
pub async fn run(
    mut health: Health,
    systemd: Systemd,
    status: String,
    stalled_now: watch::Sender<Vec<&'static str>>,
    mut shutdown: watch::Receiver<bool>,
) {
    systemd.tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    let mut ticks = tokio::time::interval(systemd.watchdog.map_or(LOOK_EVERY, |within| within / 3));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {}
        }
        let stalled = health.stalled().await;
        if stalled.is_empty() {
            if systemd.watchdog.is_some() {
                systemd.tell(&[NotifyState::Watchdog]);
            }
        } else if stalled != *stalled_now.borrow() {
            error!(parts = ?stalled, "parts of the node show no sign of life; systemd's watchdog is not fed");
        }
        stalled_now.send_replace(stalled);
    }
}

#[cfg(test)]
mod tests;
