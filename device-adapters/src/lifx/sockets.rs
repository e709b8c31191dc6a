//! The UDP sockets: one, or one on each chosen interface.
//!
//! A socket that is tied to an interface (SO_BINDTODEVICE, socket(7)) sends and receives there alone,
//! so a broadcast reaches the networks that were chosen and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Poll;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::config::Config;
use super::output::Transmit;

/// Bulbs whose interface is remembered.
const MOST_PLACES: usize = 1_024;
/// How long the network may take a datagram; what it does not take is lost on the way.
const SEND_PATIENCE: Duration = Duration::from_millis(50);

/// Sends datagrams; one that cannot be sent counts as lost on the way, which the driver expects.
pub(super) struct Sockets {
    bind: SocketAddr,
    broadcast: BTreeSet<SocketAddr>,
    /// By interface; by no name when none was chosen.
    open: BTreeMap<String, UdpSocket>,
    /// The chosen interfaces that are not there.
    missing: BTreeSet<String>,
    /// On which interface each bulb answers.
    places: BTreeMap<IpAddr, String>,
    /// Addresses of which a failure was told, so that each is told once.
    failing: BTreeSet<SocketAddr>,
}

impl Sockets {
    /// Opens them. Fails when there is none, with the reason of the last.
    pub(super) async fn open(config: &Config) -> io::Result<Self> {
        let mut sockets = Self {
            bind: config.bind,
            broadcast: config.broadcast.iter().copied().collect(),
            open: BTreeMap::new(),
            missing: BTreeSet::new(),
            places: BTreeMap::new(),
            failing: BTreeSet::new(),
        };
        if config.interfaces.is_empty() {
            sockets.open.insert(String::new(), open(config.bind, None).await?);
            return Ok(sockets);
        }
        let mut last = None;
        for name in &config.interfaces {
            if let Err(reason) = sockets.open_on(name).await {
                tracing::warn!(interface = %name, %reason, "lights behind this interface are not reached until it is there");
                sockets.missing.insert(name.clone());
                last = Some(io::Error::new(reason.kind(), format!("interface {name}: {reason}")));
            }
        }
        match last {
            Some(reason) if sockets.open.is_empty() => Err(reason),
            _ => Ok(sockets),
        }
    }

    /// Sends a broadcast on every interface, and all else on the one where the bulb answers.
    pub(super) async fn send(&mut self, datagram: &Transmit) {
        let is_broadcast = self.broadcast.contains(&datagram.to);
        if is_broadcast {
            self.look_for_missing().await;
        }
        let place = self.places.get(&datagram.to.ip()).filter(|_| !is_broadcast);
        let mut gone = Vec::new();
        for (name, socket) in &self.open {
            if place.is_some_and(|place| place != name) {
                continue;
            }
            match timeout(SEND_PATIENCE, socket.send_to(&datagram.bytes, datagram.to)).await {
                Ok(Ok(_)) => {
                    self.failing.remove(&datagram.to);
                }
                Ok(Err(error)) => {
                    if self.failing.insert(datagram.to) {
                        tracing::warn!(to = %datagram.to, interface = %name, %error, "cannot send to the LAN; lights are not reached until this is mended");
                    } else {
                        tracing::debug!(to = %datagram.to, interface = %name, %error, "cannot send");
                    }
                    if is_gone(&error) && !name.is_empty() {
                        gone.push(name.clone());
                    }
                }
                Err(_) => {
                    tracing::debug!(to = %datagram.to, "the network takes no more; a message is dropped");
                }
            }
        }
        for name in gone {
            // The interface itself is gone; the next of its name is another one.
            self.open.remove(&name);
            self.places.retain(|_, place| *place != name);
            self.missing.insert(name);
        }
    }

    /// Waits for a datagram. Safe to cancel.
    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let open = &self.open;
        let received = poll_fn(|context| {
            for (name, socket) in open {
                let mut into = ReadBuf::new(buffer);
                if let Poll::Ready(received) = socket.poll_recv_from(context, &mut into) {
                    return Poll::Ready(received.map(|from| (into.filled().len(), from, name)));
                }
            }
            Poll::Pending
        });
        let (length, from, name) = received.await?;
        if !name.is_empty() && (self.places.len() < MOST_PLACES || self.places.contains_key(&from.ip())) {
            self.places.insert(from.ip(), name.clone());
        }
        Ok((length, from))
    }

    async fn open_on(&mut self, name: &str) -> io::Result<()> {
        let socket = open(self.bind, Some(name)).await?;
        self.open.insert(name.to_owned(), socket);
        Ok(())
    }

    async fn look_for_missing(&mut self) {
        for name in std::mem::take(&mut self.missing) {
            match self.open_on(&name).await {
                Ok(()) => tracing::info!(interface = %name, "lights are looked for on this interface again"),
                Err(_still_not) => {
                    self.missing.insert(name);
                }
            }
        }
    }
}

async fn open(bind: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(bind).await?;
    socket.set_broadcast(true)?;
    if let Some(name) = interface {
        socket.bind_device(Some(name.as_bytes()))?;
    }
    Ok(socket)
}

/// ENODEV and ENXIO (errno(3)): no such device.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(19 | 6))
}
