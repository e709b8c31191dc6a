//! TCP connections of adapters: on the interface that was chosen, within a time that was given.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

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
        let connected = timeout(within, self.any_of(host, port)).await;
        connected.unwrap_or_else(|_| {
            let why = format!("no connection to {host}:{port} within {} ms", within.as_millis());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }

    async fn any_of(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        let addresses = lookup_host((host, port)).await;
        let addresses = addresses
            .map_err(|error| io::Error::new(error.kind(), format!("cannot look up {host}: {error}")))?;
        for address in addresses.take(MOST_ADDRESSES) {
            match self.to(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last = io::Error::new(error.kind(), format!("cannot connect to {address}: {error}"))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
}
