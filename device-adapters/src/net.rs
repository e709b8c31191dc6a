//! TCP connections of adapters: on the interface that was chosen, within a time that was given.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

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
        Ok(stream)
    }
}
