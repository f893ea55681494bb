//! How much a destination is given at once: the number of attempts under way, and the size of a batch.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for
//! Congestion Avoidance", 1989), with the slow start and the threshold of TCP (Jacobson, "Congestion Avoidance and
//! Control", 1988; RFC 5681): from one attempt it doubles each round up to the threshold, then grows by one a round, and
//! only while the limit is what holds it back. A destination that asks for less halves it; one that fails as a whole starts
//! anew from one. A rise of latency over its own mean by more than its deviation allows (the idea of gradient limits;
//! Jacobson's mean and mean deviation) takes a tenth.
//!
//! Guarantees: pure; between 1 and the settings' `maxInFlight`; answers to attempts begun before a decrease do not
//! decrease it again. Must not know: events, batches, the log.

use std::time::Duration;

use super::PROBE_BYTES;

/// What is kept of the limit when latency rises.
const LATENCY_DECREASE: f64 = 0.9;

/// Weight of the newest round in the mean latency and its deviation.
const LATENCY_WEIGHT: f64 = 0.25;

/// How many deviations above the mean a round must be to count as a rise.
const LATENCY_DEVIATIONS: f64 = 3.0;

/// Least part above the mean that counts as a rise, whatever the deviation: half as long again.
const LATENCY_RISE_MIN: f64 = 0.5;

/// How much a batch may grow with each success until it has its full size.
const BYTES_GROWTH: usize = 4;

/// What an attempt came to, as far as the pace is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Taken.
    Smooth,
    /// The destination asks for less: throttled, or part of the batch was not taken now.
    Throttled,
    /// It failed as a whole.
    Failed,
    /// Says nothing.
    Nothing,
}

/// Handed out when an attempt begins: which limit it was begun under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Attempts that landed under one limit.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    attempts: u32,
    latency_sum: f64,
    /// The limit held something back.
    full: bool,
}

/// Mean and mean deviation of the rounds' latency, in seconds.
#[derive(Debug, Clone, Copy)]
struct Latency {
    mean: f64,
    deviation: f64,
}

/// The controller of one target.
#[derive(Debug)]
pub(super) struct Pace {
    limit_max: f64,
    limit: f64,
    /// Below it the limit doubles, above it grows by one.
    threshold: f64,
    epoch: u64,
    round: Round,
    latency: Option<Latency>,
    bytes: usize,
    bytes_max: usize,
}

impl Pace {
    pub(super) fn new(in_flight_max: usize, batch_bytes_max: usize) -> Self {
        let limit_max = in_flight_max.max(1) as f64;
        Self {
            limit_max,
            limit: 1.0,
            threshold: limit_max,
            epoch: 0,
            round: Round::default(),
            latency: None,
            bytes: PROBE_BYTES.min(batch_bytes_max),
            bytes_max: batch_bytes_max,
        }
    }

    /// Returns how many attempts may be under way now.
    pub(super) fn in_flight_max(&self) -> usize {
        self.limit as usize
    }

    /// Returns how many payload bytes a batch may have now.
    pub(super) fn batch_bytes(&self) -> usize {
        self.bytes
    }

    /// Notes that an attempt begins and makes `in_flight` of them.
    pub(super) fn begin(&mut self, in_flight: usize) -> Ticket {
        self.round.full |= in_flight >= self.in_flight_max();
        Ticket(self.epoch)
    }

    /// Notes what became of an attempt, and how long it took.
    pub(super) fn landed(&mut self, ticket: Ticket, signal: Signal, latency: Duration) {
        let current = ticket.0 == self.epoch;
        match signal {
            Signal::Failed => {
                self.bytes = PROBE_BYTES.min(self.bytes_max);
                if current {
                    self.decrease(1.0);
                }
            }
            Signal::Throttled if current => self.decrease(self.limit / 2.0),
            Signal::Throttled | Signal::Nothing => {}
            Signal::Smooth => {
                if self.bytes < self.bytes_max {
                    self.bytes = (self.bytes * BYTES_GROWTH).min(self.bytes_max);
                    // Larger batches take longer: what is known of latency is of smaller ones.
                    self.latency = None;
                }
                if current {
                    self.smooth(latency.as_secs_f64());
                }
            }
        }
    }

    fn smooth(&mut self, latency: f64) {
        self.round.attempts += 1;
        self.round.latency_sum += latency;
        if (self.round.attempts as usize) < self.in_flight_max() {
            return;
        }
        let round = std::mem::take(&mut self.round);
        let rose = self.rose(round.latency_sum / f64::from(round.attempts));
        if rose {
            self.threshold = self.limit;
            self.set(self.limit * LATENCY_DECREASE);
        } else if round.full {
            let grown =
                if self.limit < self.threshold { (self.limit * 2.0).min(self.threshold) } else { self.limit + 1.0 };
            self.limit = grown.clamp(1.0, self.limit_max);
        }
    }

