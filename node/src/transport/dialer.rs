//! Keeps links to wanted peers: dials, waits, dials again.
//!
//! The event loop says whom it wants; the dialer owns the waiting. One task per wanted
//! target dials all its addresses, sleeps for as long as the link lives, and tries again
//! with growing pauses while it cannot reach it. New addresses cut a pause short.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::NodeId;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::{
    sync::{Semaphore, watch},
    task::AbortHandle,
    time::Instant,
};
use tracing::{debug, info};

use super::{DialError, QuicTransport};

/// The first pause after a failure.
pub const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A link that lived this long was a good one: the pauses start again from the first.
const GOOD_LINK: Duration = Duration::from_secs(10);
/// Dials in progress at once, over all targets.
const PARALLEL_DIALS: usize = 16;

/// Whom to dial.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// A known node: nobody else will do.
    Node(NodeId),
    /// Whoever is at a configured address.
    Address(SocketAddr),
}

/// Everybody to whom a dialled link is wanted, with the addresses to try. Leave out a peer
/// that has an accepted link; keep one whose dialled link is up, or it is not dialled again
/// when that link breaks. Taking a target out does not close its link.
pub type Wanted = BTreeMap<Target, Vec<SocketAddr>>;

/// How to dial; implemented by [`QuicTransport`].
pub trait Dial: Send + Sync + 'static {
    /// Dials once; the outer future ends when the link is up or has failed, the inner one
    /// when the link is down again.
    fn dial(
        &self,
        target: Target,
        addresses: Vec<SocketAddr>,
    ) -> impl Future<Output = Result<impl Future<Output = ()> + Send, DialError>> + Send;
}

impl Dial for QuicTransport {
    async fn dial(
        &self,
        target: Target,
        addresses: Vec<SocketAddr>,
    ) -> Result<impl Future<Output = ()> + Send, DialError> {
        let (expected, addresses) = match target {
            Target::Node(node) => (Some(node), addresses),
            Target::Address(address) => (None, vec![address]),
        };
        QuicTransport::dial(self, expected, &addresses).await.map(|(_, end)| end.ended())
    }
}

/// The task that dials. It ends when the sender of `wanted` is dropped.
#[derive(Debug)]
pub struct Dialer<D> {
    dial: Arc<D>,
    wanted: watch::Receiver<Wanted>,
    running: BTreeMap<Target, Running>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Running {
    addresses: watch::Sender<Vec<SocketAddr>>,
    task: AbortHandle,
}

impl<D: Dial> Dialer<D> {
    /// A dialer for whatever `wanted` holds.
    pub fn new(dial: D, wanted: watch::Receiver<Wanted>) -> Self {
        let places = Arc::new(Semaphore::new(PARALLEL_DIALS));
        Self { dial: Arc::new(dial), wanted, running: BTreeMap::new(), places }
    }

    /// Follows `wanted` until its sender is gone.
    pub async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.follow(wanted);
            if self.wanted.changed().await.is_err() {
                return;
            }
        }
    }

    fn follow(&mut self, wanted: Wanted) {
        self.running.retain(|target, running| {
            let keep = wanted.contains_key(target);
            if !keep {
                running.task.abort();
            }
            keep
        });
        for (target, addresses) in wanted {
            match self.running.get(&target) {
                Some(running) => {
                    running.addresses.send_if_modified(|known| {
                        let news = *known != addresses;
                        *known = addresses;
                        news
                    });
                }
                None => {
                    let (sender, receiver) = watch::channel(addresses);
                    let task = keep_linked(self.dial.clone(), target, receiver, self.places.clone());
                    let task = tokio::spawn(task).abort_handle();
                    self.running.insert(target, Running { addresses: sender, task });
                }
            }
        }
    }
}

impl<D> Drop for Dialer<D> {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.task.abort());
    }
}

/// Dials one target for ever.
async fn keep_linked<D: Dial>(
    dial: Arc<D>,
    target: Target,
    mut addresses: watch::Receiver<Vec<SocketAddr>>,
    places: Arc<Semaphore>,
) {
    let mut pause = FIRST_PAUSE;
    let mut reported = None;
    loop {
        let known = addresses.borrow_and_update().clone();
        let outcome = {
            let Ok(_place) = places.acquire().await else { return };
            dial.dial(target, known).await
        };
        match outcome {
            Ok(down) => {
                let since = Instant::now();
                reported = None;
                down.await;
                if since.elapsed() >= GOOD_LINK {
                    pause = FIRST_PAUSE;
                }
            }
            Err(error) => {
                // The same failure every ten seconds is news once.
                if reported.as_ref() == Some(&error) {
                    debug!(?target, %error, "still not reached");
                } else {
                    info!(?target, %error, "not reached, trying again");
                    reported = Some(error);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => pause = (pause * 2).min(LONGEST_PAUSE),
            news = addresses.changed() => match news {
                Ok(()) => pause = FIRST_PAUSE,
                Err(_) => return,
            },
        }
    }
}

/// Between half the pause and the whole of it, so that nodes that lost each other at once
/// do not dial at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness the pause is its longest: still correct.
    let share = SystemRandom::new().fill(&mut random).map_or(u32::MAX, |()| u32::from_be_bytes(random));
    pause / 2 + (pause / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
}
