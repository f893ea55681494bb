//! How long to wait before trying again: exponential back-off with full jitter (Brooker, "Exponential Backoff And Jitter", 2015).

use std::time::Duration;

/// Longest wait that a destination may ask for with `Retry-After`: an hour. What asks for more is asked again then.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// The schedule of one target.
#[derive(Debug)]
pub(super) struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    pub(super) fn new(initial: Duration, max: Duration, seed: u64) -> Self {
        Self { initial, max, failures: 0, random: seed | 1 }
    }

    /// Returns how long to wait after one more failure: a random part of `initial * 2^failures`, at most `max`, and no less
    /// than the destination asked for.
    pub(super) fn failed(&mut self, retry_after: Option<Duration>) -> Duration {
        let jitter = self.pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        jitter.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    /// Returns a random part of `initial * 2^failures`, at most `max`.
    pub(super) fn pause(&mut self, failures: u32) -> Duration {
        let ceiling = self.initial.saturating_mul(1 << failures.min(20)).min(self.max);
        // A wait of nothing would hammer; a hundredth of the ceiling keeps the jitter full and the loop calm.
        (ceiling / 100).max(ceiling.mul_f64(self.unit()))
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A number in [0, 1): splitmix64 (Steele et al., 2014).
    pub(super) fn unit(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 40) as f64 / (1u64 << 24) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_honour_the_destination() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60), 7);
        let waits: Vec<Duration> = (0..64).map(|_| backoff.failed(None)).collect();
        assert!(waits[0] <= Duration::from_millis(200));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(60) && *wait >= Duration::from_millis(2)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(20)));
        assert!(backoff.failed(Some(Duration::from_secs(90))) >= Duration::from_secs(90));
        assert!(backoff.failed(Some(Duration::MAX)) <= RETRY_AFTER_MAX);
        backoff.succeeded();
        assert!(backoff.failed(None) <= Duration::from_millis(200));
    }
}
