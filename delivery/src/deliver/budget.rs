//! The bytes of all batches under way, over all deliveries.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{BUDGET_BYTES, PROBE_BYTES};

const UNIT_BYTES: usize = 1 << 10;

/// Shared by every delivery of an engine.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

/// Bytes taken; given back when dropped. `None` for a small batch, which takes nothing.
pub(super) type Share = Option<OwnedSemaphorePermit>;

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES / UNIT_BYTES)))
    }

    /// Takes `bytes`, or returns `false` when others have them; a batch larger than the budget takes all of it.
    pub(super) fn take(&self, bytes: usize) -> Result<Share, ()> {
        if bytes <= PROBE_BYTES {
            return Ok(None);
        }
        let units = bytes.min(BUDGET_BYTES).div_ceil(UNIT_BYTES) as u32;
        self.0.clone().try_acquire_many_owned(units).map(Some).map_err(|_| ())
    }
}
