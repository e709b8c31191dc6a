//! One link over a WebSocket: moves frames and datagrams between the connection and the event loop.
//!
//! Both sides send a ping every second, so that each hears something as long as the other's process and
//! the way between them live, whatever else is under way.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use mesh_proto::NodeId;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    error::{CapacityError, ProtocolError},
};
use tracing::debug;

use super::{
    Channel, CloseCode, DownReason, LinkEnd, LinkEvent, LinkEventSender, LinkId, MAX_DATAGRAM, MAX_FRAME,
    TransportCounters, TransportKind, clip,
    counters::bump,
    link::{LinkControl, LinkQueues, pair},
    pipe::Closer as _,
    quic_link::{COALESCE, no_admission},
    websocket::{self, Control, DATAGRAM, FRAME, Socket},
};
use crate::tls::identity::{IDLE_TIMEOUT, KEEP_ALIVE, SILENCE};

/// After the idle timeout: what has arrived by then is read first, should this process have been held up.
const GRACE: Duration = Duration::from_millis(200);

/// A WebSocket whose handshakes are done, about to become a link.
pub(super) struct NewWebSocketLink {
    pub(super) socket: Socket,
    pub(super) control: Arc<Control>,
    pub(super) peer: NodeId,
    pub(super) address: SocketAddr,
    pub(super) dialed: bool,
    /// Held until the peer is admitted; absent on dialled links.
    pub(super) stranger: Option<OwnedSemaphorePermit>,
    /// How long the peer may remain not admitted.
    pub(super) admission_deadline: Duration,
}

impl NewWebSocketLink {
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
        let (peer, address, closer) = (self.peer, self.address, self.control);
        let control = Arc::new(LinkRemote { closer: closer.clone(), address, rtt_us: AtomicU64::new(0) });
        let (handle, mut queues) = pair(link, peer, control.clone(), counters.clone());
        bump(&counters.link_up);
        let transport = TransportKind::WebSocket;
        let up = LinkEvent::Up { link, handle, peer, address, dialed: self.dialed, transport };
        let (mut sink, stream) = self.socket.split();
        if events.send(up).await.is_err() {
            return;
        }
        let shared = queues.shared.clone();
        let started = Instant::now();
        let mut reader =
            Reader { stream, link, events: &events, counters: &counters, remote: &control, started };
        let ended = {
            let mut write = pin!(write(&mut sink, &mut queues, link, &events, started));
            let mut read = pin!(reader.run());
            let mut admission = pin!(no_admission(&shared, self.stranger, self.admission_deadline));
            tokio::select! {
                ended = write.as_mut() => ended,
                ended = read.as_mut() => ended,
                () = admission.as_mut() => Ended::NotAdmitted,
                code = closer.asked() => Ended::Asked(code),
            }
        };
        let reason = conclude(ended, &closer, &counters);
        // The event loop hears of it at once; the peer within a moment, or never.
        drop(queues);
        debug!(%link, ?peer, %address, %reason, "link down");
        bump(&counters.link_down);
        let is_open =
            !matches!(reason, DownReason::ClosedByPeer(..) | DownReason::Reset | DownReason::Broken(_));
        // Nobody to tell when the event loop has ended.
        let _ = events.send(LinkEvent::Down { link, reason }).await;
        if is_open && let Ok(socket) = sink.reunite(reader.stream) {
            closer.say_goodbye(socket).await;
        }
    }
}

/// Why a link ended.
enum Ended {
    /// This side closed it.
    Asked(CloseCode),
    ByPeer(CloseCode, String),
    /// The event loop dropped the handle.
    Released,
    LoopGone,
    Silent,
    Oversized(usize),
    NotAdmitted,
    Misuse(&'static str),
    Broken(Error),
    /// The connection ended without a goodbye.
    Over,
}

fn conclude(ended: Ended, control: &Control, counters: &TransportCounters) -> DownReason {
    let close = |code, words: &str| {
        control.close(code, words);
        DownReason::ClosedHere(code)
    };
    match ended {
        Ended::Asked(code) => DownReason::ClosedHere(code),
        Ended::ByPeer(code, words) => DownReason::ClosedByPeer(code, words),
        Ended::Released => close(CloseCode::Done, ""),
        Ended::LoopGone => close(CloseCode::GoingDown, ""),
        Ended::Silent => {
            close(CloseCode::Deadline, "nothing was heard");
            DownReason::Silent
        }
        Ended::Oversized(bytes) => {
            bump(&counters.oversized_frame);
            close(CloseCode::Oversized, &format!("a frame of {bytes} bytes, the limit is {MAX_FRAME}"));
            DownReason::Oversized(u32::try_from(bytes).unwrap_or(u32::MAX))
        }
        Ended::NotAdmitted => {
            bump(&counters.stranger_timeout);
            close(CloseCode::NotAdmitted, "no proof of membership in time")
        }
        Ended::Misuse(what) => {
            bump(&counters.websocket_misuse);
            close(CloseCode::Misuse, what)
        }
        Ended::Broken(Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
            DownReason::Reset
        }
        Ended::Broken(error) => {
            if matches!(&error, Error::Protocol(rule) if *rule != ProtocolError::ResetWithoutClosingHandshake)
            {
                bump(&counters.websocket_misuse);
            }
            DownReason::Broken(clip(error.to_string().as_bytes()))
        }
        Ended::Over => DownReason::Reset,
    }
}

async fn write(
    sink: &mut SplitSink<Socket, Message>,
    queues: &mut LinkQueues,
    link: LinkId,
    events: &LinkEventSender,
    started: Instant,
) -> Ended {
    let mut ping = interval(KEEP_ALIVE);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut bytes = 0;
        let outcome = tokio::select! {
            // Datagrams do not wait for frames that are still here.
            biased;
            datagram = queues.datagrams.recv() => match datagram {
                Some(datagram) => sink.feed(websocket::message(DATAGRAM, &datagram)).await,
                None => return Ended::Released,
            },
            _ = ping.tick() => {
                let at = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                sink.feed(Message::Ping(Bytes::copy_from_slice(&at.to_be_bytes()))).await
            }
            frame = queues.frames.recv() => match frame {
                Some(frame) => {
                    bytes = frame.len();
                    feed_frames(sink, &mut queues.frames, frame, &mut bytes).await
                }
                None => return Ended::Released,
            },
        };
        let outcome = match outcome {
            Ok(()) => sink.flush().await,
            failed => failed,
        };
        match outcome {
            Ok(()) => {}
            // The reading side knows why.
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => std::future::pending().await,
            Err(error) => return Ended::Broken(error),
        }
        if bytes > 0
            && queues.shared.drained(bytes)
            && events.send(LinkEvent::Writable { link }).await.is_err()
        {
            return Ended::LoopGone;
        }
    }
}

