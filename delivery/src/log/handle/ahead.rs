//! How far a source that can wait runs ahead of the deliveries.
//!
//! What a source reads from files stands there anyway. Where it reads faster than a delivery sends, the delivery falls
//! behind the memory tail and reads from segments what was written a moment ago; where it waits for the delivery, that one
//! reads from memory. It waits for those that keep up alone, and never for long: one that is slow or stands still falls
//! behind the tail within [`TAIL_BYTES_MAX`](crate::log::TAIL_BYTES_MAX), and nobody waits for it from then on.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Log, Shared};
use crate::log::AHEAD_BYTES_MAX;
use crate::settings::Durability;

/// Longest wait of one batch: a source of 1 MiB a batch still reads 50 MB/s beside a delivery that is slower.
pub(super) const AHEAD_WAIT_MAX: Duration = Duration::from_millis(20);

impl Log {
    /// Returns when every delivery that reads from memory is at most [`AHEAD_BYTES_MAX`] behind, after [`AHEAD_WAIT_MAX`] at
    /// the latest. At once at level `Memory`, where what is held stays in memory whoever reads.
    ///
    /// # Cancel safety
    /// May be cancelled at any time.
    pub async fn followed(&self) {
        let until = Instant::now() + AHEAD_WAIT_MAX;
        loop {
            // From before the look: what is read in between is not missed.
            let mut read = pin!(self.inner.read.notified());
            read.as_mut().enable();
            if !is_far_ahead(&self.shared()) || timeout_at(until, read).await.is_err() {
                return;
            }
        }
    }
}

fn is_far_ahead(shared: &Shared) -> bool {
    // What the tail holds is what a reader that keeps up has not read yet.
    shared.tail_bytes > AHEAD_BYTES_MAX && shared.settings.durability != Durability::Memory
}
