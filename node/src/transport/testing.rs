//! What tests of links share: a node with its endpoint on loopback, and waiting with a deadline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::*;
use crate::tls::NodeIdentity;

/// Longer than anything here should take, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct TestNode {
    pub(crate) identity: NodeIdentity,
    pub(crate) transport: QuicTransport,
    pub(crate) websocket: WebSocketTransport,
    pub(crate) events: LinkEventReceiver,
    pub(crate) joins: mpsc::Receiver<JoinConnection>,
    pub(crate) counters: Arc<TransportCounters>,
    pub(crate) address: SocketAddr,
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn identity(seed: u8) -> NodeIdentity {
    NodeIdentity::from_seed(&[seed; 32]).unwrap()
}

impl TestNode {
    pub(crate) fn start(seed: u8) -> Self {
        Self::with_limits(seed, Limits::default())
    }

    pub(crate) fn with_limits(seed: u8, limits: Limits) -> Self {
        Self::on(seed, UdpSocket::bind(loopback()).unwrap(), Arc::default(), limits)
    }

    pub(crate) fn on(seed: u8, socket: UdpSocket, counters: Arc<TransportCounters>, limits: Limits) -> Self {
        let identity = identity(seed);
        let (sender, events) = link_events();
        let (join_sender, joins) = mpsc::channel(16);
        let transport =
            QuicTransport::start(&identity, socket, sender, join_sender, counters.clone(), limits).unwrap();
        let address = transport.local_address().unwrap();
        let websocket = WebSocketTransport::new(&identity, &transport).unwrap();
        Self { identity, transport, websocket, events, joins, counters, address }
    }

    pub(crate) async fn event(&mut self) -> LinkEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an event")
    }

    /// The next link, admitted at once.
    pub(crate) async fn up(&mut self) -> LinkHandle {
        match self.event().await {
            LinkEvent::Up { handle, .. } => {
                handle.admit();
                handle
            }
            other => panic!("{other:?} instead of Up"),
        }
    }

    pub(crate) async fn down(&mut self) -> DownReason {
        loop {
            if let LinkEvent::Down { reason, .. } = self.event().await {
                return reason;
            }
        }
    }

    pub(crate) async fn frame(&mut self) -> (Channel, Bytes) {
        match self.event().await {
            LinkEvent::Frame { channel, bytes, .. } => (channel, bytes),
            other => panic!("{other:?} instead of Frame"),
        }
    }

    pub(crate) async fn dial(&self, to: &TestNode) -> Result<(), DialError> {
        self.transport.dial(Some(to.identity.id()), &[to.address]).await.map(|_| ())
    }
}

/// A link between two nodes, admitted on both sides: the dialler's handle first.
pub(crate) async fn linked(a: &mut TestNode, b: &mut TestNode) -> (LinkHandle, LinkHandle) {
    a.dial(b).await.unwrap();
    (a.up().await, b.up().await)
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
