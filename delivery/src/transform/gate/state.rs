//! What a gate remembers; clones share it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::buckets::Buckets;
use super::window::Window;
use super::{KEYS_MAX, RATE_MAX, WINDOW_MAX};
use crate::transform::Action;

/// What a transform remembers from one batch to the next.
#[derive(Debug, Clone)]
pub(in crate::transform) enum State {
    /// Nothing.
    None,
    /// How many events without a key came.
    Sample {
        keep: u32,
        out_of: u32,
        count: Arc<AtomicU64>,
    },
    Buckets(Shared<Buckets>),
    Window(Shared<Window>),
}

/// Something with the time since which it counts.
#[derive(Debug)]
pub(in crate::transform) struct Shared<T> {
    inner: Arc<Mutex<T>>,
    start: Instant,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), start: self.start }
    }
}

impl State {
    /// Returns what a transform remembers at first.
    pub(in crate::transform) fn new(action: &Action) -> Self {
        match action {
            Action::Sample(sample) => {
                Self::Sample { keep: sample.keep, out_of: sample.out_of.max(1), count: Arc::default() }
            }
            Action::RateLimit(limit) => {
                let (rate, burst) = (limit.events_per_second.clamp(1, RATE_MAX), limit.burst_events.clamp(1, RATE_MAX));
                Self::Buckets(Shared::new(Buckets::new(rate, burst, limit.keys_max.min(KEYS_MAX))))
            }
            Action::Deduplicate(deduplicate) => {
                let life = deduplicate.window.min(WINDOW_MAX).as_nanos() as u64;
                Self::Window(Shared::new(Window::new(life, deduplicate.keys_max.min(KEYS_MAX))))
            }
            _ => Self::None,
        }
    }
}

impl<T> Shared<T> {
    fn new(inner: T) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)), start: Instant::now() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time as what is shared counts it.
    pub(super) fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Shared<Buckets> {
    pub(super) fn take(&self, key: u128, now: Instant) -> (bool, bool) {
        self.lock().take(key, self.nanos(now))
    }
}
