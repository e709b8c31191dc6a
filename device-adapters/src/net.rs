//! TCP connections of adapters: on the interface that was chosen, within a time that was given.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

/// A connection on which nothing comes is asked by TCP whether somebody is still at the other end (tcp(7)): after so long, how often,
/// and how many times in vain before it counts as broken. Who loses his power closes nothing, and a stream that only tells is never
/// written to.
const IDLE: Duration = Duration::from_secs(15);
const ASKED_EVERY: Duration = Duration::from_secs(5);
const MOST_UNANSWERED: u32 = 3;

/// The addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;

/// How connections are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// The interface to use, by name (SO_BINDTODEVICE, socket(7)); none leaves the choice to the system.
    pub(crate) interface: Option<String>,
}

impl Route {
    /// Connects to the first address of a host that answers.
    pub(crate) async fn connect(&self, host: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
        let end = Instant::now() + within;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found = timeout_at(end, lookup_host((host, port))).await.unwrap_or_else(|_| Err(late(within)));
        let found =
            found.map_err(|error| io::Error::new(error.kind(), format!("cannot look up {host}: {error}")))?;
        let addresses: Vec<SocketAddr> = found.take(MOST_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
        }
        self.any_of(&addresses, end).await
    }

    /// Over which interface, for the end of a sentence: who chose the wrong one has to see that. Empty where nobody chose.
    pub(crate) fn over(&self) -> String {
        self.interface.as_ref().map(|name| format!(" over {name}")).unwrap_or_default()
    }

    /// Tries one address after the other. Each has its share of the time that is left, so that a dead one leaves some to those
    /// behind it: many a name has an IPv6 address that leads nowhere.
    async fn any_of(&self, addresses: &[SocketAddr], end: Instant) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let over = self.over();
        for (tried, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - tried).unwrap_or(1);
            let share = end.saturating_duration_since(Instant::now()) / left;
            match timeout(share, self.to(*address)).await.unwrap_or_else(|_| Err(late(share))) {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last =
                        io::Error::new(error.kind(), format!("cannot connect to {address}{over}: {error}"));
                }
            }
        }
        Err(last)
    }

    async fn to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        Ok(stream)
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, ASKED_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, MOST_UNANSWERED)?;
    Ok(())
}

fn late(within: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("nothing came within {} ms", within.as_millis()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_vanishes_without_a_word_is_noticed_within_half_a_minute() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = Route::default().connect("127.0.0.1", port, Duration::from_secs(5)).await.unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        let unanswered = sockopt::tcp_keepintvl(&stream).unwrap() * sockopt::tcp_keepcnt(&stream).unwrap();
        assert!(sockopt::tcp_keepidle(&stream).unwrap() + unanswered <= Duration::from_secs(30));
    }

    const WITHIN: Duration = Duration::from_secs(8);

    /// An address that answers nothing, as long as what comes with it lives: its queue is full, and the kernel drops what
    /// knocks.
    async fn dead() -> (SocketAddr, Box<dyn Send>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
            waiting.push(stream.unwrap());
        }
        (address, Box::new((listener, waiting)))
    }

    #[tokio::test]
    async fn a_dead_address_leaves_time_to_the_next() {
        let (dead, _kept) = dead().await;
        let alive = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addresses = [dead, alive.local_addr().unwrap()];
        let began = Instant::now();
        let stream = Route::default().any_of(&addresses, began + WITHIN).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        assert!(began.elapsed() >= WITHIN / 2, "the first had its share");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_told_within_the_time() {
        let (dead, _kept) = dead().await;
        let began = Instant::now();
        let error = Route::default().any_of(&[dead, dead], began + WITHIN / 8).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains(&dead.to_string()), "{error}");
    }
}
