//! The TCP side of the node's port: HTTPS for the API, and the mesh's WebSockets, told apart by ALPN.
//!
//! One deadline covers everything from accept to the end of the handshake (for the mesh: of the
//! WebSocket's too), and the number of unfinished handshakes is bounded: the oldest of the address that has most
//! gives way, so slow ones keep nobody out. Until a client has shown a token it also counts for its address (see
//! [`Guest`]).

mod challenge;
mod crowd;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use rustls::{AlertDescription, ServerConfig};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};
use tracing::{debug, warn};

pub(crate) use self::crowd::Crowd;
pub use self::crowd::{Guest, Place};
use crate::{
    plain_http,
    tls::{
        acme::answers::Served,
        identity::{ALPN_JOIN, ALPN_MESH},
    },
    transport::{TransportCounters, WebSocketTransport, counters::bump, unfinished::Unfinished},
};

/// First byte of a TLS record that starts a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Tries to find one free number for both protocols when the system chooses the port.
const PORT_TRIES: usize = 16;
/// How often ports that are in use are tried again.
const LOOK_FOR_PORTS: Duration = Duration::from_millis(20);
/// With this a part of the node asks whether the listener answers; it is no mistake of a client and
/// not counted as one.
pub(crate) const PROBE: &[u8] = b"OPTIONS * HTTP/1.0\r\n\r\n";

/// The port could not be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody has it.
    #[error(
        "port {1} of {0} is in use over {2}: stop the other program (`ss -lp` names it), or choose another port with --listen"
    )]
    InUse(std::net::IpAddr, u16, &'static str),
    /// The system said something else.
    #[error("cannot listen on {0} over {1}: {2}; choose another address with --listen")]
    Other(SocketAddr, &'static str, io::Error),
}

/// One port, bound for both protocols.
#[derive(Debug)]
pub struct Ports {
    /// For [`serve`].
    pub tcp: TcpListener,
    /// For [`crate::transport::QuicTransport::start`].
    pub udp: UdpSocket,
    /// The address with the number of the port.
    pub address: SocketAddr,
}

/// Binds TCP and UDP to the same port; port 0 lets the system choose. Needs a tokio runtime.
///
/// # Errors
/// [`BindError`] names the protocol that failed.
pub async fn bind_ports(listen: SocketAddr) -> Result<Ports, BindError> {
    let name = |protocol| {
        move |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(listen.ip(), listen.port(), protocol),
            _ => BindError::Other(listen, protocol, error),
        }
    };
    let mut tries = if listen.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let tcp = TcpListener::bind(listen).await.map_err(name("TCP"))?;
        let address = tcp.local_addr().map_err(name("TCP"))?;
        match UdpSocket::bind(address) {
            Ok(udp) => return Ok(Ports { tcp, udp, address }),
            Err(error) if tries == 0 => return Err(name("UDP")(error)),
            Err(_) => {}
        }
    }
}

/// Like [`bind_ports`], but waits for ports that are in use. A QUIC endpoint lets go of its socket
/// only some time after its last handle is gone, and tells nobody when.
///
/// # Errors
/// [`BindError`]; a port in use only after `patience`.
pub async fn bind_ports_within(listen: SocketAddr, patience: Duration) -> Result<Ports, BindError> {
    let deadline = Instant::now() + patience;
    loop {
        match bind_ports(listen).await {
            Err(BindError::InUse(..)) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_FOR_PORTS).await;
            }
            bound => return bound,
        }
    }
}

/// What clients may use before their handshake is done.
#[derive(Debug, Clone, Copy)]
pub struct TcpLimits {
    /// Handshakes that may be unfinished at once; beyond, the oldest of the address (IPv6: of the
    /// /64) that has most is dropped.
    pub handshakes: usize,
    /// Connections of one address (IPv6: of one /64) that have shown no token; beyond, its oldest
    /// is dropped.
    pub guests: usize,
    /// Within which a handshake must finish and the API must take the connection.
    pub deadline: Duration,
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self { handshakes: 64, guests: 32, deadline: Duration::from_secs(5) }
    }
}

/// A client of the API, its handshake done.
#[derive(Debug)]
pub struct WebConnection {
    /// Speaks HTTP/1.1.
    pub stream: TlsStream<TcpStream>,
    /// Who the client is.
    pub guest: Guest,
}

/// What clients that are no nodes get.
#[derive(Debug, Clone)]
pub struct WebTls {
    /// TLS for the API.
    pub config: Arc<ServerConfig>,
    /// The certificates of challenges.
    pub answers: watch::Receiver<Arc<Served>>,
}

impl From<Arc<ServerConfig>> for WebTls {
    /// Without any challenges.
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { config, answers: watch::channel(Arc::default()).1 }
    }
}

