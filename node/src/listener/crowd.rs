//! Connections that have not shown a token yet, counted by the address they come from.
//!
//! Each address may have so many of them, and all together may have so many; beyond, the oldest of that address
//! gives way to the newest, or the oldest of the address that has most. So whoever dribbles takes from nobody else's share, and even from the same address an
//! honest client gets in, since it shows its token at once and no longer counts then.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

use tokio::sync::{Notify, watch};

use crate::origin::origin;

/// Addresses are forgotten once their connections are gone; looked for at this many.
const LOOK_AT: usize = 256;

/// All places by address. One task owns it.
#[derive(Debug)]
pub(crate) struct Crowd {
    places: BTreeMap<IpAddr, VecDeque<Held>>,
    /// Of one address.
    limit: usize,
    /// Of all.
    total: usize,
    /// Given so far.
    given: u64,
}

/// A place that was given, and when in the order of all.
#[derive(Debug)]
struct Held {
    number: u64,
    gives_way: watch::Sender<bool>,
}

impl Crowd {
    /// At most `limit` places for each address and `total` for all of them, at least one.
    pub(crate) fn new(limit: usize, total: usize) -> Self {
        Self { places: BTreeMap::new(), limit: limit.max(1), total: total.max(1), given: 0 }
    }

    /// A place for a connection, and whether another one had to give way for it.
    pub(crate) fn enter(&mut self, address: IpAddr) -> (Place, bool) {
        if self.places.len() >= LOOK_AT.min(self.total) {
            self.places.values_mut().for_each(forget_closed);
            self.places.retain(|_, places| !places.is_empty());
        }
        let key = origin(address);
        let places = self.places.entry(key).or_default();
        forget_closed(places);
        let evicted = if places.len() >= self.limit { pop(places) } else { self.make_room() };
        self.given += 1;
        let (sender, gives_way) = watch::channel(false);
        let held = Held { number: self.given, gives_way: sender };
        self.places.entry(key).or_default().push_back(held);
        (Place { gives_way, shown: Notify::new() }, evicted)
    }

    /// Has somebody give way, if all together have too many: the oldest of whoever has most.
    fn make_room(&mut self) -> bool {
        if self.places.values().map(VecDeque::len).sum::<usize>() < self.total {
            return false;
        }
        self.places.values_mut().for_each(forget_closed);
        if self.places.values().map(VecDeque::len).sum::<usize>() < self.total {
            return false;
        }
        let age = |places: &VecDeque<Held>| places.front().map(|oldest| Reverse(oldest.number));
        let most = self.places.values_mut().max_by_key(|places| (places.len(), age(places)));
        most.is_some_and(pop)
    }
}

fn forget_closed(places: &mut VecDeque<Held>) {
    places.retain(|place| !place.gives_way.is_closed());
}

/// The oldest gives way, if there is one.
fn pop(places: &mut VecDeque<Held>) -> bool {
    places.pop_front().is_some_and(|oldest| {
        oldest.gives_way.send_replace(true);
        true
    })
}

/// A connection's place; dropping it frees it.
#[derive(Debug)]
pub struct Place {
    gives_way: watch::Receiver<bool>,
    shown: Notify,
}

impl Place {
    /// Returns when the connection must end for the sake of a newer one.
    pub async fn gives_way(&self) {
        let mut gives_way = self.gives_way.clone();
        if gives_way.wait_for(|gives_way| *gives_way).await.is_err() {
            // Nobody counts any more.
            std::future::pending::<()>().await;
        }
    }

    /// Says that the client has shown a token: its connection counts no more.
    pub fn show_token(&self) {
        self.shown.notify_one();
    }

    /// Returns when the client has shown a token.
    pub async fn shown(&self) {
        self.shown.notified().await;
    }
}

/// Who came in over the network.
#[derive(Debug)]
pub struct Guest {
    /// Where from.
    pub address: SocketAddr,
    /// Its place among the clients without a token.
    pub place: Place,
}

#[cfg(test)]
impl From<SocketAddr> for Guest {
    /// One that nobody counts.
    fn from(address: SocketAddr) -> Self {
        let (_, gives_way) = watch::channel(false);
        Self { address, place: Place { gives_way, shown: Notify::new() } }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use futures_util::FutureExt as _;

    use std::net::Ipv4Addr;

    use super::*;

    fn is_evicted(place: &Place) -> bool {
        place.gives_way().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_of_the_same_address_gives_way_and_no_other() {
        let mut crowd = Crowd::new(2, 100);
        let (here, there) = ("192.168.1.5".parse().unwrap(), "192.168.1.6".parse().unwrap());
        let (first, _) = crowd.enter(here);
        let (other, _) = crowd.enter(there);
        let (second, evicted) = crowd.enter(here);
        assert!(!evicted && !is_evicted(&first));
        let (third, evicted) = crowd.enter(here);
        assert!(evicted && is_evicted(&first));
        assert!([&second, &third, &other].into_iter().all(|place| !is_evicted(place)));
        // A place that is free again needs nobody to give way.
        drop(second);
        let (fourth, evicted) = crowd.enter(here);
        assert!(!evicted && !is_evicted(&third) && !is_evicted(&fourth));
    }

    #[test]
    fn many_addresses_have_so_many_places_together_and_whoever_has_most_gives_way() {
        let mut crowd = Crowd::new(4, 8);
        let at = |last: u8| IpAddr::from([10, 0, 0, last]);
        let greedy: Vec<_> = (0..4).map(|_| crowd.enter(at(1)).0).collect();
        let modest: Vec<_> = (2..6).map(|last| crowd.enter(at(last)).0).collect();
        let (newest, evicted) = crowd.enter(at(9));
        assert!(evicted && is_evicted(&greedy[0]) && !is_evicted(&newest));
        assert!(modest.iter().all(|place| !is_evicted(place)));
        // Ten thousand addresses with one each: the newest are there, and no more than there is room for.
        let flood: Vec<_> =
            (0..10_000_u32).map(|n| crowd.enter(Ipv4Addr::from(0x0b00_0000 + n).into()).0).collect();
        let held = flood.iter().filter(|place| !is_evicted(place)).count();
        assert!((7..=8).contains(&held), "{held}");
        assert!(!is_evicted(flood.last().unwrap()));
        assert!(crowd.places.len() <= LOOK_AT + 1);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_a_mapped_address_as_its_own() {
        let mut crowd = Crowd::new(1, 100);
        let mut enter = |address: &str| {
            let (place, evicted) = crowd.enter(address.parse().unwrap());
            (Box::leak(Box::new(place)), evicted).1
        };
        assert!(!enter("2001:db8:1:2::1"));
        assert!(enter("2001:db8:1:2:ffff::9"), "the same /64");
        assert!(!enter("2001:db8:1:3::1"), "another /64");
        assert!(!enter("10.0.0.1"));
        assert!(enter("::ffff:10.0.0.1"), "the same address, mapped");
        assert!(!enter("::1"));
        assert!(enter("::1"), "loopback is bounded as well");
    }

    #[test]
    fn addresses_are_forgotten_with_their_connections() {
        let mut crowd = Crowd::new(4, 1_000);
        let held = crowd.enter("10.1.0.1".parse().unwrap());
        for number in 0..10_000_u32 {
            drop(crowd.enter(Ipv4Addr::from(0x0a02_0000 + number).into()));
        }
        assert!(crowd.places.len() <= LOOK_AT, "{}", crowd.places.len());
        assert!(crowd.places.contains_key(&origin("10.1.0.1".parse().unwrap())));
        drop(held);
    }
}
