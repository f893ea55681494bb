//! Whether a destination may be tried: the circuit breaker of one delivery's target (Nygard, "Release It!", 2007).
//!
//! ```text
//!            too many failures                    its time is over
//! Closed ───────────────────────► Open(until) ───────────────────────► HalfOpen
//!   ▲                               ▲                                   │    │
//!   │                               └────────── the probe failed ───────┘    │
//!   └───────────────────────────────────────── the probe was taken ──────────┘
//! ```
//!
//! Guarantees: pure, every method takes the instant; open means no attempt until the time; half-open means one attempt at
//! a time. Within closed, each failure makes a pause: exponential back-off with full jitter, or what `Retry-After` says. A
//! destination that asks to be left alone for longer than the breaker would open it is taken at its word: it opens.
//! Must not know: events, batches, the log.
//! Limits: the ratio is over the last [`WINDOW_ATTEMPTS`] attempts, and says nothing below [`WINDOW_ATTEMPTS_MIN`].

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{Backoff, RETRY_AFTER_MAX};
use crate::ledger::BreakerState;
use crate::settings::BreakerSettings;

/// Attempts over which the ratio of failures is taken: the bits of a word.
const WINDOW_ATTEMPTS: u32 = u32::BITS;

/// Fewest attempts of which the ratio says something: below, one failure of two would be half.
const WINDOW_ATTEMPTS_MIN: u32 = 10;

/// What part of its time an open breaker may be shorter, at random: a thousand agents do not probe in step.
const OPEN_JITTER: f64 = 0.2;

/// Longest pause after a fault of this machine, whatever `retry.maxSeconds` allows a destination: a device that gives again what it
/// refused is asked within a minute.
const LOCAL_PAUSE_MAX: Duration = Duration::from_mins(1);

/// What became of the last attempts, the newest in the lowest bit.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    failed: u32,
    attempts: u32,
}

impl Window {
    fn push(&mut self, failed: bool) {
        self.failed = self.failed << 1 | u32::from(failed);
        self.attempts = (self.attempts + 1).min(WINDOW_ATTEMPTS);
    }

    fn reaches(self, percent: u32) -> bool {
        self.attempts >= WINDOW_ATTEMPTS_MIN && self.failed.count_ones() * 100 >= percent * self.attempts
    }
}

/// Where the breaker stands.
#[derive(Debug)]
enum State {
    /// Attempts flow.
    Closed {
        /// Failures since the last success.
        in_a_row: u32,
        window: Window,
        since: Instant,
        /// When the destination took something last, since then.
        taken: Instant,
    },
    /// No attempt before then; after it, one decides.
    Open { until: Instant },
    /// One attempt at a time decides.
    HalfOpen,
}

impl State {
    fn closed(since: Instant) -> Self {
        Self::Closed { in_a_row: 0, window: Window::default(), since, taken: since }
    }
}

/// What an attempt that failed as a whole says to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The destination failed.
    Destination,
    /// This machine failed: the log, the cursor. A pause, and nothing about the destination.
    Local,
}

/// The breaker of one target.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    backoff: Backoff,
    state: State,
    /// No attempt before, in any state.
    pause_until: Option<Instant>,
    /// Attempts under way.
    in_flight: usize,
}

impl Breaker {
    /// Returns one that is closed where the destination `was_well`, else half-open: the next attempt decides.
    pub(super) fn new(settings: BreakerSettings, backoff: Backoff, was_well: bool) -> Self {
        let state = if was_well { State::closed(Instant::now()) } else { State::HalfOpen };
        Self { settings, backoff, state, pause_until: None, in_flight: 0 }
    }

    /// Returns where it stands, as it is told.
    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// Returns since when the destination is well, and when it took something last; `None` while it is not well.
    pub(super) fn closed_since(&self) -> Option<(Instant, Instant)> {
        match self.state {
            State::Closed { since, taken, .. } => Some((since, taken)),
            State::Open { .. } | State::HalfOpen => None,
        }
    }

    /// Returns how many attempts are under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns whether an attempt may begin now.
    pub(super) fn permits(&self, now: Instant) -> bool {
        let rested = self.pause_until.is_none_or(|until| until <= now);
        rested
            && match self.state {
                State::Closed { .. } => true,
                State::Open { until } => until <= now && self.in_flight == 0,
                State::HalfOpen => self.in_flight == 0,
            }
    }

    /// Returns when time alone will change what is permitted; `None` when it is not time that is waited for.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let open_until = match self.state {
            State::Open { until } => Some(until),
            State::Closed { .. } | State::HalfOpen => None,
        };
        self.pause_until.max(open_until).filter(|at| *at > now)
    }

    /// Notes that an attempt begins, which was permitted.
    pub(super) fn begin(&mut self) {
        self.in_flight += 1;
        self.pause_until = None;
        if let State::Open { .. } = self.state {
            self.state = State::HalfOpen;
        }
    }

    /// Notes that an attempt has ended; what it came to is told next, unless it says nothing about the destination.
    pub(super) fn landed(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Notes that the destination took something. What was under way when it opened does not close it.
    pub(super) fn succeeded(&mut self, now: Instant) {
        match &mut self.state {
            State::Closed { in_a_row, window, taken, .. } => {
                *in_a_row = 0;
                window.push(false);
                *taken = now;
            }
            State::HalfOpen => self.state = State::closed(now),
            State::Open { .. } => return,
        }
        self.backoff.succeeded();
        self.pause_until = None;
    }

    /// Notes a failure and returns how long nothing is tried.
    pub(super) fn failed(&mut self, now: Instant, blame: Blame, retry_after: Option<Duration>) -> Duration {
        let asked = retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
        match (&mut self.state, blame) {
            (State::Closed { in_a_row, window, .. }, Blame::Destination) => {
                *in_a_row += 1;
                window.push(true);
                let given_up = *in_a_row >= self.settings.consecutive_failures
                    || window.reaches(self.settings.failure_ratio_percent)
                    || asked.is_some_and(|wait| wait > self.settings.open);
                if given_up {
                    return self.open(now, asked);
                }
            }
            (State::HalfOpen, Blame::Destination) => return self.open(now, asked),
            (State::Open { until }, Blame::Destination) if *until <= now => return self.open(now, asked),
            (State::Open { until }, Blame::Destination) => {
                *until = (*until).max(now + asked.unwrap_or_default());
                return *until - now;
            }
            (_, Blame::Local) => {}
        }
        let mut pause = self.backoff.failed(asked);
        if blame == Blame::Local {
            pause = pause.min(LOCAL_PAUSE_MAX);
        }
        self.pause_until = self.pause_until.max(Some(now + pause));
        pause
    }

    /// Returns how long events wait that were left behind `times` before: full jitter below a doubling ceiling.
    pub(super) fn pause_after(&mut self, times: u32) -> Duration {
        self.backoff.pause(times)
    }

    fn open(&mut self, now: Instant, asked: Option<Duration>) -> Duration {
        let part = 1.0 - OPEN_JITTER * self.backoff.unit();
        let time = self.settings.open.mul_f64(part).max(asked.unwrap_or_default());
        self.state = State::Open { until: now + time };
        self.pause_until = None;
        time
    }
}

#[cfg(test)]
mod tests;