/// Accepts until the receiver of `web` is dropped. A connection that `web` has no room for
/// within the deadline is closed and counted.
pub async fn serve(
    tcp: TcpListener,
    tls: WebTls,
    mesh: WebSocketTransport,
    web: mpsc::Sender<WebConnection>,
    counters: Arc<TransportCounters>,
    limits: TcpLimits,
) {
    let mut unfinished = Unfinished::new(limits.handshakes);
    let mut crowd = Crowd::new(limits.guests);
    loop {
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            () = web.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, SocketAddr::new(address.ip().to_canonical(), address.port())),
            Err(error) => {
                // Out of file descriptors, mostly: some will be free in a moment.
                warn!(%error, "a TCP connection could not be accepted");
                bump(&counters.tcp_accept_failed);
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (place, evicted) = crowd.enter(address.ip());
        if evicted {
            bump(&counters.tcp_crowded);
        }
        let guest = Guest { address, place };
        let (tls, mesh, web) = (tls.clone(), mesh.clone(), web.clone());
        let handshake = Handshake { tls, mesh, web, counters: counters.clone(), guest };
        if unfinished.start(address.ip(), handshake.run(stream, limits.deadline)) {
            bump(&counters.tcp_handshake_evicted);
        }
    }
}

/// One connection until the API has it.
struct Handshake {
    tls: WebTls,
    mesh: WebSocketTransport,
    web: mpsc::Sender<WebConnection>,
    counters: Arc<TransportCounters>,
    guest: Guest,
}

impl Handshake {
    async fn run(self, stream: TcpStream, deadline: Duration) {
        // Small answers should not wait for more.
        let _ = stream.set_nodelay(true);
        let counters = self.counters.clone();
        let start = tokio::time::Instant::now();
        let secured = tokio::select! {
            secured = tokio::time::timeout_at(start + deadline, self.secure(stream)) => secured,
            () = self.guest.place.gives_way() => return,
        };
        let stream = match secured {
            Ok(Some(stream)) => stream,
            Ok(None) => return,
            Err(_elapsed) => return bump(&counters.tcp_handshake_timeout),
        };
        let left = deadline.saturating_sub(start.elapsed());
        let connection = WebConnection { stream, guest: self.guest };
        if !matches!(timeout(left, self.web.send(connection)).await, Ok(Ok(()))) {
            bump(&counters.tcp_busy);
        }
    }

    /// The handshake; what fails is counted here. What is the mesh's is handed on from here.
    async fn secure(&self, mut stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let mut first = [0; 1];
        match stream.peek(&mut first).await {
            Ok(1) if first == [TLS_HANDSHAKE] => {}
            Ok(1) if first.iter().all(u8::is_ascii_uppercase) => {
                self.answer_plain(&mut stream).await;
                return None;
            }
            Ok(1) => {
                bump(&self.counters.tcp_not_tls);
                return None;
            }
            _ => {
                bump(&self.counters.tcp_handshake_failed);
                return None;
            }
        }
        let hello = match LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await {
            Ok(hello) => hello,
            Err(error) => {
                debug!(address = %self.guest.address, %error, "no TLS client hello");
                bump(&self.counters.tcp_handshake_failed);
                return None;
            }
        };
        if challenge::is_asked(&hello.client_hello()) {
            self.answer_challenge(hello).await;
            return None;
        }
        let mesh = hello
            .client_hello()
            .alpn()
            .is_some_and(|mut offered| offered.any(|alpn| alpn == ALPN_MESH || alpn == ALPN_JOIN));
        if mesh {
            // From here on its own bounds hold.
            self.mesh.accept(hello, self.guest.address).await;
            return None;
        }
        match hello.into_stream(self.tls.config.clone()).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                debug!(address = %self.guest.address, %error, "a TLS handshake failed");
                bump(if is_unknown_alpn(&error) {
                    &self.counters.tcp_unknown_alpn
                } else {
                    &self.counters.tcp_handshake_failed
                });
                None
            }
        }
    }

    /// Says in plain HTTP what this port is. The request is read first: closing a socket with unread bytes would
    /// discard the answer.
    async fn answer_plain(&self, stream: &mut TcpStream) {
        let request = plain_http::read_head(stream).await;
        if request.as_deref() != Ok(PROBE) {
            bump(&self.counters.tcp_plain_http);
        }
        let head = request.ok().and_then(|bytes| plain_http::Head::parse(&bytes));
        let with_body = head.as_ref().is_none_or(|head| head.method != "HEAD");
        let page = plain_http::speaks_https(head.as_ref()).bytes(with_body);
        // The client sees the answer or it does not; there is nothing else to do.
        let _ = plain_http::send(stream, &page).await;
    }

    /// Shows the certificate of a challenge, and nothing else, to a certificate authority.
    async fn answer_challenge(&self, hello: StartHandshake<TcpStream>) {
        let name = hello.client_hello().server_name().map(str::to_ascii_lowercase);
        let certificate = name.and_then(|name| self.tls.answers.borrow().challenge_certificate(&name));
        let outcome = match certificate {
            Some(certificate) => challenge::answer(hello, certificate).await,
            None => {
                bump(&self.counters.tcp_acme_unknown);
                return challenge::refuse(hello.io).await;
            }
        };
        match outcome {
            Ok(stream) => {
                bump(&self.counters.tcp_acme_answered);
                challenge::close(stream).await;
            }
            Err(error) => {
                debug!(address = %self.guest.address, %error, "a certificate authority did not take the answer");
                bump(&self.counters.tcp_handshake_failed);
            }
        }
    }
}

fn is_unknown_alpn(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        tls,
        Some(
            rustls::Error::NoApplicationProtocol
                | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        )
    )
}

#[cfg(test)]
pub(crate) mod tests;
