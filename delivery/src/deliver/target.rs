//! One destination of a delivery, and whether and how much it may be given now.
//!
//! Breaker, pace and rate limit are each pure; here they meet. Guarantees: an attempt begins only when all three agree.

use std::time::Duration;

use tokio::time::Instant;

use super::DeliverySpec;
use super::backoff::Backoff;
use super::breaker::{Blame, Breaker};
use super::pace::{Pace, Signal, Ticket};
use super::rate::Rate;
use crate::backend::{Fault, FaultKind, OutBatch, Traits};

/// One destination of a delivery.
pub(super) struct Target {
    pub(super) spec: DeliverySpec,
    pub(super) traits: Traits,
    pub(super) breaker: Breaker,
    pub(super) pace: Pace,
    rate: Rate,
}

impl Target {
    /// Returns one that flows where its destination `was_well`, and else is to be tried by one attempt first.
    pub(super) fn new(mut spec: DeliverySpec, seed: u64, was_well: bool) -> Self {
        let traits = spec.backend.traits();
        if traits.local {
            spec.settings.batch_wait_max = std::time::Duration::ZERO;
        }
        let settings = &spec.settings;
        let backoff = Backoff::new(settings.retry_initial, settings.retry_max, seed);
        let in_flight_max = if traits.ordered { 1 } else { settings.in_flight_max };
        Self {
            breaker: Breaker::new(settings.breaker, backoff, was_well),
            pace: Pace::new(in_flight_max, settings.batch_bytes_max),
            rate: Rate::new(settings.rate, Instant::now()),
            traits,
            spec,
        }
    }

    /// Returns how many events a batch may have.
    pub(super) fn batch_events_max(&self) -> usize {
        self.spec.settings.batch_events_max.min(self.traits.batch_events_max.unwrap_or(usize::MAX))
    }

    /// Returns whether an attempt may begin now.
    pub(super) fn permits(&self, now: Instant) -> bool {
        self.breaker.permits(now)
            && self.breaker.in_flight() < self.pace.in_flight_max()
            && self.rate.due(now).is_none()
    }

    /// Returns when time alone will change what is permitted.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.breaker.wake_at(now).max(self.rate.due(now))
    }

    /// Notes that an attempt begins.
    pub(super) fn begin(&mut self, now: Instant, batch: &OutBatch) -> Ticket {
        self.rate.spend(now, batch.payload_bytes(), batch.len());
        self.breaker.begin();
        self.pace.begin(self.breaker.in_flight())
    }

    /// Notes that an attempt was answered, and what that says of how much it may be given.
    pub(super) fn landed(&mut self, ticket: Ticket, signal: Signal, latency: Duration) {
        self.breaker.landed();
        self.pace.landed(ticket, signal, latency);
    }

    /// Notes that something was taken.
    pub(super) fn succeeded(&mut self) {
        self.breaker.succeeded(Instant::now());
    }

    /// Notes a failure; returns how long nothing is tried.
    pub(super) fn failed(&mut self, fault: &Fault, blame: Blame) -> Duration {
        self.breaker.failed(Instant::now(), blame, fault.retry_after)
    }
}

/// Returns what a fault of an attempt as a whole says of how much its destination may be given.
pub(super) fn signal_of(fault: &Fault) -> Signal {
    match fault.kind {
        FaultKind::Throttled => Signal::Throttled,
        FaultKind::TooLarge => Signal::Nothing,
        FaultKind::Unreachable
        | FaultKind::Timeout
        | FaultKind::Unauthorized
        | FaultKind::Broken
        | FaultKind::Forbidden
        | FaultKind::Local => Signal::Failed,
    }
}
