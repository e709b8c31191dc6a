//! Whom the dialer dials, when, and over which transport.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use super::super::{dialer::By, testing::*, *};
use crate::{config::PeerAddress, tls::identity::NodeIdentity};

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
    let target = Target::Host(PeerAddress { host: "localhost".into(), port: server.address.port() });
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

#[tokio::test(start_paused = true)]
async fn a_link_that_falls_silent_soon_after_it_opened_is_looked_past_at_once() {
    let node = identity(7).id();
    let (dial, mut seen) = scripted(Some((node, Duration::from_secs(3_600))));
    let (wanted, receiver) = tokio::sync::watch::channel(wants(&Target::Node(node), &[loopback()]));
    let _dialer = tokio::spawn(Dialer::new(dial, receiver).run());
    seen.recv().await.unwrap();
    let show = |is_silent| {
        wanted.send_modify(|wanted| {
            wanted.linked.insert(node, Linked { is_silent, ..good(loopback()) });
        });
    };
    show(false);
    assert!(tokio::time::timeout(Duration::from_millis(100), seen.recv()).await.is_err());
    let before = tokio::time::Instant::now();
    show(true);
    assert_eq!(seen.recv().await.unwrap(), (before, By::Either { head_start: Duration::ZERO }));
    // What has opened has this long to take the place of the silent one.
    let (next, _) = seen.recv().await.unwrap();
    assert!(next - before >= Duration::from_secs(2), "{:?}", next - before);
}

fn host(name: &str) -> Target {
    Target::Host(PeerAddress { host: name.into(), port: 7843 })
}

#[test]
fn whom_it_dials_is_shown_as_people_write_it() {
    let node = identity(7).id();
    assert_eq!(Target::Node(node).to_string(), node.short().to_string());
    assert_eq!(host("attic.lan").to_string(), "attic.lan:7843");
    assert_eq!(host("2001:db8::7").to_string(), "[2001:db8::7]:7843");
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
