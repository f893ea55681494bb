//! How long a process waits for a device that refuses: once for all, and not once for each file or log on it.
//!
//! A hundred logs on a volume that is gone would wait a hundred times, one after the other, with every door shut meanwhile.
//! Who comes when the others have waited already needs little more: the device had its time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long the first pause is; each further one is twice as long.
pub const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// Most pauses while a device refuses: 12.7 s together.
pub const PAUSES_MAX: u32 = 7;

/// The pauses of one process for one device.
#[derive(Debug, Default)]
pub struct Patience {
    used: AtomicU32,
}

impl Patience {
    /// Returns one of which nothing is used.
    pub const fn new() -> Self {
        Self { used: AtomicU32::new(0) }
    }

    /// Takes the next pause; `None` where the device has had its time.
    pub fn take(&self) -> Option<Duration> {
        let next = |used: u32| (used < PAUSES_MAX).then_some(used + 1);
        let used = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(PAUSE_FIRST * (1 << used))
    }

    /// Says that the device answers.
    pub fn answered(&self) {
        self.used.store(0, Ordering::Relaxed);
    }
}
