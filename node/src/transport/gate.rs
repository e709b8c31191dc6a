//! What strangers may use of this node, over both transports together: places for connections that ask
//! for admission, and for links of keys that are not admitted yet.

use std::{collections::BTreeSet, fmt, net::SocketAddr, sync::Arc};

use mesh_proto::NodeId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::Instant,
};

use super::{
    CloseCode, Limits, LinkEventSender, TransportCounters,
    counters::bump,
    pipe::{Closer, JoinPipe},
    places::{Bounds, JoinPlace, Places},
};
use crate::tls::identity::{ALPN_JOIN, Handshake};

/// A connection that asks for admission: its key is proved and unknown, its stream is open.
#[derive(Debug)]
pub struct JoinConnection {
    /// The key that asks.
    pub peer: NodeId,
    /// Where it is.
    pub address: SocketAddr,
    pub(crate) pipe: JoinPipe,
    /// When the exchange must be over.
    pub(crate) deadline: Instant,
    /// Its place among the bounded number of such connections.
    pub(crate) place: JoinPlace,
}

/// Room for one connection.
pub(super) enum Place {
    /// Known keys need none.
    Known,
    Stranger(OwnedSemaphorePermit),
    Join(JoinPlace),
}

/// Lets connections in whose handshake is done.
pub(crate) struct Gate {
    pub(super) events: LinkEventSender,
    pub(super) counters: Arc<TransportCounters>,
    pub(super) limits: Limits,
    known: watch::Sender<BTreeSet<NodeId>>,
    joins: mpsc::Sender<JoinConnection>,
    join_places: Places,
    stranger_places: Arc<Semaphore>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Gate {
    /// Must be called within a tokio runtime.
    pub(super) fn new(
        events: LinkEventSender,
        joins: mpsc::Sender<JoinConnection>,
        counters: Arc<TransportCounters>,
        limits: Limits,
    ) -> Self {
        let bounds = Bounds {
            all: limits.joins,
            of_one_address: limits.joins_of_one_address,
            patience: limits.join_patience,
        };
        Self {
            events,
            counters,
            limits,
            known: watch::Sender::new(BTreeSet::new()),
            joins,
            join_places: Places::start(bounds),
            stranger_places: Arc::new(Semaphore::new(limits.strangers)),
        }
    }

    /// Tells who is in the roster.
    pub(super) fn know(&self, nodes: BTreeSet<NodeId>) {
        self.known.send_replace(nodes);
    }

    /// A place for a connection of this kind, if it needs one; when there is none the peer is
    /// told to try later.
    pub(super) async fn place(
        &self,
        shake: &Handshake,
        connection: Arc<dyn Closer>,
        address: SocketAddr,
    ) -> Option<Place> {
        let counters = &self.counters;
        let (place, counter) = if shake.alpn == ALPN_JOIN {
            let taken = self.join_places.take(address.ip(), connection.clone()).await;
            if taken.as_ref().is_some_and(|taken| taken.has_evicted) {
                bump(&counters.join_evicted);
            }
            (taken.map(|taken| Place::Join(taken.place)), &counters.join_busy)
        } else if self.known.borrow().contains(&shake.peer) {
            return Some(Place::Known);
        } else {
            let place = self.stranger_places.clone().try_acquire_owned().ok();
            (place.map(Place::Stranger), &counters.stranger_busy)
        };
        if place.is_none() {
            bump(counter);
            connection.close(CloseCode::Busy, "too many unknown keys at once, try later");
        }
        place
    }

    /// Hands a connection that asks for admission on.
    pub(super) fn join(&self, peer: NodeId, address: SocketAddr, pipe: JoinPipe, place: JoinPlace) {
        let deadline = Instant::now() + self.limits.join_deadline;
        let join = JoinConnection { peer, address, pipe, deadline, place };
        // As many fit the channel as have a place, unless nobody admits any more.
        if let Err(error) = self.joins.try_send(join) {
            bump(&self.counters.join_busy);
            error.into_inner().pipe.closer().close(CloseCode::Busy, "nobody is admitted now");
        }
    }
}
