//! Token buckets, one for each of whoever asks, in a table of bounded size.
//!
//! A bucket is full at first, and whoever has spent nothing for long enough is as if never seen; so
//! only the newest need be remembered, and what a flood of made-up senders can cost is the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Buckets in one table; the one that was asked least recently goes for a new one.
pub(crate) const MAX_BUCKETS: usize = 1_024;

/// How much a bucket holds, and how fast it fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    /// So many at once.
    pub(crate) burst: f64,
    /// So many a second in the long run.
    pub(crate) a_second: f64,
}

/// What is left in one bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { left: rate.burst, at: now }
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at);
        self.left = rate.a_second.mul_add(passed.as_secs_f64(), self.left).min(rate.burst);
        self.at = now;
        if self.left < 1.0 {
            let seconds = (1.0 - self.left) / rate.a_second;
            return Err(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        }
        self.left -= 1.0;
        Ok(())
    }
}

/// A bucket for each key.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    buckets: BTreeMap<K, Bucket>,
    by_age: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Clone> Buckets<K> {
    /// None yet; each that comes is full.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, buckets: BTreeMap::new(), by_age: BTreeSet::new() }
    }

    /// Takes one out of a bucket.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut bucket = match self.buckets.remove(key) {
            Some(bucket) => {
                self.by_age.remove(&(bucket.at, key.clone()));
                bucket
            }
            None => Bucket::new(self.rate, now),
        };
        let taken = bucket.take(self.rate, now);
        if self.buckets.len() >= MAX_BUCKETS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.buckets.remove(&oldest);
        }
        self.by_age.insert((bucket.at, key.clone()));
        self.buckets.insert(key.clone(), bucket);
        taken
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { burst: 5.0, a_second: 2.0 };

    #[test]
    fn a_burst_is_free_and_then_it_goes_by_the_rate() {
        let (mut buckets, start) = (Buckets::new(RATE), Instant::now());
        for _ in 0..5 {
            buckets.take(&"a", start).unwrap();
        }
        assert_eq!(buckets.take(&"a", start), Err(Duration::from_millis(500)));
        assert_eq!(buckets.take(&"b", start), Ok(()), "another one is not slowed");
        let later = start + Duration::from_millis(600);
        assert_eq!(buckets.take(&"a", later), Ok(()));
        assert!(buckets.take(&"a", later).is_err());
        // Never more than a burst, however long it was quiet; and a clock that stands still gives none.
        let much_later = start + Duration::from_secs(3_600);
        assert_eq!((0..9).filter(|_| buckets.take(&"a", much_later).is_ok()).count(), 5);
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_goes() {
        let (mut buckets, start) = (Buckets::new(RATE), Instant::now());
        for _ in 0..5 {
            buckets.take(&u32::MAX, start).unwrap();
        }
        for number in 0..5_000 {
            let now = start + Duration::from_micros(number.into());
            buckets.take(&number, now).unwrap();
            if number % 500 == 0 {
                let refused = buckets.take(&u32::MAX, now);
                assert!(refused.is_err(), "who asks on is not forgotten, and so gets nothing for it");
            }
        }
        assert_eq!((buckets.buckets.len(), buckets.by_age.len()), (MAX_BUCKETS, MAX_BUCKETS));
        assert!(!buckets.buckets.contains_key(&0));
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_the_burst_and_the_rate(steps in prop::collection::vec(0..3_000_u64, 1..200)) {
            let (mut buckets, start) = (Buckets::new(RATE), Instant::now());
            let (mut now, mut taken) = (start, 0_u32);
            for step in steps {
                now += Duration::from_millis(step);
                taken += u32::from(buckets.take(&(), now).is_ok());
                let most = RATE.a_second.mul_add((now - start).as_secs_f64(), RATE.burst);
                prop_assert!(f64::from(taken) <= most + 0.001, "{taken} of {most}");
            }
        }
    }
}
