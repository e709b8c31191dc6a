//! Links over real WebSockets on loopback, by the node's own listener.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WireCode;

use super::*;
use crate::{
    listener::{TcpLimits, tests::Web},
    tls::identity::SILENCE,
    transport::{
        Channel, DownReason, Limits, LinkEvent, LinkHandle, MAX_DATAGRAM, SendError, TransportKind,
        testing::*,
    },
};

async fn server() -> Web {
    Web::start(TcpLimits::default()).await
}

/// A link that the second node dials: its handle, and that of the server.
async fn link(client: &mut TestNode, server: &mut Web) -> (LinkHandle, LinkHandle) {
    let id = server.mesh.identity.id();
    client.websocket.dial(Some(id), &[server.address()]).await.unwrap();
    (client.up().await, server.mesh.up().await)
}

/// A WebSocket in the hands of the test, with no limits of its own.
async fn raw(seed: u8, to: SocketAddr) -> Socket {
    let tls = Arc::new(identity(seed).client_tls(ALPN_MESH).unwrap());
    let stream = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let stream = TlsStream::from(TlsConnector::from(tls).connect(name, stream).await.unwrap());
    let request = format!("ws://{SERVER_NAME}{PATH}");
    client_async_with_config(request, stream, None).await.unwrap().0
}

/// The code with which the node closes.
async fn closed(socket: &mut Socket) -> CloseCode {
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Close(Some(frame)))) => {
                let WireCode::Library(code) = frame.code else { panic!("{frame:?}") };
                return CloseCode::from_number(u64::from(code) - 4_000);
            }
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn frames_and_datagrams_travel_both_ways() {
    let mut server = server().await;
    let mut client = TestNode::start(2);
    let id = server.mesh.identity.id();
    let (node, _end) = client.websocket.dial(Some(id), &[server.address()]).await.unwrap();
    assert_eq!(node, id);
    let LinkEvent::Up { handle: out, peer, address, dialed, transport, .. } = client.event().await else {
        panic!()
    };
    assert_eq!((peer, address, dialed), (id, server.address(), true));
    assert_eq!(transport, TransportKind::WebSocket);
    let LinkEvent::Up { handle: back, peer, dialed, .. } = server.mesh.event().await else { panic!() };
    assert_eq!((peer, dialed), (client.identity.id(), false));
    out.admit();
    back.admit();

    let large = Bytes::from(vec![7; MAX_FRAME]);
    for frame in [Bytes::from_static(b"one"), Bytes::from_static(b"two"), large.clone()] {
        out.try_send(Channel::Stream, frame.clone()).unwrap();
        assert_eq!(server.mesh.frame().await, (Channel::Stream, frame));
    }
    back.try_send(Channel::Stream, large.clone()).unwrap();
    assert_eq!(client.frame().await, (Channel::Stream, large));
    let datagram = Bytes::from(vec![9; MAX_DATAGRAM]);
    out.try_send(Channel::Datagram, datagram.clone()).unwrap();
    assert_eq!(server.mesh.frame().await, (Channel::Datagram, datagram.clone()));
    back.try_send(Channel::Datagram, datagram.clone()).unwrap();
    assert_eq!(client.frame().await, (Channel::Datagram, datagram));
    let too_large = Bytes::from(vec![0; MAX_FRAME + 1]);
    assert_eq!(out.try_send(Channel::Stream, too_large), Err(SendError::TooLarge(MAX_FRAME + 1)));
    eventually("the round trip is measured", || out.rtt() > Duration::ZERO).await;

    back.close(CloseCode::Revoked, "removed by an admin");
    assert_eq!(server.mesh.down().await, DownReason::ClosedHere(CloseCode::Revoked));
    let reason = client.down().await;
    assert_eq!(reason, DownReason::ClosedByPeer(CloseCode::Revoked, "removed by an admin".into()));
    assert_eq!(out.try_send(Channel::Stream, Bytes::from_static(b"x")), Err(SendError::Down));
}

#[tokio::test]
async fn dropping_the_handle_closes_the_link() {
    let mut server = server().await;
    let mut client = TestNode::start(2);
    let (out, _back) = link(&mut client, &mut server).await;
    drop(out);
    assert_eq!(client.down().await, DownReason::ClosedHere(CloseCode::Done));
    assert_eq!(server.mesh.down().await, DownReason::ClosedByPeer(CloseCode::Done, String::new()));
}

