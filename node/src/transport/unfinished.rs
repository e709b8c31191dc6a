//! A bounded set of handshakes that have not finished.
//!
//! When it is full, the oldest of the sender that has most of them, the newcomer counted, gives way: a flood of slow
//! handshakes delays nobody, since an honest one finishes in milliseconds and is then no longer in the set, and a
//! burst of one sender takes no place from those who have fewer.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    net::IpAddr,
};

use tokio::task::AbortHandle;

use crate::origin::origin;

/// Tasks that each bring one handshake to its end.
#[derive(Debug)]
pub(crate) struct Unfinished {
    tasks: VecDeque<Task>,
    limit: usize,
}

#[derive(Debug)]
struct Task {
    origin: IpAddr,
    handle: AbortHandle,
}

impl Unfinished {
    /// An empty set of at most `limit` tasks, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        Self { tasks: VecDeque::new(), limit: limit.max(1) }
    }

    /// How many are running.
    pub(crate) fn len(&mut self) -> usize {
        self.tasks.retain(|task| !task.handle.is_finished());
        self.tasks.len()
    }

    /// Starts one more, with a client at this address; returns whether another one was dropped for it.
    pub(crate) fn start(
        &mut self,
        address: IpAddr,
        handshake: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let full = self.len() >= self.limit;
        let handle = tokio::spawn(handshake).abort_handle();
        self.tasks.push_back(Task { origin: origin(address), handle });
        if full && let Some(task) = self.least_deserving().and_then(|index| self.tasks.remove(index)) {
            task.handle.abort();
        }
        full
    }

    /// The oldest of the sender that has most; of two senders with as many, the older one's.
    fn least_deserving(&self) -> Option<usize> {
        let mut counts = BTreeMap::<IpAddr, usize>::new();
        for task in &self.tasks {
            *counts.entry(task.origin).or_default() += 1;
        }
        let most = counts.values().max()?;
        self.tasks.iter().position(|task| counts.get(&task.origin) == Some(most))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.handle.abort());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{future::pending, net::Ipv4Addr};

    use super::*;

    fn running(set: &Unfinished, address: IpAddr) -> usize {
        set.tasks.iter().filter(|task| task.origin == address).count()
    }

    #[tokio::test]
    async fn a_burst_from_one_sender_takes_the_place_of_its_own_and_of_nobody_else() {
        let mut set = Unfinished::new(4);
        let [honest, rude] = [1, 2].map(|last| IpAddr::from(Ipv4Addr::new(192, 168, 1, last)));
        assert!(!set.start(honest, pending()));
        // No task gets a turn meanwhile, however quick its handshake would be.
        let dropped = (0..100).filter(|_| set.start(rude, pending())).count();
        assert_eq!(dropped, 97);
        assert_eq!((running(&set, honest), running(&set, rude)), (1, 3));
        // As many of another one: whoever wants more takes it from itself.
        assert!(set.start(honest, pending()));
        assert!(set.start(rude, pending()));
        assert_eq!((running(&set, honest), running(&set, rude)), (2, 2));
    }

    #[tokio::test]
    async fn of_senders_with_as_many_the_oldest_gives_way() {
        let mut set = Unfinished::new(8);
        let sender = |last| IpAddr::from(Ipv4Addr::new(192, 168, 1, last));
        for last in 0..8 {
            assert!(!set.start(sender(last), pending()));
        }
        assert!(set.start(sender(8), pending()));
        assert_eq!((running(&set, sender(0)), running(&set, sender(8)), set.len()), (0, 1, 8));
        // What is finished makes room without that anybody gives way.
        set.tasks.iter().for_each(|task| task.handle.abort());
        while set.len() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!set.start(sender(9), pending()));
    }
}
