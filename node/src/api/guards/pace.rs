//! How often a client may ask: so much for each identity, and less for each address that shows none.
//!
//! One task owns the buckets. An address is a whole /64 of IPv6.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    api::problem::Problem,
    buckets::{Bucket, Buckets, Rate},
    origin::origin,
};

/// Requests of one who is known.
const IDENTITY: Rate = Rate { burst: 200.0, a_second: 50.0 };
/// Requests of an address without credentials.
const ADDRESS: Rate = Rate { burst: 100.0, a_second: 20.0 };
/// Messages on one WebSocket.
const MESSAGES: Rate = Rate { burst: 200.0, a_second: 50.0 };
/// WebSockets of one who is known, at once: a quarter of all.
pub(crate) const OBSERVERS: usize = 64;
/// Questions that may wait; a client of a node that is this busy tries again.
const QUEUE: usize = 256;

#[derive(Debug)]
enum Ask {
    Identity(String),
    Address(IpAddr),
}

#[derive(Debug)]
enum Asked {
    Count(Ask, oneshot::Sender<Result<(), Duration>>),
    /// A place for a WebSocket of this identity, unless it has as many as it may.
    Place(String, oneshot::Sender<Option<OwnedSemaphorePermit>>),
}

/// The way to the buckets. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pace(mpsc::Sender<Asked>);

/// Their owner.
#[derive(Debug)]
pub struct Pacer {
    asked: mpsc::Receiver<Asked>,
    identities: Buckets<String>,
    addresses: Buckets<IpAddr>,
    /// Whoever has a WebSocket, with the places that are left.
    observers: BTreeMap<String, Weak<Semaphore>>,
}

impl Pace {
    /// Both sides.
    pub fn channel() -> (Self, Pacer) {
        let (sender, asked) = mpsc::channel(QUEUE);
        let (identities, addresses) = (Buckets::new(IDENTITY), Buckets::new(ADDRESS));
        (Self(sender), Pacer { asked, identities, addresses, observers: BTreeMap::new() })
    }

    /// Counts a request of somebody who is known.
    pub(crate) async fn identity(&self, who: String) -> Result<(), Problem> {
        self.ask(Ask::Identity(who)).await
    }

    /// Counts a request from an address that shows no credentials, or wrong ones.
    pub(crate) async fn address(&self, address: IpAddr) -> Result<(), Problem> {
        self.ask(Ask::Address(origin(address))).await
    }

    /// A place for one more WebSocket of somebody who is known; it is free again once this is dropped.
    pub(crate) async fn observer(&self, who: String) -> Result<OwnedSemaphorePermit, Problem> {
        let (reply, answer) = oneshot::channel();
        self.send(Asked::Place(who, reply))?;
        answer.await.map_err(|_| Problem::stopping())?.ok_or_else(too_many_observers)
    }

    async fn ask(&self, ask: Ask) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        self.send(Asked::Count(ask, reply))?;
        answer.await.map_err(|_| Problem::stopping())?.map_err(too_many)
    }

    fn send(&self, asked: Asked) -> Result<(), Problem> {
        self.0.try_send(asked).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Problem::overloaded("too many requests at once"),
            mpsc::error::TrySendError::Closed(_) => Problem::stopping(),
        })
    }
}

impl Pacer {
    /// Answers until nobody can ask any more.
    pub async fn run(mut self) {
        while let Some(asked) = self.asked.recv().await {
            match asked {
                // Whoever asked may be gone.
                Asked::Count(ask, reply) => drop(reply.send(self.count(&ask, Instant::now()))),
                Asked::Place(who, reply) => drop(reply.send(self.place(who))),
            }
        }
    }

    fn count(&mut self, ask: &Ask, now: Instant) -> Result<(), Duration> {
        match ask {
            Ask::Identity(who) => self.identities.take(who, now),
            Ask::Address(address) => self.addresses.take(address, now),
        }
    }

    /// Places that nobody holds are forgotten: there are never more entries than WebSockets.
    fn place(&mut self, who: String) -> Option<OwnedSemaphorePermit> {
        self.observers.retain(|_, places| places.strong_count() > 0);
        let known = self.observers.get(&who).and_then(Weak::upgrade);
        let places = known.unwrap_or_else(|| Arc::new(Semaphore::new(OBSERVERS)));
        self.observers.insert(who, Arc::downgrade(&places));
        places.try_acquire_owned().ok()
    }
}

/// How often a client may speak on one WebSocket. One that speaks more often is read more slowly: nothing that it
/// says is lost, least of all the last value of a slider.
#[derive(Debug)]
pub(crate) struct Speech(Bucket);

impl Speech {
    /// From now on.
    pub(crate) fn new() -> Self {
        Self(Bucket::new(MESSAGES, Instant::now()))
    }

    /// How long the next message has to wait.
    pub(crate) fn wait(&mut self) -> Option<Duration> {
        self.0.take(MESSAGES, Instant::now()).err()
    }
}

fn too_many(wait: Duration) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-requests",
        "Too many requests",
        "more requests came from the same one than a node answers in the long run",
        "wait as long as `Retry-After` says; a WebSocket on /api/v1/watch tells changes without asking",
    )
    .retry_after(seconds.max(1))
}

fn too_many_observers() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-observers",
        "Too many WebSockets",
        format!("you have {OBSERVERS} WebSockets open on this node already, which is as many as one may have"),
        "close one that is not needed; a program needs one for all that it watches, another program its own token",
    )
    .retry_after(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[tokio::test]
    async fn who_asks_too_often_waits_and_nobody_else_does() {
        let (pace, pacer) = Pace::channel();
        let owner = tokio::spawn(pacer.run());
        let address = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let mut refused = None;
        for last in 0..2_000 {
            if let Err(problem) = pace.address(address(last)).await {
                refused = Some(problem);
                break;
            }
        }
        let refused = refused.expect("one /64 is one sender");
        assert_eq!((refused.status(), refused.slug()), (StatusCode::TOO_MANY_REQUESTS, "too-many-requests"));
        pace.address("192.168.1.5".parse().unwrap()).await.unwrap();
        pace.identity("token:1".to_owned()).await.unwrap();
        drop(pace);
        owner.await.unwrap();
    }

    #[tokio::test]
    async fn one_has_as_many_websockets_as_it_may_and_another_its_own() {
        let (pace, pacer) = Pace::channel();
        tokio::spawn(pacer.run());
        let one = || pace.observer("token:1".to_owned());
        let mut open = Vec::new();
        for _ in 0..OBSERVERS {
            open.push(one().await.unwrap());
        }
        assert_eq!(one().await.unwrap_err().slug(), "too-many-observers");
        let _other = pace.observer("token:2".to_owned()).await.unwrap();
        open.pop();
        open.push(one().await.unwrap());
        assert!(one().await.is_err());
        open.clear();
        drop(one().await.unwrap());
    }

    #[test]
    fn a_slider_is_not_slowed_and_a_flood_is() {
        let mut speech = Speech::new();
        assert!((0..200).all(|_| speech.wait().is_none()));
        let wait = (0..50).find_map(|_| speech.wait()).expect("two hundred at once are enough");
        assert!(wait <= Duration::from_millis(20));
    }

    #[test]
    fn whole_seconds_are_told() {
        let told = |ms| format!("{:?}", too_many(Duration::from_millis(ms)));
        assert!(told(1).contains("retry_after_s: Some(1)") && told(1_001).contains("retry_after_s: Some(2)"));
    }
}
