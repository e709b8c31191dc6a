//! Links over real QUIC on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{net::UdpSocket, sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::task::JoinSet;

use super::{dialer::By, testing::*, *};
use crate::tls::identity::{ALPN_JOIN, ALPN_MESH, NodeIdentity, SERVER_NAME};

/// Shows that a good peer is served: a new link carries a frame there and back.
async fn serves_a_good_peer(server: &mut TestNode, seed: u8) {
    let mut good = TestNode::start(seed);
    good.dial(server).await.unwrap();
    let out = good.up().await;
    out.try_send(Channel::Stream, Bytes::from_static(b"ping")).unwrap();
    let mut back = None;
    loop {
        match server.event().await {
            LinkEvent::Up { handle, peer, .. } if peer == good.identity.id() => {
                handle.admit();
                back = Some(handle);
            }
            LinkEvent::Frame { link, bytes, .. } if back.as_ref().is_some_and(|h| h.id() == link) => {
                assert_eq!(bytes, "ping");
                break;
            }
            _ => {}
        }
    }
    back.as_ref().unwrap().try_send(Channel::Stream, Bytes::from_static(b"pong")).unwrap();
    assert_eq!(good.frame().await.1, "pong");
}

fn client(config: quinn::ClientConfig) -> quinn::Endpoint {
    let mut endpoint = quinn::Endpoint::client(loopback()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

async fn raw_connection(seed: u8, server: &TestNode, alpn: &[u8]) -> quinn::Connection {
    let endpoint = client(identity(seed).client_quic(alpn).unwrap());
    endpoint.connect(server.address, SERVER_NAME).unwrap().await.unwrap()
}

fn close_code(error: &quinn::ConnectionError) -> CloseCode {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            CloseCode::from_number(close.error_code.into_inner())
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn frames_and_datagrams_travel_both_ways() {
    let (mut a, mut b) = (TestNode::start(1), TestNode::start(2));
    a.dial(&b).await.unwrap();
    let LinkEvent::Up { handle: to_b, peer, address, dialed, .. } = a.event().await else { panic!() };
    assert_eq!((peer, address, dialed), (b.identity.id(), b.address, true));
    let LinkEvent::Up { handle: to_a, peer, dialed, .. } = b.event().await else { panic!() };
    assert_eq!((peer, dialed), (a.identity.id(), false));
    to_a.admit();
    to_b.admit();

    let large = Bytes::from(vec![7; MAX_FRAME]);
    for frame in [Bytes::from_static(b"one"), Bytes::from_static(b"two")] {
        to_b.try_send(Channel::Stream, frame.clone()).unwrap();
        assert_eq!(b.frame().await, (Channel::Stream, frame));
    }
    to_a.try_send(Channel::Stream, large.clone()).unwrap();
    assert_eq!(a.frame().await, (Channel::Stream, large));
    for (from, to) in [(&to_a, &mut a), (&to_b, &mut b)] {
        from.try_send(Channel::Datagram, Bytes::from(vec![9; MAX_DATAGRAM])).unwrap();
        assert_eq!(to.frame().await, (Channel::Datagram, Bytes::from(vec![9; MAX_DATAGRAM])));
    }
    assert_eq!(to_b.address(), b.address);
    assert!(to_b.rtt() < Duration::from_secs(1));
    assert_eq!(
        to_a.try_send(Channel::Stream, Bytes::from(vec![0; MAX_FRAME + 1])),
        Err(SendError::TooLarge(MAX_FRAME + 1))
    );
    to_a.try_send(Channel::Datagram, Bytes::from(vec![0; MAX_DATAGRAM + 1])).unwrap();
    assert_eq!(b.counters.get("datagram_dropped"), 1);

    to_a.close(CloseCode::Revoked, "removed by an admin");
    assert_eq!(b.down().await, DownReason::ClosedHere(CloseCode::Revoked));
    let reason = a.down().await;
    assert_eq!(reason, DownReason::ClosedByPeer(CloseCode::Revoked, "removed by an admin".into()));
    assert_eq!(to_b.try_send(Channel::Stream, Bytes::from_static(b"x")), Err(SendError::Down));
}

#[tokio::test]
async fn dropping_the_handle_closes_the_link() {
    let (mut a, mut b) = (TestNode::start(1), TestNode::start(2));
    let (to_b, _to_a) = linked(&mut a, &mut b).await;
    drop(to_b);
    assert_eq!(a.down().await, DownReason::ClosedHere(CloseCode::Done));
    assert_eq!(b.down().await, DownReason::ClosedByPeer(CloseCode::Done, String::new()));
}

/// Carries packets between two sockets until it is told to drop them.
async fn cable(to: SocketAddr, passes: Arc<std::sync::atomic::AtomicBool>) -> SocketAddr {
    let near = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let far = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let address = near.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut one, mut other, mut client) = ([0; 2_048], [0; 2_048], None);
        loop {
            tokio::select! {
                Ok((length, from)) = near.recv_from(&mut one) => {
                    client = Some(from);
                    if passes.load(std::sync::atomic::Ordering::SeqCst) {
                        far.send_to(&one[..length], to).await.unwrap();
                    }
                }
                Ok((length, _)) = far.recv_from(&mut other) => {
                    if let Some(client) = client && passes.load(std::sync::atomic::Ordering::SeqCst) {
                        near.send_to(&other[..length], client).await.unwrap();
                    }
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn a_link_whose_packets_are_dropped_is_silent_long_before_it_is_given_up() {
    let passes = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (mut a, mut b) = (TestNode::start(1), TestNode::start(2));
    let through = cable(b.address, passes.clone()).await;
    a.transport.dial(Some(b.identity.id()), &[through]).await.map(|_| ()).unwrap();
    let (_to_b, _to_a) = (a.up().await, b.up().await);
    // At rest nothing is silent: pings are answered.
    let quiet = tokio::time::timeout(crate::tls::identity::KEEP_ALIVE * 3, a.event()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let cut = tokio::time::Instant::now();
    passes.store(false, std::sync::atomic::Ordering::SeqCst);
    for node in [&mut a, &mut b] {
        let LinkEvent::Silent { is_silent: true, .. } = node.event().await else { panic!() };
    }
    let noticed = cut.elapsed();
    assert!(noticed < crate::tls::identity::IDLE_TIMEOUT / 2, "{noticed:?}");
    passes.store(true, std::sync::atomic::Ordering::SeqCst);
    for node in [&mut a, &mut b] {
        let LinkEvent::Silent { is_silent: false, .. } = node.event().await else { panic!() };
        assert_eq!(node.counters.get("link_silent"), 1);
    }
}

#[tokio::test]
async fn shutdown_tells_the_peers() {
    let (mut a, mut b) = (TestNode::start(1), TestNode::start(2));
    let _handles = linked(&mut a, &mut b).await;
    a.transport.shutdown(PATIENCE).await;
    assert_eq!(b.down().await, DownReason::ClosedByPeer(CloseCode::GoingDown, String::new()));
    assert_eq!(a.down().await, DownReason::ClosedHere(CloseCode::GoingDown));
}

#[tokio::test]
async fn a_slow_event_loop_stops_the_sender_and_loses_nothing() {
    const FRAME: usize = 10_000;
    let (mut a, mut b) = (TestNode::start(1), TestNode::start(2));
    let (to_b, _to_a) = linked(&mut a, &mut b).await;
    let frame = |n: u32| [n.to_be_bytes().as_slice(), &[0; FRAME - 4]].concat();
    // Nobody receives at b: the sender is told to wait, and waits for good.
    let mut sent = 0;
    let mut stalled = false;
    while !stalled {
        match to_b.try_send(Channel::Stream, frame(sent).into()) {
            Ok(()) => sent += 1,
            Err(SendError::Full) => {
                let writable = tokio::time::timeout(Duration::from_millis(500), a.events.recv()).await;
                stalled = writable.is_err();
            }
            Err(other) => panic!("{other}"),
        }
        // Queue, send window, receive windows and event budget, all bounded: under 6 MB together.
        assert!(sent as usize * FRAME < 6 << 20, "{sent} frames were taken");
    }
    assert!(sent as usize * FRAME > 2 << 20, "only {sent} frames before the stall");
    // What was taken arrives, whole and in order.
    for expected in 0..sent {
        assert_eq!(b.frame().await.1, frame(expected));
    }
    let LinkEvent::Writable { link } = a.event().await else { panic!() };
    assert_eq!(link, to_b.id());
    to_b.try_send(Channel::Stream, frame(sent).into()).unwrap();
    assert_eq!(b.frame().await.1, frame(sent));
}

#[tokio::test]
async fn another_key_than_the_expected_one_is_refused() {
    let (a, b) = (TestNode::start(1), TestNode::start(2));
    let expected = identity(3).id();
    let error = a.transport.dial(Some(expected), &[b.address]).await.unwrap_err();
    let wrong = AttemptError::WrongKey { expected, found: b.identity.id() };
    assert_eq!(error, DialError::Failed(vec![(b.address, wrong)]));
    assert!(error.to_string().contains(&b.address.to_string()), "{error}");
    assert_eq!(a.counters.get("wrong_key"), 1);
    let error = a.transport.dial(None, &[a.address]).await.unwrap_err();
    assert_eq!(error, DialError::Failed(vec![(a.address, AttemptError::Ourselves)]));
    assert_eq!(a.transport.dial(None, &[]).await.unwrap_err(), DialError::NoAddress);
    eventually("the refused connections are seen as given up", || {
        b.counters.get("handshake_abandoned") == 1 && a.counters.get("handshake_abandoned") == 1
    })
    .await;
    assert_eq!(b.counters.get("link_up"), 0);
}

#[tokio::test]
async fn the_first_good_address_wins() {
    let (mut a, mut b) = (TestNode::start(1), TestNode::start(2));
    let silent = UdpSocket::bind(loopback()).unwrap();
    let other = TestNode::start(3);
    let addresses = [silent.local_addr().unwrap(), other.address, b.address];
    a.transport.dial(Some(b.identity.id()), &addresses).await.unwrap();
    assert_eq!(a.up().await.peer(), b.identity.id());
    assert_eq!(b.up().await.peer(), a.identity.id());
    assert_eq!(other.counters.get("link_up"), 0);
}

#[tokio::test]
async fn a_silent_address_is_named_in_the_error() {
    let limits = Limits { handshake_deadline: Duration::from_millis(300), ..Limits::default() };
    let a = TestNode::with_limits(1, limits);
    let silent = UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
    let error = a.transport.dial(None, &[silent]).await.unwrap_err();
    assert!(error.to_string().contains(&silent.to_string()), "{error}");
}

#[tokio::test]
async fn a_new_address_is_dialled_while_an_old_one_is_silent() {
    let mut a = TestNode::start(1);
    let mut b = TestNode::start(2);
    let silent = UdpSocket::bind(loopback()).unwrap();
    let target = Target::Node(b.identity.id());
    let (wanted, receiver) = tokio::sync::watch::channel(wants(&target, &[silent.local_addr().unwrap()]));
    let _dialer = tokio::spawn(Dialer::new(a.transport.clone(), receiver).run());
    // The dial is under way: its first packet is there.
    silent.set_nonblocking(true).unwrap();
    eventually("the silent address is dialled", || silent.recv(&mut [0; 2_048]).is_ok()).await;
    let since = tokio::time::Instant::now();
    wanted.send_modify(|wanted| {
        wanted.targets.insert(target, vec![silent.local_addr().unwrap(), b.address]);
    });
    assert_eq!(a.up().await.peer(), b.identity.id());
    assert_eq!(b.up().await.peer(), a.identity.id());
    assert!(since.elapsed() < Limits::default().handshake_deadline, "it was not waited for the silent one");
}

#[tokio::test]
async fn random_packets_are_counted_and_a_good_peer_is_served() {
    let mut server = TestNode::start(1);
    let socket = UdpSocket::bind(loopback()).unwrap();
    let mut state = 0x9e37_79b9_u32;
    for size in (1..1_200).step_by(3) {
        let packet: Vec<u8> = (0..size)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        socket.send_to(&packet, server.address).unwrap();
    }
    serves_a_good_peer(&mut server, 2).await;
    // About half of all random bytes lack the fixed bit.
    eventually("random packets are counted", || server.counters.get("udp_not_quic") > 50).await;
}

#[tokio::test]
async fn half_a_handshake_is_dropped_and_a_good_peer_is_served() {
    let limits = Limits { handshake_deadline: Duration::from_millis(400), ..Limits::default() };
    let mut server = TestNode::with_limits(1, limits);
    // The first packet of a real client, sent by somebody who never answers.
    let trap = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let endpoint = client(identity(2).client_quic(ALPN_MESH).unwrap());
    let _connecting = endpoint.connect(trap.local_addr().unwrap(), SERVER_NAME).unwrap();
    let mut initial = vec![0; 2_000];
    let size = trap.recv(&mut initial).await.unwrap();
    let silent = UdpSocket::bind(loopback()).unwrap();
    silent.send_to(&initial[..size], server.address).unwrap();
    serves_a_good_peer(&mut server, 3).await;
    eventually("the half handshake times out", || server.counters.get("handshake_timeout") == 1).await;
}

#[tokio::test]
async fn a_connection_that_opens_no_stream_is_dropped() {
    let limits = Limits { handshake_deadline: Duration::from_millis(400), ..Limits::default() };
    let mut server = TestNode::with_limits(1, limits);
    for (number, alpn) in (1..).zip([ALPN_MESH, ALPN_JOIN]) {
        let slow = raw_connection(2, &server, alpn).await;
        serves_a_good_peer(&mut server, 3).await;
        // A tenth of what it would take without a word from the server.
        let closed = tokio::time::timeout(PATIENCE / 10, slow.closed()).await;
        assert_eq!(close_code(&closed.expect("it is told")), CloseCode::Deadline);
        assert_eq!(server.counters.get("handshake_timeout"), number);
    }
}

#[tokio::test]
async fn a_join_is_closed_when_nobody_admits_any_more() {
    let mut server = TestNode::start(1);
    server.joins.close();
    let connection = raw_connection(2, &server, ALPN_JOIN).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let closed = tokio::time::timeout(PATIENCE / 10, connection.closed()).await;
    assert_eq!(close_code(&closed.expect("it is told")), CloseCode::Busy);
    assert_eq!(server.counters.get("join_busy"), 1);
}

#[tokio::test]
async fn many_slow_handshakes_do_not_keep_a_good_peer_out() {
    let limits = Limits { handshakes: 8, ..Limits::default() };
    let mut server = TestNode::with_limits(1, limits);
    let endpoint = client(identity(2).client_quic(ALPN_MESH).unwrap());
    let mut slow = Vec::new();
    for _ in 0..12 {
        slow.push(endpoint.connect(server.address, SERVER_NAME).unwrap().await.unwrap());
    }
    serves_a_good_peer(&mut server, 3).await;
    assert!(server.counters.get("handshake_evicted") >= 4);
    assert!(server.counters.get("address_validation") >= 4);
}

#[tokio::test]
async fn an_oversized_frame_closes_its_link_and_no_other() {
    let mut server = TestNode::start(1);
    let hostile = raw_connection(2, &server, ALPN_MESH).await;
    let (mut send, _recv) = hostile.open_bi().await.unwrap();
    send.write_all(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]).await.unwrap();
    let _handle = server.up().await;
    assert_eq!(server.down().await, DownReason::Oversized(u32::MAX));
    assert_eq!(close_code(&hostile.closed().await), CloseCode::Oversized);
    assert_eq!(server.counters.get("oversized_frame"), 1);
    serves_a_good_peer(&mut server, 3).await;
}

#[tokio::test]
async fn a_stream_that_ends_is_misuse() {
    let mut server = TestNode::start(1);
    let odd = raw_connection(2, &server, ALPN_MESH).await;
    let (mut send, _recv) = odd.open_bi().await.unwrap();
    send.write_all(&[0; 4]).await.unwrap();
    send.finish().unwrap();
    let _handle = server.up().await;
    assert_eq!(server.down().await, DownReason::ClosedHere(CloseCode::Misuse));
}

#[tokio::test]
async fn clients_with_other_protocols_or_no_key_are_refused_by_name() {
    let mut server = TestNode::start(1);
    let endpoint = client(identity(2).client_quic(b"h3").unwrap());
    let error = endpoint.connect(server.address, SERVER_NAME).unwrap().await.unwrap_err();
    assert!(error.to_string().contains("120") || error.to_string().contains("application"), "{error}");
    assert_eq!(server.counters.get("unknown_alpn"), 1);

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN_MESH.to_vec()];
    let endpoint = client(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
    endpoint.connect(server.address, SERVER_NAME).unwrap().await.unwrap_err();
    eventually("the failure is counted", || server.counters.get("handshake_failed") == 1).await;
    serves_a_good_peer(&mut server, 3).await;
}

#[tokio::test]
async fn a_key_that_is_not_admitted_in_time_loses_its_link() {
    let limits =
        Limits { strangers: 1, stranger_deadline: Duration::from_millis(1_000), ..Limits::default() };
    let mut server = TestNode::with_limits(1, limits);
    let stranger = raw_connection(2, &server, ALPN_MESH).await;
    let (mut send, _recv) = stranger.open_bi().await.unwrap();
    send.write_all(&[0; 4]).await.unwrap();
    let LinkEvent::Up { handle: _kept, .. } = server.event().await else { panic!() };
    let second = raw_connection(3, &server, ALPN_MESH).await;
    assert_eq!(close_code(&second.closed().await), CloseCode::Busy);
    assert_eq!(server.counters.get("stranger_busy"), 1);
    // A node of the roster is let in all the same.
    server.transport.know([identity(5).id()].into());
    let mut member = TestNode::start(5);
    member.dial(&server).await.unwrap();
    let _to_server = member.up().await;
    let LinkEvent::Up { handle: member_link, .. } = server.event().await else { panic!() };
    member_link.admit();
    assert_eq!(server.down().await, DownReason::ClosedHere(CloseCode::NotAdmitted));
    assert_eq!(close_code(&stranger.closed().await), CloseCode::NotAdmitted);
    assert_eq!(server.counters.get("stranger_timeout"), 1);
    serves_a_good_peer(&mut server, 4).await;
}

#[tokio::test]
async fn joining_connections_are_bounded_and_never_become_links() {
    let limits = Limits { joins: 2, join_patience: PATIENCE, ..Limits::default() };
    let mut server = TestNode::with_limits(1, limits);
    let mut asking = Vec::new();
    for seed in 2..4 {
        let connection = raw_connection(seed, &server, ALPN_JOIN).await;
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        let join = tokio::time::timeout(PATIENCE, server.joins.recv()).await.unwrap().unwrap();
        assert_eq!(join.peer, identity(seed).id());
        asking.push((connection, send, recv, join));
    }
    let third = raw_connection(9, &server, ALPN_JOIN).await;
    assert_eq!(close_code(&third.closed().await), CloseCode::Busy);
    assert_eq!(server.counters.get("join_busy"), 1);
    assert_eq!(server.counters.get("link_up"), 0);
    serves_a_good_peer(&mut server, 4).await;
}

#[tokio::test]
async fn the_dialer_finds_a_peer_that_starts_late_and_returns_after_a_loss() {
    let mut a = TestNode::start(1);
    let reserved = UdpSocket::bind(loopback()).unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let (wanted, receiver) = tokio::sync::watch::channel(Wanted::default());
    let dialer = tokio::spawn(Dialer::new(a.transport.clone(), receiver).run());
    let identity: NodeIdentity = identity(2);
    wanted.send_modify(|wanted| {
        wanted.targets.insert(Target::Node(identity.id()), vec![address]);
    });
    let mut server = TestNode::start(2);
    // The address it was first known by is dead; a new one becomes known.
    wanted.send_modify(|wanted| {
        wanted.targets.insert(Target::Node(identity.id()), vec![address, server.address]);
    });
    let first = a.up().await;
    let _first_back = server.up().await;
    first.close(CloseCode::Duplicate, "");
    a.down().await;
    server.down().await;
    let _second = a.up().await;
    let _second_back = server.up().await;
    drop(wanted);
    tokio::time::timeout(PATIENCE, dialer).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_dialer_reaches_a_peer_by_its_name() {
    let mut a = TestNode::start(1);
    let mut server = TestNode::start(2);
    let unknown = dialer::Dial::resolve(&a.transport, "a..b", 7843).await.unwrap_err();
    assert!(unknown.to_string().starts_with("the name `a..b` cannot be resolved"), "{unknown}");
    let target = Target::Host { name: "localhost".into(), port: server.address.port() };
    let (_wanted, receiver) = tokio::sync::watch::channel(wants(&target, &[]));
    let _dialer = tokio::spawn(Dialer::new(a.transport.clone(), receiver).run());
    assert_eq!(a.up().await.peer(), server.identity.id());
    assert_eq!(server.up().await.peer(), a.identity.id());
}

type Calls = tokio::sync::mpsc::UnboundedReceiver<(tokio::time::Instant, By)>;

/// Dials that are told as they happen; they fail, or become a link for as long as is said.
struct Scripted {
    calls: tokio::sync::mpsc::UnboundedSender<(tokio::time::Instant, By)>,
    /// The names that lead somewhere, and where.
    names: Arc<std::sync::Mutex<Vec<(&'static str, SocketAddr)>>>,
    answers: Option<(NodeId, Duration)>,
}

impl dialer::Dial for Scripted {
    async fn resolve(&self, name: &str, _port: u16) -> Result<Vec<SocketAddr>, DialError> {
        let found = self.names.lock().unwrap().iter().find(|(known, _)| *known == name).map(|(_, at)| *at);
        let reason = "no such name".to_owned();
        found.map(|at| vec![at]).ok_or(DialError::Unresolved { name: name.to_owned(), reason })
    }

    async fn dial(
        &self,
        _expected: Option<NodeId>,
        _addresses: &[SocketAddr],
        by: By,
    ) -> Result<(NodeId, impl Future<Output = ()> + Send), DialError> {
        self.calls.send((tokio::time::Instant::now(), by)).unwrap();
        let (node, lives) = self.answers.ok_or(DialError::NoAddress)?;
        Ok((node, tokio::time::sleep(lives)))
    }
}

fn scripted(answers: Option<(NodeId, Duration)>) -> (Scripted, Calls) {
    #[expect(clippy::disallowed_methods, reason = "the dialer paces what is sent here")]
    let (calls, seen) = tokio::sync::mpsc::unbounded_channel();
    (Scripted { calls, names: Arc::default(), answers }, seen)
}

/// A link with which there is nothing wrong.
fn good(address: SocketAddr) -> Linked {
    Linked { address, transport: TransportKind::Quic, is_silent: false }
}

#[tokio::test(start_paused = true)]
async fn quic_is_tried_again_while_the_link_is_a_websocket() {
    let node = identity(7).id();
    let (dial, mut seen) = scripted(None);
    let target = Target::Node(node);
    let mut first = wants(&target, &[loopback()]);
    let websocket = Linked { transport: TransportKind::WebSocket, ..good(loopback()) };
    first.linked.insert(node, websocket);
    let (wanted, receiver) = tokio::sync::watch::channel(first);
    let (ours, our_addresses) = tokio::sync::watch::channel(Vec::new());
    let every = Duration::from_secs(300);
    let start = tokio::time::Instant::now();
    let _dialer = tokio::spawn(Dialer::new(dial, receiver).retry_quic(every, our_addresses).run());
    for round in 1..4 {
        let (at, by) = seen.recv().await.unwrap();
        assert_eq!(by, By::Quic);
        assert!((at - start).abs_diff(every * round) < Duration::from_secs(1), "{:?}", at - start);
    }
    // An interface comes up here, and then the node has a new address.
    for change in 0..2 {
        let before = tokio::time::Instant::now();
        if change == 0 {
            ours.send_replace(vec![loopback()]);
        } else {
            let news = vec![loopback(), "[::1]:9".parse().unwrap()];
            wanted.send_modify(|wanted| drop(wanted.targets.insert(target.clone(), news)));
        }
        assert_eq!(seen.recv().await.unwrap(), (before, By::Quic));
    }
    wanted.send_modify(|wanted| {
        wanted.linked.insert(node, good(loopback()));
    });
    assert!(tokio::time::timeout(every * 10, seen.recv()).await.is_err(), "it is QUIC already");
}

#[tokio::test(start_paused = true)]
async fn a_silent_link_is_looked_past_at_once_whoever_dialled_it() {
    let node = identity(7).id();
    let (dial, mut seen) = scripted(Some((node, Duration::from_secs(3_600))));
    let target = Target::Node(node);
    let mut first = wants(&target, &[loopback()]);
    first.linked.insert(node, good(loopback()));
    let (wanted, receiver) = tokio::sync::watch::channel(first);
    let _dialer = tokio::spawn(Dialer::new(dial, receiver).run());
    assert!(tokio::time::timeout(Duration::from_secs(600), seen.recv()).await.is_err());
    let silent = Linked { is_silent: true, ..good(loopback()) };
    let before = tokio::time::Instant::now();
    wanted.send_modify(|wanted| {
        wanted.linked.insert(node, silent);
    });
    let at_once = (before, By::Either { head_start: Duration::ZERO });
    assert_eq!(seen.recv().await.unwrap(), at_once);
    // What has opened takes over.
    let websocket = Linked { transport: TransportKind::WebSocket, ..good(loopback()) };
    wanted.send_modify(|wanted| {
        wanted.linked.insert(node, websocket);
    });
    assert!(tokio::time::timeout(Duration::from_secs(200), seen.recv()).await.is_err());
}

fn host(name: &str) -> Target {
    Target::Host { name: name.into(), port: 7843 }
}

fn wants(target: &Target, addresses: &[SocketAddr]) -> Wanted {
    Wanted { targets: [(target.clone(), addresses.to_vec())].into(), ..Wanted::default() }
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_to_their_limit_and_new_addresses_cut_them_short() {
    let (dial, mut seen) = scripted(None);
    let target = Target::Node(identity(7).id());
    let (wanted, receiver) = tokio::sync::watch::channel(wants(&target, &[]));
    let _dialer = tokio::spawn(Dialer::new(dial, receiver).run());
    let (mut last, by) = seen.recv().await.unwrap();
    assert_eq!(by, By::Either { head_start: dialer::HEAD_START });
    let mut longest = dialer::FIRST_PAUSE;
    for _ in 0..9 {
        let (next, _) = seen.recv().await.unwrap();
        let pause = next - last;
        assert!(
            pause >= longest / 2 && pause <= longest + Duration::from_millis(2),
            "{pause:?} of {longest:?}"
        );
        longest = (longest * 2).min(dialer::LONGEST_PAUSE);
        last = next;
    }
    wanted.send_modify(|wanted| {
        wanted.targets.insert(target, vec![loopback()]);
    });
    assert_eq!(seen.recv().await.unwrap().0, last, "news are dialled at once");
    wanted.send_modify(|wanted| wanted.targets.clear());
    let nothing = tokio::time::timeout(Duration::from_secs(60), seen.recv()).await;
    assert!(nothing.is_err(), "a target taken out is not dialled");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_nowhere_yet_is_looked_up_again_until_it_leads_somewhere() {
    let (dial, mut seen) = scripted(Some((identity(7).id(), Duration::from_secs(3_600))));
    let names = dial.names.clone();
    let (_wanted, receiver) = tokio::sync::watch::channel(wants(&host("attic.lan"), &[]));
    let _dialer = tokio::spawn(Dialer::new(dial, receiver).run());
    let minutes = Duration::from_secs(300);
    assert!(tokio::time::timeout(minutes, seen.recv()).await.is_err(), "there is nothing to dial");
    names.lock().unwrap().push(("attic.lan", loopback()));
    let within = dialer::LONGEST_PAUSE + Duration::from_secs(1);
    assert!(tokio::time::timeout(within, seen.recv()).await.is_ok(), "the router is back");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_linked_is_not_dialled_by_its_name_until_the_link_is_gone() {
    let node = identity(7).id();
    let (dial, mut seen) = scripted(Some((node, Duration::from_secs(1))));
    dial.names.lock().unwrap().push(("attic.lan", loopback()));
    let (wanted, receiver) = tokio::sync::watch::channel(wants(&host("attic.lan"), &[]));
    let _dialer = tokio::spawn(Dialer::new(dial, receiver).run());
    seen.recv().await.unwrap();
    // The link of another task, from elsewhere, takes the place of the one dialled here.
    wanted.send_modify(|wanted| {
        wanted.linked.insert(node, good("[::1]:9".parse().unwrap()));
    });
    let hours = Duration::from_secs(7_200);
    assert!(tokio::time::timeout(hours, seen.recv()).await.is_err(), "one link is enough");
    wanted.send_modify(|wanted| wanted.linked.clear());
    assert!(tokio::time::timeout(hours, seen.recv()).await.is_ok(), "it is wanted again");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_to_a_linked_address_is_met_from_the_start() {
    let (dial, mut seen) = scripted(Some((identity(7).id(), Duration::from_secs(3_600))));
    dial.names.lock().unwrap().push(("attic.lan", loopback()));
    let mut first = wants(&host("attic.lan"), &[]);
    first.linked.insert(identity(7).id(), good(loopback()));
    let (wanted, receiver) = tokio::sync::watch::channel(first);
    let _dialer = tokio::spawn(Dialer::new(dial, receiver).run());
    assert!(tokio::time::timeout(Duration::from_secs(600), seen.recv()).await.is_err());
    wanted.send_modify(|wanted| wanted.linked.clear());
    assert!(tokio::time::timeout(Duration::from_secs(600), seen.recv()).await.is_ok());
}

#[tokio::test]
async fn many_links_at_once_all_come_up() {
    let mut server = TestNode::start(1);
    let mut dials = JoinSet::new();
    let peers: Vec<TestNode> = (10..26).map(TestNode::start).collect();
    for peer in &peers {
        let (transport, id, address) = (peer.transport.clone(), server.identity.id(), server.address);
        dials.spawn(async move { transport.dial(Some(id), &[address]).await.map(|_| ()) });
    }
    let mut handles = Vec::new();
    for _ in &peers {
        handles.push(server.up().await);
    }
    assert!(dials.join_all().await.into_iter().all(|outcome| outcome.is_ok()));
}

#[tokio::test]
async fn the_watchdog_notices_when_nobody_accepts_any_more() {
    use crate::supervisor::{Health, Pulse};
    let node = TestNode::start(1);
    let short = Duration::from_millis(4_500);
    let mut health =
        Health::new(vec![Pulse { name: "QUIC", beats: node.transport.heartbeat() }], None, short);
    let before = node.transport.heartbeat().load(std::sync::atomic::Ordering::Relaxed);
    eventually("it shows that it lives", || {
        node.transport.heartbeat().load(std::sync::atomic::Ordering::Relaxed) > before + 1
    })
    .await;
    assert!(health.stalled().await.is_empty());
    // The endpoint is gone, and with it the task that accepts; nobody awaits that one.
    node.transport.shutdown(PATIENCE).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while health.stalled().await != ["QUIC"] {
        assert!(tokio::time::Instant::now() < deadline, "nobody noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