    /// Learns a round's mean latency and returns whether it is a rise.
    fn rose(&mut self, now: f64) -> bool {
        let Some(latency) = &mut self.latency else {
            self.latency = Some(Latency { mean: now, deviation: now / 2.0 });
            return false;
        };
        let bar = latency.mean + (LATENCY_DEVIATIONS * latency.deviation).max(LATENCY_RISE_MIN * latency.mean);
        let error = now - latency.mean;
        latency.mean += LATENCY_WEIGHT * error;
        latency.deviation += LATENCY_WEIGHT * (error.abs() - latency.deviation);
        now > bar
    }

    fn decrease(&mut self, to: f64) {
        self.threshold = (self.limit / 2.0).max(1.0);
        self.set(to);
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(1.0, self.limit_max);
        self.epoch += 1;
        self.round = Round::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUICK: Duration = Duration::from_millis(20);

    /// Attempts as many as the limit allows, all with the same outcome.
    fn round(pace: &mut Pace, signal: Signal, latency: Duration) {
        let tickets: Vec<Ticket> = (1..=pace.in_flight_max()).map(|count| pace.begin(count)).collect();
        tickets.into_iter().for_each(|ticket| pace.landed(ticket, signal, latency));
    }

    #[test]
    fn it_starts_with_one_small_batch_and_doubles_to_the_bound() {
        let mut pace = Pace::new(12, 4 << 20);
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push((pace.in_flight_max(), pace.batch_bytes()));
            round(&mut pace, Signal::Smooth, QUICK);
        }
        let limits: Vec<usize> = seen.iter().map(|(limit, _)| *limit).collect();
        assert_eq!(limits, [1, 2, 4, 8, 12, 12]);
        assert_eq!((seen[0].1, pace.batch_bytes()), (PROBE_BYTES, 4 << 20));
    }

    #[test]
    fn throttling_halves_once_a_round_and_growth_is_by_one_from_there() {
        let mut pace = Pace::new(64, 1 << 20);
        (0..6).for_each(|_| round(&mut pace, Signal::Smooth, QUICK));
        let full = pace.in_flight_max();
        round(&mut pace, Signal::Throttled, QUICK);
        assert_eq!(pace.in_flight_max(), full / 2, "sixty-four answers of one round are one signal");
        assert_eq!(pace.batch_bytes(), 1 << 20, "less at once, not smaller");
        round(&mut pace, Signal::Smooth, QUICK);
        assert_eq!(pace.in_flight_max(), full / 2 + 1);
    }

    #[test]
    fn a_failure_starts_anew_from_one_small_batch_and_doubles_to_half_only() {
        let mut pace = Pace::new(16, 1 << 20);
        (0..5).for_each(|_| round(&mut pace, Signal::Smooth, QUICK));
        round(&mut pace, Signal::Failed, QUICK);
        let mut seen = vec![(pace.in_flight_max(), pace.batch_bytes())];
        for _ in 0..5 {
            round(&mut pace, Signal::Smooth, QUICK);
            seen.push((pace.in_flight_max(), pace.batch_bytes()));
        }
        assert_eq!(seen[0], (1, PROBE_BYTES));
        assert_eq!(seen.iter().map(|(limit, _)| *limit).collect::<Vec<_>>(), [1, 2, 4, 8, 9, 10]);
    }

    #[test]
    fn a_rise_of_latency_takes_a_tenth_and_a_new_level_is_learnt() {
        let mut pace = Pace::new(64, PROBE_BYTES);
        (0..20).for_each(|_| round(&mut pace, Signal::Smooth, QUICK));
        assert_eq!(pace.in_flight_max(), 64);
        round(&mut pace, Signal::Smooth, QUICK * 10);
        assert_eq!(pace.in_flight_max(), 57);
        (0..60).for_each(|_| round(&mut pace, Signal::Smooth, QUICK * 10));
        assert_eq!(pace.in_flight_max(), 64, "what stays is no rise");
    }

    #[test]
    fn a_limit_that_holds_nothing_back_does_not_grow() {
        let mut pace = Pace::new(64, PROBE_BYTES);
        round(&mut pace, Signal::Smooth, QUICK);
        for _ in 0..100 {
            let ticket = pace.begin(1);
            pace.landed(ticket, Signal::Smooth, QUICK);
        }
        assert_eq!(pace.in_flight_max(), 2);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(max in 1..64usize, steps in proptest::collection::vec((0..5u8, 0..5000u64), 1..300)) {
            let mut pace = Pace::new(max, 1 << 20);
            let mut tickets = Vec::new();
            for (what, millis) in steps {
                let signal = match what {
                    0 => Signal::Smooth,
                    1 => Signal::Throttled,
                    2 => Signal::Failed,
                    3 => Signal::Nothing,
                    _ => {
                        if tickets.len() < pace.in_flight_max() {
                            tickets.push(pace.begin(tickets.len() + 1));
                        }
                        continue;
                    }
                };
                let before = pace.in_flight_max();
                if let Some(ticket) = tickets.pop() {
                    pace.landed(ticket, signal, Duration::from_millis(millis));
                }
                let now = pace.in_flight_max();
                prop_assert!(now >= 1 && now <= max && now <= 2 * before);
                prop_assert!(pace.batch_bytes() >= PROBE_BYTES && pace.batch_bytes() <= 1 << 20);
                prop_assert!(signal != Signal::Throttled || now <= before);
            }
        }
    }
}
