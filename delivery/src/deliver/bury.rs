//! What a removed reference still holds when its time is over.
//!
//! Guarantees: it goes to the dead letters, oldest first, as far as they have room (the rest is dropped,
//! counted); each letter is synced before its event counts as rejected, so that a process that dies in between repeats
//! letters and loses none. While they cannot be written it waits. A reference that comes back meanwhile goes on with what was
//! not reached.
//!
//! Limits: one batch of [`PROBE_BYTES`] is in memory at a time.

use std::time::Duration;

use super::PROBE_BYTES;
use super::batches::{Bounds, Formed};
use super::delivery::Delivery;
use crate::settings::OnUndeliverable;

/// The reason of such letters.
const REASON: &str = "its reference was removed, and its time to deliver was over";

/// The same where the backend must not be used any more.
const REASON_REVOKED: &str = "its backend may not be used any more";

impl Delivery {
    /// Makes dead letters of what is held; returns whether it came as far as it can.
    pub(super) async fn bury(&mut self) -> bool {
        if self.target.spec.settings.on_undeliverable == OnUndeliverable::Drop {
            return true;
        }
        let reason = if self.ground.revoked { REASON_REVOKED } else { REASON };
        self.retry.clear();
        self.former.rewind(self.progress.cursor);
        let bounds = Bounds { bytes: PROBE_BYTES, events: self.target.batch_events_max(), now: true };
        while !self.is_called_away() {
            match self.former.form(bounds, Duration::ZERO, &self.progress).await {
                Ok(Formed::Batch(formed)) => {
                    let (work, batch) = *formed;
                    let full_before = self.without_room();
                    let all = self.reject_all(&work, &batch, reason).await;
                    if self.without_room() > full_before {
                        return true;
                    }
                    self.store(false).await;
                    if !all {
                        break;
                    }
                }
                Ok(Formed::Nothing(first, end)) => self.progress.resolve(first, end),
                Ok(Formed::Wait) => return true,
                Err(error) => {
                    // It is looked at again; what cannot be read for long counts as damage.
                    tracing::debug!(%error, route = %self.key.route, "what a removed reference holds cannot be read now");
                    return false;
                }
            }
        }
        self.begin_anew();
        false
    }

    fn is_called_away(&self) -> bool {
        self.ground.orders.has_changed().unwrap_or(true) || *self.ground.hurry.borrow()
    }
}
