//! How much a destination is given in a time: a token bucket for bytes and one for events (Turner, "New Directions in
//! Communications", 1986).
//!
//! A batch goes when neither bucket is in debt, and may take one into debt: a batch larger than a second's worth is late,
//! not stuck. Guarantees: pure; over any time the average holds but for one second's worth and one batch; a clock that
//! stands still or jumps (monotonic time after a machine slept) gives at most one second's worth.

use std::time::Duration;

use tokio::time::Instant;

use crate::settings::RateLimitSettings;

/// How many seconds' worth a bucket holds.
const BURST_SECONDS: f64 = 1.0;

#[derive(Debug)]
struct Bucket {
    per_second: f64,
    /// Negative: in debt.
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: u64, now: Instant) -> Self {
        let per_second = per_second.max(1) as f64;
        Self { per_second, level: per_second * BURST_SECONDS, at: now }
    }

    fn level(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.level + since * self.per_second).min(self.per_second * BURST_SECONDS)
    }

    fn spend(&mut self, now: Instant, amount: usize) {
        self.level = self.level(now) - amount as f64;
        self.at = self.at.max(now);
    }

    /// Returns when it is out of debt; `None` when it is not in debt.
    fn due(&self, now: Instant) -> Option<Instant> {
        let debt = -self.level(now);
        // A microsecond more: rounding must not wake anybody too early, again and again.
        (debt > 0.0).then(|| now + Duration::from_secs_f64(debt / self.per_second) + Duration::from_micros(1))
    }
}

/// The limits of one target; without any it lets everything through.
#[derive(Debug)]
pub(super) struct Rate {
    bytes: Option<Bucket>,
    events: Option<Bucket>,
}

impl Rate {
    pub(super) fn new(settings: RateLimitSettings, now: Instant) -> Self {
        let bucket = |per_second: Option<u64>| per_second.map(|per_second| Bucket::new(per_second, now));
        Self { bytes: bucket(settings.bytes_per_second), events: bucket(settings.events_per_second) }
    }

    /// Returns when the next batch may go; `None` is now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.bytes.iter().chain(&self.events).filter_map(|bucket| bucket.due(now)).max()
    }

    /// Notes that a batch goes.
    pub(super) fn spend(&mut self, now: Instant, bytes: usize, events: usize) {
        for (bucket, amount) in [(&mut self.bytes, bytes), (&mut self.events, events)] {
            if let Some(bucket) = bucket {
                bucket.spend(now, amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(bytes_per_second: u64, events_per_second: u64, now: Instant) -> Rate {
        let settings =
            RateLimitSettings { bytes_per_second: Some(bytes_per_second), events_per_second: Some(events_per_second) };
        Rate::new(settings, now)
    }

    #[tokio::test(start_paused = true)]
    async fn the_slower_of_the_two_counts_and_a_large_batch_is_late_not_stuck() {
        let now = Instant::now();
        let mut rate = rate(1000, 10, now);
        rate.spend(now, 100, 60);
        let due = rate.due(now).unwrap().duration_since(now);
        assert!(due >= Duration::from_secs(5) && due < Duration::from_millis(5001), "{due:?}");
        rate.spend(now, 10_900, 0);
        assert!(rate.due(now).unwrap().duration_since(now) >= Duration::from_secs(10));
        assert_eq!(rate.due(now + Duration::from_secs(11)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_sleep_gives_one_seconds_worth_and_no_more() {
        let now = Instant::now();
        let mut rate = rate(1000, 1000, now);
        let later = now + Duration::from_hours(1000);
        rate.spend(later, 1500, 1);
        assert!(rate.due(later).unwrap().duration_since(later) >= Duration::from_millis(500));
        // An instant of before costs nothing and gives nothing.
        rate.spend(now, 0, 0);
        assert!(rate.due(later).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_everything_goes() {
        let mut rate = Rate::new(RateLimitSettings::default(), Instant::now());
        rate.spend(Instant::now(), usize::MAX, usize::MAX);
        assert_eq!(rate.due(Instant::now()), None);
    }

    proptest! {
        /// Whatever the batches and the pauses: no more than the average, one burst and one batch.
        #[test]
        fn the_average_holds(per_second in 1..100_000u64, steps in proptest::collection::vec((0..3000u64, 0..200_000usize), 1..100)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let _inside = runtime.enter();
            let begun = Instant::now();
            let mut rate = rate(per_second, u64::MAX, begun);
            let (mut now, mut sent, mut largest) = (begun, 0.0, 0.0f64);
            for (pause, bytes) in steps {
                now += Duration::from_millis(pause);
                now = rate.due(now).unwrap_or(now);
                prop_assert_eq!(rate.due(now), None);
                rate.spend(now, bytes, 1);
                sent += bytes as f64;
                largest = largest.max(bytes as f64);
                let allowed = (now - begun).as_secs_f64() * per_second as f64 + per_second as f64 * BURST_SECONDS + largest;
                prop_assert!(sent <= allowed * 1.000_001 + 1.0, "{sent} of {allowed}");
            }
        }
    }
}
