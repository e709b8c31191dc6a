//! The two ends of a link inside this process: the handle that the event loop holds, and
//! the queues that the link's task serves.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mesh_proto::NodeId;
use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    Channel, CloseCode, LinkEvent, LinkId, MAX_DATAGRAM, MAX_FRAME, TransportCounters, counters::bump,
};

/// Frames that one link holds for sending.
pub const QUEUE_FRAMES: usize = 32;
/// Bytes of frames that one link holds for sending; a single frame may exceed it alone.
pub const QUEUE_BYTES: usize = 256 << 10;
/// Datagrams that one link holds for sending.
const QUEUE_DATAGRAMS: usize = 64;
/// Events that wait for the event loop, over all links.
const QUEUE_EVENTS: usize = 256;
/// Bytes of received frames that wait for the event loop, over all links.
const QUEUE_EVENT_BYTES: usize = 2 << 20;

/// The channel from all transports to the event loop, bounded in events and in bytes. When
/// it is full the link tasks wait, so they read no more from the network.
pub fn link_events() -> (LinkEventSender, LinkEventReceiver) {
    let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
    let budget = Arc::new(Semaphore::new(QUEUE_EVENT_BYTES));
    let next_link = Arc::new(AtomicU64::new(1));
    (LinkEventSender { sender, budget, next_link }, LinkEventReceiver { receiver })
}

type Queued = (LinkEvent, Option<OwnedSemaphorePermit>);

/// The transports' end of [`link_events`].
#[derive(Clone, Debug)]
pub struct LinkEventSender {
    sender: mpsc::Sender<Queued>,
    budget: Arc<Semaphore>,
    next_link: Arc<AtomicU64>,
}

impl LinkEventSender {
    /// Waits for room. An error means that the event loop has ended.
    pub(super) async fn send(&self, event: LinkEvent) -> Result<(), LoopGone> {
        let permit = match &event {
            LinkEvent::Frame { bytes, .. } => {
                let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                Some(self.budget.clone().acquire_many_owned(size).await.map_err(|_| LoopGone)?)
            }
            _ => None,
        };
        self.sender.send((event, permit)).await.map_err(|_| LoopGone)
    }

    pub(super) fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }
}

/// Nobody receives link events any more.
#[derive(Debug)]
pub(super) struct LoopGone;

/// The event loop's end of [`link_events`].
#[derive(Debug)]
pub struct LinkEventReceiver {
    receiver: mpsc::Receiver<Queued>,
}

impl LinkEventReceiver {
    /// The next event; `None` when every transport is gone. Safe to cancel.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        self.receiver.recv().await.map(|(event, _released)| event)
    }

    /// The next event if one waits already.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        self.receiver.try_recv().ok().map(|(event, _released)| event)
    }
}

/// Why a frame was not taken. Nothing of it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The queue is full; [`LinkEvent::Writable`] tells when to try again.
    #[error("the link's queue is full: wait until it is writable")]
    Full,
    /// The frame is larger than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is too large, the limit is {MAX_FRAME}: split it")]
    TooLarge(usize),
    /// The link has gone; its `Down` event follows or has been.
    #[error("the link is down")]
    Down,
}

/// What a transport lets the event loop do to one link at once.
pub(super) trait LinkControl: Send + Sync {
    fn close(&self, code: CloseCode, reason: &str);
    fn rtt(&self) -> Duration;
    fn address(&self) -> SocketAddr;
}

/// The event loop's end of one link. It has one owner; dropping it closes the link.
pub struct LinkHandle {
    id: LinkId,
    peer: NodeId,
    frames: mpsc::Sender<Bytes>,
    datagrams: mpsc::Sender<Bytes>,
    shared: Arc<Shared>,
    control: Arc<dyn LinkControl>,
    counters: Arc<TransportCounters>,
}

