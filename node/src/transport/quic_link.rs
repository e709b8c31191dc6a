//! One QUIC link: moves frames and datagrams between the connection and the event loop.

use std::{
    net::{SocketAddr, SocketAddrV6},
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use mesh_proto::NodeId;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};
use tracing::debug;

use super::{
    Channel, CloseCode, DownReason, LinkEvent, LinkEventSender, LinkId, MAX_DATAGRAM, MAX_FRAME,
    TransportCounters, TransportKind, clip,
    codec::{Batch, FrameReader},
    counters::bump,
    link::{LinkControl, Shared, pair},
};
use crate::tls::identity::SILENCE;

/// Frames are gathered into one write up to about this many bytes.
pub(super) const COALESCE: usize = 64 << 10;
/// Bytes taken from the stream at a time.
const READ_CHUNK: usize = 64 << 10;
/// How often it is looked whether anything arrives.
const LOOK_FOR_SILENCE: Duration = Duration::from_millis(200);

/// A connection whose handshake and stream are done, about to become a link.
pub(super) struct NewLink {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) peer: NodeId,
    pub(super) dialed: bool,
    /// Held until the peer is admitted; absent on dialled links.
    pub(super) stranger: Option<OwnedSemaphorePermit>,
    /// How long the peer may remain not admitted.
    pub(super) admission_deadline: Duration,
}

impl NewLink {
    /// Announces the link and starts its task. The returned channel closes when it is down.
    pub(super) fn start(self, events: LinkEventSender, counters: Arc<TransportCounters>) -> LinkEnd {
        let (alive, end) = mpsc::channel(1);
        tokio::spawn(async move {
            self.run(events, counters).await;
            drop(alive);
        });
        LinkEnd(end)
    }

    async fn run(self, events: LinkEventSender, counters: Arc<TransportCounters>) {
        let link = events.next_link();
        let control = Arc::new(QuicControl { connection: self.connection.clone(), closed: OnceLock::new() });
        let (handle, queues) = pair(link, self.peer, control.clone(), counters.clone());
        let address = control.address();
        bump(&counters.link_up);
        let up = LinkEvent::Up {
            link,
            handle,
            peer: self.peer,
            address,
            dialed: self.dialed,
            transport: TransportKind::Quic,
        };
        if events.send(up).await.is_err() {
            control.close(CloseCode::GoingDown, "");
            return;
        }
        // Concluded while the streams still live: dropping one would end it before the
        // connection's close code is out.
        let reason = {
            let mut write = pin!(write(self.send, queues.frames, &queues.shared, link, &events));
            let mut read = pin!(read(self.recv, link, &events));
            let mut send_datagrams = pin!(send_datagrams(&self.connection, queues.datagrams, &counters));
            let mut datagrams = pin!(receive_datagrams(&self.connection, link, &events, &counters));
            let mut admission = pin!(async {
                no_admission(&queues.shared, self.stranger, self.admission_deadline).await;
                Ended::NotAdmitted
            });
            let mut silence = pin!(watch_silence(&self.connection, link, &events, &counters));
            let ended = tokio::select! {
                ended = write.as_mut() => ended,
                ended = read.as_mut() => ended,
                ended = send_datagrams.as_mut() => ended,
                ended = datagrams.as_mut() => ended,
                ended = admission.as_mut() => ended,
                ended = silence.as_mut() => ended,
            };
            control.conclude(ended, &counters)
        };
        debug!(%link, peer = ?self.peer, %address, %reason, "link down");
        bump(&counters.link_down);
        // Nobody to tell when the event loop has ended.
        let _ = events.send(LinkEvent::Down { link, reason }).await;
    }
}

/// Tells when a link has ended.
#[derive(Debug)]
pub struct LinkEnd(pub(super) mpsc::Receiver<()>);

impl LinkEnd {
    /// Returns once the link is down.
    pub async fn ended(mut self) {
        // Nothing is ever sent: the task ends by dropping its side.
        let _ = self.0.recv().await;
    }
}

/// Why one of a link's activities stopped.
enum Ended {
    Connection(ConnectionError),
    /// The event loop dropped the handle.
    Released,
    LoopGone,
    Oversized(u32),
    NotAdmitted,
    /// The peer ended or reset the stream, which no side does.
    StreamOver,
}

async fn write(
    mut stream: SendStream,
    mut frames: mpsc::Receiver<Bytes>,
    shared: &Shared,
    link: LinkId,
    events: &LinkEventSender,
) -> Ended {
    while let Some(first) = frames.recv().await {
        let mut batch = Batch::default();
        batch.push(first);
        while batch.bytes() < COALESCE
            && let Ok(next) = frames.try_recv()
        {
            batch.push(next);
        }
        let bytes = batch.bytes();
        match stream.write_all_chunks(&mut batch.into_chunks()).await {
            Ok(()) => {}
            Err(WriteError::ConnectionLost(error)) => return Ended::Connection(error),
            Err(_) => return Ended::StreamOver,
        }
        if shared.drained(bytes) && events.send(LinkEvent::Writable { link }).await.is_err() {
            return Ended::LoopGone;
        }
    }
    Ended::Released
}

async fn read(mut stream: RecvStream, link: LinkId, events: &LinkEventSender) -> Ended {
    let mut reader = FrameReader::default();
    loop {
        match stream.read_chunk(READ_CHUNK, true).await {
            Ok(Some(chunk)) => reader.push(&chunk.bytes),
            Err(ReadError::ConnectionLost(error)) => return Ended::Connection(error),
            Ok(None) | Err(_) => return Ended::StreamOver,
        }
        loop {
            match reader.next_frame() {
                Ok(Some(bytes)) => {
                    let event = LinkEvent::Frame { link, channel: Channel::Stream, bytes };
                    if events.send(event).await.is_err() {
                        return Ended::LoopGone;
                    }
                }
                Ok(None) => break,
                Err(oversized) => return Ended::Oversized(oversized.0),
            }
        }
    }
}

