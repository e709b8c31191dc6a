//! Wrong attempts by address, in a bounded table: what nobody can guess needs no more than a bound on the noise.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::origin::origin;

/// Addresses whose wrong attempts are remembered at most.
const MAX_ADDRESSES: usize = 1_024;
/// Wrong attempts from an address before it has to wait.
const FREE_ATTEMPTS: u32 = 5;
/// An address that was quiet for so long starts anew.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// The table.
#[derive(Default)]
pub(crate) struct Attempts(BTreeMap<Option<IpAddr>, Attempt>);

struct Attempt {
    wrong: u32,
    last: Instant,
    blocked_until: Instant,
}

impl Attempts {
    /// Takes in a wrong attempt; answers with how many seconds its address has to wait by now, if it has.
    pub(crate) fn wrong(&mut self, remote: Option<IpAddr>, now: Instant) -> Option<u64> {
        let key = remote.map(origin);
        if !self.0.contains_key(&key) && self.0.len() >= MAX_ADDRESSES {
            let oldest = self.0.iter().min_by_key(|(_, attempt)| attempt.last).map(|(key, _)| *key);
            oldest.and_then(|key| self.0.remove(&key));
        }
        let attempt = self.0.entry(key).or_insert(Attempt { wrong: 0, last: now, blocked_until: now });
        if now.duration_since(attempt.last) > FORGET_AFTER {
            attempt.wrong = 0;
        }
        attempt.last = now;
        if now < attempt.blocked_until {
            let left = attempt.blocked_until.duration_since(now);
            return Some(left.as_secs() + 1);
        }
        attempt.wrong = attempt.wrong.saturating_add(1);
        let seconds = match attempt.wrong.saturating_sub(FREE_ATTEMPTS) {
            0 => 0,
            over => 1u64 << over.min(6),
        };
        attempt.blocked_until = now + Duration::from_secs(seconds);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_addresses_is_bounded_and_forgets() {
        let mut attempts = Attempts::default();
        let start = Instant::now();
        for n in 0..5_000u32 {
            attempts.wrong(Some(IpAddr::from(n.to_be_bytes())), start + Duration::from_millis(n.into()));
        }
        assert_eq!(attempts.0.len(), MAX_ADDRESSES);
        let one = Some(IpAddr::from([1, 1, 1, 1]));
        let later = start + Duration::from_secs(60);
        for _ in 0..20 {
            attempts.wrong(one, later);
        }
        assert!(attempts.wrong(one, later).is_some());
        assert_eq!(attempts.wrong(one, later + FORGET_AFTER + Duration::from_secs(1)), None);
    }
}