#[tokio::test]
async fn a_slow_event_loop_stops_the_sender_and_loses_nothing() {
    const FRAME: usize = 10_000;
    let mut server = server().await;
    let mut client = TestNode::start(2);
    let (out, _back) = link(&mut client, &mut server).await;
    let frame = |n: u32| Bytes::from([n.to_be_bytes().as_slice(), &[0; FRAME - 4]].concat());
    // Nobody receives at the server: the sender is told to wait, and waits for good.
    let mut sent = 0;
    loop {
        match out.try_send(Channel::Stream, frame(sent)) {
            Ok(()) => sent += 1,
            Err(SendError::Full) => {
                let writable = tokio::time::timeout(Duration::from_secs(2), client.event()).await;
                match writable {
                    // The server reads no pings either.
                    Ok(LinkEvent::Writable { .. } | LinkEvent::Silent { .. }) => {}
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => break,
                }
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 10_000, "nothing holds the sender back");
    }
    for expected in 0..sent {
        let (channel, bytes) = server.mesh.frame().await;
        assert_eq!((channel, bytes.len()), (Channel::Stream, FRAME));
        assert_eq!(u32::from_be_bytes(bytes[..4].try_into().unwrap()), expected);
    }
    assert_eq!(server.counters().get("link_down"), 0);
}

#[tokio::test]
async fn what_breaks_a_rule_closes_its_link_and_is_counted() {
    let mut server = server().await;
    let over = u32::try_from(MAX_FRAME).unwrap() + 1;
    let offences: [(Message, DownReason, CloseCode, &str); 4] = [
        (
            Message::Binary(vec![FRAME; MAX_FRAME + 2].into()),
            DownReason::Oversized(over),
            CloseCode::Oversized,
            "oversized_frame",
        ),
        (
            Message::Text("{}".into()),
            DownReason::ClosedHere(CloseCode::Misuse),
            CloseCode::Misuse,
            "websocket_misuse",
        ),
        (
            Message::Binary(vec![9, 1, 2].into()),
            DownReason::ClosedHere(CloseCode::Misuse),
            CloseCode::Misuse,
            "websocket_misuse",
        ),
        (
            Message::Binary(Bytes::new()),
            DownReason::ClosedHere(CloseCode::Misuse),
            CloseCode::Misuse,
            "websocket_misuse",
        ),
    ];
    for (message, reason, code, counter) in offences {
        let before = server.counters().get(counter);
        let mut hostile = raw(2, server.address()).await;
        let _handle = server.mesh.up().await;
        hostile.send(message).await.unwrap();
        assert_eq!(server.mesh.down().await, reason);
        assert_eq!(closed(&mut hostile).await, code);
        assert_eq!(server.counters().get(counter), before + 1);
    }
    // A datagram that is too large is dropped, as over QUIC.
    let mut hostile = raw(2, server.address()).await;
    let _handle = server.mesh.up().await;
    hostile.send(message(DATAGRAM, &[1; MAX_DATAGRAM + 1])).await.unwrap();
    hostile.send(message(FRAME, b"still here")).await.unwrap();
    assert_eq!(server.mesh.frame().await.1, "still here");
    assert_eq!(server.counters().get("oversized_datagram"), 1);
    let mut good = TestNode::start(3);
    let (out, _back) = link(&mut good, &mut server).await;
    out.try_send(Channel::Stream, Bytes::from_static(b"ping")).unwrap();
    assert_eq!(server.mesh.frame().await.1, "ping");
}

#[tokio::test]
async fn strangers_are_bounded_together_with_those_of_quic() {
    let limits = Limits { strangers: 1, stranger_deadline: Duration::from_secs(2), ..Limits::default() };
    let mut server = Web::with_mesh_limits(limits).await;
    let mut stranger = raw(2, server.address()).await;
    let LinkEvent::Up { handle: _kept, .. } = server.mesh.event().await else { panic!() };
    let mut second = raw(3, server.address()).await;
    assert_eq!(closed(&mut second).await, CloseCode::Busy);
    assert_eq!(server.counters().get("stranger_busy"), 1);
    // A node of the roster is let in all the same.
    server.mesh.transport.know([identity(5).id()].into());
    let mut member = TestNode::start(5);
    let (_out, _back) = link(&mut member, &mut server).await;
    assert_eq!(closed(&mut stranger).await, CloseCode::NotAdmitted);
    assert_eq!(server.mesh.down().await, DownReason::ClosedHere(CloseCode::NotAdmitted));
    assert_eq!(server.counters().get("stranger_timeout"), 1);
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_silent_at_once_and_given_up_later() {
    let mut server = server().await;
    // Before anything is heard of it, however late this test hears of the link.
    let since = tokio::time::Instant::now();
    // It answers no ping, for nobody reads here.
    let mut mute = raw(2, server.address()).await;
    let handle = server.mesh.up().await;
    let LinkEvent::Silent { link, is_silent: true } = server.mesh.event().await else { panic!() };
    assert_eq!(link, handle.id());
    assert!(since.elapsed() >= SILENCE);
    mute.send(message(FRAME, b"here")).await.unwrap();
    let LinkEvent::Silent { is_silent: false, .. } = server.mesh.event().await else { panic!() };
    assert_eq!(server.mesh.frame().await.1, "here");
    let LinkEvent::Silent { is_silent: true, .. } = server.mesh.event().await else { panic!() };
    assert_eq!(server.mesh.down().await, DownReason::Silent);
    assert_eq!(server.counters().get("link_silent"), 2);
}

#[tokio::test]
async fn a_wrong_key_and_a_closed_port_are_named() {
    let server = server().await;
    let client = TestNode::start(2);
    let other = identity(9).id();
    let error = client.websocket.dial(Some(other), &[server.address()]).await.unwrap_err().to_string();
    assert!(error.contains("over TCP node ") && error.contains("answered instead of"), "{error}");
    assert_eq!(client.counters.get("wrong_key"), 1);
    // Its own address has UDP only.
    let error = client.websocket.dial(Some(other), &[client.address]).await.unwrap_err();
    let DialError::Failed(failures) = &error else { panic!("{error}") };
    assert!(!failures[0].1.is_passing(), "{error}");
}
