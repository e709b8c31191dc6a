//! The UDP socket under QUIC, counting packets that are not QUIC.
//!
//! QUIC drops such packets without a word. Every packet of version 1 carries the fixed bit
//! (RFC 9000, sections 17.2 and 17.3); our endpoints never clear it for greasing.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::TransportCounters;

const FIXED_BIT: u8 = 0x40;

/// Wraps the runtime's socket.
pub(super) struct CountingSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    counters: Arc<TransportCounters>,
}

impl CountingSocket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, counters: Arc<TransportCounters>) -> Self {
        Self { inner, counters }
    }
}

impl fmt::Debug for CountingSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// How many of the packets that one receive gathered lack the fixed bit.
fn not_quic(buffer: &[u8], meta: &RecvMeta) -> u64 {
    let gathered = buffer.get(..meta.len).unwrap_or(buffer);
    if gathered.is_empty() {
        return 1;
    }
    let odd = gathered
        .chunks(meta.stride.max(1))
        .filter(|packet| packet.first().is_none_or(|first| first & FIXED_BIT == 0));
    odd.count() as u64
}

impl AsyncUdpSocket for CountingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(cx, buffers, meta);
        if let Poll::Ready(Ok(count)) = &received {
            let odd: u64 = buffers.iter().zip(meta.iter()).take(*count).map(|(b, m)| not_quic(b, m)).sum();
            if odd > 0 {
                self.counters.udp_not_quic.fetch_add(odd, Ordering::Relaxed);
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
