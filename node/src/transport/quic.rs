//! QUIC: one UDP socket that accepts and dials.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_proto::NodeId;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, Incoming, Runtime as _,
    TokioRuntime, TransportErrorCode,
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{
    AttemptError, CloseCode, DialError, JoinConnection, LinkEventSender, TransportCounters,
    counters::bump,
    gate::{Gate, Place},
    pipe::JoinPipe,
    quic_link::{LinkEnd, NewLink, canonical},
    race::{Connected, Race},
    stranded::watch_over,
    udp_filter::CountingSocket,
    unfinished::Unfinished,
};
use crate::tls::identity::{ALPN_MESH, Handshake, IdentityError, NodeIdentity};

/// TLS alert 120, `no_application_protocol` (RFC 7301), as a QUIC error code.
const NO_APPLICATION_PROTOCOL: u8 = 120;
/// How often the task that accepts shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// What strangers may use of this node.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Handshakes that may be unfinished at once; beyond, the oldest of the address (IPv6: of the
    /// /64) that has most is dropped.
    pub handshakes: usize,
    /// Within which a handshake must finish, its stream included.
    pub handshake_deadline: Duration,
    /// Connections that may ask for admission at once; beyond, the oldest that has not sent its
    /// request gives way, and if there is none the new one is told to try later.
    pub joins: usize,
    /// As many of them may come from one address (IPv6: one /64).
    pub joins_of_one_address: usize,
    /// How long such a connection keeps its place before it has sent its request, when another
    /// needs it.
    pub join_patience: Duration,
    /// Within which such a connection must be done.
    pub join_deadline: Duration,
    /// Accepted links of unknown keys that are not admitted (yet) at once; beyond, new ones are
    /// refused. Keys given to [`QuicTransport::know`] are not counted.
    pub strangers: usize,
    /// Within which [`super::LinkHandle::admit`] must be called.
    pub stranger_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 64,
            handshake_deadline: Duration::from_secs(5),
            joins: 16,
            joins_of_one_address: 4,
            join_patience: Duration::from_millis(500),
            join_deadline: Duration::from_secs(10),
            strangers: 32,
            stranger_deadline: Duration::from_secs(10),
        }
    }
}

