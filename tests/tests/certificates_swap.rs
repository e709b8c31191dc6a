//! Certificates are swapped under load, and nobody notices: two hundred WebSockets of the API's side and fifty QUIC
//! links of the mesh go on through twenty swaps, and whoever comes new sees the new certificate at once.
//!
//! The port is what a node has: `listener::serve`, the web server behind it, and QUIC on the same number. What no
//! authority is needed for is made by the local one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::ws::{WebSocket, WebSocketUpgrade},
    routing::any,
};
use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use hearth_tests::daemon::trusting;
use node::{
    api::{metrics::Metrics, serve::HttpServer},
    listener::{TcpLimits, WebConnection, bind_ports, serve},
    tls::{LocalCa, NodeIdentity, WallClock, WebNames, WebResolver, acme::Domain},
    transport::{
        Channel, JoinConnection, Limits, LinkEvent, LinkEventReceiver, LinkHandle, LinkId, QuicTransport,
        TransportCounters, WebSocketTransport, link_events,
    },
};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName},
    sign::CertifiedKey,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

const WEBSOCKETS: usize = 200;
const LINKS: u8 = 50;
const SWAPS: u8 = 20;
/// So soon a new connection must see a new certificate.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
/// Longer than anything else here should take, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The name with the public certificate: one for which the authority of this test vouches.
const PUBLIC: &str = "pantry.local";
/// What the local certificate is for.
const LOCAL: &str = "localhost";

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// The authority, whose every certificate has another key.
struct Authority(LocalCa);

impl Authority {
    fn make(&self, hostname: &str) -> Arc<CertifiedKey> {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let names = WebNames { hostname: hostname.into(), addresses: Vec::new() };
        self.0.issue(&names, WallClock { unix, trusted: true }).unwrap().key
    }
}

/// What a node has on its port.
struct Port {
    address: SocketAddr,
    resolver: Arc<WebResolver>,
    node: NodeIdentity,
    counters: Arc<TransportCounters>,
    clients: Arc<ClientConfig>,
    _stop: watch::Sender<bool>,
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Sends back what comes over each link.
async fn reflect(mut events: LinkEventReceiver) {
    let mut links: BTreeMap<LinkId, LinkHandle> = BTreeMap::new();
    while let Some(event) = events.recv().await {
        match event {
            LinkEvent::Up { link, handle, .. } => {
                handle.admit();
                links.insert(link, handle);
            }
            LinkEvent::Frame { link, channel, bytes } => {
                let _ = links[&link].try_send(channel, bytes);
            }
            LinkEvent::Down { link, .. } => drop(links.remove(&link)),
            _ => {}
        }
    }
}

impl Port {
    async fn open(authority: &Authority) -> Self {
        let resolver = WebResolver::new(authority.make("kitchen"));
        let ports = bind_ports("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (node, counters) = (NodeIdentity::from_seed(&[255; 32]).unwrap(), Arc::default());
        let (events, received) = link_events();
        let (joins, mut joining) = mpsc::channel::<JoinConnection>(1);
        tokio::spawn(async move { while joining.recv().await.is_some() {} });
        let limits = Limits::default();
        let quic =
            QuicTransport::start(&node, ports.udp, events, joins, Arc::clone(&counters), limits).unwrap();
        let members = (0..LINKS).map(|seed| peer(seed).id()).collect();
        quic.know(members);
        tokio::spawn(reflect(received));
        let (stop, shutdown) = watch::channel(false);
        let router =
            Router::new().route("/echo", any(|upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo) }));
        let http = HttpServer::new(router, Arc::new(Metrics::default()), shutdown);
        let (web, mut connections) = mpsc::channel::<WebConnection>(32);
        tokio::spawn(async move {
            while let Some(connection) = connections.recv().await {
                let http = http.clone();
                tokio::spawn(
                    async move { http.serve_stream(connection.stream, Some(connection.guest)).await },
                );
            }
        });
        let websocket = WebSocketTransport::new(&node, &quic).unwrap();
        let tls = Arc::new(resolver.web_tls().unwrap());
        // Nobody here shows a token, and all come from one address.
        let limits = TcpLimits {
            guests: 2 * WEBSOCKETS,
            all_guests: 2 * WEBSOCKETS,
            handshakes: 2 * WEBSOCKETS,
            deadline: PATIENCE,
        };
        let port = serve(ports.tcp, tls.into(), websocket, web, Arc::clone(&counters), limits);
        tokio::spawn(port);
        let clients = Arc::new(trusting(authority.0.ca_pem()).unwrap());
        Self { address: ports.address, resolver, node, counters, clients, _stop: stop }
    }