/// Gathers what waits into one write.
async fn feed_frames(
    sink: &mut SplitSink<Socket, Message>,
    frames: &mut mpsc::Receiver<Bytes>,
    first: Bytes,
    bytes: &mut usize,
) -> Result<(), Error> {
    sink.feed(websocket::message(FRAME, &first)).await?;
    while *bytes < COALESCE
        && let Ok(next) = frames.try_recv()
    {
        *bytes += next.len();
        sink.feed(websocket::message(FRAME, &next)).await?;
    }
    Ok(())
}

struct Reader<'a> {
    stream: SplitStream<Socket>,
    link: LinkId,
    events: &'a LinkEventSender,
    counters: &'a TransportCounters,
    remote: &'a LinkRemote,
    /// Where the times in pings count from.
    started: Instant,
}

impl Reader<'_> {
    async fn run(&mut self) -> Ended {
        loop {
            let message = match self.next().await {
                Ok(message) => message,
                Err(ended) => return ended,
            };
            let outcome = match message {
                Message::Binary(bytes) => self.binary(bytes).await,
                Message::Pong(sent) => {
                    self.measure(&sent);
                    Ok(())
                }
                Message::Ping(_) => Ok(()),
                Message::Close(frame) => {
                    let (code, words) = self.remote.closer.heard(frame);
                    Err(Ended::ByPeer(code, words))
                }
                Message::Text(_) | Message::Frame(_) => Err(Ended::Misuse("only binary messages")),
            };
            if let Err(ended) = outcome {
                return ended;
            }
        }
    }

    /// The next message; says meanwhile whether the peer is silent.
    async fn next(&mut self) -> Result<Message, Ended> {
        let heard = Instant::now();
        let rtt = Duration::from_micros(self.remote.rtt_us.load(Ordering::Relaxed));
        let next = match timeout(SILENCE + rtt.min(SILENCE) * 3, self.stream.next()).await {
            Ok(next) => next,
            Err(_) => {
                bump(&self.counters.link_silent);
                self.tell_silent(true).await?;
                let next = match timeout_at(heard + IDLE_TIMEOUT, self.stream.next()).await {
                    Ok(next) => next,
                    Err(_) => timeout(GRACE, self.stream.next()).await.map_err(|_| Ended::Silent)?,
                };
                self.tell_silent(false).await?;
                next
            }
        };
        match next {
            Some(Ok(message)) => Ok(message),
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { size, .. }))) => {
                Err(Ended::Oversized(size.saturating_sub(1)))
            }
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) | None => {
                Err(Ended::Over)
            }
            Some(Err(error)) => Err(Ended::Broken(error)),
        }
    }

    async fn tell_silent(&self, is_silent: bool) -> Result<(), Ended> {
        let event = LinkEvent::Silent { link: self.link, is_silent };
        self.events.send(event).await.map_err(|_| Ended::LoopGone)
    }

    async fn binary(&self, message: Bytes) -> Result<(), Ended> {
        let (channel, bytes) = match websocket::parts(message) {
            Some((FRAME, bytes)) => (Channel::Stream, bytes),
            Some((DATAGRAM, bytes)) => (Channel::Datagram, bytes),
            _ => return Err(Ended::Misuse("a message of no known channel")),
        };
        if channel == Channel::Datagram && bytes.len() > MAX_DATAGRAM {
            bump(&self.counters.oversized_datagram);
            return Ok(());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let event = LinkEvent::Frame { link: self.link, channel, bytes };
        self.events.send(event).await.map_err(|_| Ended::LoopGone)
    }

    /// A pong holds when its ping was sent, if the peer is honest.
    fn measure(&self, sent: &[u8]) {
        let Ok(sent) = <[u8; 8]>::try_from(sent).map(u64::from_be_bytes) else { return };
        let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Some(rtt) = now.checked_sub(sent) {
            self.remote.rtt_us.store(rtt, Ordering::Relaxed);
        }
    }
}

/// What the event loop can do to the link at once.
struct LinkRemote {
    closer: Arc<Control>,
    address: SocketAddr,
    rtt_us: AtomicU64,
}

impl LinkControl for LinkRemote {
    fn close(&self, code: CloseCode, reason: &str) {
        self.closer.close(code, reason);
    }

    fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_us.load(Ordering::Relaxed))
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}
