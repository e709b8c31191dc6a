//! Places for connections that ask for admission, bounded as a whole and by address.
//!
//! Whoever holds one shows what it wants within a moment, if it is honest: the request is a few
//! hundred bytes that follow the handshake. So when a place is needed, the oldest that has shown
//! nothing yet gives way, and strangers who only sit there keep nobody out.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{CloseCode, pipe::Closer};
use crate::origin::origin;

/// Handshakes that may wait for the owner of the places; it answers at once.
const QUEUE: usize = 64;

/// How many places there are, and for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// All of them.
    pub(super) all: usize,
    /// Those of one address; of IPv6 one /64, of which a single machine may use every address.
    pub(super) of_one_address: usize,
    /// How long a place is safe before its holder has sent its request.
    pub(super) patience: Duration,
}

/// The way to the task that owns the places.
pub(super) struct Places(mpsc::Sender<Ask>);

struct Ask {
    address: IpAddr,
    connection: Arc<dyn Closer>,
    reply: oneshot::Sender<Option<Taken>>,
}

/// A place, and whether another connection gave way for it.
pub(super) struct Taken {
    pub(super) place: JoinPlace,
    pub(super) has_evicted: bool,
}

/// A place; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct JoinPlace(Arc<AtomicBool>);

impl JoinPlace {
    /// The whole request is here: the place is safe from now on.
    pub(crate) fn has_asked(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Places {
    /// Starts the task that owns them; it ends when this is dropped.
    pub(super) fn start(bounds: Bounds) -> Self {
        let (asks, mut queue) = mpsc::channel::<Ask>(QUEUE);
        tokio::spawn(async move {
            let mut table = Table { bounds, next: 0, held: BTreeMap::new() };
            while let Some(Ask { address, connection, reply }) = queue.recv().await {
                let taken = table.take(address, Instant::now(), connection).map(|(place, evicted)| {
                    let has_evicted = evicted.is_some();
                    if let Some(evicted) = evicted {
                        evicted.close(CloseCode::Busy, "too many ask to join, try later");
                    }
                    Taken { place, has_evicted }
                });
                // A handshake that was given up gives its place back.
                let _ = reply.send(taken);
            }
        });
        Self(asks)
    }

    /// A place for this connection, if there is one.
    pub(super) async fn take(&self, address: IpAddr, connection: Arc<dyn Closer>) -> Option<Taken> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Ask { address, connection, reply }).await.ok()?;
        answer.await.ok()?
    }
}

/// Who holds a place; numbers rise with time.
struct Table<T> {
    bounds: Bounds,
    next: u64,
    held: BTreeMap<u64, Holder<T>>,
}

struct Holder<T> {
    what: T,
    from: IpAddr,
    since: Instant,
    has_asked: Weak<AtomicBool>,
}

impl<T> Table<T> {
    /// A place for the newcomer, and who gave way for it; none when nobody can.
    fn take(&mut self, address: IpAddr, now: Instant, what: T) -> Option<(JoinPlace, Option<T>)> {
        self.held.retain(|_, holder| holder.has_asked.strong_count() > 0);
        let from = origin(address);
        let of_its_own = self.held.values().filter(|holder| holder.from == from).count();
        let evicted = if of_its_own >= self.bounds.of_one_address {
            Some(self.evict(now, Some(from))?)
        } else if self.held.len() >= self.bounds.all {
            Some(self.evict(now, None)?)
        } else {
            None
        };
        self.next += 1;
        let place = JoinPlace(Arc::default());
        let has_asked = Arc::downgrade(&place.0);
        self.held.insert(self.next, Holder { what, from, since: now, has_asked });
        Some((place, evicted))
    }

    /// The oldest that has sent no request in its time: of one address, or of all.
    fn evict(&mut self, now: Instant, from: Option<IpAddr>) -> Option<T> {
        let is_idle = |holder: &Holder<T>| {
            let has_asked = holder.has_asked.upgrade().is_some_and(|asked| asked.load(Ordering::Relaxed));
            !has_asked && now >= holder.since + self.bounds.patience
        };
        let mut idle = self
            .held
            .iter()
            .filter(|(_, holder)| from.is_none_or(|from| holder.from == from) && is_idle(holder));
        let number = *idle.next()?.0;
        self.held.remove(&number).map(|holder| holder.what)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn table() -> Table<&'static str> {
        let bounds = Bounds { all: 6, of_one_address: 2, patience: PATIENCE };
        Table { bounds, next: 0, held: BTreeMap::new() }
    }

    #[test]
    fn one_address_takes_its_own_places_only() {
        let (mut table, start) = (table(), Instant::now());
        let first = table.take(at("10.0.0.1"), start, "a").unwrap();
        let _second = table.take(at("10.0.0.1"), start, "b").unwrap();
        assert!(table.take(at("10.0.0.1"), start, "c").is_none(), "each has a moment");
        let other = table.take(at("10.0.0.2"), start, "other").unwrap();
        assert_eq!(other.1, None);
        let later = start + PATIENCE;
        let third = table.take(at("10.0.0.1"), later, "c").unwrap();
        assert_eq!(third.1, Some("a"), "the oldest of its own");
        drop((first, third));
        assert_eq!(table.take(at("10.0.0.1"), later, "d").unwrap().1, None, "a place was given back");
        // Every address of a /64 may be the same machine's.
        let _x = table.take(at("2001:db8::1"), later, "x").unwrap();
        let _y = table.take(at("2001:db8::2"), later, "y").unwrap();
        assert!(table.take(at("2001:db8::ffff"), later, "z").is_none());
        assert!(table.take(at("2001:db8:0:1::1"), later, "z").is_some());
    }

    #[test]
    fn when_all_are_taken_the_oldest_that_has_not_asked_gives_way() {
        let (mut table, start) = (table(), Instant::now());
        let mut places = Vec::new();
        for (number, name) in (1_u8..).zip(["a", "b", "c", "d", "e", "f"]) {
            places.push(table.take(at(&format!("10.0.0.{number}")), start, name).unwrap().0);
        }
        let later = start + PATIENCE;
        places.first().unwrap().has_asked();
        let (place, evicted) = table.take(at("10.0.0.9"), later, "g").unwrap();
        assert_eq!(evicted, Some("b"));
        places.push(place);
        places.iter().for_each(JoinPlace::has_asked);
        assert!(table.take(at("10.0.0.10"), later + PATIENCE, "h").is_none(), "who has asked is served");
        assert_eq!(table.held.len(), 6);
    }
}