/// The transport could not start.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The socket could not be used.
    #[error("the UDP socket cannot be used: {0}")]
    Socket(#[from] io::Error),
    /// The key could not be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The QUIC endpoint of this node. Cheap to clone; [`QuicTransport::shutdown`] ends it.
#[derive(Clone)]
pub struct QuicTransport {
    endpoint: Endpoint,
    client: ClientConfig,
    ourselves: NodeId,
    gate: Arc<Gate>,
    here: Arc<watch::Sender<BTreeSet<IpAddr>>>,
    heartbeat: Arc<AtomicU64>,
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl QuicTransport {
    /// Starts to accept on a bound UDP socket. Must be called within a tokio runtime.
    ///
    /// Links are announced on `events`, connections that ask for admission go to `joins`.
    ///
    /// # Errors
    /// [`TransportError`] when the socket or the key cannot be used.
    pub fn start(
        identity: &NodeIdentity,
        socket: std::net::UdpSocket,
        events: LinkEventSender,
        joins: mpsc::Sender<JoinConnection>,
        counters: Arc<TransportCounters>,
        limits: Limits,
    ) -> Result<Self, TransportError> {
        let runtime = Arc::new(TokioRuntime);
        let socket = runtime.wrap_udp_socket(socket)?;
        let socket = Arc::new(CountingSocket::new(socket, counters.clone()));
        let mut config = EndpointConfig::default();
        config.grease_quic_bit(false);
        let server = Some(identity.server_quic()?);
        let endpoint = Endpoint::new_with_abstract_socket(config, server, socket, runtime)?;
        let transport = Self {
            endpoint,
            client: identity.client_quic(ALPN_MESH)?,
            ourselves: identity.id(),
            gate: Arc::new(Gate::new(events, joins, counters, limits)),
            here: Arc::default(),
            heartbeat: Arc::default(),
        };
        tokio::spawn(Acceptor { transport: transport.clone() }.run());
        Ok(transport)
    }

    /// The bound address.
    ///
    /// # Errors
    /// Whatever the system says about the socket.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Rises every 2 s while connections are accepted; for the watchdog.
    pub fn heartbeat(&self) -> Arc<AtomicU64> {
        self.heartbeat.clone()
    }

    /// Tells who is in the roster, each time it changes: strangers, however many, cannot keep
    /// these nodes out. It admits nobody; [`super::LinkHandle::admit`] does.
    pub fn know(&self, nodes: BTreeSet<NodeId>) {
        self.gate.know(nodes);
    }

    /// What lets strangers in, for the other transport to share.
    pub(crate) fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    /// Tells the addresses of this machine's interfaces that are up, each time they change: links that
    /// go by another end. Until then none does.
    pub fn here(&self, addresses: BTreeSet<IpAddr>) {
        self.here.send_if_modified(|present| {
            let differs = *present != addresses;
            *present = addresses;
            differs
        });
    }

    /// Dials all addresses at once; the first that proves the expected key (any key but our
    /// own, when none is expected) becomes a link, which is announced as an event. The
    /// returned value tells when it is down again. Trying again is the caller's business.
    ///
    /// # Errors
    /// [`DialError`] names how each address failed.
    pub async fn dial(
        &self,
        expected: Option<NodeId>,
        addresses: &[SocketAddr],
    ) -> Result<(NodeId, LinkEnd), DialError> {
        let race = Race {
            endpoint: &self.endpoint,
            config: &self.client,
            ourselves: self.ourselves,
            expected,
            within: self.gate.limits.handshake_deadline,
        };
        let Connected { connection, peer, address } = race.run(addresses).await.inspect_err(|error| {
            if let DialError::Failed(failures) = error {
                let wrong = failures.iter().filter(|(_, e)| matches!(e, AttemptError::WrongKey { .. }));
                wrong.for_each(|_| bump(&self.gate.counters.wrong_key));
            }
        })?;
        let lost = |why: String| DialError::Failed(vec![(address, AttemptError::Refused(why))]);
        let (mut send, recv) = timeout(self.gate.limits.handshake_deadline, connection.open_bi())
            .await
            .map_err(|_| lost("it lets no stream be opened".into()))?
            .map_err(|error| lost(error.to_string()))?;
        // The peer sees the stream only when something is on it: an empty frame.
        send.write_all(&[0; 4]).await.map_err(|error| lost(error.to_string()))?;
        tokio::spawn(watch_over(connection.clone(), self.here.subscribe()));
        let link = NewLink {
            connection,
            send,
            recv,
            peer,
            dialed: true,
            stranger: None,
            admission_deadline: self.gate.limits.stranger_deadline,
        };
        Ok((peer, link.start(self.gate.events.clone(), self.gate.counters.clone())))
    }

    /// Closes every link and refuses new ones; returns when the peers have been told, or
    /// after `within`.
    pub async fn shutdown(&self, within: Duration) {
        self.endpoint.close(CloseCode::GoingDown.number().into(), b"");
        if timeout(within, self.endpoint.wait_idle()).await.is_err() {
            debug!("some peers did not acknowledge that this node goes down");
        }
    }
}

/// Closes a connection that is given up before its handshake is finished, by its deadline or because
/// others need the room: the table of the places holds it too, so that dropping it is not enough.
struct CloseUnlessFinished(Option<Connection>);

impl CloseUnlessFinished {
    fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseUnlessFinished {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.close(CloseCode::Deadline.number().into(), b"it opened no stream");
        }
    }
}

/// Accepts connections and brings each handshake to its end, within [`Limits`].
struct Acceptor {
    transport: QuicTransport,
}

impl Acceptor {
    async fn run(self) {
        let limits = self.transport.gate.limits;
        let counters = self.transport.gate.counters.clone();
        let (endpoint, heartbeat) = (self.transport.endpoint.clone(), self.transport.heartbeat());
        let this = Arc::new(self);
        let mut unfinished = Unfinished::new(limits.handshakes);
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming,
                _ = beat.tick() => {
                    heartbeat.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            let Some(incoming) = incoming else { return };
            // Under load a client must first show that it receives at its address.
            let loaded = unfinished.len() >= limits.handshakes / 4;
            if loaded && !incoming.remote_address_validated() && incoming.may_retry() {
                bump(&counters.address_validation);
                // An error hands the connection back because it may not retry: asked above.
                let _ = incoming.retry();
                continue;
            }
            let address = incoming.remote_address().ip();
            if unfinished.start(address, this.clone().handshake(incoming)) {
                bump(&counters.handshake_evicted);
            }
        }
    }

    /// Finishes one handshake and hands the connection on.
    async fn handshake(self: Arc<Self>, incoming: Incoming) {
        let gate = &self.transport.gate;
        let (limits, counters) = (gate.limits, &gate.counters);
        let address = canonical(incoming.remote_address());
        let deadline = Instant::now() + limits.handshake_deadline;
        let outcome = timeout_at(deadline, async {
            let connection = incoming.accept()?.await?;
            let Some(shake) = Handshake::of(&connection) else {
                connection.close(CloseCode::Misuse.number().into(), b"no raw public key");
                return Err(ConnectionError::LocallyClosed);
            };
            let Some(place) = gate.place(&shake, Arc::new(connection.clone()), address).await else {
                return Ok(None);
            };
            let unfinished = CloseUnlessFinished(Some(connection.clone()));
            let (send, recv) = connection.accept_bi().await?;
            unfinished.finished();
            Ok(Some((connection, shake, place, send, recv)))
        })
        .await;
        let (connection, shake, place, send, recv) = match outcome {
            Ok(Ok(Some(ready))) => ready,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => return self.count_failure(address, &error),
            Err(_elapsed) => {
                debug!(%address, "a QUIC handshake was not finished in time");
                return bump(&counters.handshake_timeout);
            }
        };
        let peer = shake.peer;
        let stranger = match place {
            Place::Join(place) => {
                return gate.join(peer, address, JoinPipe::quic(connection, send, recv), place);
            }
            Place::Stranger(place) => Some(place),
            Place::Known => None,
        };
        let admission_deadline = limits.stranger_deadline;
        tokio::spawn(watch_over(connection.clone(), self.transport.here.subscribe()));
        NewLink { connection, send, recv, peer, dialed: false, stranger, admission_deadline }
            .start(gate.events.clone(), counters.clone());
    }

    fn count_failure(&self, address: SocketAddr, error: &ConnectionError) {
        let counters = &self.transport.gate.counters;
        match error {
            // The losers of a race, and clients that gave up.
            ConnectionError::ApplicationClosed(_) | ConnectionError::Reset => {
                bump(&counters.handshake_abandoned)
            }
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::APPLICATION_ERROR =>
            {
                bump(&counters.handshake_abandoned);
            }
            ConnectionError::TimedOut => bump(&counters.handshake_timeout),
            ConnectionError::TransportError(error)
                if error.code == TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL) =>
            {
                warn!(%address, "a QUIC client speaks none of this node's protocols");
                bump(&counters.unknown_alpn);
            }
            error => {
                debug!(%address, %error, "a QUIC handshake failed");
                bump(&counters.handshake_failed);
            }
        }
    }
}