    /// A new connection, by which the certificate can be seen.
    async fn connect(&self, name: &'static str) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        in_time("the handshake", TlsConnector::from(self.clients.clone()).connect(name, stream))
            .await
            .unwrap()
    }

    async fn shown(&self, name: &'static str) -> CertificateDer<'static> {
        certificate(&self.connect(name).await)
    }
}

fn certificate(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// A client that has a WebSocket open.
struct Observer {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    first: CertificateDer<'static>,
    number: usize,
}

impl Observer {
    async fn open(port: &Port, number: usize) -> Self {
        let name = if number.is_multiple_of(2) { PUBLIC } else { LOCAL };
        let stream = port.connect(name).await;
        let first = certificate(&stream);
        let upgrade = client_async(format!("wss://{name}/echo"), stream);
        let (socket, _) = in_time("the upgrade", upgrade).await.unwrap();
        Self { socket, first, number }
    }

    async fn is_served(&mut self, round: u8) {
        let text = format!("{} in round {round}", self.number);
        self.socket.send(Message::text(text.clone())).await.unwrap();
        let answer = in_time("an echo over a WebSocket", self.socket.next()).await.unwrap().unwrap();
        assert_eq!(answer, Message::text(text));
        assert_eq!(certificate(self.socket.get_ref()), self.first, "a running connection keeps its own");
    }
}

fn peer(seed: u8) -> NodeIdentity {
    NodeIdentity::from_seed(&[seed; 32]).unwrap()
}

/// Another node that is linked.
struct Peer {
    events: LinkEventReceiver,
    handle: LinkHandle,
    _quic: QuicTransport,
}

impl Peer {
    async fn link(port: &Port, seed: u8) -> Self {
        let (sender, mut events) = link_events();
        let (joins, _) = mpsc::channel(1);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let quic =
            QuicTransport::start(&peer(seed), socket, sender, joins, Arc::default(), Limits::default())
                .unwrap();
        in_time("the dial", quic.dial(Some(port.node.id()), &[port.address])).await.unwrap();
        let event = in_time("the link", events.recv()).await.unwrap();
        let LinkEvent::Up { handle, .. } = event else { panic!("{event:?}") };
        handle.admit();
        Self { events, handle, _quic: quic }
    }

    async fn is_served(&mut self, round: u8) {
        let sent = vec![round; 16];
        self.handle.try_send(Channel::Stream, sent.clone().into()).unwrap();
        match in_time("an echo over QUIC", self.events.recv()).await.unwrap() {
            LinkEvent::Frame { bytes, .. } => assert_eq!(bytes, sent),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_swaps_drop_none_of_two_hundred_and_fifty_connections() {
    let authority = Authority(LocalCa::generate("kitchen").unwrap());
    let port = Port::open(&authority).await;
    let public: Vec<Domain> = vec![PUBLIC.parse().unwrap()];
    port.resolver.set_public(authority.make("pantry"), public.clone());
    let mut observers = join_all((0..WEBSOCKETS).map(|number| Observer::open(&port, number))).await;
    let mut peers = join_all((0..LINKS).map(|seed| Peer::link(&port, seed))).await;
    for round in 0..SWAPS {
        // Sent before the swap, and answered after it.
        let (next_public, next_local) = (authority.make("pantry"), authority.make("kitchen"));
        let swapping = async {
            port.resolver.set_public(next_public.clone(), public.clone());
            port.resolver.swap(next_local.clone());
            let seen = async { (port.shown(PUBLIC).await, port.shown(LOCAL).await) };
            let seen = timeout(SEEN_WITHIN, seen).await.expect("new connections within a second");
            assert_eq!(seen, (next_public.cert[0].clone(), next_local.cert[0].clone()), "round {round}");
        };
        let observing = join_all(observers.iter_mut().map(|observer| observer.is_served(round)));
        let linked = join_all(peers.iter_mut().map(|peer| peer.is_served(round)));
        tokio::join!(swapping, observing, linked);
    }
    for (counter, wanted) in [("link_up", u64::from(LINKS)), ("link_down", 0), ("tcp_handshake_failed", 0)] {
        assert_eq!(port.counters.get(counter), wanted, "{counter}");
    }
}