async fn send_datagrams(
    connection: &Connection,
    mut datagrams: mpsc::Receiver<Bytes>,
    counters: &TransportCounters,
) -> Ended {
    while let Some(datagram) = datagrams.recv().await {
        // Quinn would drop older ones in silence to make room.
        if connection.datagram_send_buffer_space() < datagram.len() {
            bump(&counters.datagram_dropped);
            continue;
        }
        match connection.send_datagram(datagram) {
            Ok(()) => {}
            Err(quinn::SendDatagramError::ConnectionLost(error)) => return Ended::Connection(error),
            Err(_) => bump(&counters.datagram_dropped),
        }
    }
    Ended::Released
}

async fn receive_datagrams(
    connection: &Connection,
    link: LinkId,
    events: &LinkEventSender,
    counters: &TransportCounters,
) -> Ended {
    loop {
        match connection.read_datagram().await {
            Ok(bytes) if bytes.len() > MAX_DATAGRAM => bump(&counters.oversized_datagram),
            Ok(bytes) => {
                // Quinn keeps the oldest datagrams out when this waits, so memory stays bounded.
                let event = LinkEvent::Frame { link, channel: Channel::Datagram, bytes };
                if events.send(event).await.is_err() {
                    return Ended::LoopGone;
                }
            }
            Err(error) => return Ended::Connection(error),
        }
    }
}

/// Tells when nothing comes back any more, long before the connection is given up: every packet that
/// arrives counts, and pings ask for some. Quinn does not tell when the last one came.
async fn watch_silence(
    connection: &Connection,
    link: LinkId,
    events: &LinkEventSender,
    counters: &TransportCounters,
) -> Ended {
    let (mut heard, mut since, mut was_silent) = (0, Instant::now(), false);
    let patience = || SILENCE + connection.rtt().min(SILENCE) * 3;
    loop {
        let next = Instant::now() + LOOK_FOR_SILENCE;
        let wake = if was_silent { next } else { next.min(since + patience()) };
        tokio::time::sleep_until(wake).await;
        let count = connection.stats().udp_rx.datagrams;
        // A process that was held up itself has not looked at what came.
        if count != heard || wake.elapsed() > LOOK_FOR_SILENCE * 2 {
            (heard, since) = (count, Instant::now());
        }
        let is_silent = since.elapsed() >= patience();
        if is_silent != was_silent {
            was_silent = is_silent;
            if is_silent {
                bump(&counters.link_silent);
            }
            if events.send(LinkEvent::Silent { link, is_silent }).await.is_err() {
                return Ended::LoopGone;
            }
        }
    }
}

/// Returns when the peer was not admitted in time; never when it was.
pub(super) async fn no_admission(shared: &Shared, stranger: Option<OwnedSemaphorePermit>, within: Duration) {
    if tokio::time::timeout(within, shared.admitted.notified()).await.is_ok() {
        drop(stranger);
        std::future::pending().await
    }
}

struct QuicControl {
    connection: Connection,
    /// The code with which this side closed, if it did.
    closed: OnceLock<CloseCode>,
}

impl LinkControl for QuicControl {
    fn close(&self, code: CloseCode, reason: &str) {
        let _first_wins = self.closed.set(code);
        self.connection.close(code.number().into(), clip(reason.as_bytes()).as_bytes());
    }

    fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    fn address(&self) -> SocketAddr {
        canonical(self.connection.remote_address())
    }
}

impl QuicControl {
    /// Closes what is still open and names the reason.
    fn conclude(&self, ended: Ended, counters: &TransportCounters) -> DownReason {
        let close = |code, words: &str| {
            self.close(code, words);
            DownReason::ClosedHere(code)
        };
        match ended {
            Ended::Connection(ConnectionError::LocallyClosed) => {
                DownReason::ClosedHere(self.closed.get().copied().unwrap_or(CloseCode::GoingDown))
            }
            Ended::Connection(error) => down_reason(&error),
            Ended::Released => close(CloseCode::Done, ""),
            Ended::LoopGone => close(CloseCode::GoingDown, ""),
            Ended::Oversized(bytes) => {
                bump(&counters.oversized_frame);
                close(CloseCode::Oversized, &format!("a frame of {bytes} bytes, the limit is {MAX_FRAME}"));
                DownReason::Oversized(bytes)
            }
            Ended::NotAdmitted => {
                bump(&counters.stranger_timeout);
                close(CloseCode::NotAdmitted, "no proof of membership in time")
            }
            Ended::StreamOver => match self.connection.close_reason() {
                Some(error) => self.conclude(Ended::Connection(error), counters),
                None => close(CloseCode::Misuse, "the frame stream was ended"),
            },
        }
    }
}

/// Names why a connection was lost.
pub(super) fn down_reason(error: &ConnectionError) -> DownReason {
    match error {
        ConnectionError::ApplicationClosed(close) => DownReason::ClosedByPeer(
            CloseCode::from_number(close.error_code.into_inner()),
            clip(&close.reason),
        ),
        ConnectionError::LocallyClosed => DownReason::ClosedHere(CloseCode::GoingDown),
        ConnectionError::TimedOut => DownReason::Silent,
        ConnectionError::Reset => DownReason::Reset,
        other => DownReason::Broken(clip(other.to_string().as_bytes())),
    }
}

/// An IPv4 address as such, also when a dual-stack socket shows it inside IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        // The scope belongs to it: a link-local address leads nowhere without its interface.
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
        }
        mapped => SocketAddr::new(mapped.ip().to_canonical(), mapped.port()),
    }
}
