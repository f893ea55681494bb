//! `RateLimit`: a bucket of tokens for each key, a bounded number of them.
//!
//! A bucket that nobody took from for as long as it takes to fill is full, as a new one is, so it need not be remembered: keys
//! stand in two maps, and once in that time the older one is forgotten. Where no key more may be remembered, those that have no
//! bucket share one, so that all of them together are limited too.

use std::collections::HashMap;

/// What one event takes: a level counts billionths, so that a nanosecond adds as many as events are told for a second.
const EVENT: u64 = 1_000_000_000;

/// The buckets of a transform. Times are nanoseconds since its first one, from a clock that does not go back; one that does is
/// taken to stand.
#[derive(Debug)]
pub(in crate::transform) struct Buckets {
    /// Events a second.
    rate: u64,
    /// The level of a full bucket.
    full: u64,
    keys_max: usize,
    /// Those that were taken from since `turned`.
    young: HashMap<u128, Bucket>,
    /// Those that were taken from before, and not since.
    old: HashMap<u128, Bucket>,
    /// When the young ones became old.
    turned: u64,
    shared: Bucket,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: u64,
    at: u64,
}

impl Buckets {
    /// Returns full buckets.
    pub(super) fn new(rate: u32, burst: u32, keys_max: u32) -> Self {
        let full = u64::from(burst) * EVENT;
        Self {
            rate: rate.into(),
            full,
            keys_max: keys_max as usize,
            young: HashMap::new(),
            old: HashMap::new(),
            turned: 0,
            shared: Bucket { level: full, at: 0 },
        }
    }

    /// Takes one event of a key where it may; returns whether, and whether the key has a bucket of its own.
    pub(super) fn take(&mut self, key: u128, now: u64) -> (bool, bool) {
        self.turn(now);
        let (rate, full) = (self.rate, self.full);
        if let Some(bucket) = self.bucket(key, now) {
            return (bucket.take(now, rate, full), true);
        }
        (self.shared.take(now, rate, full), false)
    }

    /// Gives back what was taken of a key, or of those that share.
    pub(super) fn give(&mut self, key: Option<u128>, events: u64) {
        let bucket = match key {
            // What is not remembered is full.
            Some(key) => self.young.get_mut(&key).or_else(|| self.old.get_mut(&key)),
            None => Some(&mut self.shared),
        };
        if let Some(bucket) = bucket {
            bucket.level = bucket.level.saturating_add(events.saturating_mul(EVENT)).min(self.full);
        }
    }

    fn bucket(&mut self, key: u128, now: u64) -> Option<&mut Bucket> {
        let known = self.old.remove(&key);
        let is_known = known.is_some() || self.young.contains_key(&key);
        if !is_known && self.young.len() + self.old.len() >= self.keys_max {
            return None;
        }
        let fresh = Bucket { level: self.full, at: now };
        Some(self.young.entry(key).or_insert(known.unwrap_or(fresh)))
    }

    /// Forgets those that are full again.
    fn turn(&mut self, now: u64) {
        let fills = self.full / self.rate.max(1);
        let since = now.saturating_sub(self.turned);
        if since < fills {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        if since / 2 >= fills {
            self.old = HashMap::new();
        }
        self.turned = now;
    }
}

impl Bucket {
    fn take(&mut self, now: u64, rate: u64, full: u64) -> bool {
        let filled = now.saturating_sub(self.at).saturating_mul(rate);
        self.level = self.level.saturating_add(filled).min(full);
        self.at = self.at.max(now);
        let takes = self.level >= EVENT;
        if takes {
            self.level -= EVENT;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn passed(buckets: &mut Buckets, key: u128, now: u64, events: usize) -> usize {
        (0..events).filter(|_| buckets.take(key, now).0).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut buckets = Buckets::new(10, 25, 4);
        assert_eq!(passed(&mut buckets, 1, 0, 100), 25);
        assert_eq!(passed(&mut buckets, 2, 0, 100), 25, "each key has its own");
        let in_steps: usize = (1..=1000).map(|step| passed(&mut buckets, 1, step * SECOND / 100, 10)).sum();
        assert_eq!(in_steps, 100, "ten seconds");
        assert_eq!(passed(&mut buckets, 1, 1000 * SECOND, 100), 25, "no more than full");
    }

    #[test]
    fn a_rate_that_divides_nothing_is_exact() {
        let mut buckets = Buckets::new(3, 2, 4);
        let passed: usize = (0..100_000).map(|step| passed(&mut buckets, 0, step * 1_000_003, 1)).sum();
        assert_eq!(passed, 2 + 299, "a hundred seconds less 0.7 ms");
    }

    #[test]
    fn a_clock_that_jumps_does_no_harm() {
        let mut buckets = Buckets::new(10, 10, 4);
        assert_eq!(passed(&mut buckets, 1, 100 * SECOND, 20), 10);
        assert_eq!(passed(&mut buckets, 1, 0, 20), 0, "back: it stands");
        assert_eq!(passed(&mut buckets, 1, 100 * SECOND + SECOND / 10, 20), 1, "and goes on from where it was");
        assert_eq!(passed(&mut buckets, 1, u64::MAX, 20), 10, "far ahead: full, and no more");
        assert_eq!(passed(&mut buckets, 1, u64::MAX, 20), 0);
    }

    #[test]
    fn keys_beyond_the_limit_share_one_bucket() {
        let mut buckets = Buckets::new(1, 5, 2);
        assert_eq!((passed(&mut buckets, 1, 0, 9), passed(&mut buckets, 2, 0, 9)), (5, 5));
        assert_eq!(buckets.take(3, 0), (true, false));
        assert_eq!((passed(&mut buckets, 3, 0, 9), passed(&mut buckets, 4, 0, 9)), (4, 0));
        assert_eq!(buckets.take(1, 0), (false, true), "who has one keeps it");
        // Key 1 goes on, key 2 rests for as long as it takes to fill.
        for second in 1..=11 {
            assert_eq!(passed(&mut buckets, 1, second * SECOND, 9), 1);
        }
        assert_eq!(buckets.take(3, 11 * SECOND), (true, true), "the place of one that rests is free");
        assert_eq!(passed(&mut buckets, 1, 11 * SECOND, 9), 0, "and nobody got more than is told");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut buckets = Buckets::new(1, 3, 1);
        assert_eq!(passed(&mut buckets, 1, 0, 9), 3);
        buckets.give(Some(1), 2);
        assert_eq!(passed(&mut buckets, 1, 0, 9), 2);
        buckets.give(Some(1), 99);
        assert_eq!(passed(&mut buckets, 1, 0, 9), 3);
        assert_eq!(passed(&mut buckets, 2, 0, 9), 3);
        buckets.give(None, 1);
        buckets.give(Some(7), 1);
        assert_eq!(passed(&mut buckets, 2, 0, 9), 1);
    }

    #[test]
    fn no_more_keys_are_remembered_than_told() {
        let mut buckets = Buckets::new(1000, 1000, 100);
        for step in 0..10_000_u64 {
            buckets.take(u128::from(step), step * 1_000_000);
            assert!(buckets.young.len() + buckets.old.len() <= 100);
        }
    }
}
