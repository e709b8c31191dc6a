//! Keeps links to wanted peers: dials, waits, dials again.
//!
//! The event loop says whom it wants, and who is linked; the dialer owns the waiting. One task per
//! wanted target dials all its addresses, sleeps for as long as the link lives, and tries again with
//! growing pauses while it cannot reach it. New addresses cut a pause short. A node that is linked
//! already is not dialled: a configured name and a known key may well be the same node, and two
//! tasks that take turns in replacing each other's link would never come to rest. Two things are
//! better than to stay: where the link is silent both transports are tried at once, and where it is a
//! WebSocket QUIC is tried every few minutes and when an address changes on either side.

use std::{collections::BTreeMap, fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::NodeId;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::{
    sync::{Semaphore, watch},
    task::AbortHandle,
    time::Instant,
};
use tracing::{debug, info};

use super::{DialError, QuicTransport, TransportKind};
use crate::config::PeerAddress;

/// The first pause after a failure.
pub const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A link that lived this long was a good one: the pauses start again from the first.
const GOOD_LINK: Duration = Duration::from_secs(10);
/// How often new addresses may interrupt a dial, which then starts with all of them.
const MOST_CHANGES: u8 = 3;
/// How much sooner QUIC begins than the WebSocket.
pub const HEAD_START: Duration = Duration::from_millis(300);
/// How often QUIC is tried while the link is a WebSocket.
pub const RETRY_QUIC: Duration = Duration::from_secs(300);
/// How long a link that has just opened may take to replace a silent one.
const HOLD: Duration = Duration::from_secs(2);
/// Dials in progress at once, over all targets.
const PARALLEL_DIALS: usize = 16;

/// Whom to dial.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// A known node: nobody else will do.
    Node(NodeId),
    /// Whoever answers at a configured place. Its name is looked up at every attempt, for it may
    /// lead elsewhere by then, or nowhere yet when the boards have booted before the router.
    Host(PeerAddress),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => node.short().fmt(f),
            Self::Host(place) => place.fmt(f),
        }
    }
}

/// What the dialer is to reach.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Everybody to whom a dialled link is wanted, with the addresses to try (none for a
    /// [`Target::Host`]). Leave out a node that has a good accepted link; keep one whose dialled link is
    /// up, or its pauses are forgotten. Taking a target out does not close its link.
    pub targets: BTreeMap<Target, Vec<SocketAddr>>,
    /// The nodes that are linked, whoever dialled: they are dialled only for something better.
    pub linked: BTreeMap<NodeId, Linked>,
}

/// The best link to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Linked {
    /// Where the node is.
    pub address: SocketAddr,
    /// What carries the link.
    pub transport: TransportKind,
    /// Whether nothing is heard over it.
    pub is_silent: bool,
}

/// Which transports to dial over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// QUIC alone.
    Quic,
    /// The first that opens.
    Either {
        /// How much sooner QUIC begins.
        head_start: Duration,
    },
}

/// How to dial; implemented by [`super::Ways`], and by [`QuicTransport`], which knows one way.
pub trait Dial: Send + Sync + 'static {
    /// Looks a configured place up.
    fn resolve(
        &self,
        name: &str,
        port: u16,
    ) -> impl Future<Output = Result<Vec<SocketAddr>, DialError>> + Send;

    /// Dials once; the outer future ends when the link is up or has failed, and tells who answered;
    /// the inner one ends when the link is down again.
    fn dial(
        &self,
        expected: Option<NodeId>,
        addresses: &[SocketAddr],
        by: By,
    ) -> impl Future<Output = Result<(NodeId, impl Future<Output = ()> + Send), DialError>> + Send;
}

impl Dial for QuicTransport {
    async fn resolve(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        match tokio::net::lookup_host((name, port)).await {
            Ok(found) => Ok(found.collect()),
            Err(reason) => Err(DialError::Unresolved { name: name.into(), reason: reason.to_string() }),
        }
    }

    async fn dial(
        &self,
        expected: Option<NodeId>,
        addresses: &[SocketAddr],
        _by: By,
    ) -> Result<(NodeId, impl Future<Output = ()> + Send), DialError> {
        QuicTransport::dial(self, expected, addresses).await.map(|(node, end)| (node, end.ended()))
    }
}

/// The task that dials. It ends when the sender of `wanted` is dropped.
#[derive(Debug)]
pub struct Dialer<D> {
    dial: Arc<D>,
    wanted: watch::Receiver<Wanted>,
    retry: RetryQuic,
    running: BTreeMap<Target, Running>,
    places: Arc<Semaphore>,
}