impl fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkHandle").field("id", &self.id).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl LinkHandle {
    /// Which link this is.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// The key of the other side.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// Queues one frame, or one datagram. Never waits. A datagram that finds no room or is
    /// larger than [`MAX_DATAGRAM`] is dropped and counted: that is not an error.
    ///
    /// # Errors
    /// [`SendError`]; after `Full` a [`LinkEvent::Writable`] follows when there is room.
    pub fn try_send(&self, channel: Channel, bytes: Bytes) -> Result<(), SendError> {
        match channel {
            Channel::Datagram => self.send_datagram(bytes),
            Channel::Stream if bytes.len() > MAX_FRAME => Err(SendError::TooLarge(bytes.len())),
            Channel::Stream => match self.enqueue(&bytes) {
                Err(SendError::Full) => {
                    self.shared.starved.store(true, Ordering::SeqCst);
                    // The task may have emptied the queue just before it could see the flag.
                    self.enqueue(&bytes)
                }
                other => other,
            },
        }
    }

    /// The household's roster names this peer: the link may stay. Without this call the
    /// transport closes it with [`CloseCode::NotAdmitted`] after its deadline.
    pub fn admit(&self) {
        self.shared.admitted.notify_one();
    }

    /// Closes the link at once, without sending what is queued. `Down` follows. The words
    /// reach the peer; at most a hundred bytes.
    pub fn close(&self, code: CloseCode, words: &str) {
        self.control.close(code, words);
    }

    /// The transport's estimate of the round trip.
    pub fn rtt(&self) -> Duration {
        self.control.rtt()
    }

    /// Where the other side is now.
    pub fn address(&self) -> SocketAddr {
        self.control.address()
    }

    fn enqueue(&self, bytes: &Bytes) -> Result<(), SendError> {
        let queued = self.shared.queued.load(Ordering::SeqCst);
        if queued > 0 && queued + bytes.len() > QUEUE_BYTES {
            return Err(if self.frames.is_closed() { SendError::Down } else { SendError::Full });
        }
        // Counted first: the task must never subtract what has not been added.
        self.shared.queued.fetch_add(bytes.len(), Ordering::SeqCst);
        self.frames.try_send(bytes.clone()).map_err(|error| {
            self.shared.queued.fetch_sub(bytes.len(), Ordering::SeqCst);
            match error {
                mpsc::error::TrySendError::Full(_) => SendError::Full,
                mpsc::error::TrySendError::Closed(_) => SendError::Down,
            }
        })
    }

    fn send_datagram(&self, bytes: Bytes) -> Result<(), SendError> {
        if bytes.len() > MAX_DATAGRAM {
            bump(&self.counters.datagram_dropped);
            return Ok(());
        }
        match self.datagrams.try_send(bytes) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                bump(&self.counters.datagram_dropped);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SendError::Down),
        }
    }
}

/// The task's end of one link.
pub(super) struct LinkQueues {
    pub(super) frames: mpsc::Receiver<Bytes>,
    pub(super) datagrams: mpsc::Receiver<Bytes>,
    pub(super) shared: Arc<Shared>,
}

/// What both ends see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Bytes taken from the event loop and not yet taken by the transport.
    queued: AtomicUsize,
    /// A send was refused since the last `Writable`.
    starved: AtomicBool,
    pub(super) admitted: Notify,
}

impl Shared {
    /// The transport took so many bytes; returns whether the event loop waits to hear of it.
    pub(super) fn drained(&self, bytes: usize) -> bool {
        self.queued.fetch_sub(bytes, Ordering::SeqCst);
        self.starved.swap(false, Ordering::SeqCst)
    }
}

/// Both ends of a new link.
pub(super) fn pair(
    id: LinkId,
    peer: NodeId,
    control: Arc<dyn LinkControl>,
    counters: Arc<TransportCounters>,
) -> (LinkHandle, LinkQueues) {
    let (frames, frames_out) = mpsc::channel(QUEUE_FRAMES);
    let (datagrams, datagrams_out) = mpsc::channel(QUEUE_DATAGRAMS);
    let shared = Arc::new(Shared::default());
    let queues = LinkQueues { frames: frames_out, datagrams: datagrams_out, shared: shared.clone() };
    (LinkHandle { id, peer, frames, datagrams, shared, control, counters }, queues)
}
