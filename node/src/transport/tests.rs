//! Links over real QUIC on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{net::UdpSocket, sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::task::JoinSet;

use super::{testing::*, *};
use crate::tls::identity::{ALPN_JOIN, ALPN_MESH, IDLE_TIMEOUT, KEEP_ALIVE, SERVER_NAME};

mod dialing;

/// A deadline that is over soon, and leaves a good peer time on a busy machine.
const SOON: Duration = Duration::from_secs(2);

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
    let quiet = tokio::time::timeout(KEEP_ALIVE * 3, a.event()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let cut = tokio::time::Instant::now();
    passes.store(false, std::sync::atomic::Ordering::SeqCst);
    for node in [&mut a, &mut b] {
        let LinkEvent::Silent { is_silent: true, .. } = node.event().await else { panic!() };
    }
    let noticed = cut.elapsed();
    assert!(noticed < IDLE_TIMEOUT / 2, "{noticed:?}");
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
                let writable = tokio::time::timeout(SOON, a.events.recv()).await;
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
    let limits = Limits { handshake_deadline: SOON, ..Limits::default() };
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
    let limits = Limits { handshake_deadline: SOON, ..Limits::default() };
    let mut server = TestNode::with_limits(1, limits);
    for (number, alpn) in (1..).zip([ALPN_MESH, ALPN_JOIN]) {
        let slow = raw_connection(2, &server, alpn).await;
        serves_a_good_peer(&mut server, 3).await;
        // Half of what it would take without a word from the server.
        let closed = tokio::time::timeout(IDLE_TIMEOUT / 2, slow.closed()).await;
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
    let limits = Limits { strangers: 1, stranger_deadline: SOON, ..Limits::default() };
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
