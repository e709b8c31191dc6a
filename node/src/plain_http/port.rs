//! The HTTP port: bound when it can be, with few and short connections.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    time::timeout,
};
use tracing::{info, warn};

use super::{
    Reply, Site,
    head::{Head, NoHead, read_head},
};
use crate::{
    tls::acme::answers::Serves,
    transport::{
        counters::{bump, counters},
        unfinished::Unfinished,
    },
};

/// Connections at once; beyond, the oldest of the address that has most gives way.
const CONNECTIONS: usize = 64;
/// Time for the head of the request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Time for a connection in all.
const IN_ALL: Duration = Duration::from_secs(15);
/// How long is waited for the client to close: with unread bytes in it, a socket that is closed takes the answer along.
const LINGER: Duration = Duration::from_secs(2);
/// How much of what it still sends is taken meanwhile, in bytes.
const LINGER_BYTES: u64 = 64 << 10;
/// How often a port that cannot be had is tried again.
const TRY_EVERY: Duration = Duration::from_secs(60);

counters! {
    /// What happened on the HTTP port since the start.
    HttpCounters {
        /// Files of challenges given out.
        http_port_challenge_answered,
        /// Challenges asked for that nobody here knows.
        http_port_challenge_unknown,
        /// Requests sent on to HTTPS.
        http_port_redirected,
        /// Requests for other hosts, by other methods, or that break a rule.
        http_port_refused,
        /// Connections that took too long.
        http_port_timeout,
        /// Connections that gave way to newer ones.
        http_port_evicted,
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Challenge,
    UnknownChallenge,
    Redirected,
    Refused,
}

/// Where the HTTP port stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortStatus {
    /// This node has no public names, and no such port.
    NotNeeded,
    /// It is switched off.
    Off,
    /// It is being opened.
    Opening,
    /// It is open at this address.
    Open(SocketAddr),
    /// It cannot be had.
    Closed {
        /// Where.
        address: SocketAddr,
        /// Why not.
        reason: String,
        /// The same for programs.
        kind: io::ErrorKind,
    },
}

impl fmt::Display for PortStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNeeded => f.write_str("not needed: there are no `[tls] domains`"),
            Self::Off => f.write_str("off: `[tls] http` says so"),
            Self::Opening => f.write_str("is being opened"),
            Self::Open(address) => write!(f, "open at {address}"),
            Self::Closed { address, reason, .. } => write!(f, "cannot listen on {address}: {reason}"),
        }
    }
}

/// The port; a task runs it.
#[derive(Debug)]
pub struct HttpPort {
    address: SocketAddr,
    site: Site,
    counters: Arc<HttpCounters>,
    status: watch::Sender<PortStatus>,
    serves: watch::Sender<Option<Serves>>,
}

impl HttpPort {
    /// The port at this address. Where it stands goes to `status`, and whether challenges over HTTP are answered to
    /// `serves`.
    pub fn new(
        address: SocketAddr,
        site: Site,
        counters: Arc<HttpCounters>,
        status: watch::Sender<PortStatus>,
        serves: watch::Sender<Option<Serves>>,
    ) -> Self {
        Self { address, site, counters, status, serves }
    }

    /// Serves for ever. A port that cannot be had is tried again each minute: the node goes on, and other gateways
    /// answer.
    pub async fn run(self) {
        loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => return self.serve(listener).await,
                Err(error) => self.is_closed(&error),
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    fn is_closed(&self, error: &io::Error) {
        let closed =
            PortStatus::Closed { address: self.address, reason: error.to_string(), kind: error.kind() };
        let is_news =
            self.status.send_if_modified(|status| std::mem::replace(status, closed.clone()) != closed);
        if is_news {
            let (address, way_out) = (self.address, way_out(error.kind()));
            warn!(%address, %error, way_out, "no HTTP port: other gateways answer challenges, and nobody is sent to HTTPS");
        }
    }

    async fn serve(self, listener: TcpListener) {
        let address = listener.local_addr().unwrap_or(self.address);
        info!(%address, "the HTTP port answers challenges and sends browsers on to HTTPS");
        self.status.send_replace(PortStatus::Open(address));
        self.serves.send_modify(|serves| {
            if let Some(serves) = serves {
                serves.http = true;
            }
        });
        let mut unfinished = Unfinished::new(CONNECTIONS);
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let talk = talk(stream, self.site.clone(), self.counters.clone());
                    if unfinished.start(from.ip(), talk) {
                        bump(&self.counters.http_port_evicted);
                    }
                }
                Err(error) => {
                    // Out of file descriptors, mostly: some will be free in a moment.
                    warn!(%error, "a connection to the HTTP port could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// What a person can do about a port that cannot be had.
pub(crate) fn way_out(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE, which the packaged unit gives \
             (`AmbientCapabilities=CAP_NET_BIND_SERVICE`); or set `[tls] http` to another port, and map port 80 to it"
        }
        io::ErrorKind::AddrInUse => {
            "stop the other program (`ss -ltp` names it), or set `[tls] http` to another port, and map port 80 to it"
        }
        _ => "set `[tls] http` to an address of this machine, or to \"off\"",
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, site: Site, counters: Arc<HttpCounters>) {
    let one = async {
        let Ok(head) = timeout(HEAD_WITHIN, read_head(&mut stream)).await else {
            return bump(&counters.http_port_timeout);
        };
        let head = match head {
            Ok(bytes) => Head::parse(&bytes).ok_or("400 Bad Request"),
            Err(NoHead::TooLong) => Err("431 Request Header Fields Too Large"),
            Err(NoHead::Gone) => return,
        };
        let (outcome, reply) = match &head {
            Ok(head) => site.answer(head),
            Err(status) => {
                (Outcome::Refused, Reply::text(status, "this is no request that can be understood\n"))
            }
        };
        outcome.count(&counters);
        let with_body = !head.is_ok_and(|head| head.method == "HEAD");
        // The client sees the answer or it does not; there is nothing else to do.
        let _ = send(&mut stream, &reply.bytes(with_body)).await;
    };
    if timeout(IN_ALL, one).await.is_err() {
        bump(&counters.http_port_timeout);
    }
}

/// Sends an answer and waits, for a moment, until the client has it.
pub(crate) async fn send(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    answer: &[u8],
) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER_BYTES);
    let _closed_or_not = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(())
}

#[cfg(test)]
mod tests;
