//! How often a client may ask: so much for each identity, and less for each address that shows none.
//!
//! One task owns the buckets. An address is a whole /64 of IPv6.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};

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
/// Questions that may wait; a client of a node that is this busy tries again.
const QUEUE: usize = 256;

#[derive(Debug)]
enum Ask {
    Identity(String),
    Address(IpAddr),
}

type Asked = (Ask, oneshot::Sender<Result<(), Duration>>);

/// The way to the buckets. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pace(mpsc::Sender<Asked>);

/// Their owner.
#[derive(Debug)]
pub struct Pacer {
    asked: mpsc::Receiver<Asked>,
    identities: Buckets<String>,
    addresses: Buckets<IpAddr>,
}

impl Pace {
    /// Both sides.
    pub fn channel() -> (Self, Pacer) {
        let (sender, asked) = mpsc::channel(QUEUE);
        (Self(sender), Pacer { asked, identities: Buckets::new(IDENTITY), addresses: Buckets::new(ADDRESS) })
    }

    /// Counts a request of somebody who is known.
    pub(crate) async fn identity(&self, who: String) -> Result<(), Problem> {
        self.ask(Ask::Identity(who)).await
    }

    /// Counts a request from an address that shows no credentials, or wrong ones.
    pub(crate) async fn address(&self, address: IpAddr) -> Result<(), Problem> {
        self.ask(Ask::Address(origin(address))).await
    }

    async fn ask(&self, ask: Ask) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send((ask, reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Problem::overloaded("too many requests at once"),
            mpsc::error::TrySendError::Closed(_) => Problem::stopping(),
        })?;
        answer.await.map_err(|_| Problem::stopping())?.map_err(too_many)
    }
}

impl Pacer {
    /// Answers until nobody can ask any more.
    pub async fn run(mut self) {
        while let Some((ask, reply)) = self.asked.recv().await {
            let now = Instant::now();
            let taken = match &ask {
                Ask::Identity(who) => self.identities.take(who, now),
                Ask::Address(address) => self.addresses.take(address, now),
            };
            let _ = reply.send(taken); // whoever asked is gone
        }
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