/// When QUIC is tried although a WebSocket is up.
#[derive(Clone, Debug)]
struct RetryQuic {
    every: Duration,
    /// The addresses of this node; when they change QUIC may pass.
    ours: watch::Receiver<Vec<SocketAddr>>,
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
        let retry = RetryQuic { every: RETRY_QUIC, ours: watch::channel(Vec::new()).1 };
        Self { dial: Arc::new(dial), wanted, retry, running: BTreeMap::new(), places }
    }

    /// Tries QUIC this often while a link is a WebSocket, and when the addresses of this node change.
    #[must_use]
    pub fn retry_quic(mut self, every: Duration, ours: watch::Receiver<Vec<SocketAddr>>) -> Self {
        self.retry = RetryQuic { every, ours };
        self
    }

    /// Follows `wanted` until its sender is gone.
    pub async fn run(mut self) {
        loop {
            let targets = self.wanted.borrow_and_update().targets.clone();
            self.follow(targets);
            if self.wanted.changed().await.is_err() {
                return;
            }
        }
    }

    fn follow(&mut self, targets: BTreeMap<Target, Vec<SocketAddr>>) {
        self.running.retain(|target, running| {
            let keep = targets.contains_key(target);
            if !keep {
                running.task.abort();
            }
            keep
        });
        for (target, addresses) in targets {
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
                    let keeper = Keeper {
                        dial: self.dial.clone(),
                        node: if let Target::Node(node) = &target { Some(*node) } else { None },
                        target: target.clone(),
                        addresses: receiver,
                        wanted: self.wanted.clone(),
                        retry: self.retry.clone(),
                        places: self.places.clone(),
                        try_quic_at: None,
                        hold_until: Instant::now(),
                    };
                    let task = tokio::spawn(keeper.run()).abort_handle();
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
struct Keeper<D> {
    dial: Arc<D>,
    target: Target,
    /// Who it is: known beforehand, or from the last time that somebody answered at the place.
    node: Option<NodeId>,
    addresses: watch::Receiver<Vec<SocketAddr>>,
    wanted: watch::Receiver<Wanted>,
    retry: RetryQuic,
    places: Arc<Semaphore>,
    /// When QUIC is tried next; set while the link is a WebSocket.
    try_quic_at: Option<Instant>,
    /// Until then a silent link is expected to be replaced by the one that has just opened; over as soon as
    /// the node is heard, for what falls silent from then on is the new link.
    hold_until: Instant,
}

/// Nobody wants anything any more.
struct Over;

/// How a dial ended.
enum Dialled {
    Done(Outcome),
    /// Before it ended there were more addresses: these are all.
    More(Vec<SocketAddr>),
}

/// Why a node is dialled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    NotLinked,
    Silent,
    Better,
}

/// What came of it.
enum Outcome {
    /// A link was up for so long, and is down.
    Lived(Duration),
    /// A link is up, and there is reason for another.
    Better,
    /// The node turned out to be linked.
    Linked,
    Failed(DialError),
}

impl<D: Dial> Keeper<D> {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut reported = None;
        loop {
            let Ok(reason) = self.reason(false).await else { return };
            let Ok(outcome) = self.attempt(reason).await else { return };
            match outcome {
                Outcome::Linked => continue,
                Outcome::Better => {
                    reported = None;
                    continue;
                }
                Outcome::Lived(lived) => {
                    reported = None;
                    if lived >= GOOD_LINK {
                        pause = FIRST_PAUSE;
                    }
                }
                Outcome::Failed(error) if reason == Reason::Better => {
                    debug!(target = %self.target, %error, "QUIC does not pass yet");
                    continue;
                }
                Outcome::Failed(error) => {
                    let target = &self.target;
                    // The same failure every ten seconds is news once.
                    if reported.as_ref() == Some(&error) {
                        debug!(%target, %error, "still not reached");
                    } else {
                        info!(%target, %error, "not reached, trying again");
                        reported = Some(error);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(jittered(pause)) => pause = (pause * 2).min(LONGEST_PAUSE),
                news = self.addresses.changed() => match news {
                    Ok(()) => pause = FIRST_PAUSE,
                    Err(_) => return,
                },
            }
        }
    }

    /// Waits for a reason to dial. While a dialled link is open, that there is none is no reason: its end
    /// is noticed otherwise.
    async fn reason(&mut self, is_open: bool) -> Result<Reason, Over> {
        loop {
            let linked = {
                let wanted = self.wanted.borrow_and_update();
                self.node.and_then(|node| wanted.linked.get(&node).copied())
            };
            let is_websocket = linked.is_some_and(|link| link.transport == TransportKind::WebSocket);
            if linked.is_some_and(|link| !link.is_silent) {
                self.hold_until = Instant::now();
            }
            let due = match linked {
                None if !is_open => return Ok(Reason::NotLinked),
                Some(link) if link.is_silent => Some((self.hold_until, Reason::Silent)),
                Some(_) if is_websocket => {
                    let next = *self.try_quic_at.get_or_insert_with(|| Instant::now() + self.retry.every);
                    Some((next, Reason::Better))
                }
                _ => None,
            };
            if !is_websocket {
                self.try_quic_at = None;
            }
            let sleep = async {
                match due {
                    Some((at, reason)) => {
                        tokio::time::sleep_until(at).await;
                        reason
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.wanted.changed() => changed.map_err(|_| Over)?,
                reason = sleep => return Ok(reason),
                changed = self.addresses.changed(), if is_websocket => {
                    changed.map_err(|_| Over)?;
                    self.try_quic_at = Some(Instant::now());
                }
                Ok(()) = self.retry.ours.changed(), if is_websocket => {
                    self.try_quic_at = Some(Instant::now());
                }
            }
        }
    }

    /// Dials once, or again where there are more addresses, and waits for the link's end or a reason to
    /// dial again.
    async fn attempt(&mut self, reason: Reason) -> Result<Outcome, Over> {
        let (expected, mut addresses) = match &self.target {
            Target::Node(node) => (Some(*node), self.addresses.borrow_and_update().clone()),
            Target::Host(place) => match self.dial.resolve(&place.host, place.port).await {
                Ok(addresses) if reason == Reason::NotLinked => (None, addresses),
                // Somebody else at that place is no better way to the node.
                Ok(addresses) => (self.node, addresses),
                Err(error) => return Ok(self.failed(reason, error)),
            },
        };
        if expected.is_none() && self.finds_linked(&addresses) {
            return Ok(Outcome::Linked);
        }
        let mut changes = MOST_CHANGES;
        loop {
            match self.dial(reason, expected, &addresses, changes > 0).await? {
                Dialled::Done(outcome) => return Ok(outcome),
                Dialled::More(all) => {
                    changes -= 1;
                    addresses = all;
                }
            }
        }
    }

    /// Dials once and waits for the link's end, unless there are new addresses before there is a link:
    /// the old ones may be silent for seconds while a new one would answer.
    async fn dial(
        &mut self,
        reason: Reason,
        expected: Option<NodeId>,
        addresses: &[SocketAddr],
        may_change: bool,
    ) -> Result<Dialled, Over> {
        let by = match reason {
            Reason::NotLinked => By::Either { head_start: HEAD_START },
            Reason::Silent => By::Either { head_start: Duration::ZERO },
            Reason::Better => By::Quic,
        };
        let dial = self.dial.clone();
        let place = self.places.acquire().await.map_err(|_| Over)?;
        let dialled = tokio::select! {
            biased;
            dialled = dial.dial(expected, addresses, by) => dialled,
            all = more_than(addresses, &mut self.addresses), if may_change => return Ok(Dialled::More(all)),
        };
        drop(place);
        Ok(Dialled::Done(match dialled {
            Ok((node, down)) => {
                self.node = Some(node);
                self.try_quic_at = None;
                let since = Instant::now();
                self.hold_until = since + HOLD;
                tokio::select! {
                    () = down => Outcome::Lived(since.elapsed()),
                    reason = self.reason(true) => reason.map(|_| Outcome::Better)?,
                }
            }
            Err(error) => self.failed(reason, error),
        }))
    }

    fn failed(&mut self, reason: Reason, error: DialError) -> Outcome {
        if reason == Reason::Better {
            self.try_quic_at = Some(Instant::now() + self.retry.every);
        }
        Outcome::Failed(error)
    }

    /// Whether a node is linked at one of the addresses; it is then taken to be the one.
    fn finds_linked(&mut self, addresses: &[SocketAddr]) -> bool {
        let wanted = self.wanted.borrow();
        let found = wanted.linked.iter().find(|(_, at)| addresses.contains(&at.address));
        let found = found.map(|(node, _)| *node);
        if found.is_some() {
            self.node = found;
        }
        found.is_some()
    }
}

/// Waits until there is an address that is not among the known; answers with all that there are then.
async fn more_than(
    known: &[SocketAddr],
    addresses: &mut watch::Receiver<Vec<SocketAddr>>,
) -> Vec<SocketAddr> {
    let is_more = |now: &Vec<SocketAddr>| now.iter().any(|address| !known.contains(address));
    if let Ok(now) = addresses.wait_for(is_more).await {
        return now.clone();
    }
    // Nobody wants the target any more; whoever sees to that ends this task.
    std::future::pending().await
}

/// Between half the pause and the whole of it, so that nodes that lost each other at once
/// do not dial at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness the pause is its longest: still correct.
    let share = SystemRandom::new().fill(&mut random).map_or(u32::MAX, |()| u32::from_be_bytes(random));
    pause / 2 + (pause / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
}
